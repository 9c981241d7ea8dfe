"""Universes: readings against brute force, intervals against those of the book, verdicts and choices on tables made by hand."""

from itertools import pairwise, permutations

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from uqlib.evidence.ledger import Claim
from uqlib.experiments.benchmarks import load_benchmark, pair_outcomes
from uqlib.experiments.studies import load_trainings
from uqlib.metrics import Judged, aurc, aurc_of_trapezoids, aurc_trapezoid, multiverse
from uqlib.metrics.compare import compare, intervals

TIED = [(0.9, True), (0.9, False), (0.5, True), (0.5, False), (0.5, False), (0.2, True)]


def orders(rows):
    """Risks at 1, ..., n kept, for each order that the confidences allow."""
    for order in permutations(rows):
        if all(a[0] >= b[0] for a, b in pairwise(order)):
            yield np.cumsum([not right for _, right in order]) / np.arange(1, len(rows) + 1)


def judged(rows):
    return Judged(*(torch.tensor(column) for column in zip(*rows, strict=True)))


def many(seed, n=400, steps=20):
    generator = torch.Generator().manual_seed(seed)
    confidence = (torch.rand(n, generator=generator, dtype=torch.float64) * steps).ceil() / steps
    return Judged(confidence, torch.rand(n, generator=generator) < confidence)


def test_breaking_ties_bounds_every_order_of_them():
    areas = [risks.mean() for risks in orders(TIED)]
    for how, bound in {"right first": min(areas), "wrong first": max(areas), "shared": np.mean(areas)}.items():
        own = multiverse.untied(judged(TIED), how)
        assert aurc(own.confidence, own.correct) == pytest.approx(bound, abs=1e-12)
    assert min(areas) < np.mean(areas) < max(areas)


def test_what_does_not_tie_stays_as_it_is():
    alone = judged([(0.9, True), (0.7, False), (0.2, True)])
    assert multiverse.untied(alone, "wrong first") is alone
    with pytest.raises(ValueError, match="unknown way with ties 'best'; choose from shared"):
        multiverse.untied(alone, "best")


def test_the_area_of_trapezoids_averages_over_every_order_of_the_ties():
    areas = [np.trapezoid(risks) / (len(risks) - 1) for risks in orders(TIED)]
    assert aurc_of_trapezoids(*judged(TIED)) == pytest.approx(np.mean(areas), abs=1e-12)
    untied = judged([(0.9, False), (0.7, True), (0.2, False), (0.1, True)])
    assert aurc_of_trapezoids(*untied) == pytest.approx(aurc_trapezoid(*untied), abs=1e-12)
    assert aurc_of_trapezoids([0.5], [False]) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("name", ["ece", "ece_mass"])
