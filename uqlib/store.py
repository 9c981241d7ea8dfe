"""What networks said on images, kept: run a network once, study its logits and features as often as you like.

One file a key, where a key names the split of the data, the network, its weights and the preprocessing. Every byte is
checked on reading; a file that stands under its final name is whole. Reading needs neither timm nor the images.

Roots are searched in this order: the user's store ($UQLIB_STORE, else `store` in the cache folder), then `data/store`
of the checkout around the current folder or around this file. An explicit `root` is searched alone.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from uqlib.arrays import as_tensor, check_finite, check_rows
from uqlib.files import (
    DamagedError,
    Header,
    Parts,
    cache_folder,
    digest,
    in_checkout,
    read_column,
    read_header,
    write_table,
)


def _check_name(name: str, value: str) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"\w[\w.-]*", value, re.ASCII):
        raise ValueError(f"{name} must consist of letters, digits, '_', '-' and '.'; it is {value!r}")


@dataclass(frozen=True)
class Key:
    """What determines the numbers: two equal keys never mean different logits.

    Args:
        dataset: such as "cifar10" or "cifar10_c"; letters, digits, `_`, `-` and `.`.
        split: such as "test", or the name of a corruption.
        network: such as "cifar_resnet20"; networks that differ in options without weights need different names.
        weights: `models.weights_digest(model)`.
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
            _check_name(name, getattr(self, name))

    @cached_property
    def digest(self) -> str:
        """64 hexadecimal digits that stand for the whole key."""
        return digest(asdict(self))

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
        """Versions, device, date, seconds and command of the run."""
        return json.loads(self.header.metadata["provenance"])


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
        return self["logits"]

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
        upcast: give float16 as float32 (a copy in memory); False leaves it mapped and in half precision.
        root: folder of the store; by default all of `roots()`.

    Raises:
        FileNotFoundError: if there is no such entry; the message says what comes closest.
        DamagedError: if a byte differs from what was written.
        KeyError: if the file lacks a column.
    """
    entry = _entry(source if not isinstance(source, Key) else _find(source, root))
    if isinstance(source, Key) and entry.key != source:
        raise DamagedError(entry.path, f"it holds another key, {entry.key}")
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
    """
    names = {"network": network, "dataset": dataset, "split": split}
    for name, value in names.items():
        _check_name(name, value)
    if unknown := set(narrower) - {"weights", "preprocessing", "data"}:
        raise TypeError(f"unknown option {unknown.pop()!r}; choose from weights, preprocessing, data")
    found = {
        entry.key: entry
        for folder in reversed(roots(root=root))
        for entry in _entries(folder.glob(f"{network}/{dataset}.{split}-*.safetensors"))
        if all(getattr(entry.key, name) == value for name, value in names.items())
        and all(getattr(entry.key, name).startswith(value) for name, value in narrower.items())
    }
    if not found:
        raise FileNotFoundError(
            f"no entry {_words(names | narrower)}. {_inventory(names, root)} "
            f"To run the network: uqlib store fill {network} {dataset} {split}"
        )
    if len(found) > 1:
        listed = "\n".join(f"  {entry.path}: {_words(_own(entry.key))}" for entry in found.values())
        raise ValueError(
            f"{len(found)} entries {_words(names | narrower)}; add weights=, preprocessing= or data=:\n{listed}"
        )
    return _said(*found.values(), columns, verify, upcast)


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
    there = entries(root=root)
    for entry in there:
        if entry.key == key:
            return f"present: {entry.path}"
    if not there:
        return f"no entry at all below {_places(root)}"
    nearest = max(there, key=lambda entry: sum(asdict(entry.key)[name] == value for name, value in wanted.items()))
    differing = [(name, value, asdict(nearest.key)[name]) for name, value in wanted.items()]
    lines = [f"  {name}: wanted {value}, stored {other}" for name, value, other in differing if value != other]
    return "\n".join([f"no such entry; the nearest is {nearest.path}, which differs in", *lines])


def _find(key: Key, root: str | os.PathLike | None) -> Path:
    for folder in roots(root=root):
        if (folder / key.file).is_file():
            return folder / key.file
    raise FileNotFoundError(explain(key, root=root))


