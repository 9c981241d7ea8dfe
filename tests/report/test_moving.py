"""Figures that move: what Python returned is what the page shows, at each position; keyboard, address, phone, no script."""

import json
import re

import numpy as np
import pytest

from uqlib.report.moving import Axis, Choice, Mark, Panel, Slider, View, moving_cell, moving_figure, round_numbers

RISK = {"low": [0.5, 0.25, 0.125, 0.1], "high": [0.9, 0.8, 0.5, 0.4]}
SLIDER = Slider("Keep the surest", [1, 2, 3, 4], "{} of 4", start=3)
CHOICE = Choice("Network", {"the good one": "low", "the bad one": "high"})
PANELS = [
    Panel("Risk", Axis("kept", 0, 4), Axis("wrong", 0, 1), drag=("Keep the surest", None)),
    Panel("Bars", Axis("", -2, 2), Axis("", 0, 1, {}), wide=True),
]
NAMED = {"name": "risks", "title": "risk of two networks"}


def seen(kept, network):
    risk = RISK[network]
    marks = [
        [
            Mark("line", [1, 2, 3, 4], risk, tone="reference", name="all"),
            Mark("dots", kept, risk[kept - 1], name="kept", size=6),
            Mark("band", [1, 2, 3, 4], np.array(risk) - 0.1, y2=risk),
        ],
        [
            Mark("boxes", np.arange(kept) - 2.0, 0, x2=np.arange(kept) - 1.5, y2=0.5, tone="right"),
            Mark("segments", [-1, np.nan], 0, x2=[-1, 1], y2=1),
            Mark("text", [0], [0.5], words=[f"at -{kept}"]),
        ],
    ]
    tone = "better" if network == "low" else "worse"
    numbers = {"Risk": {"this": (f"{risk[kept - 1]:.3f}", tone), "kept": str(kept)}}
    return View(marks, numbers, f"Of the {kept} kept {risk[kept - 1]:.0%} are wrong.", f"Or -{kept} to 2.")


@pytest.fixture(scope="module")
def fragment():
    return moving_figure(seen, [SLIDER, CHOICE], PANELS, presets={"All": (4, None), "Bad": (1, "the bad one")}, **NAMED)


def spec_of(fragment):
    return json.loads(re.search(r'<script type="application/json">(.*)</script>', fragment)[1])


def test_the_page_decodes_what_was_returned_at_each_state(fragment, asked):
    states = [[k, j] for k in range(4) for j in range(2)]
    found = asked("(spec, all) => all.map(module.exports.decode(spec))", spec_of(fragment), states)
    for (k, j), shown in zip(states, found, strict=True):
        view = seen(k + 1, ["low", "high"][j])
        flat = [(mark, PANELS[p]) for p, marks in enumerate(view.marks) for mark in marks]
        for (mark, panel), got in zip(flat, shown["marks"], strict=True):
            for key in {"x", "y", "x2", "y2"} & set(got):
                axis = panel.x if key[0] == "x" else panel.y
                there = [value for value in got[key] if value is not None]  # NaN, and what fills up
                expected = np.atleast_1d(np.asarray(getattr(mark, key), float))
                expected = np.resize(expected[~np.isnan(expected)], len(there))
                # half a step of 65534 on an axis
                assert axis.low + np.array(there) * (axis.high - axis.low) == pytest.approx(expected, abs=4 / 65534)
        assert shown["marks"][5]["words"] == [f"at \u2212{k + 1}"]
        assert shown["cells"] == [[moving_cell(cell).split("\t") for cell in view.numbers["Risk"].values()]]
        assert shown["reading"] == view.reading
        assert shown["interval"] == view.interval.replace("-", "\u2212")


def test_what_a_control_does_not_change_is_held_once(fragment):
    marks = spec_of(fragment)["marks"]
    assert [marks[0][key]["over"] for key in "xy"] == [[], [1]]
    assert marks[1]["y"]["over"] == [0, 1]
    assert len(fragment) < 6000


