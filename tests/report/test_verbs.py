"""The verbs of a notebook: parameters by scale, what is recorded, told and refused."""

import json
import re

import matplotlib.pyplot as plt
import pandas as pd
import pytest

from uqlib.base import provenance
from uqlib.evidence import ledger, parameters
from uqlib.report import telling
from uqlib.report.verbs import begin

LEDGER = """
paper = "toy2000"
title = "Toy"
cite = "toy"
[[row]]
id = "toy2000-T1"
shows = "a table"
title = "Table 1: a gain"
notebook = "toy2000/one"
reported = [{setting = "S", quantity = "accuracy", value = 1.5, decimals = 1}]
[[row.claim]]
id = "toy-up"
text = "it rises"
quantity = "accuracy_gain"
holds = "> 0"
effect = 0.25
effect_at = "table 1, last line; read as printed"
[[row.claim]]
id = "toy-other"
text = "nobody measured it"
quantity = "other"
holds = "> 0"
"""
CELLS = pd.DataFrame(
    {"measure": ["accuracy"], "variant": ["ours"], "value": [0.2], "low": [0.1], "high": [0.3], "seeds": [3], "splits": [2],
     "level": [0.95], "covers": ["examples, trainings"]}
)  # fmt: skip

KEPT = ("quantity", "setting", "value", "low", "high", "seeds", "splits", "examples", "covers")


@pytest.fixture
def names(tmp_path, monkeypatch):
    (tmp_path / "data/ledger").mkdir(parents=True)
    (tmp_path / "data/ledger/toy2000.toml").write_text(LEDGER)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "uqlib"\n')
    monkeypatch.chdir(tmp_path)
    return {
        "scale": "cpu",
        "draws": 0,
        "benchmark": "",
        "seed": 0,
        "record": "out/one.json",
        "In": [],
        "_i": "x",
        "pd": pd,
    }


@pytest.fixture
def told(monkeypatch):
    found = {}
    monkeypatch.setattr("myst_nb.glue", lambda name, value, display: found.update({name: value}))
    return found


@pytest.fixture
def run(names):
    yield begin("toy2000/one", names, draws=[2, 9])
    plt.close("all")


@pytest.mark.parametrize(("scale", "draws"), [("smoke", 2), ("cpu", 9), ("gpu", 9), ("paper", 9)])
def test_the_scale_fills_in_what_is_empty(names, scale, draws):
    names["scale"] = scale
    run = begin("toy2000/one", names, draws=[2, 9], benchmark=["cifar10"])
    assert (names["draws"], names["benchmark"]) == (draws, "cifar10")
    assert run.run.parameters == {"draws": draws, "benchmark": "cifar10", "seed": 0, "scale": scale}


@pytest.mark.parametrize(("scale", "draws", "seed"), [("smoke", 2, 1), ("cpu", 9, 3), ("gpu", 9, 4), ("paper", 9, 4)])
def test_a_parameter_may_have_its_scales_side_by_side(names, scale, draws, seed):
    names["scale"] = scale
    begin("toy2000/one", names, draws=[2, 9], seed=[1, 3, 4])
    assert (names["draws"], names["seed"]) == (draws, seed)


def test_what_was_given_stays(names):
    names["draws"] = 5
    assert begin("toy2000/one", names, draws=[2, 9]).run.parameters["draws"] == 5


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"scale": "big"}, ValueError, "unknown scale 'big'"),
        ({"draws": -1}, ValueError, "draws must be a whole number of at least 0; it is -1"),
        ({"draws": 2.5}, TypeError, "draws must be a whole number"),
    ],
)
def test_parameters_are_checked(names, change, error, message):
    with pytest.raises(error, match=message):
        begin("toy2000/one", names | change, draws=[2, 9])


def test_a_parameter_that_is_not_there_is_named(names):
    with pytest.raises(ValueError, match="toy2000/one has no parameter 'drows' for scale cpu to set"):
        begin("toy2000/one", names, drows=[9])
    with pytest.raises(TypeError, match="benchmark must be of type str, such as 'x'; it is 3"):
        begin("toy2000/one", names | {"benchmark": 3}, benchmark=["x"])
    for values in (9, [], [1, 2, 3, 4]):
        with pytest.raises(ValueError, match="draws must have its values at smoke, cpu and gpu in a list"):
            begin("toy2000/one", names, draws=values)


