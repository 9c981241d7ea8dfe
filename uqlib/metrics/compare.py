"""Comparisons with names: what several methods scored, on all examples and on paired draws of them, as a labelled array.

    scores = compare({"base": one, "ours": other}, ["accuracy", "aurc"], over="split", draws=100)
    gain = scores - scores.sel(variant="base")            # paired: the same splits, the same draws
    cells(gain)                                           # a data frame: variant, measure, value, low, high, ...

Dimensions: `variant` (the method), `measure`, the unit that is repeated (`split` or `training`), and `draw`, of which entry 0 is
all examples and the others are bootstrap draws. So a paired comparison is a subtraction, and a mean over pairs of networks a
mean over a dimension. The name of the unit says what an interval is about: `split`, other examples and other splits of them;
`training`, other trainings and other examples; neither, other examples. No dimension may be called `method`: that is an
argument of xarray's `sel`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from uqlib.base.arrays import Column
from uqlib.base.extras import named
from uqlib.base.options import check_choice, check_fraction, check_whole
from uqlib.metrics.outcomes import Measure, measure
from uqlib.metrics.resampling import bootstrap
from uqlib.metrics.resampling.bootstrap import Interval

with named():
    import pandas as pd
    import xarray as xr
    from scipy import stats

FEW = (3, 8)  # units of which all orders are looked at
MANY = 40  # draws, whose own number is no longer felt
UNITS = ("split", "training")  # what is repeated; draws are new in every split, the same in every training


def compare(
    outcomes: Mapping[Any, Sequence[Any]],
    measures: Sequence[str] | Mapping[Any, Measure | str],
    *,
    over: str,
    draws: int,
    seed: int | torch.Generator = 0,
    groups: int = 1,
    stratify: Column | None = None,
) -> xr.DataArray:
    """Every measure of every variant, on all examples and on bootstrap draws that all of them share.

    In a split k the draws depend on `seed + k` and the number of examples alone, in a training on the seed alone. So whatever
    is computed from such arrays, entry by entry, is paired. Time as `bootstrap.resample_together`.

    Args:
        outcomes: by variant, one a repetition: an `Outcome`, or anything that has what the measures ask for, such as
            confidence and correct. Variants of fewer repetitions are filled up with NaN.
        measures: names in MEASURES; or by name of your own, one of those names or a Measure.
        over: the unit that is repeated, in UNITS.
        draws: of each repetition; 0 for the values alone.
        seed: of the draws; or a generator that goes on from split to split and call to call, so that no two calls share draws.
        groups: so many consecutive examples are drawn as one, such as the corrupted versions of one image.
        stratify: as in `metrics.interval`, for units that share their examples.

    Returns:
        Float64 of the dimensions variant, measure, `over`, draw.

    Raises:
        ValueError: if there is no variant or repetition, a measure or the unit is unknown, or the examples do not divide into
            groups.
    """
    check_choice(over, UNITS, "unit to repeat")
    if not outcomes or not all(len(each) for each in outcomes.values()):
        raise ValueError(
            f"outcomes must have a variant, and each of them a repetition; they are {dict(outcomes)!r:.80}"
        )
    chosen = measures if isinstance(measures, Mapping) else {name: name for name in measures}
    asked = {name: each if isinstance(each, Measure) else measure(each) for name, each in chosen.items()}
    draws, longest = check_whole(draws, "draws", least=0), max(map(len, outcomes.values()))
    table = np.full((len(outcomes), len(asked), longest, 1 + draws), np.nan)
    jobs: dict[int, list[tuple[tuple[int, int, int], Measure, tuple[Any, ...]]]] = {}  # by whose draws they share
    for i, runs in enumerate(outcomes.values()):
        for k, run in enumerate(runs):
            own = jobs.setdefault(k * (over == "split"), [])
            own += [((i, j, k), each, each.arrays(run)) for j, each in enumerate(asked.values())]
    for start, some in jobs.items():
        for place, each, arrays in some:
            if len(arrays[0]) % groups:
                raise ValueError(f"{len(arrays[0])} examples do not divide into groups of {groups}")
            table[place][0] = float(each.statistic(*arrays))
        if draws:
            drawn = bootstrap.resample_together(
                [(each.statistic, arrays) for _, each, arrays in some],
                draws=draws,
                generator=seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed + start),
                stratify=stratify,
                groups=groups,
            )
            for (place, _, _), samples in zip(some, drawn, strict=True):
                table[place][1:] = samples
    names = {"variant": list(outcomes), "measure": list(asked), over: range(longest), "draw": range(1 + draws)}
    return xr.DataArray(table, coords=names)


def together(arrays: Mapping[Any, xr.DataArray], dim: str, *more: str) -> xr.DataArray:
    """Arrays of `compare` by key as one, with a dimension of the keys; what one of them lacks is NaN there.

    Args:
        arrays: with other coordinates that differ, such as the number of examples, too.
        dim: its name; of keys that are tuples, that of their first part.
        more: of the other parts.
    """
    if more:
        parts: dict[Any, dict[Any, xr.DataArray]] = {}
        for (key, *rest), each in arrays.items():
            parts.setdefault(key, {})[tuple(rest) if len(more) > 1 else rest[0]] = each
        arrays = {key: together(part, *more) for key, part in parts.items()}
    labels = {
        name: list(dict.fromkeys(label for each in arrays.values() for label in each[name].values))
        for name in next(iter(arrays.values())).dims
    }
    keys = xr.DataArray(list(arrays), dims=dim, name=dim)
    whole = xr.concat(list(arrays.values()), keys, coords="different", compat="equals", join="outer")
    return whole.reindex(labels)  # a union of labels would be sorted


def contrasts(
    outcomes: Mapping[Any, Sequence[Any]], asked: Iterable[tuple[str, tuple[Any, Any]]], *, bare: Sequence[str] = (), draws: int,
    **options: Any,
) -> pd.DataFrame:  # fmt: skip
    """Differences of two variants in one measure, each a comparison by itself, as a data frame; see `cells`.

    Args:
        outcomes, draws, options: as in `compare`.
        asked: measure, and the two variants, the first less the second.
        bare: measures of which the values alone are asked.

    Returns:
        The columns measure, first, second, what `cells` has, and `start`: what the second variant scored.
    """
    found = []
    for name, (first, second) in asked:
        both = {variant: outcomes[variant] for variant in (first, second)}
        scores = compare(both, [name], draws=0 if name in bare else draws, **options)
        names = {"first": first, "second": second, "start": scores[1, 0, :, 0].mean().item()}
        found.append(cells((scores[0] - scores[1]).assign_coords(names)))
    return pd.concat(found, ignore_index=True)


def in_percent(frame: pd.DataFrame) -> pd.DataFrame:
    """Differences of `contrasts` and their ends in percent of the start, which is taken as it is."""
    shares = frame[["value", "low", "high"]].astype(float).mul(100 / frame["start"], axis=0)
    return frame.assign(**dict(shares.items()))


def minus_others(scores: xr.DataArray, variant: str) -> xr.DataArray:
    """One variant of an array of `compare` less each of the others, by the name of the other."""
    return scores.sel(variant=variant) - scores.drop_sel(variant=variant)


def intervals(array: xr.DataArray, *, level: float = 0.95) -> xr.DataArray:
    """The interval of every cell of an array of `compare`, or of what was computed from such.

    Args:
        array: with the dimension draw, and with one of UNITS or none. Repetitions that are NaN do not count; a cell without
            any is NaN. A coordinate `covers` says what else than trainings its trainings are; see `metrics.repetitions`.
        level: probability of the interval, in (0, 1).

    Returns:
        The other dimensions, and `end`: value, low, high. Coordinates: `splits` or `seeds`, how many repetitions there were;
        `covers`, what the interval is about. Of one training that is the test images alone.

    Raises:
        ValueError: if there is no dimension draw, or both units.
    """
    level = check_fraction(level, "level", within="(0, 1)")
    units = [name for name in UNITS if name in array.dims]
    if "draw" not in array.dims or len(units) > 1:
        raise ValueError(f"an interval needs the dimension draw, and one of {UNITS} at most; these are {array.dims}")
    unit = units[0] if units else "split"
    table = (array if units else array.expand_dims("split")).transpose(..., unit, "draw")
    summarise = interval_over_trainings if unit == "training" else interval_over_splits
    flat = torch.from_numpy(np.ascontiguousarray(table.values, dtype=float)).view(-1, *table.shape[-2:])
    ends, counts = [], []
    for cell in flat:
        there = cell[~cell[:, 0].isnan()]
        ends.append(summarise(there, level=level)[:3] if len(there) else (math.nan,) * 3)
        counts.append(len(there))
    outer = table.isel({unit: 0, "draw": 0}, drop=True)
    others = {"split": "examples, splits", "training": "examples, trainings"}.get(units[0] if units else "", "examples")
    told = outer.coords.get("covers", others) if unit == "training" else others
    each = xr.full_like(outer, "", dtype=object) + told
    covers = [
        units_of if unit == "split" or count > 1 else "examples"
        for units_of, count in zip(each.transpose(*outer.dims).values.ravel(), counts, strict=True)
    ]
    names = {"covers": covers} | {{"split": "splits", "training": "seeds"}[unit]: counts for unit in units}
    found = xr.concat(
        [outer.copy(data=np.reshape(part, outer.shape)) for part in np.reshape(ends, (-1, 3)).T], dim="end"
    )
    found = found.assign_coords(
        {"end": ["value", "low", "high"]}
        | {k: (outer.dims, np.reshape(each, outer.shape)) for k, each in names.items()}
    )
    return found.transpose(..., "end").assign_attrs(level=level)


def cells(found: Any, *names: str, level: float = 0.95) -> pd.DataFrame:
    """Results as a data frame: a row a cell, its names, then value, low, high, level and what else is known of it.

    Args:
        found: an array of `compare` or computed from such; of `intervals`; or such arrays, intervals or numbers by key, a name
            or a tuple of names.
        names: what the keys are of, where they are keys.
        level: of the intervals that are computed.

    Raises:
        ValueError: if the keys have another number of names.
    """
    if isinstance(found, pd.DataFrame):
        return found
    if isinstance(found, Mapping):
        frames = []
        for key, each in found.items():
            parts = key if isinstance(key, tuple) else (key,)
            if len(parts) != len(names):
                raise ValueError(f"{key!r} has {len(parts)} names; those of the cells are {', '.join(names) or 'none'}")
            ends = each._asdict() if isinstance(each, Interval) else {"value": each}
            about = {"covers": "examples"} if ends.get("draws") else {}
            own = (
                cells(each, level=level)
                if isinstance(each, xr.DataArray)
                else pd.DataFrame([{k: float(v) for k, v in ends.items() if k != "draws"} | about])
            )
            frames.append(pd.DataFrame([dict(zip(names, parts, strict=True))]).merge(own, how="cross"))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=[*names, "value"])
    ended = found if "end" in found.dims else intervals(found, level=level)
    table = ended.rename("cell").to_dataset("end").assign(level=ended.attrs.get("level", level))
    frame = (
        table.expand_dims("all").to_dataframe().reset_index() if not table.sizes else table.to_dataframe().reset_index()
    )
    kept = frame[frame["value"].notna()].drop(columns="all", errors="ignore")
    told = [name for name in ("level", "covers") if name in kept]
    kept[told] = kept[told].where(kept["low"].notna())  # a value alone has none
    return kept.where(kept.notna(), None).infer_objects().reset_index(drop=True)


def over_trainings(found: xr.DataArray, covers: str = "trainings") -> pd.DataFrame:
    """Cells of numbers of which there are no draws of examples: intervals over other trainings, none of a single one.

    Args:
        found: with the dimension training, and with one draw or without that dimension.
        covers: what the entries of that dimension are, where they are other units, such as networks.
    """
    frame = cells(found if "draw" in found.dims else found.expand_dims("draw"))
    alone = frame["seeds"] < 2
    frame = frame.assign(covers=covers).astype({name: object for name in ("low", "high", "level", "covers")})
    frame.loc[alone, ["low", "high", "level", "covers"]] = None
    return frame


def rank_correlation(one: xr.DataArray, other: xr.DataArray, dim: str) -> xr.DataArray:
    """Spearman's correlation over one dimension, for every entry of the others; ties share their mean rank."""
    last: dict[str, Any] = {"input_core_dims": [[dim]], "output_core_dims": [[dim]], "kwargs": {"axis": -1}}
    first, second = (xr.apply_ufunc(stats.rankdata, each, **last) for each in (one, other))
    found: xr.DataArray = xr.corr(first, second, dim)
    return found


