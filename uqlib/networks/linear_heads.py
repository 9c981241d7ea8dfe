"""Linear classifiers on features: the head of a network, fitted in seconds while the backbone stands still.

The features are computed once, so a new data set costs one pass of the backbone; the fit is convex.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from uqlib.base.arrays import Array, Column, Table, as_tensor, like
from uqlib.base.checks import check_features, check_labels, check_size
from uqlib.base.options import check_fraction, check_number, check_result, check_strengths, check_whole
from uqlib.base.splits import split

LARGEST = 1e15  # of a feature: float32 holds sums of its squares


class Head(NamedTuple):
    """logits = features @ weight.T + bias, and how the fit ended."""

    weight: Float[Array, "c d"]
    bias: Float[Array, " c"]
    l2: float
    loss: float  # what was minimised: mean NLL in nats, and the penalty
    gradient: float  # largest entry of its gradient, in standardised features


def fit_head(
    features: Table,
    labels: Column,
    *,
    l2: float = 1e-3,
    classes: int | None = None,
    iterations: int = 200,
    tolerance: float = 1e-5,
) -> Head:
    """Multinomial logistic regression with a quadratic penalty, on the device of the features.

    Minimises NLL + l2 / 2 * sum of squared weights, where the weights belong to features of mean 0 and standard
    deviation 1 (taken over these examples); the biases are free. Convex; L-BFGS with strong Wolfe line search. A step
    costs two products (n, d) x (d, c), and memory is that of the features once more.

    Args:
        features: (n, d).
        labels: (n,), classes in [0, classes).
        l2: strength of the penalty; 0 is allowed where the classes overlap.
        classes: rows of the head, at least 2; by default the largest label + 1.
        iterations: at most so many steps.
        tolerance: ends when no entry of the gradient is larger.

    Returns:
        Weights for the features as they were given, float32.

    Raises:
        ValueError: if features are not finite, too large or not (n, d), labels do not fit, or a number is out of range.
    """
    l2, tolerance = check_number(l2, "l2", least=0), check_number(tolerance, "tolerance", least=0)
    iterations = check_whole(iterations, "iterations", least=1)
    x = _check_features(features)
    y, classes = _check_labels(labels, classes, len(x))
    y = y.to(x.device)
    mean, std = x.mean(0), x.std(0, correction=0)
    std = torch.where(std > 1e-6 * mean.abs(), std, 1.0)  # a constant feature says nothing, and gets no weight
    z = (x - mean) / std
    counts = torch.bincount(y, minlength=classes)
    weight = torch.zeros(classes, x.shape[1], dtype=x.dtype, device=x.device, requires_grad=True)
    # where the optimum lies if the penalty is strong
    bias = ((counts.to(x.dtype) + 1) / (len(y) + classes)).log().requires_grad_()
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=iterations,
        max_eval=2 * iterations,
        tolerance_grad=tolerance,
        tolerance_change=0,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(z @ weight.T + bias, y) + l2 / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
        value = loss().item()
    gradient = max(part.grad.abs().max().item() for part in (weight, bias) if part.grad is not None)
    scaled = weight.detach() / std
    return Head(like(scaled, features), like(bias.detach() - scaled @ mean, features), l2, value, gradient)


def choose_head(
    features: Table,
    labels: Column,
    *,
    strengths: Sequence[float] = (1e-4, 1e-3, 1e-2, 1e-1),
    held_out: float = 0.1,
    seed: int = 0,
    classes: int | None = None,
    **options: Any,
) -> Head:
    """The head whose penalty has the lowest NLL on a part of these examples, fitted again on all of them.

    Args:
        features, labels, classes: as in `fit_head`.
        strengths: penalties to try.
        held_out: share of the examples that judge, the same of each class.
        seed: of that split.
        **options: as in `fit_head`.

    Raises:
        ValueError: if there is nothing to try, nothing left to judge or to learn from, and as `fit_head`.
    """
    x = _check_features(features)
    y, classes = _check_labels(labels, classes, len(x))
    strengths = check_strengths(strengths)
    held, rest = split(len(x), check_fraction(held_out, "held_out", within="(0, 1)"), seed=seed, labels=y)
    if not len(held) or not len(rest):
        raise ValueError(
            f"held_out must leave examples to judge and to learn from; {held_out} of {len(x)} is {len(held)} and leaves "
            f"{len(rest)}. Pass 0.5, or more examples."
        )
    judge, learn = torch.from_numpy(held).to(x.device), torch.from_numpy(rest).to(x.device)

    def nll(l2: float) -> float:
        head = fit_head(x[learn], y[learn.to(y.device)], l2=l2, classes=classes, **options)
        return F.cross_entropy(as_tensor(head_logits(head, x[judge])), y[judge.to(y.device)].to(x.device)).item()

    return fit_head(features, labels, l2=min(strengths, key=nll), classes=classes, **options)


def head_logits(head: Head, features: Table) -> Float[Array, "n c"]:
    """features @ weight.T + bias, float32.

    Raises:
        ValueError: if the features have another width than the head.
    """
    check_result(head, Head, "head", "fit_head")
    x = _check_features(features)
    weight, bias = (as_tensor(part).to(x) for part in (head.weight, head.bias))
    if x.shape[1] != weight.shape[1]:
        raise ValueError(f"the head takes features of width {weight.shape[1]}; these have {x.shape[1]}")
    return like(x @ weight.T + bias, features)


def install(model: nn.Module, head: Head) -> nn.Module:
    """The same model with this head as its classifier (timm's contract); its logits are then those of `head_logits`.

    Raises:
        ValueError: if the classifier takes features of another width.
        TypeError: if the model has no classifier that timm knows how to change.
    """
    check_result(head, Head, "head", "fit_head")
    if not all(hasattr(model, name) for name in ("num_features", "reset_classifier", "get_classifier")):
        raise TypeError(f"model must be a network with timm's reset_classifier; it is a {type(model).__name__}")
    weight, bias = as_tensor(head.weight), as_tensor(head.bias)
    if model.num_features != weight.shape[1] and getattr(model, "head_hidden_size", None) != weight.shape[1]:
        raise ValueError(f"the head takes features of width {weight.shape[1]}; the network has {model.num_features}")
    network: Any = model  # with the methods that were looked for above, which nn.Module does not declare
    network.reset_classifier(len(weight))
    classifier = network.get_classifier()
    with torch.no_grad():
        classifier.weight.copy_(weight)
        classifier.bias.copy_(bias)
    return model


def _check_features(features: Table) -> Tensor:
    x = check_features(features)
    x = x if x.is_floating_point() else x.double()
    check_size(x, "features", LARGEST)
    return x.float()


def _check_labels(labels: Column, classes: int | None, rows: int) -> tuple[Tensor, int]:
    """Class indices, and how many classes there are."""
    classes = None if classes is None else check_whole(classes, "classes", least=2)
    y = check_labels(labels, classes, rows=rows)
    found = int(y.max()) + 1
    if classes is None and found < 2:
        raise ValueError("labels must hold two classes or more; all are 0. Other classes exist? Pass classes=.")
    return y, classes or found
