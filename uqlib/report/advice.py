"""Advice that results choose: for a budget and a need the best combination of methods, and whether it was worth the search."""

import itertools
from typing import Any

from uqlib.base.extras import named
from uqlib.base.options import check_choice
from uqlib.experiments.transfer.reading.read_synthesis import FACTORS, SCORES, passes, rises
from uqlib.metrics.compare import cells, intervals
from uqlib.report.lessons.combined_methods import Need, Scored, combined_figure

with named():
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
    ended = intervals(scores)

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


def advise(budget: str, need: str, chosen: str, gained: xr.DataArray, beyond: xr.DataArray) -> str:
    """One sentence: what to take for a need within a budget, by what the numbers allow to say.

    Args:
        budget, need: keys of BUDGETS and NEEDS.
        chosen: the best combination in words.
        gained: its gain over nothing, by training and draw.
        beyond: its gain over the default of the budget.
    """
    gain, more, usual = (cells(each.expand_dims("of")).iloc[0] for each in (gained, beyond, gained - beyond))
    default = in_words(default_of(budget))
    head = f"**{BUDGETS[budget].capitalize()}; you need {NEEDS[need]}:**"
    if more.low > 0 and gain.low > 0:
        return f"{head} take {chosen}: {_points(gain, need)}, surely more than {default}."
    if usual.low > 0 and usual.value < WORTH:
        return f"{head} {default} is surely better, by too little to matter: {_points(usual, need)}."
    if usual.low > 0:
        rest = "" if chosen == default else f" The best found, {chosen}, is not surely better."
        return f"{head} {default} will do: {_points(usual, need)}.{rest}"
    if gain.low > 0:
        return f"{head} {chosen} gains {_points(gain, need)}; {default} does not surely gain, nor is it surely worse."
    best = "" if chosen == in_words({}) else f"; the best found, {chosen}, has {_points(gain, need)}"
    return f"{head} nothing here is surely better than a plain network{best}."


def _points(gain: Any, need: str) -> str:
    """A gain in print: points of a measure and their interval."""
    text = f"{100 * gain.value:+.1f} points of {SCORES[need][2]} [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]"
    return text.replace("-", "−")
