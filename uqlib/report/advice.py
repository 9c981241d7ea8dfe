"""Advice that results choose: for a budget and a need the best combination of methods, and whether it was worth the search."""

import itertools
from typing import Any

from uqlib.base.extras import named
from uqlib.base.options import check_choice
from uqlib.experiments.transfer.reading.read_synthesis import (
    FACTORS,
    SCORES,
    Choice,
    alone,
    for_intervals,
    passes,
    rises,
)
from uqlib.metrics.compare import cells, intervals, together
from uqlib.report.lessons.combined_methods import Need, Scored, combined_figure

with named():
    import pandas as pd
    import xarray as xr

BUDGETS = {
    "one": "one pass, no pretraining",
    "pretrained": "one pass, pretrained",
    "most": "two passes and more, pretrained",
}
WORTH = 0.002  # a smaller gain is said to be too small to matter
NEEDS = {"accuracy": "right answers", "ece": "honest confidences", "aurc": "to know when to ask a person",
         "other": "to notice what is foreign", "shifted_accuracy": "right answers on damaged images"}  # fmt: skip


def synthesis_figure(scores: xr.DataArray) -> str:
    """HTML of the figure in which every method is a switch.

    Args:
        scores: as `load_synthesis` gives them.
    """
    ended = intervals(for_intervals(scores))

    def scored(combination: tuple[int, ...], need: str) -> Scored:
        at = dict(zip(FACTORS, combination, strict=True)) | {"measure": need}
        return Scored(*map(float, ended.sel(at).values))

    needs = {name: Need(words, name != "nll", rises(name)) for name, (_, _, words) in SCORES.items()}
    return combined_figure(scored, list(FACTORS.values()), needs, passes)


def within(budget: str) -> list[tuple[int, ...]]:
    """The combinations that a budget allows."""
    check_choice(budget, BUDGETS, "budget")
    every = itertools.product([0, 1], repeat=len(FACTORS))
    named = [dict(zip(FACTORS, each, strict=True)) for each in every]
    kept = [each for each in named if budget != "one" or not each["pretraining"]]
    return [tuple(each.values()) for each in kept if budget == "most" or not (each["ensemble"] or each["duo"])]


def default_of(budget: str) -> dict[str, int]:
    """What nobody has to search for: a temperature, pretraining where it is allowed, an ensemble where it can be paid."""
    taken = {"one": ("temperature",), "pretrained": ("temperature", "pretraining")}.get(
        budget, ("temperature", "pretraining", "ensemble")
    )
    return {name: int(name in taken) for name in FACTORS}


def in_words(combination: dict[str, int]) -> str:
    """A combination in print."""
    return " + ".join(FACTORS[name] for name, on in combination.items() if on) or "nothing"


def over_nothing(gains: xr.DataArray, budget: str) -> pd.DataFrame:
    """What each combination of a budget gains over nothing, as cells with its name in words, and whether it surely gains.

    The column `surely` asks this of all at once: the interval of the level 1 - 0.05 / m of m combinations lies above 0 (Bonferroni),
    so that with a probability of 95 % none is called better that is not.

    Args:
        gains: of one measure, more is better, `for_intervals`.
        budget: in BUDGETS.
    """
    asked = [dict(zip(FACTORS, each, strict=True)) for each in within(budget) if any(each)]
    each = together({in_words(one): gains.sel(one, drop=True) - alone(gains) for one in asked}, "combination")
    found = cells(each)
    return found.assign(surely=cells(each, level=1 - 0.05 / len(found))["low"] > 0)


def advise(
    budget: str, need: str, choice: Choice, gained: xr.DataArray, beyond: xr.DataArray, every: pd.DataFrame
) -> str:
    """One sentence: what to take for a need within a budget, by what the numbers allow to say.

    Args:
        budget, need: keys of BUDGETS and NEEDS.
        choice: of `best_elsewhere`; where some trainings chose otherwise the sentence says so, since the gain is theirs.
        gained: its gain over nothing, by training and draw.
        beyond: its gain over the default of the budget.
        every: all combinations of the budget, of `over_nothing`: of none is said that it does not gain before it was asked.
    """
    gain, more, usual = (cells(each.expand_dims("of")).iloc[0] for each in (gained, beyond, gained - beyond))
    default, chosen = in_words(default_of(budget)), _chosen(choice)
    head = f"**{BUDGETS[budget].capitalize()}; you need {NEEDS[need]}:**"
    if more.low > 0 and gain.low > 0:
        return f"{head} take {chosen}: {_points(gain, need)}, surely more than {default}."
    if usual.low > 0 and usual.value < WORTH:
        return f"{head} {default} is surely better, by too little to matter: {_points(usual, need)}."
    if usual.low > 0:
        rest = "" if in_words(choice.best) == default else f" The best found, {chosen}, is not surely better than that."
        return f"{head} {default} will do: {_points(usual, need)}.{rest}"
    if gain.low > 0:
        return f"{head} {chosen} gains {_points(gain, need)}; {default} does not surely gain, nor is it surely worse than that."
    best = "" if in_words(choice.best) == in_words({}) else f" The best found, {chosen}, has {_points(gain, need)}."
    return f"{head} {_of_every(every, need)}{best}"


def _of_every(every: pd.DataFrame, need: str) -> str:
    """Where neither the choice nor the default surely gains: whether any combination does, with all of them asked."""
    asked, alone_in = every.loc[every["surely"]], every.loc[every["low"] > 0]
    many = f"all {len(every)} combinations"
    if len(asked):
        first = asked.loc[asked["low"].idxmax()]
        return f"of {many} asked together, {first.combination} surely gains, which is not what all seeds chose: {_points(first, need)}."
    if not len(alone_in):
        return f"of {many} none is surely better than a plain network, not even asked alone."
    first = alone_in.loc[alone_in["low"].idxmax()]
    others = f" So are {len(alone_in) - 1} more." if len(alone_in) > 1 else ""
    return (
        f"of {many} asked together none is surely better than a plain network. Asked alone, {first.combination}, "
        f"which is not what all seeds chose, is: {_points(first, need)}.{others}"
    )


def _chosen(choice: Choice) -> str:
    """The choice in words, and how many trainings it was made for where others chose otherwise."""
    words, same = in_words(choice.best), sum(each == choice.best for each in choice.picked)
    if same == len(choice.picked):
        return words
    return f"{words} (chosen for {same or 'none'} of {len(choice.picked)} seeds; the gain is that of all choices)"


def _points(gain: Any, need: str) -> str:
    """A gain in print: points of a measure and their interval."""
    text = f"{100 * gain.value:+.1f} points of {SCORES[need][2]} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
    return text.replace("-", "−")
