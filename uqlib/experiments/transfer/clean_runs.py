"""Runs with right labels, of which confidences are kept: what a network says of test images, and of images of other classes.

The task is clean_DATASET. A run is START/METHOD/IMAGES/SEED; the method says what of the network is trained, and for how long.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uqlib import calibrate, metrics
from uqlib.experiments.image_sets import check_side
from uqlib.experiments.keeping.kept_columns import to_half
from uqlib.experiments.keeping.kept_runs import Found, KeptRun, pack_bits
from uqlib.experiments.transfer.transfers import (
    SCRATCH,
    Beginning,
    begin_from,
    datasets_at,
    errors_by_class,
    frozen,
    is_right,
    load_parts,
    logits_of,
    long_epochs,
    plan_of,
    setting_of,
    train_start,
    whole_too,
)
from uqlib.experiments.transfer.upstream_networks import halved, upstream_images
from uqlib.images.noise_sets import noise_images
from uqlib.images.sets import CIFAR10_OVERLAP, CIFAR100_OVERLAP, without_classes
from uqlib.images.sources import load_images

TOLD = 4_000  # test images of which confidences are kept, the first ones
OTHERS = 800  # images of each set of other classes: one for five, as in the paper
SEEDS, FEWER = 5, 3  # of the two that the chapter compares, and of all others: images of noise ask for many
WHOLE = 50_000  # images of CIFAR that train
UNNAMED = ("BACKGROUND_Google",)  # a class of Caltech-101 of which nobody says what it shows


def plans(dataset: str, start: str, method: str, images: int) -> list[dict[str, Any]]:
    """What is trained one after the other; `frozen` says what is held."""
    if start == SCRATCH:
        long = {"epochs": long_epochs(dataset, images)} if method == "long" else {}
        return [plan_of(dataset, start) | long]
    tuned = plan_of(dataset, start)
    held = tuned | {"frozen": "all but the classifier, batch norm as when asked"}
    return {"tuned": [tuned], "frozen": [held], "probed": [held | {"epochs": 3}, tuned]}[method]


def run_clean(dataset: str, start: str, method: str, images: int, seed: int, device: str = "cpu") -> Found:
    """Train, fit a temperature on validation images, and ask about test images and others."""
    parts = load_parts(dataset, images)
    network = begin_from(dataset, start, seed, device)
    for plan in plans(dataset, start, method, images):
        fit_part(network, parts.train.images, parts.train.labels, plan, seed)
    return describe_clean(network, dataset)


def fit_part(network: Beginning, images: Any, labels: Any, plan: dict[str, Any], seed: int) -> None:
    """Train all of a network, or its classifier alone."""
    options = {name: value for name, value in plan.items() if name != "frozen"}
    with frozen(network) if plan.get("frozen") else nullcontext():
        train_start(network, images, labels, options, seed)


def describe_clean(network: Beginning, dataset: str) -> Found:
    """Confidences with temperature and without, what is right, and scores of images of other classes."""
    parts = load_parts(dataset)
    logits, held = logits_of(network, parts.test.images), logits_of(network, parts.validation.images)
    labels = torch.from_numpy(np.array(parts.test.labels, np.int64))
    temperature = calibrate.fit_temperature(held, np.array(parts.validation.labels)).temperature
    right = is_right(logits, labels)
    columns = {"correct": pack_bits(right), "top": _top(logits[:TOLD]), "top_scaled": _top(logits[:TOLD] / temperature)}
    columns["largest"] = to_half(logits[:TOLD].amax(-1).numpy(), "largest")
    for name, images in other_images(dataset).items():
        other = logits_of(network, images)
        columns |= {f"top_{name}": _top(other), f"largest_{name}": to_half(other.amax(-1).numpy(), "largest")}
    numbers = {"tested": len(right), "error": float(1 - right.mean()), "temperature": temperature}
    numbers |= {"nll": metrics.nll(logits, labels), "nll_scaled": metrics.nll(logits / temperature, labels)}
    return Found(
        columns, numbers | (errors_by_class(logits, parts.test.labels) if setting_of(dataset).classes == 10 else {})
    )


def _top(logits: Tensor) -> np.ndarray:
    """Minus the log of the largest probability, in half precision."""
    return to_half(-logits.double().log_softmax(-1).amax(-1).numpy(), "top")


@cache
def other_images(dataset: str, count: int = OTHERS) -> dict[str, np.ndarray]:
    """Images of noise, and of other sets without what this one has too, at 32 pixels, at most 1,000 of each."""
    noise = {kind: noise_images(kind, count, 32) for kind in ("gaussian", "uniform", "rademacher", "blobs")}
    other, known = {"cifar10": ("cifar100", CIFAR10_OVERLAP), "cifar100": ("cifar10", CIFAR100_OVERLAP)}[
        setting_of(dataset).source
    ]
    cifar = without_classes(load_images(other, "test"), known.get(other, ()))
    tiny = without_classes(upstream_images("val"), known["tiny_imagenet"])
    objects = check_side(load_images("caltech101", "all"), 128)
    objects = without_classes(objects, [*known["caltech101"], *set(UNNAMED).intersection(objects.classes)])
    rows = np.linspace(0, len(objects) - 1, 1_000).astype(int)[:count]
    small = halved(halved(np.asarray(objects.images[rows])))
    photographs = {other: cifar.images[:count], "tiny_imagenet": tiny.images[:count]}
    return noise | {name: np.asarray(images) for name, images in photographs.items()} | {"caltech101": small}


def clean_runs(scale: str = "cpu") -> Iterator[KeptRun]:
    """All runs that the chapter asks for at a scale."""
    for dataset in datasets_at(scale):
        usual = setting_of(dataset).images
        worth, fewer = {10: (1.1, (4, 8)), 100: (1.05, (2, 4))}[setting_of(dataset).classes]
        asked = {
            (SCRATCH, "trained", usual): worth,
            ("supervised", "tuned", usual): worth,
            ("unrelated", "tuned", usual): worth - 0.2,
            ("rotations", "tuned", usual): worth - 0.2,
            ("supervised", "frozen", usual): worth - 0.1,
            ("supervised", "probed", usual): worth - 0.1,
            ("supervised", "tuned", usual // fewer[0]): worth - 0.15,
            ("supervised", "tuned", usual // fewer[1]): worth - 0.15,
            (SCRATCH, "long", usual): worth - 0.7,
        }
        if 3 * usual < WHOLE:
            asked[SCRATCH, "trained", 3 * usual] = worth - 0.4
        for seed in range(SEEDS):
            for (start, method, images), value in asked.items():
                if seed < FEWER or (
                    method in ("trained", "tuned") and images == usual and start in (SCRATCH, "supervised")
                ):
                    yield _run(dataset, start, method, images, seed, value)


def _run(dataset: str, start: str, method: str, images: int, seed: int, value: float) -> KeptRun:
    settings = {
        "dataset": dataset, "start": start, "method": method, "images": images, "seed": seed, "told": TOLD, "others": [OTHERS, "without classes in common"],
        "plans": plans(dataset, start, method, images), **whole_too(setting_of(dataset)),
    }  # fmt: skip
    make = partial(run_clean, dataset, start, method, images, seed)
    return KeptRun(f"clean_{dataset}", f"{start}/{method}/{images}/{seed}", settings, make, value)
