"""The minimum of a smooth convex function of a few variables under lower bounds, to rounding, with its certificate.

A projected Newton method. It serves the temperatures and weights of this library, whose functions are mean
log-likelihoods: of order one, convex, with a Hessian that may be singular.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

Objective = Callable[[Tensor], tuple[float, Tensor, Tensor]]  # point -> value, gradient (k,), Hessian (k, k)

WALKING = 1e-10  # a gap below this while the steps keep their length: the way leads to infinity


class NoMinimum(ValueError):
    """The function falls for ever: it has no minimum at a finite point."""


class Minimum(NamedTuple):
    """A point, and how well it is known to be the minimum."""

    point: Float[Tensor, " k"]
    value: float
    gradient: Float[Tensor, " k"]
    hessian: Float[Tensor, "k k"]
    residual: float  # largest |min(point - lower, gradient)|: zero at the minimum and only there (KKT)
    gap: float  # how far the value lies above the minimum, to second order: half the squared Newton decrement
    iterations: int  # evaluations of the objective


class _Step(NamedTuple):
    direction: Float[Tensor, " k"]
    gap: float


def minimize(
    objective: Objective,
    start: Float[Tensor, " k"],
    *,
    lower: float = 0.0,
    tolerance: float = 1e-14,
    max_iterations: int = 100,
) -> Minimum:
    """Minimise a convex function over all points >= lower, in float64, from its gradient and Hessian.

    Newton steps on the variables that are not held by their bound, shortened until the value falls enough. Where the
    Hessian is singular, the step of least length (in variables scaled by its diagonal) leaves flat directions alone.
    Below the tolerance one more step is taken, which squares the error. Time: a few evaluations, k^3 each.

    Args:
        objective: point (k,) -> value, gradient (k,), Hessian (k, k), in float64 on the CPU.
        start: (k,), >= lower.
        lower: the bound of every variable; -inf for none.
        tolerance: the gap, in units of the value, that counts as reached.
        max_iterations: evaluations before giving up.

    Raises:
        NoMinimum: if the minimum runs to infinity.
        ValueError: if the start lies below the bound or its value is not finite, or if no step along the gradient
            lowers the value.

    Source:
        Bertsekas 1982, Projected Newton methods (SIAM J. Control Optim. 20); for decrement and backtracking
        Boyd & Vandenberghe 2004, Convex Optimization, sections 9.2 and 9.5.
    """
    point = start.double()
    if (point < lower).any():
        raise ValueError(f"start must not lie below the bound {lower}; its least entry is {point.min().item()}")
    value, gradient, hessian = objective(point)
    if not math.isfinite(value):
        raise ValueError(f"the objective at the start is {value}; a finite value is needed")
    previous, polished = float("inf"), False
    for iteration in range(1, max_iterations + 1):
        step = _newton_step(point, gradient, hessian, lower)
        if step.gap <= 1e-6 * tolerance or polished:
            return _minimum(point, value, gradient, hessian, lower, step.gap, iteration)
        polished = step.gap <= tolerance
        found = _backtrack(objective, point, value, gradient, step, lower)
        if found is None:
            if polished or step.gap < 1e-9:  # the value no longer tells points apart
                return _minimum(point, value, gradient, hessian, lower, step.gap, iteration)
            raise ValueError(
                f"no step lowers the value {value:.6g}, though {step.gap:.3g} below it is in sight. "
                "Does the gradient belong to the value?"
            )
        length = (found[0] - point).abs().max().item()
        if not polished and step.gap < WALKING and length > 0.9 * previous:
            break
        point, value, gradient, hessian = found
        previous = length
    raise NoMinimum(
        f"the value {value:.6g} still falls at a point of size {point.abs().max().item():.3g}: "
        "the function has no minimum at a finite point"
    )


def _newton_step(
    point: Float[Tensor, " k"], gradient: Float[Tensor, " k"], hessian: Float[Tensor, "k k"], lower: float
) -> _Step:
    """Newton's direction for the free variables; those held at (or nearly at) their bound go to it."""
    reach = min(1e-3, _residual(point, gradient, lower))
    held = (point - lower <= reach) & (gradient > 0)
    direction = torch.where(held, lower - point, torch.zeros_like(point))
    free = ~held
    direction[free] = _least_solution(hessian[free][:, free], -gradient[free], point)
    return _Step(direction, max(0.0, -(gradient @ direction).item() / 2))


def _least_solution(
    matrix: Float[Tensor, "k k"], right: Float[Tensor, " k"], point: Float[Tensor, " k2"]
) -> Float[Tensor, " k"]:
    """The shortest solution of matrix x = right in scaled variables, for a symmetric matrix that may be singular."""
    if not len(right):
        return right
    diagonal = matrix.diagonal()
    scale = torch.where(diagonal > 0, diagonal, torch.ones_like(diagonal)).rsqrt()  # units of the variables cancel
    eigenvalues, vectors = torch.linalg.eigh(scale[:, None] * matrix * scale)
    slopes = vectors.T @ (scale * right)
    flat = eigenvalues <= len(right) * torch.finfo(torch.float64).eps * eigenvalues[-1].clamp(min=0)
    solution = torch.where(flat, torch.zeros_like(slopes), slopes / eigenvalues)
    if flat.any() and slopes[flat].norm() > 1e-9 * (1 + slopes.norm()):
        # straight and not level: no Newton step, so go about as far as one has come
        solution[flat] = slopes[flat] / slopes[flat].norm() * (1 + point.norm())
    return scale * (vectors @ solution)


def _backtrack(
    objective: Objective, point: Tensor, value: float, gradient: Tensor, step: _Step, lower: float
) -> tuple[Tensor, float, Tensor, Tensor] | None:
    """The first of the steps 1, 1/2, 1/4, ... that lowers the value by a fair part of what its slope promises."""
    slack = 1e-14 * (1 + abs(value)) if step.gap < 1e-9 else 0.0  # near the minimum a mean differs by its rounding
    for halvings in range(40):
        trial = (point + 0.5**halvings * step.direction).clamp(min=lower)
        found = objective(trial)
        promised = (gradient @ (point - trial)).item()
        if found[0] <= value - 1e-4 * promised + slack:  # false for NaN
            return trial, *found
        if step.gap < 1e-9 and halvings >= 5:
            return None
    return None


def _residual(point: Tensor, gradient: Tensor, lower: float) -> float:
    return torch.minimum(point - lower, gradient).abs().max().item()


def _minimum(
    point: Tensor, value: float, gradient: Tensor, hessian: Tensor, lower: float, gap: float, iterations: int
) -> Minimum:
    return Minimum(point, value, gradient, hessian, _residual(point, gradient, lower), gap, iterations)
