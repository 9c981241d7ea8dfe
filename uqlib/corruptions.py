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

import io
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Integer, UInt8
from torch import Tensor

from uqlib import photos
from uqlib.arrays import Array, as_tensor, check_choice, check_whole
from uqlib.extras import named
from uqlib.photos import Changed, Files, check_images, check_pixels, size_of

with named():
    from PIL import Image
    from scipy import ndimage

IMAGENET: dict[str, tuple] = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # standard deviation, for colours in [0, 1]
    "shot_noise": (60, 25, 12, 5, 3),  # photons at full brightness
    "impulse_noise": (0.03, 0.06, 0.09, 0.17, 0.27),  # fraction of values replaced
    "defocus_blur": ((3.0, 0.1), (4.0, 0.5), (6.0, 0.5), (8.0, 0.5), (10.0, 0.5)),  # disk radius, sigma that softens it
    "glass_blur": ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),  # sigma, reach, rounds
    "motion_blur": ((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0)),  # radius, sigma
    "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),  # arange(1, stop, step)
    "snow": (  # mean, standard deviation, zoom, threshold, radius, sigma, share of the image
        (0.1, 0.3, 3.0, 0.5, 10, 4.0, 0.8),
        (0.2, 0.3, 2.0, 0.5, 12, 4.0, 0.7),
        (0.55, 0.3, 4.0, 0.9, 12, 8.0, 0.7),
        (0.55, 0.3, 4.5, 0.85, 12, 8.0, 0.65),
        (0.55, 0.3, 2.5, 0.85, 12, 12.0, 0.55),
    ),
    "frost": ((1, 0.4, 1), (0.8, 0.6, 1), (0.7, 0.7, 1), (0.65, 0.7, 1), (0.6, 0.75, 1)),  # image, ice, ice shrunk by
    "fog": ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),  # thickness, roughness decay
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),  # added to the value of HSV
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),  # factor about the mean colour
    "elastic_transform": (  # displacement, its sigma, shift of the corners
        (488, 170.8, 24.4),
        (488, 19.52, 48.8),
        (12.2, 2.44, 4.88),
        (17.08, 2.44, 4.88),
        (29.28, 2.44, 4.88),
    ),
    "pixelate": (0.6, 0.5, 0.4, 0.3, 0.25),  # side of the small image
    "jpeg_compression": (25, 18, 15, 10, 7),  # quality
    "speckle_noise": (0.15, 0.2, 0.35, 0.45, 0.6),  # standard deviation, times the pixel
    "gaussian_blur": (1.0, 2.0, 3.0, 4.0, 6.0),  # sigma
    "spatter": (  # mean, standard deviation, sigma, threshold, strength of water or sigma of mud, mud
        (0.65, 0.3, 4, 0.69, 0.6, False),
        (0.65, 0.3, 3, 0.68, 0.6, False),
        (0.65, 0.3, 2, 0.68, 0.5, False),
        (0.65, 0.3, 1, 0.65, 1.5, True),
        (0.67, 0.4, 1, 0.65, 1.5, True),
    ),
    "saturate": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),  # factor, offset of the saturation of HSV
}

CIFAR: dict[str, tuple] = {
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),
    "shot_noise": (500, 250, 100, 75, 50),
    "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.07),
    "defocus_blur": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1.0, 0.2), (1.5, 0.1)),
    "glass_blur": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    "motion_blur": ((6, 1.0), (6, 1.5), (6, 2.0), (8, 2.0), (9, 2.5)),
    "zoom_blur": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    "snow": (
        (0.1, 0.2, 1.0, 0.6, 8, 3.0, 0.95),
        (0.1, 0.2, 1.0, 0.5, 10, 4.0, 0.9),
        (0.15, 0.3, 1.75, 0.55, 10, 4.0, 0.9),
        (0.25, 0.3, 2.25, 0.6, 12, 6.0, 0.85),
        (0.3, 0.3, 1.25, 0.65, 14, 12.0, 0.8),
    ),
    "frost": ((1, 0.2, 5), (1, 0.3, 5), (0.9, 0.4, 5), (0.85, 0.4, 5), (0.75, 0.45, 5)),
    "fog": ((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)),
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
    "elastic_transform": ((0, 0, 2.56), (1.6, 6.4, 2.24), (2.56, 1.92, 1.92), (3.2, 1.28, 1.6), (3.2, 0.96, 0.96)),
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),
    "jpeg_compression": (80, 65, 58, 50, 40),
    "speckle_noise": (0.06, 0.1, 0.12, 0.16, 0.2),
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),
    "spatter": (
        (0.62, 0.1, 0.7, 0.7, 0.5, False),
        (0.65, 0.1, 0.8, 0.7, 0.5, False),
        (0.65, 0.3, 1, 0.69, 0.5, False),
        (0.65, 0.1, 0.7, 0.69, 0.6, True),
        (0.65, 0.1, 0.5, 0.68, 0.6, True),
    ),
    "saturate": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
}

