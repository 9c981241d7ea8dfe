"""Training: one loop for networks on images in memory, on one device or several, resumable to the bit.

Everything random in an epoch (order of the rows, augmentation, dropout) follows from the seed and the number of the
epoch, and the learning rate from the number of the step. So a checkpoint is weights, optimiser and what the loss
remembers, and a run that was killed and goes on ends with the same bits as one that was not, on the same machine.

One process runs as it is. Under `torchrun` there are several, one a device: each takes its share of every batch, and
torch's DistributedDataParallel averages the gradients.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from uqlib import metrics
from uqlib.arrays import as_tensor, check_choice, check_labels
from uqlib.files import digest, replacing
from uqlib.losses import Criterion, Loss, cross_entropy
from uqlib.models import Preprocessing, features_and_logits, preprocess


class Epoch(NamedTuple):
    """What one epoch did."""

    epoch: int  # counted from 1
    loss: float  # mean over the steps, of the loss that was trained
    lr: float  # at the last step
    seconds: float
    images_per_second: float
    accuracy: float  # on the validation images; NaN without them
    nll: float


def adamw(parameters: Any, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW with torch's betas and epsilon (Loshchilov & Hutter 2019, arXiv:1711.05101)."""
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay)


def sgd(parameters: Any, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """Stochastic gradient descent with Nesterov momentum 0.9; weight decay is part of the gradient."""
    return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=0.9, nesterov=True)


OPTIMIZERS: dict[str, Callable[..., torch.optim.Optimizer]] = {"adamw": adamw, "sgd": sgd}


def keep(images: Float[Tensor, "n 3 h w"], generator: torch.Generator) -> Float[Tensor, "n 3 h w"]:
    """The images as they are."""
    return images


def flip(images: Float[Tensor, "n 3 h w"], generator: torch.Generator) -> Float[Tensor, "n 3 h w"]:
    """Each image mirrored left to right with probability one half."""
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(mirrored.to(images.device)[:, None, None, None], images.flip(-1), images)


def flip_shift(images: Float[Tensor, "n 3 h w"], generator: torch.Generator) -> Float[Tensor, "n 3 h w"]:
    """Mirrored as by `flip`, and moved by up to an eighth of the side, the edge continued by reflection."""
    images = flip(images, generator)
    side = images.shape[-1]
    reach = side // 8
    padded = F.pad(images, (reach,) * 4, mode="reflect")
    offsets = torch.randint(0, 2 * reach + 1, (2, len(images)), generator=generator).to(images.device)
    steps = torch.arange(side, device=images.device)
    rows, columns = (offset[:, None] + steps for offset in offsets)
    each = torch.arange(len(images), device=images.device)[:, None, None]
    # indexing puts the channels last; they are brought back without a copy
    return padded.permute(0, 2, 3, 1)[each, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


AUGMENTATIONS: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "none": keep,
    "flip": flip,
    "flip_shift": flip_shift,
}


