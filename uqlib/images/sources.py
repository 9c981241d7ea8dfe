"""Where images come from: CIFAR and Tiny-ImageNet downloaded once, digits, prepared splits, folders of files.

A prepared split is a folder <set>/<split> with images.npy (uint8 n h w 3), labels.npy (int64), meta.json (class names,
counts, sha256 of the files) and further label arrays. Splits are looked for in $UQLIB_DATA, then in the cache; CIFAR
and Tiny-ImageNet are downloaded into the cache on first use, checksum verified, in the official order. A split may
also be a folder of class folders of image files (torchvision's ImageFolder); such images are read when asked for.
Nothing is ever replaced by another data set: what is missing is named, with the way to get it, and a file whose bytes
are not those that its meta.json names is refused.
"""

import json
import os
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from uqlib.base.extras import named
from uqlib.base.provenance import note_input
from uqlib.base.splits import split as draw_split
from uqlib.files import fingerprint
from uqlib.files.whole import cache_folder, check_word, is_there, sha256_of_file
from uqlib.images.folders import class_folders
from uqlib.images.photos import Pixels, decode
from uqlib.images.prepared import read_prepared, write_prepared
from uqlib.images.sequences import READING, Files, Images, row_numbers
from uqlib.images.sets import ImageSet, pixels_digest

SPLITS = {
    "digits": ("train", "test"),
    "cifar10": ("train", "test"),
    "cifar100": ("train", "test"),
    "tiny_imagenet": ("train", "val"),
    "caltech101": ("objects", "background"),
    "pacs": ("photo", "art_painting", "cartoon", "sketch"),
    "imagenet": ("train", "val"),
    "imagenet_sample": ("val",),
}
# last parts of a path that say nothing by themselves: such a folder is named with the one above it
GENERIC = ("train", "training", "val", "valid", "validation", "test", "testing", "eval", "all", "data", "images")


def load_images(name: str, split: str = "test", *, root: str | os.PathLike | None = None) -> ImageSet:
    """A split by name, downloaded on first use where there is an official source.

    What is loaded is what was asked for: a prepared split bears its name and split in meta.json, and the bytes of its
    arrays are compared with the sha256 there. They are hashed once, 0.1 s for CIFAR-10's test images and 3 s for a
    gigabyte; from then on they are trusted by size, inode and time stamps. The contents of image files likewise.

    - digits: scikit-learn's 1,797 handwritten digits of 8x8 pixels, grey 0 to 16 scaled to 0 to 255, as RGB;
      `test` is 600 of them, drawn once, stratified by class (split with seed 0), `train` the other 1,197.
    - cifar10, cifar100, tiny_imagenet: prepared, else downloaded.
    - caltech101, pacs, imagenet, imagenet_sample: prepared, or class folders of image files in <set>/<split>.
    - any other name: a set of your own, prepared by `write_prepared` or as class folders.
    - folder:PATH: class folders of image files, see `folders.class_folders` and `photos.read_image`; `split` only names
      it. Its digest changes with the content and the name of every file, and with the classes.

    Args:
        name: a key of SPLITS, the name of a set of your own, or folder:PATH.
        split: "train", "test", "val", ... as the set has them.
        root: a folder of <set>/<split>, searched alone and never downloaded to; by default $UQLIB_DATA and the cache.

    Raises:
        ValueError: if the name or the split is unknown, the files do not fit each other or are not those that were
            written, or a folder holds what is no set of class folders; the message names the file.
        FileNotFoundError: if the data are not here and cannot be had; the message says how to get them.
    """
    check_word(split, "split")
    found = _load(name, split, root)
    note_input(f"images: {found.name}/{found.split}", found.fingerprint)
    return found


