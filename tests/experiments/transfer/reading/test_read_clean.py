"""What is read off kept confidences: against scikit-learn, against closed forms, paired over seeds and draws, NaN where nothing is."""

import json
import math

import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import average_precision_score, roc_auc_score

from uqlib.base.provenance import environment
from uqlib.experiments.keeping import kept_columns, kept_runs
from uqlib.experiments.keeping.kept_runs import load_runs, pack_bits
from uqlib.experiments.transfer.reading import read_clean
from uqlib.files.columns import write_table
from uqlib.metrics.compare import cells

pytestmark = pytest.mark.usefixtures("every_run_counts")

TESTED, TOLD, OTHERS = 900, 600, 120
SETS = ["gaussian", "uniform", "rademacher", "blobs", "cifar100", "tiny_imagenet", "caltech101"]
SCRATCH, TUNED = "scratch/trained/4000", "supervised/tuned/4000"


def confidences(seed, shift=0.0):
    return np.random.default_rng(seed).uniform(0.15 + shift, 0.95, TOLD)


def run_of(seed, shift=0.0, right=None):
    """Confidences, and answers that are right as often as they say if nothing else is given."""
    rng, sure = np.random.default_rng(1000 + seed), confidences(seed, shift)
    if right is None:
        right = np.concatenate([rng.random(TOLD) < sure, rng.random(TESTED - TOLD) < sure.mean()])
    columns = {"correct": pack_bits(right), "top": -np.log(sure), "top_scaled": -np.log(sure**2), "largest": 5 * sure}
    for k, name in enumerate(SETS):
        strange = rng.uniform(0.1, 0.6 + 0.05 * k, OTHERS)
        columns |= {f"top_{name}": -np.log(strange), f"largest_{name}": rng.permutation(5 * strange)}
    return columns, {"tested": TESTED}


@pytest.fixture
def keep(tmp_path, monkeypatch):
    """Writes a file of runs where it is looked for."""
    monkeypatch.setattr(
        kept_columns, "in_checkout", lambda place: path if (path := tmp_path / place).is_file() else None
    )

    def write(task, runs):
        columns = {f"{name}:{each}": array for name, (own, _) in runs.items() for each, array in own.items()}
        about = {name: {"numbers": numbers} for name, (_, numbers) in runs.items()}
        metadata = {"about": json.dumps(about), "environments": json.dumps([environment()])}
        path = tmp_path / kept_runs.place_of(task)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, columns, metadata)

    return write


@pytest.fixture
def two(keep):
    """From scratch seeds 0 and 1, tuned 1 and 2, on CIFAR-10 alone."""
    runs = {f"{SCRATCH}/{seed}": run_of(seed) for seed in (0, 1)}
    runs |= {f"{TUNED}/{seed}": run_of(seed, shift=0.2) for seed in (1, 2)}
    keep("clean_cifar10", runs)


BOTH = ["scratch", "supervised"]


def test_auroc_and_aupr_are_those_of_scikit_learn_with_the_other_images_positive(two):
    found = read_clean.unfamiliar_scores(BOTH, ["max_probability", "max_logit"], draws=0)
    kept = load_runs("clean_cifar10")
    for score, column, sign in (("max_probability", "top", 1), ("max_logit", "largest", -1)):
        for name, where in zip(read_clean.SETS, SETS, strict=True):
            doubt = sign * np.concatenate([kept.column(f"{TUNED}/2", each) for each in (column, f"{column}_{where}")])
            other = np.arange(TOLD + OTHERS) >= TOLD
            own = found.sel(dataset="CIFAR-10", variant="supervised", training=2, score=score, set=name, draw=0)
            assert own.sel(measure="auroc").item() == pytest.approx(roc_auc_score(other, doubt), abs=1e-12)
            assert own.sel(measure="aupr").item() == pytest.approx(average_precision_score(other, doubt), abs=1e-12)


def test_the_energy_is_minus_the_log_of_the_sum_of_exponentials(keep):
    logits = np.random.default_rng(0).normal(0, 4, (TOLD + len(SETS) * OTHERS, 10))
    top, largest = np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)), logits.max(1)
    columns = {"top": top[:TOLD], "largest": largest[:TOLD]}
    for k, name in enumerate(SETS):
        rows = slice(TOLD + k * OTHERS, TOLD + (k + 1) * OTHERS)
        columns |= {f"top_{name}": top[rows], f"largest_{name}": largest[rows]}
    keep("clean_cifar10", {f"{SCRATCH}/0": (columns, {"tested": TESTED})})
    told = read_clean.told_apart(load_runs("clean_cifar10"), f"{SCRATCH}/0", "blobs", "energy")
    rows = [*range(TOLD), *range(TOLD + 3 * OTHERS, TOLD + 4 * OTHERS)]
    assert told.confidence.numpy() == pytest.approx(-np.log(np.exp(logits[rows]).sum(1)), abs=1e-12)


