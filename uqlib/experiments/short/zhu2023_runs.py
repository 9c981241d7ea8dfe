"""Losses on labels that are partly wrong: small heads on what a network sees in CIFAR-10, each loss at the rate that noisy labels choose.

Heads of several seeds, or rates, are one stack. Labels of test images are right.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from uqlib import losses
from uqlib.base.extras import named
from uqlib.experiments.keeping.kept_runs import Found, KeptRun, load_made, pack_bits
from uqlib.experiments.short.components_runs import load_components
from uqlib.experiments.short.noisy_components import NOISES, NOISY, Noisy, noisy_components
from uqlib.metrics.compare import compare, together
from uqlib.metrics.detection import auroc
from uqlib.metrics.outcomes import Judged
from uqlib.training.stacked import Each, Recipe, TrainedEach, each_logits, train_each

with named():
    import xarray as xr

PLAN: dict[str, Any] = {
    "fit": 8000, "held": 2000, "tested": 1600, "seeds": 5, "rates": [0.005, 0.03, 0.2],
    "training": {"epochs": 12, "batch": 128, "hidden": 128, "momentum": 0.9, "weight_decay": 1e-4},
    "measures": ["held", "top2", "top5", "temperature", "given", "largest", "entropy", "rate"],
}  # fmt: skip
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
    **NOISY,
}  # fmt: skip


def ask_heads(heads: Each, features: Tensor) -> Float[Tensor, "s n c"]:
    """Logits of each head, for images of its own (s, n, d) or the same for all (n, d)."""
    return each_logits(heads, features / SIZE)


def fit_heads(name: str, data: Noisy, rates: Sequence[float], **training: Any) -> tuple[TrainedEach, Tensor | None]:
    """A head a seed of the data, each at its rate, with a loss in LOSSES_OF; and the temperatures of ALDR.

    Args:
        name, data, rates: of the loss; of `noisy_components`; a rate a head.
        training: what differs from the training of PLAN.
    """
    (kind, options), heads = LOSSES_OF[name], len(data.given)
    criterion = losses.loss(kind, **options, **({"examples": data.given.numel()} if kind == "aldr" else {}))
    trained = train_each(
        data.fit / SIZE, data.given, criterion, Recipe(**PLAN["training"] | training), seeds=data.seeds, rates=rates, classes=10,
        held=(data.held / SIZE, data.held_given), weights=data.right.float() if name == "oracle" else None,
    )  # fmt: skip
    found = getattr(criterion, "temperatures", None)
    return trained, None if found is None else found.view(heads, -1)


def chosen_rate(name: str, noise: str, plan: Mapping[str, Any] = PLAN) -> float:
    """The rate whose head of seed 0 is best on validation images with labels as noisy as those of the training."""
    if name == "ce_fast":
        return max(plan["rates"])
    one = noisy_components(noise, [0] * len(plan["rates"]), fit=plan["fit"], held=plan["held"])
    heads, _ = fit_heads(name, one, plan["rates"], **plan["training"])
    return plan["rates"][int((heads.held_best if name == "ce_early" else heads.held).argmax())]


def judge_losses(noise: str, plan: Mapping[str, Any], device: str) -> Found:
    """Train the heads of each loss with labels of a kind: which test images they get right, and what finds the wrong labels."""
    data = noisy_components(noise, range(plan["seeds"]), fit=plan["fit"], held=plan["held"])
    test, bits, tables = load_components("cifar10_test"), [], []
    asked, truth = (each[: plan["tested"]] for each in (test.features, test.labels))
    for name in LOSSES_OF:
        rate = chosen_rate(name, noise, plan)
        heads, temperatures = fit_heads(name, data, [rate] * plan["seeds"], **plan["training"])
        weights, held = (heads.best, heads.held_best) if name == "ce_early" else (heads.last, heads.held)
        order = ask_heads(weights, asked).argsort(-1, descending=True) == truth[:, None]
        bits.append([pack_bits(each.numpy()) for each in order[..., 0]])
        probs = ask_heads(weights, data.fit).double().softmax(-1)
        own, entropy = probs.gather(-1, data.given[..., None])[..., 0], torch.special.entr(probs).sum(-1)
        found = [held, *(order[..., :k].any(-1).float().mean(1) for k in (2, 5))]
        for doubt in temperatures, -own, -probs.amax(-1), entropy:
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
