"""Metrics as scikit-learn's scorers: for cross_val_score, and for GridSearchCV(scoring=...)."""

from collections.abc import Callable
from typing import Any

import numpy as np

from uqlib.base.options import check_choice
from uqlib.judge.streams import METRICS, _arrays, _check_options, outcome_arrays

# Every metric that scores, and which way is better
HIGHER = (
    *("accuracy", "macro_f1", "coverage_at_risk", "selective_accuracy_coverage", "selective_accuracy_at_coverage"),
    *("correctness_auroc", "correctness_aupr", "auroc", "aupr", "r_precision"),
)
LOWER = (
    *("nll", "brier", "aurc", "augrc", "e_aurc", "aurc_of_trapezoids", "risk_at_coverage", "ece", "debiased_ece"),
    *("rms_calibration_error", "classwise_ece", "smooth_ece", "fpr_at_tpr"),
)
EPS = np.finfo(np.float64).eps  # a probability of 0 counts as this in the nll, as in scikit-learn's log_loss


class Scorer:
    """A metric of an estimator on examples, as `scorer` makes it."""

    def __init__(self, metric: str, options: dict[str, Any]):
        self.metric, self.options = metric, options

    def __call__(self, estimator: Any, X: Any, y: Any) -> float:
        """The metric of the estimator's probabilities; minus it, where lower is better."""
        function = METRICS[self.metric][0]
        if not hasattr(estimator, "predict_proba"):
            raise TypeError(
                f"estimator must have predict_proba; {type(estimator).__name__} has none. "
                "TemperatureScaling(estimator) makes probabilities of a decision_function"
            )
        probs, labels = np.asarray(estimator.predict_proba(X)), places(y, estimator.classes_)
        arrays = outcome_arrays({"probs": probs, "labels": labels}) | {"logits": np.log(np.clip(probs, EPS, 1))}
        if "score" in (names := _arrays(function)):
            if probs.shape[1] != 2:
                raise ValueError(f"{self.metric} needs two classes; there are {probs.shape[1]}. Try correctness_auroc")
            arrays |= {"score": probs[:, 1], "positive": labels == 1}
        value = function(*(arrays[name] for name in names), **self.options)
        return value if self.metric in HIGHER else -value

    def __repr__(self) -> str:
        return (
            f"scorer({', '.join([repr(self.metric), *(f'{name}={value!r}' for name, value in self.options.items())])})"
        )


def scorer(metric: str, **options: Any) -> Callable[[Any, Any, Any], float]:
    """A metric by its name in `uqlib.metrics`, as a scorer of scikit-learn: higher is better, so errors are negative.

    Of an estimator with predict_proba: the most probable class is its prediction, its probability the confidence. auroc,
    aupr, r_precision and fpr_at_tpr take two classes, the second of classes_ positive; correctness_auroc takes any number.

    Args:
        metric: its name.
        options: those of the metric, such as bins=10.

    Raises:
        ValueError: if the name is unknown. Called with an estimator: if a label is not among its classes_.
        TypeError: if the metric has no such option, or needs one that is not given.

    Examples:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.model_selection import cross_val_score
        >>> from sklearn.naive_bayes import GaussianNB
        >>> from uqlib.judge import scorer
        >>> cross_val_score(GaussianNB(), *load_iris(return_X_y=True), cv=3, scoring=scorer("brier")).round(3)
        array([-0.088, -0.11 , -0.05 ])
    """
    _check_options(check_choice(metric, (*HIGHER, *LOWER), "metric"), options)
    return Scorer(metric, options)


def places(y: Any, classes: Any) -> np.ndarray:
    """The place of each label among the classes, which are sorted.

    Raises:
        ValueError: if a label is not among them.
    """
    y, classes = np.asarray(y).reshape(-1), np.asarray(classes)
    found = np.searchsorted(classes, y).clip(max=len(classes) - 1)
    if (odd := classes[found] != y).any():
        row = int(odd.argmax())
        raise ValueError(f"y must be among the {len(classes)} classes; row {row} is {y[row]!r}, which was not fitted")
    return found
