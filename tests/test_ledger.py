import dataclasses

import pytest

from uqlib import ledger
from uqlib.ledger import Claim, Row
from uqlib.records import Result

BELOW = Claim("c", "it falls", "change", "< 0")


def result(value, low=None, high=None, scale="cpu", quantity="change", setting="s"):
    return Result(quantity, setting, value, low, high, scale=scale)


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        ([], "open"),
        ([result(-2, -3, -1)], "confirmed"),
        ([result(-2, -3, 1)], "direction only"),
        ([result(-2)], "direction only"),  # no interval, no certainty
        ([result(2, 1, 3)], "not confirmed"),
        ([result(2, -1, 3)], "not confirmed"),
        ([result(-2, -3, -1), result(-1, -2, 1)], "direction only"),
        ([result(-2, -3, -1), result(1, -2, 2)], "not confirmed"),
        ([result(-2, -3, -1, scale="gpu")], "open"),
        ([result(-2, -3, -1, quantity="other")], "open"),
    ],
)
def test_verdict_of_a_claim_that_must_hold_everywhere(results, verdict):
    assert ledger.judge(BELOW, results, "cpu").verdict == verdict


@pytest.mark.parametrize(("misses", "verdict"), [(0, "confirmed"), (1, "confirmed"), (2, "not confirmed")])
def test_nearly_all_means_nine_in_ten(misses, verdict):
    claim = dataclasses.replace(BELOW, share=0.9)
    results = [result(-2, -3, -1)] * (10 - misses) + [result(1, 0.5, 2)] * misses
    assert ledger.judge(claim, results, "cpu").verdict == verdict


@pytest.mark.parametrize(
    ("holds", "inside", "outside"),
    [
        ("< 0", -1, 0),
        ("<= 0", 0, 0.1),
        ("> 0.5", 0.6, 0.5),
        (">= -1e-3", -0.001, -0.0011),
        ("|x| < 0.2", -0.19, 0.2),
        ("|x| < 0.2", 0.19, -0.2),
    ],
)
def test_conditions(holds, inside, outside):
    claim = Claim("c", "", "q", holds)
    assert claim.meets(inside)
    assert not claim.meets(outside)


@pytest.mark.parametrize("holds", ["0", "about 3", "< ", "== 1", "< -", "< 1e", 0])
def test_a_condition_that_cannot_be_read_is_refused(unchecked, holds):
    with pytest.raises(ValueError, match="cannot read the condition"):
        Claim("c", "", "q", holds)


def test_share_out_of_range():
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\]; it is 2"):
        Claim("c", "", "q", "< 0", share=2)


def test_each_scale_with_evidence_has_its_verdict():
    row = Row("r", "", claims=(BELOW,))
    found = ledger.verdicts(row, [result(-2, -3, -1, scale="gpu"), result(1, 0.5, 2)])
    assert [(v.scale, v.verdict) for v in found] == [("cpu", "not confirmed"), ("gpu", "confirmed")]


def test_a_row_that_cannot_be_tested_says_so():
    assert ledger.verdicts(Row("r", "", claims=(BELOW,), not_testable="no data"), [])[0].verdict == "not testable here"


def test_reported_numbers_keep_the_printed_digits(repository):
    row = ledger.load(repository / "data/ledger/zhou2025.toml")["zhou2025-F5"]
    number = row.number("ImageNet, ViT-B CLIP", "AURC, base")
    assert (number.value, str(number)) == (3.76, "3.76")
    with pytest.raises(KeyError, match="reports no 'AURC' for 'digits'; it has ImageNet"):
        row.number("digits", "AURC")


def test_every_ledger_of_the_project_loads_and_names_notebooks_that_exist(repository):
    for each in ledger.load_all(repository / "data/ledger"):
        for row in each.rows:
            assert not row.notebook or (repository / f"notebooks/{row.notebook}.ipynb").is_file(), row.id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('paper="p"\ntitle="t"\ncite="c"\n[[row]]\nid="a"\nshows=""\nbanana=1', "banana"),
        ('paper="p"\ntitle="t"\n', "cite"),
        ('paper="p"\ntitle="t"\ncite="c"\n[[row]]\nid="a"\nshows=""\n[[row]]\nid="a"\nshows=""', "stand twice: a"),
    ],
)
def test_a_ledger_with_a_mistake_is_refused(tmp_path, text, message):
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        ledger.load(path)


def test_unknown_row_lists_the_known(repository):
    with pytest.raises(KeyError, match="has no row 'F99'; choose from zhou2025-F1"):
        ledger.load(repository / "data/ledger/zhou2025.toml")["F99"]


@pytest.mark.parametrize("text", ["[[row]\nid=", "[row]\nid = 'a'"])
def test_a_file_that_is_no_ledger_is_named(tmp_path, text):
    path = tmp_path / "cut.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"cut\.toml: "):
        ledger.load(path)
