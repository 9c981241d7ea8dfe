"""Temperature scaling: divide the logits by a number fitted on held-out examples, and leave the predictions alone.

Guo et al. 2017 (arXiv:1706.04599), section 4.2. The NLL is convex in 1/T, and Newton's method on 1/T finds its
minimum to rounding in a few passes; every fit carries the gradient and the gap that prove it.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from uqlib.base.arrays import Array, Column, Table, as_tensor, by_rows, like
from uqlib.base.checks import check_finite, check_labels, check_logits, check_row_constant
from uqlib.base.options import check_number
from uqlib.solve.likelihood import CHUNK, fit_nonnegative_weights
from uqlib.solve.newton import NoMinimum, minimize


class TemperatureFit(NamedTuple):
    """A temperature, and how well it is known to be the best: the NLL is convex in 1/T."""

    temperature: float  # divides the logits
    nll: float  # mean over the examples of the fit, nats
    gradient: float  # of the NLL in 1/T; zero at the optimum
    gap: float  # how far the NLL lies above its minimum, to second order, nats
    iterations: int  # passes over the logits


class ClassTemperatureFit(NamedTuple):
    """A temperature for each class, and how well they are known to be the best ones."""

    temperature: Float[Array, " c"]  # divides the columns; infinite where the best inverse is zero
    nll: float
    residual: float  # how far the gradient in 1/T is from a minimum's: largest |min(1/T, gradient)|
    gap: float  # how far the NLL lies above its minimum, to second order, nats
    iterations: int


def scale_logits(logits: Table, temperature: float | Column) -> Array:
    """The logits divided by the temperature: above 1 softens, below 1 sharpens. One for all, or (c,), one a class.

    A tensor keeps its gradient and its dtype, but whole numbers become float64. Temperatures of classes see the constant of
    each row, as their fit does.

    Raises:
        ValueError: if a temperature is not above 0, there is not one a class, or the logits are not finite, before or after,
            are probabilities, or have lost the constant of each row.
        TypeError: if the temperature is a whole fit, or no number.

    Examples:
        >>> from uqlib.calibrate import scale_logits
        >>> scale_logits([[4.0, 0.0], [2.0, 0.0]], 2.0)
        array([[2., 0.],
               [1., 0.]])
    """
    if isinstance(temperature, TemperatureFit | ClassTemperatureFit):
        raise TypeError("temperature must be a number, or one a class; got a fit: pass fit.temperature")
    table = check_logits(logits)
    if _is_one(temperature):
        value = check_number(temperature, "temperature", above=0, finite=False)
        return _divide(logits, table, temperature if isinstance(temperature, Tensor) else value)
    _check_class_temperatures(temperature, table.shape[1])
    check_row_constant(table)
    return _divide(logits, table, temperature if isinstance(temperature, Tensor) else as_tensor(temperature))


def _is_one(temperature: Any) -> bool:
    """Whether it has no axes, as the temperatures of classes have."""
    return np.ndim(temperature.detach().cpu() if isinstance(temperature, Tensor) else temperature) == 0


def _divide(logits: Table, table: Float[Tensor, "n c"], temperature: float | Tensor) -> Array:
    """In the kind and dtype that were given: of a tensor the one with the gradient, of NumPy in NumPy."""
    if isinstance(logits, Tensor):
        known = logits if logits.is_floating_point() else table
        scaled = known / (temperature.to(known.device) if isinstance(temperature, Tensor) else temperature)
    else:
        scaled = table / (as_tensor(temperature) if isinstance(temperature, Tensor) else temperature)
    check_finite(scaled.detach(), "logits / temperature")
    return scaled if isinstance(logits, Tensor) else like(scaled, logits)


def _check_class_temperatures(temperature: Any, classes: int | None = None) -> Float[Tensor, " c"]:
    """One above 0 for each class, perhaps infinite."""
    values = as_tensor(temperature, "temperature")
    if values.ndim != 1 or (classes is not None and len(values) != classes):
        wanted = "(c,)" if classes is None else f"({classes},)"
        raise ValueError(f"temperature must be one number, or one a class {wanted}; its shape is {tuple(values.shape)}")
    if not (values > 0).all():  # NaN is not, either
        row = int((~(values > 0)).nonzero()[0])
        raise ValueError(
            f"temperature must be above 0; that of class {row} is {values[row].item()}. It divides the logits; was it a "
            "weight?"
        )
    return values


def fit_temperature(logits: Table, labels: Column) -> TemperatureFit:
    """The temperature with the lowest NLL on these examples, which should be held out from training.

    About five passes over the logits; beside them, memory does not grow with n.

    Args:
        logits: (n, c), before the softmax.
        labels: (n,), classes in [0, c).

    Raises:
        ValueError: if there is no best temperature: every label has the largest logit of its row (T would go to 0), or
            the logits say nothing of the labels or oppose them (T would be infinite); if logits are not finite or are
            probabilities, or a label is outside [0, c).

    Source:
        Guo et al. 2017 (arXiv:1706.04599), section 4.2.

    Examples:
        >>> from uqlib.calibrate import fit_temperature
        >>> logits = [[3.0, 0.0]] * 4  # sure at 95 %
        >>> round(fit_temperature(logits, [0, 0, 0, 1]).temperature, 3)  # right in 3 of 4: 3 / log 3
        2.731
    """
    table = check_logits(logits)
    labels = check_labels(labels, table.shape[1], rows=len(table), device=table.device)
    if _all_first(table, labels):
        raise ValueError(
            f"every one of the {len(labels)} labels has the largest logit of its row, so the NLL falls for ever as T "
            "goes to 0. Fit on examples that the network was not trained on, or on more of them."
        )
    fit = fit_nonnegative_weights([table], labels)
    if fit.point.item() == 0:
        raise ValueError(
            "the best temperature is infinite: the logits of the labels are on average no larger than those of the "
            "other classes. Do logits and labels list the same examples, and the classes in the same order?"
        )
    return TemperatureFit(1 / fit.point.item(), fit.value, fit.gradient.item(), fit.gap, fit.iterations)


def fit_class_temperatures(logits: Table, labels: Column) -> ClassTemperatureFit:
    """A temperature for each class, dividing its column of the logits, with the lowest NLL on these examples.

    Vector scaling without the bias and without negative factors, so convex in the c factors 1/T. Unlike one temperature
    it can change predictions, and a constant added to a row changes it. Each pass takes n c² operations: seconds for
    10^4 x 1000. Beside the logits it holds a few tables of c².

    Args:
        logits: (n, c), before the softmax.
        labels: (n,), classes in [0, c), each at least once and better many times.

    Raises:
        ValueError: if a class has no label, or the NLL falls for ever as some temperatures go to 0; if logits are not
            finite, are probabilities, or have lost the constant of each row (their maximum was taken off, or they are
            logarithms of probabilities); if a label is outside [0, c).

    Source:
        Guo et al. 2017 (arXiv:1706.04599), section 4.2, vector scaling.
    """
    table = check_logits(logits)
    check_row_constant(table)
    labels = check_labels(labels, table.shape[1], rows=len(table), device=table.device)
    missing = (torch.bincount(labels, minlength=table.shape[1]) == 0).nonzero()[:, 0].tolist()
    if missing:
        raise ValueError(
            f"every class needs a label to fit its temperature; {len(missing)} have none, the first is {missing[0]}. "
            "Fit one temperature for all."
        )
    start = torch.zeros(table.shape[1], dtype=torch.float64)
    try:
        fit = minimize(lambda factors: _class_derivatives(table, labels, factors), start)
    except NoMinimum:
        raise ValueError(
            "some class temperatures would go to 0: their columns of the logits separate the class from all others on "
            f"these {len(labels)} examples. Fit on more examples, or fit one temperature."
        ) from None
    temperature = like((1 / fit.point).to(table.device), logits)
    return ClassTemperatureFit(temperature, fit.value, fit.residual, fit.gap, fit.iterations)


class TemperatureScaled(nn.Module):
    """A network whose logits are divided by a temperature, which its state_dict keeps in float32.

    The temperature is checked here, once; a call waits for no device.

    Args:
        model: images to logits (n, c).
        temperature: one number above 0, or (c,); or what fit_temperature or fit_class_temperatures returned.

    Raises:
        ValueError: if a temperature is not above 0, or the only one is infinite.
        TypeError: if it is no number.
    """

    temperature: Tensor

    def __init__(self, model: nn.Module | Callable[[Tensor], Tensor], temperature: float | Array):
        super().__init__()
        self.model = model
        if isinstance(temperature, TemperatureFit | ClassTemperatureFit):
            temperature = temperature.temperature
        if _is_one(temperature):
            value = torch.tensor(check_number(temperature, "temperature", above=0), dtype=torch.float32)
        else:
            value = _check_class_temperatures(temperature).float()
        self.register_buffer("temperature", value.clone())

    def forward(self, images: Tensor) -> Float[Tensor, "n c"]:
        logits = self.model(images)
        return logits / self.temperature.to(logits)


def _all_first(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> bool:
    own = logits.gather(1, labels[:, None])[:, 0]
    return bool((own >= logits.amax(-1)).all()) and bool((own > logits.amin(-1)).any())


def _class_derivatives(
    logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], factors: Float[Tensor, " c"]
) -> tuple[float, Float[Tensor, " c"], Float[Tensor, "c c"]]:
    """Value, gradient and Hessian in the factors of the mean NLL of factors * logits, on the CPU."""
    factors = factors.to(logits.device)
    value = torch.zeros((), dtype=torch.float64, device=logits.device)
    gradient, hessian = torch.zeros_like(factors), torch.zeros(2 * factors.shape, dtype=torch.float64).to(value.device)
    for part, label in by_rows(4 * CHUNK // logits.shape[1], logits, labels):
        z = part.double()
        log_probs = (factors * z).log_softmax(-1)
        own = label[:, None]
        value -= log_probs.gather(1, own).sum()
        expected = log_probs.exp_() * z
        gradient += expected.sum(0)
        gradient.index_add_(0, label, -z.gather(1, own)[:, 0])
        hessian.diagonal().add_((expected * z).sum(0))
        hessian.addmm_(expected.T, expected, alpha=-1)
    count = len(labels)
    return (value / count).item(), (gradient / count).cpu(), (hessian / count).cpu()
