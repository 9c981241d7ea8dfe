"""Noise on every value: normal, of photons, salt and pepper, in proportion."""

import numpy as np

from uqlib.images.corruptions.stacks import Rngs, Stack, draw_each


def gaussian_noise(x: Stack, scale: float, rngs: Rngs) -> Stack:
    """Normal noise of one strength on every value."""
    return x + 255 * scale * draw_each(rngs, lambda rng: rng.standard_normal(x.shape[1:], np.float32))


def shot_noise(x: Stack, photons: int, rngs: Rngs) -> Stack:
    """Each value counted in photons: Poisson noise, strongest in the dark relative to the signal."""
    light = iter(x * np.float32(photons / 255))
    count = draw_each(rngs, lambda rng: rng.poisson(next(light)))
    return count.astype(np.float32) * np.float32(255 / photons)


def impulse_noise(x: Stack, amount: float, rngs: Rngs) -> Stack:
    """Salt and pepper: a fraction of the values becomes 0 or 255, half each."""
    u = draw_each(rngs, lambda rng: rng.random(x.shape[1:], np.float32))
    return np.where(u < amount / 2, np.float32(255), np.where(u >= 1 - amount / 2, np.float32(0), x))


def speckle_noise(x: Stack, scale: float, rngs: Rngs) -> Stack:
    """Normal noise in proportion to the value."""
    return x + x * scale * draw_each(rngs, lambda rng: rng.standard_normal(x.shape[1:], np.float32))
