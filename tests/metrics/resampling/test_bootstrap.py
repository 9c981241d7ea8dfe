"""The fast path against calling the metric on each draw, and the interval against what statistics says."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from uqlib.metrics import (
    augrc,
    aurc,
    coverage_at_risk,
    rank,
    risk_at_coverage,
    selective_accuracy_at_coverage,
    selective_accuracy_coverage,
)
from uqlib.metrics.bins import bin_by_width
from uqlib.metrics.calibration import ece, rms_calibration_error
from uqlib.metrics.classification import accuracy, average, brier, macro_f1, nll, top_k_accuracy
from uqlib.metrics.detection import auroc, correctness_aupr, correctness_auroc, fpr_at_tpr
from uqlib.metrics.resampling import draws as drawing
from uqlib.metrics.resampling.bootstrap import (
    interval,
    paired_difference,
    pool,
    resample,
    resample_difference,
    resample_together,
)
from uqlib.metrics.resampling.draws import BINNED, BY_COUNTS, PER_EXAMPLE, SIGNED
from uqlib.metrics.resampling.summarised import summary

OPTIONS = {  # what the metrics with a required option are tried with
    coverage_at_risk: {"risk": 0.2},
    selective_accuracy_coverage: {"accuracy": 0.85},
    risk_at_coverage: {"coverage": 0.33},
    selective_accuracy_at_coverage: {"coverage": 0.5},
    top_k_accuracy: {"k": 2},
}
STATISTICS = [
    partial(metric, **OPTIONS.get(metric, {})) for metric in [*BY_COUNTS, *BINNED, *SIGNED, *PER_EXAMPLE, macro_f1]
]
STATISTICS += [partial(correctness_aupr, positive="wrong"), partial(fpr_at_tpr, tpr=0.7)]
STATISTICS += [partial(ece, by=by, norm=norm, bins=4) for by in ("width", "mass") for norm in ("l1", "l2", "max")]
DRAWN = {"plain": (1, False), "stratified": (1, True), "groups": (5, False), "stratified groups": (3, True)}


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(n, decimals):
    confidence = torch.randn(n, generator=seeded(1), dtype=torch.float64)
    correct = torch.rand(n, generator=seeded(2)) < (confidence + 1).sigmoid()
    return confidence.round(decimals=decimals), correct


def arrays_of(statistic, n, decimals=9, seed=0):
    """What the statistic takes, of one set of examples: classes with gaps between them, labels and probabilities."""
    logits = torch.randn(n, 4, generator=seeded(3 + seed), dtype=torch.float64)
    labels = torch.randint(4, (n,), generator=seeded(4))
    logits[torch.arange(n), labels] += 1
    probs = logits.softmax(-1)
    confidence, preds = probs.max(-1)
    if statistic.func is macro_f1:
        return 10**12 * preds, 10**12 * labels
    if statistic.func is average:
        return (confidence,)
    found = {accuracy: preds, nll: logits, brier: probs, top_k_accuracy: logits}.get(statistic.func)
    return (confidence.round(decimals=decimals), preds == labels) if found is None else (found, labels)


def call_by_call(statistic, arrays, size, **options):
    """The statistic called on each draw, of arrays with a row a group."""
    grouped = [array.unflatten(0, (-1, size)) for array in arrays]
    return resample(lambda *taken: statistic(*(each.flatten(0, 1) for each in taken)), *grouped, **options)


def name_of(statistic):
    return "-".join([statistic.func.__name__, *map(str, statistic.keywords.values())])


@pytest.mark.parametrize(("size", "stratified"), DRAWN.values(), ids=DRAWN)
@pytest.mark.parametrize("decimals", [0, 1, 9], ids=["many ties", "some ties", "no ties"])
@pytest.mark.parametrize("statistic", STATISTICS, ids=name_of)
def test_counting_a_draw_is_resampling_the_arrays(monkeypatch, statistic, decimals, size, stratified):
    arrays = arrays_of(statistic, 60, decimals)
    options = {"draws": 50, "stratify": torch.arange(60 // size) % 3 if stratified else None}
    slow = call_by_call(statistic, arrays, size, generator=seeded(), **options)
    monkeypatch.delattr(drawing, "_call")  # so that nothing is called once a draw
    fast = resample(statistic, *arrays, groups=size, generator=seeded(), **options)
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-14)  # the same terms, summed in another order
    assert decimals == 0 or len(slow.unique()) > 5


@pytest.mark.parametrize("size", [1, 4])
def test_a_statistic_of_any_kind_is_drawn_in_groups(size):
    values = torch.randn(40, generator=seeded(), dtype=torch.float64)
    fast = resample(lambda x: x.max() - x[0], values, groups=size, draws=30, generator=seeded())
    assert fast.equal(call_by_call(lambda x: x.max() - x[0], [values], size, draws=30, generator=seeded()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("by", ["width", "mass"])
def test_confidences_on_the_edges_of_bins_stay_in_them(dtype, by):
    confidence = (torch.arange(300) % 16 / 15).to(dtype)
    correct = torch.rand(300, generator=seeded(1)) < 0.5
    statistic = partial(ece, by=by)
    fast = resample(statistic, confidence, correct, draws=20, generator=seeded())
    slow = call_by_call(statistic, (confidence, correct), 1, draws=20, generator=seeded())
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-14)


def test_what_lies_at_the_corners():
    """Draws of one example, or of equal ones, are all the examples themselves."""
    for n, confidence in ((1, torch.tensor([0.7])), (9, torch.full((9,), 0.25))):
        right, classes = torch.ones(n, dtype=torch.bool), torch.full((n,), 3)
        for statistic in (aurc, augrc, ece, rms_calibration_error, partial(selective_accuracy_coverage, accuracy=0.9)):
            drawn = resample(statistic, confidence, right, draws=5)
            assert drawn.tolist() == pytest.approx([statistic(confidence, right)] * 5, abs=1e-15)
        assert resample(macro_f1, classes, classes, draws=3).tolist() == [1, 1, 1]
        assert resample(macro_f1, classes, classes - 1, draws=3).tolist() == [0, 0, 0]


@pytest.mark.parametrize(("size", "stratified"), DRAWN.values(), ids=DRAWN)
def test_together_is_each_alone_on_the_same_draws(size, stratified):
    options = {"draws": 40, "groups": size, "stratify": torch.arange(600 // size) % 2 if stratified else None}
    statistics = [(each, arrays_of(each, 600, 2, seed)) for seed in (0, 1) for each in STATISTICS]
    statistics.append((lambda preds, labels: float(preds.sum()), arrays_of(partial(accuracy), 600)))
    generators = [seeded(5) for _ in statistics]
    together = resample_together(statistics, generator=(shared := seeded(5)), **options)
    alone = [
        resample(each, *arrays, generator=generator, **options)
        for (each, arrays), generator in zip(statistics, generators, strict=True)
    ]
    assert together.equal(torch.stack(alone))
    assert all(shared.get_state().equal(each.get_state()) for each in generators)  # drawn once


def test_equal_arrays_are_sorted_once_and_others_are_not_taken_for_them(monkeypatch):
    sorts = []
    monkeypatch.setattr(drawing, "rank", lambda *arrays, **options: sorts.append(arrays) or rank(*arrays, **options))
    confidence, correct = rows(50, 1)
    many = [(metric, (confidence.clone(), correct.clone())) for metric in (aurc, augrc, auroc)]
    many += [(aurc, (confidence.float(), correct)), (aurc, (confidence, ~correct))]
    resample_together(many, draws=5)
    assert len(sorts) == 3


def test_the_slow_path_hands_over_arrays_of_the_kind_that_came_in():
    probs = torch.randn(40, 3, generator=seeded(4), dtype=torch.float64).softmax(-1).numpy()
    labels = np.arange(40) % 3
    outside = partial(log_loss, labels=[0, 1, 2])
    draws = resample(lambda p, y: outside(y, p), probs, labels, draws=20, generator=seeded())
    np.testing.assert_allclose(draws, resample(nll, np.log(probs), labels, draws=20, generator=seeded()), atol=1e-12)
    seen = []
    resample(lambda *arrays: seen.append(arrays) or 0.0, np.ones(2), torch.ones(2, 3), draws=1)
    assert [type(array) for array in seen[0]] == [np.ndarray, torch.Tensor]
    assert seen[0][1].shape == (2, 3)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not():
    arrays = rows(300, 1)
    first, again, other = (interval(aurc, *arrays, draws=50, generator=seeded(seed)) for seed in (0, 0, 1))
    assert first == again
    assert first != other


def test_long_arrays_are_drawn_in_several_chunks_from_one_stream():
    arrays = rows(300_000, 3)
    fast = resample(auroc, *arrays, draws=7, generator=seeded())
    slow = resample(lambda *taken: auroc(*taken), *arrays, draws=7, generator=seeded())
    assert len(fast.unique()) == 7
    assert fast.equal(slow)  # pairs are integers


def test_the_interval_of_an_accuracy_is_the_binomial_one():
    correct = np.arange(2000) < 1700
    value, low, high, level, draws = interval(np.mean, correct.astype(float), draws=4000, level=0.9, generator=seeded())
    assert (value, level, draws) == (0.85, 0.9, 4000)
    error = math.sqrt(0.85 * 0.15 / 2000)
    # a 5 % quantile of 4000 draws has the standard error sqrt(0.05 0.95 / 4000) / density = 0.033 sigma; half a step
    # of 1/2000 and the skewness of the binomial add 0.04 sigma
    assert abs(low - (0.85 - 1.6449 * error)) < 0.17 * error
    assert abs(high - (0.85 + 1.6449 * error)) < 0.17 * error


def test_intervals_of_the_auroc_cover_the_truth_as_often_as_they_say():
    """Two unit normals one apart: AUROC = Phi(1 / sqrt 2)."""
    truth = 0.5 * (1 + math.erf(0.5))
    generator = seeded(5)
    positive = torch.arange(200) < 100
    covered = 0
    for _ in range(200):
        score = torch.randn(200, generator=generator) + positive.double()
        found = interval(auroc, score, positive, draws=200, level=0.9, generator=generator, stratify=positive)
        covered += found.low <= truth <= found.high
    # binomial around 0.9 with standard error 0.021, and percentile intervals lose a percent or two at this size
    assert 0.9 - 4 * 0.021 - 0.02 < covered / 200 < 0.9 + 4 * 0.021


def test_a_paired_difference_sees_both_methods_on_the_same_draws():
    confidence, correct = rows(100, 1)
    better = confidence + correct.double()
    first, second = (confidence, correct), (better, correct)
    found = paired_difference(aurc, first, second, draws=200, generator=seeded())
    draws = [resample(aurc, *arrays, draws=200, generator=seeded()) for arrays in (first, second)]
    assert found.value == aurc(*first) - aurc(*second)
    assert (found.low, found.high) == pytest.approx(
        np.quantile(draws[0] - draws[1], [0.025, 0.975]).tolist(), abs=1e-15
    )
    assert found.low > 0
    same = paired_difference(augrc, first, first, draws=20)
    assert same[:3] == (0, 0, 0)


def test_two_accuracies_may_differ_in_their_rows_of_correct():
    labels = torch.zeros(50, dtype=torch.int64)
    right, wrong = labels, labels + (torch.arange(50) < 10)
    assert paired_difference(accuracy, (right, labels), (wrong, labels), draws=50).value == pytest.approx(0.2)


def test_stratified_draws_keep_every_group():
    labels = torch.arange(90) % 9 == 0
    kept = resample(lambda mask: float(mask.sum()), labels, draws=30, stratify=labels, generator=seeded())
    assert kept.unique().tolist() == [10]
    numbers = torch.arange(90.0)
    slow = resample(lambda values: float(values.mean()), numbers, draws=500, stratify=labels, generator=seeded())
    assert len(slow.unique()) > 100
    # within group variances, weighted: the standard error of a stratified mean
    error = math.sqrt(sum(mask.sum() * numbers[mask].var(correction=0) for mask in (labels, ~labels))) / 90
    assert abs(slow.mean() - numbers.mean()) < 4 * error / math.sqrt(500)
    assert slow.std() == pytest.approx(error, rel=4 / math.sqrt(2 * 500))


def test_a_draw_without_a_class_is_refused_with_the_remedy():
    score, positive = torch.arange(20.0), torch.arange(20) == 3
    for metric in (auroc, fpr_at_tpr, correctness_auroc, partial(correctness_aupr, positive="wrong")):
        with pytest.raises(ValueError, match=r"the statistic is nan on draw \d+: .* Pass stratify=correct"):
            interval(metric, score, positive, draws=100, generator=seeded())
    assert interval(auroc, score, positive, draws=100, stratify=positive).draws == 100


def test_one_example_has_a_value_and_no_interval():
    found = interval(aurc, [0.9], [True], draws=50)
    assert (found.value, math.isnan(found.low), math.isnan(found.high)) == (0.0, True, True)
    apart = paired_difference(aurc, ([0.9], [False]), ([0.9], [True]), draws=50)
    assert apart.value == pytest.approx(1, rel=1e-12)
    assert math.isnan(apart.low)
    assert math.isnan(apart.high)


def test_a_summary_says_which_predictions_are_missing():
    with pytest.raises(ValueError, match="correctness_auroc needs both classes; all 3 examples are correct"):
        summary([0.9, 0.8, 0.7], [True] * 3, draws=50)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"level must lie in \(0, 1\); it is 95\. Percent\? Divide by 100\."):
        interval(aurc, [0.1, 0.2], [1, 0], level=95)
    with pytest.raises(ValueError, match=r"level must lie in \(0, 1\); it is 95"):
        paired_difference(aurc, ([0.1], [1]), ([0.1], [1]), level=95)
    with pytest.raises(ValueError, match="draws must be a whole number of at least 1; it is 0"):
        interval(aurc, [0.1, 0.2], [1, 0], draws=0)
    with pytest.raises(ValueError, match="confidence must be finite; row 0 is nan"):
        interval(aurc, [float("nan"), 0.2], [1, 0])
    with pytest.raises(ValueError, match=r"second\[0\] has 3 rows where 2 are expected"):
        paired_difference(aurc, ([0.1, 0.2], [1, 0]), ([0.1, 0.2, 0.3], [1, 0, 0]))
    with pytest.raises(ValueError, match="stratify has 3 rows where 2 are expected"):
        interval(aurc, [0.1, 0.2], [1, 0], stratify=[0, 0, 1])


def test_a_statistic_that_is_not_defined_is_named_among_several():
    score, positive = torch.arange(20.0), torch.arange(20) == 3
    with pytest.raises(ValueError, match=r"statistics\[1\]\[0\] is nan on draw \d+: .* Pass stratify=correct"):
        resample_together([(aurc, (score, positive)), (auroc, (score, positive))], draws=100, generator=seeded())
    with pytest.raises(ValueError, match="the statistic is nan on draw 0"):
        resample_difference(lambda values: math.inf, (score,), (score,), draws=3)


@pytest.mark.parametrize(
    ("statistics", "options", "error", "message"),
    [
        ([], {}, ValueError, "statistics is empty"),
        ([aurc], {}, TypeError, r"statistics\[0\] must be a pair, a statistic and its arrays"),
        ([(aurc, [0.1, 0.2], [1, 0])], {}, TypeError, r"statistics\[0\] must be a pair"),
        ([(aurc, np.ones(2))], {}, TypeError, r"statistics\[0\]\[1\] must be the arrays of one method together"),
        (
            [(aurc, rows(4, 1)), (nll, (np.ones((3, 2)), [0, 1, 0]))],
            {},
            ValueError,
            r"statistics\[1\]\[1\]\[0\] has 3 rows where 4 are expected",
        ),
        ([(aurc, rows(10, 1))], {"groups": 4}, ValueError, "10 examples do not divide into groups of 4"),
        ([(aurc, rows(10, 1))], {"groups": 0}, ValueError, "groups must be a whole number of at least 1; it is 0"),
        (
            [(aurc, rows(10, 1))],
            {"groups": 5, "stratify": np.arange(10)},
            ValueError,
            "stratify has 10 rows where 2 are expected",
        ),
        ([(partial(ece, by="depth"), ([0.5], [1]))], {}, ValueError, "unknown by 'depth'; choose from width, mass"),
        ([(partial(ece, norm="l3"), ([0.5], [1]))], {}, ValueError, "unknown norm 'l3'; choose from l1, l2, max"),
        ([(partial(ece, bins=0), ([0.5], [1]))], {}, ValueError, "bins must be a whole number of at least 1; it is 0"),
        ([(ece, ([50.0], [1]))], {}, ValueError, r"confidence must lie in \[0, 1\]; row 0 is 50"),
        ([(partial(ece, by="mass"), ([50.0], [1]))], {}, ValueError, r"confidence must lie in \[0, 1\]; row 0 is 50"),
        ([(ece, ([0.5],))], {}, ValueError, "correct is missing"),
        ([(macro_f1, ([0, -1], [0, 1]))], {}, ValueError, "preds must .* row 1 is -1"),
    ],
)
def test_what_several_statistics_cannot_be_made_of_is_named(unchecked, statistics, options, error, message):
    with pytest.raises(error, match=message):
        resample_together(statistics, draws=5, **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_sees_the_draws_of_the_cpu():
    arrays = rows(500, 1)
    moved = [array.cuda() for array in arrays]
    for metric in (auroc, augrc):
        assert resample(metric, *moved, draws=20, generator=seeded()).equal(
            resample(metric, *arrays, draws=20, generator=seeded())
        )


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: interval(aurc, [0.1], [1], draws=10.5),
            TypeError,
            "draws must be a whole number of at least 1; it is 10.5",
        ),
        (lambda: interval(aurc, [0.1], [1], generator=0), TypeError, "generator must be torch's, .*; it is 0"),
        (lambda: interval(lambda a: 0.0, []), ValueError, r"arrays\[0\] is empty"),
        (lambda: interval(aurc, [0.1, 0.2], [1, 0], stratify=[[0, 1], [1, 0]]), ValueError, r"its shape is \(2, 2\)"),
        (
            lambda: interval(aurc, [0.1, 0.2], [1, 0], stratify=[0, math.nan]),
            ValueError,
            "stratify must be finite; row 1 is nan",
        ),
        (
            lambda: paired_difference(aurc, np.ones(3), np.ones(3)),
            TypeError,
            "first must be the arrays of one method together",
        ),
        (lambda: pool([], []), ValueError, "values is empty"),
        (lambda: pool([0.0, 1.0], [torch.zeros(3)]), ValueError, "each of the 2 values; it has 1"),
    ],
)
def test_what_is_handed_over_wrongly_is_named(unchecked, call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_pool_takes_draws_of_any_kind(unchecked):
    drawn = np.linspace(0, 40, 41, dtype=np.float32)
    assert pool([2.0], [drawn])[:3] == pytest.approx((2, 1, 39))


@pytest.mark.parametrize("draws", [100, np.int64(100), torch.tensor(100)], ids=repr)
@pytest.mark.parametrize("level", [0.9, np.float64(0.9), torch.tensor(0.9, dtype=torch.float64)], ids=repr)
def test_numbers_of_every_library_are_taken(unchecked, draws, level):
    found = interval(aurc, *rows(50, 0), draws=draws, level=level, generator=seeded())
    assert found == interval(aurc, *rows(50, 0), draws=100, level=0.9, generator=seeded())
    assert (type(found.draws), type(found.level)) == (int, float)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: interval(aurc, rank(*rows(9, 0))),
            r"arrays\[0\] is of type Ranking, and a bootstrap needs the examples",
        ),
        (
            lambda: interval(ece, bin_by_width([0.5, 0.2], [1, 0])),
            r"arrays\[0\] is of type Bins, and a bootstrap needs the",
        ),
        (lambda: resample(aurc, rank(*rows(9, 0))), r"arrays\[0\] is of type Ranking"),
        (lambda: paired_difference(aurc, rows(9, 0), (rank(*rows(9, 0)),)), r"second\[0\] is of type Ranking"),
        (lambda: interval(aurc), "arrays are missing"),
        (lambda: interval(aurc, *rows(9, 0), draws=True), r"draws must be .* it is True \(bool\)"),
        (lambda: interval(aurc, *rows(9, 0), level="0.9"), r"level must be .* it is '0\.9' \(str\)"),
        (lambda: interval(lambda a: a, [1.0, 2.0]), "statistic must return one number; it returned list"),
        (lambda: interval(aurc, ["a", "b"], [1, 0]), r"arrays\[0\] must be an array of numbers"),
    ],
)
def test_what_is_no_example_is_refused_by_name(unchecked, call, message):
    with pytest.raises(TypeError, match=message):
        call()


def test_draws_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match=r"draws\[1\] must be finite; row 0 is nan"):
        pool([0.0, 1.0], [torch.zeros(3), torch.tensor([math.nan])])
