"""Images and labels: where they lie, how they get there, and which rows go where.

A prepared split is a folder <set>/<split> with images.npy (uint8 n h w 3), labels.npy (int64), meta.json (class names,
counts, sha256 of the files) and further label arrays. Splits are looked for in $UQLIB_DATA, then in the cache; CIFAR
and Tiny-ImageNet are downloaded into the cache on first use, checksum verified, in the official order. A split may
also be a folder of class folders of image files (torchvision's ImageFolder); such images are read when asked for.
Nothing is ever replaced by another data set: what is missing is named, with the way to get it.
"""

import hashlib
import io
import json
import os
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from uqlib.arrays import as_tensor, check_rows
from uqlib.files import cache_folder, replacing, sha256_of_file, write_text
from uqlib.splits import split as draw_split

SPLITS = {
    "digits": ("train", "test"),
    "cifar10": ("train", "test"),
    "cifar100": ("train", "test"),
    "tiny_imagenet": ("train", "val"),
    "caltech101": ("objects", "background"),
    "pacs": ("photo", "art_painting", "cartoon", "sketch"),
    "imagenet": ("train", "val"),
}
NOISY = ("aggregate", "worst", "random1", "random2", "random3")
EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's

# Classes of other sets that are also CIFAR-10 classes, hence not "out of distribution" for a CIFAR-10 network.
# Rule: the synset is one of the ten (car n02958343, truck n04490091, ...) or below it in the WordNet of ImageNet.
# `ship` is read as vessel (n04530566): CIFAR-10's own file names count lifeboat and gondola among its ships.
CIFAR10_OVERLAP: dict[str, dict[str, str]] = {
    # Tractors, tanks, buses and streetcars are not below car or truck in WordNet, leopards and lions not below cat,
    # wolves not below dog; they stay. CIFAR-100 was chosen to share no class, but a pickup is a truck.
    "cifar100": {"pickup_truck": "truck"},
    # Not below the ten, and kept: go-kart (motor vehicle), school bus and trolleybus, freight car (a railway car),
    # tractor, lion (big cat), gazelle and bighorn (bovids, no deer), salamander (no frog), the lifting crane.
    "tiny_imagenet": {
        "n02814533": "automobile",  # beach wagon, station wagon
        "n03100240": "automobile",  # convertible
        "n03670208": "automobile",  # limousine
        "n04285008": "automobile",  # sports car
        "n01855672": "bird",  # goose
        "n02002724": "bird",  # black stork
        "n02056570": "bird",  # king penguin
        "n02058221": "bird",  # albatross
        "n02123045": "cat",  # tabby
        "n02123394": "cat",  # Persian cat
        "n02124075": "cat",  # Egyptian cat
        "n02125311": "cat",  # cougar: a wildcat, and wildcats are below cat.n.01
        "n02085620": "dog",  # Chihuahua
        "n02094433": "dog",  # Yorkshire terrier
        "n02099601": "dog",  # golden retriever
        "n02099712": "dog",  # Labrador retriever
        "n02106662": "dog",  # German shepherd
        "n02113799": "dog",  # standard poodle
        "n01641577": "frog",  # bullfrog
        "n01644900": "frog",  # tailed frog
        "n03447447": "ship",  # gondola: a boat
        "n03662601": "ship",  # lifeboat: a boat
        "n03796401": "truck",  # moving van: a van, and vans are below truck.n.01
        "n03977966": "truck",  # police van: a van
    },
}


