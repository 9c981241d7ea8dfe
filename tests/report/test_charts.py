"""Figures of cells: what is drawn is what the cells hold, and the alternative text says it."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from uqlib.metrics.outcomes import Outcome
from uqlib.report import charts, plots

CELLS = pd.DataFrame(
    [
        {"measure": m, "variant": v, "balance": b, "value": x, "low": x - 0.01, "high": x + 0.02}
        for m, v, b, x in [
            ("ece", "a", 0.1, 0.1),
            ("ece", "b", 0.3, -0.2),
            ("aurc", "a", 0.1, 0.3),
            ("aurc", "b", 0.3, 0.0),
        ]
    ]
)


@pytest.fixture(autouse=True)
def _closed():
    with plt.rc_context():
        plots.use_style()
        yield
    plt.close("all")


def test_a_forest_draws_every_interval_at_its_row():
    fig = charts.forest(CELLS, rows="measure", colour="variant")
    (ax,) = fig.axes
    assert [label.get_text() for label in ax.get_yticklabels()] == ["ECE", "AURC"]
    drawn = np.concatenate([[path.vertices[:, 0] for path in lines.get_paths()] for lines in ax.collections])
    expected = 100 * CELLS.sort_values("variant", kind="stable")[["low", "high"]].to_numpy()
    assert drawn == pytest.approx(expected)
    points = np.concatenate([line.get_xdata() for line in ax.lines if line.get_marker() != "None"])
    assert points == pytest.approx(100 * CELLS.sort_values("variant", kind="stable")["value"].to_numpy())
    assert [text.get_text() for text in fig.legends[0].get_texts()] == ["a", "b"]


def test_panels_share_the_rows():
    fig = charts.forest(CELLS, rows="variant", panels="measure", percent=False, zero=False)
    assert [ax.get_title(loc="left") for ax in fig.axes] == ["ECE", "AURC"]
    assert fig.axes[0].collections[0].get_paths()[0].vertices[:, 0] == pytest.approx([0.09, 0.12])


def test_against_a_cost_stands_at_the_cost():
    fig = charts.against(CELLS, cost="balance", panels="measure", log=False)
    line = next(line for line in fig.axes[0].lines if len(line.get_xdata()) == 2 and line.get_marker() == "o")
    assert line.get_xdata() == pytest.approx([0.1, 0.3])
    assert line.get_ydata() == pytest.approx([10, -20])
    assert line.get_linestyle() == "-"
    apart = charts.against(CELLS, cost="balance", panels="measure", line="none")
    assert {each.get_linestyle() for each in apart.axes[0].lines if each.get_marker() == "o"} == {"None"}


def test_many_series_of_a_forest_stay_in_their_rows():
    many = pd.concat([CELLS.assign(variant=k) for k in range(9)])
    (ax,) = charts.forest(many, rows="measure", colour="variant").axes
    heights = np.concatenate([line.get_ydata() for line in ax.lines if line.get_marker() != "None"])
    assert abs(heights - heights.round()).max() < 0.5


def test_a_series_of_one_panel_alone_is_in_the_legend_and_stands_at_its_cost():
    frame = CELLS.assign(variant=CELLS["measure"] + CELLS["variant"])  # no series is in both panels
    fig = charts.against(frame, cost="balance", panels="measure", colour="variant")
    assert [text.get_text() for text in fig.legends[0].get_texts()] == frame["variant"].tolist()
    assert fig.axes[1].lines[0].get_xdata() == pytest.approx(frame["balance"][2:3])


@pytest.mark.parametrize("draw", [lambda f: charts.forest(f, rows="loss"), lambda f: charts.against(f, cost="macs")])
def test_a_name_that_is_missing_is_named(draw):
    with pytest.raises(ValueError, match="the cells have measure, variant, balance"):
        draw(CELLS)


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="there is nothing to draw"):
        charts.forest(CELLS.iloc[:0], rows="measure")


def test_the_alternative_text_tells_the_cells_or_their_range():
    few = charts.describe(CELLS[["measure", "variant", "value", "low", "high"]], "Change")
    assert few.startswith("Change. ECE, a: +10.00 [+9.00, +12.00]; ECE, b: −20.00")
    many = pd.concat([CELLS.assign(seed=k) for k in range(5)], ignore_index=True)
    assert charts.describe(many, "Change").startswith("Change. 20 values, from ECE, b: −20.00")
    assert charts.describe(CELLS.iloc[:0], "Change") == "Change: not measured here."


def test_strips_hold_every_value_with_its_median_and_join_what_belongs_together():
    values = pd.DataFrame(
        [{"measure": m, "over": o, "place": p, "value": x}
         for m, o, p, x in [("ece", "a", 1, 0.1), ("ece", "a", 2, 0.3), ("ece", "b", 1, 0.2), ("ece", "b", 2, -0.4)]]
    )  # fmt: skip
    (ax,) = charts.strips(values, rows="measure", colour="over", joined="place").axes
    dots = [line.get_xdata() for line in ax.lines if line.get_marker() == "o"]
    assert [list(x) for x in dots] == [pytest.approx([10, 30]), pytest.approx([20, -40])]
    medians = [lines.get_paths()[0].vertices[0, 0] for lines in ax.collections]
    assert medians == pytest.approx([20, -10])
    links = [line.get_xydata() for line in ax.lines if line.get_marker() == "None" and len(line.get_xdata()) == 2]
    joined = [tuple(x) for x in (link[:, 0].round(6) for link in links)]
    assert {(10, 20), (30, -40)} <= {tuple(map(float, each)) for each in joined}
    alike = pd.DataFrame({"row": ["r"] * 5, "value": [0.1] * 5})  # dots at one place are stacked
    (ax,) = charts.strips(alike, rows="row").axes
    heights = ax.lines[0].get_ydata()
    assert len(set(heights)) == 5
    assert abs(heights).max() < 0.5


def test_between_two_curves_the_difference_of_their_areas_is_shaded():
    probs = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]], dtype=torch.float64)
    one = Outcome(probs.argmax(1), probs, probs.amax(1), torch.tensor([0, 1, 1, 1]))
    assert len(charts.curves({"x": one}).axes[0].collections) == 0
    assert len(charts.curves({"x": one, "y": one}).axes[0].collections) == 1


def test_long_names_of_columns_stand_aslant_and_short_ones_upright():
    for names, angle in ((["EdgeTPU", "MobileNet 0.25"], 40), (["1", "2"], 0)):
        (ax,) = charts.heat(pd.DataFrame([[0.1, 0.2]], ["row"], names)).axes
        assert {text.get_rotation() for text in ax.get_xticklabels()} == {angle}


def test_curves_end_at_the_error_of_all():
    probs = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]], dtype=torch.float64)
    one = Outcome(probs.argmax(1), probs, probs.amax(1), torch.tensor([0, 1, 1, 1]))
    fig = charts.curves({"x": one}, title="t")
    assert fig.axes[0].lines[0].get_ydata()[-1] == pytest.approx(25)


def test_heat_is_white_at_its_centre_and_as_strong_to_both_sides():
    mesh = charts.heat(pd.DataFrame([[-1.0, 0.5]]), centre=0).axes[0].collections[0]
    assert mesh.get_clim() == (-1, 1)


def test_heat_writes_its_numbers():
    fig = charts.heat(pd.DataFrame([[0.25, 0.5]], index=["r"], columns=["a", "b"]), title="$x")
    assert [text.get_text() for text in fig.axes[0].texts] == ["0.25", "0.50"]


def test_pictures_stand_in_their_lines_with_their_captions_and_frames():
    images = [np.full((120, 200, 3), k, np.uint8) for k in range(6)]
    fig = charts.pictures(images, {"$easy": [4, 0], "hard": [5]}, framed=[False] * 4 + [True, False])
    assert [ax.images[0].get_array()[0, 0, 0] for ax in fig.axes] == [4, 0, 5]
    assert [ax.get_ylabel() for ax in fig.axes] == ["\\$easy", "", "hard"]
    assert [ax.spines["top"].get_visible() for ax in fig.axes] == [True, False, False]
    assert fig.axes[0].images[0].get_array().shape == (58, 96, 3)
    left, _, below = (ax.get_subplotspec() for ax in fig.axes)
    assert (left.colspan, left.rowspan.stop) == (below.colspan, below.rowspan.start)
    captions = charts.two_names([0, 1, 1], [0, 1, 0], ["a_name_that_is_long", "b"])
    assert captions == ["a_name_that_", "b", "b\n→ a_name_tha"]
    fig = charts.pictures(np.stack(images), torch.tensor([2, 1, 0]), captions=captions, columns=2)
    assert [ax.get_xlabel() for ax in fig.axes] == ["b\n→ a_name_tha", "b", "a_name_that_"]
    assert fig.axes[2].get_subplotspec().rowspan.start == 1


def test_a_specification_curve_sorts_the_universes_and_shows_what_made_each():
    frame = pd.DataFrame(
        {"universe": range(4), "bins": ["10", "15", "10", "15"], "by": ["mass"] * 4, "level": [0.9, 0.95, 0.9, 0.9],
         "value": [0.3, -0.1, 0.2, -0.2], "held": [0, 1, 0, 1], "stands": [False, True, False, True]}
    )  # fmt: skip
    above, below = charts.specification(frame).axes
    points = np.concatenate([np.asarray(each.get_offsets()) for each in above.collections])
    assert points[points[:, 0].argsort()] == pytest.approx(np.array([[0, -20], [1, -10], [2, 20], [3, 30]]))
    assert [each.get_text() for each in below.get_yticklabels()] == ["bins: 15", "bins: 10"]  # others do not differ
    marks = {tuple(each) for part in below.collections for each in part.get_offsets()}
    assert marks == {(0, 0), (1, 0), (2, 1), (3, 1)}


def test_a_title_is_completed_by_the_result():
    frame = pd.DataFrame({"value": [-1.0, -2.0, 3.0], "low": [-2.0, -3.0, -1.0], "high": [1.0, -1.0, 4.0]})
    fig = charts.forest(frame.assign(row=["a", "b", "c"]), rows="row")
    charts.entitle(
        fig, "lower in {lower} of {count}, surely in {surely_lower}, surely higher in {surely_higher}", frame
    )
    assert fig.get_suptitle() == "lower in 2 of 3, surely in 1, surely higher in 0"
    plt.close(fig)


def test_no_row_of_a_forest_is_cut_by_its_frame():
    frame = pd.DataFrame({"row": ["a", "b"], "value": [1.0, 2.0], "low": [0.5, 1.5], "high": [1.5, 2.5]})
    fig = charts.forest(frame, rows="row")
    low, high = sorted(fig.axes[0].get_ylim())
    assert low <= -0.5
    assert high >= 1.5
    plt.close(fig)
