"""The pages of the book that are computed: ledger, parameters of every notebook, what ran. Records in, Markdown out.

Text of a ledger, a record or a notebook goes through `uqlib.report.markdown`, so that it stands in the page and never runs there.
"""

import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from uqlib.base.scales import SCALES
from uqlib.book import house, notebooks
from uqlib.book.staleness import basis_path, read_basis, shortened
from uqlib.experiments import benchmarks
from uqlib.experiments.benchmarks import Benchmark
from uqlib.files.whole import sha256_of_file, write_text
from uqlib.metrics import accuracy
from uqlib.report.ledger import VERDICTS, Ledger, Row, Verdict, read_ledgers, verdicts
from uqlib.report.markdown import block, code, table, text
from uqlib.report.records import VERSIONS, Result, orphans, read_runs

MARKS = {verdict: f"{mark} {verdict}" for verdict, mark in zip(VERDICTS, "✔◐✘–○", strict=True)}


def ledger_summary(ledgers: Sequence[Ledger], results: Sequence[Result]) -> str:
    """One line a paper: how many claims stand, at the largest scale that has evidence; a row without claims counts once."""
    rows = []
    for ledger in ledgers:
        found = [judged[-1].verdict for row in ledger.rows for judged in _by_claim(row, results)]
        found += [row.untested for row in ledger.rows if not row.claims]
        counts = [found.count(verdict) or "" for verdict in MARKS]
        rows.append([f"[{text(ledger.title)}](#ledger-{ledger.paper})", *counts])
    return table(["paper", *MARKS.values()], rows)


def ledger_page(ledger: Ledger, results: Sequence[Result]) -> str:
    """Every row of a paper's ledger: what it shows, its claims, and the verdict with its evidence."""
    parts = [f"(ledger-{ledger.paper})=\n## {text(ledger.title)}\n\n{{cite}}`{ledger.cite}`\n"]
    for row in ledger.rows:
        parts.append(f"### {row.id}\n\n{text(row.shows, spans=True)}\n")
        if row.notebook:
            parts.append(f"Re-derived in [`{row.notebook}`](results/{row.notebook}.ipynb).\n")
        if row.not_testable:
            parts.append(f"{MARKS['not testable here']}: {text(row.not_testable, spans=True)}.\n")
        if row.claims:
            judged = verdicts(row, results)
            parts.append(table(["claim", "verdict", "scale", "holds"], [_counted(v) for v in judged]))
            parts += [_evidence(v) for v in judged if v.results]
        elif not row.not_testable:
            parts.append(f"{MARKS['open']}: no claim in checkable form yet.\n")
    return "\n".join(parts)


def scales_table() -> str:
    """The scales and what they cost."""
    return table(["scale", "time and machine"], [[f"`{scale}`", cost] for scale, cost in SCALES.items()])


def benchmarks_page(benches: Iterable[Benchmark]) -> str:
    """Every benchmark: its networks, how they came to be, what an image costs, and their accuracy on the held-out rows."""
    parts = []
    for bench in benches:
        answers = bench.answers(list(bench.networks))
        rows = []
        for network in sorted(bench.networks.values(), key=lambda n: -n.macs):
            each = answers[network.name]
            right = 100 * accuracy(each.logits.argmax(-1), each.labels)
            mark = "**" if network.name in bench.large else ""
            name = f"{mark}{text(network)}{mark}"
            rows.append(
                [
                    name,
                    text(network.origin, spans=True),
                    f"{network.size} px",
                    f"{network.macs / 1e6:.1f}",
                    f"{right:.2f}",
                ]
            )
        examples = len(next(iter(answers.values())))
        parts.append(f"**{text(bench.title)}**: {examples:,} held-out images of {bench.classes} classes\n")
        parts.append(table(["network", "how", "input", "million multiply-adds", "accuracy (%)"], rows))
    return "\n".join(parts)


