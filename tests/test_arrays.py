import numpy as np
import pytest
import torch

from uqlib.arrays import as_tensor, check_labels, check_logits

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
        with pytest.raises(TypeError, match=r"real numbers, got torch.complex128; pass its .real"):
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
        (lambda: as_tensor(["cat"]), TypeError, "expected an array of numbers, got list"),
    ],
)
def test_errors_say_what_came_and_the_remedy(call, error, message):
    with pytest.raises(error, match=message):
        call()
