"""Losses of a training. Each is a callable that takes logits, labels and the rows of the training set, and gives a scalar.

A factory makes one from its options, all of them are in LOSSES, and `loss` makes one by name. The value is the mean
over the batch of `terms`, one an example, in nats. Logits in half precision are brought to float32 before the softmax.

Cui et al. 2023 (arXiv:2304.10127) and the losses that they compare with. The options that the baselines had in the
paper are partly not printed: see PUBLISHED.
"""

import hashlib
import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, distributed, nn

from uqlib.arrays import Array, Column, as_tensor, check_choice, check_fraction, check_rows, like

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (logits, labels, rows of the training set) -> scalar
Terms = Callable[[Tensor, Tensor, Tensor], Tensor]  # the same, an entry an example


class Criterion(nn.Module):
    """A loss of this file: the mean over the batch of its terms. It prints as its name with all options."""

    def __init__(self, name: str, terms: Terms | None = None):
        super().__init__()
        self.name = name
        if terms is not None:
            self.terms = terms

    def begin(self, labels: Int[Tensor, " n"]) -> None:
        """Called by a training before its first step, with the labels of all its rows."""

    def forward(
        self, logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], rows: Int[Tensor, " n"]
    ) -> Float[Tensor, ""]:
        """The mean of `terms`."""
        return self.terms(logits, labels, rows).mean()

    def __repr__(self) -> str:
        return self.name


