"""An entry grows and never shrinks: what a key has already, and how columns are added, one process at a time."""

import contextlib
import fcntl
import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from uqlib.files.columns import Parts, read_column, write_table
from uqlib.store.keys import (
    ANSWER_COLUMNS,
    BESIDE_LOGITS,
    PRECISIONS,
    ROW_COLUMNS,
    Entry,
    Key,
    open_if_whole,
    precision_of,
)
from uqlib.store.read import roots


def entries_of_key(key: Key, root: str | os.PathLike | None) -> list[Entry]:
    """The entries of a key, in the order of the roots; a damaged one does not count, so that it is computed again."""
    found = [open_if_whole(folder / key.file) for folder in roots(root=root)]
    return [entry for entry in found if entry is not None and entry.key == key]


def has_column(entry: Entry, name: str, dtype: str) -> bool:
    """Whether an entry has what a network answers in this precision or a better one."""
    return precision_of(name, entry.header.columns) >= PRECISIONS[dtype]


def has_columns(entry: Entry, dtypes: Mapping[str, str], given: Iterable[str]) -> bool:
    """Whether every column is there, at the precision asked for or a better one."""
    return set(given) <= set(entry.header.columns) and all(has_column(entry, *each) for each in dtypes.items())


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """One process at a time adds to the entries of a folder, so that none loses what another has added."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # disks without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_entry(
    target: Path, key: Key, own: Mapping[str, np.ndarray | Parts], provenance: dict[str, Any], there: Sequence[Entry]
) -> None:
    """Write these columns, and of the entries of this key those that are missing here or no less precise there."""
    columns, kept = dict(own), []
    for entry in there:
        better = _better(entry, columns)
        kept += [(entry, name) for name in better]
        if "logits" in better:
            # those of their own run come with them, if they have them
            columns = {name: column for name, column in columns.items() if name not in BESIDE_LOGITS}
        columns |= _carried(entry, columns, better)
    if kept:
        first, added = kept[0][0].provenance, sorted(set(own) & set(ANSWER_COLUMNS) - {name for _, name in kept})
        more = [provenance | {"columns": added}] if added else []
        provenance = first | ({"added": [*first.get("added", []), *more]} if more else {})
    texts = {"format": "uqlib store 1", "key": json.dumps(asdict(key)), "provenance": json.dumps(provenance)}
    write_table(target, {name: _narrow(name, column) for name, column in columns.items()}, texts)


def _better(entry: Entry, columns: Mapping[str, Any]) -> list[str]:
    """What a network answers and an entry has no less precisely than these columns."""
    known = entry.header.columns
    names = [name for name in ANSWER_COLUMNS if name in known]
    return [name for name in names if precision_of(name, known) >= precision_of(name, columns)]


def _carried(entry: Entry, columns: Mapping[str, Any], better: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of an entry that go on: the better ones, and those that are not here yet."""
    known = entry.header.columns
    names = [*better, *(name for name in BESIDE_LOGITS if "logits" in better and name in known)]
    names += [name for name in known if name not in (*columns, *ANSWER_COLUMNS, *BESIDE_LOGITS)]
    return {name: read_column(entry.path, entry.header, name) for name in names}


def _narrow(name: str, column: np.ndarray | Parts) -> np.ndarray | Parts:
    """Labels and row numbers in 32 bits where they fit."""
    if name not in ROW_COLUMNS or not isinstance(column, np.ndarray):
        return column
    narrow = column.astype(np.int32)
    return narrow if np.array_equal(narrow, column) else column


def describe_run(seconds: float, devices: list[str], command: str | None = None) -> dict[str, Any]:
    """The provenance of numbers that this program has just made: versions, date, seconds, devices, command.

    Args:
        seconds: how long it took.
        devices: where it ran, such as ["cpu"].
        command: this program's own by default, without its folders.
    """
    from uqlib.base.provenance import environment

    return environment() | {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "devices": devices,
        "command": _own_command() if command is None else command,
    }


def _own_command() -> str:
    # folders of somebody's machine have no place in a file that travels
    return re.sub(r"(?<![\w.])/(?:[^\s=/]+/)*", "", shlex.join(sys.argv))
