"""Dynamic duos: a large network and a sidekick whose temperatures depend on the image.

The exploratory variant in the released code of Zhou et al. 2025 (arXiv:2505.18636):

    logits = f_large / tau_large(x) + f_small / tau_small(x),   tau(x) = softplus(slope . h(x) + intercept)

with h(x) the features of the networks. Slopes start at 0, intercepts at 1, and L-BFGS (step 0.5, 20 iterations, strong
Wolfe line search) lowers the NLL on validation examples. With slopes 0 it is the duo of `duos`, whose weights are 1 / tau.

Known differences: features are standardised first (standardise=False is the released way), and the slopes may be
penalised (l2 = 0 is the released way). The loss is the mean over all examples in float64; the released one adds up the
means of batches of 128, drawn anew at each evaluation, so the line search sees a little noise and the last, smaller batch
counts for more.

The NLL is not convex in slopes and intercepts, and hundreds of slopes fit hundreds of examples all too well: without a
penalty, the number of iterations is what holds them back.
"""

from collections.abc import Callable, Mapping, Sequence
from math import inf, isfinite, log
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from uqlib.base.arrays import Array, Column, Table, add_up, as_tensor, like
from uqlib.base.checks import check_finite, check_labels, check_rows, check_same_shape, check_size
from uqlib.base.options import check_choice, check_number, check_result, check_strengths, check_whole
from uqlib.combine.duos import Decision, DuoFit, ours, refuse_constant
from uqlib.metrics.outcomes import Outcome

STRENGTHS = (0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 100.0)
COLDEST = 1e-12  # a lower temperature changes no probability in float64, but may overflow

Pair = tuple[Tensor, Tensor]  # (large, small)


class DynamicFit(NamedTuple):
    """Slopes and intercepts of the two temperatures. Pairs are (large, small)."""

    slopes: tuple[Float[Tensor, " k"], Float[Tensor, " l"]]  # in units of the features as they were given, float64
    intercepts: tuple[float, float]
    features: str  # a name in FEATURES: what the slopes belong to
    l2: float
    nll: float  # mean over the examples of the fit, without the penalty, nats
    gradient: float  # largest entry, of what was minimised: zero at the optimum, and rarely reached in 20 iterations
    iterations: int


class L2Choice(NamedTuple):
    """The penalty with the lowest NLL on examples that were held out in turn."""

    l2: float
    strengths: tuple[float, ...]  # that were tried
    nlls: tuple[float, ...]  # mean over all examples, each judged by a fit without it, nats; lower is better


def _concat(large: Tensor, small: Tensor) -> Pair:
    both = torch.cat([large, small], -1)
    return both, both


def _own(large: Tensor, small: Tensor) -> Pair:
    return large, small


FEATURES: dict[str, Callable[[Tensor, Tensor], Pair]] = {"concat": _concat, "own": _own}


def fit_dynamic_duo(
    large: Table,
    small: Table,
    large_features: Table,
    small_features: Table,
    labels: Column,
    *,
    features: str = "concat",
    l2: float = 0.0,
    iterations: int = 20,
    standardise: bool = True,
) -> DynamicFit:
    """Temperatures that depend on the features, with a low NLL on these examples, which should be held out from training.

    Minimises NLL + l2 / 2 * sum of squared slopes. An iteration costs about n (c + d) operations; memory is that of
    logits and features in float64, a few times.

    Args:
        large: logits (n, c).
        small: logits (n, c) of the sidekick, the same rows and classes.
        large_features: (n, d) of the large network, the same rows.
        small_features: (n, d2) of the sidekick.
        labels: (n,), classes in [0, c).
        features: "concat" (both temperatures see the features of both networks) or "own" (each those of its network).
        l2: strength of the penalty, 0 or larger; with many iterations a large one leaves the two numbers of `duos.fit_duo`.
        iterations: of L-BFGS, at most; the line search may take a quarter more evaluations than that.
        standardise: bring each feature to mean 0 and standard deviation 1 over these examples first. Then the penalty
            treats all alike, and few iterations go further; the released code takes them as they are.

    Raises:
        ValueError: if the choice of features is unknown, l2 or iterations are out of range, shapes differ, logits or
            features are not finite or too large, logits are probabilities or the same for every row or class, or a label
            is outside [0, c); if the duo is no better than guessing, as when labels are in another order, or diverges.

    Source:
        Zhou et al. 2025 (arXiv:2505.18636), released code.
    """
    combine = FEATURES[check_choice(features, FEATURES, "features")]
    l2, iterations = check_number(l2, "l2", least=0), check_whole(iterations, "iterations", least=1)
    members, inputs = _check(large, small, large_features, small_features)
    labels = check_labels(labels, members[0].shape[1], rows=len(members[0]), device=members[0].device)
    refuse_constant(members[0], "large")
    refuse_constant(members[1], "small")
    scales = [_scale(part, standardise) for part in inputs]
    scaled = [(part - mean) / std for part, (mean, std) in zip(inputs, scales, strict=True)]
    (slopes, intercepts), nll, gradient, steps = _descend(members, combine(*scaled), labels, l2, iterations)
    _refuse_failure(nll, gradient, members[0].shape[1])
    means, stds = (combine(*parts) for parts in zip(*scales, strict=True))
    ours, theirs = (slope / std for slope, std in zip(slopes, stds, strict=True))
    shifts = [(slope @ mean).item() for slope, mean in zip((ours, theirs), means, strict=True)]
    offsets = (intercepts[0].item() - shifts[0], intercepts[1].item() - shifts[1])
    return DynamicFit((ours, theirs), offsets, features, l2, nll, gradient, steps)


