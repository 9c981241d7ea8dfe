"""Images as people have them: arrays and sequences that are read (`Files`) or made (`Changed`) when asked for.

An index gives one image, a slice or rows a list.
"""

import functools
import operator
import os
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from uqlib.base.arrays import Array, as_tensor
from uqlib.base.extras import named
from uqlib.base.options import check_whole
from uqlib.files.fingerprint import fingerprint, of_files
from uqlib.images.photos import Pixels, decode

with named():
    from PIL import Image, ImageOps


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
        self.stamps: list[tuple[int, int] | None] = [_stamp(os.stat(path)) if stamped else None for path in self.paths]

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
        pixels = check_image(image, f"images[{row}]")
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


def check_image(image: Any, name: str = "image") -> Pixels:
    """One image, uint8 (h, w, 3), in NumPy.

    Raises:
        TypeError, ValueError: as `check_pixels`, and if it has no pixel.
    """
    pixels = as_tensor(check_pixels(image, name, axes="h w")).cpu().numpy()
    if not pixels.size:
        raise ValueError(f"{name} is empty; its shape is {pixels.shape}")
    return pixels


def _dtype(array: Array) -> str:
    return str(array.dtype).removeprefix("torch.")


def _to_bytes(array: Array, name: str) -> str:
    """What makes bytes of colours of another type."""
    if str(array.dtype) == "object":
        return ""
    numbers = as_tensor(array, name)
    if not numbers.numel() or numbers.dtype == torch.bool:
        return ""
    least, most = (bound.item() for bound in numbers.double().aminmax())
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
