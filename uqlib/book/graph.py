"""Which definitions of a package a piece of code reaches, found by names and without importing anything.

What is reached is a superset of what can run: where a name leads cannot be seen (a module that is passed on as a value, an
attribute that a module does not define, a computed import), all of that module counts. Three rules keep it small:

- A method counts once its class is reached and its name is mentioned, as an attribute or as a word in quotes, by anything
  that is reached. Methods of a class with a base from elsewhere count with it, for its owner calls them by names of its own.
- Of a module that is only imported, its effects count: what it does when it is imported and that defines nothing.
- Annotations of functions and docstrings do not count (see `definitions`).

Not seen: an attribute of an object whose name comes out of a data file; decorators of WRAPPING that are redefined.
"""

import builtins
import contextlib
import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from uqlib.book.definitions import VERSION, Piece, Record, join_pieces, read_module
from uqlib.files.whole import write_text

DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "cv2": "opencv-python",
    "yaml": "PyYAML",
    "laplace": "laplace-torch",
}
# bases whose owner calls no method by a name of its own
HOOKLESS = {"object", "NamedTuple", "Struct", "Protocol", "Generic", "ABC"}
EFFECTS = "<import>"  # the name of what a module does when it is imported
SOURCE = ""  # the module that a notebook or another source from outside of the package is


class Node(NamedTuple):
    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Links(NamedTuple):
    """Where the names of a piece lead."""

    nodes: frozenset[Node]
    whole: frozenset[str]  # modules of which everything counts
    loaded: tuple[str, ...]  # modules that are imported inside
    packages: frozenset[str]  # top modules from elsewhere
    digest: str  # of the piece, and of what its names mean outside of the package


class Reached(NamedTuple):
    """What a piece of code rests on."""

    definitions: dict[str, str]  # digests by qualified name
    packages: set[str]  # top modules from elsewhere, as they are imported


