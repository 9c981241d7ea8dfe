"""Repeated splits of one test set: the weights of a duo are fitted on a part of the examples and judged on the rest.

One such split is an accident; so it is drawn several times. `metrics.compare` makes intervals of what comes out.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor

from uqlib.base.arrays import Column, Table
from uqlib.base.checks import check_labels, check_same_shape
from uqlib.base.options import check_whole
from uqlib.base.splits import split
from uqlib.combine.duos import Decision, DuoFit, InfiniteWeights, decide, fit_duo
from uqlib.metrics.outcomes import Outcome

Variants = (
    Sequence[str] | Mapping[str, Callable[[Tensor, Tensor, DuoFit], Decision]]
)  # names in VARIANTS, or functions of your own


class Repeated(NamedTuple):
    """A duo over repeated splits: by variant what it decided on each test part, and the fits."""

    outcomes: dict[str, list[Outcome]]
    fits: list[DuoFit]


def repeat_duo(
    large: Table,
    small: Table,
    labels: Column,
    *,
    fit_size: int,
    splits: int,
    seed: int = 0,
    variants: Variants = ("base", "ours", "unweighted", "uq_only", "softmax_average"),
    rule: Callable[[Tensor, Tensor, Tensor], DuoFit] = fit_duo,
    held: int = 0,
    skip_infinite: bool = False,
) -> Repeated:
    """Fit a duo on so many examples, decide the rest by each variant, and again for every split.

    Split k is `splits.split(n, fit_size, seed=seed + k)`, so pairs on the same examples share their splits.

    Args:
        large, small: logits (n, c).
        labels: (n,).
        fit_size: examples that fit the weights.
        splits: how many splits.
        seed: of the first split.
        variants: names in VARIANTS, or such functions by names of your own.
        rule: that fits the weights.
        held: test on the rows that a fit of so many examples would leave, so that smaller fits share their test rows; at least
            fit_size.
        skip_infinite: leave out the splits whose weights are infinite, see `duos.InfiniteWeights`.

    Raises:
        ValueError: as `duos.fit_duo`, or if fit_size leaves nothing to test.
    """
    large, small = check_same_shape({"large": large, "small": small})
    labels = check_labels(labels, large.shape[1], rows=len(large), device=large.device)
    fit_size = check_whole(fit_size, "fit_size", least=1)
    held = max(fit_size, check_whole(held, "held", least=0))  # less would test on rows of the fit
    if held >= len(labels):
        raise ValueError(f"fit_size must lie in 1 to {len(labels) - 1}, so that rows are left to test; it is {held}")
    splits, seed = check_whole(splits, "splits", least=1), check_whole(seed, "seed", least=0)
    fits, rows = [], []
    for k in range(splits):
        fit, test = (split(len(labels), size, seed=seed + k)[i] for i, size in enumerate((fit_size, held)))
        with suppress(*[InfiniteWeights] * skip_infinite):
            fits.append(rule(large[fit], small[fit], labels[fit]))
            rows.append(test)
    return Repeated(decide_again(fits, large, small, labels, rows, variants=variants), fits)


def decide_again(
    fits: Sequence[DuoFit], large: Tensor, small: Tensor, labels: Tensor, rows: Sequence[Any], *, variants: Variants
) -> dict[str, list[Outcome]]:
    """What each variant decides with the weights of each fit: on the rows that go with it, which no fit should have seen."""
    known = variants if isinstance(variants, Mapping) else {name: partial(decide, name) for name in variants}
    return {
        name: [Outcome(*rule(large[k], small[k], fit), labels[k]) for fit, k in zip(fits, rows, strict=True)]
        for name, rule in known.items()
    }
