"""Entries are found and read: by a path, by a key, or by the names of network, data set and split.

Nothing here runs a network; `uqlib.store.fill` does.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from uqlib.base.provenance import note_input
from uqlib.files.columns import read_column
from uqlib.files.whole import DamagedError, cache_folder, check_word, in_checkout, is_there
from uqlib.store.coarse import COARSE_COLUMNS, LEVELS, dense_logits
from uqlib.store.keys import (
    LARGEST_LOGIT,
    PRECISIONS,
    ROW_COLUMNS,
    Entry,
    Key,
    bears_its_name,
    entry_paths,
    named_entry_paths,
    open_entry,
    open_if_whole,
    precision_of,
    whole_entries,
)

DEFAULT_COLUMNS = ("logits", "labels")
NARROWER = ("weights", "preprocessing", "data")  # what tells entries of the same names apart


@dataclass(frozen=True)
class Answers:
    """What one network answered on one split: columns with a row for each image, and where they come from."""

    columns: dict[str, Tensor]
    entry: Entry

    @property
    def key(self) -> Key:
        return self.entry.key

    @property
    def logits(self) -> Tensor:
        """What the network answered before the softmax.

        Those kept in half precision come as float64, with the largest of the row added again: that one and each
        probability are exact to rounding, any other logit z lies within (largest - z) / 2,000 of the network's. Of
        coarse ones (column `logits_levels`) that holds for the largest of each row; the others share three levels.
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


def roots(*, root: str | os.PathLike | None = None) -> list[Path]:
    """The folders that are searched, in order; `root` alone if it is given."""
    if root is not None:
        return [Path(root)]
    user = os.environ.get("UQLIB_STORE")
    own = Path(user).expanduser() if user else cache_folder() / "store"
    return [own, *filter(None, [in_checkout("data/store")])]


def read_entry(
    source: str | os.PathLike | Key,
    *,
    columns: Iterable[str] = DEFAULT_COLUMNS,
    verify: bool = True,
    upcast: bool = True,
    root: str | os.PathLike | None = None,
) -> Answers:
    """The columns of one entry, memory-mapped.

    Args:
        source: a path or a key.
        columns: names among logits, features, labels, index and what else was stored.
        verify: compare each column with its sha256, about a second a gigabyte. The header is always checked.
        upcast: give features in half precision as float32, logits in half precision as float64 with the largest of the
            row added again, which is exact, and labels and index as int64 (copies in memory). False leaves columns as
            they lie in the file.
        root: folder of the store; by default all of `roots()`.

    Raises:
        FileNotFoundError: if there is no such entry; the message says what comes closest.
        DamagedError: if a byte differs from what was written.
        KeyError: if the file lacks a column.
    """
    columns = _names(columns)
    entry = _find(source, columns, root) if isinstance(source, Key) else open_entry(source)
    return _answers(entry, columns, verify, upcast)


def load_answers(
    network: str,
    dataset: str,
    split: str = "test",
    *,
    columns: Iterable[str] = DEFAULT_COLUMNS,
    verify: bool = True,
    upcast: bool = True,
    root: str | os.PathLike | None = None,
    **narrower: str,
) -> Answers:
    """The one entry with these names: `store.load_answers("cifar_resnet20", "cifar10").logits`.

    Args:
        network, dataset, split: names as in the key.
        columns, verify, upcast, root: as in `read_entry`.
        **narrower: beginnings of weights=, preprocessing= or data=, where several entries bear the names.

    Raises:
        FileNotFoundError: if there is none; the message lists what there is.
        ValueError: if several bear these names; the message lists them.
        DamagedError: if a byte of it differs from what was written; damaged files beside it are left alone.
    """
    names = {"network": network, "dataset": dataset, "split": split}
    for name, value in names.items():
        check_word(value, name)
    if unknown := set(narrower) - set(NARROWER):
        raise TypeError(f"unknown option {unknown.pop()!r}; choose from {', '.join(NARROWER)}")
    columns = _names(columns)
    found = _bearing(names, narrower, root)
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
    ((key, entries),) = found.items()
    note_input(f"store: {dataset}/{split}/{network}", key.digest)
    return _answers(_preferred(entries, columns), columns, verify, upcast)


