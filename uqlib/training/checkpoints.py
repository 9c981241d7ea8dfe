"""Checkpoints: all parts of a run in one file, written whole, read by the run that it belongs to or not at all.

A checkpoint bears the fingerprints of all that the run rests on and the sha256 of its own bytes.
"""

import json
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import torch
from torch import Tensor

from uqlib.files.whole import DamagedError, check_seal, parsed, replacing, seal

OWN = ("optimizer", "scaler", "settings", "history")  # names in the file that no part may have
PLAIN = (bool, int, float, str, type(None))  # and tensors: what torch reads without running anything


class Checkpoint:
    """The states of all parts and the history, read at the start if the file is there, written after each epoch.

    Args:
        path: of the file; None keeps nothing.
        settings: what the run rests on, by name: short values as they are, others as fingerprints.
        parts: by name, each with state_dict and load_state_dict.
        entry: makes an entry of the history from its row.
        device: where states are read to.

    Raises:
        ValueError: if the file is that of another run; the message says what differs.
        DamagedError: if it does not have the bytes that were written.
    """

    def __init__(
        self,
        path: Path | None,
        settings: Mapping[str, Any],
        parts: Mapping[str, Any],
        entry: Callable[..., Any],
        device: torch.device,
    ):
        self.path, self.settings, self.parts = path, dict(settings), dict(parts)
        self.history: list[Any] = []
        if path is not None and path.is_file():
            self._read(path, entry, device)

    def _read(self, path: Path, entry: Callable[..., Any], device: torch.device) -> None:
        saved = _read_checkpoint(path, device)
        if differ := _differences(saved["settings"], self.settings):
            raise ValueError(
                f"{path} is the checkpoint of a training with other settings: {', '.join(differ)}; remove it, or "
                "name another"
            )
        try:
            for name, part in self.parts.items():
                part.load_state_dict(saved[name])
            self.history = [entry(*row) for row in saved["history"]]
        except Exception as error:  # what is missing or of another shape raises nearly anything in torch
            raise DamagedError(path, f"it does not hold what a checkpoint holds ({str(error)[:200]})") from None

    def write(self) -> None:
        """Write the file whole; an interrupted write leaves the one before."""
        if self.path is None:
            return
        saved = {name: _state_of(name, part) for name, part in self.parts.items()}
        saved |= {"settings": json.dumps(self.settings), "history": json.dumps({"epochs": self.history})}
        with replacing(self.path) as stream:
            _save(saved, stream)
            seal(stream)


def _state_of(name: str, part: Any) -> Any:
    """The state of a part, which a checkpoint can hold.

    Raises:
        TypeError: if something in it could not be read again, such as a NumPy array.
    """
    state = part.state_dict()
    if (stranger := _stranger(state)) is not None:
        raise TypeError(
            f"the state of part {name!r} holds {stranger!r} ({type(stranger).__name__}), which no checkpoint takes; "
            "give tensors, numbers, texts, None, and lists, tuples and dicts of them"
        )
    return state


def _stranger(state: Any) -> Any:
    """The first thing in a state that would not be read again; None if there is none."""
    if isinstance(state, Tensor) or type(state) in PLAIN:
        return None
    if type(state) in (dict, OrderedDict):
        state = [*state, *state.values()]
    elif type(state) not in (list, tuple):
        return state
    return next((found for each in state if (found := _stranger(each)) is not None), None)


def _save(saved: dict[str, Any], stream: BinaryIO) -> None:
    """torch.save, with the error of the stream where torch has one of its own."""
    faults = []

    class Noted:
        def write(self, data: Any) -> int:
            try:
                return stream.write(data)
            except OSError as error:
                faults.append(error)
                raise

        def flush(self) -> None:
            stream.flush()

    try:
        torch.save(saved, cast(IO[bytes], Noted()))  # which is written and flushed, and nothing else
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
