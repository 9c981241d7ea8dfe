"""Notebooks as functions: their parameters read, checked and set, their run through papermill made safe.

Plain papermill only warns of a parameter that the notebook does not have, and then runs with the defaults.
Here that is an error, as is a value of another type. While a notebook runs, its copy is kept in memory: it is written when
all went well, whole, and a run that was killed leaves nothing. One that failed is kept as `NAME.failed.ipynb`.
"""

import ast
import contextlib
import copy
import io
import itertools
import json
import math
import os
import re
import shlex
import tempfile
import tokenize
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple

from uqlib.base.scales import check_scale
from uqlib.book.copies import for_the_book
from uqlib.book.kernel import NotRunError, run_cells
from uqlib.evidence.cells import assigned
from uqlib.files.whole import checkouts_around, clear_unfinished, write_text
from uqlib.report import markdown

KINDS = (type(None), bool, int, float, str, list, tuple, dict)
PYTHON_MAGICS = ("time", "timeit", "capture", "prun")  # cell magics whose cell is Python


class Parameter(NamedTuple):
    """One assignment of the cell tagged `parameters`: name, default, and the comment that says what it means."""

    name: str
    default: Any
    meaning: str

    @property
    def kind(self) -> str:
        return "any" if self.default is None else type(self.default).__name__


def paths(folder: str | Path = "notebooks") -> list[Path]:
    """The notebooks of a checkout, PAPER/NAME.ipynb in this folder, by name."""
    return sorted(path for path in Path(folder).glob("*/*.ipynb") if not path.parent.name.startswith("."))


def names(folder: str | Path = "notebooks") -> set[str]:
    """The notebooks of a checkout by their names, PAPER/NAME, as records bear them."""
    return {f"{path.parent.name}/{path.stem}" for path in paths(folder)}


