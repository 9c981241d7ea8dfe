"""Metrics that update: batch after batch, merged across processes, on data larger than memory.

    stream = Stream("aurc")
    for confidence, correct in batches:
        stream.update(confidence, correct)
    stream.compute()

The value is that of the metric on all rows together, to the bit, in any order and any batches: what is counted is counted, and
sums are exact and rounded once, here and in the metrics. smooth_ece alone adds on a grid and agrees to the 1e-8 to which it is solved.
"""

import copy
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple, TypeVar

from jaxtyping import Float
from torch import Tensor

from uqlib.base.arrays import Column, Table, as_tensor
from uqlib.base.checks import check_labels, check_logits, check_probs, check_rows, check_share
from uqlib.base.options import check_choice, check_whole
from uqlib.judge.kept import ClassRanks, ClassWidths, Confusions, Kept, Ranks, Sums, Widths
from uqlib.metrics import calibration, classification, detection, selective
from uqlib.metrics.bins import BINNINGS
from uqlib.metrics.curves import isotonic
from uqlib.metrics.curves.achievable import achievable_aurc
from uqlib.metrics.outcomes import outcome_of

EXAMPLES = {  # two made-up rows that every good option suits
    "score": [0.75, 0.25],
    "positive": [True, False],
    "confidence": [0.75, 0.25],
    "correct": [True, False],
    "logits": [[2.0, 0.0], [0.0, 1.0]],
    "probs": [[0.75, 0.25], [0.25, 0.75]],
    "preds": [0, 1],
    "labels": [0, 0],
}


class Way(NamedTuple):
    """How a metric is computed from what is kept."""

    kind: tuple[Any, ...]  # equal kinds are kept once
    make: Callable[[], Kept]  # what keeps it
    read: Callable[[Any], Any]  # the metric of what was kept
    share: bool = False  # whether the score must lie in [0, 1]


def _of_sum(metric: Callable, each: Callable) -> Way:
    return Way((each.__name__,), partial(Sums, each), Sums.mean)


def _top_k(metric: Callable, *, k: int = 5) -> Way:
    each = partial(classification.top_k_each, k=k)
    return Way(("top_k_each", k), partial(Sums, each), Sums.mean)


def _of_ranking(metric: Callable, **options: Any) -> Way:
    names = _arrays(metric)
    return Way(("ranking", *names), partial(Ranks, names), lambda kept: metric(kept.whole(), **options))


def _of_rows(metric: Callable, *, share: bool = True, **options: Any) -> Way:
    names = _arrays(metric)
    return Way(("ranking", *names), partial(Ranks, names), lambda kept: metric(*kept.rows(), **options), share)


def _of_bins(metric: Callable, **options: Any) -> Way:
    chosen = inspect.signature(metric).bind_partial(**options)
    chosen.apply_defaults()
    by = check_choice(chosen.arguments["by"], BINNINGS, "by")
    if by == "mass":
        return _of_rows(metric, **options)
    bins = check_whole(15 if options.get("bins") is None else options["bins"], "bins", least=1)
    return Way(("width", bins), partial(Widths, bins), lambda kept: metric(kept.bins(), **options))


def _of_classes(metric: Callable, *, bins: int = 15, by: str = "width", norm: str = "l1") -> Way:
    bins = check_whole(bins, "bins", least=1)
    one = partial(calibration.ece, bins=bins, by=by, norm=norm)
    if check_choice(by, BINNINGS, "by") == "mass":
        return Way(("class rankings",), ClassRanks, lambda kept: _mean([one(*ranks.rows()) for ranks in kept.ranks]))
    return Way(
        ("class widths", bins), partial(ClassWidths, bins), lambda kept: _mean([one(each) for each in kept.columns()])
    )


def _mean(errors: list[float]) -> float:
    return sum(errors) / len(errors)


def _f1(metric: Callable) -> Way:
    return Way(("confusions",), Confusions, _macro_f1)


def _macro_f1(kept: Confusions) -> float:
    seen = kept.whole()
    return classification.macro_f1_from_counts(seen.hits, seen.labelled + seen.predicted).item()


def _class_errors(metric: Callable, *, classes: int) -> Way:
    classes = check_whole(classes, "classes", least=1)
    return Way(("confusions", classes), partial(Confusions, classes), partial(_error_of_classes, classes))


def _error_of_classes(classes: int, kept: Confusions) -> Float[Tensor, " c"]:
    seen = kept.whole()
    held = seen.labelled > 0
    if int(held.sum()) != classes:
        missing = min(set(range(classes)) - set(seen.classes[held].tolist()))
        raise ValueError(f"every class needs an example; class {missing} of {classes} has none so far")
    return ((seen.labelled - seen.hits).double() / seen.labelled)[held]


