"""Networks: timm's and ours, created, given images, asked and costed.

    from uqlib import networks
    model = networks.create("resnet18")                              # with published weights, checked
    batch = networks.preprocess(images, networks.preprocessing(model))
    features, logits = networks.features_and_logits(model, batch)

Importing this package registers the networks of `uqlib.networks.zoo` with timm.
"""

from uqlib.networks.costs import count_parameters, macs
from uqlib.networks.creation import create
from uqlib.networks.inputs import Preprocessing, grey_pixels, preprocess, preprocessing
from uqlib.networks.linear_heads import Head, choose_head, fit_head, head_logits, install
from uqlib.networks.outputs import Outputs, features_and_logits
from uqlib.networks.timing import largest_batch, take_turns

__all__ = [
    "Head",
    "Outputs",
    "Preprocessing",
    "choose_head",
    "count_parameters",
    "create",
    "features_and_logits",
    "fit_head",
    "grey_pixels",
    "head_logits",
    "install",
    "largest_batch",
    "macs",
    "preprocess",
    "preprocessing",
    "take_turns",
]
