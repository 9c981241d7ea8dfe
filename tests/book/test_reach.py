"""The graph against the live objects: what bytecode of the real package loads, found without `uqlib.book.graph`.

The oracle imports everything. It follows what each code object loads (names of its live globals, attributes of live modules),
values in containers and defaults, bases, and methods whose names are loaded or quoted anywhere. It sees less than the graph
where values are folded into code (a constant in a default), so there the graph may have more, if the name stands in the text
of something reached.
"""

import ast
import dis
import functools
import importlib
import inspect
import json
import os
import random
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import pytest

import uqlib
from uqlib.book import definitions, graph, notebooks

NAME = uqlib.__name__
SAMPLE = 50


def modules(package: Path) -> dict[str, types.ModuleType]:
    found = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = importlib.import_module(name)
    return found


class Oracle:
    """What one notebook reaches, by live objects: (module, qualified name)."""

    def __init__(self, live: dict[str, types.ModuleType]) -> None:
        self.live, self.found, self.mentions = live, set(), set()
        self.classes: list[type] = []
        self.imported: set[str] = set()

    def run(self, cells: list[str]) -> set[tuple[str, str]]:
        space: dict = {}
        for cell in cells:
            tree = ast.parse(cell)
            imports = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
            exec(compile(ast.Module(imports, []), "cell", "exec"), space)
        for value in list(space.values()):
            self.import_of(value)
        for cell in cells:
            self.code(compile(cell, "cell", "exec"), space)
        before = -1
        while before != len(self.found) + len(self.mentions):
            before = len(self.found) + len(self.mentions)
            for kind in list(self.classes):
                self.methods(kind)
        return self.found

    def import_of(self, value) -> None:
        """Modules are imported with those whose objects they hold; what they register then is reached."""
        name = value.__name__ if isinstance(value, types.ModuleType) else getattr(value, "__module__", None)
        if isinstance(name, str) and name in self.live and name not in self.imported:
            self.imported.add(name)
            for each in list(vars(self.live[name]).values()):
                self.import_of(each)
            if name.endswith(".networks.zoo"):  # the one module that registers
                source = Path(self.live[name].__file__).read_text()
                self.code(compile(source, "module", "exec"), vars(self.live[name]), nested=False)

    def code(self, code, space, *, nested=True) -> None:
        local: dict = {}
        current, module = None, None
        for step in dis.get_instructions(code):
            load, name = step.opname, step.argval
            if load in ("LOAD_GLOBAL", "LOAD_NAME"):
                current = self.name(space, name) if name in space else None
            elif load == "LOAD_FAST":
                current = local.get(name)
            elif load in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR"):
                self.mentions.add(name)
                is_ours = isinstance(current, types.ModuleType) and current.__name__ in self.live
                current = self.name(vars(current), name) if is_ours and name in vars(current) else None
            elif load == "IMPORT_NAME":
                module = sys.modules.get(name) if code.co_flags & inspect.CO_NEWLOCALS else None
                self.import_of(module)
            elif load == "IMPORT_FROM" and module is not None:
                current = getattr(module, name, None)
                if isinstance(current, types.ModuleType):
                    self.import_of(current)
                elif module.__name__ in self.live:
                    self.name(vars(module), name)
            elif load == "STORE_FAST":
                local[name] = current
            elif load == "LOAD_CONST":
                self.constant(name)
            else:
                current = None if load not in ("PRECALL", "PUSH_NULL", "EXTENDED_ARG", "RESUME", "NOP") else current
        for each in code.co_consts:
            if isinstance(each, types.CodeType) and (nested or each.co_name == "<lambda>"):
                self.code(each, space)

    def constant(self, value) -> None:
        if isinstance(value, str) and re.fullmatch(r"[^\W\d]\w*", value):
            self.mentions.add(value)
        elif isinstance(value, tuple | frozenset):
            for each in value:
                self.constant(each)

    def name(self, space, name):
        """A name of a namespace was loaded: note where it is defined."""
        value = space[name]
        if isinstance(value, type) and value.__module__ not in self.live:
            return value  # of another package, or an alias that annotations of inner functions load
        if not isinstance(value, types.ModuleType) and not self.object(value):
            home = self.home(space, name, value)
            if home and (home, name) not in self.found:
                self.found.add((home, name))
                self.inside(value)
        return value

    def home(self, space, name, value) -> str | None:
        """The module whose text sets a value that does not say where it comes from."""
        own = space.get("__name__")
        places = [own, *self.live] if own in self.live else list(self.live)
        return next(
            (m for m in places if name in assigned(self.live[m]) and vars(self.live[m]).get(name) is value), None
        )

    def object(self, value) -> bool:
        """A function or class of the package; whether it is one."""
        home, name = getattr(value, "__module__", None), getattr(value, "__qualname__", None)
        if home not in self.live or not isinstance(name, str) or "<" in name:
            return False
        if not isinstance(value, type) and not callable(value):
            return False
        if (home, name) not in self.found:
            self.found.add((home, name))
            if isinstance(value, type):
                self.open(value)
            else:
                self.function(value)
        return True

    def function(self, value) -> None:
        value = inspect.unwrap(value)
        if isinstance(value, types.FunctionType):
            self.code(value.__code__, value.__globals__)
            self.inside([*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()])

    def inside(self, value, depth=0) -> None:
        if depth > 4 or self.object(value):
            return
        if isinstance(value, functools.partial):
            self.inside([value.func, *value.args, *value.keywords.values()], depth + 1)
        elif isinstance(value, dict | types.MappingProxyType):
            for each in (*value, *value.values()):
                self.inside(each, depth + 1)
        elif isinstance(value, list | tuple | set | frozenset):
            for each in value:
                self.inside(each, depth + 1)
        elif isinstance(value, str):
            self.constant(value)
        elif isinstance(value, types.FunctionType) and value.__module__ in self.live:
            self.function(value)  # a lambda
        elif type(value).__module__ in self.live:
            self.object(type(value))

    def open(self, kind: type) -> None:
        for base in kind.__mro__[1:]:
            self.object(base)
        self.classes.append(kind)
        for name, value in vars(kind).items():
            if not name.startswith("__") and not function_of(value):
                self.inside(value)

    def methods(self, kind: type) -> None:
        elsewhere = any(
            base.__module__ not in self.live and base not in (object, tuple) and not issubclass(base, BaseException)
            and base.__module__.split(".")[0] not in ("abc", "typing", "msgspec") for base in kind.__mro__
        )  # fmt: skip
        for name, value in vars(kind).items():
            function = function_of(value)
            if function is None or function.__code__.co_filename != self.live[kind.__module__].__file__:
                # a dataclass or a NamedTuple wrote it
                continue
            dunder = name.startswith("__") and name.endswith("__")
            place = (kind.__module__, f"{kind.__qualname__}.{name}")
            if place not in self.found and (dunder or elsewhere or name in self.mentions):
                self.found.add(place)
                self.function(function)


