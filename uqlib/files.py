"""Files that are whole or absent, and safetensors files in which every byte is accounted for.

A table is a safetensors file with the sha256 of each column in its metadata, and of the header in the header itself
(computed with 64 zeros in its place). Any program that reads safetensors reads it; this one also notices a changed,
missing or added byte.
"""

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

DTYPES = {
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


class DamagedError(ValueError):
    """A file whose bytes are not those that were written."""

    def __init__(self, path: Path, what: str):
        super().__init__(f"{path} is damaged: {what}. Remove it and compute or copy it again.")


def cache_folder() -> Path:
    """Where downloads and what networks said are kept: $UQLIB_CACHE, else `uqlib` in the user's cache folder."""
    if folder := os.environ.get("UQLIB_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "uqlib"


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """A stream whose bytes stand under `path` once all are on the disk; an interrupted run leaves nothing there."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        with open(temporary, "xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text, whole or not at all."""
    with replacing(path) as stream:
        stream.write(text.encode())


def in_checkout(place: str) -> Path | None:
    """A file or folder of the checkout around the current folder, else of the one around this file; None without it."""
    folders = (Path.cwd(), *Path.cwd().parents, Path(__file__).resolve().parents[1])
    return next((f / place for f in folders if (f / "pyproject.toml").is_file() and (f / place).exists()), None)


def digest(value: Any) -> str:
    """sha256 of a plain value, the same whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def sha256_of_file(path: str | os.PathLike) -> str:
    """64 hexadecimal digits; the file need not fit into memory."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
    """
    parts = {name: _as_parts(column) for name, column in columns.items()}
    for name, column in parts.items():
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
    body = len(body).to_bytes(8, "little") + body
    seal = f'"sha256":"{ZEROS}"'.encode()
    return body.replace(seal, seal.replace(ZEROS.encode(), hashlib.sha256(body).hexdigest().encode()))


def read_header(path: str | os.PathLike) -> Header:
    """Names, types, places and metadata of a table; time is that of a few kilobytes.

    Raises:
        DamagedError: if a byte of the header changed, or the file is longer or shorter than it says.
    """
    path = Path(path)
    size = path.stat().st_size
    with open(path, "rb") as stream:
        prefix = stream.read(8)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or length > size - 8:
            raise DamagedError(path, f"it ends within its header, after {size} bytes")
        body = stream.read(length)
    try:
        table = json.loads(body)
        metadata = table.pop("__metadata__")
        seal = metadata.pop("sha256").encode()
    except (ValueError, KeyError, AttributeError, TypeError):
        raise DamagedError(path, "its header cannot be read, or it was not written by uqlib") from None
    if hashlib.sha256(prefix + body.replace(seal, ZEROS.encode())).hexdigest().encode() != seal:
        raise DamagedError(path, "its header is not the one that was written")
    columns = {}
    for name, entry in table.items():
        start, stop = (8 + length + offset for offset in entry["data_offsets"])
        sha256 = metadata.pop(f"sha256.{name}")
        columns[name] = Column(DTYPES[entry["dtype"]], tuple(entry["shape"]), start, stop, sha256)
    end = max((column.stop for column in columns.values()), default=8 + length)
    if size != end:
        raise DamagedError(path, f"it has {size} bytes where its header announces {end}")
    return Header(columns, metadata)


def read_column(path: str | os.PathLike, header: Header, name: str, *, verify: bool = True) -> np.ndarray:
    """A column, memory-mapped; what a caller writes into it stays in memory and never reaches the file.

    Raises:
        DamagedError: if `verify` and a byte of the column changed.
    """
    column = header.columns[name]
    if column.start == column.stop:
        return np.empty(column.shape, column.dtype)
    # mapped copy-on-write: torch refuses to share memory that is read-only
    data = np.memmap(path, np.uint8, "c", column.start, (column.stop - column.start,)).view(np.ndarray)
    if verify and hashlib.sha256(data).hexdigest() != column.sha256:
        raise DamagedError(Path(path), f"column {name!r} does not have the sha256 that was written")
    return data.view(column.dtype).reshape(column.shape)
