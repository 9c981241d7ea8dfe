"""Kept runs on rare classes and under attack, read: the error of each class, and the accuracy after each attack.

    errors = class_errors(load_asked("imbalance_cifar10"), tail_cells(), "origin", "remedy", "gamma")
    levels = total_and_minority(errors)
    accuracy = accuracies(load_asked("adversarial_cifar10"), {"PGD-20 accuracy": "pgd"})

`nth` counts the classes of CIFAR-10 from 1, in the order in which their training images grow fewer. `origin` is the start of a
training; cells keep the name `start` for something else.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Int

from uqlib.base.extras import named
from uqlib.experiments.keeping.kept_runs import KeptRuns
from uqlib.experiments.transfer.adversarial_runs import STRONG, adversarial_runs
from uqlib.experiments.transfer.asked_runs import load_asked
from uqlib.experiments.transfer.imbalance_runs import GAMMAS, imbalance_runs, tail_sizes
from uqlib.experiments.transfer.reading.read_noise import errors_so_far
from uqlib.experiments.transfer.transfers import datasets_at
from uqlib.metrics.compare import cells, together
from uqlib.store.read import load_answers

with named():
    import xarray as xr

HOW = {"all/plain": "plain", "all/attacked": "pgd", "head/attacked": "head"}  # as `hendrycks2019.TRAININGS` has them
REMEDY = {"none": "cross_entropy"}  # what is no remedy has a name in print
FEW = slice(STRONG["images"])  # the test images that the strong attack was shown


def tail_cells() -> dict[tuple[str, ...], str]:
    """What is asked for on long tails: START/METHOD/LEVEL by (origin, remedy, gamma)."""
    asked = [run.name.rpartition("/")[0] for run in imbalance_runs()]
    return {
        (start, REMEDY.get(remedy, remedy), gamma): cell for cell in asked for start, remedy, gamma in [cell.split("/")]
    }


def attack_cells() -> dict[tuple[str, ...], str]:
    """What is asked for under attack: START/METHOD/LEVEL by (origin, how), `how` a name in `hendrycks2019.TRAININGS`."""
    asked = [run.name.rpartition("/")[0] for run in adversarial_runs()]
    return {(start, HOW[how]): cell for cell in asked for start, _, how in [cell.partition("/")]}


def load_tails(scale: str = "cpu") -> KeptRuns:
    """What is kept of runs on long tails; gpu and paper read those on the whole sets."""
    return load_asked(f"imbalance_{next(iter(datasets_at(scale)))}")


def load_attacked(scale: str = "cpu") -> KeptRuns:
    """What is kept of runs under attack, likewise."""
    return load_asked(f"adversarial_{next(iter(datasets_at(scale)))}")


def tail_errors(ways: Mapping[str, str], *, draws: int = 200, scale: str = "cpu") -> xr.DataArray:
    """Test errors of some ways of training on long tails, over all classes.

    Args:
        ways: START/REMEDY by the name of a variant, such as {"smote": "scratch/smote"}.
        draws: of the test images.
        scale: gpu and paper read the runs on the whole sets.

    Returns:
        Dimensions variant, gamma (a text), training, draw; NaN where a run is not there.
    """
    runs: dict[tuple[str, ...], str] = {(k, f"{g:g}"): f"{way}/{g:g}" for k, way in ways.items() for g in GAMMAS}
    return errors_so_far(f"imbalance_{next(iter(datasets_at(scale)))}", runs, "variant", "gamma", draws=draws)


def attacked_accuracies(
    ways: Mapping[str, str], columns: Sequence[str], *, draws: int = 200, scale: str = "cpu"
) -> xr.DataArray:
    """Which share of the test images networks have right that were trained on attacked ones.

    Args:
        ways: START/METHOD by the name of a variant, such as {"head": "adversarial/head"}.
        columns: of bits, as of `accuracies`.
        draws, scale: as of `tail_errors`.

    Returns:
        Dimensions attack (the column), variant, training, draw; NaN where a run is not there.
    """
    task = f"adversarial_{next(iter(datasets_at(scale)))}"
    runs: dict[tuple[str, ...], str] = {(name,): f"{way}/attacked" for name, way in ways.items()}
    wrong = {each: errors_so_far(task, runs, "variant", draws=draws, column=each) for each in columns}
    return 1 - together(wrong, "attack")


def known_labels() -> Int[np.ndarray, " n"]:
    """The classes of CIFAR-10's test images in their order, as the store has them beside the answers of a network."""
    return np.asarray(load_answers("cifar_resnet20", "cifar10", columns=["labels"]).labels)


