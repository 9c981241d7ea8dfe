"""Sphinx extension of the book: what stands behind a number, a figure, a verdict is one move away from it.

- A number that a page takes from a run is a link to a list at the end of the page, which says its cells, what the interval covers, n,
  the paper's number and the command. It reads without a script, and prints; evidence.js shows the same text beside the number.
- A figure of a run has a line *made by*, wherever it stands.
- *In short* opens a page: the finding, the verdicts as links to the rows of the ledger, one picture.
- All code of a page is folded, and one switch opens it.
"""

import ast
import base64
import functools
import json
import re
import tomllib
from html import escape, unescape
from pathlib import Path
from types import MappingProxyType

from docutils import nodes
from myst_nb.ext.glue import crossref, domain, roles
from sphinx.util.docutils import SphinxDirective

from uqlib.evidence.ledger import read_ledger
from uqlib.report.computed.verdict_pages import paper_links
from uqlib.report.telling import agreeing, counted

BEHIND = "§"  # ends the name of what stands behind a fact; uqlib.report.verbs gives it
FIGURE = re.compile(r"results/(\w+/\w+)\.figures/([\w.-]+)\.svg$")
NUMBER = re.compile(r"(?<![\w-])[+−]?\d[\d.,]*(?![\w-])")  # not that of ResNet-56
NAMED = re.compile(r'id="fig-([\w.-]+)"')
ALT = re.compile(r'<img[^>]*?\balt="([^"]*)"')
CSV = re.compile(r'href="data:text/csv;base64,([\w+/=]+)"')


# numbers


class Told(roles.PasteTextRole):
    """As the role of MyST-NB, and remembers which fact of which page it shows."""

    def run(self):
        found, messages = super().run()
        if found and isinstance(found[0], nodes.inline):
            found[0]["fact"] = (self.document.settings.env.docname, self.text.split(":")[0])
        return found, messages


def told_elsewhere(node, output, plain=crossref.generate_text_nodes):
    found = plain(node, output)
    for each in found:
        each["fact"] = (node.refdoc, node.key)
    return found


@functools.lru_cache(64)
def facts(folder, page):
    """What the run of a page glued: texts by name."""
    path = Path(folder, f"{page}.glue.json")
    glued = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    plain = {name: output["data"].get("text/plain", "") for name, output in glued.items() if name.endswith(BEHIND)}
    return {name.removesuffix(BEHIND): ast.literal_eval(text) for name, text in plain.items()}


def behind(known, key):
    """The evidence of a fact or of what it belongs to: that of `aurc.phrase` may stand at `aurc`; "" where there is none."""
    while key and key not in known:
        key = key.rpartition(".")[0]
    return known[key] if key else ""


def list_evidence(app, doctree, docname):
    """Every number becomes a link to what stands behind it, in a list at the end, by notebook."""
    if app.builder.format != "html":
        return
    folder, by_page = app.env.mystnb_config.output_folder, {}
    for node in list(doctree.findall(lambda n: isinstance(n, nodes.inline) and "fact" in n)):
        page, key = node["fact"]
        shown = re.sub(r"(?<![\w.-])-(?=\d)", "−", node.astext())  # a page may format a number by itself
        text = behind(facts(folder, page), key)
        if not text and not NUMBER.search(shown):
            continue  # a name, or words
        text = text or _said(f"{app.srcdir}/facts.toml", page.removeprefix("results/"), key)
        entries = by_page.setdefault(page, {})
        id = entries.setdefault(text, f"ev-{sum(map(len, by_page.values())) + 1}")
        shown = _agreed(shown, node)
        link = f'<a class="ev pasted-text" href="#{id}" data-n="{id[3:]}">{escape(shown)}</a>'
        node.parent.replace(
            node, nodes.raw("", link, format="html")
        )  # without its classes, for which there were a span
    if by_page:
        groups = "".join(_group(app, docname, page, entries, facts(folder, page)) for page, entries in by_page.items())
        count = sum(map(len, by_page.values()))
        head = f'<p id="evidence-title"><a href="#evidence">Evidence</a> of the numbers on this page, {counted(count, "entries")}</p>'
        body = f'<section class="evidence" id="evidence" aria-labelledby="evidence-title">{head}{groups}</section>'
        last = doctree.children[-1] if doctree.children else doctree
        (last if isinstance(last, nodes.section) else doctree).append(nodes.raw("", body, format="html"))


def _agreed(shown, node):
    """What a page shows, in agreement with the words that follow it."""
    after = node.next_node(descend=False, siblings=True)
    if not isinstance(after, nodes.Text):
        return shown
    shown, rest = agreeing(shown, str(after))
    after.parent.replace(after, nodes.Text(rest))
    return shown


def _group(app, docname, page, entries, known):
    lines = "".join(
        f'<li id="{id}" value="{id[3:]}">{_linked(app, docname, text)}</li>' for text, id in entries.items()
    )
    return f"<p>{_made_by(app, docname, page, known.get('', ''))}</p><ol>{lines}</ol>"


@functools.lru_cache(1)
def _words(path):
    return tomllib.loads(Path(path).read_text(encoding="utf-8")) if Path(path).is_file() else {}


