"""Images as people have them: files of many kinds, folders of classes, arrays. Right as a viewer shows them, or refused.

`read_image` turns one file into uint8 (h, w, 3):

- turned upright as its EXIF orientation says;
- grey of 16 bits scaled, 65,535 to 255 and to the nearest level, where Pillow cuts off; 12-bit TIFF alike; colours of
  16 bits lose their low byte; floating-point grey must lie in [0, 1];
- CMYK, YCCK, YCbCr and palettes become RGB; what is transparent lies on white;
- of an animation the first frame, of several pages the first page;
- colour profiles are not applied, nor were they by the loaders that published networks were trained with.

Refused, by name: whatever Pillow cannot read whole, a PNG whose checksums are wrong, CIELAB, integers of 32 bits (no
white is agreed), and more than PIL.Image.MAX_IMAGE_PIXELS pixels. JPEG, BMP, PPM and WebP bear no checksum: a flipped
bit in their pixels is another picture, here as in any viewer.

Images that are read when asked for (`Files`) or made when asked for (`Changed`) are sequences: an index gives one
image, a slice or rows a list.
"""

import functools
import io
import operator
import os
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from uqlib.arrays import Array, as_tensor, check_whole
from uqlib.extras import named
from uqlib.fingerprint import fingerprint, of_files

with named():
    from PIL import Image, ImageOps

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")  # torchvision's
# Pillow would also run Ghostscript, or follow links in a description; a file may be any of these whatever its ending
FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")
PLAIN = ("1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr")  # what Pillow turns into RGB as a viewer does
CLEAR = ("LA", "La", "PA", "RGBA", "RGBa")  # with transparency
BITS, PHOTOMETRIC = 258, 262  # tags of TIFF
OTHERS = ("__MACOSX", "@eaDir", "#recycle", "$RECYCLE.BIN", "System Volume Information", "lost+found")  # of systems

Pixels = UInt8[np.ndarray, "h w 3"]


# One file


def read_image(path: str | os.PathLike) -> Pixels:
    """An image file as a viewer shows it; the top of this file says how.

    Raises:
        FileNotFoundError: if there is no such file; other OSErrors if it cannot be opened. All name it.
        ValueError: if it is no whole image, or none that has one meaning; the message names it.
    """
    with open(path, "rb") as stream:
        return decode(stream.read(), path)


def decode(content: bytes, name: str | os.PathLike) -> Pixels:
    """The image in the content of a file; `name` is what errors call it."""
    try:
        if content.startswith(b"\x89PNG"):
            with _open(content) as image:
                image.verify()  # compares the checksums, which reading the pixels does not; Pillow wants a new start then
        with _open(content) as image:
            image.load()
            ImageOps.exif_transpose(image, in_place=True)
            return np.asarray(_rgb(image, content))
    except Exception as error:  # a damaged file raises nearly anything in Pillow
        raise ValueError(
            f"{os.fspath(name)!r} is no image that can be shown ({_reason(error, content)}); save it again as a PNG or "
            "JPEG in RGB, or take it out"
        ) from error


