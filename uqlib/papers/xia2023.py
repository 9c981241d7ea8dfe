"""Window-Based Early-Exit Cascades for Uncertainty Estimation: what is alone of Xia & Bouganis 2023.

Its rival policies over repeated splits, for every ordered pair of some networks, and an interval for other networks.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import permutations, product
from typing import Any, NamedTuple

import torch
from torch import Tensor

from uqlib.base.arrays import as_tensor
from uqlib.base.extras import named
from uqlib.base.splits import split
from uqlib.combine import cascades
from uqlib.metrics import selective
from uqlib.metrics.compare import compare, together
from uqlib.metrics.detection import fpr_at_tpr
from uqlib.metrics.outcomes import MEASURES, Judged, Measure, Outcome, outcome_of
from uqlib.metrics.tasks import both_sides
from uqlib.store import load_answers

with named():
    import xarray as xr

Tasks = Mapping[str, Mapping[str, float]]
TITLE = "Window-Based Early-Exit Cascades for Uncertainty Estimation"
POLICIES = {
    "single": "one network",
    "window": "window cascade",
    "threshold": "single threshold",
    "random": "chance",
    "ensemble": "ensemble",
}


class Policies(NamedTuple):
    """What each policy scored, and the share of the test inputs that it passed on."""

    scores: xr.DataArray  # first, second, variant, measure, split, draw
    passed: xr.DataArray  # first, second, variant, measure


def task_measures(tasks: Tasks) -> dict[str, Measure]:
    """The measure of each operating point: the coverage at a risk, or the risk at a coverage; its threshold is the test's own.

    Args:
        tasks: by name {"risk": 0.05}, or {"coverage": 0.8}.
    """
    rules: dict[str, Any] = {"risk": selective.coverage_at_risk, "coverage": selective.risk_at_coverage}
    return {
        name: Measure(partial(rules[kind], **{kind: value}), lambda o: (o.confidence, o.correct), kind == "risk", name)
        for name, task in tasks.items()
        for kind, value in task.items()
    }


def tasks_at(risk: float, coverage: float = 0.8) -> dict[str, dict[str, float]]:
    """The two tasks of the paper: the coverage at a risk, and the risk at a coverage."""
    return {"coverage": {"risk": risk}, "risk": {"coverage": coverage}}


def decide_by_policies(
    pair: tuple[Tensor, Tensor], labels: Tensor, task: Mapping[str, float], *, fit_size: int, splits: int, seed: int, share: float
) -> tuple[dict[str, list[Outcome]], dict[str, float]]:  # fmt: skip
    """Lay window and threshold on some inputs, decide the others by each of POLICIES, and again for every split.

    Args:
        pair: logits (n, c) of the first network and of the second.
        labels: (n,).
        task: as in `task_measures`; where the window lies.
        fit_size: inputs that place the window.
        splits: how many; split k is `splits.split(n, fit_size, seed=seed + k)`.
        seed: of the first split.
        share: that window, threshold and chance pass on.

    Returns:
        What was said of each test part, and the mean share that was passed on, by policy.
    """
    alone, both = (cascades.staged(pair, torch.full_like(labels, k)) for k in (1, 2))
    outcomes: dict[str, list[Outcome]] = {name: [] for name in POLICIES}
    passed = dict.fromkeys(POLICIES, 0.0)
    for k in range(splits):
        fit, test = split(len(labels), fit_size, seed=seed + k)
        one, two = (tuple(part[test] for part in said[:3]) for said in (alone, both))
        tau = cascades.operating_threshold(alone.confidence[fit], (alone.preds == labels)[fit], **task)
        windows = {
            "single": cascades.NOTHING,
            "window": cascades.window_around(alone.confidence[fit], tau, share=share),
            "threshold": cascades.least_confident(alone.confidence[fit], share=share),
            "ensemble": cascades.EVERYTHING,
        }
        on = {name: (one[2] >= each.low) & (one[2] <= each.high) for name, each in windows.items()}
        equal = on["window"].double().mean().item()
        on["random"] = cascades.random_stages(len(test), share=equal, seed=seed + k) == 2
        for name, mask in on.items():
            preds, probs, sure = (
                torch.where(mask if a.ndim == 1 else mask[:, None], b, a) for a, b in zip(one, two, strict=True)
            )
            outcomes[name].append(Outcome(preds, probs, sure, labels[test]))
            passed[name] += mask.double().mean().item() / splits
    return outcomes, passed


def compare_policies(
    answers: Mapping[str, Any], tasks: Tasks, *, splits: int, draws: int, seed: int = 0, **options: Any
) -> Policies:  # fmt: skip
    """The scores of each policy for every ordered pair of these networks, on splits and draws that all of them share.

    Args:
        answers: of each network, with logits (n, c) and labels (n,).
        tasks: as in `task_measures`; each has a window of its own.
        splits, seed, options: as in `decide_by_policies`.
        draws: of the test inputs, shared out among the splits.
    """
    measures = task_measures(tasks)
    scores: dict[tuple[str, ...], xr.DataArray] = {}
    passed: dict[tuple[str, ...], xr.DataArray] = {}
    labels = next(iter(answers.values())).labels
    for pair in permutations(answers, 2):
        logits, parts = (answers[pair[0]].logits, answers[pair[1]].logits), []
        for name, task in tasks.items():
            said, shares = decide_by_policies(logits, labels, task, splits=splits, seed=seed, **options)
            asked: dict[str, Measure | str] = {name: measures[name], f"accuracy, {name}": "accuracy"}
            parts.append(compare(said, asked, over="split", draws=max(1, draws // splits), seed=seed))
            passed[*pair, name] = xr.DataArray(list(shares.values()), {"variant": list(shares)})
        scores[pair] = xr.concat(parts, "measure")
    return Policies(together(scores, "first", "second"), together(passed, "first", "second", "measure"))


def judge_alone(answers: Any, tasks: Tasks, *, fit_size: int, splits: int, draws: int, seed: int = 0) -> xr.DataArray:
    """What a network alone scores where `compare_policies` judges pairs: the same measures, splits and draws.

    Args:
        answers: with logits (n, c) and labels (n,).
        tasks, fit_size, splits, draws, seed: as there.
    """
    tests = [split(len(answers.labels), fit_size, seed=seed + k)[1] for k in range(splits)]
    said = [outcome_of(answers.logits[rows], answers.labels[rows]) for rows in tests]
    scores = compare({"alone": said}, task_measures(tasks), over="split", draws=max(1, draws // splits), seed=seed)
    return scores.sel(variant="alone", drop=True)


def detect_by_policies(
    known: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], *, fit_size: int, tpr: float, score: str, share: float, seed: int = 0
) -> tuple[dict[str, list[Judged]], xr.DataArray]:  # fmt: skip
    """Confidence on known images and on images of other classes when one network, a window or the ensemble gives it.

    One window lies around the threshold among known images alone, one around the same threshold among these and the others
    together, of which no label is needed.

    Args:
        known, other: logits of the first network and of the second, (n, c) and (m, c).
        fit_size: known images that place the windows; the rest is judged.
        tpr: share of the known images to accept.
        score: as in `cascade`.
        share: that a window is to hold.
        seed: of the split.

    Returns:
        By policy both sides for `metrics.compare`, and the share of known and of other images that was passed on.
    """
    fit, test = split(len(known[0]), fit_size, seed=seed)
    sure, away = (as_tensor(cascades.cascade([one], [], score=score).confidence) for one, _ in (known, other))
    tau = cascades.operating_threshold(sure[fit], coverage=tpr)
    windows = {
        "single": cascades.NOTHING,
        "window": cascades.window_around(sure[fit], tau, share=share),
        "mixture": cascades.window_around(torch.cat([sure[fit], away]), tau, share=share),
        "ensemble": cascades.EVERYTHING,
    }
    sides: dict[str, list[Judged]] = {}
    passed = []
    for name, each in windows.items():
        inside, outside = (
            cascades.cascade(list(pair), [each], score=score) for pair in ([part[test] for part in known], other)
        )
        sides[name] = [both_sides(inside.confidence, outside.confidence)]
        passed.append([cascades.mean_cost(said.stages, [0, 1]) for said in (inside, outside)])
    return sides, xr.DataArray(passed, {"variant": list(windows), "side": ["known", "other"]})


def level_text(level: float) -> str:
    """A share to accept as it is named in tables and records: in percent, with as many digits as tell it from others."""
    return f"{100 * level:.12g} %"


def compare_detection(
    known: Mapping[str, Tensor], others: Mapping[str, Tensor], *, levels: Sequence[float], draws: int, seed: int = 0, **options: Any
) -> Policies:  # fmt: skip
    """The share of other images that pass where so many known ones do, by policy, for every ordered pair, score and level.

    Args:
        known, others: of each network, logits (n, c) and (m, c).
        levels: shares of the known images to accept, named as by `level_text`.
        draws: of the images to judge.
        seed: of the split and of the draws.
        options: as in `detect_by_policies`.
    """
    scores: dict[tuple[str, ...], xr.DataArray] = {}
    passed: dict[tuple[str, ...], xr.DataArray] = {}
    for (one, two), score, tpr in product(permutations(known, 2), cascades.SCORES, levels):
        pairs = ((said[one], said[two]) for said in (known, others))
        sides, went = detect_by_policies(*pairs, tpr=tpr, score=score, seed=seed, **options)
        rate = MEASURES["fpr95"]._replace(statistic=partial(fpr_at_tpr, tpr=tpr))
        drawn = compare(sides, {"fpr": rate}, over="split", draws=draws, seed=seed)
        scores[one, two, score, level_text(tpr)] = drawn.isel(measure=0, split=0, drop=True)
        passed[one, two, score, level_text(tpr)] = went
    names = "first", "second", "score", "accepted"
    return Policies(together(scores, *names), together(passed, *names))


class Versions(NamedTuple):
    """What networks said of images in many versions, those of an image side by side."""

    logits: dict[str, Tensor]  # (images x versions, c) of each network
    labels: Tensor
    images: int
    groups: int  # versions of an image


def corrupted_versions(networks: Sequence[str], kinds: Sequence[tuple[str, str]]) -> Versions:
    """The stored answers on some images under each kind of corruption and severity; a kind is its data set and split."""
    said = {name: [load_answers(name, *kind) for kind in kinds] for name in networks}
    first = load_answers(networks[0], *kinds[0], columns=("labels", "index"))
    images = len(first.index.unique())
    rows = torch.arange(len(first)).view(-1, images).T.flatten()  # severities of an image together
    logits = {name: torch.stack([each.logits[rows] for each in own], 1).flatten(0, 1) for name, own in said.items()}
    labels = first.labels[rows].repeat_interleave(len(kinds))
    return Versions(logits, labels, images, len(labels) // images)


def compare_frozen(
    clean: Mapping[str, Tensor], shifted: Mapping[str, Tensor], labels: Tensor, *, coverage: float, share: float, draws: int,
    seed: int = 0, groups: int = 1,
) -> Policies:  # fmt: skip
    """Risk at a coverage on inputs that have changed, with window and threshold laid on clean ones, for every ordered pair.

    Args:
        clean: of each network, logits (n, c) of the inputs on which window and threshold are laid; their labels are not needed.
        shifted: of the same networks, logits (m, c) of the inputs to judge.
        labels: (m,) of these.
        coverage: to which the risk belongs.
        share: that window and threshold hold of the clean inputs.
        draws: of the inputs to judge.
        seed: of the draws.
        groups: so many consecutive rows are drawn as one, such as the versions of one image.
    """
    scores: dict[tuple[str, ...], xr.DataArray] = {}
    passed: dict[tuple[str, ...], xr.DataArray] = {}
    for first, second in permutations(clean, 2):
        sure = cascades.cascade([clean[first]], []).confidence
        windows = {
            "single": cascades.NOTHING,
            "window": cascades.window_around(sure, cascades.operating_threshold(sure, coverage=coverage), share=share),
            "threshold": cascades.least_confident(sure, share=share),
            "ensemble": cascades.EVERYTHING,
        }
        said = {name: cascades.cascade([shifted[first], shifted[second]], [each]) for name, each in windows.items()}
        outcomes = {name: [Outcome(*each[:3], labels)] for name, each in said.items()}
        drawn = compare(
            outcomes,
            task_measures({"risk": {"coverage": coverage}}),
            over="split",
            draws=draws,
            seed=seed,
            groups=groups,
        )
        scores[first, second] = drawn.isel(split=0, measure=0, drop=True)
        shares = [cascades.mean_cost(each.stages, [0, 1]) for each in said.values()]
        passed[first, second] = xr.DataArray(shares, {"variant": list(said)})
    return Policies(together(scores, "first", "second"), together(passed, "first", "second"))
