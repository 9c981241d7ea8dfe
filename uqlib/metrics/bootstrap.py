"""Confidence intervals by resampling the examples, for any statistic of arrays.

The metrics of uqlib take a fast path. A rank metric sorts once, and each draw only counts how often every score came
up; a mean over the examples draws from their values. Both give the same statistic on the same draws as the slow path,
which calls the function on the resampled arrays.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from uqlib.base.arrays import Array, Column, Table, as_tensor, like
from uqlib.base.checks import check_confidence, check_mask, check_rows
from uqlib.base.options import check_fraction, check_whole
from uqlib.metrics import classification, detection
from uqlib.metrics.calibration import Bins
from uqlib.metrics.ranking import Ranking, rank
from uqlib.metrics.selective import (
    accuracy_at_coverage_from_counts,
    augrc,
    augrc_from_counts,
    aurc,
    aurc_from_counts,
    coverage_at_risk,
    coverage_at_risk_from_counts,
    e_aurc,
    e_aurc_from_counts,
    risk_at_coverage,
    risk_at_coverage_from_counts,
    sac_from_counts,
    selective_accuracy_at_coverage,
    selective_accuracy_coverage,
)

# the formula on counts, and whether neighbouring scores of one outcome may act as one score: not where the place of
# a threshold inside such a run matters
BY_COUNTS: dict[Callable[..., Any], tuple[Callable[..., Tensor], bool]] = {
    aurc: (aurc_from_counts, True),
    e_aurc: (e_aurc_from_counts, True),
    augrc: (augrc_from_counts, True),
    coverage_at_risk: (coverage_at_risk_from_counts, False),
    selective_accuracy_coverage: (sac_from_counts, False),
    risk_at_coverage: (risk_at_coverage_from_counts, False),
    selective_accuracy_at_coverage: (accuracy_at_coverage_from_counts, False),
    detection.auroc: (detection.auroc_from_counts, True),
    detection.aupr: (detection.aupr_from_counts, False),
    detection.correctness_auroc: (detection.auroc_from_counts, True),
    detection.correctness_aupr: (detection.correctness_aupr_from_counts, False),
    detection.r_precision: (detection.r_precision_from_counts, True),
    detection.fpr_at_tpr: (detection.fpr_at_tpr_from_counts, True),
}

# a mean over the examples, and the values that it averages
PER_EXAMPLE: dict[Callable[..., Any], Callable[..., Array]] = {
    classification.accuracy: classification.correctness,
    classification.nll: classification.nll_each,
    classification.brier: classification.brier_each,
}

Rows = Int64[Tensor, "b n"]  # b draws of n row numbers


class Interval(NamedTuple):
    """The statistic on all examples, and the percentiles of its draws that enclose `level` of them."""

    value: float
    low: float
    high: float
    level: float
    draws: int


def interval(
    statistic: Callable[..., Any],
    *arrays: Column,
    draws: int = 2000,
    level: float = 0.95,
    generator: torch.Generator | None = None,
    stratify: Column | None = None,
) -> Interval:
    """Percentile bootstrap interval of a statistic over the examples.

        interval(aurc, confidence, correct, generator=torch.Generator().manual_seed(0))
        interval(partial(coverage_at_risk, risk=0.02), confidence, correct)
        interval(lambda a, b: np.corrcoef(a, b)[0, 1], a, b)

    It holds the network fixed: it says what other test examples would do, not other training runs. Time O(draws n),
    memory about 100 bytes for max(n, a million) examples, however many draws.

    Args:
        statistic: takes the arrays, returns one number. A metric of uqlib is recognised (with options: through
            functools.partial) and runs vectorised; on anything else the function is called once a draw.
        arrays: each with n rows, the same examples in the same order.
        draws: how many resamples; at 2000 each limit of a 95 % interval still moves by about 1.5 % of its width from
            seed to seed.
        level: share of the draws inside, in (0, 1).
        generator: source of the draws; the same seed gives the same bits. Default: torch's global one.
        stratify: (n,) groups whose sizes every draw keeps, for instance `correct`, so that no draw misses a class.

    Raises:
        ValueError: if the arrays differ in length, level or draws are out of range, or the statistic is not defined
            on a draw (a rare class was missed).

    Source:
        Efron & Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    level = check_fraction(level, "level", within="(0, 1)")
    _check_examples({"arrays": arrays})
    value = _number(statistic(*arrays))  # first, so that bad arrays meet the statistic's own errors
    return _percentiles(value, resample(statistic, *arrays, draws=draws, generator=generator, stratify=stratify), level)


