"""Sphinx extension: MathJax out of an installed wheel, so that no page asks the network for anything."""

import shutil
from importlib import metadata
from pathlib import Path

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


def setup(app):
    app.connect("build-finished", copy_mathjax)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
