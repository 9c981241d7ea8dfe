"""Asymmetric Duos: a large network and a small sidekick, whose logits are added with two fitted weights.

Zhou, Shelhamer & Pleiss 2025 (arXiv:2505.18636), and the same for any number of networks. The weights multiply the
logits, as in the paper; the released code divides by temperatures and halves: weight = 1 / (2 tau).

Known difference: the released code searches a grid of 25 x 25 and then takes small steps. Here the NLL, which is
convex in the weights, is minimised to rounding, so it is never above theirs.
"""

from collections.abc import Callable
from math import inf, log
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uqlib.base.arrays import Array, Column, Table, add_up, like
from uqlib.base.checks import check_labels, check_members, check_same_shape, check_size
from uqlib.base.options import check_choice, check_number, check_result
from uqlib.solve.likelihood import fit_nonnegative_weights, standard_errors
from uqlib.solve.newton import Minimum, NoMinimum


class InfiniteWeights(ValueError):
    """Some weights put every label first, so the NLL falls for ever as they grow: few examples, or those of the training."""


class DuoFit(NamedTuple):
    """Two weights, and how well they are known to be the best. Pairs are (large, small)."""

    weights: tuple[float, float]  # multiply the logits, >= 0
    standard_errors: tuple[float, float]  # of the weights; NaN at weight 0, infinite if only their sum is known
    nll: float  # mean over the examples of the fit, nats
    gradient: tuple[float, float]  # of the NLL in the weights; zero at the optimum, or positive at weight 0
    gap: float  # how far the NLL lies above its minimum, to second order, nats
    temperatures: tuple[float, float]  # of each network alone; divide the logits
    alone: tuple[float, float]  # NLL of each network alone at its temperature
    iterations: int  # passes over the logits for the weights
    log_weighting_error: float = inf  # standard error of log(relative_weighting), the temperatures alone held fixed


class WeightsFit(NamedTuple):
    """One weight a member, and how well they are known to be the best."""

    weights: Float[Array, " m"]  # multiply the logits, >= 0
    standard_errors: Float[Array, " m"]  # NaN at weight 0, infinite if the data leave a direction free
    nll: float
    gradient: Float[Array, " m"]
    gap: float
    iterations: int


class Decision(NamedTuple):
    """What a network or a duo says of each example."""

    preds: Int[Array, " n"]
    probs: Float[Array, "n c"]
    confidence: Float[Array, " n"]  # higher = more certain


def fit_duo(large: Table, small: Table, labels: Column) -> DuoFit:
    """The weights >= 0 of the two networks with the lowest NLL on these examples, fitted together.

    Weight 0 for the sidekick gives back the large network with its temperature, so on these examples the NLL of the
    duo is never above that. About five passes over the logits for each of three fits (joint, and each network alone);
    beside the logits, memory does not grow with n.

    Args:
        large: logits (n, c).
        small: logits (n, c) of the sidekick, the same rows and classes.
        labels: (n,), classes in [0, c).

    Raises:
        ValueError: if the weights would be infinite because together the networks put every label first, or both zero
            because neither knows the labels; if one network alone is no better than guessing, as when its rows or its
            classes stand in another order; if its logits are the same in every row or for every class; if shapes
            differ, logits are not finite or are probabilities, or a label is outside [0, c).

    Source:
        Zhou et al. 2025 (arXiv:2505.18636).

    Examples:
        >>> import numpy as np
        >>> from uqlib.combine import fit_duo
        >>> rng = np.random.default_rng(0)
        >>> labels = rng.integers(0, 5, 2000)
        >>> large, small = (skill * np.eye(5)[labels] + rng.normal(size=(2000, 5)) for skill in (2, 1))
        >>> fit = fit_duo(large, small, labels)
        >>> np.round(fit.weights, 1)  # the logits that are the log odds of these normal numbers: 2 and 1
        array([2.1, 1.1])
    """
    members = _check_pair(large, small)
    for name, member in zip(("large", "small"), members, strict=True):
        check_size(member, name)
    labels = check_labels(labels, members[0].shape[1], rows=len(members[0]), device=members[0].device)
    refuse_constant(members[0], "large")
    refuse_constant(members[1], "small")
    fit = _fit(members, labels)
    _refuse_zero(fit, "both weights")
    alone = [_fit([member], labels) for member in members]
    for name, one in zip(("large", "small"), alone, strict=True):
        _refuse_guessing(one, name, len(labels), members[0].shape[1])
    errors = standard_errors(fit, len(labels))
    return DuoFit(
        weights=_pair(fit.point),
        standard_errors=_pair(errors),
        nll=fit.value,
        gradient=_pair(fit.gradient),
        gap=fit.gap,
        temperatures=_pair(1 / torch.cat([one.point for one in alone])),
        alone=(alone[0].value, alone[1].value),
        iterations=fit.iterations,
        log_weighting_error=_log_ratio_error(fit, errors, len(labels)),
    )


