import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from uqlib.experiments.benchmarks import load_benchmark
from uqlib.solve.likelihood import fit_nonnegative_weights, nll_derivatives


@pytest.mark.parametrize("m", [1, 2, 3])
def test_derivatives_are_moments_of_the_softmax(m):
    generator = torch.Generator().manual_seed(m)
    members = list(2 * torch.randn(m, 200, 5, generator=generator, dtype=torch.float64))
    labels = torch.randint(5, (200,), generator=generator)
    weights = torch.rand(m, generator=generator, dtype=torch.float64)
    value, gradient, hessian = nll_derivatives(members, labels, weights)

    f = np.stack(members)
    mixed = np.tensordot(weights.numpy(), f, 1)
    assert value == pytest.approx(-log_softmax(mixed, -1)[np.arange(200), labels].mean(), rel=1e-13)
    p = softmax(mixed, -1)
    own = f[:, np.arange(200), labels]
    np.testing.assert_allclose(gradient, ((p * f).sum(-1) - own).mean(-1), atol=1e-13)
    centred = f - (p * f).sum(-1, keepdims=True)
    covariance = np.einsum("nc,inc,jnc->ij", p, centred, centred) / 200
    np.testing.assert_allclose(hessian, covariance, atol=1e-13)


def test_half_precision_is_read_and_not_computed_in():
    logits = (4 * torch.randn(300, 5, generator=torch.Generator().manual_seed(0))).half()
    labels = torch.arange(300) % 5
    one = torch.ones(1, dtype=torch.float64)
    half, double = nll_derivatives([logits], labels, one), nll_derivatives([logits.double()], labels, one)
    assert half[0] == double[0]
    assert half[2].equal(double[2])


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_real_networks_on_a_thousand_classes_take_few_passes_at_any_scale(scale):
    bench = load_benchmark("imagenet")
    large, small = bench.answers(bench.nearest(0.1)).values()
    fit = fit_nonnegative_weights([scale * each.logits[:500] for each in (large, small)], large.labels[:500])
    assert fit.iterations <= 7  # ten from zero, with other pairs up to thirty
    assert fit.residual / scale < 1e-8
