import ast
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import nbformat
import pytest

from uqlib import cli
from uqlib.commands import parsing, stores
from uqlib.evidence import records

NOTEBOOK = "notebooks/zhou2025/one_pair.ipynb"


@pytest.fixture(autouse=True)
def _in_the_checkout(repository, monkeypatch):
    monkeypatch.chdir(repository)


def test_run_sets_parameters_and_writes_the_record(tmp_path, capsys):
    out = tmp_path / "copy.ipynb"
    code = cli.main(["run", NOTEBOOK, "--scale", "smoke", "-p", "small", "cifar_resnet32", "-p", "seed", "7",
                     "-o", str(out)])  # fmt: skip
    assert code == 0, capsys.readouterr().err
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["scale"] == "smoke"
    assert record["parameters"]["seed"] == 7
    settings = {result["setting"] for result in record["results"]}
    assert settings
    assert all("ResNet-32" in setting for setting in settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-p", "sede", "1"], "unknown parameter 'sede'"),
        (
            ["-p", "seed", "one"],
            "parameter seed of notebooks/zhou2025/one_pair.ipynb takes int, such as 0; got 'one'",
        ),
        (["--scale", "huge"], "unknown scale 'huge'; choose from smoke, cpu, gpu, paper"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(options, message, capsys):
    assert cli.main(["run", NOTEBOOK, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_a_network_that_the_benchmark_lacks_is_named(tmp_path, capsys):
    code = cli.main(["run", NOTEBOOK, "-p", "large", "resnet18", "-o", str(tmp_path / "copy.ipynb")])
    assert code == 1
    assert "unknown network of cifar10 'resnet18'; choose from cifar_resnet56" in capsys.readouterr().err


def test_parameters_are_listed(capsys):
    assert cli.main(["parameters", NOTEBOOK]) == 0
    assert "scale = 'cpu'  (str)" in capsys.readouterr().out


def test_plain_papermill_runs_the_same_notebook(tmp_path):
    papermill = Path(sys.executable).with_name("papermill")
    subprocess.run(
        [papermill, NOTEBOOK, tmp_path / "copy.ipynb", "-p", "scale", "smoke", "-p", "record", tmp_path / "record.json",
         "--no-progress-bar"],
        check=True, capture_output=True,
    )  # fmt: skip
    assert json.loads((tmp_path / "record.json").read_text())["results"]


def test_same_seed_same_bits(tmp_path):
    results = []
    for name in ("first", "second"):
        out = tmp_path / f"{name}.ipynb"
        assert cli.main(["run", NOTEBOOK, "--scale", "smoke", "-o", str(out)]) == 0
        results.append(json.loads(out.with_suffix(".json").read_text())["results"])
    assert results[0] == results[1]


def test_ledger_prints_every_claim(capsys):
    assert cli.main(["ledger"]) == 0
    assert "zhou2025-F5-ours" in capsys.readouterr().out


def test_the_store_is_filled_explained_listed_and_verified(tmp_path, weights_folder, capsys):
    root = ["--root", str(tmp_path)]
    asked = ["cifar_resnet20", "digits", "--weights", str(weights_folder / "cifar10_resnet20.safetensors"), *root]

    def said(*command):
        code = cli.main(list(command))
        return code, capsys.readouterr().out

    assert "no entry at all" in said("store", "explain", *asked)[1]
    assert said("store", "fill", *asked)[0] == 0
    assert "present: " in said("store", "explain", *asked)[1]
    assert "digits.test" in said("store", "list", *root)[1]
    assert said("store", "verify", *root) == (0, "1 folders searched, 0 damaged files\n")
    (path,) = tmp_path.glob("*/*.safetensors")
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert said("store", "verify", *root) == (1, "1 folders searched, 1 damaged files\n")
    code, out = said("store", "fill", *asked, "--corruption", "fog", "--severity", "2")
    assert code == 0
    assert "digits_c.fog-2" in out


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["data", "show", "cifar11"], "unknown data set 'cifar11'; choose from digits, cifar10"),
        (["data", "show", "digits", "val"], "unknown split 'val' of digits; choose from train, test"),
        (["data", "show", "digits", "--corruption", "fogg"], "unknown corruption 'fogg'; choose from gaussian_noise"),
        (["data", "show", "digits", "--corruption", "fog", "--severity", "9"], "severity must be 1, 2, 3, 4 or 5"),
        (["store", "fill", "cifar_resnt20", "digits"], "unknown network 'cifar_resnt20'; close names: cifar_resnet20"),
        (["store", "verify", "--root", "nowhere"], "there is no folder nowhere"),
        (["run", "nope.ipynb"], "no notebook at nope.ipynb"),
    ],
)
def test_what_is_unknown_is_named_beside_what_is_known(command, message, capsys):
    assert cli.main(command) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["store", "list", "--root", "/nowhere"], "there is no folder /nowhere"),
        (
            ["store", "fill", "cifar_resnet20", "digits", "--batch", "0"],
            "--batch: it must be a whole number of at least 1",
        ),
        (["store", "fill", "cifar_resnet20", "digits", "--batch", "many"], "--batch: it must be a whole number"),
        (
            ["store", "fill", "cifar_resnet20", "digits", "--workers", "0"],
            "--workers: it must be a whole number of at least",
        ),
        (
            ["store", "fill", "cifar_resnet20", "digits", "--worker", "-1"],
            "--worker: it must be a whole number of at least 0",
        ),
        (["data", "show", "digits", "--corruption", "fog", "--severity", "-1"], "severity must be 1, 2, 3, 4 or 5"),
        (["data", "show", "digits", "--severity", "2"], "--severity is 2, of no corruption; name one by --corruption"),
        (["run", NOTEBOOK, "-p", "seed", "1", "-p", "seed", "2"], "parameter seed is given twice: 1 and '2'"),
        (["run", NOTEBOOK, "-p", "scale", "cpu", "--scale", "smoke"], "--scale is 'smoke' and -p scale 'cpu'"),
        (["run", NOTEBOOK, "-o", "notebooks"], "notebooks is a folder; name a file in it"),
        (["run", NOTEBOOK, "-p", "seed"], "argument -p: expected 2 arguments; see uqlib run --help"),
        (["run"], "the following arguments are required: notebook; see uqlib run --help"),
        (["sing"], "invalid choice: 'sing'"),
        (["book", "--jobs", "0"], "argument --jobs: it must be a whole number of at least 1; got '0'"),
        (["ledger", "--records", "nowhere"], "there is no file or folder"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_by_name(command, message, capsys):
    assert cli.main(command) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_a_device_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"--device is 'cuda:99'; this machine has .*cpu"):
        parsing.choose_device("cuda:99")
    with pytest.raises(ValueError, match="--device is 'gpu'; this machine has"):
        parsing.choose_device("gpu")
    assert parsing.choose_device("cpu") == "cpu"


