"""Every loss by its name."""

import inspect
from collections.abc import Callable
from typing import Any

from uqlib.base.options import check_choice
from uqlib.losses.corrections import corrected, forward, weighted
from uqlib.losses.criterion import Criterion
from uqlib.losses.memoryless import cross_entropy, entropy, focal, l1_norm, label_smoothing, poly
from uqlib.losses.robust import aldr, gce, ldr, mae, sce
from uqlib.losses.stateful import difficulty, ranking

LOSSES: dict[str, Callable[..., Criterion]] = {
    "cross_entropy": cross_entropy,
    "label_smoothing": label_smoothing,
    "focal": focal,
    "l1_norm": l1_norm,
    "entropy": entropy,
    "poly": poly,
    "ranking": ranking,
    "difficulty": difficulty,
    "forward": forward,
    "corrected": corrected,
    "weighted": weighted,
    "ldr": ldr,
    "aldr": aldr,
    "gce": gce,
    "sce": sce,
    "mae": mae,
}


def loss(name: str, **options: Any) -> Criterion:
    """The loss of that name in LOSSES, with the options of its factory.

    Raises:
        ValueError: if the name or an option is unknown, or a value is refused by the factory.
    """
    make = LOSSES[check_choice(name, LOSSES, "loss")]
    known = inspect.signature(make).parameters
    for option in options:
        if option not in known:
            raise ValueError(f"unknown option {option!r} of {name}; it takes {', '.join(known) or 'none'}")
    missing = [each for each in known if known[each].default is inspect.Parameter.empty and each not in options]
    if missing:
        raise ValueError(f"{name} needs {', '.join(missing)}")
    return make(**options)
