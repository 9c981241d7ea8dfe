"""Figures in one style: from numbers already computed, onto axes that the caller owns. A plot computes no metric,
but for curve_with_band, which makes its band where it is given the arrays.

Hues are Okabe and Ito's, told apart with any colour vision, and dark enough for thin lines and words on a white page. A figure
has no ground of its own, and bears its colours for a dark page in itself: see `adapted`.
"""

import re
import textwrap
import warnings
from collections.abc import Sequence
from typing import Any, cast

import numpy as np

from uqlib.base.arrays import Array, Column, as_tensor
from uqlib.base.extras import named
from uqlib.base.options import check_fraction, check_number, check_whole
from uqlib.metrics.curves.bands import Band, band

with named():
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

WIDTH, NARROW = 7.0, 3.5  # inches: the column of a page, and of a phone; so type has its size wherever a figure stands
COLOURS = {
    "blue": "#0067a3",
    "orange": "#9a5b00",
    "green": "#00755a",
    "vermilion": "#bf4408",
    "purple": "#a8447e",
    "sky": "#2f86bd",
    "grey": "#6b7280",
    "black": "#1f2530",
}
DARK = {  # the same on a dark page, and what else a figure is made of
    **dict(
        zip(
            COLOURS.values(),
            ("#5fb0ee", "#e8a63c", "#3cc79a", "#ff8a4f", "#e08fc0", "#9ccff2", "#9aa2ae", "#e6e9ee"),
            strict=True,
        )
    ),
    "#000000": "#e6e9ee",
    (HOLLOW := "#fefefe"): "#121417",  # markers that are not filled: the colour of the page
    (GRID := "#dcdfe4"): "#343a42",
    (RULE := "#868d98"): "#6d7683",
}
STYLE = {
    "figure.figsize": (WIDTH, 3.6),
    "figure.dpi": 110,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.hashsalt": "uqlib",  # else every run names its clip paths anew, and no two files are equal
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": COLOURS["black"],
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "axes.labelcolor": COLOURS["black"],
    "axes.edgecolor": RULE,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": COLOURS["black"],
    "ytick.labelcolor": COLOURS["black"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "axes.prop_cycle": plt.cycler(color=[colour for name, colour in COLOURS.items() if name != "black"]),
    "figure.titlesize": 10.5,
    "figure.titleweight": "bold",
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "lines.linewidth": 1.7,
    "lines.markersize": 5,
    "legend.frameon": False,
    "legend.fontsize": 9,
}
FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans', sans-serif"


def use_style() -> None:
    """Set the book's style for this process; in a notebook also vector figures."""
    plt.rcParams.update(cast(Any, STYLE))  # matplotlib's annotation lists every key by its name
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("svg")
    except ImportError:  # outside of a notebook
        pass


def plain(text: Any) -> str:
    """A text that matplotlib draws as it is written, on one line: dollars in a class name are no mathematics; None is no text."""
    if text is None:
        return ""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(text)).split())
    return line.replace("$", r"\$")


def reliability(ax: Axes, curve: Any, *, label: str = "", colour: str = COLOURS["blue"]) -> Axes:
    """Accuracy against mean confidence, a point a bin, its area the share of the examples; the diagonal is calibrated.

    Args:
        curve: what `metrics.reliability_curve` returns: confidence, accuracy, count, each (bins,); empty bins are left out.

    Raises:
        TypeError: if it is something else.
        ValueError: if the three do not fit, a bin that is not empty lies outside [0, 1], or all are empty.
    """
    if not all(hasattr(curve, part) for part in ("confidence", "accuracy", "count")):
        raise TypeError(f"curve must be what metrics.reliability_curve returns; it is a {type(curve).__name__}")
    confidence, accuracy, count = (_column(getattr(curve, part), part) for part in ("confidence", "accuracy", "count"))
    kept = count > 0
    if not len(confidence) == len(accuracy) == len(count) or not kept.any():
        raise ValueError(
            f"curve must have one confidence, accuracy and count a bin, and a bin with examples; it has {len(confidence)}, "
            f"{len(accuracy)} and {len(count)}, {kept.sum()} bins with examples"
        )
    _check_fractions(confidence[kept], "confidence of the curve")
    _check_fractions(accuracy[kept], "accuracy of the curve")
    ax.plot([0, 1], [0, 1], color=COLOURS["grey"], linewidth=1, linestyle="--", zorder=1)
    ax.plot(confidence[kept], accuracy[kept], color=colour, zorder=2, label=plain(label) or None)
    ax.scatter(
        confidence[kept], accuracy[kept], 10 + 220 * count[kept] / count.sum(), color=colour, alpha=0.75, zorder=3
    )
    ax.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1.05), ylim=(0, 1.05), aspect="equal")
    return ax