def _entry(path: str | os.PathLike) -> Entry:
    path = Path(path)
    header = read_header(path)
    try:
        return Entry(path, Key(**json.loads(header.metadata["key"])), header)
    except (KeyError, TypeError, ValueError):
        raise DamagedError(path, "it is no entry of the store: its metadata lack the key") from None


def _entries(paths: Iterable[Path]) -> list[Entry]:
    return [_entry(path) for path in sorted(paths)]


def _said(entry: Entry, columns: Iterable[str], verify: bool, upcast: bool) -> Said:
    if isinstance(columns, str):
        raise TypeError(f"columns must be names in a tuple: pass columns=({columns!r},)")
    tensors = {}
    for name in columns:
        if name not in entry.header.columns:
            raise KeyError(f"{entry.path} has no column {name!r}; it holds {', '.join(sorted(entry.header.columns))}")
        tensor = torch.from_numpy(read_column(entry.path, entry.header, name, verify=verify))
        tensors[name] = tensor.float() if upcast and tensor.dtype == torch.float16 else tensor
    return Said(tensors, entry)


def _words(names: Mapping[str, str]) -> str:
    return "with " + ", ".join(f"{name} {value}" for name, value in names.items())


def _own(key: Key) -> dict[str, str]:
    return {"weights": key.weights[:12], "preprocessing": f"[{key.preprocessing}]", "data": key.data[:12]}


def _places(root: str | os.PathLike | None) -> str:
    return ", ".join(str(folder) for folder in roots(root=root))


def _inventory(names: Mapping[str, str], root: str | os.PathLike | None) -> str:
    keys = [entry.key for entry in entries(root=root)]
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
    weights = models.weights_digest(model)
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
    root: str | os.PathLike | None = None,
    seconds: float = 0.0,
    command: str | None = None,
) -> Path:
    """Store what a network said that ran elsewhere, such as a classifier on stored features, or logits you were given.

    Args:
        key: what the numbers come from; `key_of` makes it where there is a network.
        logits: (n, c), or None beside features that are all that is wanted.
        labels: int (n,).
        features: (n, d), stored as float16.
        index, columns, root, command: as in `fill`.
        dtype: "float32" or "float16", of the logits, as in `fill`.
        seconds: how long it took, for the provenance.

    Returns:
        The path of the entry; an entry of this key with other contents is replaced.
    """
    said = {name: as_tensor(x) for name, x in {"logits": logits, "features": features}.items() if x is not None}
    if not said:
        raise ValueError("logits and features are both None; there is nothing to store")
    first = next(iter(said.values()))
    dtypes = {name: each for name, each in _dtypes(dtype, "float16").items() if name in said}
    given = _given(len(first), labels, index, columns)
    for name, values in said.items():
        check_rows(values, len(first), name)
    arrays = {name: _stored(values, dtypes[name], name, 0) for name, values in said.items()} | given
    contents = _contents(key, arrays, dtypes)
    target = roots(root=root)[0] / key.file
    if not _holds(target, contents):
        write_table(target, arrays, _metadata(key, contents, seconds, [str(first.device)], command))
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
    rows: int = 4096,
    worker: int = 0,
    workers: int = 1,
    progress: bool = True,
    command: str | None = None,
) -> Path | None:
    """Run a network over images and store what it says; nothing is run if the store has it.

    Finished shards of `rows` images stand beside the entry, in FILE.parts, until all are there; a killed run goes on
    from them and loses one shard at most, and the tensors come out with the same bits. Memory is that of one shard,
    however many images there are. Several processes share the work as workers 0 to k - 1 of k, in one folder;
    whoever finds the last shard in place puts the entry together. Two processes at the same work do no harm.

    Args:
        key: must agree with the model's weights and preprocessing; `key_of` makes it.
        model: a timm network, or any other with `classifier`.
        images: uint8 (n, h, w, 3), in memory or mapped, or a lazy sequence with slices.
        labels: int (n,), kept as they are.
        preprocessing: the model's own by default.
        root: folder to write to and to look in; by default entries of all roots count, and the user's is written.
        batch: images a forward pass.
        device: where to run; the model is moved there. By default it runs where it is.
        classifier: as in `models.features_and_logits`.
        features: "float16", "float32", or None to leave them out.
        logits: "float32", or "float16": then the largest of each row is taken off first, which no softmax sees,
            since half precision is finest near 0.
        index: row numbers in the source split, 0 to n - 1 by default.
        columns: further columns with n rows, such as {"severity": ...}.
        rows: images a shard.
        worker, workers: this process takes every workers-th shard, beginning with shard number `worker`.
        progress: show a bar when a person watches.
        command: noted in the provenance; by default this program's own, without its folders.

    Returns:
        The path of the entry, or None while shards of other workers are missing.

    Raises:
        ValueError: if key and model disagree, rows do not match, or the network's numbers are not finite.
    """
    from uqlib import models

    if not 0 <= worker < workers:
        raise ValueError(f"worker must lie in [0, workers); it is {worker} of {workers}")
    preprocessing = preprocessing or models.preprocessing(model)
    _check_key(key, models.weights_digest(model), str(preprocessing))
    dtypes = _dtypes(logits, features)
    given = _given(len(images), labels, index, columns)
    contents = _contents(key, given, dtypes)
    for folder in roots(root=root):
        if _holds(folder / key.file, contents):
            return folder / key.file

    if device is not None:
        model.to(device)
    where = next(iter(model.parameters())).device

    def run(start: int, stop: int) -> dict[str, np.ndarray]:
        x = models.preprocess(images[start:stop], preprocessing, device=where)
        outputs = models.features_and_logits(model, x, classifier=classifier)
        return {name: _stored(getattr(outputs, name), dtype, name, start) for name, dtype in dtypes.items()}

    job = _Job(roots(root=root)[0] / key.file, key, contents, len(images), rows)
    mine = range(worker, len(job.bounds), workers)
    try:
        with tqdm(total=job.images(mine), unit="image", desc=key.file, disable=None if progress else True) as bar:
            for number in mine:
                if _holds(job.target, contents):
                    break  # another process was faster
                job.write(number, lambda start, stop: _shard(run, given, start, stop, batch, bar), str(where))
        return job.assemble(command)
    except FileNotFoundError:
        # whoever completes the entry removes the shards, perhaps while this process reads or writes one
        if not _holds(job.target, contents):
            raise
        return job.finish()


