"""The peers' metrics of two columns, each called as its documentation says and by its own name.

A peer is imported when its metric is called, so that one that is missing costs only its own rows. Where `update` of a
metric takes class probabilities alone, it is given what its `update` would store: the confidence and the error.
"""

import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from inputs import BINS

warnings.filterwarnings("ignore")
logging.disable(logging.WARNING)

Call = Callable[[np.ndarray, np.ndarray], float]


def _torchmetrics(name: str, **options: Any) -> Call:
    def call(confidence: np.ndarray, correct: np.ndarray) -> float:
        from torchmetrics.functional import classification

        function = getattr(classification, name)
        return float(function(torch.from_numpy(confidence), torch.from_numpy(correct).long(), **options))

    return call


def _specificity(confidence: np.ndarray, correct: np.ndarray) -> float:
    from torchmetrics.functional.classification import binary_specificity_at_sensitivity

    found = binary_specificity_at_sensitivity(torch.from_numpy(confidence), torch.from_numpy(correct).long(), 0.95)
    return 1 - float(found[0])


def _stored(name: str, states: tuple[str, str], wrong: bool, **options: Any) -> Call:
    def call(confidence: np.ndarray, correct: np.ndarray) -> float:
        import torch_uncertainty.metrics.classification as classification

        metric = getattr(classification, name)(**options)
        second = ~correct if wrong else correct
        getattr(metric, states[0]).append(torch.from_numpy(confidence))
        getattr(metric, states[1]).append(torch.from_numpy(second).float())
        metric._update_count = 1  # as update does
        return float(metric.compute())

    return call


def _risk(name: str, **options: Any) -> Call:
    return _stored(name, ("scores", "errors"), wrong=True, **options)


def _calibration(name: str, **options: Any) -> Call:
    return _stored(name, ("confidences", "accuracies"), wrong=False, **options)


def _shown(name: str) -> Call:
    def call(confidence: np.ndarray, correct: np.ndarray) -> float:
        import torch_uncertainty.metrics.classification as classification

        metric = getattr(classification, name)()
        metric.scores.append(torch.from_numpy(confidence))
        metric.errors.append(torch.from_numpy(~correct).float())
        _, axes = metric.plot()
        return float(axes.texts[0].get_text().split("=")[1].rstrip("%")) / 100

    return call


def _tu_fpr(confidence: np.ndarray, correct: np.ndarray) -> float:
    from torch_uncertainty.metrics.classification import FPR95

    metric = FPR95(pos_label=1)
    metric.update(torch.from_numpy(confidence), torch.from_numpy(correct).long())
    return float(metric.compute())


def _netcal(name: str, **options: Any) -> Call:
    def call(confidence: np.ndarray, correct: np.ndarray) -> float:
        import netcal.metrics

        return float(getattr(netcal.metrics, name)(BINS, detection=True, **options).measure(confidence, correct))

    return call


def _ood(name: str, **options: Any) -> Call:
    def call(confidence: np.ndarray, correct: np.ndarray) -> float:
        from pytorch_ood.metrics import functional

        labels = torch.from_numpy(correct)
        if name not in ("calibration_error", "aurra"):
            labels = -labels.long()  # foreign examples, the positive ones, have a label below zero
        return float(getattr(functional, name)(torch.from_numpy(confidence), labels, **options))

    return call


def _probly_ood(name: str) -> Call:
    def call(confidence: np.ndarray, correct: np.ndarray) -> float:
        from probly.evaluation.ood import evaluate_ood

        return float(evaluate_ood(confidence[~correct], confidence[correct], name)[name])

    return call


def _probly_aurc(confidence: np.ndarray, correct: np.ndarray) -> float:
    from probly.evaluation.tasks import selective_prediction

    return selective_prediction(-confidence, (~correct).astype(float))[0]


def _probly_ece(confidence: np.ndarray, correct: np.ndarray) -> float:
    from probly.train.calibration.torch import ExpectedCalibrationError

    sure = torch.from_numpy(confidence)
    rows = torch.stack([sure, torch.full_like(sure, -1)], 1)  # the largest entry is the confidence, of class 0
    return float(ExpectedCalibrationError(BINS)(rows, torch.from_numpy(~correct).long()))


def _mapie(**options: Any) -> Call:
    def call(confidence: np.ndarray, correct: np.ndarray) -> float:
        from mapie.metrics.calibration import expected_calibration_error

        return float(expected_calibration_error(correct.astype(int), confidence, num_bins=BINS, **options))

    return call


def _sklearn(name: str) -> Call:
    def call(confidence: np.ndarray, correct: np.ndarray) -> float:
        import sklearn.metrics

        return float(getattr(sklearn.metrics, name)(correct, confidence))

    return call


def _sklearn_fpr(confidence: np.ndarray, correct: np.ndarray) -> float:
    from sklearn.metrics import roc_curve

    fpr, tpr, _ = roc_curve(correct, confidence)
    return float(fpr[np.flatnonzero(tpr >= 0.95)[0]])


def _sklearn_trapezoid(confidence: np.ndarray, correct: np.ndarray) -> float:
    from sklearn.metrics import auc, precision_recall_curve

    precision, recall, _ = precision_recall_curve(correct, confidence)
    return float(auc(recall, precision))


# by library, and the name under which translate knows the metric
CALLS: dict[str, dict[str, Call]] = {
    "torchmetrics": {
        "ECE": _torchmetrics("binary_calibration_error", n_bins=BINS),
        "RMSCE": _torchmetrics("binary_calibration_error", n_bins=BINS, norm="l2"),
        "MCE": _torchmetrics("binary_calibration_error", n_bins=BINS, norm="max"),
        "AUROC": _torchmetrics("binary_auroc"),
        "AUPR": _torchmetrics("binary_average_precision"),
        "FPR95": _specificity,
    },
    "torch-uncertainty": {
        "ECE": _calibration("CalibrationError", task="binary", num_bins=BINS),
        "ACE": _calibration("AdaptiveCalibrationError", task="binary", num_bins=BINS),
        "smECE": _calibration("SmoothCalibrationError"),
        "smECE, reflected": _calibration("SmoothCalibrationError", kernel_type="reflected"),
        "AURC": _risk("AURC"),
        "AUGRC": _risk("AUGRC"),
        "AURC.plot": _shown("AURC"),
        "AUGRC.plot": _shown("AUGRC"),
        "CovAt5Risk": _risk("CovAt5Risk"),
        "RiskAt80Cov": _risk("RiskAt80Cov"),
        "FPR95": _tu_fpr,
    },
    "netcal": {
        "ECE": _netcal("ECE"),
        "MCE": _netcal("MCE"),
        "ACE": _netcal("ACE"),
    },
    "pytorch-ood": {
        "AUROC": _ood("auroc"),
        "AUPR": _ood("aupr"),
        "FPR95": _ood("fpr_at_tpr"),
        "calibration error": _ood("calibration_error"),
        "AURRA": _ood("aurra"),
    },
    "probly": {
        "ECE": _probly_ece,
        "AURC": _probly_aurc,
        "AUROC": _probly_ood("auroc"),
        "AUPR": _probly_ood("aupr"),
        "FPR95": _probly_ood("fpr"),
    },
    "MAPIE": {
        "ECE": _mapie(),
        "ECE, array split": _mapie(split_strategy="array split"),
    },
    "scikit-learn": {
        "AUROC": _sklearn("roc_auc_score"),
        "AUPR": _sklearn("average_precision_score"),
        "AUPR, trapezoid": _sklearn_trapezoid,
        "FPR95": _sklearn_fpr,
    },
}
