"""Whether a claim stands under every choice that an analysis makes and could have made otherwise, a multiverse.

    scores = compare(outcomes, all_readings(["aurc"]), over="split", draws=100)
    change = by_reading(scores, "aurc")                       # less another variant; by the choices that make the numbers
    ended = spans(change)                                     # by the level of the interval, and by whose draws
    worlds = universes(ended, lambda x: x < 0, count=1000)    # a row a universe and setting
    stands(worlds, 0.9)                                       # a row a universe
    sway(worlds, 0.9)                                         # a row an option: how often the claim stands with it

The first option of every choice is the book's own, so universe 0 is the analysis as published.

Source:
    Steegen, Tuerlinckx, Gelman & Vanpaemel 2016, Perspectives on Psychological Science 11(5), 702-712; Simonsohn, Simmons &
    Nelson 2020, Nature Human Behaviour 4, 1208-1214 (specification curve).
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from uqlib.base.arrays import as_tensor
from uqlib.base.extras import named
from uqlib.base.options import check_choice, check_whole
from uqlib.metrics import calibration, selective
from uqlib.metrics.compare import UNITS
from uqlib.metrics.outcomes import MEASURES, Judged, Measure
from uqlib.metrics.resampling.ends import ends_of_draws, reach_over_trainings

with named():
    import pandas as pd
    import xarray as xr

TIES = ("shared", "right first", "wrong first")
CURVES = {
    "mean of risks": selective.aurc,
    "trapezoids": selective.aurc_of_trapezoids,
    "excess": selective.e_aurc,
    "generalised": selective.augrc,
}
BINS = ("15", "10", "20", "30")
LEVELS = (0.95, 0.9, 0.99)
HALVES = ("all", "first half", "second half")  # of the draws: how far a verdict hangs on their seed and number
MOVING = ["claim", "universes", "stands", "surely", "published", "choice", "least", "most", "moves"]
NO_CHOICE = ("universe", "setting", "value", "low", "high", "held", "sure")


def untied(outcome: Any, how: str) -> Any:
    """An outcome whose ties of confidence are broken: the right ones of a tie first, or the wrong ones; "shared" leaves it.

    The two are the best and the worst that an order of the rows can do to a rank metric. Where no right and wrong example tie,
    the outcome comes back as it is.

    Args:
        outcome: an `Outcome`, a `Judged`, or anything with confidence and correct.
        how: one of TIES.
    """
    if check_choice(how, TIES, "way with ties") == TIES[0]:
        return outcome
    confidence, correct = as_tensor(outcome.confidence), as_tensor(outcome.correct)
    values = np.sort(confidence.numpy())
    if (values[1:] != values[:-1]).all():
        return outcome
    place = confidence.unique(return_inverse=True)[1]
    return Judged((2 * place + (correct == (how == "right first"))).double(), correct)


def rows_of(outcomes: Sequence[Any], rows: slice) -> list[Judged]:
    """Some rows of what each of several networks said: confidence and whether it was right."""
    return [Judged(as_tensor(each.confidence)[rows], as_tensor(each.correct)[rows]) for each in outcomes]


def _curve(statistic: Callable[..., float], ties: str) -> Measure:
    def arrays(outcome: Any) -> tuple[Any, ...]:
        own = untied(outcome, ties)
        return as_tensor(own.confidence), as_tensor(own.correct)

    return MEASURES["aurc"]._replace(statistic=statistic, arrays=arrays)


def _ranks(name: str) -> dict[tuple[str, ...], Measure]:
    return {(ties,): _curve(MEASURES[name].statistic, ties) for ties in TIES}


def _binned(name: str) -> dict[tuple[str, ...], Measure]:
    """Those of ECE; the book's own come first, equal width or, where the paper has it, equal mass."""
    kinds = ("mass", "width") if name == "ece_mass" else ("width", "mass")
    return {
        (bins, by): MEASURES["ece"]._replace(statistic=partial(calibration.ece, bins=int(bins), by=by))
        for bins, by in product(BINS, kinds)
    }


CHOICES: dict[str, tuple[str, ...]] = {"aurc": ("curve", "ties"), "auroc": ("ties",), "ece": ("bins", "by"), "ece_mass": ("bins", "by"),
                                       "sac": ("at",)}  # fmt: skip


def readings(measure: str) -> dict[tuple[str, ...], Measure]:
    """What a measure's name may mean, by the options of CHOICES[measure], the book's own first; one alone where nothing is open.

    AURC: the mean of the risks, by trapezoids, in excess of the ideal order, generalised (AUGRC); ties shared, or broken either
    way. AUROC: the ties. ECE: number and kind of bins. SAC: at 98 or at 99 %.

    Args:
        measure: a name in MEASURES, or "sac".
    """
    if measure == "aurc":
        return {(curve, ties): _curve(CURVES[curve], ties) for curve, ties in product(CURVES, TIES)}
    if measure == "sac":
        return {(at,): MEASURES[f"sac{at}"] for at in ("98", "99")}
    if measure == "auroc":
        return _ranks(measure)
    if measure in ("ece", "ece_mass"):
        return _binned(measure)
    return {(): MEASURES[check_choice(measure, MEASURES, "measure")]}


