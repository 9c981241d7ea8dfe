"""Figures of results: a forest of intervals, a plot against a cost, and the alternative text that the same numbers make."""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, cast

import numpy as np

from uqlib import metrics
from uqlib.base.extras import named
from uqlib.report import plots
from uqlib.report.telling import ENDS, NOTHING, called, finding, in_print, label, number_text, template_fields

with named():
    import pandas as pd
    import seaborn as sns
    from matplotlib.figure import Figure
    from PIL import Image

MARKERS = "os^Dv<>P"
ORDER = ("blue", "orange", "green", "vermilion", "purple", "sky", "black", "grey")
SPAN = ("level", "draws")  # choices of a multiverse that make the interval, not the value
WIDE = 6  # letters of the name of a column that a phone has room for side by side
MOST_TOLD = 12  # cells that an alternative text names one by one


def forest(
    frame: pd.DataFrame,
    *,
    rows: str,
    colour: str = "",
    panels: str = "",
    xlabel: str = "change (points)",
    percent: bool = True,
    zero: bool = True,
    labels: Mapping[Any, str] | None = None,
) -> Figure:
    """Values with their intervals, a line a row; what differs in colour stands side by side.

    Args:
        frame: of `compare.cells`.
        rows, colour, panels: names of the cells: down, by colour and marker, and a panel each.
        xlabel: of the axis.
        percent: show 100 times the values.
        zero: draw the line of no difference.
        labels: names in print, by value.
    """
    order, series, parts = _split(frame, rows, colour, panels)
    height, across = 1.1 + (0.24 + 0.14 * len(series)) * len(order), 3 if len(parts) == 3 else min(2, len(parts))
    fig, axes = plots.panels(len(parts), columns=across, panel=(plots.WIDTH / across, height), sharey=True)
    times, step = 100 if percent else 1, min(0.16, 0.8 / len(series))
    for ax, (title, part) in zip(axes, parts.items(), strict=True):
        for k, each in enumerate(series):
            some = part[part[colour] == each] if colour else part
            y = np.array([order.index(value) for value in some[rows]]) + step * (k - (len(series) - 1) / 2)
            values = times * some.reindex(columns=ENDS).astype(float).to_numpy()
            look: Any = {"color": plots.COLOURS[ORDER[k % len(ORDER)]]}
            ax.hlines(y, values[:, 1], values[:, 2], linewidth=1.6, **look)
            ax.plot(
                values[:, 0],
                y,
                MARKERS[k % len(MARKERS)],
                label=plots.plain(label(each, labels)),
                **look,
            )
        if zero:
            ax.axvline(0, color=plots.COLOURS["grey"], linewidth=1, zorder=1)
        ax.set(xlabel=xlabel, title=plots.plain(label(title, labels)) if panels else "")
        _rows(ax, order, labels)
    axes[0].set_ylim(len(order) - 0.5, -0.5)  # no row is cut by the frame
    _legend(fig, len(series))
    return fig


def against(
    frame: pd.DataFrame,
    *,
    cost: str,
    colour: str = "",
    panels: str = "",
    xlabel: str = "",
    ylabel: str = "change (points)",
    percent: bool = True,
    log: bool = True,
    zero: bool = True,
    labels: Mapping[Any, str] | None = None,
    **style: Any,
) -> Figure:
    """Values with their intervals against a number, such as the cost of a sidekick; arguments as in `forest`, and `style`
    of `plots.metric_against_cost`, such as line="none" where neighbours are not of one kind."""
    template_fields(f"{{{cost}}}", frame)
    _, series, parts = _split(frame, cost, colour, panels)
    across = 2 if len(parts) == 4 else min(len(parts), 3)
    fig, axes = plots.panels(len(parts), columns=across, panel=(plots.WIDTH / across, 3.6 if across == 1 else 2.7))
    step = 0 if log else 0.015 * float(np.ptp(frame[cost].astype(float)))  # side by side, so that no bar hides another
    for i, (ax, (title, part)) in enumerate(zip(axes, parts.items(), strict=True)):
        here = [each for each in series if not colour or (part[colour] == each).any()]
        for shift, each in enumerate(here):
            k, some = series.index(each), part[part[colour] == each] if colour else part
            aside = (shift - (len(here) - 1) / 2) * step
            plots.metric_against_cost(
                ax, (some[cost].astype(float) * (1.05**shift if log else 1) + aside).tolist(),
                list(some.astype({part: float for part in ENDS}).itertuples()),
                label=label(each, labels), colour=plots.COLOURS[ORDER[k % len(ORDER)]], marker=MARKERS[k % len(MARKERS)],
                percent=percent, **style,
            )  # fmt: skip
        if zero:
            plots.base_line(ax, 0, label=None)
        if log:
            ax.set_xscale("log")
            plots.log_ticks(ax.xaxis)
        ax.set(xlabel=xlabel or cost, ylabel=ylabel if i % across == 0 else "")
        ax.set_title(plots.plain(label(title, labels)) if panels else "")
    _legend(fig, len(series))
    return fig


