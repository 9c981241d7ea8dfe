"""Judge a classifier of your own: metrics that update, scikit-learn's estimators and scorers, and what other libraries print.

All in one call is `uqlib.report.report`. The estimators need scikit-learn, which is imported when one of them is asked for.
"""

from typing import TYPE_CHECKING

from uqlib.judge.conventions import CONVENTIONS, Convention
from uqlib.judge.scoring import scorer
from uqlib.judge.streams import Stream, Streams
from uqlib.judge.translation import convert, translate

if TYPE_CHECKING:
    from uqlib.judge.estimators import DifficultyScorer, Duo, TemperatureScaling

__all__ = [
    "CONVENTIONS",
    "Convention",
    "DifficultyScorer",
    "Duo",
    "Stream",
    "Streams",
    "TemperatureScaling",
    "convert",
    "scorer",
    "translate",
]
ESTIMATORS = ("DifficultyScorer", "Duo", "TemperatureScaling")


def __getattr__(name: str) -> object:
    """An estimator, imported when it is asked for."""
    if name in ESTIMATORS:
        from uqlib.judge import estimators

        return getattr(estimators, name)
    raise AttributeError(f"module 'uqlib.judge' has no attribute {name!r}")
