"""The house: families and their ranks, names that can be searched, what an import costs; lock and environment."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
import tomllib

import pytest

import uqlib
from uqlib.book import house

RANKS = {family: rank for rank, family in enumerate(uqlib.FAMILIES)}


def family_of(module):
    """The family of a module of uqlib, by its dotted name."""
    return module.split(".")[1] if module.count(".") else ""


def imported(path):
    """The modules of uqlib that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("uqlib."))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "uqlib":
            yield from ([f"uqlib.{alias.name}" for alias in node.names] if node.module == "uqlib" else [node.module])


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
        d for name in ("images", "compare", "laplace", "imbalance", "plots", "book", "test") for d in extras[name]
    ]
    names = {re.split(r"[\[><=~ ]", d)[0].lower() for d in wanted} - {"uqlib"}
    pinned = {line.split("==")[0].lower() for line in (repository / "requirements.lock").read_text().splitlines()}
    assert names <= pinned


def test_metrics_need_neither_torchvision_nor_timm_nor_scipy():
    code = """
import sys
import torch
before = set(sys.modules)
from uqlib import calibrate, combine, metrics
heavy = {"torchvision", "timm", "scipy", "sklearn", "matplotlib", "papermill", "pandas", "xarray"}
print(sorted(heavy & (set(sys.modules) - before)))
"""
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_importing_costs_little_beyond_torch():
    code = """
import time
import torch
began = time.process_time()
from uqlib import calibrate, combine, metrics
print(time.process_time() - began)
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
from uqlib import metrics, combine, store, images, networks, training
from uqlib.evidence import ledger
from uqlib.report import plots
from uqlib.book import notebooks, pages
assert torch.equal(state, torch.random.get_rng_state())
assert style == dict(mpl.rcParams)
assert threads == torch.get_num_threads()
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


def test_every_folder_is_a_family_with_a_rank(repository):
    folders = {path.parent.name for path in (repository / "uqlib").glob("*/__init__.py")}
    assert folders == set(uqlib.FAMILIES)


@pytest.mark.parametrize("family", uqlib.FAMILIES)
def test_imports_go_down_the_list_of_families(repository, family):
    for path in (repository / "uqlib" / family).rglob("*.py"):
        for module in imported(path):
            if (other := family_of(module)) in RANKS:
                assert RANKS[other] <= RANKS[family], f"{path.name} imports {module}, whose family stands behind"
            else:
                assert module in ("uqlib.FAMILIES", "uqlib.__version__"), f"{path.name} imports {module}"


def test_a_folder_is_seen_at_a_glance_and_a_file_read_at_one_sitting(repository):
    for folder in [path for path in (repository / "uqlib").rglob("*") if (path / "__init__.py").is_file()]:
        files = list(folder.glob("*.py"))
        assert len(files) <= 12, f"{folder} has {len(files)} files"
        for path in files:
            lines = len(path.read_text(encoding="utf-8").splitlines())
            assert lines <= 450, f"{path} has {lines} lines"


def public_functions():
    for module in pkgutil.walk_packages(uqlib.__path__, "uqlib."):
        for name, value in vars(importlib.import_module(module.name)).items():
            if inspect.isfunction(value) and name[0] != "_" and value.__module__ == module.name:
                yield module.name, name, value


def test_no_public_function_has_more_than_ten_arguments():
    for module, name, function in public_functions():
        kinds = [each.kind for each in inspect.signature(function).parameters.values()]
        assert len(kinds) - (inspect.Parameter.VAR_KEYWORD in kinds) <= 10, f"{module}.{name}"


def test_a_name_means_one_thing():
    """A public function and a file bear their name alone, so that a search finds one of them."""
    places = {}
    for module, name, _ in public_functions():
        places.setdefault(name, []).append(module)
    assert not {name: found for name, found in places.items() if len(found) > 1}
    stems = [module.name.rsplit(".", 1)[-1] for module in pkgutil.walk_packages(uqlib.__path__, "uqlib.")]
    assert len(stems) == len(set(stems))


def test_the_tests_stand_in_the_tree_of_the_library(repository):
    folders = {
        path.parent.relative_to(repository / "tests").as_posix() for path in repository.glob("tests/*/test_*.py")
    }
    assert folders == set(uqlib.FAMILIES)


def test_a_paper_stands_under_its_name_in_the_same_places(repository):
    papers = {path.stem for path in (repository / "data/ledger").glob("*.toml")}
    assert papers
    for paper in papers:
        for place in ("notebooks/{}", "book/{}/index.md"):
            assert (repository / place.format(paper)).exists(), place.format(paper)
    own = {path.stem for path in (repository / "uqlib/papers").glob("*.py")} - {"__init__"}  # of some nothing is alone
    assert own <= papers
    assert {f"test_{paper}" for paper in own} <= {path.stem for path in (repository / "tests/papers").glob("*.py")}
    for place in (
        "notebooks/*/*.ipynb",
        "book/*/index.md",
    ):  # what no paper owns is in the foundations, or about all of them
        assert {path.parent.name for path in repository.glob(place)} - {"results", "foundations", "synthesis"} <= papers


def test_the_readme_shows_the_tree_as_it_is(repository):
    readme = (repository / "README.md").read_text(encoding="utf-8")
    assert readme == house.with_tree(readme, repository / "uqlib"), "write it anew: .venv/bin/uqlib tree"


@pytest.mark.parametrize("family", uqlib.FAMILIES)
def test_the_public_list_of_a_family_is_its_own_and_documented(family):
    module = importlib.import_module(f"uqlib.{family}")
    for name in getattr(module, "__all__", []):
        value = getattr(module, name)
        if inspect.isfunction(value) or inspect.isclass(value):
            assert value.__module__.startswith(f"uqlib.{family}."), name
            assert value.__doc__, name


def test_what_the_readme_imports_is_what_a_user_types():
    from uqlib.calibrate import fit_temperature
    from uqlib.combine import fit_duo
    from uqlib.metrics import aurc

    assert all(map(callable, (fit_temperature, fit_duo, aurc)))
