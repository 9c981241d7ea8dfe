"""Labels that people gave: votes on CIFAR-10's test images (CIFAR-10H), noisy labels of its training images (CIFAR-10N); others made wrong."""

import os

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uqlib.base.arrays import Column, as_tensor
from uqlib.base.checks import check_labels
from uqlib.images.sources import load_images, split_places

NOISY = ("aggregate", "worst", "random1", "random2", "random3")


def at_hand(split: str, extra: str) -> bool:
    """Whether an array of people's answers, such as "human_counts" of "test", lies beside the images of CIFAR-10."""
    return any((folder / "cifar10" / split / f"{extra}.npy").is_file() for folder in split_places(None))


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


def disputed(split: str, labels: Column) -> Float[np.ndarray, " n"]:
    """Share of people's answers that differ from the labels of CIFAR-10: of three for a training image, of some fifty for a test one.

    Raises:
        FileNotFoundError: if the answers are not beside the images.
    """
    labels = as_tensor(labels).numpy()
    if split == "train":
        return np.mean([noisy_labels(f"random{k}") != labels for k in (1, 2, 3)], axis=0)
    counts = human_counts()
    return 1 - counts[np.arange(len(labels)), labels] / counts.sum(1)


def mislabel(
    labels: Column, count: int, *, classes: int, generator: torch.Generator
) -> tuple[Int[Tensor, " n"], Bool[Tensor, " n"]]:
    """Labels of which so many at random are made wrong, each into any other class alike; and which those are."""
    true = as_tensor(labels, "labels")
    wrong = torch.zeros(len(true), dtype=torch.bool)
    wrong[torch.randperm(len(true), generator=generator)[:count]] = True
    steps = torch.randint(1, classes, true.shape, generator=generator)
    return torch.where(wrong, (true + steps) % classes, true), wrong


def _extra(split: str, extra: str, where: str, root: str | os.PathLike | None) -> tuple[np.ndarray, int]:
    """An array beside the images, and the number of classes."""
    found = load_images("cifar10", split, root=root)
    if extra not in found.extras:
        paths = " or ".join(str(folder / "cifar10" / split / f"{extra}.npy") for folder in split_places(root))
        raise FileNotFoundError(
            f"{extra} of cifar10 is not here; save it as {paths}, a row for each image, from {where}"
        )
    return found.extras[extra], len(found.classes)
