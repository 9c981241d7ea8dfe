"""What a network answers: the input of its classifier and the logits, in one pass."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Outputs(NamedTuple):
    features: Float[Tensor, "n d"]
    logits: Float[Tensor, "n c"]


def features_and_logits(model: nn.Module, images: Any, *, classifier: nn.Module | None = None) -> Outputs:
    """What the network says: the input of its classifier and the logits, in one forward pass in eval mode.

    The logits are those of model(images), bit for bit, in the precision of the network. The model's modes are put back. No
    gradient is recorded, but a head can be trained on the result. A model without classifier (num_classes=0) gives logits
    of shape (n, 0).

    Args:
        model: a timm network, or any module whose last layer is given as `classifier`.
        images: float (n, 3, h, w) on the model's device, as `preprocess` returns them; a network in another precision,
            such as `half()`, gets them in its own.
        classifier: the layer whose input is the features; model.get_classifier() by default.

    Raises:
        TypeError: if the images are not floating.
        ValueError: if the classifier is not one layer that is called once and gives the logits. The distilled networks
            of timm (deit, levit, efficientformer) have two, whose mean are the logits.
    """
    classifier = classifier or find_classifier(model)
    with evaluating(model), torch.inference_mode():
        features, logits = ask_as_it_is(model, images, classifier=classifier)
    # an inference tensor cannot be saved for a backward pass, a copy of it can
    features = features.clone()
    return Outputs(features, features[:, :0] if isinstance(classifier, nn.Identity) else logits.clone())


def ask_as_it_is(model: nn.Module, images: Any, *, classifier: nn.Module | None = None) -> Outputs:
    """As `features_and_logits`, in the mode in which the model is, and with gradients where they are recorded."""
    if not (isinstance(images, Tensor) and images.is_floating_point()):
        kind = getattr(images, "dtype", type(images).__name__)
        raise TypeError(f"images must be a floating tensor, not {kind}: preprocess(images, preprocessing(model))")
    classifier = classifier or find_classifier(model)
    calls: list[tuple[Tensor, Tensor]] = []
    hook = classifier.register_forward_hook(lambda _, args, output: calls.append((args[0], output)))
    try:
        logits = model(in_own_precision(model, images))
    finally:
        hook.remove()
    if len(calls) != 1:
        raise ValueError(f"the classifier {classifier} was called {len(calls)} times in one pass; once is needed")
    features, own = calls[0]
    own, final = own.flatten(1).to(logits.dtype), logits.flatten(1)
    if own.shape != final.shape or not torch.allclose(own, final, rtol=1e-5, atol=0, equal_nan=True):
        raise ValueError(
            f"the classifier {classifier} does not give the logits of {type(model).__name__}: something follows it, or "
            f"there is a second one, so no one layer has features and logits. {TWO_HEADS}"
        )
    return Outputs(features.flatten(1), final)


def in_own_precision(model: nn.Module, images: Tensor) -> Tensor:
    """The images in the precision of the network's weights, if these have one."""
    kinds = {parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}
    return images.to(kinds.pop()) if len(kinds) == 1 else images


TWO_HEADS = (
    "In eval mode, take model(images) for the logits, and model.forward_head(model.forward_features(images), "
    "pre_logits=True) for features."
)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in eval mode; the mode of each of its parts is put back, also after an error."""
    modes = [(module, module.training) for module in model.modules()]  # a frozen part may differ from the whole
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def find_classifier(model: nn.Module) -> nn.Module:
    """The layer that timm calls the classifier.

    Raises:
        ValueError: if there is none, or more than one.
    """
    classifier_of = getattr(model, "get_classifier", None)
    found = None if classifier_of is None else classifier_of()
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
