"""What is alone of Cui et al. 2023: the options of its baselines make losses, and the trainings of the book have them."""

import tomllib
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats
from sklearn.linear_model import LogisticRegression

from uqlib.experiments.studies import load_study
from uqlib.losses import loss
from uqlib.metrics import ece
from uqlib.metrics.compare import compare, intervals
from uqlib.papers.cui2023 import (
    LOSS_OPTIONS,
    OF_ERRORS,
    accuracy_left,
    agreement,
    compare_by_class,
    constant_of_equal_strength,
    covered,
    easiest_and_hardest,
    ece_recalibrated,
    effective_strength,
    error_by_group,
    extremes,
    hardest_less_all,
    logged,
    resampled_medians,
    rivals_of_equal_strength,
)


def make_loss(name, **options):
    """A loss of any name, with what it needs beside options."""
    needed = {"ranking": {"examples": 10}, "difficulty": {"weights": torch.full((10,), 0.5)}}
    return loss(name, **needed.get(name, {}), **options)


@pytest.mark.parametrize("dataset", LOSS_OPTIONS)
def test_published_options_make_losses(dataset):
    for name, options in LOSS_OPTIONS[dataset].items():
        make_loss(name, **options)


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_the_baselines_of_the_book_have_the_published_options(repository, dataset):
    studies = tomllib.loads((repository / "data/trainings/cui2023.toml").read_text())["study"]
    [variants] = [each["variant"] for each in studies if each["name"] == dataset and each["scale"] == "cpu"]
    options = {each["name"]: each.get("options", {}) for each in variants}
    for name, published in LOSS_OPTIONS[dataset].items():
        assert str(make_loss(name, **options[name])) == str(make_loss(name, **published))


def test_the_effective_strength_is_alpha_times_the_mean_weight():
    noted = [{"alpha": 0.2, "mean_weight": 0.5}, {"alpha": 0.2}, {"gamma": 3.0}]
    trainings = [SimpleNamespace(about={"settings": {"options": each}}) for each in noted]
    assert effective_strength(trainings) == pytest.approx(0.1)


def test_equal_strength_lies_on_the_line_between_the_trained_ones():
    strength = {"plain": 0.0, "strong": 0.4, "weak": 0.1, "weighted": 0.25, "beyond": 0.7}  # in no order
    table = np.array([[1.0, 2.0], [9.0, 8.0], [3.0, 4.0], [-5.0, -6.0], [0.0, 0.0]])
    scores = xr.DataArray(table, coords={"variant": list(strength), "draw": [0, 1]})
    found = constant_of_equal_strength(scores, strength, ["plain", "strong", "weak"])
    np.testing.assert_allclose(found.transpose("variant", "draw"), [[1, 2], [9, 8], [3, 4], [6, 6], [15, 12]])


def study_of(*variants):
    own = {name: dict(loss=loss, options=options, weights=weights) for name, loss, options, weights in variants}
    shared = dict(labels="clean", training={"epochs": 3})
    return SimpleNamespace(
        training={"epochs": 3},
        variants={name: SimpleNamespace(name=name, **(shared | each)) for name, each in own.items()},
    )


RANKS = {"normaliser": "ranks", "scorer": "pixels"}
VARIANTS = [
    ("plain", "cross_entropy", {}, {}),
    ("weak", "entropy", {"alpha": 0.05}, {}),
    ("even", "entropy", {"alpha": 0.1}, {}),
    ("blind", "difficulty", {"alpha": "scaled", "to": 0.1}, RANKS | {"permuted": True}),
    ("hard", "difficulty", {"alpha": "scaled", "to": 0.1}, RANKS),
    ("usual", "difficulty", {"alpha": 0.1}, RANKS),
]


def test_rivals_share_the_strength_and_differ_in_who_gets_it():
    study = study_of(*VARIANTS)
    rivals = {"difficulty": "hard", "permuted": "blind", "constant": "even", "none": "plain"}
    assert rivals_of_equal_strength(study) == {("ranks", 0.1): rivals}
    assert rivals_of_equal_strength(study, "worst") == {}
    for name, other in (("even", {"epochs": 9}), ("blind", {"epochs": 9})):  # longer trained, so no rival
        study = study_of(*VARIANTS)
        study.variants[name].training = other
        with pytest.raises(LookupError, match="no variant has the loss"):
            rivals_of_equal_strength(study)