_RANKED = (
    *(selective.aurc, selective.augrc, selective.e_aurc, selective.aurc_of_trapezoids, selective.coverage_at_risk),
    *(selective.selective_accuracy_coverage, selective.risk_at_coverage, selective.selective_accuracy_at_coverage),
    *(detection.auroc, detection.aupr, detection.correctness_auroc, detection.correctness_aupr),
    *(detection.r_precision, detection.fpr_at_tpr, detection.operating_point, detection.roc_curve),
    *(selective.selective_risks, selective.risk_coverage_curve, achievable_aurc),
)
_BINNED = (
    *(calibration.ece, calibration.signed_ece, calibration.rms_calibration_error, calibration.debiased_ece),
    calibration.reliability_curve,
)
_ISOTONIC = (
    *(isotonic.isotonic_curve, isotonic.score_parts, isotonic.miscalibration, isotonic.discrimination),
    *(isotonic.overconfidence, isotonic.underconfidence),
)

# Every metric that streams, and the way it does: of the metric itself and its options
METRICS: dict[str, tuple[Callable[..., Any], Callable[..., Way]]] = {
    "accuracy": (classification.accuracy, partial(_of_sum, each=classification.correctness)),
    "nll": (classification.nll, partial(_of_sum, each=classification.nll_each)),
    "brier": (classification.brier, partial(_of_sum, each=classification.brier_each)),
    "top_k_accuracy": (classification.top_k_accuracy, _top_k),
    "macro_f1": (classification.macro_f1, _f1),
    "classwise_error": (classification.classwise_error, _class_errors),
    **{metric.__name__: (metric, _of_ranking) for metric in _RANKED},
    **{metric.__name__: (metric, _of_bins) for metric in _BINNED},
    **{metric.__name__: (metric, _of_rows) for metric in _ISOTONIC},
    "classwise_ece": (calibration.classwise_ece, _of_classes),
    "smooth_ece": (calibration.smooth_ece, _of_rows),
    "aurc_fd_shifts": (selective.aurc_fd_shifts, partial(_of_rows, share=False)),
}
ROW_ORDER = (
    "its ties stay in the order of the rows, which batches and processes do not have; aurc_of_trapezoids shares them"
)
CLASSES = "it sorts the probabilities of every class; keep them"
WEIGHTS = ("weights", "ignore")  # of rows, which an update takes as they are
PAIRS = "it compares every example with every other"
DRAWS = "a bootstrap draws from the examples: keep them, or the values of nll_each"
REFUSED = {
    "aurc_trapezoid": ROW_ORDER,
    **dict.fromkeys(("recall_at_1", "r_auroc", "abstained_recall", "nearest_neighbours", "retrieved"), PAIRS),
    **dict.fromkeys(("interval", "summary", "paired_difference", "resample", "calibration_test"), DRAWS),
    "classwise_score_parts": CLASSES,
}


Some = TypeVar("Some", bound="_Updating")


class _Updating:
    """Metrics by name, and what they keep, each kind once."""

    def __init__(self, chosen: Mapping[str, tuple[str, Mapping[str, Any]]]):
        self.chosen = {name: (metric, dict(options)) for name, (metric, options) in chosen.items()}
        self._ways = {name: _way(metric, options) for name, (metric, options) in self.chosen.items()}
        self.reset()

    def reset(self) -> None:
        """Forget every example."""
        self._kept = {way.kind: way.make() for way in self._ways.values()}
        self.count = 0  # examples seen

    def merge(self: Some, other: Some) -> None:
        """Add what another one of the same metrics has seen; that one stays as it is.

        Raises:
            TypeError: if it is of another kind.
            ValueError: if it has other metrics or options.
        """
        if not isinstance(other, type(self)):
            raise TypeError(f"merge takes another {type(self).__name__}; it is a {type(other).__name__}")
        if other.chosen != self.chosen:
            raise ValueError(f"both must have the same metrics and options; they have {self.chosen} and {other.chosen}")
        if other.count:
            self._add({kind: kept.whole() for kind, kept in other._kept.items()}, other.count)

    def merge_state(self: Some, others: Iterable[Some]) -> Some:
        """`merge` of several, as torcheval and torchmetrics name it; all or none.

        Raises:
            TypeError: if one is of another kind, or this is no list of them.
            ValueError: if one has other metrics or options.
        """
        if isinstance(others, _Updating) or not isinstance(others, Iterable):
            raise TypeError(f"merge_state takes a list; it is a {type(others).__name__}. merge takes one")
        together = copy.deepcopy(self)
        for other in others:
            together.merge(other)
        self.__dict__.update(together.__dict__)
        return self

    def state(self) -> dict[str, Any]:
        """All that was seen, in plain values: to be pickled, gathered from processes, given to `from_state`."""
        kept = {kind: each.whole() for kind, each in self._kept.items()} if self.count else {}
        return {"metrics": copy.deepcopy(self.chosen), "count": self.count, "kept": copy.deepcopy(kept)}

    @classmethod
    def from_state(cls: type[Some], state: Mapping[str, Any]) -> Some:
        """One that has seen what `state()` tells."""
        made = cls.__new__(cls)
        _Updating.__init__(made, state["metrics"])
        if state["count"]:
            made._add(copy.deepcopy(state["kept"]), state["count"])
        return made

    def __getstate__(self) -> dict[str, Any]:
        return self.state()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(self.from_state(state).__dict__)

    def _update(self, arrays: Mapping[str, Any]) -> None:
        """All of a batch, or an error and nothing of it."""
        parts = {}
        for name, way in self._ways.items():
            given = [arrays[each] for each in _arrays(METRICS[self.chosen[name][0]][0])]
            if way.share:
                check_share(given[0])
            if way.kind not in parts:
                parts[way.kind] = self._kept[way.kind].part(*given)
        rows = len(next(iter(arrays.values())))
        for name, array in arrays.items():
            check_rows(array, rows, name)
        self._add(parts, rows)

    def _add(self, parts: Mapping[tuple[Any, ...], Any], count: int) -> None:
        for kind, part in parts.items():
            self._kept[kind].check(part)
        for kind, part in parts.items():
            self._kept[kind].add(part)
        self.count += count

    def _compute(self) -> dict[str, Any]:
        if not self.count:
            raise ValueError("there is no example yet; call update before compute")
        return {name: way.read(self._kept[way.kind]) for name, way in self._ways.items()}


