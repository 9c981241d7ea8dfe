"""Metrics of predictions, confidences and probabilities, on NumPy or torch, CPU or GPU.

    from uqlib import metrics
    metrics.ece(confidence, correct)                     # calibration
    metrics.aurc(confidence, correct)                    # selective prediction
    metrics.auroc(score, positive)                       # detection
    metrics.interval(metrics.aurc, confidence, correct)  # bootstrap interval
    print(metrics.summary(confidence, correct))          # five numbers with theirs

Sums are float64, ties are shared, the order of the rows never matters. What a paper's own code computes otherwise is in
`uqlib.papers`, by name.
"""

from uqlib.metrics.calibration import (
    Bins,
    ReliabilityCurve,
    bin_by_mass,
    bin_by_width,
    classwise_ece,
    debiased_ece,
    ece,
    reliability_curve,
    rms_calibration_error,
    smooth_ece,
)
from uqlib.metrics.classification import (
    accuracy,
    brier,
    brier_each,
    classwise_error,
    correctness,
    macro_f1,
    nll,
    nll_each,
)
from uqlib.metrics.detection import (
    OperatingPoint,
    RocCurve,
    aupr,
    auroc,
    correctness_aupr,
    correctness_auroc,
    fpr_at_tpr,
    operating_point,
    r_precision,
    roc_curve,
)
from uqlib.metrics.outcomes import MEASURES, Judged, Measure, Outcome
from uqlib.metrics.ranking import Ranking, merge_rankings, rank
from uqlib.metrics.resampling.bootstrap import (
    Interval,
    Summary,
    interval,
    paired_difference,
    pool,
    resample,
    resample_difference,
    resample_together,
    summary,
)
from uqlib.metrics.retrieval import Neighbours, abstained_recall, nearest_neighbours, r_auroc, recall_at_1, retrieved
from uqlib.metrics.selective import (
    augrc,
    aurc,
    aurc_fd_shifts,
    aurc_of_trapezoids,
    aurc_trapezoid,
    coverage_at_risk,
    coverages,
    e_aurc,
    risk_at_coverage,
    selective_accuracy_at_coverage,
    selective_accuracy_coverage,
    selective_risks,
)
from uqlib.metrics.tasks import Detection, Mislabelled, misclassified, mislabelled, out_of_distribution

__all__ = [
    "MEASURES",
    "Bins",
    "Detection",
    "Interval",
    "Judged",
    "Measure",
    "Mislabelled",
    "Neighbours",
    "OperatingPoint",
    "Outcome",
    "Ranking",
    "ReliabilityCurve",
    "RocCurve",
    "Summary",
    "abstained_recall",
    "accuracy",
    "augrc",
    "aupr",
    "aurc",
    "aurc_fd_shifts",
    "aurc_of_trapezoids",
    "aurc_trapezoid",
    "auroc",
    "bin_by_mass",
    "bin_by_width",
    "brier",
    "brier_each",
    "classwise_ece",
    "classwise_error",
    "correctness",
    "correctness_aupr",
    "correctness_auroc",
    "coverage_at_risk",
    "coverages",
    "debiased_ece",
    "e_aurc",
    "ece",
    "fpr_at_tpr",
    "interval",
    "macro_f1",
    "merge_rankings",
    "misclassified",
    "mislabelled",
    "nearest_neighbours",
    "nll",
    "nll_each",
    "operating_point",
    "out_of_distribution",
    "paired_difference",
    "pool",
    "r_auroc",
    "r_precision",
    "rank",
    "recall_at_1",
    "reliability_curve",
    "resample",
    "resample_difference",
    "resample_together",
    "retrieved",
    "risk_at_coverage",
    "rms_calibration_error",
    "roc_curve",
    "selective_accuracy_at_coverage",
    "selective_accuracy_coverage",
    "selective_risks",
    "smooth_ece",
    "summary",
]
