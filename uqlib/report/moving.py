"""Figures that move: what is seen at each position of a slider, computed here and drawn by moving.js of the book.

    def seen(kept):
        right = answers[:kept].mean()
        dots = Mark("dots", [float(k) for k in range(kept)], [0.5] * kept, tone="own", name="kept")
        return View([[dots]], {"Kept": {"right": f"{100 * right:.0f} %"}}, f"Of the {kept} kept, {right:.0%} are right.")

    slider = Slider("Keep the surest", range(1, 13), words="{} of 12", start=12)
    panel = Panel("Twelve answers", Axis("rank", -1, 12), Axis("", 0, 1, ticks={}))
    html = moving_figure(seen, [slider], [panel], name="strip", title="Twelve answers, the surest first")

No JavaScript is written for a figure, and no number is computed in the page: it shows what the function returned.
"""

import base64
import html
import itertools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

FULL = 65534  # code of the end of an axis; the one after it stands for nothing
MOST = 4000  # states of a figure
KINDS = {"line": "x y", "dots": "x y", "segments": "x y x2 y2", "band": "x y y2", "boxes": "x y x2 y2", "text": "x y"}

FRAGMENT = """<div class="moving" id="{name}" role="group" aria-label="Interactive figure: {title}">
<p class="mv-still">A figure that moves stands here where JavaScript runs. This is how it starts:</p>
{presets}{choices}<div class="mv-controls">{sliders}</div>
<p class="mv-legend">{legend}</p>
<div class="mv-panels"></div>
<p class="mv-reading" aria-live="polite"><span>{reading}</span> <span class="mv-interval">{interval}</span></p>
{table}<script type="application/json">{payload}</script>
</div>"""


class Axis(NamedTuple):
    """An axis: its words, its two ends, and where it has ticks (position: words); by default at round numbers."""

    label: str
    low: float
    high: float
    ticks: Mapping[float, str] | None = None


class Panel(NamedTuple):
    """A plot: a title that says what it shows, two axes, height over width, which sliders a pointer on it moves, how wide it is."""

    title: str
    x: Axis
    y: Axis
    ratio: float = 0.75
    drag: tuple[str | None, str | None] = (None, None)  # names of sliders, across and up
    wide: bool = False  # a row of its own


class Slider(NamedTuple):
    """A slider over some values; words say one of them, to the eye and to a screen reader."""

    name: str
    values: Sequence[Any]
    words: str | Callable[[Any], str] = "{:g}"
    start: Any = None  # the first where it is None


class Choice(NamedTuple):
    """One of a few things, shown as buttons side by side: what the function gets by the words that the reader sees."""

    name: str
    options: Mapping[str, Any]
    start: str | None = None


class Mark(NamedTuple):
    """What is drawn in a plot, in units of its axes: line, dots, segments and boxes from (x, y) to (x2, y2), band, text.

    A number stands for as many as the longest has. What is NaN is not drawn. `size` is the radius of dots in pixels.
    """

    kind: str
    x: Any
    y: Any
    x2: Any = None
    y2: Any = None
    tone: str = "own"  # own, reference, other, right, wrong, large, small, duo, quiet; "own faded"
    name: str = ""  # in the legend
    words: Sequence[str] = ()
    size: Any = 4.0


class View(NamedTuple):
    """What is seen in a state: the marks of each panel, numbers by row and column, a sentence, and one about chance.

    A number is a string, or a string and its tone (better, worse, same).
    """

    marks: Sequence[Sequence[Mark]]
    numbers: Mapping[str, Mapping[str, str | tuple[str, str]]] = {}
    reading: str = ""
    interval: str = ""