def load_many_answers(networks: Sequence[str], dataset: str, split: str = "test", **options: Any) -> dict[str, Answers]:
    """Several networks on the same images: as `load_answers`, and row k is the same image with the same label in all.

    Raises:
        ValueError: if rows, labels or images differ; the message names the two networks and the first such row.
    """
    if isinstance(networks, str) or not networks:
        raise ValueError(f"networks must be at least one name in a list; got {networks!r}")
    columns = dict.fromkeys([*options.pop("columns", DEFAULT_COLUMNS), "labels", "index"])
    answers = {network: load_answers(network, dataset, split, columns=columns, **options) for network in networks}
    for name, other in list(answers.items())[1:]:
        _check_aligned(networks[0], answers[networks[0]], name, other)
    return answers


def load_versions(
    networks: Sequence[str], dataset: str, splits: Sequence[str], **options: Any
) -> dict[str, dict[str, Tensor]]:
    """Several networks on versions of the same images, one a split, such as corruptions: columns by network.

    The versions of an image stand side by side, in the order of the splits; options as in `load_answers`.
    """
    parts = [load_many_answers(networks, dataset, split, **options) for split in splits]
    order = torch.cat([part[networks[0]].index for part in parts]).argsort(stable=True)
    return {
        name: {column: torch.cat([part[name][column] for part in parts])[order] for column in parts[0][name].columns}
        for name in networks
    }


def list_entries(*, root: str | os.PathLike | None = None) -> list[Entry]:
    """All entries of the roots, by name; damaged files raise, see `verify_store`."""
    return [open_entry(path) for folder in roots(root=root) for path in entry_paths(folder)]


def verify_store(*, root: str | os.PathLike | None = None) -> dict[Path, str]:
    """Check every byte of every file: path and fault of each bad one; empty means that all is well."""
    faults = {}
    for path in sorted(path for folder in roots(root=root) for path in entry_paths(folder)):
        try:
            entry = open_entry(path)
            if not bears_its_name(entry):
                raise DamagedError(path, f"its key belongs to the name {entry.key.file}")
            for name in entry.header.columns:
                read_column(path, entry.header, name)
        except DamagedError as error:
            faults[path] = str(error)
    return faults


def explain_miss(key: Key, *, root: str | os.PathLike | None = None) -> str:
    """Why there is no entry for a key: the entry that shares most fields with it, and the fields that differ."""
    wanted = asdict(key)
    there = whole_entries(roots(root=root))
    for entry in there:
        if entry.key == key:
            return f"present: {entry.path}"
    if not there:
        return f"no entry at all below {_places(root)}"
    nearest = max(there, key=lambda entry: sum(asdict(entry.key)[name] == value for name, value in wanted.items()))
    differing = [(name, value, asdict(nearest.key)[name]) for name, value in wanted.items()]
    lines = [f"  {name}: wanted {value}, stored {other}" for name, value, other in differing if value != other]
    return "\n".join([f"no such entry; the nearest is {nearest.path}, which differs in", *lines])


def entry_tensor(entry: Entry, name: str, *, verify: bool = True, upcast: bool = True) -> Tensor:
    """One column of an entry, as `read_entry` gives it."""
    read = lambda each: read_column(entry.path, entry.header, each, verify=verify)  # noqa: E731
    if upcast and name == "logits" and LEVELS in entry.header.columns:
        return dense_logits({each: read(each) for each in (name, LARGEST_LOGIT, *COARSE_COLUMNS)}, LARGEST_LOGIT)
    tensor = torch.from_numpy(read(name))
    if upcast and name in ROW_COLUMNS:
        return tensor.long()
    if not upcast or tensor.dtype != torch.float16:
        return tensor
    if name != "logits" or LARGEST_LOGIT not in entry.header.columns:
        return tensor.float()
    # float64 holds the sum of a float16 and a float32 exactly, so differences, ranks and ties are those in the file
    largest = torch.from_numpy(read(LARGEST_LOGIT))
    return tensor.double().add_(largest[:, None])


