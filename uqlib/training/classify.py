"""Classification: the step that trains most networks, and what they say afterwards."""

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Unpack

import torch
from jaxtyping import Float
from torch import Tensor, nn

from uqlib import metrics
from uqlib.base.checks import check_labels
from uqlib.base.options import check_number, check_whole
from uqlib.files.fingerprint import fingerprint, of_array
from uqlib.losses.criterion import Criterion, Loss, Recorded
from uqlib.losses.memoryless import cross_entropy
from uqlib.networks import Outputs, Preprocessing, features_and_logits, preprocess
from uqlib.networks.outputs import in_own_precision
from uqlib.training.augment import Augmentation
from uqlib.training.loops import loop
from uqlib.training.settings import Options, _check_batch, check_options
from uqlib.training.views import Views

CROSS_ENTROPY = cross_entropy()


class Epoch(NamedTuple):
    """What one epoch did."""

    epoch: int  # counted from 1
    loss: float  # mean over the steps, of the loss that was trained
    lr: float  # at the last step
    seconds: float
    images_per_second: float
    accuracy: float  # on the validation images; NaN without them
    nll: float


def train(
    model: nn.Module,
    images: Any,
    labels: Any,
    *,
    preprocessing: Preprocessing,
    epochs: int,
    lr: float,
    augmentation: str | Augmentation = "flip",
    loss: Loss = CROSS_ENTROPY,
    validation: tuple[Any, Any] | None = None,
    checkpoint: str | os.PathLike | None = None,
    **options: Unpack[Options],
) -> list[Epoch]:
    """Train a classifier in place: all its parameters that require a gradient.

    Time grows with epochs x images; memory beyond the network's is that of one batch. The last images of an epoch that
    fill no batch are left out, others in each epoch.

    Args:
        model: takes normalised images, gives logits; channels-last memory format is the fastest on most devices.
            It trains where it is; under `torchrun` on the GPU of the process, if there is one. The statistics of batch
            norm are then those of the first process.
        images: uint8 (n, h, w, 3), NumPy, memory-mapped, or a tensor; one on the GPU is read there. Or image files,
            images made when asked for, or a list of (h, w, 3), of any sizes: `load_images("folder:...").images`.
        labels: int (n,), in [0, model.num_classes).
        preprocessing: as in `networks.preprocess`.
        epochs: passes over the images.
        lr: learning rate at its highest.
        augmentation: a name in AUGMENTATIONS, or a function of (images, generator).
        loss: takes logits, labels, and the rows of the training set that the batch consists of; see `losses`. One that
            is a module goes to the model's device, and its buffers (a history, a record) into the checkpoint.
        validation: images and labels to judge after each epoch; nothing is chosen by them here.
        checkpoint: file that is written after each epoch; where it is there already, training goes on from it, and a
            finished one is only read. The loss then needs a name that lasts: one of `losses`, or Criterion(name, terms),
            where the name stands for all that the terms do. All pixels are read once for their fingerprint.
        options: batch (64), optimizer ("adamw"), weight_decay, schedule, warmup, clip, seed, precision and progress, as
            in `Options`.

    Returns:
        One Epoch an epoch, those before the checkpoint among them.

    Raises:
        ValueError: if images and labels do not fit, a name is unknown, the loss was made for other rows, the checkpoint
            is that of another training (the message says what differs), or the loss is not finite.
        DamagedError: if the checkpoint does not have the bytes that were written.
        TypeError: if labels are no integers, an option is unknown, or a checkpoint is asked for with a loss that has no
            name.
    """
    chosen = check_options(options, train)
    epochs, lr = check_whole(epochs, "epochs", least=0), check_number(lr, "lr", least=0)
    views = Views(images, preprocessing, augmentation, beside=model)
    _check_batch(chosen["batch"], len(views), "images")
    labels = check_labels(labels, _classes(model), rows=len(views))
    judged = None if validation is None else _Judged(model, preprocessing, *validation)
    if isinstance(loss, Criterion):
        loss.begin(labels)
    remembering = {"loss": loss.to(next(model.parameters()).device)} if isinstance(loss, nn.Module) else {}

    def step(rows: Tensor, generator: torch.Generator) -> Tensor:
        x = views(rows, generator)
        return loss(model(in_own_precision(model, x)), labels[rows].to(x.device), rows.to(x.device))

    history = loop(
        step,
        examples=len(views),
        parts={"model": model, **remembering},
        trained=model.parameters(),
        epochs=epochs,
        lr=lr,
        judge=judged,
        rests_on=None if checkpoint is None else _rests_on(views, labels, loss, judged),
        checkpoint=checkpoint,
        **chosen,
    )
    return [Epoch(*each[:5], *(each.judged.get(name, math.nan) for name in ("accuracy", "nll"))) for each in history]


def predict(model: nn.Module, images: Any, *, preprocessing: Preprocessing, batch: int = 256) -> Float[Tensor, "n c"]:
    """Logits of the network in eval mode, on its own device, float32."""
    return torch.cat([each.logits.float() for each in _outputs(model, images, preprocessing, batch)])


def features_of(
    model: nn.Module, images: Any, *, preprocessing: Preprocessing, batch: int = 256
) -> Float[Tensor, "n d"]:
    """The input of the network's classifier, as `predict` has its logits; `ask_network` of the store keeps them."""
    return torch.cat([each.features.float() for each in _outputs(model, images, preprocessing, batch)])


def _outputs(model: nn.Module, images: Any, preprocessing: Preprocessing, batch: int) -> Iterator[Outputs]:
    where, images = next(model.parameters()).device, Views(images, preprocessing, beside=model).images
    batch = check_whole(batch, "batch", least=1)
    for k in range(0, len(images), batch):
        yield features_and_logits(model, preprocess(images[k : k + batch], preprocessing, device=where))


class _Judged:
    """Images and labels that judge a classifier."""

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, images: Any, labels: Any):
        self.model, self.preprocessing, self.images = model, preprocessing, images
        self.labels = check_labels(labels, _classes(model), rows=len(images), name="validation labels")

    def __call__(self) -> dict[str, float]:
        logits = predict(self.model, self.images, preprocessing=self.preprocessing)
        labels = self.labels.to(logits.device)
        return {"accuracy": metrics.accuracy(logits.argmax(-1), labels), "nll": metrics.nll(logits, labels)}

    @property
    def fingerprint(self) -> str:
        return fingerprint([Views(self.images, self.preprocessing, beside=self.model).pixels, self.labels])


def _classes(model: nn.Module) -> int:
    classes = getattr(model, "num_classes", None)
    if not isinstance(classes, int):
        raise TypeError(f"{type(model).__name__} must say how many classes it has; set model.num_classes")
    return classes


def _rests_on(views: Views, labels: Tensor, loss: Loss, judged: _Judged | None) -> Mapping[str, Any]:
    """All that a training rests on besides its options and the network."""
    return {
        "loss": _name_of(loss),
        "images": views.pixels,
        "labels": of_array(labels),
        "preprocessing": str(views.preprocessing),
        "augmentation": views.augmentation,
        "validation set": fingerprint(judged),
    }


def _name_of(loss: Loss) -> str:
    inner = loss
    while isinstance(inner, Recorded):
        inner = inner.loss
    if not isinstance(inner, Criterion):
        raise TypeError(
            f"a checkpoint needs a loss that can be recognised; {inner!r} has no name that lasts. "
            "Give it one: losses.Criterion(name, terms), terms being an entry an example."
        )
    return str(loss)
