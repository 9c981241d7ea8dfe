"""How often an interval of 95 % holds the truth: every kind of interval of the book, by simulation.

    python benchmarks/coverage.py                           # all, some minutes on one core; prints a table, writes nothing
    python benchmarks/coverage.py --only images --size 200

The images are drawn from a known population: of each class a logit, labels by their softmax. A network sees these logits with noise and is too sure by
a factor. Its true score is that on 400,000 images; the scores of all trainings, whose noise differs, are the mean over their noise.
The Monte Carlo error of a coverage is sqrt(0.95 x 0.05 / repetitions): half a point at 2,000.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

from uqlib.combine.repeat import repeat_duo
from uqlib.metrics import aurc, interval
from uqlib.metrics.classification import average
from uqlib.metrics.compare import compare, intervals
from uqlib.metrics.outcomes import MEASURES, Outcome

NOISES = {"one": 0.8, "other": 1.4}  # of the two networks that are compared
OF_TRAININGS = ("accuracy", "ece_mass", "aurc")
OF_SPLITS = ("accuracy", "nll", "ece", "aurc")
POPULATION = 400_000
GRID = tuple(np.geomspace(0.05, 20, 25))  # of noises; between them a score is interpolated
ERROR = math.sqrt(0.95 * 0.05)  # of a coverage, for one repetition


class Covered(NamedTuple):
    """How often the intervals of one kind held the truth."""

    kind: str
    measure: str
    n: int
    ties: bool
    share: float  # of the repetitions
    repetitions: int

    def __str__(self) -> str:
        off = "" if abs(self.share - 0.95) <= 0.015 + 2 * ERROR / math.sqrt(self.repetitions) else "  *"
        ties = "ties" if self.ties else ""
        return f"{self.kind:52} {self.measure:12} {self.n:5} {ties:5} {100 * self.share:6.1f} %{off}"


def images(n: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """True logits of n images, and labels drawn from their softmax."""
    logits = 3 * torch.randn(n, 3, generator=generator, dtype=torch.float64)
    return logits, logits.softmax(-1).multinomial(1, generator=generator)[:, 0]


def seen(logits: torch.Tensor, noise: float, generator: torch.Generator) -> torch.Tensor:
    """The logits of a network: too sure by a factor of 1.3, and with noise of its own."""
    return 1.3 * logits + noise * torch.randn(logits.shape, generator=generator, dtype=torch.float64)


def network(truth: tuple[torch.Tensor, torch.Tensor], noise: float, generator: torch.Generator, ties: bool) -> Outcome:
    """What a network says of images; with ties its confidence has 20 steps."""
    probs = seen(truth[0], noise, generator).softmax(-1)
    top = probs.amax(-1)
    return Outcome(probs.argmax(-1), probs, (20 * top).round() / 20 if ties else top, truth[1])


@lru_cache(maxsize=1)
def _population(noise: float, ties: bool) -> Outcome:
    generator = torch.Generator().manual_seed(1)
    return network(images(POPULATION, generator), noise, generator, ties)


@cache
def true_scores(noise: float, ties: bool, measures: tuple[str, ...]) -> dict[str, float]:
    """The scores of a network on the population."""
    asked = {name: MEASURES[name] for name in measures}
    return {name: float(each.statistic(*each.arrays(_population(noise, ties)))) for name, each in asked.items()}


def share_within(found: Sequence[tuple[float, float]], truth: Sequence[float]) -> float:
    """How many of the intervals hold their truth, a bound within rounding of it included."""
    return sum(low - 1e-12 <= true <= high + 1e-12 for (low, high), true in zip(found, truth, strict=True)) / len(found)


def of_images(n: int, ties: bool, repetitions: int, draws: int, measures: Sequence[str] = ()) -> Iterator[Covered]:
    """Percentiles of the bootstrap over images: of a score, and of the difference of two networks on the same images."""
    names, found = list(measures or MEASURES), {}
    for k in range(repetitions):
        generator = torch.Generator().manual_seed(k)
        truth = images(n, generator)
        both = {name: [network(truth, noise, generator, ties)] for name, noise in NOISES.items()}
        scores = compare(both, names, over="split", draws=draws, seed=k)
        pair = (scores.sel(variant="one"), scores.sel(variant="one") - scores.sel(variant="other"))
        for kind, each in zip(("images, a score", "images, a paired difference"), pair, strict=True):
            for name, ends in zip(names, intervals(each.drop_vars("variant", errors="ignore")).values, strict=True):
                found.setdefault((kind, name), []).append(tuple(ends[1:]))
    for (kind, name), ends in found.items():
        one, other = (true_scores(noise, ties, tuple(names))[name] for noise in NOISES.values())
        truth = one - other * kind.endswith("difference")
        yield Covered(kind, name, n, ties, share_within(ends, [truth] * len(ends)), repetitions)


def of_groups(n: int, repetitions: int, draws: int, versions: int = 5) -> Iterator[Covered]:
    """The same where `versions` rows are one image: drawn together as the book draws them, and apart, which is wrong."""
    found = {versions: [], 1: []}
    for k in range(repetitions):
        generator = torch.Generator().manual_seed(k)
        truth = tuple(each.repeat_interleave(versions, 0) for each in images(n // versions, generator))
        both = {"one": [network(truth, NOISES["one"], generator, False)]}
        for groups, ends in found.items():
            scores = compare(both, ["accuracy"], over="split", draws=draws, seed=k, groups=groups)
            ends.append(tuple(intervals(scores).values[0, 0, 1:]))
    true = true_scores(NOISES["one"], False, ("accuracy",))["accuracy"]
    for groups, ends in found.items():
        kind = f"{versions} versions of an image, drawn {'together' if groups > 1 else 'apart (wrong)'}"
        yield Covered(kind, "accuracy", n, False, share_within(ends, [true] * len(ends)), repetitions)


@cache
def of_clusters(clusters: int, repetitions: int, draws: int) -> Iterator[Covered]:
    """Clusters of 1 to 20 rows with a difficulty of their own, drawn whole, and row by row, which is wrong."""
    truth = _clustered(60_000, np.random.default_rng(0))
    whole = {"accuracy": truth[1].mean(), "aurc": aurc(*truth[:2])}
    ends: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for k in range(repetitions):
        confidence, right, cluster = _clustered(clusters, np.random.default_rng([k, clusters]))
        for way, options in (("whole", {"cluster": cluster}), ("apart (wrong)", {})):
            for measure, statistic, arrays in (
                ("accuracy", average, (1.0 * right,)),
                ("aurc", aurc, (confidence, right)),
            ):
                seed = torch.Generator().manual_seed(k)
                found = interval(statistic, *arrays, draws=draws, generator=seed, **options)
                ends.setdefault((way, measure), []).append((found.low, found.high))
    for (way, measure), each in ends.items():
        share = share_within(each, [whole[measure]] * repetitions)
        yield Covered(f"clusters of 1 to 20 rows, drawn {way}", measure, clusters, False, share, repetitions)


def _clustered(clusters: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, whether it was right, and the cluster of each row."""
    cluster = np.arange(clusters).repeat(rng.integers(1, 21, clusters))
    ease = rng.standard_normal(clusters)[cluster] + rng.standard_normal(len(cluster))
    right = rng.random(len(cluster)) < 1 / (1 + np.exp(-1 - ease))
    return 1 / (1 + np.exp(-np.abs(ease) - 0.5)), right, cluster


