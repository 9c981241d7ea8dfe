"""What networks said on images, kept: run a network once, study its logits and features as often as you like.

One file a key, where a key names the split of the data, the network, its weights and the preprocessing. Every byte is
checked on reading; a file that stands under its final name is whole. Reading needs neither timm nor the images.

An entry grows and never shrinks: whoever asks for more columns, or for more precision, adds them to what is there.
Logits in half precision are kept as differences to the largest of their row, which stands beside them in `logits_max`.

Roots are searched in this order: the user's store ($UQLIB_STORE, else `store` in the cache folder), then `data/store`
of the checkout around the current folder or around this file. An explicit `root` is searched alone.
"""

import contextlib
import fcntl
import json
import os
import re
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from uqlib.arrays import as_tensor, check_finite, check_logits, check_rows, check_whole
from uqlib.files import (
    DamagedError,
    Header,
    Parts,
    cache_folder,
    check_columns,
    check_word,
    clear_unfinished,
    in_checkout,
    parsed,
    read_column,
    read_header,
    write_table,
)
from uqlib.fingerprint import fingerprint, of_network


@dataclass(frozen=True)
class Key:
    """What determines the numbers: two equal keys never mean different logits.

    Args:
        dataset: such as "cifar10" or "cifar10_c"; letters, digits, `_`, `-` and `.`.
        split: such as "test", or the name of a corruption.
        network: such as "cifar_resnet20"; networks that differ in options without weights, such as padding, a
            temperature or dropout at test time, need different names: the digest of the weights does not see them.
        weights: `fingerprint.of_network(model)`.
        preprocessing: `str(models.preprocessing(model))`.
        data: digest of the images, as ImageSet has it.
    """

    dataset: str
    split: str
    network: str
    weights: str
    preprocessing: str
    data: str

    def __post_init__(self) -> None:
        for name in ("dataset", "split", "network"):
            check_word(getattr(self, name), name)
        for name in ("weights", "preprocessing", "data"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} of a key must be a text; it is {getattr(self, name)!r}")

    @cached_property
    def digest(self) -> str:
        """64 hexadecimal digits that stand for the whole key."""
        return fingerprint(asdict(self))

    @property
    def file(self) -> str:
        """Place of the entry below a root."""
        return f"{self.network}/{self.dataset}.{self.split}-{self.digest[:8]}.safetensors"