def class_errors(
    kept: KeptRuns,
    cells: Mapping[tuple[str, ...], str],
    *dims: str,
    labels: Int[np.ndarray, " n"] | None = None,
    draws: int = 200,
) -> xr.DataArray:
    """The test error of each class, on all its test images and on draws of them that all cells and seeds share.

    The draws of a class are its own, so that the mean over classes is that of draws with as many images of each.

    Args:
        kept: of CIFAR-10.
        cells, dims, draws: as of `KeptRuns.errors`.
        labels: of the test images; by default `known_labels`.

    Returns:
        Dimensions dims, nth (the class, from 1), training, draw; NaN where a cell or a seed is not there.

    Raises:
        FileNotFoundError: if none of the cells is there.
    """
    labels = known_labels() if labels is None else np.asarray(labels)
    parts = {
        k + 1: kept.errors(cells, *dims, draws=draws, rows=np.flatnonzero(labels == k), seed=k)
        for k in range(int(labels.max()) + 1)
    }
    return together(parts, "nth").transpose(*dims, "nth", "training", "draw")


def minority_errors(errors: xr.DataArray) -> xr.DataArray:
    """The mean error of the classes with fewer training images than the mean class, for each gamma.

    Args:
        errors: of `class_errors`, with the dimensions gamma and nth.
    """
    sizes = {gamma: tail_sizes(float(gamma)) for gamma in errors["gamma"].values.tolist()}
    rare = xr.DataArray(
        [each < each.mean() for each in sizes.values()],
        coords={"gamma": errors["gamma"], "nth": np.arange(1, 11)},
        dims=["gamma", "nth"],
    )
    return errors.where(rare).mean("nth")


def total_and_minority(errors: xr.DataArray) -> xr.DataArray:
    """The mean over all classes and that over the rare ones, as "total error" and "minority error" of a new dimension `which`."""
    return together({"total error": errors.mean("nth"), "minority error": minority_errors(errors)}, "which")


def lowest_of(errors: xr.DataArray, dim: str, names: Sequence[str]) -> xr.DataArray:
    """Of some variants the one whose mean error on all images is least, chosen anew for every entry of the other dimensions.

    It is chosen on the images that judge it, which makes it look better than it is; trainings and draws share the choice.

    Args:
        errors: with the dimensions dim, training and draw.
        dim: of the variants.
        names: of these.

    Returns:
        Without dim; NaN where one of the variants was never run.
    """
    some = errors.sel({dim: list(names)})
    mean = some.isel(draw=0, drop=True).mean("training")
    best = mean.fillna(np.inf).argmin(dim)
    return some.isel({dim: best}, drop=True).drop_vars(dim, errors="ignore").where(mean.notnull().all(dim))


def seeds_text(found: xr.DataArray) -> str:
    """How many trainings the cells of an array rest on, such as "3", or "1 to 3" where some are not there yet; "no" without any."""
    counts = cells(found)["seeds"].tolist() if found.notnull().any() else []
    return " to ".join(map(str, sorted({min(counts), max(counts)}))) if counts else "no"


def accuracies(kept: KeptRuns, columns: Mapping[str, str], *, few: bool = False, draws: int = 200) -> xr.DataArray:
    """Which share of the test images is right after attacks, on draws of the images that all attacks and networks share.

    Args:
        kept: of adversarial_cifar10.
        columns: of bits, by name: correct (no attack), pgd, released, strong.
        few: on the images that the strong attack was shown, and not on all that were attacked.
        draws: of these images.

    Returns:
        Dimensions judged (the name), origin, how, training, draw; NaN where a run is not there.
    """
    rows = FEW if few else slice(None)
    asked = attack_cells()
    parts = {
        name: kept.errors(asked, "origin", "how", draws=draws, column=column, rows=rows)
        for name, column in columns.items()
    }
    return 1 - together(parts, "judged")
