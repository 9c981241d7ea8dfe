"""Platt scaling of confidences: a slope and a shift of their log odds, for networks whose logits were not kept."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from uqlib.base.arrays import Array, Column, like
from uqlib.base.checks import check_share, check_share_and_hits
from uqlib.solve.newton import NoMinimum, minimize


def platt_scale(confidence: Column, correct: Column, others: Column) -> Float[Array, " k"]:
    """Confidences of other examples recalibrated by the slope and shift that suit these ones best.

    Args:
        confidence: (n,), in [0, 1]; its odds are cut off at 1e7 to 1.
        correct: (n,), whether each prediction is right.
        others: (k,), confidences of examples that were not fitted.

    Returns:
        Of the others, in (0, 1), float64.

    Raises:
        ValueError: if no best slope is there: nothing is wrong, nothing right, or both lie apart.

    Source:
        Platt 1999, as `cross_platt`.

    Examples:
        >>> from uqlib.calibrate import platt_scale
        >>> confidence, correct = [0.9, 0.9, 0.9, 0.9, 0.6, 0.6], [True, True, True, False, True, False]
        >>> platt_scale(confidence, correct, [0.9, 0.6]).round(3)  # right in 3 of 4, and in 1 of 2
        array([0.75, 0.5 ])
    """
    score, right = check_share_and_hits(confidence, correct)
    slope, shift = _fit(torch.special.logit(score.double(), eps=1e-7), right)
    new = check_share(others, "others").double()
    return like((slope * torch.special.logit(new, eps=1e-7) + shift).sigmoid(), others)


def cross_platt(confidence: Column, correct: Column) -> Float[Array, " n"]:
    """Confidences recalibrated by slope and shift, fitted on every other example for the ones between them.

    Args:
        confidence: (n,), in [0, 1]; its odds are cut off at 1e7 to 1.
        correct: (n,), whether each prediction is right.

    Returns:
        In (0, 1), float64.

    Raises:
        ValueError: if in a half no best slope is there: nothing is wrong, nothing right, or both lie apart.

    Source:
        Platt 1999, Probabilistic Outputs for Support Vector Machines and Comparisons to Regularized Likelihood Methods.
    """
    score, right = check_share_and_hits(confidence, correct)
    odds = torch.special.logit(score.double(), eps=1e-7)
    even = torch.arange(len(odds), device=odds.device) % 2 == 0
    (slope, shift), (other_slope, other_shift) = (_fit(odds[half], right[half]) for half in (~even, even))
    return like(torch.where(even, slope * odds + shift, other_slope * odds + other_shift).sigmoid(), confidence)


def _fit(odds: Float[Tensor, " n"], right: Bool[Tensor, " n"]) -> list[float]:
    """Slope and shift with the lowest NLL."""
    columns, hits = torch.stack([odds, torch.ones_like(odds)], 1), right.double()

    def nll(point: Tensor) -> tuple[float, Tensor, Tensor]:
        scaled = columns @ point.to(columns.device)
        chance = scaled.sigmoid()
        value = torch.nn.functional.binary_cross_entropy_with_logits(scaled, hits).item()
        slope = columns.T @ (chance - hits) / len(hits)
        return value, slope.cpu(), ((columns.T * (chance * (1 - chance))) @ columns / len(hits)).cpu()

    if not 0 < hits.sum() < len(hits):
        raise ValueError(
            f"each half needs right and wrong predictions; of {len(hits)} in one {int(hits.sum())} are right"
        )
    try:
        return minimize(nll, torch.tensor([1.0, 0.0], dtype=torch.float64), lower=-math.inf).point.tolist()
    except NoMinimum:
        raise ValueError(
            f"confidence parts right from wrong without a mistake in a half of {len(hits)}: no slope is the best"
        ) from None
