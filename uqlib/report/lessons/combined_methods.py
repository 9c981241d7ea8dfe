"""What combines with what, to try: switches for each method, and what the combination scores beside all others."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from uqlib.report.moving import Axis, Choice, Mark, Panel, View, moving_figure

STEP = 0.012  # passes between combinations that cost the same


class Scored(NamedTuple):
    """What a combination scores in one measure."""

    value: float
    low: float
    high: float


class Need(NamedTuple):
    """A measure in print, in percent or as it is, and which way is better."""

    name: str
    percent: bool
    higher_is_better: bool


def combined_figure(
    scored: Callable[[tuple[int, ...], str], Scored],
    switches: Sequence[str],
    needs: Mapping[str, Need],
    cost: Callable[[tuple[int, ...]], float],
    *,
    name: str = "what-combines",
) -> str:
    """HTML of a figure: switches turn methods on, and a dot among all combinations says what these score, and what they cost.

    Args:
        scored: of a combination (0 or 1 for each switch) and a measure.
        switches: names in print.
        needs: measures by their key.
        cost: of a combination, in passes of one network.
        name: of the figure, as in `moving_figure`.
    """
    places = [tuple((k >> i) & 1 for i in range(len(switches))) for k in range(2 ** len(switches))]
    table = {(place, need): scored(place, need) for place in places for need in needs}
    base, across = places[0], _side_by_side({place: cost(place) for place in places})

    def seen(need: str, *place: int) -> View:
        rank = {key: _position(table[key, need].value, need) for key in places}
        own, at = table[place, need], across[place]
        marks = [
            Mark("line", [0.8, most], [rank[base]] * 2, tone="reference dashed", name="none of them"),
            Mark(
                "dots",
                [across[each] for each in places],
                [rank[each] for each in places],
                tone="quiet",
                size=2.5,
                name="all combinations",
            ),
            Mark("segments", [at], [_position(own.low, need)], [at], [_position(own.high, need)], tone="own"),
            Mark("dots", [at], [rank[place]], tone="own", size=7, name="yours"),
        ]
        numbers = {
            "yours": {"passes": f"{cost(place):.2f}"} | {each.name: _told(key, place) for key, each in needs.items()}
        }
        return View([marks], numbers, _sentence(need, place, own))

    def _position(value: float, need: str) -> float:
        """From 0, the worst of all combinations and their intervals, to 1."""
        low, high = ends[need]
        share = (value - low) / (high - low)
        return share if needs[need].higher_is_better else 1 - share

    def _told(need: str, place: tuple[int, ...]) -> tuple[str, str]:
        own, none = table[place, need], table[base, need]
        gain = (own.value - none.value) * (1 if needs[need].higher_is_better else -1)
        return _number(own.value, needs[need]), "same" if gain == 0 else "better" if gain > 0 else "worse"

    def _sentence(need: str, place: tuple[int, ...], own: Scored) -> str:
        chosen = [words for words, on in zip(switches, place, strict=True) if on]
        what, text = needs[need], " + ".join(chosen) or "None of them"
        better = sum(
            (table[each, need].value > own.value) == what.higher_is_better and table[each, need].value != own.value
            for each in places
        )
        interval = f"[{_number(own.low, what)}, {_number(own.high, what)}]"
        return f"{text}: {what.name} {_number(own.value, what)} {interval}. Of {len(places)} combinations, {better} do better on average."

    most = max(map(cost, places)) + 0.1
    ends = {}
    for need in needs:
        values = [end for place in places for end in table[place, need]]
        ends[need] = min(values), max(values)
    controls = [Choice("You need", {need.name: key for key, need in needs.items()})]
    controls += [Choice(words, {"without": 0, "with": 1}) for words in switches]
    panel = Panel(
        "Better is up",
        Axis("passes of the large network for an image", 0.8, most),
        Axis("", 0, 1, ticks={0: "worst", 1: "best"}),
        ratio=0.6,
    )
    return moving_figure(
        seen, controls, [panel], name=name, title="What each combination of methods scores, and what it costs"
    )


def _side_by_side(costs: Mapping[tuple[int, ...], float]) -> dict[tuple[int, ...], float]:
    """Where each combination stands: those of one cost beside each other around it, so that none hides another."""
    groups: dict[float, list[tuple[int, ...]]] = {}
    for place, cost in costs.items():
        groups.setdefault(round(cost, 6), []).append(place)
    return {
        place: cost + STEP * (k - (len(group) - 1) / 2)
        for cost, group in groups.items()
        for k, place in enumerate(group)
    }


def _number(value: float, need: Need) -> str:
    return f"{100 * value:.1f} %" if need.percent else f"{value:.3f}"
