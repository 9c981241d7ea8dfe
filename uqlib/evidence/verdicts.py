"""The verdict of our records on a claim: computed, never typed.

Of a claim with k settings that must hold in r of them, two p are taken: of the null that it holds in fewer than r (a small one
confirms), and of the null that its contrary holds in no more than k - r (a small one contradicts); see
`replication.partial_conjunction`. An interval that does not cover the unit of the claim counts as none.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace as replace_result
from statistics import fmean, median
from typing import NamedTuple

from uqlib.base.extras import named
from uqlib.base.scales import SCALES
from uqlib.evidence.ledger import Claim, Ledger, Row
from uqlib.evidence.records import Result
from uqlib.evidence.replication import (
    ALPHA,
    Estimate,
    above,
    chance,
    detectable,
    equivalence_p,
    holm,
    partial_conjunction,
    prediction_interval,
    read_interval,
    sceptical_p,
)

with named():
    from msgspec.structs import replace

VERDICTS = {
    "confirmed": "so in the share of settings that the claim asks for, with an error of 2.5 % at most for all of them together; "
    "every interval covers the unit of the claim",
    "direction only": "the values say so in that share, in half of these settings by a standard error, or without an interval over "
    "that unit",
    "undecided": "neither the claim nor its contrary is sure",
    "contradicted": "the contrary is as sure: it holds in so many settings that the share is missed",
    "holds by construction": "it follows from the formula, or cannot fail; a test holds it, and it does not count",
    "not testable here": "nothing at hand can test it, for the reason given",
    "open": "no run has measured it yet",
}
TRIED = ("confirmed", "direction only", "undecided", "contradicted")
LIKELY = 0.16  # a standard error


class Verdict(NamedTuple):
    """What our records say of one claim at one scale."""

    claim: Claim
    scale: str
    verdict: str  # one of VERDICTS
    results: tuple[Result, ...]  # the evidence, one a setting
    certain: int  # settings whose interval covers the unit, and meets the condition whole
    likely: int  # settings whose value meets it
    against: int  # settings whose interval covers the unit, and lies whole on the other side
    p: float = math.nan  # of the null that it holds in fewer settings than the claim asks for
    q: float = math.nan  # of the null that it does not fail in so many that the share is missed

    @property
    def estimates(self) -> list[Estimate]:
        return [_estimate(self.claim, result) for result in self.results]

    @property
    def error(self) -> float:
        """Standard error in the median setting whose interval covers the unit; nan where there is none."""
        known = [each.error for each in self.estimates if not math.isnan(each.error)]
        return median(known) if known else math.nan

    @property
    def detectable(self) -> float:
        """The least distance from the bound that the median setting would have seen in four experiments of five."""
        return math.nan if math.isnan(self.error) else detectable(self.error)

    @property
    def chance(self) -> float:
        """The probability that the median setting had been certain, were the truth the paper's number."""
        operator, bound = self.claim.condition
        if self.claim.effect is None or math.isnan(self.error):
            return math.nan
        far = {"<": bound - self.claim.effect, ">": self.claim.effect - bound, "|": bound - abs(self.claim.effect)}
        return chance(far[operator[0]], self.error)

    @property
    def predicted(self) -> tuple[float, float]:
        """The prediction interval of the paper's number, by ours; NaN where nothing was measured."""
        if not self.estimates:
            return math.nan, math.nan
        theirs = math.nan if self.claim.effect_error is None else self.claim.effect_error
        return prediction_interval(self.estimates, error=theirs)

    @property
    def agrees(self) -> bool | None:
        """Whether the paper's number lies in that interval; None where there is no number or no interval."""
        if self.claim.effect is None or not self.results or math.isnan(self.predicted[0]):
            return None
        return self.predicted[0] <= self.claim.effect <= self.predicted[1]

    @property
    def sceptical(self) -> float:
        """The sceptical p of the paper's number and the mean of ours, as effects beyond the bound; nan where an error is missing."""
        both = self._both()
        return sceptical_p(*both) if both else math.nan

    @property
    def equivalent(self) -> float:
        """p of the null that ours differs from the paper's by half of the paper's or more."""
        both = self._both()
        return equivalence_p(*both, margin=abs(both[0].value) / 2) if both and both[0].value else math.nan

    def _both(self) -> tuple[Estimate, Estimate] | None:
        claim = self.claim
        if claim.effect is None or not claim.effect_error or not self.error > 0:
            return None
        _, bound = claim.condition
        mean = fmean(each.value for each in self.estimates)
        return Estimate(claim.effect - bound, claim.effect_error), Estimate(mean - bound, self.error)


def judge(claim: Claim, results: Iterable[Result], scale: str) -> Verdict:
    """The verdict on a claim from the results at one scale, of its own paper's notebooks alone."""
    found = tuple(result for result in results if claim.concerns(result) and result.scale == scale)
    ps, qs = ([one_sided(claim, result, contrary=contrary) for result in found] for contrary in (False, True))
    met = [claim.meets(result.value) for result in found]
    certain, against = (sum(p <= ALPHA for p in each) for each in (ps, qs))
    told = "holds by construction" if claim.by_construction else "not testable here" if claim.not_testable else ""
    if not found:
        return Verdict(claim, scale, told or "open", found, 0, 0, 0)
    needed = needed_settings(claim, len(found))
    p, q = partial_conjunction(ps, needed), partial_conjunction(qs, len(found) - needed + 1)
    clear = sum(m and not p > LIKELY for m, p in zip(met, ps, strict=True))  # a nan is not greater
    if told:
        verdict = told
    elif p <= ALPHA:
        verdict = "confirmed"
    elif q <= ALPHA:
        verdict = "contradicted"
    else:
        verdict = "direction only" if sum(met) >= needed and 2 * clear >= needed else "undecided"
    return Verdict(claim, scale, verdict, found, certain, sum(met), against, p, q)


