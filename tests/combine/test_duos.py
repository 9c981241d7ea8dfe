import math

import numpy as np
import pytest
import torch
from conftest import default_dtype
from scipy.optimize import minimize
from scipy.special import logsumexp, softmax

from uqlib.calibrate.temperature import fit_temperature
from uqlib.combine.duos import (
    VARIANTS,
    InfiniteWeights,
    decide,
    duo_logits,
    ensemble_probs,
    fit_duo,
    fit_weights,
    flops_balance,
    relative_weighting,
)
from uqlib.metrics.classification import accuracy, nll
from uqlib.papers.zhou2025 import duo_confidence_zhou2025


def draw(n=2000, c=6, seed=0):
    """A large network that sees much of the truth, a small one that sees less, each on its own scale."""
    generator = torch.Generator().manual_seed(seed)
    truth = 2 * torch.randn(n, c, generator=generator, dtype=torch.float64)
    labels = torch.multinomial(truth.softmax(-1), 1, generator=generator)[:, 0]
    noise = torch.randn(2, n, c, generator=generator, dtype=torch.float64)
    return 3 * (truth + noise[0]), 0.5 * (truth + 2 * noise[1]), labels


LARGE, SMALL, LABELS = draw()
FIT = fit_duo(LARGE, SMALL, LABELS)


def nll_by_hand(weights, *data):
    *members, labels = data
    z = sum(w * member.numpy() for w, member in zip(weights, members, strict=True))
    return float((logsumexp(z, -1) - z[np.arange(len(z)), labels]).mean())


def test_the_weights_are_those_of_scipy():
    found = minimize(
        nll_by_hand, [0.5, 0.5], args=(LARGE, SMALL, LABELS), bounds=[(0, None)] * 2, options={"ftol": 1e-15}
    )
    np.testing.assert_allclose(FIT.weights, found.x, rtol=1e-4)  # scipy differentiates by differences
    assert FIT.nll <= found.fun + 1e-14
    assert FIT.nll == pytest.approx(nll_by_hand(FIT.weights, LARGE, SMALL, LABELS), rel=1e-14)


def test_the_certificate_holds():
    assert max(map(abs, FIT.gradient)) < 1e-9
    assert 0 <= FIT.gap < 1e-16
    assert FIT.iterations <= 8


def test_the_weights_that_drew_the_labels_come_back_within_their_errors():
    generator = torch.Generator().manual_seed(5)
    large, small = 3 * torch.randn(2, 20_000, 5, generator=generator, dtype=torch.float64)
    probs = (0.6 * large + 0.25 * small).softmax(-1)  # written out, not through duo_logits
    labels = torch.multinomial(probs, 1, generator=generator)[:, 0]
    fit = fit_duo(large, small, labels)
    # Fisher information of a conditional logit: the covariance of the two logits under the softmax
    f = np.stack([large, small])
    p = probs.numpy()
    centred = f - (p * f).sum(-1, keepdims=True)
    expected = np.sqrt(np.linalg.inv(np.einsum("nc,inc,jnc->ij", p, centred, centred)).diagonal())
    np.testing.assert_allclose(fit.standard_errors, expected, rtol=0.05)  # at the estimate, not at the truth
    assert abs(fit.weights[0] - 0.6) < 4 * expected[0]
    assert abs(fit.weights[1] - 0.25) < 4 * expected[1]


def test_the_duo_is_never_above_the_scaled_base_and_each_network_is_scaled():
    for fit, (large, small, labels) in [(fit_duo(*draw(seed=s)), draw(seed=s)) for s in range(3)]:
        assert fit.nll < fit.alone[0]
        alone = [fit_temperature(member, labels) for member in (large, small)]
        assert fit.temperatures == pytest.approx([one.temperature for one in alone], rel=1e-12)
        assert fit.alone == pytest.approx([one.nll for one in alone], rel=1e-13)