def dynamic_temperatures(large_features: Table, small_features: Table, fit: DynamicFit) -> Float[Array, "n 2"]:
    """The temperatures of the large network and of the sidekick, image by image, float64. They divide the logits.

    Raises:
        ValueError: if features are not finite, have different rows, or another width than those of the fit.
    """
    inputs = _check_features(large_features, small_features)
    return like(torch.stack(_fitted_temperatures(inputs, fit), 1), large_features)


def dynamic_logits(
    large: Table, small: Table, large_features: Table, small_features: Table, fit: DynamicFit
) -> Float[Array, "n c"]:
    """large / tau_large(x) + small / tau_small(x), float64.

    Raises:
        ValueError: if shapes differ or are not those of the fit, logits or features are not finite, or logits are
            probabilities.
    """
    members, inputs = _check(large, small, large_features, small_features)
    return like(_mix(members, _fitted_temperatures(inputs, fit)), large)


def dynamic_duo(large: Table, small: Table, large_features: Table, small_features: Table, fit: DynamicFit) -> Decision:
    """What the dynamic duo says: its predictions, its probabilities, and the probability of its prediction as confidence.

    Args:
        large, small, large_features, small_features: as in `fit_dynamic_duo`, of other examples.
        fit: from `fit_dynamic_duo`.

    Raises:
        ValueError: as `dynamic_logits`.
    """
    members, inputs = _check(large, small, large_features, small_features)
    probs = _mix(members, _fitted_temperatures(inputs, fit)).softmax(-1)
    confidence, preds = probs.max(-1)
    return Decision(like(preds, large), like(probs, large), like(confidence, large))


def decide_rows(
    fits: Mapping[Any, Sequence[DynamicFit | DuoFit]],
    large: Tensor,
    small: Tensor,
    large_features: Tensor,
    small_features: Tensor,
    labels: Tensor,
    rows: Sequence[Any],
) -> dict[Any, list[Outcome]]:
    """By variant, what its k-th fit decides of the k-th rows; two weights (a `DuoFit`) do not see the features.

    Args:
        large, small, large_features, small_features, labels: as in `fit_dynamic_duo`, of all examples.
        rows: of each split, which its fits have not seen.
    """
    found: dict[Any, list[Outcome]] = {name: [] for name in fits}
    for k, own in enumerate(rows):
        one, other, first, second = (table[own] for table in (large, small, large_features, small_features))
        for name, each in fits.items():
            if isinstance(fit := each[k], DuoFit):
                decision = ours(one, other, fit)
            else:
                decision = dynamic_duo(one, other, first, second, fit)
            found[name].append(Outcome(*decision, labels[own]))
    return found


def choose_l2(
    large: Table,
    small: Table,
    large_features: Table,
    small_features: Table,
    labels: Column,
    *,
    strengths: Sequence[float] = STRENGTHS,
    folds: int = 5,
    seed: int = 0,
    **options: Any,
) -> L2Choice:
    """The penalty for `fit_dynamic_duo` with the lowest NLL by cross-validation within these examples.

    Pass the examples of the fit alone, so that none of the test is used. Equal NLLs go to the penalty that comes first.
    Costs folds x penalties fits.

    Args:
        large, small, large_features, small_features, labels: as in `fit_dynamic_duo`.
        strengths: penalties to try.
        folds: parts, of equal size up to one row, that are held out in turn.
        seed: of the parts; they are the same on every machine.
        **options: as in `fit_dynamic_duo`.

    Raises:
        ValueError: if there is nothing to try, folds are not in [2, n], or as `fit_dynamic_duo`.
    """
    strengths = check_strengths(strengths)
    members, inputs = _check(large, small, large_features, small_features)
    labels = check_labels(labels, members[0].shape[1], rows=len(members[0]), device=members[0].device)
    parts = [part.to(labels.device) for part in _folds(len(labels), folds, seed)]
    nlls = []
    for l2 in strengths:
        total = 0.0
        for judge in parts:
            learn = torch.ones_like(labels, dtype=torch.bool)
            learn[judge] = False
            fit = fit_dynamic_duo(*(part[learn] for part in (*members, *inputs, labels)), l2=l2, **options)
            first, second, *features = (part[judge] for part in (*members, *inputs))
            logits = dynamic_logits(first, second, features[0], features[1], fit)
            total += cross_entropy(as_tensor(logits), labels[judge], reduction="sum").item()
        nlls.append(total / len(labels))
    return L2Choice(strengths[int(np.argmin(nlls))], strengths, tuple(nlls))


