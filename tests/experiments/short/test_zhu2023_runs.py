"""Heads of a stack are those that would be trained alone, and what is kept of them has its shape."""

import re

import numpy as np
import pytest
import torch

from uqlib.experiments.short import zhu2023_runs
from uqlib.experiments.short.noisy_components import NOISES, noisy_components
from uqlib.experiments.short.zhu2023_runs import LOSSES_OF, PLAN, ask_heads, fit_heads

SMALL = PLAN | {"fit": 256, "held": 64, "tested": 50, "seeds": 2}
SMALL["training"] = PLAN["training"] | {"epochs": 2, "hidden": 8}


@pytest.fixture(autouse=True)
def in_the_checkout(repository, monkeypatch):
    monkeypatch.chdir(repository)


@pytest.mark.parametrize(
    ("name", "noise"), [("aldr_1.0", "uniform 0.6"), ("oracle", "clean"), ("oracle", "uniform 0.6")]
)
def test_a_head_of_a_stack_is_the_one_that_is_trained_alone(name, noise):
    both, alone = (noisy_components(noise, seeds, fit=256, held=64) for seeds in ([3, 4], [4]))
    one, warm = fit_heads(name, both, [0.01, 0.1], **SMALL["training"])
    other, cold = fit_heads(name, alone, [0.1], **SMALL["training"])
    assert torch.allclose(ask_heads(one.last, both.held)[1], ask_heads(other.last, alone.held)[0], atol=1e-4)
    if name == "aldr_1.0":
        assert torch.allclose(warm[1], cold[0], atol=1e-5)
        assert ((warm >= 0.5) & (warm < 1)).all()


def test_noise_at_random_leaves_a_tenth_of_what_is_drawn_right():
    data = noisy_components("uniform 0.6", [0, 1], fit=8000, held=0)
    assert data.right.double().mean().item() == pytest.approx(1 - 0.6 * 0.9, abs=4 * (0.25 / 16_000) ** 0.5)
    assert noisy_components("clean", [0], fit=256, held=64).right.all()


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


def test_what_the_chosen_temperature_finds_is_a_mixture_of_what_three_find():
    """So a page tells it by the temperature to which it is drawn: one is below a half and another above."""
    _, measured = zhu2023_runs.losses_so_far(draws=1)
    found = measured.sel(measure="temperature", noise=[each for each in NOISES if each != "clean"])
    three = found.sel(variant=[f"aldr_{t}" for t in zhu2023_runs.TEMPERATURES])
    assert (three.min("variant") < 0.5).all()
    assert (three.max("variant") > 0.5).all()
    mixed = found.sel(variant="aldr")
    assert (abs(three - mixed).min("variant") == 0).all()
    assert float(mixed.std("training").max()) > 4 * float(three.std("training").max())


def test_the_code_of_the_page_runs_as_it_stands(repository):
    page = (repository / "book/zhu2023/index.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^(?:```|~~~)python\n(.*?)^(?:```|~~~)$", page, re.M | re.S)
    assert len(blocks) == 2
    for block in blocks:
        names = {}
        exec(block, names)
    assert names["loss"](torch.zeros(1, 3), torch.tensor([0]), torch.tensor([0])) > 0
