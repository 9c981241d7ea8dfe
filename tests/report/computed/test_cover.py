import re

import pytest
from PIL import Image

from uqlib.evidence.ledger import Claim, Ledger, Row
from uqlib.evidence.records import Result
from uqlib.evidence.verdicts import judge_ledger
from uqlib.report.computed import cover

ROW = Row("p2020-T1", "what it shows", notebook="p2020/one", claims=(
    Claim("c", "it falls", "change", "< 0"), Claim("d", "it rises", "other", "> 0"), Claim("e", "ours", "third", "< 0", ours=True),
))  # fmt: skip
LEDGER = Ledger("p2020", "A <paper>", "key2020", (ROW,), "It promises: & more.")
SURE = Result(
    "change", "digits", -2.0, -3.0, -1.0, 0.95, covers=("examples", "splits"), scale="cpu", notebook="p2020/one"
)


def test_a_card_counts_the_papers_claims_alone_and_shows_text_as_it_is():
    page = cover.verdict_bars([judge_ledger(LEDGER, [SURE])], {})
    assert re.findall(r'<i class="(\w+)" style="flex:(\d)">', page) == [("sure", "1"), ("other", "1")]
    assert 'aria-label="1 confirmed, 1 not tried"' in page
    assert "<b>A &lt;paper&gt;: mostly confirmed</b>" in page
    assert "It promises: &amp; more." in page


def test_a_chapters_name_stands_for_the_title_and_what_stands_best_comes_first():
    other = Ledger("q2021", "Another", "key2021", (ROW,))
    page = cover.verdict_bars([judge_ledger(other, []), judge_ledger(LEDGER, [SURE])], {"q2021": "Short"})
    assert re.findall("<b>(.*?)</b>", page) == ["A &lt;paper&gt;: mostly confirmed", "Short: not tried yet"]


@pytest.mark.parametrize(
    ("sure", "likely", "undecided", "against", "expected"),
    [
        (0, 0, 0, 0, "not tried yet"),
        (5, 1, 2, 1, "mostly confirmed"),
        (5, 1, 0, 4, "mostly points the paper’s way"),  # half is not most
        (3, 0, 1, 2, "holds in part"),
        (1, 5, 3, 1, "mostly points the paper’s way"),
        (1, 1, 5, 1, "mostly too close to tell"),
        (1, 1, 1, 5, "mostly contradicted"),
        (2, 1, 3, 2, "holds in part"),
    ],
)
def test_a_standing_is_what_most_of_the_findings_share(sure, likely, undecided, against, expected):
    counts = {"confirmed": sure, "direction only": likely, "undecided": undecided, "contradicted": against, "open": 9}
    assert cover.standing(counts) == expected


def test_a_card_is_a_small_picture_of_the_size_that_is_asked_for(tmp_path):
    path = cover.draw_card(tmp_path / "card.png", "A question?", "Name")
    with Image.open(path) as picture:
        assert picture.size == (1200, 630)
    assert path.stat().st_size < 40_000