def all_readings(measures: Sequence[str]) -> dict[str, Measure]:
    """The readings of several measures by name and number, for `compare`."""
    return {f"{name} {k}": each for name in measures for k, each in enumerate(readings(name).values())}


def by_reading(scores: xr.DataArray, measure: str) -> xr.DataArray:
    """Scores of `all_readings` in one measure: with a dimension a choice in place of the dimension `measure`."""
    choices = CHOICES.get(measure, ())
    scores = scores.sel(measure=[each for each in scores["measure"].values if each.split()[0] == measure])
    if not choices:
        return scores.isel(measure=0, drop=True)
    keys = pd.MultiIndex.from_tuples(list(readings(measure)), names=choices)
    order = {name: list(dict.fromkeys(keys.get_level_values(name))) for name in choices}
    own = scores.drop_vars("measure").assign_coords(xr.Coordinates.from_pandas_multiindex(keys, "measure"))
    return own.unstack("measure").reindex(order)  # unstacking sorts


def spans(array: xr.DataArray, *, levels: Sequence[float] = LEVELS) -> xr.DataArray:
    """Value and interval of every cell at several levels, by all draws or by half of them; the formulas of `compare.intervals`.

    Args:
        array: of `compare` or computed from such, with the dimension draw and one of UNITS or none.
        levels: the first is the book's.

    Returns:
        The other dimensions, level, draws, and `end`: value, low, high.

    Raises:
        ValueError: if there are fewer than two draws, of which no half can be taken.
    """
    if array.sizes["draw"] < 3:
        raise ValueError(f"a span needs two draws or more, for halves of them; there are {array.sizes['draw'] - 1}")
    unit = next((name for name in UNITS if name in array.dims), "")
    order = [name for name in array.dims if name not in (unit, "draw")]
    table = array.transpose(*order, *([unit] if unit else []), "draw").values.astype(float)
    table = table if unit else table[..., None, :]
    value, drawn = table[..., 0].mean(-1), table[..., 1:]
    half = drawn.shape[-1] // 2
    found = np.empty((*value.shape, len(levels), len(HALVES), 3))
    for j, part in enumerate((slice(None), slice(half), slice(half, None))):
        some = drawn[..., part]
        for i, level in enumerate(levels):
            if unit == "training":
                reach = reach_over_trainings(table[..., 0], some, level)
                low, high = value - reach, value + reach
            else:
                low, high = ends_of_draws(value, some.reshape(*value.shape, -1), level)
            found[..., i, j, :] = np.stack([value, low, high], -1)
    names = {name: each.variable for name, each in array.coords.items() if set(each.dims) <= set(order)}
    ends = {"level": list(levels), "draws": list(HALVES), "end": ["value", "low", "high"]}
    return xr.DataArray(found, dims=(*order, *ends), coords=names | ends)


def spans_of_trainings(array: xr.DataArray, subsets: Mapping[str, slice], **options: Any) -> xr.DataArray:
    """`spans` by several subsets of the trainings, as the dimension `trainings`; those that are NaN are none.

    Args:
        array: with the dimension training, of one setting.
        subsets: by name, the first is the book's; of what is there. One that would hold none holds all.
        options: of `spans`.
    """
    there = array.dropna("training")
    parts = [there.isel(training=each) for each in subsets.values()]
    found = [spans(each if each.sizes["training"] else there, **options) for each in parts]
    return xr.concat(found, pd.Index(list(subsets), name="trainings"))


def universes(ended: xr.DataArray, meets: Callable[[float], bool], *, count: int, seed: int = 0) -> pd.DataFrame:
    """So many universes, drawn without replacement from the product of all choices; universe 0 is the first option of each.

    Args:
        ended: of `spans`: the dimensions setting and end; all others are choices. One whose options are made of several, such as
            the fit of a size and a split, has coordinates for these, and they are the choices. Settings that are NaN do not count.
        meets: whether a value is as the claim says, such as `claim.meets`.
        count: how many universes at most.
        seed: of the draw.

    Returns:
        A row a universe and setting, with the universe, its choices, setting, value, low, high, held (the value is as the claim says)
        and sure (both ends of the interval are).
    """
    choices = [str(name) for name in ended.dims if name not in ("setting", "end")]
    table = ended.transpose(*choices, "setting", "end")
    sizes = table.shape[:-2]
    every, wanted = int(np.prod(sizes)), check_whole(count, "count", least=1)
    others = 1 + np.random.default_rng(seed).permutation(every - 1)[: wanted - 1]
    chosen = np.concatenate([[0], np.sort(others)])
    options: dict[str, np.ndarray] = {}
    for name, i in zip(choices, np.unravel_index(chosen, sizes), strict=True):
        parts = [str(k) for k, each in table.coords.items() if each.dims == (name,) and k != name] or [name]
        options |= {part: table.coords[part].values[i] for part in parts}
    cells = table.values.reshape(every, *table.shape[-2:])[chosen]
    settings = table.coords["setting"].values
    frame = pd.DataFrame({"universe": np.repeat(np.arange(len(chosen)), len(settings))}
                         | {name: np.repeat(each, len(settings)) for name, each in options.items()}
                         | {"setting": np.tile(settings, len(chosen))})  # fmt: skip
    frame[["value", "low", "high"]] = cells.reshape(-1, 3)
    frame = frame[frame["value"].notna()]
    met = {end: frame[end].map(meets).astype(bool) for end in ("value", "low", "high")}
    return frame.assign(held=met["value"], sure=met["low"] & met["high"]).reset_index(drop=True)


