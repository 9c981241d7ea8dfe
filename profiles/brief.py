"""Run Snakemake and say of its report what a reader wants: which step runs and why, how far it is, what went wrong.

python profiles/brief.py SNAKEMAKE OPTIONS... runs that command. Once it is stopped, by Ctrl-C or SIGTERM, it has nothing to
say any more; it hands the signal on to all that it has started, waits for them, and ends by it.
"""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator

MISTAKE = re.compile(
    r"uqlib: |.*(WARNING|ERROR|CRITICAL):|[A-Za-z]+(Error|Exception)( |:)|The run up to there|.*Error in "
)
NOISE = re.compile("RuleException|WorkflowError|CalledProcess")


def brief(lines: Iterable[str]) -> Iterator[str]:
    """The lines worth saying. Of a job, releases print reason and wildcards in one order or the other.

    What is stale, and why, the Snakefile says first; of a step that it did not speak of the reason is Snakemake's.
    """
    step, of, reason = "", "", ""
    told: set[str] = set()
    for line in lines:
        line = line.rstrip("\n")
        if reason and not re.match(r" +(reason|wildcards|jobid|log|input|output|benchmark|priority|params): ", line):
            if step != "all":
                known = (of.strip() or step) in told
                yield f"{step}{of}" if known else f"{step}{of}: {reason[:150]}"
            step = of = reason = ""
        if stale := re.fullmatch(r"stale: (\S+): (.*)", line):
            told.add(stale[1])
            yield f"{stale[1]}: {stale[2]}"
        elif rule := re.fullmatch(r"(?:local)?rule (\w+):", line):
            step, of, reason = rule[1], "", ""
        elif step and (wildcards := re.match(r" +wildcards: \w+=(.*)", line)):
            of = f" {wildcards[1]}"
        elif step and (why := re.match(r" +reason: (.*)", line)):
            reason = why[1]
        elif re.match(r"\d+ of \d+ steps", line):
            yield f"  {line}"
        elif "Nothing to be done" in line:
            yield "Nothing is stale."
        elif MISTAKE.match(line) and not NOISE.search(line):
            yield line


def descendants(process: int) -> list[int]:
    """All that a process has started, and they in turn."""
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True).stdout
    children: dict[int, list[int]] = {}
    for child, parent in (map(int, line.split()) for line in listed.splitlines()):
        children.setdefault(parent, []).append(child)
    found, waiting = [], [process]
    while waiting:
        own = children.get(waiting.pop(), [])
        found += own
        waiting += own
    return found


def main(command: list[str]) -> int:
    """Run the command, print its report in brief, and return its exit code."""
    came: list[int] = []

    def stop(number: int, _: object) -> None:
        came.append(number)
        if number != signal.SIGINT:  # a Ctrl-C reaches all of the terminal by itself
            for each in descendants(os.getpid()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGTERM)

    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, stop)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8",
                          errors="replace") as process:  # fmt: skip
        for line in brief(process.stdout):
            if not came:
                print(line, flush=True)
    if came:
        signal.signal(came[0], signal.SIG_DFL)
        os.kill(os.getpid(), came[0])
    if process.returncode:
        print("The book was not built; the reason stands above, and the whole story in build/log and .snakemake/log.")
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
