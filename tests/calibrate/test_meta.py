"""Meta-calibration against loops, scikit-learn, and what the authors' arrays must give."""

import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import Ridge

from uqlib import calibrate
from uqlib.calibrate import (
    fit_family,
    fit_meta,
    hit_curve,
    logits_by_curve,
    map_by_curve,
    meta,
    monotone,
    pit_curve,
    pit_error,
    predict_curves,
    project_curve,
    task_features,
)

RNG = np.random.default_rng(0)
CURVES = np.sort(RNG.uniform(size=(12, 20)), 1)
FEATURES = np.c_[RNG.normal(size=(12, 4)), np.full(12, 3.0)]  # the last one is constant


def test_the_error_is_that_of_a_loop_with_ties():
    pits = RNG.uniform(size=200).round(1)
    assert pit_error(pits) == pytest.approx(np.mean([(p - np.mean(pits <= p)) ** 2 for p in pits]), abs=1e-15)


def test_uniform_values_have_the_error_of_chance_alone():
    errors = [6 * 500 * pit_error(RNG.uniform(size=500)) for _ in range(400)]
    assert abs(np.mean(errors) - 1) < 5 * np.std(errors) / math.sqrt(400)


def test_a_scene_with_its_own_curve_is_calibrated():
    pits = RNG.beta(0.5, 0.7, size=20_000)
    curve = pit_curve(pits, points=384)
    assert pit_error(pits) > 1e-3
    assert pit_error(map_by_curve(pits, curve, np.linspace(0, 1, 384))) < 5e-6
    assert np.array_equal(curve, np.sort(pits)[np.linspace(0, 19_999, 384).astype(int)])


def test_the_family_is_that_of_scikit_learn():
    family, pca = fit_family(CURVES, components=3), PCA(3).fit(CURVES)
    assert np.allclose(family.mean, pca.mean_)
    assert np.allclose(family.shares, pca.explained_variance_ratio_)
    assert np.allclose(np.abs(family.components @ pca.components_.T), np.eye(3), atol=1e-10)
    whole = fit_family(CURVES, components=11)
    assert np.allclose(project_curve(whole, CURVES), CURVES)  # monotone, and in the span


def test_monotone_is_isotonic_regression():
    tables = torch.from_numpy(RNG.normal(size=(5, 17)))
    for row, found in zip(tables.numpy(), monotone(tables).numpy(), strict=True):
        assert np.allclose(found, IsotonicRegression().fit_transform(np.arange(17), row))


def test_the_prediction_is_ridge_regression_of_scikit_learn():
    meta = fit_meta(CURVES, FEATURES, components=2, l2=0.7)
    scaled = (FEATURES - FEATURES.mean(0))[:, :4] / FEATURES.std(0)[:4]
    target = (CURVES - CURVES.mean(0)) @ meta.family.components.T
    ridge = Ridge(alpha=0.7, fit_intercept=False).fit(scaled, target)
    raw = CURVES.mean(0) + ridge.predict(scaled) @ meta.family.components
    assert np.allclose(predict_curves(meta, FEATURES), monotone(raw))


def test_a_hopeless_penalty_leaves_the_mean_curve():
    meta = fit_meta(CURVES, FEATURES, l2=1e12)
    assert np.allclose(predict_curves(meta, FEATURES + 5), CURVES.mean(0), atol=1e-8)


def test_the_order_of_tasks_and_examples_never_matters():
    order = RNG.permutation(12)
    first, second = (
        predict_curves(fit_meta(c, f), FEATURES) for c, f in ((CURVES, FEATURES), (CURVES[order], FEATURES[order]))
    )
    assert np.allclose(first, second)
    logits = RNG.normal(size=(50, 4))
    assert np.allclose(task_features(logits), task_features(logits[RNG.permutation(50)]))


def test_a_curve_of_hits_runs_through_the_blocks_of_isotonic_regression():
    sure, right = RNG.uniform(size=300).round(2), RNG.uniform(size=300) < 0.6
    fitted = IsotonicRegression().fit(sure, right).predict(sure)
    blocks = {value: sure[fitted == value].mean() for value in np.unique(fitted)}
    expected = np.interp([0.2, 0.5, 0.9], list(blocks.values()), list(blocks))
    assert np.allclose(hit_curve(sure, right, [0.2, 0.5, 0.9]), expected)


