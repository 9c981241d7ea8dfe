import dataclasses
import json

import msgspec

from uqlib.evidence.ledger import Claim, Ledger, Row
from uqlib.evidence.records import Result
from uqlib.evidence.verdicts import judge_ledger
from uqlib.report.computed import verdict_pages

CLAIM = Claim("c", "it falls", "change", "< 0")
LEDGER = Ledger("p2020", "A paper", "key2020", arxiv="2001.00001", rows=(
    Row("p2020-T1", "what it shows", title="Table 1: a slope", notebook="p2020/one", claims=(CLAIM,)),
    Row("p2020-T2", "a list", not_testable="no data"),
    Row("p2020-T3", "more", claims=(Claim("d", "|x| is small", "other", "|x| < 2", ours=True),)),
))  # fmt: skip
RESULT = Result(
    "change",
    "digits",
    -2.0,
    -3.0,
    -1.0,
    0.95,
    splits=3,
    seeds=2,
    examples=90,
    covers=("examples", "splits"),
    scale="cpu",
)
WORSE = Result("change", "digits", 2.0, 1.0, 3.0, 0.95, covers=("examples",), scale="gpu")


def rows(page):
    head, _, *lines = [[c.strip() for c in line.strip("|").split(" | ")] for line in page.strip().splitlines()]
    return [dict(zip(head, line, strict=True)) for line in lines]


def summary(*results):
    tables = verdict_pages.summary_page([judge_ledger(LEDGER, list(results))]).split("\n\n")
    return [rows(each)[0] for each in tables]


def test_summary_counts_the_papers_claims_and_ours_apart():
    paper, ours = summary(RESULT)
    assert (paper["claims"], paper["✔ confirmed"], paper["○ open"]) == ("1", "1", "")
    assert next(iter(paper)) == "**Claims of the papers**"
    assert paper["✘ contradicted"] == ""
    assert paper["– not testable here"] == "1"  # a row without a claim
    assert ours["claims"] == "1"
    assert (ours["✔ confirmed"], ours["○ open"], ours["– not testable here"]) == ("", "1", "")


def test_the_largest_scale_with_evidence_counts():
    paper, _ = summary(WORSE, RESULT)
    assert (paper["✔ confirmed"], paper["✘ contradicted"]) == ("", "1")  # confirmed at cpu scale, but not at gpu scale


def test_ledger_page_gives_the_evidence():
    page = verdict_pages.ledger_page(LEDGER, [RESULT])
    head = '<details class="claim confirmed" id="claim-c"><summary><b>✔ confirmed (cpu)</b> it falls <small>asks for <code>&lt; 0</code>'
    assert f"{head} for other examples in all of 1 setting: sure in 1, by value in 1</small></summary>" in page
    assert (
        "<li>digits: −2 [−3, −1] (95 % interval over examples and splits, 3 splits, 2 repetitions, n = 90)</li>" in page
    )
    assert "(p2020-T1)=\n### Table 1: a slope\n" in page
    assert "`p2020-T1` · re-derived in [one](results/p2020/one.ipynb)" in page
    assert "– not testable here: no data." in page
    assert "no claim in checkable form" not in page  # each row has claims, or the reason why not
    assert '<div class="claim open" id="claim-d"><b>○ open</b> Ours: |x| is small' in page
    assert "arXiv:2001.00001](https://arxiv.org/abs/2001.00001)" in page


def test_what_all_settings_share_is_said_once():
    both = [RESULT, dataclasses.replace(RESULT, setting="letters_2", examples=80)]
    page = verdict_pages.ledger_page(LEDGER, both)
    assert "Every setting: 95 % interval over examples and splits, 3 splits, 2 repetitions." in page
    assert "<li>digits: −2 [−3, −1] (n = 90)</li><li>letters 2: −2 [−3, −1] (n = 80)</li>" in page


def test_text_of_a_claim_never_runs():
    claim = msgspec.structs.replace(CLAIM, text="</details><script>\n\n`<b>`")
    page = verdict_pages.ledger_page(Ledger("p2020", "t", "k", (Row("r", "x", claims=(claim,)),)), [RESULT])
    assert "&lt;/details&gt;&lt;script&gt;  <code>&lt;b&gt;</code>" in page


