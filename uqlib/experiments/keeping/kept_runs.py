"""What became of runs: a file a task in data/trained, with some columns and numbers of each run, by its name.

A run is named by parts and ends with its seed, such as supervised/glc_10/0.4/0. A file grows run by run, and is whole at any
time.
"""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool

from uqlib.base.extras import named
from uqlib.base.options import check_choice
from uqlib.base.provenance import environment
from uqlib.experiments.keeping.kept_columns import open_kept
from uqlib.files.columns import Header, read_column, read_header, write_table
from uqlib.files.exclusive import hold_alone
from uqlib.files.fingerprint import fingerprint
from uqlib.metrics.compare import compare, together
from uqlib.metrics.outcomes import Judged

with named():
    import xarray as xr

FOLDERS = {
    "pretraining": "uqlib pretrain",
    "short": "uqlib short",
}  # below data/trained, and what makes what lies there


def place_of(task: str, folder: str = "pretraining") -> str:
    """The file of a task, in the checkout."""
    return f"data/trained/{check_choice(folder, FOLDERS, 'folder of data/trained')}/{task}.safetensors"


class Found(NamedTuple):
    """What a run found: columns, and numbers by name."""

    columns: dict[str, np.ndarray]
    numbers: dict[str, float]


@dataclass(frozen=True)
class KeptRun:
    """One run: what it is called, all that it rests on, and what makes it."""

    task: str  # the file
    name: str  # START/METHOD/LEVEL/SEED
    settings: Mapping[str, Any]
    make: Callable[[str], Found]  # takes the device
    value: float = 1.0  # what is worth more is made first
    folder: str = "pretraining"  # in FOLDERS

    @property
    def seed(self) -> int:
        return int(self.name.rpartition("/")[2])

    @property
    def digest(self) -> str:
        """Changes with the settings."""
        return fingerprint(json.dumps(self.settings, sort_keys=True))[:16]

    def is_missing(self) -> bool:
        """Whether its file lacks it, or has it with other settings."""
        return about_runs(self.task, self.folder).get(self.name, {}).get("digest") != self.digest

    def keep(self, device: str = "cpu") -> Path:
        """Make it, and write the file anew with it."""
        began, path = time.monotonic(), Path(place_of(self.task, self.folder))
        found = self.make(device)
        entry: dict[str, Any] = {"digest": self.digest, "settings": dict(self.settings), "numbers": found.numbers}
        entry["seconds"] = round(time.monotonic() - began, 1)
        with hold_alone(f"{self.folder} {self.task}", wait=True):
            add_run(path, self.name, found.columns, entry)
        return path


def add_run(path: Path, name: str, columns: Mapping[str, np.ndarray], entry: Mapping[str, Any]) -> None:
    """Write a file of runs anew with one more, or with another under its name; and with the machine among those it was made on."""
    kept, about, machines = _read_whole(path) if path.is_file() else ({}, {}, [])
    kept = {each: array for each, array in kept.items() if each.partition(":")[0] != name}
    machines += [here for here in [environment()] if here not in machines]
    metadata = {"about": json.dumps(about | {name: dict(entry)}), "environments": json.dumps(machines)}
    write_table(path, kept | {f"{name}:{each}": array for each, array in columns.items()}, metadata)


def _read_whole(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any], list[Any]]:
    header = read_header(path)
    columns = {each: np.array(read_column(path, header, each)) for each in header.columns}
    return columns, _about(header), json.loads(header.metadata["environments"])


def _about(header: Header) -> dict[str, Any]:
    return json.loads(header.metadata["about"])


def about_runs(task: str, folder: str = "pretraining") -> dict[str, Any]:
    """What is noted of each run of a task, by its name; read anew when the file has changed."""
    path = Path(place_of(task, folder))
    return _read_about(path.absolute(), path.stat().st_mtime_ns) if path.is_file() else {}


@lru_cache(maxsize=16)
def _read_about(path: Path, changed: int) -> dict[str, Any]:
    return _about(read_header(path))


def pack_bits(correct: Bool[np.ndarray, " n"]) -> np.ndarray:
    """True and false in an eighth of a byte each; `unpack_bits` takes their number."""
    return np.packbits(np.asarray(correct, bool))


def unpack_bits(packed: np.ndarray, count: int) -> Bool[np.ndarray, " n"]:
    """What `pack_bits` packed."""
    return np.unpackbits(packed, count=count).astype(bool)


