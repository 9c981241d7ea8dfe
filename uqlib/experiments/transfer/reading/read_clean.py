"""What the runs with right labels say: how well they are calibrated, and how well they tell images of other classes.

A variant is a start, what of it is trained, and on how many images: VARIANTS. Arrays have the dimensions dataset and variant, what
else is asked, training (the seed) and draw, as `metrics.compare` has them; what has not been run is NaN.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch

from uqlib.base.extras import named
from uqlib.base.options import check_choice, check_whole
from uqlib.experiments.keeping.kept_runs import KeptRuns
from uqlib.experiments.transfer.clean_runs import OTHERS, TOLD
from uqlib.experiments.transfer.reading.read_noise import kept_so_far
from uqlib.experiments.transfer.transfers import SCRATCH, datasets_at, setting_of
from uqlib.metrics.compare import compare, together
from uqlib.metrics.outcomes import MEASURES, Judged, Measure
from uqlib.papers.hendrycks2019 import mad_calibration_error_hendrycks2019, rms_calibration_error_hendrycks2019

with named():
    import pandas as pd
    import xarray as xr

SETS = {  # of images of other classes, by their name in print
    "Gaussian noise": "gaussian",
    "uniform noise": "uniform",
    "black or white noise": "rademacher",
    "blobs": "blobs",
    "the other CIFAR": "",  # which one hangs on the data set
    "Tiny-ImageNet": "tiny_imagenet",
    "Caltech-101": "caltech101",
}
NOISE, PHOTOGRAPHS = list(SETS)[:4], list(SETS)[4:]
SCORES = {  # how much an image is doubted, as a sum of these columns
    "max_probability": {"top": 1},  # top: minus the log of the largest probability
    "max_logit": {"largest": -1},  # largest: the largest logit
    "energy": {"largest": -1, "top": -1},  # the log of the sum of the exponentials of the logits is largest + top
}


class Variant(NamedTuple):
    """What was trained; `share` of the usual images."""

    start: str
    method: str
    share: float = 1


VARIANTS = {
    "scratch": Variant(SCRATCH, "trained"),
    "supervised": Variant("supervised", "tuned"),
    "unrelated": Variant("unrelated", "tuned"),
    "rotations": Variant("rotations", "tuned"),
    "frozen": Variant("supervised", "frozen"),
    "probed": Variant("supervised", "probed"),
    "long": Variant(SCRATCH, "long"),  # as long as pretraining and tuning together
    "thrice": Variant(SCRATCH, "trained", 3),
    "half": Variant("supervised", "tuned", 1 / 2),
    "quarter": Variant("supervised", "tuned", 1 / 4),
    "eighth": Variant("supervised", "tuned", 1 / 8),
}

_both = MEASURES["ece"].arrays
CALIBRATION: dict[str, Measure] = {  # "as released" leaves out the bin of the surest images
    "RMS": Measure(partial(rms_calibration_error_hendrycks2019, drop_last=False), _both, False, "RMS"),
    "MAD": Measure(partial(mad_calibration_error_hendrycks2019, drop_last=False), _both, False, "MAD"),
    "RMS as released": Measure(rms_calibration_error_hendrycks2019, _both, False, "RMS as released"),
    "MAD as released": Measure(mad_calibration_error_hendrycks2019, _both, False, "MAD as released"),
    "ece_mass": MEASURES["ece_mass"],
}


def cell_of(dataset: str, variant: str) -> str:
    """A variant as START/METHOD/IMAGES."""
    start, method, share = VARIANTS[check_choice(variant, VARIANTS, "variant")]
    return f"{start}/{method}/{int(setting_of(dataset).images * share)}"


def clean_told(held: KeptRuns, run: str, *, scaled: bool = False) -> Judged:
    """The confidences of a run in its test images of which they are kept, and whether it was right.

    Args:
        run: START/METHOD/IMAGES/SEED.
        scaled: with the temperature that was fitted on validation images.
    """
    top = held.column(run, "top_scaled" if scaled else "top")[:TOLD]
    return Judged(_confidence(top), torch.from_numpy(held.correct(run)[: len(top)]))


def _confidence(top: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.exp(-top.astype(np.float64)))


def told_apart(held: KeptRuns, run: str, other: str, score: str = "max_probability") -> Judged:
    """How much a run doubts its test images and those of other classes; the others are to be found, as in the paper.

    Args:
        run: START/METHOD/IMAGES/SEED.
        other: a set in SETS.
        score: in SCORES.
    """
    parts = SCORES[check_choice(score, SCORES, "score")]
    where = SETS[check_choice(other, SETS, "other set")] or _other_cifar(held)

    def doubt_of(end: str, count: int) -> np.ndarray:
        told = {column: held.column(run, column + end)[:count].astype(np.float64) for column in parts}
        return np.sum([sign * told[column] for column, sign in parts.items()], axis=0)

    inside, outside = doubt_of("", TOLD), doubt_of(f"_{where}", OTHERS)
    doubt = torch.from_numpy(np.concatenate([inside, outside]))
    return Judged(doubt, torch.arange(len(doubt)) >= len(inside))


def _other_cifar(held: KeptRuns) -> str:
    return "cifar10" if "cifar100" in held.task else "cifar100"


def calibration_errors(
    variants: Sequence[str],
    measures: Sequence[str] = tuple(CALIBRATION),
    *,
    scaled: bool = False,
    draws: int = 200,
    seed: int = 0,
    scale: str = "cpu",
) -> xr.DataArray:
    """Calibration errors of variants, all on the same draws of the test images.

    Args:
        variants: in VARIANTS.
        measures: in CALIBRATION.
        scaled: with a temperature each, fitted on validation images.
        draws: of the test images.
        seed: of the draws.
        scale: gpu and paper read the runs on the whole sets.

    Returns:
        Fractions, of the dimensions dataset, variant, measure, training, draw.

    Raises:
        FileNotFoundError: if none of them has been run; the message says what runs them.
    """

    asked = {name: CALIBRATION[check_choice(name, CALIBRATION, "measure")] for name in measures}

    def score(held: KeptRuns, runs: Sequence[str]) -> xr.DataArray:
        told = [clean_told(held, run, scaled=scaled) for run in runs]
        return _one(compare({"": told}, asked, over="training", draws=draws, seed=seed))

    return _of_each(variants, score, scale).assign_coords(examples=TOLD)


def calibration_floors(
    variants: Sequence[str],
    measures: Sequence[str] = ("RMS", "MAD"),
    *,
    times: int = 20,
    seed: int = 0,
    scale: str = "cpu",
) -> xr.DataArray:
    """Calibration errors of networks as confident as these that are right as often as they say: what chance alone gives.

    Args:
        variants, measures: as of `calibration_errors`.
        times: so often is drawn which images they answer rightly; the mean counts.
        seed: of what is drawn.
        scale: as of `calibration_errors`.

    Returns:
        Fractions, of the dimensions dataset, variant, measure, training.

    Raises:
        FileNotFoundError: as `calibration_errors`.
        ValueError: if it is to be drawn less than once.
    """
    if check_whole(times, "times") < 1:
        raise ValueError(f"times must be at least 1; it is {times}")
    asked = {name: CALIBRATION[check_choice(name, CALIBRATION, "measure")] for name in measures}

    def score(held: KeptRuns, runs: Sequence[str]) -> xr.DataArray:
        generator = torch.Generator().manual_seed(seed)
        told = [clean_told(held, run) for run in runs]
        drawn = {k: [each.if_calibrated(generator) for each in told] for k in range(times)}
        return compare(drawn, asked, over="training", draws=0).isel(draw=0, drop=True).mean("variant")

    return _of_each(variants, score, scale).assign_coords(examples=TOLD)


def unfamiliar_scores(
    variants: Sequence[str],
    scores: Sequence[str] = ("max_probability",),
    measures: Sequence[str] = ("auroc", "aupr"),
    *,
    draws: int = 200,
    seed: int = 0,
    scale: str = "cpu",
) -> xr.DataArray:
    """How well variants tell images of each other set from test images, all on the same draws of both.

    Args:
        variants: in VARIANTS.
        scores: in SCORES.
        measures: in MEASURES; the images of other sets are positive.
        draws: of the images; each has as many test images, and as many others.
        seed: of the draws.
        scale: as of `calibration_errors`.

    Returns:
        Fractions, of the dimensions dataset, variant, score, set, measure, training, draw.

    Raises:
        FileNotFoundError: as `calibration_errors`.
    """

    def score(held: KeptRuns, runs: Sequence[str]) -> xr.DataArray:
        told = {(by, other): [told_apart(held, run, other, by) for run in runs] for by in scores for other in SETS}
        strata = next(iter(told.values()))[0].correct
        keyed = {"|".join(key): each for key, each in told.items()}
        found = compare(keyed, measures, over="training", draws=draws, seed=seed, stratify=strata)
        return together({key: found.sel(variant="|".join(key), drop=True) for key in told}, "score", "set")

    return _of_each(variants, score, scale).assign_coords(examples=TOLD)


def clean_errors(variants: Sequence[str], *, draws: int = 200, seed: int = 0, scale: str = "cpu") -> xr.DataArray:
    """Error on all test images, of the dimensions dataset, variant, training, draw.

    Args:
        variants: in VARIANTS.
        draws: of the test images.
        seed: of the draws.
        scale: as of `calibration_errors`.

    Raises:
        FileNotFoundError: as `calibration_errors`.
    """

    def score(held: KeptRuns, runs: Sequence[str]) -> xr.DataArray:
        rights = [torch.from_numpy(held.correct(run)) for run in runs]
        told = [Judged(right.double(), right) for right in rights]
        right = compare({"": told}, ["accuracy"], over="training", draws=draws, seed=seed)
        return 1 - _one(right).sel(measure="accuracy", drop=True).assign_coords(examples=len(rights[0]))

    return _of_each(variants, score, scale)


def clean_measures(variants: Sequence[str], *, draws: int = 200, seed: int = 0, scale: str = "cpu") -> xr.DataArray:
    """Error, RMS and mean AUROC over SETS by the largest probability, as `clean_errors` and its neighbours have them.

    Args:
        variants: in VARIANTS.
        draws: of the images.
        seed: of the draws.
        scale: as of `calibration_errors`.

    Returns:
        Fractions, of the dimensions measure (error, RMS, auroc), dataset, variant, training, draw.

    Raises:
        FileNotFoundError: as `calibration_errors`.
    """
    calibration = calibration_errors(variants, ["RMS"], draws=draws, seed=seed, scale=scale)
    unfamiliar = unfamiliar_scores(variants, measures=["auroc"], draws=draws, seed=seed, scale=scale)
    parts = {"error": clean_errors(variants, draws=draws, seed=seed, scale=scale)}
    parts["RMS"] = calibration.squeeze("measure", drop=True)
    parts["auroc"] = unfamiliar.squeeze(["score", "measure"], drop=True).mean("set")
    return together(parts, "measure")


def _one(scores: xr.DataArray) -> xr.DataArray:
    return scores.isel(variant=0, drop=True)


def _of_each(
    variants: Sequence[str], score: Callable[[KeptRuns, Sequence[str]], xr.DataArray], scale: str
) -> xr.DataArray:
    """What is scored of the runs of each variant that is there, each training under its seed."""
    found: dict[Any, xr.DataArray] = {}
    datasets = datasets_at(scale)
    for dataset, title in datasets.items():
        held = kept_so_far(f"clean_{dataset}")
        for variant in variants:
            cell = cell_of(dataset, variant)
            if held and (seeds := held.seeds(cell)):
                scored = score(held, [f"{cell}/{seed}" for seed in seeds])
                found[title, variant] = scored.assign_coords(training=seeds)
    if not found:
        raise FileNotFoundError(
            f"no run of {', '.join(variants)}; `uqlib pretrain clean_{next(iter(datasets))}` makes them"
        )
    whole = together(found, "dataset", "variant")
    return whole.reindex(dataset=list(datasets.values()), variant=list(variants)).sortby("training")


def course_curves(courses: Mapping[str, xr.DataArray], *, most: int = 30) -> pd.DataFrame:
    """Courses as the points of curves: the mean of the seeds at some of the epochs, evenly spaced, the last among them.

    Args:
        courses: of `courses_so_far`, by the name of the network.
        most: epochs of each.

    Returns:
        Columns network, dataset, measure, share (percent of the epochs that are over) and value; low and high are NaN, for
        there is no interval.
    """
    frames = []
    for name, course in courses.items():
        epochs = course.sizes["epoch"]
        shown = sorted(range(epochs, 0, -math.ceil(epochs / most)))
        frame = course.sel(epoch=shown).mean("training").rename("value").to_dataframe().reset_index().dropna()
        frames.append(frame.assign(network=name, share=100 * frame["epoch"] / epochs).drop(columns="epoch"))
    return pd.concat(frames, ignore_index=True).assign(low=np.nan, high=np.nan)


class Matched(NamedTuple):
    """Networks of some numbers of images, mixed so that they err as often as another."""

    scores: xr.DataArray  # as those that were mixed, without the dimension variant
    weights: xr.DataArray  # dataset, variant; they sum to 1


def matched_in_error(scores: xr.DataArray, variants: Sequence[str], target: str) -> Matched:
    """What networks of ever more images would score at the mean error of another: between two neighbours, in a straight line.

    Args:
        scores: with the dimensions dataset, variant, measure ("error" among them), training, draw.
        variants: that differ in the number of images.
        target: the variant whose mean error, over its seeds and on all images, is to be met.

    Returns:
        NaN for data sets where the target is missing, or its error is not between those of the others.
    """
    mean = scores.sel(measure="error", drop=True).isel(draw=0, drop=True).mean("training")
    rows = []
    for dataset in mean["dataset"].values:
        error = mean.sel(dataset=dataset).to_series()
        rows.append(list(weights_at_error(error[list(variants)].to_dict(), error[target]).values()))
    weights = xr.DataArray(rows, coords={"dataset": mean["dataset"].values, "variant": list(variants)})
    used = scores.sel(variant=list(variants)).where(weights > 0, 0)  # what has no weight may be missing
    return Matched((used * weights).sum("variant", skipna=False), weights)


def weights_at_error(errors: Mapping[str, float], target: float) -> dict[str, float]:
    """Weights of the two neighbours between whose errors the target lies, with which their mean error is the target.

    Args:
        errors: by name; those that are NaN count for nothing.
        target: a fraction.

    Returns:
        A weight a name, 0 for all but the neighbours; NaN if there are none on either side.
    """
    known = sorted((error, name) for name, error in errors.items() if error == error)
    at, names = [error for error, _ in known], [name for _, name in known]
    if not known or not at[0] <= target <= at[-1]:
        return dict.fromkeys(errors, np.nan)
    share = [float(np.interp(target, at, row)) for row in np.eye(len(known))]
    return dict.fromkeys(errors, 0.0) | dict(zip(names, share, strict=True))
