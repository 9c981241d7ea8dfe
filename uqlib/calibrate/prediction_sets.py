"""Conformal prediction sets: the classes that a new example may have, with a promised probability of holding its label.

A score says how odd each class would be; a set holds the classes whose score is at most the threshold of the held-out
examples. Sums that are equal but for rounding count as equal, which can only enlarge a set.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uqlib.base.arrays import Array, Column, Table, as_tensor, by_rows, like
from uqlib.base.checks import check_labels, check_probs
from uqlib.base.options import check_choice, check_fraction, check_number, check_whole
from uqlib.base.splits import uniform_numbers
from uqlib.calibrate.conformal import conformal_threshold

CHUNK = 2**19  # probabilities taken at a time
ROUNDING = 1e-12  # by how much a score may lie above the threshold: sums of one set of numbers in two orders
SET_SCORES = ("thr", "aps", "raps")


@dataclass(frozen=True)
class PredictionSets:
    """Thresholds of scores, from which the sets of other examples follow."""

    score: str
    coverage: float  # promised
    thresholds: Float[Array, " t"]  # one for all, or one a group, or one a class; infinite where too few were held out
    groups: Int[Array, " t"] | None  # the groups of the thresholds
    by_class: bool
    randomized: bool
    seed: int
    penalty: float
    k_reg: int
    count: int  # examples of the fit

    def sets(self, probs: Table, groups: Column | None = None, *, never_empty: bool = False) -> Bool[Array, "n c"]:
        """Whether each class is in the set of each example.

        Args:
            probs: (n, c), of the network that was fitted.
            groups: (n,), if the fit had groups.
            never_empty: put the most probable class into a set that is empty. It can only raise the coverage.

        Raises:
            ValueError: if groups are missing, not wanted or unknown to the fit, or the rows are not probabilities.
        """
        table = check_probs(probs)
        limit = self._limits(table, groups)
        noise = torch.zeros(len(table), dtype=torch.float64)
        if self.randomized:  # the numbers behind those of the fit
            noise = torch.from_numpy(uniform_numbers(self.count + len(table), seed=self.seed)[self.count :])
        noise = noise.to(table.device)
        limits = limit if limit.shape[0] == len(table) and not self.by_class else limit.expand(len(table), -1)
        found = torch.cat(
            [
                _scores_of_all(part, random, self.score, self.penalty, self.k_reg) <= most + ROUNDING
                for part, random, most in by_rows(CHUNK // table.shape[1], table, noise, limits)
            ]
        )
        if never_empty:
            empty = (~found.any(-1)).nonzero()[:, 0]
            found[empty, table[empty].argmax(-1)] = True
        return like(found, probs)

    def _limits(self, table: Float[Tensor, "n c"], groups: Column | None) -> Float[Tensor, "r k"]:
        """Thresholds that broadcast with the scores."""
        limits = as_tensor(self.thresholds).to(table.device)
        if self.by_class and len(limits) != table.shape[1]:
            raise ValueError(f"probs must have the {len(limits)} classes of the fit; they have {table.shape[1]}")
        if (groups is None) != (self.groups is None):
            said = "the fit had groups" if groups is None else "the fit had none"
            raise ValueError(f"groups must be given where they were for the fit, and there alone; {said}")
        if groups is None or self.groups is None:
            return limits[None]
        known = as_tensor(self.groups).to(table.device)
        number = check_labels(groups, None, rows=len(table), name="groups", device=table.device)
        place = torch.searchsorted(known, number).clamp(max=len(known) - 1)
        if (known[place] != number).any():
            row = int((known[place] != number).nonzero()[0])
            raise ValueError(
                f"groups must be known to the fit; row {row} is {number[row].item()}, the fit had {known.tolist()}. Of a "
                "group that was not held out nothing can be promised."
            )
        return limits[place][:, None]


class SetSummary(NamedTuple):
    """What prediction sets are worth."""

    coverage: float  # share of the sets that hold the label
    size: float  # mean number of classes
    empty: float  # share of the sets without a class
    single: float  # share of the sets of one class


def fit_prediction_sets(
    probs: Table,
    labels: Column,
    *,
    coverage: float = 0.9,
    score: str = "thr",
    groups: Column | None = None,
    by_class: bool = False,
    randomized: bool = False,
    seed: int = 0,
    penalty: float = 0.1,
    k_reg: int = 1,
) -> PredictionSets:
    """Thresholds with which the set of a new example holds its label with at least the probability `coverage`.

    The probability is over the held-out examples and the new one together, which must be exchangeable. "thr", 1 - p, gives
    the smallest sets on average; "aps", the probability of all classes as probable as this one and more, sets whose size
    follows the difficulty; "raps" adds a penalty a rank, against the long tail of improbable classes. Sets can be empty,
    of any score; `sets(..., never_empty=True)` fills them. Equally probable classes have one score. No sorting: 10^4 x 1000
    take about 0.05 s.

    Args:
        probs: (n, c), of held-out examples, calibrated or not.
        labels: (n,), classes in [0, c).
        coverage: in (0, 1).
        score: "thr", "aps" or "raps".
        groups: (n,) whole numbers; each group gets a threshold, and its own promise (Mondrian).
        by_class: a threshold a class, and so the promise given the label; a class with too few labels is in every set.
        randomized: of aps and raps: count a uniform share of the class itself. Without it sets are larger than promised.
        seed: of these numbers.
        penalty, k_reg: of raps: what each rank beyond k_reg adds.

    Raises:
        ValueError: if the rows are not probabilities, a label is outside [0, c), an option is unknown or out of its range,
            both groups and by_class are asked for, or thr is to be randomized.

    Source:
        Sadinle, Lei & Wasserman 2019 (arXiv:1609.00451): thr; Romano, Sesia & Candes 2020 (arXiv:2006.02544): aps;
        Angelopoulos et al. 2021 (arXiv:2009.14193): raps; Vovk, Gammerman & Shafer 2005, section 4.5: groups.

    Examples:
        >>> from uqlib.calibrate import fit_prediction_sets
        >>> probs, labels = [[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1], [0.6, 0.3, 0.1]], [0, 1, 1, 0]
        >>> fit = fit_prediction_sets(probs, labels, coverage=0.8)
        >>> fit.sets([[0.9, 0.1, 0.0], [0.45, 0.41, 0.14]])  # classes of at least 0.4
        array([[ True, False, False],
               [ True,  True, False]])
    """
    coverage, score = check_fraction(coverage, "coverage", within="(0, 1)"), check_choice(score, SET_SCORES, "score")
    penalty, k_reg = check_number(penalty, "penalty", least=0), check_whole(k_reg, "k_reg", least=0)
    seed = check_whole(seed, "seed", least=0)
    table = check_probs(probs)
    labels = check_labels(labels, table.shape[1], rows=len(table), device=table.device)
    if randomized and score == "thr":
        raise ValueError("randomized must be False for thr: its score has no share to draw")
    if groups is not None and by_class:
        raise ValueError("groups and by_class exclude each other; for both number the pairs, groups * classes + labels")
    noise = torch.from_numpy(uniform_numbers(len(table), seed=seed)) if randomized else torch.zeros(len(table))
    scores = torch.cat(
        [
            _scores_of_labels(part, label, random, score, penalty, k_reg)
            for part, label, random in by_rows(CHUNK // table.shape[1], table, labels, noise.double().to(table.device))
        ]
    )
    names = None
    if groups is not None:
        number = check_labels(groups, None, rows=len(table), name="groups", device=table.device)
        names, place = number.unique(return_inverse=True)
        limits = _thresholds(scores, place, len(names), coverage)
    elif by_class:
        limits = _thresholds(scores, labels, table.shape[1], coverage)
    else:
        limits = torch.tensor([conformal_threshold(scores, coverage=coverage)], dtype=torch.float64)
    known = None if names is None else like(names, probs)
    thresholds = like(limits.to(table.device), probs)
    return PredictionSets(score, coverage, thresholds, known, by_class, randomized, seed, penalty, k_reg, len(table))


def set_summary(sets: Table, labels: Column) -> SetSummary:
    """Coverage and size of prediction sets. Of a group: pass its rows.

    Args:
        sets: (n, c), whether each class is in the set.
        labels: (n,), classes in [0, c).

    Raises:
        ValueError: if sets hold other numbers than zeros and ones, or a label is outside [0, c).

    Examples:
        >>> from uqlib.calibrate import set_summary
        >>> set_summary([[True, False], [True, True], [False, False], [True, False]], [0, 1, 0, 1])
        SetSummary(coverage=0.5, size=1.0, empty=0.25, single=0.5)
    """
    held = as_tensor(sets, "sets")
    if held.ndim != 2 or not held.numel():
        raise ValueError(f"sets must have shape (n, c) with at least one row; it is {tuple(held.shape)}")
    if held.dtype != torch.bool and ((held != 0) & (held != 1)).any():
        row = int(((held != 0) & (held != 1)).any(-1).nonzero()[0])
        raise ValueError(
            f"sets must be true or false; row {row} holds another number. Pass what `.sets(probs)` returns."
        )
    held = held != 0
    labels = check_labels(labels, held.shape[1], rows=len(held), device=held.device)
    size = held.sum(-1).double()
    covered = held.gather(1, labels[:, None]).double().mean().item()
    return SetSummary(
        covered, size.mean().item(), (size == 0).double().mean().item(), (size == 1).double().mean().item()
    )


def _thresholds(
    scores: Float[Tensor, " n"], place: Int[Tensor, " n"], count: int, coverage: float
) -> Float[Tensor, " t"]:
    """One a place; infinite for a place without scores."""
    order = place.argsort()
    parts = scores[order].split(torch.bincount(place, minlength=count).tolist())
    found = [conformal_threshold(part, coverage=coverage) if len(part) else np.inf for part in parts]
    return torch.tensor(found, dtype=torch.float64)


def _scores_of_labels(
    probs: Float[Tensor, "n c"],
    labels: Int[Tensor, " n"],
    noise: Float[Tensor, " n"],
    score: str,
    penalty: float,
    k_reg: int,
) -> Float[Tensor, " n"]:
    """Of the class of the label alone."""
    own = probs.gather(1, labels[:, None])
    if score == "thr":
        return 1 - own[:, 0].double()
    above = torch.where(probs > own, probs, 0).sum(-1, dtype=torch.float64)
    equal = probs == own
    through = above + own[:, 0].double() * equal.sum(-1)
    rank = (probs >= own).sum(-1)
    return _score(above, through, rank, noise, score, penalty, k_reg)


def _scores_of_all(
    probs: Float[Tensor, "n c"], noise: Float[Tensor, " n"], score: str, penalty: float, k_reg: int
) -> Float[Tensor, "n c"]:
    """Of every class."""
    if score == "thr":
        return 1 - probs.double()
    ordered, order = probs.sort(-1, descending=True)
    total = torch.nn.functional.pad(ordered.double().cumsum(-1), (1, 0))
    rank = torch.arange(1, probs.shape[1] + 1, device=probs.device).expand_as(probs)
    first, last = rank - 1, rank
    changes = ordered[:, 1:] != ordered[:, :-1]
    if not changes.all():  # equals: from before the first of them to the last
        begins = torch.nn.functional.pad(changes, (1, 0), value=True)
        ends = torch.nn.functional.pad(changes, (0, 1), value=True)
        first = torch.where(begins, first, 0).cummax(-1).values
        last = torch.where(ends, last, probs.shape[1]).flip(-1).cummin(-1).values.flip(-1)
    found = _score(total.gather(1, first), total.gather(1, last), last, noise[:, None], score, penalty, k_reg)
    return torch.empty_like(found).scatter_(1, order, found)


def _score(
    above: Tensor, through: Tensor, rank: Tensor, noise: Tensor, score: str, penalty: float, k_reg: int
) -> Float[Tensor, "..."]:
    """From the probability of all classes above, that of these and this one with its equals, and the rank of the last."""
    adaptive = through - noise * (through - above)
    return adaptive + penalty * (rank.double() - k_reg).clamp(min=0) if score == "raps" else adaptive