def _said(path, notebook, key):
    """What a fact is that no cells stand behind, as the table of such facts says."""
    words = _words(path)
    said = words.get(notebook, {}).get(key) or words.get("any", {}).get(key)
    return f"{said[0].upper()}{said[1:]}." if said else f"{re.sub('[._]+', ' ', key)}: computed in the notebook."


def _made_by(app, docname, page, provenance):
    """The notebook, as a link where it is another page, its seed and date, and the command that runs it again."""
    name = page.removeprefix("results/")
    title = escape(app.env.titles[page].astext()) if page in app.env.titles else name
    link = title if page == docname else f'<a href="{app.builder.get_relative_uri(docname, page)}">{title}</a>'
    since = f", {escape(provenance or _provenance(app, name))}"
    return f"{link}{since}: <code>uqlib run notebooks/{name}.ipynb</code>"


@functools.lru_cache(64)
def _record(path):
    return json.loads(Path(path).read_text(encoding="utf-8")) if Path(path).is_file() else None


def _provenance(app, name):
    """Seed, scale and date of the record beside a notebook."""
    body = _record(f"{app.srcdir}/results/{name}.json")
    if body is None:
        return "not run"
    seed = body["parameters"].get("seed")
    return f"{'' if seed is None else f'seed {seed}, '}scale {body['scale']}, {body['provenance']['date'][:10]}"


def _linked(app, docname, text):
    """Evidence as HTML, the claims that it names as links to the ledger."""
    known = _verdicts(f"{app.srcdir}/results/verdicts.json")
    text, *claims = re.split(r" ?\{claim:([\w.-]+)\}", text)
    links = {f"{v['place']}, {v['verdict']}": v["anchor"] for v in map(known.get, reversed(claims[::2])) if v}
    told = [f'<a href="{_ledger(app, docname)}#{anchor}">{escape(words)}</a>' for words, anchor in links.items()]
    return escape(text, quote=False) + (f" In the ledger: {'; '.join(told)}." if told else "")


# figures


def made_by(app, doctree, docname):
    """A picture of a run says what it shows in the words of its notebook; a figure has a line on its notebook, seed, date, command, data."""
    if app.builder.format != "html":
        return
    for image in list(doctree.findall(nodes.image)):
        if found := FIGURE.search(image.get("uri", "")):
            name, shown = found[1], _shown(f"{app.srcdir}/results/{found[1]}.ipynb").get(found[2], "")
            image["alt"] = unescape(alt[1]) if (alt := ALT.search(shown)) else image.get("alt", "")
            if isinstance(image.parent, nodes.figure) and f"results/{name}" != docname:
                known = facts(app.env.mystnb_config.output_folder, f"results/{name}").get("", "")
                line = f"made by {_made_by(app, docname, f'results/{name}', known)}{_data(app, docname, found, shown)}"
                image.parent.append(nodes.raw("", f'<p class="made">{line}</p>', format="html"))


@functools.lru_cache(64)
def _shown(path):
    """The figures of an executed notebook as it shows them, HTML by name."""
    cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"] if Path(path).is_file() else []
    texts = ["".join(o.get("data", {}).get("text/html", "")) for cell in cells for o in cell.get("outputs", ())]
    return {name[1]: text for text in texts if (name := NAMED.search(text))}


def _data(app, docname, figure, shown):
    """A link to the CSV of a figure: as its notebook shows it, written beside the pages."""
    if not (found := CSV.search(shown)):
        return ""
    target = Path(app.outdir, "_downloads/data", f"{figure[1].replace('/', '.')}.{figure[2]}.csv")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(base64.b64decode(found[1]))
    up = "../" * docname.count("/")
    return f' · <a class="csv" download href="{up}_downloads/data/{target.name}">data (CSV)</a>'


# in short


class InShort(SphinxDirective):
    """`{in-short} PAPER`: a chapter's claim and finding, to which verdicts, links to the paper and a picture are added."""

    has_content, required_arguments = True, 1
    option_spec = MappingProxyType({"picture": str, "to": str})

    def run(self):
        box = nodes.container(classes=["in-short"], paper=self.arguments[0])
        self.state.nested_parse(self.content, self.content_offset, box)
        if "picture" in self.options:
            box.insert(0, _picture(self.options["picture"], self.options.get("to", "")))
        return [box]


def _picture(uri, to):
    image = nodes.image(uri=uri, classes=["thumb"])
    return nodes.paragraph("", "", nodes.reference("", "", image, refid=to, classes=["thumb"]) if to else image)