def test_each_training_stands_under_its_seed_and_what_was_not_run_is_nan(two):
    errors = read_clean.clean_errors([*BOTH, "frozen"], draws=3)
    assert errors.dims == ("dataset", "variant", "training", "draw")
    assert errors["training"].values.tolist() == [0, 1, 2]
    there = errors.isel(draw=0).notnull().sel(dataset="CIFAR-10")
    assert there.sel(variant="scratch").values.tolist() == [True, True, False]
    assert there.sel(variant="supervised").values.tolist() == [False, True, True]
    assert errors.sel(variant="frozen").isnull().all()
    assert errors.sel(dataset="CIFAR-100").isnull().all()
    right = load_runs("clean_cifar10").correct(f"{TUNED}/2")
    assert errors.sel(dataset="CIFAR-10", variant="supervised", training=2, draw=0) == pytest.approx(1 - right.mean())
    gain = cells(errors.sel(variant="supervised") - errors.sel(variant="scratch"))
    assert gain["seeds"].tolist() == [1]  # the seed that both have


def test_draws_are_the_same_for_all_variants_and_measures_of_one_kind(keep):
    """Two networks that say the same differ by nothing, on every draw."""
    keep("clean_cifar10", {f"{cell}/0": run_of(0) for cell in (SCRATCH, TUNED)})
    for read in (read_clean.clean_errors, read_clean.calibration_errors, read_clean.unfamiliar_scores):
        found = read(BOTH, draws=5, seed=3).sel(dataset="CIFAR-10")
        assert (found.sel(variant="scratch") == found.sel(variant="supervised")).all()
        assert float(found.isel(variant=0).std("draw").max()) > 0


def test_rms_by_hand_with_the_last_bin_and_without(keep):
    right = np.arange(TESTED) % 2 == 0
    keep("clean_cifar10", {f"{SCRATCH}/0": run_of(0, right=right)})
    found = read_clean.calibration_errors(["scratch"], draws=0)
    found = found.sel(dataset="CIFAR-10", variant="scratch", training=0, draw=0)
    sure = np.exp(-load_runs("clean_cifar10").column(f"{SCRATCH}/0", "top"))
    order = np.argsort(sure)
    gaps = np.abs((sure - right[:TOLD])[order].reshape(-1, 100).mean(1))
    assert found.sel(measure="RMS").item() == pytest.approx(math.sqrt((gaps**2).mean()), abs=1e-12)
    assert found.sel(measure="MAD").item() == pytest.approx(gaps.mean(), abs=1e-12)
    assert found.sel(measure="MAD as released").item() == pytest.approx(gaps[:-1].sum() / len(gaps), abs=1e-12)
    assert found.sel(measure="RMS as released").item() == pytest.approx(
        math.sqrt((gaps[:-1] ** 2).sum() / len(gaps)), abs=1e-12
    )
    scaled = read_clean.calibration_errors(["scratch"], ["MAD"], scaled=True, draws=0).sel(dataset="CIFAR-10")
    gaps = np.abs((sure**2 - right[:TOLD])[order].reshape(-1, 100).mean(1))
    assert scaled.item() == pytest.approx(gaps.mean(), abs=1e-12)


def test_the_floor_is_what_independent_answers_give(keep):
    """In a bin the squared gap has the mean sum c (1 - c) / beta²; and it does not hang on what was answered."""
    keep("clean_cifar10", {f"{SCRATCH}/0": run_of(0), f"{SCRATCH}/1": run_of(0, right=np.ones(TESTED, bool))})
    floors = read_clean.calibration_floors(["scratch"], ["RMS"], times=200).sel(dataset="CIFAR-10", measure="RMS")
    sure = confidences(0)
    expected = math.sqrt((sure * (1 - sure)).mean() / 100)
    # the root of a mean of six squares lies below the root of its mean: by a share of about 1 / (4 * 6)
    assert floors.values.ravel() == pytest.approx(expected * (1 - 1 / 24), rel=0.05)
    told = read_clean.calibration_errors(["scratch"], ["RMS"], draws=0).sel(dataset="CIFAR-10", training=1)
    assert told.item() > 5 * expected


