"""Selective prediction: the error that remains when only the most confident predictions are kept.

Every function takes `confidence` (higher = more certain) and `correct`, or one Ranking of them:
`aurc(confidence, correct)` and `aurc(rank(confidence, correct))` are the same number, and the second shares its
sort with other metrics.

Ties. A curve over k = 1, ..., n cuts through tied confidences, so it shows the expectation over a random order of
each tie. A threshold cannot cut through a tie, so what is asked at a threshold (coverage_at_risk and its siblings)
counts the achievable coverages alone: those that keep a tie whole or drop it whole.

Losses of any size: the risk of `rank_losses(confidence, losses)` is the mean loss of the kept, in place of an error rate.
Weights: a weight counts as that many equal examples, which are a tie; weights that are not whole numbers are brought to a
mean of one, so their scale says nothing.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from uqlib.base.arrays import Array, Column, like
from uqlib.base.checks import check_confidence, check_hits
from uqlib.base.options import check_fraction
from uqlib.metrics.ranking import NAMES, Counts, RankedLosses, Ranking, Values, kind_of, ranked, slack


class RiskCoverage(NamedTuple):
    """One point a distinct confidence, from the strictest threshold to the loosest; an example is kept if its confidence >= threshold."""

    coverage: Float[Array, " k"]  # share that is kept, by weight
    risk: Float[Array, " k"]  # error rate, or mean loss, of the kept
    thresholds: Float[Array, " k"]


def aurc_trapezoid(confidence: Column, correct: Column) -> float:
    """Area under the risk-coverage curve by trapezoids from coverage 1/n to 1, divided by 1 - 1/n, lower is better.

    Differs from aurc, the mean of the n risks r, by the end points: (sum r - (r_1 + r_n) / 2) / (n - 1). Ties stay in
    the order of the rows.

    Source:
        torch-uncertainty, `AURC` (version 0.11 to 0.13).
    """
    risks = risks_in_row_order(*check_hits(confidence, correct))
    if len(risks) < 2:
        raise ValueError("aurc_trapezoid needs at least two rows; there is no area under one point")
    return (torch.trapezoid(risks) / (len(risks) - 1)).item()


def aurc_fd_shifts(confidence: Column, correct: Column) -> float:
    """1000 times the area under the risk-coverage curve by trapezoids from coverage 0, lower is better.

    Differs from aurc in its points: one for each distinct confidence, the straight line between them, and a point at
    coverage 0 with the risk of the first. Without ties it is 1000 (aurc + (r_1 - r_n) / 2n).

    Source:
        Traub et al. 2024 (arXiv:2407.01032); code github.com/IML-DKFZ/fd-shifts, `RiskCoverageStats.aurc`.
    """
    score, hit = check_hits(confidence, correct)
    order = score.argsort(descending=True)
    ends = last_of_ties(score[order])
    coverage = (ends + 1).double() / len(score)
    risks = (~hit[order]).cumsum(0)[ends] / (ends + 1).double()
    coverage, risks = torch.cat([coverage.new_zeros(1), coverage]), torch.cat([risks[:1], risks])
    return 1000 * torch.trapezoid(risks, coverage).item()


def risks_in_row_order(confidence: Float[Tensor, " n"], correct: Bool[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Error rate among the k most confident, k = 1, ..., n; ties in the order of the rows."""
    wrong = (~correct[confidence.argsort(descending=True, stable=True)]).cumsum(0)
    return wrong.double() / torch.arange(1, len(wrong) + 1, device=wrong.device)


def last_of_ties(values: Float[Tensor, " n"]) -> Int64[Tensor, " k"]:
    """The last row of each run of equal values."""
    return torch.cat([values.diff() != 0, values.new_ones(1, dtype=torch.bool)]).nonzero()[:, 0]


