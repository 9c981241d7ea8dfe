"""What networks of ImageNet see: cached features of Tiny-ImageNet, from which uncertainty heads learn, and of unseen sets.

Each image is seen once, enlarged or reduced to 128 pixels, and every head learns from what was kept. Of the training
images a random view is kept; of others the image itself. Features lie in the user's cache; a killed run goes on.
"""

from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uqlib import networks
from uqlib.base.extras import named
from uqlib.base.options import check_choice
from uqlib.base.splits import split
from uqlib.experiments.image_sets import check_side
from uqlib.images.crops import random_crops
from uqlib.images.interventions import intervene
from uqlib.images.sequences import Changed
from uqlib.images.sets import ImageSet, without_classes
from uqlib.images.sources import load_images
from uqlib.store.fill import ask_network

with named():
    import timm

SIDE = 128  # pixels, whatever the network is used to; of small pictures it knows as much as at its own size
BACKBONES = {  # name, and name in print; the strongest first
    "tf_mobilenet_edgetpu_100": "EdgeTPU",
    "efficientnet_lite0_pypi": "EfficientNet-Lite0",
    "tf_mobilenetv2_100": "MobileNetV2",
    "mobilenetv1_075": "MobileNet 0.75",
    "mobilenetv1_050": "MobileNet 0.5",
    "mobilenetv1_025": "MobileNet 0.25",
}
STRONGER = {  # of timm, for a GPU: they see images at their own size
    "vit_base_patch16_224.augreg_in21k_ft_in1k": "ViT-B/16",
    "convnext_tiny.in12k_ft_in1k": "ConvNeXt-T",
    "vit_small_patch16_224.augreg_in21k_ft_in1k": "ViT-S/16",
    "resnet50.a1_in1k": "ResNet-50",
}
TOLD = "tf_mobilenet_edgetpu_100"  # the backbone of which the numbers of each image are kept
TRAINED = 50_000  # images that a head learns from, 250 of each class
ASKED = 5_000  # images of Tiny-ImageNet and of CIFAR, the first ones
DOMAIN = 2_000  # images of a domain of PACS, at most
INTERVENED = 500  # images that are damaged on purpose
UNSEEN = {  # the sets that no head learns from, and their names in print
    "imagenet_sample": "ImageNet",
    "caltech101": "Caltech-101",
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "photo": "PACS photo",
    "art_painting": "PACS art",
    "cartoon": "PACS cartoon",
    "sketch": "PACS sketch",
}


def upstream_images() -> ImageSet:
    """A random view of each of the training images of Tiny-ImageNet, as many of each class."""
    whole = check_side(load_images("tiny_imagenet", "train"), 64)
    return random_crops(whole.select(np.arange(TRAINED)))


def heldout_images() -> ImageSet:
    """Images of Tiny-ImageNet that no head learns from."""
    return check_side(load_images("tiny_imagenet", "val"), 64).select(np.arange(ASKED))


def unseen_images(name: str) -> ImageSet:
    """Some images of another set.

    Args:
        name: in UNSEEN.
    """
    check_choice(name, UNSEEN, "unseen set")
    if name == "imagenet_sample":
        return load_images(name, "val")
    if name in ("cifar10", "cifar100"):
        return load_images(name, "test").select(np.arange(ASKED))
    if name == "caltech101":
        objects = without_classes(check_side(load_images(name, "all"), 128), ["BACKGROUND_Google"])
        return objects.select(np.sort(split(len(objects), 0.5, seed=0, labels=objects.labels)[0]))
    domain = check_side(load_images("pacs", name), 224)
    rows = np.random.default_rng(0).permutation(len(domain))[:DOMAIN]
    return domain.select(np.sort(rows))


def damaged_images(kind: str, strength: float) -> ImageSet:
    """Some held-out images after an intervention of known strength."""
    whole = heldout_images().select(np.arange(INTERVENED))
    made = Changed(whole.images, lambda image, row: intervene(image, kind, strength, seed=row))
    return whole.with_images(made, name="tiny_imagenet", split=f"val-{kind}-{strength:g}".replace(".", "_"))


@cache
def load_backbone(name: str) -> nn.Module:
    """A network of BACKBONES or STRONGER with its published weights; it stays where it is moved.

    Raises:
        FileNotFoundError: if they are not here; the message says how to get them.
    """
    check_choice(name, BACKBONES | STRONGER, "backbone")
    return networks.create(name).to(memory_format=torch.channels_last)


def see(backbone: str, images: ImageSet) -> Tensor:
    """Features (n, d) of images, from the cache where it has them."""
    model = load_backbone(backbone)
    prepared = networks.preprocessing(model, size=side_of(backbone), crop_pct=1.0)
    options: dict[str, Any] = {"columns": ("features",), "logits": "coarse", "foreign": True}
    return ask_network(backbone, model, images, preprocessing=prepared, **options).features


def side_of(backbone: str) -> int:
    """Pixels of a side at which a backbone sees every image."""
    return SIDE if backbone in BACKBONES else networks.preprocessing(load_backbone(backbone)).size


@cache
def tiny_classes() -> Tensor:
    """Which of ImageNet's 1,000 classes are those of Tiny-ImageNet."""
    names = timm.data.ImageNetInfo().label_names()
    return torch.tensor([names.index(word) for word in heldout_images().classes])


def class_names() -> dict[str, list[str]]:
    """The classes of the held-out images and of every unseen set, in words."""
    sets = {"tiny_imagenet": heldout_images(), **{name: unseen_images(name) for name in UNSEEN}}
    info = timm.data.ImageNetInfo()
    words = dict(zip(info.label_names(), info.label_descriptions(), strict=True))
    return {
        name: [words.get(each, each).partition(",")[0].replace("_", " ") for each in images.classes]
        for name, images in sets.items()
    }
