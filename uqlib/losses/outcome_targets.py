"""Targets made of outcomes: in place of what happened to one example, how often it happened to those with a similar score.

An outcome is 0 or 1, a coin whose probability nobody saw. A network that learns from it for long learns the coin by heart;
from the frequency among similar scores it cannot. Targets are made anew from the scores of the training set, every few epochs.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from uqlib.base.arrays import Array, Column, like
from uqlib.base.checks import check_mask, check_share
from uqlib.base.options import check_choice, check_number, check_whole

TARGETS = ("bins", "kernel")


def cape_targets(
    scores: Column, outcomes: Column, *, by: str = "bins", groups: int = 5, width: float = 0.05, reach: int = 100
) -> Float[Array, " n"]:
    """How often the outcome was 1 among examples of similar score, each example's own outcome included.

    Tied scores stand for each other: they share their outcomes evenly, and get the mean of the targets of their places, so the
    order of the rows never matters. Time grows with n for bins, with n times reach for the kernel; memory with n.

    Args:
        scores: (n,) the probabilities of outcome 1 that the network gives now, in [0, 1].
        outcomes: (n,) zeros and ones, or false and true.
        by: "bins", groups of equal size in the order of the scores; or "kernel", neighbours in that order, weighted by a Gaussian
            of the difference of scores.
        groups: of bins; of sizes that differ by one at most. One group gives the share of ones to all, n groups the outcomes.
        width: standard deviation of the kernel, in units of the scores.
        reach: neighbours of the kernel on either side.

    Returns:
        Targets in [0, 1], float64.

    Raises:
        ValueError: if a score is outside [0, 1], an outcome is neither 0 nor 1, there are more groups than examples, the width is
            not above 0, or `by` is unknown.

    Source:
        Liu et al. 2022 (arXiv:2111.10734), CaPE. Its code makes targets of 5 groups after two epochs on outcomes, or of the kernel
        after three.

    Examples:
        >>> from uqlib.losses import cape_targets
        >>> cape_targets([0.9, 0.1, 0.8, 0.2], [1, 0, 0, 0], groups=2)
        array([0.5, 0. , 0.5, 0. ])
    """
    given, scores = scores, check_share(scores, "scores").double()
    outcome = check_mask(outcomes, "outcomes", rows=len(scores), device=scores.device).double()
    by = check_choice(by, TARGETS, "kind of target")
    groups = check_whole(groups, "groups", least=1, most=len(scores) if by == "bins" else None)
    width, reach = check_number(width, "width", above=0), check_whole(reach, "reach", least=0)
    order = scores.argsort()
    tie = scores[order].unique_consecutive(return_inverse=True)[1]
    shared = _mean_within(outcome[order], tie)
    found = _group_means(shared, groups) if by == "bins" else _kernel_means(scores[order], shared, width, reach)
    targets = torch.empty_like(outcome)
    targets[order] = _mean_within(found, tie).clamp(0, 1)  # sums round
    return like(targets, given)


def _mean_within(values: Float[Tensor, " n"], group: Tensor) -> Float[Tensor, " n"]:
    """Each value replaced by the mean of its group."""
    return (torch.bincount(group, values) / torch.bincount(group))[group]


def _group_means(outcome: Float[Tensor, " n"], groups: int) -> Float[Tensor, " n"]:
    place = torch.arange(len(outcome), device=outcome.device)
    return _mean_within(outcome, place * groups // len(outcome))


def _kernel_means(
    scores: Float[Tensor, " n"], outcome: Float[Tensor, " n"], width: float, reach: int
) -> Float[Tensor, " n"]:
    """Of sorted scores. Each pair of places counts for both, and each place for itself, so no sum of weights is below one."""
    hits, total = outcome.clone(), torch.ones_like(outcome)
    for step in range(1, min(reach, len(scores) - 1) + 1):
        weight = (-0.5 * ((scores[step:] - scores[:-step]) / width).square()).exp()
        hits[step:] += weight * outcome[:-step]
        hits[:-step] += weight * outcome[step:]
        total[step:] += weight
        total[:-step] += weight
    return hits / total
