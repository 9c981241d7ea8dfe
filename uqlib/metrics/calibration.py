"""Does a confidence of 80 % mean that 80 % are right: calibration errors, all lower is better.

Two conventions differ between libraries and are fixed here. Bins are half-open, (lo, hi], and a confidence
of exactly 0 belongs to the first. Bins of equal width end at the real numbers k / bins; bins of equal mass
end at sample quantiles, and equal confidences always share a bin, so that the order of rows never matters.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uqlib.base.arrays import Array, Column, Table, as_tensor, by_rows, like
from uqlib.base.checks import check_labels, check_mask, check_probs, check_share
from uqlib.base.options import check_choice, check_whole

CHUNK = 2**16  # float64 copies of this many confidences stay in the cache
MESH = 2**15  # points of the grid on which the smooth error is evaluated


@dataclass(frozen=True, eq=False)
class Bins:
    """Totals of confidence and of correctness in each bin: all that a binned calibration error needs.

    Bins of equal width from several batches add up, `a + b` or `sum(parts)`, to the bins of all their rows:
    counts exactly, sums of confidence up to rounding. The size does not grow with the data. Bins know how they were
    made, and a metric that asks for others refuses them.
    """

    count: Int[Array, " b"]  # examples
    confidence: Float[Array, " b"]  # sum of their confidences
    correct: Int[Array, " b"]  # how many of them are correct
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
        return Bins(
            self.count + other.count,
            self.confidence + other.confidence,
            self.correct + other.correct,
            self.upper,
            self.by,
        )

    def __radd__(self, other: int) -> "Bins":
        return self if isinstance(other, int) and other == 0 else NotImplemented  # sum() starts from 0


class ReliabilityCurve(NamedTuple):
    """What a reliability diagram draws. A bin without examples has NaN means."""

    confidence: Float[Array, " b"]  # mean confidence
    accuracy: Float[Array, " b"]
    count: Int[Array, " b"]  # type: ignore[assignment]  # hides tuple.count, which nobody needs
    upper: Float[Array, " b"]  # last confidence that belongs to the bin


def bin_by_width(confidence: Column, correct: Column, *, bins: int = 15) -> Bins:
    """Totals over bins of equal width, ((k-1)/bins, k/bins], the first of which holds 0 as well.

    A float16 or float32 confidence is compared with the real numbers k/bins, a float64 one with the float64
    nearest to them. One pass, no memory that grows with n.

    Args:
        confidence: in [0, 1], (n,).
        correct: whether each prediction equals its label, (n,).
        bins: how many.

    Raises:
        ValueError: if a confidence is outside [0, 1] or NaN, or bins is below 1.

    Examples:
        >>> from uqlib.metrics import bin_by_width
        >>> bin_by_width([0.2, 0.5, 0.6, 0.9], [False, True, True, True], bins=2).count  # 0.5 belongs to (0, 0.5]
        array([2, 2])
    """
    bins = check_whole(bins, "bins", least=1)
    score, hit = _check(confidence, correct)
    upper = _upper(bins, score.device)
    parts = [_totals(scores, hits, upper) for scores, hits in by_rows(_chunk(score), score, hit)]
    # stacked, then summed: torch sums in pairs, which keeps the error of 10^8 rows near that of one chunk
    counts, sums = (torch.stack(part).sum(0).view(bins, 2) for part in zip(*parts, strict=True))
    return _bins(counts.sum(1), sums.sum(1), counts[:, 1], upper, confidence, "width")


def bin_by_mass(confidence: Column, correct: Column, *, bins: int = 15) -> Bins:
    """Totals over bins that hold equally many examples, up to one, as far as equal confidences allow.

    Bin k ends at the ceil(k n / bins)-th smallest confidence, that one and all its equals included. Where many
    confidences are equal, later bins are therefore smaller or empty. Sorts once: time n log n, memory 2 n.
    Such bins depend on the sample, so those of two batches cannot be added.

    Args:
        confidence: in [0, 1], (n,).
        correct: whether each prediction equals its label, (n,).
        bins: how many.

    Raises:
        ValueError: if a confidence is outside [0, 1] or NaN, or bins is below 1.

    Examples:
        >>> from uqlib.metrics import bin_by_mass
        >>> bin_by_mass([0.7, 0.8, 0.9, 0.9], [False, True, True, True], bins=2).count
        array([2, 2])
        >>> bin_by_mass([0.8, 0.9, 0.9, 0.9], [False, True, True, True], bins=2).count  # what is equal stays together
        array([4, 0])
    """
    bins = check_whole(bins, "bins", least=1)
    score, hit = _check(confidence, correct)
    values, hits = _sorted(score), _sorted(score[hit])
    last = [-(-k * len(values) // bins) - 1 for k in range(1, bins + 1)]
    upper = values[torch.tensor(last, device=values.device)]
    ends = torch.searchsorted(values, upper, right=True)
    count = ends.diff(prepend=ends.new_zeros(1))
    right = torch.searchsorted(hits, upper, right=True).diff(prepend=ends.new_zeros(1))
    sums = torch.stack([part.sum(dtype=torch.float64) for part in values.split(count.tolist())])
    return _bins(count, sums, right, upper.double(), confidence, "mass")


BINNINGS = {"width": bin_by_width, "mass": bin_by_mass}


def _l1(share: Tensor, gap: Tensor) -> Tensor:
    return (share * gap).sum(-1)


def _l2(share: Tensor, gap: Tensor) -> Tensor:
    return (share * gap.square()).sum(-1).sqrt()


def _largest(share: Tensor, gap: Tensor) -> Tensor:
    return gap.amax(-1)


NORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": _l1, "l2": _l2, "max": _largest}


def ece(
    confidence: Column | Bins,
    correct: Column | None = None,
    *,
    bins: int | None = None,
    by: str = "width",
    norm: str = "l1",
) -> float:
    """Expected calibration error: the gap between mean confidence and accuracy, over bins, lower is better.

    "l1" averages |gap| weighted by the examples in the bin, "l2" is the root of the average gap², "max" is
    the largest gap in a bin that holds examples. Plug-in estimates: they exceed zero for a perfectly
    calibrated classifier too, by more the fewer examples a bin holds; debiased_ece does not.
    By width: 10^7 float32 take about 0.1 s on one core, and no memory that grows with n.

    Args:
        confidence: in [0, 1], (n,); or the Bins, then alone.
        correct: whether each prediction equals its label, (n,).
        bins: how many, by default 15; beside Bins the number that they have.
        by: "width" (Guo et al.), which "ECE" means where nothing else is said, or "mass" (Nguyen & O'Connor, Nixon et
            al.). It must say how Bins were made.
        norm: "l1", "l2" or "max".

    Raises:
        ValueError: if a confidence is outside [0, 1] or NaN, an option is unknown, or Bins were made otherwise.

    Source:
        Guo et al. 2017 (arXiv:1706.04599), section 2; equal mass: Nguyen & O'Connor 2015 (arXiv:1508.05154).

    Examples:
        >>> from uqlib.metrics import ece
        >>> round(ece([0.9, 0.9, 0.6, 0.6], [True, True, True, False]), 3)  # 0.9 and 1, 0.6 and a half
        0.1
        >>> round(ece([0.9, 0.9, 0.6, 0.6], [True, True, True, False], norm='max'), 3)
        0.1
    """
    measure = NORMS[check_choice(norm, NORMS, "norm")]
    return measure(*_gaps(_as_bins(confidence, correct, bins, by))).item()


def rms_calibration_error(
    confidence: Column | Bins, correct: Column | None = None, *, bins: int | None = None, by: str = "mass"
) -> float:
    """Root of the mean squared gap between confidence and accuracy, lower is better: ece(norm="l2").

    Equal mass by default (pass by="width" beside Bins of equal width), as in Hendrycks et al. 2019 (arXiv:1901.09960). Their own number, in which the most
    confident bin is missing, is rms_calibration_error_hendrycks2019.
    """
    return ece(confidence, correct, bins=bins, by=by, norm="l2")


def debiased_ece(
    confidence: Column | Bins, correct: Column | None = None, *, bins: int | None = None, by: str = "mass"
) -> float:
    """Squared l2 calibration error without the bias of the plug-in estimate, lower is better.

    From each squared gap it takes away the variance of the bin's accuracy, a (1 - a) / (m - 1) for m examples.
    A bin of one example has no estimate of it and counts as zero. The mean is right, so the value can fall
    below zero; it is a square: compare it with ece(norm="l2") ** 2.

    Args:
        confidence: in [0, 1], (n,); or the Bins, then alone.
        correct: whether each prediction equals its label, (n,).
        bins: how many, by default 15; beside Bins the number that they have.
        by: "mass" (as in the paper) or "width". It must say how Bins were made.

    Raises:
        ValueError: if a confidence is outside [0, 1] or NaN, an option is unknown, or Bins were made otherwise.

    Source:
        Kumar, Liang & Ma 2019, Verified Uncertainty Calibration (arXiv:1909.10155), debiased estimator.

    Examples:
        >>> from uqlib.metrics import debiased_ece
        >>> round(debiased_ece([0.75] * 4, [True, True, True, False], bins=1), 3)  # no gap, less what chance gives
        -0.062
    """
    totals = _as_bins(confidence, correct, bins, by)
    count, right, summed = (as_tensor(x).double() for x in (totals.count, totals.correct, totals.confidence))
    held = count >= 2
    m, accuracy, mean = count[held], right[held] / count[held], summed[held] / count[held]
    return (m / count.sum() * ((mean - accuracy).square() - accuracy * (1 - accuracy) / (m - 1))).sum().item()


def classwise_ece(probs: Table, labels: Column, *, bins: int = 15, by: str = "width", norm: str = "l1") -> float:
    """Mean over classes of the calibration error of that class's probability, lower is better.

    For class j the confidence is p_j and "correct" is whether the label is j; every row counts in every class.
    By width this is both classwise-ECE (Kull et al.) and the static calibration error (Nixon et al.); by mass,
    Nixon's adaptive calibration error. With many classes most rows lie in the first bin: it is close to zero for
    any network, and comparable only between networks with the same classes.

    Args:
        probs: (n, c), rows that sum to 1.
        labels: classes in [0, c), (n,).
        bins, by, norm: as in ece.

    Raises:
        ValueError: if the rows are not probabilities, a label is outside [0, c), or an option is unknown.

    Source:
        Kull et al. 2019 (arXiv:1910.12656); Nixon et al. 2019 (arXiv:1904.01685).

    Examples:
        >>> from uqlib.metrics import classwise_ece
        >>> round(classwise_ece([[0.8, 0.2], [0.8, 0.2], [0.2, 0.8], [0.2, 0.8]], [0, 0, 1, 0]), 3)
        0.25
    """
    probs = check_probs(probs)
    labels = check_labels(labels, probs.shape[1], rows=len(probs), device=probs.device)
    columns = probs.clamp(max=1).T.contiguous()  # rounding may leave a probability just above 1
    errors = [ece(column, labels == j, bins=bins, by=by, norm=norm) for j, column in enumerate(columns)]
    return sum(errors) / len(errors)


def smooth_ece(confidence: Column, correct: Column) -> float:
    """Calibration error without bins (smECE), lower is better.

    The residuals, correct - confidence, are smoothed along the confidence with a Gaussian that is reflected at
    0 and 1; smECE_s is the area under the absolute value of the result, for width s. It falls as s grows, and
    the value returned is the s at which smECE_s = s, so there is nothing to choose.

    On a grid of step h = 2^-15, where smoothing multiplies the cosine series by exp(-(pi k s)² / 2). The
    relative error is about (h / s)² / 50, and the last digit 1e-8. One pass, then 27 Fourier transforms of the
    grid: 0.1 s for 10^6 float32; no memory that grows with n.

    Args:
        confidence: in [0, 1], (n,).
        correct: whether each prediction equals its label, (n,).

    Raises:
        ValueError: if a confidence is outside [0, 1] or NaN.

    Source:
        Blasiok & Nakkiran 2023, Smooth ECE (arXiv:2309.12236), with the reflected Gaussian kernel.

    Examples:
        >>> from uqlib.metrics import smooth_ece
        >>> round(smooth_ece([0.9, 0.9, 0.6, 0.6], [True, True, True, False]), 3)
        0.09
    """
    score, hit = _check(confidence, correct)
    spectrum = _cosine_series(score, hit)
    frequency = torch.pi * torch.arange(MESH + 1, dtype=torch.float64, device=spectrum.device)
    low, high = 0.0, 1.0
    while high - low > 1e-8:
        width = (low + high) / 2
        error = torch.fft.irfft(spectrum * torch.exp(-((frequency * width) ** 2) / 2)).abs().sum().item()
        low, high = (width, high) if error > width else (low, width)
    return (low + high) / 2


def reliability_curve(
    confidence: Column | Bins, correct: Column | None = None, *, bins: int | None = None, by: str = "width"
) -> ReliabilityCurve:
    """Mean confidence, accuracy and count in each bin: what a reliability diagram draws.

    Args:
        confidence: in [0, 1], (n,); or the Bins, then alone.
        correct: whether each prediction equals its label, (n,).
        bins: how many, by default 15; beside Bins the number that they have.
        by: "width" or "mass". It must say how Bins were made.

    Raises:
        ValueError: if a confidence is outside [0, 1] or NaN, an option is unknown, or Bins were made otherwise.

    Examples:
        >>> from uqlib.metrics import reliability_curve
        >>> curve = reliability_curve([0.9, 0.9, 0.6, 0.6], [True, True, True, False], bins=2)
        >>> curve.accuracy[1], curve.count  # nothing lies in the lower half
        (np.float64(0.75), array([0, 4]))
    """
    totals = _as_bins(confidence, correct, bins, by)
    count = as_tensor(totals.count)
    mean, accuracy = as_tensor(totals.confidence) / count, as_tensor(totals.correct).double() / count
    return ReliabilityCurve(like(mean, totals.count), like(accuracy, totals.count), totals.count, totals.upper)


def gaps_from_counts(count: Tensor, summed: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Share and gap along the last axis; the gap of a bin without examples is zero."""
    return count.double() / count.sum(-1, keepdim=True), (summed - right).abs() / count.clamp(min=1)


