"""One call that judges a classifier: its numbers are the metrics', its differences paired, its groups their own."""

import re

import numpy as np
import pytest
import torch

from uqlib import calibrate, metrics
from uqlib.report import one_call, report

RNG = np.random.default_rng(0)
N = 400
LABELS = RNG.integers(0, 6, N)
LOGITS = 3 * RNG.normal(size=(N, 6)) + 5 * np.eye(6)[LABELS]
OTHER = LOGITS + 2 * RNG.normal(size=(N, 6))
PATIENT = np.array([f"p{k}" for k in np.arange(N) // 4])
PLACE = np.where(np.arange(N) % 3, "north", "south")


def softmax(z):
    return torch.as_tensor(z).softmax(-1).numpy()


def value(found, measure, kind="raw", model="this", group=None):
    rows = found.frame
    rows = rows[(rows["measure"] == measure) & (rows["probabilities"] == kind) & (rows["model"] == model)]
    rows = rows[rows["group"].isna()] if group is None else rows[rows["group"] == group]
    (row,) = rows.itertuples()
    return row


@pytest.fixture(scope="module")
def whole():
    return report(LOGITS, LABELS, compare=OTHER, groups=PLACE, cluster=PATIENT, draws=50)


def test_the_numbers_are_those_of_the_metrics(whole):
    probs = softmax(LOGITS)
    confidence, correct = probs.max(1), probs.argmax(1) == LABELS
    assert value(whole, "accuracy").value == pytest.approx(correct.mean())
    assert value(whole, "NLL").value == pytest.approx(metrics.nll(LOGITS, LABELS))
    assert value(whole, "Brier score").value == pytest.approx(metrics.brier(probs, LABELS))
    assert value(whole, "top-5 accuracy").value == pytest.approx(metrics.top_k_accuracy(LOGITS, LABELS))
    assert value(whole, "coverage, 5 % risk").value == metrics.coverage_at_risk(confidence, correct, risk=0.05)
    for name, metric in (("ECE", metrics.ece), ("AURC", metrics.aurc), ("AUROC", metrics.correctness_auroc)):
        assert value(whole, name).value == metric(confidence, correct)
    parts = [value(whole, f"  {name}").value for name in ("miscalibration", "discrimination", "uncertainty")]
    assert parts[0] - parts[1] + parts[2] == pytest.approx(value(whole, "Brier of confidence").value, abs=1e-12)
    numbers = np.unique(PATIENT, return_inverse=True)[1]
    cross = calibrate.cross_calibrate("temperature", LOGITS, LABELS, cluster=numbers)
    assert value(whole, "Brier score", "calibrated").value == pytest.approx(metrics.brier(cross, LABELS))


def test_its_intervals_are_those_of_whole_clusters(whole):
    probs = softmax(LOGITS)
    pair = probs.max(1), probs.argmax(1) == LABELS
    seed = torch.Generator().manual_seed(0)
    one = metrics.interval(metrics.aurc, *pair, cluster=PATIENT, draws=50, generator=seed)
    row = value(whole, "AURC")
    assert (row.low, row.high) == pytest.approx((one.low, one.high))
    other = softmax(OTHER)
    apart = metrics.paired_difference(
        metrics.aurc, pair, (other.max(1), other.argmax(1) == LABELS), cluster=PATIENT, draws=50,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    row = value(whole, "AURC", model="this - other")
    assert (row.value, row.low, row.high) == pytest.approx(apart[:3])


def test_groups_are_judged_alone_and_the_worst_is_told(whole):
    south = PLACE == "south"
    probs = softmax(LOGITS)[south]
    row = value(whole, "accuracy", group="south")
    assert row.value == pytest.approx((probs.argmax(1) == LABELS[south]).mean())
    worst = whole.worst.set_index("measure")
    by_group = {place: value(whole, "NLL", group=place).value for place in ("north", "south")}
    assert worst.loc["NLL", "group"] == max(by_group, key=by_group.get)
    accuracies = {place: value(whole, "accuracy", group=place).value for place in ("north", "south")}
    assert worst.loc["accuracy", "group"] == min(accuracies, key=accuracies.get)
    assert list(whole.groups.index) == ["north", "south"]


def test_it_prints_as_text_and_as_html_and_is_a_frame(whole):
    text = str(whole)
    assert text.startswith("400 examples, 6 classes; intervals of 95 % from 50 draws of 100 clusters\n")
    assert re.search(r"accuracy +↑ +0\.\d{4} \[0\.\d{4}, 0\.\d{4}\]", text)
    assert "raw, less the other" in text
    assert "<table" in whole._repr_html_()
    assert whole.query("measure == 'ECE'").shape[0] == len(whole[whole["measure"] == "ECE"])
    assert len(whole) == len(whole.frame)


def test_probabilities_and_logits_are_the_same_and_the_same_call_gives_the_same_bits():
    first, second = (report(x, LABELS, draws=20, temperature=1.5).frame for x in (LOGITS, softmax(LOGITS)))
    np.testing.assert_allclose(first["value"], second["value"], rtol=1e-9, atol=1e-12)
    assert first.equals(report(LOGITS, LABELS, draws=20, temperature=1.5).frame)
    scaled = metrics.nll(LOGITS / 1.5, LABELS)
    assert value(report(LOGITS, LABELS, draws=2, temperature=1.5), "NLL", "calibrated").value == pytest.approx(scaled)


def test_weights_and_ignored_labels_count_as_the_metrics_count_them():
    weights, marked = RNG.random(N), np.where(np.arange(N) % 7, LABELS, 255)
    found = report(LOGITS, marked, weights=weights, ignore=255, draws=5, temperature=None)
    kept = marked != 255
    expected = metrics.nll(LOGITS[kept], LABELS[kept], weights=weights[kept])
    assert value(found, "NLL").value == pytest.approx(expected)
    probs = softmax(LOGITS)[kept]
    pair = probs.max(1), probs.argmax(1) == LABELS[kept]
    parts = metrics.score_parts(*pair, weights=weights[kept])
    assert value(found, "  miscalibration").value == pytest.approx(parts.miscalibration)


def test_a_row_of_weight_zero_counts_as_one_that_is_not_there():
    right = LOGITS.argmax(1) == LABELS
    found = report(LOGITS, LABELS, weights=right.astype(float), groups=PLACE, draws=5, temperature=None)
    alone = report(
        LOGITS[right], LABELS[right], weights=np.ones(right.sum()), groups=PLACE[right], draws=5, temperature=None
    )
    assert found.frame.equals(alone.frame)
    assert np.isnan(value(found, "AUROC").value)


def test_the_nll_of_sure_mistakes_is_that_of_the_logits():
    found = report(1000 * LOGITS, LABELS, temperature=500, draws=2)
    assert value(found, "NLL").value == pytest.approx(metrics.nll(1000 * LOGITS, LABELS), rel=1e-12)
    assert value(found, "NLL", "calibrated").value == pytest.approx(metrics.nll(2 * LOGITS, LABELS), rel=1e-12)


def test_a_report_is_asked_as_its_frame_is(whole):
    assert list(whole) == list(whole.frame)
    assert "value" in whole
    assert "nothing" not in whole


def test_intervals_of_few_draws_are_those_of_interval_and_one_draw_or_row_has_none():
    probs = softmax(LOGITS)
    pair = probs.max(1), probs.argmax(1) == LABELS
    few = metrics.interval(metrics.aurc, *pair, draws=10, generator=torch.Generator().manual_seed(0))
    row = value(report(LOGITS, LABELS, draws=10, temperature=None), "AURC")
    assert (row.low, row.high) == pytest.approx((few.low, few.high))
    assert report(LOGITS, LABELS, draws=1, temperature=None)[["low", "high"]].isna().all(axis=None)
    alone = report(LOGITS, LABELS, groups=np.arange(N) > 0, draws=50, temperature=None)
    assert np.isnan(value(alone, "accuracy", group=False).low)
    assert np.isfinite(value(alone, "accuracy", group=True).low)


def test_a_second_model_of_other_rows_is_refused_beside_weights_and_ignored_labels():
    for options in ({"weights": np.arange(N)}, {"ignore": 0}):
        with pytest.raises(ValueError, match=r"compare must have the shape of outputs, \(400, 6\); it is \(300, 6\)"):
            report(LOGITS, LABELS, compare=OTHER[:300], **options)


def test_a_group_whose_labels_are_all_ignored_is_left_out():
    marked = np.where(PLACE == "south", 255, LABELS)
    found = report(LOGITS, marked, groups=PLACE, ignore=255, draws=2, temperature=None)
    assert set(found["group"].dropna()) == {"north"}


def test_what_is_not_defined_is_said():
    found = report(9 * np.eye(6)[LABELS], LABELS, draws=5, temperature=None)
    assert np.isnan(value(found, "AUROC").value)
    assert "not defined" in str(found)
    with pytest.raises(ValueError, match="pass temperature=None"):
        report(9 * np.eye(6)[LABELS], LABELS, draws=5)


def test_a_long_bootstrap_says_so_first_and_offers_fewer_draws(monkeypatch):
    monkeypatch.setattr(one_call, "PATIENCE", 1e-6)
    many = np.tile(LOGITS, (30, 1)), np.tile(LABELS, 30)
    with pytest.warns(UserWarning, match=r"400 draws take about .* minutes here; draws=100 would take"):
        report(*many, draws=400, temperature=None)


def test_the_figure_has_three_panels_with_bands():
    figure = report(LOGITS, LABELS, draws=5).plot()
    assert [ax.get_xlabel().split()[0] for ax in figure.axes] == ["confidence", "coverage", "confidence"]
    assert len(figure.axes[0].collections) >= 2
    plain = report(LOGITS, LABELS, draws=5, cluster=PATIENT).plot()
    assert plain.axes[2].patches


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"compare": OTHER[:, :5]}, ValueError, "compare must have the shape of outputs"),
        ({"groups": PLACE[:5]}, ValueError, "groups has 5 rows where 400"),
        ({"temperature": "best"}, ValueError, "temperature must be 'cross', a number or None"),
        ({"temperature": -1.0}, ValueError, "temperature"),
        ({"risk": 5}, ValueError, "risk must lie in"),
        ({"draws": 0}, ValueError, "draws must be"),
    ],
)
def test_what_is_handed_over_wrongly_is_named_by_report(options, error, message):
    with pytest.raises(error, match=message):
        report(LOGITS, LABELS, **options)
