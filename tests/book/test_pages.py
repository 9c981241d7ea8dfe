import pytest

from uqlib.book import pages
from uqlib.report import markdown


def test_runs_page(tmp_path):
    from uqlib.evidence import records

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
