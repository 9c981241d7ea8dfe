"""The pages of the ledger: the summary, every claim with its verdict and evidence, other criteria, forecasts. Verdicts in, Markdown out."""

import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from statistics import fmean
from typing import Any

from uqlib.evidence.ledger import Claim, Ledger
from uqlib.evidence.records import Result
from uqlib.evidence.verdicts import CRITERIA, TRIED, VERDICTS, JudgedLedger, Verdict, judge_row, needed_settings
from uqlib.report.markdown import code, html_line, table, text
from uqlib.report.telling import counted, repeated

MARKS = {verdict: f"{mark} {verdict}" for verdict, mark in zip(VERDICTS, "✔◐?✘≡–○", strict=True)}
MULTIVERSE = "multiverse_share"  # recorded with the id of a claim as its setting


def summary_page(judged: Sequence[JudgedLedger]) -> str:
    """A row a paper, its own claims and then ours: how many there are, and how many findings have which verdict."""
    parts = []
    for ours, of in ((False, "Claims of the papers"), (True, "Our controls and proxies")):
        rows = []
        for each in judged:
            own = each.findings(ours=ours)
            own["not testable here"] += 0 if ours else each.lists
            paper = f"[{text(each.ledger.title)}](#ledger-{each.ledger.paper})"
            rows.append([paper, each.claims(ours=ours), *(own[name] or "" for name in MARKS)])
        parts.append(table([f"**{of}**", "claims", *MARKS.values()], rows))
    return "\n".join(parts)


def verdicts_list() -> str:
    """What each verdict means."""
    return "\n".join(f"{MARKS[name]}\n: {meaning}\n" for name, meaning in VERDICTS.items())


def ledger_page(ledger: Ledger, results: Sequence[Result]) -> str:
    """Every row of a paper's ledger: what it shows, its claims with their verdicts, and under each, folded, its evidence."""
    links = "".join(f" · [{words}]({to})" for words, to in paper_links(ledger).items())
    parts = [f"(ledger-{ledger.paper})=\n## {text(ledger.title)}\n\n{{cite}}`{ledger.cite}`{links}\n"]
    universes = {r.setting: r for r in results if r.quantity == MULTIVERSE}
    by_row = [judge_row(row, results) for row in ledger.rows]
    shown = {v.claim.id: v for judged in by_row for v in judged}  # of several scales the largest; links lead to it
    alike = _alike(ledger, [id for id, v in shown.items() if v.results])
    for row, judged in zip(ledger.rows, by_row, strict=True):
        parts.append(f"({row.id})=\n### {text(row.title or row.id)}\n\n{text(row.shows, spans=True)}\n")
        where = (
            f" · re-derived in [{row.notebook.split('/')[1].replace('_', ' ')}](results/{row.notebook}.ipynb)"
            if row.notebook
            else ""
        )
        parts.append(f"{code(row.id)}{where}\n")
        if row.not_testable:
            parts.append(f"{MARKS['not testable here']}: {text(row.not_testable, spans=True)}.\n")
        for v in judged:
            anchor = target(v.claim.id) if v is shown[v.claim.id] else ""
            parts.append(_claim(v, anchor, _notes(v, universes.get(v.claim.id), alike[v.claim.id])))
        if not row.claims and not row.not_testable:
            parts.append(f"{MARKS['open']}: no claim in checkable form yet.\n")
    return "\n".join(parts)


def verdict_facts(judged: Sequence[JudgedLedger]) -> list[dict[str, Any]]:
    """What a page shows of a verdict without computing it: one plain dictionary a claim, in the order of the ledgers.

    Those that count add up to `JudgedLedger.findings`.
    """
    told, seen = [], set()
    for each in judged:
        rows = {claim.id: row for row in each.ledger.rows for claim in row.claims}
        for v in each.verdicts:
            row, finding = (
                rows[v.claim.id],
                (each.ledger.paper, v.claim.ours, v.claim.fact or v.claim.quantity, v.verdict),
            )
            told.append({
                "id": v.claim.id, "anchor": target(v.claim.id), "paper": each.ledger.paper, "row": row.id, "notebook": row.notebook,
                "place": row.place, "text": v.claim.text, "ours": v.claim.ours, "verdict": v.verdict, "mark": MARKS[v.verdict][0],
                "order": list(VERDICTS).index(v.verdict), "scale": v.scale, "counts": finding not in seen,
            })  # fmt: skip
            seen.add(finding)
    return told


