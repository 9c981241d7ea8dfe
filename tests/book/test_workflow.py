"""The graph: what is stale runs, what is not does not, and a killed run goes on where it was."""

import ast
import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import clone

sys.path.insert(0, str(Path(__file__).parents[2] / "profiles"))
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
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(copy)},
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

    assert "stale: zhou2025/one_pair: new" in run(copy, "--config", "scale=smoke")
    before = (copy / RECORD).read_text()

    assert "Nothing to be done" in run(copy, "--config", "scale=smoke")
    assert (copy / RECORD).read_text() == before


def edit(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert old in text, path
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return lambda: path.write_text(text, encoding="utf-8")


def plan(copy, *options, target=RECORD):
    """Whether Snakemake would run the target, and why it is stale as the Snakefile says."""
    text = run(copy, "-n", "--config", "scale=smoke", *options, target=target)
    reasons = dict(re.findall(r"^stale: (\S+): (.*)$", text, re.M))
    assert ("Nothing to be done" in text) != ("Job stats" in text)
    return "Job stats" in text, reasons.get(target.removeprefix("book/results/").partition(".")[0], "")


@pytest.fixture(scope="module")
def built(copy):
    run(copy, "--config", "scale=smoke")
    return copy


def test_times_and_words_run_nothing(built):
    for path in built.rglob("*.py"):
        path.write_text(f"# A comment.\n{path.read_text()}\n\n# Another.\n")
    for path in (*built.rglob("*.ipynb"), built / "uqlib/combine/duos.py"):
        path.touch()
    for place in ("uqlib", "notebooks"):  # as a checkout of another branch and back
        shutil.copytree(built / place, built / "elsewhere")
        shutil.rmtree(built / place)
        (built / "elsewhere").rename(built / place)
    assert plan(built) == (False, "")


@pytest.mark.parametrize(
    ("file", "old", "new", "why"),
    [
        ("uqlib/combine/duos.py", "def fit_duo(", "def unrelated():\n    return 1\n\n\ndef fit_duo(", ""),
        ("uqlib/combine/duos.py", "\ndef fit_duo(", "\ndef fit_duo(unrelated=1, *, ", "combine.duos.fit_duo changed"),
        (
            "uqlib/report/plots.py",
            "def use_style(",
            "def use_style(unrelated=1, *rest, ",
            "report.plots.use_style changed",
        ),
        ("uqlib/images/corruptions/__init__.py", "def corrupt(", "def corrupt(unrelated=1, *rest, ", ""),
        (
            "notebooks/zhou2025/one_pair.ipynb",
            "import numpy as np",
            "import math, numpy as np",
            "its cells changed",
        ),
        ("notebooks/zhou2025/one_pair.ipynb", '"cell_type": "markdown",', '"cell_type": "markdown" ,', "text alone"),
        ("book/results/zhou2025/one_pair.json", "one_pair", "one_pear", "one_pair.json is not as it was written"),
    ],
)
def test_only_what_counts_makes_a_run_stale(built, file, old, new, why):
    restore = edit(built / file, old, new)
    try:
        assert plan(built) == (why not in ("", "text alone"), why)
    finally:
        restore()
    assert plan(built) == (False, "")


def test_another_seed_or_scale_is_another_run(built):
    assert plan(built, "seed=1") == (True, "seed = 1")
    text = run(built, "-n", "--config", "scale=cpu")
    assert "stale: zhou2025/one_pair: scale = 'cpu'" in text


def test_new_text_is_taken_over_without_a_run(built):
    restore = edit(built / "notebooks/zhou2025/one_pair.ipynb", "# One pair", "# New: one pair")
    record = (built / RECORD).read_bytes()
    old = json.loads((built / NOTEBOOK).read_text())
    text = run(built, "--config", "scale=smoke")
    assert "stale: zhou2025/one_pair: text alone" in text
    assert "Nothing to be done" in text
    new = json.loads((built / NOTEBOOK).read_text())
    assert (built / RECORD).read_bytes() == record
    assert [c.get("outputs") for c in old["cells"]] == [c.get("outputs") for c in new["cells"]]
    assert [c["source"] for c in old["cells"]] != [c["source"] for c in new["cells"]]
    assert plan(built) == (False, "")
    restore()
    run(built, "--config", "scale=smoke")
    assert json.loads((built / NOTEBOOK).read_text()) == old


def test_outputs_of_a_clock_that_ran_ahead_run_again_when_stale(built):
    for path in (built / NOTEBOOK).parent.glob("one_pair.*"):
        os.utime(path, (time.time() + 9e6,) * 2)
    assert plan(built) == (False, "")
    restore = edit(built / "uqlib/combine/duos.py", "\ndef fit_duo(", "\ndef fit_duo(unrelated=1, *, ")
    assert plan(built) == (True, "combine.duos.fit_duo changed")
    restore()


def test_the_command_says_the_same(built):
    command = [sys.executable, "-m", "uqlib.cli", "stale", "--scale", "smoke"]
    env = os.environ | {"PYTHONPATH": str(built)}
    text = subprocess.run(command, cwd=built, capture_output=True, text=True, check=True, env=env).stdout
    assert "zhou2025/one_pair" not in text.split("pages:")[0]
    assert "cui2023/measures: new\n" in text
    assert re.search(r"^pages: after amininaieni2024/scenes, .* and \d+ more$", text, re.M)


def test_what_a_killed_run_began_is_stale(built):
    restore = edit(built / "uqlib/combine/duos.py", "\ndef fit_duo(", "\ndef fit_duo(unrelated=1, *, ")
    process = start(built, "--config", "scale=smoke")
    deadline = time.monotonic() + 60
    outputs = [(built / RECORD).with_suffix(kind) for kind in (".json", ".ipynb", ".basis")]
    while (
        any(path.exists() for path in outputs) and time.monotonic() < deadline
    ):  # Snakemake removes them before it starts
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    restore()
    assert plan(built) == (True, "new")


def test_the_report_says_which_notebook_runs_in_either_order_of_the_releases():
    lines = (
        (Path(__file__).parents[1] / "data/snakemake_9.27.log").read_text(encoding="utf-8").splitlines(keepends=True)
    )
    assert list(brief.brief(lines)) == [
        "run cui2023/measures: Missing output files: book/results/cui2023/measures.json",
        "run zhou2025/fit: Params have changed since last execution: scale=cpu",
        "uqlib: notebooks/zhou2025/fit.ipynb: cell 3 raised ValueError: no",
        "The run up to there: book/results/zhou2025/fit.failed.ipynb",
        "Error in rule run:",
        "  1 of 4 steps (25%) done",
        "book: Missing output files: _build/html/.buildinfo",
    ]


def test_what_the_snakefile_has_said_is_not_said_again():
    lines = ["stale: p/a: its cells changed\n", "rule run:\n", "    reason: Updated input files\n", "    wildcards: notebook=p/a\n",
             "\n", "rule pages:\n", "    reason: Forced\n", "\n"]  # fmt: skip
    assert list(brief.brief(lines)) == ["p/a: its cells changed", "run p/a", "pages: Forced"]


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
