import math
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch

from uqlib import metrics
from uqlib.base.arrays import as_tensor
from uqlib.base.checks import check_finite, check_labels, check_logits, check_mask, check_size, check_weights
from uqlib.base.options import check_number, check_result, check_whole
from uqlib.calibrate import confidences
from uqlib.calibrate.temperature import fit_temperature, scale_logits
from uqlib.combine import duos

NUMBERS = np.array([[1.5, -2.0], [0.25, 3.0]])


@pytest.mark.parametrize(
    "array",
    [
        NUMBERS.astype(">f8"),
        NUMBERS.astype(">f4"),
        np.asfortranarray(NUMBERS),
        NUMBERS[::-1].copy()[::-1],
        np.repeat(NUMBERS, 2, 0)[::2],
        NUMBERS.tolist(),
    ],
    ids=["big-endian", "big-endian float32", "Fortran", "reversed", "strided", "list"],
)
def test_every_layout_of_numpy_holds_the_same_numbers(array):
    assert as_tensor(array).tolist() == NUMBERS.tolist()


def test_a_read_only_array_is_never_written_through():
    fixed = NUMBERS.copy()
    fixed.setflags(write=False)
    as_tensor(fixed).add_(1)
    assert (fixed == NUMBERS).all()


def test_complex_numbers_are_refused():
    for array in (NUMBERS + 0j, torch.tensor(NUMBERS + 0j)):
        with pytest.raises(TypeError, match=r"real numbers; it is torch.complex128. Pass its .real"):
            as_tensor(array)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: check_logits(np.log([[1e-300, 1.0], [0.5, 0.5]]) * [[np.inf, 1], [1, 1]]),
            ValueError,
            "probability 0",
        ),
        (lambda: check_logits([[0.4, 0.6]]), ValueError, r"Pass .* or log\(probs.clip\(1e-12\)\)"),
        (
            lambda: check_labels([0.0, 1.0], 2),
            TypeError,
            "they are torch.float64. Class indices\\? Convert them to int64",
        ),
        (lambda: check_labels([True, False], 2), TypeError, "they are torch.bool"),
        (lambda: as_tensor(["cat"]), TypeError, "array must be an array of numbers; it is list"),
    ],
)
def test_errors_say_what_came_and_the_remedy(call, error, message):
    with pytest.raises(error, match=message):
        call()


WHOLES = [7, np.int64(7), np.uint8(7), np.array(7), torch.tensor(7), torch.tensor(7, dtype=torch.int16)]
NO_NUMBERS = [True, np.bool_(True), torch.tensor(True), np.array(True), "7", None, [7], np.array([7]), 7j]


@pytest.mark.parametrize("value", WHOLES, ids=repr)
def test_whole_numbers_of_every_library_are_ints(value):
    assert check_whole(value, "bins", least=7, most=7) == 7
    assert type(check_whole(value, "bins")) is int


@pytest.mark.parametrize("value", [*NO_NUMBERS, 7.0, np.float64(7), torch.tensor(7.0)], ids=repr)
def test_what_is_no_whole_number_is_refused_by_name_and_value(value):
    with pytest.raises(TypeError, match="bins must be a whole number of at least 1; it is ") as error:
        check_whole(value, "bins", least=1)
    assert str(error.value).endswith(f"{value!r} ({type(value).__name__})")


@pytest.mark.parametrize(
    "value",
    [0.5, np.float16(0.5), np.float32(0.5), np.array(0.5), torch.tensor(0.5), torch.tensor(0.5, dtype=torch.bfloat16)],
    ids=repr,
)
def test_real_numbers_of_every_library_are_floats(value):
    assert check_number(value, "level", least=0.5, most=0.5, above=0) == 0.5
    assert type(check_number(value, "level")) is float


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_is_no_real_number_is_refused_by_name_and_value(value):
    with pytest.raises(TypeError, match="level must be a finite number above 0 and of at most 1; it is "):
        check_number(value, "level", above=0, most=1)


@pytest.mark.parametrize("value", WHOLES, ids=repr)
def test_a_whole_number_is_a_real_one(value):
    assert check_number(value, "level") == 7.0


