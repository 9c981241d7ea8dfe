"""uqlib beside its peers, in one process and one run: first how far each is from the truth, then how fast it is.

    pip install -e ".[bench]"
    python benchmarks/speed.py --threads 1 --json speed.json
    python benchmarks/speed.py --only aurc

Each contestant gets the same numbers in the kind it works on, so that no conversion is timed. Conventions differ (AURC
as a mean or as a trapezoid), so each is held against a float64 reference of its own convention. Contestants take turns,
so that a busy machine is busy for all of them. Memory is the growth of the peak of resident memory during a second
call in a fresh process; it is read from /proc, so on Linux only.
"""

import argparse
import json
import logging
import math
import platform
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import netcal.metrics
import netcal.scaling
import numpy as np
import sklearn.metrics
import torch
import torch_uncertainty.metrics
import torch_uncertainty.post_processing
import torchmetrics
from pytorch_ood.detector import RMD
from scipy.optimize import minimize, minimize_scalar
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics.functional.classification import binary_auroc, binary_calibration_error

from uqlib.calibrate.temperature import fit_temperature
from uqlib.combine.duos import fit_duo
from uqlib.difficulty import Moments, fit_gaussians, moments, moments_of, nearest_relative_mahalanobis
from uqlib.metrics import augrc, aurc, rank
from uqlib.metrics.calibration import ece
from uqlib.metrics.detection import auroc
from uqlib.metrics.resampling.bootstrap import interval
from uqlib.papers.zhou2025 import TAUS, ReleasedFit, fit_duo_zhou2025


class Contestant(NamedTuple):
    run: Callable[[], Any]
    error: Callable[[Any], float]  # of what run returned, against the reference
    repeats: int = 7
    whole: float = 1  # the whole task is so many times what run does; times are multiplied by it


class Case(NamedTuple):
    title: str
    error: str  # what the error is measured in
    contestants: dict[str, Contestant]  # uqlib first


def examples(n: int) -> tuple[Tensor, Tensor]:
    """Confidences as of a good classifier, somewhat overconfident: accuracy 0.84, few ties."""
    generator = torch.Generator().manual_seed(0)
    margin = 2 + 2 * torch.randn(n, generator=generator)
    confidence = (1 + margin.abs().sigmoid()) / 2
    return confidence, torch.rand(n, generator=generator) < 0.98 * confidence - 0.02


def ece_case() -> Case:
    confidence, correct = examples(10**7)
    scores, hits = confidence.numpy(), correct.numpy()

    @cache
    def truth() -> float:
        place = np.ceil(scores.astype(np.float64) * 15).astype(int)  # no float32 below 1 is k/15: none on an edge
        gaps = (math.fsum(scores[place == k].tolist()) - hits[place == k].sum() for k in range(1, 16))
        return math.fsum(abs(gap) for gap in gaps) / len(scores)

    contestants = {
        "uqlib": lambda: ece(confidence, correct, bins=15),
        "torchmetrics": lambda: binary_calibration_error(confidence, correct.int(), n_bins=15).item(),
        "torch-uncertainty": lambda: of_metric(
            torch_uncertainty.metrics.CalibrationError(task="binary", num_bins=15), confidence, correct.int()
        ),
        "netcal": lambda: float(netcal.metrics.ECE(15, detection=True).measure(scores, hits)),
    }
    return Case(
        "ECE, 15 bins, 10^7",
        "ECE",
        {name: Contestant(run, lambda value: abs(value - truth())) for name, run in contestants.items()},
    )


def of_metric(metric: torchmetrics.Metric, *batch: Tensor) -> float:
    metric.update(*batch)
    return metric.compute().item()


