"""What the cover shows: for each paper a sentence and a bar of its verdicts, and the card of a shared link. Verdicts in, HTML out."""

from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

from uqlib.base.extras import named
from uqlib.evidence.verdicts import TRIED, JudgedLedger
from uqlib.report import plots

with named():
    from matplotlib.figure import Figure
    from matplotlib.patches import Circle
    from PIL import Image

SHADES = {"confirmed": "sure", "direction only": "direction", "undecided": "undecided", "contradicted": "contradicted"}


def verdict_bars(judged: Sequence[JudgedLedger], names: Mapping[str, str]) -> str:
    """A card a paper: what it claims, how that stands in words and as a bar, and how many findings have which verdict.

    The claims are the paper's own; those that rest on one fact and got one verdict count once, as in the ledger. What stands
    best comes first.

    Args:
        judged: the ledgers.
        names: of their chapters, by paper; where there is none, the paper's title.
    """
    cards = []
    for each in sorted(judged, key=lambda one: standing_share(one.findings(ours=False)), reverse=True):
        counts = each.findings(ours=False)
        parts = {name: counts[name] for name in SHADES} | {
            "not tried": sum(counts.values()) - sum(counts[n] for n in TRIED)
        }
        parts = {name: n for name, n in parts.items() if n}
        told = ", ".join(f"{n} {name}" for name, n in parts.items())
        bar = "".join(f'<i class="{SHADES.get(name, "other")}" style="flex:{n}"></i>' for name, n in parts.items())
        key = "".join(f'<span class="{SHADES.get(name, "other")}">{n} {name}</span>' for name, n in parts.items())
        cards.append(
            f'<a href="{each.ledger.paper}/index.html"><b>{escape(names.get(each.ledger.paper) or each.ledger.title)}: {standing(counts)}</b>'
            f'<span class="said">{escape(each.ledger.gist)}</span>'
            f'<span class="bar" role="img" aria-label="{told}">{bar}</span><span class="key">{key}</span></a>'
        )
    return "\n".join(["```{raw} html", '<div class="verdicts">', *cards, "</div>", "```", ""])


def standing_share(counts: Mapping[str, int]) -> float:
    """The share of what was tried that is confirmed or points that way; 0 if nothing was."""
    tried = sum(counts.get(name, 0) for name in TRIED)
    return (counts.get("confirmed", 0) + counts.get("direction only", 0)) / tried if tried else 0.0


def standing(counts: Mapping[str, int]) -> str:
    """How findings stand, in words: what more than half of those that were tried have in common."""
    tried = sum(counts.get(name, 0) for name in TRIED)
    sure, _, open_, against = (counts.get(name, 0) for name in TRIED)
    if not tried:
        return "not tried yet"
    if 2 * against > tried:
        return "mostly contradicted"
    if 2 * open_ > tried:
        return "mostly too close to tell"
    if standing_share(counts) > 0.5:
        return "mostly confirmed" if 2 * sure > tried else "mostly points the paper’s way"
    return "holds in part"


def draw_card(path: str | Path, question: str, name: str) -> Path:
    """The picture of a shared link, a small PNG of 1200 by 630 pixels: the mark, the question, the name of the book.

    Args:
        path: of the file.
        question: on lines of its own.
        name: of the book, below it.
    """
    figure = Figure(figsize=(12, 6.3), facecolor="white")
    figure.set_layout_engine("none")  # the style's has nothing to lay out here, and warns
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, 12), ylim=(0, 6.3))
    ax.axis("off")
    ax.add_patch(Circle((1.7, 4.9), 0.75, color=plots.COLOURS["blue"]))
    ax.add_patch(Circle((2.75, 4.45), 0.33, color=plots.COLOURS["orange"]))
    look: Any = {"va": "top", "family": "serif", "color": plots.COLOURS["black"]}
    ax.text(0.95, 3.7, question, fontsize=44, weight="bold", linespacing=1.15, **look)
    ax.text(0.95, 0.95, name, fontsize=22, **(look | {"color": plots.COLOURS["grey"]}))
    figure.savefig(drawn := BytesIO(), dpi=100)
    Image.open(drawn).convert("RGB").quantize(24).save(path, optimize=True)
    return Path(path)
