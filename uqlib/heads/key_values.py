"""Discrete key-value bottleneck: features snap to fixed keys, and only the values of those keys are learnt.

A codebook projects a feature to a few dimensions and takes the nearest of its keys. Each key owns a value, a score a class; the
logits are the mean over the codebooks. So it is a logistic regression on one-hot codes, without a bias. Plain gradient steps
change the values that a batch fetched and no others; momentum would, so there is none. The released code clips the gradient at
norm 1, which here never acts: a mean over C codebooks has a gradient of norm sqrt(2 / C) at most.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uqlib.base.arrays import Array, Column, Table, as_tensor, by_rows, like
from uqlib.base.checks import check_features, check_finite, check_labels, check_size
from uqlib.base.options import check_fraction, check_number, check_result, check_seed, check_whole

CHUNK = 2**21  # distances at a time, which fit a cache
ROWS = 64  # images at a time, at least; then codebooks are taken apart
FAR = 30  # keys whose mean is so many times their spread from 0 are taken from that mean, or float32 loses the digits that tell them apart
DEAD = 0.1  # of its fair share of a batch: a key that is fetched less often jumps to a feature
EPSILON = 1e-5  # added to the count of a key
LARGEST = 1e15  # of a feature: float32 holds sums of its squares


class KeyBook(NamedTuple):
    """Codebooks c, each with a projection whose columns have length 1, and j keys; none of them learns any more."""

    projections: Float[Array, "c d k"]
    keys: Float[Array, "c j k"]


def fit_keys(
    features: Table,
    *,
    codebooks: int = 64,
    keys: int = 256,
    width: int | None = 8,
    epochs: int = 5,
    batch: int = 256,
    decay: float = 0.95,
    seed: int,
) -> KeyBook:
    """Keys that follow features of which no label is known: k-means by moving averages, each codebook by itself.

    Args:
        features: (n, d), of any images. The first keys are standard normal: where all features are far smaller, one key of
            a codebook may take them all, so bring their spread near 1.
        codebooks: how many.
        keys: in each codebook, at least 2.
        width: dimensions that a codebook sees, at random; None takes the features as they are.
        epochs: passes over the features.
        batch: features a step.
        decay: of the moving averages of counts and sums, in [0, 1).
        seed: of projections, first keys, order, and jumps.

    Raises:
        ValueError: if features are not finite, too large or not (n, d), or a number is out of range.

    Source:
        Träuble et al. 2023 (arXiv:2207.11240), and their released module.

    Examples:
        >>> import torch
        >>> from uqlib.heads import fit_keys, key_codes
        >>> features = torch.randn(500, 16, generator=torch.Generator().manual_seed(0))
        >>> book = fit_keys(features, codebooks=4, keys=8, seed=0)
        >>> key_codes(features, book).shape
        torch.Size([500, 4])
    """
    x = _features(features).float()
    codebooks, plain, d = check_whole(codebooks, "codebooks", least=1), width is None, x.shape[1]
    width = d if width is None else check_whole(width, "width", least=1)
    keys, batch = check_whole(keys, "keys", least=2), check_whole(batch, "batch", least=1)
    epochs, decay = check_whole(epochs, "epochs", least=1), check_fraction(decay, "decay", within="[0, 1)")
    generator = torch.Generator().manual_seed(check_seed(seed))
    drawn = torch.randn(codebooks, d, width, generator=generator, dtype=torch.float32)
    projections = torch.eye(d).expand(codebooks, d, d).clone() if plain else F.normalize(drawn, dim=1)
    book = torch.randn(codebooks, keys, width, generator=generator, dtype=torch.float32)
    sums, counts = book.double(), torch.zeros(codebooks, keys, dtype=torch.float64)
    for rows in _batches(len(x), epochs, batch, generator):
        heads = torch.matmul(x[rows].cpu(), projections)  # (c, b, k)
        book, sums, counts = _moved(heads, book, sums, counts, decay)
        dead = counts < DEAD * min(batch, len(x)) / keys
        other = torch.randint(len(rows), (codebooks, keys), generator=generator)
        # only the key jumps: its moving sum stays, as in the released module
        book = torch.where(dead[..., None], heads.gather(1, other[..., None].expand(-1, -1, width)), book)
    return KeyBook(like(projections.to(x.device), features), like(book.to(x.device), features))


def _moved(heads: Tensor, book: Tensor, sums: Tensor, counts: Tensor, decay: float) -> tuple[Tensor, Tensor, Tensor]:
    """Keys after a batch, and the moving sums and counts that they are made of."""
    count, j, width = book.shape
    place = (_nearest(heads, book)[1] + j * torch.arange(count)[:, None]).reshape(-1)
    added = torch.zeros(count * j, width, dtype=torch.float64).index_add_(0, place, heads.reshape(-1, width).double())
    found = torch.bincount(place, minlength=count * j).double()
    counts = decay * counts + (1 - decay) * found.view(count, j)
    sums = decay * sums + (1 - decay) * added.view_as(sums)
    total = counts.sum(1, keepdim=True)
    smoothed = (counts + EPSILON) / (total + j * EPSILON) * total
    return (sums / smoothed[..., None]).float(), sums, counts


def _nearest(heads: Tensor, keys: Tensor, away: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Half the squared distance to the nearest key less that to 0, and its index, (c, n) each; `away` keys are not taken."""
    shift = _shift(keys)
    if shift is not None:
        heads, keys = _apart(heads, shift), _apart(keys, shift)
    size = keys.square().sum(-1) / 2
    if away is not None:
        size = size.masked_fill(away, torch.inf)
    found = torch.baddbmm(size[:, None], heads, keys.transpose(1, 2), alpha=-1).min(-1)
    return found.values, found.indices


