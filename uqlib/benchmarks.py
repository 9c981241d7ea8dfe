"""The benchmarks of the book: which images, which networks, what they cost. Read from data/benchmarks.toml.

A benchmark names entries of the store, so a notebook that loops over benchmarks needs neither images nor weights.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from uqlib import store
from uqlib.arrays import check_choice
from uqlib.files import DamagedError, filled, in_checkout, read_toml
from uqlib.fingerprint import fingerprint
from uqlib.scales import at_scale

PLACE = "data/benchmarks.toml"
TRAINING = "data/training/{}.json"  # what the trainings of a benchmark did


@dataclass(frozen=True)
class Network:
    """A network of a benchmark: its name in the store, how it was made, and what an image costs."""

    name: str
    made: str  # "published", "head", "tuned" or "trained"
    size: int  # side of its input, pixels
    macs: int  # multiply-adds of one image
    backbone: str = ""  # name of the architecture; by default the network's own
    label: str = ""  # short name for figures; by default the network's own
    role: str = ""  # "trial": one of several trainings of one architecture; "soup": their average
    training: Mapping[str, Any] = field(default_factory=dict)  # options of the training, if there was one

    @property
    def architecture(self) -> str:
        return self.backbone or self.name

    def __str__(self) -> str:
        return self.label or self.name


@dataclass(frozen=True)
class Benchmark:
    """A held-out set and the networks that were asked about it."""

    name: str
    title: str
    dataset: str  # of the store
    split: str
    fit_size: int  # examples that fit the weights of a duo
    networks: Mapping[str, Network]
    large: tuple[str, ...] = ()  # those that get sidekicks
    shifted: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)  # name -> (dataset, split), ...
    classes: int = 0
    scale: str = "cpu"  # at which it is run; the store of the checkout holds those of cpu
    sets: str = ""  # function of data/build_benchmarks.py that names the images; by default the benchmark's name

    @property
    def single(self) -> list[Network]:
        """Networks that stand for themselves, cheapest first; further trials of one architecture and soups are left out."""
        return sorted((n for n in self.networks.values() if not n.role), key=lambda n: n.macs)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every (large, small) of one large and one cheaper single network, the cheapest sidekick first."""
        return [(large, n.name) for large in self.large for n in self.single if n.macs < self.networks[large].macs]

    @property
    def repeated(self) -> dict[str, list[str]]:
        """Architectures that were trained several times, and their trainings, in the order of the file."""
        several = dict.fromkeys(n.architecture for n in self.networks.values() if n.role == "trial")
        trained = [n for n in self.networks.values() if n.training]
        return {name: [n.name for n in trained if n.architecture == name] for name in several}

    def balance(self, large: str, small: str) -> float:
        """Cost of the sidekick as a share of the large network."""
        return self.networks[small].macs / self.networks[large].macs

    def said(self, networks: Sequence[str] | None = None, **options: Any) -> dict[str, store.Said]:
        """What the networks (all single ones by default) said on the held-out rows; options as in `store.load`."""
        names = [n.name for n in self.single] if networks is None else list(networks)
        return store.load_many(names, self.dataset, self.split, **options)


def recipe(bench: Benchmark, network: Network) -> dict[str, Any]:
    """All that data/benchmarks.toml says of how a network is made; that of a soup holds those of its ingredients."""
    made = {
        "images": bench.sets or bench.name,
        "made": network.made,
        "architecture": network.architecture,
        "size": network.size,
        "training": dict(network.training),
    }
    if network.role != "soup":
        return made
    trials = [bench.networks[name] for name in bench.repeated[network.architecture]]
    kind = "greedy" if network.name.endswith("greedy") else "uniform"
    return made | {"soup": kind, "trials": [{"name": each.name} | recipe(bench, each) for each in trials]}


def stale(bench: Benchmark, networks: Sequence[str] | None = None) -> list[str]:
    """The networks (of all by default) that were made by another recipe than data/benchmarks.toml has now, or by none known."""
    logs = _logs(bench) if in_checkout(TRAINING.format(bench.name)) else {}
    names = list(bench.networks) if networks is None else list(networks)
    return [n for n in names if logs.get(n, {}).get("recipe") != fingerprint(recipe(bench, bench.networks[n]))]


def judged(bench: Benchmark, networks: Sequence[str]) -> dict[str, float]:
    """Accuracy of these trainings on the part of the training images that was kept to judge them, the best first.

    Raises:
        FileNotFoundError: if nothing of the benchmark was trained.
        ValueError: if one of the networks was not, or was trained without such rows.
    """
    last = {name: log["epochs"][-1]["accuracy"] for name, log in _logs(bench).items() if log.get("epochs")}
    last = {name: accuracy for name, accuracy in last.items() if accuracy is not None}
    if lost := [name for name in networks if name not in last]:
        place = TRAINING.format(bench.name)
        raise ValueError(f"{place} has no validation accuracy of {', '.join(lost)}; it has that of {', '.join(last)}")
    return {name: last[name] for name in sorted(networks, key=lambda name: -last[name])}


def ingredients(bench: Benchmark, soup: str) -> list[str]:
    """The trainings that a soup averages; a greedy one may hold a single training.

    Raises:
        FileNotFoundError: if nothing of the benchmark was trained.
        ValueError: if the network is no soup, or was not made yet.
    """
    poured = {name: log["members"] for name, log in _logs(bench).items() if "members" in log}
    return poured[check_choice(soup, poured, "soup")]


def _logs(bench: Benchmark) -> dict[str, Any]:
    """What each training of the benchmark did, by network."""
    place = TRAINING.format(bench.name)
    if (path := in_checkout(place)) is None:
        raise FileNotFoundError(f"no {place}; `python data/build_benchmarks.py --benchmarks {bench.name}` writes it")
    try:
        logs = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(path, f"it is no JSON ({error})") from None
    if not isinstance(logs, dict) or not all(isinstance(log, dict) for log in logs.values()):
        raise DamagedError(path, "it does not hold one log a network")
    return logs


def names(scale: str = "cpu") -> list[str]:
    """The benchmarks of a scale, in the order of the file; smoke has those of cpu, paper those of gpu."""
    own = at_scale(scale, smoke="cpu", cpu="cpu", gpu="gpu")
    return [name for name, bench in _all().items() if bench.scale == own]


def load(name: str) -> Benchmark:
    """The benchmark of that name; the error lists those that there are."""
    return _all()[check_choice(name, _all(), "benchmark")]


@cache
def _all() -> Mapping[str, Benchmark]:
    path = in_checkout(PLACE)
    if path is None:
        raise FileNotFoundError(f"no {PLACE} around {Path.cwd()}; run from a checkout of the book")
    body = read_toml(path)
    groups = {each["name"]: each["network"] for each in body.get("group", [])}
    return MappingProxyType({each["name"]: _benchmark(dict(each), groups) for each in body["benchmark"]})


def _benchmark(body: dict[str, Any], groups: Mapping[str, list[dict[str, Any]]]) -> Benchmark:
    listed = groups.get(body.pop("group", ""), []) + body.pop("network", [])
    where = f"{PLACE}: {body['name']}"
    networks = {each["name"]: filled(Network, each, f"{where}, network {each['name']}") for each in listed}
    shifted = {name: tuple(map(tuple, places)) for name, places in body.pop("shifted", {}).items()}
    made = {"networks": networks, "shifted": shifted, "large": tuple(body.pop("large"))}
    found = filled(Benchmark, body | made, where)
    if unknown := set(found.large) - set(networks):
        raise ValueError(f"{PLACE}: {found.name} names large networks that it does not list: {', '.join(unknown)}")
    return found
