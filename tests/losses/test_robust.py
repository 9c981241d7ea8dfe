"""LDR, ALDR, GCE, SCE and MAE against their closed forms, limits and other libraries, and the theorems on a few vectors."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import default_dtype
from scipy.optimize import minimize_scalar

from uqlib import losses

SCORES, LABEL = torch.tensor([[2.0, 1.0, 0.5, -1.0]], dtype=torch.float64), torch.tensor([0])
PROBS = np.array([[0.4, 0.25, 0.2, 0.1, 0.05], [0.07, 0.13, 0.3, 0.31, 0.19]])


def value(criterion, scores=SCORES, label=LABEL):
    return criterion(scores, label, torch.zeros(len(label), dtype=torch.int64)).item()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(12, 5, generator=generator, dtype=torch.float64)
    return logits, torch.randint(0, 5, (12,), generator=generator), torch.arange(12)


@pytest.mark.parametrize(
    ("temperature", "margin", "expected"),
    [(1, 0, -0.891112), (0.1, 0.1, -0.138617), (1, 0.1, -0.850860), (10, 0.1, -1.245566), (1000, 0.1, -1.299448),
     (0, 0, 0), (math.inf, 0, -1.375), (0, 0.1, 0), (0, 3, 2)],
)  # fmt: skip
def test_digits_computed_elsewhere(temperature, margin, expected):
    assert value(losses.ldr(temperature=temperature, margin=margin)) == pytest.approx(expected, abs=5e-7)


def test_digits_of_the_released_code():
    """Its ALDR leaves the margin out where the temperature is chosen, and adds 1e-5 to q."""
    for temperature, expected in (10, -0.711226), (1, -0.593262):
        assert value(losses.ldr(temperature=temperature, normalise="softplus")) == pytest.approx(expected, abs=5e-7)
    for start, kept, pull in (1, 0.887209, -0.017636), (10, 9.983689, -3.7e-5):
        bare = losses.aldr(examples=1, temperature=start, margin=0, normalise="norm1")
        value(bare)
        assert bare.temperatures.item() == pytest.approx(kept, abs=1e-4)
        assert -math.log(4) / start * (bare.temperatures.item() - start) ** 2 == pytest.approx(pull, abs=3e-5)
    pulled = value(losses.ldr(temperature=0.887209, normalise="norm1")) - 0.017636
    assert pulled == pytest.approx(-0.768765, abs=2e-6)
    rest = losses.aldr(examples=1, margin=0, temperature=1, normalise="norm1")
    for _ in range(60):
        value(rest)
    assert rest.temperatures.item() == pytest.approx(0.859241, abs=1e-4)


def test_at_temperature_one_it_is_the_cross_entropy_of_torch(batch):
    logits, labels, rows = batch
    found = losses.ldr(temperature=1, margin=0)(logits, labels, rows).item()
    assert found == pytest.approx(F.cross_entropy(logits, labels).item() - math.log(5), rel=1e-12)


@pytest.mark.parametrize("margin", [0, 0.1, 2])
def test_limits_are_the_margin_loss_of_torch_and_a_linear_one(batch, margin):
    logits, labels, rows = batch
    leads = logits - logits.gather(1, labels[:, None]) + margin * (1 - F.one_hot(labels, 5))
    for end, near, expected in (0, 1e-4, leads.amax(-1)), (math.inf, 1e7, leads.mean(-1)):
        exact = losses.ldr(temperature=end, margin=margin).terms(logits, labels, rows)
        assert torch.allclose(exact, expected, rtol=1e-14)
        close = losses.ldr(temperature=near, margin=margin).terms(logits, labels, rows)
        assert torch.allclose(close, expected, atol=3e-4)


@pytest.mark.parametrize("temperature", [0.1, 1, 10])
def test_the_gradient_is_the_worst_distribution_less_the_label(batch, temperature):
    logits, labels, rows = batch
    logits.requires_grad_()
    losses.ldr(temperature=temperature, margin=0.3).terms(logits, labels, rows).sum().backward()
    worst = ((logits.detach() + 0.3 * (1 - F.one_hot(labels, 5))) / temperature).softmax(-1)
    assert torch.allclose(logits.grad, worst - F.one_hot(labels, 5), atol=1e-12)


def test_it_is_the_worst_case_over_all_distributions():
    """No distribution of many at random does better than the value, and the softmax of the leads attains it."""
    leads = np.array([0, -0.9, -1.4, -2.9])
    q = np.random.default_rng(0).dirichlet(np.ones(4), 100_000)
    gain = q @ leads - 0.7 * (q * np.log(4 * q)).sum(1)
    found = value(losses.ldr(temperature=0.7))
    assert found - 1e-3 < gain.max() <= found


@pytest.mark.parametrize("normalise", ["none", "norm1", "softplus"])
@pytest.mark.parametrize(("start", "alpha"), [(0.1, 2), (1, 1.2), (10, 2)])
def test_aldr_without_memory_is_the_largest_over_temperatures(batch, start, alpha, normalise):
    logits, labels, rows = batch
    found = losses.aldr(temperature=start, alpha=alpha, normalise=normalise).terms(logits, labels, rows)
    kept = alpha * math.log(5) / (2 * start)

    def less(t, k):
        row = logits[k : k + 1], labels[k : k + 1]
        return kept * (t - start) ** 2 - value(losses.ldr(temperature=t, normalise=normalise), *row)

    for k in range(3):
        best = min(np.linspace(start * (1 - 1 / alpha), start, 20)[1:], key=lambda t: less(float(t), k))
        reach = start / alpha / 10
        ends = (max(best - reach, 1e-6), min(best + reach, start))
        exact = minimize_scalar(less, bounds=ends, args=(k,), method="bounded", options={"xatol": 1e-9})
        assert found[k].item() == pytest.approx(-exact.fun, rel=1e-7, abs=1e-7)


def test_temperatures_are_kept_by_row_in_training_alone(batch):
    logits, labels, rows = batch
    criterion = losses.aldr(examples=20, temperature=1)
    criterion.eval()(logits, labels, rows)
    assert (criterion.temperatures == 1).all()
    criterion.train()(logits[:5], labels[:5], rows[:5] + 3)
    assert (criterion.temperatures[3:8] < 1).all()
    assert (criterion.temperatures[3:8] >= 0.5).all()
    assert (criterion.temperatures[8:] == 1).all()
    for _ in range(200):
        criterion(logits, labels, rows)
    still = criterion.eval().terms(logits, labels, rows)
    assert torch.allclose(still, losses.aldr(temperature=1).terms(logits, labels, rows), atol=1e-12)
    criterion.begin(torch.zeros(20, dtype=torch.int64))
    assert (criterion.temperatures == 1).all()
    with pytest.raises(ValueError, match="the temperatures belong to a training set of 20 rows; row 20 came"):
        criterion(logits[:1], labels[:1], torch.tensor([20]))


@pytest.mark.parametrize("normalise", ["norm1", "softplus"])
def test_normalised_scores_have_no_scale_and_no_gradient_of_nan(batch, normalise):
    logits, labels, rows = batch
    criterion = losses.ldr(normalise=normalise)
    if normalise == "norm1":
        assert torch.allclose(
            criterion.terms(logits, labels, rows), criterion.terms(7 * logits, labels, rows), atol=1e-12
        )
    nothing = torch.zeros(2, 5, requires_grad=True)
    criterion(nothing, torch.arange(2), torch.arange(2)).backward()
    assert nothing.grad.isfinite().all()


def test_gce_sce_and_mae_from_their_definitions(batch):
    logits, labels, rows = batch
    probs = logits.softmax(-1)
    hot = F.one_hot(labels, 5)
    p = (probs * hot).sum(-1)
    reverse = -(probs * torch.where(hot == 1, 0.0, -4.0)).sum(-1)
    for criterion, expected in (
        (losses.gce(), (1 - p**0.7) / 0.7),
        (losses.gce(power=1e-9), -p.log()),
        (losses.mae(), (probs - hot).abs().sum(-1)),
        (losses.sce(), 0.5 * -p.log() + 0.5 * reverse),
        (losses.sce(weight=0.05, floor=-6), 0.05 * -p.log() + 0.95 * 1.5 * reverse),
    ):
        assert torch.allclose(criterion.terms(logits, labels, rows), expected, rtol=1e-6), criterion


def summed(criterion, scores):
    labels = torch.arange(scores.shape[1]).repeat(len(scores))
    return criterion.terms(scores.repeat_interleave(scores.shape[1], 0), labels, labels).view(scores.shape).sum(1)


def test_mae_and_the_linear_limit_are_symmetric_and_the_others_not(batch):
    for criterion in losses.mae(), losses.ldr(temperature=math.inf):
        assert summed(criterion, batch[0]).std() < 1e-12
    for criterion in losses.ldr(temperature=1), losses.gce(), losses.cross_entropy():
        assert summed(criterion, batch[0]).std() > 0.1


@pytest.mark.parametrize("temperature", [0.1, 1.0, 10.0])
def test_the_best_scores_of_ldr_are_scaled_logarithms(temperature):
    found = torch.from_numpy(losses.expected_minimisers(losses.ldr(temperature=temperature, margin=0), PROBS))
    expected = temperature * torch.from_numpy(PROBS).log()
    assert torch.allclose(found - found.mean(1, True), expected - expected.mean(1, True), atol=1e-6 * temperature)
    assert losses.top_kept(found.numpy(), PROBS).all()


def test_the_best_scores_of_the_margin_loss_lose_the_order():
    assert not losses.top_kept(losses.expected_minimisers(losses.ldr(temperature=0, margin=1), PROBS), PROBS).all()


def test_a_tie_is_no_order():
    probs = [[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]]
    scores = torch.tensor([[3.0, 1.0, 1.0005], [1.0, 2.0, 1.5]])
    assert losses.top_kept(scores, probs).tolist() == [[True, False], [False, True]]
    assert losses.top_kept(scores, probs, gap=0.5).tolist() == [[True, False], [False, False]]
    with pytest.raises(ValueError, match="logits and probs must have one shape"):
        losses.top_kept(scores[:, :2], probs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: losses.ldr(temperature=-1), "temperature"),
        (lambda: losses.ldr(margin=-0.1), "margin"),
        (lambda: losses.ldr(normalise="l2"), "unknown normalise 'l2'; choose from none, norm1, softplus"),
        (lambda: losses.aldr(temperature=0), "temperature"),
        (lambda: losses.aldr(alpha=1), "alpha"),
        (lambda: losses.aldr(examples=0), "examples"),
        (lambda: losses.gce(power=0), "power"),
        (lambda: losses.sce(weight=2), "weight"),
        (lambda: losses.sce(floor=1), "floor"),
        (lambda: losses.expected_minimisers(losses.mae(), PROBS, starts=0), "starts"),
        (lambda: losses.expected_minimisers(losses.mae(), 2 * PROBS), "probs"),
    ],
)
def test_bad_options_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_default_dtype_changes_no_temperature(batch):
    with default_dtype(torch.float16):
        assert losses.aldr(examples=3).temperatures.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [1e3, 1e6, 1e7, 1e20, 1e30])
def test_a_large_temperature_comes_to_its_limit(dtype, temperature):
    """T log mean exp(d / T) = mean d + var d / (2 T) + ..., to the third order."""
    scores, lead = torch.tensor([[1.0, 2.0, 3.0]], dtype=dtype), np.array([0.0, 1.1, 2.1])
    expected = lead.mean() + lead.var() / (2 * temperature)
    assert value(losses.ldr(temperature=temperature), scores) == pytest.approx(expected, rel=1e-6)
    scores.requires_grad_()
    losses.ldr(temperature=temperature)(scores, LABEL, LABEL).backward()
    assert scores.grad[0].tolist() == pytest.approx([-2 / 3, 1 / 3, 1 / 3], abs=1e-3)


def test_a_large_start_of_aldr_comes_to_the_linear_limit():
    scores = torch.tensor([[1.0, 2.0, 3.0]])
    assert value(losses.aldr(temperature=1e9), scores) == pytest.approx(3.2 / 3, rel=1e-6)
    assert value(losses.aldr(temperature=1e9, examples=1), scores) == pytest.approx(3.2 / 3, rel=1e-6)


@pytest.mark.parametrize("temperature", [0, 0.5, 10, 1e7, math.inf])
def test_a_logit_of_minus_infinity_takes_its_class_out(temperature):
    scores = torch.tensor([[2.0, -math.inf, 1.0, 0.5, -1.0]], dtype=torch.float64)
    for make in (losses.ldr, lambda **o: losses.aldr(**(o | {"temperature": min(max(temperature, 0.1), 1e9)}))):
        found = value(make(temperature=temperature), scores)
        assert found == pytest.approx(value(make(temperature=temperature)), rel=1e-9, abs=1e-9)
        assert value(make(temperature=temperature), scores, torch.tensor([1])) == math.inf
    scores.requires_grad_()
    losses.ldr(temperature=temperature)(scores, LABEL, LABEL).backward()
    assert scores.grad.isfinite().all()


@pytest.mark.parametrize("normalise", ["norm1", "softplus"])
@pytest.mark.parametrize("make", [losses.ldr, losses.aldr, lambda **o: losses.aldr(examples=2, **o)])
def test_normalised_scores_refuse_minus_infinity(make, normalise):
    criterion, scores = make(normalise=normalise), torch.tensor([[2.0, -math.inf, 1.0]])
    with pytest.raises(
        ValueError, match=f"logits must be finite with normalise='{normalise}'.* row 0, column 1 is -inf"
    ):
        criterion(scores, LABEL, LABEL)
    if getattr(criterion, "temperatures", None) is not None:
        assert (criterion.temperatures == 10).all()


def test_half_precision_leaves_what_is_kept(batch):
    logits, labels, rows = batch
    criterion, plain = losses.aldr(examples=12, temperature=1).half(), losses.aldr(examples=12, temperature=1)
    assert criterion(logits, labels, rows).item() == plain(logits, labels, rows).item()
    assert torch.equal(criterion.temperatures, plain.temperatures)
    recorded = losses.Recorded(losses.mae(), examples=12, epochs=1).half()
    recorded(logits, labels, rows)
    assert recorded.nll.dtype == torch.float32


def test_tied_probabilities_do_not_depend_on_the_order_of_classes():
    scores, probs = torch.tensor([[1.0, 2.0, 3.0, 0.0]]), torch.tensor([[0.25, 0.25, 0.4, 0.1]])
    for order in ([0, 1, 2, 3], [1, 0, 2, 3], [3, 1, 2, 0]):
        assert losses.top_kept(scores[:, order], probs[:, order]).tolist() == [[True, True, True]]
    assert losses.top_kept(torch.tensor([[1.0, 2.0, 3.0]]), [[0.5, 0.25, 0.25]]).tolist() == [[False, False]]


def test_minimisers_are_sought_without_a_gradient_around_and_by_losses_without_memory():
    with torch.no_grad():
        found = losses.expected_minimisers(losses.cross_entropy(), PROBS)
    assert torch.from_numpy(found).softmax(-1).numpy() == pytest.approx(PROBS, abs=1e-6)
    for criterion in (losses.aldr(examples=3), losses.ranking(examples=3), losses.difficulty([1.0, 1.0])):
        with pytest.raises(ValueError, match="criterion must keep nothing for each example"):
            losses.expected_minimisers(criterion, PROBS)
    with pytest.raises(ValueError, match="seed must be"):
        losses.expected_minimisers(losses.mae(), PROBS, seed=-1)


def test_minimisers_of_another_loss_are_refused(unchecked):
    with pytest.raises(TypeError, match="criterion must be a loss of this family"):
        losses.expected_minimisers(torch.nn.CrossEntropyLoss(), PROBS)
