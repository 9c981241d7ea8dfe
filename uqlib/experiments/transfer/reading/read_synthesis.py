"""The synthesis as one array: six things that are there or not, and what each combination scores."""

import itertools
import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np

from uqlib import networks
from uqlib.base.extras import named
from uqlib.experiments.keeping.kept_columns import AWAY, unpack_draws
from uqlib.experiments.keeping.kept_runs import KeptRuns
from uqlib.experiments.transfer.asked_runs import load_asked
from uqlib.experiments.transfer.synthesis_runs import (
    ADDED,
    DATASET,
    JUDGED_BY,
    LOSSES,
    SEEDS,
    SIDEKICK,
    STARTS,
    TESTED,
    UNFAMILIAR,
    every_set,
)
from uqlib.experiments.transfer.transfers import SETTINGS, VALIDATION
from uqlib.experiments.transfer.upstream_networks import NETWORK, create_small
from uqlib.metrics.outcomes import MEASURES

with named():
    import pandas as pd
    import xarray as xr

FACTORS = {"pretraining": "pretraining", "difficulty": "weights by difficulty", "ensemble": "ensemble of two",
           "duo": "small sidekick", "temperature": "temperature", "head": "uncertainty head"}  # fmt: skip
SCORES = {  # column, the measure in it, and names in print
    "accuracy": ("test/accuracy", "accuracy", "accuracy"),
    "nll": ("test/nll", "nll", "NLL"),
    "ece": ("test/ece", "ece", "ECE"),
    "aurc": ("test/aurc", "aurc", "AURC"),
    "other": ("other", "auroc", "AUROC of other images"),
    "shifted_accuracy": ("shifted/accuracy", "accuracy", "accuracy on damaged images"),
    "shifted_ece": ("shifted/ece", "ece", "ECE on damaged images"),
    "shifted_aurc": ("shifted/aurc", "aurc", "AURC on damaged images"),
}

ON_CARD = {  # measures of a reliability card, and where they stand
    **{name: f"test/{name}" for name in ("accuracy", "nll", "brier", "ece")}, "ece_scaled": "test/ece",
    **{name: f"test/{name}" for name in ("auroc", "aurc")}, "ood_auroc": "other/cifar100",
}  # fmt: skip


def load_synthesis() -> xr.DataArray:
    """What every combination scores: a dimension of two for each of FACTORS (0: without, 1: with), measure, training, draw.

    Raises:
        FileNotFoundError: if no seed has all four trainings; the message says what makes them.
    """
    kept, seeds = _whole_seeds()
    table = np.array(
        [[[_scores(kept, f"{start}/{loss}/all/{seed}") for seed in seeds] for loss in LOSSES] for start in STARTS]
    )
    shape = (2, 2, len(seeds), *[2] * len(ADDED), len(SCORES), table.shape[-1])
    dims = ("pretraining", "difficulty", "training", *ADDED, "measure", "draw")
    names = {name: [0, 1] for name in FACTORS} | {
        "training": seeds,
        "measure": list(SCORES),
        "draw": range(table.shape[-1]),
    }
    return xr.DataArray(table.reshape(shape), names, dims).transpose(*FACTORS, "measure", "training", "draw")


def synthesis_card() -> xr.DataArray:
    """What each method scores alone, by the measures of a reliability card: variant, measure, training, draw.

    The first variant is the network from scratch with no method. `ece_scaled` is the ECE of the same with a temperature;
    `ood_auroc` is of images of CIFAR-100. Those of the ensemble are `as_if_unshared`.

    Raises:
        FileNotFoundError: as `load_synthesis`.
    """
    kept, seeds = _whole_seeds()
    asked = {"from scratch": ("scratch", "cross_entropy", frozenset()), **{
        name: ("supervised" if name == "pretraining" else "scratch", "difficulty" if name == "difficulty" else "cross_entropy",
               frozenset({name} & set(ADDED)))
        for name in FACTORS}}  # fmt: skip
    table = [
        [_card_scores(_all_scores(kept, f"{start}/{loss}/all/{seed}"), added) for seed in seeds]
        for start, loss, added in asked.values()
    ]
    names = {"variant": list(asked), "training": seeds, "measure": list(ON_CARD)}
    array = np.array(table)
    found = xr.DataArray(array, names | {"draw": range(array.shape[-1])}, ("variant", "training", "measure", "draw"))
    found = xr.where(found["variant"] == "ensemble", as_if_unshared(found), found)
    return found.transpose("variant", "measure", "training", "draw")


