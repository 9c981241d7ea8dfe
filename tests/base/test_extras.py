"""The library without its extras, in a process that has none of them."""

import subprocess
import sys

import pytest

from uqlib.base.extras import EXTRAS, named

IMPORT_ALL = """
import importlib, pkgutil, sys
for name in {hidden!r}:
    sys.modules[name] = None
import uqlib
for module in pkgutil.walk_packages(uqlib.__path__, "uqlib."):
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        print(module.name, "|", error)
"""
CALLS = """
import sys
for name in {hidden!r}:
    sys.modules[name] = None
import numpy as np
from uqlib import difficulty, imbalance
from uqlib.bayes import laplace
for call in (
    lambda: difficulty.kmeans_distance([[1.0], [2.0]], clusters=1),
    lambda: laplace.last_layer_laplace([[1.0], [2.0]], [0, 1], [[1.0], [2.0]], [0.0, 0.0]),
    lambda: imbalance.smote(np.zeros((5, 2, 2, 3), np.uint8), [0, 0, 0, 1, 1], neighbours=1, seed=0),
):
    try:
        call()
    except ModuleNotFoundError as error:
        print(error)
"""


def told(code):
    found = subprocess.run([sys.executable, "-c", code.format(hidden=list(EXTRAS))], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return found.stdout.splitlines()


def test_a_module_imports_without_extras_or_names_the_one_it_needs():
    needy = dict(line.split(" | ") for line in told(IMPORT_ALL))
    for module, message in needy.items():
        assert "which is not installed: pip install 'uqlib[" in message, module
    core = (
        "base",
        "solve",
        "metrics",
        "calibrate",
        "combine",
        "bayes",
        "difficulty",
        "label_noise",
        "imbalance",
        "losses",
        "store.read",
        "cli",
    )
    assert not [
        module
        for module in needy
        if module.removeprefix("uqlib.").startswith(core)
        and module
        not in (
            "uqlib.store.fill",
            "uqlib.metrics.compare",
            "uqlib.metrics.multiverse",
            "uqlib.metrics.resampling.repetitions",
        )
    ]
    assert "pip install 'uqlib[images]'" in needy["uqlib.networks"]
    assert "pip install 'uqlib[plots]'" in needy["uqlib.report.plots"]


def test_a_function_that_needs_an_extra_names_it():
    assert told(CALLS) == [
        "this needs sklearn, which is not installed: pip install 'uqlib[images]'",
        "this needs laplace, which is not installed: pip install 'uqlib[laplace]'",
        "this needs imblearn, which is not installed: pip install 'uqlib[imbalance]'",
    ]


def test_extras_are_those_of_the_project(repository):
    import tomllib

    known = tomllib.loads((repository / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(EXTRAS.values()) <= set(known)


def test_other_errors_are_left_as_they_are():
    with pytest.raises(ModuleNotFoundError, match="No module named 'of_nobody'"), named():
        import of_nobody  # noqa: F401
    with pytest.raises(ZeroDivisionError), named():
        _ = 1 / 0
