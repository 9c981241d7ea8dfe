"""The hull of the risk-coverage curve: against isotonic regression of scikit-learn, and brute force."""

import numpy as np
import pytest
from sklearn.isotonic import IsotonicRegression

from uqlib.metrics import achievable_aurc, aurc, rank, rank_losses


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_aurc_of_recalibrated_scores(seed):
    rng = np.random.default_rng(seed)
    score = rng.random(300).round(2)
    right = rng.random(300) < 0.5 + 0.3 * np.sin(9 * score)
    pooled = IsotonicRegression().fit_transform(score, right)
    assert achievable_aurc(score, right) == pytest.approx(aurc(pooled.round(12), right), rel=1e-12)
    assert achievable_aurc(score, right) <= aurc(score, right)
    assert achievable_aurc(rank(score, right)) == achievable_aurc(score, right)


def test_no_choice_of_ties_reaches_less():
    """Every way to make neighbours among six scores tie."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        right = rng.random(6) < 0.6
        ways = [np.cumsum([0, *(cut >> k & 1 for k in range(5))]) for cut in range(32)]
        assert achievable_aurc(np.arange(6), right) == pytest.approx(min(aurc(way, right) for way in ways))


def test_weights_and_losses_are_refused():
    with pytest.raises(ValueError, match="weights or losses"):
        achievable_aurc(rank_losses([0.2, 0.3], [0.1, 0.2]))
