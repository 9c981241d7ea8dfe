"""Judge a classifier of your own: one call, metrics that update, scikit-learn's estimators, and what other libraries' numbers are here.

The estimators need scikit-learn, which is imported when one of them is asked for.
"""

from typing import TYPE_CHECKING

from uqlib.judge.scoring import scorer
from uqlib.judge.streams import Stream, Streams

if TYPE_CHECKING:
    from uqlib.judge.estimators import DifficultyScorer, Duo, TemperatureScaling

__all__ = ["DifficultyScorer", "Duo", "Stream", "Streams", "TemperatureScaling", "scorer"]
ESTIMATORS = ("DifficultyScorer", "Duo", "TemperatureScaling")


def __getattr__(name: str) -> object:
    """An estimator, imported when it is asked for."""
    if name in ESTIMATORS:
        from uqlib.judge import estimators

        return getattr(estimators, name)
    raise AttributeError(f"module 'uqlib.judge' has no attribute {name!r}")
"""Judge a classifier of your own: one call, metrics that update, scikit-learn's estimators, and what other libraries' numbers are here."""

from uqlib.judge.conventions import CONVENTIONS, Convention
from uqlib.judge.translation import convert, translate

__all__ = ["CONVENTIONS", "Convention", "convert", "translate"]
