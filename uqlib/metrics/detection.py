"""Telling two groups apart by one score: AUROC, AUPR, R-precision, and the false positive rate at a recall.

Every function takes `score` (higher = more likely positive) and `positive`, or one Ranking of them. Which group is
positive is what the argument says and nothing else: for out-of-distribution detection pass an uncertainty and the mask
of the out-of-distribution rows, or a confidence and the mask of the others, and say which. AUROC is the same either
way; AUPR and FPR at 95 % recall are not.

Tied scores stay together: no threshold cuts through them, and in AUROC each tied pair counts half.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from uqlib.base.arrays import Array, Column, like
from uqlib.base.options import check_choice, check_fraction
from uqlib.metrics.ranking import NAMES, Counts, RankedLosses, Ranking, Values, kind_of, least, ranked, slack

SIDES = ("correct", "wrong")


class RocCurve(NamedTuple):
    """One point a distinct score, from the strictest threshold to the loosest, after the origin."""

    fpr: Float[Array, " k"]  # false positive rate: fraction of the negatives with score >= threshold
    tpr: Float[Array, " k"]  # recall: fraction of the positives with score >= threshold
    thresholds: Float[Array, " k"]  # the first is infinite: nothing is called positive


class OperatingPoint(NamedTuple):
    """What one threshold does; an example is called positive if its score >= threshold."""

    fpr: float
    tpr: float
    threshold: float


def auroc(score: Column | Ranking, positive: Column | None = None, *, weights: Column | None = None) -> float:
    """Probability that a positive outscores a negative, higher is better; a tie counts half.

    Pairs are counted in integers, so the result is exact up to one rounding, for n below 4e9. Beside the sort: time
    and memory O(distinct scores), about 32 bytes each.

    Args:
        score: (n,) any real score, higher = more likely positive; or a Ranking of score by positive.
        positive: (n,) true or false; left out beside a Ranking.
        weights: (n,) how much each example counts, 0 or larger; None counts each once. Of a Ranking they are in it.

    Raises:
        ValueError: if a score is not finite, the lengths differ, or one class is missing.

    Source:
        Hanley & McNeil 1982, Radiology 143(1), 29-36: the Mann-Whitney statistic.

    Examples:
        >>> from uqlib.metrics import auroc
        >>> auroc([3, 2, 2, 1], [True, True, False, False])  # of the four pairs three are in order, and one is a tie
        0.875
    """
    ranking = _both(ranked(score, positive, weights), "auroc")
    return auroc_from_counts(ranking.count, ranking.positives).item()


def aupr(score: Column | Ranking, positive: Column | None = None, *, weights: Column | None = None) -> float:
    """Average precision of finding the positives, higher is better; by chance it is their share.

    The sum over thresholds of precision times the step in recall, without interpolation: scikit-learn's
    average_precision_score. The trapezoid below the precision-recall curve is another, more optimistic number.

    Args:
        score: (n,) any real score, higher = more likely positive; or a Ranking of score by positive.
        positive: (n,) true or false, true for the class whose precision and recall are meant.
        weights: (n,) how much each example counts, 0 or larger; None counts each once. Of a Ranking they are in it.

    Raises:
        ValueError: if a score is not finite, the lengths differ, or one class is missing.

    Source:
        Davis & Goadrich 2006 (ICML), section 4, on why not to interpolate.

    Examples:
        >>> from uqlib.metrics import aupr
        >>> round(aupr([3, 2, 1], [True, False, True]), 3)  # the mean of the precisions 1 and 2/3
        0.833
    """
    ranking = _both(ranked(score, positive, weights), "aupr")
    return aupr_from_counts(ranking.count, ranking.positives).item()


def correctness_auroc(
    confidence: Column | Ranking, correct: Column | None = None, *, weights: Column | None = None
) -> float:
    """Probability that a correct prediction is more confident than a wrong one, higher is better; a tie counts half.

    The same number as telling the wrong ones by an uncertainty that falls with the confidence. It compares inside one
    model: a model that repairs its easy errors can lose AUROC and still be better, so show aurc or augrc beside it.

    Args:
        confidence: (n,) any real score, higher = more certain; or a Ranking of confidence by correct.
        correct: (n,) whether each prediction equals its label; left out beside a Ranking.
        weights: (n,) how much each example counts, 0 or larger; None counts each once. Of a Ranking they are in it.

    Raises:
        ValueError: if a confidence is not finite, the lengths differ, or the predictions are all correct or all wrong.

    Source:
        Hendrycks & Gimpel 2017 (arXiv:1610.02136), section 2.

    Examples:
        >>> from uqlib.metrics import correctness_auroc
        >>> round(correctness_auroc([0.9, 0.8, 0.7, 0.6], [True, True, False, True]), 3)  # two of three are surer than the error
        0.667
    """
    ranking = _both(ranked(confidence, correct, weights, names=NAMES), "correctness_auroc", SIDES)
    return auroc_from_counts(ranking.count, ranking.positives).item()


def correctness_aupr(
    confidence: Column | Ranking,
    correct: Column | None = None,
    *,
    positive: str = "correct",
    weights: Column | None = None,
) -> float:
    """Average precision of finding the correct predictions, or the wrong ones, by the confidence; higher is better.

    Args:
        confidence: (n,) any real score, higher = more certain; or a Ranking of confidence by correct.
        correct: (n,) whether each prediction equals its label; left out beside a Ranking.
        positive: "correct" finds the correct ones by high confidence (AUPR-success), "wrong" the wrong ones by low
            confidence (AUPR-error, the harder of the two where errors are rare).

    Raises:
        ValueError: as correctness_auroc, and for another `positive`.

    Source:
        Hendrycks & Gimpel 2017 (arXiv:1610.02136), section 2, "AUPR Succ" and "AUPR Err".
    """
    ranking = _both(ranked(confidence, correct, weights, names=NAMES), "correctness_aupr", SIDES)
    return correctness_aupr_from_counts(ranking.count, ranking.positives, positive=positive).item()


def r_precision(score: Column | Ranking, positive: Column | None = None, *, weights: Column | None = None) -> float:
    """Share of positives among the r highest scores, where r is how many there are; higher is better, 1 is perfect.

    By chance it is the share of the positives among all. It is the recall at r as well. A tie across the cut counts by
    its own share of positives, the expectation over a random order of the tie.

    Args:
        score: (n,) any real score, higher = more likely positive; or a Ranking of score by positive.
        positive: (n,) true or false; left out beside a Ranking.
        weights: (n,) how much each example counts, 0 or larger; None counts each once. Of a Ranking they are in it.

    Raises:
        ValueError: if a score is not finite, the lengths differ, or one class is missing.

    Source:
        Manning, Raghavan & Schütze 2008, Introduction to Information Retrieval, section 8.4.

    Examples:
        >>> from uqlib.metrics import r_precision
        >>> r_precision([4, 3, 2, 1], [True, False, True, False])
        0.5
    """
    ranking = _both(ranked(score, positive, weights), "r_precision")
    return r_precision_from_counts(ranking.count, ranking.positives).item()


def fpr_at_tpr(
    score: Column | Ranking, positive: Column | None = None, *, tpr: float = 0.95, weights: Column | None = None
) -> float:
    """The smallest false positive rate of a threshold that finds at least `tpr` of the positives, lower is better.

    At least, not nearest: a threshold with a recall below `tpr` never counts. operating_point tells the recall that
    was reached, and at which threshold. Arguments and errors are those of auroc.

    Args:
        tpr: the recall wanted, in (0, 1].

    Source:
        Liang, Li & Srikant 2018 (arXiv:1706.02690), section 4, FPR at 95 % TPR. There the in-distribution is positive.

    Examples:
        >>> from uqlib.metrics import fpr_at_tpr
        >>> fpr_at_tpr([4, 3, 2, 1], [True, False, True, False], tpr=1)  # with both positives comes one of two negatives
        0.5
    """
    ranking = _both(ranked(score, positive, weights), "fpr_at_tpr")
    return fpr_at_tpr_from_counts(ranking.count, ranking.positives, tpr=tpr).item()


def operating_point(
    score: Column | Ranking, positive: Column | None = None, *, tpr: float = 0.95, weights: Column | None = None
) -> OperatingPoint:
    """The strictest threshold that finds at least `tpr` of the positives, and the rates it reaches.

    Arguments and errors are those of fpr_at_tpr.
    """
    ranking = _both(ranked(score, positive, weights), "operating_point")
    found, alarms = _rates(ranking.count, ranking.positives)
    cut = int((found < check_fraction(tpr, "tpr", within="(0, 1]") - slack(ranking.count)).sum())
    return OperatingPoint(alarms[cut].item(), found[cut].item(), ranking.scores[cut].item())


def roc_curve(score: Column | Ranking, positive: Column | None = None, *, weights: Column | None = None) -> RocCurve:
    """False positive rate and recall at every threshold, from (0, 0) to (1, 1).

    Every distinct score is kept, those on a straight line too. Arguments and errors are those of auroc.
    """
    ranking = _both(ranked(score, positive, weights), "roc_curve")
    found, alarms = _rates(ranking.count, ranking.positives)
    points = (alarms, 0.0), (found, 0.0), (ranking.scores, torch.inf)
    return RocCurve(*(like(torch.cat([rest.new_tensor([first]), rest]), kind_of(score)) for rest, first in points))


# The formulas themselves, along the last axis of the counts of a Ranking; one missing class makes them NaN.


def auroc_from_counts(count: Counts, positives: Counts) -> Values:
    """Pairs won, doubled so that the half of a tie is an integer."""
    negatives = count - positives
    below = negatives.sum(-1, keepdim=True) - negatives.cumsum(-1)
    twice = (positives * (2 * below + negatives)).sum(-1)
    return twice / (2 * positives.sum(-1) * negatives.sum(-1)).double()


def aupr_from_counts(count: Counts, positives: Counts) -> Values:
    """Precision at each score, weighted by the share of the positives that lie there."""
    precision = positives.cumsum(-1) / count.cumsum(-1).clamp(min=least(count)).double()
    total = positives.sum(-1)
    return torch.where(total < count.sum(-1), (positives * precision).sum(-1) / total, torch.nan)


def correctness_aupr_from_counts(count: Counts, positives: Counts, *, positive: str = "correct") -> Values:
    """As aupr_from_counts; the wrong ones are found from the other end."""
    if check_choice(positive, SIDES, "positive") == "correct":
        return aupr_from_counts(count, positives)
    return aupr_from_counts(count.flip(-1), (count - positives).flip(-1))


def r_precision_from_counts(count: Counts, positives: Counts) -> Values:
    """Whole ties above the cut, and of the one across it the share that fits; every term but that one is an integer."""
    total = positives.sum(-1, keepdim=True)
    taken = (total - (count.cumsum(-1) - count)).clamp(min=0).minimum(count)
    found = (positives * taken / count.clamp(min=least(count)).double()).sum(-1)
    return torch.where(total[..., 0] < count.sum(-1), found / total[..., 0], torch.nan)


def fpr_at_tpr_from_counts(count: Counts, positives: Counts, *, tpr: float = 0.95) -> Values:
    """The least false positive rate among the cuts that find enough."""
    found, alarms = _rates(count, positives)
    missed = found < check_fraction(tpr, "tpr", within="(0, 1]") - slack(count)
    return torch.where(found[..., -1].isnan(), torch.nan, torch.where(missed, torch.inf, alarms).amin(-1))


def _rates(count: Counts, positives: Counts) -> tuple[Float[Tensor, "*draws k"], Float[Tensor, "*draws k"]]:
    """Recall and false positive rate with the threshold at each score."""
    negatives = count - positives
    sums = positives.cumsum(-1), negatives.cumsum(-1)
    found, alarms = (part / part[..., -1:].double() for part in sums)
    return found, alarms


def _both(ranking: Ranking, metric: str, sides: tuple[str, str] = ("positive", "negative")) -> Ranking:
    if isinstance(ranking, RankedLosses):
        raise TypeError(f"{metric} is about {' and '.join(sides)} examples, and this Ranking has losses of any size")
    total, positives = ranking.count.sum().item(), ranking.positives.sum().item()
    if positives in (0, total):
        raise ValueError(
            f"{metric} needs both classes; all {total:g} examples are {sides[0] if positives else sides[1]}"
        )
    return ranking
