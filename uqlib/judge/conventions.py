"""What other libraries call a metric and how they compute it: one row a library and metric, read by translate.

A row holds the rule itself, as a function of two columns in float64, and its difference from the function of uqlib in
words. Each rule is held against the numbers that the library printed, which benchmarks/conformity/found.json keeps.
Ties "shared" means that the order of the rows never matters, "rows" that tied confidences stay in the order they came.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from uqlib.metrics.calibration import NORMS
from uqlib.metrics.detection import aupr, auroc, fpr_at_tpr
from uqlib.metrics.ranking import rank
from uqlib.metrics.selective import aurc_fd_shifts, aurc_trapezoid, risks_in_row_order

Rule = Callable[[Tensor, Tensor, int], float]  # of a score, of whether it is correct or positive, and the bins
Facts = dict[str, float]  # n, the error among all, and that of the most confident row
VERSIONS = {
    "torchmetrics": "1.9.0",
    "torch-uncertainty": "0.13.0",
    "netcal": "1.4.0",
    "pytorch-ood": "0.4.0",
    "probly": "0.9.1",
    "MAPIE": "1.6.0",
    "scikit-learn": "1.9.1",
    "fd-shifts": "as released",
}


@dataclass(frozen=True)
class Convention:
    """One metric of one library, beside ours."""

    library: str
    metric: str  # its name there, short
    call: str  # how it is called there
    ours: str  # what is called here for the same question
    differs: str  # from ours, in words; empty if it is the same number
    rule: Rule
    ties: str = "shared"  # or "rows"
    facts: tuple[str, ...] = ()  # what converts the number alone, where `line` is given
    line: Callable[[Facts], tuple[float, float]] | None = None  # ours = a * theirs + b, from the facts


def _weighed(place: Int64[Tensor, " n"], score: Tensor, hit: Tensor, norm: str = "l1") -> float:
    """The calibration error of bins, given the number of the bin of each row; "mean" weighs the bins alike."""
    size = int(place.max()) + 1
    count = place.bincount(minlength=size)
    gap = place.bincount(weights=score.double() - hit.double(), minlength=size).abs()
    count, gap = count[count > 0].double(), gap[count > 0]
    gap = gap / count
    return gap.mean().item() if norm == "mean" else NORMS[norm](count / count.sum(), gap).item()


def _left_closed(score: Tensor, hit: Tensor, bins: int, *, norm: str = "l1", last: bool = True) -> float:
    """Bins [lo, hi) with edges in the precision of the score; a score of 1 in the last bin, or in one of its own."""
    edges = torch.linspace(0, 1, bins + 1, dtype=score.dtype)
    place = torch.bucketize(score, edges, right=True) - 1
    return _weighed(place.clamp(max=bins - 1) if last else place, score, hit, norm)


def _exact_left_closed(score: Tensor, hit: Tensor, bins: int, *, norm: str = "l1") -> float:
    return _left_closed(score.double(), hit, bins, norm=norm)


def _single_left_closed(score: Tensor, hit: Tensor, bins: int) -> float:
    return _left_closed(score.float(), hit, bins)


def _one_bin_fewer(score: Tensor, hit: Tensor, bins: int) -> float:
    """Bins (lo, hi] between so many edges, which is one bin fewer, and one more for scores of 0."""
    edges = torch.linspace(0, 1, bins, dtype=torch.float64)
    return _weighed(torch.bucketize(score.double(), edges), score, hit)


def _of_parts(score: Tensor, hit: Tensor, bins: int) -> float:
    """Bins that end at the largest score of each part of the rows, cut in the order they came."""
    parts = score.double().tensor_split(bins)[:-1]
    edges = torch.stack([part.max() for part in parts if len(part)]).sort().values
    return _weighed(torch.bucketize(score.double(), edges), score, hit)


def _equal_parts(score: Tensor, hit: Tensor, bins: int) -> float:
    """Equally many rows a bin, of the rows in ascending order; the first bins take what is left over."""
    if len(score) < bins:
        return math.nan  # the mean of an empty bin
    order = score.argsort(stable=True)
    sizes = torch.tensor([len(part) for part in score.tensor_split(bins)])
    return _weighed(torch.arange(bins).repeat_interleave(sizes), score[order], hit[order])


def _parts_of_hundred(score: Tensor, hit: Tensor, bins: int) -> float:
    """Root of the mean squared gap over bins of 100 rows in ascending order; the last takes the rest."""
    order = score.argsort(stable=True)
    last = max(1, len(score) // 100) - 1
    return _weighed((torch.arange(len(score)) // 100).clamp(max=last), score[order], hit[order], "l2")


def _trapezoid_augrc(score: Tensor, hit: Tensor, bins: int) -> float:
    n = len(score)
    accepted = risks_in_row_order(score, hit) * torch.arange(1, n + 1) / n
    return (torch.trapezoid(accepted) / (n - 1)).item() if n > 1 else math.nan


def _trapezoid_aurc(score: Tensor, hit: Tensor, bins: int) -> float:
    return aurc_trapezoid(score, hit) if len(score) > 1 else math.nan


def _drawn_aurc(score: Tensor, hit: Tensor, bins: int) -> float:
    risks = risks_in_row_order(score, hit)
    return round((torch.trapezoid(risks) / len(risks)).item(), 4)


def _drawn_augrc(score: Tensor, hit: Tensor, bins: int) -> float:
    risks = risks_in_row_order(score, hit).flip(0)
    n = len(risks)
    return round((torch.trapezoid(risks * torch.arange(n) / n) / n).item(), 4)


def _cut_coverage(score: Tensor, hit: Tensor, bins: int) -> float:
    allowed = (risks_in_row_order(score, hit) <= 0.05).nonzero()
    return (int(allowed[-1]) + 1) / len(score) if len(allowed) else math.nan


def _cut_risk(score: Tensor, hit: Tensor, bins: int) -> float:
    return risks_in_row_order(score, hit)[math.ceil(len(score) * 0.8) - 1].item()


def _mean_accuracy(score: Tensor, hit: Tensor, bins: int) -> float:
    return 1 - risks_in_row_order(score, hit).mean().item()


def _fifty_cuts(score: Tensor, hit: Tensor, bins: int) -> float:
    """Trapezoids over the error of what is left after 0, 1, ..., 49 steps of n // 50 rows, on an axis from 0 to 1."""
    if len(score) < 50:
        raise ValueError(f"probly's AURC needs at least 50 rows for its 50 bins; there are {len(score)}")
    wrong = (~hit[(-score).argsort(stable=True).flip(0)]).double()  # the least confident first
    step = len(score) // 50
    risks = torch.stack([wrong[k * step :].mean() for k in range(50)])
    return (torch.trapezoid(risks) / 49).item()


