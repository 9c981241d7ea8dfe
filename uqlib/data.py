"""Images and labels: where they lie, how they get there, and which rows go where.

A prepared split is a folder <set>/<split> with images.npy (uint8 n h w 3), labels.npy (int64), meta.json (class names,
counts, sha256 of the files) and further label arrays. Splits are looked for in $UQLIB_DATA, then in the cache; CIFAR
and Tiny-ImageNet are downloaded into the cache on first use, checksum verified, in the official order. A split may
also be a folder of class folders of image files (torchvision's ImageFolder); such images are read when asked for.
Nothing is ever replaced by another data set: what is missing is named, with the way to get it, and a file whose bytes
are not those that its meta.json names is refused.
"""

import hashlib
import json
import os
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8
from torch import Tensor

from uqlib import fingerprint
from uqlib.arrays import as_tensor, check_labels, check_rows
from uqlib.extras import named
from uqlib.files import cache_folder, check_word, replacing, sha256_of_file, write_text
from uqlib.photos import READING, Files, Images, Pixels, check_images, class_folders, decode, row_numbers, select
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
# last parts of a path that say nothing by themselves: such a folder is named with the one above it
GENERIC = ("train", "training", "val", "valid", "validation", "test", "testing", "eval", "all", "data", "images")

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
        images: uint8 (n, h, w, 3), usually memory-mapped; or `Images`, such as `Files`, made when asked for.
        labels: int64 (n,).
        classes: name of each label.
        name, split: which data.
        digest: 64 hexadecimal digits that change with the pixels or the rows; part of a store's key. What a network
            says does not hang on the labels, so they need not change it (in a folder of class folders they do).
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

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that change with the pixels, the rows, the labels or the classes, not with the names."""
        parts = {"images": self.digest, "labels": self.labels, "classes": self.classes}
        return fingerprint.fingerprint(parts)

    def select(self, rows: Any) -> "ImageSet":
        """Only these rows, in this order: indices or a mask. Pixels of a memory map are read; `Images` are not."""
        rows = row_numbers(rows, len(self))
        digest = hashlib.sha256(self.digest.encode() + rows.astype("<i8").tobytes()).hexdigest()
        arrays = {"labels": self.labels[rows], "index": self.index[rows]}
        extras = {name: array[rows] for name, array in self.extras.items()}
        return replace(self, images=select(self.images, rows), digest=digest, extras=extras, **arrays)

    def with_images(self, images: Any, *, name: str, split: str) -> "ImageSet":
        """The same labels and rows with other pixels, such as corrupted ones, under another name.

        All are read once, for their digest: `Images` are made for it, and again when they are used.
        """
        check_rows(images, len(self), "images")
        return replace(self, images=images, name=name, split=split, digest=pixels_digest(images))


def join(sets: Sequence[ImageSet], *, split: str) -> ImageSet:
    """Several splits of one data set as one, such as three domains; rows come in this order, numbered through.

    Pixels are copied into memory, so all must have one shape; files stay where they are.

    Args:
        sets: at least one; name, classes, the shape of an image and the names of the extras must agree.
        split: name of the whole.

    Raises:
        ValueError: if there is no set, or they differ in one of these.
        TypeError: if the images are neither arrays nor files.
    """
    if not len(sets):
        raise ValueError("sets is empty; at least one is needed")
    check_word(split, "split")
    first = sets[0]
    for other in sets[1:]:
        for what, trait in TRAITS.items():
            if trait(first) != trait(other):
                raise ValueError(f"{first.split} and {other.split} differ in {what}: {trait(first)} and {trait(other)}")
    labels = np.concatenate([each.labels for each in sets])
    digest = hashlib.sha256("".join(each.digest for each in sets).encode()).hexdigest()
    extras = {name: np.concatenate([each.extras[name] for each in sets]) for name in first.extras}
    images = _joined([each.images for each in sets])
    return ImageSet(images, labels, first.classes, first.name, split, digest, np.arange(len(labels)), extras)


TRAITS: dict[str, Callable[[ImageSet], Any]] = {  # what sets must share to be joined
    "name": lambda each: each.name,
    "classes": lambda each: each.classes,
    "kind of images": lambda each: "array" if hasattr(each.images, "shape") else type(each.images).__name__,
    "shape of an image": lambda each: getattr(each.images, "shape", (0,))[1:],
    "extras": lambda each: sorted(each.extras),
}


def _joined(images: Sequence[Any]) -> Any:
    if hasattr(images[0], "shape"):
        return np.concatenate(images)
    if not isinstance(images[0], Files):
        raise TypeError(
            f"only arrays and files are joined, not {type(images[0]).__name__}; join first, change afterwards"
        )
    return Files.joined(images)


def load(name: str, split: str = "test", *, root: str | os.PathLike | None = None) -> ImageSet:
    """A split by name, downloaded on first use where there is an official source.

    What is loaded is what was asked for: a prepared split bears its name and split in meta.json, and the bytes of its
    arrays are compared with the sha256 there. They are hashed once, 0.1 s for CIFAR-10's test images and 3 s for a
    gigabyte; from then on they are trusted by size, inode and time stamps. The contents of image files likewise.

    - digits: scikit-learn's 1,797 handwritten digits of 8x8 pixels, grey 0 to 16 scaled to 0 to 255, as RGB;
      `test` is 600 of them, drawn once, stratified by class (split with seed 0), `train` the other 1,197.
    - cifar10, cifar100, tiny_imagenet: prepared, else downloaded.
    - caltech101, pacs, imagenet: prepared, or class folders of image files in <set>/<split>.
    - any other name: a set of your own, prepared by `write_prepared` or as class folders.
    - folder:PATH: class folders of image files, see `photos.class_folders` and `photos.read_image`; `split` only names
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
    if name.startswith("folder:"):
        return _from_folder(name.removeprefix("folder:"), split)
    _check_name(name, root)
    if name == "digits":
        return _digits(split)
    for folder in _places(root):
        place = folder / name / split
        if (place / "meta.json").is_file():
            return _prepared(place, name, split)
        if place.is_dir() and any(child.is_dir() for child in place.iterdir()):
            return _class_folders(place, name, split)
    if split not in (known := SPLITS.get(name, ()) + _present(name, root)):
        raise ValueError(f"unknown split {split!r} of {name}; choose from {', '.join(dict.fromkeys(known))}")
    if root is not None or name not in SOURCES:
        raise FileNotFoundError(_missing(name, split, root))
    try:
        SOURCES[name](cache_folder() / "downloads", cache_folder() / "data" / name / split, split)
    except (OSError, RuntimeError, zipfile.BadZipFile) as error:
        raise FileNotFoundError(f"{_missing(name, split, root)} The download failed: {error}") from error
    return _prepared(cache_folder() / "data" / name / split, name, split)


