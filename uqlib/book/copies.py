"""Executed copies of notebooks as the book shows them: the same bytes from the same run, however long it took."""

import functools
import itertools
import re
from collections.abc import Iterable
from typing import Any

PASSING = (  # what of an output differs from run to run and says nothing: process, address, date
    (re.compile(r"\bipykernel_\d+"), "ipykernel"),
    (re.compile(r"\bat 0x[0-9a-f]{6,}\b"), "at 0x0"),
    (re.compile(r"\s*<dc:date>[^<]*</dc:date>"), ""),
)


def for_the_book(executed: dict[str, Any], again: str, ids: Iterable[str] = ()) -> dict[str, Any]:
    """The executed copy as the book shows it: injected cell hidden, at the end how to repeat it.

    What differs from run to run and says nothing is taken out: run times, random ids, process numbers, addresses, dates of
    drawings. Texts of one stream that came in pieces are joined, for where they are cut is chance.

    Args:
        executed: the copy, as papermill wrote it.
        again: Markdown of the last cell.
        ids: of the cells, as they stand in the notebook; all others are numbered.
    """
    executed["metadata"].pop("papermill", None)
    ids = set(ids)
    free = (name for k in itertools.count() if (name := f"cell-{k}") not in ids)
    for cell in executed["cells"]:
        for key in ("papermill", "execution"):
            cell["metadata"].pop(key, None)
        tags = cell["metadata"].get("tags", [])
        if "injected-parameters" in tags and "remove-cell" not in tags:
            tags.append("remove-cell")
        if cell.get("id") not in ids:
            cell["id"] = next(free)
        if "outputs" in cell:
            cell["outputs"] = [_without_chance(each) for each in _joined(cell["outputs"])]
    last = next(free) if "repeat" in ids else "repeat"
    executed["cells"].append({"id": last, "cell_type": "markdown", "metadata": {}, "source": again})
    return executed


def _joined(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    joined: list[dict[str, Any]] = []
    for each in outputs:
        last = joined[-1] if joined else {}
        if each.get("output_type") == last.get("output_type") == "stream" and each.get("name") == last.get("name"):
            last["text"] = ("".join(last["text"]) + "".join(each["text"])).splitlines(keepends=True)
        else:
            joined.append(each)
    return joined


def _without_chance(value: Any) -> Any:
    """The value with the same texts in every run, wherever they stand in it."""
    if isinstance(value, str):
        return functools.reduce(lambda text, rule: rule[0].sub(rule[1], text), PASSING, value)
    if isinstance(value, list):
        return [_without_chance(each) for each in value]
    if isinstance(value, dict):
        return {name: _without_chance(each) for name, each in value.items()}
    return value