def _shift(keys: Float[Tensor, "c j k"]) -> Float[Tensor, "c 1 k"] | None:
    """The mean of the keys of each codebook where it is far from 0, and 0 where it is near; None if all are near."""
    mean = keys.double().mean(1, keepdim=True)
    spread = (keys - mean).square().sum(-1).mean(1)
    far = mean.square().sum(-1) > FAR**2 * spread[:, None]
    return torch.where(far[..., None], mean, 0.0) if far.any() else None


def _apart(points: Float[Tensor, "c n k"], shift: Float[Tensor, "c 1 k"]) -> Float[Tensor, "c n k"]:
    return (points.double() - shift).float()


def key_codes(features: Table, book: KeyBook, *, counts: Table | None = None) -> Int[Array, "n c"]:
    """The index of the nearest key in each codebook.

    Args:
        features: (n, d).
        book: of `fit_keys`.
        counts: (c, j) of `fetch_counts`: keys that training never fetched are not taken, as when the paper evaluates.

    Raises:
        ValueError: if features do not fit the book, or a codebook has no key that was fetched.

    Examples:
        >>> import torch
        >>> from uqlib.heads import KeyBook, key_codes
        >>> book = KeyBook(torch.eye(2)[None], torch.tensor([[[0.0, 0.0], [1.0, 1.0]]]))
        >>> key_codes(torch.tensor([[0.1, 0.2], [0.9, 0.7]]), book)
        tensor([[0],
                [1]])
    """
    return like(_snapped(features, book, counts)[1], features)


def key_distance(features: Table, book: KeyBook, *, counts: Table | None = None) -> Float[Array, " n"]:
    """How far each feature lies from its keys, higher = stranger: the mean over the codebooks of the distance to the nearest.

    Args:
        features, book, counts: as in `key_codes`.

    Examples:
        >>> import torch
        >>> from uqlib.heads import KeyBook, key_distance
        >>> book = KeyBook(torch.eye(2)[None], torch.tensor([[[0.0, 0.0], [1.0, 1.0]]]))
        >>> key_distance(torch.tensor([[1.0, 1.0], [4.0, 5.0]]), book)
        tensor([0., 5.], dtype=torch.float64)
    """
    return like(_snapped(features, book, counts)[0], features)


