"""Numbers as words: an interval in print, how many of several are better, and the phrase that a sentence takes from them.

No sentence of the book says by itself who wins: it takes a phrase that is made here from the numbers, so other data make another
sentence.
"""

import re
import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import Any

from uqlib.base.extras import named
from uqlib.base.options import check_choice
from uqlib.evidence.ledger import Claim
from uqlib.metrics.outcomes import MEASURES

with named():
    import pandas as pd

NOTHING = "not measured here"
ENDS = ("value", "low", "high")
# columns of cells that are no names
ABOUT = (*ENDS, "level", "splits", "seeds", "examples", "covers", "start", "paper")
# what is said of one cell, and the plural that would follow if there were more
ALONE = ("surely higher", "surely lower", "not surely different", "higher", "lower", "the same")
NOUN = re.compile(r" ([a-z]{2,}[a-hj-rtv-z]s)\b")  # no loss, no analysis
PERCENT = re.compile(r" (%)")
VERBS = ("changes", "does", "errs", "gives", "keeps", "predicts", "says", "sees")
SINGLE = "of one training"
ALONE_IN = re.compile(rf", (?:\d+ of them )?{SINGLE}(?: each)?$")  # the end of what rests on single trainings
LISTED = 4  # cells that evidence gives one by one; of more, the least and the largest
THREE_DIGITS = ("aurc", "augrc", "nll")


@dataclass(frozen=True)
class Tally:
    """Of several results: how many there are, are better, surely (the whole interval), and surely worse."""

    count: int
    better: int
    surely: int
    worse: int


def tally(frame: pd.DataFrame, better: str = "higher") -> Tally:
    """Count the cells that are better, higher or lower than 0 as it says; see `Tally`."""
    value, ends = frame["value"], _ends(frame)
    if check_choice(better, ("higher", "lower"), "direction") == "lower":
        value, ends = -value, -ends[["high", "low"]].set_axis(["low", "high"], axis=1)
    return Tally(len(frame), int((value > 0).sum()), int((ends["low"] > 0).sum()), int((ends["high"] < 0).sum()))


def wording(frame: pd.DataFrame, better: str = "") -> str:
    """What a sentence may say of these differences.

    One: "surely higher", "surely lower", "not surely different"; without an interval "higher", "lower", "the same". Several:
    "better in 9 of 12, surely in 7, surely worse in 1"; of higher and lower, where nothing says which way is better. Where cells
    rest on a single training, and so say nothing of others, that follows: "surely better in all 3, of one training each".
    """
    return _worded_without(frame, better) + singles(frame) if len(frame) else NOTHING


def singles(frame: pd.DataFrame) -> str:
    """What follows words or numbers of cells that rest on a single training, by the column seeds; empty if none does."""
    many = int((frame["seeds"] == 1).sum()) if "seeds" in frame else 0
    if many == len(frame):
        return (f", {SINGLE} each" if many > 1 else f", {SINGLE}") if many else ""
    return f", {many} of them {SINGLE}" if many else ""


def _worded_without(frame: pd.DataFrame, better: str) -> str:
    up = tally(frame)
    if up.count == 1:
        if _ends(frame).isna().to_numpy().all():
            return "higher" if up.better else "lower" if tally(frame, "lower").better else "the same"
        return "surely higher" if up.surely else "surely lower" if up.worse else "not surely different"
    found = tally(frame, better or "higher")
    good, bad = ("better", "worse") if better else ("higher", "lower")
    if found.surely == found.count:
        return f"surely {good} in all {found.count}"
    if found.worse == found.count:
        return f"surely {bad} in all {found.count}"
    sure = f"surely in {found.surely or 'none'}, " if found.better else ""
    many = f"all {found.count}" if found.better == found.count else f"{found.better or 'none'} of {found.count}"
    return f"{good} in {many}, {sure}surely {bad} in {found.worse or 'none'}"


def counted(count: int, many: str) -> str:
    """A number and what it counts, of the word for many: "1 loss", "2,000 losses"."""
    return f"{count:,} {singular(many) if count == 1 else many}"


def singular(many: str) -> str:
    """One of what an English plural in s names: networks, losses, classes, severities."""
    for end, one in (("ies", "y"), ("sses", "ss"), ("xes", "x"), ("s", "")):
        if many.endswith(end):
            return many.removesuffix(end) + one
    raise ValueError(f"{many!r} is no plural that ends in s")


