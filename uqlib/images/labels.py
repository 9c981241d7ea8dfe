"""Labels that people gave: votes on CIFAR-10's test images (CIFAR-10H), noisy labels of its training images (CIFAR-10N)."""

import os

import numpy as np
from jaxtyping import Int

from uqlib.base.checks import check_labels
from uqlib.images.sources import load_images, split_places

NOISY = ("aggregate", "worst", "random1", "random2", "random3")


def human_counts(*, root: str | os.PathLike | None = None) -> Int[np.ndarray, "n c"]:
    """Votes of people for each class of each test image (CIFAR-10H: 47 to 63 an image), as load("cifar10", "test") has them.

    Args:
        root: as in `load`.

    Raises:
        FileNotFoundError: if human_counts.npy is not beside the images.

    Source:
        Peterson et al. 2019 (arXiv:1908.07086); github.com/jcpeterson/cifar-10h.
    """
    where = "cifar10h-counts.npy of github.com/jcpeterson/cifar-10h (official order of the test images)"
    counts, classes = _extra("test", "human_counts", where, root)
    if counts.ndim != 2 or counts.shape[1] != classes or counts.dtype.kind not in "iu" or (counts < 0).any():
        raise ValueError(
            f"human_counts.npy of cifar10/test must hold votes, whole numbers (n, {classes}); it is {counts.dtype} "
            f"{counts.shape}. Take {where}."
        )
    return counts


def noisy_labels(kind: str, *, root: str | os.PathLike | None = None) -> Int[np.ndarray, " n"]:
    """Labels that one person gave each training image (CIFAR-10N), as load("cifar10", "train") has them.

    Args:
        kind: random1, random2, random3 (three people), aggregate (their majority), worst (a wrong one if there is one).
        root: as in `load`.

    Raises:
        ValueError: if the kind is unknown.
        FileNotFoundError: if the array is not beside the images.

    Source:
        Wei et al. 2022 (arXiv:2110.12088); github.com/UCSC-REAL/cifar-10-100n.
    """
    if kind not in NOISY:
        raise ValueError(f"unknown kind {kind!r} of noisy labels; choose from {', '.join(NOISY)}")
    where = "CIFAR-10_human.pt of github.com/UCSC-REAL/cifar-10-100n (official order of the training images)"
    labels, classes = _extra("train", f"noisy_{kind}", where, root)
    return check_labels(labels, classes, len(labels), f"noisy_{kind}.npy of cifar10/train").numpy()


def _extra(split: str, extra: str, where: str, root: str | os.PathLike | None) -> tuple[np.ndarray, int]:
    """An array beside the images, and the number of classes."""
    found = load_images("cifar10", split, root=root)
    if extra not in found.extras:
        paths = " or ".join(str(folder / "cifar10" / split / f"{extra}.npy") for folder in split_places(root))
        raise FileNotFoundError(
            f"{extra} of cifar10 is not here; save it as {paths}, a row for each image, from {where}"
        )
    return found.extras[extra], len(found.classes)
