"""Linear classifiers on features: the head of a network, fitted in seconds while the backbone stands still.

The features are computed once, so a new data set costs one pass of the backbone; the fit is convex.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from uqlib.arrays import Array, Column, Table, as_tensor, check_finite, check_labels, like
from uqlib.splits import split


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
        classes: rows of the head; by default the largest label + 1.
        iterations: at most so many steps.
        tolerance: ends when no entry of the gradient is larger.

    Returns:
        Weights for the features as they were given, float32.

    Raises:
        ValueError: if features are not finite or not (n, d), labels do not fit, or l2 is negative.
    """
    if not l2 >= 0:
        raise ValueError(f"l2 must be 0 or larger; it is {l2}")
    x = _check_features(features)
    known = as_tensor(labels)
    y = check_labels(labels, classes or int(known.max()) + 1, rows=len(x)).to(x.device)
    mean, std = x.mean(0), x.std(0, correction=0)
    std = torch.where(std > 1e-6 * mean.abs() + 1e-12, std, 1.0)  # a constant feature says nothing, and gets no weight
    z = (x - mean) / std
    counts = torch.bincount(y, minlength=classes or int(known.max()) + 1)
    weight = torch.zeros(len(counts), x.shape[1], device=x.device, requires_grad=True)
    bias = (
        ((counts + 1) / (len(y) + len(counts))).log().requires_grad_()
    )  # where the optimum lies if the penalty is strong
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
    gradient = max(weight.grad.abs().max().item(), bias.grad.abs().max().item())
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
    **options,
) -> Head:
    """The head whose penalty has the lowest NLL on a part of these examples, fitted again on all of them.

    Args:
        features, labels, classes: as in `fit_head`.
        strengths: penalties to try.
        held_out: share of the examples that judge, the same of each class.
        seed: of that split.
        **options: as in `fit_head`.
    """
    x, y = _check_features(features), as_tensor(labels)
    classes = classes or int(y.max()) + 1
    judge, learn = split(len(x), held_out, seed=seed, labels=y)
    judge, learn = torch.from_numpy(judge).to(x.device), torch.from_numpy(learn).to(x.device)

    def nll(l2: float) -> float:
        head = fit_head(x[learn], y[learn.to(y.device)], l2=l2, classes=classes, **options)
        return F.cross_entropy(head_logits(head, x[judge]), y[judge.to(y.device)].to(x.device)).item()

    return fit_head(features, labels, l2=min(strengths, key=nll), classes=classes, **options)


def head_logits(head: Head, features: Table) -> Float[Array, "n c"]:
    """features @ weight.T + bias, float32.

    Raises:
        ValueError: if the features have another width than the head.
    """
    x = _check_features(features)
    weight, bias = (as_tensor(part).to(x.device) for part in (head.weight, head.bias))
    if x.shape[1] != weight.shape[1]:
        raise ValueError(f"the head takes features of width {weight.shape[1]}; these have {x.shape[1]}")
    return like(x @ weight.T + bias, features)


def install(model: nn.Module, head: Head) -> nn.Module:
    """The same model with this head as its classifier (timm's contract); its logits are then those of `head_logits`.

    Raises:
        ValueError: if the classifier takes features of another width.
    """
    weight, bias = as_tensor(head.weight), as_tensor(head.bias)
    if model.num_features != weight.shape[1] and getattr(model, "head_hidden_size", None) != weight.shape[1]:
        raise ValueError(f"the head takes features of width {weight.shape[1]}; the network has {model.num_features}")
    model.reset_classifier(len(weight))
    classifier = model.get_classifier()
    with torch.no_grad():
        classifier.weight.copy_(weight)
        classifier.bias.copy_(bias)
    return model


def _check_features(features: Table) -> Tensor:
    x = as_tensor(features)
    if x.ndim != 2 or not len(x):
        raise ValueError(f"features must have shape (n, d) with at least one row; it is {tuple(x.shape)}")
    check_finite(x, "features")
    return x.float()