def _positives_first(score: Tensor, positive: Tensor) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """True and false positives after each row, in descending order; of tied rows the positive ones come first."""
    score, positive = (torch.cat([column[~positive], column[positive]]) for column in (score, positive))
    found = positive[score.argsort(stable=True).flip(0)].double()
    return found.cumsum(0), (1 - found).cumsum(0)


def _area_with_ties_won(score: Tensor, positive: Tensor, bins: int) -> float:
    hits, alarms = (torch.cat([each.new_zeros(1), each]) for each in _positives_first(score, positive))
    return (torch.trapezoid(hits, alarms) / (hits[-1] * alarms[-1])).item()


def _precision_with_ties_won(score: Tensor, positive: Tensor, bins: int) -> float:
    hits, alarms = _positives_first(score, positive)
    return (hits.diff(prepend=hits.new_zeros(1)) * hits / (hits + alarms)).sum().item() / hits[-1].item()


def _alarms_with_ties_won(score: Tensor, positive: Tensor, bins: int) -> float:
    hits, alarms = _positives_first(score, positive)
    return (alarms[(hits / hits[-1] >= 0.95).nonzero()[0, 0]] / alarms[-1]).item()


def _trapezoid_aupr(score: Tensor, positive: Tensor, bins: int) -> float:
    """Straight lines between the points of the precision-recall curve, from recall 0 and precision 1."""
    _, count, positives = rank(score, positive, names=("score", "positive"))
    hits, taken = positives.cumsum(0).double(), count.cumsum(0).double()
    recall, precision = hits / hits[-1], hits / taken
    return torch.trapezoid(
        torch.cat([precision.new_ones(1), precision]), torch.cat([recall.new_zeros(1), recall])
    ).item()


def _as_ours(metric: Callable[..., float], score: Tensor, positive: Tensor, bins: int) -> float:
    return metric(score, positive)


