"""Class after class on frozen features: the discrete key-value bottleneck beside linear probes, in streams and with all at once.

EdgeTPU's features are the components that are kept, so that the notebook can run the same anew; those of others are whole. Keys
and scales come from images of CIFAR-100 without their labels. A rate that is tuned is the best of three on the test images, which favours it.
"""

from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uqlib.base.extras import named
from uqlib.difficulty import moments
from uqlib.experiments.keeping.kept_runs import Found, KeptRun, KeptRuns, pack_bits
from uqlib.experiments.short.components_runs import load_components
from uqlib.experiments.short.frozen_features import encoder_features
from uqlib.heads import (
    LinearHead,
    Streamed,
    count_values,
    fetch_counts,
    fit_keys,
    fit_probe,
    fit_values,
    key_codes,
    key_distance,
    key_interference,
    lda,
    log_posteriors,
    naive_bayes,
    nearest_mean,
    run_stream,
    stream_forgetting,
    stream_plasticity,
    value_logits,
)
from uqlib.metrics.compare import cells, together

with named():
    import pandas as pd
    import xarray as xr

TRAINED = 2000  # training images a class, if nothing else is said
COMPONENTS, NETWORK = "EdgeTPU", "tf_mobilenet_edgetpu_100"
BACKBONES = {"EdgeTPU": "", "MobileNet 0.5": "mobilenetv1_050", "MobileNet 0.25": "mobilenetv1_025"}
RECIPE: dict[str, Any] = {
    "tested": 300,  # test images a class
    "codebooks": 64,
    "keys": 256,
    "epochs": 4,
    "rates": {"bottleneck": 150.0, "gentle": 22.5},  # times epochs: 600 as in the paper, and 90
    "linear": 0.03,  # rate of the plain probe: the one that is best where all classes come at once, as after a long training
    "ridge": 0.01,  # the strongest penalty of the paper
    "tuned": [0.0003, 0.003, 0.03],  # rates on scaled features
    "memory": 20,  # images a class that replay keeps
    "each": 2,  # classes a task
}
SIZES: dict[str, Any] = {"codebooks": [16, 64, 256], "keys": [64, 256, 1024], "trained": 500, "tested": 200}
HEADS = {  # that learn along the stream, in print; images of the last are not kept
    "linear": "linear probe",
    "ridge": "linear probe, penalty",
    "scaled": "linear probe, scaled and tuned",
    "own_classes": "linear probe, classes of the batch",
    "bottleneck": "bottleneck",
    "gentle": "gentle bottleneck",
    "counts": "counted values",
    "replay": "linear probe, replay",
}
STREAMED = tuple(HEADS)
MIXED = ("linear", "bottleneck", "gentle")  # of which it is kept what they know when all classes come at once
ORDER_FREE = {"nearest_mean": "nearest class mean", "naive_bayes": "naive Bayes", "lda": "LDA"}


class StreamTask:
    """Images of CIFAR-10 as an encoder sees them, a test set, and unlabelled others."""

    def __init__(self, backbone: str, seed: int, *, trained: int = TRAINED, tested: int = 300):
        if backbone == COMPONENTS:
            parts = [load_components(name) for name in ("cifar10_train", "cifar10_test", "cifar100_test")]
            (x, y), (z, w), (keys, _) = ((part.features, part.labels) for part in parts)
            keys = keys[torch.arange(len(keys)) % 4 > 0]  # the others are for detection
        else:
            sets = ("cifar10_train", "cifar10_test", "cifar100_train")
            (x, y), (z, w), (keys, _) = (encoder_features(BACKBONES[backbone], name) for name in sets)
            keys = keys[:3000]
        rows, asked = _first(y, trained), _first(w, tested)
        self.x, self.y, self.z, self.w, self.others, self.seed = x[rows], y[rows], z[asked], w[asked], keys, seed
        self.order = torch.randperm(10, generator=torch.Generator().manual_seed(seed)).tolist()

    def stream(self, learn: Callable[[Any, Tensor], Any], answer: Callable[[Any], Tensor], each: int = 2) -> Streamed:
        return run_stream(learn, answer, self.y, self.w, order=self.order, each=each)


def _first(labels: Tensor, each: int) -> Tensor:
    return torch.cat([(labels == k).nonzero()[:each, 0] for k in range(10)]).sort().values


