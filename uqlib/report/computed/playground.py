"""Pages on which the reader plays: a forecast of each finding before it is shown, and an example of a file to drop.

guess.js and drop.js of the book make them move; without them the findings are folded, and can be read.
"""

import csv
import hashlib
import html
import io
import re
from collections.abc import Iterable, Sequence

from uqlib.base.arrays import Column, as_tensor
from uqlib.evidence.verdicts import TRIED, VERDICTS, JudgedLedger, Verdict
from uqlib.report.computed.verdict_pages import MARKS, target
from uqlib.report.telling import counted

REFERS = re.compile(r"\b(same|they|it|its|so|these|nor|either)\b", re.IGNORECASE)  # to a claim before it
LONGEST = 170  # of a claim in characters

GUESS = """<div class="guess" data-claim="{id}" data-came="{came}">
<p class="guess-claim">{claim}</p>
<details><summary>What was found</summary><p><b>{mark}</b>: {meaning}. {held} <a href="ledger.html#{anchor}">The evidence</a></p></details>
</div><!-- /guess -->"""

DROP = """<div class="drop moving">
<div class="drop-zone"><label>Choose a CSV file, or drop it here <input type="file" accept=".csv,.tsv,.txt,text/csv"></label>
<p><button type="button" class="drop-example">Try the example</button> <a class="drop-save" download="answers.csv">Save the example</a></p></div>
<p class="mv-still">The file is read by a script of this page, which does not run here. This is how such a file begins:</p>
<pre class="mv-still">{head}</pre>
<script type="text/csv">{text}</script>
</div>"""


def guesses(judged: Sequence[JudgedLedger]) -> list[Verdict]:
    """The claims that a reader can forecast: tried, said without another one, one for each finding, in an order of chance."""
    found: dict[tuple[str, str], Verdict] = {}
    for each in judged:
        for v in each.verdicts:
            alone = not REFERS.search(v.claim.text) and len(v.claim.text) <= LONGEST
            if v.verdict in TRIED and alone:
                found.setdefault((each.ledger.paper, v.claim.fact or v.claim.quantity), v)
    return sorted(found.values(), key=lambda v: hashlib.sha256(v.claim.id.encode()).digest())


def guesses_page(judged: Sequence[JudgedLedger]) -> str:
    """Every claim that a reader can forecast, with its verdict folded away; HTML in Markdown."""
    return "\n".join(f"```{{raw}} html\n{guess_html(v)}\n```\n" for v in guesses(judged))


def guess_html(v: Verdict) -> str:
    """One claim and, folded, what was found; `data-came` is whether it was confirmed."""
    k = len(v.results)
    held = f"By value it holds in {v.likely} of {counted(k, 'settings')}, for certain in {v.certain}."
    return GUESS.format(
        id=v.claim.id,
        came=int(v.verdict == "confirmed"),
        claim=re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(v.claim.text)),
        mark=MARKS[v.verdict],
        meaning=html.escape(VERDICTS[v.verdict]),
        held=held,
        anchor=target(v.claim.id),
    )


def drop_html(answers: Iterable[tuple[Column, Column]], groups: Sequence[str]) -> str:
    """The form of the page that reads a file, and an example of one: confidence and correct of one or two models, a group a row."""
    columns = [as_tensor(column).tolist() for pair in answers for column in pair]
    names = ["confidence", "correct", "confidence_2", "correct_2"][: len(columns)]
    told = io.StringIO()
    writer = csv.writer(told, lineterminator="\n")
    writer.writerow([*names, "group"])
    for *row, group in zip(*columns, groups, strict=True):
        writer.writerow([*(f"{x:.5f}" if isinstance(x, float) else int(x) for x in row), group])
    text = told.getvalue()
    head = "\n".join(text.split("\n")[:4])
    return f"```{{raw}} html\n{DROP.format(head=html.escape(head), text=text.replace('<', ''))}\n```\n"
