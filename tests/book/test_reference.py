"""The reference: what a borrower uses first has an example, every example prints what it says, every function has a page."""

import doctest
import importlib
import inspect
import pkgutil

import numpy as np
import pytest

import uqlib
from uqlib.book import house

BORROWED = (
    "metrics",
    "calibrate",
    "combine",
    "difficulty",
    "label_noise",
    "imbalance",
    "uncertainty",
    "heads",
)  # families in which every function has an example
WITHOUT = {
    "fit_class_temperatures", "cross_platt",  # as the ones for a single number, on more rows than an example should have
    "repeat_duo", "repeat_ensembles", "refuse_constant", "duo_logits", "unweighted", "uq_only", "softmax_average", "relative_weighting",
    "fit_dynamic_duo", "dynamic_duo", "dynamic_logits", "dynamic_temperatures", "choose_l2",  # on the page Reuse it, or need features
    "uniform_soup", "greedy_soup", "reestimate_batch_norm",  # need networks
    "aurc_fd_shifts", "aurc_of_trapezoids", "aurc_trapezoid", "rms_calibration_error", "correctness_aupr", "operating_point", "roc_curve",
    "selective_accuracy_at_coverage", "nll_each", "brier_each", "resample", "resample_difference",  # beside one that has
    "ledoit_wolf", "moments_of", "merge_moments", "distances", "agnostic_mahalanobis", "nearest_relative_mahalanobis", "kmeans_distance",
    "available_heads", "load_head", "load_uncertainty", "save_head", "joint_step",  # need files or images
    "smote",  # needs images
    "bag_classifiers", "bagged_spread", "dropout_spread", "fit_heteroscedastic", "heteroscedastic_variance",  # need a classifier
}  # fmt: skip
MODULES = [
    each.name
    for each in pkgutil.walk_packages(uqlib.__path__, "uqlib.")
    if ">>>" in importlib.import_module(each.name).__loader__.get_source(each.name)
]


@pytest.mark.parametrize("family", BORROWED)
def test_every_function_that_a_borrower_uses_first_has_an_example(family):
    module = importlib.import_module(f"uqlib.{family}")
    public = {name for name in module.__all__ if inspect.isfunction(getattr(module, name))}
    assert {name for name in public if ">>>" not in getattr(module, name).__doc__} <= WITHOUT
    assert not {name for name in WITHOUT & public if ">>>" in getattr(module, name).__doc__}


def test_there_is_an_example_for_most():
    borrowed = [name for name in MODULES if name.split(".")[1] in BORROWED]
    sources = [importlib.import_module(name).__loader__.get_source(name) for name in borrowed]
    assert sum(source.count("\n    Examples:\n") for source in sources) > 50


@pytest.mark.parametrize("name", MODULES)
def test_every_example_prints_what_it_says(name, unchecked):
    with np.printoptions(legacy=False):
        done = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert not done.failed


def test_the_pages_of_the_api_show_every_file_once_and_link_its_functions(repository):
    pages = house.api_pages(repository / "uqlib")
    shown = "\n".join(pages[f"api/{family}"] for family in house.API)
    for module in pkgutil.walk_packages(uqlib.__path__, "uqlib."):
        if not module.ispkg and module.name.split(".")[1] not in ("commands", "cli"):
            assert shown.count(f".. automodule:: {module.name}\n") == 1, module.name
    assert "{py:obj}`aurc <uqlib.metrics.selective.aurc>`" in pages["api/metrics"]
    assert "aurc_from_counts" not in pages["api/metrics"]  # for the library's own use
    assert all(f"(results/api/{family}.md)" in pages["api"] for family in house.API)


def test_every_page_of_the_api_is_in_the_book(repository):
    contents = (repository / "book/_toc.yml").read_text()
    assert all(f"file: results/api/{family}\n" in contents for family in house.API)
