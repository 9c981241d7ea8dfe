"""What the scripts keep of a trained network: in the smallest type that holds it, or refused."""

import sys

import numpy as np
import pytest
import torch


@pytest.fixture
def scripts(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "data"))
    import build_difficulty
    import build_trainings

    yield build_trainings, build_difficulty
    for name in ("build_trainings", "build_difficulty", "build_store"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize(("classes", "kind"), [(10, np.uint8), (256, np.uint8), (257, np.int32), (1000, np.int32)])
def test_predictions_of_any_number_of_classes_are_kept_as_they_are(scripts, classes, kind):
    logits = torch.eye(classes).repeat(2, 1) * 20
    found = scripts[0].said(logits, np.arange(2 * classes) % classes)
    assert found["preds"].dtype == kind
    assert found["preds"].tolist() == [*range(classes)] * 2
    assert found["correct"].all()


def test_a_large_logit_is_kept_as_it_is(scripts):
    logits = torch.tensor([[1e5, 0.0], [3.0, 1.0]])
    found = scripts[0].said(logits)
    assert found["max_logit"].tolist() == [1e5, 3.0]
    assert found["top"].dtype == found["entropy"].dtype == np.float16
    assert found["top"].tolist() == pytest.approx([0, np.log1p(np.exp(-2))], rel=2**-11)


def test_numbers_beyond_half_precision_are_refused(scripts):
    half, small, kept = scripts[1].half, scripts[1].small, scripts[1].kept
    assert half([65504.0, -1.0], "x").tolist() == [65504, -1]
    for bad in (65520.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"rmd/a must be finite, and within half precision \(65504\)"):
            kept("rmd/a", torch.tensor([1.0, bad]))
    assert kept("labels", np.arange(300)).dtype == np.int32
    assert kept("index", np.arange(300)).dtype == np.int32
    assert kept("loss/a", [1e-9]).tolist() == [np.float32(1e-9)]
    assert kept("worst.loss/a", [1e-9]).dtype == np.float32
    for bad in ([-1], [2**31]):
        with pytest.raises(ValueError, match="whole numbers from 0 are wanted"):
            small(bad)
