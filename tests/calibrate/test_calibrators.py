"""Calibrators by name: against scikit-learn, SciPy and formulas by hand, their certificates, folds, and what is refused."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, logit, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import CalibratedClassifierCV
from sklearn.frozen import FrozenEstimator
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from uqlib.calibrate import CALIBRATORS, cross_calibrate, fit_calibrator, fit_temperature
from uqlib.calibrate import maps as inner

SOFTMAX = ("temperature", "class_temperatures", "vector", "dirichlet")
ONE_VS_REST = ("platt", "beta", "isotonic", "histogram")


def drawn(n=600, c=4, seed=0):
    """Logits twice as large as those that drew the labels, with a bias that these don't have."""
    generator = np.random.default_rng(seed)
    true = 1.5 * generator.standard_normal((n, c))
    labels = np.array([generator.choice(c, p=row) for row in softmax(true, -1)])
    return 2 * true + 0.5 * np.arange(c), labels


def mean_nll(scores, labels):
    return -log_softmax(scores, -1)[np.arange(len(labels)), labels].mean()


LOGITS, LABELS = drawn()


@pytest.mark.parametrize("name", CALIBRATORS)
def test_probabilities_keep_kind_and_order_and_beat_the_raw_ones(name):
    fit = fit_calibrator(name, LOGITS, LABELS)
    probs = fit.probs(LOGITS)
    assert isinstance(probs, np.ndarray)
    np.testing.assert_allclose(probs.sum(-1), 1, rtol=1e-12)
    assert probs.min() >= 0
    assert fit.nll == pytest.approx(-np.log(probs[np.arange(len(LABELS)), LABELS]).mean(), rel=1e-12)
    assert fit.nll < mean_nll(LOGITS, LABELS)
    tensor = fit_calibrator(name, torch.tensor(LOGITS), torch.tensor(LABELS)).probs(torch.tensor(LOGITS))
    np.testing.assert_allclose(tensor, probs, atol=1e-12)
    turned = fit_calibrator(name, LOGITS[::-1], LABELS[::-1]).probs(LOGITS)
    np.testing.assert_allclose(turned, probs, atol=1e-8)
    if name in ("isotonic", "histogram"):
        assert np.isnan(fit.gap)
    else:
        assert fit.gap < 1e-14
        assert fit.residual < 1e-8


@pytest.mark.parametrize("strength", [0.0, 0.3])
@pytest.mark.parametrize("dense", [True, False])
@pytest.mark.parametrize("name", ["vector", "dirichlet"])
def test_linear_maps_reach_the_least_nll_of_scipy(name, dense, strength, monkeypatch):
    """Each by its formula, from a start of its own; also where the Hessian is not written out."""
    if not dense:
        monkeypatch.setattr(inner, "DENSE", 1)
    c = LOGITS.shape[1]

    def objective(point):
        if name == "vector":
            return mean_nll(point[:c] * LOGITS + point[c:], LABELS)
        matrix, bias = point[:-c].reshape(c, c), point[-c:]
        off = matrix[~np.eye(c, dtype=bool)]
        penalty = strength * ((off**2).mean() + (bias**2).mean())
        return mean_nll(log_softmax(LOGITS, -1) @ matrix.T + bias, LABELS) + penalty

    found = minimize(
        objective, np.zeros(2 * c if name == "vector" else c * c + c), method="BFGS", options={"gtol": 1e-7}
    )
    fit = fit_calibrator(name, LOGITS, LABELS, strength=strength)
    point = np.concatenate([np.ravel(each) for each in fit.parameters.values()])
    assert objective(point) == pytest.approx(found.fun, abs=1e-9)
    assert objective(point) <= found.fun + 1e-9
    assert 0 <= fit.gap < 1e-9
    if name == "vector":
        assert fit.parameters["bias"].sum() == pytest.approx(0, abs=1e-12)
        np.testing.assert_allclose(point[:c], found.x[:c], atol=1e-4)


def test_vector_scaling_with_equal_factors_is_the_temperature():
    """Labels that the softmax of half the logits expects, in equal parts: no class needs another factor."""
    logits = np.repeat([[2 * np.log(2), 0.0], [0.0, 2 * np.log(2)], [3.0, 3.0]], 6, 0)
    labels = np.tile([0, 0, 1, 1, 1, 1], 3)
    labels[:6], labels[12:] = [0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1]
    fit = fit_calibrator("vector", logits, labels)
    assert fit_temperature(logits, labels).temperature == pytest.approx(2)
    np.testing.assert_allclose(fit.parameters["factor"], 0.5, atol=1e-9)
    np.testing.assert_allclose(fit.parameters["bias"], 0, atol=1e-9)


