"""Published rules against independent literal readings, and against the sound metrics where they must agree."""

import inspect
import math
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss

from uqlib.metrics import aurc, aurc_fd_shifts, aurc_trapezoid, selective_accuracy_coverage, selective_risks
from uqlib.metrics.calibration import ece
from uqlib.metrics.detection import fpr_at_tpr
from uqlib.papers import hendrycks2019, zhou2025
from uqlib.papers.hendrycks2019 import (
    fpr_at_recall_hendrycks2019,
    mad_calibration_error_hendrycks2019,
    rms_calibration_error_hendrycks2019,
    soft_f1_hendrycks2019,
)
from uqlib.papers.zhou2025 import (
    aurc_zhou2025,
    brier_zhou2025,
    duo_confidence_zhou2025,
    e_aurc_zhou2025,
    ece_zhou2025,
    sac_zhou2025,
)

SCORES = st.sampled_from([0.1, 0.3, 0.5, 0.7, 0.9])
ROWS = st.lists(st.tuples(SCORES, st.booleans()), min_size=2, max_size=25)


def distinct(n=200, seed=0):
    rng = np.random.default_rng(seed)
    confidence = rng.permutation(np.linspace(0.01, 1, n))
    return confidence, rng.random(n) < confidence


PAPERS = (hendrycks2019, zhou2025)
RELEASED = [
    f for paper in PAPERS for f in vars(paper).values() if inspect.isfunction(f) and f.__module__ == paper.__name__
]


def test_a_rule_that_bears_the_name_of_its_paper_says_where_it_stands():
    named = [f for f in RELEASED if f.__name__.endswith(f.__module__.rsplit(".", 1)[-1]) and f.__name__[0] != "_"]
    assert len(named) > 8
    for function in named:
        assert "Source:" in function.__doc__, function.__name__
    others = {f.__name__ for f in RELEASED if f not in named and f.__name__[0] != "_"}
    assert not [
        name for name in others if name.startswith(("aurc", "ece", "brier", "sac", "auroc"))
    ]  # a metric under a known name


def test_without_ties_the_conventions_of_aurc_convert_in_closed_form():
    confidence, correct = distinct()
    risks, n = selective_risks(confidence, correct), 200
    assert aurc_zhou2025(confidence, correct) == pytest.approx(aurc(confidence, correct), rel=1e-13)
    ends = (risks[0] + risks[-1]) / 2
    assert aurc_trapezoid(confidence, correct) == pytest.approx((risks.sum() - ends) / (n - 1), rel=1e-13)
    expected = 1000 * (risks.mean() + (risks[0] - risks[-1]) / (2 * n))
    assert aurc_fd_shifts(confidence, correct) == pytest.approx(expected, rel=1e-13)


def test_at_ties_the_published_aurc_follows_the_rows():
    # 1,000 equal confidences, half of them wrong: the tie-free value is 1/2 in any order
    correct = np.arange(1000) < 500
    k = np.arange(1, 1001)
    assert aurc_zhou2025(np.ones(1000), correct) == pytest.approx((np.maximum(k - 500, 0) / k).mean(), rel=1e-13)
    assert aurc_zhou2025(np.ones(1000), ~correct) == pytest.approx((np.minimum(k, 500) / k).mean(), rel=1e-13)
    assert aurc_trapezoid(np.ones(1000), correct) == pytest.approx(0.154, abs=5e-4)  # observed with torch-uncertainty
    assert aurc_trapezoid(np.ones(1000), ~correct) == pytest.approx(0.846, abs=5e-4)
    assert aurc_fd_shifts(np.ones(1000), correct) == pytest.approx(500, rel=1e-13)


@given(ROWS)
def test_fd_shifts_joins_the_points_of_distinct_confidences(rows):
    points = []
    for threshold in sorted({value for value, _ in rows}, reverse=True):
        kept = [hit for value, hit in rows if value >= threshold]
        points.append((len(kept) / len(rows), kept.count(False) / len(kept)))
    points = [(0.0, points[0][1]), *points]
    area = sum((b[0] - a[0]) * (a[1] + b[1]) / 2 for a, b in pairwise(points))
    assert aurc_fd_shifts(*map(np.array, zip(*rows, strict=True))) == pytest.approx(1000 * area, abs=1e-10)


