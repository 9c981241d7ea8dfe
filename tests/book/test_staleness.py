"""What makes a run stale, and what does not: on a small checkout that is executed once, then on the real one."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest

from uqlib.book import notebooks, staleness, tracing
from uqlib.files import digests

CELLS = [
    """
import numpy as np
from pathlib import Path
from uqlib.files.whole import in_checkout, note_read
from uqlib.base.scales import at_scale
from uqlib.files.columns import read_column, read_header
size = at_scale(scale, smoke=2, cpu=3) * rate
""",
    """
text = open("data/a.txt").read()
header = read_header("data/table.safetensors")
column = read_column("data/table.safetensors", header, "x")
mapped = np.memmap("data/map.bin", "u1", "r")
found = sorted(path.name for path in Path("data").glob("*.csv"))
note_read("data/by_others.bin")
nothing = in_checkout("data/none.txt")
try:
    open("data/lost.txt")
except FileNotFoundError:
    pass
""",
    """
Path("data/made.txt").write_text("made")
Path("data/made.txt").read_text()
open("data/.hidden", "w").close()
open("uqlib_like.py", "w").close()
Path(record).write_text("{}") if record else None
print(size, text, float(column.sum()), sorted(name for name in globals() if "trac" in name or "note_reads" in name))
""",
]
READ = {"data/a.txt", "data/table.safetensors", "data/map.bin", "data/by_others.bin", "data/lost.txt"}


def write_notebook(
    path, cells, parameters='scale = "smoke"  # of the run\nrate = 1.0  # a factor\nrecord = ""  # of it'
):
    book = nbformat.v4.new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    book.cells = [
        nbformat.v4.new_markdown_cell("# Title"),
        nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]}),
    ]
    book.cells += [nbformat.v4.new_code_cell(cell.strip()) for cell in cells]
    for k, cell in enumerate(book.cells):
        cell["id"] = f"c{k}"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(book, path)
    return path


GIVEN = {"scale": "smoke", "rate": 2.0, "record": "book/results/p/one.json"}
NOTEBOOK, OUTPUT = Path("notebooks/p/one.ipynb"), Path("book/results/p/one.ipynb")


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A checkout without a package of its own, whose notebook ran once."""
    import numpy as np

    from uqlib.files.columns import write_table

    root = tmp_path_factory.mktemp("executed") / "checkout"
    (root / "data").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    for name in ("a.txt", "map.bin", "by_others.bin", "one.csv", "not_read.txt"):
        (root / "data" / name).write_text(name)
    write_table(root / "data/table.safetensors", {"x": np.arange(3.0)}, {})
    write_notebook(root / NOTEBOOK, CELLS)
    before = os.getcwd()
    os.chdir(root)
    time.sleep(0.02)  # a file that was written when the run had begun counts as unsettled
    try:
        staleness.execute_noted(NOTEBOOK, OUTPUT, GIVEN, progress=False)
    finally:
        os.chdir(before)
    return root


