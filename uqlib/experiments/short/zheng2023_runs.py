"""Learning curves of Zheng et al. 2023 (arXiv:2302.02334): heads on features of networks, and on Gaussians of many dimensions."""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uqlib.base.arrays import as_tensor
from uqlib.base.extras import named
from uqlib.calibrate import fit_temperature, scale_logits
from uqlib.experiments.keeping.kept_runs import Found, KeptRun, load_made
from uqlib.experiments.short.frozen_features import ENCODERS, SEEN, encoder_features
from uqlib.experiments.uncertainties.upstream_features import SIDE
from uqlib.heads import HEADS, learning_curve, samples_to
from uqlib.heads.learning_curves import LOGISTIC
from uqlib.metrics import nll
from uqlib.metrics.compare import over_trainings, together
from uqlib.metrics.resampling.repetitions import as_trainings
from uqlib.papers.zheng2023 import bayes_error, gaussian_design

with named():
    import pandas as pd
    import xarray as xr

COMPARED = ("logistic regression", "naive Bayes", "nearest class mean", "shrinkage LDA")
MEASURED = ("error", "nll", "nll_scaled")
SIZES = {"cifar10": [2, 5, 10, 20, 50, 100, 200, 400], "cifar100": [2, 5, 10, 20, 50]}  # examples a class
DRAWS = 5
QUANTITIES = {  # of the ledger, by what the notebook calls them
    "faster": "log_samples_to_own_end_nb_over_lr",
    "best": "error_at_best_size_nb_minus_lr",
    "five": "error_at_5_nb_minus_lr",
    "second": "error_at_last_nb_minus_lr",
    "few": "error_at_few_nb_minus_lr",
    "mean": "error_at_5_ncm_minus_nb",
    "lda": "error_at_last_lda_minus_nb",
    "nll": "nll_at_10_nb_minus_lr",
    "temperature": "nll_scaled_at_10_nb_minus_lr",
}
SIMULATED: dict[str, Any] = {
    "classes": [2, 3],
    "dims": [50, 100, 200, 400],
    "heads": ["logistic, raw", "logistic, standardised", "naive Bayes"],
    "growth": 1.25,  # of the samples, from two a class
    "excess": 0.01,  # above the error of Bayes of the design
    "bayes": "of each number of classes and dimension",
    "most": 30,  # samples a dimension
    "test": 4000,
}


