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

from uqlib.metrics.bins import Bins, bin_by_mass, bin_by_width
from uqlib.metrics.calibration import (
    ReliabilityCurve,
    classwise_ece,
    debiased_ece,
    ece,
    reliability_curve,
    rms_calibration_error,
    signed_ece,
    smooth_ece,
)
from uqlib.metrics.classification import (
    accuracy,
    brier,
    brier_each,
    classwise_error,
    correctness,
    kl_p,
    macro_f1,
    mse_p,
    nll,
    nll_each,
    top_k_accuracy,
    top_k_each,
)
from uqlib.metrics.curves.achievable import achievable_aurc
from uqlib.metrics.curves.bands import Band, band
from uqlib.metrics.curves.isotonic import (
    CalibrationTest,
    IsotonicCurve,
    ScoreParts,
    calibration_test,
    classwise_score_parts,
    discrimination,
    isotonic_curve,
    miscalibration,
    overconfidence,
    recalibrated,
    score_parts,
    underconfidence,
)
from uqlib.metrics.curves.sample_size import SampleSize, how_many
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
from uqlib.metrics.ranking import RankedLosses, Ranking, merge_rankings, rank, rank_losses
from uqlib.metrics.resampling.bootstrap import (
    Interval,
    interval,
    paired_difference,
    pool,
    resample,
    resample_difference,
    resample_together,
)
from uqlib.metrics.resampling.by_group import groupwise, groupwise_intervals
from uqlib.metrics.resampling.draws import of_losses
from uqlib.metrics.resampling.summarised import Summary, summary
from uqlib.metrics.retrieval import Neighbours, abstained_recall, nearest_neighbours, r_auroc, recall_at_1, retrieved
from uqlib.metrics.rows import Rows, balancing_weights, flatten
from uqlib.metrics.selective import (
    RiskCoverage,
    augrc,
    aurc,
    aurc_fd_shifts,
    aurc_of_trapezoids,
    aurc_trapezoid,
    coverage_at_risk,
    coverages,
    e_aurc,
    risk_at_coverage,
    risk_coverage_curve,
    selective_accuracy_at_coverage,
    selective_accuracy_coverage,
    selective_risks,
)
from uqlib.metrics.tasks import Detection, Mislabelled, misclassified, mislabelled, out_of_distribution

__all__ = [
    "MEASURES",
    "Band",
    "Bins",
    "CalibrationTest",
    "Detection",
    "Interval",
    "IsotonicCurve",
    "Judged",
    "Measure",
    "Mislabelled",
    "Neighbours",
    "OperatingPoint",
    "Outcome",
    "RankedLosses",
    "Ranking",
    "ReliabilityCurve",
    "RiskCoverage",
    "RocCurve",
    "Rows",
    "SampleSize",
    "ScoreParts",
    "Summary",
    "abstained_recall",
    "accuracy",
    "achievable_aurc",
    "augrc",
    "aupr",
    "aurc",
    "aurc_fd_shifts",
    "aurc_of_trapezoids",
    "aurc_trapezoid",
    "auroc",
    "balancing_weights",
    "band",
    "bin_by_mass",
    "bin_by_width",
    "brier",
    "brier_each",
    "calibration_test",
    "classwise_ece",
    "classwise_error",
    "classwise_score_parts",
    "correctness",
    "correctness_aupr",
    "correctness_auroc",
    "coverage_at_risk",
    "coverages",
    "debiased_ece",
    "discrimination",
    "e_aurc",
    "ece",
    "flatten",
    "fpr_at_tpr",
    "groupwise",
    "groupwise_intervals",
    "how_many",
    "interval",
    "isotonic_curve",
    "kl_p",
    "macro_f1",
    "merge_rankings",
    "miscalibration",
    "misclassified",
    "mislabelled",
    "mse_p",
    "nearest_neighbours",
    "nll",
    "nll_each",
    "of_losses",
    "operating_point",
    "out_of_distribution",
    "overconfidence",
    "paired_difference",
    "pool",
    "r_auroc",
    "r_precision",
    "rank",
    "rank_losses",
    "recalibrated",
    "recall_at_1",
    "reliability_curve",
    "resample",
    "resample_difference",
    "resample_together",
    "retrieved",
    "risk_at_coverage",
    "risk_coverage_curve",
    "rms_calibration_error",
    "roc_curve",
    "score_parts",
    "selective_accuracy_at_coverage",
    "selective_accuracy_coverage",
    "selective_risks",
    "signed_ece",
    "smooth_ece",
    "summary",
    "top_k_accuracy",
    "top_k_each",
    "underconfidence",
]
