"""What takes more than a column: temperatures, conformal sets, distances, label quality, proper scores, intervals.

Each question is a list of rows, a library and its number, with ours first. All of real answers of the checkout, but for
the intervals of a regression, which uncertainty-toolbox alone asks for: their truth is in closed form.
"""

import time
from collections.abc import Callable
from typing import Any

import inputs
import numpy as np
import torch

from uqlib import metrics
from uqlib.base import splits
from uqlib.calibrate import conformal_threshold, fit_temperature, scale_logits
from uqlib.difficulty import fit_gaussians, moments, nearest_mahalanobis, nearest_relative_mahalanobis
from uqlib.label_noise import corrupt_labels, uniform_transition

ALPHA = 0.1


def results() -> dict[str, list[dict[str, Any]]]:
    """Every question with the rows of every library that answers it."""
    tables = inputs.tables()
    asked: dict[str, Callable[[dict[str, np.ndarray]], dict[str, Callable[[], Any]]]] = {
        "temperature": temperatures,
        "conformal sets": conformal_sets,
        "distance": distances,
        "label quality": label_quality,
        "proper scores": proper_scores,
        "intervals": intervals,
    }
    found = {}
    for name, question in asked.items():
        rows = []
        for library, call in question(tables).items():
            began = time.perf_counter()
            try:
                row = call()
            except Exception as error:
                row = {"error": f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}"}
            rows.append({"library": library, **row, "seconds": time.perf_counter() - began})
        found[name] = rows
    return found


def temperatures(tables: dict[str, np.ndarray]) -> dict[str, Callable[[], Any]]:
    """The temperature, and how much more NLL it leaves than the best one."""
    logits, labels = torch.from_numpy(tables["logits"]).float(), torch.from_numpy(tables["labels"]).long()
    best = metrics.nll(scale_logits(logits, fit_temperature(logits, labels).temperature), labels)

    def row(temperature: float) -> dict[str, float]:
        return {"temperature": temperature, "excess": metrics.nll(scale_logits(logits, temperature), labels) - best}

    def tu() -> dict[str, float]:
        from torch.utils.data import DataLoader, TensorDataset
        from torch_uncertainty.post_processing import TemperatureScaler

        scaler = TemperatureScaler()
        scaler.fit(DataLoader(TensorDataset(logits, labels), batch_size=len(logits)), progress=False)
        return row(float(scaler.temperature[0]))

    def ood() -> dict[str, float]:
        from pytorch_ood.detector import TemperatureScaling

        return row(float(TemperatureScaling(None).fit_logits(logits, labels).t))

    def netcal(dtype: type) -> dict[str, float]:
        from netcal.scaling import TemperatureScaling

        scaler = TemperatureScaling()
        scaler.fit(logits.double().softmax(1).numpy().astype(dtype), labels.numpy())
        return row(
            float(1 / np.ravel(scaler.temperature)[0])
            if _inverse(scaler, logits, labels)
            else float(np.ravel(scaler.temperature)[0])
        )

    def sklearn() -> dict[str, float]:
        from sklearn.base import BaseEstimator, ClassifierMixin
        from sklearn.calibration import CalibratedClassifierCV
        from sklearn.frozen import FrozenEstimator

        class Answers(ClassifierMixin, BaseEstimator):
            def fit(self, rows: np.ndarray, labels: np.ndarray) -> "Answers":
                self.classes_ = np.unique(labels)
                return self

            def decision_function(self, rows: np.ndarray) -> np.ndarray:
                return rows

            def predict(self, rows: np.ndarray) -> np.ndarray:
                return rows.argmax(1)

        rows = logits.double().numpy()
        frozen = FrozenEstimator(Answers().fit(rows, labels.numpy()))
        fitted = CalibratedClassifierCV(frozen, method="temperature", cv=2).fit(rows, labels.numpy())
        found = [each.calibrators[0].beta_ for each in fitted.calibrated_classifiers_]
        return row(float(1 / np.mean(found)))

    return {
        "uqlib": lambda: row(fit_temperature(logits, labels).temperature),
        "torch-uncertainty": tu,
        "pytorch-ood": ood,
        "netcal, float64": lambda: netcal(np.float64),
        "netcal, float32": lambda: netcal(np.float32),
        "scikit-learn": sklearn,
    }


