"""What a piece of code reaches: a small package with every construct, expectations written by hand."""

import json
import textwrap

import pytest

from uqlib.book import definitions, graph

FILES = {
    "__init__.py": "from pkg.tools import helper as exported\nVERSION = 1\n",
    "tools.py": """
        import math
        from os.path import join as glue
        LIMIT = 3
        TABLE = {"a": LIMIT}
        ONE, TWO = 1, 2
        def helper(x: int = LIMIT) -> int:
            '''Doc.'''
            return math.floor(x) + inner(x)
        def inner(x):
            return ONE + x
        def unrelated(x):
            return TWO
        def shadowing(helper, *, names=()):
            unrelated = helper
            return [inner for inner in names] + [unrelated]
        def outer():
            def nested():
                return unrelated(1)
            return nested
        def comprehends(items):
            return [inner for inner in items], inner(1)
        def lazy():
            from pkg.late import work
            return work()
        def paths():
            return glue("a", "b")
        """,
    "late.py": "import numpy\nREGISTER = []\ndef work():\n    return numpy.zeros(1)\nREGISTER.append(work)\ndef idle(): pass\n",
    "shapes.py": """
        from abc import ABC, abstractmethod
        from dataclasses import dataclass
        from functools import cache
        import torch
        from . import tools
        from .tools import inner as renamed
        SIDES = 4
        @dataclass(frozen=True)
        class Base(ABC):
            side: int = SIDES
            def __len__(self):
                return renamed(self.side)
            @abstractmethod
            def area(self): ...
            @property
            def edge(self):
                return tools.LIMIT
        class Square(Base):
            def area(self):
                return tools.helper(self.side)
            def unused(self):
                return tools.unrelated(1)
        class Net(torch.nn.Module):
            def forward(self, x):
                return tools.unrelated(x)
        class Picky:
            def ask(self, name):
                return getattr(self, name)
            def _a(self): return tools.ONE
        class Prefixed:
            def ask(self, kind):
                return getattr(self.me, f"do_{kind}")()
            def do_it(self): return tools.TWO
            def other(self): return 0
        def make(): return Square()
        def cached(): return stored()
        @cache
        def stored(): return tools.TABLE
        """,
    "plugins.py": """
        from pkg.registry import register, KNOWN
        @register
        def first(): return helper_of_first()
        def helper_of_first(): return 1
        def quiet(): return 2
        for name in ("b", "c"):
            KNOWN[name] = made
        def made(): return 3
        """,
    "registry.py": "KNOWN = {}\ndef register(f):\n    KNOWN[f.__name__] = f\n    return f\ndef get(name):\n    return KNOWN[name]\n",
    "hooks.py": """
        class Root:
            kinds = {}
            def __init_subclass__(cls, **options): Root.kinds[cls.__name__] = cls
        class Leaf(Root):
            def grow(self): return 1
        class Meta(type): pass
        class Made(metaclass=Meta): pass
        """,
    "all.py": "from pkg.tools import *\nfrom pkg import plugins\ndef starred(): return inner(1)\n",
    "typed.py": """
        from typing import TYPE_CHECKING
        if TYPE_CHECKING:
            from pkg import plugins
        try:
            import fast
        except ImportError:
            fast = None
        def only_typed(x: "plugins.first") -> None: return fast
        """,
    "sub/__init__.py": "from .deep import *\nfrom .deep import bottom as floor_of_it\n",
    "sub/deep.py": "from .. import tools\nfrom ..tools import LIMIT as most\ndef bottom(): return tools.inner(most)\ndef top(): return 0\n",
    "dynamic.py": """
        import importlib
        from pkg import tools, shapes
        def passed(): return list(map(str, [tools]))
        def computed(name): return getattr(tools, name)
        def named(): return getattr(tools, "inner")
        def loaded(): return importlib.import_module("pkg.late")
        def anything(name): return importlib.import_module(name)
        def own(name): return globals()[name]
        def missing(): return shapes.not_there
        def imports_inside():
            from pkg.tools import unrelated as known
            return known(1)
        """,
}

TOOLS = [
    "tools.LIMIT", "tools.TABLE", "tools.ONE", "tools.TWO", "tools.helper", "tools.inner", "tools.unrelated",
    "tools.shadowing", "tools.outer", "tools.comprehends", "tools.lazy", "tools.paths", "late.work", "late.REGISTER",
    "late.<import>",
]  # fmt: skip
HELPER = {"tools.helper", "tools.inner", "tools.ONE", "tools.LIMIT"}
LATE = {"late.<import>", "late.REGISTER", "late.work"}
PLUGINS = {  # the effects hold the function that is registered
"plugins.<import>", "plugins.helper_of_first", "plugins.made", "plugins.name", "registry.KNOWN",
           "registry.register"}  # fmt: skip
SQUARE = {"shapes.Square", "shapes.Base", "shapes.SIDES", "tools.inner", "tools.ONE"}