def test_bounds_are_named_and_nan_is_no_number():
    with pytest.raises(ValueError, match="bins must be a whole number of at least 1; it is 0"):
        check_whole(0, "bins", least=1)
    with pytest.raises(ValueError, match="ridge must be a finite number that float64 holds; it is 1000"):
        check_number(10**400, "ridge")
    with pytest.raises(ValueError, match="ridge must be a finite number above 0; it is 0"):
        check_number(0, "ridge", above=0)
    for value in (float("nan"), np.float32("nan"), torch.tensor(float("nan"))):
        with pytest.raises(ValueError, match="ridge must be a number; it is nan"):
            check_number(value, "ridge", finite=False)
    with pytest.raises(ValueError, match="ridge must be a finite number; it is inf"):
        check_number(float("inf"), "ridge")
    assert check_number(float("inf"), "ridge", finite=False) == float("inf")


def drawn(n, classes, spread=4.0):
    generator = torch.Generator().manual_seed(0)
    return spread * torch.randn(n, classes, generator=generator, dtype=torch.float64)


def as_frame(values, kind):
    return pd.DataFrame({f"c{k}": pd.array(column, dtype=kind) for k, column in enumerate(values.T)})


WHOLE = np.array([3, 0, 2, 1])


@pytest.mark.parametrize(
    "array",
    [
        *(WHOLE.astype(kind) for kind in ("u1", "u2", "u4", "u8", ">u2", "i1", ">i8")),
        *(torch.tensor(WHOLE.astype(kind)) for kind in ("u2", "u4", "u8")),
        pd.Series(WHOLE, index=[9, 1, 1, 0]),
        *(pd.Series(WHOLE, dtype=kind) for kind in ("Int64", "UInt8", "uint16", "UInt64")),
        pd.Index(WHOLE),
        pd.Series(WHOLE).astype("category"),
        np.ma.array(WHOLE),
        np.ma.array(WHOLE, mask=False),
        [torch.tensor(x) for x in WHOLE],
        tuple(WHOLE.tolist()),
        WHOLE[:, None],
        pd.DataFrame({"label": WHOLE}),
    ],
    ids=lambda array: f"{type(array).__name__} {getattr(array, 'dtype', '')}",
)
def test_labels_of_every_kind_are_the_same_int64(array):
    labels = check_labels(array, 4)
    assert labels.dtype == torch.int64
    assert labels.tolist() == WHOLE.tolist()


@pytest.mark.parametrize("kind", ["float64", "Float64", "float32", "Float32"])
def test_tables_of_pandas_hold_their_numbers(kind):
    values = np.array([[0.5, -1.25], [2.0, 8.0]])
    assert check_logits(as_frame(values, kind)).tolist() == values.tolist()
    mixed = pd.DataFrame({"a": pd.array([1, 0], dtype="boolean"), "b": [0.5, 4.0]})
    assert as_tensor(mixed).tolist() == [[1.0, 0.5], [0.0, 4.0]]


@pytest.mark.parametrize(
    ("array", "place"),
    [
        (pd.Series([1, pd.NA], dtype="Int64"), "row 1 is <NA>"),
        (pd.Series([1.0, None], dtype="Float64"), "row 1 is <NA>"),
        (pd.Series([pd.NA, True], dtype="boolean"), "row 0 is <NA>"),
        (as_frame(np.array([[1, 2], [3, 4]]), "Int64").replace(4, pd.NA), "row 1, column 1 is <NA>"),
        (np.ma.array([1, 2, 3], mask=[0, 0, 1]), "row 2 is masked"),
        (np.ma.array([[1.0, 2.0], [3.0, 4.0]], mask=[[0, 0], [1, 0]]), "row 1, column 0 is masked"),
        ([np.ma.array([1.0, 2.0]), np.ma.array([3.0, 4.0], mask=[0, 1])], "row 1, column 1 is masked"),
    ],
)
def test_missing_entries_are_refused_by_argument_and_row(array, place):
    with pytest.raises(ValueError, match=f"logits must have no missing entries; {place}. Drop that row everywhere"):
        as_tensor(array, "logits")


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (["cat", "dog"], r"entry 0 is cat\. Names of classes\?"),
        (np.array(["cat", "dog"], dtype=object), "entry 0 is cat"),
        (pd.Series(["cat", "dog"]), "entry 0 is cat"),
        ([1, None], r"entry 1 is None \(NoneType\)"),
        (None, r"it is NoneType: entry 0 is None"),
        (np.array([1, 2], dtype=object), r"Python objects\. Convert them by np\.asarray"),
        ({"a": 1}, "it is dict"),
        ([[1, 2], [3]], "it is list"),
        ([torch.ones(2), torch.ones(3)], "it is list"),
        (np.array(["2026-01-01"], dtype="M8[D]"), "it is ndarray"),
        (torch.eye(2).to_sparse(), "Pass its .to_dense()"),
        (torch.ones(2, device="meta"), "on meta"),
    ],
)
def test_what_is_no_array_of_numbers_is_refused_by_argument(array, what):
    with pytest.raises(TypeError, match=f"labels must be .*{what}"):
        as_tensor(array, "labels")


