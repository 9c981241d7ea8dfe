import pytest
from PIL import Image

from uqlib.commands import screens


def test_ten_screenshots_of_pages_widths_and_modes_are_taken():
    assert len(screens.SHOTS) == len(set(screens.SHOTS)) == 10
    assert {mode for *_, mode in screens.SHOTS} == {"light", "dark"}


def test_a_book_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no page index\.html; `make book` builds the book"):
        screens.sheet(tmp_path, tmp_path / "a.png")


def test_the_sheet_holds_all_of_them_in_two_rows(tmp_path):
    try:
        screens.find_browser()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    for name in screens.PAGES:
        page = tmp_path / f"{name}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text("<body style='background:#00ff00'>")
    with Image.open(screens.sheet(tmp_path, tmp_path / "out/a.png", height=100)) as sheet:
        green = sum(count for count, colour in sheet.getcolors(1 << 24) if colour == (0, 255, 0))
    assert green == 100 * 5 * (round(100 * 1280 / 900) + round(100 * 390 / 844))
