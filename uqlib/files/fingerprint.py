"""The one notion of "the same": a fingerprint of all that a result rests on.

Checkpoints, files of trainings, folders of images, entries of the store and records ask here whether what lies there is
what was asked for. Two things with one fingerprint have the same bytes; whatever has no lasting identity, such as a
plain function, is refused rather than guessed at.
"""

import contextlib
import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from uqlib.files.whole import cache_folder, sha256_of_file, write_text

if TYPE_CHECKING:  # the command line asks for fingerprints of plain values, and shall not wait for torch
    from torch import Tensor, nn

SETTLED = 2.0  # seconds after its last change before a time stamp is trusted: clocks of file systems tick coarsely
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
    """sha256 of the contents of each file.

    The contents are read once. From then on a file is trusted by its size, inode and time stamps in nanoseconds, which
    are kept in the cache folder, one list a folder; a file overwritten in place has others. A stamp younger than two
    seconds is not trusted. Reading is about 0.5 GB/s a thread, four at a time; a hundred thousand known files take a
    second or two.

    Raises:
        OSError: if a file cannot be read; the message names it.
    """
    full = [os.path.abspath(path) for path in paths]
    place = cache_folder() / "digests" / f"{fingerprint(os.path.commonpath(full) if full else '')[:16]}.json"
    known, stamps = _known(place), [_stamp(path) for path in full]
    missing = [
        k for k, (path, stamp) in enumerate(zip(full, stamps, strict=True)) if known.get(path, [""])[1:] != stamp
    ]
    if missing:
        with ThreadPoolExecutor(4) as pool:
            hashed = pool.map(sha256_of_file, [full[k] for k in missing])
            quiet = None if progress and len(missing) > WATCHED else True
            fresh = dict(zip(missing, tqdm(hashed, total=len(missing), unit="file", disable=quiet), strict=True))
        before = (time.time() - SETTLED) * 1e9
        known |= {full[k]: [digest, *stamps[k]] for k, digest in fresh.items() if max(stamps[k][2:]) < before}
        _remember(place, known)
        return [fresh[k] if k in fresh else known[path][0] for k, path in enumerate(full)]
    return [known[path][0] for path in full]


def _stamp(path: str) -> list[int]:
    now = os.stat(path)
    return [now.st_size, now.st_ino, now.st_mtime_ns, now.st_ctime_ns]


def _known(place: Path) -> dict[str, list]:
    try:
        known = json.loads(place.read_text(encoding="utf-8"))
        return known if isinstance(known, dict) and all(len(entry) == 5 for entry in known.values()) else {}
    except (OSError, ValueError, TypeError):
        return {}  # a lost list costs one more reading


def _remember(place: Path, known: Mapping[str, list]) -> None:
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not truth
        write_text(place, json.dumps(known))


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
