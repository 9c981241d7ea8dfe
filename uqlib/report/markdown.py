"""Markdown that is computed: text from outside stands in a page as the characters that it is, and never runs there.

A setting, a claim, a class name, the device of a record: whoever wrote it, it may hold HTML, a link, mathematics or a role
of MyST. `text` and `code` take their meaning away; a table of the book takes away what could run, and leaves the
emphasis that a notebook writes into its cells.
"""

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

MEANT = re.compile(r"[\\`*_{}\[\]~$|]")  # what Markdown or MyST reads as more than a character
CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
LINK = re.compile(r"\]\((?!https?://|#|[\w./-]*\))")  # that leads neither to the web nor to a page
START = re.compile(r"(\d*)([-+.)(:=#%])")  # of a list, a heading, a directive, a target, a comment


def text(value: Any, *, spans: bool = False) -> str:
    """One line of Markdown that shows the value as it is written.

    Args:
        value: anything; line breaks and characters without a glyph become spaces.
        spans: `code` between single backticks is shown as code, as in the prose of a ledger.
    """
    line = _one_line(value)
    parts = CODE.split(line) if spans else [line]
    escaped = "".join(code(part) if k % 2 else _escaped(part) for k, part in enumerate(parts))
    return START.sub(r"\1\\\2", escaped, count=1) if START.match(escaped) else escaped


def code(value: Any) -> str:
    """The value as inline code, whatever backticks it holds."""
    line = _one_line(value)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    pad = " " if not line.strip() or line[0] in "` " or line[-1] in "` " else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def html_line(value: Any) -> str:
    """The value as one line of HTML, for a part of a page that is written as such; `code` between single backticks is code."""
    parts = CODE.split(_one_line(value))
    return "".join(f"<code>{escape(part)}</code>" if k % 2 else escape(part) for k, part in enumerate(parts))


def block(value: str, language: str = "") -> str:
    """A listing that no line of it can end."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", value)), default=0))
    return f"{fence}{language}\n{value}\n{fence}\n"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table. Cells are Markdown, less what could run: HTML is shown as text, roles and substitutions lose their braces' meaning.

    Text from outside goes through `text` first, if its stars and dollars are to be shown too.
    """
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines) + "\n"


def _cell(value: Any) -> str:
    line = _one_line(value)
    line = re.sub(r"<(?=[A-Za-z/!?])", "&lt;", line)
    line = re.sub(r"\\(href|url|require|unicode|cssId|class|style|html\w*)(?![A-Za-z])", r"\\mathrm{\1}", line)
    line = LINK.sub(r"]\\(", line)
    line = re.sub(r"(?<!\\)\{(?=[^{}`]*\}`|[{%#])", r"\\{", line)  # {role}`...` and {{ substitution }}
    return re.sub(r"(?<!\\)\|", r"\\|", line)


def _escaped(line: str) -> str:
    line = line.replace("&", "&amp;")
    line = MEANT.sub(r"\\\g<0>", line)
    return line.replace("<", "&lt;").replace(">", "&gt;")


def _one_line(value: Any) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in str(value)).split(" ")).strip()