def open_with_the_finding(app, doctree):
    """The paragraph *In short* of a notebook comes first, with its verdicts and the first figure; all code is folded."""
    page = app.env.docname
    if not page.startswith("results/"):
        return
    for cell in doctree.findall(nodes.container):
        if cell.get("nb_element") == "cell_code" and not cell.get("hide_mode"):
            cell.attributes |= {"hide_mode": "input", "prompt_show": "code", "prompt_hide": "code"}
        elif cell.get("nb_element") == "cell_code":
            cell.attributes |= {"prompt_show": "code", "prompt_hide": "code"}
    found = next((p for p in doctree.findall(nodes.paragraph) if p.astext().startswith("In short.")), None)
    if found is None:
        return
    section, box = found.parent, nodes.container(classes=["in-short"], notebook=page.removeprefix("results/"))
    after = section.index(found) + 1
    rest = [n for n in section[after:] if isinstance(n, nodes.paragraph | nodes.bullet_list)]
    for each in [found, *rest]:
        section.remove(each)
        box.append(each)
    if picture := _first_figure(app, page, doctree):
        box.insert(0, picture)
    section.insert(1, box)


def _first_figure(app, page, doctree):
    for raw in doctree.findall(nodes.raw):
        if (name := NAMED.search(raw.astext())) and Path(app.srcdir, f"{page}.figures/{name[1]}.svg").is_file():
            return _picture(f"/{page}.figures/{name[1]}.svg", name[0][4:-1])
    return None


def add_verdicts(app, doctree, docname):
    """The verdicts of a notebook or a paper as links to the ledger, at the end of its *In short*."""
    if app.builder.format != "html":
        return
    known, ledger = _verdicts(f"{app.srcdir}/results/verdicts.json"), _ledger(app, docname)
    for box in doctree.findall(lambda n: isinstance(n, nodes.container) and "in-short" in n["classes"]):
        own = [v for v in known.values() if v["notebook"] == box.get("notebook") or v["paper"] == box.get("paper")]
        chips = _of_notebook(own, ledger) if "notebook" in box else _of_paper(own, ledger)
        if "paper" in box:
            box.append(nodes.raw("", _papers(app, box["paper"], ledger), format="html"))
        if chips:
            box.append(nodes.raw("", f'<ul class="chips" aria-label="Verdicts">{chips}</ul>', format="html"))


def _papers(app, paper, ledger):
    """Where the paper and its code are, as its ledger says."""
    known = read_ledger(Path(app.srcdir, f"../data/ledger/{paper}.toml"))
    links = [f'<a href="{to}">{escape(words)}</a>' for words, to in paper_links(known).items()]
    links += [] if known.code else ["no code of its authors is known to us"]
    links += [f'<a href="{ledger}#ledger-{paper}">every claim in the ledger</a>']
    return f'<p class="papers">{" · ".join(links)}</p>'


def _of_notebook(own, ledger):
    """One chip a table or figure of the paper and verdict, which leads to the first claim of it."""
    groups = {}
    for each in own:
        groups.setdefault((each["row"], each["order"]), []).append(each)
    return "".join(
        _chip(f"{ledger}#{each[0]['anchor']}", each[0],
              f"{each[0]['place']}: {each[0]['verdict']}{f' ×{len(each)}' if len(each) > 1 else ''}", "; ".join(one["text"] for one in each))
        for each in groups.values()
    )  # fmt: skip


def _of_paper(own, ledger):
    """How many findings about the paper's own claims have which verdict, as on the cover."""
    theirs = [each for each in own if not each["ours"]]
    chips = [
        f'<li class="lead">{counted(len(theirs), "claims")} of the paper; what rests on one finding counts once:</li>'
    ]
    for verdict in dict.fromkeys(each["verdict"] for each in sorted(theirs, key=lambda each: each["order"])):
        some = [each for each in theirs if each["verdict"] == verdict]
        to = f"{ledger}?paper={some[0]['paper']}&amp;verdict={verdict.replace(' ', '+')}#ledger-{some[0]['paper']}"
        chips.append(
            _chip(
                to,
                some[0],
                f"{sum(each['counts'] for each in some)} {verdict}",
                f"claims of the paper that are {verdict}",
            )
        )
    return "".join(chips) if theirs else ""


def _chip(to, verdict, text, title):
    name = verdict["verdict"].replace(" ", "-")
    return f'<li><a class="chip {name}" href="{to}" title="{escape(title)}"><span aria-hidden="true">{verdict["mark"]}</span> {escape(text)}</a></li>'


@functools.lru_cache(4)
def _verdicts(path):
    return (
        {each["id"]: each for each in json.loads(Path(path).read_text(encoding="utf-8"))}
        if Path(path).is_file()
        else {}
    )


def _ledger(app, docname):
    return app.builder.get_relative_uri(docname, "ledger")


def know_claims(app, doctree):
    """The claims of the ledger are HTML, and links of the page's text lead to them."""
    for raw in doctree.findall(nodes.raw):
        for id in re.findall(r'class="claim[^>]* id="([\w-]+)"', raw.astext()):
            app.env.get_domain("std").note_hyperlink_target(id, app.env.docname, id, id)


def setup(app):
    domain.NbGlueDomain.roles["text"] = Told()
    crossref.generate_text_nodes = told_elsewhere
    app.add_directive("in-short", InShort)
    app.add_css_file("evidence.css")
    app.connect("doctree-read", open_with_the_finding, priority=400)  # before the pictures are counted
    app.connect("doctree-read", know_claims)
    app.connect("doctree-resolved", list_evidence)
    app.connect("doctree-resolved", made_by)
    app.connect("doctree-resolved", add_verdicts)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
