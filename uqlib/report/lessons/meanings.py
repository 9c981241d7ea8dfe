"""What a confidence means: bins and temperatures on known and shifted images, and doubt taken apart into two kinds."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from uqlib.calibrate import mutual_information, neg_entropy
from uqlib.metrics import auroc, ece, nll, reliability_curve
from uqlib.metrics.outcomes import Judged
from uqlib.report.moving import Axis, Choice, Mark, Panel, Slider, View, moving_figure

CALIBRATED = 20  # draws of labels that a calibrated network would have


class Doubts(NamedTuple):
    """The doubt about each image, in nats; the first two add up to the third."""

    aleatoric: Tensor  # mean entropy of the members: all of them doubt
    epistemic: Tensor  # mutual information: they contradict each other
    total: Tensor  # entropy of their mean


def take_apart(members: Tensor) -> Doubts:
    """The doubt of several networks about each image, by their logits (m, n, c)."""
    aleatoric = -torch.stack([torch.as_tensor(neg_entropy(member)) for member in members]).mean(0)
    epistemic = torch.as_tensor(mutual_information(members))
    return Doubts(aleatoric, epistemic, aleatoric + epistemic)


def chance_ece(confidence: Tensor, *, bins: int, seed: int = 0) -> float:
    """The mean ECE that a network with these confidences would have if it were calibrated: what is left is chance."""
    generator = torch.Generator().manual_seed(seed)
    drawn = Judged(confidence, confidence > 0)
    return float(np.mean([ece(*drawn.if_calibrated(generator), bins=bins) for _ in range(CALIBRATED)]))


def bins_figure(
    sets: Mapping[str, tuple[Tensor, Tensor]], *, name: str = "bins", temperatures: Sequence[float] = (), bins: Sequence[int] = (5, 15, 30)
) -> str:  # fmt: skip
    """Accuracy against confidence in bins, for a temperature that the reader sets, on images of several sets.

    Args:
        sets: by the words that the reader sees, logits and labels.
        temperatures: that can be chosen; by default 13 from a half to four.
        bins: numbers of bins that can be chosen.
    """
    factors = [float(t) for t in temperatures] or [round(float(2**x), 3) for x in np.linspace(-1, 2, 13)]
    errors = {
        (who, factor, number): ece(p.amax(-1), p.argmax(-1) == labels, bins=number)
        for who, (logits, labels) in sets.items()
        for factor in factors
        for p in [(logits / factor).softmax(-1)]
        for number in bins
    }
    high = 5 * np.ceil(max(100 * e for e in errors.values()) / 5)

    def seen(who: str, number: int, factor: float) -> View:
        logits, labels = sets[who]
        probs = (logits / factor).softmax(-1)
        sure, right = probs.amax(-1), probs.argmax(-1) == labels
        curve = reliability_curve(sure, right, bins=number)
        held = np.asarray(curve.count) > 0
        left, mean, share = np.arange(number)[held] / number, *(np.asarray(x)[held] for x in curve[:2])
        size = np.asarray(curve.count)[held] / len(labels)
        bars = [
            Mark("boxes", left, 0, left + 1 / number, share, tone="own faded", name="right"),
            Mark("segments", mean, share, mean, mean, tone="wrong", name="gap"),
            Mark("dots", mean, share, size=2 + 14 * np.sqrt(size), tone="own", name="larger: more images"),
            Mark("line", [0, 1], [0, 1], tone="reference dashed"),
        ]
        lines = [
            Mark("line", np.log2(factors), [100 * errors[who, each, number] for each in factors], tone="own"),
            Mark("dots", np.log2(factor), 100 * errors[who, factor, number], tone="own", size=6),
        ]
        says, is_right, error = sure.mean().item(), right.double().mean().item(), errors[who, factor, number]
        numbers = {"images": f"{len(labels):,}", "says": f"{100 * says:.1f} %", "is right": f"{100 * is_right:.1f} %", "ECE": f"{100 * error:.1f}",
                   "NLL": f"{nll(logits / factor, labels):.3f}", "AUROC": f"{100 * auroc(sure, right):.1f}"}  # fmt: skip
        tendency = (
            "too sure" if says > is_right + 0.005 else "not sure enough" if says < is_right - 0.005 else "about right"
        )
        reading = f"It says {100 * says:.1f} % on average and is right in {100 * is_right:.1f} %: {tendency}. The mean gap over {number} bins, the ECE, is {100 * error:.1f} points."
        chance = f"Were it calibrated, chance alone would give an ECE of {100 * chance_ece(sure, bins=number):.1f} on so many images."
        return View([bars, lines], {"this state": numbers}, reading, chance)

    ticks = {-1.0: "½", 0.0: "1", 1.0: "2", 2.0: "4"}
    return moving_figure(
        seen,
        [Choice("Images", {who: who for who in sets}), Choice("Bins", {f"{number}": number for number in bins}, start="15"),
         Slider("Temperature", factors, words="{:.2f}", start=min(factors, key=lambda t: abs(t - 1)))],
        [
            Panel("Accuracy in each bin", Axis("confidence", 0, 1), Axis("share of right answers", 0, 1), ratio=0.9),
            Panel("ECE of each temperature", Axis("temperature", -1, 2, ticks), Axis("ECE (points)", 0, float(high)), ratio=0.9),
        ],
        name=name,
        title="Reliability of a network in bins, for a temperature",
        about="",
    )  # fmt: skip


def two_kinds_figure(
    known: Tensor, others: Mapping[str, Tensor], *, name: str = "two-kinds", shown: int = 250, seed: int = 0
) -> str:
    """Two doubts of each image, of the test set and of another set: where they lie, and how well each tells the sets apart.

    Args:
        known: logits (m, n, c) of m networks on test images.
        others: by the words that the reader sees, theirs on images of other kinds.
        shown: dots of each set.
    """
    members = list(range(2, len(known) + 1))

    def dots(doubts: Doubts, tone: str, what: str) -> Mark:
        rows = np.random.default_rng(seed).permutation(len(doubts.total))[:shown]
        return Mark(
            "dots",
            doubts.aleatoric[rows].clamp(0, 2.3).sqrt().numpy(),
            doubts.epistemic[rows].clamp(0, 1.2).sqrt().numpy(),
            tone=tone,
            name=what,
            size=3,
        )

    def seen(who: str, m: int) -> View:
        test, other = take_apart(known[:m]), take_apart(others[who][:m])
        strange = torch.cat([torch.zeros(len(test.total)), torch.ones(len(other.total))]).bool()
        told = {kind: auroc(torch.cat([a, b]), strange) for kind, a, b in zip(Doubts._fields, test, other, strict=True)}
        means = [[part.mean().item() for part in each] for each in (test, other)]
        bars = [
            Mark("boxes", [0.6, 1.6], 0, [1.4, 2.4], [m[0] for m in means], tone="large", name="aleatoric"),
            Mark(
                "boxes",
                [0.6, 1.6],
                [m[0] for m in means],
                [1.4, 2.4],
                [min(m[2], 2.2) for m in means],
                tone="small",
                name="epistemic",
            ),
        ]
        numbers = {
            "test images": {kind: f"{x:.3f}" for kind, x in zip(Doubts._fields, means[0], strict=True)},
            who: {kind: f"{x:.3f}" for kind, x in zip(Doubts._fields, means[1], strict=True)},
            "tells them apart (AUROC)": {kind: f"{100 * x:.1f}" for kind, x in told.items()},
        }
        reading = (
            f"Beside test images, {who} raise the doubt that all {m} networks share from {means[0][0]:.2f} to {means[1][0]:.2f} nats, and their "
            f"disagreement from {means[0][1]:.3f} to {means[1][1]:.3f}."
        )
        return View([[dots(test, "reference", "test images"), dots(other, "own", "the others")], bars],
                    {key: cells for key, cells in zip(("test images", "the others", "tells them apart (AUROC)"), numbers.values(), strict=True)}, reading)  # fmt: skip

    roots = {float(np.sqrt(x)): f"{x:g}" for x in (0, 0.1, 0.5, 1, 2)}
    return moving_figure(
        seen,
        [Choice("The others", {who: who for who in others}), Slider("Networks", members, words="{} networks", start=members[-1])],
        [
            Panel("Each dot an image", Axis("doubt of each network (nats)", 0, 1.55, roots),
                  Axis("disagreement (nats)", 0, 1.1, {k: v for k, v in roots.items() if k < 1.1}), ratio=0.9),
            Panel("Mean doubt", Axis("", 0, 3, {1: "test", 2: "others"}), Axis("nats", 0, 2.2), ratio=0.9),
        ],
        name=name,
        title="Doubt that networks share, and doubt in which they disagree",
        about=f"{known.shape[1]:,} test images",
    )  # fmt: skip
