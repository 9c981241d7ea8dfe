"""Does a confidence of 80 % mean that 80 % are right: calibration errors, all lower is better but the signed one, nearer to zero.

Which bins, and what lies on an edge, is in `uqlib.metrics.bins`. A weight counts as that many equal examples; weights that are
not whole numbers are brought to a mean of one, so their scale says nothing.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from uqlib.base.arrays import Array, Column, Table, as_tensor, by_rows, like
from uqlib.base.checks import check_labels, check_probs, check_share_and_hits, check_weights
from uqlib.base.options import check_choice
from uqlib.metrics.bins import Bins, as_bins, chunk_of, gaps_from_counts
from uqlib.metrics.rows import rows_that_count

MESH = 2**15  # points of the grid on which the smooth error is evaluated


class ReliabilityCurve(NamedTuple):
    """What a reliability diagram draws. A bin without examples has NaN means."""

    confidence: Float[Array, " b"]  # mean confidence
    accuracy: Float[Array, " b"]
    count: Shaped[Array, " b"]  # type: ignore[assignment]  # hides tuple.count, which nobody needs
    upper: Float[Array, " b"]  # last confidence that belongs to the bin


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
    weights: Column | None = None,
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
        weights: (n,) how much each example counts, 0 or larger; None counts each once. Of Bins they are in them.

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
    return measure(*_gaps(as_bins(confidence, correct, bins, by, weights))).item()


def signed_ece(
    confidence: Column | Bins,
    correct: Column | None = None,
    *,
    bins: int | None = None,
    by: str = "width",
    weights: Column | None = None,
) -> float:
    """How much more is claimed than is right: mean confidence - accuracy; above zero overconfident, below underconfident.

    The gaps of the bins with their signs, weighted by the examples, which add up to the gap of all examples: the bins
    cancel. Arguments and errors are those of ece.

    Examples:
        >>> from uqlib.metrics import signed_ece
        >>> round(signed_ece([0.9, 0.9, 0.6, 0.6], [True, True, True, False]), 3)  # claims 0.75, is right in 0.75
        0.0
    """
    return signed_from_counts(*_totals(as_bins(confidence, correct, bins, by, weights))).item()


def rms_calibration_error(
    confidence: Column | Bins,
    correct: Column | None = None,
    *,
    bins: int | None = None,
    by: str = "mass",
    weights: Column | None = None,
) -> float:
    """Root of the mean squared gap between confidence and accuracy, lower is better: ece(norm="l2").

    Equal mass by default (pass by="width" beside Bins of equal width), as in Hendrycks et al. 2019 (arXiv:1901.09960). Their own number, in which the most
    confident bin is missing, is rms_calibration_error_hendrycks2019.
    """
    return ece(confidence, correct, bins=bins, by=by, norm="l2", weights=weights)


def debiased_ece(
    confidence: Column | Bins,
    correct: Column | None = None,
    *,
    bins: int | None = None,
    by: str = "mass",
    weights: Column | None = None,
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
        weights: (n,) how much each example counts; None counts each once. Whole numbers alone: of others the variance is unknown.

    Raises:
        ValueError: if a confidence is outside [0, 1] or NaN, an option is unknown, or Bins were made otherwise.

    Source:
        Kumar, Liang & Ma 2019, Verified Uncertainty Calibration (arXiv:1909.10155), debiased estimator.

    Examples:
        >>> from uqlib.metrics import debiased_ece
        >>> round(debiased_ece([0.75] * 4, [True, True, True, False], bins=1), 3)  # no gap, less what chance gives
        -0.062
    """
    totals = as_bins(confidence, correct, bins, by, weights)
    count, right, summed = (as_tensor(x).double() for x in (totals.count, totals.correct, totals.confidence))
    if not (count == count.round()).all():
        raise ValueError("debiased_ece takes weights that are whole numbers, counts of equal examples; these are not")
    held = count >= 2
    m, accuracy, mean = count[held], right[held] / count[held], summed[held] / count[held]
    return (m / count.sum() * ((mean - accuracy).square() - accuracy * (1 - accuracy) / (m - 1))).sum().item()


def classwise_ece(
    probs: Table,
    labels: Column,
    *,
    bins: int = 15,
    by: str = "width",
    norm: str = "l1",
    weights: Column | None = None,
    ignore: int | None = None,
) -> float:
    """Mean over classes of the calibration error of that class's probability, lower is better.

    For class j the confidence is p_j and "correct" is whether the label is j; every row counts in every class.
    By width this is both classwise-ECE (Kull et al.) and the static calibration error (Nixon et al.); by mass,
    Nixon's adaptive calibration error. With many classes most rows lie in the first bin: it is close to zero for
    any network, and comparable only between networks with the same classes.

    Args:
        probs: (n, c), rows that sum to 1.
        labels: classes in [0, c), (n,).
        bins, by, norm, weights: as in ece.
        ignore: the label of rows to leave out.

    Raises:
        ValueError: if the rows are not probabilities, a label is outside [0, c), or an option is unknown.

    Source:
        Kull et al. 2019 (arXiv:1910.12656); Nixon et al. 2019 (arXiv:1904.01685).

    Examples:
        >>> from uqlib.metrics import classwise_ece
        >>> round(classwise_ece([[0.8, 0.2], [0.8, 0.2], [0.2, 0.8], [0.2, 0.8]], [0, 0, 1, 0]), 3)
        0.25
    """
    (probs, labels), weights = rows_that_count((probs, labels), weights, ignore)
    probs = check_probs(probs)
    labels = check_labels(labels, probs.shape[1], rows=len(probs), device=probs.device)
    columns = probs.clamp(max=1).T.contiguous()  # rounding may leave a probability just above 1
    errors = [
        ece(column, labels == j, bins=bins, by=by, norm=norm, weights=weights) for j, column in enumerate(columns)
    ]
    return sum(errors) / len(errors)


