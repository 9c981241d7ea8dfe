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


def test_the_pages_of_the_api_name_every_module_and_its_public_functions(package, monkeypatch):
    monkeypatch.setattr(house, "API", ("early", "late"))
    (package / "early/one.py").write_text(
        '"""One | two."""\ndef f():\n    """x"""\n\ndef _g():\n    """x"""\n\ndef h():\n    """x"""\n'
    )
    (package / "early/__init__.py").write_text('"""Early."""\n__all__ = ["f"]\n')
    pages = house.api_pages(package)
    assert list(pages) == ["api/early", "api/late", "api"]
    assert [line for line in pages["api/late"].splitlines() if line.startswith("## ")] == ["## pack.late.inner.two"]
    assert "| [`one`](#file-one) | One \\| two. | {py:obj}`f <pack.early.one.f>` |" in pages["api/early"]
    assert "| [`pack.early`](results/api/early.md) | Early. | 1 |" in pages["api"]


def test_a_file_without_a_docstring_is_named(package):
    (package / "late/three.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match=r"three\.py has no docstring"):
        house.tree(package)


def test_where_the_book_is_to_be_had_comes_from_the_project(tmp_path):
    project = tmp_path / "pyproject.toml"
    project.write_text('[project.urls]\nRepository = "https://example.org/us/trusted.git"\n')
    assert house.get_it(project) == "```sh\ngit clone https://example.org/us/trusted.git\ncd trusted\n```\n"
    project.write_text("[project]\n")
    assert "Unpack the archive" in house.get_it(project)


def test_files_in_folders_of_folders_have_their_place(tmp_path, monkeypatch):
    """What stands in the tree is a file that can be imported by its dotted name, however deep it lies."""
    package = tmp_path / "toy"
    for place in (
        "base/__init__",
        "base/one",
        "base/inner/__init__",
        "base/inner/deep/__init__",
        "base/inner/deep/two",
        "base/inner/three",
        "base/zero",
    ):
        path = package / f"{place}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('"""What it is."""\n')
    monkeypatch.setattr(house, "FAMILIES", ("base",))
    (family,) = house.families(package)
    assert [name for name, _ in house._modules(package, family)] == [
        "toy.base.inner.deep.two", "toy.base.inner.three", "toy.base.one", "toy.base.zero"
    ]  # fmt: skip
