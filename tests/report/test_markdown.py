"""Whatever text from outside holds, a page shows it and never runs it: judged by the HTML that MyST makes of it."""

import html.parser

import docutils.core
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from myst_parser.parsers.docutils_ import Parser

from uqlib.book import notebooks, pages
from uqlib.evidence import records
from uqlib.evidence.ledger import Claim, Ledger, Reported, Row
from uqlib.evidence.verdicts import judge_ledger
from uqlib.report import markdown
from uqlib.report.computed import verdict_pages

# as in _config.yml
EXTENSIONS = [
    "amsmath",
    "attrs_inline",
    "colon_fence",
    "deflist",
    "dollarmath",
    "fieldlist",
    "html_image",
    "substitution",
]
HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a <svg/onload=alert(1)>",
    "<!-- hidden",
    "```{raw} html\n<script>alert(1)</script>\n```",
    "\n\n```{raw} html\n<script>alert(1)</script>\n```\n\n",
    "::: {raw} html\n<script>alert(1)</script>\n:::",
    "```\n```{raw} html\n<script>alert(1)</script>\n```",
    "[click](javascript:alert(1))",
    "[click](java&#115;cript:alert(1))",
    "![x](javascript:alert(1))",
    "<javascript:alert(1)>",
    "[a]: javascript:alert(1)\n[a]",
    '[x]{onclick="alert(1)"}',
    "{eval-rst}`x`",
    "{raw}`<script>alert(1)</script>`",
    "{{ 7 * 7 }} {{ ''.__class__.__mro__ }} {% for x in y %}",
    "$\\href{javascript:alert(1)}{x}$ and $$y$$",
    "| a | b |\n| --- | --- |\n| c | d |",
    "a | b",
    "`code` and ``two ` inside`` and `",
    "# heading\n\n---\n\n> quote",
    "(target)=\n# x",
    "% comment",
    ":name: value",
    "1. one\n2. two",
    "*stars* _lines_ ~~gone~~ \\ back",
    "&lt;script&gt; &amp; &#60;b&#62;",
    "tab\tnul\0 sep\u2028 rtl\u202e bell\x07",
    "</script></td></table></body>",
]
ACTIVE = {
    "script",
    "iframe",
    "object",
    "embed",
    "svg",
    "img",
    "form",
    "input",
    "link",
    "meta",
    "base",
    "style",
    "video",
}


class Page(html.parser.HTMLParser):
    """What of a page could run, and its text."""

    def __init__(self, page: str):
        super().__init__()
        self.active, self.text = [], ""
        self.feed(page.partition("<body")[2].partition(">")[2] or page)

    def handle_starttag(self, tag, attrs):
        odd = [
            name
            for name, value in attrs
            if name.startswith("on") or (value or "").strip().lower().startswith("javascript")
        ]
        if tag in ACTIVE or odd:
            self.active.append((tag, attrs))

    def handle_data(self, data):
        self.text += data


def page(source):
    settings = {"myst_enable_extensions": EXTENSIONS, "report_level": 5, "halt_level": 6, "embed_stylesheet": False,
                "output_encoding": "unicode", "file_insertion_enabled": False}  # fmt: skip
    return Page(docutils.core.publish_string(source, parser=Parser(), writer_name="html5", settings_overrides=settings))


def shown(text):
    """The text as a browser lets it be read: white space and what has no glyph are one space."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


@pytest.mark.parametrize("text", HOSTILE)
def test_text_stands_in_a_page_as_it_is_written(text):
    for frame in ("before {} after", "- {}", "{}"):
        found = page(frame.format(markdown.text(text)))
        assert not found.active
        assert shown(text) in shown(found.text)


@given(st.text(alphabet="ab1 `<>[](){}|$*_\\!&#:~^=-+.%'\"/\n\t", max_size=40))
@settings(max_examples=150)
def test_text_of_any_signs_stands_in_a_page_as_it_is_written(text):
    assert shown(f"x {text} y") == shown(page(f"x {markdown.text(text)} y").text)


@pytest.mark.parametrize("text", HOSTILE)
def test_code_and_listings_are_not_ended_from_within(text):
    assert shown(text) in shown(page(f"before {markdown.code(text)} after").text)
    found = page(f"before\n\n{markdown.block(text, 'sh')}\nafter")
    assert not found.active
    assert "<script>" not in text or "<script>alert(1)</script>" in found.text


@pytest.mark.parametrize("text", HOSTILE)
def test_a_table_of_a_notebook_keeps_emphasis_and_lets_nothing_run(text):
    for cell in (text, f"**{text}**", markdown.text(text)):
        source = markdown.table(["a", "b"], [[cell, "end"]])
        assert len(source.strip().splitlines()) == 3
        found = page(source)
        assert not found.active
        assert "49" not in found.text
        assert "end" in found.text


def test_emphasis_code_and_links_of_a_table_stay():
    source = markdown.table(["a"], [["**bold** `x < 1` [page](one.md) [web](https://a.b) $x^2$ {a}"]])
    assert "**bold** `x < 1` [page](one.md) [web](https://a.b) $x^2$ {a}" in source


@pytest.fixture(scope="module")
def hostile_record(tmp_path_factory):
    """A record with every hostile text in each field that takes a text."""
    run = records.start_run(
        "p2020/one", scale="smoke", parameters={"a": HOSTILE}, path=tmp_path_factory.mktemp("x") / "a.json"
    )
    for text in HOSTILE:
        run.add("change", -1.0, setting=text)
    body = records.read_record(run.save())
    every = " ".join(HOSTILE)
    made = body["provenance"] | {
        "device": every,
        "date": HOSTILE[0],
        "versions": dict.fromkeys(records.VERSIONS, every),
    }
    return {**body, "provenance": made}


def test_nothing_in_a_record_or_a_ledger_runs_in_a_computed_page(hostile_record):
    rows = tuple(
        Row(f"p2020-T{k}", text, not_testable=text, source=text, claims=(Claim(f"c{k}", text, "change", "< 0"),),
            reported=(Reported(text, text, 1.0, unit=text),))
        for k, text in enumerate(HOSTILE)
    )  # fmt: skip
    for text in (HOSTILE[0], HOSTILE[5], HOSTILE[8]):
        book = Ledger("p2020", text, "key", rows)
        for source in (
            verdict_pages.ledger_page(book, hostile_record["results"]),
            verdict_pages.summary_page([judge_ledger(book, hostile_record["results"])]),
            pages.runs_page([hostile_record]),
        ):
            found = page(source)
            assert not found.active
            assert "alert(1)" in found.text


def test_nothing_in_a_notebook_runs_in_the_page_of_parameters_or_beside_its_copy(tmp_path):
    import nbformat

    body = nbformat.v4.new_notebook()
    lines = [f"p{k} = {text!r}  # {' '.join(text.split())}" for k, text in enumerate(HOSTILE) if "\0" not in text]
    body.cells = [nbformat.v4.new_code_cell("\n".join(lines), metadata={"tags": ["parameters"]})]
    path = tmp_path / "x.ipynb"
    nbformat.write(body, path)
    given = {f"p{k}": text for k, text in enumerate(HOSTILE) if "\0" not in text}
    for source in (pages.parameters_page([path]), notebooks.how_to_repeat(path, given, "x.ipynb")):
        found = page(source)
        assert not found.active
        assert "alert(1)" in found.text