def test_the_facts_of_a_verdict_are_plain():
    judged = judge_ledger(LEDGER, [RESULT])
    c, d = verdict_pages.verdict_facts([judged])
    assert json.loads(json.dumps([c, d])) == [c, d]
    assert (c["id"], c["anchor"], c["notebook"], c["place"], c["verdict"]) == (
        "c",
        "claim-c",
        "p2020/one",
        "Table 1",
        "confirmed",
    )
    assert (d["place"], d["ours"], d["verdict"], d["mark"]) == ("p2020-T3", True, "open", "○")


def test_the_facts_that_count_add_up_to_the_findings():
    claims = [Claim(name, name, fact, "> 0", fact=fact) for name, fact in (("a", "x"), ("b", "x"), ("e", "y"))]
    rows = tuple(Row(f"r{k}", "x", claims=(claim,)) for k, claim in enumerate(claims))
    judged = judge_ledger(Ledger("p2020", "t", "k", rows), [])
    facts = verdict_pages.verdict_facts([judged])
    assert [each["counts"] for each in facts] == [True, False, True]
    assert judged.findings(ours=False) == {"open": 2}


def test_what_an_undecided_claim_could_have_seen_is_told():
    claim = msgspec.structs.replace(CLAIM, effect=-1.0, effect_at="table 1")
    ledger = Ledger("p2020", "A paper", "key2020", (Row("p2020-T1", "x", claims=(claim,)),))
    result = Result("change", "digits", -0.1, -1.08, 0.88, 0.95, covers=("examples",), scale="cpu")
    share = Result("multiverse_share", "c", 0.93, scale="cpu")
    page = verdict_pages.ledger_page(ledger, [result, share])
    assert "? undecided (cpu)" in page
    assert (
        "would have seen a distance of 1.4 from the bound in four of five cases, and the paper's number in 52 %."
        in page
    )
    assert "The paper reports −1 (table 1); ours predicts [−1.49, 1.29]." in page
    assert "Stands in 93 % of the universes" in page
    (row,) = rows(verdict_pages.papers_numbers([judge_ledger(ledger, [result])]))
    assert (row["paper"], row["ours"], row["sceptical p"]) == ("−1", "−0.1", "")
    assert row["paper's in our prediction interval"] == "inside of [−1.49, 1.29]"


def test_claims_that_rest_on_one_finding_name_each_other():
    claims = (msgspec.structs.replace(CLAIM, id="a", fact="f"), msgspec.structs.replace(CLAIM, id="b", fact="f"))
    page = verdict_pages.ledger_page(Ledger("p2020", "t", "k", (Row("r", "x", claims=claims),)), [RESULT])
    assert 'Rests on the same finding as <a href="#claim-b">r</a>' in page


def test_only_verdicts_that_depend_on_the_criterion_are_listed():
    claims = (
        CLAIM,
        msgspec.structs.replace(CLAIM, id="e", quantity="sure"),
        msgspec.structs.replace(CLAIM, id="f", quantity="bare"),
    )
    bare, like = (
        Result(name, "s", -2.0, -3.99, -0.01, 0.95, covers=("examples",), scale="cpu") for name in ("change", "bare")
    )
    sure = Result("sure", "s", -2.0, -2.1, -1.9, 0.95, covers=("examples",), scale="cpu")
    page = verdict_pages.criteria_page(
        [judge_ledger(Ledger("p2020", "t", "k", (Row("r", "x", claims=claims),)), [bare, like, sure])]
    )
    assert "2 of 3 verdicts depend on how the intervals are read" in page
    assert "| [r: it falls](#claim-c) | ✔ | ◐ | ✔ | ✔ | ✔ | ✔ |" in page
    assert "(#claim-e)" not in page


def test_forecasts_stand_beside_the_base_rate():
    claims = tuple(
        msgspec.structs.replace(CLAIM, id=f"c{k}", quantity=f"q{k}", forecast=p)
        for k, p in enumerate([0.9, 0.8, 0.1, 0.5])
    )
    ledger = Ledger("p2020", "t", "k", (Row("r", "x", claims=claims),))
    assert "(4 wait for their runs)" in verdict_pages.forecasts_page([judge_ledger(ledger, [])])
    found = [
        Result(f"q{k}", "s", x, x - 1, x + 1, 0.95, covers=("examples",), scale="cpu")
        for k, x in enumerate([-2.0, 2.0, 2.0])
    ]
    page = verdict_pages.forecasts_page([judge_ledger(ledger, found)])
    assert (
        "Brier score over 3 claims: 0.220; the base rate, 0.33 for each, has 0.222" in page
    )  # (0.01 + 0.64 + 0.01) / 3
    assert "| above 2/3 | 2 | 0.85 | 0.50 |" in page