def paired_difference(
    statistic: Callable[..., Any],
    first: tuple[Column, ...],
    second: tuple[Column, ...],
    *,
    draws: int = 2000,
    level: float = 0.95,
    generator: torch.Generator | None = None,
    stratify: Column | None = None,
) -> Interval:
    """Interval of statistic(*first) - statistic(*second) for two methods on the same examples.

    Both methods see the same resamples, so what is hard for both cancels. An interval that excludes 0 says that the
    methods differ on examples like these. Time and memory as two calls of interval.

    Args:
        statistic: as in interval.
        first: the arrays of one method, for instance (confidence, correct).
        second: the arrays of the other, row for row the same examples.
        draws: as in interval, like the options that follow.

    Raises:
        ValueError: as interval.
    """
    level = check_fraction(level, "level", within="(0, 1)")
    _check_examples({"first": first, "second": second})
    value = _number(statistic(*first)) - _number(statistic(*second))
    drawn = resample_difference(statistic, first, second, draws=draws, generator=generator, stratify=stratify)
    return _percentiles(value, drawn, level)


def resample(
    statistic: Callable[..., Any],
    *arrays: Column,
    draws: int = 2000,
    generator: torch.Generator | None = None,
    stratify: Column | None = None,
) -> Float[Tensor, " draws"]:
    """The statistic on each draw, float64: the raw material of interval, with its arguments and errors."""
    return _resample(torch.clone, statistic, {"arrays": arrays}, draws=draws, generator=generator, stratify=stratify)


def resample_difference(
    statistic: Callable[..., Any],
    first: tuple[Column, ...],
    second: tuple[Column, ...],
    *,
    draws: int = 2000,
    generator: torch.Generator | None = None,
    stratify: Column | None = None,
) -> Float[Tensor, " draws"]:
    """statistic(*first) - statistic(*second) on each draw: the raw material of paired_difference."""
    methods = {"first": first, "second": second}
    return _resample(torch.sub, statistic, methods, draws=draws, generator=generator, stratify=stratify)


def pool(values: Column, draws: Sequence[Column] | Table, *, level: float = 0.95) -> Interval:
    """One interval over repetitions, such as random splits: the mean of their values, percentiles of all their draws.

    Every repetition brings draws of its own, so the interval covers both the choice of the split and that of the
    examples. Repetitions that share examples are not independent; nothing here pretends that they are, so the
    interval does not shrink with their number.

    Args:
        values: the statistic on all examples of each repetition.
        draws: of each repetition, from resample or resample_difference; a list, or a table with a row each.
        level: share of the draws inside, in (0, 1).

    Raises:
        ValueError: if there is no repetition, not one set of draws for each value, or one of them is not finite.
    """
    level = check_fraction(level, "level", within="(0, 1)")
    values = check_confidence(values, "values").double().tolist()
    if not isinstance(draws, list | tuple):
        table = as_tensor(draws, "draws")
        if table.ndim != 2:
            raise ValueError(f"draws must hold one set for each value, (m, k); their shape is {tuple(table.shape)}")
        draws = list(table)
    if len(values) != len(draws):
        raise ValueError(f"draws must hold one set for each of the {len(values)} values; it has {len(draws)}")
    drawn = [check_confidence(each, f"draws[{k}]").double() for k, each in enumerate(draws)]
    return _percentiles(sum(values) / len(values), torch.cat(drawn), level)


def _resample(
    combine: Callable[..., Tensor],
    statistic: Callable[..., Any],
    methods: dict[str, tuple[Column, ...]],
    *,
    draws: int,
    generator: torch.Generator | None,
    stratify: Column | None,
) -> Float[Tensor, " draws"]:
    """One number a draw: what combine makes of the statistic of each method on the same rows."""
    draws = check_whole(draws, "draws", least=1)
    if not (generator is None or isinstance(generator, torch.Generator)):
        raise TypeError(f"generator must be torch's, such as torch.Generator().manual_seed(0); it is {generator!r}")
    n = _check_examples(methods)
    evaluate = [_evaluator(statistic, arrays, name) for name, arrays in methods.items()]
    values = torch.cat(
        [combine(*(each(rows) for each in evaluate)).cpu() for rows in _draw(n, draws, generator, stratify)]
    )
    if values.isnan().any():
        raise ValueError(
            f"the statistic is nan on draw {int(values.isnan().nonzero()[0])}: a draw can miss a rare class. "
            "Pass stratify=correct (or the mask, or the labels), which keeps every group in every draw."
        )
    return values


