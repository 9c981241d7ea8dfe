"""Images of CIFAR-10 as components, with labels of which some are wrong: what heads learn from that are to withstand it.

Labels of people are those of CIFAR-10N; labels at random are drawn anew among all classes, so that a tenth of these is right.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from uqlib.experiments.short.components_runs import load_components
from uqlib.images.labels import noisy_labels

NOISES = ("clean", "random1", "worst", "uniform 0.3", "uniform 0.6")  # by people twice, and a share drawn anew twice
NOISY = {
    "clean": "right labels",
    "random1": "one person",
    "worst": "worst of three",
    "uniform 0.3": "30 % at random",
    "uniform 0.6": "60 % at random",
}  # in print


class Noisy(NamedTuple):
    """What heads learn from, an entry a head: images as components, labels as given, and whether these are right."""

    seeds: list[int]
    fit: Float[Tensor, "s n d"]
    given: Tensor
    right: Tensor
    held: Float[Tensor, "s m d"]
    held_given: Tensor


def noisy_components(noise: str, seeds: Sequence[int], *, fit: int, held: int) -> Noisy:
    """Images and labels of each seed, of its own.

    Args:
        noise: in NOISES, or "uniform" and a share.
        seeds: of the images and of what is drawn anew.
        fit, held: images to learn from, and held out with labels as wrong as theirs.
    """
    seen, parts = load_components("cifar10_train"), []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(seen.labels), generator=generator)[: fit + held]
        true = given = seen.labels[rows]
        kind, _, share = noise.partition(" ")
        if kind == "uniform":
            redrawn = torch.rand(len(rows), generator=generator) < float(share)
            given = torch.where(redrawn, torch.randint(10, (len(rows),), generator=generator), true)
        elif kind != "clean":
            given = torch.from_numpy(noisy_labels(kind)[seen.index]).long()[rows]
        parts.append((seen.features[rows], given, given == true))
    x, y, right = (torch.stack(each) for each in zip(*parts, strict=True))
    return Noisy(list(seeds), x[:, :fit], y[:, :fit], right[:, :fit], x[:, fit:], y[:, fit:])
