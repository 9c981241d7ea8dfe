"""Using Pre-Training: names in print, released metrics of Hendrycks et al. 2019 (arXiv:1901.09960).

Each metric is a literal reading of the released rule, dropped bins and all; its docstring says what differs.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from uqlib.base.arrays import Column
from uqlib.base.checks import check_confidence, check_mask, check_share_and_hits
from uqlib.base.options import check_fraction, check_whole
from uqlib.metrics.selective import last_of_ties
from uqlib.papers import SCORES

STARTS = {  # where a training begins, in print
    "scratch": "from scratch",
    "supervised": "pretrained",
    "unrelated": "pretrained without related classes",
    "rotations": "pretrained on rotations",
    "adversarial": "pretrained adversarially",
    "imagenet": "ready-made, from ImageNet",
    "imagenet_scratch": "the same network from scratch",
}
CORRECTIONS = {  # of wrong labels
    "none": "no correction",
    "forward": "Forward",
    "forward_gold": "Forward, trusted labels as they are",
    "glc_5": "GLC 5 %",
    "glc_10": "GLC 10 %",
}
METHODS = {  # for classes of unequal size
    "cross_entropy": "cross entropy",
    "cost_sensitive": "cost-sensitive",
    "oversampling": "oversampling",
    "smote": "SMOTE",
}
TRAININGS = {  # against an adversary, or without one
    "plain": "plain training",
    "pgd": "adversarial training",
    "head": "adversarial training of the head alone",
}
TUNINGS = {  # of what was pretrained
    "tuned": "tuned at once",
    "frozen": "head alone",
    "probed": "head first, then all",
}
NAMES = STARTS | CORRECTIONS | METHODS | TRAININGS | TUNINGS | SCORES


def rms_calibration_error_hendrycks2019(
    confidence: Column, correct: Column, *, beta: int = 100, drop_last: bool = True
) -> float:
    """Root of the mean squared gap over bins of `beta` consecutive examples, lower is better.

    Differs from rms_calibration_error in three ways: beta is the number of examples in a bin, the last bin takes the
    remainder as well, and that last, most confident bin is then left out of the sum, though not of its weights: the
    released loop stops one bin early. drop_last=False counts it. Ties stay in the order of the rows.

    Args:
        confidence: (n,), n >= 2 beta, or n >= beta where the last bin is counted.
        correct: (n,).
        beta: examples in a bin.
        drop_last: leave out the most confident bin, as released.

    Source:
        Hendrycks, Lee & Mazeika 2019 (arXiv:1901.09960); code github.com/hendrycks/pre-training.
    """
    share, gap = _gaps_hendrycks2019(confidence, correct, beta, drop_last)
    return (share * gap.square()).sum().sqrt().item()


def mad_calibration_error_hendrycks2019(
    confidence: Column, correct: Column, *, beta: int = 100, drop_last: bool = True
) -> float:
    """Mean absolute gap over the bins of rms_calibration_error_hendrycks2019, lower is better.

    Source:
        As rms_calibration_error_hendrycks2019.
    """
    share, gap = _gaps_hendrycks2019(confidence, correct, beta, drop_last)
    return (share * gap).sum().item()


def soft_f1_hendrycks2019(confidence: Column, correct: Column) -> float:
    """F1 for finding the errors, with 1 - confidence as a soft vote for "error"; higher is better.

    Nothing here differs from a metric of the same name; there is none.

    Source:
        As rms_calibration_error_hendrycks2019; in the code only, no table shows it.
    """
    score, hit = check_share_and_hits(confidence, correct)
    doubt, wrong = 1 - score.double(), (~hit).double()
    if not wrong.any():
        raise ValueError("soft F1 needs at least one error; every prediction is correct")
    # 2 tp / (2 tp + fp + fn), where 2 tp + fp + fn = all votes + all errors
    return (2 * (doubt * wrong).sum() / (doubt.sum() + wrong.sum())).item()


def fpr_at_recall_hendrycks2019(score: Column, positive: Column, *, recall: float = 0.95) -> float:
    """False positive rate at the threshold whose recall is nearest to `recall`, lower is better.

    Differs from fpr_at_tpr, which takes the first threshold with at least that recall. Here the nearest recall may lie
    below; and of thresholds with one recall below 1 the loosest counts, with all the negatives down to the next
    positive. Of two recalls equally near, the larger. In the paper the positives are the out-of-distribution rows, and
    the score is -max probability.

    Args:
        score: (n,), higher = more likely positive.
        positive: (n,), true or false.
        recall: a fraction.

    Source:
        As rms_calibration_error_hendrycks2019.
    """
    recall = check_fraction(recall, "recall", within="(0, 1]")
    score = check_confidence(score, "score")
    positive = check_mask(positive, "positive", rows=len(score), device=score.device)
    if positive.all() or not positive.any():
        raise ValueError(f"both groups are needed; positive is {positive[0].item()} in every row")
    order = score.argsort(descending=True)
    ends = last_of_ties(score[order])
    hits = positive[order].cumsum(0)[ends]
    last = int((hits == hits[-1]).nonzero()[0])  # looser thresholds find no more positives
    hits, ends = hits[: last + 1].flip(0), ends[: last + 1].flip(0)
    distance = (hits.double() / hits[0] - recall).abs()
    at = int((distance == distance.min()).nonzero()[0])
    return (ends[at] + 1 - hits[at]).item() / (~positive).sum().item()


def _gaps_hendrycks2019(
    confidence: Column, correct: Column, beta: int, drop_last: bool
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Share of the examples and gap of each bin of beta examples, from the least confident on."""
    score, hit = check_share_and_hits(confidence, correct)
    beta = check_whole(beta, "beta", least=1)
    if beta > len(score):
        raise ValueError(f"beta must lie in [1, n] for n = {len(score)} rows; it is {beta}")
    if not isinstance(drop_last, bool):
        raise TypeError(f"drop_last must be True or False; it is {drop_last!r}")
    if drop_last and len(score) < 2 * beta:
        raise ValueError(
            f"beta must leave two bins, as the last is not counted: at most {len(score) // 2} for {len(score)} rows; it is "
            f"{beta}. Pass a smaller beta, or drop_last=False."
        )
    order = score.argsort(stable=True)
    excess = score[order].double() - hit[order].double()
    full = len(score) // beta - 1
    known = excess[: full * beta].view(full, beta).mean(1)
    gap = torch.cat([known, excess[full * beta :].mean()[None]]).abs()  # the last takes the remainder as well
    share = torch.full_like(gap, beta / len(score))
    share[-1] = 1 - full * beta / len(score)
    counted = full if drop_last else full + 1
    return share[:counted], gap[:counted]