CONSTANTS = {"imagenet": IMAGENET, "cifar": CIFAR}

# mean and standard deviation of red, green and blue over each of the generators' five frost photographs
_FROST_COLOURS = (
    ((78, 149, 166), (27, 16, 15)),
    ((201, 205, 214), (21, 22, 23)),
    ((201, 205, 214), (21, 22, 23)),
    ((138, 153, 165), (28, 28, 30)),
    ((112, 123, 135), (44, 43, 42)),
)

_CHUNK = 2**20  # values corrupted at a time: 4 MB in float32, whatever n is

Images = Float[np.ndarray, "n h w 3"]  # colours in [0, 255]
Fields = Float[np.ndarray, "n h w"]
Rngs = list[np.random.Generator]


def corrupt(
    images: Any, name: str, severity: int, *, seed: int = 0, rows: Any = None, constants: str = "auto"
) -> UInt8[Array, "n h w 3"] | list[UInt8[np.ndarray, "h w 3"]] | Changed:
    """The images under one common corruption; a higher severity is meant to hurt more.

    Args:
        images: uint8 (n, h, w, 3), RGB, at least 8 pixels a side, NumPy or torch; or a list of (h, w, 3) of any sizes;
            or files, as `data.load("folder:photos").images` has them.
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

    if isinstance(images, photos.Images):
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


def _draw(rngs: Rngs, sample: Callable[[np.random.Generator], Any]) -> np.ndarray:
    """What each image's generator draws, stacked; beside the JPEG encoder this is all that goes image by image."""
    return np.stack([sample(rng) for rng in rngs])


# ------------------------------------------------------------------------------------------------ noise


def gaussian_noise(x: Images, scale: float, rngs: Rngs) -> Images:
    """Normal noise of one strength on every value."""
    return x + 255 * scale * _draw(rngs, lambda rng: rng.standard_normal(x.shape[1:], np.float32))


def shot_noise(x: Images, photons: int, rngs: Rngs) -> Images:
    """Each value counted in photons: Poisson noise, strongest in the dark relative to the signal."""
    light = iter(x * np.float32(photons / 255))
    count = _draw(rngs, lambda rng: rng.poisson(next(light)))
    return count.astype(np.float32) * np.float32(255 / photons)


def impulse_noise(x: Images, amount: float, rngs: Rngs) -> Images:
    """Salt and pepper: a fraction of the values becomes 0 or 255, half each."""
    u = _draw(rngs, lambda rng: rng.random(x.shape[1:], np.float32))
    return np.where(u < amount / 2, np.float32(255), np.where(u >= 1 - amount / 2, np.float32(0), x))


def speckle_noise(x: Images, scale: float, rngs: Rngs) -> Images:
    """Normal noise in proportion to the value."""
    return x + x * scale * _draw(rngs, lambda rng: rng.standard_normal(x.shape[1:], np.float32))


# ------------------------------------------------------------------------------------------------- blur


def gaussian_blur(x: Images, sigma: float, rngs: Rngs) -> Images:
    """Gaussian smoothing within each colour, the edge repeated outwards."""
    return ndimage.gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest")


