"""The fitting of a duo as the code of Zhou et al. 2025 does it, for comparing with their numbers.

Use `uqlib.duos.fit_duo` for anything else: it minimises the same NLL to rounding. Known differences: the released code
works in the dividing temperatures, in which the NLL is not convex; in float32; and its steps after the grid are
L-BFGS without a line search at a rate of 0.01, so that they hardly leave the grid point.
"""

from collections.abc import Sequence
from itertools import product
from math import isfinite, log
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from uqlib.arrays import Column, Table, check_labels, check_number, check_same_shape, check_size, check_whole
from uqlib.duos import refuse_constant

LARGEST = 1e30  # of a logit: float32 holds what the temperatures make of it
TAUS = tuple(round(0.05 + 0.2 * k, 2) for k in range(25))  # 0.05 to 4.85: weights of 0.103 to 10


class ReleasedFit(NamedTuple):
    """Two dividing temperatures, and the weights that they stand for. Pairs are (large, small)."""

    taus: tuple[float, float]  # divide the logits, whose mean is the duo
    weights: tuple[float, float]  # multiply the logits, as in DuoFit: 1 / (2 tau)
    grid: tuple[float, float]  # the taus of the grid from which the steps began


def fit_duo_zhou2025(
    large: Table, small: Table, labels: Column, *, taus: Sequence[float] = TAUS, steps: int = 50
) -> ReleasedFit:
    """The temperatures of the best point of a square grid by NLL, then L-BFGS from there, as released.

    One pass over the logits for each of the 625 points of the grid and each of the steps. Beside the logits, memory
    is several tables (n, c) in float32.

    Args:
        large: logits (n, c).
        small: logits (n, c) of the sidekick, the same rows and classes.
        labels: (n,), classes in [0, c).
        taus: what either temperature may be on the grid.
        steps: most iterations of L-BFGS; 0 stays on the grid.

    Raises:
        ValueError: if taus is empty or one is not above 0; if shapes differ, logits are not finite, too large, constant or
            probabilities, or a label is outside [0, c); if the best duo is no better than guessing, as when the labels are
            in another order.

    Source:
        Zhou, Shelhamer & Pleiss 2025 (arXiv:2505.18636); code github.com/timgzhou/asymmetric-duos.
    """
    pair = check_same_shape({"large": large, "small": small})
    for name, member in zip(("large", "small"), pair, strict=True):
        check_size(member, name, LARGEST)
        refuse_constant(member, name)
    members = [member.float() for member in pair]
    labels = check_labels(labels, members[0].shape[1], rows=len(members[0]), device=members[0].device)
    taus, steps = _check_taus(taus), check_whole(steps, "steps", least=0)
    with torch.no_grad():
        grid = min(product(taus, taus), key=lambda pair: _nll(members, labels, pair).item())
        _refuse_guessing(_nll(members, labels, grid).item(), members[0].shape[1])
    found = _refine(members, labels, grid, steps)
    return ReleasedFit(found, (1 / (2 * found[0]), 1 / (2 * found[1])), grid)


def _check_taus(taus: Sequence[float]) -> tuple[float, ...]:
    if isinstance(taus, str) or not hasattr(taus, "__len__") or not len(taus) or not min(map(_tau, taus)) > 0:
        shown = taus if isinstance(taus, str) or not hasattr(taus, "__len__") else list(taus)
        raise ValueError(f"taus must be one or more temperatures above 0; got {shown}. They divide the logits.")
    return tuple(map(_tau, taus))


def _tau(tau: float) -> float:
    return check_number(tau, "taus")


def _refuse_guessing(nll: float, classes: int) -> None:
    if not isfinite(nll) or nll >= log(classes):
        raise ValueError(
            f"no pair of taus is better than guessing: the best NLL is {nll:.4f}, that of guessing {log(classes):.4f}. Do "
            "logits and labels list the same examples, and the classes in the same order? Larger taus are softer."
        )


def _refine(
    members: list[Float[Tensor, "n c"]], labels: Int[Tensor, " n"], start: tuple[float, float], steps: int
) -> tuple[float, float]:
    if not steps:
        return start
    taus = torch.tensor(start, dtype=torch.float32, device=labels.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([taus], lr=0.01, max_iter=steps)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = _nll(members, labels, taus)
        loss.backward()
        return loss

    optimizer.step(closure)
    return taus[0].item(), taus[1].item()


def _nll(
    members: list[Float[Tensor, "n c"]], labels: Int[Tensor, " n"], taus: Sequence[float] | Tensor
) -> Float[Tensor, ""]:
    return cross_entropy((members[0] / taus[0] + members[1] / taus[1]) / 2, labels)