def cosine(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate: linear from a tenth to 1 over the first share `warmup` of the steps, then half a cosine to 0."""
    rise = warmup * steps
    return min(
        constant(step, steps, warmup), 0.5 * (1 + math.cos(math.pi * max(0, step - rise) / max(1, steps - rise)))
    )


def constant(step: int, steps: int, warmup: float) -> float:
    """Factor of the learning rate: linear from a tenth to 1 over the first share `warmup` of the steps, then 1."""
    rise = warmup * steps
    return 0.1 + 0.9 * step / rise if step < rise else 1.0


SCHEDULES: dict[str, Callable[[int, int, float], float]] = {"cosine": cosine, "constant": constant}


PRECISIONS = {"no": None, "bf16": torch.bfloat16, "fp16": torch.float16}

CROSS_ENTROPY = cross_entropy()


def train(
    model: nn.Module,
    images: Any,
    labels: Any,
    *,
    preprocessing: Preprocessing,
    epochs: int,
    lr: float,
    weight_decay: float = 0.0,
    optimizer: str = "adamw",
    schedule: str = "cosine",
    warmup: float = 0.1,
    batch: int = 64,
    augmentation: str = "flip",
    loss: Loss = CROSS_ENTROPY,
    validation: tuple[Any, Any] | None = None,
    seed: int = 0,
    precision: str = "no",
    checkpoint: str | os.PathLike | None = None,
    progress: bool = True,
) -> list[Epoch]:
    """Train a network in place: all its parameters that require a gradient.

    Time grows with epochs x images; memory beyond the network's is that of one batch. The last images of an epoch that
    fill no batch are left out, others in each epoch.

    Args:
        model: takes normalised images, gives logits; channels-last memory format is the fastest on most devices.
            It trains where it is; under `torchrun` on the GPU of the process, if there is one. The statistics of batch
            norm are then those of the first process.
        images: uint8 (n, h, w, 3), NumPy, memory-mapped, or a tensor; one on the GPU is read there.
        labels: int (n,).
        preprocessing: as in `models.preprocess`.
        epochs: passes over the images.
        lr: learning rate at its highest.
        weight_decay: of the optimiser, on all parameters.
        optimizer, schedule, augmentation: names in OPTIMIZERS, SCHEDULES, AUGMENTATIONS.
        warmup: share of the steps in which the learning rate rises.
        batch: images a step, over all processes together.
        loss: takes logits, labels, and the rows of the training set that the batch consists of; see `losses`. One that
            is a module goes to the model's device, and its buffers (a history, a record) into the checkpoint.
        validation: images and labels to judge after each epoch; nothing is chosen by them here.
        seed: of the order, the augmentation and dropout. The initial weights are the model's own.
        precision: "no" (float32), "bf16" or "fp16": mixed precision.
        checkpoint: file that is written after each epoch; where it is there already, training goes on from it, and a
            finished one is only read.
        progress: show a bar when a person watches.

    Returns:
        One Epoch an epoch, those before the checkpoint among them.

    Raises:
        ValueError: if images and labels do not fit, an option is unknown, the loss was made for other rows, the checkpoint
            belongs to other settings, or the loss is not finite.
    """
    options = {
        "epochs": epochs, "lr": lr, "weight_decay": weight_decay, "optimizer": optimizer, "schedule": schedule,
        "warmup": warmup, "batch": batch, "augmentation": augmentation, "seed": seed, "precision": precision,
        "preprocessing": str(preprocessing), "rows": len(images),
    }  # fmt: skip
    if isinstance(loss, Criterion) and str(loss) != str(CROSS_ENTROPY):  # a plain function has no name that lasts
        options["loss"] = str(loss)
    augment = AUGMENTATIONS[check_choice(augmentation, AUGMENTATIONS, "augmentation")]
    factor = SCHEDULES[check_choice(schedule, SCHEDULES, "schedule")]
    make = OPTIMIZERS[check_choice(optimizer, OPTIMIZERS, "optimizer")]
    half = PRECISIONS[check_choice(precision, PRECISIONS, "precision")]
    labels = as_tensor(labels).long()
    if not 0 < batch <= len(images):
        raise ValueError(f"batch must lie in 1 to {len(images)}, the number of images; it is {batch}")
    check_labels(labels, model.num_classes, rows=len(images))

    rank, processes = _processes(model)
    if batch % processes:
        raise ValueError(
            f"batch must be a multiple of the {processes} processes, so that all get the same share; it is {batch}"
        )
    where = next(model.parameters()).device
    trained = make([p for p in model.parameters() if p.requires_grad], lr, weight_decay)
    scaler = torch.amp.GradScaler(where.type, enabled=precision == "fp16")  # half floats need it, bfloat16 does not
    parts = {"model": model, "optimizer": trained, "scaler": scaler}
    if isinstance(loss, Criterion):
        loss.begin(labels)
    if isinstance(loss, nn.Module) and loss.to(where).state_dict():
        parts["loss"] = loss
    state = _State(Path(checkpoint) if checkpoint else None, digest(options), parts, where)
    run = DistributedDataParallel(model) if processes > 1 else model
    per_epoch = len(images) // batch
    with tqdm(total=(epochs - len(state.history)) * per_epoch, unit="step", disable=None if progress else True) as bar:
        for epoch in range(len(state.history), epochs):
            began, losses = time.monotonic(), []
            with _seeded(seed, epoch) as generator:
                run.train()
                for k, rows in enumerate(_batches(len(images), batch, generator)):
                    trained.param_groups[0]["lr"] = now = lr * factor(epoch * per_epoch + k, epochs * per_epoch, warmup)
                    rows = rows[rank::processes]  # all processes have drawn the same batch
                    x = augment(preprocess(_take(images, rows), preprocessing, device=where), generator)
                    trained.zero_grad(set_to_none=True)
                    with torch.autocast(where.type, half, enabled=half is not None):
                        value = loss(run(x), labels[rows].to(where), rows.to(where))
                    scaler.scale(value).backward()
                    scaler.step(trained)
                    scaler.update()
                    losses.append(value.detach())
                    bar.update()
            mean = torch.stack(losses).double().mean().item()
            if not math.isfinite(mean):
                raise ValueError(f"the loss is {mean} in epoch {epoch + 1}; a smaller lr than {lr} may help")
            seconds = time.monotonic() - began
            bar.set_postfix(epoch=epoch + 1, loss=f"{mean:.3f}")
            judged = _judge(model, preprocessing, validation)
            state.history.append(Epoch(epoch + 1, mean, now, seconds, per_epoch * batch / seconds, *judged))
            if rank == 0:
                state.write()
    return state.history


def predict(model: nn.Module, images: Any, *, preprocessing: Preprocessing, batch: int = 256) -> Float[Tensor, "n c"]:
    """Logits of the network in eval mode, on its own device, float32."""
    where = next(model.parameters()).device
    batches = (images[k : k + batch] for k in range(0, len(images), batch))
    return torch.cat([features_and_logits(model, preprocess(x, preprocessing, device=where)).logits for x in batches])


def _judge(model: nn.Module, preprocessing: Preprocessing, validation: tuple[Any, Any] | None) -> tuple[float, float]:
    if validation is None:
        return math.nan, math.nan
    logits = predict(model, validation[0], preprocessing=preprocessing)
    labels = as_tensor(validation[1]).long().to(logits.device)
    return metrics.accuracy(logits.argmax(-1), labels), metrics.nll(logits, labels)


def _processes(model: nn.Module) -> tuple[int, int]:
    """Rank and number of the processes that torchrun started, the model moved to the device of this one; else 0 and 1."""
    if not distributed.is_torchelastic_launched():
        return 0, 1
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
        model.to(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if on_gpu else "gloo")
    return distributed.get_rank(), distributed.get_world_size()


@contextlib.contextmanager
def _seeded(seed: int, epoch: int) -> Iterator[torch.Generator]:
    """A generator for one epoch, and the global one seeded for dropout and put back afterwards."""
    number = int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
    with torch.random.fork_rng():
        torch.manual_seed(number)
        yield torch.Generator().manual_seed(number)


def _batches(n: int, batch: int, generator: torch.Generator) -> Iterator[Int[Tensor, " batch"]]:
    order = torch.randperm(n, generator=generator)
    return (rows for rows in order.split(batch) if len(rows) == batch)


def _take(images: Any, rows: Int[Tensor, " k"]) -> Any:
    if isinstance(images, Tensor):
        return images[rows.to(images.device)]
    return images[rows.numpy()]


class _State:
    """The checkpoint: weights, optimiser, loss and history, read at the start, written whole after each epoch."""

    def __init__(self, path: Path | None, settings: str, parts: dict[str, Any], device: torch.device):
        self.path, self.settings, self.parts = path, settings, parts
        self.history: list[Epoch] = []
        if path is not None and path.is_file():
            self._read(device)

    def _read(self, device: torch.device) -> None:
        saved = torch.load(self.path, map_location=device, weights_only=True)
        if saved["settings"] != self.settings:
            raise ValueError(
                f"{self.path} is the checkpoint of a training with other settings; remove it, or name another"
            )
        for name, part in self.parts.items():
            part.load_state_dict(saved[name])
        self.history = [Epoch(*epoch) for epoch in json.loads(saved["history"])]

    def write(self) -> None:
        if self.path is None:
            return
        saved = {name: part.state_dict() for name, part in self.parts.items()}
        with replacing(self.path) as stream:
            torch.save(saved | {"settings": self.settings, "history": json.dumps(self.history)}, stream)
