"""Runs with wrong labels as arrays: errors by data set, network, correction and strength, and the areas below them.

Runs are still being made while pages read them. So what is not there is NaN, and areas are over the strengths that there are.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations, product
from typing import NamedTuple

import numpy as np

from uqlib.base.extras import named
from uqlib.experiments.keeping.kept_runs import KeptRuns
from uqlib.experiments.transfer.asked_runs import load_asked
from uqlib.experiments.transfer.course_runs import FOLLOWED
from uqlib.experiments.transfer.transfers import datasets_at, setting_of
from uqlib.label_noise import area_under_strengths
from uqlib.metrics.compare import cells, together

with named():
    import pandas as pd
    import xarray as xr

LEAST = 3  # strengths that an area is taken over


class Areas(NamedTuple):
    """Areas under errors, and what they are over."""

    areas: xr.DataArray  # dataset, and what else the errors have; NaN where a run lacks one of the strengths
    strengths: dict[str, list[str]]  # of each data set


def noise_errors(
    networks: Sequence[str], corrections: Sequence[str], *, draws: int = 200, scale: str = "cpu"
) -> xr.DataArray:
    """Test errors with uniform noise.

    Args:
        networks: where the trainings begin: "scratch", or upstream networks.
        corrections: in `noise_runs.CORRECTIONS`.
        draws: of the test images.
        scale: gpu and paper read the runs on the whole sets.

    Returns:
        Fractions of the dimensions dataset, network, correction, strength (a text), training (the seed), draw; see
        `metrics.compare`.

    Raises:
        FileNotFoundError: as `require_kept`.
    """

    def errors(task: str, runs: Mapping[tuple[str, ...], str]) -> xr.DataArray:
        return errors_so_far(task, runs, "network", "correction", "strength", draws=draws)

    return _of_both(networks, corrections, errors, scale)


def matrix_errors(networks: Sequence[str], corrections: Sequence[str], *, scale: str = "cpu") -> xr.DataArray:
    """How far the estimated matrices of uniform noise are from the true ones, by `transition_error`.

    Args:
        networks: as of `noise_errors`.
        corrections: those that estimate a matrix.
        scale: as of `noise_errors`.

    Returns:
        Dimensions as of `noise_errors`, with one draw: all there is.
    """

    def errors(task: str, runs: Mapping[tuple[str, ...], str]) -> xr.DataArray:
        return numbers_so_far(task, runs, "network", "correction", "strength", which="estimate_error")

    return _of_both(networks, corrections, errors, scale)


def _of_both(
    networks: Sequence[str],
    corrections: Sequence[str],
    read: Callable[[str, Mapping[tuple[str, ...], str]], xr.DataArray],
    scale: str,
) -> xr.DataArray:
    require_kept(*(f"noise_{task}" for task in datasets_at(scale)))
    found = {}
    for task, name in datasets_at(scale).items():
        keys = product(networks, corrections, [f"{strength:g}" for strength in setting_of(task).strengths])
        found[name] = read(f"noise_{task}", {key: "/".join(key) for key in keys})
    return together(found, "dataset")


def noise_areas(errors: xr.DataArray) -> Areas:
    """The area under errors over the strengths, of each data set over its `common_strengths`; see `area_under_strengths`."""
    strengths = {str(name): common_strengths(errors.sel(dataset=name)) for name in errors["dataset"].values}
    parts = [_area(errors.sel(dataset=name), some) for name, some in strengths.items()]
    return Areas(xr.concat(parts, errors["dataset"]).transpose("dataset", ...), strengths)


def _area(errors: xr.DataArray, strengths: list[str]) -> xr.DataArray:
    """NaN where a run of these strengths is not there, or where there are none."""
    whole = errors.sel(strength=strengths).transpose(..., "strength")
    like = errors.isel(strength=0, drop=True)
    if not strengths:
        return xr.full_like(like, np.nan)
    area = area_under_strengths([float(each) for each in strengths], whole.fillna(0.0).values)
    return like.copy(data=area).where(whole.notnull().all("strength"))


def areas_of_curves(curves: Mapping[tuple[str, str], float], strengths: Mapping[str, Sequence[str]]) -> pd.DataFrame:
    """Areas under the curves that a paper shows, over the strengths of ours, so that both can stand beside each other.

    Args:
        curves: errors by setting, such as "CIFAR-10: none, scratch", and quantity, such as "error, strength 0.4".
        strengths: of each data set, of `noise_areas`; a data set without any has no areas.

    Returns:
        The columns dataset, correction, network, value; in the unit of the errors. None of a curve that lacks a strength.
    """
    found = []
    for setting in dict.fromkeys(setting for setting, _ in curves):
        dataset, _, rest = setting.partition(": ")
        some = strengths.get(dataset, ())
        errors = [curves.get((setting, f"error, strength {each}")) for each in some]
        if errors and None not in errors:
            area = float(area_under_strengths([float(each) for each in some], errors))
            found.append((dataset, *rest.split(", "), area))
    return pd.DataFrame(found, columns=["dataset", "correction", "network", "value"])


def beside_paper(ours: pd.DataFrame, paper: pd.DataFrame) -> pd.DataFrame:
    """Our cells, and after them those of a paper at the same places, told apart by the column `whose`: here, paper."""
    told = [each.assign(whose=whose) for each, whose in ((ours, "here"), (paper, "paper")) if len(each)]
    return pd.concat(told, ignore_index=True) if told else ours.assign(whose="here")


def relative_gains(areas: pd.DataFrame) -> pd.DataFrame:
    """By which part each area falls from the network "scratch" to "supervised", of each data set and correction."""
    wide = areas.pivot(index=["dataset", "correction"], columns="network", values="value")
    wide = wide.reindex(columns=["scratch", "supervised"]).dropna()
    return wide.assign(value=1 - wide["supervised"] / wide["scratch"]).reset_index()[["dataset", "correction", "value"]]


def named_runs(*keys: Sequence[str]) -> dict[tuple[str, ...], str]:
    """START/METHOD/LEVEL of every combination of levels, starts and methods, by that combination."""
    return {(level, start, method): f"{start}/{method}/{level}" for level, start, method in product(*keys)}


def listed(strengths: Sequence[str]) -> str:
    """Strengths in words: "0, 0.4 and 0.8"."""
    return " and ".join(filter(None, (", ".join(strengths[:-1]), *strengths[-1:]))) or "none yet"


def noted_strengths(strengths: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Strengths of `noise_areas` in words, by the name of a fact: strengths_cifar10, strengths_cifar100."""
    return {f"strengths_{task}": listed(strengths.get(name, ())) for task, name in datasets_at("cpu").items()}


