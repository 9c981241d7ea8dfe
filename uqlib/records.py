"""Records: the numbers that a run found, one tidy row each, with all that is needed to trust or repeat them.

A record is one JSON file a run. `results` repeats bit for bit on the same machine with the same parameters, unless it is
seconds that were measured; `provenance` (when, where, how long) does not.
"""

import json
import math
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from uqlib.files import digest, replacing, write_text
from uqlib.provenance import environment, peak_memory_mb
from uqlib.scales import check_scale


@dataclass(frozen=True)
class Result:
    """One number: what it measures, on what, its interval, and what that interval rests on."""

    quantity: str  # e.g. "aurc_ours_minus_base"; claims in the ledger name it
    setting: str  # e.g. "cifar10: cifar_resnet56 + cifar_resnet20"
    value: float
    low: float | None = None
    high: float | None = None
    level: float | None = None  # of the interval, e.g. 0.95
    seeds: int = 1  # repetitions: splits, trainings
    examples: int | None = None  # of one repetition
    scale: str = ""
    notebook: str = ""

    def __post_init__(self) -> None:
        odd = [x for x in (self.value, self.low, self.high) if x is not None and not math.isfinite(x)]
        if odd:
            raise ValueError(f"{self.quantity} of {self.setting} must be finite; it has {odd[0]}")
        if (self.low is None) != (self.high is None):
            raise ValueError(f"{self.quantity} has one end of an interval: low {self.low}, high {self.high}; give both")


@dataclass
class Run:
    """A run in progress: results are added, then saved with their provenance."""

    notebook: str
    scale: str
    parameters: dict[str, Any]
    path: Path
    inputs: dict[str, str] = field(default_factory=dict)  # what was read -> its digest
    results: list[Result] = field(default_factory=list)
    _began: float = field(default_factory=time.perf_counter)

    def add(self, quantity: str, value: Any, *, setting: str, seeds: int = 1, examples: int | None = None) -> Result:
        """Add a number, or an interval (anything with value, low, high, level)."""
        ends = {name: _plain(getattr(value, name, None)) for name in ("low", "high", "level")}
        result = Result(
            quantity, setting, float(getattr(value, "value", value)), **ends,
            seeds=seeds, examples=examples, scale=self.scale, notebook=self.notebook,
        )  # fmt: skip
        self.results.append(result)
        return result

    def save_figure(self, figure: Any, name: str) -> Path:
        """Write a matplotlib figure beside the record, as SVG with the same bytes in every run."""
        path = self.path.with_suffix(".figures") / f"{name}.svg"
        with replacing(path) as stream:
            figure.savefig(stream, format="svg", metadata={"Date": None})
        return path

    def save(self) -> Path:
        """Write the record, whole or not at all."""
        body = {
            "notebook": self.notebook,
            "scale": self.scale,
            "parameters": self.parameters,
            "results": [asdict(result) for result in self.results],
            "provenance": {
                **environment(),
                "inputs": self.inputs,
                "seconds": round(time.perf_counter() - self._began, 2),
                "peak_memory_mb": peak_memory_mb(),
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        }
        write_text(self.path, json.dumps(body, indent=1) + "\n")
        return self.path


def start(notebook: str, *, scale: str, parameters: dict[str, Any], path: str | Path = "") -> Run:
    """Begin a record.

    Args:
        notebook: PAPER/NAME.
        scale: one of `uqlib.scales.SCALES`.
        parameters: all that the reader may set and the numbers depend on, as they were set.
        path: where the record goes; empty: a name of its own, by the parameters, in build/records.
    """
    parameters = {**parameters, "scale": check_scale(scale)}
    for name, value in parameters.items():
        if type(value) not in (bool, int, float, str, list, dict, type(None)):
            raise TypeError(f"parameter {name} must be a plain number, text or list; it is {type(value).__name__}")
    own = f"{notebook.replace('/', '.')}.{scale}.{digest(parameters)[:8]}.json"
    return Run(notebook, scale, parameters, Path(path or Path("build/records") / own))


def read(*folders: str | Path) -> list[Result]:
    """Every result in the records of these folders (searched through; a folder that is not there holds none).

    A result of the same notebook, scale, quantity and setting is taken once, from the last folder that has it: what was
    run here replaces what was published.
    """
    found = (result for body in read_runs(*folders) for result in body["results"])
    return list({(each.notebook, each.scale, each.quantity, each.setting): each for each in found}.values())


def read_runs(*folders: str | Path) -> list[dict[str, Any]]:
    """The records themselves, with their provenance, folder by folder in the order of their file names."""
    runs = []
    for path in (path for folder in folders for path in sorted(Path(folder).rglob("*.json"))):
        try:
            body = json.loads(path.read_text())
            results = [Result(**row) for row in body["results"]]
            runs.append({**body, "file": path.name, "results": results, "provenance": body["provenance"]})
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is not a record ({error}); remove it, or run its notebook again") from None
    return runs


def _plain(value: Any) -> float | None:
    return None if value is None else float(value)
