import time

import numpy as np
import pytest
import torch
from conftest import default_dtype

from uqlib.networks import timing


@pytest.fixture
def clock():
    """A clock that only calls move on."""

    class Clock:
        now = 0.0

        def takes(self, *seconds):
            each = iter(seconds)
            return lambda: setattr(self, "now", self.now + next(each))

        def __call__(self):
            return self.now

    return Clock()


def test_each_round_is_timed_and_the_warm_up_is_not(clock):
    found = timing.take_turns({"a": clock.takes(9, 1, 2), "b": clock.takes(8, 5, 6)}, rounds=2, clock=clock)
    assert {name: seconds.tolist() for name, seconds in found.items()} == {"a": [1, 2], "b": [5, 6]}
    assert found["a"].dtype == torch.float64


def test_every_round_runs_each_once_in_an_order_of_its_own_that_the_seed_repeats():
    def orders(seed):
        log = []
        timing.take_turns({name: lambda name=name: log.append(name) for name in "abcdef"}, rounds=4, seed=seed)
        return [log[k : k + 6] for k in range(0, 30, 6)]

    assert all(sorted(order) == list("abcdef") for order in orders(0))
    assert len(set(map(tuple, orders(0)))) > 1
    assert orders(0) == orders(0) != orders(1)


def test_a_gpu_is_waited_for_before_and_after_and_the_cpu_is_not(monkeypatch):
    log = []
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda device: log.append(device.type))
    timing.take_turns({"a": lambda: log.append("call")}, rounds=1, warm_up=0, device="cuda")
    assert log == ["cuda", "call", "cuda"]
    timing.take_turns({"a": lambda: None}, rounds=1)
    assert len(log) == 3


def test_what_the_gpu_still_computes_counts(clock, monkeypatch):
    pending = []

    def synchronize(device):
        clock.now += sum(pending)
        pending.clear()

    monkeypatch.setattr(torch.accelerator, "synchronize", synchronize)
    found = timing.take_turns({"a": lambda: pending.append(3.0)}, rounds=2, device="cuda", clock=clock)
    assert found["a"].tolist() == [3, 3]


def test_sleep_counts_on_the_wall_and_not_for_the_processor():
    nap = {"nap": lambda: time.sleep(0.05)}
    assert timing.take_turns(nap, rounds=1, warm_up=0)["nap"].item() >= 0.05
    assert timing.take_turns(nap, rounds=1, warm_up=0, clock=time.process_time)["nap"].item() < 0.04


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calls": {}, "rounds": 1}, "calls is empty"),
        ({"calls": {"a": print}, "rounds": 0}, "rounds must be a whole number of at least 1; it is 0"),
        ({"calls": {"a": print}, "rounds": 1, "warm_up": -1}, "warm_up must be a whole number of at least 0; it is -1"),
    ],
)
def test_nothing_to_time_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        timing.take_turns(**options)


@pytest.mark.parametrize(("room", "expected"), [(1000, 512), (512, 512), (511, 256), (70, 64), (1, 1)])
def test_the_batch_is_halved_until_it_fits(room, expected):
    def call(batch):
        if batch > room:
            raise torch.OutOfMemoryError

    assert timing.largest_batch(call, 512) == expected


def test_no_room_at_all_and_other_errors_are_not_hidden():
    def full(_):
        raise torch.OutOfMemoryError

    with pytest.raises(ValueError, match="not even a batch of 1 fits"):
        timing.largest_batch(full, 8)

    def wrong(_):
        raise RuntimeError("other")

    with pytest.raises(RuntimeError, match="other"):
        timing.largest_batch(wrong, 8)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"rounds": odd}, "rounds must be a whole number") for odd in (1.0, True, "1", None)),
        *(({"warm_up": odd}, "warm_up must be a whole number") for odd in (0.0, False, "0", None)),
        *(({"seed": odd}, "seed must be a whole number") for odd in (0.5, None)),
        *(({"calls": odd}, "calls must be functions without arguments by name") for odd in (None, [print], {"a": 3})),
        *(({"device": odd}, "device must be one of torch") for odd in ("gpu", None, 1.5)),
    ],
    ids=str,
)
def test_what_is_no_number_call_or_device_is_refused_by_name(options, message, unchecked):
    with pytest.raises((TypeError, ValueError), match=message):
        timing.take_turns(**({"calls": {"a": int}, "rounds": 1} | options))


def test_rounds_and_batches_are_whole_numbers_of_any_kind(unchecked):
    for two in (2, np.int64(2), np.uint8(2), torch.tensor(2)):
        assert len(timing.take_turns({"a": int}, rounds=two, warm_up=np.int8(0), seed=two)["a"]) == 2
        assert timing.largest_batch(int, two) == 2
    for odd in (0, -1, 2.0, True, "2", None):
        with pytest.raises((TypeError, ValueError), match="most must be a whole number of at least 1"):
            timing.largest_batch(int, odd)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_default_dtype_changes_nothing(dtype):
    with default_dtype(dtype):
        assert timing.take_turns({"a": int}, rounds=2)["a"].dtype == torch.float64
