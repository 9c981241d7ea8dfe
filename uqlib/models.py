"""Networks: timm's and ours, their preprocessing, what they say on images, what they cost.

`create` never hands out a network whose classifier is random by accident: weights are loaded strictly, and a number of
classes other than that of the weights is refused. Importing this file registers the networks of `uqlib.networks`.
"""

import contextlib
import difflib
import hashlib
import math
import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from uqlib.arrays import as_tensor, check_choice
from uqlib.networks import without_wrapper

# names of published files that differ from the network's: NETWORK.safetensors is looked for first
FILES = {f"cifar_resnet{depth}": f"cifar10_resnet{depth}" for depth in (20, 32, 44, 56, 110)} | {
    "mobilenetv1_025": "mobilenetv1_025_128_in1k_qat",
    "mobilenetv1_050": "mobilenetv1_050_160_in1k_qat",
    "mobilenetv1_075": "mobilenetv1_075_192_in1k_qat",
    "tf_mobilenetv2_100": "mobilenetv2_100_in1k",
    "tf_mobilenet_edgetpu_100": "mobilenet_edgetpu_100_in1k_qat",
    "cifar100_micronet": "cifar100_micronet_osi",
}


def create(
    name: str,
    *,
    weights: str | os.PathLike | None = "pretrained",
    classes: int | None = None,
    seed: int | None = None,
    **kwargs: Any,
) -> nn.Module:
    """A network by timm's name, in training mode as timm returns it.

    Args:
        name: any name that timm.create_model takes; those of `uqlib.networks` are among them.
        weights: "pretrained" looks for NAME.safetensors in the folder $UQLIB_WEIGHTS, then asks timm, which downloads;
            a path is a safetensors or torch file, read with weights_only=True and loaded strictly;
            None leaves the network as initialised.
        classes: rows of the classifier; by default those of the weights, or timm's default for a fresh network.
            0 takes the classifier off after loading. Anything else that differs from the weights is refused.
        seed: of a fresh network: its initialisation depends on nothing else, and the global generator is left alone.
            None draws from the global generator, as torch does. Loading weights never touches it.
        **kwargs: handed to timm.create_model, such as pad_type="same", bn_eps=1e-3, drop_rate or img_size.

    Raises:
        ValueError: if the number of classes, the names or the shapes of the file do not fit the network.
        FileNotFoundError: if there are no weights on this machine and they cannot be downloaded.
    """
    if ":" not in name and not timm.is_model(name):
        near = difflib.get_close_matches(name, timm.list_models(), n=4, cutoff=0.5)
        raise ValueError(f"unknown network {name!r}; close names: {', '.join(near) or 'none, see timm.list_models()'}")
    if weights is None:
        return _fresh(name, classes, seed, kwargs)
    if seed is not None:
        raise ValueError(f"seed={seed} has no effect where weights are loaded; pass weights=None for a fresh network")
    path = _weights_file(name) if weights == "pretrained" else Path(weights)
    with torch.random.fork_rng(devices=[]):  # what initialisation draws is overwritten by the weights
        model = _from_timm(name, kwargs) if path is None else _from_file(name, path, kwargs)
    return _with_classes(model, classes, path or "timm")


def _fresh(name: str, classes: int | None, seed: int | None, kwargs: dict) -> nn.Module:
    if seed is None:
        return timm.create_model(name, num_classes=classes, **kwargs)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed the GPUs as well, and leave them so
        return timm.create_model(name, num_classes=classes, **kwargs)


def _weights_file(name: str) -> Path | None:
    folder = os.environ.get("UQLIB_WEIGHTS")
    if not folder:
        return None
    paths = [Path(folder, f"{stem}.safetensors") for stem in (name, FILES.get(name)) if stem]
    return next((path for path in paths if path.is_file()), None)