def test_dirichlet_under_a_huge_penalty_scales_each_log_probability():
    fit = fit_calibrator("dirichlet", LOGITS, LABELS, strength=1e9)
    matrix = fit.parameters["matrix"]
    assert np.abs(matrix - np.diag(np.diag(matrix))).max() < 1e-7
    logs = log_softmax(LOGITS, -1)
    found = minimize(lambda factor: mean_nll(factor * logs, LABELS), np.ones(4), method="BFGS", options={"gtol": 1e-8})
    np.testing.assert_allclose(np.diag(matrix), found.x, atol=1e-5)


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose probabilities are its input."""

    def fit(self, x, y):
        return self

    def __sklearn_is_fitted__(self):
        return True

    def predict_proba(self, x):
        return x

    def predict(self, x):
        return x.argmax(-1)


@pytest.mark.parametrize("c", [2, 4])
def test_isotonic_is_that_of_scikit_learn(c):
    logits, labels = drawn(c=c)
    probs, others = softmax(logits, -1), softmax(drawn(c=c, seed=1)[0], -1)
    given = Given()
    given.classes_ = np.arange(c)
    theirs = CalibratedClassifierCV(FrozenEstimator(given), method="isotonic", ensemble=False).fit(probs, labels)
    ours = fit_calibrator("isotonic", np.log(probs), labels).probs(np.log(others))
    np.testing.assert_allclose(ours, theirs.predict_proba(others), atol=1e-9)


def odds_columns(logits):
    """Log p and log(1 - p) of each class, without care for rounding."""
    probs = softmax(logits, -1)
    return np.log(probs), np.log1p(-probs)


def test_platt_is_the_logistic_regression_of_each_class():
    log_p, log_q = odds_columns(LOGITS)
    columns = []
    for j in range(4):
        x = (log_p - log_q)[:, j : j + 1]
        columns.append(LogisticRegression(C=np.inf, tol=1e-10).fit(x, j == LABELS).predict_proba(x)[:, 1])
    expected = np.stack(columns, 1)
    found = fit_calibrator("platt", LOGITS, LABELS).probs(LOGITS)
    np.testing.assert_allclose(found, expected / expected.sum(-1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_beta_is_the_bounded_minimum_of_scipy(seed):
    logits, labels = drawn(c=3, seed=seed)
    logits[:, 2] *= -1 if seed == 1 else 1  # which drives a slope to its bound
    log_p, log_q = odds_columns(logits)
    fit = fit_calibrator("beta", logits, labels)
    for j in range(3):

        def objective(point, j=j):
            scaled = point[0] * log_p[:, j] - point[1] * log_q[:, j] + point[2]
            return np.where(labels == j, np.logaddexp(0, -scaled), np.logaddexp(0, scaled)).mean()

        found = minimize(objective, [1, 1, 0], bounds=[(0, None), (0, None), (None, None)], options={"gtol": 1e-9})
        point = [fit.parameters[k][j] for k in "abc"]
        assert min(point[:2]) >= 0
        assert objective(point) == pytest.approx(found.fun, abs=1e-7)
        np.testing.assert_allclose(point, found.x, atol=2e-2)
    if seed == 1:
        assert min(min(fit.parameters["a"]), min(fit.parameters["b"])) == 0


@pytest.mark.parametrize("by", ["mass", "width"])
def test_histogram_is_the_share_in_each_bin(by):
    probs, m = softmax(LOGITS, -1), 7
    columns = []
    for j in range(4):
        p, value = probs[:, j], np.empty(len(LOGITS))
        edges = np.sort(p)[[-(-k * len(p) // m) - 1 for k in range(1, m)]] if by == "mass" else np.arange(1, m) / m
        place = (p[:, None] > edges).sum(-1)
        for k in range(m):
            value[place == k] = (j == LABELS)[place == k].mean() if (place == k).any() else 0
        columns.append(value)
    expected = np.stack(columns, 1)
    found = fit_calibrator("histogram", LOGITS, LABELS, bins=m, by=by).probs(LOGITS)
    np.testing.assert_allclose(found, expected / expected.sum(-1, keepdims=True), atol=1e-12)


@pytest.mark.parametrize("name", ["temperature", "dirichlet", *ONE_VS_REST])
def test_a_column_is_the_binary_form(name):
    logits, labels = drawn(c=2)
    odds = logits[:, 1] - logits[:, 0]
    both = fit_calibrator(name, logits, labels).probs(logits)
    for given, column in (("logit", odds), ("prob", expit(odds))):
        found = fit_calibrator(name, column, labels, given=given).probs(column)
        assert found.shape == (len(labels),)
        np.testing.assert_allclose(found, both[:, 1], atol=1e-7)


def test_the_binary_forms_are_the_classic_ones():
    logits, labels = drawn(c=2)
    probs = expit(logits[:, 1] - logits[:, 0])
    isotonic = IsotonicRegression(out_of_bounds="clip").fit(probs, labels).predict(probs)
    np.testing.assert_allclose(
        fit_calibrator("isotonic", probs, labels, given="prob").probs(probs), isotonic, atol=1e-9
    )
    x = logit(probs)[:, None]
    platt = LogisticRegression(C=np.inf, tol=1e-10).fit(x, labels).predict_proba(x)[:, 1]
    np.testing.assert_allclose(fit_calibrator("platt", probs, labels, given="prob").probs(probs), platt, atol=1e-6)


def test_probabilities_that_round_to_one_keep_their_odds():
    scores = inner.one_vs_rest(torch.tensor([[50.0, 0.0, 1.0], [0.0, 0.0, 0.0]]))
    np.testing.assert_allclose((scores.log_probs - scores.log_rest)[0, 0], 50 - np.log(1 + np.e), rtol=1e-14)
    np.testing.assert_allclose(scores.log_rest[1], np.log(2 / 3), rtol=1e-14)


@pytest.mark.parametrize("name", CALIBRATORS)
def test_across_folds_each_example_is_mapped_without_its_own_label(name):
    found = cross_calibrate(name, LOGITS, LABELS, folds=3, seed=1)
    assert found.shape == LOGITS.shape
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-12)
    again = cross_calibrate(name, torch.tensor(LOGITS), torch.tensor(LABELS), folds=3, seed=1)
    np.testing.assert_allclose(again, found, atol=1e-12)


def test_the_folds_hold_their_share_of_each_class_and_none_of_the_fit():
    from uqlib.calibrate.calibrators import _stratified_folds

    fold = _stratified_folds(LABELS, 5, 0)
    for j in range(4):
        counts = np.bincount(fold[j == LABELS], minlength=5)
        assert counts.max() - counts.min() <= 1
    held = fold == 2
    alone = fit_calibrator("platt", LOGITS[~held], LABELS[~held]).probs(LOGITS[held])
    np.testing.assert_allclose(cross_calibrate("platt", LOGITS, LABELS)[held], alone, atol=1e-12)
    assert not np.array_equal(fold, _stratified_folds(LABELS, 5, 1))


def test_a_cluster_goes_to_one_fold():
    from uqlib.calibrate.calibrators import _folds_of_clusters

    cluster = np.random.default_rng(0).integers(0, 40, len(LABELS))
    fold = _folds_of_clusters(cluster, 4, 0)
    assert all(len(np.unique(fold[cluster == each])) == 1 for each in range(40))
    assert np.ptp(np.bincount(fold)) < 20
    held = fold == 1
    alone = fit_calibrator("vector", LOGITS[~held], LABELS[~held]).probs(LOGITS[held])
    found = cross_calibrate("vector", LOGITS, LABELS, folds=4, cluster=cluster)
    np.testing.assert_allclose(found[held], alone, atol=1e-12)


EIGHT = np.tile([[3.0, 0.0], [0.0, 3.0]], (4, 1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_calibrator("mps", LOGITS, LABELS), "unknown calibrator 'mps'; choose from temperature"),
        (lambda: fit_calibrator("beta", softmax(LOGITS, -1), LABELS), "logits look like probabilities"),
        (lambda: fit_calibrator("platt", [0.1, 0.9], [0, 1], given="logit"), "given='prob'"),
        (lambda: fit_calibrator("platt", [3, -2], [0, 1], given="prob"), r"logits must lie in \[0, 1\]"),
        (lambda: fit_calibrator("vector", [3.0, -2.0], [0, 1], given="logit"), "vector needs logits"),
        (lambda: fit_calibrator("isotonic", LOGITS, np.minimum(LABELS, 2)), "every class needs a label for isotonic"),
        (lambda: fit_calibrator("isotonic", np.full((3, 2), np.inf), [0, 1, 0]), "row 0, column 0 is inf"),
        (lambda: fit_calibrator("vector", log_softmax(LOGITS, -1), LABELS), "lost the constant"),
        (lambda: fit_calibrator("platt", EIGHT, [0, 1] * 4), "without a mistake"),
        (lambda: fit_calibrator("dirichlet", EIGHT, [0, 1] * 4, strength=0), "no best map"),
        (lambda: fit_calibrator("histogram", LOGITS, LABELS, by="height"), "unknown by 'height'"),
        (lambda: fit_calibrator("beta", LOGITS, LABELS).probs(LOGITS[:, :3]), "the 4 classes of the fit; they have 3"),
        (lambda: cross_calibrate("histogram", EIGHT, [0, 0, 0, 0, 0, 0, 0, 1]), "fold . left out, of 5: every class"),
        (lambda: cross_calibrate("platt", EIGHT, [0, 1] * 4, folds=9), "at most the 8 examples"),
        (
            lambda: cross_calibrate("platt", EIGHT, [0, 1] * 4, cluster=[0, 0, 1, 1] * 2, folds=3),
            "at most the 2 clusters",
        ),
    ],
)
def test_what_cannot_be_fitted_is_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_separated_classes_of_many_parameters_are_told(monkeypatch):
    monkeypatch.setattr(inner, "DENSE", 1)
    with pytest.raises(ValueError, match="no best map"):
        fit_calibrator("vector", EIGHT * [2.0, 1.0], [0, 1] * 4)
