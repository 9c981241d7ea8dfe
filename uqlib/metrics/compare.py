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

from uqlib.base.arrays import Column, as_tensor
from uqlib.base.checks import check_confidence
from uqlib.base.extras import named
from uqlib.base.options import check_choice, check_fraction, check_seed, check_whole
from uqlib.metrics.outcomes import Measure, check_outcomes, measures_of, value_of
from uqlib.metrics.resampling import bootstrap
from uqlib.metrics.resampling.bootstrap import Interval
from uqlib.metrics.resampling.ends import reach_over_trainings

with named():
    import pandas as pd
    import xarray as xr
    from scipy import stats

FEW = (3, 8)  # units of which all orders are looked at
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
    undefined: bool = False,
) -> xr.DataArray:
    """Every measure of every variant, on all examples and on bootstrap draws that all of them share.

    In a split k the draws depend on `seed + k` and the number of examples alone, in a training on the seed alone. So whatever
    is computed from such arrays, entry by entry, is paired. Time as `bootstrap.resample_together`.

    Args:
        outcomes: by variant, a list with one a repetition: an `Outcome`, or anything that has what the measures ask for, such as
            confidence and correct, of the same examples in every variant. Variants of fewer repetitions are filled up with NaN.
        measures: names in MEASURES; or by name of your own, one of those names or a Measure.
        over: the unit that is repeated, in UNITS.
        draws: of each repetition; 0 for the values alone.
        seed: of the draws; or a generator that goes on from split to split and call to call, so that no two calls share draws.
        groups: so many consecutive examples are drawn as one, such as the corrupted versions of one image.
        stratify: as in `metrics.interval`, for units that share their examples.
        undefined: whether a measure may have no value, such as an AUROC without a mistake, on all examples or on a draw: NaN
            stands there. Else that is an error.

    Returns:
        Float64 of the dimensions variant, measure, `over`, draw.

    Raises:
        ValueError: if there is no variant, repetition or measure, a measure or the unit is unknown, variants of one repetition
            have other examples, these do not divide into groups, or a measure has no value and that is not allowed.
        TypeError: if a variant is no list, or the seed is neither a whole number nor a generator of torch.
    """
    check_choice(over, UNITS, "unit to repeat")
    check_outcomes(outcomes)
    asked = measures_of(measures)
    draws, groups = check_whole(draws, "draws", least=0), check_whole(groups, "groups", least=1)
    if not isinstance(seed, torch.Generator):
        seed = _check_seed(seed)
    longest = max(map(len, outcomes.values()))
    table = np.full((len(outcomes), len(asked), longest, 1 + draws), np.nan)
    jobs: dict[int, list[tuple[tuple[int, int, int], Measure, tuple[Any, ...]]]] = {}  # by whose draws they share
    for i, runs in enumerate(outcomes.values()):
        for k, run in enumerate(runs):
            own = jobs.setdefault(k * (over == "split"), [])
            for j, (name, each) in enumerate(asked.items()):
                if (arrays := each.arrays(run)) is not None:
                    own.append(((i, j, k), each, arrays))
                elif not undefined:
                    raise ValueError(
                        f"{list(outcomes)[i]!r} has nothing for {name!r}; pass undefined=True, which leaves NaN there"
                    )
    variants, called = list(outcomes), list(asked)
    for start, some in jobs.items():
        if draws and some:
            _check_same_examples(variants, called, some)
        for place, each, arrays in some:
            if len(arrays[0]) % groups:
                raise ValueError(f"{len(arrays[0])} examples do not divide into groups of {groups}")
            table[place][0] = value_of(each, arrays, undefined)
        if draws and some:
            drawn = bootstrap.resample_together(
                [(each.statistic, arrays) for _, each, arrays in some],
                draws=draws,
                generator=seed if isinstance(seed, torch.Generator) else torch.Generator().manual_seed(seed + start),
                stratify=stratify,
                groups=groups,
                undefined=True,
            )
            for ((i, j, k), _, _), samples in zip(some, drawn, strict=True):
                if not undefined and samples.isnan().any():
                    raise ValueError(
                        f"{called[j]!r} of {variants[i]!r} has no value on draw {int(samples.isnan().nonzero()[0])} of "
                        f"{over} {k}: a draw can miss a rare class. Pass stratify=, such as whether the examples are correct, "
                        "or undefined=True, which leaves NaN there"
                    )
                table[i, j, k, 1:] = samples
    names = {"variant": list(outcomes), "measure": list(asked), over: range(longest), "draw": range(1 + draws)}
    return xr.DataArray(table, coords=names)