def risk_coverage(
    ax: Axes, risks: Array, *, label: str = "", colour: str | None = None, first: float = 0.01, line: str = "-"
) -> Axes:
    """Error among the kept against the share that is kept, in percent.

    Args:
        risks: (n,) what `metrics.selective_risks` returns, risk at coverage k/n.
        first: coverages below this share are not drawn: with a handful of examples the risk is noise.
        line: matplotlib's line style, for series that lie on each other.

    Raises:
        ValueError: if the risks are no fractions (n,), n >= 1, or `first` is none.
    """
    risks, first = _check_fractions(_column(risks, "risks"), "risks"), check_fraction(first, "first")
    coverage = np.arange(1, len(risks) + 1) / len(risks)
    drawn = _thin(np.flatnonzero(coverage >= first))
    ax.plot(100 * coverage[drawn], 100 * risks[drawn], line, label=plain(label) or None, color=colour)
    ax.set(xlabel="coverage (% kept)", ylabel="selective risk (% wrong)", xlim=(0, 100))
    ax.set_ylim(bottom=0)
    return ax


def curve_with_band(
    ax: Axes,
    curve: str | Band,
    confidence: Column | None = None,
    correct: Column | None = None,
    *,
    label: str = "",
    colour: str = COLOURS["blue"],
    **options: Any,
) -> Axes:
    """A curve of reliability, of risk and coverage, or ROC, within the band that holds the whole true curve.

        curve_with_band(ax, "risk_coverage", confidence, correct)

    It is drawn where the band holds, from its `first` to its `last`. Shares of examples in percent, as risk_coverage draws them.

    Args:
        curve: "reliability", "risk_coverage" or "roc"; or what `metrics.band` returned, then alone.
        confidence, correct: (n,) as in metrics.band.
        options: of metrics.band, such as level and generator.

    Raises:
        TypeError: if a name comes without arrays, or a Band with them.
        ValueError: as metrics.band.
    """
    if isinstance(curve, Band) != (confidence is None and correct is None and not options):
        raise TypeError(
            f"pass the name of a curve with confidence and correct, or a Band alone; curve is {curve!r:.60}"
        )
    found = curve if isinstance(curve, Band) else band(curve, cast(Any, confidence), cast(Any, correct), **options)
    scale = 1 if found.curve == "reliability" else 100
    x, value, low, high = (scale * _column(part, "band") for part in (found.x, found.value, found.low, found.high))
    if found.curve != "risk_coverage":
        ax.plot([0, scale], [0, scale], color=COLOURS["grey"], linewidth=1, linestyle="--", zorder=1)
    ax.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
    ax.plot(x, value, color=colour, label=plain(label) or None, zorder=2)
    names = {
        "reliability": ("confidence", "accuracy"),
        "risk_coverage": ("coverage (% kept)", "selective risk (% wrong)"),
        "roc": ("wrong accepted (%)", "correct accepted (%)"),
    }[found.curve]
    ax.set(xlabel=names[0], ylabel=names[1], xlim=(0, 1.05 * scale if found.curve != "risk_coverage" else scale))
    if found.curve == "risk_coverage":  # where few are kept the band may be far higher than all that is of interest
        before = ax.get_ylim()[1] if len(ax.lines) > 1 else 0
        ax.set_ylim(0, max(before, 1.2 * high[x >= 20].max()))
    else:
        ax.set(ylim=(0, 1.05 * scale), aspect="equal")
    return ax


def metric_against_cost(
    ax: Axes,
    cost: Sequence[float],
    intervals: Sequence[Any],
    *,
    label: str | None,
    colour: str | None = None,
    marker: str = "o",
    percent: bool = True,
    band: bool = False,
    line: str = "-",
) -> Axes:
    """A metric with its interval against a cost, one point a network or pair.

    Args:
        cost: e.g. FLOPs balance: cost of the sidekick over cost of the large network.
        intervals: things with value, low, high, one for each cost.
        percent: show 100 times the values.
        band: intervals as a band along the line, where bars of several series would hide each other.
        line: matplotlib's style of what joins the points; "none" joins nothing.

    Raises:
        ValueError: if there is not one interval for each cost, a cost is not finite, or an interval is none.
    """
    costs = _column(cost, "cost")
    if len(costs) != len(intervals) or not np.isfinite(costs).all():
        raise ValueError(f"cost must be finite, one number an interval; it is {costs.tolist()} for {len(intervals)}")
    for k, each in enumerate(intervals):
        if not all(hasattr(each, part) for part in ("value", "low", "high")) or each.low > each.high:
            raise ValueError(f"intervals must have value, low and high, with low <= high; entry {k} is {each}")
    order = np.argsort(costs)
    scale, x = 100 if percent else 1, costs[order]
    value, low, high = (
        scale * np.array([getattr(intervals[i], part) for i in order]) for part in ("value", "low", "high")
    )
    look: dict[str, Any] = {"label": plain(label) or None, "color": colour, "marker": marker, "linestyle": line}
    if band:
        (drawn,) = ax.plot(x, value, **look)
        ax.fill_between(x, low, high, color=drawn.get_color(), alpha=0.15, linewidth=0)
        return ax
    errors = np.maximum([value - low, high - value], 0)
    _, (lower, upper), (bars,) = ax.errorbar(x, value, errors, capsize=2.5, elinewidth=1, **look)
    # an interval need not hold its value, as that of a biased metric; then the bar stands beside the point
    lower.set_ydata(low)
    upper.set_ydata(high)
    for part in (lower, upper, bars):
        part.set_alpha(0.5)  # the values stand before their intervals
    bars.set_segments(np.stack([np.stack([x, low], -1), np.stack([x, high], -1)], 1))
    return ax


