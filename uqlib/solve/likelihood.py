"""The mean NLL of a weighted sum of logits, and the weights >= 0 that minimise it: softmax(w_1 f_1 + ... + w_m f_m).

One network's inverse temperature is the case m = 1, a duo m = 2. The NLL is convex in the weights (it is a conditional
logit, McFadden 1974, with one covariate a network), though not in the temperatures 1/w. With d = f - f_label:

    value     mean of logsumexp(w . d)
    gradient  mean of E_p[d]
    Hessian   mean of Cov_p(d, d)

One pass over the logits gives all three. The rows go through float64 in chunks that fit in the cache, so that the
memory beside the input does not grow with n.
"""

from contextlib import suppress

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uqlib.base.arrays import by_rows
from uqlib.solve.newton import Minimum, NoMinimum, minimize

CHUNK = 2**16  # logits of one network in a chunk: 0.5 MiB in float64, of which a pass holds about 2 + 2m
SAMPLE = 1000  # rows that place the start of the search
SPREAD = 10.0  # of weighted logits below the top of their row, at the start of the search: that of networks as they are trained


def nll_derivatives(
    members: list[Float[Tensor, "n c"]], labels: Int[Tensor, " n"], weights: Float[Tensor, " m"]
) -> tuple[float, Float[Tensor, " m"], Float[Tensor, "m m"]]:
    """Value, gradient and Hessian of the mean NLL at these weights, float64 on the CPU."""
    count, m = len(labels), len(members)
    weights = weights.to(labels.device)
    # row 0: value and gradient; below: second moments. One tensor, so that a GPU is asked once
    total = torch.zeros(1 + m, 1 + m, dtype=torch.float64, device=labels.device)
    rows = (CHUNK if labels.device.type == "cpu" else 2**22) // members[0].shape[1]
    for label, *parts in by_rows(rows, labels, *members):
        total += _sums(parts, label, weights)
    total = total.cpu() / count
    return total[0, 0].item(), total[0, 1:], total[1:, 1:]


def _sums(
    members: list[Float[Tensor, "n c"]], labels: Int[Tensor, " n"], weights: Float[Tensor, " m"]
) -> Float[Tensor, "k k"]:
    d = torch.stack([member.double() for member in members])
    d -= d.gather(2, labels.expand(len(d), -1)[:, :, None])
    mixed = torch.einsum("m,mnc->nc", weights, d) if len(d) > 1 else weights * d[0]
    top = mixed.amax(-1, keepdim=True)
    probs = (mixed - top).exp_()
    normaliser = probs.sum(-1, keepdim=True)
    probs /= normaliser
    weighted = probs * d
    means = weighted.sum(-1)
    sums = torch.zeros(1 + len(d), 1 + len(d), dtype=torch.float64, device=d.device)
    sums[0, 0] = (normaliser.log() + top).sum()
    sums[0, 1:] = means.sum(-1)
    sums[1:, 1:] = weighted.flatten(1) @ d.flatten(1).T - means @ means.T
    return sums


def fit_nonnegative_weights(members: list[Float[Tensor, "n c"]], labels: Int[Tensor, " n"]) -> Minimum:
    """The weights >= 0 that minimise the mean NLL, from about six passes, whatever the scale of the logits.

    Of 4000 rows and more, every k-th places the start, about a thousand of them, and about three passes follow.

    Raises:
        NoMinimum: if some weights rank every label first, so that the NLL falls as they grow.
    """
    step = max(1, len(labels) // SAMPLE)
    some, few = [member[::step] for member in members], labels[::step]
    start = _usual_weights(some)
    if step >= 4:
        with suppress(NoMinimum):
            start = minimize(lambda w: nll_derivatives(some, few, w), start, tolerance=1e-6).point
    return minimize(lambda w: nll_derivatives(members, labels, w), start)


def _usual_weights(members: list[Float[Tensor, "n c"]]) -> Float[Tensor, " m"]:
    """Equal shares for networks whose logits are spread alike; from zero Newton's first step goes far too far."""
    spreads = torch.stack([(member.amax(-1, keepdim=True) - member).double().square().mean() for member in members])
    weights = SPREAD / len(members) * spreads.cpu().rsqrt()
    return torch.where(weights.isfinite(), weights, torch.zeros_like(weights))


def standard_errors(fit: Minimum, count: int) -> Float[Tensor, " m"]:
    """Of the weights as maximum-likelihood estimates: the root of the diagonal of the inverse Hessian / n.

    NaN for a weight held at zero, where the theory fails. Infinite where the data leave a direction free.
    """
    errors = torch.full_like(fit.point, float("nan"))
    free = fit.point > 0
    information = fit.hessian[free][:, free]
    scale = information.diagonal().clamp(min=torch.finfo(torch.float64).tiny).rsqrt()
    scaled = scale[:, None] * information * scale
    if free.any():
        known = torch.linalg.eigvalsh(scaled)[0] > 1e-12
        variance = scaled.inverse().diagonal() * scale**2 if known else torch.full_like(scale, float("inf"))
        errors[free] = (variance / count).sqrt()
    return errors