def stands(worlds: pd.DataFrame, share: float = 1.0) -> pd.DataFrame:
    """Of each universe its choices, the mean value, the parts of the settings that hold and surely hold, and the verdict.

    Args:
        worlds: of `universes`.
        share: of the settings in which the claim must hold, as in the ledger.

    Returns:
        A row a universe, with its choices, value, held, sure, and `stands` (by the values) and `certain` (by the intervals).
    """
    choices = [name for name in worlds if name not in NO_CHOICE]
    found = worlds.groupby(["universe", *choices], sort=False)[["value", "held", "sure"]].mean().reset_index()
    enough = share - 1e-9
    return found.assign(stands=found["held"] >= enough, certain=found["sure"] >= enough)


def sway(worlds: pd.DataFrame, share: float = 1.0) -> pd.DataFrame:
    """How much each choice matters: of each option the share of universes in which the claim stands, by value and by interval.

    Returns:
        A row an option, with choice, option, universes, stands, certain, held (the mean part of the settings), and `moves`: by how
        much stands differs between the options of its choice; where it differs by none of any choice, by how much held does.
    """
    found = stands(worlds, share)
    parts = []
    for name in [name for name in worlds if name not in NO_CHOICE]:
        each = found.groupby(name, sort=False)[["stands", "certain", "held"]].mean()
        each.insert(0, "universes", found.groupby(name, sort=False).size())
        parts.append(each.rename_axis("option").reset_index().assign(choice=name))
    table = pd.concat(parts, ignore_index=True)
    spread = table.groupby("choice")[["stands", "held"]].agg(np.ptp)
    moves = spread["stands"] if spread["stands"].any() else spread["held"]
    return table.assign(moves=table["choice"].map(moves))[["choice", *table.columns[:-1], "moves"]]


def judge_all(ended: Mapping[Any, xr.DataArray], *, count: int, seed: int = 0) -> dict[str, tuple[pd.DataFrame, float]]:
    """The universes of each claim, and the share of settings that it asks for, by its id; one without a setting is left out.

    Args:
        ended: of `spans`, by claim of the ledger: what has an id, a share, and `meets`.
        count, seed: as in `universes`.
    """
    there = {claim: each for claim, each in ended.items() if each.sizes["setting"]}
    return {
        claim.id: (universes(each, claim.meets, count=count, seed=seed), claim.share) for claim, each in there.items()
    }


def most_moving(worlds: Mapping[str, tuple[pd.DataFrame, float]]) -> pd.DataFrame:
    """Of several claims the share of universes in which each stands, and the choice that moves it most.

    Args:
        worlds: of `judge_all`.

    Returns:
        A row a claim, with claim, universes, stands and surely (shares of the universes, by value and by interval), published (whether
        it stands by value in universe 0), choice, the options with which it stands least and most, and by how much they differ.
    """
    rows = []
    for claim, (each, share) in worlds.items():
        found, moved = stands(each, share), sway(each, share)
        top = moved[moved["choice"] == moved.loc[moved["moves"].idxmax(), "choice"]]
        by = "stands" if found["stands"].nunique() > 1 else "held"
        least, most = (top.loc[top[by].agg(way), "option"] for way in ("idxmin", "idxmax"))
        none = not moved["moves"].any()
        rows.append({"claim": claim, "universes": len(found), "stands": found["stands"].mean(),
                     "surely": found["certain"].mean(), "published": bool(found["stands"].iloc[0]),
                     "choice": "none" if none else top["choice"].iloc[0], "least": "" if none else str(least),
                     "most": "" if none else str(most), "moves": top["moves"].iloc[0]})  # fmt: skip
    return pd.DataFrame(rows, columns=MOVING)


def tallies(table: pd.DataFrame, headline: str) -> dict[str, Any]:
    """Of a table of `most_moving`, how many claims always, never and sometimes stand, the headline's share, the usual choice."""
    always, never = int((table["stands"] == 1).sum()), int((table["stands"] == 0).sum())
    choice = table["choice"].value_counts()
    share = 100 * table.set_index("claim")["stands"][headline]
    return {"claims": len(table), "always": always, "never": never, "between": len(table) - always - never,
            "headline": f"{share:.0f}", "choice": choice.index[0], "times": int(choice.iloc[0])}  # fmt: skip