def test_the_advice_for_names_of_classes_works():
    preds, labels = ["cat", "dog", "cat"], ["dog", "dog", "cat"]
    numbered = np.unique([preds, labels], return_inverse=True)[1]
    assert metrics.accuracy(*numbered) == pytest.approx(2 / 3)
    assert check_labels(np.unique(labels, return_inverse=True)[1], 2).tolist() == [1, 1, 0]
    assert as_tensor(np.asarray(["0.5", "2"], dtype=np.float64)).tolist() == [0.5, 2.0]


def test_an_unsigned_integer_beyond_int64_is_refused():
    with pytest.raises(ValueError, match="labels must fit into int64; row 1 is 18446744073709551615"):
        check_labels(np.array([0, 2**64 - 1], dtype=np.uint64), 4)


def test_whole_numbers_that_float64_would_tie_are_refused_and_their_ranks_do():
    score = np.array([2**53, 2**53 + 1])
    with pytest.raises(ValueError, match=r"score must be at most 2\*\*53.* row 1 is 9007199254740993"):
        metrics.auroc(score, [0, 1])
    assert metrics.auroc(np.unique(score, return_inverse=True)[1], [0, 1]) == 1
    assert metrics.auroc(np.array([2**53 - 1, 2**53]), [0, 1]) == 1


@pytest.mark.parametrize("ignored", [-1, -100, 255])
def test_marks_of_rows_to_leave_out_are_refused_and_dropping_them_works(ignored):
    preds, labels = np.array([0, 3, 1, 20, 5]), np.array([0, 3, ignored, 2, 5])
    for metric in (metrics.accuracy, metrics.macro_f1, metrics.correctness):
        with pytest.raises(ValueError, match=rf"labels must .* row 2 is {ignored}.* Drop them .* labels != {ignored}"):
            metric(preds, labels)
    keep = labels != ignored
    assert metrics.accuracy(preds[keep], labels[keep]) == 0.75


def test_255_is_a_class_where_others_are_near_or_it_is_predicted():
    assert metrics.accuracy([0, 255, 3], [0, 255, 255]) == pytest.approx(2 / 3)
    assert metrics.accuracy([0, 200, 3], [0, 255, 3]) == pytest.approx(2 / 3)
    assert metrics.accuracy([0, 700, 3], [0, 255, 3]) == pytest.approx(2 / 3)
    assert check_labels([0, 255], 1000).tolist() == [0, 255]


def test_classes_masked_by_minus_infinity_can_be_dropped_as_the_message_says():
    logits, labels = drawn(50, 5).numpy(), np.tile([0, 2, 3, 2, 0], 10)
    expected = metrics.nll(logits[:, [0, 2, 3]], np.tile([0, 1, 2, 1, 0], 10))
    logits[:, [1, 4]] = -np.inf
    with pytest.raises(ValueError, match=r"row 0, column 1 is -inf\. Classes masked by -inf\? .* np\.cumsum"):
        metrics.nll(logits, labels)
    kept = np.isfinite(logits).all(0)
    assert metrics.nll(logits[:, kept], np.cumsum(kept)[labels] - 1) == expected


def test_one_logit_or_one_probability_becomes_two_columns_as_the_message_says():
    z, labels = drawn(40, 2)[:, :1].numpy(), np.arange(40) % 2
    for given in (z, z[:, 0]):
        with pytest.raises(ValueError, match=r"np\.column_stack\(\[0 \* z, z\]\).* np\.column_stack\(\[1 - p, p\]\)"):
            metrics.nll(given, labels)
    p = 1 / (1 + np.exp(-z))
    expected = -np.log(np.where(labels == 1, p[:, 0], 1 - p[:, 0]))
    np.testing.assert_allclose(metrics.nll_each(np.column_stack([0 * z, z]), labels), expected, rtol=1e-9)
    assert metrics.brier(np.column_stack([1 - p, p]), labels) == pytest.approx(2 * np.mean((p[:, 0] - labels) ** 2))


