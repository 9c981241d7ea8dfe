"""What a metric that updates keeps of the examples it has seen: rankings, bins, exact sums, counts of classes.

Each kind makes a part of a batch, adds parts, and gives the sum of all parts, which is a part again. Making a part changes
nothing, so a batch that is refused leaves no trace. Parts are exact: their sum is the same in any order, and what is
computed from it too. They live on the CPU.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from uqlib.base.arrays import as_tensor, by_rows
from uqlib.base.checks import check_classes, check_labels, check_mask, check_probs, check_share
from uqlib.base.exact import CHUNK, exact_sum, exact_sums, rounded_mean
from uqlib.metrics.bins import Bins, bin_by_width, place_by_width
from uqlib.metrics.ranking import Ranking, merge_rankings, rank


class Sum(NamedTuple):
    """A number of examples and the exact sum of one value an example."""

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs
    total: int  # in the units of `exact_sum`


class Cells(NamedTuple):
    """Bins of equal width, with exact sums of confidence."""

    count: list[int]  # type: ignore[assignment]
    correct: list[int]
    confidence: list[int]  # in the units of `exact_sum`


class Classes(NamedTuple):
    """The classes that were seen, in ascending order, and how often."""

    classes: Int[Tensor, " k"]
    hits: Int[Tensor, " k"]
    labelled: Int[Tensor, " k"]
    predicted: Int[Tensor, " k"]


class Kept(ABC):
    """What one kind keeps. A part is of a batch, or of all batches so far."""

    @abstractmethod
    def part(self, *arrays: Any) -> Any:
        """The part of a batch, whose arrays are checked here. Changes nothing."""

    def check(self, part: Any) -> None:  # noqa: B027  # most parts always can
        """Raise a ValueError if the part cannot be added."""

    @abstractmethod
    def add(self, part: Any) -> None:
        """Take a part that suits."""

    @abstractmethod
    def whole(self) -> Any:
        """The part of all batches so far."""


class Sums(Kept):
    """Keeps the exact sum of one value an example, such as `nll_each`."""

    def __init__(self, each: Callable[..., Any]):
        self.each, self.sum = each, Sum(0, 0)

    def part(self, *arrays: Any) -> Sum:
        values = as_tensor(self.each(*arrays))
        return Sum(len(values), exact_sum(values.double()))

    def add(self, part: Sum) -> None:
        self.sum = Sum(self.sum.count + part.count, self.sum.total + part.total)

    def whole(self) -> Sum:
        return self.sum

    def mean(self) -> float:
        return rounded_mean(self.sum.total, self.sum.count)


class Ranks(Kept):
    """Keeps a Ranking.

    Rankings wait until together they are longer than what is merged: memory grows with the distinct scores, and the
    sorting of n examples in batches costs n log n.
    """

    def __init__(self, names: tuple[str, str]):
        self.names = names
        self.parts: list[Ranking] = []  # the first is merged, the others wait
        self.waiting = 0

    def part(self, score: Any, positive: Any) -> Ranking:
        return Ranking(*(column.cpu() for column in rank(score, positive, names=self.names)))

    def add(self, part: Ranking) -> None:
        self.parts.append(part)
        self.waiting += len(part.scores)
        if self.waiting > 2 * len(self.parts[0].scores):
            self.whole()

    def whole(self) -> Ranking:
        if len(self.parts) > 1:
            self.parts = [merge_rankings(*self.parts)]
        self.waiting = len(self.parts[0].scores)
        return self.parts[0]

    def rows(self) -> tuple[Tensor, Tensor]:
        """The examples themselves, from the highest score to the lowest, for what takes no Ranking."""
        scores, count, positives = self.whole()
        hits = torch.stack([positives, count - positives], 1).reshape(-1)
        return scores.repeat_interleave(count), torch.tensor([True, False]).repeat(len(count)).repeat_interleave(hits)


class Widths(Kept):
    """Keeps bins of equal width. The size does not grow with the data."""

    def __init__(self, bins: int):
        self.made = bin_by_width(torch.ones(1), torch.ones(1, dtype=torch.bool), bins=bins)  # which knows the edges
        self.cells = Cells([], [], [])

    def part(self, confidence: Any, correct: Any) -> Cells:
        score = check_share(confidence)
        return self._cells(score, check_mask(correct, rows=len(score), device=score.device), 0, 1)

    def add(self, part: Cells) -> None:
        pairs = zip(self.cells, part, strict=True)
        self.cells = Cells(*([a + b for a, b in zip(*pair, strict=True)] if pair[0] else pair[1] for pair in pairs))

    def whole(self) -> Cells:
        return self.cells

    def bins(self, column: int = 0) -> Bins:
        """The Bins that the metrics take, each sum of confidence rounded once."""
        size = len(self.made.upper)
        count, correct, sums = (cells[column * size : (column + 1) * size] for cells in self.cells)
        confidence = torch.tensor([rounded_mean(each, 1) for each in sums], dtype=torch.float64)
        return replace(self.made, count=torch.tensor(count), confidence=confidence, correct=torch.tensor(correct))

    def _cells(self, score: Tensor, hit: Tensor, column: Tensor | int, columns: int) -> Cells:
        """The cells of the bins of each column in turn."""
        size = len(self.made.upper)
        place = torch.cat([place_by_width(part, size) for (part,) in by_rows(CHUNK, score)]) + size * column
        count, right = (torch.bincount(each, minlength=size * columns).tolist() for each in (place, place[hit]))
        return Cells(count, right, exact_sums(score, place, size * columns))


class ClassWidths(Widths):
    """Keeps bins of equal width for the probability of each class, one class after the other."""

    def part(self, probs: Any, labels: Any) -> Cells:
        table, labels = _class_columns(probs, labels)
        classes = len(table)
        column = torch.arange(classes, device=table.device).repeat_interleave(len(labels))
        return self._cells(table.reshape(-1), labels.repeat(classes) == column, column, classes)

    def check(self, part: Cells) -> None:
        size = len(self.made.upper)
        _check_columns(len(self.cells.count) // size, len(part.count) // size)

    def columns(self) -> list[Bins]:
        return [self.bins(k) for k in range(len(self.cells.count) // len(self.made.upper))]


class ClassRanks(Kept):
    """Keeps a Ranking of the probability of each class by whether it is the label."""

    def __init__(self) -> None:
        self.ranks: list[Ranks] = []

    def part(self, probs: Any, labels: Any) -> list[Ranking]:
        table, labels = _class_columns(probs, labels)
        return [Ranks(("probs", "labels")).part(column, labels == k) for k, column in enumerate(table)]

    def check(self, part: list[Ranking]) -> None:
        _check_columns(len(self.ranks), len(part))

    def add(self, part: list[Ranking]) -> None:
        self.ranks = self.ranks or [Ranks(("probs", "labels")) for _ in part]
        for ranks, each in zip(self.ranks, part, strict=True):
            ranks.add(each)

    def whole(self) -> list[Ranking]:
        return [ranks.whole() for ranks in self.ranks]


def _class_columns(probs: Any, labels: Any) -> tuple[Float[Tensor, "c n"], Int[Tensor, " n"]]:
    probs = check_probs(probs)
    labels = check_labels(labels, probs.shape[1], rows=len(probs), device=probs.device)
    return probs.clamp(max=1).T.contiguous(), labels  # rounding may leave a probability just above 1


def _check_columns(before: int, now: int) -> None:
    if before and before != now:
        raise ValueError(f"probs must have {before} columns, one a class, as before; now there are {now}")


class Confusions(Kept):
    """Keeps how often each class was right, was the label, and was predicted."""

    def __init__(self, classes: int | None = None):
        self.most, self.seen = classes, Classes(*(torch.zeros(0, dtype=torch.int64) for _ in range(4)))

    def part(self, preds: Any, labels: Any) -> Classes:
        if self.most is None:
            preds, labels = check_classes(preds, labels)
        else:
            preds = check_labels(preds, self.most, name="preds")
            labels = check_labels(labels, self.most, rows=len(preds), device=preds.device)
        classes, place = torch.stack([preds, labels]).cpu().unique(return_inverse=True)
        predicted, labelled = place
        counted = (labelled[predicted == labelled], labelled, predicted)
        return Classes(classes, *(torch.bincount(each, minlength=len(classes)) for each in counted))

    def add(self, part: Classes) -> None:
        classes, place = torch.cat([self.seen.classes, part.classes]).unique(return_inverse=True)
        both = zip(self.seen[1:], part[1:], strict=True)
        counts = (torch.zeros(len(classes), dtype=torch.int64).index_add(0, place, torch.cat(pair)) for pair in both)
        self.seen = Classes(classes, *counts)

    def whole(self) -> Classes:
        return self.seen