@dataclass(frozen=True)
class ImageSet:
    """A split of a data set, or some rows of one.

    Args:
        images: uint8 (n, h, w, 3), usually memory-mapped; or `Files`, which reads images when asked for rows.
        labels: int64 (n,).
        classes: name of each label.
        name, split: which data.
        digest: 64 hexadecimal digits that change with the pixels or the rows; part of a store's key.
        index: row number of each image in the split.
        extras: further arrays with n rows, such as the votes of people.
    """

    images: Any
    labels: Int[np.ndarray, " n"]
    classes: tuple[str, ...]
    name: str
    split: str
    digest: str
    index: Int[np.ndarray, " n"]
    extras: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def select(self, rows: Any) -> "ImageSet":
        """Only these rows, in this order: indices or a mask. Pixels of a memory map are read; `Files` stay on disk."""
        rows = as_tensor(rows).cpu().numpy()
        if rows.ndim != 1 or (rows.dtype == bool and len(rows) != len(self)):
            raise ValueError(f"rows must be indices (k,) or a mask ({len(self)},); they are {rows.dtype} {rows.shape}")
        if rows.dtype.kind == "f" and len(rows):
            raise TypeError(f"rows must be integers or a mask; they are {rows.dtype}")
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows.astype(np.int64)
        digest = hashlib.sha256(self.digest.encode() + rows.astype("<i8").tobytes()).hexdigest()
        arrays = {"labels": self.labels[rows], "index": self.index[rows]}
        images = self.images.select(rows) if isinstance(self.images, Files) else self.images[rows]
        extras = {name: array[rows] for name, array in self.extras.items()}
        return replace(self, images=images, digest=digest, extras=extras, **arrays)

    def with_images(self, images: Any, *, name: str, split: str) -> "ImageSet":
        """The same labels and rows with other pixels, such as corrupted ones, under another name."""
        check_rows(images, len(self), "images")
        return replace(self, images=images, name=name, split=split, digest=pixels_digest(images))


def join(sets: Sequence[ImageSet], *, split: str) -> ImageSet:
    """Several splits of one data set as one, such as three domains; rows come in this order, numbered through.

    Pixels are copied into memory, so all must have one shape.

    Args:
        sets: at least one; name and classes must agree.
        split: name of the whole.

    Raises:
        ValueError: if names, classes or shapes differ.
    """
    first = sets[0]
    for other in sets[1:]:
        for name, one, two in (
            ("name", first.name, other.name),
            ("classes", first.classes, other.classes),
            ("shape of an image", first.images.shape[1:], other.images.shape[1:]),
        ):
            if one != two:
                raise ValueError(f"{first.split} and {other.split} differ in {name}: {one} and {two}")
    images, labels = (np.concatenate([getattr(each, part) for each in sets]) for part in ("images", "labels"))
    digest = hashlib.sha256("".join(each.digest for each in sets).encode()).hexdigest()
    extras = {name: np.concatenate([each.extras[name] for each in sets]) for name in first.extras}
    return ImageSet(images, labels, first.classes, first.name, split, digest, np.arange(len(labels)), extras)


class Files(Sequence):
    """Image files as a sequence: an index gives uint8 (h, w, 3), a slice a list of such, read at that moment."""

    def __init__(self, paths: Sequence[str | Path]):
        self.paths = list(paths)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, slice):
            return [self[row] for row in range(len(self))[rows]]
        with self._open(rows) as stream, Image.open(stream) as image:
            return np.asarray(image.convert("RGB"))

    def _open(self, row: int) -> io.BufferedIOBase:
        return open(self.paths[row], "rb")

    def select(self, rows: Any) -> "Files":
        return Files([self.paths[row] for row in rows])


def load(name: str, split: str = "test", *, root: str | os.PathLike | None = None) -> ImageSet:
    """A split by name, downloaded on first use where there is an official source.

    - digits: scikit-learn's 1,797 handwritten digits of 8x8 pixels, grey 0 to 16 scaled to 0 to 255, as RGB;
      `test` is 600 of them, drawn once, stratified by class (split with seed 0), `train` the other 1,197.
    - cifar10, cifar100, tiny_imagenet: prepared, else downloaded.
    - caltech101, pacs, imagenet: prepared, or class folders of image files in <set>/<split>.
    - folder:PATH: class folders of image files; `split` only names it.

    Args:
        name: a key of SPLITS, or folder:PATH.
        split: "train", "test", "val", ... as the set has them.
        root: a folder of <set>/<split>, searched alone and never downloaded to; by default $UQLIB_DATA and the cache.

    Raises:
        ValueError: if the name or the split is unknown, or the files do not fit each other.
        FileNotFoundError: if the data are not here and cannot be had; the message says how to get them.
    """
    if name.startswith("folder:"):
        path = Path(name.removeprefix("folder:"))
        return _from_folder(path, re.sub(r"[^\w.-]+", "_", path.resolve().name), split)
    _check_name(name)
    if name == "digits":
        return _digits(split)
    for folder in _places(root):
        place = folder / name / split
        if (place / "meta.json").is_file():
            return _prepared(place)
        if place.is_dir() and any(child.is_dir() for child in place.iterdir()):
            return _from_folder(place, name, split)
    if split not in (known := tuple(SPLITS[name]) + _present(name, root)):
        raise ValueError(f"unknown split {split!r} of {name}; choose from {', '.join(dict.fromkeys(known))}")
    if root is not None or name not in SOURCES:
        raise FileNotFoundError(_missing(name, split, root))
    try:
        SOURCES[name](cache_folder() / "downloads", cache_folder() / "data" / name / split, split)
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise FileNotFoundError(f"{_missing(name, split, root)} The download failed: {error}") from error
    return _prepared(cache_folder() / "data" / name / split)


