"""One picture of ten screenshots of the built book, so that whoever changes its look sees the whole."""

import shutil
from io import BytesIO
from pathlib import Path

from uqlib.base.extras import named

with named():
    from PIL import Image, ImageDraw

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
PAGES = ("index", "zhou2025/index", "results/zhou2025/one_pair", "ledger", "api")
SIZES = {1280: 900, 390: 844}  # height by width, of a desk and of a phone
SHOTS = [(page, width, ("light", "dark")[(k + j) % 2]) for k, page in enumerate(PAGES) for j, width in enumerate(SIZES)]


def find_browser() -> str:
    """The path of a Chromium on this machine.

    Raises:
        FileNotFoundError: if there is none.
    """
    if path := next(filter(None, map(shutil.which, BROWSERS)), None):
        return path
    raise FileNotFoundError(f"none of {', '.join(BROWSERS)} is on the path; install one to take screenshots")


def sheet(book: str | Path, target: str | Path, height: int = 620) -> Path:
    """Photograph the pages of SHOTS, and put the pictures in two rows on one sheet.

    Args:
        book: folder of the HTML.
        target: file of the picture, PNG.
        height: of each, in pixels of the sheet.

    Raises:
        FileNotFoundError: if there is no browser, or a page is not there.
    """
    if missing := [page for page in PAGES if not (Path(book) / f"{page}.html").is_file()]:
        raise FileNotFoundError(f"{book} has no page {missing[0]}.html; `make book` builds the book")
    with named():
        from playwright.sync_api import sync_playwright
    taken = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=find_browser(), args=["--no-sandbox", "--disable-gpu"])
        for name, width, mode in SHOTS:
            page = browser.new_page(viewport={"width": width, "height": SIZES[width]}, color_scheme=mode)  # type: ignore[arg-type]
            page.goto((Path(book).absolute() / f"{name}.html").as_uri())
            page.wait_for_timeout(300)  # fonts and scripts
            picture = Image.open(BytesIO(page.screenshot())).convert("RGB")
            taken.append(
                (f"{name}  {width} px  {mode}", picture.resize((round(height * width / SIZES[width]), height)))
            )
            page.close()
        browser.close()
    rows = [taken[: len(taken) // 2], taken[len(taken) // 2 :]]
    across = max(sum(picture.width + 12 for _, picture in row) for row in rows)
    whole = Image.new("RGB", (across + 12, len(rows) * (height + 32)), "#888888")
    draw = ImageDraw.Draw(whole)
    for k, row in enumerate(rows):
        left = 12
        for title, picture in row:
            draw.text((left, k * (height + 32) + 4), title, fill="white")
            whole.paste(picture, (left, k * (height + 32) + 20))
            left += picture.width + 12
    Path(target).parent.mkdir(parents=True, exist_ok=True)
    whole.save(target)
    return Path(target)
