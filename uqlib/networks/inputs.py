"""What happens to images before a network sees them: as timm's evaluation prepares them."""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from torch import Tensor, nn

from uqlib.base.arrays import as_tensor
from uqlib.base.extras import named
from uqlib.base.options import check_choice, check_number, check_whole
from uqlib.images.sequences import Images, check_images, check_pixels

with named():
    import timm


class Preprocessing(NamedTuple):
    """What happens to uint8 images before a network sees them; str() of it is stable and serves in keys."""

    size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    crop_pct: float = 1.0
    crop_mode: str = "center"

    def __str__(self) -> str:
        mean, std = (",".join(f"{value:.6g}" for value in values) for values in (self.mean, self.std))
        return (
            f"size={self.size} mean={mean} std={std} interpolation={self.interpolation} "
            f"crop_pct={self.crop_pct:.6g} crop_mode={self.crop_mode}"
        )


def preprocessing(model: nn.Module, **changes: Any) -> Preprocessing:
    """The preprocessing of timm's evaluation for this network, from its own configuration.

    Args:
        model: a network with timm's `pretrained_cfg`.
        **changes: fields that replace the configuration's, such as size=32 for small images.

    Raises:
        ValueError: if the network has no configuration, or needs a crop that `preprocess` lacks.
    """
    if not getattr(model, "pretrained_cfg", None):
        raise ValueError(
            f"{type(model).__name__} has no timm configuration; write Preprocessing(size=..., mean=..., std=...)"
        )
    config = timm.data.resolve_data_config({}, model=model)
    height, width = config["input_size"][-2:]
    if height != width:
        raise ValueError(f"only square inputs are known; this network takes {height} x {width}")
    names = ("interpolation", "crop_pct", "crop_mode")
    found = Preprocessing(height, tuple(config["mean"]), tuple(config["std"]), *(config[name] for name in names))
    return check_preprocessing(found._replace(**changes))


MODES = {"bilinear": True, "bicubic": True, "nearest": False, "nearest-exact": False}  # whether it is antialiased
CROPS = ("center", "squash")


def check_preprocessing(preprocessing: Preprocessing) -> Preprocessing:
    """The same, if `preprocess` can do it.

    Raises:
        TypeError: if size, crop_pct, mean or std are no numbers.
        ValueError: if the interpolation or the crop is unknown, or a number out of range.
    """
    check_choice(preprocessing.interpolation, MODES, "interpolation")
    check_choice(preprocessing.crop_mode, CROPS, "crop_mode")
    check_whole(preprocessing.size, "size", least=1)
    if check_number(preprocessing.crop_pct, "crop_pct", above=0) > 1:
        raise ValueError(
            f"crop_pct must lie in (0, 1], the share of the resized side that is kept; it is {preprocessing.crop_pct}. "
            "Where timm says more, it pads the image with black; pass crop_pct=1.0."
        )
    mean, std = preprocessing.mean, preprocessing.std
    if not isinstance(mean, tuple | list) or not isinstance(std, tuple | list) or not 0 < len(mean) == len(std):
        raise ValueError(f"mean and std must be tuples, one number a colour; they are {mean} and {std}")
    for k, (one, other) in enumerate(zip(mean, std, strict=True)):
        if abs(check_number(one, f"mean[{k}]")) > 1:
            raise ValueError(
                f"mean[{k}] must lie in [-1, 1], for colours in [0, 1]; it is {one}. 0 to 255? Divide by 255."
            )
        check_number(other, f"std[{k}]", above=0)
    return preprocessing


LARGEST_IMAGE = 2**28  # values of one image after resizing: 0.25 GB in bytes, 1 GB in floats


def preprocess(
    images: Any, preprocessing: Preprocessing, *, device: torch.device | str | None = None
) -> Float[Tensor, "n ch h w"]:
    """Images as a network expects them: resized, cut to the centre square, divided by 255, normalised.

    As timm's evaluation does: the shorter side becomes size / crop_pct, then the centre is cut out. Torch resizes
    (antialiased, in whole grey levels), not PIL; the two differ by at most two levels, and seldom by more than one.
    Images that have the right size are not resized, and then the result equals torchvision's ToTensor and Normalize bit
    for bit.

    Args:
        images: uint8 (n, h, w, 3), or a list of (h, w, 3) of any sizes, or files as `load_images("folder:...")` has them.
        preprocessing: as `preprocessing(model)` gives it.
        device: where the result goes; pixels travel as bytes, a quarter of the floats.

    Returns:
        float32 (n, 3, size, size). Time and memory grow with the pixels.

    Raises:
        TypeError: if the images are not uint8.
        ValueError: if there are none, their shape is another, or one is so long and thin that it would grow beyond a gigabyte.
    """
    channels = len(check_preprocessing(preprocessing).mean)
    images = check_images(images, channels=channels)
    if isinstance(images, list | tuple | Images):
        several = enumerate(images)
        checked = (check_pixels(each, f"images[{row}]", axes="h w", channels=channels) for row, each in several)
        return torch.cat([preprocess(as_tensor(each)[None], preprocessing, device=device) for each in checked])
    pixels = _crop(as_tensor(images).to(device).permute(0, 3, 1, 2), preprocessing)
    mean, std = (torch.tensor(v, device=pixels.device).view(-1, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    # bytes come with the channels last; kept so, the CPU's convolutions run 1.15 times as fast
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    return pixels.float().div_(255).sub_(mean).div_(std)


def grey_pixels(images: Any, side: int = 8) -> Float[Tensor, "n d"]:
    """Features that any network must do better than: the images themselves, grey and of side x side pixels, in [0, 1]."""
    plain = Preprocessing(side, (0.0,) * 3, (1.0,) * 3)
    blocks = (images[k : k + 256] for k in range(0, len(images), 256))
    return torch.cat([preprocess(x, plain).mean(1).flatten(1) for x in blocks])


def _crop(pixels: Num[Tensor, "n ch h w"], preprocessing: Preprocessing) -> Num[Tensor, "n ch size size"]:
    height, width = pixels.shape[-2:]
    side = math.floor(preprocessing.size / preprocessing.crop_pct)
    short = min(height, width)
    if not short:
        raise ValueError(f"images must have pixels; they are {height} x {width}")
    shape = (side, side) if preprocessing.crop_mode == "squash" else (side * height // short, side * width // short)
    if math.prod(shape) * pixels.shape[1] > LARGEST_IMAGE:
        raise ValueError(
            f"images of {height} x {width} pixels would become {shape[0]} x {shape[1]} before the centre is cut out; "
            "cut them first, for example with photos.squares"
        )
    if shape != (height, width):
        pixels = _resize(pixels, shape, preprocessing.interpolation)
    top, left = (round((length - preprocessing.size) / 2) for length in shape)
    return pixels[..., top : top + preprocessing.size, left : left + preprocessing.size]


def _resize(pixels: Num[Tensor, "n ch h w"], shape: tuple[int, int], mode: str) -> Num[Tensor, "n ch height width"]:
    if pixels.device.type == "cpu":
        return F.interpolate(pixels, shape, mode=mode, antialias=MODES[mode])
    # only the CPU resizes bytes; elsewhere in floats, then back to the whole levels that the CPU returns
    return F.interpolate(pixels.float(), shape, mode=mode, antialias=MODES[mode]).round_().clamp_(0, 255)
