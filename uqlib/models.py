"""Networks: timm's and ours, their preprocessing, what they say on images, what they cost.

`create` never hands out a network whose classifier is random by accident: weights are loaded strictly, and a number of
classes other than that of the weights is refused. Importing this file registers the networks of `uqlib.networks`.
"""

import contextlib
import difflib
import math
import os
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Num
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from uqlib.arrays import as_tensor, check_choice, check_number, check_whole
from uqlib.extras import named
from uqlib.files import check_seal
from uqlib.fingerprint import of_network
from uqlib.networks import without_wrapper
from uqlib.photos import Images, check_images, check_pixels

with named():
    import timm

HASHED = re.compile(r"-[a-f0-9]{8,64}\.")  # where torch.hub finds the first digits of a file's sha256
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
            a path is a safetensors or torch file, read with weights_only=True and loaded strictly, or the checkpoint of
            a `training.train`, whose network is taken; None leaves the network as initialised.
        classes: rows of the classifier; by default those of the weights, or timm's default for a fresh network.
            0 takes the classifier off after loading. Anything else that differs from the weights is refused.
        seed: of a fresh network: its initialisation depends on nothing else, and the global generator is left alone.
            None draws from the global generator, as torch does. Loading weights never touches it.
        **kwargs: handed to timm.create_model, such as pad_type="same", bn_eps=1e-3, drop_rate or img_size.

    Raises:
        TypeError: if classes or seed are no whole numbers.
        ValueError: if the number of classes, the names or the shapes of the file do not fit the network.
        FileNotFoundError: if there are no weights on this machine and they cannot be downloaded.
    """
    classes = None if classes is None else check_whole(classes, "classes", least=0)
    seed = None if seed is None else check_whole(seed, "seed", least=0)
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
    if cfg is not None and cfg.url and not cfg.hf_hub_id and not HASHED.search(cfg.url):
        raise FileNotFoundError(
            f"the weights of {name} at {cfg.url} bear no hash in their name, so that a download could not be checked. "
            f"Load that file yourself. {remedy}"
        )
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
        state = load_file(path) if path.suffix == ".safetensors" else _unwrapped(path)
    except (
        SafetensorError,
        EOFError,
        RuntimeError,
        KeyError,
        TypeError,
        AttributeError,
        pickle.UnpicklingError,
    ) as error:
        raise ValueError(
            f"{path} is no whole file of weights ({str(error)[:200] or 'it ends too early'}); copy it again"
        ) from None
    if not isinstance(state, Mapping) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        kind = (
            f"entries {', '.join(map(str, state))}"[:200] if isinstance(state, Mapping) else f"a {type(state).__name__}"
        )
        raise ValueError(
            f"{path} must hold names with a tensor each; it holds {kind}. Save model.state_dict(), or the checkpoint of a "
            "training."
        )
    return dict(state)


def _unwrapped(path: Path) -> Any:
    """What a torch file holds, without what training programs put around the tensors."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(state, Mapping) and {"model", "settings", "history"} <= set(state):
        check_seal(path)  # a checkpoint of `training`, every byte of which is known
    if isinstance(state, Mapping):
        inner = next((state[key] for key in ("state_dict", "model") if isinstance(state.get(key), Mapping)), state)
        return without_wrapper(dict(inner)) if all(isinstance(name, str) for name in inner) else inner
    return state


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


LARGEST = 2**28  # values of one image after resizing: 0.25 GB in bytes, 1 GB in floats


def preprocess(
    images: Any, preprocessing: Preprocessing, *, device: torch.device | str | None = None
) -> Float[Tensor, "n ch h w"]:
    """Images as a network expects them: resized, cut to the centre square, divided by 255, normalised.

    As timm's evaluation does: the shorter side becomes size / crop_pct, then the centre is cut out. Torch resizes
    (antialiased, in whole grey levels), not PIL; the two differ by at most two levels, and seldom by more than one.
    Images that have the right size are not resized, and then the result equals torchvision's ToTensor and Normalize bit
    for bit.

    Args:
        images: uint8 (n, h, w, 3), or a list of (h, w, 3) of any sizes, or files as `data.load("folder:...")` has them.
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


def _crop(pixels: Num[Tensor, "n ch h w"], preprocessing: Preprocessing) -> Num[Tensor, "n ch size size"]:
    height, width = pixels.shape[-2:]
    side = math.floor(preprocessing.size / preprocessing.crop_pct)
    short = min(height, width)
    if not short:
        raise ValueError(f"images must have pixels; they are {height} x {width}")
    shape = (side, side) if preprocessing.crop_mode == "squash" else (side * height // short, side * width // short)
    if math.prod(shape) * pixels.shape[1] > LARGEST:
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
        ValueError: if the classifier is not one layer that is called once and gives the logits. The distilled networks
            of timm (deit, levit, efficientformer) have two, whose mean are the logits.
    """
    if not (isinstance(images, Tensor) and images.is_floating_point()):
        kind = getattr(images, "dtype", type(images).__name__)
        raise TypeError(f"images must be a floating tensor, not {kind}: preprocess(images, preprocessing(model))")
    classifier = classifier or _classifier(model)
    calls: list[tuple[Tensor, Tensor]] = []
    hook = classifier.register_forward_hook(lambda _, args, output: calls.append((args[0], output)))
    try:
        with _evaluating(model), torch.inference_mode():
            logits = model(images)
    finally:
        hook.remove()
    if len(calls) != 1:
        raise ValueError(f"the classifier {classifier} was called {len(calls)} times in one pass; once is needed")
    features, own = calls[0]
    own, said = own.flatten(1).to(logits.dtype), logits.flatten(1)
    if own.shape != said.shape or not torch.allclose(own, said, rtol=1e-5, atol=0, equal_nan=True):
        raise ValueError(
            f"the classifier {classifier} does not give the logits of {type(model).__name__}: something follows it, or "
            f"there is a second one, so no one layer has features and logits. {TWO_HEADS}"
        )
    # an inference tensor cannot be saved for a backward pass, a copy of it can
    features = features.flatten(1).clone()
    return Outputs(features, features[:, :0] if isinstance(classifier, nn.Identity) else logits.flatten(1).clone())


TWO_HEADS = (
    "In eval mode, take model(images) for the logits, and model.forward_head(model.forward_features(images), "
    "pre_logits=True) for features."
)


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
    if isinstance(found, tuple | list):
        raise ValueError(
            f"{type(model).__name__} has {len(found)} classifiers, and its logits are their mean, so no one layer has "
            f"features and logits. {TWO_HEADS}"
        )
    if not isinstance(found, nn.Module):
        raise ValueError(
            f"{type(model).__name__} has no get_classifier(); pass classifier=, the one layer that gives the logits"
        )
    return found


def macs(model: nn.Module, *, size: int | None = None) -> int:
    """Multiply-adds of one forward pass on one image: convolutions, matrix products and attention, without biases.

    Counted by torch.utils.flop_counter, which counts two operations a multiply-add; this is half of its number.

    Args:
        model: any network on square images of 3 channels.
        size: side of the image; by default that of preprocessing(model).
    """
    size = preprocessing(model).size if size is None else check_whole(size, "size", least=1)
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
    return of_network(model)
