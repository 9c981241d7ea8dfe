"""The reliability card: one function that every paper calls before and after its method.

    methods = {"linear": [card_of(logits, labels, outside=others)], "bottleneck": [card_of(...)]}
    show_card(run, methods, place="CIFAR-10", over="training", draws=200, cost={"bottleneck": 1.2})

The first method is what was there before. What is recorded here stands on the page that compares all papers.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uqlib.base.arrays import Column, Table, as_tensor
from uqlib.base.checks import check_confidence, check_labels, check_logits
from uqlib.base.extras import named
from uqlib.base.options import check_choice, check_number, check_whole
from uqlib.calibrate.calibrators import cross_calibrate
from uqlib.metrics import calibration, detection, selective
from uqlib.metrics.compare import cells, compare
from uqlib.metrics.outcomes import MEASURES, Measure
from uqlib.metrics.tasks import both_sides
from uqlib.report.tables import Shown
from uqlib.report.verbs import Report

with named():
    import pandas as pd
    import xarray as xr

RISK = 0.05  # that is allowed where a coverage is asked for
QUANTITY = "card_{measure}"  # under which a card is recorded
CHANGE = "card_change_{measure}"  # a method less the first one, paired


class Carded(NamedTuple):
    """What one method said of test images, and of images of other classes."""

    preds: Int[Tensor, " n"]
    probs: Float[Tensor, "n c"]
    confidence: Float[Tensor, " n"]  # higher = more certain
    labels: Int[Tensor, " n"]
    scaled: Float[Tensor, " n"] | None  # the largest probability at a temperature, where there is one
    outside: Float[Tensor, " m"] | None  # the confidence on images of other classes
    logits: Float[Tensor, "n c"]

    @property
    def correct(self) -> Bool[Tensor, " n"]:
        return self.preds == self.labels


def card_of(
    logits: Table,
    labels: Column,
    *,
    confidence: Column | None = None,
    outside: Table | None = None,
    confidence_out: Column | None = None,
    temperature: str | float | None = "cross",
    folds: int = 5,
) -> Carded:
    """All that a card asks of one method, from what it says of test images.

    Args:
        logits: (n, c); of probabilities their logarithms.
        labels: (n,), classes in [0, c).
        confidence: (n,) what the method is sure of, higher = more certain; by default its largest probability.
        outside: (m, c) logits of images of classes that it does not know, where its confidence is its largest probability; or
        confidence_out: (m,) its own confidence on them, beside `confidence`. Without either nothing is said of detection.
        temperature: "cross" fits it on the other folds; a number is one that was fitted elsewhere; None leaves it out. Where no
            temperature is the best, as of a network that is always right or below chance, nothing is said of it.
        folds: of the test images, at least 2.

    Raises:
        ValueError: if a number is not finite, a label is no class, the lengths or the classes differ, the temperature is
            unknown, or the confidence inside and outside are not the same one.

    Examples:
        >>> from uqlib.report.cards import card_of
        >>> logits, labels = [[2.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 3.0]] * 5, [0, 1, 1, 1] * 5
        >>> card_of(logits, labels).correct.double().mean().item()
        0.75
    """
    table = check_logits(logits).double()
    known = check_labels(labels, table.shape[1], rows=len(table), device=table.device)
    probs = table.softmax(-1)
    sure = probs.amax(-1) if confidence is None else check_confidence(confidence).to(table.device)
    if len(sure) != len(table):
        raise ValueError(f"confidence must have an entry an image, {len(table)}; it has {len(sure)}")
    away = _away(table.shape[1], confidence is not None, outside, confidence_out)
    scaled = _at_temperature(table, known, temperature, check_whole(folds, "folds", least=2))
    return Carded(table.argmax(-1), probs, sure.double(), known, scaled, away, table)


def _away(classes: int, own: bool, outside: Table | None, confidence_out: Column | None) -> Float[Tensor, " m"] | None:
    """The confidence on images of other classes, which must be the one that the method has on its own."""
    if outside is not None and confidence_out is not None:
        raise ValueError("pass outside, logits, or confidence_out, a confidence of your own; not both")
    if confidence_out is not None:
        if not own:
            raise ValueError(
                "confidence_out needs confidence beside it, the same score of the test images; for the largest probability "
                "pass outside, the logits"
            )
        return check_confidence(confidence_out, "confidence_out").double()
    if outside is None:
        return None
    if own:
        raise ValueError(
            "outside would be judged by the largest probability, the test images by the confidence that is given; pass "
            "confidence_out, the same confidence of the images of other classes"
        )
    table = check_logits(outside, "outside").double()
    if table.shape[1] != classes:
        raise ValueError(f"outside must have the {classes} classes of logits; it has {table.shape[1]}")
    return table.softmax(-1).amax(-1)


def _at_temperature(
    table: Float[Tensor, "n c"], labels: Int[Tensor, " n"], temperature: str | float | None, folds: int
) -> Float[Tensor, " n"] | None:
    """The largest probability at a temperature; None where none is asked for or none is the best."""
    if temperature is None:
        return None
    if not isinstance(temperature, str):
        return (table / check_number(temperature, "temperature", above=0)).softmax(-1).amax(-1)
    check_choice(temperature, ("cross",), "temperature")
    folds = min(folds, len(table))
    if folds < 2:
        return None
    try:
        return as_tensor(cross_calibrate("temperature", table, labels, folds=folds)).amax(-1)
    except ValueError:  # the arrays are checked: what is left is a fit without an optimum
        return None


def _scaled(card: Carded) -> tuple[Any, ...] | None:
    return None if card.scaled is None else (card.scaled, card.correct)


def _raw(card: Carded) -> tuple[Any, ...]:
    return card.probs.amax(-1), card.correct


def _judged(card: Carded) -> tuple[Any, ...]:
    return card.confidence, card.correct


def _sides(card: Carded) -> tuple[Any, ...]:
    if card.outside is None:
        raise ValueError("nothing is known of images of other classes; pass outside= or confidence_out= to card_of")
    return tuple(both_sides(card.confidence, card.outside))


CARD: dict[str, Measure] = {
    "accuracy": MEASURES["accuracy"],
    "nll": MEASURES["nll"],
    "brier": MEASURES["brier"],
    "ece": Measure(calibration.ece, _raw, False, "ECE"),
    "ece_scaled": Measure(calibration.ece, _scaled, False, "ECE at its temperature"),
    "auroc": Measure(detection.correctness_auroc, _judged, True, "AUROC of mistakes", needs_both=True),
    "aurc": Measure(selective.aurc, _judged, False, "AURC"),
    "coverage": Measure(partial(selective.coverage_at_risk, risk=RISK), _judged, True, "coverage at 5 % risk"),
    "ood_auroc": Measure(detection.auroc, _sides, True, "AUROC of other classes"),
    "ood_fpr95": Measure(partial(detection.fpr_at_tpr, tpr=0.95), _sides, False, "FPR-95 of other classes"),
}
OUTSIDE = ("ood_auroc", "ood_fpr95")
UNBOUNDED = ("nll", "brier")  # the others are shares


def reliability_card(methods: Mapping[str, Sequence[Carded]], *, over: str, draws: int, seed: int = 0) -> xr.DataArray:
    """The card of each method, on all test images and on paired draws of them.

    Args:
        methods: by name, one `card_of` a repetition; the first is what was there before.
        over: the unit that is repeated, "split" or "training".
        draws: of the images.
        seed: of the draws.

    Returns:
        As `metrics.compare`: variant, measure, `over`, draw. Detection is left out where a method says nothing of it. What has
        no value, such as the AUROC of mistakes where there is none, is NaN.

    Raises:
        ValueError: as `metrics.compare`, or if two methods were asked of other images in one repetition, which pairs nothing.
    """
    _check_same_images(methods)
    shared: dict[str, Any] = {"over": over, "draws": draws, "seed": seed, "undefined": True}
    parts = [compare(methods, {name: each for name, each in CARD.items() if name not in OUTSIDE}, **shared)]
    if all(card.outside is not None for some in methods.values() for card in some):  # other rows, so draws of their own
        parts.append(compare(methods, {name: CARD[name] for name in OUTSIDE}, **shared))
    return xr.concat(parts, "measure")


def _check_same_images(methods: Mapping[str, Sequence[Carded]]) -> None:
    """Changes are paired, so in each repetition all methods have the labels of the first, row by row."""
    (first, own), *others = methods.items()
    for name, some in others:
        for k, (one, other) in enumerate(zip(own, some, strict=False)):
            if not torch.equal(one.labels.cpu(), other.labels.cpu()):
                raise ValueError(
                    f"methods must be judged on the same images, in the same order; in repetition {k} the labels of {name!r} "
                    f"are not those of {first!r}"
                )


def show_card(
    run: Report,
    methods: Mapping[str, Sequence[Carded]],
    *,
    place: str,
    over: str = "training",
    draws: int = 200,
    seed: int = 0,
    cost: Mapping[str, float] | None = None,
) -> Shown:
    """Record the card of each method, and how each differs from the first, and show them as a table.

    Args:
        run: of the notebook.
        methods, over, draws, seed: as of `reliability_card`.
        place: on what, such as "CIFAR-10, features of EdgeTPU"; no colon.
        cost: multiply-adds of an image at test time, as a multiple of those of the first method; 1 where it is left out.
    """
    return record_card(run, reliability_card(methods, over=over, draws=draws, seed=seed), place=place, cost=cost)


def record_card(run: Report, scores: xr.DataArray, *, place: str, cost: Mapping[str, float] | None = None) -> Shown:
    """As `show_card`, of scores that are there: variant, measure in CARD, and what `metrics.compare` has else.

    Raises:
        ValueError: if the place has a colon, or a cost is of none of the methods or not above 0.
    """
    if ":" in place:
        raise ValueError(f"place must be without a colon, which parts it from the method; it is {place!r}")
    first, *others = methods = [str(name) for name in scores["variant"].values]
    costs = dict.fromkeys(methods, 1.0)
    for name, each in (cost or {}).items():
        costs[check_choice(name, methods, "method in cost")] = check_number(each, f"cost of {name}", above=0)
    printed = {name: run.labels.get(name, name) for name in methods}
    own, names = run.labels, {name: each.name for name, each in CARD.items()}
    run.labels = own | names  # what a notebook calls its own ECE, such as one of bins of equal mass, is not the card's
    known = scores.assign_coords(variant=list(printed.values()))
    options: dict[str, Any] = {"setting": place + ": {variant}", "unclaimed": True}
    levels = _levels(known)
    run.record(QUANTITY, levels, **options)
    if others:
        changes = known.sel(variant=[printed[name] for name in others]) - known.sel(variant=printed[first], drop=True)
        run.record(CHANGE, changes, **options)
    run.record("card_cost", cells({printed[name]: costs[name] for name in methods}, "variant"), **options)
    caption = f"Reliability card: {place}"
    if missing := [
        CARD[name].name for name in known["measure"].values if known.sel(measure=name, draw=0).isnull().all()
    ]:
        caption += f". Without a value here: {', '.join(missing)}"
    shown = run.table(levels, rows="measure", columns="variant", signed=False, caption=caption, name="card")
    run.labels = names | own
    return shown


def _levels(known: xr.DataArray) -> pd.DataFrame:
    """The cells of a card, each interval inside what its measure can be: Student's of a few repetitions reaches further."""
    most = {name: math.inf if name in UNBOUNDED else 1.0 for name in known["measure"].values}
    parts = [cells(known.sel(measure=[name]), within=(0.0, end)) for name, end in most.items()]
    return pd.concat([part for part in parts if len(part)], ignore_index=True)
