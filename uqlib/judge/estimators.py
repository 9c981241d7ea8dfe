"""Estimators of scikit-learn, thin over the functions: temperature scaling, a duo, and the difficulty of examples.

A classifier of scikit-learn is wrapped, `TemperatureScaling(LogisticRegression())`, and stands where it stood: in a
pipeline, a search, a cross-validation. Its logits for the fit come from folds that it was not fitted on. Networks that live
elsewhere have logits, and these are X themselves: `TemperatureScaling().fit(logits, labels)`.
"""

import warnings
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from jaxtyping import Float

from uqlib.base.checks import check_logits
from uqlib.base.extras import named
from uqlib.base.options import check_whole
from uqlib.calibrate.temperature import fit_temperature
from uqlib.combine.duos import fit_duo
from uqlib.difficulty import (
    distances,
    fit_gaussians,
    mahalanobis,
    moments,
    nearest_mahalanobis,
    nearest_relative_mahalanobis,
    relative_mahalanobis,
)
from uqlib.judge.scoring import EPS, places

with named():
    from sklearn.base import BaseEstimator, ClassifierMixin, clone
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import StratifiedKFold
    from sklearn.utils import _safe_indexing, get_tags, indexable
    from sklearn.utils.metadata_routing import UNUSED
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import _check_y, check_is_fitted, validate_data


class _Classifier(ClassifierMixin, BaseEstimator):
    """Without set_score_request, which scikit-learn would write into every subclass, for a weight that no one routes."""

    __metadata_request__score = {"sample_weight": UNUSED}  # noqa: RUF012


