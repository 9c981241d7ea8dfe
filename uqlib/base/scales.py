"""The four sizes at which every notebook runs, and the one way to choose a number by them."""

from typing import Any, TypeVar

SCALES = {
    "smoke": "seconds on two cores: a slice, for tests",
    "cpu": "a minute or a few on two cores: the store that travels with the project",
    "gpu": "minutes on one GPU: full data sets and strong networks",
    "paper": "the paper's own data and networks",
}
T = TypeVar("T")
AS_BELOW: Any = object()  # no value of its own; None is one


def check_scale(scale: str) -> str:
    """The scale, if it is one of SCALES; else a ValueError that lists them."""
    if not isinstance(scale, str) or scale not in SCALES:
        raise ValueError(f"unknown scale {scale!r}; choose from {', '.join(SCALES)}")
    return scale


def at_scale(scale: str, *, smoke: T, cpu: T, gpu: T = AS_BELOW, paper: T = AS_BELOW) -> T:
    """The value for this scale; `gpu` defaults to the one for `cpu`, `paper` to the one for `gpu`. None is a value.

    >>> at_scale("smoke", smoke=2, cpu=10)
    2
    >>> at_scale("paper", smoke=2, cpu=10)
    10
    """
    gpu = cpu if gpu is AS_BELOW else gpu
    values = {"smoke": smoke, "cpu": cpu, "gpu": gpu, "paper": gpu if paper is AS_BELOW else paper}
    return values[check_scale(scale)]
