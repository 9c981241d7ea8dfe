"""The nineteen common corruptions of Hendrycks & Dietterich 2019, at five severities, for stacks of images.

`corrupt(images, "fog", 3)` takes and gives uint8 images (n, h, w, 3), a list of images of any sizes, or the files of a
folder. Image i is seeded by (seed, corruption, row i): what happens to it does not depend on the batch it comes in, and
the five severities share their random numbers.

The constants are those of the generators of CIFAR-10-C and ImageNet-C, in pixels of 32 and 224 pixel images; they are
not rescaled to other sizes. What differs from the generators:

- frost overlays photographs there. Here the sheets of ice are drawn, with the mean colour and spread of the five
  photographs that the generators use; blending is theirs. Expect errors near the published ones, not equal to them.
- spatter measures the distance from the rim of a drop exactly, not in steps of a 5 x 5 mask.
- motion_blur and snow blur as ImageMagick does, without its rounding to 8 bits in between.
- ImageNet-C was stored as JPEG of quality 85 after corrupting. Here nothing is compressed but by jpeg_compression.

And what looks like a mistake but is theirs:

- glass_blur copies a random neighbour instead of swapping (a NumPy swap of two views overwrites the first).
- saturate turns grey pixels reddish at severities 4 and 5 (their hue is 0, which is red).
- saturate drains colour at severities 1 and 2 and adds it at 3 to 5; spatter is water at 1 to 3 and mud at 4 and 5.
- elastic_transform at ImageNet severities 1 and 2 bends the whole image, at 3 to 5 it shivers: 2 distorts most.
- motion_blur at CIFAR severities 3 and 4 is the same: the kernels differ in weights below 1e-6, which are left out.
- frost dims the image as it adds ice, so the pixels may change less from one severity to the next.
- elastic_transform with CIFAR constants bends less and shivers more as the severity grows; the pixels change less.

One core takes 0.03 to 0.4 s for 1,000 images of 32 pixels (zoom_blur up to 0.9 s) and 1 to 40 s for 1,000 of 224.
Memory beside the images and the result does not grow with n. The random numbers are NumPy's: a new version may draw
others.

Source:
    Hendrycks & Dietterich 2019 (arXiv:1903.12261), section 3 and appendix B; constants from their generators,
    github.com/hendrycks/robustness, ImageNet-C/create_c/make_cifar_c.py and make_imagenet_c.py.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from uqlib.base.arrays import Array, as_tensor
from uqlib.base.options import check_choice, check_whole
from uqlib.images.corruptions.blur import defocus_blur, gaussian_blur, glass_blur, motion_blur, zoom_blur
from uqlib.images.corruptions.constants import CIFAR_SEVERITIES, CONSTANTS, IMAGENET_SEVERITIES
from uqlib.images.corruptions.digital import (
    brightness,
    contrast,
    elastic_transform,
    jpeg_compression,
    pixelate,
    saturate,
)
from uqlib.images.corruptions.noise_kinds import gaussian_noise, impulse_noise, shot_noise, speckle_noise
from uqlib.images.corruptions.stacks import Rngs, Stack
from uqlib.images.corruptions.weather import fog, frost, snow, spatter
from uqlib.images.photos import size_of
from uqlib.images.sequences import Changed, Files, Images, check_images, check_pixels

# each takes float images in [0, 255], the constants of one severity and a generator an image; `corrupt` calls them
CORRUPTIONS: dict[str, Callable[..., Stack]] = {
    "gaussian_noise": gaussian_noise,
    "shot_noise": shot_noise,
    "impulse_noise": impulse_noise,
    "defocus_blur": defocus_blur,
    "glass_blur": glass_blur,
    "motion_blur": motion_blur,
    "zoom_blur": zoom_blur,
    "snow": snow,
    "frost": frost,
    "fog": fog,
    "brightness": brightness,
    "contrast": contrast,
    "elastic_transform": elastic_transform,
    "pixelate": pixelate,
    "jpeg_compression": jpeg_compression,
    "speckle_noise": speckle_noise,
    "gaussian_blur": gaussian_blur,
    "spatter": spatter,
    "saturate": saturate,
}

NOISE = ("gaussian_noise", "shot_noise", "impulse_noise")
BLUR = ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur")
WEATHER = ("snow", "frost", "fog", "brightness")
DIGITAL = ("contrast", "elastic_transform", "pixelate", "jpeg_compression")
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")  # the paper's validation set

_CHUNK = 2**20  # values corrupted at a time: 4 MB in float32, whatever n is

__all__ = [
    "BLUR",
    "CIFAR_SEVERITIES",
    "CONSTANTS",
    "CORRUPTIONS",
    "DIGITAL",
    "EXTRA",
    "IMAGENET_SEVERITIES",
    "NOISE",
    "WEATHER",
    "corrupt",
]


def corrupt(
    images: Any, name: str, severity: int, *, seed: int = 0, rows: Any = None, constants: str = "auto"
) -> UInt8[Array, "n h w 3"] | list[UInt8[np.ndarray, "h w 3"]] | Changed:
    """The images under one common corruption; a higher severity is meant to hurt more.

    Args:
        images: uint8 (n, h, w, 3), RGB, at least 8 pixels a side, NumPy or torch; or a list of (h, w, 3) of any sizes;
            or files, as `load_images("folder:photos").images` has them.
        name: a key of CORRUPTIONS.
        severity: 1 to 5.
        seed: a non-negative integer; another seed gives other noise.
        rows: the number that seeds each image, 0 to n - 1 by default. With the numbers in the data set, any part of it
            gives the same images: corrupt(x, ...)[2:5] equals corrupt(x[2:5], ..., rows=range(2, 5)).
        constants: "cifar", "imagenet", or "auto": "cifar" where the longer side is at most 64 pixels, for all images of
            a list or folder alike. Of files the headers are read for it, 0.1 ms each; other images that are made when asked
            for are made for it.

    Returns:
        New images of the same kind and sizes; those of files are made when asked for, and never written. Fractions of a
        grey level are cut off, as in the generators.

    Raises:
        TypeError: if the images are not uint8, or severity, seed or rows are no whole numbers.
        ValueError: for another shape, an unknown name, a severity outside 1 to 5, another number of rows, or "auto" where
            some images have more than 64 pixels and others have not.

    Source:
        Hendrycks & Dietterich 2019 (arXiv:1903.12261), section 3; see the top of this file for what differs.
    """
    stream = list(CORRUPTIONS).index(check_choice(name, CORRUPTIONS, "corruption"))
    severity, seed = check_whole(severity, "severity"), check_whole(seed, "seed")
    if not 1 <= severity <= 5:
        raise ValueError(f"severity must be 1, 2, 3, 4 or 5; it is {severity}. Severity 0 is the clean image.")
    images = check_images(images)
    rows = _check_rows(seed, rows, len(images))
    constant = _table(constants, images)[name][severity - 1]

    def alone(image: Any, k: int) -> UInt8[np.ndarray, "h w 3"]:
        pixels = as_tensor(check_pixels(image, f"images[{k}]", axes="h w")).cpu().numpy()
        _check_sides(pixels, f"images[{k}]")
        return _distorted(pixels[None], name, constant, [np.random.default_rng((seed, stream, rows[k]))])[0]

    if isinstance(images, Images):
        return Changed(images, alone)
    if isinstance(images, list | tuple):
        return [alone(image, k) for k, image in enumerate(images)]
    _check_sides(images, "images")
    pixels = images.cpu().numpy() if isinstance(images, Tensor) else images
    out = _distorted(pixels, name, constant, [np.random.default_rng((seed, stream, row)) for row in rows])
    return torch.from_numpy(out).to(images.device) if isinstance(images, Tensor) else out


def _distorted(images: np.ndarray, name: str, constant: Any, rngs: Rngs) -> UInt8[np.ndarray, "n h w 3"]:
    step = max(1, _CHUNK // images[0].size)
    out = np.empty_like(images, order="C")
    for i in range(0, len(images), step):
        x = CORRUPTIONS[name](images[i : i + step].astype(np.float32), constant, rngs[i : i + step])
        out[i : i + step] = np.clip(x + 1e-3, 0, 255)  # cut off as there; 1e-3 keeps rounding from making 100 a 99
    return out


def _check_sides(images: Array, name: str) -> None:
    if min(images.shape[-3:-1]) < 8:
        raise ValueError(
            f"{name} must have h, w >= 8 pixels, which the corruptions need; the shape is {tuple(images.shape)}"
        )


def _table(constants: str, images: Any) -> dict[str, tuple]:
    if check_choice(constants, ("auto", *CONSTANTS), "constants") != "auto":
        return CONSTANTS[constants]
    one_size = hasattr(images, "shape")
    sides = [max(images.shape[1:3])] if one_size else [_longer_side(images, row) for row in range(len(images))]
    least, most = min(sides), max(sides)
    if least <= 64 < most:
        raise ValueError(
            f"the longer sides of the images reach from {least} pixels (row {sides.index(least)}) to {most} (row "
            f"{sides.index(most)}), and constants='auto' changes at 64; pass constants='imagenet' or constants='cifar'"
        )
    return CONSTANTS["cifar" if most <= 64 else "imagenet"]


def _longer_side(images: Any, row: int) -> int:
    if isinstance(images, Files):
        return max(size_of(images.paths[row]))
    return max(np.shape(images[row])[:2], default=0)


def _check_rows(seed: int, rows: Any, n: int) -> list[int]:
    """The numbers of the images, which with the seed and the corruption seed them."""
    rows = as_tensor(range(n) if rows is None else rows, "rows")
    if rows.ndim != 1 or rows.is_floating_point() or rows.dtype == torch.bool:
        raise TypeError(f"rows must be whole numbers, one an image; they are {rows.dtype} {tuple(rows.shape)}")
    if len(rows) != n:
        raise ValueError(f"rows has {len(rows)} entries for {n} images; pass one number an image")
    rows = rows.tolist()
    if min(seed, *rows) < 0:
        raise ValueError(f"seed and rows must be at least 0; they are {seed} and, at the least, {min(rows)}")
    return rows
