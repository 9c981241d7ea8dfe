"""How good are the predictions and the probabilities: accuracy, errors by class, macro F1, NLL, Brier score.

All but macro F1 and the errors by class are means of one value an example (correctness, nll_each, brier_each), so they add up
exactly over batches: the value of two batches together is their mean weighted by the number of rows.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uqlib.base.arrays import Array, Column, Table, as_tensor, by_rows, like
from uqlib.base.checks import check_classes, check_confidence, check_labels, check_logits, check_probs
from uqlib.base.options import check_whole

CHUNK = 2**18  # numbers of a table taken to float64 at a time: 2 MiB, which stays in the cache


def accuracy(preds: Column, labels: Column) -> float:
    """Fraction of predictions equal to their label, higher is better: the mean of correctness.

    Examples:
        >>> from uqlib.metrics import accuracy
        >>> accuracy([0, 1, 2, 2], [0, 1, 2, 1])
        0.75
    """
    return as_tensor(correctness(preds, labels)).mean(dtype=torch.float64).item()


def macro_f1(preds: Column, labels: Column) -> float:
    """F1 of each class, averaged with equal weight over classes, higher is better.

    The mean runs over classes that occur among the labels or the predictions, as in scikit-learn's
    f1_score(average="macro"); a class that occurs in neither is left out. F1 = 2 tp / (2 tp + fp + fn).
    Not a mean over examples: two batches cannot be averaged, put their rows together.

    Args:
        preds: predicted classes, integers (n,).
        labels: true classes, integers (n,).

    Raises:
        ValueError: if there are no rows, not as many predictions as labels, or a class is negative, or 255 where every
            other is far below it (marks of rows to leave out).
        TypeError: if either is not of integer type.

    Examples:
        >>> from uqlib.metrics import macro_f1
        >>> round(macro_f1([0, 1, 2, 2], [0, 1, 2, 1]), 3)
        0.778
    """
    preds, labels = check_classes(preds, labels)
    classes = 1 + int(torch.maximum(preds.max(), labels.max()))
    if classes > 1000 + 10 * len(labels):  # numbers with gaps, which a table of all classes would not fit into memory
        numbers: Tensor = torch.stack([preds, labels]).unique(return_inverse=True)[1]
        preds, labels = numbers[0], numbers[1]
        classes = 2 * len(labels)
    hits = torch.bincount(labels[preds == labels], minlength=classes)
    occurrences = torch.bincount(labels, minlength=classes) + torch.bincount(preds, minlength=classes)
    present = occurrences > 0
    return macro_f1_from_counts(hits[present], occurrences[present]).item()


def macro_f1_from_counts(hits: Tensor, occurrences: Tensor) -> Tensor:
    """Mean F1 along the last axis, over the classes that occur: hits, and occurrences as label and as prediction."""
    return (2 * hits / occurrences.clamp(min=1).double()).sum(-1) / (occurrences > 0).sum(-1)


def classwise_error(preds: Column, labels: Column, classes: int) -> Float[Array, " c"]:
    """Share of wrong predictions among the examples of each class, lower is better, float64.

    Their mean over the classes is the error on a test set in which all classes are equally frequent.

    Args:
        preds: predicted classes in [0, classes), integers (n,).
        labels: true classes in [0, classes), integers (n,); each class must occur.
        classes: how many there are.

    Raises:
        ValueError: if a class has no example, for then it has no error; if not as many predictions as labels, or one
            lies outside [0, classes).
        TypeError: if either is not of integer type.

    Examples:
        >>> from uqlib.metrics import classwise_error
        >>> classwise_error([0, 1, 2, 2], [0, 1, 2, 1], 3)
        array([0. , 0.5, 0. ])
    """
    classes = check_whole(classes, "classes", least=1)
    predicted = check_labels(preds, classes, name="preds")
    labels = check_labels(labels, classes, rows=len(predicted), device=predicted.device)
    sizes = torch.bincount(labels, minlength=classes)
    if not sizes.all():
        missing = int((sizes == 0).nonzero()[0])
        raise ValueError(
            f"every class needs an example; class {missing} of {classes} has none among the {len(labels)} labels. "
            "A test set of fewer classes? Number them anew."
        )
    wrong = torch.bincount(labels[predicted != labels], minlength=classes)
    return like(wrong.double() / sizes, preds)


def nll(logits: Table, labels: Column) -> float:
    """Negative log-likelihood of the labels in nats, lower is better: the mean of nll_each.

    Examples:
        >>> import numpy as np
        >>> from uqlib.metrics import nll
        >>> round(nll(np.log([[0.8, 0.2], [0.5, 0.5]]), [0, 1]), 3)  # the mean of -log 0.8 and -log 0.5
        0.458
    """
    return as_tensor(nll_each(logits, labels)).mean().item()


def brier(probs: Table, labels: Column) -> float:
    """Squared distance between the probabilities and the one-hot label, in [0, 2], lower is better.

    Summed over the classes (Brier 1950) and averaged over the examples: the mean of brier_each. Half-precision
    probabilities are taken as they are, not divided by their sum.
    Some papers divide by the number of classes as well, see brier_zhou2025.

    Examples:
        >>> from uqlib.metrics import brier
        >>> round(brier([[0.8, 0.2], [0.5, 0.5]], [0, 1]), 3)  # the mean of 0.2² + 0.2² and 0.5² + 0.5²
        0.29
    """
    return as_tensor(brier_each(probs, labels)).mean().item()


def average(values: Column) -> float:
    """The mean of one value an example, such as nll_each: the statistic of a bootstrap that has the values already.

    Raises:
        ValueError: if there are no values, or one of them is not finite.
    """
    return check_confidence(values, "values").double().mean().item()


def correctness(preds: Column, labels: Column) -> Bool[Array, " n"]:
    """Whether each prediction equals its label.

    Args:
        preds: predicted classes, integers (n,).
        labels: true classes, integers (n,).

    Raises:
        ValueError: if there are no rows, not as many predictions as labels, or a class is negative, or 255 where every
            other is far below it (marks of rows to leave out).
        TypeError: if either is not of integer type.

    Examples:
        >>> from uqlib.metrics import correctness
        >>> correctness([0, 1, 2], [0, 1, 1])
        array([ True,  True, False])
    """
    pair = check_classes(preds, labels)
    return like(pair[0] == pair[1], preds)


def nll_each(logits: Table, labels: Column) -> Float[Array, " n"]:
    """-log softmax(logits) at the label, in nats, lower is better.

    Every example gets its own value, in float64, by a softmax that cannot overflow. Time grows with n c,
    memory with n: the rows go through float64 in small chunks.

    Args:
        logits: (n, c), finite, before the softmax.
        labels: classes in [0, c), (n,).

    Raises:
        ValueError: if the logits are not finite or are probabilities, or a label is outside [0, c).
    """
    checked = check_logits(logits)
    labels = check_labels(labels, checked.shape[1], rows=len(checked), device=checked.device)
    parts = by_rows(CHUNK // checked.shape[1], checked, labels)
    log_probs = [part.log_softmax(-1, dtype=torch.float64).gather(1, y[:, None])[:, 0] for part, y in parts]
    return like(-torch.cat(log_probs), logits)


def brier_each(probs: Table, labels: Column) -> Float[Array, " n"]:
    """Sum over classes of (probability - one-hot label)², in [0, 2], lower is better.

    Every example gets its own value, in float64. Time grows with n c, memory with n.

    Args:
        probs: (n, c), rows that sum to 1.
        labels: classes in [0, c), (n,).

    Raises:
        ValueError: if the rows are not probabilities, or a label is outside [0, c).
    """
    checked = check_probs(probs)
    labels = check_labels(labels, checked.shape[1], rows=len(checked), device=checked.device)
    parts = by_rows(CHUNK // checked.shape[1], checked, labels)
    return like(torch.cat([_squared_distance(*part) for part in parts]), probs)


def _squared_distance(probs: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    distance = probs.to(torch.float64, copy=True)
    distance[torch.arange(len(labels), device=labels.device), labels] -= 1
    return distance.square().sum(-1)
