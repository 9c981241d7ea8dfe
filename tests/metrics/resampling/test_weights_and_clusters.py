"""Weights, clusters, groups, ignored labels and other shapes: against repeated rows, row by row, and scikit-learn."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics as peer

from uqlib import metrics as m
from uqlib.metrics.classification import average

RNG = np.random.default_rng(0)
N = 240
SCORE = RNG.random(N).round(2)
RIGHT = RNG.random(N) < SCORE
PROBS = RNG.dirichlet(np.ones(4), N)
LABELS = RNG.integers(0, 4, N)
PREDS = PROBS.argmax(1)
LOSS = RNG.random(N)
COUNTS = RNG.integers(0, 4, N)
HEAVY = RNG.random(N) * (RNG.random(N) < 0.8)
PATIENT = np.array([f"patient {k}" for k in RNG.integers(0, 40, N)])
PAIR, CLASSES = (SCORE, RIGHT), (PREDS, LABELS)
EVERY = {
    **{each.__name__: (each, PAIR) for each in (m.aurc, m.augrc, m.e_aurc, m.aurc_of_trapezoids, m.auroc, m.aupr)},
    **{each.__name__: (each, PAIR) for each in (m.r_precision, m.fpr_at_tpr, m.smooth_ece, m.ece, m.signed_ece)},
    "aupr of the wrong": (partial(m.correctness_aupr, positive="wrong"), PAIR),
    "coverage at risk": (partial(m.coverage_at_risk, risk=0.2), PAIR),
    "risk at coverage": (partial(m.risk_at_coverage, coverage=0.7), PAIR),
    "SAC": (partial(m.selective_accuracy_coverage, accuracy=0.8), PAIR),
    "accuracy at coverage": (partial(m.selective_accuracy_at_coverage, coverage=0.5), PAIR),
    "ece by mass": (partial(m.ece, by="mass", bins=7), PAIR),
    "signed by mass": (partial(m.signed_ece, by="mass"), PAIR),
    "rms": (m.rms_calibration_error, PAIR),
    "classwise": (m.classwise_ece, (PROBS, LABELS)),
    "miscalibration": (m.miscalibration, PAIR),
    "discrimination of the log score": (partial(m.discrimination, score="log"), PAIR),
    "accuracy": (m.accuracy, CLASSES),
    "macro F1": (m.macro_f1, CLASSES),
    "nll": (m.nll, (np.log(PROBS), LABELS)),
    "nll, two ignored": (partial(m.nll, ignore=2), (np.log(PROBS), LABELS)),
    "brier": (m.brier, (PROBS, LABELS)),
    "top 2": (partial(m.top_k_accuracy, k=2), (PROBS, LABELS)),
    "average": (average, (LOSS,)),
    "aurc of losses": (m.of_losses(m.aurc), (SCORE, LOSS)),
    "augrc of losses": (m.of_losses(m.augrc), (SCORE, LOSS)),
    "loss at coverage": (m.of_losses(m.risk_at_coverage, coverage=0.6), (SCORE, LOSS)),
}


def seeded():
    return torch.Generator().manual_seed(3)


@pytest.fixture(params=EVERY)
def statistic_and_arrays(request):
    return EVERY[request.param]


def test_a_whole_weight_is_that_many_equal_rows(statistic_and_arrays):
    statistic, arrays = statistic_and_arrays
    repeated = [np.repeat(array, COUNTS, axis=0) for array in arrays]
    assert statistic(*arrays, weights=COUNTS) == pytest.approx(statistic(*repeated), rel=1e-10, abs=1e-12)


def test_the_scale_of_other_weights_says_nothing(statistic_and_arrays):
    statistic, arrays = statistic_and_arrays
    value = statistic(*arrays, weights=HEAVY)
    assert statistic(*arrays, weights=0.003 * HEAVY) == pytest.approx(value, rel=1e-10, abs=1e-12)
    assert statistic(*arrays, weights=np.full(N, 0.1)) == pytest.approx(statistic(*arrays), rel=1e-12, abs=1e-14)
    assert value != statistic(*arrays)
    order = np.random.default_rng(1).permutation(N)
    mixed = statistic(*(array[order] for array in arrays), weights=HEAVY[order])
    assert mixed == pytest.approx(value, rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("options", [{"weights": HEAVY}, {"weights": COUNTS}, {"cluster": PATIENT}], ids=list)
def test_counting_a_draw_is_calling_the_statistic_on_it(statistic_and_arrays, options):
    statistic, arrays = statistic_and_arrays
    for more in ({}, {"cluster": PATIENT}):
        fast = m.resample(statistic, *arrays, draws=5, generator=seeded(), **options | more)
        slow = m.resample(lambda *x, **w: statistic(*x, **w), *arrays, draws=5, generator=seeded(), **options | more)
        np.testing.assert_allclose(fast, slow, rtol=1e-9, atol=1e-11)


def test_weights_agree_with_scikit_learn():
    assert m.auroc(*PAIR, weights=HEAVY) == pytest.approx(peer.roc_auc_score(RIGHT, SCORE, sample_weight=HEAVY))
    assert m.aupr(*PAIR, weights=HEAVY) == pytest.approx(
        peer.average_precision_score(RIGHT, SCORE, sample_weight=HEAVY)
    )
    assert m.nll(np.log(PROBS), LABELS, weights=HEAVY) == pytest.approx(
        peer.log_loss(LABELS, PROBS, sample_weight=HEAVY)
    )
    assert m.macro_f1(*CLASSES, weights=HEAVY) == pytest.approx(
        peer.f1_score(LABELS, PREDS, average="macro", sample_weight=HEAVY)
    )
    assert m.accuracy(*CLASSES, weights=m.balancing_weights(LABELS)) == pytest.approx(
        peer.balanced_accuracy_score(LABELS, PREDS)
    )
    errors = m.classwise_error(*CLASSES, 4, weights=HEAVY)
    np.testing.assert_allclose(1 - errors, peer.recall_score(LABELS, PREDS, average=None, sample_weight=HEAVY))
    clear = PROBS + 1e-9 * np.arange(4)  # no ties
    assert m.top_k_accuracy(clear, LABELS, k=2) == pytest.approx(peer.top_k_accuracy_score(LABELS, clear, k=2))


def test_batches_of_whole_weights_add_up():
    parts = [(SCORE[k], RIGHT[k], COUNTS[k]) for k in (slice(0, 99), slice(99, None))]
    merged = m.merge_rankings(*(m.rank(*pair, weights=each) for *pair, each in parts))
    assert m.aurc(merged) == pytest.approx(m.aurc(*PAIR, weights=COUNTS), rel=1e-12)
    bins = sum(m.bin_by_width(*pair, weights=each) for *pair, each in parts)
    assert m.ece(bins) == pytest.approx(m.ece(*PAIR, weights=COUNTS), rel=1e-12)


@pytest.mark.parametrize("scale", [1e-300, 1e150, 1e200, 1e300])
def test_weights_of_any_size_have_a_value(statistic_and_arrays, scale):
    statistic, arrays = statistic_and_arrays
    value = statistic(*arrays, weights=HEAVY)
    assert statistic(*arrays, weights=scale * HEAVY) == pytest.approx(value, rel=1e-9, abs=1e-12)


NA = [PATIENT[0], pd.NA, *PATIENT[2:]]


@pytest.mark.parametrize(
    ("column", "row"),
    [
        (np.ma.array(PATIENT, mask=np.arange(N) == 1), "row 1 is masked"),
        ([PATIENT[0], float("nan"), *PATIENT[2:]], "row 1 is nan"),
        (NA, "row 1 is <NA>"),
        (pd.Series(NA, dtype="string"), "row 1 is <NA>"),
        (pd.Series(NA).astype("category"), "row 1 is nan"),
    ],
    ids=["masked", "list with NaN", "list with NA", "strings", "category"],
)
def test_a_missing_name_is_no_group(unchecked, column, row):
    for call in (
        lambda: m.groupwise(m.accuracy, *CLASSES, groups=column),
        lambda: m.interval(m.accuracy, *CLASSES, cluster=column),
    ):
        with pytest.raises(ValueError, match=f"must have no missing entries; {row}. Drop that row everywhere"):
            call()


def test_a_number_and_its_text_are_not_one_group():
    with pytest.raises(TypeError, match="groups must be of one type, all numbers or all strings"):
        m.groupwise(m.accuracy, [0, 1], [0, 0], groups=[1, "1"])


def test_tasks_take_weights():
    repeated = [np.repeat(array, COUNTS) for array in PAIR]
    assert m.misclassified(*PAIR, weights=COUNTS) == pytest.approx(m.misclassified(*repeated))
    assert m.mislabelled(*PAIR, weights=COUNTS) == pytest.approx(m.mislabelled(*repeated))


def test_losses_of_zero_and_one_are_errors_and_real_ones_are_averaged():
    assert m.aurc(m.rank_losses(SCORE, ~RIGHT)) == m.aurc(*PAIR)
    assert m.augrc(m.rank_losses(SCORE, 1.0 * ~RIGHT)) == m.augrc(*PAIR)
    order = np.argsort(-LOSS, kind="stable")  # without ties: the plain mean of means
    risks = np.cumsum(LOSS[order]) / np.arange(1, N + 1)
    assert m.aurc(m.rank_losses(LOSS, LOSS)) == pytest.approx(risks.mean(), rel=1e-12)
    np.testing.assert_allclose(m.selective_risks(m.rank_losses(LOSS, LOSS)), risks)
    assert m.risk_at_coverage(m.rank_losses(LOSS, LOSS), coverage=0.5) == pytest.approx(risks[N // 2 - 1])
    curve = m.risk_coverage_curve(m.rank_losses(LOSS, LOSS))
    np.testing.assert_allclose(curve.risk, risks)
    halves = m.rank_losses(SCORE[:99], LOSS[:99]), m.rank_losses(SCORE[99:], LOSS[99:])
    assert m.aurc(m.merge_rankings(*halves)) == pytest.approx(m.aurc(m.rank_losses(SCORE, LOSS)), rel=1e-12)


@pytest.mark.parametrize("metric", [m.auroc, m.e_aurc, m.aupr, m.fpr_at_tpr])
def test_what_asks_for_right_and_wrong_refuses_losses(metric):
    with pytest.raises(TypeError, match="losses of any size"):
        metric(m.rank_losses(SCORE, LOSS))


def test_whole_clusters_are_drawn():
    """Of two clusters a draw has one twice, or both; of clusters of one row it is the plain bootstrap of these rows."""
    values, cluster = np.array([1.0, 2.0, 6.0]), np.array(["a", "b", "b"])
    drawn = m.resample(average, values, cluster=cluster, draws=400, generator=seeded())
    shares = {each: round(float((drawn == each).double().mean()), 1) for each in drawn.unique().tolist()}
    assert shares == {
        1.0: pytest.approx(0.25, abs=0.1),
        3.0: pytest.approx(0.5, abs=0.1),
        4.0: pytest.approx(0.25, abs=0.1),
    }
    alone = m.resample(m.aurc, *PAIR, cluster=np.arange(N), draws=9, generator=seeded())
    assert alone.equal(m.resample(m.aurc, *PAIR, draws=9, generator=seeded()))


def test_clusters_widen_the_interval_of_what_repeats():
    """Five copies of each example say no more than one of it, by the formula of a mean."""
    values = np.repeat(LOSS, 5)
    found = m.interval(average, values, cluster=np.repeat(np.arange(N), 5), draws=2000, generator=seeded())
    width = 2 * 1.96 * LOSS.std() / np.sqrt(N)
    assert found.high - found.low == pytest.approx(width, rel=0.06)
    apart = m.interval(average, values, draws=2000, generator=seeded())
    assert apart.high - apart.low == pytest.approx(width / np.sqrt(5), rel=0.06)


def test_strata_are_kept_by_clusters():
    hospital = np.arange(N) // 3 % 2  # of clusters of three rows
    drawn = m.resample(
        lambda which: float(which.sum()), hospital, cluster=np.arange(N) // 3, stratify=hospital, draws=20
    )
    assert set(drawn.tolist()) == {float(hospital.sum())}
    with pytest.raises(ValueError, match="stratify must be one for all rows of a cluster"):
        m.interval(m.aurc, *PAIR, cluster=np.arange(N) // 3, stratify=np.arange(N) % 2)


def test_groups_have_their_own_values_and_intervals(unchecked):
    place = pd.Series(np.where(np.arange(N) % 3, "day", "night"))
    found = m.groupwise(m.aurc, *PAIR, groups=place, weights=HEAVY)
    night = np.arange(N) % 3 == 0
    assert found == {
        "day": m.aurc(SCORE[~night], RIGHT[~night], weights=HEAVY[~night]),
        "night": m.aurc(SCORE[night], RIGHT[night], weights=HEAVY[night]),
    }
    options = {"draws": 30, "cluster": PATIENT}
    intervals = m.groupwise_intervals(m.aurc, *PAIR, groups=place, generator=seeded(), **options)
    first = m.interval(m.aurc, SCORE[~night], RIGHT[~night], generator=seeded(), draws=30, cluster=PATIENT[~night])
    assert intervals["day"] == first
    with pytest.raises(ValueError, match=r"group 1: auroc needs both classes"):
        m.groupwise(m.auroc, [0.1, 0.2, 0.3], [1, 0, 1], groups=[0, 0, 1])


def test_ignored_labels_are_not_there():
    marked = np.where(np.arange(N) % 5, LABELS, 255)
    kept = marked != 255
    for metric, first in ((m.accuracy, PREDS), (m.nll, np.log(PROBS)), (m.brier, PROBS), (m.macro_f1, PREDS)):
        assert metric(first, marked, ignore=255) == metric(first[kept], LABELS[kept])
    assert m.classwise_ece(PROBS, marked, ignore=255) == m.classwise_ece(PROBS[kept], LABELS[kept])
    with pytest.raises(ValueError, match="every one of the 2 labels is -100"):
        m.accuracy([0, 1], [-100, -100], ignore=-100)


def test_dense_binary_and_multilabel_outputs_become_rows():
    logits, labels = RNG.normal(size=(2, 3, 4, 5)), RNG.integers(0, 3, (2, 4, 5))
    labels[0, 1] = 255
    rows = m.flatten(logits, labels, "dense", ignore=255)
    assert rows.outputs.shape == (35, 3)
    for row in range(35):
        image, (down, right) = rows.source[row], divmod(rows.place[row], 5)
        np.testing.assert_array_equal(rows.outputs[row], logits[image, :, down, right])
        assert rows.labels[row] == labels[image, down, right]
    binary = m.flatten(SCORE, RIGHT, "binary")
    assert m.brier(binary.outputs, binary.labels) == pytest.approx(2 * peer.brier_score_loss(RIGHT, SCORE))
    z = RNG.normal(size=(N, 1))
    of_logits = m.flatten(z, RIGHT, "binary", logits=True)
    assert m.nll(of_logits.outputs, of_logits.labels) == pytest.approx(peer.log_loss(RIGHT, 1 / (1 + np.exp(-z[:, 0]))))
    many = m.flatten(PROBS, np.eye(4, dtype=bool)[LABELS], "multilabel")
    assert (many.source[5], many.place[5], many.labels.sum()) == (1, 1, N)
    per_label = m.groupwise(m.auroc, many.outputs[:, 1], many.labels, groups=many.place)
    assert per_label[2] == pytest.approx(peer.roc_auc_score(LABELS == 2, PROBS[:, 2]))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: m.aurc(*PAIR, weights=-HEAVY), ValueError, "weights must be 0 or larger; row"),
        (lambda: m.ece(*PAIR, weights=0 * HEAVY), ValueError, "weights must not all be 0"),
        (lambda: m.aurc(*PAIR, weights=HEAVY[:9]), ValueError, "weights has 9 rows where 240"),
        (lambda: m.aurc(m.rank(*PAIR), weights=HEAVY), TypeError, r"pass them to rank\(\)"),
        (lambda: m.ece(m.bin_by_width(*PAIR), weights=HEAVY), ValueError, "weights are known to the Bins"),
        (lambda: m.debiased_ece(*PAIR, weights=HEAVY), ValueError, "whole numbers"),
        (lambda: m.selective_risks(m.rank(*PAIR, weights=HEAVY)), TypeError, "risk_coverage_curve"),
        (lambda: m.interval(lambda a: a.sum(), LOSS, weights=HEAVY), TypeError, "no parameter `weights`"),
        (lambda: m.interval(partial(m.nll, weights=HEAVY), PROBS - 1, LABELS), TypeError, "pass them to the interval"),
        (lambda: m.interval(m.aurc, *PAIR, cluster=np.zeros(N)), ValueError, "at least two clusters"),
        (lambda: m.interval(m.aurc, *PAIR, cluster=[None] * N), ValueError, "cluster must have no missing"),
        (lambda: m.resample(m.aurc, *PAIR, cluster=PATIENT, groups=2), ValueError, "not both"),
        (lambda: m.flatten(SCORE - 1, RIGHT, "binary"), ValueError, "Logits[?] Pass logits=True"),
        (lambda: m.flatten(SCORE, RIGHT[:3], "binary"), ValueError, r"both have shape \(n,\)"),
        (lambda: m.flatten(PROBS, LABELS, "dense"), ValueError, r"shape \(n, c, ...\)"),
        (lambda: m.flatten(PROBS, LABELS, "table"), ValueError, "unknown kind 'table'; choose from binary"),
        (lambda: m.of_losses(m.auroc), ValueError, "metric must be one of aurc"),
        (lambda: m.groupwise(m.aurc, groups=[1]), TypeError, "arrays are missing"),
        (lambda: m.top_k_accuracy(PROBS, LABELS, k=5), ValueError, "k must be"),
        (lambda: m.merge_rankings(m.rank(*PAIR), m.rank_losses(*PAIR)), TypeError, "of one kind"),
        (
            lambda: m.merge_rankings(m.rank(*PAIR), m.rank(*PAIR, weights=HEAVY)),
            ValueError,
            r"rankings\[1\] must have whole weights; .* rank all rows at once",
        ),
        (
            lambda: m.bin_by_width(*PAIR) + m.bin_by_width(*PAIR, weights=HEAVY),
            ValueError,
            "the second bins must have whole weights; .* bin all rows at once",
        ),
    ],
)
def test_what_is_handed_over_wrongly_is_told(call, error, message):
    with pytest.raises(error, match=message):
        call()
