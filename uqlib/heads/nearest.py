"""Votes of the nearest examples, as logits: a classifier that learns nothing and keeps everything."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from uqlib.base.arrays import Array, Column, Table, by_rows, like
from uqlib.base.checks import check_features, check_labels, check_size
from uqlib.base.options import check_number, check_whole

BLOCK = 2**25  # distances at a time
CHUNK = 2**22  # numbers of the examples that are float64 at a time


def neighbour_logits(
    features: Table, labels: Column, asked: Table, *, classes: int, k: int = 5, smoothing: float = 0.1
) -> Float[Array, "m c"]:
    """Logarithm of the share of each class among the k nearest examples, smoothed so that none is 0.

    Distances are Euclidean; features of length 1 make them those of angles. Examples that are equally far in k-th place
    share what votes are left, so the order of the rows never matters. Time m n d, memory m c and a block of distances.

    Args:
        features, labels: (n, d) and (n,), the examples that vote; classes in [0, classes).
        asked: (m, d).
        classes: how many there are.
        k: how many vote, at most n.
        smoothing: votes that every class has beforehand, above 0.

    Raises:
        ValueError: if features are not finite or of two widths, labels do not fit, or a number is out of range.

    Examples:
        >>> import numpy as np
        >>> from uqlib.heads import neighbour_logits
        >>> logits = neighbour_logits([[0.0], [1.0], [9.0]], [0, 0, 1], [[0.4]], classes=2, k=3, smoothing=1.0)
        >>> np.exp(logits)
        array([[0.6, 0.4]])
    """
    x = _finite_floats(features, "features")
    classes = check_whole(classes, "classes", least=1)
    y = check_labels(labels, classes, rows=len(x), device=x.device)
    q = _finite_floats(asked, "asked", width=x.shape[1]).to(x.device)
    k = check_whole(k, "k", least=1, most=len(x))
    smoothing = check_number(smoothing, "smoothing", above=0)
    votes = F.one_hot(y, classes).double()
    counted = torch.cat([_votes(rows, x, votes, k) for rows in q.split(max(1, BLOCK // len(x)))])
    return like(((counted + smoothing) / (k + smoothing * classes)).log(), features)


def _votes(
    q: Float[Tensor, "b d"], x: Float[Tensor, "n d"], votes: Float[Tensor, "n c"], k: int
) -> Float[Tensor, "b c"]:
    """Votes for each class; those at the distance of the k-th share what the nearer ones leave."""
    far, size = _distances(q, x)
    least, where = far.topk(min(k + 1, len(x)), dim=1, largest=False)
    counted = votes[where[:, :k]].sum(1)
    if k == len(x):
        return counted
    unit = (x.shape[1] + 8) * torch.finfo(torch.float64).eps  # of a sum of d products
    # |x|^2 is at most 2 |q|^2 + 2 distance^2, and so is the rounding of a distance known by what is compared
    bound = (least[:, k - 1] * (1 + 2 * unit) + 10 * unit * size) / (1 - 2 * unit)
    for row in (least[:, k] <= bound).nonzero()[:, 0].tolist():
        near = (far[row] <= bound[row]).nonzero()[:, 0]
        counted[row] = _shared(q[row].double(), x, near, k) @ votes[near]
    return counted


def _distances(q: Float[Tensor, "b d"], x: Float[Tensor, "n d"]) -> tuple[Float[Tensor, "b n"], Float[Tensor, " b"]]:
    """Squared distances less one number a row, and that number; in float64, a block of x at a time."""
    centre = x.mean(0, dtype=torch.float64)  # distances stay, and a large offset costs no digits
    z, parts = q.double() - centre, []
    for (rows,) in by_rows(CHUNK // x.shape[1], x):
        away = rows.double() - centre
        parts.append(torch.addmm(away.square().sum(-1), z, away.T, alpha=-2))
    return torch.cat(parts, 1), z.square().sum(-1)


def _shared(q: Float[Tensor, " d"], x: Float[Tensor, "n d"], near: Int[Tensor, " k"], k: int) -> Float[Tensor, " k"]:
    """The vote of each of some rows, their distances taken by differences; what is closer than the rounding of the input is a tie."""
    parts = [x[rows].double() for rows in near.split(max(1, CHUNK // x.shape[1]))]
    far = torch.cat([(part - q).square().sum(-1) for part in parts])
    size = torch.cat([part.square().sum(-1) for part in parts]).amax().sqrt() + q.square().sum().sqrt()
    last = far.kthvalue(k).values
    slack = 1e-12 * last + 4 * torch.finfo(torch.float64).eps * size * last.sqrt()
    nearer, tied = far < last - slack, (far - last).abs() <= slack
    return nearer.double() + tied * ((k - nearer.sum()).double() / tied.sum())


def _finite_floats(features: Table, name: str, width: int | None = None) -> Float[Tensor, "n d"]:
    x = check_features(features, name, width=width)
    x = x if x.is_floating_point() else x.double()
    check_size(x, name)
    return x
