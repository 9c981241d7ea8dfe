"""Learning Sample Difficulty: the losses and their strengths in Cui et al. 2023 (arXiv:2304.10127), and statistics of its figures."""

from collections.abc import Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uqlib.base.extras import named
from uqlib.base.options import check_fraction, check_whole
from uqlib.calibrate import cross_platt, platt_scale
from uqlib.metrics import MEASURES, Measure, ece, selective_accuracy_at_coverage
from uqlib.metrics.compare import compare
from uqlib.papers import SCORES as SCORES

with named():
    import xarray as xr
    from scipy import stats

NAMES = {  # of the losses, in print; the last is ours, the entropy bonus at the mean strength of the proposed loss
    "cross_entropy": "cross entropy",
    "label_smoothing": "label smoothing",
    "focal": "focal",
    "l1_norm": "L1 norm",
    "entropy": "entropy",
    "poly": "PolyLoss",
    "ranking": "ranking",
    "difficulty": "difficulty",
    "entropy_matched": "entropy, matched",
}

# What the losses had in Cui et al. 2023, by data set; `loss("focal", **LOSS_OPTIONS["cifar10"]["focal"])` is their baseline,
# where focal() is that of Lin et al. The trainings of data/trainings are held to it.
# Alpha: Cui et al. 2023, for ImageNet in table 5; their ER and Poly on CIFAR are not stated. Label smoothing, focal and
# L1: the code of Wang, Feng & Zhang 2021 ("Rethinking Calibration of Deep Neural Networks"), which the paper follows.
# Ranking: the code of Moon et al. 2020.
LOSS_OPTIONS: dict[str, dict[str, dict[str, float | bool]]] = {
    "cifar10": {
        "label_smoothing": {"epsilon": 0.05},
        "focal": {"gamma": 3.0, "detached": True},
        "l1_norm": {"strength": 0.05},
        "ranking": {"strength": 1.0},
        "difficulty": {"alpha": 0.3},
    },
    "cifar100": {
        "label_smoothing": {"epsilon": 0.09},
        "focal": {"gamma": 5.0, "detached": True},
        "l1_norm": {"strength": 0.01},
        "ranking": {"strength": 1.0},
        "difficulty": {"alpha": 0.3},
    },
    "imagenet": {"entropy": {"alpha": 0.1}, "difficulty": {"alpha": 0.2}},
}


def effective_strength(trainings: Sequence[Any]) -> float:
    """Alpha times the mean weight, of trainings as `load_trainings` reads them: how much entropy is rewarded in all."""
    noted = [each.about["settings"]["options"] for each in trainings]
    return sum(each.get("alpha", 0) * each.get("mean_weight", 1) for each in noted) / len(noted)


def constant_of_equal_strength(
    scores: xr.DataArray, strength: Mapping[str, float], constant: Sequence[str]
) -> xr.DataArray:
    """What constant regularisation of each variant's effective strength scores, linear between the trained strengths and beyond.

    Args:
        scores: of `metrics.compare`, with a dimension variant.
        strength: effective strength by variant.
        constant: the variants of constant regularisation, at least two; cross entropy is that of strength 0.
    """
    own = scores.coords["variant"]
    wanted = xr.DataArray([strength[name] for name in own.values], coords={"variant": own})
    line = scores.sel(variant=list(constant)).assign_coords(variant=[strength[name] for name in constant])
    line = line.rename(variant="strength")
    return line.interp(strength=wanted, kwargs={"fill_value": "extrapolate"}).drop_vars("strength")


def rivals_of_equal_strength(study: Any, labels: str = "clean") -> dict[tuple[str, float], dict[str, str]]:
    """The variants of a study that reward as much entropy in the mean and differ in who gets it, by normaliser and strength.

    Args:
        study: of data/trainings.
        labels: that trained them.

    Returns:
        The names of variants by role, "difficulty" for the hard images; "permuted", the same weights for images at random; "constant", all
        alike; and "none", cross entropy.

    Raises:
        LookupError: if a rival is missing.
    """
    own = [each for each in study.variants.values() if each.labels == labels and each.training == study.training]
    found = {}
    for each in own:
        if each.options.get("alpha") == "scaled" and not each.weights.get("permuted"):
            wanted = {
                "difficulty": ("difficulty", dict(each.options), dict(each.weights)),
                "permuted": ("difficulty", dict(each.options), {**each.weights, "permuted": True}),
                "constant": ("entropy", {"alpha": each.options["to"]}, None),
                "none": ("cross_entropy", {}, None),
            }
            found[each.weights["normaliser"], each.options["to"]] = {
                role: _like(own, *settings) for role, settings in wanted.items()
            }
    return found


