"""The metrics on many draws at once: what a bootstrap needs of each is how often the examples came up.

A metric that is a formula on counts puts every example into a cell once, and each draw only counts how often every cell
came up; a mean over the examples draws from their values. Both give the same statistic on the same draws as the slow
path, which calls the function on the resampled arrays. Statistics of the same arrays share their cells.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from uqlib.base.arrays import Array, Column, as_tensor, like
from uqlib.base.checks import check_classes, check_confidence, check_mask, check_share_and_hits
from uqlib.base.options import check_choice, check_whole
from uqlib.metrics import bins as binning
from uqlib.metrics import calibration, classification, detection, selective
from uqlib.metrics.ranking import Counts, Ranking, Values, rank, rank_losses
from uqlib.metrics.rows import kept_rows, rows_that_count

# the formula on counts of a Ranking, and which neighbouring scores may act as one: those of one outcome; of the
# positives alone, where a threshold inside a run of negatives may be the answer; or none
BY_COUNTS: dict[Callable[..., Any], tuple[Callable[..., Tensor], str]] = {
    selective.aurc: (selective.aurc_from_counts, "outcome"),
    selective.aurc_of_trapezoids: (selective.trapezoids_from_counts, "outcome"),
    selective.e_aurc: (selective.e_aurc_from_counts, "outcome"),
    selective.augrc: (selective.augrc_from_counts, "outcome"),
    selective.coverage_at_risk: (selective.coverage_at_risk_from_counts, "positive"),
    selective.selective_accuracy_coverage: (selective.sac_from_counts, "positive"),
    selective.risk_at_coverage: (selective.risk_at_coverage_from_counts, "none"),
    selective.selective_accuracy_at_coverage: (selective.accuracy_at_coverage_from_counts, "none"),
    detection.auroc: (detection.auroc_from_counts, "outcome"),
    detection.aupr: (detection.aupr_from_counts, "none"),
    detection.correctness_auroc: (detection.auroc_from_counts, "outcome"),
    detection.correctness_aupr: (detection.correctness_aupr_from_counts, "none"),
    detection.r_precision: (detection.r_precision_from_counts, "outcome"),
    detection.fpr_at_tpr: (detection.fpr_at_tpr_from_counts, "outcome"),
}

# those that know no right and wrong, only a risk
OF_LOSSES = (
    selective.aurc,
    selective.augrc,
    selective.aurc_of_trapezoids,
    selective.risk_at_coverage,
    selective.coverage_at_risk,
)

# a binned calibration error, and the options that it leaves to `ece`
BINNED: dict[Callable[..., Any], dict[str, str]] = {
    calibration.ece: {},
    calibration.rms_calibration_error: {"by": "mass", "norm": "l2"},
}

# a sum over bins of gaps with their signs
SIGNED: dict[Callable[..., Any], Callable[..., Tensor]] = {
    calibration.signed_ece: calibration.signed_from_counts,
}

# a mean over the examples, and the values that it averages
PER_EXAMPLE: dict[Callable[..., Any], Callable[..., Array]] = {
    classification.accuracy: classification.correctness,
    classification.nll: classification.nll_each,
    classification.brier: classification.brier_each,
    classification.top_k_accuracy: classification.top_k_each,
    classification.average: partial(check_confidence, name="values"),
}


class OfLosses:
    """A metric of the risk-coverage curve as a function of confidence and losses; made by of_losses."""

    def __init__(self, metric: Callable[..., Any], options: Mapping[str, Any]):
        self.metric, self.options, self.__name__ = metric, options, f"{metric.__name__}_of_losses"

    def __call__(self, confidence: Column, losses: Column, *, weights: Column | None = None) -> float:
        return as_number(self.metric(rank_losses(confidence, losses, weights=weights), **self.options))


def of_losses(metric: Callable[..., Any], **options: Any) -> OfLosses:
    """A metric of the risk-coverage curve for losses of any size: a function of (confidence, losses), for intervals.

        interval(of_losses(aurc), confidence, brier_each(probs, labels))
        interval(of_losses(risk_at_coverage, coverage=0.8), confidence, losses)

    Args:
        metric: aurc, augrc, aurc_of_trapezoids, risk_at_coverage or coverage_at_risk.
        options: those of the metric.

    Raises:
        ValueError: if it is another metric.

    Examples:
        >>> from uqlib.metrics import aurc, of_losses
        >>> round(of_losses(aurc)([0.9, 0.8, 0.7], [0.1, 0.4, 0.4]), 3)
        0.217
    """
    if metric not in OF_LOSSES:
        known = ", ".join(each.__name__ for each in OF_LOSSES)
        raise ValueError(f"metric must be one of {known}; it is {getattr(metric, '__name__', metric)!r}")
    return OfLosses(metric, options)


class Clusters:
    """Which examples belong together and are drawn as one, such as those of one patient; clusters may differ in size."""

    def __init__(self, numbers: Int64[Tensor, " n"]):
        self.numbers = numbers  # of the cluster of each example, 0 to k - 1
        self.order = numbers.argsort(stable=True)  # the examples, cluster by cluster
        self.sizes = torch.bincount(numbers)
        self.starts = self.sizes.cumsum(0) - self.sizes

    def members(self, drawn: Int64[Tensor, " g"]) -> Int64[Tensor, " m"]:
        """The examples of some clusters, one after the other."""
        sizes = self.sizes[drawn]
        before = (self.starts[drawn] - (sizes.cumsum(0) - sizes)).repeat_interleave(sizes)
        return self.order[before + torch.arange(len(before))]


class Draws:
    """Some draws, each with replacement of groups of `size` consecutive examples, or of clusters, and what was counted of them so far."""

    def __init__(self, groups: Int64[Tensor, "b g"], size: int, clusters: Clusters | None = None):
        self.groups, self.size, self.clusters, self.counted = groups, size, clusters, dict[Any, Any]()

    @cached_property
    def rows(self) -> Iterable[Int64[Tensor, " m"]]:
        """The numbers of the examples of each draw."""
        if self.clusters is not None:
            return [self.clusters.members(drawn) for drawn in self.groups.cpu()]
        return (self.groups[..., None] * self.size + torch.arange(self.size, device=self.groups.device)).flatten(1)

    @cached_property
    def weights(self) -> Float[Tensor, "n b"]:
        """How often each example was drawn; a row an example, so that a cell adds up rows as long as there are draws."""
        once = self.groups.new_ones((), dtype=torch.float32).expand_as(self.groups)  # exact: nothing occurs 2^24 times
        count = torch.zeros(once.shape, dtype=once.dtype, device=once.device).scatter_add_(1, self.groups, once)
        count = count.T.to(torch.float64, memory_format=torch.contiguous_format)
        if self.clusters is not None:
            return count[self.clusters.numbers.to(count.device)]
        return count[:, None].expand(-1, self.size, -1).flatten(0, 1)

    def count(self, cell: Int64[Tensor, " n"], cells: int, weights: Tensor | None = None) -> Counts:
        """How often each cell came up in each draw, or the weight that came up."""
        if weights is not None:
            return self.add(cell, cells, self.evened(weights)).contiguous()
        return self.add(cell, cells).to(torch.int64, memory_format=torch.contiguous_format)

    def evened(self, weights: Float[Tensor, " n"]) -> Float[Tensor, "n b"]:
        """Weights as each draw has them: of mean one among its examples, unless they are whole."""
        if (weights == weights.round()).all():
            return weights[:, None]
        drawn = self.weights.to(weights.device)
        return weights[:, None] * (drawn.sum(0) / (weights @ drawn))

    def add(self, cell: Int64[Tensor, " n"], cells: int, values: Tensor | float = 1.0) -> Float[Tensor, "b k"]:
        """The sum in each cell of the values of the examples drawn."""
        weights = self.weights.to(cell.device)
        if isinstance(values, Tensor):
            weights = weights * (values[:, None] if values.ndim == 1 else values)
        return weights.new_zeros(cells, weights.shape[1]).index_add_(0, cell, weights).T

    def once(self, count: Callable[["Draws"], Any]) -> Any:
        """What a function counts of these draws, counted once."""
        if count not in self.counted:
            self.counted[count] = count(self)
        return self.counted[count]


Evaluator = Callable[[Draws], Values]


class Examples:
    """The arrays of one or several statistics, what errors call them, and what was prepared of them so far."""

    def __init__(self, name: str, arrays: Sequence[Column], weights: Tensor | None = None):
        self.name, self.arrays, self.weights, self.prepared = name, arrays, weights, dict[Any, Any]()

    def once(self, prepare: Callable[..., Any], *options: Any) -> Any:
        """What a function makes of the examples, made once."""
        if (prepare, *options) not in self.prepared:
            self.prepared[prepare, *options] = prepare(self, *options)
        return self.prepared[prepare, *options]


def evaluators(
    statistics: Mapping[str, tuple[Callable[..., Any], Sequence[Column]]], weights: Float[Tensor, " n"] | None = None
) -> list[Evaluator]:
    """Each statistic as a function of draws, prepared once; those of equal arrays share what they sort and count.

    Args:
        statistics: by the name that errors give its arrays, a statistic and those.
        weights: how much each example counts.
    """
    known: list[tuple[Examples, list[Tensor]]] = []
    found = []
    for name, (statistic, arrays) in statistics.items():
        tensors = [as_tensor(array) for array in arrays]
        examples = next((examples for examples, others in known if _equal(tensors, others)), None)
        if examples is None:
            examples = Examples(name, arrays, weights)
            known.append((examples, tensors))
        found.append(_vectorised(statistic, examples) or partial(_call, statistic, arrays, tensors, weights))
    return found


def _equal(tensors: list[Tensor], others: list[Tensor]) -> bool:
    return len(tensors) == len(others) and all(
        a is b or ((a.dtype, a.device) == (b.dtype, b.device) and a.equal(b))
        for a, b in zip(tensors, others, strict=True)
    )


def _vectorised(statistic: Callable[..., Any], examples: Examples) -> Evaluator | None:
    """The fast path of a metric that has one."""
    metric, options = statistic, dict[str, Any]()
    if isinstance(statistic, partial) and not statistic.args:
        metric, options = statistic.func, statistic.keywords
    if "weights" in options:
        raise TypeError(
            "weights of a statistic would not be drawn with its arrays; pass them to the interval, weights="
        )
    if metric in PER_EXAMPLE:
        return _per_example(metric, examples, **options)
    if isinstance(metric, OfLosses) and not options:
        form = BY_COUNTS[metric.metric][0]
        places = examples.once(_by_confidence)
        return lambda draws: form(*draws.once(places), **metric.options)
    if "ignore" in options or len(examples.arrays) != 2:
        return None
    if metric in BY_COUNTS:
        form, merged = BY_COUNTS[metric]
        seen = examples.once(_by_score, merged)
        return lambda draws: form(*draws.once(seen), **options)
    if metric in BINNED:
        return _calibration_error(examples, **(BINNED[metric] | options))
    if metric in SIGNED:
        return _signed_error(SIGNED[metric], examples, **options)
    return _macro_f1(examples) if metric is classification.macro_f1 and not options else None


def _call(
    statistic: Callable[..., Any],
    given: Sequence[Column],
    arrays: list[Tensor],
    weights: Float[Tensor, " n"] | None,
    draws: Draws,
) -> Float[Tensor, " b"]:
    """The slow path: any statistic, one call a draw, on arrays of the kind that was given."""
    values = []
    for row in draws.rows:
        taken = [like(array[row.to(array.device)], kind) for array, kind in zip(arrays, given, strict=True)]
        heavy = {} if weights is None else {"weights": like(weights[row.to(weights.device)], given[0])}
        values.append(as_number(statistic(*taken, **heavy)))
    return torch.tensor(values, dtype=torch.float64)


def as_number(result: Any) -> float:
    """What a statistic returned, if it is one number."""
    try:
        return float(result)
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"statistic must return one number; it returned {type(result).__name__}") from None


def _per_example(
    metric: Callable[..., Any], examples: Examples, *, ignore: int | None = None, **options: Any
) -> Evaluator:
    """A mean over the examples; those that are ignored weigh nothing."""
    arrays, weights = examples.arrays, examples.weights
    if ignore is None:
        each = as_tensor(PER_EXAMPLE[metric](*arrays, **options)).double()
    else:
        kept = kept_rows(arrays[-1], ignore)
        held = as_tensor(PER_EXAMPLE[metric](*rows_that_count(arrays, None, ignore)[0], **options)).double()
        each = held.new_zeros(len(kept)).masked_scatter(kept.to(held.device), held)
        weights = kept.to(held.device).double() if weights is None else weights.to(held.device) * kept.to(held.device)
    return partial(_mean, each) if weights is None else partial(_weighted_mean, weights * each, weights)


def _weighted_mean(summed: Float[Tensor, " n"], weights: Float[Tensor, " n"], draws: Draws) -> Values:
    """The sum of the values of what was drawn by the sum of its weights."""
    if draws.clusters is not None:
        numbers = draws.clusters.numbers.to(summed.device)
        parts = [each.new_zeros(len(draws.clusters.sizes)).index_add(0, numbers, each) for each in (summed, weights)]
    else:
        parts = [each.unflatten(0, (-1, draws.size)).sum(1) for each in (summed, weights)]
    top, bottom = (part.take(draws.groups.to(part.device)).sum(-1) for part in parts)
    return top / bottom


def _mean(each: Float[Tensor, " n"], draws: Draws) -> Values:
    """A mean over the examples is one over the means of groups of one size."""
    if draws.clusters is not None:
        return _weighted_mean(each, torch.ones_like(each), draws)
    each = each.unflatten(0, (-1, draws.size)).mean(1)
    return each.take(draws.groups.to(each.device)).mean(-1)


def _by_score(examples: Examples, merged: str) -> Callable[[Draws], tuple[Counts, Counts]]:
    """How many examples, and how many positives, each draw has at each score, from high to low."""
    ranking, place = examples.once(_ranked)
    place = _runs(ranking, merged)[place]
    many = int(place.max()) + 1
    positive = check_mask(examples.arrays[1], device=place.device)
    cell = place + many * positive

    def seen(draws: Draws) -> tuple[Counts, Counts]:
        negatives, positives = draws.count(cell, 2 * many, examples.weights).split(many, -1)
        return negatives + positives, positives

    return seen


def _by_confidence(examples: Examples) -> Callable[[Draws], tuple[Counts, Counts]]:
    """As _by_score, where a loss stands beside each confidence."""
    ranking = rank_losses(*examples.arrays)
    score = check_confidence(examples.arrays[0]).to(ranking.scores)
    place = torch.searchsorted(-ranking.scores, -score)
    loss = check_confidence(examples.arrays[1], "losses").double().to(score.device)
    weights = examples.weights

    def seen(draws: Draws) -> tuple[Counts, Counts]:
        count = draws.count(place, len(ranking.scores), weights).double()
        lost = draws.add(place, len(ranking.scores), loss if weights is None else loss[:, None] * draws.evened(weights))
        return count, count - lost

    return seen


def _ranked(examples: Examples) -> tuple[Ranking, Int64[Tensor, " n"]]:
    """The ranking, and where in it each example stands."""
    ranking = rank(*examples.arrays, names=(f"{examples.name}[0]", f"{examples.name}[1]"))
    score = check_confidence(examples.arrays[0]).to(ranking.scores)
    return ranking, torch.searchsorted(-ranking.scores, -score)


def _runs(ranking: Ranking, merged: str) -> Int64[Tensor, " k"]:
    """Numbers the runs of neighbouring scores that may act as one; a score of both outcomes is alone.

    Inside a run of one outcome every order of the examples gives the same curve, so it may count as one tie, and the
    fewer scores the faster the draws.
    """
    right, wrong = ranking.positives == ranking.count, ranking.positives == 0
    same = right[1:] & right[:-1]
    if merged == "outcome":
        same |= wrong[1:] & wrong[:-1]
    elif merged == "none":
        same = torch.zeros_like(same)
    return torch.cat([same.new_zeros(1), ~same]).cumsum(0)


def _calibration_error(
    examples: Examples, *, bins: int | None = None, by: str = "width", norm: str = "l1"
) -> Evaluator:
    measure = calibration.NORMS[check_choice(norm, calibration.NORMS, "norm")]
    totals = _binned(examples, bins, by)
    return lambda draws: measure(*binning.gaps_from_counts(*draws.once(totals)))


def _signed_error(
    measure: Callable[..., Tensor], examples: Examples, *, bins: int | None = None, by: str = "width"
) -> Evaluator:
    totals = _binned(examples, bins, by)
    return lambda draws: measure(*draws.once(totals))


def _binned(examples: Examples, bins: int | None, by: str) -> Callable[[Draws], tuple[Tensor, ...]]:
    """Count, sum of confidence and how many are right, by bin."""
    prepare = {"width": _by_width, "mass": _by_mass}[check_choice(by, binning.BINNINGS, "by")]
    totals: Callable[[Draws], tuple[Tensor, ...]] = examples.once(
        prepare, check_whole(15 if bins is None else bins, "bins", least=1)
    )
    return totals


def _by_width(examples: Examples, bins: int) -> Callable[[Draws], tuple[Tensor, ...]]:
    score, hit = check_share_and_hits(*examples.arrays)
    number = binning.place_by_width(score, bins)
    cell, values = number + bins * hit, score.double()
    weights = examples.weights

    def totals(draws: Draws) -> tuple[Tensor, ...]:
        wrong, right = draws.count(cell, 2 * bins, weights).split(bins, -1)
        heavy = values if weights is None else values[:, None] * draws.evened(weights)
        return wrong + right, draws.add(number, bins, heavy), right

    return totals


def _by_mass(examples: Examples, bins: int) -> Callable[[Draws], tuple[Tensor, ...]]:
    """The bins of each draw end at its own quantiles, so they are cut out of cumulated counts, which all numbers of bins share."""
    cumulated = examples.once(_cumulated)

    def totals(draws: Draws) -> tuple[Tensor, ...]:
        parts = draws.once(cumulated)
        ends = torch.arange(1, bins + 1, device=parts[0].device) * parts[0][:, -1:]
        if parts[0].is_floating_point():
            last = torch.searchsorted(parts[0], ends / bins * (1 - 1e-12))
        else:
            last = torch.searchsorted(parts[0], -(-ends // bins))
        count, summed, right = (part.gather(-1, last).diff(prepend=part.new_zeros(len(part), 1)) for part in parts)
        return count, summed, right

    return totals


def _cumulated(examples: Examples) -> Callable[[Draws], list[Tensor]]:
    """Examples, their confidence and how many are correct, summed from the lowest score on."""
    check_share_and_hits(*examples.arrays)
    scores, seen = examples.once(_ranked)[0].scores.double(), examples.once(_by_score, "none")

    def sums(draws: Draws) -> list[Tensor]:
        count, right = draws.once(seen)
        return [part.flip(-1).cumsum(-1).contiguous() for part in (count, count * scores, right)]

    return sums


def _macro_f1(examples: Examples) -> Evaluator:
    preds, labels = check_classes(*examples.arrays)
    present, numbers = torch.stack([preds, labels]).unique(return_inverse=True)
    many = len(present)
    cell = numbers[1] + many * (preds == labels)

    def evaluate(draws: Draws) -> Values:
        missed, hits = draws.count(cell, 2 * many, examples.weights).split(many, -1)
        predicted = draws.count(numbers[0], many, examples.weights)
        return classification.macro_f1_from_counts(hits, missed + hits + predicted)

    return evaluate