def test_the_empirical_ideal_is_near_its_limit():
    # the sheet's digits: error 6 % at n = 10,000 leaves 0.001812 in the limit and 0.001815 in the sample
    correct = np.arange(10_000) >= 600
    ideal = aurc_zhou2025(correct.astype(float), correct)
    assert ideal == pytest.approx(0.06 + 0.94 * math.log(0.94), abs=5e-6)
    confidence, hits = distinct()
    assert e_aurc_zhou2025(confidence, hits) == pytest.approx(
        aurc(confidence, hits) - aurc_zhou2025(hits.astype(float), hits), abs=1e-14
    )
    assert e_aurc_zhou2025(hits.astype(float), hits) == 0


def test_sac_takes_the_largest_coverage_of_a_curve_that_is_not_monotone():
    confidence = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    correct = np.array([True, False, True, True, False])  # risks 0, 1/2, 1/3, 1/4, 2/5
    assert sac_zhou2025(confidence, correct, accuracy=0.7) == 0.8
    assert sac_zhou2025(confidence, correct, accuracy=0.98) == 0.2
    assert sac_zhou2025(confidence, ~correct, accuracy=0.98) == 0.0
    assert sac_zhou2025(confidence[:2], correct[:2], accuracy=0.5) == 1.0  # a risk of 1/2 is allowed
    some, hits = distinct()
    for accuracy in (0.83, 0.91, 0.98):
        assert sac_zhou2025(some, hits, accuracy=accuracy) == selective_accuracy_coverage(some, hits, accuracy=accuracy)


def test_sac_keeps_the_rounding_of_the_released_code():
    # a risk of exactly 0.1 exceeds 1 - 0.9 = 0.09999999999999998
    assert sac_zhou2025(np.linspace(1, 0.1, 10), np.arange(10) < 9, accuracy=0.9) == 0.9


def test_ece_differs_at_zero_alone():
    confidence, correct = distinct()
    assert ece_zhou2025(confidence, correct) == pytest.approx(ece(confidence, correct), abs=1e-14)
    assert ece_zhou2025([0.0, 1.0], [True, True]) == 0
    assert ece([0.0, 1.0], [True, True]) == 0.5


def test_brier_and_f1_match_what_the_released_code_calls():
    probs = torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64).softmax(-1)
    labels = np.arange(50) % 4
    expected = brier_score_loss(np.eye(4)[labels].reshape(-1), probs.numpy().reshape(-1))
    assert brier_zhou2025(probs, labels) == pytest.approx(expected, rel=1e-13)


def test_the_released_duo_confidence_is_read_at_the_large_networks_class():
    assert duo_confidence_zhou2025(np.array([[0.7, 0.3], [0.4, 0.6]]), [1, 1]).tolist() == [0.3, 0.6]


def hendrycks_by_hand(confidence, correct, beta, drop_last):
    order = sorted(range(len(confidence)), key=lambda i: confidence[i])
    starts = list(range(0, len(order) - beta + 1, beta))
    squares, absolutes = 0.0, 0.0
    for j, start in enumerate(starts):
        last = j == len(starts) - 1
        rows = order[start:] if last else order[start : start + beta]
        gap = np.mean(confidence[rows]) - np.mean(correct[rows])
        if not (last and drop_last):
            squares += len(rows) / len(order) * gap**2
            absolutes += len(rows) / len(order) * abs(gap)
    return math.sqrt(squares), absolutes


