"""How fast do heads learn? Their errors against the number of examples a class, all on the same nested draws.

Every head sees the same examples at each size, and each size holds those of the smaller ones, so that heads and sizes are
compared in pairs.

    curve = learning_curve(features, labels, test_features, test_labels, HEADS, [2, 10, 50])
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from uqlib.base.arrays import Column, Table, _shown, as_tensor
from uqlib.base.checks import check_features, check_finite, check_labels, check_whole_column
from uqlib.base.options import check_number, check_whole
from uqlib.base.splits import uniform_numbers
from uqlib.difficulty.statistics import moments
from uqlib.heads.generative import feature_sums, lda, log_posteriors, naive_bayes, nearest_mean
from uqlib.heads.nearest import neighbour_logits
from uqlib.networks.linear_heads import choose_head

Fitted = Callable[
    [Tensor, Tensor, Tensor, int], Any
]  # features, labels, features that are asked, classes; gives logits
LOGISTIC: dict[str, Any] = {"strengths": (1e-2, 1e-1, 1.0), "held_out": 0.2, "tolerance": 1e-4}  # of `choose_head`


def _linear(fit: Callable[[Tensor, Tensor, int], Any]) -> Fitted:
    return lambda x, y, asked, classes: as_tensor(log_posteriors(fit(x, y, classes), asked))


HEADS: dict[str, Fitted] = {
    "logistic regression": _linear(  # its penalty chosen on a fifth of the examples
        lambda x, y, classes: choose_head(x, y, classes=classes, **LOGISTIC)
    ),
    "naive Bayes": _linear(lambda x, y, classes: naive_bayes(feature_sums(x, y, classes=classes))),
    "nearest class mean": _linear(lambda x, y, classes: nearest_mean(feature_sums(x, y, classes=classes))),
    "shrinkage LDA": _linear(lambda x, y, classes: lda(moments(x, y, classes=classes))),
    "5 nearest neighbours": lambda x, y, asked, classes: as_tensor(
        neighbour_logits(x, y, asked, classes=classes, k=min(5, len(x)))
    ),
}


def nested_rows(labels: Column, *, draws: int, seed: int = 0) -> list[list[Int[np.ndarray, " n"]]]:
    """For each draw and class the rows of that class in a random order: the first m of each are a sample of m a class.

    Args:
        labels: (n,), classes from 0 on.
        draws: how many orders.
        seed: of them; more draws begin with the same.

    Raises:
        ValueError: if a number is out of range or labels are no classes.

    Examples:
        >>> from uqlib.heads import nested_rows
        >>> [rows.tolist() for rows in nested_rows([0, 1, 0, 1], draws=1)[0]]
        [[2, 0], [3, 1]]
    """
    y = check_labels(labels, None).cpu().numpy()
    draws = check_whole(draws, "draws", least=1)
    numbers = uniform_numbers(draws * len(y), seed=seed).reshape(draws, len(y))
    own = [np.flatnonzero(y == c) for c in range(int(y.max()) + 1)]
    return [[rows[np.argsort(each[rows], kind="stable")] for rows in own] for each in numbers]


def learning_curve(
    features: Table,
    labels: Column,
    test_features: Table,
    test_labels: Column,
    heads: Mapping[str, Fitted],
    sizes: Column,
    *,
    draws: int = 5,
    seed: int = 0,
    measure: Callable[[Tensor, Tensor], Any] | None = None,
) -> Float[np.ndarray, "head size draw ..."]:
    """Test errors of heads by the number of examples a class, on the same nested draws.

    Args:
        features, labels: (n, d) and (n,), of which is drawn; each class must have as many as the largest size.
        test_features, test_labels: what judges.
        heads: by name; each takes features, labels, features that are asked and the number of classes, and gives logits.
            Both features reach it in one float type, the finer of the two that were given; whole numbers are float64.
        sizes: examples a class.
        draws: of the examples.
        seed: of the draws.
        measure: of logits and test labels, by default the error; a number, or several, which are a last axis of the result.

    Raises:
        ValueError: if a class has fewer examples than the largest size, or arrays do not fit.

    Examples:
        >>> from uqlib.heads import HEADS, learning_curve
        >>> some = {"nearest class mean": HEADS["nearest class mean"]}
        >>> learning_curve([[0.0], [1.0], [5.0], [6.0]], [0, 0, 1, 1], [[2.0]], [0], some, [1, 2], draws=3).shape
        (1, 2, 3)
    """
    x = check_features(features)
    y = check_labels(labels, None, rows=len(x), device=x.device)
    asked = check_features(test_features, "test_features", width=x.shape[1])
    x, asked = _of_one_kind(x, asked)
    truth = check_labels(test_labels, int(y.max()) + 1, rows=len(asked), name="test_labels", device=x.device)
    wanted, least = check_whole_column(sizes, "sizes").tolist(), int(y.bincount().min())
    if min(wanted) < 1 or max(wanted) > least:
        raise ValueError(f"sizes must be examples a class, at most the {least} of the smallest class; they are {sizes}")
    if not isinstance(heads, Mapping) or not heads:
        raise ValueError(
            f"heads must be a mapping of names to one or more heads; it is {_shown(heads)}. HEADS has some, such as "
            "{'naive Bayes': HEADS['naive Bayes']}"
        )
    orders = nested_rows(y, draws=draws, seed=seed)
    drawn = [
        [torch.from_numpy(np.concatenate([rows[:size] for rows in order])).to(x.device) for order in orders]
        for size in wanted
    ]
    measure = measure or (lambda logits, labels: (logits.argmax(-1) != labels).double().mean().item())
    return np.array(
        [
            [[measure(fit(x[r], y[r], asked, int(y.max()) + 1), truth) for r in rows] for rows in drawn]
            for fit in heads.values()
        ],
        dtype=float,
    )


def _of_one_kind(x: Shaped[Tensor, "n d"], asked: Shaped[Tensor, "m d"]) -> tuple[Tensor, Tensor]:
    """Both as floats of one type that loses no digit of either, on the device of the first."""
    x, asked = (each if each.is_floating_point() else each.double() for each in (x, asked))
    kind = torch.promote_types(x.dtype, asked.dtype)
    return x.to(kind), asked.to(x.device, kind)


def samples_to(errors: Table, sizes: Column, *, level: float) -> Float[np.ndarray, "..."]:
    """The least size at which errors (..., size) are at most the level, between two sizes as if straight in log size.

    Infinity where they never are. NumPy in any case.

    Raises:
        ValueError: if errors do not have an entry a size, or sizes do not ascend.

    Examples:
        >>> from uqlib.heads import samples_to
        >>> samples_to([[0.5, 0.3, 0.1], [0.5, 0.5, 0.4]], [1, 10, 100], level=0.2).round(1)
        array([31.6,  inf])
    """
    level = check_number(level, "level")
    values, size = _curve(errors, sizes, "errors")
    reached = values <= level
    at = _zero_before(values - level, size, reached.argmax(-1))
    return np.where(reached.any(-1), np.where(reached[..., 0], size[0], at), np.inf)


def crossing(first: Table, second: Table, sizes: Column) -> Float[np.ndarray, "..."]:
    """The end of the first's lead: the size from which on its errors (..., size) are no lower than those of the second.

    Between two sizes both are taken for straight in log size. 0 where the first is never ahead, infinity where it is so at
    the largest size.

    Raises:
        ValueError: if the shapes differ or sizes do not ascend.

    Examples:
        >>> from uqlib.heads import crossing
        >>> crossing([[0.3, 0.2, 0.2], [0.6, 0.3, 0.1]], [0.5, 0.3, 0.1], [1, 10, 100]).round(1)
        array([31.6,  0. ])
    """
    one, size = _curve(first, sizes, "first")
    two, _ = _curve(second, sizes, "second")
    if min(one.ndim, two.ndim) > 1 and one.shape != two.shape:
        raise ValueError(
            f"first and second must have one shape, or one of them be a single curve; {one.shape}, {two.shape}"
        )
    apart = one - two  # below 0 where the first leads
    leads = apart < 0
    after = len(size) - leads[..., ::-1].argmax(-1)  # the size after the last that it leads at
    at = _zero_before(apart, size, np.minimum(after, len(size) - 1))
    return np.where(leads.any(-1), np.where(leads[..., -1], np.inf, at), 0.0)


def _curve(errors: Table, sizes: Column, name: str) -> tuple[np.ndarray, np.ndarray]:
    values, size = as_tensor(errors, name).double().cpu(), as_tensor(sizes, "sizes").double().cpu()
    check_finite(values, name)
    check_finite(size, "sizes")
    if size.ndim != 1 or not len(size) or size[0] <= 0 or (size.diff() <= 0).any():
        raise ValueError(f"sizes must ascend from above 0; they are {size.tolist()}")
    if not values.ndim or values.shape[-1] != len(size):
        raise ValueError(f"{name} must have shape (..., {len(size)}), one a size; it is {tuple(values.shape)}")
    return values.numpy(), size.numpy()


def _zero_before(values: np.ndarray, size: np.ndarray, k: Any) -> np.ndarray:
    """Where the line from the point before k to that at k, straight in log size, is 0; at k where it is flat."""
    j = np.maximum(k - 1, 0)
    before, at = (np.take_along_axis(values, each[..., None], -1)[..., 0] for each in (j, k))
    share = np.divide(before, before - at, out=np.ones_like(before), where=before != at)
    return np.asarray(np.exp((1 - share) * np.log(size[j]) + share * np.log(size[k])))