def name_ends(ax: Axes, x: Sequence[float], y: Sequence[float], names: Sequence[Any]) -> Axes:
    """Write beside the lowest and the highest of some points what they are: below the one, above the other, where no others are."""
    across, heights = _column(x, "x"), _column(y, "y")
    ax.margins(y=0.14)
    low, high = ax.get_xlim()
    for k, down in ((int(heights.argmin()), True), (int(heights.argmax()), False)):
        right = ax.transAxes.inverted().transform(ax.transData.transform((across[k], heights[k])))[0] > 0.5
        aside, align = (
            (-6 if right else 6, -4 if down else 4),
            ("right" if right else "left", "top" if down else "bottom"),
        )
        ax.annotate(
            plain(names[k]), (across[k], heights[k]), aside, textcoords="offset points", ha=align[0], va=align[1],
            bbox={"facecolor": HOLLOW, "edgecolor": "none", "alpha": 0.75, "pad": 0.5},
        ).set_in_layout(False)  # fmt: skip
    ax.set_xlim(low, high)
    return ax


def log_ticks(*axes: Axis) -> None:
    """Plain numbers on logarithmic axes, some in every decade: powers of ten alone leave most of it bare.

    Call it when all is drawn: a decade or more gets 1 and 3, less gets 1, 2 and 5, and less than a factor of 3 even steps.
    """
    for axis in axes:
        low, high = axis.get_view_interval()
        some = LogLocator(subs=(1, 3) if high / low >= 10 else (1, 2, 5))
        axis.set_major_locator(some if high / low >= 3 else MaxNLocator(4))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda tick, _: f"{tick:g}"))


def panels(
    count: int, *, columns: int = 3, panel: tuple[float, float] = (2.85, 2.7), **options: Any
) -> tuple[Figure, list[Axes]]:
    """So many axes in a grid, row by row, each of this size in inches, less where a page is narrower; unused places stay empty.

    Args:
        columns: how many stand side by side, at most; three are what a page can hold.
        options: of plt.subplots, such as sharey=True.
    """
    if (count := check_whole(count, "count")) < 1:
        raise ValueError(f"count must be at least 1; it is {count}")
    columns = min(check_whole(columns, "columns", least=1), count)
    rows = -(-count // columns)
    size = (min(columns * panel[0], WIDTH), rows * panel[1])
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, **options)
    for spare in axes.flat[count:]:
        spare.remove()
    return figure, list(axes.flat[:count])


def base_line(ax: Axes, value: float, *, label: str | None, percent: bool = True) -> Axes:
    """A dashed level to compare with, such as the large network alone."""
    level = (100 if percent else 1) * check_number(value, "value")
    ax.axhline(level, label=plain(label) or None, color=COLOURS["grey"], linestyle="--", linewidth=1.2)
    return ax


def fit(figure: Figure) -> None:
    """Break titles and names of axes that are longer than their panel is wide, the heading as the figure is.

    Else the layout makes the panel smaller for their sake.
    """
    for ax in figure.axes:
        if spec := ax.get_subplotspec():
            share = len(spec.colspan) / spec.get_gridspec().ncols
            most = max(
                8, int(11 * share * figure.get_figwidth()) - 5
            )  # eleven letters an inch, less what stands left of the panel
            ax.set_title(_folded(ax.get_title(loc="left"), most), loc="left")
            ax.set_xlabel(_folded(ax.get_xlabel(), most + 3))
    if heading := figure.get_suptitle():
        figure.suptitle(_folded(heading.replace("\n", " "), int(11 * figure.get_figwidth())), x=0.01, ha="left")


