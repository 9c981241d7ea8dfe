"""Multiply-adds, by hand."""

import pytest
import torch

from uqlib.networks import create, macs

pytestmark = pytest.mark.usefixtures("no_folder_of_weights")


def test_macs_of_a_transformer_by_hand():
    model = create("vit_tiny_patch16_224", weights=None)
    tokens, width = 197, 192
    block = tokens * (4 * width**2 + 2 * width * 4 * width) + 2 * tokens**2 * width
    assert macs(model) == 196 * 3 * 16**2 * width + 12 * block + width * 1000


def test_macs_take_a_size():
    assert macs(create("cifar_resnet20", weights=None), size=64) == 4 * (40_551_040 - 640) + 640


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_precision_of_a_network_does_not_change_its_cost(dtype):
    model = create("cifar_resnet20", weights=None)
    cost = macs(model)
    assert macs(model.to(dtype)) == cost