class Stream(_Updating):
    """One metric of `uqlib.metrics` that takes its rows in batches.

    Memory: for a mean, class counts and bins of equal width it does not grow with the data; for what depends on the order
    of the confidences it grows with the distinct ones, and so it does for bins of equal mass and smooth_ece, which write all
    rows out again to compute. `pickle`, `copy.deepcopy` and `state()` keep what was seen. Every batch is checked as the
    metric checks its input; a batch that is refused changes nothing. Curves come as torch tensors.

    Args:
        metric: a name in METRICS.
        options: those of the metric, such as bins=10.

    Raises:
        ValueError: if the metric is unknown, cannot be streamed (the message says why), or an option does not suit it.
        TypeError: if it has no such option, or needs one that is not given.

    Examples:
        >>> from uqlib.judge import Stream
        >>> stream = Stream("ece", bins=10)
        >>> stream.update([0.9, 0.9], [True, True])
        >>> stream.update([0.6, 0.6], [True, False])
        >>> round(stream.compute(), 3)
        0.1
    """

    def __init__(self, metric: str, **options: Any):
        _check_options(_known(metric), options)
        super().__init__({"value": (metric, options)})

    @property
    def metric(self) -> str:
        """The name of the metric."""
        return self.chosen["value"][0]

    @property
    def options(self) -> dict[str, Any]:
        """Those it was made with."""
        return dict(self.chosen["value"][1])

    def update(self, *arrays: Column | Table, **named: Column | Table) -> None:
        """Take a batch: the arrays of the metric, in its order or by name, such as (confidence, correct).

        Raises:
            TypeError: if these are not the arrays that the metric takes.
            ValueError: if an array is refused, as the metric refuses it.
        """
        names = _arrays(METRICS[self.metric][0])
        given = dict(zip(names, arrays, strict=False)) | named
        if len(arrays) + len(named) != len(names) or set(given) != set(names):
            shown = [*(["by position"] * len(arrays)), *named]
            raise TypeError(f"{self.metric} takes {' and '.join(names)}; got {', '.join(shown) or 'nothing'}")
        self._update(given)

    def compute(self) -> Any:
        """The metric of all rows so far.

        Raises:
            ValueError: if there are none, or the metric has no value on them, such as auroc where one class is missing.
        """
        return self._compute()["value"]

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self.options.items())
        return f"<Stream({self.metric!r}{options}) of {self.count} examples>"


