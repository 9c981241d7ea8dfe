import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uqlib.heads import HEADS, crossing, learning_curve, nested_rows, samples_to
from uqlib.metrics import nll

RNG = np.random.default_rng(0)
LABELS = np.arange(120) % 3
FEATURES = RNG.normal(size=(120, 5)) + 2 * RNG.normal(size=(3, 5))[LABELS]
SIZES = [1.0, 3.0, 10.0, 40.0]


def test_every_head_sees_the_same_nested_draws_of_each_class():
    seen = {"one": [], "other": []}

    def spy(name):
        def fit(x, y, asked, classes):
            seen[name].append((x.numpy(), y.numpy()))
            return torch.zeros(len(asked), classes)

        return fit

    heads = {name: spy(name) for name in seen}
    curve = learning_curve(FEATURES, LABELS, FEATURES, LABELS, heads, [2, 7, 40], draws=3)
    assert curve.shape == (2, 3, 3)
    for (x, y), (z, w) in zip(*seen.values(), strict=True):
        assert (x == z).all()
        assert (y == w).all()
    small, large = (seen["one"][3 * place] for place in (0, 1))
    assert np.bincount(small[1]).tolist() == [2, 2, 2]
    assert {tuple(row) for row in small[0]} <= {tuple(row) for row in large[0]}
    assert not np.array_equal(seen["one"][0][0], seen["one"][1][0])


@pytest.mark.parametrize("kind", [np.int64, np.int8, np.bool_, np.float16])
def test_test_features_keep_their_digits_beside_coarser_training_features(kind):
    """Truncated, 0.75 is 0; it is nearer to 1."""
    features, labels = np.array([[0], [0], [1], [1]]).astype(kind), [0, 0, 1, 1]
    asked = np.array([[0.75], [0.4999]])
    some = {"nearest class mean": HEADS["nearest class mean"]}
    assert learning_curve(features, labels, asked, [1, 0], some, [1, 2]).max() == 0
    seen = []

    def spy(x, y, asked, classes):
        seen.append((x.dtype, asked))
        return torch.zeros(2, 2)

    learning_curve(features, labels, asked, [1, 0], {"spy": spy}, [1], draws=1)
    assert seen[0][0] == torch.float64
    assert np.array_equal(seen[0][1].numpy(), asked)


def test_more_draws_begin_with_the_same_and_each_row_comes_first_as_often():
    few, many = (nested_rows(LABELS, draws=draws, seed=3) for draws in (2, 2000))
    assert all((a == b).all() for one, other in zip(few, many, strict=False) for a, b in zip(one, other, strict=True))
    first = np.bincount([order[1][0] for order in many], minlength=120)[LABELS == 1]
    assert first.sum() == 2000
    assert (np.abs(first - 50) < 5 * np.sqrt(50)).all()


def test_heads_learn_and_several_measures_stand_side_by_side():
    curve = learning_curve(
        FEATURES, LABELS, FEATURES, LABELS, HEADS, [2, 40], draws=1, measure=lambda z, y: (nll(z, y), 1.0)
    )
    assert curve.shape == (len(HEADS), 2, 1, 2)
    errors = learning_curve(FEATURES, LABELS, FEATURES, LABELS, HEADS, [2, 40], draws=3)
    assert (errors[:, 1].mean(-1) < errors[:, 0].mean(-1)).all()
    assert errors.max() < 2 / 3


@given(st.lists(st.integers(-4, 4), min_size=4, max_size=4))
@settings(max_examples=50)
def test_crossing_and_samples_are_those_of_a_fine_grid(values):
    place = np.sort([*np.linspace(np.log(SIZES[0]), np.log(SIZES[-1]), 20_001), *np.log(SIZES)])
    line = np.interp(place, np.log(SIZES), values)
    reached = np.flatnonzero(line <= 1e-9)
    wanted = np.exp(place[reached[0]]) if len(reached) else np.inf
    assert float(samples_to(values, SIZES, level=0)) == pytest.approx(wanted, rel=1e-2)
    leads = np.flatnonzero(line < -1e-3)
    end = 0.0 if not len(leads) else np.inf if values[-1] < 0 else np.exp(place[leads[-1]])
    assert float(crossing(values, [0] * 4, SIZES)) == pytest.approx(end, rel=1e-2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: learning_curve(FEATURES, LABELS, FEATURES, LABELS, HEADS, [41]), "at most the 40 of the smallest class"),
        (lambda: learning_curve(FEATURES, LABELS, FEATURES, LABELS, HEADS, []), "sizes is empty"),
        (lambda: learning_curve(FEATURES, LABELS, FEATURES, LABELS, {}, [1]), "heads must be a mapping"),
        (lambda: learning_curve(FEATURES, LABELS, FEATURES[:, :2], LABELS, HEADS, [1]), "test_features must have width 5"),
        (lambda: crossing([[0.1], [0.2]], [[0.1]], [1]), "first and second must have one shape"),
        (lambda: samples_to([0.1, 0.2], [2, 1], level=0.1), "sizes must ascend"),
        (lambda: samples_to([0.1, 0.2], [1, 2, 3], level=0.1), "errors must have shape"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_heads_without_names_are_refused(unchecked):
    with pytest.raises(ValueError, match="heads must be a mapping of names"):
        learning_curve(FEATURES, LABELS, FEATURES, LABELS, list(HEADS.values()), [1])