def _from_timm(name: str, kwargs: dict) -> nn.Module:
    remedy = (
        f"Pass weights=PATH of a safetensors file, or put {name}.safetensors into the folder $UQLIB_WEIGHTS "
        f"(now {os.environ.get('UQLIB_WEIGHTS') or 'not set'}), or weights=None for a fresh network."
    )
    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if cfg is not None and not cfg.has_weights and ":" not in name:
        raise FileNotFoundError(f"there are no published weights of {name}. {remedy}")
    source = {}
    try:
        if cfg is not None and cfg.url and not cfg.hf_hub_id:
            # downloaded here because timm does not compare the file with the hash in its name
            state = torch.hub.load_state_dict_from_url(
                cfg.url, map_location="cpu", check_hash=True, weights_only=True, progress=False
            )
            source = {"pretrained_cfg_overlay": {"state_dict": state}}
        model = timm.create_model(name, pretrained=True, **(source | kwargs))
    except (OSError, ConnectionError) as error:
        raise FileNotFoundError(f"the weights of {name} are not here and could not be downloaded. {remedy}") from error
    model.pretrained_cfg.pop("state_dict", None)
    return model


def _from_file(name: str, path: Path, kwargs: dict) -> nn.Module:
    state = _read_state(path)
    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    heads = (cfg.classifier if cfg else None) or ()
    head = f"{heads if isinstance(heads, str) else next(iter(heads), '')}.weight"
    if head != ".weight" and head not in state:
        raise ValueError(
            f"{path} has no classifier: {head} of {name} is not among its {len(state)} tensors, "
            f"{', '.join(list(state)[:3])}, ... A head left random would pass unseen; give a file of the whole network."
        )
    classes = {} if head == ".weight" else {"num_classes": len(state[head])}
    model = timm.create_model(name, **(classes | kwargs))
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the weights of {name}: {str(error)[:500]}") from None
    return model


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of weights {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return without_wrapper(torch.load(path, map_location="cpu", weights_only=True))
    except (SafetensorError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} is no whole file of weights ({str(error)[:200] or 'it ends too early'}); copy it again"
        ) from None


def _with_classes(model: nn.Module, classes: int | None, source: Any) -> nn.Module:
    if classes is None or classes == model.num_classes:
        return model
    if classes != 0:
        raise ValueError(
            f"the weights from {source} have {model.num_classes} classes, {classes} were asked for. "
            f"For a new head leave classes out and call model.reset_classifier({classes}), then train it."
        )
    model.reset_classifier(0)
    return model


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
    """The same, if `preprocess` knows its interpolation and crop; else a ValueError that lists those it knows."""
    check_choice(preprocessing.interpolation, MODES, "interpolation")
    check_choice(preprocessing.crop_mode, CROPS, "crop_mode")
    return preprocessing


def preprocess(
    images: Any, preprocessing: Preprocessing, *, device: torch.device | str | None = None
) -> Float[Tensor, "n ch h w"]:
    """Images as a network expects them: resized, cut to the centre square, divided by 255, normalised.

    As timm's evaluation does: the shorter side becomes size / crop_pct, then the centre is cut out. Torch resizes
    (antialiased, in whole grey levels), not PIL; the two differ by at most one level. Images that have the right size
    are not resized, and then the result equals torchvision's ToTensor and Normalize bit for bit.

    Args:
        images: uint8 (n, h, w, 3), or a list of (h, w, 3) of any sizes.
        preprocessing: as `preprocessing(model)` gives it.
        device: where the result goes; pixels travel as bytes, a quarter of the floats.

    Returns:
        float32 (n, 3, size, size). Time and memory grow with the pixels.

    Raises:
        TypeError: if the images are not uint8.
        ValueError: if their shape is another.
    """
    if isinstance(images, list | tuple):
        return torch.cat([preprocess(as_tensor(image)[None], preprocessing, device=device) for image in images])
    images = as_tensor(images)
    if images.dtype != torch.uint8:
        raise TypeError(f"images must be uint8 with values 0 to 255; they are {images.dtype}")
    channels = len(preprocessing.mean)
    if images.ndim != 4 or images.shape[-1] != channels:
        raise ValueError(f"images must have shape (n, h, w, {channels}); it is {tuple(images.shape)}")
    pixels = _crop(images.to(device).permute(0, 3, 1, 2), check_preprocessing(preprocessing))
    mean, std = (torch.tensor(v, device=pixels.device).view(-1, 1, 1) for v in (preprocessing.mean, preprocessing.std))
    # bytes come with the channels last; kept so, the CPU's convolutions run 1.15 times as fast
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    return pixels.float().div_(255).sub_(mean).div_(std)


