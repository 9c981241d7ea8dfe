"""What enters the library: NumPy arrays or torch tensors, checked once, where the user hands them over.

Every public function takes either kind and computes on the device of its input, in torch. MPS has no
float64, so arrays that live there are brought to the CPU: exact sums are worth a copy.
"""

from collections.abc import Collection, Iterator, Sequence, Sized
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Array = np.ndarray | Tensor
Column = Array | Sequence  # one entry an example, shape (n,)
Table = Array | Sequence  # a row an example, shape (n, c)

PROBS_SLACK = 2e-3  # how far a row of probabilities may sum from 1: what half precision allows


def as_tensor(array: Any) -> Tensor:
    """The same numbers as a torch tensor, without a copy where that is possible (lists are copied)."""
    if not isinstance(array, Tensor):
        kind = type(array).__name__
        try:
            array = np.asarray(array)  # a list becomes float64, as in NumPy; torch would round it to float32
            if not array.dtype.isnative:
                array = array.astype(array.dtype.newbyteorder("="))  # big-endian files; torch reads native bytes alone
            if not array.flags.writeable or min(array.strides, default=0) < 0:
                array = array.copy()  # torch shares memory with NumPy, and must not share a read-only or reversed one
            array = torch.from_numpy(array)
        except (TypeError, ValueError, RuntimeError) as error:
            raise TypeError(f"expected an array of numbers, got {kind}: {error}") from None
    if array.is_complex():
        raise TypeError(f"expected an array of real numbers, got {array.dtype}; pass its .real or its abs()")
    array = array.detach()
    return array.cpu() if array.device.type == "mps" else array


def like(result: Tensor, given: Any) -> Array:
    """The result in the kind that the user gave: NumPy in, NumPy out; a list counts as its first entry."""
    given = given[0] if isinstance(given, list | tuple) else given
    return result if isinstance(given, Tensor) else result.cpu().numpy()