def errors_and_nll(logits: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """Error, and NLL before and after one temperature, which the even rows fit and the odd ones judge."""
    fit, judge = slice(0, None, 2), slice(1, None, 2)
    scaled = scale_logits(logits[judge], fit_temperature(logits[fit], labels[fit]).temperature)
    error = (logits.argmax(-1) != labels).double().mean().item()
    return error, nll(logits[judge], labels[judge]), nll(scaled, labels[judge])


def features_run(encoder: str, dataset: str, draw: int, device: str = "cpu") -> Found:
    """What every head makes of one draw, at every size."""
    features, labels = encoder_features(encoder, f"{dataset}_train")
    asked, truth = encoder_features(encoder, f"{dataset}_test")
    curve = learning_curve(
        features, labels, asked, truth, {name: HEADS[name] for name in COMPARED}, SIZES[dataset], draws=1, seed=draw,
        measure=errors_and_nll,
    )  # fmt: skip
    return Found({"curve": curve[:, :, 0].astype(np.float32)}, {"tested": len(truth)})


def samples_needed(head: str, classes: int, dim: int, seed: int) -> float:
    """The least number of examples, on a grid, with which a head errs at most `excess` more than Bayes; infinity if none."""
    with named():
        from sklearn.linear_model import LogisticRegression
    level = SIMULATED["excess"] + bayes_error(classes, dim)
    pool, labels = gaussian_design(classes, dim, SIMULATED["most"] * dim, seed=2 * seed)
    asked, truth = gaussian_design(classes, dim, SIMULATED["test"], seed=2 * seed + 1)
    size = 2.0 * classes
    while size <= len(pool):
        x, y, z = pool[: int(size)], labels[: int(size)], asked
        if head == "naive Bayes":
            drawn = torch.from_numpy(x), torch.from_numpy(y)
            preds = as_tensor(HEADS[head](*drawn, torch.from_numpy(z), classes)).argmax(-1).numpy()
        else:
            scale = x.std(0) if head == "logistic, standardised" else 1.0
            preds = LogisticRegression(C=1.0, max_iter=1000).fit(x / scale, y).predict(z / scale)
        if (preds != truth).mean() <= level:
            return float(int(size))
        size = max(size * SIMULATED["growth"], size + 1)
    return math.inf


def simulation_run(classes: int, repeat: int, device: str = "cpu") -> Found:
    """Samples needed by every head in every dimension."""
    needed = [[samples_needed(head, classes, d, repeat) for d in SIMULATED["dims"]] for head in SIMULATED["heads"]]
    return Found({"needed": np.array(needed, np.float32)}, {"tested": SIMULATED["test"]})


def zheng2023_runs(scale: str = "cpu") -> Iterator[KeptRun]:
    """A run for each encoder, data set and draw, and for each number of classes and repeat of the simulation."""
    for draw in range(DRAWS):
        for classes in SIMULATED["classes"]:
            make = partial(simulation_run, classes, draw)
            yield KeptRun("zheng2023", f"simulation/{classes}/{draw}", SIMULATED, make, value=2.0, folder="short")
        for dataset, sizes in SIZES.items():
            seen = {name: rows for name, rows in SEEN.items() if name.startswith(f"{dataset}_")}
            settings = {
                "heads": COMPARED,
                "logistic": LOGISTIC,
                "sizes": sizes,
                "seen": seen,
                "side": SIDE,
                "measured": MEASURED,
            }
            for encoder in ENCODERS:
                make = partial(features_run, encoder, dataset, draw)
                yield KeptRun("zheng2023", f"{encoder}/{dataset}/{draw}", settings, make, folder="short")


def read_curves(scale: str = "cpu") -> dict[str, xr.DataArray]:
    """What is kept of each data set: encoder, training (the draw of the examples), head, size (a class), measure.

    Raises:
        FileNotFoundError: if nothing is; the message says what makes it.
    """
    kept, heads = load_made(zheng2023_runs(scale)), {"head": list(COMPARED)}
    return {
        dataset: kept.table(
            {printed: f"{name}/{dataset}" for name, printed in ENCODERS.items()}, "encoder",
            column="curve", names={**heads, "size": sizes, "measure": list(MEASURED)},
        )
        for dataset, sizes in SIZES.items()
    }  # fmt: skip


def read_needed(scale: str = "cpu") -> xr.DataArray:
    """Samples that each head needs in the simulation: classes, training (the repeat), head, dim."""
    cells = {each: f"simulation/{each}" for each in SIMULATED["classes"]}
    names = {"head": SIMULATED["heads"], "dim": SIMULATED["dims"]}
    return load_made(zheng2023_runs(scale)).table(cells, "classes", column="needed", names=names)


def at_size(
    found: Mapping[str, xr.DataArray], size: int | None = None, measure: str = "error"
) -> dict[str, xr.DataArray]:
    """A measure at so many images a class, or at the most that there are, by data set."""
    picked = {name: each.sel(measure=measure) for name, each in found.items()}
    return {name: each.isel(size=-1) if size is None else each.sel(size=size) for name, each in picked.items()}


def to_own_end(error: xr.DataArray) -> xr.DataArray:
    """Images a class, log10, after which each head is within a point of its own error with the most images."""
    levels = error.isel(size=-1, drop=True) + 0.01
    above = (error - levels).transpose(*levels.dims, "size")
    needed = samples_to(above.values, error["size"].values, level=0)
    return levels.copy(data=np.log10(needed))


def leads(errors: Mapping[str, xr.DataArray]) -> pd.DataFrame:
    """In how many draws naive Bayes errs less than logistic regression, by data set, encoder and images a class.

    The lead need not be in one piece, so every size is counted. NaN where a data set does not have the size.
    """
    frames = {}
    for name, error in errors.items():
        ahead = error.sel(head="naive Bayes", drop=True) < error.sel(head="logistic regression", drop=True)
        frames[name] = ahead.sum("training").transpose("encoder", "size").to_pandas()
    counted = pd.concat(frames).sort_index(axis=1).rename(columns=str)
    rows = pd.Index([f"{name}, {encoder}" for name, encoder in counted.index], name="data set, encoder")
    return counted.set_axis(rows).rename_axis(columns=None)


def at_best_size(less: xr.DataArray) -> xr.DataArray:
    """A difference of errors at the size, below the last, at which it is lowest over the other draws.

    A size that is chosen by the draws that it is judged on looks lower than it is.

    Args:
        less: with the dimensions training, two or more of them, and size.
    """
    some = less.isel(size=slice(None, -1))
    others = (some.sum("training") - some) / (some.sizes["training"] - 1)
    return some.isel(size=others.argmin("size"))


def over_networks(found: Mapping[str, xr.DataArray]) -> pd.DataFrame:
    """Cells of numbers by data set, each of encoder and training: means of the draws, with intervals over other encoders."""
    each = {name: as_trainings(one.mean("training"), "encoder") for name, one in found.items()}
    plain = {name: one.drop_vars(set(one.coords) - set(one.dims)) for name, one in each.items()}
    return over_trainings(together(plain, "dataset"), "networks").drop(columns="seeds")
