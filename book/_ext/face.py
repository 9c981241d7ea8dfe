"""Sphinx extension of the book's face: short titles, cards for sharing, tables that scroll in a box of their own, light pages.

The theme brings 2.4 MB to every page, of which a page uses a tenth. After the build each page loses the scripts that it does not
need (icons drawn by a script, the search index, MathJax without mathematics), and the theme's style sheets lose the rules whose
classes no page and no script has. The icons are in book.css.
"""

import html
import re
import shutil
import tomllib
from pathlib import Path

from docutils import nodes

from uqlib.report.computed import cover

SHORT = "Trusted?"  # the book's name behind the title of a page
QUESTION = "How far can a pretrained vision model be trusted?"
SUMMARY = "A network says “cat, 93 % sure”. When may you believe the 93? Papers that promise an answer, run again on real images."
VENDOR = (
    "styles/pydata-sphinx-theme.css",
    "styles/sphinx-book-theme.css",
    "sphinx-design.min.css",
    "mystnb.*.css",
    "basic.css",
)
OTHERS = ("searchindex.js", "mathjax", "fontawesome.js")  # scripts whose words are no names of classes
SAID = {  # what the theme leaves without a name, and a role that there is no more
    ' role="doc-biblioentry"': "",
    ' role="list" class="citation-list"': ' class="citation-list"',
    '<div id="pst-primary-sidebar" ': '<div id="pst-primary-sidebar" role="complementary" aria-label="Book" ',
    '<summary><span class="toctree-toggle"': '<summary aria-label="Its pages"><span class="toctree-toggle"',
}
SEARCH = re.compile(r'\s*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*"></script>')
ICONS = re.compile(r"\s*<!-- So that users can add custom icons -->\s*<script[^>]*fontawesome\.js[^>]*></script>")
NEEDED = {  # files that only some pages need, by what those hold
    "copybutton|clipboard": 'class="highlight', "design-tabs": "sd-tab-", "togglebutton|toggleHint|toggleOpen": 'admonition[^"]*dropdown|class="[^"]*(?:tag_hide|toggle )',
    r"_static/moving\.": r'class="(?:[^"]*\bmoving\b|guess)', r"_static/drop\.": 'class="drop ', r"_static/guess\.": 'class="guess',
    "mathjax/|>window.MathJax = ": 'class="(?:math|amsmath)',
}  # fmt: skip
FILES = r"\s*<(?:script|link)\b[^\n]*(?:{})[^\n]*>(?:[^\n]*</script>)?(?=\n)"
MODE = 'localStorage.getItem("theme") || "auto"'
SEEN = 'localStorage.getItem("theme") || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")'
TABLE = re.compile(r'<table(?:\s+class="(?:table|docutils|dataframe)\b[^"]*"|(?!\s+class)[^>]*)[^>]*>.*?</table>', re.S)
CELL = re.compile(r"<(t[dh])\b([^>]*)>(.*?)</\1>", re.S)
ENDS = re.compile(r" (\[[^\]<]*\])(?=\s*(?:</p>)?\s*$)")
NUMBER = re.compile(r"[+−±-]?[\d.,]+(?: ?(?:%|s|h|MB|px|k|M))?(?: \[[^\]]*\])?(?: ?± ?[\d.]+)?")
SPLIT = r' <span class="ends">\1</span>'  # an interval may stand under its number, and is not broken
PICTURE = re.compile(r'<img\b[^>]*\bsrc="([^"]*_images/)([^"]+\.svg)"[^>]*>')
LISTED = re.compile(r"(?:[^,(]|\((?:[^()]|\([^()]*\))*\))+")  # selectors between commas


