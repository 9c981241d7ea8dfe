"""Misclassified, out-of-distribution and mislabelled examples, each told by one score: who is positive, fixed once.

Papers and libraries disagree on who is positive, and AUPR and FPR at 95 % recall depend on it. Here

- the correct predictions are positive beside the wrong ones, told by a high confidence;
- in-distribution examples are positive beside out-of-distribution ones, told by a high confidence;
- wrong labels are positive beside right ones, told by a high difficulty.

The first two are the conventions with which the numbers of Cui et al. 2023 are plausible (AUPR of 95 % where 75 % are
right). Others call errors, or out-of-distribution examples, positive: their AUPR and FPR are other numbers, their AUROC
is the same. For those pass any score to `uqlib.metrics.aupr` and its neighbours.

Confidence is higher = more certain: largest probability, largest logit, minus the entropy (`uqlib.calibrate.confidences`). An entropy
without its minus turns every result around.

For intervals call the metric itself, `metrics.interval(metrics.fpr_at_tpr, confidence, correct)`.
"""

from typing import NamedTuple

import torch

from uqlib.base.arrays import Column
from uqlib.base.checks import check_confidence
from uqlib.metrics.detection import aupr, auroc, fpr_at_tpr, r_precision
from uqlib.metrics.outcomes import Judged
from uqlib.metrics.ranking import NAMES, Ranking, rank


class Detection(NamedTuple):
    """How well a confidence tells what to accept, the positives, from what to reject."""

    fpr95: float  # share of the negatives accepted where at least 95 % of the positives are; lower is better
    auroc: float  # a positive is more confident than a negative, ties half; higher is better
    aupr: float  # average precision of the positives, higher is better; by chance their share


class Mislabelled(NamedTuple):
    """How well a difficulty finds the wrong labels."""

    auroc: float  # a wrong label is harder than a right one, ties half; higher is better
    aupr: float  # average precision of the wrong labels, higher is better; by chance their share
    precision: float  # share of wrong labels among the r hardest, where r are wrong; by chance their share


def misclassified(confidence: Column, correct: Column, *, weights: Column | None = None) -> Detection:
    """Telling wrong predictions by low confidence; the correct ones are positive. One sort, O(n log n).

    Args:
        confidence: (n,) any real score, higher = more certain; minus the entropy, not the entropy.
        correct: (n,) whether each prediction equals its label.
        weights: (n,) how much each example counts, 0 or larger; None counts each once.

    Returns:
        Fractions in [0, 1]; papers print them in percent.

    Raises:
        ValueError: if a confidence is not finite, the lengths differ, or the predictions are all correct or all wrong.

    Source:
        Cui et al. 2023 (arXiv:2304.10127), table 3; Hendrycks & Gimpel 2017 (arXiv:1610.02136), section 2, "AUPR Succ".

    Examples:
        >>> from uqlib.metrics import misclassified
        >>> [round(number, 3) for number in misclassified([0.9, 0.8, 0.7, 0.6], [True, True, False, True])]
        [1.0, 0.667, 0.917]
    """
    sides = "correct predictions", "wrong predictions"
    ranking = rank(confidence, correct, weights=weights, names=NAMES)
    return _detection(_of_both(ranking, sides, "Training images? Pass held-out ones."))


def out_of_distribution(confidence_in: Column, confidence_out: Column) -> Detection:
    """Telling out-of-distribution examples by low confidence; the others are positive. One sort, O((n + k) log(n + k)).

    AUPR depends on how many there are of each: by chance it is n / (n + k). fpr95 and AUROC do not.

    Args:
        confidence_in: (n,) on in-distribution examples, any real score, higher = more certain.
        confidence_out: (k,) of the same network and score on out-of-distribution examples.

    Returns:
        Fractions in [0, 1]; papers print them in percent.

    Raises:
        ValueError: if a confidence is not finite, or one of the two is empty.

    Source:
        Cui et al. 2023 (arXiv:2304.10127), table 4; Liang, Li & Srikant 2018 (arXiv:1706.02690), section 4, "AUPR-In".

    Examples:
        >>> from uqlib.metrics import out_of_distribution
        >>> [round(number, 3) for number in out_of_distribution([0.9, 0.8, 0.7], [0.75, 0.5])]
        [0.5, 0.833, 0.917]
    """
    return _detection(rank(*both_sides(confidence_in, confidence_out)))


def both_sides(confidence_in: Column, confidence_out: Column) -> Judged:
    """One confidence on examples to accept and on others to reject, joined for a metric, an interval or `metrics.compare`.

    Args, Raises: as in `out_of_distribution`.
    """
    inside = check_confidence(confidence_in, "confidence_in")
    outside = check_confidence(confidence_out, "confidence_out").to(inside.device)
    both = torch.cat([inside, outside])
    return Judged(both, torch.arange(len(both), device=both.device) < len(inside))


def mislabelled(difficulty: Column, wrong: Column, *, weights: Column | None = None) -> Mislabelled:
    """Finding wrong labels by high difficulty; the wrong ones are positive. One sort, O(n log n).

    Args:
        difficulty: (n,) of each example with the label it was given, any real score, higher = harder.
        wrong: (n,) whether that label differs from the true one.
        weights: (n,) how much each example counts, 0 or larger; None counts each once.

    Returns:
        Fractions in [0, 1]; tied examples count as in a random order of theirs, on average.

    Raises:
        ValueError: if a difficulty is not finite, the lengths differ, or the labels are all right or all wrong.

    Examples:
        >>> from uqlib.metrics import mislabelled
        >>> mislabelled([5, 4, 2, 1], [True, False, True, False])
        Mislabelled(auroc=0.75, aupr=0.8333333333333333, precision=0.5)
    """
    sides, remedy = ("wrong labels", "right labels"), "Pass `given != true`."
    ranking = _of_both(rank(difficulty, wrong, weights=weights, names=("difficulty", "wrong")), sides, remedy)
    return Mislabelled(auroc(ranking), aupr(ranking), r_precision(ranking))


def _detection(ranking: Ranking) -> Detection:
    return Detection(fpr_at_tpr(ranking, tpr=0.95), auroc(ranking), aupr(ranking))


def _of_both(ranking: Ranking, sides: tuple[str, str], remedy: str) -> Ranking:
    """The ranking, if it holds examples of both sides, positive and negative."""
    total, positives = ranking.count.sum().item(), ranking.positives.sum().item()
    if positives in (0, total):
        here, missing = sides if positives else sides[::-1]
        raise ValueError(f"nothing to tell apart: all {total:g} are {here}, none are {missing}. {remedy}")
    return ranking
