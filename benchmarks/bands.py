"""How often a band of 95 % holds the whole true curve, by simulation.

    python benchmarks/bands.py                           # all, half an hour on one core; prints a table, writes nothing
    python benchmarks/bands.py --only roc --size 200

A network sees the logit of two classes with noise and is too sure by a factor, so its confidence, how often that is right, and with it
the true curves are known by integrals. With ties the confidence has 20 steps. The Monte Carlo error of a coverage is
sqrt(0.95 x 0.05 / repetitions): 0.7 points at 1,000.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from scipy import stats

from uqlib.metrics import Band, band

CURVES = ("reliability", "risk_coverage", "roc")
SPREADS = {"hard": 2.0, "easy": 5.0}  # standard deviation of the true logits; 76 and 89 % are right
SURE, NOISE = 1.3, 0.8
STEPS = 20  # of a confidence with ties


class Truth(NamedTuple):
    """The population by shares of 1 / len, from the most confident on."""

    confidence: np.ndarray
    wrong: np.ndarray  # how likely the prediction is wrong there


class Held(NamedTuple):
    """How often bands of one kind held the truth."""

    curve: str
    task: str
    n: int
    ties: bool
    share: float  # of the repetitions
    below: float  # how often the truth lay below the band somewhere
    above: float
    width: float  # mean height of the band
    first: float  # where it begins, on average
    repetitions: int

    def __str__(self) -> str:
        error = 100 * math.sqrt(0.95 * 0.05 / self.repetitions)
        return (
            f"| {self.curve} | {self.task} | {self.n:,} | {'ties' if self.ties else ''} | {100 * self.share:.1f} ± {error:.1f} | "
            f"{100 * self.below:.1f} | {100 * self.above:.1f} | {self.width:.3f} | {self.first:.2f} | {self.repetitions:,} |"
        )


def rounded(confidence: np.ndarray, ties: bool) -> np.ndarray:
    """The confidence as the network gives it."""
    return np.round(STEPS * confidence) / STEPS if ties else confidence


def population(spread: float, points: int = 20_000) -> Truth:
    """Integrals over the true logit, given what the network sees."""
    seen = math.hypot(SURE * spread, NOISE)
    said = seen * stats.norm.isf((np.arange(points) + 0.5) / points / 2)  # its size, at each share
    mean, sd = said * SURE * (spread / seen) ** 2, spread * NOISE / seen
    at, weight = np.polynomial.hermite_e.hermegauss(60)
    wrong = 1 / (1 + np.exp(mean[:, None] + sd * at)) @ (weight / weight.sum())
    return Truth(1 / (1 + np.exp(-said)), wrong)


def study(spread: float, n: int, ties: bool, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Confidence and correctness of n examples."""
    logit = spread * rng.standard_normal(n)
    label = rng.random(n) < 1 / (1 + np.exp(-logit))
    said = SURE * logit + NOISE * rng.standard_normal(n)
    confidence = rounded(1 / (1 + np.exp(-np.abs(said))), ties)
    return torch.from_numpy(confidence), torch.from_numpy((said > 0) == label)


def true_curve(truth: Truth, ties: bool, found: Band) -> np.ndarray:
    """The truth at the points of a band; inside a tie a mean over its orders."""
    confidence, x = rounded(truth.confidence, ties), found.x.numpy()
    value, place = np.unique(-confidence, return_inverse=True)
    total, wrong = np.bincount(place), np.bincount(place, truth.wrong)
    if found.curve == "reliability":
        return np.interp(-x, value, 1 - wrong / total)
    along, up = (total, wrong) if found.curve == "risk_coverage" else (wrong, total - wrong)
    along, up = (np.r_[0, each.cumsum()] for each in (along, up))
    y = np.interp(x * along[-1], along, up)
    return y / (x * along[-1]) if found.curve == "risk_coverage" else y / up[-1]


def simulate(curve: str, task: str, n: int, ties: bool, repetitions: int, draws: int, least: int = 10) -> Held:
    """Bands of so many studies against the truth."""
    truth, rows = population(SPREADS[task]), []
    for k in range(repetitions):
        rng = np.random.default_rng([k, n])
        generator = torch.Generator().manual_seed(k)
        confidence, correct = study(SPREADS[task], n, ties, rng)
        while (~correct).sum() <= least:  # of which there is no ROC band
            confidence, correct = study(SPREADS[task], n, ties, rng)
        found = band(curve, confidence, correct, draws=draws, least=least, generator=generator)
        true = true_curve(truth, ties, found)
        low, high = found.low.numpy(), found.high.numpy()
        below, above = (true < low - 1e-9).any(), (true > high + 1e-9).any()
        rows.append((not (below or above), below, above, (high - low).mean(), found.first))
    return Held(curve, task, n, ties, *np.mean(rows, 0).tolist(), repetitions)


def every_kind(sizes: Sequence[int], only: str, repetitions: int, draws: int, least: int) -> Iterator[Held]:
    """All simulations, one after the other; fewer of large studies."""
    for n in sizes:
        many = repetitions if n <= 2000 else max(1, repetitions // 4)
        for curve in (only,) if only else CURVES:
            yield from (
                simulate(curve, task, n, ties, many, draws, least) for task in SPREADS for ties in (False, True)
            )


def main() -> None:
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CURVES, default="")
    parser.add_argument("--size", type=int, action="append", help="test examples; by default 200, 2,000 and 100,000")
    parser.add_argument("--repetitions", type=int, default=1000, help="a quarter as many of more than 2,000 examples")
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--least", type=int, default=10)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| curve | task | n | | held, % | below, % | above, % | height | begins at | repetitions |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for each in every_kind(given.size or [200, 2000, 100_000], given.only, given.repetitions, given.draws, given.least):
        print(each, flush=True)


if __name__ == "__main__":
    main()
