"""Last-layer Laplace: a Gaussian around the weights of a classifier, and its prediction averaged over that Gaussian.

Daxberger et al. 2021 (arXiv:2106.14806). The package laplace-torch finds the curvature of the NLL, which is the part
that Kronecker-factored approximations differ in; `pip install 'uqlib[laplace]'`. The prediction is written here in
closed form, since only the variances of the logits enter the probit link: the package builds a Jacobian of c x c x d
numbers an image instead.

The prior precision is not part of the fit. It can be changed without fitting again: fit._replace(prior_precision=2.0).
"""

import warnings
from collections.abc import Callable
from math import pi
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import nll_loss
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, TensorDataset

from uqlib.base.arrays import Array, Column, Table, as_tensor, like
from uqlib.base.checks import check_features, check_finite, check_labels, check_rows, check_size
from uqlib.base.extras import named
from uqlib.base.options import check_choice, check_number, check_result, check_whole

BIGGEST = 1e70  # of a feature or a weight: the fourth powers of smaller ones can be added up
LEAST = 1e-100  # prior precision: variances are up to one over it, times the square of a feature
JACOBIAN = 2**24  # numbers that the package may hold at a time: 128 MiB
LARGEST = 2**14  # parameters of a full Hessian: 2 GiB


class LaplaceFit(NamedTuple):
    """The classifier and the curvature of its NLL there: the posterior precision is curvature + prior precision."""

    weight: Float[Tensor, "c d"]
    bias: Float[Tensor, " c"]
    hessian: str  # a name in HESSIANS
    curvature: tuple[Tensor, ...]  # summed over `total` rows, float64; what it holds depends on the Hessian
    prior_precision: float  # of every weight and bias; infinite trusts the weights as they are
    total: int  # rows of training that the curvature stands for


class PriorChoice(NamedTuple):
    """The prior precision with the lowest NLL, and what the others came to."""

    fit: LaplaceFit  # with the chosen prior precision
    prior_precision: float
    values: Float[np.ndarray, " k"]  # that were tried
    nlls: Float[np.ndarray, " k"]  # mean over the examples, nats; lower is better


def find_last_layer(
    features: Table, logits: Table, *, tolerance: float = 0.02
) -> tuple[Float[Tensor, "c d"], Float[Tensor, " c"]]:
    """Weight and bias of logits = features @ weight.T + bias by least squares, where a store has both and not the layer.

    Args:
        features: (n, d), with at least d + 2 rows.
        logits: (n, c) of the same rows.
        tolerance: largest residual; features in half precision explain 0.02 for logits of usual size.

    Raises:
        ValueError: if a logit is missed by more: the layer is not linear, or the rows are not the same; if there are too few
            rows to tell, or a number is not finite.
    """
    x, y = check_features(features).double(), check_features(logits, "logits").double()
    check_rows(y, len(x), "logits")
    if len(x) < x.shape[1] + 2:
        raise ValueError(
            f"features of width {x.shape[1]} need {x.shape[1] + 2} rows or more, since any logits of fewer have a layer that "
            f"gives them exactly; there are {len(x)}. Pass more examples."
        )
    y = y.to(x.device)
    x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    solution = torch.linalg.lstsq(x, y).solution
    if (residual := (x @ solution - y).abs().max().item()) > tolerance:
        raise ValueError(
            f"the layer misses its logits by up to {residual:.3f}, more than {tolerance}; are the rows the same?"
        )
    return solution[:-1].T, solution[-1]


