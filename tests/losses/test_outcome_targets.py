"""Targets of CaPE against their limits and a brute force over pairs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uqlib.losses import cape_targets

RNG = np.random.default_rng(0)
SCORES, OUTCOMES = RNG.permutation(60) / 64, RNG.random(60) < 0.3
TIED = st.lists(st.tuples(st.sampled_from([0.25, 0.5, 0.75]), st.booleans()), min_size=2, max_size=9)


def test_one_group_gives_the_share_of_ones_and_a_group_each_the_outcomes():
    np.testing.assert_allclose(cape_targets(SCORES, OUTCOMES, groups=1), OUTCOMES.mean(), rtol=1e-15)
    np.testing.assert_array_equal(cape_targets(SCORES, OUTCOMES, groups=60), OUTCOMES)


def test_a_wide_kernel_gives_the_share_of_ones_and_none_the_outcomes():
    np.testing.assert_allclose(cape_targets(SCORES, OUTCOMES, by="kernel", width=1e6, reach=60), OUTCOMES.mean())
    np.testing.assert_array_equal(cape_targets(SCORES, OUTCOMES, by="kernel", reach=0), OUTCOMES)
    np.testing.assert_array_equal(cape_targets(SCORES, OUTCOMES, by="kernel", width=1e-9), OUTCOMES)


def test_groups_are_those_that_numpy_cuts():
    order, expected = np.argsort(SCORES), np.empty(60)
    for group in np.split(order, 5):
        expected[group] = OUTCOMES[group].mean()
    np.testing.assert_allclose(cape_targets(SCORES, OUTCOMES), expected, rtol=1e-14)


@pytest.mark.parametrize("reach", [1, 7, 200])
def test_the_kernel_is_a_mean_over_neighbours_in_the_order_of_scores(reach):
    place = np.argsort(np.argsort(SCORES))
    near = np.abs(place[:, None] - place) <= reach
    weight = near * np.exp(-0.5 * ((SCORES[:, None] - SCORES) / 0.05) ** 2)
    found = cape_targets(SCORES, OUTCOMES, by="kernel", reach=reach)
    np.testing.assert_allclose(found, weight @ OUTCOMES / weight.sum(1), rtol=1e-13)


@given(TIED, st.sampled_from(["bins", "kernel"]), st.randoms())
def test_ties_share_whatever_the_order_of_the_rows(rows, by, random):
    options = {"by": by, "groups": 2, "reach": 1}
    mixed = random.sample(range(len(rows)), len(rows))
    scores, outcomes = (np.array(each) for each in zip(*rows, strict=True))
    found = cape_targets(scores, outcomes, **options)
    np.testing.assert_allclose(cape_targets(scores[mixed], outcomes[mixed], **options), found[mixed], atol=1e-12)
    for score in set(scores):
        assert np.ptp(found[scores == score]) < 1e-12
    if by == "bins":
        assert found.mean() == pytest.approx(outcomes.mean())  # every outcome counts once


def test_true_probabilities_as_scores_give_targets_near_them():
    truth = RNG.random(50_000)
    found = cape_targets(truth, RNG.random(50_000) < truth, groups=50)
    error = np.abs(found - truth)
    assert error.max() < 0.02 + 5 * (0.25 / 1000) ** 0.5  # the width of a group, and the noise of its mean


def test_torch_in_torch_out():
    found = cape_targets(torch.tensor(SCORES, dtype=torch.float32), torch.tensor(OUTCOMES))
    assert isinstance(found, torch.Tensor)
    assert found.dtype == torch.float64


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scores": [0.5, 1.5]}, r"scores must lie in \[0, 1\]; row 1 is 1.5"),
        ({"outcomes": [0, 2]}, "outcomes must be true or false; row 1 is 2"),
        ({"outcomes": [0, 1, 1]}, "outcomes has 3 rows where 2 are expected"),
        ({"groups": 3}, "groups must be a whole number of at least 1 and of at most 2; it is 3"),
        ({"by": "kernel", "width": 0}, "width must be .*above 0"),
        ({"by": "gauss"}, "unknown kind of target 'gauss'; choose from bins, kernel"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        cape_targets(**{"scores": [0.5, 0.25], "outcomes": [0, 1], "groups": 2} | change)
