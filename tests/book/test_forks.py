"""Runs in forks of one process that has imported everything are those of processes of their own."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_staleness import CELLS, write_notebook

sys.path.insert(0, str(Path(__file__).parents[2] / "profiles"))
import forks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are lent on Linux alone")

ALONE = """
import builtins, os, random, sys
import matplotlib.pyplot as plt
import numpy as np
import torch
from uqlib import metrics
print(hasattr(builtins, "seen"), os.environ.get("SEEN"), "UQLIB_FORKS" in os.environ, hasattr(metrics, "seen"), sys.argv[0])
print(torch.get_num_threads(), torch.get_default_dtype(), plt.get_backend(), sys.path)
print(os.path.basename(os.getcwd()), sorted(name for name in sys.modules if name.startswith("uqlib.")))
builtins.seen = metrics.seen = os.environ["SEEN"] = "yes"
torch.manual_seed(3); torch.set_default_dtype(torch.float64)
plt.rcParams["svg.hashsalt"] = "salt"
%config InlineBackend.figure_formats = ["svg"]
plt.plot([0, 1])
"""
DRAW = """
import random
import numpy as np
import torch
open("drawn", "a").write(f"{np.random.rand()}, {random.random()}, {torch.rand(1).item()}, ")
"""
WAIT = """
import os, time
open("running", "w").write(f"{os.getppid()} {os.getpid()}")
while not os.path.exists("go on"):
    time.sleep(0.02)
