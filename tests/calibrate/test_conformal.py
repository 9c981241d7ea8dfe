"""The conformal threshold: its rank, its promise against the closed form of the coverage, and what it refuses."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from uqlib.calibrate import conformal_threshold


@pytest.mark.parametrize(("n", "coverage"), [(20, 0.9), (99, 0.5), (57, 0.8)])
def test_the_share_of_new_examples_below_it_is_beta_distributed(n, coverage):
    """Of uniform scores the threshold is that share itself: the order statistic of rank k is Beta(k, n + 1 - k)."""
    generator = np.random.default_rng(0)
    shares = [conformal_threshold(generator.random(n), coverage=coverage) for _ in range(2000)]
    k = -(-Fraction(str(coverage)) * (n + 1) // 1)
    beta = stats.beta(int(k), n + 1 - int(k))
    assert stats.kstest(shares, beta.cdf).pvalue > 1e-3
    assert np.mean(shares) == pytest.approx(k / (n + 1), abs=4 * beta.std() / 2000**0.5)
    assert k / (n + 1) >= Fraction(str(coverage))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12), st.sampled_from(["0.1", "0.5", "0.75", "0.9"]))
def test_of_all_ways_to_leave_one_example_out_enough_keep_the_promise(values, coverage):
    """Exchangeable examples, brute force: each of n + 1 is the new one in turn; ties included."""
    kept = sum(
        value <= conformal_threshold([*values[:i], *values[i + 1 :]] or [0], coverage=float(coverage))
        for i, value in enumerate(values)
    )
    if len(values) > 1:
        assert kept >= Fraction(coverage) * len(values)


@pytest.mark.parametrize(
    ("coverage", "rank"), [(0.07, 7), (0.29, 29), (0.57, 57), (0.58, 58), (0.99, 99), (0.991, None)]
)
def test_the_rank_is_that_of_exact_arithmetic(coverage, rank):
    """Of 99 scores; 100 x 0.07, 0.29, 0.57 and 0.58 are not whole in floating point."""
    found = conformal_threshold(np.arange(1, 100), coverage=coverage)
    assert found == (math.inf if rank is None else rank)


@pytest.mark.parametrize(
    ("scores", "coverage", "message"),
    [([0.1, math.nan], 0.5, "scores must be finite; row 1"), ([0.1], 1.0, "coverage"), ([], 0.5, "scores")],
)
def test_what_promises_nothing_is_refused(scores, coverage, message):
    with pytest.raises(ValueError, match=message):
        conformal_threshold(scores, coverage=coverage)
