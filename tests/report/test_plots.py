import io
import re
import subprocess
import sys
from types import SimpleNamespace
from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from uqlib.metrics import band
from uqlib.report import plots


@pytest.fixture
def ax():
    figure, ax = plt.subplots()
    yield ax
    plt.close(figure)


def test_risk_coverage_draws_the_risks_in_percent(ax):
    plots.risk_coverage(ax, np.array([0.0, 0.0, 1 / 3, 0.5]), label="duo")
    x, y = ax.lines[0].get_data()
    np.testing.assert_allclose(x, [25, 50, 75, 100])
    np.testing.assert_allclose(y, [0, 0, 100 / 3, 50])
    assert ax.get_xlabel() == "coverage (% kept)"
    assert ax.get_legend_handles_labels()[1] == ["duo"]


def test_a_long_curve_is_thinned_and_keeps_its_ends(ax):
    plots.risk_coverage(ax, np.linspace(0, 0.5, 100_000), first=0)
    x, y = ax.lines[0].get_data()
    assert len(x) <= 800
    assert (x[0], x[-1], y[-1]) == (0.001, 100, 50)


def test_reliability_leaves_out_empty_bins(ax):
    plots.reliability(ax, SimpleNamespace(
        confidence=np.array([0.2, np.nan, 0.9]), accuracy=np.array([0.1, np.nan, 0.8]), count=np.array([1, 0, 3])
    ))  # fmt: skip
    np.testing.assert_allclose(ax.lines[1].get_data(), [[0.2, 0.9], [0.1, 0.8]])
    areas = ax.collections[0].get_sizes()
    assert (areas[1] - 10) / (areas[0] - 10) == pytest.approx(3)


@pytest.mark.parametrize(("curve", "scale"), [("reliability", 1), ("risk_coverage", 100), ("roc", 100)])
def test_a_curve_of_arrays_has_its_band(ax, curve, scale):
    rng = np.random.default_rng(0)
    confidence = rng.random(300)
    correct = rng.random(300) < confidence
    found = band(curve, confidence, correct, level=0.8, draws=100, generator=torch.Generator().manual_seed(0))
    seed = torch.Generator().manual_seed(0)
    plots.curve_with_band(ax, curve, confidence, correct, label="a", level=0.8, draws=100, generator=seed)
    plots.curve_with_band(ax, found, label="b")
    for line in [each for each in ax.lines if each.get_label() in "ab"]:
        np.testing.assert_allclose(line.get_data(), [scale * found.x, scale * found.value])
    for shade in ax.collections:
        drawn = shade.get_paths()[0].vertices
        assert {tuple(each) for each in np.c_[found.x, found.low] * scale} <= {tuple(each) for each in drawn}
        assert {tuple(each) for each in np.c_[found.x, found.high] * scale} <= {tuple(each) for each in drawn}
    low, high = ax.get_ylim()
    assert low == 0
    assert high >= scale * found.high[found.x >= 0.2].max()


def test_a_band_is_drawn_alone_and_a_name_with_arrays(ax):
    found = band("reliability", [0.2, 0.8, 0.9], [False, True, True])
    for wrong in ((found, [0.2], [True]), ("roc",)):
        with pytest.raises(TypeError, match="pass the name of a curve with confidence and correct, or a Band alone"):
            plots.curve_with_band(ax, *wrong)
    with pytest.raises(ValueError, match="unknown curve 'det'; choose from reliability, risk_coverage, roc"):
        plots.curve_with_band(ax, "det", [0.2, 0.8], [False, True])


def test_metric_against_cost_sorts_by_cost_and_draws_the_intervals(ax):
    intervals = [SimpleNamespace(value=0.5, low=0.4, high=0.7), SimpleNamespace(value=0.2, low=0.1, high=0.25)]
    plots.metric_against_cost(ax, [0.8, 0.3], intervals, label="duo")
    line = ax.lines[0]
    np.testing.assert_allclose(line.get_data(), [[0.3, 0.8], [20, 50]])
    bars = ax.collections[0].get_segments()
    np.testing.assert_allclose(bars[1], [[0.8, 40], [0.8, 70]])