class Package:
    """The definitions of a package, read when they are asked for; records of files that did not change come from a cache.

    Args:
        folder: of the package; its name is that by which it is imported.
        stored: folder of the cache; None keeps nothing.
    """

    def __init__(self, folder: str | Path, stored: str | Path | None = None) -> None:
        self.folder, self.name = Path(folder).resolve(), Path(folder).resolve().name
        self.stored = RecordCache(stored)
        self.paths = {self._module_of(path): path for path in sorted(self.folder.rglob("*.py"))}
        self._records: dict[str, Record] = {}
        self._bindings: dict[str, dict[str, list[Any]]] = {}  # imports of a module, by bound name
        self._links: dict[Node, Links] = {}
        self._externals: dict[tuple[str, str], bool] = {}

    def _module_of(self, path: Path) -> str:
        parts = path.relative_to(self.folder.parent).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def reach(self, record: Record, mentions: Iterable[str] = ()) -> Reached:
        """What a source reaches that stands outside of the package, such as the cells of a notebook.

        Args:
            record: of the source, as `definitions.read_module` gives it.
            mentions: words that reach it from outside, such as values of parameters.
        """
        self._forget_source()
        self._records[SOURCE] = record
        walk = _Walk(self)
        walk.mention(mentions)
        walk.load(SOURCE)
        walk.take_whole(SOURCE)
        return walk.result()

    def reach_names(self, *names: str) -> Reached:
        """What definitions of the package reach, each named `module.definition`, such as "uqlib.book.pages.write_pages"."""
        lines = [f"import {name.rpartition('.')[0]}\n{name}\n" for name in names]
        return self.reach(read_module("".join(lines)))

    def _forget_source(self) -> None:
        for node in [node for node in self._links if node.module == SOURCE]:
            del self._links[node]
        self._bindings.pop(SOURCE, None)

    def record(self, module: str) -> Record:
        if module not in self._records:
            self._records[module] = self.stored.record(self.paths[module].read_bytes())
        return self._records[module]

    def bindings(self, module: str) -> dict[str, list[Any]]:
        if module not in self._bindings:
            found = self._bindings[module] = {}
            for binding in self.record(module)["imports"]:
                found.setdefault(binding[0], []).append(binding)
        return self._bindings[module]

    def pieces(self, node: Node) -> Any:  # a Piece; None where there is no such node
        record = self.record(node.module)
        return record["effects"] if node.name == EFFECTS else record["definitions"].get(node.name)

    def nodes_of(self, module: str) -> Iterator[Node]:
        record = self.record(module)
        yield from (Node(module, name) for name in record["definitions"])
        if record["effects"]:
            yield Node(module, EFFECTS)

    def parents(self, module: str) -> list[str]:
        """A module of the package and the packages around it, outermost first."""
        parts = module.split(".")
        return [name for n in range(1, len(parts) + 1) if (name := ".".join(parts[:n])) in self.paths]

    def links(self, node: Node) -> Links:
        if node not in self._links:
            self._links[node] = self._linked(node, self.pieces(node))
        return self._links[node]

    def _linked(self, node: Node, piece: Piece) -> Links:
        found = _Targets()
        local: dict[str, list[Any]] = {}
        for binding in piece["imports"]:
            local.setdefault(binding[0], []).append(binding)
        loaded = [module for binding in piece["imports"] for module in self._loaded_by(node.module, binding)]
        for name in piece["names"]:
            head, *rest = name.split(".")
            if head in local:
                for binding in local[head]:
                    self._through(node.module, binding, rest, found, set())
            self._look_up(node.module, head, rest, found, set())
        for binding in (b for name in ("*", "*whole*") for b in local.get(name, [])):
            self._take_whole_import(node.module, binding, found)
        for bound, bindings in local.items():  # what is imported there is used there
            if bound not in ("*", "*whole*"):
                for binding in bindings:
                    found.outside.update(self._outside(node.module, binding))
        if piece["whole"]:
            found.whole.add(node.module)
        digest = hashlib.sha256(" ".join([piece["digest"], *sorted(found.meanings)]).encode()).hexdigest()[:32]
        return Links(frozenset(found.nodes), frozenset(found.whole), tuple(loaded), frozenset(found.outside), digest)

    def _absolute(self, module: str, level: int, name: str) -> str:
        """The module that an import names; one that leads out of the package gives the name as it stands."""
        if not level:
            return name
        path = self.paths.get(module)
        parts = module.split(".")
        base = parts[: len(parts) - level + (path is not None and path.name == "__init__.py")]
        return ".".join([*base, *([name] if name else [])])

    def _is_ours(self, module: str) -> bool:
        return module == self.name or module.startswith(f"{self.name}.")

    def _outside(self, module: str, binding: list[Any]) -> list[str]:
        name = self._absolute(module, *binding[1:3])
        return [] if self._is_ours(name) or not name else [name.split(".")[0]]

    def _loaded_by(self, module: str, binding: list[Any]) -> list[str]:
        """The modules of the package that an import runs."""
        base = self._absolute(module, *binding[1:3])
        if not self._is_ours(base):
            return []
        return self.parents(f"{base}.{binding[3]}" if binding[3] else base)

    def _take_whole_import(self, module: str, binding: list[Any], found: "_Targets") -> None:
        """A star inside of a function, or a module imported by a computed name."""
        base = self._absolute(module, *binding[1:3])
        if binding[2] == "*":
            found.whole.update(self.paths)
        elif base in self.paths:
            found.whole.add(base)
        elif base and not self._is_ours(base):
            found.outside.add(base.split(".")[0])

    def _look_up(self, module: str, head: str, rest: list[str], found: "_Targets", seen: set) -> bool:
        """Add where a name of a module leads; whether it leads anywhere."""
        if (module, head, *rest) in seen:
            return True
        seen.add((module, head, *rest))
        bindings, own = self.bindings(module), head in self.record(module)["definitions"]
        if own:
            found.nodes.add(Node(module, head))
        for binding in bindings.get(head, ()):
            self._through(module, binding, rest, found, seen)
        if own or head in bindings:
            return True
        there = False
        for binding in bindings.get("*", ()):
            there |= self._through_star(module, binding, head, rest, found, seen)
        return there

    def _through(self, module: str, binding: list[Any], rest: list[str], found: "_Targets", seen: set) -> None:
        """Follow an import to what it names, and the attributes behind it."""
        base = self._absolute(module, *binding[1:3])
        if self._is_ours(base):
            self._walk(base, [*([binding[3]] if binding[3] else []), *rest], found, seen)
        elif base:
            found.outside.add(base.split(".")[0])
            found.meanings.add(f"{binding[0]}={base}:{binding[3]}")

    def _through_star(
        self, module: str, binding: list[Any], head: str, rest: list[str], found: "_Targets", seen: set
    ) -> bool:
        base = self._absolute(module, *binding[1:3])
        if base in self.paths:
            return self._look_up(base, head, rest, found, seen)
        if base and not self._is_ours(base) and not hasattr(builtins, head):
            found.outside.add(base.split(".")[0])  # it may come from there
            found.meanings.add(f"{head}={base}:*")
        return False

    def _walk(self, module: str, rest: list[str], found: "_Targets", seen: set) -> None:
        """Follow attributes from a module of the package."""
        if module not in self.paths:
            if rest or module != self.name:
                found.meanings.add(f"missing {module}")
            return
        if not rest:
            found.whole.add(module)
            return
        there = self._look_up(module, rest[0], rest[1:], found, seen)
        if f"{module}.{rest[0]}" in self.paths and (not there or rest[1:]):
            self._walk(f"{module}.{rest[0]}", rest[1:], found, seen)
        elif not there and rest[0] not in ("__name__", "__file__", "__path__", "__version__"):
            found.whole.add(module)  # __getattr__, __dict__, or set by somebody: all of it may matter

    def has_owner_elsewhere(self, module: str, name: str) -> bool:
        """Whether a class has a base that is not of the package and may call its methods."""
        if (module, name) not in self._externals:
            self._externals[module, name] = False  # a class in its own bases is no reason to go round
            self._externals[module, name] = any(
                self._is_elsewhere(module, base) for base in self.record(module)["classes"][name]["bases"]
            )
        return self._externals[module, name]

    def _is_elsewhere(self, module: str, base: str) -> bool:
        own = self._base_classes(module, base)
        if own:
            return any(self.has_owner_elsewhere(*node) for node in own)
        last = base.split(".")[-1]
        kind = getattr(builtins, last, None)
        return not (last in HOOKLESS or (isinstance(kind, type) and issubclass(kind, BaseException)))

    def _base_classes(self, module: str, base: str) -> list[Node]:
        found = _Targets()
        if base:
            head, *rest = base.split(".")
            self._look_up(module, head, rest, found, set())
        return [node for node in found.nodes if node.name in self.record(node.module)["classes"]]

    def is_registered_by_base(self, module: str, name: str, seen: tuple = ()) -> bool:
        """Whether making the class runs an `__init_subclass__` of the package."""
        bases = [n for base in self.record(module)["classes"][name]["bases"] for n in self._base_classes(module, base)]
        return any(
            self.record(n.module)["classes"][n.name]["hook"]
            or (n not in seen and self.is_registered_by_base(*n, seen=(*seen, n)))
            for n in bases
        )


