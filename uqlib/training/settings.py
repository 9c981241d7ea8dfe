"""Options that every loop takes, checked, with their defaults."""

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, TypedDict, cast

import torch

from uqlib.base.options import check_choice, check_number, check_whole
from uqlib.training.schedules import OPTIMIZERS, SCHEDULES

PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}


class Options(TypedDict, total=False):
    """Options of `loop`, and so of `train` and of all that is made of it, with their defaults, which are in DEFAULTS.

    Args:
        batch: 64; examples a step, over all processes together.
        weight_decay: 0; of the optimiser, on all that is trained.
        optimizer: "adamw"; a name in OPTIMIZERS, or a function of (parameters, lr, weight_decay) that makes one.
        schedule: "cosine"; a name in SCHEDULES, or a function of (step, steps, warmup) that gives a factor of the rate.
        warmup: 0.1; share of the steps in which the learning rate rises.
        clip: None; the largest norm of the gradient of all that is trained. None leaves it as it is.
        seed: 0; of the order, the generators and dropout. The initial weights are the networks' own.
        precision: "no" (float32); or "bf16" or "fp16", mixed precision. Gradients of the step's own optimisers are not scaled.
        progress: True; show a bar when a person watches.
    """

    batch: int
    weight_decay: float
    optimizer: str | Callable[..., torch.optim.Optimizer]
    schedule: str | Callable[[int, int, float], float]
    warmup: float
    clip: float | None
    seed: int
    precision: str
    progress: bool


DEFAULTS: Options = {
    "batch": 64,
    "weight_decay": 0.0,
    "optimizer": "adamw",
    "schedule": "cosine",
    "warmup": 0.1,
    "clip": None,
    "seed": 0,
    "precision": "no",
    "progress": True,
}


def check_options(options: Mapping[str, Any], function: Callable) -> Options:
    """All options of a loop, those left out from DEFAULTS.

    Args:
        options: as a caller gave them.
        function: whose options they are; errors name it, and think of its other arguments too.

    Raises:
        TypeError: if an option is unknown (the message has the nearest and all), or a number is of another type.
        ValueError: if a number lies outside of its bounds, or a name is unknown.
    """
    for name in options:
        if name not in DEFAULTS:
            raise TypeError(_unknown(name, function))
    given: dict[str, Any] = {**DEFAULTS, **options}
    checked = {
        "batch": check_whole(given["batch"], "batch"),
        "seed": check_whole(given["seed"], "seed", least=0),
        "weight_decay": check_number(given["weight_decay"], "weight_decay", least=0),
        "warmup": check_number(given["warmup"], "warmup", least=0, most=1),
        "clip": None if given["clip"] is None else check_number(given["clip"], "clip", above=0),
        "optimizer": _name_or_function(given["optimizer"], OPTIMIZERS, "optimizer"),
        "schedule": _name_or_function(given["schedule"], SCHEDULES, "schedule"),
        "precision": check_choice(given["precision"], PRECISIONS, "precision"),
    }
    return cast(Options, given | checked)


def _check_batch(batch: int, count: int, kind: str) -> None:
    if not 0 < batch <= count:
        raise ValueError(f"batch must lie in 1 to {count}, the number of {kind}; it is {batch}")


def _unknown(name: str, function: Callable) -> str:
    arguments = inspect.signature(function).parameters.values()
    named = [each.name for each in arguments if each.kind != inspect.Parameter.VAR_KEYWORD]
    near = get_close_matches(name, [*DEFAULTS, *named], 1)
    meant = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown option {name!r} of {function.__name__}{meant} Its options are {', '.join(DEFAULTS)}"


def _name_or_function(given: Any, known: Mapping[str, Callable], what: str) -> Any:
    return given if callable(given) else check_choice(given, known, what)
