"""The benchmarks of the book: which images, which networks, what they cost. One file each: data/benchmarks/SCALE/NAME.toml.

A benchmark names entries of the store, so a notebook that loops over benchmarks needs neither images nor weights.
"""

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from uqlib import store
from uqlib.base.extras import named
from uqlib.base.options import check_choice
from uqlib.base.scales import at_scale
from uqlib.base.splits import split
from uqlib.combine.duos import DuoFit, fit_duo, flops_balance
from uqlib.combine.ensembles import repeat_ensembles
from uqlib.combine.repeat import Variants, decide_again, repeat_duo
from uqlib.files.fingerprint import fingerprint
from uqlib.files.typed import TomlTable, read_toml
from uqlib.files.whole import DamagedError, in_checkout
from uqlib.metrics.outcomes import Outcome

with named():
    from msgspec import field
    from msgspec.structs import replace

BENCHMARKS = "data/benchmarks"  # a folder a scale, a file a benchmark
LOG = "data/benchmarks/{scale}/{name}.log.json"  # what the trainings of a benchmark did


class Network(TomlTable, frozen=True):
    """A network of a benchmark: its name in the store, how it was made, and what an image costs."""

    name: str
    origin: Literal["published", "head", "tuned", "trained"]
    size: int  # side of its input, pixels
    macs: int  # multiply-adds of one image
    backbone: str = ""  # name of the architecture; by default the network's own
    label: str = ""  # short name for figures; by default the network's own
    role: Literal["", "trial", "soup"] = (
        ""  # "trial": one of several trainings of one architecture; "soup": their average
    )
    training: Mapping[str, Any] = field(default_factory=dict)  # options of the training, if there was one
    value: float = 1.0  # what is worth more is made first; no part of the recipe

    @property
    def architecture(self) -> str:
        return self.backbone or self.name

    @property
    def family(self) -> str:
        """The architecture's name up to its first number, such as cifar_resnet."""
        return re.split(r"\d", self.architecture)[0]

    def __str__(self) -> str:
        return self.label or self.name


class Benchmark(TomlTable, frozen=True):
    """A held-out set and the networks that were asked about it."""

    name: str
    title: str
    dataset: str  # of the store
    split: str
    fit_size: int  # examples that fit the weights of a duo
    listed: tuple[Network, ...] = field(name="network", default=())
    large: tuple[str, ...] = ()  # those that get sidekicks
    shifted: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)  # name -> (dataset, split), ...
    classes: int = 0
    scale: str = "cpu"  # at which it is run; the store of the checkout holds those of cpu
    sets: str = ""  # which of the experiments' BENCHMARK_SETS are its images; by default the benchmark's name
    cropped: bool = False  # its images are centre squares already, so published networks see them whole
    shared: str = field(name="networks", default="")  # file of networks that come before those listed here

    @property
    def networks(self) -> dict[str, Network]:
        """The networks by name, in the order of the file."""
        return {network.name: network for network in self.listed}

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
        return flops_balance(self.networks[small].macs, self.networks[large].macs)

    def cost(self, networks: Sequence[str]) -> int:
        """Multiply-adds of one image that all these networks see, one after the other."""
        return sum(self.networks[name].macs for name in networks)

    def words(self, names: Sequence[str]) -> str:
        """Several networks in print; more than two are trainings of one architecture."""
        if len(names) > 2:
            return f"{len(names)} trainings of {self.networks[names[0]].architecture}"
        return " + ".join(str(self.networks[name]) for name in names)

    def about(self, large: str, small: str) -> dict[str, Any]:
        """What a pair is called in results: benchmark, large network, both, balance and, as Zhou et al. 2025 distinguish it, its cost."""
        names, share = self.words((large, small)), self.balance(large, small)
        cost = "below_0.1" if share < 0.1 else "above_0.3" if share > 0.3 else "between"
        whose = {"benchmark": self.title, "large": str(self.networks[large]), "networks": names}
        return whose | {"balance": share, "cost": cost}

    def pair(self, large: str = "", small: str = "") -> tuple[str, str]:
        """The pair of these names; where one is empty, the first large network, and the cheapest that costs a tenth of it or more."""
        large = check_choice(large or self.large[0], self.networks, f"network of {self.name}")
        cheaper = [n.name for n in self.single if n.macs < self.networks[large].macs]
        usual = [name for name in cheaper if self.balance(large, name) >= 0.1] or cheaper or [""]
        return large, check_choice(small or usual[0], self.networks, f"network of {self.name}")

    def nearest(self, balance: float, large: str = "") -> tuple[str, str]:
        """A large network, the first where none is named, and the sidekick whose share of its cost is nearest to this."""
        large = large or self.large[0]
        cheaper = [(large, n.name) for n in self.single if n.macs < self.networks[large].macs]
        return min(cheaper, key=lambda pair: abs(self.balance(*pair) - balance))

    def answers(self, networks: Sequence[str] | None = None, **options: Any) -> dict[str, store.Answers]:
        """What the networks (all single ones by default) answered on the held-out rows; options as in `store.load_answers`."""
        names = [n.name for n in self.single] if networks is None else list(networks)
        return store.load_many_answers(names, self.dataset, self.split, **options)


