"""What is kept of a trained network: in the smallest type that holds it, or refused."""

import numpy as np
import pytest
import torch

from uqlib.experiments.keeping.kept_columns import (
    AWAY,
    answer_columns,
    measure_answers,
    open_kept,
    pack_draws,
    pack_score,
    to_half,
    to_small,
    unpack_draws,
)


@pytest.mark.parametrize(("classes", "kind"), [(10, np.uint8), (256, np.uint8), (257, np.int32), (1000, np.int32)])
def test_predictions_of_any_number_of_classes_are_kept_as_they_are(classes, kind):
    logits = torch.eye(classes).repeat(2, 1) * 20 - 1
    found = answer_columns(logits, np.arange(2 * classes) % classes)
    assert found["preds"].dtype == kind
    assert found["preds"].tolist() == [*range(classes)] * 2
    assert found["correct"].all()


def test_a_large_logit_is_kept_as_it_is():
    logits = torch.tensor([[1e5, 0.0], [3.0, 1.0]])
    found = answer_columns(logits)
    assert found["max_logit"].tolist() == [1e5, 3.0]
    assert found["top"].dtype == found["entropy"].dtype == np.float16
    assert found["top"].tolist() == pytest.approx([0, np.log1p(np.exp(-2))], rel=2**-11)


def test_the_entropy_of_an_undecided_network_is_that_of_a_coin():
    found = answer_columns(torch.tensor([[2.0, 2.0], [0.0, 1000.0]]))
    assert found["entropy"].tolist() == pytest.approx([np.log(2), 0], abs=2**-11)


def test_metrics_of_three_answers_are_those_of_a_pencil():
    logits = torch.log(torch.tensor([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7]], dtype=torch.float64))
    found = measure_answers(logits + 1, [0, 1, 1])
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["confidence"] == pytest.approx(0.7)
    assert found["nll"] == pytest.approx(-np.log([0.8, 0.4, 0.7]).mean())
    assert found["brier"] == pytest.approx(np.mean([0.08, 0.72, 0.18]))


def test_numbers_beyond_half_precision_are_refused():
    assert to_half([65504.0, -1.0], "x").tolist() == [65504, -1]
    for bad in (65520.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match=r"rmd/a must be finite, and within half precision \(65504\)"):
            pack_score("rmd/a", torch.tensor([1.0, bad]))
    assert pack_score("labels", np.arange(300)).dtype == np.int32
    assert pack_score("index", np.arange(300)).dtype == np.int32
    assert pack_score("loss/a", [1e-9]).tolist() == [np.float32(1e-9)]
    assert pack_score("worst.loss/a", [1e-9]).dtype == np.float32
    for bad in ([-1], [2**31]):
        with pytest.raises(ValueError, match="whole numbers from 0 are wanted"):
            to_small(bad)


def test_a_value_and_its_draws_come_back_in_half_of_the_bytes():
    generator = np.random.default_rng(0)
    drawn = (0.7 + 0.02 * generator.standard_normal((5, 1, 201))).astype(np.float32)
    given = {"r_auroc/a/head": drawn, "labels/a": np.arange(201), "u/a": np.zeros((5, 4), np.float32)}
    packed = pack_draws(given, 200)
    assert set(packed) == {*given, "r_auroc/a/head" + AWAY}  # what is no draws stays as it is
    value, away = packed["r_auroc/a/head"], packed["r_auroc/a/head" + AWAY]
    assert value.nbytes + away.nbytes < 0.51 * drawn.nbytes
    back = unpack_draws(value, away)
    np.testing.assert_array_equal(back[..., 0], drawn[..., 0])
    way = np.abs(drawn - drawn[..., :1])
    assert (np.abs(back - drawn) <= way / 2000 + 1e-7).all()


def test_a_file_that_is_not_there_names_the_command_that_makes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no data/none\.safetensors; `uqlib none` makes it"):
        open_kept("data/none.safetensors", "uqlib none")