@pytest.mark.parametrize("n", [200, 250, 300, 1099])
@pytest.mark.parametrize("drop_last", [True, False])
def test_hendrycks_bins_hold_a_hundred_and_lose_the_top(n, drop_last):
    confidence, correct = distinct(n)
    errors = (rms_calibration_error_hendrycks2019, mad_calibration_error_hendrycks2019)
    found = [error(confidence, correct, drop_last=drop_last) for error in errors]
    assert found == pytest.approx(hendrycks_by_hand(confidence, correct, 100, drop_last), abs=1e-14)


def test_the_dropped_bin_hides_what_it_holds():
    confidence = np.linspace(0.5, 1, 300)
    correct = np.arange(300) < 200  # the hundred most confident are all wrong, and do not count
    changed = rms_calibration_error_hendrycks2019(confidence, np.ones(300, dtype=bool))
    assert rms_calibration_error_hendrycks2019(confidence, correct) == changed


def test_soft_f1_by_hand():
    # votes for "error": 0.1, 0.8, 0.3; the second is one: tp 0.8, fp 0.1 + 0.3, fn 0.2
    found = soft_f1_hendrycks2019(np.array([0.9, 0.2, 0.7]), [True, False, True])
    assert found == pytest.approx(1.6 / (1.6 + 0.4 + 0.2), rel=1e-14)


@given(ROWS, st.sampled_from([0.4, 0.5, 0.75, 0.95]))
def test_fpr_is_taken_at_the_nearest_recall(rows, recall):
    score, positive = (np.array(column) for column in zip(*rows, strict=True))
    if positive.all() or not positive.any():
        return
    points = []
    for threshold in sorted(set(score)):  # from the loosest on, so that min() keeps the larger recall
        called = score >= threshold
        points.append((called[positive].mean(), called[~positive].mean()))
    strictest_full = min(fpr for tpr, fpr in points if tpr == 1)
    nearest = min(points, key=lambda point: abs(point[0] - recall))
    expected = strictest_full if nearest[0] == 1 else nearest[1]
    assert fpr_at_recall_hendrycks2019(score, positive, recall=recall) == pytest.approx(expected, abs=1e-14)


def test_the_loosest_threshold_of_a_recall_counts():
    # from the top: 19 positives, 10 negatives, the last positive, 10 negatives; 95 % recall is met before the first ten
    positive = np.repeat([True, False, True, False], [19, 10, 1, 10])
    score = np.arange(40.0)[::-1]
    assert fpr_at_tpr(score, positive, tpr=0.95) == 0
    assert fpr_at_recall_hendrycks2019(score, positive) == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rms_calibration_error_hendrycks2019([0.5] * 99, [True] * 99), r"beta must lie in \[1, n\] for n = 99"),
        (lambda: sac_zhou2025([0.5], [True], accuracy=98), r"accuracy must lie in \[0, 1\]; it is 98\. Percent\?"),
        (lambda: aurc_trapezoid([0.5], [True]), "at least two rows"),
        (lambda: soft_f1_hendrycks2019([0.5], [True]), "at least one error"),
        (lambda: fpr_at_recall_hendrycks2019([0.5], [True]), "both groups are needed; positive is True in every row"),
        (lambda: aurc_zhou2025([0.5, float("inf")], [True, True]), "row 1 is inf"),
        (lambda: duo_confidence_zhou2025([[0.5, 0.5]], [2]), r"large_preds must lie in \[0, 2\)"),
    ],
)
def test_errors_say_what_came_and_where(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "rule",
    [
        ece_zhou2025,
        soft_f1_hendrycks2019,
        partial(rms_calibration_error_hendrycks2019, beta=1),
        partial(mad_calibration_error_hendrycks2019, beta=1),
    ],
)
@pytest.mark.parametrize("confidence", [[90.0, 40.0, 70.0], [0.9, 3.2, 0.1], [0.9, -0.4, 0.1]])
def test_rules_that_compare_with_a_share_refuse_percent_and_logits(rule, confidence):
    with pytest.raises(ValueError, match=r"confidence must lie in \[0, 1\]; row .* Percent\? Divide by 100"):
        rule(confidence, [True, False, True])
    assert 0 <= rule([0.9, 0.4, 0.7], [True, False, True]) <= 1
