"""Streams of classes: what heads with a known answer leave behind."""

import pytest
import torch

from uqlib.heads import (
    count_values,
    fit_keys,
    fit_values,
    key_codes,
    run_stream,
    stream_forgetting,
    stream_plasticity,
    value_logits,
)

LABELS = torch.arange(40) % 4


def only_the_last(before, rows):
    return LABELS[rows].unique()


def told(known):
    return 3.0 * torch.eye(4)[LABELS] * torch.isin(torch.arange(4), known) + torch.arange(4) / 100


def test_a_head_that_knows_the_last_task_alone():
    found = run_stream(only_the_last, told, LABELS, LABELS, order=[0, 1, 2, 3], each=2)
    # where no class of an image is known, class 3 is said, which is wrong for tasks before the last
    assert found.accuracy.tolist() == [[1.0, 0.0], [0.5, 1.0]]
    assert found.mean == 0.5
    assert stream_forgetting(found.accuracy) == 1.0
    assert stream_plasticity(found.accuracy) == 1.0


def test_forgetting_is_counted_from_the_best_before_the_end():
    table = torch.tensor([[0.5, 0.9, 0.6], [0.1, 0.8, 0.9], [0.0, 0.0, 1.0]])
    assert stream_forgetting(table) == pytest.approx(((0.9 - 0.6) + (0.8 - 0.9)) / 2)
    assert stream_plasticity(table) == pytest.approx((0.5 + 0.8 + 1.0) / 3)


def test_counts_end_the_same_in_every_order_and_one_task_is_all_at_once():
    x = torch.randn(40, 5, generator=torch.Generator().manual_seed(0)) + torch.eye(4, 5)[LABELS] * 2
    codes = key_codes(x, fit_keys(x, codebooks=3, keys=4, width=2, seed=0))

    def learn(before, rows):
        return rows if before is None else torch.cat([before, rows])

    def answer(rows):
        return value_logits(count_values(codes[rows], LABELS[rows], classes=4, keys=4), codes)

    ends = [run_stream(learn, answer, LABELS, LABELS, order=order, each=1) for order in ([0, 1, 2, 3], [3, 1, 0, 2])]
    assert torch.equal(ends[0].logits, ends[1].logits)
    whole = run_stream(
        lambda before, rows: fit_values(codes[rows], LABELS[rows], classes=4, keys=4, values=before, seed=0),
        lambda values: value_logits(values, codes), LABELS, LABELS, order=[0, 1, 2, 3], each=4,
    )  # fmt: skip
    assert torch.equal(whole.logits, value_logits(fit_values(codes, LABELS, classes=4, keys=4, seed=0), codes))


def test_what_is_no_stream_is_named():
    with pytest.raises(ValueError, match="order must hold every class once"):
        run_stream(only_the_last, told, LABELS, LABELS, order=[0, 1, 1, 3])
    with pytest.raises(ValueError, match="tested has none of class 3"):
        run_stream(only_the_last, told, LABELS, LABELS % 3, order=[0, 1, 2, 3])
    with pytest.raises(ValueError, match=r"shares in .*Percent"):
        stream_plasticity(torch.tensor([[90.0, 3.0], [1.0, 2.0]]))
    with pytest.raises(ValueError, match="of at least two tasks"):
        stream_forgetting(torch.ones(1, 1))


@pytest.mark.parametrize("shape", [(1, 4), (40, 3), (38, 4), (40, 5)])
def test_an_answer_of_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"answer must give logits of all test images and classes, \(40, 4\)"):
        run_stream(
            only_the_last,
            lambda known: torch.arange(4.0).repeat(40, 2)[: shape[0], : shape[1]],
            LABELS,
            LABELS,
            order=[0, 1, 2, 3],
        )


def test_one_task_has_a_plasticity_and_nan_is_no_percent():
    assert stream_plasticity(torch.tensor([[0.75]])) == 0.75
    with pytest.raises(ValueError, match="accuracy must be finite; row 0, column 1 is nan") as error:
        stream_forgetting(torch.tensor([[0.5, float("nan")], [0.0, 0.5]]))
    assert "Percent" not in str(error.value)
