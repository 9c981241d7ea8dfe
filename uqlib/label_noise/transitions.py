"""Transitions between true and given labels: uniform, to one other class, within a superclass; labels drawn by them."""

import numpy as np
import torch
from jaxtyping import Float, Int

from uqlib.base.arrays import Column, Table, as_tensor
from uqlib.base.checks import check_labels
from uqlib.base.options import check_fraction, check_whole
from uqlib.base.splits import uniform_numbers

SLACK = 1e-6  # how far a row may sum from one


def uniform_transition(classes: int, strength: float) -> Float[np.ndarray, "c c"]:
    """A share of the labels is drawn anew from all classes, the true one among them: (1 - s) I + s / c.

    So the share of wrong labels is s (1 - 1/c), and at s = 1 the labels say nothing.

    Args:
        classes: how many, at least 2.
        strength: s, in [0, 1].

    Raises:
        ValueError: if there are fewer than two classes, or the strength is outside [0, 1].

    Source:
        Hendrycks et al. 2019 (arXiv:1901.09960), label corruption.

    Examples:
        >>> from uqlib.label_noise import uniform_transition
        >>> uniform_transition(2, 0.5)
        array([[0.75, 0.25],
               [0.25, 0.75]])
    """
    classes, strength = check_whole(classes, "classes", least=2), check_fraction(strength, "strength")
    return (1 - strength) * np.eye(classes) + strength / classes


def flip_transition(classes: int, strength: float, *, seed: int) -> Float[np.ndarray, "c c"]:
    """Each class has one other class, drawn by the seed, that takes a share of its labels.

    Args:
        classes: how many, at least 2.
        strength: the share of wrong labels, in [0, 1].
        seed: of the draw, 0 or larger. Two classes may draw the same other one.

    Raises:
        ValueError: if there are fewer than two classes, the strength is outside [0, 1], or the seed is negative.

    Source:
        The corruption "flip" of the code of Hendrycks et al. 2019, unused in their tables.

    Examples:
        >>> from uqlib.label_noise import flip_transition
        >>> flip_transition(2, 0.25, seed=0)
        array([[0.75, 0.25],
               [0.25, 0.75]])
    """
    classes, strength = check_whole(classes, "classes", least=2), check_fraction(strength, "strength")
    step = 1 + (uniform_numbers(classes, seed=seed) * (classes - 1)).astype(np.int64)  # 1 to c - 1, so never itself
    transition = (1 - strength) * np.eye(classes)
    transition[np.arange(classes), (np.arange(classes) + step) % classes] = strength
    return transition


def hierarchical_transition(groups: Column, strength: float) -> Float[np.ndarray, "c c"]:
    """A share of the labels goes to the other classes of the same superclass, evenly.

    Args:
        groups: (c,), the number of the superclass of each class.
        strength: the share of wrong labels, in [0, 1].

    Raises:
        TypeError: if the groups are no integers.
        ValueError: if a class is alone in its group, or the strength is outside [0, 1].

    Source:
        The corruption "hierarchical" of the code of Hendrycks et al. 2019 for CIFAR-100, unused in their tables.

    Examples:
        >>> from uqlib.label_noise import hierarchical_transition
        >>> hierarchical_transition([0, 0, 0, 1, 1], 0.5)
        array([[0.5 , 0.25, 0.25, 0.  , 0.  ],
               [0.25, 0.5 , 0.25, 0.  , 0.  ],
               [0.25, 0.25, 0.5 , 0.  , 0.  ],
               [0.  , 0.  , 0.  , 0.5 , 0.5 ],
               [0.  , 0.  , 0.  , 0.5 , 0.5 ]])
    """
    strength, group = check_fraction(strength, "strength"), check_labels(groups, None, name="groups").cpu().numpy()
    others = (group[:, None] == group) & ~np.eye(len(group), dtype=bool)
    count = others.sum(1)
    if not count.all():
        alone = int(np.flatnonzero(count == 0)[0])
        raise ValueError(
            f"each class needs another one in its group; class {alone} is alone in group {group[alone]}. "
            "Give it the group of the classes it is taken for."
        )
    return (1 - strength) * np.eye(len(group)) + strength * others / count[:, None]


def corrupt_labels(labels: Column, transition: Table, *, seed: int) -> Int[np.ndarray, " n"]:
    """Each label drawn once, from the row of its class: the same on every machine and NumPy version.

    Args:
        labels: (n,), true classes in [0, c).
        transition: (c, c), rows that sum to one.
        seed: of the draw, 0 or larger.

    Returns:
        The given labels, int64.

    Raises:
        TypeError: if the labels are no integers.
        ValueError: if a label is outside [0, c), the transition is none, or the seed is negative.

    Source:
        Hendrycks et al. 2019 (arXiv:1901.09960), label corruption.

    Examples:
        >>> from uqlib.label_noise import corrupt_labels, uniform_transition
        >>> corrupt_labels([0, 0, 0, 1, 1, 1], uniform_transition(2, 0.5), seed=1)
        array([0, 1, 0, 1, 1, 1])
    """
    matrix = check_transition(transition)
    classes = check_labels(labels, len(matrix)).cpu().numpy()
    below = np.cumsum(matrix, 1)
    below /= below[:, -1:]  # the last is one, above every number that is drawn
    drawn = uniform_numbers(len(classes), seed=seed)
    given = np.empty_like(classes)
    for k, edges in enumerate(below):
        given[classes == k] = np.searchsorted(edges, drawn[classes == k], side="right")
    return given


def check_transition(transition: Table, name: str = "transition") -> Float[np.ndarray, "c c"]:
    """The transition as float64 NumPy, if it is one: square, finite, >= 0, rows that sum to one within 1e-6.

    Raises:
        TypeError: if these are no numbers.
        ValueError: if it is none; the message names the row and its sum, or the entry.

    Examples:
        >>> from uqlib.label_noise import check_transition
        >>> check_transition([[1, 0], [0.5, 0.5]])
        array([[1. , 0. ],
               [0.5, 0.5]])
    """
    matrix = as_tensor(transition, name).to(device="cpu", dtype=torch.float64).numpy()
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or len(matrix) < 2:
        raise ValueError(f"{name} must have shape (c, c) with c >= 2 classes; it is {matrix.shape}")
    bad = ~(np.isfinite(matrix) & (matrix >= 0))
    if bad.any():
        row, column = (int(k) for k in np.argwhere(bad)[0])
        raise ValueError(f"{name} must be finite and >= 0; row {row}, column {column} is {matrix[row, column]}")
    off = np.abs(matrix.sum(1) - 1) > SLACK
    if off.any():
        row = int(np.flatnonzero(off)[0])
        hint = "Counts, or rounded? Divide each row by its sum."
        if np.allclose(matrix.sum(0), 1, atol=SLACK):
            hint = "Its columns do: rows are true classes, so pass its transpose."
        raise ValueError(f"every row of {name} must sum to one; row {row} sums to {matrix[row].sum():.6g}. {hint}")
    return matrix
