"""What other libraries print: the rules against the numbers that they printed, and the numbers alone."""

import importlib.util
import json
import math
import os
import subprocess

import numpy as np
import pytest
import torch

from uqlib import metrics
from uqlib.judge import CONVENTIONS, convert, translate
from uqlib.judge.conventions import VERSIONS

FLOAT32 = {"torchmetrics", "torch-uncertainty", "probly"}  # sums there are float32, or the result is


def script(repository, name):
    """A module of the lab that needs uqlib alone."""
    spec = importlib.util.spec_from_file_location(name, repository / f"benchmarks/conformity/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def lab(repository):
    return script(repository, "inputs")


@pytest.fixture(scope="module")
def columns(lab):
    return lab.columns()


@pytest.fixture(scope="module")
def found(repository):
    return json.loads((repository / "benchmarks/conformity/found.json").read_text())


def is_number(value):
    return isinstance(value, float | int)


def has_ties(confidence):
    return len(np.unique(confidence)) < len(confidence)


def test_every_rule_gives_what_the_library_printed(found, columns, lab):
    """Of ties that a library leaves as its sort does, nothing is promised: those rows are the test of the orders."""
    rules, checked = {(row.library, row.metric): row for row in CONVENTIONS}, set()
    for row in found["numbers"]:
        key = row["library"], row["metric"]
        if key not in rules or row["value"] == "nan" or not is_number(row["value"]):
            continue
        confidence, correct = columns[row["input"]]
        if rules[key].ties == "rows" and has_ties(confidence) and row["library"] != "MAPIE":
            continue
        if correct.all() and row["metric"].startswith(("AUROC", "AUPR", "FPR95")):
            continue  # where one class is missing, the libraries answer and uqlib refuses
        ours = translate(row["metric"], confidence, correct, of=row["library"], bins=lab.BINS)
        exact = row["library"] not in FLOAT32 and confidence.dtype == np.float64
        tolerance = 1e-12 if exact else 1e-5
        assert ours == pytest.approx(row["value"], abs=tolerance), row
        checked.add(key)
    assert checked == set(rules) - {("fd-shifts", "AURC"), ("fd-shifts", "AUGRC")}


def test_the_lab_ran_the_versions_that_the_rules_name(found):
    for library, version in VERSIONS.items():
        assert library == "fd-shifts" or found["versions"][library] == version


def test_what_the_lab_says_of_uqlib_is_what_uqlib_says(found, columns, lab):
    ours = {
        "ece": lambda *rows: metrics.ece(*rows, bins=lab.BINS),
        "ece(norm='max')": lambda *rows: metrics.ece(*rows, bins=lab.BINS, norm="max"),
        "aurc": metrics.aurc,
        "augrc": metrics.augrc,
        "auroc": metrics.auroc,
        "aupr": metrics.aupr,
        "fpr_at_tpr": metrics.fpr_at_tpr,
    }
    names = {(row.library, row.metric): row.ours for row in CONVENTIONS}
    rows = [row for row in found["numbers"] if is_number(row["ours"])]
    known = [(row, ours[name]) for row in rows if (name := names.get((row["library"], row["metric"]))) in ours]
    assert len(known) > 100
    for row, function in known:
        assert function(*columns[row["input"]]) == pytest.approx(row["ours"], abs=1e-12), row
    assert all(row["ours"] < 1e-12 for row in found["orders"] if is_number(row["ours"]))  # no order of rows matters


def test_a_rule_without_a_difference_is_our_function(columns):
    confidence, correct = columns["cifar10"]
    same = [row for row in CONVENTIONS if not row.differs]
    assert len(same) >= 8
    for row in same:
        assert translate(row.metric, confidence, correct, of=row.library) == getattr(metrics, row.ours)(
            confidence, correct
        )


def without_ties(seed, n=200):
    rng = np.random.default_rng(seed)
    return rng.permutation(np.arange(1, n + 1)) / (n + 1), rng.random(n) < 0.7


@pytest.mark.parametrize("row", [row for row in CONVENTIONS if row.line], ids=lambda row: f"{row.library} {row.metric}")
@pytest.mark.parametrize("seed", range(3))
def test_a_converted_number_is_that_of_the_rows(row, seed):
    confidence, correct = without_ties(seed)
    facts = {"n": 200, "error": (~correct).mean(), "first": float(~correct[confidence.argmax()])}
    facts = {name: facts[name] for name in row.facts}
    theirs = translate(row.metric, confidence, correct, of=row.library)
    ours = getattr(metrics, row.ours)(confidence, correct)
    assert convert(theirs, row.metric, of=row.library, **facts) == pytest.approx(ours, abs=1e-12)
    assert convert(ours, row.metric, of="uqlib", to=row.library, **facts) == pytest.approx(theirs, rel=1e-12)


def test_one_library_to_another_without_us_between():
    confidence, correct = without_ties(5)
    facts = {"n": 200, "error": (~correct).mean(), "first": float(~correct[confidence.argmax()])}
    theirs = translate("AURC", confidence, correct, of="fd-shifts")
    others = translate("AURC", confidence, correct, of="torch-uncertainty")
    assert convert(theirs, "AURC", of="fd-shifts", to="torch-uncertainty", **facts) == pytest.approx(others, abs=1e-12)


def test_torchmetrics_gives_a_confidence_of_one_its_own_bin():  # by hand: gaps 0.05 and 0.5, two rows of four each
    rows = [0.95, 0.95, 1.0, 1.0], [True, True, True, False]
    assert translate("ECE", *rows, of="torchmetrics", bins=10) == pytest.approx(0.275, abs=1e-12)
    assert translate("ECE", *rows, of="netcal", bins=10) == pytest.approx(0.225, abs=1e-12)  # one bin: 0.975 and 0.75
    assert metrics.ece(*rows, bins=10) == pytest.approx(0.225, abs=1e-12)


def test_a_bin_edge_belongs_to_the_bin_above_there_and_below_here():  # by hand, two bins
    rows = [0.4, 0.5, 0.6], [True, False, True]
    assert translate("ECE", *rows, of="netcal", bins=2) == pytest.approx((0.6 + 0.1) / 3, abs=1e-12)
    assert metrics.ece(*rows, bins=2) == pytest.approx((0.1 + 0.4) / 3, abs=1e-12)


def test_a_constant_score_is_perfect_for_probly_and_useless_elsewhere():
    rows = np.full(10, 0.5), np.arange(10) < 5
    assert translate("AUROC", *rows, of="probly") == 1
    assert translate("AUROC", *rows, of="scikit-learn") == 0.5


@pytest.mark.parametrize("kind", [list, np.asarray, torch.tensor])
def test_lists_arrays_and_tensors_are_taken(kind):
    rows = kind([0.9, 0.8, 0.7, 0.6]), kind([True, True, False, True])
    assert translate("AURC", *rows, of="torch-uncertainty") == pytest.approx((1 / 3 + 1 / 8) / 3, abs=1e-12)


def test_too_few_rows_are_what_they_are_there():
    assert math.isnan(translate("AURC", [0.9], [True], of="torch-uncertainty"))
    assert math.isnan(translate("ACE", [0.9, 0.8], [True, False], of="torch-uncertainty", bins=10))
    with pytest.raises(ValueError, match="at least 50 rows"):
        translate("AURC", [0.9, 0.8], [True, False], of="probly")


def test_bad_input_is_refused_by_name():
    rows = [0.9, 0.8], [True, False]
    with pytest.raises(ValueError, match="unknown library 'tensorflow'; choose from torchmetrics"):
        translate("ECE", *rows, of="tensorflow")
    with pytest.raises(ValueError, match="unknown metric of netcal 'AURC'; choose from ECE"):
        translate("AURC", *rows, of="netcal")
    with pytest.raises(ValueError, match=r"confidence must lie in \[0, 1\] for ECE"):
        translate("ECE", [1.5, 0.8], [True, False], of="netcal")
    with pytest.raises(ValueError, match=r"cannot be converted from the number alone: average calibration error.*rows"):
        convert(0.1, "ACE", of="netcal")
    with pytest.raises(ValueError, match="AURC of torch-uncertainty needs first, error beside the value"):
        convert(0.1, "AURC", of="torch-uncertainty", n=10)
    with pytest.raises(ValueError, match="n must be at least 2"):
        convert(0.1, "AURC", of="torch-uncertainty", n=1, first=0, error=0)
    with pytest.raises(ValueError, match="error must lie in"):
        convert(0.1, "AUGRC", of="fd-shifts", n=10, error=7)


def test_the_page_says_what_the_lab_found(repository, found):
    page, text = script(repository, "page"), (repository / "book/conformity.md").read_text()
    assert page.filled(text, found) == text, "write it anew: python benchmarks/conformity/page.py"
    assert set(page.BLOCK.findall(text)) == set(page.blocks(found))
    assert {fault["name"] for fault in found["faults"]} == set(page.FAULTS)
    assert {path.stem for path in (repository / "benchmarks/conformity/faults").glob("*.py")} == set(page.FAULTS)


@pytest.mark.slow
def test_the_lab_finds_again_what_it_found(found, repository, tmp_path):
    """The peers' numbers, if UQLIB_PEERS names a Python that has them; ten minutes without the times."""
    python = os.environ.get("UQLIB_PEERS")
    if not python:
        pytest.skip("UQLIB_PEERS names no Python with the packages of benchmarks/conformity/requirements.txt")
    run = repository / "benchmarks/conformity/run.py"
    subprocess.run(
        [python, run, "--quick", "--to", tmp_path / "found.json"],
        check=True,
        env=os.environ | {"PYTHONPATH": str(repository)},
    )
    again = json.loads((tmp_path / "found.json").read_text())
    assert again["versions"] == found["versions"]
    for old, new in zip(found["numbers"], again["numbers"], strict=True):
        assert {**old, "value": 0} == pytest.approx({**new, "value": 0}, abs=1e-9)
        assert type(old["value"]) is type(new["value"])
        if is_number(old["value"]) and "tied" not in old["input"]:
            assert new["value"] == pytest.approx(old["value"], abs=1e-5), old
    assert [row["name"] for row in again["faults"]] == [row["name"] for row in found["faults"]]