PROBABILITIES = {
    "float32": lambda z: z.softmax(-1).float(),
    "float16": lambda z: z.half().softmax(-1),
    "bfloat16": lambda z: z.bfloat16().softmax(-1),
    "bfloat16 in float32": lambda z: z.bfloat16().softmax(-1).float(),
    "slightly negative": lambda z: z.softmax(-1) - 1e-9,
    **{f"{d} decimals": partial(lambda z, d: z.softmax(-1).round(decimals=d), d=d) for d in (1, 2, 3, 4)},
    "one row lost": lambda z: z.softmax(-1) * (torch.arange(len(z)) != 7)[:, None],
}
PERCENT = {
    "percent": lambda z: 100 * z.softmax(-1),
    "percent in bfloat16": lambda z: (100 * z.softmax(-1)).bfloat16(),
    **{f"percent, {d} decimals": partial(lambda z, d: (100 * z.softmax(-1)).round(decimals=d), d=d) for d in (0, 1, 2)},
}
SEES_LOGITS = {
    "nll": metrics.nll,
    "fit_temperature": fit_temperature,
    "max_probability": lambda z, _: confidences.max_probability(z),
    "scale_logits": lambda z, _: scale_logits(z, 2.0),
    "fit_duo": lambda z, labels: duos.fit_duo(z, z.flip(1), labels),
}


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("kind", PROBABILITIES | PERCENT)
def test_probabilities_of_every_kind_never_pass_for_logits(kind, classes):
    for spread in (1.0, 4.0):
        logits = drawn(200, classes, spread)
        table = (PROBABILITIES | PERCENT)[kind](logits)
        if not table.any():
            continue  # rounding has left nothing
        for call in SEES_LOGITS.values():
            with pytest.raises(ValueError, match=f"look like {'percent' if kind in PERCENT else 'probabilities'}"):
                call(table, torch.arange(200) % classes)


@pytest.mark.parametrize("kind", PROBABILITIES | PERCENT)
def test_probabilities_are_never_called_logits_and_the_advice_for_them_works(kind):
    logits, labels = drawn(200, 10), torch.arange(200) % 10
    table = (PROBABILITIES | PERCENT)[kind](logits)
    expected = metrics.brier(logits.softmax(-1), labels)
    try:
        found = metrics.brier(table, labels)
    except ValueError as error:
        mended = {
            "Percent? Divide by 100": lambda: table.double() / 100,
            "Rounded? Pass them as they were computed, or divide": lambda: table / table.sum(-1, keepdims=True),
            "Below 0 by rounding? Pass probs.clip(0, 1)": lambda: table.clip(0, 1),
        }
        (mend,) = (how for said, how in mended.items() if said in str(error))
        if kind == "one row lost":
            return  # which no division brings back
        table = mend()
        if "percent" in kind:
            table = table / table.sum(-1, keepdims=True)
        found = metrics.brier(table, labels)
    assert found == pytest.approx(expected, abs=0.05 if "1 decimals" in kind else 0.005)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_logarithm_that_the_message_names_is_taken(dtype):
    logits, labels = drawn(300, 6), torch.arange(300) % 6
    probs = logits.to(dtype).softmax(-1)
    with pytest.raises(ValueError, match=r"or log\(probs\.clip\((1e-\d+)\)\)") as error:
        metrics.nll(probs, labels)
    least = float(str(error.value).split("clip(")[1].split(")")[0])
    assert metrics.nll(probs.clip(least).log(), labels) == pytest.approx(metrics.nll(logits, labels), rel=0.05)
    percent = 100 * logits.softmax(-1)
    assert metrics.nll((percent / 100).clip(1e-12).log(), labels) == pytest.approx(metrics.nll(logits, labels))


@pytest.mark.parametrize(
    "table",
    [
        drawn(300, 10),
        drawn(300, 10).relu(),
        drawn(300, 10).abs() / 10,
        drawn(300, 1000).sigmoid(),
        drawn(300, 10).relu().round(decimals=2),
        torch.arange(600.0).reshape(300, 2) % 7,
        100 * drawn(300, 10).relu(),
        torch.zeros(4, 1000),
        3 * torch.eye(4),
    ],
)
def test_logits_without_a_negative_entry_are_logits(table):
    assert check_logits(table).data_ptr() == table.data_ptr()


