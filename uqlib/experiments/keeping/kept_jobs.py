"""Kept runs as jobs of `uqlib train`."""

from statistics import median

from uqlib.experiments.keeping.kept_runs import FOLDERS, KeptRun, about_runs
from uqlib.experiments.worklist import Job


def job_of_run(run: KeptRun, alike: int) -> Job:
    """The job that makes a run; its seconds are what runs took whose first `alike` parts of the name are the same."""
    about = about_runs(run.task, run.folder)
    seconds = [e["seconds"] for n, e in about.items() if n.split("/")[:alike] == run.name.split("/")[:alike]]
    return Job(
        name=f"{run.task}/{run.name}", command=f"{FOLDERS[run.folder]} {run.task} {run.name}", place=f"{run.task}/{run.name}",
        make=run.keep, is_missing=run.is_missing, value=run.value, repeat=run.seed, seconds=median(seconds) if seconds else None,
    )  # fmt: skip
