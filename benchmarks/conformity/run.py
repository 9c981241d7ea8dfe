"""The lab: every peer on the same inputs, one number each, beside what uqlib says and what its translation says.

    python benchmarks/conformity/run.py            # writes found.json beside this file; about ten minutes
    python benchmarks/conformity/run.py --quick    # without the ten million rows and the times

Needs the packages of requirements.txt beside this file, in an environment of their own, and this checkout on
PYTHONPATH. A peer that refuses an input has its error in the place of the number. Times are ratios of medians to uqlib
in one process; memory is the growth of the peak of resident memory in a call after a small one, in a fresh process.
"""

import argparse
import datetime
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import inputs
import methods
import numpy as np
import peers

from uqlib import metrics
from uqlib.judge import CONVENTIONS, translate
from uqlib.judge.conventions import VERSIONS

HERE = Path(__file__).resolve().parent
ORDERS = 20  # of the rows
ROWS = 10**7
DETECTION = ("AUROC", "AUPR", "FPR95")
OURS: dict[str, Callable[[Any, Any], float]] = {  # of uqlib, by the name that `ours` of a convention begins with
    "ece": lambda confidence, correct: metrics.ece(confidence, correct, bins=inputs.BINS),
    "ece(norm='l2')": lambda confidence, correct: metrics.ece(confidence, correct, bins=inputs.BINS, norm="l2"),
    "ece(norm='max')": lambda confidence, correct: metrics.ece(confidence, correct, bins=inputs.BINS, norm="max"),
    "ece(by='mass')": lambda confidence, correct: metrics.ece(confidence, correct, bins=inputs.BINS, by="mass"),
    "rms_calibration_error": lambda confidence, correct: metrics.rms_calibration_error(
        confidence, correct, bins=max(1, len(confidence) // 100)
    ),
    "smooth_ece": metrics.smooth_ece,
    "aurc": metrics.aurc,
    "augrc": metrics.augrc,
    "coverage_at_risk(risk=0.05)": lambda confidence, correct: metrics.coverage_at_risk(confidence, correct, risk=0.05),
    "risk_at_coverage(coverage=0.8)": lambda confidence, correct: metrics.risk_at_coverage(
        confidence, correct, coverage=0.8
    ),
    "auroc": metrics.auroc,
    "aupr": metrics.aupr,
    "fpr_at_tpr": metrics.fpr_at_tpr,
}
LARGE = [  # what is timed at ten million rows
    ("torchmetrics", "ECE"),
    ("torch-uncertainty", "ECE"),
    ("netcal", "ECE"),
    ("MAPIE", "ECE"),
    ("probly", "ECE"),
    ("torch-uncertainty", "AURC"),
    ("torch-uncertainty", "AUGRC"),
    ("pytorch-ood", "AURRA"),
    ("pytorch-ood", "calibration error"),
    ("torchmetrics", "AUROC"),
    ("scikit-learn", "AUROC"),
    ("pytorch-ood", "AUROC"),
    ("probly", "AUROC"),
]


def said(call: Callable[..., float], *arguments: Any, **options: Any) -> float | str:
    """The number, or the error that came instead; NaN as text, which JSON has no number for."""
    try:
        value = float(call(*arguments, **options))
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:120] if str(error) else ''}".strip()
    return value if np.isfinite(value) else str(value)


def ours_of(library: str, metric: str) -> str:
    """The function of uqlib for the same question."""
    rows = {(row.library, row.metric): row.ours for row in CONVENTIONS}
    return rows.get((library, metric), "smooth_ece" if metric.startswith("smECE") else "none")


def numbers() -> list[dict[str, Any]]:
    """Each metric of each peer on each input."""
    found = []
    known = {(row.library, row.metric) for row in CONVENTIONS}
    for name, (confidence, correct) in inputs.columns().items():
        for library, metric, call in every():
            if name == "foreign" and metric.split(",")[0] not in DETECTION:
                continue  # a doubt of two kinds of images is no confidence
            ours = OURS.get(ours_of(library, metric))
            row = {"library": library, "metric": metric, "input": name, "value": said(call, confidence, correct)}
            row["ours"] = said(ours, confidence, correct) if ours else "none"
            if (library, metric) in known:
                row["translated"] = said(translate, metric, confidence, correct, of=library, bins=inputs.BINS)
            found.append(row)
    return found


