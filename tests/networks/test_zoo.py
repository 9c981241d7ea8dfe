"""Our architectures: their published sizes, timm's contract."""

import subprocess
import sys

import pytest
import timm
import torch
from torch import nn

from uqlib.networks import Preprocessing, count_parameters, create, macs, preprocessing, zoo

pytestmark = pytest.mark.usefixtures("no_folder_of_weights")


@pytest.mark.parametrize(
    ("depth", "count", "multiply_adds"),
    [(20, 269_722, 40_551_040), (32, 464_154, 68_862_592), (44, 658_586, 97_174_144), (56, 853_018, 125_485_696)],
)
def test_cifar_resnets_have_the_published_size(depth, count, multiply_adds):
    # parameters: He et al. table 6 prints 0.27, 0.46, 0.66, 0.85 M; both numbers in full from the weights' manifest
    model = create(f"cifar_resnet{depth}", weights=None)
    assert count_parameters(model) == count
    assert macs(model) == multiply_adds


def test_resnet110_has_the_papers_size():
    assert count_parameters(create("cifar_resnet110", weights=None)) == pytest.approx(1.7e6, rel=0.03)  # table 6


def wide_parameters(depth, width, classes):
    """By hand from table 1 of the paper: two convolutions and two norms a block, 1x1 where the width changes."""
    total, inputs = 3 * 16 * 9, 16
    for outputs in (16 * width, 32 * width, 64 * width):
        for block in range((depth - 4) // 6):
            first = inputs if block == 0 else outputs
            total += 9 * first * outputs + 9 * outputs**2 + 2 * first + 2 * outputs
            total += first * outputs if first != outputs else 0
        inputs = outputs
    return total + 2 * inputs + (inputs + 1) * classes


@pytest.mark.parametrize(
    ("name", "depth", "width", "million"),
    [("wrn_16_4", 16, 4, 2.7), ("wrn_40_2", 40, 2, 2.2), ("wrn_28_10", 28, 10, 36.5)],
)
def test_wide_resnets_have_the_papers_size(name, depth, width, million):
    count = count_parameters(create(name, weights=None, classes=10))
    assert count == wide_parameters(depth, width, 10)
    assert count / 1e6 == pytest.approx(million, abs=0.06)  # as printed in the paper's tables, one decimal


@pytest.mark.parametrize(("name", "million"), [("resnet18_cifar", 11.17), ("resnet34_cifar", 21.28)])
def test_resnets_of_imagenet_take_small_images(name, million):
    model = create(name, weights=None, seed=0)
    assert count_parameters(model) / 1e6 == pytest.approx(
        million, abs=0.006
    )  # as printed in repositories that train them
    features = model.forward_features(torch.randn(2, 3, 32, 32))
    assert features.shape == (2, 512, 4, 4)  # three steps of two
    with pytest.raises(FileNotFoundError, match=f"no published weights of {name}"):
        create(name)


def test_a_stride_in_the_stem_leaves_the_weights_and_a_quarter_of_the_pixels():
    fast, slow = create("cifar_resnet8_w32", weights=None, seed=0), create("cifar_resnet8", weights=None, width=32)
    slow.load_state_dict(fast.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert fast.forward_features(x).shape == (2, 128, 4, 4)
    assert torch.equal(fast.eval().conv1(x), slow.eval().conv1(x)[:, :, ::2, ::2])


def test_wide_resnet_drops_only_while_it_trains():
    model = create("wrn_16_4", weights=None, seed=0, dropout=0.9)
    images = torch.randn(2, 3, 32, 32)
    assert model.layer2[0].dropout.p == 0.9
    model.eval()
    assert torch.equal(model(images), model(images))
    for module in model.modules():
        module.training = isinstance(module, nn.Dropout)
    assert not torch.equal(model(images), model(images))


def test_shortcuts_of_option_a_take_every_second_pixel_and_pad_with_zeros():
    block = zoo.BasicBlock(2, 6, 2).eval()
    block.conv2.weight.data.zero_()  # only the shortcut is left
    x = torch.rand(1, 2, 4, 4)
    expected = torch.zeros(1, 6, 2, 2)
    expected[0, 2:4] = x[0, :, [0, 2]][:, :, [0, 2]]
    assert torch.equal(block(x), expected)


def test_wide_shortcuts_start_after_the_activation_only_where_the_width_changes():
    x = torch.randn(1, 2, 4, 4)
    for block, expected in ((zoo.WideBlock(2, 2, 1), x), (zoo.WideBlock(2, 4, 2), x.relu()[..., ::2, ::2])):
        block.conv2.weight.data.zero_()
        if block.shortcut is not None:
            block.shortcut.weight.data = torch.eye(4, 2)[..., None, None]
            expected = torch.cat([expected, torch.zeros_like(expected)], dim=1)
        assert torch.allclose(block.eval()(x), expected, rtol=1e-5)  # the norm divides by sqrt(1 + 1e-5)


@pytest.mark.parametrize("name", ["cifar_resnet20", "wrn_16_4"])
def test_our_networks_keep_timms_contract(name):
    model = timm.create_model(name, num_classes=7).eval()
    images = torch.randn(2, 3, 32, 32)
    trunk = model.forward_features(images)
    pooled = model.forward_head(trunk, pre_logits=True)
    assert trunk.shape == (2, model.num_features, 8, 8)
    assert torch.allclose(pooled, trunk.mean((2, 3)), atol=1e-6)
    assert torch.equal(model.forward_head(trunk), model(images))
    assert model.get_classifier().out_features == 7
    assert (model.default_cfg["architecture"], model.default_cfg["classifier"]) == (name, "linear")
    model.reset_classifier(0)
    assert torch.equal(model(images), pooled)
    model.reset_classifier(3)
    assert model(images).shape == (2, 3)
    stages = timm.create_model(name, features_only=True)
    assert [stage.shape[-1] for stage in stages(images)] == [32, 16, 8]
    assert timm.is_model(name)


@pytest.mark.parametrize(("name", "change"), [("cifar_resnet20", {"depth": 21}), ("wrn_16_4", {"depth": 18})])
def test_impossible_depths_are_refused(name, change):
    with pytest.raises(ValueError, match=f"depth .* it is {change['depth']}"):
        create(name, weights=None, **change)


@pytest.mark.parametrize("change", [{"depth": 20.0}, {"depth": True}, {"width": 0.5}, {"width": "4"}])
@pytest.mark.parametrize("name", ["cifar_resnet20", "wrn_16_4"])
def test_sizes_are_whole_numbers(name, change, unchecked):
    with pytest.raises(TypeError, match=f"{next(iter(change))} must be a whole number"):
        create(name, weights=None, **change)


@pytest.mark.parametrize(
    ("name", "size", "width", "multiply_adds"),
    [("mobilenetv1_025", 128, 256, 14e6), ("mobilenetv1_050", 160, 512, 77e6), ("mobilenetv1_075", 192, 768, 239e6)],
)
def test_mobilenets_of_three_widths(name, size, width, multiply_adds):
    model = create(name, weights=None)
    assert model.num_features == width
    assert macs(model) == pytest.approx(multiply_adds, abs=5e5)  # the table of the weights prints millions
    assert preprocessing(model) == Preprocessing(size, (128 / 255,) * 3, (128 / 255,) * 3, "bilinear", 0.875)


def test_importing_registers_and_does_nothing_else():
    code = (
        "import torch; before = torch.get_rng_state(); import uqlib.networks, timm; "
        "assert torch.equal(before, torch.get_rng_state()); assert timm.is_model('cifar_resnet110')"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_names_in_print():
    printed = [zoo.network_label(name) for name in ("cifar_resnet8_w32", "cifar_resnet56", "resnet18")]
    assert printed == ["ResNet-8 of 32 channels", "ResNet-56", "resnet18"]
