"""Small heads on frozen features of CIFAR-10: many trainings for the price of a few, so that small effects can be seen.

A network of ImageNet sees the images once; on its leading principal components thirty seeds of each loss are trained at
once, on official labels and on those that people got wrong. One file keeps how many seeds classified each test image
rightly, and the metrics of each seed: `uqlib heads` makes it.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from uqlib import difficulty
from uqlib.base.arrays import as_tensor
from uqlib.base.extras import named
from uqlib.base.options import check_choice
from uqlib.base.provenance import environment
from uqlib.experiments.difficulty_scores import load_whole, scorer_features
from uqlib.experiments.image_sets import first_rows
from uqlib.experiments.keeping.kept_columns import measure_answers, open_kept, to_small
from uqlib.files.columns import Header, read_column, write_table
from uqlib.files.whole import DamagedError
from uqlib.images.labels import noisy_labels
from uqlib.training.stacked import stacked_logits, train_heads

with named():
    import xarray as xr

PLACE = "data/trained/cifar10_frozen/heads.safetensors"
LABELS = ("clean", "worst")  # that train: the official ones, or a kind of `images.noisy_labels`
KINDS = {  # of losses: who gets the bonus, and its mean strength; the last has the weights of the paper
    "cross_entropy": ("none", 0.0),
    "constant_0.1": ("constant", 0.1),
    "constant_0.3": ("constant", 0.3),
    "difficulty_0.1": ("difficulty", 0.1),
    "difficulty_0.3": ("difficulty", 0.3),
    "permuted_0.1": ("permuted", 0.1),
    "permuted_0.3": ("permuted", 0.3),
    "minmax": ("minmax", 0.3),  # here alpha
}
SETTINGS: dict[str, Any] = {
    "scorer": "tf_mobilenetv2_100", "images": 20_000, "components": 256, "quantile": 0.95, "temperature": 0.7, "seeds": 30,
    "training": {"hidden": 64, "epochs": 15, "batch": 100, "lr": 0.05, "weight_decay": 1e-4},
}  # fmt: skip
METRICS = ("accuracy", "nll", "brier", "ece_mass", "aurc", "learnt")  # learnt: accuracy on the labels that trained


def bonus_of_kinds(hardness: Float[Tensor, " n"], seeds: int) -> Float[Tensor, "s v n"]:
    """Strength of the entropy bonus of each example by seed and kind of loss; permuted anew for each seed.

    Args:
        hardness: of the training examples with the labels that train.
        seeds: how many.
    """
    options = {"temperature": SETTINGS["temperature"]}
    clipped = as_tensor(difficulty.weights(hardness, normaliser="clipped", quantile=SETTINGS["quantile"], **options))
    share, minmax = clipped / clipped.mean(), as_tensor(difficulty.weights(hardness, **options))
    found = torch.zeros(seeds, len(KINDS), len(hardness), dtype=torch.float64)
    for seed in range(seeds):
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(hardness)))
        given = {"none": torch.zeros_like(share), "constant": torch.ones_like(share), "difficulty": share,
                 "permuted": share[order], "minmax": minmax}  # fmt: skip
        for k, (who, strength) in enumerate(KINDS.values()):
            found[seed, k] = strength * given[who]
    return found


def leading_components(
    train: Float[Tensor, "n d"], test: Float[Tensor, "m d"], count: int
) -> tuple[Float[Tensor, "n k"], Float[Tensor, "m k"]]:
    """Both sets along the leading principal directions of the first, whose coordinates have the mean variance 1."""
    mean = train.double().mean(0)
    centred = train.double() - mean
    values, axes = torch.linalg.eigh(centred.T @ centred / len(train))
    axes = axes[:, -count:] / values[-count:].mean().sqrt()
    return (centred @ axes).float(), ((test.double() - mean) @ axes).float()


def make_heads() -> Path:
    """Train every head and write what is kept of them.

    Raises:
        FileNotFoundError: if images, people's labels or weights are not here; the message says how to get them.
    """
    began, (whole, test) = time.monotonic(), (load_whole(split) for split in ("train", "test"))
    train = whole.select(first_rows(whole, SETTINGS["images"]))
    seen, asked = (scorer_features(SETTINGS["scorer"], each) for each in (train, test))
    x, new = leading_components(seen, asked, SETTINGS["components"])
    columns: dict[str, np.ndarray] = {}
    for kind in LABELS:
        labels = train.labels if kind == "clean" else noisy_labels(kind)[train.index]
        fit = difficulty.fit_gaussians(difficulty.moments(seen, labels, classes=10))
        hardness = as_tensor(difficulty.relative_mahalanobis(fit, seen, labels))
        bonus = bonus_of_kinds(hardness, SETTINGS["seeds"])
        heads = train_heads(x, labels, bonus, classes=10, **SETTINGS["training"])
        columns |= describe_heads(
            stacked_logits(heads, new), test.labels, stacked_logits(heads, x).argmax(-1), labels, kind
        )
    about: dict[str, Any] = {"rests_on": SETTINGS, "kinds": list(KINDS), "metrics": list(METRICS)}
    about |= {"seconds": round(time.monotonic() - began, 1), "environment": environment()}
    write_table(Path(PLACE), columns, {"about": json.dumps(about)})
    return Path(PLACE)


def describe_heads(
    logits: Float[Tensor, "s v n c"], labels: Any, learnt: Tensor, given: Any, kind: str
) -> dict[str, np.ndarray]:
    """What is kept of heads: how many seeds were right, an entry a loss and test image, and the metrics of each seed.

    Args:
        logits, labels: of the test images.
        learnt, given: predictions (s, v, m) and labels of the training images.
        kind: in LABELS.
    """
    right = logits.argmax(-1) == torch.as_tensor(np.asarray(labels))
    again = (learnt == torch.as_tensor(np.asarray(given))).double().mean(-1)
    table = np.empty((*logits.shape[:2], len(METRICS)))
    for seed in range(len(logits)):
        for k in range(logits.shape[1]):
            told = measure_answers(logits[seed, k], labels)
            told |= {"ece_mass": told["ece"], "learnt": again[seed, k].item()}
            table[seed, k] = [told[name] for name in METRICS]
    return {f"right/{kind}": to_small(right.sum(0).numpy()), f"metrics/{kind}": table}


@dataclass(frozen=True)
class KeptHeads:
    """What is kept of the heads of all seeds."""

    path: Path
    header: Header

    def column(self, name: str) -> np.ndarray:
        """right/KIND: (loss, test image), seeds that were right; metrics/KIND: (seed, loss, metric)."""
        return np.array(read_column(self.path, self.header, name))

    def scores(self, labels: str, *, draws: int, seed: int = 0) -> xr.DataArray:
        """Metrics of all seeds on the test images and on bootstrap draws of them, as `metrics.compare` gives them.

        In a draw the accuracies of a loss move together, by as much as the mean over its seeds does: what an interval over
        trainings and images asks for. The other metrics are not redrawn, so their intervals are over trainings alone.

        Args:
            labels: that trained, in LABELS.
            draws: of the test images, the same for all losses.
            seed: of the draws.
        """
        check_choice(labels, LABELS, "labels")
        right, table = self.column(f"right/{labels}"), self.column(f"metrics/{labels}")
        seeds, n = len(table), right.shape[1]
        cube = np.repeat(table.transpose(1, 2, 0)[..., None], 1 + draws, axis=-1)  # loss, metric, seed, draw
        drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=draws)  # how often each image is in
        cube[:, METRICS.index("accuracy"), :, 1:] += ((right @ drawn.T - right.sum(1)[:, None]) / (seeds * n))[:, None]
        names = {"variant": list(KINDS), "measure": list(METRICS), "training": range(seeds), "draw": range(1 + draws)}
        return xr.DataArray(cube, coords=names).assign_coords(examples=n)


def load_heads() -> KeptHeads:
    """What `make_heads` kept.

    Raises:
        FileNotFoundError: if it is not there; the message says what makes it.
        DamagedError: if it was made with other settings than these.
    """
    path, header = open_kept(PLACE, "uqlib heads")
    about = json.loads(header.metadata["about"])
    wanted = json.loads(json.dumps([SETTINGS, list(KINDS), list(METRICS)]))
    if [about.get(name) for name in ("rests_on", "kinds", "metrics")] != wanted:
        raise DamagedError(path, "it was made with other settings; remove it, and `uqlib heads` makes it anew")
    return KeptHeads(path, header)