def duo_logits(large: Table, small: Table, fit: DuoFit) -> Float[Array, "n c"]:
    """weight_large * large + weight_small * small, float64. A constant that a row lacks, its sum lacks too.

    Raises:
        ValueError: if shapes differ, or logits are not finite, too large or are probabilities.
        TypeError: if fit is no `DuoFit`.
    """
    return like(_mix(_check_pair(large, small), fit), large)


def base(large: Table, small: Table, fit: DuoFit) -> Decision:
    """The large network alone, with its own temperature. The sidekick is not used."""
    scaled, _ = _scaled(large, small, fit)
    return _decide(scaled.softmax(-1), large)


def ours(large: Table, small: Table, fit: DuoFit) -> Decision:
    """The duo: its own prediction, and the probability of that class as confidence."""
    return _decide(_mix(_check_pair(large, small), fit).softmax(-1), large)


def unweighted(large: Table, small: Table, fit: DuoFit) -> Decision:
    """The mean of the logits, after each network is given its own temperature."""
    return _decide(_mean_of_logits(_scaled(large, small, fit)), large)


def uq_only(large: Table, small: Table, fit: DuoFit) -> Decision:
    """The large network's prediction, with the duo's probability of that class as confidence."""
    members = _check_pair(large, small)
    return _decide(_mix(members, fit).softmax(-1), large, preds=members[0].argmax(-1))


def softmax_average(large: Table, small: Table, fit: DuoFit) -> Decision:
    """The mean of the probabilities, after each network is given its own temperature. Not in the paper."""
    return _decide(_mean_of_probs(_scaled(large, small, fit)), large)


def raw(large: Table, small: Table, fit: DuoFit) -> Decision:
    """The large network alone, as it was trained. Neither sidekick nor fit is used."""
    check_result(fit, DuoFit, "fit", "fit_duo")
    return base(large, small, fit._replace(temperatures=(1.0, 1.0)))


VARIANTS: dict[str, Callable[[Table, Table, DuoFit], Decision]] = {
    "base": base,
    "ours": ours,
    "unweighted": unweighted,
    "uq_only": uq_only,
    "softmax_average": softmax_average,
    "raw": raw,
}


def decide(name: str, large: Table, small: Table, fit: DuoFit) -> Decision:
    """What the variant of that name in VARIANTS says: predictions, probabilities (float64) and confidence.

    Args:
        name: "base", "ours", "unweighted", "uq_only", "softmax_average" or "raw".
        large: logits (n, c).
        small: logits (n, c) of the sidekick, the same rows and classes.
        fit: from fit_duo, on other examples.

    Raises:
        ValueError: if the name is unknown, shapes differ, or logits are not finite or are probabilities.

    Source:
        Zhou et al. 2025 (arXiv:2505.18636).

    Examples:
        >>> import numpy as np
        >>> from uqlib.combine import decide, fit_duo
        >>> rng = np.random.default_rng(0)
        >>> labels = rng.integers(0, 5, 2000)
        >>> large, small = (skill * np.eye(5)[labels] + rng.normal(size=(2000, 5)) for skill in (2, 1))
        >>> fit = fit_duo(large[:1000], small[:1000], labels[:1000])
        >>> one, both = (decide(name, large[1000:], small[1000:], fit) for name in ('base', 'ours'))
        >>> [float((each.preds == labels[1000:]).mean().round(2)) for each in (one, both)]
        [0.8, 0.83]
    """
    return VARIANTS[check_choice(name, VARIANTS, "variant")](large, small, fit)


