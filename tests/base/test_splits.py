import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from uqlib.base.splits import check_disjoint, split, uniform_numbers


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
        with pytest.raises(ValueError, match=rf"first, a fraction, must lie in \(0, 1\); it is {bad}"):
            split(4, bad, seed=0)
    with pytest.raises(
        ValueError, match="first, a number of rows, must be a whole number of at least 0 and of at most 4; it is 5"
    ):
        split(4, 5, seed=0)
    with pytest.raises(ValueError, match=r"labels must have shape \(4,\), one an example; it is \(3,\)"):
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


HALVES = [0.5, np.float64(0.5), np.float32(0.5), np.float16(0.5), np.array(0.5), torch.tensor(0.5)]


@pytest.mark.parametrize("half", HALVES, ids=lambda half: type(half).__name__)
def test_a_fraction_is_one_whatever_its_type(half, unchecked):
    assert len(split(100, half, seed=0)[0]) == 50
    assert len(split(np.int32(100), half, seed=np.uint8(0))[0]) == 50


@pytest.mark.parametrize("count", [np.int8(30), np.uint64(30), np.array(30), torch.tensor(30)], ids=str)
def test_a_number_of_rows_is_one_whatever_its_type(count, unchecked):
    assert split(100, count, seed=0)[0].tolist() == split(100, 30, seed=0)[0].tolist()


@pytest.mark.parametrize(
    ("change", "argument"),
    [
        *(({"first": odd}, "first") for odd in (True, np.False_, "0.5", None, np.nan, np.inf, [3], -1, 101, 0.0, 1.0)),
        *(({"n": odd}, "n must") for odd in (True, 100.0, "100", None, 0, -1)),
        *(({"seed": odd}, "seed") for odd in (True, 1.5, "0", None, -1)),
        *(({"labels": odd}, "labels") for odd in ([0.0] * 100, [None] * 100, [0] * 99, [[0, 1]] * 100, "a" * 100, 3)),
        ({"labels": np.ma.array(np.zeros(100, int), mask=np.arange(100) == 3)}, "labels .*row 3"),
    ],
    ids=str,
)
def test_what_is_no_number_of_rows_seed_or_label_is_refused_by_name(change, argument, unchecked):
    given = {"n": 100, "first": 30, "seed": 0} | change
    with pytest.raises((TypeError, ValueError), match=argument):
        split(given.pop("n"), given.pop("first"), **given)


def test_labels_of_every_kind_draw_the_same_rows():
    pandas = pytest.importorskip("pandas")
    labels = np.arange(60) % 3
    expected = split(60, 20, seed=1, labels=labels)[0].tolist()
    names = np.array(["ape", "bee", "cat"])[labels]
    kinds = [labels.astype(kind) for kind in ("u1", "u2", "u4", "u8", "i2", ">i8")] + [labels[:, None]]
    kinds += [labels.tolist(), tuple(labels.tolist()), torch.tensor(labels).short(), labels % 3 == 1]
    kinds += [pandas.Series(labels), pandas.Series(labels, dtype="Int64"), np.ma.array(labels)]
    kinds += [
        names,
        names.tolist(),
        names.astype(object),
        pandas.Series(names),
        pandas.Series(names).astype("category"),
    ]
    for kind in kinds:
        same = (
            expected if np.asarray(kind).dtype != bool else split(60, 20, seed=1, labels=(labels == 1) + 0)[0].tolist()
        )
        assert split(60, 20, seed=1, labels=kind)[0].tolist() == same, type(kind)


@pytest.mark.parametrize("labels", [["a", float("nan"), "b"], ("a", None, "b"), ["1", 1, "b"]])
def test_what_is_no_name_among_names_is_no_class(labels):
    with pytest.raises(ValueError, match="labels must be names or integers, not both; entry 1 is"):
        split(3, 0.5, seed=0, labels=labels)


def test_an_example_is_one_whatever_the_type_of_its_numbers():
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    for one in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        for other in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
            coarse = logits.bfloat16().half().bfloat16()  # which all four hold
            check_disjoint(coarse[:3].to(one), coarse[3:].to(other))
            with pytest.raises(ValueError, match="row 2 of test is row 1 of fit"):
                check_disjoint(coarse[:3].to(one), coarse[[3, 4, 1]].to(other))
    with pytest.raises(ValueError, match="row 1 of test is row 0 of fit"):
        check_disjoint(np.array([[0.0, 1.0]]), np.array([[2.0, 1.0], [-0.0, 1.0]]))
    with pytest.raises(ValueError, match="row 0 of test is row 1 of fit"):
        check_disjoint(logits[:2].double(), logits[1:2].half().double().half())  # rounded on its way
    check_disjoint(np.array([44], np.uint8), np.array([300]))  # 300 is 44 in 8 bits
    with pytest.raises(ValueError, match="row 0 of test is row 1 of fit"):
        check_disjoint(np.array([1, 44], np.uint16), [44])


@pytest.mark.parametrize(
    ("fit", "test", "message"),
    [
        ([True, False], [False, True], "fit must be row numbers, .*a mask: fit.nonzero"),
        ([0, 1], torch.tensor([False, True]), "test must be row numbers, .*a mask"),
        (3, [4], "fit must have an entry an example"),
        (["a"], ["b"], "fit must be an array of numbers"),
        ([1, 2], None, "test must be an array of numbers"),
        ([[np.nan, 0.0]], [[1.0, 2.0]], "fit must be finite; row 0, column 0 is nan"),
    ],
)
def test_what_tells_no_examples_apart_is_refused_by_name(fit, test, message, unchecked):
    with pytest.raises((TypeError, ValueError), match=message):
        check_disjoint(fit, test)


def test_uniform_numbers_are_those_of_numpys_generator_and_uniform():
    """NumPy's own floats of PCG64 are made of the same bits, so far; a later NumPy may draw them otherwise."""
    numbers = uniform_numbers(20_000, seed=3)
    assert uniform_numbers(2, seed=0) == pytest.approx([0.6369616873214543, 0.2697867137638703], abs=1e-16)
    assert (numbers[:5] == uniform_numbers(5, seed=3)).all()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    counts = np.histogram(numbers, 10, (0, 1))[0]
    assert np.abs(counts - 2000).max() < 4.5 * np.sqrt(2000 * 0.9)
    with pytest.raises(ValueError, match="seed must be a whole number of at least 0; it is -1"):
        uniform_numbers(3, seed=-1)
