"""All there is to say of a classifier's outputs in one call: a table with intervals, groups, a second model, and a figure."""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from uqlib.base.arrays import Column, Table, as_tensor
from uqlib.base.checks import (
    are_probabilities,
    check_labels,
    check_logits,
    check_probs,
    check_rows,
    check_weights,
    check_whole_column,
)
from uqlib.base.extras import named
from uqlib.base.options import check_fraction, check_number, check_whole
from uqlib.calibrate.calibrators import cross_calibrate
from uqlib.calibrate.temperature import fit_temperature
from uqlib.metrics import calibration, classification, detection, selective
from uqlib.metrics.curves.isotonic import score_parts
from uqlib.metrics.outcomes import Outcome, nll_of, outcome_of
from uqlib.metrics.resampling.bootstrap import DEFINED, percentiles, resample_together
from uqlib.metrics.resampling.draws import as_number
from uqlib.metrics.rows import kept_rows, numbered
from uqlib.report import plots

with named():
    import pandas as pd

LEVEL = 0.95
PATIENCE = 60.0  # seconds that intervals may take without a word
TRIAL = 4  # draws that tell how long all of them take
ARROWS = {"higher": "↑", "lower": "↓", "nearer 0": "0"}
# of a score: the first less the second plus the third
PARTS = {"miscalibration": "lower", "discrimination": "higher", "uncertainty": "lower"}


class Judgement(NamedTuple):
    """What the report says of one kind of probabilities: a metric, its arrays, and which way is better."""

    name: str
    statistic: Callable[..., Any]
    arrays: tuple[Tensor, ...]
    better: str  # "higher", "lower" or "nearer 0"
    drawn: bool = True  # whether it has an interval


@dataclass(frozen=True, eq=False)
class Report:
    """The numbers of `report`. It prints as a table; `frame` holds a row a number, and what is asked of it else is asked of that."""

    frame: "pd.DataFrame"  # measure, better, group, model, probabilities, value, low, high
    notes: tuple[str, ...]
    judged: dict[str, tuple[Tensor, Tensor]] = field(repr=False)  # confidence and correct, by kind of probabilities
    plain: bool = True  # whether rows are independent and count once: bands are known of those alone

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.frame, name)

    def __getitem__(self, key: Any) -> Any:
        return self.frame[key]

    def __len__(self) -> int:
        return len(self.frame)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.frame)

    @property
    def table(self) -> "pd.DataFrame":
        """The numbers as text, a row a measure, raw and calibrated, each less the other model, and the worst group."""
        whole = self.frame[self.frame["group"].isna()]
        texts = {}
        for kind in whole["probabilities"].unique():
            for model, name in (("this", kind), ("this - other", f"{kind}, less the other")):
                part = whole[(whole["model"] == model) & (whole["probabilities"] == kind)].set_index("measure")
                if len(part):
                    texts[name] = part.apply(_cell, axis=1)
        table = pd.DataFrame(texts).reindex(whole["measure"].unique())
        better = whole.drop_duplicates("measure").set_index("measure")["better"]
        table.insert(0, "best", better.reindex(table.index).map(ARROWS))
        if self.frame["group"].notna().any():
            worst = self.worst.set_index("measure")
            table["worst group"] = [
                f"{_cell(worst.loc[name])} ({worst.loc[name, 'group']})" if name in worst.index else ""
                for name in table.index
            ]
        return table.fillna("").rename_axis(None)

    @property
    def worst(self) -> "pd.DataFrame":
        """For each measure the group with the worst value of the raw probabilities; of many groups one is so by chance."""
        rows = []
        parts = self.frame[(self.frame["group"].notna()) & (self.frame["probabilities"] == "raw")]
        for _, part in parts.dropna(subset="value").groupby("measure", sort=False):
            way = part["better"].iloc[0]
            bad = -part["value"] if way == "higher" else part["value"].abs()
            rows.append(part.loc[bad.idxmax()])
        return pd.DataFrame(rows, columns=self.frame.columns).reset_index(drop=True)

    @property
    def groups(self) -> "pd.DataFrame":
        """The numbers of each group as text, a row a group, of the raw probabilities."""
        part = self.frame[(self.frame["group"].notna()) & (self.frame["probabilities"] == "raw")]
        cells = part.assign(text=part.apply(_cell, axis=1))
        return cells.pivot(index="group", columns="measure", values="text")[list(part["measure"].unique())]

    def __str__(self) -> str:
        return "\n".join([*self.notes, self.table.to_string()])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "".join(f"<p>{note}</p>" for note in self.notes) + self.table.to_html(border=0, index_names=False)

    def plot(self) -> Any:
        """One figure: reliability and risk by coverage, with bands that hold the whole curve, and how sure the answers are.

        Returns:
            The matplotlib figure. Where rows have weights or belong to clusters there are no bands, for these suppose
            independent rows that count once.
        """
        plots.use_style()
        figure, axes = plots.panels(3)
        hues = ("blue", "orange")
        for (kind, (confidence, correct)), hue in zip(self.judged.items(), hues, strict=False):
            colour, pair = plots.COLOURS[hue], (confidence, correct)
            if self.plain and len(correct) > 20 and 0 < int(correct.sum()) < len(correct):
                seed = torch.Generator().manual_seed(0)
                plots.curve_with_band(axes[0], "reliability", *pair, label=kind, colour=colour)
                plots.curve_with_band(axes[1], "risk_coverage", *pair, colour=colour, generator=seed, draws=500)
            else:
                plots.reliability(axes[0], calibration.reliability_curve(*pair), label=kind, colour=colour)
                plots.risk_coverage(axes[1], selective.selective_risks(*pair), colour=colour)
            axes[2].hist(confidence.numpy(), bins=20, range=(0, 1), histtype="step", color=colour, linewidth=1.4)
        axes[2].set(xlabel="confidence", ylabel="examples", xlim=(0, 1))
        axes[0].legend(loc="upper left")
        plots.fit(figure)
        return figure


