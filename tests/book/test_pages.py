import pytest

from uqlib.book import pages
from uqlib.report import markdown


def test_runs_page(tmp_path):
    from uqlib.evidence import records

    records.start_run("p2020/one", scale="smoke", parameters={}, path=tmp_path / "run.json").save()
    page = pages.runs_page(records.read_runs(tmp_path))
    assert page.splitlines()[1].startswith("| notebook | results | time | peak memory | scale | device |")
    assert "| p2020/one | 0 |" in page


def test_what_is_the_same_of_all_runs_is_said_once(tmp_path):
    from uqlib.evidence import records

    for name in ("one", "two"):
        records.start_run(f"p2020/{name}", scale="smoke", parameters={}, path=tmp_path / f"{name}.json").save()
    page = pages.runs_page(records.read_runs(tmp_path))
    assert "The scale of all of them: smoke." in page
    assert "scale |" not in page
    assert page.splitlines()[-1].startswith("| p2020/two | 0 |")


@pytest.mark.parametrize("cell", ["a|b", 3, 0.5])
def test_table_escapes_bars(cell):
    assert markdown.table(["h"], [[cell]]).splitlines()[2] == f"| {str(cell).replace('|', chr(92) + '|')} |"


def test_scales_are_those_that_notebooks_know():
    from uqlib.base.scales import SCALES

    rows = pages.scales_table().strip().splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == list(SCALES)
