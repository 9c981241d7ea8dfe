"""Any metric in each group of the examples, such as the classes, the cameras or the hospitals, with its interval."""

from collections.abc import Callable
from typing import Any

import torch

from uqlib.base.arrays import Column, as_tensor, like
from uqlib.base.checks import check_rows
from uqlib.metrics.resampling.bootstrap import Interval, interval
from uqlib.metrics.resampling.draws import as_number
from uqlib.metrics.rows import numbered


def groupwise(
    statistic: Callable[..., Any], *arrays: Column, groups: Column, weights: Column | None = None
) -> dict[Any, float]:
    """A statistic in each group: by the name of the group, in their order.

        groupwise(aurc, confidence, correct, groups=hospital)
        worst = max(found, key=found.get)

    Args:
        statistic: takes the arrays, returns one number; options through functools.partial.
        arrays: each with n rows, the same examples in the same order.
        groups: (n,) the group of each example: numbers, or names.
        weights: (n,) how much each example counts, if the statistic takes weights=.

    Raises:
        ValueError: if the arrays differ in length, or the statistic is not defined in a group, which the error names.

    Examples:
        >>> from uqlib.metrics import accuracy, groupwise
        >>> groupwise(accuracy, [0, 1, 1, 1], [0, 1, 0, 1], groups=["day", "day", "night", "night"])
        {'day': 1.0, 'night': 0.5}
    """
    parts = _parts(arrays, groups, {"weights": weights})
    return {name: as_number(_named(name, statistic, *rows, **columns)) for name, rows, columns in parts}


def groupwise_intervals(
    statistic: Callable[..., Any],
    *arrays: Column,
    groups: Column,
    draws: int = 2000,
    level: float = 0.95,
    generator: torch.Generator | None = None,
    stratify: Column | None = None,
    weights: Column | None = None,
    cluster: Column | None = None,
) -> dict[Any, Interval]:
    """The interval of a statistic in each group, each over the examples (or the clusters) of that group alone.

    Of many groups some lie low by chance: the interval of the worst one, chosen because it is the worst, is too
    pessimistic. Arguments and errors are those of interval and groupwise.

    Examples:
        >>> from uqlib.metrics import accuracy, groupwise_intervals
        >>> groups = ["day", "day", "night", "night"]
        >>> found = groupwise_intervals(accuracy, [0, 1, 1, 1], [0, 1, 0, 1], groups=groups, draws=100)
        >>> found["day"][:3]
        (1.0, 1.0, 1.0)
    """
    found: dict[Any, Interval] = {}
    options: dict[str, Any] = {"draws": draws, "level": level, "generator": generator}
    columns = {"stratify": stratify, "weights": weights, "cluster": cluster}
    for name, rows, given in _parts(arrays, groups, columns):
        found[name] = _named(name, interval, statistic, *rows, **options, **given)
    return found


def _parts(arrays: tuple[Column, ...], groups: Column, columns: dict[str, Column | None]) -> list[tuple[Any, ...]]:
    """The rows of each group: its name, its part of the arrays, and of the columns that are there."""
    if not arrays:
        raise TypeError("arrays are missing; pass the arrays that the statistic takes")
    tensors = {f"arrays[{k}]": (as_tensor(array, f"arrays[{k}]"), array) for k, array in enumerate(arrays)}
    first = tensors["arrays[0]"][0]
    names, numbers = numbered(groups, None, "groups")
    for name, column in columns.items():
        if column is not None and name == "cluster":
            tensors[name] = (numbered(column, len(numbers), name)[1], first)
        elif column is not None:
            tensors[name] = (as_tensor(column, name), column)
    for name, (tensor, _) in tensors.items():
        if not tensor.ndim:
            raise ValueError(f"{name} must have one entry an example; it is one number")
        check_rows(tensor, len(numbers), name)
    parts = []
    of_group = numbers.argsort(stable=True).split(torch.bincount(numbers, minlength=len(names)).tolist())
    for name, rows in zip(names, of_group, strict=True):
        part = {key: like(tensor[rows.to(tensor.device)], given) for key, (tensor, given) in tensors.items()}
        parts.append((name, [part.pop(f"arrays[{k}]") for k in range(len(arrays))], part))
    return parts


def _named(name: Any, function: Callable[..., Any], *arrays: Any, **options: Any) -> Any:
    """What the function gives; its errors say in which group they arose."""
    try:
        return function(*arrays, **options)
    except (TypeError, ValueError) as error:
        raise type(error)(f"group {name!r}: {error}") from None
