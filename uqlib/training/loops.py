"""The loop: epochs of a step of your own (contrastive, teacher and student, sampling), resumable to the bit.

Everything random in an epoch (order of the rows, augmentation, dropout) follows from the seed and the number of the
epoch, and the learning rate from the number of the step. So a checkpoint is the states of the parts and of the
optimiser, and a run that was killed and goes on ends with the same bits as one that was not, on the same machine.

One process runs as it is. Under `torchrun` there are several, one a device: each takes its share of every batch, with
generators and dropout of its own, and the gradients are averaged.
"""

import contextlib
import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor, nn
from tqdm import tqdm

from uqlib.base.options import check_number, check_whole
from uqlib.files.fingerprint import fingerprint
from uqlib.training.checkpoints import OWN, PLAIN, Checkpoint, _state_of
from uqlib.training.processes import Processes, average_gradients
from uqlib.training.schedules import OPTIMIZERS, SCHEDULES
from uqlib.training.settings import PRECISIONS, Options, _check_batch, check_options

Step = Callable[[Tensor, torch.Generator], Tensor]
SHARED = 2**32 - 1  # in place of a rank: the generator that all processes have in common


class EpochLog(NamedTuple):
    """What one epoch did."""

    epoch: int  # counted from 1
    loss: float  # mean over the steps and processes, of what the step returned
    lr: float  # at the last step
    seconds: float
    rows_per_second: float
    judged: dict[str, float]  # what `judge` found


class Moment(NamedTuple):
    """Where a run stands after a step."""

    step: int  # steps done, counted from 1 and over all epochs
    steps: int  # of the whole run
    epoch: int  # counted from 1
    lr: float  # of this step
    generator: torch.Generator  # the same in all processes, for what must stay the same in all: noise on weights


def loop(
    step: Step,
    *,
    examples: int,
    parts: Mapping[str, Any],
    trained: Iterable[Any],
    epochs: int,
    lr: float,
    after: Callable[[Moment], Any] | None = None,
    judge: Callable[[], Mapping[str, Any]] | None = None,
    rests_on: Mapping[str, Any] | None = None,
    checkpoint: str | os.PathLike | None = None,
    **options: Unpack[Options],
) -> list[EpochLog]:
    """Run a step over all rows, epoch by epoch, and follow the gradient of the loss that it returns.

    Networks that are trained are put in train mode at the start of each epoch, others are left as they are. The last
    rows of an epoch that fill no batch are left out, others in each epoch.

    Args:
        step: of (rows, generator): rows int64 (k,) on the CPU, a share of the batch, and the generator of this process,
            for augmentation and the like. It returns the loss, a scalar tensor; mixed precision is on while it runs. An
            optimiser of its own, as of a discriminator, is a part, and its step stands in here
            (`average_gradients` before it).
        examples: how many rows there are.
        parts: by name, all that changes during the run and goes into the checkpoint: networks, losses that remember,
            averages, samples, further optimisers; whatever has state_dict and load_state_dict. Under `torchrun` on GPUs
            networks move to the device of the process.
        trained: parameters of the parts, or groups of them as torch's optimisers take them, each with an `lr` of its own
            if it likes; those that require no gradient are left out.
        epochs: passes over the rows.
        lr: learning rate at its highest.
        after: called without gradients after each step of the optimiser: an average of weights moves on, noise is added.
        judge: called after each epoch; names with a number each, for the history.
        rests_on: all that the result rests on besides parts and options, by name: the images, the labels, a name for the
            step with its own options. Needed for a checkpoint; the values as `fingerprint` takes them.
        checkpoint: file that is written after each epoch; where it is there already, the run goes on from it, and a
            finished one is only read.
        options: see `Options`.

    Returns:
        One EpochLog an epoch, those before the checkpoint among them.

    Raises:
        TypeError: if an option is unknown or of another type, a part has no state, the step returns no scalar tensor, or
            something that must be recognised has no lasting identity.
        ValueError: if a number lies outside of its bounds, what is trained belongs to no part, the checkpoint is that of
            another run (the message says what differs), or the loss is not finite.
        DamagedError: if the checkpoint does not have the bytes that were written.
    """
    epochs, examples = check_whole(epochs, "epochs", least=0), check_whole(examples, "examples", least=1)
    lr, chosen = check_number(lr, "lr", least=0), check_options(options, loop)
    _check_batch(chosen["batch"], examples, "examples")
    networks = _networks(parts)
    processes = Processes.join(networks.values())
    _check_share(chosen["batch"], processes.count)
    groups = _groups(trained, networks)
    named = chosen["optimizer"]
    make = OPTIMIZERS[named] if isinstance(named, str) else named
    run = _Run(
        step,
        after,
        judge,
        make([dict(group) for group in groups], lr, chosen["weight_decay"]),
        networks,
        processes,
        chosen,
        lr,
        epochs,
        examples,
    )
    settings = {} if checkpoint is None else _settings(run, parts, groups, rests_on)
    place = None if checkpoint is None else Path(checkpoint)
    state = Checkpoint(place, settings, dict(parts) | run.own_parts, EpochLog, run.device)
    total = (epochs - len(state.history)) * run.per_epoch
    with tqdm(total=total, unit="step", disable=None if chosen["progress"] else True) as bar:
        for epoch in range(len(state.history), epochs):
            state.history.append(run.epoch(epoch, bar))
            if processes.rank == 0:
                state.write()
    return state.history


