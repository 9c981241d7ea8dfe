"""Images of noise, the simplest sets that a classifier has never seen. `noise_images("blobs", 2000, 32)` draws one.

Image i is seeded by (seed, kind, i), so a larger set begins with the smaller one.

Source:
    Hendrycks, Lee & Mazeika 2019 (arXiv:1901.09960), out-of-distribution test sets; first in Hendrycks, Mazeika &
    Dietterich 2019 (arXiv:1812.04606), appendix. They work on colours in [-1, 1]; here those are 0 to 255.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, UInt8

from uqlib.base.extras import named
from uqlib.base.options import check_choice, check_whole

with named():
    from scipy import ndimage

Image = Float[np.ndarray, "side side 3"]  # colours in [0, 1]


def noise_images(kind: str, n: int, size: int, *, seed: int = 0) -> UInt8[np.ndarray, "n size size 3"]:
    """n square images of noise, uint8, RGB, `size` pixels a side.

    Args:
        kind: a key of NOISE_SETS.
        n: how many, at least 1.
        size: pixels a side, at least 1.
        seed: a non-negative integer.

    Raises:
        TypeError: if a number is not whole.
        ValueError: for an unknown kind, or a number out of range.
    """
    draw = NOISE_SETS[check_choice(kind, NOISE_SETS, "noise")]
    n, size = check_whole(n, "n", least=1), check_whole(size, "size", least=1)
    seed = check_whole(seed, "seed", least=0)
    stream, out = list(NOISE_SETS).index(kind), np.empty((n, size, size, 3), np.uint8)
    for i in range(n):
        out[i] = np.rint(255 * np.clip(draw(np.random.default_rng((seed, stream, i)), size), 0, 1))
    return out


def gaussian(rng: np.random.Generator, size: int) -> Image:
    """Independent normal values about mid-grey, standard deviation a quarter of the range (0.5 in [-1, 1])."""
    return 0.5 + 0.25 * rng.standard_normal((size, size, 3))


def uniform(rng: np.random.Generator, size: int) -> Image:
    """Independent values, every colour as likely as any other."""
    return rng.random((size, size, 3))


def rademacher(rng: np.random.Generator, size: int) -> Image:
    """Independent values, black or full, so each pixel has one of eight colours."""
    return rng.integers(0, 2, (size, size, 3)).astype(float)


def blobs(rng: np.random.Generator, size: int) -> Image:
    """Soft shapes on black: coin flips (0.7) smoothed, and all below 0.75 set to 0.

    The smoothing has sigma 1.5, or 2 from 64 pixels on. It runs over the colours too, which leaves them nearly grey:
    so the published sets were made.
    """
    smooth = ndimage.gaussian_filter(
        rng.binomial(1, 0.7, (size, size, 3)).astype(float), 2 if size >= 64 else 1.5, mode="nearest"
    )
    return np.where(smooth < 0.75, 0, smooth)


NOISE_SETS: dict[str, Callable[[np.random.Generator, int], Image]] = {
    "gaussian": gaussian,
    "uniform": uniform,
    "rademacher": rademacher,
    "blobs": blobs,
}
