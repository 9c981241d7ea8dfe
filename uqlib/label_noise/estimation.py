"""Transitions estimated from the predictions of a network that learnt from the given labels, and how far they are off."""

import numpy as np
import torch
from jaxtyping import Float

from uqlib.base.arrays import Column, Table
from uqlib.base.checks import check_labels, check_probs
from uqlib.base.options import check_fraction
from uqlib.label_noise.transitions import check_transition


def transition_by_anchors(probs: Table, *, quantile: float | None = None) -> Float[np.ndarray, "c c"]:
    """Row i is the prediction on the image that is most surely of class i, as if it were of this class for certain.

    Args:
        probs: (n, c), predictions on images without augmentation, of a network trained on the given labels.
        quantile: in (0, 1), such as 0.97: for each class the images at or above that quantile of its probability are
            left out first (NumPy's method "higher"), since the surest may be outliers. The released code of Hendrycks et
            al. 2019 does so on CIFAR-10 and takes the plain maximum on CIFAR-100. None leaves out nothing.

    Returns:
        Float64, each row divided by its sum, which rounding leaves near one. Of equal probabilities the first row counts.

    Raises:
        ValueError: if the rows are no probabilities, the quantile is outside (0, 1), or nothing lies below it.

    Source:
        Patrini et al. 2017 (arXiv:1609.03683), section 4.

    Examples:
        >>> from uqlib.label_noise import transition_by_anchors
        >>> transition_by_anchors([[0.75, 0.25], [0.5, 0.5], [0.125, 0.875]])
        array([[0.75 , 0.25 ],
               [0.125, 0.875]])
    """
    table = _rows(probs)
    if quantile is not None:
        quantile = check_fraction(quantile, "quantile", within="(0, 1)")
    return _normalised(table[[_anchor(table[:, k], quantile, k) for k in range(table.shape[1])]])


def transition_by_trusted(probs: Table, labels: Column) -> Float[np.ndarray, "c c"]:
    """Row i is the mean prediction over the trusted examples of class i.

    Args:
        probs: (n, c), predictions on trusted examples without augmentation, of a network trained on the others.
        labels: (n,), their true classes; each class must occur.

    Returns:
        Float64, each row divided by its sum, which rounding leaves near one.

    Raises:
        TypeError: if the labels are no integers.
        ValueError: if the rows are no probabilities, a label is outside [0, c), or a class has no trusted example.

    Source:
        Hendrycks et al. 2018 (arXiv:1802.05300), gold loss correction.

    Examples:
        >>> from uqlib.label_noise import transition_by_trusted
        >>> transition_by_trusted([[0.75, 0.25], [0.5, 0.5], [0.125, 0.875]], [0, 0, 1])
        array([[0.625, 0.375],
               [0.125, 0.875]])
    """
    table = _rows(probs)
    classes = check_labels(labels, table.shape[1], rows=len(table)).cpu().numpy()
    sizes = np.bincount(classes, minlength=table.shape[1])
    if not sizes.all():
        raise ValueError(
            f"every class needs a trusted example; class {int(np.flatnonzero(sizes == 0)[0])} has none among "
            f"{len(classes)}. Draw them class by class, for example by splits.split with labels."
        )
    return _normalised(np.stack([table[classes == k].mean(0) for k in range(table.shape[1])]))


def transition_error(estimated: Table, true: Table) -> float:
    """Total variation distance between the rows, averaged over them, in [0, 1], lower is better.

    It is half the sum of the absolute differences: the share of labels that the estimate puts elsewhere.

    Args:
        estimated, true: (c, c), rows that sum to one.

    Raises:
        ValueError: if one of them is no transition, or they differ in shape.

    Examples:
        >>> from uqlib.label_noise import transition_error
        >>> transition_error([[0.75, 0.25], [0, 1]], [[1, 0], [0, 1]])
        0.125
    """
    first, second = check_transition(estimated, "estimated"), check_transition(true, "true")
    if first.shape != second.shape:
        raise ValueError(f"estimated and true must have one shape (c, c); they have {first.shape} and {second.shape}")
    return float(np.abs(first - second).sum(1).mean() / 2)


def _rows(probs: Table) -> Float[np.ndarray, "n c"]:
    return check_probs(probs).to(device="cpu", dtype=torch.float64).numpy()


def _anchor(column: Float[np.ndarray, " n"], quantile: float | None, k: int) -> int:
    if quantile is None:
        return int(column.argmax())
    edge = np.quantile(column, quantile, method="higher")
    if not (column < edge).any():
        raise ValueError(
            f"no image lies below the {quantile} quantile of class {k}, which is {edge:.6g}: too few images, or all are "
            "alike. Pass quantile=None."
        )
    return int(np.where(column < edge, column, -1.0).argmax())  # a new array: the probabilities stay as they are


def _normalised(matrix: Float[np.ndarray, "c c"]) -> Float[np.ndarray, "c c"]:
    return matrix / matrix.sum(1, keepdims=True)