def _snapped(features: Table, book: KeyBook, counts: Table | None) -> tuple[Tensor, Tensor]:
    projections, keys = _check_book(book)
    x = _features(features, width=projections.shape[1])
    projections, keys = projections.to(x.device), keys.to(x.device)
    away = None if counts is None else _unfetched(counts, keys)
    shift = _shift(keys)
    if shift is None:
        x, projections, keys = x.float(), projections.float(), keys.float()
    else:  # far from 0, float32 has no digits left for what tells keys apart
        keys, projections = _apart(keys, shift), projections.double()
    rows = max(ROWS, CHUNK // (keys.shape[0] * keys.shape[1]))
    each = max(1, CHUNK // (rows * keys.shape[1]))
    far, near = [], []
    for (part,) in by_rows(rows, x):
        index, distance = [], torch.zeros(len(part), dtype=torch.float64, device=x.device)
        for first in range(0, len(keys), each):
            own = slice(first, first + each)
            heads = torch.matmul(part.to(projections.dtype), projections[own])
            heads = heads if shift is None else (heads - shift[own]).float()
            found = _nearest(heads, keys[own], None if away is None else away[own])[1]
            fetched = keys[own].gather(1, found[..., None].expand(-1, -1, keys.shape[2]))
            distance += (heads - fetched).double().square().sum(-1).sqrt().sum(0)
            index.append(found.T)
        far.append(distance / len(keys))
        near.append(torch.cat(index, 1))
    return torch.cat(far), torch.cat(near)


def _check_book(book: KeyBook) -> tuple[Float[Tensor, "c d k"], Float[Tensor, "c j k"]]:
    """Projections and keys, finite and of shapes that fit each other."""
    check_result(book, KeyBook, "book", "fit_keys")
    projections, keys = (as_tensor(part, f"book.{name}") for name, part in book._asdict().items())
    fit = projections.ndim == keys.ndim == 3 and (len(projections), projections.shape[2]) == (len(keys), keys.shape[2])
    if not fit or not projections.numel() or not keys.numel():
        raise ValueError(
            "book must hold projections (codebooks, features, width) and keys (codebooks, keys, width); their shapes are "
            f"{tuple(projections.shape)} and {tuple(keys.shape)}. fit_keys makes one."
        )
    floats = [part if part.is_floating_point() else part.double() for part in (projections, keys)]
    for name, part in zip(KeyBook._fields, floats, strict=True):
        check_finite(part, f"book.{name}")
    return floats[0], floats[1]


def _unfetched(counts: Table, keys: Float[Tensor, "c j k"]) -> Bool[Tensor, "c j"]:
    table, hint = (
        as_tensor(counts, "counts").to(keys.device),
        "Take them from fetch_counts on the codes of the training images.",
    )
    if table.is_floating_point() or table.dtype == torch.bool:
        raise TypeError(f"counts must be whole numbers; they are {table.dtype}. {hint}")
    if table.shape != keys.shape[:2] or (table < 0).any() or (table == 0).all(1).any():
        raise ValueError(
            f"counts must be (codebooks, keys), {tuple(keys.shape[:2])}, at least 0, with a key fetched in each codebook; their "
            f"shape is {tuple(table.shape)}. {hint}"
        )
    return table == 0


def fetch_counts(codes: Table, *, keys: int) -> Int[Array, "c j"]:
    """How often each key was fetched.

    Args:
        codes: (n, c) of `key_codes`.
        keys: in each codebook.

    Examples:
        >>> import torch
        >>> from uqlib.heads import fetch_counts
        >>> fetch_counts(torch.tensor([[0, 1], [0, 2], [2, 2]]), keys=3)
        tensor([[2, 0, 1],
                [0, 1, 2]])
    """
    keys = check_whole(keys, "keys", least=2)
    return like(_counted(_codes(codes, keys), keys), codes)


def fit_values(
    codes: Table,
    labels: Column,
    *,
    classes: int,
    keys: int,
    values: Any = None,
    rate: float = 150.0,
    epochs: int = 4,
    batch: int = 256,
    smoothing: float = 0.1,
    seed: int,
) -> Float[Array, "c j classes"]:
    """Values by plain gradient descent on the cross-entropy; rows of keys that no code fetches stay as they are, bit for bit.

    What counts is rate times epochs, as steps are tiny: the paper's 0.3 for 2,000 epochs is 150 for 4.

    Args:
        codes: (n, c) of `key_codes`.
        labels: (n,), classes in [0, classes).
        classes, keys: how many; keys in each codebook.
        values: (c, j, classes) to go on from; by default 0.
        rate: length of a step.
        epochs: passes.
        batch: examples a step.
        smoothing: of the labels, in [0, 1).
        seed: of the order.

    Raises:
        ValueError: if codes, labels or values do not fit, or a number is out of range.

    Source:
        Träuble et al. 2023, section 3.

    Examples:
        >>> import torch
        >>> from uqlib.heads import fit_values, value_logits
        >>> codes, labels = torch.tensor([[0], [1], [0], [1]]), torch.tensor([0, 1, 0, 1])
        >>> values = fit_values(codes, labels, classes=2, keys=3, seed=0)
        >>> value_logits(values, codes).argmax(1)
        tensor([0, 1, 0, 1])
        >>> values[0, 2]  # no image fetched the third key
        tensor([0., 0.], dtype=torch.float64)
    """
    classes, batch = check_whole(classes, "classes", least=2), check_whole(batch, "batch", least=1)
    keys = check_whole(keys, "keys", least=2)
    z, epochs = _codes(codes, keys), check_whole(epochs, "epochs", least=1)
    y = check_labels(labels, classes, rows=len(z)).to(z.device)
    rate, smoothing = check_number(rate, "rate", above=0), check_fraction(smoothing, "smoothing", within="[0, 1)")
    generator = torch.Generator().manual_seed(check_seed(seed))
    shape = (z.shape[1], keys, classes)
    table = (
        torch.zeros(shape, dtype=torch.float64, device=z.device)
        if values is None
        else _values(values).clone(memory_format=torch.contiguous_format)
    )
    if table.shape != shape:
        raise ValueError(f"values must be (codebooks, keys, classes), {shape}; they are {tuple(table.shape)}")
    flat, place = table.view(-1, classes), z + keys * torch.arange(z.shape[1], device=z.device)
    targets = (1 - smoothing) * F.one_hot(y, classes).double() + smoothing / classes
    for rows in _batches(len(z), epochs, batch, generator):
        part = place[rows]
        pulled = targets[rows] - F.embedding_bag(part, flat, mode="mean").softmax(-1)
        step = pulled * (rate / part.numel())  # a mean over the batch, and over the codebooks
        flat.index_add_(0, part.reshape(-1), step.repeat_interleave(part.shape[1], 0))
    return like(table, codes)


def count_values(
    codes: Table, labels: Column, *, classes: int, keys: int, prior: float = 1.0
) -> Float[Array, "c j classes"]:
    """Values without gradients: the logarithm of the share of each class among the images that fetched a key.

    They are made of counts, so that no order of the images changes a bit of them, and nothing is ever forgotten.

    Args:
        codes, labels, classes, keys: as in `fit_values`.
        prior: images of each class that every key is taken to have seen.

    Examples:
        >>> import torch
        >>> from uqlib.heads import count_values
        >>> codes, labels = torch.tensor([[0], [0], [1]]), torch.tensor([0, 0, 1])
        >>> count_values(codes, labels, classes=2, keys=2).exp()
        tensor([[[0.7500, 0.2500],
                 [0.3333, 0.6667]]], dtype=torch.float64)
    """
    keys, classes = check_whole(keys, "keys", least=2), check_whole(classes, "classes", least=2)
    z, prior = _codes(codes, keys), check_number(prior, "prior", above=0)
    y = check_labels(labels, classes, rows=len(z)).to(z.device)
    table = torch.stack([_counted(z[y == each], keys) for each in range(classes)], -1).double() + prior
    return like((table / table.sum(-1, keepdim=True)).log(), codes)


def value_logits(values: Any, codes: Table) -> Float[Array, "n classes"]:
    """The mean over the codebooks of the values that were fetched.

    Args:
        values: (c, j, classes) of `fit_values` or `count_values`.
        codes: (n, c) of `key_codes`.

    Examples:
        >>> import torch
        >>> from uqlib.heads import value_logits
        >>> values = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 4.0]]])
        >>> value_logits(values, torch.tensor([[0, 0], [0, 1]]))
        tensor([[1.5000, 0.0000],
                [0.5000, 2.0000]], dtype=torch.float64)
    """
    table = _values(values)
    z = _codes(codes, table.shape[1]).to(table.device)
    if z.shape[1] != len(table):
        raise ValueError(f"codes must have a column a codebook, {len(table)}; they have {z.shape[1]}")
    place = z + table.shape[1] * torch.arange(len(table), device=z.device)
    return like(F.embedding_bag(place, table.reshape(-1, table.shape[2]), mode="mean"), codes)


def key_interference(codes: Table, labels: Column, *, keys: int) -> float:
    """Probability that images of two classes fetch the same key, lower is better: mean over codebooks and pairs of classes.

    Args:
        codes, keys: as in `fit_values`.
        labels: (n,), of at least two classes.

    Examples:
        >>> import torch
        >>> from uqlib.heads import key_interference
        >>> codes, labels = torch.tensor([[0], [1], [1], [2]]), torch.tensor([0, 0, 1, 1])
        >>> key_interference(codes, labels, keys=3)
        0.25
    """
    keys = check_whole(keys, "keys", least=2)
    z = _codes(codes, keys)
    y = check_labels(labels, None, rows=len(z)).to(z.device)
    there = y.unique()
    if len(there) < 2:
        raise ValueError(f"labels must be of at least two classes; all are {int(there[0])}")
    shares = torch.stack([_counted(z[y == k], keys).double() / (y == k).sum() for k in there])  # (classes, c, j)
    both = shares.sum(0).square().sum() - shares.square().sum()
    return (both / (len(there) * (len(there) - 1) * z.shape[1])).item()


def _counted(z: Int[Tensor, "n c"], keys: int) -> Int[Tensor, "c j"]:
    place = z + keys * torch.arange(z.shape[1], device=z.device)
    return torch.bincount(place.reshape(-1), minlength=z.shape[1] * keys).view(-1, keys)


def _features(features: Table, width: int | None = None) -> Float[Tensor, "n d"]:
    x = check_features(features, width=width)
    x = x if x.is_floating_point() else x.double()
    check_size(x, "features", LARGEST)
    return x


def _codes(codes: Table, keys: int) -> Int[Tensor, "n c"]:
    table = as_tensor(codes, "codes")
    if table.ndim != 2 or not table.numel():
        raise ValueError(f"codes must have shape (n, codebooks) with at least one row; it is {tuple(table.shape)}")
    if table.is_floating_point() or table.dtype == torch.bool:
        raise TypeError(f"codes must be whole numbers, such as key_codes gives; they are {table.dtype}")
    if table.min() < 0 or table.max() >= keys:
        worst = int(table.min() if table.min() < 0 else table.max())
        raise ValueError(f"codes must lie in [0, {keys}), the keys of a codebook; one is {worst}")
    return table.long()


def _values(values: Any) -> Float[Tensor, "c j classes"]:
    table = as_tensor(values, "values")
    if table.ndim != 3 or not table.numel():
        raise ValueError(f"values must have shape (codebooks, keys, classes); it is {tuple(table.shape)}")
    check_finite(table, "values")
    return table.double()


def _batches(n: int, epochs: int, batch: int, generator: torch.Generator) -> Iterator[Int[Tensor, " b"]]:
    """Rows of each step: every pass in an order of its own."""
    for _ in range(epochs):
        yield from torch.randperm(n, generator=generator).split(batch)
