"""What holds by construction stands here, and not among what is confirmed: a test a claim."""

import numpy as np
import pytest
import torch

from uqlib import difficulty
from uqlib.combine import fit_duo
from uqlib.evidence.ledger import read_ledgers
from uqlib.networks.timing import take_turns
from uqlib.training.loops import loop
from uqlib.uncertainty import UncertaintyHead, joint_step, train_head


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


def a_classifier_that_its_head_does_not_touch(scores):
    """Trained jointly with the stop-gradient, the classifier ends with the bits of one whose head has no weight."""
    images = torch.from_numpy(np.random.default_rng(0).standard_normal((64, 6)).astype(np.float32))
    labels = torch.arange(64) % 3
    ends = []
    for weight in (0.0, 10.0):
        model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
        state = torch.Generator().manual_seed(0)
        for part in model.parameters():
            part.data = torch.randn(part.shape, generator=state)
        model.get_classifier = lambda own=model: own[2]
        head = UncertaintyHead(8, width=4)
        step = joint_step(model, head, lambda rows, _: images[rows], labels, weight=weight)
        own = [*model.parameters(), *head.parameters()]
        loop(step, examples=64, parts={"model": model, "head": head}, trained=own, epochs=2, lr=0.01, batch=16)
        ends.append([part.detach().clone() for part in model.parameters()])
    assert all(torch.equal(*both) for both in zip(*ends, strict=True))


def a_head_that_sees_the_order_alone(scores):
    """Eight times the losses, or their ranks, give the same head to the last bit."""
    rng = np.random.default_rng(0)
    features, losses = rng.standard_normal((128, 5)).astype(np.float32), rng.exponential(size=128)
    heads = []
    for given in (losses, 8 * losses, losses.argsort().argsort()):
        heads.append(UncertaintyHead(5, width=4))
        train_head(heads[-1], features, given, epochs=2, batch=32, progress=False)
    first, *others = ([part.detach() for part in head.parameters()] for head in heads)
    assert all(torch.equal(*both) for other in others for both in zip(first, other, strict=True))


HELD = {
    "cui2023-F10-larger": larger_weights_at_a_higher_temperature,
    "cui2023-F10-flatter": flatter_weights_at_a_higher_temperature,
    "cui2023-F1b-label": a_wrong_label_raises_the_mean_distance_by_that_of_the_means,
    "cui2023-F1b-distance": a_wrong_label_raises_the_mean_distance_by_that_of_the_means,
    "cui2023-control-normaliser-vanish": weights_that_vanish_without_bounds,
    "kirchhof2024-F2-same": a_classifier_that_its_head_does_not_touch,
    "kirchhof2024-Tx-objective-scale": a_head_that_sees_the_order_alone,
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
