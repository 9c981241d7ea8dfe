"""All that the short studies ask for, as jobs of `uqlib train` and `uqlib short`: each NAME_runs.py of this folder."""

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

from uqlib.base.options import check_choice
from uqlib.experiments import short
from uqlib.experiments.keeping.kept_jobs import job_of_run
from uqlib.experiments.keeping.kept_runs import KeptRun, place_of
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
        return [job_of_run(each, 1) for each in short_runs(scale)]
    own = {each.name: each for each in short_papers()[check_choice(paper, short_papers(), "short study")](scale)}
    chosen = own if run is None else [check_choice(run, own, f"run of {paper}")]
    return [job_of_run(own[name], 1) for name in chosen]


def missing_short_jobs(scale: str = "cpu") -> list[Job]:
    """What is not there yet of all that is asked for at a scale; a checkout without data/trained/short asks for nothing."""
    if not Path(place_of("components", "short")).parent.is_dir():
        return []
    return [job for job in short_jobs(scale=scale) if job.is_missing()]