def probe_stream(
    task: StreamTask, *, rate: float, scaled: bool = True, decay: float = 0.0, own: bool = False, memory: int = 0, each: int = 2
) -> Streamed:  # fmt: skip
    """A linear probe by plain steps, with the loss of the bottleneck."""
    mean, std = task.others.mean(0), task.others.std(0).clamp(min=1e-6)
    x, z = ((task.x - mean) / std, (task.z - mean) / std) if scaled else (task.x, task.z)

    options: dict[str, Any] = dict(
        classes=10, rate=rate, epochs=RECIPE["epochs"], l2=decay, own_classes=own, seed=task.seed
    )

    def learn(state: Any, rows: Tensor) -> Any:
        probe, kept = state or (None, rows[:0])
        again = torch.cat([rows, kept.repeat(len(rows) // len(kept))]) if len(kept) else rows
        fresh = [rows[task.y[rows] == k][:memory] for k in task.y[rows].unique()]
        return fit_probe(x[again], task.y[again], probe=probe, **options), torch.cat([kept, *fresh])

    return task.stream(learn, lambda state: ask_probe(state[0], z), each)


def ask_probe(probe: LinearHead, features: Tensor) -> Tensor:
    """Logits."""
    return features @ torch.as_tensor(probe.weight).T + torch.as_tensor(probe.bias)


def _tuned(task: StreamTask, **options: Any) -> Streamed:
    return max((probe_stream(task, rate=rate, **options) for rate in RECIPE["tuned"]), key=lambda found: found.mean)


class KeyedTask:
    """Keys for a task, and the codes of its images; of test images anew after each pair, among the keys fetched by then."""

    def __init__(self, task: StreamTask, codebooks: int, keys: int):
        self.task, self.keys = task, keys
        self.book = fit_keys(task.others, codebooks=codebooks, keys=keys, seed=task.seed)
        self.codes = torch.as_tensor(key_codes(task.x, self.book))
        self.counts = torch.as_tensor(fetch_counts(self.codes, keys=keys))
        self.asked: dict[int, Tensor] = {}  # codes of the test images, by how many images have been seen

    def answer(self, state: Any, features: Tensor | None = None) -> Tensor:
        """Logits of the test images, or of others."""
        values, rows = state
        if features is not None:
            counts = fetch_counts(self.codes[rows], keys=self.keys)
            return torch.as_tensor(value_logits(values, key_codes(features, self.book, counts=counts)))
        if len(rows) not in self.asked:
            counts = fetch_counts(self.codes[rows], keys=self.keys)
            self.asked[len(rows)] = torch.as_tensor(key_codes(self.task.z, self.book, counts=counts))
        return torch.as_tensor(value_logits(values, self.asked[len(rows)]))

    def learnt(self, rate: float, each: int = 2) -> Streamed:
        options: dict[str, Any] = dict(
            classes=10, keys=self.keys, rate=rate, epochs=RECIPE["epochs"], seed=self.task.seed
        )

        def learn(state: Any, rows: Tensor) -> Any:
            values, before = state or (None, rows[:0])
            return fit_values(self.codes[rows], self.task.y[rows], values=values, **options), torch.cat([before, rows])

        return self.task.stream(learn, self.answer, each)

    def counted(self) -> Streamed:
        def learn(state: Any, rows: Tensor) -> Any:
            seen = torch.cat([state[1], rows]) if state else rows
            return count_values(self.codes[seen], self.task.y[seen], classes=10, keys=self.keys), seen

        return self.task.stream(learn, self.answer)


def _streams(backbone: str, seed: int, device: str) -> Found:
    task = StreamTask(backbone, seed, tested=RECIPE["tested"])
    tested, plain = task.w, {"rate": RECIPE["linear"], "scaled": False}
    snapped = KeyedTask(task, RECIPE["codebooks"], RECIPE["keys"])
    found = {
        "linear": probe_stream(task, **plain),
        "ridge": probe_stream(task, decay=RECIPE["ridge"], **plain),
        "scaled": _tuned(task),
        "own_classes": _tuned(task, own=True),
        "replay": _tuned(task, memory=RECIPE["memory"]),
        **{name: snapped.learnt(rate) for name, rate in RECIPE["rates"].items()},
        "counts": snapped.counted(),
    }
    mixed = {name: snapped.learnt(rate, 10) for name, rate in RECIPE["rates"].items()} | {
        "linear": probe_stream(task, each=10, **plain)
    }
    asked = [found[name] for name in STREAMED[:-1]] + [mixed[name] for name in MIXED]
    right = torch.cat([each.logits.argmax(-1) == tested for each in asked])
    columns = {"correct": pack_bits(right.numpy())}
    columns["tasks"] = np.stack([_hits(found[name], 2 * RECIPE["tested"]) for name in STREAMED])
    numbers = {
        "tested": float(len(right)),
        "unused": (snapped.counts == 0).double().mean().item(),
        "interference": key_interference(snapped.codes, task.y, keys=RECIPE["keys"]),
        "mixed_scaled": _tuned(task, each=10).mean,
    }
    return Found(columns, numbers)


def order_free_heads(features: Tensor, labels: Tensor) -> dict[str, LinearHead]:
    """Heads that are made of sums over the images, so that no order of them matters."""
    sums = moments(features, labels, classes=10)
    return {"nearest_mean": nearest_mean(sums), "naive_bayes": naive_bayes(sums), "lda": lda(sums)}


def last_answers(
    seed: int, *, codebooks: int, keys: int, rate: float, trained: int = 500, tested: int = 200
) -> tuple[Tensor, dict[str, dict[str, Tensor]]]:
    """Labels of test images, and what heads that learnt one stream say of them and of images of other classes.

    Args:
        seed: of keys, order of the classes, and steps.
        codebooks, keys, rate: of the bottleneck.
        trained, tested: images a class.
    """
    task, outside = StreamTask(COMPONENTS, seed, trained=trained, tested=tested), unseen_others()
    keyed = KeyedTask(task, codebooks, keys)
    probe = probe_stream(task, rate=RECIPE["linear"], scaled=False)
    learnt, counted, lda = keyed.learnt(rate), keyed.counted(), order_free_heads(task.x, task.y)["lda"]
    inside, away = (-torch.as_tensor(key_distance(each, keyed.book, counts=keyed.counts)) for each in (task.z, outside))
    found = {
        "linear": {"logits": probe.logits, "outside": ask_probe(probe.state[0], outside)},
        "bottleneck": {"logits": learnt.logits, "outside": keyed.answer(learnt.state, outside)},
        "distance": {"logits": learnt.logits, "confidence": inside, "confidence_out": away},
        "counts": {"logits": counted.logits, "outside": keyed.answer(counted.state, outside)},
        "lda": {
            name: torch.as_tensor(log_posteriors(lda, x)) for name, x in (("logits", task.z), ("outside", outside))
        },
    }
    return task.w, found


def unseen_others() -> Tensor:
    """Images of CIFAR-100 that gave no keys."""
    return load_components("cifar100_test").features[::4]


def _order_free(backbone: str, device: str) -> Found:
    task = StreamTask(backbone, 0, tested=RECIPE["tested"])
    heads = order_free_heads(task.x, task.y)
    said = {name: torch.as_tensor(log_posteriors(head, task.z)) for name, head in heads.items()}
    right = torch.cat([said[name].argmax(-1) == task.w for name in ORDER_FREE])
    return Found({"correct": pack_bits(right.numpy())}, {"tested": float(len(right))})


def _hits(found: Streamed, tested: int) -> np.ndarray:
    """Right answers on each task after each task: whole numbers below 2048, which two bytes hold."""
    return (found.accuracy * tested).round().numpy().astype(np.float16)


def _sizes(seed: int, device: str) -> Found:
    task = StreamTask(COMPONENTS, seed, trained=SIZES["trained"], tested=SIZES["tested"])
    shape = len(SIZES["codebooks"]), len(SIZES["keys"])
    columns = {f"{name}_tasks": np.zeros((*shape, 5, 5), np.float16) for name in RECIPE["rates"]}
    columns |= {name: np.zeros(shape, np.float32) for name in ("counted", "unused", "interference")}
    for i, codebooks in enumerate(SIZES["codebooks"]):
        for j, keys in enumerate(SIZES["keys"]):
            snapped = KeyedTask(task, codebooks, keys)
            for name, rate in RECIPE["rates"].items():
                columns[f"{name}_tasks"][i, j] = _hits(snapped.learnt(rate), 2 * SIZES["tested"])
            columns["counted"][i, j] = snapped.counted().mean
            columns["unused"][i, j] = (snapped.counts == 0).double().mean().item()
            columns["interference"][i, j] = key_interference(snapped.codes, task.y, keys=keys)
    return Found(columns, {"tested": 10.0 * SIZES["tested"]})


RIVALS = ("linear", "ridge", "own_classes", "counts", "scaled")


def stream_accuracies(kept: KeptRuns, part: str, names: Collection[str], *, draws: int, seed: int = 0) -> xr.DataArray:
    """Accuracy at the end of each head on each backbone, of each seed and on draws of the test images.

    Args:
        kept: of `load_made`.
        part: "stream" or "order_free".
        names: of the heads, in the order in which their answers are kept.
        draws, seed: of the test images, the same for all heads.
    """
    tested = 10 * RECIPE["tested"]
    asked: dict[tuple[str, ...], str] = {(each,): f"{each}/{part}" for each in BACKBONES}
    found = [
        1 - kept.errors(asked, "backbone", draws=draws, seed=seed, rows=slice(k * tested, (k + 1) * tested))
        for k in range(len(names))
    ]
    return xr.concat(found, xr.DataArray(list(names), dims="head", name="head"))


def task_accuracies(kept: KeptRuns, backbone: str) -> xr.DataArray:
    """Accuracy on each task after each task: training, head, task, after."""
    names: dict[str, Any] = {"head": list(STREAMED), "task": range(1, 6), "after": range(1, 6)}
    hits = kept.table({backbone: f"{backbone}/stream"}, "backbone", column="tasks", names=names)
    return hits.sel(backbone=backbone, drop=True) / (2 * RECIPE["tested"])


def size_accuracies(kept: KeptRuns) -> xr.DataArray:
    """Mean accuracy at the end for each size: how values are made, training, codebooks, keys."""
    sizes: dict[str, Any] = {name: SIZES[name] for name in ("codebooks", "keys")}
    tasks = {"task": range(5), "after": range(5)}
    columns = {name: (f"{name}_tasks", sizes | tasks) for name in RECIPE["rates"]} | {"counts": ("counted", sizes)}
    found = {
        name: kept.table({"": "sizes"}, "all", column=column, names=names).isel(all=0, drop=True)
        for name, (column, names) in columns.items()
    }
    ends = {
        name: found[name].isel(after=-1, drop=True).mean("task") / (2 * SIZES["tested"]) for name in RECIPE["rates"]
    }
    return together(ends | {"counts": found["counts"]}, "values")


def less_rivals(ends: xr.DataArray, free: xr.DataArray) -> dict[str, xr.DataArray]:
    """Both bottlenecks less each rival, of `stream_accuracies`; under `order_free` less all heads that are sums."""
    ours = ends.sel(head=["bottleneck", "gentle"])
    less = {each: ours - ends.sel(head=each, drop=True) for each in RIVALS}
    return less | {"order_free": ours - free.rename(head="rival")}


def order_costs(ends: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """What is lost by classes in pairs, beside all at once: of both bottlenecks, and of the linear probe."""
    both, mixed = ["bottleneck", "gentle"], ["mixed_bottleneck", "mixed_gentle"]
    lost = ends.sel(head=mixed).assign_coords(head=both) - ends.sel(head=both)
    return lost, ends.sel(head="mixed_linear", drop=True) - ends.sel(head="linear", drop=True)


def course_cells(kept: KeptRuns, backbone: str) -> pd.DataFrame:
    """Of each head the mean over seeds of its forgetting, its accuracy on a pair when learnt, and on all at the end."""
    tasks = task_accuracies(kept, backbone).transpose("head", "training", "task", "after")
    asked: dict[str, Callable[[np.ndarray], float]] = {
        "forgetting": stream_forgetting,
        "accuracy when learnt": stream_plasticity,
        "at the end": lambda table: float(table[:, -1].mean()),
    }
    rows = [
        {"head": head, "what": what, "value": float(np.mean([of(table) for table in tables]))}
        for head, tables in zip(tasks["head"].values, tasks.values, strict=True)
        for what, of in asked.items()
    ]
    return pd.DataFrame(rows).assign(low=None, high=None)


def size_effects(kept: KeptRuns) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracy with the most codebooks, and keys, less with the fewest; and with gentle steps less full ones at the fewest keys."""
    sizes = size_accuracies(kept).expand_dims("draw")
    full = sizes.sel(values="bottleneck", drop=True)
    grown = {
        name: (full.isel({name: -1}, drop=True) - full.isel({name: 0}, drop=True)).mean(other)
        for name, other in (("codebooks", "keys"), ("keys", "codebooks"))
    }
    gentle = (sizes.sel(values="gentle", drop=True) - full).isel(keys=0, drop=True)
    return cells(grown, "size").assign(covers="trainings"), cells(gentle).assign(covers="trainings")


def traeuble2023_runs(scale: str = "cpu") -> Iterator[KeptRun]:
    """Streams on each backbone, and several sizes of the bottleneck on one; five draws of keys, orders and classes."""
    for seed in range(5):
        for backbone in BACKBONES:
            made = partial(_streams, backbone, seed)
            yield KeptRun("traeuble2023", f"{backbone}/stream/{seed}", RECIPE, made, 10.0 - seed, "short")
        if seed == 0:
            for backbone in BACKBONES:
                made = partial(_order_free, backbone)
                yield KeptRun("traeuble2023", f"{backbone}/order_free/0", RECIPE, made, 20.0, "short")
        yield KeptRun(
            "traeuble2023", f"sizes/{seed}", {**RECIPE, **SIZES}, partial(_sizes, seed), 1.0 - seed / 9, "short"
        )