def last_layer_laplace(
    features: Table,
    labels: Column,
    weight: Table,
    bias: Column,
    *,
    hessian: str = "kron",
    prior_precision: float = 1.0,
    total: int | None = None,
) -> LaplaceFit:
    """The Laplace approximation of a trained last layer, logits = features @ weight.T + bias.

    The curvature is the generalised Gauss-Newton matrix, which for a softmax does not depend on the labels. It is a sum
    over rows: a network that was trained on more rows than are given is more certain, which `total` repairs. (The package
    knows no such number. It divides its sum by its argument `temperature`, so temperature = rows / total does the same.)

    "kron" takes c backward passes over the rows and c³ + d³ operations, and keeps c² + d² numbers. The others go through
    the package's Jacobian: "diag" takes n c³ d operations and keeps c d numbers, "full" takes n c³ d² and keeps (c d)².

    Args:
        features: (n, d), the input of the last layer on training examples.
        labels: (n,), classes in [0, c).
        weight: (c, d).
        bias: (c,).
        hessian: "kron" (Kronecker factored, as in the paper), "diag" or "full".
        prior_precision: of the Gaussian prior, the same for weights and biases; `choose_prior_precision` fits it.
        total: rows that the network was trained on, if the features are a sample of them; by default n.

    Raises:
        ModuleNotFoundError: if laplace-torch is not installed.
        ValueError: if the Hessian is unknown, shapes do not fit, a number is not finite, the prior precision is below 1e-100,
            `total` is less than n, or a full Hessian would have more than 16,384 rows.

    Source:
        Daxberger et al. 2021 (arXiv:2106.14806), section 3; Kristiadi et al. 2020 (arXiv:2002.10118) for the last layer;
        Zhou et al. 2025 (arXiv:2505.18636), baseline.
    """
    check_choice(hessian, HESSIANS, "Hessian")
    prior_precision = _check_prior(prior_precision)
    weight, bias = _check_layer(weight, bias)
    x = _check_features(features, weight)
    weight, bias = weight.to(x.device), bias.to(x.device)
    labels = check_labels(labels, len(weight), rows=len(x), device=x.device)
    total = len(x) if total is None else check_whole(total, "total")
    if total < len(x):
        raise ValueError(
            f"total must be at least the number of rows, {len(x)}; it is {total}. Rows of the whole training set?"
        )
    curvature = HESSIANS[hessian].curvature(x, labels, weight, bias, total / len(x))
    return LaplaceFit(weight, bias, hessian, curvature, prior_precision, total)


def laplace_probs(fit: LaplaceFit, features: Table, *, link: str = "probit") -> Float[Array, "n c"]:
    """Probabilities, float64, with the uncertainty of the last layer averaged out.

    Per row: "kron" d (d + c) + c² operations, "diag" c d, "full" c d². Memory grows with n (c + d).

    Args:
        fit: from `last_layer_laplace` or `choose_prior_precision`.
        features: (n, d).
        link: "probit" (MacKay: each logit divided by sqrt(1 + pi / 8 * its variance)), or "map" (the plain softmax of
            the network, which ignores the Gaussian).

    Raises:
        ValueError: if the link is unknown, features are not finite or have another width than the layer.

    Source:
        MacKay 1992 (Neural Computation 4, The evidence framework applied to classification networks); for many classes
        Gibbs 1997; Daxberger et al. 2021 (arXiv:2106.14806), section 3.
    """
    mix = LINKS[check_choice(link, LINKS, "link")]
    check_result(fit, LaplaceFit, "fit", "last_layer_laplace")
    _check_prior(fit.prior_precision)  # it may have been replaced
    return like(mix(fit, _check_features(features, fit.weight)).softmax(-1), features)


def choose_prior_precision(
    fit: LaplaceFit, features: Table, labels: Column, *, values: Column | None = None, link: str = "probit"
) -> PriorChoice:
    """The prior precision with the lowest NLL on validation examples, among values on a grid.

    The curvature is not found again: a value costs one call of `laplace_probs`.

    Args:
        fit: from `last_layer_laplace`.
        features: (n, d) of validation examples, which neither the network nor the fit has seen.
        labels: (n,), classes in [0, c).
        values: to try; by default 100 from 1e-4 to 1e4, evenly in the logarithm, as the package has them. If the best is
            the last of them, the examples see no use in the Gaussian: infinity gives the plain softmax.
        link: as in `laplace_probs`.

    Raises:
        ValueError: if a value is below 1e-100, the link is unknown, or features or labels do not fit.

    Source:
        Zhou et al. 2025 (arXiv:2505.18636), baseline: grid search on the validation split.
    """
    mix = LINKS[check_choice(link, LINKS, "link")]
    check_result(fit, LaplaceFit, "fit", "last_layer_laplace")
    x = _check_features(features, fit.weight)
    labels = check_labels(labels, len(fit.weight), rows=len(x), device=x.device)
    values = np.logspace(-4, 4, 100) if values is None else _check_values(values)
    fits = [fit._replace(prior_precision=_check_prior(value)) for value in values.tolist()]
    nlls = np.array([nll_loss(mix(each, x).log_softmax(-1), labels).item() for each in fits])
    best = fits[int(nlls.argmin())]
    return PriorChoice(best, best.prior_precision, values, nlls)


