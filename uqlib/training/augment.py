"""Augmentations of a batch, by name: whole batches on their device, drawn from a generator."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Augmentation = Callable[[Tensor, torch.Generator], Tensor]


def keep(images: Float[Tensor, "n 3 h w"], generator: torch.Generator) -> Float[Tensor, "n 3 h w"]:
    """The images as they are."""
    return images


def flip(images: Float[Tensor, "n 3 h w"], generator: torch.Generator) -> Float[Tensor, "n 3 h w"]:
    """Each image mirrored left to right with probability one half."""
    mirrored = torch.rand(len(images), generator=generator, dtype=torch.float32) < 0.5
    return torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(-1), images)


def flip_shift(images: Float[Tensor, "n 3 h w"], generator: torch.Generator) -> Float[Tensor, "n 3 h w"]:
    """Mirrored as by `flip`, and moved by up to an eighth of the side, the edge continued by reflection."""
    images = flip(images, generator)
    side = images.shape[-1]
    reach = side // 8
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    offsets = torch.randint(0, 2 * reach + 1, (2, len(images)), generator=generator).to(images.device)
    steps = torch.arange(side, device=images.device)
    rows, columns = (offset[:, None] + steps for offset in offsets)
    each = torch.arange(len(images), device=images.device)[:, None, None]
    # indexing puts the channels last; they are brought back without a copy
    return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": keep,
    "flip": flip,
    "flip_shift": flip_shift,
}
