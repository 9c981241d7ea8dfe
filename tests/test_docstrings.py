"""Docstrings are plain text for an editor; the book's extension makes them reStructuredText, with nothing lost."""

import importlib
import importlib.util
import inspect
import io
import pkgutil
import re
from pathlib import Path

import pytest
from docutils.core import publish_doctree
from sphinx.ext.napoleon import Config, GoogleDocstring

import uqlib

MODULES = sorted(module.name for module in pkgutil.walk_packages(uqlib.__path__, "uqlib."))


@pytest.fixture(scope="module")
def study(repository):
    """The extension, imported by its path."""
    spec = importlib.util.spec_from_file_location("study", repository / "book/_ext/study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def plain(study):
    def convert(text: str) -> str:
        lines = text.split("\n")
        study.plain_docstring(None, "function", "name", None, None, lines)  # in place, as Sphinx asks
        return "\n".join(lines)

    return convert


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a * b and |x| < 2", r"a \* b and \|x\| < 2"),
        ("a name that ends in wide_, or 'wide_'", r"a name that ends in wide\_, or 'wide\_'"),
        (r"\* is escaped already", r"\* is escaped already"),
        ("**kwargs: handed on", r"\*\*kwargs: handed on"),
        ("`x`, ``y`` and `a * |b|`", "``x``, ``y`` and ``a * |b|``"),
        ("Examples:\n    >>> a * b  # |x|\n    [*]\n\na * b", "Examples:\n    >>> a * b  # |x|\n    [*]\n\na \\* b"),
    ],
)
def test_stars_and_bars_stand_and_code_is_code(plain, text, expected):
    assert plain(text) == expected


def test_an_indented_block_after_an_empty_line_is_a_listing(plain):
    assert plain("As here:\n\n    f(*x)\n\n    g(`y`)\nAfter * it.") == (
        "As here:\n\n::\n\n    f(*x)\n\n    g(`y`)\nAfter \\* it."
    )


def test_a_listing_inside_of_a_section_keeps_its_indent(plain):
    assert plain("Args:\n    x: as\n\n        |x|\n\n    y: |y|") == (
        "Args:\n    x: as\n\n    ::\n\n        |x|\n\n    y: \\|y\\|"
    )


def test_sections_are_no_listings(plain):
    text = "What it is.\n\nArgs:\n    x: (n,) which\n        goes on.\n\nRaises:\n    ValueError: if not."
    assert plain(text) == text


def public(module, kind):
    members = inspect.getmembers(module, kind)
    return [(name, each) for name, each in members if name[0] != "_" and each.__module__ == module.__name__]


def functions(module):
    return public(module, inspect.isfunction)


def documented(module):
    """All that the book's API page may show: the module, its functions and classes, their methods and properties."""
    classes = public(module, inspect.isclass)
    methods = [(f"{name}.{part}", each) for name, of in classes for part, each in vars(of).items() if part[0] != "_"]
    return [("", module), *functions(module), *classes, *methods]


@pytest.mark.parametrize("name", MODULES)
def test_every_docstring_is_restructured_text(plain, name):
    config = Config(napoleon_google_docstring=True, napoleon_custom_sections=[["Source", "notes_style"]])
    for part, each in documented(importlib.import_module(name)):
        if isinstance(text := getattr(each, "__doc__", None), str):
            lines = GoogleDocstring(plain(inspect.cleandoc(text)), config, what="function").lines()
            warnings = io.StringIO()
            publish_doctree("\n".join(lines), settings_overrides={"warning_stream": warnings, "report_level": 2})
            assert not warnings.getvalue(), f"{name}.{part}"


@pytest.mark.parametrize("name", MODULES)
def test_every_public_function_says_what_it_is(name):
    missing = [part for part, each in functions(importlib.import_module(name)) if not each.__doc__]
    assert not missing


STEMS: dict[str, list[str]] = {}
for _module in MODULES:
    STEMS.setdefault(_module.rsplit(".", 1)[-1], []).append(_module)


@pytest.mark.parametrize("name", MODULES)
def test_what_a_docstring_or_message_names_is_there(repository, name):
    """`module.name` in backticks is found in a module or family of that name."""
    path = Path(importlib.import_module(name).__file__)
    for module, part in re.findall(r"`(\w+)\.([A-Za-z_]\w*)", path.read_text(encoding="utf-8")):
        if module in STEMS and part not in ("py", "toml", "md", "json"):
            places = [importlib.import_module(each) for each in STEMS[module]]
            assert any(hasattr(each, part) for each in places), f"{path.name}: {module}.{part}"
