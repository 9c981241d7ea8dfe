"""What a process reads: an audit hook that notes every file it opens, looks for or lists below some folders.

Only what goes through Python is seen. Who reads by other means says so: `whole.note_read`, `whole.is_there`.
Processes that are started in turn are not followed.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from uqlib.files.whole import LOOKED_FOR, READ, cache_folder

OWN = ("pathlib", "glob", "shutil", "tempfile")  # modules whose listings are known by a better event, or say nothing
WRITING = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


class Noted(NamedTuple):
    """What was read: absolute paths."""

    files: list[str]
    looked_for: list[str]  # whether it is there mattered
    listed: list[tuple[str, str]]  # folder and pattern; a pattern may hold folders, and `**`


def noted_folders(checkout: str | Path) -> dict[str, str]:
    """The folders below which reading is noted, by the names under which a basis has them; "" is the checkout."""
    found: dict[str, str | Path] = {
        "$UQLIB_CACHE/data": cache_folder() / "data",
        "$UQLIB_CACHE/store": cache_folder() / "store",
        "": checkout,
    }
    for name in ("UQLIB_DATA", "UQLIB_STORE", "UQLIB_WEIGHTS"):
        if given := os.environ.get(name):
            found = {f"${name}": Path(given).expanduser(), **found}
    return {name: os.path.abspath(folder) for name, folder in found.items()}


def note_reads(place: str, folders: Iterable[str]) -> "Hook":
    """From now on, until `stop`, note in a file what this process reads below these folders."""
    hook = Hook(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), tuple(folders))
    sys.addaudithook(hook)
    return hook


def noted(place: str | Path) -> Noted:
    """What was noted, but for files that the process had written itself; half a line of a killed one does not count."""
    found: dict[str, dict[Any, None]] = {READ: {}, LOOKED_FOR: {}, "list": {}}
    for line in Path(place).read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        try:
            kind, *what = json.loads(line)
        except ValueError:
            continue
        found[kind][tuple(what) if kind == "list" else what[0]] = None
    return Noted(sorted(found[READ]), sorted(found[LOOKED_FOR]), sorted(found["list"]))


class Hook:
    """Writes a line the first time that something is asked for. A fault in here must not become one of the notebook."""

    def __init__(self, stream: int, folders: tuple[str, ...]) -> None:
        self.stream = stream
        self.folders = tuple(f"{folder.rstrip(os.sep)}{os.sep}" for folder in folders)
        self.seen: set[tuple[str, ...]] = set()
        self.written: set[str] = set()
        self.handlers: dict[str, Callable[..., None]] = {
            "open": self._open, "os.listdir": self._list, "os.scandir": self._scan, "os.rename": self._rename,
            "pathlib.Path.glob": self._glob, "pathlib.Path.rglob": self._rglob, "glob.glob": self._glob_text,
            READ: self._read, LOOKED_FOR: self._look,
        }  # fmt: skip

    def __call__(self, event: str, arguments: tuple) -> None:
        if handler := self.handlers.get(event):
            with contextlib.suppress(OSError, ValueError, TypeError, AttributeError, UnicodeError):
                handler(*arguments)

    def stop(self) -> None:
        """Note nothing any more; Python keeps the hook itself until it ends."""
        if self.handlers:
            self.handlers = {}
            os.close(self.stream)

    def _note(self, kind: str, path: Any, *rest: str) -> None:
        path = self._absolute(path)
        line = (kind, path, *rest)
        if line not in self.seen and f"{path}{os.sep}".startswith(self.folders) and path not in self.written:
            self.seen.add(line)
            os.write(self.stream, f"{json.dumps(line)}\n".encode())

    def _absolute(self, path: Any) -> str:
        return os.path.abspath(os.fsdecode("." if path is None else path))

    def _open(self, path: Any, mode: str | None, flags: int) -> None:
        if isinstance(path, int):
            return
        if flags & WRITING or (mode and set(mode) & set("wxa")):
            self.written.add(self._absolute(path))
        else:
            self._note(READ, path)

    def _rename(self, old: Any, new: Any, *_: Any) -> None:
        self.written.add(self._absolute(new))

    def _read(self, path: Any) -> None:
        self._note(READ, path)

    def _look(self, path: Any) -> None:
        self._note(LOOKED_FOR, path)

    def _list(self, path: Any = None) -> None:
        if not isinstance(path, int):
            self._note("list", path, "*")

    def _scan(self, path: Any = None) -> None:
        caller = sys._getframe(2)  # above this handler and the hook itself
        name = caller.f_globals.get("__name__", "")
        if not isinstance(path, int) and name.split(".")[0] not in OWN and caller.f_code.co_name != "clear_unfinished":
            self._note("list", path, "*")

    def _glob(self, folder: Any, pattern: str) -> None:
        self._note("list", folder, str(pattern))

    def _rglob(self, folder: Any, pattern: str) -> None:
        self._note("list", folder, f"**/{pattern}")

    def _glob_text(self, pattern: Any, *_: Any) -> None:
        folder = os.path.dirname(os.fsdecode(pattern))
        while any(sign in folder for sign in "*?["):
            folder = os.path.dirname(folder)
        self._note("list", folder or ".", os.path.relpath(os.fsdecode(pattern), folder or "."))


def name_of(path: str, folders: Mapping[str, str]) -> str | None:
    """The name of a path in a basis: relative to the checkout, or behind the name of another root; None elsewhere."""
    for name, folder in folders.items():
        if path == folder or path.startswith(folder.rstrip(os.sep) + os.sep):
            return "/".join(filter(None, [name, os.path.relpath(path, folder).replace(os.sep, "/")]))
    return None


def path_of(name: str, folders: Mapping[str, str]) -> str:
    """The path of a name in a basis, here; of a root that is not set here a path that cannot be."""
    if not name.startswith("$"):
        return os.path.join(folders[""], name)
    for root, folder in folders.items():
        if root and (name == root or name.startswith(f"{root}/")):
            return os.path.join(folder, name[len(root) + 1 :])
    return os.path.join(os.devnull, name)
