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
from uqlib.metrics.bootstrap import BY_COUNTS, PER_EXAMPLE, interval, paired_difference, pool, resample
from uqlib.metrics.calibration import bin_by_width, ece
from uqlib.metrics.classification import accuracy, brier, nll
from uqlib.metrics.detection import auroc, correctness_aupr, correctness_auroc, fpr_at_tpr

OPTIONS = {  # what the metrics with a required option are tried with
    coverage_at_risk: {"risk": 0.2},
    selective_accuracy_coverage: {"accuracy": 0.85},
    risk_at_coverage: {"coverage": 0.33},
    selective_accuracy_at_coverage: {"coverage": 0.5},
}
RANK_METRICS = [partial(metric, **OPTIONS.get(metric, {})) for metric in BY_COUNTS]
RANK_METRICS += [partial(correctness_aupr, positive="wrong"), partial(fpr_at_tpr, tpr=0.7)]


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def rows(n, decimals):
    confidence = torch.randn(n, generator=seeded(1), dtype=torch.float64)
    correct = torch.rand(n, generator=seeded(2)) < (confidence + 1).sigmoid()
    return confidence.round(decimals=decimals), correct


@pytest.mark.parametrize("decimals", [0, 1, 9], ids=["many ties", "some ties", "no ties"])
@pytest.mark.parametrize("metric", RANK_METRICS, ids=lambda metric: metric.func.__name__)
def test_counting_a_draw_is_resampling_the_arrays(metric, decimals):
    arrays = rows(60, decimals)
    fast = resample(metric, *arrays, draws=100, generator=seeded())
    slow = resample(lambda *taken: metric(*taken), *arrays, draws=100, generator=seeded())
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-14)  # the same terms, summed in another order


@pytest.mark.parametrize("metric", PER_EXAMPLE, ids=lambda metric: metric.__name__)
def test_means_draw_from_their_values(metric):
    table = torch.randn(50, 4, generator=seeded(3), dtype=torch.float64)
    given = {accuracy: table.argmax(-1), nll: table, brier: table.softmax(-1)}[metric]
    arrays = given, torch.arange(50) % 4
    fast = resample(metric, *arrays, draws=50, generator=seeded())
    slow = resample(lambda *taken: metric(*taken), *arrays, draws=50, generator=seeded())
    np.testing.assert_allclose(fast, slow, rtol=0, atol=1e-14)


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
    for metric in (auroc, correctness_auroc, partial(correctness_aupr, positive="wrong")):
        with pytest.raises(ValueError, match=r"the statistic is nan on draw \d+: .* Pass stratify=correct"):
            interval(metric, score, positive, draws=100, generator=seeded())
    assert interval(auroc, score, positive, draws=100, stratify=positive).draws == 100


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
    assert pool([2.0], [np.array([1.0, 3.0], np.float32)])[:3] == pytest.approx((2, 1.05, 2.95))


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
