import fcntl
import json
import math
import re
import shlex
from pathlib import Path

import nbformat
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uqlib.book import notebooks, staleness

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


@pytest.mark.parametrize(
    ("default", "text", "value"),
    [
        ("None", "3", 3),
        ("None", "[1, 2]", [1, 2]),
        ("None", "word", "word"),
        ("None", "inf", math.inf),
        ("1.0", "inf", math.inf),
        ("1.0", "-inf", -math.inf),
        ("-1", "-5", -5),
        ("1e-3", "2e-4", 2e-4),
        ("(1, 2)", "(3, 4, 5)", (3, 4, 5)),
        ("(1, 2)", "[3]", (3,)),
        ("()", "(1,)", (1,)),
        ("{'a': 1}", "{'b': 2.5}", {"b": 2.5}),
        ("['a']", "['x', \"it's\"]", ["x", "it's"]),
        ("''", "`$(touch no)` \\ 'x' \"y\" {z}", "`$(touch no)` \\ 'x' \"y\" {z}"),
        ("''", "two\nlines", "two\nlines"),
    ],
)
def test_every_kind_of_parameter_is_set_and_its_command_sets_it_again(notebook, tmp_path, default, text, value):
    path = notebook(parameters=f"p = {default}\n")
    given = notebooks.check_parameters(path, {"p": notebooks.parse_parameter(path, "p", text)})
    assert given == {"p": value}
    assert type(given["p"]) is type(value)
    code = notebooks.with_parameters(json.loads(path.read_text()), given)["cells"][1]["source"]
    found = {}
    exec(code, found)
    assert found["p"] == value
    assert type(found["p"]) is type(value)
    listing = notebooks.how_to_repeat(path, given, "x").split("sh\n", 1)[1]
    command = shlex.split(listing[: listing.rindex("\n```")])
    assert command[:2] == ["uqlib", "run"]
    assert command[3:5] == ["-p", "p"]
    assert notebooks.check_parameters(path, {"p": notebooks.parse_parameter(path, "p", command[5])}) == given


def test_nan_is_a_float(notebook):
    path = notebook(parameters="c = 1.0\nn = None")
    given = notebooks.check_parameters(path, {name: notebooks.parse_parameter(path, name, "nan") for name in "cn"})
    assert all(math.isnan(value) for value in given.values())


def test_annotations_and_chains_are_parameters(notebook):
    found = notebooks.parameters(notebook(parameters="a: int = 1  # one\nb = c = 2.5\n"))
    assert [(p.name, p.default, p.meaning) for p in found.values()] == [("a", 1, "one"), ("b", 2.5, ""), ("c", 2.5, "")]


@pytest.mark.parametrize(
    ("value", "message"),
    [({1}, "takes a number, a text"), ("\udce4", "no text"), (object(), "takes a number")],
)
def test_what_cannot_be_written_is_refused_before_the_run(notebook, value, message):
    with pytest.raises(ValueError, match=message):
        notebooks.check_parameters(notebook(parameters="b = None"), {"b": value})


