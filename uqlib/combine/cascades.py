"""Cascades: every input meets the first network, and the next ones only if its confidence lies in a window.

Xia & Bouganis 2023 (arXiv:2303.08010). A score that decides whether an input is accepted needs a second opinion only near the
threshold: the sure and the hopeless keep their side of it whatever the second network says.

    windows = [window_around(confidence, operating_threshold(confidence, correct, risk=0.05))]  # on a part held out
    said = cascade([first, second], windows)           # logits (n, c) each; probabilities, confidence, stages
    mean_cost(said.stages, [1.0, 1.0])                 # 1 + the share that went on

Confidences are higher = more certain; the paper's uncertainties are the same with the other sign. What an input is told is the
mean of the probabilities of the networks it met, or, of the energy, the mean of their energies.

Known differences. Thresholds are those that a system can reach (ties whole, a risk of at most what is allowed), the released
code takes the nearest risk and starts at the 500th of 50,000. A window that would reach past the last input has no end there;
the released one ends at that input.
"""

from collections.abc import Callable, Sequence
from math import copysign, inf
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from uqlib.base.arrays import Array, Column, Table, as_tensor, by_rows, like
from uqlib.base.checks import check_confidence, check_members, check_weights, check_whole_column
from uqlib.base.options import check_choice, check_fraction, check_number, check_whole
from uqlib.base.splits import uniform_numbers
from uqlib.calibrate.confidences import energy
from uqlib.metrics.classification import CHUNK
from uqlib.metrics.selective import risk_coverage_curve

SCORES = ("max_probability", "energy")


class Window(NamedTuple):
    """The confidences that go on to the next network, both ends among them."""

    low: float
    high: float


EVERYTHING, NOTHING = Window(-inf, inf), Window(inf, -inf)


class Cascaded(NamedTuple):
    """What a cascade says of each input, and how many networks said it."""

    preds: Int[Array, " n"]
    probs: Float[Array, "n c"]
    confidence: Float[Array, " n"]  # higher = more certain
    stages: Int[Array, " n"]  # networks that it met, at least 1


def operating_threshold(
    confidence: Column, correct: Column | None = None, *, risk: float | None = None, coverage: float | None = None
) -> float:
    """The confidence from which on inputs are accepted, so that a risk or a coverage is met on these inputs.

    Give one of the two. A true positive rate in detection is a coverage: that of the known inputs, without `correct`.

    Args:
        confidence: (n,) any real score, higher = more certain.
        correct: (n,) whether each prediction equals its label; a coverage needs none.
        risk: the error rate allowed among the accepted; the largest coverage that keeps it. If none does, nothing is
            accepted: infinity.
        coverage: the share to accept at least, in (0, 1].

    Raises:
        ValueError: if neither or both are given, a risk comes without `correct`, or a confidence is not finite.

    Examples:
        >>> from uqlib.combine import operating_threshold
        >>> operating_threshold([0.9, 0.8, 0.7, 0.6], [True, True, False, True], risk=0.1)
        0.8
        >>> operating_threshold([0.9, 0.8, 0.7, 0.6], coverage=0.75)
        0.7
    """
    if (risk is None) == (coverage is None):
        raise ValueError(f"give one of risk and coverage; they are {risk!r} and {coverage!r}")
    sure = check_confidence(confidence)
    if risk is None:
        wanted = check_fraction(coverage, "coverage", within="(0, 1]")
        curve = risk_coverage_curve(sure, torch.ones_like(sure, dtype=torch.bool))
        allowed = as_tensor(curve.coverage) >= wanted - 1e-12
        return float(as_tensor(curve.thresholds)[allowed][0])
    if correct is None:
        raise ValueError("a risk needs correct, which says of each prediction whether it is right; pass it")
    curve = risk_coverage_curve(sure, correct)
    allowed = as_tensor(curve.risk) <= check_fraction(risk, "risk") + 1e-12
    return float(as_tensor(curve.thresholds)[allowed][-1]) if allowed.any() else inf


