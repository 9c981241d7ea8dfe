"""Records: the numbers that a run found, one tidy row each, with all that is needed to trust or repeat them.

A record is one JSON file a run. `results` repeats bit for bit on the same machine with the same parameters, unless it is
seconds that were measured; `provenance` (when, where, how long) does not. Its last line is a seal, the sha256 of all the
rest: a number that was changed by hand or by a bad disk is noticed, one that somebody made up is not.
"""

import json
import math
import re
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from uqlib.base.options import check_choice, check_fraction, check_number, check_whole
from uqlib.base.provenance import environment, peak_memory_mb
from uqlib.base.scales import check_scale
from uqlib.files.fingerprint import fingerprint
from uqlib.files.whole import replacing, write_text

NOTEBOOK = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]*/)?[A-Za-z0-9][A-Za-z0-9_-]*")
PARTS = {"notebook": str, "scale": str, "parameters": dict, "results": list, "provenance": dict, "sha256": str}
PROVENANCE = {
    "python": str, "platform": str, "versions": dict, "device": str, "cpu": str, "threads": int, "inputs": dict,
    "seconds": int | float, "peak_memory_mb": int, "date": str, "commit": str | None,
}  # fmt: skip
VERSIONS = ("uqlib", "torch", "numpy")
UNITS = (  # what an interval may be about
    "examples", "splits", "trainings", "networks", "data sets", "scenes", "corruptions", "timings",
)  # fmt: skip


@dataclass(frozen=True)
class Result:
    """One number: what it measures, on what, its interval, and what that interval rests on.

    The value may lie outside of its interval: that of a bootstrap is of the resamples, and where the measure is biased they
    leave the value aside.
    """

    quantity: str  # e.g. "aurc_ours_minus_base"; claims in the ledger name it
    setting: str  # e.g. "cifar10: cifar_resnet56 + cifar_resnet20"
    value: float
    low: float | None = None
    high: float | None = None
    level: float | None = None  # of the interval, e.g. 0.95
    splits: int = 1  # into a part that fits and one that tests, of the same examples
    seeds: int = 1  # trainings
    examples: int | None = None  # of one repetition
    covers: tuple[str, ...] = ()  # the units of which the interval says how others would come out, of UNITS
    scale: str = ""
    notebook: str = ""

    def __post_init__(self) -> None:
        for name in ("quantity", "setting", "scale", "notebook"):
            if not isinstance(text := getattr(self, name), str) or (not text and name in ("quantity", "setting")):
                raise TypeError(f"the {name} of a result must be a text; it is {text!r}")
        where = f"of {self.quantity} of {self.setting}"
        for end in (self.value, self.low, self.high):
            if isinstance(end, float) and not math.isfinite(end):
                raise ValueError(f"{self.quantity} of {self.setting} must be finite; it has {end}")
        check_number(self.value, f"the value {where}")
        if (self.low is None) != (self.high is None):
            raise ValueError(f"{self.quantity} has one end of an interval: low {self.low}, high {self.high}; give both")
        if self.low is not None:
            low, high = check_number(self.low, f"low {where}"), check_number(self.high, f"high {where}")
            if low > high:
                raise ValueError(f"the interval {where} must not end before it begins; low {low}, high {high}")
        if self.level is not None:
            check_fraction(self.level, f"the level {where}", within="(0, 1)")
        check_whole(self.seeds, f"seeds {where}", least=1)
        check_whole(self.splits, f"splits {where}", least=1)
        if not isinstance(self.covers, tuple):
            raise TypeError(f"covers {where} must be a list of units; it is {self.covers!r}")
        for unit in self.covers:
            check_choice(unit, UNITS, f"unit {where}")
        if self.covers and self.low is None:
            raise ValueError(
                f"{self.quantity} of {self.setting} has no interval that could cover {', '.join(self.covers)}"
            )
        if self.examples is not None:
            check_whole(self.examples, f"examples {where}", least=1)
        if self.scale:
            check_scale(self.scale)
        if self.notebook:
            check_notebook(self.notebook)

    def __str__(self) -> str:
        """The value to three digits, and its interval."""
        return f"{self.value:.3g}" + ("" if self.low is None else f" [{self.low:.3g}, {self.high:.3g}]")


