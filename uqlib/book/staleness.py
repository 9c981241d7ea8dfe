"""What a run rested on, noted beside its copy, and what of it has changed since: staleness by content, never by time.

NAME.basis, beside NAME.ipynb, holds the parameters, the digest of each cell, the definitions that the cells reach (see
`graph`), the versions of the packages that these use, every data file that the run read or looked for (see `tracing`), and
the digests of what it wrote. A run is stale when one of these is not what it was. If only the text of the notebook
changed, the copy takes it over, and no cell runs.

The computed pages and the HTML of the book have such a basis too.
"""

import contextlib
import fnmatch
import hashlib
import json
import os
import re
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import uqlib
from uqlib.book import notebooks, tracing
from uqlib.book.definitions import code_digest, read_module
from uqlib.book.graph import Package, Reached, RecordCache, join_records, versions
from uqlib.book.house import API
from uqlib.book.tracing import Noted, name_of, path_of
from uqlib.files.digests import ABSENT, SETTLED, FileDigests, read_json
from uqlib.files.whole import write_text

VERSION = 1  # of a basis; runs with another one are stale
TEXT_ALONE = "text alone"
PAGES = (
    "ledger.md", "summary.md", "cover.md", "verdicts.md", "beside.md", "criteria.md", "forecasts.md", "scales.md", "parameters.md",
    "runs.md", "benchmarks.md", "guesses.md", "drop_example.md", "comparison.md", "get.md", "api.md", *(f"api/{family}.md" for family in API),
    "verdicts.json",
)  # fmt: skip
BUILDERS = ("jupyter_book", "sphinx", "myst_nb", "sphinx_design", "sphinx_mathjax_offline")  # that make the HTML
BUILT = ("build/", "_build/")  # folders of a checkout that hold no data
NO_DATA = (*BUILT, "notebooks/", "book/results/", "$RESULTS/")
FORESEEN = (
    OSError,
    ValueError,
    TypeError,
    KeyError,
    AttributeError,
    RecursionError,
)  # of a file that anybody may have edited

Basis = dict[str, Any]


