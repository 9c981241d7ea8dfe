"""Training of heads: what it learns, what leaves it as it is to the bit, and what never reaches the classifier."""

import re
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from uqlib.metrics import auroc
from uqlib.networks import Preprocessing
from uqlib.training import Views, loop
from uqlib.uncertainty import UncertaintyHead, joint_step, rank_pairs, scaled_rate, train_head, uncertainty_of
from uqlib.uncertainty.pretraining import source_adamw

fit = partial(train_head, epochs=3, batch=20, lr=0.02, progress=False)


def examples(n=200, d=5, seed=0):
    """Features, and losses that grow with the first of them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator)
    return x, (x[:, 0] + 0.3 * torch.randn(n, generator=generator)).exp()


def new():
    return UncertaintyHead(5, width=8, seed=1)


def bits(module):
    return [p.detach().clone() for p in module.state_dict().values()]


def same(one, other):
    return all(map(torch.equal, bits(one), bits(other)))


def trained(x, losses, **options):
    head = new()
    fit(head, x, losses, **options)
    return head


@pytest.mark.parametrize("objective", ["ranking", "regression"])
def test_a_head_learns_which_losses_are_large(objective):
    x, losses = examples(600)
    head = trained(x, losses, objective=objective, epochs=5)
    others, theirs = examples(500, seed=9)
    assert auroc(uncertainty_of(head, others), theirs > theirs.median()) > 0.9


def test_by_ranking_only_the_order_of_the_losses_counts_to_the_bit():
    x, losses = examples()
    head, ranks = trained(x, losses), losses.argsort().argsort()
    assert not same(head, new())
    for other in (8 * losses, ranks.float(), ranks.tolist(), 1e9 + 1e-3 * ranks.double()):
        assert same(head, trained(x, other))
    assert not same(head, trained(x, -losses))
    assert not same(trained(x, losses, objective="regression"), trained(x, 8 * losses, objective="regression"))


def test_a_training_follows_its_seed_and_leaves_its_inputs_alone():
    x, losses = examples()
    before = x.clone(), losses.clone()
    assert same(trained(x, losses, seed=4), trained(x, losses, seed=4))
    assert not same(trained(x, losses, seed=4), trained(x, losses, seed=5))
    assert torch.equal(x, before[0])
    assert torch.equal(losses, before[1])
    half = trained(x.half(), losses)
    assert same(half, trained(x.half().float(), losses))  # half precision is what it holds


def test_the_objective_may_be_a_function():
    x, losses = examples()
    assert same(trained(x, losses), trained(x, losses, objective=partial(rank_pairs, margin=0.1)))
    assert not same(trained(x, losses), trained(x, losses, objective=partial(rank_pairs, margin=1.0)))


def test_the_optimiser_and_the_rate_are_those_of_the_source():
    """One step of AdamW, written out: the first moment of the bias is the gradient, so the step is the rate and the decay."""
    x, losses = examples(20)
    head = new()
    before = bits(head)
    [log] = train_head(head, x, losses, epochs=1, batch=20, warmup=0, schedule="constant", progress=False)
    assert log.lr == scaled_rate(20) == pytest.approx(1e-3 * np.sqrt(20 / 256))
    assert scaled_rate(2048) == pytest.approx(2.83e-3, rel=1e-3)
    for old, moved in zip(before, bits(head), strict=True):
        step = (moved - old * (1 - log.lr * 1e-4)).abs()
        assert step.max() == pytest.approx(log.lr, rel=0.02)
    assert source_adamw(head.parameters(), 0.1, 0.2).defaults["betas"] == (0.8, 0.95)


def test_a_killed_training_goes_on_to_the_same_bits(tmp_path):
    x, losses = examples()
    whole, place = trained(x, losses, epochs=4), tmp_path / "head.pt"
    calls = []

    def killed():
        calls.append(0)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        fit(new(), x, losses, epochs=4, checkpoint=place, judge=killed)
    head = new()
    history = fit(head, x, losses, epochs=4, checkpoint=place)
    assert same(head, whole)
    assert [log.epoch for log in history] == [1, 2, 3, 4]
    for other in ({"losses": losses.flip(0)}, {"features": x + 1}):
        with pytest.raises(ValueError, match=f"other settings: {next(iter(other))}"):
            fit(new(), **{"features": x, "losses": losses} | other, epochs=4, checkpoint=place)
    with pytest.raises(ValueError, match="other settings: objective"):
        fit(new(), x, losses, epochs=4, checkpoint=place, objective="regression")
    with pytest.raises(TypeError, match="has no lasting identity"):
        fit(new(), x, losses, checkpoint=tmp_path / "other.pt", objective=partial(rank_pairs, margin=0.2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda x, y: (x, torch.full_like(y, 0.25)),
            "losses must differ; all 200 are 0.25, and have no order to learn",
        ),
        (lambda x, y: (x, y.index_fill(0, torch.tensor([7]), float("nan"))), "losses must be finite; row 7 is nan"),
        (lambda x, y: (x, y[:-1]), "losses has 199 rows where 200 are expected"),
        (lambda x, y: (x, y[:, None].expand(-1, 2)), "losses must have one axis (n,); its shape is (200, 2)"),
        (lambda x, y: (x.index_fill(0, torch.tensor([3]), float("inf")), y), "features must be finite; row 3"),
        (lambda x, y: (x[:, :4], y), "features must have width 5; they have 4. Of another network?"),
    ],
)
def test_what_teaches_nothing_is_refused(unchecked, change, message):
    head = new()
    with pytest.raises(ValueError, match=re.escape(message)):
        fit(head, *change(*examples()))
    assert same(head, new())


def test_odd_batches_make_no_pairs_and_small_sets_one_batch(unchecked):
    x, losses = examples(31)
    with pytest.raises(ValueError, match="n even, to make pairs"):
        fit(new(), x, losses, batch=21)
    fit(new(), x, losses, batch=21, objective="regression")
    [log] = train_head(new(), x, losses, epochs=1, progress=False)
    assert log.lr == pytest.approx(scaled_rate(30), abs=1e-3)  # the largest even batch
    train_head(new(), x[:2], losses[:2], epochs=1, progress=False)
    with pytest.raises(ValueError, match="unknown objective 'rank'; choose from ranking, regression"):
        fit(new(), x, losses, objective="rank")
    with pytest.raises(TypeError, match="unknown option 'size' of"):
        fit(new(), x, losses, size=3)


# A classifier and its head together


class Net(nn.Module):
    """A convolution, batch norm, dropout and a classifier."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.conv, self.norm, self.head = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.Linear(5, 3)

    def get_classifier(self):
        return self.head

    def forward(self, x):
        return self.head(F.dropout(F.relu(self.norm(self.conv(x))).mean((2, 3)), 0.3, self.training))


