import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from uqlib.heads import nearest, neighbour_logits

RNG = np.random.default_rng(0)
FEATURES, LABELS, ASKED = RNG.normal(size=(60, 4)) + 1e3, np.arange(60) % 3, RNG.normal(size=(40, 4)) + 1e3


def shares(features, labels, asked, k, smoothing=1e-300):
    return np.exp(neighbour_logits(features, labels, asked, classes=3, k=k, smoothing=smoothing))


@pytest.mark.parametrize("k", [1, 5, 60])
@pytest.mark.parametrize("block", [1, 130, 2**25])
def test_the_votes_are_those_of_sklearn(k, block, monkeypatch):
    monkeypatch.setattr(nearest, "BLOCK", block)
    theirs = KNeighborsClassifier(k).fit(FEATURES, LABELS).predict_proba(ASKED)
    np.testing.assert_allclose(shares(FEATURES, LABELS, ASKED, k), theirs, atol=1e-12)


def test_ties_share_what_votes_are_left_and_the_order_of_the_rows_does_not_matter():
    features, labels = np.array([[0.0], [1.0], [-1.0], [1.0], [5.0]]), np.array([0, 1, 2, 1, 0])
    for order in (np.arange(5), np.arange(5)[::-1], RNG.permutation(5)):
        found = shares(features[order], labels[order], [[0.0], [5.0]], k=2)
        np.testing.assert_allclose(found, [[1 / 2, 1 / 3, 1 / 6], [1 / 2, 1 / 2, 0]], atol=1e-12)


def test_smoothing_keeps_every_class_possible():
    found = shares([[0.0], [9.0]], [0, 1], [[1.0]], k=1, smoothing=0.5)
    np.testing.assert_allclose(found, [[1.5 / 2.5, 0.5 / 2.5, 0.5 / 2.5]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 61}, "k must be"),
        ({"smoothing": 0}, "smoothing must be"),
        ({"asked": ASKED[:, :2]}, "asked must have width 4; they have 2"),
        ({"labels": LABELS + 1}, r"labels must lie in \[0, 3\)"),
    ],
)
def test_what_is_wrong_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        neighbour_logits(**{"features": FEATURES, "labels": LABELS, "asked": ASKED, "classes": 3} | options)


def test_an_outlier_ties_no_other_rows():
    found = np.exp(neighbour_logits([[0.0], [1.0], [2.0], [1e7]], [0, 1, 1, 0], [[0.0]], classes=2, k=1))
    np.testing.assert_allclose(found, [[1.1 / 1.2, 0.1 / 1.2]])
    rng = np.random.default_rng(1)
    features, asked = rng.normal(size=(60, 3)), rng.normal(size=(40, 3))
    features[7] = 1e9
    theirs = (
        KNeighborsClassifier(5, algorithm="brute")
        .fit(np.delete(features, 7, 0), np.delete(LABELS, 7))
        .predict_proba(asked)
    )
    np.testing.assert_allclose(shares(features, LABELS, asked, 5), theirs, atol=1e-12)


def test_shares_of_a_tie_are_float64():
    found = shares([[0.0], [1.0], [1.0], [1.0]], [0, 0, 1, 2], [[0.0]], k=2)
    np.testing.assert_allclose(found, [[(1 + 1 / 3) / 2, 1 / 6, 1 / 6]], rtol=1e-14)


def test_neighbours_are_those_of_any_block(monkeypatch):
    features = RNG.integers(0, 4, (60, 4)).astype(np.float32)
    found = shares(features, LABELS, ASKED - 1e3, 5)
    monkeypatch.setattr(nearest, "CHUNK", 1)
    np.testing.assert_allclose(shares(features, LABELS, ASKED - 1e3, 5), found, atol=1e-14)
