"""A linear probe by plain gradient steps, which can go on from where it stood: what a stream of classes teaches, and unteaches.

Logistic regression to its end is `networks.fit_head`; it does not depend on the order of the examples, and this does.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from uqlib.base.arrays import Column, Table, as_tensor, like
from uqlib.base.checks import check_features, check_labels, check_size
from uqlib.base.options import check_fraction, check_number, check_result, check_seed, check_whole
from uqlib.heads.generative import LinearHead

BATCH = 256  # examples a step
LARGEST = 1e15  # of a feature: float32 holds sums of its squares


def fit_probe(
    features: Table,
    labels: Column,
    *,
    classes: int,
    probe: LinearHead | None = None,
    rate: float,
    epochs: int = 4,
    smoothing: float = 0.1,
    l2: float = 0.0,
    own_classes: bool = False,
    seed: int,
) -> LinearHead:
    """A linear head after some passes of gradient descent on the cross-entropy, in float32.

    Args:
        features: (n, d).
        labels: (n,), classes in [0, classes).
        classes: how many.
        probe: to go on from, of this function; by default all is 0.
        rate: length of a step.
        epochs: passes, in steps of BATCH examples.
        smoothing: of the labels, in [0, 1).
        l2: of the weights, not the biases: l2 / 2 times the sum of their squares is added to the loss.
        own_classes: whether softmax and smoothing see the classes of the batch alone, so that no step pushes others down.
        seed: of the order.

    Raises:
        ValueError: if features, labels or probe do not fit, a number is out of range, or the steps are so long that weights
            overflow.

    Examples:
        >>> import torch
        >>> from uqlib.heads import fit_probe, log_posteriors
        >>> x, y = torch.tensor([[1.0, 0.5], [0.5, 1.0]]), torch.tensor([0, 1])
        >>> both = fit_probe(x, y, classes=2, rate=0.1, epochs=100, seed=0)
        >>> log_posteriors(both, x).argmax(1)
        tensor([0, 1])
        >>> other = fit_probe(x[1:], y[1:], classes=2, probe=both, rate=0.1, epochs=100, seed=0)
        >>> log_posteriors(other, x).argmax(1)  # the first class is forgotten
        tensor([1, 1])
    """
    checked = check_features(features)
    check_size(checked if checked.is_floating_point() else checked.double(), "features", LARGEST)
    x, classes = checked.float(), check_whole(classes, "classes", least=2)
    y = check_labels(labels, classes, rows=len(x)).to(x.device)
    rate, l2 = check_number(rate, "rate", above=0), check_number(l2, "l2", least=0)
    epochs = check_whole(epochs, "epochs", least=1)
    smoothing = check_fraction(smoothing, "smoothing", within="[0, 1)")
    weight, bias = _start(probe, classes, x)
    generator = torch.Generator().manual_seed(check_seed(seed))
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).to(x.device).split(BATCH):
            there = torch.ones(classes, dtype=x.dtype, device=x.device)
            if own_classes:
                there = torch.zeros_like(there).index_fill(0, y[rows], 1.0)
            logits = (x[rows] @ weight + bias).masked_fill(there == 0, -torch.inf)
            target = (1 - smoothing) * F.one_hot(y[rows], classes).to(x.dtype) + smoothing * there / there.sum()
            slope = (logits.softmax(-1) - target) / len(rows)
            weight, bias = weight - rate * (x[rows].T @ slope + l2 * weight), bias - rate * slope.sum(0)
    if not (weight.isfinite().all() and bias.isfinite().all()):
        raise ValueError(
            f"weights overflow with steps of {rate:g} on features as large as {x.abs().max():g}; take a smaller rate"
        )
    return LinearHead(like(weight.T, features), like(bias, features))


def _start(probe: LinearHead | None, classes: int, x: Float[Tensor, "n d"]) -> tuple[Tensor, Tensor]:
    """Weights (d, c) and biases to go on from."""
    if probe is None:
        return x.new_zeros(x.shape[1], classes), x.new_zeros(classes)
    check_result(probe, LinearHead, "probe", "fit_probe(features, labels, ...)")
    weight, bias = (as_tensor(part).to(x) for part in probe)
    if weight.shape != (classes, x.shape[1]) or bias.shape != (classes,):
        raise ValueError(
            f"probe must be of {classes} classes and {x.shape[1]} features; its weight is of {tuple(weight.shape)}, its bias of "
            f"{tuple(bias.shape)}"
        )
    return weight.T, bias