def common_strengths(errors: xr.DataArray) -> list[str]:
    """Strengths that as many trainings as possible have all of, and of such strengths the most.

    Args:
        errors: with the dimensions strength, training and draw.

    Returns:
        At least LEAST, in their order; none if no training has so many.
    """
    there = errors.isel(draw=0).notnull().transpose(..., "strength")
    flat = there.values.reshape(-1, there.sizes["strength"])
    sets = [each for count in range(LEAST, flat.shape[1] + 1) for each in combinations(range(flat.shape[1]), count)]
    most = max(sets, key=lambda each: (flat[:, each].all(1).sum(), len(each)), default=())
    names = there["strength"].values
    return [str(names[k]) for k in most] if len(most) and flat[:, most].all(1).any() else []


def errors_so_far(
    task: str, runs: Mapping[tuple[str, ...], str], *dims: str, draws: int = 200, column: str = "correct"
) -> xr.DataArray:
    """`KeptRuns.errors`, and NaN where there is no run at all."""
    kept = kept_so_far(task)
    if kept is None or not any(map(kept.seeds, runs.values())):
        return _nothing(runs, dims, draws)
    return kept.errors(runs, *dims, draws=draws, column=column)


def numbers_so_far(task: str, runs: Mapping[tuple[str, ...], str], *dims: str, which: str) -> xr.DataArray:
    """A number of each run, as `errors_so_far` gives errors; there is one draw, since nothing is said of single images."""
    kept = kept_so_far(task)
    found = {} if kept is None else {key: _numbers(kept, cell, which) for key, cell in runs.items()}
    whole = {key if len(dims) > 1 else key[0]: each for key, each in found.items() if each is not None}
    names = {dim: list(dict.fromkeys(key[k] for key in runs)) for k, dim in enumerate(dims)}
    return together(whole, *dims).reindex(names).sortby("training") if whole else _nothing(runs, dims, 0)


