"""What enters the library: NumPy arrays or torch tensors, checked once, where the user hands them over.

Every public function takes either kind, and lists, pandas and masked arrays beside, and computes on the device of its
first array, in torch; the others are brought there. MPS has no float64, so arrays that live there are brought to the
CPU: exact sums are worth a copy. Each kind of input gives the numbers that it holds, or an error that names the argument.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

Array = np.ndarray | Tensor
Column = Array | Sequence  # one entry an example, shape (n,)
Table = Array | Sequence  # a row an example, shape (n, c)
UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)  # torch stores them, and computes little with them


def as_tensor(array: Any, name: str = "array") -> Tensor:
    """The same numbers as a torch tensor, without a copy where that is possible (lists are copied).

    Unsigned integers of more than 8 bits become int64, floats of 8 bits float32.

    Args:
        array: any array of real numbers.
        name: what errors call it.

    Raises:
        TypeError: if these are no real numbers.
        ValueError: if an entry is masked or missing, or a whole number beyond int64.
    """
    tensor = array if isinstance(array, Tensor) else _from_elsewhere(array, name)
    if tensor.is_complex():
        raise TypeError(f"{name} must be an array of real numbers; it is {tensor.dtype}. Pass its .real or its abs()")
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise TypeError(
            f"{name} must be a dense array of numbers; it is {tensor.layout}, {tensor.dtype} on {tensor.device}. "
            "Pass its .to_dense() or .dequantize()"
        )
    tensor = tensor.detach()
    tensor = tensor.cpu() if tensor.device.type == "mps" else tensor
    if tensor.dtype in UNSIGNED:
        if tensor.dtype == torch.uint64 and (over := tensor.view(torch.int64) < 0).any():
            where = tuple(over.nonzero()[0].tolist())
            raise ValueError(f"{name} must fit into int64; {_place(where)} is {tensor[where].item()}")
        return tensor.long()
    return tensor.float() if tensor.is_floating_point() and tensor.itemsize == 1 else tensor


def _from_elsewhere(array: Any, name: str) -> Tensor:
    """A tensor of what is none."""
    kind = type(array).__name__
    try:
        if isinstance(array, list | tuple) and len(array) and not isinstance(array[0], int | float | np.number):
            if all(isinstance(entry, Tensor) for entry in array):
                return torch.stack([as_tensor(entry, name) for entry in array])
            if any(isinstance(entry, np.ma.MaskedArray) for entry in array):
                array = np.ma.array(array)
        if hasattr(array, "isna") and hasattr(array, "to_numpy"):
            array = _from_pandas(array, name)
        if isinstance(array, np.ma.MaskedArray):
            _refuse_missing(np.ma.getmaskarray(array), name, "masked")
        array = np.asarray(array)  # a list becomes float64, as in NumPy; torch would round it to float32
        if array.dtype.kind in "OUST":
            raise TypeError(_no_numbers(array))
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))  # big-endian files; torch reads native bytes alone
        if not array.flags.writeable or min(array.strides, default=0) < 0:
            array = array.copy()  # torch shares memory with NumPy, and must not share a read-only or reversed one
        return torch.from_numpy(array)
    except (TypeError, RuntimeError, UserWarning) as error:
        raise TypeError(f"{name} must be an array of numbers; it is {kind}: {error}") from None
    except ValueError as error:
        if str(error).startswith(name):
            raise
        raise TypeError(f"{name} must be an array of numbers; it is {kind}: {error}") from None


def _from_pandas(frame: Any, name: str) -> np.ndarray:
    """What a Series, a DataFrame, an index or an array of pandas holds; pandas itself is not imported."""
    kinds = list(frame.dtypes) if frame.ndim > 1 else [frame.dtype]
    plain = len({kind.kind for kind in kinds}) == 1 and all(isinstance(kind, np.dtype) for kind in kinds)
    if plain or not all(kind.kind in "biuf" for kind in kinds):
        return np.asarray(frame)
    _refuse_missing(np.asarray(frame.isna()), name, "<NA>")
    letters = {kind.kind for kind in kinds}
    wanted = np.float64 if "f" in letters else {"b": bool, "u": np.uint64}.get("".join(letters), np.int64)
    return frame.to_numpy(dtype=wanted)


def _refuse_missing(missing: np.ndarray, name: str, what: str) -> None:
    if missing.any():
        where = tuple(np.argwhere(missing)[0].tolist())
        raise ValueError(f"{name} must have no missing entries; {_place(where)} is {what}. Drop that row everywhere.")


def _no_numbers(array: np.ndarray) -> str:
    """What entries that are no numbers are, and what to do."""
    flat = array.reshape(-1)
    odd = next((k for k, entry in enumerate(flat) if not isinstance(entry, int | float | np.number)), None)
    if odd is None:
        return "its entries are Python objects. Convert them by np.asarray(..., dtype=np.float64), or np.int64"
    if isinstance(flat[odd], str | bytes):
        return (
            f"entry {odd} is {flat[odd]!s:.40}. Names of classes? np.unique(labels, return_inverse=True)[1] numbers them; "
            "names in two arrays are numbered together, np.unique([preds, labels], return_inverse=True)[1]. "
            "Numbers as text? np.asarray(..., dtype=np.float64)"
        )
    return f"entry {odd} is {_shown(flat[odd])}"


def _place(where: tuple[int, ...]) -> str:
    """The place of an entry, as messages say it."""
    if not where:
        return "it"
    return f"row {where[0]}" + "".join(f", column {column}" for column in where[1:])


def like(result: Tensor, given: Any) -> Array:
    """The result in the kind that the user gave: NumPy in, NumPy out; a list counts as its first entry."""
    given = given[0] if isinstance(given, list | tuple) else given
    return result if isinstance(given, Tensor) else result.cpu().numpy()


def by_rows(rows: int, *tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Tensors of one length side by side, so many rows at a time and at least one."""
    return zip(*(tensor.split(max(1, rows)) for tensor in tensors), strict=True)


def add_up(tensors: Iterable[Tensor]) -> Tensor:
    """The sum of at least one tensor, in their order."""
    total = sum(tensors)
    assert isinstance(total, Tensor)  # the sum of none is the number 0
    return total


def _shown(value: Any) -> str:
    """A value and its type, short enough for a message."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
