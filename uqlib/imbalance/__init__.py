"""Classes of very different sizes: training sets cut to a long tail, and weights, repeats and synthetic images against it."""

from uqlib.imbalance.long_tail import (
    balanced_weights,
    long_tail_rows,
    long_tail_sizes,
    minority_classes,
    oversampled_rows,
)
from uqlib.imbalance.synthetic import Oversampled, smote

__all__ = [
    "Oversampled",
    "balanced_weights",
    "long_tail_rows",
    "long_tail_sizes",
    "minority_classes",
    "oversampled_rows",
    "smote",
]
