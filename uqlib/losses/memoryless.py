"""Losses of logits and labels alone: cross entropy, label smoothing, focal, L1, entropy, poly."""

import torch
from torch import Tensor

from uqlib.base.options import check_fraction, check_number
from uqlib.losses.criterion import Criterion, _entropy_of, _floats, _log_probs, _surprise


def cross_entropy() -> Criterion:
    """-log p of the label."""
    return Criterion("cross_entropy()", lambda logits, labels, rows: _surprise(logits, labels))


def label_smoothing(*, epsilon: float = 0.1) -> Criterion:
    """Cross entropy with the target (1 - epsilon) for the label, plus epsilon / c for every class.

    Args:
        epsilon: in [0, 1); 0.1 in the source. LOSS_OPTIONS of `uqlib.papers.cui2023` has those of that paper.

    Raises:
        ValueError: if epsilon is outside [0, 1).

    Source:
        Szegedy et al. 2016 (arXiv:1512.00567), section 7.
    """
    epsilon = check_fraction(epsilon, "epsilon", within="[0, 1)")

    def terms(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        return (1 - epsilon) * _surprise(logits, labels) - epsilon * _log_probs(logits).mean(-1)

    return Criterion(f"label_smoothing(epsilon={epsilon})", terms)


def focal(*, gamma: float = 2.0, detached: bool = False) -> Criterion:
    """-(1 - p)^gamma log p, p the probability of the label: what is known already counts less.

    Args:
        gamma: >= 0; 0 is cross entropy. 2 is the best of the source, which weighs the classes too (its alpha): not here.
        detached: no gradient through the factor (1 - p)^gamma: another loss, that of the code of Wang et al. 2021, whose
            options Cui et al. 2023 take over (`uqlib.papers.cui2023`).

    Raises:
        ValueError: if gamma is negative or not finite.

    Source:
        Lin et al. 2017 (arXiv:1708.02002), equation 4.
    """
    gamma = check_number(gamma, "gamma", least=0)
    if not isinstance(detached, bool):
        raise TypeError(f"detached must be True or False; it is {detached!r}")

    def terms(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        nll = _surprise(logits, labels)
        rest = -torch.expm1(-nll)  # 1 - p
        # 0^gamma has an infinite slope for gamma < 1
        factor = rest.clamp_min(torch.finfo(rest.dtype).tiny) ** gamma
        return (factor.detach() if detached else factor) * nll

    return Criterion(f"focal(gamma={gamma}, detached={detached})", terms)


def l1_norm(*, strength: float = 0.05) -> Criterion:
    """Cross entropy, plus strength times the sum of the absolute logits.

    Raises:
        ValueError: if the strength is negative or not finite.

    Source:
        The baseline "L1 norm" of Cui et al. 2023, table 2; the penalty is on the logits, as in Wang et al. 2021.
    """
    strength = check_number(strength, "strength", least=0)

    def terms(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        return _surprise(logits, labels) + strength * _floats(logits).abs().sum(-1)

    return Criterion(f"l1_norm(strength={strength})", terms)


def entropy(*, alpha: float = 0.1) -> Criterion:
    """Cross entropy, less alpha times the entropy of the prediction: the same modesty for all examples.

    Raises:
        ValueError: if alpha is negative or not finite.

    Source:
        Pereyra et al. 2017 (arXiv:1701.06548); "ER" of Cui et al. 2023.
    """
    alpha = check_number(alpha, "alpha", least=0)

    def terms(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        return _surprise(logits, labels) - alpha * _entropy_of(logits)

    return Criterion(f"entropy(alpha={alpha})", terms)


def poly(*, epsilon: float = 1.0) -> Criterion:
    """Poly-1: cross entropy, plus epsilon (1 - p), p the probability of the label.

    Args:
        epsilon: at least -1; below that the loss would reward small p. 0 is cross entropy.

    Raises:
        ValueError: if epsilon is below -1 or not finite.

    Source:
        Leng et al. 2022 (arXiv:2204.12511), Poly-1. Cui et al. 2023 do not say their epsilon.
    """
    epsilon = check_number(epsilon, "epsilon", least=-1)

    def terms(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        nll = _surprise(logits, labels)
        return nll - epsilon * torch.expm1(-nll)  # expm1(-nll) is p - 1

    return Criterion(f"poly(epsilon={epsilon})", terms)
