"""Random arrays, and numbers where arrays belong: every method answers with numbers, or with an error that names its argument.

UQLIB_FUZZ sets how many cases a function gets.
"""

import inspect
import math
import os
import re
import warnings
from dataclasses import fields, is_dataclass

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from uqlib import difficulty, losses
from uqlib.base import splits
from uqlib.bayes import laplace
from uqlib.combine import duos, dynamic, soups
from uqlib.metrics import tasks
from uqlib.networks import linear_heads
from uqlib.papers import zhou2025
from uqlib.report import explorer

CASES = int(os.environ.get("UQLIB_FUZZ", "12"))
fuzz = settings(max_examples=CASES, deadline=None, database=None, suppress_health_check=list(HealthCheck))

N, C, D = 36, 3, 2
RNG = np.random.default_rng(0)
LABELS = np.arange(N) % C
LOGITS, SMALL = (RNG.normal(size=(N, C)) + each * np.eye(C)[LABELS] for each in (1.5, 1.2))
FEATURES, OTHER = RNG.normal(size=(N, D)) + np.eye(C)[LABELS][:, :D], RNG.normal(size=(N, D))
GOOD = {
    "logits": LOGITS, "large": LOGITS, "small": SMALL, "large_logits": LOGITS, "small_logits": SMALL,
    "member_logits": [LOGITS, SMALL], "labels": LABELS, "features": FEATURES, "large_features": FEATURES,
    "small_features": OTHER, "weight": RNG.normal(size=(C, D)), "bias": RNG.normal(size=C), "difficulty": RNG.normal(size=N),
    "confidence": RNG.normal(size=N), "confidence_in": RNG.normal(size=N), "confidence_out": RNG.normal(size=N),
    "wrong": LABELS == 0, "weights": RNG.random(N), "fit": np.arange(9), "test": np.arange(9, 20), "scores": [0.2, 0.1],
}  # fmt: skip
DUO = duos.fit_duo(LOGITS, SMALL, LABELS)
DYNAMIC = dynamic.fit_dynamic_duo(LOGITS, SMALL, FEATURES, OTHER, LABELS, iterations=2)
MOMENTS = difficulty.moments(FEATURES, LABELS, classes=C)
GAUSSIANS = difficulty.fit_gaussians(MOMENTS)
HEAD = linear_heads.fit_head(FEATURES, LABELS, iterations=5)
STATES = [{"w": torch.ones(2)}, {"w": torch.zeros(2)}]

# name: function, the arguments that are no arrays. "correct" is a mask here, and a table for `forgetting`.
CALLS = {
    "surprise": (losses.surprise, {}),
    "entropy_of": (losses.entropy_of, {}),
    "losses.difficulty": (losses.difficulty, {"alpha": 0.5}),
    "fit_head": (linear_heads.fit_head, {"iterations": 3, "l2": 0.1}),
    "head_logits": (linear_heads.head_logits, {"head": HEAD}),
    "moments": (difficulty.moments, {"classes": C}),
    "ledoit_wolf": (difficulty.ledoit_wolf, {"moments": MOMENTS}),
    "mahalanobis": (difficulty.mahalanobis, {"gaussians": GAUSSIANS}),
    "relative_mahalanobis": (difficulty.relative_mahalanobis, {"gaussians": GAUSSIANS}),
    "nearest_relative_mahalanobis": (difficulty.nearest_relative_mahalanobis, {"gaussians": GAUSSIANS}),
    "distances": (difficulty.distances, {"gaussians": GAUSSIANS}),
    "kmeans_distance": (difficulty.kmeans_distance, {"clusters": 2}),
    "training_loss": (difficulty.training_loss, {}),
    "forgetting": (difficulty.forgetting, {"correct": np.tile(LABELS > 0, (3, 1))}),
    **{f"normalised {name}": (difficulty.normalise, {"normaliser": name, "dimensions": D}) for name in difficulty.NORMALISERS},
    "weights": (difficulty.weights, {"temperature": 0.7, "c": 0.001}),
    "misclassified": (tasks.misclassified, {"correct": LABELS > 0}),
    "out_of_distribution": (tasks.out_of_distribution, {}),
    "mislabelled": (tasks.mislabelled, {}),
    "fit_duo": (duos.fit_duo, {}),
    "fit_weights": (duos.fit_weights, {}),
    "ensemble_probs": (duos.ensemble_probs, {"average": "logits"}),
    "decide": (duos.decide, {"name": "ours", "fit": DUO}),
    "softmax_average": (duos.softmax_average, {"fit": DUO}),
    "fit_dynamic_duo": (dynamic.fit_dynamic_duo, {"iterations": 2, "l2": 0.1}),
    "dynamic_duo": (dynamic.dynamic_duo, {"fit": DYNAMIC}),
    "fit_duo_zhou2025": (zhou2025.fit_duo_zhou2025, {"taus": (0.5, 1.0), "steps": 2}),
    "last_layer_laplace": (laplace.last_layer_laplace, {"prior_precision": 1.0}),
    "greedy_soup": (soups.greedy_soup, {"states": STATES, "evaluate": lambda state: 1.0}),
    "check_disjoint": (splits.check_disjoint, {}),
    "difficulty_explorer": (explorer.difficulty_explorer, {"classes": C, "name": "x"}),
    "duo_explorer": (explorer.duo_explorer, {"fits": [DUO], "names": ("a", "b"), "seed": 0}),
}  # fmt: skip

