"""Which rows go where: two parts of a set of examples, drawn by a seed, the same on every machine."""

from numbers import Integral
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from uqlib.base.arrays import as_tensor
from uqlib.base.checks import check_finite
from uqlib.base.options import check_whole


def split(
    n: int, first: int | float, *, seed: int, labels: Any = None
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " rest"]]:
    """Two disjoint sets of rows that together are all, drawn by a seed: the same on every machine and NumPy version.

    Each row gets a random 64-bit number of PCG64 (whose stream NumPy fixes for good), and the smallest go first.

    Args:
        n: number of rows, at least 1.
        first: how many rows the first part gets: an integer, or a fraction in (0, 1), rounded to the nearest row.
        seed: of the draw, 0 or larger.
        labels: (n,) integers, or names; if given, each class gives its share, rounded by largest remainder so that the
            total is exact.

    Returns:
        Ascending row numbers of the first part and of the rest.

    Raises:
        TypeError: if a number is of another kind, such as True, or labels are floats.
        ValueError: if `first` is out of range, the labels do not have n rows, or they mix names with anything else.
    """
    n = check_whole(n, "n", least=1)
    count = _count(n, first)
    drawn = np.random.PCG64(check_whole(seed, "seed", least=0)).random_raw(n)
    _, kind, sizes = np.unique(_labels(labels, n), return_inverse=True, return_counts=True)
    quota, remainder = np.divmod(sizes * count, n)  # integers: no rounding that could differ
    quota[np.argsort(-remainder, kind="stable")[: count - quota.sum()]] += 1
    order = np.lexsort((drawn, kind))
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = rank < quota[kind]
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)


def uniform_numbers(n: int, *, seed: int) -> Float[np.ndarray, " n"]:
    """So many numbers in [0, 1), uniform, float64, drawn by a seed: the same on every machine and NumPy version.

    They are the upper 53 bits of PCG64, whose stream NumPy fixes for good; that of its Generator it does not.

    Raises:
        ValueError: if n or the seed is negative.
    """
    raw = np.random.PCG64(check_whole(seed, "seed", least=0)).random_raw(check_whole(n, "n", least=0))
    return (raw >> np.uint64(11)) * 2.0**-53


def _count(n: int, first: int | float) -> int:
    number = first.item() if isinstance(first, np.ndarray | Tensor) and first.ndim == 0 else first
    if isinstance(number, Integral) or not isinstance(number, float | np.floating):  # refuses what is no number at all
        return check_whole(number, "first, a number of rows,", least=0, most=n)
    if not 0 < number < 1:
        raise ValueError(
            f"first, a fraction, must lie in (0, 1); it is {number}. For a number of rows pass an integer."
        )
    return round(n * float(number))


def _labels(labels: Any, n: int) -> np.ndarray:
    """One an example; names are taken too, since only their equality counts."""
    if labels is None:
        return np.zeros(n, np.int64)
    listed = labels if isinstance(labels, list | tuple) else []
    odd = [k for k, each in enumerate(listed) if not isinstance(each, str)]
    if 0 < len(odd) < len(listed):  # NumPy would write numbers and NaN out among the names
        raise ValueError(
            f"labels must be names or integers, not both; entry {odd[0]} is {listed[odd[0]]!r} among names"
        )
    names = np.asarray(labels) if not isinstance(labels, Tensor | np.ma.MaskedArray) else None
    if names is not None and (names.dtype.kind in "US" or (names.dtype.kind == "O" and _all_names(names))):
        names = names.astype(str)
    else:
        tensor = as_tensor(labels, "labels")
        if tensor.is_floating_point():
            raise TypeError(f"labels must be integers or names; they are {tensor.dtype}. Convert them to int64.")
        names = tensor.cpu().numpy()
    names = names[:, 0] if names.shape == (n, 1) else names
    if names.shape != (n,):
        raise ValueError(f"labels must have shape ({n},), one an example; it is {names.shape}")
    return names


def _all_names(labels: np.ndarray) -> bool:
    return all(isinstance(label, str) for label in labels.ravel())


def check_disjoint(fit: Any, test: Any) -> None:
    """Refuse a fit part and a test part that share an example: what was fitted on it would be judged on it.

    Args:
        fit, test: row numbers (n,), or what tells examples apart, such as their logits (n, c): equal rows are taken for
            one example, floats of two precisions at the coarser one. Time grows with the size of both, memory with the
            number of rows.

    Raises:
        TypeError: if they are masks.
        ValueError: if they share one; the message names the first. If they are of two kinds, or not finite.
    """
    first, second = _comparable(as_tensor(fit, "fit"), as_tensor(test, "test"))
    known: dict[bytes, int] = {row.tobytes(): k for k, row in reversed(list(enumerate(first)))}
    for k, row in enumerate(second):
        if row.tobytes() in known:
            raise ValueError(
                f"fit and test overlap: row {k} of test is row {known[row.tobytes()]} of fit. Draw disjoint parts, "
                "for example by splits.split; examples that were fitted make every metric look better than it is."
            )


def _comparable(fit: Tensor, test: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Both in one dtype in which equal rows have equal bytes."""
    for name, rows in (("fit", fit), ("test", test)):
        if rows.dtype == torch.bool:
            raise TypeError(f"{name} must be row numbers, or what tells examples apart; it is a mask: {name}.nonzero()")
        if not rows.ndim:
            raise ValueError(f"{name} must have an entry an example, (n,) or (n, c); it is one number")
    if fit.shape[1:] != test.shape[1:] or fit.is_floating_point() != test.is_floating_point():
        raise ValueError(f"fit and test must be of one kind; they are {_kind(fit)} and {_kind(test)}")
    if not fit.is_floating_point():
        return fit.long().cpu().numpy(), test.long().cpu().numpy()
    check_finite(fit, "fit")
    check_finite(test, "test")
    coarser = min(fit.dtype, test.dtype, key=lambda dtype: (torch.finfo(dtype).bits, -torch.finfo(dtype).eps))
    # 0.0 and -0.0 are one number of two patterns of bits: their sum with 0.0 is 0.0; NumPy has no bfloat16
    first, second = (
        (rows.to(coarser).float() if coarser != torch.float64 else rows).cpu().numpy() + 0.0 for rows in (fit, test)
    )
    return first, second


def _kind(rows: Tensor) -> str:
    return f"{rows.dtype} {tuple(rows.shape)}"
