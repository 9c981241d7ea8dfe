"""Discrete Key-Value Bottleneck, Träuble et al. 2023: the toy of its second figure, as the authors' notebook sets it up.

Eight clusters in the unit square are learnt two at a time, each pair with a thousand Adam steps on all of its points.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from uqlib.heads import KeyBook, fetch_counts, key_codes

CENTRES = (
    (0.25, 0.25), (0.75, 0.5), (0.75, 0.25), (0.5, 0.75), (0.75, 0.75), (0.25, 0.5), (0.25, 0.75), (0.5, 0.25),
)  # of classes 0 to 7; a task has two of them  # fmt: skip
SPREAD = 0.035  # standard deviation of a cluster
PER_CLASS = 50  # points


class ToyModel(NamedTuple):
    """One model of the toy, as many copies s of it as there are seeds: linear in its inputs, or with a hidden layer."""

    train: Float[Tensor, "s n d"]  # its inputs
    test: Sequence[Float[Tensor, "s m d"]]  # after each task; keys that are fetched by then are more
    rate: float = 1e-3
    hidden: int = 0
    coded: bool = False  # a bottleneck: without biases, and near 0 at first


def toy_points(seed: int) -> Float[Tensor, "n 2"]:
    """Points of all eight clusters, class after class."""
    noise = torch.randn(8, PER_CLASS, 2, generator=torch.Generator().manual_seed(seed))
    return (torch.tensor(CENTRES)[:, None] + SPREAD * noise).reshape(-1, 2)


def toy_labels() -> Int[Tensor, " n"]:
    """The classes of `toy_points`; task t has the classes 2t and 2t + 1."""
    return torch.arange(8).repeat_interleave(PER_CLASS)


def toy_coded(books: Sequence[KeyBook], train: Tensor, test: Tensor, *, rate: float = 1e-3) -> ToyModel:
    """A bottleneck as a model that is linear in its one-hot codes.

    Args:
        books: one a seed.
        train, test: (s, n, 2) and (s, m, 2) points.
        rate: of Adam.
    """
    task, parts = toy_labels() // 2, []
    keys = books[0].keys.shape[1]
    for book, seen, asked in zip(books, train, test, strict=True):
        codes = torch.as_tensor(key_codes(seen, book))
        known = [torch.as_tensor(fetch_counts(codes[task <= t], keys=keys)) for t in range(4)]
        parts.append([codes, *(torch.as_tensor(key_codes(asked, book, counts=each)) for each in known)])
    first, *others = (torch.stack(each) for each in zip(*parts, strict=True))
    fetched = F.one_hot(first, keys).flatten(2).amax((0, 1)) > 0  # no other value is ever changed or asked for

    def one_hot(codes: Int[Tensor, "s n c"]) -> Float[Tensor, "s n d"]:
        return F.one_hot(codes, keys).flatten(2)[..., fetched].float() / codes.shape[2]

    return ToyModel(one_hot(first), [one_hot(each) for each in others], rate, coded=True)


def toy_streams(models: Mapping[str, ToyModel], *, steps: int, seed: int) -> dict[str, list[Int[Tensor, "s m"]]]:
    """What each model says of its test inputs after each of the four tasks; all are trained side by side.

    Args:
        models: by name.
        steps: a task.
        seed: of the first weights.
    """
    generator = torch.Generator().manual_seed(seed)
    weights: dict[str, list[Tensor]] = {}
    for name, model in models.items():
        copies, _, width = model.train.shape
        sizes = [width, *([model.hidden] if model.hidden else []), 8]
        weights[name] = []
        for one, other in pairwise(sizes):  # a bottleneck starts near 0, others as torch has it
            start = torch.rand(copies, one + (not model.coded), other, generator=generator) * 2 - 1
            weights[name].append(start * (1e-3 if model.coded else one**-0.5))
    labels = toy_labels()
    said: dict[str, list[Tensor]] = {name: [] for name in models}
    for t in range(4):
        rows = labels // 2 == t
        target = F.one_hot(labels[rows], 8).float()
        adam = torch.optim.Adam([{"params": weights[name], "lr": each.rate} for name, each in models.items()])
        seen = {name: each.train[:, rows] for name, each in models.items()}
        for _ in range(steps):
            for name, each in models.items():
                _descend(seen[name], target, weights[name], each.coded)
            adam.step()
        for name, each in models.items():
            said[name].append(_scores(each.test[t], weights[name], each.coded)[-1].argmax(-1))
    return said


def _scores(inputs: Tensor, weights: Sequence[Tensor], coded: bool) -> list[Tensor]:
    """The inputs of each layer, with a 1 for its bias, and the logits."""
    layers = []
    for k, each in enumerate(weights):
        inputs = inputs.relu() if k else inputs
        layers.append(inputs if coded else F.pad(inputs, (0, 1), value=1.0))
        inputs = layers[-1] @ each
    return [*layers, inputs]


def _descend(inputs: Tensor, target: Tensor, weights: Sequence[Tensor], coded: bool) -> None:
    """Set the gradients of the cross-entropy, by hand: autograd would take most of the time of models so small."""
    *layers, logits = _scores(inputs, weights, coded)
    slope = (logits.softmax(-1) - target) / len(target)
    for k in reversed(range(len(weights))):
        weights[k].grad = layers[k].transpose(1, 2) @ slope
        if k:
            slope = (slope @ weights[k].transpose(1, 2) * (layers[k] > 0))[..., :-1]