def window_around(confidence: Column, threshold: float, *, share: float = 0.2) -> Window:
    """The window with this share of the inputs, half of them on either side of the threshold.

    Nearer to an end of the inputs than that, it reaches to infinity on that side and holds fewer. Inputs whose confidence ties
    with an end all go on, so that with ties it holds more than the share.

    Args:
        confidence: (n,) of inputs like those to come, on which nothing is judged later; for detection of a mixture of known
            and other inputs, or the share holds for the known ones alone.
        threshold: where inputs are accepted, as `operating_threshold` finds it.
        share: of the inputs that go on, in [0, 1].

    Raises:
        ValueError: if the share lies outside, the threshold is no number, or a confidence is not finite.

    Source:
        Xia & Bouganis 2023 (arXiv:2303.08010), algorithm 2; ten percentiles on either side.

    Examples:
        >>> from uqlib.combine import window_around
        >>> window_around([0.1, 0.3, 0.5, 0.7, 0.9], 0.5, share=0.5)
        Window(low=0.3, high=0.7)
    """
    sure, half = check_confidence(confidence), check_fraction(share, "share") / 2
    threshold = check_number(threshold, "threshold", finite=False)
    place = ((sure < threshold).double() + (sure == threshold).double() / 2).mean().item()
    return Window(_quantile(sure, place - half), _quantile(sure, place + half)) if half else NOTHING


def least_confident(confidence: Column, *, share: float = 0.2) -> Window:
    """The window of a single threshold: the least confident inputs go on, whatever is decided of them later.

    Args:
        confidence: (n,) of inputs like those to come.
        share: of the inputs that go on, in [0, 1].

    Examples:
        >>> from uqlib.combine import least_confident
        >>> least_confident([0.1, 0.3, 0.5, 0.7, 0.9], share=0.5)
        Window(low=-inf, high=0.5)
    """
    sure, share = check_confidence(confidence), check_fraction(share, "share")
    return Window(-inf, _quantile(sure, share)) if share else NOTHING


def random_stages(n: int, *, share: float = 0.2, seed: int = 0) -> Int[Tensor, " n"]:
    """Two stages for a share of n inputs that is drawn by a seed, one for the others: what a policy has to outdo.

    Examples:
        >>> from uqlib.combine import random_stages
        >>> random_stages(5, share=0.4).sum().item()
        7
    """
    drawn = torch.from_numpy(uniform_numbers(check_whole(n, "n", least=1), seed=check_whole(seed, "seed", least=0)))
    stages = torch.ones(len(drawn), dtype=torch.int64)
    stages[drawn.argsort()[: round(check_fraction(share, "share") * len(drawn))]] = 2
    return stages


def cascade(
    member_logits: Table | Sequence[Table], windows: Sequence[Any], *, score: str = "max_probability"
) -> Cascaded:
    """What networks in a row say: an input goes on to the next one while its confidence so far lies in that stage's window.

    Later networks are evaluated on the rows that reach them alone. Time and memory as one softmax of each of these rows.

    Args:
        member_logits: (m, n, c), or a list of (n, c); the first network first.
        windows: m - 1 of them, such as (low, high), both ends included.
        score: "max_probability" of the mean of the probabilities, or the mean of each network's "energy".

    Raises:
        ValueError: if there are not m - 1 windows, a window is no pair of ascending numbers, the score is unknown, or logits are not
            finite, are probabilities or differ in shape.

    Source:
        Xia & Bouganis 2023 (arXiv:2303.08010), algorithm 2.

    Examples:
        >>> from uqlib.combine import cascade
        >>> first, second = [[4.0, 0.0], [0.5, 0.0], [0.1, 0.0]], [[0.0, 9.0]] * 3
        >>> said = cascade([first, second], [(0.6, 0.9)])
        >>> said.stages, said.preds
        (array([1, 2, 1]), array([0, 1, 0]))
    """
    members, ends = check_members(member_logits), [_check_window(each) for each in windows]
    if len(ends) != len(members) - 1:
        raise ValueError(f"windows must be one fewer than networks, {len(members) - 1}; they are {len(ends)}")
    return _walk(members, lambda k, sure, rows: (sure >= ends[k].low) & (sure <= ends[k].high), score, member_logits)


