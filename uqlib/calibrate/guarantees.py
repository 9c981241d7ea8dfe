"""A coverage with a guaranteed risk: predict above a threshold of the confidence, and be wrong there seldom enough.

The thresholds tested are the confidences at ranks fixed before the data are seen, so that the errors above each of them are
binomial whatever the confidence is, and each test gets an equal part of the probability of failing. A test of thresholds
in turn, from the strictest, would begin where too few examples lie to show anything, and a search whose next threshold
depends on the last result (Geifman & El-Yaniv 2017) tests more thresholds than it counts.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from uqlib.base.arrays import Column
from uqlib.base.checks import check_hits
from uqlib.base.options import check_fraction, check_whole


class Guarantee(NamedTuple):
    """A threshold, what it keeps here, and what is known of examples to come."""

    threshold: float  # predict where the confidence is above it; -inf: always, inf: never
    coverage: float  # share of these examples above it
    risk: float  # share of errors among them; NaN where there are none
    risk_bound: float  # upper bound of the risk of examples to come; NaN where nothing is predicted
    coverage_bound: float  # lower bound of their coverage


def guaranteed_coverage(
    confidence: Column, correct: Column, *, risk: float, level: float = 0.95, steps: int = 50
) -> Guarantee:
    """The largest coverage at which the risk of examples to come is shown to be no larger than `risk`.

    With probability `level` over these examples, drawn as the ones to come, the error rate of all examples above the
    threshold is at most risk_bound, which is at most `risk`. With the same probability coverage_bound holds; both together
    fail with at most twice 1 - level. No confidence is split: what is equal to the threshold lies below it.

    Where nothing can be shown, the threshold is infinite and the coverage 0: even without an error it takes about
    ln(steps / (1 - level)) / risk examples above a threshold.

    Args:
        confidence: (n,), any score, higher = more certain, of examples on which nothing was fitted.
        correct: (n,), whether each prediction is right.
        risk: the error rate allowed, in (0, 1).
        level: probability, in (0, 1).
        steps: coverages tested, i / steps for i = 1, ..., steps; more of them are finer, and each is tested more strictly.

    Raises:
        ValueError: if a confidence is not finite, or an option is outside its range.

    Source:
        Clopper & Pearson 1934 for the bounds; Geifman & El-Yaniv 2017 (arXiv:1705.08500), section 3, for the aim; Angelopoulos
        et al. 2021, Learn then test (arXiv:2110.01052), for tests of several thresholds.

    Examples:
        >>> import numpy as np
        >>> from uqlib.calibrate import guaranteed_coverage
        >>> confidence = np.arange(1000) / 1000
        >>> found = guaranteed_coverage(confidence, confidence >= 0.3, risk=0.05)  # wrong below 0.3
        >>> found.coverage, round(found.risk, 3), round(found.risk_bound, 3)
        (0.7, 0.0, 0.01)
    """
    score, hit = check_hits(confidence, correct)
    risk, level = check_fraction(risk, "risk", within="(0, 1)"), check_fraction(level, "level", within="(0, 1)")
    steps = check_whole(steps, "steps", least=1)
    miss, count = (1 - level) / steps, len(score)
    values, order = score.double().sort(descending=True)
    wrong = torch.nn.functional.pad((~hit[order]).cumsum(0), (1, 0)).tolist()
    ascending = -values
    for step in range(steps, 0, -1):
        threshold = -math.inf if step == steps else values[step * count // steps].item()
        kept = int(torch.searchsorted(ascending, -threshold)) if step < steps else count
        errors = wrong[kept]
        if kept and errors < risk * kept and _tail(_ways(errors, kept), kept, risk) <= miss:
            return Guarantee(
                threshold,
                kept / count,
                errors / kept,
                _upper_share(errors, kept, miss),
                1 - _upper_share(count - kept, count, miss),
            )
    return Guarantee(math.inf, 0.0, math.nan, math.nan, 0.0)


def _ways(most: int, count: int) -> Float[Tensor, " k"]:
    """Logarithms of the ways to choose 0, ..., most of the count."""
    k = torch.arange(most + 1, dtype=torch.float64)
    return math.lgamma(count + 1) - torch.lgamma(k + 1) - torch.lgamma(count - k + 1)


def _tail(ways: Tensor, count: int, share: float) -> float:
    """The probability of at most so many of the count, each with this share: the sum of its binomial terms."""
    k = torch.arange(len(ways), dtype=torch.float64)
    return (ways + k * math.log(share) + (count - k) * math.log1p(-share)).logsumexp(0).exp().item()


def _upper_share(seen: int, count: int, miss: float) -> float:
    """The share with which so few are seen with probability `miss`, to rounding: Clopper and Pearson's bound."""
    if seen == count:
        return 1.0
    ways, low, high = _ways(seen, count), 0.0, 1.0
    while high - low > 1e-13 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if _tail(ways, count, middle) > miss else (low, middle)
    return high
