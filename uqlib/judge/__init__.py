"""Judge a classifier of your own: one call, metrics that update, scikit-learn's estimators, and what other libraries' numbers are here."""

from uqlib.judge.conventions import CONVENTIONS, Convention
from uqlib.judge.translation import convert, translate

__all__ = ["CONVENTIONS", "Convention", "convert", "translate"]