def by_rows(rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of one length side by side, so many rows at a time and at least one."""
    return zip(*(tensor.split(max(1, rows)) for tensor in tensors), strict=True)


def check_choice(name: str, known: Collection[str], what: str) -> str:
    """The name, if it is known; else a ValueError that lists those that are."""
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}; choose from {', '.join(known)}")
    return name


def check_fraction(value: float, name: str, *, within: str = "[0, 1]") -> float:
    """The value, if it lies in [0, 1], (0, 1] or (0, 1), as `within` says."""
    if not (0 < value < 1 or (value == 0 and within[0] == "[") or (value == 1 and within[-1] == "]")):
        raise ValueError(f"{name} must lie in {within}; it is {value}. Percent? Divide by 100.")
    return value


def check_finite(values: Tensor, name: str) -> None:
    """Raise a ValueError that names the first row holding NaN or infinity."""
    if not values.numel() or values.sum().isfinite():
        return  # one pass, no copy, no mask: a sum with a NaN or an infinity in it is never finite
    bad = ~values.isfinite()
    if not bad.any():
        return
    row = tuple(bad.nonzero()[0].tolist())
    where = f"row {row[0]}" + (f", column {row[1]}" if len(row) > 1 else "")
    hint = "Logits that overflowed in half precision do this: recompute them in float32."
    if values[row] == -torch.inf:
        hint += " So does the logarithm of probability 0: pass log(probs.clip(1e-12))."
    raise ValueError(f"{name} must be finite; {where} is {values[row].item()}. {hint}")


def check_confidence(confidence: Any, name: str = "confidence") -> Float[Tensor, " n"]:
    """A finite real score per example, at least one, as a floating tensor."""
    confidence = as_tensor(confidence)
    _check_one_axis(confidence, name)
    return _finite_floats(confidence, name)


def check_mask(mask: Any, name: str = "correct", rows: int | None = None) -> Bool[Tensor, " n"]:
    """A yes or no per example; zeros and ones of any type are taken, anything else is refused."""
    mask = as_tensor(mask)
    _check_one_axis(mask, name)
    check_rows(mask, rows, name)
    if mask.dtype != torch.bool:
        odd = (mask != 0) & (mask != 1)
        if odd.any():
            row = int(odd.nonzero()[0])
            raise ValueError(
                f"{name} must be true or false; row {row} is {mask[row].item()}. "
                "Pass `preds == labels`, or another comparison, not class indices."
            )
        mask = mask != 0
    return mask


def check_labels(labels: Any, classes: int, rows: int | None = None, name: str = "labels") -> Int[Tensor, " n"]:
    """Class indices in [0, classes), as int64."""
    labels = as_tensor(labels)
    if labels.ndim != 1:
        raise ValueError(
            f"{name} must hold one class index a row (n,); their shape is {tuple(labels.shape)}. "
            "One-hot rows? Pass labels.argmax(-1)."
        )
    check_rows(labels, rows, name)
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"{name} must be integers; they are {labels.dtype}. Class indices? Convert them to int64.")
    labels = labels.long()
    outside = (labels < 0) | (labels >= classes)
    if outside.any():
        row = int(outside.nonzero()[0])
        raise ValueError(
            f"{name} must lie in [0, {classes}); row {row} is {labels[row].item()}. "
            f"A {classes}-class head with the labels of another data set?"
        )
    return labels


def check_rows(array: Sized, rows: int | None, name: str) -> None:
    """Raise a ValueError unless there are so many rows; None takes any number."""
    if rows is not None and len(array) != rows:
        raise ValueError(f"{name} has {len(array)} rows where {rows} are expected; both must list the same examples")


def check_logits(logits: Any, name: str = "logits") -> Float[Tensor, "n c"]:
    """Finite rows before the softmax. Rows that are probabilities are refused: a second softmax flattens them."""
    logits = _check_table(logits, name)
    if _look_like_probs(logits[:1]) and _look_like_probs(logits):  # the first row settles nearly every case
        raise ValueError(
            f"{name} look like probabilities: every row lies in [0, 1] and sums to 1. "
            "Pass the network's output before the softmax, or log(probs.clip(1e-12))."
        )
    return logits


def check_members(member_logits: Any) -> list[Float[Tensor, "n c"]]:
    """The logits of each member of an ensemble, at least one and all of one shape, from (m, n, c) or a list of (n, c)."""
    if not len(member_logits):
        raise ValueError("member_logits is empty; at least one member is needed")
    return check_same_shape({f"member {m}": logits for m, logits in enumerate(member_logits)})


def check_same_shape(logits: dict[str, Any]) -> list[Float[Tensor, "n c"]]:
    """The logits of several networks, by name, on the same examples and classes."""
    first, *_ = tables = [check_logits(table, name) for name, table in logits.items()]
    for name, table in zip(logits, tables, strict=True):
        if table.shape != first.shape:
            raise ValueError(
                f"{next(iter(logits))} and {name} must have one shape (n, c), the same examples and classes in the same "
                f"order; they have {tuple(first.shape)} and {tuple(table.shape)}. A background class? Drop its column."
            )
    return tables


def check_probs(probs: Any, name: str = "probs") -> Float[Tensor, "n c"]:
    """Finite, non-negative rows that sum to one (within what half precision allows)."""
    probs = _check_table(probs, name)
    if not _look_like_probs(probs):
        total = probs.sum(-1, dtype=torch.float64)
        bad = ((total - 1).abs() > PROBS_SLACK) | (probs < 0).any(-1)
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"{name} must be non-negative rows that sum to 1; row {row} sums to {total[row].item():.6g} "
            f"with least entry {probs[row].min().item():.6g}. Logits? Pass logits.softmax(-1)."
        )
    return probs


def _look_like_probs(table: Float[Tensor, "n c"]) -> bool:
    if (table < 0).any():
        return False
    return bool(((table.sum(-1, dtype=torch.float64) - 1).abs() <= PROBS_SLACK).all())


def _check_one_axis(array: Tensor, name: str) -> None:
    if array.ndim != 1:
        raise ValueError(f"{name} must have one axis (n,); its shape is {tuple(array.shape)}")


def _check_table(table: Any, name: str) -> Float[Tensor, "n c"]:
    table = as_tensor(table)
    if table.ndim != 2 or table.shape[1] < 2:
        raise ValueError(f"{name} must have shape (n, c) with c >= 2 classes; it is {tuple(table.shape)}")
    return _finite_floats(table, name)


def _finite_floats(values: Tensor, name: str) -> Float[Tensor, "..."]:
    if not len(values):
        raise ValueError(f"{name} is empty; at least one example is needed")
    values = values if values.is_floating_point() else values.double()
    check_finite(values, name)
    return values