def test_an_empty_store_says_so(tmp_path, capsys):
    assert cli.main(["store", "list", "--root", str(tmp_path)]) == 0
    assert f"nothing is stored in {tmp_path}" in capsys.readouterr().out


def test_a_fault_of_our_own_is_told_from_a_mistake_and_can_be_looked_into(monkeypatch, capsys):
    def broken(*_):
        """Fail as our own bugs do."""
        return {}["versions"]

    monkeypatch.setattr(stores, "do_data_list", broken)
    assert cli.main(["data", "list"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("uqlib: a fault of its own, KeyError: 'versions' (test_cli.py, line ")
    assert len(error.strip().splitlines()) == 1
    with pytest.raises(KeyError):
        cli.main(["--debug", "data", "list"])  # the advice
    monkeypatch.setenv("UQLIB_DEBUG", "1")
    with pytest.raises(KeyError):
        cli.main(["data", "list"])


def small(path, *cells, parameters="x = 1"):
    body = nbformat.v4.new_notebook()
    body.cells = [nbformat.v4.new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    body.cells += map(nbformat.v4.new_code_cell, cells)
    nbformat.write(body, path)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_run_in_one_line_and_leaves_nothing(tmp_path, number, code):
    small(tmp_path / "sleep.ipynb", "import os; open('pid', 'w').write(str(os.getpid()))\nimport time; time.sleep(60)")
    command = [sys.executable, "-m", "uqlib.cli", "run", "sleep.ipynb", "-o", "out/copy.ipynb"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    deadline = time.monotonic() + 60
    while not ((tmp_path / "pid").exists() and (tmp_path / "pid").read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == code
    assert output == f"uqlib: stopped by {number.name}; what was begun is not kept\n"
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_text_is_utf_8_whatever_the_locale(repository):
    bare = os.environ | {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "LANG": "C"}
    bare.pop("PYTHONIOENCODING", None)
    for command in (["ledger"], ["parameters", "notebooks/cui2023/measures.ipynb"]):
        done = subprocess.run(
            [sys.executable, "-m", "uqlib.cli", *command], cwd=repository, env=bare, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == b""
        done.stdout.decode("utf-8")


def test_no_file_is_read_or_written_in_the_encoding_of_the_locale(repository):
    for path in sorted((repository / "uqlib").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                what = ast.unparse(node.func)
                bare = what == "open" or (what.endswith((".read_text", ".write_text")) and what[:6] != "files.")
                modes = [
                    each.value for each in node.args if isinstance(each, ast.Constant) and isinstance(each.value, str)
                ]
                said = any(each.arg == "encoding" for each in node.keywords) or any("b" in mode for mode in modes)
                assert not bare or said, f"{path.name}, line {node.lineno}: {ast.unparse(node)}"


def make_checkout(folder):
    """A checkout with a paper that has one claim, a notebook that tests it, and a published record of it."""
    for name, text in {
        "pyproject.toml": "",
        "data/ledger/p2020.toml": LEDGER,
        "deep/er/x": "",
        "notebooks/p2020/x": "",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    small(
        folder / "notebooks/p2020/one.ipynb",
        "from types import SimpleNamespace\n"
        "from uqlib.evidence import records\n"
        "run = records.start_run('p2020/one', scale=scale, parameters={'seed': seed}, path=record)\n"
        "run.add('change', SimpleNamespace(value=seed - 2, low=seed - 3, high=seed - 1, level=0.95), setting='digits', covers=['examples'])\n"
        "run.save();",
        parameters='scale = "cpu"\nseed = 0\nrecord = ""',
    )
    run = records.start_run("p2020/one", scale="cpu", parameters={}, path=folder / "data/records/p2020/one.json")
    run.add("change", SimpleNamespace(value=-1, low=-2, high=-0.5, level=0.95), setting="digits", covers=["examples"])
    run.save()
    return folder


@pytest.fixture
def checkout(tmp_path):
    return make_checkout(tmp_path)


LEDGER = """paper = "p2020"
title = "T"
cite = "c"
[[row]]
id = "p2020-T1"
shows = "it"
[[row.claim]]
id = "p2020-T1-a"
text = "it falls"
quantity = "change"
holds = "< 0"
"""


@pytest.mark.parametrize("folder", ["", "deep/er", "data"])
def test_the_ledger_is_printed_from_every_folder_of_the_checkout(checkout, folder, monkeypatch, capsys):
    monkeypatch.chdir(checkout / folder)
    assert cli.main(["ledger"]) == 0
    assert capsys.readouterr().out.split() == ["p2020-T1-a", "cpu", "confirmed", "it", "falls"]


def test_a_record_of_a_notebook_that_is_gone_is_named_and_does_not_count(checkout, monkeypatch, capsys):
    monkeypatch.chdir(checkout)
    (checkout / "notebooks/p2020/one.ipynb").unlink()
    assert cli.main(["ledger"]) == 0
    out, err = capsys.readouterr()
    assert out.split()[:3] == ["p2020-T1-a", "-", "open"]
    assert "data/records/p2020/one.json is of a notebook that is not there any more; it does not count" in err


def test_ones_own_record_is_judged_by_naming_it(checkout, monkeypatch, capsys):
    run = records.start_run(
        "p2020/one", scale="cpu", parameters={"seed": 1}, path=checkout / "build/runs/p2020/one.cpu.a.json"
    )
    run.add("change", 1.0, setting="digits")
    own = run.save()
    monkeypatch.chdir(checkout / "deep")
    assert cli.main(["ledger", "--records", str(own)]) == 0
    assert "undecided" in capsys.readouterr().out


@pytest.fixture(scope="module")
def run_once(tmp_path_factory):
    """The same with the book's own run of the notebook, as `make book` calls it."""
    folder = make_checkout(tmp_path_factory.mktemp("own"))
    with contextlib.chdir(folder):
        own = ["--basis", "--scale", "cpu", "-p", "seed", "0", "-o", "book/results/p2020/one.ipynb"]
        assert cli.main(["run", "notebooks/p2020/one.ipynb", *own]) == 0
    return folder


@pytest.fixture
def published(run_once, tmp_path, monkeypatch):
    """The record of that run, in a copy of the checkout, where the test stands."""
    monkeypatch.chdir(shutil.copytree(run_once, tmp_path / "copy"))
    return Path("book/results/p2020/one.json")


def test_a_run_stands_beside_the_published_one_and_never_in_its_place(published, capsys):
    before = published.read_bytes()
    assert cli.main(["ledger"]) == 0
    told = capsys.readouterr()
    assert cli.main(["run", "notebooks/p2020/one.ipynb", "-p", "seed", "1"]) == 0
    out = capsys.readouterr().out
    assert "parameter seed  1" in out
    assert "p2020-T1-a  direction only  confirmed  verdict changed" in out
    assert re.search(r"  digits +-1 \[-2, 0\] +-2 \[-3, -1\] +inside the interval", out)
    page = Path(out.split()[-1])
    assert page.match("build/runs/p2020/one.cpu.*.compare.html")
    assert not list(Path("book/results").rglob("*.html"))  # the book's own run has nothing beside it
    assert re.search(r"<td>-1 \[-2, 0\]</td>\s*<td>-2 \[-3, -1\]</td>", page.read_text())
    assert cli.main(["ledger"]) == 0
    assert capsys.readouterr() == told
    assert published.read_bytes() == before


def test_check_repeats_a_published_run_and_fails_where_it_does_not_stand(published, capsys):
    check = ["check", "notebooks/p2020/one.ipynb"]
    assert cli.main(check) == 0
    out = capsys.readouterr().out
    assert "parameters      the same" in out
    assert "code and files  the same" in out
    assert "p2020-T1-a  confirmed  confirmed  same bits" in out
    notebook = Path("notebooks/p2020/one.ipynb")
    notebook.write_text(notebook.read_text().replace("seed - 1", "seed + 1"))
    assert cli.main(check) == 1
    out = capsys.readouterr().out
    assert "code and files  its cells changed" in out
    assert "p2020-T1-a  undecided  confirmed  verdict changed" in out
    assert cli.main([*check, "--scale", "gpu"]) == 2
    error = capsys.readouterr().err
    assert "no published run of p2020/one at scale gpu" in error
    assert "snakemake --cores 1 --config scale=gpu -- book/results/p2020/one.json" in error


def test_check_repeats_what_was_run_elsewhere_with_its_parameters(published, capsys):
    run = records.start_run("p2020/one", scale="gpu", parameters={"seed": 5}, path="data/records/p2020/one.gpu.json")
    wide = SimpleNamespace(value=3.0, low=1.5, high=4.5, level=0.95)
    run.add("change", wide, setting="digits", covers=["examples"])
    run.save()
    assert cli.main(["check", "notebooks/p2020/one.ipynb", "--scale", "gpu"]) == 0
    out = capsys.readouterr().out
    assert "code and files  not noted when it was run" in out
    assert "numbers: 1 inside the interval" in out


@pytest.mark.parametrize(
    "options",
    [
        ["-o", "book/results/p2020/one.ipynb"],  # without --basis, as `make book` has it
        ["--basis", "-o", "book/results/p2020/one.ipynb", "-p", "seed", "1"],
        ["--basis", "-p", "record", "book/results/p2020/one.json", "-p", "seed", "1"],
        ["--basis", "-p", "record", "data/records/p2020/one.json"],
    ],
)
def test_the_place_of_a_published_number_is_refused(checkout, options, monkeypatch, capsys):
    monkeypatch.chdir(checkout)
    assert cli.main(["run", "notebooks/p2020/one.ipynb", *options]) == 2
    assert "is the place of a published number, which `make book` alone replaces" in capsys.readouterr().err
    assert not (checkout / "book").exists()


def test_a_record_that_the_book_did_not_write_does_not_count(published, capsys):
    assert cli.main(["ledger"]) == 0
    assert "confirmed" in capsys.readouterr().out.split()
    run = records.start_run("p2020/one", scale="cpu", parameters={"seed": 9}, path=published)
    run.add("change", 7.0, setting="digits")
    run.save()
    assert cli.main(["ledger"]) == 0
    out, err = capsys.readouterr()
    assert "confirmed" in out.split()  # by data/records
    assert "not written by `make book`, so they do not count: book/results/p2020/one.json" in err


def test_a_notebook_of_which_nothing_is_published_runs_all_the_same(published, capsys):
    published.with_suffix(".basis").unlink()
    Path("data/records/p2020/one.json").unlink()
    assert cli.main(["run", "notebooks/p2020/one.ipynb"]) == 0
    assert "nothing, for no run of p2020/one is published" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["ledger", "pages", "book"])
def test_outside_of_a_checkout_nothing_is_written(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main([command]) == 2
    assert "call this in a checkout of the book" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_data_sets_are_listed_and_shown(capsys):
    assert cli.main(["data", "list"]) == 0
    assert "tiny_imagenet   train, val" in capsys.readouterr().out
    assert cli.main(["data", "show", "digits"]) == 0
    assert "digits.test: (600, 8, 8, 3), 10 classes" in capsys.readouterr().out


def test_a_missing_package_comes_with_the_way_to_get_it(monkeypatch, capsys):
    def missing(*_):
        """Need what is not there."""
        raise ModuleNotFoundError("No module named 'timm'", name="timm")

    monkeypatch.setattr(stores, "do_data_list", missing)
    assert cli.main(["data", "list"]) == 1
    assert "this needs timm, which is not installed: pip install 'uqlib[images]'" in capsys.readouterr().err
