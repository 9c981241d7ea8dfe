"""Gaussians of features: one a class with one covariance, and one of all; ridge, OAS, Ledoit-Wolf, leading directions.

Cui et al. 2023 (arXiv:2304.10127). One Gaussian a class, all with one covariance, and one Gaussian for all examples. The
relative Mahalanobis distance is the squared distance of an example to its own class less that to the mean of all: small
(negative) = easy, large = odd, hard or mislabelled.

    gaussians = fit_gaussians(moments(features, labels, classes=10))
    difficulty = relative_mahalanobis(gaussians, features, labels)
    weight = weights(difficulty)

How it is computed. The covariance of all examples is the one within the classes plus that between their means. So there
are axes along which every class has variance 1, no two axes are correlated, and the means of K classes differ along the
first K - 1 alone. Along the others both Gaussians are the same, and the relative distance does not see them: it costs
n d K, and no two large numbers are subtracted.

Known differences: the paper prints the squared distances with a minus sign, against its words and figures; here they are
positive. It says nothing of a singular covariance; here the covariance within the classes is regularised by name, and
that of all examples is it plus the covariance between the means, as without regularisation.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uqlib.base.arrays import Array, Column, Table, add_up, by_rows, like
from uqlib.base.checks import check_labels
from uqlib.base.options import check_choice, check_fraction, check_number, check_whole
from uqlib.difficulty.statistics import ROWS, Moments, TensorMoments, _check_features, _tensors

UNEXPLAINED = 1e-12  # a feature of which the others leave a smaller share is a copy of them, to the digits of float64


class Gaussians(NamedTuple):
    """One Gaussian a class with one covariance, and one for all examples, in axes where both are diagonal.

    Along r axes z = (x - centre) @ axes; each class has variance 1 along each of them. The class means differ along the
    first q alone.
    """

    counts: Int[Array, " k"]
    centre: Float[Array, " d"]  # mean of all examples
    axes: Float[Array, "d r"]
    means: Float[Array, "k q"]  # of each class along the first q axes; 0 where there is no example
    spread: Float[Array, " q"]  # variance of all examples along them, 1 or larger; along the others it is 1
    shrinkage: float  # how far the covariance within the classes went to a multiple of the identity, in [0, 1]


def ledoit_wolf(moments: Moments, features: Table, labels: Column) -> float:
    """The shrinkage in [0, 1] of Ledoit and Wolf for the covariance within the classes: `fit_gaussians(shrinkage=...)`.

    It needs fourth moments about the class means, so it reads the features that the moments came from once more; n d.

    Raises:
        ValueError: if features and labels are not those of the moments (their counts differ).

    Source:
        Ledoit & Wolf 2004, Journal of Multivariate Analysis 88(2), with the class means taken for known.
    """
    found = _tensors(moments)
    x = _check_features(features, width=found.means.shape[1])
    y = check_labels(labels, len(found.counts), rows=len(x), device=x.device)
    if not torch.equal(y.bincount(minlength=len(found.counts)), found.counts.to(x.device)):
        raise ValueError("labels count other classes than the moments do; pass the examples the moments came from")
    means, n = found.means.to(x.device), len(x)
    parts = by_rows(ROWS, x, y)
    fourth = add_up((rows.double() - means[label]).square().sum(-1).square().sum() for rows, label in parts).item() / n
    covariance = found.within / n
    square, mean = covariance.square().sum().item(), covariance.diagonal().mean().item()
    away = square - len(covariance) * mean**2  # squared distance to the multiple of the identity
    return min(1.0, (fourth - square) / n / away) if away > 0 else 1.0


def fit_gaussians(
    moments: Moments,
    *,
    covariance: str = "ridge",
    ridge: float = 1e-6,
    shrinkage: float | None = None,
    components: int | None = None,
    least: int = 2,
) -> Gaussians:
    """The Gaussians of these moments, one a class with one covariance divided by the number of examples, and one of all.

    Time d^3 + d^2 classes. With fewer than some ten examples a feature the covariance is poorly known: "oas", a
    Ledoit-Wolf shrinkage, or fewer components then find more than the ridge, which only keeps it from being singular.

    Args:
        moments: from `moments`, `moments_of` or `merge`.
        covariance: of the examples about their class means. "ridge" adds `ridge` times the mean variance of a feature to
            every variance; "oas" shrinks to a multiple of the identity as far as the approximating oracle says; "shrunk"
            does so as far as `shrinkage` says; "empirical" takes it as it is.
        ridge: share of the mean variance, 0 or larger. By the default a distance shrinks by a share of less than 1e-6
            times the mean variance over the least variance in any direction.
        shrinkage: in [0, 1], such as `ledoit_wolf(moments, features, labels)`; with "shrunk", where it is needed.
        components: keep so many leading principal directions of the covariance of all examples; by default all. The
            distances do not depend on scale or rotation of the features except through this and the regularisation.
        least: a class with at least one but fewer examples than this is refused. One example is its own mean: its
            distance is 0 and it looks the easiest of all. Pass 1 to score other examples against such a class.

    Raises:
        ValueError: if the covariance is singular (rank and remedy are named), a class has too few examples, there is no
            example at all, a name is unknown, or a number lies outside its range.

    Source:
        Cui et al. 2023 (arXiv:2304.10127), equations 1 to 4; for "oas" Chen et al. 2010, IEEE Transactions on Signal
        Processing 58(10), equation 23, as scikit-learn has it: without the terms 2 / d of numerator and denominator.

    Examples:
        >>> import numpy as np
        >>> from uqlib.difficulty import fit_gaussians, moments
        >>> labels = np.arange(200) % 2
        >>> features = np.random.default_rng(0).normal(size=(200, 3)) + 4 * np.eye(2, 3)[labels]
        >>> fit_gaussians(moments(features, labels, classes=2)).counts
        array([100, 100])
    """
    regularise = COVARIANCES[check_choice(covariance, COVARIANCES, "covariance")]
    strength = _check_strength(covariance, ridge, shrinkage)
    found = _tensors(moments)
    n = _check_counts(found.counts, check_whole(least, "least", least=1))
    share = found.counts[:, None].double() / n
    centre = (share * found.means).sum(0)
    apart = (found.means - centre) * share.sqrt()  # the covariance between the means is apart' apart
    within, basis = found.within / n, None
    if components is not None:
        components = check_whole(components, "components, of the features,", least=1, most=len(within))
        basis = _principal(within + apart.T @ apart, components)
        within, apart = basis.T @ within @ basis, apart @ basis
    within, shrunk = regularise(within, n, strength)
    lower = cholesky_of(within, found, components)
    present = int((found.counts > 0).sum())
    whitened = torch.linalg.solve_triangular(lower, apart.T, upper=False)
    few = len(apart) < len(whitened)  # fewer classes than dimensions: the means leave axes free, which are wanted too
    rotation, size, _ = torch.linalg.svd(whitened, full_matrices=few)
    q = min(present - 1, len(lower))
    axes = torch.linalg.solve_triangular(lower.T, rotation, upper=True)
    axes = axes if basis is None else basis @ axes
    means = torch.where(found.counts[:, None] > 0, (found.means - centre) @ axes[:, :q], 0.0)
    parts = [like(part, moments.means) for part in (found.counts, centre, axes, means, 1 + size[:q] ** 2)]
    return Gaussians(parts[0], parts[1], parts[2], parts[3], parts[4], shrunk)


def _ridge(covariance: Float[Tensor, "d d"], n: int, strength: float) -> tuple[Float[Tensor, "d d"], float]:
    return _added(covariance, strength * covariance.diagonal().mean().item()), 0.0


def shrink_covariance(covariance: Float[Tensor, "d d"], n: int, strength: float) -> tuple[Float[Tensor, "d d"], float]:
    """It, moved by a strength towards the multiple of the identity that has its trace; and the strength."""
    mean = covariance.diagonal().mean().item()
    return _added((1 - strength) * covariance, strength * mean), strength


def oas_covariance(covariance: Float[Tensor, "d d"], n: int, strength: float) -> tuple[Float[Tensor, "d d"], float]:
    """The same with the strength of the approximating oracle, for n examples, as scikit-learn has it: the 2 / d are left out."""
    d, square, mean = len(covariance), covariance.square().mean().item(), covariance.diagonal().mean().item()
    away = (n + 1) * (square - mean**2 / d)
    return shrink_covariance(covariance, n, min(1.0, (square + mean**2) / away) if away > 0 else 1.0)


def _empirical(covariance: Float[Tensor, "d d"], n: int, strength: float) -> tuple[Float[Tensor, "d d"], float]:
    return covariance, 0.0


COVARIANCES: dict[str, Callable] = {
    "ridge": _ridge,
    "oas": oas_covariance,
    "shrunk": shrink_covariance,
    "empirical": _empirical,
}


def _added(covariance: Float[Tensor, "d d"], amount: float) -> Float[Tensor, "d d"]:
    return covariance + amount * torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)


def _principal(covariance: Float[Tensor, "d d"], components: int) -> Float[Tensor, "d k"]:
    return torch.linalg.eigh(covariance).eigenvectors[:, len(covariance) - components :].flip(-1)


def cholesky_of(
    covariance: Float[Tensor, "d d"],
    moments: TensorMoments,
    components: int | None,
    remedy: str = "covariance='ridge' with ridge=1e-6 or larger, or covariance='oas'",
) -> Float[Tensor, "d d"]:
    """Its lower factor; the squared pivots over the variances are what the earlier features leave of each feature.

    `remedy` is what a singular covariance asks for.
    """
    lower, _ = torch.linalg.cholesky_ex(covariance)
    size = moments.means.abs().amax(0) if components is None else moments.means.abs().max().expand(components)
    variance, rounding = covariance.diagonal(), (1e-15 * size) ** 2
    varies = variance > rounding  # less is the rounding of a constant
    if bool(varies.all()) and bool((lower.diagonal().square() > UNEXPLAINED * variance).all()):
        return lower
    n, present = int(moments.counts.sum()), int((moments.counts > 0).sum())
    lost = ~varies & (1e-6 * variance.mean() <= rounding)  # a ridge drowns as well
    if lost.any():
        raise ValueError(_constant(lost, size, n, present, components))
    scale = torch.where(varies, variance, torch.inf).rsqrt()
    rank = int((torch.linalg.eigvalsh(covariance * scale * scale[:, None]) > UNEXPLAINED).sum())
    more = ", or more examples" if n - present < len(covariance) else ""
    raise ValueError(
        f"the covariance within the classes is singular: its rank is {rank} in {len(covariance)} dimensions, and {n} "
        f"examples of {present} classes allow at most {n - present}. Pass {remedy}{more}."
    )


def _constant(lost: Tensor, size: Tensor, n: int, present: int, components: int | None) -> str:
    """What is wrong where features say the same of all examples of a class, and what to do."""
    k = int(lost.nonzero()[0])
    what = f"feature {k}" if components is None else f"leading direction {k}"
    what += f" (and {int(lost.sum()) - 1} more)" if lost.sum() > 1 else ""
    remedy = "Leave out features that are constant." if components is None else "Pass more components, or None for all."
    if components is None and lost.all():
        remedy = "Was one image repeated, or one image a class? Pass features of several images a class, which differ."
    return (
        f"features must vary within the classes; {what} of the moments of {n} examples in {present} classes does not, "
        f"beyond the rounding of its size, {size[k].item():.3g}. {remedy}"
    )


def _check_strength(covariance: str, ridge: float, shrinkage: float | None) -> float:
    ridge = check_number(ridge, "ridge", least=0)
    if (covariance == "shrunk") != (shrinkage is not None):
        raise ValueError(
            f"covariance='shrunk' and shrinkage go together; covariance is {covariance!r} and shrinkage {shrinkage}. "
            "`ledoit_wolf(moments, features, labels)` finds one."
        )
    return ridge if shrinkage is None else check_fraction(shrinkage, "shrinkage")


def _check_counts(counts: Int[Tensor, " k"], least: int) -> int:
    """The number of examples, if each class has enough of them or none."""
    few = ((counts > 0) & (counts < least)).nonzero()[:, 0].tolist()
    if few:
        more = f" (and {len(few) - 1} more classes)" if len(few) > 1 else ""
        raise ValueError(
            f"class {few[0]} has {int(counts[few[0]])} of the {least} examples it needs{more}. An example that is alone "
            "in its class is its own mean and looks the easiest of all. Leave it out, or pass least=1 to allow it."
        )
    if not counts.any():
        raise ValueError("the moments hold no example")
    return int(counts.sum())
