"""The ledger for other programs: as JSON, as a CSV of all evidence, as the manifest of a CODECHECK certificate.

The ids of claims are stable: one that was published keeps its meaning. Numbers that are missing are null, or empty.
"""

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from uqlib.base.extras import named
from uqlib.evidence.ledger import Ledger
from uqlib.evidence.verdicts import Verdict, judge_row, needed_settings

with named():
    from msgspec.structs import asdict as fields_of

Runs = Sequence[Mapping[str, Any]]  # as `records.read_runs` gives them
COLUMNS = (
    "paper", "row", "claim", "text", "ours", "fact", "unit", "condition", "share", "scale", "verdict", "notebook", "quantity", "setting",
    "value", "low", "high", "level", "standard_error", "splits", "seeds", "examples", "covers", "effect", "effect_error", "effect_at",
    "commit", "date", "record_sha256",
)  # fmt: skip


def as_json(ledgers: Sequence[Ledger], runs: Runs) -> str:
    """Every claim with its verdict, what it rests on, and what a meta-analysis needs of each setting."""
    made, results = _provenance(runs), _results(runs)
    papers = [
        {
            "paper": each.paper,
            "title": each.title,
            "cite": each.cite,
            "rows": [
                {
                    "id": row.id,
                    "shows": row.shows,
                    "notebook": row.notebook,
                    "reported": [fields_of(number) for number in row.reported],
                    "claims": [_claim(v) | {"evidence": _evidence(v, made)} for v in judge_row(row, results)],
                }
                for row in each.rows
            ],
        }
        for each in ledgers
    ]
    return json.dumps({"papers": papers}, indent=1, ensure_ascii=False) + "\n"


def as_csv(ledgers: Sequence[Ledger], runs: Runs) -> str:
    """A line a setting of a claim, and one for each claim without evidence; columns as in COLUMNS."""
    made, stream = _provenance(runs), io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    for ledger, row, v in _all(ledgers, runs):
        about = _claim(v) | {"paper": ledger.paper, "row": row.id, "claim": v.claim.id, "notebook": row.notebook}
        for each in _evidence(v, made) or [{}]:
            writer.writerow(about | each | {"covers": ", ".join(each.get("covers", ()))})
    return stream.getvalue()


def as_codecheck(ledgers: Sequence[Ledger], runs: Runs) -> str:
    """A codecheck.yml a paper, one YAML document after the other: each record, and the claims that rest on it.

    Source:
        https://codecheck.org.uk/spec/config/1.0
    """
    files = {(run["notebook"], run["scale"]): run["path"].as_posix() for run in runs}
    parts = []
    for ledger in ledgers:
        told: dict[str, list[str]] = {}
        for _, _, v in _all([ledger], runs):
            for path in sorted({files[each.notebook, each.scale] for each in v.results}):
                told.setdefault(path, []).append(f"{v.claim.id}: {v.verdict}")
        lines = ["version: https://codecheck.org.uk/spec/config/1.0/", "paper:", f"  title: {json.dumps(ledger.title)}"]
        lines += ["manifest:"] if told else ["manifest: []"]
        for path, claims in sorted(told.items()):
            lines += [f"  - file: {json.dumps(path)}", f"    comment: {json.dumps('; '.join(claims))}"]
        parts.append("\n".join(lines) + "\n")
    return "---\n" + "---\n".join(parts)


FORMATS: dict[str, Callable[[Sequence[Ledger], Runs], str]] = {
    "json": as_json,
    "csv": as_csv,
    "codecheck": as_codecheck,
}


def _results(runs: Runs) -> list[Any]:
    return [result for run in runs for result in run["results"]]


def _all(ledgers: Sequence[Ledger], runs: Runs) -> list[tuple[Ledger, Any, Verdict]]:
    results = _results(runs)
    return [(ledger, row, v) for ledger in ledgers for row in ledger.rows for v in judge_row(row, results)]


def _claim(v: Verdict) -> dict[str, Any]:
    named_so = {"holds": "condition"}
    own = {named_so.get(name, name): value for name, value in fields_of(v.claim).items() if name != "paper"}
    low, high = v.predicted if v.results else (math.nan, math.nan)
    numbers = {
        "p": v.p, "p_of_contrary": v.q, "smallest_detectable": v.detectable, "chance_of_paper_effect": v.chance, "predicted_low": low,
        "predicted_high": high, "sceptical_p": v.sceptical if v.results else math.nan,
        "equivalence_p": v.equivalent if v.results else math.nan,
    }  # fmt: skip
    counted = {
        "settings": len(v.results), "needed": needed_settings(v.claim, len(v.results)) if v.results else 0, "certain": v.certain,
        "likely": v.likely, "against": v.against, "agrees_with_paper": v.agrees,
    }  # fmt: skip
    return own | {"scale": v.scale, "verdict": v.verdict} | counted | {k: _plain(x) for k, x in numbers.items()}


def _evidence(v: Verdict, made: Mapping[tuple[str, str], dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        asdict(result) | {"standard_error": _plain(own.error)} | made[result.notebook, result.scale]
        for result, own in zip(v.results, v.estimates, strict=True)
    ]


def _provenance(runs: Runs) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (run["notebook"], run["scale"]): {
            "commit": run["provenance"]["commit"],
            "date": run["provenance"]["date"],
            "record_sha256": run["sha256"],
        }
        for run in runs
    }


def _plain(x: float) -> float | None:
    return None if math.isnan(x) else x
