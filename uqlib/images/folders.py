"""Folders of image files, one a class."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from uqlib.base.extras import named
from uqlib.images.photos import EXTENSIONS

with named():
    pass

OTHERS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")  # of systems


class Folder(NamedTuple):
    """What a folder of class folders holds: files relative to it, a label each, the class of each label."""

    classes: tuple[str, ...]
    files: list[str]
    labels: Int[np.ndarray, " n"]


def class_folders(path: str | os.PathLike) -> Folder:
    """Class folders in the order of their names, files in the order of theirs: as torchvision's ImageFolder.

    Hidden files and folders (.ipynb_checkpoints, ._photo.jpg) and those of systems (__MACOSX, @eaDir) are left out, and
    so are files of other endings than EXTENSIONS, and files beside the class folders. Links are followed.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it holds no class folder, one without an image, a broken link, or a link back to where it came
            from; the message names it.
    """
    path = Path(path)
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}" + (", but a file of that name" if path.exists() else ""))
    top = sorted(entry.name for entry in _entries(path) if entry.is_dir())
    files = [_files(str(path / name), str(path)) for name in top]
    if not any(files):
        beside = sum(map(_is_image, (entry.name for entry in _entries(path))))
        raise ValueError(
            f"{path} must hold one folder of image files a class; it holds {len(top)} folders, no image in them and "
            f"{beside} beside them. Images end in {', '.join(EXTENSIONS)}. All of one class? Put them into a folder there."
        )
    if empty := [name for name, found in zip(top, files, strict=True) if not found]:
        raise ValueError(
            f"{path} holds {len(empty)} folders without an image, which would be classes without one: "
            f"{', '.join(map(repr, empty[:5]))}. Images end in {', '.join(EXTENSIONS)}; remove these folders, or fill them."
        )
    labels = np.repeat(np.arange(len(top)), [len(found) for found in files])
    return Folder(tuple(top), [file for found in files for file in found], labels)


def _entries(folder: str | os.PathLike[str]) -> Iterator[os.DirEntry[str]]:
    """What lies in a folder, but for what is hidden or of a system."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name in OTHERS:
                continue
            if entry.is_symlink() and not os.path.exists(entry.path):
                raise ValueError(
                    f"{entry.path!r} is a broken link, to {os.readlink(entry.path)!r}; mend it or remove it"
                )
            yield entry


def _is_image(name: str) -> bool:
    return name.lower().endswith(EXTENSIONS)


def _files(folder: str, root: str) -> list[str]:
    """The image files in and below a folder, relative to `root`: folder by folder in the order of their paths."""
    found: dict[str, list[str]] = {}
    waiting = [(folder, frozenset([_place(root)]))]
    while waiting:
        here, above = waiting.pop()
        place, names = _place(here), []
        if place in above:
            raise ValueError(f"{here!r} leads back to a folder that it lies in; remove that link")
        for entry in _entries(here):
            if entry.is_dir():
                waiting.append((entry.path, above | {place}))
            elif _is_image(entry.name):
                if not entry.is_file():
                    raise ValueError(f"{entry.path!r} is no file that can be read as an image; remove it")
                names.append(entry.name)
        found[here] = sorted(names)
    start = len(root.rstrip(os.sep)) + 1
    return [os.path.join(here, name)[start:] for here in sorted(found) for name in found[here]]


def _place(folder: str) -> tuple[int, int]:
    status = os.stat(folder)
    return status.st_dev, status.st_ino