def correlation_of_few(one: Column, other: Column, *, level: float = 0.95) -> Interval:
    """Spearman's correlation of a few units, such as networks, with an interval that excludes 0 where a permutation test does.

    To either side it reaches as far as the correlation does by chance: the quantile of its size over all orders of one column.
    A bootstrap of so few would be certain of every perfect order, and of three units one order in six is perfect.

    Args:
        one, other: a number a unit, of three to eight units.
        level: probability of the interval, in (0, 1).

    Raises:
        ValueError: if there are fewer or more units, the lengths differ, or a column is constant.
    """
    level, (x, y) = check_fraction(level, "level", within="(0, 1)"), (np.asarray(part, float) for part in (one, other))
    if x.shape != y.shape or x.ndim != 1 or not FEW[0] <= len(x) <= FEW[1]:
        raise ValueError(
            f"columns must be of one length, {FEW[0]} to {FEW[1]}; they have shapes {x.shape} and {y.shape}"
        )
    ranks = [stats.rankdata(part) for part in (x, y)]
    if any((part == part[0]).all() for part in ranks):
        raise ValueError("a column is constant, and has no order to compare")
    first, second = ((part - part.mean()) / part.std() for part in ranks)
    orders = second[list(permutations(range(len(x))))]
    chance = np.abs(orders @ first) / len(x)
    reach = float(np.quantile(chance.round(12), level, method="inverted_cdf"))
    value = float(first @ second) / len(x)
    return Interval(value, max(-1.0, value - reach), min(1.0, value + reach), level, len(orders))


