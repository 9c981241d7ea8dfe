"""How long calls take, told fairly: the contestants take turns, and a GPU is waited for.

On a shared machine a busy spell lasts longer than a call. So every round runs each contestant once, in a new order, and
a spell slows all of them; medians over the rounds then compare like with like.
"""

import random
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

Name = TypeVar("Name", bound=Hashable)


def take_turns(
    calls: Mapping[Name, Callable[[], Any]],
    *,
    rounds: int,
    warm_up: int = 1,
    device: torch.device | str = "cpu",
    clock: Callable[[], float] = time.perf_counter,
    seed: int = 0,
) -> dict[Name, Float[Tensor, " rounds"]]:
    """Seconds that each call took in each round, float64; row r of all of them belongs to the same round.

    Time is that of (rounds + warm_up) times all calls.

    Args:
        calls: by name; what they return is dropped.
        rounds: how often each is timed.
        warm_up: rounds before these that are not timed: first calls allocate memory and choose algorithms.
        device: where the calls compute; before and after each call its queue is waited for.
        clock: time.process_time counts only the seconds in which the processor worked for us. On a shared machine that is
            the fairer clock for one thread on the CPU; it adds up threads, and knows nothing of a GPU.
        seed: of the order inside of each round.

    Raises:
        ValueError: if there is nothing to time, or the rounds are out of range.
    """
    if not calls:
        raise ValueError("calls is empty; at least one is needed")
    if rounds < 1 or warm_up < 0:
        raise ValueError(f"rounds must be at least 1 and warm_up at least 0; they are {rounds} and {warm_up}")
    order, drawn = list(calls), random.Random(seed)
    seconds: dict[Name, list[float]] = {name: [] for name in calls}
    for _ in range(warm_up + rounds):
        drawn.shuffle(order)
        for name in order:
            seconds[name].append(_seconds(calls[name], torch.device(device), clock))
    return {name: torch.tensor(found[warm_up:], dtype=torch.float64) for name, found in seconds.items()}


def largest_batch(call: Callable[[int], Any], most: int) -> int:
    """The largest of most, most / 2, most / 4, ... examples with which the call does not run out of the GPU's memory.

    Raises:
        ValueError: if one example is too many.
    """
    batch = most
    while batch >= 1:
        try:
            call(batch)
            return batch
        except torch.OutOfMemoryError:
            batch //= 2
    raise ValueError("not even a batch of 1 fits into the GPU's memory. Is another process holding it?")


def _seconds(call: Callable[[], Any], device: torch.device, clock: Callable[[], float]) -> float:
    _wait(device)
    began = clock()
    call()
    _wait(device)
    return clock() - began


def _wait(device: torch.device) -> None:
    if device.type != "cpu":  # a GPU is handed its work and computes on; without this only the handing over is timed
        torch.accelerator.synchronize(device)
