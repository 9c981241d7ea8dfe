"""Calibrate what a network says: temperatures and other maps, confidences from logits, sets and thresholds that keep a promise."""

from uqlib.calibrate.calibrators import CALIBRATORS, Calibrator, cross_calibrate, fit_calibrator
from uqlib.calibrate.confidences import (
    CONFIDENCES,
    confidence,
    energy,
    margin,
    max_logit,
    max_probability,
    mutual_information,
    neg_entropy,
)
from uqlib.calibrate.conformal import conformal_threshold
from uqlib.calibrate.guarantees import Guarantee, guaranteed_coverage
from uqlib.calibrate.meta import (
    Family,
    MetaFit,
    fit_family,
    fit_meta,
    hit_curve,
    map_by_curve,
    monotone,
    pit_curve,
    pit_error,
    predict_curves,
    project_curve,
    task_features,
)
from uqlib.calibrate.platt import cross_platt, platt_scale
from uqlib.calibrate.prediction_sets import (
    SET_SCORES,
    PredictionSets,
    SetSummary,
    fit_prediction_sets,
    set_summary,
)
from uqlib.calibrate.temperature import (
    ClassTemperatureFit,
    TemperatureFit,
    TemperatureScaled,
    fit_class_temperatures,
    fit_temperature,
    scale_logits,
)

__all__ = [
    "CALIBRATORS",
    "CONFIDENCES",
    "SET_SCORES",
    "Calibrator",
    "ClassTemperatureFit",
    "Family",
    "Guarantee",
    "MetaFit",
    "PredictionSets",
    "SetSummary",
    "TemperatureFit",
    "TemperatureScaled",
    "confidence",
    "conformal_threshold",
    "cross_calibrate",
    "cross_platt",
    "energy",
    "fit_calibrator",
    "fit_class_temperatures",
    "fit_family",
    "fit_meta",
    "fit_prediction_sets",
    "fit_temperature",
    "guaranteed_coverage",
    "hit_curve",
    "map_by_curve",
    "margin",
    "max_logit",
    "max_probability",
    "monotone",
    "mutual_information",
    "neg_entropy",
    "pit_curve",
    "pit_error",
    "platt_scale",
    "predict_curves",
    "project_curve",
    "scale_logits",
    "set_summary",
    "task_features",
]