def duos_nearby(
    bench: Benchmark, large: str, small: str, fit: Any, test: Any, *, shares: Sequence[float] = (1 / 3, 1 / 10, 1 / 40)
) -> tuple[tuple[list[Tensor], Tensor, list[DuoFit]], dict[str, list[str]]]:
    """A large network beside one sidekick and those whose costs are nearest to some shares of its own.

    Args:
        fit: rows that fit the weights of each pair.
        test: rows whose answers are returned.

    Returns:
        What `report.explorer.duo_explorer` takes: logits of the large network and of its sidekicks, labels, fits; and by keyword
        their names, and what a reader chooses a sidekick by.
    """
    members = list(dict.fromkeys([large, small, *(bench.nearest(share, large)[1] for share in shares)]))
    answers = bench.answers(members)
    labels, logits = answers[large].labels, [each.logits for each in answers.values()]
    fits = [fit_duo(logits[0][fit], each[fit], labels[fit]) for each in logits[1:]]
    names = [str(bench.networks[each]) for each in members]
    costs = [f"{100 * bench.balance(large, name):.0f} % of the cost: {bench.networks[name]}" for name in members[1:]]
    return ([each[test] for each in logits], labels[test], fits), {"names": names, "sidekicks": costs}


class Tested(NamedTuple):
    """What the variants of a duo decided of some images, over the splits that fitted it."""

    outcomes: dict[str, list[Outcome]]
    versions: int  # of each image, side by side: `compare(..., groups=versions)` draws them together
    names: dict[str, Any]  # of the pair, the shift, and how many examples each split tests