def test_an_interval_beside_its_value_is_drawn_where_it_is(ax):
    plots.metric_against_cost(ax, [0.3], [SimpleNamespace(value=0.5, low=0.6, high=0.7)], label="duo")
    np.testing.assert_allclose(ax.lines[0].get_data(), [[0.3], [50]])
    np.testing.assert_allclose(ax.collections[0].get_segments()[0], [[0.3, 60], [0.3, 70]])
    assert sorted(line.get_ydata()[0] for line in ax.lines[1:]) == pytest.approx([60, 70])


def test_a_band_holds_the_intervals_along_its_line(ax):
    intervals = [SimpleNamespace(value=0.5, low=0.4, high=0.7), SimpleNamespace(value=0.2, low=0.1, high=0.25)]
    plots.metric_against_cost(ax, [0.8, 0.3], intervals, label="duo", band=True)
    np.testing.assert_allclose(ax.lines[0].get_data(), [[0.3, 0.8], [20, 50]])
    corners = {tuple(map(float, corner.round(6))) for corner in ax.collections[0].get_paths()[0].vertices}
    assert corners == {(0.3, 10.0), (0.3, 25.0), (0.8, 40.0), (0.8, 70.0)}


def test_the_ends_are_named_on_the_side_that_has_room(ax):
    ax.plot([0, 4, 10], [1.0, -2.0, 3.0], "o")
    plots.name_ends(ax, [0, 4, 10], [1.0, -2.0, 3.0], ["none", "lowest", "$highest"])
    low, high = ax.texts
    assert (low.get_text(), low.xy, low.get_ha(), low.get_va()) == ("lowest", (4, -2), "left", "top")
    assert (high.get_text(), high.xy, high.get_ha(), high.get_va()) == ("\\$highest", (10, 3), "right", "bottom")


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (3, 1, 3), (5, 2, 3), (7, 3, 3)])
def test_panels_stand_in_rows_of_three(count, rows, columns):
    figure, axes = plots.panels(count, panel=(2, 1))
    assert len(axes) == len(figure.axes) == count
    assert axes[0].get_gridspec().get_geometry() == (rows, columns)
    np.testing.assert_allclose(figure.get_size_inches(), (2 * columns, rows))
    plt.close(figure)


def test_no_panels_are_refused():
    with pytest.raises(ValueError, match="count must be at least 1; it is 0"):
        plots.panels(0)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.2, 2000, ["0.3", "1", "3", "10", "30", "100", "300", "1000"]),
        (0.4, 3.9, ["0.5", "1", "2"]),
        (255, 345, ["275", "300", "325"]),
    ],
)
def test_log_ticks_are_plain_numbers_and_several(ax, low, high, expected):
    ax.set(yscale="log", ylim=(low, high))
    plots.log_ticks(ax.yaxis)
    ax.figure.canvas.draw()
    shown = [label.get_text() for label in ax.get_yticklabels() if low <= label.get_position()[1] <= high]
    assert shown == expected
    assert not ax.get_yticklabels(minor=True)


