import dataclasses
import math

import msgspec
import pytest

from uqlib.evidence import verdicts
from uqlib.evidence.ledger import Claim, Ledger, Row
from uqlib.evidence.records import Result
from uqlib.evidence.verdicts import judge

BELOW = Claim("c", "it falls", "change", "< 0")


def result(value, low=None, high=None, covers=("examples",), quantity="change", setting="s", **options):
    covers = covers if low is not None else ()
    level = 0.95 if low is not None else None
    return Result(quantity, setting, value, low, high, level, covers=covers, **{"scale": "cpu"} | options)


def with_claim(**changes):
    return msgspec.structs.replace(BELOW, **changes)


@pytest.mark.parametrize(
    ("results", "verdict"),
    [
        ([], "open"),
        ([result(-2, -3, -1)], "confirmed"),
        ([result(-2, -3.99, -0.01)], "confirmed"),
        ([result(-2, -4.5, 0.5)], "direction only"),  # 1.6 standard errors
        ([result(-0.2, -1.2, 0.8)], "undecided"),
        ([result(0.2, -0.8, 1.2)], "undecided"),
        ([result(-2)], "direction only"),  # no interval, no certainty
        ([result(2)], "undecided"),
        ([result(2, 1, 3)], "contradicted"),
        ([result(2, -1, 5)], "undecided"),
        ([result(-2, -3, -1), result(-1, -2.5, 0.5)], "direction only"),
        ([result(-2, -3, -1), result(1, -2, 2)], "undecided"),
        (
            [result(-2, -3, -1), result(2, 1, 3)],
            "contradicted",
        ),  # one that fails surely, where all must hold: p is doubled
        ([result(-2, -3, -1), result(2, 0.01, 4)], "undecided"),
        ([result(-2, -3, -1, scale="gpu")], "open"),
        ([result(-2, -3, -1, quantity="other")], "open"),
    ],
)
def test_verdict_of_a_claim_that_must_hold_everywhere(results, verdict):
    assert judge(BELOW, results, "cpu").verdict == verdict


def test_an_interval_that_does_not_cover_the_unit_makes_nothing_certain():
    claim = with_claim(unit="trainings")
    of_images, of_trainings = (result(-2, -3, -1, covers) for covers in (("examples",), ("examples", "trainings")))
    assert judge(claim, [of_images], "cpu").verdict == "direction only"
    assert judge(claim, [of_trainings], "cpu").verdict == "confirmed"
    against = dataclasses.replace(of_images, value=2, low=1, high=3)
    assert judge(claim, [against], "cpu").verdict == "undecided"
    assert judge(BELOW, [against], "cpu").verdict == "contradicted"


@pytest.mark.parametrize(("misses", "verdict"), [(0, "confirmed"), (1, "confirmed"), (2, "contradicted")])
def test_nearly_all_means_nine_in_ten(misses, verdict):
    sure, missed = result(-2, -3, -1), result(1, 0.5, 1.5)
    assert judge(with_claim(share=0.9), [sure] * (10 - misses) + [missed] * misses, "cpu").verdict == verdict


def test_several_settings_to_choose_from_ask_for_more():
    """Half of ten settings: the fifth smallest p counts six times, so that a bare 95 % in five of them is not enough."""
    claim, open_, bare = with_claim(share=0.5), result(0.0, -1, 1), result(-1, -1.99, -0.01)
    assert judge(claim, [bare] * 5 + [open_] * 5, "cpu").verdict == "direction only"
    assert judge(claim, [result(-1, -1.5, -0.5)] * 5 + [open_] * 5, "cpu").verdict == "confirmed"


@pytest.mark.parametrize(
    ("found", "verdict"),
    [((0.1, 0.05, 0.15), "confirmed"), ((0.1, -0.05, 0.25), "direction only"), ((-0.9, -1.0, -0.8), "contradicted")],
)
def test_a_band_is_met_from_both_sides(found, verdict):
    assert judge(with_claim(holds="|x| < 0.2"), [result(*found)], "cpu").verdict == verdict


def test_a_number_without_chance_is_certain():
    assert judge(with_claim(holds=">= 1"), [result(1, 1, 1)], "cpu").verdict == "confirmed"
    assert judge(with_claim(holds="> 1"), [result(1, 1, 1)], "cpu").verdict == "contradicted"


@pytest.mark.parametrize(
    ("field", "verdict"), [("by_construction", "holds by construction"), ("not_testable", "not testable here")]
)
def test_a_claim_that_cannot_fail_or_be_tested_is_not_judged(field, verdict):
    for results in ([], [result(-2, -3, -1)], [result(2, 1, 3)]):
        assert judge(with_claim(**{field: "why"}), results, "cpu").verdict == verdict


def test_each_scale_with_evidence_has_its_verdict():
    row = Row("r", "", claims=(BELOW,))
    found = verdicts.judge_row(row, [result(-2, -3, -1, scale="gpu"), result(1, 0.5, 2)])
    assert [(v.scale, v.verdict) for v in found] == [("cpu", "contradicted"), ("gpu", "confirmed")]
    whole = verdicts.judge_ledger(
        Ledger("p2020", "t", "c", (row,)), [result(-2, -3, -1, scale="gpu"), result(1, 0.5, 2)]
    )
    assert [v.scale for v in whole.verdicts] == ["gpu"]