def _card_scores(scores: np.ndarray, added: frozenset[str]) -> np.ndarray:
    """(measures of ON_CARD, draws) of one set of additions."""
    own, scaled = (scores[every_set().index(each)] for each in (added, added | {"temperature"}))
    columns = {name: JUDGED_BY.index(column) for name, column in ON_CARD.items()}
    return np.stack([(scaled if name == "ece_scaled" else own)[k] for name, k in columns.items()])


def _whole_seeds() -> tuple[KeptRuns, list[int]]:
    """What is kept, and the seeds that have all four trainings."""
    kept = load_asked(f"synthesis_{DATASET}")
    seeds = kept.seeds(*(f"{start}/{loss}/all" for start in STARTS for loss in LOSSES))
    if not seeds:
        raise FileNotFoundError(
            f"no seed of synthesis_{DATASET} is whole; `uqlib pretrain synthesis_{DATASET}` makes it"
        )
    return kept, seeds


def _all_scores(kept: KeptRuns, run: str) -> np.ndarray:
    """(sets, names of JUDGED_BY, draws)."""
    return unpack_draws(kept.column(run, "scores"), kept.column(run, f"scores{AWAY}"))


def _scores(kept: KeptRuns, run: str) -> np.ndarray:
    """(sets of additions, measures, draws), the sets in the order of a binary number, the last of ADDED changing first."""
    scores = _all_scores(kept, run)
    binary = [frozenset(itertools.compress(ADDED, each)) for each in itertools.product([0, 1], repeat=len(ADDED))]
    return np.stack([_picked(scores, name) for name in SCORES], 1)[[every_set().index(added) for added in binary]]


def _picked(scores: np.ndarray, measure: str) -> np.ndarray:
    """(sets, draws) of one of SCORES: a column, or the mean of those of all other images."""
    column = SCORES[measure][0]
    return scores[:, [k for k, name in enumerate(JUDGED_BY) if name == column or name.startswith(f"{column}/")]].mean(1)


def effect(scores: xr.DataArray, factor: str) -> xr.DataArray:
    """With it less without it, in every company."""
    return scores.sel({factor: 1}, drop=True) - scores.sel({factor: 0}, drop=True)


def alone(scores: xr.DataArray, *others: str) -> xr.DataArray:
    """Where all factors that are dimensions are absent, but for these."""
    return scores.sel({name: 0 for name in FACTORS if name in scores.dims and name not in others}, drop=True)


def interaction(scores: xr.DataArray, one: str, other: str) -> xr.DataArray:
    """What one changes beside the other, less what it changes without it, as a mean over all further company."""
    return effect(effect(scores, one), other).mean([name for name in FACTORS if name not in (one, other)])


class Choice(NamedTuple):
    """A combination of methods that scores chose, and what such a choice is worth."""

    best: dict[str, int]  # over all trainings
    picked: list[dict[str, int]]  # by training, what the others chose for it
    gained: xr.DataArray  # by training and draw, what its own of these gains; `as_if_unshared` where it is an ensemble


def sharing(one: int, other: int) -> bool:
    """Whether the ensembles of two seeds have a training in common: an ensemble is of a seed and the next, in a circle."""
    return (one - other) % SEEDS in (0, 1, SEEDS - 1)


