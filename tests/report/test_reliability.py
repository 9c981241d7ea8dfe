"""The reliability card: its numbers are those of the metrics, its changes are paired, and what it records names its place."""

import json

import numpy as np
import pytest
import torch

from uqlib import metrics
from uqlib.calibrate import cross_calibrate
from uqlib.metrics.compare import cells
from uqlib.metrics.tasks import out_of_distribution
from uqlib.report.cards import CARD, card_of, reliability_card, show_card
from uqlib.report.verbs import begin

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 300)
LOGITS = 2 * np.eye(4)[LABELS] + RNG.normal(0, 1.5, (300, 4))
OTHERS = RNG.normal(0, 1.5, (200, 4))


def values(scores):
    return dict(zip(scores["measure"].values, scores.isel(draw=0).mean("training").values[0], strict=True))


def test_every_number_is_that_of_the_metric():
    found = values(reliability_card({"a": [card_of(LOGITS, LABELS, outside=OTHERS)]}, over="training", draws=0))
    probs = torch.from_numpy(LOGITS).softmax(-1).numpy()
    confidence, correct = probs.max(-1), probs.argmax(-1) == LABELS
    scaled = cross_calibrate("temperature", LOGITS, LABELS).max(-1)
    away = torch.from_numpy(OTHERS).softmax(-1).amax(-1)
    detection = out_of_distribution(confidence, away)
    wanted = {
        "accuracy": correct.mean(),
        "nll": metrics.nll(LOGITS, LABELS),
        "brier": metrics.brier(probs, LABELS),
        "ece": metrics.ece(confidence, correct),
        "ece_scaled": metrics.ece(scaled, correct),
        "auroc": metrics.correctness_auroc(confidence, correct),
        "aurc": metrics.aurc(confidence, correct),
        "coverage": metrics.coverage_at_risk(confidence, correct, risk=0.05),
        "ood_auroc": detection.auroc,
        "ood_fpr95": detection.fpr95,
    }
    assert list(found) == list(CARD)
    assert found == pytest.approx(wanted, abs=1e-12)


def test_a_confidence_of_its_own_changes_what_ranks_and_nothing_else():
    own = RNG.random(300)
    plain, other = (
        values(reliability_card({"a": [card_of(LOGITS, LABELS, **more)]}, over="training", draws=0))
        for more in ({}, {"confidence": own})
    )
    assert {name for name in plain if plain[name] != other[name]} == {"auroc", "aurc", "coverage"}
    assert "ood_auroc" not in plain


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"confidence": [0.5]}, "an entry an image, 300"),
        ({"outside": [[np.nan, 1.0]]}, "finite"),
        ({"folds": 1}, "folds"),
    ],
)
def test_bad_input_is_named(more, words):
    with pytest.raises(ValueError, match=words):
        card_of(LOGITS, LABELS, **more)


def test_what_is_recorded_names_place_and_method(tmp_path):
    record = tmp_path / "record.json"
    run = begin("drafts/card", {"scale": "cpu", "record": str(record)})
    methods = {"before": [card_of(LOGITS, LABELS)], "after": [card_of(2 * LOGITS, LABELS)]}
    shown = show_card(run, methods, place="toy", draws=20, cost={"after": 2})
    run.done()
    kept = {(r["quantity"], r["setting"]): r for r in json.loads(record.read_text())["results"]}
    assert kept["card_accuracy", "toy: after"]["value"] == kept["card_accuracy", "toy: before"]["value"]
    assert kept["card_change_accuracy", "toy: after"]["low"] == 0  # the same answers, whatever the draw
    assert kept["card_change_ece", "toy: after"]["value"] != 0
    assert kept["card_cost", "toy: after"]["value"] == 2
    assert "at its temperature" in repr(shown)
    with pytest.raises(ValueError, match="without a colon"):
        show_card(run, methods, place="a: b")


def test_changes_are_paired():
    methods = {"before": [card_of(LOGITS, LABELS)], "after": [card_of(1.001 * LOGITS, LABELS)]}
    scores = reliability_card(methods, over="training", draws=100)
    change = cells(scores.sel(variant=["after"]) - scores.sel(variant="before", drop=True)).set_index("measure")
    level = cells(scores).query("variant == 'before'").set_index("measure")
    widths = [frame.loc["nll", "high"] - frame.loc["nll", "low"] for frame in (change, level)]
    assert widths[0] < widths[1] / 50
