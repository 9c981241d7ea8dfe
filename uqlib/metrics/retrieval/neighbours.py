"""The nearest rows of each row of a table, by the cosine: exact, block by block."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uqlib.base.arrays import Array, Table, like
from uqlib.base.checks import check_features
from uqlib.base.options import check_whole

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
    y = x if database is None else _directions(database, "database").to(x.device)
    kind = torch.promote_types(x.dtype, y.dtype)  # so that neither loses digits
    x, y = x.to(kind), y.to(kind)
    if x.shape[1] != y.shape[1]:
        raise ValueError(f"features and database must have one width; they have {x.shape[1]} and {y.shape[1]}")
    there = len(y) - (database is None)
    if there < k:
        raise ValueError(f"k must be at most {there}, the neighbours that there are; it is {k}")
    best = _pairs(x) if database is None and k == 1 else _search(x, y, k, alone=database is None)
    return Neighbours(*(like(part, features) for part in best))


def _directions(features: Table, name: str) -> Float[Tensor, "n d"]:
    """Rows of length 1, in float32 at least."""
    x = check_features(features, name)
    x = x if x.dtype in (torch.float32, torch.float64) else x.float()
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
            near, where = _largest(similar, min(k, similar.shape[1]))
            values, kept = torch.cat([values, near], 1).sort(dim=1, descending=True, stable=True)
            rows = torch.cat([rows, where + j], 1).gather(1, kept)[:, :k]
            values = values[:, :k]
        index.append(rows)
        best.append(values)
    return torch.cat(index), torch.cat(best)


def _largest(table: Float[Tensor, "n m"], k: int) -> tuple[Float[Tensor, "n k"], Int[Tensor, "n k"]]:
    """The k largest of each row and where they stand, of equal ones the first; `topk` alone takes any of these."""
    values, where = table.topk(k, dim=1)
    tied = ((table >= values[:, -1:]).sum(1) > k) | (values.diff(dim=1) == 0).any(1)
    if tied.any():
        some = table[tied].sort(dim=1, descending=True, stable=True)
        values[tied], where[tied] = some.values[:, :k], some.indices[:, :k]
    return values, where
