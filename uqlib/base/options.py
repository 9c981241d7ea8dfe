"""Checks of options: whole numbers, numbers within bounds, one of several names, results of our own functions."""

import math
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any

import numpy as np
from torch import Tensor

from uqlib.base.arrays import _shown, as_tensor


def check_choice(name: str, known: Collection[str], what: str) -> str:
    """The name, if it is known; else a ValueError that lists those that are."""
    if not isinstance(name, str) or name not in known:
        raise ValueError(f"unknown {what} {name!r}; choose from {', '.join(known)}")
    return name


def check_whole(value: Any, name: str, *, least: int | None = None, most: int | None = None) -> int:
    """The value as an int, if it is a whole number: an int of Python, NumPy or torch, and no bool.

    Raises:
        TypeError: if it is of another type, such as True, 3.0 or "3".
        ValueError: if it lies outside least to most.
    """
    number = _scalar(value)
    if isinstance(number, bool | np.bool_) or not isinstance(number, Integral):
        raise TypeError(f"{name} must be a whole number{_bounds(least, most)}; it is {_shown(value)}")
    number = int(number)
    _check_bounds(number, name, least, most, "a whole number")
    return number


def check_seed(seed: Any, name: str = "seed") -> int:
    """The seed as an int, if a generator of torch takes it."""
    return check_whole(seed, name, least=0, most=2**64 - 1)


def check_number(
    value: Any,
    name: str,
    *,
    least: float | None = None,
    most: float | None = None,
    above: float | None = None,
    finite: bool = True,
) -> float:
    """The value as a float, if it is a real number: an int or a float of Python, NumPy or torch, and no bool.

    Args:
        value: the number.
        name: what errors call it.
        least, most: the bounds, which are allowed themselves.
        above: a bound that is not.
        finite: whether infinity is refused; NaN always is.

    Raises:
        TypeError: if it is of another type, such as True, "3" or an array.
        ValueError: if it lies outside the bounds, is NaN, or infinite where it must be finite.
    """
    number = _scalar(value)
    wanted = "a finite number" if finite else "a number"
    if isinstance(number, bool | np.bool_) or not isinstance(number, Real):
        raise TypeError(f"{name} must be {wanted}{_bounds(least, most, above)}; it is {_shown(value)}")
    try:
        number = float(number)
    except OverflowError:  # a whole number of more than 308 digits
        raise ValueError(f"{name} must be {wanted} that float64 holds; it is {_shown(value)}") from None
    if math.isnan(number) or (finite and math.isinf(number)):
        raise ValueError(f"{name} must be {wanted}{_bounds(least, most, above)}; it is {number}")
    _check_bounds(number, name, least, most, wanted, above)
    return number


def check_strengths(values: Any, name: str = "strengths") -> tuple[float, ...]:
    """Penalties to try, at least one, none below 0."""
    if not isinstance(values, list | tuple):
        values = as_tensor(values, name).tolist()
    if not isinstance(values, list | tuple) or not len(values):
        raise ValueError(f"{name} must be one or more penalties; it is {values}")
    return tuple(check_number(value, name, least=0) for value in values)


def check_fraction(value: Any, name: str, *, within: str = "[0, 1]") -> float:
    """The value as a float, if it lies in [0, 1], (0, 1] or (0, 1), as `within` says."""
    number = check_number(value, name, finite=False)
    if not (0 < number < 1 or (number == 0 and within[0] == "[") or (number == 1 and within[-1] == "]")):
        raise ValueError(f"{name} must lie in {within}; it is {value}. Percent? Divide by 100.")
    return number


def _scalar(value: Any) -> Any:
    """What stands in an array without axes; anything else as it is."""
    return value.item() if isinstance(value, np.ndarray | Tensor) and value.ndim == 0 else value


def _bounds(least: float | None, most: float | None, above: float | None = None) -> str:
    parts = [
        f"{word} {bound}"
        for word, bound in (("of at least", least), ("above", above), ("of at most", most))
        if bound is not None
    ]
    return " " + " and ".join(parts) if parts else ""


def _check_bounds(
    number: float, name: str, least: float | None, most: float | None, wanted: str, above: float | None = None
) -> None:
    low = (least is not None and number < least) or (above is not None and number <= above)
    if low or (most is not None and number > most):
        raise ValueError(f"{name} must be {wanted}{_bounds(least, most, above)}; it is {number}")


def check_result(result: Any, kind: type, name: str, maker: str) -> None:
    """Raise a TypeError unless this is a result of that kind; the message says which function makes one."""
    if not isinstance(result, kind):
        raise TypeError(f"{name} must be what {maker} returns, a {kind.__name__}; it is {_shown(result)}")