CURVE = {"confidence": [0.2, 0.9], "accuracy": [0.1, 0.8], "count": [1, 3]}
INTERVAL = SimpleNamespace(value=0.5, low=0.4, high=0.7)


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (
            lambda ax: plots.risk_coverage(ax, [10.0, 50.0]),
            ValueError,
            r"risks must lie in \[0, 1\]; entry 0 is 10.0. Percent\?",
        ),
        (
            lambda ax: plots.risk_coverage(ax, [[0.1, 0.2]]),
            ValueError,
            r"risks must have one axis \(n,\), n >= 1; its shape is \(1, 2\)",
        ),
        (lambda ax: plots.risk_coverage(ax, []), ValueError, r"risks must have one axis .* its shape is \(0,\)"),
        (lambda ax: plots.risk_coverage(ax, ["a"]), TypeError, "risks"),
        (lambda ax: plots.risk_coverage(ax, [0.1], first=5), ValueError, r"first must lie in \[0, 1\]; it is 5"),
        (
            lambda ax: plots.reliability(ax, [0.1, 0.2]),
            TypeError,
            "curve must be what metrics.reliability_curve returns; it is a list",
        ),
        (
            lambda ax: plots.reliability(ax, SimpleNamespace(**CURVE | {"accuracy": [10.0, 80.0]})),
            ValueError,
            "accuracy of the curve must lie in",
        ),
        (
            lambda ax: plots.reliability(ax, SimpleNamespace(**CURVE | {"count": [0, 0]})),
            ValueError,
            "0 bins with examples",
        ),
        (lambda ax: plots.reliability(ax, SimpleNamespace(**CURVE | {"count": [1]})), ValueError, "it has 2, 2 and 1"),
        (
            lambda ax: plots.metric_against_cost(ax, [1.0, 2.0], [INTERVAL], label="x"),
            ValueError,
            r"it is \[1.0, 2.0\] for 1",
        ),
        (lambda ax: plots.metric_against_cost(ax, [np.nan], [INTERVAL], label="x"), ValueError, "cost must be finite"),
        (
            lambda ax: plots.metric_against_cost(ax, [1.0], [0.5], label="x"),
            ValueError,
            "intervals must have value, low and high",
        ),
        (
            lambda ax: plots.metric_against_cost(ax, [1.0], [SimpleNamespace(value=0.5, low=0.8, high=0.7)], label="x"),
            ValueError,
            "with low <= high; entry 0 is",
        ),
        (lambda ax: plots.base_line(ax, "0.5", label="x"), TypeError, "value must be a finite number; it is '0.5'"),
        (lambda ax: plots.panels(2.0), TypeError, "count must be a whole number; it is 2.0"),
        (lambda ax: plots.panels(2, columns=0), ValueError, "columns must be a whole number of at least 1; it is 0"),
    ],
)
def test_what_cannot_be_drawn_is_refused_by_name(ax, draw, error, message, unchecked):
    with pytest.raises(error, match=message):
        draw(ax)


@pytest.mark.parametrize(
    "kind", [list, tuple, np.float32, np.float16, torch.tensor, lambda x: torch.tensor(x).bfloat16()]
)
def test_risks_of_every_kind_are_drawn(ax, kind, unchecked):
    plots.risk_coverage(ax, kind([0.0, 0.25, 0.5]))
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [0, 25, 50])


def test_style_is_set_only_when_asked():
    code = """if True:
        import matplotlib as mpl
        from uqlib.report import plots
        assert mpl.rcParams["axes.spines.top"]
        plots.use_style()
        assert not mpl.rcParams["axes.spines.top"]"""
    subprocess.run([sys.executable, "-c", code], check=True)  # no test before this one has set the style there


ODD = [
    "100 $ & 5 $",
    "$\\frac{1}$",
    r"a\$b$",
    "$x$",
    r"\alpha",
    "two\nlines",
    "<script>alert(1)</script>",
    "a_{b}^c",
    "50 %",
]


@pytest.mark.parametrize("text", ODD)
def test_text_is_drawn_as_it_is_written(tmp_path, text):
    with mpl.rc_context(plots.STYLE):
        figure, (ax,) = plots.panels(1)
        one = [SimpleNamespace(value=0.5, low=0.4, high=0.7)]
        plots.metric_against_cost(ax, [0.3], one, label=f"label {text}")
        plots.risk_coverage(ax, np.array([0.0, 0.5]), label=f"curve {text}")
        plots.base_line(ax, 0.1, label=f"base {text}")
        ax.set_title(plots.plain(f"title {text}"))
        ax.legend()
        figure.savefig(tmp_path / "a.svg", format="svg")
        plt.close(figure)
    drawn = [
        "".join(each.itertext())
        for each in ElementTree.parse(tmp_path / "a.svg").iter("{http://www.w3.org/2000/svg}text")
    ]
    for what in ("label", "curve", "base", "title"):
        assert f"{what} {' '.join(text.split())}" in drawn