"""


FEW = ["papermill", "ipykernel_launcher"]


class Lender:
    """A process that lends forks, and the environment of those who borrow."""

    def __init__(self, folder, imported=forks.IMPORTED):
        self.place = forks.start(folder / "log/forks.txt", imported)
        self.process = forks.started.pop()
        self.environment = os.environ | forks.ONE_THREAD | {"UQLIB_FORKS": self.place}

    def end(self):
        self.process.stdin.close()
        self.process.wait(30)


@pytest.fixture(scope="module")
def lender(repository, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(repository))
        found = Lender(tmp_path_factory.mktemp("forks"))
        yield found
        found.end()


@pytest.fixture
def run(lender, tmp_path, monkeypatch):
    """Runs a notebook of these cells in a checkout of its own, in a fork or in a process of its own."""
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)

    def start(*cells, lent=True, name="one", **environment):
        write_notebook(tmp_path / f"notebooks/p/{name}.ipynb", cells)
        command = [
            sys.executable,
            "-m",
            "uqlib.cli",
            "run",
            f"notebooks/p/{name}.ipynb",
            "--basis",
            "-o",
            f"out/{name}.ipynb",
        ]
        env = {name: value for name, value in lender.environment.items() if lent or name != "UQLIB_FORKS"} | environment
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


def ended(process, seconds=60):
    output, errors = process.communicate(timeout=seconds)
    return process.returncode, output, errors


def running(process):
    """The numbers of the run and of its kernel, once the cell WAIT has begun."""
    deadline = time.monotonic() + 60
    while not (os.path.exists("running") and os.stat("running").st_size) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return [int(number) for number in Path("running").read_text().split()]


def gone(process, seconds=10):
    for _ in range(int(seconds / 0.05)):
        if not os.path.exists(f"/proc/{process}"):
            return True
        time.sleep(0.05)
    return False


def test_runs_do_not_see_each_other_and_are_those_of_a_process_of_their_own(run):
    said = [ended(run(ALONE, lent=lent)) for lent in (True, True)]
    forked = Path("out/one.ipynb").read_bytes()
    said.append(ended(run(ALONE, lent=False)))
    assert said == [(0, "executed: out/one.ipynb\n", "")] * 3
    assert Path("out/one.ipynb").read_bytes() == forked
    assert b"False None False False" in forked
    assert b"matplotlib_inline" in forked
    assert b"<svg" in forked


def test_draws_without_a_seed_are_not_those_of_another_run(run):
    assert [ended(run(DRAW))[0] for _ in range(3)] == [0, 0, 0]
    assert len(set(Path("drawn").read_text().split(", "))) == 10


def test_the_basis_is_that_of_a_process_of_its_own(run, tmp_path):
    import numpy as np

    from uqlib.files.columns import write_table

    bases = []
    for lent in (True, False):
        shutil.rmtree("data", ignore_errors=True)
        (tmp_path / "data").mkdir()
        for name in ("a.txt", "map.bin", "by_others.bin", "one.csv"):
            Path("data", name).write_text(name)
        write_table("data/table.safetensors", {"x": np.arange(3.0)}, {})
        time.sleep(0.05)
        assert ended(run(*CELLS, lent=lent))[:2] == (0, "executed: out/one.ipynb\nrecord:   out/one.json\n")
        bases.append(json.loads(Path("out/one.basis").read_text()))
    assert len(bases[0]["files"]) == 5
    assert bases[0] == bases[1]


def test_code_that_changed_meanwhile_is_read_anew(run, tmp_path):
    for value in (1, 2):
        Path("uqlib_like.py").write_text(f"value = {value}")
        ended(run("from uqlib_like import value\nprint('value', value)"))
        assert f"value {value}\\n" in Path("out/one.ipynb").read_text()


def test_a_kernel_that_dies_and_a_cell_that_fails_are_reported(run):
    for cells, reason in (
        [("1 + 1", "import os; os._exit(3)"), "the kernel died in cell"],
        [("1 / 0",), "ZeroDivisionError"],
    ):
        forked, alone = (ended(run(*cells, lent=lent)) for lent in (True, False))
        assert forked == alone
        assert forked[0] == 1
        assert reason in forked[2]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_with_the_borrower_run_and_kernel_end(run, number, code):
    process = run(WAIT)
    below = running(process)
    process.send_signal(number)
    assert ended(process)[0] == code
    assert all(map(gone, below))
    assert not os.path.exists("out/one.ipynb")
    assert not [path for path in Path("out").iterdir()]


def test_a_fork_that_is_killed_is_reported_and_its_kernel_ends(run):
    process = run(WAIT)
    below = running(process)
    os.kill(below[0], signal.SIGKILL)
    code, _, errors = ended(process)
    assert code == 1
    assert "was killed; out of memory is the usual reason" in errors
    assert all(map(gone, below))


def test_from_another_environment_nothing_is_lent(run):
    code, output, errors = ended(run("print(1)", OMP_NUM_THREADS="2"))
    assert (code, output) == (0, "executed: out/one.ipynb\n")
    assert errors == (
        "uqlib: no fork was lent (OMP_NUM_THREADS was '1' when it began, not '2'); this command imports for itself\n"
    )


def test_a_lender_that_was_killed_ends_no_run_and_the_next_one_does_without(
    run, lender, tmp_path, monkeypatch, repository
):
    monkeypatch.setenv("PYTHONPATH", str(repository))
    other = Lender(tmp_path, FEW)
    process = run(WAIT, UQLIB_FORKS=other.place)
    below = running(process)
    other.process.kill()
    other.end()
    Path("go on").touch()
    assert ended(process)[0] == 0
    assert all(map(gone, below))
    code, output, errors = ended(run("print(1)", UQLIB_FORKS=other.place))
    assert (code, output) == (0, "executed: out/one.ipynb\n")
    assert "no fork was lent ([Errno 111] Connection refused); this command imports for itself" in errors
    shutil.rmtree(Path(other.place).parent)


def test_a_lender_ends_with_who_started_it_and_leaves_nothing(tmp_path, repository):
    code = f"import forks; from pathlib import Path; place = forks.start(Path('log'), {FEW}); print(place, forks.started[0].pid)"
    env = os.environ | {"PYTHONPATH": f"{repository}:{repository / 'profiles'}"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True, check=True
    )
    place, process = done.stdout.split()
    assert gone(int(process), 60)
    assert not Path(place).parent.exists()
    assert (tmp_path / "log").read_text() == ""
