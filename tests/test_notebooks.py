import json

import nbformat
import pytest

from uqlib import notebooks

SOURCE = """scale = "cpu"  # one of the scales
rate = 0.1  # learning rate
names = ["a"]  # which
flag = True
"""


@pytest.fixture
def notebook(tmp_path):
    def write(*cells, tags=("parameters",), parameters=SOURCE):
        book = nbformat.v4.new_notebook(
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
        )
        book.cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": list(tags)})]
        book.cells += [nbformat.v4.new_code_cell(cell) for cell in cells]
        path = tmp_path / "small.ipynb"
        nbformat.write(book, path)
        return path

    return write


def test_parameters_with_type_default_and_meaning(notebook):
    found = notebooks.parameters(notebook())
    assert found["rate"] == ("rate", 0.1, "learning rate")
    assert [(p.name, p.kind) for p in found.values()] == [
        ("scale", "str"), ("rate", "float"), ("names", "list"), ("flag", "bool")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rat": 1.0}, r"unknown parameter 'rat' of .*; choose from scale, rate, names, flag"),
        ({"rate": "fast"}, r"parameter rate of .* takes float, such as 0.1; got 'fast'"),
        ({"names": "a"}, "takes list"),
        ({"names": [1]}, "takes list"),
        ({"flag": 1}, "takes bool"),
        ({"rate": True}, "takes float"),
        ({"scale": "huge"}, "unknown scale 'huge'; choose from smoke, cpu, gpu, paper"),
    ],
)
def test_what_papermill_would_ignore_is_refused(notebook, given, message):
    with pytest.raises(ValueError, match=message):
        notebooks.check_parameters(notebook(), given)


def test_an_int_serves_as_a_float(notebook):
    assert notebooks.check_parameters(notebook(), {"rate": 1}) == {"rate": 1.0}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [("rate", "1e-3", 1e-3), ("names", "['x', 'y']", ["x", "y"]), ("flag", "false", False), ("scale", "12", "12")],
)
def test_text_of_the_shell_is_read_as_the_type_of_the_default(notebook, name, text, value):
    assert notebooks.parse_parameter(notebook(), name, text) == value


def test_without_the_tag_papermill_would_run_the_defaults(notebook):
    with pytest.raises(ValueError, match="0 cells tagged 'parameters'"):
        notebooks.parameters(notebook(tags=()))


@pytest.mark.parametrize(
    ("source", "message"),
    [("a = b = 1\nc += 1", "line 2"), ("a = 1\nx =", "line 2"), ("%magic", "line 1"), ("a = open", "not a literal")],
)
def test_parameters_are_plain_assignments(notebook, source, message):
    with pytest.raises(ValueError, match=message):
        notebooks.parameters(notebook(parameters=source))


@pytest.mark.parametrize(
    "text", ["", "{", "{}", "[]", '{"nbformat": 3, "worksheets": []}', '{"nbformat": 4, "cells": [{}]}']
)
def test_what_is_no_notebook_is_named(tmp_path, text):
    path = tmp_path / "odd.ipynb"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"odd\.ipynb is not a notebook of format 4"):
        notebooks.parameters(path)


def test_a_notebook_without_kernelspec_runs(notebook, tmp_path):
    path = notebook("print(rate)")
    body = json.loads(path.read_text())
    body["metadata"] = {}
    path.write_text(json.dumps(body))
    assert notebooks.execute(path, tmp_path / "copy.ipynb", {}, progress=False).is_file()


def test_a_missing_notebook_lists_its_neighbours(notebook):
    path = notebook()
    with pytest.raises(FileNotFoundError, match=r"no notebook at .*smal\.ipynb; those of this folder: .*small\.ipynb"):
        notebooks.parameters(path.with_name("smal.ipynb"))


def test_execution_sets_parameters_and_leaves_no_trace_of_time(notebook, tmp_path):
    out = notebooks.execute(notebook("print(rate * 2)"), tmp_path / "out/copy.ipynb", {"rate": 2.0}, progress=False)
    body = json.loads(out.read_text())
    assert [path.name for path in out.parent.iterdir()] == ["copy.ipynb"]
    assert any("4.0" in "".join(o.get("text", "")) for cell in body["cells"] for o in cell.get("outputs", []))
    assert "papermill" not in out.read_text()
    assert "uqlib run" in body["cells"][-1]["source"]
    assert "-p rate 2.0" in body["cells"][-1]["source"]


def test_two_runs_are_equal_byte_for_byte(notebook, tmp_path):
    source = notebook("import random; random.seed(0); print(random.random())")
    first, second = (notebooks.execute(source, tmp_path / f"{i}.ipynb", {}, progress=False) for i in (1, 2))
    assert first.read_bytes() == second.read_bytes()


def test_a_failed_run_leaves_nothing_under_the_final_name(notebook, tmp_path):
    out = tmp_path / "out/copy.ipynb"
    with pytest.raises(
        RuntimeError, match=r"raised ZeroDivisionError: division by zero\nThe run up to there: .*failed"
    ):
        notebooks.execute(notebook("1 / 0"), out, {}, progress=False)
    assert [path.name for path in out.parent.iterdir()] == ["copy.failed.ipynb"]


def test_sources_follow_the_imports(notebook):
    names = {path.name for path in notebooks.sources(notebook("from uqlib import ledger"))}
    assert {"ledger.py", "records.py", "scales.py", "__init__.py"} <= names
    assert "plots.py" not in names


def test_every_notebook_of_the_project_is_stored_clean(repository):
    paths = notebooks.paths(repository / "notebooks")
    assert paths
    for path in paths:
        body = json.loads(path.read_text())
        assert "scale" in notebooks.parameters(path)
        assert all(parameter.meaning for parameter in notebooks.parameters(path).values()), path
        assert body["metadata"]["kernelspec"]["name"] == "python3"
        for cell in body["cells"]:
            assert not cell.get("outputs"), path
            assert cell.get("execution_count") is None, path
