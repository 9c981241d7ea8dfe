"""Calibrate what a network says: one temperature or one a class, confidences from logits, thresholds that keep a promise."""

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
from uqlib.calibrate.platt import cross_platt, platt_scale
from uqlib.calibrate.temperature import (
    ClassTemperatureFit,
    TemperatureFit,
    TemperatureScaled,
    fit_class_temperatures,
    fit_temperature,
    scale_logits,
)

__all__ = [
    "CONFIDENCES",
    "ClassTemperatureFit",
    "TemperatureFit",
    "TemperatureScaled",
    "confidence",
    "conformal_threshold",
    "cross_platt",
    "energy",
    "fit_class_temperatures",
    "fit_temperature",
    "margin",
    "max_logit",
    "max_probability",
    "mutual_information",
    "neg_entropy",
    "platt_scale",
    "scale_logits",
]