def decided_share(fit: LaplaceFit) -> float:
    """The share of the weights and biases that the training images decide rather than the prior.

    Source:
        MacKay 1992 (Neural Computation 4, Bayesian interpolation), section 4.4, the effective number of parameters over
        all: the mean of k / (k + prior precision) over the eigenvalues k of the curvature.
    """
    check_result(fit, LaplaceFit, "fit", "last_layer_laplace")
    values = torch.cat([part.flatten() for part in HESSIANS[fit.hessian].eigenvalues(*fit.curvature)])
    return (values / (values + fit.prior_precision)).mean().item()


def _kron(x: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, scale: float) -> tuple[Tensor, ...]:
    """Curvature = outer x inner for the weights and outer for the biases, as eigenvalues and eigenvectors of each."""
    package = _package()
    rows = JACOBIAN // len(weight) ** 2
    fit = _fit(package.KronLLLaplace, package.curvature.CurvlinopsGGN, x, labels, weight, bias, rows)
    (outer, inner), (outer_vectors, inner_vectors) = fit.H.eigenvalues[0], fit.H.eigenvectors[0]
    return scale * outer.clamp(min=0), outer_vectors, inner.clamp(min=0), inner_vectors


def _kron_variance(fit: LaplaceFit, x: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
    outer, outer_vectors, inner, inner_vectors = fit.curvature
    of_weights = (x @ inner_vectors).square() @ (1 / (torch.outer(outer, inner) + fit.prior_precision)).T
    return (of_weights + 1 / (outer + fit.prior_precision)) @ outer_vectors.square().T


def _diag(x: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, scale: float) -> tuple[Tensor, ...]:
    package = _package()
    rows = JACOBIAN // (len(weight) * (weight.numel() + len(weight)))
    fit = _fit(package.DiagLLLaplace, package.curvature.CurvlinopsGGN, x, labels, weight, bias, rows)
    of_weights, of_biases = fit.H.split([weight.numel(), len(weight)])
    return scale * of_weights.view_as(weight), scale * of_biases


def _diag_variance(fit: LaplaceFit, x: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
    of_weights, of_biases = (1 / (part + fit.prior_precision) for part in fit.curvature)
    return x.square() @ of_weights.T + of_biases


def _full(x: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, scale: float) -> tuple[Tensor, ...]:
    """Eigenvalues (p,), and the eigenvectors by class: (c, d + 1, p), the bias behind its weights."""
    package = _package()
    p = weight.numel() + len(weight)
    if p > LARGEST:
        raise ValueError(f"a full Hessian of {p} weights and biases is too large (at most {LARGEST}); choose 'kron'")
    rows = JACOBIAN // (len(weight) * p)
    # curvlinops would multiply with an identity in float32; this one is exact, and goes by the same Jacobian as "diag"
    fit = _fit(package.FullLLLaplace, package.curvature.BackPackGGN, x, labels, weight, bias, rows)
    values, vectors = torch.linalg.eigh(fit.H)
    of_weights, of_biases = vectors.split([weight.numel(), len(weight)])
    by_class = torch.cat([of_weights.view(*weight.shape, p), of_biases[:, None]], 1)
    return scale * values.clamp(min=0), by_class


def _full_variance(fit: LaplaceFit, x: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
    values, by_class = fit.curvature
    x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    covariances = ((vectors / (values + fit.prior_precision)) @ vectors.T for vectors in by_class)
    return torch.stack([(x @ covariance * x).sum(-1) for covariance in covariances], 1)


class _Hessian(NamedTuple):
    curvature: Callable[..., tuple[Tensor, ...]]
    variance: Callable[[LaplaceFit, Tensor], Tensor]
    eigenvalues: Callable[..., tuple[Tensor, ...]]  # of the parts of the curvature


HESSIANS = {
    "kron": _Hessian(_kron, _kron_variance, lambda outer, _, inner, __: (torch.outer(outer, inner), outer)),
    "diag": _Hessian(_diag, _diag_variance, lambda *parts: parts),
    "full": _Hessian(_full, _full_variance, lambda values, _: (values,)),
}


def _map(fit: LaplaceFit, x: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
    return x @ fit.weight.to(x.device).T + fit.bias.to(x.device)


def _probit(fit: LaplaceFit, x: Float[Tensor, "n d"]) -> Float[Tensor, "n c"]:
    fit = fit._replace(curvature=tuple(part.to(x.device) for part in fit.curvature))
    return _map(fit, x) / (1 + pi / 8 * HESSIANS[fit.hessian].variance(fit, x)).sqrt()


LINKS: dict[str, Callable[[LaplaceFit, Tensor], Tensor]] = {"probit": _probit, "map": _map}


def _fit(cls: type, backend: type, x: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, rows: int) -> Any:
    """The package's fit of one linear layer, in float64."""
    # without the initial weights, which would be drawn from the global generator
    layer = nn.utils.skip_init(nn.Linear, *reversed(weight.shape), dtype=weight.dtype, device=weight.device)
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    fit = cls(layer, "classification", backend=backend, last_layer_name="")
    batches = BatchSampler(SequentialSampler(range(len(x))), max(1, rows), drop_last=False)
    # a DataLoader draws from the global generator, even if nothing is shuffled, unless it has its own
    with torch.enable_grad():
        fit.fit(DataLoader(TensorDataset(x, labels), sampler=batches, batch_size=None, generator=torch.Generator()))
    return fit


def _package() -> ModuleType:
    """laplace-torch, which takes seconds to import and warns that torch.jit.script, which it calls, is deprecated."""
    with named(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)
        import laplace
        import laplace.curvature
    return laplace


def _check_layer(weight: Table, bias: Column) -> tuple[Float[Tensor, "c d"], Float[Tensor, " c"]]:
    weight, bias = as_tensor(weight, "weight").double(), as_tensor(bias, "bias").double()
    if weight.ndim != 2 or len(weight) < 2 or bias.shape != weight.shape[:1]:
        raise ValueError(
            f"weight must have shape (c, d) with c >= 2 classes, and bias (c,); they are {tuple(weight.shape)} and "
            f"{tuple(bias.shape)}. A layer without bias? Pass zeros."
        )
    for name, values in (("weight", weight), ("bias", bias)):
        if not values.isfinite().all():
            raise ValueError(f"{name} must be finite; a run that diverged?")
        check_size(values, name, BIGGEST)
    return weight, bias


def _check_features(features: Table, weight: Float[Tensor, "c d"]) -> Float[Tensor, "n d"]:
    x = as_tensor(features, "features")
    if x.ndim != 2 or not len(x) or x.shape[1] != weight.shape[1]:
        raise ValueError(
            f"features must have shape (n, {weight.shape[1]}), the width of the last layer, with at least one row; it is "
            f"{tuple(x.shape)}. Pass what enters the last layer, not what leaves it."
        )
    check_finite(x, "features")
    x = x.double()
    check_size(x, "features", BIGGEST)
    return x


def _check_prior(precision: float, name: str = "prior_precision") -> float:
    return check_number(precision, name, least=LEAST, finite=False)


def _check_values(values: Column) -> Float[np.ndarray, " k"]:
    values = as_tensor(values, "values")
    if values.ndim != 1 or values.dtype == torch.bool:
        raise ValueError(
            f"values must be prior precisions (k,); they are {values.dtype} of shape {tuple(values.shape)}"
        )
    if not len(values):
        raise ValueError("values is empty; at least one prior precision is needed")
    return np.array([_check_prior(value, "values") for value in values.double().tolist()])
