import math

import numpy as np
import pytest
from scipy import optimize, stats

from uqlib.evidence import replication
from uqlib.evidence.replication import Estimate


def test_an_interval_is_read_as_that_of_a_normal():
    found = replication.read_interval(1.0, 0.0, 2.0, 0.95)
    assert found == pytest.approx((1.0, 1 / stats.norm.ppf(0.975)))
    assert replication.read_interval(9.0, 0.0, 2.0, 0.95).value == 1.0  # the middle, where the value lies aside
    assert math.isnan(replication.read_interval(1.0, None, None, None).error)
    assert replication.above(found, 0.0) == pytest.approx(0.025)
    assert replication.above(found, 2.0) == pytest.approx(0.975)


@pytest.mark.parametrize("needed", [1, 3, 5])
def test_partial_conjunction_errs_as_seldom_as_it_says(needed):
    """The worst case: needed - 1 settings hold with certainty, the others not at all."""
    chance = np.random.default_rng(needed)
    k, times = 5, 4000
    ps = np.concatenate([np.zeros((times, needed - 1)), chance.uniform(size=(times, k - needed + 1))], axis=1)
    wrong = np.mean([replication.partial_conjunction(list(row), needed) <= 0.05 for row in ps])
    assert wrong <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / times)
    assert wrong >= 0.03  # and is not empty caution


def test_partial_conjunction_by_hand():
    assert replication.partial_conjunction([0.2, 0.01, 0.04], 3) == 0.2
    assert replication.partial_conjunction([0.2, 0.01, 0.04], 2) == pytest.approx(0.08)
    assert replication.partial_conjunction([0.2, 0.01, math.nan], 3) == 1.0
    with pytest.raises(ValueError, match="needed"):
        replication.partial_conjunction([0.2], 2)


def test_holm_as_another_package_has_it():
    ps = [0.01, 0.04, 0.03, 0.005, 0.9]
    # R: p.adjust(c(0.01, 0.04, 0.03, 0.005, 0.9), "holm")
    assert replication.holm(ps) == pytest.approx([0.04, 0.09, 0.09, 0.025, 0.9])
    assert replication.holm([]) == []


@pytest.mark.parametrize("ratio", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("ours", [1.0, 2.5, -2.5])
def test_the_sceptical_p_solves_its_equation(ratio, ours):
    """(zo^2 / z^2 - 1) (zr^2 / z^2 - 1) = variance ratio, in Held 2020."""
    original, error = Estimate(3.0, 1.0), 1 / math.sqrt(ratio)
    replicated = Estimate(ours * error, error)
    least = min(9.0, ours**2)
    squared = optimize.brentq(lambda s: (9.0 / s - 1) * (ours**2 / s - 1) - ratio, 1e-9, least)
    expected = stats.norm.sf(math.copysign(math.sqrt(squared), ours))
    assert replication.sceptical_p(original, replicated) == pytest.approx(expected)
    assert (
        replication.sceptical_p(original, replicated) >= max(stats.norm.sf(3.0), stats.norm.sf(abs(ours))) or ours < 0
    )


def test_a_prediction_interval_holds_the_next_as_often_as_it_says():
    chance, hits, times = np.random.default_rng(0), 0, 3000
    for _ in range(times):
        *seen, following = chance.normal(size=6)
        low, high = replication.prediction_interval([Estimate(x, math.nan) for x in seen])
        hits += low <= following <= high
    assert abs(hits / times - 0.95) < 3 * math.sqrt(0.95 * 0.05 / times)
    low, high = replication.prediction_interval([Estimate(0.0, 1.0)], error=2.0)
    assert high == pytest.approx(stats.norm.ppf(0.975) * math.sqrt(5))
    assert math.isnan(replication.prediction_interval([Estimate(0.0, math.nan)])[0])


def test_two_one_sided_tests_by_hand():
    one, other = Estimate(1.0, 0.3), Estimate(1.2, 0.4)
    below, above = stats.norm.sf((0.2 + 1) / 0.5), stats.norm.sf((1 - 0.2) / 0.5)
    assert replication.equivalence_p(one, other, 1.0) == pytest.approx(max(below, above))
    assert replication.equivalence_p(one, other, 0.1) > 0.5


def test_power_by_simulation():
    error, distance = 0.5, 1.2
    draws = np.random.default_rng(0).normal(distance, error, 100_000)
    seen = (draws - stats.norm.ppf(0.975) * error > 0).mean()
    assert replication.chance(distance, error) == pytest.approx(seen, abs=0.005)
    assert replication.chance(replication.detectable(error), error) == pytest.approx(0.8)