def _shard(
    run: Callable, given: Mapping[str, np.ndarray], start: int, stop: int, batch: int, bar: tqdm
) -> dict[str, np.ndarray]:
    said = []
    for k in range(start, stop, batch):
        said.append(run(k, min(k + batch, stop)))
        bar.update(min(batch, stop - k))
    own = {name: np.concatenate([part[name] for part in said]) for name in said[0]}
    return own | {name: array[start:stop] for name, array in given.items()}


def _check_key(key: Key, weights: str, preprocessing: str) -> None:
    for name, found in (("weights", weights), ("preprocessing", preprocessing)):
        if getattr(key, name) != found:
            raise ValueError(f"key and model disagree: {name} of the key is {getattr(key, name)}, of the model {found}")


def _given(n: int, labels: Any, index: Any, columns: Mapping[str, Any] | None) -> dict[str, np.ndarray]:
    if not n:
        raise ValueError("images is empty; at least one image is needed")
    given = {"labels": labels, "index": np.arange(n) if index is None else index} | dict(columns or {})
    arrays = {}
    for name, column in given.items():
        if name in ("logits", "features") or not re.fullmatch(r"\w+", name, re.ASCII):
            raise ValueError(f"column {name!r} must have another name: letters, digits and '_', not logits or features")
        tensor = as_tensor(column).cpu()
        check_rows(tensor, n, name)
        if name in ("labels", "index"):
            if tensor.ndim != 1 or tensor.is_floating_point():
                raise TypeError(f"{name} must be integers (n,); they are {tensor.dtype} {tuple(tensor.shape)}")
            tensor = tensor.long()
        arrays[name] = np.ascontiguousarray(tensor.numpy())
    return arrays


