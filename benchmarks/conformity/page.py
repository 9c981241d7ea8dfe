"""Fill book/conformity.md with what found.json says.

    python benchmarks/conformity/page.py

The page has a block for each table, from a line `% found: NAME` to a line `% end`; what stands between them is written
here, and a test holds the page against it. The words around the blocks are the page's own.
"""

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from uqlib.judge import CONVENTIONS

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "book/conformity.md"
BLOCK = re.compile(r"(?<=^% found: )([^\n]+)\n.*?(?=^% end$)", re.M | re.S)
Found = dict[str, Any]

# what a reproduction shows; the numbers are what it prints
FAULTS = {
    "cleanlab_low_memory": "cleanlab: the version for large data finds other labels, not the same ones in less memory.",
    "mapie_array_split_order": 'MAPIE: with "array split" the edges come from the rows as they stand, so their order decides.',
    "mapie_one_bin": "MAPIE: one bin is allowed and gives no number.",
    "mapie_one_bin_fewer": "MAPIE: two bins put everything into one; three give two.",
    "netcal_quantile_bins": "netcal: bins of equal mass fail where two quantiles are one confidence, as with many ones.",
    "netcal_temperature_float32": "netcal: on float32 probabilities the optimiser stays at its start and says nothing.",
    "probly_aurc_remainder": "probly: the cuts are n // 50 rows wide, so that of 99 rows half are never rejected, on an axis that says all.",
    "probly_constant_score": "probly: a constant score is a perfect detector.",
    "pytorch_ood_aupr_constant": "pytorch-ood: trapezoids credit a constant score with half of the way to 1; its documentation says that guessing gets the share of the positives.",
    "pytorch_ood_aurra_order": "pytorch-ood: tied confidences stay as the sort left them (its documentation says so).",
    "pytorch_ood_mahalanobis_sum": "pytorch-ood: the covariance is a sum (its documentation says so), so distances shrink with the rows of the fit.",
    "pytorch_ood_temperature": "pytorch-ood: fifty small steps end far from the optimum (its documentation says approximately).",
    "torch_uncertainty_ace_small": "torch-uncertainty: fewer rows than bins give NaN, from the mean of an empty bin.",
    "torch_uncertainty_augrc_plot": "torch-uncertainty: the figure shows another AUGRC than `compute`.",
    "torch_uncertainty_aurc_order": "torch-uncertainty: equal confidences, the same rows in two orders.",
    "torch_uncertainty_conformal_small": "torch-uncertainty: the quantile lacks the correction for few rows, so that it promises what they cannot keep.",
    "torch_uncertainty_smece_float64": "torch-uncertainty: float64 probabilities end in an error of torch.",
    "torch_uncertainty_smece_reflection": "torch-uncertainty: the reflected kernel loses half of what lies at exactly 1, as in the grid it follows.",
    "torchmetrics_auroc_one_class": "torchmetrics: with one class missing the AUROC is a number, the worst there is.",
    "torchmetrics_confidence_one": "torchmetrics: a confidence of exactly 1 has a bin of its own beside the ten.",
    "torchmetrics_float32": "torchmetrics: sums of ten million rows in float32, and in float64.",
    "uncertainty_toolbox_grid": "uncertainty-toolbox: the area is that of polygon lines between so many points; 100 by default.",
}


def filled(text: str, found: Found) -> str:
    """The page with its blocks written anew."""
    made = blocks(found)
    return BLOCK.sub(lambda match: f"{match[1]}\n\n{made[match[1]]}\n\n", text)


