"""A run beside the published one: every outcome of a number and of a claim, what differs, and how it is shown."""

import html.parser
from dataclasses import replace

import pytest

from uqlib.evidence.ledger import Claim, Ledger, Reported, Row
from uqlib.evidence.records import Result
from uqlib.report import reruns

CLAIM = Claim("c", "it falls", "change", "< 0")
LEDGER = Ledger("p2020", "A paper", "key2020", (
    Row("p2020-T1", "what it shows", notebook="p2020/one", claims=(CLAIM,), source="the table",
        reported=(Reported("a", "change", -1.5, "points", 1), Reported("elsewhere", "change", 7, "%", 0))),
    Row("p2020-F1", "the same as a figure", notebook="p2020/one", reported=(Reported("a", "change", -1.4, "points", 1),)),
    Row("p2020-T2", "of another notebook", notebook="p2020/two", reported=(Reported("b", "change", 9),)),
))  # fmt: skip
MADE = {"python": "3.11.7", "platform": "Linux", "versions": {"numpy": "2.4.6"}, "device": "cpu", "cpu": "AVX512",
        "threads": 1, "inputs": {"network": "0" * 64}, "seconds": 1.0, "date": "2026-11-28T00:00:00", "commit": "abc"}  # fmt: skip
PUBLISHED = Result(
    "change", "a", -1.0, -2.0, -0.5, 0.95, seeds=3, examples=90, covers=("examples",),
    scale="cpu", notebook="p2020/one",
)  # fmt: skip


def record(*results, parameters=None, path="book/results/p2020/one.json", **made):
    return {"notebook": "p2020/one", "scale": "cpu", "parameters": {"seed": 0} | (parameters or {}),
            "results": list(results), "provenance": MADE | made, "path": path}  # fmt: skip


def compared(ours, published=(PUBLISHED,), **options):
    return reruns.compare_runs(record(*ours), record(*published), [LEDGER], **options)


def with_value(value, low, high, **other):
    covers = () if low is None else PUBLISHED.covers
    return replace(PUBLISHED, value=value, low=low, high=high, covers=covers, **other)


@pytest.mark.parametrize(
    ("ours", "outcome", "stands"),
    [
        (PUBLISHED, "same bits", True),
        (with_value(-1.0, -2.0, -0.6), "inside the interval", True),  # the same value, another interval
        (replace(PUBLISHED, seeds=4), "inside the interval", True),
        (with_value(-1.9, -3.0, -0.5), "inside the interval", True),
        (with_value(-2.0 - 1e-12, -3.0, -0.5), "inside the interval", True),  # of another processor
        (with_value(-2.001, -3.0, -0.5), "moved", False),
        (with_value(-0.4, -0.9, -0.1), "moved", False),  # though the intervals meet
    ],
)
def test_a_number_stands_in_the_published_interval(ours, outcome, stands):
    found = compared([ours])
    assert [row["outcome"] for row in found.numbers] == [outcome]
    assert [row["outcome"] for row in found.claims] == [outcome]  # its verdict stands in each case
    assert found.stands is stands


def test_a_value_beside_its_interval_is_where_it_was():
    biased = with_value(-3.0, -2.0, -0.5)
    assert reruns.compare_results(replace(biased, high=-0.6), biased) == "inside the interval"
    assert reruns.compare_results(replace(biased, value=-3.1), biased) == "moved"


def test_without_an_interval_only_rounding_is_forgiven():
    count = with_value(12.0, None, None)
    assert reruns.compare_results(count, count) == "same bits"
    assert reruns.compare_results(replace(count, value=12 + 1e-10), count) == "inside the interval"
    assert reruns.compare_results(replace(count, value=12.001), count) == "moved"


def test_measured_seconds_stand_where_intervals_meet():
    seconds = replace(with_value(1.0, 0.9, 1.1), quantity="duo_throughput_over_prediction")
    assert reruns.compare_results(seconds, seconds) == "inside the interval"  # equal bits would be chance
    assert reruns.compare_results(replace(seconds, value=1.15, low=1.05, high=1.2), seconds) == "inside the interval"
    assert reruns.compare_results(replace(seconds, value=1.15, low=1.12, high=1.2), seconds) == "moved"
    other = replace(seconds, quantity="sometimes")  # no word of it says time
    assert reruns.compare_results(other, other) == "same bits"


def test_a_verdict_that_changes_is_told_from_a_number_that_moves():
    found = compared([with_value(-0.9, -2.0, 0.1)])
    assert [row["outcome"] for row in found.numbers] == ["inside the interval"]
    [claim] = found.claims
    assert claim == {
        "claim": "c",
        "this run": "direction only",
        "published": "confirmed",
        "outcome": "verdict changed",
    }
    assert not found.stands


def test_a_claim_is_as_bad_as_the_worst_of_its_numbers():
    others = [replace(PUBLISHED, setting=name) for name in "bcd"]
    found = compared([PUBLISHED, replace(others[0], value=-1.1), replace(others[1], value=-9)], [PUBLISHED, *others])
    assert [row["outcome"] for row in found.numbers] == ["same bits", "inside the interval", "moved", "gone"]
    assert [row["outcome"] for row in found.claims] == ["gone"]


def test_a_new_number_moves_nothing_and_one_that_is_gone_does():
    more = replace(PUBLISHED, quantity="more")
    assert compared([PUBLISHED, more]).stands
    assert not compared([PUBLISHED], [PUBLISHED, more]).stands


