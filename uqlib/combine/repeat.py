"""The protocol of a comparison: repeated splits of one test set, methods compared in pairs, one interval for both.

The weights of a duo, like any temperature, are fitted on a part of the examples and judged on the rest. One such
split is an accident; so the split is drawn several times, and every difference between two methods is taken on the same
examples.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from uqlib import metrics
from uqlib.base.arrays import Column, Table, as_tensor
from uqlib.base.checks import check_labels, check_same_shape
from uqlib.base.options import check_choice, check_whole
from uqlib.base.splits import split
from uqlib.combine import duos
from uqlib.combine.duos import VARIANTS, Decision, DuoFit
from uqlib.metrics import bootstrap, calibration, classification, detection
from uqlib.metrics.bootstrap import Interval


class Trial(NamedTuple):
    """One split: the labels of its test part, and what each method decided there."""

    labels: Tensor
    decisions: Mapping[str, Decision]


class Measure(NamedTuple):
    """A metric of decisions: the statistic, the arrays that it takes, and which way is better."""

    statistic: Callable[..., float]
    arrays: Callable[[Decision, Tensor], tuple[Tensor, ...]]
    higher_is_better: bool
    name: str


def _predicted(decision: Decision, labels: Tensor) -> tuple[Tensor, ...]:
    return as_tensor(decision.preds), labels


def _ranked(decision: Decision, labels: Tensor) -> tuple[Tensor, ...]:
    return as_tensor(decision.confidence), as_tensor(decision.preds) == labels


def _log_probs(decision: Decision, labels: Tensor) -> tuple[Tensor, ...]:
    return as_tensor(decision.probs).clamp_min(1e-300).log(), labels


def _probs(decision: Decision, labels: Tensor) -> tuple[Tensor, ...]:
    return as_tensor(decision.probs), labels


MEASURES: dict[str, Measure] = {
    "accuracy": Measure(classification.accuracy, _predicted, True, "accuracy"),
    "macro_f1": Measure(classification.macro_f1, _predicted, True, "macro F1"),
    "auroc": Measure(detection.correctness_auroc, _ranked, True, "AUROC"),
    "aurc": Measure(metrics.aurc, _ranked, False, "AURC"),
    "augrc": Measure(metrics.augrc, _ranked, False, "AUGRC"),
    "sac98": Measure(partial(metrics.selective_accuracy_coverage, accuracy=0.98), _ranked, True, "SAC@98"),
    "sac99": Measure(partial(metrics.selective_accuracy_coverage, accuracy=0.99), _ranked, True, "SAC@99"),
    "nll": Measure(classification.nll, _log_probs, False, "NLL"),
    "brier": Measure(classification.brier, _probs, False, "Brier"),
    "ece": Measure(calibration.ece, _ranked, False, "ECE"),
}


def measure(name: str) -> Measure:
    """The measure of that name in MEASURES."""
    return MEASURES[check_choice(name, MEASURES, "measure")]


def mean_over_trials(name: str, trials: Sequence[Trial], method: str) -> float:
    """A measure of one method, averaged over the splits."""
    m = measure(name)
    values = [m.statistic(*m.arrays(trial.decisions[method], trial.labels)) for trial in trials]
    return sum(values) / len(values)


def difference(
    name: str,
    trials: Sequence[Trial],
    first: str,
    second: str,
    *,
    draws: int = 1000,
    level: float = 0.95,
    generator: torch.Generator | None = None,
) -> Interval:
    """first minus second in a measure, both on the same resampled examples of each split; see `bootstrap.pool`."""
    m = measure(name)
    pairs = [tuple(m.arrays(trial.decisions[method], trial.labels) for method in (first, second)) for trial in trials]
    values = [float(m.statistic(*one)) - float(m.statistic(*other)) for one, other in pairs]
    samples = [
        bootstrap.resample_difference(m.statistic, one, other, draws=draws, generator=generator) for one, other in pairs
    ]
    return bootstrap.pool(values, samples, level=level)


def resample_splits(
    name: str, trials: Sequence[Trial], method: str, *, draws: int = 100, seed: int = 0, together: int = 1
) -> Float[Tensor, "s columns"]:
    """A measure of one method on every split: on all its test examples, then on each bootstrap draw of them.

    The draws of split k depend on the seed, k and the number of examples alone. So whatever is computed from several
    such tables, entry by entry, is paired: a difference of two methods, a ratio, a mean over pairs of networks. Time
    as `metrics.resample`; with `together` above 1 there is no fast path.

    Args:
        name: in MEASURES.
        trials: one a split.
        method: whose decisions.
        draws: of each split.
        seed: of the draws.
        together: so many consecutive examples are drawn as one, such as the corrupted versions of one image.

    Returns:
        (s, 1 + draws), float64, a row a split; summarise it, or what was computed from it, by `interval_over_splits`.

    Raises:
        ValueError: if the measure is unknown, or the examples do not divide into such groups.
    """
    m = measure(name)
    rows = []
    for k, trial in enumerate(trials):
        arrays = m.arrays(trial.decisions[method], trial.labels)
        if len(trial.labels) % together:
            raise ValueError(f"{len(trial.labels)} examples do not divide into groups of {together}")
        value = torch.tensor([float(m.statistic(*arrays))], dtype=torch.float64)
        statistic = m.statistic
        if together > 1:
            statistic, arrays = _by_groups(statistic, arrays, together)
        generator = torch.Generator().manual_seed(seed + k)
        rows.append(torch.cat([value, bootstrap.resample(statistic, *arrays, draws=draws, generator=generator)]))
    return torch.stack(rows)


def interval_over_splits(samples: Float[Tensor, "s columns"], *, level: float = 0.95) -> Interval:
    """Mean over the splits, and percentiles of all draws, of a table from `resample_splits` or computed from such."""
    return bootstrap.pool(samples[:, 0].tolist(), list(samples[:, 1:]), level=level)


def _by_groups(
    statistic: Callable[..., float], arrays: tuple[Tensor, ...], size: int
) -> tuple[Callable[..., Any], tuple[Tensor, ...]]:
    """The same statistic of arrays with a row a group. A mean over the examples is one over the means of the groups."""
    if statistic in bootstrap.PER_EXAMPLE:
        each = as_tensor(bootstrap.PER_EXAMPLE[statistic](*arrays)).double()
        return torch.mean, (each.unflatten(0, (-1, size)).mean(1),)
    groups = tuple(array.unflatten(0, (-1, size)) for array in arrays)
    return lambda *rows: statistic(*(row.flatten(0, 1) for row in rows)), groups


class Repeated(NamedTuple):
    """A duo over repeated splits: what every variant decided on each test part, and the fits."""

    trials: list[Trial]
    fits: list[DuoFit]


def repeat_duo(
    large: Table,
    small: Table,
    labels: Column,
    *,
    fit_size: int,
    splits: int,
    seed: int = 0,
    variants: Sequence[str] = tuple(VARIANTS),
) -> Repeated:
    """Fit a duo on so many examples, decide the rest by each variant, and again for every split.

    Split k is `splits.split(n, fit_size, seed=seed + k)`, so pairs on the same examples share their splits.

    Args:
        large, small: logits (n, c).
        labels: (n,).
        fit_size: examples that fit the weights.
        splits: how many splits.
        seed: of the first split.
        variants: names in duos.VARIANTS.

    Raises:
        ValueError: as `duos.fit_duo`, or if fit_size leaves nothing to test.
    """
    large, small = check_same_shape({"large": large, "small": small})
    labels = check_labels(labels, large.shape[1], rows=len(large), device=large.device)
    fit_size = check_whole(fit_size, "fit_size", least=1)
    if fit_size >= len(labels):
        raise ValueError(
            f"fit_size must lie in 1 to {len(labels) - 1}, so that rows are left to test; it is {fit_size}"
        )
    splits, seed = check_whole(splits, "splits", least=1), check_whole(seed, "seed", least=0)
    parts = [split(len(labels), fit_size, seed=seed + k) for k in range(splits)]
    fits = [duos.fit_duo(large[fit], small[fit], labels[fit]) for fit, _ in parts]
    trials = [
        Trial(labels[test], decide_all(large[test], small[test], fit, variants))
        for fit, (_, test) in zip(fits, parts, strict=True)
    ]
    return Repeated(trials, fits)


def decide_all(
    large: Table, small: Table, fit: DuoFit, variants: Sequence[str] = tuple(VARIANTS)
) -> dict[str, Decision]:
    """The decision of each variant, by name."""
    return {variant: duos.decide(variant, large, small, fit) for variant in variants}