def _check_name(name: str) -> None:
    if name not in SPLITS:
        raise ValueError(f"unknown data set {name!r}; choose from {', '.join(SPLITS)}, folder:PATH")


def _places(root: str | os.PathLike | None) -> list[Path]:
    if root is not None:
        return [Path(root)]
    given = os.environ.get("UQLIB_DATA")
    return [*([Path(given).expanduser()] if given else []), cache_folder() / "data"]


def _present(name: str, root: str | os.PathLike | None) -> tuple[str, ...]:
    found = (path for folder in _places(root) for path in sorted((folder / name).glob("*/meta.json")))
    return tuple(path.parent.name for path in found)


def _missing(name: str, split: str, root: str | os.PathLike | None) -> str:
    searched = " and ".join(str(folder / name / split) for folder in _places(root))
    folders = "with images.npy, labels.npy and meta.json" + (
        "" if name in SOURCES else ", or with one folder of image files a class"
    )
    network = " or connect to the network, and they are downloaded" if name in SOURCES and root is None else ""
    return (
        f"{name}/{split} is not here; searched {searched} ($UQLIB_DATA is {os.environ.get('UQLIB_DATA') or 'not set'}). "
        f"Set UQLIB_DATA to a folder that holds {name}/{split} {folders}{network}."
    )


# The prepared format


def write_prepared(
    folder: str | os.PathLike,
    images: Any,
    labels: Any,
    classes: Sequence[str],
    *,
    name: str,
    split: str,
    files: Sequence[str] | None = None,
    extras: Mapping[str, Any] | None = None,
    **meta: Any,
) -> Path:
    """Write a split in the prepared format. meta.json comes last, so a split that has one is whole.

    Args:
        folder: where <set>/<split> goes.
        images: uint8 (n, h, w, 3), or any sequence whose slices are that; it is read in pieces.
        labels: int (n,).
        classes: name of each label.
        name, split: which data.
        files: original file names.
        extras: further arrays with n rows, by name.
        **meta: what else meta.json should say, such as source, citation, terms.

    Returns:
        The folder of the split.
    """
    place = Path(folder) / name / split
    labels, extras = np.asarray(labels, np.int64), {key: np.asarray(array) for key, array in (extras or {}).items()}
    shape = np.asarray(images[0]).shape
    _check_split(place, (len(images), *shape), np.asarray(images[0]).dtype, labels, classes, extras)
    (place / "meta.json").unlink(missing_ok=True)
    pieces = (np.stack([*images[k : k + 1024]]) for k in range(0, len(images), 1024))
    _write_npy(place / "images.npy", np.uint8, (len(images), *shape), pieces)
    for key, array in {"labels": labels, **extras}.items():
        _write_npy(place / f"{key}.npy", array.dtype, array.shape, [array])
    written = ["images.npy", "labels.npy", *(f"{key}.npy" for key in extras)]
    if files is not None:
        write_text(place / "files.txt", "".join(f"{file}\n" for file in files))
        written.append("files.txt")
    body = {"name": name, "classes": list(classes), "split": split, "count": len(labels), "image_shape": list(shape)}
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    body |= {"class_counts": counts, "extras": sorted(extras), **meta}
    body["sha256"] = {file: sha256_of_file(place / file) for file in sorted(written)}
    write_text(place / "meta.json", json.dumps(body, indent=1) + "\n")
    return place