def strips(
    frame: pd.DataFrame,
    *,
    rows: str,
    colour: str = "",
    panels: str = "",
    joined: str = "",
    xlabel: str = "change (points)",
    percent: bool = True,
    labels: Mapping[Any, str] | None = None,
) -> Figure:
    """Every value a dot, a line a row, and a bar at their median: for so many values that a forest of them could not be read.

    Args:
        frame, rows, colour, panels, xlabel, percent, labels: as of `forest`.
        joined: name of the cells of which those of one value are joined by a line across the colours of a row.
    """
    order, series, parts = _split(frame, rows, colour, panels)
    pitch, across = 0.22 + 0.2 * len(series), min(3, len(parts))
    size = plots.WIDTH / across, 1.0 + pitch * len(order)
    fig, axes = plots.panels(len(parts), panel=size, sharey=True)
    for ax, (title, part) in zip(axes, parts.items(), strict=True):
        at = part.assign(x=(100 if percent else 1) * part["value"].astype(float), y=0.0)
        near = np.ptp(at["x"]) / 60 or 1.0
        for k, (each, value) in enumerate(product(series, order)):
            own = (at[rows] == value) & ((at[colour] == each) if colour else True)
            look: Any = {"color": plots.COLOURS[ORDER[k // len(order) % len(ORDER)]]}
            x, middle = at.loc[own, "x"], order.index(value) + (k // len(order) - (len(series) - 1) / 2) * 0.2 / pitch
            pile = x.groupby((x / near).round())  # dots that would lie on each other are stacked
            stack = 0 if joined else (pile.cumcount() - (pile.transform("size") - 1) / 2).clip(-4, 4) * 0.025 / pitch
            at.loc[own, "y"] = middle + stack
            name = plots.plain(label(each, labels)) if value == order[0] else None
            ax.plot(x, at.loc[own, "y"], "o", label=name, markersize=4, alpha=0.6, markeredgewidth=0, **look)
            ax.vlines(x.median(), middle - 0.09 / pitch, middle + 0.09 / pitch, linewidth=3, **look)
        for _, own in at.groupby([rows, joined]) if joined else ():
            ax.plot(own["x"], own["y"], color=plots.COLOURS["grey"], linewidth=0.7, alpha=0.6, zorder=1)
        ax.axvline(0, color=plots.COLOURS["grey"], linewidth=1, zorder=1)
        ax.set(xlabel=xlabel, title=plots.plain(label(title, labels)) if panels else "")
        _rows(ax, order, labels)
    axes[0].set_ylim(len(order) - 0.5, -0.5)
    _legend(fig, len(series))
    return fig


def curves(outcomes: Mapping[Any, Any], *, title: str = "", labels: Mapping[Any, str] | None = None) -> Figure:
    """Selective risk against coverage, and accuracy against confidence, of some outcomes of the same examples.

    What lies between the first two risks is shaded: its area is the difference of their AURC."""
    fig, (left, right) = plots.panels(2, columns=2, panel=(4.1, 3.4))
    for k, (name, each) in enumerate(outcomes.items()):
        look: dict[str, Any] = {"label": label(name, labels), "colour": plots.COLOURS[ORDER[k % len(ORDER)]]}
        plots.risk_coverage(left, metrics.selective_risks(each.confidence, each.correct), first=0.05, **look)
        plots.reliability(right, metrics.reliability_curve(each.confidence, each.correct), **look)
    if len(left.lines) > 1:
        (x, one), (_, other) = (line.get_data() for line in left.lines[:2])
        left.fill_between(x, one, other, color=plots.COLOURS["grey"], alpha=0.25, linewidth=0)
    left.set_title(plots.plain(title))
    left.legend()
    return fig


def pictures(
    images: Any,
    rows: Any,
    *,
    captions: Sequence[str] = (),
    framed: Any = (),
    columns: int = 8,
    width: float = plots.WIDTH,
) -> Figure:
    """Images side by side, those with a longer side than 96 pixels made smaller.

    Args:
        images: uint8 (n, h, w, 3), or image files.
        rows: numbers of those that are shown; or by title, so many in each line.
        captions: of all images, below them; a line break is one.
        framed: whether each of all images has a red frame.
        columns: how many stand side by side, where there are no titles.
        width: of the figure, inches.
    """
    lines = (
        list(rows.items())
        if isinstance(rows, Mapping)
        else [("", rows[k : k + columns]) for k in range(0, len(rows), columns)]
    )
    across = max(len(chosen) for _, chosen in lines)
    side, below = width / across, 0.15 * max((text.count("\n") + 1 for text in captions), default=0)
    fig, axes = plots.panels(len(lines) * across, columns=across, panel=(side, side + below))
    cast(Any, fig.get_layout_engine()).set(w_pad=0.01, h_pad=0.01, wspace=0.02, hspace=0.02)
    for k, (title, chosen) in enumerate(lines):
        own = axes[k * across : (k + 1) * across]
        own[0].set_ylabel(plots.plain(title), fontsize=9, rotation=0, ha="right", va="center")
        for ax in own[len(chosen) :]:
            ax.remove()
        for ax, row in zip(own, chosen, strict=False):
            small = Image.fromarray(np.asarray(images[int(row)]))
            small.thumbnail((96, 96))
            ax.imshow(small, interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            ax.grid(False)
            marked = len(framed) > 0 and bool(framed[row])
            ax.spines[:].set(visible=marked, color=plots.COLOURS["vermilion"], linewidth=3)
            text = "\n".join(map(plots.plain, captions[row].split("\n"))) if len(captions) else ""
            ax.set_xlabel(text, fontsize=7.5, labelpad=3, color=plots.COLOURS["vermilion" if marked else "black"])
    return fig


def two_names(given: Any, other: Any, classes: Sequence[str]) -> list[str]:
    """Captions: the name of each given class, and below it that of another where it differs, after an arrow."""
    return [f"{classes[g]:.12}" + f"\n→ {classes[o]:.10}" * int(g != o) for g, o in zip(given, other, strict=True)]


def heat(
    frame: pd.DataFrame,
    *,
    title: str = "",
    unit: str = "",
    xlabel: str = "",
    centre: float | None = None,
    digits: int = 2,
) -> Figure:
    """A table of numbers as colours with the numbers in them, by seaborn; `centre` is the value that is white."""
    fig, (ax,) = plots.panels(
        1, panel=(min(plots.WIDTH, 1.6 + 0.8 * frame.shape[1]), 1.2 + (0.42 if len(frame) < 10 else 0.27) * len(frame))
    )
    look: dict[str, Any] = {"cmap": "crest", "cbar": bool(unit), "linewidths": 0.5, "linecolor": plots.GRID}
    if centre is not None:  # as far to both sides, so that equal distances have equal strength
        reach = float((frame.astype(float) - centre).abs().max(axis=None))
        look |= {"cmap": "vlag", "vmin": centre - reach, "vmax": centre + reach}
    words = frame.astype(float).map(lambda value: number_text(value, digits))
    sns.heatmap(frame.astype(float), ax=ax, annot=words, fmt="", cbar_kws={"label": unit}, **look)
    ax.set(xlabel=xlabel, ylabel="")
    ax.set_yticks(ax.get_yticks(), [text.get_text().replace("_", " ") for text in ax.get_yticklabels()])
    if max(len(str(name)) for name in frame.columns) > WIDE:
        ax.set_xticks(ax.get_xticks(), list(map(str, frame.columns)), rotation=40, ha="right", rotation_mode="anchor")
    if title:
        entitle(fig, title)
    return fig


def specification(
    frame: pd.DataFrame, choices: Sequence[str] = (), *, ylabel: str = "change (points)", percent: bool = True
) -> Figure:
    """A specification curve: the values of all universes from low to high, and below them the options that made each.

    Args:
        frame: of `multiverse.stands`, a row a universe.
        choices: its columns that are shown, those with one option left out; by default all that can move a value.
        ylabel: of the values; where the claim stands they are blue, where not orange.
        percent: show 100 times the values.

    Source:
        Simonsohn, Simmons & Nelson 2020, Nature Human Behaviour 4, 1208-1214.
    """
    own = frame.sort_values("value", kind="stable").reset_index(drop=True)
    choices = choices or [name for name in own.columns[1 : own.columns.get_loc("value")] if name not in SPAN]
    lines = [(name, each) for name in choices if own[name].nunique() > 1 for each in own[name].unique()]
    fig, (above, below) = plots.plt.subplots(
        2, 1, figsize=(plots.WIDTH, 2.6 + 0.19 * len(lines)), sharex=True, height_ratios=(2.2, 0.4 + 0.19 * len(lines))
    )
    for stands, colour in ((True, "blue"), (False, "orange")):
        some = own[own["stands"] == stands]
        look: Any = {"s": 5, "color": plots.COLOURS[colour], "linewidths": 0}
        above.scatter(some.index, some["value"] * (100 if percent else 1), **(look | {"s": 9}))
        for k, (name, each) in enumerate(lines):
            with_it = some.index[some[name] == each]
            below.scatter(with_it, [k] * len(with_it), marker="|", **(look | {"s": 26, "linewidths": 0.8}))
    above.axhline(0, color=plots.COLOURS["grey"], linestyle="--", linewidth=1)
    above.set_ylabel(ylabel)
    below.set_yticks(range(len(lines)), [plots.plain(f"{name}: {label(each)}") for name, each in lines])
    below.set(xlabel="universes, by their value", ylim=(len(lines) - 0.5, -0.5))
    below.grid(axis="y", visible=False)
    return fig


def describe(frame: pd.DataFrame, what: str, *, labels: Mapping[Any, str] | None = None, **style: Any) -> str:
    """The alternative text of a figure: what it shows, and its cells, or their range where they are many."""
    if not len(frame):
        return f"{what}: {NOTHING}."
    texts = in_print(frame, **style)
    lines = [f"{name}: {text}" if name else text for name, text in zip(called(frame, labels)[1], texts, strict=True)]
    if len(lines) <= MOST_TOLD:
        return f"{what}. {'; '.join(lines)}."
    least, most = int(frame["value"].argmin()), int(frame["value"].argmax())
    return f"{what}. {len(lines)} values, from {lines[least]} to {lines[most]}."


def _split(
    frame: pd.DataFrame, rows: str, colour: str, panels: str
) -> tuple[list[Any], list[Any], dict[Any, pd.DataFrame]]:
    for name in filter(None, (rows, colour, panels)):
        template_fields(f"{{{name}}}", frame)
    if not len(frame):
        raise ValueError("there is nothing to draw: the frame of cells is empty")
    series = list(frame[colour].unique()) if colour else [""]
    parts = {key: frame[frame[panels] == key] for key in frame[panels].unique()} if panels else {"": frame}
    return list(frame[rows].unique()), series, parts


def entitle(figure: Figure, title: str, frame: pd.DataFrame | None = None, **style: Any) -> None:
    """Put a finding over all panels, which the result completes.

    Args:
        figure: of matplotlib.
        title: a template of `telling.finding`, or what that has made of other cells.
        frame: the cells that complete it.
        style: of their numbers.
    """
    told = finding(title, frame, **style) if frame is not None and "value" in frame else title
    figure.suptitle(plots.plain(told), x=0.01, ha="left")


def _rows(ax: plots.Axes, order: Sequence[Any], labels: Mapping[Any, str] | None) -> None:
    """Names of rows in place of an axis."""
    ax.set_yticks(range(len(order)), [plots.plain(label(value, labels)) for value in order])
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)
    ax.spines["left"].set_visible(False)


def _legend(fig: Figure, series: int) -> None:
    """One for all panels: a series may be in some of them alone."""
    if series > 1:
        drawn = [zip(*ax.get_legend_handles_labels(), strict=True) for ax in fig.axes]
        handles = {label: handle for each in drawn for handle, label in each}
        fig.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(series, 4))
