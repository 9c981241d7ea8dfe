import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uqlib.metrics.bins import BINNINGS, Bins, bin_by_mass, bin_by_width
from uqlib.metrics.calibration import (
    classwise_ece,
    debiased_ece,
    ece,
    reliability_curve,
    rms_calibration_error,
    smooth_ece,
)

ROWS = st.lists(
    st.tuples(st.floats(0, 1, width=32) | st.sampled_from([0.0, 0.25, 0.5, 1.0]), st.booleans()),
    min_size=1,
    max_size=40,
)


def sample(n, seed=0, power=1.0):
    generator = torch.Generator().manual_seed(seed)
    confidence = torch.rand(n, generator=generator)
    return confidence, torch.rand(n, generator=generator) < confidence**power


def exact_bins(confidence, correct, bins):
    """(lo, hi] with rational edges, one row at a time; 0 joins the first bin."""
    totals = [[0, Fraction(0), 0] for _ in range(bins)]
    for value, hit in zip(confidence, correct, strict=True):
        k = max(0, math.ceil(Fraction(float(value)) * bins) - 1)
        totals[k] = [totals[k][0] + 1, totals[k][1] + Fraction(float(value)), totals[k][2] + int(hit)]
    return totals


@given(ROWS, st.integers(1, 50))
def test_bins_of_equal_width_match_rational_arithmetic(rows, bins):
    confidence, correct = zip(*rows, strict=True)
    found = bin_by_width(torch.tensor(confidence, dtype=torch.float32), torch.tensor(correct), bins=bins)
    expected = exact_bins(confidence, correct, bins)
    assert found.count.tolist() == [row[0] for row in expected]
    assert found.correct.tolist() == [row[2] for row in expected]
    assert found.confidence.tolist() == pytest.approx([float(row[1]) for row in expected], rel=1e-15)


@pytest.mark.parametrize("bins", [1, 7, 15, 49, 100])
def test_an_edge_belongs_to_the_bin_below_it(bins):
    edges = np.arange(bins + 1) / bins
    assert bin_by_width(edges, np.ones(bins + 1), bins=bins).count.tolist() == [2] + [1] * (bins - 1)
    above = np.nextafter(edges[:-1], 1)
    assert bin_by_width(above, np.ones(bins), bins=bins).count.tolist() == [1] * bins


def test_a_float32_edge_is_judged_by_its_own_value():
    # float32(0.2) = 0.20000000298..., above 3/15; float32(0.8) = 0.800000011..., above 12/15; 0.6f lies above 9/15
    # too, and 0.4f above 6/15. Exact halves and the ends lie on their edges.
    values = torch.tensor([0.2, 0.8, 0.6, 0.4, 0.0, 1.0])
    index = [int(bin_by_width(value[None], [True]).count.nonzero()) for value in values]
    assert index == [3, 12, 9, 6, 0, 14]
    assert int(bin_by_width(torch.tensor([0.5]), [True], bins=2).count.nonzero()) == 0


def test_ece_by_hand():
    confidence, correct = [0.1, 0.2, 0.9, 0.7], [False, True, True, False]
    # two bins: |0.3 - 1| and |1.6 - 1|, over 4; gaps 0.35 and 0.3
    assert ece(confidence, correct, bins=2) == pytest.approx((0.7 + 0.6) / 4, rel=1e-6)
    assert ece(confidence, correct, bins=2, norm="l2") == pytest.approx(math.sqrt((0.35**2 + 0.3**2) / 2), rel=1e-6)
    assert ece(confidence, correct, bins=2, norm="max") == pytest.approx(0.35, rel=1e-6)


@given(ROWS, st.integers(1, 20))
def test_bins_of_equal_mass_match_their_definition(rows, bins):
    confidence, correct = (np.array(column) for column in zip(*rows, strict=True))
    ordered = sorted(confidence)
    upper = [ordered[math.ceil(k * len(rows) / bins) - 1] for k in range(1, bins + 1)]
    found = bin_by_mass(confidence, correct, bins=bins)
    lower = [-1.0, *upper[:-1]]
    inside = [(confidence > lo) & (confidence <= hi) for lo, hi in zip(lower, upper, strict=True)]
    assert found.count.tolist() == [mask.sum() for mask in inside]
    assert found.correct.tolist() == [correct[mask].sum() for mask in inside]
    assert found.confidence.tolist() == pytest.approx([confidence[mask].sum() for mask in inside], rel=1e-14)


