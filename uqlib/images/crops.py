"""Random views of images: crops, mirrored, in changed colours, each drawn from a seed and the row, so that they can be kept.

What a network says of view k of a set is the same on every machine and in every order, so it is computed once and stored
like what it says of the images themselves.
"""

import hashlib
import math

import numpy as np

from uqlib.base.extras import named
from uqlib.base.options import check_whole
from uqlib.images.photos import Pixels
from uqlib.images.sequences import Changed, check_image
from uqlib.images.sets import ImageSet

with named():
    from PIL import Image, ImageEnhance

AREA, RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # of the crop: share of the image, width over height
JITTER = 0.4  # brightness, contrast and saturation are multiplied by a factor within one plus or minus this
TRIES = 10  # to draw a crop that fits; then the whole image
RULE = f"random crops 1: area {AREA}, ratio {RATIO}, jitter {JITTER}"  # changes with the pixels of a view


def random_crops(images: ImageSet, *, view: int = 0) -> ImageSet:
    """A random view of every image of a set, made when asked for: the split is named SPLIT-viewK.

    A crop of 8 to 100 % of the area, between 3:4 and 4:3, is resized to the size of the image (bilinear or bicubic),
    mirrored in half of the cases, and its brightness, contrast and saturation change by up to 40 %, in random order.

    Args:
        images: uint8 (n, h, w, 3), or any images of a set.
        view: which; each number gives another view of every image.

    Source:
        Kirchhof et al. 2024 (arXiv:2402.16569), whose released code takes timm's augmentation without AutoAugment.
    """
    view = check_whole(view, "view", least=0)
    rows = [int(row) for row in images.index]
    digest = hashlib.sha256(f"{RULE}, view {view}, {images.digest}".encode()).hexdigest()
    made = Changed(images.images, lambda image, row: random_crop(image, (view, row)), rows)
    return ImageSet(
        made,
        images.labels,
        images.classes,
        images.name,
        f"{images.split}-view{view}",
        digest,
        images.index,
        images.extras,
    )


def random_crop(image: Pixels, seed: int | tuple[int, ...]) -> Pixels:
    """One random view of an image, of its own size.

    Args:
        image: uint8 (h, w, 3).
        seed: whole numbers; the same give the same view.

    Raises:
        TypeError, ValueError: if the image is none, or the seed no whole number of at least 0.
    """
    pixels = check_image(image)
    parts = seed if isinstance(seed, tuple) else (seed,)
    generator = np.random.default_rng([check_whole(part, "seed", least=0) for part in parts])
    height, width = pixels.shape[:2]
    box = _draw_box(generator, height, width)
    kind = Image.Resampling.BILINEAR if generator.random() < 0.5 else Image.Resampling.BICUBIC
    seen = Image.fromarray(pixels).resize((width, height), kind, box=box)
    if generator.random() < 0.5:
        seen = seen.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for which in generator.permutation(3):
        seen = enhancers[which](seen).enhance(generator.uniform(1 - JITTER, 1 + JITTER))
    return np.asarray(seen)


def _draw_box(generator: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a crop."""
    for _ in range(TRIES):
        area = height * width * generator.uniform(*AREA)
        ratio = math.exp(generator.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = int(generator.integers(width - w + 1)), int(generator.integers(height - h + 1))
            return left, top, left + w, top + h
    return 0, 0, width, height