class _Targets:
    def __init__(self) -> None:
        self.nodes: set[Node] = set()
        self.whole: set[str] = set()
        self.outside: set[str] = set()
        self.meanings: set[str] = set()


class _Walk:
    """One search: what is reached so far, and the methods that wait for their names to be mentioned."""

    def __init__(self, package: Package) -> None:
        self.package = package
        self.nodes: dict[Node, Links] = {}
        self.modules: set[str] = set()
        self.wholes: set[str] = set()
        self.outside: set[str] = set()
        self.mentions: set[str] = set()
        self.patterns: set[str] = set()
        self.methods: dict[str, set[Node]] = {}
        self.waiting: list[Node] = []

    def result(self) -> Reached:
        while self.waiting:
            self._follow(self.waiting.pop())
        own = {node: links.digest for node, links in self.nodes.items() if node.module != SOURCE}
        return Reached({str(node): own[node] for node in sorted(own)}, self.outside - {self.package.name, ""})

    def take(self, node: Node) -> None:
        if node not in self.nodes and self.package.pieces(node) is not None:
            self.nodes[node] = self.package.links(node)
            self.waiting.append(node)

    def take_whole(self, module: str) -> None:
        if module not in self.wholes:
            self.wholes.add(module)
            for node in self.package.nodes_of(module):
                self.take(node)

    def load(self, module: str) -> None:
        """Import a module: its effects count, and those of all that it imports in turn."""
        waiting = [module]
        while waiting:
            here = waiting.pop()
            if here not in self.modules:
                self.modules.add(here)
                record = self.package.record(here)
                self.take(Node(here, EFFECTS))
                for name in record["classes"]:
                    if here != SOURCE and self.package.is_registered_by_base(here, name):
                        self.take(Node(here, name))
                for binding in record["imports"]:
                    waiting += self.package._loaded_by(here, binding)

    def mention(self, words: Iterable[str]) -> None:
        for word in set(words) - self.mentions:
            self.mentions.add(word)
            for node in self.methods.pop(word, ()):
                self.take(node)

    def _match(self, pattern: str) -> None:
        if pattern not in self.patterns:
            self.patterns.add(pattern)
            for name in [name for name in self.methods if re.fullmatch(pattern, name)]:
                self.mention([name])

    def _follow(self, node: Node) -> None:
        piece, links = self.package.pieces(node), self.nodes[node]
        self.outside |= links.packages
        for module in links.loaded:
            self.load(module)
        for module in links.whole:
            self.load(module)
            self.take_whole(module)
        for each in links.nodes:
            self.take(each)
        self.mention(piece["mentions"])
        for pattern in piece["patterns"]:
            self._take_own(node) if pattern == ".*" else self._match(pattern)
        if node.name in self.package.record(node.module)["classes"]:
            self._open_class(node)

    def _take_own(self, node: Node) -> None:
        """A computed attribute of `self` may be any method of the class."""
        about = self.package.record(node.module)["classes"].get(node.name.split(".")[0])
        self.mention(about["methods"] if about else ())

    def _open_class(self, node: Node) -> None:
        about = self.package.record(node.module)["classes"][node.name]
        all_of_them = self.package.has_owner_elsewhere(*node)
        for name in about["methods"]:
            method = Node(node.module, f"{node.name}.{name}")
            if all_of_them or name in self.mentions or any(re.fullmatch(each, name) for each in self.patterns):
                self.take(method)
            else:
                self.methods.setdefault(name, set()).add(method)