def every() -> list[tuple[str, str, peers.Call]]:
    return [(library, metric, call) for library, metrics in peers.CALLS.items() for metric, call in metrics.items()]


def orders() -> list[dict[str, Any]]:
    """The spread of each metric over orders of the same rows."""
    found = []
    for name in ("cifar10", "tied"):
        confidence, correct = inputs.columns()[name]
        rng = np.random.default_rng(inputs.SEED)
        drawn = [rng.permutation(len(confidence)) for _ in range(ORDERS)]
        for library, metric, call in every():
            spread = spread_of(call, confidence, correct, drawn)
            ours = OURS.get(ours_of(library, metric))
            row = {"library": library, "metric": metric, "input": name, "spread": spread}
            row["ours"] = spread_of(ours, confidence, correct, drawn) if ours else "none"
            found.append(row)
    return found


def spread_of(call: peers.Call, confidence: np.ndarray, correct: np.ndarray, drawn: list[np.ndarray]) -> float | str:
    values = [said(call, confidence[order], correct[order]) for order in drawn]
    words = [value for value in values if isinstance(value, str)]
    if words:
        return words[0] if len(set(values)) == 1 else f"{words[0]} in {len(words)} of {len(values)} orders"
    return max(values) - min(values)


def large() -> list[dict[str, Any]]:
    """Ten million float32 rows: how far from float64, how long, how much memory; each in a fresh process."""
    found = []
    for library, metric in LARGE:
        print(library, metric, flush=True)
        command = [sys.executable, __file__, "--one", library, metric]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = done.stdout.strip().splitlines()
        found.append(
            json.loads(lines[-1])
            if done.returncode == 0 and lines
            else {"library": library, "metric": metric, "error": (done.stderr.strip().splitlines() or ["?"])[-1][:160]}
        )
    return found


def one(library: str, metric: str) -> dict[str, Any]:
    """One metric of one peer on ten million rows, and ours beside it."""
    confidence, correct = inputs.many(ROWS)
    call, ours = peers.CALLS[library][metric], OURS[ours_of(library, metric)]
    call(confidence[: 10**5], correct[: 10**5]), ours(confidence[: 10**5], correct[: 10**5])
    before = peak()
    began = time.perf_counter()
    value = call(confidence, correct)
    seconds = [time.perf_counter() - began]
    grown = peak() - before
    own = [timed(lambda: ours(confidence, correct)) for _ in range(3)]
    seconds += [timed(lambda: call(confidence, correct)) for _ in range(2)] if seconds[0] < 3 else []
    truth = translate(metric, confidence.astype(np.float64), correct, of=library, bins=inputs.BINS)
    if metric == "ECE":  # an edge that only float32 has is part of the convention, not an error of the sums
        truth = translate(metric, confidence, correct, of=library, bins=inputs.BINS)
    return {
        "library": library,
        "metric": metric,
        "value": value,
        "float64": truth,
        "times": float(np.median(seconds) / np.median(own)),
        "memory_mib": round(grown / 1024),
    }


def timed(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def peak() -> int:
    """KiB; read from /proc, so on Linux only."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def faults() -> list[dict[str, str]]:
    """Each reproduction, and what it prints."""
    found = []
    for path in sorted((HERE / "faults").glob("*.py")):
        done = subprocess.run([sys.executable, "-W", "ignore", str(path)], capture_output=True, text=True, check=False)
        printed = done.stdout.strip() or (done.stderr.strip().splitlines() or [""])[-1]
        found.append({"name": path.stem, "prints": printed})
    return found


def installed() -> dict[str, str]:
    names = [*(each for each in VERSIONS if each != "fd-shifts"), "cleanlab", "uncertainty-toolbox", "torch", "numpy"]
    return {name: version(name) for name in names}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--one", nargs=2)
    parser.add_argument("--to", default=str(HERE / "found.json"))
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(*options.one)))
        return
    path = Path(options.to)
    before = json.loads(path.read_text()) if path.exists() else {}
    found = {
        "date": datetime.date.today().isoformat(),
        "python": platform.python_version(),
        "versions": installed(),
        "numbers": numbers(),
        "orders": orders(),
        "methods": methods.results(),
        "faults": faults(),
        "large": before.get("large", []) if options.quick else large(),
    }
    path.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
