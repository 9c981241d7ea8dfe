"""The strong attack: ART sees the same logits, the success is judged here, nothing of the caller's changes."""

import copy
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from uqlib.attack import PARTS, UnitImages, robust_correct, strong, strong_correct
from uqlib.networks import Preprocessing

pytest.importorskip("art", reason="adversarial-robustness-toolbox is not installed: pip install 'uqlib[attack]'")
QUICK = {"radius": 0.05, "classes": 4, "seed": 0, "steps": 10}


def tints(n=60, seed=0):
    """Noise with a tint of one of four classes."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 4
    colours = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])[labels]
    return 0.8 * torch.rand(n, 3, 8, 8, generator=generator) + 0.2 * colours[:, :, None, None], labels


@pytest.fixture(scope="module")
def learnt():
    """A network with batch norm and its own normalisation that knows the tints."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(32, 4))
    network = UnitImages(model, Preprocessing(8, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))).train()
    images, labels = tints(400, seed=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(60):
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    optimizer.zero_grad()
    return network.eval()


def test_the_toolbox_sees_the_same_logits_and_slopes(learnt):
    images, labels = tints()
    estimator = strong._estimator(learnt, images, 4)
    assert np.abs(estimator.predict(images.numpy()) - learnt(images).detach().numpy()).max() < 1e-5
    x = images.clone().requires_grad_()
    slope = torch.autograd.grad(F.cross_entropy(learnt(x), labels), x)[0]
    # of the mean over the batch in ART
    assert np.abs(60 * estimator.loss_gradient(images.numpy(), np.eye(4)[labels]) - 60 * slope.numpy()).max() < 1e-5


def test_on_a_linear_network_it_finds_who_can_be_moved_across_the_border():
    """With two classes of three far away, an image holds if its margin is above the radius times the sum of |w|."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    with torch.no_grad():
        network[1].bias.copy_(torch.tensor([0.0, 0.0, -100.0]))
    images = 0.25 + 0.5 * torch.rand(200, 3, 4, 4)  # nothing is cut at 0 or 1
    logits = network(images).detach()
    labels = logits.argmax(-1)
    apart = (network[1].weight[0] - network[1].weight[1]).abs().sum().item()
    margin = (logits[:, 0] - logits[:, 1]).abs()
    radius = margin.median().item() / apart
    sure = (margin - radius * apart).abs() > 0.02 * radius * apart  # the last hundredths may take more steps
    found = strong_correct(network, images, labels, radius=radius, classes=3, seed=0, steps=30)
    assert torch.equal(found[sure], (margin > radius * apart)[sure])
    assert 0.3 < found.double().mean() < 0.7


def test_it_is_at_least_as_strong_as_pgd(learnt):
    images, labels = tints()
    options = {"radius": 0.06, "step_size": 0.01, "steps": 20}
    weak = robust_correct(learnt, images, labels, generator=torch.Generator().manual_seed(0), **options)
    strong_ = strong_correct(learnt, images, labels, **(QUICK | {"radius": 0.06, "steps": 30}))
    assert 0.1 < weak.double().mean() < 0.9
    assert strong_.sum() <= weak.sum()


def test_more_parts_leave_fewer_and_each_part_works(learnt):
    images, labels = tints()
    options = QUICK | {"radius": 0.1, "steps": 3}
    left = {part: strong_correct(learnt, images, labels, parts=[part], **options) for part in PARTS}
    clean = (learnt(images).argmax(-1) == labels).sum()
    assert all(each.sum() < clean for each in left.values())
    every = strong_correct(learnt, images, labels, parts=list(PARTS), **options)
    assert every.sum() <= min(each.sum() for each in left.values())
    assert not (every & ~left["apgd_ce"]).any()  # the first part begins as it does alone


def test_what_is_found_lies_in_the_ball(learnt):
    images, labels = tints()
    for part in PARTS.values():
        estimator = strong._estimator(learnt, images, 4)
        moved = strong._moved(part, estimator, images, labels, strong._Effort(0.05, 5, 1, 60))
        assert (moved - images).abs().max() <= 0.05 + 1e-7
        assert moved.min() >= 0
        assert moved.max() <= 1
        assert not torch.equal(moved, images)


def test_the_same_seed_gives_the_same_and_nothing_of_the_caller_changes(learnt):
    images, labels = tints()
    network = copy.deepcopy(learnt).train()
    network.model[5].bias.grad = torch.arange(4.0)
    before, modes = copy.deepcopy(network.state_dict()), [each.training for each in network.modules()]
    torch.manual_seed(1)
    np.random.seed(1)
    random = torch.get_rng_state(), np.random.get_state()[1].copy()
    first, again = (strong_correct(network, images, labels, **QUICK) for _ in range(2))
    assert torch.equal(first, again)
    assert torch.equal(random[0], torch.get_rng_state())
    assert np.array_equal(random[1], np.random.get_state()[1])
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert [each.training for each in network.modules()] == modes
    assert all(p.requires_grad for p in network.parameters())
    assert torch.equal(network.model[5].bias.grad, torch.arange(4.0))
    assert sum(p.grad is not None for p in network.parameters()) == 1


def test_what_is_wrong_before_counts_as_wrong_and_is_not_attacked(learnt, monkeypatch):
    images, _ = tints()
    wrong = (learnt(images).argmax(-1) + 1) % 4
    monkeypatch.setattr(strong, "_moved", lambda *args: pytest.fail("nothing is left to attack"))
    assert not strong_correct(learnt, images, wrong, **QUICK).any()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"radius": 8}, ValueError, r"radius must lie in \(0, 1\].* it is 8"),
        ({"classes": 5}, ValueError, r"classes is 5, but the network's logits have shape \(60, 4\)"),
        ({"classes": 1}, ValueError, r"classes must be a whole number.*; it is 1"),
        ({"seed": -1}, ValueError, "seed must be a whole number.*; it is -1"),
        ({"steps": 0}, ValueError, "steps must be a whole number.*; it is 0"),
        ({"restarts": 0}, ValueError, "restarts must be a whole number.*; it is 0"),
        ({"batch": 2.5}, TypeError, "batch must be a whole number.*; it is 2.5"),
        ({"parts": ["fab"]}, ValueError, "unknown part 'fab'; choose from apgd_ce, apgd_dlr, deepfool, square"),
        ({"parts": []}, ValueError, "parts must be a list of names, at least one of apgd_ce.*; it is \\[\\]"),
        ({"parts": "square"}, ValueError, "parts must be a list of names.*; it is 'square'"),
        (
            {"classes": 2, "labels": torch.zeros(60, dtype=torch.long)},
            ValueError,
            "the DLR loss needs at least 3 classes",
        ),
        ({"labels": torch.full((60,), 7)}, ValueError, r"labels must lie in \[0, 4\); row 0 is 7"),
        ({"images": tints()[0] * 255}, ValueError, r"images must lie in \[0, 1\]; they reach from"),
    ],
)
def test_bad_input_is_named(unchecked, learnt, changes, error, message):
    images, labels = tints()
    with pytest.raises(error, match=message):
        strong_correct(learnt, **({"images": images, "labels": labels} | QUICK | changes))


def test_a_network_in_double_precision_is_attacked_alike(learnt):
    double = copy.deepcopy(learnt).double()
    assert strong_correct(double, *tints(), **QUICK).tolist() == strong_correct(learnt, *tints(), **QUICK).tolist()


def test_without_the_toolbox_the_error_names_the_extra(learnt, monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "art"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "art", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"this needs art, which is not installed: pip install 'uqlib\[attack\]'"
    ):
        strong_correct(learnt, *tints(), **QUICK)
