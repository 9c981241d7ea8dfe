"""Split conformal prediction: a threshold with a promise, whatever the score is and however the scores are spread."""

import math

from uqlib.base.arrays import Column
from uqlib.base.checks import check_confidence
from uqlib.base.options import check_fraction


def conformal_threshold(scores: Column, *, coverage: float) -> float:
    """The threshold at or below which the score of a new example lies with at least this probability.

    The ceil((n + 1) coverage)-th smallest of the n scores; infinite where there is none, below n = coverage / (1 - coverage)
    examples: so few can promise nothing else. The probability is over the n examples and the new one together, which must be
    exchangeable, as draws from one set are; of examples from elsewhere it says nothing. Where no two scores are equal, the
    share of new examples at or below the threshold is Beta(k, n + 1 - k) distributed, k the rank of the threshold.

    Args:
        scores: (n,) of held-out examples, of any score, such as an uncertainty.
        coverage: probability, in (0, 1).

    Raises:
        ValueError: if a score is not finite, or the coverage is outside (0, 1).

    Source:
        Vovk, Gammerman & Shafer 2005, Algorithmic Learning in a Random World, chapter 4; Lei et al. 2018, Distribution-Free
        Predictive Inference for Regression (arXiv:1604.04173), section 2.2.

    Examples:
        >>> from uqlib.calibrate import conformal_threshold
        >>> conformal_threshold([0.4, 0.1, 0.3, 0.2], coverage=0.6), conformal_threshold([0.4, 0.1], coverage=0.9)
        (0.3, inf)
    """
    known, coverage = check_confidence(scores, "scores"), check_fraction(coverage, "coverage", within="(0, 1)")
    rank = math.ceil(round((len(known) + 1) * coverage, 9))  # 100 x 0.07 is a little above 7 in floating point
    return known.double().kthvalue(rank).values.item() if rank <= len(known) else math.inf
