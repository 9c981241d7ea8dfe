"""The built book: every link leads somewhere, every page opens in a browser without an error or a request outside."""

import html
import html.parser
import os
import re
import shutil
import urllib.parse
from pathlib import Path

import pytest

from uqlib.commands import screens

BROWSER = next(filter(None, map(shutil.which, screens.BROWSERS)), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--disable-component-update"]  # fmt: skip
WIDTHS = (360, 390, 768, 1280)
PROGRAM = re.compile(  # what a program says to a programmer; code may
    r"\b(?:cifar100?|tf|imagenet|pacs|caltech\d*)_[a-z0-9_]+|\w*Warning:|Traceback \(|object at 0x|<class '|dtype=|\bnan\b"
)
CODE = re.compile(r"<(script|style|pre|code|svg)\b.*?</\1>", re.S)
needs_browser = pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")


class Page(html.parser.HTMLParser):
    def __init__(self, path: Path):
        super().__init__()
        self.links, self.anchors, self.images, self.text = [], set(), [], ""
        self.feed(path.read_text())

    def handle_data(self, data):
        self.text += data

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.anchors |= {attrs[name] for name in ("id", "name") if attrs.get(name)}
        self.links += [attrs[name] for name in ("href", "src") if attrs.get(name)]
        if tag == "img":
            self.images.append(attrs)


@pytest.fixture(scope="module")
def parsed(book) -> dict[Path, Page]:
    return {path: Page(path) for path in sorted(book.rglob("*.html")) if "_static" not in path.parts}


def test_every_internal_link_leads_to_a_file_and_an_anchor(parsed):
    dead = []
    for path, page in parsed.items():
        for link in page.links:
            url = urllib.parse.urlsplit(link)
            if url.scheme or url.netloc or link in ("#", "javascript:void(0);"):
                continue
            target = (path.parent / urllib.parse.unquote(url.path)).resolve() if url.path else path
            if not target.is_file() or (
                url.fragment and target in parsed and urllib.parse.unquote(url.fragment) not in parsed[target].anchors
            ):
                dead.append((path.name, link))
    assert not dead


def test_every_figure_has_an_alternative_text(parsed):
    figures = [(path.name, im) for path, page in parsed.items() for im in page.images if "_images/" in im["src"]]
    assert figures
    assert not [(name, image["src"]) for name, image in figures if len(image.get("alt", "")) < 20]


def test_every_notebook_is_offered_with_the_command_that_runs_it_again(parsed, repository, book):
    for notebook in sorted((repository / "notebooks").glob("*/*.ipynb")):
        page = parsed[book / "results" / notebook.parent.name / f"{notebook.stem}.html"]
        assert f"uqlib run notebooks/{notebook.parent.name}/{notebook.name}" in page.text
        assert any(link.startswith("../../_downloads") and link.endswith(notebook.name) for link in page.links)


def test_no_number_is_missing_from_the_prose(parsed):
    for path in parsed:
        text = path.read_text()
        assert "{glue" not in text, path
        assert "Key not found" not in text, path


def test_no_page_shows_a_warning_of_a_cell(parsed):
    assert not [path.name for path in parsed if re.search(r'class="output stderr|/ipykernel[_/]', path.read_text())]


def test_no_text_of_a_program_stands_in_prose_or_table(parsed, book):
    found = {}
    for path in parsed:
        if path.stem not in ("api", "kinds", "genindex", "py-modindex") and path.parent.name != "api":
            article = path.read_text().partition("<article")[2].partition("</article>")[0]
            text = html.unescape(re.sub("<[^>]+>", " ", CODE.sub(" ", article)))
            found[path.relative_to(book).as_posix()] = sorted(set(PROGRAM.findall(text)))
    assert {name: each for name, each in found.items() if each} == {}


def test_every_page_has_a_title_a_description_and_a_card(parsed, book):
    for path in parsed:
        head = path.read_text().partition("</head>")[0]
        if path.name not in ("genindex.html", "py-modindex.html", "search.html"):
            assert re.search('<meta name="description" content="[^"]{60,}"', head), path
        assert (path.parent / re.search('property="og:image" content="([^"]+)"', head)[1]).resolve().is_file(), path
        assert len(re.findall("Trusted", re.search("<title>(.*?)</title>", head, re.S)[1])) <= 1, path
    assert "<title>How far can a pretrained vision model be trusted?</title>" in (book / "index.html").read_text()


def test_icons_need_no_script_and_every_icon_is_drawn(parsed, book):
    drawn = set(re.findall(r"\.(fa-[a-z-]+)", (book / "_static/book.css").read_text())) | {
        "fa-solid",
        "fa-brands",
        "fa-lg",
    }
    for path in parsed:
        page = path.read_text()
        assert "fontawesome" not in page
        for names in re.findall(r'<(?:i|span) class="[^"]*\bfa[srb]? [^"]*"|<(?:i|span) class="[^"]*fa-[^"]*"', page):
            assert set(re.findall(r"fa-[a-z-]+", names)) <= drawn, (path, names)


def luminance(colour):
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_colours_of_words_and_lines_have_contrast_in_both_modes(repository):
    sheet = (repository / "book/_static/book.css").read_text()
    light, dark = (
        dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", block)) for block in re.findall(r"\{(.*?)\}", sheet, re.S)[:2]
    )
    assert light.keys() == dark.keys()
    for mode in (light, dark):
        for name in mode.keys() - {"paper", "plate", "hair"}:  # a hair line only adorns
            for ground in ("paper", "plate"):
                low, high = sorted((luminance(mode[name]), luminance(mode[ground])))
                assert (high + 0.05) / (low + 0.05) >= (3 if name == "rule" else 4.5), (name, ground)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield browser
        browser.close()


@needs_browser
def test_every_page_opens_at_every_width_in_both_modes(parsed, browser):
    problems = []
    page = browser.new_page()
    page.on("pageerror", lambda error: problems.append((page.url, str(error))))
    page.on("console", lambda m: problems.append((page.url, m.text)) if m.type in ("error", "warning") else None)
    page.on(
        "request",
        lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else problems.append((page.url, r.url)),
    )
    for k, path in enumerate(parsed):
        page.emulate_media(color_scheme=("light", "dark")[k % 2])
        page.set_viewport_size({"width": WIDTHS[0], "height": 900})
        page.goto(path.as_uri())
        if page.locator("span.math, div.math").count():
            page.wait_for_selector("mjx-container", timeout=20_000)
        for width in WIDTHS:
            for mode in ("light", "dark"):
                page.emulate_media(color_scheme=mode)
                page.set_viewport_size({"width": width, "height": 900})
                page.wait_for_function("mode => document.documentElement.dataset.theme === mode", arg=mode)
                page.wait_for_timeout(20)
                wide = page.evaluate("document.documentElement.scrollWidth") - width
                if wide > 1:
                    problems.append((path.parent.name, path.name, f"{wide} px wider than a screen of {width}, {mode}"))
        missing = page.evaluate(
            "[...document.images].filter(i => !i.hasAttribute('alt') || (!i.alt && i.closest('article'))).length"
        )
        if missing:
            problems.append((path.parent.name, path.name, f"{missing} images without an alternative text"))
    page.close()
    assert not problems


@needs_browser
def test_no_page_violates_a_rule_of_axe(parsed, browser, book):
    """All pages of a book that is given; of the small one that the tests make those by hand, and some notebooks."""
    from axe_playwright_python.sync_playwright import Axe

    axe, problems = Axe(), []
    own = [
        path for k, path in enumerate(parsed) if "UQLIB_BOOK" in os.environ or "results" not in path.parts or k % 6 == 0
    ]
    for k, path in enumerate(own):
        for width, mode in ((1280, "light"), (390, "dark")):
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=mode)
            page.goto(path.as_uri())
            # of a thousand entries of one form the first ones tell
            page.evaluate(
                "[...document.querySelectorAll('dl.py, .admonition, .genindextable li')].slice(40).forEach(e => e.remove())"
            )
            rules = {"resultTypes": ["violations"]} | (
                {} if mode == "light" or k < 3 else {"runOnly": ["color-contrast"]}
            )
            for each in axe.run(page, options=rules).response["violations"]:
                nodes = [(node["html"][:150], node["failureSummary"][:300]) for node in each["nodes"][:2]]
                problems.append((path.name, mode, each["id"], nodes))
            page.close()
    assert not problems


@needs_browser
def test_the_first_page_weighs_less_than_400_kb(browser, book):
    page, files = browser.new_page(), set()
    page.on("request", lambda request: files.add(urllib.parse.urlsplit(request.url)))
    page.goto((book / "index.html").as_uri())
    page.wait_for_timeout(300)
    page.close()
    paths = [Path(urllib.parse.unquote(url.path)) for url in files if url.scheme == "file"]
    assert any(path.name == "book.css" for path in paths)
    assert not any("mathjax" in path.parts for path in paths)
    assert sum(path.stat().st_size for path in paths) < 400_000


@needs_browser
def test_a_box_that_scrolls_can_be_reached_by_the_keyboard(parsed, browser):
    page = browser.new_page(viewport={"width": 360, "height": 900})
    page.goto(next(path for path in parsed if path.name == "ledger.html").as_uri())
    assert page.locator(".wide[tabindex='0']").count()
    first = page.locator(".wide[tabindex='0']").first
    first.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(300)
    assert first.evaluate("box => box.scrollLeft") > 0
    page.close()
