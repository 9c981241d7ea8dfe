"""What there is to say of a confidence, in five numbers with their intervals."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from uqlib.base.arrays import Column
from uqlib.base.checks import check_hits
from uqlib.base.options import check_fraction
from uqlib.metrics import classification, detection, selective
from uqlib.metrics.calibration import ece
from uqlib.metrics.resampling.bootstrap import Interval, percentiles, resample_together
from uqlib.metrics.resampling.draws import as_number


class Summary(NamedTuple):
    """Five numbers about a confidence, each with its interval; printed, a line each."""

    accuracy: Interval  # higher is better
    brier: Interval  # mean of (confidence - correct)², lower is better
    ece: Interval  # 15 bins of equal width, lower is better
    auroc: Interval  # of the right over the wrong, higher is better
    aurc: Interval  # lower is better

    def __str__(self) -> str:
        names = ("accuracy", "Brier", "ECE", "AUROC", "AURC")
        way = {"accuracy": "higher", "AUROC": "higher"}
        return "\n".join(
            f"{name:9}{each.value:.3f} [{each.low:.3f}, {each.high:.3f}]  {way.get(name, 'lower')} is better"
            for name, each in zip(names, self, strict=True)
        )


def summary(
    confidence: Column,
    correct: Column,
    *,
    draws: int = 2000,
    level: float = 0.95,
    generator: torch.Generator | None = None,
    stratify: Column | None = None,
    weights: Column | None = None,
    cluster: Column | None = None,
) -> Summary:
    """What there is to say of a confidence in five numbers, with their intervals over the examples, all on the same draws.

    Args:
        confidence: in [0, 1], (n,).
        correct: whether each prediction equals its label, (n,); not all of them, nor none.
        draws, level, generator, stratify, weights, cluster: as in interval.

    Raises:
        ValueError: if a confidence is outside [0, 1] or NaN, the predictions are all correct or all wrong, or as interval.

    Examples:
        >>> import numpy as np, torch
        >>> from uqlib.metrics import summary
        >>> confidence = np.linspace(0.5, 1, 2000)
        >>> correct = np.arange(2000) * 37 % 100 < 100 * confidence**1.5  # right less often than it says
        >>> print(summary(confidence, correct, generator=torch.Generator().manual_seed(0)))
        accuracy 0.664 [0.643, 0.684]  higher is better
        Brier    0.197 [0.188, 0.207]  lower is better
        ECE      0.086 [0.068, 0.105]  lower is better
        AUROC    0.742 [0.721, 0.762]  higher is better
        AURC     0.171 [0.154, 0.190]  lower is better
    """
    level = check_fraction(level, "level", within="(0, 1)")
    score, hit = check_hits(confidence, correct)
    judged: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
        "accuracy": (classification.average, (hit.double(),)),
        "brier": (classification.average, ((score.double() - hit.double()).square(),)),
        "ece": (ece, (score, hit)),
        "auroc": (detection.correctness_auroc, (score, hit)),
        "aurc": (selective.aurc, (score, hit)),
    }
    heavy = {} if weights is None else {"weights": weights}
    values = [as_number(statistic(*arrays, **heavy)) for statistic, arrays in judged.values()]  # before a draw can fail
    drawn = resample_together(
        list(judged.values()), draws=draws, generator=generator, stratify=stratify, weights=weights, cluster=cluster
    )
    parts = {name: percentiles(value, each, level) for name, value, each in zip(judged, values, drawn, strict=True)}
    return Summary(**parts)
