"""The confidence at which a loss is least: what a training with it aims at."""

import math
from numbers import Real

import torch
from jaxtyping import Float
from torch import Tensor, nn

from uqlib.base.arrays import Array, Column, as_tensor, like
from uqlib.base.options import check_number, check_whole


def optimal_confidence(strength: float | Column, classes: int) -> float | Float[Array, "..."]:
    """Probability of the label at which cross entropy less strength times entropy is least, for one example.

    The loss of one example, -log p - strength H, is convex in the probabilities. At its minimum the other classes share
    the rest equally, and its derivative in the logits vanishes where z = log(p (c - 1) / (1 - p)), the lead of the
    label's logit over the others, satisfies z p = 1 / strength. No logits can do better than 1 for strength 0. That is
    what `entropy` (strength alpha) and `difficulty` (strength alpha times weight) drive a network towards that can fit
    every example.

    Args:
        strength: >= 0, one or many.
        classes: c, at least 2.

    Returns:
        In (1 / c, 1], float64, exact to 1e-12; a float for a float.

    Raises:
        ValueError: if a strength is negative or not finite, or there are fewer than 2 classes.
    """
    others = math.log(check_whole(classes, "classes", least=2) - 1)
    strengths = _check_strengths(strength)
    target = 1 / strengths.clamp_min(1e-300)  # below that, p is 1 to the last bit
    z = target  # log z + log p is increasing and concave, and not above its goal here, so Newton's steps never overshoot
    for _ in range(50):  # they square the error; about ten suffice
        log_p = nn.functional.logsigmoid(z - others)
        z = z + (target.log() - z.log() - log_p) / (1 / z - torch.expm1(log_p))
    probs = torch.sigmoid(z - others)
    return probs.item() if probs.ndim == 0 else like(probs, strength)


def _check_strengths(strength: float | Column) -> Float[Tensor, "..."]:
    if isinstance(strength, Real) or getattr(strength, "ndim", 1) == 0:
        return torch.tensor(check_number(strength, "strength", least=0), dtype=torch.float64)
    strengths = as_tensor(strength, "strength")
    if strengths.dtype == torch.bool or not strengths.numel():
        raise TypeError(f"strength must be one or more real numbers; it is {strengths.dtype} {tuple(strengths.shape)}")
    strengths = strengths.double()
    bad = ~(strengths.isfinite() & (strengths >= 0))
    if bad.any():
        raise ValueError(f"strength must be finite and >= 0; one is {strengths[bad][0].item()}")
    return strengths