@dataclass
class _Run:
    """A run whose arguments are checked."""

    step: Step
    after: Callable[[Moment], Any] | None
    judge: Callable[[], Mapping[str, Any]] | None
    optimizer: torch.optim.Optimizer
    networks: dict[str, nn.Module]  # all that are parts
    processes: Processes
    options: Options
    lr: float
    epochs: int
    examples: int

    def __post_init__(self) -> None:
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.device = self.parameters[0].device
        self.half = PRECISIONS[self.options["precision"]]
        schedule = self.options["schedule"]
        self.factor = SCHEDULES[schedule] if isinstance(schedule, str) else schedule
        # half floats need it, bfloat16 does not
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.options["precision"] == "fp16")
        self.own_parts = {"optimizer": self.optimizer, "scaler": self.scaler}
        self.per_epoch = self.examples // self.options["batch"]
        self.steps = self.epochs * self.per_epoch
        own = set(map(id, self.parameters))
        self.learners = {
            name: network for name, network in self.networks.items() if own & set(map(id, network.parameters()))
        }

    def epoch(self, epoch: int, bar: tqdm) -> EpochLog:
        """All steps of one epoch, counted from 0, and the judgement after them."""
        began, losses = time.monotonic(), []
        with _seeded(self.options["seed"], epoch, self.processes.rank, self.device) as generators:
            for network in self.learners.values():
                network.train()
            for k, rows in enumerate(_batches(self.examples, self.options["batch"], generators.order)):
                now = self._set_rate(epoch * self.per_epoch + k)
                # all processes have drawn the same batch
                losses.append(self._one_step(rows[self.processes.rank :: self.processes.count], generators.own))
                if self.after is not None:
                    with torch.no_grad():
                        number = epoch * self.per_epoch + k + 1
                        self.after(Moment(number, self.steps, epoch + 1, now, generators.shared))
                bar.update()
            mean = self.processes.mean(torch.stack(losses).double().mean()).item()
            if not math.isfinite(mean):
                raise ValueError(f"the loss is {mean} in epoch {epoch + 1}; a smaller lr than {self.lr} may help")
            seconds = time.monotonic() - began
            bar.set_postfix(epoch=epoch + 1, loss=f"{mean:.3f}")
            self.processes.share_buffers(self.networks.values())
            judged = {} if self.judge is None else _numbers(self.judge())
        return EpochLog(epoch + 1, mean, now, seconds, self.per_epoch * self.options["batch"] / seconds, judged)

    def _set_rate(self, number: int) -> float:
        factor = self.factor(number, self.steps, self.options["warmup"])
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * factor
        return self.lr * factor

    def _one_step(self, rows: Int[Tensor, " k"], generator: torch.Generator) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        with torch.autocast(self.device.type, self.half, enabled=self.half is not None):
            value = self.step(rows, generator)
        if not isinstance(value, Tensor) or value.numel() != 1:
            shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise TypeError(f"the step must return its loss, a tensor of one number; it returned {shape}")
        self.scaler.scale(value).backward()
        if self.processes.count > 1:
            average_gradients(self.parameters)
        if self.options["clip"] is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.options["clip"])
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.processes.share_buffers(self.learners.values())
        return value.detach().reshape(())


def _numbers(judged: Any) -> dict[str, float]:
    if not isinstance(judged, Mapping):
        raise TypeError(f"judge must return names with a number each; it returned {type(judged).__name__}")
    return {name: float(value) for name, value in judged.items()}


# What a run is made of


def _networks(parts: Mapping[str, Any]) -> dict[str, nn.Module]:
    """The parts that are networks, once all are seen to be parts."""
    for name, part in parts.items():
        if name in OWN:
            raise ValueError(f"a part cannot be called {name!r}; the checkpoint has that name for its own")
        if not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
            raise TypeError(f"part {name!r} must have state_dict and load_state_dict; it is a {type(part).__name__}")
    return {name: part for name, part in parts.items() if isinstance(part, nn.Module)}


def _check_share(batch: int, processes: int) -> None:
    if batch % processes:
        raise ValueError(
            f"batch must be a multiple of the {processes} processes, so that all get the same share; it is {batch}"
        )


