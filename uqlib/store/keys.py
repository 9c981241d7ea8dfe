"""What an entry of the store is: its key, its place below a root, its columns.

Names of files are made and searched here alone.
"""

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from uqlib.files.columns import Header, check_columns, read_header
from uqlib.files.fingerprint import fingerprint
from uqlib.files.whole import DamagedError, check_word, parsed
from uqlib.store.coarse import COARSE_COLUMNS, LEVELS

LARGEST_LOGIT = "logits_max"  # of each row, float32, beside logits in half precision
BESIDE_LOGITS = (LARGEST_LOGIT, *COARSE_COLUMNS)  # columns that have no meaning without those logits
ANSWER_COLUMNS = ("logits", "features")  # what a network answers; all other columns are given
ROW_COLUMNS = ("labels", "index")  # integers of 64 bits wherever they are read, of 32 in the file if they fit
COLUMN_KINDS = {
    "labels": (1, "i"),
    "index": (1, "i"),
    "logits": (2, "f"),
    "features": (2, "f"),
    LARGEST_LOGIT: (1, "f"),
    LEVELS: (2, "f"),
}
PRECISIONS = {"coarse": 2, "float16": 3, "float32": 4}  # that can be asked for, as `precision_of` ranks them


@dataclass(frozen=True)
class Key:
    """What determines the numbers: two equal keys never mean different logits.

    Args:
        dataset: such as "cifar10" or "cifar10_c"; letters, digits, `_`, `-` and `.`.
        split: such as "test", or the name of a corruption.
        network: such as "cifar_resnet20"; networks that differ in options without weights, such as padding, a
            temperature or dropout at test time, need different names: the digest of the weights does not see them.
        weights: `fingerprint.of_network(model)`.
        preprocessing: `str(networks.preprocessing(model))`.
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
        return _file_name(self.network, self.dataset, self.split, self.digest[:8])


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


# Names of files


def _file_name(network: str, dataset: str, split: str, digits: str) -> str:
    return f"{network}/{dataset}.{split}-{digits}.safetensors"


def named_entry_paths(folder: Path, network: str, dataset: str, split: str) -> list[Path]:
    """Files below a root that may bear these names; a dot in a name can match another entry, so ask its key."""
    return sorted(folder.glob(_file_name(network, dataset, split, "*")))


def entry_paths(folder: Path) -> list[Path]:
    """All files of entries below a root."""
    return sorted(folder.glob("*/*.safetensors"))


def bears_its_name(entry: Entry) -> bool:
    """Whether the file stands where its key says."""
    return Path(*entry.path.parts[-2:]) == Path(entry.key.file)


def shards_folder(target: Path) -> Path:
    """Where the finished shards of an entry lie until all are there."""
    return target.with_name(f"{target.name}.parts")


# Opening


def open_entry(path: str | os.PathLike) -> Entry:
    """The entry in a file; no column is read.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedError: if the header is damaged, or it is the header of something else.
    """
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
    check_columns(path, header, others | COLUMN_KINDS)
    return Entry(path, key, header)


def open_if_whole(path: Path) -> Entry | None:
    """The entry in a file, or None if there is none that can be read."""
    with contextlib.suppress(FileNotFoundError, DamagedError):
        return open_entry(path)
    return None


def whole_entries(folders: Iterable[Path]) -> list[Entry]:
    """All entries that can be read; a damaged one is no reason to say nothing of the others."""
    paths = (path for folder in folders for path in entry_paths(folder))
    return [entry for path in paths if (entry := open_if_whole(path)) is not None]


def precision_of(name: str, columns: Mapping[str, Any]) -> int:
    """How precisely a network's numbers are kept: 0 not at all, 1 less the maximum of their row, then as PRECISIONS has it."""
    if name not in columns:
        return 0
    if columns[name].dtype == np.float32:
        return PRECISIONS["float32"]
    if name == "logits" and LARGEST_LOGIT not in columns:
        return 1
    return PRECISIONS["coarse" if name == "logits" and LEVELS in columns else "float16"]