def test_the_bins_of_an_ece_are_what_they_say(name):
    net = many(0, steps=1000)
    confidence, right = net.confidence.numpy(), net.correct.numpy()
    for (bins, by), each in multiverse.readings(name).items():
        k = int(bins)
        if by == "width":
            number = np.ceil(confidence * k - 1e-9)
        else:
            ends = np.sort(confidence)[[-(-i * len(confidence) // k) - 1 for i in range(1, k + 1)]]
            number = np.searchsorted(ends, confidence)
        gaps = [abs((confidence - right)[number == each].sum()) for each in np.unique(number)]
        assert each.statistic(*each.arrays(net)) == pytest.approx(sum(gaps) / len(confidence), abs=1e-12), (bins, by)
    assert next(iter(multiverse.readings(name))) == ("15", "mass" if name == "ece_mass" else "width")


@pytest.mark.parametrize("over", ["split", "training"])
def test_a_span_is_the_interval_of_the_book(over):
    outcomes = {"one": [many(1), many(2), many(3)], "other": [many(4), many(5), many(6)]}
    scores = compare(outcomes, ["aurc", "ece"], over=over, draws=40)
    change = (scores.sel(variant="one", drop=True) - scores.sel(variant="other", drop=True)).rename(measure="setting")
    ended = multiverse.spans(change)
    for level in multiverse.LEVELS:
        found = ended.sel(level=level, draws="all").transpose("setting", "end").values
        assert found == pytest.approx(intervals(change, level=level).values, rel=1e-12)
    half = change.isel(draw=[0, *range(21, 41)])
    second = ended.sel(level=0.95, draws="second half").transpose("setting", "end").values
    assert second == pytest.approx(intervals(half).values, rel=1e-12)


def test_half_of_one_draw_is_none():
    scores = compare({"a": [many(0)]}, ["ece"], over="split", draws=1)
    with pytest.raises(ValueError, match="two draws or more, for halves of them; there are 1"):
        multiverse.spans(scores)


def test_subsets_of_trainings_leave_out_what_is_not_there():
    outcomes = {"one": [many(1), many(2), many(3)], "other": [many(4), many(5)]}
    scores = compare(outcomes, ["ece"], over="training", draws=20)
    change = scores.sel(variant="one", drop=True) - scores.sel(variant="other", drop=True)
    found = multiverse.spans_of_trainings(change, {"all": slice(None), "late": slice(1, None), "none": slice(5, None)})
    values = found.sel(level=0.95, draws="all", end="value").values[:, 0]
    each = change.sel(draw=0).values[0]
    assert values == pytest.approx([each[:2].mean(), each[1], each[:2].mean()])


@pytest.fixture
def ended():
    """Two settings; the option b of the choice `bins` turns both, the choice `ties` changes nothing."""
    value = np.array([[[-1.0, -2.0], [-1.0, -2.0]], [[1.0, 2.0], [1.0, 2.0]]])  # bins, ties, setting
    names = {"bins": ["a", "b"], "ties": ["x", "y"], "setting": ["s", "t"], "end": ["value", "low", "high"]}
    return xr.DataArray(np.stack([value, value - 1.5, value + 1.5], -1), coords=names)


def test_the_choice_that_turns_a_claim_is_found(ended):
    worlds = multiverse.universes(ended, lambda x: x < 0, count=100)
    assert len(worlds) == 8
    assert worlds.loc[0, ["bins", "ties", "setting", "value", "held", "sure"]].tolist() == [
        "a",
        "x",
        "s",
        -1,
        True,
        False,
    ]
    found = multiverse.stands(worlds)
    assert found["stands"].tolist() == [True, True, False, False]
    assert not found["certain"].any()  # -1 + 1.5 is above 0
    assert multiverse.stands(worlds, 0.5)["certain"].tolist() == [True, True, False, False]
    moves = multiverse.sway(worlds).set_index(["choice", "option"])
    assert moves["moves"].to_dict() == {("bins", "a"): 1, ("bins", "b"): 1, ("ties", "x"): 0, ("ties", "y"): 0}
    assert moves.loc[("bins", "b"), ["universes", "stands", "held"]].tolist() == [2, 0, 0]
    (row,) = multiverse.most_moving({"c": (worlds, 1.0)}).to_dict("records")
    assert (row["stands"], row["surely"], row["published"], row["choice"], row["most"]) == (0.5, 0, True, "bins", "a")
    told = multiverse.tallies(multiverse.most_moving({"c": (worlds, 1.0), "d": (worlds, 0.1)}), "c")
    assert (told["claims"], told["always"], told["never"], told["between"], told["headline"]) == (2, 0, 0, 2, "50")
    assert (told["choice"], told["times"]) == ("bins", 2)


def test_claims_of_the_ledger_are_judged_together(ended):
    claims = [Claim("c", "text", "q", "< 0", 0.5), Claim("d", "text", "q", "< -1.5", 1.0)]
    worlds = multiverse.judge_all({claims[0]: ended, claims[1]: ended.isel(setting=slice(0))}, count=9)
    assert list(worlds) == ["c"]
    assert worlds["c"][1] == 0.5
    assert worlds["c"][0].equals(multiverse.universes(ended, claims[0].meets, count=9))


def test_universes_are_drawn_once_each_and_the_first_is_the_published_one(ended):
    worlds = multiverse.universes(ended, lambda x: x < 0, count=3, seed=1)
    kept = worlds.drop_duplicates("universe")[["bins", "ties"]]
    assert len(kept) == len(kept.drop_duplicates()) == 3
    assert kept.iloc[0].tolist() == ["a", "x"]
    assert worlds.equals(multiverse.universes(ended, lambda x: x < 0, count=3, seed=1))


def test_a_choice_of_several_parts_is_shown_by_its_parts_and_a_setting_that_is_not_there_does_not_count(ended):
    table = ended.copy(data=ended.values.copy()).rename(bins="fit").assign_coords(fit=["0", "1"])
    table = table.assign_coords(size=("fit", [200, 500]), score=("fit", ["nll", "brier"]))
    table[0, :, 1] = np.nan
    worlds = multiverse.universes(table, lambda x: x < 0, count=100)
    assert list(worlds)[:5] == ["universe", "size", "score", "ties", "setting"]
    assert worlds[worlds["size"] == 200]["setting"].unique().tolist() == ["s"]
    assert multiverse.stands(worlds)["stands"].sum() == 2


def test_the_books_own_choices_give_the_published_number(repository):
    """CIFAR-10, ResNet-56 and ResNet-20: the record has an AURC of -0.175 points against the scaled large network, over ten splits."""
    bench = load_benchmark("cifar10")
    asked = multiverse.all_readings(["accuracy", "aurc"])
    values = []
    for k in range(10):
        how = {"splits": 1, "seed": k, "variants": ["base", "ours"]}
        outcomes = pair_outcomes(bench, "cifar_resnet56", "cifar_resnet20", **how)[bench.title].outcomes
        scores = compare(outcomes, asked, over="split", draws=4)
        change = multiverse.by_reading(scores.isel(split=0, drop=True), "aurc")
        change = (change.sel(variant="ours") - change.sel(variant="base")).expand_dims(setting=["pair"])
        worlds = multiverse.universes(multiverse.spans(change), lambda x: x < 0, count=1)
        assert worlds.loc[0, ["curve", "ties", "level"]].tolist() == ["mean of risks", "shared", 0.95]
        values.append(worlds.loc[0, "value"])
    assert 100 * np.mean(values) == pytest.approx(-0.175, abs=0.0005)


def test_so_do_the_kept_trainings():
    trained = load_trainings("cifar10", ["poly", "ranking"])
    scores = compare(trained, multiverse.all_readings(["accuracy"]), over="training", draws=2)
    change = multiverse.by_reading(scores, "accuracy")
    change = change.sel(variant="poly") - change.sel(variant="ranking")
    found = multiverse.spans_of_trainings(change, {"all": slice(None)}).expand_dims(setting=["CIFAR-10"])
    worlds = multiverse.universes(found, lambda x: x > 0, count=1)
    own = [np.mean([run.correct.double().mean() for run in runs]) for runs in trained.values()]
    assert worlds.loc[0, "value"] == pytest.approx(own[0] - own[1], abs=1e-12)


def test_what_has_one_reading_has_no_choice():
    scores = compare({"a": [many(0)]}, multiverse.all_readings(["accuracy"]), over="split", draws=0)
    assert "measure" not in multiverse.by_reading(scores, "accuracy").dims
    assert list(multiverse.readings("accuracy")) == [()]
    assert isinstance(multiverse.most_moving({}), pd.DataFrame)
