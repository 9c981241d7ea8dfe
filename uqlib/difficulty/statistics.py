"""Counts, means and products of features in one pass over them, mergeable across processes."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from uqlib.base.arrays import Array, Column, Table, add_up, as_tensor, by_rows, like
from uqlib.base.checks import check_finite, check_labels, check_size
from uqlib.base.options import check_choice, check_result, check_whole

ROWS = 512  # examples at a time: what a processor's cache holds
LARGEST = 1e70  # of a feature: the fourth powers of smaller ones can be added up
PRECISIONS = {"float64": torch.float64, "float32": torch.float32}


class Moments(NamedTuple):
    """What one pass over labelled features leaves: enough for the Gaussians, and it adds up over batches and processes.

    Three arrays of k classes and d features; `numpy.savez(path, **moments._asdict())` stores them.
    """

    counts: Int[Array, " k"]  # examples of each class
    means: Float[Array, "k d"]  # of each class; 0 where there is no example
    within: Float[Array, "d d"]  # sum over the examples of (x - mean of its class)(x - mean of its class)'


class TensorMoments(NamedTuple):
    """Moments on one device, as the sums here are computed."""

    counts: Int[Tensor, " k"]
    means: Float[Tensor, "k d"]
    within: Float[Tensor, "d d"]


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

    Examples:
        >>> from uqlib.difficulty import moments
        >>> moments([[0.0, 0.0], [2.0, 0.0], [5.0, 1.0]], [0, 0, 1], classes=2).means
        array([[1., 0.],
               [5., 1.]])
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


def joined_means(parts: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Counts (k,) and class means (k, d) of the union of parts that have both; 0 for a class without examples."""
    counts = add_up(part.counts for part in parts)
    anchor = parts[0].means  # differences of means are small where means are large
    shift = add_up((part.means - anchor) * part.counts[:, None] for part in parts) / counts.clamp(min=1)[:, None]
    return counts, torch.where(counts[:, None] > 0, anchor + shift, 0.0)


def merge_moments(first: Moments, *others: Moments) -> Moments:
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
    parts = [TensorMoments(*(array.to(device) for array in part)) for part in parts]
    counts, means = joined_means(parts)
    within = add_up(part.within for part in parts)
    for part in parts:
        shared = (part.counts > 0) & (part.counts < counts)
        apart = (part.means - means)[shared]
        within = within + (apart * part.counts[shared, None]).T @ apart
    return _moments_like(TensorMoments(counts, means, within), first.counts)


class _Running:
    """Sums over batches about provisional class means, which are those of the first rows that hold the class."""

    def __init__(self, classes: int, precision: str):
        self.classes = check_whole(classes, "classes", least=1)
        self.dtype = PRECISIONS[check_choice(precision, PRECISIONS, "precision")]
        self.started = False

    def add(self, features: Table, labels: Column) -> None:
        x = _check_features(features, width=self.sums.shape[1] if self.started else None)
        if self.dtype == torch.float32:
            check_size(x, "features", 1e15)  # float32 holds sums of its squares
        y = check_labels(labels, self.classes, rows=len(x), device=x.device)
        if not self.started:
            self._start(x)
        device = self.sums.device
        for rows, label in by_rows(self.rows, x, y):
            self._add(rows.to(device), label.to(device))

    def _start(self, x: Float[Tensor, "n d"]) -> None:
        self.started = True
        width, device = x.shape[1], x.device
        self.rows, self.block = (ROWS, 128) if device.type == "cpu" else (4 * ROWS, width)
        self.counts = torch.zeros(self.classes, dtype=torch.int64, device=device)
        self.centres = torch.zeros(self.classes, width, dtype=self.dtype, device=device)
        self.sums = torch.zeros(self.classes, width, dtype=torch.float64, device=device)
        self.gram = torch.zeros(width, width, dtype=torch.float64, device=device)
        self.buffer = torch.empty(self.rows, width, dtype=self.dtype, device=device)

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

    def moments(self) -> TensorMoments:
        shift = self.sums / self.counts.clamp(min=1)[:, None]
        gram = self.gram.triu()
        within = gram + gram.triu(1).T - (shift * self.counts[:, None]).T @ shift
        return TensorMoments(self.counts, self.centres.double() + shift, within)


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


def _tensors(moments: Moments, name: str = "moments") -> TensorMoments:
    check_result(moments, Moments, name, "moments(features, labels, classes=...)")
    counts, means, within = (as_tensor(part) for part in moments)
    return TensorMoments(counts.long().to(means.device), means.double(), within.double().to(means.device))


def _moments_like(found: TensorMoments, given: Any) -> Moments:
    return Moments(like(found.counts, given), like(found.means, given), like(found.within, given))
