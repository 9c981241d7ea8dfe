"""A short run of benchmarks/kills.py: a notebook killed at random moments."""

import random

import nbformat
import pytest

NOTEBOOK = [
    """
import time
import matplotlib.pyplot as plt
from uqlib.evidence import records
run = records.start_run("p2020/one", scale=scale, parameters={}, path=record)
""",
    """
for k in range(5):
    run.add("change", k, setting=f"{k}")
    time.sleep(0.1)
fig, ax = plt.subplots()
plt.rcParams["svg.hashsalt"] = "salt"
run.save_figure(fig, "line")
run.save();
""",
]


@pytest.mark.slow
def test_killed_runs_leave_nothing_and_the_next_one_has_the_same_bits(repository, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    import kills

    body = nbformat.v4.new_notebook()
    body.cells = [nbformat.v4.new_code_cell('scale = "cpu"\nrecord = ""', metadata={"tags": ["parameters"]})]
    body.cells += map(nbformat.v4.new_code_cell, NOTEBOOK)
    nbformat.write(body, tmp_path / "one.ipynb")
    tried = kills.kill_runs(2, random.Random(1), tmp_path, say=lambda line: None, notebook=str(tmp_path / "one.ipynb"))
    assert [each.faults for each in tried] == [[], []]