def surprise(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """-log p of the label, nats: the cross entropy of each example; lower is better."""
    return -_log_probs(logits).gather(1, labels[:, None])[:, 0]


def entropy_of(logits: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    """H = -sum p log p over the classes, nats, between 0 and log c. The gradient reaches the logits."""
    log_probs = _log_probs(logits)
    return -(log_probs.exp() * log_probs).sum(-1)


def cross_entropy() -> Criterion:
    """-log p of the label."""
    return Criterion("cross_entropy()", lambda logits, labels, rows: surprise(logits, labels))


def label_smoothing(*, epsilon: float = 0.05) -> Criterion:
    """Cross entropy with the target (1 - epsilon) for the label, plus epsilon / c for every class.

    Raises:
        ValueError: if epsilon is outside [0, 1).

    Source:
        Szegedy et al. 2016 (arXiv:1512.00567), section 7.
    """
    check_fraction(epsilon, "epsilon", within="[0, 1)")

    def terms(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        return (1 - epsilon) * surprise(logits, labels) - epsilon * _log_probs(logits).mean(-1)

    return Criterion(f"label_smoothing(epsilon={epsilon})", terms)


def focal(*, gamma: float = 3.0, detached: bool = True) -> Criterion:
    """-(1 - p)^gamma log p, p the probability of the label: what is known already counts less.

    Args:
        gamma: >= 0; 0 is cross entropy.
        detached: no gradient through the factor (1 - p)^gamma, as in the code of Wang et al. 2021, whose options Cui et
            al. 2023 take over. With False it is the loss of Lin et al. 2017.

    Raises:
        ValueError: if gamma is negative or not finite.

    Source:
        Lin et al. 2017 (arXiv:1708.02002), equation 4.
    """
    _check_strength(gamma, "gamma")

    def terms(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        nll = surprise(logits, labels)
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
    _check_strength(strength, "strength")

    def terms(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        return surprise(logits, labels) + strength * _floats(logits).abs().sum(-1)

    return Criterion(f"l1_norm(strength={strength})", terms)


def entropy(*, alpha: float = 0.1) -> Criterion:
    """Cross entropy, less alpha times the entropy of the prediction: the same modesty for all examples.

    Raises:
        ValueError: if alpha is negative or not finite.

    Source:
        Pereyra et al. 2017 (arXiv:1701.06548); "ER" of Cui et al. 2023.
    """
    _check_strength(alpha, "alpha")

    def terms(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        return surprise(logits, labels) - alpha * entropy_of(logits)

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
    if not -1 <= epsilon < math.inf:
        raise ValueError(f"epsilon must be a finite number >= -1; it is {epsilon}")

    def terms(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        nll = surprise(logits, labels)
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
    _check_strength(alpha, "alpha")
    weights = _check_weights(weights)
    labels = None if labels is None else _check_integers(labels, len(weights))
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
    _check_count(examples, "examples")
    _check_strength(strength, "strength")
    return _Ranking(examples, strength)


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

# Alpha: Cui et al. 2023, for ImageNet in table 5; their ER and Poly on CIFAR are not stated. Label smoothing, focal and
# L1: the code of Wang, Feng & Zhang 2021 ("Rethinking Calibration of Deep Neural Networks"), which the paper follows.
# Ranking: the code of Moon et al. 2020.
PUBLISHED: dict[str, dict[str, dict[str, float]]] = {
    "cifar10": {
        "label_smoothing": {"epsilon": 0.05},
        "focal": {"gamma": 3.0},
        "l1_norm": {"strength": 0.05},
        "ranking": {"strength": 1.0},
        "difficulty": {"alpha": 0.3},
    },
    "cifar100": {
        "label_smoothing": {"epsilon": 0.09},
        "focal": {"gamma": 5.0},
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
        _check_count(examples, "examples")
        _check_count(epochs, "epochs")
        name = loss if isinstance(loss, Criterion) else getattr(loss, "__qualname__", type(loss).__qualname__)
        super().__init__(f"recorded({name}, examples={examples}, epochs={epochs})")
        self.loss = loss
        self.register_buffer("times", torch.zeros(examples, dtype=torch.int64))
        self.register_buffer("right", torch.zeros(epochs, examples, dtype=torch.bool))
        self.register_buffer("nll", torch.full((epochs, examples), math.nan))

    @property
    def correct(self) -> Bool[Tensor, "epochs n"]:
        """Whether the example was right each time; when it was seen less often, the last time stands for the rest."""
        last = (self.times - 1).clamp_min(0)
        epoch = torch.arange(len(self.right), device=last.device)[:, None]
        return self.right.gather(0, torch.minimum(epoch, last))

    def begin(self, labels: Int[Tensor, " n"]) -> None:
        """Check that the training has so many rows, and forget what was recorded before."""
        _check_all_rows(len(self.times), len(labels), "record")
        self.times.zero_()
        self.right.zero_()
        self.nll.fill_(math.nan)
        if isinstance(self.loss, Criterion):
            self.loss.begin(labels)

    def forward(
        self, logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], rows: Int[Tensor, " n"]
    ) -> Float[Tensor, ""]:
        """The loss, as it is."""
        if self.training:
            self._record(logits.detach(), labels, rows)
        return self.loss(logits, labels, rows)

    def _record(self, logits: Tensor, labels: Tensor, rows: Tensor) -> None:
        _check_batch_rows(rows, len(self.times), "record")
        rows, right, nll = _gathered(rows, logits.argmax(-1) == labels, surprise(logits, labels).float())
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
    if classes < 2:
        raise ValueError(f"classes must be at least 2; it is {classes}")
    strengths = as_tensor(strength).double()
    if not bool((strengths.isfinite() & (strengths >= 0)).all()):
        raise ValueError(f"strength must be finite and >= 0; it is {strength}")
    others = math.log(classes - 1)
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

    def begin(self, labels: Int[Tensor, " n"]) -> None:
        """Check that the training has as many rows as there are weights, and the labels that they belong to."""
        _check_all_rows(len(self.weights), len(labels), "weights")
        self._check(labels.to(self.weights.device), torch.arange(len(labels), device=self.weights.device))

    def terms(
        self, logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], rows: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        _check_batch_rows(rows, len(self.weights), "weights")
        self._check(labels, rows)
        return surprise(logits, labels) - self.alpha * (self.weights[rows] * entropy_of(logits))

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

    def begin(self, labels: Int[Tensor, " n"]) -> None:
        """Check that the training has so many rows, and forget the history of another one."""
        _check_all_rows(len(self.right), len(labels), "history")
        self.right.zero_()
        self.times.zero_()

    def terms(
        self, logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], rows: Int[Tensor, " n"]
    ) -> Float[Tensor, " n"]:
        _check_batch_rows(rows, len(self.right), "history")
        share = self.right / self.times.clamp_min(1)
        least = share.min()
        # an example that was always right is at 1; if all were, all are equal
        history = (share[rows] - least) / (1 - least).clamp_min(1e-12)
        confidence = _log_probs(logits).amax(-1).exp()
        ahead = history - history.roll(-1)  # by its sign, an equal pair has no penalty and no gradient
        penalty = ahead.abs() - ahead.sign() * (confidence - confidence.roll(-1))
        return surprise(logits, labels) + self.strength * penalty.clamp_min(0)

    def forward(
        self, logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], rows: Int[Tensor, " n"]
    ) -> Float[Tensor, ""]:
        value = super().forward(logits, labels, rows)  # with the history before this batch
        if self.training:
            rows, right = _gathered(rows, logits.detach().argmax(-1) == labels)
            self.right[rows] += right
            self.times[rows] += 1
        return value


def _floats(logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """At least float32: sums of exponentials need it, also where autocast computed the logits in half precision."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _log_probs(logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    return _floats(logits).log_softmax(-1)


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


def _check_strength(value: float, name: str) -> None:
    if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be a finite number >= 0; it is {value}")


def _check_count(value: int, name: str) -> None:
    if value < 1:
        raise ValueError(f"{name} must be at least 1; it is {value}")


def _check_weights(weights: Column) -> Float[Tensor, " n"]:
    weights = as_tensor(weights).float().clone()
    if weights.ndim != 1 or not len(weights):
        raise ValueError(f"weights must have one entry a training row (n,); their shape is {tuple(weights.shape)}")
    bad = ~(weights.isfinite() & (weights >= 0))
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ValueError(
            f"weights must be finite and >= 0; row {row} is {weights[row].item()}. "
            "Distances that were not normalised? Pass difficulty.weights of them."
        )
    return weights


def _check_integers(labels: Column, rows: int) -> Int[Tensor, " n"]:
    labels = as_tensor(labels)
    check_rows(labels, rows, "labels")
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"labels must be integers (n,); they are {labels.dtype} of shape {tuple(labels.shape)}")
    return labels.long()


def _check_all_rows(made_for: int, rows: int, what: str) -> None:
    if made_for != rows:
        verb = "belong" if what.endswith("s") else "belongs"
        raise ValueError(f"the {what} {verb} to a training set of {made_for} rows; this one has {rows}")


def _check_batch_rows(rows: Int[Tensor, " n"], made_for: int, what: str) -> None:
    outside = (rows < 0) | (rows >= made_for)
    if outside.any():
        verb = "belong" if what.endswith("s") else "belongs"
        row = int(rows[outside][0])
        raise ValueError(f"the {what} {verb} to a training set of {made_for} rows; row {row} came")
