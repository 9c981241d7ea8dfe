"""Bands that hold a whole curve: the true curve lies inside everywhere at once in 95 of 100 studies, not point by point.

    band("risk_coverage", confidence, correct)

Which band it is depends on the curve. That of risk and coverage and that of ROC come from draws of the examples; how wide they
are is one number for all points, chosen so that so many drawn curves stay inside from end to end. That of reliability needs no
draws: it is made of exact limits for the accuracy of all ranges of confidence, and of nothing but that accuracy never falls
as the confidence rises. What they hold in simulations is in benchmarks/README.md.
"""

from collections.abc import Callable
from statistics import NormalDist
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from uqlib.base.arrays import Array, Column, as_tensor, like
from uqlib.base.checks import check_hits, check_share_and_hits
from uqlib.base.extras import named
from uqlib.base.options import check_choice, check_fraction, check_whole
from uqlib.metrics import calibration, detection, selective
from uqlib.metrics.curves.isotonic import curve_of, isotonic_curve
from uqlib.metrics.ranking import NAMES, Ranking, rank

CELLS = 512  # neighbouring scores that are drawn as one, at most
POINTS = 128  # of a band by draws
LEAST = 0.01  # the first coverage or false positive rate, at least; what lies below is noise
RANGES = 48  # cells of confidence, all of whose ranges bound the reliability curve


class Band(NamedTuple):
    """A curve, and limits that hold the true one everywhere from `first` to `last` at once; between points, straight lines."""

    x: Float[
        Array, " k"
    ]  # confidence, coverage or false positive rate; it never falls, and stands still where a limit jumps
    value: Float[Array, " k"]  # accuracy, risk or true positive rate of the sample
    low: Float[Array, " k"]
    high: Float[Array, " k"]
    level: float
    first: float  # the band says nothing of what is before it
    last: float
    curve: str  # "reliability", "risk_coverage" or "roc"


def band(
    curve: str | Callable[..., Any],
    confidence: Column,
    correct: Column,
    *,
    level: float = 0.95,
    draws: int = 2000,
    least: int = 10,
    generator: torch.Generator | None = None,
) -> Band:
    """A curve with a band that holds the whole true curve at once, for new examples like these and the same network.

    "reliability": accuracy against confidence, from the least confidence to the largest. Limits of Clopper and Pearson for up to 1176
    ranges of confidence, each at its share of the level: honest at any n, as long as accuracy never falls as the confidence rises, and
    therefore wide; it held the truth in all but a few of 1,000 simulations. Its value is isotonic_curve.

    "risk_coverage": risk against the share of all examples that is kept, and "roc": the share of the right that is found against that
    of the wrong that is let through. They begin where `least` examples are kept, or wrong ones let through, and at 1 % at the earliest;
    `first` and `last` of the result say where they hold. A draw gives each example a Poisson weight. Limits at a point are Jeffreys'
    (of a risk the lower is Clopper and Pearson's); one number widens them everywhere, such that they hold what draws bring at this level. Of a risk: for as many examples as would have
    the standard deviation of the draws, by the largest deviation of a draw. Of ROC: of both rates at every threshold, by the
    share of drawn curves that stay inside. In simulations they held the truth in 95 to 99 % of studies of 200
    examples, and that of risk in 92 to 98 % of studies of 100,000.
    Time O(n log n) for the sort, then it does not grow with n: beyond 512 cells of equal mass, scores of one cell act as a tie.

    Args:
        curve: "reliability", "risk_coverage" or "roc"; or reliability_curve, isotonic_curve, selective_risks or roc_curve itself.
        confidence: (n,) higher = more certain; for reliability in [0, 1].
        correct: (n,) whether each prediction equals its label; for "roc" the positives, whatever they are.
        level: share of the studies in which the band holds the truth, in (0, 1).
        draws: how many; a reliability curve needs none.
        least: where a band by draws begins, in examples; a reliability curve needs none.
        generator: source of the draws. Default: torch's global one.

    Raises:
        ValueError: if the curve is unknown, an option out of range, or there are not more than `least` examples, or positives or
            negatives.
        ModuleNotFoundError: if SciPy is not there, for the quantiles of a beta distribution.

    Source:
        Reliability: Dimitriadis, Dümbgen, Henzi, Puke & Ziegel 2023 (arXiv:2203.04065), with cells of scores for their grid.
        Studentised largest deviations: Montiel Olea & Plagborg-Møller 2019; effective numbers of examples: Korn & Graubard 1998. To
        combine them, and the band of ROC, is ours.

    Examples:
        >>> import numpy as np, torch
        >>> from uqlib.metrics import band
        >>> confidence = np.linspace(0.5, 1, 2000)
        >>> correct = np.arange(2000) * 37 % 100 < 100 * confidence
        >>> found = band("risk_coverage", confidence, correct, generator=torch.Generator().manual_seed(0))
        >>> found.first, found.last
        (0.01, 1.0)
        >>> [round(float(column[-1]), 2) for column in (found.low, found.value, found.high)]  # of all examples
        [0.21, 0.24, 0.28]
    """
    known = {calibration.reliability_curve: "reliability", isotonic_curve: "reliability"} | {
        selective.selective_risks: "risk_coverage", detection.roc_curve: "roc"
    }  # fmt: skip
    name = check_choice(
        known.get(curve, "") if callable(curve) else curve, ("reliability", "risk_coverage", "roc"), "curve"
    )
    level = check_fraction(level, "level", within="(0, 1)")
    draws, least = check_whole(draws, "draws", least=1), check_whole(least, "least", least=1)
    if not (generator is None or isinstance(generator, torch.Generator)):
        raise TypeError(f"generator must be torch's, such as torch.Generator().manual_seed(0); it is {generator!r}")
    if name == "reliability":
        ranking = rank(*check_share_and_hits(confidence, correct), names=NAMES)
        columns = _reliability(ranking, level)
    else:
        ranking = rank(*check_hits(confidence, correct), names=NAMES)
        columns = _by_draws(name, ranking, level, draws, least, generator)
    first, last = columns[0][0].item(), columns[0][-1].item()
    x, value, low, high = (like(column, confidence) for column in columns)
    return Band(x, value, low, high, level, first, last, name)