def _crop(pixels: Num[Tensor, "n ch h w"], preprocessing: Preprocessing) -> Num[Tensor, "n ch size size"]:
    height, width = pixels.shape[-2:]
    side = math.floor(preprocessing.size / preprocessing.crop_pct)
    short = min(height, width)
    shape = (side, side) if preprocessing.crop_mode == "squash" else (side * height // short, side * width // short)
    if shape != (height, width):
        pixels = _resize(pixels, shape, preprocessing.interpolation)
    top, left = (round((length - preprocessing.size) / 2) for length in shape)
    return pixels[..., top : top + preprocessing.size, left : left + preprocessing.size]


def _resize(pixels: Num[Tensor, "n ch h w"], shape: tuple[int, int], mode: str) -> Num[Tensor, "n ch height width"]:
    if pixels.device.type == "cpu":
        return F.interpolate(pixels, shape, mode=mode, antialias=MODES[mode])
    # only the CPU resizes bytes; elsewhere in floats, then back to the whole levels that the CPU returns
    return F.interpolate(pixels.float(), shape, mode=mode, antialias=MODES[mode]).round_().clamp_(0, 255)


class Outputs(NamedTuple):
    features: Float[Tensor, "n d"]
    logits: Float[Tensor, "n c"]


def features_and_logits(model: nn.Module, images: Any, *, classifier: nn.Module | None = None) -> Outputs:
    """What the network says: the input of its classifier and the logits, in one forward pass in eval mode.

    The logits are those of model(images), bit for bit. The model's modes are put back. No gradient is recorded, but
    a head can be trained on the result. A model without classifier (num_classes=0) gives logits of shape (n, 0).

    Args:
        model: a timm network, or any module whose last layer is given as `classifier`.
        images: float (n, 3, h, w) on the model's device, as `preprocess` returns them.
        classifier: the layer whose input is the features; model.get_classifier() by default.

    Raises:
        TypeError: if the images are not floating.
        ValueError: if the classifier is not one layer that is called once.
    """
    if not (isinstance(images, Tensor) and images.is_floating_point()):
        kind = getattr(images, "dtype", type(images).__name__)
        raise TypeError(f"images must be a floating tensor, not {kind}: preprocess(images, preprocessing(model))")
    classifier = classifier or _classifier(model)
    inputs: list[Tensor] = []
    hook = classifier.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    try:
        with _evaluating(model), torch.inference_mode():
            logits = model(images)
    finally:
        hook.remove()
    if len(inputs) != 1:
        raise ValueError(f"the classifier {classifier} was called {len(inputs)} times in one pass; once is needed")
    # an inference tensor cannot be saved for a backward pass, a copy of it can
    features = inputs[0].flatten(1).clone()
    return Outputs(features, features[:, :0] if isinstance(classifier, nn.Identity) else logits.flatten(1).clone())


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for module in model.modules()]  # a frozen part may differ from the whole
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _classifier(model: nn.Module) -> nn.Module:
    found = model.get_classifier() if hasattr(model, "get_classifier") else None
    if not isinstance(found, nn.Module):
        what = f"{len(found)} classifiers" if isinstance(found, tuple | list) else "no get_classifier()"
        raise ValueError(f"{type(model).__name__} has {what}; pass classifier=, the one layer that gives the logits")
    return found


def macs(model: nn.Module, *, size: int | None = None) -> int:
    """Multiply-adds of one forward pass on one image: convolutions, matrix products and attention, without biases.

    Counted by torch.utils.flop_counter, which counts two operations a multiply-add; this is half of its number.

    Args:
        model: any network on square images of 3 channels.
        size: side of the image; by default that of preprocessing(model).
    """
    size = size or preprocessing(model).size
    image = torch.zeros(1, 3, size, size, device=next(model.parameters()).device)
    # attention as plain products, since not every fused kernel is known to the counter
    counter = FlopCounterMode(display=False)
    with _evaluating(model), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        model(image)
    return counter.get_total_flops() // 2


def parameters(model: nn.Module) -> int:
    """Number of parameters, trainable or not, shared ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def weights_digest(model: nn.Module) -> str:
    """sha256 (64 hexadecimal digits) of the names, types, shapes and bytes of all that a state_dict holds.

    The same on every device and in every order of the names. It says nothing of options without tensors, such as
    padding: networks that differ only in these need different names.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
