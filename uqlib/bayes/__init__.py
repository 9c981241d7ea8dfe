"""Bayesian readings of a network: a Laplace approximation of its last layer."""

from uqlib.bayes.laplace import (
    HESSIANS,
    LINKS,
    LaplaceFit,
    PriorChoice,
    choose_prior_precision,
    decided_share,
    find_last_layer,
    laplace_probs,
    last_layer_laplace,
)

__all__ = [
    "HESSIANS",
    "LINKS",
    "LaplaceFit",
    "PriorChoice",
    "choose_prior_precision",
    "decided_share",
    "find_last_layer",
    "laplace_probs",
    "last_layer_laplace",
]