def staged(member_logits: Table | Sequence[Table], stages: Column, *, score: str = "max_probability") -> Cascaded:
    """What is said of inputs that meet so many networks each, as another policy has decided.

    Args:
        member_logits, score: as in `cascade`.
        stages: (n,) from 1 to m: all at 1 are the first network alone, all at m the ensemble.

    Raises:
        ValueError: if a number of stages lies outside, or as `cascade`.

    Examples:
        >>> from uqlib.combine import staged
        >>> staged([[[4.0, 0.0], [4.0, 0.0]], [[0.0, 9.0], [0.0, 9.0]]], [1, 2]).preds
        array([0, 1])
    """
    members = check_members(member_logits)
    met = _check_stages(stages, len(members), len(members[0])).to(members[0].device)
    return _walk(members, lambda k, sure, rows: met[rows] >= k + 2, score, member_logits)


def mean_cost(stages: Column, costs: Column, *, weights: Column | None = None) -> float:
    """Mean cost of an input, each paying for the networks that it met.

    Args:
        stages: (n,) networks that each input met, as in `cascade`.
        costs: (m,) of each network, in any unit, such as multiply-adds.
        weights: (n,) how much each input counts; so a mixture of known and other inputs gets its own shares.

    Raises:
        ValueError: if a cost is negative or not finite, or a number of stages lies outside 1 to m.

    Examples:
        >>> from uqlib.combine import mean_cost
        >>> mean_cost([1, 1, 2, 1, 1], [1.0, 1.0])
        1.2
    """
    each = check_confidence(costs, "costs").double()
    if each.min() < 0:
        raise ValueError(f"costs must be 0 or larger; the least is {each.min():.9g}")
    met = _check_stages(stages, len(each)).to(each.device)
    paid = each.cumsum(0)[met - 1]
    share = torch.ones_like(paid) if weights is None else check_weights(weights, len(met), paid.device)
    return ((paid * share).sum() / share.sum()).item()


def _walk(members: list[Tensor], goes_on: Callable[[int, Tensor, Tensor], Tensor], score: str, given: Any) -> Cascaded:
    """The mean over the networks that each row meets; a row without one more keeps every bit of what it has."""
    n, _ = members[0].shape
    check_choice(score, SCORES, "score")
    rows, total = torch.arange(n, device=members[0].device), _softmax(members[0])
    sure = total.amax(-1) if score == "max_probability" else as_tensor(energy(members[0]))
    summed, stages = sure.clone(), torch.ones_like(rows)
    for k, member in enumerate(members[1:]):
        rows = rows[goes_on(k, sure[rows], rows)]
        if not len(rows):
            break
        stages[rows] += 1
        said = member[rows]
        if score == "energy":
            summed[rows] += as_tensor(energy(said))
            sure[rows] = summed[rows] / (k + 2)
        total[rows] = (total[rows] * (k + 1) + _softmax(said)) / (k + 2)
        if score == "max_probability":
            sure[rows] = total[rows].amax(-1)
    return Cascaded(*(like(each, given) for each in (total.argmax(-1), total, sure, stages)))


def _softmax(logits: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    """In float64, without a copy of all logits at once."""
    return torch.cat([part.double().softmax(-1) for (part,) in by_rows(CHUNK // logits.shape[1], logits)])


def _check_window(window: Any) -> Window:
    if not isinstance(window, tuple | list) or len(window) != 2:
        raise ValueError(f"windows must be pairs (low, high); one is {window!r:.60}. Of two networks? Pass [window]")
    low, high = (check_number(each, "an end of windows", finite=False) for each in window)
    if low > high and (low, high) != NOTHING:
        raise ValueError(
            f"windows must be pairs (low, high) that ascend; one is ({low}, {high}), and no confidence lies in it. Pass "
            f"({high}, {low}), or NOTHING, (inf, -inf), where none is to go on."
        )
    return Window(low, high)


def _quantile(values: Float[Tensor, " n"], share: float) -> float:
    """Infinite where the share is none or all."""
    return float(np.quantile(values.double().cpu().numpy(), share)) if 0 < share < 1 else copysign(inf, share - 0.5)


def _check_stages(stages: Any, most: int, rows: int | None = None) -> Int[Tensor, " n"]:
    met = check_whole_column(stages, "stages", rows)
    if met.min() < 1 or met.max() > most:
        raise ValueError(f"stages must lie in 1 to {most}; they reach from {met.min()} to {met.max()}")
    return met