def _check_name(name: str, root: str | os.PathLike | None) -> None:
    check_word(name, "name of a data set")
    own = sorted({path.parents[1].name for folder in _places(root) for path in folder.glob("*/*/meta.json")})
    if name not in (*SPLITS, *own) and not any((folder / name).is_dir() for folder in _places(root)):
        known = dict.fromkeys([*SPLITS, *own])
        raise ValueError(f"unknown data set {name!r}; choose from {', '.join(known)}, folder:PATH")


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
    """Write a split in the prepared format, which `load(name, split, root=folder)` reads.

    meta.json comes last, so a split that has one is whole.

    Args:
        folder: where <set>/<split> goes.
        images: uint8 (n, h, w, 3), or any sequence of images of one size, such as `Files`; it is read in pieces.
        labels: int (n,).
        classes: name of each label, no two alike.
        name, split: which data; letters, digits, `_`, `-` and `.`.
        files: original file names.
        extras: further arrays with n rows, by name.
        **meta: what else meta.json should say, such as source, citation, terms.

    Returns:
        The folder of the split.

    Raises:
        TypeError: if labels, classes or extras are of a type that cannot be kept.
        ValueError: if rows, shapes, names or labels do not fit; the message names the first odd image or file.
    """
    for word, what in ((name, "name"), (split, "split")):
        check_word(word, what)
    place, classes = Path(folder) / name / split, _check_classes(classes)
    if isinstance(images, list | tuple | np.ndarray | Tensor | Mapping | str) or not hasattr(images, "__len__"):
        images = check_images(images)  # any other sequence is taken at its word
    labels = check_labels(labels, len(classes), len(images)).cpu().numpy()
    extras = {key: _check_extra(key, array, len(images)) for key, array in (extras or {}).items()}
    shape = (len(images), *np.shape(images[0]))
    _check_split(place, shape, as_tensor(images[0]).cpu().numpy().dtype, labels, classes, extras)
    counts = np.bincount(labels, minlength=len(classes)).tolist()
    body = {
        "name": name,
        "classes": list(classes),
        "split": split,
        "count": len(labels),
        "image_shape": list(shape[1:]),
    }
    body |= {"class_counts": counts, "extras": sorted(extras)}
    if clash := sorted(meta.keys() & {*body, "sha256"}):
        raise ValueError(f"meta.json says {', '.join(clash)} itself; give these facts another name")
    json.dumps(meta)  # what cannot be written is refused before the images are
    written = _listing(files, len(images))
    (place / "meta.json").unlink(missing_ok=True)
    _write_npy(place / "images.npy", np.dtype(np.uint8), shape, _pieces(images, shape))
    for key, array in {"labels": labels, **extras}.items():
        _write_npy(place / f"{key}.npy", array.dtype, array.shape, [array])
    for file, text in written.items():
        write_text(place / file, text)
    paths = ["images.npy", "labels.npy", *(f"{key}.npy" for key in extras), *written]
    sha256 = {file: sha256_of_file(place / file) for file in sorted(paths)}
    write_text(place / "meta.json", json.dumps(body | meta | {"sha256": sha256}, indent=1) + "\n")
    return place