def test_equal_mass_without_ties_is_equal():
    confidence, correct = sample(1000)
    assert set(bin_by_mass(confidence.double(), correct, bins=7).count.tolist()) <= {142, 143}


@pytest.mark.parametrize("by", BINNINGS)
@given(rows=ROWS, data=st.data())
@settings(max_examples=30)
def test_the_order_of_the_rows_never_matters(by, rows, data):
    shuffled = data.draw(st.permutations(rows))
    values = [ece(*map(np.array, zip(*some, strict=True)), by=by) for some in (rows, shuffled)]
    assert values[0] == pytest.approx(values[1], abs=1e-14)


def test_every_dtype_agrees_on_halves():
    confidence, correct = torch.tensor([0.25, 0.5, 0.75, 1.0, 0.0]), torch.tensor([1, 0, 1, 1, 0])
    for by in BINNINGS:
        values = {ece(confidence.to(t), correct, by=by) for t in (torch.float16, torch.bfloat16, torch.float64)}
        assert values == {ece(confidence, correct, by=by)}


def test_the_sum_is_exact_at_size():
    confidence, correct = sample(300_000, power=1.3)
    index = np.ceil(confidence.double().numpy() * 15).astype(int) - 1
    gaps = [
        math.fsum(confidence.double().numpy()[index == k]) - int(correct.numpy()[index == k].sum()) for k in range(15)
    ]
    assert ece(confidence, correct) == pytest.approx(math.fsum(map(abs, gaps)) / 300_000, abs=1e-15)


@pytest.mark.slow
def test_the_sum_is_exact_at_1e8():
    confidence, correct = sample(10**8)
    found = bin_by_width(confidence, correct)
    for k in (0, 7, 14):
        inside = (confidence.double() * 15).ceil() == k + 1
        assert found.confidence[k].item() == pytest.approx(math.fsum(confidence[inside].tolist()), rel=1e-12)


def test_batches_add_up_to_the_whole():
    confidence, correct = sample(5000)
    parts = [bin_by_width(*part) for part in zip(confidence.split(777), correct.split(777), strict=True)]
    total, whole = sum(parts), bin_by_width(confidence, correct)
    assert torch.equal(total.count, whole.count)
    assert torch.equal(total.correct, whole.correct)
    torch.testing.assert_close(total.confidence, whole.confidence, rtol=1e-14, atol=0)
    assert ece(total) == pytest.approx(ece(confidence, correct), abs=1e-14)
    assert debiased_ece(total, by="width") == pytest.approx(debiased_ece(confidence, correct, by="width"), abs=1e-14)


def test_bins_with_other_edges_do_not_add():
    confidence, correct = sample(100)
    with pytest.raises(ValueError, match=r"different edges \(15 and 10 bins\)"):
        bin_by_width(confidence, correct) + bin_by_width(confidence, correct, bins=10)
    with pytest.raises(ValueError, match="quantiles of two samples do not add"):
        bin_by_mass(confidence, correct) + bin_by_mass(confidence[:50], correct[:50])
    with pytest.raises(TypeError):
        bin_by_width(confidence, correct) + 1


def test_rms_is_the_l2_norm():
    confidence, correct = sample(500)
    assert rms_calibration_error(confidence, correct) == ece(confidence, correct, by="mass", norm="l2")


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_the_debiased_square_has_the_right_mean(p):
    # five examples of confidence 0.6 that are right with probability p: the mean over all outcomes, in closed form
    outcomes = [(math.comb(5, k) * p**k * (1 - p) ** (5 - k), [True] * k + [False] * (5 - k)) for k in range(6)]
    mean = sum(weight * debiased_ece([0.6] * 5, hits) for weight, hits in outcomes)
    assert mean == pytest.approx((0.6 - p) ** 2, abs=1e-7)
    plug_in = sum(weight * ece([0.6] * 5, hits, norm="l2") ** 2 for weight, hits in outcomes)
    assert plug_in == pytest.approx((0.6 - p) ** 2 + p * (1 - p) / 5, abs=1e-7)


def test_a_bin_of_one_example_counts_as_zero():
    assert debiased_ece(np.array([0.1, 0.9, 0.9]), [True, True, True], bins=2, by="width") == pytest.approx(
        2 / 3 * 0.1**2
    )