def parameters(notebook: str | Path) -> dict[str, Parameter]:
    """The parameters of a notebook, in the order in which they stand.

    Raises:
        ValueError: if no cell, or more than one, has the tag `parameters` (papermill would then run the defaults),
            or if a line is not a plain `name = value` or `name: type = value` with a literal.
    """
    cells = [cell for cell in read_body(notebook)["cells"] if "parameters" in tags_of(cell)]
    if len(cells) != 1:
        raise ValueError(f"{notebook} has {len(cells)} cells tagged 'parameters'; exactly one is needed")
    source = cell_text(cells[0])
    try:
        body, comments = ast.parse(source).body, _comments(source)
    except (SyntaxError, ValueError, tokenize.TokenError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        raise ValueError(f"{notebook}: line {line} of the parameters is not a plain `name = value` ({error})") from None
    found: dict[str, Parameter] = {}
    for node in body:
        targets = assigned(node)
        if not targets:
            raise ValueError(f"{notebook}: line {node.lineno} of the parameters is not a plain `name = value`")
        try:
            default = ast.literal_eval(getattr(node, "value"))  # noqa: B009
        except (ValueError, TypeError, RecursionError, MemoryError):
            raise ValueError(f"{notebook}: the default of {targets[0]} is not a literal") from None
        if type(default) not in KINDS:
            raise ValueError(
                f"{notebook}: the default of {targets[0]} must be a number, a text, a list, a tuple, a dictionary or None; "
                f"it is {type(default).__name__}"
            )
        for name in targets:
            if name in found:
                raise ValueError(f"{notebook}: line {node.lineno} of the parameters sets {name} for the second time")
            found[name] = Parameter(name, default, comments.get(node.end_lineno or 0, ""))
    return found


def check_parameters(notebook: str | Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """The given parameters, each known to the notebook and of the type of its default.

    An int serves as a float, a list as a tuple, and anything plain where the default is None.
    """
    known = parameters(notebook)
    for name, value in given.items():
        if name not in known:
            raise ValueError(f"unknown parameter {name!r} of {notebook}; choose from {', '.join(known) or 'none'}")
        default = known[name].default
        if not _fits(value, default):
            such = "a number, a text, a list or None" if default is None else f"{known[name].kind}, such as {default!r}"
            raise ValueError(f"parameter {name} of {notebook} takes {such}; got {value!r}")
        if not _is_text(value):
            raise ValueError(f"parameter {name} of {notebook} holds characters that are no text: {value!r}")
    if "scale" in given:
        check_scale(given["scale"])
    return {name: _as_kind_of(known[name].default, value) for name, value in given.items()}


def parse_parameter(notebook: str | Path, name: str, text: str) -> Any:
    """A value typed in a shell, read as the type of the parameter's default: `-p sidekicks "['a', 'b']"`."""
    known = parameters(notebook)
    if name not in known or isinstance(known[name].default, str):
        return text
    if isinstance(known[name].default, float | None) and text.lower().lstrip("+-") in ("nan", "inf", "infinity"):
        return float(text)
    try:
        return ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return text  # check_parameters then says which type is expected


def deviations(notebook: str | Path, given: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the given parameters that differ from their defaults, but for scale and record."""
    known = parameters(notebook)
    return {
        name: value
        for name, value in check_parameters(notebook, given).items()
        if name not in ("scale", "record") and repr(value) != repr(known[name].default)
    }


def default_output(notebook: str | Path, given: Mapping[str, Any]) -> Path:
    """Where the executed copy goes if nobody says: build/runs/PAPER/NAME.SCALE.ipynb, with digits for other parameters.

    The digits come from the parameters that differ from their defaults, so that a run does not replace another one.
    """
    from uqlib.files.fingerprint import fingerprint  # waits for NumPy, which reading parameters need not

    known = parameters(notebook)
    path = Path(notebook)
    scale = given.get("scale", known["scale"].default if "scale" in known else "all")
    other = deviations(notebook, given)
    digits = f".{fingerprint(other)[:8]}" if other else ""
    return Path("build/runs") / path.absolute().parent.name / f"{path.stem}.{scale}{digits}.ipynb"


def execute(
    notebook: str | Path,
    output: str | Path,
    given: Mapping[str, Any],
    *,
    progress: bool = True,
    reads: str = "",
    folders: Iterable[str] = (),
) -> Path:
    """Run a notebook by papermill with these parameters; the executed copy stands at `output` only if all went well.

    Nothing runs before it is sure that the copy can be written. A KeyboardInterrupt ends the kernel. `reads` and `folders`
    are those of `kernel.run_cells`.

    Raises:
        RuntimeError: if a cell fails or the kernel dies; names notebook, cell, error, and where the half-run copy lies.
        ValueError: if a parameter is not one of the notebook's, or no copy can be written at `output`.
    """
    given = check_parameters(notebook, given)
    output = Path(output)
    failed = output.with_name(f"{output.stem}.failed.ipynb")
    for path in (output, failed, *([Path(given["record"])] if given.get("record") else [])):
        check_writable(path)
        if (figures := path.with_suffix(".figures")).is_dir():
            clear_unfinished(figures)
    body = read_body(notebook)
    try:
        executed = run_cells(with_parameters(body, given), progress=progress, reads=reads, folders=folders)
    except NotRunError as stopped:
        if stopped.copy:
            write_text(failed, dump_body(stopped.copy))
        kept = f"\nThe run up to there: {failed}" if stopped.copy else ""
        raise RuntimeError(f"{notebook}: {stopped}{kept}") from None
    _write_copy(notebook, output, given, executed, body)
    failed.unlink(missing_ok=True)
    return output


def refresh(notebook: str | Path, output: str | Path, given: Mapping[str, Any]) -> None:
    """Give an executed copy the text of its notebook, whose code is the same: no cell runs, outputs stay.

    Raises:
        ValueError: if the copy has not as many cells of code.
    """
    given, output = check_parameters(notebook, given), Path(output)
    body, old = read_body(notebook), read_body(output)
    new = with_parameters(body, given)
    cells = [[cell for cell in each["cells"] if cell["cell_type"] == "code"] for each in (new, old)]
    for cell, executed in zip(*cells, strict=True):
        cell |= {name: executed[name] for name in ("outputs", "execution_count")}
    new["cells"] = [_as_executed(cell) for cell in new["cells"]]
    new["metadata"] = old["metadata"] | {
        name: new["metadata"][name] for name in new["metadata"] if name not in old["metadata"]
    }
    _write_copy(notebook, output, given, new, body)


def _write_copy(
    notebook: str | Path, output: Path, given: Mapping[str, Any], executed: dict[str, Any], body: Mapping[str, Any]
) -> None:
    """Write the executed copy of a notebook as the book shows it."""
    ids = {cell["id"] for cell in body["cells"] if isinstance(cell.get("id"), str)}
    again = how_to_repeat(notebook, given, os.path.relpath(notebook, output.parent))
    write_text(output, dump_body(for_the_book(executed, again, ids)))


def _as_executed(cell: dict[str, Any]) -> dict[str, Any]:
    """A cell in the form in which papermill writes it."""
    metadata = dict(sorted(({"tags": []} | cell["metadata"]).items()))
    return dict(sorted({**cell, "metadata": metadata, "source": cell_text(cell).splitlines(keepends=True)}.items()))


def check_writable(path: Path) -> None:
    """Whether a file can be written there, asked by writing one beside it; leftovers of killed writers are removed.

    Raises:
        ValueError: if the path is a folder, or the folder or the name cannot be; names path and reason.
    """
    try:
        if path.is_dir():
            raise ValueError(f"{path} is a folder; name a file in it, such as {path / 'copy.ipynb'}")
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_unfinished(path.parent)
        with contextlib.suppress(FileNotFoundError):
            path.stat()  # a name that is too long says so
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ValueError(f"nothing can be written at {path}: {error.strerror}; choose another place or name") from None


def how_to_repeat(notebook: str | Path, given: Mapping[str, Any], link: str) -> str:
    """How to repeat a run, in Markdown: the notebook, to download, and the command, as a shell reads it."""
    known = parameters(notebook)
    options = [
        word
        for name, value in given.items()
        if name != "record"
        for word in ("-p", name, _typed(known[name].default, value))
    ]
    command = shlex.join(["uqlib", "run", _from_the_checkout(notebook), *options])
    return (
        "## Run it again\n\n"
        f"{{download}}`The notebook <{re.sub(r'[`<>]', '', link)}>`, or by one command from a checkout of the book:\n\n"
        f"{markdown.block(command, 'sh')}"
    )


def parse_cell(source: str, where: str) -> ast.Module:
    """A cell as Python, without the lines and cells that are for IPython or a shell."""
    if magic := re.match(r"\s*%%(\w+).*", source):
        source = source[magic.end() :] if magic[1] in PYTHON_MAGICS else ""
    plain = "".join(
        re.sub(r"\S.*", "pass", line) if re.match(r"\s*([%!?]|[\w.]+\?)|.*=\s*[%!]\w", line) else line
        for line in source.splitlines(keepends=True)
    )
    for each in (source, plain):  # a line of a text may look like a magic, so the cell as it is comes first
        try:
            return ast.parse(each)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            fault = error
    raise ValueError(f"{where} is not Python: {fault}") from None


def with_parameters(body: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The notebook with a cell after its parameters that sets those given; papermill's own would make texts of tuples."""
    body = copy.deepcopy(body)
    body["nbformat_minor"] = max(5, body.get("nbformat_minor", 0))  # the first with ids, which papermill would draw
    cells = [cell for cell in body["cells"] if "injected-parameters" not in tags_of(cell)]
    taken = {cell.get("id") for cell in cells}
    free = (name for k in itertools.count() if (name := f"cell-{k}") not in taken)
    for cell in cells:
        cell.setdefault("id", next(free))
    if given:
        source = "# Parameters\n" + "".join(f"{name} = {_literal(value)}\n" for name, value in given.items())
        place = 1 + next(k for k, cell in enumerate(cells) if "parameters" in tags_of(cell))
        cells.insert(place, {
            "id": "injected-parameters", "cell_type": "code", "metadata": {"tags": ["injected-parameters"]}, "outputs": [],
            "execution_count": None, "source": source,
        })  # fmt: skip
    return {**body, "cells": cells}


def dump_body(body: dict[str, Any]) -> str:
    """A notebook as text."""
    return json.dumps(body, indent=1) + "\n"


def read_body(notebook: str | Path) -> dict[str, Any]:
    """The notebook as JSON has it, in format 4; a ValueError says what is wrong with another."""
    path = Path(notebook)
    if not path.is_file():
        raise FileNotFoundError(f"no notebook at {path}; the nearest here: {', '.join(_nearby(path)) or 'none'}")
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        what = _fault(body)
    except UnicodeDecodeError as error:
        what = f"byte {error.start} is not UTF-8"
    except (ValueError, RecursionError) as error:  # not JSON, or lists in lists without end
        what = f"{type(error).__name__}: {error}"
    if what:
        raise ValueError(f"{path} is not a notebook of format 4 ({what}); save it again from Jupyter")
    return body


def _fault(body: Any) -> str:
    """What of the format this body does not keep; empty if nothing."""
    if not isinstance(body, dict) or body.get("nbformat") != 4:
        return f"its format is {body.get('nbformat') if isinstance(body, dict) else type(body).__name__}"
    minor = body.get("nbformat_minor", 0)
    if not isinstance(body.get("metadata"), dict) or not isinstance(body.get("cells"), list):
        return "its metadata is no object, or its cells are no list"
    if not isinstance(minor, int) or isinstance(minor, bool) or not 0 <= minor < 1000:
        return f"its nbformat_minor is {minor!r:.40}"
    for k, cell in enumerate(body["cells"]):
        if not isinstance(cell, dict) or cell.get("cell_type") not in ("code", "markdown", "raw"):
            return f"cell {k} has no cell_type that is known"
        source, metadata = cell.get("source"), cell.get("metadata")
        if not isinstance(source, str) and not (isinstance(source, list) and all(isinstance(s, str) for s in source)):
            return f"the source of cell {k} is no text"
        if not isinstance(metadata, dict) or not isinstance(tags := metadata.get("tags", []), list):
            return f"the metadata of cell {k} is no object, or its tags are no list"
        if not all(isinstance(tag, str) for tag in tags) or not isinstance(cell.get("outputs", []), list):
            return f"the tags of cell {k} are no texts, or its outputs are no list"
    return ""


def _nearby(path: Path) -> list[str]:
    folder = next((parent for parent in path.parents if parent.is_dir()), Path())
    found = [each for pattern in ("*.ipynb", "*/*.ipynb", "*/*/*.ipynb") for each in sorted(folder.glob(pattern))]
    own = [each for each in found if not each.relative_to(folder).parts[0].startswith((".", "_", "build"))]
    asked = path.with_suffix("").as_posix()
    alike = SequenceMatcher(b=asked, autojunk=False)

    def likeness(each: Path) -> float:
        alike.set_seq1(each.with_suffix("").as_posix())
        return alike.ratio()

    return [str(each) for each in sorted(own, key=likeness, reverse=True)[:3]]


def checkout_of(notebook: str | Path) -> Path | None:
    """The folder of the checkout in which a notebook lies."""
    around = checkouts_around(Path(notebook).absolute().parent)
    return next((folder for folder in around if (folder / "notebooks").is_dir()), None)


def _from_the_checkout(notebook: str | Path) -> str:
    """The path of a notebook as it is typed in the checkout, wherever this run was started."""
    folder = checkout_of(notebook)
    return Path(notebook).absolute().relative_to(folder).as_posix() if folder else str(notebook)


def tags_of(cell: Mapping[str, Any]) -> list[str]:
    """The tags of a cell."""
    return cell["metadata"].get("tags", [])


def cell_text(cell: Mapping[str, Any]) -> str:
    """The text of a cell; the format allows one string, or one a line."""
    return "".join(cell["source"])


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {token.start[0]: token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT}


def _fits(value: Any, default: Any) -> bool:
    if default is None:
        return type(value) in KINDS
    if isinstance(default, bool) or isinstance(value, bool):
        return isinstance(value, bool) and isinstance(default, bool)
    if isinstance(default, float):
        return isinstance(value, int | float)
    if isinstance(default, list | tuple):
        kinds = list | tuple if isinstance(default, tuple) else list
        return isinstance(value, kinds) and (not default or all(any(_fits(v, d) for d in default) for v in value))
    return isinstance(value, type(default))


def _as_kind_of(default: Any, value: Any) -> Any:
    if isinstance(default, float):
        return float(value)
    return tuple(value) if isinstance(default, tuple) else value


def _is_text(value: Any) -> bool:
    """Whether every text in it can be written; a shell may hand over bytes that are none."""
    try:
        repr(value).encode()
        str(value).encode()
    except UnicodeEncodeError:
        return False
    return True


def _literal(value: Any) -> str:
    """A value as Python reads it; infinities and NaN have no literal of their own."""
    if isinstance(value, float) and not math.isfinite(value):
        return f"float('{value}')"
    if isinstance(value, list):
        return f"[{', '.join(map(_literal, value))}]"
    if isinstance(value, tuple):
        return f"({''.join(f'{_literal(each)}, ' for each in value).rstrip() if value else ''})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{_literal(k)}: {_literal(v)}' for k, v in value.items())}}}"
    return repr(value)


def _typed(default: Any, value: Any) -> str:
    """A value as it is typed behind -p, so that `parse_parameter` reads it again."""
    return value if isinstance(default, str) else repr(value)
