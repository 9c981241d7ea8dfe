"""Heads that are trained at once, beside a loop of torch.nn networks that are trained one by one."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from uqlib import losses
from uqlib.training.stacked import (
    Recipe,
    each_logits,
    first_heads,
    orders_of_epoch,
    stacked_logits,
    train_each,
    train_heads,
)

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


OWN = dict(recipe=Recipe(hidden=H, epochs=4, batch=8), seeds=[5, 9], rates=[0.05, 0.2], classes=C)


@pytest.fixture
def own():
    """Examples of two heads, 32 each, and as many held out."""
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(2, 64, D, generator=generator)
    y = (x[..., :C] + 0.5 * torch.randn(2, 64, C, generator=generator)).argmax(-1)
    return x[:, :32], y[:, :32], (x[:, 32:], y[:, 32:])


def torch_alone(x, y, start, *, seed, rate, epochs, decay=0.0, weights=None):
    """One head, by torch's own layers, loss and optimizer; the accuracy after each epoch is the caller's."""
    net = nn.Sequential(nn.Linear(D, H), nn.ReLU(), nn.Linear(H, C))
    with torch.no_grad():
        for own, value in zip(net.parameters(), (start[0].T, start[1][0], start[2].T, start[3][0]), strict=True):
            own.copy_(value)
    generator = torch.Generator().manual_seed(seed)
    for shape in ((D, H), (1, H), (H, C), (1, C)):  # the weights come first from the same stream
        torch.rand(shape, generator=generator)
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * (len(x) // 8))
    nets = []
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(8)[: len(x) // 8]:
            terms = nn.functional.cross_entropy(net(x[rows]), y[rows], reduction="none")
            part = torch.ones(len(rows)) if weights is None else weights[rows]
            optimizer.zero_grad()
            ((terms * part).sum() / part.sum()).backward()
            optimizer.step()
            schedule.step()
        nets.append(copy.deepcopy(net))
    return nets


@pytest.mark.parametrize("weighted", [False, True])
def test_each_of_its_own_examples_is_what_torch_would_train(own, weighted):
    x, y, held = own
    weights = torch.rand(2, 32, generator=torch.Generator().manual_seed(3)) + 0.1 if weighted else None
    found = train_each(
        x,
        y,
        losses.loss("cross_entropy"),
        held=held,
        weights=weights,
        **OWN | {"recipe": OWN["recipe"]._replace(weight_decay=1e-2)},
    )
    start = train_each(x, y, losses.loss("cross_entropy"), held=held, **OWN | {"rates": [0.0, 0.0]}).last
    for k, (seed, rate) in enumerate(zip(OWN["seeds"], OWN["rates"], strict=True)):
        nets = torch_alone(
            x[k], y[k], [each[k] for each in start], seed=seed, rate=rate, epochs=4, decay=1e-2,
            weights=None if weights is None else weights[k],
        )  # fmt: skip
        right = [(net(held[0][k]).argmax(-1) == held[1][k]).float().mean().item() for net in nets]
        assert found.held[k].item() == pytest.approx(right[-1])
        assert found.held_best[k].item() == pytest.approx(max(right))
        torch.testing.assert_close(each_logits(found.last, held[0])[k], nets[-1](held[0][k]), rtol=1e-4, atol=1e-4)
        best = nets[right.index(max(right))]
        torch.testing.assert_close(each_logits(found.best, held[0])[k], best(held[0][k]), rtol=1e-4, atol=1e-4)


def test_a_loss_that_remembers_sees_each_head_in_rows_of_its_own(own):
    x, y, held = own
    criterion = losses.loss("aldr", examples=64, temperature=1.0)
    found = train_each(x, y, criterion, held=held, **OWN)
    for k in range(2):
        alone = losses.loss("aldr", examples=32, temperature=1.0)
        how = OWN | {"seeds": OWN["seeds"][k : k + 1], "rates": OWN["rates"][k : k + 1]}
        one = train_each(x[k : k + 1], y[k : k + 1], alone, held=tuple(part[k : k + 1] for part in held), **how)
        torch.testing.assert_close(
            each_logits(one.last, held[0][k]), each_logits(found.last, held[0])[k : k + 1], rtol=1e-4, atol=1e-4
        )
        torch.testing.assert_close(alone.temperatures, criterion.temperatures.view(2, 32)[k], rtol=1e-4, atol=1e-5)


def test_heads_of_their_own_refuse_what_does_not_fit(own):
    x, y, held = own
    plain = losses.loss("cross_entropy")
    with pytest.raises(
        ValueError, match=r"seeds, rates and held must have an entry a head, 2; they have 1, 2 and 2 and 2"
    ):
        train_each(x, y, plain, held=held, **OWN | {"seeds": [1]})
    with pytest.raises(ValueError, match="labels must lie in"):
        train_each(x, y + 1, plain, held=held, **OWN)
    for name, value in {"hidden": 0, "epochs": 0, "batch": 33}.items():
        with pytest.raises(ValueError, match=name):
            train_each(x, y, plain, held=held, **OWN | {"recipe": OWN["recipe"]._replace(**{name: value})})
