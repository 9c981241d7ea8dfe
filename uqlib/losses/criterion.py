"""What a loss is: a callable of logits, labels and rows that gives a scalar, and a record of what became of each example.

The value is the mean over the batch of `terms`, one an example, in nats. Logits in half precision are brought to float32
before the softmax.
A logit of -inf takes its class out. Labels and rows are brought to the device of the logits.

In a training step (logits that require a gradient) a NaN in the logits is a NaN in the loss, since a look would make a GPU
wait; `training.train` refuses it. All other logits are looked at.

Cui et al. 2023 (arXiv:2304.10127) and the losses that they compare with. A loss under another paper's name is that paper's
by default; the options that it had as a baseline are in `uqlib.papers.cui2023`, and partly not printed.
"""

import math
from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, distributed, nn

from uqlib.base.arrays import Column, Table, as_tensor
from uqlib.base.checks import check_labels, check_whole_column
from uqlib.base.options import check_whole

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]  # (logits, labels, rows of the training set) -> scalar
Terms = Callable[[Tensor, Tensor, Tensor], Tensor]  # the same, an entry an example


class Criterion(nn.Module):
    """A loss of this file: the mean over the batch of its terms. It prints as its name with all options."""

    by_row: bool = False  # whether something is kept for each row of the training set

    def __init__(self, name: str, terms: Terms | None = None):
        super().__init__()
        self.name = name
        self.classes: int | None = None  # what the labels need, once all of them have been seen
        if terms is not None:
            self._terms = terms

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Criterion":
        """A change of precision, such as `half()`, leaves what is kept as it is; only the device changes."""
        kept = dict(self._buffers)
        super()._apply(fn, recurse)
        for name, before in kept.items():
            now = self._buffers[name]
            if before is not None and now is not None and now.dtype != before.dtype:
                self._buffers[name] = before.to(now.device)
        return self

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
        table, classes = _checked(logits, labels, self)
        return self._terms(table, classes, cast(Tensor, rows))  # whoever looks at the rows checks them

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

    by_row = True
    times: Tensor
    right: Tensor
    nll: Tensor

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
        return self.loss(logits, labels, cast(Tensor, rows))  # as they came

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
    table = _check_logits(logits)
    if isinstance(labels, Tensor) and _plain(labels, table, None if criterion is None else criterion.classes):
        classes = labels
    else:
        classes = check_labels(labels, table.shape[1], rows=len(table))
        if criterion is not None and criterion.classes is None and classes.device.type != "cpu":
            criterion.classes = table.shape[1]  # without a `begin` the first batch stands for all
    return table, classes if classes.device == table.device else classes.to(table.device)


def _plain(labels: Tensor, logits: Float[Tensor, "n c"], known: int | None) -> bool:
    """Whether the labels need no further look; true for nearly all steps of a training, so it is quick."""
    if labels.dtype != torch.int64 or labels.layout != torch.strided:
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