def _inverse(scaler: Any, logits: torch.Tensor, labels: torch.Tensor) -> bool:
    """Whether netcal's `temperature` multiplies the logits: of the two readings the better one."""
    value = float(np.ravel(scaler.temperature)[0])
    return metrics.nll(logits * value, labels) <= metrics.nll(logits / value, labels)


def conformal_sets(tables: dict[str, np.ndarray]) -> dict[str, Callable[[], Any]]:
    """Sets that should hold the label in 90 of 100 cases: the mean coverage over many small calibration sets."""
    probs, labels = tables["probs"], tables["labels"]
    drawn = [splits.split(len(labels), 19, seed=seed) for seed in range(1000)]

    def row(threshold: Callable[[np.ndarray, np.ndarray], float]) -> dict[str, float]:
        hits, sizes = [], []
        for fit, test in drawn:
            held = 1 - probs[test] <= threshold(probs[fit], labels[fit]) + 1e-12
            hits.append(held[np.arange(len(test)), labels[test]].mean())
            sizes.append(held.sum(1).mean())
        return {"calibration rows": 19, "coverage": float(np.mean(hits)), "size": float(np.mean(sizes))}

    def ours(probs: np.ndarray, labels: np.ndarray) -> float:
        return conformal_threshold(1 - probs[np.arange(len(labels)), labels], coverage=1 - ALPHA)

    def tu(probs: np.ndarray, labels: np.ndarray) -> float:
        from torch.utils.data import DataLoader, TensorDataset
        from torch_uncertainty.post_processing import ConformalClsTHR

        sets = ConformalClsTHR(alpha=ALPHA, model=torch.nn.Identity(), enable_ts=False)
        rows = TensorDataset(torch.from_numpy(probs).log(), torch.from_numpy(labels).long())
        sets.fit(DataLoader(rows, batch_size=len(labels)))
        return float(sets.q_hat)

    def mapie(probs: np.ndarray, labels: np.ndarray) -> float:
        from mapie.classification import SplitConformalClassifier

        sets = SplitConformalClassifier(_table(), confidence_level=1 - ALPHA, conformity_score="lac", prefit=True)
        sets.conformalize(probs, labels)
        sets.predict_set(probs[:1])
        return float(np.ravel(sets._mapie_classifier.conformity_score_function_.quantiles_)[0])

    def probly(probs: np.ndarray, labels: np.ndarray) -> float:
        from probly.conformal_scores import lac_score
        from probly.utils.quantile import calculate_quantile

        return float(calculate_quantile(lac_score(probs, labels), ALPHA))

    return {
        "uqlib": lambda: row(ours),
        "torch-uncertainty": lambda: row(tu),
        "MAPIE": lambda: row(mapie),
        "probly": lambda: row(probly),
    }


def _table() -> Any:
    """A classifier of scikit-learn whose probabilities are its rows."""
    from sklearn.base import BaseEstimator, ClassifierMixin

    class Table(ClassifierMixin, BaseEstimator):
        def fit(self, rows: np.ndarray, labels: np.ndarray) -> "Table":
            self.classes_ = np.arange(rows.shape[1])
            return self

        def predict_proba(self, rows: np.ndarray) -> np.ndarray:
            return rows

        def predict(self, rows: np.ndarray) -> np.ndarray:
            return rows.argmax(1)

    return Table().fit(np.zeros((1, 10)), np.zeros(1))


def distances(tables: dict[str, np.ndarray]) -> dict[str, Callable[[], Any]]:
    """Mahalanobis distance to the nearest class: its size, and its rank correlation with the definition."""
    train, labels = tables["train_features"], tables["train_labels"]
    features = tables["features"]
    gaussians = fit_gaussians(moments(train, labels, classes=10))
    exact = nearest_mahalanobis(gaussians, features), nearest_relative_mahalanobis(gaussians, features)

    def row(plain: np.ndarray, relative: np.ndarray) -> dict[str, float]:
        from scipy.stats import spearmanr

        return {
            "mean": float(plain.mean()),
            "rank correlation": float(spearmanr(plain, exact[0]).statistic),
            "mean, relative": float(relative.mean()),
            "rank correlation, relative": float(spearmanr(relative, exact[1]).statistic),
        }

    def ood() -> dict[str, float]:
        from pytorch_ood.detector import RMD, Mahalanobis

        z, y, x = torch.from_numpy(train).float(), torch.from_numpy(labels).long(), torch.from_numpy(features).float()
        found = [kind(None).fit_features(z, y).predict_features(x).numpy() for kind in (Mahalanobis, RMD)]
        return row(*found)

    return {"uqlib": lambda: row(*exact), "pytorch-ood": ood}