class Entry(NamedTuple):
    """A file of the store, known by its header."""

    path: Path
    key: Key
    header: Header

    @property
    def rows(self) -> int:
        return self.header.columns["labels"].shape[0]

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, device, date, seconds and command of the run, and under `added` those of later ones."""
        fault = "it is no entry of the store: its metadata lack the provenance"
        return parsed(self.path, self.header.metadata.get("provenance", ""), fault)


@dataclass(frozen=True)
class Said:
    """What one network said on one split: columns with a row for each image, and where they come from."""

    columns: dict[str, Tensor]
    entry: Entry

    @property
    def key(self) -> Key:
        return self.entry.key

    @property
    def logits(self) -> Tensor:
        """What the network said before the softmax.

        Those kept in half precision come as float64, with the largest of the row added again: that one and each
        probability are exact to rounding, any other logit z lies within (largest - z) / 2,000 of the network's.
        """
        return self["logits"]

    @property
    def shifted(self) -> bool:
        """Whether each row of `logits` lacks its largest entry: raw columns, or an entry without `logits_max`.

        Such rows have the maximum 0. No softmax, rank or common temperature sees it; energy, the largest logit and
        temperatures of single classes do, and refuse such rows. Entries were written so before `logits_max` was kept.
        """
        return self["logits"].dtype != torch.float64 and self.entry.header.columns["logits"].dtype == np.float16

    @property
    def features(self) -> Tensor:
        return self["features"]

    @property
    def labels(self) -> Tensor:
        return self["labels"]

    @property
    def index(self) -> Tensor:
        """Row number of each image in its source split."""
        return self["index"]

    def __getitem__(self, column: str) -> Tensor:
        if column not in self.columns:
            stored = ", ".join(sorted(self.entry.header.columns))
            raise KeyError(f"column {column!r} was not read; pass columns=({column!r}, ...). The file holds {stored}.")
        return self.columns[column]

    def __len__(self) -> int:
        return self.entry.rows


COLUMNS = ("logits", "labels")
LARGEST = "logits_max"  # of each row, float32, beside logits in half precision
KINDS = {"labels": (1, "i"), "index": (1, "i"), "logits": (2, "f"), "features": (2, "f"), LARGEST: (1, "f")}
SAID = ("logits", "features")  # what a network says; all other columns are given


# Reading


def roots(*, root: str | os.PathLike | None = None) -> list[Path]:
    """The folders that are searched, in order; `root` alone if it is given."""
    if root is not None:
        return [Path(root)]
    user = os.environ.get("UQLIB_STORE")
    own = Path(user).expanduser() if user else cache_folder() / "store"
    return [own, *filter(None, [in_checkout("data/store")])]


def read(
    source: str | os.PathLike | Key,
    *,
    columns: Iterable[str] = COLUMNS,
    verify: bool = True,
    upcast: bool = True,
    root: str | os.PathLike | None = None,
) -> Said:
    """The columns of one entry, memory-mapped.

    Args:
        source: a path or a key.
        columns: names among logits, features, labels, index and what else was stored.
        verify: compare each column with its sha256, about a second a gigabyte. The header is always checked.
        upcast: give features in half precision as float32, and logits in half precision as float64 with the largest of
            the row added again, which is exact (copies in memory). False leaves columns as they lie in the file.
        root: folder of the store; by default all of `roots()`.

    Raises:
        FileNotFoundError: if there is no such entry; the message says what comes closest.
        DamagedError: if a byte differs from what was written.
        KeyError: if the file lacks a column.
    """
    columns = _names(columns)
    entry = _find(source, columns, root) if isinstance(source, Key) else _entry(source)
    return _said(entry, columns, verify, upcast)


def load(
    network: str,
    dataset: str,
    split: str = "test",
    *,
    columns: Iterable[str] = COLUMNS,
    verify: bool = True,
    upcast: bool = True,
    root: str | os.PathLike | None = None,
    **narrower: str,
) -> Said:
    """The one entry with these names: `store.load("cifar_resnet20", "cifar10").logits`.

    Args:
        network, dataset, split: names as in the key.
        columns, verify, upcast, root: as in `read`.
        **narrower: beginnings of weights=, preprocessing= or data=, where several entries bear the names.

    Raises:
        FileNotFoundError: if there is none; the message lists what there is.
        ValueError: if several bear these names; the message lists them.
        DamagedError: if a byte of it differs from what was written; damaged files beside it are left alone.
    """
    names = {"network": network, "dataset": dataset, "split": split}
    for name, value in names.items():
        check_word(value, name)
    if unknown := set(narrower) - {"weights", "preprocessing", "data"}:
        raise TypeError(f"unknown option {unknown.pop()!r}; choose from weights, preprocessing, data")
    columns = _names(columns)
    found: dict[Key, list[Entry]] = {}
    damaged = []
    paths = (folder.glob(f"{network}/{dataset}.{split}-*.safetensors") for folder in roots(root=root))
    for path in (path for each in paths for path in sorted(each)):
        try:
            key = (entry := _entry(path)).key
        except DamagedError as error:
            damaged.append(error)
            continue
        if all(getattr(key, name) == value for name, value in names.items()) and all(
            getattr(key, name).startswith(value) for name, value in narrower.items()
        ):
            found.setdefault(key, []).append(entry)
    if damaged and not found:
        raise damaged[0]
    if not found:
        raise FileNotFoundError(
            f"no entry {_words(names | narrower)}. {_inventory(names, root)} "
            f"To run the network: uqlib store fill {network} {dataset} {split}"
        )
    if len(found) > 1:
        listed = "\n".join(f"  {each[0].path}: {_words(_own(key))}" for key, each in found.items())
        raise ValueError(
            f"{len(found)} entries {_words(names | narrower)}; add weights=, preprocessing= or data=:\n{listed}"
        )
    return _said(_preferred(*found.values(), columns), columns, verify, upcast)


def load_many(networks: Sequence[str], dataset: str, split: str = "test", **options: Any) -> dict[str, Said]:
    """Several networks on the same images: as `load`, and row k is the same image with the same label in all.

    Raises:
        ValueError: if rows, labels or images differ; the message names the two networks and the first such row.
    """
    if isinstance(networks, str) or not networks:
        raise ValueError(f"networks must be at least one name in a list; got {networks!r}")
    columns = dict.fromkeys([*options.pop("columns", COLUMNS), "labels", "index"])
    said = {network: load(network, dataset, split, columns=columns, **options) for network in networks}
    for name, other in list(said.items())[1:]:
        _check_aligned(networks[0], said[networks[0]], name, other)
    return said


def _check_aligned(name: str, one: Said, other_name: str, other: Said) -> None:
    pair = f"{name} and {other_name}"
    if len(one) != len(other):
        raise ValueError(f"{pair} do not have the same rows: {len(one)} and {len(other)}")
    for column in ("index", "labels"):
        differ = one[column] != other[column]
        if differ.any():
            row = int(differ.nonzero()[0])
            values = f"{one[column][row].item()} and {other[column][row].item()}"
            raise ValueError(f"{pair} do not have the same {column}: row {row} is {values}")
    if one.key.data != other.key.data:
        raise ValueError(f"{pair} saw other images: data {one.key.data[:12]} and {other.key.data[:12]}")


def entries(*, root: str | os.PathLike | None = None) -> list[Entry]:
    """All entries of the roots, by name; damaged files raise, see `verify`."""
    return [entry for folder in roots(root=root) for entry in _entries(folder.glob("*/*.safetensors"))]


def verify(*, root: str | os.PathLike | None = None) -> dict[Path, str]:
    """Check every byte of every file: path and fault of each bad one; empty means that all is well."""
    faults = {}
    for path in sorted(path for folder in roots(root=root) for path in folder.glob("*/*.safetensors")):
        try:
            entry = _entry(path)
            if path.name != Path(entry.key.file).name or path.parent.name != entry.key.network:
                raise DamagedError(path, f"its key belongs to the name {entry.key.file}")
            for name in entry.header.columns:
                read_column(path, entry.header, name)
        except DamagedError as error:
            faults[path] = str(error)
    return faults


def explain(key: Key, *, root: str | os.PathLike | None = None) -> str:
    """Why there is no entry for a key: the entry that shares most fields with it, and the fields that differ."""
    wanted = asdict(key)
    there = _whole_entries(root)
    for entry in there:
        if entry.key == key:
            return f"present: {entry.path}"
    if not there:
        return f"no entry at all below {_places(root)}"
    nearest = max(there, key=lambda entry: sum(asdict(entry.key)[name] == value for name, value in wanted.items()))
    differing = [(name, value, asdict(nearest.key)[name]) for name, value in wanted.items()]
    lines = [f"  {name}: wanted {value}, stored {other}" for name, value, other in differing if value != other]
    return "\n".join([f"no such entry; the nearest is {nearest.path}, which differs in", *lines])


def _find(key: Key, columns: Sequence[str], root: str | os.PathLike | None) -> Entry:
    found = [_entry(folder / key.file) for folder in roots(root=root) if (folder / key.file).is_file()]
    for entry in found:
        if entry.key != key:
            raise DamagedError(entry.path, f"it holds another key, {entry.key}")
    if not found:
        raise FileNotFoundError(explain(key, root=root))
    return _preferred(found, columns)


def _preferred(found: Sequence[Entry], columns: Sequence[str]) -> Entry:
    """Of entries of one key the first that has all columns, with logits that are not shifted if there are such."""
    lacks = lambda entry: not set(columns) <= set(entry.header.columns)  # noqa: E731
    return min(
        found, key=lambda entry: (lacks(entry), "logits" in columns and _level("logits", entry.header.columns) < 2)
    )


def _entry(path: str | os.PathLike) -> Entry:
    path = Path(path)
    header = read_header(path)
    fault = "it is no entry of the store: its metadata lack the key"
    try:
        key = Key(**parsed(path, header.metadata.get("key", ""), fault))
    except (TypeError, ValueError):
        raise DamagedError(path, fault) from None
    if "labels" not in header.columns:
        raise DamagedError(path, "it is no entry of the store: it has no labels")
    others = {name: (max(1, len(column.shape)), "fiub") for name, column in header.columns.items()}
    check_columns(path, header, others | KINDS)
    return Entry(path, key, header)


def _entries(paths: Iterable[Path]) -> list[Entry]:
    return [_entry(path) for path in sorted(paths)]


def _whole_entries(root: str | os.PathLike | None) -> list[Entry]:
    """All entries that can be read; a damaged one is no reason to say nothing of the others."""
    return [
        entry
        for folder in roots(root=root)
        for path in sorted(folder.glob("*/*.safetensors"))
        if (entry := _whole(path)) is not None
    ]


def _whole(path: Path) -> Entry | None:
    with contextlib.suppress(FileNotFoundError, DamagedError):
        return _entry(path)
    return None


def _names(columns: Iterable[str]) -> tuple[str, ...]:
    if isinstance(columns, str):
        raise TypeError(f"columns must be names in a tuple: pass columns=({columns!r},)")
    return tuple(columns)


def _said(entry: Entry, columns: Sequence[str], verify: bool, upcast: bool) -> Said:
    for name in columns:
        if name not in entry.header.columns:
            raise KeyError(f"{entry.path} has no column {name!r}; it holds {', '.join(sorted(entry.header.columns))}")
    try:
        return Said({name: _tensor(entry, name, verify, upcast) for name in columns}, entry)
    except DamagedError:
        now = _whole(entry.path)
        if now is None or now.header == entry.header:
            raise
        return _said(now, columns, verify, upcast)  # somebody added to it between its header and its columns


def _tensor(entry: Entry, name: str, verify: bool, upcast: bool) -> Tensor:
    tensor = torch.from_numpy(read_column(entry.path, entry.header, name, verify=verify))
    if not upcast or tensor.dtype != torch.float16:
        return tensor
    if name != "logits" or LARGEST not in entry.header.columns:
        return tensor.float()
    # float64 holds the sum of a float16 and a float32 exactly, so differences, ranks and ties are those in the file
    largest = torch.from_numpy(read_column(entry.path, entry.header, LARGEST, verify=verify))
    return tensor.double().add_(largest[:, None])


def _words(names: Mapping[str, str]) -> str:
    return "with " + ", ".join(f"{name} {value}" for name, value in names.items())


def _own(key: Key) -> dict[str, str]:
    return {"weights": key.weights[:12], "preprocessing": f"[{key.preprocessing}]", "data": key.data[:12]}


def _places(root: str | os.PathLike | None) -> str:
    return ", ".join(str(folder) for folder in roots(root=root))


def _inventory(names: Mapping[str, str], root: str | os.PathLike | None) -> str:
    keys = [entry.key for entry in _whole_entries(root)]
    for field in ("split", "dataset", "network"):
        rest = {name: value for name, value in names.items() if name != field}
        known = sorted({getattr(key, field) for key in keys if all(getattr(key, n) == v for n, v in rest.items())})
        if names[field] in known:  # so what was asked besides the names does not fit
            return "There are entries with these names, but with other weights, preprocessing or data; see store.entries()."
        if known:
            return f"{field} {names[field]} is not there {_words(rest)}; choose from {', '.join(known)}."
    return f"Searched {_places(root)}, which hold {len(keys)} entries."


# Filling


def key_of(network: str, model: nn.Module, image_set: Any, *, preprocessing: Any = None) -> Key:
    """The key of a network on an ImageSet; `preprocessing` is the model's own by default."""
    from uqlib import models

    preprocessing = preprocessing or models.preprocessing(model)
    weights = of_network(model)
    return Key(image_set.name, image_set.split, network, weights, str(preprocessing), image_set.digest)


