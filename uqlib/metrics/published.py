"""What a paper's or a library's own code computes, where that differs from the metric of the same name here.

For comparing with printed numbers. Each function is a literal reading of the released rule, ties, dropped bins and all;
its docstring says what differs. Confidence is higher = more certain throughout, where the code of Zhou et al. takes an
uncertainty. PUBLISHED holds them by name.
"""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from uqlib.arrays import (
    Array,
    Column,
    Table,
    as_tensor,
    check_confidence,
    check_fraction,
    check_labels,
    check_mask,
    check_probs,
    check_share,
    check_whole,
    like,
)
from uqlib.metrics.classification import brier, macro_f1


def aurc_zhou2025(confidence: Column, correct: Column) -> float:
    """Mean of the cumulative risks, lower is better. Differs from aurc at ties: they stay in the order of the rows.

    (The released sort is NumPy's default, which leaves ties in an order of its own; here it is stable.)

    Source:
        Zhou, Shelhamer & Pleiss 2025 (arXiv:2505.18636); code github.com/timgzhou/asymmetric-duos.
    """
    return _risks_in_row_order(*_check(confidence, correct)).mean().item()


def e_aurc_zhou2025(confidence: Column, correct: Column) -> float:
    """aurc_zhou2025 less that of the ideal order, all correct first, lower is better.

    The ideal is computed from the sample, where fd-shifts takes the limit e + (1 - e) ln(1 - e) for n to infinity.

    Source:
        As aurc_zhou2025.
    """
    score, hit = _check(confidence, correct)
    ideal = _risks_in_row_order(hit.double(), hit)
    return (_risks_in_row_order(score, hit).mean() - ideal.mean()).item()


def sac_zhou2025(confidence: Column, correct: Column, *, accuracy: float) -> float:
    """Largest coverage whose accuracy is at least `accuracy`, 0 if none, higher is better.

    Differs from selective_accuracy_coverage at ties, which it cuts in the order of the rows, and in rounding: it
    asks for risk <= 1 - accuracy, and 1 - 0.9 lies just below 0.1 in float64, so a risk of exactly 0.1 fails.

    Args:
        confidence: (n,).
        correct: (n,).
        accuracy: a fraction; the paper's SAC@98 is accuracy=0.98.

    Source:
        As aurc_zhou2025.
    """
    accuracy = check_fraction(accuracy, "accuracy")
    risks = _risks_in_row_order(*_check(confidence, correct))
    kept = (risks <= 1 - accuracy).nonzero()
    return (int(kept.max()) + 1) / len(risks) if len(kept) else 0.0


def ece_zhou2025(confidence: Column, correct: Column) -> float:
    """ECE over 15 bins (lo, hi] of equal width, lower is better. Differs from ece at 0: a confidence of 0 has no bin.

    Theirs is summed in float32; here in float64.

    Source:
        As aurc_zhou2025.
    """
    score, hit = _check_share(confidence, correct)
    score, error = score.double(), 0.0
    for k in range(15):
        inside = (score > k / 15) & (score <= (k + 1) / 15)
        error += (score[inside].sum() - hit[inside].sum()).abs().item()
    return error / len(score)


def brier_zhou2025(probs: Table, labels: Column) -> float:
    """The Brier score divided by the number of classes, lower is better: a mean over all n c entries.

    Source:
        As aurc_zhou2025; their plots show it times 10^5.
    """
    return brier(probs, labels) / as_tensor(probs).shape[1]


def f1_zhou2025(preds: Column, labels: Column) -> float:
    """Macro F1 over classes present among labels or predictions, higher is better: macro_f1, no difference.

    Source:
        As aurc_zhou2025. The official F1 of WILDS, for iWildCam, averages over the labels alone.
    """
    return macro_f1(preds, labels)


def duo_confidence_zhou2025(probs: Table, large_preds: Column) -> Float[Array, " n"]:
    """The duo's probability of the class that the large network predicts, higher = more certain.

    The paper defines the confidence of a duo as its largest probability. The released evaluation of "Duo: Ours" takes
    this instead, which the paper defines for "UQ Only".

    Args:
        probs: (n, c) of the duo.
        large_preds: (n,) classes predicted by the large network.

    Source:
        As aurc_zhou2025.
    """
    table = check_probs(probs)
    classes = check_labels(large_preds, table.shape[1], rows=len(table), name="large_preds", device=table.device)
    return like(table.gather(1, classes[:, None])[:, 0], probs)


