"""All that the chapter on pretraining asks for, as jobs of `uqlib train`: the upstream networks, and the runs that start from them."""

from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path

from uqlib.base.options import check_choice
from uqlib.experiments.keeping.kept_jobs import job_of_run
from uqlib.experiments.keeping.kept_runs import KeptRun, KeptRuns, load_runs
from uqlib.experiments.transfer import (
    adversarial_runs,
    clean_runs,
    course_runs,
    imbalance_runs,
    noise_runs,
    synthesis_runs,
    upstream_networks,
)
from uqlib.experiments.transfer.transfers import SETTINGS, settings_at
from uqlib.experiments.worklist import Course, Job

UPSTREAM_VALUES = {
    "supervised": 10.0,
    "adversarial": 1.0,
    "unrelated": 0.9,
    "rotations": 0.89,
    "wide_supervised": 10.0,
}  # before what starts from it
BY_NAME = "wide_imagenet32"
SCALES = tuple(dict.fromkeys(setting.scale for setting in SETTINGS.values()))
RUNS: dict[str, Callable[[str], Iterator[KeptRun]]] = {  # by what their tasks begin with
    "clean": clean_runs.clean_runs,
    "noise": noise_runs.noise_runs,
    "imbalance": imbalance_runs.imbalance_runs,
    "synthesis": synthesis_runs.synthesis_runs,
    "adversarial": adversarial_runs.adversarial_runs,
    "course": course_runs.course_runs,
}


def asked_runs(scale: str = "cpu") -> Iterator[KeptRun]:
    """Every run of a scale, there or not."""
    for runs in RUNS.values():
        yield from runs(scale)


@cache
def asked_digests(task: str) -> dict[str, str]:
    """The digest of each run that is asked for of a task, by its name.

    Raises:
        ValueError: if there is no such kind of task.
    """
    runs = RUNS[check_choice(task.partition("_")[0], RUNS, "kind of task")]
    return {run.name: run.digest for scale in SCALES for run in runs(scale) if run.task == task}


def load_asked(task: str) -> KeptRuns:
    """What is kept of a task and made with the settings that the code has today; what else the file holds counts for nothing.

    Raises:
        FileNotFoundError: if there is no file; the message says what makes it.
        DamagedError: if its header is not what was written.
    """
    return load_runs(task, asked_digests(task))


def pretraining_jobs(scale: str = "cpu") -> list[Job]:
    """A job for each upstream and each run of a scale; ImageNet-32, which has to be brought, is asked for by name alone."""
    starting = {setting.network for setting in settings_at(scale)}
    names = [
        name for name in upstream_networks.UPSTREAMS if upstream_networks.upstream_settings(name)["network"] in starting
    ]
    return [_upstream_job(name) for name in names if name != BY_NAME] + [
        job_of_run(run, 2) for run in asked_runs(scale)
    ]


def missing_jobs(scale: str = "cpu") -> list[Job]:
    """What is not there yet of all that is asked for at a scale; a checkout without data/networks asks for nothing."""
    if not Path(upstream_networks.PLACE).parent.is_dir():
        return []
    return [job for job in pretraining_jobs(scale) if job.is_missing()]


def choose_jobs(task: str | None = None, run: str | None = None, *, scale: str = "cpu") -> list[Job]:
    """All jobs of a scale, those of a task (or the one of an upstream) at whatever scale, or that of one run; there or not.

    Raises:
        ValueError: if there is no such task or run.
    """
    if task == BY_NAME:
        return [_upstream_job(BY_NAME)]
    if task is None:
        return pretraining_jobs(scale)
    jobs, upstream = [job for each in SCALES for job in pretraining_jobs(each)], f"networks/{task}"
    if upstream in {job.name for job in jobs}:
        return [job for job in jobs if job.name == upstream]
    names = dict.fromkeys(job.name.split("/")[0] for job in jobs if not job.name.startswith("networks/"))
    own = {
        job.name.partition("/")[2]: job
        for job in jobs
        if job.name.split("/")[0] == check_choice(task, [*upstream_networks.UPSTREAMS, *names], "task")
    }
    return list(own.values()) if run is None else [own[check_choice(run, own, f"run of {task}")]]


def _upstream_job(name: str) -> Job:
    place = upstream_networks.PLACE.format(name)
    epochs = upstream_networks.upstream_settings(name)["training"]["epochs"]
    return Job(
        name=f"networks/{name}", command=f"uqlib pretrain {name}", place=place,
        make=partial(upstream_networks.make_upstream, name), is_missing=lambda: not Path(place).is_file(), value=UPSTREAM_VALUES.get(name, 0.9),
        courses=(Course(upstream_networks.upstream_checkpoint(name), epochs),),
    )  # fmt: skip
