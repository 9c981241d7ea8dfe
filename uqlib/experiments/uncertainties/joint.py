"""A classifier and its uncertainty head trained together from scratch, with a stop-gradient between them and without.

`uqlib uncertainty joint` makes data/trained/uncertainty/joint.safetensors run by run, seed by seed over all variants; a run
that is in the file is not made again, one that was killed goes on from the last epoch that was finished.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from uqlib import metrics, networks
from uqlib.base.arrays import as_tensor
from uqlib.base.extras import named
from uqlib.base.options import check_choice
from uqlib.base.provenance import environment
from uqlib.calibrate.confidences import max_probability
from uqlib.experiments.difficulty_scores import load_whole
from uqlib.experiments.image_sets import first_rows
from uqlib.experiments.keeping.kept_columns import open_kept
from uqlib.files.columns import read_column, read_header, write_table
from uqlib.files.whole import DamagedError, cache_folder
from uqlib.metrics.compare import compare
from uqlib.metrics.outcomes import Judged
from uqlib.training import EpochLog, Views, loop
from uqlib.uncertainty import UncertaintyHead, WithUncertainty, joint_step

with named():
    import xarray as xr

PLACE = "data/trained/uncertainty/joint.safetensors"
VARIANTS = {  # weight of the head's loss, and whether a stop-gradient keeps it from the classifier
    "stop": (1.0, True),  # whatever the weight: Adam divides the head's gradient by its size
    "joint_1": (1.0, False),
    "joint_10": (10.0, False),
    "joint_0.1": (0.1, False),
}
MEASURES = ("accuracy", "auroc")  # of which draws are kept
FOLLOWED = (*MEASURES, "auroc_classifier")  # after each epoch; the last by the largest probability, without a head
SETTINGS: dict[str, Any] = {
    "network": "cifar_resnet8_w32", "images": 10_000, "tested": 5_000, "width": 128, "seeds": 5, "draws": 200,
    "training": {"epochs": 8, "batch": 128, "lr": 4e-3, "weight_decay": 1e-4, "optimizer": "adamw", "precision": "bf16"},
}  # fmt: skip


class Trained(NamedTuple):
    """A classifier with its head, and what became of them."""

    both: WithUncertainty
    history: list[EpochLog]  # whose `judged` has FOLLOWED
    told: Judged  # what the head says of the test images at the end


def train_jointly(variant: str, seed: int) -> Trained:
    """Train a classifier from scratch together with its head; nothing is kept but a checkpoint in the cache.

    Args:
        variant: in VARIANTS.
        seed: of the initial weights, the order of the images and the augmentation: the same in all variants.

    Raises:
        FileNotFoundError: if the images are not here; the message says how to get them.
    """
    weight, stop = VARIANTS[check_choice(variant, VARIANTS, "variant")]
    train, test = (
        whole.select(first_rows(whole, SETTINGS[name]))
        for whole, name in ((load_whole("train"), "images"), (load_whole("test"), "tested"))
    )
    model = networks.create(SETTINGS["network"], weights=None, classes=len(train.classes), seed=seed)
    model = model.to(memory_format=torch.channels_last)
    prepared = networks.preprocessing(model, size=32, crop_pct=1.0)
    head = UncertaintyHead(model.get_classifier().in_features, width=SETTINGS["width"], seed=seed)  # type: ignore[operator]
    both = WithUncertainty(model, head, prepared=prepared)
    views = Views(train.images, prepared, "flip_shift", beside=model)

    def tell() -> tuple[Judged, float]:
        said = both.ask(test.images, batch=500)
        right = said.logits.argmax(-1) == torch.from_numpy(np.array(test.labels))
        return Judged(-said.uncertainty.double(), right), metrics.auroc(as_tensor(max_probability(said.logits)), right)

    def judge() -> dict[str, float]:
        judged, classifier = tell()
        found = (judged.correct.double().mean().item(), metrics.auroc(*judged), classifier)
        return dict(zip(FOLLOWED, found, strict=True))

    history = loop(
        joint_step(model, head, views, train.labels, weight=weight, stop_gradient=stop),
        examples=len(train), parts={"model": model, "head": head},
        trained=[*model.parameters(), *head.parameters()], judge=judge, seed=seed, progress=False,
        checkpoint=checkpoint_of(variant, seed), **SETTINGS["training"],
        rests_on={"step": f"joint, weight {weight}, stop {stop}", "views": views.fingerprint, "labels": train.labels},
    )  # fmt: skip
    return Trained(both, history, tell()[0])


def checkpoint_of(variant: str, seed: int) -> Path:
    """Where a run goes on from when it was killed, in the cache."""
    return cache_folder() / "checkpoints" / "joint" / f"{variant}-{seed}.pt"


def make_joint() -> Path:
    """Train what is missing, the seeds one after the other over all variants, and write the file after each run.

    Raises:
        DamagedError: if the file was made with other settings than these.
    """
    path = Path(PLACE)
    columns, seconds = _read(path) if path.is_file() else ({}, {})
    for seed in range(SETTINGS["seeds"]):
        for variant in VARIANTS:
            if (run := f"{variant}/{seed}") in seconds:
                continue
            trained = train_jointly(variant, seed)
            drawn = compare({"": [trained.told]}, MEASURES, over="training", draws=SETTINGS["draws"])
            followed = [[log.judged[name] for name in FOLLOWED] for log in trained.history]
            columns |= {f"drawn/{run}": drawn.values[0, :, 0].astype(np.float32)}
            columns |= {f"followed/{run}": np.array(followed, np.float32)}
            seconds[run] = round(sum(log.seconds for log in trained.history), 1)
            about = {"rests_on": _rests_on(), "seconds": seconds, "environment": environment()}
            write_table(path, columns, {"about": json.dumps(about)})
            checkpoint_of(variant, seed).unlink(missing_ok=True)
    return path


def _rests_on() -> Any:
    """What a file says it was made with; how many seeds there are may differ."""
    chosen = {name: value for name, value in SETTINGS.items() if name != "seeds"}
    return json.loads(json.dumps([chosen, VARIANTS, MEASURES, FOLLOWED]))


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """All columns, and the seconds of each run."""
    header = read_header(path)
    about = json.loads(header.metadata["about"])
    if about["rests_on"] != _rests_on():
        raise DamagedError(
            path, "it was made with other settings; remove it, and `uqlib uncertainty joint` makes it anew"
        )
    return {name: np.array(read_column(path, header, name)) for name in header.columns}, about["seconds"]


@dataclass(frozen=True)
class KeptJoint:
    """What is kept of the runs of all seeds that have every variant."""

    scores: xr.DataArray  # at the end, as `metrics.compare` gives them: variant, measure, training, draw
    epochs: xr.DataArray  # on all test images: variant, measure (FOLLOWED), training, epoch (from 1)


def load_joint() -> KeptJoint:
    """What `make_joint` kept.

    Raises:
        FileNotFoundError: if it is not there, or no seed has every variant; the message says what makes it.
        DamagedError: if it was made with other settings than these.
    """
    columns, seconds = _read(open_kept(PLACE, "uqlib uncertainty joint")[0])
    seeds = [k for k in range(SETTINGS["seeds"]) if all(f"{name}/{k}" in seconds for name in VARIANTS)]
    if not seeds:
        raise FileNotFoundError(f"no {PLACE} with a seed of every variant; `uqlib uncertainty joint` makes it")
    drawn, followed = (
        np.array([[columns[f"{kind}/{name}/{k}"] for k in seeds] for name in VARIANTS], float)
        for kind in ("drawn", "followed")
    )
    names = {"variant": list(VARIANTS), "measure": list(MEASURES), "training": seeds, "draw": range(drawn.shape[-1])}
    scores = xr.DataArray(drawn.swapaxes(1, 2), coords=names).assign_coords(examples=SETTINGS["tested"])
    names = names | {"measure": list(FOLLOWED), "epoch": range(1, 1 + followed.shape[2])}
    followed = followed.transpose(0, 3, 1, 2)
    epochs = xr.DataArray(followed, coords={k: v for k, v in names.items() if k != "draw"})
    return KeptJoint(scores, epochs)
