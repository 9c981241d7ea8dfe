"""Calibration without bins: the best rising curve from confidence to accuracy, and what the distance from it costs.

Accuracy should rise with the confidence. The rising step function that fits `correct` best (isotonic regression) recalibrates the
confidence, and cuts any proper score into three parts, with nothing to choose:

    score of the confidence = miscalibration - discrimination + uncertainty

Miscalibration is what recalibration would save, discrimination what the recalibrated confidence is worth beside the accuracy alone,
and uncertainty the score of that constant. The first two are never negative. Dimitriadis et al. call this CORP.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from uqlib.base.arrays import Array, Column, Table, as_tensor, like
from uqlib.base.checks import check_labels, check_probs, check_share_and_hits
from uqlib.base.options import check_choice, check_whole
from uqlib.metrics.ranking import NAMES, Ranking, rank
from uqlib.metrics.rows import rows_that_count

CHUNK = 2**20  # scores of simulated samples pooled at a time


class IsotonicCurve(NamedTuple):
    """The blocks of equal accuracy, from low to high confidence; `plots.reliability` draws it."""

    confidence: Float[Array, " b"]  # mean confidence
    accuracy: Float[Array, " b"]  # the recalibrated confidence; it rises from block to block
    count: Shaped[Array, " b"]  # type: ignore[assignment]  # or the sum of weights; hides tuple.count, which nobody needs
    lower: Float[Array, " b"]  # least confidence in the block
    upper: Float[Array, " b"]  # largest confidence in the block


class ScoreParts(NamedTuple):
    """A mean score, lower is better, with score = miscalibration - discrimination + uncertainty."""

    score: float
    miscalibration: float  # lower is better
    discrimination: float  # higher is better
    uncertainty: float  # of the task at this accuracy, not of the confidence
    overconfidence: float  # the miscalibration of examples whose confidence lies above the curve
    underconfidence: float  # and below it; the two add up to the miscalibration


class CalibrationTest(NamedTuple):
    """The miscalibration, and how often chance alone brings as much to a calibrated confidence."""

    miscalibration: float
    p_value: float
    draws: int


class _Blocks(NamedTuple):
    start: Int64[Tensor, " b"]  # the first score of the block
    count: Shaped[Tensor, " b"]  # type: ignore[assignment]
    positives: Shaped[Tensor, " b"]


def _brier(probability: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
    """Sum of squared distances, of so many right and wrong at each probability."""
    return right * (1 - probability).square() + wrong * probability.square()


def _log(probability: Tensor, right: Tensor, wrong: Tensor) -> Tensor:
    """Negative log-likelihood in nats; what does not occur costs nothing."""
    likelihood: Tensor = torch.xlogy(right, probability) + torch.special.xlog1py(wrong, -probability)
    return -likelihood


SCORES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"brier": _brier, "log": _log}


def isotonic_curve(confidence: Column, correct: Column, *, weights: Column | None = None) -> IsotonicCurve:
    """The reliability curve without bins: the rising step function of the confidence that fits correct best.

    It is the isotonic regression, exact: least in squared distance, and in any other proper score. Equal confidences share a step.
    Time and memory of one sort: 10^7 float32 take about 2 s on one core.

    Args:
        confidence: in [0, 1], (n,).
        correct: whether each prediction equals its label, (n,).
        weights: (n,) how much each example counts, 0 or larger; None counts each once.

    Raises:
        ValueError: if a confidence is outside [0, 1] or NaN, a weight is negative, the lengths differ, or there is no example.

    Source:
        Dimitriadis, Gneiting & Jordan 2021 (arXiv:2008.03033), CORP reliability diagram; Ayer et al. 1955, pool adjacent violators.

    Examples:
        >>> from uqlib.metrics import isotonic_curve
        >>> curve = isotonic_curve([0.6, 0.7, 0.8, 0.9], [False, True, False, True])  # 0.7 and 0.8 stand in the wrong order
        >>> curve.accuracy, curve.count
        (array([0. , 0.5, 1. ]), array([1, 2, 1]))
    """
    curve = curve_of(rank(*check_share_and_hits(confidence, correct), weights=weights, names=NAMES))
    return IsotonicCurve(*(like(as_tensor(column), confidence) for column in curve))


def recalibrated(confidence: Column, correct: Column, *, weights: Column | None = None) -> Float[Array, " n"]:
    """The accuracy of each example's block in isotonic_curve: its confidence after recalibration on these same examples.

    Arguments and errors are those of isotonic_curve.

    Examples:
        >>> from uqlib.metrics import recalibrated
        >>> recalibrated([0.9, 0.8, 0.7, 0.6], [True, False, True, False])
        array([1. , 0.5, 0.5, 0. ])
    """
    score, hit = check_share_and_hits(confidence, correct)
    scores, count, positives = _ascending(rank(score, hit, weights=weights, names=NAMES))
    blocks = _pool(count, positives)
    place = (torch.searchsorted(scores[blocks.start], score.double(), right=True) - 1).clamp(min=0)
    return like((blocks.positives / blocks.count.double())[place], confidence)


def score_parts(
    confidence: Column, correct: Column, *, score: str = "brier", weights: Column | None = None
) -> ScoreParts:
    """Cut a mean score into miscalibration, discrimination and uncertainty, without bins.

    Of the Brier score, the mean of (confidence - correct)², or of the log score, minus the log of the probability given to what came
    true, in nats. That is infinite, as is its miscalibration, where a confidence of exactly 1 was wrong or of 0 right.

    The curve follows chance as well, so a calibrated confidence has a miscalibration above 0, by about 0.6 n^(-2/3) where the
    confidences are spread evenly over [0, 1]; calibration_test says what is more than that.

    Args:
        confidence: in [0, 1], (n,).
        correct: whether each prediction equals its label, (n,).
        score: "brier" or "log".
        weights: (n,) how much each example counts, 0 or larger; None counts each once.

    Raises:
        ValueError: as isotonic_curve, or if the score is unknown.

    Source:
        Dimitriadis, Gneiting & Jordan 2021 (arXiv:2008.03033), score decomposition. The two signed parts are ours.

    Examples:
        >>> from uqlib.metrics import score_parts
        >>> parts = score_parts([0.9, 0.9, 0.6, 0.6], [True, False, True, False])
        >>> [round(part, 3) for part in parts[:4]]  # half are right, whatever it says
        [0.335, 0.085, 0.0, 0.25]
        >>> round(parts.overconfidence, 3)
        0.085
    """
    check_choice(score, SCORES, "score")
    return _parts(*check_share_and_hits(confidence, correct), score, weights)


def classwise_score_parts(
    probs: Table, labels: Column, *, score: str = "brier", weights: Column | None = None, ignore: int | None = None
) -> ScoreParts:
    """score_parts of each class's probability against whether that is the label, summed over the classes.

    The sum of the Brier scores is `brier(probs, labels)`. That of the log scores is no `nll`, which looks at the label's alone.

    Args:
        probs: (n, c), rows that sum to 1.
        labels: classes in [0, c), (n,).
        score: "brier" or "log".
        weights: (n,) how much each example counts, 0 or larger; None counts each once.
        ignore: the label of rows to leave out.

    Raises:
        ValueError: if the rows are not probabilities, a label is outside [0, c), or the score is unknown.

    Examples:
        >>> from uqlib.metrics import classwise_score_parts
        >>> parts = classwise_score_parts([[0.8, 0.2], [0.8, 0.2], [0.2, 0.8], [0.2, 0.8]], [0, 0, 1, 0])
        >>> round(parts.score, 3), round(parts.miscalibration, 3)
        (0.38, 0.13)
    """
    check_choice(score, SCORES, "score")
    (probs, labels), weights = rows_that_count((probs, labels), weights, ignore)
    probs = check_probs(probs)
    labels = check_labels(labels, probs.shape[1], rows=len(probs), device=probs.device)
    columns = probs.clamp(0, 1).T.contiguous()  # rounding may leave a probability just above 1
    each = [_parts(column, labels == j, score, weights) for j, column in enumerate(columns)]
    return ScoreParts(*(sum(part) for part in zip(*each, strict=True)))


def miscalibration(
    confidence: Column, correct: Column, *, score: str = "brier", weights: Column | None = None
) -> float:
    """What recalibration would save of the mean score, lower is better: a part of score_parts, with its arguments.

    `interval(miscalibration, confidence, correct)` is its interval. It is biased upwards, and draws are so once more: an interval
    tells how far it moves, calibration_test whether it is more than chance, paired_difference which of two methods has less.

    Examples:
        >>> from uqlib.metrics import miscalibration
        >>> round(miscalibration([0.9, 0.9, 0.6, 0.6], [True, False, True, False]), 3)
        0.085
    """
    return score_parts(confidence, correct, score=score, weights=weights).miscalibration


def overconfidence(
    confidence: Column, correct: Column, *, score: str = "brier", weights: Column | None = None
) -> float:
    """The miscalibration of examples whose confidence lies above the curve, lower is better; arguments of score_parts.

    Examples:
        >>> from uqlib.metrics import overconfidence
        >>> round(overconfidence([0.9, 0.9, 0.6, 0.6], [True, False, True, False]), 3)
        0.085
    """
    return score_parts(confidence, correct, score=score, weights=weights).overconfidence


def underconfidence(
    confidence: Column, correct: Column, *, score: str = "brier", weights: Column | None = None
) -> float:
    """The miscalibration of examples whose confidence lies below the curve, lower is better; arguments of score_parts.

    Examples:
        >>> from uqlib.metrics import underconfidence
        >>> round(underconfidence([0.9, 0.9, 0.6, 0.6], [True, False, True, False]), 3)
        0.0
    """
    return score_parts(confidence, correct, score=score, weights=weights).underconfidence


def discrimination(
    confidence: Column, correct: Column, *, score: str = "brier", weights: Column | None = None
) -> float:
    """What the recalibrated confidence saves beside the accuracy alone, higher is better: a part of score_parts, with its arguments.

    Examples:
        >>> from uqlib.metrics import discrimination
        >>> round(discrimination([0.9, 0.9, 0.6, 0.6], [True, False, True, False]), 3)
        0.0
    """
    return score_parts(confidence, correct, score=score, weights=weights).discrimination


def calibration_test(
    confidence: Column,
    correct: Column,
    *,
    score: str = "brier",
    draws: int = 999,
    generator: torch.Generator | None = None,
) -> CalibrationTest:
    """Test whether the confidence is calibrated: is its miscalibration more than chance brings?

    If it is calibrated, each prediction is right with the probability that it says. So outcomes are drawn with these probabilities, and
    the p-value is the share of draws, the sample itself counted as one, whose miscalibration is at least that of the sample. At
    any n it is at most a in no more than a share a of all tests of calibrated confidences. A rejection of a large sample may
    be of a fault too small to matter: look at the miscalibration. Time O(draws n): 10^4 examples take about 1 s.

    Args:
        confidence: in [0, 1], (n,).
        correct: whether each prediction equals its label, (n,).
        score: whose miscalibration, "brier" or "log".
        draws: how many; the least p-value is 1 / (draws + 1).
        generator: source of the draws. Default: torch's global one.

    Raises:
        ValueError: as score_parts, or if draws is below 1.
        TypeError: if the generator is none of torch's.

    Source:
        Dimitriadis, Gneiting & Jordan 2021 (arXiv:2008.03033), consistency resampling; Bröcker & Smith 2007.

    Examples:
        >>> import numpy as np, torch
        >>> from uqlib.metrics import calibration_test
        >>> confidence = np.linspace(0.5, 1, 1000)
        >>> correct = np.arange(1000) * 37 % 100 < 100 * confidence**1.5  # right less often than it says
        >>> calibration_test(confidence, correct, generator=torch.Generator().manual_seed(0)).p_value
        0.001
    """
    check_choice(score, SCORES, "score")
    draws = check_whole(draws, "draws", least=1)
    if not (generator is None or isinstance(generator, torch.Generator)):
        raise TypeError(f"generator must be torch's, such as torch.Generator().manual_seed(0); it is {generator!r}")
    scores, count, positives = _ascending(rank(*check_share_and_hits(confidence, correct), names=NAMES))
    found = _saved(scores, count, positives[None], score).item()
    device = generator.device if generator else scores.device
    above, n = 0, int(count.sum())
    each = scores.repeat_interleave(count).to(device)
    ends = count.cumsum(0) - 1
    for done in range(0, draws, chunk := max(1, CHUNK // n)):
        size = min(chunk, draws - done)
        noise = torch.rand(size, n, generator=generator, device=device, dtype=torch.float64)
        drawn = (noise < each).to(scores.device)
        if len(scores) < n:  # ties: how many of each
            drawn = drawn.cumsum(1)[:, ends]
            drawn = drawn.diff(dim=1, prepend=drawn.new_zeros(size, 1))
        above += int((_saved(scores, count, drawn.long(), score) >= found - 1e-12 * abs(found)).sum())
    return CalibrationTest(found / n, (above + 1) / (draws + 1), draws)


def curve_of(ranking: Ranking) -> IsotonicCurve:
    """The isotonic curve of a Ranking of confidence by correct."""
    scores, count, positives = _ascending(ranking)
    blocks = _pool(count, positives)
    ends = torch.cat([blocks.start[1:], blocks.start.new_tensor([len(scores)])])
    mean, accuracy = (part / blocks.count.double() for part in (_between(count * scores, ends), blocks.positives))
    return IsotonicCurve(mean, accuracy, blocks.count, scores[blocks.start], scores[ends - 1])


def _parts(
    confidence: Float[Tensor, " n"], correct: Bool[Tensor, " n"], score: str, weights: Column | None
) -> ScoreParts:
    measure = SCORES[score]
    scores, count, positives = _ascending(rank(confidence, correct, weights=weights, names=NAMES))
    blocks = _pool(count, positives)
    curve = blocks.positives / blocks.count.double()
    # the scores of a block below its accuracy stand first, those above it behind: two pieces a block, which may be empty
    middle = torch.maximum(torch.searchsorted(scores, curve), blocks.start)
    after = torch.cat([blocks.start[1:], blocks.start.new_tensor([len(scores)])])
    ends = torch.stack([torch.minimum(middle, after), after], 1).flatten()
    right, wrong = (_between(part, ends).double() for part in (positives, count - positives))
    each = measure(scores, positives.double(), (count - positives).double())
    each = torch.segment_reduce(
        each, "sum", lengths=ends.diff(prepend=ends.new_zeros(1))
    )  # an infinity stays in its piece
    best = measure(curve.repeat_interleave(2), right, wrong)
    under, over = (each - best).view(-1, 2).sum(0).clamp(min=0) / (n := count.sum())
    constant = measure(right.sum() / n, right.sum(), wrong.sum()) / n
    parts = (each.sum() / n, under + over, constant - best.sum() / n, constant, over, under)
    return ScoreParts(*(part.item() for part in parts))


def _between(values: Tensor, ends: Int64[Tensor, " m"]) -> Tensor:
    """Sums from one end to the next, the first from the beginning on; an end is the first place that is out."""
    sums = torch.cat([values.new_zeros(1), values.cumsum(0)])
    return sums[ends].diff(prepend=sums[:1])


def _saved(
    scores: Float[Tensor, " k"], count: Shaped[Tensor, " k"], positives: Shaped[Tensor, "d k"], score: str
) -> Tensor:
    """What recalibration saves of the summed score, of each of some samples with these scores."""
    measure, (draws, k) = SCORES[score], positives.shape
    blocks = _pool(count.repeat(draws), positives.reshape(-1), width=k)
    right, wrong = blocks.positives.double(), (blocks.count - blocks.positives).double()
    best = measure(right / blocks.count, right, wrong)
    summed = torch.zeros(draws, dtype=torch.float64, device=best.device).index_add_(0, blocks.start // k, best)
    return measure(scores, positives.double(), (count - positives).double()).sum(-1) - summed


def _ascending(ranking: Ranking) -> tuple[Float[Tensor, " k"], Shaped[Tensor, " k"], Shaped[Tensor, " k"]]:
    """Distinct scores from low to high, with examples and correct ones at each."""
    return ranking.scores.flip(0).double(), ranking.count.flip(0), ranking.positives.flip(0)


def _pool(count: Shaped[Tensor, " k"], positives: Shaped[Tensor, " k"], width: int | None = None) -> _Blocks:
    """Pool neighbours until their shares of positives rise strictly; each `width` cells are a sample of their own.

    Every pass pools each run of shares that do not rise, all at once. Where a pass changes little, a fault travels cell by cell, and
    a stack goes through what is left. All comparisons are of products of integers, so no rounding decides; with weights it may.
    """
    start = torch.arange(len(count), device=count.device)
    while True:
        rises = positives[1:] * count[:-1] > positives[:-1] * count[1:]
        if width is not None:
            rises |= start[1:] // width != start[:-1] // width
        kept = torch.cat([rises.new_ones(min(1, len(count))), rises]).nonzero()[:, 0]
        before = len(start)
        if len(kept) == before:
            return _Blocks(start, count, positives)
        if len(kept) > 0.9 * before:
            return _stack(start, count, positives, width)
        start = start[kept]
        ends = torch.cat([kept[1:], kept.new_tensor([before])])
        count, positives = _between(count, ends), _between(positives, ends)


def _stack(start: Tensor, count: Tensor, positives: Tensor, width: int | None) -> _Blocks:
    """The same, one cell after the other: each is pooled with those before it for as long as they are not below it."""
    samples = (start // width if width else torch.zeros_like(start)).tolist()
    stack: list[tuple[Any, ...]] = []
    for sample, first, n, right in zip(samples, start.tolist(), count.tolist(), positives.tolist(), strict=True):
        while stack and stack[-1][0] == sample and stack[-1][3] * n >= right * stack[-1][2]:
            _, first, more, hits = stack.pop()
            n, right = n + more, right + hits
        stack.append((sample, first, n, right))
    _, first, n, right = zip(*stack, strict=True)
    kinds = (first, start), (n, count), (right, positives)
    return _Blocks(*(torch.tensor(each, dtype=kind.dtype, device=start.device) for each, kind in kinds))