def test_classwise_is_the_mean_over_classes():
    generator = torch.Generator().manual_seed(0)
    probs = torch.randn(400, 3, generator=generator, dtype=torch.float64).softmax(-1)
    labels = torch.multinomial(probs, 1, generator=generator)[:, 0]
    errors = []
    for j in range(3):
        index = np.ceil(probs[:, j].numpy() * 15)
        hits = (labels == j).numpy()
        errors += [abs(probs[:, j].numpy()[index == k].sum() - hits[index == k].sum()) / 400 for k in range(1, 16)]
    assert classwise_ece(probs, labels) == pytest.approx(sum(errors) / 3, abs=1e-14)
    assert classwise_ece(probs, labels, by="mass") != classwise_ece(probs, labels)


def direct_smooth_ece(confidence, correct, points=700, images=2):
    """The definition, by brute force: every residual, its mirror images, a midpoint rule, and bisection."""
    residual = correct.astype(float) - confidence
    at = (np.arange(points) + 0.5) / points

    def smoothed(width):
        total = np.zeros(points)
        for k in range(-images, images + 1):
            for centre in (2 * k + confidence, 2 * k - confidence):
                total += np.exp(-(((at[:, None] - centre) / width) ** 2) / 2) @ residual
        return np.abs(total / (width * math.sqrt(2 * math.pi)) / len(confidence)).mean()

    low, high = 1e-4, 0.6
    for _ in range(30):
        width = (low + high) / 2
        low, high = (width, high) if smoothed(width) > width else (low, width)
    return low


@pytest.mark.parametrize(("n", "power"), [(5, 1.0), (40, 2.0), (300, 0.3), (300, 1.0)])
def test_smooth_ece_matches_its_definition(n, power):
    confidence, correct = (x.numpy() for x in sample(n, seed=n, power=power))
    expected = direct_smooth_ece(confidence.astype(float), correct)
    # the midpoint rule is the coarser of the two: (1/700)² against widths of some percent
    assert smooth_ece(confidence, correct) == pytest.approx(expected, rel=2e-4)


def test_smooth_ece_of_residuals_of_one_sign_is_the_gap():
    # one value of confidence, residuals of one sign: smoothing keeps the mass, so the area is |gap| for every width
    confidence = np.full(1000, 0.9)
    correct = np.arange(1000) < 400
    assert smooth_ece(confidence, correct) == pytest.approx(0.5, abs=1e-7)
    assert smooth_ece(np.array([0.0, 1.0]), np.array([False, True])) == pytest.approx(0, abs=1e-7)
    assert smooth_ece(np.array([1.0]), np.array([False])) == pytest.approx(1, abs=1e-7)


def test_smooth_ece_errs_by_the_square_of_the_mesh(monkeypatch):
    confidence, correct = sample(20_000)
    fine = smooth_ece(confidence, correct)  # about 0.01
    for mesh in (2**9, 2**10, 2**11):
        monkeypatch.setattr("uqlib.metrics.calibration.MESH", mesh)
        assert smooth_ece(confidence, correct) == pytest.approx(fine, rel=(1 / mesh / fine) ** 2 / 25)


def test_the_reliability_curve_holds_means_and_empty_bins():
    curve = reliability_curve(np.array([0.1, 0.2, 0.9]), [False, True, True], bins=4)
    np.testing.assert_allclose(curve.confidence, [0.15, np.nan, np.nan, 0.9])
    np.testing.assert_allclose(curve.accuracy, [0.5, np.nan, np.nan, 1.0])
    assert curve.count.tolist() == [2, 0, 0, 1]
    assert curve.upper.tolist() == [0.25, 0.5, 0.75, 1.0]


def test_the_kind_of_array_comes_back():
    confidence, correct = sample(50)
    assert isinstance(bin_by_width(confidence.numpy(), correct).count, np.ndarray)
    assert isinstance(bin_by_mass(confidence, correct.numpy()).upper, torch.Tensor)
    bins = bin_by_width(confidence.numpy(), correct) + bin_by_width(confidence.numpy(), correct)
    assert ece(bins) == pytest.approx(ece(confidence, correct), abs=1e-15)


