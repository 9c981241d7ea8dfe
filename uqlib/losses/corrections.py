"""Losses that know how labels went wrong, or how rare they are: forward correction, gold loss correction, class weights."""

import hashlib

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uqlib.base.arrays import Column, Table
from uqlib.base.checks import check_confidence, check_labels, check_mask
from uqlib.label_noise.transitions import check_transition
from uqlib.losses.criterion import Criterion, _check_all_rows, _check_batch_rows, _log_probs, _surprise


def forward(*, transition: Table) -> Criterion:
    """-log of the probability of the given label, after the predicted classes went through the transition.

    -log sum_k C[k, label] p_k. The best predictions for it are those of the true labels. With C = I it is cross entropy.

    Args:
        transition: C (c, c), entry k, j the probability that class k got the label j; rows sum to one, 0 is allowed.

    Raises:
        ValueError: if the transition is none; in a training, if it has not as many classes as the logits, or a label
            occurs that no class gets.

    Source:
        Patrini et al. 2017 (arXiv:1609.03683), theorem 2.
    """
    return _Transition(torch.from_numpy(check_transition(transition)).float(), None)


def corrected(*, transition: Table, trusted: Column) -> Criterion:
    """Cross entropy for rows whose label is trusted, `forward` for the others: both summed, over the size of the batch.

    Args:
        transition: C (c, c), as `forward` takes it.
        trusted: (n,), whether each row of the training set, in its order, has a label known to be right.

    Raises:
        ValueError: if the transition is none, or trusted is not true or false; in a training, if it has not as many
            rows, the logits have another number of classes, or an untrusted label occurs that no class gets.

    Source:
        Hendrycks et al. 2018 (arXiv:1802.05300), gold loss correction, its second training.
    """
    return _Transition(torch.from_numpy(check_transition(transition)).float(), _check_marks(trusted))


def weighted(*, class_weights: Column) -> Criterion:
    """Cross entropy, times the weight of the label's class: cost-sensitive learning.

    The mean over a batch is over its examples, not over their weights, so that every example counts the same in all
    batches. Weights whose mean over the training set is one, as `imbalance.balanced_weights`, leave the learning rate
    what it was.

    Args:
        class_weights: (c,), finite and >= 0.

    Raises:
        ValueError: if a weight is negative or not finite; in a training, if there are not as many as classes.
    """
    given = check_confidence(class_weights, "class_weights")
    if (given < 0).any():
        row = int((given < 0).nonzero()[0])
        raise ValueError(f"class_weights must be >= 0; row {row} is {given[row].item()}")
    return _Weighted(given.float().clone())


class _Transition(Criterion):
    log_given: Tensor
    log_own: Tensor
    trusted: Tensor | None

    def __init__(self, transition: Float[Tensor, "c c"], trusted: Bool[Tensor, " n"] | None):
        named = f"transition={_digest(transition)}"
        super().__init__(f"forward({named})" if trusted is None else f"corrected({named}, trusted={_digest(trusted)})")
        # a row a label, over the classes that it may come from; given anew with each training, so no part of a checkpoint
        self.register_buffer("log_given", transition.T.log().contiguous(), persistent=False)
        self.register_buffer("log_own", torch.eye(len(transition), dtype=torch.float32).log(), persistent=False)
        self.register_buffer("trusted", trusted, persistent=False)
        self.by_row = trusted is not None

    def begin(self, labels: Column) -> None:
        """Check that the training has as many rows as were marked, and that every label can come about."""
        super().begin(labels)
        given = check_labels(labels, len(self.log_given)).to(self.log_given.device)
        doubted = torch.ones_like(given, dtype=torch.bool)
        if self.trusted is not None:
            _check_all_rows(len(self.trusted), len(given), "trusted marks")
            doubted = ~self.trusted
        never = doubted & (self.log_given.amax(-1) == -torch.inf)[given]
        if never.any():
            row = int(never.nonzero()[0])
            raise ValueError(
                f"row {row} of the training set has label {int(given[row])}, which no class gets by the transition: its "
                "column is 0. Is it the transition of these labels, and rows the true classes?"
            )

    def _terms(self, logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], rows: Column) -> Float[Tensor, " n"]:
        _check_width(logits, self.log_given, "transition")
        if self.log_given.device != logits.device:
            self.to(logits.device)
        origin = self.log_given[labels]
        if self.trusted is not None:
            rows = _check_batch_rows(rows, logits, self, "trusted marks", len(self.trusted))
            # chosen before the logarithm of the sum, since a choice after it would let the gradient of the other in
            origin = torch.where(self.trusted[rows, None], self.log_own[labels], origin)
        return -(_log_probs(logits) + origin).logsumexp(-1)


class _Weighted(Criterion):
    class_weights: Tensor

    def __init__(self, class_weights: Float[Tensor, " c"]):
        super().__init__(f"weighted(class_weights={_digest(class_weights)})")
        self.register_buffer("class_weights", class_weights, persistent=False)

    def begin(self, labels: Column) -> None:
        """Check that every label has a weight."""
        super().begin(check_labels(labels, len(self.class_weights)))

    def _terms(self, logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], rows: Column) -> Float[Tensor, " n"]:
        _check_width(logits, self.class_weights, "class_weights")
        if self.class_weights.device != logits.device:
            self.to(logits.device)
        return self.class_weights[labels] * _surprise(logits, labels)


def _check_marks(trusted: Column) -> Bool[Tensor, " n"]:
    marks = check_mask(trusted, "trusted").cpu()
    if not len(marks):
        raise ValueError("trusted is empty; it needs an entry for each row of the training set")
    return marks


def _digest(values: Tensor) -> str:
    return hashlib.sha256(values.cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def _check_width(logits: Float[Tensor, "n c"], per_class: Tensor, what: str) -> None:
    if logits.shape[1] != len(per_class):
        raise ValueError(
            f"{what} must have an entry a class; {len(per_class)} classes are given where the logits have "
            f"{logits.shape[1]}. Made for another data set?"
        )
