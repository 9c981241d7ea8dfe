"""Soups: the weights of several networks, fine-tuned from one start, averaged into one network of the same cost.

Wortsman et al. 2022 (arXiv:2203.05482). A soup is one network: one forward pass, where an ensemble needs one a member.
For linear classifiers the two agree, since the logits are linear in the weights; for deep ones it works only as far as
fine-tuning has left them in one basin. A state is what model.state_dict() returns.

Batch norm is the trap: its running statistics belong to each member's own activations, and their mean belongs to no
network. Call `reestimate_batch_norm` on the soup. Layer norm and group norm keep no statistics and need nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from math import isnan
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from uqlib.base.arrays import Column, as_tensor
from uqlib.base.checks import check_finite
from uqlib.base.options import check_number

State = dict[str, Tensor]  # parameters and buffers by name


class GreedySoup(NamedTuple):
    """The soup that grew while it got better."""

    state: State
    members: tuple[int, ...]  # indices of the states that were kept, in the order in which they came in
    score: float  # what `evaluate` said of the soup; higher = better


def uniform_soup(states: Iterable[Mapping[str, Any]]) -> State:
    """The mean of all states. Single whole numbers, such as the batch counters of batch norm, are those of the first.

    Floating entries are added up in float64 and given back in the dtype and on the device of the first state. Tables of
    whole numbers, such as positions, have no mean: all states must hold the same. The states are read one by one, so a
    generator that loads them needs the memory of one, beside the sum.

    Args:
        states: at least one, with the same names and shapes.

    Raises:
        ValueError: if there are none, or names, shapes or tables of whole numbers differ, or a weight is not finite.
        TypeError: if one of them is not a state, or holds what is no real number.

    Source:
        Wortsman et al. 2022 (arXiv:2203.05482), section 2, uniform soup.
    """
    soup = None
    _check_several(states, Iterable)
    for index, state in enumerate(states):
        if soup is None:
            soup = _Sum(state, index)
        else:
            soup.add(soup.check(state, index))
    if soup is None:
        raise ValueError("states is empty; at least one is needed")
    return soup.mean()


def greedy_soup(states: Sequence[Mapping[str, Any]], scores: Column, evaluate: Callable[[State], float]) -> GreedySoup:
    """The best state, and of the others, from good to bad, each whose mean with those kept before scores higher.

    Equal scores are tried in the order of their index. `evaluate` is called once a state, the best one included. It
    chooses the members, so judge the soup on other examples. Beside the states, memory is that of one sum in float64
    and two states; `states` may be a sequence that loads one when it is indexed.

    Args:
        states: with the same names and shapes.
        scores: (m,), one a state, higher = better, on validation examples. They give the order and nothing else.
        evaluate: score of a state on validation examples, higher = better. Of a network with batch norm it should
            call `reestimate_batch_norm` first.

    Raises:
        ValueError: if there are no states, scores are not one a state or hold NaN, the best state evaluates to NaN, and
            as `uniform_soup`.
        TypeError: if one of them is not a state, or evaluate gives no number. A later soup of score NaN is not kept.

    Source:
        Wortsman et al. 2022 (arXiv:2203.05482), recipe 1, which keeps a member also if the score stays the same;
        here it must rise, as Zhou et al. 2025 (arXiv:2505.18636) have it.
    """
    _check_several(states, Sized)
    best, *others = _ranking(scores, len(states))
    soup = _Sum(states[best], best)
    state, members = soup.mean(), tuple[int, ...]([best])
    score = _number(evaluate(state))
    if isnan(score):
        raise ValueError(f"evaluate gave nan for state {best}, which has the best score; a number is needed")
    for index in others:
        candidate = soup.check(states[index], index)
        trial = soup.mean(candidate)
        found = _number(evaluate(trial))
        if found > score:
            soup.add(candidate)
            state, members, score = trial, (*members, index), found
    return GreedySoup(state, members, score)


def reestimate_batch_norm(model: nn.Module, batches: Iterable[Any]) -> nn.Module:
    """The model, with the running statistics of its batch norm layers taken anew from these batches.

    One pass without gradients. The statistics are those of PyTorch's cumulative mode (momentum=None): over the
    batches, the mean of their means and the mean of their unbiased variances, each batch counted once whatever its
    size. That variance leaves out how far the means of the batches differ: take batches of one size, large and mixed.
    Meanwhile the layers normalise by the batch, as in training; everything else, such as dropout, is in eval mode.
    Modes and momenta are put back, and so are the old statistics if a batch fails. Changes the model in place; one
    without such layers is returned as it is, and no batch is read.

    Args:
        model: any module that is called on images.
        batches: images, normalised as in training; they are moved to the device and the dtype of the model.

    Raises:
        ValueError: if there is no batch, or an image is not finite.
        TypeError: if a batch is not one array of floats, all images come as one array, or model is no module.

    Source:
        Izmailov et al. 2018 (arXiv:1803.05407), section 3.2, for averaged weights.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch module; it is a {type(model).__name__}")
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    if not layers:
        return model
    if isinstance(batches, Tensor | np.ndarray):
        raise TypeError(
            f"batches must be several; got one array of shape {tuple(batches.shape)}: pass images.split(256)"
        )
    if not isinstance(batches, Iterable):
        raise TypeError(f"batches must be arrays of images, one after the other; it is a {type(batches).__name__}")
    weight = next(iter(model.parameters()), layers[0].running_mean)
    count = 0
    with _cumulative(model, layers), torch.no_grad():
        for images in batches:
            model(_check_images(images, count).to(weight))
            count += 1
        if not count:
            raise ValueError("batches is empty; at least one batch of images is needed")
    return model


