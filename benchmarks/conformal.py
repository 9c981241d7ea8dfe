"""Prediction sets of uqlib beside torch-uncertainty and MAPIE, in one process: whether they agree, then how long they take.

    pip install -e ".[bench]" mapie
    python benchmarks/conformal.py --threads 1

10^4 held-out and 10^4 new examples of 1000 classes, probabilities in float32, 90 % promised, no random numbers. Calibration
finds the threshold, prediction all sets. torch-uncertainty gets the probabilities as a network that gives their logarithm;
by default its thr and aps first fit a temperature, which is timed apart. Contestants take turns, 3 runs each, and the
median counts. The agreement is the share of equal entries of the sets; torch-uncertainty interpolates between two ranks,
where uqlib and MAPIE take the one that keeps the promise, so its sets may be a little smaller.
"""

import argparse
import statistics
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from mapie.classification import SplitConformalClassifier
from mapie.conformity_scores import RAPSConformityScore
from sklearn.base import BaseEstimator, ClassifierMixin
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch_uncertainty.post_processing import ConformalClsAPS, ConformalClsRAPS, ConformalClsTHR

from uqlib.calibrate import fit_prediction_sets

THEIRS = {"thr": ConformalClsTHR, "aps": ConformalClsAPS, "raps": ConformalClsRAPS}


class Given(ClassifierMixin, BaseEstimator):
    """A classifier whose probabilities are its input."""

    def __init__(self, classes: int = 2):
        self.classes = classes
        self.classes_ = np.arange(classes)

    def fit(self, x: np.ndarray, y: np.ndarray) -> "Given":
        return self

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def predict_proba(self, x: np.ndarray) -> np.ndarray:
        return x

    def predict(self, x: np.ndarray) -> np.ndarray:
        return x.argmax(-1)


def examples(n: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits twice as large as those that drew the labels."""
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(n, classes, generator=generator)
    labels = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
    return 2 * logits, labels


def of_torch_uncertainty(score: str, logits: torch.Tensor, labels: torch.Tensor, temperature: bool) -> Any:
    options = {} if score == "thr" else {"randomized": False}
    fit = THEIRS[score](alpha=0.1, model=nn.Identity(), enable_ts=temperature, **options)
    fit.fit(DataLoader(TensorDataset(logits, labels), batch_size=1000))
    return fit


def of_mapie(score: str, probs: np.ndarray, labels: np.ndarray) -> Any:
    kind = {"thr": "lac", "aps": "aps", "raps": RAPSConformityScore(size_raps=0.2)}[score]
    fit = SplitConformalClassifier(Given(probs.shape[1]), confidence_level=0.9, conformity_score=kind, prefit=True)
    return fit.conformalize(probs, labels)


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    found = run()
    return time.process_time() - began, found


def contestants(score: str, held: torch.Tensor, labels: torch.Tensor, new: torch.Tensor) -> dict[str, tuple]:
    """Calibration and prediction by name, and how many runs."""
    probs, others = held.softmax(-1), new.softmax(-1)
    double = held.double().softmax(-1).numpy(), new.double().softmax(-1).numpy()
    found = {
        "uqlib": (
            lambda: fit_prediction_sets(probs, labels, score=score),
            lambda fit: fit.sets(others, never_empty=True),
            3,
        ),
        "torch-uncertainty, no temperature": (
            lambda: of_torch_uncertainty(score, held, labels, False),
            lambda fit: fit.conformal(new) > 0,
            3,
        ),
        "torch-uncertainty, with temperature": (lambda: of_torch_uncertainty(score, held, labels, True), None, 1),
    }
    if score != "raps":  # MAPIE's RAPS chooses its penalty on a part of its own
        # without its last class in part, "include_last_label=True" is the set of aps without random numbers
        options = {"conformity_score_params": {"include_last_label": True}} if score == "aps" else {}
        found["MAPIE"] = (
            lambda: of_mapie(score, double[0], labels.numpy()),
            lambda fit: torch.from_numpy(fit.predict_set(double[1], **options)[1][..., 0]),
            1,
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")
    print({name: version(name) for name in ("torch", "torch-uncertainty", "mapie")}, flush=True)
    logits, labels = examples(2 * args.rows, args.classes)
    held, new = logits.split(args.rows)
    print(
        "| score | library | calibration | ratio | all sets | ratio | equal entries | mean size |\n" + 8 * "|---" + "|"
    )
    for score in THEIRS:
        runs = contestants(score, held, labels[: args.rows], new)
        times: dict[str, list] = {name: [] for name in runs}
        sets: dict[str, torch.Tensor] = {}
        for turn in range(3):
            for name, (calibrate, predict, repeats) in runs.items():
                if turn < repeats:
                    calibration, fit = seconds(calibrate)
                    prediction, found = seconds(lambda: predict(fit)) if predict else (float("nan"), None)  # noqa: B023
                    times[name].append((calibration, prediction))
                    sets[name] = found
        first = [statistics.median(column) for column in zip(*times["uqlib"], strict=True)]
        for name, taken in times.items():
            a, b = (statistics.median(column) for column in zip(*taken, strict=True))
            found = sets[name]
            told = (
                ""
                if found is None
                else f"{(found == sets['uqlib']).double().mean():.6f} | {found.sum(-1).double().mean():.2f}"
            )
            print(
                f"| {score} | {name} | {a:.3g} s | {a / first[0]:.0f} | {b:.3g} s | {b / first[1]:.1f} | {told} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