CASES = {
    # plain names, transitively; defaults count
    "from pkg.tools import helper\nhelper()": HELPER,
    "import pkg.tools\npkg.tools.helper()": HELPER,
    "import pkg.tools as t\nt.helper()": HELPER,
    "from pkg import tools\ntools.helper()": HELPER,
    "from pkg import exported\nexported()": HELPER,  # through the __init__
    "from pkg import exported as e\nf = e": HELPER,
    "from pkg.tools import TABLE\nTABLE": {"tools.TABLE", "tools.LIMIT"},
    "from pkg.tools import ONE": set(),  # imported, never used
    "from pkg.tools import ONE\nx = ONE": {"tools.ONE"},
    # scopes
    "from pkg.tools import shadowing\nshadowing(1)": {"tools.shadowing"},
    "from pkg.tools import outer\nouter()": {"tools.outer", "tools.unrelated", "tools.TWO"},
    "from pkg.tools import comprehends\ncomprehends(1)": {"tools.comprehends", "tools.inner", "tools.ONE"},
    # imports inside of functions, and their effects
    "from pkg.tools import lazy\nlazy()": {"tools.lazy"} | LATE,
    "def f():\n    from pkg import late\nf()": LATE,
    # classes: fields, bases, dunder methods count; other methods once they are named
    "from pkg.shapes import make\nmake()": {"shapes.make"} | SQUARE,
    "from pkg.shapes import make\nmake().area()": {"shapes.make", "shapes.Square.area", "shapes.Base.area"} | SQUARE | HELPER,
    "from pkg.shapes import make\ngetattr(make(), 'edge')": {"shapes.make", "shapes.Base.edge", "tools.LIMIT"} | SQUARE,
    "name = 'edge'\nfrom pkg.shapes import Square\ngetattr(Square(), name)": {"shapes.Base.edge", "tools.LIMIT"} | SQUARE,
    "from pkg.shapes import Net\nNet()": {"shapes.Net", "shapes.Net.forward", "tools.unrelated", "tools.TWO"},
    "from pkg.shapes import Picky\nPicky().ask(x)": {"shapes.Picky", "shapes.Picky.ask", "shapes.Picky._a", "tools.ONE"},
    "from pkg.shapes import Prefixed\nPrefixed().ask(x)": {"shapes.Prefixed", "shapes.Prefixed.ask", "shapes.Prefixed.do_it",
                                                           "tools.TWO"},
    "from pkg.shapes import cached\ncached()": {"shapes.cached", "shapes.stored", "tools.TABLE", "tools.LIMIT"},
    # effects of modules, along module-level imports
    "from pkg import plugins": PLUGINS,
    "import pkg.all": PLUGINS,
    "from pkg.registry import get\nget('b')": {"registry.get", "registry.KNOWN"},
    "from pkg import hooks": {"hooks.Leaf", "hooks.Root", "hooks.<import>", "hooks.Meta"},
    "from pkg.dynamic import imports_inside\nimports_inside()": {"dynamic.imports_inside", "tools.unrelated", "tools.TWO"},
    # stars, relative imports, packages
    "from pkg.all import starred\nstarred()": {"all.starred", "tools.inner", "tools.ONE"} | PLUGINS,
    "from pkg.all import *\nhelper()": HELPER | PLUGINS,
    "from pkg import sub\nsub.floor_of_it()": {"sub.deep.bottom", "tools.inner", "tools.ONE", "tools.LIMIT"},
    "from pkg import sub\nsub.top()": {"sub.deep.top"},
    "from pkg.sub.deep import bottom\nbottom": {"sub.deep.bottom", "tools.inner", "tools.ONE", "tools.LIMIT"},
    # what is only of types does not count; what an `if`, `try` binds does
    "from pkg.typed import only_typed\nonly_typed(1)": {"typed.only_typed", "typed.<import>"},
    # what cannot be seen: the whole module
    "from pkg.dynamic import passed\npassed()": {"dynamic.passed", *TOOLS},
    "from pkg import tools\nf(tools)": set(TOOLS),
    "from pkg.dynamic import computed\ncomputed(1)": {"dynamic.computed", *TOOLS},
    "from pkg.dynamic import named\nnamed()": {"dynamic.named", "tools.inner", "tools.ONE"},
    "from pkg.dynamic import loaded\nloaded()": {"dynamic.loaded", "late.idle"} | LATE,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "pkg"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))
    return folder


def reach(folder, cell, **options):
    return graph.Package(folder).reach(definitions.read_module(cell), **options)


def names(reached):
    effects_of_typed = set() if "pkg.typed.only_typed" in reached.definitions else {"typed.<import>"}
    return {name.removeprefix("pkg.") for name in reached.definitions} - effects_of_typed


@pytest.mark.parametrize("cell", CASES)
def test_exactly_what_the_cell_reaches(folder, cell):
    assert names(reach(folder, cell)) == CASES[cell]