def _names(columns: Iterable[str]) -> tuple[str, ...]:
    if isinstance(columns, str):
        raise TypeError(f"columns must be names in a tuple: pass columns=({columns!r},)")
    return tuple(columns)


def _answers(entry: Entry, columns: Sequence[str], verify: bool, upcast: bool) -> Answers:
    for name in columns:
        if name not in entry.header.columns:
            raise KeyError(f"{entry.path} has no column {name!r}; it holds {', '.join(sorted(entry.header.columns))}")
    try:
        return Answers({name: entry_tensor(entry, name, verify=verify, upcast=upcast) for name in columns}, entry)
    except DamagedError:
        now = open_if_whole(entry.path)
        if now is None or now.header == entry.header:
            raise
        return _answers(now, columns, verify, upcast)  # somebody added to it between its header and its columns


# Finding


def _find(key: Key, columns: Sequence[str], root: str | os.PathLike | None) -> Entry:
    found = [open_entry(folder / key.file) for folder in roots(root=root) if is_there(folder / key.file)]
    for entry in found:
        if entry.key != key:
            raise DamagedError(entry.path, f"it holds another key, {entry.key}")
    if not found:
        raise FileNotFoundError(explain_miss(key, root=root))
    return _preferred(found, columns)


def _bearing(
    names: Mapping[str, str], narrower: Mapping[str, str], root: str | os.PathLike | None
) -> dict[Key, list[Entry]]:
    """The entries of these names by their key; if all that there is is damaged, the fault of the first."""
    found: dict[Key, list[Entry]] = {}
    damaged = []
    for path in (path for folder in roots(root=root) for path in named_entry_paths(folder, **names)):
        try:
            entry = open_entry(path)
        except DamagedError as error:
            damaged.append(error)
            continue
        if _fits(entry.key, names, narrower):
            found.setdefault(entry.key, []).append(entry)
    if damaged and not found:
        raise damaged[0]
    return found


def _fits(key: Key, names: Mapping[str, str], narrower: Mapping[str, str]) -> bool:
    return all(getattr(key, name) == value for name, value in names.items()) and all(
        getattr(key, name).startswith(value) for name, value in narrower.items()
    )


def _preferred(found: Sequence[Entry], columns: Sequence[str]) -> Entry:
    """Of entries of one key the first that has all columns, with logits that are neither shifted nor coarse if there are such."""
    lacks = lambda entry: not set(columns) <= set(entry.header.columns)  # noqa: E731
    rough = lambda entry: "logits" in columns and PRECISIONS["float16"] > precision_of("logits", entry.header.columns)  # noqa: E731
    return min(found, key=lambda entry: (lacks(entry), rough(entry)))


def _check_aligned(name: str, one: Answers, other_name: str, other: Answers) -> None:
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


# Words of messages


def _words(names: Mapping[str, str]) -> str:
    return "with " + ", ".join(f"{name} {value}" for name, value in names.items())


def _own(key: Key) -> dict[str, str]:
    return {"weights": key.weights[:12], "preprocessing": f"[{key.preprocessing}]", "data": key.data[:12]}


def _places(root: str | os.PathLike | None) -> str:
    return ", ".join(str(folder) for folder in roots(root=root))


def _inventory(names: Mapping[str, str], root: str | os.PathLike | None) -> str:
    keys = [entry.key for entry in whole_entries(roots(root=root))]
    for field in ("split", "dataset", "network"):
        rest = {name: value for name, value in names.items() if name != field}
        known = sorted({getattr(key, field) for key in keys if all(getattr(key, n) == v for n, v in rest.items())})
        if names[field] in known:  # so what was asked besides the names does not fit
            return (
                "There are entries with these names, but with other weights, preprocessing or data; see "
                "store.list_entries()."
            )
        if known:
            return f"{field} {names[field]} is not there {_words(rest)}; choose from {', '.join(known)}."
    return f"Searched {_places(root)}, which hold {len(keys)} entries."