@pytest.mark.parametrize(("study", "labels"), [("cifar10", "clean"), ("cifar10", "worst"), ("cifar10_few", "clean")])
def test_the_rivals_of_the_book_differ_in_who_gets_the_bonus_alone(repository, study, labels):
    known = load_study(study).variants
    found = rivals_of_equal_strength(load_study(study), labels)
    assert found
    for (normaliser, strength), roles in found.items():
        hard, blind, even, none = (known[roles[role]] for role in ("difficulty", "permuted", "constant", "none"))
        assert {each.labels for each in (hard, blind, even, none)} == {labels}
        assert hard.weights["normaliser"] == normaliser
        assert hard.options == blind.options == {"alpha": "scaled", "to": strength}
        assert {**hard.weights, "permuted": True} == blind.weights
        assert even.options == {"alpha": strength}
        assert none.loss == "cross_entropy"


def test_what_a_training_noted_is_the_same_in_every_draw():
    runs = {name: [SimpleNamespace(about={"test": {"nll": x}, "train": {"accuracy": -x}}) for x in each]
            for name, each in {"a": [1.0, 2.0, 3.0], "b": [5.0]}.items()}  # fmt: skip
    found = logged(runs, {"nll": ("test", "nll"), "learnt": ("train", "accuracy")}, draws=2)
    assert found.dims == ("variant", "measure", "training", "draw")
    np.testing.assert_array_equal(found.sel(variant="a", measure="learnt"), [[-1] * 3, [-2] * 3, [-3] * 3])
    np.testing.assert_array_equal(found.sel(variant="b", measure="nll", draw=1), [5, np.nan, np.nan])
    gain = intervals(found.sel(variant="a", measure="nll"))
    low, high = stats.t.interval(0.95, 2, loc=2, scale=1 / np.sqrt(3))  # of three numbers whose deviation is 1
    np.testing.assert_allclose(gain.values, [2, low, high], rtol=1e-12)


def test_one_training_says_nothing_of_others():
    several, once = {"a": [0, 1], "b": [0, 1, 2]}, {"a": [0, 1], "b": [0]}
    assert covered({"X": several, "Y": several}) == "other trainings and other test images"
    assert covered({"X": several, "Y": once}).endswith("test images; of Y, trained once, for other test images alone")
    assert covered({"X": once}).startswith("other test images alone")


def test_a_recalibration_is_judged_on_what_it_did_not_see():
    generator = torch.Generator().manual_seed(0)
    sure = 0.5 + 0.5 * torch.rand(4000, generator=generator, dtype=torch.float64)
    right = torch.rand(4000, generator=generator) < sure - 0.2
    measure = ece_recalibrated(300)
    own = measure.statistic(*measure.arrays(SimpleNamespace(confidence=sure, correct=right)))
    odds = torch.logit(sure)[:, None].numpy()
    fit = LogisticRegression(C=np.inf, tol=1e-10).fit(odds[:300], right[:300])
    after = torch.tensor(fit.predict_proba(odds[300:])[:, 1])
    assert own == pytest.approx(ece(after, right[300:], bins=15, by="mass"), abs=1e-6)
    assert own < 0.5 * ece(sure, right, by="mass")


class Answers(dict):
    """Columns of a training."""

    correct = property(lambda self: self["correct"])
    confidence = property(lambda self: (-self["top"]).exp())


@pytest.fixture
def answers():
    generator = np.random.default_rng(0)
    columns = {"entropy": generator.random(200), "top": generator.random(200), "correct": generator.random(200) < 0.7}
    return Answers({name: torch.from_numpy(column) for name, column in columns.items()})


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5])
def test_the_images_of_the_highest_entropy_are_rejected(answers, rate):
    found = compare({"x": [answers]}, {rate: accuracy_left(rate)}, over="training", draws=0)
    kept = np.argsort(answers["entropy"].numpy())[: round(200 * (1 - rate))]
    assert found.item() == answers.correct.numpy()[kept].mean()


