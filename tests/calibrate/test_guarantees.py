"""Guaranteed coverage: its bounds against SciPy, how often the promise fails, and what cannot be shown."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from uqlib.calibrate import guaranteed_coverage
from uqlib.calibrate.guarantees import _tail, _upper_share, _ways


@pytest.mark.parametrize(("seen", "count"), [(0, 1), (0, 300), (3, 50), (40, 41), (7, 7), (500, 100_000)])
@pytest.mark.parametrize("miss", [0.05, 1e-3, 0.6])
def test_the_bound_is_clopper_and_pearsons(seen, count, miss):
    expected = 1.0 if seen == count else stats.beta.ppf(1 - miss, seen + 1, count - seen)
    assert _upper_share(seen, count, miss) == pytest.approx(expected, rel=1e-8)
    assert _tail(_ways(seen, count), count, 0.01) == pytest.approx(stats.binom.cdf(seen, count, 0.01), rel=1e-7)


def by_hand(confidence, correct, risk, level, steps):
    """Every step in turn, with SciPy; the largest that passes."""
    n, best = len(confidence), (math.inf, 0.0)
    for i in range(1, steps + 1):
        threshold = -math.inf if i == steps else np.sort(confidence)[::-1][i * n // steps]
        kept = confidence > threshold
        e, m = (~correct[kept]).sum(), kept.sum()
        if m and stats.beta.ppf(1 - (1 - level) / steps, e + 1, m - e) <= risk and e < m:
            best = threshold, m / n
    return best


@pytest.mark.parametrize("seed", range(6))
def test_it_is_the_largest_coverage_whose_bound_holds(seed):
    generator = np.random.default_rng(seed)
    confidence = generator.random(800) if seed % 2 else generator.integers(0, 30, 800) / 30
    correct = generator.random(800) < 1 - 0.4 * (1 - confidence) ** 2
    found = guaranteed_coverage(confidence, correct, risk=0.08, level=0.9, steps=20)
    assert (found.threshold, found.coverage) == by_hand(confidence, correct, 0.08, 0.9, 20)
    kept = confidence > found.threshold
    assert found.coverage == kept.mean()
    assert found.risk == pytest.approx((~correct[kept]).mean())
    assert found.risk < found.risk_bound <= 0.08
    assert found.coverage_bound == pytest.approx(stats.beta.ppf(0.005, kept.sum(), 801 - kept.sum()), rel=1e-8)
    order = generator.permutation(800)
    again = guaranteed_coverage(
        torch.tensor(confidence[order]), torch.tensor(correct[order]), risk=0.08, level=0.9, steps=20
    )
    assert again == found


@pytest.mark.parametrize("kind", ["rising", "bumpy", "ties", "flat"])
def test_the_promise_fails_no_more_often_than_it_says(kind):
    """The true risk and coverage of each threshold are known in closed form or from a fine grid."""
    level, risk, generator = 0.8, 0.1, np.random.default_rng(0)
    grid = (np.arange(20_000) + 0.5) / 20_000
    wrong = {
        "rising": lambda x: 0.25 * (1 - x),
        "bumpy": lambda x: 0.07 + 0.07 * np.sin(20 * x),  # the risk is no rising function of the coverage
        "ties": lambda x: 0.25 * (1 - x),
        "flat": lambda x: 0.1 + 1e-9 + 0 * x,  # no coverage has the risk asked for
    }[kind]
    values = np.floor(grid * 8) / 8 if kind == "ties" else grid
    failed, short, found_any = 0, 0, 0
    for _ in range(200):
        x = generator.random(400)
        x = np.floor(x * 8) / 8 if kind == "ties" else x
        found = guaranteed_coverage(x, generator.random(400) >= wrong(x), risk=risk, level=level, steps=10)
        if found.coverage:
            kept = values > found.threshold
            found_any += 1
            failed += wrong(values[kept]).mean() > risk
            short += kept.mean() < found.coverage_bound
    slack = 4 * (level * (1 - level) / 200) ** 0.5
    assert failed / 200 <= 1 - level + slack
    assert short / 200 <= 1 - level + slack
    if kind == "flat":
        assert failed / 200 > 0.02  # the promise is used, not only kept
    else:
        assert found_any > 100


def test_nothing_shown_is_no_coverage():
    nothing = guaranteed_coverage([0.1, 0.5, 0.9], [True, True, True], risk=0.01)
    assert (nothing.threshold, nothing.coverage, nothing.coverage_bound) == (math.inf, 0.0, 0.0)
    assert math.isnan(nothing.risk)
    assert math.isnan(nothing.risk_bound)


def test_everything_is_kept_where_nothing_is_wrong():
    found = guaranteed_coverage(np.full(2000, 0.5), np.ones(2000, bool), risk=0.01)
    assert (found.threshold, found.coverage, found.risk) == (-math.inf, 1.0, 0.0)
    assert found.risk_bound == pytest.approx(1 - 0.001 ** (1 / 2000), rel=1e-9)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"risk": 0.0}, "risk must lie in"),
        ({"risk": 0.1, "level": 95}, "level must lie in"),
        ({"risk": 0.1, "steps": 0}, "steps"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        guaranteed_coverage([0.5, 0.6], [True, False], **options)
