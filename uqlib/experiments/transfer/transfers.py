"""A training that starts from a pretrained network, or from scratch, on some of CIFAR's images; and what it says afterwards."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor, nn

from uqlib import losses, metrics, training
from uqlib.base.options import check_choice
from uqlib.experiments.image_sets import first_rows
from uqlib.experiments.transfer.upstream_networks import TRAINING as UPSTREAM
from uqlib.experiments.transfer.upstream_networks import create_small, load_upstream
from uqlib.images.sets import ImageSet
from uqlib.images.sources import load_images
from uqlib.networks import Preprocessing

SCRATCH = "scratch"
IMAGES = {"cifar10": 4_000, "cifar100": 10_000}  # that train, as many of each class
VALIDATION = 1_000
UPSTREAM_IMAGES = 100_000  # of Tiny-ImageNet
TRAINING: dict[str, Any] = {
    "batch": 64, "weight_decay": 5e-4, "optimizer": "sgd", "schedule": "cosine", "warmup": 0.05, "precision": "bf16",
    "augmentation": "flip_shift",
}  # fmt: skip
FROM_SCRATCH = TRAINING | {"epochs": 20, "lr": 0.1}
TUNED = TRAINING | {
    "epochs": 7,
    "lr": 0.03,
}  # both rates by the error on validation images, of 0.003, 0.01, 0.03, 0.1 and 0.05, 0.1


class Parts(NamedTuple):
    """Images of a data set: the first of each class train, the next judge, those of the test set test."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet


@cache
def load_parts(dataset: str, images: int = 0) -> Parts:
    """What trains, validates and tests.

    Args:
        dataset: in IMAGES.
        images: that train; by default those of IMAGES. More than these come from behind the validation images.

    Raises:
        FileNotFoundError: if the images are not here; the message says how to get them.
    """
    usual = IMAGES[check_choice(dataset, IMAGES, "data set")]
    whole, test = load_images(dataset, "train"), load_images(dataset, "test")
    rows = first_rows(whole, min(images or usual, usual))
    if images > usual:
        rows = np.sort(np.concatenate([rows, first_rows(whole, images - usual, usual + VALIDATION)]))
    return Parts(whole.select(rows), whole.select(first_rows(whole, VALIDATION, usual)), test)


class Beginning(NamedTuple):
    """A network before its training, and how images are prepared for it."""

    model: nn.Module
    preparation: Preprocessing


def begin_from(start: str, classes: int, seed: int, device: str = "cpu") -> Beginning:
    """A network with fresh weights, or with those of an upstream and a fresh classifier.

    Args:
        start: "scratch", or a name in `upstream_networks.UPSTREAMS`.
        classes: of the classifier.
        seed: of what is fresh.
    """
    if start == SCRATCH:
        return Beginning(*create_small(classes, seed, device))
    return Beginning(*load_upstream(start, classes, seed, device))


def plan_of(start: str) -> dict[str, Any]:
    """How long and how fast is trained: FROM_SCRATCH or TUNED."""
    return FROM_SCRATCH if start == SCRATCH else TUNED


def long_epochs(images: int) -> int:
    """Epochs from scratch that see as many images as an upstream network and its tuning on 4,000 do."""
    usual = IMAGES["cifar10"]
    return (UPSTREAM_IMAGES * UPSTREAM["epochs"] // usual + TUNED["epochs"]) * usual // images


def train_start(
    network: Beginning, images: Any, labels: Any, plan: Mapping[str, Any], seed: int, loss: Any = None
) -> list[training.Epoch]:
    """Train all of a network, or what of it requires a gradient."""
    return training.train(
        network.model, images, labels, preprocessing=network.preparation, seed=seed, progress=False,
        loss=losses.loss("cross_entropy") if loss is None else loss, **plan,
    )  # fmt: skip


def logits_of(network: Beginning, images: Any) -> Tensor:
    """Logits (n, c), float32 on the CPU."""
    return training.predict(network.model, images, preprocessing=network.preparation).cpu()


def is_right(logits: Tensor, labels: Any) -> np.ndarray:
    """Which answers are right."""
    return logits.argmax(-1).numpy() == np.asarray(labels)


def errors_by_class(logits: Tensor, labels: Any) -> dict[str, float]:
    """The share of wrong answers of each class, as error_0, error_1, ..."""
    errors = metrics.classwise_error(logits.argmax(-1), np.array(labels), logits.shape[1])
    return {f"error_{k}": error for k, error in enumerate(errors.tolist())}


@contextmanager
def frozen(network: Beginning) -> Iterator[None]:
    """All but the classifier stays where it is for a while, the statistics of batch norm too."""
    own = set(map(id, network.model.get_classifier().parameters()))  # type: ignore[operator]
    others = [p for p in network.model.parameters() if id(p) not in own]
    norms = {m: m.momentum for m in network.model.modules() if isinstance(m, nn.BatchNorm2d)}
    for p in others:
        p.requires_grad_(False)
    for m in norms:
        m.momentum = 0.0
    try:
        yield
    finally:
        for p in others:
            p.requires_grad_(True)
        for m, momentum in norms.items():
            m.momentum = momentum
