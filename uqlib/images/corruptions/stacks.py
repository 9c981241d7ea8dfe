"""Stacks of images as the corruptions take them, and what several corruptions do to them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

Stack = Float[np.ndarray, "n h w 3"]  # colours in [0, 255]
Fields = Float[np.ndarray, "n h w"]
Rngs = list[np.random.Generator]


def draw_each(rngs: Rngs, sample: Callable[[np.random.Generator], Any]) -> np.ndarray:
    """What each image's generator draws, stacked; beside the JPEG encoder this is all that goes image by image."""
    return np.stack([sample(rng) for rng in rngs])


def smear(
    x: Float[np.ndarray, "n h w ..."], radius: int, sigma: float, degrees: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n h w ..."]:
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


def enlarge(x: Float[np.ndarray, "n h w ..."], factor: float) -> Float[np.ndarray, "n h w ..."]:
    """The middle of the image, enlarged linearly to the full size."""
    for axis in (1, 2):
        low, share = _grid(x.shape[axis], factor)
        share = share.reshape((-1,) + (1,) * (x.ndim - 1 - axis))
        near, far = x.take(low, axis), x.take(low + 1, axis)
        x = near + share * (far - near)
    return x


def _grid(size: int, factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of the enlarged image lies in the image: the pixel before it, and the way on to the next."""
    crop = int(np.ceil(size / factor))
    full = round(crop * factor)
    where = (np.arange(size) + (full - size) // 2) * ((crop - 1) / (full - 1))
    low = np.minimum(where.astype(np.int64), crop - 2)
    return low + (size - crop) // 2, (where - low).astype(np.float32)
