"""Pooled splits, the jackknife over networks, and units as trainings."""

from itertools import permutations

import numpy as np
import xarray as xr

from uqlib.metrics.compare import cells, over_trainings, together
from uqlib.metrics.resampling.repetitions import as_trainings, other_networks, pool_splits


def test_the_jackknife_is_that_of_a_loop_over_networks_that_are_left_out():
    rng, names = np.random.default_rng(1), list("abcd")
    table = rng.normal(size=(4, 4, 3))
    table[range(4), range(4)] = np.nan
    found = other_networks(xr.DataArray(table, {"first": names, "second": names, "draw": range(3)}))
    for left in range(4):
        kept = [table[i, j] for i, j in permutations(range(4), 2) if left not in (i, j)]
        assert np.allclose(found[left], 4 * np.nanmean(table, (0, 1)) - 3 * np.mean(kept, 0))
    assert np.allclose(found.mean("training"), np.nanmean(table, (0, 1)))


def test_what_an_interval_over_networks_covers_stays_with_what_is_computed_from_it():
    rng, names = np.random.default_rng(2), list("abc")
    table = rng.normal(size=(2, 3, 3, 5))
    table[:, range(3), range(3)] = np.nan
    pairs = xr.DataArray(table, {"variant": ["x", "y"], "first": names, "second": names, "draw": range(5)})
    one, other = other_networks(pairs), other_networks(pairs, covers="examples, trainings")
    assert set(cells(one)["covers"]) == {"examples, trainings, networks"}
    less = one.sel(variant="x", drop=True) - one.sel(variant="y", drop=True)
    assert set(cells(less)["covers"]) == {"examples, trainings, networks"}
    both = -2 * together({"deep": one, "alike": other}, "place")
    found = cells(both.sel(variant=["y"]).transpose("draw", "variant", "training", "place")).set_index("place")[
        "covers"
    ]
    assert found.to_dict() == {"deep": "examples, trainings, networks", "alike": "examples, trainings"}
    assert set(cells(one.isel(training=[0]))["covers"]) == {"examples"}
    assert set(cells(one.mean("training"))["covers"]) == {"examples"}


def test_pooled_draws_are_those_of_all_splits():
    table = np.arange(24.0).reshape(2, 3, 4)
    scores = xr.DataArray(table, {"variant": ["a", "b"], "split": range(3), "draw": range(4)})
    for each in (scores, scores.transpose("draw", "split", "variant")):
        pooled = pool_splits(each).sel(variant="a")
        assert pooled.values.tolist() == [4.0, 1, 2, 3, 5, 6, 7, 9, 10, 11]
        assert pooled["draw"].values.tolist() == list(range(10))


def test_pooled_splits_know_no_splits_any_more():
    scores = xr.DataArray(np.ones((2, 3)), {"split": [5, 6], "draw": range(3)})
    assert pool_splits(scores).dims == ("draw",)
    assert set(pool_splits(scores).coords) == {"draw"}
    assert cells(pool_splits(scores))["value"].tolist() == [1.0]


def test_units_are_repetitions_with_draws_or_without():
    scores = xr.DataArray([[1.0, 2.0], [3.0, 6.0]], {"group": ["snow", "fog"], "variant": ["a", "b"]})
    found = over_trainings(as_trainings(scores, "group"), "groups").set_index("variant")
    assert found["value"].to_dict() == {"a": 2.0, "b": 4.0}
    assert found["seeds"].tolist() == [2, 2]
    assert found["covers"].tolist() == ["groups", "groups"]
    assert found.loc["a", "low"] < 1  # Student's interval of two is wide
    drawn = as_trainings(scores.expand_dims(draw=3), "group")
    assert drawn.sizes == {"draw": 3, "training": 2, "variant": 2}
