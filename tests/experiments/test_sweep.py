"""A small study of digits, made by the command and by the graph: killed, begun twice, and never by `make book`."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from uqlib import cli
from uqlib.experiments import image_sets, studies, worklist
from uqlib.files.columns import read_column, read_header

TOML = """
[[study]]
name = "toy"
scale = "cpu"
dataset = "digits"
others = "digits"
images = 200
validation = 0
components = 5
seeds = 2
training = {network = "cifar_resnet8_w8", epochs = 3, batch = 50, lr = 0.05}
weights = {scorer = "pixels", measure = "rmd", normaliser = "minmax", temperature = 0.7}

  [[study.variant]]
  name = "plain"
  loss = "cross_entropy"

  [[study.variant]]
  name = "dear"
  loss = "entropy"
  options = {alpha = 0.1}
  value = 2
"""
ORDER = ["dear 0", "dear 1", "plain 0", "plain 1"]


def clear():
    for each in (studies._all, image_sets.load_study_sets, worklist._training_seconds):
        each.cache_clear()


@pytest.fixture
def checkout(repository, tmp_path, monkeypatch):
    """A checkout whose only study is of digits, and which has no benchmark."""
    (tmp_path / "data/ledger").mkdir(parents=True)
    for name in ("pyproject.toml", "Snakefile"):
        shutil.copy(repository / name, tmp_path)
    for name in ("uqlib", "profiles"):
        (tmp_path / name).symlink_to(repository / name)
    (tmp_path / "notebooks").mkdir()
    for place, text in {"trainings/toy2020": TOML, "benchmarks/order": "cpu = []\ngpu = []\n"}.items():
        path = tmp_path / f"data/{place}.toml"
        path.parent.mkdir(parents=True)
        path.write_text(text)
    monkeypatch.setenv("UQLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    clear()
    yield tmp_path
    clear()


def start(*arguments):
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen(
        [sys.executable, "-m", *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env
    )


def run(*arguments):
    process = start(*arguments)
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output[-3000:]
    return output


def columns(path):
    header = read_header(path)
    return {name: np.array(read_column(path, header, name)) for name in header.columns}


def test_the_plan_has_the_dear_ones_first_and_the_command_of_each(checkout, capsys):
    assert cli.main(["train", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition("uqlib train toy ")[2] for line in lines[:-1]] == ORDER
    assert lines[-1] == "missing: 4, of unknown length"
    assert not (checkout / "data/trained").exists()


@pytest.mark.slow
def test_a_killed_training_goes_on_with_the_same_bits(checkout):
    (checkout / "data/trainings/toy2020.toml").write_text(TOML.replace("epochs = 3", "epochs = 12"))
    clear()
    study = studies.load_study("toy")
    plain = study.variants["plain"]
    file = checkout / study.file(plain, 0)
    run("uqlib.cli", "train", "toy", "plain", "0", "--device", "cpu")
    whole = columns(file)
    file.unlink()
    job = worklist.training_jobs(study, "plain", 0)[0]
    assert not job.courses[0].checkpoint.exists()

    process = start("uqlib.cli", "train", "toy", "plain", "0", "--device", "cpu")
    deadline = time.monotonic() + 120
    while not job.courses[0].read_seconds() and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not file.exists()
    before = job.courses[0].read_seconds()
    assert 0 < len(before) < 12

    assert "toy/plain/0: " in run("uqlib.cli", "train", "toy", "plain", "0", "--device", "cpu")
    again = columns(file)
    assert again.keys() == whole.keys() >= {"correct", "top", "train_loss"}
    assert all(again[name].tobytes() == whole[name].tobytes() for name in whole)
    assert len(json.loads(read_header(file).metadata["about"])["epochs"]) == 12
    assert [path.name for path in file.parent.iterdir()] == [file.name]  # and nothing half-made beside it
    assert run("uqlib.cli", "train", "toy", "plain", "0") == "nothing is missing\n"


@pytest.mark.slow
def test_two_workers_share_what_there_is_and_nobody_makes_it_twice(checkout):
    workers = [start("uqlib.cli", "train", "--minutes", "10", "--device", "cpu") for _ in range(2)]
    outputs = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], outputs
    made = [line.split(":")[0] for output in outputs for line in output.splitlines() if line.startswith("toy/")]
    assert sorted(made) == sorted(f"toy/{each.replace(' ', '/')}" for each in ORDER)
    study = studies.load_study("toy")
    for variant in study.variants.values():
        for seed in range(2):
            assert columns(checkout / study.file(variant, seed))["correct"].shape == (600,)


@pytest.mark.slow
def test_the_graph_lists_exactly_what_is_missing_and_makes_it(checkout):
    (checkout / "data/trainings/toy2020.toml").write_text(TOML.replace("seeds = 2", "seeds = 1"))
    clear()
    study = studies.load_study("toy")
    there, lost = (checkout / study.file(study.variants[name], 0) for name in ("plain", "dear"))
    run("uqlib.cli", "train", "toy", "plain", "0", "--device", "cpu")
    before = there.read_bytes()
    plan = run("snakemake", "--cores", "1", "-n", "--", "trainings")
    outputs = [line.split()[1] for line in plan.splitlines() if line.startswith("    output: ")]
    assert outputs == [str(lost.relative_to(checkout))]
    run("snakemake", "--cores", "2", "--", "trainings")
    made = lost.read_bytes()
    assert there.read_bytes() == before
    # another command in the rule is no reason to train again
    snakefile = (checkout / "Snakefile").read_text()
    (checkout / "Snakefile").write_text(snakefile.replace("/uqlib train", "/uqlib  train"))
    assert "Nothing to be done" in run("snakemake", "--cores", "2", "--", outputs[0])
    assert lost.read_bytes() == made


@pytest.mark.parametrize(("scale", "trains"), [("smoke", False), ("cpu", False), ("gpu", True)])
def test_the_book_trains_at_scale_gpu_alone(repository, tmp_path, monkeypatch, scale, trains):
    """In a fresh clone without images, some of whose trainings are not there either."""
    built = (".*", "_build", "build", "results", "__pycache__", "*.egg-info", "data", "tests", "benchmarks")
    clone = tmp_path / "book"
    shutil.copytree(repository, clone, symlinks=True, ignore=shutil.ignore_patterns(*built))
    (clone / "data").mkdir()
    for each in (repository / "data").iterdir():
        if each.name != "trained":
            (clone / "data" / each.name).symlink_to(each)
    monkeypatch.setenv("UQLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("UQLIB_DATA", raising=False)
    monkeypatch.chdir(clone)
    plan = run("snakemake", "--cores", "1", "-n", "--config", f"scale={scale}", "--", "all")
    rules = {line.split()[1].rstrip(":") for line in plan.splitlines() if line.startswith(("rule ", "localrule "))}
    assert {"run", "book"} <= rules
    assert ({"training", "network"} <= rules) == trains
    if not trains:
        assert not {"training", "network", "difficulty"} & rules
