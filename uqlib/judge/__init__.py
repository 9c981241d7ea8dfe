"""Judge a classifier of your own: one call, metrics that update, scikit-learn's estimators, and what other libraries' numbers are here."""

from uqlib.judge.streams import Stream, Streams

__all__ = ["Stream", "Streams"]