def _reliability(ranking: Ranking, level: float) -> tuple[Tensor, ...]:
    """Accuracy never falls, so the limit of a range holds from its end on (the lower), and up to its beginning (the upper)."""
    scores, count, right = (column.flip(0) for column in ranking)
    cell = _cells(count, RANGES)
    size, hits = _in_cells(cell, count, right)
    after = torch.searchsorted(cell, torch.arange(len(size), device=cell.device), right=True)
    ends = scores[torch.cat([after.new_zeros(1), after[:-1]])].double(), scores[after - 1].double()
    first, last = torch.triu_indices(len(size), len(size), device=cell.device)
    n, k = (torch.cat([part.new_zeros(1), part.cumsum(0)]) for part in (size, hits))
    n, k = n[last + 1] - n[first], k[last + 1] - k[first]
    tail = (1 - level) / 2 / len(n)
    low, high = _beta(tail, k, n - k + 1), _beta(1 - tail, k + 1, n - k)
    zeros = low.new_zeros(
        len(size) + 1
    )  # an end before the first cell has no lower limit, a beginning after the last no upper one
    from_end = zeros.scatter_reduce(0, last + 1, low, "amax").cummax(0).values
    to_start = (zeros + 1).scatter_reduce(0, first, high, "amin").flip(0).cummin(0).values.flip(0)
    # four points a cell: its first score, just behind it, just before its last score, that
    x = torch.stack([ends[0], ends[0], ends[1], ends[1]], 1).flatten()
    low = torch.stack([from_end[:-1]] * 3 + [from_end[1:]], 1).flatten()
    high = torch.stack([to_start[:-1]] + [to_start[1:]] * 3, 1).flatten()
    curve = curve_of(ranking)
    accuracy = as_tensor(curve.accuracy)[torch.searchsorted(as_tensor(curve.lower), x, right=True) - 1]
    return x, accuracy, torch.minimum(low, accuracy), torch.maximum(high, accuracy)


def _by_draws(
    name: str, ranking: Ranking, level: float, draws: int, least: int, generator: torch.Generator | None
) -> tuple[Tensor, ...]:
    """The curve at some points, on Poisson draws of them, and limits by these."""
    cell = _cells(ranking.count, CELLS)
    wrong, right = _in_cells(cell, ranking.count - ranking.positives, ranking.positives)
    among, of = (ranking.count.sum(), ranking.count.sum()) if name == "risk_coverage" else (wrong.sum(), right.sum())
    if min(among, of) <= least:
        what = "examples" if name == "risk_coverage" else "positives and negatives"
        raise ValueError(
            f"a band needs more than {least} {what}; there are {min(among, of)}. Pass a smaller least, or more examples"
        )
    first = max(least / int(among), LEAST)
    steps = torch.linspace(0, 1, POINTS, dtype=torch.float64, device=cell.device)
    x = first + (1 - first) * steps.square()  # denser where it is steep
    rates = torch.stack([wrong, right]).double().expand(draws, 2, -1)
    drawn = torch.poisson(rates.to(generator.device if generator else rates.device), generator).to(rates.device)
    (value,), found = (_curve(name, x, *each.unbind(1)) for each in (rates[:1], drawn))
    if name == "roc":
        low, high = _roc_limits(x, wrong, right, found, level)
    else:
        low, high = _risk_limits(int(among) * x, value, found, level)
    return x, value, torch.minimum(low, value), torch.maximum(high, value)


