"""Losses of a training. Each is a callable that takes logits, labels and the rows of the training set, and gives a scalar.

A factory makes one from its options, all of them are in LOSSES, and `loss` makes one by name. The value is the mean
over the batch of `terms`, one an example, in nats. Logits in half precision are brought to float32 before the softmax.
A logit of -inf takes its class out. Labels and rows are brought to the device of the logits.

In a training step (logits that require a gradient) a NaN in the logits is a NaN in the loss, since a look would make a GPU
wait; `training.train` refuses it. All other logits are looked at.

Cui et al. 2023 (arXiv:2304.10127) and the losses that they compare with. A loss under another paper's name is that paper's
by default; the options that it had as a baseline are in PUBLISHED, and partly not printed.
"""

import hashlib
import inspect
import math
from collections.abc import Callable
from numbers import Real
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, distributed, nn

from uqlib.arrays import (
    Array,
    Column,
    Table,
    as_tensor,
    check_choice,
    check_fraction,
    check_labels,
    check_number,
    check_whole,
    check_whole_column,
    like,
)

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (logits, labels, rows of the training set) -> scalar
Terms = Callable[[Tensor, Tensor, Tensor], Tensor]  # the same, an entry an example


class Criterion(nn.Module):
    """A loss of this file: the mean over the batch of its terms. It prints as its name with all options."""

    def __init__(self, name: str, terms: Terms | None = None):
        super().__init__()
        self.name = name
        self.classes: int | None = None  # what the labels need, once all of them have been seen
        if terms is not None:
            self._terms = terms

    def begin(self, labels: Column) -> None:
        """Called by a training before its first step, with the labels of all its rows: they are checked once, here."""
        self.classes = int(check_labels(labels, None).max()) + 1

    def terms(self, logits: Table, labels: Column, rows: Column) -> Float[Tensor, " n"]:
        """An entry an example, in the order of the batch.

        Args:
            logits: (n, c), the network's output before the softmax; the gradient reaches a tensor.
            labels: (n,), classes in [0, c). The -100 that torch's own loss leaves out is refused.
            rows: (n,), of the training set; a loss that keeps nothing an example does not look at them.

        Raises:
            TypeError: if logits are no floats, or labels or rows are no integers.
            ValueError: if shapes differ, a label or a row lies outside, or logits that need no gradient are NaN.
        """
        return self._terms(*_checked(logits, labels, self), rows)

    def forward(self, logits: Table, labels: Column, rows: Column) -> Float[Tensor, ""]:
        """The mean of `terms`."""
        return self.terms(logits, labels, rows).mean()

    def __repr__(self) -> str:
        return self.name


def surprise(logits: Table, labels: Column) -> Float[Tensor, " n"]:
    """-log p of the label, nats: the cross entropy of each example; lower is better.

    Raises:
        TypeError, ValueError: as `Criterion.terms`.
    """
    return _surprise(*_checked(logits, labels))


def entropy_of(logits: Table) -> Float[Tensor, " n"]:
    """H = -sum p log p over the classes, nats, between 0 and log c. The gradient reaches the logits.

    Raises:
        TypeError: if logits are no floats.
        ValueError: if they are not (n, c), or those that need no gradient are NaN.
    """
    return _entropy_of(_check_logits(logits))


def cross_entropy() -> Criterion:
    """-log p of the label."""
    return Criterion("cross_entropy()", lambda logits, labels, rows: _surprise(logits, labels))


