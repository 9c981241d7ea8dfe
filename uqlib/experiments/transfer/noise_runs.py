"""Runs with wrong labels: drawn ones, or those that people gave; without a correction, and with several.

The task is noise_DATASET. A run is START/CORRECTION/LEVEL/SEED; the level is the strength of uniform noise, or a kind of labels of CIFAR-10N.
"""

from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch

from uqlib import label_noise, losses
from uqlib.experiments.image_sets import first_rows
from uqlib.experiments.keeping.kept_runs import Found, KeptRun, pack_bits
from uqlib.experiments.transfer.transfers import (
    READY_MADE,
    READY_SIDE,
    READY_STARTS,
    SCRATCH,
    Beginning,
    begin_from,
    datasets_at,
    is_right,
    load_parts,
    logits_of,
    long_epochs,
    plan_of,
    setting_of,
    train_start,
    whole_too,
)
from uqlib.images.labels import noisy_labels

CORRECTIONS = ("none", "forward", "glc_5", "glc_10", "forward_gold_5")
LONG = "long"  # in place of a correction: from scratch without one, for as long as pretraining and tuning together
PEOPLE = ("worst", "aggregate")
ANCHOR_QUANTILE = {10: 0.97, 100: None}  # by the number of classes, as the released code has it


class NoisyTask(NamedTuple):
    """What trains: images, labels as given, which of them are trusted, and the matrix that drew them, if one did."""

    images: np.ndarray
    labels: np.ndarray
    trusted: np.ndarray
    transition: np.ndarray
    level: str


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
    return NoisyTask(np.asarray(train.images), np.where(trusted, clean, labels), trusted, transition, level)


def run_noise(dataset: str, start: str, correction: str, level: str, seed: int, device: str = "cpu") -> Found:
    """Train with wrong labels and a correction, and ask about the test images."""
    method, _, percent = correction.rpartition("_") if correction[-1].isdigit() else (correction, "", "0")
    task, test = noisy_task(dataset, level, int(percent), seed), load_parts(dataset).test
    wrong = task.labels != np.asarray(load_parts(dataset).train.labels)
    numbers = {"tested": len(test), "wrong_labels": float(wrong.mean())}
    if method in ("none", LONG):
        right = _plain(dataset, start, correction, level, seed, device).right
    else:
        estimated = estimate(dataset, method, task, start, seed, device)
        numbers["estimate_error"] = float(label_noise.transition_error(estimated, task.transition))
        network = begin_from(dataset, start, seed, device)
        loss = corrected_loss(method, estimated, task.trusted)
        train_start(network, task.images, task.labels, _plan(dataset, start, correction), seed, loss)
        right = is_right(logits_of(network, test.images), test.labels)
    return Found({"correct": pack_bits(right)}, numbers | {"error": float(1 - right.mean())})


class _Plain(NamedTuple):
    right: np.ndarray  # of the test images
    probs: np.ndarray  # (n, c), of the training images


@lru_cache(maxsize=4)  # a correction begins with the training that has none
def _plain(dataset: str, start: str, correction: str, level: str, seed: int, device: str) -> _Plain:
    """What comes of labels as they are, after the usual training or a LONG one."""
    task, test = noisy_task(dataset, level, 0, seed), load_parts(dataset).test
    network = begin_from(dataset, start, seed, device)
    train_start(network, task.images, task.labels, _plan(dataset, start, correction), seed)
    return _Plain(is_right(logits_of(network, test.images), test.labels), _probabilities(network, task.images))


def _probabilities(network: Beginning, images: np.ndarray) -> np.ndarray:
    return logits_of(network, images).double().softmax(-1).numpy()


def estimate(dataset: str, method: str, task: NoisyTask, start: str, seed: int, device: str) -> np.ndarray:
    """The matrix of label noise, from what a network says that was trained on labels as they are: GLC's on those not trusted."""
    if method == "forward":
        return label_noise.transition_by_anchors(
            _plain(dataset, start, "none", task.level, seed, device).probs,
            quantile=ANCHOR_QUANTILE[len(task.transition)],
        )
    rows = ~task.trusted if method == "glc" else np.ones(len(task.labels), bool)
    first = begin_from(dataset, start, seed, device)
    train_start(first, task.images[rows], task.labels[rows], plan_of(dataset, start), seed)
    probs = _probabilities(first, task.images)
    if method == "glc":
        return label_noise.transition_by_trusted(probs[task.trusted], task.labels[task.trusted])
    return label_noise.transition_by_anchors(probs, quantile=ANCHOR_QUANTILE[len(task.transition)])


def corrected_loss(method: str, estimated: np.ndarray, trusted: np.ndarray) -> Any:
    """Forward corrects every row; GLC and Forward Gold those that are not trusted."""
    if method == "forward":
        return losses.loss("forward", transition=torch.from_numpy(estimated))
    return losses.loss("corrected", transition=torch.from_numpy(estimated), trusted=torch.from_numpy(trusted))


def _plan(dataset: str, start: str, correction: str) -> dict[str, Any]:
    return plan_of(dataset, start) | ({"epochs": long_epochs(dataset)} if correction == LONG else {})


def noise_runs(scale: str = "cpu") -> Iterator[KeptRun]:
    """All runs that the chapter asks for at a scale."""
    for dataset in datasets_at(scale):
        for seed in range(3):
            for level, correction, start, value in _asked(dataset):
                yield _run(
                    dataset,
                    start,
                    correction,
                    level,
                    seed,
                    value - (0.3 if setting_of(dataset).classes == 100 else 0.0),
                )


def _asked(dataset: str) -> Iterator[tuple[str, str, str, float]]:
    """Level, correction, start and value of what is asked for of each seed."""
    worth = {0.0: 1.0, 0.4: 1.0, 0.8: 1.0, 0.6: 0.95, 0.2: 0.9, 1.0: 0.6}
    setting = setting_of(dataset)
    tens = setting.classes == 10
    less = {"forward_gold_5": 0.5, "glc_5": 0.2}
    for strength in setting.strengths:
        for correction in CORRECTIONS:
            for start in ("supervised", SCRATCH):
                yield f"{strength:g}", correction, start, worth.get(strength, 0.5) - less.get(correction, 0.0)
        for start in ("unrelated", "rotations"):
            yield f"{strength:g}", "none", start, worth.get(strength, 0.5) - 0.25
    if tens and setting.scale == "cpu":
        for strength, start in product((0.0, 0.4, 0.8), READY_STARTS):
            yield f"{strength:g}", "none", start, 0.7
    if tens:
        yield "0.6", LONG, SCRATCH, 0.5
    for level in PEOPLE if tens else ():
        for correction in ("none", "forward", "glc_10"):
            for start in ("supervised", SCRATCH):
                yield level, correction, start, 0.9 if level == "worst" else 0.5


def _run(dataset: str, start: str, correction: str, level: str, seed: int, value: float) -> KeptRun:
    settings = {
        "dataset": dataset, "start": start, "correction": correction, "level": level, "seed": seed, "images": setting_of(dataset).images,
        "plan": _plan(dataset, start, correction), **({"network": READY_MADE, "side": READY_SIDE} if start in READY_STARTS else {}),
        **whole_too(setting_of(dataset)),
    }  # fmt: skip
    return KeptRun(
        f"noise_{dataset}", f"{start}/{correction}/{level}/{seed}", settings,
        partial(run_noise, dataset, start, correction, level, seed), value - 0.01 * seed,
    )  # fmt: skip
