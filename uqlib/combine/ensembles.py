"""Ensembles over repeated splits: means of several networks, with a temperature or without, and with a fitted weight each."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from uqlib.base.arrays import add_up, as_tensor
from uqlib.base.options import check_choice
from uqlib.base.splits import split
from uqlib.calibrate.temperature import fit_temperature
from uqlib.combine.duos import ensemble_probs, fit_weights
from uqlib.metrics.outcomes import Outcome, outcome_of

ENSEMBLES = ("scaled", "released", "probabilities", "scaled_probabilities", "weighted")


def repeat_ensembles(
    answers: Mapping[str, Any],
    teams: Mapping[str, tuple[str, Sequence[str]]],
    *,
    fit_size: int,
    splits: int,
    seed: int = 0,
) -> dict[str, list[Outcome]]:
    """Fit what an ensemble has to fit on so many examples, decide the rest, and again for the splits of `repeat_duo`.

    Args:
        answers: of each network, with logits (n, c) and labels (n,), the same for all.
        teams: by a name of your own, the kind and its networks. Kinds are the mean of the logits with one temperature
            ("scaled") or without ("released", as Zhou et al. 2025 evaluate it), the mean of the "probabilities" and the same
            with a temperature ("scaled_probabilities"), and "weighted", a fitted weight a network: of two, the duo.
        fit_size, splits, seed: as in `repeat_duo`.

    Raises:
        ValueError: if a kind is unknown, shapes differ, or a fit has no optimum.
    """
    found: dict[str, list[Outcome]] = {}
    for name, (kind, networks) in teams.items():
        check_choice(kind, ENSEMBLES, "kind of ensemble")
        members, labels = [answers[network].logits for network in networks], answers[networks[0]].labels
        parts = [split(len(labels), fit_size, seed=seed + k) for k in range(splits)]
        found[name] = [
            outcome_of(
                _combined(kind, [m[fit] for m in members], labels[fit], [m[test] for m in members]), labels[test]
            )
            for fit, test in parts
        ]
    return found


def _combined(kind: str, fit: list[Tensor], labels: Tensor, test: list[Tensor]) -> Tensor:
    """The logits on the test part."""
    if kind == "weighted":
        weights = as_tensor(fit_weights(fit, labels).weights)
        return add_up(weight * each.double() for weight, each in zip(weights, test, strict=True))
    average = "probs" if "probabilities" in kind else "logits"
    before, after = (as_tensor(ensemble_probs(x, average=average)).clamp_min(1e-300).log() for x in (fit, test))
    return after / (fit_temperature(before, labels).temperature if "scaled" in kind else 1.0)