def defocus_blur(x: Images, constant: tuple, rngs: Rngs) -> Images:
    """A lens out of focus: the mean over a disk with a softened rim."""
    return ndimage.correlate(x, _disk(*constant)[None, :, :, None], mode="mirror")


def _disk(radius: float, softness: float) -> Float[np.ndarray, "k k"]:
    side = np.arange(-max(8.0, radius), max(8.0, radius) + 1)
    disk = (side[:, None] ** 2 + side**2 <= radius**2).astype(float)
    disk /= disk.sum()
    reach = np.arange(-1, 2) if radius <= 8 else np.arange(-2, 3)
    soft = np.exp(-(reach**2) / (2 * softness**2))
    for axis in (0, 1):
        disk = ndimage.correlate1d(disk, soft / soft.sum(), axis, mode="mirror")
    filled = np.flatnonzero(disk.max(0) > 1e-9)  # centred, so the same rows and columns
    return disk[filled[0] : filled[-1] + 1, filled[0] : filled[-1] + 1]


def glass_blur(x: Images, constant: tuple, rngs: Rngs) -> Images:
    """Rippled glass: pixels take the colour of a neighbour drawn at random, between two smoothings."""
    sigma, reach, rounds = constant
    shape = (rounds, x.shape[1] - 2 * reach, x.shape[2] - 2 * reach, 2)
    steps = _draw(rngs, lambda rng: rng.integers(-reach, reach, shape, np.int8))
    x = np.floor(gaussian_blur(x, sigma, rngs) + 1e-3)
    for r in range(rounds):
        x = _copy_neighbours(x, steps[:, r], reach)
    return gaussian_blur(x, sigma, rngs)