def test_what_may_be_anything_reaches_everything(folder):
    package = graph.Package(folder)
    everything = {str(node).removeprefix("pkg.") for module in package.paths for node in package.nodes_of(module)}
    assert names(reach(folder, "from pkg.dynamic import anything\nanything(1)")) == everything
    assert {"dynamic.missing", "dynamic.own"} <= names(reach(folder, "from pkg.dynamic import own\nown(1)"))
    unseen = names(reach(folder, "from pkg.dynamic import missing\nmissing()"))
    assert {"shapes.Net", "shapes.Square.unused", "shapes.Prefixed.other"} <= unseen


def test_words_from_outside_reach_methods(folder):
    cell = "from pkg.shapes import make\nmake()"
    assert "shapes.Base.edge" in names(reach(folder, cell, mentions=["edge"]))


def test_packages_are_those_of_reached_code(folder):
    assert reach(folder, "from pkg.tools import lazy\nlazy()").packages == {"numpy", "os", "math"} - {"os", "math"}
    assert "torch" not in reach(folder, "from pkg.shapes import make\nmake()").packages
    assert "torch" in reach(folder, "from pkg.shapes import Net\nNet").packages
    assert graph.versions({"numpy", "math"}).keys() == {"python", "numpy"}
    assert graph.versions({"sklearn", "PIL"}).keys() == {"python", "scikit-learn", "pillow"}


def change(folder, tmp_path, file, old, new):
    """A copy of the package with one text replaced."""
    other = tmp_path / "pkg"
    for path in folder.rglob("*.py"):
        place = other / path.relative_to(folder)
        place.parent.mkdir(parents=True, exist_ok=True)
        text = path.read_text()
        if path.relative_to(folder).as_posix() == file:
            assert text.count(old) == 1, text
            text = text.replace(old, new)
        place.write_text(text)
    return other


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("tools.py", "'''Doc.'''", "'''Another.'''", set()),
        ("tools.py", "'''Doc.'''\n    return", "# why\n    return", set()),
        ("tools.py", "(x: int = LIMIT) -> int", "(x: float=LIMIT)", set()),
        ("tools.py", "return ONE + x", "return (ONE +\n        x)  # layout", set()),
        ("tools.py", "return TWO", "return 5", set()),
        ("tools.py", "ONE, TWO = 1, 2", "TWO, ONE = 2, 1", {"tools.ONE"}),
        ("tools.py", "return ONE + x", "return ONE - x", {"tools.inner"}),
        ("tools.py", "LIMIT) -> int", "LIMIT + 0) -> int", {"tools.helper"}),
        ("tools.py", "import math\n", "import cmath as math\n", {"tools.helper"}),
        ("tools.py", "import math\n", "import math  # numbers\nimport json\n", set()),
        ("shapes.py", "@dataclass(frozen=True)", "@dataclass", {"shapes.Base"}),
        ("shapes.py", "side: int = SIDES", "side: float = SIDES", {"shapes.Base"}),
        ("shapes.py", "class Square(Base)", "class Square(Base, list)", {"shapes.Square", "shapes.Square.area",
                                                                        "shapes.Square.unused", "tools.unrelated", "tools.TWO"}),
        ("shapes.py", "return tools.unrelated(1)", "return 0", set()),
        ("shapes.py", "return renamed(self.side)", "return renamed(1)", {"shapes.Base"}),
    ],
)  # fmt: skip
def test_a_digest_changes_with_what_is_done_and_with_nothing_else(folder, tmp_path, file, old, new, changed):
    cell = "from pkg.shapes import make\nfrom pkg.tools import helper\nmake().edge\nhelper()"
    before = reach(folder, cell).definitions
    after = reach(change(folder, tmp_path, file, old, new), cell).definitions
    differ = {name for name in before | after if before.get(name) != after.get(name)}
    assert {name.removeprefix("pkg.") for name in differ} == changed


def test_records_come_from_the_cache_and_a_broken_one_is_made_again(folder, tmp_path, monkeypatch):
    cell = definitions.read_module("from pkg.tools import helper\nhelper()")
    first = graph.Package(folder, tmp_path).reach(cell)
    files = sorted(tmp_path.rglob("*.json"))
    assert files

    def fail(source):
        raise AssertionError("read again")

    with monkeypatch.context() as patch:
        patch.setattr(definitions, "read_module", fail)
        assert graph.Package(folder, tmp_path).reach(cell) == first
    bodies = [path.read_bytes() for path in files]
    for path in files:
        path.write_bytes(path.read_bytes()[:-9])
    assert graph.Package(folder, tmp_path).reach(cell) == first
    assert [path.read_bytes() for path in files] == bodies
    for path in files:
        path.write_text(json.dumps({"source": "of another", "record": {}}))
    assert graph.Package(folder, tmp_path).reach(cell) == first