def test_without_the_tag_papermill_would_run_the_defaults(notebook):
    with pytest.raises(ValueError, match="0 cells tagged 'parameters'"):
        notebooks.parameters(notebook(tags=()))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("a = b = 1\nc += 1", "line 2"),
        ("a = 1\nx =", "line 2"),
        ("%magic", "line 1"),
        ("a = open", "not a literal"),
        ('x = """', "line 1 of the parameters is not a plain"),
        ("a = 1\na = 2", "line 2 of the parameters sets a for the second time"),
        ("a: int", "line 1"),
        ("a = {1, 2}", "the default of a must be a number, a text"),
        ("a = " + "(" * 500 + ")" * 500, "not a"),
        ("a = " + "-" * 20_000 + "1", "not a"),
        ("a, b = 1, 2", "line 1"),
        ("a = '\0'", "not a plain"),
    ],
)
def test_parameters_are_plain_assignments(notebook, source, message):
    with pytest.raises(ValueError, match=message):
        notebooks.parameters(notebook(parameters=source))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "{}",
        "[]",
        '{"nbformat": 3, "worksheets": []}',
        '{"nbformat": 4, "cells": [{}]}',
        '{"nbformat": 4, "metadata": [], "cells": []}',
        '{"nbformat": 4, "metadata": {}, "cells": {}}',
        '{"nbformat": 4, "metadata": {}, "cells": [{"cell_type": "code", "metadata": [], "source": ""}]}',
        '{"nbformat": 4, "metadata": {}, "cells": [{"cell_type": "code", "metadata": {"tags": 3}, "source": ""}]}',
        '{"nbformat": 4, "metadata": {}, "cells": [{"cell_type": "code", "metadata": {}, "source": [3]}]}',
        '{"nbformat": 4, "metadata": {}, "cells": [{"cell_type": "x", "metadata": {}, "source": ""}]}',
        '{"nbformat": 4, "nbformat_minor": "x", "metadata": {}, "cells": []}',
        "[" * 100_000,
        "\udcff",
    ],
)
def test_what_is_no_notebook_is_named(tmp_path, text):
    path = tmp_path / "odd.ipynb"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(ValueError, match=r"odd\.ipynb is not a notebook of format 4"):
        notebooks.parameters(path)


def test_a_notebook_without_kernelspec_runs(notebook, tmp_path):
    path = notebook("print(rate)")
    body = json.loads(path.read_text())
    body["metadata"] = {}
    path.write_text(json.dumps(body))
    assert notebooks.execute(path, tmp_path / "copy.ipynb", {}, progress=False).is_file()


def test_a_missing_notebook_lists_its_neighbours(notebook, monkeypatch):
    path = notebook()
    with pytest.raises(FileNotFoundError, match=r"no notebook at .*smal\.ipynb; the nearest here: \S*small\.ipynb"):
        notebooks.parameters(path.with_name("smal.ipynb"))
    monkeypatch.chdir(Path(__file__).parents[2])
    with pytest.raises(FileNotFoundError, match=r"the nearest here: notebooks/hendrycks2019/strengths\.ipynb"):
        notebooks.parameters("hendrycks2019/strengths")


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
    notebooks.execute(notebook("1 / 1"), out, {}, progress=False)
    assert [path.name for path in out.parent.iterdir()] == ["copy.ipynb"]  # a later success takes it away


def test_a_kernel_that_dies_leaves_notebook_cell_and_copy(notebook, tmp_path):
    path, out = notebook("print('before')", "import os; os._exit(3)", "print('after')"), tmp_path / "out/copy.ipynb"
    with pytest.raises(
        RuntimeError, match=r"small\.ipynb: the kernel died in cell 2; .*\nThe run up to there: .*failed"
    ):
        notebooks.execute(path, out, {}, progress=False)
    body = json.loads((out.parent / "copy.failed.ipynb").read_text())
    assert body["cells"][1]["outputs"][0]["text"] == ["before\n"]


CHANCE = """
%config InlineBackend.figure_formats = ["svg"]
import os, sys, warnings
import matplotlib.pyplot as plt
plt.rcParams["svg.hashsalt"] = "salt"
warnings.warn("here")
print("one"); print("two", flush=True); print("three")
fig, ax = plt.subplots(); ax.plot([0, 1]); ax.legend(["x"])
"""


def test_two_runs_of_a_notebook_with_figures_and_warnings_are_equal_byte_for_byte(notebook, tmp_path):
    path = notebook(CHANCE, "object()")
    body = json.loads(path.read_text())
    for cell in body["cells"][1:]:
        del cell["id"]  # as format 4.4 has it; papermill would draw one
    path.write_text(json.dumps(body | {"nbformat_minor": 4}))
    first, second = (notebooks.execute(path, tmp_path / f"{i}.ipynb", {"rate": 2.0}, progress=False) for i in (1, 2))
    text = first.read_text()
    assert "svg" in text
    assert "UserWarning: here" in text
    assert "dc:date" not in text
    assert first.read_bytes() == second.read_bytes()
    ids = [cell["id"] for cell in json.loads(text)["cells"]]
    assert len(set(ids)) == len(ids)


