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

from uqlib.base.options import check_whole

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
        TypeError: if calls are no functions by name, or a number is not whole.
        ValueError: if there is nothing to time, a number is out of range, or there is no such device.
    """
    if not isinstance(calls, Mapping) or not all(callable(call) for call in calls.values()):
        raise TypeError(f"calls must be functions without arguments by name; it is {calls!r:.60}")
    if not calls:
        raise ValueError("calls is empty; at least one is needed")
    rounds, warm_up = check_whole(rounds, "rounds", least=1), check_whole(warm_up, "warm_up", least=0)
    place = _device(device)
    order, drawn = list(calls), random.Random(check_whole(seed, "seed"))
    seconds: dict[Name, list[float]] = {name: [] for name in calls}
    for _ in range(warm_up + rounds):
        drawn.shuffle(order)
        for name in order:
            seconds[name].append(_seconds(calls[name], place, clock))
    return {name: torch.tensor(found[warm_up:], dtype=torch.float64) for name, found in seconds.items()}


def largest_batch(call: Callable[[int], Any], most: int) -> int:
    """The largest of most, most / 2, most / 4, ... examples with which the call does not run out of the GPU's memory.

    Raises:
        ValueError: if one example is too many, or most is below 1.
    """
    batch = check_whole(most, "most", least=1)
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


def _device(device: torch.device | str) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be one of torch, such as 'cpu' or 'cuda:0'; it is {device!r}: {error}") from None


def _wait(device: torch.device) -> None:
    if device.type != "cpu":  # a GPU is handed its work and computes on; without this only the handing over is timed
        torch.accelerator.synchronize(device)