def _load(name: str, split: str, root: str | os.PathLike | None) -> ImageSet:
    if name.startswith("folder:"):
        return _from_folder(name.removeprefix("folder:"), split)
    _check_name(name, root)
    if name == "digits":
        return _digits(split)
    for folder in split_places(root):
        place = folder / name / split
        if is_there(place / "meta.json"):
            return read_prepared(place, name, split)
        if is_there(place) and place.is_dir() and any(child.is_dir() for child in place.iterdir()):
            return _class_folders(place, name, split)
    if split not in (known := SPLITS.get(name, ()) + _present(name, root)):
        raise ValueError(f"unknown split {split!r} of {name}; choose from {', '.join(dict.fromkeys(known))}")
    if root is not None or name not in SOURCES:
        raise FileNotFoundError(_missing(name, split, root))
    try:
        SOURCES[name](cache_folder() / "downloads", cache_folder() / "data" / name / split, split)
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise FileNotFoundError(f"{_missing(name, split, root)} The download failed: {error}") from error
    return read_prepared(cache_folder() / "data" / name / split, name, split)


def _check_name(name: str, root: str | os.PathLike | None) -> None:
    check_word(name, "name of a data set")
    if name not in SPLITS and not any(
        is_there(place := folder / name) and place.is_dir() for folder in split_places(root)
    ):
        own = sorted({path.parents[1].name for folder in split_places(root) for path in folder.glob("*/*/meta.json")})
        known = dict.fromkeys([*SPLITS, *own])
        raise ValueError(f"unknown data set {name!r}; choose from {', '.join(known)}, folder:PATH")


def split_places(root: str | os.PathLike | None) -> list[Path]:
    """The folders where a prepared split may lie, the first one first."""
    if root is not None:
        return [Path(root)]
    given = os.environ.get("UQLIB_DATA")
    return [*([Path(given).expanduser()] if given else []), cache_folder() / "data"]


def _present(name: str, root: str | os.PathLike | None) -> tuple[str, ...]:
    found = (path for folder in split_places(root) for path in sorted((folder / name).glob("*/meta.json")))
    return tuple(path.parent.name for path in found)


def _missing(name: str, split: str, root: str | os.PathLike | None) -> str:
    searched = " and ".join(str(folder / name / split) for folder in split_places(root))
    folders = "with images.npy, labels.npy and meta.json" + (
        "" if name in SOURCES else ", or with one folder of image files a class"
    )
    network = " or connect to the network, and they are downloaded" if name in SOURCES and root is None else ""
    return (
        f"{name}/{split} is not here; searched {searched} ($UQLIB_DATA is {os.environ.get('UQLIB_DATA') or 'not set'}). "
        f"Set UQLIB_DATA to a folder that holds {name}/{split} {folders}{network}."
    )


def verify_images(name: str, *, root: str | os.PathLike | None = None) -> dict[Path, str]:
    """Compare every file of the prepared splits with its sha256: path and fault of each bad one; empty: all well.

    Raises:
        FileNotFoundError: if no split of the set is here, so that nothing was verified.
    """
    _check_name(name, root)
    metas = [path for folder in split_places(root) for path in sorted((folder / name).glob("*/meta.json"))]
    if not metas:
        raise FileNotFoundError(f"no prepared split of {name} in {' or '.join(map(str, split_places(root)))}")
    return {path: fault for meta in metas for path, fault in _faults(meta)}


def _faults(meta: Path) -> Iterator[tuple[Path, str]]:
    try:
        listed = dict(json.loads(meta.read_text(encoding="utf-8"))["sha256"].items())
    except Exception as error:  # a crafted file raises nearly anything
        yield meta, f"is damaged ({error!r})"
        return
    for file, sha256 in listed.items():
        path = meta.parent / file
        if Path(file).name != file or file == "..":
            yield meta, f"names {file!r}, which is no file of its own folder"
        elif not os.path.isfile(path):
            yield path, "is missing"
        elif (found := sha256_of_file(path)) != sha256:
            yield path, f"has sha256 {found}, meta.json says {sha256}"


def _from_folder(given: str, split: str) -> ImageSet:
    if not given:
        raise ValueError("folder: must be followed by a path, such as folder:photos; folder:. is the current folder")
    path = Path(os.path.abspath(Path(given).expanduser()))
    return _class_folders(path, _folder_name(path), split)


def _folder_name(path: Path) -> str:
    """A name for the store: that of the folder, after those above it as long as they say nothing, such as `val` or `3`."""
    parts = [part for part in path.parts if part != path.anchor] or ["folder"]
    first = len(parts) - 1
    while first and (parts[first].lower() in GENERIC or parts[first].isdigit()):
        first -= 1
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", "_".join(parts[first:])).lstrip(".-") or "folder"