def size_of(path: str | os.PathLike) -> tuple[int, int]:
    """Height and width that the header of an image file announces, upright or not; no pixel is read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return image.height, image.width
    except FileNotFoundError:
        raise
    except Exception as error:
        raise ValueError(f"{os.fspath(path)!r} is no image ({error}); save it again, or take it out") from error


def _open(content: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(content), formats=FORMATS)
    most = Image.MAX_IMAGE_PIXELS
    if most is not None and image.width * image.height > most:  # Pillow warns up to twice as many
        raise ValueError(f"{image.width} x {image.height} pixels are more than PIL.Image.MAX_IMAGE_PIXELS = {most}")
    return image


def _reason(error: Exception, content: bytes) -> str:
    if not content:
        return "the file is empty"
    if isinstance(error, Image.UnidentifiedImageError):
        return f"its content is none of {', '.join(FORMATS)}, or of a kind that Pillow lacks"
    return f"{error or type(error).__name__}"


def _rgb(image: Image.Image, content: bytes) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _from_deep_grey(image)
    if image.format == "PNG" and "transparency" in image.info and image.mode in ("L", "RGB"):
        image.info["transparency"] = _clear(image, depth=content[24])  # in the first chunk, as the format prescribes
    if image.mode in CLEAR or image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA")).convert("RGB")
    if image.mode not in PLAIN:
        raise ValueError(f"its colours are {image.mode}")
    return image.convert("RGB")


def _clear(image: Image.Image, depth: int) -> Any:
    """The one colour of a PNG that is transparent, on the scale of its pixels in Pillow."""
    clear = image.info["transparency"]
    if depth == 16:
        raise ValueError("one of its 16-bit colours is transparent, and Pillow keeps 8 bits of each")
    return clear * 255 // (2**depth - 1) if image.mode == "L" else clear


def _from_deep_grey(image: Image.Image) -> Image.Image:
    """Grey of more than 8 bits, or in floats."""
    values, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if image.mode == "I" and image.format == "TIFF":
        raise ValueError("its whole numbers have a sign or 32 bits, and no white is agreed for these")
    if image.mode == "F":
        least, most = values.min(), values.max()
        if not 0 <= least <= most <= 1:  # NaN is in no interval
            raise ValueError(f"its floats reach from {least:g} to {most:g}; they must lie in [0, 1]")
        level = np.rint(255 * values.astype(np.float64)).astype(np.uint8)
    else:
        white = 2 ** tags.get(BITS, (16,))[0] - 1
        level = ((values.astype(np.uint32) * 255 + white // 2) // white).astype(np.uint8)
    if tags.get(PHOTOMETRIC) == 0:  # white is zero, which Pillow heeds only up to 8 bits
        level = 255 - level
    if "transparency" in image.info:
        level = np.where(values == image.info["transparency"], np.uint8(255), level)
    return Image.fromarray(level).convert("RGB")


# Sequences of images


class Images(Sequence):
    """Images that are not in memory: an index gives one as uint8 (h, w, 3), a slice or rows a list."""

    def __getitem__(self, rows: Any) -> Any:
        if isinstance(rows, slice):
            return [self._one(row) for row in range(len(self))[rows]]
        if getattr(rows, "ndim", 0) or isinstance(rows, list | tuple):
            return [self._one(row) for row in row_numbers(rows, len(self)).tolist()]
        return self._one(range(len(self))[operator.index(rows)])

    @abstractmethod
    def _one(self, row: int) -> Pixels: ...

    @abstractmethod
    def select(self, rows: Any) -> "Images":
        """Only these rows, in this order; nothing is read."""


class Files(Images):
    """Image files as a sequence; each is read when asked for, as `read_image` does.

    Args:
        paths: of the files.
        stamped: note size and time of the last change of each now, and refuse a file that has changed since.

    Raises:
        OSError: if `stamped` and there is no such file; the message names it.
    """

    def __init__(self, paths: Sequence[str | os.PathLike], *, stamped: bool = False):
        self.paths = list(paths)
        self.stamps = [_stamp(os.stat(path)) for path in self.paths] if stamped else [None] * len(self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    def _one(self, row: int) -> Pixels:
        with open(self.paths[row], "rb") as stream:
            if self.stamps[row] not in (None, _stamp(os.fstat(stream.fileno()))):
                raise ValueError(f"{os.fspath(self.paths[row])!r} has changed since the set was loaded; load it again")
            content = stream.read()
        return decode(content, self.paths[row])

    def select(self, rows: Any) -> "Files":
        rows = row_numbers(rows, len(self)).tolist()
        some = Files([self.paths[row] for row in rows])
        some.stamps = [self.stamps[row] for row in rows]
        return some

    @staticmethod
    def joined(parts: Sequence["Files"]) -> "Files":
        """The files of all parts, in their order."""
        whole = Files([path for part in parts for path in part.paths])
        whole.stamps = [stamp for part in parts for stamp in part.stamps]
        return whole

    @functools.cached_property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that change with the content and the order of the files, whatever their names."""
        return fingerprint({"reading": READING, "files": of_files(self.paths)})


