"""A stream of classes: a few at a time, each task learnt and gone, and all classes asked for after each.

    found = run_stream(learn, answer, labels, tested, order=torch.randperm(10).tolist(), each=2)
    found.accuracy  # [t, s]: on the classes of task t, after task s

`learn` takes what it returned for the task before, None at first, and the rows of the task; `answer` takes that and gives the
logits of all test images. A head whose state is a sum over examples gives the same answer in every order.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uqlib.base.arrays import Array, Column, Table, as_tensor
from uqlib.base.checks import check_finite, check_labels, check_logits
from uqlib.base.options import check_whole


class Streamed(NamedTuple):
    """What a head knew along a stream."""

    accuracy: Float[Tensor, "t t"]  # [t, s]: share of the test images of task t that is right after task s
    logits: Float[Tensor, "n c"]  # of all test images at the end
    mean: float  # of the accuracies of all classes at the end
    state: Any  # of the head at the end


def run_stream(
    learn: Callable[[Any, Int[Tensor, " k"]], Any],
    answer: Callable[[Any], Table],
    labels: Column,
    tested: Column,
    *,
    order: Sequence[int],
    each: int = 2,
) -> Streamed:
    """Learn classes in an order, some at a time, and ask about all of them after each task.

    Args:
        learn: state before and rows of the training images, to the state after.
        answer: state to logits of all test images, (n, c).
        labels: of the training images.
        tested: labels of the test images.
        order: every class once.
        each: classes a task; the last task may have fewer. All at once is no stream but the control.

    Raises:
        ValueError: if the order is none of the classes, a class has no training or no test image, or an answer has not a row a
            test image and a column a class.

    Examples:
        >>> import torch
        >>> from uqlib.heads import run_stream
        >>> labels = torch.arange(6) % 3
        >>> seen = lambda before, rows: (before or set()) | set(labels[rows].tolist())
        >>> told = lambda known: torch.eye(3)[labels] * torch.tensor([3.0 * (k in known) for k in range(3)])
        >>> run_stream(seen, told, labels, labels, order=[2, 1, 0], each=1).mean
        1.0
    """
    classes, each = len(order), check_whole(each, "each", least=1)
    if sorted(order) != list(range(classes)) or classes < 2:
        raise ValueError(f"order must hold every class once, such as [1, 0, 2]; it is {list(order)!r:.60}")
    y, wanted = check_labels(labels, classes), check_labels(tested, classes, name="tested")
    for name, column in {"labels": y, "tested": wanted}.items():
        if empty := sorted(set(range(classes)) - set(column.tolist())):
            raise ValueError(f"every class of the order needs an image; {name} has none of class {empty[0]}")
    tasks = [torch.as_tensor(order[start : start + each], device=y.device) for start in range(0, classes, each)]
    accuracy, state = torch.zeros(len(tasks), len(tasks), dtype=torch.float64), None
    for s, own in enumerate(tasks):
        state = learn(state, torch.isin(y, own).nonzero()[:, 0])
        logits = check_logits(answer(state), "the logits of answer").double()
        if logits.shape != (len(wanted), classes):
            raise ValueError(
                f"answer must give logits of all test images and classes, {(len(wanted), classes)}; their shape is "
                f"{tuple(logits.shape)}"
            )
        right = (logits.argmax(-1) == wanted.to(logits.device)).double()
        accuracy[:, s] = torch.stack([right[torch.isin(wanted, task)].mean() for task in tasks])
    mean = torch.stack([right[wanted == k].mean() for k in range(classes)]).mean().item()
    return Streamed(accuracy, logits, mean, state)


def stream_forgetting(accuracy: Array) -> float:
    """How much of what was known is gone at the end, lower is better: mean over all tasks but the last of best less last.

    Args:
        accuracy: (t, t) of `run_stream`. The best is taken from when a task was learnt to the last task but one.

    Examples:
        >>> import torch
        >>> from uqlib.heads import stream_forgetting
        >>> round(stream_forgetting(torch.tensor([[0.9, 0.6], [0.0, 0.8]])), 6)
        0.3
    """
    table = _square(accuracy)
    if len(table) < 2:
        raise ValueError("accuracy must be (t, t) of at least two tasks; with one, nothing can be forgotten")
    return torch.stack([table[t, t:-1].max() - table[t, -1] for t in range(len(table) - 1)]).mean().item()


def stream_plasticity(accuracy: Array) -> float:
    """How well each task is known right after it was learnt, higher is better: the mean of the diagonal.

    Args:
        accuracy: (t, t) of `run_stream`.

    Examples:
        >>> import torch
        >>> from uqlib.heads import stream_plasticity
        >>> round(stream_plasticity(torch.tensor([[0.9, 0.6], [0.0, 0.8]])), 6)
        0.85
    """
    return _square(accuracy).diagonal().mean().item()


def _square(accuracy: Array) -> Float[Tensor, "t t"]:
    table = as_tensor(accuracy, "accuracy").double()
    if table.ndim != 2 or len(table) != table.shape[1] or not len(table):
        raise ValueError(f"accuracy must be (t, t), as run_stream gives it; its shape is {tuple(table.shape)}")
    check_finite(table, "accuracy")
    if not ((table >= 0) & (table <= 1)).all():
        raise ValueError("accuracy must hold shares in [0, 1]. Percent? Divide by 100.")
    return table