def ask(
    network: str,
    model: nn.Module,
    image_set: Any,
    *,
    preprocessing: Any = None,
    columns: Iterable[str] = COLUMNS,
    **options: Any,
) -> Said:
    """What the network says on a set of images: read from the store, or computed and stored on first use.

    Args:
        network: the name to store it under.
        model, image_set, preprocessing: what is asked, on what, prepared how.
        columns: as in `read`.
        **options: as in `fill`.
    """
    key = key_of(network, model, image_set, preprocessing=preprocessing)
    options = {"index": getattr(image_set, "index", None)} | options | {"preprocessing": preprocessing}
    path = fill(key, model, image_set.images, image_set.labels, **options)
    if path is None:
        raise RuntimeError(f"other workers have not finished {key.file}; ask again when they have")
    return read(path, columns=columns)


def put(
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
    seconds: float = 0.0,
    command: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Store what a network said that ran elsewhere, such as a classifier on stored features, or logits you were given.

    Args:
        key: what the numbers come from; `key_of` makes it where there is a network.
        logits: (n, c), or None beside features that are all that is wanted.
        labels: int (n,), in [0, c).
        features: (n, d), stored as float16.
        index, columns, foreign, root, command: as in `fill`.
        dtype: "float32" or "float16", of the logits, as in `fill`.
        seconds: how long it took, for the provenance.
        provenance: where the numbers come from, as an entry has it, in place of this machine, this moment, `seconds` and
            `command`.

    Returns:
        The path of the entry. One of this key that is there already keeps its columns and gains those that it lacks, or
        has in a lower precision.

    Raises:
        ValueError: if a logit or feature is not finite, logits are probabilities, rows or shapes do not fit, a label is
            no class of the logits, or the store has other numbers under this key.
        TypeError: if labels or index are no integers.
    """
    if logits is None and features is None:
        raise ValueError("logits and features are both None; there is nothing to store")
    said = {} if logits is None else {"logits": check_logits(logits)}
    if features is not None:
        said["features"] = as_tensor(features, "features")
        if said["features"].ndim != 2:
            raise ValueError(f"features must have shape (n, d); it is {tuple(said['features'].shape)}")
    first = next(iter(said.values()))
    dtypes = {name: each for name, each in _dtypes(dtype, "float16").items() if name in said}
    given = _given(len(first), labels, index, columns)
    if logits is not None and not foreign:
        _check_classes(given["labels"], first.shape[1])
    arrays = dict(given)
    for name, values in said.items():
        check_rows(values, len(first), name)
        arrays |= _stored(values, dtypes[name], name)
    target = roots(root=root)[0] / key.file
    with _locked(target.parent):
        there = _there(key, root)
        for entry in there:
            _check_given(entry, given, indexed=index is not None)
            _check_said(entry, said)
        if not (there and there[0].path == target and _holds(there[0], dtypes, given)):
            own = _environment(seconds, [str(first.device)], command) if provenance is None else dict(provenance)
            _write(target, key, arrays, own, there)
    return target


def fill(
    key: Key,
    model: nn.Module,
    images: Any,
    labels: Any,
    *,
    preprocessing: Any = None,
    root: str | os.PathLike | None = None,
    batch: int = 128,
    device: torch.device | str | None = None,
    classifier: nn.Module | None = None,
    features: str | None = "float16",
    logits: str = "float32",
    index: Any = None,
    columns: Mapping[str, Any] | None = None,
    foreign: bool = False,
    rows: int = 4096,
    worker: int = 0,
    workers: int = 1,
    progress: bool = True,
    command: str | None = None,
) -> Path | None:
    """Run a network over images and store what it says; nothing is run if the store has it.

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
        root: folder to write to and to look in; by default entries of all roots count, and the user's is written.
        batch: images a forward pass.
        device: where to run; the model is moved there. By default it runs where it is.
        classifier: as in `models.features_and_logits`.
        features: "float16", "float32", or None to leave them out.
        logits: "float32", or "float16": then the largest of each row is taken off first, since half precision is
            finest near 0, and kept beside them in float32 (column `logits_max`).
        index: row numbers in the source split, 0 to n - 1 by default.
        columns: further columns with n rows, such as {"severity": ...}.
        foreign: the labels are of another set of classes than the network's, on purpose: they are kept as they are.
        rows: images a shard.
        worker, workers: this process takes every workers-th shard, beginning with shard number `worker`.
        progress: show a bar when a person watches.
        command: noted in the provenance; by default this program's own, without its folders.

    Returns:
        The path of the entry, or None while shards of other workers are missing.

    Raises:
        ValueError: if key and model disagree, rows do not match, the network's numbers are not finite or are
            probabilities, a label is no class of the network, or the store has other labels, row numbers or columns
            under this key.
    """
    from uqlib import models

    workers = check_whole(workers, "workers", least=1)
    if not 0 <= check_whole(worker, "worker") < workers:
        raise ValueError(f"worker must lie in [0, workers); it is {worker} of {workers}")
    batch, rows = check_whole(batch, "batch", least=1), check_whole(rows, "rows", least=1)
    preprocessing = preprocessing or models.preprocessing(model)
    _check_key(key, of_network(model), str(preprocessing))
    dtypes = _dtypes(logits, features)
    given = _given(len(images), labels, index, columns)
    there = _there(key, root)
    for entry in there:
        _check_given(entry, given, indexed=index is not None)
    for entry in there:
        if _holds(entry, dtypes, given):
            _clear_shards(roots(root=root)[0] / key.file)
            return entry.path

    if device is not None:
        model.to(device)
    where = next(iter(model.parameters())).device
    missing = {name: each for name, each in dtypes.items() if not any(_has(entry, name, each) for entry in there)}

    def run(start: int, stop: int) -> dict[str, np.ndarray]:
        x = models.preprocess(images[start:stop], preprocessing, device=where)
        outputs = models.features_and_logits(model, x, classifier=classifier)
        if not foreign:
            _check_classes(given["labels"][start:stop], outputs.logits.shape[1], start)
        if start % rows == 0:  # a whole batch of logits does not look like probabilities by chance
            check_logits(outputs.logits, f"logits of the batch that begins at image {start}")
        parts = [_stored(getattr(outputs, name), dtype, name, start) for name, dtype in missing.items()]
        return {name: column for part in parts for name, column in part.items()}

    job = _Job(roots(root=root)[0] / key.file, key, missing, given, rows)
    mine = range(worker, len(job.bounds), workers) if missing else ()
    done = lambda: (entry := _whole(job.target)) is not None and _holds(entry, dtypes, given)  # noqa: E731
    try:
        with tqdm(total=job.images(mine), unit="image", desc=key.file, disable=None if progress else True) as bar:
            for number in mine:
                if done():
                    break  # another process was faster
                job.write(number, lambda start, stop: _shard(run, start, stop, batch, bar), str(where))
        with _locked(job.target.parent):
            path = None if done() else job.assemble(command, _there(key, root))
        return job.finish() if path is None and done() else path
    except FileNotFoundError:
        # whoever completes the entry removes the shards, perhaps while this process reads or writes one
        if not done():
            raise
        return job.finish()


def _shard(run: Callable, start: int, stop: int, batch: int, bar: tqdm) -> dict[str, np.ndarray]:
    said = []
    for k in range(start, stop, batch):
        said.append(run(k, min(k + batch, stop)))
        bar.update(min(batch, stop - k))
    return {name: np.concatenate([part[name] for part in said]) for name in said[0]}


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


def _given(n: int, labels: Any, index: Any, columns: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    if not n:
        raise ValueError("images is empty; at least one image is needed")
    given = {"labels": labels, "index": np.arange(n) if index is None else index} | dict(columns or {})
    arrays = {}
    for name, column in given.items():
        if name in (*SAID, LARGEST) or not re.fullmatch(r"\w+", name, re.ASCII):
            raise ValueError(
                f"column {name!r} must have another name: letters, digits and '_', not {', '.join((*SAID, LARGEST))}"
            )
        tensor = as_tensor(column, name).cpu()
        if not tensor.ndim:
            raise ValueError(f"{name} must have {n} rows; it is the single number {tensor.item()}")
        check_rows(tensor, n, name)
        if name in ("labels", "index"):
            if tensor.ndim != 1 or tensor.is_floating_point() or tensor.dtype == torch.bool:
                raise TypeError(f"{name} must be integers (n,); they are {tensor.dtype} {tuple(tensor.shape)}")
            tensor = tensor.long()
        arrays[name] = np.ascontiguousarray(tensor.numpy())
    return arrays


def _dtypes(logits: str, features: str | None) -> dict[str, torch.dtype]:
    known = {"float16": torch.float16, "float32": torch.float32}
    asked = {"logits": logits} | ({} if features is None else {"features": features})
    for name, dtype in asked.items():
        if dtype not in known:
            raise ValueError(f"unknown type {dtype!r} of {name}; choose from {', '.join(known)}")
    return {name: known[dtype] for name, dtype in asked.items()}


def _stored(values: Tensor, dtype: torch.dtype, name: str, start: int | None = None) -> dict[str, np.ndarray]:
    """The column, and beside logits in half precision the largest of each row."""
    check_finite(values, name if start is None else f"{name} of the batch that begins at image {start}")
    columns = {name: values.to(dtype)}
    if name == "logits" and dtype == torch.float16:
        values = values.float()
        largest = values.amax(-1)
        columns = {name: (values - largest[:, None]).to(dtype), LARGEST: largest}
    if not all(column.isfinite().all() for column in columns.values()):
        kind, most = str(dtype).removeprefix("torch."), torch.finfo(dtype).max
        hint = f"; pass {name}='float32'" if dtype == torch.float16 and start is not None else ""
        raise ValueError(f"{name} reach {values.abs().max().item():.6g}, beyond {kind} ({most:.6g}){hint}")
    return {each: column.cpu().numpy() for each, column in columns.items()}


# What is there, and what is missing


def _there(key: Key, root: str | os.PathLike | None) -> list[Entry]:
    """The entries of a key, in the order of the roots; a damaged one does not count, so that it is computed again."""
    found = [_whole(folder / key.file) for folder in roots(root=root)]
    return [entry for entry in found if entry is not None and entry.key == key]


def _level(name: str, columns: Mapping[str, Any]) -> int:
    """How precisely a network's numbers are kept: 0 not at all, 1 less the maximum of their row, 2 half, 3 single."""
    if name not in columns:
        return 0
    if columns[name].dtype == np.float32:
        return 3
    return 1 if name == "logits" and LARGEST not in columns else 2


def _has(entry: Entry, name: str, dtype: torch.dtype) -> bool:
    return _level(name, entry.header.columns) >= {torch.float16: 2, torch.float32: 3}[dtype]


def _holds(entry: Entry, dtypes: Mapping[str, torch.dtype], given: Iterable[str]) -> bool:
    """Whether every column is there, at the precision asked for or a better one."""
    return set(given) <= set(entry.header.columns) and all(_has(entry, *each) for each in dtypes.items())


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


SLACK = 0.01  # of the largest number: what another device, or TF32, makes of the same network


def _check_said(entry: Entry, said: Mapping[str, Tensor]) -> None:
    """Raise a ValueError if the entry has other logits or features than these, beyond what a device may change."""
    for name, values in said.items():
        if name not in entry.header.columns:
            continue
        stored, values = _tensor(entry, name, verify=True, upcast=True), values.cpu()
        if name == "logits" and _level(name, entry.header.columns) == 1:
            values = values - values.amax(-1, keepdim=True)
        differ = (stored - values).abs().max().item() if stored.shape == values.shape else None
        if differ is None or differ > SLACK * max(1.0, stored.abs().max().item()):
            much = f"shape {tuple(stored.shape)}" if differ is None else f"they differ by up to {differ:.6g}"
            raise ValueError(
                f"{entry.path} has other {name} for the same key: {much}. Equal keys mean the same numbers; give the "
                "network another name, or remove the file."
            )


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One process at a time adds to the entries of a folder, so that none loses what another has added."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # disks without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _write(
    target: Path, key: Key, own: Mapping[str, np.ndarray | Parts], provenance: dict[str, Any], there: Sequence[Entry]
) -> None:
    """Write these columns, and of the entries of this key those that are missing here or no less precise there."""
    columns, kept = dict(own), []
    for entry in there:
        known, better = entry.header.columns, []
        for name in SAID:
            if name in known and _level(name, known) >= _level(name, columns):
                better.append(name)
        kept += [(entry, name) for name in better]
        if "logits" in better:  # with the largest of their own run, if they have it
            columns.pop(LARGEST, None)
            better += [LARGEST] if LARGEST in known else []
        better += [name for name in known if name not in (*columns, *SAID, LARGEST)]
        columns |= {name: read_column(entry.path, entry.header, name) for name in better}
    if kept:
        first, added = kept[0][0].provenance, sorted(set(own) & set(SAID) - {name for _, name in kept})
        more = [provenance | {"columns": added}] if added else []
        provenance = first | ({"added": [*first.get("added", []), *more]} if more else {})
    texts = {"format": "uqlib store 1", "key": json.dumps(asdict(key)), "provenance": json.dumps(provenance)}
    write_table(target, columns, texts)


