"""Bands hold the whole true curve in about 95 of 100 studies; benchmarks/bands.py has all kinds, at full size."""

import importlib.util
import math
import sys

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.metrics import roc_curve as sklearn_roc

from uqlib.metrics import band, isotonic_curve, recalibrated, reliability_curve, roc_curve, selective_risks

CURVES = ("reliability", "risk_coverage", "roc")


def sample(n, seed=0, ties=False):
    rng = np.random.default_rng(seed)
    confidence = rng.beta(3, 1, n)
    confidence = np.round(20 * confidence) / 20 if ties else confidence
    return confidence, rng.random(n) < confidence**1.4


def seeded(*arguments, **options):
    return band(*arguments, **options, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def bands(request):
    """benchmarks/bands.py"""
    spec = importlib.util.spec_from_file_location(
        "bands_of_benchmarks", request.config.rootpath / "benchmarks/bands.py"
    )
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("curve", CURVES)
def test_a_band_of_95_percent_holds_the_truth_so_often(bands, curve):
    found = bands.simulate(curve, "hard", 200, curve == "risk_coverage", repetitions=100, draws=200)
    error = math.sqrt(0.95 * 0.05 / 100)
    assert found.share > 0.95 - 3 * error  # honest: more is right
    assert found.width < {"reliability": 0.6, "risk_coverage": 0.25, "roc": 0.45}[curve]  # and not for being idle


def test_a_band_of_half_the_level_holds_the_truth_less_often(bands):
    """It can fail: the truth is no part of how a band is made."""
    truth, held = bands.population(2.0), 0
    for k in range(60):
        found = seeded("risk_coverage", *bands.study(2.0, 2000, False, np.random.default_rng(k)), level=0.5, draws=100)
        true = bands.true_curve(truth, False, found)
        held += ((found.low.numpy() <= true) & (true <= found.high.numpy())).all()
    assert abs(held / 60 - 0.5) < 0.05 + 3.5 * math.sqrt(0.25 / 60)


def test_the_truth_of_the_simulation_is_that_of_many_examples(bands):
    for ties in (False, True):
        confidence, correct = bands.study(2.0, 400_000, ties, np.random.default_rng(0))
        for curve in CURVES[1:]:
            found = seeded(curve, confidence, correct, draws=2)
            truth = bands.true_curve(bands.population(2.0), ties, found)
            assert np.abs(found.value.numpy() - truth).max() < 0.01


@pytest.mark.parametrize("ties", [False, True])
def test_values_are_those_of_the_curves(ties):
    confidence, correct = sample(400, ties=ties)
    risk = seeded("risk_coverage", confidence, correct, draws=20)
    assert risk.value == pytest.approx(
        np.interp(risk.x * 400, np.arange(1, 401), np.arange(1, 401) * selective_risks(confidence, correct))
        / (risk.x * 400),
        abs=1e-12,
    )
    roc = seeded("roc", confidence, correct, draws=20)
    fpr, tpr, _ = sklearn_roc(correct, confidence, drop_intermediate=False)
    inside = ~np.isclose(roc.x[:, None], fpr, atol=1e-9).any(1)  # on a step any height is right
    assert roc.value[inside] == pytest.approx(np.interp(roc.x, fpr, tpr)[inside], abs=1e-12)
    reliability = band("reliability", confidence, correct)
    at = dict(zip(confidence.tolist(), recalibrated(confidence, correct).tolist(), strict=True))
    assert reliability.value == pytest.approx([at[x] for x in reliability.x.tolist()], abs=1e-12)


def test_few_scores_have_the_limits_of_clopper_and_pearson_of_all_their_ranges():
    confidence = np.repeat([0.2, 0.5, 0.9], [30, 40, 50])
    correct = np.concatenate([np.arange(n) < k for n, k in ((30, 3), (40, 30), (50, 25))])
    found, tail = band("reliability", confidence, correct, level=0.9), 0.1 / 2 / 6

    def limits(low, high):
        inside = correct[(confidence >= low) & (confidence <= high)]
        ends = stats.binomtest(int(inside.sum()), len(inside)).proportion_ci(1 - 2 * tail, "exact")
        return ends.low, ends.high

    pairs = [(low, high) for low in (0.2, 0.5, 0.9) for high in (0.2, 0.5, 0.9) if low <= high]
    for x in (0.2, 0.5, 0.9):
        at = np.isclose(found.x, x)
        assert found.low[at].max() == pytest.approx(max(limits(*pair)[0] for pair in pairs if pair[1] <= x), abs=1e-9)
        assert found.high[at].min() == pytest.approx(min(limits(*pair)[1] for pair in pairs if pair[0] >= x), abs=1e-9)


@pytest.mark.parametrize("curve", CURVES)
def test_what_a_band_is(curve):
    confidence, correct = sample(3000)
    found = seeded(curve, confidence, correct, draws=200)
    assert (found.low <= found.value).all()
    assert (found.value <= found.high).all()
    assert (np.diff(found.x) >= 0).all()
    assert (found.first, found.last) == (found.x[0], found.x[-1])
    assert found.first == (
        confidence.min() if curve == "reliability" else 0.01 if curve == "risk_coverage" else 10 / (~correct).sum()
    )
    wider = seeded(curve, confidence, correct, draws=200, level=0.999)
    assert (wider.high - wider.low).mean() > 1.1 * (found.high - found.low).mean()
    order = np.random.default_rng(0).permutation(3000)
    again = seeded(curve, torch.from_numpy(confidence[order]), correct[order], draws=200)
    assert isinstance(again.low, torch.Tensor)
    np.testing.assert_allclose(again.low.numpy(), found.low, atol=1e-12)


def test_curves_are_known_by_their_functions():
    arrays = sample(200)
    for function, name in (
        (reliability_curve, "reliability"),
        (isotonic_curve, "reliability"),
        (selective_risks, "risk_coverage"),
        (roc_curve, "roc"),
    ):
        assert band(function, *arrays, draws=5).curve == name


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (
            lambda c, y: band("det", c, y),
            ValueError,
            "unknown curve 'det'; choose from reliability, risk_coverage, roc",
        ),
        (lambda c, y: band(np.mean, c, y), ValueError, "unknown curve ''"),
        (lambda c, y: band("roc", c, y, level=95), ValueError, r"level must lie in \(0, 1\)"),
        (
            lambda c, y: band("roc", c, np.ones(50, bool)),
            ValueError,
            "more than 10 positives and negatives; there are 0",
        ),
        (lambda c, y: band("risk_coverage", c[:10], y[:10]), ValueError, "more than 10 examples; there are 10"),
        (lambda c, y: band("reliability", 2 * c, y), ValueError, r"confidence must lie in \[0, 1\]"),
        (lambda c, y: band("roc", c, y, generator=np.random.default_rng()), TypeError, "generator must be torch's"),
    ],
)
def test_what_is_wrong_is_named(unchecked, call, error, match):
    with pytest.raises(error, match=match):
        call(*sample(50))