def best_elsewhere(gains: xr.DataArray, allowed: Iterable[tuple[int, ...]]) -> Choice:
    """The best combination, and what such a choice is worth: for each training it is made by others.

    Where an ensemble is allowed, these are the trainings whose ensembles share no member with that of this one. All
    trainings are judged on the same test images, so what these favour is not left out.

    Args:
        gains: of one measure, more is better, by seed; see `as_gains`.
        allowed: combinations, 0 or 1 for each of FACTORS.

    Raises:
        ValueError: if for a training no other one is left to choose.
    """
    chosen = [dict(zip(FACTORS, each, strict=True)) for each in allowed]
    stacked = xr.concat([gains.sel(each, drop=True) for each in chosen], "choice")
    whole, seeds = stacked.isel(draw=0, drop=True), [int(each) for each in stacked.training.values]
    pairs = any(each["ensemble"] for each in chosen)
    picked, parts = [], []
    for seed in seeds:
        others = [each for each in seeds if each != seed and not (pairs and sharing(each, seed))]
        if not others:
            raise ValueError(f"no training is left to choose for seed {seed}; of {seeds} all share members with it")
        pick = int(whole.sel(training=others).mean("training").argmax("choice"))
        picked.append(chosen[pick])
        parts.append(stacked.isel(choice=pick, drop=True).sel(training=[seed]))
    gained = xr.concat(parts, "training")
    if any(each["ensemble"] for each in picked):
        gained = as_if_unshared(gained)
    return Choice(chosen[int(whole.mean("training").argmax("choice"))], picked, gained)


def as_if_unshared(scores: xr.DataArray) -> xr.DataArray:
    """Scores of ensembles of which two share each training, spread as far over seeds as their mean deserves.

    The distances to the mean over seeds are multiplied by `stretch_of`; that mean stays what it is. What has no ensemble would
    be stretched for nothing, and a difference to a member of the ensemble is less sure than it might be, never too sure.

    Args:
        scores: by seed, with the dimension training.
    """
    middle = scores.mean("training")
    stretched: xr.DataArray = middle + stretch_of(scores) * (scores - middle)
    return stretched.transpose(*scores.dims)


def stretch_of(scores: xr.DataArray) -> float:
    """How much longer intervals of ensembles have to be than if no two of them shared a training.

    Neighbours in the circle of seeds have half of their members in common. If the members of an ensemble add up, the variance of
    the mean over n seeds with m pairs of neighbours is (n + m) / n of that of unrelated ensembles, and the variance
    between them comes out as 1 - m / (n (n - 1)) of what it is. This is the root of the ratio: sqrt(8 / 3) for all five.

    Args:
        scores: by seed, with the dimension training.
    """
    seeds = [int(each) for each in scores.training.values]
    n, m = len(seeds), sum(sharing(*each) for each in itertools.combinations(seeds, 2))
    return math.sqrt((n + m) * (n - 1) / (n * (n - 1) - m)) if n > 1 else 1.0


def for_intervals(scores: xr.DataArray) -> xr.DataArray:
    """Scores by combination, those with the ensemble as `as_if_unshared`: for intervals, not for a seed by itself."""
    return xr.where(scores["ensemble"] == 1, as_if_unshared(scores), scores).transpose(*scores.dims)


def square_of(pairs: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """Interactions (one, other, value) as a square in points, a row and a column a method, names in print."""
    square = (
        (100 * pairs.pivot(index="one", columns="other", values="value")).dropna(how="all").dropna(how="all", axis=1)
    )
    rows, columns = ([name for name in FACTORS if name in side] for side in (square.index, square.columns))
    return square.loc[rows, columns].rename(labels).rename(labels, axis=1)


def rises(score: str) -> bool:
    """Whether more of one of SCORES is better."""
    return MEASURES[SCORES[score][1]].higher_is_better


def as_gains(scores: xr.DataArray) -> xr.DataArray:
    """With a sign such that more is better."""
    signs = xr.DataArray(
        [1 if rises(name) else -1 for name in scores.measure.values], {"measure": scores.measure.values}
    )
    return scores * signs


def print_names() -> dict[str, str]:
    """Methods and measures in print."""
    return FACTORS | {name: words for name, (_, _, words) in SCORES.items()}


def sizes() -> dict[str, int]:
    """How many images train, validate and test, and how many other sets there are."""
    return {"images": SETTINGS[DATASET].images, "validation": VALIDATION, "tested": TESTED, "others": len(UNFAMILIAR)}


@cache
def sidekick_share() -> float:
    """Multiply-adds of the sidekick, as a share of the large network's."""
    small, large = (networks.macs(create_small(10, 0, network=name)[0], size=32) for name in (SIDEKICK, NETWORK))
    return small / large


def passes(combination: tuple[int, ...]) -> float:
    """What an image costs, in passes of the large network. A temperature and a head cost nearly nothing."""
    on = dict(zip(FACTORS, combination, strict=True))
    return 1.0 + on["ensemble"] + on["duo"] * sidekick_share()