def test_what_is_read_from_then_on_is_noted(names):
    provenance.note_input("before", "0")
    run = begin("toy2000/one", names)
    provenance.note_input("store: a/test/n", "12")
    assert run.run.inputs == {"store: a/test/n": "12"}


def test_an_interval_that_does_not_say_what_it_covers_is_refused(run):
    with pytest.raises(ValueError, match="accuracy_gain has intervals, and nothing says of what; add a column covers"):
        run.record("{measure}_gain", CELLS.drop(columns="covers"), setting="S")


def test_every_cell_is_recorded_under_its_template(run, tmp_path, told):
    run.record("{measure}_gain", CELLS, setting="S: {variant}, {title}", examples=50)
    claims = run.done()
    body = json.loads((tmp_path / "out/one.json").read_text())
    [found] = body["results"]
    assert {k: found[k] for k in KEPT} == {
        "quantity": "accuracy_gain", "setting": "S: ours, accuracy", "value": 0.2, "low": 0.1, "high": 0.3, "seeds": 3, "splits": 2,
        "examples": 50, "covers": ["examples", "trainings"],
    }  # fmt: skip
    assert told["claim.toy-up"] == "confirmed"
    assert told["claim.toy-other"] == "open"
    assert "nobody measured it" in repr(claims)


def test_a_quantity_that_no_claim_names_is_refused(run):
    with pytest.raises(
        ValueError, match="no claim of the ledger names the quantity 'acuracy_gain'; nearest: accuracy_gain"
    ):
        run.record("acuracy_gain", CELLS, setting="S")
    run.record("acuracy_gain", CELLS, setting="S", unclaimed=True)
    assert [each.quantity for each in run.run.results] == ["acuracy_gain"]


def test_two_results_of_one_name_are_refused(run):
    run.record("accuracy_gain", CELLS, setting="S")
    with pytest.raises(ValueError, match="accuracy_gain of S was added already"):
        run.record("accuracy_gain", CELLS, setting="S")


@pytest.mark.parametrize(("quantity", "setting"), [("{pair}_gain", "S"), ("accuracy_gain", "{pair}")])
def test_a_name_that_the_cells_lack_is_refused(run, quantity, setting):
    with pytest.raises(ValueError, match=r"names 'pair'; the cells have measure, variant, value"):
        run.record(quantity, CELLS, setting=setting)


def test_prose_is_told_by_the_names_of_the_cells(run, told):
    run.tell("{variant}.{measure}", CELLS)
    assert told["ours.accuracy"] == "+20.00 [+10.00, +30.00]"
    assert told["ours.accuracy.phrase"] == "surely higher"
    run.tell("none", CELLS.iloc[:0])
    assert told["none"] == "not measured here"
    run.note(weight=CELLS["value"].to_numpy()[0])
    assert type(told["weight"]) is float  # a page formats it, and cannot format NumPy's


def test_a_figure_is_kept_and_shown_with_words_and_data(run, tmp_path):
    shown = run.forest(CELLS, rows="measure", name="gain", what="Change")._repr_html_()
    assert (tmp_path / "out/one.figures/gain.svg").is_file()
    assert re.search(r'<img alt="Change\. \+20\.00 \[\+10\.00, \+30\.00\]\." src="data:image/svg\+xml;base64,', shown)
    assert 'download="gain.csv"' in shown
    assert not plt.get_fignums()


def test_a_table_beside_the_paper(run):
    text = repr(run.beside("toy2000-T1", CELLS, setting="S", rows="variant", columns="measure", caption="c"))
    assert re.search(r"accuracy, paper\s+accuracy\nours\s+1\.5\s+\+20\.00", text)
    assert "1.5" in repr(run.reported("toy2000-T1", caption="c"))
    with pytest.raises(KeyError, match="toy2000 has no row 'toy2000-T9'"):
        run.beside("toy2000-T9", CELLS, setting="S", rows="variant", columns="measure", caption="c")