def coverages(confidence: Column | Ranking) -> Float[Array, " n"]:
    """The fractions kept, 1/n, 2/n, ..., 1: the horizontal axis of selective_risks, in float64.

    Examples:
        >>> from uqlib.metrics import coverages
        >>> coverages([0.9, 0.8, 0.7, 0.6])
        array([0.25, 0.5 , 0.75, 1.  ])
    """
    if isinstance(confidence, Ranking):
        n, device = int(_whole(confidence).sum()), confidence.count.device
    else:
        score = check_confidence(confidence)
        n, device = len(score), score.device
    return like(torch.arange(1, n + 1, dtype=torch.float64, device=device) / n, kind_of(confidence))


def selective_risks(confidence: Column | Ranking, correct: Column | None = None) -> Float[Array, " n"]:
    """Error rate among the k most confident examples for k = 1, ..., n, lower is better.

    Entry k-1 is the risk at coverage k/n. Inside a tie it is the expectation over a random order of the tie, so
    the order of the rows never matters. Time O(n log n), memory about 130 bytes an example.

    Args:
        confidence: (n,) any real score, higher = more certain; or a Ranking of confidence by correct.
        correct: (n,) whether each prediction equals its label; left out beside a Ranking.

    Returns:
        (n,) fractions in [0, 1], float64.

    Raises:
        ValueError: if a confidence is not finite, the lengths differ, or there is no example.

    Source:
        Geifman & El-Yaniv 2017 (arXiv:1705.08500), section 2, selective risk.

    Examples:
        >>> from uqlib.metrics import selective_risks
        >>> selective_risks([0.9, 0.8, 0.7, 0.6], [True, True, False, True]).round(3)
        array([0.   , 0.   , 0.333, 0.25 ])
    """
    ranking = ranked(confidence, correct, names=NAMES)
    count, wrong = _whole(ranking), ranking.count - ranking.positives
    kept = torch.arange(1, int(count.sum()) + 1, device=count.device)
    if len(kept) == len(count):  # no ties
        return like(wrong.cumsum(0) / kept.double(), kind_of(confidence))
    before, errors_before, size, errors = (
        column.repeat_interleave(count) for column in (count.cumsum(0) - count, wrong.cumsum(0) - wrong, count, wrong)
    )
    risks = (errors_before + errors * (kept - before) / size.double()) / kept
    return like(risks, kind_of(confidence))


def risk_coverage_curve(
    confidence: Column | Ranking, correct: Column | None = None, *, weights: Column | None = None
) -> RiskCoverage:
    """Coverage and risk at every threshold: the achievable points of the curve, which keep a tie whole or drop it whole.

    Arguments and errors are those of aurc; unlike selective_risks it takes weights.

    Examples:
        >>> from uqlib.metrics import risk_coverage_curve
        >>> curve = risk_coverage_curve([0.9, 0.8, 0.8, 0.6], [True, True, False, True])
        >>> curve.coverage, curve.risk.round(2)
        (array([0.25, 0.75, 1.  ]), array([0.  , 0.33, 0.25]))
    """
    ranking = ranked(confidence, correct, weights, names=NAMES)
    kept, lost = ranking.count.cumsum(0).double(), (ranking.count - ranking.positives).cumsum(0)
    points = kept / kept[-1], lost / kept, ranking.scores
    return RiskCoverage(*(like(each, kind_of(confidence)) for each in points))


def aurc(confidence: Column | Ranking, correct: Column | None = None, *, weights: Column | None = None) -> float:
    """Area under the risk-coverage curve, lower is better: the mean of selective_risks over k = 1, ..., n.

    A fraction, not multiplied by 1000. Ties share their expected risk, so the value is the mean over all random
    orders of the ties. Beside the sort: time and memory O(distinct confidences), about 50 bytes each.

    Args:
        confidence: (n,) any real score, higher = more certain; or a Ranking of confidence by correct, or by losses.
        correct: (n,) whether each prediction equals its label; left out beside a Ranking.
        weights: (n,) how much each example counts, 0 or larger; None counts each once. Of a Ranking they are in it.

    Raises:
        ValueError: if a confidence is not finite, a weight is negative, all are 0, the lengths differ, or there is no example.

    Source:
        Geifman, Uziel & El-Yaniv 2019 (arXiv:1805.08206), section 3. Other conventions of the area (trapezoids,
        an added point at coverage 0) are in uqlib.papers.

    Examples:
        >>> from uqlib.metrics import aurc
        >>> round(aurc([0.9, 0.8, 0.7, 0.6], [True, True, False, True]), 3)  # the mean of 0, 0, 1/3 and 1/4
        0.146
    """
    _, count, positives = ranked(confidence, correct, weights, names=NAMES)
    return aurc_from_counts(count, positives).item()