def agreeing(shown: str, after: str) -> tuple[str, str]:
    """A number or phrase, and the text after it, so that they agree where a small run leaves one: "1" and " network won".

    A phrase that has no number any more, since it is of one cell, gets its noun back: "surely lower in the one" and " pair". What
    rests on a single training is said behind the noun or unit: "+5.45 points, of one training".
    """
    if end := ALONE_IN.search(shown):
        noun = NOUN.match(after) or PERCENT.match(after)
        if noun and noun[1] not in VERBS:
            before, rest = agreeing(shown[: end.start()], after)
            cut = PERCENT.match(rest) or re.match(r" [a-z]+", rest)
            at = cut.end() if cut else 0
            return f"{before}{rest[:at]}{end[0]}", rest[at:]
        return shown, after
    found = NOUN.match(after)
    if not found or found[1] in VERBS:
        return shown, after
    one = f" {singular(found[1])}{after[found.end() :]}"
    if shown == "1" or shown.endswith(" all 1"):
        return shown, one
    return (f"{shown} in the one", one) if shown in ALONE else (shown, after)


def number_text(value: float, digits: int = 2, *, signed: bool = False) -> str:
    """A number in print, with a true minus; a dash for NaN. What rounds to zero has no sign."""
    if value != value:
        return "–"
    text = f"{value:{'+' if signed else ''},.{digits}f}".replace("inf", "∞")
    return text.replace("-", "−") if text.strip("+-0.,") else text.lstrip("+-")


def interval_text(row: Mapping[str, Any], *, digits: int = 2, signed: bool = True, ends: bool = True) -> str:
    """A cell in print: +0.54 [+0.22, +0.85]; the value alone if it has no interval."""
    value, low, high = (float("nan") if row.get(part) is None else row[part] for part in ENDS)
    if not ends or low != low:
        return number_text(value, digits, signed=signed)
    return f"{number_text(value, digits, signed=signed)} [{number_text(low, digits, signed=signed)}, " + (
        f"{number_text(high, digits, signed=signed)}]"
    )


def placed(reported: float, row: Mapping[str, Any]) -> str:
    """A number of the paper, in points, beside a cell of fractions: above, below or within the interval of it.

    Raises:
        ValueError: if the cell has no interval.
    """
    ours = {part: 100 * row[part] for part in ENDS if row.get(part) is not None}
    if "low" not in ours:
        raise ValueError(f"a number is placed beside an interval; {dict(row)} has none")
    where = "above" if reported > ours["high"] else "below" if reported < ours["low"] else "within"
    return f"{number_text(reported, signed=True)}, {where} ours of {interval_text(ours)}"


def in_print(
    frame: pd.DataFrame,
    *,
    digits: int | None = None,
    percent: bool | None = None,
    ends: bool = True,
    signed: bool = True,
) -> list[str]:
    """Every cell as text. Fractions are shown times 100 and NLL in nats, with two or three digits, if nothing else is said."""
    texts = []
    for row in frame.to_dict("records"):
        times = 100 if (row.get("measure") != "nll" if percent is None else percent) else 1
        scaled = {part: row[part] * times for part in ENDS if row.get(part) is not None}
        own = (3 if row.get("measure") in THREE_DIGITS else 2) if digits is None else digits
        texts.append(interval_text(scaled, digits=own, ends=ends, signed=signed))
    return texts


def facts(
    frame: pd.DataFrame,
    better: str = "",
    *,
    labels: Mapping[Any, str] | None = None,
    left: Sequence[str] = (),
    **style: Any,
) -> dict[str, Any]:
    """What prose may take of some cells, by the end of its name.

    "" is the text of all, each with its name; `.phrase` see `wording`; `.count`, `.better`, `.surely`, `.worse` see `Tally`;
    `.least` and `.most` the least and largest value in print, `.least_at` and `.most_at` their names; `.which` all names.

    Args:
        frame: of `compare.cells`.
        better: "higher", "lower" or "": as the measure has it, if all are of one.
        labels: names in print, by value.
        left: columns of which one name is left of several that were asked; it is said, see `left_alone`.
        style: of `in_print`.
    """
    better = better or _direction(frame)
    found = tally(frame, better or "higher")
    told: dict[str, Any] = {".phrase": wording(frame, better), **{f".{k}": v for k, v in asdict(found).items()}}
    if not len(frame):
        return told | dict.fromkeys(("", ".least", ".most", ".least_at", ".most_at", ".which"), NOTHING)
    names = [name for name in names_of(frame) if frame[name].nunique() > 1 or name in left]
    named = [" ".join(label(row[name], labels) for name in names) for row in frame.to_dict("records")]
    texts = in_print(frame, **style)
    bare = in_print(frame, **(style | {"ends": False}))
    of = ", ".join(label(frame[name].iloc[0], labels) for name in left)
    if of:
        told[".phrase"] = f"{told['.phrase'].removesuffix(singles(frame))} ({of}){singles(frame)}"
    told[".which"] = "; ".join(named)
    told[""] = "; ".join(f"{name}: {text}" if name else text for name, text in zip(named, texts, strict=True))
    told[""] += singles(frame)
    for end, k in ((".least", int(frame["value"].argmin())), (".most", int(frame["value"].argmax()))):
        told |= {end: bare[k], f"{end}_at": named[k]}
    return told


