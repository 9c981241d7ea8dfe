"""The ranking loss in closed form, beside a loop over the pairs, and its gradient beside finite differences."""

import numpy as np
import pytest
import torch

from uqlib.uncertainty import OBJECTIVES, predict_loss, rank_pairs


def drawn(n=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, generator=generator, dtype=torch.float64), torch.rand(n, generator=generator).double()


@pytest.mark.parametrize("leeway", [0.0, 0.3])
def test_the_loss_is_the_mean_over_consecutive_pairs(leeway):
    u, losses = drawn()
    losses[4] = losses[5]
    told = []
    for a in range(0, 40, 2):
        sign = 1 if losses[a] > losses[a + 1] else -1
        sign = 0 if leeway and abs(losses[a] - losses[a + 1]) < leeway else sign
        told.append(max(0.0, 0.1 - sign * float(u[a] - u[a + 1])))
    assert rank_pairs(u, losses, leeway=leeway).item() == pytest.approx(np.mean(told), rel=1e-12)


def test_the_loss_is_zero_where_all_pairs_are_apart_by_the_margin():
    _, losses = drawn()
    order = losses.argsort().argsort().double()
    assert rank_pairs(0.1001 * order, losses).item() == 0
    assert rank_pairs(0.0999 * order, losses).item() <= 1e-4
    assert rank_pairs(-0.1 * order, losses) > 0.2  # the wrong way round


@pytest.mark.parametrize("margin", [0.01, 0.1, 1.0])
def test_the_loss_of_a_constant_is_the_margin(margin):
    _, losses = drawn()
    for level in (0.0, 0.5):
        assert rank_pairs(torch.full((40,), level), losses, margin=margin).item() == pytest.approx(margin, rel=1e-6)


def test_the_gradient_within_the_margin_is_plus_or_minus_one_over_the_pairs():
    losses = torch.tensor([3.0, 1.0, 1.0, 3.0, 2.0, 2.0, 9.0, 0.0])
    u = torch.tensor([0.05, 0.0, 0.05, 0.0, 0.0, 0.0, 0.5, 0.1], requires_grad=True)
    rank_pairs(u, losses).backward()
    # the pairs: right but too near, wrong, equal losses (the second is taken for the harder), apart by more than the margin
    np.testing.assert_allclose(u.grad, np.array([-1, 1, 1, -1, 1, -1, 0, 0]) / 4, atol=1e-7)
    u.grad = None
    rank_pairs(u, losses, leeway=1.5).backward()  # the pair of equal losses has no say
    np.testing.assert_allclose(u.grad, np.array([-1, 1, 1, -1, 0, 0, 0, 0]) / 4, atol=1e-7)


@pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES)
def test_no_gradient_goes_to_the_losses(objective):
    u, losses = (each.requires_grad_() for each in drawn())
    assert torch.autograd.gradcheck(lambda u: objective(u, losses), u)
    objective(u, losses).backward()
    assert losses.grad is None


def test_only_the_order_of_the_losses_counts():
    u, losses = drawn()
    ranks = losses.argsort().argsort().double()
    for other in (8 * losses, losses.exp(), losses - 5, ranks):
        assert torch.equal(rank_pairs(u, losses), rank_pairs(u, other))
    near = 1e9 + 1e-3 * ranks  # float32 would make one number of all
    assert torch.equal(rank_pairs(u.float(), losses), rank_pairs(u.float(), near))


def test_only_differences_of_the_uncertainty_count():
    u, losses = drawn()
    assert rank_pairs(u, losses) == pytest.approx(rank_pairs(u + 7, losses).item(), rel=1e-12)


def test_loss_prediction_is_the_mean_squared_error():
    u, losses = drawn()
    assert predict_loss(u, losses).item() == pytest.approx(np.mean((u.numpy() - losses.numpy()) ** 2), rel=1e-12)
    assert predict_loss(u.float(), losses).dtype == torch.float32


@pytest.mark.parametrize("sizes", [(3, 3), (0, 0), (4, 2)])
def test_what_makes_no_pairs_is_refused(unchecked, sizes):
    with pytest.raises(ValueError, match=r"must be \(n,\), n even, to make pairs; they are"):
        rank_pairs(*map(torch.zeros, sizes))
    with pytest.raises(ValueError, match="margin must be a finite number above 0; it is 0"):
        rank_pairs(torch.zeros(2), torch.zeros(2), margin=0)
    with pytest.raises(ValueError, match="leeway must be a finite number of at least 0; it is -1"):
        rank_pairs(torch.zeros(2), torch.zeros(2), leeway=-1)


def test_losses_of_another_shape_are_not_spread_over_all_pairs(unchecked):
    u, losses = drawn()
    with pytest.raises(ValueError, match=r"must have one shape \(n,\); they are \(40,\) and \(40, 1\)"):
        predict_loss(u, losses[:, None])