class RecordCache:
    """Records by the sha256 of their sources, one file each; a broken or foreign one is made again."""

    def __init__(self, folder: str | Path | None) -> None:
        self.folder = (
            None if folder is None else Path(folder) / f"{sys.version_info[0]}.{sys.version_info[1]}-{VERSION}"
        )

    def record(self, source: bytes, read: Any = None) -> Any:
        """The record of a source, made by `read` (a module's by default) unless it is known."""
        name = hashlib.sha256(source).hexdigest()
        place = None if self.folder is None else self.folder / f"{name}.json"
        if place is not None:
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
                body = json.loads(place.read_bytes())
                if body["source"] == name:
                    return body["record"]
        record = (read or _of_bytes)(source)
        if place is not None:
            with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not truth
                write_text(place, json.dumps({"source": name, "record": record}))
        return record


def _of_bytes(source: bytes) -> Record:
    return read_module(source.decode("utf-8"))


def join_records(records: Iterable[Record]) -> Record:
    """Several sources of which everything runs, such as the cells of a notebook, as one that has nothing but effects."""
    records = list(records)
    pieces = [piece for record in records for piece in (*record["definitions"].values(), record["effects"]) if piece]
    imports = [binding for record in records for binding in record["imports"]]
    return {"imports": imports, "definitions": {}, "classes": {}, "effects": join_pieces(pieces)}


def versions(modules: Iterable[str]) -> dict[str, str]:
    """Version of each distribution that holds one of these top modules; those of Python itself count by its own version."""
    found = {"python": f"{sys.version_info[0]}.{sys.version_info[1]}"}
    for module in sorted(set(modules) - sys.stdlib_module_names):
        name, version = _version(module)
        if version:
            found[name] = version
    return found


@cache
def _version(module: str) -> tuple[str, str]:
    name = DISTRIBUTIONS.get(module, module)
    try:
        return name, metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
    for name in _distributions().get(module, []):
        return name, metadata.version(name)
    return module, ""


@cache
def _distributions() -> dict[str, list[str]]:
    return {module: list(names) for module, names in metadata.packages_distributions().items()}
