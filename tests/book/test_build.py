"""The book that stands is replaced only by a whole one, and a killed build spoils nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from uqlib.book import build


@pytest.fixture(scope="module")
def dead():
    """The number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A standing book of two pages; the folder in which this runs holds it."""
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "_build/html", "old")
    (tmp_path / "_build/html/gone.html").write_text("of a notebook that is not there any more")
    return Path("_build/html")


def folder(path, text):
    path.mkdir(parents=True)
    (path / "index.html").write_text(text)
    return path


def sphinx(monkeypatch, code=0, text="new", killed=False):
    """In place of Sphinx: writes half a book, then the rest, or ends as it is told."""

    def run(book, new, jobs):
        folder(new / "_build/html", text)
        if killed:
            raise KeyboardInterrupt
        return code

    monkeypatch.setattr(build, "_sphinx", run)


def test_a_whole_book_takes_the_place_of_the_old_one(place, monkeypatch):
    sphinx(monkeypatch)
    assert build.html(place).read_text() == "new"
    assert [path.name for path in place.iterdir()] == ["index.html"]  # no page of the old one is left
    assert os.listdir("_build") == ["html"]
    assert os.listdir("build") == []


def test_the_first_book_needs_no_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sphinx(monkeypatch)
    assert build.html("_build/html").read_text() == "new"


@pytest.mark.parametrize("how", [{"code": 1}, {"killed": True}])
def test_a_book_with_warnings_or_a_stopped_build_leaves_the_old_one(place, monkeypatch, how):
    sphinx(monkeypatch, **how)
    with pytest.raises((RuntimeError, KeyboardInterrupt)):
        build.html(place)
    assert (place / "index.html").read_text() == "old"
    assert (place / "gone.html").exists()
    assert os.listdir("build") == []


@pytest.mark.parametrize("exchange", [True, False])
def test_there_is_a_whole_book_at_every_moment_or_it_comes_back(place, monkeypatch, exchange, dead):
    if not exchange:  # as on a system that cannot
        monkeypatch.setattr(build, "_exchange", lambda one, other: False)
    seen = []
    rename = os.rename

    def watched(one, other):
        seen.append(place.is_dir() and (place / "index.html").read_text())
        rename(one, other)

    monkeypatch.setattr(build.os, "rename", watched)
    build.put_in_place(folder(Path("new"), "new"), place)
    assert (place / "index.html").read_text() == "new"
    if exchange and sys.platform == "linux":
        assert all(seen)
    monkeypatch.setattr(build.os, "rename", rename)
    rename(place, f"_build/.html.{dead}")  # killed between the two steps
    sphinx(monkeypatch, code=1)
    with pytest.raises(RuntimeError):
        build.html(place)
    assert (place / "index.html").read_text() == "new"


def test_what_killed_builds_left_is_removed_and_that_of_a_living_one_is_not(place, monkeypatch, dead):
    folder(Path(f"build/html.{dead}/_build/html"), "half")
    folder(Path(f"build/html.{os.getppid()}/_build/html"), "half")
    folder(Path(f"_build/.html.{dead}"), "older")
    sphinx(monkeypatch)
    build.html(place)
    assert os.listdir("build") == [f"html.{os.getppid()}"]
    assert os.listdir("_build") == ["html"]