def _write_npy(path: Path, dtype: Any, shape: tuple[int, ...], pieces: Iterable[np.ndarray]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with replacing(path) as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for piece in pieces:
            stream.write(np.ascontiguousarray(piece, dtype).data)


def _prepared(place: Path) -> ImageSet:
    try:
        meta = json.loads((place / "meta.json").read_text())
        images = np.load(place / "images.npy", mmap_mode="r")
        arrays = {path.stem: np.load(path) for path in sorted(place.glob("*.npy")) if path.stem != "images"}
        labels, extras = arrays.pop("labels"), arrays
        count = (int(meta["count"]), *meta["image_shape"])
    except (ValueError, KeyError, OSError, EOFError) as error:
        raise ValueError(f"{place} is damaged or incomplete ({error!r}); remove it and prepare it again") from None
    if images.shape != count:
        raise ValueError(f"{place}/images.npy has shape {images.shape}, meta.json says {count}; unpack it again")
    _check_split(place, images.shape, images.dtype, labels, meta["classes"], extras)
    digest = meta["sha256"]["images.npy"]
    return ImageSet(
        images, labels, tuple(meta["classes"]), meta["name"], meta["split"], digest, np.arange(len(labels)), extras
    )


def _check_split(
    place: Path,
    shape: tuple[int, ...],
    dtype: Any,
    labels: np.ndarray,
    classes: Sequence[str],
    extras: Mapping[str, Any],
) -> None:
    if dtype != np.uint8 or len(shape) != 4 or shape[-1] != 3:
        raise ValueError(f"images of {place} must be uint8 (n, h, w, 3); they are {dtype} {shape}")
    if labels.dtype != np.int64 or labels.shape != shape[:1]:
        raise ValueError(f"labels of {place} must be int64 ({shape[0]},); they are {labels.dtype} {labels.shape}")
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(classes):
        raise ValueError(
            f"labels of {place} must lie in [0, {len(classes)}); they reach from {labels.min()} to {labels.max()}"
        )
    for name, array in extras.items():
        if len(array) != shape[0]:
            raise ValueError(f"{name} of {place} has {len(array)} rows where {shape[0]} are expected")


def verify(name: str, *, root: str | os.PathLike | None = None) -> dict[Path, str]:
    """Compare every file of the prepared splits with its sha256: path and fault of each bad one; empty: all well.

    Raises:
        FileNotFoundError: if no split of the set is here, so that nothing was verified.
    """
    _check_name(name)
    metas = [path for folder in _places(root) for path in sorted((folder / name).glob("*/meta.json"))]
    if not metas:
        raise FileNotFoundError(f"no prepared split of {name} in {' or '.join(map(str, _places(root)))}")
    faults = {}
    for meta in metas:
        for file, sha256 in json.loads(meta.read_text())["sha256"].items():
            path = meta.parent / file
            if not path.is_file():
                faults[path] = "is missing"
            elif (found := sha256_of_file(path)) != sha256:
                faults[path] = f"has sha256 {found}, meta.json says {sha256}"
    return faults


def pixels_digest(images: Any) -> str:
    """sha256 of shape and pixels, image by image where they are files or of several sizes."""
    digest = hashlib.sha256()
    for k in range(0, len(images), 256):
        block = images[k : k + 256]
        for array in [block] if hasattr(block, "shape") else block:
            array = np.ascontiguousarray(as_tensor(array).cpu().numpy())
            digest.update(f"{array.dtype} {array.shape}".encode())
            digest.update(array.data)
    return digest.hexdigest()


def _from_folder(path: Path, name: str, split: str) -> ImageSet:
    """Class folders in the order of their names, files in the order of theirs, as torchvision's ImageFolder."""
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    classes = sorted(child.name for child in path.iterdir() if child.is_dir())
    files = [sorted(file for file in (path / each).rglob("*") if file.suffix.lower() in EXTENSIONS) for each in classes]
    if not any(files):
        raise ValueError(
            f"{path} must hold one folder of image files a class; it holds {len(classes)} folders, no image"
        )
    paths = [file for group in files for file in group]
    labels = np.repeat(np.arange(len(classes)), [len(group) for group in files])
    # names and sizes: hashing the content would read the whole set, which may be ImageNet
    listing = "\n".join(f"{file.relative_to(path).as_posix()} {file.stat().st_size}" for file in paths)
    digest = hashlib.sha256(listing.encode()).hexdigest()
    return ImageSet(Files(paths), labels, tuple(classes), name, split, digest, np.arange(len(paths)))


# Sources


def _digits(name: str) -> ImageSet:
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
    from torchvision import datasets

    which = datasets.CIFAR10 if place.parent.name == "cifar10" else datasets.CIFAR100
    source = which(downloads, train=split == "train", download=True)  # md5 of archive and members are verified
    _put(place, source.data, source.targets, source.classes, order="official", source=source.url)


TINY_URL, TINY_MD5 = "http://cs231n.stanford.edu/tiny-imagenet-200.zip", "90528d7ca1a48142e341f4ef8d21d0de"


def _tiny_imagenet(downloads: Path, place: Path, split: str) -> None:
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


class _Zipped(Files):
    def __init__(self, archive: zipfile.ZipFile, members: list[str]):
        super().__init__(members)
        self.archive = archive

    def _open(self, row: int) -> io.BufferedIOBase:
        return self.archive.open(self.paths[row])


def _put(place: Path, images: Any, labels: Any, classes: Sequence[str], **more: Any) -> None:
    name, split = place.parts[-2:]
    write_prepared(place.parents[1], images, labels, classes, name=name, split=split, **more)


SOURCES: dict[str, Callable[[Path, Path, str], None]] = {
    "cifar10": _cifar,
    "cifar100": _cifar,
    "tiny_imagenet": _tiny_imagenet,
}


# Labels of people


def human_counts(*, root: str | os.PathLike | None = None) -> Int[np.ndarray, "n c"]:
    """Votes of people for each class of each test image (CIFAR-10H: 47 to 63 an image), as load("cifar10", "test") has them.

    Args:
        root: as in `load`.

    Raises:
        FileNotFoundError: if human_counts.npy is not beside the images.

    Source:
        Peterson et al. 2019 (arXiv:1908.07086); github.com/jcpeterson/cifar-10h.
    """
    where = "cifar10h-counts.npy of github.com/jcpeterson/cifar-10h (official order of the test images)"
    return _extra("test", "human_counts", where, root)


def noisy_labels(kind: str, *, root: str | os.PathLike | None = None) -> Int[np.ndarray, " n"]:
    """Labels that one person gave each training image (CIFAR-10N), as load("cifar10", "train") has them.

    Args:
        kind: random1, random2, random3 (three people), aggregate (their majority), worst (a wrong one if there is one).
        root: as in `load`.

    Raises:
        ValueError: if the kind is unknown.
        FileNotFoundError: if the array is not beside the images.

    Source:
        Wei et al. 2022 (arXiv:2110.12088); github.com/UCSC-REAL/cifar-10-100n.
    """
    if kind not in NOISY:
        raise ValueError(f"unknown kind {kind!r} of noisy labels; choose from {', '.join(NOISY)}")
    where = "CIFAR-10_human.pt of github.com/UCSC-REAL/cifar-10-100n (official order of the training images)"
    return _extra("train", f"noisy_{kind}", where, root)


def _extra(split: str, extra: str, where: str, root: str | os.PathLike | None) -> np.ndarray:
    found = load("cifar10", split, root=root)
    if extra not in found.extras:
        paths = " or ".join(str(folder / "cifar10" / split / f"{extra}.npy") for folder in _places(root))
        raise FileNotFoundError(
            f"{extra} of cifar10 is not here; save it as {paths}, a row for each image, from {where}"
        )
    return found.extras[extra]


# Rows


def without_classes(image_set: ImageSet, classes: Iterable[str]) -> ImageSet:
    """The rows of all other classes; labels keep their numbers and `classes` its length.

    Args:
        image_set: any.
        classes: names to leave out, such as CIFAR10_OVERLAP["cifar100"].

    Raises:
        ValueError: if a name is no class of the set.
    """
    unknown = sorted(set(classes := tuple(classes)) - set(image_set.classes))
    if unknown:
        raise ValueError(
            f"{image_set.name} has no class {', '.join(unknown)}; the first of its classes are "
            f"{', '.join(image_set.classes[:5])}"
        )
    out = [label for label, name in enumerate(image_set.classes) if name in classes]
    return image_set.select(~np.isin(image_set.labels, out))
