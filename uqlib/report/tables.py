"""Tables: data frames of results with a caption, names in print, and their data as CSV behind a link."""

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from html import escape
from typing import Any

from uqlib.base.extras import named
from uqlib.evidence.ledger import Row
from uqlib.report.telling import NOTHING, in_print, label, names_of, number_text, template_fields

with named():
    import pandas as pd


NUMBER = re.compile(r"\d+(?:\.\d+)?")
INTERVAL = re.compile(r"(<td>[^<\[]*\d) (\[[^<\]]*\])</td>")  # of a cell in print


class Shown:
    """Something with a caption and its data as CSV, as a notebook and the book show it."""

    def __init__(self, html: str, *, name: str, data: pd.DataFrame | None, plain: str, made: str = ""):
        """Args: html, name of the file with the data, data, the same without HTML, and `made`: HTML that says by what."""
        line = " · ".join(part for part in (made, _csv_link(name, data)) if part)
        self._html, self._plain = html + (f'<p class="made">{line}</p>' if line else ""), plain

    def _repr_html_(self) -> str:
        return f'<div class="shown">{self._html}</div>'

    def __repr__(self) -> str:
        return self._plain


def show_table(
    frame: pd.DataFrame, *, caption: str = "", name: str = "table", data: pd.DataFrame | None = None, digits: int = 2,
    fold: bool = False, made: str = "",
) -> Shown:  # fmt: skip
    """A data frame of texts and numbers as a table; what it holds is shown as the characters that it is.

    Args:
        frame: what is shown; its index stands at the left, unless it only counts.
        caption: above it.
        name: of the file with the data.
        data: what the file holds; the frame itself by default.
        digits: of numbers that are no whole ones.
        fold: whether a box above the table shows and hides the intervals, which need no script for it; print shows them.
        made: HTML of the line below: by what, and what the numbers rest on.
    """
    index = not isinstance(frame.index, pd.RangeIndex)
    style = {"index": index, "na_rep": "–", "float_format": partial(number_text, digits=digits)}
    shown = frame.rename(columns=lambda name: name.replace("_", " ") if isinstance(name, str) else name)
    html = shown.to_html(classes="numbers", border=0, index_names=False, **style)
    html = html.replace("<thead>", f"<caption>{escape(caption)}</caption><thead>", 1) if caption else html
    if fold and (parts := INTERVAL.subn(r"\1<small> \2</small></td>", html))[1]:
        html = f'<label class="ends"><input type="checkbox"> intervals</label>{parts[0]}'
    return Shown(html, name=name, data=frame.reset_index() if data is None and index else frame if data is None else data,
                 plain=f"{caption}\n{frame.to_string(**style)}".strip(), made=made)  # fmt: skip


def spread(
    frame: pd.DataFrame,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    labels: Mapping[Any, str] | None = None,
    **style: Any,
) -> pd.DataFrame:
    """Cells as a table of texts, rows and columns in the order in which they come.

    Args:
        frame: of `compare.cells`; a column `paper`, if there is one, stands before ours where it has anything to say.
        rows, columns: the names of the cells that lead down and across.
        labels: names in print, by value.
        style: of `telling.in_print`.

    Raises:
        ValueError: if a name is none of the cells', or two cells meet in one place of the table.
    """
    for name in (*rows, *columns):
        template_fields(f"{{{name}}}", frame)
    if not len(frame):
        return pd.DataFrame({"": [NOTHING]})
    places = [*rows, *columns]
    if (twice := frame.duplicated(places)).any():
        left = [name for name in names_of(frame) if name not in places and frame[name].nunique() > 1]
        at = ", ".join(str(frame.loc[twice.idxmax(), name]) for name in places)
        raise ValueError(
            f"two cells stand at {at}; select one, or add {' or '.join(left) or 'a name'} to rows or columns"
        )
    parts = {"": in_print(frame, **style)} | ({"paper": frame["paper"].tolist()} if "paper" in frame else {})
    texts = pd.concat([frame[places].assign(part=part, text=text) for part, text in parts.items()])
    wide = texts.pivot(index=list(rows), columns=[*columns, "part"], values="text")
    down = pd.MultiIndex.from_frame(frame[list(rows)].drop_duplicates())
    across = frame[list(columns)].drop_duplicates().itertuples(index=False)
    order = [(*place, part) for place in across for part in reversed(parts)]
    order = [place for place in order if place[-1] != "paper" or (wide[place].fillna("–") != "–").any()]
    wide = wide.reindex(
        index=down if len(rows) > 1 else down.get_level_values(0), columns=pd.MultiIndex.from_tuples(order)
    )
    wide.columns = [
        ", ".join(x for x in (*(label(p, labels) for p in place[:-1]), place[-1]) if x) or "ours" for place in order
    ]
    wide.index = [
        " · ".join(label(p, labels) for p in (key if isinstance(key, tuple) else (key,))) for key in wide.index
    ]
    return wide


