"""Selective metrics against every order of the ties, closed forms, and exact fractions."""

from fractions import Fraction
from functools import partial
from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uqlib.metrics import (
    augrc,
    aurc,
    aurc_of_trapezoids,
    coverage_at_risk,
    coverages,
    e_aurc,
    merge_rankings,
    rank,
    risk_at_coverage,
    selective_accuracy_at_coverage,
    selective_accuracy_coverage,
    selective_risks,
)
from uqlib.metrics.detection import correctness_auroc

METRICS = {  # every scalar metric, with its options; whatever enters the file inherits the properties below
    "aurc": aurc,
    "aurc_of_trapezoids": aurc_of_trapezoids,
    "e_aurc": e_aurc,
    "augrc": augrc,
    "coverage_at_risk": partial(coverage_at_risk, risk=0.3),
    "selective_accuracy_coverage": partial(selective_accuracy_coverage, accuracy=0.7),
    "risk_at_coverage": partial(risk_at_coverage, coverage=0.4),
    "selective_accuracy_at_coverage": partial(selective_accuracy_at_coverage, coverage=0.4),
}
ANY = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)
FEW = st.lists(st.tuples(st.sampled_from([0.2, 0.5, 0.9]), st.booleans()), min_size=1, max_size=6)
MANY = st.lists(st.tuples(st.integers(0, 30).map(float), st.booleans()), min_size=1, max_size=60)


def columns(rows):
    return tuple(map(torch.tensor, zip(*rows, strict=True)))


def risks_over_orders(rows):
    """For each order that the confidences allow, the exact risks at k = 1, ..., n."""
    orders = [p for p in permutations(rows) if all(a[0] >= b[0] for a, b in pairwise(p))]
    return [[Fraction(sum(not ok for _, ok in p[:k]), k) for k in range(1, len(p) + 1)] for p in orders]


def exact_risks(rows):
    """Expected risk at every k in exact fractions, tie by tie: an independent route for longer lists."""
    risks, kept, errors = [], 0, Fraction(0)
    for score in sorted({score for score, _ in rows}, reverse=True):
        tie = [ok for other, ok in rows if other == score]
        wrong = Fraction(tie.count(False))
        risks += [(errors + wrong * j / len(tie)) / (kept + j) for j in range(1, len(tie) + 1)]
        kept, errors = kept + len(tie), errors + wrong
    return risks


@given(FEW)
@settings(deadline=None)
def test_risks_aurc_and_augrc_average_over_every_order_of_the_ties(rows):
    orders = risks_over_orders(rows)
    n = len(rows)
    means = [sum(column) / len(orders) for column in zip(*orders, strict=True)]
    assert selective_risks(*columns(rows)).tolist() == pytest.approx([float(mean) for mean in means], abs=1e-15)
    assert aurc(*columns(rows)) == pytest.approx(float(sum(means) / n), abs=1e-14)
    generalised = sum(Fraction(k, n) * mean for k, mean in enumerate(means, start=1)) / n
    assert augrc(*columns(rows)) == float(generalised)  # integers and one division: equal, not close


@given(MANY)
def test_longer_lists_agree_with_exact_fractions(rows):
    risks = exact_risks(rows)
    n = len(rows)
    assert selective_risks(*columns(rows)).tolist() == pytest.approx([float(risk) for risk in risks], abs=1e-15)
    assert aurc(*columns(rows)) == pytest.approx(float(sum(risks) / n), abs=1e-13)
    errors = sum(not ok for _, ok in rows)
    ideal = sum(Fraction(max(0, k - (n - errors)), k) for k in range(1, n + 1)) / n
    assert e_aurc(*columns(rows)) == pytest.approx(float(sum(risks) / n - ideal), abs=1e-13)


def test_aurc_of_a_constant_confidence_is_the_error_rate():
    assert aurc(torch.full((4,), 0.7), torch.tensor([True, False, True, True])) == pytest.approx(0.25, abs=1e-15)


def test_without_errors_nothing_is_lost():
    arrays = [0.3, 0.3, 0.1], [True, True, True]
    assert (aurc(*arrays), e_aurc(*arrays), augrc(*arrays), coverage_at_risk(*arrays, risk=0)) == (0, 0, 0, 1)


@pytest.mark.parametrize("n", [1, 2, 257, 100_000])
def test_one_error_at_the_end_costs_one_over_n_squared(n):
    correct = torch.arange(n) < n - 1
    # the weight 1/n of the last rank is a difference of numbers near log n, so its error is about 1e-15 absolute
    assert aurc(-torch.arange(n), correct) == pytest.approx(n**-2, abs=1e-14 / n)
    assert augrc(-torch.arange(n), correct) == n**-2


@pytest.mark.parametrize("n", [1, 2, 300, 100_000])
def test_an_error_at_the_top_costs_a_harmonic_number(n):
    harmonic = sum(1 / k for k in range(n, 0, -1))
    assert aurc(-torch.arange(n), torch.arange(n) > 0) == pytest.approx(harmonic / n, rel=1e-14)


def test_aurc_is_the_mean_of_the_risks_on_many_examples_with_ties():
    generator = torch.Generator().manual_seed(0)
    confidence = torch.randn(200_000, generator=generator).round(decimals=4)
    correct = torch.rand(200_000, generator=generator) < confidence.sigmoid()
    # a tie at rank j subtracts numbers of size j, so each errs by 1e-16 j; the errors have random signs
    assert aurc(confidence, correct) == pytest.approx(selective_risks(confidence, correct).mean().item(), abs=1e-12)


def test_the_ideal_order_has_no_excess():
    correct = torch.arange(1000) < 700
    assert e_aurc(-torch.arange(1000), correct) == pytest.approx(0, abs=1e-14)
    assert e_aurc(correct.double(), correct) == pytest.approx(0, abs=1e-14)