NUMBERS = st.one_of(
    st.integers(-3, 5),
    st.floats(-9, 9),
    st.sampled_from(
        [math.nan, math.inf, -math.inf, 1e308, -1e308, 1e-308, 5e-324, 1e30, -100, 255, 2**53 + 1, 0.0, -0.0]
    ),
)
DTYPES = ["f8", "f4", "f2", "i8", "i1", "u1", "u2", "u8", "?", ">f4", "O"]
TURNS = {
    "as it is": lambda x: x,
    "list": np.ndarray.tolist,
    "tuple": lambda x: tuple(x.tolist()),
    "tensor": torch.tensor,
    "half": lambda x: torch.tensor(x).half(),
    "bfloat16": lambda x: torch.tensor(x).bfloat16(),
    "gradient": lambda x: torch.tensor(x).double().requires_grad_(),
    "transposed": lambda x: x.T,
    "twice": lambda x: np.repeat(x, 2, 0),
    "column": lambda x: x[..., None],
    "masked": np.ma.array,
    "frame": lambda x: pd.DataFrame(x) if x.ndim == 2 else pd.Series(x),
    "first": lambda x: x[:1],
    "none of it": lambda x: x[:0],
}


@st.composite
def arrays(draw, good):
    """The good value in a kind, in a unit or with entries changed; or anything of some shape, a number, text or nothing."""
    what = draw(st.sampled_from(["good", "good", "unit", "entries", "anything", "no array"]))
    if what == "no array":
        return draw(st.one_of(st.none(), st.booleans(), st.text(max_size=3), NUMBERS, st.just([]), st.just({})))
    value = np.asarray(good)
    if what == "anything":
        shape = draw(st.lists(st.sampled_from([0, 1, 2, C, N]), max_size=3))
        value = np.resize(draw(st.lists(NUMBERS, min_size=1, max_size=5)), shape)
    elif what == "unit":
        value = value.astype(float) * draw(st.sampled_from([0.0, -1.0, 1e-320, 1e-200, 1e-30, 1e20, 1e60, 1e200]))
    elif what == "entries":
        value = value.astype(float)
        value.flat[draw(st.integers(0, value.size - 1))] = draw(NUMBERS)
    with np.errstate(all="ignore"):
        value = value.astype(draw(st.sampled_from([value.dtype.str, value.dtype.str, *DTYPES])))
    try:
        return TURNS[draw(st.sampled_from(sorted(TURNS)))](value)
    except (TypeError, ValueError, RuntimeError, IndexError, OverflowError):  # there is no such kind of it
        return value


