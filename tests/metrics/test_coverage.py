"""Intervals of 95 % hold the truth that they are about in 95 of 100 simulated studies; benchmarks/coverage.py has all kinds, at full size.

The tolerance is what the book asks for, 1.5 %, and four Monte Carlo errors of so few repetitions.
"""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from uqlib.metrics import accuracy, aurc, ece, pool, resample, resample_together
from uqlib.metrics.compare import interval_over_splits, interval_over_trainings

REPETITIONS, DRAWS, N = 200, 100, 200
SLACK, FEW = (0.015 + 4 * math.sqrt(0.95 * 0.05 / many) for many in (REPETITIONS, 80))  # the metrics take their time


def share_within(ends, truths):
    return np.mean([low <= true <= high for (low, high), true in zip(ends, truths, strict=True)])


def network(n, noise, ties, seed):
    """Confidence of a network that is too sure, and whether it is right; networks of one seed saw the same images."""
    rng = np.random.default_rng(seed)
    logit = 2 * rng.standard_normal(n)
    label = rng.random(n) < 1 / (1 + np.exp(-logit))
    said = 1.3 * logit + noise * np.random.default_rng([seed, int(10 * noise)]).standard_normal(n)
    confidence = 1 / (1 + np.exp(-np.abs(said)))
    confidence = np.round(20 * confidence) / 20 if ties else confidence
    return torch.from_numpy(confidence), torch.from_numpy((said > 0) == label)


@pytest.mark.parametrize("ties", [False, True])
def test_over_images(ties):
    metrics = {"accuracy": lambda c, r: accuracy(r.long(), torch.ones_like(r).long()), "aurc": aurc, "ece": ece}
    truth = {name: [each(*network(200_000, noise, ties, 0)) for noise in (0.8, 1.4)] for name, each in metrics.items()}
    ends = {}
    for k in range(1, 81):
        both = [network(N, noise, ties, k) for noise in (0.8, 1.4)]
        hits = [(right.long(), torch.ones(N).long()) for _, right in both]
        asked = [(accuracy, one) for one in hits] + [(aurc, one) for one in both] + [(ece, one) for one in both]
        drawn = resample_together(asked, draws=DRAWS, generator=torch.Generator().manual_seed(k)).numpy()
        for name, (one, other) in zip(metrics, drawn.reshape(3, 2, -1), strict=True):
            ends.setdefault((name, "score"), []).append(np.quantile(one, (0.025, 0.975)))
            ends.setdefault((name, "difference"), []).append(np.quantile(one - other, (0.025, 0.975)))
    shares = {
        (name, kind): share_within(each, [truth[name][0] - truth[name][1] * (kind == "difference")] * 80)
        for (name, kind), each in ends.items()
    }
    wrong = {at: share for at, share in shares.items() if abs(share - 0.95) > FEW}
    # a plug-in ECE lies above the truth, and its draws above it once more; in a difference the two biases cancel
    assert set(wrong) == {("ece", "score")}, shares
    assert wrong["ece", "score"] < 0.9


def test_over_images_that_come_in_several_versions():
    """Five versions of an image share most of their fate; drawn one by one they would pass for five images."""
    ends = {1: [], 5: []}
    for k in range(REPETITIONS):
        rng = np.random.default_rng(k)
        score = rng.standard_normal((N // 5, 1)) + 0.3 * rng.standard_normal((N // 5, 5))
        right = torch.from_numpy(score.ravel() < 0.5).long()
        for groups, each in ends.items():
            options = {"draws": DRAWS, "generator": torch.Generator().manual_seed(k), "groups": groups}
            each.append(np.quantile(resample(accuracy, right, torch.ones_like(right), **options), (0.025, 0.975)))
    truth = [stats.norm.cdf(0.5 / math.hypot(1, 0.3))] * REPETITIONS
    assert abs(share_within(ends[5], truth) - 0.95) < SLACK
    assert share_within(ends[1], truth) < 0.95 - 2 * SLACK


@pytest.mark.parametrize("ratio", [1, 2])  # of the sd of trainings to that of test sets
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_over_trainings(count, ratio):
    """Accuracy of trainings that are right where an image's ease, their own luck with it and their own level sum to more than 0."""
    images, luck, level = 1.0, 0.5, 1.0
    sd_images = math.sqrt(0.25 / N)  # of the accuracy, near enough
    own = (
        ratio * sd_images * math.sqrt(2 * math.pi) * math.hypot(images, luck)
    )  # moves the accuracy, near one half, by ratio sds
    ends, alone = [], []
    for k in range(REPETITIONS):
        rng = np.random.default_rng(k)
        ease, move = images * rng.standard_normal(N), level * own * rng.standard_normal((count, 1))
        right = (ease + luck * rng.standard_normal((count, N)) + move > 0).astype(float)
        weights = rng.multinomial(N, np.full(N, 1 / N), DRAWS) / N
        samples = torch.from_numpy(np.c_[right.mean(1), right @ weights.T])
        ends.append(interval_over_trainings(samples)[1:3])
        alone.append(stats.norm.cdf(move.mean() / math.hypot(images, luck)))
    share = share_within(ends, [0.5] * REPETITIONS)
    if count == 1:  # says nothing of other trainings, and is right for what it is about
        assert share < 0.95 - SLACK
        assert abs(share_within(ends, alone) - 0.95) < SLACK
    elif (count, ratio) == (2, 2):  # two numbers hardly say how far they spread; 2 % too few in the benchmark as well
        assert abs(share - 0.93) < SLACK
    else:
        assert abs(share - 0.95) < SLACK


def test_over_splits_it_is_not_too_short():
    """What is tested on three quarters of the images, ten times over; the mean over splits knows more than one, and this interval does not use it."""
    ends = []
    for k in range(REPETITIONS):
        rng = np.random.default_rng(k)
        gain = 0.1 + rng.standard_normal(N)
        parts = np.stack([rng.permutation(gain)[N // 4 :] for _ in range(10)])
        drawn = np.stack([part[rng.integers(len(part), size=(DRAWS, len(part)))].mean(1) for part in parts])
        samples = torch.from_numpy(np.c_[parts.mean(1), drawn])
        ends.append(interval_over_splits(samples)[1:3])
        assert ends[-1] == pool(samples[:, 0], samples[:, 1:])[1:3]
    share = share_within(ends, [0.1] * REPETITIONS)
    assert share > 0.95  # too long, by about the root of 4/3
