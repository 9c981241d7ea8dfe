import pytest

from uqlib.book import pages
from uqlib.report import markdown
from uqlib.report.ledger import Claim, Ledger, Row
from uqlib.report.records import Result

CLAIM = Claim("c", "it falls", "change", "< 0")
LEDGER = Ledger("p2020", "A paper", "key2020", (
    Row("p2020-T1", "what it shows", notebook="p2020/one", claims=(CLAIM,)),
    Row("p2020-T2", "a list", not_testable="no data"),
    Row("p2020-T3", "more", claims=(Claim("d", "|x| is small", "other", "|x| < 2"),)),
))  # fmt: skip
RESULT = Result("change", "digits", -2.0, -3.0, -1.0, 0.95, seeds=2, examples=90, scale="cpu")


def test_summary_counts_each_claim_once():
    head, _, row = pages.ledger_summary([LEDGER], [RESULT]).strip().splitlines()
    cells = dict(zip(head.strip("| ").split(" | "), [c.strip() for c in row.strip("|").split("|")], strict=True))
    assert cells["✔ confirmed"] == "1"
    assert cells["○ open"] == "1"
    assert cells["✘ not confirmed"] == ""
    assert cells["– not testable here"] == "1"  # a row without a claim


def test_the_largest_scale_with_evidence_counts():
    worse = Result("change", "digits", 2.0, 1.0, 3.0, scale="gpu")
    assert "| 1 |" in pages.ledger_summary([LEDGER], [worse, RESULT])
    counts = pages.ledger_summary([LEDGER], [worse, RESULT]).strip().splitlines()[2].split("|")
    assert counts[2].strip() == ""  # confirmed at cpu scale, but not at gpu scale
    assert counts[4].strip() == "1"


def test_ledger_page_gives_the_evidence():
    page = pages.ledger_page(LEDGER, [RESULT])
    assert "| it falls | ✔ confirmed | cpu | `< 0` certain in 1, likely in 1 of 1 |" in page
    assert "Evidence: c, cpu\n:class: dropdown\n\n- digits: -2 [-3, -1] (2 seeds, n = 90)" in page
    assert "– not testable here: no data." in page
    assert "no claim in checkable form" not in page  # each row has claims, or the reason why not
    assert "\\|x\\| is small" in page  # a bar would break the table


def test_runs_page(tmp_path):
    from uqlib.report import records

    records.start_run("p2020/one", scale="smoke", parameters={}, path=tmp_path / "run.json").save()
    page = pages.runs_page(records.read_runs(tmp_path))
    assert "| p2020/one | smoke | 0 |" in page


@pytest.mark.parametrize("cell", ["a|b", 3, 0.5])
def test_table_escapes_bars(cell):
    assert markdown.table(["h"], [[cell]]).splitlines()[2] == f"| {str(cell).replace('|', chr(92) + '|')} |"


def test_scales_are_those_that_notebooks_know():
    from uqlib.base.scales import SCALES

    rows = pages.scales_table().strip().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(SCALES)