def _same(facts: Facts) -> tuple[float, float]:
    return 1.0, 0.0


def _from_trapezoid(facts: Facts) -> tuple[float, float]:
    n = facts["n"]
    return (n - 1) / n, (facts["first"] + facts["error"]) / (2 * n)


def _from_trapezoid_augrc(facts: Facts) -> tuple[float, float]:
    n = facts["n"]
    return (n - 1) / n, (facts["first"] / n + facts["error"]) / (2 * n)


def _from_thousand(facts: Facts) -> tuple[float, float]:
    return 1 / 1000, (facts["error"] - facts["first"]) / (2 * facts["n"])


def _from_thousand_augrc(facts: Facts) -> tuple[float, float]:
    return 1 / 1000, facts["error"] / (2 * facts["n"])


def _augrc_of_thousand(score: Tensor, hit: Tensor, bins: int) -> float:
    ends = rank(score, hit, names=("confidence", "correct"))
    wrong, n = (ends.count - ends.positives).cumsum(0).double(), len(score)
    kept = torch.cat([wrong.new_zeros(1), ends.count.cumsum(0).double()]) / n
    return 1000 * torch.trapezoid(torch.cat([wrong.new_zeros(1), wrong]) / n, kept).item()


def _drawn_from_zero(score: Tensor, hit: Tensor, bins: int) -> float:
    return aurc_fd_shifts(score, hit)


_ENDS = ("n", "first", "error")
_AUROC, _AUPR, _FPR = (partial(_as_ours, metric) for metric in (auroc, aupr, fpr_at_tpr))
_OWN_BIN = "bins are [lo, hi), and a confidence of exactly 1 has a bin of its own; sums in the precision of the input"
_TRAPEZOID = "trapezoids from coverage 1/n to 1, divided by 1 - 1/n, where ours is the mean over k"
_PLOT = "what the figure shows, rounded to 0.01 %"
_WON = "ties are not shared: a foreign example counts as above every known one of the same score"

