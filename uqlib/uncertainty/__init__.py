"""Pretrained uncertainties: a small head on a frozen network learns which images have the larger loss, and is kept like the network.

head = UncertaintyHead(1280)
train_head(head, features, losses)               # cached features: seconds
uncertainty_of(head, others)                     # of images, classes and sets that it has never seen

model = load_uncertainty("tf_mobilenetv2_100")   # one that this project trained
model.ask(images).uncertainty
"""

from uqlib.uncertainty.baselines import (
    Heteroscedastic,
    Spread,
    bag_classifiers,
    bagged_spread,
    dropout_spread,
    fit_heteroscedastic,
    heteroscedastic_variance,
    inverse_norm,
    nearest_distance,
)
from uqlib.uncertainty.objectives import OBJECTIVES, predict_loss, rank_pairs
from uqlib.uncertainty.pretraining import joint_step, scaled_rate, train_head
from uqlib.uncertainty.uncertainty_heads import UncertaintyHead, load_head, save_head, uncertainty_of
from uqlib.uncertainty.wrapped import Said, WithUncertainty, available_heads, load_uncertainty

__all__ = [
    "OBJECTIVES",
    "Heteroscedastic",
    "Said",
    "Spread",
    "UncertaintyHead",
    "WithUncertainty",
    "available_heads",
    "bag_classifiers",
    "bagged_spread",
    "dropout_spread",
    "fit_heteroscedastic",
    "heteroscedastic_variance",
    "inverse_norm",
    "joint_step",
    "load_head",
    "load_uncertainty",
    "nearest_distance",
    "predict_loss",
    "rank_pairs",
    "save_head",
    "scaled_rate",
    "train_head",
    "uncertainty_of",
]