def report(
    outputs: Table,
    labels: Column,
    *,
    compare: Table | None = None,
    groups: Column | None = None,
    cluster: Column | None = None,
    weights: Column | None = None,
    ignore: int | None = None,
    temperature: str | float | None = "cross",
    risk: float = 0.05,
    draws: int = 1000,
) -> Report:
    """Accuracy, proper scores, calibration and selective prediction of a classifier, raw and after a temperature, with intervals.

        print(report(logits, labels))
        report(logits, labels, groups=hospital, cluster=patient, compare=other_logits).plot()

    Accuracy, top-5 accuracy (of more than 5 classes), NLL in nats, Brier score, ECE (15 bins of equal width) and with its sign,
    AUROC of the right over the wrong, AURC, AUGRC, and the coverage at a risk. The squared error of the confidence is cut, without
    bins, into miscalibration - discrimination + uncertainty; these have no intervals, which would be biased. Fractions, not percent.
    That of an ECE may lie above it: a plug-in ECE is biased upwards, and its draws once more.
    Intervals of 95 % are percentiles of draws of the examples, from a fixed seed; Student's of fewer than 40 draws, none of a
    single draw, example or cluster. `compare` adds its own numbers and the paired differences, this less the other. Time: see
    benchmarks; a bootstrap of more than a minute says so first.

    Args:
        outputs: (n, c) logits, or probabilities, told by their rows; of these what is below 1e-12 counts as that. Of another
            shape: `metrics.flatten`.
        labels: (n,) classes in [0, c).
        compare: (n, c) of a second model, on the same examples.
        groups: (n,) numbers or names; each group is judged alone, and the worst one of each measure is told.
        cluster: (n,) rows that belong together, such as those of one patient; drawn together, and calibrated together.
        weights: (n,) how much each example counts, 0 or larger; those of weight 0 are left out.
        ignore: the label of rows to leave out.
        temperature: "cross" fits it on four fifths of the examples for the fifth that is left; a number is one that was
            fitted elsewhere; None leaves it out. Its fits know no weights.
        risk: that the coverage is told at, in [0, 1].
        draws: of the bootstrap.

    Returns:
        What prints as a table; `frame` holds the numbers, `worst` and `groups` those of groups, `plot()` draws.

    Raises:
        ValueError: if the arrays do not belong together, or there is no best temperature (pass temperature=None).

    Examples:
        >>> import numpy as np
        >>> from uqlib.report import report
        >>> rng = np.random.default_rng(0)
        >>> labels = rng.integers(0, 3, 600)
        >>> logits = 3 * rng.normal(size=(600, 3)) + 4 * np.eye(3)[labels]
        >>> found = report(logits, labels, draws=200)
        >>> found.frame.query("measure == 'accuracy'")[["probabilities", "value"]].round(3).values.tolist()
        [['raw', 0.708], ['calibrated', 0.708]]
    """
    tables, truth, columns = _checked(outputs, labels, compare, {"cluster": cluster, "groups": groups}, weights, ignore)
    risk, draws = check_fraction(risk, "risk"), check_whole(draws, "draws", least=1)
    notes = [f"{len(truth):,} examples, {tables['this'].shape[1]} classes; intervals of 95 % from {draws:,} draws of " + (
        f"{len(columns['cluster'].unique()):,} clusters" if cluster is not None else "the examples")]  # fmt: skip
    said = {(model, "raw"): outcome_of(table, truth) for model, table in tables.items()}
    if temperature is not None:
        for model, table in tables.items():
            said[model, "calibrated"], note = _calibrated(table, truth, temperature, columns.get("cluster"))
            notes.append(f"calibrated{'' if model == 'this' else ', other'}: {note}")
    judged = {key: _judge(each, risk) for key, each in said.items()}
    frames = [_frame(judged, columns, draws, None)]
    names = columns.get("names", [])
    for number, name in enumerate(names):
        rows = (columns["groups"] == number).nonzero()[:, 0]
        if not len(rows):  # all of it is ignored
            continue
        part = {
            key: [each._replace(arrays=tuple(array[rows] for array in each.arrays)) for each in found]
            for key, found in judged.items()
            if key[0] == "this"
        }
        inner = {key: column[rows] for key, column in columns.items() if isinstance(column, Tensor)}
        frames.append(_frame(part, inner, draws, name))
    shown = {
        kind: next(each.arrays for each in found if each.name == "AURC")
        for (model, kind), found in judged.items()
        if model == "this"
    }
    frame = pd.concat(frames, ignore_index=True)
    return Report(frame, tuple(notes), shown, plain=weights is None and cluster is None)  # type: ignore[arg-type]


