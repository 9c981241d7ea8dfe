"""How far an example lies from its class, from any class and from all: Mahalanobis, relative Mahalanobis, k-means."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uqlib.base.arrays import Array, Column, Table, as_tensor, by_rows, like
from uqlib.base.checks import check_labels, check_size
from uqlib.base.extras import named
from uqlib.base.options import check_result, check_whole
from uqlib.difficulty.gaussians import Gaussians
from uqlib.difficulty.statistics import ROWS, _check_features


class TensorGaussians(NamedTuple):
    """What distances need of Gaussians, on one device."""

    counts: Int[Tensor, " k"]
    centre: Float[Tensor, " d"]
    axes: Float[Tensor, "d r"]
    means: Float[Tensor, "k q"]
    spread: Float[Tensor, " q"]


class Distances(NamedTuple):
    """Squared Mahalanobis distances, smaller = closer."""

    to_classes: Float[Array, "n k"]  # infinite for a class without examples
    to_all: Float[Array, " n"]  # of the Gaussian that knows no classes


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

    Examples:
        >>> import numpy as np
        >>> from uqlib.difficulty import fit_gaussians, moments, relative_mahalanobis
        >>> labels = np.arange(200) % 2
        >>> features = np.random.default_rng(0).normal(size=(200, 3)) + 4 * np.eye(2, 3)[labels]
        >>> given = np.where(np.arange(200) < 5, 1 - labels, labels)  # the first five labels are wrong
        >>> gaussians = fit_gaussians(moments(features, given, classes=2))
        >>> np.sort(np.argsort(relative_mahalanobis(gaussians, features, given))[-5:])  # the five hardest
        array([0, 1, 2, 3, 4])
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

    Examples:
        >>> import numpy as np
        >>> from uqlib.difficulty import fit_gaussians, mahalanobis, moments
        >>> labels = np.arange(200) % 2
        >>> features = np.random.default_rng(0).normal(size=(200, 3)) + 4 * np.eye(2, 3)[labels]
        >>> gaussians = fit_gaussians(moments(features, labels, classes=2))
        >>> round(float(mahalanobis(gaussians, features, labels).mean()), 3)  # the number of features
        3.0
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

    Examples:
        >>> import numpy as np
        >>> from uqlib.difficulty import fit_gaussians, moments, nearest_mahalanobis
        >>> labels = np.arange(200) % 2
        >>> features = np.random.default_rng(0).normal(size=(200, 3)) + 4 * np.eye(2, 3)[labels]
        >>> gaussians = fit_gaussians(moments(features, labels, classes=2))
        >>> known, strange = (nearest_mahalanobis(gaussians, x) for x in (features, features + 9))
        >>> bool(strange.min() > known.max())
        True
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


def _check_pair(gaussians: Gaussians, features: Table) -> tuple[TensorGaussians, Float[Tensor, "n d"]]:
    """The Gaussians as tensors on the device of the features, and these."""
    check_result(gaussians, Gaussians, "gaussians", "fit_gaussians")
    x = _check_features(features, width=len(gaussians.centre))
    return TensorGaussians(*(as_tensor(part).to(x.device) for part in gaussians[:-1])), x


def _check_own(labels: Column, model: TensorGaussians, rows: int) -> Int[Tensor, " n"]:
    y = check_labels(labels, len(model.counts), rows=rows).to(model.counts.device)
    empty = model.counts[y] == 0
    if empty.any():
        row = int(empty.nonzero()[0])
        raise ValueError(
            f"row {row} has label {y[row].item()}, a class without an example among those of the fit: it has no mean. "
            "Leave its examples out, or fit with some."
        )
    return y


def _refuse_one_class(model: TensorGaussians) -> None:
    if not model.means.shape[1]:
        raise ValueError("relative distances compare classes with the whole; the Gaussians know only one class")


def _along(model: TensorGaussians, columns: int | None, x: Tensor, *others: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Rows of x along the first axes (all by default), some hundred at a time, with the same rows of the others."""
    axes = model.axes[:, :columns].contiguous()
    for rows, *rest in by_rows(ROWS, x, *others):
        yield (rows.double() - model.centre) @ axes, *rest


def _to_means(model: TensorGaussians, z: Float[Tensor, "n q"]) -> Float[Tensor, "n k"]:
    """|z - mean|^2 as one product; infinite for a class without examples."""
    length = torch.where(model.counts > 0, model.means.square().sum(-1), torch.inf)
    square = z.square().sum(-1, keepdim=True)
    return torch.addmm(length + square, z, model.means.T, alpha=-2).clamp_(min=0)


def _to_all(model: TensorGaussians, z: Float[Tensor, "n r"]) -> Float[Tensor, " n"]:
    q = model.means.shape[1]
    return (z[:, :q].square() / model.spread).sum(-1) + z[:, q:].square().sum(-1)