def left_alone(found: Any, frame: pd.DataFrame) -> list[str]:
    """The dimensions of an array of which its cells have one name only, though the array has more: what is told of it is not general.

    Args:
        found: an array of `metrics.compare`; of anything else nothing is left alone.
        frame: its cells.
    """
    sizes = getattr(found, "sizes", {})
    return [name for name in names_of(frame) if sizes.get(name, 0) > 1 and frame[name].nunique() == 1]


def finding(
    template: str, frame: pd.DataFrame, *, by: str = "", labels: Mapping[Any, str] | None = None, **style: Any
) -> str:
    """A sentence that the cells complete, such as the title of a figure: other cells make another sentence.

    Args:
        template: with {count} of the cells, {higher}, {lower}, {surely_higher} and {surely_lower} of them; with what ends the
            names of `facts`, such as {phrase}, {least} or {most_at}, and {text} for all of them; and with names of the cells.
        frame: of `compare.cells`.
        by: a name of the cells, each value of which completes the template by itself; commas join what comes of it.
        labels, style: as of `facts`.
    """
    if by:
        parts = frame.groupby(by, sort=False, observed=True)
        return ", ".join(finding(template, part, labels=labels, **style) for _, part in parts)
    up, down = tally(frame), tally(frame, "lower")
    told: dict[str, Any] = {name: label(frame[name].iloc[0], labels) for name in names_of(frame) if len(frame)}
    end = singles(frame)
    found = facts(frame, labels=labels, **style)
    told |= {name[1:] or "text": value for name, value in found.items()}
    told |= {name: str(told[name]).removesuffix(end) for name in ("phrase", "text")}  # behind the sentence, not in it
    told |= {"higher": up.better, "lower": down.better, "surely_higher": up.surely, "surely_lower": down.surely}
    return template.format(**told) + (f" ({end[2:]})" if end else "")


def evidence_text(
    frame: pd.DataFrame, better: str = "", *, labels: Mapping[Any, str] | None = None, **style: Any
) -> str:
    """What stands behind the facts of some cells, in a few words: which, their values and unit, what the intervals cover, n.

    Args:
        frame, better, labels, style: as of `facts`.
    """
    if not len(frame):
        return f"{NOTHING}."
    of, cells = called(frame, labels)
    texts, unit = in_print(frame, **style | {"ends": True}), unit_text(frame, **style)
    told = [f"{text} ({name})" if name else text for name, text in zip(cells, texts, strict=True)]
    if len(frame) > LISTED:
        way = better or _direction(frame)
        found, (good, bad) = tally(frame, way or "higher"), ("better", "worse") if way else ("above 0", "below 0")
        counts = f", {found.better} {good}, {found.surely} surely, {found.worse} surely {bad}"
        least, most = (told[int(k)] for k in (frame["value"].argmin(), frame["value"].argmax()))
        told = [f"{len(frame)} results{counts if style.get('signed', True) else ''}, from {least} to {most}"]
    return f"{of and of + ': '}{'; '.join(told)}{unit}{rests_on(frame)}."


def effect_text(claim: Claim, unit: str) -> str:
    """What the paper reports of a claim's quantity, in the unit of ours, and where."""
    effect, places = claim.effect or 0.0, 2 if unit in (" points", " %") else 0
    digits = -int(Decimal(str(effect)).normalize().as_tuple().exponent) - places  # as many as the ledger has
    shown = number_text(10**places * effect, max(2, digits))
    return f"{shown}{unit} ({claim.effect_at.partition(';')[0]})"


def called(frame: pd.DataFrame, labels: Mapping[Any, str] | None) -> tuple[str, list[str]]:
    """What some cells are called together, and each beside the others, without names that only the program knows."""
    words: dict[str, list[str]] = {}
    numbers: dict[str, list[str]] = {}  # that tell cells apart where no words do, such as a strength
    for name in names_of(frame):
        told = [label(value, labels) for value in frame[name]]
        if _worded(frame[name], labels):
            words[name] = told
        elif len(set(told)) > 1 and not isinstance(frame[name].iloc[0], str):
            numbers[name] = [f"{name} {each}" for each in told]
    apart = {name: told for name, told in words.items() if len(set(told)) > 1} or numbers
    together = ", ".join(told[0] for told in words.values() if told[0] and len(set(told)) == 1)
    return together, [_without_parts(each) for each in zip(*apart.values(), strict=True)] or [""] * len(frame)


