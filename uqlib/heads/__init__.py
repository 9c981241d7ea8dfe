"""Classifiers on frozen features, fitted in one pass: naive Bayes, LDA, nearest class mean, nearest neighbours, learning curves.

    from uqlib.heads import feature_sums, log_posteriors, naive_bayes
    head = naive_bayes(feature_sums(features, labels, classes=10))
    logits = log_posteriors(head, others)

Logistic regression is `networks.fit_head`.
"""

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
from uqlib.heads.learning_curves import HEADS, crossing, learning_curve, nested_rows, samples_to
from uqlib.heads.nearest import neighbour_logits

__all__ = [
    "HEADS",
    "FeatureSums",
    "LinearHead",
    "crossing",
    "feature_sums",
    "lda",
    "learning_curve",
    "log_posteriors",
    "merge_sums",
    "naive_bayes",
    "nearest_mean",
    "neighbour_logits",
    "nested_rows",
    "samples_to",
]
