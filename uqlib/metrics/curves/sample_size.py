"""How many test examples a difference of a given size needs, from a pilot.

The bootstrap of the pilot tells how far the statistic moves from sample to sample; that shrinks with the root of their size. So a
pilot of 500 examples says how many would do, or that what it has is enough.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import torch
from torch import Tensor

from uqlib.base.arrays import Column, as_tensor, like
from uqlib.base.options import check_fraction, check_number, check_whole
from uqlib.metrics.resampling.bootstrap import resample, resample_difference
from uqlib.metrics.resampling.draws import as_number

NORMAL = NormalDist()
PILOT = 30  # the least: of fewer examples a bootstrap says little
PARTS = 200  # that are left out in turn, to see how sure the standard deviation is


class SampleSize(NamedTuple):
    """How many examples are needed, with an interval: the pilot knows the standard deviation only so well."""

    n: int
    low: int
    high: int
    pilot_power: float  # how often a study as large as the pilot would tell the difference
    sd: float  # of the statistic, times the root of the number of examples
    difference: float
    level: float
    power: float


def how_many(
    statistic: Callable[..., Any],
    first: tuple[Column, ...],
    second: tuple[Column, ...] | None = None,
    *,
    difference: float,
    level: float = 0.95,
    power: float = 0.8,
    draws: int = 2000,
    generator: torch.Generator | None = None,
) -> SampleSize:
    """The number of examples from which on an interval would exclude 0, in a share `power` of studies, if the true difference is this.

        how_many(aurc, (confidence, correct), (other_confidence, other_correct), difference=0.005)

    n = ((z_level + z_power) sd / difference)², where sd / root(n) is the standard deviation of the statistic at n examples, from the
    bootstrap of the pilot. Name the difference that matters; that which the pilot found is inflated by having been looked at. The law
    of large samples is taken for granted: it fails for what hangs on few errors, such as the coverage at 99 % accuracy.

    Args:
        statistic: as in paired_difference; a metric of uqlib runs vectorised.
        first: the pilot's arrays of one method, for instance (confidence, correct).
        second: those of the other, row for row the same examples. Without it: to tell the statistic of one method from a fixed number.
        difference: to be told, in the units of the statistic; its sign does not matter.
        level: of the interval that is to exclude 0.
        power: how often it shall, in (1 - level, 1).
        draws, generator: as in interval.

    Returns:
        n with low and high, which hold the n of a boundless pilot in a share `level` of pilots: they come from leaving out 200 parts of the
        pilot in turn. pilot_power is the power at the pilot's own size.

    Raises:
        ValueError: if the difference is 0, level or power is out of range, the pilot has fewer than 30 examples, no draw moves the
            statistic, or as paired_difference.

    Source:
        Miller 2024 (arXiv:2411.00640), power analysis, for means; here of any statistic, by its bootstrap.

    Examples:
        >>> import numpy as np, torch
        >>> from uqlib.metrics import accuracy, how_many
        >>> labels = np.zeros(500, int)
        >>> large, small = (np.arange(500) * step % 100 < wrong for step, wrong in ((37, 10), (13, 14)))  # 10 and 14 % are wrong
        >>> pilots = (large.astype(int), labels), (small.astype(int), labels)
        >>> found = how_many(accuracy, *pilots, difference=0.04, generator=torch.Generator().manual_seed(0))
        >>> round(found.n, -2), round(found.pilot_power, 1)
        (1100, 0.5)
    """
    difference = abs(check_number(difference, "difference"))
    if difference == 0:
        raise ValueError("difference is 0, which no number of examples can tell; pass the least one that matters")
    level = check_fraction(level, "level", within="(0, 1)")
    power = check_fraction(power, "power", within="(0, 1)")
    if power <= 1 - level:
        raise ValueError(
            f"power must be above 1 - level, {1 - level:.3g}, which an interval has by chance; it is {power}"
        )
    draws = check_whole(draws, "draws", least=2)
    options: dict[str, Any] = {"draws": draws, "generator": generator}
    if second is None:
        moved = resample(statistic, *first, **options)
    else:
        moved = resample_difference(statistic, first, second, **options)
    n = len(as_tensor(first[0]))
    if n < PILOT:
        raise ValueError(f"first is a pilot of {n} examples, and {PILOT} are the least; measure some more first")
    deviation = moved.std().item()
    if deviation == 0:
        raise ValueError("the statistic is the same on every draw of the pilot, which says nothing of how far it moves")
    sd = deviation * math.sqrt(n)
    wanted = NORMAL.inv_cdf(1 - (1 - level) / 2)
    needed = ((wanted + NORMAL.inv_cdf(power)) * sd / difference) ** 2
    spread = math.exp(wanted * math.hypot(_error(statistic, first, second, n, generator), math.sqrt(2 / draws)))
    reached = sum(NORMAL.cdf(side * difference / deviation - wanted) for side in (1, -1))
    enough, low, high = (max(1, math.ceil(each)) for each in (needed, needed / spread, needed * spread))
    return SampleSize(enough, low, high, reached, sd, difference, level, power)


def _error(
    statistic: Callable[..., Any],
    first: Sequence[Column],
    second: Sequence[Column] | None,
    n: int,
    generator: torch.Generator | None,
) -> float:
    """Standard error of the logarithm of the variance: of m parts left out in turn, the root of (kurtosis - 1) / m."""
    device = generator.device if generator else "cpu"
    order = torch.randperm(n, generator=generator, device=device).cpu()
    part = torch.arange(n) * min(n, PARTS) // n
    values = []
    for k in range(int(part[-1]) + 1):
        kept = order[part != k].sort().values
        one, other = (
            0.0 if arrays is None else as_number(statistic(*_rows(arrays, kept))) for arrays in (first, second)
        )
        values.append(one - other)
    off = torch.tensor(values, dtype=torch.float64)
    off = (off - off.mean()).square()
    return (
        math.sqrt((off.square().mean() / off.mean().square() - 1).clamp(min=0).item() / len(off)) if off.any() else 0.0
    )


def _rows(arrays: Sequence[Column], kept: Tensor) -> list[Any]:
    tensors = [(as_tensor(array), array) for array in arrays]
    return [like(tensor[kept.to(tensor.device)], given) for tensor, given in tensors]
