"""Advice says no more than its intervals, and the figure of all combinations has a switch for each method."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from uqlib.experiments.transfer.reading.read_synthesis import FACTORS, Choice
from uqlib.report import advice
from uqlib.report.lessons import combined_methods
from uqlib.report.lessons.combined_methods import Need, Scored, combined_figure


def of(mean, spread=0.001):
    """A gain of three trainings with draws, its interval a few spreads wide."""
    noise = np.random.default_rng(0).normal(0, spread, (3, 51))
    return xr.DataArray(mean + noise, {"training": [0, 1, 2], "draw": range(51)}).assign_coords(examples=100)


def chosen(*names, others=()):
    """A choice of all three trainings, or of the first of them where others chose otherwise."""
    best, *rest = ({name: int(name in some) for name in FACTORS} for some in (names, *others))
    return Choice(best, [best] * (3 - len(rest)) + rest, of(0.0))


def every(**gains):
    """All combinations of a budget: these gains, and nothing of the others; all are sure but what is called alone."""
    gains = {"head": 0.0, "temperature": 0.0} | gains
    rows = [dict(combination=k, value=v, low=v - 0.003, high=v + 0.003, surely=v > 0.01) for k, v in gains.items()]
    return pd.DataFrame(rows)


def said(gained, beyond, choice=None, table=None):
    choice = chosen("pretraining", "head") if choice is None else choice
    return advice.advise("pretrained", "aurc", choice, gained, beyond, every() if table is None else table)


def test_a_sentence_for_each_case():
    assert "take pretraining + uncertainty head: +5.0 points" in said(of(0.05), of(0.02))
    assert "pretraining + temperature will do: +5." in said(of(0.05), of(0.0, 0.0005))
    assert "none is surely better than a plain network" in said(of(0.0), of(0.01))
    assert "surely better, by too little to matter: +0.1 points" in said(of(0.001, 1e-5), of(0.0, 1e-5))
    assert "nor is it surely worse" in said(of(0.05), of(0.05, 0.03))


def test_the_best_is_named_where_it_is_another():
    usual = chosen("temperature", "pretraining")
    assert said(of(0.05), of(0.0, 0.0005), usual).endswith("].")
    assert "best found, pretraining + uncertainty head" in said(of(0.05), of(0.0, 0.0005))
    assert "best found" not in said(of(0.0), of(0.0), chosen())


def test_none_gains_is_said_of_all_that_were_asked():
    """One that gains and was not chosen is named, with all looked at or asked alone."""
    assert "of all 2 combinations none is surely better" in said(of(0.0), of(0.0))
    told = said(of(0.0), of(0.0), table=every(difficulty=0.005, duo=0.004))
    assert "asked together none is surely better" in told
    assert "difficulty, which is not what all seeds chose, is: +0.5 points" in told
    assert told.count("So are 1 more.") == 1
    told = said(of(0.0), of(0.0), table=every(difficulty=0.05))
    assert "none" not in told
    assert "difficulty surely gains" in told


def test_whose_gain_it_is_where_others_chose_otherwise():
    assert "seeds" not in said(of(0.05), of(0.02))
    told = said(of(0.05), of(0.02), chosen("pretraining", others=[("head",), ("head", "duo")]))
    assert "take pretraining (chosen for 1 of 3 seeds; the gain is that of all choices): +5.0 points" in told


def test_many_are_looked_at_with_wider_intervals():
    """A gain that is sure alone, in one of seven combinations, is not sure among them; a larger one is."""
    scores = xr.DataArray(np.zeros([2] * 6 + [5, 3]), dims=[*FACTORS, "training", "draw"])
    scores = scores.assign_coords({name: [0, 1] for name in FACTORS} | {"training": range(5), "draw": range(3)})
    spread = np.linspace(-1, 1, 5)[:, None]
    for names, mean in ((["temperature"], 1.2), (["head"], 3.0)):
        scores.loc[{name: int(name in names) for name in FACTORS}] = mean + spread
    found = advice.over_nothing(scores, "one").set_index("combination")
    assert len(found) == 7
    assert (found.low > 0)[["temperature", "uncertainty head"]].all()
    assert found.index[found.surely].tolist() == ["uncertainty head"]


def test_minus_signs_are_true():
    assert "−" in said(of(-0.01), of(-0.01))
    assert " -" not in said(of(-0.01), of(-0.01))


def test_budgets_hold_what_they_allow():
    one, pretrained, most = (advice.within(budget) for budget in advice.BUDGETS)
    assert len(one) == 8
    assert len(pretrained) == 16
    assert len(most) == 64
    assert set(one) < set(pretrained) < set(most)
    names = list(FACTORS)
    assert not any(each[names.index("pretraining")] for each in one)
    assert not any(each[names.index("duo")] or each[names.index("ensemble")] for each in pretrained)
    for budget in advice.BUDGETS:
        assert tuple(advice.default_of(budget).values()) in advice.within(budget)
    with pytest.raises(ValueError, match="budget"):
        advice.within("two")


def test_the_figure_tells_what_is_scored():
    switches = ["one", "other"]

    def scored(place, need):
        value = 0.1 + 0.2 * place[0] + 0.1 * place[1]
        return Scored(value, value - 0.05, value + 0.05)

    needs = {"error": Need("error", True, False), "nll": Need("NLL", False, False)}
    html = combined_figure(scored, switches, needs, lambda place: 1 + place[0])
    assert "None of them: error 10.0 % [5.0 %, 15.0 %]. Of 4 combinations, 0 do better on average." in html
    assert html.count('class="mv-') > 3


def test_no_dot_hides_another_of_the_same_cost():
    across = combined_methods._side_by_side({(0, 0): 1.0, (0, 1): 1.0, (1, 0): 2.0, (1, 1): 1.0})
    assert len(set(across.values())) == 4
    assert across[1, 0] == 2
    assert sum(across[place] for place in ((0, 0), (0, 1), (1, 1))) == pytest.approx(3)
