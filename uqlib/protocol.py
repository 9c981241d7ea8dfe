"""The protocol of a comparison: repeated splits of one test set, methods compared in pairs, one interval for both.

The weights of a duo, like any temperature, are fitted on a part of the examples and judged on the rest. One such
split is an accident; so the split is drawn several times, and every difference between two methods is taken on the same
examples.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from uqlib.arrays import check_choice
from uqlib.duos import Decision
from uqlib.metrics import bootstrap, calibration, classification, detection, selective
from uqlib.metrics.bootstrap import Interval


class Trial(NamedTuple):
    """One split: the labels of its test part, and what each method decided there."""

    labels: Tensor
    decisions: Mapping[str, Decision]


class Measure(NamedTuple):
    """A metric of decisions: the statistic, the arrays that it takes, and which way is better."""

    statistic: Callable[..., float]
    arrays: Callable[[Decision, Tensor], tuple[Tensor, ...]]
    higher_is_better: bool
    name: str


def _predicted(decision: Decision, labels: Tensor) -> tuple[Tensor, ...]:
    return decision.preds, labels


def _ranked(decision: Decision, labels: Tensor) -> tuple[Tensor, ...]:
    return decision.confidence, decision.preds == labels


def _log_probs(decision: Decision, labels: Tensor) -> tuple[Tensor, ...]:
    return decision.probs.clamp_min(1e-300).log(), labels


MEASURES: dict[str, Measure] = {
    "accuracy": Measure(classification.accuracy, _predicted, True, "accuracy"),
    "macro_f1": Measure(classification.macro_f1, _predicted, True, "macro F1"),
    "auroc": Measure(detection.correctness_auroc, _ranked, True, "AUROC"),
    "aurc": Measure(selective.aurc, _ranked, False, "AURC"),
    "augrc": Measure(selective.augrc, _ranked, False, "AUGRC"),
    "sac98": Measure(partial(selective.selective_accuracy_coverage, accuracy=0.98), _ranked, True, "SAC@98"),
    "nll": Measure(classification.nll, _log_probs, False, "NLL"),
    "brier": Measure(classification.brier, lambda d, labels: (d.probs, labels), False, "Brier"),
    "ece": Measure(calibration.ece, _ranked, False, "ECE"),
}


def measure(name: str) -> Measure:
    """The measure of that name in MEASURES."""
    return MEASURES[check_choice(name, MEASURES, "measure")]


def mean_over_trials(name: str, trials: Sequence[Trial], method: str) -> float:
    """A measure of one method, averaged over the splits."""
    m = measure(name)
    values = [m.statistic(*m.arrays(trial.decisions[method], trial.labels)) for trial in trials]
    return sum(values) / len(values)


def difference(
    name: str,
    trials: Sequence[Trial],
    first: str,
    second: str,
    *,
    draws: int = 1000,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> Interval:
    """first minus second in a measure, both on the same resampled examples of each split; see `bootstrap.pool`."""
    m = measure(name)
    pairs = [tuple(m.arrays(trial.decisions[method], trial.labels) for method in (first, second)) for trial in trials]
    values = [float(m.statistic(*one)) - float(m.statistic(*other)) for one, other in pairs]
    samples = [
        bootstrap.resample_difference(m.statistic, one, other, draws=draws, generator=generator) for one, other in pairs
    ]
    return bootstrap.pool(values, samples, level=level)
