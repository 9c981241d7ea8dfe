"""What is asked for and not there yet, the most valuable first.

The order: what the data files give a higher `value` (1 by default) comes first. Of equal value, the first training of
every kind comes before the second of any, so that evidence grows evenly: the seed of a study's variant, and the place of a
benchmark's network among the trials of its architecture; a soup follows all of them. Then the order of the data files,
networks before trainings.
"""

import json
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from uqlib.base.options import check_choice, check_whole
from uqlib.experiments import benchmarks, studies
from uqlib.experiments.benchmark_networks import lacks_network, make_benchmark_network, network_checkpoint
from uqlib.experiments.benchmarks import Benchmark, Network
from uqlib.experiments.image_sets import load_benchmark_sets, load_study_sets
from uqlib.experiments.studies import Study, Variant
from uqlib.experiments.study_trainings import make_training, study_checkpoint
from uqlib.files.columns import read_header
from uqlib.files.fingerprint import fingerprint
from uqlib.files.whole import DamagedError, in_checkout
from uqlib.training import EpochLog

MARKERS = "build/networks"  # where the Snakefile notes that a network was made


@dataclass(frozen=True)
class Course:
    """One run of epochs: where it goes on from, and how many there are."""

    checkpoint: Path
    epochs: int

    def read_seconds(self) -> list[float]:
        """Seconds of each epoch that the checkpoint has; none where there is no checkpoint that can be read."""
        try:
            saved = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            return [EpochLog(*epoch).seconds for epoch in json.loads(saved["history"])["epochs"]]
        except Exception:  # a file that is missing, or being replaced, or damaged: `training.train` says what it is
            return []


@dataclass(frozen=True)
class Job:
    """One thing that is asked for: a training of a study, or a network of a benchmark."""

    name: str  # such as cifar10/entropy/1, caltech101/mobilenetv1_050-tuned
    command: str  # that makes it alone
    place: str  # below the checkout: its file, or the marker of the Snakefile; the digits change with its settings
    make: Callable[[str], Any]  # takes the device
    is_missing: Callable[[], bool]
    images: str = ""  # whose they are; several jobs share them
    load_images: Callable[[], Any] = lambda: None
    value: float = 1.0
    repeat: int = 0  # how many of its kind come before it
    courses: tuple[Course, ...] = ()
    seconds: float | None = None  # that like ones took; None where there are none

    def estimate_seconds(self, pace: float = 1.0) -> float | None:
        """Seconds that it still takes: by the epochs in its checkpoints, else by like ones; None if nothing is known.

        Args:
            pace: how long this machine takes, as a share of what the logs say.
        """
        guess = None if self.seconds is None else pace * self.seconds
        if not self.courses:
            return guess
        parts = []
        for course in self.courses:
            if done := course.read_seconds():
                parts.append((course.epochs - len(done)) * statistics.fmean(done))
            elif guess is None:
                return None
            else:
                parts.append(guess / len(self.courses))
        return sum(parts)

    def next_epoch_seconds(self) -> float | None:
        """Seconds of the next epoch of what has a checkpoint to go on from; None if it has none, or is done with epochs."""
        for course in self.courses:
            done = course.read_seconds()
            if done and len(done) < course.epochs:
                return statistics.fmean(done)
        return None


def list_missing(scale: str = "cpu", *, root: str | None = None) -> list[Job]:
    """All that data/benchmarks and data/trainings ask for at a scale and is not there, in the order of its value.

    Args:
        scale: smoke asks for what cpu does, paper for what gpu does.
        root: folder of the store of the networks; by default as `benchmark_networks.store_root` says.
    """
    jobs = [
        job
        for name in benchmarks.benchmark_names(scale)
        for job in network_jobs(benchmarks.load_benchmark(name), root=root)
    ]
    jobs += [job for name in studies.study_names(scale, aside=True) for job in training_jobs(studies.load_study(name))]
    return sort_jobs([job for job in jobs if job.is_missing()])


def sort_jobs(jobs: list[Job]) -> list[Job]:
    """By value, then evenly over the kinds, then in the order given."""
    return sorted(jobs, key=lambda job: (-job.value, job.repeat))


# Trainings of studies


def training_jobs(study: Study, variant: str | None = None, seed: int | None = None) -> list[Job]:
    """All trainings of a study, or those of a variant, or the one of a seed, there or not.

    Raises:
        ValueError: if the variant or the seed is none of the study's.
    """
    chosen = study.variants if variant is None else [check_choice(variant, study.variants, f"variant of {study.name}")]
    jobs = []
    for each in (study.variants[name] for name in chosen):
        seeds = range(each.seeds) if seed is None else [check_whole(seed, "seed", least=0, most=each.seeds - 1)]
        jobs += [_training_job(study, each, number) for number in seeds]
    return jobs


