"""With the number of examples that a pilot tells, an interval excludes 0 about as often as was asked."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from uqlib.metrics import accuracy, aurc, how_many, paired_difference

ZEROS = np.zeros(5000, dtype=int)


def pair(n, seed):
    """Whether two methods are right on the same examples, in 80 and 75 %, and their confidences."""
    rng = np.random.default_rng(seed)
    ease, own = rng.standard_normal(n), rng.standard_normal((2, n))
    right = 0.8 * ease + 0.6 * own > stats.norm.isf([[0.8], [0.75]])
    return [(ease + 0.5 * noise, hit) for noise, hit in zip(rng.standard_normal((2, n)), right, strict=True)]


def as_preds(correct):
    return (~correct).astype(int), ZEROS[: len(correct)]


def test_of_accuracies_it_is_the_formula_for_means():
    (_, one), (_, other) = pair(5000, 0)
    options = {"difference": 0.05, "power": 0.9, "level": 0.99, "draws": 4000}
    found = how_many(accuracy, as_preds(one), as_preds(other), **options, generator=torch.Generator().manual_seed(0))
    sd = (one.astype(float) - other).std()
    assert found.sd == pytest.approx(sd, rel=4 / math.sqrt(2 * 4000))  # Monte Carlo error of the draws
    exact = ((stats.norm.isf(0.005) + stats.norm.isf(0.1)) * sd / 0.05) ** 2
    assert found.low < exact < found.high
    assert found.n == math.ceil(((stats.norm.isf(0.005) + stats.norm.isf(0.1)) * found.sd / 0.05) ** 2)
    error = found.sd / math.sqrt(5000)
    assert found.pilot_power == pytest.approx(stats.norm.sf(stats.norm.isf(0.005) - 0.05 / error), abs=1e-9)


def test_of_one_method_it_is_the_formula_for_shares():
    ((_, right), _) = pair(5000, 1)
    found = how_many(accuracy, as_preds(right), difference=-0.02, generator=torch.Generator().manual_seed(0))
    share = right.mean()
    exact = (stats.norm.isf(0.025) + stats.norm.isf(0.2)) ** 2 * share * (1 - share) / 0.02**2
    assert found.low < exact < found.high
    assert found.n == pytest.approx(exact, rel=4 * math.sqrt(2 / 2000))
    assert found.difference == 0.02


@pytest.mark.parametrize("statistic", [accuracy, aurc])
def test_so_many_examples_have_the_power_that_was_asked(statistic):
    def arrays(n, seed):
        both = pair(n, seed)
        return [as_preds(hit) for _, hit in both] if statistic is accuracy else both

    one, other = arrays(40_000, 2) if statistic is aurc else pair(40_000, 2)
    true = aurc(*one) - aurc(*other) if statistic is aurc else 0.05
    seed = torch.Generator().manual_seed(0)
    found = how_many(statistic, *arrays(4000, 3), difference=true, power=0.7, draws=1000, generator=seed)
    told = 0
    for k in range(80):
        ends = paired_difference(statistic, *arrays(found.n, 10 + k), draws=100, generator=seed)
        told += ends.low > 0 or ends.high < 0
    # the sd of so large a pilot is known to some percent, the intervals are those of few draws
    assert told / 80 == pytest.approx(0.7, abs=0.04 + 3 * math.sqrt(0.7 * 0.3 / 80))


def test_its_interval_is_that_of_the_variance_of_a_share():
    """Of 200 examples each is left out in turn, and the variance of a variance is known by the fourth moment."""
    ((_, right), _) = pair(200, 1)
    found = how_many(accuracy, as_preds(right), difference=0.05, draws=1000, generator=torch.Generator().manual_seed(0))
    kurtosis = stats.kurtosis(right.astype(float), fisher=False)
    spread = math.exp(stats.norm.isf(0.025) * math.hypot(math.sqrt((kurtosis - 1) / 200), math.sqrt(2 / 1000)))
    assert found.low == pytest.approx(found.n / spread, abs=2)
    assert found.high == pytest.approx(found.n * spread, abs=2)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"difference": 0}, "difference is 0"),
        ({"difference": math.nan}, "difference must be a finite number"),
        ({"power": 1}, r"power must lie in \(0, 1\); it is 1"),
        ({"power": 0.05}, "power must be above 1 - level, 0.05"),
        ({"level": 0}, "level must lie in"),
        ({"draws": 1}, "draws must be"),
    ],
)
def test_what_cannot_be_asked_is_refused(options, match):
    both = pair(50, 0)
    with pytest.raises(ValueError, match=match):
        how_many(aurc, *both, **{"difference": 0.05} | options)


def test_pilots_that_say_nothing_are_refused():
    with pytest.raises(ValueError, match="pilot of 29 examples, and 30 are the least"):
        how_many(aurc, *pair(29, 0), difference=0.1)
    ((confidence, right), _) = pair(50, 0)
    with pytest.raises(ValueError, match="the same on every draw"):
        how_many(aurc, (confidence, right), (confidence, right), difference=0.1)
    with pytest.raises(ValueError, match=r"second.* has 40 rows where 50 are expected"):
        how_many(aurc, (confidence, right), (confidence[:40], right[:40]), difference=0.1)