def _check_seed(seed: Any) -> int:
    try:
        return check_seed(seed)
    except TypeError as error:
        raise TypeError(f"{error}. Or a torch.Generator, which goes on from call to call") from None


def _check_same_examples(
    variants: Sequence[Any], measures: Sequence[Any], some: Sequence[tuple[Any, Any, Any]]
) -> None:
    """Draws are shared, so all that they are of must have as many examples."""
    (i, _, k), _, arrays = some[0]
    for (other, own, at), _, each in some:
        if len(each[0]) != len(arrays[0]):
            raise ValueError(
                f"outcomes must be of the same examples; {measures[own]!r} of {variants[other]!r}, repetition {at}, has "
                f"{len(each[0])}, that of {variants[i]!r}, repetition {k}, {len(arrays[0])}. Take the rows that all have"
            )


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
        The columns measure, first, second, what `cells` has, and `start`: what the second variant scored, in the repetitions that
        the first one has too.

    Raises:
        ValueError: if nothing is asked, a variant is none of the outcomes, or as `compare`.
    """
    found, asked = [], list(asked)
    if not asked:
        raise ValueError("asked is empty; pass pairs such as ('aurc', ('duo', 'base')): a measure, and two variants")
    for name, (first, second) in asked:
        both = {variant: _variant(outcomes, variant) for variant in (first, second)}
        scores = compare(both, [name], draws=0 if name in bare else draws, **options)
        whole = scores[:, 0, :, 0]
        names = {"first": first, "second": second, "start": whole[1].where(whole[0].notnull()).mean().item()}
        found.append(cells((scores[0] - scores[1]).assign_coords(names)))
    return pd.concat(found, ignore_index=True)


def _variant(outcomes: Mapping[Any, Any], name: Any) -> Any:
    if name not in outcomes:
        raise ValueError(f"unknown variant {name!r}; choose from {', '.join(map(repr, outcomes))}")
    return outcomes[name]


def in_percent(frame: pd.DataFrame) -> pd.DataFrame:
    """Differences of `contrasts` and their ends in percent of the start, which is taken as it is: below 0 it turns their sign."""
    shares = frame[["value", "low", "high"]].astype(float).mul(100 / frame["start"], axis=0)
    turned = frame["start"] < 0
    low, high = shares["low"].where(~turned, shares["high"]), shares["high"].where(~turned, shares["low"])
    return frame.assign(value=shares["value"], low=low, high=high)


def minus_others(scores: xr.DataArray, variant: str) -> xr.DataArray:
    """One variant of an array of `compare` less each of the others, by the name of the other."""
    return scores.sel(variant=variant) - scores.drop_sel(variant=variant)


def intervals(
    array: xr.DataArray, *, level: float = 0.95, within: tuple[float, float] = (-math.inf, math.inf)
) -> xr.DataArray:
    """The interval of every cell of an array of `compare`, or of what was computed from such.

    Args:
        array: with the dimension draw, and with one of UNITS or none. Repetitions that are NaN do not count; a cell without
            any is NaN. Draws that are NaN do not count either, and where more than one in 20 is, there is no interval. A
            coordinate `covers` says what else than trainings its trainings are; see `metrics.resampling.repetitions`.
        level: probability of the interval, in (0, 1).
        within: what the numbers may be, such as (-1, 1) of a correlation; the ends stay inside.

    Returns:
        The other dimensions, and `end`: value, low, high. Coordinates: `splits` or `seeds`, how many repetitions there were;
        `covers`, what the interval is about. Of one split or one training that is the test images alone.

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
        ends.append(_ends(there, summarise, level, within) if len(there) else (math.nan,) * 3)
        counts.append(len(there))
    outer = table.isel({unit: 0, "draw": 0}, drop=True)
    others = {"split": "examples, splits", "training": "examples, trainings"}.get(units[0] if units else "", "examples")
    told = outer.coords.get("covers", others) if unit == "training" else others
    each = xr.full_like(outer, "", dtype=object) + told
    covers = [
        units_of if count > 1 else "examples"
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


def _ends(
    cell: Float[Tensor, "s columns"],
    summarise: Any,
    level: float,
    within: tuple[float, float],
) -> tuple[float, float, float]:
    """Value and ends of the repetitions of one cell, by the draws on which it is defined, if those are nearly all."""
    defined = ~cell[:, 1:].isnan().any(0)
    if not defined.all():
        few = defined.double().mean() < bootstrap.DEFINED
        cell = torch.cat([cell[:, :1], cell[:, 1:][:, defined]], 1)
        if few:
            return cell[:, 0].mean().item(), math.nan, math.nan
    value, low, high = summarise(cell, level=level)[:3]
    least, most = within
    return value, *(end if math.isnan(end) else min(max(end, least), most) for end in (low, high))


def cells(
    found: Any, *names: str, level: float = 0.95, within: tuple[float, float] = (-math.inf, math.inf)
) -> pd.DataFrame:
    """Results as a data frame: a row a cell, its names, then value, low, high, level and what else is known of it.

    Args:
        found: an array of `compare` or computed from such; of `intervals`; or such arrays, intervals or numbers by key, a name
            or a tuple of names.
        names: what the keys are of, where they are keys.
        level, within: of the intervals that are computed, as of `intervals`.

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
                cells(each, level=level, within=within)
                if isinstance(each, xr.DataArray)
                else pd.DataFrame([{k: float(v) for k, v in ends.items() if k != "draws"} | about])
            )
            frames.append(pd.DataFrame([dict(zip(names, parts, strict=True))]).merge(own, how="cross"))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=[*names, "value"])
    ended = found if "end" in found.dims else intervals(found, level=level, within=within)
    table = ended.rename("cell").to_dataset("end").assign(level=ended.attrs.get("level", level))
    frame = (
        table.expand_dims("all").to_dataframe().reset_index() if not table.sizes else table.to_dataframe().reset_index()
    )
    kept = frame[frame["value"].notna()].drop(columns="all", errors="ignore")
    told = [name for name in ("level", "covers") if name in kept]
    kept[told] = kept[told].where(kept["low"].notna())  # a value alone has none
    return kept.where(kept.notna(), None).infer_objects().reset_index(drop=True)


def over_trainings(
    found: xr.DataArray, covers: str = "trainings", *, within: tuple[float, float] = (-math.inf, math.inf)
) -> pd.DataFrame:
    """Cells of numbers of which there are no draws of examples: intervals over other trainings, none of a single one.

    Args:
        found: with the dimension training, and with one draw or without that dimension.
        covers: what the entries of that dimension are, where they are other units, such as networks.
        within: as of `intervals`.
    """
    frame = cells(found if "draw" in found.dims else found.expand_dims("draw"), within=within)
    alone = frame["seeds"] < 2
    frame = frame.assign(covers=covers).astype({name: object for name in ("low", "high", "level", "covers")})
    frame.loc[alone, ["low", "high", "level", "covers"]] = None
    return frame


def rank_correlation(one: xr.DataArray, other: xr.DataArray, dim: str) -> xr.DataArray:
    """Spearman's correlation over one dimension, for every entry of the others; ties share their mean rank.

    Intervals of it: `intervals(found, within=(-1, 1))`, for Student's of a few entries may reach further.
    """
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
        ValueError: if there are fewer or more units, the lengths differ, a number is not finite, or a column is constant.
    """
    level = check_fraction(level, "level", within="(0, 1)")
    x, y = (as_tensor(part, name).double().cpu().numpy() for part, name in ((one, "one"), (other, "other")))
    if x.shape != y.shape or x.ndim != 1 or not FEW[0] <= len(x) <= FEW[1]:
        raise ValueError(
            f"columns must be of one length, {FEW[0]} to {FEW[1]}; they have shapes {x.shape} and {y.shape}"
        )
    for part, name in ((x, "one"), (y, "other")):
        check_confidence(part, name)
    ranks = [stats.rankdata(part) for part in (x, y)]
    if any((part == part[0]).all() for part in ranks):
        raise ValueError("a column is constant, and has no order to compare")
    first, second = ((part - part.mean()) / part.std() for part in ranks)
    orders = second[list(permutations(range(len(x))))]
    chance = np.abs(orders @ first) / len(x)
    reach = float(np.quantile(chance.round(12), level, method="inverted_cdf"))
    value = round(float(first @ second) / len(x), 12)  # as chance is: an order that is as far is no further
    return Interval(value, max(-1.0, value - reach), min(1.0, value + reach), level, len(orders))


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
    value, values = samples[:, 0].mean().item(), samples.double().numpy()
    reach = float(reach_over_trainings(values[:, 0], values[:, 1:], level))
    return Interval(value, value - reach, value + reach, level, samples.shape[1] - 1)