def pair_outcomes(
    bench: Benchmark, large: str, small: str, *, splits: int, seed: int = 0, fit_size: int = 0,
    variants: Variants = ("base", "raw", "ours", "unweighted", "uq_only"), shifts: Mapping[str, Sequence[tuple[str, str]]] | None = None,
    rule: Callable[[Tensor, Tensor, Tensor], DuoFit] = fit_duo,
) -> dict[str, Tested]:  # fmt: skip
    """A duo over repeated splits of the held-out images, and on shifted images with the same weights, by "title" and "title, shift".

    Args:
        fit_size: examples that fit the weights; 0: as the benchmark says.
        splits, seed, variants, rule: as in `repeat_duo`.
        shifts: by name where the store has them, as in `bench.shifted`. A corrupted version of an image that fitted the
            weights is left out.
    """
    answers, fit_size = bench.answers([large, small]), fit_size or bench.fit_size
    one, other, labels = answers[large].logits, answers[small].logits, answers[large].labels
    how: dict[str, Any] = {"fit_size": fit_size, "splits": splits, "seed": seed, "variants": variants, "rule": rule}
    clean, fits = repeat_duo(one, other, labels, **how)
    seen = [torch.from_numpy(split(len(labels), fit_size, seed=seed + k)[0]) for k in range(splits)]
    names = bench.about(large, small) | {"shift": "", "examples": len(labels) - fit_size}
    found = {bench.title: Tested(clean, 1, names)}
    for name, places in (shifts or {}).items():
        parts = [store.load_many_answers([large, small], *place) for place in places]
        index = torch.cat([part[large].index for part in parts])
        order = index.argsort(stable=True)  # the versions of one image stand together
        one, other = (torch.cat([part[each].logits for part in parts])[order] for each in (large, small))
        labels = torch.cat([part[large].labels for part in parts])[order]
        corrupted = places[0][0] == f"{bench.dataset}_c"  # else they are other images
        rows = [~torch.isin(index[order], fit) if corrupted else slice(None) for fit in seen]
        outcomes = decide_again(fits, one, other, labels, rows, variants=variants)
        names = names | {"shift": name, "examples": len(next(iter(outcomes.values()))[-1].labels)}
        found[f"{bench.title}, {name}"] = Tested(outcomes, len(index) // len(index.unique()), names)
    return found


def even_contests(bench: Benchmark, slack: float, *, splits: int, seed: int = 0) -> list[Tested]:
    """The same cost spent evenly: the variant `even` is a team of near-equal networks, `uneven` the duo of the nearest cost.

    All networks of both sides are of one family, else the better architecture would win and not the better split of the cost.
    `even_alone` and `uneven_alone` are the dearest network of each side, with a temperature. A team is two single networks of which the cheaper costs at least 0.55 of the other, or several trainings of one
    architecture; a duo has a sidekick of at most 0.45 of its large network. Every network has a fitted weight. Totals that
    differ by a larger share than `slack` are not compared.
    """
    cheap = [pair for pair in bench.pairs if bench.balance(*pair) <= 0.45]
    dearest = [network.name for network in reversed(bench.single)]
    teams: list[Sequence[str]] = [pair for pair in combinations(dearest, 2) if bench.balance(*pair) >= 0.55]
    teams += [each[:m] for each in bench.repeated.values() for m in range(2, len(each) + 1)]
    found = []
    for team in teams:
        like = [pair for pair in cheap if len({bench.networks[name].family for name in (*pair, *team)}) == 1]
        duo = min(like, key=lambda pair: abs(bench.cost(pair) / bench.cost(team) - 1), default=None)
        if duo and abs(bench.cost(team) / bench.cost(duo) - 1) <= slack:
            sides = {"uneven": ("weighted", duo), "even": ("weighted", team)}
            sides |= {"uneven_alone": ("scaled", duo[:1]), "even_alone": ("scaled", team[:1])}
            answers = bench.answers(list(dict.fromkeys((*duo, *team))))
            outcomes = repeat_ensembles(answers, sides, fit_size=bench.fit_size, splits=splits, seed=seed)
            names = {"benchmark": bench.title, "networks": f"{bench.words(duo)} against {bench.words(team)}"}
            found.append(Tested(outcomes, 1, names | {"examples": len(outcomes["even"][0].labels)}))
    return found


def pairs_anew(bench: Benchmark) -> dict[tuple[str, str, str], list[tuple[str, str]]]:
    """Pairs of which a network was trained several times, a pair a training, by large network, sidekick and what is anew.

    "sidekick": one large network beside each training of the sidekick; "both": a training of the large network beside one of
    the sidekick each, in the order of the file, as far as there are such.
    """
    again, found = list(bench.repeated.values()), {}
    small = [each for each in again if {*each}.isdisjoint(bench.large)]
    for large, trainings in product(bench.large, small):
        found[large, trainings[0], "sidekick"] = [(large, name) for name in trainings]
        for each in again:
            if large in each:
                found[large, trainings[0], "both"] = list(zip(each, trainings, strict=False))
    return found


def recipe(bench: Benchmark, network: Network) -> dict[str, Any]:
    """All that the file of a benchmark says of how a network is made; that of a soup holds those of its ingredients."""
    found = {
        "images": bench.sets or bench.name,
        "made": network.origin,  # the key stays: the fingerprints that the logs keep are of this dictionary
        "architecture": network.architecture,
        "size": network.size,
        "training": dict(network.training),
    } | ({"cropped": True} if bench.cropped else {})
    if network.role != "soup":
        return found
    trials = [bench.networks[name] for name in bench.repeated[network.architecture]]
    kind = "greedy" if network.name.endswith("greedy") else "uniform"
    return found | {"soup": kind, "trials": [{"name": each.name} | recipe(bench, each) for each in trials]}


def outdated_networks(bench: Benchmark, networks: Sequence[str] | None = None) -> list[str]:
    """The networks (of all by default) that were made by another recipe than its file has now, or by none known."""
    logs = _logs(bench) if in_checkout(log_place(bench)) else {}
    names = list(bench.networks) if networks is None else list(networks)
    return [n for n in names if logs.get(n, {}).get("recipe") != fingerprint(recipe(bench, bench.networks[n]))]


def validation_accuracies(bench: Benchmark, networks: Sequence[str]) -> dict[str, float]:
    """Accuracy of these trainings on the part of the training images that was kept to judge them, the best first.

    Raises:
        FileNotFoundError: if nothing of the benchmark was trained.
        ValueError: if one of the networks was not, or was trained without such rows.
    """
    last = {name: log["epochs"][-1]["accuracy"] for name, log in _logs(bench).items() if log.get("epochs")}
    last = {name: accuracy for name, accuracy in last.items() if accuracy is not None}
    if lost := [name for name in networks if name not in last]:
        raise ValueError(
            f"{log_place(bench)} has no validation accuracy of {', '.join(lost)}; it has that of {', '.join(last)}"
        )
    return {name: last[name] for name in sorted(networks, key=lambda name: -last[name])}


def ingredients(bench: Benchmark, soup: str) -> list[str]:
    """The trainings that a soup averages; a greedy one may hold a single training.

    Raises:
        FileNotFoundError: if nothing of the benchmark was trained.
        ValueError: if the network is no soup, or was not made yet.
    """
    members = {name: log["members"] for name, log in _logs(bench).items() if "members" in log}
    return members[check_choice(soup, members, "soup")]


def soup_cases(
    names: Sequence[str], *, single: str = "", soups: Sequence[str] = ()
) -> list[tuple[Benchmark, str, str, str]]:
    """Every (benchmark, best single training on validation rows, soup, cheaper sidekick) of these benchmarks, greedy soups first.

    A soup that kept one training is that training, and is left out; so are benchmarks without soups.

    Args:
        names: of the benchmarks.
        single, soups: networks that stand for the best training and for the soups.

    Raises:
        ValueError: if soups are given without a single network, or nothing is left.
    """
    if soups and not single:
        raise ValueError(f"which network shall {', '.join(soups)} be compared with? Give single as well")
    cases = []
    for bench in map(load_benchmark, names):
        true = [n.name for n in bench.listed if n.role == "soup" and len(ingredients(bench, n.name)) > 1]
        for name in soups or sorted(true, key=lambda name: "greedy" not in name):
            soup = bench.networks[check_choice(name, bench.networks, f"network of {bench.name}")]
            best = single or next(iter(validation_accuracies(bench, bench.repeated[soup.architecture])))
            cheaper = [n.name for n in bench.single if n.macs < soup.macs and n.name not in (best, *soups)]
            cases += [(bench, best, name, sidekick) for sidekick in cheaper]
    if not cases:
        raise ValueError(f"{', '.join(names)}: no soup of several trainings; give networks for it by soups and single")
    return cases


def _logs(bench: Benchmark) -> dict[str, Any]:
    """What each training of the benchmark did, by network."""
    if (path := in_checkout(log_place(bench))) is None:
        raise FileNotFoundError(f"no {log_place(bench)}; `uqlib network {bench.name}` writes it")
    try:
        logs = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedError(path, f"it is no JSON ({error})") from None
    if not isinstance(logs, dict) or not all(isinstance(log, dict) for log in logs.values()):
        raise DamagedError(path, "it does not hold one log a network")
    return logs


def log_place(bench: Benchmark) -> str:
    """Where the log of a benchmark's trainings lies, below the checkout."""
    return LOG.format(scale=bench.scale, name=bench.name)


class BenchmarkOrder(TomlTable, frozen=True):
    """The names of the benchmarks of each scale as tables list them."""

    cpu: tuple[str, ...]
    gpu: tuple[str, ...]


def benchmark_names(scale: str = "cpu") -> list[str]:
    """The benchmarks of a scale, in the order of data/benchmarks/order.toml; smoke has those of cpu, paper those of gpu.

    One that is not listed there comes after the others, by its name. No file of a benchmark is opened.

    Raises:
        FileNotFoundError: outside of a checkout.
        ValueError: if one is listed that is not there.
    """
    own = at_scale(scale, smoke="cpu", cpu="cpu", gpu="gpu")
    order = getattr(read_toml(_folder() / "order.toml", BenchmarkOrder), own)
    there = sorted(path.stem for path in (_folder() / own).glob("*.toml"))
    if lost := [name for name in order if name not in there]:
        raise ValueError(f"{BENCHMARKS}/order.toml lists {', '.join(lost)}; {own} has {', '.join(there)}")
    return [*order, *(name for name in there if name not in order)]


def load_benchmark(name: str) -> Benchmark:
    """The benchmark of that name; the error lists those that there are. Its own file is opened, and that of its networks."""
    paths = [path for scale in ("cpu", "gpu") for path in (_folder() / scale).glob("*.toml") if path.stem == name]
    if len(paths) > 1:
        raise ValueError(f"there are two benchmarks {name!r}, {paths[0]} and {paths[1]}; give each its own name")
    if not paths:
        check_choice(name, [*benchmark_names("cpu"), *benchmark_names("gpu")], "benchmark")
    return _read(paths[0])


def _folder() -> Path:
    if (path := in_checkout(BENCHMARKS)) is None:
        raise FileNotFoundError(f"no {BENCHMARKS} around {Path.cwd()}; run from a checkout of the book")
    return path


class NetworkFile(TomlTable, frozen=True):
    """Networks that several benchmarks share."""

    listed: tuple[Network, ...] = field(name="network")


@cache
def _read(path: Path) -> Benchmark:
    found = read_toml(path, Benchmark, name=path.stem, scale=path.parent.name)
    if found.shared:
        folder = path.parents[1] / "networks"
        check_choice(found.shared, sorted(each.stem for each in folder.glob("*.toml")), f"networks of {path}")
        shared = read_toml(folder / f"{found.shared}.toml", NetworkFile).listed
        found = replace(found, listed=shared + found.listed)
    if twice := [name for name, times in Counter(network.name for network in found.listed).items() if times > 1]:
        raise ValueError(f"{path} lists networks twice: {', '.join(twice)}")
    if unknown := set(found.large) - set(found.networks):
        raise ValueError(f"{path} names large networks that it does not list: {', '.join(sorted(unknown))}")
    return found
