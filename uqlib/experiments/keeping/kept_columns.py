"""What is kept of a network or a score: a number an image, in the smallest type that holds it, or refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uqlib import losses, metrics
from uqlib.base.provenance import note_input
from uqlib.calibrate import confidences
from uqlib.files.columns import Header, read_header
from uqlib.files.whole import in_checkout, sha256_of_file


def open_kept(place: str, made_by: str) -> tuple[Path, Header]:
    """A file of data/ and its header; what reads it rests on its bytes.

    Args:
        place: in the checkout.
        made_by: the command that makes it.

    Raises:
        FileNotFoundError: if it is not there; the message says what makes it.
        DamagedError: if its header is not what was written.
    """
    if (path := in_checkout(place)) is None:
        raise FileNotFoundError(f"no {place}; `{made_by}` makes it")
    note_input(place, sha256_of_file(path))
    return path, read_header(path)


def to_half(values: Any, name: str) -> np.ndarray:
    """In half precision, which keeps the order of what it does not make equal.

    Raises:
        ValueError: if a number is not finite, or beyond half precision.
    """
    array = np.asarray(values)
    with np.errstate(over="ignore"):
        halved = array.astype(np.float16)
    if not np.isfinite(halved).all():
        raise ValueError(
            f"{name} must be finite, and within half precision (65504); it reaches {np.abs(array).max():.6g}"
        )
    return halved


def to_small(values: Any) -> np.ndarray:
    """Whole numbers from 0 in the smallest type of the files that holds them all.

    Raises:
        ValueError: if a number is below 0 or takes more than 31 bits.
    """
    array = np.asarray(values)
    if array.size and not 0 <= array.min() <= array.max() < 2**31:
        raise ValueError(f"whole numbers from 0 are wanted; these reach from {array.min()} to {array.max()}")
    return array.astype(np.uint8 if not array.size or array.max() < 256 else np.int32)


def pack_score(name: str, values: Any) -> np.ndarray:
    """A column `measure/scorer`: labels small, row numbers whole, losses in single and other scores in half precision."""
    array, measure = np.asarray(values), name.split("/")[0]
    if measure == "labels":
        return to_small(array)
    if measure == "index" or measure.endswith("loss"):  # half of a network's losses on its own images are below 6e-8
        return array.astype(np.int32 if measure == "index" else np.float32)
    return to_half(array, name)


AWAY = "~"  # ends the name of the column that holds how far draws lie from their value


def pack_draws(columns: Mapping[str, np.ndarray], draws: int) -> dict[str, np.ndarray]:
    """Columns whose last axis is a value and its draws as two: the value in single precision, the way to its draws in half.

    A draw lies near its value, and half precision keeps the way there to one part in two thousand, in half of the bytes.
    """
    packed: dict[str, np.ndarray] = {}
    for name, array in columns.items():
        if array.dtype.kind != "f" or array.ndim < 2 or array.shape[-1] != 1 + draws:
            packed[name] = array
            continue
        packed[name] = np.ascontiguousarray(array[..., 0], np.float32)
        packed[name + AWAY] = to_half(array[..., 1:] - packed[name][..., None], name)
    return packed


def unpack_draws(value: np.ndarray, away: np.ndarray) -> np.ndarray:
    """The value and its draws along a last axis, float64."""
    first = value.astype(np.float64)[..., None]
    return np.concatenate([first, first + away.astype(np.float64)], axis=-1)


def answer_columns(logits: torch.Tensor, labels: Any = None) -> dict[str, np.ndarray]:
    """One number an image: minus the log of the largest probability, entropy, largest logit, and the prediction.

    Args:
        logits: (n, c).
        labels: (n,); with them also whether the prediction is right.
    """
    logits = logits.cpu().double()
    preds = logits.argmax(-1)
    columns = {
        "top": to_half(losses.surprise(logits, preds), "top"),
        "entropy": to_half(-confidences.neg_entropy(logits), "entropy"),
        "max_logit": logits.amax(-1).float().numpy(),  # without bounds, so not in half precision
        "preds": to_small(preds),
    }
    return columns if labels is None else columns | {"correct": preds.numpy() == np.asarray(labels)}


def measure_answers(logits: torch.Tensor, labels: Any) -> dict[str, float]:
    """The metrics of one trained network, in float64 from its logits (n, c) and the labels (n,)."""
    logits, labels = logits.cpu(), torch.as_tensor(np.asarray(labels))
    correct, confidence = logits.argmax(-1) == labels, confidences.max_probability(logits)
    return {
        "accuracy": correct.double().mean().item(),
        "confidence": confidence.mean().item(),
        "nll": metrics.nll(logits, labels),
        "brier": metrics.brier(logits.double().softmax(-1), labels),
        "ece": metrics.ece(confidence, correct, bins=15, by="mass"),
        "ece_width": metrics.ece(confidence, correct, bins=15, by="width"),
        "aurc": metrics.aurc(confidence, correct),
    }
