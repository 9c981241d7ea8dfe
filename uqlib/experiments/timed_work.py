"""Work through a list of jobs for as long as there is time, and lose an epoch at most.

A job is begun if it can finish in the time that is left, by what like ones took; one of which nothing is known is begun
too, and set aside when its first epochs show that it cannot finish. When no other can finish, one that has a checkpoint
goes on from it, as long as there is time for an epoch. Everything is written whole under its name or not at all, so a
kill at any moment leaves what was finished, and a checkpoint.
"""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from uqlib.experiments.worklist import Job
from uqlib.files.exclusive import hold_alone

Clock = Callable[[], float]


class OutOfTime(BaseException):
    """There is no time left for the job; like a Ctrl-C it passes through all that catches errors."""


@dataclass
class Shift:
    """The jobs, the time that there is for them, and what became of them."""

    waiting: list[Job]
    deadline: float = math.inf  # of the clock
    device: str = "cpu"
    clock: Clock = time.monotonic
    tell: Callable[[str], None] = print  # takes a line for each job that was finished, stopped, or could not be made
    finished: list[Job] = field(default_factory=list)
    refused: dict[str, list[Job]] = field(default_factory=dict)  # reason -> the jobs that could not be made
    left: list[Job] = field(default_factory=list)
    pace: float = 1.0  # seconds here, as a share of those in the logs
    faults: dict[str, Exception] = field(default_factory=dict)  # why images could not be loaded, by their name

    def __post_init__(self) -> None:
        self.waiting, self.left = list(self.waiting), list(self.waiting)

    def work(self, *, wait: bool = False) -> "Shift":
        """Make the jobs, in their order as far as the time allows.

        An error of one job, such as missing images, does not keep the others from being made. A job that another process
        has finished is passed over.

        Args:
            wait: for a job that another process is at; otherwise it is passed over too.
        """
        while (job := choose_job(self.waiting, self.deadline - self.clock(), self.pace)) is not None:
            with hold_alone(job.name, wait=wait) as mine:
                if mine and job.is_missing():
                    self._make(job)
                else:
                    self._pass_over(job, made=mine)
        return self

    def describe(self) -> str:
        """The end of a report: what was finished, what could not be made, what is left and how long it takes."""
        lines = [f"finished: {len(self.finished)}"]
        lines += [f"could not be made, as told above: {_names(jobs)}" for jobs in self.refused.values()]
        total = f", {tell_total(self.left, self.pace)}: {_names(self.left)}" if self.left else ""
        return "\n".join([*lines, f"left: {len(self.left)}{total}"])

    def _make(self, job: Job) -> None:
        began, known = self.clock(), job.estimate_seconds(self.pace)
        whole = not any(course.read_seconds() for course in job.courses)  # from beginning to end
        try:
            self._load_images(job)
            watch = Watch(job, self.deadline, self.clock, unknown=known is None)
            done = run_in_time(job, watch, self.device)
        except Exception as error:
            self._refuse(job, error)
            return
        took = self.clock() - began
        if not done:
            self._set_aside(job, took)
            return
        self.tell(f"{job.name}: {took:.0f} s")
        self.finished.append(job)
        self._pass_over(job, made=True)
        if job.seconds and whole:
            self.pace = took / job.seconds

    def _load_images(self, job: Job) -> None:
        """Load them, or raise at once what was raised before: a download is not tried once a job."""
        if job.images in self.faults:
            raise self.faults[job.images]
        try:
            job.load_images()
        except Exception as error:
            self.faults[job.images] = error
            raise

    def _pass_over(self, job: Job, *, made: bool) -> None:
        self.waiting.remove(job)
        if made:
            self.left.remove(job)

    def _set_aside(self, job: Job, took: float) -> None:
        if job.next_epoch_seconds() is None:  # nothing to go on from, so it would be begun again and again
            self.tell(f"{job.name}: stopped after {took:.0f} s")
            self._pass_over(job, made=False)
        else:
            self.tell(f"{job.name}: stopped after {took:.0f} s; it will go on from its last epoch")

    def _refuse(self, job: Job, error: Exception) -> None:
        """Note why a job could not be made; a reason is told once, however many jobs it holds back."""
        own = isinstance(error, ValueError | OSError | ImportError)
        reason = str(error) if own else f"{type(error).__name__}: {error}"
        if reason not in self.refused:
            self.tell(f"{job.name} could not be made: {reason}")
        self.refused.setdefault(reason, []).append(job)
        self._pass_over(job, made=True)


def choose_job(jobs: Sequence[Job], left: float, pace: float = 1.0) -> Job | None:
    """The first that can finish in the time that is left, as far as is known; else the first that can do another epoch."""
    if left <= 0:
        return None
    for job in jobs:
        needed = job.estimate_seconds(pace)
        if needed is None or needed <= left:
            return job
    return next((job for job in jobs if (job.next_epoch_seconds() or math.inf) <= left), None)


def run_in_time(job: Job, watch: "Watch", device: str) -> bool:
    """Make a job; False if the watch has stopped it."""
    try:
        with _called_each_second(watch.check):
            job.make(device)
    except BaseException:
        if not watch.expired:  # else a library may have made another error of it
            raise
        return not job.is_missing()
    return True


class Watch:
    """Looks at a running job now and then, and stops it when the time is up or will not do.

    Args:
        job: that runs.
        deadline: of the clock.
        clock: in seconds.
        unknown: whether nothing was known of its length, so that it stops as soon as its epochs show that it is too long.
    """

    def __init__(self, job: Job, deadline: float, clock: Clock, *, unknown: bool):
        self.job, self.deadline, self.clock, self.unknown = job, deadline, clock, unknown
        self.expired = False
        self.stamps = self._stamps()

    def check(self) -> None:
        """Raise OutOfTime, once, if the job is to stop."""
        if not self.expired and self._is_too_long():
            self.expired = True
            raise OutOfTime

    def _is_too_long(self) -> bool:
        left = self.deadline - self.clock()
        if left <= 0:
            return True
        if (now := self._stamps()) == self.stamps:
            return False
        self.stamps = now  # an epoch has ended, so that nothing is lost by stopping here
        if self.unknown:
            needed = self.job.estimate_seconds()
            return needed is not None and needed > left
        return (self.job.next_epoch_seconds() or 0) > left

    def _stamps(self) -> list[int]:
        paths = [course.checkpoint for course in self.job.courses]
        return [path.stat().st_mtime_ns if path.is_file() else 0 for path in paths]


@contextlib.contextmanager
def _called_each_second(check: Callable[[], None]) -> Iterator[None]:
    """While this lasts, the function is called each second between two steps of the program; in the main thread alone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda *_: check())
    signal.setitimer(signal.ITIMER_REAL, 1, 1)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def tell_total(jobs: Sequence[Job], pace: float = 1.0) -> str:
    """How long these jobs take, as far as is known, such as "about 25 min and 2 of unknown length"."""
    needed = [job.estimate_seconds(pace) for job in jobs]
    unknown = sum(each is None for each in needed)
    known = f"about {sum(filter(None, needed)) / 60:.0f} min"
    if not unknown:
        return known
    return f"{known} and {unknown} of unknown length" if unknown < len(jobs) else "of unknown length"


def _names(jobs: Sequence[Job]) -> str:
    shown = ", ".join(job.name for job in jobs[:3])
    return shown if len(jobs) <= 3 else f"{shown} and {len(jobs) - 3} more"
