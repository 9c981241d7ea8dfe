"""Entries are filled: by a network that is run here, or with numbers that come from elsewhere."""

import difflib
import os
import re
from collections.abc import Callable, Iterable, Mapping
from inspect import signature
from pathlib import Path
from typing import Any, TypedDict, Unpack, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from uqlib.base.arrays import as_tensor
from uqlib.base.checks import check_finite, check_logits, check_rows
from uqlib.base.options import check_whole
from uqlib.files.columns import read_column
from uqlib.files.fingerprint import of_network
from uqlib.store.coarse import coarse_columns
from uqlib.store.keys import (
    ANSWER_COLUMNS,
    BESIDE_LOGITS,
    LARGEST_LOGIT,
    PRECISIONS,
    ROW_COLUMNS,
    Entry,
    Key,
    open_if_whole,
    precision_of,
)
from uqlib.store.read import DEFAULT_COLUMNS, Answers, entry_tensor, read_entry, roots
from uqlib.store.shards import ShardJob, clear_shards
from uqlib.store.write import describe_run, entries_of_key, has_column, has_columns, locked_folder, write_entry

SLACK = 0.01  # of the largest number: what another device, or TF32, makes of the same network


class FillOptions(TypedDict, total=False):
    """How `fill_entry` runs a network and where it writes.

    Args:
        root: folder to write to and to look in; by default entries of all roots count, and the user's is written.
        batch: images a forward pass, 128 by default.
        device: where to run; the model is moved there. By default it runs where it is.
        classifier: as in `networks.features_and_logits`.
        rows: images a shard, 4096 by default.
        worker: which shards this process takes: every `workers`-th, beginning with shard number `worker`; 0 by default.
        workers: how many processes share the work, 1 by default.
        progress: show a bar when a person watches, as by default.
        command: noted in the provenance; by default this program's own, without its folders.
    """

    root: str | os.PathLike | None
    batch: int
    device: torch.device | str | None
    classifier: nn.Module | None
    rows: int
    worker: int
    workers: int
    progress: bool
    command: str | None


OPTIONS = FillOptions(
    root=None, batch=128, device=None, classifier=None, rows=4096, worker=0, workers=1, progress=True, command=None
)


def key_of(network: str, model: nn.Module, image_set: Any, *, preprocessing: Any = None) -> Key:
    """The key of a network on an ImageSet; `preprocessing` is the model's own by default."""
    preprocessing = preprocessing or _own_preprocessing(model)
    weights = of_network(model)
    return Key(image_set.name, image_set.split, network, weights, str(preprocessing), image_set.digest)


def ask_network(
    network: str,
    model: nn.Module,
    image_set: Any,
    *,
    preprocessing: Any = None,
    columns: Iterable[str] = DEFAULT_COLUMNS,
    **options: Any,
) -> Answers:
    """What the network answers on a set of images: read from the store, or computed and stored on first use.

    Args:
        network: the name to store it under.
        model, image_set, preprocessing: what is asked, on what, prepared how.
        columns: as in `read_entry`.
        **options: as in `fill_entry`.
    """
    key = key_of(network, model, image_set, preprocessing=preprocessing)
    options = {"index": getattr(image_set, "index", None)} | options | {"preprocessing": preprocessing}
    path = fill_entry(key, model, image_set.images, image_set.labels, **options)
    if path is None:
        raise RuntimeError(f"other workers have not finished {key.file}; ask again when they have")
    return read_entry(path, columns=columns)


