"""Detection metrics against scikit-learn, against counting every pair, and against Mann and Whitney's U."""

from fractions import Fraction
from functools import partial
from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score
from sklearn.metrics import roc_curve as sklearn_roc_curve

from uqlib.metrics import merge_rankings, rank
from uqlib.metrics.detection import (
    aupr,
    auroc,
    correctness_aupr,
    correctness_auroc,
    fpr_at_tpr,
    operating_point,
    r_precision,
    roc_curve,
)

METRICS = {
    "auroc": auroc,
    "aupr": aupr,
    "correctness_auroc": correctness_auroc,
    "correctness_aupr": correctness_aupr,
    "correctness_aupr_wrong": partial(correctness_aupr, positive="wrong"),
    "r_precision": r_precision,
    "fpr_at_tpr": fpr_at_tpr,
    "fpr_at_half": partial(fpr_at_tpr, tpr=0.5),
}
ANY = pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS)


def rows_of(most, scores):
    """Lists of (score, positive) with both outcomes."""
    rows = st.lists(st.tuples(st.integers(0, scores).map(float), st.booleans()), min_size=2, max_size=most)
    return rows.filter(lambda rows: 0 < sum(positive for _, positive in rows) < len(rows))


ROWS = rows_of(60, scores=12)


def columns(rows):
    return tuple(map(torch.tensor, zip(*rows, strict=True)))


def split(rows):
    return [score for score, positive in rows if positive], [score for score, positive in rows if not positive]


@given(ROWS)
def test_auroc_counts_every_pair(rows):
    positives, negatives = split(rows)
    won = [Fraction((p > n) + (p >= n), 2) for p in positives for n in negatives]
    assert auroc(*columns(rows)) == float(sum(won) / len(won))  # integers and one division: equal, not close


def test_auroc_of_many_examples_is_the_u_statistic():
    generator = np.random.default_rng(0)
    score, positive = generator.normal(size=20_000).round(2), generator.random(20_000) < 0.1
    u = mannwhitneyu(score[positive], score[~positive]).statistic
    assert auroc(score, positive) == u / (positive.sum() * (~positive).sum())
    assert auroc(score, positive) == pytest.approx(roc_auc_score(positive, score), abs=1e-12)


@given(ROWS)
@settings(max_examples=50)
def test_aupr_is_the_average_precision_of_sklearn(rows):
    score, positive = columns(rows)
    assert aupr(score, positive) == pytest.approx(average_precision_score(positive, score), abs=1e-13)
    assert correctness_aupr(score, positive) == pytest.approx(average_precision_score(positive, score), abs=1e-13)
    wrong = correctness_aupr(score, positive, positive="wrong")
    assert wrong == pytest.approx(average_precision_score(~positive, -score), abs=1e-13)


def test_aupr_of_a_constant_score_is_the_share_of_the_positives():
    assert aupr([1.0, 1, 1, 1], [1, 0, 0, 0]) == 0.25
    assert correctness_aupr([1.0, 1, 1, 1], [1, 0, 0, 0], positive="wrong") == 0.75


@given(rows_of(6, scores=3))
def test_r_precision_averages_over_every_order_of_the_ties(rows):
    r = sum(positive for _, positive in rows)
    orders = [each for each in permutations(rows) if all(a[0] >= b[0] for a, b in pairwise(each))]
    found = [sum(positive for _, positive in each[:r]) for each in orders]
    assert r_precision(*columns(rows)) == pytest.approx(sum(found) / len(found) / r, abs=1e-15)


def test_r_precision_is_the_precision_of_sklearn_where_nothing_ties():
    generator = np.random.default_rng(0)
    positive = generator.random(5_000) < 0.1
    score = generator.normal(size=5_000) + positive
    called = score >= np.sort(score)[-positive.sum()]
    assert r_precision(score, positive) == precision_score(positive, called) == recall_score(positive, called)
    assert r_precision(np.ones(5_000), positive) == positive.mean()


@given(ROWS)
def test_correctness_auroc_is_symmetric_in_the_two_outcomes(rows):
    confidence, correct = columns(rows)
    assert correctness_auroc(confidence, correct) == auroc(-confidence, ~correct) == auroc(confidence, correct)