def _like(variants: Sequence[Any], loss: str, options: dict[str, Any], weights: dict[str, Any] | None) -> str:
    for each in variants:
        if (each.loss, dict(each.options)) == (loss, options) and weights in (None, dict(each.weights)):
            return str(each.name)
    raise LookupError(f"no variant has the loss {loss} with {options} and weights {weights}; list it in data/trainings")


def logged(trained: Mapping[str, Sequence[Any]], places: Mapping[str, tuple[str, str]], *, draws: int) -> xr.DataArray:
    """Measures that each training noted of itself, since the logits that they take are not kept, like those of `compare`.

    Args:
        trained: of `load_trainings`.
        places: by measure, where it stands in what is known about a training, such as ("test", "nll").
        draws: of the array to be joined; every draw has the same number, so an interval is for other trainings on these
            very images.
    """
    longest = max(map(len, trained.values()))
    table = np.full((len(trained), len(places), longest, 1 + draws), np.nan)
    for i, runs in enumerate(trained.values()):
        for k, run in enumerate(runs):
            table[i, :, k] = np.array([[run.about[part][name]] for part, name in places.values()])
    names = {"variant": list(trained), "measure": list(places), "training": range(longest), "draw": range(1 + draws)}
    return xr.DataArray(table, coords=names)


def covered(nets: Mapping[str, Mapping[str, Sequence[Any]]]) -> str:
    """What an interval of these trainings, by data set and variant, is for, in words: one training says nothing of others."""
    once = [title for title, own in nets.items() if min(map(len, own.values())) == 1]
    if len(once) == len(nets):
        return "other test images alone, since each loss was trained once"
    alone = f"; of {' and '.join(once)}, trained once, for other test images alone" if once else ""
    return f"other trainings and other test images{alone}"


TOO_SURE = MEASURES["ece"]._replace(  # above 0 for a bold network
    statistic=lambda sure, right: sure.mean() - right.double().mean(), name="too sure"
)
RECALIBRATED = MEASURES["ece_mass"]._replace(  # by slope and shift, of either half of the examples fitted on the other
    arrays=lambda run: (cross_platt(run.confidence, run.correct), run.correct), name="ECE, recalibrated"
)


def ece_recalibrated(fit_size: int) -> Measure:
    """ECE (equal mass) of all but the first examples after Platt scaling on these first ones; in a bootstrap they are drawn too."""
    k = check_whole(fit_size, "fit_size", least=2)

    def statistic(sure: Float[Tensor, " n"], right: Bool[Tensor, " n"]) -> float:
        return ece(platt_scale(sure[:k], right[:k], sure[k:]), right[k:], by="mass")

    return Measure(statistic, lambda run: (run.confidence, run.correct), False, f"ECE, recalibrated on {k}")


def accuracy_left(rejected: float) -> Measure:
    """Accuracy of the rest when a share of the test images is rejected, those whose prediction has the highest entropy.

    Args:
        rejected: in [0, 1).

    Source:
        Cui et al. 2023 (arXiv:2304.10127), figure 4.
    """
    kept = partial(selective_accuracy_at_coverage, coverage=1 - check_fraction(rejected, "rejected", within="[0, 1)"))
    return Measure(kept, lambda run: (-run["entropy"], run.correct), True, f"accuracy, {rejected:.0%} rejected")


def _median_of_errors(values: Float[Tensor, " n"], correct: Bool[Tensor, " n"]) -> float:
    return values[~correct].median().item()


