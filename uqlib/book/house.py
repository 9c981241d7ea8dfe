"""The house as its folders say it: the tree of the README and the API page, from the first sentences of the files."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from uqlib import FAMILIES

START, END = "<!-- tree -->\n```\n", "```\n<!-- /tree -->"
WIDTH = 22  # of the names in the tree
INNER = ("base", "files", "solve")  # families that others rest on
LONGEST = 100  # phrase of a file


class Family(NamedTuple):
    """A folder of the package: its name, its first sentence, and its files with theirs."""

    name: str
    about: str
    files: dict[str, str]


def families(package: Path) -> list[Family]:
    """The families of a package in the order of their ranks; a folder in a family ends in a slash, its files are indented."""
    return [
        Family(name, first_sentence(package / name / "__init__.py"), dict(_files(package / name))) for name in FAMILIES
    ]


def _files(folder: Path) -> Iterator[tuple[str, str]]:
    for path in sorted(folder.iterdir()):
        if path.suffix == ".py" and path.stem != "__init__":
            yield path.stem, first_sentence(path)
        elif (path / "__init__.py").is_file():
            yield f"{path.name}/", first_sentence(path / "__init__.py")
            yield from ((f"  {name}", about) for name, about in _files(path))


def first_sentence(path: Path) -> str:
    """The first sentence of a file's docstring.

    Raises:
        ValueError: if the file has none.
    """
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not text:
        raise ValueError(f"{path} has no docstring; its first sentence says in the README what the file is about")
    return " ".join(re.split(r"(?<=[.?])(?:\s+(?=[A-Z`])|$)", text.split("\n\n")[0], maxsplit=1)[0].split())


def tree(package: Path) -> str:
    """The tree of the README: a line a family with its sentence, a line a file with a phrase of its own."""
    lines = []
    for family in families(package):
        lines.append(f"{family.name + '/':{WIDTH}}{family.about}")
        lines += [f"  {name:{WIDTH - 2}}{phrase(about)}" for name, about in family.files.items()]
    return "\n".join(lines) + "\n"


def phrase(sentence: str) -> str:
    """A sentence without its full stop; of one that is longer than a line, what stands before the last break that fits."""
    if len(sentence) <= LONGEST:
        return sentence.removesuffix(".")
    return re.sub(r"[:;,]\s[^:;,]*$", "", sentence[:LONGEST])


def with_tree(readme: str, package: Path) -> str:
    """The README with the tree of the package between its two marks.

    Raises:
        ValueError: if the marks are not there.
    """
    before, start, rest = readme.partition(START)
    _, end, after = rest.partition(END)
    if not start or not end:
        raise ValueError(f"the README has no place for the tree; put it between {START!r} and {END!r}")
    return before + start + tree(package) + end + after


def api_page(package: Path) -> str:
    """Every public function from its docstring: a section a family, a heading a file; what a borrower rarely needs is last."""
    parts = []
    for family in sorted(families(package), key=lambda family: family.name in INNER):
        if family.name == "commands":  # `uqlib --help` says what they do
            continue
        parts.append(f"## {family.name}\n\n{family.about}\n")
        folder = ""
        for name in family.files:
            folder = name.rstrip("/") if name.endswith("/") else folder if name.startswith(" ") else ""
            module = ".".join(
                filter(None, [package.name, family.name, folder, name.strip() if not name.endswith("/") else ""])
            )
            parts.append(f"### {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n```\n")
    return "\n".join(parts)
