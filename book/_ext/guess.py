"""Sphinx directive `guess`: a claim of the ledger for the reader to forecast, before the text says what was found.

    ```{guess} zhou2025-F5-ours
    ```

It shows what results/guesses.md, a computed page, has of that claim; nothing where no run has tried it.
"""

import re
from pathlib import Path

from docutils import nodes
from sphinx.util.docutils import SphinxDirective


class Guess(SphinxDirective):
    required_arguments = 1

    def run(self):
        path = Path(self.env.srcdir) / "results/guesses.md"
        self.env.note_dependency(str(path))
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        start = f'<div class="guess" data-claim="{re.escape(self.arguments[0])}"'
        found = re.search(rf"{start}.*?<!-- /guess -->", text, re.DOTALL)
        if not found:
            return []
        up = "../" * self.env.docname.count("/")
        return [nodes.raw("", found[0].replace('href="ledger.html', f'href="{up}ledger.html'), format="html")]


def setup(app):
    app.add_directive("guess", Guess)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