READING = 1  # goes up when `read_image` gives other pixels for a file, so that what a network said is not reused


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


class Changed(Images):
    """Images made from others when asked for, such as corrupted ones: row k is change(images[k], number[k]).

    Args:
        images: uint8 (n, h, w, 3), or any sequence of images.
        change: what to do with an image and its number.
        numbers: of each image, 0 to n - 1 by default; they stay with their images in `select`.
    """

    def __init__(self, images: Any, change: Callable[[Any, int], Pixels], numbers: Sequence[int] | None = None):
        self.images, self.change = images, change
        self.numbers = list(range(len(images)) if numbers is None else numbers)

    def __len__(self) -> int:
        return len(self.numbers)

    def _one(self, row: int) -> Pixels:
        return self.change(self.images[row], self.numbers[row])

    def select(self, rows: Any) -> "Changed":
        rows = row_numbers(rows, len(self)).tolist()
        return Changed(select(self.images, rows), self.change, [self.numbers[row] for row in rows])


def select(images: Any, rows: Any) -> Any:
    """These rows of images of any kind."""
    if isinstance(images, Images):
        return images.select(rows)
    return [images[row] for row in rows] if isinstance(images, list | tuple) else images[rows]


def squares(images: Any, size: int) -> Changed:
    """The middle square of each image, in `size` x `size` pixels: the shorter side is resized, the longer one cut.

    Args:
        images: uint8 (n, h, w, 3), a list of (h, w, 3) of any sizes, or `Files`.
        size: pixels a side.
    """
    size = check_whole(size, "size", least=1)

    def square(image: Any, row: int) -> Pixels:
        pixels = as_tensor(check_pixels(image, f"images[{row}]", axes="h w")).cpu().numpy()
        return np.asarray(ImageOps.fit(Image.fromarray(pixels), (size, size), Image.Resampling.BICUBIC))

    return Changed(check_images(images), square)


def row_numbers(rows: Any, n: int) -> Int[np.ndarray, " k"]:
    """Row numbers in [0, n) from indices or a mask.

    Raises:
        TypeError: if they are not whole numbers.
        ValueError: if their shape is another, or one lies outside.
    """
    rows = as_tensor(rows, "rows").cpu().numpy()
    if rows.ndim != 1 or (rows.dtype == bool and len(rows) != n):
        raise ValueError(f"rows must be indices (k,) or a mask ({n},); they are {rows.dtype} {rows.shape}")
    if rows.dtype == bool:
        return np.flatnonzero(rows)
    if rows.dtype.kind == "f" and len(rows):
        raise TypeError(f"rows must be integers or a mask; they are {rows.dtype}")
    if rows.dtype == np.uint8 and len(rows) == n > 2 and rows.max() <= 1:
        raise ValueError(f"rows are {n} zeros and ones of type uint8: for a mask pass rows.astype(bool), else int64")
    outside = (rows < 0) | (rows >= n)
    if outside.any():
        k = int(outside.argmax())
        raise ValueError(f"rows must lie in [0, {n}); entry {k} is {rows[k]}. Counted from the end? Pass {n} + row.")
    return rows.astype(np.int64)


# Arrays


def check_images(images: Any, *, channels: int = 3) -> Images | Sequence[Any] | Array:
    """The images, of which there must be one at least: an array that is checked, or those of a list, checked when used.

    Raises:
        TypeError: if they are no images, or not uint8.
        ValueError: if there are none, or an array has another shape.
    """
    if not isinstance(images, Images) and not (isinstance(images, list | tuple) and all(map(_is_array, images))):
        images = check_pixels(images, channels=channels)
    if not len(images):
        raise ValueError("images is empty; at least one image is needed")
    return images