def blocks(found: Found) -> dict[str, str]:
    """What stands in each block, by its name."""
    made = {
        "run": run(found),
        "orders": orders(found),
        "large": large(found),
        "faster": faster(found),
        "small": small(found),
        "edges": edges(found),
        "right": right(found),
        "faults": faults(found),
    }
    for metric, prefixes in {
        "ECE": ("ECE", "smECE"),
        "other calibration errors": ("RMSCE", "MCE", "ACE", "calibration error"),
        "AURC": ("AURC", "AURRA"),
        "AUGRC": ("AUGRC",),
        "at a threshold": ("CovAt5Risk", "RiskAt80Cov"),
    }.items():
        made[metric] = numbers(found, prefixes, "cifar10" if metric == "ECE" else "distinct")
    for metric in ("AUROC", "AUPR", "FPR95"):
        made[metric] = numbers(found, (metric,), "foreign")
    for name, rows in found["methods"].items():
        made[name] = method(rows)
    return made


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [list(head), ["---"] * len(head), *([shown(cell) for cell in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return re.sub(r"\b(nan|\w+Error)\b", r"`\1`", str(value).replace("|", "\\|"))  # words of a program


def run(found: Found) -> str:
    rows = [(name, version) for name, version in found["versions"].items()]
    return f"Run on {found['date']} with Python {found['python']}.\n\n" + table(("package", "version"), rows)


def numbers(found: Found, prefixes: tuple[str, ...], name: str) -> str:
    """uqlib first; then each library with its number and what makes it another."""
    rules = {(row.library, row.metric): row for row in CONVENTIONS}
    rows = []
    for row in found["numbers"]:
        if row["input"] != name or not any(row["metric"].split(",")[0].split(".")[0] == each for each in prefixes):
            continue
        rule = rules.get((row["library"], row["metric"]))
        ours = rule.ours if rule else "smooth_ece"
        words = rule.differs if rule else "a kernel on a grid of its own, in float32; compare ours, the reflected one"
        rows.append(
            (
                f"{row['library']} {row['metric']}",
                row["value"],
                row["ours"],
                "; ".join(part for part in ("" if ours == "none" else f"`{ours}`", words) if part),
            )
        )
    return table(("there", "its number", "ours", "ours is; what differs there"), rows)


def orders(found: Found) -> str:
    """Those that move, on either input."""
    pairs: dict[tuple[str, str], dict[str, Any]] = {}
    for row in found["orders"]:
        pairs.setdefault((row["library"], row["metric"]), {})[row["input"]] = row["spread"]
    moved = {key: each for key, each in pairs.items() if any(_moves(value) for value in each.values())}
    rows = [
        (f"{library} {metric}", _brief(each["cifar10"]), _brief(each["tied"]))
        for (library, metric), each in moved.items()
    ]
    return table(("metric", "real confidences", "all confidences equal"), rows) + (
        f"\n\n{len(pairs) - len(moved)} other metrics of the peers and all of uqlib do not move by more than 1e-5 on these rows."
    )


def _brief(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.2g}"


def _moves(value: Any) -> bool:
    return "orders" in value if isinstance(value, str) else value > 1e-5


def large(found: Found) -> str:
    rows = [
        (
            f"{row['library']} {row['metric']}",
            f"{abs(row['value'] - row['float64']):.0e}",
            f"{row['times']:.1f}",
            row["memory_mib"],
        )
        for row in found["large"]
        if "value" in row
    ]
    return table(("metric", "away from float64", "time, uqlib = 1", "memory, MiB"), rows)


def faster(found: Found) -> str:
    """Where a peer needs less time than uqlib."""
    rows = [row for row in found["large"] if row.get("times", 1) < 1]
    if not rows:
        return "None of them was faster than uqlib at this size in this run."
    return (
        "Faster than uqlib in this run: "
        + ", ".join(f"{row['library']} {row['metric']} ({row['times']:.2f} of our time)" for row in rows)
        + "."
    )


def small(found: Found) -> str:
    """Where a number is missing: NaN, an error of theirs, or a number where there is none."""
    merged: dict[tuple[str, Any, Any], list[str]] = {}
    for row in found["numbers"]:
        says, ours = _short(row["value"]), _short(row["ours"])
        if row["input"] not in ("five rows", "all correct", "one row") or row["metric"].startswith("smECE"):
            continue  # what smECE says of float64 is below
        if isinstance(says, str) != isinstance(ours, str) or (says == "nan" and ours != "nan"):
            key = f"{row['library']} {row['metric']}", says, "a number" if not isinstance(ours, str) else ours
            merged.setdefault(key, []).append(row["input"])
    rows = [(name, ", ".join(given), says, ours) for (name, says, ours), given in merged.items() if ours != "none"]
    return table(("metric", "of", "says", "uqlib says"), rows)


def edges(found: Found) -> str:
    """The ECE of each library where a confidence lies on an edge, or is 0 or 1."""
    at = {(row["library"], row["metric"], row["input"]): row for row in found["numbers"]}
    names = "on an edge", "zero and one"
    of = [key for key in at if key[1] == "ECE" and key[2] == names[0]]
    ours = [at[(*of[0][:2], name)]["ours"] for name in names]
    rows = [(library, *(at[library, metric, name]["value"] for name in names)) for library, metric, _ in of]
    return table(("ECE of", *names), [("uqlib", *ours), *rows])


def right(found: Found) -> str:
    """The metrics that are the same number as ours."""
    same = [
        f"{row['library']} {row['metric']}"
        for row in found["numbers"]
        if row["input"] == ("foreign" if row["metric"] in ("AUROC", "AUPR", "FPR95") else "distinct")
        and not isinstance(row["value"], str)
        and not isinstance(row["ours"], str)
        and abs(row["value"] - row["ours"]) < 1e-12
    ]
    return f"The same as uqlib to 1e-12 on these rows, in float64: {', '.join(same)}."


def _short(value: Any) -> Any:
    return value.split(":")[0] if isinstance(value, str) else value


def method(rows: list[Found]) -> str:
    names = list(dict.fromkeys(key for row in rows for key in row if key not in ("library", "seconds", "error")))
    body = [(row["library"], *(row.get(name, row.get("error", "")) for name in names)) for row in rows]
    return table(("library", *names), body)


def faults(found: Found) -> str:
    """Each with its code and what it prints."""
    parts = []
    for fault in found["faults"]:
        code = (HERE / "faults" / f"{fault['name']}.py").read_text()
        parts.append(f"**{FAULTS[fault['name']]}**\n\n```python\n{code}```\n\n```text\n{fault['prints']}\n```")
    return "\n\n".join(parts)


def main() -> None:
    found = json.loads((HERE / "found.json").read_text())
    PAGE.write_text(filled(PAGE.read_text(), found))


if __name__ == "__main__":
    main()
