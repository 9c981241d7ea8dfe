"""Calibration without bins: against scikit-learn, SciPy, brute force and closed forms."""

import itertools
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import isotonic_regression
from scipy.stats import kstest
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss, log_loss

from uqlib.metrics import (
    brier,
    calibration_test,
    classwise_score_parts,
    discrimination,
    interval,
    isotonic_curve,
    miscalibration,
    overconfidence,
    rank,
    recalibrated,
    score_parts,
    underconfidence,
)
from uqlib.metrics.curves import isotonic

ROWS = st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.2, 0.5, 0.7, 0.9, 1.0]), st.booleans()), min_size=1, max_size=12)


def sample(n, seed=0, ties=False, power=1.4):
    """Confidences of a network that is too sure, and whether it is right."""
    rng = np.random.default_rng(seed)
    confidence = rng.beta(3, 1, n)
    confidence = np.round(20 * confidence) / 20 if ties else confidence
    return confidence, rng.random(n) < confidence**power


def distances(confidence, correct, score):
    """The score of each example, written out."""
    if score == "brier":
        return (confidence - correct) ** 2
    with np.errstate(divide="ignore"):
        return -np.log(np.where(correct, confidence, 1 - confidence))


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [1, 2, 50, 5000])
def test_the_curve_is_that_of_scikit_learn_and_scipy(n, ties):
    confidence, correct = sample(n, ties=ties)
    sklearn = IsotonicRegression().fit(confidence, correct).predict(confidence)
    assert recalibrated(confidence, correct) == pytest.approx(sklearn, abs=1e-12)
    _, place, count = np.unique(confidence, return_inverse=True, return_counts=True)
    scipy = isotonic_regression(np.bincount(place, correct) / count, weights=count).x[place]
    assert recalibrated(confidence, correct) == pytest.approx(scipy, abs=1e-12)
    curve = isotonic_curve(confidence, correct)
    assert (np.diff(curve.accuracy) > 0).all()
    for k in range(len(curve.count)):
        inside = (confidence >= curve.lower[k]) & (confidence <= curve.upper[k])
        assert curve.count[k] == inside.sum()
        assert curve.accuracy[k] == pytest.approx(correct[inside].mean(), abs=1e-12)
        assert curve.confidence[k] == pytest.approx(confidence[inside].mean(), abs=1e-12)
        assert curve.accuracy[k] == pytest.approx(scipy[inside], abs=1e-12)


@given(ROWS)
def test_pooling_is_the_largest_least_mean(rows):
    """The formula of isotonic regression: the largest over the beginnings of the least over the ends of the mean between them."""
    confidence, correct = (np.array(column) for column in zip(*rows, strict=True))
    values = np.unique(confidence)

    def mean(low, high):
        return correct[(confidence >= low) & (confidence <= high)].mean()

    expected = [
        max(min(mean(low, high) for high in values if high >= x) for low in values if low <= x) for x in confidence
    ]
    assert recalibrated(confidence, correct) == pytest.approx(expected, abs=1e-12)


def test_the_stack_goes_on_where_a_fault_travels_far():
    """Shares that rise slowly, and a last one of 0 that pulls down one after the other: a pass pools two cells at a time."""
    count = torch.full((400,), 1000)
    positives = torch.arange(400, 800)
    positives[-1] = 0
    expected = isotonic_regression((positives / count.double()).numpy(), weights=count.numpy())
    blocks = isotonic._pool(count, positives)
    assert blocks.start.tolist() == expected.blocks[:-1].tolist()
    twice = isotonic._pool(count.repeat(2), positives.repeat(2), width=400)
    assert twice.start.tolist() == [*expected.blocks[:-1].tolist(), *(400 + expected.blocks[:-1]).tolist()]
    assert twice.positives.tolist() == 2 * blocks.positives.tolist()


def test_no_rounding_decides_what_is_pooled():
    n = 2**31  # the shares differ by 2^-62
    lower, upper = torch.tensor([n - 1, n]), torch.tensor([n - 2, n - 1])
    assert len(isotonic._pool(lower, upper).start) == 2
    assert len(isotonic._pool(lower.flip(0), upper.flip(0)).start) == 1


