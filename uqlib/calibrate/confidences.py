"""Confidence scores read off the logits of one network; higher = more certain.

All take logits (n, c) and return float64 (n,), so that confidences near 1 do not tie by rounding. max_probability,
neg_entropy and margin depend on the probabilities alone: for stored probabilities pass their logarithm. max_logit and
energy see the constant of each row besides, which a softmax does not, and refuse logits that have lost it.
mutual_information is an uncertainty of several networks and points the other way.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from uqlib.base.arrays import Array, Table, by_rows, like
from uqlib.base.checks import check_logits, check_members, check_row_constant
from uqlib.base.options import check_choice, check_number
from uqlib.metrics.classification import CHUNK


def max_probability(logits: Table) -> Float[Array, " n"]:
    """Largest softmax probability, in [1/c, 1], higher = more certain.

    Raises:
        ValueError: if the logits are not finite or are probabilities.

    Source:
        Hendrycks & Gimpel 2017 (arXiv:1610.02136), section 3; "softmax response" in Geifman & El-Yaniv 2017.

    Examples:
        >>> from uqlib.calibrate import max_probability
        >>> max_probability([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0]]).round(3)
        array([0.787, 0.422])
    """
    return _by_rows(logits, lambda z: z.softmax(-1).amax(-1))


def neg_entropy(logits: Table) -> Float[Array, " n"]:
    """Minus the entropy of the softmax in nats, in [-ln c, 0], higher = more certain.

    Raises:
        ValueError: if the logits are not finite or are probabilities.

    Examples:
        >>> from uqlib.calibrate import neg_entropy
        >>> neg_entropy([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0]]).round(3)
        array([-0.666, -1.017])
    """
    return _by_rows(logits, lambda z: _plogp(z.log_softmax(-1)))


def margin(logits: Table) -> Float[Array, " n"]:
    """Difference of the two largest probabilities, in [0, 1], higher = more certain.

    Raises:
        ValueError: if the logits are not finite or are probabilities.

    Source:
        Scheffer, Decomain & Wrobel 2001, Active Hidden Markov Models for Information Extraction.

    Examples:
        >>> from uqlib.calibrate import margin
        >>> margin([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0]]).round(3)
        array([ 0.68, -0.  ])
    """
    return _by_rows(logits, lambda z: -z.softmax(-1).topk(2).values.diff()[:, 0])


def max_logit(logits: Table) -> Float[Array, " n"]:
    """Largest logit, unbounded, higher = more certain. Not invariant to a constant added to a row.

    Raises:
        ValueError: if the logits are not finite, are probabilities, or have lost the constant of each row: their maximum
            was taken off, or they are logarithms of probabilities.

    Source:
        Hendrycks et al. 2022 (arXiv:1911.11132).

    Examples:
        >>> from uqlib.calibrate import max_logit
        >>> max_logit([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0]])
        array([2., 1.])
    """
    return _by_rows(logits, lambda z: z.amax(-1), sees_constant=True)


def energy(logits: Table, *, temperature: float = 1.0) -> Float[Array, " n"]:
    """T logsumexp(logits / T), the negative free energy, unbounded, higher = more certain.

    Not invariant to a constant added to a row. As T goes to 0 it becomes max_logit.

    Args:
        logits: (n, c).
        temperature: T > 0.

    Raises:
        ValueError: if the logits are not finite, are probabilities, or have lost the constant of each row (as for
            max_logit), or the temperature is not above 0.

    Source:
        Liu et al. 2020 (arXiv:2010.03759), equation 4; the sign is turned.

    Examples:
        >>> from uqlib.calibrate import energy
        >>> energy([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0]]).round(3)
        array([2.24 , 1.862])
    """
    temperature = check_number(temperature, "temperature", above=0)
    return _by_rows(logits, lambda z: temperature * (z / temperature).logsumexp(-1), sees_constant=True)


CONFIDENCES: dict[str, Callable[[Table], Array]] = {
    "max_probability": max_probability,
    "neg_entropy": neg_entropy,
    "margin": margin,
    "max_logit": max_logit,
    "energy": energy,
}


def confidence(name: str, logits: Table) -> Float[Array, " n"]:
    """The confidence of that name in CONFIDENCES, higher = more certain.

    Raises:
        ValueError: if the name is unknown, or the logits are not finite, are probabilities, or have lost what the score
            needs of them.

    Examples:
        >>> from uqlib.calibrate import confidence
        >>> confidence('margin', [[2.0, 0.0, 0.0], [1.0, 1.0, 0.0]]).round(3)
        array([ 0.68, -0.  ])
    """
    return CONFIDENCES[check_choice(name, CONFIDENCES, "confidence")](logits)


def mutual_information(member_logits: Table) -> Float[Array, " n"]:
    """Entropy of the mean prediction less the mean entropy, in nats, in [0, ln m], higher = LESS certain.

    How far the members of an ensemble disagree, as the mean divergence of each from their mean. Computed from that
    form, it is never negative. Memory: beside the input, a few MiB.

    Args:
        member_logits: (m, n, c), or a list of m tables (n, c); m >= 2.

    Returns:
        An uncertainty, float64.

    Raises:
        ValueError: if there are fewer than two members, shapes differ, or logits are not finite or are probabilities.

    Source:
        Houlsby et al. 2011, BALD (arXiv:1112.5745); Depeweg et al. 2018 (arXiv:1710.07283).

    Examples:
        >>> from uqlib.calibrate import mutual_information
        >>> agree, differ = [[2.0, 0.0], [2.0, 0.0]], [[2.0, 0.0], [0.0, 2.0]]
        >>> mutual_information([agree, differ]).round(3)  # two members, two examples
        array([0.   , 0.328])
    """
    members = check_members(member_logits)
    if len(members) < 2:
        raise ValueError("member_logits: one member cannot disagree; at least two are needed")
    parts = by_rows(CHUNK // (len(members) * members[0].shape[1]), *members)
    return like(torch.cat([_divergence(torch.stack(part).double()) for part in parts]), member_logits)


def _divergence(logits: Float[Tensor, "m n c"]) -> Float[Tensor, " n"]:
    """Mean over members of KL(member, mean of the members)."""
    log_probs = logits.log_softmax(-1)
    log_mean = log_probs.logsumexp(0) - torch.tensor(len(logits), dtype=torch.float64).log()
    return (log_probs.exp() * (log_probs - log_mean)).sum(-1).mean(0).clamp(min=0)


def _plogp(log_probs: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    return (log_probs.exp() * log_probs).sum(-1)


def _by_rows(logits: Table, score: Callable[[Tensor], Tensor], *, sees_constant: bool = False) -> Float[Array, " n"]:
    """The score of every row, in float64, a chunk of rows at a time."""
    table = check_logits(logits)
    if sees_constant:
        check_row_constant(table)
    return like(torch.cat([score(part.double()) for (part,) in by_rows(CHUNK // table.shape[1], table)]), logits)