class Checkout:
    """A checkout as it is now: its code, the digests of its files. Ask a new one after anything changed."""

    def __init__(self, root: str | Path = ".", results: str | Path = "book/results") -> None:
        self.root = Path(root).absolute()
        own = self.root / uqlib.__name__
        store = self.root / "build/graph"
        self.package = Package(own if own.is_dir() else Path(uqlib.__file__).parent, store)
        self.cache = RecordCache(store)
        self.files = FileDigests(store / "files.json")
        self.roots = {"$RESULTS": os.path.abspath(results)} | tracing.noted_folders(self.root)
        self._names: dict[str, list[str]] = {}

    def code_of(self, notebook: str | Path, given: Mapping[str, Any]) -> Basis:
        """The part of a basis that does not come from a run: text, parameters, cells, definitions, packages.

        Raises:
            ValueError: if the notebook, one of its cells or a parameter is not what it must be.
        """
        source = Path(notebook).read_bytes()
        given = {name: value for name, value in given.items() if name != "record"}
        key = b"%s\n%s %s" % (source, os.fsencode(notebook), repr(sorted(given.items())).encode())
        about = self.cache.record(key, lambda _: outline(notebook, given))
        reached = self.package.reach(about["record"], about["mentions"])
        own = {name: about[name] for name in ("parameters", "cells")}
        return {"text": hashlib.sha256(source).hexdigest(), **own, **_reached(reached)}

    def digests(self, noted: Noted, since: float, skip: Iterable[str]) -> Basis:
        """The part of a basis that a run has read. What was written to after the run began is `UNSETTLED`.

        Args:
            noted: by `tracing`.
            since: when the run began, in seconds.
            skip: folders whose files do not count, besides that of the package.
        """
        skip = (f"{self.package.name}/", *skip)
        files, there, listed = {}, {}, []
        for path in noted.files:
            if (name := self._data_name(path, skip)) and not os.path.isdir(path):
                files[name] = self.files.digest(path, since)
        for path in noted.looked_for:
            if name := self._data_name(path, skip):
                there[name] = os.path.exists(path)
        for path, pattern in noted.listed:
            # libraries search for their like in every folder of sys.path, the checkout among them
            name = self._data_name(path, skip)
            if name and (name.startswith("$") or (self.root / name.split("/")[0]).exists()):
                listed.append([name, pattern, self.listing(path, pattern)])
        return {"files": files, "there": there, "listed": listed}

    def _data_name(self, path: str, skip: Iterable[str]) -> str | None:
        name = name_of(path, self.roots)
        if name is None or name == ".":
            return None
        parts = name.split("/")
        hidden = any(part.startswith(".") or part == "__pycache__" or part.endswith(".egg-info") for part in parts)
        return None if hidden or f"{name}/".startswith(tuple(skip)) else name

    def listing(self, folder: str, pattern: str) -> str:
        """The digest of the names below a folder that match a pattern."""
        if "**" in pattern:
            names = [path.relative_to(folder).as_posix() for path in Path(folder).glob(pattern)]
        else:
            names = list(self._matching(folder, pattern.split("/")))
        return hashlib.sha256("\n".join(sorted(n for n in names if not n.startswith("."))).encode()).hexdigest()[:32]

    def _matching(self, folder: str, parts: list[str]) -> Iterator[str]:
        """As a glob, but a folder is read once for all that is asked of it."""
        if folder not in self._names:
            try:
                self._names[folder] = os.listdir(folder)
            except OSError:
                self._names[folder] = []
        for name in fnmatch.filter(self._names[folder], parts[0]):
            if parts[1:]:
                yield from (f"{name}/{rest}" for rest in self._matching(os.path.join(folder, name), parts[1:]))
            else:
                yield name

    def outputs(self, folder: str | Path, names: Iterable[str]) -> dict[str, str]:
        """Digest of each of these files; of a folder, of all files in it."""
        found = {}
        for name in names:
            path = os.path.join(folder, name)
            if os.path.isdir(path):
                for inner in sorted(Path(path).rglob("*")):
                    if inner.is_file() and not inner.name.startswith("."):
                        found[f"{name}/{inner.relative_to(path).as_posix()}"] = self.files.digest(str(inner))
            else:
                found[name] = self.files.digest(path)
        return found

    def changed_data(self, basis: Basis) -> list[str]:
        """What a run had read and is another now."""
        found = []
        for name, digest in basis["files"].items():
            now = self.files.digest(path_of(name, self.roots))
            if now != digest:
                found.append(
                    f"{name} is gone" if now == ABSENT else f"{name} {'is new' if digest == ABSENT else 'changed'}"
                )
        for name, there in basis["there"].items():
            if os.path.exists(path_of(name, self.roots)) != there:
                found.append(f"{name} is {'gone' if there else 'new'}")
        for name, pattern, digest in basis["listed"]:
            if self.listing(path_of(name, self.roots), pattern) != digest:
                found.append(f"other files {name}/{pattern}")
        return list(dict.fromkeys(found))


