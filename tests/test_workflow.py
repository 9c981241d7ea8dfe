"""The graph: what is stale runs, what is not does not, and a killed run goes on where it was."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.xdist_group("workflow")
RECORD = "book/results/zhou2025/one_pair.json"
NOTEBOOK = "book/results/zhou2025/one_pair.ipynb"


@pytest.fixture(scope="module")
def copy(repository, tmp_path_factory):
    """The checkout without what was built in it."""
    target = tmp_path_factory.mktemp("clone") / "book"
    shutil.copytree(repository, target, symlinks=True, ignore=shutil.ignore_patterns(
        ".venv", ".git", ".bench", "_build", "build", "results", ".snakemake", "__pycache__", ".hypothesis", ".*_cache"
    ))  # fmt: skip
    return target


def start(copy, *options):
    command = [sys.executable, "-m", "snakemake", "--cores", "1", *options, "--", RECORD]
    return subprocess.Popen(
        command, cwd=copy, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def run(copy, *options):
    process = start(copy, *options)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output[-3000:]
    return output


def test_killed_then_finished_then_nothing_to_do_then_stale_for_a_reason(copy):
    process = start(copy, "--config", "scale=smoke")
    deadline = time.monotonic() + 120
    while not list((copy / "book/results").glob("zhou2025/.*.ipynb")) and time.monotonic() < deadline:
        time.sleep(0.05)  # papermill has written its temporary copy: the notebook is running
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (copy / RECORD).exists()
    assert not (copy / NOTEBOOK).exists()

    assert "reason" in run(copy, "--config", "scale=smoke")
    before = (copy / RECORD).read_text()

    assert "Nothing to be done" in run(copy, "--config", "scale=smoke")
    assert (copy / RECORD).read_text() == before

    plan = run(copy, "-n", "--config", "scale=smoke", "seed=1")
    assert "Params have changed" in plan

    (copy / "uqlib/plots.py").touch()
    assert "Nothing to be done" in run(copy, "-n", "--config", "scale=smoke")  # touched, not changed
