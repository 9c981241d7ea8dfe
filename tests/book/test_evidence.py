"""What stands behind a number of the built book: every one has it, it can be read by all, and its links lead where they say."""

import html.parser
import re
import shutil
import tomllib

import pytest

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NUMBER = re.compile(r"(?<![\w-])[+−]?\d[\d.,]*(?![\w-])")  # not that of ResNet-56
BYTES = 300  # of a number and its evidence, in the mean


class Numbers(html.parser.HTMLParser):
    """The numbers that a page takes from a run, each with the anchor of its evidence, and the text at each anchor."""

    def __init__(self, text):
        super().__init__()
        self.told, self.entries, self._open = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        pasted = "pasted-text" in attrs.get("class", "").split()
        self._open.append((tag, attrs.get("href") if pasted else None, pasted, attrs.get("id", "")))
        if pasted:
            self.told.append(["", attrs.get("href")])

    def handle_endtag(self, tag):
        while self._open and self._open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        if any(pasted for _, _, pasted, _ in self._open):
            self.told[-1][0] += data
        for name in (id for _, _, _, id in self._open if id.startswith("ev-")):
            self.entries[name] = self.entries.get(name, "") + data


@pytest.fixture(scope="module")
def pages(book):
    found = {path.relative_to(book): path.read_text() for path in book.rglob("*.html") if "_static" not in path.parts}
    return {path: (text, Numbers(text)) for path, text in found.items()}


def test_every_number_of_a_run_leads_to_its_evidence(pages):
    told = [(path, text, href, page) for path, (_, page) in pages.items() for text, href in page.told]
    assert len(told) > 300
    assert not [(path, text) for path, text, href, _ in told if NUMBER.search(text) and not href]
    for path, text, href, page in told:
        if href:
            assert len(page.entries[href[1:]]) > 8, (path, text)


def test_a_measured_number_tells_interval_and_n(pages):
    """Of the facts that `tell` gives, not only those that the notebook counts."""
    entries = [text for _, page in pages.values() for text in page.entries.values()]
    assert sum("95 % intervals over other" in text for text in entries) > len(entries) / 3
    assert any(" Paper: " in text for text in entries)
    assert not [text for text in entries if re.search(r"\bnan\b|\bNone\b|[A-Za-z0-9]_\w|(?<=[ \[])-\d", text)]


def test_evidence_names_the_command_and_is_light(pages):
    weight = numbers = 0
    for path, (text, page) in pages.items():
        if page.entries:
            (aside,) = re.findall(r'<section class="evidence".*?</section>', text, re.S)
            groups = aside.split("<ol>")
            assert all(re.search(r"<code>uqlib run notebooks/\w+/\w+\.ipynb</code></p>$", each) for each in groups[:-1])
            weight, numbers = weight + len(aside.encode()), numbers + len(page.told)
            assert len(aside.encode()) < 2 * BYTES * len(page.told), path
    assert weight < BYTES * numbers


def test_figures_and_tables_say_what_made_them(pages):
    for path, (text, _) in pages.items():
        shown = re.findall(r'<div class="shown">(?!</div>).*?(?=<div class="shown">|</article>)', text, re.S)
        assert not [each[:80] for each in shown if "made by" not in each and "not measured here" not in each], path
        figures = re.findall(r"<figure.*?</figure>", text, re.S)
        assert not [each for each in figures if 'class="made"' not in each and ".figures" in each], path


def test_every_page_of_results_opens_with_its_finding(pages):
    for path, (text, _) in pages.items():
        if (path.match("results/*/*.html") and path.parts[1] != "api") or (
            path.name == "index.html" and len(path.parts) == 2
        ):
            article = text.partition('<article class="bd-article"')[2]
            assert 0 < article.find("In short.") < article.find("<h2>"), path
            assert 'class="in-short' in text, path


def test_a_reference_is_one_move_away(pages):
    text, _ = pages[next(path for path in pages if path.name == "references.html")]
    entries = re.findall(r'<div class="citation".*?</div>', text, re.S)
    assert len(entries) > 20
    assert not [each for each in entries if "https://" not in each]


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    if not BROWSER:
        pytest.skip("no Chromium on this machine")
    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        yield found
        found.close()


