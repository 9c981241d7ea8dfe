"""The page that compares all papers: marks where the whole interval lies on one side, and only there."""

import re

from uqlib.evidence.records import Result
from uqlib.report.computed.comparison import comparison_table, read_cards


def results(paper, **changes):
    for method in ("before", "<after>"):
        setting = f"CIFAR-10, toy: {method}"
        for name, (value, low, high) in changes.items():
            shared = dict(setting=setting, notebook=f"{paper}/one", scale="cpu")
            yield Result(f"card_{name}", value=0.5 + (method != "before") * value, **shared)
            if method != "before":
                covers = ("examples",)
                yield Result(
                    f"card_change_{name}", value=value, low=low, high=high, level=0.95, covers=covers, **shared
                )
        yield Result("card_cost", setting=setting, value=1.25, notebook=f"{paper}/one")


def test_a_mark_stands_where_the_whole_interval_does():
    found = list(results("guo2017", accuracy=(0.02, 0.01, 0.03), ece=(0.02, 0.01, 0.03), aurc=(-0.02, -0.05, 0.01)))
    page = comparison_table(found, {"guo2017": "On <Calibration>"})
    cells = re.findall(r'<td class="(\w*)">([^<]*)', page)
    assert cells == [("better", "+2.00"), ("worse", "+2.00"), ("", "−2.00")]
    assert page.count("▲") == page.count("▼") == 1
    assert "On &lt;Calibration&gt;" in page
    assert "&lt;after&gt;" in page
    assert "× 1.25" in page
    assert 'href="guo2017/index.html"' in page


def test_papers_stand_in_the_order_of_the_chapters_and_levels_below():
    found = [*results("b2020", nll=(0.1, 0.05, 0.2)), *results("a2019", nll=(-0.1, -0.2, -0.05))]
    page = comparison_table(found, {"a2019": "First", "b2020": "Second"})
    assert page.index("First") < page.index("Second")
    assert "−0.100" in page  # nats, not points
    assert "<small>0.400</small>" in page
    assert list(read_cards(found)["b2020", "CIFAR-10, toy"]) == ["before", "<after>"]


def test_without_a_card_the_page_says_so():
    assert "No card" in comparison_table([Result("aurc", setting="x", value=1.0)], {})