def _copy_neighbours(x: Images, steps: Integer[np.ndarray, "n i j 2"], reach: int) -> Images:
    """Each inner pixel, from the last row and column to the first, takes the colour that lies `steps` away.

    The order matters, as copies are copied again. Pixels with the same `2 * reach * i + j` are too far apart to
    see each other, and whatever a pixel may see before it in the order has a smaller one: so they go together.
    """
    n, h, w, _ = x.shape
    height, width = steps.shape[1:3]
    flat, image = x.reshape(n, h * w, 3), np.arange(n)[:, None]
    for t in range(2 * reach * (height - 1) + width):
        i = np.arange(max(0, -((width - 1 - t) // (2 * reach))), min(height - 1, t // (2 * reach)) + 1)
        j = t - 2 * reach * i
        here = (h - reach - i) * w + (w - reach - j)
        step = steps[:, i, j].astype(np.int64)
        flat[:, here] = flat[image, here + step[..., 0] * w + step[..., 1]]
    return flat.reshape(x.shape)


def motion_blur(x: Images, constant: tuple, rngs: Rngs) -> Images:
    """A moving camera: a smear in one direction, within 45 degrees of the horizontal."""
    return _smear(x, *constant, _draw(rngs, lambda rng: rng.uniform(-45, 45)))


def _smear(x: Float[np.ndarray, "n h w ..."], radius: int, sigma: float, degrees: Float[np.ndarray, " n"]):
    """The weighted mean along a line from each pixel, with half a Gaussian as weights and the edge repeated."""
    n, h, w = x.shape[:3]
    reach = np.arange(2 * radius + 1)
    weights = np.exp(-(reach**2) / (2 * sigma**2))
    weights = (weights / weights.sum()).astype(np.float32)
    angle, image = np.deg2rad(degrees)[:, None], np.arange(n)[:, None, None]
    down = np.ceil(reach * np.sin(angle) - 0.5).astype(np.int64)
    right = np.ceil(reach * np.cos(angle) - 0.5).astype(np.int64)
    out = np.zeros_like(x)
    for k in reach[weights > 1e-6]:
        rows = np.clip(np.arange(h) + down[:, k, None], 0, h - 1)
        columns = np.clip(np.arange(w) + right[:, k, None], 0, w - 1)
        out += weights[k] * x[image, rows[:, :, None], columns[:, None, :]]
    return out


def zoom_blur(x: Images, constant: tuple, rngs: Rngs) -> Images:
    """A camera moving in: the mean of the image and its enlargements."""
    stop, step = constant
    factors = np.arange(1, stop, step)  # as there, rounding decides whether `stop` is among them
    return (x + sum(_enlarge(x, factor) for factor in factors)) / np.float32(len(factors) + 1)


def _enlarge(x: Float[np.ndarray, "n h w ..."], factor: float):
    """The middle of the image, enlarged linearly to the full size."""
    for axis in (1, 2):
        low, share = _grid(x.shape[axis], factor)
        share = share.reshape((-1,) + (1,) * (x.ndim - 1 - axis))
        near, far = x.take(low, axis), x.take(low + 1, axis)
        x = near + share * (far - near)
    return x


def _grid(size: int, factor: float):
    """Where each pixel of the enlarged image lies in the image: the pixel before it, and the way on to the next."""
    crop = int(np.ceil(size / factor))
    full = round(crop * factor)
    where = (np.arange(size) + (full - size) // 2) * ((crop - 1) / (full - 1))
    low = np.minimum(where.astype(np.int64), crop - 2)
    return low + (size - crop) // 2, (where - low).astype(np.float32)


# ---------------------------------------------------------------------------------------------- weather


def snow(x: Images, constant: tuple, rngs: Rngs) -> Images:
    """A whitened scene behind flakes that fall along streaks."""
    mean, spread, zoom, threshold, radius, sigma, share = constant
    flakes = _draw(rngs, lambda rng: rng.standard_normal(x.shape[1:3], np.float32)) * np.float32(spread) + mean
    degrees = _draw(rngs, lambda rng: rng.uniform(-135, -45))
    flakes = _enlarge(flakes.astype(np.float32), zoom)
    flakes = _smear(np.where(flakes < threshold, 0, np.clip(flakes, 0, 1)), radius, sigma, degrees)
    grey = x @ np.array([0.299, 0.587, 0.114], np.float32)
    white = np.maximum(x, 1.5 * grey[..., None] + 127.5)
    return share * x + (1 - share) * white + 255 * (flakes + flakes[:, ::-1, ::-1])[..., None]


def frost(x: Images, constant: tuple, rngs: Rngs) -> Images:
    """A window with ice crystals: a random piece of one of five drawn sheets, added to the image."""
    image_share, ice_share, shrink = constant
    sheets = _frost_sheets(shrink)
    sheet, top, left = _draw(rngs, lambda rng: rng.integers(sheets.shape[:3])).T[:, :, None, None]
    rows = (top + np.arange(x.shape[1])[:, None]) % sheets.shape[1]
    columns = (left + np.arange(x.shape[2])) % sheets.shape[2]
    return image_share * x + ice_share * sheets[sheet, rows, columns]


@lru_cache
def _frost_sheets(shrink: int) -> Float[np.ndarray, "sheets side side 3"]:
    """Five sheets of ice that repeat without a seam, in the colours of the generators' photographs."""
    sheets = []
    for number, (mean, spread) in enumerate(_FROST_COLOURS):
        ice = _ice(np.random.default_rng(number), side=640)
        sheet = np.clip(np.array(mean) + np.array(spread) * ice[..., None], 0, 255)
        sheets.append(sheet[shrink // 2 :: shrink, shrink // 2 :: shrink])  # not averaged: nor do the generators
    return np.stack(sheets).astype(np.float32)


def _ice(rng: np.random.Generator, side: int, crystals: int = 400) -> Float[np.ndarray, "side side"]:
    """Feathers of ice on a cloudy pane, with mean 0 and standard deviation 1."""
    turn = np.deg2rad([-55, 55])[:, None]  # barbs leave the stem on both sides, (2, 1)
    barb = np.linspace(0, 1, 60)  # along the barb, (60,)
    pane = np.zeros((side, side))
    for _ in range(crystals):
        angle, length, light = rng.uniform(0, 2 * np.pi), side * rng.uniform(0.04, 0.2), rng.uniform(0.3, 1)
        stem = np.linspace(0, 1, int(length / rng.uniform(3, 7)) + 2)[:, None, None]  # one barb every 3 to 7 pixels
        reach = 0.5 * length * (1 - stem) * rng.uniform(0.2, 1, (len(stem), 2, 1)) * barb
        row = rng.uniform(0, side) + stem * length * np.sin(angle) + reach * np.sin(angle + turn)
        column = rng.uniform(0, side) + stem * length * np.cos(angle) + reach * np.cos(angle + turn)
        pane[row.astype(int) % side, column.astype(int) % side] = light * (1 - 0.7 * barb)  # the latest lies on top
    ice = ndimage.gaussian_filter(pane, 0.6, mode="wrap")
    for sigma, weight in ((1, 0.2), (6, 0.25), (40, 0.4)):
        cloud = ndimage.gaussian_filter(rng.standard_normal((side, side)), sigma, mode="wrap")
        ice = ice + weight * pane.std() * cloud / cloud.std()
    return (ice - ice.mean()) / ice.std()


def fog(x: Images, constant: tuple, rngs: Rngs) -> Images:
    """Drifting haze: a plasma fractal added to the image, which is dimmed so as not to overflow."""
    thickness, decay = constant
    thickness = np.float32(255 * thickness)
    brightest = x.max((1, 2, 3), keepdims=True)
    side = 1 << (max(x.shape[1:3]) - 1).bit_length()  # the first power of two that covers the image
    haze = _plasma(_draw(rngs, lambda rng: rng.uniform(-1, 1, (side, side))), decay)
    haze = haze[:, : x.shape[1], : x.shape[2], None]
    return (x + thickness * haze) * (brightest / (brightest + thickness))


def _plasma(noise: Fields, decay: float) -> Fields:
    """Diamond-square heights in [0, 1] on a torus, from uniform noise in [-1, 1] that is used up in order."""
    n, side, _ = noise.shape
    heights, noise = np.zeros_like(noise), noise.reshape(n, -1)
    step, strength, used = side, 1.0, 0

    def rough(total: np.ndarray) -> np.ndarray:
        nonlocal used
        used += total[0].size
        return total / 4 + strength * noise[:, used - total[0].size : used].reshape(total.shape)

    while step >= 2:
        half = step // 2
        corner = heights[:, ::step, ::step]
        above = corner + np.roll(corner, -1, 1)
        centre = heights[:, half::step, half::step] = rough(above + np.roll(above, -1, 2))
        heights[:, ::step, half::step] = rough(centre + np.roll(centre, 1, 1) + corner + np.roll(corner, -1, 2))
        heights[:, half::step, ::step] = rough(centre + np.roll(centre, 1, 2) + corner + np.roll(corner, -1, 1))
        step, strength = half, strength / decay**2  # there the amplitude is the square of what decays
    heights -= heights.min((1, 2), keepdims=True)
    return (heights / heights.max((1, 2), keepdims=True)).astype(np.float32)


def spatter(x: Images, constant: tuple, rngs: Rngs) -> Images:
    """Drops on the lens: water that glints, or mud that covers."""
    mean, spread, sigma, threshold, strength, mud = constant
    liquid = mean + spread * _draw(rngs, lambda rng: rng.standard_normal(x.shape[1:3], np.float32))
    liquid = ndimage.gaussian_filter(liquid.astype(np.float32), (0, sigma, sigma), mode="nearest")
    if mud:
        cover = (liquid > threshold).astype(np.float32)
        cover = ndimage.gaussian_filter(cover, (0, strength, strength), mode="nearest")
        cover = np.where(cover < 0.8, 0, cover)[..., None]
        return x * (1 - cover) + cover * np.array([63, 42, 20], np.float32)
    glint = np.floor(255 * np.where(liquid < threshold, 0, liquid))
    glint *= _relief(_edges(glint, 50, 150))
    glint /= np.maximum(glint.max((1, 2), keepdims=True), 1)
    return x + strength * glint[..., None] * np.array([175, 238, 238], np.float32)


def _edges(field: Fields, low: float, high: float) -> Bool[np.ndarray, "n h w"]:
    """Canny's edges: crests of the gradient above `low` that hang together with a point above `high`."""
    right, down = (  # Sobel's filter; SciPy's would smooth across images
        ndimage.correlate1d(
            ndimage.correlate1d(field, [1, 2, 1], 3 - axis, mode="nearest"), [-1, 0, 1], axis, mode="nearest"
        )
        for axis in (2, 1)
    )
    height = np.abs(right) + np.abs(down)
    lying = np.abs(down) < np.tan(np.pi / 8) * np.abs(right)
    standing = np.abs(down) > np.tan(3 * np.pi / 8) * np.abs(right)
    falling = right * down >= 0
    around = np.pad(height, ((0, 0), (1, 1), (1, 1)))
    h, w = field.shape[1:]

    def crest(dy: int, dx: int) -> np.ndarray:
        before = around[:, 1 - dy : h + 1 - dy, 1 - dx : w + 1 - dx]
        after = around[:, 1 + dy : h + 1 + dy, 1 + dx : w + 1 + dx]
        return (height > before) & ((height > after) | ((height == after) & (dx * dy == 0)))

    diagonal = np.where(falling, crest(1, 1), crest(1, -1))
    crests = np.where(lying, crest(0, 1), np.where(standing, crest(1, 0), diagonal)) & (height > low)
    patch, count = ndimage.label(crests, [np.zeros((3, 3)), np.ones((3, 3)), np.zeros((3, 3))])
    strong = np.zeros(count + 1, bool)
    strong[patch[crests & (height > high)]] = True
    return strong[patch]


def _relief(edges: Bool[np.ndarray, "n h w"]) -> Fields:
    """How drops within these edges catch the light: the distance to the edge, equalised and embossed, in [0, 255]."""
    far = ndimage.distance_transform_edt(~edges, sampling=(1e6, 1, 1))  # edges of other images are out of reach
    far = np.floor(ndimage.uniform_filter(np.minimum(far, 20), (0, 3, 3), mode="mirror") + 1e-6)  # a whole mean stays
    count = np.stack([(far == level).sum((1, 2)) for level in range(21)], 1)
    count[np.arange(len(far)), (count > 0).argmax(1)] = 0  # the least level stays black
    level = np.rint(255 * count.cumsum(1) / np.maximum(count.sum(1, keepdims=True), 1))
    level = level[np.arange(len(far))[:, None, None], far.astype(np.int64)]
    emboss = np.array([[[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]])
    lit = np.clip(ndimage.correlate(level, emboss, mode="mirror"), 0, 255)
    return np.rint(ndimage.uniform_filter(lit, (0, 3, 3), mode="mirror")).astype(np.float32)


# ---------------------------------------------------------------------------------------------- digital


def brightness(x: Images, amount: float, rngs: Rngs) -> Images:
    """More light: the value of HSV grows, hue and saturation stay."""
    value = x.max(-1, keepdims=True)
    brighter = np.minimum(value + np.float32(255 * amount), 255)
    return np.where(value > 0, x * (brighter / np.maximum(value, 1)), brighter)


def contrast(x: Images, factor: float, rngs: Rngs) -> Images:
    """Less contrast: colours drawn towards the image's mean colour."""
    mean = x.mean((1, 2), dtype=np.float64, keepdims=True)  # whole numbers: exact in any order
    return ((x - mean) * factor + mean).astype(np.float32)


def saturate(x: Images, constant: tuple, rngs: Rngs) -> Images:
    """Less colour or more: a line through the saturation of HSV, hue and value stay."""
    factor, offset = constant
    value, least = x.max(-1, keepdims=True), x.min(-1, keepdims=True)
    saturation = (value - least) / np.maximum(value, 1)
    saturation = np.clip(saturation * factor + offset, 0, 1)
    red = np.array([0, 1, 1], np.float32)  # a grey pixel has hue 0
    drop = np.where(value > least, (value - x) / np.maximum(value - least, 1), red)
    return (value * (1 - saturation * drop)).astype(np.float32)


def elastic_transform(x: Images, constant: tuple, rngs: Rngs) -> Images:
    """Rubber: a random affine map of the image, then a smooth random displacement of every pixel."""
    alpha, sigma, shift = constant
    h, w = x.shape[1:3]
    corners = _draw(rngs, lambda rng: rng.uniform(-shift, shift, (3, 2)))
    fields = _draw(rngs, lambda rng: rng.uniform(-1, 1, (2, h, w)))
    grid = np.indices((h, w)).astype(float)
    x = _sample(x, *_affine(corners, grid), edge=0)
    down, right = _shiver(fields, alpha, sigma)
    return _sample(x, grid[0] + down, grid[1] + right, edge=1)


def _shiver(noise: Float[np.ndarray, "n 2 h w"], alpha: float, sigma: float) -> Float[np.ndarray, "2 n h w"]:
    """Smoothed noise times alpha: by matrices, as sigma may exceed the image."""
    rows, columns = (ndimage.gaussian_filter(np.eye(size), (sigma, 0), truncate=3) for size in noise.shape[2:])
    return (alpha * (rows @ noise @ columns.T)).swapaxes(0, 1)


def _affine(corners: Float[np.ndarray, "n 3 2"], grid: Float[np.ndarray, "2 h w"]):
    """Where each pixel comes from, if three corners about the centre are moved by `corners` (rows, columns)."""
    h, w = grid.shape[1:]
    reach = min(h, w) // 3
    before = np.array([h // 2, w // 2]) + reach * np.array([[1, 1], [-1, 1], [-1, -1]])
    after = np.concatenate([before + corners, np.ones((len(corners), 3, 1))], -1)
    back = np.linalg.solve(after, np.broadcast_to(before, corners.shape))[..., None, None]
    where = back[:, 0] * grid[0] + back[:, 1] * grid[1] + back[:, 2]  # (n, 2, h, w)
    return where[:, 0], where[:, 1]


def _sample(x: Images, rows: Float[np.ndarray, "n h w"], columns: Float[np.ndarray, "n h w"], edge: int) -> Images:
    """The image between its pixels, linearly; outside it is mirrored, with the edge once (0) or twice (1)."""
    n, h, w, _ = x.shape
    flat, image = x.reshape(-1, 3), np.arange(n)[:, None, None] * (h * w)
    row, column = np.floor(rows).astype(np.int64), np.floor(columns).astype(np.int64)
    down, right = (rows - row).astype(np.float32)[..., None], (columns - column).astype(np.float32)[..., None]

    def at(row: np.ndarray, column: np.ndarray) -> np.ndarray:
        return flat.take(image + _mirror(row, h, edge) * w + _mirror(column, w, edge), 0)

    above = at(row, column) * (1 - right) + at(row, column + 1) * right
    below = at(row + 1, column) * (1 - right) + at(row + 1, column + 1) * right
    return above * (1 - down) + below * down


def _mirror(index: np.ndarray, size: int, edge: int) -> np.ndarray:
    period = 2 * size - 2 + 2 * edge
    index = index % period
    return np.minimum(index, period - edge - index)


def pixelate(x: Images, share: float, rngs: Rngs) -> Images:
    """Coarse pixels: shrunk by averaging blocks, enlarged by repeating them, as Pillow's box filter does."""
    for axis in (2, 1):  # columns first and rounded in between, as Pillow does
        size = x.shape[axis]
        small = int(size * share)
        start = np.floor(np.arange(small) * (size / small) + 0.5).astype(np.int64)
        count = np.diff(start, append=size).reshape((-1,) + (1,) * (3 - axis))
        means = np.floor(np.add.reduceat(x, start, axis) / count.astype(np.float32) + 0.5)
        x = means.take(((np.arange(size) + 0.5) * (small / size)).astype(np.int64), axis)
    return x


def jpeg_compression(x: Images, quality: int, rngs: Rngs) -> Images:
    """Through a JPEG file and back."""

    def through(image: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    return np.stack([through(image) for image in x.astype(np.uint8)]).astype(np.float32)


# each takes float images in [0, 255], the constants of one severity and a generator an image; `corrupt` calls them
CORRUPTIONS: dict[str, Callable[..., Images]] = {
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