def rms_calibration_error_hendrycks2019(
    confidence: Column, correct: Column, *, beta: int = 100, drop_last: bool = True
) -> float:
    """Root of the mean squared gap over bins of `beta` consecutive examples, lower is better.

    Differs from rms_calibration_error in three ways: beta is the number of examples in a bin, the last bin takes the
    remainder as well, and that last, most confident bin is then left out of the sum, though not of its weights: the
    released loop stops one bin early. drop_last=False counts it. Ties stay in the order of the rows.

    Args:
        confidence: (n,), n >= beta.
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
    score, hit = _check_share(confidence, correct)
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
    ends = _ends(score[order])
    hits = positive[order].cumsum(0)[ends]
    last = int((hits == hits[-1]).nonzero()[0])  # looser thresholds find no more positives
    hits, ends = hits[: last + 1].flip(0), ends[: last + 1].flip(0)
    distance = (hits.double() / hits[0] - recall).abs()
    at = int((distance == distance.min()).nonzero()[0])
    return (ends[at] + 1 - hits[at]).item() / (~positive).sum().item()


def aurc_trapezoid(confidence: Column, correct: Column) -> float:
    """Area under the risk-coverage curve by trapezoids from coverage 1/n to 1, divided by 1 - 1/n, lower is better.

    Differs from aurc, the mean of the n risks r, by the end points: (sum r - (r_1 + r_n) / 2) / (n - 1). Ties stay in
    the order of the rows.

    Source:
        torch-uncertainty, `AURC` (version 0.11 to 0.13).
    """
    risks = _risks_in_row_order(*_check(confidence, correct))
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
    score, hit = _check(confidence, correct)
    order = score.argsort(descending=True)
    ends = _ends(score[order])
    coverage = (ends + 1).double() / len(score)
    risks = (~hit[order]).cumsum(0)[ends] / (ends + 1).double()
    coverage, risks = torch.cat([coverage.new_zeros(1), coverage]), torch.cat([risks[:1], risks])
    return 1000 * torch.trapezoid(risks, coverage).item()


PUBLISHED = {
    "aurc_zhou2025": aurc_zhou2025,
    "e_aurc_zhou2025": e_aurc_zhou2025,
    "sac_zhou2025": sac_zhou2025,
    "ece_zhou2025": ece_zhou2025,
    "brier_zhou2025": brier_zhou2025,
    "f1_zhou2025": f1_zhou2025,
    "duo_confidence_zhou2025": duo_confidence_zhou2025,
    "rms_calibration_error_hendrycks2019": rms_calibration_error_hendrycks2019,
    "mad_calibration_error_hendrycks2019": mad_calibration_error_hendrycks2019,
    "soft_f1_hendrycks2019": soft_f1_hendrycks2019,
    "fpr_at_recall_hendrycks2019": fpr_at_recall_hendrycks2019,
    "aurc_trapezoid": aurc_trapezoid,
    "aurc_fd_shifts": aurc_fd_shifts,
}


def _risks_in_row_order(confidence: Float[Tensor, " n"], correct: Bool[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Error rate among the k most confident, k = 1, ..., n; ties in the order of the rows."""
    wrong = (~correct[confidence.argsort(descending=True, stable=True)]).cumsum(0)
    return wrong.double() / torch.arange(1, len(wrong) + 1, device=wrong.device)


def _ends(values: Float[Tensor, " n"]) -> Int64[Tensor, " k"]:
    """The last row of each run of equal values."""
    return torch.cat([values.diff() != 0, values.new_ones(1, dtype=torch.bool)]).nonzero()[:, 0]


def _gaps_hendrycks2019(
    confidence: Column, correct: Column, beta: int, drop_last: bool
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Share of the examples and gap of each bin of beta examples, from the least confident on."""
    score, hit = _check_share(confidence, correct)
    beta = check_whole(beta, "beta", least=1)
    if beta > len(score):
        raise ValueError(f"beta must lie in [1, n] for n = {len(score)} rows; it is {beta}")
    if not isinstance(drop_last, bool):
        raise TypeError(f"drop_last must be True or False; it is {drop_last!r}")
    order = score.argsort(stable=True)
    excess = score[order].double() - hit[order].double()
    full = len(score) // beta
    sizes = [beta] * (full - 1) + [len(score) - beta * (full - 1)]
    gap = torch.stack([part.mean().abs() for part in excess.split(sizes)])
    counted = full - 1 if drop_last else full
    return torch.tensor(sizes, device=gap.device, dtype=gap.dtype)[:counted] / len(score), gap[:counted]


def _check(confidence: Column, correct: Column) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
    score = check_confidence(confidence)
    return score, check_mask(correct, rows=len(score), device=score.device)


def _check_share(confidence: Column, correct: Column) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
    """Of a rule that compares the confidence with a share of correct predictions."""
    score = check_share(confidence)
    return score, check_mask(correct, rows=len(score), device=score.device)