def numbers(answer):
    """All numbers of an answer; standard errors may be NaN and the states of a soup have their own tests."""
    if isinstance(answer, torch.Tensor | np.ndarray | float | int):
        return [torch.as_tensor(answer).double().flatten()]
    if isinstance(answer, tuple) and hasattr(answer, "_asdict"):
        answer = [each for name, each in answer._asdict().items() if name not in ("standard_errors", "state")]
    if is_dataclass(answer):
        answer = [getattr(answer, field.name) for field in fields(answer)]
    return [part for each in answer for part in numbers(each)] if isinstance(answer, list | tuple) else []


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", CALLS)
@fuzz
@given(st.data())
def test_whatever_comes_the_answer_is_a_number_or_an_error_by_name(name, data):
    function, fixed = CALLS[name]
    values = {p: fixed.get(p, GOOD.get(p)) for p in inspect.signature(function).parameters if p in fixed or p in GOOD}
    varied = sorted(p for p in values if p not in fixed or p == "correct")
    for argument in data.draw(st.lists(st.sampled_from(varied), min_size=1, max_size=2, unique=True)):
        values[argument] = data.draw(arrays(values[argument]), argument)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            answer = function(**values)
    except (TypeError, ValueError) as error:
        said = str(error)
        assert any(re.search(rf"\b{argument}\b", said) for argument in values), said
    else:
        assert not any(part.isnan().any() for part in numbers(answer)), answer


@pytest.mark.usefixtures("unchecked")
@fuzz
@given(st.data())
def test_right_values_are_those_of_scipy(data):
    """Finite logits of any size and any integer labels."""
    n, c = data.draw(st.integers(1, 5)), data.draw(st.integers(2, 4))
    logits = np.array(data.draw(st.lists(st.floats(-1e6, 1e6), min_size=n * c, max_size=n * c))).reshape(n, c)
    labels = np.array(data.draw(st.lists(st.integers(0, c - 1), min_size=n, max_size=n)))
    labels = labels.astype(data.draw(st.sampled_from(["u1", "u2", "u4", "u8", "i1", "i8"])))
    logp, rows = log_softmax(logits, -1), np.arange(n)
    np.testing.assert_allclose(losses.surprise(logits, labels), -logp[rows, labels.astype(int)], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(losses.entropy_of(logits), -(np.exp(logp) * logp).sum(-1), rtol=1e-9, atol=1e-9)
    if (logits < 0).any():  # else they may be taken for probabilities
        found = duos.ensemble_probs([logits, logits / 2], average="logits")
        np.testing.assert_allclose(found, softmax(0.75 * logits, -1), rtol=1e-6, atol=1e-9)


@fuzz
@given(st.lists(st.floats(-1e308, 1e308), min_size=2, max_size=6))
def test_normalised_values_are_those_of_exact_fractions(values):
    from fractions import Fraction

    low, high = Fraction(min(values)), Fraction(max(values))
    if float(high) / 2 == float(low) / 2:
        return
    expected = [float((Fraction(value) - low) / (high - low)) for value in values]
    np.testing.assert_allclose(difficulty.normalise(values), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("unchecked")
@fuzz
@given(st.integers(1, 40), st.one_of(st.integers(0, 40), st.floats(0.01, 0.99)), st.integers(0, 2**40), st.data())
def test_splits_are_partitions_whatever_the_types(n, first, seed, data):
    kinds = (np.int64, np.array, torch.tensor) if isinstance(first, int) else (np.float64, np.array, torch.tensor)
    kind = data.draw(st.sampled_from(kinds))
    if isinstance(first, int) and first > n:
        with pytest.raises(ValueError, match="first"):
            splits.split(n, first, seed=seed)
        return
    one, rest = splits.split(n, first, seed=seed)
    assert sorted([*one, *rest]) == list(range(n))
    assert len(one) == (first if isinstance(first, int) else round(n * first))
    if kind is not torch.tensor or isinstance(first, int):
        assert splits.split(n, kind(first), seed=np.int64(seed))[0].tolist() == one.tolist()
