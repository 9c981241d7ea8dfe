"""The queue: what comes first, what is begun in the time that is left, and what becomes of an error."""

import json
import signal
import time
from pathlib import Path

import pytest
import torch

from uqlib.experiments import timed_work
from uqlib.experiments.timed_work import Shift, choose_job
from uqlib.experiments.worklist import Course, Job, sort_jobs
from uqlib.files import exclusive
from uqlib.training import EpochLog


class FakeClock:
    """A clock that goes on when work is done; at each epoch the watch may look at it, as the alarm would have it."""

    def __init__(self, monkeypatch):
        self.now, self.check = 0.0, lambda: None
        monkeypatch.setattr(timed_work, "_called_each_second", self.called)

    def __call__(self):
        return self.now

    def called(self, check):
        self.check = check
        return exclusive.contextlib.nullcontext()

    def spend(self, seconds):
        self.now += seconds
        self.check()


@pytest.fixture
def clock(monkeypatch, tmp_path):
    monkeypatch.setenv("UQLIB_CACHE", str(tmp_path / "cache"))
    return FakeClock(monkeypatch)


@pytest.fixture
def job(clock, tmp_path):
    """A maker of jobs of so many epochs and seconds an epoch; with epochs = 0 all at once, without a checkpoint."""

    def create(name, *, epochs=0, each=10.0, seconds=None, error=None, **more):
        path, done = tmp_path / f"{name}.pt", tmp_path / name
        course = Course(path, epochs)

        def make(device):
            if error:
                raise error
            for k in range(len(course.read_seconds()), epochs):
                history = [list(EpochLog(i + 1, 0.0, 0.0, each, 1.0, {})) for i in range(k + 1)]
                clock.now += each
                torch.save({"history": json.dumps({"epochs": history})}, path)
                clock.check()
            if not epochs:
                clock.spend(each)
            done.touch()

        courses = (course,) if epochs else ()
        return Job(
            name, f"make {name}", name, make, lambda: not done.exists(), courses=courses, seconds=seconds, **more
        )

    return create


def work(jobs, clock, seconds):
    lines = []
    return Shift(jobs, clock.now + seconds, clock=clock, tell=lines.append).work(), lines


def names(jobs):
    return [each.name for each in jobs]


def test_value_first_then_the_first_seed_of_all(job):
    listed = [job(f"{kind}{seed}", repeat=seed) for kind in "ab" for seed in range(3)]
    dear = job("c2", repeat=2, value=2.0)
    assert names(sort_jobs([*listed, dear])) == ["c2", "a0", "b0", "a1", "b1", "a2", "b2"]


def test_what_cannot_finish_is_not_begun_and_what_fits_goes_before_it(job, clock):
    shift, _ = work([job("long", each=100, seconds=100), job("short", each=10, seconds=10)], clock, 50)
    assert names(shift.finished) == ["short"]
    assert names(shift.left) == ["long"]
    assert clock.now == 10


def test_the_pace_of_this_machine_corrects_the_logs(job, clock):
    jobs = [job(name, each=30, seconds=10) for name in "abc"]  # three times as slow as the logs say
    shift, _ = work(jobs, clock, 80)
    assert names(shift.finished) == ["a", "b"]
    assert clock.now == 60
    assert "left: 1, about 0 min: c" in shift.describe() or "left: 1, about 1 min: c" in shift.describe()


def test_one_of_unknown_length_shows_it_by_its_first_epoch_and_makes_room(job, clock):
    long, short = job("long", epochs=10, each=30), job("short", each=50, seconds=50)
    shift, lines = work([long, short], clock, 100)
    assert lines[0] == "long: stopped after 30 s; it will go on from its last epoch"
    assert names(shift.finished) == ["short"]
    assert clock.now <= 100
    assert len(long.courses[0].read_seconds()) == 1
    shift, _ = work([long], clock, 275)  # it goes on from there: 270 seconds are left of 300
    assert names(shift.finished) == ["long"]


def test_what_has_a_checkpoint_goes_on_where_nothing_else_fits_and_stops_before_an_epoch_that_would_not(job, clock):
    begun, other = job("begun", epochs=10, each=10), job("other", each=500, seconds=500)
    work([begun], clock, 25)
    assert len(begun.courses[0].read_seconds()) == 2
    assert clock.now == 20  # five seconds are no epoch
    shift, _ = work([other, begun], clock, 35)
    assert len(begun.courses[0].read_seconds()) == 5
    assert names(shift.left) == ["other", "begun"]


def test_one_without_a_checkpoint_is_stopped_at_the_deadline(job, clock):
    shift, lines = work([job("head", each=100)], clock, 60)
    assert lines == ["head: stopped after 100 s"]
    assert names(shift.left) == ["head"]


def test_missing_images_are_told_once_and_the_others_are_made(job, clock):
    asked = []

    def load():
        asked.append(1)
        raise FileNotFoundError("pacs/photo is not here; set UQLIB_DATA")

    lost = [job(name, images="pacs", load_images=load) for name in "ab"]
    shift, lines = work([*lost, job("c", each=1)], clock, 60)
    assert lines == ["a could not be made: pacs/photo is not here; set UQLIB_DATA", "c: 1 s"]
    assert len(asked) == 1
    assert "could not be made, as told above: a, b\n" in shift.describe()
    assert shift.left == []


def test_an_error_of_one_job_is_named_with_its_kind(job, clock):
    _, lines = work([job("a", error=RuntimeError("out of memory"))], clock, 60)
    assert lines == ["a could not be made: RuntimeError: out of memory"]


def test_no_time_no_work(job, clock):
    assert choose_job([job("a", seconds=1)], 0) is None
    assert work([job("a")], clock, 0)[0].finished == []


def test_a_job_of_another_process_is_passed_over_and_what_it_made_too(job, clock, tmp_path):
    held, there = job("held", each=1), job("there", each=1)
    (tmp_path / "there").touch()
    with exclusive.hold_alone("held"):
        shift, lines = work([held, there], clock, 60)
    assert lines == []
    assert names(shift.left) == ["held"]
    with exclusive.hold_alone("held", wait=False) as mine:
        assert mine


def test_the_real_alarm_stops_real_work_and_is_put_back(job, monkeypatch, tmp_path):
    monkeypatch.setattr(timed_work, "_called_each_second", CALLED)
    before = signal.getsignal(signal.SIGALRM)
    sleeper = Job("sleeper", "", "", lambda device: time.sleep(30), lambda: True)
    began = time.monotonic()
    shift = Shift([sleeper], began + 0.5, tell=lambda line: None).work()
    assert time.monotonic() - began < 10
    assert shift.left == [sleeper]
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


CALLED = timed_work._called_each_second


def test_a_checkpoint_that_cannot_be_read_counts_for_nothing(tmp_path):
    path = tmp_path / "x.pt"
    assert Course(path, 3).read_seconds() == []
    Path(path).write_bytes(b"half a checkpoint")
    assert Course(path, 3).read_seconds() == []
