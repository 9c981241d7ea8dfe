import time

import pytest
import torch

from uqlib import timing


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
        ({"calls": {"a": print}, "rounds": 0}, "rounds must be at least 1 and warm_up at least 0; they are 0 and 1"),
        ({"calls": {"a": print}, "rounds": 1, "warm_up": -1}, "they are 1 and -1"),
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