@dataclass
class Run:
    """A run in progress: results are added, then saved with their provenance."""

    notebook: str
    scale: str
    parameters: dict[str, Any]
    path: Path
    inputs: dict[str, str] = field(default_factory=dict)  # what was read -> its digest
    results: list[Result] = field(default_factory=list)
    lacks: list[str] = field(default_factory=list)  # data that a whole run reads and this machine lacks
    _began: float = field(default_factory=time.perf_counter)

    def add(
        self, quantity: str, value: Any, *, setting: str, splits: int = 1, seeds: int = 1, examples: int | None = None,
        covers: Sequence[str] = (),
    ) -> Result:  # fmt: skip
        """Add a number, or an interval (anything with value, low, high, level) and the units that it covers.

        Raises:
            ValueError: if the run has this quantity in this setting already, or the number is none that can stand.
        """
        if any((each.quantity, each.setting) == (quantity, setting) for each in self.results):
            raise ValueError(f"{quantity} of {setting} was added already; name the setting in which this one differs")
        ends = {name: _plain(getattr(value, name, None)) for name in ("low", "high", "level")}
        result = Result(
            quantity, setting, float(getattr(value, "value", value)), **ends,
            splits=splits, seeds=seeds, examples=examples, covers=tuple(covers), scale=self.scale, notebook=self.notebook,
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
                **({"lacks": self.lacks} if self.lacks else {}),
                "seconds": round(time.perf_counter() - self._began, 2),
                "peak_memory_mb": peak_memory_mb(),
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
            },
        }
        write_text(self.path, json.dumps(sealed(body), indent=1) + "\n")
        return self.path


def start_run(notebook: str, *, scale: str, parameters: dict[str, Any], path: str | Path = "") -> Run:
    """Begin a record.

    Args:
        notebook: PAPER/NAME.
        scale: one of `uqlib.base.scales.SCALES`.
        parameters: all that the reader may set and the numbers depend on, as they were set.
        path: where the record goes; empty: a name of its own, by the parameters, in build/records.
    """
    check_notebook(notebook)
    parameters = {**parameters, "scale": check_scale(scale)}
    for name, value in parameters.items():
        if type(value) not in (bool, int, float, str, list, dict, type(None)):
            raise TypeError(f"parameter {name} must be a plain number, text or list; it is {type(value).__name__}")
    own = f"{notebook.replace('/', '.')}.{scale}.{fingerprint(parameters)[:8]}.json"
    return Run(notebook, scale, parameters, Path(path or Path("build/records") / own))


def check_notebook(name: str) -> str:
    """The name, if it is one of a notebook: PAPER/NAME of letters, digits, `_` and `-`; a draft may have no paper."""
    if not isinstance(name, str) or not NOTEBOOK.fullmatch(name):
        raise ValueError(f"notebook must be PAPER/NAME, of letters, digits, _ and -; it is {name!r}")
    return name


def sealed(body: dict[str, Any]) -> dict[str, Any]:
    """The body of a record with its seal."""
    rest = {name: value for name, value in body.items() if name != "sha256"}
    return {**rest, "sha256": fingerprint(rest)}


def read_results(*places: str | Path, notebooks: Collection[str] | None = None) -> list[Result]:
    """Every result in the records of these folders and files; see `read_runs`."""
    return [result for body in read_runs(*places, notebooks=notebooks) for result in body["results"]]


def read_runs(*places: str | Path, notebooks: Collection[str] | None = None) -> list[dict[str, Any]]:
    """The records themselves, with their provenance, folder by folder in the order of their file names.

    The unit is the run: a notebook at a scale is taken once, whole, from the last place that has it. What was run here thus
    replaces what was published, and a setting that has another name now does not stay beside it. A run that lacked data
    which an earlier one had (`Run.lacks`) replaces nothing: it is no repetition of it.

    Args:
        places: folders, searched through (one that is not there holds none), or files.
        notebooks: those of the book, PAPER/NAME. Then a record must lie where its notebook and scale say, at
            PAPER/NAME.json or PAPER/NAME.SCALE.json, and one of a notebook that is not among them does not count.

    Raises:
        ValueError: if a file is no record, its seal is broken, it lies under the name of another, or one place has two
            records of a notebook at a scale.
    """
    taken: dict[tuple[str, str], dict[str, Any]] = {}
    for place in map(Path, places):
        here: dict[tuple[str, str], Path] = {}
        for path in _files(place):
            body = read_record(path)
            which = body["notebook"], body["scale"]
            if notebooks is not None:
                _check_place(path, *which)
                if body["notebook"] not in notebooks:
                    continue
            if which in here:
                raise ValueError(
                    f"{path} and {here[which]} are both records of {which[0]} at scale {which[1]}; keep one of them there, "
                    "or name the file instead of the folder"
                )
            here[which] = path
            if which in taken and not _lacking(body) <= _lacking(taken[which]):
                continue
            taken.pop(which, None)
            taken[which] = body
    return list(taken.values())


def _lacking(body: dict[str, Any]) -> set[str]:
    return set(body["provenance"].get("lacks", ()))


