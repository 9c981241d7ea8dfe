"""The HTML of the book: built in a folder of its own, then put in the place of the one that stands, whole or not at all."""

import ctypes
import functools
import os
import re
import shutil
from pathlib import Path

EXCHANGE = 2  # of renameat2, Linux: two names change places in one step
HERE = -100  # paths count from the current folder


def html(place: str | Path, *, book: str | Path = "book", work: str | Path = "build", jobs: int = 1) -> Path:
    """Build the book and put it at `place`; every warning is an error, and then the book that stands stays.

    Each build starts from nothing in a folder WORK/html.PROCESS, so no page or figure of an earlier one is left in it.
    What killed builds left there is removed first.

    Args:
        place: folder of the HTML.
        book: folder of the sources, with `_config.yml` beside it.
        work: where it is built; on the disk of `place`.
        jobs: processes that read and write pages side by side.

    Raises:
        RuntimeError: if Sphinx warns or fails; its output stands above.
    """
    place, book, work = Path(place), Path(book), Path(work)
    _sweep(place, work)
    new = work / f"html.{os.getpid()}"
    try:
        if _sphinx(book, new, jobs) or not (new / "_build/html/index.html").is_file():
            raise RuntimeError("the book has warnings or errors; the one that stood before still stands")
        put_in_place(new / "_build/html", place)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return place / "index.html"


def _sphinx(book: Path, new: Path, jobs: int) -> int | str | None:
    """Run the command of Jupyter Book in this process; its exit code. It has no option for the number of jobs."""
    from jupyter_book import sphinx
    from jupyter_book.cli.main import main

    options = ["--config", str(book.parent / "_config.yml"), "--path-output", str(new)]
    sphinx.build_sphinx = functools.partial(sphinx.build_sphinx, jobs=jobs)
    try:
        return main(["build", str(book), *options, "-n", "-W", "--keep-going", "--all", "-q"])
    except SystemExit as end:
        return end.code


def put_in_place(new: Path, place: Path) -> None:
    """Let a folder take the place of another in one step where the system can, so that a reader always finds a whole one."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if place.is_dir():
        old = place.with_name(f".{place.name}.{os.getpid()}")
        if _exchange(new, place):
            os.rename(new, old)
        else:
            os.rename(place, old)
            os.rename(new, place)
        shutil.rmtree(old)
    else:
        os.rename(new, place)


def _exchange(one: Path, other: Path) -> bool:
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
        return rename(HERE, os.fsencode(one), HERE, os.fsencode(other), EXCHANGE) == 0
    except (AttributeError, OSError):  # not Linux, or a file system that cannot
        return False


def _sweep(place: Path, work: Path) -> None:
    """Remove what killed builds left; a book that one of them had moved aside comes back."""
    for left in place.parent.glob(f".{place.name}.*"):
        if not alive(left.name.rpartition(".")[2]):
            if not place.exists():
                os.rename(left, place)
            else:
                shutil.rmtree(left, ignore_errors=True)
    for left in work.glob("html.*"):
        if not alive(left.name.rpartition(".")[2]):
            shutil.rmtree(left, ignore_errors=True)


def alive(process: str) -> bool:
    """Whether a process of this number runs on this machine; a text that is no number counts as one, to be left alone."""
    if not re.fullmatch(r"[1-9]\d{0,8}", process, re.ASCII):
        return True
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # of somebody else
        return True
    return True
