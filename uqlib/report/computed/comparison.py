"""The page that compares all papers: what each method changes on a reliability card. Results in, HTML out."""

from collections.abc import Iterable, Mapping
from html import escape

from uqlib.evidence.records import Result
from uqlib.report.cards.reliability import CARD, CHANGE, QUANTITY
from uqlib.report.telling import number_text

MARKS = {"better": "▲", "worse": "▼", "": ""}  # surely so; no mark where the interval holds 0
NATS = ("nll",)  # not in points
TOGETHER = "synthesis"


def comparison_table(results: Iterable[Result], titles: Mapping[str, str]) -> str:
    """A row a method: what it changes beside what was there before, with a mark where the whole interval lies on one side.

    Args:
        results: of all records.
        titles: of the chapters, by paper, in their order; those of no paper stand last.
    """
    cards = read_cards(results)
    if not cards:
        return "No card is recorded yet.\n"
    order = [*titles, *sorted({paper for paper, _ in cards} - set(titles))]
    head = "".join(
        f'<th scope="col">{escape(each.name)}{"&nbsp;↑" if each.higher_is_better else "&nbsp;↓"}</th>'
        for each in CARD.values()
    )
    lines = [f'<thead><tr><th scope="col">method</th>{head}<th scope="col">cost</th></tr></thead>']
    for paper, place in sorted(cards, key=lambda key: order.index(key[0])):
        methods = cards[paper, place]
        first, *others = methods
        name = escape(titles.get(paper, "Four chapters on one card" if paper == TOGETHER else paper))
        to = f"{paper}/index.html" if paper in titles else "results/synthesis/cards.html"
        title = f'<a href="{to}">{name}</a> <small>{escape(place)}; less <i>{escape(first)}</i></small>'
        lines.append(f'<tbody><tr class="paper"><th scope="rowgroup" colspan="{len(CARD) + 2}">{title}</th></tr>')
        lines += [_line(each, methods[each]) for each in others]
        lines.append("</tbody>")
    return "\n".join(
        ["```{raw} html", '<div class="wide"><table class="numbers cards">', *lines, "</table></div>", "```", ""]
    )


def read_cards(results: Iterable[Result]) -> dict[tuple[str, str], dict[str, dict[str, Result]]]:
    """Cards by paper and place: of each method, in the order of the record, its results by quantity."""
    found: dict[tuple[str, str], dict[str, dict[str, Result]]] = {}
    for each in results:
        if each.quantity.startswith("card_"):
            place, _, method = each.setting.partition(": ")
            card = found.setdefault((each.notebook.partition("/")[0], place), {})
            card.setdefault(method, {})[each.quantity] = each
    return found


def _line(method: str, card: Mapping[str, Result]) -> str:
    cost = card.get("card_cost")
    told = "–" if cost is None else f"× {number_text(cost.value, digits=2)}"
    return f'<tr><th scope="row">{escape(method)}</th>{"".join(_cell(name, card) for name in CARD)}<td>{told}</td></tr>'


def _cell(name: str, card: Mapping[str, Result]) -> str:
    """The change in points, or in nats, and below it the level that it leads to."""
    change, level = (card.get(each.format(measure=name)) for each in (CHANGE, QUANTITY))
    if change is None:
        return "<td>–</td>"
    times, digits = (1.0, 3) if name in NATS else (100.0, 2)
    way = _surely(change, CARD[name].higher_is_better)
    mark = f'<b title="surely {way}">{MARKS[way]}</b>' if way else ""
    text = number_text(times * change.value, digits=digits, signed=True)
    whole = f"<small>{number_text(times * level.value, digits=digits)}</small>" if level else ""
    return f'<td class="{way}">{text}{mark}{whole}</td>'


def _surely(change: Result, higher_is_better: bool) -> str:
    if change.low is None or change.high is None or change.low <= 0 <= change.high:
        return ""
    return "better" if (change.low > 0) == higher_is_better else "worse"