def label_quality(tables: dict[str, np.ndarray]) -> dict[str, Callable[[], Any]]:
    """How well a score of the labels finds those that were made wrong, 10 in 100."""
    probs, labels = tables["probs"], tables["labels"].astype(np.int64)
    given = corrupt_labels(labels, uniform_transition(10, 0.1), seed=inputs.SEED)
    wrong = given != labels
    losses = metrics.nll_each(np.log(probs), given)

    def row(quality: np.ndarray) -> dict[str, float]:
        return {
            "AUROC": metrics.auroc(-quality, wrong),
            "AUPR": metrics.aupr(-quality, wrong),
            "greatest difference from exp(-nll_each)": float(np.abs(quality - np.exp(-losses)).max()),
        }

    def cleanlab(method: str) -> dict[str, float]:
        from cleanlab.rank import get_label_quality_scores

        return row(get_label_quality_scores(given, probs, method=method, adjust_pred_probs=False))

    def found(batched: bool) -> dict[str, float]:
        from cleanlab.experimental.label_issues_batched import find_label_issues_batched
        from cleanlab.filter import find_label_issues

        if batched:
            issues = find_label_issues_batched(given, probs, n_jobs=1, verbose=False)
        else:
            issues = np.flatnonzero(find_label_issues(given, probs, n_jobs=1))
        return {"found": len(issues), "of them wrong": float(wrong[issues].mean())}

    return {
        "uqlib, nll_each": lambda: row(np.exp(-losses)),
        "cleanlab, self_confidence": lambda: cleanlab("self_confidence"),
        "cleanlab, normalized_margin": lambda: cleanlab("normalized_margin"),
        "cleanlab, confidence_weighted_entropy": lambda: cleanlab("confidence_weighted_entropy"),
        "cleanlab, find_label_issues": lambda: found(False),
        "cleanlab, find_label_issues_batched": lambda: found(True),
    }


def proper_scores(tables: dict[str, np.ndarray]) -> dict[str, Callable[[], Any]]:
    """Brier score and negative log-likelihood of the same probabilities."""
    probs, labels = tables["probs"], tables["labels"].astype(np.int64)

    def tu() -> dict[str, float]:
        from torch_uncertainty.metrics.classification import BrierScore, CategoricalNLL

        scores = BrierScore(num_classes=10), CategoricalNLL()
        for score in scores:
            score.update(torch.from_numpy(probs), torch.from_numpy(labels))
        return dict(zip(("Brier", "NLL"), (float(score.compute()) for score in scores), strict=True))

    def sklearn() -> dict[str, float]:
        from sklearn.metrics import brier_score_loss, log_loss

        return {"Brier": float(brier_score_loss(labels, probs)), "NLL": float(log_loss(labels, probs))}

    return {
        "uqlib": lambda: {"Brier": metrics.brier(probs, labels), "NLL": metrics.nll(np.log(probs), labels)},
        "torch-uncertainty": tu,
        "scikit-learn": sklearn,
    }


def intervals(tables: dict[str, np.ndarray]) -> dict[str, Callable[[], Any]]:
    """Central intervals of a Gaussian whose spread is half as wide as it should be, for 10^4 draws of it."""
    from scipy.stats import norm

    rng = np.random.default_rng(inputs.SEED)
    truth = rng.standard_normal(10**4)
    mean, spread = np.zeros(10**4), np.full(10**4, 0.5)

    def closed_form() -> dict[str, float]:
        shares = np.linspace(0, 1, 10**5 + 1)
        kept = 2 * norm.cdf(0.5 * norm.ppf((1 + shares) / 2)) - 1
        return {"miscalibration area": float(np.trapezoid(np.abs(kept - shares), shares))}

    def toolbox(**options: Any) -> dict[str, float]:
        from uncertainty_toolbox.metrics_calibration import miscalibration_area

        area = float(miscalibration_area(mean, spread, truth, **options))
        order = rng.permutation(len(truth))
        return {
            "miscalibration area": area,
            "spread over orders": abs(area - float(miscalibration_area(mean, spread, truth[order], **options))),
        }

    return {"closed form": closed_form, "uncertainty-toolbox": toolbox}
