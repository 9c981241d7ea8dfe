"""Advice says no more than its intervals, and the figure of all combinations has a switch for each method."""

import numpy as np
import pytest
import xarray as xr

from uqlib.experiments.transfer.reading.read_synthesis import FACTORS
from uqlib.report import advice
from uqlib.report.lessons import combined_methods
from uqlib.report.lessons.combined_methods import Need, Scored, combined_figure


def of(mean, spread=0.001):
    """A gain of three trainings with draws, its interval a few spreads wide."""
    noise = np.random.default_rng(0).normal(0, spread, (3, 51))
    return xr.DataArray(mean + noise, {"training": [0, 1, 2], "draw": range(51)}).assign_coords(examples=100)


def said(gained, beyond):
    return advice.advise("pretrained", "aurc", "pretraining + head", gained, beyond)


def test_a_sentence_for_each_case():
    assert "take pretraining + head: +5.0 points" in said(of(0.05), of(0.02))
    assert "pretraining + temperature will do: +5." in said(of(0.05), of(0.0, 0.0005))
    assert "nothing here is surely better" in said(of(0.0), of(0.01))
    assert "surely better, by too little to matter: +0.1 points" in said(of(0.001, 1e-5), of(0.0, 1e-5))
    assert "nor is it surely worse" in said(of(0.05), of(0.05, 0.03))


def test_the_best_is_named_where_it_is_another():
    usual = advice.in_words(advice.default_of("pretrained"))
    told = advice.advise("pretrained", "aurc", usual, of(0.05), of(0.0, 0.0005))
    assert told.endswith("].")
    assert "best found" not in advice.advise("pretrained", "aurc", "nothing", of(0.0), of(0.0))


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