def _checked(
    outputs: Table, labels: Column, compare: Table | None, named_columns: dict[str, Any], weights: Any, ignore: Any
) -> tuple[dict[str, Tensor], Int[Tensor, " n"], dict[str, Any]]:
    """Logits of each model, labels and columns, of the rows that count."""
    given = {"this": ("outputs", outputs)} | ({} if compare is None else {"other": ("compare", compare)})
    tables = {}
    for model, (name, table) in given.items():
        if are_probabilities(table, name):
            tables[model] = check_probs(table, name).cpu().double().clamp(min=1e-12).log()
        else:
            tables[model] = check_logits(table, name).cpu()
    if "other" in tables and tables["other"].shape != tables["this"].shape:
        raise ValueError(
            f"compare must have the shape of outputs, {tuple(tables['this'].shape)}; it is {tuple(tables['other'].shape)}"
        )
    rows = len(tables["this"])
    truth = check_whole_column(labels).cpu()
    check_rows(truth, rows, "labels")
    columns: dict[str, Any] = {}
    for name, column in named_columns.items():
        if column is not None:
            names, columns[name] = numbered(column, rows, name)
            if name == "groups":
                columns["names"] = names
    if weights is not None:
        columns["weights"] = check_weights(weights, rows).cpu()
    kept = None if ignore is None else kept_rows(truth, ignore)
    if (heavy := columns.get("weights")) is not None and not heavy.all():
        kept = heavy > 0 if kept is None else kept & (heavy > 0)
    if kept is not None:
        truth, tables = truth[kept], {model: table[kept] for model, table in tables.items()}
        columns = {key: each[kept] if isinstance(each, Tensor) else each for key, each in columns.items()}
    return tables, check_labels(truth, tables["this"].shape[1], rows=len(truth)), columns


def _calibrated(
    logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], temperature: str | float, cluster: Tensor | None
) -> tuple[Outcome, str]:
    """The outcome after a temperature, and how it came about."""
    if isinstance(temperature, str):
        if temperature != "cross":
            raise ValueError(f"temperature must be 'cross', a number or None; it is {temperature!r}")
        try:
            fit = fit_temperature(logits, labels).temperature
            probs = as_tensor(cross_calibrate("temperature", logits, labels, cluster=cluster))
        except ValueError as error:
            raise ValueError(
                f"no temperature could be fitted; pass temperature=None to leave it out. {error}"
            ) from None
        outcome = Outcome(probs.argmax(-1), probs, probs.amax(-1), labels)
        return outcome, f"by a temperature fitted across five folds, {fit:.3f} on all"
    value = check_number(temperature, "temperature", above=0)
    return outcome_of(logits.double() / value, labels), f"by the temperature {value:g}"


def _judge(outcome: Outcome, risk: float) -> list[Judgement]:
    """What there is to say of an outcome: means as one value an example."""
    probs, labels, confidence = as_tensor(outcome.probs), as_tensor(outcome.labels), as_tensor(outcome.confidence)
    pair, right = (confidence, outcome.correct), outcome.correct.double()
    mean = classification.average
    top = as_tensor(classification.top_k_each(probs, labels, k=5)) if probs.shape[1] > 5 else None
    at_risk = partial(selective.coverage_at_risk, risk=risk)
    return [
        Judgement("accuracy", mean, (right,), "higher"),
        *([] if top is None else [Judgement("top-5 accuracy", mean, (top,), "higher")]),
        Judgement("NLL", mean, (nll_of(outcome),), "lower"),
        Judgement("Brier score", mean, (as_tensor(classification.brier_each(probs, labels)),), "lower"),
        Judgement("Brier of confidence", mean, ((confidence - right).square(),), "lower"),
        *(Judgement(f"  {name}", partial(_part, name), pair, better, False) for name, better in PARTS.items()),
        Judgement("ECE", calibration.ece, pair, "lower"),
        Judgement("ECE with its sign", calibration.signed_ece, pair, "nearer 0"),
        Judgement("AUROC", detection.correctness_auroc, pair, "higher"),
        Judgement("AURC", selective.aurc, pair, "lower"),
        Judgement("AUGRC", selective.augrc, pair, "lower"),
        Judgement(f"coverage, {100 * risk:g} % risk", at_risk, pair, "higher"),
    ]


