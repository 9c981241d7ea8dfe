"""Losses that know the rows of their training set: weights by difficulty, correctness ranking."""

import hashlib

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uqlib.base.arrays import Column, Table, as_tensor
from uqlib.base.checks import check_labels, check_whole_column
from uqlib.base.options import check_number, check_whole
from uqlib.losses.criterion import (
    Criterion,
    _check_all_rows,
    _check_batch_rows,
    _checked,
    _entropy_of,
    _gathered,
    _log_probs,
    _surprise,
)


def difficulty(weights: Column, labels: Column | None = None, *, alpha: float = 0.3) -> Criterion:
    """Cross entropy, less alpha times the example's weight times the entropy: modesty where it is hard.

    With all weights 1 it is `entropy`. The weights are constants: no gradient reaches them.

    Args:
        weights: (n,), finite and >= 0, one for each row of the training set, in its order. Float32 is kept.
        labels: (n,) of the training set that the weights were made for. Every batch is compared with them, so that
            weights in another order, or of other images, are noticed.
        alpha: >= 0; 0.3 on CIFAR and 0.2 on ImageNet in the paper.

    Raises:
        ValueError: if a weight is negative or not finite, labels and weights differ in length, or alpha is negative or
            not finite; in a training, if a row lies beyond the weights or a label is not the one given here.

    Source:
        Cui et al. 2023 (arXiv:2304.10127), equations 8-9.
    """
    alpha = check_number(alpha, "alpha", least=0)
    weights = _check_weights(weights)
    labels = None if labels is None else check_labels(labels, None, rows=len(weights)).to(weights.device)
    return _Difficulty(weights, labels, alpha)


def ranking(*, examples: int, strength: float = 1.0) -> Criterion:
    """Correctness ranking loss: cross entropy, plus a penalty where confidence is not in the order of the history.

    Each example i is paired with the next of the batch, j, the last with the first. The penalty is
    max(0, |ci - cj| - sign(ci - cj) (ki - kj)), and 0 for ci = cj. k is the largest probability. c is the share of past
    epochs in which the example was right, 0 before the first, moved and stretched so that the least of all examples is
    0 and 1 stays 1.

    The history is in the buffers `right` and `times` (n,): counts. It grows with each call in training mode, is part of
    a checkpoint, and starts anew with each training. With several processes it is gathered from all; the pairs are
    those within the share of a process.

    Args:
        examples: rows of the training set.
        strength: of the penalty, >= 0.

    Raises:
        ValueError: if examples is not positive, or the strength is negative or not finite; in a training, if a row lies
            beyond the examples.

    Source:
        Moon et al. 2020 (arXiv:2007.01458), with the pairs of their code, and shares where it has counts.
    """
    examples = check_whole(examples, "examples", least=1)
    return _Ranking(examples, check_number(strength, "strength", least=0))


class _Difficulty(Criterion):
    by_row = True
    weights: Tensor
    labels: Tensor | None

    def __init__(self, weights: Float[Tensor, " n"], labels: Int[Tensor, " n"] | None, alpha: float):
        named = hashlib.sha256(weights.cpu().numpy().tobytes()).hexdigest()[:16]
        super().__init__(f"difficulty(weights={named}, alpha={alpha})")
        self.alpha = alpha
        # given anew with each training, so a checkpoint has no part for them
        self.register_buffer("weights", weights, persistent=False)
        self.register_buffer("labels", labels, persistent=False)

    def begin(self, labels: Column) -> None:
        """Check that the training has as many rows as there are weights, and the labels that they belong to."""
        super().begin(labels)
        _check_all_rows(len(self.weights), len(labels), "weights")
        labels = check_labels(labels, None).to(self.weights.device)
        self._check(labels, torch.arange(len(labels), device=labels.device))

    def _terms(self, logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], rows: Column) -> Float[Tensor, " n"]:
        rows = _check_batch_rows(rows, logits, self, "weights", len(self.weights))
        self._check(labels, rows)
        return _surprise(logits, labels) - self.alpha * (self.weights[rows] * _entropy_of(logits))

    def _check(self, labels: Int[Tensor, " n"], rows: Int[Tensor, " n"]) -> None:
        if self.labels is None:
            return
        wrong = self.labels[rows] != labels
        if wrong.any():
            k = int(wrong.nonzero()[0])
            raise ValueError(
                f"row {int(rows[k])} of the training set has label {int(labels[k])}, but its weight was made for label "
                f"{int(self.labels[rows[k]])}. Weights of another data set, or in another order?"
            )


class _Ranking(Criterion):
    by_row = True
    right: Tensor
    times: Tensor

    def __init__(self, examples: int, strength: float):
        super().__init__(f"ranking(examples={examples}, strength={strength})")
        self.strength = strength
        self.register_buffer("right", torch.zeros(examples, dtype=torch.int64))
        self.register_buffer("times", torch.zeros(examples, dtype=torch.int64))

    def begin(self, labels: Column) -> None:
        """Check that the training has so many rows, and forget the history of another one."""
        super().begin(labels)
        _check_all_rows(len(self.right), len(labels), "history")
        self.right.zero_()
        self.times.zero_()

    def _terms(self, logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], rows: Column) -> Float[Tensor, " n"]:
        rows = _check_batch_rows(rows, logits, self, "history", len(self.right))
        share = self.right.float() / self.times.clamp_min(1)
        least = share.min()
        # an example that was always right is at 1; if all were, all are equal
        history = (share[rows] - least) / (1 - least).clamp_min(1e-12)
        confidence = _log_probs(logits).amax(-1).exp()
        ahead = history - history.roll(-1)  # by its sign, an equal pair has no penalty and no gradient
        penalty = ahead.abs() - ahead.sign() * (confidence - confidence.roll(-1))
        return _surprise(logits, labels) + self.strength * penalty.clamp_min(0)

    def forward(self, logits: Table, labels: Column, rows: Column) -> Float[Tensor, ""]:
        logits, labels = _checked(logits, labels, self)
        value = self._terms(logits, labels, rows).mean()  # with the history before this batch
        if self.training:
            rows = check_whole_column(rows, "rows").to(logits.device)
            rows, right = _gathered(rows, logits.detach().argmax(-1) == labels)
            self.right[rows] += right
            self.times[rows] += 1
        return value


def _check_weights(weights: Column) -> Float[Tensor, " n"]:
    given = as_tensor(weights, "weights")
    if given.ndim != 1 or not len(given):
        raise ValueError(f"weights must have one entry a training row (n,); their shape is {tuple(given.shape)}")
    weights = given.float().clone()
    bad = ~(weights.isfinite() & (weights >= 0))
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"weights must be finite and >= 0; row {row} is {given[row].item()}. "
            "Distances that were not normalised? Pass difficulty.weights of them."
        )
    return weights