class _Weighted(_Classifier, ABC):
    """The softmax of weighted logits of one or more members; without any, X holds the logits, side by side."""

    members: tuple[str, ...]  # the names of the parameters
    classes: Any
    cv: int

    def fit(self, X: Any, y: Any) -> "_Weighted":
        """Fit the members, and the weights on logits of examples that a member was not fitted on.

        Args:
            X: what the members take; without members, logits (n, c), of several networks side by side.
            y: (n,), labels of any type.

        Raises:
            ValueError: if a class has fewer than two examples, or the columns of X are not the classes.
        """
        if self._wrapped():
            X, y = indexable(X, _check_y(y, estimator=self))  # what else X must be, the members say
        else:
            X, y = validate_data(self, X, y)
        if not len(y):
            raise ValueError("y is empty; at least one example is needed")
        check_classification_targets(y)
        self.classes_ = np.unique(y if self.classes is None else self.classes)
        labels = places(y, self.classes_)
        if len(self.classes_) < 2:
            raise ValueError(f"y must hold at least two classes; it holds 1 class, {self.classes_[0]!r}")
        logits = self._held_out(X, y, labels) if self._wrapped() else self._logits(X)
        for table in logits:
            check_logits(table, "the logits of X")
        try:
            self.weights_ = self._fit_weights(logits, labels)
        except ValueError as error:
            warnings.warn(f"{error} The logits are left as they are.", ConvergenceWarning, stacklevel=2)
            self.weights_ = np.full(len(logits), 1 / len(logits))
        for name in self._wrapped():
            fitted = clone(getattr(self, name)).fit(X, y)
            setattr(self, f"{name}_", fitted)
            for known in ("n_features_in_", "feature_names_in_"):
                if hasattr(fitted, known):
                    setattr(self, known, getattr(fitted, known))
        return self

    def predict_proba(self, X: Any) -> Float[np.ndarray, "n c"]:
        """Probabilities of the classes, in the order of classes_."""
        check_is_fitted(self)
        X = X if self._wrapped() else validate_data(self, X, reset=False)
        mixed = sum(weight * logits for weight, logits in zip(self.weights_, self._logits(X), strict=True))
        powers = np.exp(mixed - mixed.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)

    def predict(self, X: Any) -> np.ndarray:
        """The most probable class."""
        place = self.predict_proba(X).argmax(1)
        return self.classes_[place]

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = bool(self._wrapped()) and all(
            get_tags(getattr(self, name)).input_tags.sparse for name in self._wrapped()
        )
        return tags

    def _wrapped(self) -> tuple[str, ...]:
        given = tuple(name for name in self.members if getattr(self, name) is not None)
        if given and given != self.members:
            missing = next(name for name in self.members if name not in given)
            raise ValueError(
                f"{missing} must be an estimator, as {given[0]} is; it is None. Logits as X? Leave out both"
            )
        if given and self.classes is not None:
            raise ValueError(
                f"classes must be None beside {given[0]}, which learns them from y; they are for logits as X"
            )
        return given

    def _held_out(self, X: Any, y: np.ndarray, labels: np.ndarray) -> list[np.ndarray]:
        """The logits of each example by members that were fitted on the other folds."""
        fewest = np.bincount(labels).min()
        if fewest < 2:
            rare = self.classes_[np.bincount(labels).argmin()]
            raise ValueError(f"each class needs two examples, for fit and temperature; {rare!r} has {fewest}")
        folds = StratifiedKFold(min(check_whole(self.cv, "cv", least=2), int(fewest)), shuffle=True, random_state=0)
        found = [np.empty((len(y), len(self.classes_))) for _ in self.members]
        for rest, fold in folds.split(labels, labels):
            for table, name in zip(found, self.members, strict=True):
                member = clone(getattr(self, name)).fit(_safe_indexing(X, rest), y[rest])
                table[fold] = _logits_of(member, _safe_indexing(X, fold), self.classes_)
        return found

    def _logits(self, X: Any) -> list[np.ndarray]:
        if wrapped := self._wrapped():
            return [_logits_of(getattr(self, f"{name}_"), X, self.classes_) for name in wrapped]
        wanted = len(self.members) * len(self.classes_)
        if X.shape[1] != wanted:
            many = f" times {len(self.members)} networks" if len(self.members) > 1 else ""
            raise ValueError(
                f"X must hold logits, one column a class ({len(self.classes_)} classes{many}); it has {X.shape[1]} columns. "
                "Features? Pass a classifier. A class without examples? Name all by classes=[...]."
            )
        return np.split(np.asarray(X, dtype=np.float64), len(self.members), axis=1)

    @abstractmethod
    def _fit_weights(self, logits: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
        """The weights of the members' logits."""


class TemperatureScaling(_Weighted):
    """A classifier whose probabilities are recalibrated by one temperature; its predictions stay.

    Where no temperature is the best (every held-out label has the largest logit, or the logits say nothing of the labels),
    it stays 1 and a ConvergenceWarning says so.

    Args:
        estimator: a classifier with decision_function or predict_proba, fitted here; sklearn's FrozenEstimator(...) is left
            as it is, and then all examples fit the temperature. None: X is logits, with a column a class.
        cv: folds from which the logits of the fit come.
        classes: all classes of the columns of X, where y may lack some; without an estimator alone.

    Source:
        Guo et al. 2017 (arXiv:1706.04599), section 4.2.

    Examples:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.naive_bayes import GaussianNB
        >>> from uqlib.judge import TemperatureScaling
        >>> X, y = load_iris(return_X_y=True)
        >>> model = TemperatureScaling(GaussianNB()).fit(X, y)
        >>> bool(model.temperature_ > 1)  # naive Bayes is too sure
        True
    """

    members = ("estimator",)

    def __init__(self, estimator: Any = None, *, cv: int = 5, classes: Any = None):
        self.estimator = estimator
        self.cv = cv
        self.classes = classes

    @property
    def temperature_(self) -> float:
        """Divides the logits."""
        check_is_fitted(self)
        return float(1 / self.weights_[0])

    def _fit_weights(self, logits: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
        return np.array([1 / fit_temperature(logits[0], labels).temperature])


class Duo(_Weighted):
    """A large classifier and a small one, whose logits are added with two fitted weights.

    Where no weights are the best, both are a half and a ConvergenceWarning says so.

    Args:
        large: a classifier with decision_function or predict_proba, fitted here, or a FrozenEstimator. None, as small: X is
            the logits of both networks side by side, (n, 2c), the large one first.
        small: the other.
        cv, classes: as in TemperatureScaling.

    Source:
        Zhou et al. 2025 (arXiv:2505.18636).

    Examples:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.naive_bayes import GaussianNB
        >>> from uqlib.judge import Duo
        >>> X, y = load_iris(return_X_y=True)
        >>> duo = Duo(LogisticRegression(max_iter=500), GaussianNB()).fit(X, y)
        >>> bool(duo.weights_[0] > duo.weights_[1])
        True
    """

    members = ("large", "small")

    def __init__(self, large: Any = None, small: Any = None, *, cv: int = 5, classes: Any = None):
        self.large = large
        self.small = small
        self.cv = cv
        self.classes = classes

    def _fit_weights(self, logits: list[np.ndarray], labels: np.ndarray) -> np.ndarray:
        return np.asarray(fit_duo(logits[0], logits[1], labels).weights)


class DifficultyScorer(_Classifier):
    """How hard examples are for their label: distances to Gaussians of the features of each class.

    It predicts the nearest class, which is linear discriminant analysis of equally frequent classes.

    Args:
        relative: the distance to the class less that to all examples (Cui et al. 2023), or the one to the class alone.
        covariance, ridge, components: as in `fit_gaussians`.

    Source:
        Cui et al. 2023 (arXiv:2304.10127).

    Examples:
        >>> import numpy as np
        >>> from sklearn.datasets import load_iris
        >>> from uqlib.judge import DifficultyScorer
        >>> X, y = load_iris(return_X_y=True, as_frame=True)
        >>> names = np.array(["setosa", "versicolor", "virginica"])[y]
        >>> names[[7, 99]] = "virginica", "setosa"  # two wrong labels
        >>> np.sort(DifficultyScorer().fit(X, names).score_samples(X, names).argsort()[-2:])
        array([ 7, 99])
    """

    def __init__(
        self,
        *,
        relative: bool = True,
        covariance: str = "ridge",
        ridge: float = 1e-6,
        components: int | None = None,
    ):
        self.relative = relative
        self.covariance = covariance
        self.ridge = ridge
        self.components = components

    def fit(self, X: Any, y: Any) -> "DifficultyScorer":
        """Fit the Gaussians to features (n, d) and labels (n,) of any type.

        Raises:
            ValueError: as `moments` and `fit_gaussians`.
        """
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        self.classes_ = np.unique(y)
        if len(self.classes_) < 2:
            raise ValueError(f"y must hold at least two classes; it holds 1 class, {self.classes_[0]!r}")
        counted = moments(X, places(y, self.classes_), classes=len(self.classes_))
        self.gaussians_ = fit_gaussians(
            counted, covariance=self.covariance, ridge=self.ridge, components=self.components
        )
        return self

    def score_samples(self, X: Any, y: Any = None) -> Float[np.ndarray, " n"]:
        """The difficulty of each example, higher = harder: for its label, or without labels for the nearest class.

        Raises:
            ValueError: if a label is not among classes_.
        """
        X = self._features(X)
        if y is None:
            nearest = nearest_relative_mahalanobis if self.relative else nearest_mahalanobis
            return np.asarray(nearest(self.gaussians_, X))
        labels = places(y, self.classes_)
        return np.asarray((relative_mahalanobis if self.relative else mahalanobis)(self.gaussians_, X, labels))

    def predict(self, X: Any) -> np.ndarray:
        """The nearest class."""
        X = self._features(X)
        place = np.asarray(distances(self.gaussians_, X).to_classes).argmin(1)
        return self.classes_[place]

    def _features(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return validate_data(self, X, dtype=[np.float64, np.float32], reset=False)


def _logits_of(estimator: Any, X: Any, classes: np.ndarray) -> Float[np.ndarray, "n c"]:
    """Decision values as logits, or the logarithm of probabilities."""
    if hasattr(estimator, "decision_function"):
        values = np.asarray(estimator.decision_function(X), dtype=np.float64)
        values = np.column_stack([0 * values, values]) if values.ndim == 1 else values
    elif hasattr(estimator, "predict_proba"):
        values = np.log(np.clip(np.asarray(estimator.predict_proba(X), dtype=np.float64), EPS, 1))
    else:
        raise TypeError(
            f"estimator must have decision_function or predict_proba; {type(estimator).__name__} has neither"
        )
    if values.shape[1] != len(classes):
        raise ValueError(
            f"estimator must give one value a class, {len(classes)}; {type(estimator).__name__} gives {values.shape[1]}"
        )
    known = np.asarray(getattr(estimator, "classes_", classes))
    if (odd := [each for each in known.tolist() if each not in classes.tolist()]) and len(known) == len(classes):
        raise ValueError(
            f"estimator must know the classes of y; {type(estimator).__name__} was fitted on class {odd[0]!r}, and those of y "
            f"are {classes.tolist()!r:.80}. Pass examples of its own classes"
        )
    return values
