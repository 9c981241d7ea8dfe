"""The two figures that move of the chapters: the weights of a duo, and those of difficulty."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from uqlib import difficulty as scoring
from uqlib import losses, metrics
from uqlib.base.arrays import Array, Column, Table
from uqlib.base.checks import check_confidence, check_labels, check_members, check_size
from uqlib.base.options import check_result, check_whole
from uqlib.base.splits import split
from uqlib.combine.duos import DuoFit
from uqlib.metrics import calibration
from uqlib.metrics.outcomes import MEASURES, Outcome, outcome_of
from uqlib.report import moving
from uqlib.report.moving import Axis, Choice, Mark, Panel, Slider, View

STEP = 0.01  # logits are rounded to hundredths
REACH = 32767 * STEP  # what 16 bits hold of them
STEPS = 200  # of a slider of weights
DRAWS = 200  # of the bootstrap in the page
KEPT = [k / 20 for k in range(1, 21)]
# what the page draws anew of the marks of `_still`; bins of fewer than 5 images, those of 1, are faded
MOVED = [
    None, None, "guides", "handle", None, None, "risk", "cut", "kept", None, None, "stems1", "stems0", "bins1", "bins0",
]  # fmt: skip

METRICS: list[dict[str, Any]] = [
    {"key": "accuracy", "name": "accuracy", "title": "Accuracy (% ↑)", "scale": 100, "digits": 1, "better": 1},
    {"key": "nll", "name": "NLL", "title": "NLL (nats ↓)", "scale": 1, "digits": 3, "better": -1},
    {"key": "ece", "name": "calibration", "title": "ECE (% ↓)", "scale": 100, "digits": 1, "better": -1},
    {"key": "aurc", "name": "AURC", "title": "AURC (% ↓)", "scale": 100, "digits": 2, "better": -1},
    {"key": "auroc", "name": "AUROC", "title": "AUROC (% ↑)", "scale": 100, "digits": 1, "better": 1},
]
SAY = {
    "nobody": "With both weights at zero nobody is heard: every class gets the same probability.",
    "alone": "Only the large network is heard, so its labels do not change: {right} of {all} are right.",
    "duo": "The duo gets",
    "sidekick": "The sidekick alone gets",
    "more": "{more} more of {all} right than the large network alone.",
    "fewer": "{more} fewer of {all} right than the large network alone.",
    "equal": "as many of {all} right as the large network alone.",
    "kept": "Among the {kept} images that it is surest of, {wrong} are wrong instead of {instead}.",
    "sure": "It is too sure of itself, on average {sure}\u00a0% sure and {correct}\u00a0% right.",
    "unsure": "It is too unsure of itself, on average {sure}\u00a0% sure and {correct}\u00a0% right.",
    "interval": "On 95\u00a0% of other samples of {all} it would be {low} to {high} more. Against the large network, {judged}.",
    "better": "better",
    "worse": "worse",
    "same": "no better",
}


def duo_explorer(
    member_logits: Sequence[Table] | Array,
    labels: Column,
    fits: Sequence[DuoFit],
    *,
    names: Sequence[str],
    sidekicks: Sequence[str] | None = None,
    seed: int,
    rows: int = 1000,
) -> str:
    """HTML of a figure in which the reader chooses a sidekick, moves the two weights and sees every metric follow.

    The fragment holds a random part of the rows and no code: the page loads moving.js and moving.css, which compute every
    metric, and the differences on 200 bootstrap draws, from the logits. These are shifted so that each row's largest is 0, and
    rounded to hundredths, so the NLL moves by at most 0.01 times the sum of the weights. Two bytes a logit before base64: 27
    kB a network for 1000 rows of 10 classes.

    Args:
        member_logits: (m, n, c), or a list of (n, c): of the large network, then of its sidekicks.
        labels: (n,), classes in [0, c).
        fits: of fit_duo, one a sidekick, on other examples. The first sidekick is the one of the first view.
        names: of the networks, as the reader shall see them.
        sidekicks: what is written on the buttons, such as "a tenth of the cost"; by default their names.
        seed: of the draw of the rows.
        rows: at most so many are drawn.

    Raises:
        ValueError: if shapes differ, logits are not finite, are probabilities or spread too far for 16 bits, a label is
            outside [0, c), rows is below 1, or there are not as many names and fits as networks.
        TypeError: if a fit is none, a name is no string, or a number is not whole.
    """
    members = check_members(member_logits)
    if len(members) < 2:
        raise ValueError(
            "member_logits must hold the logits of the large network, then those of a sidekick or more; there is one"
        )
    n, classes = members[0].shape
    labels = check_labels(labels, classes, rows=n)
    if len(fits) != len(members) - 1 or len(names) != len(members) or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"{len(members)} networks need as many names and a fit a sidekick; got {names!r}, {len(fits)} fits"
        )
    for fit in fits:
        check_result(fit, DuoFit, "each of fits", "fit_duo")
    rows, seed = check_whole(rows, "rows", least=1), check_whole(seed, "seed", least=0)
    chosen = torch.arange(n) if rows >= n else torch.from_numpy(split(n, rows, seed=seed)[0])
    codes = [_codes(member.cpu()[chosen], f"member_logits[{k}]") for k, member in enumerate(members)]
    held, labels = [each * STEP for each in codes], labels.cpu()[chosen]
    alone = 1 / fits[0].temperatures[0]
    presets = [_presets(fit, alone) for fit in fits]
    limits = [
        _axis_end(max(w for each in presets for w in (2 * each["Fitted duo"][k], *(pair[k] for pair in each.values()))))
        for k in (0, 1)
    ]
    wrong = 1 - metrics.accuracy(held[0].argmax(-1), labels)
    risk = _axis_end(1.25 * wrong or 0.1)
    controls, panels = _duo_controls(sidekicks or names[1:], limits), _duo_panels(limits, risk)
    store = moving.Store((len(fits), 1, 1, 1))
    still = [_still(held[0], held[1 + k], labels, fit, alone=alone, ends=(*limits, risk)) for k, fit in enumerate(fits)]
    place = lambda pair: [weight / limit * STEPS for weight, limit in zip(pair, limits, strict=True)]  # noqa: E731
    spec: dict[str, Any] = {
        "name": "duo",
        "about": f"{len(labels):,} images",
        "controls": [moving.control_of(each) for each in controls],
        "panels": [moving.panel_of(panel, controls) for panel in panels],
        "start": [0, *place(fits[0].weights), KEPT.index(0.8)],
        "presets": [
            *({"name": name, "at": [[k, *place(each[name]), None] for k, each in enumerate(presets)]} for name in presets[0]),
            {"name": "Both × 2", "times": 2, "of": [1, 2], "at": []},
        ],
        "marks": [
            mark | ({"live": key} if key else {})
            for mark, key in zip(moving.marks_of(still, panels, store), MOVED, strict=True)
        ],
        "rows": [{} for _ in METRICS],
        "live": {
            "step": STEP, "classes": classes, "alone": alone, "draws": DRAWS, "kept": KEPT, "risk": risk, "say": SAY, "metrics": METRICS,
            "networks": [moving.in_base64(each.numpy(), "<i2") for each in codes],
            "labels": moving.in_base64(labels.numpy(), "<i2"),
        },
    }  # fmt: skip
    for slider, limit in zip(spec["controls"][1:3], limits, strict=True):  # their words are those of any number
        del slider["words"]
        slider |= {"step": limit / STEPS, "digits": 3}
    first = _first_view(held, labels, fits[0], alone, names)
    return moving.fragment_of(spec, store, first, f"the weights of {names[0]} and a sidekick")


def _presets(fit: DuoFit, alone: float) -> dict[str, tuple[float, float]]:
    own = 1 / fit.temperatures[1]
    return {
        "Fitted duo": fit.weights,
        "Equal say": (alone / 2, own / 2),
        "Large alone": (alone, 0.0),
        "Sidekick alone": (0.0, own),
        "As trained (1, 0)": (1.0, 0.0),
    }


def _duo_controls(sidekicks: Sequence[str], limits: Sequence[float]) -> list[Slider | Choice]:
    weights = [[limit * k / STEPS for k in range(STEPS + 1)] for limit in limits]
    return [
        Choice("Which sidekick", {each: k for k, each in enumerate(sidekicks)}),
        Slider("Large network", weights[0]),
        Slider("Sidekick", weights[1]),
        Slider("Keep the surest", [100 * kept for kept in KEPT], "{:.0f} %"),
    ]


def _duo_panels(limits: Sequence[float], risk: float) -> list[Panel]:
    share = Axis("kept, surest first (%)", 0, 100)
    weights = Axis("weight of the large", 0, limits[0]), Axis("weight of the sidekick", 0, limits[1])
    return [
        Panel("NLL over the weights (nats)", *weights, 1, drag=("Large network", "Sidekick")),
        Panel("Error among the kept", share, Axis("wrong (%)", 0, 100 * risk), 1, drag=("Keep the surest", None)),
        Panel("Reliability", Axis("mean confidence (%)", 0, 100), Axis("accuracy (%)", 0, 100), 1),
    ]


def _first_view(held: Sequence[Tensor], labels: Tensor, fit: DuoFit, alone: float, names: Sequence[str]) -> View:
    """What a page without a script says: the numbers of the fitted duo with the first sidekick."""
    own = _scores(outcome_of(fit.weights[0] * held[0] + fit.weights[1] * held[1], labels))
    other = _scores(outcome_of(alone * held[0], labels))
    numbers: dict[str, dict[str, str | tuple[str, str]]] = {
        m["title"]: {
            "these weights": _print(own[m["key"]], m),
            "large alone": _print(other[m["key"]], m),
            "change, on 95\u00a0% of other samples": "",
            "so it is": "",
        }
        for m in METRICS
    }
    right = [round(each["accuracy"] * len(labels)) for each in (own, other)]
    reading = (
        f"{names[0]} and {names[1]}, with weights that were fitted on other images, get {right[0]} of {len(labels):,} right, "
        f"{names[0]} alone {right[1]}."
    )
    return View([], numbers, reading)


def _still(
    large: Tensor, small: Tensor, labels: Tensor, fit: DuoFit, *, alone: float, ends: Sequence[float]
) -> list[list[Mark]]:
    """What stands still in the plots of one sidekick; empty where the page draws anew."""
    own = outcome_of(alone * large, labels)
    confidence, right = own.confidence, own.correct
    *limits, most = ends
    risks = metrics.selective_risks(confidence, right)
    risks = 100 * np.where(np.asarray(risks) > most, math.nan, risks)  # above the plot
    curve = calibration.reliability_curve(confidence, right)
    there = curve.count > 0
    levels, (x, y), (a, b) = (
        _levels(large, small, labels, fit.weights, limits),
        fit.weights,
        (limit / 40 for limit in limits),
    )
    nothing: dict[str, Any] = {"x": [], "y": [], "x2": [], "y2": []}
    return [
        [
            Mark("line", *levels[:2], tone="reference thin"),
            Mark("text", *levels[2:4], tone="quiet", words=levels[4]),
            Mark("segments", **nothing, tone="own thin dashed"),
            Mark("dots", [], [], tone="own", name="these weights"),
            Mark("segments", [max(0, x - a), x], [y, max(0, y - b)], [x + a, x], [y, y + b], tone="other", name="weights fitted on other images"),
        ],
        [
            Mark("line", 100 * metrics.selective.coverages(confidence), risks, tone="reference", name="large network alone, temperature-scaled"),
            Mark("line", [], [], tone="own"),
            Mark("segments", **nothing, tone="own thin dashed"),
            Mark("dots", [], [], tone="own"),
        ],
        [
            Mark("line", [0, 100], [0, 100], tone="quiet thin dashed"),
            Mark("dots", 100 * curve.confidence[there], 100 * curve.accuracy[there], tone="reference",
                 size=np.sqrt(4 + 120 * np.asarray(curve.count)[np.asarray(there)] / len(labels))),
            Mark("segments", **nothing, tone="own faded"),
            Mark("segments", **nothing, tone="own"),
            Mark("dots", [], [], tone="own faded"),
            Mark("dots", [], [], tone="own"),
        ],
    ]  # fmt: skip


def _levels(
    large: Tensor, small: Tensor, labels: Tensor, weights: tuple[float, float], limits: Sequence[float]
) -> tuple[list[float], list[float], list[float], list[float], list[str]]:
    """Lines of equal NLL, with a gap between two of them, and where their numbers stand.

    The NLL is convex in the weights, so every line is met once by a ray from near the bottom.
    """
    rays, radii = 72, 1.5 * (np.arange(25) / 24) ** 2  # in parts of the axes
    ways = [
        (limits[0] * math.cos(2 * math.pi * k / rays), limits[1] * math.sin(2 * math.pi * k / rays))
        for k in range(rays)
    ]
    at = lambda r, way: [w + r * d for w, d in zip(weights, way, strict=True)]  # noqa: E731
    nll = np.array([_along([at(r, way) for r in radii], large, small, labels) for way in ways])
    lines, places, last = [], [], weights
    for level in (float(f"{rise * nll[0, 0]:.2g}") for rise in (1.03, 1.1, 1.25, 1.5, 2, 3, 5)):
        if not 1.01 * nll[0, 0] < level < metrics.nll(0 * large, labels):
            continue
        line = [at(np.interp(level, values, radii, right=math.nan), way) for values, way in zip(nll, ways, strict=True)]
        inside = [
            p if all(0 <= w <= most for w, most in zip(p, limits, strict=True)) else (math.nan, math.nan)
            for p in [*line, line[0]]
        ]
        lines += [*inside, (math.nan, math.nan)]
        label = next(
            (inside[k] for k in (9, 5, 13, 1, 17, 65, 21, 57) if not math.isnan(inside[k][0])), (math.nan, math.nan)
        )
        if math.dist(*([w / most for w, most in zip(p, limits, strict=True)] for p in (label, last))) > 0.1:
            places.append((*label, f"{level:g}"))
            last = (label[0], label[1])
    xs, ys = np.array(lines or [(math.nan, math.nan)]).T.tolist()
    return xs, ys, [p[0] for p in places], [p[1] for p in places], [p[2] for p in places]


def _along(pairs: Sequence[Sequence[float]], large: Tensor, small: Tensor, labels: Tensor) -> list[float]:
    """The NLL at several pairs of weights, all in one call."""
    logits = torch.cat([a * large + b * small for a, b in pairs])
    return metrics.nll_each(logits, labels.repeat(len(pairs))).reshape(len(pairs), -1).mean(1).tolist()


def _scores(outcome: Outcome) -> dict[str, float]:
    """Every metric of METRICS; no AUROC where all are right, or none."""
    asked = {m["key"]: MEASURES[m["key"]] for m in METRICS if m["key"] != "auroc" or len(outcome.correct.unique()) > 1}
    return {"auroc": math.nan} | {key: float(each.statistic(*each.arrays(outcome))) for key, each in asked.items()}


def _print(value: float, metric: dict[str, Any]) -> str:
    return "–" if math.isnan(value) else f"{metric['scale'] * value:.{metric['digits']}f}"


def _axis_end(largest: float) -> float:
    """The least round number that holds this one in four parts or fewer."""
    power = 10.0 ** math.floor(math.log10(largest / 4) - 1e-9)
    step = next(k * power for k in (1, 2, 5, 10) if largest <= 4.000004 * k * power)
    return math.ceil(largest / step - 1e-6) * step


def _codes(logits: Float[Tensor, "n c"], name: str) -> Float[Tensor, "n c"]:
    shifted = logits.double() - logits.double().amax(-1, keepdim=True)
    if shifted.min() < -REACH:
        row = int(shifted.amin(-1).argmin())
        raise ValueError(
            f"{name} spread too far: row {row} of those drawn spans {-shifted.min().item():.6g}, and {REACH:.6g} is the most. "
            "Divide the logits by a temperature before fit_duo."
        )
    return (shifted / STEP).round()


TEMPERATURES = (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 10, 20)
STRENGTHS = (0, 0.1, 0.2, 0.3, 0.4, 0.5)
NORMALISERS = {"min–max": "minmax", "99.9 % quantile": "clipped", "z-score": "zscore", "raw": "raw"}
PUBLISHED = (0.7, 0.3, "minmax")  # the paper's, on CIFAR
TOP = 4.0  # of the axis of the confidence p, in -log10(1 - p)
POINTS = np.unique(
    np.concatenate([np.linspace(0, 1, 41), 1 - np.geomspace(1e-4, 0.1, 20)])
)  # of a curve, finer at the hardest
BARS = 74


def difficulty_explorer(difficulty: Column, *, classes: int, name: str, kinds: Sequence[str] = ()) -> str:
    """HTML of a figure in which the reader moves temperature, strength and normaliser, and sees weights and confidences.

    All that it shows is computed here, at each of 12 temperatures, 6 strengths and 4 normalisers: weights by
    uqlib.difficulty.weighting, the confidences that are optimal under the loss by uqlib.losses. 60 kB.

    Args:
        difficulty: (n,) of the training images, higher = harder.
        classes: of the training set.
        name: of the measure and the network behind it, as the reader shall see them, such as "RMD by MobileNetV2".
        kinds: what each image shows, in a word; the figure then says what the hardest and the easiest ones are.

    Raises:
        ValueError: if difficulties are not finite, too large or nearly all the same, classes is below 2, or not every image has a word.
        TypeError: if the name is no string or the number of classes is not whole.

    Source:
        Cui et al. 2023 (arXiv:2304.10127), equations 8 to 10.
    """
    values = check_confidence(difficulty, "difficulty")
    check_size(values, "difficulty")
    easiest_first = np.sort(values.double().cpu().numpy())
    low, high, n = easiest_first[0], easiest_first[-1], len(easiest_first)
    if easiest_first[n - 1 - n // 1000] == low:
        raise ValueError(
            f"all but a few of {n:,} difficulties are {low:.6g}; the figure needs some that differ. Pass the difficulty of "
            "all training images."
        )
    if not isinstance(name, str):
        raise TypeError(f"name must be a string; it is {name!r}")
    classes = check_whole(classes, "classes", least=2)
    if len(kinds) not in (0, n):
        raise ValueError(f"kinds must have a word for each of {n:,} images, or none at all; it has {len(kinds):,}")
    across = Axis(f"difficulty: {name}", low, high)
    ticks = {-math.log10(1 - p / 100): f"{p:g}" for p in (50, 80, 90, 95, 99, 99.9)} | {TOP: "≥99.99"}
    panels = [
        Panel("Weight", across, Axis("", 0, 1), 0.6),
        Panel("Best confidence in the true class (%)", across, Axis("", 0.2, TOP, ticks), 0.6),
    ]
    return moving.moving_figure(
        partial(_weighed, easiest_first, classes, _ends_of(values.tolist(), kinds)),
        [
            Slider("Temperature T", TEMPERATURES, start=0.3),
            Slider("Strength α", STRENGTHS, "{:.1f}", start=0.5),
            Choice("Normaliser", NORMALISERS),
        ],
        panels,
        name="difficulty-weights",
        title="the weights of difficulty",
        presets={
            "Paper’s setting": (0.7, 0.3, "min–max"),
            "Raw distances": (0.7, 0.3, "raw"),
            "More contrast": (0.3, 0.5, "min–max"),
        },
        about=f"{n:,} training images",
    )


def _ends_of(difficulty: Sequence[float], kinds: Sequence[str]) -> str:
    """What the hardest and the easiest tenth show most often."""
    if not kinds:
        return ""
    easiest_first = sorted(range(len(kinds)), key=difficulty.__getitem__)
    tenth = max(1, len(kinds) // 10)
    hard, easy = (
        ", ".join(
            f"{kind} {100 * count / tenth:.0f}\u00a0%" for kind, count in Counter(kinds[k] for k in rows).most_common(3)
        )
        for rows in (easiest_first[-tenth:], easiest_first[:tenth])
    )
    return (
        f"At the right end, most often in the hardest tenth of the images: {hard}. At the left, in the easiest: {easy}."
    )


def _weighed(
    easiest_first: np.ndarray, classes: int, shown: str, temperature: float, alpha: float, normaliser: str
) -> View:
    """What is seen at one setting."""
    n, low, high = len(easiest_first), easiest_first[0], easiest_first[-1]
    weights = np.asarray(scoring.weights(easiest_first, temperature=temperature, normaliser=normaliser))
    chosen = np.unique(np.searchsorted(easiest_first, low + POINTS * (high - low)).clip(0, n - 1))
    mean, middle = weights.mean(), weights[n // 2]
    *best, median, constant = np.asarray(
        losses.optimal_confidence(alpha * np.array([*weights[chosen], middle, mean]), classes)
    )
    count, edges = np.histogram(easiest_first, BARS, (low, high))
    heights = np.where(count, np.maximum(0.004, 0.92 * count / count.max()), math.nan)
    nines = lambda p: np.minimum(TOP, -np.log10(np.maximum(1 - np.asarray(p), 1e-9))).clip(0.2)  # noqa: E731
    x, ends = easiest_first[chosen], [low, high]
    box: dict[str, Any] = {"x": edges[:-1], "x2": edges[1:], "tone": "quiet faded", "name": "training images"}
    marks = [
        [Mark("boxes", y=0 * heights, y2=heights, **box), Mark("line", ends, [mean] * 2, tone="other dashed", name="constant, of the same mean strength"),
         Mark("line", x, weights[chosen], name="weights by difficulty")],
        [Mark("boxes", y=0.2 + 0 * heights, y2=0.2 + (TOP - 0.2) * heights, **box), Mark("line", ends, [nines(constant)] * 2, tone="other dashed"), Mark("line", x, nines(best))],
    ]  # fmt: skip
    of = lambda p: "> 99.99\u00a0%" if 0.9999 < p < 1 else f"{100 * p:.{0 if p == 1 else 2 if p > 0.99 else 1}f}\u00a0%"  # noqa: E731
    small = lambda w: "< 0.001" if 0 < w < 0.0005 else f"{w:.3f}"  # noqa: E731
    rows = {
        "Mean weight": (small(mean), small(mean)),
        "Strength, α × mean": (small(alpha * mean), small(alpha * mean)),
        "Images of weight above ½": (of((weights > 0.5).mean()), "–"),
        "Best confidence, median image": (of(median), of(constant)),
        "Best confidence, hardest image": (of(best[-1]), of(constant)),
    }
    numbers = {row: dict(zip(("by difficulty", "constant"), cells, strict=True)) for row, cells in rows.items()}
    said = " ".join(_said(weights, best, constant, alpha=alpha, of=of))
    if (temperature, alpha, normaliser) == PUBLISHED:
        said += " T and α are the paper’s; how it scales the distances it does not say."
    return View(marks, numbers, said, shown)


def _said(weights: np.ndarray, best: Sequence[float], constant: float, *, alpha: float, of: Any) -> Iterator[str]:
    if alpha == 0:
        yield "With α = 0 no entropy is asked for. This is cross entropy: full confidence is best everywhere, on wrong labels too."
        return
    if weights.mean() < 0.02:
        heavy = int((weights > 0.5).sum())
        yield f"The weights of nearly all images vanish: {heavy:,} of {len(weights):,} {'has' if heavy == 1 else 'have'} a weight above ½."
        yield f"For the hardest image the best confidence is {of(best[-1])}; for nearly all others this is cross entropy."
        return
    yield f"The best confidence is {of(best[-1])} for the hardest image and {of(best[0])} for the easiest."
    if weights[0] > 0.8:
        yield f"All weights are above {math.floor(100 * weights[0]) / 100:.2f}, so this is nearly constant entropy regularisation."
    else:
        yield f"A constant bonus of the same mean strength asks for {of(constant)} on every image, easy or hard."
