"""Platt scaling across halves: against scikit-learn's logistic regression, and what has no best slope."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from uqlib.calibrate import cross_platt, platt_scale


def bold(n=400, seed=0):
    generator = np.random.default_rng(seed)
    confidence = generator.uniform(0.5, 1, n)
    return confidence, generator.random(n) < confidence - 0.2


def test_each_half_gets_the_logistic_regression_of_the_other():
    confidence, correct = bold()
    odds = np.log(confidence / (1 - confidence))[:, None]
    found = cross_platt(confidence, correct)
    for own, other in ((0, 1), (1, 0)):
        fit = LogisticRegression(C=np.inf, tol=1e-10).fit(odds[other::2], correct[other::2])
        np.testing.assert_allclose(found[own::2], fit.predict_proba(odds[own::2])[:, 1], atol=1e-6)


def test_others_get_the_logistic_regression_of_these_and_it_sees_nothing_else():
    confidence, correct = bold()
    odds = np.log(confidence / (1 - confidence))[:, None]
    fit = LogisticRegression(C=np.inf, tol=1e-10).fit(odds[:300], correct[:300])
    found = platt_scale(confidence[:300], correct[:300], confidence[300:])
    np.testing.assert_allclose(found, fit.predict_proba(odds[300:])[:, 1], atol=1e-6)
    halves = [
        platt_scale(confidence[other::2], correct[other::2], confidence[own::2]) for own, other in ((0, 1), (1, 0))
    ]
    np.testing.assert_allclose(np.stack(halves, 1).ravel(), cross_platt(confidence, correct), rtol=1e-13)


def test_a_bold_network_is_less_bold_after_it():
    confidence, correct = bold(20_000, seed=1)
    assert confidence.mean() - correct.mean() > 0.15
    assert abs(cross_platt(confidence, correct).mean() - correct.mean()) < 0.01


def test_the_surest_are_finite_and_no_example_sees_its_own_label():
    confidence, correct = bold()
    confidence[:2] = 1.0, 0.0
    found = cross_platt(torch.tensor(confidence), torch.tensor(correct))
    assert found.isfinite().all()
    turned = cross_platt(torch.tensor(confidence), torch.tensor(np.r_[~correct[:1], correct[1:]]))
    assert turned[0] == found[0]
    assert turned[1] != found[1]


@pytest.mark.parametrize(
    ("confidence", "correct", "message"),
    [
        ([0.5, 0.6, 0.7, 0.8], [1, 1, 1, 1], "right and wrong"),
        ([0.5, 0.6, 0.9, 0.8], [0, 0, 1, 1], "without a mistake"),
        ([0.5], [1], "right and wrong"),
        ([50, 60, 70, 80], [0, 1, 0, 1], "confidence"),
    ],
)
def test_what_has_no_best_slope_is_refused(confidence, correct, message):
    with pytest.raises(ValueError, match=message):
        cross_platt(confidence, correct)
    if len(confidence) > 1:
        with pytest.raises(ValueError, match=message):
            platt_scale(confidence, correct, [0.5])


def test_confidences_of_others_are_checked_under_their_name():
    with pytest.raises(ValueError, match="others"):
        platt_scale(*bold(), [0.5, 1.5])
