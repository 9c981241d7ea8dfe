"""All that the short studies ask for, as jobs of `uqlib train` and `uqlib short`: each NAME_runs.py of this folder."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from statistics import median

from uqlib.base.options import check_choice
from uqlib.experiments import short
from uqlib.experiments.keeping.kept_runs import KeptRun, about_runs, place_of
from uqlib.experiments.worklist import Job

END = "_runs"


@cache
def short_papers() -> dict[str, Callable[[str], Iterator[KeptRun]]]:
    """What yields the runs of a scale, by paper."""
    found = [each.name for each in pkgutil.iter_modules(short.__path__) if each.name.endswith(END)]
    return {
        name.removesuffix(END): getattr(importlib.import_module(f"{short.__name__}.{name}"), name)
        for name in sorted(found)
    }


def short_runs(scale: str = "cpu") -> Iterator[KeptRun]:
    """Every run of a scale, there or not."""
    for runs in short_papers().values():
        yield from runs(scale)


def short_jobs(paper: str | None = None, run: str | None = None, *, scale: str = "cpu") -> list[Job]:
    """All jobs, those of a paper, or that of one run; there or not.

    Raises:
        ValueError: if there is no such paper or run.
    """
    if paper is None:
        return [_short_job(each) for each in short_runs(scale)]
    own = {each.name: each for each in short_papers()[check_choice(paper, short_papers(), "short study")](scale)}
    chosen = own if run is None else [check_choice(run, own, f"run of {paper}")]
    return [_short_job(own[name]) for name in chosen]


def missing_short_jobs(scale: str = "cpu") -> list[Job]:
    """What is not there yet of all that is asked for at a scale; a checkout without data/trained/short asks for nothing."""
    if not Path(place_of("components", "short")).parent.is_dir():
        return []
    return [job for job in short_jobs(scale=scale) if job.is_missing()]


def _short_job(run: KeptRun) -> Job:
    return Job(
        name=f"{run.task}/{run.name}", command=f"uqlib short {run.task} {run.name}", place=f"{run.task}/{run.name}",
        make=run.keep, is_missing=run.is_missing, value=run.value, repeat=run.seed, seconds=_like_seconds(run),
    )  # fmt: skip


def _like_seconds(run: KeptRun) -> float | None:
    """What runs of the same first part took."""
    about = about_runs(run.task, run.folder)
    like = [each["seconds"] for name, each in about.items() if name.split("/")[0] == run.name.split("/")[0]]
    return median(like) if like else None