def fit_weights(member_logits: Table, labels: Column) -> WeightsFit:
    """One weight >= 0 for each of m networks, with the lowest NLL of the weighted sum of their logits.

    Args:
        member_logits: (m, n, c), or a list of m tables (n, c).
        labels: (n,), classes in [0, c).

    Raises:
        ValueError: if the weights would be infinite because together the networks put every label first, or all zero
            because none knows the labels; if shapes differ, logits are not finite, too large or are probabilities, or a
            label is outside [0, c).

    Source:
        The duo of Zhou et al. 2025 (arXiv:2505.18636), for m networks.

    Examples:
        >>> import numpy as np
        >>> from uqlib.combine import fit_weights
        >>> rng = np.random.default_rng(0)
        >>> labels = rng.integers(0, 5, 2000)
        >>> members = [skill * np.eye(5)[labels] + rng.normal(size=(2000, 5)) for skill in (2, 1, 0)]
        >>> np.round(fit_weights(members, labels).weights, 1)  # the last knows nothing
        array([2.1, 1.1, 0. ])
    """
    members = check_members(member_logits)
    for m, member in enumerate(members):
        check_size(member, f"member_logits[{m}]")
    labels = check_labels(labels, members[0].shape[1], rows=len(members[0]), device=members[0].device)
    fit = _fit(members, labels)
    _refuse_zero(fit, f"all {len(members)} weights")
    parts = (fit.point, standard_errors(fit, len(labels)), fit.gradient)
    weights, errors, gradient = (like(part.to(labels.device), member_logits) for part in parts)
    return WeightsFit(weights, errors, fit.value, gradient, fit.gap, fit.iterations)


def _mean_of_probs(members: list[Tensor]) -> Tensor:
    return add_up(member.softmax(-1, dtype=torch.float64) for member in members) / len(members)


def _mean_of_logits(members: list[Tensor]) -> Tensor:
    return _finite(add_up(member.double() for member in members) / len(members)).softmax(-1)


AVERAGES: dict[str, Callable[[list[Tensor]], Tensor]] = {"probs": _mean_of_probs, "logits": _mean_of_logits}


def ensemble_probs(member_logits: Table, *, average: str = "probs") -> Float[Array, "n c"]:
    """Probabilities of an ensemble, float64: the mean of the members' probabilities, or the softmax of the mean logits.

    Args:
        member_logits: (m, n, c), or a list of m tables (n, c).
        average: "probs" (deep ensembles, Lakshminarayanan et al. 2017, arXiv:1612.01474) or "logits" (as Zhou et al.
            2025 average theirs).

    Raises:
        ValueError: if the average is unknown, shapes differ, or logits are not finite or are probabilities.

    Examples:
        >>> from uqlib.combine import ensemble_probs
        >>> ensemble_probs([[[2.0, 0.0]], [[0.0, 2.0]]])  # two members that contradict each other
        array([[0.5, 0.5]])
    """
    mean = AVERAGES[check_choice(average, AVERAGES, "average")]
    return like(mean(check_members(member_logits)), member_logits)


def relative_weighting(fit: DuoFit) -> float:
    """How far the duo leans on the large network, beyond what the scales of the two kinds of logits explain.

    (tau*_large / tau_large) / (tau*_small / tau_small), joint over stand-alone. Above 1: more weight than equal weights
    on calibrated logits would give the large network. Infinite if the sidekick's weight is 0.

    Source:
        Zhou et al. 2025 (arXiv:2505.18636), appendix, learned relative weighting.
    """
    check_result(fit, DuoFit, "fit", "fit_duo")
    large, small = (weight * temperature for weight, temperature in zip(fit.weights, fit.temperatures, strict=True))
    if fit.weights[1] == 0:
        return inf
    return large / small


def flops_balance(small_macs: float, large_macs: float) -> float:
    """Cost of the sidekick as a share of the large network: 0 is the large network alone, 1 an ensemble of two like it.

    Args:
        small_macs, large_macs: multiply-adds, or FLOPs, of one image, counted alike for both.

    Raises:
        ValueError: if a cost is negative or not finite, or the large one is 0.

    Source:
        Zhou et al. 2025 (arXiv:2505.18636).

    Examples:
        >>> from uqlib.combine import flops_balance
        >>> flops_balance(41e6, 410e6)
        0.1
    """
    return check_number(small_macs, "small_macs", least=0) / check_number(large_macs, "large_macs", above=0)