def place_by_width(confidence: Float[Tensor, " n"], bins: int) -> Int[Tensor, " n"]:
    """The number of the bin of each confidence, as in bin_by_width."""
    return _place(confidence.double().contiguous(), _upper(bins, confidence.device), confidence.dtype).long()


def _totals(
    confidence: Float[Tensor, " n"], correct: Bool[Tensor, " n"], upper: Float[Tensor, " b"]
) -> tuple[Int[Tensor, " b2"], Float[Tensor, " b2"]]:
    """Count and sum of confidence, for the wrong and the right of each bin in turn."""
    values = confidence.double().contiguous()  # torch warns of a strided column
    cell = _place(values, upper, confidence.dtype).mul_(2).add_(correct).long()
    cells = 2 * len(upper)
    return torch.bincount(cell, minlength=cells), torch.bincount(cell, weights=values, minlength=cells)


def _upper(bins: int, device: torch.device) -> Float[Tensor, " b"]:
    return torch.arange(1, bins + 1, dtype=torch.float64, device=device) / bins


def _place(values: Float[Tensor, " n"], upper: Float[Tensor, " b"], given: torch.dtype) -> Tensor:
    """The number of the bin of equal width that each value lies in, a whole number of any type."""
    if given == torch.float64:
        return torch.bucketize(values, upper)
    # exact: the product of a float32 and the number of bins fits in a float64
    return (values * len(upper)).ceil_().sub_(1).clamp_(min=0)


