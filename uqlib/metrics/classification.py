"""How good are the predictions and the probabilities: accuracy, errors by class, macro F1, NLL, Brier score.

All but macro F1 and the errors by class are means of one value an example (correctness, nll_each, brier_each), so they add up
exactly over batches: the value of two batches together is their mean weighted by the number of rows.

`weights` say how much each example counts, 0 or larger; `ignore` is the label of rows to leave out, such as 255 or -100.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uqlib.base.arrays import Array, Column, Table, as_tensor, by_rows, like
from uqlib.base.checks import (
    check_classes,
    check_confidence,
    check_features,
    check_labels,
    check_logits,
    check_probs,
    check_rows,
    check_share,
    check_weights,
)
from uqlib.base.exact import exact_sum, rounded_mean
from uqlib.base.options import check_number, check_whole
from uqlib.metrics.rows import rows_that_count

CHUNK = 2**18  # numbers of a table taken to float64 at a time: 2 MiB, which stays in the cache


def accuracy(preds: Column, labels: Column, *, weights: Column | None = None, ignore: int | None = None) -> float:
    """Fraction of predictions equal to their label, higher is better: the mean of correctness.

    Examples:
        >>> from uqlib.metrics import accuracy
        >>> accuracy([0, 1, 2, 2], [0, 1, 2, 1])
        0.75
        >>> accuracy([0, 1, 2, 2], [0, 1, 255, 1], ignore=255)
        0.6666666666666666
    """
    (preds, labels), weights = rows_that_count((preds, labels), weights, ignore)
    return _mean(as_tensor(correctness(preds, labels)), weights)


def top_k_accuracy(
    logits: Table, labels: Column, *, k: int = 5, weights: Column | None = None, ignore: int | None = None
) -> float:
    """Fraction of examples whose label is among the k classes with the largest entries, higher is better.

    A label that ties with others at the border counts by the share of the tied places that lie within the k, the
    expectation over a random order of the tie; so with k = 1 a tie of two counts half, where an argmax takes the first.

    Args:
        logits: (n, c), or probabilities; of any type, half precision too.
        labels: classes in [0, c), (n,).
        k: how many, at least 1 and at most c.
        weights: (n,) how much each example counts, 0 or larger.
        ignore: the label of rows to leave out.

    Raises:
        ValueError: if an entry is not finite, a label lies outside [0, c), or k outside 1 to c.

    Examples:
        >>> from uqlib.metrics import top_k_accuracy
        >>> top_k_accuracy([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]], [1, 2], k=2)
        0.5
    """
    (logits, labels), weights = rows_that_count((logits, labels), weights, ignore)
    return _mean(as_tensor(top_k_each(logits, labels, k=k)), weights)


def macro_f1(preds: Column, labels: Column, *, weights: Column | None = None, ignore: int | None = None) -> float:
    """F1 of each class, averaged with equal weight over classes, higher is better.

    The mean runs over classes that occur among the labels or the predictions, as in scikit-learn's
    f1_score(average="macro"); a class that occurs in neither is left out. F1 = 2 tp / (2 tp + fp + fn).
    Not a mean over examples: two batches cannot be averaged, put their rows together.

    Args:
        preds: predicted classes, integers (n,).
        labels: true classes, integers (n,).
        weights: (n,) how much each example counts, 0 or larger.
        ignore: the label of rows to leave out.

    Raises:
        ValueError: if there are no rows, not as many predictions as labels, or a class is negative, or 255 where every
            other is far below it (marks of rows to leave out).
        TypeError: if either is not of integer type.

    Examples:
        >>> from uqlib.metrics import macro_f1
        >>> round(macro_f1([0, 1, 2, 2], [0, 1, 2, 1]), 3)
        0.778
    """
    (preds, labels), weights = rows_that_count((preds, labels), weights, ignore)
    preds, labels = check_classes(preds, labels)
    each = None if weights is None else check_weights(weights, len(preds), preds.device)
    if each is not None and not each.all():
        preds, labels, each = preds[each > 0], labels[each > 0], each[each > 0]
    classes = 1 + int(torch.maximum(preds.max(), labels.max()))
    if classes > 1000 + 10 * len(labels):  # numbers with gaps, which a table of all classes would not fit into memory
        numbers: Tensor = torch.stack([preds, labels]).unique(return_inverse=True)[1]
        preds, labels = numbers[0], numbers[1]
        classes = 2 * len(labels)
    hit = preds == labels
    hits = torch.bincount(labels[hit], None if each is None else each[hit], minlength=classes)
    occurrences = torch.bincount(labels, each, minlength=classes) + torch.bincount(preds, each, minlength=classes)
    present = occurrences > 0
    return macro_f1_from_counts(hits[present], occurrences[present]).item()


def macro_f1_from_counts(hits: Tensor, occurrences: Tensor) -> Tensor:
    """Mean F1 along the last axis, over the classes that occur: hits, and occurrences as label and as prediction."""
    return (2 * hits / torch.where(occurrences > 0, occurrences, 1).double()).sum(-1) / (occurrences > 0).sum(-1)


def classwise_error(
    preds: Column,
    labels: Column,
    classes: int,
    *,
    weights: Column | None = None,
    ignore: int | None = None,
) -> Float[Array, " c"]:
    """Share of wrong predictions among the examples of each class, lower is better, float64.

    Their mean over the classes is the error on a test set in which all classes are equally frequent.

    Args:
        preds: predicted classes in [0, classes), integers (n,).
        labels: true classes in [0, classes), integers (n,); each class must occur.
        classes: how many there are.
        weights: (n,) how much each example counts, 0 or larger.
        ignore: the label of rows to leave out.

    Raises:
        ValueError: if a class has no example, for then it has no error; if not as many predictions as labels, or one
            lies outside [0, classes).
        TypeError: if either is not of integer type.

    Examples:
        >>> from uqlib.metrics import classwise_error
        >>> classwise_error([0, 1, 2, 2], [0, 1, 2, 1], 3)
        array([0. , 0.5, 0. ])
    """
    classes, given = check_whole(classes, "classes", least=1), preds
    (preds, labels), weights = rows_that_count((preds, labels), weights, ignore)
    predicted = check_labels(preds, classes, name="preds")
    labels = check_labels(labels, classes, rows=len(predicted), device=predicted.device)
    each = None if weights is None else check_weights(weights, len(labels), labels.device)
    sizes = torch.bincount(labels, each, minlength=classes)
    if not sizes.all():
        missing = int((sizes == 0).nonzero()[0])
        raise ValueError(
            f"every class needs an example; class {missing} of {classes} has none among the {len(labels)} labels. "
            "A test set of fewer classes? Number them anew."
        )
    missed = predicted != labels
    wrong = torch.bincount(labels[missed], None if each is None else each[missed], minlength=classes)
    return like(wrong.double() / sizes, given)


def nll(logits: Table, labels: Column, *, weights: Column | None = None, ignore: int | None = None) -> float:
    """Negative log-likelihood of the labels in nats, lower is better: the mean of nll_each.

    Examples:
        >>> import numpy as np
        >>> from uqlib.metrics import nll
        >>> round(nll(np.log([[0.8, 0.2], [0.5, 0.5]]), [0, 1]), 3)  # the mean of -log 0.8 and -log 0.5
        0.458
    """
    (logits, labels), weights = rows_that_count((logits, labels), weights, ignore)
    return _mean(as_tensor(nll_each(logits, labels)), weights)


def brier(probs: Table, labels: Column, *, weights: Column | None = None, ignore: int | None = None) -> float:
    """Squared distance between the probabilities and the one-hot label, in [0, 2], lower is better.

    Summed over the classes (Brier 1950) and averaged over the examples: the mean of brier_each. Half-precision
    probabilities are taken as they are, not divided by their sum.
    Some papers divide by the number of classes as well, see brier_zhou2025.

    Examples:
        >>> from uqlib.metrics import brier
        >>> round(brier([[0.8, 0.2], [0.5, 0.5]], [0, 1]), 3)  # the mean of 0.2² + 0.2² and 0.5² + 0.5²
        0.29
    """
    (probs, labels), weights = rows_that_count((probs, labels), weights, ignore)
    return _mean(as_tensor(brier_each(probs, labels)), weights)


def mse_p(scores: Column, truth: Column) -> float:
    """Mean square of an estimated probability less the true one, lower is better: the error that outcomes alone cannot show.

    With outcomes y of the truth p, the square of score less outcome, half of the two-class `brier`, is on average mse_p plus
    p (1 - p), whatever the scores are: so differences of Brier scores estimate differences of mse_p.

    Args:
        scores: (n,) estimated probabilities of outcome 1, in [0, 1].
        truth: (n,) the true ones.

    Raises:
        ValueError: if a probability is outside [0, 1], or the lengths differ.

    Source:
        Liu et al. 2022 (arXiv:2111.10734), metrics of the synthetic data.

    Examples:
        >>> from uqlib.metrics import mse_p
        >>> mse_p([0.5, 0.75], [0.25, 0.75])
        0.03125
    """
    estimate, true = _two_columns(scores, truth)
    return _mean((estimate - true).square(), None)


def kl_p(scores: Column, truth: Column, *, epsilon: float = 1e-10) -> float:
    """Mean divergence of the estimated probability from the true one in nats, lower is better: KL(truth || scores).

    Args:
        scores, truth: as of `mse_p`.
        epsilon: the least probability that is left to either outcome, in the estimate and in truth. With 0 an estimate that
            excludes what can happen costs infinitely much.

    Raises:
        ValueError: if a probability is outside [0, 1], the lengths differ, or epsilon is outside [0, 0.5].

    Source:
        Liu et al. 2022 (arXiv:2111.10734), metrics of the synthetic data; epsilon as in their code.

    Examples:
        >>> from uqlib.metrics import kl_p
        >>> round(kl_p([0.5, 0.5], [0.5, 1.0]), 4)  # half of log 2
        0.3466
    """
    estimate, true = _two_columns(scores, truth)
    epsilon = check_number(epsilon, "epsilon", least=0, most=0.5)
    q, p = (each.clamp(epsilon, 1 - epsilon) for each in (estimate, true))
    one, other = torch.stack([p, 1 - p]), torch.stack([q, 1 - q])
    each = (torch.xlogy(one, one) - torch.xlogy(one, other)).sum(0).clamp_min(0)  # but for rounding
    return _mean(each, None) if each.isfinite().all() else torch.inf


def average(values: Column, *, weights: Column | None = None) -> float:
    """The mean of one value an example, such as nll_each: the statistic of a bootstrap that has the values already.

    Raises:
        ValueError: if there are no values, one of them is not finite, or a weight is negative or all are 0.
    """
    return _mean(check_confidence(values, "values"), weights)


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


def top_k_each(logits: Table, labels: Column, *, k: int = 5) -> Float[Array, " n"]:
    """Whether the label is among the k largest entries, 1 or 0, and a share of a tie: the values that top_k_accuracy averages.

    Arguments and errors are those of top_k_accuracy. Time grows with n c, memory with n.

    Examples:
        >>> from uqlib.metrics import top_k_each
        >>> top_k_each([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]], [1, 2], k=2).tolist()
        [1.0, 0.0]
    """
    table = check_features(logits, "logits")
    labels = check_labels(labels, table.shape[1], rows=len(table), device=table.device)
    k = check_whole(k, "k", least=1, most=table.shape[1])
    parts = by_rows(CHUNK // table.shape[1], table, labels)
    return like(torch.cat([_within(part, y, k) for part, y in parts]), logits)


def _mean(each: Tensor, weights: Column | None) -> float:
    """The mean of one value an example, by weight; without weights the float64 nearest to it, in any order of the rows."""
    if weights is None:
        if not each.is_floating_point():
            return each.mean(dtype=torch.float64).item()  # of zeros and ones
        return rounded_mean(exact_sum(each), len(each))
    weight = check_weights(weights, len(each), each.device)
    return ((weight * each).sum() / weight.sum()).item()


def _two_columns(scores: Column, truth: Column) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Estimated and true probabilities, float64, on one device."""
    estimate, true = check_share(scores, "scores").double(), check_share(truth, "truth").double()
    check_rows(true, len(estimate), "truth")
    return estimate, true.to(estimate.device)


def _within(table: Float[Tensor, "n c"], labels: Int[Tensor, " n"], k: int) -> Float[Tensor, " n"]:
    """The share of the places of the label's tie that are among the first k."""
    own = table.gather(1, labels[:, None])
    before, tied = (table > own).sum(1), (table == own).sum(1)
    return ((k - before).clamp(min=0).minimum(tied)).double() / tied


def _squared_distance(probs: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    distance = probs.to(torch.float64, copy=True)
    distance[torch.arange(len(labels), device=labels.device), labels] -= 1
    return distance.square().sum(-1)
