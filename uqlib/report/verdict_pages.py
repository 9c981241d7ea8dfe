"""The pages of the ledger: the summary, every claim with its verdict and evidence, other criteria, forecasts. Verdicts in, Markdown out."""

import math
from collections import Counter
from collections.abc import Collection, Sequence
from statistics import fmean

from uqlib.evidence.ledger import Ledger
from uqlib.evidence.records import Result
from uqlib.evidence.verdicts import CRITERIA, TRIED, VERDICTS, JudgedLedger, Verdict, judge_row, needed_settings
from uqlib.report.markdown import code, table, text

MARKS = {verdict: f"{mark} {verdict}" for verdict, mark in zip(VERDICTS, "✔◐?✘≡–○", strict=True)}
MULTIVERSE = "multiverse_share"  # recorded with the id of a claim as its setting


def summary_page(judged: Sequence[JudgedLedger]) -> str:
    """Two lines a paper, its own claims and ours: how many there are, and how many findings have which verdict."""
    rows = []
    for each in judged:
        for ours in (False, True):
            counts = each.findings(ours=ours)
            counts["not testable here"] += 0 if ours else each.lists
            whose = "our controls and proxies" if ours else f"[{text(each.ledger.title)}](#ledger-{each.ledger.paper})"
            rows.append([whose, each.claims(ours=ours), *(counts[verdict] or "" for verdict in VERDICTS)])
    return table(["paper", "claims", *MARKS.values()], rows)


def verdicts_list() -> str:
    """What each verdict means."""
    return "\n".join(f"{MARKS[name]}\n: {meaning}\n" for name, meaning in VERDICTS.items())


def ledger_page(ledger: Ledger, results: Sequence[Result]) -> str:
    """Every row of a paper's ledger: what it shows, its claims, and the verdict with its evidence."""
    parts = [f"(ledger-{ledger.paper})=\n## {text(ledger.title)}\n\n{{cite}}`{ledger.cite}`\n"]
    universes = {r.setting: r for r in results if r.quantity == MULTIVERSE}
    by_row = [judge_row(row, results) for row in ledger.rows]
    first = {
        v.claim.id: v for judged in by_row for v in reversed(judged) if v.results
    }  # to which the link of a claim leads
    alike = _alike(ledger, first)
    for row, judged in zip(ledger.rows, by_row, strict=True):
        parts.append(f"### {row.id}\n\n{text(row.shows, spans=True)}\n")
        if row.notebook:
            parts.append(f"Re-derived in [`{row.notebook}`](results/{row.notebook}.ipynb).\n")
        if row.not_testable:
            parts.append(f"{MARKS['not testable here']}: {text(row.not_testable, spans=True)}.\n")
        if row.claims:
            parts.append(table(["claim", "verdict", "holds"], [_counted(v) for v in judged]))
            for v in judged:
                if v.results:
                    target = f"({_target(v.claim.id)})=\n" if v is first[v.claim.id] else ""
                    parts.append(target + _evidence(v, universes.get(v.claim.id), alike[v.claim.id]))
        elif not row.not_testable:
            parts.append(f"{MARKS['open']}: no claim in checkable form yet.\n")
    return "\n".join(parts)


def papers_numbers(judged: Sequence[JudgedLedger]) -> str:
    """The claims of which the paper gives a number: that number, ours, and whether the one is expected by the other."""
    rows = []
    for v in (v for each in judged for v in each.verdicts):
        if v.claim.effect is None or not v.results:
            continue
        low, high = v.predicted
        sure = {None: "no interval", True: "inside", False: "outside"}[v.agrees]
        where = "" if math.isnan(low) else f" of [{low:.3g}, {high:.3g}]"
        error = f" ± {v.claim.effect_error:.2g}" if v.claim.effect_error else ""
        rows.append([
            _link(v.claim.id), f"{v.claim.effect:.3g}{error}", f"{fmean(r.value for r in v.results):.3g}",
            f"{sure}{where}", _p(v.sceptical), _p(v.equivalent), _share(v.chance),
        ])  # fmt: skip
    head = [
        "claim",
        "paper",
        "ours",
        "paper's in our prediction interval",
        "sceptical p",
        "equivalence p",
        "chance to see it",
    ]
    return table(head, rows)


def criteria_page(judged: Sequence[JudgedLedger]) -> str:
    """The claims whose verdict depends on the criterion, and what each says; the value alone, the last one, decides everything."""
    parts = [f"- **{name}**: {meaning}" for name, meaning in CRITERIA.items()]
    for each in judged:
        found = each.criteria()
        columns = list(zip(*found.values(), strict=True))
        odd = [(v, own) for v, own in zip(each.verdicts, columns, strict=True) if len(set(own[:-1])) > 1]
        tried = sum(v.verdict in TRIED for v in each.verdicts)
        parts.append(
            f"\n**{text(each.ledger.title)}**: {len(odd)} of {tried} verdicts depend on how the intervals are read.\n"
        )
        rows: list[list] = [[_link(v.claim.id), *(MARKS[verdict][0] for verdict in own)] for v, own in odd]
        total: list[list] = [
            [f"**{name}**", *(Counter(column)[name] or "" for column in found.values())] for name in TRIED
        ]
        parts.append(table(["claim", *CRITERIA], rows + total))
    return "\n".join(parts) + "\n"


