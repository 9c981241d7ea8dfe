"""Sphinx extension of the book: how long a page takes to read, measured; and a search that shows what it found.

    {minutes}`zhou2025/index`               the minutes of a page
    {minutes}`zhou2025/index, results/...`  those of several together

The search of Sphinx fetches a page to show where a word stands in it, which a browser refuses for files. So the text of all pages
lies beside them in a script that the search page alone loads.
"""

import json
import math
import shutil
from pathlib import Path

from docutils import nodes
from sphinx import addnodes

WORDS = 200  # a minute
FIGURE = 0.5  # minutes
DRAWN = ("<img", '<div class="moving"')  # in what a notebook shows
SHOWN = (nodes.paragraph, nodes.title, nodes.term, nodes.caption)
UNREAD = (nodes.table, addnodes.desc)
FOLDED = {"cell_input", "dropdown"}  # code, and what opens on a click
SEARCH, TEXTS = "book_search.js", "book_texts.js"


class minutes(nodes.General, nodes.Inline, nodes.Element):
    """Stands for the minutes of some pages until all pages are read."""


def role(name, rawtext, text, lineno, inliner, options=None, content=None):
    return [minutes(pages=[page.strip() for page in text.split(",")])], []


def prose(doctree):
    """What is read of a page, as nodes: its paragraphs and headings; no code, no table, nothing folded, no reference of a function."""
    for node in doctree.findall(lambda node: isinstance(node, SHOWN)):
        if not any(isinstance(each, UNREAD) or FOLDED & set(each.get("classes", ())) for each in above(node)):
            yield node


def above(node):
    """What a node stands in, from the inside."""
    while (node := node.parent) is not None:
        yield node


def plain(node):
    return " ".join(node.astext().split())


def count(doctree):
    """Words of prose and figures; a figure is a picture, or what a notebook draws or shows as HTML with a picture in it."""
    words = sum(len(plain(node).split()) for node in prose(doctree))
    drawn = sum(1 for node in doctree.findall(nodes.image)) + sum(
        sum(map(node.astext().count, DRAWN)) for node in doctree.findall(nodes.raw)
    )
    return words, drawn


def time_of(env, pages):
    """Minutes to read these pages, a whole number of at least one."""
    counted = [count(env.get_doctree(page)) for page in pages]
    return max(1, math.ceil(sum(words / WORDS + figures * FIGURE for words, figures in counted)))


def write_minutes(app, doctree, docname):
    for node in list(doctree.findall(minutes)):
        if lost := [page for page in node["pages"] if page not in app.env.found_docs]:
            raise ValueError(f"{docname} asks how long {', '.join(lost)} takes to read; the book has no such page")
        text = f"{time_of(app.env, node['pages'])}\u00a0min"
        node.parent.replace(node, nodes.Text(text))


def texts(doctree):
    """The prose of a page, part by part: the id that a result of the search may lead to, and the text below it."""
    parts = {"": []}
    for node in prose(doctree):
        here = next((each["ids"][0] for each in (node, *above(node)) if each.get("ids")), "")
        if isinstance(node.parent, nodes.definition):  # of a word of the glossary
            here = next((term["ids"][0] for term in node.parent.parent.findall(nodes.term) if term["ids"]), here)
        parts.setdefault(here, []).append(plain(node))
    return [[part, "\n".join(lines)] for part, lines in parts.items() if lines]


def write_texts(app, exception):
    """The prose of every page, as the search page shows it, and the script of that page."""
    if exception or app.builder.format != "html":
        return
    static = Path(app.outdir, "_static")
    shutil.copyfile(Path(__file__).with_name(SEARCH), static / SEARCH)
    found = {page: texts(app.env.get_doctree(page)) for page in sorted(app.env.found_docs)}
    text = json.dumps(found, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")
    (static / TEXTS).write_text(f"window.BOOK_TEXTS={text};\n", encoding="utf-8")


def for_the_search(app, pagename, templatename, context, doctree):
    """Only the search page pays for them, and only there are results put into an order."""
    if pagename == "search":
        app.add_js_file(SEARCH, priority=100)  # before Sphinx's, which then uses its Scorer
        app.add_js_file(TEXTS, priority=150)


def setup(app):
    app.add_node(minutes)
    app.add_role("minutes", role)
    app.connect("doctree-resolved", write_minutes)
    app.connect("html-page-context", for_the_search)
    app.connect("build-finished", write_texts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