def moving_figure(
    seen: Callable[..., View],
    controls: Sequence[Slider | Choice],
    panels: Sequence[Panel],
    *,
    name: str,
    title: str,
    presets: Mapping[str, Sequence[Any]] | None = None,
    about: str = "",
) -> str:
    """HTML of a figure that shows, at each position of its controls, what a function returned for their values.

    Two bytes a number before base64, and what does not depend on a control is held once: a curve of 100 points over 50 positions
    is 13 kB. Positions on an axis are rounded to 1/65534 of it; numbers and sentences are strings, as they were returned.

    Args:
        seen: called with a value of each control, in their order, once for each combination.
        controls: at least one.
        panels: the plots, which `View.marks` follows.
        name: the figure's anchor in the page, and the name of its states in the address; letters, digits, hyphens.
        title: what the figure shows, for who does not see it.
        presets: by the words on a button, the value of each control; None leaves it as it is.
        about: what the numbers are about, such as "1,000 test images".

    Raises:
        ValueError: if a mark lies outside of its axes or is of an unknown kind, a start or preset is no value of its control, states
            differ in their marks or numbers, or there are more than 4,000 of them.
    """
    if not re.fullmatch("[A-Za-z][A-Za-z0-9-]*", name):
        raise ValueError(f"name must be letters, digits and hyphens, as in 'strip-of-answers'; it is {name!r}")
    values = [list(c.options.values() if isinstance(c, Choice) else c.values) for c in controls]
    sizes = tuple(map(len, values))
    if not 1 <= math.prod(sizes) <= MOST:
        raise ValueError(
            f"the controls have {math.prod(sizes):,} states, and a figure holds {MOST:,}; give them fewer values"
        )
    views = [seen(*each) for each in itertools.product(*values)]
    store = Store(sizes)
    start = [_place(c, c.start, first=True) for c in controls]
    spec = {
        "name": name,
        "about": about,
        "controls": [control_of(control) for control in controls],
        "panels": [panel_of(panel, controls) for panel in panels],
        "start": start,
        "presets": [
            {
                "name": words,
                "at": [[None if each is None else _place(c, each) for c, each in zip(controls, at, strict=True)]],
            }
            for words, at in (presets or {}).items()
        ],
        "marks": marks_of([view.marks for view in views], panels, store),
        **_texts(views, store),
    }
    return fragment_of(spec, store, views[int(np.ravel_multi_index(start, sizes))], title)


class Store:
    """Codes of 16 bits, each array once along the controls on which it depends, and the words that strings are made of."""

    def __init__(self, sizes: Sequence[int]):
        self.sizes, self.parts, self.length, self.words = tuple(sizes), list[np.ndarray](), 0, dict[str, int]()

    def put(self, states: Sequence[np.ndarray]) -> dict[str, Any]:
        """Keep one array a state, short ones filled up; returns where they lie and over which controls they run."""
        longest = max(map(len, states))
        table = np.full((len(states), longest), FULL + 1, "<u2")
        for row, each in zip(table, states, strict=True):
            row[: len(each)] = each
        cube, over = table.reshape(*self.sizes, longest), []
        for axis in range(len(self.sizes)):
            if (cube == cube.take([0], axis)).all():
                cube = cube.take([0], axis)
            else:
                over.append(axis)
        place = {"at": self.length, "n": longest, "over": over}
        self.parts.append(cube.ravel())
        self.length += cube.size
        return place

    def put_numbers(self, states: Sequence[Any], what: str, scale: float = FULL) -> dict[str, Any]:
        """Keep numbers, in steps of 1 / scale."""
        codes = []
        for each in states:
            number = np.asarray(each, float)
            code = np.round(number * scale)
            if not np.all((code >= 0) & (code <= FULL) | np.isnan(number)):
                ends = f"{np.nanmin(number):.6g} to {np.nanmax(number):.6g}"
                raise ValueError(f"{what} leave the axis: they run from {ends} of it, not 0 to 1")
            code = np.where(np.isnan(number), FULL + 1, code)
            codes.append(code)
        return self.put(codes)

    def put_texts(self, states: Sequence[str]) -> dict[str, Any]:
        """Keep strings, word by word."""
        return self.put(
            [np.array([self.words.setdefault(w, len(self.words)) for w in each.split(" ")]) for each in states]
        )

    def text(self) -> str:
        """All codes, in base64."""
        if len(self.words) > FULL:
            raise ValueError(
                f"the sentences of all states have {len(self.words):,} different words; {FULL:,} can be held"
            )
        return in_base64(np.concatenate([np.zeros(0, "<u2"), *self.parts]), "<u2")


def in_base64(values: np.ndarray, kind: str) -> str:
    """Numbers as text: their bytes as this kind of integer, in base64."""
    return base64.b64encode(values.astype(kind).tobytes()).decode()