def _check_classes(classes: Any) -> tuple[str, ...]:
    if isinstance(classes, str) or not all(isinstance(each, str) for each in classes):
        raise TypeError(f"classes must be a list of names, one a label; they are {f'{classes!r}':.80}")
    again = [name for name, count in Counter(classes).items() if count > 1]
    if again:
        labels = [label for label, name in enumerate(classes) if name == again[0]]
        raise ValueError(f"no two classes may have one name; {again[0]!r} is that of labels {labels}. Tell them apart.")
    return tuple(classes)


def _check_extra(name: str, array: Any, rows: int) -> np.ndarray:
    check_word(name, "name of an extra")
    if name in ("images", "labels"):
        raise ValueError(f"an extra must not be called {name!r}: that file holds the {name}; give it another name")
    array = array.detach().cpu().numpy() if isinstance(array, Tensor) else np.asarray(array)
    if array.dtype.kind not in "biufUS":
        raise TypeError(f"extra {name!r} must hold numbers or texts; it is {array.dtype}")
    if not array.ndim:
        raise ValueError(f"extra {name!r} must have {rows} rows; it is the one value {array}")
    return array


def _listing(files: Sequence[str] | None, rows: int) -> dict[str, str]:
    if files is None:
        return {}
    check_rows(files, rows, "files")
    if odd := next((file for file in files if "\n" in str(file)), None):
        raise ValueError(f"files are listed one a line, so no name may be of two lines; this one is: {odd!r}")
    return {"files.txt": "".join(f"{file}\n" for file in files)}