def _numbers(kept: KeptRuns, cell: str, which: str) -> xr.DataArray | None:
    seeds = kept.seeds(cell)
    table = [[kept.number(f"{cell}/{seed}", which)] for seed in seeds]
    return xr.DataArray(np.array(table), coords={"training": seeds, "draw": [0]}) if seeds else None


def _nothing(runs: Mapping[tuple[str, ...], str], dims: Sequence[str], draws: int) -> xr.DataArray:
    names = {dim: list(dict.fromkeys(key[k] for key in runs)) for k, dim in enumerate(dims)}
    whole = names | {"training": [0], "draw": list(range(1 + draws))}
    return xr.DataArray(np.full([len(each) for each in whole.values()], np.nan), coords=whole)


def courses_so_far(network: str, schedule: str, strength: str, *, scale: str = "cpu") -> xr.DataArray:
    """What was followed after each epoch of a training, on both data sets.

    Args:
        network, schedule, strength: of `course_runs`.
        scale: as of `noise_errors`.

    Returns:
        Fractions of the dimensions dataset, measure (in `course_runs.FOLLOWED`), epoch (from 1), training (the seed).

    Raises:
        FileNotFoundError: as `require_kept`.
    """
    require_kept(*(f"course_{task}" for task in datasets_at(scale)))
    found = {
        name: _course(kept_so_far(f"course_{task}"), f"{network}/{schedule}/{strength}")
        for task, name in datasets_at(scale).items()
    }
    return together(found, "dataset").sortby(["training", "epoch"])


def _course(kept: KeptRuns | None, cell: str) -> xr.DataArray:
    seeds = kept.seeds(cell) if kept else []
    if not kept or not seeds:
        names = {"training": [0], "measure": list(FOLLOWED), "epoch": [1]}
        return xr.DataArray(np.full((1, len(FOLLOWED), 1), np.nan), coords=names)
    table = np.array([[kept.column(f"{cell}/{seed}", each) for each in FOLLOWED] for seed in seeds], float)
    names = {"training": seeds, "measure": list(FOLLOWED), "epoch": list(range(1, 1 + table.shape[2]))}
    return xr.DataArray(table, coords=names)


def require_kept(*tasks: str) -> None:
    """Refuse to go on where nothing is kept of any of these tasks: of what was never made there is nothing to tell.

    Raises:
        FileNotFoundError: if so; the message says what makes the first.
    """
    if all(kept_so_far(task) is None for task in tasks):
        raise FileNotFoundError(f"no run of {' or '.join(tasks)}; `uqlib pretrain {tasks[0]}` makes them")


def kept_so_far(task: str) -> KeptRuns | None:
    """What is kept of a task; None where nothing is yet."""
    try:
        return load_asked(task)
    except FileNotFoundError:
        return None


def counted_seeds(found: xr.DataArray) -> str:
    """How many trainings its cells are of, with draws or without: "3", "1 to 3"; "no" where there is none."""
    counts = cells(found if "draw" in found.dims else found.expand_dims("draw"))["seeds"]
    if not len(counts):
        return "no"
    least, most = int(counts.min()), int(counts.max())
    return f"{most}" if least == most else f"{least} to {most}"


def seeds_by_set(found: xr.DataArray) -> str:
    """How many trainings there are of each data set: "3 of CIFAR-10, none of CIFAR-100".

    Args:
        found: with the dimensions dataset and training.
    """
    counts = {name: counted_seeds(found.sel(dataset=name, drop=True)) for name in found["dataset"].values}
    return ", ".join(f"{'none' if count == 'no' else count} of {name}" for name, count in counts.items())
