"""The simulation of Zheng et al. 2023: its closed form, and the shape of what is kept of the runs."""

import re

import numpy as np
import pytest
import xarray as xr
from scipy.stats import norm

from uqlib.experiments.short import zheng2023_runs
from uqlib.experiments.short.frozen_features import ENCODERS
from uqlib.papers.zheng2023 import bayes_error, gaussian_design


@pytest.mark.parametrize("dim", [2, 4, 10, 50])
def test_of_two_classes_bayes_errs_by_the_closed_form(dim):
    assert bayes_error(2, dim) == pytest.approx(norm.cdf(-np.sqrt((dim + 1) / 2)), rel=1e-12)


@pytest.mark.parametrize(("classes", "dim"), [(2, 4), (2, 5), (3, 2), (3, 50), (4, 7), (5, 10), (7, 4)])
def test_the_true_densities_err_as_bayes(classes, dim):
    asked, truth = gaussian_design(classes, dim, 100_000, seed=1)
    shift = 2.0 ** (classes - 3) if classes > 2 else 0.0
    asked = asked * (shift or 1.0) + shift  # as they were drawn
    variance = np.where(np.arange(dim) < dim // 2, dim, 1.0)
    means = [-1.0, *(2.0**k for k in range(classes - 1))]
    odds = np.stack([-((asked - mean) ** 2 / variance).sum(1) for mean in means], 1)
    expected = bayes_error(classes, dim)
    error = (odds.argmax(1) != truth).mean()
    assert error == pytest.approx(expected, abs=4 * np.sqrt(expected * (1 - expected) / len(truth)))


def test_samples_are_counted_from_the_error_of_bayes(monkeypatch):
    """Five classes in ten dimensions: Bayes itself errs more than `excess`, so a level without it is never reached."""
    assert bayes_error(5, 10) > 5 * zheng2023_runs.SIMULATED["excess"]
    assert zheng2023_runs.samples_needed("naive Bayes", 5, 10, 0) < 300
    monkeypatch.setattr(zheng2023_runs, "bayes_error", lambda *_: 0.0)
    assert zheng2023_runs.samples_needed("naive Bayes", 5, 10, 0) == np.inf


def curves(lower: list[list[int]], tested: list[list[float]]) -> xr.DataArray:
    """Errors of both heads of one encoder: naive Bayes, where it leads (draw, size) less by a tenth, and as they are tested."""
    other = np.full_like(tested, 0.5)
    names = {"head": ["naive Bayes", "logistic regression"], "training": [0, 1], "size": [2, 5, 10]}
    return xr.DataArray(np.stack([other - 0.1 * np.array(lower) + tested, other]), names).expand_dims(encoder=["a"])


def test_a_lead_is_counted_at_every_size_and_not_up_to_one():
    """Behind at two images a class, ahead at five: that a crossing lies at eight does not say that it led up to there."""
    none = [[0.1, 0, 0.1], [0.1, 0, 0]]
    found = zheng2023_runs.leads({"CIFAR-10": curves([[0, 1, 0], [0, 1, 1]], none)})
    assert found.index.name  # a column without a head cannot be read aloud
    assert found.loc["CIFAR-10, a"].to_dict() == {"2": 0, "5": 2, "10": 1}


def test_the_best_size_is_chosen_by_other_draws():
    less = xr.DataArray([[-3.0, 0.0, -9.0], [0.0, -1.0, -9.0]], {"training": [0, 1], "size": [2, 5, 10]})
    assert zheng2023_runs.at_best_size(less).values.tolist() == [0.0, 0.0]  # its own lowest would be -3 and -1
    generator = np.random.Generator(np.random.PCG64(0))
    noise = xr.DataArray(generator.normal(size=(2000, 5, 6)), dims=("set", "training", "size"))
    chosen = zheng2023_runs.at_best_size(noise).mean()
    assert abs(chosen) < 4 / np.sqrt(2000 * 2)  # nothing is better, and no size looks so
    assert noise.isel(size=slice(None, -1)).min("size").mean() < -1


def test_the_classes_lie_where_the_design_says():
    features, labels = gaussian_design(3, 4, 300_000, seed=0)
    means = np.stack([features[labels == k].mean(0) for k in range(3)])
    np.testing.assert_allclose(means, np.outer([-2, 0, 1], np.ones(4)), atol=0.04)
    np.testing.assert_allclose(features[labels == 1].var(0), [4, 4, 1, 1], rtol=0.03)


@pytest.mark.parametrize(("dim", "most"), [(20, 40), (60, 30)])
def test_naive_bayes_needs_few_samples_in_its_own_design(dim, most):
    assert zheng2023_runs.samples_needed("naive Bayes", 2, dim, 0) <= most


def test_what_is_kept_has_every_head_size_and_draw():
    curves = zheng2023_runs.read_curves()
    for dataset, sizes in zheng2023_runs.SIZES.items():
        found = curves[dataset]
        assert found.sizes["training"] == zheng2023_runs.DRAWS
        assert found["size"].values.tolist() == sizes
        assert set(found["encoder"].values) == set(ENCODERS.values())
        error = found.sel(measure="error").mean("training")
        assert not np.isnan(error).any()
        assert (error.isel(size=-1) < error.isel(size=0)).all()
    needed = zheng2023_runs.read_needed()
    assert needed.sizes["training"] == zheng2023_runs.DRAWS
    assert (needed >= 4).all()


def test_the_seed_draws_and_odd_numbers_are_named():
    one, other = (gaussian_design(2, 4, 10, seed=seed)[0] for seed in (0, 1))
    assert not np.array_equal(one, other)
    assert np.array_equal(one, gaussian_design(2, 4, 10, seed=0)[0])
    with pytest.raises(ValueError, match="classes must be"):
        gaussian_design(1, 4, 10, seed=0)
    with pytest.raises(ValueError, match="classes must be"):
        bayes_error(21, 4)


def test_what_one_takes_home_runs(repository):
    page = (repository / "book/zheng2023/index.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    exec(compile(code, "index.md", "exec"), {})
