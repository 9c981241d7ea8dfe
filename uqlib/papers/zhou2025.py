"""Asymmetric Duos: fitting and metrics as the released code of Zhou et al. 2025 has them (arXiv:2505.18636).

For comparing with printed numbers. Each function is a literal reading of the released rule, ties, dropped bins and all;
its docstring says what differs. Confidence is higher = more certain throughout, where the code of Zhou et al. takes an
uncertainty.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from math import isfinite, log
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, one_hot

from uqlib.base.arrays import Array, Column, Table, as_tensor, like
from uqlib.base.checks import (
    check_hits,
    check_labels,
    check_probs,
    check_same_shape,
    check_share_and_hits,
    check_size,
)
from uqlib.base.extras import named
from uqlib.base.options import check_fraction, check_number, check_whole
from uqlib.calibrate.confidences import neg_entropy
from uqlib.combine import duos
from uqlib.combine.duos import VARIANTS, Decision, DuoFit, fit_duo, refuse_constant
from uqlib.metrics.classification import brier
from uqlib.metrics.outcomes import MEASURES, Outcome
from uqlib.metrics.selective import aurc, risks_in_row_order
from uqlib.solve.likelihood import nll_derivatives

with named():
    import xarray as xr
    from scipy.optimize import minimize

NAMES = {  # of the variants, in print
    "base": "large alone",
    "raw": "large as trained",
    "ours": "duo",
    "unweighted": "unweighted",
    "uq_only": "UQ only",
    "softmax_average": "mean of probabilities",
}


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


def rescore_zhou2025(outcomes: Sequence[Outcome], *, inside_log: float = 1e-10) -> dict[str, list[Outcome]]:
    """The same predictions under each score that reads them off the probabilities, higher = more certain.

    response: the confidence as it is, the probability of the predicted class. entropy: minus that of all probabilities.
    margin: how far the predicted class lies above the next best, negative where another one is first, as in "UQ Only".

    Args:
        outcomes: one a split.
        inside_log: added to the probabilities inside of the log of a fourth score, `released`, the entropy as released.

    Source:
        As aurc_zhou2025.
    """
    found: dict[str, list[Outcome]] = {"response": list(outcomes), "entropy": [], "margin": [], "released": []}
    for each in outcomes:
        probs, preds = as_tensor(each.probs), as_tensor(each.preds)
        margin = as_tensor(each.confidence) - probs.scatter(1, preds[:, None], -1).amax(-1)
        released = (probs * (probs + inside_log).log()).sum(-1)
        scores = {"entropy": neg_entropy(probs.clamp_min(1e-300).log()), "margin": margin, "released": released}
        for name, score in scores.items():
            found[name].append(each._replace(confidence=score))
    return found


def _released(large: Tensor, small: Tensor, fit: DuoFit) -> Decision:
    """The duo's labels, with its probability of the large network's class as confidence."""
    duo = duos.ours(large, small, fit)
    return duo._replace(confidence=duo_confidence_zhou2025(duo.probs, duos.base(large, small, fit).preds))


def _where(agree: bool, large: Tensor, small: Tensor, fit: DuoFit) -> Decision:
    """The duo where both networks predict the same class, or where they do not; the scaled large network on the other rows."""
    rows = (large.argmax(-1) == small.argmax(-1)) == agree
    parts = zip((rows, rows[:, None], rows), duos.ours(large, small, fit), duos.base(large, small, fit), strict=True)
    return Decision(*(torch.where(mask, as_tensor(duo), as_tensor(base)) for mask, duo, base in parts))


CONTROLS: dict[str, Callable[[Tensor, Tensor, DuoFit], Decision]] = {  # variants, and what the paper leaves out
    **{name: VARIANTS[name] for name in ("base", "raw", "ours", "unweighted")},
    "released": _released,
    "agree_only": partial(_where, True),
    "disagree_only": partial(_where, False),
    "raw_average": lambda large, small, fit: duos.unweighted(large, small, fit._replace(temperatures=(1.0, 1.0))),
    "sidekick": lambda large, small, fit: duos.base(small, large, fit._replace(temperatures=fit.temperatures[::-1])),
}


def gain_by_agreement(outcomes: Mapping[str, Sequence[Outcome]]) -> dict[str, float]:
    """Where two networks agree and where not, means over the splits of the outcomes of CONTROLS.

    The share of the examples on which they disagree, how often who is right, and the share of the fall in AURC that is made where
    they disagree: the duo is brought in there first or there last, and the two effects are averaged; NaN if AURC stays.
    """
    found = []
    for base, duo, small, agree, disagree in zip(
        *(outcomes[name] for name in ("base", "ours", "sidekick", "agree_only", "disagree_only")), strict=True
    ):
        apart = as_tensor(base.preds != small.preds)
        start, end, first, last = (aurc(each.confidence, each.correct) for each in (base, duo, agree, disagree))
        right = {"large right there": base, "sidekick": small, "duo": duo}
        found.append(
            {"disagree on": apart, "right where they agree": base.correct[~apart]}
            | {name: each.correct[apart] for name, each in right.items()}
            | {"share of the gain": torch.tensor(start - last + first - end) / 2 / torch.tensor(start - end)}
        )
    return {name: sum(each[name].double().mean().item() for each in found) / len(found) for name in found[0]}


RADAR = ("brier", "aurc", "auroc", "accuracy", "nll", "macro_f1")  # the corners of figure 1, in its order


def mean_way(scores: xr.DataArray, start: str, band: Sequence[float]) -> xr.DataArray:
    """How far the duo goes on the way from another variant to perfection in the measures of RADAR, the mean over some pairs.

    (m - b) / (1 - b) where 1 is best and (b - m) / b where 0 is; NaN if no pair has a balance in the band.

    Args:
        scores: of `compare`, with the dimension pair and its balance.
        start: the variant b, "base" or "raw".
        band: least and largest balance.

    Source:
        Zhou et al. 2025 (arXiv:2505.18636), figure 1.
    """
    inside = (scores.balance >= band[0]) & (scores.balance <= band[1])
    own = scores.sel(pair=inside, measure=list(RADAR))
    best = xr.DataArray([float(MEASURES[name].higher_is_better) for name in RADAR], {"measure": own.measure})
    base, count = own.sel(variant=start), own.sizes["pair"]
    way = ((own.sel(variant="ours") - base) / (best - base)).mean("pair")
    return way.assign_coords(pairs=f"{count} pair{'s' * (count != 1)}")


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


def fit_duo_as_released(large: Table, small: Table, labels: Column) -> DuoFit:
    """`fit_duo` with the weights of `fit_duo_zhou2025`, and their NLL in float64; the rest is that of the optimum."""
    weights = fit_duo_zhou2025(large, small, labels).weights
    members = [as_tensor(large), as_tensor(small)]
    nll, _, _ = nll_derivatives(members, as_tensor(labels), torch.tensor(weights, dtype=torch.float64))
    return fit_duo(large, small, labels)._replace(weights=weights, nll=nll)


def fit_duo_by_brier(large: Table, small: Table, labels: Column) -> DuoFit:
    """`fit_duo` with the weights >= 0 that minimise the Brier score, from those of the likelihood; ours, not the paper's."""
    fit = fit_duo(large, small, labels)
    first, second = as_tensor(large).double(), as_tensor(small).double()
    target = one_hot(as_tensor(labels), first.shape[1])

    def score(weights: Any) -> tuple[float, Any]:
        at = torch.tensor(weights, dtype=torch.float64, requires_grad=True)
        value = ((at[0] * first + at[1] * second).softmax(-1) - target).square().sum(-1).mean()
        value.backward()
        return value.item(), np.asarray(at.grad)

    best = minimize(score, fit.weights, method="L-BFGS-B", jac=True, bounds=[(0, None)] * 2)
    return fit._replace(weights=(float(best.x[0]), float(best.x[1])))


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
