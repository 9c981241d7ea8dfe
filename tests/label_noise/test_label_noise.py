import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uqlib.label_noise import (
    area_under_strengths,
    check_transition,
    corrupt_labels,
    flip_transition,
    hierarchical_transition,
    transition_by_anchors,
    transition_by_trusted,
    transition_error,
    uniform_transition,
)

PROBS = np.array([[0.7, 0.2, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.1, 0.1, 0.8]])


# --- transitions


@given(st.integers(2, 20), st.floats(0, 1), st.integers(0, 9))
def test_a_transition_has_rows_of_one_and_the_share_of_wrong_labels_that_it_says(classes, strength, seed):
    uniform, flip = uniform_transition(classes, strength), flip_transition(classes, strength, seed=seed)
    hierarchical = hierarchical_transition(np.arange(2 * classes) % classes, strength)
    for matrix, wrong in ((uniform, strength * (1 - 1 / classes)), (flip, strength), (hierarchical, strength)):
        assert matrix.sum(1) == pytest.approx(1, abs=1e-12)
        assert (matrix >= 0).all()
        assert 1 - matrix.diagonal() == pytest.approx(wrong, abs=1e-12)


def test_uniform_noise_spreads_evenly_and_its_end_is_chance():
    matrix = uniform_transition(4, 0.6)
    assert matrix[~np.eye(4, dtype=bool)] == pytest.approx(0.15, abs=1e-15)
    assert uniform_transition(10, 1.0) == pytest.approx(0.1, abs=1e-15)
    assert (uniform_transition(10, 0.0) == np.eye(10)).all()


def test_a_flip_has_one_other_class_and_the_seed_draws_it():
    drawn = [flip_transition(10, 0.3, seed=seed) for seed in range(300)]
    for matrix in drawn:
        assert ((matrix > 0).sum(1) == 2).all()
    others = np.mean([matrix > 0 for matrix in drawn], 0)[~np.eye(10, dtype=bool)]
    # 300 draws of one in nine: each share lies within five standard errors, of ninety
    assert np.abs(others - 1 / 9).max() < 5 * math.sqrt(1 / 9 * 8 / 9 / 300)


def test_hierarchical_noise_stays_within_its_groups():
    groups = np.array([5, 0, 5, 0, 5, 2, 2])
    matrix = hierarchical_transition(groups, 0.8)
    for i in range(7):
        for j in range(7):
            size = (groups == groups[i]).sum()
            expected = 0.2 if i == j else 0.8 / (size - 1) if groups[i] == groups[j] else 0
            assert matrix[i, j] == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    "transition",
    [uniform_transition(5, 0.6), flip_transition(5, 0.4, seed=1), hierarchical_transition([0, 0, 1, 1, 1], 0.5)],
)
def test_labels_are_drawn_as_often_as_the_row_says(transition):
    n = 20_000
    for true in range(5):
        counts = np.bincount(corrupt_labels(np.full(n, true), transition, seed=true), minlength=5)
        error = np.sqrt(transition[true] * (1 - transition[true]) / n)
        assert (
            np.abs(counts / n - transition[true]) <= 4.5 * error
        ).all()  # 1e-5 for a share; what is 0 is never drawn


def test_one_label_does_not_depend_on_another():
    labels = np.arange(40_000) % 2
    wrong = corrupt_labels(labels, uniform_transition(2, 0.5), seed=3) != labels
    both = (wrong[:-1] & wrong[1:]).mean()
    assert abs(both - 0.25**2) < 4.5 * math.sqrt(0.0625 * 0.9375 / 40_000)


def test_the_draw_is_the_same_on_every_machine_and_of_its_seed_alone():
    labels, transition = np.arange(12) % 4, uniform_transition(4, 1.0)
    assert corrupt_labels(labels, transition, seed=1).tolist() == by_hand(labels, transition, 1)
    assert corrupt_labels(torch.tensor(labels), transition, seed=1).tolist() == by_hand(labels, transition, 1)
    assert corrupt_labels(labels, transition, seed=2).tolist() != by_hand(labels, transition, 1)
    assert (corrupt_labels(labels, np.eye(4), seed=7) == labels).all()


def by_hand(labels, transition, seed):
    """The upper 53 bits of each number of the stream, through the sums of the row, label by label."""
    given = []
    for label, raw in zip(labels, np.random.PCG64(seed).random_raw(len(labels)), strict=True):
        u, below = (int(raw) >> 11) / 2**53, 0.0
        for k, p in enumerate(transition[label]):
            below += p
            if u < below:
                given.append(k)
                break
    return given


# --- estimation


def test_an_anchor_is_the_surest_image_of_its_class():
    assert transition_by_anchors(PROBS) == pytest.approx(PROBS[[0, 2, 4]], abs=1e-12)