def _frame(
    judged: dict[tuple[str, str], list[Judgement]], columns: dict[str, Any], draws: int, group: Any
) -> "pd.DataFrame":
    """A row a number: of each model and kind of probabilities, and of the differences of two models."""
    weights = columns.get("weights")
    heavy = {} if weights is None else {"weights": weights}
    rows: dict[tuple[str, str, str], tuple[Judgement, float]] = {}
    for key, found in judged.items():
        for each in found:
            rows[(*key, each.name)] = each, _value(each, heavy)
    asked = {key: (each.statistic, each.arrays) for key, (each, value) in rows.items() if each.drawn and value == value}
    drawn = dict(zip(asked, _draw(list(asked.values()), columns, draws), strict=True))
    lines = [
        (each.name, each.better, group, model, kind, value, *_limits(value, drawn.get((model, kind, name))))
        for (model, kind, name), (each, value) in rows.items()
    ]
    for (model, kind, name), (each, value) in rows.items():
        other = ("other", kind, name)
        if model == "this" and other in rows:
            apart = drawn[model, kind, name] - drawn[other] if {(model, kind, name), other} <= drawn.keys() else None
            gap = value - rows[other][1]
            lines.append((name, each.better, group, "this - other", kind, gap, *_limits(gap, apart)))
    return pd.DataFrame(lines, columns=["measure", "better", "group", "model", "probabilities", "value", "low", "high"])


def _part(name: str, confidence: Tensor, correct: Tensor, weights: Tensor | None = None) -> float:
    """A part of the squared error of the confidence."""
    return float(getattr(score_parts(confidence, correct, weights=weights), name))


def _value(each: Judgement, heavy: dict[str, Tensor]) -> float:
    """The number of all examples; NaN where it is not defined, as an AUROC without a wrong answer."""
    if each.name == "AUROC" and len(each.arrays[1].unique()) < 2:
        return float("nan")
    return as_number(each.statistic(*each.arrays, **heavy))


def _draw(
    statistics: Sequence[tuple[Callable[..., Any], tuple[Tensor, ...]]], columns: dict[str, Any], draws: int
) -> Float[Tensor, "m draws"]:
    """Each statistic on the same draws; what would take long says so first."""
    cluster = columns.get("cluster")
    if len(statistics[0][1][0]) < 2 or (cluster is not None and len(cluster.unique()) < 2):  # says nothing of others
        return torch.full((len(statistics), draws), torch.nan, dtype=torch.float64)
    options: dict[str, Any] = {"cluster": cluster, "weights": columns.get("weights"), "undefined": True}
    if draws * len(statistics[0][1][0]) > 2**22:
        began = time.perf_counter()
        resample_together(statistics, draws=TRIAL, generator=torch.Generator().manual_seed(0), **options)
        seconds = (time.perf_counter() - began) / TRIAL * draws
        if seconds > PATIENCE:
            fewer = max(100, int(draws * PATIENCE / seconds))
            warnings.warn(
                f"{draws:,} draws take about {seconds / 60:.1f} minutes here; draws={fewer} would take "
                f"{fewer / draws * seconds:.0f} s",
                stacklevel=4,
            )
    return resample_together(statistics, draws=draws, generator=torch.Generator().manual_seed(0), **options)


def _limits(value: float, drawn: Float[Tensor, " draws"] | None) -> tuple[float, float]:
    """The ends of the interval, if the metric was defined on nearly all draws."""
    if drawn is None or drawn.isfinite().double().mean() < DEFINED:
        return float("nan"), float("nan")
    found = percentiles(value, drawn[drawn.isfinite()], LEVEL)
    return found.low, found.high


def _cell(row: Any) -> str:
    """A number and its interval, as text."""
    if not np.isfinite(row["value"]):
        return "not defined"
    ends = f" [{row['low']:.4f}, {row['high']:.4f}]" if np.isfinite(row["low"]) else ""
    return f"{row['value']:.4f}{ends}"