def smooth_ece(confidence: Column, correct: Column, *, weights: Column | None = None) -> float:
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
        weights: (n,) how much each example counts, 0 or larger; None counts each once.

    Raises:
        ValueError: if a confidence is outside [0, 1] or NaN, or a weight is negative or all are 0.

    Source:
        Blasiok & Nakkiran 2023, Smooth ECE (arXiv:2309.12236), with the reflected Gaussian kernel.

    Examples:
        >>> from uqlib.metrics import smooth_ece
        >>> round(smooth_ece([0.9, 0.9, 0.6, 0.6], [True, True, True, False]), 3)
        0.09
    """
    score, hit = check_share_and_hits(confidence, correct)
    spectrum = _cosine_series(score, hit, None if weights is None else check_weights(weights, len(score), score.device))
    frequency = torch.pi * torch.arange(MESH + 1, dtype=torch.float64, device=spectrum.device)
    low, high = 0.0, 1.0
    while high - low > 1e-8:
        width = (low + high) / 2
        error = torch.fft.irfft(spectrum * torch.exp(-((frequency * width) ** 2) / 2)).abs().sum().item()
        low, high = (width, high) if error > width else (low, width)
    return (low + high) / 2


def reliability_curve(
    confidence: Column | Bins,
    correct: Column | None = None,
    *,
    bins: int | None = None,
    by: str = "width",
    weights: Column | None = None,
) -> ReliabilityCurve:
    """Mean confidence, accuracy and count in each bin: what a reliability diagram draws.

    Args:
        confidence: in [0, 1], (n,); or the Bins, then alone.
        correct: whether each prediction equals its label, (n,).
        bins: how many, by default 15; beside Bins the number that they have.
        by: "width" or "mass". It must say how Bins were made.
        weights: (n,) how much each example counts, 0 or larger; None counts each once. Of Bins they are in them.

    Raises:
        ValueError: if a confidence is outside [0, 1] or NaN, an option is unknown, or Bins were made otherwise.

    Examples:
        >>> from uqlib.metrics import reliability_curve
        >>> curve = reliability_curve([0.9, 0.9, 0.6, 0.6], [True, True, True, False], bins=2)
        >>> curve.accuracy[1], curve.count  # nothing lies in the lower half
        (np.float64(0.75), array([0, 4]))
    """
    totals = as_bins(confidence, correct, bins, by, weights)
    count = as_tensor(totals.count)
    mean, accuracy = as_tensor(totals.confidence) / count, as_tensor(totals.correct).double() / count
    return ReliabilityCurve(like(mean, totals.count), like(accuracy, totals.count), totals.count, totals.upper)


def _cosine_series(
    confidence: Float[Tensor, " n"], correct: Bool[Tensor, " n"], weights: Float[Tensor, " n"] | None
) -> Tensor:
    """Fourier transform of the mean residual on the grid 0, h, ..., 1, mirrored to a period of 2.

    A residual is shared between the two points around it in proportion to nearness, which moves no mass.
    """
    grid = torch.zeros(MESH + 1, dtype=torch.float64, device=confidence.device)
    columns = [confidence, correct] if weights is None else [confidence, correct, weights]
    for score, hit, *weight in by_rows(chunk_of(confidence), *columns):
        place = score.double() * MESH
        left = place.floor().clamp_(max=MESH - 1)
        residual = hit.double() - score
        residual = weight[0] * residual if weight else residual
        share = residual * (place - left)
        left = left.long()
        grid.index_add_(0, left, residual - share).index_add_(0, left + 1, share)
    grid /= len(confidence) if weights is None else weights.sum()
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


def _totals(bins: Bins) -> tuple[Tensor, Tensor, Tensor]:
    if not as_tensor(bins.count).any():
        raise ValueError("the bins hold no examples; at least one is needed")
    return as_tensor(bins.count), as_tensor(bins.confidence), as_tensor(bins.correct)


def signed_from_counts(count: Tensor, summed: Tensor, right: Tensor) -> Tensor:
    """Along the last axis; the sum over the bins is that over the examples."""
    return (summed - right).sum(-1) / count.sum(-1)
