"""How hard an example is by what its own training says: its loss, how often it was forgotten."""

import torch
from jaxtyping import Float, Int

from uqlib.base.arrays import Array, Column, Table, as_tensor, by_rows, like
from uqlib.base.checks import check_labels, check_logits, check_mask
from uqlib.difficulty.statistics import ROWS


def training_loss(logits: Table, labels: Column) -> Float[Array, " n"]:
    """Cross entropy of each example in nats, float64: higher = harder for the network that gave the logits.

    Raises:
        ValueError: if logits are not finite or are probabilities, or a label is outside [0, c).

    Source:
        Cui et al. 2023 (arXiv:2304.10127), measure "Loss".

    Examples:
        >>> from uqlib.difficulty import training_loss
        >>> training_loss([[2.0, 0.0], [2.0, 0.0]], [0, 1]).round(3)
        array([0.127, 2.127])
    """
    table = check_logits(logits)
    y = check_labels(labels, table.shape[1], rows=len(table), device=table.device)
    parts = (rows.double().log_softmax(-1).gather(1, at[:, None])[:, 0] for rows, at in by_rows(ROWS, table, y))
    return like(-torch.cat(list(parts)), logits)


def forgetting(correct: Table) -> Int[Array, " n"]:
    """How often each example was right after one epoch and wrong after the next: higher = harder.

    An example that was never right counts as the number of epochs, more than any other can reach; the source sorts it
    last, as infinite.

    Args:
        correct: (epochs, n), whether each example was right after each epoch.

    Raises:
        ValueError: if there are fewer than two epochs, or an entry is neither true nor false.

    Source:
        Toneva et al. 2019 (arXiv:1812.05159), section 3.

    Examples:
        >>> from uqlib.difficulty import forgetting
        >>> forgetting([[False, True], [True, False], [True, True]])  # three epochs of two examples
        array([0, 1])
    """
    table = as_tensor(correct, "correct")
    if table.ndim != 2 or len(table) < 2 or not table.numel():
        raise ValueError(f"correct must have shape (epochs, n) with two epochs or more; it is {tuple(table.shape)}")
    right = torch.stack([check_mask(row, f"correct after epoch {epoch}") for epoch, row in enumerate(table)])
    events = (right[:-1] & ~right[1:]).sum(0)
    return like(torch.where(right.any(0), events, len(right)), correct)
