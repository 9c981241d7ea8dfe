"""Runs on classes of very unequal sizes, with several remedies. All of them see as many images.

The task is imbalance_DATASET. A run is START/REMEDY/GAMMA/SEED.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from uqlib import imbalance, losses
from uqlib.experiments.keeping.kept_runs import Found, KeptRun, pack_bits
from uqlib.experiments.transfer.transfers import (
    SCRATCH,
    begin_from,
    datasets_at,
    errors_by_class,
    is_right,
    load_parts,
    logits_of,
    setting_of,
    train_start,
    whole_too,
)

GAMMAS = (0.2, 1.0, 2.0)
REMEDIES = ("none", "cost_sensitive", "oversampling", "smote")


class TailTask(NamedTuple):
    """What trains."""

    images: np.ndarray
    labels: np.ndarray
    loss: Any
    share: float  # of the epochs, so that all remedies see as many images


def tail_task(dataset: str, remedy: str, gamma: float, seed: int) -> TailTask:
    """The long tail, the classes in their order as in the paper, the images drawn by the seed; after a remedy."""
    train = load_parts(dataset, 10 * setting_of(dataset).tail.largest).train
    labels, classes = np.array(train.labels), len(train.classes)
    rows = imbalance.long_tail_rows(labels, tail_sizes(gamma, dataset), seed=seed)
    images, labels = np.asarray(train.images)[rows], labels[rows]
    before, loss = len(labels), None
    if remedy == "cost_sensitive":
        weights = imbalance.balanced_weights(labels, classes=classes)
        loss = losses.loss("weighted", class_weights=torch.from_numpy(np.asarray(weights)))
    if remedy == "oversampling":
        again = imbalance.oversampled_rows(labels, classes=classes, seed=seed)
        images, labels = images[again], labels[again]
    if remedy == "smote":
        images, labels = imbalance.smote(images, labels, seed=seed)
    return TailTask(images, labels, loss, before / len(labels))


def tail_sizes(gamma: float, dataset: str = "cifar10") -> np.ndarray:
    """How many images the ten classes have, the largest first."""
    tail = setting_of(dataset).tail
    return imbalance.long_tail_sizes(10, largest=tail.largest, smallest=tail.smallest, gamma=gamma)


def run_imbalance(dataset: str, start: str, remedy: str, gamma: str, seed: int, device: str = "cpu") -> Found:
    """Train on a long tail and ask about the balanced test images."""
    task = tail_task(dataset, remedy, float(gamma), seed)
    plan = plan_of_tail(dataset, start)
    plan = plan | {"epochs": max(1, round(plan["epochs"] * task.share))}
    parts = load_parts(dataset)
    network = begin_from(dataset, start, seed, device)
    train_start(network, task.images, task.labels, plan, seed, task.loss)
    logits = logits_of(network, parts.test.images)
    right = is_right(logits, parts.test.labels)
    numbers = {"tested": len(right), "error": float(1 - right.mean())} | errors_by_class(logits, parts.test.labels)
    return Found({"correct": pack_bits(right)}, numbers)


def plan_of_tail(dataset: str, start: str) -> dict[str, Any]:
    """How long and how fast is trained."""
    tail = setting_of(dataset).tail
    return tail.from_scratch if start == SCRATCH else tail.tuned


def imbalance_runs(scale: str = "cpu") -> Iterator[KeptRun]:
    """All runs that the chapter asks for at a scale."""
    dataset = next(iter(datasets_at(scale)))
    for seed in range(3):
        for gamma in GAMMAS:
            for remedy in REMEDIES:
                yield _run(dataset, SCRATCH, remedy, gamma, seed, 0.95)
            for start, remedy in (("supervised", "none"), ("supervised", "oversampling"), ("unrelated", "none")):
                yield _run(dataset, start, remedy, gamma, seed, 0.95 if start == "supervised" else 0.7)


def _run(dataset: str, start: str, remedy: str, gamma: float, seed: int, value: float) -> KeptRun:
    settings = {
        "start": start, "remedy": remedy, "gamma": gamma, "seed": seed, "sizes": [*setting_of(dataset).tail[:2]],
        "plan": plan_of_tail(dataset, start), **whole_too(setting_of(dataset)),
    }  # fmt: skip
    name, make = (
        f"{start}/{remedy}/{gamma:g}/{seed}",
        partial(run_imbalance, dataset, start, remedy, f"{gamma:g}", seed),
    )
    return KeptRun(f"imbalance_{dataset}", name, settings, make, value)