CONVENTIONS = (
    Convention("torchmetrics", "ECE", "binary_calibration_error(p, hit, n_bins=15)", "ece", _OWN_BIN,
               partial(_left_closed, last=False)),
    Convention("torchmetrics", "RMSCE", "binary_calibration_error(p, hit, norm='l2')", "ece(norm='l2')", _OWN_BIN,
               partial(_left_closed, norm="l2", last=False)),
    Convention("torchmetrics", "MCE", "binary_calibration_error(p, hit, norm='max')", "ece(norm='max')", _OWN_BIN,
               partial(_left_closed, norm="max", last=False)),
    Convention("torchmetrics", "AUROC", "binary_auroc(score, positive)", "auroc", "", _AUROC, line=_same),
    Convention("torchmetrics", "AUPR", "binary_average_precision(score, positive)", "aupr", "", _AUPR, line=_same),
    Convention("torchmetrics", "FPR95", "1 - binary_specificity_at_sensitivity(score, positive, 0.95)[0]",
               "fpr_at_tpr", "", _FPR, line=_same),
    Convention("torch-uncertainty", "ECE", "CalibrationError(task='binary', num_bins=10)", "ece",
               "that of torchmetrics, with 10 bins where nothing is said", partial(_left_closed, last=False)),
    Convention("torch-uncertainty", "ACE", "AdaptiveCalibrationError(task='binary', num_bins=10)", "ece(by='mass')",
               "equally many rows a bin, so that a tie can fall into two bins", _equal_parts, "rows"),
    Convention("torch-uncertainty", "AURC", "AURC()", "aurc", _TRAPEZOID, _trapezoid_aurc, "rows", _ENDS,
               _from_trapezoid),
    Convention("torch-uncertainty", "AUGRC", "AUGRC()", "augrc", _TRAPEZOID, _trapezoid_augrc, "rows", _ENDS,
               _from_trapezoid_augrc),
    Convention("torch-uncertainty", "AURC.plot", "AURC().plot()", "aurc",
               f"{_PLOT}: the trapezoids, not divided by 1 - 1/n", _drawn_aurc, "rows"),
    Convention("torch-uncertainty", "AUGRC.plot", "AUGRC().plot()", "augrc",
               f"{_PLOT}: each risk times the coverage of the other end of the curve", _drawn_augrc, "rows"),
    Convention("torch-uncertainty", "CovAt5Risk", "CovAt5Risk()", "coverage_at_risk(risk=0.05)",
               "cuts through ties; NaN, not 0, where no coverage will do", _cut_coverage, "rows"),
    Convention("torch-uncertainty", "RiskAt80Cov", "RiskAt80Cov()", "risk_at_coverage(coverage=0.8)",
               "cuts through ties", _cut_risk, "rows"),
    Convention("torch-uncertainty", "FPR95", "FPR95(pos_label=1)", "fpr_at_tpr", "", _FPR, line=_same),
    Convention("netcal", "ECE", "ECE(10, detection=True)", "ece", "bins are [lo, hi), the last one with its end",
               _exact_left_closed),
    Convention("netcal", "MCE", "MCE(10, detection=True)", "ece(norm='max')",
               "bins are [lo, hi), the last one with its end", partial(_exact_left_closed, norm="max")),
    Convention("netcal", "ACE", "ACE(10, detection=True)", "none",
               "average calibration error: the mean over bins of equal width that hold rows, each bin alike",
               partial(_exact_left_closed, norm="mean")),
    Convention("pytorch-ood", "AUROC", "auroc(scores, labels)", "auroc", "", _AUROC, line=_same),
    Convention("pytorch-ood", "AUPR", "aupr(scores, labels)", "aupr",
               "trapezoids between the points of the curve, from recall 0 and precision 1", _trapezoid_aupr),
    Convention("pytorch-ood", "FPR95", "fpr_at_tpr(scores, labels)", "fpr_at_tpr",
               "", _FPR, line=_same),
    Convention("pytorch-ood", "calibration error", "calibration_error(confidence, correct)", "rms_calibration_error",
               "bins of 100 rows, the last with the rest; a tie can fall into two bins", _parts_of_hundred, "rows"),
    Convention("pytorch-ood", "AURRA", "aurra(confidence, correct)", "aurc", "1 - aurc", _mean_accuracy, "rows",
               line=lambda facts: (-1.0, 1.0)),
    Convention("probly", "ECE", "ExpectedCalibrationError(15)", "ece",
               "bins are [lo, hi), the last one with its end; edges and sums in float32", _single_left_closed),
    Convention("probly", "AURC", "selective_prediction(criterion, losses)[0]", "aurc",
               "50 cuts of n // 50 rows on an axis that says 0 to 1", _fifty_cuts, "rows"),
    Convention("probly", "AUROC", "evaluate_ood(inside, outside)", "auroc", _WON, _area_with_ties_won),
    Convention("probly", "AUPR", "evaluate_ood(inside, outside, 'aupr')", "aupr", _WON, _precision_with_ties_won),
    Convention("probly", "FPR95", "evaluate_ood(inside, outside, 'fpr')", "fpr_at_tpr", _WON, _alarms_with_ties_won),
    Convention("MAPIE", "ECE", "expected_calibration_error(correct, confidence, num_bins=50)", "ece",
               "one bin fewer than asked for; a confidence of 0 has a bin of its own", _one_bin_fewer),
    Convention("MAPIE", "ECE, array split", "expected_calibration_error(..., split_strategy='array split')",
               "ece(by='mass')", "bins end at the largest confidence of each part of the rows as they came",
               _of_parts, "rows"),
    Convention("scikit-learn", "AUROC", "roc_auc_score(positive, score)", "auroc", "", _AUROC, line=_same),
    Convention("scikit-learn", "AUPR", "average_precision_score(positive, score)", "aupr", "", _AUPR, line=_same),
    Convention("scikit-learn", "AUPR, trapezoid", "auc(recall, precision)", "aupr",
               "trapezoids between the points of the curve, from recall 0 and precision 1", _trapezoid_aupr),
    Convention("scikit-learn", "FPR95", "roc_curve, the first point with tpr >= 0.95", "fpr_at_tpr", "", _FPR,
               line=_same),
    Convention("fd-shifts", "AURC", "RiskCoverageStats.aurc", "aurc",
               "1000 times the trapezoids from coverage 0, with the first risk there", _drawn_from_zero,
               facts=_ENDS, line=_from_thousand),
    Convention("fd-shifts", "AUGRC", "RiskCoverageStats.augrc", "augrc", "1000 times the trapezoids from the origin",
               _augrc_of_thousand, facts=("n", "error"), line=_from_thousand_augrc),
)  # fmt: skip