def _chunk(confidence: Float[Tensor, " n"]) -> int:
    return 2**24 if confidence.is_cuda else CHUNK  # a GPU wants few launches, a CPU wants its cache


def _sorted(values: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    if values.is_cuda:
        return values.sort().values
    values = values.float() if values.dtype == torch.bfloat16 else values
    return torch.from_numpy(np.sort(values.numpy()))  # vectorised: ten times faster than torch on a CPU


def _cosine_series(confidence: Float[Tensor, " n"], correct: Bool[Tensor, " n"]) -> Tensor:
    """Fourier transform of the mean residual on the grid 0, h, ..., 1, mirrored to a period of 2.

    A residual is shared between the two points around it in proportion to nearness, which moves no mass.
    """
    grid = torch.zeros(MESH + 1, dtype=torch.float64, device=confidence.device)
    for score, hit in by_rows(_chunk(confidence), confidence, correct):
        place = score.double() * MESH
        left = place.floor().clamp_(max=MESH - 1)
        residual = hit.double() - score
        share = residual * (place - left)
        left = left.long()
        grid.index_add_(0, left, residual - share).index_add_(0, left + 1, share)
    grid /= len(confidence)
    inner = grid[1:-1] / 2
    spectrum: Tensor = torch.fft.rfft(torch.cat([grid[:1], inner, grid[-1:], inner.flip(0)]))
    return spectrum


def _gaps(totals: Bins) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Share of the examples and |mean confidence - accuracy|, for the bins that hold examples."""
    count, summed, right = (as_tensor(x) for x in (totals.count, totals.confidence, totals.correct))
    held = count > 0
    if not held.any():
        raise ValueError("the bins hold no examples; at least one is needed")
    return gaps_from_counts(count[held], summed[held], right[held])


def _as_bins(confidence: Column | Bins, correct: Column | None, bins: int | None, by: str) -> Bins:
    binning = BINNINGS[check_choice(by, BINNINGS, "by")]
    if not isinstance(confidence, Bins):
        if correct is None:
            raise ValueError("correct is missing; pass `preds == labels` beside the confidence, or Bins alone")
        return binning(confidence, correct, bins=15 if bins is None else bins)
    if correct is not None:
        raise ValueError("correct is known to the Bins; pass them alone")
    if by != confidence.by:
        raise ValueError(
            f"by is {by!r}, and these Bins were made by {confidence.by}: pass by={confidence.by!r}, or others"
        )
    made = len(confidence.count)
    if bins is not None and check_whole(bins, "bins", least=1) != made:
        raise ValueError(f"bins is {bins}, and these Bins are {made}: leave it out, or pass confidence and correct")
    return confidence


def _check(confidence: Column, correct: Column) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
    score = check_share(confidence)
    return score, check_mask(correct, rows=len(score), device=score.device)


def _bins(count: Tensor, confidence: Tensor, correct: Tensor, upper: Tensor, given: Column, by: str) -> Bins:
    return Bins(like(count, given), like(confidence, given), like(correct, given), like(upper, given), by)
