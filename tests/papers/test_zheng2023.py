"""The simulation of Zheng et al. 2023: its closed form, and the shape of what is kept of the runs."""

import numpy as np
import pytest
from scipy.stats import norm

from uqlib.experiments.short import zheng2023_runs
from uqlib.experiments.short.frozen_features import ENCODERS
from uqlib.heads import feature_sums, log_posteriors, naive_bayes
from uqlib.papers.zheng2023 import bayes_error_of_two, gaussian_design


@pytest.mark.parametrize("dim", [2, 4, 10])
def test_naive_bayes_of_many_examples_errs_as_bayes(dim):
    assert bayes_error_of_two(dim) == pytest.approx(norm.cdf(-np.sqrt((dim + 1) / 2)), rel=1e-12)
    features, labels = gaussian_design(2, dim, 200_000, seed=0)
    asked, truth = gaussian_design(2, dim, 200_000, seed=1)
    head = naive_bayes(feature_sums(features, labels, classes=2))
    error = (log_posteriors(head, asked).argmax(-1) != truth).mean()
    assert error == pytest.approx(bayes_error_of_two(dim), abs=4 * np.sqrt(bayes_error_of_two(dim) / 200_000))


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
