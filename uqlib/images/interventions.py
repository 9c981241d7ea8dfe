"""Interventions: one image made worse by a known amount, by taking away, blurring, drowning or hiding what it shows.

An uncertainty that is about the image should grow with the strength; here the truth is known, since we made it.
"""

from collections.abc import Callable

import numpy as np

from uqlib.base.extras import named
from uqlib.base.options import check_choice, check_fraction, check_whole
from uqlib.images.photos import Pixels
from uqlib.images.sequences import check_image

with named():
    from PIL import Image, ImageFilter

BLUR = 1 / 8  # standard deviation of the strongest blur, in sides of the image
NOISE = 160.0  # standard deviation of the strongest noise, in grey levels
GREY = 128


def crop(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """The middle, a share 1 - strength of the side, resized to the whole (bilinear)."""
    height, width = image.shape[:2]
    left, top = width * strength / 2, height * strength / 2
    box = (left, top, width - left, height - top)
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR, box=box))


def blur(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Gaussian blur of a standard deviation of up to an eighth of the shorter side."""
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(strength * BLUR * min(image.shape[:2]))))


def noise(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """Normal noise on every value, of a standard deviation of up to 160 of the 256 levels."""
    return np.clip(np.rint(image + NOISE * strength * generator.standard_normal(image.shape)), 0, 255).astype(np.uint8)


def occlude(image: Pixels, strength: float, generator: np.random.Generator) -> Pixels:
    """A grey rectangle of the image's shape hides the share `strength` of its area, anywhere."""
    height, width = image.shape[:2]
    h, w = round(height * strength**0.5), round(width * strength**0.5)
    top, left = generator.integers(height - h + 1), generator.integers(width - w + 1)
    hidden = image.copy()
    hidden[top : top + h, left : left + w] = GREY
    return hidden


INTERVENTIONS: dict[str, Callable[[Pixels, float, np.random.Generator], Pixels]] = {
    each.__name__: each for each in (crop, blur, noise, occlude)
}


def intervene(image: Pixels, kind: str, strength: float, *, seed: int = 0) -> Pixels:
    """The image after an intervention; strength 0 leaves it as it is.

    Args:
        image: uint8 (h, w, 3).
        kind: "crop", "blur", "noise" or "occlude".
        strength: in [0, 1): share of the side that is cut off, of the strongest blur or noise, of the area that is hidden.
        seed: of the noise and of the place that is hidden.

    Raises:
        TypeError: if the image is not uint8.
        ValueError: if the kind is unknown or the strength out of range.

    Examples:
        >>> import numpy as np
        >>> from uqlib.images.interventions import intervene
        >>> hidden = intervene(np.zeros((10, 10, 3), np.uint8), "occlude", 0.25)
        >>> float((hidden == 128).mean())
        0.25
    """
    change = INTERVENTIONS[check_choice(kind, INTERVENTIONS, "intervention")]
    strength, seed = check_fraction(strength, "strength", within="[0, 1)"), check_whole(seed, "seed", least=0)
    pixels = check_image(image)
    return change(pixels, strength, np.random.default_rng(seed)) if strength else pixels
