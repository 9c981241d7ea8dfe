"""Logits of a thousand classes in a quarter of a byte each: the largest of a row as they are, the others in three levels.

Of each row the `exact` largest logits are kept in half precision, as differences to the largest, which stands beside them in
float32. Those that follow share one level each: the others of the first 8 % of the row, those up to 30 %, and the rest. A
level is the logarithm of the mean of its exponentials, so each keeps its probability, and so does what is exact. Which class
is where is said by nested bits: of all classes, whether among the first 30 %; of these, whether among the first 8 %; of
these, whether exact.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

LEVELS, BITS, CLASSES = COARSE_COLUMNS = "logits_levels", "logits_bits", "logits_classes"
EXACT = 24  # logits of a row that are kept as they are
NEAR, FAR = 0.08, 0.3  # where the levels end, as shares of the classes


def ends_of_levels(classes: int, exact: int) -> tuple[int, int, int]:
    """How many logits of a row are exact, how many are exact or in the first level, and how many not in the last."""
    exact = min(exact, classes)
    near = max(exact, round(NEAR * classes))
    return exact, near, max(near, round(FAR * classes))


def coarse_columns(logits: Float[Tensor, "n c"], largest: str, exact: int = EXACT) -> dict[str, Tensor]:
    """The columns that keep these logits, `largest` that of the largest of each row; `dense_logits` reads them."""
    top = logits.double().amax(-1)
    away = logits.double() - top[:, None]
    (n, c), ends = away.shape, ends_of_levels(away.shape[1], exact)
    order = away.argsort(dim=-1, descending=True, stable=True)
    ranks = torch.empty_like(order).scatter_(-1, order, torch.arange(c, device=order.device).expand(n, c))
    falling = away.gather(-1, order)
    parts = zip(ends, (*ends[1:], c), strict=True)
    levels = [_level(falling[:, start:stop]) for start, stop in parts]
    inside, bits = ranks, []
    for end in reversed(ends):
        bits.append(inside < end)
        inside = inside[bits[-1]].view(n, end)
    kept = away.gather(-1, order[:, : ends[0]].sort(-1).values)  # in the order of the classes
    packed = np.packbits(torch.cat(bits, -1).cpu().numpy(), axis=-1)
    return {
        "logits": kept.half(),
        largest: top.float(),
        LEVELS: torch.stack(levels, -1).half(),
        BITS: torch.from_numpy(packed),
        CLASSES: torch.full((n,), c, dtype=torch.int32),
    }


def dense_logits(columns: Mapping[str, Any], largest: str) -> Float[Tensor, "n c"]:
    """The logits of a row for every class, in float64, from the columns that `coarse_columns` made of them."""
    kept, levels = (torch.from_numpy(columns[name]).double() for name in ("logits", LEVELS))
    n, c = len(kept), int(columns[CLASSES][0])
    ends = ends_of_levels(c, kept.shape[1])
    sizes = (c, *reversed(ends[1:]))  # of the nested bits
    bits = torch.from_numpy(np.unpackbits(columns[BITS], axis=-1, count=sum(sizes)).astype(bool)).split(sizes, -1)
    inside = torch.arange(c).expand(n, c)
    dense = levels[:, 2:].expand(n, c).clone()
    for mask, end, values in zip(bits, reversed(ends), (levels[:, 1:2], levels[:, :1], kept), strict=True):
        inside = inside[mask].view(n, end)
        dense.scatter_(-1, inside, values.expand(n, end))
    return dense + torch.from_numpy(columns[largest]).double()[:, None]


def _level(away: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    """The logarithm of the mean of the exponentials; 0 where there is nothing."""
    k = away.shape[1]
    return away.logsumexp(-1) - np.log(k) if k else away.new_zeros(len(away))