def test_a_sidekick_that_would_harm_gets_weight_zero_and_leaves_the_base():
    # the labels follow a + b; large hears too little of b, and small the opposite of b: its best weight is negative
    generator = torch.Generator().manual_seed(4)
    a, b = torch.randn(2, 4000, 6, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((2 * a + 2 * b).softmax(-1), 1, generator=generator)[:, 0]
    large, small = 2 * a + 1.2 * b, 2 * a - b
    fit = fit_duo(large, small, labels)
    assert fit.weights[1] == 0
    assert fit.gradient[1] > 0
    assert math.isnan(fit.standard_errors[1])
    assert fit.weights[0] == pytest.approx(1 / fit_temperature(large, labels).temperature, rel=1e-9)
    assert relative_weighting(fit) == math.inf
    assert math.isnan(fit.log_weighting_error)
    duo, base = decide("ours", large, small, fit), decide("base", large, small, fit)
    torch.testing.assert_close(duo.probs, base.probs, rtol=0, atol=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_a_network_asked_about_other_examples_or_other_classes_is_refused(seed):
    generator = torch.Generator().manual_seed(seed)
    rows, classes = torch.randperm(len(LABELS), generator=generator), torch.arange(6).roll(1 + seed)
    with pytest.raises(ValueError, match="small says nothing of these labels: alone"):
        fit_duo(LARGE, SMALL[rows], LABELS)
    with pytest.raises(ValueError, match="small says nothing of these labels: alone"):
        fit_duo(LARGE, SMALL[:, classes], LABELS)
    with pytest.raises(ValueError, match="large says nothing of these labels: alone"):
        fit_duo(LARGE[rows], SMALL, LABELS)


def test_labels_that_some_weights_all_put_first_have_no_fit():
    with pytest.raises(InfiniteWeights, match="some weights put every one of the 2000 labels first"):
        fit_duo(LARGE, SMALL, LARGE.argmax(-1))


def test_identical_networks_share_the_weight_and_only_its_sum_is_known():
    fit = fit_duo(LARGE, LARGE, LABELS)
    assert sum(fit.weights) == pytest.approx(1 / fit.temperatures[0], rel=1e-9)
    assert fit.weights[0] == pytest.approx(fit.weights[1], rel=1e-9)
    assert (*fit.standard_errors, fit.log_weighting_error) == (math.inf, math.inf, math.inf)


def test_swapped_networks_swap_their_weights():
    swapped = fit_duo(SMALL, LARGE, LABELS)
    assert swapped.weights[::-1] == pytest.approx(FIT.weights, rel=1e-8)
    assert swapped.standard_errors[::-1] == pytest.approx(FIT.standard_errors, rel=1e-8)


def test_a_constant_added_to_a_row_changes_nothing():
    shift = torch.linspace(-9, 9, len(LABELS), dtype=torch.float64)[:, None]
    fit = fit_duo(LARGE + shift, SMALL - 2 * shift, LABELS)
    assert fit.weights == pytest.approx(FIT.weights, rel=1e-8)
    for name in VARIANTS:
        shifted, plain = decide(name, LARGE + shift, SMALL - 2 * shift, FIT), decide(name, LARGE, SMALL, FIT)
        assert shifted.preds.equal(plain.preds)
        torch.testing.assert_close(shifted.probs, plain.probs, rtol=0, atol=1e-12)


def test_the_released_grid_is_never_better():
    # 25 x 25 dividing temperatures, halved: weight = 1 / (2 tau)
    weights = [1 / (2 * (0.05 + 0.2 * k)) for k in range(25)]
    large, small, labels = draw(n=300)
    best = min(nll_by_hand((a, b), large, small, labels) for a in weights for b in weights)
    ours = fit_duo(large, small, labels)
    assert ours.nll <= best
    assert ours.nll == pytest.approx(best, abs=0.02)  # the grid is coarse, not wrong


def test_variants_are_what_the_paper_names():
    large, small = LARGE.numpy(), SMALL.numpy()
    (w_l, w_s), (t_l, t_s) = FIT.weights, FIT.temperatures
    duo = softmax(w_l * large + w_s * small, -1)
    expected = {
        "base": softmax(large / t_l, -1),
        "ours": duo,
        "unweighted": softmax(0.5 * (large / t_l + small / t_s), -1),
        "uq_only": duo,
        "softmax_average": 0.5 * (softmax(large / t_l, -1) + softmax(small / t_s, -1)),
        "raw": softmax(large, -1),
    }
    assert expected.keys() == VARIANTS.keys()
    for name, probs in expected.items():
        found = decide(name, large, small, FIT)
        np.testing.assert_allclose(found.probs, probs, atol=1e-13)
        preds = large.argmax(-1) if name in ("base", "uq_only", "raw") else probs.argmax(-1)
        np.testing.assert_array_equal(found.preds, preds)
        np.testing.assert_allclose(found.confidence, probs[np.arange(len(probs)), preds], atol=1e-13)


def test_uq_only_keeps_the_labels_of_the_large_network_and_the_probabilities_of_the_duo():
    base, ours, uq = (decide(name, LARGE, SMALL, FIT) for name in ("base", "ours", "uq_only"))
    assert accuracy(uq.preds, LABELS) == accuracy(base.preds, LABELS)
    assert uq.probs.equal(ours.probs)
    assert (uq.confidence <= ours.confidence).all()
    assert uq.confidence.equal(duo_confidence_zhou2025(ours.probs, base.preds))


def test_duo_logits_give_the_fitted_nll():
    assert nll(duo_logits(LARGE, SMALL, FIT), LABELS) == pytest.approx(FIT.nll, rel=1e-13)
    assert isinstance(duo_logits(LARGE.numpy(), SMALL, FIT), np.ndarray)


def test_weights_of_two_members_are_the_duo_and_of_one_the_temperature():
    two = fit_weights(torch.stack([LARGE, SMALL]), LABELS)
    assert two.weights.tolist() == pytest.approx(FIT.weights, rel=1e-12)
    assert two.standard_errors.tolist() == pytest.approx(FIT.standard_errors, rel=1e-12)
    one = fit_weights(LARGE[None].numpy(), LABELS)
    assert isinstance(one.weights, np.ndarray)
    assert one.weights.item() == pytest.approx(1 / FIT.temperatures[0], rel=1e-12)


def test_more_members_match_scipy():
    members = [LARGE, SMALL, draw(seed=9)[0], LARGE.flip(1)]
    fit = fit_weights(members, LABELS)
    found = minimize(
        nll_by_hand, np.full(4, 0.3), args=(*members, LABELS), bounds=[(0, None)] * 4, options={"ftol": 1e-15}
    )
    assert fit.nll <= found.fun + 1e-13
    np.testing.assert_allclose(fit.weights, found.x, atol=1e-4)


def test_ensembles_average_probabilities_or_logits():
    members = np.stack([LARGE, SMALL, LARGE + SMALL])
    np.testing.assert_allclose(ensemble_probs(members), softmax(members, -1).mean(0), atol=1e-14)
    np.testing.assert_allclose(ensemble_probs(members, average="logits"), softmax(members.mean(0), -1), atol=1e-14)


def test_the_relative_weighting_is_the_papers_ratio_of_temperatures():
    (w_l, w_s), (t_l, t_s) = FIT.weights, FIT.temperatures
    tau_l, tau_s = 1 / (2 * w_l), 1 / (2 * w_s)
    assert relative_weighting(FIT) == pytest.approx((t_l / tau_l) / (t_s / tau_s), rel=1e-14)
    # the scale of the logits does not count
    assert relative_weighting(fit_duo(LARGE / 7, 7 * SMALL, LABELS)) == pytest.approx(relative_weighting(FIT), rel=1e-8)


def test_the_error_of_the_log_weighting_is_that_of_a_likelihood_in_its_own_coordinates():
    def nll_at(log_ratio_and_log_small):
        log_ratio, log_small = log_ratio_and_log_small
        mixed = (log_ratio + log_small).exp() * LARGE + log_small.exp() * SMALL
        return torch.nn.functional.cross_entropy(mixed, LABELS, reduction="sum")

    at = torch.tensor([math.log(FIT.weights[0] / FIT.weights[1]), math.log(FIT.weights[1])], dtype=torch.float64)
    information = torch.autograd.functional.hessian(nll_at, at)
    assert FIT.log_weighting_error == pytest.approx(information.inverse()[0, 0].sqrt().item(), rel=1e-6)


def test_flops_balance_is_the_papers_pair():
    # ResNet-50 with EfficientNet-B0: 4.09 and 0.39 GFLOPs, printed as 0.0954
    assert flops_balance(0.39, 4.09) == pytest.approx(0.0954, abs=5e-5)


PERFECT = LARGE.argmax(-1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_duo(LARGE, SMALL[:5], LABELS), r"large and small must have one shape .* \(2000, 6\) and \(5, 6\)"),
        (lambda: fit_duo(LARGE, SMALL[:, :5], LABELS), r"A background class\? Drop its column"),
        (lambda: fit_duo(LARGE, SMALL, LABELS[:7]), "labels has 7 rows where 2000 are expected"),
        (lambda: fit_duo(LARGE, SMALL.softmax(-1), LABELS), "small look like probabilities"),
        (lambda: fit_duo(LARGE / 0, SMALL, LABELS), "large must be finite; row 0, column 0 is -?inf"),
        (
            lambda: fit_duo(LARGE, SMALL[:1].expand(2000, 6), LABELS),
            "small is constant: its logits are the same",
        ),
        (
            lambda: fit_duo(LARGE, SMALL[:, :1].expand(2000, 6), LABELS),
            "small is constant: every row has the same",
        ),
        (lambda: fit_duo(LARGE, SMALL, PERFECT), "some weights put every one of the 2000 labels first"),
        (lambda: fit_duo(-LARGE, -SMALL, LABELS), "both weights are best at zero"),
        (
            lambda: decide("best", LARGE, SMALL, FIT),
            "unknown variant 'best'; choose from base, ours, unweighted",
        ),
        (lambda: duo_logits(LARGE, SMALL[:5], FIT), "must have one shape"),
        (
            lambda: fit_weights([LARGE, SMALL[:5]], LABELS),
            r"member_logits\[0\] and member_logits\[1\] must have one shape",
        ),
        (lambda: fit_weights([], LABELS), "member_logits is empty"),
        (lambda: ensemble_probs([LARGE], average="median"), "unknown average 'median'; choose from probs, logits"),
        (lambda: flops_balance(1.0, 0.0), "large_macs must be a finite number above 0; it is 0.0"),
    ],
)
def test_errors_say_what_came_and_where(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- kinds and sizes of numbers


@pytest.mark.parametrize("m", [1, 2, 3])
def test_weights_that_would_all_be_zero_are_refused(m):
    """Labels that the logits speak against: a weight of zero makes every prediction uniform, without a word."""
    with pytest.raises(ValueError, match=f"all {m} weights are best at zero: .*the same order"):
        fit_weights([-LARGE, -SMALL, -LARGE - SMALL][:m], LABELS)
    with pytest.raises(ValueError, match=f"all {m} weights are best at zero"):
        fit_weights([0 * LARGE] * m, LABELS)


@pytest.mark.parametrize("size", [1e300, 1e101])
def test_logits_whose_squares_overflow_are_refused(size):
    huge = size * LARGE / LARGE.abs().max()
    for call, name in (
        (lambda: fit_weights([SMALL, huge], LABELS), r"member_logits\[1\]"),
        (lambda: fit_duo(huge, SMALL, LABELS), "large"),
        (lambda: fit_duo(LARGE, huge, LABELS), "small"),
    ):
        with pytest.raises(ValueError, match=rf"{name} must be at most 1e\+100 in size, .*Divide all of them"):
            call()


def test_logits_whose_weighted_sum_overflows_are_refused():
    huge = LARGE / LARGE.abs().max() * 1.5e308
    steep = FIT._replace(weights=(10.0, 10.0), temperatures=(0.1, 0.1))
    for name in VARIANTS.keys() - {"raw"}:  # which adds nothing up
        with pytest.raises(
            ValueError, match=r"large and small .* must be so small that their weighted sum does not overflow"
        ):
            decide(name, huge, huge, steep)
    with pytest.raises(ValueError, match=r"large and small .* must be so small"):
        duo_logits(huge, SMALL, steep)
    with pytest.raises(ValueError, match=r"member_logits.* must be so small"):
        ensemble_probs([huge, huge], average="logits")
    with pytest.raises(ValueError, match=r"large and small .* must be so small"):
        decide("unweighted", huge, huge, FIT._replace(temperatures=(1.0, 1.0)))
    assert decide("ours", huge, SMALL, FIT).preds.equal(huge.argmax(-1))  # what does not overflow is right


@pytest.mark.parametrize("unit", [1e-90, 1e-30, 1e30, 1e90])
def test_the_unit_of_the_logits_is_that_of_the_weights(unit):
    fit = fit_duo(unit * LARGE, SMALL, LABELS)
    np.testing.assert_allclose([unit * fit.weights[0], fit.weights[1]], FIT.weights, rtol=1e-9)
    found = fit_weights([unit * LARGE, SMALL], LABELS)
    np.testing.assert_allclose([unit * found.weights[0], found.weights[1]], FIT.weights, rtol=1e-9)
    with pytest.raises(ValueError, match="large must not all be below 1e-100"):
        fit_duo(1e-200 * LARGE, SMALL, LABELS)  # its weight came out as zero


def test_labels_and_logits_of_every_kind_give_the_same_duo(unchecked):
    large, small, labels = LARGE[:300].numpy(), SMALL[:300].numpy(), LABELS[:300].numpy()
    expected = fit_duo(large, small, labels).weights
    kinds = [labels.astype(kind) for kind in ("u1", "u2", "u4", "u8", "i1", ">i4")] + [labels[:, None], labels.tolist()]
    for kind in [*kinds, torch.tensor(labels).to(torch.uint8), np.repeat(labels, 2)[::2]]:
        assert fit_duo(large, small, kind).weights == expected, type(kind)
        assert tuple(fit_weights([large, small], kind).weights.tolist()) == expected
    fixed = large.copy()
    fixed.setflags(write=False)
    for kind in (
        fixed,
        np.asfortranarray(large),
        large.astype(">f8"),
        large.tolist(),
        torch.tensor(large).requires_grad_(),
    ):
        np.testing.assert_allclose(fit_duo(kind, small, labels).weights, expected, rtol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_the_default_dtype_changes_nothing(dtype):
    def everything():
        fit = fit_duo(LARGE.float(), SMALL.half(), LABELS)
        said = [part for name in VARIANTS for part in decide(name, LARGE.float(), SMALL.half(), fit)]
        return fit, [*said, *fit_weights([LARGE.float(), SMALL], LABELS)[:2], ensemble_probs([LARGE.float(), SMALL])]

    expected = everything()
    with default_dtype(dtype):
        found = everything()
    assert found[0] == expected[0]
    for one, other in zip(found[1], expected[1], strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *(
            (lambda odd=odd: fit_duo(LARGE[:3], SMALL[:3], odd), "labels")
            for odd in (None, "abc", [0.0] * 3, [0, 1, -100])
        ),
        *(
            (lambda odd=odd: fit_duo(odd, SMALL, LABELS), "large must")
            for odd in (None, "a", [["a", "b"]], LARGE[:, 0])
        ),
        *(
            (lambda odd=odd: fit_duo(LARGE, odd, LABELS), "small (must|is empty)")
            for odd in (None, 3.0, LARGE[:, :1], LARGE[:0])
        ),
        *((lambda odd=odd: fit_weights(odd, LABELS), "member_logits") for odd in (None, LARGE, [None], 3.0, "ab")),
        *((lambda odd=odd: ensemble_probs(odd), "member_logits") for odd in (None, LARGE, [None], [])),
        *(
            (lambda odd=odd: duo_logits(LARGE, SMALL, odd), "fit must be what fit_duo returns")
            for odd in (None, (1, 2))
        ),
        *(
            (lambda name=name: decide(name, LARGE, SMALL, None), "fit must be what fit_duo returns")
            for name in VARIANTS
        ),
        (lambda: relative_weighting((1.0, 2.0)), "fit must be what fit_duo returns"),
        (lambda: decide(None, LARGE, SMALL, FIT), "unknown variant None"),
        *((lambda odd=odd: flops_balance(odd, 1.0), "small_macs must be") for odd in (-1, True, "1", None, math.nan)),
        *((lambda odd=odd: flops_balance(1.0, odd), "large_macs must be") for odd in (0, True, "1", None, math.inf)),
    ],
)
def test_what_is_no_duo_is_refused_by_name(call, message, unchecked):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_costs_are_numbers_of_any_kind(unchecked):
    for one, two in ((1, 2), (np.float32(1), np.int64(2)), (torch.tensor(1), torch.tensor(2.0)), (10**30, 2 * 10**30)):
        assert flops_balance(one, two) == 0.5
