"""Heads of a stack are those that would be trained alone, and what is kept of them has its shape."""

import numpy as np
import pytest
import torch

from uqlib.experiments.short import zhu2023_runs
from uqlib.experiments.short.zhu2023_runs import LOSSES_OF, NOISES, PLAN, ask_heads, fit_heads, noisy_cifar

SMALL = PLAN | {"fit": 256, "held": 64, "tested": 50, "epochs": 2, "seeds": 2, "hidden": 8}


@pytest.fixture(autouse=True)
def in_the_checkout(repository, monkeypatch):
    monkeypatch.chdir(repository)


@pytest.mark.parametrize(("name", "noise"), [("ce", "uniform 0.6"), ("aldr_1.0", "uniform 0.6"), ("oracle", "clean")])
def test_a_head_of_a_stack_is_the_one_that_is_trained_alone(name, noise):
    both, alone = (noisy_cifar(noise, seeds, SMALL) for seeds in ([3, 4], [4]))
    one, other = fit_heads(name, both, [0.01, 0.1], SMALL), fit_heads(name, alone, [0.1], SMALL)
    assert torch.allclose(ask_heads(one.last, both.held)[1], ask_heads(other.last, alone.held)[0], atol=1e-4)
    if name == "aldr_1.0":
        assert torch.allclose(one.temperatures[1], other.temperatures[0], atol=1e-5)
        assert ((one.temperatures >= 0.5) & (one.temperatures < 1)).all()


def test_a_stack_is_trained_as_torch_would_train_it():
    """The first step of the first head, with the optimizer of torch: its momentum and weight decay."""
    plan = SMALL | {"epochs": 1, "batch": 256}
    data = noisy_cifar("clean", [0], plan)
    start = [w[0] for w in fit_heads("ce", data, [0.0], plan).last]
    stepped = [w[0] for w in fit_heads("ce", data, [0.1], plan).last]
    weights = [w.clone().requires_grad_() for w in start]
    hidden = (data.fit[0] / zhu2023_runs.SIZE @ weights[0] + weights[1]).relu()
    torch.nn.functional.cross_entropy(hidden @ weights[2] + weights[3], data.given[0]).backward()
    for before, after, w in zip(start, stepped, weights, strict=True):
        assert torch.allclose(after, before - 0.1 * (w.grad + PLAN["decay"] * before), atol=1e-6)


def test_noise_at_random_leaves_a_tenth_of_what_is_drawn_right():
    data = noisy_cifar("uniform 0.6", [0, 1], PLAN)
    assert data.right.double().mean().item() == pytest.approx(1 - 0.6 * 0.9, abs=4 * (0.25 / 16_000) ** 0.5)
    assert noisy_cifar("clean", [0], SMALL).right.all()


def test_what_is_kept_has_its_shape(monkeypatch):
    monkeypatch.setattr(zhu2023_runs, "LOSSES_OF", {name: LOSSES_OF[name] for name in ("ce", "aldr_1.0")})
    found = zhu2023_runs.judge_losses("uniform 0.6", SMALL, "cpu")
    assert found.columns["correct"].shape == (2, 2, 7)
    assert found.columns["measured"].shape == (2, 2, len(PLAN["measures"]))
    finite = np.isfinite(found.columns["measured"])
    assert finite[1].all()
    assert finite[0].sum(1).tolist() == [len(PLAN["measures"]) - 1] * 2  # cross entropy has no temperatures


def test_all_runs_are_there_and_the_chosen_temperature_is_one_of_three():
    accuracy, measured = zhu2023_runs.losses_so_far(draws=2)
    assert list(accuracy["noise"].values) == list(NOISES)
    assert accuracy.sizes == {"noise": 5, "variant": len(LOSSES_OF) + 2, "training": 5, "draw": 3}
    assert accuracy.notnull().all()
    held = measured.sel(measure="held")
    for family in ("ldr", "aldr"):
        three = held.sel(variant=[f"{family}_{t}" for t in zhu2023_runs.TEMPERATURES])
        assert (held.sel(variant=family) == three.max("variant")).all()
