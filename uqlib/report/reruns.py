"""A run beside the published one: number by number, claim by claim, and what of their inputs differs; as text or a page."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple

from uqlib.base.extras import named
from uqlib.evidence.ledger import Ledger
from uqlib.evidence.records import Result
from uqlib.evidence.verdicts import judge
from uqlib.report.tables import show_table

with named():
    import pandas as pd

FALLEN = ("verdict changed", "gone", "other setting", "moved")
OUTCOMES = (*FALLEN, "inside the interval", "same bits", "new")  # of a claim the worst of its numbers, or the first
MEASURED = re.compile(r"(^|_)(seconds|time|throughput)(_|$)")  # in a quantity: its bits are others in every run
OF_THE_RUN = ("seconds", "peak_memory_mb", "date")  # others in every run
PAGE = """<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><style>
:root {{color-scheme: light dark; font: 15px/1.5 sans-serif}} div {{overflow-x: auto}} td, th {{padding-right: 1em; text-align: left}}
</style><title>A run beside the published one</title><h1>A run beside the published one</h1>{body}</html>
"""

Row = dict[str, str]


class Comparison(NamedTuple):
    """Tables, as they are printed."""

    inputs: list[Row]  # the two runs, and what differs between them
    claims: list[Row]  # of the ledger, judged on each record alone
    numbers: list[Row]  # those that claims are about first
    reported: list[Row]  # the paper's numbers in the tables and figures that the notebook re-derives

    @property
    def stands(self) -> bool:
        """Whether no verdict has changed, and every published number is there and inside its interval."""
        return not any(row["outcome"] in FALLEN for row in (*self.claims, *self.numbers))


def compare_runs(
    ours: Mapping[str, Any], published: Mapping[str, Any], ledgers: Iterable[Ledger], code: Sequence[str] = ()
) -> Comparison:
    """A run beside the published one of its notebook.

    Args:
        ours: the record, as `records.read_record` gives it.
        published: the other one.
        ledgers: those whose claims may be about the notebook.
        code: what has changed of the code and the files that the published run rests on.
    """
    rows = [row for ledger in ledgers for row in ledger.rows]
    paper = [(row, each) for row in rows if row.notebook == ours["notebook"] for each in row.reported]
    said: dict[tuple[str, str], list[str]] = defaultdict(list)
    for row, n in paper:  # a table and a figure may report the same number
        said[n.quantity, n.setting].append(f"{n} {n.unit} ({row.id})")
    now, then = ({(each.quantity, each.setting): each for each in run["results"]} for run in (ours, published))
    names = {key: key[1] for key in now | then}
    for quantity in {key[0] for key in now}:  # one number of it in each run, such as of another pair: side by side
        new, gone = ([key for key in a.keys() - b.keys() if key[0] == quantity] for a, b in ((now, then), (then, now)))
        if len(new) == len(gone) == 1:
            then[new[0]], names[new[0]] = then.pop(gone[0]), f"{new[0][1]} (published: {gone[0][1]})"
    outcomes = {key: compare_results(now.get(key), then.get(key)) for key in now | then}
    claims, places = [], dict[str, int]()
    for claim in (claim for row in rows for claim in row.claims):
        own, other = (judge(claim, run["results"], run["scale"]) for run in (ours, published))
        if own.results or other.results:
            places.setdefault(claim.quantity, len(places))
            worst = min((outcomes[key] for key in outcomes if key[0] == claim.quantity), key=OUTCOMES.index)
            outcome = worst if own.verdict == other.verdict else FALLEN[0]
            claims.append({"claim": claim.id, "this run": own.verdict, "published": other.verdict, "outcome": outcome})
    numbers = [
        {"quantity": key[0], "setting": names[key], "this run": f"{now.get(key, '')}", "published": f"{then.get(key, '')}",
         "paper": "; ".join(said[key]), "outcome": outcomes[key]}
        for key in sorted(outcomes, key=lambda key: places.get(key[0], len(places)))
    ]  # fmt: skip
    reported = [{"row": row.id, "number": f"{n.quantity}, {n.setting}", "paper": f"{n} {n.unit}"} for row, n in paper]
    return Comparison(differing_inputs(ours, published, code), claims, numbers, reported)


def compare_results(ours: Result | None, published: Result | None) -> str:
    """One of OUTCOMES. Inside is a value in the published interval, to rounding; of measured seconds, intervals that meet."""
    if ours is None or published is None:
        return "new" if ours else "gone"
    if ours.setting != published.setting:
        return "other setting"
    parts = [
        (each.value, each.low, each.high, each.splits, each.seeds, each.examples, each.covers)
        for each in (ours, published)
    ]
    measured = MEASURED.search(ours.quantity)
    if parts[0] == parts[1] and not measured:
        return "same bits"
    # a value may lie beside its interval, which then reaches to it
    ends = [[end for end in part[:3] if end is not None] for part in parts]
    low, high = (min(ends[0]), max(ends[0])) if measured else (ours.value, ours.value)
    near = any(math.isclose(ours.value, end, rel_tol=1e-9, abs_tol=1e-12) for end in ends[1])
    return "inside the interval" if near or (low <= max(ends[1]) and min(ends[1]) <= high) else "moved"


def differing_inputs(ours: Mapping[str, Any], published: Mapping[str, Any], code: Sequence[str]) -> list[Row]:
    """Where the two records lie, and what of their parameters, data, versions, machine and code is not the same."""
    now, then = (_flat({"parameter": run["parameters"]} | run["provenance"]) for run in (ours, published))
    rows = [("record", f"{ours['path']}", f"{published['path']}")]
    rows += [("parameters", "the same", "")] * (ours["parameters"] == published["parameters"])
    both = ((name, now.get(name, "–"), then.get(name, "–")) for name in dict.fromkeys([*now, *then]))
    rows += [(name, f"{new}", f"{old}") for name, new, old in both if name not in OF_THE_RUN and new != old]
    rows += [("code and files", each, "") for each in code]
    return [dict(zip(("input", "this run", "published"), row, strict=True)) for row in rows]


def _flat(part: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in part.items():
        found |= _flat(value, f"{prefix}{name} ") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def as_text(found: Comparison, page: str, *, most: int = 24, only: Collection[str] = OUTCOMES) -> str:
    """For a terminal: what differs, the claims, and some numbers, of each quantity a part where there are claims.

    Args:
        found: from `compare_runs`.
        page: where the rest is to be read.
        most: so many numbers at most.
        only: the outcomes of which numbers are shown; all are counted.
    """
    turn: dict[str, Iterator[int]] = defaultdict(count)
    share = most // max(1, len(found.claims)) or 1
    wanted = [row for row in found.numbers if row["outcome"] in only]
    picked = [row for row in wanted if next(turn[row["quantity"]]) < share][:most]
    group, name = sorted(("quantity", "setting"), key=lambda part: len({row[part] for row in picked}))
    lines = []
    for title in dict.fromkeys(row[group] for row in picked):
        lines += [{"": title}, *({"": f"  {row[name]}", **row} for row in picked if row[group] == title)]
    lines = [{key: row.get(key, "") for key in ("", "this run", "published", "paper", "outcome")} for row in lines]
    counts = Counter(row["outcome"] for row in found.numbers)
    total = ", ".join(f"{counts[outcome]} {outcome}" for outcome in OUTCOMES if counts[outcome]) or "none"
    rest = f"... and {len(wanted) - len(picked)} more in" if len(wanted) > len(picked) else "the same as a page:"
    end = f"numbers: {total}\n{rest} {page}"
    return "\n\n".join([*("\n".join(_aligned(each)) for each in (found.inputs, found.claims, lines) if each), end])


def as_html(found: Comparison) -> str:
    """The same as a page of its own, with every number; whatever a text holds, it is shown as it is written."""
    parts = []
    for name, rows in zip(("Inputs", "Claims", "Numbers", "What the paper reports"), found, strict=True):
        parts.append(
            f"<h2>{name}</h2><div>{show_table(pd.DataFrame(rows), name=name)._repr_html_() if rows else 'none'}</div>"
        )
    return PAGE.format(body="".join(parts))


def _aligned(rows: Sequence[Row]) -> list[str]:
    """Rows as lines under their heads; empty columns are left out, and no character of a cell is one that a terminal obeys."""
    plain = lambda cell: "".join(c if c.isprintable() else " " for c in cell)[:80]  # noqa: E731
    columns = [[plain(cell) for cell in (name, *(row[name] for row in rows))] for name in rows[0]]
    kept = [[cell.ljust(max(map(len, column))) for cell in column] for column in columns if any(column[1:])]
    return ["  ".join(line).rstrip() for line in zip(*kept, strict=True)]
