"""Bins of confidence, and what lies in each: all that a binned calibration error needs.

Two conventions differ between libraries and are fixed here. Bins are half-open, (lo, hi], and a confidence
of exactly 0 belongs to the first. Bins of equal width end at the real numbers k / bins; bins of equal mass
end at sample quantiles, and equal confidences always share a bin, so that the order of rows never matters.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from uqlib.base.arrays import Array, Column, as_tensor, by_rows, like
from uqlib.base.checks import check_share_and_hits, check_weights
from uqlib.base.exact import exact_sums, rounded_mean
from uqlib.base.options import check_choice, check_whole
from uqlib.metrics.ranking import least, refuse_scaled

CHUNK = 2**16  # float64 copies of this many confidences stay in the cache


@dataclass(frozen=True, eq=False)
class Bins:
    """Totals of confidence and of correctness in each bin: all that a binned calibration error needs.

    Bins of equal width from several batches add up, `a + b` or `sum(parts)`, to the bins of all their rows:
    counts exactly, sums of confidence up to rounding. The size does not grow with the data. Bins know how they were
    made, and a metric that asks for others refuses them. Weights that are not whole numbers do not add: they lost their scale.
    """

    count: Shaped[Array, " b"]  # examples, or the sum of their weights
    confidence: Float[Array, " b"]  # sum of their confidences
    correct: Shaped[Array, " b"]  # how many of them are correct, by weight
    upper: Float[Array, " b"]  # last confidence that belongs to the bin
    by: str = "width"  # or "mass"

    def __add__(self, other: "Bins") -> "Bins":
        if not isinstance(other, Bins):
            return NotImplemented
        if len(self.upper) != len(other.upper) or not (as_tensor(self.upper) == as_tensor(other.upper)).all():
            raise ValueError(
                f"cannot add bins with different edges ({len(self.upper)} and {len(other.upper)} bins). "
                "Use bin_by_width with one number of bins; quantiles of two samples do not add."
            )
        if self.by != other.by:
            raise ValueError(f"cannot add bins by {self.by} and bins by {other.by}")
        for each, name in ((self, "the first bins"), (other, "the second bins")):
            refuse_scaled(as_tensor(each.count), name, "bin all rows at once")
        added = lambda one, two: like(as_tensor(one) + as_tensor(two), one)  # noqa: E731
        return Bins(
            added(self.count, other.count),
            added(self.confidence, other.confidence),
            added(self.correct, other.correct),
            self.upper,
            self.by,
        )

    def __radd__(self, other: int) -> "Bins":
        return self if isinstance(other, int) and other == 0 else NotImplemented  # sum() starts from 0


def bin_by_width(confidence: Column, correct: Column, *, bins: int = 15, weights: Column | None = None) -> Bins:
    """Totals over bins of equal width, ((k-1)/bins, k/bins], the first of which holds 0 as well.

    A float16 or float32 confidence is compared with the real numbers k/bins, a float64 one with the float64
    nearest to them. One pass, no memory that grows with n.

    Args:
        confidence: in [0, 1], (n,).
        correct: whether each prediction equals its label, (n,).
        bins: how many.
        weights: (n,) how much each example counts, 0 or larger; None counts each once.

    Raises:
        ValueError: if a confidence is outside [0, 1] or NaN, bins is below 1, or a weight is negative or all are 0.

    Examples:
        >>> from uqlib.metrics import bin_by_width
        >>> bin_by_width([0.2, 0.5, 0.6, 0.9], [False, True, True, True], bins=2).count  # 0.5 belongs to (0, 0.5]
        array([2, 2])
    """
    bins = check_whole(bins, "bins", least=1)
    score, hit = check_share_and_hits(confidence, correct)
    upper = _upper(bins, score.device)
    if weights is not None:
        return _by_weighted_width(score, hit, check_weights(weights, len(score), score.device), upper, confidence)
    parts = [_totals(upper, *part) for part in by_rows(chunk_of(score), score, hit)]
    counts, totals = zip(*parts, strict=True)
    count = torch.stack(counts).sum(0).view(bins, 2)
    sums = [rounded_mean(sum(cell), 1) for cell in zip(*totals, strict=True)]  # exact, and rounded once
    summed = torch.tensor(sums, dtype=torch.float64, device=score.device)
    return _bins(count.sum(1), summed, count[:, 1], upper, confidence, "width")


def bin_by_mass(confidence: Column, correct: Column, *, bins: int = 15, weights: Column | None = None) -> Bins:
    """Totals over bins that hold equally many examples, up to one, as far as equal confidences allow.

    Bin k ends at the ceil(k n / bins)-th smallest confidence, that one and all its equals included. Where many
    confidences are equal, later bins are therefore smaller or empty. Sorts once: time n log n, memory 2 n.
    Such bins depend on the sample, so those of two batches cannot be added.

    Args:
        confidence: in [0, 1], (n,).
        correct: whether each prediction equals its label, (n,).
        bins: how many.
        weights: (n,) how much each example counts, 0 or larger; None counts each once.

    Raises:
        ValueError: if a confidence is outside [0, 1] or NaN, bins is below 1, or a weight is negative or all are 0.

    Examples:
        >>> from uqlib.metrics import bin_by_mass
        >>> bin_by_mass([0.7, 0.8, 0.9, 0.9], [False, True, True, True], bins=2).count
        array([2, 2])
        >>> bin_by_mass([0.8, 0.9, 0.9, 0.9], [False, True, True, True], bins=2).count  # what is equal stays together
        array([4, 0])
    """
    bins = check_whole(bins, "bins", least=1)
    score, hit = check_share_and_hits(confidence, correct)
    if weights is not None:
        return _by_weighted_mass(score, hit, check_weights(weights, len(score), score.device), bins, confidence)
    values, hits = _sorted(score), _sorted(score[hit])
    last = [-(-k * len(values) // bins) - 1 for k in range(1, bins + 1)]
    upper = values[torch.tensor(last, device=values.device)]
    ends = torch.searchsorted(values, upper, right=True)
    count = ends.diff(prepend=ends.new_zeros(1))
    right = torch.searchsorted(hits, upper, right=True).diff(prepend=ends.new_zeros(1))
    sums = torch.stack([part.sum(dtype=torch.float64) for part in values.split(count.tolist())])
    return _bins(count, sums, right, upper.double(), confidence, "mass")


BINNINGS = {"width": bin_by_width, "mass": bin_by_mass}


def as_bins(
    confidence: Column | Bins, correct: Column | None, bins: int | None, by: str, weights: Column | None = None
) -> Bins:
    """What a metric was given, as Bins: arrays are binned, Bins are taken as they are if they were made so."""
    binning = BINNINGS[check_choice(by, BINNINGS, "by")]
    if not isinstance(confidence, Bins):
        if correct is None:
            raise ValueError("correct is missing; pass `preds == labels` beside the confidence, or Bins alone")
        return binning(confidence, correct, bins=15 if bins is None else bins, weights=weights)
    if correct is not None or weights is not None:
        raise ValueError(f"{'weights' if correct is None else 'correct'} are known to the Bins; pass them alone")
    if by != confidence.by:
        raise ValueError(
            f"by is {by!r}, and these Bins were made by {confidence.by}: pass by={confidence.by!r}, or others"
        )
    made = len(confidence.count)
    if bins is not None and check_whole(bins, "bins", least=1) != made:
        raise ValueError(f"bins is {bins}, and these Bins are {made}: leave it out, or pass confidence and correct")
    return confidence


def gaps_from_counts(count: Tensor, summed: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Share and gap along the last axis; the gap of a bin without examples is zero."""
    return count.double() / count.sum(-1, keepdim=True), (summed - right).abs() / count.clamp(min=least(count))


