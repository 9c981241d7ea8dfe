"""What is kept of the one backbone that was told of: its arrays have names, and hold the columns as they were written."""

import json

import numpy as np
import pytest

from uqlib.experiments.keeping import kept_columns
from uqlib.experiments.uncertainties import kept_trials
from uqlib.experiments.uncertainties.upstream_features import BACKBONES, TOLD
from uqlib.files.columns import write_table

STRENGTHS = [0.25, 0.5]


@pytest.fixture
def kept(tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    columns = {
        "people/entropy": generator.random((1, 3, 5), np.float32),
        "people/head": generator.random((2, 3, 5), np.float32),
        "safe/pets/entropy": generator.random((1, 2, 4, 5), np.float32),
        "safe/pets/head": generator.random((2, 2, 4, 5), np.float32),
        "safe/pets/random": generator.random((1, 2, 4, 5), np.float32),
        "damaged/blur": generator.random((2, 3, 6)).astype(np.float16),
        "damaged/crop": generator.random((2, 3, 6)).astype(np.float16),
    }
    about = {"rests_on": {"strengths": STRENGTHS}, "classes": {"pets": ["cat", "dog"]}}
    write_table(tmp_path / f"{TOLD}.safetensors", columns, {"about": json.dumps(about)})
    monkeypatch.setattr(kept_columns, "in_checkout", lambda place: tmp_path / place.rpartition("/")[2])
    return kept_trials.load_trials(), columns


def test_the_one_that_is_told_of_comes_where_nobody_names_another(kept):
    assert kept[0].backbone == TOLD
    assert TOLD in BACKBONES


def test_people_and_retrievals_by_score_and_training(kept):
    trials, columns = kept
    people, safe = trials.people(), trials.safe("pets")
    for k in (0, 1):
        one = dict(variant="head", training=k)
        np.testing.assert_array_equal(people.sel(number="mistaken", **one), columns["people/head"][k, 2])
        np.testing.assert_array_equal(
            safe.sel(rule="all", removed="queries", **one), columns["safe/pets/head"][k, 1, 2]
        )
        entropy = people.sel(variant="entropy", number="ambiguous", training=k)
        np.testing.assert_array_equal(entropy, columns["people/entropy"][0, 0])
    by_chance = safe.sel(variant="random", rule="class", removed="both", training=1)
    np.testing.assert_allclose(by_chance, columns["safe/pets/random"][0, 0, 3])


def test_damage_by_kind_and_strength_the_whole_image_first(kept):
    trials, columns = kept
    damaged = trials.damaged()
    assert list(damaged.strength.values) == [0.0, *STRENGTHS]
    np.testing.assert_array_equal(
        damaged.sel(kind="crop", strength=0.5, training=1), columns["damaged/crop"][1, 2].astype(float)
    )


def test_classes_are_called_by_their_numbers(kept):
    assert kept[0].class_names("pets")[np.array([1, 0, 1])].tolist() == ["dog", "cat", "dog"]
