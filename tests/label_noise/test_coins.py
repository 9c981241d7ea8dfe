"""Coins of known probability, and what can be known of their estimates: closed forms, and an identity to machine precision."""

import numpy as np
import pytest
from scipy.special import rel_entr

from uqlib import metrics
from uqlib.label_noise import draw_coins, outcome_probabilities
from uqlib.label_noise.coins import SCENARIOS

LABELS = np.arange(40_000) % 10
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_class_throws_with_its_probability(scenario):
    truth = outcome_probabilities(LABELS, scenario)
    shares = draw_coins(truth, seed=3).reshape(-1, 10).mean(0)
    p = np.array(SCENARIOS[scenario])
    assert np.all(np.abs(shares - p) < 4.5 * (p * (1 - p) / 4000) ** 0.5)


def test_a_seed_is_a_draw_and_certainty_is_no_coin():
    truth = np.array([0.0, 1.0] * 50)
    np.testing.assert_array_equal(draw_coins(truth, seed=0), truth)
    half = np.full(64, 0.5)
    assert (draw_coins(half, seed=0) == draw_coins(half, seed=0)).all()
    assert (draw_coins(half, seed=0) != draw_coins(half, seed=1)).any()


def test_brier_is_mse_p_and_what_coins_add():
    """Brier = MSEₚ + mean (y - p)^2 + 2 mean (score - p)(p - y), for any scores."""
    truth = outcome_probabilities(LABELS, "linear")
    coins, scores = draw_coins(truth, seed=1), RNG.random(len(truth))
    noise = ((coins - truth) ** 2).mean() + 2 * ((scores - truth) * (truth - coins)).mean()
    brier = metrics.brier(np.stack([1 - scores, scores], 1), coins.astype(int)) / 2
    assert brier == pytest.approx(metrics.mse_p(scores, truth) + noise, abs=1e-14)


def test_the_truth_has_no_error_and_another_has_that_of_scipy():
    truth, scores = RNG.random(500), RNG.random(500)
    assert metrics.mse_p(truth, truth) == 0
    assert metrics.kl_p(truth, truth) == pytest.approx(0, abs=1e-15)
    expected = (rel_entr(truth, scores) + rel_entr(1 - truth, 1 - scores)).mean()
    assert metrics.kl_p(scores, truth, epsilon=0) == pytest.approx(expected, rel=1e-12)
    assert metrics.kl_p([0.0], [0.5], epsilon=0) == np.inf
    assert metrics.kl_p([0.0], [0.0]) == 0
    for epsilon in (0.0, 1e-10, 0.2, 0.5):  # what is left to an outcome leaves less to the other
        shares = np.linspace(0.05, 0.95, 19)
        assert metrics.kl_p(shares, shares, epsilon=epsilon) == pytest.approx(0, abs=1e-15)
        assert min(metrics.kl_p([q], [p], epsilon=epsilon) for q in shares for p in shares) >= 0


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 10\)"):
        outcome_probabilities([10], "linear")
    with pytest.raises(ValueError, match="unknown scenario 'flat'; choose from discrete, linear, skewed"):
        outcome_probabilities([1], "flat")
    with pytest.raises(ValueError, match=r"truth must lie in \[0, 1\]; row 0 is 2"):
        draw_coins([2.0], seed=0)
    with pytest.raises(ValueError, match="truth has 1 rows where 2 are expected"):
        metrics.mse_p([0.5, 0.5], [0.5])
    with pytest.raises(ValueError, match=r"of at most 0\.5; it is 0\.6"):
        metrics.kl_p([0.5], [0.5], epsilon=0.6)