def test_a_table_beside_two_rows_and_one_of_their_settings(run):
    second = run.paper["toy2000-T1"].reported[0]
    rows = [run.paper["toy2000-T1"], ledger.replace(run.paper["toy2000-T1"], id="toy2000-T2", reported=())]
    rows[1] = ledger.replace(rows[1], reported=(ledger.replace(second, setting="S: mild", quantity="ECE", value=7),))
    run.paper = {row.id: row for row in rows}
    both = pd.concat([CELLS, CELLS.assign(measure="ece", variant="mild")])
    options = dict(rows="variant", columns="measure", caption="c", ends=False)
    text = repr(run.beside(list(run.paper), both.assign(at=["S", "S: mild"]), setting="{at}", **options))
    assert re.search(r"ours\s+1\.5\s+\+20\.00", text)
    assert re.search(r"mild\s+–\s+–\s+7\.0\s+\+20\.00", text)
    split = dict(pattern=r"(?P<images>.*): (?P<variant>.*)", rows="images", columns=["quantity", "variant"])
    assert re.search(r"ECE, mild\s[\s\S]*S\s+7\.0", repr(run.reported("toy2000-T2", caption="c", **split)))


def test_a_draft_without_a_ledger_records_what_it_likes(names, monkeypatch):
    run = begin("mine/draft", names)
    run.record("anything", CELLS, setting="S")
    assert "<table" not in run.done()._repr_html_()  # nothing is claimed of it
    with pytest.raises(ValueError, match="mine/draft is of no paper with a ledger, so there is no row 'x'"):
        run.beside("x", CELLS, setting="S", rows="variant", columns="measure", caption="c")


def test_where_there_are_no_cells_it_says_so(names):
    run = begin("toy2000/one", names, draws=[10])
    expected = "Nothing <known>: not measured here."
    shown = run.table({}, rows="measure", columns="variant", caption="Nothing <known>")
    assert repr(shown) == repr(run.forest({}, rows="measure", name="x", what="Nothing <known>")) == expected
    assert repr(run.against({}, cost="balance", name="x", what="Nothing <known>")) == expected
    assert "<p>Nothing &lt;known&gt;: not measured here.</p>" in shown._repr_html_()


def test_a_title_says_what_the_cells_or_others_say(run):
    drawn = {"name": "one", "what": "Change"}
    run.forest(CELLS, rows="variant", title="{surely_higher} of {count} rise", **drawn)
    assert "1 of 1 rise" in run.run.path.with_suffix(".figures").joinpath("one.svg").read_text()
    run.labels = {"ours": "duo"}
    title = run.finding("the {variant} is {phrase}", CELLS)
    assert title == "the duo is surely higher"
    run.strips(CELLS.assign(value=-0.2), rows="variant", title=title, **drawn)
    assert title in run.run.path.with_suffix(".figures").joinpath("one.svg").read_text()
    assert repr(run.strips(CELLS[:0], rows="variant", **drawn)) == "Change: not measured here."
    run.against(CELLS.assign(cost=0.1, low=0.0), cost="cost", of="variant", **drawn)
    assert run.run.path.with_suffix(".figures").joinpath("one.svg").read_text().count(">ours</text>") == 2


def test_a_heat_of_nothing_says_so(run):
    assert repr(run.heat(pd.DataFrame(), name="heat", what="Change")) == "Change: not measured here."
    run.heat(pd.DataFrame([[0.1, 0.2]]), name="heat", what="Change", found=CELLS)
    assert run.run.path.with_suffix(".figures").joinpath("heat.svg").is_file()


