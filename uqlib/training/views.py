"""Views: the images of some rows, prepared and augmented, beside the network that looks at them."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from uqlib.base.options import check_choice
from uqlib.files.fingerprint import fingerprint
from uqlib.images.sequences import check_images
from uqlib.images.sets import pixels_digest
from uqlib.networks import Preprocessing, preprocess
from uqlib.training.augment import AUGMENTATIONS, Augmentation


class Views:
    """What a step looks at: `views(rows, generator)` gives the images of these rows, each call another view.

    Args:
        images: uint8 (n, h, w, 3), NumPy, memory-mapped, or a tensor; one on the GPU is read there. Or image files,
            images made when asked for (`images.Images`) or a list of (h, w, 3), of any sizes.
        preprocessing: as in `networks.preprocess`.
        augmentation: a name in AUGMENTATIONS, or a function of (images, generator); one that has a `fingerprint` can
            stand in a checkpoint.
        beside: the network whose device the views go to.

    Raises:
        TypeError, ValueError: if the images are none, or the augmentation is unknown.
    """

    def __init__(
        self,
        images: Any,
        preprocessing: Preprocessing,
        augmentation: str | Augmentation = "none",
        *,
        beside: nn.Module,
    ):
        self.images = _checked(images, preprocessing)
        self.preprocessing, self.augmentation, self.beside = preprocessing, augmentation, beside
        if not callable(augmentation):
            check_choice(augmentation, AUGMENTATIONS, "augmentation")

    def __len__(self) -> int:
        return len(self.images)

    def __call__(self, rows: Int[Tensor, " k"], generator: torch.Generator) -> Float[Tensor, "k ch size size"]:
        device = next(self.beside.parameters()).device
        augment = self.augmentation if callable(self.augmentation) else AUGMENTATIONS[self.augmentation]
        with torch.autocast(device.type, enabled=False):  # pixels are prepared in float32, whatever the network does
            return augment(preprocess(self._take(rows), self.preprocessing, device=device), generator)

    def _take(self, rows: Int[Tensor, " k"]) -> Any:
        if isinstance(self.images, Tensor):
            return self.images[rows.to(self.images.device)]
        if isinstance(self.images, np.ndarray):
            return self.images[rows.numpy()]
        return [self.images[row] for row in rows.tolist()]

    @functools.cached_property
    def pixels(self) -> str:
        """64 hexadecimal digits that change with the pixels alone; image files say what they hold."""
        own = getattr(self.images, "fingerprint", None)
        return own if isinstance(own, str) else pixels_digest(self.images)

    @functools.cached_property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that change with the pixels, their preparation or the augmentation."""
        return fingerprint([self.pixels, str(self.preprocessing), self.augmentation])


def _checked(images: Any, preprocessing: Preprocessing) -> Any:
    """Arrays and lists as `preprocess` takes them, looked at once; what is read when asked for is looked at then."""
    whole = isinstance(images, np.ndarray | Tensor | list | tuple | str | bytes | Mapping)
    lazy = not whole and hasattr(images, "__len__") and hasattr(images, "__getitem__")
    return images if lazy else check_images(images, channels=len(preprocessing.mean))
