"""Classifiers on frozen features, fitted in one pass: naive Bayes, LDA, nearest class mean, nearest neighbours; learning curves;
a bottleneck of keys and values, linear probes, and streams in which classes come one after the other.

    from uqlib.heads import feature_sums, log_posteriors, naive_bayes
    head = naive_bayes(feature_sums(features, labels, classes=10))
    logits = log_posteriors(head, others)

Logistic regression to its end is `networks.fit_head`.
"""

from uqlib.heads.class_stream import Streamed, run_stream, stream_forgetting, stream_plasticity
from uqlib.heads.generative import (
    FeatureSums,
    LinearHead,
    feature_sums,
    lda,
    log_posteriors,
    merge_sums,
    naive_bayes,
    nearest_mean,
)
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
from uqlib.heads.learning_curves import HEADS, crossing, learning_curve, nested_rows, samples_to
from uqlib.heads.nearest import neighbour_logits
from uqlib.heads.probes import fit_probe

__all__ = [
    "HEADS",
    "FeatureSums",
    "KeyBook",
    "LinearHead",
    "Streamed",
    "count_values",
    "crossing",
    "feature_sums",
    "fetch_counts",
    "fit_keys",
    "fit_probe",
    "fit_values",
    "key_codes",
    "key_distance",
    "key_interference",
    "lda",
    "learning_curve",
    "log_posteriors",
    "merge_sums",
    "naive_bayes",
    "nearest_mean",
    "neighbour_logits",
    "nested_rows",
    "run_stream",
    "samples_to",
    "stream_forgetting",
    "stream_plasticity",
    "value_logits",
]
