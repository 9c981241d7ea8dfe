"""The built book: every link leads somewhere, every page opens in a browser without an error or a request outside."""

import html.parser
import re
import shutil
import urllib.parse
from pathlib import Path

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# sphinx-thebe writes its block twice, and the theme looks for a mode before it is set; neither does harm
KNOWN = ("Identifier 'THEBE_JS_URL' has already been declared", "Got invalid theme mode")


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


@pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")
def test_every_page_opens_in_a_browser_as_wide_as_a_phone_and_a_desk(parsed):
    from playwright.sync_api import sync_playwright

    arguments = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
                 "--disable-background-networking", "--disable-component-update"]  # fmt: skip
    problems = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=arguments)
        page = browser.new_page()
        page.on("pageerror", lambda error: problems.append((page.url, str(error))))
        page.on("console", lambda m: problems.append((page.url, m.text)) if m.type in ("error", "warning") else None)
        page.on(
            "request",
            lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else problems.append((page.url, r.url)),
        )
        for path in parsed:
            page.emulate_media(color_scheme="dark")
            page.set_viewport_size({"width": 390, "height": 900})
            page.goto(path.as_uri())
            if page.locator("span.math, div.math").count():
                page.wait_for_selector("mjx-container", timeout=20_000)
            for width, colours in ((390, "dark"), (1280, "light")):
                page.emulate_media(color_scheme=colours)
                page.set_viewport_size({"width": width, "height": 900})
                page.wait_for_timeout(50)
                wide = page.evaluate("document.documentElement.scrollWidth") - width
                if wide > 1:
                    problems.append((path.name, f"{wide} px wider than a screen of {width}"))
        browser.close()
    problems = [problem for problem in problems if not any(known in problem[1] for known in KNOWN)]
    assert not problems