@given(MANY.filter(lambda rows: 0 < sum(ok for _, ok in rows) < len(rows)))
def test_augrc_follows_from_auroc_and_accuracy(rows):
    confidence, correct = columns(rows)
    accuracy = correct.double().mean().item()
    auroc, error = correctness_auroc(confidence, correct), 1 - accuracy
    identity = (1 - auroc) * accuracy * error + error**2 / 2 + error / (2 * len(rows))
    assert augrc(confidence, correct) == pytest.approx(identity, abs=1e-14)


def achievable(rows):
    """(coverage, risk) of every threshold, as exact fractions."""
    kept = [[ok for score, ok in rows if score >= cut] for cut in sorted({score for score, _ in rows}, reverse=True)]
    return [(Fraction(len(part), len(rows)), Fraction(part.count(False), len(part))) for part in kept]


@given(MANY, st.integers(0, 20), st.integers(1, 20))
def test_working_points_search_the_achievable_coverages(rows, risk, coverage):
    points, limit, wanted = achievable(rows), Fraction(risk, 20), Fraction(coverage, 20)
    best = max([at for at, r in points if r <= limit], default=0)
    _, least = min(point for point in points if point[0] >= wanted)
    arrays = columns(rows)
    assert coverage_at_risk(*arrays, risk=risk / 20) == float(best)
    assert risk_at_coverage(*arrays, coverage=coverage / 20) == float(least)
    assert selective_accuracy_at_coverage(*arrays, coverage=coverage / 20) == float(1 - least)
    sac = max([at for at, r in points if 1 - r >= limit], default=0)
    assert selective_accuracy_coverage(*arrays, accuracy=risk / 20) == float(sac)


def test_coverage_at_risk_takes_the_largest_coverage_of_a_curve_that_is_not_monotone():
    correct = [True, False, True, True, False]  # risks 0, 1/2, 1/3, 1/4, 2/5
    assert coverage_at_risk([5, 4, 3, 2, 1], correct, risk=0.3) == 0.8
    assert selective_accuracy_coverage([5, 4, 3, 2, 1], correct, accuracy=0.7) == 0.8


def test_no_coverage_is_zero_and_a_tie_is_not_cut():
    assert coverage_at_risk([0.9, 0.5], [False, True], risk=0.1) == 0
    assert coverage_at_risk([0.9, 0.9], [True, False], risk=0.1) == 0
    assert risk_at_coverage([0.9, 0.9], [True, False], coverage=0.5) == 0.5


def test_decimal_limits_are_met_exactly():
    """7 of 100 is the coverage 0.07 and one error in ten the risk 0.1, though neither is a binary fraction."""
    confidence, correct = -np.arange(100), np.arange(100) != 6
    assert risk_at_coverage(confidence, correct, coverage=0.07) == 1 / 7
    assert coverage_at_risk([1.0] * 10, [False] + 9 * [True], risk=0.1) == 1
    assert selective_accuracy_coverage([1.0] * 10, [False] + 9 * [True], accuracy=0.9) == 1


@ANY
@given(MANY, st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_order_kind_scale_and_batches_do_not_matter(metric, rows, random):
    confidence, correct = columns(rows)
    value = metric(confidence, correct)
    random.shuffle(rows)
    assert metric(*columns(rows)) == value
    assert metric((confidence * 3 - 7).exp(), correct) == value
    assert metric(confidence.numpy(), correct.numpy()) == value
    assert metric(rank(confidence, correct)) == value
    halves = rank(*columns(rows[:1])), *([rank(*columns(rows[1:]))] if rows[1:] else [])
    assert metric(merge_rankings(*halves)) == value


@ANY
@given(MANY)
@settings(max_examples=20)
def test_values_are_fractions(metric, rows):
    assert -1e-14 <= metric(*columns(rows)) <= 1 + 1e-14  # float64 rounding


def test_curves_come_in_the_kind_that_was_given():
    confidence, correct = np.array([0.9, 0.5]), np.array([True, False])
    assert isinstance(selective_risks(confidence, correct), np.ndarray)
    assert isinstance(coverages(confidence), np.ndarray)
    ranking = rank(confidence, correct)
    assert isinstance(selective_risks(ranking), torch.Tensor)
    assert coverages(ranking).tolist() == coverages([0.9, 0.5]).tolist() == [0.5, 1.0]
    assert selective_risks(ranking).tolist() == [0.0, 0.5]


@ANY
def test_bad_input_is_named(metric):
    with pytest.raises(ValueError, match="confidence must be finite; row 1 is nan"):
        metric([0.1, float("nan")], [True, False])
    with pytest.raises(ValueError, match=r"correct must be true or false; row 0 is 7\. Pass `preds == labels`"):
        metric([0.1, 0.2], [7, 1])
    with pytest.raises(ValueError, match="correct has 3 rows where 2 are expected"):
        metric([0.1, 0.2], [True, False, True])
    with pytest.raises(TypeError, match="pass confidence and correct, or one Ranking alone"):
        metric([0.1, 0.2])
    with pytest.raises(TypeError, match="pass confidence and correct, or one Ranking alone"):
        metric(rank([0.1], [True]), [True])


@pytest.mark.parametrize(
    ("metric", "option", "bad"),
    [
        (coverage_at_risk, "risk", 5),
        (selective_accuracy_coverage, "accuracy", 98),
        (risk_at_coverage, "coverage", 0),
        (selective_accuracy_at_coverage, "coverage", 80),
    ],
)
def test_percentages_are_refused(metric, option, bad):
    with pytest.raises(ValueError, match=rf"{option} must lie in .*; it is {bad}\. Percent\? Divide by 100\."):
        metric([0.1, 0.2], [True, False], **{option: bad})
