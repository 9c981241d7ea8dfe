"""How hard is each training example? Gaussians in the features of a pretrained network, and weights for a loss.

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

from collections.abc import Callable, Iterable, Iterator
from math import frexp, log
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from uqlib.arrays import (
    Array,
    Column,
    Table,
    as_tensor,
    by_rows,
    check_choice,
    check_confidence,
    check_finite,
    check_fraction,
    check_labels,
    check_logits,
    check_made,
    check_mask,
    check_number,
    check_size,
    check_whole,
    like,
)
from uqlib.extras import named

ROWS = 512  # examples at a time: what a processor's cache holds
UNEXPLAINED = 1e-12  # a feature of which the others leave a smaller share is a copy of them, to the digits of float64
LARGEST = 1e70  # of a feature: the fourth powers of smaller ones can be added up
PRECISIONS = {"float64": torch.float64, "float32": torch.float32}


class Moments(NamedTuple):
    """What one pass over labelled features leaves: enough for the Gaussians, and it adds up over batches and processes.

    Three arrays of k classes and d features; `numpy.savez(path, **moments._asdict())` stores them.
    """

    counts: Int[Array, " k"]  # examples of each class
    means: Float[Array, "k d"]  # of each class; 0 where there is no example
    within: Float[Array, "d d"]  # sum over the examples of (x - mean of its class)(x - mean of its class)'


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


class Distances(NamedTuple):
    """Squared Mahalanobis distances, smaller = closer."""

    to_classes: Float[Array, "n k"]  # infinite for a class without examples
    to_all: Float[Array, " n"]  # of the Gaussian that knows no classes


def moments(features: Table, labels: Column, *, classes: int, precision: str = "float64") -> Moments:
    """Counts, class means and the scatter within the classes, in one pass; the sums are float64.

    Every example is centred at a provisional mean of its class before it is squared, so a large common offset costs no
    digits. Time n d^2, one triangle of one matrix product; memory d^2 + classes * d beside the features.

    Args:
        features: (n, d), as a network gives them; an offset or scale of their own does no harm.
        labels: (n,), classes in [0, classes).
        classes: how many there are; some may have no example here.
        precision: "float64", or "float32" for products that are rounded to float32 and take two thirds of the time. The
            scatter is then off by up to about 1e-6 of the variances, distances by that times the condition number of the
            correlations.

    Raises:
        ValueError: if features are empty, not finite or not (n, d), or labels do not fit.

    Source:
        Cui et al. 2023 (arXiv:2304.10127), equations 1 to 4; Chan, Golub & LeVeque 1983 for the provisional means.
    """
    running = _Running(classes, precision)
    running.add(features, labels)
    return _moments_like(running.moments(), features)


def moments_of(
    batches: Iterable[tuple[Table, Column]], *, classes: int, precision: str = "float64", progress: bool = True
) -> Moments:
    """The moments of all batches together, as of their union: a data set that does not fit into memory is read once.

    Args:
        batches: pairs (features, labels) as in `moments`, of any sizes, in any order.
        classes, precision: as in `moments`.
        progress: a bar, where there is a terminal.

    Raises:
        ValueError: as in `moments`, with the number of the batch; if there is no batch or the widths differ.
    """
    running, first = _Running(classes, precision), None
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches must be pairs (features, labels), one after the other; it is {batches!r:.60}")
    for number, pair in enumerate(tqdm(batches, unit="batch", disable=None if progress else True)):
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise TypeError(f"batch {number} must be a pair (features, labels); it is a {type(pair).__name__}")
        features, labels = pair
        try:
            running.add(features, labels)
        except (TypeError, ValueError) as error:
            raise type(error)(f"batch {number}: {error}") from None
        first = features if first is None else first
    if first is None:
        raise ValueError("batches holds no batch; a generator that was used up already? Make a new one.")
    return _moments_like(running.moments(), first)


def merge(first: Moments, *others: Moments) -> Moments:
    """The moments of the union of disjoint examples, such as the shares of several processes; to rounding, as of a whole.

    Raises:
        ValueError: if classes or widths differ.

    Source:
        Chan, Golub & LeVeque 1983, The American Statistician 37(3), pairwise update.
    """
    parts = [_tensors(part, f"the moments at place {place}") for place, part in enumerate((first, *others))]
    for number, part in enumerate(parts):
        if part.means.shape != parts[0].means.shape:
            raise ValueError(
                f"moments must have one shape (classes, width); those at place {number} have "
                f"{tuple(part.means.shape)}, the first {tuple(parts[0].means.shape)}"
            )
    device = parts[0].means.device
    parts = [Moments(*(array.to(device) for array in part)) for part in parts]
    counts = sum(part.counts for part in parts)
    anchor = parts[0].means  # differences of means are small where means are large
    shift = sum((part.means - anchor) * part.counts[:, None] for part in parts) / counts.clamp(min=1)[:, None]
    means = torch.where(counts[:, None] > 0, anchor + shift, 0.0)
    within = sum(part.within for part in parts)
    for part in parts:
        shared = (part.counts > 0) & (part.counts < counts)
        apart = (part.means - means)[shared]
        within = within + (apart * part.counts[shared, None]).T @ apart
    return _moments_like(Moments(counts, means, within), first.counts)


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
    fourth = sum((rows.double() - means[label]).square().sum(-1).square().sum() for rows, label in parts).item() / n
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
        Processing 58(10), equation 23.
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
    lower = _cholesky(within, found, components)
    present = int((found.counts > 0).sum())
    whitened = torch.linalg.solve_triangular(lower, apart.T, upper=False)
    few = len(apart) < len(whitened)  # fewer classes than dimensions: the means leave axes free, which are wanted too
    rotation, size, _ = torch.linalg.svd(whitened, full_matrices=few)
    q = min(present - 1, len(lower))
    axes = torch.linalg.solve_triangular(lower.T, rotation, upper=True)
    axes = axes if basis is None else basis @ axes
    means = torch.where(found.counts[:, None] > 0, (found.means - centre) @ axes[:, :q], 0.0)
    parts = (found.counts, centre, axes, means, 1 + size[:q] ** 2)
    return Gaussians(*(like(part, moments.means) for part in parts), shrunk)


def relative_mahalanobis(gaussians: Gaussians, features: Table, labels: Column) -> Float[Array, " n"]:
    """Squared distance to the class of the given label less that to all examples, float64: higher = harder.

    Its mean over the examples of the fit is 0, if nothing is regularised. It is negative for an example that is near the
    mean of its class and far from that of all, positive for one that fits in with the rest better than with its class.
    Time n d min(classes, d); beside the features and the result, memory does not grow with n.

    Args:
        gaussians: from `fit_gaussians`.
        features: (n, d), of the same network.
        labels: (n,), the given labels, right or wrong; of test examples too.

    Raises:
        ValueError: if features are not finite or of another width, a label lies outside or belongs to a class without
            examples, or there is only one class.

    Source:
        Cui et al. 2023 (arXiv:2304.10127), equations 5 to 7, with positive squared distances; Ren et al. 2021
        (arXiv:2106.09022).
    """
    model, x = _check_pair(gaussians, features)
    _refuse_one_class(model)
    y = _check_own(labels, model, len(x))
    parts = (
        ((z - model.means[label]).square() - z.square() / model.spread).sum(-1)
        for z, label in _along(model, model.means.shape[1], x, y)
    )
    return like(torch.cat(list(parts)), features)


def nearest_relative_mahalanobis(gaussians: Gaussians, features: Table) -> Float[Array, " n"]:
    """The least relative distance over the classes, float64: higher = less like any of them. No labels are needed.

    Time n d min(classes, d), memory beside the features that of some hundred rows.

    Raises:
        ValueError: if features are not finite or of another width, or there is only one class.

    Source:
        Ren et al. 2021 (arXiv:2106.09022), for out-of-distribution detection.
    """
    model, x = _check_pair(gaussians, features)
    _refuse_one_class(model)
    parts = (
        _to_means(model, z).amin(-1) - (z.square() / model.spread).sum(-1)
        for (z,) in _along(model, model.means.shape[1], x)
    )
    return like(torch.cat(list(parts)), features)


def mahalanobis(gaussians: Gaussians, features: Table, labels: Column) -> Float[Array, " n"]:
    """Squared distance to the class of the given label, float64: higher = harder. Its mean over the fit is d.

    Args, Raises: as in `relative_mahalanobis`, and one class is enough. Time n d^2.

    Source:
        Cui et al. 2023 (arXiv:2304.10127), equation 6, with a positive sign; Lee et al. 2018 (arXiv:1807.03888).
    """
    model, x = _check_pair(gaussians, features)
    y = _check_own(labels, model, len(x))
    q = model.means.shape[1]
    parts = (
        (z[:, :q] - model.means[label]).square().sum(-1) + z[:, q:].square().sum(-1)
        for z, label in _along(model, None, x, y)
    )
    return like(torch.cat(list(parts)), features)


def nearest_mahalanobis(gaussians: Gaussians, features: Table) -> Float[Array, " n"]:
    """Squared distance to the nearest class, float64: higher = less like any of them.

    Source:
        Lee et al. 2018 (arXiv:1807.03888), for out-of-distribution detection.
    """
    return like(as_tensor(distances(gaussians, features).to_classes).amin(-1), features)


def agnostic_mahalanobis(gaussians: Gaussians, features: Table) -> Float[Array, " n"]:
    """Squared distance to the mean of all examples, float64: higher = farther out. Its mean over the fit is d.

    Source:
        Cui et al. 2023 (arXiv:2304.10127), equation 7, with a positive sign.
    """
    model, x = _check_pair(gaussians, features)
    return like(torch.cat([_to_all(model, z) for (z,) in _along(model, None, x)]), features)


def distances(gaussians: Gaussians, features: Table) -> Distances:
    """Squared distances to every class and to all examples, float64; their difference is the relative distance.

    Time n d (d + classes), memory n classes.

    Raises:
        ValueError: if features are not finite or of another width.

    Source:
        Cui et al. 2023 (arXiv:2304.10127), equations 6 and 7, with positive signs.
    """
    model, x = _check_pair(gaussians, features)
    q = model.means.shape[1]
    both = [
        (_to_means(model, z[:, :q]) + z[:, q:].square().sum(-1, keepdim=True), _to_all(model, z))
        for (z,) in _along(model, None, x)
    ]
    to_classes, to_all = (torch.cat(parts) for parts in zip(*both, strict=True))
    return Distances(like(to_classes, features), like(to_all, features))


def kmeans_distance(features: Table, *, clusters: int, seed: int = 0, batch: int | None = None) -> Float[Array, " n"]:
    """Distance to the nearest of so many centres found by k-means, float64: higher = less like the others. No labels.

    scikit-learn's k-means from one k-means++ start, on the CPU.

    Args:
        features: (n, d).
        clusters: how many centres; the paper does not say how many it took.
        seed: of the start.
        batch: examples a step of mini-batch k-means, for large n; by default every step sees all.

    Raises:
        ModuleNotFoundError: if scikit-learn is not installed.
        ValueError: if there are more clusters than examples, or features are not finite or not (n, d).

    Source:
        Cui et al. 2023 (arXiv:2304.10127), measure "K-means"; Sorscher et al. 2022 (arXiv:2206.14486).
    """
    with named():  # slow to import, and only this function needs it
        from sklearn.cluster import KMeans, MiniBatchKMeans

    x = _check_features(features)
    check_size(x, "features", 1e15)  # scikit-learn squares in float32
    clusters = check_whole(clusters, "clusters, of the examples,", least=1, most=len(x))
    seed = check_whole(seed, "seed", least=0, most=2**32 - 1)
    batch = None if batch is None else check_whole(batch, "batch", least=1)
    if batch is None:
        found = KMeans(clusters, n_init=1, random_state=seed)
    else:
        found = MiniBatchKMeans(clusters, n_init=1, random_state=seed, batch_size=batch)
    rows = x.cpu().float() if x.dtype != torch.float64 else x.cpu()  # scikit-learn has no half precision
    nearest = torch.from_numpy(found.fit_predict(rows.numpy())).long().to(x.device)
    centres = torch.from_numpy(found.cluster_centers_).double().to(x.device)
    parts = ((part.double() - centres[at]).norm(dim=-1) for part, at in by_rows(ROWS, x, nearest))
    return like(torch.cat(list(parts)), features)


def training_loss(logits: Table, labels: Column) -> Float[Array, " n"]:
    """Cross entropy of each example in nats, float64: higher = harder for the network that gave the logits.

    Raises:
        ValueError: if logits are not finite or are probabilities, or a label is outside [0, c).

    Source:
        Cui et al. 2023 (arXiv:2304.10127), measure "Loss".
    """
    table = check_logits(logits)
    y = check_labels(labels, table.shape[1], rows=len(table), device=table.device)
    parts = (rows.double().log_softmax(-1).gather(1, at[:, None])[:, 0] for rows, at in by_rows(ROWS, table, y))
    return like(-torch.cat(list(parts)), logits)


def forgetting(correct: Table) -> Int[Array, " n"]:
    """How often each example was right after one epoch and wrong after the next: higher = harder.

    An example that was never right counts as the number of epochs, more than any other can reach; the source sorts it
    last, as infinite.

    Args:
        correct: (epochs, n), whether each example was right after each epoch.

    Raises:
        ValueError: if there are fewer than two epochs, or an entry is neither true nor false.

    Source:
        Toneva et al. 2019 (arXiv:1812.05159), section 3.
    """
    table = as_tensor(correct, "correct")
    if table.ndim != 2 or len(table) < 2 or not table.numel():
        raise ValueError(f"correct must have shape (epochs, n) with two epochs or more; it is {tuple(table.shape)}")
    right = torch.stack([check_mask(row, f"correct after epoch {epoch}") for epoch, row in enumerate(table)])
    events = (right[:-1] & ~right[1:]).sum(0)
    return like(torch.where(right.any(0), events, len(right)), correct)


def normalised(difficulty: Column, normaliser: str = "minmax", *, dimensions: int | None = None) -> Float[Array, " n"]:
    """The difficulty on the scale that the weights are taken from, float64: higher = harder.

    Args:
        difficulty: (n,), any real score, of the whole training set.
        normaliser: "minmax" to [0, 1]; "clipped", the same up to the 99.9 % quantile and 1 above it, so that one odd
            example does not set the scale; "zscore" to mean 0 and standard deviation 1; "max_abs" divides by the largest
            size; "dimension" by the number of features; "raw" leaves it. The paper does not say which; it decides how
            many examples get a weight that matters.
        dimensions: number of features; "dimension" needs it, the others do not look at it.

    Raises:
        ValueError: if the difficulty is empty, not finite or constant where that leaves no scale, or the name is unknown.

    Source:
        Cui et al. 2023 (arXiv:2304.10127), equation 10, before which the scale is not stated.
    """
    values = check_confidence(difficulty, "difficulty").double()
    return like(_scaled(values, normaliser, dimensions), difficulty)


def weights(
    difficulty: Column,
    *,
    temperature: float = 0.7,
    normaliser: str = "minmax",
    c: float = 1e-3,
    dimensions: int | None = None,
) -> Float[Array, " n"]:
    """The share in (0, 1) of the entropy bonus that each example gets, float64: higher = harder.

    s = exp(v / temperature) / (max exp(v / temperature) + c), where v is the normalised difficulty; computed by
    logarithms, so that nothing overflows. A weight below 1e-308 becomes 0.

    Args:
        difficulty: (n,), of the whole training set: the largest sets the scale.
        temperature: > 0; larger = more equal weights.
        normaliser, dimensions: as in `normalised`. With "minmax" the least weight is about exp(-1 / temperature).
        c: small constant, 0 or larger.

    Raises:
        ValueError: if temperature or c are out of range, and as in `normalised`.

    Source:
        Cui et al. 2023 (arXiv:2304.10127), equation 10.
    """
    temperature, c = check_number(temperature, "temperature", above=0), check_number(c, "c", least=0)
    values = check_confidence(difficulty, "difficulty").double()
    scaled = _scaled(values, normaliser, dimensions) / temperature
    if not scaled.isfinite().all():
        raise ValueError(
            f"difficulty over temperature must be finite; the temperature {temperature} is too low for difficulties of "
            f"{values.abs().max().item():.6g} by normaliser={normaliser!r}. Pass normaliser='minmax', or a higher temperature."
        )
    top = scaled.max()
    constant = torch.full_like(top, log(c) if c else -torch.inf)
    return like((scaled - torch.logaddexp(top, constant)).exp(), difficulty)


class _Running:
    """Sums over batches about provisional class means, which are those of the first rows that hold the class."""

    def __init__(self, classes: int, precision: str):
        self.classes = check_whole(classes, "classes", least=1)
        self.dtype = PRECISIONS[check_choice(precision, PRECISIONS, "precision")]
        self.counts: Tensor | None = None

    def add(self, features: Table, labels: Column) -> None:
        x = _check_features(features, width=None if self.counts is None else self.sums.shape[1])
        if self.dtype == torch.float32:
            check_size(x, "features", 1e15)  # float32 holds sums of its squares
        y = check_labels(labels, self.classes, rows=len(x), device=x.device)
        if self.counts is None:
            self._start(x)
        device = self.sums.device
        for rows, label in by_rows(self.rows, x, y):
            self._add(rows.to(device), label.to(device))

    def _start(self, x: Float[Tensor, "n d"]) -> None:
        width, wide = x.shape[1], {"dtype": torch.float64, "device": x.device}
        self.rows, self.block = (ROWS, 128) if x.device.type == "cpu" else (4 * ROWS, width)
        self.counts = torch.zeros(self.classes, dtype=torch.int64, device=x.device)
        self.centres = torch.zeros(self.classes, width, dtype=self.dtype, device=x.device)
        self.sums, self.gram = torch.zeros(self.classes, width, **wide), torch.zeros(width, width, **wide)
        self.buffer = torch.empty(self.rows, width, dtype=self.dtype, device=x.device)

    def _add(self, x: Float[Tensor, "n d"], y: Int[Tensor, " n"]) -> None:
        seen = y.bincount(minlength=self.classes)
        fresh = (seen > 0) & (self.counts == 0)
        if fresh.any():
            total = torch.zeros_like(self.sums).index_add_(0, y, x.double())
            self.centres[fresh] = (total[fresh] / seen[fresh, None]).to(self.dtype)
        self.counts += seen
        z = torch.sub(x, torch.index_select(self.centres, 0, y, out=self.buffer[: len(x)]), out=self.buffer[: len(x)])
        self.sums.index_add_(0, y, z.double())
        for at in range(0, z.shape[1], self.block):  # a scatter is symmetric: its upper blocks are enough
            left, right, into = z[:, at : at + self.block].T, z[:, at:], self.gram[at : at + self.block, at:]
            into.addmm_(left, right) if z.dtype == torch.float64 else into.add_(left @ right)

    def moments(self) -> Moments:
        shift = self.sums / self.counts.clamp(min=1)[:, None]
        gram = self.gram.triu()
        within = gram + gram.triu(1).T - (shift * self.counts[:, None]).T @ shift
        return Moments(self.counts, self.centres.double() + shift, within)


def _ridge(covariance: Float[Tensor, "d d"], n: int, strength: float) -> tuple[Float[Tensor, "d d"], float]:
    return _added(covariance, strength * covariance.diagonal().mean().item()), 0.0


def _shrunk(covariance: Float[Tensor, "d d"], n: int, strength: float) -> tuple[Float[Tensor, "d d"], float]:
    mean = covariance.diagonal().mean().item()
    return _added((1 - strength) * covariance, strength * mean), strength


def _oas(covariance: Float[Tensor, "d d"], n: int, strength: float) -> tuple[Float[Tensor, "d d"], float]:
    d, square, mean = len(covariance), covariance.square().mean().item(), covariance.diagonal().mean().item()
    away = (n + 1) * (square - mean**2 / d)
    return _shrunk(covariance, n, min(1.0, (square + mean**2) / away) if away > 0 else 1.0)


def _empirical(covariance: Float[Tensor, "d d"], n: int, strength: float) -> tuple[Float[Tensor, "d d"], float]:
    return covariance, 0.0


COVARIANCES: dict[str, Callable] = {"ridge": _ridge, "oas": _oas, "shrunk": _shrunk, "empirical": _empirical}


def _added(covariance: Float[Tensor, "d d"], amount: float) -> Float[Tensor, "d d"]:
    return covariance + amount * torch.eye(len(covariance), dtype=covariance.dtype, device=covariance.device)


def _minmax(values: Float[Tensor, " n"], dimensions: int | None) -> Float[Tensor, " n"]:
    half = values / 2  # costs no digit, and the difference of two huge numbers does not overflow
    return (half - half.min()) / _scale(half.max() - half.min(), values)


def _clipped(values: Float[Tensor, " n"], dimensions: int | None) -> Float[Tensor, " n"]:
    top = values.kthvalue(-(-999 * len(values) // 1000)).values  # the least value that 99.9 % do not exceed
    return _minmax(values.clamp(max=top), dimensions)


def _zscore(values: Float[Tensor, " n"], dimensions: int | None) -> Float[Tensor, " n"]:
    half = values / 2
    _scale(half.max() - half.min(), values)  # rounding leaves a constant a standard deviation above 0
    _, digits = frexp(values.abs().max().item())
    values = values * 2.0 ** -max(digits, -1000)  # a power of two: no digit is lost, and no square overflows
    return (values - values.mean()) / values.std(correction=0)


def _max_abs(values: Float[Tensor, " n"], dimensions: int | None) -> Float[Tensor, " n"]:
    return values / _scale(values.abs().max(), values)


def _dimension(values: Float[Tensor, " n"], dimensions: int | None) -> Float[Tensor, " n"]:
    if dimensions is None:
        raise ValueError("normaliser 'dimension' divides by the number of features; dimensions is None")
    return values / check_whole(dimensions, "dimensions", least=1)


def _raw(values: Float[Tensor, " n"], dimensions: int | None) -> Float[Tensor, " n"]:
    return values


NORMALISERS: dict[str, Callable[[Tensor, int | None], Tensor]] = {
    "minmax": _minmax,
    "clipped": _clipped,
    "zscore": _zscore,
    "max_abs": _max_abs,
    "dimension": _dimension,
    "raw": _raw,
}


def _scaled(values: Float[Tensor, " n"], normaliser: str, dimensions: int | None) -> Float[Tensor, " n"]:
    return NORMALISERS[check_choice(normaliser, NORMALISERS, "normaliser")](values, dimensions)


def _scale(size: Tensor, values: Float[Tensor, " n"]) -> Tensor:
    if not size > 0:
        raise ValueError(
            f"difficulty is constant: {values[0].item()} in each of {len(values)} rows (or in all but a few), so it has no "
            "scale. Were the features computed from one image? normaliser='raw' gives them equal weights."
        )
    return size


def _principal(covariance: Float[Tensor, "d d"], components: int) -> Float[Tensor, "d k"]:
    return torch.linalg.eigh(covariance).eigenvectors[:, len(covariance) - components :].flip(-1)


def _cholesky(covariance: Float[Tensor, "d d"], moments: Moments, components: int | None) -> Float[Tensor, "d d"]:
    """Its lower factor; the squared pivots over the variances are what the earlier features leave of each feature."""
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
        f"examples of {present} classes allow at most {n - present}. Pass covariance='ridge' with ridge=1e-6 or larger, "
        f"or covariance='oas'{more}."
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


def _check_features(features: Table, width: int | None = None) -> Float[Tensor, "n d"]:
    x = as_tensor(features, "features")
    if x.ndim != 2 or not x.numel():
        raise ValueError(f"features must have shape (n, d) with at least one row; it is {tuple(x.shape)}")
    if width is not None and x.shape[1] != width:
        raise ValueError(
            f"features have width {x.shape[1]} where {width} is expected. Of another network, or another layer of it?"
        )
    x = x if x.is_floating_point() else x.double()
    check_finite(x, "features")
    check_size(x, "features", LARGEST)
    return x


def _check_pair(gaussians: Gaussians, features: Table) -> tuple[Gaussians, Float[Tensor, "n d"]]:
    """The Gaussians as tensors on the device of the features, and these."""
    check_made(gaussians, Gaussians, "gaussians", "fit_gaussians")
    x = _check_features(features, width=len(gaussians.centre))
    return Gaussians(*(as_tensor(part).to(x.device) for part in gaussians[:-1]), gaussians.shrinkage), x


def _check_own(labels: Column, model: Gaussians, rows: int) -> Int[Tensor, " n"]:
    y = check_labels(labels, len(model.counts), rows=rows).to(model.counts.device)
    empty = model.counts[y] == 0
    if empty.any():
        row = int(empty.nonzero()[0])
        raise ValueError(
            f"row {row} has label {y[row].item()}, a class without an example among those of the fit: it has no mean. "
            "Leave its examples out, or fit with some."
        )
    return y


def _refuse_one_class(model: Gaussians) -> None:
    if not model.means.shape[1]:
        raise ValueError("relative distances compare classes with the whole; the Gaussians know only one class")


def _along(model: Gaussians, columns: int | None, x: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Rows of x along the first axes (all by default), some hundred at a time, with the same rows of the others."""
    axes = model.axes[:, :columns].contiguous()
    for rows, *rest in by_rows(ROWS, x, *others):
        yield (rows.double() - model.centre) @ axes, *rest


def _to_means(model: Gaussians, z: Float[Tensor, "n q"]) -> Float[Tensor, "n k"]:
    """|z - mean|^2 as one product; infinite for a class without examples."""
    length = torch.where(model.counts > 0, model.means.square().sum(-1), torch.inf)
    square = z.square().sum(-1, keepdim=True)
    return torch.addmm(length + square, z, model.means.T, alpha=-2).clamp_(min=0)


def _to_all(model: Gaussians, z: Float[Tensor, "n r"]) -> Float[Tensor, " n"]:
    q = model.means.shape[1]
    return (z[:, :q].square() / model.spread).sum(-1) + z[:, q:].square().sum(-1)


def _tensors(moments: Moments, name: str = "moments") -> Moments:
    check_made(moments, Moments, name, "moments(features, labels, classes=...)")
    counts, means, within = (as_tensor(part) for part in moments)
    return Moments(counts.long().to(means.device), means.double(), within.double().to(means.device))


def _moments_like(moments: Moments, given: Any) -> Moments:
    return Moments(*(like(part, given) for part in moments))