def function_of(value):
    value = getattr(value, "fget", None) or getattr(value, "func", None) or getattr(value, "__func__", None) or value
    value = inspect.unwrap(value) if callable(value) else value
    return value if isinstance(value, types.FunctionType) else None


@functools.cache
def assigned(module: types.ModuleType) -> frozenset[str]:
    """Names that assignments at the top of a module set."""
    tree = ast.parse(Path(module.__file__).read_text())
    targets = [
        t
        for n in tree.body
        if isinstance(n, ast.Assign | ast.AnnAssign)
        for t in getattr(n, "targets", None) or [n.target]
    ]
    return frozenset(n.id for t in targets for n in ast.walk(t) if isinstance(n, ast.Name))


@pytest.fixture(scope="module")
def package(repository):
    return repository / NAME


@pytest.fixture(scope="module")
def oracle(repository, package):
    """What each notebook reaches, as the live objects have it; a dunder method belongs to its class."""
    live = modules(package)
    found = {}
    for path in notebooks.paths(repository / "notebooks"):
        cells = [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "code"]
        plain = [re.sub(r"^\s*[%!].*", "pass", "".join(c["source"]), flags=re.M) for c in cells]
        found[f"{path.parent.name}/{path.stem}"] = {
            f"{module}.{re.sub(r'[.]__[a-z_]+__$', '', name)}" for module, name in Oracle(live).run(plain)
        }
    return found


REACHED = """
import json, sys
from uqlib.book import notebooks, staleness
checkout = staleness.Checkout()
names = {path: f"{path.parent.name}/{path.stem}" for path in notebooks.paths()}
print(json.dumps({name: checkout.code_of(path, {})["definitions"] for path, name in names.items()}))
"""


def reached(root: Path) -> dict[str, dict[str, str]]:
    """Digests of what each notebook reaches; in a process of its own, where no type is checked at run time."""
    env = os.environ | {"PYTHONPATH": str(Path(uqlib.__file__).parents[1])}
    command = [sys.executable, "-P", "-c", REACHED]
    return json.loads(subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, env=env).stdout)


