"""Notebooks as functions: their parameters read, checked and set, their run through papermill made safe.

Plain papermill only warns of a parameter that the notebook does not have, and then runs with the defaults.
Here that is an error, as is a value of another type. A run is written under a temporary name and renamed when it has
succeeded; one that failed is kept beside it as `NAME.failed.ipynb`.
"""

import ast
import io
import json
import os
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from uqlib.files import write_text
from uqlib.scales import check_scale


class Parameter(NamedTuple):
    """One assignment of the cell tagged `parameters`: name, default, and the comment that says what it means."""

    name: str
    default: Any
    meaning: str

    @property
    def kind(self) -> str:
        return type(self.default).__name__


def paths(folder: str | Path = "notebooks") -> list[Path]:
    """The notebooks of a checkout, PAPER/NAME.ipynb in this folder, by name."""
    return sorted(path for path in Path(folder).glob("*/*.ipynb") if not path.parent.name.startswith("."))


def parameters(notebook: str | Path) -> dict[str, Parameter]:
    """The parameters of a notebook, in the order in which they stand.

    Raises:
        ValueError: if no cell, or more than one, has the tag `parameters` (papermill would then run the defaults),
            or if a default is not a literal.
    """
    cells = [cell for cell in _load(notebook)["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    if len(cells) != 1:
        raise ValueError(f"{notebook} has {len(cells)} cells tagged 'parameters'; exactly one is needed")
    source = "".join(cells[0]["source"])
    comments = _comments(source)
    found = {}
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise ValueError(f"{notebook}: line {error.lineno} of the parameters is not a plain `name = value`") from None
    for node in body:
        if not (isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)):
            raise ValueError(f"{notebook}: line {node.lineno} of the parameters is not a plain `name = value`")
        try:
            default = ast.literal_eval(node.value)
        except ValueError:
            raise ValueError(f"{notebook}: the default of {node.targets[0].id} is not a literal") from None
        name = node.targets[0].id
        found[name] = Parameter(name, default, comments.get(node.end_lineno, ""))
    return found


def check_parameters(notebook: str | Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given parameters, each known to the notebook and of the type of its default (an int serves as a float)."""
    known = parameters(notebook)
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"unknown parameter {name!r} of {notebook}; choose from {', '.join(known)}")
        if not _fits(value, known[name].default):
            raise ValueError(
                f"parameter {name} of {notebook} takes {known[name].kind}, such as {known[name].default!r}; got {value!r}"
            )
    if "scale" in given:
        check_scale(given["scale"])
    return {name: _as_kind_of(known[name].default, value) for name, value in given.items()}


def parse_parameter(notebook: str | Path, name: str, text: str) -> Any:
    """A value typed in a shell, read as the type of the parameter's default: `-p sidekicks "['a', 'b']"`."""
    known = parameters(notebook)
    if name not in known or isinstance(known[name].default, str):
        return text
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, SyntaxError):
        return text  # check_parameters then says which type is expected


def execute(notebook: str | Path, output: str | Path, given: Mapping[str, Any], *, progress: bool = True) -> Path:
    """Run a notebook by papermill with these parameters; the executed copy stands at `output` only if all went well.

    Raises:
        RuntimeError: if a cell fails; names the cell, the error, and where the half-run copy lies.
    """
    import papermill  # not needed to read parameters

    given = check_parameters(notebook, given)
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.stem}.{os.getpid()}.ipynb")
    try:
        papermill.execute_notebook(
            str(notebook),
            str(temporary),
            dict(given),
            progress_bar=progress,
            kernel_name="python3",
            language="python",
            log_output=False,
        )
        again = repeat(notebook, given, os.path.relpath(notebook, output.parent))
        write_text(output, json.dumps(for_the_book(_load(temporary), again), indent=1) + "\n")
    except papermill.PapermillExecutionError as error:
        failed = output.with_name(f"{output.stem}.failed.ipynb")
        os.replace(temporary, failed)
        raise RuntimeError(
            f"{notebook}: cell {error.cell_index} raised {error.ename}: {error.evalue}\nThe run up to there: {failed}"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)
    return output


def for_the_book(executed: dict[str, Any], again: str) -> dict[str, Any]:
    """The executed copy as the book shows it: injected cell hidden, run times stripped, at the end how to repeat it."""
    executed["metadata"].pop("papermill", None)
    for cell in executed["cells"]:
        for key in ("papermill", "execution"):
            cell["metadata"].pop(key, None)
        if "injected-parameters" in cell["metadata"].get("tags", []):
            cell["metadata"]["tags"].append("remove-cell")
    executed["cells"].append({"id": "repeat", "cell_type": "markdown", "metadata": {}, "source": again})
    return executed


def repeat(notebook: str | Path, given: Mapping[str, Any], link: str) -> str:
    """How to repeat a run, in Markdown: the notebook, to download, and the command."""
    options = "".join(f" -p {name} {_quoted(value)}" for name, value in given.items() if name != "record")
    return (
        "## Run it again\n\n"
        f"{{download}}`The notebook <{link}>`, or by one command from a checkout of the book:\n\n"
        f"```sh\nuqlib run {notebook}{options}\n```\n"
    )


def sources(notebook: str | Path) -> list[Path]:
    """The files of uqlib on which a notebook rests, found through its imports: what makes its run stale when changed."""
    package = Path(__file__).parent
    code = "\n".join(
        "".join(line for line in cell["source"] if not line.lstrip().startswith(("%", "!")))
        for cell in _load(notebook)["cells"]
        if cell["cell_type"] == "code"
    )
    found: set[Path] = set()
    waiting = list(_imports(code, package))
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            waiting += _imports(path.read_text(), package)
    return sorted(found)


def _imports(code: str, package: Path) -> Iterator[Path]:
    """The files of the package that this code imports by `import uqlib.x` or `from uqlib.x import y`."""
    for node in ast.walk(ast.parse(code)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            if parts[0] == package.name:
                stem = package.joinpath(*parts[1:])
                yield from (path for path in (stem.with_suffix(".py"), stem / "__init__.py") if path.is_file())


def _load(notebook: str | Path) -> dict[str, Any]:
    path = Path(notebook)
    if not path.is_file():
        raise FileNotFoundError(f"no notebook at {path}; those of this folder: {', '.join(_nearby(path)) or 'none'}")
    try:
        body = json.loads(path.read_text())
        if body["nbformat"] == 4 and all({"cell_type", "metadata", "source"} <= cell.keys() for cell in body["cells"]):
            return body
        what = f"its format is {body['nbformat']}, or a cell lacks its metadata"
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # not JSON, not text, or other JSON
        what = f"{type(error).__name__}: {error}"
    raise ValueError(f"{path} is not a notebook of format 4 ({what}); save it again from Jupyter")


def _nearby(path: Path) -> list[str]:
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    found = [each for pattern in ("*.ipynb", "*/*.ipynb", "*/*/*.ipynb") for each in sorted(folder.glob(pattern))]
    return [str(each) for each in found if not each.relative_to(folder).parts[0].startswith((".", "_", "build"))][:8]


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def _fits(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    if isinstance(default, list):
        return isinstance(value, list) and (not default or all(_fits(item, default[0]) for item in value))
    return isinstance(value, type(default))


def _as_kind_of(default: Any, value: Any) -> Any:
    return float(value) if isinstance(default, float) else value


def _quoted(value: Any) -> str:
    text = str(value)
    return text if text and all(letter.isalnum() or letter in "._-/" for letter in text) else f'"{text}"'