def test_each_row_says_what_the_curve_says_and_predicts_what_it_did():
    logits = 4 * RNG.normal(size=(500, 6))
    grid, curve = np.linspace(0, 1, 30), np.linspace(0, 1, 30) ** 2
    moved = logits_by_curve(logits, grid, curve)
    before, after = (np.exp(x - x.max(1, keepdims=True)) for x in (logits, moved))
    before, after = (1 / x.sum(1) for x in (before, after))
    assert np.allclose(after, np.clip(np.interp(before, grid, curve), 1 / 6 + 1e-4, 1 - 1e-4), atol=1e-6)
    assert np.array_equal(moved.argmax(1), logits.argmax(1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pit_error([0.5, 1.5]), r"pits must lie in \[0, 1\]; row 1 is 1.5"),
        (lambda: fit_family(CURVES, components=12), "components must be"),
        (lambda: fit_meta(CURVES, FEATURES[:5]), "features must have a row a task, 12; they have 5"),
        (lambda: fit_meta(CURVES, FEATURES, l2=0), "l2 must be"),
        (lambda: map_by_curve([0.5], [0.0, 1.0], [0.5]), "curve must have a value a point of the grid, 2; it has 1"),
        (lambda: map_by_curve([0.5], [1.0, 0.0], [0.5, 1.0]), "grid must be ascending"),
        (lambda: predict_curves(fit_meta(CURVES, FEATURES), FEATURES[:, :2]), "features"),
        (lambda: project_curve(CURVES, CURVES), "family"),
    ],
)
def test_what_cannot_be_is_named(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


def test_the_public_names_are_those_of_the_family():
    assert {"fit_meta", "pit_error", "logits_by_curve"} <= set(calibrate.__all__)


@pytest.mark.parametrize(
    "row", [[1e-5, 0.0], [1e5, 0.0], [4.0, 3.9], [0.0, -1e-9, -1.0, -1e9], [1e-200, 0.0], [3.0, 1.0, 0.0, -2.0]]
)
@pytest.mark.parametrize("asked", [0.3, 0.5, 0.9, 0.999])
def test_a_row_of_any_scale_says_what_is_asked(row, asked):
    moved = torch.from_numpy(logits_by_curve([row], [0.0, 1.0], [asked, asked])).softmax(-1).amax().item()
    assert moved == pytest.approx(max(asked, 1 / len(row) + 1e-4), abs=1e-9)


def test_ties_at_the_top_are_taken_as_far_as_they_go():
    logits = np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 2.0], [0.0, 5.0, 5.0]])
    moved = logits_by_curve(logits, [0.0, 1.0], [0.9, 0.9])
    assert torch.from_numpy(moved).softmax(-1).amax(-1).numpy() == pytest.approx([0.5 - 1e-4, 1 / 3, 0.5 - 1e-4])
    many = np.r_[np.zeros(99), -1.0][None]  # 99 of 100 are tied: it moves between 1 / 100 and 1 / 99
    assert torch.from_numpy(logits_by_curve(many, [0.0, 1.0], [0.9, 0.9])).softmax(-1).amax().item() < 1 / 99


def test_blocks_of_rows_change_no_answer(monkeypatch):
    logits, grid = RNG.normal(size=(30, 5)), [0.0, 0.5, 1.0]
    moved, rising = logits_by_curve(logits, grid, [0.2, 0.6, 0.9]), monotone(logits)
    monkeypatch.setattr(meta, "CHUNK", 7)
    assert np.allclose(logits_by_curve(logits, grid, [0.2, 0.6, 0.9]), moved, rtol=1e-12)
    assert np.array_equal(monotone(logits), rising)


def test_answers_are_of_the_kind_that_was_given():
    curves, features = torch.from_numpy(CURVES), torch.from_numpy(FEATURES)
    for c, f, kind in ((CURVES, FEATURES, np.ndarray), (curves, features, torch.Tensor)):
        fit = fit_meta(c, f, components=2)
        answers = (*fit[1:], *fit.family, *fit_family(c), predict_curves(fit, f), project_curve(fit.family, c))
        assert all(isinstance(each, kind) for each in (*answers, task_features(c), monotone(c)))
    mixed = fit_meta(CURVES, FEATURES, components=2)
    assert isinstance(predict_curves(mixed, features), torch.Tensor)


@pytest.mark.parametrize("curves", [[[0.0, 3.0, 1.0, 4.0]], [[0, 3, 1, 4]], np.array([[0.0, 3.0, 1.0, 4.0]])])
def test_monotone_takes_lists_and_whole_numbers(curves):
    assert monotone(curves).tolist() == [[0.0, 2.0, 2.0, 4.0]]


def test_monotone_names_what_it_refuses():
    with pytest.raises(ValueError, match=r"curves must have shape \(n, d\)"):
        monotone([0.0, 1.0])
    with pytest.raises(ValueError, match="curves must be finite; row 0, column 1 is nan"):
        monotone([[0.0, math.nan]])
    with pytest.raises(ValueError, match=r"curves must be at most 1e\+100"):
        fit_family(CURVES * 1e200)