def contrast(first, second):
    def luminance(colour):
        parts = np.array(mpl.colors.to_rgb(colour))
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


def test_colours_are_distinct_and_can_be_read_as_words_on_a_light_and_on_a_dark_page():
    assert len(set(plots.COLOURS.values())) == len(plots.COLOURS)
    assert all(contrast(colour, "white") >= (3 if name == "sky" else 4.5) for name, colour in plots.COLOURS.items())
    assert all(contrast(plots.DARK[colour], plots.DARK[plots.HOLLOW]) >= 4.5 for colour in plots.COLOURS.values())
    assert contrast(plots.RULE, "white") >= 3 <= contrast(plots.DARK[plots.RULE], plots.DARK[plots.HOLLOW])


def drawn(figure):
    figure.savefig(stream := io.StringIO(), format="svg")
    plt.close(figure)
    return stream.getvalue()


def test_a_figure_bears_its_colours_for_a_dark_page_and_the_numbers_in_its_words_stay():
    with plt.rc_context(plots.STYLE):
        figure, ax = plt.subplots()
        ax.plot([1, 2], color=plots.COLOURS["blue"], label="0.123456")
        ax.legend()
        text = drawn(figure)
    svg = plots.adapted(text)
    ElementTree.fromstring(svg)
    assert f'[style*="stroke: {plots.COLOURS["blue"]}"]{{stroke:{plots.DARK[plots.COLOURS["blue"]]}!important}}' in svg
    assert ">0.123456<" in svg
    assert len(svg) < 0.7 * len(text)
    coloured = set(re.findall("#[0-9a-f]{6}", re.sub("<style.*?</style>", "", svg, flags=re.S)))
    assert coloured <= plots.DARK.keys()  # nothing is left that a dark page would swallow


def test_panels_side_by_side_stand_in_a_column_on_a_phone():
    figure, axes = plots.panels(4, columns=2, panel=(3.5, 2), sharey=True)
    axes[0].set_ylabel("points")
    axes[1].plot([1, 2], label="a")
    figure.legend(loc="outside lower center", ncols=4)
    axes[0].set_yticks([0], ["a name that is longer than a phone is wide"])
    assert plots.narrow(figure)
    figure.draw_without_rendering()
    tops = [ax.get_position().y1 for ax in axes]
    assert tops == sorted(tops, reverse=True)
    assert len({round(ax.get_position().x0, 6) for ax in axes}) == 1
    assert figure.get_size_inches().tolist() == pytest.approx([plots.NARROW, 8.2])  # and a line of legend
    assert axes[1].get_ylabel() == "points"
    assert "\n" in axes[0].get_yticklabels()[0].get_text()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a"]
    plt.close(figure)


def test_pictures_and_many_panels_stay_as_they_are():
    figure, axes = plots.panels(2)
    axes[0].imshow(np.zeros((2, 2)))
    many, _ = plots.panels(9)
    assert not plots.narrow(figure)
    assert not plots.narrow(many)
    plt.close("all")


@pytest.mark.parametrize("label", [None, ""])
def test_a_line_without_a_label_stands_in_no_legend(label):
    _, ax = plt.subplots()
    plots.metric_against_cost(ax, [1.0], [SimpleNamespace(value=0.5, low=0.25, high=0.75)], label=label)
    plots.base_line(ax, 0.5, label=label)
    assert ax.get_legend_handles_labels()[1] == []


def test_a_title_is_broken_where_its_panel_ends_and_takes_no_room_from_it():
    widths = []
    for title in ("short", "a title that is far longer than a third of a page is wide"):
        figure, axes = plots.panels(3)
        axes[1].set_title(title, loc="left")
        plots.fit(figure)
        figure.draw_without_rendering()
        widths.append(axes[1].get_position().width)
        plt.close(figure)
    assert widths[1] == pytest.approx(widths[0], rel=0.1)