def test_a_copy_can_be_run_again(notebook, tmp_path):
    first = notebooks.execute(notebook("print(rate)"), tmp_path / "first.ipynb", {"rate": 2.0}, progress=False)
    second = notebooks.execute(first, tmp_path / "second.ipynb", {"rate": 3.0}, progress=False)
    body = json.loads(second.read_text())
    assert sum("injected-parameters" in cell["metadata"].get("tags", []) for cell in body["cells"]) == 1
    assert body["cells"][2]["outputs"][0]["text"] == ["3.0\n"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("", "is a folder; name a file in it, such as .*copy.ipynb"),
        ("x" * 250 + ".ipynb", "nothing can be written at .*: File name too long; choose another"),
        ("file/copy.ipynb", "nothing can be written at .*: (Not a directory|File exists)"),
    ],
)
def test_where_nothing_can_be_written_nothing_is_run(notebook, tmp_path, name, message):
    (tmp_path / "file").touch()
    marker = tmp_path / "ran"
    with pytest.raises(ValueError, match=message):
        notebooks.execute(notebook(f"open({str(marker)!r}, 'w')"), tmp_path / name, {}, progress=False)
    assert not marker.exists()


def test_what_killed_writers_left_is_removed_at_the_next_start(notebook, tmp_path):
    left, written = tmp_path / ".copy.ipynb.0a1b2c3d.unfinished", tmp_path / ".copy.ipynb.4e5f6a7b.unfinished"
    figure = tmp_path / "copy.figures/.line.svg.0a1b2c3d.unfinished"
    figure.parent.mkdir()
    for path in (left, figure):
        path.touch()
    with open(written, "wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # as a process that is at it
        notebooks.execute(notebook(), tmp_path / "copy.ipynb", {}, progress=False)
        assert written.exists()
    assert not left.exists()
    assert not figure.exists()


def test_another_run_has_another_name(notebook):
    path = notebook(parameters=SOURCE + 'record = ""\nseed = 0\n')
    names = [
        notebooks.default_output(path, given).name
        for given in (
            {},
            {"seed": 0},
            {"scale": "smoke"},
            {"seed": 1},
            {"seed": 2},
            {"seed": 1, "rate": 0.2},
            {"record": "x"},
        )
    ]
    assert names[:3] == ["small.cpu.ipynb", "small.cpu.ipynb", "small.smoke.ipynb"]
    assert names[6] == "small.cpu.ipynb"
    assert len(set(names[3:6])) == 3
    assert all(re.fullmatch(r"small\.cpu\.[0-9a-f]{8}\.ipynb", name) for name in names[3:6])


def test_a_cell_that_is_not_python_is_named(notebook):
    with pytest.raises(ValueError, match=r"small\.ipynb: cell 2 is not Python: .*was never closed"):
        staleness.outline(notebook("x = 1", "y = ("), {})


def test_the_command_is_that_of_the_checkout_wherever_it_was_run(repository, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = repository / "notebooks/zhou2025/one_pair.ipynb"
    assert "\nuqlib run notebooks/zhou2025/one_pair.ipynb -p seed 1\n" in notebooks.how_to_repeat(
        path, {"seed": 1}, "x"
    )


@given(st.data())
@settings(max_examples=100)
def test_a_damaged_notebook_is_named_or_read(repository, tmp_path_factory, data):
    content = bytearray((repository / "notebooks/cui2023/measures.ipynb").read_bytes()[:3000] + b'"]}]}')
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.ipynb"
    path.write_bytes(content)
    for read in (notebooks.parameters, lambda path: staleness.outline(path, {})):
        try:
            found = read(path)
        except ValueError as error:
            found = str(error)
        assert not isinstance(found, str) or "damaged.ipynb" in found


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
