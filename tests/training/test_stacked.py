"""Heads that are trained at once, beside a loop of torch.nn networks that are trained one by one."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from uqlib.training.stacked import first_heads, orders_of_epoch, stacked_logits, train_heads

D, H, C, N = 6, 5, 3, 37
SEEDS, VARIANTS = 3, 2
RECIPE = dict(classes=C, hidden=H, epochs=3, batch=8, lr=0.1, weight_decay=1e-2)


@pytest.fixture
def examples():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(N, D, generator=generator, dtype=torch.float64)
    y = (x[:, :C] + 0.3 * torch.randn(N, C, generator=generator, dtype=torch.float64)).argmax(-1)
    return x, y, torch.rand(SEEDS, VARIANTS, N, generator=generator, dtype=torch.float64)


def alone(x, y, bonus, seed, variant):
    """One head, by torch's own layers, loss and schedule."""
    start = first_heads(SEEDS, VARIANTS, (D, H, C), torch.float64)
    net = nn.Sequential(nn.Linear(D, H), nn.ReLU(), nn.Linear(H, C)).double()
    with torch.no_grad():
        units = slice(variant * H, (variant + 1) * H)
        net[0].weight.copy_(start.first[seed, :, units].T)
        net[0].bias.copy_(start.shift[seed, 0, units])
        net[2].weight.copy_(start.second[seed, variant].T)
        net[2].bias.copy_(start.offset[seed, variant, 0])
    optimizer = torch.optim.SGD(net.parameters(), lr=RECIPE["lr"], momentum=0.9, weight_decay=RECIPE["weight_decay"])
    steps = RECIPE["epochs"] * math.ceil(N / RECIPE["batch"])
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for epoch in range(RECIPE["epochs"]):
        for rows in orders_of_epoch(SEEDS, epoch, N)[seed].split(RECIPE["batch"]):
            logits = net(x[rows])
            entropy = torch.distributions.Categorical(logits=logits).entropy()
            loss = nn.functional.cross_entropy(logits, y[rows]) - (bonus[seed, variant, rows] * entropy).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return net(x).detach()


def test_each_head_ends_as_if_it_were_trained_alone(examples):
    found = stacked_logits(train_heads(*examples, **RECIPE), examples[0], batch=10)
    assert found.shape == (SEEDS, VARIANTS, N, C)
    for seed in range(SEEDS):
        for variant in range(VARIANTS):
            torch.testing.assert_close(found[seed, variant], alone(*examples, seed, variant), rtol=1e-9, atol=1e-11)


def test_heads_of_a_seed_begin_alike_and_those_of_two_do_not():
    heads = first_heads(SEEDS, VARIANTS, (D, H, C))
    assert torch.equal(heads.first[..., :H], heads.first[..., H:])
    assert torch.equal(heads.second[:, 0], heads.second[:, 1])
    assert not torch.equal(heads.first[0], heads.first[1])
    assert heads.first.abs().max() <= 1 / math.sqrt(D)
    wide = first_heads(1, 1, (400, 300, 10)).first
    assert wide.var().item() == pytest.approx(1 / 400 / 3, rel=0.02)  # of a uniform distribution


def test_every_epoch_takes_every_example_once_in_an_order_of_its_own():
    orders = [orders_of_epoch(2, epoch, N) for epoch in (0, 1)]
    for order in orders:
        assert np.array_equal(order.sort(1).values, np.tile(np.arange(N), (2, 1)))
    drawn = {tuple(row.tolist()) for order in orders for row in order}
    assert len(drawn) == 4
    assert torch.equal(orders_of_epoch(5, 1, N)[:2], orders[1])  # more seeds change nothing of the first


def test_what_does_not_fit_is_refused(examples):
    x, y, bonus = examples
    with pytest.raises(ValueError, match=r"bonus must have an entry an example, \(s, v, 37\); it is \(3, 2, 36\)"):
        train_heads(x, y, bonus[..., :-1], **RECIPE)
    with pytest.raises(ValueError, match="labels must lie in"):
        train_heads(x, y, bonus, **RECIPE | {"classes": 2})
    for name in ("hidden", "epochs", "batch"):
        with pytest.raises(ValueError, match=name):
            train_heads(x, y, bonus, **RECIPE | {name: 0})
    with pytest.raises(ValueError, match="lr must be"):
        train_heads(x, y, bonus, **RECIPE | {"lr": 0})