def test_the_device_of_the_first_array_decides(monkeypatch):
    moved = []
    monkeypatch.setattr(torch.Tensor, "to", lambda self, *to, **_: moved.append(to) or self)
    here = torch.device("cpu")
    check_labels([0, 1], 2, device=here)
    check_mask([True, False], device=here)
    assert moved == [(here,), (here,)]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_labels_elsewhere_are_brought_to_the_logits():
    logits, labels = drawn(300, 5), torch.arange(300) % 5
    for call in (metrics.nll, fit_temperature, lambda z, y: metrics.brier(z.softmax(-1), y)):
        for z, y in ((logits.cuda(), labels), (logits, labels.cuda())):
            assert call(z, y) == pytest.approx(call(logits, labels))
    for z, y in ((logits.cuda(), labels), (logits, labels.cuda())):
        confidence, correct = z.softmax(-1).amax(-1), labels.to(y.device) == 2
        for metric in (metrics.ece, metrics.smooth_ece, metrics.aurc, metrics.correctness_auroc):
            assert metric(confidence, correct) == pytest.approx(metric(confidence.cpu(), correct.cpu()))
        assert duos.fit_duo(z, logits.flip(0), y).nll == pytest.approx(duos.fit_duo(logits, logits.flip(0), labels).nll)


def test_labels_without_a_known_number_of_classes_are_0_or_larger():
    assert check_labels(np.array([3, 0], np.int32), None).tolist() == [3, 0]
    with pytest.raises(ValueError, match="given must be 0 or larger; row 1 is -100"):
        check_labels([3, -100], None, name="given")


def test_numbers_whose_squares_overflow_are_refused():
    check_size(torch.tensor([[1e100, -1e100]], dtype=torch.float64), "logits")
    check_size(torch.full((2,), 3e38), "logits")  # float32 has no number that is too large
    with pytest.raises(ValueError, match=r"logits must be at most 1e\+100 in size, .*; row 1, column 0 is -1e\+300"):
        check_size(torch.tensor([[1, 2], [-1e300, 0]], dtype=torch.float64), "logits")
    check_size(torch.tensor([0.0, 1e-100], dtype=torch.float64), "logits")
    check_size(torch.zeros(3, dtype=torch.float64), "logits")
    with pytest.raises(ValueError, match=r"x must be at most 1e\+30 in size, .*; row 1 is 1.00026"):
        check_size(torch.tensor([0.0, 1e30]).bfloat16(), "x", most=1e30)
    with pytest.raises(
        ValueError, match=r"logits must not all be below 1e-100 in size, .*; the largest is 1e-200. Mult"
    ):
        check_size(torch.tensor([0.0, -1e-200], dtype=torch.float64), "logits")
    with pytest.raises(ValueError, match=r"x must be at most 1e\+15 in size, .*; row 0 is 1e\+20"):
        check_size(torch.full((2,), 1e20), "x", most=1e15)


def test_a_result_of_another_function_is_told_from_what_is_needed():
    check_result(slice(3), slice, "fit", "slice")
    with pytest.raises(TypeError, match="fit must be what slice returns, a slice; it is None"):
        check_result(None, slice, "fit", "slice")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("logits", "Logits that overflowed"),
        ("large_features", "Features that overflowed"),
        ("costs", ""),
        ("grid", ""),
        ("weights", ""),
    ],
)
def test_the_hint_of_a_value_that_is_not_finite_fits_what_is_checked(name, hint):
    with pytest.raises(ValueError, match=f"{name} must be finite; row 1 is nan") as error:
        check_finite(torch.tensor([1.0, math.nan]), name)
    assert ("overflowed" in str(error.value)) == bool(hint)
    assert hint in str(error.value)


@pytest.mark.parametrize("scale", [1e-323, 1e-320, 1e-200, 0.3, 1e200, 3e307])
def test_the_scale_of_weights_says_nothing_however_small_or_large(scale):
    """Denormal weights and those whose sum overflows count as others do; the least of all numbers leave few digits."""
    shares = np.array([1.0, 2, 3, 5, 0, 4])
    found = check_weights(shares * scale)
    assert found.sum().isfinite()
    digits = 0.6 if scale < 1e-322 else 1e-3
    assert (found / found.sum()).numpy() == pytest.approx(shares / shares.sum(), rel=digits)