@pytest.fixture
def checkout(executed, tmp_path, monkeypatch):
    """A copy of it elsewhere, where everything has another inode and another time."""
    shutil.copytree(executed, tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


def reasons(given=GIVEN):
    return staleness.reasons(NOTEBOOK, OUTPUT, given, staleness.Checkout())


def test_the_basis_names_what_was_read_and_nothing_else(executed):
    basis = json.loads((executed / OUTPUT).with_suffix(".basis").read_text())
    assert set(basis["files"]) == READ
    assert basis["files"]["data/lost.txt"] == digests.ABSENT
    assert basis["there"] == {"data/none.txt": False}
    assert [entry[:2] for entry in basis["listed"]] == [["data", "*.csv"]]
    assert basis["parameters"] == {"scale": "'smoke'", "rate": "2.0"}
    assert {"python", "numpy"} <= set(basis["packages"])
    assert {"uqlib.base.scales.at_scale", "uqlib.files.columns.read_column"} <= set(basis["definitions"])
    assert "torch" not in basis["packages"]
    assert set(basis["outputs"]) == {"one.ipynb", "one.json", "one.figures"}


def test_no_trace_of_the_trace_is_in_the_copy(executed):
    body = json.loads((executed / OUTPUT).read_text())
    outputs = ["".join(each["text"]) for cell in body["cells"] for each in cell.get("outputs", [])]
    assert outputs == ["4.0 a.txt 3.0 []\n"]
    assert [cell["execution_count"] for cell in body["cells"] if cell["cell_type"] == "code"] == [1, 2, 3, 4, 5]
    assert "tracing" not in json.dumps(body)


def test_a_copied_folder_is_fresh(checkout):
    assert reasons() == []


def test_times_do_not_count(checkout):
    for path in checkout.rglob("*"):
        os.utime(path, (time.time() + 1000,) * 2)
    assert reasons() == []


def edit(path, old, new):
    path = Path(path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def edit_cell(k, old, new):
    body = json.loads(NOTEBOOK.read_text())
    text = "".join(body["cells"][k]["source"])
    assert old in text
    body["cells"][k]["source"] = text.replace(old, new)
    NOTEBOOK.write_text(json.dumps(body, indent=1))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda: edit("data/a.txt", "a", "b"), ["data/a.txt changed"]),
        (lambda: edit("data/map.bin", "map", "pam"), ["data/map.bin changed"]),
        (lambda: edit("data/by_others.bin", "by", "of"), ["data/by_others.bin changed"]),
        (lambda: os.remove("data/a.txt"), ["data/a.txt is gone"]),
        (lambda: Path("data/lost.txt").touch(), ["data/lost.txt is new"]),
        (lambda: Path("data/none.txt").touch(), ["data/none.txt is new"]),
        (lambda: Path("data/two.csv").touch(), ["other files data/*.csv"]),
        (lambda: Path("data/two.txt").touch(), []),
        (lambda: edit("data/not_read.txt", "not", "nor"), []),
        (lambda: edit("data/made.txt", "made", "makes"), []),  # written by the run itself
        (lambda: edit_cell(2, "* rate", "+ rate"), ["its cells changed"]),
        (lambda: edit_cell(2, "cpu=3", "cpu = 3"), [staleness.TEXT_ALONE]),
        (lambda: edit_cell(3, "text =", "# why\ntext ="), [staleness.TEXT_ALONE]),
        (lambda: edit_cell(4, "in name))", "in name));"), ["its cells changed"]),  # would keep an output back
        (lambda: edit_cell(0, "Title", "Another"), [staleness.TEXT_ALONE]),
        (lambda: edit_cell(1, "rate = 1.0", "rate = 3.0"), [staleness.TEXT_ALONE]),  # the run was given another
        (lambda: edit_cell(1, 'record = ""', 'seed = 0\nrecord = ""'), ["seed = 0"]),
        (lambda: edit_cell(2, "size", "size = ("), ["notebooks/p/one.ipynb: cell 2 is not Python: "]),
        (lambda: edit(OUTPUT, "Title", "Tilte"), ["one.ipynb is not as it was written"]),
        (lambda: os.remove(OUTPUT.with_suffix(".json")), ["one.json is gone"]),
        (lambda: os.remove(OUTPUT.with_suffix(".basis")), ["new"]),
        (lambda: OUTPUT.with_suffix(".basis").write_text("{"), ["new"]),
        (lambda: OUTPUT.with_suffix(".basis").write_text('{"version": 1}'), ["'outputs'"]),
        (lambda: edit(OUTPUT.with_suffix(".basis"), '"numpy": "', '"numpy": "0'), ["numpy "]),
        (lambda: edit(OUTPUT.with_suffix(".basis"), '"uqlib.base.scales.at_scale": "', '"uqlib.base.scales.at_scale": "0'),
         ["base.scales.at_scale changed"]),
        (lambda: Path("build/graph/files.json").write_text("[1]"), []),
        (lambda: shutil.rmtree("build"), []),
    ],
)  # fmt: skip
def test_one_change_and_its_reason(checkout, change, why):
    change()
    found = reasons()
    assert len(found) == len(why)
    assert all(one.startswith(other) for one, other in zip(found, why, strict=True)), found


def test_another_parameter_given(checkout):
    assert reasons(GIVEN | {"rate": 3.0}) == ["rate = 3.0"]
    assert reasons({"scale": "smoke"}) == ["rate = 1.0"]  # the default


