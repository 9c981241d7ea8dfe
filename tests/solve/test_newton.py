import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from uqlib.solve.newton import NoMinimum, minimize


def quadratic(matrix, target):
    """|A x - b|² / 2 and its derivatives."""
    matrix, target = torch.as_tensor(matrix).double(), torch.as_tensor(target).double()

    def objective(point):
        rest = matrix @ point - target
        return rest.square().sum().item() / 2, matrix.T @ rest, matrix.T @ matrix

    return objective


@given(st.integers(0, 10_000), st.integers(1, 8))
@settings(max_examples=60)
def test_bounded_least_squares_matches_scipy(seed, k):
    rng = np.random.default_rng(seed)
    matrix, target = rng.normal(size=(k + 3, k)), rng.normal(size=k + 3)
    expected, distance = nnls(matrix, target)
    found = minimize(quadratic(matrix, target), torch.zeros(k))
    np.testing.assert_allclose(found.point, expected, atol=1e-8)
    assert found.value == pytest.approx(distance**2 / 2, abs=1e-12)
    assert found.residual < 1e-8
    assert (found.point >= 0).all()


def test_a_thousand_variables():
    rng = np.random.default_rng(0)
    matrix, target = rng.normal(size=(1200, 1000)), rng.normal(size=1200)
    expected, _ = nnls(matrix, target)
    found = minimize(quadratic(matrix, target), torch.zeros(1000))
    np.testing.assert_allclose(found.point, expected, atol=1e-8)
    assert found.iterations < 50


def test_without_a_bound_it_is_least_squares():
    rng = np.random.default_rng(1)
    matrix, target = rng.normal(size=(6, 3)), rng.normal(size=6)
    found = minimize(quadratic(matrix, target), torch.zeros(3), lower=-float("inf"))
    np.testing.assert_allclose(found.point, np.linalg.lstsq(matrix, target)[0], atol=1e-12)
    assert found.gap < 1e-20


def test_a_flat_valley_keeps_the_least_step():
    # only x + y is known: from zero the shortest step to x + y = 3 goes half to each
    found = minimize(quadratic([[1.0, 1.0]], [3.0]), torch.zeros(2))
    np.testing.assert_allclose(found.point, [1.5, 1.5], atol=1e-12)
    constant = minimize(sloping(0.0), torch.ones(2))
    assert constant.point.tolist() == [1.0, 1.0]


def softplus_pair(point):
    """sum of log(1 + exp(-10 x)) and x: smooth, far from a quadratic, minimum where 10 / (1 + exp(10 x)) = 1."""
    exponent = (10 * point).exp()
    value = (torch.log1p(1 / exponent) + point).sum().item()
    return value, 1 - 10 / (1 + exponent), torch.diag(100 * exponent / (1 + exponent) ** 2)


def test_a_closed_form_from_a_start_far_away():
    for start in ([0.0, 0.0], [3.0, 0.1], [2.0, 30.0]):
        found = minimize(softplus_pair, torch.tensor(start))
        np.testing.assert_allclose(found.point, np.log(9) / 10, atol=1e-10)  # a gap of 1e-20 at curvature 9
        assert found.gap < 1e-20


def sloping(slope):
    """slope * (x + y)"""
    return lambda point: (slope * point.sum().item(), torch.full_like(point, slope), torch.zeros(2, 2).double())


def test_a_linear_slope_ends_at_the_bound_or_nowhere():
    down = minimize(sloping(1.0), torch.tensor([5.0, 0.5]))
    assert down.point.tolist() == [0.0, 0.0]
    assert down.residual == 0
    with pytest.raises(NoMinimum, match="no minimum at a finite point"):
        minimize(sloping(-1.0), torch.zeros(2))


def test_a_minimum_at_infinity_is_told():
    def falling(point):  # exp(-x) + (y - 1)²
        tail = (-point[0]).exp()
        gradient = torch.stack([-tail, 2 * (point[1] - 1)])
        return (tail + (point[1] - 1) ** 2).item(), gradient, torch.diag(torch.stack([tail, 2 * tail / tail]))

    with pytest.raises(NoMinimum, match=r"the value .* still falls at a point of size"):
        minimize(falling, torch.zeros(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: minimize(quadratic([[1.0]], [1.0]), torch.tensor([-1.0])), "start must not lie below the bound 0.0"),
        (lambda: minimize(lambda x: (float("nan"), x, x[:, None]), torch.ones(1)), "the objective at the start is nan"),
        (
            lambda: minimize(lambda x: (x.sum().item(), -x, torch.eye(1).double()), torch.ones(1)),
            "no step lowers the value 1, .* Does the gradient belong to the value",
        ),
    ],
)
def test_errors_say_what_came(call, message):
    with pytest.raises(ValueError, match=message):
        call()
