"""Leading components of what a network sees in CIFAR, kept: a byte each, so that heads can be trained where no images are.

The axes are those of images of CIFAR-100, so that nothing of CIFAR-10 is used before a head learns from it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uqlib.base.options import check_choice
from uqlib.experiments.keeping.kept_runs import Found, KeptRun, load_made
from uqlib.experiments.short.frozen_features import SEEN, encoder_features, seen_images

KEPT: dict[str, Any] = {
    "encoder": "tf_mobilenet_edgetpu_100",
    "components": 64,
    "sets": {"cifar10_train": 20_000, "cifar10_test": 5_000, "cifar100_test": 4_000},  # the first rows of SEEN
    "axes": "cifar100_test",  # the set whose components these are
    "reach": 5.0,  # standard deviations of each component that a byte spans on either side
}


@dataclass(frozen=True)
class Seen:
    """What the encoder sees in the images of a set."""

    features: Tensor  # (n, 64), float32
    labels: Tensor  # (n,)
    index: np.ndarray  # row of each image in its official split


def keep_components(device: str = "cpu") -> Found:
    """Project the features of every set onto the leading components of one of them, and round them to bytes."""
    sets = {name: encoder_features(KEPT["encoder"], name) for name in KEPT["sets"]}
    base = sets[KEPT["axes"]][0].double()
    mean = base.mean(0)
    values, axes = torch.linalg.eigh((base - mean).T @ (base - mean) / len(base))
    values, axes = values[-KEPT["components"] :].flip(0), axes[:, -KEPT["components"] :].flip(1)
    step = values.sqrt() * KEPT["reach"] / 127
    columns: dict[str, np.ndarray] = {"step": step.float().numpy()}
    for name, (features, labels) in sets.items():
        rows = slice(KEPT["sets"][name])
        codes = (((features[rows].double() - mean) @ axes) / step).round().clamp(-127, 127)
        columns |= {
            name: (codes + 128).to(torch.uint8).numpy(),
            f"{name}_labels": labels[rows].to(torch.uint8).numpy(),
            f"{name}_index": np.asarray(seen_images(name).index[rows], np.int32),
        }
    spread = (base - mean).square().sum().item() / len(base)
    return Found(columns, {"share_of_variance": (values.sum() / spread).item(), "tested": 0})


def components_runs(scale: str = "cpu") -> Iterator[KeptRun]:
    """The one run: there is one encoder, and it is asked once."""
    settings = {**KEPT, "seen": {name: SEEN[name] for name in KEPT["sets"]}}
    yield KeptRun("components", f"{KEPT['encoder']}/0", settings, keep_components, value=20.0, folder="short")


def load_components(name: str) -> Seen:
    """What the encoder sees in the images of a set.

    Args:
        name: cifar10_train, cifar10_test or cifar100_test.

    Raises:
        FileNotFoundError: if the file is not there; the message says what makes it.
    """
    check_choice(name, KEPT["sets"], "set of images")
    run = next(iter(components_runs()))
    kept = load_made([run])
    codes, step = (torch.from_numpy(kept.column(run.name, each)) for each in (name, "step"))
    labels = torch.from_numpy(kept.column(run.name, f"{name}_labels")).long()
    return Seen((codes.float() - 128) * step, labels, kept.column(run.name, f"{name}_index"))