def control_of(control: Slider | Choice) -> dict[str, Any]:
    """A control as the page reads it."""
    if isinstance(control, Choice):
        return {"name": control.name, "positions": len(control.options), "options": list(control.options)}
    say = control.words.format if isinstance(control.words, str) else control.words
    return {
        "name": control.name,
        "positions": len(control.values),
        "words": [_minus(say(each)) for each in control.values],
    }


def panel_of(panel: Panel, controls: Sequence[Slider | Choice]) -> dict[str, Any]:
    """A panel as the page reads it: ticks as shares of an axis, and where on it each position of a slider lies."""
    axes = {}
    for side, axis in (("x", panel.x), ("y", panel.y)):
        ticks = axis.ticks if axis.ticks is not None else {t: f"{t:g}" for t in round_numbers(axis.low, axis.high)}
        axes[side] = {
            "label": axis.label,
            "ticks": [[round(_share(at, axis), 5), _minus(text)] for at, text in ticks.items()],
        }
    drag, names = None, [control.name for control in controls]
    if any(panel.drag):
        drag = [
            None if name is None else {
                "control": names.index(name),
                "shares": [round(_share(float(v), axis), 4) for v in controls[names.index(name)].values],  # type: ignore[union-attr]
            }
            for name, axis in zip(panel.drag, (panel.x, panel.y), strict=True)
        ]  # fmt: skip
    return {"title": panel.title, "ratio": panel.ratio, "wide": panel.wide, "drag": drag, **axes}