def aurc_case() -> Case:
    confidence, correct = examples(10**6)

    @cache
    def truth() -> dict[str, tuple[float, ...]]:
        n, risks = len(confidence), expected_risks(confidence.numpy(), correct.numpy())
        curves = risks, risks * np.arange(1, n + 1) / n
        return {
            "mean": tuple(math.fsum(curve) / n for curve in curves),
            # torch-uncertainty integrates from coverage 1/n to 1 and divides by that length
            "trapezoid": tuple((math.fsum(curve) - (curve[0] + curve[-1]) / 2) / (n - 1) for curve in curves),
        }

    def ours() -> tuple[float, float]:
        ranking = rank(confidence, correct)
        return aurc(ranking), augrc(ranking)

    def theirs() -> tuple[float, float]:
        metrics = torch_uncertainty.metrics.AURC(), torch_uncertainty.metrics.AUGRC()
        for metric in metrics:  # what update would store, so that only the metric itself is timed
            metric.scores.append(confidence)
            metric.errors.append((~correct).float())
        return tuple(metric.compute().item() for metric in metrics)

    return Case(
        "AURC and AUGRC, 10^6",
        "larger of the two",
        {
            "uqlib": Contestant(ours, lambda value: distance(value, truth()["mean"])),
            "torch-uncertainty": Contestant(theirs, lambda value: distance(value, truth()["trapezoid"])),
        },
    )


