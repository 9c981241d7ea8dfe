import json
import subprocess
import sys
from pathlib import Path

import pytest

from uqlib import cli

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


@pytest.mark.parametrize("command", ["ledger", "pages"])
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

    monkeypatch.setattr(cli, "data_list", missing)
    assert cli.main(["data", "list"]) == 1
    assert "this needs timm, which is not installed: pip install 'uqlib[images]'" in capsys.readouterr().err
