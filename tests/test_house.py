"""The files around the library: lock, environment, imports that point one way."""

import ast
import re
import subprocess
import sys
import tomllib

import pytest

ABOVE = {  # what a room must not know of
    "metrics": {"scores", "temperature", "duos", "data", "models", "store", "records", "ledger", "plots", "notebooks"},
    "scores": {"duos", "data", "models", "store", "records", "ledger", "plots"},
    "temperature": {"duos", "data", "models", "store", "records", "ledger", "plots"},
    "duos": {"data", "models", "store", "records", "ledger", "plots"},
    "difficulty": {"duos", "losses", "training", "data", "models", "store", "files", "records", "ledger", "plots"},
    "detection": {"duos", "difficulty", "losses", "training", "data", "models", "store", "records", "ledger", "plots"},
    "splits": {"data", "models", "store", "records", "ledger", "plots"},
    "heads": {"duos", "data", "store", "records", "ledger", "plots"},
    "soups": {"duos", "data", "models", "store", "records", "ledger", "plots"},
    "laplace": {"duos", "data", "models", "store", "records", "ledger", "plots"},
    "dynamic": {"data", "models", "store", "records", "ledger", "plots"},
    "losses": {"difficulty", "training", "duos", "data", "models", "store", "records", "ledger", "plots", "files"},
    "training": {"difficulty", "duos", "store", "records", "ledger", "plots"},
    "protocol": {"data", "models", "store", "records", "ledger", "plots"},
    "studies": {"data", "models", "store", "training", "records", "ledger", "plots"},
    "data": {"metrics", "duos", "records", "ledger", "plots"},
    "models": {"metrics", "duos", "data", "records", "ledger", "plots"},
    "store": {"metrics", "duos", "records", "ledger", "plots"},
    "ledger": {"plots", "notebooks", "pages"},
}


def test_the_lock_holds_pins_and_no_address(repository):
    lines = (repository / "requirements.lock").read_text().splitlines()
    assert len(lines) > 100
    assert all(re.fullmatch(r"[\w.-]+==[\w.+!-]+( ; .*)?", line) for line in lines)


def test_environment_and_pyproject_say_the_same(repository):
    text = (repository / "environment.yml").read_text()
    assert "-c requirements.lock" in text
    assert "-e .[book,test]" in text
    assert "python=3.11" in text


def test_the_extras_are_all_pinned(repository):
    project = tomllib.loads((repository / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = project["dependencies"] + [
        d for name in ("images", "laplace", "plots", "book", "test") for d in extras[name]
    ]
    names = {re.split(r"[\[><=~ ]", d)[0].lower() for d in wanted} - {"uqlib"}
    pinned = {line.split("==")[0].lower() for line in (repository / "requirements.lock").read_text().splitlines()}
    assert names <= pinned


@pytest.mark.parametrize("room", ABOVE)
def test_imports_point_one_way(repository, room):
    path = repository / "uqlib" / room
    files = sorted(path.glob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("uqlib"):
                parts = [*node.module.split(".")[1:], *(alias.name for alias in node.names)]
                assert not ABOVE[room] & set(parts[:2]), f"{file.name} imports {parts}"


def test_metrics_need_neither_torchvision_nor_timm_nor_scipy():
    code = """
import sys
import torch
before = set(sys.modules)
from uqlib import duos, metrics, scores, temperature
heavy = {"torchvision", "timm", "scipy", "sklearn", "matplotlib", "papermill", "pandas"}
print(sorted(heavy & (set(sys.modules) - before)))
"""
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_importing_costs_little_beyond_torch():
    code = """
import time
import torch
began = time.perf_counter()
from uqlib import duos, metrics, scores, temperature
print(time.perf_counter() - began)
"""
    seconds = min(
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    )
    assert seconds < 0.5  # about 0.1 s on an idle machine; the bound leaves room for a busy one


def test_importing_sets_no_seed_and_no_style():
    code = """
import torch, random, numpy, warnings
import matplotlib as mpl
state, style = torch.random.get_rng_state(), dict(mpl.rcParams)
filters, threads = list(warnings.filters), torch.get_num_threads()
from uqlib import metrics, duos, plots, ledger, notebooks, pages, store, data, models, corruptions
assert torch.equal(state, torch.random.get_rng_state())
assert style == dict(mpl.rcParams)
assert threads == torch.get_num_threads()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_the_readme_shows_every_file_of_the_library(repository):
    readme = (repository / "README.md").read_text()
    for path in (repository / "uqlib").rglob("*.py"):
        if path.name != "__init__.py":
            assert path.name in readme, path.name
