"""What networks of ImageNet see in CIFAR, from which the short studies train heads: each image is seen once, at 128 pixels.

Features lie in the user's cache; a killed run goes on. None of these networks has learnt from CIFAR.
"""

from typing import Any

from torch import Tensor

from uqlib import networks
from uqlib.base.arrays import as_tensor
from uqlib.base.options import check_choice
from uqlib.experiments.image_sets import first_rows
from uqlib.experiments.uncertainties.upstream_features import SIDE
from uqlib.images.sets import ImageSet
from uqlib.images.sources import load_images
from uqlib.store.fill import ask_network

ENCODERS = {  # name, and name in print; the strongest first
    "tf_mobilenet_edgetpu_100": "EdgeTPU",
    "tf_mobilenetv2_100": "MobileNetV2",
    "mobilenetv1_050": "MobileNet 0.5",
    "mobilenetv1_025": "MobileNet 0.25",
}
SEEN = {  # images by the name of their set; the first of each class in the official order
    "cifar10_train": 20_000,
    "cifar10_test": 5_000,
    "cifar100_train": 10_000,
    "cifar100_test": 5_000,
}


def seen_images(name: str) -> ImageSet:
    """The images of a set.

    Args:
        name: in SEEN.
    """
    dataset, _, part = check_choice(name, SEEN, "set of images").partition("_")
    whole = load_images(dataset, part)
    return whole.select(first_rows(whole, SEEN[name]))


def encoder_features(encoder: str, name: str) -> tuple[Tensor, Tensor]:
    """Features (n, d) of the images of a set, and their labels (n,).

    Args:
        encoder: in ENCODERS.
        name: in SEEN.

    Raises:
        FileNotFoundError: if images or weights are not here; the message says how to get them.
    """
    images = seen_images(name)
    model = networks.create(check_choice(encoder, ENCODERS, "encoder"))
    options: dict[str, Any] = {"columns": ("features",), "logits": "coarse", "foreign": True}
    prepared = networks.preprocessing(model, size=SIDE, crop_pct=1.0)
    answers = ask_network(encoder, model, images, preprocessing=prepared, **options)
    return answers.features, as_tensor(images.labels)
