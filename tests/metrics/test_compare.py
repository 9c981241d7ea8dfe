"""Labelled comparisons: numbers against scikit-learn and closed forms, pairing, intervals, data frames."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from scipy import stats
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, roc_auc_score

from uqlib import metrics
from uqlib.metrics.compare import (
    cells,
    compare,
    contrasts,
    correlation_of_few,
    in_percent,
    interval_over_splits,
    interval_over_trainings,
    intervals,
    minus_others,
    rank_correlation,
    together,
)
from uqlib.metrics.outcomes import MEASURES, Judged, Measure, Outcome, outcome_of
from uqlib.metrics.resampling.repetitions import spread_over_errors


def outcome(seed, labels, n=400):
    logits = torch.randn(n, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    probs = logits.softmax(-1)
    return Outcome(probs.argmax(-1), probs, probs.amax(-1), probs.multinomial(1)[:, 0] if labels is None else labels)


def pair(seed, n=400):
    """Labels drawn from the probabilities of the good one; those of the poor one are unrelated to them."""
    torch.manual_seed(seed)
    good = outcome(seed, None, n)
    return good, outcome(seed + 100, good.labels, n)


@pytest.fixture(scope="module")
def outcomes():
    good, poor = zip(*(pair(seed) for seed in range(3)), strict=True)
    return {"good": list(good), "poor": list(poor)}


def test_values_match_scikit_learn(outcomes):
    found = compare(outcomes, ["accuracy", "nll", "brier", "auroc"], over="split", draws=0)
    oracles = {
        "accuracy": lambda o: accuracy_score(o.labels, o.preds),
        "nll": lambda o: log_loss(o.labels, o.probs, labels=range(4)),
        "brier": lambda o: brier_score_loss(o.labels, o.probs, labels=range(4), scale_by_half=False),
        "auroc": lambda o: roc_auc_score(o.preds == o.labels, o.confidence),
    }
    for name, oracle in oracles.items():
        for variant, runs in outcomes.items():
            values = found.sel(measure=name, variant=variant, draw=0).values
            assert values == pytest.approx([oracle(run) for run in runs], rel=1e-10), (name, variant)


@pytest.mark.parametrize("name", MEASURES)
def test_the_sign_says_which_is_better(outcomes, name):
    scores = compare(outcomes, [name], over="split", draws=50)
    found = cells(scores.sel(variant="good") - scores.sel(variant="poor")).iloc[0]
    if name.startswith("sac"):  # neither is ever right in 98 of 100 cases
        assert found.value == pytest.approx(0, abs=0.05)
    else:
        assert (found.value > 0) == MEASURES[name].higher_is_better
        assert found.low <= found.value <= found.high


def test_what_does_not_differ_has_no_interval_around_it(outcomes):
    both = {"one": outcomes["good"], "other": outcomes["good"]}
    scores = compare(both, list(MEASURES), over="split", draws=20)
    gain = scores - scores.sel(variant="one")
    assert not gain.values.any()
    assert not cells(gain)[["value", "low", "high"]].to_numpy().any()


@pytest.mark.parametrize("over", ["split", "training"])
@pytest.mark.parametrize("name", MEASURES)
def test_differences_are_paired(outcomes, name, over):
    """Entry by entry the difference on the same rows, each statistic called on them one by one."""
    m = MEASURES[name]
    scores = compare(outcomes, [name], over=over, draws=5, seed=7).sel(measure=name)
    found = (scores.sel(variant="good") - scores.sel(variant="poor")).values
    for k, runs in enumerate(zip(outcomes["good"], outcomes["poor"], strict=True)):
        generator = torch.Generator().manual_seed(7 + k * (over == "split"))
        rows = [torch.arange(400), *torch.randint(400, (5, 400), generator=generator)]
        one, other = ([m.statistic(*(a[r] for a in m.arrays(run))) for r in rows] for run in runs)
        assert found[k] == pytest.approx(np.subtract(one, other), abs=1e-12)


def test_versions_of_an_image_are_drawn_together():
    """Twenty copies of each example, drawn as one, say no more than the example alone."""
    one, _ = pair(3, n=100)
    many = Outcome(*(part.repeat_interleave(20, 0) for part in one[:4]))
    names = ["accuracy", "macro_f1", "auroc", "nll", "brier", "ece"]  # a mean over ranks would change with copies
    alone = compare({"x": [one]}, names, over="split", draws=50, seed=1)
    together = compare({"x": [many]}, names, over="split", draws=50, seed=1, groups=20)
    apart = compare({"x": [many]}, names, over="split", draws=50, seed=1)
    assert together.values == pytest.approx(alone.values, abs=1e-12)
    assert (apart.std("draw") < 0.5 * together.std("draw")).all()
    with pytest.raises(ValueError, match="100 examples do not divide into groups of 7"):
        compare({"x": [one]}, ["nll"], over="split", draws=2, groups=7)


def test_a_measure_of_ones_own_and_another_name_of_a_known_one(outcomes):
    own = Measure(
        lambda confidence, correct: float(confidence.min()), MEASURES["aurc"].arrays, True, "least confidence"
    )
    found = compare(outcomes, {"least": own, "area": "aurc"}, over="training", draws=3)
    assert found.measure.values.tolist() == ["least", "area"]
    expected = [float(run.confidence.min()) for run in outcomes["good"]]
    assert found.sel(measure="least", variant="good", draw=0).values == pytest.approx(expected)


def test_fewer_trainings_are_filled_up_and_do_not_count(outcomes):
    some = {"three": outcomes["good"], "two": outcomes["poor"][:2]}
    frame = cells(compare(some, ["accuracy"], over="training", draws=20)).set_index("variant")
    assert frame.seeds.to_dict() == {"three": 3, "two": 2}
    alone = cells(compare({"two": outcomes["poor"][:2]}, ["accuracy"], over="training", draws=20)).iloc[0]
    assert frame.loc["two", ["value", "low", "high"]].tolist() == alone[["value", "low", "high"]].tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"over": "seed"}, "unknown unit to repeat 'seed'; choose from split, training"),
        ({"measures": ["acc"]}, "unknown measure 'acc'; choose from accuracy, macro_f1"),
        ({"outcomes": {}}, "outcomes must have a variant, and each of them a repetition"),
        ({"outcomes": {"x": []}}, "outcomes must have a variant, and each of them a repetition"),
        ({"draws": -1}, "draws must be a whole number of at least 0; it is -1"),
    ],
)
def test_what_cannot_be_compared_is_refused(outcomes, options, message):
    given = {"outcomes": outcomes, "measures": ["accuracy"], "over": "split", "draws": 2} | options
    with pytest.raises(ValueError, match=message):
        compare(given.pop("outcomes"), given.pop("measures"), **given)


def test_an_interval_needs_draws_and_one_unit():
    with pytest.raises(ValueError, match="needs the dimension draw"):
        intervals(xr.DataArray(np.zeros((2, 3)), dims=("variant", "split")))
    with pytest.raises(ValueError, match=r"one of .* at most"):
        intervals(xr.DataArray(np.zeros((2, 3, 4)), dims=("split", "training", "draw")))
    with pytest.raises(ValueError, match=r"level must lie in \(0, 1\); it is 95"):
        intervals(xr.DataArray(np.zeros((2, 3)), dims=("split", "draw")), level=95)


def test_no_cells_have_no_intervals():
    found = cells(xr.DataArray(np.zeros((0, 2, 4)), dims=("variant", "training", "draw")))
    assert not len(found)
    assert {"variant", "value", "low", "high", "seeds"} <= set(found)


def test_the_order_of_the_dimensions_does_not_matter(outcomes):
    scores = compare(outcomes, ["accuracy", "aurc"], over="split", draws=20)
    turned = scores.transpose("draw", "measure", "split", "variant")
    places = {"variant": "poor", "measure": "aurc"}
    assert intervals(turned).sel(places).values.tolist() == intervals(scores).sel(places).values.tolist()


def test_cells_carry_what_is_known_of_them(outcomes):
    scores = compare(outcomes, ["accuracy"], over="split", draws=20).sel(measure="accuracy")
    pairs = xr.concat(
        [scores.assign_coords(benchmark=name, balance=b) for name, b in (("a", 0.1), ("b", 0.3))],
        dim="pair", coords="minimal", compat="override", join="outer",
    )  # fmt: skip
    frame = cells(pairs.assign_coords(benchmark=("pair", ["a", "b"]), balance=("pair", [0.1, 0.3])))
    assert frame[["benchmark", "balance", "variant", "splits"]].values.tolist() == [
        ["a", 0.1, "good", 3], ["a", 0.1, "poor", 3], ["b", 0.3, "good", 3], ["b", 0.3, "poor", 3],
    ]  # fmt: skip
    one = cells(scores.sel(variant="good"))
    assert len(one) == 1
    assert one.level.tolist() == [0.95]
    assert one.covers.tolist() == ["examples, splits"]


def test_an_interval_says_what_it_is_about(outcomes):
    trained = compare(outcomes, ["accuracy"], over="training", draws=20)
    assert cells(trained)[["seeds", "covers"]].values.tolist() == [[3, "examples, trainings"]] * 2
    alone = compare({name: runs[:1] for name, runs in outcomes.items()}, ["accuracy"], over="training", draws=20)
    assert (
        cells(alone)[["seeds", "covers"]].values.tolist() == [[1, "examples"]] * 2
    )  # one training says nothing of others
    once = compare({name: runs[:1] for name, runs in outcomes.items()}, ["accuracy"], over="split", draws=20)
    assert cells(once)[["splits", "covers"]].values.tolist() == [[1, "examples"]] * 2  # nor one split of other splits
    bare = cells(compare(outcomes, ["accuracy"], over="split", draws=0))
    assert bare.covers.isna().all()
    assert cells(trained.isel(training=0)).covers.tolist() == ["examples"] * 2


def test_intervals_by_key_are_cells_too():
    found = metrics.interval(metrics.accuracy, np.array([0, 1, 1]), np.array([0, 1, 0]), draws=10)
    frame = cells({("a", 1): found, ("b", 2): 0.25}, "name", "size")
    assert frame[["name", "size", "value"]].values.tolist() == [["a", 1, found.value], ["b", 2, 0.25]]
    assert math.isnan(frame.low[1])
    with pytest.raises(ValueError, match=r"\('a', 1\) has 2 names; those of the cells are name"):
        cells({("a", 1): found}, "name")


def test_arrays_by_key_are_cells_with_the_key_before_them(outcomes):
    scores = {seed: compare(outcomes, ["accuracy"], over="split", draws=10, seed=seed) for seed in (0, 1)}
    frame = cells({("a", seed): each for seed, each in scores.items()}, "name", "seed")
    assert frame.columns[:4].tolist() == ["name", "seed", "variant", "measure"]
    for seed, each in scores.items():
        own = frame[frame.seed == seed].drop(columns=["name", "seed"]).reset_index(drop=True)
        assert own.equals(cells(each))
    assert cells({}, "name").columns.tolist() == ["name", "value"]


def test_arrays_of_several_data_sets_are_one_and_what_is_lacking_is_no_cell(outcomes):
    first = compare(outcomes, ["nll", "accuracy"], over="training", draws=10).assign_coords(examples=400)
    second = compare({"poor": outcomes["poor"][:2], "a": outcomes["good"]}, ["accuracy"], over="training", draws=10)
    whole = together({"one": first, "two": second.assign_coords(examples=300)}, "data")
    assert whole.measure.values.tolist() == ["nll", "accuracy"]
    assert whole.variant.values.tolist() == ["good", "poor", "a"]  # in the order in which they came
    frame = cells(whole)
    for data, own in (("one", first), ("two", second)):
        part = frame[frame.data == data]
        assert sorted(part.value) == sorted(cells(own).value)
        assert part.examples.unique().tolist() == [{"one": 400, "two": 300}[data]]
    assert frame[(frame.data == "two") & (frame.variant == "poor")].seeds.tolist() == [2]


def test_keys_of_several_parts_are_several_dimensions(outcomes):
    arrays = {
        (data, k): compare(outcomes, ["accuracy"], over="training", draws=3, seed=seed)
        for seed, (data, k) in enumerate([("b", 2), ("b", 1), ("a", 1)])
    }
    whole = together(arrays, "data", "number")
    assert whole.dims[:2] == ("data", "number")
    for (data, k), each in arrays.items():
        assert (whole.sel(data=data, number=k).values == each.values).all()
    assert whole.sel(data="a", number=2).isnull().all()


def test_if_calibrated_it_is_right_as_often_as_it_says():
    confidence = torch.linspace(0, 1, 20_000, dtype=torch.float64)
    found = Judged(confidence, torch.zeros(20_000, dtype=torch.bool)).if_calibrated(torch.Generator().manual_seed(0))
    assert found.confidence is confidence
    assert metrics.ece(*found) < 0.02
    assert found.correct.double().mean().item() == pytest.approx(0.5, abs=0.01)


def test_one_less_each_other_goes_by_the_name_of_the_other(outcomes):
    scores = compare(outcomes, ["accuracy", "nll"], over="training", draws=10)
    found = minus_others(scores, "good")
    assert found.variant.values.tolist() == ["poor"]
    expected = scores.sel(variant="good").values - scores.sel(variant="poor").values
    assert (found.sel(variant="poor").values == expected).all()


def test_equal_trainings_leave_the_interval_of_the_images():
    draws = torch.linspace(-1, 1, 101, dtype=torch.float64)
    table = torch.cat([torch.zeros(3, 1, dtype=torch.float64), draws.repeat(3, 1)], 1)
    found = interval_over_trainings(table)
    assert found.value == 0
    assert found.high == pytest.approx(stats.norm.ppf(0.975) * draws.std().item(), rel=1e-12)
    assert found.low == -found.high


def test_without_noise_of_images_the_interval_is_students():
    values = torch.tensor([0.1, 0.3, 0.35], dtype=torch.float64)
    table = values[:, None].repeat(1, 5)
    table[:, 1:] = values.mean()  # every draw gives the same mean
    found = interval_over_trainings(table, level=0.9)
    low, high = stats.t.interval(0.9, 2, loc=values.mean().item(), scale=values.std().item() / math.sqrt(3))
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-12)


def test_the_interval_covers_as_often_as_it_says():
    """Three trainings and fresh images, again and again: the truth lies inside in about 95 of 100 cases."""
    generator = torch.Generator().manual_seed(0)
    inside, trials = 0, 600
    for _ in range(trials):
        images = 0.5 * torch.randn(1, generator=generator, dtype=torch.float64)
        trainings = 0.7 * torch.randn(3, 1, generator=generator, dtype=torch.float64)
        draws = 0.5 * torch.randn(1, 100, generator=generator, dtype=torch.float64)  # of the images, shared
        found = interval_over_trainings(torch.cat([images + trainings, images + trainings + draws], 1))
        inside += found.low < 0 < found.high
    assert inside / trials == pytest.approx(0.955, abs=0.025)  # three standard errors of 600 trials


def test_an_interval_over_splits_holds_the_draws_of_all():
    draws = torch.arange(40, dtype=torch.float64).view(2, 20)
    found = interval_over_splits(torch.cat([torch.tensor([[1.0], [3.0]], dtype=torch.float64), draws], 1), level=0.9)
    low, high = np.quantile(np.arange(40), [0.05, 0.95])
    assert found[:3] == pytest.approx((2.0, low, high), abs=1e-12)


def test_what_too_few_draws_cannot_say_is_not_said():
    """Of one draw, or of one training without draws, there is no interval; of a few it is wide, and holds the value."""
    for table in ([[1.0, 0.9]], [[1.0], [2.0]]):
        assert math.isnan(interval_over_splits(torch.tensor(table)[:, :2].double()).low)
    for table in ([[1.0]], [[1.0, 0.9]], [[1.0, 0.9], [1.4, 1.6]]):
        assert math.isnan(interval_over_trainings(torch.tensor(table).double()).low)
    several = interval_over_trainings(torch.tensor([[1.0], [2.0], [3.0]]).double())
    assert several.high == pytest.approx(2 + stats.t.ppf(0.975, 2) / math.sqrt(3))
    few = interval_over_trainings(
        torch.tensor([[1.0, 0.5, 1.0, 2.0]]).double()
    )  # Student's, of three draws of the images
    spread = np.std([0.5, 1.0, 2.0], ddof=1)
    assert few.high == pytest.approx(1 + stats.t.ppf(0.975, 2) * spread)
    split = interval_over_splits(torch.tensor([[1.0, 0.5, 1.0, 2.0]]).double())
    assert split.high == pytest.approx(1 + stats.t.ppf(0.975, 2) * spread * math.sqrt(4 / 3))


def test_intervals_of_few_draws_hold_one_more_draw_as_often_as_they_say():
    drawn = torch.randn(4000, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inside = 0
    for row in drawn:
        found = interval_over_splits(torch.cat([row[:6].mean()[None], row[:6]])[None])
        inside += found.low < row[6] < found.high
    assert inside / 4000 == pytest.approx(0.95, abs=0.012)  # three standard errors and a half


def test_the_interval_of_one_split_covers_the_truth():
    """Over fresh data sets, the 90 % interval of the accuracy of one split covers the true accuracy in about 90 %."""
    truth, hits = 0.7, 0
    for seed in range(200):
        right = torch.rand(300, generator=torch.Generator().manual_seed(seed)) < truth
        probs = torch.full((300, 2), 0.5, dtype=torch.float64)
        one = Outcome((~right).long(), probs, probs[:, 0], torch.zeros(300, dtype=torch.long))
        found = cells(compare({"x": [one]}, ["accuracy"], over="split", draws=200, seed=seed), level=0.9).iloc[0]
        hits += found.low <= truth <= found.high
    assert abs(hits / 200 - 0.9) < 4 * (0.9 * 0.1 / 200) ** 0.5  # four standard errors


@pytest.mark.parametrize("n", [3, 4, 6])
def test_the_interval_of_a_few_excludes_zero_where_scipys_permutation_test_does(n):
    generator = np.random.default_rng(n)
    for _ in range(12):
        x, y = generator.normal(size=(2, n)).round(1)
        found = correlation_of_few(x, y)
        assert found.value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
        test = stats.permutation_test((x,), lambda x, y=y: stats.spearmanr(x, y).statistic, permutation_type="pairings")
        assert (found.low > 0 or found.high < 0) == (test.pvalue < 0.05)
        assert -1 <= found.low <= found.value <= found.high <= 1


@pytest.mark.parametrize(
    ("x", "y"), [((1, 1, 2), (1, 2, 3)), ((1, 1, 2, 3), (4, 3, 2, 1)), ((1, 2, 2, 3), (1, 2, 3, 4))]
)
def test_an_order_as_far_as_chance_goes_excludes_no_zero(x, y):
    """With ties the correlation is no round number, and the largest that chance gives."""
    test = stats.permutation_test((x,), lambda x: stats.spearmanr(x, y).statistic, permutation_type="pairings")
    found = correlation_of_few(x, y)
    assert test.pvalue > 0.05
    assert found.low <= 0 <= found.high


def test_three_in_order_are_no_proof_and_six_are():
    assert correlation_of_few([1, 2, 3], [1, 2, 3])[:2] == pytest.approx((1, 0), abs=1e-12)
    assert correlation_of_few([0, 1, 2, 3, 4, 5], [9, 8, 7, 6, 5, 4])[:3] == pytest.approx(
        (-1, -1, -1 + 29 / 35), abs=1e-9
    )


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ([1, 2], [1, 2], "3 to 8"),
        (list(range(9)), list(range(9)), "3 to 8"),
        ([1, 2, 3], [1, 2, 3, 4], r"shapes \(3,\) and \(4,\)"),
        ([1, 2, 3], [5, 5, 5], "constant"),
        ([1, math.nan, 2], [1, 2, 3], "one must be finite; row 1 is nan"),
        ([1, 2, 3], [1, 2, math.inf], "other must be finite; row 2 is inf"),
    ],
)
def test_a_correlation_of_few_names_what_it_cannot_order(one, other, message):
    with pytest.raises(ValueError, match=message):
        correlation_of_few(one, other)


def test_a_rank_correlation_is_scipys_for_every_entry_of_the_other_dimensions():
    rng = np.random.default_rng(0)
    one = xr.DataArray(rng.integers(0, 4, (7, 3)), dims=("pair", "split"))  # with ties
    other = xr.DataArray(rng.normal(size=(2, 7)), dims=("draw", "pair"))
    found = rank_correlation(one, other, "pair")
    assert set(found.dims) == {"split", "draw"}
    for k, j in np.ndindex(3, 2):
        expected = stats.spearmanr(one[:, k], other[j]).statistic
        assert found.sel(split=k, draw=j).item() == pytest.approx(expected, abs=1e-12)


def test_a_generator_goes_on_from_call_to_call(outcomes):
    generator = torch.Generator().manual_seed(3)
    found = [compare(outcomes, ["accuracy"], over="training", draws=5, seed=generator) for _ in range(2)]
    assert found[0].equals(compare(outcomes, ["accuracy"], over="training", draws=5, seed=3))
    generator = torch.Generator().manual_seed(3)
    rows = [torch.randint(400, (400,), generator=generator) for _ in range(10)][5:]
    one = outcomes["good"][0]
    expected = [(one.preds[row] == one.labels[row]).double().mean().item() for row in rows]
    assert found[1].sel(variant="good", measure="accuracy", training=0).values[1:] == pytest.approx(expected)


def test_a_generator_goes_on_from_split_to_split_and_call_to_call(outcomes):
    found = compare(outcomes, ["aurc"], over="split", draws=20, seed=torch.Generator().manual_seed(3))
    stream = torch.Generator().manual_seed(3)
    for k, run in enumerate(outcomes["good"]):
        drawn = metrics.resample(metrics.aurc, run.confidence, run.correct, draws=20, generator=stream)
        assert found.sel(variant="good", measure="aurc", split=k).values[1:] == pytest.approx(drawn, abs=1e-13)


def test_contrasts_are_comparisons_each_with_draws_of_its_own(outcomes):
    asked = [("aurc", ("good", "poor")), ("ece", ("poor", "good")), ("aurc", ("good", "poor"))]
    found = contrasts(outcomes, asked, over="split", draws=20, seed=torch.Generator().manual_seed(0), bare=["ece"])
    assert found[["measure", "first", "second"]].values.tolist() == [[m, *pair] for m, pair in asked]
    stream = torch.Generator().manual_seed(0)
    pairs = list(zip(outcomes["good"], outcomes["poor"], strict=True))
    for row in (0, 2):  # the ECE in between takes no draws
        values = [
            float(metrics.aurc(a.confidence, a.correct) - metrics.aurc(b.confidence, b.correct)) for a, b in pairs
        ]
        drawn = [
            metrics.resample_difference(
                metrics.aurc, (a.confidence, a.correct), (b.confidence, b.correct), draws=20, generator=stream
            )
            for a, b in pairs
        ]
        expected = metrics.pool(values, drawn)
        assert found.loc[row, ["value", "low", "high"]].tolist() == pytest.approx(expected[:3], abs=1e-13)
    poor = [metrics.aurc(run.confidence, run.correct) for run in outcomes["poor"]]
    assert found.start[0] == pytest.approx(sum(poor) / len(poor))


def test_a_value_without_an_interval_has_no_level(outcomes):
    frame = cells(compare(outcomes, ["accuracy"], over="split", draws=0))
    assert frame.value.notna().all()
    assert frame[["low", "high", "level"]].isna().all(axis=None)


def test_the_spread_beside_honest_errors_is_one_and_the_interval_covers_as_often_as_it_says():
    generator = torch.Generator().manual_seed(0)
    errors = torch.tensor([0.5, 2.0]).expand(30, 2)
    covered = []
    for _ in range(400):
        estimates = errors * torch.randn(30, 2, generator=generator, dtype=torch.float64)
        covered += [each.low < 1 < each.high for each in spread_over_errors(estimates, errors)]
    assert sum(covered) / len(covered) == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / 800))


def test_a_spread_leaves_out_what_has_no_error_and_knows_of_the_share_drawn():
    estimates = torch.tensor([[1.0, 2.0], [3.0, 2.5], [9.0, 9.0], [2.0, 1.5]])
    errors = torch.tensor([[1.0, 0.5], [1.0, 0.5], [1.0, math.nan], [1.0, 0.5]])
    found = spread_over_errors(estimates, errors, drawn=0.75)
    assert [each.value for each in found] == pytest.approx([1 / 1 / 0.5, 0.5 / 0.5 / 0.5])
    assert found[0].draws == 3


def test_in_percent_of_the_start():
    frame = pd.DataFrame({"measure": ["ece"], "start": [0.2], "value": [-0.1], "low": [None], "high": [0.05]})
    found = in_percent(frame)
    assert found[["start", "value", "high"]].to_numpy() == pytest.approx(np.array([[0.2, -50, 25]]))
    assert found["low"].isna().all()


def test_percent_of_a_start_below_zero_keeps_the_ends_in_order():
    frame = pd.DataFrame({"start": [-0.2, 0.2], "value": [0.1, 0.1], "low": [0.05, 0.05], "high": [0.2, 0.2]})
    found = in_percent(frame)
    assert found[["value", "low", "high"]].to_numpy() == pytest.approx(np.array([[-50, -100, -25], [50, 25, 100]]))


def test_the_start_is_of_the_repetitions_that_are_compared(outcomes):
    few = {"good": outcomes["good"][:1], "poor": outcomes["poor"]}
    found = contrasts(few, [("accuracy", ("good", "poor"))], over="split", draws=0)
    both = [outcomes[name][0].correct.double().mean().item() for name in ("good", "poor")]
    assert found.start[0] == pytest.approx(both[1])
    assert found.value[0] == pytest.approx(both[0] - both[1])


LOGITS = np.random.default_rng(0).normal(size=(300, 5))
TRUTH = np.random.default_rng(1).integers(0, 5, 300)
ONE = outcome_of(LOGITS, TRUTH)


def test_the_nll_of_sure_mistakes_is_that_of_the_logits():
    """Probabilities of such logits are 0 in float64."""
    found = compare({"a": [outcome_of(1000 * LOGITS, TRUTH)]}, ["nll"], over="split", draws=0).item()
    each = 1000 * (LOGITS.max(1) - LOGITS[np.arange(300), TRUTH])  # the others add nothing
    assert found == pytest.approx(each.mean(), rel=1e-3)
    assert found == pytest.approx(metrics.nll(1000 * LOGITS, TRUTH), rel=1e-12)


@pytest.mark.parametrize(
    ("logits", "labels", "error", "message"),
    [
        (LOGITS, [1], ValueError, "labels has 1 rows where 300 are expected"),
        (LOGITS, TRUTH + 0.5, TypeError, "labels must be integers"),
        (LOGITS, TRUTH + 1, ValueError, r"labels must lie in \[0, 5\)"),
        (LOGITS * np.nan, TRUTH, ValueError, "logits must be finite"),
        (np.full((300, 5), 0.2), TRUTH, ValueError, "look like probabilities"),
    ],
)
def test_an_outcome_is_of_logits_and_labels_that_a_metric_takes(logits, labels, error, message):
    with pytest.raises(error, match=message):
        outcome_of(logits, labels)


@pytest.mark.parametrize(
    ("outcomes", "options", "error", "message"),
    [
        ({"a": ONE}, {}, TypeError, r"outcomes\['a'\] must be a list .* it is Outcome. Pass \{'a': \[outcome\]\}"),
        ([ONE], {}, TypeError, "outcomes must be a dictionary of lists"),
        ({}, {}, ValueError, "must have a variant"),
        ({"a": [ONE]}, {"measures": "accuracy"}, TypeError, r"'accuracy' alone. Pass \['accuracy'\]"),
        ({"a": [ONE]}, {"measures": []}, ValueError, "measures is empty"),
        ({"a": [ONE]}, {"groups": 0}, ValueError, "groups must be a whole number of at least 1; it is 0"),
        ({"a": [ONE]}, {"seed": None}, TypeError, "seed must be a whole number.*; it is None.*torch.Generator"),
        ({"a": [ONE]}, {"seed": -1}, ValueError, "seed must be a whole number.*; it is -1"),
        ({"a": [ONE]}, {"seed": 0.5}, TypeError, "seed must be a whole number.*; it is 0.5"),
        ({"a": [ONE]}, {"seed": np.random.default_rng(0)}, TypeError, "torch.Generator"),
        (
            {"a": [ONE], "b": [outcome_of(LOGITS[:90], TRUTH[:90])]},
            {},
            ValueError,
            "'nll' of 'b', repetition 0, has 90.*300",
        ),
    ],
)
def test_what_compare_cannot_take_is_named(outcomes, options, error, message, unchecked):
    with pytest.raises(error, match=message):
        compare(outcomes, **{"measures": ["nll"], "over": "split", "draws": 3} | options)


def test_contrasts_name_what_they_cannot_take():
    with pytest.raises(ValueError, match="asked is empty"):
        contrasts({"a": [ONE]}, [], over="split", draws=3)
    with pytest.raises(ValueError, match="unknown variant 'c'; choose from 'a'"):
        contrasts({"a": [ONE]}, [("nll", ("a", "c"))], over="split", draws=3)


def test_a_spread_is_of_arrays_of_any_kind_and_names_what_it_cannot_take():
    estimates, errors = np.array([[1.0, 2.0], [3.0, 2.5], [2.0, 1.5]]), np.ones((3, 2))
    tensors = spread_over_errors(torch.tensor(estimates), torch.tensor(errors))
    assert spread_over_errors(estimates, errors) == tensors
    with pytest.raises(ValueError, match=r"one shape \(k, m\); they have \(3, 2\) and \(2, 2\)"):
        spread_over_errors(estimates, errors[:2])
    with pytest.raises(ValueError, match="two samples whose errors are finite; there are 1 of 3"):
        spread_over_errors(estimates, errors * [[1], [np.nan], [np.inf]])
    with pytest.raises(ValueError, match="drawn must lie in"):
        spread_over_errors(estimates, errors, drawn=1)


def sure(wrong, n=100):
    labels = torch.zeros(n, dtype=torch.long)
    logits = torch.stack([torch.linspace(1, 3, n), torch.zeros(n)], 1)
    logits[:wrong] = logits[:wrong].flip(1)
    return outcome_of(logits, labels)


def test_draws_without_a_value_leave_the_interval_of_the_others():
    scores = compare({"a": [sure(4)]}, ["auroc", "accuracy"], over="split", draws=400, undefined=True)
    own = scores.sel(measure="auroc").values.ravel()[1:]
    assert 0 < np.isnan(own).sum() < 20
    found = cells(scores).set_index("measure").loc["auroc"]
    assert found[["low", "high"]].tolist() == pytest.approx(np.nanquantile(own, [0.025, 0.975]), abs=1e-12)
    with pytest.raises(ValueError, match=r"'auroc' of 'a' has no value on draw .* undefined=True"):
        compare({"a": [sure(4)]}, ["auroc", "accuracy"], over="split", draws=400)
    rare = compare({"a": [sure(1)]}, ["auroc"], over="split", draws=400, undefined=True)
    assert cells(rare)["low"].isna().all()  # more than one draw in 20 has none
    none = compare({"a": [sure(0)]}, ["auroc", "fpr95", "accuracy"], over="split", draws=20, undefined=True)
    assert cells(none)["measure"].tolist() == ["accuracy"]


def test_the_ends_stay_within_what_the_numbers_may_be():
    values = xr.DataArray([[-1.0, -0.2, -0.6]], dims=("draw", "training"))
    plain, kept = intervals(values), intervals(values, within=(-1, 1))
    assert plain.sel(end="low").item() < -1
    assert kept.values.tolist() == [pytest.approx(-0.6), -1, plain.sel(end="high").item()]
    assert cells(values, within=(-1, 1))["low"].item() == -1