def test_a_quantile_leaves_out_the_surest_images():
    """Brute force: of n rows those at or above the order statistic that is not below q (n - 1) are left out."""
    probs = np.random.default_rng(0).dirichlet(np.ones(4), 57)
    before = probs.copy()
    for quantile in (0.97, 0.9, 0.5):
        expected = []
        for k in range(4):
            edge = sorted(probs[:, k])[math.ceil(quantile * 56)]
            expected.append(max((row for row in probs if row[k] < edge), key=lambda row: row[k]))
        assert transition_by_anchors(probs, quantile=quantile) == pytest.approx(np.stack(expected), abs=1e-12)
    assert (probs == before).all()


def test_anchors_of_a_perfect_posterior_are_the_transition():
    true = np.array([[0.8, 0.1, 0.1], [0.0, 0.7, 0.3], [0.2, 0.2, 0.6]])
    clean = np.concatenate([np.eye(3), np.random.default_rng(0).dirichlet(np.ones(3), 100)])
    assert transition_by_anchors(clean @ true) == pytest.approx(true, abs=1e-12)


def test_trusted_rows_are_averaged_by_class():
    found = transition_by_trusted(PROBS, [0, 0, 1, 2, 2])
    assert found == pytest.approx(np.array([[0.65, 0.25, 0.1], [0.1, 0.8, 0.1], [0.15, 0.15, 0.7]]), abs=1e-12)


def test_half_precision_gives_rows_of_one():
    half = torch.tensor(np.random.default_rng(0).dirichlet(np.ones(10), 200)).half()
    for found in (transition_by_anchors(half), transition_by_trusted(half, np.arange(200) % 10)):
        assert found.sum(1) == pytest.approx(1, abs=1e-12)


def test_the_error_is_the_total_variation():
    assert transition_error(np.eye(3), np.eye(3)[[1, 2, 0]]) == 1.0
    assert transition_error(np.eye(4), uniform_transition(4, 0.4)) == pytest.approx(0.4 * 0.75, abs=1e-12)
    first, second = (np.random.default_rng(seed).dirichlet(np.ones(3), 3) for seed in (0, 1))
    # the largest difference of the probability of any set of classes
    sets = [[k for k in range(3) if bits >> k & 1] for bits in range(8)]
    expected = np.mean([max(abs(a[s].sum() - b[s].sum()) for s in sets) for a, b in zip(first, second, strict=True)])
    assert transition_error(first, second) == pytest.approx(expected, abs=1e-12)


# --- the area

TABLE_G = {  # digitised curves of figure 2, test error in percent at strengths 0 to 1, and the printed cell of table 1
    "C100 none scratch": ("25.9 31.2 35.5 39.8 43.7 49.5 55.6 66.3 76.9 92.9 98.7", 55.4),
    "C100 none pre": ("20.8 22.8 23.9 25.1 27.7 28.9 31.7 36.0 47.8 86.8 99.1", 39.1),
    "C100 forward scratch": ("23.9 28.3 31.5 34.9 38.2 44.2 49.5 61.0 79.2 97.6 99.0", 52.6),
    "C100 forward pre": ("20.9 22.7 24.3 25.4 27.2 30.1 33.8 39.7 72.5 92.0 99.3", 42.8),
    "C100 glc scratch": ("24.5 27.6 30.3 32.4 35.8 37.3 43.8 51.2 65.7 87.6 88.6", 46.8),
    "C100 glc pre": ("22.5 23.6 24.5 26.5 27.2 29.8 31.8 39.9 46.6 51.2 49.2", 33.7),
    "C10 none scratch": ("5.8 9.4 11.1 13.6 16.9 21.2 25.2 33.8 40.5 67.6 90.0", 28.7),
    "C10 none pre": ("4.0 4.6 5.7 5.9 6.9 7.6 9.4 12.3 19.8 40.8 88.2", 15.9),
    "C10 forward scratch": ("5.4 7.6 9.5 11.5 14.5 16.1 20.1 24.8 31.6 71.3 90.0", 25.5),
    "C10 forward pre": ("4.1 5.0 6.0 6.5 7.3 8.7 10.2 13.5 17.3 36.6 88.4", 15.7),
    "C10 glc scratch": ("5.3 6.9 7.9 9.3 11.0 13.3 15.2 17.6 19.7 23.7 26.1", 14.0),
    "C10 glc pre": ("4.4 4.7 5.2 5.8 6.3 6.8 7.5 8.7 9.1 10.1 11.0", 7.2),
}