def _pieces(images: Any, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
    """The images in blocks of at most 64 MB, each checked."""
    step = min(1024, max(1, 2**26 // int(np.prod(shape[1:]))))
    for start in range(0, shape[0], step):
        block = [as_tensor(image).cpu().numpy() for image in images[start : start + step]]
        for row, image in enumerate(block, start):
            if image.shape != shape[1:] or image.dtype != np.uint8:
                paths = getattr(images, "paths", None)
                raise ValueError(
                    f"images must be uint8 and of one size; row 0 is {shape[1:]}, row {row} is {image.dtype} {image.shape}"
                    f"{f', {os.fspath(paths[row])!r}' if paths else ''}. Pass photos.squares(images, size=224), which cuts "
                    "out the middle square and resizes it, or another size."
                )
        check_rows(block, min(step, shape[0] - start), f"images[{start}:{start + step}]")
        yield np.stack(block)


def _write_npy(path: Path, dtype: Any, shape: tuple[int, ...], pieces: Iterable[np.ndarray]) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(dtype)), "fortran_order": False, "shape": shape}
    with replacing(path) as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for piece in pieces:
            stream.write(np.ascontiguousarray(piece, dtype).data)


def _prepared(place: Path, name: str, split: str) -> ImageSet:
    try:
        meta = json.loads((place / "meta.json").read_text(encoding="utf-8"))
        found, classes, sha256 = (meta["name"], meta["split"]), meta["classes"], dict(meta["sha256"].items())
        count = (int(meta["count"]), *meta["image_shape"])
        files = [path for path in sorted(place.glob("*.npy")) if not path.name.startswith(".")]
        arrays = {path.stem: _mapped(path) for path in files}
        images, labels = arrays.pop("images"), np.array(arrays.pop("labels"))
        extras = {key: np.array(array) for key, array in arrays.items()}
    except Exception as error:  # a crafted file raises nearly anything
        raise ValueError(f"{place} is damaged or incomplete ({error!r}); remove it and prepare it again") from None
    if found != (name, split):
        raise ValueError(
            f"{place} is not {name}/{split}: its meta.json says {'/'.join(map(str, found))}. A copied folder? "
            "Give it that name, or prepare it again under this one."
        )
    if images.shape != count:
        raise ValueError(f"{place}/images.npy has shape {images.shape}, meta.json says {count}; unpack it again")
    if not isinstance(classes, list) or not all(isinstance(each, str) for each in classes):
        raise ValueError(f"{place}/meta.json: classes must be a list of names; they are {f'{classes!r}':.80}")
    _check_split(place, images.shape, images.dtype, labels, classes, extras)
    _check_bytes(files, sha256)
    digest, index = sha256["images.npy"], np.arange(len(labels))
    return ImageSet(images, labels, tuple(classes), name, split, digest, index, extras)


def _mapped(path: Path) -> np.ndarray:
    """An array in a file; whatever its header says, no more memory is taken than the file has bytes."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # a crafted header raises nearly anything
        raise ValueError(f"{path.name}: {error!r}") from None


def _check_bytes(files: Sequence[Path], sha256: Mapping[str, Any]) -> None:
    """Arrays that meta.json does not name, such as labels that were put beside the images later, are taken as they are."""
    known = [file for file in files if file.name in {*sha256, "images.npy"}]
    for file, digest in zip(known, fingerprint.of_files(known), strict=True):
        if digest != sha256.get(file.name):
            raise ValueError(
                f"{file} has sha256 {digest}, meta.json says {sha256.get(file.name)}; unpack it again, or prepare the "
                "set under another name"
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
        if array.shape[:1] != shape[:1]:
            raise ValueError(
                f"{name} of {place} has {len(array) if array.ndim else 'no'} rows where {shape[0]} are expected"
            )


def verify(name: str, *, root: str | os.PathLike | None = None) -> dict[Path, str]:
    """Compare every file of the prepared splits with its sha256: path and fault of each bad one; empty: all well.

    Raises:
        FileNotFoundError: if no split of the set is here, so that nothing was verified.
    """
    _check_name(name, root)
    metas = [path for folder in _places(root) for path in sorted((folder / name).glob("*/meta.json"))]
    if not metas:
        raise FileNotFoundError(f"no prepared split of {name} in {' or '.join(map(str, _places(root)))}")
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


def pixels_digest(images: Any) -> str:
    """sha256 of shape and pixels, image by image where they are files or of several sizes."""
    digest = hashlib.sha256()
    for k in range(0, len(images), 256):
        block = images[k : k + 256]
        for array in [block] if hasattr(block, "shape") else block:
            fingerprint.feed(digest, as_tensor(array))
    return digest.hexdigest()


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
    said = {"reading": READING, "classes": classes, "labels": labels, "files": contents}
    return ImageSet(images, labels, classes, name, split, fingerprint.fingerprint(said), np.arange(len(paths)))


# Sources


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
    counts, classes = _extra("test", "human_counts", where, root)
    if counts.ndim != 2 or counts.shape[1] != classes or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise ValueError(
            f"human_counts.npy of cifar10/test must hold votes, whole numbers (n, {classes}); it is {counts.dtype} "
            f"{counts.shape}. Take {where}."
        )
    return counts


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
    labels, classes = _extra("train", f"noisy_{kind}", where, root)
    return check_labels(labels, classes, len(labels), f"noisy_{kind}.npy of cifar10/train").numpy()


def _extra(split: str, extra: str, where: str, root: str | os.PathLike | None) -> tuple[np.ndarray, int]:
    """An array beside the images, and the number of classes."""
    found = load("cifar10", split, root=root)
    if extra not in found.extras:
        paths = " or ".join(str(folder / "cifar10" / split / f"{extra}.npy") for folder in _places(root))
        raise FileNotFoundError(
            f"{extra} of cifar10 is not here; save it as {paths}, a row for each image, from {where}"
        )
    return found.extras[extra], len(found.classes)


# Rows


def without_classes(image_set: ImageSet, classes: Iterable[str]) -> ImageSet:
    """The rows of all other classes; labels keep their numbers and `classes` its length.

    Args:
        image_set: any.
        classes: names to leave out, such as CIFAR10_OVERLAP["cifar100"].

    Raises:
        TypeError: if the classes are one text.
        ValueError: if a name is no class of the set.
    """
    if isinstance(classes, str):
        raise TypeError(f"classes must be a list of names; it is the text {classes!r}. One class? Pass [{classes!r}].")
    unknown = sorted(map(str, set(classes := tuple(classes)) - set(image_set.classes)))
    if unknown:
        raise ValueError(
            f"{image_set.name} has no class {', '.join(unknown)}; the first of its classes are "
            f"{', '.join(image_set.classes[:5])}"
        )
    out = [label for label, name in enumerate(image_set.classes) if name in classes]
    return image_set.select(~np.isin(image_set.labels, out))
