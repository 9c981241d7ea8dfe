"""Sphinx extension of the book: MathJax from an installed wheel, and docstrings that are plain text.

No page asks the network for anything, so MathJax is copied beside the pages. Docstrings are written to be read in an
editor; what reStructuredText would take for markup in them is made literal.
"""

import re
import shutil
from importlib import metadata
from pathlib import Path

PARTS = ("tex-mml-chtml.js", "output/chtml/fonts/")
SECTIONS = ("Args:", "Returns:", "Raises:", "Source:", "Yields:")


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
    """Stars and bars as they stand, `code` as code, an indented block after an empty line as a listing."""
    out, before = [], ""
    for i, line in enumerate(lines):
        indent = len(line) - len(line.lstrip())
        last = next((text for text in reversed(lines[:i]) if text.strip()), "")
        deeper = line.strip() and indent >= 4 + len(last) - len(last.lstrip())
        if deeper and not before.strip() and last.strip() not in SECTIONS:
            out += ["::", ""]
        literal = out and "::" in [text.strip() for text in out[-40:]] and indent >= 4 and _in_listing(out)
        out.append(line if literal else _plain(line))
        before = line
    lines[:] = out


def _in_listing(out):
    for text in reversed(out):
        if text.strip() == "::":
            return True
        if text.strip() and not text.startswith("    "):
            return False
    return False


def _plain(line):
    code = re.split(r"(`+[^`]+`+)", line)
    return "".join(
        f"``{part.strip('`')}``" if i % 2 else re.sub(r"(?<!\\)([*|])", r"\\\1", part) for i, part in enumerate(code)
    )


def setup(app):
    app.connect("autodoc-process-docstring", plain_docstring, priority=100)  # before napoleon, which writes markup
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