def aurc_of_trapezoids(
    confidence: Column | Ranking, correct: Column | None = None, *, weights: Column | None = None
) -> float:
    """Area under the risk-coverage curve by trapezoids from coverage 1/n to 1, lower is better; ties shared as in aurc.

    (sum r - (r_1 + r_n) / 2) / (n - 1) of the n risks r: aurc with half the weight on both ends. Without ties it is
    aurc_trapezoid. Arguments and errors are those of aurc; of one row it is the risk.
    """
    _, count, positives = ranked(confidence, correct, weights, names=NAMES)
    return trapezoids_from_counts(count, positives).item()


def e_aurc(confidence: Column | Ranking, correct: Column | None = None, *, weights: Column | None = None) -> float:
    """Excess AURC, lower is better: aurc minus the aurc of the ideal order, all correct predictions first.

    Zero for a perfect ranking. The ideal is computed on the same n examples, not by the formula for n to infinity.
    Arguments and errors are those of aurc.

    Source:
        Geifman, Uziel & El-Yaniv 2019 (arXiv:1805.08206), section 3.

    Examples:
        >>> from uqlib.metrics import e_aurc
        >>> round(e_aurc([0.9, 0.8, 0.7, 0.6], [True, True, False, True]), 3)  # with the error last it were 0
        0.083
    """
    _, count, positives = _hits(ranked(confidence, correct, weights, names=NAMES), "e_aurc")
    return e_aurc_from_counts(count, positives).item()


def augrc(confidence: Column | Ranking, correct: Column | None = None, *, weights: Column | None = None) -> float:
    """Area under the generalised risk-coverage curve, lower is better: the mean of k/n * r_k over k = 1, ..., n.

    k/n * r_k is the fraction of all examples that are accepted and wrong. Ties share their expectation. With
    a = accuracy and A = correctness_auroc,

        augrc = (1 - A) a (1 - a) + (1 - a)**2 / 2 + (1 - a) / (2 n).

    The last term is the step between this mean and the trapezoid through the origin, which lacks it. The sum is
    taken in integers, so the result is exact up to one rounding, for n below 3e9.

    Arguments and errors are those of aurc.

    Source:
        Traub et al. 2024 (arXiv:2407.01032), section 3, which takes the trapezoid.

    Examples:
        >>> from uqlib.metrics import augrc
        >>> round(augrc([0.9, 0.8, 0.7, 0.6], [True, True, False, True]), 3)  # the mean of 0, 0, 1/4 and 1/4
        0.125
    """
    _, count, positives = ranked(confidence, correct, weights, names=NAMES)
    return augrc_from_counts(count, positives).item()


def coverage_at_risk(
    confidence: Column | Ranking, correct: Column | None = None, *, risk: float, weights: Column | None = None
) -> float:
    """The largest achievable coverage whose selective risk is at most `risk`, higher is better; 0 if there is none.

    The curve need not be monotone: the largest such coverage wins, also where a smaller one exceeds the risk.
    Tied confidences are kept or dropped together. Arguments and errors are those of aurc.

    Args:
        risk: the error rate allowed among the kept, in [0, 1].

    Source:
        Geifman & El-Yaniv 2017 (arXiv:1705.08500), section 2.

    Examples:
        >>> from uqlib.metrics import coverage_at_risk
        >>> coverage_at_risk([0.9, 0.8, 0.7, 0.6], [True, True, False, True], risk=0.1)
        0.5
    """
    _, count, positives = ranked(confidence, correct, weights, names=NAMES)
    return coverage_at_risk_from_counts(count, positives, risk=risk).item()


