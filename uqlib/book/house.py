"""The house as its folders say it: the tree of the README and the pages of the API, from the first sentences of the files."""

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from uqlib import FAMILIES

START, END = "<!-- tree -->\n```\n", "```\n<!-- /tree -->"
WIDTH = 22  # of the names in the tree
INNER = ("base", "files", "solve")  # families that others rest on
API = (*(name for name in FAMILIES if name not in (*INNER, "commands")), *INNER)  # `uqlib --help` tells of commands
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


def api_pages(package: Path) -> dict[str, str]:
    """The reference: by name a page a family, every public function from its docstring, and under "api" the list of the pages.

    A page begins with a table of its files and their functions. What a borrower rarely needs stands last in the list.
    """
    shown = [family for family in families(package) if family.name in API]
    shown.sort(key=lambda family: API.index(family.name))
    pages, rows = {}, []
    for family in shown:
        files, parts, number, first = [], [], 0, _exported(package / family.name / "__init__.py")
        for module, about in _modules(package, family):
            path = package.parent / f"{module.replace('.', '/')}.py"
            names = [name for name in _public(path) if name in first] or _public(path)
            stem = module.rpartition(".")[2]
            number += len(names)
            listed = ", ".join(f"{{py:obj}}`{name} <{module}.{name}>`" for name in names)
            files.append(f"| [`{stem}`](#file-{stem}) | {_cell(about)} | {listed} |")
            parts.append(
                f"(file-{stem})=\n## {module}\n\n```{{eval-rst}}\n.. automodule:: {module}\n   :members:\n   :ignore-module-all:\n```\n"
            )
        table = "| file | what | functions and classes |\n| --- | --- | --- |\n" + "\n".join(files) + "\n"
        title = f"{package.name}.{family.name}"
        pages[f"api/{family.name}"] = "\n".join([f"# {title}\n\n{family.about}\n", table, *parts])
        rows.append(f"| [`{title}`](results/api/{family.name}.md) | {_cell(family.about)} | {number} |")
    return pages | {"api": "| family | what | functions and classes |\n| --- | --- | --- |\n" + "\n".join(rows) + "\n"}


def get_it(pyproject: Path) -> str:
    """How to come by the folder of the book: from the repository that the project names, else by its archive."""
    urls = tomllib.loads(pyproject.read_text(encoding="utf-8")).get("project", {}).get("urls", {})
    address = next((url for name, url in urls.items() if name.lower() in ("repository", "source")), "")
    if address:
        folder = address.rstrip("/").rpartition("/")[2].removesuffix(".git")
        return f"```sh\ngit clone {shlex.quote(address)}\ncd {shlex.quote(folder)}\n```\n"
    return "Unpack the archive that this book came in, and go into the folder that holds its `Makefile`: all that follows is typed there.\n"


def _modules(package: Path, family: Family) -> Iterator[tuple[str, str]]:
    """The files of a family by their dotted names, with their first sentences; those of a folder in it come after it."""
    folders: list[str] = []  # around a file, from the family on
    for name, about in family.files.items():
        folders = folders[: (len(name) - len(name.lstrip())) // 2]
        if name.endswith("/"):
            folders.append(name.strip().removesuffix("/"))
        else:
            yield ".".join([package.name, family.name, *folders, name.strip()]), about


def _public(path: Path) -> list[str]:
    """Public functions and classes of a file, in their order, as far as they have a docstring: those that the page shows."""
    body = ast.parse(path.read_text(encoding="utf-8")).body
    defined = [node for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return [node.name for node in defined if not node.name.startswith("_") and ast.get_docstring(node)]


def _exported(path: Path) -> list[str]:
    """The public list of a family; what a file has beyond it is for the library's own use."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    return []


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
