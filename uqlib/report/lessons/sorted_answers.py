"""Answers in the order of their confidence: a strip of a few, with five numbers, and a threshold on many."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from uqlib.metrics import aurc, correctness_auroc, coverages, ece, reliability_curve, selective_risks
from uqlib.metrics.outcomes import Judged
from uqlib.report.moving import Axis, Choice, Mark, Panel, Slider, View, moving_figure

FEW = 5  # bins for a handful of answers
POINTS = 100  # of a curve


def doubts_of(logits: Tensor, labels: Tensor, *, seed: int = 0) -> dict[str, Judged]:
    """Four ways to doubt the same answers: as the network does, too loud, too quiet, and without knowing which is which."""
    correct = logits.argmax(-1) == labels
    loud = {"its own": 1.0, "three times as loud": 3.0, "a third as loud": 1 / 3}
    found = {name: Judged((factor * logits).softmax(-1).amax(-1), correct) for name, factor in loud.items()}
    own = found["its own"].confidence
    order = torch.randperm(len(own), generator=torch.Generator().manual_seed(seed))
    return found | {"its own, shuffled": Judged(own[order], correct)}


def five_numbers(doubt: Judged, *, bins: int = 15) -> dict[str, float]:
    """Accuracy, NLL, ECE, AUROC and AURC of a confidence; NLL of right and wrong alone, in nats."""
    right = doubt.correct.double()
    sure = doubt.confidence.double().clamp(1e-12, 1 - 1e-12)
    return {
        "accuracy": right.mean().item(),
        "NLL": -(right * sure.log() + (1 - right) * (1 - sure).log()).mean().item(),
        "ECE": ece(doubt.confidence, doubt.correct, bins=bins),
        "AUROC": correctness_auroc(doubt.confidence, doubt.correct),
        "AURC": aurc(doubt.confidence, doubt.correct),
    }


def strip_figure(doubts: Mapping[str, Judged], *, name: str = "strip") -> str:
    """A handful of answers as dots, the surest first: who is kept, the risk among them, the bins, the five numbers."""
    n = len(next(iter(doubts.values())).correct)
    place = np.arange(1, n + 1)

    def seen(doubt: Judged, kept: int) -> View:
        order = doubt.confidence.argsort(descending=True, stable=True)
        sure, right = doubt.confidence[order].numpy(), doubt.correct[order].numpy()
        inside, wrong = place <= kept, int((~right[:kept]).sum())
        looks = [(right, "right"), (~right, "wrong")]
        strip = [
            Mark("dots", place[who & there], sure[who & there], tone=tone + faded, name="" if faded else tone, size=8)
            for who, tone in looks
            for there, faded in ((inside, ""), (~inside, " faded"))
        ]
        strip.append(Mark("segments", kept + 0.5, 0, kept + 0.5, 1.1, tone="reference dashed", name="kept"))
        risks = 100 * np.asarray(selective_risks(sure, right))
        area = Mark("boxes", place[inside] - 0.5, 0, place[inside] + 0.5, risks[inside], tone="own faded")
        curve = [area, Mark("line", place, risks, tone="reference"), Mark("dots", kept, risks[kept - 1], size=6)]
        bins = reliability_curve(sure, right, bins=FEW)
        held = np.asarray(bins.count) > 0
        left, mean, share = np.arange(FEW)[held] / FEW, *(np.asarray(x)[held] for x in bins[:2])
        bars = [
            Mark("boxes", left, 0, left + 1 / FEW, share, tone="own faded", name="right"),
            Mark("segments", mean, share, mean, mean, tone="wrong", name="gap"),
            Mark("line", [0, 1], [0, 1], tone="reference dashed"),
        ]
        numbers = five_numbers(doubt, bins=FEW)
        shown = {key: f"{x:.2f}" if key == "NLL" else f"{100 * x:.1f} %" for key, x in numbers.items()}
        reading = (
            f"Of the {kept} surest answers {wrong} {'is' if wrong == 1 else 'are'} wrong: a risk of {risks[kept - 1]:.1f} %. "
            f"The mean of all {n} risks is the AURC, {100 * numbers['AURC']:.1f} %. On average the network says {100 * sure.mean():.0f} %, "
            f"and {100 * right.mean():.0f} % are right."
        )
        return View([strip, curve, bars], {"all answers": shown}, reading)

    return moving_figure(
        seen,
        [Choice("The doubt", doubts), Slider("Keep the surest", range(1, n + 1), words=f"{{}} of {n}", start=n // 2)],
        [
            Panel("Answers, the surest first", Axis("rank", 0, n + 1), Axis("confidence", 0, 1.1, {0: "0", 0.5: "0.5", 1: "1"}),
                  ratio=0.3, wide=True, drag=("Keep the surest", None)),
            Panel("Risk among the kept", Axis("kept", 0, n + 1), Axis("wrong (%)", 0, 100), drag=("Keep the surest", None)),
            Panel("Does it mean what it says?", Axis("confidence", 0, 1), Axis("share of right answers", 0, 1)),
        ],
        name=name,
        title=f"{n} answers of a network, the surest first, right or wrong",
        presets={"As it is": ["its own", n // 2], "Too loud": ["three times as loud", n // 2],
                 "Knows nothing": ["its own, shuffled", n // 2]},
        about=f"{n} test images",
    )  # fmt: skip


def slices(right: np.ndarray, share: float, missed: str, count: int = 20) -> list[Mark]:
    """The share that is wrong in each slice of an order, the surest first, and the line of a threshold; in percent.

    Args:
        right: (n,) true or false, the surest first.
        share: that is kept, in percent.
        missed: what is wrong, for the legend: "errors", "misses".
        count: of slices.
    """
    wrong = np.array([100 * (~part).mean() for part in np.array_split(right, count)])
    left = np.arange(count) * (100 / count)
    return [
        Mark("boxes", left, 0, left + 100 / count, wrong, tone="wrong faded", name=f"{missed} in each slice"),
        Mark("segments", share, 0, share, 100, tone="own", name="kept: left of the line"),
    ]


def threshold_figure(networks: Mapping[str, Judged], *, name: str = "threshold", steps: int = 40) -> str:
    """Where the errors stand in the order, the risk among the kept, and what a threshold catches and gives away."""
    shares = [100 * (k + 1) / steps for k in range(steps)]  # percent
    risky = max(100 * (1 - judged.correct.double().mean().item()) for judged in networks.values())
    high = 10 * np.ceil(risky / 10 * 1.05 + 0.01)

    def seen(judged: Judged, share: float) -> View:
        n = len(judged.correct)
        right = judged.correct[judged.confidence.argsort(descending=True, stable=True)].numpy()
        kept = max(1, round(share * n / 100))
        pick = np.unique(np.linspace(n // 100, n - 1, POINTS).astype(int))
        risks, cover = (
            np.asarray(selective_risks(judged.confidence, judged.correct)),
            np.asarray(coverages(judged.confidence)),
        )
        best = np.sort(~right).cumsum() / np.arange(1, n + 1)
        curve = [
            Mark("line", [0, 100], [100 * (~right).mean()] * 2, tone="reference dashed", name="no order"),
            Mark("line", 100 * cover[pick], 100 * best[pick], tone="reference", name="best order"),
            Mark("line", 100 * cover[pick], np.minimum(100 * risks[pick], high), tone="own", name="this network"),
            Mark("dots", share, min(100 * risks[kept - 1], high), tone="own", size=6),
        ]
        wrong, good = (~right)[::-1].cumsum() / (~right).sum(), right[::-1].cumsum() / right.sum()
        caught, given = 1 - (~right)[:kept].sum() / (~right).sum(), 1 - right[:kept].sum() / right.sum()
        roc = [
            Mark("line", [0, 100], [0, 100], tone="reference dashed", name="a coin"),
            Mark("line", 100 * good[pick], 100 * wrong[pick], tone="own"),
            Mark("dots", 100 * given, 100 * caught, tone="own", size=6),
        ]
        area, order = aurc(judged.confidence, judged.correct), correctness_auroc(judged.confidence, judged.correct)
        numbers = {"kept": f"{kept:,}", "wrong among them": f"{(~right)[:kept].sum():,}", "risk": f"{100 * (~right)[:kept].mean():.2f} %",
                   "AUROC": f"{100 * order:.1f}", "AURC × 100": f"{100 * area:.2f}"}  # fmt: skip
        reading = (
            f"Kept are the surest {share:g} %. {100 * caught:.0f} % of the errors are caught, and {100 * given:.0f} % of the right "
            f"answers are handed over with them. Of all answers {100 * (~right).mean():.1f} % are wrong, of the kept ones "
            f"{100 * (~right)[:kept].mean():.2f} %."
        )
        return View([slices(right, share, "errors"), curve, roc], {"this threshold": numbers}, reading)

    across = ("Keep the surest", None)
    return moving_figure(
        seen,
        [Choice("Network", networks), Slider("Keep the surest", shares, words="{:g} %", start=80.0)],
        [
            Panel("Where the errors stand", Axis("the surest (%)", 0, 100), Axis("wrong (%)", 0, 100), ratio=0.3, wide=True, drag=across),
            Panel("Risk and coverage", Axis("kept (%)", 0, 100), Axis("wrong among the kept (%)", 0, float(high)), drag=across),
            Panel("Errors caught", Axis("right answers handed over (%)", 0, 100), Axis("errors caught (%)", 0, 100)),
        ],
        name=name,
        title="Risk, coverage and what a threshold on the confidence catches",
        about=f"{len(next(iter(networks.values())).correct):,} test images",
    )  # fmt: skip