@pytest.mark.parametrize("score", ["brier", "log"])
@pytest.mark.parametrize("ties", [False, True])
def test_the_parts_are_their_definitions(score, ties):
    confidence, correct = sample(2000, ties=ties)
    confidence = confidence.clip(0.01, 0.99)
    curve = IsotonicRegression().fit(confidence, correct).predict(confidence)
    own, best, constant = (
        distances(each, correct, score).mean() for each in (confidence, curve, np.full(2000, correct.mean()))
    )
    parts = score_parts(confidence, correct, score=score)
    reference = {"brier": brier_score_loss, "log": log_loss}[score]
    assert parts.score == pytest.approx(reference(correct, confidence), abs=1e-12)
    assert parts.score == pytest.approx(own, abs=1e-12)
    assert parts.miscalibration == pytest.approx(own - best, abs=1e-12)
    assert parts.discrimination == pytest.approx(constant - best, abs=1e-12)
    assert parts.uncertainty == pytest.approx(constant, abs=1e-12)
    assert parts.score == pytest.approx(
        parts.miscalibration - parts.discrimination + parts.uncertainty, abs=1e-12
    )  # CORP
    gains = distances(confidence, correct, score) - distances(curve, correct, score)
    assert parts.overconfidence == pytest.approx(gains[confidence > curve].sum() / 2000, abs=1e-12)
    assert parts.underconfidence == pytest.approx(gains[confidence < curve].sum() / 2000, abs=1e-12)
    assert parts.overconfidence > 2 * parts.underconfidence  # as it was drawn
    for function in (miscalibration, discrimination, overconfidence, underconfidence):
        assert function(confidence, correct, score=score) == getattr(parts, function.__name__)


@given(ROWS, st.sampled_from(["brier", "log"]))
def test_no_part_is_negative_and_they_add_up(rows, score):
    confidence, correct = (np.array(column) for column in zip(*rows, strict=True))
    parts = score_parts(confidence, correct, score=score)
    assert min(parts) >= 0 or min(parts) == pytest.approx(0, abs=1e-12)
    assert parts.overconfidence + parts.underconfidence == parts.miscalibration
    assert parts.score == pytest.approx(distances(confidence, correct, score).mean(), abs=1e-12)
    rest = parts.uncertainty - parts.discrimination
    assert parts.score == pytest.approx(parts.miscalibration + rest, abs=1e-12)
    reverse = score_parts(confidence[::-1].copy(), correct[::-1].copy(), score=score)
    assert reverse == pytest.approx(parts, abs=1e-12)


def test_a_sure_fault_costs_an_infinite_log_and_leaves_the_rest_finite():
    confidence, correct = np.array([0.0, 0.0, 0.5, 0.8, 1.0]), np.array([False, True, True, False, True])
    parts = score_parts(confidence, correct, score="log")
    assert parts.score == parts.miscalibration == parts.underconfidence == np.inf  # 0 was too low
    assert 0 <= parts.overconfidence < 1
    assert 0 < parts.discrimination < parts.uncertainty < 1


def test_the_classes_of_two_are_each_others_mirror_and_their_sum_is_the_brier_score():
    confidence, correct = sample(500)
    parts = classwise_score_parts(np.c_[confidence, 1 - confidence], (~correct).astype(int))
    assert parts == pytest.approx(
        tuple(2 * part for part in score_parts(confidence, correct)[:4]) + parts[4:], abs=1e-12
    )
    assert parts.overconfidence == pytest.approx(
        parts.miscalibration / 2, abs=1e-12
    )  # what is too much of one lacks the other
    rng = np.random.default_rng(0)
    probs, labels = rng.dirichlet([1, 1, 1], 300), rng.integers(0, 3, 300)
    assert classwise_score_parts(probs, labels).score == pytest.approx(brier(probs, labels), abs=1e-12)
    assert classwise_score_parts(probs, labels, score="log").score == pytest.approx(
        sum(log_loss(labels == j, probs[:, j]) for j in range(3)), abs=1e-12
    )


def test_parts_have_intervals():
    confidence, correct = sample(400)
    found = interval(miscalibration, confidence, correct, draws=50, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(400, (400,), generator=generator).numpy() for _ in range(50)]
    drawn = [miscalibration(confidence[row], correct[row]) for row in rows]
    assert found[1:3] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=1e-12)
    logs = partial(miscalibration, score="log")
    assert interval(logs, confidence.clip(0.01, 0.99), correct, draws=20).value == logs(
        confidence.clip(0.01, 0.99), correct
    )