def forecasts_page(judged: Sequence[JudgedLedger]) -> str:
    """How good our forecasts were: their Brier score beside that of the base rate, and how often what was forecast came true."""
    told = [pair for each in judged for pair in each.forecasts()]
    if not told:
        asked = sum(v.claim.forecast is not None for each in judged for v in each.verdicts)
        return f"No claim that has a forecast has been measured yet ({asked} wait for their runs).\n"
    rate = fmean(came for _, came in told)
    brier = fmean((chance - came) ** 2 for chance, came in told)
    lines = [
        f"Brier score over {len(told)} claims: {brier:.3f}; the base rate, {rate:.2f} for each, has {rate * (1 - rate):.3f}.\n"
    ]
    groups = {"below 1/3": (0, 1 / 3), "1/3 to 2/3": (1 / 3, 2 / 3), "above 2/3": (2 / 3, 1.01)}
    rows = []
    for name, (low, high) in groups.items():
        if own := [pair for pair in told if low <= pair[0] < high]:
            rows.append([name, len(own), f"{fmean(c for c, _ in own):.2f}", f"{fmean(came for _, came in own):.2f}"])
    return "\n".join(lines) + "\n" + table(["forecast", "claims", "mean forecast", "confirmed"], rows)


def _target(claim: str) -> str:
    return f"claim-{claim.lower()}"


def _link(claim: str) -> str:
    return f"[{claim}](#{_target(claim)})"


def _alike(ledger: Ledger, shown: Collection[str]) -> dict[str, list[str]]:
    """For each claim the others that rest on the same finding, of those that are shown with evidence."""
    claims = [claim for row in ledger.rows for claim in row.claims]
    facts = {claim.id: claim.fact or claim.quantity for claim in claims}
    return {one: [c for c in shown if c != one and facts[c] == fact] for one, fact in facts.items()}


def _counted(verdict: Verdict) -> list[str]:
    """What a claim says, its verdict, and in how many settings it holds."""
    claim, k = verdict.claim, len(verdict.results)
    holds = f"{code(claim.holds)} for other {claim.unit}"
    if k:
        needed = needed_settings(claim, k)
        asked = f", {needed} asked for" if needed < k else ""
        holds += f": certain in {verdict.certain}, by value in {verdict.likely} of {k}{asked}"
    whose = "Ours: " if claim.ours and not claim.text.startswith("Ours") else ""
    scale = f" ({verdict.scale})" if verdict.scale else ""
    return [whose + text(claim.text, spans=True), MARKS[verdict.verdict] + scale, holds]


def _evidence(v: Verdict, universe: Result | None, alike: Sequence[str]) -> str:
    """Every setting of a claim, and what follows from all of them, folded away: on a phone a table of them would be a yard long."""
    claim, notes = v.claim, []
    if reason := claim.by_construction or claim.not_testable:
        notes.append(text(reason, spans=True))
    if not math.isnan(v.p) and v.verdict in TRIED:
        notes.append(f"p of fewer settings than asked for: {_p(v.p)}; of the contrary: {_p(v.q)}")
    if bare := sum(claim.unit not in each.covers for each in v.results):
        notes.append(f"in {bare} of {len(v.results)} settings no interval covers other {claim.unit}")
    if v.verdict == "undecided" and not math.isnan(v.detectable):
        seen = (
            f"the median setting would have seen a distance of {v.detectable:.2g} from the bound in four of five cases"
        )
        notes.append(seen + ("" if math.isnan(v.chance) else f", and the paper's number in {_share(v.chance)}"))
    if claim.effect is not None:
        low, high = v.predicted
        expected = "" if math.isnan(low) else f"; ours predicts [{low:.3g}, {high:.3g}]"
        notes.append(f"the paper reports {claim.effect:.3g} ({text(claim.effect_at)}){expected}")
    if universe is not None:
        notes.append(
            f"stands in {_share(universe.value)} of the universes of choices that could have been made as well"
        )
    if alike:
        links = ", ".join(map(_link, alike))
        notes.append(f"rests on the same finding as {links}, and counts once with what agrees")
    lines = [f"- {text(result.setting)}: {_interval(result)}" for result in v.results]
    body = "\n".join([*(f"{note[0].upper()}{note[1:]}.\n" for note in notes), *lines])
    return f":::{{admonition}} Evidence: {claim.id}, {v.scale}\n:class: dropdown\n\n{body}\n:::\n"


def _interval(result: Result) -> str:
    counted = [f"{n} {name}" for n, name in ((result.splits, "splits"), (result.seeds, "trainings")) if n > 1]
    counted += [f"n = {result.examples}"] if result.examples else []
    told = f"over {' and '.join(result.covers)}" if result.covers else "without an interval"
    return f"{result} ({', '.join([told, *counted])})"


def _p(p: float) -> str:
    return "" if math.isnan(p) else "below 0.001" if p < 0.001 else f"{p:.3f}"


def _share(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.0f} %"
