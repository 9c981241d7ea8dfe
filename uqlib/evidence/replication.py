"""What an interval says of a claim: how sure, of how many settings, what it could have seen, and how it sits with the paper's number.

An interval is read as that of a normal: its middle is the estimate, its half width so many standard errors as its level
says. So a whole interval on one side of a bound is p <= 0.025 there, whatever made the interval.
"""

import math
from collections.abc import Sequence
from statistics import NormalDist, fmean, stdev
from typing import NamedTuple

from uqlib.base.extras import named
from uqlib.base.options import check_fraction, check_number, check_whole

ALPHA = 0.025  # of one side, as of an interval of 95 %
POWER = 0.8
NORMAL = NormalDist()


class Estimate(NamedTuple):
    """An interval as middle and standard error; without an interval the error is nan."""

    value: float
    error: float


def read_interval(value: float, low: float | None, high: float | None, level: float | None) -> Estimate:
    """The middle of an interval, and its half width in standard errors; of a value alone the error is nan."""
    if low is None or high is None:
        return Estimate(value, math.nan)
    return Estimate((low + high) / 2, (high - low) / 2 / NORMAL.inv_cdf((1 + (level or 0.95)) / 2))


def above(found: Estimate, bound: float) -> float:
    """One-sided p of the null that the truth is at most the bound; nan where there is no interval."""
    if math.isnan(found.error):
        return math.nan
    gap = found.value - bound
    return float(gap <= 0) if found.error == 0 else NORMAL.cdf(-gap / found.error)


def partial_conjunction(ps: Sequence[float], needed: int) -> float:
    """p of the null that a claim holds in fewer than `needed` of the settings.

    The claim is that it holds in so many of them or more, no matter in which. The p is the needed-th smallest, times the number of
    settings that are left over, plus one (Bonferroni): with all of them needed it is the largest, with one needed the smallest
    times their number. The settings may depend on each other in any way. A nan counts as 1.

    Raises:
        ValueError: if needed is not between 1 and the number of settings.

    Source:
        Benjamini & Heller 2008, Biometrics 64, 1215-1222, equation 2.
    """
    needed = check_whole(needed, "needed", least=1, most=len(ps))
    ordered = sorted(1.0 if math.isnan(p) else p for p in ps)
    return min(1.0, (len(ps) - needed + 1) * ordered[needed - 1])


def holm(ps: Sequence[float]) -> list[float]:
    """Each p adjusted for all of them: those below alpha are false with a probability of alpha at most, taken together.

    Source:
        Holm 1979, Scandinavian Journal of Statistics 6, 65-70.
    """
    order = sorted(range(len(ps)), key=ps.__getitem__)
    adjusted, least = [0.0] * len(ps), 0.0
    for rank, k in enumerate(order):
        least = max(least, min(1.0, (len(ps) - rank) * ps[k]))
        adjusted[k] = least
    return adjusted


def detectable(error: float, *, alpha: float = ALPHA, power: float = POWER) -> float:
    """The distance from a bound at which an interval would clear it with this probability: 2.8 standard errors by default."""
    check_number(error, "error", least=0)
    return (NORMAL.inv_cdf(1 - alpha) + NORMAL.inv_cdf(check_fraction(power, "power", within="(0, 1)"))) * error


def chance(distance: float, error: float, *, alpha: float = ALPHA) -> float:
    """The probability that an interval clears a bound from which the truth is so far away, on the side of the claim."""
    if error == 0:
        return float(distance > 0)
    return NORMAL.cdf(distance / error - NORMAL.inv_cdf(1 - alpha))


def prediction_interval(
    found: Sequence[Estimate], *, error: float = math.nan, level: float = 0.95
) -> tuple[float, float]:
    """Where the result of one more experiment of this kind is expected.

    From three settings on they are taken as a sample of such experiments: mean ± t · s · sqrt(1 + 1 / k). With one or two,
    the other experiment is one with the same truth: mean ± z · sqrt(error² + theirs²), theirs being ours where it is not known.

    Args:
        found: what we found, an estimate a setting.
        error: standard error of the other experiment, where it is known.
        level: probability of the interval.

    Returns:
        Low, high; nan where one or two values without an interval are all there is.

    Source:
        Patil, Peng & Leek 2016, Perspectives on Psychological Science 11, 539-544; the first form is that of a normal sample.
    """
    level, middle = check_fraction(level, "level", within="(0, 1)"), fmean(each.value for each in found)
    if (k := len(found)) > 2:
        with named():
            from scipy import stats
        reach = float(stats.t.ppf((1 + level) / 2, k - 1)) * stdev(each.value for each in found) * math.sqrt(1 + 1 / k)
    else:
        # of settings on the same examples, whose mean is no surer
        own = math.sqrt(fmean(each.error**2 for each in found))
        reach = NORMAL.inv_cdf((1 + level) / 2) * math.hypot(own, own if math.isnan(error) else error)
    return middle - reach, middle + reach


def sceptical_p(original: Estimate, replication: Estimate) -> float:
    """How far a replication convinces somebody who doubts the original: small if both are sure, and of the same sign.

    The sceptic believes in an effect of 0 just so firmly that the original fails to convince; the p says how much the
    replication contradicts that belief. One-sided, with the sign of the original; never smaller than either of the two p.

    Args:
        original, replication: effects with standard errors above 0.

    Source:
        Held 2020, Journal of the Royal Statistical Society A 183, 431-448, equations 8 to 10.
    """
    for each in (original, replication):
        check_number(each.error, "a standard error", above=0)
    ours, theirs = (replication.value / replication.error) ** 2, (original.value / original.error) ** 2
    ratio = (original.error / replication.error) ** 2
    if not ours or not theirs:
        return 0.5
    mean, harmonic = (ours + theirs) / 2, 2 / (1 / ours + 1 / theirs)
    if math.isclose(ratio, 1):
        squared = harmonic / 2
    else:
        squared = (math.sqrt(mean * (mean + (ratio - 1) * harmonic)) - mean) / (ratio - 1)
    same = original.value * replication.value > 0
    return NORMAL.cdf(-math.sqrt(squared) if same else math.sqrt(squared))


def equivalence_p(one: Estimate, other: Estimate, margin: float) -> float:
    """p of the null that two effects differ by the margin or more: two one-sided tests.

    Source:
        Schuirmann 1987, Journal of Pharmacokinetics and Biopharmaceutics 15, 657-680.
    """
    apart = Estimate(one.value - other.value, math.hypot(one.error, other.error))
    check_number(margin, "margin", above=0)
    return max(above(apart, -margin), above(Estimate(-apart.value, apart.error), -margin))