def _parts(target: Path) -> Path:
    return target.with_name(f"{target.name}.parts")


def _clear_shards(target: Path) -> None:
    """Remove what an entry holds already, and what killed writers left; shards of somebody who asks for more stay."""
    parts, entry = _parts(target), _whole(target)
    if entry is None or not parts.is_dir():
        return
    with contextlib.suppress(OSError):  # another process does the same
        clear_unfinished(target.parent)
        clear_unfinished(parts)
        for shard in parts.glob("*.safetensors"):
            try:
                columns = read_header(shard).columns
            except DamagedError:
                columns = {}
            if all(_level(name, columns) <= _level(name, entry.header.columns) for name in SAID):
                shard.unlink(missing_ok=True)
        parts.rmdir()


@dataclass(frozen=True)
class _Job:
    """The shards of what is missing in one entry, and how they come together."""

    target: Path
    key: Key
    missing: Mapping[str, torch.dtype]
    given: Mapping[str, np.ndarray]
    rows: int

    @cached_property
    def contents(self) -> str:
        """Says what a shard holds, so that those of another run are not taken for it."""
        return fingerprint([self.key.digest, {name: str(dtype) for name, dtype in self.missing.items()}])

    @cached_property
    def bounds(self) -> list[tuple[int, int]]:
        n = len(self.given["labels"])
        return [(start, min(start + self.rows, n)) for start in range(0, n, self.rows)]

    def path(self, number: int) -> Path:
        # what it holds and its bounds are the name, so shards of another run or size are never taken for these
        return _parts(self.target) / "{}-{}-{}.safetensors".format(*self.bounds[number], self.contents[:8])

    def has(self, number: int) -> bool:
        try:
            header = read_header(self.path(number))
            for name in header.columns:
                read_column(self.path(number), header, name)
        except (FileNotFoundError, DamagedError):
            return False
        return self._is_ours(header)

    def _is_ours(self, header: Header) -> bool:
        return header.metadata.get("contents") == self.contents

    def images(self, numbers: Iterable[int]) -> int:
        """How many images are still to be run in these shards."""
        return sum(stop - start for n in numbers if not self.path(n).exists() for start, stop in [self.bounds[n]])

    def write(self, number: int, compute: Callable, device: str) -> None:
        if self.has(number):
            return
        began = time.monotonic()
        columns = compute(*self.bounds[number])
        seconds = f"{time.monotonic() - began:.3f}"
        write_table(self.path(number), columns, {"contents": self.contents, "seconds": seconds, "device": device})

    def assemble(self, command: str | None, there: Sequence[Entry] = ()) -> Path | None:
        """Copy the shards, one at a time, into the entry, beside what it has; None if some are missing."""
        headers = self._headers() if self.missing else []
        if headers is None:
            return None
        columns = {name: self._joined(name, headers) for name in (headers[0].columns if headers else ())}
        seconds = sum(float(header.metadata["seconds"]) for header in headers)
        devices = sorted({header.metadata["device"] for header in headers})
        _write(self.target, self.key, columns | self.given, _environment(seconds, devices, command), there)
        return self.finish()

    def _headers(self) -> list[Header] | None:
        try:
            headers = [read_header(self.path(number)) for number in range(len(self.bounds))]
        except (FileNotFoundError, DamagedError):
            return None
        return headers if all(map(self._is_ours, headers)) else None

    def _joined(self, name: str, headers: list[Header]) -> Parts:
        first = headers[0].columns[name]
        arrays = (read_column(self.path(number), header, name) for number, header in enumerate(headers))
        return Parts(first.dtype, (len(self.given["labels"]), *first.shape[1:]), arrays)

    def finish(self) -> Path:
        _clear_shards(self.target)
        return self.target


def _environment(seconds: float, devices: list[str], command: str | None) -> dict[str, Any]:
    from uqlib.provenance import environment

    return environment() | {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "devices": devices,
        "command": _command() if command is None else command,
    }


def _command() -> str:
    # folders of somebody's machine have no place in a file that travels
    return re.sub(r"(?<![\w.])/(?:[^\s=/]+/)*", "", shlex.join(sys.argv))
