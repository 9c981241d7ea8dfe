"""What a computer does to images: light, contrast, colour, rubber, coarse pixels, JPEG."""

import io

import numpy as np
from jaxtyping import Float

from uqlib.base.extras import named
from uqlib.images.corruptions.stacks import Rngs, Stack, draw_each

with named():
    from PIL import Image
    from scipy import ndimage


def brightness(x: Stack, amount: float, rngs: Rngs) -> Stack:
    """More light: the value of HSV grows, hue and saturation stay."""
    value = x.max(-1, keepdims=True)
    brighter = np.minimum(value + np.float32(255 * amount), 255)
    return np.where(value > 0, x * (brighter / np.maximum(value, 1)), brighter)


def contrast(x: Stack, factor: float, rngs: Rngs) -> Stack:
    """Less contrast: colours drawn towards the image's mean colour."""
    mean = x.mean((1, 2), dtype=np.float64, keepdims=True)  # whole numbers: exact in any order
    return ((x - mean) * factor + mean).astype(np.float32)


def saturate(x: Stack, constant: tuple, rngs: Rngs) -> Stack:
    """Less colour or more: a line through the saturation of HSV, hue and value stay."""
    factor, offset = constant
    value, least = x.max(-1, keepdims=True), x.min(-1, keepdims=True)
    saturation = (value - least) / np.maximum(value, 1)
    saturation = np.clip(saturation * factor + offset, 0, 1)
    red = np.array([0, 1, 1], np.float32)  # a grey pixel has hue 0
    drop = np.where(value > least, (value - x) / np.maximum(value - least, 1), red)
    return (value * (1 - saturation * drop)).astype(np.float32)


def elastic_transform(x: Stack, constant: tuple, rngs: Rngs) -> Stack:
    """Rubber: a random affine map of the image, then a smooth random displacement of every pixel."""
    alpha, sigma, shift = constant
    h, w = x.shape[1:3]
    corners = draw_each(rngs, lambda rng: rng.uniform(-shift, shift, (3, 2)))
    fields = draw_each(rngs, lambda rng: rng.uniform(-1, 1, (2, h, w)))
    grid = np.indices((h, w)).astype(float)
    rows, columns = _affine(corners, grid)
    x = _sample(x, rows, columns, edge=0)
    down, right = _shiver(fields, alpha, sigma)
    return _sample(x, grid[0] + down, grid[1] + right, edge=1)


def _shiver(noise: Float[np.ndarray, "n 2 h w"], alpha: float, sigma: float) -> Float[np.ndarray, "2 n h w"]:
    """Smoothed noise times alpha: by matrices, as sigma may exceed the image."""
    rows, columns = (ndimage.gaussian_filter(np.eye(size), (sigma, 0), truncate=3) for size in noise.shape[2:])
    return (alpha * (rows @ noise @ columns.T)).swapaxes(0, 1)


def _affine(corners: Float[np.ndarray, "n 3 2"], grid: Float[np.ndarray, "2 h w"]) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel comes from, if three corners about the centre are moved by `corners` (rows, columns)."""
    h, w = grid.shape[1:]
    reach = min(h, w) // 3
    before = np.array([h // 2, w // 2]) + reach * np.array([[1, 1], [-1, 1], [-1, -1]])
    after = np.concatenate([before + corners, np.ones((len(corners), 3, 1))], -1)
    back = np.linalg.solve(after, np.broadcast_to(before, corners.shape))[..., None, None]
    where = back[:, 0] * grid[0] + back[:, 1] * grid[1] + back[:, 2]  # (n, 2, h, w)
    return where[:, 0], where[:, 1]


def _sample(x: Stack, rows: Float[np.ndarray, "n h w"], columns: Float[np.ndarray, "n h w"], edge: int) -> Stack:
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


def pixelate(x: Stack, share: float, rngs: Rngs) -> Stack:
    """Coarse pixels: shrunk by averaging blocks, enlarged by repeating them, as Pillow's box filter does."""
    for axis in (2, 1):  # columns first and rounded in between, as Pillow does
        size = x.shape[axis]
        small = int(size * share)
        start = np.floor(np.arange(small) * (size / small) + 0.5).astype(np.int64)
        count = np.diff(start, append=size).reshape((-1,) + (1,) * (3 - axis))
        means = np.floor(np.add.reduceat(x, start, axis) / count.astype(np.float32) + 0.5)
        x = means.take(((np.arange(size) + 0.5) * (small / size)).astype(np.int64), axis)
    return x


def jpeg_compression(x: Stack, quality: int, rngs: Rngs) -> Stack:
    """Through a JPEG file and back."""

    def through(image: np.ndarray) -> np.ndarray:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        return np.asarray(Image.open(file))

    return np.stack([through(image) for image in x.astype(np.uint8)]).astype(np.float32)
