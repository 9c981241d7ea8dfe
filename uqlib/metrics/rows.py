"""Which rows count, and how much: rows to leave out, weights that balance classes, outputs of other shapes as rows."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from uqlib.base.arrays import Array, Column, as_tensor, like
from uqlib.base.checks import check_finite, check_labels, check_rows, check_whole_column
from uqlib.base.options import check_choice, check_whole

KINDS = ("binary", "multilabel", "dense")


class Rows(NamedTuple):
    """Outputs and labels with a row each, as every metric takes them, and where each row comes from."""

    outputs: Float[Array, "m c"]
    labels: Int[Array, " m"]
    source: Int[Array, " m"]  # the number of the image (or example): pass it as `cluster` to intervals
    place: Int[Array, " m"]  # the number of the label (multilabel) or of the pixel (dense); 0 of a binary output


def rows_that_count(
    arrays: Sequence[Column], weights: Column | None, ignore: int | None
) -> tuple[Sequence[Column], Column | None]:
    """The arrays, of which the last are labels, and the weights, without the rows whose label is to be ignored."""
    if ignore is None:
        return arrays, weights
    kept = kept_rows(arrays[-1], ignore)
    tensors = [as_tensor(array) for array in (*arrays, *([] if weights is None else [weights]))]
    for tensor in tensors:
        check_rows(tensor, len(kept), "an array beside labels")
    tensors = [tensor[kept.to(tensor.device)] for tensor in tensors]
    return tensors[: len(arrays)], None if weights is None else tensors[-1]


def numbered(column: Any, rows: int | None, name: str) -> tuple[list[Any], Int[Tensor, " n"]]:
    """The distinct entries of a column, in order, and which of them each row has: numbers, or names such as strings."""
    array = _names(column, name) if _is_named(column) else as_tensor(column, name).cpu()
    if isinstance(array, Tensor):
        array = (array.float() if array.dtype == torch.bfloat16 else array).numpy()
    array = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name} must have one entry an example (n,), at least one; its shape is {array.shape}")
    check_rows(array, rows, name)
    missing = [k for k, each in enumerate(array) if _is_missing(each)] if array.dtype.kind in "Of" else []
    if missing:
        raise ValueError(
            f"{name} must have no missing entries; row {missing[0]} is {array[missing[0]]}. Drop that row everywhere."
        )
    try:
        values, numbers = np.unique(array, return_inverse=True)
    except TypeError:
        raise TypeError(f"{name} must be of one type, all numbers or all strings; pass {name}.astype(str)") from None
    return values.tolist(), torch.from_numpy(numbers.reshape(-1))


def _names(column: Any, name: str) -> np.ndarray:
    """What a column of names holds; those of a list as they are, for NumPy would write numbers and NaN out among strings."""
    if isinstance(column, np.ma.MaskedArray) and (masked := np.ma.getmaskarray(column)).any():
        row = int(np.argwhere(masked)[0][0])
        raise ValueError(f"{name} must have no missing entries; row {row} is masked. Drop that row everywhere.")
    return np.asarray(column, dtype=object if isinstance(column, list | tuple) else None)


def _is_missing(entry: Any) -> bool:
    try:
        return entry is None or bool(entry != entry)
    except TypeError:  # the <NA> of pandas, which compares as neither
        return True


def _is_named(column: Any) -> bool:
    """Whether the entries are names or other objects, not numbers."""
    if isinstance(column, Tensor):
        return False
    kind = getattr(column, "dtype", None)
    if kind is None:
        return isinstance(column, list | tuple) and any(isinstance(entry, str) or entry is None for entry in column)
    return getattr(kind, "kind", "O") in "OUST"


def kept_rows(labels: Column, ignore: int) -> Tensor:
    """Whether each label is another than the one to be ignored, (n,); at least one is."""
    kept = check_whole_column(labels) != check_whole(ignore, "ignore")
    if not kept.any():
        raise ValueError(f"every one of the {len(kept)} labels is {ignore}, which is to be ignored; nothing is left")
    return kept


def balancing_weights(labels: Column) -> Float[Array, " n"]:
    """Weights under which every class that occurs counts the same: n / (classes x examples of its class), mean one.

    A metric with such weights is that of a test set in which all classes are equally frequent: of accuracy it is the
    balanced accuracy, of aurc and augrc their balanced variants. As losses, `augrc(rank_losses(confidence,
    balancing_weights(labels) * wrong))`, they leave the coverage a share of the examples: the AUGRC-BA of fd-shifts.

    Args:
        labels: (n,) classes, integers of any size, 0 or larger.

    Raises:
        ValueError: if there is no label, or one marks a row to leave out.
        TypeError: if they are not of integer type.

    Examples:
        >>> from uqlib.metrics import accuracy, balancing_weights
        >>> labels = [0, 0, 0, 1]
        >>> accuracy([0, 0, 0, 0], labels, weights=balancing_weights(labels))  # all of one class, none of the other
        0.5
    """
    _, numbers, sizes = check_labels(labels, None).unique(return_inverse=True, return_counts=True)
    return like(len(numbers) / (len(sizes) * sizes[numbers].double()), labels)


def flatten(outputs: Array, labels: Array, kind: str, *, logits: bool = False, ignore: int | None = None) -> Rows:
    """Outputs of another shape as rows (m, c) with a label each, in the order of the labels in memory.

    "binary": one column of P(y = 1), (n,) or (n, 1), and labels 0 or 1; it becomes [1 - p, p]. With `logits` it is one of
    logits z and becomes [0, z], which has the same softmax. "multilabel": such a number for each label, (n, k), with labels (n, k): every
    entry is a row of two classes. "dense": logits or probabilities of pixels, (n, c, h, w) or with any axes after the
    classes, with labels (n, h, w).

    Rows of one image are no independent examples: give `source` to `interval` as its cluster. Memory: a copy of the
    outputs, twice as large where a column becomes two.

    Args:
        outputs: of one of the kinds.
        labels: integers, or booleans for two classes.
        kind: "binary", "multilabel" or "dense".
        logits: whether a binary or multilabel output is a logit, not a probability. Dense outputs stay what they are.
        ignore: the label of rows to leave out, such as 255 of a border.

    Raises:
        ValueError: if the shapes do not belong together, an output is not finite, or a label is no class.

    Examples:
        >>> import numpy as np
        >>> from uqlib.metrics import accuracy, flatten
        >>> logits, labels = np.zeros((2, 3, 4, 4)), np.zeros((2, 4, 4), int)  # two images of 16 pixels, three classes
        >>> rows = flatten(logits, labels, "dense")
        >>> rows.outputs.shape, accuracy(rows.outputs.argmax(1), rows.labels)
        ((32, 3), 1.0)
    """
    kind = check_choice(kind, KINDS, "kind")
    values, truth = as_tensor(outputs, "outputs"), as_tensor(labels, "labels")
    truth = truth.long() if truth.dtype == torch.bool else truth
    values = values if values.is_floating_point() else values.double()
    check_finite(values, "outputs")
    if kind == "dense":
        shape = (values.shape[0], *values.shape[2:]) if values.ndim > 2 else None
        if shape is None or truth.shape != shape:
            raise ValueError(
                f"outputs must have shape (n, c, ...) and labels (n, ...), the same without the classes; they are "
                f"{tuple(values.shape)} and {tuple(truth.shape)}"
            )
        table = values.movedim(1, -1).reshape(-1, values.shape[1])
    else:
        values = values[:, 0] if kind == "binary" and values.ndim == 2 and values.shape[1] == 1 else values
        truth = truth[:, 0] if kind == "binary" and truth.ndim == 2 and truth.shape[1] == 1 else truth
        axes = 1 if kind == "binary" else 2
        if values.ndim != axes or values.shape != truth.shape:
            wanted = "(n,) or (n, 1)" if kind == "binary" else "(n, k)"
            raise ValueError(
                f"outputs and labels must both have shape {wanted}; they are {tuple(values.shape)} and {tuple(truth.shape)}"
            )
        table = _two_columns(values.reshape(-1), logits)
    if not len(table):
        raise ValueError("outputs are empty; at least one example is needed")
    flat = truth.reshape(-1)
    number = torch.arange(len(flat), device=flat.device)
    each = len(flat) // len(truth)
    kept = torch.ones_like(flat, dtype=torch.bool) if ignore is None else kept_rows(flat, ignore)
    table = table if kept.all() else table[kept.to(table.device)]
    flat, number = flat[kept], number[kept]
    flat = check_labels(flat, table.shape[1])
    return Rows(*(like(part, outputs) for part in (table, flat, number // each, number % each)))


def _two_columns(values: Float[Tensor, " m"], logits: bool) -> Float[Tensor, "m 2"]:
    """Both classes of a binary output."""
    if logits:
        return torch.stack([torch.zeros_like(values), values], 1)
    outside = (values < 0) | (values > 1)
    if outside.any():
        row = int(outside.nonzero()[0])
        raise ValueError(
            f"outputs must be probabilities in [0, 1]; entry {row} is {values[row].item():.9g}. Logits? Pass logits=True."
        )
    return torch.stack([1 - values, values], 1)