def _worded(column: pd.Series, labels: Mapping[Any, str] | None) -> bool:
    """Whether a reader knows the names of a column: words, and none of the program's own."""
    return all(isinstance(x, str) and ("_" not in x or x in MEASURES or (labels and x in labels)) for x in column)


def _without_parts(words: Sequence[str]) -> str:
    """The words, without those that another of them holds already."""
    return ", ".join(word for word in words if not any(word in other and word != other for other in words))


def unit_text(frame: pd.DataFrame, **style: Any) -> str:
    """Of the numbers in print: points of a difference, percent of a level, nats of NLL; nothing where nobody says."""
    measures = set(frame["measure"]) if "measure" in frame else set()
    if measures == {"nll"}:
        return " nats"
    hundredths = "nll" not in measures if style.get("percent") is None else style["percent"]
    return "" if not hundredths else " points" if style.get("signed", True) else " %"


def rests_on(frame: pd.DataFrame) -> str:
    """What the intervals of some cells cover, and of how many examples, splits and trainings, or other units, the cells are."""
    known = frame.reindex(columns=["level", "covers", "examples", "splits", "seeds"])
    parts = []
    covers = list(dict.fromkeys(known["covers"].dropna()))
    if covers:
        levels = "/".join(f"{100 * level:.0f}" for level in known["level"].dropna().unique())
        sets = " or ".join(each.replace(", ", " and ") for each in covers)
        parts.append(f"{levels + ' % ' if levels else ''}intervals over other {sets}")
    for name, words in (("examples", "n = {}"), ("splits", "{} splits"), ("seeds", "{} " + repeated(covers))):
        if len(counts := known[name].dropna()) and counts.max() > 1:
            least, most = (f"{int(x):,}" for x in (counts.min(), counts.max()))
            parts.append(words.format(most if least == most else f"{least} to {most}"))
        elif name == "seeds" and len(counts):
            parts.append("one training" if len(frame) == 1 else "one training each")
    return f"; {', '.join(parts)}" if parts else ""


def repeated(covers: Sequence[str]) -> str:
    """What the seeds count, by what intervals cover: trainings, or other units such as networks; repetitions where nothing says.

    >>> repeated(["examples, networks"])
    'networks'
    """
    units = {unit for each in covers for unit in each.split(", ")} - {"examples", "splits"}
    return "trainings" if "trainings" in units else units.pop() if len(units) == 1 else "repetitions"


def grouped(template: str, frame: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """The cells by the names in a template: "{measure}_{variant}" gives one part for each measure of each variant."""
    fields = template_fields(template, frame)
    if not fields:
        yield template, frame
        return
    for _, part in frame.groupby(fields, sort=False, observed=True):
        yield template.format(**part.iloc[0].to_dict()), part


def template_fields(template: str, frame: pd.DataFrame) -> list[str]:
    """The names in a template; a ValueError lists those that the cells have if one is not among them."""
    fields = [field for _, field, _, _ in string.Formatter().parse(template) if field]
    if missing := [field for field in fields if field not in frame]:
        raise ValueError(f"{template!r} names {missing[0]!r}; the cells have {', '.join(map(str, frame))}")
    return list(dict.fromkeys(fields))


def names_of(frame: pd.DataFrame) -> list[str]:
    """The columns that name a cell."""
    return [str(name) for name in frame if name not in ABOUT]


def label(value: Any, labels: Mapping[Any, str] | None = None) -> str:
    """A name in print: as the labels have it, the name of a measure, or the value itself, with spaces."""
    if labels and value in labels:
        return labels[value]
    if value in MEASURES:
        return MEASURES[value].name
    return f"{value:g}" if isinstance(value, float) else str(value).replace("_", " ")


def _direction(frame: pd.DataFrame) -> str:
    """Which way is better, by the measure of the cells; empty if they have none or several that disagree."""
    known: Sequence[Any] = frame["measure"].unique() if "measure" in frame else ()
    ways = {MEASURES[name].higher_is_better for name in known if name in MEASURES}
    return (
        "" if len(ways) != 1 or len(known) != sum(n in MEASURES for n in known) else "higher" if ways.pop() else "lower"
    )


def _ends(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.reindex(columns=["low", "high"]).astype(float)
