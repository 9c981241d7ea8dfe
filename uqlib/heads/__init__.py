"""Heads on frozen features."""

from uqlib.heads.class_stream import Streamed, run_stream, stream_forgetting, stream_plasticity
from uqlib.heads.key_values import (
    KeyBook,
    count_values,
    fetch_counts,
    fit_keys,
    fit_values,
    key_codes,
    key_distance,
    key_interference,
    value_logits,
)

__all__ = [
    "KeyBook",
    "Streamed",
    "count_values",
    "fetch_counts",
    "fit_keys",
    "fit_values",
    "key_codes",
    "key_distance",
    "key_interference",
    "run_stream",
    "stream_forgetting",
    "stream_plasticity",
    "value_logits",
]
