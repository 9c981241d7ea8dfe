"""What a few examples can say: wrong labels in a test set, how many images a comparison takes, how few labels a frozen network needs."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from uqlib.metrics import auroc, ece, paired_difference, resample
from uqlib.metrics.outcomes import MEASURES, Judged, outcome_of
from uqlib.networks.linear_heads import fit_head, head_logits
from uqlib.report.lessons.sorted_answers import five_numbers
from uqlib.report.moving import Axis, Choice, Mark, Panel, Slider, View, moving_figure
from uqlib.report.telling import counted

SUREST = 200  # errors that are looked at first


def wrong_labels(labels: Tensor, second: Tensor, order: Tensor, share: float) -> Tensor:
    """The labels, of which this share is replaced by the second guess, along an order; a guess that is right is no error."""
    given, candidates = labels.clone(), order[second[order] != labels[order]]
    rows = candidates[: round(share * len(labels))]
    given[rows] = second[rows]
    return given


def false_alarms(logits: Tensor, given: Tensor, labels: Tensor, *, most: int = SUREST) -> float:
    """Of the surest answers that differ from the given labels, at most so many, the share whose given label is the wrong one."""
    sure, preds = logits.softmax(-1).max(-1)
    differ = (preds != given).nonzero()[:, 0]
    looked = differ[sure[differ].argsort(descending=True, stable=True)][:most]
    return (given[looked] != labels[looked]).double().mean().item()


def labels_figure(
    logits: Tensor, labels: Tensor, second: Tensor, difficulty: Tensor, *, name: str = "labels", seed: int = 0
) -> str:
    """What a network seems to know when so many test labels are wrong, and what its surest errors are.

    Args:
        logits: of the network that is judged.
        second: the class that somebody would take an image for who errs about it.
        difficulty: of each image; people err where it is high.
    """
    probs = logits.softmax(-1)
    sure, preds = probs.amax(-1), probs.argmax(-1)
    chance = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    who = {"anybody, anywhere": chance, "people, on hard images": difficulty.argsort(descending=True, stable=True)}
    shares = [k / 2 for k in range(41)]  # percent
    given = {
        (key, share): wrong_labels(labels, second, order, share / 100) for key, order in who.items() for share in shares
    }
    truth = (preds == labels).double().mean().item()

    alarms = {key: 100 * false_alarms(logits, each, labels) for key, each in given.items()}
    measured = {key: 100 * (preds == each).double().mean().item() for key, each in given.items()}
    low = 5 * np.floor(min(measured.values()) / 5)

    def seen(key: str, share: float) -> View:
        found = given[key, share]
        right, old = preds == found, preds == labels
        left = [
            Mark("line", [0, 20], [100 * truth] * 2, tone="reference dashed", name="by the old labels"),
            Mark("line", shares, [measured[key, each] for each in shares], tone="own", name="by these labels"),
            Mark("dots", share, measured[key, share], tone="own", size=6),
        ]
        other = [
            Mark("line", shares, [alarms[key, each] for each in shares], tone="wrong"),
            Mark("dots", share, alarms[key, share], tone="wrong", size=6),
        ]
        rows = {
            what: {"accuracy": f"{100 * hit.double().mean():.1f} %", "ECE": f"{100 * ece(sure, hit):.1f}", "AUROC": f"{100 * auroc(sure, hit):.1f}"}
            for what, hit in (("by these labels", right), ("by the old labels", old))
        }  # fmt: skip
        reading = (
            f"{share:g} % of the labels are wrong. The network, right in {100 * truth:.1f} %, seems to be right in {measured[key, share]:.1f} %; "
            f"of its {SUREST} surest “errors” {alarms[key, share]:.0f} % are errors of the label."
        )
        return View([left, other], rows, reading)

    drag = ("Wrong labels", None)
    return moving_figure(
        seen,
        [Choice("Who errs", {key: key for key in who}), Slider("Wrong labels", shares, words="{:g} %", start=2.0)],
        [
            Panel("Accuracy that is measured", Axis("wrong labels (%)", 0, 20), Axis("accuracy (%)", float(low), 100), drag=drag),
            Panel(f"Of the {SUREST} surest “errors”", Axis("wrong labels (%)", 0, 20), Axis("the label is wrong (%)", 0, 100), drag=drag),
        ],
        name=name,
        title="What wrong test labels do to a measurement",
        about=f"{len(labels):,} test images",
    )  # fmt: skip


class Difference(NamedTuple):
    """A difference on so many examples, with its interval if both answer the same examples, and if each has its own."""

    value: float
    paired: tuple[float, float]
    apart: tuple[float, float]


def difference_on(
    first: Judged, second: Judged, rows: Tensor, measure: str, *, draws: int = 300, seed: int = 0
) -> Difference:
    """First less second by a measure, `accuracy` or `aurc`, on these rows, in points."""
    statistic = MEASURES[measure].statistic
    a, b = (MEASURES[measure].arrays(Judged(each.confidence[rows], each.correct[rows])) for each in (first, second))
    generator = torch.Generator().manual_seed(seed)
    both = paired_difference(statistic, a, b, draws=draws, generator=generator)
    alone = [resample(statistic, *each, draws=draws, generator=generator) for each in (a, b)]
    low, high = (alone[0] - alone[1]).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Difference(100 * both.value, (100 * both.low, 100 * both.high), (100 * low, 100 * high))


def sample_figure(
    pairs: Mapping[str, tuple[Judged, Judged]], *, name: str = "how-many", sizes: Sequence[int] = (), draws: int = 300, seed: int = 0
) -> str:  # fmt: skip
    """The difference of two methods on ever more test images, with its interval; a sentence that says *better* only when it may.

    Args:
        pairs: by the words that the reader sees, what two methods said of the same examples.
        sizes: numbers of test images that can be chosen; by default from 50 to all.
    """
    n = len(next(iter(pairs.values()))[0].correct)
    sizes = [s for s in sizes or (50, 100, 200, 400, 800, 1600, 3200, 6400) if s < n] + [n]
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    names = {"accuracy": "accuracy", "AURC": "aurc"}
    found = {
        (who, measure, size): difference_on(*pair, order[:size], measure, draws=draws, seed=seed)
        for who, pair in pairs.items()
        for measure in names.values()
        for size in sizes
    }
    widest = max(abs(end) for each in found.values() for end in (*each.paired, *each.apart))
    reach, logs = float(np.ceil(widest)), np.log10(sizes)

    def seen(who: str, measure: str, way: str, size: int) -> View:
        all_of = [found[who, measure, each] for each in sizes]
        ends = [getattr(each, way) for each in all_of]
        here, (low, high) = found[who, measure, size], getattr(found[who, measure, size], way)
        marks = [
            Mark("band", logs, [e[0] for e in ends], y2=[e[1] for e in ends], tone="own faded", name="95 % interval"),
            Mark("line", logs, [each.value for each in all_of], tone="own", name="difference"),
            Mark("line", [logs[0], logs[-1]], [0, 0], tone="reference dashed", name="no difference"),
            Mark("segments", np.log10(size), low, np.log10(size), high, tone="own"),
            Mark("dots", np.log10(size), here.value, tone="own", size=6),
        ]
        gain = (low, high) if measure == "accuracy" else (-high, -low)
        verdict = (
            "is better"
            if gain[0] > 0
            else "is worse"
            if gain[1] < 0
            else "may be better or worse: the interval covers 0"
        )
        shown = {"accuracy": "accuracy", "aurc": "AURC × 100"}[measure]
        numbers = {
            "difference": f"{here.value:+.2f}",
            "from": f"{low:+.2f}",
            "to": f"{high:+.2f}",
            "images": f"{size:,}",
        }
        reading = f"On {size:,} test images the first of the two {verdict} ({shown} {here.value:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f})."
        return View([marks], {"first less second": numbers}, reading)

    ticks = {float(np.log10(x)): f"{x:,}" for x in (100, 1000, 10000) if sizes[0] <= x <= sizes[-1]}
    return moving_figure(
        seen,
        [Choice("Compare", {who: who for who in pairs}), Choice("By", names),
         Choice("Test images", {"the same for both": "paired", "others for each": "apart"}),
         Slider("How many", sizes, words="{:,} images", start=sizes[min(3, len(sizes) - 1)])],
        [Panel("Difference, first less second", Axis("test images", float(logs[0]), float(logs[-1]), ticks),
               Axis("points", -reach, reach), ratio=0.5, wide=True)],
        name=name,
        title="A difference between two networks and its interval, by the number of test images",
        about=f"up to {n:,} test images",
    )  # fmt: skip


def few_labels(
    train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor], each: int, *, seed: int = 0, l2: float = 0.1
) -> Judged:
    """What a linear head on frozen features says of test images, fitted on so many labelled images of each class."""
    x, y = train
    classes, generator = int(y.max()) + 1, torch.Generator().manual_seed(seed)
    of_class = [(y == k).nonzero()[:, 0] for k in range(classes)]
    picked = torch.cat([rows[torch.randperm(len(rows), generator=generator)[:each]] for rows in of_class])
    head = fit_head(x[picked], y[picked], classes=classes, l2=l2)
    outcome = outcome_of(head_logits(head, test[0]), test[1])
    return Judged(torch.as_tensor(outcome.confidence), outcome.correct)


def few_labels_figure(
    trials: Mapping[int, Sequence[Judged]], reference: Judged, whose: str, *, name: str = "few-labels"
) -> str:  # fmt: skip
    """Accuracy, ECE and AUROC of a frozen network's heads by the number of labels, beside a network trained on all of them.

    Args:
        trials: by the number of labels a class, what `few_labels` gave for several seeds.
        reference: what the other network said.
        whose: that one's name.
    """
    sizes, logs = list(trials), np.log10(list(trials))
    keys = ("accuracy", "ECE", "AUROC")
    heads = [[five_numbers(each) for each in tried] for tried in trials.values()]
    other = {key: 100 * value for key, value in five_numbers(reference).items()}
    means = {key: [100 * np.mean([each[key] for each in tried]) for tried in heads] for key in keys}
    ends = {key: [[100 * f(each[key] for each in tried) for tried in heads] for f in (min, max)] for key in keys}

    def seen(key: str, size: int) -> View:
        k = sizes.index(size)
        marks = [
            Mark("band", logs, ends[key][0], y2=ends[key][1], tone="own faded", name="draws of the labels"),
            Mark("line", logs, means[key], tone="own", name="frozen network and a head"),
            Mark("line", [logs[0], logs[-1]], [other[key]] * 2, tone="reference dashed", name=whose),
            Mark("dots", logs[k], means[key][k], tone="own", size=6),
        ]
        rows = {
            "frozen network and a head": {what: f"{means[what][k]:.1f}" for what in keys},
            whose: {what: f"{other[what]:.1f}" for what in keys},
        }
        reading = (
            f"With {counted(size, 'labelled images')} of each class the head is right in {means['accuracy'][k]:.0f} %; "
            f"{whose} in {other['accuracy']:.0f} %."
        )
        return View([marks], rows, reading)

    middle = sizes[len(sizes) // 2]
    ticks = {float(x): f"{size}" for x, size in zip(logs, sizes, strict=True)}
    return moving_figure(
        seen,
        [Choice("Show", {key: key for key in keys}),
         Slider("Labelled images of each class", sizes, words="{} a class", start=middle)],
        [Panel("By the number of labels", Axis("labelled images of each class", float(logs[0]), float(logs[-1]), ticks),
               Axis("percent", 0, 100), ratio=0.5, wide=True)],
        name=name,
        title="What a frozen network knows, by the number of labels",
        about=f"{len(next(iter(trials.values()))[0].correct):,} test images",
    )  # fmt: skip