def _on_grid(measure: str) -> list[float]:
    return [true_scores(noise, False, (measure,))[measure] for noise in GRID]


def score_at(measure: str, noise: np.ndarray) -> np.ndarray:
    """True scores of networks with these noises."""
    return np.interp(np.log(noise), np.log(GRID), _on_grid(measure))


def all_trainings(measure: str, spread: float) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of the true score over trainings, by network; the logarithms of their noises spread so."""
    normal = stats.norm.ppf((np.arange(1000) + 0.5) / 1000)
    scores = {name: score_at(measure, noise * np.exp(spread * normal)) for name, noise in NOISES.items()}
    return {name: (each.mean(), each.std()) for name, each in scores.items()}


def spread_of(n: int, ratio: float) -> float:
    """The spread at which trainings differ in accuracy `ratio` times as much as test sets do, for a difference of two networks."""
    generator = torch.Generator().manual_seed(2)
    truth = images(POPULATION, generator)
    one, other = (network(truth, noise, generator, False).correct.double() for noise in NOISES.values())
    wanted, low, high = ratio * ((one - other).std() / math.sqrt(n)).item(), 0.0, 3.0
    while high - low > 1e-4:
        middle = (low + high) / 2
        reached = math.hypot(*(sd for _, sd in all_trainings("accuracy", middle).values()))
        low, high = (middle, high) if reached < wanted else (low, middle)
    return low


def of_trainings(
    n: int, trainings: int, ratio: float, repetitions: int, draws: int, measures: tuple[str, ...] = OF_TRAININGS
) -> Iterator[Covered]:
    """The interval over trainings and images of a difference; of one training also for the truth of these two networks alone."""
    spread, found, own = spread_of(n, ratio), {name: [] for name in measures}, {name: [] for name in measures}
    for k in range(repetitions):
        generator = torch.Generator().manual_seed(k)
        truth = images(n, generator)
        normal = torch.randn(2, trainings, generator=generator, dtype=torch.float64).numpy()
        noises = dict(zip(NOISES, np.array(list(NOISES.values()))[:, None] * np.exp(spread * normal), strict=True))
        both = {name: [network(truth, noise, generator, False) for noise in each] for name, each in noises.items()}
        scores = compare(both, list(measures), over="training", draws=draws, seed=k)
        ends = intervals(scores.sel(variant="one") - scores.sel(variant="other")).values
        for name, each in zip(measures, ends, strict=True):
            found[name].append(tuple(each[1:]))
            own[name].append(score_at(name, noises["one"]).mean() - score_at(name, noises["other"]).mean())
    for name, ends in found.items():
        means = all_trainings(name, spread)
        kind = f"{trainings} training{'s' * (trainings > 1)} of sd {ratio:g} x that of images"
        truth = [means["one"][0] - means["other"][0]] * repetitions
        yield Covered(f"{kind}, of all trainings", name, n, False, share_within(ends, truth), repetitions)
        if trainings == 1:
            yield Covered(f"{kind}, of these two", name, n, False, share_within(ends, own[name]), repetitions)


def of_splits(n: int, fit_size: int, splits: int, repetitions: int, draws: int) -> Iterator[Covered]:
    """The interval over splits of what a duo gains; its truth is the mean of the gains over all repetitions."""
    found = {name: [] for name in OF_SPLITS}
    for k in range(repetitions):
        generator = torch.Generator().manual_seed(k)
        truth, labels = images(n, generator)
        pair = [seen(truth, noise, generator) for noise in NOISES.values()]
        trials = repeat_duo(*pair, labels, fit_size=fit_size, splits=splits, seed=k, variants=["base", "ours"])
        scores = compare(trials.outcomes, list(OF_SPLITS), over="split", draws=draws // splits, seed=k)
        ends = intervals(scores.sel(variant="ours") - scores.sel(variant="base")).values
        for name, each in zip(OF_SPLITS, ends, strict=True):
            found[name].append(tuple(each))
    for name, ends in found.items():
        truth = sum(value for value, _, _ in ends) / repetitions
        share = share_within([each[1:] for each in ends], [truth] * repetitions)
        yield Covered(f"{splits} splits, {fit_size / n:.0%} to fit", name, n, False, share, repetitions)


def every_kind(sizes: Sequence[int], only: str, repetitions: int, draws: int) -> Iterator[Covered]:
    """All simulations, one after the other."""
    options = {"repetitions": repetitions, "draws": draws}
    if only in ("", "clusters"):
        for clusters in (10, 20, 40, 100):
            yield from of_clusters(clusters, repetitions=repetitions, draws=draws)
    for n in sizes:
        if only in ("", "images"):
            yield from (each for ties in (False, True) for each in of_images(n, ties, **options))
        if only in ("", "groups"):
            yield from of_groups(n, **options)
        if only in ("", "trainings"):
            for count in (1, 2, 3, 5):
                yield from (each for ratio in (1, 2) for each in of_trainings(n, count, ratio, **options))
        if only in ("", "splits"):
            yield from (each for size in {100, n // 4} if size >= 100 for each in of_splits(n, size, 10, **options))


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["images", "groups", "clusters", "trainings", "splits"], default="")
    parser.add_argument("--size", type=int, action="append", help="test images; by default 200 and 2000")
    parser.add_argument("--repetitions", type=int, default=2000)
    parser.add_argument("--draws", type=int, default=400)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{'interval':52} {'measure':12} {'n':>5} {'':5} coverage (* outside of 95 +- 1.5 %, by more than chance)")
    for each in every_kind(given.size or [200, 2000], given.only, given.repetitions, given.draws):
        print(each, flush=True)


if __name__ == "__main__":
    main()
