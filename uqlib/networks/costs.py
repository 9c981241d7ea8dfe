"""What a network costs: multiply-adds and parameters."""

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from uqlib.base.options import check_whole
from uqlib.networks.inputs import preprocessing
from uqlib.networks.outputs import evaluating, in_own_precision


def macs(model: nn.Module, *, size: int | None = None) -> int:
    """Multiply-adds of one forward pass on one image: convolutions, matrix products and attention, without biases.

    Counted by torch.utils.flop_counter, which counts two operations a multiply-add; this is half of its number.

    Args:
        model: any network on square images of 3 channels.
        size: side of the image; by default that of preprocessing(model).
    """
    size = preprocessing(model).size if size is None else check_whole(size, "size", least=1)
    image = in_own_precision(model, torch.zeros(1, 3, size, size, device=next(model.parameters()).device))
    # attention as plain products, since not every fused kernel is known to the counter
    counter = FlopCounterMode(display=False)
    with evaluating(model), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(image)
    return counter.get_total_flops() // 2


def count_parameters(model: nn.Module) -> int:
    """Number of parameters, trainable or not, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())