@pytest.mark.parametrize("ties", [False, True])
def test_the_samples_of_a_test_are_pooled_as_one_by_one(ties):
    confidence, _ = sample(300, ties=ties)
    ranking = rank(confidence, np.zeros(300, bool))
    scores, count = ranking.scores.flip(0).double(), ranking.count.flip(0)
    rng = np.random.default_rng(0)
    drawn = rng.binomial(count.numpy(), scores.numpy(), (7, len(count)))
    for score in ("brier", "log"):
        saved = isotonic._saved(scores, count, torch.from_numpy(drawn), score)
        for each, found in zip(drawn, saved.tolist(), strict=True):
            hits = np.concatenate([np.arange(n) < right for n, right in zip(count.tolist(), each, strict=True)])
            expected = miscalibration(np.repeat(scores.numpy(), count), hits, score=score)
            assert found == pytest.approx(300 * expected, abs=1e-9)


@pytest.mark.parametrize(("ties", "score"), [(False, "brier"), (True, "log")])
def test_of_calibrated_confidences_p_values_are_uniform(ties, score):
    """(k + 1) / (draws + 1) with draws from the very law of the sample is uniform on its steps; 200 of them, Kolmogorov's distance."""
    found = []
    for k in range(200):
        confidence, correct = sample(40, seed=k, ties=ties, power=1.0)
        generator = torch.Generator().manual_seed(k)
        found.append(calibration_test(confidence, correct, score=score, draws=99, generator=generator).p_value)
    assert min(found) >= 0.01
    noise = np.random.default_rng(0).random(200) / 100  # spread over its step
    if not ties:
        assert kstest(np.array(found) - noise, "uniform").pvalue > 0.001
    for level in (0.05, 0.2):
        assert np.mean(np.array(found) <= level) <= level + 3.5 * np.sqrt(level * (1 - level) / 200)


def test_what_is_miscalibrated_is_rejected():
    confidence, correct = sample(2000)
    found = calibration_test(confidence, correct, draws=199, generator=torch.Generator().manual_seed(0))
    assert found.p_value == 1 / 200
    assert found.miscalibration == pytest.approx(miscalibration(confidence, correct), abs=1e-12)
    sure = calibration_test([1.0, 1.0, 1.0], [True, True, False], score="log", draws=19)
    assert (sure.miscalibration, sure.p_value) == (np.inf, 1 / 20)


def test_a_test_over_all_outcomes_has_its_exact_p_value():
    """Three examples have eight outcomes; the share of draws that reach the statistic is the sum of their probabilities."""
    confidence, correct = np.array([0.3, 0.6, 0.9]), np.array([True, False, True])
    outcomes = np.array(list(itertools.product([False, True], repeat=3)))
    weights = np.where(outcomes, confidence, 1 - confidence).prod(1)
    reached = [miscalibration(confidence, each) >= miscalibration(confidence, correct) - 1e-12 for each in outcomes]
    exact = weights[reached].sum()
    found = calibration_test(confidence, correct, draws=20_000, generator=torch.Generator().manual_seed(0)).p_value
    assert found == pytest.approx(exact, abs=4 * np.sqrt(exact * (1 - exact) / 20_000))


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (
            lambda: isotonic_curve([0.5, 1.2], [True, False]),
            ValueError,
            r"confidence must lie in \[0, 1\]; row 1 is 1.2",
        ),
        (lambda: isotonic_curve([], []), ValueError, "confidence is empty"),
        (lambda: recalibrated([0.5], [True, False]), ValueError, "correct has 2 rows where 1 are expected"),
        (lambda: score_parts([0.5], [True], score="crps"), ValueError, "unknown score 'crps'; choose from brier, log"),
        (lambda: classwise_score_parts([[0.5, 0.5]], [2]), ValueError, "labels must lie in"),
        (lambda: calibration_test([0.5], [True], draws=0), ValueError, "draws must be"),
        (lambda: calibration_test([0.5], [True], generator=3), TypeError, "generator must be torch's"),
    ],
)
def test_what_is_wrong_is_named(unchecked, call, error, match):
    with pytest.raises(error, match=match):
        call()
