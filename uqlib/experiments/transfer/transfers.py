"""A training that starts from a pretrained network, or from scratch, on some of CIFAR's images; and what it says afterwards."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from uqlib import losses, metrics, networks, training
from uqlib.base.options import check_choice
from uqlib.base.scales import at_scale
from uqlib.experiments.image_sets import first_rows
from uqlib.experiments.transfer.upstream_networks import NETWORK, create_small, load_upstream, upstream_settings
from uqlib.images.sets import ImageSet
from uqlib.images.sources import load_images
from uqlib.networks import Preprocessing
from uqlib.networks.zoo import network_label

SCRATCH = "scratch"
VALIDATION = 1_000
UPSTREAM_IMAGES = 100_000  # of Tiny-ImageNet
TRAINING: dict[str, Any] = {
    "batch": 64, "weight_decay": 5e-4, "optimizer": "sgd", "schedule": "cosine", "warmup": 0.05, "precision": "bf16",
    "augmentation": "flip_shift",
}  # fmt: skip
FROM_SCRATCH = TRAINING | {"epochs": 20, "lr": 0.1}
TUNED = TRAINING | {"epochs": 7, "lr": 0.03}
RATES = {
    "scratch": (0.05, 0.1),
    "tuned": (0.003, 0.01, 0.03, 0.1),
}  # tried for the parts, with right labels and no attack; the error on validation images chose
READY_MADE = "mobilenetv1_025"  # that others trained on ImageNet; on parts of the CIFARs at twice their side
READY_STARTS = ("imagenet", "imagenet_scratch")
READY_SIDE = 64
WIDE_FROM_SCRATCH = TRAINING | {"epochs": 100, "lr": 0.1, "batch": 128}
WIDE_TUNED = TRAINING | {
    "epochs": 10,
    "lr": 0.01,
    "batch": 128,
}  # as in the paper, whose rate is 0.001 without a correction


class Tail(NamedTuple):
    """Classes of very unequal sizes, and how the images as they are train."""

    largest: int  # images of the first class; 5,000 in the paper
    smallest: int  # of the last one; 250 in the paper
    from_scratch: dict[str, Any]
    tuned: dict[str, Any]


class Setting(NamedTuple):
    """What a data set is to the runs of its scale."""

    scale: str  # cpu, or gpu; smoke reads the runs of cpu, and paper those of gpu
    source: str  # as `load_images` has it
    title: str  # in print
    classes: int
    images: int  # that train, as many of each class
    validation: int
    network: str
    upstream: str  # how a start is called upstream
    from_scratch: dict[str, Any]
    tuned: dict[str, Any]
    strengths: tuple[float, ...]  # of uniform noise in the labels
    followed: dict[str, int]  # epochs from scratch of a course, by its schedule
    attack_steps: int  # while training; ten in the paper
    tail: Tail


_ELEVEN = tuple(k / 10 for k in range(11))
_part = partial(
    Setting, scale="cpu", validation=VALIDATION, network=NETWORK, upstream="{}", from_scratch=FROM_SCRATCH, tuned=TUNED,
    followed={"drops": 60, "cosine": 60}, attack_steps=5,
    tail=Tail(500, 25, FROM_SCRATCH | {"batch": 64, "epochs": 60}, TUNED | {"batch": 64, "epochs": 20}),
)  # fmt: skip
_whole = partial(
    Setting, scale="gpu", validation=5_000, network="wrn_40_2", upstream="wide_{}", from_scratch=WIDE_FROM_SCRATCH, tuned=WIDE_TUNED,
    images=45_000, strengths=_ELEVEN, followed={"drops": 200, "cosine": 100}, attack_steps=10,
    tail=Tail(4_500, 225, WIDE_FROM_SCRATCH, WIDE_TUNED | {"epochs": 50}),
)  # fmt: skip
_CIFAR10: dict[str, Any] = {"source": "cifar10", "title": "CIFAR-10", "classes": 10}
_CIFAR100: dict[str, Any] = {"source": "cifar100", "title": "CIFAR-100", "classes": 100}
SETTINGS: dict[str, Setting] = {
    "cifar10": _part(**_CIFAR10, images=4_000, strengths=(0.0, 0.2, 0.4, 0.6, 0.8, 1.0)),
    "cifar100": _part(**_CIFAR100, images=10_000, strengths=(0.0, 0.4, 0.8)),
    "cifar10_whole": _whole(**_CIFAR10),
    "cifar100_whole": _whole(**_CIFAR100),
}


def setting_of(dataset: str) -> Setting:
    """How a data set of SETTINGS is used."""
    return SETTINGS[check_choice(dataset, SETTINGS, "data set")]


def settings_at(scale: str) -> list[Setting]:
    """How the data sets of a scale are used, CIFAR-10 first."""
    return [setting_of(dataset) for dataset in datasets_at(scale)]


def datasets_at(scale: str) -> dict[str, str]:
    """The data sets of a scale and their names in print, CIFAR-10 first: parts of both CIFARs, or at gpu and paper the whole ones."""
    own = at_scale(scale, smoke="cpu", cpu="cpu", gpu="gpu")
    return {name: setting.title for name, setting in SETTINGS.items() if setting.scale == own}


def whole_too(setting: Setting) -> dict[str, Any]:
    """What a run of another network than NETWORK notes among its settings."""
    return {} if setting.network == NETWORK else {"network": setting.network, "validation": setting.validation}


def network_facts(setting: Setting) -> dict[str, Any]:
    """The network of a setting as prose has it: `network` its name in print, `weights` how many millions there are."""
    model, _ = create_small(setting.classes, 0, network=setting.network)
    name = setting.network
    label = name.upper().replace("_", "-") if name.startswith("wrn") else network_label(name)
    return {"network": label, "weights": sum(each.numel() for each in model.parameters()) / 1e6}


def tuning_text(setting: Setting) -> str:
    """How the plans of a setting came about, as a sentence: who was chosen from how many, and what was not chosen."""
    plans = {"scratch": setting.from_scratch, "tuned": setting.tuned}
    if setting.scale != "cpu":
        return "Rates and epochs are near those of the paper; none was chosen on our images."
    told = []
    for name, words in {"tuned": "The rate of tuning", "scratch": "the rate from scratch"}.items():
        tried, rate = RATES[name], plans[name]["lr"]
        edge = ", the " + ("largest" if rate == max(tried) else "least") if rate in (min(tried), max(tried)) else ""
        told.append(f"{words} is {rate:g}, of {len(tried)} that were tried{edge}")
    return (
        f"{', '.join(told)}: the error on validation images chose, with right labels and without an attack. "
        f"No choice of the epochs, {plans['tuned']['epochs']} and {plans['scratch']['epochs']}, is on record."
    )


class Parts(NamedTuple):
    """Images of a data set: the first of each class train, the next judge, those of the test set test."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet


@cache
def load_parts(dataset: str, images: int = 0) -> Parts:
    """What trains, validates and tests.

    Args:
        dataset: in SETTINGS.
        images: that train; by default those of its setting. More than these come from behind the validation images.

    Raises:
        FileNotFoundError: if the images are not here; the message says how to get them.
    """
    setting = setting_of(dataset)
    usual, validation = setting.images, setting.validation
    whole, test = (load_images(setting.source, split) for split in ("train", "test"))
    rows = first_rows(whole, min(images or usual, usual))
    if images > usual:
        rows = np.sort(np.concatenate([rows, first_rows(whole, images - usual, usual + validation)]))
    return Parts(whole.select(rows), whole.select(first_rows(whole, validation, usual)), test)


class Beginning(NamedTuple):
    """A network before its training, and how images are prepared for it."""

    model: nn.Module
    preparation: Preprocessing


def begin_from(dataset: str, start: str, seed: int, device: str = "cpu") -> Beginning:
    """A network with fresh weights, or with those of an upstream and a fresh classifier.

    Args:
        dataset: in SETTINGS.
        start: "scratch", or a small network of `upstream_networks.UPSTREAMS`, in whose place the whole sets take the wide
            one; "imagenet" for a network that others trained, "imagenet_scratch" for the same one with fresh weights.
        seed: of what is fresh.
    """
    setting = setting_of(dataset)
    if start in READY_STARTS:
        return _begin_ready_made(setting.classes, seed, device, pretrained=start == "imagenet")
    if start == SCRATCH:
        return Beginning(*create_small(setting.classes, seed, device, setting.network))
    return Beginning(*load_upstream(setting.upstream.format(start), setting.classes, seed, device))


def _begin_ready_made(classes: int, seed: int, device: str, *, pretrained: bool) -> Beginning:
    fresh = networks.create(READY_MADE, weights=None, classes=classes, seed=seed)
    model: Any = fresh
    if pretrained:
        model = networks.create(READY_MADE)
        model.reset_classifier(classes)
        model.get_classifier().load_state_dict(fresh.get_classifier().state_dict())  # type: ignore[operator]
    model = model.to(device).to(memory_format=torch.channels_last)
    return Beginning(model, networks.preprocessing(model, size=READY_SIDE, crop_pct=1.0))


def is_from_scratch(start: str) -> bool:
    """Whether all weights of a start are fresh."""
    return start in (SCRATCH, "imagenet_scratch")


def plan_of(dataset: str, start: str) -> dict[str, Any]:
    """How long and how fast is trained, from scratch or tuned."""
    setting = setting_of(dataset)
    return setting.from_scratch if is_from_scratch(start) else setting.tuned


def long_epochs(dataset: str, images: int = 0) -> int:
    """Epochs from scratch on so many images that see as many as the supervised upstream network and its tuning do."""
    setting = setting_of(dataset)
    upstream = upstream_settings(setting.upstream.format("supervised"))["training"]["epochs"]
    usual = settings_at(setting.scale)[0].images  # CIFAR-100 sees as many as CIFAR-10
    return (UPSTREAM_IMAGES * upstream // usual + setting.tuned["epochs"]) * usual // (images or setting.images)


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
    """All but the classifier stays what it is for a while: no weight learns, and batch norm normalises as when it is asked.

    In a batch of its own statistics the classifier would learn from other features than it is asked about.
    """
    own = set(map(id, network.model.get_classifier().parameters()))  # type: ignore[operator]
    others = [p for p in network.model.parameters() if id(p) not in own]
    norms = [m for m in network.model.modules() if isinstance(m, nn.BatchNorm2d)]
    hooks = [m.register_forward_pre_hook(_as_when_asked) for m in norms]
    for p in others:
        p.requires_grad_(False)
    try:
        yield
    finally:
        for p in others:
            p.requires_grad_(True)
        for hook in hooks:
            hook.remove()


def _as_when_asked(norm: nn.Module, _: Any) -> None:
    norm.eval()  # whoever called train() on the whole