def _descend(
    members: Pair, inputs: Pair, labels: Int[Tensor, " n"], l2: float, iterations: int
) -> tuple[tuple[list[Tensor], Tensor], float, float, int]:
    """Slopes, intercepts, NLL, largest entry of the gradient and number of iterations."""
    # in these units a strong penalty has curvature 1, and L-BFGS feels at home; without one they are the slopes
    unit = (1 + l2) ** -0.5
    slopes = [torch.zeros_like(part[0]).requires_grad_() for part in inputs]
    intercepts = torch.ones(2, dtype=torch.float64, device=labels.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [*slopes, intercepts],
        lr=0.5,
        max_iter=iterations,
        tolerance_grad=1e-10,
        tolerance_change=1e-13,
        history_size=100,
        line_search_fn="strong_wolfe",
    )

    def nll() -> Tensor:
        return cross_entropy(
            _mix(members, _temperatures(inputs, [unit * s for s in slopes], intercepts.unbind())), labels
        )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = nll() + l2 / 2 * add_up((unit * slope).square().sum() for slope in slopes)
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
        loss()
    gradient = max(part.grad.abs().max().item() for part in (*slopes, intercepts) if part.grad is not None)
    with torch.no_grad():
        value = nll().item()
    steps = optimizer.state[slopes[0]]["n_iter"]
    return ([unit * slope.detach() for slope in slopes], intercepts.detach()), value, gradient, steps


def _temperatures(inputs: Pair, slopes: Sequence[Tensor], intercepts: Sequence[Any]) -> list[Float[Tensor, " n"]]:
    bent = [part @ slope + b for part, slope, b in zip(inputs, slopes, intercepts, strict=True)]
    return [torch.logaddexp(each, torch.zeros_like(each)).clamp(min=COLDEST) for each in bent]


def _fitted_temperatures(inputs: Pair, fit: DynamicFit) -> list[Float[Tensor, " n"]]:
    check_result(fit, DynamicFit, "fit", "fit_dynamic_duo")
    inputs = FEATURES[fit.features](*inputs)
    for part, slope, name in zip(inputs, fit.slopes, ("large", "small"), strict=True):
        if part.shape[1] != len(slope):
            raise ValueError(
                f"the fit takes {len(slope)} features for the temperature of the {name} network ({fit.features!r}); these "
                f"are {part.shape[1]}"
            )
    return _temperatures(inputs, [slope.to(inputs[0].device) for slope in fit.slopes], fit.intercepts)


def _mix(members: Pair, temperatures: Sequence[Float[Tensor, " n"]]) -> Float[Tensor, "n c"]:
    return members[0] / temperatures[0][:, None] + members[1] / temperatures[1][:, None]


def _scale(features: Float[Tensor, "n d"], standardise: bool) -> tuple[Float[Tensor, " d"], Float[Tensor, " d"]]:
    """Mean and standard deviation, or 0 and 1. A constant feature says nothing: divided by infinity, it gets slope 0."""
    mean, std = features.mean(0), features.std(0, correction=0)
    if not standardise:
        return torch.zeros_like(mean), torch.ones_like(std)
    return mean, torch.where(std > 1e-6 * mean.abs(), std, inf)


def _refuse_failure(nll: float, gradient: float, classes: int) -> None:
    """A fit that went astray, or that found nothing: temperatures that grow until every class is as likely as any."""
    if not (isfinite(nll) and isfinite(gradient)):
        raise ValueError(
            f"the fit diverged: its NLL is {nll} and its gradient {gradient}. Features of a large size without "
            "standardise=True?"
        )
    if nll >= log(classes):
        raise ValueError(
            f"the duo says nothing of these labels: its NLL is {nll:.4f}, that of guessing is {log(classes):.4f}. Do logits "
            "and labels list the same examples, and the classes in the same order?"
        )


def _folds(n: int, folds: int, seed: int) -> list[Int[Tensor, " k"]]:
    folds = check_whole(folds, "folds, of the rows,", least=2, most=n)
    order = np.argsort(np.random.PCG64(check_whole(seed, "seed", least=0)).random_raw(n), kind="stable")
    return [torch.from_numpy(part) for part in np.array_split(order, folds)]


def _check(large: Table, small: Table, large_features: Table, small_features: Table) -> tuple[Pair, Pair]:
    members = check_same_shape({"large": large, "small": small})
    for name, member in zip(("large", "small"), members, strict=True):
        check_size(member, name)
    inputs = _check_features(large_features, small_features, rows=len(members[0]), device=members[0].device)
    return (members[0].double(), members[1].double()), inputs


def _check_features(large: Table, small: Table, *, rows: int | None = None, device: torch.device | None = None) -> Pair:
    first = _check_table(large, "large_features", rows).to(device)
    second = _check_table(small, "small_features", len(first)).to(first.device)
    return first, second


def _check_table(features: Table, name: str, rows: int | None) -> Float[Tensor, "n d"]:
    features = as_tensor(features, name)
    if features.ndim != 2 or not features.numel():
        raise ValueError(
            f"{name} must have shape (n, d), with at least one row and one feature; it is {tuple(features.shape)}"
        )
    check_rows(features, rows, name)
    check_finite(features, name)
    features = features.double()
    check_size(features, name)
    return features
