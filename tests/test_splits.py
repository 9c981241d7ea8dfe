import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uqlib.splits import check_disjoint, split


@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=60).flatmap(
        lambda labels: st.tuples(st.just(labels), st.integers(0, len(labels)), st.integers(0, 2**32), st.booleans())
    )
)
def test_splits_partition_the_rows(case):
    labels, count, seed, stratified = case
    n = len(labels)
    first, rest = split(n, count, seed=seed, labels=labels if stratified else None)
    assert len(first) == count
    assert sorted([*first, *rest]) == list(range(n))
    assert first.tolist() == sorted(first)
    again, _ = split(n, count, seed=seed, labels=labels if stratified else None)
    assert first.tolist() == again.tolist()
    if stratified:
        for label in set(labels):
            share = labels.count(label) * count / n
            assert abs(sum(labels[row] == label for row in first) - share) < 1


def test_splits_never_change():
    # written down on one machine for all: rows with the smallest 64-bit numbers of PCG64(0)
    assert split(10, 4, seed=0)[0].tolist() == [1, 2, 3, 8]
    assert split(10, 0.4, seed=0)[0].tolist() == [1, 2, 3, 8]


def test_every_row_is_as_likely():
    # 2000 draws of 3 out of 10: each row is drawn 600 times, with a standard deviation of sqrt(2000 * 0.3 * 0.7)
    drawn = np.concatenate([split(10, 3, seed=seed)[0] for seed in range(2000)])
    assert np.abs(np.bincount(drawn, minlength=10) - 600).max() < 4.5 * (2000 * 0.21) ** 0.5


def test_splits_take_tensors_and_refuse_nonsense():
    labels = torch.tensor([0, 0, 1, 1])
    first, _ = split(4, 2, seed=1, labels=labels)
    assert labels[first].tolist() == [0, 1]
    for bad in (0.0, 1.0, 1.5):
        with pytest.raises(ValueError, match=rf"a fraction must lie in \(0, 1\); it is {bad}"):
            split(4, bad, seed=0)
    with pytest.raises(ValueError, match="must have 0 to 4 rows; 5 were asked for"):
        split(4, 5, seed=0)
    with pytest.raises(ValueError, match=r"labels must have shape \(4,\); it is \(3,\)"):
        split(4, 2, seed=0, labels=[0, 1, 0])


def test_parts_that_share_an_example_are_refused():
    check_disjoint([0, 1, 2], np.array([3, 4]))
    check_disjoint(*split(100, 30, seed=0))
    logits = np.random.default_rng(0).normal(size=(10, 3))
    check_disjoint(logits[:5], logits[5:])
    with pytest.raises(ValueError, match="fit and test overlap: row 1 of test is row 2 of fit"):
        check_disjoint([7, 5, 1], [0, 1])
    with pytest.raises(ValueError, match="row 2 of test is row 0 of fit"):
        check_disjoint(torch.tensor(logits[4:]), torch.tensor(logits[[0, 1, 4]]))
    with pytest.raises(
        ValueError, match=r"must be of one kind; they are torch.int64 \(2,\) and torch.float64 \(5, 3\)"
    ):
        check_disjoint([1, 2], logits[:5])
