"""Training: one loop for networks on images in memory, on one device or several, resumable to the bit.

Everything random in an epoch (order of the rows, augmentation, dropout) follows from the seed and the number of the
epoch, and the learning rate from the number of the step. So a checkpoint is weights, optimiser and what the loss
remembers, and a run that was killed and goes on ends with the same bits as one that was not, on the same machine.

A checkpoint bears the fingerprints of all that the training rests on (images, labels, start weights, options, loss,
validation set) and the sha256 of its own bytes: it is read by the training that it belongs to, or not at all.

One process runs as it is. Under `torchrun` there are several, one a device: each takes its share of every batch, with
augmentation and dropout of its own, and torch's DistributedDataParallel averages the gradients.
"""

import contextlib
import json
import math
import os
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from uqlib import metrics
from uqlib.arrays import check_choice, check_labels, check_number, check_whole
from uqlib.data import pixels_digest
from uqlib.files import DamagedError, check_seal, parsed, replacing, seal
from uqlib.fingerprint import fingerprint, of_array, of_network
from uqlib.losses import Criterion, Loss, Recorded, cross_entropy
from uqlib.models import Preprocessing, features_and_logits, preprocess
from uqlib.photos import check_images


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
    mirrored = torch.rand(len(images), generator=generator, dtype=torch.float32) < 0.5
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
        images: uint8 (n, h, w, 3), NumPy, memory-mapped, or a tensor; one on the GPU is read there. Or image files or a
            list of (h, w, 3), of any sizes: `data.load("folder:...").images`.
        labels: int (n,), in [0, model.num_classes).
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
            finished one is only read. The loss then needs a name that lasts: one of `losses`, or Criterion(name, terms),
            where the name stands for all that the terms do. All pixels are read once for their fingerprint.
        progress: show a bar when a person watches.

    Returns:
        One Epoch an epoch, those before the checkpoint among them.

    Raises:
        ValueError: if images and labels do not fit, an option is unknown, the loss was made for other rows, the checkpoint
            is that of another training (the message says what differs), or the loss is not finite.
        DamagedError: if the checkpoint does not have the bytes that were written.
        TypeError: if labels are no integers, or a checkpoint is asked for with a loss that has no name.
    """
    epochs, batch, seed = (
        check_whole(epochs, "epochs", least=0),
        check_whole(batch, "batch"),
        check_whole(seed, "seed", least=0),
    )
    lr, weight_decay = check_number(lr, "lr", least=0), check_number(weight_decay, "weight_decay", least=0)
    warmup = check_number(warmup, "warmup", least=0, most=1)
    images = _checked(images, preprocessing)
    options = {
        "epochs": epochs, "lr": lr, "weight_decay": weight_decay, "optimizer": optimizer, "schedule": schedule,
        "warmup": warmup, "batch": batch, "augmentation": augmentation, "seed": seed, "precision": precision,
        "preprocessing": str(preprocessing), "rows": len(images),
    }  # fmt: skip
    augment = AUGMENTATIONS[check_choice(augmentation, AUGMENTATIONS, "augmentation")]
    factor = SCHEDULES[check_choice(schedule, SCHEDULES, "schedule")]
    make = OPTIMIZERS[check_choice(optimizer, OPTIMIZERS, "optimizer")]
    half = PRECISIONS[check_choice(precision, PRECISIONS, "precision")]
    if not 0 < batch <= len(images):
        raise ValueError(f"batch must lie in 1 to {len(images)}, the number of images; it is {batch}")
    labels = check_labels(labels, _classes(model), rows=len(images))
    if validation is not None:
        validation = (
            validation[0],
            check_labels(validation[1], _classes(model), rows=len(validation[0]), name="validation labels"),
        )

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
    settings = {} if checkpoint is None else options | _rests_on(model, images, labels, loss, validation)
    state = _State(None if checkpoint is None else Path(checkpoint), settings, parts, where)
    run = DistributedDataParallel(model) if processes > 1 else model
    per_epoch = len(images) // batch
    with tqdm(total=(epochs - len(state.history)) * per_epoch, unit="step", disable=None if progress else True) as bar:
        for epoch in range(len(state.history), epochs):
            began, losses = time.monotonic(), []
            with _seeded(seed, epoch, rank, where) as (order, generator):
                run.train()
                for k, rows in enumerate(_batches(len(images), batch, order)):
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
    where, images = next(model.parameters()).device, _checked(images, preprocessing)
    batch = check_whole(batch, "batch", least=1)
    batches = (images[k : k + batch] for k in range(0, len(images), batch))
    return torch.cat([features_and_logits(model, preprocess(x, preprocessing, device=where)).logits for x in batches])


def _judge(model: nn.Module, preprocessing: Preprocessing, validation: tuple[Any, Any] | None) -> tuple[float, float]:
    if validation is None:
        return math.nan, math.nan
    logits = predict(model, validation[0], preprocessing=preprocessing)
    labels = validation[1].to(logits.device)
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


def _classes(model: nn.Module) -> int:
    classes = getattr(model, "num_classes", None)
    if not isinstance(classes, int):
        raise TypeError(f"{type(model).__name__} must say how many classes it has; set model.num_classes")
    return classes


@contextlib.contextmanager
def _seeded(
    seed: int, epoch: int, rank: int, device: torch.device
) -> Iterator[tuple[torch.Generator, torch.Generator]]:
    """Generators of one epoch, for the order, common to all processes, and for the augmentation, the process's own.

    The global one is seeded for dropout, for each process otherwise, and put back afterwards.
    """
    common = torch.Generator().manual_seed(_number(seed, epoch))
    # the first process draws augmentation after order from one generator, as a single process does
    own = torch.Generator().manual_seed(_number(seed, epoch, rank)) if rank else common
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.default_generator.manual_seed(own.initial_seed())
        if device.type == "cuda":  # the other devices belong to other processes, or to nobody
            with torch.cuda.device(device):
                torch.cuda.manual_seed(own.initial_seed())
        elif device.type != "cpu":
            getattr(torch, device.type).manual_seed(own.initial_seed())
        yield common, own


def _number(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def _batches(n: int, batch: int, generator: torch.Generator) -> Iterator[Int[Tensor, " batch"]]:
    order = torch.randperm(n, generator=generator)
    return (rows for rows in order.split(batch) if len(rows) == batch)


def _checked(images: Any, preprocessing: Preprocessing) -> Any:
    """Arrays and lists as `preprocess` takes them, looked at once; what is read when asked for is looked at then."""
    whole = isinstance(images, np.ndarray | Tensor | list | tuple | str | bytes | Mapping)
    lazy = not whole and hasattr(images, "__len__") and hasattr(images, "__getitem__")
    return images if lazy else check_images(images, channels=len(preprocessing.mean))


def _take(images: Any, rows: Int[Tensor, " k"]) -> Any:
    if isinstance(images, Tensor):
        return images[rows.to(images.device)]
    return images[rows.numpy()] if isinstance(images, np.ndarray) else [images[row] for row in rows.tolist()]


def _rests_on(
    model: nn.Module, images: Any, labels: Tensor, loss: Loss, validation: tuple[Any, Tensor] | None
) -> dict[str, str]:
    """Names and fingerprints of all that a training rests on besides its options."""
    return {
        "loss": _name_of(loss),
        "state of the loss": fingerprint(loss),
        "images": _pixels(images),
        "labels": of_array(labels),
        "start weights": of_network(model),
        "network": fingerprint([str(model), [name for name, p in model.named_parameters() if p.requires_grad]]),
        "validation set": fingerprint(validation and [_pixels(validation[0]), validation[1]]),
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


def _pixels(images: Any) -> str:
    if isinstance(own := getattr(images, "fingerprint", None), str):  # image files say what they hold
        return own
    return pixels_digest(images)


class _State:
    """The checkpoint: weights, optimiser, loss and history, read at the start, written whole after each epoch."""

    def __init__(self, path: Path | None, settings: dict[str, Any], parts: dict[str, Any], device: torch.device):
        self.path, self.settings, self.parts = path, settings, parts
        self.history: list[Epoch] = []
        if path is not None and path.is_file():
            self._read(device)

    def _read(self, device: torch.device) -> None:
        saved = _read_checkpoint(self.path, device)
        if differ := _differences(saved["settings"], self.settings):
            raise ValueError(
                f"{self.path} is the checkpoint of a training with other settings: {', '.join(differ)}; remove it, or "
                "name another"
            )
        try:
            for name, part in self.parts.items():
                part.load_state_dict(saved[name])
            self.history = [Epoch(*epoch) for epoch in saved["history"]]
        except Exception as error:  # what is missing or of another shape raises nearly anything in torch
            raise DamagedError(self.path, f"it does not hold what a checkpoint holds ({str(error)[:200]})") from None

    def write(self) -> None:
        if self.path is None:
            return
        saved = {name: part.state_dict() for name, part in self.parts.items()}
        saved |= {"settings": json.dumps(self.settings), "history": json.dumps({"epochs": self.history})}
        with replacing(self.path) as stream:
            _save(saved, stream)
            seal(stream)


def _save(saved: dict[str, Any], stream: BinaryIO) -> None:
    """torch.save, with the error of the stream where torch has one of its own."""
    faults = []

    class Told:
        def write(self, data: Any) -> int:
            try:
                return stream.write(data)
            except OSError as error:
                faults.append(error)
                raise

        def flush(self) -> None:
            stream.flush()

    try:
        torch.save(saved, Told())
    except RuntimeError as error:
        raise (faults[0] if faults else error) from None


def _read_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """What `write` wrote, every byte compared with the sha256 at the end, settings and history read.

    Raises:
        DamagedError: if a byte differs, or it is no checkpoint of a training.
    """
    check_seal(path)
    fault = "it is no checkpoint of a training"
    try:
        with zipfile.ZipFile(path) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise DamagedError(path, fault)  # torch packs nothing; what unpacks may take any memory
        saved = torch.load(path, map_location=device, weights_only=True)
        settings, history = saved["settings"], saved["history"]
    except Exception:  # what somebody has sealed raises nearly anything in the reader of pickles, which runs none of it
        raise DamagedError(path, fault) from None
    return saved | {
        "settings": parsed(path, settings, fault),
        "history": parsed(path, history, fault).get("epochs"),
    }


def _differences(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """What differs between two trainings: options with both values, the rest by name."""
    names = [name for name in {**asked, **stored} if stored.get(name) != asked.get(name)]
    if "loss" in names or "labels" in names:  # which say it all
        names = [name for name in names if name != "state of the loss"]
    told = lambda value: isinstance(value, str) and len(value) == 64  # noqa: E731
    return [
        name if told(asked.get(name)) or told(stored.get(name)) else f"{name} {stored.get(name)}, not {asked.get(name)}"
        for name in names
    ]