def label_smoothing(*, epsilon: float = 0.1) -> Criterion:
    """Cross entropy with the target (1 - epsilon) for the label, plus epsilon / c for every class.

    Args:
        epsilon: in [0, 1); 0.1 in the source. PUBLISHED has those of Cui et al. 2023.

    Raises:
        ValueError: if epsilon is outside [0, 1).

    Source:
        Szegedy et al. 2016 (arXiv:1512.00567), section 7.
    """
    epsilon = check_fraction(epsilon, "epsilon", within="[0, 1)")

    def terms(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        return (1 - epsilon) * _surprise(logits, labels) - epsilon * _log_probs(logits).mean(-1)

    return Criterion(f"label_smoothing(epsilon={epsilon})", terms)


def focal(*, gamma: float = 2.0, detached: bool = False) -> Criterion:
    """-(1 - p)^gamma log p, p the probability of the label: what is known already counts less.

    Args:
        gamma: >= 0; 0 is cross entropy. 2 is the best of the source, which weighs the classes too (its alpha): not here.
        detached: no gradient through the factor (1 - p)^gamma: another loss, that of the code of Wang et al. 2021, whose
            options Cui et al. 2023 take over (PUBLISHED).

    Raises:
        ValueError: if gamma is negative or not finite.

    Source:
        Lin et al. 2017 (arXiv:1708.02002), equation 4.
    """
    gamma = check_number(gamma, "gamma", least=0)
    if not isinstance(detached, bool):
        raise TypeError(f"detached must be True or False; it is {detached!r}")

    def terms(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        nll = _surprise(logits, labels)
        rest = -torch.expm1(-nll)  # 1 - p
        # 0^gamma has an infinite slope for gamma < 1
        factor = rest.clamp_min(torch.finfo(rest.dtype).tiny) ** gamma
        return (factor.detach() if detached else factor) * nll

    return Criterion(f"focal(gamma={gamma}, detached={detached})", terms)


def l1_norm(*, strength: float = 0.05) -> Criterion:
    """Cross entropy, plus strength times the sum of the absolute logits.

    Raises:
        ValueError: if the strength is negative or not finite.

    Source:
        The baseline "L1 norm" of Cui et al. 2023, table 2; the penalty is on the logits, as in Wang et al. 2021.
    """
    strength = check_number(strength, "strength", least=0)

    def terms(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        return _surprise(logits, labels) + strength * _floats(logits).abs().sum(-1)

    return Criterion(f"l1_norm(strength={strength})", terms)


def entropy(*, alpha: float = 0.1) -> Criterion:
    """Cross entropy, less alpha times the entropy of the prediction: the same modesty for all examples.

    Raises:
        ValueError: if alpha is negative or not finite.

    Source:
        Pereyra et al. 2017 (arXiv:1701.06548); "ER" of Cui et al. 2023.
    """
    alpha = check_number(alpha, "alpha", least=0)

    def terms(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        return _surprise(logits, labels) - alpha * _entropy_of(logits)

    return Criterion(f"entropy(alpha={alpha})", terms)


def poly(*, epsilon: float = 1.0) -> Criterion:
    """Poly-1: cross entropy, plus epsilon (1 - p), p the probability of the label.

    Args:
        epsilon: at least -1; below that the loss would reward small p. 0 is cross entropy.

    Raises:
        ValueError: if epsilon is below -1 or not finite.

    Source:
        Leng et al. 2022 (arXiv:2204.12511), Poly-1. Cui et al. 2023 do not say their epsilon.
    """
    epsilon = check_number(epsilon, "epsilon", least=-1)

    def terms(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        nll = _surprise(logits, labels)
        return nll - epsilon * torch.expm1(-nll)  # expm1(-nll) is p - 1

    return Criterion(f"poly(epsilon={epsilon})", terms)


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


LOSSES: dict[str, Callable[..., Criterion]] = {
    "cross_entropy": cross_entropy,
    "label_smoothing": label_smoothing,
    "focal": focal,
    "l1_norm": l1_norm,
    "entropy": entropy,
    "poly": poly,
    "ranking": ranking,
    "difficulty": difficulty,
}

# What the losses had in Cui et al. 2023, by data set; `loss("focal", **PUBLISHED["cifar10"]["focal"])` is their baseline,
# where focal() is that of Lin et al. The trainings of data/trainings.toml are held to it.
# Alpha: Cui et al. 2023, for ImageNet in table 5; their ER and Poly on CIFAR are not stated. Label smoothing, focal and
# L1: the code of Wang, Feng & Zhang 2021 ("Rethinking Calibration of Deep Neural Networks"), which the paper follows.
# Ranking: the code of Moon et al. 2020.
PUBLISHED: dict[str, dict[str, dict[str, float | bool]]] = {
    "cifar10": {
        "label_smoothing": {"epsilon": 0.05},
        "focal": {"gamma": 3.0, "detached": True},
        "l1_norm": {"strength": 0.05},
        "ranking": {"strength": 1.0},
        "difficulty": {"alpha": 0.3},
    },
    "cifar100": {
        "label_smoothing": {"epsilon": 0.09},
        "focal": {"gamma": 5.0, "detached": True},
        "l1_norm": {"strength": 0.01},
        "ranking": {"strength": 1.0},
        "difficulty": {"alpha": 0.3},
    },
    "imagenet": {"entropy": {"alpha": 0.1}, "difficulty": {"alpha": 0.2}},
}


def loss(name: str, **options: Any) -> Criterion:
    """The loss of that name in LOSSES, with the options of its factory.

    Raises:
        ValueError: if the name or an option is unknown, or a value is refused by the factory.
    """
    make = LOSSES[check_choice(name, LOSSES, "loss")]
    known = inspect.signature(make).parameters
    for option in options:
        if option not in known:
            raise ValueError(f"unknown option {option!r} of {name}; it takes {', '.join(known) or 'none'}")
    missing = [each for each in known if known[each].default is inspect.Parameter.empty and each not in options]
    if missing:
        raise ValueError(f"{name} needs {', '.join(missing)}")
    return make(**options)


class Recorded(Criterion):
    """Any loss, with a record of what became of each training example. The training itself is the same.

    Row k of `correct` and `nll` (epochs, n) tells how it stood when the example was seen for the (k + 1)th time, which
    is in epoch k + 1 unless an epoch left it out; `times` (n,) counts. All three are part of a checkpoint, which grows
    by 5 bytes an example and epoch. They start anew with each training.

    Args:
        loss: what is trained.
        examples: rows of the training set.
        epochs: of the training, at least.

    Raises:
        ValueError: if examples or epochs are not positive; in a training, if a row lies beyond the examples or is seen
            more often than there are epochs.
    """

    def __init__(self, loss: Loss, *, examples: int, epochs: int):
        examples, epochs = check_whole(examples, "examples", least=1), check_whole(epochs, "epochs", least=1)
        if not callable(loss):
            raise TypeError(f"loss must be a loss, such as losses.cross_entropy(); it is {loss!r}")
        name = loss if isinstance(loss, Criterion) else getattr(loss, "__qualname__", type(loss).__qualname__)
        super().__init__(f"recorded({name}, examples={examples}, epochs={epochs})")
        self.loss = loss
        self.register_buffer("times", torch.zeros(examples, dtype=torch.int64))
        self.register_buffer("right", torch.zeros(epochs, examples, dtype=torch.bool))
        self.register_buffer("nll", torch.full((epochs, examples), math.nan, dtype=torch.float32))

    @property
    def correct(self) -> Bool[Tensor, "epochs n"]:
        """Whether the example was right each time; when it was seen less often, the last time stands for the rest."""
        last = (self.times - 1).clamp_min(0)
        epoch = torch.arange(len(self.right), device=last.device)[:, None]
        return self.right.gather(0, torch.minimum(epoch, last))

    def begin(self, labels: Column) -> None:
        """Check that the training has so many rows, and forget what was recorded before."""
        super().begin(labels)
        _check_all_rows(len(self.times), len(labels), "record")
        self.times.zero_()
        self.right.zero_()
        self.nll.fill_(math.nan)
        if isinstance(self.loss, Criterion):
            self.loss.begin(labels)

    def forward(self, logits: Table, labels: Column, rows: Column) -> Float[Tensor, ""]:
        """The loss, as it is."""
        logits, labels = _checked(logits, labels, self)
        if self.training:
            self._record(logits.detach(), labels, rows)
        return self.loss(logits, labels, rows)

    def _record(self, logits: Tensor, labels: Tensor, rows: Column) -> None:
        rows = _check_batch_rows(rows, logits, self, "record", len(self.times))
        rows, right, nll = _gathered(rows, logits.argmax(-1) == labels, _surprise(logits, labels).float())
        time = self.times[rows]
        if (time >= len(self.right)).any():
            raise ValueError(
                f"the record has room for {len(self.right)} epochs; row {int(rows[time.argmax()])} came once more"
            )
        self.right[time, rows], self.nll[time, rows] = right, nll
        self.times[rows] += 1


def optimal_confidence(strength: float | Column, classes: int) -> float | Float[Array, "..."]:
    """Probability of the label at which cross entropy less strength times entropy is least, for one example.

    The loss of one example, -log p - strength H, is convex in the probabilities. At its minimum the other classes share
    the rest equally, and its derivative in the logits vanishes where z = log(p (c - 1) / (1 - p)), the lead of the
    label's logit over the others, satisfies z p = 1 / strength. No logits can do better than 1 for strength 0. That is
    what `entropy` (strength alpha) and `difficulty` (strength alpha times weight) drive a network towards that can fit
    every example.

    Args:
        strength: >= 0, one or many.
        classes: c, at least 2.

    Returns:
        In (1 / c, 1], float64, exact to 1e-12; a float for a float.

    Raises:
        ValueError: if a strength is negative or not finite, or there are fewer than 2 classes.
    """
    others = math.log(check_whole(classes, "classes", least=2) - 1)
    strengths = _check_strengths(strength)
    target = 1 / strengths.clamp_min(1e-300)  # below that, p is 1 to the last bit
    z = target  # log z + log p is increasing and concave, and not above its goal here, so Newton's steps never overshoot
    for _ in range(50):  # they square the error; about ten suffice
        log_p = nn.functional.logsigmoid(z - others)
        z = z + (target.log() - z.log() - log_p) / (1 / z - torch.expm1(log_p))
    probs = torch.sigmoid(z - others)
    return probs.item() if probs.ndim == 0 else like(probs, strength)


class _Difficulty(Criterion):
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


def _floats(logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """At least float32: sums of exponentials need it, also where autocast computed the logits in half precision."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _log_probs(logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    return _floats(logits).log_softmax(-1)


def _surprise(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    return -_log_probs(logits).gather(1, labels[:, None])[:, 0]


def _entropy_of(logits: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    log_probs = _log_probs(logits)
    # a class with a logit of -inf adds 0 log 0 = 0, and no gradient; minus infinity itself would make it NaN
    return -(log_probs.exp() * log_probs.clamp_min(torch.finfo(log_probs.dtype).min)).sum(-1)


def _checked(logits: Table, labels: Column, criterion: Criterion | None = None) -> tuple[Tensor, Tensor]:
    """Logits, and labels as int64 beside them. On a GPU the labels of a training are looked at once, in its `begin`."""
    logits = _check_logits(logits)
    if not _plain(labels, logits, None if criterion is None else criterion.classes):
        labels = check_labels(labels, logits.shape[1], rows=len(logits))
        if criterion is not None and criterion.classes is None and labels.device.type != "cpu":
            criterion.classes = logits.shape[1]  # without a `begin` the first batch stands for all
    return logits, labels if labels.device == logits.device else labels.to(logits.device)


def _plain(labels: Column, logits: Float[Tensor, "n c"], known: int | None) -> bool:
    """Whether the labels need no further look; true for nearly all steps of a training, so it is quick."""
    if not isinstance(labels, Tensor) or labels.dtype != torch.int64 or labels.layout != torch.strided:
        return False
    if labels.shape != logits.shape[:1]:
        return False
    if logits.requires_grad or labels.device.type != "cpu":
        return known is not None and known <= logits.shape[1]
    least, largest = labels.aminmax()
    return least.item() >= 0 and largest.item() < logits.shape[1]


def _gathered(*columns: Tensor) -> tuple[Tensor, ...]:
    """The columns of all processes, one after the other; a training gives each process a share of the same size."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return columns
    gathered = []
    for column in columns:
        parts = [torch.empty_like(column) for _ in range(distributed.get_world_size())]
        distributed.all_gather(parts, column.contiguous())
        gathered.append(torch.cat(parts))
    return tuple(gathered)


def _check_logits(logits: Table) -> Float[Tensor, "n c"]:
    """Rows before the softmax, with their gradient. Those that need none are looked at: only -inf may be not finite."""
    table = as_tensor(logits, "logits")
    if table.dtype == torch.bool:
        raise TypeError(f"logits must be real numbers; they are {table.dtype}")
    if isinstance(logits, Tensor) and logits.dtype == table.dtype:
        table = logits  # as it was: with its gradient, on its device
    if table.ndim != 2 or table.shape[1] < 2 or not len(table):
        raise ValueError(
            f"logits must have shape (n, c) with at least one row and c >= 2 classes; it is {tuple(table.shape)}. "
            "One logit z of two classes? Pass the columns 0 and z."
        )
    if not table.requires_grad and not table.amax(-1).isfinite().all():
        row = int((~table.amax(-1).isfinite()).nonzero()[0])
        raise ValueError(
            f"logits must be finite, or -inf for a class that is left out; the largest of row {row} is "
            f"{table[row].amax().item()}. Has the training diverged?"
        )
    return table


def _check_strengths(strength: float | Column) -> Float[Tensor, "..."]:
    if isinstance(strength, Real) or getattr(strength, "ndim", 1) == 0:
        return torch.tensor(check_number(strength, "strength", least=0), dtype=torch.float64)
    strengths = as_tensor(strength, "strength")
    if strengths.dtype == torch.bool or not strengths.numel():
        raise TypeError(f"strength must be one or more real numbers; it is {strengths.dtype} {tuple(strengths.shape)}")
    strengths = strengths.double()
    bad = ~(strengths.isfinite() & (strengths >= 0))
    if bad.any():
        raise ValueError(f"strength must be finite and >= 0; one is {strengths[bad][0].item()}")
    return strengths


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


def _check_all_rows(made_for: int, rows: int, what: str) -> None:
    if made_for != rows:
        verb = "belong" if what.endswith("s") else "belongs"
        raise ValueError(f"the {what} {verb} to a training set of {made_for} rows; this one has {rows}")


def _check_batch_rows(
    rows: Column, logits: Float[Tensor, "n c"], criterion: Criterion, what: str, made_for: int
) -> Int[Tensor, " n"]:
    """Rows in [0, made_for) as int64 beside the logits, and what the criterion keeps there too."""
    rows = check_whole_column(rows, "rows", len(logits)).to(logits.device)
    if next(criterion.buffers()).device != logits.device:
        criterion.to(logits.device)
    outside = (rows < 0) | (rows >= made_for)
    if outside.any():
        verb = "belong" if what.endswith("s") else "belongs"
        row = int(rows[outside][0])
        raise ValueError(f"the {what} {verb} to a training set of {made_for} rows; row {row} came")
    return rows