def test_medians_are_over_the_errors_alone(answers):
    found = compare({"x": [answers]}, OF_ERRORS, over="training", draws=0).squeeze().values
    wrong = ~answers.correct.numpy()
    expected = [answers["entropy"].numpy()[wrong], np.exp(-answers["top"].numpy()[wrong])]
    assert found.tolist() == [pytest.approx(np.quantile(each, 0.5, method="lower"), rel=1e-12) for each in expected]


def test_groups_are_of_equal_size_from_the_hardest():
    generator = np.random.default_rng(1)
    score, wrong = generator.permutation(53) / 2, generator.random((2, 53)) < 0.3
    found = error_by_group(torch.from_numpy(score), torch.from_numpy(wrong).double(), 5)
    order, ends = sorted(range(53), key=lambda i: -score[i]), [0, 11, 22, 33, 43, 53]
    expected = [[wrong[k, order[a:b]].mean() for a, b in pairwise(ends)] for k in (0, 1)]
    assert found.numpy() == pytest.approx(np.array(expected), rel=1e-12)


def test_agreement_is_the_mean_rank_correlation_of_the_pairs():
    passes = np.random.default_rng(2).normal(size=(3, 40)).round(1)  # with ties
    pairs = [stats.spearmanr(passes[i], passes[j]).statistic for i, j in ((0, 1), (0, 2), (1, 2))]
    assert agreement(torch.from_numpy(passes)) == pytest.approx(np.mean(pairs), rel=1e-12)


def test_the_easiest_and_the_hardest_are_those_of_a_sorted_list():
    generator = torch.Generator().manual_seed(0)
    rmd, md, values = (torch.rand(50, generator=generator, dtype=torch.float64) for _ in range(3))
    for name, score in {"": rmd, " by MD": md}.items():
        order = sorted(range(50), key=lambda k, score=score: score[k].item())
        for part, rows in {"easiest": order[:7], "hardest": order[-7:]}.items():
            found = extremes(7)[part + name]
            expected = sum(values[k].item() for k in rows) / 7
            assert found.statistic(*found.arrays((rmd, md, values))).item() == pytest.approx(expected)
    more = hardest_less_all(7)
    hardest = sorted(zip(rmd.tolist(), values.tolist(), strict=True))[-7:]
    expected = sum(value for _, value in hardest) / 7 - sum(values.tolist()) / 50
    assert more.statistic(*more.arrays((rmd, values))).item() == pytest.approx(expected)


def test_each_class_is_compared_by_itself():
    generator = torch.Generator().manual_seed(0)
    hard, other, values = (torch.randn(60, generator=generator) for _ in range(3))
    labels = torch.arange(60) % 3
    options = dict(over="split", draws=2, seed=torch.Generator().manual_seed(1))
    arrays = {"one": (hard, other, values)}
    found = compare_by_class(arrays, labels, ["a", "b", "c"], extremes(5), **options)
    assert found.dims[0] == "class"
    for k, name in enumerate("abc"):
        own = labels == k
        expected = values[own][hard[own].argsort()[-5:]].mean().item()
        level = found.sel({"class": name, "variant": "one", "measure": "hardest", "draw": 0})
        assert level.item() == pytest.approx(expected, rel=1e-6)


def test_medians_of_draws_are_of_the_same_rows_everywhere():
    values = torch.from_numpy(np.random.default_rng(3).normal(size=(2, 31)))
    found = resampled_medians(values, draws=4, generator=torch.Generator().manual_seed(0))
    rows = torch.randint(31, (4, 31), generator=torch.Generator().manual_seed(0)).numpy()
    assert found[0].tolist() == np.median(values, -1).tolist()
    assert found[1:].tolist() == [np.median(values[:, row], -1).tolist() for row in rows]


def test_the_easiest_and_the_hardest_of_a_class_stand_in_their_order():
    score = {"rmd": torch.tensor([3.0, 9.0, 1.0, 9.0, 2.0]), "md": torch.tensor([0.0, 9.0, 1.0, 9.0, 2.0])}
    rows = easiest_and_hardest(score, np.array([0, 1, 0, 1, 0]), ["cat", "dog"], ["cat"], most=2)
    assert rows == {"cat, RMD": [2, 4, 0, 4], "cat, MD": [0, 2, 4, 2]}
