"""Sphinx extension of the book: definitions by hover, focus and tap, out of the glossary, without a script.

The first mention of a word of the glossary on each page, and every {term}, becomes a link to its entry that bears the first sentences
of the definition. The link is an ordinary one: where nothing hovers it leads there. A common word that means something
else as well is linked only where the text asks for it by {term}.
"""

import re
from functools import cache
from html import escape

from docutils import nodes
from sphinx.util.osutil import relative_uri

GLOSSARY = "glossary"
ASKED = {"balance", "base", "claim", "confidence", "draw", "features", "frozen", "open", "points", "risk", "seed", "split", "interval",
         "coverage", "accuracy", "paired", "matched", "entropy", "confirmed", "undecided", "contradicted", "verdict", "temperature",
         "pretrained", "recalibrated", "calibration", "unweighted", "ledger"}  # fmt: skip
UNTOUCHED = (
    nodes.reference,
    nodes.literal,
    nodes.literal_block,
    nodes.title,
    nodes.raw,
    nodes.math,
    nodes.math_block,
    nodes.term,
)
WITHOUT = re.compile(r"glossary|genindex|results/api/.*")  # pages that are reference themselves


def definitions(app):
    """By term its anchor and its definition as plain text, up to what links on."""
    if GLOSSARY not in app.env.found_docs:
        return {}
    found = {}
    for item in app.env.get_doctree(GLOSSARY).findall(nodes.definition_list_item):
        for term in item.findall(nodes.term):
            name = term.astext()
            text = " ".join(item.next_node(nodes.definition).astext().split())
            found[name] = (term["ids"][0], re.sub(r"\s*See the? [^.]*\.$|\s*See [^.]*\.$", "", text))
    return found


def mark(app, doctree, docname):
    """Hints on every {term} and on first mentions of a page."""
    if not (known := cached(app)) or app.builder.format != "html":
        return
    target = relative_uri(app.builder.get_target_uri(docname), app.builder.get_target_uri(GLOSSARY))
    anchors = {f"#{anchor}": name for name, (anchor, _) in known.items()}
    said = set()
    for link in list(doctree.findall(nodes.reference)):  # a {term} that Sphinx has resolved
        name = anchors.get("#" + link.get("refuri", "").partition(f"{GLOSSARY}.html#")[2] or link.get("refid", ""))
        if name and docname != GLOSSARY:
            said.add(name)
            link.parent.replace(link, hint(link.astext(), name, known, target))
    if WITHOUT.fullmatch(docname):
        return
    words = pattern(tuple(name for name in known if name not in ASKED))
    for text in list(doctree.findall(nodes.Text)):
        if in_prose(text) and (parts := marked(str(text), words, said, known, target)):
            text.parent.replace(text, parts)


@cache
def pattern(names):
    """Any of these words: one without a capital may begin a sentence, and be many."""
    longest = sorted(names, key=len, reverse=True)
    each = [
        re.escape(name) if name[0].isupper() else f"[{name[0]}{name[0].upper()}]{re.escape(name[1:])}"
        for name in longest
    ]
    return re.compile(rf"(?<![\w-])(?:{'|'.join(each)})s?(?![\w-])")


def named_in(word, known):
    """The term that a word of the text is."""
    forms = (word, word[0].lower() + word[1:], word.removesuffix("s"), word[0].lower() + word[1:].removesuffix("s"))
    return next(form for form in forms if form in known)


def in_prose(text):
    above = text.parent
    prose = False
    while above is not None:
        if isinstance(above, UNTOUCHED):
            return False
        prose |= isinstance(above, nodes.paragraph)
        above = above.parent
    return prose


def marked(text, words, said, known, target):
    """The text as nodes, with hints on what was not yet said; nothing if there is none."""
    parts, end = [], 0
    for found in words.finditer(text):
        name = named_in(found[0], known)
        if name not in said:
            said.add(name)
            parts += [nodes.Text(text[end : found.start()]), hint(found[0], name, known, target)]
            end = found.end()
    return parts and [*parts, nodes.Text(text[end:])]


def hint(word, name, known, target):
    """A link that bears its description; in an attribute, so that the search finds the word and not what it means everywhere."""
    anchor, text = known[name]
    link = f'<a class="term" href="{target}#{anchor}" aria-description="{escape(text)}">{escape(word)}</a>'
    return nodes.raw("", link, format="html")


def cached(app):
    if not hasattr(app, "terms_of_the_book"):
        app.terms_of_the_book = definitions(app)
    return app.terms_of_the_book


def setup(app):
    app.connect("doctree-resolved", mark, priority=900)  # after what writes numbers into the text
    return {"parallel_read_safe": True, "parallel_write_safe": True}
