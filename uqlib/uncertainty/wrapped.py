"""A network and its uncertainty head as one: `model(images)` gives logits, features and an uncertainty.

model = load_uncertainty("tf_mobilenetv2_100")
model.ask(images).uncertainty   # uint8 (n, h, w, 3)
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from uqlib.base.options import check_whole
from uqlib.files.fingerprint import of_network
from uqlib.files.whole import cache_folder, in_checkout
from uqlib.networks.creation import create
from uqlib.networks.inputs import Preprocessing, preprocess, preprocessing
from uqlib.networks.outputs import ask_as_it_is, evaluating, find_classifier
from uqlib.uncertainty.uncertainty_heads import UncertaintyHead, load_head

FOLDER = "data/heads"


class Said(NamedTuple):
    """What a network and its head answer."""

    logits: Float[Tensor, "n c"]
    features: Float[Tensor, "n d"]
    uncertainty: Float[Tensor, " n"]  # > 0, higher = less certain; its scale means nothing, its order does


class WithUncertainty(nn.Module):
    """A classifier with an uncertainty head: forward gives logits, features and uncertainty in one pass.

    The logits are those of the network alone, bit for bit; the head adds less than two hundredths to the multiply-adds.

    Args:
        model: a timm network, or any module with `classifier`.
        head: of its features.
        classifier: the layer whose input are the features; model.get_classifier() by default.
        prepared: how images are prepared for `ask`; the model's own way by default.
        card: what is known of the head.

    Raises:
        ValueError: if the head takes features of another width than the classifier.
    """

    def __init__(
        self,
        model: nn.Module,
        head: UncertaintyHead,
        *,
        classifier: nn.Module | None = None,
        prepared: Preprocessing | None = None,
        card: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.model, self.head, self.prepared, self.card = model, head, prepared, dict(card or {})
        self._classifier = [classifier]  # in a list: a layer of the model is not registered a second time
        width = getattr(classifier or find_classifier(model), "in_features", head.features)
        if width != head.features:
            raise ValueError(
                f"the head takes features of width {head.features}; the classifier of the model has {width}"
            )

    def forward(self, images: Float[Tensor, "n ch h w"]) -> Said:
        features, logits = ask_as_it_is(self.model, images, classifier=self._classifier[0])
        return Said(logits, features, self.head(features.float()))

    @torch.inference_mode()
    def ask(self, images: Any, *, batch: int = 64) -> Said:
        """What both say of uint8 images (n, h, w, 3), or a list of any sizes, in eval mode, prepared as the head wants them."""
        prepared, device = self.prepared or preprocessing(self.model), next(self.model.parameters()).device
        starts = range(0, len(images), check_whole(batch, "batch", least=1))
        with evaluating(self):
            parts = [self(preprocess(images[k : k + batch], prepared, device=device)) for k in starts]
        if not parts:
            raise ValueError("images is empty; at least one image is needed")
        return Said(*(torch.cat(part) for part in zip(*parts, strict=True)))


def load_uncertainty(
    network: str, *, head: str | os.PathLike | None = None, weights: str | os.PathLike = "pretrained"
) -> WithUncertainty:
    """A pretrained network with a pretrained uncertainty, ready for images that neither has seen.

    Args:
        network: a name for which there is a head: `available_heads()`.
        head: a file of `save_head`; by default NETWORK.safetensors of data/heads in the checkout, or of `heads` in the
            cache folder ($UQLIB_CACHE).
        weights: of the network, as `networks.create` takes them.

    Raises:
        FileNotFoundError: if head or weights are not here; the message says how to get them.
        ValueError: if the weights are others than those whose features the head knows.
    """
    path = Path(head) if head is not None else _find_head(network)
    found, card = load_head(path)
    model = create(network, weights=weights).eval()
    if (own := of_network(model)) != card["weights"]:
        raise ValueError(
            f"the head {path} was trained on features of {card['backbone']} with other weights than these of {network} "
            f"(fingerprint {card['weights'][:12]}..., not {own[:12]}...): it knows nothing of them. Train one: train_head"
        )
    prepared = preprocessing(model, size=card["size"], crop_pct=1.0) if "size" in card else preprocessing(model)
    return WithUncertainty(model, found, prepared=prepared, card=card).eval()


def available_heads() -> dict[str, Path]:
    """The files of heads on this machine, by network."""
    return {path.stem: path for folder in _folders() for path in sorted(folder.glob("*.safetensors"))}


def _folders() -> Iterator[Path]:
    yield cache_folder() / "heads"
    if (own := in_checkout(FOLDER)) is not None:
        yield own


def _find_head(network: str) -> Path:
    there = available_heads()
    if network not in there:
        raise FileNotFoundError(
            f"there is no uncertainty head of {network!r} here; there are {', '.join(sorted(there)) or 'none'}. Heads lie in "
            f"{FOLDER} of the project; copy them to {cache_folder() / 'heads'}, or pass head=PATH, or train one: train_head"
        )
    return there[network]
