"""A small network on top of a frozen one, that says how uncertain it is: one positive number an image."""

import json
import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from uqlib.base.arrays import Array, Table, like
from uqlib.base.checks import check_features
from uqlib.base.options import check_seed, check_whole
from uqlib.files.columns import read_column, read_header, write_table

LEAST = 1e-6  # of an uncertainty
FORMAT = "uncertainty head 1"


class UncertaintyHead(nn.Module):
    """u(e) = 1e-6 + softplus of a multilayer perceptron with leaky ReLUs, of the features e before the classifier.

    Args:
        features: width of the features.
        width: of the hidden layers; 512 in the source.
        layers: how many of them; 2 in the source.
        seed: of the initial weights, torch's default for linear layers; the global generator is left alone.

    Raises:
        ValueError: if a number is below 1.

    Source:
        Kirchhof et al. 2024 (arXiv:2402.16569) and its released code.
    """

    def __init__(self, features: int, *, width: int = 512, layers: int = 2, seed: int = 0):
        super().__init__()
        self.features = check_whole(features, "features", least=1)
        width, layers = check_whole(width, "width", least=1), check_whole(layers, "layers", least=1)
        sizes = [self.features] + [width] * layers + [1]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(check_seed(seed))
            self.layers = nn.ModuleList(nn.Linear(*ends, dtype=torch.float32) for ends in pairwise(sizes))

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
        x = features
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x))
        return LEAST + F.softplus(self.layers[-1](x)[:, 0])


@torch.no_grad()
def uncertainty_of(head: UncertaintyHead, features: Table, *, batch: int = 8192) -> Float[Array, " n"]:
    """What the head says of features, in float32, `batch` rows at a time.

    Args:
        head: on any device, where the features are brought.
        features: (n, d), of the backbone that the head was trained on.
        batch: rows at a time.

    Raises:
        ValueError: if they are not finite, or not as wide as those of the backbone that the head was trained on, or so large
            that float32 overflows.

    Examples:
        >>> from uqlib.uncertainty import UncertaintyHead, uncertainty_of
        >>> uncertainty_of(UncertaintyHead(2), [[1.0, 0.0], [0.0, 1.0]]).shape
        (2,)
    """
    x = check_features(features, width=head.features)
    device = next(head.parameters()).device
    parts = [head(part.to(device, torch.float32)) for part in x.split(check_whole(batch, "batch", least=1))]
    found = torch.cat(parts).to(x.device)
    if not found.isfinite().all():
        row = int((~found.isfinite()).nonzero()[0])
        raise ValueError(
            f"the head must give finite numbers; of row {row}, whose features reach {x[row].abs().max().item():.6g} in size, it "
            f"gives {found[row].item()}. Features of another unit than those it was trained on? Weights that diverged?"
        )
    return like(found, features)


def save_head(path: str | os.PathLike, head: UncertaintyHead, card: Mapping[str, Any]) -> None:
    """Write a head in half precision, with its card: what it was trained on, and what was measured.

    A safetensors file in which every byte is accounted for; 1280 features and width 128 take 0.36 MB.

    Args:
        path: NAME.safetensors.
        head: what is kept.
        card: plain values by name; `backbone` and `weights` (its fingerprint) say which network the features are of.

    Raises:
        ValueError: if a weight is beyond half precision, or the card does not name the backbone.
    """
    if missing := {"backbone", "weights"} - set(card):
        raise ValueError(f"card must say which network the features are of; it lacks {', '.join(sorted(missing))}")
    columns = {name: tensor.half().cpu().numpy() for name, tensor in head.state_dict().items()}
    for name, array in columns.items():
        if not np.isfinite(array).all():
            raise ValueError(f"{name} of the head is beyond half precision (65504), or not finite")
    write_table(path, columns, {"format": FORMAT, "card": json.dumps(dict(card))})


def load_head(path: str | os.PathLike) -> tuple[UncertaintyHead, dict[str, Any]]:
    """A head and its card, in eval mode.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds no head.
        DamagedError: if a byte differs from what was written.
    """
    header = read_header(path)
    if header.metadata.get("format") != FORMAT:
        raise ValueError(
            f"{os.fspath(path)} is no file of `save_head`: its format is {header.metadata.get('format')!r}"
        )
    state = {
        name: torch.from_numpy(read_column(Path(path), header, name).astype(np.float32)) for name in header.columns
    }
    weights = [state[f"layers.{k}.weight"] for k in range(len(state) // 2)]
    head = UncertaintyHead(weights[0].shape[1], width=len(weights[0]), layers=len(weights) - 1)
    head.load_state_dict(state, strict=True)
    return head.eval(), json.loads(header.metadata["card"])


def card_text(card: Mapping[str, Any]) -> str:
    """The card of a head as Markdown, for people: what it is of, what it learnt from, what was measured, what it is not for.

    Args:
        card: as `load_head` gives it.

    Examples:
        >>> from uqlib.uncertainty import card_text
        >>> print(card_text({"backbone": "resnet50", "weights": "2d6697ff" * 8}).splitlines()[0])
        # An uncertainty for resnet50
    """
    measured = "".join(f"| {name} | {value:.3f} |\n" for name, value in card.get("r_auroc", {}).items())
    learnt = f"- **Learnt from** {card['learnt_from']}.\n" if "learnt_from" in card else ""
    learnt += f"- **Objective**: {card['objective']}.\n" if "objective" in card else ""
    size = f"- **Images** are prepared at {card['size']} pixels a side.\n" if "size" in card else ""
    table = f"\n| images of | R-AUROC |\n| --- | --- |\n{measured}" if measured else ""
    return (
        f"# An uncertainty for {card['backbone']}\n\n- **Backbone** {card['backbone']}, fingerprint of its weights {card['weights'][:16]}...\n"
        f"{size}{learnt}- **Not for** telling images of unknown kinds: it says which image is hard, not which is foreign. Its numbers have an order\n"
        f'  and no unit.\n\n```python\nmodel = uqlib.load_uncertainty("{card["backbone"]}")\nmodel.ask(images).uncertainty\n```\n{table}'
    )
