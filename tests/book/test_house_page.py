"""The tree of the README and the API page follow the folders."""

import pytest

from uqlib.book import house


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of two families, one with a folder in it."""
    monkeypatch.setattr(house, "FAMILIES", ("late", "early"))
    for place, text in {
        "early/__init__": "Early things.",
        "early/one": "One of Smith et al. 2020: what it does. A second sentence.",
        "late/__init__": "Late things, and\nmore of them.\n\nA paragraph",
        "late/inner/__init__": "Inner.",
        "late/inner/two": f"{' '.join(['Word'] * 12)}: and, {'more ' * 12}.",
    }.items():
        path = tmp_path / "pack" / f"{place}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'"""{text}\n"""\n')
    return tmp_path / "pack"


def test_the_tree_has_a_line_a_file_in_the_order_of_the_families(package):
    lines = house.tree(package).splitlines()
    assert [line.split()[0] for line in lines] == ["late/", "inner/", "two", "early/", "one"]
    assert lines[0].endswith("Late things, and more of them.")
    assert lines[4].endswith("One of Smith et al. 2020: what it does")
    assert lines[2].split(maxsplit=1)[1] == " ".join(["Word"] * 12) + ": and"  # up to the last clause that fits


def test_the_tree_goes_between_its_marks_and_nowhere_else(package):
    text = f"a\n{house.START}old\n{house.END}\nb"
    assert house.with_tree(text, package) == f"a\n{house.START}{house.tree(package)}{house.END}\nb"
    with pytest.raises(ValueError, match="the README has no place for the tree"):
        house.with_tree("a", package)


def test_the_api_page_names_every_module(package):
    page = house.api_page(package)
    assert [line.split()[-1] for line in page.splitlines() if line.startswith("###")] == [
        "pack.late.inner", "pack.late.inner.two", "pack.early.one",
    ]  # fmt: skip


def test_a_file_without_a_docstring_is_named(package):
    (package / "late/three.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match=r"three\.py has no docstring"):
        house.tree(package)
