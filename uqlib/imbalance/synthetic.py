"""Synthetic images for rare classes: between an image and one of its nearest of the same class (SMOTE)."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Int, UInt8

from uqlib.base.arrays import Array, Column, as_tensor
from uqlib.base.checks import check_labels, check_rows
from uqlib.base.extras import named
from uqlib.base.options import check_whole


class Oversampled(NamedTuple):
    """A training set in which all classes have the same size: the given rows in their order, then the synthetic ones."""

    images: UInt8[np.ndarray, "k h w 3"]
    labels: Int[np.ndarray, " k"]


def smote(images: Array, labels: Column, *, neighbours: int = 5, seed: int) -> Oversampled:
    """Images added to each class until all are as large as the largest, each on the line between two of the class.

    An image, one of its nearest neighbours of the class in pixels, and a random place between the two: imbalanced-learn's
    SMOTE, rounded to whole pixel values.

    Args:
        images: (n, h, w, 3), uint8.
        labels: (n,), classes 0 to c - 1, each of which must occur.
        neighbours: how many nearest ones to draw from; each class that grows needs more images than that.
        seed: of the draw, in [0, 2^32).

    Raises:
        TypeError: if the images are not uint8, or the labels no integers.
        ValueError: if the shape is another, a class has no image, or too few for the neighbours.
        ModuleNotFoundError: without the extra `imbalance`.

    Source:
        Chawla et al. 2002 (arXiv:1106.1813). Hendrycks et al. 2019 name neither the neighbours nor the space.
    """
    pixels = _pixels(images)
    classes = check_labels(labels, None).cpu().numpy()
    check_rows(classes, len(pixels), "labels")
    neighbours = check_whole(neighbours, "neighbours", least=1)
    seed = check_whole(seed, "seed", least=0, most=2**32 - 1)
    _check_enough(np.bincount(classes), neighbours)
    with named():
        from imblearn.over_sampling import SMOTE
    n = len(pixels)
    if (np.bincount(classes) == classes.size / (classes.max() + 1)).all():  # nothing to add
        return Oversampled(pixels.copy(), classes.copy())
    flat = pixels.reshape(n, -1).astype(np.float64)
    grown, grown_labels = SMOTE(k_neighbors=neighbours, random_state=seed).fit_resample(flat, classes)
    new = np.rint(grown[n:]).clip(0, 255).astype(np.uint8).reshape(-1, *pixels.shape[1:])
    return Oversampled(np.concatenate([pixels, new]), np.asarray(grown_labels, np.int64))


def _pixels(images: Array) -> UInt8[np.ndarray, "n h w 3"]:
    pixels = as_tensor(images, "images").cpu().numpy()
    if pixels.dtype != np.uint8:
        raise TypeError(
            f"images must be uint8, 0 to 255; they are {pixels.dtype}. Scaled? Pass (255 * images).round()."
        )
    if pixels.ndim != 4 or pixels.shape[-1] != 3 or not pixels.size:
        raise ValueError(f"images must have shape (n, h, w, 3) with at least one image; it is {pixels.shape}")
    return pixels


def _check_enough(sizes: Int[np.ndarray, " c"], neighbours: int) -> None:
    if not sizes.all():
        raise ValueError(
            f"every class needs an image; class {int(np.flatnonzero(sizes == 0)[0])} of {len(sizes)} has none. "
            "Number the classes anew, from 0."
        )
    short = (sizes < sizes.max()) & (sizes <= neighbours)
    if short.any():
        k = int(np.flatnonzero(short)[0])
        raise ValueError(
            f"a class needs more images than its {neighbours} neighbours; class {k} has {sizes[k]}. "
            + (
                f"Pass neighbours={sizes[k] - 1}."
                if sizes[k] > 1
                else "Leave the class out, or give it a second image."
            )
        )