def test_a_file_changed_within_the_tick_of_a_clock_is_read_again(checkout):
    assert reasons() == []
    status = os.stat("data/a.txt")
    Path("data/a.txt").write_text("b.txt")  # as long as before
    os.utime("data/a.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert reasons() == ["data/a.txt changed"]


def test_a_digest_is_kept_and_another_content_of_the_same_size_and_time_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(digests, "SETTLED", -10.0)  # else nothing so young is kept
    path, place = tmp_path / "a", tmp_path / "known.json"
    path.write_text("one")
    known = digests.FileDigests(place)
    first = known.digest(str(path))
    known.keep()
    with monkeypatch.context() as patch:
        patch.setattr(digests, "sha256_of_file", lambda path: "read again")
        assert digests.FileDigests(place).digest(str(path)) == first
    status = path.stat()
    path.write_text("two")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert digests.FileDigests(place).digest(str(path)) != first


def test_text_alone_is_taken_over_as_a_run_would(checkout):
    edit_cell(0, "Title", "Another")
    edit_cell(3, "text =", "# why\ntext =")
    staleness.refresh_copy(NOTEBOOK, OUTPUT, GIVEN)
    refreshed = OUTPUT.read_text()
    assert "# Another" in refreshed
    assert "# why" in refreshed
    assert reasons() == []
    notebooks.execute(NOTEBOOK, OUTPUT, GIVEN, progress=False)
    assert OUTPUT.read_text() == refreshed


def test_what_changes_while_the_notebook_runs_leaves_it_stale(executed, tmp_path, monkeypatch):
    root = tmp_path / "checkout"
    (root / "data").mkdir(parents=True)
    (root / "pyproject.toml").touch()
    (root / "data/a.txt").write_text("before")
    write_notebook(root / NOTEBOOK, ['open("data/a.txt").read(); open("data/a.txt", "a").write("x")'])
    monkeypatch.chdir(root)
    staleness.execute_noted(NOTEBOOK, OUTPUT, {"scale": "smoke"}, progress=False)
    assert staleness.reasons(NOTEBOOK, OUTPUT, {"scale": "smoke"}, staleness.Checkout()) == ["data/a.txt changed"]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("import uqlib.base.scales\nuqlib.base.scales.SCALES", {"base.scales.SCALES"}),
        ("%%time\nfrom uqlib.base.scales import SCALES\nSCALES", {"base.scales.SCALES"}),
        ("%%bash\nfrom uqlib import (", set()),
        (
            "%matplotlib inline\n!ls\nfiles = !ls\n?print\nfrom uqlib.base import scales\nscales.SCALES",
            {"base.scales.SCALES"},
        ),
        ("if True:\n    %time 1\nfrom uqlib.base import scales\nscales.SCALES", {"base.scales.SCALES"}),
        ('text = """\n% uqlib\n"""\nfrom uqlib.base import scales\nscales.SCALES', {"base.scales.SCALES"}),
    ],
)
@pytest.mark.parametrize("one_string", [True, False])
def test_cells_reach_through_what_is_for_the_shell(tmp_path, cell, expected, one_string):
    path = write_notebook(tmp_path / NOTEBOOK, [cell])
    body = json.loads(path.read_text())
    for each in body["cells"]:  # the format allows both
        text = "".join(each["source"])
        each["source"] = text if one_string else text.splitlines(keepends=True)
    path.write_text(json.dumps(body))
    found = staleness.Checkout(tmp_path).code_of(path, {})["definitions"]
    assert {name.removeprefix("uqlib.") for name in found} - {"<import>", "__version__"} == expected


def test_a_magic_that_changes_is_a_change(tmp_path):
    code = [
        staleness.Checkout(tmp_path).code_of(write_notebook(tmp_path / NOTEBOOK, [cell]), {})["cells"]
        for cell in ("%matplotlib inline\nx = 1", "%matplotlib agg\nx = 1", "%%bash\nls", "%%bash\nls -a")
    ]
    assert len({str(each) for each in code}) == 4


def test_roots_elsewhere_bear_names(tmp_path, monkeypatch):
    monkeypatch.setenv("UQLIB_STORE", str(tmp_path / "one"))
    folders = tracing.noted_folders(tmp_path / "checkout")
    name = tracing.name_of(str(tmp_path / "one/net/x.safetensors"), folders)
    assert name == "$UQLIB_STORE/net/x.safetensors"
    monkeypatch.setenv("UQLIB_STORE", str(tmp_path / "two"))
    assert tracing.path_of(name, tracing.noted_folders(tmp_path / "checkout")) == str(
        tmp_path / "two/net/x.safetensors"
    )
    monkeypatch.delenv("UQLIB_STORE")
    assert not os.path.exists(tracing.path_of(name, tracing.noted_folders(tmp_path / "checkout")))


def test_flags_are_younger_than_outputs_of_a_clock_that_ran_ahead(tmp_path):
    results, html, flags = tmp_path / "results", tmp_path / "html", tmp_path / "flags"
    output = results / "p/one.ipynb"
    output.parent.mkdir(parents=True)
    output.touch()
    os.utime(output, (time.time() + 9e6,) * 2)
    staleness.write_flags({"p/one": ["new"], "p/two": [staleness.TEXT_ALONE], "pages": ["x"]}, flags, results, html)
    assert {path.relative_to(flags).as_posix() for path in flags.rglob("*.stale")} == {"p/one.stale", "pages.stale"}
    assert output.stat().st_mtime < (flags / "p/one.stale").stat().st_mtime
    staleness.write_flags({}, flags, results, html)
    assert not list(flags.rglob("*.stale"))


def test_neither_numpy_nor_torch_is_needed_to_compare():
    code = "import sys; from uqlib.book import graph, notebooks, staleness; print({'numpy', 'torch', 'tqdm'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
