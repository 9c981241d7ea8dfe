"""How hard is each training example? Gaussians in the features of a pretrained network, and weights for a loss.

Cui et al. 2023 (arXiv:2304.10127). One Gaussian a class, all with one covariance, and one Gaussian for all examples. The
relative Mahalanobis distance is the squared distance of an example to its own class less that to the mean of all: small
(negative) = easy, large = odd, hard or mislabelled.

    gaussians = fit_gaussians(moments(features, labels, classes=10))
    difficulty = relative_mahalanobis(gaussians, features, labels)
    weight = weights(difficulty)
"""

from uqlib.difficulty.gaussians import COVARIANCES, Gaussians, fit_gaussians, ledoit_wolf
from uqlib.difficulty.learning import forgetting, training_loss
from uqlib.difficulty.measures import (
    Distances,
    agnostic_mahalanobis,
    distances,
    kmeans_distance,
    mahalanobis,
    nearest_mahalanobis,
    nearest_relative_mahalanobis,
    relative_mahalanobis,
)
from uqlib.difficulty.statistics import PRECISIONS, Moments, merge_moments, moments, moments_of
from uqlib.difficulty.weighting import NORMALISERS, effective_share, normalise, weights

__all__ = [
    "COVARIANCES",
    "NORMALISERS",
    "PRECISIONS",
    "Distances",
    "Gaussians",
    "Moments",
    "agnostic_mahalanobis",
    "distances",
    "effective_share",
    "fit_gaussians",
    "forgetting",
    "kmeans_distance",
    "ledoit_wolf",
    "mahalanobis",
    "merge_moments",
    "moments",
    "moments_of",
    "nearest_mahalanobis",
    "nearest_relative_mahalanobis",
    "normalise",
    "relative_mahalanobis",
    "training_loss",
    "weights",
]