def spread_over_errors(
    estimates: Float[Tensor, "k m"], errors: Float[Tensor, "k m"], *, drawn: float = 0.0
) -> list[Interval]:
    """How far m estimates spread over k samples, beside the standard errors that they report: 1 if these are right.

    Samples without an error, as at a bound, do not count. The interval is that of normal estimates, whose variance is
    chi-squared with as many degrees of freedom as there are samples, less one.

    Args:
        drawn: share of all examples in a sample; samples without replacement spread less, by sqrt(1 - drawn).
    """
    known = errors.isfinite().all(1)
    ratio = estimates[known].std(0) / errors[known].square().mean(0).sqrt() / math.sqrt(1 - drawn)
    free = int(known.sum()) - 1
    low, high = (math.sqrt(free / stats.chi2.ppf(p, free)) for p in (0.975, 0.025))
    return [Interval(each, low * each, high * each, 0.95, free + 1) for each in ratio.tolist()]


def interval_over_splits(samples: Float[Tensor, "s columns"], *, level: float = 0.95) -> Interval:
    """Mean over the splits of column 0, and percentiles of all draws, the other columns; see `bootstrap.pool`."""
    if samples.shape[1] == 1:
        return Interval(sum(samples[:, 0].tolist()) / len(samples), math.nan, math.nan, level, 0)
    return bootstrap.pool(samples[:, 0].tolist(), list(samples[:, 1:]), level=level)


