import json
import subprocess
import sys
from pathlib import Path

import pytest

from uqlib import cli

NOTEBOOK = "notebooks/zhou2025/duo_on_cifar10.ipynb"


@pytest.fixture(autouse=True)
def _in_the_checkout(repository, monkeypatch):
    monkeypatch.chdir(repository)


def test_run_sets_parameters_and_writes_the_record(tmp_path, capsys):
    out = tmp_path / "copy.ipynb"
    code = cli.main(["run", NOTEBOOK, "--scale", "smoke", "-p", "sidekicks", "['cifar_resnet32']", "-p", "seed", "7",
                     "-o", str(out)])  # fmt: skip
    assert code == 0, capsys.readouterr().err
    record = json.loads(out.with_suffix(".json").read_text())
    assert record["scale"] == "smoke"
    assert record["parameters"]["seed"] == 7
    settings = {result["setting"] for result in record["results"]}
    assert all("cifar_resnet32" in setting for setting in settings)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-p", "sede", "1"], "unknown parameter 'sede'"),
        (
            ["-p", "seed", "one"],
            "parameter seed of notebooks/zhou2025/duo_on_cifar10.ipynb takes int, such as 0; got 'one'",
        ),
        (["--scale", "huge"], "unknown scale 'huge'; choose from smoke, cpu, gpu, paper"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(options, message, capsys):
    assert cli.main(["run", NOTEBOOK, *options]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.strip().splitlines()) == 1


def test_a_network_that_nobody_has_run_is_named(tmp_path, capsys):
    code = cli.main(["run", NOTEBOOK, "-p", "large", "resnet18", "-o", str(tmp_path / "copy.ipynb")])
    assert code == 1
    assert "resnet18" in capsys.readouterr().err


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
