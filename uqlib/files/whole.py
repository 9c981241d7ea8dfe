"""Files that are whole or absent: written beside and renamed, sealed where they must not change, found in checkout or cache.

Text is UTF-8, whatever the locale.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import secrets
import sys
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path
from typing import Any

UNFINISHED = ".unfinished"  # ends the name of a file that is being written
READ = "uqlib.read"  # audit events, which `tracing` notes
LOOKED_FOR = "uqlib.looked_for"
SEAL = b"uqlib sha256 "  # begins the last 77 bytes of a sealed file


class DamagedError(ValueError):
    """A file whose bytes are not those that were written."""

    def __init__(self, path: Path, what: str):
        super().__init__(f"{path} is damaged: {what}. Remove it and compute or copy it again.")


def cache_folder() -> Path:
    """Where downloads and what networks said are kept: $UQLIB_CACHE, else `uqlib` in the user's cache folder."""
    if folder := os.environ.get("UQLIB_CACHE"):
        return Path(folder).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "uqlib"


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BufferedRandom]:
    """A stream whose bytes stand under `path` once all are on the disk; an interrupted run leaves nothing there.

    Until then they stand beside it, in a hidden file that ends in `.unfinished` and is locked while somebody writes it.
    What killed writers left in the folder is removed by the next one.

    Raises:
        OSError: if they cannot be written; the message names `path`.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_unfinished(path.parent)
        temporary, stream = _begin(path)
        try:
            with stream:
                yield stream
                stream.flush()
                os.fsync(stream.fileno())
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO):
            error.filename = os.fspath(path)  # a full disk does not say where
        raise


def _begin(path: Path) -> tuple[Path, BufferedRandom]:
    """A locked file beside `path`, under a short name whatever the length of its own."""
    while True:
        temporary = path.with_name(f".{path.name[:50]}.{secrets.token_hex(4)}{UNFINISHED}")
        stream = open(temporary, "x+b")  # noqa: SIM115 (closed by the one who asks)
        with contextlib.suppress(OSError):  # on a disk without locks nobody can take it for a leftover either
            fcntl.flock(stream, fcntl.LOCK_EX)
        if os.fstat(stream.fileno()).st_nlink:
            return temporary, stream
        stream.close()  # another process took it for a leftover before it was locked


def clear_unfinished(folder: str | os.PathLike[str]) -> None:
    """Remove what killed writers left in a folder; a file that is being written is locked, and stays."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries if entry.name.startswith(".") and entry.name.endswith(UNFINISHED)]
    for name in names:
        with contextlib.suppress(OSError), open(Path(folder, name), "r+b") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(Path(folder, name))


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text, whole or not at all."""
    with replacing(path) as stream:
        stream.write(text.encode("utf-8"))


def seal(stream: BufferedRandom) -> None:
    """Append the sha256 of all that was written; `check_seal` compares it. What reads zip files is not disturbed."""
    stream.seek(0)
    digest = hashlib.file_digest(stream, "sha256").hexdigest()
    stream.seek(0, os.SEEK_END)
    stream.write(SEAL + digest.encode())


def check_seal(path: str | os.PathLike) -> None:
    """Compare every byte of a sealed file with the sha256 at its end, about a second a gigabyte.

    Raises:
        DamagedError: if a byte was changed, lost or added.
    """
    digest, seal, tail = hashlib.sha256(), len(SEAL) + 64, b""
    with open(path, "rb") as stream:
        while block := stream.read(2**20):
            digest.update((tail + block)[:-seal])
            tail = (tail + block)[-seal:]
    if tail != SEAL + digest.hexdigest().encode():
        raise DamagedError(Path(path), "its bytes do not have the sha256 that was written at its end")


def check_word(word: Any, what: str) -> None:
    """Names become folders and files, so they must have no part that leads elsewhere; `what` is what errors call it."""
    if not isinstance(word, str) or not re.fullmatch(r"\w[\w.-]*", word, re.ASCII):
        raise ValueError(
            f"{what} must consist of letters, digits, '_', '-' and '.', no '.' or '-' first; it is {word!r}"
        )


def in_checkout(place: str) -> Path | None:
    """A file or folder of the checkout around the current folder, else of the one around this file; None without it."""
    own = Path(__file__).resolve().parents[2]
    folders = (*checkouts_around(Path.cwd()), *([own] if (own / "pyproject.toml").is_file() else []))
    return next((folder / place for folder in folders if is_there(folder / place)), None)


def checkouts_around(path: Path) -> Iterator[Path]:
    """A folder and those around it that hold a pyproject.toml, innermost first."""
    return (folder for folder in (path, *path.parents) if (folder / "pyproject.toml").is_file())


def is_there(path: str | os.PathLike) -> bool:
    """Whether a file or folder is there; whoever traces this process learns that it was asked."""
    sys.audit(LOOKED_FOR, os.fspath(path))
    return os.path.exists(path)


def note_read(path: str | os.PathLike) -> None:
    """Tell whoever traces this process that a file is read by something else than Python's own `open`."""
    sys.audit(READ, os.fspath(path))


def sha256_of_file(path: str | os.PathLike) -> str:
    """64 hexadecimal digits; the file need not fit into memory."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def parsed(path: str | os.PathLike, text: Any, fault: str) -> dict[str, Any]:
    """The JSON object that a file holds, in which no key comes twice.

    Raises:
        DamagedError: of that fault, if it is none.
    """
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except (TypeError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise DamagedError(Path(path), fault)
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found
