"""Tables of cells: every number at its place, the paper's beside it, the data as CSV, text as text."""

import base64
import io
import re

import pandas as pd
import pytest

from uqlib.evidence.ledger import Reported, Row
from uqlib.report import tables

CELLS = pd.DataFrame(
    [
        {"measure": m, "variant": v, "value": x, "low": x - 0.01, "high": x + 0.01}
        for m, v, x in [("ece", "b", 0.1), ("ece", "a", 0.2), ("accuracy", "b", 0.3), ("accuracy", "a", 0.4)]
    ]
)
ROW = Row(
    "x-T1",
    "a table",
    reported=(
        Reported("C: a", "ECE", 21.0, "%", 1),
        Reported("C: b", "ECE", 9.5, "%", 1),
        Reported("C: a", "accuracy", 41),
    ),
)


def test_every_cell_stands_at_its_names_in_the_order_they_come():
    wide = tables.spread(CELLS, ["variant"], ["measure"], labels={"a": "the first"}, ends=False, signed=False)
    assert wide.columns.tolist() == ["ECE", "accuracy"]
    assert wide.index.tolist() == ["b", "the first"]
    assert wide.to_numpy().tolist() == [["10.00", "30.00"], ["20.00", "40.00"]]


def test_two_cells_at_one_place_are_refused():
    twice = pd.concat([CELLS.assign(pair="x"), CELLS.assign(pair="y")], ignore_index=True)
    with pytest.raises(ValueError, match="two cells stand at b, ece; select one, or add pair to rows or columns"):
        tables.spread(twice, ["variant"], ["measure"])
    with pytest.raises(ValueError, match="names 'loss'; the cells have measure, variant"):
        tables.spread(CELLS, ["loss"], ["measure"])


def test_the_papers_numbers_stand_before_ours():
    both = tables.with_paper(CELLS, ROW, "C: {variant}")
    assert both.paper.tolist() == ["9.5", "21.0", "–", "41.00"]
    wide = tables.spread(both, ["variant"], ["measure"], ends=False)
    assert wide.columns.tolist() == ["ECE, paper", "ECE", "accuracy, paper", "accuracy"]
    assert wide.loc["a"].tolist() == ["21.0", "+20.00", "41.00", "+40.00"]


def test_a_difference_is_that_of_the_reported_numbers():
    changes = CELLS.assign(other="b")
    assert tables.with_paper(changes, ROW, "C: {variant}", minus="C: {other}").paper.tolist() == [
        "+0.0",
        "+11.5",
        "–",
        "–",
    ]
    with pytest.raises(ValueError, match="names 'loss'"):
        tables.with_paper(CELLS, ROW, "C: {loss}")


def test_what_the_paper_reports_stands_below_the_cells_without_an_interval():
    both = tables.and_paper(CELLS.assign(other="b"), [ROW, ROW], "C: {variant}", "C: {other}")
    assert len(both) == len(CELLS) + 2 * 2  # of accuracy the other is not reported
    told = both.iloc[len(CELLS) : len(CELLS) + 2]
    assert told[["measure", "variant"]].to_numpy().tolist() == [["paper: ECE", "b"], ["paper: ECE", "a"]]
    assert told["value"].tolist() == pytest.approx([0, 0.115])
    assert both["low"].isna().sum() == 4


def test_the_link_holds_the_data():
    shown = tables.show_table(CELLS, caption="cells", name="x")
    html = shown._repr_html_()
    data = base64.b64decode(re.search(r'download="x.csv" href="data:text/csv;base64,([^"]+)"', html)[1])
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(data)), CELLS)
    assert "<caption>cells</caption>" in html
    assert repr(shown).startswith("cells\n")


def test_text_never_runs():
    bad = pd.DataFrame({"<b>": ["<script>alert(1)</script>"]}, index=["<i>"])
    html = tables.show_table(bad, caption="<script>", name='"><script>')._repr_html_()
    assert not re.search(r"<(script|b|i)>", html)


def test_what_a_row_reports_is_a_table():
    frame = tables.reported_frame(ROW)
    assert frame[["setting", "quantity", "paper"]].to_numpy().tolist()[0] == ["C: a", "ECE", "21.0"]


def test_a_pattern_splits_the_setting_into_names():
    frame = tables.reported_frame(ROW, r"(?P<data>.): (?P<variant>.)")
    assert frame[["data", "variant"]].to_numpy().tolist() == [["C", "a"], ["C", "b"], ["C", "a"]]


def test_the_paper_has_no_column_where_it_reports_nothing():
    both = tables.with_paper(CELLS.replace("accuracy", "aurc"), ROW, "C: {variant}")
    assert tables.spread(both, ["variant"], ["measure"]).columns.tolist() == ["ECE, paper", "ECE", "AURC"]


def test_a_table_of_nothing_says_so():
    assert tables.spread(CELLS.iloc[:0], ["measure"], ["variant"]).to_numpy().tolist() == [["not measured here"]]


def test_folded_intervals_stand_in_their_cells():
    wide = tables.spread(CELLS, ["variant"], ["measure"])
    html = tables.show_table(wide, fold=True)._repr_html_()
    assert "<td>+10.00<small> [+9.00, +11.00]</small></td>" in html
    assert html.count("<small>") == len(CELLS)
    assert '<input type="checkbox"> intervals' in html
    assert "checkbox" not in tables.show_table(pd.DataFrame({"a": [1.0]}), fold=True)._repr_html_()  # nothing to show


def test_what_made_it_stands_below():
    html = tables.show_table(CELLS, made="made by <code>x</code>")._repr_html_()
    assert '</table><p class="made">made by <code>x</code> · <a class="csv"' in html


def test_a_heading_has_no_underscore_and_the_data_have_their_own():
    shown = tables.show_table(pd.DataFrame({"effective_share": [1.0]}))._repr_html_()
    assert "<th>effective share</th>" in shown
    assert base64.b64encode(b"effective_share\n1.0\n").decode() in shown


@pytest.mark.parametrize(
    ("names", "ordered"),
    [
        (["epoch 0", "epoch 119", "epoch 20"], ["epoch 0", "epoch 20", "epoch 119"]),
        (["0.5 kept", "0.25 kept", "1 kept"], ["0.25 kept", "0.5 kept", "1 kept"]),
        (["CIFAR-100", "CIFAR-10: none", "CIFAR-10"], ["CIFAR-100", "CIFAR-10: none", "CIFAR-10"]),
        (["b", "a"], ["b", "a"]),
        ([], []),
    ],
)
def test_names_that_differ_in_a_number_alone_stand_in_its_order(names, ordered):
    assert tables.in_order(names) == ordered