def together(pictures, *, head=True, **options):
    """A classifier after three epochs, with its head or alone, and the head."""
    images, labels = pictures
    net, own = Net(), new()
    views = Views(images, Preprocessing(8, (0.5,) * 3, (0.25,) * 3), "flip_shift", beside=net)

    def alone(rows, generator):
        return F.cross_entropy(net(views(rows, generator)), torch.as_tensor(labels)[rows], reduction="none").mean()

    step = joint_step(net, own, views, labels, **options) if head else alone
    parts = {"net": net, "head": own} if head else {"net": net}
    trained = [p for part in parts.values() for p in part.parameters()]
    loop(step, examples=len(labels), parts=parts, trained=trained, epochs=3, lr=0.05, batch=8, progress=False)
    return net, own


@pytest.mark.parametrize("objective", ["ranking", "regression"])
def test_behind_the_stop_gradient_the_classifier_ends_with_the_bits_of_one_without_a_head(pictures, objective):
    plain, _ = together(pictures, head=False)
    net, head = together(pictures, objective=objective)
    assert same(net, plain)
    assert not same(head, new())
    pulled, _ = together(pictures, objective=objective, stop_gradient=False)
    assert not same(pulled, plain)
    nothing, _ = together(pictures, objective=objective, stop_gradient=False, weight=0.0)
    assert same(nothing, plain)


def test_the_joint_loss_is_cross_entropy_and_the_weighted_objective(pictures):
    images, labels = pictures
    net, head = Net().eval(), new()
    views = Views(images, Preprocessing(8, (0.5,) * 3, (0.25,) * 3), beside=net)
    rows, generator = torch.arange(10), torch.Generator()
    seen = views(rows, generator)
    hidden = F.relu(net.norm(net.conv(seen))).mean((2, 3))
    each = F.cross_entropy(net.head(hidden), torch.as_tensor(labels)[:10], reduction="none")
    expected = each.mean() + 0.25 * (head(hidden) - each).square().mean()
    found = joint_step(net, head, views, labels, weight=0.25)(rows, generator)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    found.backward()
    gradient = net.conv.weight.grad.clone()
    net.zero_grad()
    each.mean().backward()
    assert torch.equal(gradient, net.conv.weight.grad)


def test_what_cannot_be_trained_together_is_refused(unchecked, pictures):
    for wrong, message in (
        ({"weight": -1}, "weight must be a finite number of at least 0"),
        ({"objective": "rank"}, "unknown objective 'rank'"),
    ):
        with pytest.raises(ValueError, match=message):
            together(pictures, **wrong)
    with pytest.raises(TypeError, match="labels must be integers"):
        together((pictures[0], pictures[1] / 2))