def test_another_pair_stands_beside_the_published_one():
    found = compared([replace(PUBLISHED, setting="mine", value=-3, low=-4, high=-2)])
    [row] = found.numbers
    assert row["setting"] == "mine (published: a)"
    assert (row["this run"], row["published"]) == ("-3 [-4, -2]", "-1 [-2, -0.5]")
    assert row["outcome"] == "other setting"
    assert not found.stands  # no repetition of it
    pairs = compared([replace(PUBLISHED, setting=s) for s in "xy"])  # which of two belongs to it, nobody knows
    assert sorted(row["outcome"] for row in pairs.numbers) == ["gone", "new", "new"]


def test_the_papers_number_stands_where_the_ledger_names_it():
    found = compared([PUBLISHED, replace(PUBLISHED, setting="b")])
    assert found.numbers[0]["paper"] == "−1.5 points (p2020-T1); −1.4 points (p2020-F1)"
    assert found.numbers[1]["paper"] == ""  # what the paper reports of b is of another notebook
    assert [tuple(row.values()) for row in found.reported] == [
        ("p2020-T1", "change, a", "−1.5 points"),
        ("p2020-T1", "change, elsewhere", "7 %"),
        ("p2020-F1", "change, a", "−1.4 points"),
    ]


def test_claims_come_first_and_what_no_run_has_any_more_last():
    plain, gone = replace(PUBLISHED, quantity="plain"), replace(PUBLISHED, setting="z")
    found = compared([plain, PUBLISHED], [plain, gone, PUBLISHED])
    assert [(row["quantity"], row["setting"]) for row in found.numbers] == [("change", "a"), ("change", "z"), ("plain", "a")]  # fmt: skip


def test_what_differs_is_named_and_nothing_else():
    ours = record(PUBLISHED, parameters={"seed": 7, "mine": "x"}, path="build/runs/x.json", commit="def", threads=2,
                  versions={"numpy": "2.5.0"}, inputs={"network": "1" + "0" * 63}, seconds=9.0, date="today")  # fmt: skip
    rows = reruns.differing_inputs(ours, record(PUBLISHED, parameters={"old": 1}), ["combine.duos changed"])
    assert [tuple(row.values()) for row in rows] == [
        ("record", "build/runs/x.json", "book/results/p2020/one.json"),
        ("parameter seed", "7", "0"),
        ("parameter mine", "x", "–"),
        ("versions numpy", "2.5.0", "2.4.6"),
        ("threads", "2", "1"),
        ("inputs network", "1" + "0" * 63, "0" * 64),
        ("commit", "def", "abc"),
        ("parameter old", "–", "1"),
        ("code and files", "combine.duos changed", ""),
    ]


def test_the_same_parameters_are_said_to_be_the_same():
    rows = reruns.differing_inputs(record(), record(cpu="AVX2"), [])
    assert [row["input"] for row in rows] == ["record", "parameters", "cpu"]
    assert rows[1]["this run"] == "the same"


def test_the_text_shows_some_numbers_and_says_where_the_rest_is():
    settings = [replace(PUBLISHED, setting=f"s{k}") for k in range(100)]
    lines = reruns.as_text(compared(settings, settings), "PAGE", most=10).splitlines()
    assert len(lines) < 25
    assert sum("-1 [-2, -0.5]  -1 [-2, -0.5]  same bits" in line for line in lines) == 10
    assert lines[-2:] == ["numbers: 100 same bits", "... and 90 more in PAGE"]


def test_the_text_is_short_whatever_is_recorded():
    quantities = [replace(PUBLISHED, quantity=f"q{k}", setting=f"s{k}") for k in range(100)]
    text = reruns.as_text(compared(quantities, quantities), "PAGE", most=10)
    assert text.count("-1 [-2, -0.5]  -1 [-2, -0.5]") == 10


def test_each_claim_has_its_part_of_the_text():
    claims = tuple(Claim(name, "it falls", name, "< 0") for name in ("first", "second"))
    ledger = Ledger("p2020", "A paper", "key2020", (Row("r", "x", claims=claims),))
    results = [replace(PUBLISHED, quantity=c.id, setting=f"s{k}") for c in claims for k in range(50)]
    found = reruns.compare_runs(record(*results), record(*results), [ledger])
    text = reruns.as_text(found, "PAGE", most=8)
    assert [text.count(f"  s{k} ") for k in range(5)] == [2, 2, 2, 2, 0]
    fallen = reruns.as_text(found, "PAGE", only=reruns.FALLEN)
    assert "  s0 " not in fallen
    assert "numbers: 100 same bits\nthe same as a page: PAGE" in fallen


def test_a_run_without_numbers_is_shown_too():
    found = compared([], [])
    assert "numbers: none" in reruns.as_text(found, "PAGE")
    assert found.stands
    assert "<h2>Numbers</h2>" in reruns.as_html(found)


class Reader(html.parser.HTMLParser):
    """What a browser would make of a page: tags with their attributes, and the text."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = set(), ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add((tag, *attributes))

    def handle_data(self, data):
        self.text += data


def test_the_page_shows_every_text_as_it_is_written_and_asks_for_nothing():
    evil = '<script src="https://x.org"></script>{body}'
    settings = [replace(PUBLISHED, setting=f"{evil}{k}") for k in range(60)]
    ours = record(*settings, parameters={"seed": evil})
    page = reruns.as_html(reruns.compare_runs(ours, record(*settings), [LEDGER], [evil]))
    read = Reader(page)
    assert read.text.count(evil) == 62
    assert not [tag for tag in read.tags if tag[0] in ("script", "link", "img", "iframe") or "src" in dict(tag[1:])]


def test_a_terminal_is_not_obeyed_by_the_text():
    page = compared([replace(PUBLISHED, setting="\x1b[2Ja\nb")], [])
    assert "\x1b" not in (text := reruns.as_text(page, "PAGE"))
    assert " [2Ja b" in text
