"""Processes: those that torchrun started, one a device, with the same weights and gradients in all.

Nothing is wrapped. A step calls its networks as it likes, in parts, several times or with other weights, and the
gradients are averaged when it is done; torch's DistributedDataParallel would have to see each forward pass.
"""

import os
from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn


class Processes(NamedTuple):
    """Which of how many processes this is."""

    rank: int = 0
    count: int = 1  # type: ignore[assignment]  # hides tuple.count, which nobody needs

    @classmethod
    def join(cls, networks: Iterable[nn.Module]) -> "Processes":
        """Those that torchrun started, the networks on the device of this one with the weights of the first; else one."""
        if not (distributed.is_available() and distributed.is_torchelastic_launched()):
            return cls()
        on_gpu = torch.cuda.is_available()
        if on_gpu:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if on_gpu else "gloo")
        for network in networks:
            if on_gpu:
                network.to(torch.device("cuda", torch.cuda.current_device()))
            _take_from_first([*network.parameters(), *network.buffers()])
        return cls(distributed.get_rank(), distributed.get_world_size())

    def share_buffers(self, networks: Iterable[nn.Module]) -> None:
        """Give all processes the buffers of the first one, such as the statistics of batch norm."""
        if self.count > 1:
            _take_from_first([buffer for network in networks for buffer in network.buffers()])

    def mean(self, value: Tensor) -> Tensor:
        """The mean of a number over the processes."""
        if self.count > 1:
            distributed.all_reduce(value)
            value /= self.count
        return value


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over all processes; with one process there is nothing to do.

    The loop does it for what it trains. A step with an optimiser of its own calls it before that optimiser's step. A
    parameter without a gradient counts as 0 where another process has one, and keeps none where nobody has.
    """
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return
    for alike in _by_kind(parameters):
        flags = torch.tensor([float(p.grad is not None) for p in alike])
        flat = [(torch.zeros_like(p) if p.grad is None else p.grad).detach().reshape(-1) for p in alike]
        whole = torch.cat([*flat, flags.to(flat[0])]).mul_(1 / distributed.get_world_size())
        distributed.all_reduce(whole)
        *means, found = whole.split([*map(len, flat), len(flags)])
        for k, (p, mean) in enumerate(zip(alike, means, strict=True)):
            if p.grad is not None:
                p.grad.copy_(mean.view_as(p))
            elif found[k]:  # looked at only here, since a look makes a GPU wait
                p.grad = mean.view_as(p).clone()


def _take_from_first(tensors: list[Tensor]) -> None:
    for alike in _by_kind(tensors):
        whole = torch.cat([tensor.detach().reshape(-1) for tensor in alike])
        distributed.broadcast(whole, 0)
        for tensor, values in zip(alike, whole.split([tensor.numel() for tensor in alike]), strict=True):
            tensor.detach().copy_(values.view_as(tensor))


def _by_kind(tensors: Iterable[Tensor]) -> list[list[Tensor]]:
    """Those of one type on one device together: each kind travels as one message."""
    kinds = defaultdict(list)
    for tensor in tensors:
        kinds[tensor.dtype, tensor.device].append(tensor)
    return list(kinds.values())