def round_numbers(low: float, high: float) -> list[float]:
    """Round numbers within two ends, four to eight of them."""
    low, high = sorted((low, high))
    power = 10.0 ** math.floor(math.log10((high - low) / 4))
    step = next(s for s in (5 * power, 2 * power, power) if (high - low) / s >= 4 - 1e-9)
    return [float(f"{k * step:.6g}") for k in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def marks_of(states: Sequence[Sequence[Sequence[Mark]]], panels: Sequence[Panel], store: Store) -> list[dict[str, Any]]:
    """Every mark as the page reads it, with one array a state in the store."""
    shapes = {tuple((k, m.kind, m.tone, m.name) for k, marks in enumerate(state) for m in marks) for state in states}
    if len(shapes) != 1:
        raise ValueError(
            "states differ in their marks; return the same kinds, tones and names in each, empty where there is nothing"
        )
    found = []
    for i, (panel, kind, tone, name) in enumerate(shapes.pop()):
        if kind not in KINDS:
            raise ValueError(f"unknown kind of mark {kind!r}; choose from {', '.join(KINDS)}")
        if panel >= len(panels):
            raise ValueError(f"there are {len(panels)} panels, and marks for {panel + 1}")
        each = [[m for marks in state for m in marks][i] for state in states]
        axes = {"x": panels[panel].x, "y": panels[panel].y}
        columns = [_columns(mark) for mark in each]
        mark: dict[str, Any] = {"panel": panel, "kind": kind, "tone": tone, "name": name}
        for key in KINDS[kind].split():
            shares = [_share(column[key], axes[key[0]]) for column in columns]
            mark[key] = store.put_numbers(shares, f"{key} of {name or kind} in panel {panels[panel].title!r}")
        if kind == "dots":
            mark["size"] = store.put_numbers([np.atleast_1d(m.size) for m in each], "sizes", scale=10)
        if kind == "text":
            mark["words"] = store.put_texts([_minus("\t".join(m.words)) for m in each])
        found.append(mark)
    return found


def _columns(mark: Mark) -> dict[str, np.ndarray]:
    keys = KINDS[mark.kind].split()
    if missing := [key for key in keys if getattr(mark, key) is None]:
        raise ValueError(f"a mark of kind {mark.kind} needs {', '.join(keys)}; {missing[0]} is missing")
    arrays = np.broadcast_arrays(*(np.atleast_1d(np.asarray(getattr(mark, key), float)) for key in keys))
    return dict(zip(keys, arrays, strict=True))


def _texts(views: Sequence[View], store: Store) -> dict[str, Any]:
    """Table, sentence and the line about chance."""
    names = {(tuple(v.numbers), tuple(next(iter(v.numbers.values()), {}))) for v in views}
    if len(names) != 1:
        raise ValueError("states differ in the rows or columns of their numbers; return the same in each")
    rows, columns = names.pop()
    cells = {
        (row, column): store.put_texts([moving_cell(v.numbers[row][column]) for v in views])
        for row, column in itertools.product(rows, columns)
    }
    table = [
        {"name": r, "tone": "own" if not k else "", "cells": [cells[r, c] for c in columns]} for k, r in enumerate(rows)
    ]
    said = {key: store.put_texts([_minus(getattr(v, key)) for v in views]) for key in ("reading", "interval")}
    return {"rows": table, **said}


def moving_cell(cell: str | tuple[str, str]) -> str:
    """A cell of the table as the store keeps it: its text, and its tone after a tab."""
    return _minus(cell if isinstance(cell, str) else "\t".join(cell))


def fragment_of(spec: Mapping[str, Any], store: Store, first: View, title: str) -> str:
    """The HTML of a figure: controls, the numbers and the sentence of the start for who reads without a script, and the data."""
    said = {key: html.escape(_minus(text)) for key, text in (("reading", first.reading), ("interval", first.interval))}
    buttons = "".join(f'<button type="button">{html.escape(each["name"])}</button>' for each in spec["presets"])
    named = {mark["name"]: mark for mark in reversed(spec["marks"]) if mark["name"]}
    keys = [(name, mark["kind"], mark["tone"].split()) for name, mark in reversed(named.items())]
    inputs = [_input(each, k, spec["name"], spec["start"][k]) for k, each in enumerate(spec["controls"])]
    text = json.dumps(
        {**spec, "words": list(store.words), "data": store.text()}, ensure_ascii=False, separators=(",", ":")
    )
    return FRAGMENT.format(
        name=spec["name"],
        title=html.escape(title),
        presets=f'<div class="mv-presets" role="group" aria-label="Settings to start from">{buttons}</div>\n'
        if buttons
        else "",
        choices="".join(each for each in inputs if each.startswith("<fieldset")),
        sliders="".join(each for each in inputs if each.startswith("<label")),  # they stay in sight on a phone
        legend="".join(
            f'<span class="mv-key mv-key-{kind} {" ".join(f"mv-{tone}" for tone in tones)}">{html.escape(name)}</span>'
            for name, kind, tones in keys
        ),
        table=_table(first.numbers, spec["about"]),
        payload=text.replace("<", "\\u003c"),  # a name must not end the script
        **said,
    )


def _input(control: Mapping[str, Any], k: int, figure: str, start: float) -> str:
    name = html.escape(control["name"])
    if "options" in control:
        radios = "".join(
            f'<label><input type="radio" name="{figure}-{k}"{" checked" * (place == start)}><span>{html.escape(option)}</span></label>'
            for place, option in enumerate(control["options"])
        )
        return f'<fieldset class="mv-choice" data-control="{k}"><legend>{name}</legend>{radios}</fieldset>\n'
    slider = f'<input type="range" min="0" max="{control["positions"] - 1}" value="{start:g}">'
    return f'<label class="mv-slider" data-control="{k}"><b>{name}</b> <i></i>{slider}</label>'


def _table(numbers: Mapping[str, Mapping[str, str | tuple[str, str]]], about: str) -> str:
    columns = list(next(iter(numbers.values()), {}))
    if not columns:
        return ""
    head = "".join(f'<th scope="col">{html.escape(column)}</th>' for column in columns)
    lines = []
    for name, cells in numbers.items():
        pairs = [(*moving_cell(cell).split("\t"), "")[:2] for cell in cells.values()]
        told = "".join(f"<td{f' class=mv-{tone}' if tone else ''}>{html.escape(text)}</td>" for text, tone in pairs)
        lines.append(f'<tr><th scope="row">{html.escape(name)}</th>{told}</tr>')
    return f'<table class="mv-numbers"><thead><tr><td>{html.escape(about)}</td>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>\n'


def _share(value: Any, axis: Axis) -> Any:
    return (np.asarray(value, float) - axis.low) / (axis.high - axis.low)


def _place(control: Slider | Choice, value: Any, *, first: bool = False) -> int:
    """Where a value stands among those of a control; of a choice, its words."""
    values = list(control.options if isinstance(control, Choice) else control.values)
    if value is None and first:
        return 0
    if value not in values:
        raise ValueError(f"{value!r} is no value of {control.name!r}; choose from {', '.join(map(str, values))}")
    return values.index(value)


def _minus(text: str) -> str:
    """A true minus sign before a number."""
    return re.sub(r"(?<![\w-])-(?=[\d.])", "\u2212", text)
