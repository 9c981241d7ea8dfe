"""Sphinx extension of the book: MathJax from an installed wheel, docstrings that are plain text, a dash for what was not measured.

No page asks the network for anything, so MathJax is copied beside the pages: the parts that draw, and none that would let a
formula hold a link (`\\href` and its kin lie in other files of the wheel). Docstrings are written to be read in an
editor; what reStructuredText would take for markup in them is made literal.
"""

import re
import shutil
from importlib import metadata
from pathlib import Path

from myst_nb.ext.glue import roles

PARTS = ("tex-mml-chtml.js", "output/chtml/fonts/")


def copy_mathjax(app, exception):
    if exception or app.builder.format != "html":
        return
    for file in metadata.files("sphinx-mathjax-offline"):
        _, found, part = file.as_posix().partition("static/mathjax/")
        if found and part.startswith(PARTS):
            target = Path(app.outdir) / "_static/mathjax" / part
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.locate(), target)


def plain_docstring(app, what, name, obj, options, lines):
    """Stars and bars as they stand, `code` as code, an indented block after an empty line as a listing; examples untouched."""
    out, margin, listing, example = [], 0, False, False
    for before, line in zip(["", *lines], lines, strict=False):
        indent = len(line) - len(line.lstrip())
        if line.strip():
            deeper = indent >= margin + 4
            if deeper and not listing and not before.strip():
                out += [f"{' ' * margin}::", ""]
                listing = True
            elif not deeper:
                listing = False
            margin = margin if listing else indent
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))  # and what it prints
        out.append(line if listing or example else _plain(line))
    lines[:] = out


def _plain(line):
    return re.sub(r"`+([^`]+)`+|(?<!\\)([*|]|(?<=\w)_(?!\w))", lambda m: f"``{m[1]}``" if m[1] else f"\\{m[2]}", line)


def measured(text, spec, format_plain_text=roles.format_plain_text):
    """A glued number in the format that the page asks for; one that no run has measured is an en dash, not a 0."""
    return "–" if re.fullmatch(r"(np\.float64\()?nan\)?", text) else format_plain_text(text, spec)


def defer_scripts(app, config):
    """Jupyter Book puts every script of _static into the head of every page; none of them may hold the page up."""
    config.html_js_files = [(name, {"defer": "defer"}) for name in config.html_js_files]


def read_side_by_side(app, config):
    """An extension that does not say so can be there too: it numbers sections when all pages have been read."""
    app.extensions["sphinx_multitoc_numbering"].parallel_read_safe = True


def setup(app):
    roles.format_plain_text = measured
    app.connect("config-inited", defer_scripts)
    app.connect("config-inited", read_side_by_side)
    app.connect("autodoc-process-docstring", plain_docstring, priority=100)  # before napoleon, which writes markup
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