class Streams(_Updating):
    """Several metrics of the same batches; what they keep in common is kept once, such as one Ranking for all of the curve.

    Args:
        metrics: names, which the results bear as well.
        named: a name for a result, and the name of a metric or a new `Stream` with its options.

    Raises:
        ValueError: as `Stream`; if a name occurs twice, there is none, or a Stream has seen examples.
        TypeError: as `Stream`.

    Examples:
        >>> from uqlib.judge import Stream, Streams
        >>> streams = Streams("accuracy", "aurc", fine=Stream("ece", bins=100))
        >>> streams.update(logits=[[2.0, 0.0], [0.0, 1.0]], labels=[0, 1])
        >>> streams.update(logits=[[0.0, 3.0], [1.0, 0.5]], labels=[1, 1])
        >>> {name: round(value, 3) for name, value in streams.compute().items()}
        {'accuracy': 0.75, 'aurc': 0.062, 'fine': 0.265}
    """

    def __init__(self, *metrics: str, **named: "str | Stream"):
        if twice := {name for name in metrics if metrics.count(name) > 1 or name in named}:
            raise ValueError(f"each result needs a name of its own; {min(twice)!r} occurs twice. Pass new=Stream(...)")
        if not metrics and not named:
            raise ValueError("metrics is empty; pass names such as 'aurc'")
        made = {name: Stream(name) for name in metrics}
        made |= {name: each if isinstance(each, Stream) else Stream(each) for name, each in named.items()}
        if seen := [name for name, each in made.items() if each.count]:
            raise ValueError(f"{seen[0]} has seen {made[seen[0]].count} examples; pass a new Stream")
        super().__init__({name: (each.metric, each.options) for name, each in made.items()})

    def update(self, **arrays: Column | Table) -> None:
        """Take a batch, by the names that the metrics give their arrays.

        logits and labels are enough for all metrics but those of score and positive: the largest logit is the prediction
        and its softmax the confidence, where preds, probs, confidence or correct are not given themselves. probs and labels
        are enough for all but the nll.

        Raises:
            TypeError: if an array is missing, or none of the metrics takes it.
            ValueError: if an array is refused, as the metrics refuse it.
        """
        wanted = {each for metric, _ in self.chosen.values() for each in _arrays(METRICS[metric][0])}
        if odd := set(arrays) - wanted - {"logits", "probs", "labels"}:
            raise TypeError(f"none of these metrics takes {min(odd)}; they take {', '.join(sorted(wanted))}")
        given = arrays if wanted <= set(arrays) else outcome_arrays(arrays) | arrays
        if missing := wanted - set(given):
            raise TypeError(f"update needs {min(missing)}; got {', '.join(arrays) or 'nothing'}")
        self._update(given)

    def compute(self) -> dict[str, Any]:
        """Each metric of all rows so far, by its name.

        Raises:
            ValueError: if there are none, or a metric has no value on them.
        """
        return self._compute()

    def __repr__(self) -> str:
        return f"<Streams({', '.join(map(repr, self.chosen))}) of {self.count} examples>"


def outcome_arrays(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """What logits (or probs) and labels say of a network: preds, probs, confidence and correct, beside themselves."""
    found = dict(arrays)
    if not arrays.keys() & {"logits", "probs"} or "labels" not in arrays:
        return found
    if "logits" in arrays:
        outcome = outcome_of(check_logits(arrays["logits"]), arrays["labels"])
        probs, confidence = as_tensor(outcome.probs), outcome.confidence
    else:
        probs = check_probs(arrays["probs"])
        confidence = probs.amax(-1)
    preds = arrays.get("preds", probs.argmax(-1))
    labels = check_labels(arrays["labels"], probs.shape[1], rows=len(probs), device=probs.device)
    correct = classification.correctness(preds, labels)
    return {"probs": probs, "preds": preds, "confidence": confidence, "correct": correct} | found


def _known(metric: str) -> str:
    if isinstance(metric, str) and metric in REFUSED:
        raise ValueError(f"{metric} cannot be streamed: {REFUSED[metric]}")
    return check_choice(metric, METRICS, "metric")


def _way(name: str, options: Mapping[str, Any]) -> Way:
    metric, way = METRICS[name]
    return way(metric, **options)


def _check_options(name: str, options: Mapping[str, Any]) -> None:
    """Raise what is wrong with the options of a metric: it says so itself, of two rows."""
    metric, arrays = METRICS[name][0], _arrays(METRICS[name][0])
    known = {each: part for each, part in inspect.signature(metric).parameters.items() if each not in arrays}
    if odd := set(options) & set(WEIGHTS):
        raise TypeError(f"{name} has no option {min(odd)!r} here; leave rows out, or repeat them, in the update")
    known = {each: part for each, part in known.items() if each not in WEIGHTS}
    if odd := set(options) - set(known):
        raise TypeError(f"{name} has no option {min(odd)!r}; it has {', '.join(known) or 'none'}")
    needed = [each for each, part in known.items() if part.default is part.empty and each not in options]
    if needed:
        raise TypeError(f"{name} needs {needed[0]}; pass {needed[0]}=...")
    if "classes" in options or name == "top_k_accuracy":  # which say how many columns the rows must have
        _way(name, options)
    else:
        metric(*(EXAMPLES[each] for each in arrays), **options)


def _arrays(metric: Callable) -> tuple[str, str]:
    """The names of the arrays that a metric takes, its first two arguments."""
    first, second, *_ = inspect.signature(metric).parameters
    return first, second