def test_measures_stand_together(two):
    found = read_clean.clean_measures(BOTH, draws=4)
    assert found["measure"].values.tolist() == ["error", "RMS", "auroc"]
    one = dict(dataset="CIFAR-10", variant="scratch", training=0, draw=2)
    by_set = read_clean.unfamiliar_scores(BOTH, draws=4).sel(measure="auroc", **one)
    assert found.sel(measure="auroc", **one).item() == pytest.approx(by_set.mean().item(), abs=1e-12)
    assert set(cells(found.sel(dataset="CIFAR-10"))["examples"]) == {TESTED, read_clean.TOLD}


def test_networks_are_mixed_where_their_error_is_that_of_another():
    """Everything in this case goes in straight lines, so that what is read off is exact; data sets stand for themselves."""
    at = {"scratch": 0.35, "all": 0.2, "half": 0.3, "quarter": 0.4}
    table = xr.DataArray(
        [[[[e], [e]], [[2 * e + 0.01], [2 * e + 0.03]]] for e in at.values()],
        coords={"variant": list(at), "measure": ["error", "RMS"], "training": [0, 1], "draw": [0]},
    ).transpose("measure", ...)
    scores = xr.concat(
        [table, table.where(table["variant"] != "scratch")], xr.DataArray(["one", "lacks"], dims="dataset")
    )
    found = read_clean.matched_in_error(scores, ["all", "half", "quarter"], "scratch")
    own = found.scores.sel(dataset="one")
    assert own.sel(measure="error").values.ravel() == pytest.approx([0.35, 0.35])
    assert own.sel(measure="RMS").values.ravel() == pytest.approx([0.71, 0.73])
    assert found.weights.sel(dataset="one").values == pytest.approx([0, 0.5, 0.5])
    assert found.scores.sel(dataset="lacks").isnull().all()


def test_a_network_without_weight_may_be_missing():
    at = {"scratch": 0.35, "all": np.nan, "half": 0.3, "quarter": 0.4}
    scores = xr.DataArray(
        [[[[[e]] for e in at.values()]]],
        coords={"dataset": ["one"], "measure": ["error"], "variant": list(at), "training": [0], "draw": [0]},
    )
    found = read_clean.matched_in_error(scores, ["all", "half", "quarter"], "scratch")
    assert found.scores.item() == pytest.approx(0.35)


@pytest.mark.parametrize(("target", "shares"), [(0.3, (0, 1, 0)), (0.25, (0.5, 0.5, 0)), (0.45, None), (np.nan, None)])
def test_weights_lie_on_the_two_neighbours_and_nowhere_beyond(target, shares):
    found = read_clean.weights_at_error({"a": 0.2, "b": 0.3, "c": 0.4, "not run": np.nan}, target)
    if shares is None:
        assert all(math.isnan(each) for each in found.values())
    else:
        assert [found[name] for name in ("a", "b", "c")] == pytest.approx(list(shares))
        assert found["not run"] == 0


def test_curves_show_some_epochs_and_the_last():
    course = xr.DataArray(
        np.arange(14.0).reshape(1, 7, 2), coords={"dataset": ["one"], "epoch": range(1, 8), "training": [0, 1]}
    ).expand_dims(measure=["rms"])
    found = read_clean.course_curves({"scratch": course}, most=4)
    assert found["share"].tolist() == pytest.approx([100 / 7, 300 / 7, 500 / 7, 100])
    assert found["value"].tolist() == [0.5, 4.5, 8.5, 12.5]


def test_what_cannot_be_asked_is_said_with_what_can(two):
    with pytest.raises(ValueError, match="unknown variant 'tuned'; choose from scratch, supervised"):
        read_clean.clean_errors(["tuned"])
    with pytest.raises(ValueError, match="unknown measure 'rms'; choose from RMS, MAD"):
        read_clean.calibration_errors(BOTH, ["rms"])
    with pytest.raises(ValueError, match="unknown score 'entropy'; choose from max_probability, max_logit, energy"):
        read_clean.unfamiliar_scores(BOTH, ["entropy"])
    with pytest.raises(ValueError, match="times must be at least 1; it is 0"):
        read_clean.calibration_floors(BOTH, times=0)
    with pytest.raises(FileNotFoundError, match="no run of frozen, long; `uqlib pretrain clean_cifar10`"):
        read_clean.clean_errors(["frozen", "long"])
