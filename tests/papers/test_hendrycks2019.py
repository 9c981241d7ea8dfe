"""The ledger of the paper against itself, where two of its places say the same, and the names of the chapter."""

import re
from itertools import pairwise
from statistics import fmean

import pytest

from uqlib.evidence.ledger import read_ledger
from uqlib.papers import SCORES
from uqlib.papers.hendrycks2019 import (
    CORRECTIONS,
    METHODS,
    NAMES,
    STARTS,
    TRAININGS,
    TUNINGS,
    mad_calibration_error_hendrycks2019,
    rms_calibration_error_hendrycks2019,
)

FORWARD_AND_GLC = ("forward", "glc_5", "glc_10")
SETS = ("CIFAR-10", "CIFAR-100")


@pytest.fixture(scope="module")
def book(repository):
    return read_ledger(repository / "data/ledger/hendrycks2019.toml")


def said(book, row, setting, quantity):
    return book[f"hendrycks2019-{row}"].number(setting, quantity).value


def claim(book, id):
    [found] = (c for row in book.rows for c in row.claims if c.id == f"hendrycks2019-{id}")
    return found


def test_no_name_stands_for_two_things():
    assert len(NAMES) == sum(map(len, (STARTS, CORRECTIONS, METHODS, TRAININGS, TUNINGS, SCORES)))
    assert len(set(NAMES.values())) == len(NAMES)


def test_reported_settings_speak_in_the_names_of_the_chapter(book):
    known = {*NAMES, "gamma", "less", "released", "temperature", "epoch"}
    for row in book.rows:
        for number in row.reported:
            words = re.sub(r"CIFAR-100?|Tiny-ImageNet", "", number.setting)
            assert set(re.findall(r"[a-z_]+\w*", words)) <= known, number.setting


@pytest.mark.parametrize("correction", ["none", "forward", "glc_5"])
@pytest.mark.parametrize("start", ["scratch", "supervised"])
@pytest.mark.parametrize("images", SETS)
def test_the_areas_under_figure_2_are_the_numbers_of_table_1(book, images, start, correction):
    setting = f"{images}: {correction}, {start}"
    curve = [said(book, "F2", setting, f"error, strength {k / 10:g}") for k in range(11)]
    area = sum(0.1 * (a + b) / 2 for a, b in pairwise(curve))
    assert area == pytest.approx(said(book, "T1", setting, "AUC"), abs=0.1 + 0.05)  # as digitised, as rounded


@pytest.mark.parametrize("method", ["cross_entropy, scratch", "smote, scratch", "cross_entropy, supervised"])
def test_the_means_of_figure_3_are_the_numbers_of_table_2(book, method):
    errors = [said(book, "F3", method, f"error, class {k}") for k in range(1, 11)]
    total = said(book, "T2", f"CIFAR-10: gamma 0.2, {method}", "total error")
    assert fmean(errors) == pytest.approx(total, abs=0.1)


def test_figure_5_is_table_5(book):
    for number in book["hendrycks2019-F5"].reported:
        assert number.value == pytest.approx(said(book, "T5", number.setting, "RMS"), abs=0.051)


def test_effects_follow_from_the_reported_numbers(book):
    auc = {
        (i, c, s): said(book, "T1", f"{i}: {c}, {s}", "AUC") / 100
        for i in SETS
        for c in ("none", *FORWARD_AND_GLC)
        for s in ("scratch", "supervised")
    }
    gains = [[auc[i, c, "supervised"] - auc[i, c, "scratch"] for i in SETS] for c in ("none", *FORWARD_AND_GLC)]
    expected = {
        "T1-below": fmean(gains[0]),
        "T1-corrected": fmean(gain for row in gains[1:] for gain in row),
        "T1-instead": fmean(auc[i, "none", "supervised"] - auc[i, "forward", "scratch"] for i in SETS),
        "T1-half": fmean(auc[i, "glc_5", "supervised"] - auc[i, "glc_10", "scratch"] for i in SETS),
        "T1-forward-harms": fmean(auc[i, "forward", "supervised"] - auc[i, "none", "supervised"] for i in SETS),
        "X6-quarter": fmean(1 - auc[i, "none", "supervised"] / auc[i, "none", "scratch"] for i in SETS),
    }
    for id, value in expected.items():
        assert claim(book, id).effect == pytest.approx(value, abs=1e-5 + 0.01 * (id == "X6-quarter")), (
            id
        )  # whole percents


def test_what_the_paper_reports_meets_what_it_claims(book):
    for c in (c for row in book.rows for c in row.claims if c.effect is not None):
        assert c.meets(c.effect), c.id


def test_every_claim_has_a_quantity_of_its_own_and_a_forecast(book):
    claims = [c for row in book.rows for c in row.claims]
    assert len({c.quantity for c in claims}) == len(claims)
    assert all(c.forecast is not None or c.by_construction for c in claims)


def test_every_row_that_can_be_tested_has_a_notebook_and_there_are_fourteen(book):
    assert {row.id for row in book.rows if row.not_testable} == {"hendrycks2019-T6", "hendrycks2019-X3"}
    assert {row.id for row in book.rows if not row.notebook} == {"hendrycks2019-T6", "hendrycks2019-X3"}
    assert len({row.notebook for row in book.rows if row.notebook}) == 14


def test_one_bin_that_is_not_counted_is_no_error_of_zero():
    confidence, correct = [0.9] * 19, [False] * 19
    for error in (rms_calibration_error_hendrycks2019, mad_calibration_error_hendrycks2019):
        with pytest.raises(ValueError, match=r"beta must leave two bins.* at most 9 for 19 rows; it is 10"):
            error(confidence, correct, beta=10)
        assert error(confidence, correct, beta=10, drop_last=False) == pytest.approx(0.9)