def test_kept_cells_are_those_that_were_recorded(names, told):
    """What `record` was given comes back, by the same templates, from the record that travels with the book."""
    run = begin("toy2000/one", names | {"record": "data/records/toy2000/one.json"})
    frame = pd.DataFrame(
        {
            "variant": ["ours", "theirs"],
            "kind": ["a - b", "c"],
            "value": [0.25, 0.5],
            "low": [0.0, 0.4],
            "high": [0.5, 0.6],
            "level": [0.95, 0.95],
            "splits": [1, 3],
            "seeds": [2, 1],
            "covers": ["examples, trainings", "examples"],
        }
    )
    run.record("level_{variant}", frame, setting="S (all) {kind}: x", examples=7, unclaimed=True)
    run.record("accuracy_gain", CELLS, setting="S")
    run.record("counted", pd.DataFrame({"value": [7]}), setting="S", unclaimed=True)
    run.done()
    later = begin("toy2000/one", names)
    found = later.kept("level_{variant}", "S (all) {kind}: x")
    pd.testing.assert_frame_equal(found, frame.assign(examples=7)[list(found)], check_dtype=False)
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", found.attrs["date"])
    assert later.kept("accuracy_gain", "S")["value"].tolist() == [0.2]
    assert "seeds" not in later.kept("counted", "S")  # or the page would say: of one training
    assert len(later.kept("accuracy", "S")) == 0  # the whole name counts, not how it begins
    assert "data/records/toy2000/one.json" in provenance.INPUTS


def test_without_a_kept_record_there_are_no_kept_cells(names, told):
    found = begin("toy2000/one", names).kept("{measure}_gain", "{place}")
    assert list(found)[:3] == ["measure", "place", "value"]
    assert len(found) == 0
    assert found.attrs["date"] == ""


@pytest.mark.parametrize(("lacks", "verdict"), [(["people"], "confirmed"), ([], "open")])
def test_a_claim_of_a_run_that_lacks_data_is_judged_by_the_kept_record(names, told, lacks, verdict):
    run = begin("toy2000/one", names | {"record": "data/records/toy2000/one.json"})
    run.record("accuracy_gain", CELLS, setting="S")
    run.done()
    later = begin("toy2000/one", names)
    later.run.lacks = lacks
    later.done()
    assert told["claim.toy-up"] == verdict
    assert told["claim.toy-other"] == "open"


def test_gains_of_the_paper_stand_beside_our_intervals(names, told):
    run = begin("toy2000/one", names)
    numbers = {"S: ours": 95.5, "S: theirs": 94.0}
    reported = tuple(ledger.Reported(setting=k, quantity="accuracy", value=v) for k, v in numbers.items())
    run.paper = ledger.replace(run.paper, rows=(ledger.replace(run.paper.rows[0], reported=reported),))
    frame = pd.DataFrame(
        {"place": ["S", "T"], "variant": "theirs", "value": [0.01, 9], "low": [0.0, 9], "high": [0.012, 9]}
    )
    asked = dict(setting="{place}: {variant}", quantity="accuracy", minus="ours")
    run.labels = {"theirs": "their loss"}
    assert (
        run.placed("toy2000-T1", frame, **asked, place="S")
        == "over their loss +1.50, above ours of +1.00 [0.00, +1.20]"
    )
    assert run.placed("toy2000-T1", frame, **asked, place="U") == "not measured here"


def test_what_is_told_has_its_evidence(run, told):
    """Whatever the order of the verbs: the claim is that of the quantity under which the same cell is recorded."""
    run.tell("{measure}", CELLS)
    run.record("{measure}_gain", CELLS, setting="S", examples=50)
    run.done()
    text = "accuracy, ours: +20.00 [+10.00, +30.00] points; 95 % intervals over other examples and trainings, 2 splits, 3 trainings."
    assert told["accuracy§"] == f"{text} Paper: 25.00 points (table 1, last line). {{claim:toy-up}}"
    assert told["claim.toy-up§"] == "it rises: certain in 1, by value in 1 of 1 setting. {claim:toy-up}"
    assert re.fullmatch(r"seed 0, scale cpu, \d{4}-\d\d-\d\d", told["§"])


def test_the_papers_number_in_a_table_is_told_with_ours(run, told):
    run.tell("x", CELLS)
    run.beside("toy2000-T1", CELLS, setting="S", rows="variant", columns="measure", caption="c")
    run.note(draws=9, reported=run.paper["toy2000-T1"].reported[0])
    run.done()
    assert "Paper: 1.5 in Table 1." in told["x§"]
    assert told["draws§"] == "A parameter of the notebook."
    assert (told["reported"], told["reported§"]) == (1.5, "Table 1 of the paper: accuracy, S.")


