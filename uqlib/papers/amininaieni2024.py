"""Instant Uncertainty Calibration of NeRFs Using a Meta-Calibrator: what is alone of Amini-Naieni et al. 2024.

Its idea on classifiers: tasks are networks on corrupted images, and whole corruptions or whole networks are left out.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from uqlib.base.arrays import as_tensor
from uqlib.base.extras import named
from uqlib.calibrate import fit_temperature, meta, scale_logits
from uqlib.metrics import calibration
from uqlib.metrics.outcomes import MEASURES, Measure, outcome_of
from uqlib.store import load_answers

with named():
    import xarray as xr

TITLE = "Instant Uncertainty Calibration of NeRFs Using a Meta-Calibrator"
GRID = torch.linspace(-1.5, 7, 35, dtype=torch.float64).sigmoid()  # of confidences, denser where networks are sure
STRENGTHS = {"mild": (1, 2), "severe": (4, 5)}  # severities that make a task
CLEAN = slice(2000, 4000)  # test images that fit the temperature, others than those that are corrupted
NAMES = {
    "raw": "as trained",
    "temperature": "temperature of clean images",
    "mean": "mean curve of others",
    "kin": "mean curve of its kin",
    "meta": "predicted curve",
    "oracle": "its own curve",
}
JUDGED: dict[str, Measure] = {
    "gap": Measure(partial(calibration.debiased_ece, bins=10), MEASURES["ece"].arrays, False, "squared gap"),
    "ece": MEASURES["ece_mass"],
    "nll": MEASURES["nll"],
}


class Task(NamedTuple):
    """A network on images of one kind: one half with labels known, the other to be judged."""

    network: str
    corruption: str  # "clean" is one
    strength: str
    curve: Float[Tensor, " k"]  # on GRID, of the half with labels
    known: Float[Tensor, " d"]  # features of that half
    features: Float[Tensor, " d"]  # of the half that is judged
    logits: Float[Tensor, "n c"]
    labels: Tensor
    temperature: float  # of the network, on clean images


def classifier_tasks(networks: Sequence[str], corruptions: Sequence[str]) -> list[Task]:
    """The tasks, from the store: every network on mild and severe images of each corruption, and on clean ones.

    Images of even rows have their labels known, in every task; those of odd rows are judged. So no image is on both sides.
    """
    tasks = []
    for network in networks:
        clean = load_answers(network, "cifar10", columns=("logits", "labels", "index"))
        temperature = fit_temperature(clean.logits[CLEAN], clean.labels[CLEAN]).temperature
        parts = {("clean", "none"): (clean, torch.arange(len(clean)) < 600)}
        for kind in corruptions:
            said = load_answers(network, "cifar10_c", kind, columns=("logits", "labels", "index", "severity"))
            for strength, severities in STRENGTHS.items():
                parts[kind, strength] = said, torch.isin(said["severity"], torch.tensor(severities))
        for (kind, strength), (said, chosen) in parts.items():
            given, judged = chosen & (said.index % 2 == 0), chosen & (said.index % 2 == 1)
            outcome = outcome_of(said.logits[given], said.labels[given])
            curve = as_tensor(meta.hit_curve(outcome.confidence, outcome.correct, GRID))
            known, features = (as_tensor(meta.task_features(said.logits[rows])) for rows in (given, judged))
            rest = said.logits[judged].double(), said.labels[judged], temperature
            tasks.append(Task(network, kind, strength, curve, known, features, *rest))
    return tasks


def left_out(
    tasks: Sequence[Task], by: str, group: str, *, components: int, l2: float
) -> list[tuple[Task, dict[str, Tensor]]]:
    """The logits that each way in NAMES gives the corrupted tasks of a group, of whose labels only the oracle knows.

    Kin of a task are others of its network, or, where that is left out, others of its corruption and strength.

    Args:
        tasks: all.
        by: "corruption" or "network".
        group: the one that is left out.
        components, l2: as in `meta.fit_meta`.
    """
    others = [task for task in tasks if getattr(task, by) != group]
    curves, known = (torch.stack([getattr(each, name) for each in others]) for name in ("curve", "known"))
    fit = meta.fit_meta(curves, known, components=components, l2=l2)
    found = []
    for task in (each for each in tasks if getattr(each, by) == group and each.corruption != "clean"):
        kin = [k for k, each in enumerate(others) if _are_kin(each, task, by)]
        curve = {
            "mean": fit.family.mean,
            "kin": curves[kin].mean(0),
            "meta": meta.predict_curves(fit, task.features[None])[0],
            "oracle": task.curve,
        }
        said = {"raw": task.logits, "temperature": as_tensor(scale_logits(task.logits, task.temperature))}
        said |= {name: as_tensor(meta.logits_by_curve(task.logits, GRID, each)) for name, each in curve.items()}
        found.append((task, said))
    return found


def _are_kin(one: Task, other: Task, by: str) -> bool:
    """Of one network, where corruptions are left out; of one corruption and strength, where networks are."""
    if by == "corruption":
        return one.network == other.network
    return (one.corruption, one.strength) == (other.corruption, other.strength)


def judge_groups(groups: Mapping[str, Sequence[tuple[Task, Mapping[str, Tensor]]]]) -> xr.DataArray:
    """The mean of each measure over the tasks of each group: group, variant, measure."""
    names, table = list(NAMES), []
    for own in groups.values():
        scores = [
            [
                [float(each.statistic(*each.arrays(outcome_of(said[way], task.labels)))) for each in JUDGED.values()]
                for way in names
            ]
            for task, said in own
        ]
        table.append(np.mean(scores, 0))
    return xr.DataArray(np.stack(table), {"group": list(groups), "variant": names, "measure": list(JUDGED)})