def prepare(app, config):
    """A colour mode before the first script asks for it, and the repository that pyproject.toml names, if it names one."""
    config.html_context.setdefault("default_mode", "auto")
    project = tomllib.loads((Path(app.srcdir).parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    if url := project.get("urls", {}).get("Repository"):
        config.html_theme_options |= {"repository_url": url, "use_repository_button": True}


def without_thebe(app, config):
    """No code of a page is run by a server; the extension would name one on every page, twice."""
    app.registry.css_files[:] = [each for each in app.registry.css_files if "thebe" not in each[0]]
    for listeners in app.events.listeners.values():
        listeners[:] = [each for each in listeners if not each.handler.__module__.startswith("sphinx_thebe")]


def dress(app, pagename, templatename, context, doctree):
    """Title, description and card of a page, and its tables in boxes."""
    title = html.unescape(re.sub("<[^>]+>", "", context.get("title", "")))
    first = pagename == app.config.root_doc
    summary = SUMMARY if first else _summary(doctree) or SUMMARY
    context["docstitle"] = ""
    context["title"] = QUESTION if first else f"{title} · {SHORT}"
    card = (
        app.config.html_baseurl + "_static/card.png"
        if app.config.html_baseurl
        else context["pathto"]("_static/card.png", 1)
    )
    about = {"og:title": QUESTION if first else title, "og:description": summary, "og:type": "book" if first else "article",
             "og:site_name": QUESTION, "og:image": card, "og:image:alt": QUESTION}  # fmt: skip
    named = {"description": summary, "twitter:card": "summary_large_image", "color-scheme": "light dark"}
    tags = [f'<meta property="{name}" content="{html.escape(text)}" />' for name, text in about.items()]
    tags += [f'<meta name="{name}" content="{html.escape(text)}" />' for name, text in named.items()]
    context["metatags"] = context.get("metatags", "") + "\n" + "\n".join(tags)
    if "body" in context:
        context["body"] = TABLE.sub(lambda m: f'<div class="wide">{aligned(m[0])}</div>', context["body"])


def aligned(table):
    """A table whose columns of numbers alone stand at the right, each under its head; one with joined cells stays as it is."""
    if re.search("(?:col|row)span", table):
        return table
    rows = [CELL.findall(row) for row in re.findall(r"<tr.*?</tr>", table, re.S)]
    texts = [[html.unescape(re.sub("<[^>]+>", "", inner)).strip() for *_, inner in row] for row in rows]
    body = [text for row, text in zip(rows, texts, strict=True) if any(tag == "td" for tag, *_ in row)]
    wide = max(map(len, texts), default=0)
    columns = [[row[k] for row in body if len(row) == wide] for k in range(wide)]
    numbers = [any(NUMBER.fullmatch(text) for text in column) and all(NUMBER.fullmatch(text) or text in ("", "–") for text in column)
               for column in columns]  # fmt: skip

    def row(match):
        count = iter(numbers if len(CELL.findall(match[0])) == wide else [False] * wide)
        return CELL.sub(
            lambda m: (
                f'<{m[1]} class="num"{m[2]}>{ENDS.sub(SPLIT, m[3])}</{m[1]}>'
                if next(count) and "class=" not in m[2]
                else m[0]
            ),
            match[0],
        )

    table = re.sub(r"<tr.*?</tr>", row, table, flags=re.S)
    return re.sub(r"<th\b[^>]*>(?:<p></p>)?\s*</th>", "<td></td>", table)  # a head that says nothing is none


def _summary(doctree):
    """The first paragraph of a page that says something, cut at a word."""
    for each in doctree.findall(nodes.paragraph) if doctree else ():
        text = " ".join(each.astext().split())
        if len(text) > 60 and isinstance(each.parent, nodes.section):
            return text if len(text) <= 200 else text[:200].rpartition(" ")[0] + " …"
    return ""


def slim(app, exception):
    """Take from every page what it does not use, then from the style sheets what no page uses."""
    if exception or app.builder.format != "html":
        return
    out, used = Path(app.outdir), set()
    twins = _copy_twins(app, out / "_images")
    for path in out.rglob("*.html"):
        if "_static" not in path.parts:
            page = (
                ICONS.sub("", path.read_text(encoding="utf-8"))
                .replace(MODE, SEEN)
                .replace('data-theme="auto"', 'data-theme="light"', 1)
            )
            page = page if path.name == "search.html" else SEARCH.sub("", page)
            body = page.partition("<body")[2]
            for name, needle in NEEDED.items():
                page = page if re.search(needle, body) else re.sub(FILES.format(name), "", page)
            for before, after in SAID.items():
                page = page.replace(before, after)
            page = PICTURE.sub(lambda m: _picture(m, twins), page)
            path.write_text(page, encoding="utf-8")
            used.update(name for names in re.findall(r'\bclass="([^"]*)"', page) for name in names.split())
    for path in (out / "_static").rglob("*.js"):
        if not any(other in path.as_posix() for other in OTHERS):
            used.update(re.findall(r"[\w-]+", path.read_text(encoding="utf-8")))
    for path in (path for pattern in VENDOR for path in (out / "_static").glob(pattern)):
        text = path.read_text(encoding="utf-8")
        licences = re.findall(r"/\*!.*?\*/", text, re.S)
        path.write_text(
            "\n".join([*licences, used_rules(re.sub(r"/\*.*?\*/", "", text, flags=re.S), used)]), encoding="utf-8"
        )
    cover.draw_card(out / "_static/card.png", QUESTION.replace("vision", "\nvision"), SHORT)
    for path in [*(out / "_static").rglob("*.map"), out / "_static/scripts/fontawesome.js"]:
        path.unlink(missing_ok=True)


def _copy_twins(app, images):
    """The narrow twin of each figure of the book that has one, beside it; their names."""
    found = {}
    for source, (_, name) in app.env.images.items():
        if (twin := (Path(app.srcdir) / source).with_suffix(".narrow.svg")).is_file():
            found[name] = name.removesuffix(".svg") + ".narrow.svg"
            shutil.copyfile(twin, images / found[name])
    return found


def _picture(image, twins):
    """An image, or where it has a twin, the two of which a screen takes the one that fits."""
    folder, name = image[1], image[2]
    phone = f'<source media="(max-width: 600px)" srcset="{folder}{twins[name]}" />' if name in twins else ""
    return f"<picture>{phone}{image[0]}</picture>" if phone else image[0]


def used_rules(css, used):
    """The rules of a style sheet whose selectors name no class that is not used; icons' classes never are."""
    out, at = [], 0
    while (brace := css.find("{", at)) >= 0:
        depth, end = 1, brace + 1
        while depth:
            depth += {"{": 1, "}": -1}.get(css[end], 0)
            end += 1
        statements, _, head = css[at:brace].rpartition(";")
        body, at = css[brace + 1 : end - 1], end
        out += [statements.strip() + ";"] if statements.strip() else []
        if (head := head.strip()).startswith(("@media", "@supports")):
            body = used_rules(body, used)
        elif head.startswith("@"):
            body = "" if "Awesome" in body else body
        else:
            head = ",".join(each.strip() for each in LISTED.findall(head) if _is_used(each, used))
        out += [f"{head}{{{body}}}"] if head and body else []
    return "".join(out)


def _is_used(selector, used):
    classes = re.findall(r"\.(-?[A-Za-z_][\w-]*)", re.sub(r"\((?:[^()]|\([^()]*\))*\)", "", selector))
    return all(name in used and not re.fullmatch("fa[srbl]?|fa-.*", name) for name in classes)


def setup(app):
    app.connect("config-inited", prepare)
    app.connect("config-inited", without_thebe)
    app.connect("html-page-context", dress, priority=900)
    app.connect("build-finished", slim, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
