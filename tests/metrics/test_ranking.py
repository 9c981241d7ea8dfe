"""Ranking against a Counter over Python numbers, and merge against ranking everything at once."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uqlib.metrics import Ranking, merge_rankings, rank

ROWS = st.lists(
    st.tuples(st.sampled_from([-2.5, -0.0, 0.0, 0.3, 1e-30, 7.0]) | st.floats(-9, 9, width=32), st.booleans()),
    min_size=1,
    max_size=40,
)


def columns(rows, dtype=torch.float64):
    score, positive = zip(*rows, strict=True)
    return torch.tensor(score, dtype=dtype), torch.tensor(positive)


def as_lists(ranking):
    return [column.tolist() for column in ranking]


@given(ROWS, st.sampled_from([torch.float32, torch.float64]))
def test_rank_counts_what_a_counter_counts(rows, dtype):
    rows = [(np.float32(score).item(), positive) for score, positive in rows]
    seen, hits = Counter(score for score, _ in rows), Counter(score for score, positive in rows if positive)
    scores = sorted(seen, reverse=True)  # 0.0 and -0.0 are one key of a Counter
    expected = [scores, [seen[score] for score in scores], [hits[score] for score in scores]]
    assert as_lists(rank(*columns(rows, dtype))) == expected


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_float_type_keeps_its_ties_and_its_values(dtype):
    score = torch.linspace(-3, 3, 1000).to(dtype)
    ranking = rank(score, torch.arange(1000) % 3 == 0)
    scores, count = score.double().unique(return_counts=True)
    assert ranking.scores.double().tolist() == scores.flip(0).tolist()
    assert ranking.count.tolist() == count.flip(0).tolist()
    assert ranking.positives.sum() == 334


def test_neighbours_in_float64_are_not_tied():
    ranking = rank(np.array([1.0, math.nextafter(1.0, 2.0)]), [True, False])
    assert as_lists(ranking) == [[math.nextafter(1.0, 2.0), 1.0], [1, 1], [0, 1]]


def test_zero_and_minus_zero_tie_and_leave_no_minus_zero():
    ranking = rank(np.array([0.0, -0.0, -0.0]), np.array([True, False, True]))
    assert as_lists(ranking) == [[0.0], [3], [2]]
    for left in (ranking, rank(np.array([-0.0]), [True])):
        assert math.copysign(1, left.scores.item()) == 1


@pytest.mark.parametrize("kind", [list, np.array, torch.tensor])
def test_the_input_is_left_as_it_was(kind):
    score, positive = kind([0.2, 0.9, 0.5]), kind([True, False, True])
    rank(score, positive)
    assert list(score) == [0.2, 0.9, 0.5] if kind is not torch.tensor else score.equal(torch.tensor([0.2, 0.9, 0.5]))
    assert list(positive) == [True, False, True]


@given(st.lists(ROWS, min_size=1, max_size=4))
def test_merge_is_the_ranking_of_the_concatenation(batches):
    together = rank(*columns([row for rows in batches for row in rows]))
    assert as_lists(merge_rankings(*(rank(*columns(rows)) for rows in batches))) == as_lists(together)


@given(ROWS, ROWS)
@settings(max_examples=25)
def test_merge_takes_a_wider_float_type_beside_a_narrow_one(narrow, wide):
    merged = merge_rankings(rank(*columns(narrow, torch.float32)), rank(*columns(wide)))
    kept = [(np.float32(score).item(), positive) for score, positive in narrow]
    assert as_lists(merged) == as_lists(rank(*columns(kept + wide)))


def test_a_ranking_holds_int64_tensors_for_numpy_input_too():
    ranking = rank(np.array([1.0, 2.0], dtype=np.float32), np.array([0, 1]))
    assert isinstance(ranking, Ranking)
    assert [column.dtype for column in ranking] == [torch.float32, torch.int64, torch.int64]


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="score must be finite; row 1 is nan"):
        rank([0.1, float("nan")], [True, False])
    with pytest.raises(ValueError, match="margin must be finite; row 0 is inf"):
        rank([float("inf")], [True], names=("margin", "correct"))
    with pytest.raises(ValueError, match="positive has 1 rows where 2 are expected"):
        rank([0.1, 0.2], [True])
    with pytest.raises(ValueError, match="score is empty"):
        rank(torch.zeros(0), torch.zeros(0, dtype=torch.bool))
    with pytest.raises(ValueError, match="score must have one axis"):
        rank(torch.zeros(2, 2), [True, False])
    with pytest.raises(ValueError, match="merge needs at least one Ranking"):
        merge_rankings()


def test_merge_takes_rankings_one_by_one(unchecked):
    with pytest.raises(TypeError, match=r"merge_rankings\(\*rankings\), each from rank\(\); got list"):
        merge_rankings([rank([0.1], [True])])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_ranks_as_the_cpu_does():
    generator = torch.Generator().manual_seed(0)
    score, positive = torch.randn(10_000, generator=generator).round(decimals=2), torch.arange(10_000) % 7 == 0
    ranking = rank(score.cuda(), positive.cuda())
    assert ranking.scores.is_cuda
    assert as_lists(ranking) == as_lists(rank(score, positive))
    assert as_lists(merge_rankings(ranking, ranking)) == as_lists(merge_rankings(*2 * [rank(score, positive)]))