def _fit(members: list[Float[Tensor, "n c"]], labels: Int[Tensor, " n"]) -> Minimum:
    try:
        return fit_nonnegative_weights(members, labels)
    except NoMinimum:
        raise InfiniteWeights(
            f"the weights would be infinite: some weights put every one of the {len(labels)} labels first, so the NLL "
            "falls for ever as they grow. Fit on examples that the networks were not trained on, or on more of them."
        ) from None


def _log_ratio_error(fit: Minimum, errors: Float[Tensor, " 2"], count: int) -> float:
    """Of log(w_large / w_small), by the delta method; as the errors of the weights where these are not finite."""
    if not errors.isfinite().all():
        return float(errors.sum())
    slope = torch.stack([1 / fit.point[0], -1 / fit.point[1]])
    return float((slope @ torch.linalg.solve(fit.hessian, slope) / count).sqrt())


def _mix(members: list[Float[Tensor, "n c"]], fit: DuoFit) -> Float[Tensor, "n c"]:
    check_result(fit, DuoFit, "fit", "fit_duo")
    return _finite(fit.weights[0] * members[0].double() + fit.weights[1] * members[1].double())


def _scaled(large: Table, small: Table, fit: DuoFit) -> list[Float[Tensor, "n c"]]:
    check_result(fit, DuoFit, "fit", "fit_duo")
    pairs = zip(_check_pair(large, small), fit.temperatures, strict=True)
    return [
        _finite(member.double() / check_number(each, "temperature", above=0, finite=False)) for member, each in pairs
    ]


def _finite(logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    if not logits.sum().isfinite() and not logits.isfinite().all():
        raise ValueError(
            "large and small (or member_logits) must be so small that their weighted sum does not overflow. Weights of a fit "
            "on logits of another size? Divide all of them by a constant, for the fit too."
        )
    return logits


def _decide(probs: Float[Tensor, "n c"], given: Table, preds: Int[Tensor, " n"] | None = None) -> Decision:
    preds = probs.argmax(-1) if preds is None else preds
    confidence = probs.gather(1, preds[:, None])[:, 0]
    return Decision(like(preds, given), like(probs, given), like(confidence, given))


def _check_pair(large: Table, small: Table) -> list[Float[Tensor, "n c"]]:
    """Both on the device of the first."""
    return check_same_shape({"large": large, "small": small})


def refuse_constant(logits: Float[Tensor, "n c"], name: str) -> None:
    """A network that says the same of every example, or nothing of any, has no weight that means anything."""
    if bool((logits.amax(-1) == logits.amin(-1)).all()):
        raise ValueError(f"{name} is constant: every row has the same logit for all classes, so it has no say")
    if len(logits) > 1 and bool((logits.amax(0) == logits.amin(0)).all()):
        raise ValueError(f"{name} is constant: its logits are the same in every row. Was one image repeated?")


def _refuse_zero(fit: Minimum, which: str) -> None:
    """Weights that are all zero say nothing, of whatever image."""
    if not fit.point.any():
        raise ValueError(
            f"{which} are best at zero: the logits of the labels are on average no larger than those of the other "
            "classes. Do logits and labels list the same examples, and the classes in the same order?"
        )


def _refuse_guessing(alone: Minimum, name: str, n: int, classes: int) -> None:
    """A network that is no better than equal chances, by a likelihood-ratio test at p = 0.001, was asked something else."""
    chance = log(classes)
    if 2 * n * (chance - alone.value) < 10.83:  # chi-squared with one degree of freedom
        raise ValueError(
            f"{name} says nothing of these labels: alone, at its best temperature, its NLL on the {n} examples is "
            f"{alone.value:.4f}, that of guessing is {chance:.4f}. Do its rows list the same examples, and its columns the "
            "classes in the same order, as the labels?"
        )


def _pair(values: Float[Tensor, " m"]) -> tuple[float, float]:
    return values[0].item(), values[1].item()