def put_answers(
    key: Key,
    logits: Any,
    labels: Any,
    *,
    features: Any = None,
    index: Any = None,
    columns: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    foreign: bool = False,
    root: str | os.PathLike | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Store what a network answered elsewhere, such as a classifier on stored features, or logits you were given.

    Args:
        key: what the numbers come from; `key_of` makes it where there is a network.
        logits: (n, c), or None beside features that are all that is wanted.
        labels: int (n,), in [0, c).
        features: (n, d), stored as float16.
        index, columns, foreign, root: as in `fill_entry`.
        dtype: "float32", "float16" or "coarse", of the logits, as in `fill_entry`.
        provenance: where the numbers come from, as an entry has it; by default this machine, this moment and this
            command. `uqlib.store.write.describe_run` makes one with seconds, devices and a command of yours.

    Returns:
        The path of the entry. One of this key that is there already keeps its columns and gains those that it lacks, or
        has in a lower precision.

    Raises:
        ValueError: if a logit or feature is not finite, features do not fit into float16, logits are probabilities, rows or
            shapes do not fit, a label is no class of the logits, or the store has other numbers under this key.
        TypeError: if labels or index are no integers.
    """
    answers = _checked_answers(logits, features)
    first = next(iter(answers.values()))
    dtypes = {name: each for name, each in _dtypes(dtype, "float16").items() if name in answers}
    given = _given(len(first), labels, index, columns)
    if logits is not None and not foreign:
        _check_classes(given["labels"], first.shape[1])
    arrays = dict(given)
    for name, values in answers.items():
        check_rows(values, len(first), name)
        arrays |= _stored(values, dtypes[name], name)
    _refuse_vanishing(answers.get("features"))
    target = roots(root=root)[0] / key.file
    with locked_folder(target.parent):
        there = entries_of_key(key, root)
        for entry in there:
            _check_given(entry, given, indexed=index is not None)
            _check_same_answers(entry, answers)
        if not (there and there[0].path == target and has_columns(there[0], dtypes, given)):
            own = describe_run(0.0, [str(first.device)]) if provenance is None else dict(provenance)
            write_entry(target, key, arrays, own, there)
    return target


def fill_entry(
    key: Key,
    model: nn.Module,
    images: Any,
    labels: Any,
    *,
    preprocessing: Any = None,
    features: str | None = "float16",
    logits: str = "float32",
    index: Any = None,
    columns: Mapping[str, Any] | None = None,
    foreign: bool = False,
    **options: Unpack[FillOptions],
) -> Path | None:
    """Run a network over images and store what it answers; nothing is run if the store has it.

    The store has it if every column is there that is asked for, in that precision or a better one. What is missing is
    added to the entry, whose other columns stay, and nothing else is run.

    Finished shards of `rows` images stand beside the entry, in FILE.parts, until all are there; a killed run goes on
    from them and loses one shard at most, and the tensors come out with the same bits. Memory is that of one shard,
    however many images there are. Several processes share the work as workers 0 to k - 1 of k, in one folder;
    whoever finds the last shard in place puts the entry together. Two processes at the same work do no harm.

    Args:
        key: must agree with the model's weights and preprocessing; `key_of` makes it.
        model: a timm network, or any other with `classifier`.
        images: uint8 (n, h, w, 3), in memory or mapped, or a lazy sequence with slices.
        labels: int (n,), classes of the network.
        preprocessing: the model's own by default.
        features: "float16", "float32", or None to leave them out.
        logits: "float32", or "float16": then the largest of each row is taken off first, since half precision is
            finest near 0, and kept beside them in float32 (column `logits_max`). "coarse" keeps so the largest 24 of
            each row, and of the others one of three levels: `uqlib.store.coarse`, for a thousand classes.
        index: row numbers in the source split, 0 to n - 1 by default.
        columns: further columns with n rows, such as {"severity": ...}.
        foreign: the labels are of another set of classes than the network's, on purpose: they are kept as they are.
        **options: root, batch, device, classifier, rows, worker, workers, progress, command, as in `FillOptions`.

    Returns:
        The path of the entry, or None while shards of other workers are missing.

    Raises:
        TypeError: if an option is unknown.
        ValueError: if key and model disagree, rows do not match, the network's numbers are not finite or are
            probabilities, a label is no class of the network, or the store has other labels, row numbers or columns
            under this key.
    """
    chosen = _chosen(options)
    preprocessing = preprocessing or _own_preprocessing(model)
    _check_key(key, of_network(model), str(preprocessing))
    dtypes = _dtypes(logits, features)
    given = _given(len(images), labels, index, columns)
    target = roots(root=chosen["root"])[0] / key.file
    there = entries_of_key(key, chosen["root"])
    for entry in there:
        _check_given(entry, given, indexed=index is not None)
    for entry in there:
        if has_columns(entry, dtypes, given):
            clear_shards(target)
            return entry.path
    missing = {name: each for name, each in dtypes.items() if not any(has_column(entry, name, each) for entry in there)}
    job = ShardJob(target, key, missing, given, chosen["rows"])
    if chosen["device"] is not None:
        model.to(chosen["device"])
    run = _runner(job, model, images, preprocessing, chosen["classifier"], foreign)
    return _work(job, dtypes, run, str(_device_of(model)), chosen)


# Running


def _own_preprocessing(model: nn.Module) -> Any:
    from uqlib import networks  # here, since numbers from elsewhere are put without timm

    return networks.preprocessing(model)


def _chosen(options: Mapping[str, Any]) -> FillOptions:
    """All options, checked, with defaults for those that are left out."""
    for name in options:
        if name not in OPTIONS:
            own = [each for each, its in signature(fill_entry).parameters.items() if its.kind is its.KEYWORD_ONLY]
            known = [*own, *OPTIONS]
            near = "".join(f"did you mean {each!r}? " for each in difflib.get_close_matches(name, known, n=1))
            raise TypeError(f"unknown option {name!r} of fill_entry; {near}choose from {', '.join(known)}.")
    chosen = {**OPTIONS, **options}
    workers = check_whole(chosen["workers"], "workers", least=1)
    if not 0 <= check_whole(chosen["worker"], "worker") < workers:
        raise ValueError(f"worker must lie in [0, workers); it is {chosen['worker']} of {workers}")
    counts = {name: check_whole(chosen[name], name, least=1) for name in ("batch", "rows")}
    return cast(FillOptions, chosen | counts)


def _device_of(model: nn.Module) -> torch.device:
    return next(iter(model.parameters())).device


def _runner(
    job: ShardJob, model: nn.Module, images: Any, preprocessing: Any, classifier: nn.Module | None, foreign: bool
) -> Callable[[int, int], dict[str, np.ndarray]]:
    """What the network answers on images start to stop, as columns of what the job lacks."""
    from uqlib import networks

    device = _device_of(model)

    def run(start: int, stop: int) -> dict[str, np.ndarray]:
        x = networks.preprocess(images[start:stop], preprocessing, device=device)
        outputs = networks.features_and_logits(model, x, classifier=classifier)
        if not foreign:
            _check_classes(job.given["labels"][start:stop], outputs.logits.shape[1], start)
        if start % job.rows == 0:  # a whole batch of logits does not look like probabilities by chance
            check_logits(outputs.logits, f"logits of the batch that begins at image {start}")
        parts = [_stored(getattr(outputs, name), dtype, name, start) for name, dtype in job.missing.items()]
        return {name: column for part in parts for name, column in part.items()}

    return run


def _work(job: ShardJob, dtypes: Mapping[str, str], run: Callable, device: str, chosen: FillOptions) -> Path | None:
    """This worker's shards, and the entry if they were the last."""
    mine = range(chosen["worker"], len(job.bounds), chosen["workers"]) if job.missing else ()
    done = lambda: (entry := open_if_whole(job.target)) is not None and has_columns(entry, dtypes, job.given)  # noqa: E731
    try:
        quiet = None if chosen["progress"] else True
        with tqdm(total=job.images(mine), unit="image", desc=job.key.file, disable=quiet) as bar:
            for number in mine:
                if done():
                    break  # another process was faster
                job.write(number, lambda start, stop: _batches(run, start, stop, chosen["batch"], bar), device)
        with locked_folder(job.target.parent):
            path = None if done() else job.assemble(chosen["command"], entries_of_key(job.key, chosen["root"]))
        return job.finish() if path is None and done() else path
    except FileNotFoundError:
        # whoever completes the entry removes the shards, perhaps while this process reads or writes one
        if not done():
            raise
        return job.finish()


def _batches(run: Callable, start: int, stop: int, batch: int, bar: tqdm) -> dict[str, np.ndarray]:
    parts = []
    for k in range(start, stop, batch):
        parts.append(run(k, min(k + batch, stop)))
        bar.update(min(batch, stop - k))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


# Checks


def _check_key(key: Key, weights: str, preprocessing: str) -> None:
    for name, found in (("weights", weights), ("preprocessing", preprocessing)):
        if getattr(key, name) != found:
            raise ValueError(f"key and model disagree: {name} of the key is {getattr(key, name)}, of the model {found}")


def _check_classes(labels: np.ndarray, classes: int, start: int = 0) -> None:
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        raise ValueError(
            f"labels must lie in [0, {classes}), the classes of the logits; row {start + outside[0]} is "
            f"{labels[outside[0]]}. Images of other classes, on purpose? Pass foreign=True (--foreign)."
        )


def _checked_answers(logits: Any, features: Any) -> dict[str, Tensor]:
    """What a network answered elsewhere, by column."""
    if logits is None and features is None:
        raise ValueError("logits and features are both None; there is nothing to store")
    answers = {} if logits is None else {"logits": check_logits(logits)}
    if features is not None:
        answers["features"] = as_tensor(features, "features")
        if answers["features"].ndim != 2:
            raise ValueError(f"features must have shape (n, d); it is {tuple(answers['features'].shape)}")
    return answers


def _given(n: int, labels: Any, index: Any, columns: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    if not n:
        raise ValueError("images is empty; at least one image is needed")
    given = {"labels": labels, "index": np.arange(n) if index is None else index} | dict(columns or {})
    arrays, taken = {}, (*ANSWER_COLUMNS, *BESIDE_LOGITS)
    for name, column in given.items():
        if name in taken or not re.fullmatch(r"\w+", name, re.ASCII):
            raise ValueError(f"column {name!r} must have another name: letters, digits and '_', not {', '.join(taken)}")
        tensor = as_tensor(column, name).cpu()
        if not tensor.ndim:
            raise ValueError(f"{name} must have {n} rows; it is the single number {tensor.item()}")
        check_rows(tensor, n, name)
        if name in ROW_COLUMNS:
            if tensor.ndim != 1 or tensor.is_floating_point() or tensor.dtype == torch.bool:
                raise TypeError(f"{name} must be integers (n,); they are {tensor.dtype} {tuple(tensor.shape)}")
            tensor = tensor.long()
        arrays[name] = np.ascontiguousarray(tensor.numpy())
    return arrays


def _dtypes(logits: str, features: str | None) -> dict[str, str]:
    asked = {"logits": logits} | ({} if features is None else {"features": features})
    for name, dtype in asked.items():
        known = [each for each in PRECISIONS if name == "logits" or each != "coarse"]
        if dtype not in known:
            raise ValueError(f"unknown type {dtype!r} of {name}; choose from {', '.join(known)}")
    return asked


def _stored(values: Tensor, dtype: str, name: str, start: int | None = None) -> dict[str, np.ndarray]:
    """The column, and beside logits in half precision the largest of each row."""
    check_finite(values, name if start is None else f"{name} of the batch that begins at image {start}")
    columns = {name: values.half() if dtype == "float16" else values.float()}
    if dtype == "coarse":
        columns = coarse_columns(values, LARGEST_LOGIT)
    elif name == "logits" and dtype == "float16":
        values = values.float()
        largest = values.amax(-1)
        columns = {name: (values - largest[:, None]).half(), LARGEST_LOGIT: largest}
    if not all(column.isfinite().all() for column in columns.values()):
        kind = "float32" if dtype == "float32" else "float16"
        hint = ""
        if kind == "float16":
            own = "; divide them by a constant" if name == "features" else "; pass dtype='float32'"
            hint = own if start is None else f"; pass {name}='float32'"
        most = torch.finfo(getattr(torch, kind)).max
        raise ValueError(f"{name} reach {values.abs().max().item():.6g}, beyond {kind} ({most:.6g}){hint}")
    return {each: column.cpu().numpy() for each, column in columns.items()}


def _refuse_vanishing(features: Tensor | None) -> None:
    """Raise a ValueError if all features are so small that half precision would leave few of their digits, or none."""
    if features is not None and features.numel():
        size, least = features.abs().max().item(), torch.finfo(torch.float16).tiny
        if 0 < size < least:
            raise ValueError(
                f"features reach {size:.6g} in size, and float16, in which they are stored, has all its digits from {least:.3g} "
                "on; multiply them by a constant"
            )


def _check_given(entry: Entry, given: Mapping[str, np.ndarray], *, indexed: bool) -> None:
    """Raise a ValueError if the entry has other labels, row numbers (unless they were left out) or other columns."""
    for name, array in given.items():
        if name not in entry.header.columns or (name == "index" and not indexed):
            continue
        stored = read_column(entry.path, entry.header, name)
        if stored.shape == array.shape and np.array_equal(stored, array, equal_nan=array.dtype.kind == "f"):
            continue
        where = f"{len(stored)} rows, not {len(array)}" if len(stored) != len(array) else "rows"
        if stored.shape == array.shape:
            row = int((stored != array).reshape(len(array), -1).any(1).nonzero()[0][0])
            where = f"row {row} is {stored[row]}, not {array[row]}"
        raise ValueError(
            f"{entry.path} has other {name} for the same key: {where}. Equal keys mean the same numbers; give the data "
            "another name or split, or remove the file."
        )


def _check_same_answers(entry: Entry, answers: Mapping[str, Tensor]) -> None:
    """Raise a ValueError if the entry has other logits or features than these, beyond what a device may change."""
    for name, values in answers.items():
        if name not in entry.header.columns:
            continue
        stored, values = entry_tensor(entry, name), values.cpu()
        precision = precision_of(name, entry.header.columns)
        if name == "logits" and precision == 1:
            values = values - values.amax(-1, keepdim=True)
        elif name == "logits" and precision == PRECISIONS["coarse"] and stored.shape == values.shape:
            stored, values = stored.amax(-1), values.amax(-1)  # another device may move a class to the next level
        differ = (stored - values).abs().max().item() if stored.shape == values.shape else None
        if differ is None or differ > SLACK * max(1.0, stored.abs().max().item()):
            much = f"shape {tuple(stored.shape)}" if differ is None else f"they differ by up to {differ:.6g}"
            raise ValueError(
                f"{entry.path} has other {name} for the same key: {much}. Equal keys mean the same numbers; give the "
                "network another name, or remove the file."
            )
