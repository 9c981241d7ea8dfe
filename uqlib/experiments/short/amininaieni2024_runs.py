"""Errors of calibration maps on the curves that Amini-Naieni et al. publish, by scene: computed from their arrays, which stay there."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uqlib.base.extras import named
from uqlib.calibrate import meta
from uqlib.experiments.keeping.kept_runs import Found, KeptRun
from uqlib.metrics.compare import over_trainings

with named():
    import pandas as pd
    import xarray as xr

TASK = "amininaieni2024"
CODE = "https://github.com/niki-amini-naieni/instantcalibration"
SETS = {
    "LLFF": ("flower", "room", "orchids", "trex", "leaves", "horns", "fortress", "fern"),
    "synthetic": ("chair", "ficus", "mic"),
}  # scenes whose arrays are published, by data set; the first in the order of the table of the repository
SCENES = tuple(scene for scenes in SETS.values() for scene in scenes)
NAMES = {"trex": "T-Rex"}  # in print, where it is not the name with a capital
WAYS = (
    "raw",
    "mean of others",
    "mean of the set",
    "one component",
    "two components",
    "three components",
    "its own curve",
)
SETTINGS: dict[str, Any] = {"scenes": list(SCENES), "channels": "rgb", "points": 384, "ways": list(WAYS), "version": 1}


def published(scene: str, channel: str) -> np.ndarray:
    """The transforms of a scene, all its stored rays.

    Raises:
        FileNotFoundError: if the authors' repository is not there; the message says how to get it.
    """
    folder = Path(os.environ.get("UQLIB_DATA", "data")) / "published/instantcalibration"
    path = folder / f"scenes/{scene}/p_{channel}.npy"
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not there; `git clone {CODE} {folder}` gets it")
    return np.load(path).clip(0, 1)  # some exceed 1 by a rounding error


def maps_of(curves: dict[str, torch.Tensor], scene: str) -> dict[str, torch.Tensor]:
    """The curve that each way gives a scene, from those of the others, and from its own where it is an upper bound."""
    own = next(set(scenes) for scenes in SETS.values() if scene in scenes)
    others = torch.stack([each for name, each in curves.items() if name != scene])
    like = torch.stack([each for name, each in curves.items() if name in own - {scene}])
    fitted = [meta.project_curve(meta.fit_family(others, components=k), curves[scene][None])[0] for k in (1, 2, 3)]
    levels = torch.linspace(0, 1, len(curves[scene]), dtype=torch.float64)
    return dict(zip(WAYS, [levels, others.mean(0), like.mean(0), *fitted, curves[scene]], strict=True))


def make_errors(device: str = "cpu") -> Found:
    """The error of each scene and way, the mean of the three channels, on all stored rays."""
    errors = np.zeros((len(SCENES), len(WAYS)))
    shares: dict[str, float] = {}
    levels = torch.linspace(0, 1, SETTINGS["points"], dtype=torch.float64)
    for channel in SETTINGS["channels"]:
        pits = {scene: torch.from_numpy(published(scene, channel)) for scene in SCENES}
        curves = {scene: torch.as_tensor(meta.pit_curve(each, points=len(levels))) for scene, each in pits.items()}
        family = meta.fit_family(torch.stack(list(curves.values())), components=3)
        shares |= {f"share_{channel}_{k + 1}": each for k, each in enumerate(family.shares.tolist())}
        for row, scene in enumerate(SCENES):
            for column, (way, curve) in enumerate(maps_of(curves, scene).items()):
                moved = pits[scene] if way == "raw" else meta.map_by_curve(pits[scene], curve, levels)
                errors[row, column] += meta.pit_error(moved) / len(SETTINGS["channels"])
    return Found({"errors": errors.astype(np.float32)}, shares | {"tested": 0})


def amininaieni2024_runs(scale: str = "cpu") -> Iterator[KeptRun]:
    """The one run: nothing in it is drawn."""
    yield KeptRun(TASK, "scenes/0", SETTINGS, make_errors, value=20.0, folder="short")


def share_left(after: pd.Series, before: pd.Series) -> pd.Series:
    """The share of the error that is left, mean over mean, as a number a scene: their mean is the share.

    A ratio of means has no parts. What each scene adds is taken to the first order, as the influence function has it, so that
    an interval for other scenes can be made of the parts.

    Args:
        after, before: errors by scene, in one order.
    """
    share = after.mean() / before.mean()
    return share + (after - share * before) / before.mean()


def over_scenes(found: Mapping[str, pd.Series]) -> pd.DataFrame:
    """Cells of a number a scene, by place: the mean, with Student's interval for other scenes of the kind.

    Args:
        found: by place, such as a set of SETS; no scene should be in two of them.
    """
    frames = []
    for place, each in found.items():
        numbers = xr.DataArray(each.to_numpy(float, copy=True), dims="training")
        frames.append(over_trainings(numbers, "scenes").drop(columns="seeds").assign(place=place))
    return pd.concat(frames, ignore_index=True)
