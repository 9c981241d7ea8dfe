"""Runs are kept one by one in a file that is whole at any time, and their errors are paired over seeds and draws."""

import json
from pathlib import Path

import numpy as np
import pytest

from uqlib.experiments.keeping import kept_columns, kept_runs
from uqlib.experiments.keeping.kept_runs import Found, KeptRun, load_runs, pack_bits, unpack_bits
from uqlib.experiments.transfer.asked_runs import asked_digests, asked_runs, load_asked
from uqlib.files.columns import read_header
from uqlib.metrics.compare import cells

TESTED = 403  # no multiple of eight


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UQLIB_CACHE", str(tmp_path / "cache"))
    path = tmp_path / kept_runs.place_of("toy")
    monkeypatch.setattr(kept_columns, "in_checkout", lambda place: path if path.is_file() else None)
    return path


def answers(share, seed):
    return np.random.default_rng(seed).random(TESTED) < share


def run(name, right, **settings):
    return KeptRun(
        "toy", name, {"name": name} | settings, lambda device: Found({"correct": pack_bits(right)}, {"tested": TESTED})
    )


def test_bits_come_back():
    right = answers(0.7, 0)
    np.testing.assert_array_equal(unpack_bits(pack_bits(right), TESTED), right)


def test_a_file_grows_run_by_run_and_keeps_the_others(place):
    rights = {f"scratch/none/0.4/{seed}": answers(0.6, seed) for seed in range(3)}
    for name, right in rights.items():
        assert run(name, right).is_missing()
        run(name, right).keep()
        assert not run(name, right).is_missing()
    kept = load_runs("toy")
    assert kept.names == list(rights)
    for name, right in rights.items():
        np.testing.assert_array_equal(kept.correct(name), right)
    assert len(json.loads(kept.header.metadata["environments"])) == 1


def test_other_settings_are_another_run_that_takes_the_place_of_the_first(place):
    name = "scratch/none/0.4/0"
    run(name, answers(0.6, 0), epochs=1).keep()
    other = run(name, answers(0.6, 1), epochs=2)
    assert other.is_missing()
    other.keep()
    np.testing.assert_array_equal(load_runs("toy").correct(name), answers(0.6, 1))


def test_errors_are_paired_and_what_is_not_there_is_nan(place):
    for seed in range(3):
        right = answers(0.6, seed)
        run(f"scratch/none/0.4/{seed}", right).keep()
        if seed < 2:
            run(f"supervised/none/0.4/{seed}", right | (np.arange(TESTED) < 40)).keep()
    named = {(start, s): f"{start}/none/{s}" for start in ("scratch", "supervised") for s in ("0.4", "0.8")}
    errors = load_runs("toy").errors(named, "start", "strength", draws=50)
    assert errors.sizes == {"start": 2, "strength": 2, "training": 3, "draw": 51}
    assert errors.sel(strength="0.8").isnull().all()
    assert errors.sel(start="supervised", strength="0.4").isnull().any("draw").values.tolist() == [False, False, True]
    for seed in range(3):
        found = float(errors.sel(start="scratch", strength="0.4", training=seed, draw=0))
        assert found == pytest.approx(1 - answers(0.6, seed).mean(), abs=1e-12)
    gain = (errors.sel(start="supervised") - errors.sel(start="scratch")).sel(strength=["0.4"])
    assert (gain.isel(training=0) <= 0).all()  # on every draw, since the draws are the same
    assert cells(gain)["seeds"].tolist() == [2]


def test_a_seed_that_is_missing_does_not_move_the_others(place):
    rights = {seed: answers(0.6, seed) for seed in (0, 1)}
    run("scratch/none/0.4/1", rights[1]).keep()
    for seed in (1, 0):
        run(f"supervised/none/0.4/{seed}", rights[seed]).keep()
    named = {(start,): f"{start}/none/0.4" for start in ("scratch", "supervised")}
    errors = load_runs("toy").errors(named, "start", draws=20)
    assert errors["training"].values.tolist() == [0, 1]
    assert (errors.sel(start="supervised") == errors.sel(start="scratch")).all("draw").values.tolist() == [False, True]


