"""Sums without rounding: the same whole number for any order of the values and any division into batches.

A float64 is a whole number times a power of two. It is cut into pieces of 26 bits at fixed places; pieces at one place are
whole numbers so small that float64 adds 2**26 of them without rounding. The sum over all places is an int of Python, as
long as it has to be, and rounding happens once: where the sum or the mean becomes a float again.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uqlib.base.arrays import by_rows

BITS = 26  # of a piece
SHARE = 36  # bits of a piece of a number in [0, 1]
SMALL = 16.0  # of larger numbers the pieces have BITS
COARSE = 2.0**-13  # a float32 from here on is a multiple of 2**-36
UNIT = 42 * BITS  # sums count units of 2**-UNIT, which divides every float64
CHUNK = 2**16  # values at a time: their copies stay in the cache
LARGE = 2**24  # on a GPU, which wants few launches; the pieces still add up below 2**53


def exact_sum(values: Float[Tensor, " n"]) -> int:
    """The sum of finite values, in units of 2**-UNIT."""
    total = 0
    for (part,) in by_rows(_chunk(values), values):
        total += sum(int(piece.sum().item()) << (UNIT + power) for power, piece, _ in _pieces(part))
    return total


def exact_sums(values: Float[Tensor, " n"], cell: Int[Tensor, " n"], cells: int) -> list[int]:
    """The sum of the finite values in each cell, in units of 2**-UNIT; cells are numbered from 0."""
    totals: dict[int, Tensor] = {}
    for part, where in by_rows(_chunk(values), values, cell):
        for power, piece, rows in _pieces(part):
            held = where if rows is None else where[rows]
            summed = torch.bincount(held, weights=piece, minlength=cells).long()
            totals[power] = totals[power] + summed if power in totals else summed
    columns = [[each << (UNIT + power) for each in column.tolist()] for power, column in totals.items()]
    return [sum(column) for column in zip(*columns, strict=True)] if columns else [0] * cells


def rounded_mean(total: int, count: int) -> float:
    """The float64 nearest to a sum of exact_sum over a count; with 1 it is the sum."""
    return total / (count << UNIT)  # the quotient of two ints of Python is rounded once


def _pieces(given: Float[Tensor, " n"]) -> Iterator[tuple[int, Float[Tensor, " k"], Tensor | None]]:
    """Powers, whole numbers, and the rows that have them, None for all: the values are the sum of piece * 2**power.

    A float64 adds up each piece exactly.
    """
    if len(given) <= CHUNK and not given.is_cuda:
        low, high = torch.aminmax(given)
        if low >= 0 and high <= SMALL:
            yield from _shares(given, low.item(), SHARE if high <= 1 else SHARE - 4)
            return
    values = given.double()
    whole = values.trunc()
    rest, power = values - whole, 0
    while power == 0 or whole.any():
        higher = (whole * 2.0**-BITS).trunc()
        yield power, whole - higher * 2.0**BITS, None
        whole, power = higher, power + BITS
    power = 0
    while rest.any():
        rest, power = rest * 2.0**BITS, power - BITS
        piece = rest.trunc()
        yield power, piece, None
        rest = rest - piece


def _shares(
    given: Float[Tensor, " n"], low: float, bits: int
) -> Iterator[tuple[int, Float[Tensor, " k"], Tensor | None]]:
    """The same of numbers in [0, SMALL], of which CHUNK pieces stay below 2**53; a row is done with when nothing is left of it.

    All of a float32 in [COARSE, 1] is in its first piece.
    """
    power, rows = -bits, None
    rest = given.double() * 2.0**bits
    if bits == SHARE and given.dtype != torch.float64 and low >= COARSE:
        yield power, rest, None
        return
    while len(rest):
        piece = rest.round()
        yield power, piece, rows
        rest = rest.sub_(piece).mul_(2.0**bits)
        left = rest.nonzero()[:, 0]
        if len(left) < 0.5 * len(rest):
            rest, rows = rest[left], left if rows is None else rows[left]
        power -= bits


def _chunk(values: Float[Tensor, " n"]) -> int:
    return LARGE if values.is_cuda else CHUNK
