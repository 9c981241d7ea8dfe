"""Prepared splits: a folder with images, labels and checksums, written once, mapped when read.

A folder <set>/<split> holds images.npy (uint8 n h w 3), labels.npy (int64) and meta.json."""

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from uqlib.base.arrays import as_tensor
from uqlib.base.checks import check_labels, check_rows
from uqlib.files import fingerprint
from uqlib.files.whole import check_word, replacing, sha256_of_file, write_text
from uqlib.images.sequences import check_images
from uqlib.images.sets import ImageSet


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


def read_prepared(place: Path, name: str, split: str) -> ImageSet:
    """The prepared split in a folder, its files compared with what its meta.json says."""
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
