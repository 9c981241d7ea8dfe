"""TOML files as typed tables: each fault is named with its place in the file.

A kind of table is a class with a field for each key; msgspec holds the file against it. So an error reads

    data/ledger/zhou2025.toml: row zhou2025-F1, claim zhou2025-F1-a: Expected `float`, got `str` - at `$.row[0].claim[0].share`
"""

import os
import re
import tomllib
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

from uqlib.base.extras import named

with named():
    import msgspec

T = TypeVar("T", bound="TomlTable")
PLACE = re.compile(r" - at `\$((?:\.\w+|\[(?:\d+|\.\.\.)\])+)`$")  # at the end of a message


class TomlTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of a TOML file: a field a key, each of its type; `__post_init__` may check more."""


def read_toml(path: str | os.PathLike, kind: type[T], **given: Any) -> T:
    """A TOML file as a table of this kind.

    Args:
        path: of the file.
        kind: class of the whole file.
        given: fields that the place of the file says, such as its name; the file itself must not have them.

    Raises:
        ValueError: if the file is no TOML in UTF-8, or a field is unknown, missing, of another type, or refused by the
            table that it is in; names the file, the tables around it that have an id or a name, and the path of the field.
        FileNotFoundError: if there is no such file.
    """
    path = os.fspath(path)
    body = _parsed(path)
    if twice := sorted(given.keys() & body.keys()):
        raise ValueError(f"{path}: leave out `{twice[0]}`; the place of the file says it")
    try:
        return msgspec.convert(body | given, kind)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path}: {_told(str(error), body, kind, given)}") from None


def _parsed(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_bytes().decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except RecursionError:
        raise ValueError(f"{path}: tables or lists lie too deep in each other") from None
    except ValueError as error:
        raise ValueError(f"{path}: no TOML: {error}") from None


def _told(message: str, body: Any, kind: Any, given: dict[str, Any]) -> str:
    """A message of msgspec, with the names of the tables around its place, and the known fields beside an unknown one."""
    names, place = [], PLACE.search(message)
    for table, key, of in _around(place[1] if place else "", body, kind):
        kind = of
        if isinstance(table, dict) and isinstance(name := table.get("id", table.get("name")), str):
            names.append(f"{key} {name}")
    if unknown := re.match(r"Object contains unknown field `(.*?)`", message):
        known = [field.encode_name for field in msgspec.structs.fields(kind) if field.encode_name not in given]
        near = get_close_matches(unknown[1], known, n=1)
        message += f"; `{near[0]}` comes near" if near else ""
        message += f"; choose from {', '.join(known)}"
    return f"{', '.join(names)}: {message}" if names else message


def _around(place: str, table: Any, kind: Any) -> Iterator[tuple[Any, str, Any]]:
    """The tables and lists on the way to a place such as `.row[3].claim[0]`: each with its key and its kind."""
    name = ""
    for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", place.partition("[...]")[0]):
        if key:
            name, table = key, table.get(key)
            kind = {field.encode_name: field.type for field in msgspec.structs.fields(kind)}[key]
        else:
            table, kind = table[int(index)], get_args(kind)[0]
        yield table, name, kind
