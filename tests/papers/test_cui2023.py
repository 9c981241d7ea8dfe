"""What is alone of Cui et al. 2023: the options of its baselines make losses, and the trainings of the book have them."""

import tomllib

import pytest
import torch

from uqlib.losses import loss
from uqlib.papers.cui2023 import LOSS_OPTIONS


def make_loss(name, **options):
    """A loss of any name, with what it needs beside options."""
    needed = {"ranking": {"examples": 10}, "difficulty": {"weights": torch.full((10,), 0.5)}}
    return loss(name, **needed.get(name, {}), **options)


@pytest.mark.parametrize("dataset", LOSS_OPTIONS)
def test_published_options_make_losses(dataset):
    for name, options in LOSS_OPTIONS[dataset].items():
        make_loss(name, **options)


@pytest.mark.parametrize("dataset", ["cifar10", "cifar100"])
def test_the_baselines_of_the_book_have_the_published_options(repository, dataset):
    studies = tomllib.loads((repository / "data/trainings/cui2023.toml").read_text())["study"]
    [variants] = [each["variant"] for each in studies if each["name"] == dataset and each["scale"] == "cpu"]
    options = {each["name"]: each.get("options", {}) for each in variants}
    for name, published in LOSS_OPTIONS[dataset].items():
        assert str(make_loss(name, **options[name])) == str(make_loss(name, **published))
