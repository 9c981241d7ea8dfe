import csv
import io
import json

import pytest
import yaml

from uqlib.evidence import export
from uqlib.evidence.ledger import Claim, Ledger, Reported, Row
from uqlib.evidence.records import read_runs, start_run


@pytest.fixture
def runs(tmp_path):
    from types import SimpleNamespace

    run = start_run("p2020/one", scale="cpu", parameters={}, path=tmp_path / "one.json")
    run.add(
        "change",
        SimpleNamespace(value=-2, low=-3, high=-1, level=0.95),
        setting="a, b",
        covers=["examples"],
        examples=90,
    )
    run.add("change", -1, setting="c")
    run.save()
    return read_runs(tmp_path)


CLAIMS = (
    Claim("c", 'it "falls"', "change", "< 0", effect=-1.0, effect_at="table 1"),
    Claim("d", "more", "other", "> 0"),
)
LEDGERS = [
    Ledger(
        "p2020",
        "A: paper",
        "k",
        (Row("r", "x", notebook="p2020/one", claims=CLAIMS, reported=(Reported("s", "q", 1),)),),
    )
]


def test_json_has_what_a_meta_analysis_needs(runs):
    (paper,) = json.loads(export.as_json(LEDGERS, runs))["papers"]
    one, other = paper["rows"][0]["claims"]
    assert (one["id"], one["verdict"], one["settings"], one["certain"]) == ("c", "direction only", 2, 1)
    assert (one["effect"], one["condition"], one["agrees_with_paper"]) == (-1.0, "< 0", None)
    first, second = one["evidence"]
    assert first["standard_error"] == pytest.approx(1 / 1.959964)
    assert (first["covers"], first["examples"], second["standard_error"]) == (["examples"], 90, None)
    assert first["record_sha256"] == runs[0]["sha256"]
    assert (other["verdict"], other["evidence"], other["p"]) == ("open", [], None)


def test_csv_has_a_line_a_setting(runs):
    lines = list(csv.DictReader(io.StringIO(export.as_csv(LEDGERS, runs))))
    assert [(each["claim"], each["setting"], each["value"]) for each in lines] == [
        ("c", "a, b", "-2.0"),
        ("c", "c", "-1.0"),
        ("d", "", ""),
    ]
    assert lines[0]["text"] == 'it "falls"'
    assert (lines[0]["covers"], lines[0]["condition"], lines[2]["verdict"]) == ("examples", "< 0", "open")
    assert all(None not in each for each in lines)


def test_codecheck_names_each_record_and_its_claims(runs):
    (body,) = yaml.safe_load_all(export.as_codecheck(LEDGERS, runs))
    assert body["paper"]["title"] == "A: paper"
    (entry,) = body["manifest"]
    assert entry == {"file": runs[0]["path"].as_posix(), "comment": "c: direction only"}
    assert next(yaml.safe_load_all(export.as_codecheck(LEDGERS, [])))["manifest"] == []
