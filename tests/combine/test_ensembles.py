"""Ensembles over splits, against the same by hand and by SciPy."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from uqlib.base.splits import split
from uqlib.combine.duos import duo_logits, fit_duo
from uqlib.combine.ensembles import ENSEMBLES, repeat_ensembles


@pytest.fixture
def data():
    generator = torch.Generator().manual_seed(0)
    members = list(2 * torch.randn(2, 300, 4, generator=generator, dtype=torch.float64))
    labels = torch.multinomial((0.5 * members[0] + 0.4 * members[1]).softmax(-1), 1, generator=generator)[:, 0]
    return members, labels


@pytest.mark.parametrize("kind", ENSEMBLES)
def test_each_kind_by_hand(data, kind):
    members, labels = data
    answers = {name: SimpleNamespace(logits=each, labels=labels) for name, each in zip("ab", members, strict=True)}
    found = repeat_ensembles(answers, {"both": (kind, "ab")}, fit_size=100, splits=2, seed=3)
    for k, outcome in enumerate(found["both"]):
        fit, test = split(300, 100, seed=3 + k)
        logits = [each.numpy() for each in members]
        if kind == "weighted":
            duo = fit_duo(*(each[fit] for each in members), labels[fit])
            mean = duo_logits(*members, duo).numpy()
        elif "probabilities" in kind:
            mean = np.log(np.mean([softmax(each, -1) for each in logits], 0))
        else:
            mean = np.mean(logits, 0)

        def nll(inverse, mean=mean, fit=fit):
            return -log_softmax(inverse * mean[fit], -1)[np.arange(100), labels[fit]].mean()

        best = minimize_scalar(nll, bounds=(0.01, 9), method="bounded", options={"xatol": 1e-10}).x
        expected = softmax((best if "scaled" in kind else 1.0) * mean[test], -1)
        np.testing.assert_allclose(outcome.probs, expected, atol=1e-6)
        np.testing.assert_array_equal(outcome.labels, labels[test])


def test_an_unknown_kind_is_named():
    with pytest.raises(ValueError, match="unknown kind of ensemble 'mean'; choose from scaled"):
        repeat_ensembles({}, {"it": ("mean", "ab")}, fit_size=9, splits=1)