def _training_job(study: Study, variant: Variant, seed: int) -> Job:
    place = str(study.file(variant, seed))
    return Job(
        name=f"{study.name}/{variant.name}/{seed}",
        command=f"uqlib train {study.name} {variant.name} {seed}",
        place=place,
        make=lambda device: make_training(study, variant, seed, device=device),
        is_missing=lambda: in_checkout(place) is None,
        images=f"study {study.name}",
        load_images=lambda: load_study_sets(study.name),
        value=variant.value,
        repeat=seed,
        courses=(Course(study_checkpoint(study, variant, seed), variant.training["epochs"]),),
        seconds=_median(_training_seconds(study.name).get(variant.training["network"], [])),
    )


@cache
def _training_seconds(study: str) -> dict[str, list[float]]:
    """Seconds of the trainings of a study that are there, by network."""
    found: dict[str, list[float]] = {}
    for path in sorted((in_checkout(studies.TRAINED.format(study=study)) or Path()).glob("*-*-*.safetensors")):
        try:
            about = json.loads(read_header(path).metadata["about"])
            found.setdefault(about["settings"]["training"]["network"], []).append(about["seconds"])
        except (DamagedError, KeyError, TypeError, ValueError):  # an estimate is no reason to stop
            continue
    return found


# Networks of benchmarks


def network_jobs(bench: Benchmark, network: str | None = None, *, root: str | None = None) -> list[Job]:
    """All networks of a benchmark, or the one of that name, there or not.

    Raises:
        ValueError: if the benchmark has no network of that name.
    """
    check = f"network of {bench.name}"
    chosen = bench.networks if network is None else [check_choice(network, bench.networks, check)]
    return [_network_job(bench, bench.networks[name], root) for name in chosen]


def _network_job(bench: Benchmark, network: Network, root: str | None) -> Job:
    digest = fingerprint(benchmarks.recipe(bench, network))[:8]
    trained = list(_ingredients(bench, network))
    return Job(
        name=f"{bench.name}/{network.name}",
        command=f"uqlib network {bench.name} {network.name}",
        place=f"{MARKERS}/{bench.name}/{network.name}-{digest}",
        make=lambda device: make_benchmark_network(bench, network, device=device, root=root),
        is_missing=lambda: lacks_network(bench, network, root=root),
        images=f"benchmark {bench.name}",
        load_images=lambda: load_benchmark_sets(bench),
        value=network.value,
        repeat=_repeat(bench, network),
        courses=tuple(Course(network_checkpoint(bench, each), each.training["epochs"]) for each in trained),
        seconds=_network_seconds(bench, network),
    )


def _ingredients(bench: Benchmark, network: Network) -> Iterator[Network]:
    """The trainings that a network rests on: its own, or those of a soup."""
    if network.role == "soup":
        yield from (bench.networks[name] for name in bench.repeated[network.architecture])
    elif network.training:
        yield network


def _repeat(bench: Benchmark, network: Network) -> int:
    trials = bench.repeated.get(network.architecture, [])
    if network.role == "soup":
        return len(trials)
    return trials.index(network.name) if network.name in trials else 0


def _network_seconds(bench: Benchmark, network: Network) -> float | None:
    """What like ones took, by multiply-adds and epochs: networks of the same benchmark that were made the same way."""
    if network.origin == "published":
        return None
    rates = []
    for name, log in _read_logs(bench.name).items():
        like = bench.networks.get(name)
        if like and like.origin == network.origin and (seconds := _logged_seconds(log)):
            rates.append(seconds / _work(like))
    rate = _median(rates)
    parts = list(_ingredients(bench, network)) or [network]
    return None if rate is None else rate * sum(map(_work, parts))


def _work(network: Network) -> float:
    return network.macs * network.training.get("epochs", 1)


def _logged_seconds(log: dict) -> float:
    return (log.get("head") or {}).get("seconds", 0.0) + sum(epoch["seconds"] for epoch in log.get("epochs", []))


@cache
def _read_logs(benchmark: str) -> dict[str, dict]:
    path = in_checkout(benchmarks.log_place(benchmarks.load_benchmark(benchmark)))
    return json.loads(path.read_text(encoding="utf-8")) if path else {}


def _median(values: list[float]) -> float | None:
    return statistics.median(values) if values else None
