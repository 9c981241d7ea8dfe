"""Asymmetric Duos: fitting and metrics as the released code of Zhou et al. 2025 has them (arXiv:2505.18636).

For comparing with printed numbers. Each function is a literal reading of the released rule, ties, dropped bins and all;
its docstring says what differs. Confidence is higher = more certain throughout, where the code of Zhou et al. takes an
uncertainty.
"""

from collections.abc import Sequence
from itertools import product
from math import isfinite, log
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from uqlib.base.arrays import Array, Column, Table, as_tensor, like
from uqlib.base.checks import (
    check_hits,
    check_labels,
    check_probs,
    check_same_shape,
    check_share_and_hits,
    check_size,
)
from uqlib.base.options import check_fraction, check_number, check_whole
from uqlib.combine.duos import refuse_constant
from uqlib.metrics.classification import brier
from uqlib.metrics.selective import risks_in_row_order


def aurc_zhou2025(confidence: Column, correct: Column) -> float:
    """Mean of the cumulative risks, lower is better. Differs from aurc at ties: they stay in the order of the rows.

    (The released sort is NumPy's default, which leaves ties in an order of its own; here it is stable.)

    Source:
        Zhou, Shelhamer & Pleiss 2025 (arXiv:2505.18636); code github.com/timgzhou/asymmetric-duos.
    """
    return risks_in_row_order(*check_hits(confidence, correct)).mean().item()


def e_aurc_zhou2025(confidence: Column, correct: Column) -> float:
    """aurc_zhou2025 less that of the ideal order, all correct first, lower is better.

    The ideal is computed from the sample, where fd-shifts takes the limit e + (1 - e) ln(1 - e) for n to infinity.

    Source:
        As aurc_zhou2025.
    """
    score, hit = check_hits(confidence, correct)
    ideal = risks_in_row_order(hit.double(), hit)
    return (risks_in_row_order(score, hit).mean() - ideal.mean()).item()


def sac_zhou2025(confidence: Column, correct: Column, *, accuracy: float) -> float:
    """Largest coverage whose accuracy is at least `accuracy`, 0 if none, higher is better.

    Differs from selective_accuracy_coverage at ties, which it cuts in the order of the rows, and in rounding: it
    asks for risk <= 1 - accuracy, and 1 - 0.9 lies just below 0.1 in float64, so a risk of exactly 0.1 fails.

    Args:
        confidence: (n,).
        correct: (n,).
        accuracy: a fraction; the paper's SAC@98 is accuracy=0.98.

    Source:
        As aurc_zhou2025.
    """
    accuracy = check_fraction(accuracy, "accuracy")
    risks = risks_in_row_order(*check_hits(confidence, correct))
    kept = (risks <= 1 - accuracy).nonzero()
    return (int(kept.max()) + 1) / len(risks) if len(kept) else 0.0


def ece_zhou2025(confidence: Column, correct: Column) -> float:
    """ECE over 15 bins (lo, hi] of equal width, lower is better. Differs from ece at 0: a confidence of 0 has no bin.

    Theirs is summed in float32; here in float64.

    Source:
        As aurc_zhou2025.
    """
    score, hit = check_share_and_hits(confidence, correct)
    score, error = score.double(), 0.0
    for k in range(15):
        inside = (score > k / 15) & (score <= (k + 1) / 15)
        error += (score[inside].sum() - hit[inside].sum()).abs().item()
    return error / len(score)


def brier_zhou2025(probs: Table, labels: Column) -> float:
    """The Brier score divided by the number of classes, lower is better: a mean over all n c entries.

    Source:
        As aurc_zhou2025; their plots show it times 10^5.
    """
    return brier(probs, labels) / as_tensor(probs).shape[1]


def duo_confidence_zhou2025(probs: Table, large_preds: Column) -> Float[Array, " n"]:
    """The duo's probability of the class that the large network predicts, higher = more certain.

    The paper defines the confidence of a duo as its largest probability. The released evaluation of "Duo: Ours" takes
    this instead, which the paper defines for "UQ Only".

    Args:
        probs: (n, c) of the duo.
        large_preds: (n,) classes predicted by the large network.

    Source:
        As aurc_zhou2025.
    """
    table = check_probs(probs)
    classes = check_labels(large_preds, table.shape[1], rows=len(table), name="large_preds", device=table.device)
    return like(table.gather(1, classes[:, None])[:, 0], probs)


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
