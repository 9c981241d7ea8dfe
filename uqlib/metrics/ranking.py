"""The one structure behind every rank-based metric: how many examples share each score, and how many are positive.

AUROC, AUPR, AURC and the rest depend on the scores through their order and their ties alone. A Ranking keeps
exactly that. It costs one sort, serves every metric, and merges exactly, so batches and processes can be
ranked apart:

    ranking = merge_rankings(*(rank(confidence, correct) for confidence, correct in batches))
    aurc(ranking), auroc(ranking)
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from uqlib.base.arrays import Column
from uqlib.base.checks import check_confidence, check_mask

NAMES = ("confidence", "correct")  # what errors call the two columns, where the positives are correct predictions
# `count` and `positives` of a Ranking, or of many draws from one; a formula on them works along the last axis
Counts = Int64[Tensor, "*draws k"]
Values = Float[Tensor, "*draws"]


class Ranking(NamedTuple):
    """Distinct scores from high to low, with what was seen at each. Always torch tensors.

    Memory: at most 20 bytes a distinct float32 score (24 for float64), however many examples share them.
    """

    scores: Float[Tensor, " k"]
    count: Int64[Tensor, " k"]  # type: ignore[assignment]  # examples at this score; hides tuple.count, which nobody needs
    positives: Int64[Tensor, " k"]  # those of them that are positive (correct, or out of distribution, ...)


def rank(score: Column, positive: Column, *, names: tuple[str, str] = ("score", "positive")) -> Ranking:
    """Count examples and positives at every distinct score, in descending order of the score.

    One sort of the scores, one of the rarer class, and a search: O(n log n) time, and at most 40 bytes an example
    beside the input. Half precision is ranked as float32, which holds it exactly. Zero and minus zero tie.

    Args:
        score: (n,) any finite real score.
        positive: (n,) true or false.
        names: what errors call the two.

    Raises:
        ValueError: if a score is not finite, the lengths differ, or there is no example.

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
    mostly = bool(2 * positive.count_nonzero() > len(positive))
    rarer = ~positive if mostly else positive
    keys, count = _distinct(-score)
    rarer_keys, rarer_count = _distinct(-score[rarer])
    seen = torch.zeros_like(count)
    seen[torch.searchsorted(keys, rarer_keys)] = rarer_count
    scores = keys.neg_().add_(0)  # adding zero turns minus zero into zero
    return Ranking(scores, count, count - seen if mostly else seen)


def merge_rankings(*rankings: Ranking) -> Ranking:
    """The ranking of all examples together: the same integers as ranking their concatenation.

    One sort of the distinct scores, so collect the rankings of many batches and merge them once.

    Raises:
        ValueError: if there is nothing to merge.
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
    scores, count, positives = (torch.cat(column) for column in zip(*rankings, strict=True))
    scores, order = scores.sort(descending=True)
    scores, place = scores.unique_consecutive(return_inverse=True)
    empty = torch.zeros(len(scores), dtype=torch.int64, device=scores.device)
    return Ranking(scores, empty.index_add(0, place, count[order]), empty.index_add(0, place, positives[order]))


def ranked(
    score: Column | Ranking, positive: Column | None, *, names: tuple[str, str] = ("score", "positive")
) -> Ranking:
    """What a metric was given, as a Ranking: two arrays are ranked, a Ranking is taken as it is."""
    if isinstance(score, Ranking) and positive is None:
        return score
    if isinstance(score, Ranking) or positive is None:
        raise TypeError(f"pass {names[0]} and {names[1]}, or one Ranking alone as {names[0]}")
    return rank(score, positive, names=names)


def kind_of(given: Column | Ranking) -> Column:
    """The array that decides the kind of the result: torch for a Ranking."""
    return given.scores if isinstance(given, Ranking) else given


def _distinct(keys: Float[Tensor, " n"]) -> tuple[Float[Tensor, " k"], Int64[Tensor, " k"]]:
    """Distinct keys, ascending, and how often each occurs. Sorts the keys in place on the CPU."""
    if keys.device.type == "cpu":
        keys.numpy().sort()  # shares the memory; vectorised, and many times faster than torch.sort
    else:
        keys = keys.sort().values
    distinct, count = keys.unique_consecutive(return_counts=True)
    return distinct, count
