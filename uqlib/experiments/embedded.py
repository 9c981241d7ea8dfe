"""The embedded store: what the CIFAR ResNets say on CIFAR-10, clean, corrupted, and on images of other classes.

Beside them, what a network of ImageNet sees in some CIFAR-10 images: features alone, for Gaussians without images. What
the store holds is not run again, and a killed run goes on where it was. Any timm network on any data set:
`uqlib store fill`.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from uqlib.base.options import check_choice
from uqlib.experiments.difficulty_scores import SIDE, ask_scorer
from uqlib.experiments.image_sets import EMBEDDED_SETS, first_rows, severity_column
from uqlib.images.sources import load_images
from uqlib.networks import create, preprocessing
from uqlib.store.fill import fill_entry, key_of, put_answers

NETWORKS = ("cifar_resnet20", "cifar_resnet32", "cifar_resnet44", "cifar_resnet56")
WITH_FEATURES_CORRUPTED = ("cifar_resnet20", "cifar_resnet56")  # the others keep their logits alone there
FOREIGN = (
    "others",
    "noise",
)  # sets of classes that CIFAR-10 does not have; of these all networks keep their logits alone
FEATURES = "features"  # the set of features alone
SCORER = "mobilenetv1_025"  # 256 features
SCORED, JUDGED = 4000, 2000  # training images (as many of each class), test images: the first ones that SCORER sees


def embed_set(kind: str, networks: Sequence[str] = NETWORKS, *, root: str = "data/store") -> None:
    """Store what these networks say on one of EMBEDDED_SETS, or the features alone.

    Args:
        kind: a key of EMBEDDED_SETS, or "features", for which the networks do not matter.
        networks: names for `networks.create`.
        root: folder of the store.

    Raises:
        FileNotFoundError: if images or weights are not here; the message says how to get them.
        ValueError: if the set or a network is unknown, or images have another size.
    """
    if check_choice(kind, (*EMBEDDED_SETS, FEATURES), "set") == FEATURES:
        return embed_features(root)
    created = {name: create(name) for name in networks}
    for images in EMBEDDED_SETS[kind]():
        for name, network in created.items():
            with_features = kind not in FOREIGN and (kind != "corrupted" or name in WITH_FEATURES_CORRUPTED)
            options: dict[str, Any] = {"foreign": kind in FOREIGN, "features": "float16" if with_features else None}
            given: dict[str, Any] = {"index": images.index, "columns": severity_column(images), "root": root}
            fill_entry(key_of(name, network, images), network, images.images, images.labels, **given, **options)


def embed_features(root: str) -> None:
    """What SCORER, trained on ImageNet, sees in some images of CIFAR-10, under names of its own: no logits.

    The network is run on the whole splits, into the cache, where `uqlib difficulty` finds them too.
    """
    model = create(SCORER)
    preparation = preprocessing(model, size=SIDE, crop_pct=1.0)
    for split in ("train", "test"):
        whole = load_images("cifar10", split)
        rows = first_rows(whole, SCORED) if split == "train" else np.arange(JUDGED)
        part = replace(whole.select(rows), split=f"{split}{len(rows)}")  # `train` may stand whole in the user's store
        key = key_of(SCORER, model, part, preprocessing=preparation)
        seen = ask_scorer(SCORER, whole, "features")[rows]
        put_answers(key, None, part.labels, features=seen, index=part.index, root=root)