def expected_risks(confidence: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Selective risks with the ties shared: a plain second implementation, by ranges of equal scores."""
    order = np.argsort(-confidence, kind="stable")
    _, first, size = np.unique(-confidence[order], return_index=True, return_counts=True)
    wrong = np.add.reduceat((~correct[order]).astype(np.int64), first)
    rate = np.repeat(wrong / size, size)
    within = np.arange(len(order)) - np.repeat(first, size) + 1
    return (np.repeat(np.cumsum(wrong) - wrong, size) + rate * within) / np.arange(1, len(order) + 1)


def distance(value: tuple[float, ...], truth: tuple[float, ...]) -> float:
    return max(abs(a - b) for a, b in zip(value, truth, strict=True))


def auroc_case() -> Case:
    score, positive = examples(10**7)
    labels, scores = positive.numpy(), score.numpy()

    @cache
    def truth() -> float:
        hits = int(labels.sum())
        won = math.fsum(midranks(scores)[labels]) - hits * (hits + 1) / 2
        return won / (hits * (len(labels) - hits))

    contestants = {
        "uqlib": lambda: auroc(score, positive),
        "torchmetrics": lambda: binary_auroc(score, positive.int()).item(),
        "scikit-learn": lambda: float(sklearn.metrics.roc_auc_score(labels, scores)),
    }
    return Case(
        "AUROC, 10^7",
        "AUROC",
        {name: Contestant(run, lambda value: abs(value - truth()), repeats=5) for name, run in contestants.items()},
    )


def midranks(scores: np.ndarray) -> np.ndarray:
    """Ascending ranks from 1, ties at their mean rank: Mann and Whitney's route to the AUROC."""
    _, place, size = np.unique(scores, return_inverse=True, return_counts=True)
    return (np.cumsum(size) - (size - 1) / 2)[place]


def bootstrap_case() -> Case:
    confidence, correct = examples(10**4)
    draws = 10_000

    def ours() -> tuple[float, float]:
        found = interval(aurc, confidence, correct, draws=draws, generator=torch.Generator().manual_seed(0))
        return found.low, found.high

    def theirs() -> tuple[float, float]:
        generator, values, wrong = torch.Generator().manual_seed(0), [], (~correct).float()
        for _ in range(draws):
            rows = torch.randint(len(wrong), (len(wrong),), generator=generator)
            metric = torch_uncertainty.metrics.AURC()
            metric.scores.append(confidence[rows])
            metric.errors.append(wrong[rows])
            values.append(metric.compute().item())
        return tuple(np.quantile(values, [0.025, 0.975]).tolist())

    @cache
    def truth() -> dict[str, tuple[float, float]]:
        generator, values = torch.Generator().manual_seed(0), {"mean": [], "trapezoid": []}
        n = len(correct)
        for _ in range(draws):
            row = torch.randint(n, (n,), generator=generator).numpy()
            risks = expected_risks(confidence.numpy()[row], correct.numpy()[row])
            values["mean"].append(risks.mean())
            values["trapezoid"].append((risks.sum() - (risks[0] + risks[-1]) / 2) / (n - 1))
        return {name: tuple(np.quantile(drawn, [0.025, 0.975]).tolist()) for name, drawn in values.items()}

    return Case(
        "95 % interval of AURC, 10^4, 10,000 draws",
        "larger of the two limits, against the same draws",
        {
            "uqlib": Contestant(ours, lambda value: distance(value, truth()["mean"]), repeats=5),
            "loop over torch-uncertainty": Contestant(
                theirs, lambda value: distance(value, truth()["trapezoid"]), repeats=1
            ),
        },
    )


def temperature_case() -> Case:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(10**4, 100, generator=generator)
    labels = torch.multinomial((logits / 2).softmax(-1), 1, generator=generator)[:, 0]
    wide, classes = logits.double(), labels.numpy()
    probs = wide.softmax(-1).numpy()  # float64, because on float32 netcal stays at its start, T = 1, and says nothing

    def nll(log_temperature: float) -> float:
        return torch.nn.functional.cross_entropy(wide / math.exp(log_temperature), labels).item()

    @cache
    def least() -> float:
        return minimize_scalar(nll, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).fun

    def torch_uncertainty_fit() -> float:
        scaler = torch_uncertainty.post_processing.TemperatureScaler(model=torch.nn.Identity())
        scaler.fit(DataLoader(TensorDataset(logits, labels), batch_size=len(logits)), progress=False)
        return scaler.temperature[0].item()

    def netcal_fit() -> netcal.scaling.TemperatureScaling:
        return netcal.scaling.TemperatureScaling().fit(probs, classes, tensorboard=False)

    def of_temperature(temperature: float) -> float:
        return nll(math.log(temperature)) - least()

    def of_netcal(scaling: netcal.scaling.TemperatureScaling) -> float:
        calibrated = scaling.transform(probs)
        return -np.log(calibrated[np.arange(len(classes)), classes]).mean() - least()

    return Case(
        "temperature, 10^4 x 100",
        "NLL above the minimum, nats",
        {
            "uqlib": Contestant(lambda: fit_temperature(logits, labels).temperature, of_temperature),
            "torch-uncertainty": Contestant(torch_uncertainty_fit, of_temperature, repeats=3),
            "netcal": Contestant(netcal_fit, of_netcal, repeats=5),
        },
    )


def duo_examples(n: int = 50_000, classes: int = 1000) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of a good network and of a weaker one that mostly errs with it, labels drawn from 0.7 and 0.37 of them."""
    generator = torch.Generator().manual_seed(0)
    evident = torch.randint(classes, (n, 1), generator=generator)
    strength = 12 + 4 * torch.randn(n, 1, generator=generator)
    shared = torch.randn(n, classes, generator=generator)

    def network(own: float, common: float, seen: Tensor) -> Tensor:
        logits = torch.randn(n, classes, generator=generator).mul_(own).add_(shared, alpha=common)
        return logits.scatter_add_(1, evident, seen)

    large = network(1.0, 1.5, strength)
    small = network(1.2, 1.2, 0.7 * strength + torch.randn(n, 1, generator=generator))
    probs = ((0.7 * a + 0.37 * b).softmax(-1) for a, b in zip(large.split(5000), small.split(5000), strict=True))
    return large, small, torch.cat([torch.multinomial(part, 1, generator=generator)[:, 0] for part in probs])


def duo_case() -> Case:
    large, small, labels = duo_examples()

    def nll(weights: np.ndarray) -> tuple[float, np.ndarray]:
        """Value and gradient by autograd in float64, a few thousand rows at a time."""
        at, value = torch.tensor(weights, dtype=torch.float64, requires_grad=True), 0.0
        for a, b, label in zip(large.split(2500), small.split(2500), labels.split(2500), strict=True):
            mixed = at[0] * a.double() + at[1] * b.double()
            part = torch.nn.functional.cross_entropy(mixed, label, reduction="sum") / len(labels)
            part.backward()
            value += part.item()
        return value, at.grad.numpy().copy()

    @cache
    def least() -> float:
        return minimize(nll, [0.5, 0.5], jac=True, method="BFGS", options={"gtol": 1e-8}).fun

    def above(weights: tuple[float, float]) -> float:
        return nll(weights)[0] - least()

    def after_its_steps(found: ReleasedFit) -> float:
        return above(fit_duo_zhou2025(large, small, labels, taus=sorted(set(found.grid))).weights)

    points = [0.65, 0.85, 1.65]  # the best of the whole grid, (0.65, 1.65), is among their pairs
    return Case(
        "duo, 50,000 x 1000",
        "NLL above the minimum, nats",
        {
            "uqlib": Contestant(lambda: fit_duo(large, small, labels), lambda fit: above(fit.weights), repeats=5),
            f"released code, {len(points) ** 2} of {len(TAUS) ** 2} grid points, scaled up": Contestant(
                lambda: fit_duo_zhou2025(large, small, labels, taus=points, steps=0),
                after_its_steps,
                repeats=2,
                whole=(len(TAUS) / len(points)) ** 2,
            ),
        },
    )


def labelled_features(n: int, d: int = 768, classes: int = 100) -> tuple[Tensor, Tensor]:
    """Features of overlapping classes, float32, some correlated: condition number of the covariance about 100."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(classes, (n,), generator=generator)
    means = torch.randn(classes, d, generator=generator) / 4
    features = torch.randn(n, d, generator=generator).add_(means[labels])
    return features.mul_(torch.linspace(0.3, 3, d)).add_(5), labels


def nearest_by_definition(features: Tensor, labels: Tensor, others: Tensor) -> np.ndarray:
    """min over the classes of the relative squared distance, in float64, as it is defined: NumPy, class by class."""
    x, y, rows = features.double().numpy(), labels.numpy(), others.double().numpy()
    means = np.stack([x[y == label].mean(0) for label in range(y.max() + 1)])
    centre, rest = x.mean(0), x - means[y]
    one, whole = (np.linalg.inv(z.T @ z / len(z)) for z in (rest, x - centre))
    nearest = np.min([((rows - mean) @ one * (rows - mean)).sum(1) for mean in means], 0)
    return nearest - ((rows - centre) @ whole * (rows - centre)).sum(1)


def rmd_fit_case() -> Case:
    features, labels = labelled_features(50_000)
    others = features[:500]

    @cache
    def truth() -> np.ndarray:
        return nearest_by_definition(features, labels, others)

    def relative(scores: Tensor) -> float:
        return float(np.abs(scores.double().numpy() / truth() - 1).max())

    def ours(precision: str) -> Contestant:
        return Contestant(
            lambda: fit_gaussians(moments(features, labels, classes=100, precision=precision), covariance="empirical"),
            lambda found: relative(nearest_relative_mahalanobis(found, others)),
        )

    contestants = {
        "uqlib": ours("float64"),
        "uqlib, products in float32": ours("float32"),
        "pytorch-ood": Contestant(  # it does not divide by n, so its distances are n times too small
            lambda: RMD(None).fit_features(features, labels),
            lambda found: relative(found.predict_features(others) * len(features)),
        ),
    }
    return Case("RMD, fit, 50,000 x 768, 100 classes", "largest relative error of 500 scores", contestants)


def rmd_score_case() -> Case:
    features, labels = labelled_features(25_000)
    others = features[-5000:]
    gaussians = fit_gaussians(moments(features, labels, classes=100), covariance="empirical")
    detector = RMD(None).fit_features(features, labels)

    @cache
    def truth() -> np.ndarray:
        return nearest_by_definition(features, labels, others)

    def relative(scores: Tensor) -> float:
        return float(np.abs(scores.double().numpy() / truth() - 1).max())

    return Case(
        "RMD, score, 5,000 x 768, 100 classes",
        "largest relative error",
        {
            "uqlib": Contestant(lambda: nearest_relative_mahalanobis(gaussians, others), relative),
            "pytorch-ood": Contestant(
                lambda: detector.predict_features(others), lambda scores: relative(scores * len(features)), repeats=3
            ),
        },
    )


def stream_case() -> Case:
    """As many rows as ImageNet, from a pool of 20,000 that comes round 64 times, so that they need not be stored."""
    features, labels = labelled_features(20_000, classes=1000)
    times, rows = 64, 4000

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(times):
            yield from zip(features.split(rows), labels.split(rows), strict=True)

    def error(found: Moments) -> float:
        x, y = features.double().numpy(), labels.numpy()
        rest = x - np.stack([x[y == label].mean(0) for label in range(1000)])[y]
        expected = times * rest.T @ rest
        size = np.sqrt(np.outer(expected.diagonal(), expected.diagonal()))
        return float((np.abs(found.within.numpy() - expected) / size).max())

    run = Contestant(lambda: moments_of(batches(), classes=1000, progress=False), error, repeats=1)
    return Case(
        "moments of a stream, 1.28 million x 768, 1000 classes", "largest error of a correlation", {"uqlib": run}
    )


CASES = {
    "ece": ece_case,
    "aurc": aurc_case,
    "auroc": auroc_case,
    "bootstrap": bootstrap_case,
    "temperature": temperature_case,
    "duo": duo_case,
    "rmd-fit": rmd_fit_case,
    "rmd-score": rmd_score_case,
    "stream": stream_case,
}


def measure(name: str) -> list[dict[str, Any]]:
    """Errors first, then times with the contestants taking turns, then memory in a process each."""
    case = CASES[name]()
    errors, times = {}, {contestant: [] for contestant in case.contestants}
    for contestant, entry in case.contestants.items():  # the warm-up of what is timed below, too
        errors[contestant] = entry.error(entry.run())
        print(f"{case.title}: {contestant} is off by {errors[contestant]:.1e} ({case.error})", flush=True)
    for turn in range(max(entry.repeats for entry in case.contestants.values())):
        for contestant, entry in case.contestants.items():
            if turn < entry.repeats:
                times[contestant].append([entry.whole * taken for taken in seconds(entry.run)])
    medians = {
        contestant: [statistics.median(column) for column in zip(*taken, strict=True)]
        for contestant, taken in times.items()
    }
    return [
        {
            "case": case.title,
            "contestant": contestant,
            "error": errors[contestant],
            "wall_s": wall,
            "processor_s": processor,
            "wall_ratio": wall / medians["uqlib"][0],
            "processor_ratio": processor / medians["uqlib"][1],
            "runs": len(times[contestant]),
            "peak_mib": peak_in_a_process(name, contestant),
        }
        for contestant, (wall, processor) in medians.items()
    ]


def seconds(run: Callable[[], Any]) -> tuple[float, float]:
    """By the clock on the wall, and of the processor: the second leaves out what other programs took."""
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - processor


def peak_in_a_process(name: str, contestant: str) -> float:
    command = [sys.executable, __file__, "--peak", name, contestant, "--threads", str(torch.get_num_threads())]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


def peak(name: str, contestant: str) -> float:
    """MiB by which a second call raises the peak of resident memory above what was resident before it."""
    run = CASES[name]().contestants[contestant].run
    if "linux" not in sys.platform:
        return math.nan
    run()  # loads the code, whose pages count as memory too; large arrays go back to the system
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = resident("VmRSS")
    run()
    return (resident("VmHWM") - before) / 1024


def resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def table(rows: list[dict[str, Any]]) -> str:
    head = (
        "| task | library | error | runs | wall time | processor time | ratios to uqlib | memory |\n" + 8 * "|---" + "|"
    )
    body = [
        f"| {row['case']} | {row['contestant']} | {row['error']:.1e} | {row['runs']} | {row['wall_s']:.3g} s | "
        f"{row['processor_s']:.3g} s | {row['wall_ratio']:.1f}, {row['processor_ratio']:.1f} | {row['peak_mib']:.0f} MiB |"
        for row in rows
    ]
    return "\n".join([head, *body])


def versions() -> dict[str, str]:
    found = {module.__name__: module.__version__ for module in (torch, np, torchmetrics, netcal, sklearn)}
    installed = {name.replace("-", "_"): version(name) for name in ("torch-uncertainty", "pytorch-ood")}
    return {"python": platform.python_version(), **found, **installed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=CASES, action="append", help="one task; may be given several times")
    parser.add_argument("--json", type=Path, help="where to store the rows")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of torch")
    parser.add_argument("--peak", nargs=2, metavar=("TASK", "LIBRARY"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")  # the peers' own, which are many
    logging.disable(logging.WARNING)
    if args.peak:
        print(peak(*args.peak))
        return
    print(f"{torch.get_num_threads()} thread(s) of torch; {versions()}", flush=True)
    rows = [row for name in args.only or CASES for row in measure(name)]
    print("\n" + table(rows))
    if args.json:
        args.json.write_text(json.dumps({"threads": torch.get_num_threads(), **versions(), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
