"""Definitions by hover, minutes that are measured, and a search that finds what explains, on a book of four pages."""

import json
import re
import shutil
import sys

import pytest
from sphinx.cmd.build import build_main

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PAGES = {
    "index": "# Start\n\n```{toctree}\nglossary\nchapter\nresults/foundations/first\nresults/api/metrics\n```\n\nTakes {minutes}`chapter`; all {minutes}`chapter, glossary`.\n",
    "glossary": '# Glossary\n\n```{glossary}\nAURC\n  The area, of risks. Lower. See [more](chapter.md).\n\nduo\n  Two "networks" <together>.\n\n'
    "risk-coverage curve\n  The risk at each coverage.\n\nseed\n  What a choice starts from.\n```\n",
    "chapter": "# AURC of a chapter\n\nThe AURC of duos, `AURC` and [AURC](glossary.md). Again AURC, and a seed; a {term}`seed`. Risk-coverage curves.\n\n"
    "## Part\n\nHere a zebra stands.\n\n![figure](x.png)\n\n" + "word " * 390 + "\n\n```python\nAURC = 1\n```\n",
    "results/foundations/first": "# The first page\n\nOf AURC it speaks, and of zebras.\n",
    "results/api/metrics": "# uqlib.metrics\n\n```{eval-rst}\n.. py:function:: zebra.aurc(x)\n\n   The AURC.\n```\n",
}


@pytest.fixture(scope="module")
def pages(repository, tmp_path_factory):
    place = tmp_path_factory.mktemp("pages")
    for name, text in PAGES.items():
        path = place / f"{name}.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (place / "x.png").write_bytes(bytes.fromhex("89504e470d0a1a0a"))
    (place / "conf.py").write_text(
        f"import sys\nsys.path.insert(0, {str(repository / 'book/_ext')!r})\n"
        "extensions = ['myst_parser', 'terms', 'reading']\nroot_doc = 'index'\nmyst_enable_extensions = ['colon_fence']\n"
    )
    modules = set(sys.modules)
    assert build_main(["-q", "-E", "-W", str(place), str(place / "out")]) == 0
    for name in {"terms", "reading"} & (set(sys.modules) - modules):
        del sys.modules[name]
    return place / "out"


def body(path):
    return re.search(r'<div class="body" role="main">(.*?)<div class="clearer">', path.read_text(), re.S)[1]


def test_the_first_mention_of_a_word_bears_its_definition_and_the_next_ones_do_not(pages):
    hints = re.findall(r'<a class="term" href="(.*?)" aria-description="(.*?)">(.*?)</a>', body(pages / "chapter.html"))
    assert [word for _, _, word in hints] == ["AURC", "duos", "seed", "Risk-coverage curves"]
    assert hints[0][:2] == ("glossary.html#term-AURC", "The area, of risks. Lower.")  # without what it links to
    assert hints[1][1] == "Two “networks” &lt;together&gt;."


def test_a_hint_leads_to_the_entry_from_a_folder_too(pages):
    text = body(pages / "results/foundations/first.html")
    (target,) = re.findall(r'class="term" href="\.\./\.\./(.*?)"', text)
    page, _, anchor = target.partition("#")
    assert f'id="{anchor}"' in (pages / page).read_text()


@pytest.mark.parametrize("page", ["glossary", "results/api/metrics"])
def test_pages_that_are_reference_themselves_have_no_hints(pages, page):
    assert 'class="term"' not in body(pages / f"{page}.html")


def test_minutes_are_words_and_figures(pages):
    # of the chapter: 418 words and half a minute for the figure; the glossary adds some twenty words
    assert "Takes 3\u00a0min; all 3\u00a0min." in body(pages / "index.html")


def test_the_texts_for_the_search_hold_the_prose_by_part(pages):
    text = (pages / "_static/book_texts.js").read_text(encoding="utf-8")
    found = json.loads(text.removeprefix("window.BOOK_TEXTS=").removesuffix(";\n"))
    assert dict(found["glossary"])["term-AURC"].startswith("AURC\nThe area")
    assert dict(found["chapter"])["part"].startswith("Part\nHere a zebra stands.")
    assert "AURC = 1" not in text
    assert found["results/api/metrics"] == [["uqlib-metrics", "uqlib.metrics"]]
    assert "book_texts.js" in (pages / "search.html").read_text()
    assert "book_texts.js" not in (pages / "chapter.html").read_text()


@pytest.mark.skipif(not BROWSER, reason="no Chromium on this machine")
@pytest.mark.parametrize(
    ("query", "first", "last"),
    [
        ("AURC", "AURC (glossary)", "zebra.aurc"),
        ("zebra", "The first page", "zebra.aurc"),
        ("seed", "seed (glossary)", ""),
    ],
)
def test_the_search_puts_what_explains_first_and_shows_it_from_a_file(pages, query, first, last):
    from playwright.sync_api import sync_playwright

    problems = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
        page.goto(f"{(pages / 'search.html').as_uri()}?q={query}")
        page.wait_for_function(
            "document.querySelector('#search-results > h2, #search-results h2')?.innerText.includes('Results')"
        )
        page.wait_for_selector("ul.search p.context")
        results = [each.inner_text() for each in page.query_selector_all("ul.search > li")]
        browser.close()
    assert results[0].startswith(first)
    assert query.lower() in " ".join(results[0].split("\n")[1:]).lower() or query == "AURC"
    assert last in " ".join(results[-2:])  # what a function is called, and the page of its family
    assert not problems
