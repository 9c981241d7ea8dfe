import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize, minimize_scalar
from scipy.special import logsumexp

from uqlib.calibrate.temperature import (
    TemperatureFit,
    TemperatureScaled,
    fit_class_temperatures,
    fit_temperature,
    scale_logits,
)
from uqlib.metrics.classification import nll


def draw(n, c, temperature, seed=0):
    """Logits that are `temperature` times too large for the labels drawn from them."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, c, generator=generator, dtype=torch.float64)
    probs = (logits / temperature).softmax(-1)  # written out, not through scale_logits
    return logits, torch.multinomial(probs, 1, generator=generator)[:, 0]


def nll_by_hand(factor, logits, labels):
    z = factor * logits.numpy()
    return float((logsumexp(z, -1) - z[np.arange(len(z)), labels]).mean())


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_optimum_is_that_of_scipy(temperature):
    logits, labels = draw(3000, 8, temperature)
    fit = fit_temperature(logits, labels)
    found = minimize_scalar(nll_by_hand, bounds=(0.01, 10), args=(logits, labels), options={"xatol": 1e-10})
    assert fit.temperature == pytest.approx(
        1 / found.x, rel=1e-6
    )  # a value alone places a minimum to the root of 1e-16
    assert fit.nll <= found.fun + 1e-14
    assert fit.nll == pytest.approx(nll_by_hand(1 / fit.temperature, logits, labels), rel=1e-14)


def test_the_certificate_holds():
    logits, labels = draw(3000, 8, 2.0)
    fit = fit_temperature(logits, labels)
    step = 1e-4
    slope = nll_by_hand(1 / fit.temperature + step, logits, labels) - nll_by_hand(
        1 / fit.temperature - step, logits, labels
    )
    assert slope / (2 * step) == pytest.approx(0, abs=1e-7)  # a central difference errs by step²
    assert abs(fit.gradient) < 1e-9
    assert 0 <= fit.gap < 1e-16
    assert fit.iterations <= 7


def test_the_temperature_that_drew_the_labels_comes_back():
    logits, labels = draw(100_000, 5, 2.0)
    scaled = logits / 2
    probs = scaled.softmax(-1)
    # log T is a maximum-likelihood estimate: its variance is one over the Fisher information
    information = ((probs * scaled**2).sum(-1) - (probs * scaled).sum(-1) ** 2).sum().item()
    assert abs(math.log(fit_temperature(logits, labels).temperature / 2)) < 4 * information**-0.5


def test_scaled_logits_scale_the_temperature_and_row_constants_do_nothing():
    logits, labels = draw(2000, 6, 1.5)
    one = fit_temperature(logits, labels).temperature
    assert fit_temperature(1000 * logits, labels).temperature == pytest.approx(1000 * one, rel=1e-9)
    shifted = logits + torch.linspace(-5, 5, 2000, dtype=torch.float64)[:, None]
    assert fit_temperature(shifted, labels).temperature == pytest.approx(one, rel=1e-9)


def test_chunks_and_kinds_do_not_show(monkeypatch):
    logits, labels = draw(2000, 6, 1.5)
    whole = fit_temperature(logits, labels).temperature
    assert fit_temperature(logits.numpy(), labels.numpy()).temperature == whole
    monkeypatch.setattr("uqlib.solve.likelihood.CHUNK", 60)
    assert fit_temperature(logits, labels).temperature == pytest.approx(whole, rel=1e-12)


def test_scale_logits_divides():
    assert scale_logits(np.array([[2.0, 4.0]]), 2.0).tolist() == [[1.0, 2.0]]
    assert scale_logits(torch.tensor([[2.0, 4.0]]), torch.tensor([1.0, math.inf])).tolist() == [[2.0, 0.0]]


def test_the_module_divides_keeps_its_temperature_and_lets_gradients_through():
    model = torch.nn.Linear(4, 3)
    scaled = TemperatureScaled(model, 2.0)
    images = torch.randn(5, 4, requires_grad=True)
    torch.testing.assert_close(scaled(images), model(images) / 2, rtol=0, atol=0)
    scaled(images).sum().backward()
    assert images.grad is not None
    other = TemperatureScaled(torch.nn.Linear(4, 3), 1.0)
    other.load_state_dict(scaled.state_dict())
    assert other.temperature.item() == 2.0
    assert scaled(images).dtype == torch.float32


def test_class_temperatures_match_scipy():
    logits, labels = draw(1500, 4, 1.0)
    logits = logits * torch.tensor([1.0, 2.0, 0.5, 3.0], dtype=torch.float64)
    fit = fit_class_temperatures(logits, labels)
    found = minimize(
        lambda factors: nll_by_hand(factors, logits, labels),
        np.ones(4),
        bounds=[(0, None)] * 4,
        options={"ftol": 1e-14},
    )
    assert fit.nll <= found.fun + 1e-13
    np.testing.assert_allclose(1 / fit.temperature, found.x, rtol=1e-4)  # scipy differentiates by differences
    assert fit.nll == pytest.approx(nll(scale_logits(logits, fit.temperature), labels), rel=1e-13)
    assert fit.nll < fit_temperature(logits, labels).nll
    assert fit.residual < 1e-9


def test_a_class_whose_column_misleads_gets_an_infinite_temperature():
    logits, labels = draw(1500, 4, 1.0)
    logits[:, 2] = -logits[:, 2]
    fit = fit_class_temperatures(logits, labels)
    assert fit.temperature[2] == math.inf
    assert fit.residual < 1e-9
    assert nll(scale_logits(logits, fit.temperature), labels) == pytest.approx(fit.nll, rel=1e-13)


LOGITS, LABELS = draw(300, 4, 1.0)
PERFECT = LOGITS.argmax(-1)
SPLIT = torch.where(torch.eye(4)[LABELS] > 0, LOGITS.abs(), -LOGITS.abs())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_temperature(LOGITS, PERFECT), "every one of the 300 labels has the largest logit of its row"),
        (lambda: fit_temperature(-LOGITS, LABELS), "the best temperature is infinite"),
        (lambda: fit_temperature(torch.arange(3.0)[:, None].expand(3, 2), [0, 1, 0]), "temperature is infinite"),
        (lambda: fit_temperature(LOGITS.softmax(-1), LABELS), "logits look like probabilities"),
        (lambda: fit_temperature(LOGITS / torch.zeros(4), LABELS), "row 0, column . is -?inf"),
        (lambda: fit_temperature(LOGITS, LABELS[:5]), "labels has 5 rows where 300 are expected"),
        (lambda: fit_temperature(LOGITS[:, :3], LABELS), r"labels must lie in \[0, 3\)"),
        (lambda: fit_class_temperatures(SPLIT, LABELS), "some class temperatures would go to 0"),
        (lambda: fit_class_temperatures(LOGITS, LABELS.clamp(max=2)), "1 have none, the first is 3"),
        (lambda: scale_logits(LOGITS, 0.0), "temperature must be a number above 0; it is 0"),
        (lambda: scale_logits(torch.tensor([[90.0, -9.0]]).half(), 1e-3), "logits / temperature must be finite; row 0"),
        (lambda: scale_logits(LOGITS, torch.tensor([1.0, -1.0, 1.0, 1.0])), "temperature must be above 0"),
    ],
)
def test_errors_say_what_came_and_where(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("temperature", [2.0, [1.0, 2.0, 3.0, 4.0], np.arange(1.0, 5.0), torch.arange(1.0, 5.0)])
def test_the_logits_decide_the_kind(temperature):
    expected = LOGITS.double() / torch.as_tensor(temperature, dtype=torch.float64)
    for logits in (LOGITS.double(), LOGITS.double().numpy(), LOGITS.double().tolist()):
        scaled = scale_logits(logits, temperature)
        assert isinstance(scaled, torch.Tensor if isinstance(logits, torch.Tensor) else np.ndarray)
        assert torch.as_tensor(scaled).equal(expected)


def test_a_fit_is_not_taken_for_five_temperatures(unchecked):
    fit = TemperatureFit(2.0, 1.0, 1e-17, 1e-30, 6)
    with pytest.raises(TypeError, match=r"pass fit\.temperature"):
        scale_logits(np.ones((3, 5)), fit)
    assert TemperatureScaled(lambda logits: logits, fit)(torch.ones(1, 5)).tolist() == [[0.5] * 5]


@pytest.mark.parametrize(
    ("temperature", "error", "message"),
    [
        (-1.0, ValueError, r"temperature must be a finite number above 0; it is -1\.0"),
        (0, ValueError, "temperature must be a finite number above 0; it is 0"),
        (math.nan, ValueError, "temperature must be a finite number above 0; it is nan"),
        (math.inf, ValueError, "temperature must be a finite number above 0; it is inf"),
        (True, TypeError, r"it is True \(bool\)"),
        ("2", TypeError, r"it is '2' \(str\)"),
        ([1.0, -2.0], ValueError, r"temperature must be above 0; that of class 1 is -2\.0"),
        ([1.0, math.nan], ValueError, "that of class 1 is nan"),
        ([[1.0, 2.0]], ValueError, r"one a class \(c,\); its shape is \(1, 2\)"),
    ],
)
def test_a_module_refuses_its_temperature_when_it_is_made(unchecked, temperature, error, message):
    with pytest.raises(error, match=message):
        TemperatureScaled(torch.nn.Linear(4, 2), temperature)


@pytest.mark.parametrize("temperature", [2, np.float32(2), np.int64(2), np.array(2.0), torch.tensor(2.0)], ids=repr)
def test_temperatures_of_every_library_divide(unchecked, temperature):
    assert scale_logits(LOGITS, temperature).equal(LOGITS / 2)
    assert TemperatureScaled(lambda logits: logits, temperature)(LOGITS).equal(LOGITS / 2)


def test_no_call_of_the_module_waits_for_the_device(monkeypatch):
    scaled = TemperatureScaled(lambda logits: logits, torch.tensor([1.0, 2.0, 4.0, 8.0]))

    def wait(*_):
        raise AssertionError("a value was asked for")

    for name in ("item", "__bool__", "tolist", "__float__"):
        monkeypatch.setattr(torch.Tensor, name, wait)
    scaled(LOGITS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_default_dtype_changes_nothing(dtype, request):
    scaled, fit = TemperatureScaled(lambda logits: logits, 1.0001), fit_temperature(LOGITS, LABELS)
    request.addfinalizer(lambda: torch.set_default_dtype(torch.float32))
    torch.set_default_dtype(dtype)
    assert TemperatureScaled(lambda logits: logits, 1.0001)(LOGITS.float()).equal(scaled(LOGITS.float()))
    assert fit_temperature(LOGITS, LABELS) == fit
    assert scale_logits(LOGITS.numpy(), 1e-6).max() == LOGITS.numpy().max() / 1e-6


def test_whole_logits_are_not_rounded():
    whole = torch.tensor([[2**24 + 1, -1]])
    assert scale_logits(whole, 1.0).tolist() == scale_logits(whole.numpy(), 1.0).tolist() == whole.tolist()


def test_a_temperature_keeps_its_gradient():
    for temperature in (torch.tensor(2.0, requires_grad=True), torch.full((4,), 2.0, requires_grad=True)):
        scale_logits(LOGITS, temperature).sum().backward()
        assert temperature.grad.sum().item() == pytest.approx(-LOGITS.sum().item() / 4)