def selective_accuracy_coverage(
    confidence: Column | Ranking, correct: Column | None = None, *, accuracy: float, weights: Column | None = None
) -> float:
    """SAC@t, the largest achievable coverage with accuracy of at least t among the kept, higher is better; 0 if none.

    Zhou et al. give t in percent (SAC@98 is `accuracy=0.98`) and sort ties as they come; here tied confidences are
    kept or dropped together. Arguments and errors are those of aurc.

    Args:
        accuracy: the accuracy wanted among the kept, in [0, 1].

    Source:
        Zhou, Shelhamer & Pleiss 2025 (arXiv:2505.18636), selective accuracy constraint.

    Examples:
        >>> from uqlib.metrics import selective_accuracy_coverage
        >>> selective_accuracy_coverage([0.9, 0.8, 0.7, 0.6], [True, True, False, True], accuracy=0.98)
        0.5
    """
    _, count, positives = _hits(ranked(confidence, correct, weights, names=NAMES), "selective_accuracy_coverage")
    return sac_from_counts(count, positives, accuracy=accuracy).item()


def risk_at_coverage(
    confidence: Column | Ranking, correct: Column | None = None, *, coverage: float, weights: Column | None = None
) -> float:
    """Selective risk at the smallest achievable coverage that is at least `coverage`, lower is better.

    Tied confidences are kept or dropped together. Arguments and errors are those of aurc.

    Args:
        coverage: the fraction to keep, in (0, 1].

    Examples:
        >>> from uqlib.metrics import risk_at_coverage
        >>> round(risk_at_coverage([0.9, 0.8, 0.7, 0.6], [True, True, False, True], coverage=0.75), 3)
        0.333
    """
    _, count, positives = ranked(confidence, correct, weights, names=NAMES)
    return risk_at_coverage_from_counts(count, positives, coverage=coverage).item()


def selective_accuracy_at_coverage(
    confidence: Column | Ranking, correct: Column | None = None, *, coverage: float, weights: Column | None = None
) -> float:
    """Accuracy at the smallest achievable coverage that is at least `coverage`, higher is better.

    Tied confidences are kept or dropped together. Arguments and errors are those of aurc.

    Args:
        coverage: the fraction to keep, in (0, 1].
    """
    _, count, positives = _hits(ranked(confidence, correct, weights, names=NAMES), "selective_accuracy_at_coverage")
    return accuracy_at_coverage_from_counts(count, positives, coverage=coverage).item()


def aurc_from_counts(count: Counts, positives: Counts) -> Values:
    """Mean of the selective risks, summed by example: an error at rank j weighs 1/j + ... + 1/n, divided by n.

    Of weights, harmonic numbers between the whole ones.
    """
    end, wrong = count.cumsum(-1), count - positives
    n = end[..., -1:]
    held = wrong.reshape(-1, wrong.shape[-1]).any(0).nonzero()[:, 0]  # the other scores add nothing
    end, size, wrong = (column.index_select(-1, held) for column in (end, count, wrong))
    start = end - size
    before, until, last = _harmonic(start, end, n)  # at both ends of each tie
    start, size, wrong = (column.double() for column in (start, size, wrong))
    tied = 1 + last - until - start / torch.where(size > 0, size, 1) * (until - before)  # the mean weight of its ranks
    weight = torch.where(size == 1, last - before, tied)
    return (wrong * weight).sum(-1) / n[..., 0]


def trapezoids_from_counts(count: Counts, positives: Counts) -> Values:
    """As the mean of the risks, less half of those at both ends; a draw may lack the first scores."""
    wrong, n = (count - positives).double(), count.sum(-1).double()
    first = (count > 0).double().argmax(-1, keepdim=True)
    ends = (wrong.gather(-1, first) / count.gather(-1, first))[..., 0] + wrong.sum(-1) / n
    return (n * aurc_from_counts(count, positives) - ends / 2 * (n > 1)) / torch.where(n > 1, n - 1, 1)