@pytest.fixture(scope="module")
def copy(repository, tmp_path_factory):
    root = tmp_path_factory.mktemp("copy")
    for name in (NAME, "notebooks"):
        shutil.copytree(repository / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "pyproject.toml").touch()
    return root


def test_nothing_that_the_live_objects_reach_is_missed(oracle, copy):
    for name, found in reached(copy).items():
        # the oracle takes all that networks.py does when it is imported, and what guards imports, which counts for nothing
        aside = (f"{NAME}.networks.zoo.", f"{NAME}.base.extras.")
        lost = {each for each in oracle[name] if each not in found and not each.startswith(aside)}
        assert not lost, f"{name}: {sorted(lost)}"


def test_little_more_is_reached_and_all_of_it_is_named(oracle, copy):
    package, known = graph.Package(copy / NAME), {}
    for name, found in reached(copy).items():
        words = set(re.findall(r"\w+", (copy / f"notebooks/{name}.ipynb").read_text()))
        for each in found:
            words |= known[each] if each in known else known.setdefault(each, words_beside(package, each))
        for each in set(found) - oracle[name]:
            last = each.rpartition(".")[2]
            assert last == graph.EFFECTS or last in words, f"{name}: {each} is named nowhere"


def words_beside(package, name: str) -> set[str]:
    """The words of the file in which a definition stands, without its own line."""
    module = max((m for m in package.paths if name.startswith(f"{m}.")), key=len)
    own = name.rpartition(".")[2]
    line = re.compile(rf"\s*(def|class) {own}\b|{re.escape(own)}\b.* = ")
    lines = package.paths[module].read_text().splitlines()
    return set(re.findall(r"\w+", "\n".join(each for each in lines if not line.match(each))))


def changed(source: str, name: str, *, words: bool = False) -> str:
    """A module in which one definition does something else, or in which only comments and docstrings do."""
    tree = ast.parse(source)
    owner, _, method = name.rpartition(".")
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == (method or name):
            inner = owner and not any(
                isinstance(c, ast.ClassDef) and c.name == owner and node in c.body for c in ast.walk(tree)
            )
            if not inner and (owner or node in tree.body):
                node.body.append(ast.parse("_ = 0").body[0])
        elif (
            not owner and isinstance(node, ast.Assign | ast.AnnAssign) and node in tree.body and node.value is not None
        ):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(n, ast.Name) and n.id == name for t in targets for n in ast.walk(t)):
                node.value = ast.Subscript(
                    ast.Tuple([node.value, ast.Constant(0)], ast.Load()), ast.Constant(0), ast.Load()
                )
    return ast.unparse(ast.fix_missing_locations(tree))


def all_definitions(package: Path) -> list[tuple[Path, str, str]]:
    found = []
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        module = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        record = definitions.read_module(path.read_text())
        found += [(path.relative_to(package.parent), module, name) for name in record["definitions"]]
    return found


@pytest.mark.slow
def test_fifty_definitions_changed_in_turn_make_exactly_the_right_notebooks_stale(repository, package, copy, oracle):
    before = reached(copy)
    sample = random.Random(0).sample(all_definitions(package), SAMPLE)
    exact = 0
    for path, module, name in sample:
        file = copy / path
        original = file.read_text()
        file.write_text(changed(original, name))
        try:
            after = reached(copy)
        finally:
            file.write_text(original)
        stale = {each for each in before if before[each] != after[each]}
        expected = {each for each, found in oracle.items() if f"{module}.{name}" in found}
        effects = {
            each
            for each in before
            if before[each].get(f"{module}.{graph.EFFECTS}") != after[each].get(f"{module}.{graph.EFFECTS}")
        }
        assert file.read_text() == original
        assert expected <= stale, f"{module}.{name}: {sorted(expected - stale)} stay fresh"
        for each in stale - expected - effects:  # what the bytecode does not show must be named by something reached
            assert f"{module}.{name}" in before[each], f"{module}.{name} in {each}"
        exact += stale - effects == expected - effects
    # the graph goes by names where bytecode knows the object, so that some runs are made anew for nothing, and none is missed
    assert exact >= 0.8 * SAMPLE, exact


def test_comments_and_docstrings_of_all_files_make_nothing_stale(copy):
    before = reached(copy)
    for path in (copy / NAME).rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                if ast.get_docstring(node) is not None:
                    node.body[0].value = ast.Constant("Another.")
                elif not isinstance(node, ast.Module):
                    node.body.insert(0, ast.Expr(ast.Constant("New.")))
        path.write_text(f"# Layout and comments are gone.\n{ast.unparse(ast.fix_missing_locations(tree))}\n")
    assert reached(copy) == before
