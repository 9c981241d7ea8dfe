"""Safetensors files in which every byte is accounted for.

A table is a safetensors file with the sha256 of each column in its metadata, and of the header in the header itself
(computed with 64 zeros in its place). Any program that reads safetensors reads it; this one also notices a changed,
missing or added byte. Whatever a header says is checked before anything is done by it.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from uqlib.files.whole import DamagedError, parsed, replacing

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
ZEROS = "0" * 64
LONGEST_HEADER = 2**24  # bytes
LARGEST_SHAPE = 2**48  # entries: so many are no array of this world


class Parts(NamedTuple):
    """A column that comes piece by piece along its first axis, so that it never has to fit into memory."""

    dtype: np.dtype
    shape: tuple[int, ...]
    arrays: Iterable[np.ndarray]


class Column(NamedTuple):
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    stop: int
    sha256: str


class Header(NamedTuple):
    columns: dict[str, Column]
    metadata: dict[str, str]


def write_table(
    path: str | os.PathLike, columns: Mapping[str, np.ndarray | Parts], metadata: Mapping[str, str]
) -> None:
    """Write columns and their digests atomically; memory is that of the largest piece.

    Args:
        path: where to; folders are made.
        columns: arrays by name, whole or as Parts.
        metadata: texts by name.

    Raises:
        TypeError: if a column has a type that the format lacks.
        ValueError: if a name is none, or the texts are too long for a header.
        OSError: if the file cannot be written; the message names it.
    """
    parts = {name: _as_parts(column) for name, column in columns.items()}
    for name, column in parts.items():
        if not _is_name(name):
            raise ValueError(f"the name of a column must be printable text; it is {name!r}")
        if column.dtype not in NAMES:
            raise TypeError(f"column {name!r} is {column.dtype}; choose from {', '.join(map(str, NAMES))}")
    # wide types first keep every column on a multiple of its own width
    names = sorted(parts, key=lambda name: (-parts[name].dtype.itemsize, name))
    with replacing(path) as stream:
        stream.write(_header(names, parts, metadata, dict.fromkeys(names, ZEROS)))
        digests = {name: _write_column(stream, name, parts[name]) for name in names}
        stream.seek(0)
        stream.write(_header(names, parts, metadata, digests))


def _as_parts(column: np.ndarray | Parts) -> Parts:
    dtype, shape = np.dtype(column.dtype), tuple(map(int, column.shape))
    return Parts(dtype, shape, column.arrays if isinstance(column, Parts) else [column])


def _write_column(stream: BinaryIO, name: str, column: Parts) -> str:
    digest, rows = hashlib.sha256(), 0
    for array in column.arrays:
        assert array.shape[1:] == column.shape[1:], f"{name}: {array.shape} in {column.shape}"
        block = np.ascontiguousarray(array, column.dtype)
        rows += len(block)
        data = block.reshape(-1).view(np.uint8).data
        digest.update(data)
        stream.write(data)
    assert rows == column.shape[0], f"{name}: {rows} rows came, {column.shape[0]} were announced"
    return digest.hexdigest()


def _header(
    names: list[str], parts: Mapping[str, Parts], metadata: Mapping[str, str], digests: dict[str, str]
) -> bytes:
    table: dict = {"__metadata__": dict(metadata) | {f"sha256.{name}": digests[name] for name in names}}
    table["__metadata__"]["sha256"] = ZEROS
    stop = 0
    for name in names:
        dtype, shape, _ = parts[name]
        start, stop = stop, stop + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
        table[name] = {"dtype": NAMES[dtype], "shape": shape, "data_offsets": [start, stop]}
    body = json.dumps(table, separators=(",", ":")).encode()
    body += b" " * (-len(body) % 8)
    if len(body) > LONGEST_HEADER:
        raise ValueError(f"the metadata of a table must fit into {LONGEST_HEADER} bytes; they take {len(body)}")
    body = len(body).to_bytes(8, "little") + body
    seal = f'"sha256":"{ZEROS}"'.encode()
    return body.replace(seal, seal.replace(ZEROS.encode(), hashlib.sha256(body).hexdigest().encode()))


def read_header(path: str | os.PathLike) -> Header:
    """Names, types, places and metadata of a table; time is that of a few kilobytes.

    Raises:
        DamagedError: if a byte of the header changed, the file is longer or shorter than it says, or what it says is
            nothing that `write_table` writes.
    """
    path = Path(path)
    with open(path, "rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        prefix = stream.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > size - 8:
            raise DamagedError(path, f"it ends within its header, after {size} bytes")
        if length > LONGEST_HEADER:
            raise DamagedError(path, f"its header has {length} bytes, more than {LONGEST_HEADER}")
        body = stream.read(length)
    table = parsed(path, body, "its header cannot be read, or it was not written by uqlib")
    metadata = table.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise DamagedError(path, "its header cannot be read, or it was not written by uqlib")
    own = metadata.pop("sha256", "")
    if not re.fullmatch(r"[0-9a-f]{64}", own):
        raise DamagedError(path, "its header cannot be read, or it was not written by uqlib")
    if hashlib.sha256(prefix + body.replace(own.encode(), ZEROS.encode())).hexdigest() != own:
        raise DamagedError(path, "its header is not the one that was written")
    base = stop = 8 + length
    columns = {}
    for name, entry in table.items():
        columns[name] = _column(path, name, entry, base, stop, metadata.pop(f"sha256.{name}", ""))
        stop = columns[name].stop
    if size != stop:
        raise DamagedError(path, f"it has {size} bytes where its header announces {stop}")
    return Header(columns, metadata)


def _column(path: Path, name: str, entry: Any, base: int, begin: int, sha256: str) -> Column:
    """What a header says of one column, which begins where the one before ends."""
    whole = lambda values: isinstance(values, list) and all(type(v) is int and v >= 0 for v in values)  # noqa: E731
    if (
        not isinstance(entry, dict)
        or set(entry) != {"dtype", "shape", "data_offsets"}
        or not isinstance(entry["dtype"], str)
        or entry["dtype"] not in DTYPES
        or not whole(entry["shape"])
        or len(entry["shape"]) > 8
        or math.prod(max(1, length) for length in entry["shape"]) > LARGEST_SHAPE
        or not whole(entry["data_offsets"])
        or not re.fullmatch(r"[0-9a-f]{64}", sha256)
        or not _is_name(name)
    ):
        raise DamagedError(path, f"its header describes column {name[:50]!r} as nothing that uqlib writes")
    dtype, shape = DTYPES[entry["dtype"]], tuple(entry["shape"])
    stop = begin + dtype.itemsize * math.prod(shape)
    # one after the other, widest first: then every column lies on a multiple of its own width
    if entry["data_offsets"] != [begin - base, stop - base] or begin % dtype.itemsize:
        raise DamagedError(path, f"its header gives column {name!r} another place than its shape needs")
    return Column(dtype, shape, begin, stop, sha256)


def check_columns(path: str | os.PathLike, header: Header, kinds: Mapping[str, tuple[int, str]]) -> None:
    """Raise a DamagedError unless these columns, where they are there, have so many axes, such a type and one length.

    Args:
        path, header: of the table.
        kinds: number of axes and letters of NumPy's kinds by name, such as {"labels": (1, "iu")}.
    """
    found = {name: header.columns[name] for name in kinds if name in header.columns}
    for name, column in found.items():
        axes, letters = kinds[name]
        if len(column.shape) != axes or column.dtype.kind not in letters:
            raise DamagedError(Path(path), f"column {name!r} is {column.dtype} {column.shape}, which nobody writes")
    if len({column.shape[0] for column in found.values()}) > 1:
        raise DamagedError(Path(path), f"columns {', '.join(found)} differ in length")


def _is_name(name: str) -> bool:
    return name.isprintable() and name not in ("", "__metadata__")


def read_column(path: str | os.PathLike, header: Header, name: str, *, verify: bool = True) -> np.ndarray:
    """A column, memory-mapped; what a caller writes into it stays in memory and never reaches the file.

    Raises:
        DamagedError: if `verify` and a byte of the column changed, or the file is shorter than its header says.
    """
    column = header.columns[name]
    if column.start == column.stop:
        return np.empty(column.shape, column.dtype)
    try:
        # mapped copy-on-write: torch refuses to share memory that is read-only
        data = np.memmap(path, np.uint8, "c", column.start, (column.stop - column.start,)).view(np.ndarray)
    except ValueError:  # the file was cut after its header was read
        raise DamagedError(Path(path), f"it ends before column {name!r} does") from None
    if verify and hashlib.sha256(data.data).hexdigest() != column.sha256:
        raise DamagedError(Path(path), f"column {name!r} does not have the sha256 that was written")
    if verify and column.dtype == bool and data.max() > 1:
        raise DamagedError(Path(path), f"column {name!r} holds something else than true and false")
    return data.view(column.dtype).reshape(column.shape)
