"""Losses of logits and labels, by name: what a classifier's training makes small. Each is a callable that takes logits, labels and the rows of the training set, and gives a scalar.

A factory makes one from its options, all of them are in LOSSES, and `loss` makes one by name.
"""

from uqlib.losses.catalogue import LOSSES, loss
from uqlib.losses.corrections import corrected, forward, weighted
from uqlib.losses.criterion import Criterion, Recorded, entropy_of, surprise
from uqlib.losses.memoryless import cross_entropy, entropy, focal, l1_norm, label_smoothing, poly
from uqlib.losses.optimum import optimal_confidence
from uqlib.losses.outcome_targets import cape_targets
from uqlib.losses.robust import aldr, expected_minimisers, gce, ldr, mae, sce, top_kept
from uqlib.losses.stateful import difficulty, ranking

__all__ = [
    "LOSSES",
    "Criterion",
    "Recorded",
    "aldr",
    "cape_targets",
    "corrected",
    "cross_entropy",
    "difficulty",
    "entropy",
    "entropy_of",
    "expected_minimisers",
    "focal",
    "forward",
    "gce",
    "l1_norm",
    "label_smoothing",
    "ldr",
    "loss",
    "mae",
    "optimal_confidence",
    "poly",
    "ranking",
    "sce",
    "surprise",
    "top_kept",
    "weighted",
]
