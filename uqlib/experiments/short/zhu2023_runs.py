"""Small heads trained on what a network sees in CIFAR-10, with labels that are partly wrong: each loss at the rate that noisy validation labels choose.

Heads of several seeds, or rates, are one stack. A seed has its own images for the training and for validation, weights, batches,
and wrong labels at random. The labels of people are those of CIFAR-10N. Labels of test images are right.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from uqlib import losses
from uqlib.base.extras import named
from uqlib.experiments.keeping.kept_runs import Found, KeptRun, load_made, pack_bits
from uqlib.experiments.short.components_runs import load_components
from uqlib.images.labels import noisy_labels
from uqlib.metrics.compare import compare, together
from uqlib.metrics.detection import auroc
from uqlib.metrics.outcomes import Judged

with named():
    import xarray as xr

PLAN: dict[str, Any] = {
    "fit": 8000, "held": 2000, "tested": 1600, "seeds": 5, "epochs": 12, "batch": 128, "hidden": 128, "momentum": 0.9, "decay": 1e-4,
    "rates": [0.005, 0.03, 0.2], "measures": ["held", "top2", "top5", "temperature", "given", "largest", "entropy", "rate"],
}  # fmt: skip
NOISES = ("clean", "random1", "worst", "uniform 0.3", "uniform 0.6")  # by people twice, and a share drawn anew twice
SIZE = 5.0  # of a component, about; features are divided by it
TEMPERATURES = (0.1, 1.0, 10.0)
LOSSES_OF: dict[str, tuple[str, dict[str, Any]]] = {
    "ce": ("cross_entropy", {}),
    "ce_fast": ("cross_entropy", {}),  # at the highest rate, which nothing chose
    "ce_early": ("cross_entropy", {}),  # as it was after the epoch that was best on the validation images
    "oracle": ("cross_entropy", {}),  # of the images alone whose label is right
    "smoothing": ("label_smoothing", {}),
    "gce": ("gce", {}),
    "sce": ("sce", {}),
    "mae": ("mae", {}),
    **{f"{name}_{t}": (name, {"temperature": t, "normalise": "norm1"}) for name in ("ldr", "aldr") for t in TEMPERATURES},
    "ldr_softplus": ("ldr", {"temperature": 10.0, "normalise": "softplus"}),
}  # fmt: skip


NAMES = {  # in print
    "ce": "cross-entropy", "ce_early": "cross-entropy, stopped early", "ce_fast": "cross-entropy, fast", "smoothing": "label smoothing",
    "gce": "GCE", "sce": "SCE", "mae": "MAE", "ldr": "LDR", "aldr": "ALDR", "oracle": "right labels alone", "ldr_softplus": "LDR, softplus",
    **{f"aldr_{t}": f"ALDR, T₀ = {t:g}" for t in TEMPERATURES}, "given": "1 − p of the given label", "largest": "1 − largest p",
    "clean": "right labels", "random1": "one person", "worst": "worst of three", "uniform 0.3": "30 % at random", "uniform 0.6": "60 % at random",
}  # fmt: skip


class Noisy(NamedTuple):
    """What heads learn from, an entry a head: images as components, labels as given, and whether these are right."""

    seeds: list[int]
    fit: Float[Tensor, "s n d"]
    given: Tensor
    right: Tensor
    held: Float[Tensor, "s m d"]
    held_given: Tensor


class Heads(NamedTuple):
    """Stacked heads after the last epoch and after their best one, the accuracy on validation labels then, and the temperatures of ALDR."""

    last: list[Tensor]
    best: list[Tensor]
    held: Tensor
    held_best: Tensor
    temperatures: Tensor | None


def noisy_cifar(noise: str, seeds: Sequence[int], plan: Mapping[str, Any] = PLAN) -> Noisy:
    """Images and labels of each seed; noise is in NOISES, or "uniform" and a share."""
    seen, parts = load_components("cifar10_train"), []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randperm(len(seen.labels), generator=generator)[: plan["fit"] + plan["held"]]
        true = given = seen.labels[rows]
        kind, _, share = noise.partition(" ")
        if kind == "uniform":
            redrawn = torch.rand(len(rows), generator=generator) < float(share)
            given = torch.where(redrawn, torch.randint(10, (len(rows),), generator=generator), true)
        elif kind != "clean":
            given = torch.from_numpy(noisy_labels(kind)[seen.index]).long()[rows]
        parts.append((seen.features[rows], given, given == true))
    x, y, right = (torch.stack(each) for each in zip(*parts, strict=True))
    n = plan["fit"]
    return Noisy(list(seeds), x[:, :n], y[:, :n], right[:, :n], x[:, n:], y[:, n:])


def ask_heads(weights: Sequence[Tensor], features: Tensor) -> Float[Tensor, "s n c"]:
    """Logits of each head of a stack, for images of their own (s, n, d) or the same for all (n, d)."""
    first, bias, second, end = weights
    x = features.expand(len(first), *features.shape[-2:]) / SIZE
    return torch.baddbmm(end, torch.baddbmm(bias, x, first).relu(), second)


def fit_heads(name: str, data: Noisy, rates: Sequence[float], plan: Mapping[str, Any] = PLAN) -> Heads:
    """Train a head a seed of the data, each at its rate, with a loss in LOSSES_OF: SGD with momentum, the rate falling as a cosine."""
    (heads, n, d), (kind, options), h = data.fit.shape, LOSSES_OF[name], plan["hidden"]
    criterion = losses.loss(kind, **options, **({"examples": heads * n} if kind == "aldr" else {}))
    criterion.begin(data.given.flatten())
    draws = [torch.Generator().manual_seed(seed) for seed in data.seeds]
    shapes = ((d, h), d), ((1, h), d), ((h, 10), h), ((1, 10), h)
    weights = [
        torch.stack([2 * torch.rand(shape, generator=g) - 1 for g in draws]) / math.sqrt(fan) for shape, fan in shapes
    ]
    speeds = [torch.zeros_like(each) for each in weights]
    offsets, steps, done = n * torch.arange(heads)[:, None], n // plan["batch"] * plan["epochs"], 0
    own, kept, best = torch.arange(heads)[:, None], [each.clone() for each in weights], torch.full((heads,), -1.0)
    for _ in range(plan["epochs"]):
        order = torch.stack([torch.randperm(n, generator=g) for g in draws])
        for rows in order.split(plan["batch"], 1)[: n // plan["batch"]]:
            weights = [each.detach().requires_grad_() for each in weights]
            logits, given = ask_heads(weights, data.fit[own, rows]).flatten(0, 1), data.given[own, rows].flatten()
            if (
                name == "oracle"
            ):  # over the right ones of all heads, so that a head with more of them takes steps some percent longer
                right = data.right[own, rows].flatten().float()
                value = (criterion.terms(logits, given, given) * right).sum() / right.sum()
            else:
                value = criterion(logits, given, (offsets + rows).flatten())
            slopes = torch.autograd.grad(heads * value, weights)  # each head's own mean
            rate = torch.tensor(rates)[:, None, None] * (1 + math.cos(math.pi * done / steps)) / 2
            done += 1
            with torch.no_grad():
                for each, speed, slope in zip(weights, speeds, slopes, strict=True):
                    speed.mul_(plan["momentum"]).add_(slope + plan["decay"] * each)
                    each.sub_(rate * speed)
        with torch.no_grad():
            held = (ask_heads(weights, data.held).argmax(-1) == data.held_given).float().mean(1)
            kept = [torch.where((held > best)[:, None, None], now, old) for now, old in zip(weights, kept, strict=True)]
            best = torch.maximum(best, held)
    found = getattr(criterion, "temperatures", None)
    return Heads([w.detach() for w in weights], kept, held, best, None if found is None else found.view(heads, n))


def chosen_rate(name: str, noise: str, plan: Mapping[str, Any] = PLAN) -> float:
    """The rate whose head of seed 0 is best on validation images with labels as noisy as those of the training."""
    if name == "ce_fast":
        return max(plan["rates"])
    one = noisy_cifar(noise, [0] * len(plan["rates"]), plan)
    heads = fit_heads(name, one, plan["rates"], plan)
    return plan["rates"][int((heads.held_best if name == "ce_early" else heads.held).argmax())]


def judge_losses(noise: str, plan: Mapping[str, Any], device: str) -> Found:
    """Train the heads of each loss with labels of a kind: which test images they get right, and what finds the wrong labels."""
    data, test = noisy_cifar(noise, range(plan["seeds"]), plan), load_components("cifar10_test")
    truth, bits, tables = test.labels[: plan["tested"]], [], []
    for name in LOSSES_OF:
        rate = chosen_rate(name, noise, plan)
        heads = fit_heads(name, data, [rate] * plan["seeds"], plan)
        weights, held = (heads.best, heads.held_best) if name == "ce_early" else (heads.last, heads.held)
        order = ask_heads(weights, test.features[: plan["tested"]]).argsort(-1, descending=True) == truth[:, None]
        bits.append([pack_bits(each.numpy()) for each in order[..., 0]])
        probs = ask_heads(weights, data.fit).double().softmax(-1)
        own, entropy = probs.gather(-1, data.given[..., None])[..., 0], torch.special.entr(probs).sum(-1)
        found = [held, *(order[..., :k].any(-1).float().mean(1) for k in (2, 5))]
        for doubt in heads.temperatures, -own, -probs.amax(-1), entropy:
            pairs = [] if doubt is None or data.right.all() else zip(doubt, ~data.right, strict=True)
            found.append(torch.tensor([auroc(*each) for each in pairs] or [math.nan] * len(held)))
        tables.append(torch.stack([*found, torch.full_like(held, rate)], 1).float().numpy())
    numbers = {"tested": plan["tested"], "wrong": 1 - data.right.double().mean().item()}
    return Found({"correct": np.array(bits), "measured": np.array(tables)}, numbers)


def zhu2023_runs(scale: str = "cpu") -> Iterator[KeptRun]:
    """One run a kind of labels: all losses and seeds."""
    for noise in NOISES:
        settings = {**PLAN, "losses": {name: list(each) for name, each in LOSSES_OF.items()}, "noise": noise}
        yield KeptRun("zhu2023", f"{noise}/0", settings, partial(judge_losses, noise, PLAN), folder="short")


def losses_so_far(scale: str = "cpu", *, draws: int = 200, seed: int = 0) -> tuple[xr.DataArray, xr.DataArray]:
    """Accuracy of each loss on test images and on draws of them, as `metrics.compare`, and what else was measured of each head.

    Beside the losses there are "ldr" and "aldr" with normalised scores, whose temperature each seed chooses by validation
    images with wrong labels.

    Returns:
        Dimensions noise, variant, training, draw; and noise, variant, training, measure.
    """
    kept, scores, tables = load_made(zhu2023_runs(scale)), {}, {}
    for run in kept.names:
        measured, names, noise = kept.column(run, "measured"), list(LOSSES_OF), run.rpartition("/")[0]
        right = np.unpackbits(kept.column(run, "correct"), axis=-1, count=int(kept.number(run, "tested"))).astype(bool)
        for family in ("ldr", "aldr"):
            own = [names.index(f"{family}_{t}") for t in TEMPERATURES]
            best = np.array(own)[measured[own, :, 0].argmax(0)], np.arange(measured.shape[1])
            measured, right = (np.concatenate([each, each[best][None]]) for each in (measured, right))
            names.append(family)
        judged = {
            name: [Judged(each.double(), each) for each in rows]
            for name, rows in zip(names, torch.from_numpy(right), strict=True)
        }
        found = compare(judged, ["accuracy"], over="training", draws=draws, seed=seed)
        scores[noise] = found.sel(measure="accuracy", drop=True)
        axes = {"variant": names, "training": range(measured.shape[1]), "measure": PLAN["measures"]}
        tables[noise] = xr.DataArray(measured.astype(float), coords=axes)
    return together(scores, "noise"), together(tables, "noise")
