"""A new paper from the template: every file has its place, what is asked is checked, and the chapter builds and passes."""

import json
import subprocess
import sys
import tomllib

import pytest
from conftest import clone

from uqlib.book import skeleton

PAPER = {"title": "On Calibration of Modern Neural Networks", "author": "Guo and Pleiss"}


@pytest.fixture(scope="module")
def copy(repository, tmp_path_factory):
    """A checkout with a new paper, whose data lie in the checkout itself but for the ledger."""
    copy = clone(repository, tmp_path_factory.mktemp("new") / "book")
    data = copy / "data"
    data.unlink()
    data.mkdir()
    for path in (repository / "data").iterdir():
        if path.name != "ledger":
            (data / path.name).symlink_to(path)
    (data / "ledger").mkdir()
    for path in (repository / "data/ledger").iterdir():
        (data / "ledger" / path.name).write_bytes(path.read_bytes())
    skeleton.new_paper("guo2017", **PAPER, eprint="1706.04599", checkout=copy)
    return copy


def test_each_file_stands_where_that_of_a_chapter_stands(copy):
    assert tomllib.loads((copy / "data/ledger/guo2017.toml").read_text())["title"] == PAPER["title"]
    for path in ("notebooks/guo2017/question.ipynb", "book/guo2017/index.md", "uqlib/papers/guo2017.py"):
        assert (copy / path).is_file()
    toc = (copy / "book/_toc.yml").read_text().split("caption: Together")[0]
    assert toc.endswith("- file: guo2017/index\n        sections:\n          - file: results/guo2017/question\n  - ")
    assert "eprint = {1706.04599}" in (copy / "book/references.bib").read_text()


def test_the_notebook_has_no_outputs_and_one_cell_of_parameters(copy):
    cells = json.loads((copy / "notebooks/guo2017/question.ipynb").read_text())["cells"]
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in cells) == 1
    assert not [cell for cell in cells if cell.get("outputs")]


def test_the_notebook_runs_and_records_what_its_claim_asks(copy):
    record = copy / "guo2017.json"
    run = ["run", "notebooks/guo2017/question.ipynb", "--scale", "smoke", "-p", "record", str(record), "-o", "x.ipynb"]
    done = subprocess.run([sys.executable, "-m", "uqlib.cli", *run], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [row] = tomllib.loads((copy / "data/ledger/guo2017.toml").read_text())["row"]
    found = {result["quantity"] for result in json.loads(record.read_text())["results"]}
    assert {claim["quantity"] for claim in row["claim"]} == {each for each in found if not each.startswith("card_")}
    assert {"card_accuracy", "card_change_ece", "card_cost"} <= found  # so that it can be compared with others


def test_its_own_test_passes(copy, repository):
    test = ["-p", "no:cacheprovider", "-q", "tests/papers/test_guo2017.py"]
    (copy / "tests/conftest.py").write_text((repository / "tests/conftest.py").read_text())
    for name in ("pyproject.toml", "tests/typecheck.py"):
        (copy / name).write_text((repository / name).read_text())
    done = subprocess.run([sys.executable, "-m", "pytest", *test], cwd=copy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_a_paper_that_is_there_is_not_written_over(copy):
    with pytest.raises(ValueError, match=r"guo2017\.toml is there already"):
        skeleton.new_paper("guo2017", **PAPER, checkout=copy)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("Guo2017", {}, "letters and a year, such as guo2017; it is 'Guo2017'"),
        ("../x2017", {}, "letters and a year"),
        ("guo2018", {"title": 'A "quote"'}, "title must be a text without quotes"),
        ("guo2018", {"author": "a\nb"}, "author must be a text"),
        ("guo2018", {"eprint": "17"}, "eprint is a number at arXiv"),
    ],
)
def test_what_would_break_a_file_is_refused_and_nothing_is_written(copy, name, changes, message):
    before = sorted(copy.rglob("*2018*"))
    with pytest.raises(ValueError, match=message):
        skeleton.new_paper(name, **{**PAPER, **changes}, checkout=copy)
    assert sorted(copy.rglob("*2018*")) == before


def test_the_chapter_goes_to_the_end_of_the_papers():
    toc = "parts:\n  - caption: Papers\n    chapters:\n      - file: a/index\n  - caption: More\n    chapters: []\n"
    assert skeleton._with_chapter(toc, "b2000").splitlines()[4:7] == [
        "      - file: b2000/index",
        "        sections:",
        "          - file: results/b2000/question",
    ]
    with pytest.raises(ValueError, match="no part with the caption Papers"):
        skeleton._with_chapter("parts: []\n", "b2000")
