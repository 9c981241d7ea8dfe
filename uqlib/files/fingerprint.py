"""The one notion of "the same": a fingerprint of all that a result rests on.

Checkpoints, files of trainings, folders of images, entries of the store and records ask here whether what lies there is
what was asked for. Two things with one fingerprint have the same bytes; whatever has no lasting identity, such as a
plain function, is refused rather than guessed at.
"""

import hashlib
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from uqlib.files.digests import FileDigests
from uqlib.files.whole import cache_folder

if TYPE_CHECKING:  # the command line asks for fingerprints of plain values, and shall not wait for torch
    from torch import Tensor, nn

WATCHED = 2000  # so many files are hashed without a progress bar


def fingerprint(value: Any) -> str:
    """64 hexadecimal digits that change with anything in the value, whatever the order of its keys.

    Args:
        value: plain values, arrays, tensors, networks (all that their state_dict holds), and lists, tuples, mappings and
            dataclasses of them. Whatever has a `fingerprint` attribute says its own.

    Raises:
        TypeError: if a part has no lasting identity, such as a function; the message names it.
    """
    return hashlib.sha256(json.dumps(_plain(value), sort_keys=True).encode()).hexdigest()


def of_array(array: "np.ndarray | Tensor") -> str:
    """sha256 of type, shape and bytes, the same on every device."""
    digest = hashlib.sha256()
    feed(digest, array)
    return digest.hexdigest()


def of_network(model: "nn.Module") -> str:
    """sha256 of the names, types, shapes and bytes of all that a state_dict holds, in the order of the names.

    It says nothing of options without tensors, such as padding: networks that differ only in these need different names.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()


def feed(digest: Any, array: "np.ndarray | Tensor") -> None:
    """Add type, shape and bytes of an array to a running digest."""
    digest.update(f"{str(array.dtype).removeprefix('torch.')} {tuple(array.shape)}".encode())
    digest.update(_bytes(array))


def of_files(paths: Sequence[str | os.PathLike], *, progress: bool = True) -> list[str]:
    """sha256 of the contents of each file, which are read once: see `FileDigests`; one list of known files a folder.

    Raises:
        OSError: if a file cannot be read; the message names it.
    """
    full = [os.path.abspath(path) for path in paths]
    place = cache_folder() / "digests" / f"{fingerprint(os.path.commonpath(full) if full else '')[:16]}.json"
    known = FileDigests(place)
    found = known.read(
        full,
        lambda digests, count: tqdm(
            digests, total=count, unit="file", disable=None if progress and count > WATCHED else True
        ),
    )
    known.keep()
    return found


def _bytes(array: Any) -> Any:
    if _is_torch(array, "Tensor"):
        array = array.detach().cpu().contiguous().reshape(-1)
        return array.view(sys.modules["torch"].uint8).numpy().data if array.numel() else b""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data if array.size else b""


def _plain(value: Any) -> Any:
    """The value with everything in it as JSON knows it; arrays and networks by their digests."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(own := getattr(value, "fingerprint", None), str):
        return own
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {_text(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if _is_torch(value, "Tensor") or (isinstance(value, np.ndarray) and value.dtype != object):
        return {"array": of_array(value)}
    if _is_torch(value, "nn.Module"):
        return {"network": of_network(value)}
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(
        f"{value!r} has no lasting identity, so nothing made with it could be recognised; give plain values, arrays, "
        "networks, or something with a name (losses.Criterion(name, terms))"
    )


def _text(key: Any) -> str:
    if isinstance(key, str):
        return key
    raise TypeError(f"a key of a mapping must be a text; it is {key!r}")


def _is_torch(value: Any, kind: str) -> bool:
    """Whether it is one of torch's; where nobody has imported torch, nothing is."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, {"Tensor": torch.Tensor, "nn.Module": torch.nn.Module}[kind])
