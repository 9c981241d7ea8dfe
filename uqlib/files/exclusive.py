"""One process at a time: for work that two could begin at once, and for files to which several add."""

import contextlib
import fcntl
import os
from collections.abc import Iterator

from uqlib.files.fingerprint import fingerprint
from uqlib.files.whole import cache_folder


@contextlib.contextmanager
def hold_alone(name: str, *, wait: bool = True) -> Iterator[bool]:
    """Hold a name against other processes while this lasts; a killed process holds nothing.

    Args:
        name: of the work, or of the file.
        wait: until it is free; otherwise yield False at once where another process has it.

    Yields:
        Whether it is held. On a disk without locks it always is.
    """
    place = cache_folder() / "locks" / f"{fingerprint(name)[:16]}.lock"
    place.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(place, os.O_RDWR | os.O_CREAT)
    try:
        held = True
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            held = False
        except OSError:
            pass
        yield held
    finally:
        os.close(handle)