@given(ROWS, st.integers(1, 20))
def test_the_operating_point_is_the_least_fpr_of_all_thresholds_with_the_recall(rows, recall):
    positives, negatives = split(rows)
    points = []
    for cut in {score for score, _ in rows}:
        recall_here = Fraction(sum(p >= cut for p in positives), len(positives))
        points.append((Fraction(sum(n >= cut for n in negatives), len(negatives)), -recall_here))
    fpr, minus_recall = min(point for point in points if -point[1] >= Fraction(recall, 20))
    point = operating_point(*columns(rows), tpr=recall / 20)
    assert fpr_at_tpr(*columns(rows), tpr=recall / 20) == point.fpr == float(fpr)
    # equal FPR can come with more recall: the strictest threshold is taken
    assert recall / 20 <= point.tpr <= float(-minus_recall)
    assert point.tpr == sum(p >= point.threshold for p in positives) / len(positives)


def test_fpr_takes_at_least_the_recall_and_not_the_nearest():
    # recall 0.9 is nearer to 0.94 than 1.0 is; it does not count
    score, positive = np.arange(20, 0, -1), np.array(9 * [1] + 5 * [0] + [1] + 5 * [0])
    assert operating_point(score, positive, tpr=0.94) == (0.5, 1.0, 6.0)
    assert fpr_at_tpr(score, positive, tpr=0.9) == 0


@given(ROWS)
@settings(max_examples=50)
def test_roc_curve_is_that_of_sklearn_with_every_threshold_kept(rows):
    score, positive = columns(rows)
    fpr, tpr, thresholds = sklearn_roc_curve(positive, score, drop_intermediate=False)
    curve = roc_curve(score, positive)
    np.testing.assert_allclose(curve.fpr, fpr, rtol=0, atol=1e-15)
    np.testing.assert_allclose(curve.tpr, tpr, rtol=0, atol=1e-15)
    np.testing.assert_array_equal(curve.thresholds, thresholds)


def test_roc_curve_comes_in_the_kind_that_was_given():
    assert all(isinstance(column, np.ndarray) for column in roc_curve(np.array([0.1, 0.2]), np.array([0, 1])))
    assert all(isinstance(column, torch.Tensor) for column in roc_curve(rank([0.1, 0.2], [0, 1])))


@ANY
@given(ROWS, st.randoms(use_true_random=False))
@settings(max_examples=20, deadline=None)
def test_order_kind_scale_and_batches_do_not_matter(metric, rows, random):
    score, positive = columns(rows)
    value = metric(score, positive)
    assert 0 <= value <= 1 + 1e-15
    random.shuffle(rows)
    assert metric(*columns(rows)) == value
    assert metric((3 * score - 7).exp(), positive) == value
    assert metric(score.numpy(), positive.numpy()) == value
    assert metric(rank(score, positive)) == value
    assert metric(merge_rankings(rank(*columns(rows[:1])), rank(*columns(rows[1:])))) == value


@ANY
def test_one_class_alone_is_refused(metric):
    with pytest.raises(ValueError, match=r"needs both classes; all 3 examples are (positive|correct)"):
        metric([0.1, 0.2, 0.3], [1, 1, 1])
    with pytest.raises(ValueError, match=r"needs both classes; all 3 examples are (negative|wrong)"):
        metric([0.1, 0.2, 0.3], [0, 0, 0])


@ANY
def test_bad_input_is_named(metric):
    with pytest.raises(ValueError, match="must be finite; row 1 is nan"):
        metric([0.1, float("nan")], [True, False])
    with pytest.raises(ValueError, match=r"has 3 rows where 2 are expected"):
        metric([0.1, 0.2], [True, False, True])
    with pytest.raises(TypeError, match="or one Ranking alone"):
        metric([0.1, 0.2])


def test_bad_options_are_named():
    with pytest.raises(ValueError, match=r"unknown positive 'error'; choose from correct, wrong"):
        correctness_aupr([0.1, 0.2], [1, 0], positive="error")
    with pytest.raises(ValueError, match=r"tpr must lie in \(0, 1\]; it is 95\. Percent\? Divide by 100\."):
        fpr_at_tpr([0.1, 0.2], [1, 0], tpr=95)
    with pytest.raises(ValueError, match="correctness_auroc needs both classes; all 2 examples are correct"):
        correctness_auroc([0.1, 0.2], [1, 1])
    with pytest.raises(ValueError, match="auroc needs both classes; all 2 examples are negative"):
        auroc([0.1, 0.2], [0, 0])
