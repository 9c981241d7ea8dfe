"""Linear classifiers from sums over the examples: naive Bayes, linear discriminant analysis, nearest class mean.

Each puts one Gaussian on each class, all with one covariance, so its log posteriors are linear in the features. They differ
in that covariance: full and shrunk (LDA), its diagonal (naive Bayes), one number (nearest class mean). Nothing is iterated:

    head = naive_bayes(feature_sums(features, labels, classes=10))
    logits = log_posteriors(head, others)

The sums of two parts add up to those of the whole (`merge_sums`, `difficulty.merge_moments`), in any order: a stream gives
the head that all its examples give at once.

Known differences from Zheng et al. 2023 as released: the floor of the variances is a share of their mean, so that the unit of
the features does not matter, and it is added once, not once a batch.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uqlib.base.arrays import Array, Column, Table, add_up, as_tensor, by_rows, like
from uqlib.base.checks import check_features, check_finite, check_labels, check_size
from uqlib.base.options import check_choice, check_fraction, check_number, check_result, check_whole
from uqlib.difficulty.gaussians import cholesky_of, oas_covariance, shrink_covariance
from uqlib.difficulty.statistics import LARGEST, ROWS, Moments, TensorMoments, joined_means
from uqlib.networks.linear_heads import Head

TOWARDS = ("diagonal", "identity")  # what LDA shrinks to: the variances, or their mean
SHARES = ("counted", "equal")  # of the classes, before an example is seen
UNSEEN = -1e9  # log share, at most, of a class without examples: finite, so that a temperature can divide it


class FeatureSums(NamedTuple):
    """What naive Bayes and the class means need of labelled features; `difficulty.Moments` serve as well."""

    counts: Int[Array, " k"]  # examples of each class
    means: Float[Array, "k d"]  # of each class; 0 where there is no example
    within: Float[Array, " d"]  # sum over the examples of (x - mean of its class)^2, each feature by itself


class LinearHead(NamedTuple):
    """log posteriors = features @ weight.T + bias, up to a number an example."""

    weight: Float[Array, "c d"]
    bias: Float[Array, " c"]


def feature_sums(features: Table, labels: Column, *, classes: int) -> FeatureSums:
    """Counts, class means and squares within the classes, in one pass; the sums are float64. Time n d.

    Args:
        features: (n, d).
        labels: (n,), classes in [0, classes).
        classes: how many there are; some may have no example here.

    Raises:
        ValueError: if features are empty, not finite or not (n, d), or labels do not fit.

    Examples:
        >>> from uqlib.heads import feature_sums
        >>> feature_sums([[0.0, 0.0], [2.0, 0.0], [5.0, 1.0]], [0, 0, 1], classes=2).within
        array([2., 0.])
    """
    x = _check(features)
    classes = check_whole(classes, "classes", least=1)
    y = check_labels(labels, classes, rows=len(x), device=x.device)
    counts, centre = y.bincount(minlength=classes), x[:ROWS].double().mean(0)
    sums = torch.zeros(classes, x.shape[1], dtype=torch.float64, device=x.device)
    squares = torch.zeros_like(centre)
    for rows, label in by_rows(ROWS, x, y):
        z = rows.double() - centre  # so that a large offset costs no digits
        sums.index_add_(0, label, z)
        squares += torch.linalg.vecdot(z, z, dim=0)
    shift = sums / counts.clamp(min=1)[:, None]
    means = torch.where(counts[:, None] > 0, centre + shift, 0.0)
    within = (squares - torch.linalg.vecdot(sums, shift, dim=0)).clamp(min=0)
    return FeatureSums(*(like(part, features) for part in (counts, means, within)))


def merge_sums(first: FeatureSums, *others: FeatureSums) -> FeatureSums:
    """The sums of the union of disjoint examples, such as the batches of a stream; to rounding, as of a whole.

    Raises:
        ValueError: if classes or widths differ.

    Source:
        Chan, Golub & LeVeque 1983, The American Statistician 37(3), pairwise update.

    Examples:
        >>> from uqlib.heads import feature_sums, merge_sums
        >>> parts = [feature_sums([[x]], [0], classes=1) for x in (1.0, 2.0, 6.0)]
        >>> merge_sums(*parts).means
        array([[3.]])
    """
    parts = [_sums(part, f"the sums at place {place}") for place, part in enumerate((first, *others))]
    for place, part in enumerate(parts):
        if part.means.shape != parts[0].means.shape:
            raise ValueError(
                f"sums must have one shape (classes, width); those at place {place} have {tuple(part.means.shape)}, the "
                f"first {tuple(parts[0].means.shape)}"
            )
    counts, means = joined_means(parts)
    apart = add_up(((part.means - means).square() * part.counts[:, None]).sum(0) for part in parts)
    within = add_up(part.within for part in parts) + apart
    return FeatureSums(*(like(part, first.counts) for part in (counts, means, within)))


def naive_bayes(sums: FeatureSums | Moments, *, floor: float = 1e-9, shares: str = "counted") -> LinearHead:
    """Gaussian naive Bayes with one variance a feature, shared by all classes: LDA that takes no notice of correlations.

    Not scikit-learn's GaussianNB, whose variances are those of each class, and which is quadratic.

    Args:
        sums: from `feature_sums`, or `difficulty.moments`.
        floor: this share of the mean variance is added to every variance.
        shares: of the classes: "counted", or "equal".

    Raises:
        ValueError: if no feature varies within a class, one does not and the floor is 0, or an option is out of range.

    Source:
        Zheng et al. 2023 (arXiv:2302.02334), naive Bayes for several classes.

    Examples:
        >>> from uqlib.heads import feature_sums, naive_bayes
        >>> features, labels = [[0.0], [2.0], [4.0], [6.0]], [0, 0, 1, 1]
        >>> naive_bayes(feature_sums(features, labels, classes=2)).weight.round(3)
        array([[-2.],
               [ 2.]])
    """
    found = _sums(sums)
    variance = _varying(found, _floored(found, floor))
    return _head(found, lambda apart: apart / variance, shares, sums.means)


def nearest_mean(sums: FeatureSums | Moments) -> LinearHead:
    """Nearest class mean: the class whose mean is at the least Euclidean distance, with a spherical Gaussian a class.

    All classes have one share, and one variance in all directions; with one example a class it is 1.

    Args:
        sums: from `feature_sums`, or `difficulty.moments`.

    Raises:
        ValueError: if there is no example.

    Examples:
        >>> from uqlib.heads import feature_sums, log_posteriors, nearest_mean
        >>> head = nearest_mean(feature_sums([[0.0], [4.0]], [0, 1], classes=2))
        >>> log_posteriors(head, [[1.0], [3.0]]).argmax(-1)
        array([0, 1])
    """
    found = _sums(sums)
    variance = found.within.mean() / found.counts.sum()
    return _head(found, lambda apart: apart / torch.where(variance > 0, variance, 1.0), "equal", sums.means)


def lda(
    moments: Moments,
    *,
    shrinkage: float | None = None,
    towards: str = "diagonal",
    floor: float = 1e-9,
    shares: str = "counted",
) -> LinearHead:
    """Linear discriminant analysis with a shrunk covariance within the classes; time d^3 + d^2 classes.

    Shrunk wholly it is `naive_bayes` ("diagonal"), or `nearest_mean` with the shares of the classes ("identity").

    Args:
        moments: from `difficulty.moments`, `moments_of` or `merge_moments`.
        shrinkage: in [0, 1], such as that of `difficulty.ledoit_wolf`; by default what the approximating oracle (OAS) finds,
            which needs no more than the moments.
        towards: "diagonal" keeps the variances and shrinks the correlations, so that the units of the features do not
            matter; "identity" shrinks to a multiple of it.
        floor: this share of the mean variance is added to every variance first.
        shares: of the classes: "counted", or "equal".

    Raises:
        ValueError: if the covariance is singular, or an option is out of range.

    Source:
        Chen et al. 2010, IEEE Transactions on Signal Processing 58(10), equation 23, as scikit-learn has it, without the terms
        2 / d of numerator and denominator; on correlations if "diagonal".

    Examples:
        >>> from uqlib.difficulty import moments
        >>> from uqlib.heads import lda
        >>> features, labels = [[0.0, 0.0], [2.0, 2.0], [4.0, 0.0], [6.0, 2.0]], [0, 0, 1, 1]
        >>> lda(moments(features, labels, classes=2), shrinkage=0.5).weight.round(3)
        array([[-2.667,  1.333],
               [ 2.667, -1.333]])
    """
    check_result(moments, Moments, "moments", "moments(features, labels, classes=...)")
    found, within = _sums(moments), as_tensor(moments.within).double()
    n = int(found.counts.sum())
    strength = None if shrinkage is None else check_fraction(shrinkage, "shrinkage")
    variance, towards = _floored(found, floor), check_choice(towards, TOWARDS, "towards")
    variance = _varying(found, variance) if towards == "diagonal" else variance
    covariance = within / n
    covariance.diagonal().copy_(variance)
    scale = variance.sqrt() if towards == "diagonal" else torch.ones_like(variance)
    scaled = covariance / scale / scale[:, None]
    freedom = max(1, n - int((found.counts > 0).sum()))
    scaled, _ = oas_covariance(scaled, freedom, 0.0) if strength is None else shrink_covariance(scaled, n, strength)
    means = found.means / scale
    lower = cholesky_of(scaled, TensorMoments(found.counts, means, within), None, "a shrinkage or a floor above 0")

    def solved(apart: Float[Tensor, "k d"]) -> Float[Tensor, "k d"]:
        return torch.cholesky_solve((apart / scale).T, lower).T / scale

    return _head(found, solved, shares, moments.means)


def log_posteriors(head: LinearHead | Head, features: Table) -> Float[Array, "n c"]:
    """Logarithm of the probability of each class, float64: logits that are normalised.

    Takes the heads of `networks.fit_head` as well.

    Raises:
        ValueError: if the features have another width than the head, or the parts of the head do not fit.

    Examples:
        >>> import numpy as np
        >>> from uqlib.heads import LinearHead, log_posteriors
        >>> np.exp(log_posteriors(LinearHead(np.array([[-1.0], [1.0]]), np.zeros(2)), [[0.0]]))
        array([[0.5, 0.5]])
    """
    if not isinstance(head, Head):
        check_result(head, LinearHead, "head", "naive_bayes(sums)")
    weight, bias = as_tensor(head.weight, "weight").double(), as_tensor(head.bias, "bias").double()
    if weight.ndim != 2 or not weight.numel() or bias.shape != weight.shape[:1]:
        raise ValueError(
            f"head must hold a weight (c, d) and a bias (c,); their shapes are {tuple(weight.shape)} and {tuple(bias.shape)}"
        )
    check_finite(weight, "weight of the head")
    check_finite(bias, "bias of the head")
    x = _check(features, width=weight.shape[1])
    weight, bias = weight.to(x.device).T.contiguous(), bias.to(x.device)
    parts = [torch.addmm(bias, rows.double(), weight).log_softmax(-1) for (rows,) in by_rows(ROWS, x)]
    return like(torch.cat(parts), features)


class _Sums(NamedTuple):
    counts: Int[Tensor, " k"]
    means: Float[Tensor, "k d"]
    within: Float[Tensor, " d"]


def _sums(sums: FeatureSums | Moments, name: str = "sums") -> _Sums:
    if not isinstance(sums, Moments):
        check_result(sums, FeatureSums, name, "feature_sums(features, labels, classes=...)")
    counts, means, within = (as_tensor(part, f"{part_name} of {name}") for part_name, part in sums._asdict().items())
    k, *d = means.shape if means.ndim == 2 else (-1,)
    if counts.shape != (k,) or within.shape not in ((*d,), (*d, *d)):
        raise ValueError(
            f"{name} must hold counts (k,), means (k, d) and within (d,); their shapes are {tuple(counts.shape)}, "
            f"{tuple(means.shape)} and {tuple(within.shape)}"
        )
    if (counts < 0).any() or not counts.any():
        raise ValueError(f"{name} must hold an example, and no count below 0; the counts are {counts.tolist()!r:.60}")
    within = within.diagonal() if within.ndim == 2 else within
    check_finite(means, f"means of {name}")
    check_finite(within, f"within of {name}")
    return _Sums(counts.long().to(means.device), means.double(), within.double().to(means.device))


def _floored(found: _Sums, floor: float) -> Float[Tensor, " d"]:
    """The variances within the classes, with their floor."""
    variance = found.within / found.counts.sum()
    if not variance.any():
        raise ValueError(
            f"sums must vary within a class; {int(found.counts.sum())} examples of {int((found.counts > 0).sum())} classes do "
            "not. One example a class? Pass more, or use nearest_mean."
        )
    return variance + check_number(floor, "floor", least=0) * variance.mean()


def _varying(found: _Sums, variance: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
    """The variances, if none is 0 or the rounding of a constant."""
    lost = variance <= (1e-15 * found.means.abs().amax(0)) ** 2
    if lost.any():
        raise ValueError(
            f"features must vary within the classes; feature {int(lost.nonzero()[0])} does not (of {int(lost.sum())}), so "
            "nothing can be divided by its variance. Pass a floor above 0, such as 1e-9, or leave it out."
        )
    return variance


def _head(found: _Sums, solve: Callable[[Tensor], Tensor], shares: str, given: Array) -> LinearHead:
    """The head of Gaussians with one covariance; `solve` multiplies rows by its inverse."""
    check_choice(shares, SHARES, "shares")
    share = found.counts.double() / found.counts.sum()
    log_share = share.log() if shares == "counted" else torch.zeros_like(share)
    centre = share @ found.means  # what is the same for all classes is left out, so that nothing large is subtracted
    seen = found.counts > 0
    weight = solve(torch.where(seen[:, None], found.means - centre, 0.0))
    bias = log_share - torch.linalg.vecdot(weight, found.means + centre) / 2
    # the scores of the other classes, weighted by the shares, have this mean wherever one asks: the largest is no lower
    least = (share * torch.where(seen, weight @ centre + bias, 0.0)).sum()
    return LinearHead(like(weight, given), like(torch.where(seen, bias, (2 * least).clamp(max=UNSEEN)), given))


def _check(features: Table, width: int | None = None) -> Float[Tensor, "n d"]:
    x = check_features(features, width=width)
    x = x if x.is_floating_point() else x.double()
    check_size(x, "features", LARGEST)
    return x