def parameters_page(paths: Sequence[Path]) -> str:
    """Every parameter of every notebook: default, type, meaning, and the command that sets it."""
    parts = []
    for path in paths:
        known = notebooks.parameters(path)
        rows = [[code(p.name), code(repr(p.default)), p.kind, text(p.meaning, spans=True)] for p in known.values()]
        parts += [f"## {code(path)}\n", table(["parameter", "default", "type", "meaning"], rows)]
        parts.append(block(f"uqlib run {shlex.quote(str(path))} --scale cpu", "sh"))
    return "\n".join(parts)


def runs_page(runs: Sequence[dict[str, Any]]) -> str:
    """One line a record: what ran, where, how long, with what."""
    rows = []
    for run in runs:
        made = run["provenance"]
        versions = ", ".join(f"{name} {made['versions'][name]}" for name in VERSIONS)
        device = f"{made['device']}, {made['threads']} thread{'s' * (made['threads'] != 1)}"
        rows.append([
            text(run["notebook"]), run["scale"], len(run["results"]), f"{made['seconds']:.0f} s",
            f"{made['peak_memory_mb']} MB", text(device), text(versions), text(made["date"][:10]),
        ])  # fmt: skip
    return table(["notebook", "scale", "results", "time", "peak memory", "device", "versions", "date"], rows)


def _by_claim(row: Row, results: Sequence[Result]) -> list[list[Verdict]]:
    """The verdicts of a row grouped by claim, each group in the order of the scales."""
    judged = sorted(verdicts(row, results), key=lambda v: list(SCALES).index(v.scale) if v.scale else -1)
    return [[v for v in judged if v.claim is claim] for claim in row.claims]


def _counted(verdict: Verdict) -> list[str]:
    """What a claim says, and in how many settings it holds."""
    counts = f"{code(verdict.claim.holds)} certain in {verdict.certain}, likely in {verdict.likely} of {len(verdict.results)}"
    return [
        text(verdict.claim.text, spans=True),
        MARKS[verdict.verdict],
        verdict.scale,
        counts if verdict.results else "",
    ]


def _evidence(verdict: Verdict) -> str:
    """Every setting of a claim, folded away: on a phone a table of them would be a yard long."""
    lines = "\n".join(f"- {text(result.setting)}: {_interval(result)}" for result in verdict.results)
    return f":::{{admonition}} Evidence: {verdict.claim.id}, {verdict.scale}\n:class: dropdown\n\n{lines}\n:::\n"


def _interval(result: Result) -> str:
    return f"{result} ({result.seeds} seed{'s' * (result.seeds != 1)}" + (
        f", n = {result.examples})" if result.examples else ")"
    )


def write_pages(folder: Path) -> None:
    """Compute the pages from what is published and what lies in a folder of results, and write them there."""
    ledgers = read_ledgers("data/ledger")
    runs = published_runs(folder)
    results = [result for run in runs for result in run["results"]]
    texts = {
        "ledger": "\n".join(ledger_page(each, results) for each in ledgers),
        "summary": ledger_summary(ledgers, results),
        "scales": scales_table(),
        "benchmarks": benchmarks_page(map(benchmarks.load_benchmark, benchmarks.benchmark_names())),
        "parameters": parameters_page(notebooks.paths()),
        "runs": runs_page(runs),
        "api": house.api_page(Path("uqlib")),
    }
    for name, page in texts.items():
        write_text(folder / f"{name}.md", page)


def published_runs(folder: str | Path = "book/results") -> list[dict[str, Any]]:
    """The runs whose numbers the book shows: those of data/records, each replaced by the book's own run alone.

    Own is a record in the folder of results that the basis beside it names. Others are named, and do not count.
    """
    found = sorted(Path(folder).glob("*/*.json"))
    own = [path for path in found if _is_own(path)]
    known = notebooks.names()
    for path in orphans("data/records", *own, notebooks=known):
        print(f"uqlib: {path} is of a notebook that is not there any more; it does not count", file=sys.stderr)
    if foreign := [str(path) for path in found if path not in own]:
        print(f"uqlib: not written by `make book`, so they do not count: {shortened(foreign)}", file=sys.stderr)
    return read_runs("data/records", *own, notebooks=known)


def _is_own(path: Path) -> bool:
    basis = read_basis(basis_path(path))
    return basis is not None and basis["outputs"].get(path.name) == sha256_of_file(path)