def place_by_width(confidence: Float[Tensor, " n"], bins: int) -> Int[Tensor, " n"]:
    """The number of the bin of each confidence, as in bin_by_width."""
    return _place(confidence.double().contiguous(), _upper(bins, confidence.device), confidence.dtype).long()


def _totals(
    upper: Float[Tensor, " b"], confidence: Float[Tensor, " n"], correct: Bool[Tensor, " n"]
) -> tuple[Int[Tensor, " b2"], list[int]]:
    """Count of the wrong and the right of each bin in turn, and the exact sum of confidence of each bin."""
    values = confidence.double().contiguous()  # torch warns of a strided column
    place = _place(values, upper, confidence.dtype).long()
    sums = exact_sums(confidence.contiguous(), place, len(upper))
    return torch.bincount(place.mul_(2).add_(correct), minlength=2 * len(upper)), sums


def _by_weighted_width(
    score: Float[Tensor, " n"],
    hit: Bool[Tensor, " n"],
    weights: Float[Tensor, " n"],
    upper: Float[Tensor, " b"],
    given: Column,
) -> Bins:
    """Sums of weights in place of counts."""
    place = _place(score.double().contiguous(), upper, score.dtype).long()
    columns = torch.ones_like(weights), score.double(), hit.double()
    sums = [torch.bincount(place, weights=weights * each, minlength=len(upper)) for each in columns]
    return _bins(sums[0], sums[1], sums[2], upper, given, "width")


def _by_weighted_mass(
    score: Float[Tensor, " n"], hit: Bool[Tensor, " n"], weights: Float[Tensor, " n"], bins: int, given: Column
) -> Bins:
    """Bin k ends at the smallest confidence up to which k / bins of the weight lie."""
    values, order = score.double().sort(stable=True)
    hit, weights = hit[order], weights[order]
    total = weights.cumsum(0)
    ends = torch.arange(1, bins + 1, dtype=torch.float64, device=score.device) * total[-1] / bins
    last = torch.searchsorted(total, ends * (1 - 1e-12)).clamp(max=len(values) - 1)
    upper = values[last]
    place = torch.searchsorted(upper, values).clamp(max=bins - 1)
    empty = weights.new_zeros(bins)
    columns = torch.ones_like(values), values, hit.double()
    count, summed, right = (empty.index_add(0, place, weights * each) for each in columns)
    return _bins(count, summed, right, upper, given, "mass")


def _upper(bins: int, device: torch.device) -> Float[Tensor, " b"]:
    return torch.arange(1, bins + 1, dtype=torch.float64, device=device) / bins


def _place(values: Float[Tensor, " n"], upper: Float[Tensor, " b"], given: torch.dtype) -> Tensor:
    """The number of the bin of equal width that each value lies in, a whole number of any type."""
    if given == torch.float64:
        return torch.bucketize(values, upper)
    # exact: the product of a float32 and the number of bins fits in a float64
    return (values * len(upper)).ceil_().sub_(1).clamp_(min=0)


def chunk_of(confidence: Float[Tensor, " n"]) -> int:
    """How many rows go through float64 at a time."""
    return 2**24 if confidence.is_cuda else CHUNK  # a GPU wants few launches, a CPU wants its cache


def _sorted(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    if values.is_cuda:
        return values.sort().values
    values = values.float() if values.dtype == torch.bfloat16 else values
    return torch.from_numpy(np.sort(values.numpy()))  # vectorised: ten times faster than torch on a CPU


def _bins(count: Tensor, confidence: Tensor, correct: Tensor, upper: Tensor, given: Column, by: str) -> Bins:
    return Bins(like(count, given), like(confidence, given), like(correct, given), like(upper, given), by)
