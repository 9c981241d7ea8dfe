"""Blur: of a lens, of glass, of a camera that moves."""

import numpy as np
from jaxtyping import Float, Integer

from uqlib.base.extras import named
from uqlib.images.corruptions.stacks import Rngs, Stack, draw_each, enlarge, smear

with named():
    from scipy import ndimage


def gaussian_blur(x: Stack, sigma: float, rngs: Rngs) -> Stack:
    """Gaussian smoothing within each colour, the edge repeated outwards."""
    return ndimage.gaussian_filter(x, (0, sigma, sigma, 0), mode="nearest")


def defocus_blur(x: Stack, constant: tuple, rngs: Rngs) -> Stack:
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


def glass_blur(x: Stack, constant: tuple, rngs: Rngs) -> Stack:
    """Rippled glass: pixels take the colour of a neighbour drawn at random, between two smoothings."""
    sigma, reach, rounds = constant
    shape = (rounds, x.shape[1] - 2 * reach, x.shape[2] - 2 * reach, 2)
    steps = draw_each(rngs, lambda rng: rng.integers(-reach, reach, shape, np.int8))
    x = np.floor(gaussian_blur(x, sigma, rngs) + 1e-3)
    for r in range(rounds):
        x = _copy_neighbours(x, steps[:, r], reach)
    return gaussian_blur(x, sigma, rngs)


def _copy_neighbours(x: Stack, steps: Integer[np.ndarray, "n i j 2"], reach: int) -> Stack:
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


def motion_blur(x: Stack, constant: tuple, rngs: Rngs) -> Stack:
    """A moving camera: a smear in one direction, within 45 degrees of the horizontal."""
    radius, sigma = constant
    return smear(x, radius, sigma, draw_each(rngs, lambda rng: rng.uniform(-45, 45)))


def zoom_blur(x: Stack, constant: tuple, rngs: Rngs) -> Stack:
    """A camera moving in: the mean of the image and its enlargements."""
    stop, step = constant
    factors = np.arange(1, stop, step)  # as there, rounding decides whether `stop` is among them
    return (x + sum(enlarge(x, factor) for factor in factors)) / np.float32(len(factors) + 1)
