"""Networks that this project pretrains on Tiny-ImageNet at 32 pixels, and keeps: data/networks/NAME.safetensors.

`uqlib pretrain NAME` makes one; a killed run goes on from the last epoch that was finished.
"""

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from uqlib import metrics, networks
from uqlib.attack import UnitImages, adversarial_step
from uqlib.base.options import check_choice
from uqlib.base.provenance import environment
from uqlib.experiments.image_sets import check_side
from uqlib.experiments.keeping.kept_columns import open_kept, to_half
from uqlib.files.columns import read_column, write_table
from uqlib.files.whole import cache_folder
from uqlib.images.sets import CIFAR10_OVERLAP, ImageSet, without_classes
from uqlib.images.sources import load_images
from uqlib.networks import Preprocessing
from uqlib.training import EpochLog, Views, loop, predict

PLACE = "data/networks/{}.safetensors"
NETWORK = "cifar_resnet8_w32"
TRAINING: dict[str, Any] = {
    "epochs": 15, "batch": 128, "lr": 0.1, "weight_decay": 5e-4, "optimizer": "sgd", "schedule": "cosine", "warmup": 0.05,
    "precision": "bf16",
}  # fmt: skip
ATTACK: dict[str, Any] = {"radius": 8 / 255, "step_size": 4 / 255, "steps": 3}
WIDE: dict[str, Any] = {"network": "wrn_40_2", "training": {"epochs": 60, "batch": 256}}  # of scale gpu
UPSTREAMS: dict[str, dict[str, Any]] = {  # what differs from NETWORK and TRAINING, and what is learnt
    "supervised": {},
    "unrelated": {"without": "cifar10"},
    "rotations": {"task": "rotations"},
    "adversarial": {"attack": ATTACK, "training": {"epochs": 6}},
    "wide_supervised": WIDE,
    "wide_unrelated": WIDE | {"without": "cifar10"},
    "wide_rotations": WIDE | {"task": "rotations"},
    "wide_adversarial": WIDE | {"attack": ATTACK},
    "wide_imagenet32": WIDE | {"images": "imagenet32", "training": {"epochs": 100, "batch": 256}},  # as in the paper
}


@cache
def upstream_images(split: str, without: str = "", images: str = "tiny_imagenet") -> ImageSet:
    """Images of 32 pixels: those of Tiny-ImageNet halved, the mean of each 2 x 2 pixels; or ImageNet-32 as it is.

    Args:
        split: train or val.
        without: "cifar10" leaves the classes of Tiny-ImageNet out that it has too.
        images: tiny_imagenet or imagenet32.

    Raises:
        FileNotFoundError: if the images are not here; the message says how to get them.
        ValueError: if they do not have 64 pixels a side, or 32 those of ImageNet-32.
    """
    if check_choice(images, ("tiny_imagenet", "imagenet32"), "set of images") == "imagenet32":
        return check_side(load_images("imagenet32", split), 32)
    whole = check_side(load_images("tiny_imagenet", split), 64)
    small = whole.with_images(halved(whole.images), name="tiny_imagenet32", split=split)
    return without_classes(small, CIFAR10_OVERLAP["tiny_imagenet"]) if without else small


