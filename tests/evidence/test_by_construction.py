"""What holds by construction stands here, and not among what is confirmed: a test a claim."""

import numpy as np
import pytest

from uqlib import difficulty
from uqlib.combine import fit_duo
from uqlib.evidence.ledger import read_ledgers
from uqlib.networks.timing import take_turns


@pytest.fixture
def scores():
    return np.random.default_rng(0).gamma(2.0, size=500)


def larger_weights_at_a_higher_temperature(scores):
    means = [np.mean(difficulty.weights(scores, temperature=t)) for t in (0.3, 0.5, 0.7, 1.0, 2.0)]
    assert np.all(np.diff(means) > 0)


def flatter_weights_at_a_higher_temperature(scores):
    shares = [difficulty.effective_share(difficulty.weights(scores, temperature=t)) for t in (0.3, 0.5, 0.7, 1.0, 2.0)]
    assert np.all(np.diff(shares) > 0)


def weights_that_vanish_without_bounds(scores):
    for tail in (
        200 * scores,
        np.where(np.arange(500) < 3, 2000.0, scores),
    ):  # raw distances; one long tail of many scores
        assert np.mean(difficulty.weights(tail, normaliser="raw")) < 0.01
    assert np.mean(difficulty.weights(np.where(np.arange(500) < 1, 50.0, scores), normaliser="zscore")) < 0.01


def a_wrong_label_raises_the_mean_distance_by_that_of_the_means(scores):
    chance = np.random.default_rng(1)
    labels = np.repeat(np.arange(4), 60)
    features = chance.normal(size=(240, 6))  # random: nothing in them knows the labels
    fit = difficulty.fit_gaussians(difficulty.moments(features, labels, classes=4), covariance="empirical")
    own = features[labels == 0]
    rmd = [np.mean(difficulty.relative_mahalanobis(fit, own, np.full(len(own), k))) for k in range(4)]
    means = np.stack([features[labels == k].mean(0) for k in range(4)])
    within = np.cov((features - means[labels]).T, bias=True)
    off = [(means[k] - means[0]) @ np.linalg.solve(within, means[k] - means[0]) for k in range(4)]
    np.testing.assert_allclose(np.subtract(rmd, rmd[0]), off, atol=1e-6)


def an_optimum_that_no_grid_betters(scores):
    chance = np.random.default_rng(2)
    labels = chance.integers(0, 3, 80)
    large, small = (chance.normal(size=(80, 3)) + strength * np.eye(3)[labels] for strength in (2, 1))
    best = fit_duo(large, small, labels).nll
    for a, b in np.stack(np.meshgrid(np.linspace(0, 3, 13), np.linspace(0, 3, 13)), -1).reshape(-1, 2):
        logits = a * large + b * small
        logits -= np.logaddexp.reduce(logits, axis=1, keepdims=True)
        assert best <= -logits[np.arange(80), labels].mean() + 1e-12


def times_that_add(scores):
    now = [0.0]

    def network(seconds):
        now[0] += seconds

    calls = {
        "large": lambda: network(3.0),
        "small": lambda: network(0.5),
        "duo": lambda: (network(3.0), network(0.5)),
    }
    seconds = take_turns(calls, rounds=2, clock=lambda: now[0])
    assert seconds["duo"].equal(seconds["large"] + seconds["small"])


HELD = {
    "cui2023-F10-larger": larger_weights_at_a_higher_temperature,
    "cui2023-F10-flatter": flatter_weights_at_a_higher_temperature,
    "cui2023-F1b-label": a_wrong_label_raises_the_mean_distance_by_that_of_the_means,
    "cui2023-F1b-distance": a_wrong_label_raises_the_mean_distance_by_that_of_the_means,
    "cui2023-control-normaliser-vanish": weights_that_vanish_without_bounds,
    "zhou2025-ablation-fit-convex": an_optimum_that_no_grid_betters,
    "zhou2025-Fx-throughput-duo-sum": times_that_add,
}


@pytest.mark.parametrize("claim", HELD)
def test_what_holds_by_construction_holds(claim, scores):
    HELD[claim](scores)


def test_every_claim_that_holds_by_construction_has_its_test(repository):
    ledgers = read_ledgers(repository / "data/ledger")
    told = {c.id for each in ledgers for row in each.rows for c in row.claims if c.by_construction}
    assert told == set(HELD)
