"""What test_processes.py starts under torchrun: runs of the loop beside torch's own DistributedDataParallel."""

import contextlib
import sys
from pathlib import Path

import numpy as np
import torch
from methods import BATCH, EPOCHS, EXAMPLES, LR, METHODS, SEED, differences, states
from methods import teacher_and_student as teaching
from methods import teacher_and_student_by_hand as teaching_by_hand
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel
from toys import PLAIN, Small, remembering

from uqlib.training import average_gradients, loop, train

OPTIONS = {"examples": EXAMPLES, "epochs": EPOCHS, "lr": LR, "batch": BATCH, "seed": SEED, "progress": False}


class Normed(Small):
    """With statistics of the batch, which differ between the processes until the first one's are taken."""

    def __init__(self):
        super().__init__(drop=0.5)
        self.head = nn.Sequential(nn.BatchNorm1d(6), self.head)


def everywhere(parts):
    """The states of the first process, once those of the others are seen to be the same."""
    found = [None] * distributed.get_world_size()
    distributed.all_gather_object(found, states(parts))
    assert all(differences(found[0], each) == [] for each in found[1:]), differences(*found[:2])
    return found[0]


def is_that_of_torch():
    """Student and teacher as DistributedDataParallel trains them: each process with views and dropout of its own."""
    method = teaching(Normed())
    history = loop(**OPTIONS, **method, optimizer="sgd", judge=lambda: {"rank": distributed.get_rank()})
    rank, processes = distributed.get_rank(), distributed.get_world_size()
    assert [log.judged["rank"] for log in history] == [rank] * EPOCHS
    losses = [None] * processes
    distributed.all_gather_object(losses, [log.loss for log in history])
    assert losses[0] == losses[1]
    expected = teaching_by_hand(Normed(), DistributedDataParallel, rank=rank, processes=processes)
    found = everywhere(method["parts"])
    if rank == 0:
        assert differences(found, expected) == [], differences(found, expected)


def starts_with_the_weights_of_the_first():
    torch.manual_seed(distributed.get_rank())
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    method = teaching(model)
    before = model[1].weight.detach().clone()
    loop(**OPTIONS | {"lr": 0.0, "epochs": 1}, **method)
    assert torch.equal(before, model[1].weight) == (distributed.get_rank() == 0)
    everywhere(method["parts"])


def goes_on(folder):
    """A run that was killed in both processes, to the bits of one that was not; the first process alone writes."""
    rank, steps = distributed.get_rank(), []
    whole, cut, again = (teaching() for _ in range(3))
    loop(**OPTIONS, **whole)

    def killed(rows, generator):
        steps.append(rows)
        if len(steps) == 8:  # the second of three steps of the third epoch
            raise KeyboardInterrupt
        return cut["step"](rows, generator)

    with contextlib.suppress(KeyboardInterrupt):
        loop(**OPTIONS, **cut | {"step": killed}, checkpoint=folder / f"of-{rank}.pt")
    distributed.barrier()
    assert [path.name for path in folder.glob("of-*")] == ["of-0.pt"]
    loop(**OPTIONS, **again, checkpoint=folder / "of-0.pt")
    assert differences(states(again["parts"]), states(whole["parts"])) == []


def stay_together(name):
    """Noise on weights and an optimiser in the step are the same in all processes."""
    method = METHODS[name][0]()
    loop(**{"optimizer": "sgd", **OPTIONS, **method})
    everywhere({name: part for name, part in method["parts"].items() if isinstance(part, nn.Module)})


def gradients_that_are_missing():
    rank = distributed.get_rank()
    both, one, none = (nn.Parameter(torch.zeros(2, 3)) for _ in range(3))
    both.grad = torch.full((2, 3), 1.0 + rank)
    if rank == 1:
        one.grad = torch.full((2, 3), 4.0)
    average_gradients([both, one, none])
    assert both.grad.unique().item() == 1.5
    assert one.grad.unique().item() == 2.0
    assert none.grad is None


def trained(folder):
    images, labels = (np.load(folder / f"{name}.npy") for name in ("images", "labels"))
    options = {"epochs": 3, "lr": 0.05, "batch": 8, "optimizer": "sgd", "progress": False, "augmentation": "none"}
    train(Small(), images, labels, preprocessing=PLAIN, checkpoint=folder / "two.pt", loss=remembering(), **options)
    try:
        train(Small(), images, labels, preprocessing=PLAIN, **options | {"batch": 7})
    except ValueError as error:
        assert "a multiple of the 2 processes, so that all get the same share; it is 7" in str(error)  # noqa: PT017
    else:
        raise AssertionError("a batch of 7 has no two halves")


if __name__ == "__main__":
    trained(Path(sys.argv[1]))
    is_that_of_torch()
    starts_with_the_weights_of_the_first()
    goes_on(Path(sys.argv[1]))
    stay_together("sgld")
    stay_together("adversaries")
    gradients_that_are_missing()
    distributed.destroy_process_group()