def test_what_was_never_run_is_named_with_its_command(place):
    with pytest.raises(FileNotFoundError, match="uqlib pretrain"):
        load_runs("toy")
    run("scratch/none/0.4/0", answers(0.6, 0)).keep()
    kept = load_runs("toy")
    with pytest.raises(FileNotFoundError, match="uqlib pretrain toy"):
        kept.errors({("a",): "supervised/none/0.4"}, "start")
    with pytest.raises(ValueError, match=r"number of scratch/none/0\.4/0"):
        kept.number("scratch/none/0.4/0", "accuracy")
    assert kept.seeds("scratch/none/0.4") == [0]


def test_a_run_with_other_settings_than_those_of_today_is_not_read(tmp_path, monkeypatch):
    task = "imbalance_cifar10"
    path = tmp_path / kept_runs.place_of(task)
    monkeypatch.setattr(kept_columns, "in_checkout", lambda place: path)
    monkeypatch.chdir(tmp_path)
    today, stale, *_ = asked_digests(task)
    for name, digest in {today: asked_digests(task)[today], stale: "0" * 16, "scratch/none/9/0": "1" * 16}.items():
        kept_runs.add_run(
            path, name, {"correct": pack_bits(answers(0.6, 0))}, {"digest": digest, "numbers": {"tested": TESTED}}
        )
    assert load_runs(task).names == [today, stale, "scratch/none/9/0"]
    assert load_asked(task).names == [today]
    assert load_asked(task).seeds(stale.rpartition("/")[0]) == []
    with pytest.raises(FileNotFoundError, match=f"uqlib pretrain {task}"):
        load_asked(task).errors({("stale",): stale.rpartition("/")[0]}, "variant")
    with pytest.raises(ValueError, match=r"kind of task 'noises'.*noise"):
        load_asked("noises_cifar10")


@pytest.mark.parametrize("task", sorted({run.task for run in asked_runs()}))
def test_what_travels_with_the_checkout_was_made_with_the_settings_that_the_code_has(task):
    asked = {run.name: run.digest for run in asked_runs() if run.task == task}
    kept = {name: about["digest"] for name, about in json.loads(_metadata(task)["about"]).items()}
    assert not set(kept) - set(asked)
    assert kept == {name: asked[name] for name in kept}


def _metadata(task):
    path = Path(__file__).parents[3] / kept_runs.place_of(task)
    return read_header(path).metadata if path.is_file() else {"about": "{}"}


def test_a_column_of_many_runs_is_an_array_with_names(place):
    for method, seed in [("none", 0), ("none", 2), ("glc", 2)]:
        made = Found({"scores": np.array([[seed, 1], [2, 3]], np.float16) + 10 * (method == "glc")}, {})
        KeptRun("toy", f"scratch/{method}/{seed}", {}, lambda device, made=made: made).keep()
    kept, names = load_runs("toy"), {"head": ["a", "b"], "size": [5, 7]}
    cells = {"plain": "scratch/none", "corrected": "scratch/glc", "nothing": "scratch/forward"}
    found = kept.table(cells, "way", column="scores", names=names)
    assert found.dims == ("way", "training", "head", "size")
    assert found.dtype == np.float64
    assert list(found["way"].values) == ["plain", "corrected"]
    assert list(found["training"].values) == [0, 2]
    assert found.sel(way="plain", training=2, head="a").values.tolist() == [2, 1]
    assert found.sel(way="corrected", training=2, size=7).values.tolist() == [11, 13]
    assert found.sel(way="corrected", training=0).isnull().all()
    with pytest.raises(FileNotFoundError, match="no run of scratch/forward; `uqlib pretrain toy` makes them"):
        kept.table({"nothing": "scratch/forward"}, "way", column="scores", names=names)