def test_names_cannot_end_the_script_or_open_a_tag():
    bad = "</script><b>"
    view = View([[Mark("dots", 0.5, 0.5, name=bad)]], {bad: {bad: bad}}, bad)
    panel = Panel(bad, Axis(bad, 0, 1), Axis(bad, 0, 1))
    fragment = moving_figure(
        lambda k: view, [Slider(bad, [1])], [panel], name="x", title=bad, presets={bad: [1]}, about=bad
    )
    assert fragment.count("</script>") == 1
    assert "<b>" not in fragment.replace("<b>&lt;", "")  # the one of the slider's own name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "two words"}, "name must be letters, digits and hyphens.*'two words'"),
        ({"controls": [Slider("k", range(4001))]}, "4,001 states, and a figure holds 4,000"),
        ({"controls": [Slider("k", [1, 2], start=3)]}, "3 is no value of 'k'; choose from 1, 2"),
        ({"presets": {"x": [7]}}, "7 is no value of 'k'"),
        (
            {"seen": lambda k: View([[Mark("dots", 2.0, 0.5)]])},
            "x of dots in panel 'P' leave the axis: they run from 2 to 2",
        ),
        ({"seen": lambda k: View([[Mark("pie", 0.0, 0.5)]])}, "unknown kind of mark 'pie'; choose from line"),
        ({"seen": lambda k: View([[Mark("band", 0.0, 0.5)]])}, "a mark of kind band needs x, y, y2; y2 is missing"),
        ({"seen": lambda k: View([[Mark("dots", 0, 0)] * k])}, "states differ in their marks"),
        ({"seen": lambda k: View([[]], {str(k): {"a": "1"}})}, "states differ in the rows"),
        ({"seen": lambda k: View([[], [Mark("dots", 0, 0)]])}, "there are 1 panels, and marks for 2"),
    ],
)
def test_what_cannot_be_shown_is_refused(change, message):
    given = {"seen": lambda k: View([[]]), "controls": [Slider("k", [1, 2])], "name": "x", "title": "x"} | change
    given["panels"] = [Panel("P", Axis("", 0, 1), Axis("", 0, 1))]
    with pytest.raises(ValueError, match=message):
        moving_figure(given.pop("seen"), given.pop("controls"), given.pop("panels"), **given)


def test_ticks_stand_at_round_numbers():
    assert round_numbers(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert round_numbers(-8.5, 48.8) == [0, 10, 20, 30, 40]
    assert round_numbers(100, 0) == [0, 20, 40, 60, 80, 100]


def test_the_runtime_is_small_and_asks_nobody(static):
    text = (static / "moving.js").read_text()
    assert len(text.encode()) <= 20_000
    assert re.findall("https?://[a-z0-9./]*", text) == ["http://www.w3.org/2000/svg"]
    assert not re.search("fetch|XMLHttp|import\\(|eval", text)


# In a browser


def look(page):
    return page.evaluate(
        "[...document.querySelectorAll('.mv-reading, tbody td, .mv-panel path.mv-dots')].map((e) => e.outerHTML)"
    )


def test_keyboard_moves_it_and_everything_follows(opened, fragment):
    page = opened(fragment)
    assert page.locator(".mv-reading").inner_text() == "Of the 3 kept 12% are wrong. Or −3 to 2."
    before, slider = look(page), page.get_by_role("slider")
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "4 of 4"
    assert page.locator("tbody td").all_inner_texts() == ["0.100", "4"]
    assert all(a != b for a, b in zip(before, look(page), strict=True))
    page.keyboard.press("Home")
    assert slider.get_attribute("aria-valuetext") == "1 of 4"
    page.keyboard.press("Tab")
    page.keyboard.press("Shift+Tab")
    page.get_by_role("radio").first.focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("tbody td").all_inner_texts() == ["0.900", "1"]
    assert page.locator("tbody td").first.get_attribute("class") == "mv-worse"


def test_a_preset_sets_all_controls_or_leaves_one(opened, fragment):
    page = opened(fragment)
    page.get_by_role("button", name="Bad").click()
    assert page.get_by_role("button", name="Bad").get_attribute("aria-pressed") == "true"
    assert page.locator("tbody td").all_inner_texts() == ["0.900", "1"]
    page.get_by_role("button", name="All").click()
    assert page.locator("tbody td").all_inner_texts() == ["0.400", "4"]


def test_a_pointer_on_the_plot_moves_the_slider(opened, fragment):
    page = opened(fragment)
    box = page.locator("svg.mv-panel").first.bounding_box()
    across = box["x"] + 46 + (box["width"] - 58) / 4
    page.mouse.click(across, box["y"] + 60)
    assert page.get_by_role("slider").get_attribute("aria-valuetext") == "1 of 4"
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 15, box["y"] + 60, steps=3)
    page.mouse.up()
    page.mouse.move(across, box["y"] + 60)
    assert page.get_by_role("slider").get_attribute("aria-valuetext") == "4 of 4"