def interval_over_trainings(samples: Float[Tensor, "s columns"], *, level: float = 0.95) -> Interval:
    """Mean over the trainings, with an interval for other trainings on other test images.

    The variance of the mean has two parts: that between trainings, divided by their number, and that of the mean over
    the draws of the test images. Student's t has the degrees of freedom of the sum (Welch-Satterthwaite), the draws
    counting as many: with three trainings that differ, the interval is as wide as three numbers allow. One training
    says nothing of others: its interval is of the images alone. Of fewer than 40 draws their freedom counts as
    well; a single one says nothing of the images, and one training without draws nothing at all: then there is no interval.

    Args:
        samples: a row a training: on all examples, then on each draw of them, the same for all.
        level: probability of the interval, in (0, 1).

    Raises:
        ValueError: if the level is outside (0, 1).

    Source:
        Satterthwaite 1946, Biometrics Bulletin 2(6), 110-114.
    """
    check_fraction(level, "level", within="(0, 1)")
    values, draws = samples[:, 0], samples[:, 1:]
    value, count, drawn = values.mean().item(), len(values), draws.shape[1]
    if drawn == 1 or (count < 2 and not drawn):
        return Interval(value, math.nan, math.nan, level, drawn)
    images = draws.mean(0).var().item() if drawn else 0.0
    trainings = values.var().item() / count if count > 1 else 0.0
    lost = trainings**2 / (count - 1) if trainings else 0.0
    lost += images**2 / (drawn - 1) if 1 < drawn < MANY else 0.0
    freedom = (images + trainings) ** 2 / lost if lost else math.inf
    reach = float(stats.t.ppf((1 + level) / 2, freedom)) * math.sqrt(images + trainings)
    return Interval(value, value - reach, value + reach, level, drawn)
