"""Runs with wrong labels: drawn ones, or those that people gave; without a correction, and with several.

The task is noise_DATASET. A run is START/CORRECTION/LEVEL/SEED; the level is the strength of uniform noise, or a kind of labels of CIFAR-10N.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from uqlib import label_noise, losses
from uqlib.experiments.image_sets import first_rows
from uqlib.experiments.pretraining.kept_runs import Found, PretrainingRun, pack_bits
from uqlib.experiments.pretraining.transfers import (
    IMAGES,
    SCRATCH,
    Beginning,
    ask,
    begin_from,
    fit,
    is_right,
    load_parts,
    plan_of,
)
from uqlib.images.labels import noisy_labels

CORRECTIONS = ("none", "forward", "glc_5", "glc_10", "forward_gold_5")
PEOPLE = ("worst", "aggregate")
STRENGTHS = {"cifar10": (0.0, 0.2, 0.4, 0.6, 0.8, 1.0), "cifar100": (0.0, 0.4, 0.8)}
ANCHOR_QUANTILE = {"cifar10": 0.97, "cifar100": None}  # as the released code has it


class NoisyTask(NamedTuple):
    """What trains: images, labels as given, which of them are trusted, and the matrix that drew them, if one did."""

    images: np.ndarray
    labels: np.ndarray
    trusted: np.ndarray
    transition: np.ndarray


def noisy_task(dataset: str, level: str, trusted_percent: int, seed: int) -> NoisyTask:
    """Labels by uniform noise of a strength, drawn by the seed, or those of people; the first of each class are trusted and right."""
    train = load_parts(dataset).train
    classes, clean = len(train.classes), np.array(train.labels)
    if level in PEOPLE:
        labels = noisy_labels(level)[train.index]
        counts = np.zeros((classes, classes))
        np.add.at(counts, (clean, labels), 1)
        transition = counts / counts.sum(1, keepdims=True)
    else:
        transition = label_noise.uniform_transition(classes, float(level))
        labels = label_noise.corrupt_labels(clean, transition, seed=seed)
    trusted = np.zeros(len(clean), bool)
    trusted[first_rows(train, len(clean) * trusted_percent // 100)] = True
    return NoisyTask(np.asarray(train.images), np.where(trusted, clean, labels), trusted, transition)


def run_noise(dataset: str, start: str, correction: str, level: str, seed: int, device: str = "cpu") -> Found:
    """Train with wrong labels and a correction, and ask about the test images."""
    method, _, percent = correction.rpartition("_") if correction[-1].isdigit() else (correction, "", "0")
    task = noisy_task(dataset, level, int(percent), seed)
    numbers: dict[str, float] = {}
    loss = None
    if method != "none":
        estimated = estimate(dataset, method, task, start, seed, device)
        numbers["estimate_error"] = float(label_noise.transition_error(estimated, task.transition))
        loss = corrected_loss(method, estimated, task.trusted)
    network = begin_from(start, len(task.transition), seed, device)
    history = fit(network, task.images, task.labels, plan_of(start), seed, loss)
    test = load_parts(dataset).test
    right = is_right(ask(network, test.images), test.labels)
    numbers |= {"tested": len(right), "error": float(1 - right.mean()), "loss": history[-1].loss}
    numbers["wrong_labels"] = float((task.labels != np.asarray(load_parts(dataset).train.labels)).mean())
    return Found({"correct": pack_bits(right)}, numbers)


def estimate(dataset: str, method: str, task: NoisyTask, start: str, seed: int, device: str) -> np.ndarray:
    """The matrix of label noise, from what a network says that was trained on the labels as they are."""
    rows = ~task.trusted if method == "glc" else np.ones(len(task.labels), bool)
    first: Beginning = begin_from(start, len(task.transition), seed, device)
    fit(first, task.images[rows], task.labels[rows], plan_of(start), seed)
    probs = ask(first, task.images).double().softmax(-1).numpy()
    if method == "glc":
        return label_noise.transition_by_trusted(probs[task.trusted], task.labels[task.trusted])
    return label_noise.transition_by_anchors(probs, quantile=ANCHOR_QUANTILE[dataset])


def corrected_loss(method: str, estimated: np.ndarray, trusted: np.ndarray) -> Any:
    """Forward corrects every row; GLC and Forward Gold those that are not trusted."""
    if method == "forward":
        return losses.loss("forward", transition=torch.from_numpy(estimated))
    return losses.loss("corrected", transition=torch.from_numpy(estimated), trusted=torch.from_numpy(trusted))


def noise_runs() -> Iterator[PretrainingRun]:
    """All runs that the chapter asks for."""
    for dataset, strengths in STRENGTHS.items():
        worth = {"cifar10": 1.0, "cifar100": 0.6}[dataset]
        for seed in range(3):
            for strength in strengths:
                late = 0.3 if strength == 1.0 else 0.0
                for correction in CORRECTIONS:
                    own = {"forward_gold_5": 0.5, "glc_5": 0.2}.get(correction, 0.0)
                    for start in ("supervised", SCRATCH):
                        yield _run(dataset, start, correction, f"{strength:g}", seed, worth - late - own)
            for start in ("unrelated", "rotations"):
                for strength in strengths:
                    yield _run(dataset, start, "none", f"{strength:g}", seed, worth - 0.25)
            if dataset == "cifar10":
                for level in PEOPLE:
                    for correction in ("none", "forward", "glc_10"):
                        for start in ("supervised", SCRATCH):
                            yield _run(dataset, start, correction, level, seed, 0.9 if level == "worst" else 0.5)


def _run(dataset: str, start: str, correction: str, level: str, seed: int, value: float) -> PretrainingRun:
    settings = {
        "dataset": dataset, "start": start, "correction": correction, "level": level, "seed": seed, "images": IMAGES[dataset], "plan": plan_of(start),
    }  # fmt: skip
    return PretrainingRun(
        f"noise_{dataset}", f"{start}/{correction}/{level}/{seed}", settings,
        partial(run_noise, dataset, start, correction, level, seed), value - 0.01 * seed,
    )  # fmt: skip
