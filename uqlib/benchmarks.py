"""The benchmarks of the book: which images, which networks, what they cost. Read from data/benchmarks.toml.

A benchmark names entries of the store, so a notebook that loops over benchmarks needs neither images nor weights.
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from uqlib import store
from uqlib.arrays import check_choice
from uqlib.files import in_checkout

PLACE = "data/benchmarks.toml"


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

    @property
    def single(self) -> list[Network]:
        """Networks that stand for themselves, cheapest first: no further trials of one architecture, no soups."""
        return sorted((n for n in self.networks.values() if not n.role), key=lambda n: n.macs)

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Every (large, small) of one large and one cheaper single network, the cheapest sidekick first."""
        return [(large, n.name) for large in self.large for n in self.single if n.macs < self.networks[large].macs]

    def balance(self, large: str, small: str) -> float:
        """Cost of the sidekick as a share of the large network."""
        return self.networks[small].macs / self.networks[large].macs

    def said(self, networks: Sequence[str] | None = None, **options: Any) -> dict[str, store.Said]:
        """What the networks (all single ones by default) said on the held-out rows; options as in `store.load`."""
        names = [n.name for n in self.single] if networks is None else list(networks)
        return store.load_many(names, self.dataset, self.split, **options)


def names() -> list[str]:
    """The benchmarks, in the order of the file."""
    return list(_all())


def load(name: str) -> Benchmark:
    """The benchmark of that name; the error lists those that there are."""
    return _all()[check_choice(name, _all(), "benchmark")]


@cache
def _all() -> Mapping[str, Benchmark]:
    path = in_checkout(PLACE)
    if path is None:
        raise FileNotFoundError(f"no {PLACE} around {Path.cwd()}; run from a checkout of the book")
    body = tomllib.loads(path.read_text())
    return MappingProxyType({each["name"]: _benchmark(dict(each)) for each in body["benchmark"]})


def _benchmark(body: dict[str, Any]) -> Benchmark:
    networks = {each["name"]: Network(**each) for each in body.pop("network")}
    shifted = {name: tuple(map(tuple, places)) for name, places in body.pop("shifted", {}).items()}
    found = Benchmark(networks=networks, shifted=shifted, large=tuple(body.pop("large")), **body)
    if unknown := set(found.large) - set(networks):
        raise ValueError(f"{PLACE}: {found.name} names large networks that it does not list: {', '.join(unknown)}")
    return found
