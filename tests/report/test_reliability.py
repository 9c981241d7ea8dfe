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
        ({"confidence": LOGITS[:, 0], "outside": OTHERS}, "pass confidence_out, the same confidence"),
        ({"outside": OTHERS, "confidence_out": OTHERS[:, 0]}, "not both"),
        ({"confidence_out": OTHERS[:, 0]}, "confidence_out needs confidence beside it"),
        ({"outside": OTHERS[:, :3]}, "outside must have the 4 classes of logits; it has 3"),
        ({"temperature": "own"}, "unknown temperature 'own'; choose from cross"),
        ({"temperature": 0}, "temperature must be a finite number above 0; it is 0"),
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


def test_a_temperature_is_fitted_given_or_left_out():
    given, none = (card_of(LOGITS, LABELS, temperature=each) for each in (2, None))
    assert given.scaled.tolist() == pytest.approx(torch.tensor(LOGITS / 2).softmax(-1).amax(-1).tolist())
    assert none.scaled is None


@pytest.mark.parametrize(
    ("logits", "missing"),
    [
        (9 * np.eye(4)[LABELS], {"ece_scaled", "auroc"}),  # always right
        (-np.eye(4)[LABELS], {"ece_scaled", "auroc"}),  # always wrong
        (np.zeros((300, 4)), {"ece_scaled"}),
        (np.where(np.arange(300)[:, None] < 5, -4, 9) * np.eye(4)[LABELS], set()),  # five mistakes
    ],
)
def test_a_card_stands_where_a_measure_has_no_value(logits, missing):
    scores = reliability_card({"a": [card_of(logits, LABELS)]}, over="split", draws=50)
    frame = cells(scores).set_index("measure")
    assert set(CARD) - {"ood_auroc", "ood_fpr95"} - set(frame.index) == missing
    assert frame.loc["accuracy", "low"] <= frame.loc["accuracy", "value"] <= frame.loc["accuracy", "high"]


def test_a_card_of_one_image_has_no_temperature():
    assert card_of(LOGITS[:1], LABELS[:1]).scaled is None


def test_the_nll_of_a_card_is_that_of_the_logits():
    scores = reliability_card({"a": [card_of(1000 * LOGITS, LABELS, temperature=None)]}, over="split", draws=0)
    assert scores.sel(measure="nll").item() == pytest.approx(metrics.nll(1000 * LOGITS, LABELS), rel=1e-12)


def test_methods_of_other_labels_are_no_pair():
    methods = {"a": [card_of(LOGITS, LABELS)], "b": [card_of(LOGITS, LABELS[::-1].copy())]}
    with pytest.raises(ValueError, match="in repetition 0 the labels of 'b' are not those of 'a'"):
        reliability_card(methods, over="split", draws=0)


def test_a_card_says_what_has_no_value_keeps_its_own_names_and_knows_its_costs(tmp_path):
    run = begin("drafts/card", {"scale": "cpu", "record": str(tmp_path / "record.json")})
    run.labels = {"ece": "ECE (equal mass)", "base": "the base"}
    methods = {"base": [card_of(9 * np.eye(4)[LABELS], LABELS)]}
    shown = repr(show_card(run, methods, place="toy", draws=20))
    assert "equal mass" not in shown
    assert "the base" in shown
    assert "Without a value here: ECE at its temperature, AUROC of mistakes" in shown
    assert run.labels["ece"] == "ECE (equal mass)"
    with pytest.raises(ValueError, match="unknown method in cost 'typo'; choose from base"):
        show_card(run, methods, place="other", draws=2, cost={"typo": 1.2})


def test_no_interval_of_a_card_leaves_what_its_measure_can_be(tmp_path):
    """Student's interval of two trainings is wide: of coverages of 0 and 8 % it would begin far below nothing."""
    run = begin("drafts/card", {"scale": "cpu", "record": str(tmp_path / "record.json")})
    trainings = [card_of(LOGITS, LABELS, outside=OTHERS), card_of(9 * np.eye(4)[LABELS], LABELS, outside=OTHERS)]
    scores = reliability_card({"a": trainings}, over="training", draws=20)
    assert (cells(scores)["low"] < 0).any()
    assert (cells(scores)["high"] > 1).any()
    show_card(run, {"a": trainings}, place="toy", draws=20)
    run.done()
    kept = json.loads((tmp_path / "record.json").read_text())["results"]
    ends = [(r["quantity"], r["low"], r["high"]) for r in kept if r["quantity"] != "card_cost" and r["low"] is not None]
    assert len(ends) > 8
    assert all(low >= 0 and (high <= 1 or name in ("card_nll", "card_brier")) for name, low, high in ends)
