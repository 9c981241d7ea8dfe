"""Many small networks at once: heads of one hidden layer on frozen features, whose products are stacked into one.

    heads = train_heads(features, labels, bonus, classes=10, hidden=64, epochs=10, batch=100, lr=0.05)
    logits = stacked_logits(heads, others)  # (s, v, n, c): seed, variant, example, class

The heads of a seed share their initial weights and the order of the examples, so their differences are paired; what tells
them apart is how much each example is rewarded for entropy. Each head ends as it would if it were trained alone.

    found = train_each(features, labels, losses.loss("gce"), Recipe(128, 12), seeds=range(5), rates=[0.03] * 5, classes=10, held=held)
    logits = each_logits(found.last, others)  # (s, n, c)

Here every head has examples, labels and a learning rate of its own, and all have one loss.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uqlib.base.arrays import Column, Table, as_tensor
from uqlib.base.checks import check_labels
from uqlib.base.options import check_number, check_seed, check_whole
from uqlib.losses.criterion import Criterion


class Heads(NamedTuple):
    """Weights of s seeds times v variants: logits = relu(x @ first + shift) @ second + offset."""

    first: Float[Tensor, "s d vh"]  # the hidden units of all variants of a seed side by side
    shift: Float[Tensor, "s 1 vh"]
    second: Float[Tensor, "s v h c"]
    offset: Float[Tensor, "s v 1 c"]


def first_heads(seeds: int, variants: int, sizes: tuple[int, int, int], dtype: torch.dtype = torch.float32) -> Heads:
    """Heads before training, those of a seed alike: uniform within one over the root of what goes in, as `nn.Linear` has it.

    Args:
        seeds: how many, from 0.
        variants: how many of each.
        sizes: features, hidden units, classes.
    """
    features, hidden, classes = sizes
    drawn = []
    for seed in range(seeds):
        generator = torch.Generator().manual_seed(seed)
        shapes = ((features, hidden), (1, hidden), (hidden, classes), (1, classes))
        ends = (features, features, hidden, hidden)
        drawn.append(
            [(2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1) / math.sqrt(end)
             for shape, end in zip(shapes, ends, strict=True)]
        )  # fmt: skip
    first, shift, second, offset = (torch.stack(part).to(dtype) for part in zip(*drawn, strict=True))
    wide = (each.repeat(1, 1, variants) for each in (first, shift))
    deep = (each[:, None].repeat(1, variants, 1, 1) for each in (second, offset))
    return Heads(*wide, *deep)


def orders_of_epoch(seeds: int, epoch: int, examples: int) -> Int[Tensor, "s n"]:
    """The order of the examples in an epoch, counted from 0, a row a seed."""
    generators = (torch.Generator().manual_seed(1_000_003 * (seed + 1) + epoch) for seed in range(seeds))
    return torch.stack([torch.randperm(examples, generator=generator) for generator in generators])


def train_heads(
    features: Table,
    labels: Column,
    bonus: Float[Tensor, "s v n"],
    *,
    classes: int,
    hidden: int,
    epochs: int,
    batch: int,
    lr: float,
    weight_decay: float = 0.0,
) -> Heads:
    """Train a head for each seed and variant by cross entropy less a bonus times the entropy of the prediction, in nats.

    SGD with momentum 0.9, the rate falling to 0 by a cosine. Time is that of two products (n, d) x (d, v h) a seed and epoch.

    Args:
        features: (n, d), the same for all heads.
        labels: (n,), in [0, classes).
        bonus: of each example, by seed and variant; 0 is cross entropy.
        classes, hidden, epochs, batch: how many; the last batch of an epoch may be smaller.
        lr: at the beginning.
        weight_decay: as of `torch.optim.SGD`, of all weights.

    Returns:
        On the device and in the precision of the features.

    Raises:
        ValueError: if the numbers of rows differ, or an option is out of range.
    """
    x = as_tensor(features, "features")
    strength = as_tensor(bonus, "bonus").to(x.device, x.dtype)
    y = check_labels(labels, classes, len(x)).to(x.device)
    seeds, variants, n = strength.shape
    if n != len(x):
        raise ValueError(f"bonus must have an entry an example, (s, v, {len(x)}); it is {tuple(strength.shape)}")
    epochs, batch = check_whole(epochs, "epochs", least=1), check_whole(batch, "batch", least=1)
    check_number(lr, "lr", above=0)
    sizes = (x.shape[1], check_whole(hidden, "hidden", least=1), classes)
    heads = Heads(*(part.to(x.device).requires_grad_() for part in first_heads(seeds, variants, sizes, x.dtype)))
    optimizer = torch.optim.SGD(heads, lr=lr, momentum=0.9, weight_decay=weight_decay)
    steps, step = epochs * math.ceil(n / batch), 0
    for epoch in range(epochs):
        for rows in orders_of_epoch(seeds, epoch, n).to(x.device).split(batch, dim=1):
            optimizer.param_groups[0]["lr"] = lr * (1 + math.cos(math.pi * step / steps)) / 2
            own = strength.gather(2, rows[:, None].expand(-1, variants, -1))
            log_p = _logits(heads, x[rows]).log_softmax(-1)
            nll = -log_p.gather(-1, y[rows][:, None, :, None].expand(-1, variants, -1, -1))[..., 0]
            entropy = -(log_p.exp() * log_p).sum(-1)
            optimizer.zero_grad()
            (nll - own * entropy).mean(-1).sum().backward()
            optimizer.step()
            step += 1
    return Heads(*(part.detach() for part in heads))


@torch.no_grad()
def stacked_logits(heads: Heads, features: Table, *, batch: int = 1000) -> Float[Tensor, "s v n c"]:
    """What every head says of every example."""
    x = as_tensor(features, "features")
    parts = (_logits(heads, part.expand(len(heads.first), -1, -1)) for part in x.split(batch))
    return torch.cat(list(parts), dim=2)


def _logits(heads: Heads, x: Float[Tensor, "s n d"]) -> Float[Tensor, "s v n c"]:
    variants = heads.second.shape[1]
    inner = torch.baddbmm(heads.shift, x, heads.first).relu().unflatten(-1, (variants, -1))
    return inner.transpose(1, 2) @ heads.second + heads.offset


class Recipe(NamedTuple):
    """How heads with examples of their own are trained: SGD as torch has it."""

    hidden: int  # units
    epochs: int
    batch: int = 128
    momentum: float = 0.9
    weight_decay: float = 0.0


class Each(NamedTuple):
    """Weights of s heads: logits = relu(x @ first + shift) @ second + offset."""

    first: Float[Tensor, "s d h"]
    shift: Float[Tensor, "s 1 h"]
    second: Float[Tensor, "s h c"]
    offset: Float[Tensor, "s 1 c"]


class TrainedEach(NamedTuple):
    """Heads after the last epoch and after the best one, and their accuracies then on the held-out labels."""

    last: Each
    best: Each
    held: Float[Tensor, " s"]
    held_best: Float[Tensor, " s"]


def train_each(
    features: Float[Tensor, "s n d"],
    labels: Int[Tensor, "s n"],
    criterion: Criterion,
    recipe: Recipe,
    *,
    seeds: Sequence[int],
    rates: Sequence[float],
    classes: int,
    held: tuple[Float[Tensor, "s m d"], Int[Tensor, "s m"]],
    weights: Float[Tensor, "s n"] | None = None,
) -> TrainedEach:
    """Train a head a seed on examples of its own by SGD with momentum, at a rate of its own that falls to 0 by a cosine.

    Heads with the same seed have the same first weights and the same order, whatever else differs. A loss that remembers
    examples sees those of head k as the rows k n to (k + 1) n. Time is that of the products of all heads, one after the other.

    Args:
        features: the examples of each head.
        labels: theirs, in [0, classes).
        criterion: of `uqlib.losses`; it is told all labels first.
        recipe: the last examples of an epoch that fill no batch are left out of it.
        seeds: a head each, of its weights and the order of its examples.
        rates: a learning rate a head, at the beginning.
        classes: how many.
        held: examples and labels that choose the best epoch; none of them is learnt from.
        weights: of the examples, whose terms are averaged by them within each head; by default all count alike.

    Raises:
        ValueError: if sizes differ, labels lie outside, or an option is out of range.
    """
    heads, n, d = features.shape
    labels = check_labels(labels.flatten(), classes, heads * n).view(heads, n)
    if not len(seeds) == len(rates) == heads or any(len(part) != heads for part in held):
        raise ValueError(
            f"seeds, rates and held must have an entry a head, {heads}; they have {len(seeds)}, {len(rates)} and "
            f"{' and '.join(str(len(part)) for part in held)}"
        )
    epochs, hidden = check_whole(recipe.epochs, "epochs", least=1), check_whole(recipe.hidden, "hidden", least=1)
    batch = check_whole(recipe.batch, "batch", least=1, most=n)
    draws = [torch.Generator().manual_seed(check_seed(seed)) for seed in seeds]
    shapes = ((d, hidden), d), ((1, hidden), d), ((hidden, classes), hidden), ((1, classes), hidden)
    now = [
        torch.stack([2 * torch.rand(shape, generator=g) - 1 for g in draws]) / math.sqrt(fan) for shape, fan in shapes
    ]
    speeds, kept = [torch.zeros_like(each) for each in now], [each.clone() for each in now]
    own, best = torch.arange(heads)[:, None], torch.full((heads,), -1.0)
    criterion.begin(labels.flatten())
    steps, done = n // batch * epochs, 0
    for _ in range(epochs):
        order = torch.stack([torch.randperm(n, generator=g) for g in draws])
        for rows in order.split(batch, 1)[: n // batch]:
            now = [each.detach().requires_grad_() for each in now]
            asked = each_logits(Each(*now), features[own, rows]).flatten(0, 1), labels[own, rows].flatten()
            places = (n * own + rows).flatten()
            if weights is None:
                value = heads * criterion(*asked, places)  # the gradient of each head's own mean
            else:
                part = weights[own, rows]
                value = ((criterion.terms(*asked, places).view(heads, -1) * part).sum(1) / part.sum(1)).sum()
            slopes = torch.autograd.grad(value, now)
            rate = torch.tensor(rates)[:, None, None] * (1 + math.cos(math.pi * done / steps)) / 2
            done += 1
            with torch.no_grad():
                for each, speed, slope in zip(now, speeds, slopes, strict=True):
                    speed.mul_(recipe.momentum).add_(slope + recipe.weight_decay * each)
                    each.sub_(rate * speed)
        with torch.no_grad():
            right = (each_logits(Each(*now), held[0]).argmax(-1) == held[1]).float().mean(1)
            kept = [torch.where((right > best)[:, None, None], new, old) for new, old in zip(now, kept, strict=True)]
            best = torch.maximum(best, right)
    return TrainedEach(Each(*(each.detach() for each in now)), Each(*kept), right, best)


def each_logits(heads: Each, features: Tensor) -> Float[Tensor, "s n c"]:
    """What each head says of examples of its own, (s, n, d), or of the same for all, (n, d)."""
    x = features.expand(len(heads.first), *features.shape[-2:])
    return torch.baddbmm(heads.offset, torch.baddbmm(heads.shift, x, heads.first).relu(), heads.second)
