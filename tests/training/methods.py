"""Small methods of every kind, each twice: a step for `loop`, and a loop written out in plain torch.

The hand-written ones share `steps_by_hand` alone, which draws what the documentation promises: order, generators,
dropout and learning rate follow from seed, epoch and step.
"""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from toys import PLAIN, Small, weights

from uqlib.training import Views, average_gradients

EXAMPLES, BATCH, EPOCHS, LR, SEED = 40, 12, 4, 0.05, 3  # three steps an epoch; four rows are left out of each


def pictures() -> tuple[np.ndarray, Tensor]:
    """Images whose label is a tint, and the labels."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, EXAMPLES)
    images = generator.integers(0, 200, (EXAMPLES, 8, 8, 3))
    images[np.arange(EXAMPLES), :, :, labels] += 50
    return images.astype(np.uint8), torch.tensor(labels)


IMAGES, LABELS = pictures()


class Now(NamedTuple):
    """What a hand-written loop needs in a step."""

    rows: Tensor
    lr: float
    factor: float  # of the highest learning rate
    own: torch.Generator
    shared: torch.Generator


def number(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def steps_by_hand(*, rank: int = 0, processes: int = 1) -> Iterator[Now]:
    steps = EPOCHS * (EXAMPLES // BATCH)
    rise = 0.1 * steps
    for step in range(steps):
        epoch = step // (EXAMPLES // BATCH)
        if step % (EXAMPLES // BATCH) == 0:
            order = torch.Generator().manual_seed(number(SEED, epoch))
            own = torch.Generator().manual_seed(number(SEED, epoch, rank)) if rank else order
            shared = torch.Generator().manual_seed(number(SEED, epoch, 2**32 - 1))
            torch.manual_seed(number(SEED, epoch, rank) if rank else number(SEED, epoch))  # dropout
            batches = iter(torch.randperm(EXAMPLES, generator=order).split(BATCH))
        factor = (
            0.1 + 0.9 * step / rise if step < rise else (1 + math.cos(math.pi * (step - rise) / (steps - rise))) / 2
        )
        yield Now(next(batches)[rank::processes], LR * factor, factor, own, shared)


def seen(now: Now) -> Tensor:
    """The images of a step, mirrored by chance."""
    x = (torch.tensor(IMAGES)[now.rows].permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    mirrored = torch.rand(len(x), generator=now.own) < 0.5
    x[mirrored] = x[mirrored].flip(-1)
    return x


def sgd(model: nn.Module, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9, nesterov=True, **options)


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, lr: float) -> None:
    optimizer.param_groups[0]["lr"] = lr
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


# Two views of one image are alike


def contrastive() -> dict[str, Any]:
    model = Small(drop=0.5)
    views = Views(IMAGES, PLAIN, "flip", beside=model)

    def step(rows, generator):
        first, second = (F.normalize(model(views(rows, generator))) for _ in range(2))
        return F.cross_entropy(first @ second.T / 0.1, torch.arange(len(rows)))

    return {"step": step, "parts": {"model": model}, "trained": model.parameters(), "rests_on": {"images": views}}


def contrastive_by_hand() -> dict[str, Any]:
    model = Small(drop=0.5)
    optimizer = sgd(model)
    for now in steps_by_hand():
        first = F.normalize(model(seen(now)))
        second = F.normalize(model(seen(now)))
        descend(optimizer, F.cross_entropy(first @ second.T / 0.1, torch.arange(BATCH)), now.lr)
    return {"model": model.state_dict()}


# A student learns from an average of itself


def teacher_and_student(model: nn.Module | None = None) -> dict[str, Any]:
    model = Small(drop=0.5) if model is None else model
    teacher = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9)).eval()
    views = Views(IMAGES, PLAIN, "flip", beside=model)

    def step(rows, generator):
        with torch.no_grad():
            target = teacher(views(rows, generator)).softmax(-1)
        logits = model(views(rows, generator))
        return F.cross_entropy(logits, LABELS[rows]) + F.cross_entropy(logits, target)

    return {"step": step, "parts": {"student": model, "teacher": teacher}, "trained": model.parameters(),
            "after": lambda moment: teacher.update_parameters(model), "rests_on": {"images": views}}  # fmt: skip


def teacher_and_student_by_hand(
    model: nn.Module | None = None, wrap: Callable[[nn.Module], nn.Module] = lambda model: model, **process: int
) -> dict[str, Any]:
    model = Small(drop=0.5) if model is None else model
    teacher = copy.deepcopy(model).eval()
    network, optimizer = wrap(model), sgd(model)
    for k, now in enumerate(steps_by_hand(**process)):
        with torch.no_grad():
            target = teacher(seen(now)).softmax(-1)
        logits = network(seen(now))
        descend(optimizer, F.cross_entropy(logits, LABELS[now.rows]) + F.cross_entropy(logits, target), now.lr)
        with torch.no_grad():
            for old, new in zip(teacher.parameters(), model.parameters(), strict=True):
                old.copy_(torch.lerp(old, new, 1 - 0.9) if k else new)
            for old, new in zip(teacher.buffers(), model.buffers(), strict=True):
                old.copy_(new)
                if process:  # statistics of batch norm are those of the first one
                    torch.distributed.broadcast(old, 0)
    state = {"n_averaged": torch.tensor(k + 1)} | {f"module.{name}": t for name, t in teacher.state_dict().items()}
    return {"student": model.state_dict(), "teacher": state}


# Images are first moved to where the loss is larger


def adversarial() -> dict[str, Any]:
    model = Small()
    views = Views(IMAGES, PLAIN, "flip", beside=model)

    def step(rows, generator):
        x = views(rows, generator).requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(model(x), LABELS[rows]), x)
        return F.cross_entropy(model(x.detach() + 0.1 * slope.sign()), LABELS[rows])

    return {"step": step, "parts": {"model": model}, "trained": model.parameters(), "rests_on": {"images": views}}


def adversarial_by_hand() -> dict[str, Any]:
    model = Small()
    optimizer = sgd(model)
    for now in steps_by_hand():
        x = seen(now).requires_grad_()
        F.cross_entropy(model(x), LABELS[now.rows]).backward()
        descend(optimizer, F.cross_entropy(model(x.detach() + 0.1 * x.grad.sign()), LABELS[now.rows]), now.lr)
    return {"model": model.state_dict()}


# Weights of four bits, whose gradient passes straight through


def rounded(weight: Tensor) -> Tensor:
    scale = weight.abs().amax() / 7
    return (weight / scale).round() * scale


def quantised() -> dict[str, Any]:
    model = Small()
    views = Views(IMAGES, PLAIN, "flip", beside=model)

    def step(rows, generator):
        coarse = {name: p + (rounded(p) - p).detach() for name, p in model.named_parameters()}
        return F.cross_entropy(functional_call(model, coarse, views(rows, generator)), LABELS[rows])

    return {"step": step, "parts": {"model": model}, "trained": model.parameters(), "rests_on": {"images": views}}


def quantised_by_hand() -> dict[str, Any]:
    model = Small()
    optimizer = sgd(model)
    for now in steps_by_hand():
        fine = copy.deepcopy(model.state_dict())
        for p in model.parameters():
            p.data = p.data + (rounded(p.data) - p.data)
        optimizer.param_groups[0]["lr"] = now.lr
        optimizer.zero_grad()
        F.cross_entropy(model(seen(now)), LABELS[now.rows]).backward()
        model.load_state_dict(fine)
        optimizer.step()
    return {"model": model.state_dict()}


# Regression: a head that learns twice as fast, a clipped gradient

TARGETS = torch.tensor(IMAGES).float().mean((1, 2)) / 25 - 4  # brightness of each colour


def regression() -> dict[str, Any]:
    model = Small(drop=0.2)
    views = Views(IMAGES, PLAIN, beside=model)

    def step(rows, generator):
        return F.mse_loss(model(views(rows, generator)), TARGETS[rows])

    trained = [{"params": model.conv.parameters()}, {"params": model.head.parameters(), "lr": 2 * LR}]
    rests_on = {"images": views, "targets": TARGETS}
    return {"step": step, "parts": {"model": model}, "trained": trained, "rests_on": rests_on, "clip": 0.5}


def regression_by_hand() -> dict[str, Any]:
    model = Small(drop=0.2)
    first = torch.optim.SGD(model.conv.parameters(), lr=LR, momentum=0.9, nesterov=True)
    second = torch.optim.SGD(model.head.parameters(), lr=LR, momentum=0.9, nesterov=True)
    for now in steps_by_hand():
        x = (torch.tensor(IMAGES)[now.rows].permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
        model.zero_grad()
        F.mse_loss(model(x), TARGETS[now.rows]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        for optimizer, rate in ((first, now.lr), (second, 2 * LR * now.factor)):
            optimizer.param_groups[0]["lr"] = rate
            optimizer.step()
    return {"model": model.state_dict()}


# Samples of weights: noise after each step, some of them kept


class Samples(list):
    """Weights that were visited, as a part."""

    def state_dict(self) -> dict[str, Any]:
        return {"samples": list(self)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self[:] = state["samples"]


def plain_sgd(parameters: Any, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay)


def sgld() -> dict[str, Any]:
    model, samples = Small(), Samples()
    views = Views(IMAGES, PLAIN, "flip", beside=model)

    def step(rows, generator):
        return F.cross_entropy(model(views(rows, generator)), LABELS[rows])

    def after(moment):
        for p in model.parameters():
            p += (2 * moment.lr / 1000) ** 0.5 * torch.randn(p.shape, generator=moment.generator)
        if moment.step % 2 == 0:
            samples.append(weights(model))

    parts = {"model": model, "samples": samples}
    return {"step": step, "parts": parts, "trained": model.parameters(), "after": after, "rests_on": {"images": views},
            "optimizer": plain_sgd, "weight_decay": 0.01}  # fmt: skip


def sgld_by_hand() -> dict[str, Any]:
    model, samples = Small(), []
    for k, now in enumerate(steps_by_hand()):
        model.zero_grad()
        F.cross_entropy(model(seen(now)), LABELS[now.rows]).backward()
        with torch.no_grad():
            for p in model.parameters():
                p.add_(p.grad.add(p, alpha=0.01), alpha=-now.lr)
                p.copy_(p + (2 * now.lr / 1000) ** 0.5 * torch.randn(p.shape, generator=now.shared))
        if k % 2 == 1:
            samples.append(weights(model))
    return {"model": model.state_dict(), "samples": {"samples": samples}}


# Two networks against each other, each with an optimiser


class Flat(nn.Sequential):
    """A linear map of all pixels."""

    def __init__(self, inputs: int, outputs: int):
        with torch.random.fork_rng():
            torch.manual_seed(outputs)
            super().__init__(nn.Flatten(), nn.Linear(inputs, outputs))


def adversaries() -> dict[str, Any]:
    maker, critic = Flat(4, 192), Flat(192, 1)
    second = torch.optim.Adam(critic.parameters(), lr=0.01)
    views = Views(IMAGES, PLAIN, beside=critic)

    def step(rows, generator):
        made = maker(torch.randn(len(rows), 4, generator=generator))
        second.zero_grad()
        (F.softplus(critic(made.detach())) + F.softplus(-critic(views(rows, generator)))).mean().backward()
        average_gradients(critic.parameters())
        second.step()
        return F.softplus(-critic(made)).mean()

    parts = {"maker": maker, "critic": critic, "optimizer of the critic": second}
    return {"step": step, "parts": parts, "trained": maker.parameters(), "rests_on": {"images": views}}


def adversaries_by_hand() -> dict[str, Any]:
    maker, critic = Flat(4, 192), Flat(192, 1)
    first, second = sgd(maker), torch.optim.Adam(critic.parameters(), lr=0.01)
    for now in steps_by_hand():
        x = (torch.tensor(IMAGES)[now.rows].permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
        made = maker(torch.randn(len(x), 4, generator=now.own))
        loss = (F.softplus(critic(made.detach())) + F.softplus(-critic(x))).mean()
        second.zero_grad()
        loss.backward()
        second.step()
        descend(first, F.softplus(-critic(made)).mean(), now.lr)
    return {"maker": maker.state_dict(), "critic": critic.state_dict(), "optimizer of the critic": second.state_dict()}


METHODS: dict[str, tuple[Callable[[], dict[str, Any]], Callable[[], dict[str, Any]]]] = {
    "contrastive": (contrastive, contrastive_by_hand),
    "teacher and student": (teacher_and_student, teacher_and_student_by_hand),
    "adversarial": (adversarial, adversarial_by_hand),
    "quantised": (quantised, quantised_by_hand),
    "regression": (regression, regression_by_hand),
    "sgld": (sgld, sgld_by_hand),
    "adversaries": (adversaries, adversaries_by_hand),
}


def differences(first: Any, second: Any, place: str = "") -> list[str]:
    """Where two states differ in a bit."""
    if isinstance(first, dict):
        names = first.keys() | second.keys()
        pairs = [(first.get(name), second.get(name), f"{place}.{name}") for name in names]
    elif isinstance(first, list | tuple) and len(first) == len(second):
        pairs = [(a, b, f"{place}[{k}]") for k, (a, b) in enumerate(zip(first, second, strict=True))]
    elif isinstance(first, Tensor) and isinstance(second, Tensor):
        return [] if torch.equal(first, second) else [place]
    else:
        return [] if first == second else [place]
    return [found for a, b, where in pairs for found in differences(a, b, where)]


def states(parts: dict[str, Any]) -> dict[str, Any]:
    return {name: dict(part.state_dict()) for name, part in parts.items()}