def test_a_table_says_what_made_it_and_what_it_rests_on(run):
    shown = run.table(CELLS, rows="measure", columns="variant", caption="c", ends=False)._repr_html_()
    made = r'<p class="made">made by <code>uqlib run notebooks/toy2000/one.ipynb</code>, seed 0, scale cpu, [\d-]+'
    assert re.search(made + " · 95 % intervals over other examples and trainings, 2 splits, 3 trainings · <a", shown)
    assert "<td>+20.00<small> [+10.00, +30.00]</small></td>" in shown
    assert re.search(made + " · Table 1 of the paper", run.reported("toy2000-T1", caption="c")._repr_html_())


@pytest.mark.parametrize(
    ("given", "rule", "message"),
    [
        (1.0, "(0, 1)", r"given must lie in \(0, 1\); it is 1.0"),
        ([0.5, 2], "(0, 1)", r"given\[1\] must lie in \(0, 1\); it is 2"),
        ([], "(0, 1)", "given is empty; it needs an entry or more"),
        (10, range(2, 10), "given must be a whole number of at least 2 and of at most 9; it is 10"),
        (0, 1, "given must be a whole number of at least 1; it is 0"),
        ("c", ["a", "b"], "unknown given 'c'; choose from a, b"),
        (0.0, "(0, 9]", "given must be a finite number above 0.0 and of at most 9.0; it is 0.0"),
    ],
)
def test_what_is_not_allowed_is_named_before_anything_runs(names, given, rule, message):
    with pytest.raises(ValueError, match=message):
        begin("toy2000/one", names | {"given": given}, draws=[2, 9], allowed={"given": rule})


def test_what_is_allowed_passes(names):
    given = {"share": 0.5, "levels": [0.1, 0.9], "heads": 3, "network": "a", "classes": 2, "price": 1e9}
    rules = {
        "share": "(0, 1)",
        "levels": "[0, 1]",
        "heads": 1,
        "network": ("a", "b"),
        "classes": range(2, 4),
        "price": "[0, inf)",
    }
    begin("toy2000/one", names | given, draws=[2, 9], allowed=rules)


def test_a_verdict_of_other_parameters_says_so(names, tmp_path, monkeypatch):
    """The claim is about the parameters of the notebook as it stands; draws, the seed and what stands aside change no claim."""
    source = 'scale = "cpu"\nseed = 0\ndraws = 0\nshare = 0.2\nepochs = 0\nrecord = ""\n'
    cell = {"cell_type": "code", "metadata": {"tags": ["parameters"]}, "source": source.splitlines(keepends=True)}
    (tmp_path / "one.ipynb").write_text(json.dumps({"cells": [cell]}))
    monkeypatch.setattr(
        parameters, "in_checkout", lambda place: tmp_path / "one.ipynb" if place.endswith("one.ipynb") else None
    )
    for given, words in [
        ({"share": 0.2, "epochs": 0, "seed": 4, "draws": 7}, ""),
        ({"share": 0.5, "epochs": 3}, " (with share = 0.5, epochs = 3)"),
        ({}, ""),
    ]:
        assert begin("toy2000/one", names | given, draws=[2, 9]).changed == words
    assert begin("toy2000/one", names | {"epochs": 3}, draws=[2, 9], aside=["epochs"]).changed == ""


def test_what_the_paper_reports_keeps_its_digits():
    """-0.0053 beside ours of the same size is not -0.01."""
    about = {"id": "toy", "text": "it falls", "quantity": "err", "holds": "< 0", "effect_at": "table 1; read"}
    told = [
        telling.effect_text(ledger.Claim(**about, effect=x), unit)
        for x, unit in [(-0.0053, ""), (0.25, ""), (0.00255, " points")]
    ]
    assert told == ["\N{MINUS SIGN}0.0053 (table 1)", "0.25 (table 1)", "0.255 points (table 1)"]
