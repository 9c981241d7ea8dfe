"""Numbers as words: what a sentence takes from the results is what they say."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from uqlib.report import telling


def frame(*rows, **names):
    return pd.DataFrame([dict(zip(("value", "low", "high"), row, strict=False)) for row in rows]).assign(**names)


UP, DOWN, UNSURE = (0.2, 0.1, 0.3), (-0.2, -0.3, -0.1), (0.1, -0.1, 0.3)


@pytest.mark.parametrize(
    ("rows", "better", "expected"),
    [
        ([UP], "", "surely higher"),
        ([DOWN], "higher", "surely lower"),
        ([UNSURE], "", "not surely different"),
        ([(0.0, 0.0, 0.0)], "", "not surely different"),
        ([(0.1,)], "", "higher"),
        ([(-0.1,)], "", "lower"),
        ([(0.0,)], "", "the same"),
        ([UP, UP], "higher", "surely better in all 2"),
        ([UP, UP], "lower", "surely worse in all 2"),
        ([UP, DOWN, UNSURE], "higher", "better in 2 of 3, surely in 1, surely worse in 1"),
        ([UP, DOWN, UNSURE], "lower", "better in 1 of 3, surely in 1, surely worse in 1"),
        ([UNSURE, UNSURE], "higher", "better in all 2, surely in none, surely worse in none"),
        ([UNSURE, UNSURE], "lower", "better in none of 2, surely worse in none"),
        ([UP, UNSURE], "", "higher in all 2, surely in 1, surely lower in none"),
    ],
)
def test_the_phrase_says_what_the_intervals_say(rows, better, expected):
    assert telling.wording(frame(*rows), better) == expected


@pytest.mark.parametrize(("rows", "seeds", "expected"), [
    ([UP], 1, "surely higher, of one training"), ([UP], 3, "surely higher"), ([UP], None, "surely higher"), ([(0.1,)], 1, "higher, of one training"),
    ([UP, UP, UP], 1, "surely better in all 3, of one training each"), ([UP, UP], [1, 3], "surely better in all 2, 1 of them of one training"),
    ([UP, UP], [None, 3], "surely better in all 2"),
])  # fmt: skip
def test_a_phrase_says_what_rests_on_one_training(rows, seeds, expected):
    assert telling.wording(frame(*rows, seeds=seeds), "higher" if len(rows) > 1 else "") == expected


def test_numbers_and_titles_say_what_rests_on_one_training():
    one, two = frame(UP, seeds=1), frame(UP, DOWN, seeds=1, pair=["a", "b"])
    assert telling.facts(one)[""] == "+20.00 [+10.00, +30.00], of one training"
    assert telling.facts(two)[""].endswith("b: −20.00 [−30.00, −10.00], of one training each")
    assert telling.facts(two)[".least"] == "−20.00"
    assert telling.finding("by {text} points", one) == "by +20.00 [+10.00, +30.00] points (of one training)"
    assert (
        telling.finding("{phrase} pairs", frame(UP, UP, seeds=[1, 2]))
        == "surely higher in all 2 pairs (1 of them of one training)"
    )
    assert telling.rests_on(one) == "; one training"
    assert telling.rests_on(frame(UP, seeds=5, covers="trainings")).endswith("other trainings, 5 trainings")


def test_a_name_that_is_left_alone_is_said():
    """Two data sets were asked and one has a result: it is named, since the sentence is read as general."""
    values = xr.DataArray([[0.2, np.nan], [0.1, np.nan]], {"terms": ["x", "y"], "dataset": ["CIFAR-10", "CIFAR-100"]})
    cells = frame((0.2,), (0.1,), terms=["x", "y"], dataset="CIFAR-10")
    assert telling.left_alone(values, cells) == ["dataset"]
    assert telling.left_alone(values.isel(dataset=[0]), cells) == telling.left_alone(cells, cells) == []
    told = telling.facts(cells.iloc[:1].assign(seeds=1), left=["dataset"])
    assert told[""] == "CIFAR-10: +20.00, of one training"
    assert told[".phrase"] == "higher (CIFAR-10), of one training"
    assert told[".which"] == "CIFAR-10"
    assert telling.facts(cells, left=["dataset"])[".which"] == "x CIFAR-10; y CIFAR-10"


def test_nothing_measured_is_said_in_words():
    empty = frame(UP).iloc[:0]
    told = telling.facts(empty)
    assert told[""] == told[".phrase"] == told[".least_at"] == "not measured here"
    assert told[".count"] == 0


def test_counts_by_brute_force():
    rows = [UP, DOWN, UNSURE, (-0.1, -0.2, 0.05), (0.0, -0.1, 0.1)]
    found = telling.tally(frame(*rows), "lower")
    assert found.better == sum(value < 0 for value, _, _ in rows)
    assert found.surely == sum(high < 0 for _, _, high in rows)
    assert found.worse == sum(low > 0 for _, low, _ in rows)
    with pytest.raises(ValueError, match="unknown direction 'up'; choose from higher, lower"):
        telling.tally(frame(UP), "up")


def test_the_measure_says_which_way_is_better():
    assert telling.facts(frame(DOWN, DOWN, measure="aurc", pair=["a", "b"]))[".better"] == 2
    assert telling.facts(frame(DOWN, DOWN, measure="accuracy", pair=["a", "b"]))[".better"] == 0
    mixed = telling.facts(frame(DOWN, DOWN, measure=["aurc", "accuracy"]))
    assert mixed[".phrase"] == "surely lower in all 2"


def test_facts_name_the_least_and_the_most():
    told = telling.facts(frame(UP, DOWN, pair=["one", "two"], measure="ece"), labels={"one": "the first"})
    assert told[""] == "the first: +20.00 [+10.00, +30.00]; two: −20.00 [−30.00, −10.00]"
    assert (told[".least"], told[".least_at"]) == ("−20.00", "two")
    assert (told[".most"], told[".most_at"]) == ("+20.00", "the first")


@pytest.mark.parametrize(
    ("row", "style", "expected"),
    [
        ({"value": 0.00536, "low": 0.0021, "high": 0.0085}, {}, "+0.54 [+0.21, +0.85]"),
        ({"value": -0.0012, "low": -0.002, "high": 0.00001, "measure": "aurc"}, {}, "−0.120 [−0.200, +0.001]"),
        ({"value": 0.25, "low": 0.2, "high": 0.3, "measure": "nll"}, {}, "+0.250 [+0.200, +0.300]"),
        ({"value": 0.25, "low": 0.2, "high": 0.3}, {"percent": False, "signed": False}, "0.25 [0.20, 0.30]"),
        ({"value": 0.9, "low": None, "high": None}, {"signed": False, "digits": 1}, "90.0"),
        ({"value": -1e-7, "low": 0.1, "high": 0.2}, {"ends": False}, "0.00"),
        ({"value": float("nan")}, {}, "–"),
        ({"value": float("inf")}, {"signed": False}, "∞"),
    ],
)
def test_numbers_in_print(row, style, expected):
    assert telling.in_print(pd.DataFrame([row]), **style) == [expected]


def test_a_template_groups_by_its_names():
    rows = frame(UP, DOWN, UP, measure=["aurc", "aurc", "ece"], variant=["a", "b", "a"])
    assert [(name, len(part)) for name, part in telling.grouped("{measure}.gain", rows)] == [
        ("aurc.gain", 2), ("ece.gain", 1),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="names 'pair'; the cells have value, low, high, measure, variant"):
        list(telling.grouped("{pair}", rows))


@pytest.mark.parametrize(("reported", "where"), [(1.88, "above"), (0.5, "within"), (-0.2, "within"), (-0.21, "below")])
def test_a_number_of_the_paper_stands_above_below_or_within_ours(reported, where):
    row = {"value": 0.004, "low": -0.002, "high": 0.01}
    told = telling.placed(reported, row)
    assert told == f"{telling.number_text(reported, signed=True)}, {where} ours of +0.40 [−0.20, +1.00]"
    with pytest.raises(ValueError, match="beside an interval"):
        telling.placed(reported, {"value": 0.004})


EVIDENCE = pd.DataFrame(
    {"measure": "aurc", "variant": ["a", "b", "a_x"], "value": [0.01, -0.02, 0.03], "low": [0.0, -0.03, 0.02], "high": [0.02, -0.01, 0.04],
     "level": 0.95, "covers": "examples, splits", "examples": [90, 1200, 90], "splits": 10, "seeds": 1}
)  # fmt: skip


def test_evidence_gives_cells_unit_what_the_interval_covers_and_n():
    one = telling.evidence_text(EVIDENCE.iloc[:1], labels={"a": "the duo"}, ends=False)
    assert (
        one
        == "AURC, the duo: +1.000 [0.000, +2.000] points; 95 % intervals over other examples and splits, n = 90, 10 splits, one training."
    )
    two = telling.evidence_text(EVIDENCE.iloc[:2], signed=False)
    assert two.startswith("AURC: 1.000 [0.000, 2.000] (a); −2.000 [−3.000, −1.000] (b) %; ")
    assert two.endswith("n = 90 to 1,200, 10 splits, one training each.")
    assert telling.evidence_text(EVIDENCE.iloc[:0]) == "not measured here."


@pytest.mark.parametrize(
    ("covers", "count"),
    [
        ("examples, trainings", "3 trainings"),
        ("examples, networks", "3 networks"),
        ("scenes", "3 scenes"),
        (None, "3 repetitions"),
    ],
)
def test_evidence_counts_what_the_interval_covers(covers, count):
    text = telling.evidence_text(EVIDENCE.iloc[:1].assign(covers=covers, splits=1, seeds=3))
    assert text.endswith(f", {count}.")


def test_evidence_of_many_cells_counts_them_and_gives_the_ends():
    many = pd.concat([EVIDENCE.assign(variant=["a", "b", "c"]), EVIDENCE.assign(variant=["d", "e", "f"])])
    text = telling.evidence_text(many)
    assert (
        "AURC: 6 results, 2 better, 2 surely, 2 surely worse, from −2.000 [−3.000, −1.000] (b) to +3.000 [+2.000, +4.000] (c) points"
        in text
    )
    assert "better" not in telling.evidence_text(many, signed=False)


def test_evidence_names_nothing_by_a_word_of_the_program():
    text = telling.evidence_text(EVIDENCE.assign(cost=[1, 2, 3]))
    assert "a_x" not in text
    assert "(cost 3)" in text  # numbers tell the cells apart where no words do


def test_units_of_evidence():
    assert telling.unit_text(EVIDENCE.assign(measure="nll")) == " nats"
    assert telling.unit_text(EVIDENCE, percent=False) == ""


def test_a_name_that_nobody_gave_a_label_is_shown_with_spaces():
    assert telling.label("all_members") == "all members"
    assert telling.label("all_members", {"all_members": "all"}) == "all"


def test_a_finding_is_completed_by_its_cells_as_a_whole_or_by_name():
    frame = pd.DataFrame(
        {"score": ["a_b", "a_b", "c"], "pair": ["x", "y", "x"], "value": [-0.01, -0.02, 0.03], "low": [-0.02, -0.03, -0.01],
         "high": [0.01, -0.01, 0.04]}
    )  # fmt: skip
    told = telling.finding("lower in {lower} of {count}, surely {surely_lower}, up to {most} at {most_at}", frame)
    assert told == "lower in 2 of 3, surely 1, up to +3.00 at c x"
    by = telling.finding("{score} in {lower} of {count}", frame, by="score", labels={"c": "sea"})
    assert by == "a b in 2 of 2, sea in 0 of 1"
    assert telling.finding("{text}", frame[:1], ends=False) == "−1.00"
    assert telling.finding("{lower} of {count}", frame[:0]) == "0 of 0"


@pytest.mark.parametrize(("many", "one"), [("networks", "network"), ("losses", "loss"), ("classes", "class"), ("severities", "severity"),
                                       ("boxes", "box"), ("labelled images", "labelled image")])  # fmt: skip
def test_one_of_many(many, one):
    assert telling.singular(many) == one
    assert [telling.counted(n, many) for n in (0, 1, 2000)] == [f"0 {many}", f"1 {one}", f"2,000 {many}"]


def test_what_is_no_plural_is_refused():
    with pytest.raises(ValueError, match="'sheep' is no plural"):
        telling.singular("sheep")


@pytest.mark.parametrize(("shown", "after", "told"), [
    ("1", " networks of a benchmark", "1 network of a benchmark"), ("2", " networks", "2 networks"), ("1", " % of them", "1 % of them"),
    ("better in all 1", " classes", "better in all 1 class"), ("surely lower", " pairs of it", "surely lower in the one pair of it"),
    ("surely lower in all 36", " pairs", "surely lower in all 36 pairs"), ("1", " errs", "1 errs"), ("1", " loss", "1 loss"),
    ("+5.45 [+5.00, +5.90], of one training", " points, where", "+5.45 [+5.00, +5.90] points, of one training, where"),
    ("better in all 3, of one training each", " pairs of it", "better in all 3 pairs, of one training each of it"),
    ("better in all 3, 1 of them of one training", " pairs.", "better in all 3 pairs, 1 of them of one training."),
    ("5.00, of one training", " %, and", "5.00 %, of one training, and"), ("+5.45, of one training", " (lower", "+5.45, of one training (lower"),
    ("surely lower, of one training", " pairs.", "surely lower in the one pair, of one training."), ("lower, of one training", ", and", "lower, of one training, and"),
    ("surely lower", ", and", "surely lower, and"), ("not measured here", " pairs", "not measured here pairs"),
])  # fmt: skip
def test_a_number_and_the_words_after_it_agree(shown, after, told):
    assert "".join(telling.agreeing(shown, after)) == told