def _draw(n: int, draws: int, generator: torch.Generator | None, stratify: Column | None) -> Iterator[Rows]:
    """Row numbers with replacement, in chunks of about a million; the chunks depend on n alone."""
    chunk = max(1, 2**20 // n)
    pick = partial(torch.randint, generator=generator, device=generator.device if generator else "cpu")
    if stratify is not None:
        group = check_confidence(stratify, "stratify")
        check_rows(group, n, "stratify")
        groups = [(group == value).nonzero()[:, 0].to(pick.keywords["device"]) for value in group.unique()]
    for done in range(0, draws, chunk):
        size = min(chunk, draws - done)
        if stratify is None:
            yield pick(n, (size, n))
        else:
            yield torch.cat([members[pick(len(members), (size, len(members)))] for members in groups], 1)


def _evaluator(
    statistic: Callable[..., Any], arrays: tuple[Column, ...], name: str
) -> Callable[[Rows], Float[Tensor, " b"]]:
    """The statistic as a function of row numbers, prepared once; errors call the arrays by the name."""
    metric, options = statistic, dict[str, Any]()
    if isinstance(statistic, partial) and not statistic.args:
        metric, options = statistic.func, statistic.keywords
    if metric in BY_COUNTS and len(arrays) == 2:
        form, merges = BY_COUNTS[metric]
        ranking = rank(*arrays, names=(f"{name}[0]", f"{name}[1]"))
        return _count_evaluator(partial(form, **options), ranking, *arrays, merges=merges)
    if metric in PER_EXAMPLE:
        each = as_tensor(PER_EXAMPLE[metric](*arrays, **options)).double()
        return lambda rows: each.take(rows.to(each.device)).mean(-1)
    return partial(_call, statistic, arrays, [as_tensor(array) for array in arrays])


def _call(
    statistic: Callable[..., Any], given: tuple[Column, ...], arrays: list[Tensor], rows: Rows
) -> Float[Tensor, " b"]:
    """The slow path: any statistic, one call a draw, on arrays of the kind that was given."""
    taken = (
        [like(array[row.to(array.device)], kind) for array, kind in zip(arrays, given, strict=True)] for row in rows
    )
    return torch.tensor([_number(statistic(*resampled)) for resampled in taken], dtype=torch.float64)


def _number(result: Any) -> float:
    """What a statistic returned, if it is one number."""
    try:
        return float(result)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"statistic must return one number; it returned {type(result).__name__}") from None


def _check_examples(methods: dict[str, tuple[Column, ...]]) -> int:
    """The number of rows that all the arrays have; what was summed up already has no examples to draw from."""
    for name, arrays in methods.items():
        if not isinstance(arrays, tuple | list):
            raise TypeError(
                f"{name} must be the arrays of one method together, as in (confidence_b, correct_b), (confidence_a, "
                f"correct_a); it is {type(arrays).__name__}"
            )
        if not arrays:
            raise TypeError(f"{name} are missing; pass the arrays that the statistic takes")
    named = {f"{name}[{k}]": array for name, arrays in methods.items() for k, array in enumerate(arrays)}
    n = None
    for name, array in named.items():
        if isinstance(array, Ranking | Bins):
            raise TypeError(
                f"{name} is of type {type(array).__name__}, and a bootstrap needs the examples: pass the arrays that it "
                "was made of"
            )
        tensor = as_tensor(array, name)
        if not tensor.ndim or not len(tensor):
            raise ValueError(f"{name} is empty; at least one example is needed")
        check_rows(tensor, n, name)
        n = len(tensor)
    assert n is not None  # every method has arrays, as was seen above
    return n


def _count_evaluator(
    form: Callable[..., Tensor], ranking: Ranking, score: Column, positive: Column, *, merges: bool
) -> Callable[[Rows], Float[Tensor, " b"]]:
    """The fast path of a rank metric: sort once, then count the rows of each draw at each score."""
    score, positive = check_confidence(score).to(ranking.scores), check_mask(positive, device=ranking.scores.device)
    place = torch.searchsorted(-ranking.scores, -score)
    if merges:
        place = _runs(ranking)[place]
    k = int(place.max()) + 1
    cell = place + k * positive.to(place)

    def evaluate(rows: Rows) -> Float[Tensor, " b"]:
        rows = rows.to(cell.device)
        draw = 2 * k * torch.arange(len(rows), device=cell.device)[:, None]
        seen = torch.bincount(cell.take(rows).add_(draw).view(-1), minlength=2 * k * len(rows)).view(-1, 2, k)
        return form(seen[:, 0] + seen[:, 1], seen[:, 1])

    return evaluate


def _runs(ranking: Ranking) -> Int64[Tensor, " k"]:
    """Numbers the runs of neighbouring scores whose examples are all positive, or all negative; a mixed score is alone.

    Inside a run every order of the examples gives the same curve, so it may count as one tie, and the fewer scores
    the faster the draws.
    """
    pure = (ranking.positives == 0) | (ranking.positives == ranking.count)
    positive = ranking.positives > 0
    same = pure[1:] & pure[:-1] & (positive[1:] == positive[:-1])
    return torch.cat([same.new_zeros(1), ~same]).cumsum(0)


def _percentiles(value: float, values: Float[Tensor, " draws"], level: float) -> Interval:
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = values.quantile(tails).tolist()
    return Interval(value, low, high, level, len(values))
