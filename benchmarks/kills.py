"""Kill `uqlib run` or the making of the book at random moments, and see that the next call mends all.

    python benchmarks/kills.py run 50       some ten minutes on two quiet cores
    python benchmarks/kills.py book 50      some two hours

After each SIGKILL, to the process and all below it, nothing half-written may stand under a final name and the book that stood
before must still be whole; the next call must succeed, give the same bits, do nothing again that was finished, and leave
nothing of the killed one. What is found otherwise is printed, and the exit code is 1.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

CHECKOUT = Path(__file__).resolve().parents[1]
NOTEBOOK = "notebooks/cui2023/measures.ipynb"
BUILT = (
    ".venv",
    ".git",
    ".bench",
    "_build",
    "build",
    "results",
    ".snakemake",
    "__pycache__",
    ".hypothesis",
    ".*_cache",
    "tests",
)


class Tried(NamedTuple):
    """What was seen of one kill."""

    after: float  # seconds
    running: bool  # whether there was something to kill
    faults: list[str]


def started(command: list[str], folder: Path) -> subprocess.Popen:
    """The command in a session of its own, with one thread as in the Makefile."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0", "PYTHONPATH": str(folder)}
    return subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=environment,
    )


def finished(command: list[str], folder: Path) -> tuple[float, str]:
    """The seconds that the command takes, and what went wrong; empty if nothing."""
    began = time.monotonic()
    process = started(command, folder)
    output = process.communicate()[0]
    return time.monotonic() - began, output[-2000:] if process.returncode else ""


def killed(command: list[str], folder: Path, after: float) -> bool:
    """Start the command and kill it and its whole session after so many seconds; whether it still ran."""
    process = started(command, folder)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(after)
    running = process.poll() is None
    if running:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return running


def outcome(record: Path, copy: Path) -> tuple:
    """All of a run that must repeat to the bit: results, copy, figures."""
    figures = sorted(copy.with_suffix(".figures").glob("*.svg"))
    return (
        json.loads(record.read_text(encoding="utf-8"))["results"],
        copy.read_bytes(),
        [f.read_bytes() for f in figures],
    )


def hidden(folder: Path) -> list[str]:
    """Files that only a killed run can have left."""
    return [str(p.relative_to(folder)) for p in folder.rglob(".*") if p.is_file() and p.name != ".snakemake_timestamp"]


def kill_runs(
    times: int, draw: random.Random, folder: Path, say: Callable[[str], None] = print, notebook: str = NOTEBOOK
) -> list[Tried]:
    """Kill `uqlib run` of one notebook so many times, each time with a run to the end after it."""
    copy = folder / "out/copy.ipynb"
    record = copy.with_suffix(".json")
    command = [sys.executable, "-m", "uqlib.cli", "run", notebook, "--scale", "smoke", "-o", str(copy)]
    seconds, fault = finished(command, CHECKOUT)
    if fault:
        raise RuntimeError(f"the run fails without any kill: {fault}")
    wanted = outcome(record, copy)
    tried = []
    for number in range(times):
        shutil.rmtree(copy.parent)
        after = draw.uniform(0, 1.05 * seconds)
        running = killed(command, CHECKOUT, after)
        faults = []
        if copy.exists() and outcome(record, copy) != wanted:
            faults.append("a copy stands that is not the whole one")
        if record.exists() and json.loads(record.read_text(encoding="utf-8"))["results"] != wanted[0]:
            faults.append("a record stands that is not the whole one")
        seconds, fault = finished(command, CHECKOUT)
        if fault:
            faults.append(f"the next call fails: {fault}")
        elif outcome(record, copy) != wanted:
            faults.append("the next call has other bits")
        names = sorted(path.name for path in copy.parent.iterdir())
        if names != ["copy.figures", "copy.ipynb", "copy.json"] or hidden(copy.parent):
            faults.append(f"left over: {names} {hidden(copy.parent)}")
        tried.append(Tried(after, running, faults))
        say(
            f"run {number + 1}: after {after:.2f} s, {'killed' if running else 'had ended'}; {'; '.join(faults) or 'mended'}"
        )
    return tried


def kill_books(times: int, draw: random.Random, folder: Path, say: Callable[[str], None] = print) -> list[Tried]:
    """Kill the making of the book so many times, each time with three notebooks to be run, and make it whole after it."""
    home = folder / "book"
    shutil.copytree(CHECKOUT, home, symlinks=True, ignore=shutil.ignore_patterns(*BUILT))
    snakemake = str(Path(sys.executable).with_name("snakemake"))
    command = [sys.executable, "profiles/brief.py", snakemake, "--cores", "2", "--config", "scale=smoke"]
    seconds, fault = finished(command, home)
    if fault:
        raise RuntimeError(f"the book fails without any kill: {fault}")
    results, html = home / "book/results", home / "_build/html"
    records = sorted(results.glob("*/*.json"))
    wanted = {record: outcome(record, record.with_suffix(".ipynb")) for record in records if repeats(record)}
    pages = sorted(str(path.relative_to(html)) for path in html.rglob("*.html"))
    tried = []
    for number in range(times):
        undone = draw.sample(records, 3)
        for record in undone:
            record.unlink()
        after = draw.uniform(0, seconds if number else 60)
        running = killed(command, home, after)
        at = time.time()
        faults = []
        if sorted(str(path.relative_to(html)) for path in html.rglob("*.html")) != pages:
            faults.append("the book that stood is not whole")
        done = [r for r in records if r.exists() and r.with_suffix(".ipynb").exists() and modified(r) < at - 2]
        before = {record: modified(record) for record in done}
        seconds, fault = finished(command, home)
        if fault:
            faults.append(f"the next call fails: {fault}")
        else:
            faults += [f"{r.stem} was done again" for r in done if modified(r) != before[r]]
            faults += [
                f"{r.stem} has other bits" for r, w in wanted.items() if outcome(r, r.with_suffix(".ipynb")) != w
            ]
            if sorted(str(path.relative_to(html)) for path in html.rglob("*.html")) != pages:
                faults.append("the new book has other pages")
        left = [
            *hidden(results),
            *(str(p) for p in (home / "build").glob("html.*")),
            *map(str, html.parent.glob(".html.*")),
        ]
        if left:
            faults.append(f"left over: {left}")
        tried.append(Tried(after, running, faults))
        say(
            f"book {number + 1}: after {after:.1f} s, {'killed' if running else 'had ended'}; {'; '.join(faults) or 'mended'}"
        )
    return tried


def modified(record: Path) -> float:
    """When the copy of a run was written, the last that a run writes."""
    return record.with_suffix(".ipynb").stat().st_mtime


def repeats(record: Path) -> bool:
    """Whether a run repeats to the bit; measured seconds do not."""
    notebook = CHECKOUT / "notebooks" / record.parent.name / f"{record.stem}.ipynb"
    return "perf_counter" not in notebook.read_text(encoding="utf-8")


def main() -> int:
    """Read the arguments, kill, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["run", "book"])
    parser.add_argument("times", type=int)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        kill = kill_runs if args.what == "run" else kill_books
        tried = kill(args.times, random.Random(args.seed), Path(folder))
    bad = [each for each in tried if each.faults]
    print(f"{len(tried)} tries, {sum(each.running for each in tried)} killed while at work, {len(bad)} not mended")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