def _class_folders(path: Path, name: str, split: str) -> ImageSet:
    classes, files, labels = class_folders(path)
    paths = [f"{path}{os.sep}{file}" for file in files]
    images = Files(paths, stamped=True)  # stamps first: what changes while it is hashed is then noticed
    contents = list(zip(files, fingerprint.of_files(paths), strict=True))
    parts = {"reading": READING, "classes": classes, "labels": labels, "files": contents}
    return ImageSet(images, labels, classes, name, split, fingerprint.fingerprint(parts), np.arange(len(paths)))


def _digits(name: str) -> ImageSet:
    with named():
        from sklearn.datasets import load_digits

    if name not in SPLITS["digits"]:
        raise ValueError(f"unknown split {name!r} of digits; choose from {', '.join(SPLITS['digits'])}")
    digits = load_digits()
    labels = digits.target.astype(np.int64)
    grey = (digits.images * 255 / 16).round().astype(np.uint8)
    images: UInt8[np.ndarray, "n 8 8 3"] = np.repeat(grey[..., None], 3, axis=-1)
    test, train = draw_split(len(labels), 600, seed=0, labels=labels)
    classes = tuple(map(str, range(10)))
    whole = ImageSet(images, labels, classes, "digits", name, pixels_digest(images), np.arange(len(labels)))
    return whole.select(test if name == "test" else train)


def _cifar(downloads: Path, place: Path, split: str) -> None:
    with named():
        from torchvision import datasets

    which = datasets.CIFAR10 if place.parent.name == "cifar10" else datasets.CIFAR100
    source = which(downloads, train=split == "train", download=True)  # md5 of archive and members are verified
    _put(place, source.data, source.targets, source.classes, order="official", source=source.url)


TINY_URL, TINY_MD5 = "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"


def _tiny_imagenet(downloads: Path, place: Path, split: str) -> None:
    with named():
        from torchvision.datasets.utils import download_url

    download_url(TINY_URL, str(downloads), md5=TINY_MD5)
    with zipfile.ZipFile(downloads / Path(TINY_URL).name) as archive:
        top = "tiny-imagenet-200"
        classes = sorted(archive.read(f"{top}/wnids.txt").decode().split())
        if split == "val":
            lines = archive.read(f"{top}/val/val_annotations.txt").decode().splitlines()
            files = {f"{top}/val/images/{line.split()[0]}": line.split()[1] for line in lines}
        else:
            # images of a class are numbered 0 to 499, and come in the order of their numbers
            own = re.compile(rf"{top}/train/(n\d+)/images/n\d+_(\d+)\.JPEG")
            found = sorted((m[1], int(m[2]), m[0]) for m in map(own.fullmatch, archive.namelist()) if m)
            files = {file: wnid for wnid, _, file in found}
        labels = [classes.index(wnid) for wnid in files.values()]
        _put(
            place,
            _Zipped(archive, list(files)),
            labels,
            classes,
            order="val_0, val_1, ...; train by class and number",
            source=TINY_URL,
            files=[Path(file).name for file in files],
        )


class _Zipped(Images):
    def __init__(self, archive: zipfile.ZipFile, members: list[str]):
        self.archive, self.members = archive, members

    def __len__(self) -> int:
        return len(self.members)

    def _one(self, row: int) -> Pixels:
        return decode(self.archive.read(self.members[row]), self.members[row])

    def select(self, rows: Any) -> "_Zipped":
        return _Zipped(self.archive, [self.members[row] for row in row_numbers(rows, len(self))])


def _put(place: Path, images: Any, labels: Any, classes: Sequence[str], **more: Any) -> None:
    name, split = place.parts[-2:]
    write_prepared(place.parents[1], images, labels, classes, name=name, split=split, **more)


SOURCES: dict[str, Callable[[Path, Path, str], None]] = {
    "cifar10": _cifar,
    "cifar100": _cifar,
    "tiny_imagenet": _tiny_imagenet,
}