def papers_numbers(judged: Sequence[JudgedLedger]) -> str:
    """The claims of which the paper gives a number: that number, ours, and whether the one is expected by the other."""
    rows = []
    for own, v in ((each.ledger, v) for each in judged for v in each.verdicts):
        if v.claim.effect is None or not v.results:
            continue
        low, high = v.predicted
        sure = {None: "no interval", True: "inside", False: "outside"}[v.agrees]
        where = "" if math.isnan(low) else f" of [{_number(low)}, {_number(high)}]"
        error = f" ± {v.claim.effect_error:.2g}" if v.claim.effect_error else ""
        rows.append([
            _link(own, v.claim), f"{_number(v.claim.effect)}{error}", _number(fmean(r.value for r in v.results)),
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
        rows: list[list] = [[_link(each.ledger, v.claim), *(MARKS[verdict][0] for verdict in own)] for v, own in odd]
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
        f"Brier score over {counted(len(told), 'claims')}: {brier:.3f}; the base rate, {rate:.2f} for each, has {rate * (1 - rate):.3f}.\n"
    ]
    groups = {"below 1/3": (0, 1 / 3), "1/3 to 2/3": (1 / 3, 2 / 3), "above 2/3": (2 / 3, 1.01)}
    rows = []
    for name, (low, high) in groups.items():
        if own := [pair for pair in told if low <= pair[0] < high]:
            rows.append([name, len(own), f"{fmean(c for c, _ in own):.2f}", f"{fmean(came for _, came in own):.2f}"])
    return "\n".join(lines) + "\n" + table(["forecast", "claims", "mean forecast", "confirmed"], rows)


def target(claim: str) -> str:
    """The anchor of a claim on the page of the ledger."""
    return f"claim-{re.sub('[^a-z0-9]+', '-', claim.lower())}"


def _link(ledger: Ledger, claim: Claim) -> str:
    return f"[{_place(ledger, claim)}: {text(claim.text)}](#{target(claim.id)})"


def _place(ledger: Ledger, claim: Claim) -> str:
    return next(row.place for row in ledger.rows if claim in row.claims)


def paper_links(ledger: Ledger) -> dict[str, str]:
    """Where a paper and its authors' code are: addresses by words, as far as they are known."""
    found = {f"the paper, arXiv:{ledger.arxiv}": f"https://arxiv.org/abs/{ledger.arxiv}"} if ledger.arxiv else {}
    return found | ({"its code": ledger.code} if ledger.code else {})


def _alike(ledger: Ledger, shown: Collection[str]) -> dict[str, list[str]]:
    """For each claim links to the others that rest on the same finding, of those that are shown with evidence."""
    places = {claim: row.title or row.id for row in ledger.rows for claim in row.claims}
    facts = {claim.id: claim.fact or claim.quantity for claim in places}
    links = {
        claim.id: f'<a href="#{target(claim.id)}">{html_line(place)}</a>'
        for claim, place in places.items()
        if claim.id in shown
    }
    return {one: [link for c, link in links.items() if c != one and facts[c] == fact] for one, fact in facts.items()}


def _claim(v: Verdict, anchor: str, notes: Sequence[str]) -> str:
    """A claim with its verdict, as HTML without an empty line; its evidence is folded, as it would be a yard long on a phone."""
    claim, k = v.claim, len(v.results)
    whose = "Ours: " if claim.ours and not claim.text.startswith("Ours") else ""
    holds = f"asks for <code>{html_line(claim.holds)}</code> for other {claim.unit}"
    if k:
        needed = needed_settings(claim, k)
        some = "in all" if needed == k else f"in {needed}"
        holds += f" {some} of {counted(k, 'settings')}: sure in {v.certain}, by value in {v.likely}"
    scale = f" ({v.scale})" if v.scale else ""
    head = f"<b>{MARKS[v.verdict]}{scale}</b> {whose}{html_line(claim.text)} <small>{holds}</small>"
    if shared := _shared(v):
        notes = [*notes, f"every setting: {', '.join(shared)}"]
    lines = [f"<p>{note[0].upper()}{note[1:]}.</p>" for note in notes]
    settings = "".join(
        f"<li>{html_line(r.setting.replace('_', ' '))}: {html_line(_interval(r, shared))}</li>" for r in v.results
    )
    body = "".join(lines) + (f"<ul>{settings}</ul>" if settings else "")
    name, id = v.verdict.replace(" ", "-"), f' id="{anchor}"' if anchor else ""
    if not body:
        return f'<div class="claim {name}"{id}>{head}</div>\n'
    return f'<details class="claim {name}"{id}><summary>{head}</summary>{body}</details>\n'


def _notes(v: Verdict, universe: Result | None, alike: Sequence[str]) -> list[str]:
    """What follows from all settings of a claim, as HTML."""
    claim, notes = v.claim, []
    if reason := claim.by_construction or claim.not_testable:
        notes.append(html_line(reason))
    if not math.isnan(v.p) and v.verdict in TRIED:
        notes.append(
            f"the p of the null that it holds in too few settings: {_p(v.p)}; that it holds in enough: {_p(v.q)}"
        )
    if bare := sum(claim.unit not in each.covers for each in v.results):
        notes.append(f"in {bare} of {counted(len(v.results), 'settings')} no interval covers other {claim.unit}")
    if v.verdict == "undecided" and not math.isnan(v.detectable):
        seen = (
            f"the median setting would have seen a distance of {v.detectable:.2g} from the bound in four of five cases"
        )
        notes.append(seen + ("" if math.isnan(v.chance) else f", and the paper's number in {_share(v.chance)}"))
    if claim.effect is not None:
        low, high = v.predicted
        expected = "" if math.isnan(low) else f"; ours predicts [{_number(low)}, {_number(high)}]"
        notes.append(f"the paper reports {_number(claim.effect)} ({html_line(claim.effect_at)}){expected}")
    if universe is not None:
        notes.append(
            f"stands in {_share(universe.value)} of the universes of choices that could have been made as well"
        )
    if alike:
        notes.append(f"rests on the same finding as {', '.join(alike)}, and counts once with what agrees")
    return notes


def _shared(v: Verdict) -> list[str]:
    """What is the same of all settings of a claim, so that it is said once."""
    first, *others = (_about(each) for each in v.results) if len(v.results) > 1 else ([],)
    return [part for part in first if all(part in other for other in others)]


def _about(result: Result) -> list[str]:
    told = (
        f"{100 * (result.level or 0):.0f} % interval over {' and '.join(result.covers)}"
        if result.covers
        else "no interval"
    )
    units = ((result.splits, "splits"), (result.seeds, repeated(result.covers)))
    counted = [f"{n} {name}" for n, name in units if n > 1]
    return [told, *counted, *([f"n = {result.examples:,}"] if result.examples else [])]


def _interval(result: Result, shared: Collection[str]) -> str:
    own = ", ".join(part for part in _about(result) if part not in shared)
    return f"{result}".replace("-", "−") + (f" ({own})" if own else "")


def _number(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _p(p: float) -> str:
    return "" if math.isnan(p) else "below 0.001" if p < 0.001 else f"{p:.3f}"


def _share(share: float) -> str:
    return "" if math.isnan(share) else f"{100 * share:.0f} %"