class _Sum:
    """A running sum of states in float64, beside the first of them, which says how a state must look."""

    def __init__(self, state: Mapping[str, Any], index: int):
        self.first, self.index, self.count = _check_state(state, index), index, 1
        floats = {name: value for name, value in self.first.items() if value.is_floating_point()}
        # a copy: the sum grows in place, and a state in float64 would grow with it
        self.total = {name: as_tensor(value).to(torch.float64, copy=True) for name, value in floats.items()}

    def check(self, state: Mapping[str, Any], index: int) -> State:
        """The state as tensors, if its mean with the first makes sense."""
        state = _check_state(state, index)
        for name in (*self.first, *state):
            here, there = _look(state, name), _look(self.first, name)
            if here != there:
                raise ValueError(
                    f"states must have the same names and shapes; {name!r} is {there} in state {self.index} and {here} "
                    f"in state {index}. A soup needs one architecture, fine-tuned from one start."
                )
            if name not in self.total and self.first[name].ndim and not _equal(self.first[name], state[name]):
                raise ValueError(
                    f"whole numbers have no mean; {name!r} differs between state {self.index} and state {index}. "
                    "Quantised weights? Take the soup of the floats that they were made of."
                )
        return state

    def add(self, state: State) -> None:
        for name, total in self.total.items():
            total += _wide(state[name], total)
        self.count += 1

    def mean(self, *more: State) -> State:
        """Of what was added, and of so many more, which are not."""
        soup = {name: value.detach().clone() for name, value in self.first.items() if name not in self.total}
        for name, total in self.total.items():
            total = sum((_wide(state[name], total) for state in more), total)
            first = self.first[name]
            soup[name] = (total / (self.count + len(more))).to(first.dtype).to(first.device)
            if not soup[name].isfinite().all():
                raise ValueError(
                    f"the mean of {name!r} is beyond {first.dtype}, which state {self.index} has. Pass states in float32."
                )
        return {name: soup[name] for name in self.first}  # in the order of the model


def _wide(value: Tensor, total: Tensor) -> Tensor:
    return as_tensor(value).to(total)


def _equal(one: Tensor, other: Tensor) -> bool:
    return torch.equal(one, other.to(one.device, one.dtype))


def _number(score: Any) -> float:
    """What evaluate gave; NaN is a number here."""
    if isinstance(score, float | np.floating | Tensor | np.ndarray) and np.size(score) == 1 and isnan(score):
        return float("nan")
    return check_number(score, "what evaluate gave", finite=False)


def _check_several(states: Any, needed: type) -> None:
    if isinstance(states, str | nn.Module) or not isinstance(states, needed):
        raise TypeError(f"states must be a list of what model.state_dict() returns; it is a {type(states).__name__}")


def _look(state: State, name: str) -> str:
    if name not in state:
        return "missing"
    kind = "floats" if state[name].is_floating_point() else "integers"  # or true and false
    return f"{kind} of shape {tuple(state[name].shape)}"


def _check_state(state: Mapping[str, Any], index: int) -> State:
    if not isinstance(state, Mapping):
        raise TypeError(f"state {index} is a {type(state).__name__}; pass a list of what model.state_dict() returns")
    if not state:
        raise ValueError(f"state {index} is empty; pass what model.state_dict() returns")
    given, state = state, {}
    for name, value in given.items():
        tensor = as_tensor(value, f"{name!r} of state {index}")
        state[name] = value if isinstance(value, Tensor) else tensor
    for name, value in state.items():
        if value.is_floating_point() and not value.isfinite().all():
            raise ValueError(
                f"weights must be finite; {name!r} of state {index} is not. A run that diverged? Leave it out."
            )
    return state


def _ranking(scores: Column, states: int) -> list[int]:
    """Indices from the best score down; equal ones in their order."""
    scores = as_tensor(scores, "scores")
    if scores.ndim != 1 and scores.shape[1:] != (1,):
        raise ValueError(f"scores must be one a state, (m,); their shape is {tuple(scores.shape)}")
    scores = scores.double().flatten().tolist()
    if len(scores) != states or not states:
        raise ValueError(f"scores must be one a state, at least one; there are {len(scores)} for {states} states")
    for index, score in enumerate(scores):
        if isnan(score):
            raise ValueError(f"scores must be numbers; that of state {index} is nan. Leave out a run that diverged.")
    return sorted(range(states), key=scores.__getitem__, reverse=True)  # stable, reversed or not


@contextmanager
def _cumulative(model: nn.Module, layers: list[_BatchNorm]) -> Iterator[None]:
    """Batch norm layers that gather statistics from nothing, in a model in eval mode; put back, all but the statistics."""
    modes = [(module, module.training) for module in model.modules()]
    momenta = [layer.momentum for layer in layers]
    before = [{name: value.clone() for name, value in layer.named_buffers(recurse=False)} for layer in layers]
    try:
        model.eval()
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum, layer.training = None, True  # not .train(): a layer may hold others, such as dropout
        yield
    except BaseException:
        for layer, buffers in zip(layers, before, strict=True):
            for name, value in buffers.items():
                getattr(layer, name).copy_(value)
        raise
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        for module, mode in modes:
            module.training = mode


def _check_images(images: Any, index: int) -> Tensor:
    if isinstance(images, list | tuple | Mapping):
        raise TypeError(
            f"batch {index} is a {type(images).__name__}; pass the images alone: (images for images, labels in loader)"
        )
    batch = as_tensor(images, f"batch {index}")
    if not batch.is_floating_point():
        raise TypeError(
            f"batch {index} holds {batch.dtype}; pass normalised floats, as networks.preprocess returns them"
        )
    check_finite(batch, f"batch {index}")
    return batch