def narrow(figure: Figure) -> bool:
    """Make a figure as narrow as a phone: panels side by side come to stand in one column. Whether that can be done.

    It cannot where panels are pictures, or so many that the column would never end, or where words leave them no room.
    """
    panels = [ax for ax in figure.axes if ax.get_subplotspec() is not None and ax.get_label() != "<colorbar>"]
    if not panels or len(panels) > 8 or any(ax.images for ax in panels):
        return False
    specs = [cast(Any, ax.get_subplotspec()) for ax in panels]
    _, columns = specs[0].get_gridspec().get_geometry()
    if any(spec.get_gridspec() is not specs[0].get_gridspec() for spec in specs):
        return False
    height = figure.get_figheight()
    if columns > 1:
        shares = specs[0].get_gridspec().get_height_ratios()
        tall = [height * sum(shares[spec.rowspan.start : spec.rowspan.stop]) / sum(shares) for spec in specs]
        grid = figure.add_gridspec(len(panels), 1, height_ratios=tall)
        firsts = {spec.rowspan.start: ax for ax, spec in reversed(list(zip(panels, specs, strict=True)))}
        for k, (ax, spec) in enumerate(zip(panels, specs, strict=True)):
            ax.set_ylabel(ax.get_ylabel() or firsts[spec.rowspan.start].get_ylabel())
            ax.set_subplotspec(grid[k])
            ax.tick_params(labelleft=True, labelbottom=True)
        height = sum(tall)
    figure.set_size_inches(NARROW, height)
    for ax in panels:
        ax.set_ylabel(_folded(ax.get_ylabel(), 34))
        names = [text.get_text() for text in ax.get_yticklabels()]
        room = (
            height * ax.get_position().height / max(1, len(names))
        )  # a row that is too low for two lines keeps its one
        if any(len(name) > 16 for name in names) and room > 0.22:
            ax.set_yticks(ax.get_yticks(), [_folded(name, 16) for name in names])
    fit(figure)
    for legend in list(figure.legends):
        names = [text.get_text() for text in legend.get_texts()]
        known = {name: one for ax in figure.axes for one, name in zip(*ax.get_legend_handles_labels(), strict=True)}
        handles = [known.get(name, own) for name, own in zip(names, legend.legend_handles, strict=True)]
        legend.remove()
        columns = 2 if max(map(len, names)) < 18 else 1
        cast(Any, figure).legend(handles, names, loc="outside lower center", ncols=columns)
        height += 0.2 * -(-len(names) // columns)
    figure.set_figheight(height + 0.15 * figure.get_suptitle().count("\n"))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        figure.draw_without_rendering()
    return not any("collapsed to zero" in str(each.message) for each in said)  # words left no room for what they tell


def adapted(svg: str) -> str:
    """An SVG of matplotlib that is right on a light and on a dark page, and a third as long.

    The page's colour scheme decides, also where the SVG stands as a picture. Widths of words were those of a wide font, so
    whatever font the reader has, they fit.
    """
    svg = re.sub(r"<metadata>.*?</metadata>|<!DOCTYPE[^>]*>|<\?xml[^>]*>", "", svg, flags=re.S).strip()
    svg = re.sub(r'font-family: [^;"]*;? ?', "", svg)
    svg = re.sub(r"(font: [^'\";]*?px) '[^;\"]*", r"\1 sans-serif", svg)
    svg = re.sub(r' transform="rotate\(-0 [^"]*\)"', "", svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(
        r"<[^>]*>",
        lambda tag: re.sub(r"-?\d+\.\d{2,}", lambda n: f"{float(n[0]):.2f}".rstrip("0").rstrip("."), tag[0]),
        svg,
    )
    svg = re.sub(r"\s*\n\s*", "\n", svg)
    rules = [
        f'[style*="{part}: {light}"]{{{part}:{dark}!important}}'
        for light, dark in DARK.items() for part in ("fill", "stroke") if f"{part}: {light}" in svg
    ]  # fmt: skip
    style = f"text{{font-family:{FONTS}!important}}@media (prefers-color-scheme:dark){{{''.join(rules)}}}"
    return svg.replace("</style>", style + "</style>", 1)


def _folded(text: str, width: int) -> str:
    return "\n".join(textwrap.fill(line, width) for line in text.split("\n"))


def _column(array: Any, name: str) -> np.ndarray:
    array = as_tensor(array, name)
    if array.ndim != 1 or not len(array):
        raise ValueError(f"{name} must have one axis (n,), n >= 1; its shape is {tuple(array.shape)}")
    return (array.double() if array.is_floating_point() else array).cpu().numpy()


def _check_fractions(values: np.ndarray, name: str) -> np.ndarray:
    outside = ~((values >= 0) & (values <= 1))  # NaN is in no interval
    if outside.any():
        row = int(outside.argmax())
        raise ValueError(f"{name} must lie in [0, 1]; entry {row} is {values[row]}. Percent? Divide by 100.")
    return values


def _thin(index: np.ndarray, most: int = 800) -> np.ndarray:
    """At most so many of the points, evenly spread: a curve of 10^6 points is a page that does not open."""
    return index[np.unique(np.linspace(0, len(index) - 1, most).astype(int))]