def halved(images: Any, rows: int = 4096) -> np.ndarray:
    """Images (n, h, w, 3) at half the side, uint8: the mean of each 2 x 2 pixels, halves up."""
    n, height, width, _ = images.shape
    out = np.empty((n, height // 2, width // 2, 3), np.uint8)
    for at in range(0, n, rows):
        part = np.asarray(images[at : at + rows], np.uint16)
        out[at : at + rows] = (
            part[:, ::2, ::2] + part[:, 1::2, ::2] + part[:, ::2, 1::2] + part[:, 1::2, 1::2] + 2
        ) // 4
    return out


def create_small(
    classes: int, seed: int, device: str = "cpu", network: str = NETWORK
) -> tuple[nn.Module, Preprocessing]:
    """The untrained network, and how images of 32 pixels are prepared for it."""
    model = networks.create(network, weights=None, classes=classes, seed=seed)
    model = model.to(device).to(memory_format=torch.channels_last)
    return model, networks.preprocessing(model, size=32, crop_pct=1.0)


def in_unit(preparation: Preprocessing) -> Preprocessing:
    """The preparation that leaves colours in [0, 1]."""
    return preparation._replace(mean=(0.0,) * 3, std=(1.0,) * 3)


class LabelStep:
    """A step for `loop`: cross entropy of the labels that are given."""

    def __init__(self, model: nn.Module, views: Views, labels: Any):
        self.model, self.views, self.labels = model, views, torch.from_numpy(np.array(labels, np.int64))

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        x = self.views(rows, generator)
        return nn.functional.cross_entropy(self.model(x).float(), self.labels[rows].to(x.device))


class RotationStep:
    """A step for `loop`: each image is turned by a drawn multiple of 90 degrees, and the network says by which.

    Source:
        Gidaris et al. 2018 (arXiv:1803.07728), who show all four turns of an image in one batch.
    """

    def __init__(self, model: nn.Module, views: Views):
        self.model, self.views = model, views

    def __call__(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        x = self.views(rows, generator)
        turns = torch.randint(0, 4, (len(rows),), generator=generator).to(x.device)
        return nn.functional.cross_entropy(self.model(rotated(x, turns)).float(), turns)


def rotated(images: Tensor, turns: Tensor) -> Tensor:
    """Images (n, ch, side, side), each turned to the left by so many quarters."""
    out = images.clone()
    for k in (1, 2, 3):
        out[turns == k] = images[turns == k].rot90(k, (2, 3))
    return out


def make_upstream(name: str, device: str = "cpu") -> Path:
    """Pretrain a network and write it, in half precision, with a card.

    Raises:
        FileNotFoundError: if the images are not here; the message says how to get them.
    """
    settings = upstream_settings(name)
    images = upstream_images("train", settings["without"], settings.get("images", "tiny_imagenet"))
    classes = 4 if settings["task"] == "rotations" else len(images.classes)
    model, preparation = create_small(classes, seed=0, device=device, network=settings["network"])
    step, views = _step(settings, model, preparation, images)
    history = loop(
        step, examples=len(images), parts={"model": model}, trained=model.parameters(), seed=0,
        checkpoint=upstream_checkpoint(name), rests_on={"step": json.dumps(settings), "views": views.fingerprint, "labels": images.labels},
        **settings["training"],
    )  # fmt: skip
    measured = _judge(settings, model, preparation)
    write_table(
        PLACE.format(name), half_weights(model), {"card": json.dumps(_card(name, settings, images, history, measured))}
    )
    return Path(PLACE.format(name))


def upstream_settings(name: str) -> dict[str, Any]:
    """All that a network of UPSTREAMS is made with."""
    own = UPSTREAMS[check_choice(name, UPSTREAMS, "upstream")]
    other = {"images": own["images"]} if "images" in own else {}
    return other | {
        "network": own.get("network", NETWORK), "task": own.get("task", "labels"), "without": own.get("without", ""),
        "attack": own.get("attack"), "augmentation": "flip_shift", "training": TRAINING | own.get("training", {}),
    }  # fmt: skip


def upstream_checkpoint(name: str) -> Path:
    """Where a pretraining goes on from when it was killed, in the cache."""
    return cache_folder() / "checkpoints" / "upstream" / f"{name}.pt"


def _step(
    settings: dict[str, Any], model: nn.Module, preparation: Preprocessing, images: ImageSet
) -> tuple[Any, Views]:
    attacked = settings["attack"] is not None
    views = Views(
        images.images, in_unit(preparation) if attacked else preparation, settings["augmentation"], beside=model
    )
    if attacked:
        return adversarial_step(UnitImages(model, preparation), views, images.labels, **settings["attack"]), views
    if settings["task"] == "rotations":
        return RotationStep(model, views), views
    return LabelStep(model, views, images.labels), views


def _judge(settings: dict[str, Any], model: nn.Module, preparation: Preprocessing) -> dict[str, float]:
    """Accuracy on the validation images of the upstream set, or of telling their rotation."""
    images = upstream_images("val", settings["without"], settings.get("images", "tiny_imagenet"))
    pixels, labels = torch.from_numpy(np.array(images.images)), torch.from_numpy(np.array(images.labels, np.int64))
    if settings["task"] == "rotations":
        labels = torch.arange(len(images)) % 4
        pixels = rotated(pixels.permute(0, 3, 1, 2), labels).permute(0, 2, 3, 1)
    logits = predict(model, pixels.numpy(), preprocessing=preparation)
    return {"accuracy": metrics.accuracy(logits.argmax(-1).cpu(), labels)}


def half_weights(model: nn.Module) -> dict[str, np.ndarray]:
    """All floats of a network in half precision; what counts batches is left out.

    Raises:
        ValueError: if a weight is beyond half precision.
    """
    state = model.state_dict().items()
    return {name: to_half(each.cpu().numpy(), name) for name, each in state if each.is_floating_point()}


def _card(
    name: str, settings: dict, images: ImageSet, history: list[EpochLog], measured: dict[str, float]
) -> dict[str, Any]:
    return {
        "name": name, "settings": settings, "images": len(images), "classes": len(images.classes), "pixels": images.digest,
        "measured": measured, "losses": [round(log.loss, 4) for log in history],
        "seconds": round(sum(log.seconds for log in history), 1), "environment": environment(),
    }  # fmt: skip


@cache
def _read_upstream(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    path, header = open_kept(PLACE.format(check_choice(name, UPSTREAMS, "upstream")), f"uqlib pretrain {name}")
    state = {each: torch.from_numpy(read_column(path, header, each).astype(np.float32)) for each in header.columns}
    return state, json.loads(header.metadata["card"])


def upstream_card(name: str) -> dict[str, Any]:
    """What a kept network was trained on, and what was measured.

    Raises:
        FileNotFoundError: if it is not there; the message says what makes it.
    """
    return _read_upstream(name)[1]


def upstream_facts(pattern: str = "{}") -> dict[str, float]:
    """How unequal the plain and the adversarial upstream network are, as facts of prose.

    Args:
        pattern: of their names, as `transfers.Setting.upstream`.

    Returns:
        Epochs and accuracy in percent, epochs_supervised, clean_supervised and the like; and of the attack upstream its steps,
        steps_upstream, and the size of one in 255ths, step_upstream.

    Raises:
        FileNotFoundError: as `upstream_card`.
    """
    cards = {name: upstream_card(pattern.format(name)) for name in ("supervised", "adversarial")}
    told = {f"epochs_{name}": card["settings"]["training"]["epochs"] for name, card in cards.items()}
    told |= {f"clean_{name}": 100 * card["measured"]["accuracy"] for name, card in cards.items()}
    attack = cards["adversarial"]["settings"]["attack"]
    return told | {"steps_upstream": attack["steps"], "step_upstream": 255 * attack["step_size"]}


def load_upstream(name: str, classes: int, seed: int, device: str = "cpu") -> tuple[nn.Module, Preprocessing]:
    """A pretrained network with a fresh classifier, drawn by the seed; and how images are prepared for it.

    Raises:
        FileNotFoundError: if it is not there; the message says what makes it.
    """
    state, card = _read_upstream(name)
    model, preparation = create_small(classes, seed, device, card["settings"]["network"])
    config: Any = model.default_cfg
    own, head = model.state_dict(), f"{config['classifier']}."
    model.load_state_dict(own | {each: value for each, value in state.items() if not each.startswith(head)})
    return model, preparation
