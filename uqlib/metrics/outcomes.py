"""Outcomes and measures: what a method said of test examples, and the metrics that judge it, by name."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uqlib.base.arrays import Array, Column, Table, as_tensor
from uqlib.base.checks import check_labels, check_logits, check_probs
from uqlib.base.options import check_choice
from uqlib.metrics import calibration, classification, detection, selective


class Outcome(NamedTuple):
    """What one method said of test examples, and what was right: all that a measure may ask for."""

    preds: Int[Array, " n"]
    probs: Float[Array, "n c"]
    confidence: Float[Array, " n"]  # higher = more certain
    labels: Int[Array, " n"]
    logits: Float[Array, "n c"] | None = None  # whose softmax the probabilities are, where they are known

    @property
    def correct(self) -> Tensor:
        return as_tensor(self.preds) == as_tensor(self.labels)


def outcome_of(logits: Table, labels: Column) -> Outcome:
    """The outcome of a classifier by its logits (n, c): the first of the largest is the prediction, its softmax the confidence.

    Raises:
        ValueError: if the logits are not finite or are probabilities, a label is outside [0, c), or the lengths differ.
    """
    table = check_logits(logits)
    known = check_labels(labels, table.shape[1], rows=len(table), device=table.device)
    table = table.double()
    probs = table.softmax(-1)
    return Outcome(probs.argmax(-1), probs, probs.amax(-1), known, table)


class Judged(NamedTuple):
    """A confidence, and which examples deserve it: enough for the measures that ask for nothing else."""

    confidence: Float[Tensor, " n"]  # higher = more certain
    correct: Bool[Tensor, " n"]

    def if_calibrated(self, generator: torch.Generator) -> "Judged":
        """The same confidences, in [0, 1], of a network that is right as often as it says: what is left of an ECE is chance."""
        return Judged(self.confidence, torch.rand(self.confidence.shape, generator=generator) < self.confidence)


class Measure(NamedTuple):
    """A metric of outcomes: the statistic, the arrays that it takes of one (None where it has nothing to say), which way is better."""

    statistic: Callable[..., Any]
    arrays: Callable[[Any], Any]  # a tuple, or None
    higher_is_better: bool
    name: str
    needs_both: bool = False  # whether it has no value where all are right, or none, by its second array


def _hits(outcome: Any) -> tuple[Tensor, ...]:
    right = as_tensor(outcome.correct).long()
    return right, torch.ones_like(right)


def _predicted(outcome: Any) -> tuple[Tensor, ...]:
    return as_tensor(outcome.preds), outcome.labels


def _judged(outcome: Any) -> tuple[Tensor, ...]:
    """Confidence, and whether it was right: what most metrics take."""
    return as_tensor(outcome.confidence), as_tensor(outcome.correct)


def nll_of(outcome: Any) -> Float[Tensor, " n"]:
    """The NLL of each example, by the logits where the outcome knows them; of probabilities what is below 1e-300 counts as that."""
    if (logits := getattr(outcome, "logits", None)) is not None:
        return as_tensor(classification.nll_each(logits, outcome.labels))
    probs = check_probs(outcome.probs)
    labels = check_labels(outcome.labels, probs.shape[1], rows=len(probs), device=probs.device)
    return -probs.double().gather(1, labels[:, None])[:, 0].clamp_min(1e-300).log()


def _surprises(outcome: Any) -> tuple[Tensor, ...]:
    """A value an example: its mean and its draws then ask for no table any more."""
    return (nll_of(outcome),)


def _squares(outcome: Any) -> tuple[Tensor, ...]:
    return (as_tensor(classification.brier_each(outcome.probs, outcome.labels)),)


MEASURES: dict[str, Measure] = {
    "accuracy": Measure(classification.accuracy, _hits, True, "accuracy"),
    "macro_f1": Measure(classification.macro_f1, _predicted, True, "macro F1"),
    "auroc": Measure(detection.correctness_auroc, _judged, True, "AUROC", True),
    "aupr": Measure(detection.aupr, _judged, True, "AUPR", True),  # the correct are positive, as in `metrics.tasks`
    "fpr95": Measure(partial(detection.fpr_at_tpr, tpr=0.95), _judged, False, "FPR-95", True),
    "aurc": Measure(selective.aurc, _judged, False, "AURC"),
    "augrc": Measure(selective.augrc, _judged, False, "AUGRC"),
    "sac98": Measure(partial(selective.selective_accuracy_coverage, accuracy=0.98), _judged, True, "SAC@98"),
    "sac99": Measure(partial(selective.selective_accuracy_coverage, accuracy=0.99), _judged, True, "SAC@99"),
    "nll": Measure(classification.average, _surprises, False, "NLL"),
    "brier": Measure(classification.average, _squares, False, "Brier"),
    "ece": Measure(calibration.ece, _judged, False, "ECE"),  # 15 bins of equal width: what ECE means if nothing is said
    "ece_mass": Measure(partial(calibration.ece, by="mass"), _judged, False, "ECE (equal mass)"),  # Cui et al. 2023
}


def measure(name: str) -> Measure:
    """The measure of that name in MEASURES."""
    return MEASURES[check_choice(name, MEASURES, "measure")]


def check_outcomes(outcomes: Any) -> None:
    """Refuse what is no dictionary of lists of outcomes: each of these has more than one array."""
    if not isinstance(outcomes, Mapping):
        raise TypeError(f"outcomes must be a dictionary of lists, {{name: [outcome]}}; it is {type(outcomes).__name__}")
    for name, each in outcomes.items():
        if hasattr(each, "_fields") or not isinstance(each, Sequence) or isinstance(each, str):
            raise TypeError(
                f"outcomes[{name!r}] must be a list with one outcome a repetition; it is {type(each).__name__}. "
                f"Pass {{{name!r}: [outcome]}}"
            )
    if not outcomes or not all(map(len, outcomes.values())):
        raise ValueError(
            f"outcomes must have a variant, and each of them a repetition; they are {dict(outcomes)!r:.80}"
        )


def measures_of(measures: Any) -> dict[Any, Measure]:
    """The measures, by the names that they are given."""
    if isinstance(measures, str | Measure):
        shown = repr(measures) if isinstance(measures, str) else "a Measure"
        raise TypeError(f"measures must be a list of names, or Measures by name; it is {shown} alone. Pass [{shown}]")
    chosen = measures if isinstance(measures, Mapping) else {name: name for name in measures}
    if not chosen:
        raise ValueError("measures is empty; pass names such as ['accuracy', 'aurc']")
    return {name: each if isinstance(each, Measure) else measure(each) for name, each in chosen.items()}


def value_of(each: Measure, arrays: tuple[Any, ...], undefined: bool) -> float:
    """The measure of all examples; NaN where it may have no value, as one of a ranking where all are right."""
    if undefined and each.needs_both and len(as_tensor(arrays[1]).unique()) < 2:
        return math.nan
    return float(each.statistic(*arrays))