def test_a_row_that_cannot_be_tested_says_so():
    row = Row("r", "", claims=(BELOW,), not_testable="no data")
    assert verdicts.judge_row(row, [])[0].verdict == "not testable here"


def test_evidence_counts_only_from_notebooks_of_the_paper():
    claim = Claim("pruning2024-T1-a", "it falls", "ece_minus_base", "< 0")
    book = Ledger("pruning2024", "t", "c", (Row("pruning2024-T1", "", claims=(claim,)),))
    own = Result("ece_minus_base", "s", 1.0, 0.5, 2.0, covers=("examples",), scale="cpu", notebook="pruning2024/one")
    foreign = Result(
        "ece_minus_base", "s", -1.0, -2.0, -0.5, covers=("examples",), scale="gpu", notebook="quantisation2025/one"
    )
    alike = dataclasses.replace(foreign, notebook="pruning2024b/one")
    (verdict,) = verdicts.judge_row(book.rows[0], [own, foreign, alike])
    assert (verdict.scale, verdict.verdict, verdict.results) == ("cpu", "contradicted", (own,))
    assert verdicts.judge_row(book.rows[0], [foreign])[0].verdict == "open"


def test_what_could_have_been_seen():
    """Closed forms: 2.8 standard errors, and the power of a one-sided z test."""
    from scipy.stats import norm

    claim = with_claim(holds="< 0", effect=-1.0, effect_at="table 1")
    v = judge(claim, [result(0.1, -0.88, 1.08)], "cpu")
    error = 0.98 / norm.ppf(0.975)
    assert v.detectable == pytest.approx((norm.ppf(0.975) + norm.ppf(0.8)) * error)
    assert v.chance == pytest.approx(norm.sf(norm.ppf(0.975) - 1 / error))
    low, high = v.predicted
    assert (low + high) / 2 == pytest.approx(0.1)
    assert high - low == pytest.approx(2 * norm.ppf(0.975) * math.sqrt(2) * error)
    assert v.agrees is True
    assert judge(claim, [result(3.1, 2.12, 4.08)], "cpu").agrees is False
    assert judge(BELOW, [result(0.1, -0.88, 1.08)], "cpu").agrees is None
    assert math.isnan(judge(claim, [result(0.1)], "cpu").chance)
    assert all(map(math.isnan, judge(claim, [], "cpu").predicted))  # nothing was measured


def test_findings_that_rest_on_one_fact_count_once():
    claims = (
        with_claim(id="a", fact="it falls"),
        with_claim(id="b", quantity="other", fact="it falls"),
        with_claim(id="c", quantity="third", ours=True),
    )
    results = [result(-2, -3, -1, quantity=each.quantity) for each in claims]
    judged = verdicts.judge_ledger(Ledger("p2020", "t", "c", (Row("r", "", claims=claims), Row("s", ""))), results)
    assert (judged.claims(ours=False), judged.claims(ours=True), judged.lists) == (2, 1, 1)
    assert judged.findings(ours=False) == {"confirmed": 1}
    assert judged.findings(ours=True) == {"confirmed": 1}
    parted = verdicts.judge_ledger(judged.ledger, [*results[:1], result(2, 1, 3, quantity="other")])
    assert parted.findings(ours=False) == {"confirmed": 1, "contradicted": 1}


def test_other_criteria():
    claims = tuple(
        with_claim(id=f"{k}", quantity=f"q{k}", **extra)
        for k, extra in enumerate([{}, {}, {"unit": "networks"}, {"share": 0.5}])
    )
    found = [
        result(-2, -3.99, -0.01, quantity="q0"),
        result(-2, -2.1, -1.9, quantity="q1"),
        result(-2, -2.1, -1.9, quantity="q2"),
        *(result(x, x - 0.99, x + 0.99, quantity="q3", setting=f"{x}") for x in (-1, 0.5, -1, 0.5)),
    ]
    judged = verdicts.judge_ledger(Ledger("p2020", "t", "c", (Row("r", "", claims=claims),)), found)
    told = judged.criteria()
    assert list(told) == list(verdicts.CRITERIA)
    assert told["ours"] == ["confirmed", "confirmed", "direction only", "direction only"]
    assert told["Holm over the ledger"] == ["direction only", "confirmed", "direction only", "direction only"]
    assert told["each setting by itself"] == ["confirmed", "confirmed", "direction only", "confirmed"]
    assert told["in all settings"][3] == "undecided"
    assert told["any interval"][2] == "confirmed"
    assert told["the value alone"] == ["confirmed"] * 4


def test_forecasts_stand_beside_what_came():
    claims = (
        with_claim(id="a", forecast=0.8),
        with_claim(id="b", quantity="other", forecast=0.3),
        with_claim(id="c", quantity="x"),
    )
    judged = verdicts.judge_ledger(Ledger("p2020", "t", "c", (Row("r", "", claims=claims),)), [result(-2, -3, -1)])
    assert judged.forecasts() == [(0.8, True)]
