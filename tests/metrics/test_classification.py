import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.metrics import accuracy_score, f1_score, log_loss, recall_score

from uqlib.metrics.classification import (
    accuracy,
    brier,
    brier_each,
    classwise_error,
    correctness,
    macro_f1,
    nll,
    nll_each,
)

CLASSES = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30)


@pytest.fixture
def logits():
    return 4 * torch.randn(1000, 7, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def labels():
    return torch.randint(7, (1000,), generator=torch.Generator().manual_seed(1))


@given(CLASSES)
def test_accuracy_and_f1_match_sklearn(rows):
    preds, labels = (np.array(column) for column in zip(*rows, strict=True))
    assert accuracy(preds, labels) == pytest.approx(accuracy_score(labels, preds), abs=1e-15)
    assert macro_f1(preds, labels) == pytest.approx(f1_score(labels, preds, average="macro"), abs=1e-15)


def test_f1_counts_a_class_that_is_only_predicted():
    # class 2 is predicted once and never true: its F1 is 0 and it counts; class 1 occurs nowhere and does not
    assert macro_f1([0, 0, 2], [0, 0, 0]) == pytest.approx((4 / 5 + 0) / 2)


def test_nll_matches_sklearn_and_scipy(logits, labels):
    probs = logits.double().softmax(-1)
    assert nll(logits, labels) == pytest.approx(log_loss(labels, probs, labels=range(7)), rel=1e-12)
    expected = -log_softmax(logits.double().numpy(), -1)[np.arange(1000), labels.numpy()]
    np.testing.assert_allclose(nll_each(logits, labels), expected, rtol=1e-13, atol=1e-14)


def test_nll_neither_overflows_nor_rounds_to_zero():
    assert nll([[1e5, 0.0]], [1]) == 1e5
    assert nll([[30.0, 0.0]], [0]) == pytest.approx(np.log1p(np.exp(-30.0)), rel=1e-2)  # 1e-13, where 1 + it rounds
    assert nll([[5.0, 5.0]], [0]) == pytest.approx(np.log(2), rel=1e-15)


def test_brier_sums_over_classes(logits, labels):
    probs = logits.double().softmax(-1)
    one_hot = np.eye(7)[labels]
    assert brier(probs, labels) == pytest.approx(((probs.numpy() - one_hot) ** 2).sum(1).mean(), rel=1e-13)
    assert brier([[1.0, 0.0], [0.0, 1.0]], [0, 0]) == 1.0  # right: 0, wrong with certainty: 2


def test_arguments_are_left_as_they_were(logits, labels):
    probs = logits.double().softmax(-1)
    before = probs.clone()
    brier_each(probs, labels)
    assert torch.equal(probs, before)


def test_chunks_do_not_show(logits, labels, monkeypatch):
    whole = nll_each(logits, labels), brier_each(logits.softmax(-1), labels)
    monkeypatch.setattr("uqlib.metrics.classification.CHUNK", 64)
    parts = nll_each(logits, labels), brier_each(logits.softmax(-1), labels)
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))


def test_means_add_up_over_batches(logits, labels):
    probs, preds = logits.softmax(-1), logits.argmax(-1)
    for metric, table in ((nll, logits), (brier, probs), (accuracy, preds)):
        parts = 300 * metric(table[:300], labels[:300]) + 700 * metric(table[300:], labels[300:])
        assert metric(table, labels) == pytest.approx(parts / 1000, rel=1e-13)


def test_the_kind_of_array_comes_back(logits, labels):
    assert isinstance(nll_each(logits.numpy(), labels.numpy()), np.ndarray)
    assert isinstance(nll_each(logits, labels.numpy()), torch.Tensor)
    assert isinstance(correctness(labels.numpy(), labels), np.ndarray)
    assert nll_each(logits.half(), labels).dtype == torch.float64


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: accuracy([], []), ValueError, "preds is empty"),
        (lambda: accuracy([0, 1], [0]), ValueError, "labels has 1 rows where 2 are expected"),
        (lambda: accuracy([0, -1], [0, 1]), ValueError, r"preds must lie in \[0, 2\); row 1 is -1"),
        (lambda: accuracy([0.0, 1.0], [0, 1]), TypeError, "preds must be integers; they are torch.float64"),
        (lambda: accuracy(np.eye(3), [0, 1, 2]), ValueError, r"One-hot rows\? Pass preds|One-hot rows"),
        (lambda: macro_f1([], []), ValueError, "preds is empty"),
        (lambda: nll([[0.3, 0.7]], [0]), ValueError, "logits look like probabilities"),
        (lambda: nll([[1.0, float("nan")]], [0]), ValueError, "row 0, column 1 is nan"),
        (lambda: nll([[1.0, 2.0]], [2]), ValueError, r"labels must lie in \[0, 2\); row 0 is 2"),
        (lambda: brier([[1.0, 2.0]], [0]), ValueError, r"row 0 sums to 3 .* Pass logits.softmax\(-1\)"),
    ],
)
def test_errors_say_what_came_and_where(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("most", [10**6, 2**40])
def test_classes_with_large_numbers_cost_no_memory(most):
    preds, labels = [0, 5, most, most, 7], [0, most, most, 5, 7]
    renamed = f1_score([0, 2, 2, 1, 3], [0, 1, 2, 2, 3], average="macro")
    assert macro_f1(preds, labels) == pytest.approx(renamed, rel=1e-14)


@given(CLASSES)
def test_errors_by_class_are_what_recall_leaves(rows):
    preds, labels = (np.array([*column, *range(5)]) for column in zip(*rows, strict=True))  # every class occurs
    expected = 1 - recall_score(labels, preds, average=None, labels=range(5))
    assert classwise_error(preds, labels, 5) == pytest.approx(expected, abs=1e-15)
    sizes = np.bincount(labels)
    assert classwise_error(preds, labels, 5) @ sizes / sizes.sum() == pytest.approx(
        1 - accuracy(preds, labels), abs=1e-12
    )


def test_a_class_without_examples_has_no_error(unchecked):
    with pytest.raises(ValueError, match="every class needs an example; class 1 of 3 has none among the 3 labels"):
        classwise_error([0, 1, 2], [0, 2, 2], 3)
    with pytest.raises(ValueError, match=r"preds must lie in \[0, 2\); row 2 is 2"):
        classwise_error([0, 1, 2], [0, 1, 1], 2)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 2\); row 0 is 3"):
        classwise_error([0, 1, 1], [3, 1, 1], 2)
