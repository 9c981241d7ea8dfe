"""All that the chapter on pretraining asks for, as jobs of `uqlib train`: the upstream networks, and the runs that start from them."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

from uqlib.base.options import check_choice
from uqlib.experiments.transfer import (
    adversarial_runs,
    clean_runs,
    course_runs,
    imbalance_runs,
    noise_runs,
    synthesis_runs,
    upstream_networks,
)
from uqlib.experiments.transfer.kept_runs import PretrainingRun, about_runs
from uqlib.experiments.transfer.transfers import SETTINGS, datasets_at, setting_of
from uqlib.experiments.worklist import Course, Job

UPSTREAM_VALUES = {
    "supervised": 10.0,
    "adversarial": 1.0,
    "unrelated": 0.9,
    "rotations": 0.89,
    "wide_supervised": 10.0,
}  # before what starts from it
BY_NAME = "wide_imagenet32"


def asked_runs(scale: str = "cpu") -> Iterator[PretrainingRun]:
    """Every run of a scale, there or not. What combines with what is asked at cpu alone."""
    yield from clean_runs.clean_runs(scale)
    yield from noise_runs.noise_runs(scale)
    yield from imbalance_runs.imbalance_runs(scale)
    if synthesis_runs.DATASET in datasets_at(scale):
        yield from synthesis_runs.synthesis_runs()
    yield from adversarial_runs.adversarial_runs(scale)
    yield from course_runs.course_runs(scale)


def pretraining_jobs(scale: str = "cpu") -> list[Job]:
    """A job for each upstream and each run of a scale; ImageNet-32, which has to be brought, is asked for by name alone."""
    starting = {setting_of(dataset).network for dataset in datasets_at(scale)}
    names = [
        name for name in upstream_networks.UPSTREAMS if upstream_networks.upstream_settings(name)["network"] in starting
    ]
    return [_upstream_job(name) for name in names if name != BY_NAME] + [_run_job(run) for run in asked_runs(scale)]


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
    scales = dict.fromkeys(setting.scale for setting in SETTINGS.values())
    jobs, upstream = [job for each in scales for job in pretraining_jobs(each)], f"networks/{task}"
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


def _run_job(run: PretrainingRun) -> Job:
    return Job(
        name=f"{run.task}/{run.name}", command=f"uqlib pretrain {run.task} {run.name}", place=f"{run.task}/{run.name}",
        make=run.keep, is_missing=run.is_missing, value=run.value, repeat=run.seed, seconds=_like_seconds(run),
    )  # fmt: skip


def _like_seconds(run: PretrainingRun) -> float | None:
    """What runs of the same start and method took."""
    about = about_runs(run.task)
    like = [each["seconds"] for name, each in about.items() if name.split("/")[:2] == run.name.split("/")[:2]]
    return median(like) if like else None
