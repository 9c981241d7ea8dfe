"""Which rows go where: two parts of a set of examples, drawn by a seed, the same on every machine."""

from typing import Any

import numpy as np
from jaxtyping import Int
from torch import Tensor

from uqlib.arrays import as_tensor


def split(
    n: int, first: int | float, *, seed: int, labels: Any = None
) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " rest"]]:
    """Two disjoint sets of rows that together are all, drawn by a seed: the same on every machine and NumPy version.

    Each row gets a random 64-bit number of PCG64 (whose stream NumPy fixes for good), and the smallest go first.

    Args:
        n: number of rows.
        first: how many rows the first part gets: an integer, or a fraction in (0, 1), rounded to the nearest row.
        seed: of the draw.
        labels: int (n,); if given, each class gives its share, rounded by largest remainder so that the total is exact.

    Returns:
        Ascending row numbers of the first part and of the rest.

    Raises:
        ValueError: if `first` is out of range or the labels do not have n rows.
    """
    count = _count(n, first)
    drawn = np.random.PCG64(seed).random_raw(n)
    labels = np.zeros(n, np.int64) if labels is None else as_tensor(labels).cpu().numpy()
    if labels.shape != (n,):
        raise ValueError(f"labels must have shape ({n},); it is {labels.shape}")
    _, kind, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    quota, remainder = np.divmod(sizes * count, n)  # integers: no rounding that could differ
    quota[np.argsort(-remainder, kind="stable")[: count - quota.sum()]] += 1
    order = np.lexsort((drawn, kind))
    rank = np.empty(n, np.int64)
    rank[order] = np.arange(n) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = rank < quota[kind]
    return np.flatnonzero(chosen), np.flatnonzero(~chosen)


def _count(n: int, first: int | float) -> int:
    if isinstance(first, float):
        if not 0 < first < 1:
            raise ValueError(f"a fraction must lie in (0, 1); it is {first}. For a number of rows pass an integer.")
        return round(n * first)
    if not 0 <= first <= n:
        raise ValueError(f"the first part must have 0 to {n} rows; {first} were asked for")
    return int(first)


def check_disjoint(fit: Any, test: Any) -> None:
    """Refuse a fit part and a test part that share an example: what was fitted on it would be judged on it.

    Args:
        fit, test: row numbers (n,), or what tells examples apart, such as their logits (n, c): equal rows are taken for
            one example. Time grows with the size of both, memory with the number of rows.

    Raises:
        ValueError: if they share one; the message names the first.
    """
    fit, test = as_tensor(fit), as_tensor(test)
    if fit.shape[1:] != test.shape[1:] or fit.is_floating_point() != test.is_floating_point():
        raise ValueError(f"fit and test must be of one kind; they are {_kind(fit)} and {_kind(test)}")
    known: dict[bytes, int] = {row.tobytes(): k for k, row in reversed(list(enumerate(fit.cpu().numpy())))}
    for k, row in enumerate(test.to(fit.dtype).cpu().numpy()):
        if row.tobytes() in known:
            raise ValueError(
                f"fit and test overlap: row {k} of test is row {known[row.tobytes()]} of fit. Draw disjoint parts, "
                "for example by splits.split; examples that were fitted make every metric look better than it is."
            )


def _kind(rows: Tensor) -> str:
    return f"{rows.dtype} {tuple(rows.shape)}"
