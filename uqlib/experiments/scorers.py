"""Networks that say how hard an image is: their features and losses, computed once and kept in the cache."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from uqlib import difficulty, networks
from uqlib.base.arrays import as_tensor
from uqlib.images.sets import ImageSet
from uqlib.store.fill import ask_network

SIDE = 96  # to which the networks of ImageNet see the images enlarged
SCORERS = {  # name, and what it is: its name in print, and what it learnt from
    "tf_mobilenetv2_100": ("MobileNetV2", "pretrained"),
    "tf_mobilenet_edgetpu_100": ("MobileNet EdgeTPU", "pretrained"),
    "mobilenetv1_075": ("MobileNetV1 0.75", "pretrained"),
    "mobilenetv1_050": ("MobileNetV1 0.50", "pretrained"),
    "mobilenetv1_025": ("MobileNetV1 0.25", "pretrained"),
    "cifar100_micronet": ("MicroNet, CIFAR-100", "pretrained"),
    "cifar_resnet20": ("ResNet-20", "task"),  # on these very images, with these labels
    "cifar_resnet56": ("ResNet-56", "task"),
    "mobilenetv1_050-random": ("untrained MobileNetV1", "control"),
    "pixels": ("pixels", "control"),
}
NATIVE = ("cifar100_micronet", "cifar_resnet20", "cifar_resnet56")  # take 32 pixels; the others see images enlarged


def ask_scorer(scorer: str, images: ImageSet, column: str) -> torch.Tensor:
    """Features or logits of a network, from the cache where it has them; `-random` is one that was never trained.

    Raises:
        FileNotFoundError: if its weights are not here; the message says how to get them.
    """
    architecture, _, random = scorer.partition("-")
    fresh: dict[str, Any] = {"weights": None, "seed": 0} if random else {}
    model = networks.create(architecture, **fresh).to(memory_format=torch.channels_last)
    changes = {} if architecture in NATIVE else {"size": SIDE, "crop_pct": 1.0}
    preparation = networks.preprocessing(model, **changes)
    options: dict[str, Any] = {"preprocessing": preparation, "columns": (column,), "features": "float32"}
    return ask_network(scorer, model, images, **options)[column]


def scorer_features(scorer: str, images: ImageSet) -> torch.Tensor:
    """What a network says before its classifier (n, d); for "pixels" the image itself, halved to 16 x 16."""
    if scorer != "pixels":
        return ask_scorer(scorer, images, "features")
    pixels = torch.from_numpy(np.array(images.images)).permute(0, 3, 1, 2).float() / 255
    return F.avg_pool2d(pixels, 2).flatten(1)


def scorer_losses(scorer: str, images: ImageSet) -> torch.Tensor:
    """Cross entropy (n,) of each image under a network that was trained on these classes, nats."""
    return as_tensor(difficulty.training_loss(ask_scorer(scorer, images, "logits"), images.labels))
