"""What tests of figures that move share: a browser, a page, and the kernels of moving.js asked without one."""

import json
import shutil
import subprocess

import pytest

NODE = shutil.which("node")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]


@pytest.fixture(scope="session")
def static(repository):
    return repository / "book/_static"


@pytest.fixture(scope="session")
def asked(static, request):
    """What a function of the exports of moving.js and of the given values returns: by node, or by a browser where there is none."""

    def by_node(ask, *given):
        code = f"module.exports = require({json.dumps(str(static / 'moving.js'))}); const show = (_, v) => ArrayBuffer.isView(v) ? [...v] : v; "
        code += f"console.log(JSON.stringify(({ask})(...JSON.parse(require('fs').readFileSync(0))), show))"
        text = json.dumps(given)
        return json.loads(
            subprocess.run([NODE, "-e", code], input=text, capture_output=True, text=True, check=True).stdout
        )

    def by_browser(ask, *given):
        page = request.getfixturevalue("browser").new_page()
        page.add_script_tag(content="var module = {};")
        page.add_script_tag(content=(static / "moving.js").read_text())
        plain = "(v) => JSON.parse(JSON.stringify(v, (_, x) => (ArrayBuffer.isView(x) ? [...x] : x)))"
        return page.evaluate(f"(given) => ({plain})(({ask})(...given))", list(given))

    if not (NODE or BROWSER):
        pytest.skip("neither node nor Chromium on this machine")
    return by_node if NODE else by_browser


@pytest.fixture(scope="session")
def browser():
    if not BROWSER:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, static, tmp_path):
    """Opens a bare page of this HTML; fails at the end on any error, warning or request outside."""
    problems, contexts = [], []

    def go(body, *, scripts=("moving.js",), width=800, address="", **options):
        load = "".join(f'<script defer src="{(static / each).as_uri()}"></script>' for each in scripts)
        style = f'<link rel="stylesheet" href="{(static / "moving.css").as_uri()}">'
        path = tmp_path / "page.html"
        head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width">{style}{load}'
        path.write_text(f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>', encoding="utf-8")
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
        page.on("request", lambda r: None if r.url.startswith("file:") else problems.append(r.url))
        page.goto(path.as_uri() + address)
        return page

    yield go
    for context in contexts:
        context.close()
    assert not problems
