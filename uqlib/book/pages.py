"""The pages of the book that are computed: verdicts, parameters of every notebook, what ran. Records in, Markdown out.

Text of a ledger, a record or a notebook goes through `uqlib.report.markdown`, so that it stands in the page and never runs there.
"""

import json
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from uqlib.base.scales import SCALES
from uqlib.base.splits import split
from uqlib.book import house, notebooks
from uqlib.book.staleness import basis_path, read_basis, shortened
from uqlib.combine.duos import decide, fit_duo
from uqlib.evidence.ledger import Ledger, read_ledgers
from uqlib.evidence.records import VERSIONS, orphans, read_runs
from uqlib.evidence.verdicts import judge_ledger
from uqlib.experiments import benchmarks
from uqlib.experiments.benchmarks import Benchmark
from uqlib.files.whole import sha256_of_file, write_text
from uqlib.metrics import accuracy
from uqlib.report.computed import comparison, cover, playground, verdict_pages
from uqlib.report.markdown import block, code, table, text
from uqlib.report.telling import counted


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
    """Every parameter of every notebook, folded: default, type, meaning, and the command that sets it."""
    parts = []
    for path in paths:
        known = notebooks.parameters(path)
        rows = [[code(p.name), code(repr(p.default)), p.kind, text(p.meaning, spans=True)] for p in known.values()]
        parts += [
            f":::{{admonition}} {code(path)}\n:class: dropdown\n",
            table(["parameter", "default", "type", "meaning"], rows),
        ]
        parts += [block(f"uqlib run {shlex.quote(str(path))} --scale cpu", "sh"), ":::\n"]
    return "\n".join(parts)


def runs_page(runs: Sequence[dict[str, Any]]) -> str:
    """One line a record: what ran, how long, where, with what; of the latter, what is the same of all is said once."""
    head, rows = ["notebook", "results", "time", "peak memory", "scale", "device", "versions", "date"], []
    for run in runs:
        made = run["provenance"]
        versions = ", ".join(f"{name} {made['versions'][name]}" for name in VERSIONS)
        rows.append([
            text(run["notebook"]), len(run["results"]), f"{made['seconds']:.0f} s", f"{made['peak_memory_mb']} MB", run["scale"],
            text(f"{made['device']}, {counted(made['threads'], 'threads')}"), text(versions), text(made["date"][:10]),
        ])  # fmt: skip
    columns = list(zip(head, *rows, strict=True))
    same = [column for column in columns[4:] if len(rows) > 1 and len(set(column[1:])) == 1]
    said = "".join(f"The {name} of all of them: {value}.\n" for name, value, *_ in same)
    first, *others = zip(*(column for column in columns if column not in same), strict=True)
    return f"{said}\n{table(first, others)}"


def drop_example(bench: Benchmark, *, rows: int = 600) -> str:
    """An example of a file to drop: a large network at its temperature, and its duo, on images that neither fit has seen."""
    pair = bench.nearest(1 / 3)
    answers = bench.answers(list(pair))
    labels, (large, small) = answers[pair[0]].labels, [each.logits for each in answers.values()]
    fit, test = split(len(labels), bench.fit_size, seed=0)
    fitted, test = fit_duo(large[fit], small[fit], labels[fit]), test[:rows]
    both = [decide(variant, large[test], small[test], fitted) for variant in ("base", "ours")]
    agree = large[test].argmax(-1) == small[test].argmax(-1)
    groups = ["the networks agree" if each else "the networks differ" for each in agree.tolist()]
    return playground.drop_html([(each.confidence, each.preds == labels[test]) for each in both], groups)


def write_pages(folder: Path) -> None:
    """Compute the pages from what is published and what lies in a folder of results, and write them there."""
    ledgers = read_ledgers("data/ledger")
    runs = published_runs(folder)
    results = [result for run in runs for result in run["results"]]
    judged = [judge_ledger(each, results) for each in ledgers]
    texts = {
        "ledger": "\n".join(verdict_pages.ledger_page(each, results) for each in ledgers),
        "summary": verdict_pages.summary_page(judged),
        "cover": cover.verdict_bars(judged, chapter_names(ledgers)),
        "verdicts": verdict_pages.verdicts_list(),
        "beside": verdict_pages.papers_numbers(judged),
        "criteria": verdict_pages.criteria_page(judged),
        "forecasts": verdict_pages.forecasts_page(judged),
        "comparison": comparison.comparison_table(results, chapter_names(ledgers)),
        "scales": scales_table(),
        "benchmarks": benchmarks_page(map(benchmarks.load_benchmark, benchmarks.benchmark_names())),
        "parameters": parameters_page(notebooks.paths()),
        "runs": runs_page(runs),
        "guesses": playground.guesses_page(judged),
        "drop_example": drop_example(benchmarks.load_benchmark("cifar10")),
        "get": house.get_it(Path("pyproject.toml")),
        **house.api_pages(Path("uqlib")),
    }
    for name, page in texts.items():
        write_text(folder / f"{name}.md", page)
    write_text(folder / "verdicts.json", json.dumps(verdict_pages.verdict_facts(judged), indent=1) + "\n")


def chapter_names(ledgers: Iterable[Ledger]) -> dict[str, str]:
    """The first heading of each paper's chapter, by paper."""
    pages = {each.paper: Path(f"book/{each.paper}/index.md") for each in ledgers}
    read = {
        paper: re.search("^# (.+)$", page.read_text(encoding="utf-8"), re.M)
        for paper, page in pages.items()
        if page.is_file()
    }
    return {paper: heading[1] for paper, heading in read.items() if heading}


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