def _groups(trained: Iterable[Any], networks: Mapping[str, nn.Module]) -> list[dict[str, Any]]:
    """What is trained as torch's optimisers take it, with the name of each parameter under `names`."""
    given = list(trained)
    plain = not any(isinstance(group, Mapping) for group in given)
    groups = [{"params": given}] if plain else [dict(group) for group in given]
    known = {id(p): f"{part}.{name}" for part, network in networks.items() for name, p in network.named_parameters()}
    for group in groups:
        listed = [group["params"]] if isinstance(group["params"], Tensor) else list(group["params"])
        group["params"] = [p for p in listed if p.requires_grad]
        for p in group["params"]:
            if id(p) not in known:
                raise ValueError(
                    f"a trained parameter of shape {tuple(p.shape)} belongs to no network among the parts, so that no "
                    "checkpoint would hold it; add its network to parts, or put it into an nn.ParameterList that is one"
                )
    if not any(group["params"] for group in groups):
        raise ValueError("nothing is trained: trained has no parameter that requires a gradient")
    return groups


def _settings(
    run: _Run, parts: Mapping[str, Any], groups: list[dict[str, Any]], rests_on: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Names and values, or fingerprints, of all that a run rests on."""
    if not rests_on:
        raise TypeError(
            "a checkpoint needs rests_on, all that the result rests on besides parts and options, so that another run "
            'is told from this one; for example {"step": "contrastive, temperature 0.1", "images": views}'
        )
    options: dict[str, Any] = {name: value for name, value in run.options.items() if name != "progress"}
    options |= {"epochs": run.epochs, "lr": run.lr, "rows": run.examples, **_functions(run)}
    if both := options.keys() & rests_on.keys():
        raise ValueError(f"rests_on has {', '.join(sorted(both))}, which the options have already; name it otherwise")
    given = {name: value if type(value) in PLAIN else fingerprint(value) for name, value in rests_on.items()}
    return options | given | _starts(run, parts, groups)


def _functions(run: _Run) -> dict[str, str]:
    """What stands for an optimiser and a schedule that are no names: what they made."""
    found = {}
    if callable(run.options["optimizer"]):
        made = {name: value for name, value in run.optimizer.defaults.items() if name not in ("lr", "weight_decay")}
        found["optimizer"] = f"{type(run.optimizer).__name__} {made}"
    if callable(run.options["schedule"]):
        values = [run.factor(k, run.steps, run.options["warmup"]) for k in range(run.steps)]
        found["schedule"] = fingerprint(values)
    return found


def _starts(run: _Run, parts: Mapping[str, Any], groups: list[dict[str, Any]]) -> dict[str, str]:
    """Fingerprints of what a run begins with: weights, which of them are trained, and the states of other parts."""
    states = {name: _with_text_keys(_state_of(name, part)) for name, part in parts.items()}
    names = {
        id(p): f"{part}.{name}" for part, network in run.learners.items() for name, p in network.named_parameters()
    }
    told = [[names[id(p)] for p in group["params"]] for group in groups]
    rates = [{name: value for name, value in group.items() if name != "params"} for group in groups]
    learners = {name: str(network) for name, network in run.learners.items()}
    others = {f"state of the {name}": fingerprint(state) for name, state in states.items() if name not in learners}
    return others | {
        "start weights": fingerprint({name: states[name] for name in learners}),
        "network": fingerprint([learners, told, rates]),
    }


def _with_text_keys(state: Any) -> Any:
    """The same with all keys as texts, which those of an optimiser's state are not."""
    if isinstance(state, Mapping):
        return {str(key): _with_text_keys(value) for key, value in state.items()}
    return [_with_text_keys(each) for each in state] if isinstance(state, list | tuple) else state


# What is random


class Generators(NamedTuple):
    """Those of one epoch in one process."""

    order: torch.Generator  # of the rows, the same in all processes
    own: torch.Generator  # for augmentation and the like
    shared: torch.Generator  # for what changes the weights, the same in all processes


@contextlib.contextmanager
def _seeded(seed: int, epoch: int, rank: int, device: torch.device) -> Iterator[Generators]:
    """The generators of one epoch.

    The global one is seeded for dropout, for each process otherwise, and put back afterwards.
    """
    order = torch.Generator().manual_seed(_number(seed, epoch))
    # the first process draws augmentation after order from one generator, as a single process does
    own = torch.Generator().manual_seed(_number(seed, epoch, rank)) if rank else order
    shared = torch.Generator().manual_seed(_number(seed, epoch, SHARED))
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(own.initial_seed())
        if device.type == "cuda":  # the other devices belong to other processes, or to nobody
            with torch.cuda.device(device):
                torch.cuda.manual_seed(own.initial_seed())
        elif device.type != "cpu":
            getattr(torch, device.type).manual_seed(own.initial_seed())
        yield Generators(order, own, shared)


def _number(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def _batches(n: int, batch: int, generator: torch.Generator) -> Iterator[Int[Tensor, " batch"]]:
    order = torch.randperm(n, generator=generator)
    return (rows for rows in order.split(batch) if len(rows) == batch)
