"""Votes of the nearest examples, as logits: a classifier that learns nothing and keeps everything."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from uqlib.base.arrays import Array, Column, Table, like
from uqlib.base.checks import check_features, check_labels, check_size
from uqlib.base.options import check_number, check_whole

BLOCK = 2**25  # distances at a time


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
    centre = x.mean(0)  # distances stay, and a large offset costs no digits
    x, q = x - centre, q - centre
    size, votes = x.square().sum(-1), F.one_hot(y, classes).to(x)
    counted = torch.cat([_votes(rows, x, size, votes, k) for rows in q.split(max(1, BLOCK // len(x)))])
    return like(((counted + smoothing) / (k + smoothing * classes)).log(), features)


def _votes(
    q: Float[Tensor, "b d"], x: Float[Tensor, "n d"], size: Float[Tensor, " n"], votes: Float[Tensor, "n c"], k: int
) -> Float[Tensor, "b c"]:
    """Votes for each class; those at the distance of the k-th share what the nearer ones leave."""
    far = torch.addmm(size, q, x.T, alpha=-2)  # the squared distances, less one number a row
    least, where = far.topk(min(k + 1, len(x)), dim=1, largest=False)
    counted = votes[where[:, :k]].sum(1)
    if k == len(x):
        return counted
    near = 1e-12 * (q.square().sum(-1, keepdim=True) + size.max())  # what is closer than rounding is a tie
    unsure = (least[:, k] - least[:, k - 1] <= near[:, 0]).nonzero()[:, 0]
    last, near, far = least[unsure, k - 1, None], near[unsure], far[unsure]
    nearer, tied = far < last - near, (far - last).abs() <= near
    left = (k - nearer.sum(1, keepdim=True)) / tied.sum(1, keepdim=True)
    counted[unsure] = (nearer + tied * left).to(votes) @ votes
    return counted


def _finite_floats(features: Table, name: str, width: int | None = None) -> Float[Tensor, "n d"]:
    x = check_features(features, name, width=width)
    x = x if x.is_floating_point() else x.double()
    check_size(x, name)
    return x.double()
