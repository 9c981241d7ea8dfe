"""Retrieval: is the nearest other image of the same class, and does an uncertainty know when it is not?

    found = retrieved(features, labels)   # (n,) true or false, leave one out
    found.mean()                          # Recall@1
    r_auroc(uncertainty, found)           # 0.5 by chance, 1 if every miss is more uncertain than every hit

R-AUROC needs no classifier, so it says how an uncertainty does on classes that nothing was trained on.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uqlib.base.arrays import Array, Column, Table, as_tensor, like
from uqlib.base.checks import check_finite, check_mask, check_rows, check_whole_column
from uqlib.base.options import check_whole
from uqlib.metrics.detection import auroc
from uqlib.metrics.selective import selective_risks

BLOCK = 1024  # rows of a block: the similarities of two blocks are 4 MB, which stay in the cache of a processor


class Neighbours(NamedTuple):
    """The nearest rows of each row, the nearest first."""

    rows: Int[Array, "n k"]
    similarity: Float[Array, "n k"]  # cosine, in [-1, 1]


def nearest_neighbours(features: Table, database: Table | None = None, *, k: int = 1) -> Neighbours:
    """The k rows of a database with the largest cosine similarity to each row; exact, by brute force.

    Without a database the rows themselves are it, and no row is its own neighbour, even if it is there twice: then the
    copy is its neighbour, at similarity 1. Of equal similarities the lower row comes first; those that differ by less
    than the rounding of the features' precision may change places.

    Time is that of the product of the two tables, and of half of it for k = 1 without a database, where each
    pair is looked at once. Memory beyond the features is a few blocks of 4 MB, however many rows there are.

    Args:
        features: (n, d), on CPU or GPU; in half precision they are looked at in float32.
        database: (m, d), what is searched.
        k: how many neighbours.

    Raises:
        ValueError: if a row is not finite or all zeros, the widths differ, or there are fewer than k neighbours.

    Examples:
        >>> from uqlib.metrics import nearest_neighbours
        >>> nearest_neighbours([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]]).rows.ravel()
        array([1, 0, 1])
    """
    k, x = check_whole(k, "k", least=1), _directions(features, "features")
    y = x if database is None else _directions(database, "database").to(x)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"features and database must have one width; they have {x.shape[1]} and {y.shape[1]}")
    there = len(y) - (database is None)
    if there < k:
        raise ValueError(f"k must be at most {there}, the neighbours that there are; it is {k}")
    best = _pairs(x) if database is None and k == 1 else _search(x, y, k, alone=database is None)
    return Neighbours(*(like(part, features) for part in best))


def retrieved(features: Table, labels: Column) -> Bool[Array, " n"]:
    """Whether the nearest other row is of the same class: what Recall@1 counts.

    An image that is alone in its class is never found, and counts as a miss, as in the source.

    Args:
        features: (n, d), as `nearest_neighbours` takes them, n at least 2.
        labels: (n,), whole numbers.

    Raises:
        ValueError: as `nearest_neighbours`, and if the lengths differ.

    Source:
        Kirchhof et al. 2023 (arXiv:2307.03810), section 3.

    Examples:
        >>> from uqlib.metrics import retrieved
        >>> retrieved([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]], [0, 0, 1])
        array([ True,  True, False])
    """
    y = check_whole_column(labels)
    check_rows(as_tensor(features, "features"), len(y), "features")
    nearest = as_tensor(nearest_neighbours(features).rows)[:, 0]
    return like(y.to(nearest.device)[nearest] == y.to(nearest.device), features)


def recall_at_1(features: Table, labels: Column) -> float:
    """Share of the rows whose nearest other row is of the same class, higher is better. See `retrieved`.

    Examples:
        >>> from uqlib.metrics import recall_at_1
        >>> recall_at_1([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]], [0, 0, 1, 1])
        1.0
    """
    return as_tensor(retrieved(features, labels)).double().mean().item()


def r_auroc(uncertainty: Column, found: Column) -> float:
    """Probability that a miss of the retrieval is more uncertain than a hit, higher is better; a tie counts half.

    Args:
        uncertainty: (n,), higher = less certain.
        found: (n,) true or false, from `retrieved`.

    Raises:
        ValueError: if an uncertainty is not finite, the lengths differ, or there are no hits or no misses.

    Source:
        Kirchhof et al. 2023 (arXiv:2307.03810), section 3.

    Examples:
        >>> from uqlib.metrics import r_auroc
        >>> r_auroc([0.1, 0.2, 0.9, 0.3], [True, True, False, False])
        1.0
    """
    return auroc(uncertainty, ~check_mask(found, "found"))


def abstained_recall(uncertainty: Column, found: Column) -> Float[Array, " n"]:
    """Recall@1 of the k most certain rows, k = 1 to n; ties are shared. It begins with the most certain alone.

    Examples:
        >>> from uqlib.metrics import abstained_recall
        >>> abstained_recall([0.1, 0.2, 0.9, 0.3], [True, True, False, False]).round(2)
        array([1.  , 1.  , 0.67, 0.5 ])
    """
    risks = selective_risks(-as_tensor(uncertainty, "uncertainty").double(), check_mask(found, "found"))
    return like(1 - as_tensor(risks), uncertainty)


def _directions(features: Table, name: str) -> Float[Tensor, "n d"]:
    """Rows of length 1, in float32 at least."""
    x = as_tensor(features, name)
    if x.ndim != 2 or not x.numel():
        raise ValueError(f"{name} must have shape (n, d) with at least one row; it is {tuple(x.shape)}")
    x = x if x.dtype in (torch.float32, torch.float64) else x.float()
    check_finite(x, name)
    x = x / x.abs().amax(1, keepdim=True).clamp_min(torch.finfo(x.dtype).tiny)  # squares neither overflow nor vanish
    length = x.norm(dim=1, keepdim=True)
    if (length == 0).any():
        raise ValueError(f"row {int((length == 0).int().argmax())} of {name} is all zeros, and has no direction")
    directions: Tensor = x / length
    return directions


def _pairs(x: Float[Tensor, "n d"]) -> tuple[Int[Tensor, "n 1"], Float[Tensor, "n 1"]]:
    """The nearest other row of each: every pair of blocks is multiplied once, and read along rows and columns."""
    index = torch.zeros(len(x), dtype=torch.long, device=x.device)
    best = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
    starts = range(0, len(x), BLOCK)

    def take(start: int, found: tuple[Tensor, Tensor], other: int) -> None:
        """Keep what is nearer; earlier blocks come first, so that of equals the lower row stays."""
        own = slice(start, start + len(found[0]))
        nearer = found[0] > best[own]
        best[own] = torch.where(nearer, found[0], best[own])
        index[own] = torch.where(nearer, found[1] + other, index[own])

    for i in starts:
        for j in range(i, len(x), BLOCK):
            similar = x[i : i + BLOCK] @ x[j : j + BLOCK].T
            if i == j:
                similar.fill_diagonal_(-torch.inf)
            else:
                take(j, similar.max(0), i)
            take(i, similar.max(1), j)
    return index[:, None], best[:, None]


def _search(
    x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], k: int, *, alone: bool
) -> tuple[Int[Tensor, "n k"], Float[Tensor, "n k"]]:
    """The k nearest rows of y to each row of x; `alone` leaves out the row of the same number."""
    index, best = [], []
    for i in range(0, len(x), BLOCK):
        part = x[i : i + BLOCK]
        rows = torch.empty((len(part), 0), dtype=torch.long, device=x.device)
        values = torch.empty((len(part), 0), dtype=x.dtype, device=x.device)
        for j in range(0, len(y), BLOCK):
            similar = part @ y[j : j + BLOCK].T
            if alone and i == j:
                similar.fill_diagonal_(-torch.inf)
            near = similar.topk(min(k, similar.shape[1]), dim=1)
            values, kept = torch.cat([values, near.values], 1).sort(dim=1, descending=True, stable=True)
            rows = torch.cat([rows, near.indices + j], 1).gather(1, kept)[:, :k]
            values = values[:, :k]
        index.append(rows)
        best.append(values)
    return torch.cat(index), torch.cat(best)