@pytest.mark.parametrize("how", ["hover", "focus", "tap"])
def test_evidence_opens_beside_its_number(book, browser, how):
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True)
    page = context.new_page()
    page.goto((book / "zhou2025/index.html").as_uri())
    number, note = page.locator("a.ev").nth(5), page.locator(".ev-note")
    assert not note.is_visible()
    getattr(number, how)()
    note.wait_for(state="visible", timeout=3000)
    words = page.locator(number.get_attribute("href")).text_content()
    assert words in note.text_content()
    box, place = note.bounding_box(), number.bounding_box()
    assert 0 <= box["x"] <= box["x"] + box["width"] <= 390
    assert min(abs(box["y"] - place["y"] - place["height"]), abs(box["y"] + box["height"] - place["y"])) < 40
    page.keyboard.press("Escape")
    assert not note.is_visible()
    context.close()


def test_without_a_script_a_number_leads_to_its_evidence_and_print_has_all(book, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((book / "zhou2025/index.html").as_uri())
    number = page.locator("a.ev").nth(3)
    entry = page.locator(number.get_attribute("href"))
    assert not entry.is_visible()
    number.click()
    assert entry.is_visible()
    page.goto((book / "zhou2025/index.html").as_uri())
    page.emulate_media(media="print")
    assert page.locator(".evidence li").count() == sum(each.is_visible() for each in page.locator(".evidence li").all())
    page.emulate_media(media="screen")
    page.goto((book / "results/zhou2025/one_pair.html").as_uri())
    assert not page.locator("details.hide[open]").count()  # folded all the same
    page.goto((book / "ledger.html").as_uri())
    assert page.locator(".claim").count() == sum(each.is_visible() for each in page.locator(".claim").all())
    context.close()


def test_one_switch_opens_all_code(book, browser):
    page = browser.new_page()
    page.goto((book / "results/zhou2025/one_pair.html").as_uri())
    code = page.locator("details.hide")
    assert code.count() > 5
    page.get_by_role("button", name="Show all code").click()
    assert page.locator("details.hide[open]").count() == code.count()
    page.get_by_role("button", name="Hide all code").click()
    assert not page.locator("details.hide[open]").count()
    page.close()


def test_the_ledger_is_filtered_by_verdict_and_paper(book, browser):
    page = browser.new_page()
    page.goto(f"{(book / 'ledger.html').as_uri()}?paper=cui2023&verdict=undecided")
    seen = page.locator(".claim:visible")
    assert (
        seen.count()
        == page.locator(
            "section:has(> h2 ~ section #claim-cui2023-t2-ece, #claim-cui2023-t2-ece) .claim.undecided:visible"
        ).count()
        > 0
    )
    page.get_by_label(re.compile("contradicted")).check()
    assert page.locator(".claim.contradicted:visible").count() > 0
    page.goto(f"{(book / 'ledger.html').as_uri()}#claim-zhou2025-f5-ours")
    assert page.locator("#claim-zhou2025-f5-ours[open]").count() == 1
    page.close()


def test_facts_without_cells_are_said_in_words(pages, repository):
    """A fact that a notebook only counts says what it counts; the table of words names no fact that is not there."""
    untold = {
        text for _, page in pages.values() for text in page.entries.values() if "computed in the notebook" in text
    }
    assert not untold
    texts = {
        f"{path.parent.name}/{path.stem}": path.read_text() for path in (repository / "notebooks").glob("*/*.ipynb")
    }
    chapters = "".join(path.read_text() for path in (repository / "book").glob("*/index.md"))
    words = tomllib.loads((repository / "book/facts.toml").read_text(encoding="utf-8"))
    for notebook, own in words.items():
        shown = chapters + (texts.get(notebook) or "".join(texts.values()))
        assert set(own) <= set(re.findall(r"\{glue:text\}`(?:[^`:]*::)?([\w.]+)", shown)), notebook
