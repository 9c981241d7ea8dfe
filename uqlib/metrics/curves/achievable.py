"""The area under the risk-coverage curve that thresholds can reach by drawing lots: its hull."""

from uqlib.base.arrays import Column, as_tensor
from uqlib.metrics.curves.isotonic import curve_of
from uqlib.metrics.ranking import NAMES, Ranking, ranked
from uqlib.metrics.selective import aurc_from_counts


def achievable_aurc(confidence: Column | Ranking, correct: Column | None = None) -> float:
    """AURC after neighbouring scores whose order does harm became ties, lower is better; never above aurc.

    Where a score is more often right than the scores above it, drawing lots among them all loses less. What is left is the hull of
    the ROC curve, which isotonic regression finds, so this is the aurc of `recalibrated(confidence, correct)`. It is chosen on the same
    examples, so it flatters: compare it with aurc to see how much harm the order does. Not for losses of other sizes or weights.

    Args:
        confidence: (n,) any real score, higher = more certain; or a Ranking of confidence by correct.
        correct: (n,) whether each prediction equals its label; left out beside a Ranking.

    Raises:
        ValueError: if a confidence is not finite, the lengths differ, there is no example, or the Ranking has weights or losses.

    Source:
        Traub et al. 2024 (arXiv:2407.01032); code github.com/IML-DKFZ/fd-shifts, `aurc_achievable`, an integral where this is a
        mean over 1, ..., n examples.

    Examples:
        >>> from uqlib.metrics import achievable_aurc, aurc
        >>> rows = [0.9, 0.8, 0.7, 0.6], [True, False, True, False]  # 0.8 and 0.7 become a tie
        >>> round(aurc(*rows), 3), round(achievable_aurc(*rows), 3)
        (0.333, 0.271)
    """
    ranking = ranked(confidence, correct, names=NAMES)
    if ranking.count.is_floating_point():
        raise ValueError(
            "achievable_aurc is of right and wrong examples that count once; this Ranking has weights or losses"
        )
    curve = curve_of(ranking)
    count = as_tensor(curve.count)
    positives = (as_tensor(curve.accuracy) * count).round().long()
    return aurc_from_counts(count.flip(0), positives.flip(0)).item()