def _risk_limits(
    size: Float[Tensor, " p"], value: Float[Tensor, " p"], found: Float[Tensor, "d p"], level: float
) -> tuple[Tensor, Tensor]:
    """Clopper and Pearson's and Jeffreys' for so many examples as would have the deviation of draws, at the level of their largest."""
    smooth = (value * size + 0.5) / (size + 1)  # else there were no deviation where nothing is wrong
    plain = (smooth * (1 - smooth) / size).sqrt()
    ratio = (found.std(0) / plain).clamp(min=1)  # the threshold moves too
    largest = ((found - value).abs() / (ratio * plain)).amax(1).quantile(level).item()
    size = size / ratio.square()
    _, high = _jeffreys(value * size, size, largest)
    # the first error among many comes by chance: Jeffreys' lower limit forgets that too often
    return _beta(NormalDist().cdf(-largest), value * size, size - value * size + 1), high


def _roc_limits(
    x: Float[Tensor, " p"],
    wrong: Int64[Tensor, " m"],
    right: Int64[Tensor, " m"],
    found: Float[Tensor, "d p"],
    level: float,
) -> tuple[Tensor, Tensor]:
    """Jeffreys' limits of both rates at every threshold, at the least width for which so many drawn curves stay inside."""
    at = torch.linspace(0, len(wrong), 4 * POINTS + 1, dtype=torch.float64, device=x.device)
    along, up = (_straight(at, part) for part in (wrong, right))
    narrow, wide = 0.0, 8.0
    while wide - narrow > 0.01:
        middle = (narrow + wide) / 2
        low, high = _roc_band(x, along, up, middle)
        inside = ((found >= low) & (found <= high)).all(1).double().mean().item()
        narrow, wide = (middle, wide) if inside < level else (narrow, middle)
    return _roc_band(x, along, up, wide)


def _roc_band(x: Tensor, along: Tensor, up: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """A threshold whose false positives surely exceed x bounds the curve at x from above, one that surely has fewer from below."""
    (fewest, most), (low, high) = (_jeffreys(part, part[-1], width) for part in (along, up))
    above = torch.searchsorted(fewest, x).clamp(max=len(fewest) - 1)
    below = torch.searchsorted(most, x, right=True) - 1
    return torch.where(below < 0, 0, low[below.clamp(min=0)]), torch.where(fewest[above] < x, 1, high[above])


def _straight(at: Float[Tensor, " q"], cells: Int64[Tensor, " m"]) -> Float[Tensor, " q"]:
    """The sum of the cells up to each place, straight between their ends."""
    ends = torch.cat([cells.new_zeros(1), cells.cumsum(0)]).double()
    left = at.long().clamp(max=len(cells) - 1)
    return ends[left] + (at - left) * cells[left]


def _jeffreys(hits: Float[Tensor, " k"], size: Tensor, width: float) -> tuple[Tensor, Tensor]:
    """Limits of a share at so many normal standard deviations to either side; those of none and of all go to the end."""
    tail = NormalDist().cdf(-width)
    low, high = (_beta(each, hits + 0.5, size - hits + 0.5) for each in (tail, 1 - tail))
    return torch.where(hits > 0, low, 0), torch.where(hits < size, high, 1)


def _curve(
    name: str, x: Float[Tensor, " p"], wrong: Float[Tensor, "d m"], right: Float[Tensor, "d m"]
) -> Float[Tensor, "d p"]:
    """Risk at each coverage, or true at each false positive rate; straight inside a cell, as the mean over the orders of a tie is."""
    start = wrong.new_zeros(len(wrong), 1)
    along, up = (wrong + right, wrong) if name == "risk_coverage" else (wrong, right)
    along, up = (torch.cat([start, part.cumsum(1)], 1) for part in (along, up))
    at = x * along[:, -1:]
    after = torch.searchsorted(along, at, right=True).clamp(max=along.shape[1] - 1)
    (x0, x1), (y0, y1) = ((part.gather(1, after - 1), part.gather(1, after)) for part in (along, up))
    y = torch.where(at < x1, y0 + (y1 - y0) * ((at - x0) / (x1 - x0).clamp(min=1)), y1)
    return y / (at if name == "risk_coverage" else up[:, -1:])


def _cells(count: Int64[Tensor, " k"], most: int) -> Int64[Tensor, " k"]:
    """Numbers neighbouring scores of about equal mass as one, so many at most; no tie is cut."""
    place = (
        (count.cumsum(0) - 1) * most // count.sum()
        if len(count) > most
        else torch.arange(len(count), device=count.device)
    )
    number: Tensor = torch.unique_consecutive(place, return_inverse=True)[1]
    return number


def _in_cells(cell: Int64[Tensor, " k"], *columns: Int64[Tensor, " k"]) -> list[Int64[Tensor, " m"]]:
    """Sums over the scores of each cell."""
    return [part.new_zeros(int(cell[-1]) + 1).index_add_(0, cell, part) for part in columns]


def _beta(share: float, a: Tensor, b: Tensor) -> Float[Tensor, " k"]:
    """The quantile of a beta distribution: 0 where a is 0, and 1 where b is."""
    with named():
        from scipy.special import betaincinv
    found: Tensor = torch.from_numpy(betaincinv(a.double().cpu().numpy(), b.double().cpu().numpy(), share)).to(a.device)
    return found.masked_fill(b <= 0, 1).masked_fill(a <= 0, 0)