def _harmonic(*numbers: Shaped[Tensor, "..."]) -> Iterator[Float[Tensor, "..."]]:
    """Harmonic numbers less Euler's constant; the last number is the largest, and many are looked up below it."""
    largest = int(numbers[-1].max())
    if numbers[0].is_floating_point() or numbers[0].numel() <= largest:
        return (torch.digamma(each.double() + 1) for each in numbers)
    table = torch.digamma(torch.arange(1, largest + 2, dtype=torch.float64, device=numbers[0].device))
    return (table.take(each) for each in numbers)


def e_aurc_from_counts(count: Counts, positives: Counts) -> Values:
    """AURC less that of two ties: all the correct, then all the wrong."""
    right, total = positives.sum(-1), count.sum(-1)
    ideal = torch.stack([right, total - right], -1), torch.stack([right, torch.zeros_like(right)], -1)
    return aurc_from_counts(count, positives) - aurc_from_counts(*ideal)


def augrc_from_counts(count: Counts, positives: Counts) -> Values:
    """An error at rank j counts in the n - j + 1 accepted sets that hold it; doubled, so that ties stay integers."""
    end = count.cumsum(-1)
    n = end[..., -1:]
    doubled_ranks = (n - end).mul_(2).add_(count).add_(1)
    twice = doubled_ranks.mul_(count - positives).sum(-1)
    return twice / (2 * n[..., 0].double() ** 2)


def coverage_at_risk_from_counts(count: Counts, positives: Counts, *, risk: float) -> Values:
    """The last cut with so little risk."""
    risk = check_fraction(risk, "risk")
    kept = count.cumsum(-1)
    return _largest_coverage(kept, (count - positives).cumsum(-1) / kept.double() <= risk + slack(count))


def sac_from_counts(count: Counts, positives: Counts, *, accuracy: float) -> Values:
    """The last cut with so much accuracy."""
    accuracy = check_fraction(accuracy, "accuracy")
    kept = count.cumsum(-1)
    return _largest_coverage(kept, positives.cumsum(-1) / kept.double() >= accuracy - slack(count))


def accuracy_at_coverage_from_counts(count: Counts, positives: Counts, *, coverage: float) -> Values:
    """Accuracy at the first cut that keeps the coverage."""
    kept, right = _keep(count, positives, coverage)
    return right / kept.double()


def risk_at_coverage_from_counts(count: Counts, positives: Counts, *, coverage: float) -> Values:
    """Risk at the first cut that keeps the coverage."""
    kept, right = _keep(count, positives, coverage)
    return (kept - right) / kept.double()


def _whole(ranking: Ranking) -> Int64[Tensor, " k"]:
    """How many examples share each score; of weights there is no first, second and third example."""
    count = ranking.count
    if count.is_floating_point() and not (count == count.round()).all():
        raise TypeError(
            "the curve over 1, ..., n examples has no weights; pass the Ranking to risk_coverage_curve, which has"
        )
    return count.long()


def _hits(ranking: Ranking, metric: str) -> Ranking:
    """A Ranking of right and wrong."""
    if isinstance(ranking, RankedLosses):
        hint = " Excess: aurc(ranking) - aurc(rank_losses(-losses, losses))." if metric == "e_aurc" else ""
        raise TypeError(
            f"{metric} is about right and wrong predictions, and this Ranking has losses of any size.{hint}"
        )
    return ranking


def _largest_coverage(kept: Counts, allowed: Bool[Tensor, "*draws k"]) -> Values:
    """The last cut that is allowed, as a fraction; `kept` never falls, so the largest is the last."""
    return torch.where(allowed, kept, 0).amax(-1) / kept[..., -1].double()


def _keep(count: Counts, positives: Counts, coverage: float) -> tuple[Tensor, Tensor]:
    """How many are kept, and how many of them are correct, at the first cut that keeps the coverage."""
    coverage = check_fraction(coverage, "coverage", within="(0, 1]")
    kept = count.cumsum(-1)
    cut = (kept / kept[..., -1:].double() < coverage - slack(count)).sum(-1, keepdim=True)
    return kept.gather(-1, cut)[..., 0], positives.cumsum(-1).gather(-1, cut)[..., 0]