OF_ERRORS = {  # of trainings, medians over the images that each classified wrongly: Cui et al. 2023, figure 11
    "entropy": Measure(_median_of_errors, lambda run: (run["entropy"], run.correct), True, "entropy of the errors"),
    "confidence": Measure(
        _median_of_errors, lambda run: (run.confidence, run.correct), False, "confidence in the errors"
    ),
}


def error_by_group(score: Float[Tensor, " n"], wrong: Float[Tensor, "k n"], groups: int) -> Float[Tensor, "k groups"]:
    """Error rate of each classifier in groups of equal size, from the hardest images to the easiest.

    Args:
        score: higher = harder; ties stay in the order of the rows.
        wrong: 1 where a classifier errs, a row a classifier.
        groups: how many; the first are an image larger where n does not divide.

    Source:
        Cui et al. 2023 (arXiv:2304.10127), figures 2, 6 and 7.
    """
    order = score.argsort(descending=True, stable=True)
    return torch.stack([part.mean(-1) for part in wrong[:, order].tensor_split(groups, -1)], -1)


def agreement(passes: Float[Tensor, "k n"]) -> float:
    """Mean over the pairs of passes of their rank correlation, of the same images in the same order."""
    table = torch.corrcoef(torch.tensor(stats.rankdata(passes, axis=-1)))
    return table[tuple(torch.triu_indices(len(table), len(table), 1))].mean().item()


def extremes(most: int) -> dict[str, Measure]:
    """Mean of values over so many of the easiest and of the hardest examples, by RMD and by MD; of (rmd, md, values)."""

    def among(places: slice, by: int) -> Measure:
        return Measure(
            lambda hard, values: values[hard.argsort(stable=True)[places]].mean(), itemgetter(by, 2), False, ""
        )

    places = {"easiest": slice(most), "hardest": slice(-most, None)}
    return {f"{part}{name}": among(rows, by) for by, name in enumerate(("", " by MD")) for part, rows in places.items()}


def compare_by_class(
    arrays: Mapping[str, tuple[Tensor, ...]],
    labels: Tensor,
    classes: Sequence[str],
    measures: Mapping[str, Measure],
    **options: Any,
) -> xr.DataArray:
    """`metrics.compare` for the examples of each class by themselves, with a dimension of the classes.

    Args:
        arrays: by variant what the measures take, each (n,).
        labels: (n,), of which the k-th of `classes` is k.
        measures, options: as of `compare`.
    """
    rows = [labels == k for k in range(len(classes))]
    parts = [
        compare({name: [tuple(x[own] for x in each)] for name, each in arrays.items()}, measures, **options)
        for own in rows
    ]
    return xr.concat(parts, "class").assign_coords({"class": list(classes)})


def easiest_and_hardest(
    score: Mapping[str, Float[Tensor, " n"]],
    labels: Int[np.ndarray, " n"],
    classes: Sequence[str],
    shown: Sequence[str],
    most: int = 4,
) -> dict[str, list[int]]:
    """Rows of so many of the easiest, then of the hardest examples of some classes, by each score, hardest first.

    Args:
        score: by name, higher = harder.
        labels: numbers of the classes.
        classes: names of all; `shown` of those that are asked for.

    Source:
        Cui et al. 2023 (arXiv:2304.10127), figures 1a, 5, 8 and 9.
    """
    rows = {}
    for name in shown:
        own = torch.from_numpy((labels == classes.index(name)).nonzero()[0])
        for by, values in score.items():
            order = own[values[own].argsort(stable=True)].tolist()
            rows[f"{name}, {by.upper()}"] = [*order[:most], *order[: -most - 1 : -1]]
    return rows


def hardest_less_all(most: int) -> Measure:
    """Mean of values over so many of the hardest examples less that over all; of (difficulty, values)."""
    return Measure(lambda hard, values: values[hard.topk(most).indices].mean() - values.mean(), tuple, False, "")


def resampled_medians(
    values: Float[Tensor, "... n"], *, draws: int, generator: torch.Generator
) -> Float[Tensor, "..."]:
    """Medians over the last axis, first of all examples, then of bootstrap draws of them, which the other axes share."""
    n = values.shape[-1]
    rows = [torch.arange(n), *torch.randint(n, (draws, n), generator=generator)]
    return torch.stack([values[..., row].median(-1).values for row in rows])
