"""Meta-calibration: the calibration map of a new task, from the maps of other tasks and from what needs no label.

Amini-Naieni et al. 2024 (arXiv:2312.02350). Calibration curves on one grid are nearly a mean plus a few components:

    family = fit_family(curves, components=3)              # of other tasks, (t, k)
    meta = fit_meta(curves, features, components=3)        # features (t, d) of these tasks, without labels
    confidence = map_by_curve(confidence, grid, predict_curves(meta, features_of_the_new_task)[0])

The mean of the other curves, `family.mean`, is the rival that any prediction has to outdo.

Known differences. The paper predicts the components by a network of four layers on image features, without a penalty and from
a few thousand steps; here a ridge regression does, on features of logits. Curves are made monotone by isotonic regression, as there.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from uqlib.base.arrays import Array, Column, Table, as_tensor, by_rows, like
from uqlib.base.checks import (
    CHUNK,
    check_confidence,
    check_features,
    check_logits,
    check_share,
    check_share_and_hits,
    check_size,
)
from uqlib.base.options import check_number, check_result, check_whole
from uqlib.metrics.curves.isotonic import isotonic_curve

NEAREST = 1e-4  # to the ends of what a largest probability can be
LARGEST = 1e300  # one over a temperature
STEPS = 100  # of Newton's method, of which ten are nearly always enough


class Family(NamedTuple):
    """Curves of tasks as a mean and components."""

    mean: Float[Array, " k"]
    components: Float[Array, "m k"]  # rows of length 1, the one of the largest variance first
    shares: Float[Array, " m"]  # of the variance over the tasks


class MetaFit(NamedTuple):
    """A family, and how its coefficients follow from features."""

    family: Family
    weights: Float[Array, "d m"]  # of features in units of their spread
    centre: Float[Array, " d"]
    spread: Float[Array, " d"]  # infinite for a feature that is constant


def pit_error(pits: Column) -> float:
    """How far probability integral transforms are from uniform, lower is better: the mean of (p - share of them <= p)².

    A mean square without a root, in which every transform counts once. For n uniform ones it is about 1 / (6 n), not 0.

    Args:
        pits: (n,) values of a predicted distribution function at what came true, in [0, 1].

    Raises:
        ValueError: if one lies outside [0, 1] or is not finite.

    Source:
        Kuleshov, Fenner & Ermon 2018 (arXiv:1807.00263), with the levels of the data, as in Amini-Naieni et al. 2024.

    Examples:
        >>> from uqlib.calibrate import pit_error
        >>> pit_error([0.25, 0.5, 0.5, 1.0])  # shares 0.25, 0.75, 0.75, 1
        0.03125
    """
    p = check_share(pits, "pits").double().sort().values
    below = torch.searchsorted(p, p, right=True).double() / len(p)
    return (p - below).square().mean().item()


def pit_curve(pits: Column, *, points: int = 384) -> Float[Array, " k"]:
    """The quantile function of probability integral transforms on equal levels from 0 to 1: what `fit_family` takes.

    The expected level at each observed one. It is the inverse of the map that calibrates: `map_by_curve(pits, curve, levels)`.

    Args:
        pits: (n,) in [0, 1].
        points: k, of the grid.

    Examples:
        >>> from uqlib.calibrate import pit_curve
        >>> pit_curve([0.0, 0.25, 0.25, 0.5, 1.0], points=3)
        array([0.  , 0.25, 1.  ])
    """
    p = check_share(pits, "pits").double().sort().values
    rows = torch.linspace(0, len(p) - 1, check_whole(points, "points", least=2), dtype=torch.float64)
    return like(p[rows.long().to(p.device)], pits)


def hit_curve(confidence: Column, correct: Column, grid: Column) -> Float[Array, " k"]:
    """The share of right answers at each confidence of a grid: the blocks of isotonic regression, joined by straight lines.

    Each block stands as one point, at its mean confidence and its share of right answers. The curve runs through these points
    and is flat beyond the first and the last; it is not the step function that isotonic regression fits.

    Args:
        confidence: (n,) in [0, 1].
        correct: (n,) whether each prediction equals its label.
        grid: (k,) ascending confidences.

    Examples:
        >>> from uqlib.calibrate import hit_curve
        >>> hit_curve([0.5, 0.6, 0.9, 1.0], [False, True, True, True], [0.5, 0.6, 1.0])
        array([0. , 0.3, 1. ])
    """
    sure, right = check_share_and_hits(confidence, correct)
    curve = isotonic_curve(sure, right)
    x, y = (as_tensor(part).double().cpu().numpy() for part in (curve.confidence, curve.accuracy))
    return like(torch.from_numpy(np.interp(_grid(grid).cpu().numpy(), x, y)).to(sure.device), confidence)


def fit_family(curves: Table, *, components: int = 3) -> Family:
    """Mean and principal components of the curves of several tasks.

    Args:
        curves: (t, k), a row a task.
        components: m, fewer than tasks.

    Raises:
        ValueError: if there are not more tasks than components, or a value is not finite or beyond 1e100.

    Examples:
        >>> from uqlib.calibrate import fit_family
        >>> fit_family([[0.0, 1.0], [0.0, 3.0], [0.0, 5.0]], components=1).shares.item()
        1.0
    """
    table = _table(curves, "curves")
    count = check_whole(components, "components", least=0, most=min(len(table) - 1, table.shape[1]))
    mean = table.mean(0)
    _, size, axes = torch.linalg.svd(table - mean, full_matrices=False)
    variance = size.square()
    shares = variance[:count] / variance.sum().clamp_min(1e-300)
    return Family(*(like(part, curves) for part in (mean, axes[:count], shares)))


def project_curve(family: Family, curves: Table) -> Float[Array, "t k"]:
    """The nearest curves of the family, made monotone: with the curve of the task itself, the best that it can do.

    Examples:
        >>> from uqlib.calibrate import fit_family, project_curve
        >>> family = fit_family([[0.0, 1.0], [0.0, 3.0], [0.0, 5.0]], components=1)
        >>> project_curve(family, [[0.5, 2.0]]).tolist()
        [[0.0, 2.0]]
    """
    check_result(family, Family, "family", "fit_family")
    table = _table(curves, "curves", width=len(family.mean))
    mean, components, _ = _parts(family, table)
    return like(_monotone(mean + (table - mean) @ components.T @ components), curves)


def fit_meta(curves: Table, features: Table, *, components: int = 3, l2: float = 1.0) -> MetaFit:
    """A ridge regression from features of tasks to the coefficients of their curves.

    Args:
        curves: (t, k), a row a task.
        features: (t, d) of the same tasks, which need no labels; each is brought to mean 0 and deviation 1.
        components: of the family.
        l2: penalty on the weights, in units of a task.

    Examples:
        >>> from uqlib.calibrate import fit_meta, predict_curves
        >>> meta = fit_meta([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]], [[1.0], [2.0], [3.0]], components=1, l2=1e-9)
        >>> predict_curves(meta, [[2.5]]).round(decimals=3).tolist()
        [[0.0, 2.5]]
    """
    table = _table(curves, "curves")
    known = _table(features, "features").to(table.device)
    if len(table) != len(known):
        raise ValueError(f"features must have a row a task, {len(table)}; they have {len(known)}")
    family = fit_family(table, components=components)
    centre, spread = known.mean(0), known.std(0, correction=0)
    spread = torch.where(spread > 1e-12 * centre.abs().clamp_min(1e-300), spread, torch.inf)
    scaled = (known - centre) / spread
    gram = scaled.T @ scaled
    gram.diagonal().add_(check_number(l2, "l2", above=0))
    weights = torch.linalg.solve(gram, scaled.T @ ((table - family.mean) @ family.components.T))
    parts = [like(part, curves) for part in (weights, centre, spread)]
    return MetaFit(Family(*(like(as_tensor(part), curves) for part in family)), parts[0], parts[1], parts[2])


def predict_curves(meta: MetaFit, features: Table) -> Float[Array, "t k"]:
    """The curves of new tasks by their features, made monotone.

    Args:
        meta: from `fit_meta`.
        features: (t, d) of the new tasks, in the order of those of the fit.

    Examples:
        >>> from uqlib.calibrate import fit_meta, predict_curves
        >>> meta = fit_meta([[0.0, 1.0], [0.0, 2.0], [0.0, 3.0]], [[1.0], [2.0], [3.0]], components=1)
        >>> predict_curves(meta, [[2.0]]).tolist()
        [[0.0, 2.0]]
    """
    check_result(meta, MetaFit, "meta", "fit_meta")
    known = _table(features, "features", width=len(meta.centre))
    weights, centre, spread = _parts(meta[1:], known)
    mean, components, _ = _parts(meta.family, known)
    return like(_monotone(mean + ((known - centre) / spread) @ weights @ components), features)


def _parts(parts: Sequence[Array], beside: Tensor) -> list[Tensor]:
    return [as_tensor(part).to(beside.device) for part in parts]


def _table(values: Table, name: str, width: int | None = None) -> Float[Tensor, "t k"]:
    table = check_features(values, name, width=width).double()
    check_size(table, name)
    return table


def monotone(curves: Table) -> Float[Array, "t k"]:
    """Isotonic regression of each row: the nearest curve that never falls. Time grows with t k², memory with k².

    Args:
        curves: (t, k), a row a curve.

    Raises:
        ValueError: if they are not (t, k), or a value is not finite.

    Examples:
        >>> import torch
        >>> from uqlib.calibrate import monotone
        >>> monotone(torch.tensor([[0.0, 3.0, 1.0, 4.0]])).tolist()
        [[0.0, 2.0, 2.0, 4.0]]
    """
    return like(_monotone(check_features(curves, "curves").double()), curves)


def _monotone(curves: Float[Tensor, "t k"]) -> Float[Tensor, "t k"]:
    return torch.cat([_nowhere_falling(rows) for (rows,) in by_rows(CHUNK // curves.shape[1] ** 2, curves)])


def _nowhere_falling(curves: Float[Tensor, "t k"]) -> Float[Tensor, "t k"]:
    """Of the means of all runs: at each place the largest over the starts before it of the least over the ends after it."""
    k, device = curves.shape[-1], curves.device
    total = torch.cat([curves.new_zeros(len(curves), 1), curves.cumsum(-1)], -1)
    length = torch.arange(1, k + 1, device=device)[None, :] - torch.arange(k, device=device)[:, None]  # of the run
    means = (total[:, None, 1:] - total[:, :-1, None]) / length.clamp_min(1)
    means = means.masked_fill(length < 1, torch.inf)
    return means.flip(-1).cummin(-1).values.flip(-1).masked_fill(length < 1, -torch.inf).amax(1)


def map_by_curve(values: Column, grid: Column, curve: Column) -> Float[Array, " n"]:
    """The values moved by a curve on a grid, straight lines between its points and flat beyond its ends, within [0, 1].

    Args:
        values: (n,) probabilities.
        grid: (k,) ascending, where the curve is known.
        curve: (k,) what it makes of them.

    Examples:
        >>> from uqlib.calibrate import map_by_curve
        >>> map_by_curve([0.25, 0.75], [0.0, 0.5, 1.0], [0.0, 0.25, 1.0])
        array([0.125, 0.625])
    """
    p, x, y = check_share(values, "values"), _grid(grid), check_confidence(curve, "curve").double()
    if len(x) != len(y):
        raise ValueError(f"curve must have a value a point of the grid, {len(x)}; it has {len(y)}")
    moved = np.interp(p.double().cpu().numpy(), x.cpu().numpy(), y.cpu().numpy())
    return like(torch.from_numpy(moved).clamp(0, 1).to(p.device), values)


def logits_by_curve(logits: Table, grid: Column, curve: Column) -> Float[Array, "n c"]:
    """Logits of which each row has the temperature that makes its largest probability what the curve says of it.

    No prediction changes. A largest probability cannot fall below 1 / c, nor rise beyond 1 / m where m logits are the largest; it
    comes no closer than 1e-4 to either, and a row of equal logits stays as it is. Time is that of some ten softmaxes.

    Args:
        logits: (n, c).
        grid, curve: as in `map_by_curve`, of the largest probability.

    Examples:
        >>> from uqlib.calibrate import logits_by_curve, max_probability
        >>> max_probability(logits_by_curve([[4.0, 0.0], [0.5, 0.0]], [0.5, 1.0], [0.5, 0.8])).round(3)
        array([0.789, 0.573])
    """
    table = check_logits(logits)
    parts = [_by_curve(rows.double(), grid, curve) for (rows,) in by_rows(CHUNK // table.shape[1], table)]
    return like(torch.cat(parts), logits)


def _by_curve(table: Float[Tensor, "n c"], grid: Column, curve: Column) -> Float[Tensor, "n c"]:
    table = table - table.amax(-1, keepdim=True)
    wanted = as_tensor(map_by_curve(table.softmax(-1).amax(-1), grid, curve))
    least, most = torch.full_like(wanted, 1 / table.shape[1]), 1 / (table == 0).sum(-1)
    wanted = torch.minimum(torch.maximum(wanted, least + NEAREST), most - NEAREST)
    wanted = torch.where(most - least > 2 * NEAREST, wanted, (least + most) / 2)  # many are tied: between the two
    factor = torch.ones_like(wanted)
    moves = (most > least).nonzero()[:, 0]
    factor[moves] = _scale_of(table[moves], wanted[moves])
    return table * factor[:, None]


def _scale_of(below: Float[Tensor, "n c"], wanted: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The b with 1 / sum exp(b z) as wanted, for z of which the largest is 0 and another is not.

    The logarithm of the sum over all but one largest is convex in b and falls. Newton's steps from below its root never pass it.
    """
    one = torch.zeros_like(below, dtype=torch.bool).scatter(1, below.argmax(-1, keepdim=True), True)
    goal, top = torch.special.logit(wanted).neg(), below.masked_fill(one, -torch.inf).amax(-1)
    # where the second largest alone decides
    b = torch.where(top < 0, goal / top, 0.0).nan_to_num(0.0).clamp(0, LARGEST)
    left = torch.arange(len(b), device=b.device)
    for _ in range(STEPS):
        z = below if len(left) == len(below) else below[left]
        each = (z * b[left, None]).exp_().masked_fill_(one[left], 0.0)  # never all tiny, as b stays below the root
        total = each.sum(-1)
        step = (goal[left] - total.log()) * total / torch.linalg.vecdot(each, z)
        b[left] = (b[left] + step).clamp(0, LARGEST)
        left = left[step > 1e-12 * b[left]]
        if not len(left):
            break
    return b


def task_features(logits: Table) -> Float[Array, " d"]:
    """What a task shows without labels: means and quantiles of confidence and margin, and how evenly classes are predicted.

    Examples:
        >>> from uqlib.calibrate import task_features
        >>> len(task_features([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0]]))
        15
    """
    table = check_logits(logits).double()
    probs = table.softmax(-1)
    first, second = probs.topk(2).values.T
    levels = torch.tensor([0.05, 0.1, 0.25, 0.5, 0.75], dtype=torch.float64, device=table.device)
    parts = [torch.quantile(each, levels) for each in (first, first - second)]
    shares = probs.mean(0)
    spread = torch.stack([-torch.special.xlogy(each, each).sum(-1).mean() for each in (probs, shares)])
    means = torch.stack([first.mean(), (first - second).mean(), table.logsumexp(-1).std(correction=0)])
    return like(torch.cat([*parts, spread, means]), logits)


def _grid(grid: Column) -> Float[Tensor, " k"]:
    points = check_confidence(grid, "grid").double()
    if (points.diff() < 0).any():
        raise ValueError("grid must be ascending; sort it together with the curve")
    return points