def one_sided(claim: Claim, result: Result, *, contrary: bool = False) -> float:
    """p of the null that a setting does not meet the condition, or that it does; nan without an interval over the unit."""
    found = _estimate(claim, result)
    operator, bound = claim.condition
    if math.isnan(found.error):
        return math.nan
    if found.error == 0:  # as after counting: nothing is left to chance
        return float(claim.meets(found.value) is contrary)
    up, down = above(found, bound), above(Estimate(-found.value, found.error), -bound)
    if operator.startswith("|"):
        inside = max(above(found, -bound), down)
        outside = min(1.0, 2 * min(up, above(Estimate(-found.value, found.error), bound)))
        return outside if contrary else inside
    return up if operator.startswith(">") is not contrary else down


def needed_settings(claim: Claim, settings: int) -> int:
    """In how many of the settings the claim must hold."""
    return max(1, math.ceil(claim.share * settings - 1e-9))


def judge_row(row: Row, results: Iterable[Result]) -> list[Verdict]:
    """Every claim of a row at every scale that has evidence, the largest last; a claim with none is open, or not testable here."""
    by_quantity: dict[str, list[Result]] = {claim.quantity: [] for claim in row.claims}
    for result in results:
        if result.quantity in by_quantity:
            by_quantity[result.quantity].append(result)
    judged = []
    for claim in row.claims:
        found = by_quantity[claim.quantity]
        own = [verdict for scale in SCALES if (verdict := judge(claim, found, scale)).results]
        if not own:
            nothing = judge(claim, (), "")
            own = [nothing._replace(verdict="not testable here")] if row.not_testable else [nothing]
        judged += own
    return judged


class JudgedLedger(NamedTuple):
    """The claims of a ledger, each at the largest scale that has evidence, and what is asked of all of them together."""

    ledger: Ledger
    verdicts: tuple[Verdict, ...]
    lists: int  # rows without a claim

    def findings(self, *, ours: bool) -> Counter[str]:
        """Findings by verdict, of the paper's claims or of our own: claims that rest on one fact and got one verdict count once."""
        own = {(v.claim.fact or v.claim.quantity, v.verdict) for v in self.verdicts if v.claim.ours is ours}
        return Counter(verdict for _, verdict in own)

    def claims(self, *, ours: bool) -> int:
        """How many claims are the paper's, or our own."""
        return sum(v.claim.ours is ours for v in self.verdicts)

    def criteria(self) -> dict[str, list[str]]:
        """What other criteria would have said: by criterion of CRITERIA a verdict a claim, in the order of `verdicts`."""
        tried = [v for v in self.verdicts if v.verdict in TRIED]
        adjusted = dict(zip((v.claim.id for v in tried), holm([v.p for v in tried]), strict=True))
        found: dict[str, list[str]] = {name: [] for name in CRITERIA}
        for v in self.verdicts:
            told = _by_criteria(v, adjusted[v.claim.id]) if v.claim.id in adjusted else [v.verdict] * len(CRITERIA)
            for name, verdict in zip(CRITERIA, told, strict=True):
                found[name].append(verdict)
        return found

    def forecasts(self) -> list[tuple[float, bool]]:
        """Forecast and outcome, of the claims that have both: whether the claim is confirmed."""
        known = [v for v in self.verdicts if v.claim.forecast is not None and v.results]
        return [(float(v.claim.forecast or 0), v.verdict == "confirmed") for v in known]


CRITERIA = {
    "ours": "as in the book",
    "Holm over the ledger": "all claims of a paper together err with 2.5 % at most",
    "each setting by itself": "an interval of 95 % in each setting, and no account of how many there are",
    "in all settings": "whatever share the claim asks for",
    "any interval": "whatever the interval is about",
    "the value alone": "no interval at all",
}


def judge_ledger(ledger: Ledger, results: Sequence[Result]) -> JudgedLedger:
    """Every claim of a ledger at the largest scale that has evidence."""
    found = []
    for row in ledger.rows:
        last = {v.claim.id: v for v in judge_row(row, results)}  # of several scales the largest is the last
        found += list(last.values())
    return JudgedLedger(ledger, tuple(found), sum(not row.claims for row in ledger.rows))


def _estimate(claim: Claim, result: Result) -> Estimate:
    if claim.unit not in result.covers:
        return Estimate(result.value, math.nan)
    return read_interval(result.value, result.low, result.high, result.level)


def _by_criteria(v: Verdict, adjusted: float) -> list[str]:
    """What the criteria of CRITERIA say, in their order."""
    k, needed = len(v.results), needed_settings(v.claim, len(v.results))
    covered = [replace_result(each, covers=(v.claim.unit,) * (each.low is not None)) for each in v.results]
    alone = "contradicted" if v.against > k - needed else v.verdict if v.verdict != "contradicted" else "undecided"
    return [
        v.verdict,
        "direction only" if v.verdict == "confirmed" and adjusted > ALPHA else v.verdict,
        "confirmed" if v.certain >= needed else alone,
        judge(replace(v.claim, share=1.0), v.results, v.scale).verdict,
        judge(v.claim, covered, v.scale).verdict,
        "confirmed" if v.likely >= needed else "contradicted",
    ]