@dataclass(frozen=True)
class KeptRuns:
    """The file of one task."""

    task: str
    path: Path
    header: Header
    about: dict[str, dict[str, Any]]
    folder: str = "pretraining"

    def column(self, name: str, column: str) -> np.ndarray:
        """A column of a run."""
        return np.array(read_column(self.path, self.header, f"{name}:{column}"))

    def correct(self, name: str, column: str = "correct") -> Bool[np.ndarray, " n"]:
        """Which test images a run answers rightly."""
        numbers = self.about[name]["numbers"]
        return unpack_bits(self.column(name, column), int(numbers.get(f"tested_{column}", numbers["tested"])))

    def number(self, name: str, which: str) -> float:
        """A number of a run."""
        numbers = self.about[name]["numbers"]
        return numbers[check_choice(which, numbers, f"number of {name}")]

    def errors(
        self,
        cells: Mapping[tuple[str, ...], str],
        *dims: str,
        draws: int = 200,
        column: str = "correct",
        rows: Any = slice(None),
        seed: int = 0,
    ) -> xr.DataArray:
        """Test error, as `metrics.compare` gives it: of each cell and seed, on all test images and on paired draws of them.

        Args:
            cells: START/METHOD/LEVEL by key, a tuple of a name a dimension.
            dims: what these names are of.
            draws: of the test images.
            column: of bits.
            rows: of the test images, by default all of the column; draws are among these.
            seed: of the draws.

        Returns:
            Dimensions dims, training (the seed), draw; NaN where a cell or a seed is not there.
        """
        runs = {
            key: [self._judged(f"{cell}/{each}", column, rows) for each in self.seeds(cell)]
            for key, cell in cells.items()
        }
        whole = {key: some for key, some in runs.items() if some}
        if not whole:
            raise FileNotFoundError(self._lacks(cells.values()))
        outcomes = {"|".join(key): some for key, some in whole.items()}
        scores = compare(outcomes, ["accuracy"], over="training", draws=draws, seed=seed)
        parts = {
            key: scores.sel(variant="|".join(key), measure="accuracy", drop=True)
            .isel(training=slice(len(some)))
            .assign_coords(training=self.seeds(cells[key]))  # a seed may be missing before others
            for key, some in whole.items()
        }
        found = together({key if len(dims) > 1 else key[0]: part for key, part in parts.items()}, *dims)
        names = {dim: list(dict.fromkeys(key[k] for key in cells)) for k, dim in enumerate(dims)}
        return 1 - found.reindex(names).sortby("training")

    def table(
        self, cells: Mapping[Any, str], *dims: str, column: str, names: Mapping[str, Sequence[Any]]
    ) -> xr.DataArray:
        """A column of numbers of each cell and seed, as an array with names.

        Args:
            cells: START/METHOD/LEVEL by key, a name, or a tuple of names where there are several dims.
            dims: what these names are of.
            column: of the same shape in every run.
            names: of its dimensions, in order, and what stands there.

        Returns:
            Dimensions dims, training (the seed) and those of the column; NaN where a seed is not there, and no cell without any.

        Raises:
            FileNotFoundError: if there is no run; the message says what makes them.
        """
        parts = {}
        for key, cell in cells.items():
            if seeds := self.seeds(cell):
                found = np.stack([self.column(f"{cell}/{seed}", column) for seed in seeds]).astype(float)
                parts[key] = xr.DataArray(found, {"training": seeds, **names}, ["training", *names])
        if not parts:
            raise FileNotFoundError(self._lacks(cells.values()))
        return together(parts, *dims).sortby("training")

    def _lacks(self, cells: Iterable[str]) -> str:
        return f"no run of {', '.join(cells)}; `{FOLDERS[self.folder]} {self.task}` makes them"

    def _judged(self, name: str, column: str, rows: Any) -> Judged:
        right = torch.from_numpy(self.correct(name, column)[rows])
        return Judged(right.double(), right)

    @property
    def names(self) -> list[str]:
        """All runs, as START/METHOD/LEVEL/SEED."""
        return list(self.about)

    def seeds(self, *cells: str) -> list[int]:
        """The seeds that all of these START/METHOD/LEVEL have."""
        own = [
            {int(name.rpartition("/")[2]) for name in self.names if name.rpartition("/")[0] == cell} for cell in cells
        ]
        return sorted(set.intersection(*own)) if own else []


def load_made(runs: Iterable[KeptRun]) -> KeptRuns:
    """What is kept of these runs of one task; what is not there yet, or was made with other settings, is left out.

    Raises:
        FileNotFoundError: if nothing is kept of the task; the message says what makes it.
        DamagedError: if its header is not what was written.
    """
    asked = list(runs)
    task, folder = asked[0].task, asked[0].folder
    return load_runs(task, {run.name: run.digest for run in asked if run.task == task}, folder)


def load_runs(task: str, digests: Mapping[str, str] | None = None, folder: str = "pretraining") -> KeptRuns:
    """What is kept of a task; see `load_made`, which leaves out what was made with other settings.

    Args:
        task: its name.
        digests: of the settings of the runs that count, by name; by default all count.
        folder: in FOLDERS.

    Raises:
        FileNotFoundError: if nothing is; the message says what makes it.
        DamagedError: if its header is not what was written.
    """
    path, header = open_kept(place_of(task, folder), f"{FOLDERS[folder]} {task}")
    about = _about(header)
    if digests is not None:
        about = {name: each for name, each in about.items() if name in digests and each.get("digest") == digests[name]}
    return KeptRuns(task, path, header, about, folder)
