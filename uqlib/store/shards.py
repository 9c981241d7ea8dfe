"""A long run in shards: finished ones stay beside their entry until all are there, and then become it."""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from uqlib.files.columns import Header, Parts, read_column, read_header, write_table
from uqlib.files.fingerprint import fingerprint
from uqlib.files.whole import DamagedError, clear_unfinished
from uqlib.store.keys import ANSWER_COLUMNS, Entry, Key, open_if_whole, precision_of, shards_folder
from uqlib.store.write import describe_run, write_entry


@dataclass(frozen=True)
class ShardJob:
    """The shards of what is missing in one entry, and how they come together."""

    target: Path
    key: Key
    missing: Mapping[str, str]  # precision by column
    given: Mapping[str, np.ndarray]
    rows: int

    @cached_property
    def contents(self) -> str:
        """Says what a shard holds, so that those of another run are not taken for it."""
        return fingerprint([self.key.digest, dict(self.missing)])

    @cached_property
    def bounds(self) -> list[tuple[int, int]]:
        n = len(self.given["labels"])
        return [(start, min(start + self.rows, n)) for start in range(0, n, self.rows)]

    def path(self, number: int) -> Path:
        # what it holds and its bounds are the name, so shards of another run or size are never taken for these
        return shards_folder(self.target) / "{}-{}-{}.safetensors".format(*self.bounds[number], self.contents[:8])

    def has(self, number: int) -> bool:
        try:
            header = read_header(self.path(number))
            for name in header.columns:
                read_column(self.path(number), header, name)
        except (FileNotFoundError, DamagedError):
            return False
        return self._is_ours(header)

    def _is_ours(self, header: Header) -> bool:
        return header.metadata.get("contents") == self.contents

    def images(self, numbers: Iterable[int]) -> int:
        """How many images are still to be run in these shards."""
        return sum(stop - start for n in numbers if not self.path(n).exists() for start, stop in [self.bounds[n]])

    def write(self, number: int, compute: Callable, device: str) -> None:
        if self.has(number):
            return
        began = time.monotonic()
        columns = compute(*self.bounds[number])
        seconds = f"{time.monotonic() - began:.3f}"
        write_table(self.path(number), columns, {"contents": self.contents, "seconds": seconds, "device": device})

    def assemble(self, command: str | None, there: Sequence[Entry] = ()) -> Path | None:
        """Copy the shards, one at a time, into the entry, beside what it has; None if some are missing."""
        headers = self._headers() if self.missing else []
        if headers is None:
            return None
        columns = {name: self._joined(name, headers) for name in (headers[0].columns if headers else ())}
        seconds = sum(float(header.metadata["seconds"]) for header in headers)
        devices = sorted({header.metadata["device"] for header in headers})
        write_entry(self.target, self.key, {**columns, **self.given}, describe_run(seconds, devices, command), there)
        return self.finish()

    def _headers(self) -> list[Header] | None:
        try:
            headers = [read_header(self.path(number)) for number in range(len(self.bounds))]
        except (FileNotFoundError, DamagedError):
            return None
        return headers if all(map(self._is_ours, headers)) else None

    def _joined(self, name: str, headers: list[Header]) -> Parts:
        first = headers[0].columns[name]
        arrays = (read_column(self.path(number), header, name) for number, header in enumerate(headers))
        return Parts(first.dtype, (len(self.given["labels"]), *first.shape[1:]), arrays)

    def finish(self) -> Path:
        clear_shards(self.target)
        return self.target


def clear_shards(target: Path) -> None:
    """Remove what an entry holds already, and what killed writers left; shards of somebody who asks for more stay."""
    parts, entry = shards_folder(target), open_if_whole(target)
    if entry is None or not parts.is_dir():
        return
    with contextlib.suppress(OSError):  # another process does the same
        clear_unfinished(target.parent)
        clear_unfinished(parts)
        for shard in parts.glob("*.safetensors"):
            try:
                columns = read_header(shard).columns
            except DamagedError:
                columns = {}
            if all(precision_of(name, columns) <= precision_of(name, entry.header.columns) for name in ANSWER_COLUMNS):
                shard.unlink(missing_ok=True)
        parts.rmdir()