def _is_array(image: Any) -> bool:
    return isinstance(image, np.ndarray | Tensor) and image.ndim > 0


def check_pixels(images: Any, name: str = "images", *, axes: str = "n h w", channels: int = 3) -> Array:
    """The array, if it is uint8 with these axes and the colours last; a list counts as the array it makes.

    Args:
        images: NumPy or torch.
        name: what errors call it.
        axes: before the colours.
        channels: how many colours.

    Raises:
        TypeError: if it is of another type; the message says how to make bytes of it.
        ValueError: if it has another shape; the message says how to bring it into this one.
    """
    plain = type(images) in (np.ndarray, np.memmap) or (isinstance(images, Tensor) and images.layout == torch.strided)
    array = images if plain else as_tensor(images, name).numpy()
    if _dtype(array) != "uint8":
        raise TypeError(f"{name} must be uint8 with values 0 to 255; they are {_dtype(array)}.{_to_bytes(array, name)}")
    ndim = len(axes.split()) + 1
    if array.ndim != ndim or array.shape[-1] != channels:
        raise ValueError(
            f"{name} must have shape ({axes.replace(' ', ', ')}, {channels}); it is {tuple(array.shape)}."
            f"{_to_shape(array, name, ndim, channels)}"
        )
    return array


def _dtype(array: Array) -> str:
    return str(array.dtype).removeprefix("torch.")


def _to_bytes(array: Array, name: str) -> str:
    """What makes bytes of colours of another type."""
    if str(array.dtype) == "object":
        return ""
    numbers = as_tensor(array, name)
    if not numbers.numel() or numbers.dtype == torch.bool:
        return ""
    least, most = numbers.double().aminmax()
    least, most = least.item(), most.item()
    if not 0 <= least <= most <= (255 if numbers.is_floating_point() else 65535):
        return f" They reach from {least:g} to {most:g}. Normalised? Pass them as they were before."
    if isinstance(array, Tensor):
        whole = {True: f"({name} * 255).round()", False: f"{name}.round()"}[most <= 1]
        if not numbers.is_floating_point():
            whole = f"(({name}.int() + 128) // 257)" if most > 255 else name
        return f" Pass {whole}.byte()."
    whole = {True: f"np.rint(255 * {name})", False: f"np.rint({name})"}[most <= 1]
    if not numbers.is_floating_point():
        whole = f"({name}.astype(int) + 128) // 257" if most > 255 else name
    return f" Pass np.uint8({whole})."


def _to_shape(array: Array, name: str, ndim: int, channels: int) -> str:
    """What brings images of another shape into the right one."""
    torches, shape = isinstance(array, Tensor), array.shape
    if len(shape) == ndim and shape[-3] == channels:
        order = "0, 2, 3, 1" if ndim == 4 else "1, 2, 0"
        return f" Channels first? Pass {name}.{'permute' if torches else 'transpose'}({order})."
    if len(shape) == ndim - 1 and shape[-1] == channels:
        return f" One image? Pass {name}[None]."
    grey = f"{name}[..., None]" if len(shape) == ndim - 1 else name if shape[-1:] == (1,) and len(shape) == ndim else ""
    if grey:
        repeated = (
            f"{grey}.expand({'-1, ' * (ndim - 1)}{channels})" if torches else f"np.repeat({grey}, {channels}, -1)"
        )
        return f" Grey? Pass {repeated}."
    if len(shape) == ndim and shape[-1] == 4 and channels == 3:
        return f" Transparency? Lay it on white, or pass {name}[..., :3]."
    return ""


# Folders of classes


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


def _entries(folder: str | os.PathLike) -> Iterator[os.DirEntry]:
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
