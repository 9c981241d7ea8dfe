"""Prediction sets: each score by hand, the promise in simulation, nested and by group, and what is refused."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from uqlib.calibrate import conformal_threshold, fit_prediction_sets, set_summary
from uqlib.calibrate import prediction_sets as inner


def drawn(n, c=6, seed=0, sharp=2.0):
    """Probabilities that are too sure by a factor of 2 in the logits, and labels."""
    generator = np.random.default_rng(seed)
    logits = sharp * generator.standard_normal((n, c))
    labels = (softmax(logits, -1).cumsum(-1) > generator.random((n, 1))).argmax(-1)
    return softmax(2 * logits, -1), labels


def by_hand(row, j, u, score, penalty, k_reg):
    """Of class j of one row, in Python."""
    if score == "thr":
        return 1 - row[j]
    above = sum(p for p in row if p > row[j])
    equal = sum(p for p in row if p == row[j])
    found = above + (1 - u) * equal
    return found + penalty * max(0, sum(p >= row[j] for p in row) - k_reg) if score == "raps" else found


SCORES = [("thr", False), ("aps", False), ("aps", True), ("raps", False), ("raps", True)]


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("score", "randomized"), SCORES)
def test_sets_are_those_of_each_score_by_hand(score, randomized, ties, monkeypatch):
    monkeypatch.setattr(inner, "CHUNK", 30)
    probs, labels = drawn(60)
    if ties:
        probs = np.eye(6)[labels] * 0.25 + np.repeat([[0.25, 0.25, 0.125, 0.125, 0, 0]], 60, 0)
    held, others = probs[:40], probs[40:]
    fit = fit_prediction_sets(
        held, labels[:40], coverage=0.8, score=score, randomized=randomized, seed=3, penalty=0.2, k_reg=2
    )
    u = (np.random.PCG64(3).random_raw(60) >> np.uint64(11)) * 2.0**-53 if randomized else np.zeros(60)
    known = [by_hand(held[i], labels[i], u[i], score, 0.2, 2) for i in range(40)]
    threshold = np.sort(known)[int(np.ceil(41 * 0.8)) - 1]
    assert fit.thresholds[0] == pytest.approx(threshold, abs=1e-12)
    expected = [
        [by_hand(row, j, u[40 + i], score, 0.2, 2) <= threshold + 1e-9 for j in range(6)]
        for i, row in enumerate(others)
    ]
    np.testing.assert_array_equal(fit.sets(others), expected)
    torch.testing.assert_close(fit.sets(torch.tensor(others)), torch.tensor(expected))


def test_without_ties_the_score_is_the_sum_down_to_the_label():
    """Romano et al., equation (6): probabilities in falling order, summed up to the class."""
    probs, labels = drawn(500, c=9)
    ordered = np.sort(probs, -1)[:, ::-1].cumsum(-1)
    rank = (probs > probs[np.arange(500), labels][:, None]).sum(-1)
    scores = ordered[np.arange(500), rank]
    fit = fit_prediction_sets(probs, labels, score="aps")
    assert fit.thresholds[0] == pytest.approx(conformal_threshold(scores, coverage=0.9), abs=1e-12)


@pytest.mark.parametrize(("score", "randomized"), SCORES)
def test_the_promise_holds_over_draws(score, randomized):
    """The mean coverage over draws is at least the promise; of a score without ties at most 1 / (n + 1) above it."""
    probs, labels = drawn(200 * 150, c=5)
    shares = []
    for k in range(200):
        held, new = slice(150 * k, 150 * k + 49), slice(150 * k + 49, 150 * k + 150)
        fit = fit_prediction_sets(
            probs[held], labels[held], coverage=0.8, score=score, randomized=randomized, seed=k, penalty=0.05
        )
        shares.append(set_summary(fit.sets(probs[new]), labels[new]).coverage)
    mean, error = np.mean(shares), np.std(shares) / 200**0.5
    assert 0.8 - 4 * error <= mean <= 0.8 + 4 * error  # (n + 1) coverage is a whole number


@pytest.mark.parametrize(("score", "randomized"), SCORES)
def test_sets_grow_with_the_coverage(score, randomized):
    probs, labels = drawn(300)
    last = np.zeros_like(probs, dtype=bool)
    for coverage in (0.3, 0.6, 0.8, 0.9, 0.99, 0.999):
        found = fit_prediction_sets(probs, labels, coverage=coverage, score=score, randomized=randomized).sets(probs)
        assert (found >= last).all()
        last = found
    assert last.all()  # 300 examples promise no 0.999


@pytest.mark.parametrize("score", inner.SET_SCORES)
def test_each_group_has_its_own_threshold(score):
    easy, hard = drawn(3000, sharp=4.0, seed=10), drawn(3000, sharp=1.0, seed=1)
    probs, labels = np.concatenate([easy[0], hard[0]]), np.concatenate([easy[1], hard[1]])
    groups = np.repeat([7, 3], 3000)
    half = np.arange(6000) % 2 == 0
    fit = fit_prediction_sets(probs[half], labels[half], score=score, groups=groups[half])
    np.testing.assert_array_equal(fit.groups, [3, 7])
    sets = fit.sets(probs[~half], groups[~half])
    alone = fit_prediction_sets(probs[half], labels[half], score=score).sets(probs[~half])
    without = []
    for group in (3, 7):
        rows = groups[~half] == group
        own = groups[half] == group
        single = fit_prediction_sets(probs[half][own], labels[half][own], score=score)
        assert single.thresholds[0] in fit.thresholds
        np.testing.assert_array_equal(sets[rows], single.sets(probs[~half][rows]))
        assert set_summary(sets[rows], labels[~half][rows]).coverage == pytest.approx(0.9, abs=0.03)
        without.append(set_summary(alone[rows], labels[~half][rows]).coverage)
    assert min(without) < 0.88  # which one threshold for all does not give


def test_by_class_each_class_has_its_own_threshold():
    probs, labels = drawn(4000, c=4)
    fit = fit_prediction_sets(probs, labels, by_class=True, score="thr")
    for j in range(4):
        own = 1 - probs[labels == j, j]
        assert fit.thresholds[j] == conformal_threshold(own, coverage=0.9)
        np.testing.assert_array_equal(fit.sets(probs)[:, j], 1 - probs[:, j] <= fit.thresholds[j])
    square = fit.sets(probs[:4])  # as many rows as classes
    np.testing.assert_array_equal(square, fit.sets(probs)[:4])


def test_a_class_without_labels_is_in_every_set():
    probs, labels = drawn(300, c=4)
    fit = fit_prediction_sets(probs, np.minimum(labels, 2), by_class=True)
    assert np.isinf(fit.thresholds[3])
    assert fit.sets(probs)[:, 3].all()


def test_empty_sets_are_filled_with_the_most_probable_class():
    probs, labels = drawn(300, sharp=4.0)
    fit = fit_prediction_sets(probs, labels, coverage=0.5)
    plain, filled = fit.sets(probs), fit.sets(probs, never_empty=True)
    empty = ~plain.any(-1)
    assert empty.any()
    np.testing.assert_array_equal(filled[~empty], plain[~empty])
    np.testing.assert_array_equal(filled[empty], np.eye(6, dtype=bool)[probs[empty].argmax(-1)])


def test_the_order_of_classes_does_not_matter_even_among_equals():
    probs = np.array([[0.25, 0.25, 0.25, 0.25], [0.5, 0.25, 0.25, 0.0], [0.0, 0.5, 0.5, 0.0]] * 4)
    labels = np.array([0, 2, 1, 3, 0, 2] * 2)
    turn = [2, 0, 3, 1]
    for score in inner.SET_SCORES:
        fit = fit_prediction_sets(probs, labels, coverage=0.6, score=score)
        turned = fit_prediction_sets(probs[:, turn], np.argsort(turn)[labels], coverage=0.6, score=score)
        assert fit.thresholds[0] == turned.thresholds[0]
        np.testing.assert_array_equal(fit.sets(probs)[:, turn], turned.sets(probs[:, turn]))


def test_the_summary_counts():
    found = set_summary(np.array([[1, 1, 0], [0, 0, 0], [0, 1, 0], [1, 1, 1]]), [2, 0, 1, 1])
    assert found == (0.5, 1.5, 0.25, 0.25)


PROBS, LABELS = drawn(50)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_prediction_sets(PROBS * 3, LABELS), "probs must be non-negative rows that sum to 1"),
        (lambda: fit_prediction_sets(PROBS, LABELS, score="mps"), "unknown score 'mps'; choose from thr"),
        (lambda: fit_prediction_sets(PROBS, LABELS, coverage=1.0), "coverage must lie in"),
        (lambda: fit_prediction_sets(PROBS, LABELS, randomized=True), "randomized must be False for thr"),
        (lambda: fit_prediction_sets(PROBS, LABELS, groups=LABELS, by_class=True), "exclude each other"),
        (lambda: fit_prediction_sets(PROBS, LABELS, penalty=-1.0, score="raps"), "penalty must be"),
        (lambda: fit_prediction_sets(PROBS, LABELS).sets(PROBS, LABELS), "groups must be given where"),
        (lambda: fit_prediction_sets(PROBS, LABELS, groups=LABELS).sets(PROBS), "the fit had groups"),
        (
            lambda: fit_prediction_sets(PROBS, LABELS, groups=LABELS % 2).sets(PROBS, np.arange(50) % 4),
            r"groups must be known to the fit; row 2 is 2, the fit had \[0, 1\]",
        ),
        (lambda: fit_prediction_sets(PROBS, LABELS, by_class=True).sets([[0.5, 0.5]]), "the 6 classes of the fit"),
        (lambda: set_summary(PROBS, LABELS), "sets must be true or false; row 0"),
        (lambda: set_summary([True, False], [0, 1]), r"sets must have shape \(n, c\)"),
    ],
)
def test_what_promises_nothing_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
