"""Digests of files that are read once, and again only after they changed. Needs nothing but Python."""

import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

from uqlib.files.whole import sha256_of_file, write_text

SETTLED = 2.0  # seconds after its last change before a time stamp is trusted: clocks of file systems tick coarsely
ABSENT, UNSETTLED = "absent", "changed while it was read"


class FileDigests:
    """sha256 of files; one is read again once its size, inode or a time stamp has changed.

    Args:
        place: file in which digests are kept between processes; a broken one costs another reading.
    """

    def __init__(self, place: str | Path) -> None:
        self.place, self.known, self.fresh = Path(place), read_json(Path(place)) or {}, False
        self.asked: dict[str, str] = {}

    def digest(self, path: str, since: float = float("inf")) -> str:
        """64 digits; ABSENT of what is no file, UNSETTLED of one that changed after `since`."""
        if path not in self.asked or since != float("inf"):
            self.asked[path] = self._digest(path, since)
        return self.asked[path]

    def _digest(self, path: str, since: float) -> str:
        try:
            now = os.stat(path)
            stamp = [now.st_size, now.st_ino, now.st_mtime_ns, now.st_ctime_ns]
            if now.st_mtime > since:
                return UNSETTLED
            known = self.known.get(path)
            if isinstance(known, list) and known[1:] == stamp:
                return known[0]
            digest = sha256_of_file(path)
        except OSError:
            return ABSENT
        if max(stamp[2:]) < (time.time() - SETTLED) * 1e9:
            self.known[path], self.fresh = [digest, *stamp], True
        return digest

    def keep(self) -> None:
        if self.fresh:
            with contextlib.suppress(OSError):  # a cache that cannot be written costs time, not truth
                write_text(self.place, json.dumps(self.known))


def read_json(path: Path) -> dict[str, Any] | None:
    """The JSON object that a file holds; None if it is not there or holds none."""
    try:
        body = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None