def with_paper(
    frame: pd.DataFrame, row: Row, setting: str, quantity: str = "{measure}", minus: str = ""
) -> pd.DataFrame:
    """The cells with a column `paper`: what a row of the ledger reports for each, a dash where it reports nothing.

    Args:
        frame: of `compare.cells`.
        row: of the ledger.
        setting, quantity: templates of names, such as "CIFAR-10: {variant}"; measures come by their names in print.
        minus: template of the setting whose number is taken off, where the cells are differences.

    Raises:
        ValueError: if a template names what the cells do not have.
    """
    known = {(number.setting, number.quantity): number for number in row.reported}
    for template in (setting, quantity, minus):
        template_fields(template, frame)

    def reported(cell: dict[str, Any]) -> str:
        words = cell | ({"measure": label(cell["measure"])} if "measure" in cell else {})
        pair = [known.get((each.format(**words), quantity.format(**words))) for each in (setting, minus) if each]
        if not all(pair):
            return "–"
        first, *other = (number for number in pair if number)
        return f"{first.value - other[0].value:+.{first.decimals}f}".replace("-", "−") if other else str(first)

    return frame.assign(paper=[reported(cell) for cell in frame.to_dict("records")])


def and_paper(frame: pd.DataFrame, rows: Sequence[Row], setting: str, minus: str) -> pd.DataFrame:
    """Cells of differences, and after them what rows of the ledger report in their place, as measures of the paper.

    Args:
        frame: of `compare.cells`, in fractions.
        rows: of the ledger, in percent. What they report has no interval.
        setting, minus: as of `with_paper`.
    """
    parts = [frame]
    for row in rows:
        told = with_paper(frame, row, setting, minus=minus).query("paper != '–'")
        value = told["paper"].str.replace("−", "-").astype(float) / 100
        parts.append(told[names_of(told)].assign(value=value, measure="paper: " + told["measure"].map(label)))
    return pd.concat(parts, ignore_index=True)


def reported_frame(row: Row, pattern: str = "") -> pd.DataFrame:
    """The numbers that a row of the ledger reports, as cells without intervals; named groups of a pattern split the setting."""
    frame = pd.DataFrame([{"setting": n.setting, "quantity": n.quantity, "value": n.value, "paper": str(n), "unit": n.unit}
                          for n in row.reported])  # fmt: skip
    return frame.join(frame["setting"].str.extract(pattern)) if pattern else frame


def in_order(names: Iterable[str]) -> list[str]:
    """Names that differ in a number alone by that number, others as they come.

    >>> in_order(["epoch 0", "epoch 199", "epoch 20"])
    ['epoch 0', 'epoch 20', 'epoch 199']
    >>> in_order(["epoch 7", "at the end", "epoch 3"])
    ['epoch 7', 'at the end', 'epoch 3']
    """
    listed = list(names)
    parts = [NUMBER.split(name) for name in listed]
    if any(len(part) != 2 or part != parts[0] for part in parts):
        return listed
    return sorted(listed, key=lambda name: float(NUMBER.findall(name)[0]))


def _csv_link(name: str, data: pd.DataFrame | None) -> str:
    if data is None:
        return ""
    body = base64.b64encode(data.to_csv(index=False).encode()).decode()
    return f'<a class="csv" download="{escape(name)}.csv" href="data:text/csv;base64,{body}">data (CSV)</a>'
