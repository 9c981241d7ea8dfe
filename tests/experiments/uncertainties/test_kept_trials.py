"""Kept trials as labelled arrays: names in print, what has no trainings repeated, epochs in their places."""

import json

import numpy as np
import pytest

from uqlib.experiments.uncertainties import kept_trials
from uqlib.files.columns import write_table

SETS, DRAWS = ("tiny_imagenet", "cifar10"), 3


@pytest.fixture
def columns(tmp_path, monkeypatch):
    """Two backbones' files in a checkout, and what was written of each."""
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    generator, found = np.random.default_rng(0), {}
    for name in ("mobilenetv1_050", "mobilenetv1_025"):
        own = {
            f"r_auroc/{s}/{v}": generator.random((runs, 1 + DRAWS), np.float32)
            for s in SETS for v, runs in (("head", 2), ("entropy", 1))
        }  # fmt: skip
        own |= {f"epochs/{goal}": generator.random((2, 4, 2), np.float32) for goal in ("ranking", "regression")}
        path = tmp_path / kept_trials.PLACE.format(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_table(path, own, {"about": json.dumps({"rests_on": {"seeds": 2}})})
        found[name] = own
    return found


def test_scores_of_several_backbones_bear_the_names_in_print(columns):
    scores = kept_trials.load_scores(list(columns), variants=["head", "entropy"])
    assert scores.sizes == {"backbone": 2, "set": 2, "variant": 2, "training": 2, "draw": 1 + DRAWS}
    small = scores.sel(backbone="MobileNet 0.25", set="CIFAR-10")
    own = columns["mobilenetv1_025"]
    assert small.sel(variant="head").values == pytest.approx(own["r_auroc/cifar10/head"])
    for training in (0, 1):  # entropy has no trainings
        found = small.sel(variant="entropy", training=training)
        assert found.values == pytest.approx(own["r_auroc/cifar10/entropy"][0])


def test_epochs_are_by_objective_and_place(columns):
    found = kept_trials.load_trials("mobilenetv1_050").epochs()
    one = found.sel(objective="regression", where=kept_trials.MEAN, epoch=4, training=1).item()
    assert one == pytest.approx(columns["mobilenetv1_050"]["epochs/regression"][1, 3, 1])