def orphans(*places: str | Path, notebooks: Collection[str]) -> list[Path]:
    """The records of these places whose notebook is not among those of the book: they do not count."""
    return [
        path for place in map(Path, places) for path in _files(place) if read_record(path)["notebook"] not in notebooks
    ]


def read_record(path: str | Path) -> dict[str, Any]:
    """One record, checked: its seal, its fields, and every number.

    Raises:
        ValueError: if something is missing, unknown or out of range; names file, result and field.
    """
    path = Path(path)
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        _check_parts(body, PARTS, "the record")
        if body["sha256"] != sealed(body)["sha256"]:
            raise ValueError("its bytes are not those that were written: the sha256 at its end is of other ones")
        check_notebook(body["notebook"])
        check_scale(body["scale"])
        lacks = body["provenance"].get("lacks", []) if isinstance(body["provenance"], dict) else []
        if not isinstance(lacks, list) or not all(isinstance(each, str) for each in lacks):
            raise TypeError(f"lacks of the provenance must be a list of texts; it is {lacks!r}")
        _check_parts({"lacks": []} | body["provenance"], PROVENANCE | {"lacks": list}, "the provenance")
        _check_versions(body["provenance"]["versions"])
        results = [_result(k, row, body) for k, row in enumerate(body["results"])]
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise ValueError(f"{path} is not a record ({error}); remove it, or run its notebook again") from None
    seen: set[tuple[str, str]] = set()
    for each in results:
        if (each.quantity, each.setting) in seen:
            raise ValueError(
                f"{path} has {each.quantity} of {each.setting} twice; name the setting in which they differ, and run its "
                "notebook again"
            )
        seen.add((each.quantity, each.setting))
    return {**body, "file": path.name, "path": path, "results": results}


def _files(place: Path) -> Iterator[Path]:
    if place.is_file():
        yield place
    yield from sorted(path for path in place.rglob("*.json") if path.is_file() and not path.name.startswith("."))


def _check_place(path: Path, notebook: str, scale: str) -> None:
    """Whether a record lies under its own name: PAPER/NAME.json, or PAPER/NAME.SCALE.json, or that with more after it."""
    name, *rest = path.name.removesuffix(".json").split(".")
    if f"{path.parent.name}/{name}" != notebook or (rest and rest[0] != scale):
        paper, own = notebook.split("/")
        raise ValueError(
            f"{path} holds a record of {notebook} at scale {scale}; under this name that of another is asked for. "
            f"Its place is {paper}/{own}.json or {paper}/{own}.{scale}.json"
        )


def _check_parts(body: Any, parts: dict[str, Any], what: str) -> None:
    if not isinstance(body, dict):
        raise TypeError(f"{what} must be an object; it is {_kind(body)}")
    if missing := sorted(parts.keys() - body.keys()):
        raise ValueError(f"{what} lacks {', '.join(missing)}")
    if unknown := sorted(body.keys() - parts.keys()):
        raise ValueError(f"{what} has fields that are not known: {', '.join(unknown)}")
    for name, kind in parts.items():
        if not isinstance(body[name], kind) or isinstance(body[name], bool):
            raise TypeError(f"{name} of {what} must not be {_kind(body[name])}: {str(body[name])[:40]!r}")


def _check_versions(versions: dict[str, Any]) -> None:
    if missing := [name for name in VERSIONS if name not in versions]:
        raise ValueError(f"the versions of the provenance lack {', '.join(missing)}")
    if odd := [name for name, version in versions.items() if not isinstance(version, str | None)]:
        raise TypeError(f"the version of {odd[0]} must be a text; it is {versions[odd[0]]!r}")


def _result(k: int, row: Any, body: dict[str, Any]) -> Result:
    names = [each.name for each in fields(Result)]
    where = f"result {k}"
    _check_parts(row, dict.fromkeys(names, object), where)
    try:
        numbers = {name: _plain(row[name]) for name in ("value", "low", "high", "level") if _is_number(row[name])}
        units = {"covers": tuple(row["covers"]) if isinstance(row["covers"], list) else row["covers"]}
        result = Result(**{**row, **numbers, **units})
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from None
    if (result.notebook, result.scale) != (body["notebook"], body["scale"]):
        raise ValueError(
            f"{where} is of {result.notebook} at scale {result.scale}, the record is of {body['notebook']}"
        )
    return result


def _kind(value: Any) -> str:
    return {dict: "an object", list: "a list", str: "a text", type(None): "null"}.get(type(value), type(value).__name__)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _plain(value: Any) -> float | None:
    return None if value is None else float(value)
