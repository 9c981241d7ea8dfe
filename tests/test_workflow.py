"""The graph: what is stale runs, what is not does not, and a killed run goes on where it was."""

import ast
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import clone

sys.path.insert(0, str(Path(__file__).parents[1] / "profiles"))
import brief

RECORD = "book/results/zhou2025/one_pair.json"
NOTEBOOK = "book/results/zhou2025/one_pair.ipynb"


@pytest.fixture(scope="module")
def copy(repository, tmp_path_factory):
    return clone(repository, tmp_path_factory.mktemp("clone") / "book")


def start(copy, *options, target=RECORD):
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *options, "--", target]
    return subprocess.Popen(
        command, cwd=copy, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def run(copy, *options, target=RECORD):
    process = start(copy, *options, target=target)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output[-3000:]
    return output


def test_killed_then_finished_then_nothing_to_do_then_stale_for_a_reason(copy):
    process = start(copy, "--config", "scale=smoke")
    deadline = time.monotonic() + 120
    while not (copy / "build/log/zhou2025/one_pair.txt").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(3)  # the notebook is running
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (copy / RECORD).exists()
    assert not (copy / NOTEBOOK).exists()
    assert not [path for path in (copy / "book/results").rglob("*") if path.is_file()]  # nothing that Sphinx could read

    assert "reason" in run(copy, "--config", "scale=smoke")
    before = (copy / RECORD).read_text()

    assert "Nothing to be done" in run(copy, "--config", "scale=smoke")
    assert (copy / RECORD).read_text() == before

    plan = run(copy, "-n", "--config", "scale=smoke", "seed=1")
    assert "Params have changed" in plan

    (copy / "uqlib/plots.py").touch()
    assert "Nothing to be done" in run(copy, "-n", "--config", "scale=smoke")  # touched, not changed


def test_the_report_says_which_notebook_runs_in_either_order_of_the_releases():
    lines = (Path(__file__).parent / "data/snakemake_9.27.log").read_text(encoding="utf-8").splitlines(keepends=True)
    assert list(brief.brief(lines)) == [
        "run cui2023/measures: Missing output files: book/results/cui2023/measures.json",
        "run zhou2025/fit: Params have changed since last execution: scale=cpu",
        "uqlib: notebooks/zhou2025/fit.ipynb: cell 3 raised ValueError: no",
        "The run up to there: book/results/zhou2025/fit.failed.ipynb",
        "Error in rule run:",
        "  1 of 4 steps (25%) done",
        "book: Missing output files: _build/html/.buildinfo",
    ]


def runs(process, seconds=5):
    """Whether a process still runs after a while; one that has ended and waits to be noted does not."""
    for _ in range(int(seconds / 0.05)):
        state = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout.strip()
        if not state or state.startswith("Z"):
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_report_and_all_below_it_without_a_word(tmp_path, number):
    child = f"import os, time; open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    process = subprocess.Popen(
        [sys.executable, brief.__file__, "sh", "-c", f'"{sys.executable}" -c "$0"; echo ERROR: x', child],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    below = int((tmp_path / "pid").read_text())
    if number == signal.SIGINT:  # a terminal sends it to all
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == -number
    assert "ERROR" not in output
    assert "brief" not in output
    assert not runs(below)


def test_the_pages_rest_on_all_that_they_import(copy):
    plan = run(copy, "-n", "--config", "scale=smoke", target="book/results/ledger.md")
    resting = next(line for line in plan.splitlines() if "uqlib/cli.py" in line)
    for part in (
        "pages",
        "ledger",
        "records",
        "scales",
        "files",
        "store",
        "arrays",
        "markdown",
        "metrics/classification",
    ):
        assert f"uqlib/{part}.py" in resting


def test_what_was_not_measured_stands_as_a_dash_in_the_prose(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "book/_ext"))
    study = importlib.import_module("study")
    assert study.measured("nan", "+.2f") == study.measured("np.float64(nan)", ".0e") == "–"
    assert study.measured("-0.123", "+.2f") == "-0.12"
    assert study.measured("'words'", "s") == "words"


def test_no_notebook_glues_a_zero_for_what_was_not_measured(repository):
    for path in sorted((repository / "notebooks").glob("*/*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for line in "".join(cell["source"]).splitlines():
                assert not re.search(r"default=0(\.0)?\b", line), f"{path.name}: {line.strip()}"


def test_a_formula_cannot_hold_a_link(repository):
    """MathJax loads \\href, \\style and \\require from files of its own; the book does not have them."""
    text = (repository / "book/_ext/study.py").read_text(encoding="utf-8")
    parts = ast.literal_eval(re.search(r"^PARTS = (.*)$", text, re.M)[1])
    assert not [part for part in parts if "input" in part or "extensions" in part]