def test_the_area_of_the_printed_curves_is_the_printed_table():
    curves = np.array([[float(x) for x in curve.split()] for curve, _ in TABLE_G.values()])
    printed = np.array([area for _, area in TABLE_G.values()])
    found = area_under_strengths(np.arange(11) / 10, curves.reshape(2, 6, 11))
    assert found.shape == (2, 6)
    assert found.ravel() == pytest.approx(printed, abs=0.1 + 1e-9)  # both are rounded to a tenth


def test_the_area_is_a_mean_over_the_range():
    assert float(area_under_strengths([0.2, 0.3, 0.8], [0.5, 0.5, 0.5])) == pytest.approx(0.5, abs=1e-12)
    assert float(area_under_strengths([0.0, 0.5], [0.0, 1.0])) == pytest.approx(0.5, abs=1e-12)
    assert float(area_under_strengths([0.0, 0.25, 1.0], [0.0, 1.0, 1.0])) == pytest.approx(0.875, abs=1e-12)


# --- errors


@pytest.mark.parametrize("matrix", [[[0.5, 0.5], [0.2, 0.7]], torch.tensor([[0.5, 0.5], [0.2, 0.7]])])
def test_a_row_that_is_off_is_named_with_its_sum(matrix):
    with pytest.raises(ValueError, match=r"row 1 sums to 0\.9\. Counts, or rounded"):
        check_transition(matrix)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: uniform_transition(10, 1.2), r"strength must lie in \[0, 1\]; it is 1.2"),
        (lambda: uniform_transition(1, 0.2), "classes must be a whole number of at least 2; it is 1"),
        (lambda: flip_transition(10, -0.1, seed=0), r"strength must lie in \[0, 1\]; it is -0.1"),
        (lambda: flip_transition(10, 0.1, seed=-1), "seed must be a whole number of at least 0; it is -1"),
        (lambda: hierarchical_transition([0, 0, 4], 0.1), "class 2 is alone in group 4"),
        (lambda: hierarchical_transition([0, 0], math.nan), "strength must be a number"),
        (lambda: check_transition([[0.9, 0.1], [-0.5, 1.5]]), "row 1, column 0 is -0.5"),
        (lambda: check_transition([[0.9, 0.1], [math.nan, 1.0]]), "row 1, column 0 is nan"),
        (lambda: check_transition([[0.9, 0.1]]), r"must have shape \(c, c\) with c >= 2 classes; it is \(1, 2\)"),
        (lambda: check_transition([[0.5, 0.25], [0.5, 0.75]]), "row 0 sums to 0.75. Its columns do"),
        (lambda: corrupt_labels([0, 2], np.eye(2), seed=0), r"labels must lie in \[0, 2\); row 1 is 2"),
        (lambda: corrupt_labels([0, 1], [[1.0, 1.0], [0, 1]], seed=0), "row 0 sums to 2"),
        (lambda: transition_by_anchors([[0.5, math.nan]]), "probs must be finite; row 0, column 1 is nan"),
        (lambda: transition_by_anchors([[2.0, -1.0]]), "probs must be non-negative rows that sum to 1; row 0"),
        (lambda: transition_by_anchors(PROBS, quantile=1.0), r"quantile must lie in \(0, 1\); it is 1.0"),
        (lambda: transition_by_anchors(PROBS[:1], quantile=0.5), "no image lies below the 0.5 quantile of class 0"),
        (lambda: transition_by_trusted(PROBS, [0, 0, 1, 1, 1]), "class 2 has none among 5"),
        (lambda: transition_by_trusted(PROBS, [0, 0, 1, 1, 3]), r"labels must lie in \[0, 3\); row 4 is 3"),
        (lambda: transition_by_trusted(PROBS * math.nan, [0, 0, 1, 1, 2]), "probs must be finite; row 0"),
        (
            lambda: transition_error(np.eye(2), np.eye(3)),
            r"must have one shape .c, c.; they have \(2, 2\) and \(3, 3\)",
        ),
        (lambda: transition_error(np.eye(2), 2 * np.eye(2)), "every row of true must sum to one; row 0 sums to 2"),
        (lambda: area_under_strengths([0, 0.5, 0.5], [1, 1, 1]), "strengths must be at least two in .*ascending"),
        (lambda: area_under_strengths([0, 1.5], [1, 1]), r"strengths must be at least two in \[0, 1\]"),
        (lambda: area_under_strengths([0.5], [1]), "strengths must be at least two"),
        (lambda: area_under_strengths([0, 1], [1.0, math.nan]), "errors must be finite; row 1 is nan"),
        (lambda: area_under_strengths([0, 1], [1.0, 1.0, 1.0]), r"one entry a strength on the last axis, \(..., 2\)"),
    ],
)
def test_errors_name_the_value(call, message, unchecked):
    with pytest.raises(ValueError, match=message):
        call()
