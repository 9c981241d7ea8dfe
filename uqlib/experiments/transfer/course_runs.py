"""Runs that are followed: error and calibration after each epoch, with right labels and with wrong ones.

The task is course_DATASET. A run is START/SCHEDULE/STRENGTH/SEED.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from uqlib.calibrate.confidences import max_probability
from uqlib.experiments.keeping.kept_runs import Found, KeptRun
from uqlib.experiments.transfer.noise_runs import noisy_task
from uqlib.experiments.transfer.transfers import (
    SCRATCH,
    Beginning,
    begin_from,
    datasets_at,
    is_right,
    load_parts,
    logits_of,
    setting_of,
    whole_too,
)
from uqlib.experiments.transfer.upstream_networks import LabelStep
from uqlib.papers.hendrycks2019 import rms_calibration_error_hendrycks2019
from uqlib.training import Views, loop

FOLLOWED = ("train_error", "test_error", "rms")
ASKED = 2_000  # images of each kind, the first ones
BETA = 100  # examples of a bin


def plan_of_course(dataset: str, schedule: str) -> dict[str, Any]:
    """How long and how fast is trained: "drops" and "cosine" from scratch, or "tuned"."""
    setting = setting_of(dataset)
    if schedule == "tuned":
        return setting.tuned
    return setting.from_scratch | {"epochs": setting.followed[schedule], "schedule": schedule}


def run_course(dataset: str, start: str, schedule: str, strength: str, seed: int, device: str = "cpu") -> Found:
    """Train, and ask after each epoch: error on training images with the labels as given, on test images, and RMS there."""
    task, plan = noisy_task(dataset, strength, 0, seed), dict(plan_of_course(dataset, schedule))
    network = begin_from(dataset, start, seed, device)
    views = Views(task.images, network.preparation, plan.pop("augmentation"), beside=network.model)
    history = loop(
        LabelStep(network.model, views, task.labels), examples=len(views), parts={"model": network.model},
        trained=network.model.parameters(), judge=partial(judge_course, network, dataset, task.labels), seed=seed, progress=False,
        **plan,
    )  # fmt: skip
    columns = {name: np.array([log.judged[name] for log in history], np.float32) for name in FOLLOWED}
    return Found(columns, {"tested": ASKED, "error": float(columns["test_error"][-1])})


def judge_course(network: Beginning, dataset: str, labels: np.ndarray) -> dict[str, float]:
    """FOLLOWED, at this moment."""
    parts = load_parts(dataset)
    train = is_right(logits_of(network, parts.train.images[:ASKED]), labels[:ASKED])
    logits = logits_of(network, parts.test.images[:ASKED])
    right = is_right(logits, parts.test.labels[:ASKED])
    rms = rms_calibration_error_hendrycks2019(max_probability(logits), right, beta=BETA, drop_last=False)
    return dict(zip(FOLLOWED, (1 - train.mean(), 1 - right.mean(), rms), strict=True))


def course_runs(scale: str = "cpu") -> Iterator[KeptRun]:
    """All runs that the chapter asks for at a scale."""
    ten, hundred = datasets_at(scale)
    for dataset, value in ((hundred, 0.75), (ten, 0.96)):
        for seed in range(3):
            yield _run(dataset, SCRATCH, "drops", "0.6", seed, value)
            yield _run(dataset, SCRATCH, "cosine", "0", seed, value)
            yield _run(dataset, "supervised", "tuned", "0.6", seed, value)
            yield _run(dataset, "supervised", "tuned", "0", seed, value)


def _run(dataset: str, start: str, schedule: str, strength: str, seed: int, value: float) -> KeptRun:
    settings = {
        "dataset": dataset, "start": start, "strength": strength, "seed": seed, "plan": plan_of_course(dataset, schedule),
        "images": setting_of(dataset).images, "asked": ASKED, "beta": BETA, **whole_too(setting_of(dataset)),
    }  # fmt: skip
    make = partial(run_course, dataset, start, schedule, strength, seed)
    return KeptRun(f"course_{dataset}", f"{start}/{schedule}/{strength}/{seed}", settings, make, value)
