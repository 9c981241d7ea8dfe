"""What is alone of Xia & Bouganis 2023: rival policies on shared splits."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr

from uqlib import combine
from uqlib.metrics import fpr_at_tpr, risk_at_coverage
from uqlib.papers import xia2023


@pytest.fixture(scope="module")
def answers():
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 5, 600))
    logits = [
        2 * torch.eye(5, dtype=torch.float64)[labels] + torch.from_numpy(rng.normal(size=(600, 5))) for _ in range(3)
    ]
    return {name: SimpleNamespace(logits=each, labels=labels) for name, each in zip("abc", logits, strict=True)}


def test_the_title_is_that_of_the_ledger(repository):
    assert f'title = "{xia2023.TITLE}' in (repository / "data/ledger/xia2023.toml").read_text(encoding="utf-8")


def test_policies_pass_what_they_say_and_a_pair_of_one_network_gains_nothing(answers):
    tasks = xia2023.tasks_at(0.1)
    how = dict(fit_size=200, splits=2, draws=4)
    found = xia2023.compare_policies(answers, tasks, share=0.2, **how)
    shares = found.passed.mean(["first", "second", "measure"])
    assert shares.sel(variant="single") == 0
    assert shares.sel(variant="ensemble") == 1
    assert float(shares.sel(variant="random")) == pytest.approx(float(shares.sel(variant="window")), abs=1e-3)
    assert float(shares.sel(variant="threshold")) == pytest.approx(0.2, abs=0.05)
    both = found.scores.sel(variant="ensemble")
    xr.testing.assert_allclose(both.sel(first="a", second="b", drop=True), both.sel(first="b", second="a", drop=True))
    alone = xia2023.judge_alone(answers["a"], tasks, **how)
    xr.testing.assert_equal(
        alone, found.scores.sel(first="a", second="b", variant="single", measure=list(tasks), drop=True)
    )
    same = xia2023.compare_policies(dict.fromkeys("ab", answers["a"]), tasks, share=0.2, **how).scores
    assert float(abs(same - same.sel(variant="single")).max()) == 0


def test_windows_over_known_and_over_all_images(answers):
    known = answers["a"].logits, answers["b"].logits
    other = tuple(each.roll(1, 0) / 2 for each in known)
    how = dict(fit_size=200, tpr=0.8, score="energy", share=0.2)
    sides, passed = xia2023.detect_by_policies(known, other, **how)
    assert passed.sel(variant="ensemble").values.tolist() == [1, 1]
    assert float(passed.sel(variant="window", side="known")) == pytest.approx(0.2, abs=0.1)
    assert float(passed.sel(variant="mixture").mean()) == pytest.approx(0.2, abs=0.1)
    assert sides["single"][0].correct.sum() == 400


def test_detection_is_compared_for_every_pair_score_and_level(answers):
    known, other = {k: v.logits for k, v in answers.items()}, {k: v.logits.roll(1, 0) / 2 for k, v in answers.items()}
    options = dict(fit_size=200, share=0.2)
    found = xia2023.compare_detection(known, other, levels=[0.8, 0.95], draws=2, seed=3, **options)
    assert [found.scores.sizes[each] for each in ("first", "second", "variant", "draw")] == [3, 3, 4, 3]
    assert list(found.scores["accepted"].values) == ["80 %", "95 %"]
    sides, passed = xia2023.detect_by_policies(
        *((said["a"], said["b"]) for said in (known, other)), tpr=0.95, score="energy", seed=3, **options
    )
    cell = dict(first="a", second="b", score="energy", accepted="95 %")
    xr.testing.assert_equal(found.passed.sel(cell, drop=True), passed.astype(float))
    theirs = fpr_at_tpr(sides["window"][0].confidence, sides["window"][0].correct, tpr=0.95)
    assert float(found.scores.sel(cell | {"variant": "window", "draw": 0})) == pytest.approx(theirs)


def test_levels_that_lie_close_are_told_apart(answers):
    known = {k: v.logits for k, v in answers.items() if k != "c"}
    found = xia2023.compare_detection(known, known, levels=[0.953, 0.951], draws=1, fit_size=200, share=0.2)
    assert list(found.passed["accepted"].values) == ["95.3 %", "95.1 %"]


def test_a_frozen_window_on_unchanged_images_is_the_window(answers):
    logits, labels = {k: v.logits for k, v in answers.items()}, answers["a"].labels
    frozen = xia2023.compare_frozen(logits, logits, labels, coverage=0.8, share=0.2, draws=2, groups=2)
    probs = (logits["a"].softmax(-1) + logits["b"].softmax(-1)) / 2
    asked = dict(first="a", second="b", draw=0)
    expected = risk_at_coverage(probs.amax(-1), probs.argmax(-1) == labels, coverage=0.8)
    assert float(frozen.scores.sel(asked | dict(variant="ensemble"))) == pytest.approx(expected)
    assert float(frozen.passed.sel(first="a", second="b", variant="window")) == pytest.approx(0.2, abs=0.01)


def test_versions_of_an_image_stand_side_by_side():
    kinds = [("cifar10_c", "fog"), ("cifar10_c", "snow")]
    shaken = xia2023.corrupted_versions(["cifar_resnet20"], kinds)
    assert len(shaken.labels) == shaken.images * shaken.groups
    by_image = shaken.labels.view(shaken.images, -1)
    assert shaken.groups == 10
    assert (by_image == by_image[:, :1]).all()


def test_the_code_of_the_page_runs_as_it_stands(repository):
    page = (repository / "book/xia2023/index.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^(?:```|~~~)python\n(.*?)^(?:```|~~~)$", page, re.M | re.S)
    assert len(blocks) == 2
    for block in blocks:
        names = {}
        exec(block, names)
    assert 0.1 < (names["said"].stages == 2).mean() < 0.3


def test_a_window_at_the_low_end_is_a_single_threshold_that_passes_on_fewer():
    sure = np.linspace(0.001, 1, 1000)
    for rejected, passed in ((0.1, 0.2), (0.04, 0.14)):
        window = combine.window_around(sure, combine.operating_threshold(sure, coverage=1 - rejected))
        assert window.low < 0.002  # one input at most lies below
        assert window.high == pytest.approx(passed, abs=2e-3)