def outline(notebook: str | Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """What of a notebook a run rests on: parameters as they are set, digests of the other cells, their names.

    Raises:
        ValueError: if a parameter or a cell is not what it must be.
    """
    known = notebooks.parameters(notebook)
    values = {name: each.default for name, each in known.items()} | notebooks.check_parameters(notebook, given)
    values.pop("record", None)
    cells, records = [], []
    for number, cell in enumerate(notebooks.read_body(notebook)["cells"]):
        if cell["cell_type"] == "code" and not {"parameters", "injected-parameters"} & set(notebooks.tags_of(cell)):
            text = notebooks.cell_text(cell)
            tree = notebooks.parse_cell(text, f"{notebook}: cell {number}")
            cells.append(_cell_digest(text, tree))
            records.append(read_module(tree))
    mentions = sorted(set(re.findall(r"[^\W\d]\w*", " ".join(map(repr, values.values())))))
    parameters = {name: repr(value) for name, value in values.items()}
    return {"parameters": parameters, "cells": cells, "record": join_records(records), "mentions": mentions}


def _cell_digest(text: str, tree: Any) -> str:
    """Of the code; a semicolon at the end keeps an output back, and what is not Python counts as it stands."""
    quiet = text.rstrip().endswith(";")
    foreign = [line for line in text.splitlines() if re.match(r"\s*([%!?]|[\w.]+\?)|.*=\s*[%!]\w", line)]
    magic = text if text.lstrip().startswith("%%") else "\n".join(foreign)
    return hashlib.sha256(f"{code_digest(tree)} {quiet} {magic}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _reached(reached: Reached) -> Basis:
    return {"definitions": reached.definitions, "packages": versions(reached.packages)}


# What was noted


def basis_path(output: str | Path) -> Path:
    """Where the basis of a run lies: beside its copy."""
    return Path(output).with_suffix(".basis")


def read_basis(path: str | Path) -> Basis | None:
    """A basis; None if there is none, or one that another version wrote."""
    basis = read_json(Path(path))
    return basis if basis is not None and basis.get("version") == VERSION else None


def write_basis(path: str | Path, basis: Basis) -> None:
    """Write a basis, whole or not at all."""
    write_text(path, json.dumps({"version": VERSION, **basis}, indent=1) + "\n")


def execute_noted(notebook: str | Path, output: str | Path, given: Mapping[str, Any], *, progress: bool = True) -> Path:
    """Run a notebook as `notebooks.execute`, and note what it rested on; code that changes meanwhile makes it stale.

    Raises:
        RuntimeError: if a cell fails, the kernel dies, or it could not be traced.
    """
    output, began = Path(output), time.time()
    checkout = Checkout(notebooks.checkout_of(notebook) or ".")
    code = checkout.code_of(notebook, given)
    basis_path(output).unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        reads = f"{folder}/reads"
        done = notebooks.execute(
            notebook, output, given, progress=progress, reads=reads, folders=checkout.roots.values()
        )
        if not os.path.exists(reads):
            raise RuntimeError(
                f"{notebook}: what it reads could not be noted; does its kernel import {uqlib.__name__}?"
            )
        data = checkout.digests(tracing.noted(reads), began, NO_DATA)
    basis = {**code, **data, "outputs": checkout.outputs(output.parent, _outputs(output))}
    write_basis(basis_path(output), basis)
    checkout.files.keep()
    return done


def _outputs(output: Path) -> list[str]:
    return [output.name, f"{output.stem}.json", f"{output.stem}.figures"]


# What has changed


def reasons(notebook: str | Path, output: str | Path, given: Mapping[str, Any], checkout: Checkout) -> list[str]:
    """Why the copy of a notebook is not what a run would give now; empty if it is, TEXT_ALONE if only text differs."""
    basis, output = read_basis(basis_path(output)), Path(output)
    if basis is None:
        return ["new"]
    try:
        now = checkout.code_of(notebook, given)
        found = _lost(basis, checkout.outputs(output.parent, _outputs(output)))
        found += _of_parameters(basis, now)
        found += ["its cells changed"] * (basis["cells"] != now["cells"])
        found += _of_code(basis, now, checkout.package.name) + checkout.changed_data(basis)
        return found or [TEXT_ALONE] * (basis["text"] != now["text"])
    except FORESEEN as error:
        return [f"{error}".splitlines()[0] if f"{error}" else type(error).__name__]  # the run itself says more


def _lost(basis: Basis, now: Mapping[str, str]) -> list[str]:
    names = dict.fromkeys([*basis["outputs"], *now])
    return [
        f"{name} is {'gone' if now.get(name, ABSENT) == ABSENT else 'not as it was written'}"
        for name in names
        if now.get(name, ABSENT) != basis["outputs"].get(name, ABSENT)
    ]


def _of_parameters(basis: Basis, now: Basis) -> list[str]:
    before, after = basis["parameters"], now["parameters"]
    return [
        f"{name} = {after[name]}" if name in after else f"no parameter {name}"
        for name in dict.fromkeys([*before, *after])
        if before.get(name) != after.get(name)
    ]


def _of_code(basis: Basis, now: Basis, package: str) -> list[str]:
    """What changed among definitions and packages; those that only came or went are named if nothing else is."""
    before, after = basis["definitions"], now["definitions"]
    short = lambda name: name.removeprefix(f"{package}.")  # noqa: E731
    changed = [f"{short(name)} changed" for name in before if after.get(name, before[name]) != before[name]]
    moved = [f"{short(n)} {'is gone' if n in before else 'is new'}" for n in sorted(before.keys() ^ after.keys())]
    old, new = basis["packages"], now["packages"]
    versions = [
        f"{n} {new.get(n, 'unused')}, was {old.get(n, 'unused')}" for n in old | new if old.get(n) != new.get(n)
    ]
    return (changed or moved) + versions


def shortened(found: list[str]) -> str:
    """Reasons in one line."""
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    return ", ".join(found[:3]) + more


def refresh_copy(notebook: str | Path, output: str | Path, given: Mapping[str, Any]) -> None:
    """Take over the text of a notebook whose copy is stale by TEXT_ALONE, into copy and basis."""
    output, basis = Path(output), read_basis(basis_path(output))
    assert basis is not None
    checkout = Checkout(notebooks.checkout_of(notebook) or ".")
    notebooks.refresh(notebook, output, given)
    basis["text"] = checkout.code_of(notebook, given)["text"]
    basis["outputs"] |= checkout.outputs(output.parent, [output.name])
    write_basis(basis_path(output), {name: part for name, part in basis.items() if name != "version"})


# The book: notebooks, pages, HTML


def find_stale(
    results: str | Path, html: str | Path, given: Mapping[str, Any], root: str | Path = "."
) -> dict[str, list[str]]:
    """Reasons by what is stale: PAPER/NAME of the notebooks, "pages", "book". What follows from another is named by it.

    Args:
        results: folder of the executed copies.
        html: folder in which the HTML lies, in `html`.
        given: parameters of every run.
        root: of the checkout; the other folders are seen from the current one.
    """
    checkout, results, found = Checkout(root, results), Path(results), {}
    names = [f"{path.parent.name}/{path.stem}" for path in notebooks.paths(checkout.root / "notebooks")]
    for name in names:
        output = results / f"{name}.ipynb"
        found[name] = reasons(checkout.root / f"notebooks/{name}.ipynb", output, given, checkout)
    to_run = [name for name in names if found[name] not in ([], [TEXT_ALONE])]
    found["pages"] = _waits(to_run) or _pages_reasons(results, checkout)
    waits = _waits([name for name in names if found[name]]) + ["pages"] * bool(found["pages"])
    found["book"] = waits or _book_reasons(results, Path(html), checkout)
    checkout.files.keep()
    return {name: why for name, why in found.items() if why}


def _waits(names: list[str]) -> list[str]:
    return [f"after {shortened(names)}"] if names else []


def _pages_code(checkout: Checkout) -> Basis:
    return _reached(checkout.package.reach_names("uqlib.book.pages.write_pages"))


def _pages_reasons(results: Path, checkout: Checkout) -> list[str]:
    basis = read_basis(results / "pages.basis")
    if basis is None:
        return ["new"]
    try:
        found = _lost(basis, checkout.outputs(results, PAGES))
        return found + _of_code(basis, _pages_code(checkout), checkout.package.name) + checkout.changed_data(basis)
    except FORESEEN as error:
        return [f"{error}"]


@contextlib.contextmanager
def noting_pages(results: str | Path, root: str | Path = ".") -> Iterator[None]:
    """While the pages are computed, note what this process reads; then write the basis of the pages."""
    results, began = Path(results).absolute(), time.time()
    checkout = Checkout(root, results)
    code = _pages_code(checkout)
    (results / "pages.basis").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        hook = tracing.note_reads(f"{folder}/reads", checkout.roots.values())
        try:
            yield
        finally:
            hook.stop()
        data = checkout.digests(tracing.noted(f"{folder}/reads"), began, BUILT)
    write_basis(results / "pages.basis", {**code, **data, "outputs": checkout.outputs(results, PAGES)})
    checkout.files.keep()


def _book_reasons(results: Path, html: Path, checkout: Checkout) -> list[str]:
    basis = read_basis(html / "html.basis")
    if basis is None:
        return ["new"]
    try:
        now = book_basis(results, html, checkout)
        found = _lost(basis, now["outputs"]) + _of_code(basis, now, checkout.package.name)
        old, new = basis["files"], now["files"]
        return found + [f"{name} changed" for name in sorted(old | new) if old.get(name) != new.get(name)]
    except FORESEEN as error:
        return [f"{error}"]


def book_basis(results: str | Path, html: str | Path, checkout: Checkout) -> Basis:
    """What the HTML rests on: copies, pages, prose, configuration, notebooks (to download), docstrings, the builders."""
    results, root = Path(results).absolute(), checkout.root
    names = [f"{path.parent.name}/{path.stem}.ipynb" for path in notebooks.paths(root / "notebooks")]
    prose = [
        p
        for p in (root / "book").rglob("*")
        if p.is_file() and results not in p.parents and "__pycache__" not in p.parts
    ]
    paths = [*prose, root / "_config.yml", *notebooks.paths(root / "notebooks"), *checkout.package.paths.values()]
    files = {os.path.relpath(path, root): checkout.files.digest(str(path)) for path in sorted(paths)}
    files |= {f"results/{name}": checkout.files.digest(str(results / name)) for name in (*names, *PAGES)}
    built = {name: checkout.files.digest(os.path.join(html, name)) for name in ("html/.buildinfo", "html/index.html")}
    return {"files": files, "outputs": built, "definitions": {}, "packages": versions(BUILDERS)}


@contextlib.contextmanager
def noting_book(results: str | Path, place: str | Path, root: str | Path = ".") -> Iterator[None]:
    """While the HTML at `place` is built from what lies there now; what changes meanwhile makes it stale."""
    html = Path(place).parent
    before = book_basis(results, html, Checkout(root, results))
    (html / "html.basis").unlink(missing_ok=True)
    yield
    write_basis(
        html / "html.basis", before | {"outputs": book_basis(results, html, Checkout(root, results))["outputs"]}
    )


def write_flags(found: Mapping[str, list[str]], folder: str | Path, results: str | Path, html: str | Path) -> None:
    """One file for each stale run, in FOLDER/NAME.stale, younger than its outputs; those of what is fresh are removed."""
    folder = Path(folder)
    wanted = {folder / f"{name}.stale": name for name, why in found.items() if why != [TEXT_ALONE]}
    for path in [path for path in folder.rglob("*") if path.is_file() and path not in wanted]:
        path.unlink(missing_ok=True)
    for path, name in wanted.items():
        write_text(path, "\n".join(found[name]) + "\n")
        now = path.stat().st_mtime
        for output in _outputs_of(name, Path(results), Path(html)):
            if output.exists() and output.stat().st_mtime >= now:  # of a clock that ran ahead
                os.utime(output, (now - SETTLED,) * 2)


def _outputs_of(name: str, results: Path, html: Path) -> list[Path]:
    if name == "pages":
        return [results / page for page in PAGES]
    if name == "book":
        return [html / "html/.buildinfo"]
    output = results / f"{name}.ipynb"
    return [basis_path(output), *(output.with_name(each) for each in _outputs(output))]