EMPTY = Bins(torch.zeros(2, dtype=torch.long), torch.zeros(2), torch.zeros(2, dtype=torch.long), torch.ones(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ece([0.5, 7.1], [True, False]), r"confidence must lie in \[0, 1\]; row 1 is 7.1. Logits\?"),
        (lambda: ece([0.5, -0.1], [True, False]), r"row 1 is -0.1"),
        (lambda: ece([0.5, float("nan")], [True, False]), "confidence must be finite; row 1 is nan"),
        (lambda: ece([], []), "confidence is empty"),
        (lambda: ece([0.5], [True, False]), "correct has 2 rows where 1 are expected"),
        (lambda: ece([0.5, 0.5], [3, 1]), "correct must be true or false; row 0 is 3"),
        (lambda: ece(np.eye(2), [True, False]), r"confidence must have one axis \(n,\); its shape is \(2, 2\)"),
        (lambda: ece([0.5], [True], norm="l3"), "unknown norm 'l3'; choose from l1, l2, max"),
        (lambda: ece([0.5], [True], by="size"), "unknown by 'size'; choose from width, mass"),
        (lambda: ece([0.5], [True], bins=0), "bins must be a whole number of at least 1; it is 0"),
        (lambda: ece(np.float32([1 + 2e-7]), [True]), "row 0 is 1.00000024. .* Rounding. Clip it to 1"),
        (lambda: ece([0.5]), "correct is missing"),
        (lambda: ece(EMPTY), "the bins hold no examples"),
        (lambda: ece(EMPTY, [True]), "pass them alone"),
        (lambda: smooth_ece([1.5], [True]), r"row 0 is 1.5"),
        (lambda: classwise_ece([[0.5, 0.6]], [0]), "row 0 sums to 1.1"),
    ],
)
def test_errors_say_what_came_and_where(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_column_of_a_table_is_taken_without_a_warning():
    table = np.random.default_rng(0).random((50, 3))
    correct = table[:, 0] > 0.5
    assert ece(table[:, 1], correct) == ece(table[:, 1].copy(), correct)


def test_bins_of_another_type_are_refused(unchecked):
    with pytest.raises(TypeError, match=r"bins must be a whole number of at least 1; it is 15\.0"):
        ece([0.5], [True], bins=15.0)
    assert ece([0.5], [True], bins=np.int64(15)) == 0.5


def test_options_beside_bins_are_obeyed_or_refused():
    confidence, correct = sample(500)
    width, mass = bin_by_width(confidence, correct), bin_by_mass(confidence, correct)
    for metric in (ece, rms_calibration_error, debiased_ece):
        assert metric(width, by="width", bins=15) == metric(confidence, correct, by="width")
        assert metric(mass, by="mass") == metric(confidence, correct, by="mass")
        for bins, by in ((width, "mass"), (mass, "width")):
            with pytest.raises(ValueError, match=f"by is '{by}', and these Bins were made by {bins.by}: pass by="):
                metric(bins, by=by)
        with pytest.raises(ValueError, match="bins is 5, and these Bins are 15"):
            metric(width, by="width", bins=5)
    assert ece(width) == ece(confidence, correct)
    for metric, bins in ((ece, mass), (reliability_curve, mass), (rms_calibration_error, width), (debiased_ece, width)):
        with pytest.raises(ValueError, match="by is "):  # what the metric takes by default is not what these are
            metric(bins)
    assert reliability_curve(mass, by="mass").count.equal(mass.count)
    assert ece(bin_by_width(confidence, correct, bins=4)) == ece(confidence, correct, bins=4)


def test_bins_of_numpy_and_torch_add():
    confidence, correct = sample(500)
    both = bin_by_width(confidence.numpy(), correct.numpy()) + bin_by_width(confidence, correct)
    assert isinstance(both.count, np.ndarray)
    assert ece(both) == pytest.approx(ece(confidence, correct), rel=1e-12)


def test_bins_of_two_kinds_do_not_add():
    grid = torch.arange(1, 5) / 4
    width, mass = (make(grid, grid > 0.5, bins=4) for make in (bin_by_width, bin_by_mass))
    assert width.upper.equal(mass.upper)
    with pytest.raises(ValueError, match="cannot add bins by width and bins by mass"):
        width + mass
    assert sum([mass, mass]).by == "mass"


@pytest.mark.parametrize("bins", [5, np.int64(5), np.array(5), torch.tensor(5)], ids=repr)
def test_numbers_of_bins_of_every_library_are_the_same(unchecked, bins):
    confidence, correct = sample(500)
    assert ece(confidence, correct, bins=bins) == ece(confidence, correct, bins=5)
    assert ece(bin_by_width(confidence, correct, bins=5), bins=bins) == ece(confidence, correct, bins=5)


@pytest.mark.parametrize("bins", [True, "5", 5.0, [5]], ids=repr)
def test_what_is_no_number_of_bins_is_refused(unchecked, bins):
    for arrays in (sample(500), (bin_by_width(*sample(500)),)):
        with pytest.raises(TypeError, match="bins must be a whole number of at least 1; it is"):
            ece(*arrays, bins=bins)