def test_each_state_has_an_address_and_anchors_stay_anchors(opened, fragment):
    page = opened(fragment, address="#risks=0,1&other=3")
    assert page.locator("tbody td").all_inner_texts() == ["0.900", "1"]
    page.get_by_role("slider").press("ArrowRight")
    page.wait_for_function("location.hash === '#risks=1,1&other=3'")
    page.evaluate("location.hash = '#risks=3,0'")
    page.wait_for_function("document.querySelector('tbody td').textContent === '0.100'")
    page.evaluate("location.hash = '#risks'")  # the figure's anchor: it stays as it is
    assert page.locator("tbody td").all_inner_texts() == ["0.100", "4"]
    for wrong in ("#risks=9,0", "#risks=1", "#risks=a,b", "#risks="):
        page.evaluate(f"location.hash = '{wrong}'")
        assert page.locator("tbody td").all_inner_texts() == ["0.100", "4"]


def test_without_a_script_the_numbers_and_the_sentence_stand(opened, fragment):
    page = opened(fragment, java_script_enabled=False)
    text = page.locator(".moving").inner_text()
    assert "This is how it starts" in text
    assert "Of the 3 kept 12% are wrong." in text
    assert page.locator("tbody td").all_inner_texts() == ["0.125", "3"]
    assert not page.get_by_role("slider").is_visible()


@pytest.mark.parametrize("width", [390, 360])
def test_on_a_phone_nothing_is_wider_than_the_screen_and_fingers_can_hit_it(opened, fragment, width):
    page = opened(fragment, width=width, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    heights = page.evaluate(
        "[...document.querySelectorAll('.moving button, .mv-choice span')].map((e) => e.offsetHeight)"
    )
    assert min(heights) >= 44
    page.locator("svg.mv-panel").first.tap(position={"x": 70, "y": 80})
    assert page.get_by_role("slider").get_attribute("aria-valuetext") == "1 of 4"


def contrast(first, second):
    def luminance(colour):
        parts = [int(each) / 255 for each in re.findall(r"\d+", colour)[:3]]
        red, green, blue = (x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize(("mode", "paper"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(18, 18, 18)")])
def test_controls_and_words_can_be_told_from_the_page(opened, fragment, mode, paper):
    page = opened(fragment)
    page.evaluate(f"document.documentElement.dataset.theme = '{mode}'")
    colours = page.evaluate("""() => {
      const box = document.querySelector(".moving"), of = (name) => {
        const probe = document.createElement("i");
        probe.style.color = `var(--mv-${name})`;
        box.append(probe);
        const found = getComputedStyle(probe).color;
        probe.remove();
        return found;
      };
      return Object.fromEntries(["control", "own", "reference", "other", "right", "wrong", "large", "small", "duo"].map((name) => [name, of(name)]));
    }""")
    for name, colour in colours.items():
        assert contrast(colour, paper) > (3 if name in ("control", "reference") else 4.5), (name, colour)