def _contents(key: Key, given: Mapping[str, np.ndarray], dtypes: Mapping[str, torch.dtype]) -> str:
    """Digest of all that an entry shall hold, besides what the network says."""
    seal = hashlib.sha256(f"{key.digest} {sorted((name, str(dtype)) for name, dtype in dtypes.items())}".encode())
    for name, array in sorted(given.items()):
        seal.update(f"{name} {array.dtype} {array.shape}".encode())
        seal.update(array.reshape(-1).view(np.uint8).data)
    return seal.hexdigest()


def _holds(path: Path, contents: str) -> bool:
    try:
        return read_header(path).metadata.get("contents") == contents
    except (FileNotFoundError, DamagedError):
        return False  # a damaged entry is computed again


def _dtypes(logits: str, features: str | None) -> dict[str, torch.dtype]:
    known = {"float16": torch.float16, "float32": torch.float32}
    asked = {"logits": logits} | ({} if features is None else {"features": features})
    for name, dtype in asked.items():
        if dtype not in known:
            raise ValueError(f"unknown type {dtype!r} of {name}; choose from {', '.join(known)}")
    return {name: known[dtype] for name, dtype in asked.items()}


def _stored(values: Tensor, dtype: torch.dtype, name: str, start: int) -> np.ndarray:
    check_finite(values, f"{name} of the batch that begins at image {start}")
    if name == "logits" and dtype == torch.float16:
        values = values.float() - values.float().amax(-1, keepdim=True)
    stored = values.to(dtype)
    if not stored.isfinite().all():
        largest = values.abs().max().item()
        raise ValueError(f"{name} reach {largest:.6g}, beyond float16 (65504); pass {name}='float32'")
    return stored.cpu().numpy()


def _parts(target: Path) -> Path:
    return target.with_name(f"{target.name}.parts")


@dataclass(frozen=True)
class _Job:
    """The shards of one entry and how they come together."""

    target: Path
    key: Key
    contents: str
    n: int
    rows: int

    @cached_property
    def bounds(self) -> list[tuple[int, int]]:
        return [(start, min(start + self.rows, self.n)) for start in range(0, self.n, self.rows)]

    def path(self, number: int) -> Path:
        # the bounds are the name, so shards of another size are never taken for these
        return _parts(self.target) / "{}-{}.safetensors".format(*self.bounds[number])

    def has(self, number: int) -> bool:
        try:
            header = read_header(self.path(number))
            for name in header.columns:
                read_column(self.path(number), header, name)
        except (FileNotFoundError, DamagedError):
            return False
        return header.metadata["contents"] == self.contents

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

    def assemble(self, command: str | None) -> Path | None:
        """Copy the shards, one at a time, into the entry, unless some are missing."""
        if _holds(self.target, self.contents):
            return self.finish()
        if not all(_holds(self.path(number), self.contents) for number in range(len(self.bounds))):
            return None
        headers = [read_header(self.path(number)) for number in range(len(self.bounds))]
        columns = {name: self._joined(name, headers) for name in headers[0].columns}
        seconds = sum(float(header.metadata["seconds"]) for header in headers)
        devices = sorted({header.metadata["device"] for header in headers})
        write_table(self.target, columns, _metadata(self.key, self.contents, seconds, devices, command))
        return self.finish()

    def _joined(self, name: str, headers: list[Header]) -> Parts:
        first = headers[0].columns[name]
        arrays = (read_column(self.path(number), header, name) for number, header in enumerate(headers))
        return Parts(first.dtype, (self.n, *first.shape[1:]), arrays)

    def finish(self) -> Path:
        shutil.rmtree(_parts(self.target), ignore_errors=True)
        return self.target


def _metadata(key: Key, contents: str, seconds: float, devices: list[str], command: str | None) -> dict[str, str]:
    from uqlib.provenance import environment

    provenance = environment() | {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "devices": devices,
        "command": _command() if command is None else command,
    }
    texts = {"key": json.dumps(asdict(key)), "contents": contents, "provenance": json.dumps(provenance)}
    return {"format": "uqlib store 1"} | texts


def _command() -> str:
    # folders of somebody's machine have no place in a file that travels
    return re.sub(r"(?<![\w.])/(?:[^\s=/]+/)*", "", shlex.join(sys.argv))
