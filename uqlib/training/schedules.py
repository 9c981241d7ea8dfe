"""Optimisers and schedules of the learning rate, by name."""

import math
from collections.abc import Callable
from typing import Any

import torch


def adamw(parameters: Any, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW with torch's betas and epsilon (Loshchilov & Hutter 2019, arXiv:1711.05101)."""
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)


def sgd(parameters: Any, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov momentum 0.9; weight decay is part of the gradient."""
    return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=0.9, nesterov=True)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adamw": adamw, "sgd": sgd}


def cosine(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate: linear from a tenth to 1 over the first share `warmup` of the steps, then half a cosine to 0."""
    rise = warmup * steps
    return min(
        constant(step, steps, warmup), 0.5 * (1 + math.cos(math.pi * max(0, step - rise) / max(1, steps - rise)))
    )


def constant(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate: linear from a tenth to 1 over the first share `warmup` of the steps, then 1."""
    rise = warmup * steps
    return 0.1 + 0.9 * step / rise if step < rise else 1.0


DROPS = (0.4, 0.6, 0.8)  # of the steps; epochs 80, 120 and 160 of 200


def drops(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate: linear from a tenth to 1 over the first share `warmup`, then 1, a fifth of it after each of DROPS.

    Source:
        Zagoruyko & Komodakis 2016 (arXiv:1605.07146), section 3, on CIFAR: they drop at 30, 60 and 80 %.
    """
    return constant(step, steps, warmup) * 0.2 ** sum(step >= share * steps for share in DROPS)


SCHEDULES: dict[str, Callable[[int, int, float], float]] = {"cosine": cosine, "constant": constant, "drops": drops}
