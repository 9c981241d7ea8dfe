"""The one structure behind every rank-based metric: how many examples share each score, and how many are positive.

AUROC, AUPR, AURC and the rest depend on the scores through their order and their ties alone. A Ranking keeps
exactly that. It costs one sort, serves every metric, and merges exactly, so batches and processes can be
ranked apart:

    ranking = merge_rankings(*(rank(confidence, correct) for confidence, correct in batches))
    aurc(ranking), auroc(ranking)

Examples that weigh differently are counted in float64. A weight counts as that many equal examples; weights that are not
whole numbers are taken in proportion, as if their mean were one.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from uqlib.base.arrays import Column
from uqlib.base.checks import check_confidence, check_mask, check_rows, check_weights

NAMES = ("confidence", "correct")  # what errors call the two columns, where the positives are correct predictions
# `count` and `positives` of a Ranking, or of many draws from one; a formula on them works along the last axis. They are
# int64, and float64 where examples have weights or losses.
Counts = Shaped[Tensor, "*draws k"]
Values = Float[Tensor, "*draws"]


class Ranking(NamedTuple):
    """Distinct scores from high to low, with what was seen at each. Always torch tensors.

    Memory: at most 20 bytes a distinct float32 score (24 for float64), however many examples share them.
    """

    scores: Float[Tensor, " k"]
    count: Shaped[Tensor, " k"]  # type: ignore[assignment]  # examples at this score; hides tuple.count, which nobody needs
    positives: Shaped[Tensor, " k"]  # those of them that are positive (correct, or out of distribution, ...)


class RankedLosses(Ranking):
    """A Ranking in which an example of loss l counts as l of a wrong prediction: `positives` are the rest of the count."""


def rank(
    score: Column,
    positive: Column,
    *,
    weights: Column | None = None,
    names: tuple[str, str] = ("score", "positive"),
) -> Ranking:
    """Count examples and positives at every distinct score, in descending order of the score.

    One sort of the scores, one of the rarer class, and a search: O(n log n) time, and at most 40 bytes an example
    beside the input. Half precision is ranked as float32, which holds it exactly. Zero and minus zero tie.

    Args:
        score: (n,) any finite real score.
        positive: (n,) true or false.
        weights: (n,) how much each example counts, 0 or larger; None counts each once.
        names: what errors call the two.

    Raises:
        ValueError: if a score is not finite, a weight is negative, all are 0, the lengths differ, or there is no example.

    Examples:
        >>> from uqlib.metrics import aurc, correctness_auroc, rank
        >>> ranking = rank([0.9, 0.8, 0.7, 0.6], [True, True, False, True])  # one sort
        >>> round(aurc(ranking), 3), round(correctness_auroc(ranking), 3)
        (0.146, 0.667)
    """
    score = check_confidence(score, names[0])
    positive = check_mask(positive, names[1], rows=len(score), device=score.device)
    if score.dtype in (torch.float16, torch.bfloat16):
        score = score.float()
    if weights is not None:
        return _rank_weighted(score, positive.double(), check_weights(weights, len(score), score.device))
    mostly = bool(2 * positive.count_nonzero() > len(positive))
    rarer = ~positive if mostly else positive
    keys, count = _distinct(-score)
    rarer_keys, rarer_count = _distinct(-score[rarer])
    seen = torch.zeros_like(count)
    seen[torch.searchsorted(keys, rarer_keys)] = rarer_count
    scores = keys.neg_().add_(0)  # adding zero turns minus zero into zero
    return Ranking(scores, count, count - seen if mostly else seen)


def rank_losses(confidence: Column, losses: Column, *, weights: Column | None = None) -> Ranking:
    """A Ranking of confidence by a loss of any size, such as a Brier score, 1 - Dice or a squared error.

    aurc, augrc, selective_risks, risk_at_coverage and coverage_at_risk of it are those of the mean loss of the kept, in
    place of their error rate; of losses 0 and 1 it is rank(confidence, losses == 0). What asks for right and wrong refuses it.

    Args:
        confidence: (n,) any finite real score, higher = more certain.
        losses: (n,) finite, lower is better.
        weights: (n,) how much each example counts, 0 or larger; None counts each once.

    Raises:
        ValueError: if an entry is not finite, the lengths differ, there is no example, or the weights are refused.

    Source:
        Geifman & El-Yaniv 2017 (arXiv:1705.08500), section 2, whose risk is of any loss.

    Examples:
        >>> from uqlib.metrics import aurc, rank_losses
        >>> round(aurc(rank_losses([0.9, 0.8, 0.7], [0.1, 0.4, 0.4])), 3)  # the mean of 0.1, 0.25 and 0.3
        0.217
    """
    score, loss = check_confidence(confidence), check_confidence(losses, "losses")
    check_rows(loss, len(score), "losses")
    score = score.float() if score.dtype in (torch.float16, torch.bfloat16) else score
    each = loss.new_ones(len(loss), dtype=torch.float64) if weights is None else check_weights(weights, len(score))
    return RankedLosses(*_rank_weighted(score, 1 - loss.double().to(score.device), each.to(score.device)))


def merge_rankings(*rankings: Ranking) -> Ranking:
    """The ranking of all examples together: the same integers as ranking their concatenation.

    One sort of the distinct scores, so collect the rankings of many batches and merge them once. Of weights only whole
    numbers keep their scale from batch to batch.

    Raises:
        ValueError: if there is nothing to merge, or one has weights that are not whole numbers.
        TypeError: if something is no Ranking.

    Examples:
        >>> from uqlib.metrics import aurc, merge_rankings, rank
        >>> first, second = rank([0.9, 0.7], [True, False]), rank([0.8, 0.6], [True, True])
        >>> round(aurc(merge_rankings(first, second)), 3)
        0.146
    """
    if not rankings:
        raise ValueError("merge needs at least one Ranking")
    if odd := [type(each).__name__ for each in rankings if not isinstance(each, Ranking)]:
        raise TypeError(
            f"merge_rankings takes rankings one by one, merge_rankings(*rankings), each from rank(); got {odd[0]}"
        )
    kind = type(rankings[0])
    if odd := [type(each).__name__ for each in rankings if type(each) is not kind]:
        raise TypeError(f"merge_rankings takes rankings of one kind; got {kind.__name__} and {odd[0]}")
    for k, each in enumerate(rankings):
        refuse_scaled(each.count, f"rankings[{k}]", "rank all rows at once")
    scores, count, positives = (torch.cat(column) for column in zip(*rankings, strict=True))
    scores, order = scores.sort(descending=True)
    scores, place = scores.unique_consecutive(return_inverse=True)
    empty = torch.zeros(len(scores), dtype=count.dtype, device=scores.device)
    return kind(scores, empty.index_add(0, place, count[order]), empty.index_add(0, place, positives[order]))


def ranked(
    score: Column | Ranking,
    positive: Column | None,
    weights: Column | None = None,
    *,
    names: tuple[str, str] = ("score", "positive"),
) -> Ranking:
    """What a metric was given, as a Ranking: arrays are ranked, a Ranking is taken as it is."""
    if isinstance(score, Ranking) and positive is None:
        if weights is not None:
            raise TypeError(f"weights belong to the examples: pass them to rank(), not beside a Ranking as {names[0]}")
        return score
    if isinstance(score, Ranking) or positive is None:
        raise TypeError(f"pass {names[0]} and {names[1]}, or one Ranking alone as {names[0]}")
    return rank(score, positive, weights=weights, names=names)


def refuse_scaled(count: Counts, name: str, instead: str) -> None:
    """Raise a ValueError for sums of weights that are not whole: their scale is that of their batch, and does not add up."""
    if count.is_floating_point() and (odd := count != count.round()).any():
        raise ValueError(
            f"{name} must have whole weights; one of its counts is {count[odd][0].item():.6g}. Weights that are not whole "
            f"numbers were brought to a mean of one, batch by batch: {instead}, or pass whole numbers"
        )


def least(count: Counts) -> float:
    """What a count of nothing is taken for in a division: below every count that is something."""
    return torch.finfo(count.dtype).tiny if count.is_floating_point() else 1


def slack(count: Counts) -> float:
    """By how much a share of these counts may miss a bound that it meets: sums of weights are rounded."""
    return 1e-12 if count.is_floating_point() else 0


def kind_of(given: Column | Ranking) -> Column:
    """The array that decides the kind of the result: torch for a Ranking."""
    return given.scores if isinstance(given, Ranking) else given


def _rank_weighted(score: Float[Tensor, " n"], positive: Float[Tensor, " n"], weights: Float[Tensor, " n"]) -> Ranking:
    """Sums of weights in place of counts; an example of weight 0 is not there. `positive` may be any share."""
    held = weights > 0
    if not held.all():
        score, positive, weights = score[held], positive[held], weights[held]
    scores, order = score.sort(descending=True, stable=True)
    scores, place = scores.unique_consecutive(return_inverse=True)
    weights, positive = weights[order], positive[order]
    empty = weights.new_zeros(len(scores))
    count, found = empty.index_add(0, place, weights), empty.index_add(0, place, weights * positive)
    return Ranking(scores + 0, count, found)  # adding zero turns minus zero into zero


def _distinct(keys: Float[Tensor, " n"]) -> tuple[Float[Tensor, " k"], Int64[Tensor, " k"]]:
    """Distinct keys, ascending, and how often each occurs. Sorts the keys in place on the CPU."""
    if keys.device.type == "cpu":
        keys.numpy().sort()  # shares the memory; vectorised, and many times faster than torch.sort
    else:
        keys = keys.sort().values
    distinct, count = keys.unique_consecutive(return_counts=True)
    return distinct, count
