"""Make the embedded store: what the CIFAR ResNets say on CIFAR-10, clean, corrupted, and on images of other classes.

Beside them, what a network of ImageNet sees in some CIFAR-10 images: features alone, for Gaussians without images.

    python data/build_store.py                                             # all of it, some ten minutes on one core
    python data/build_store.py --networks cifar_resnet110 --sets clean     # extend it
    python data/build_store.py --sets features                             # that part alone

Images come from $UQLIB_DATA or the cache, weights from $UQLIB_WEIGHTS or their published place. What the store holds is not
run again, and a killed run goes on where it was. Any timm network on any data set: `uqlib store fill`.
"""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from build_difficulty import SIDE, asked

from uqlib import data, models, store
from uqlib.corruptions import CORRUPTIONS, corrupt
from uqlib.noise import NOISE_SETS, noise_images

NETWORKS = ["cifar_resnet20", "cifar_resnet32", "cifar_resnet44", "cifar_resnet56"]
EACH = 30  # images of each class that are corrupted, the first ones in the official order
OTHERS = 2000  # images of each of two sets whose classes CIFAR-10 does not have
NOISE = 250  # images of each kind of noise
LEARNT = 300  # training images of each class, for what is fitted on training data, such as a Laplace approximation
FEATURES_CORRUPTED = ("cifar_resnet20", "cifar_resnet56")  # the others keep their logits alone there
SCORER = "mobilenetv1_025"  # 256 features
SCORED, JUDGED = 400, 2000  # training images of each class, test images in all: the first ones that SCORER sees
SEVERITIES = (1, 2, 3, 4, 5)
Piece = tuple[data.ImageSet, dict[str, Any]]  # images, and columns of the store besides labels and index


def first(images: data.ImageSet, each: int) -> np.ndarray:
    """Rows of the first images of each class, in the official order."""
    rows = [np.flatnonzero(images.labels == c)[:each] for c in range(len(images.classes))]
    return np.sort(np.concatenate(rows))


def clean() -> Iterator[Piece]:
    """CIFAR-10 test, whole, in the official order."""
    yield data.load("cifar10", "test"), {}


def learnt() -> Iterator[Piece]:
    """Some of the images that the networks were trained on: they know these labels, so nothing is tested on them."""
    whole = data.load("cifar10", "train")
    yield whole.select(first(whole, LEARNT)), {}


def corrupted(names: Iterable[str] = CORRUPTIONS) -> Iterator[Piece]:
    """A fixed subset under these corruptions, the five severities one after the other."""
    whole = data.load("cifar10", "test")
    rows = first(whole, EACH)
    subset = whole.select(np.tile(rows, len(SEVERITIES)))
    severity = np.repeat(np.array(SEVERITIES, np.uint8), len(rows))
    for name in names:
        images = np.concatenate([corrupt(whole.images[rows], name, s, rows=rows) for s in SEVERITIES])
        yield subset.with_images(images, name="cifar10_c", split=name), {"severity": severity}


def others() -> Iterator[Piece]:
    """Images of CIFAR-100 and Tiny-ImageNet whose class CIFAR-10 does not have; labels are those of their own set."""
    for name, split in (("cifar100", "test"), ("tiny_imagenet", "val")):
        rest = data.without_classes(data.load(name, split), data.CIFAR10_OVERLAP[name])
        rest = rest.select(np.arange(OTHERS))
        if rest.images.shape[1:3] != (32, 32):
            raise ValueError(f"{name} must have 32 x 32 pixels here; it has {rest.images.shape[1:3]}. Resize it first.")
        yield rest.with_images(rest.images, name=f"{name}_ood", split=split), {}


def noise() -> Iterator[Piece]:
    """Images of noise; the label says which kind."""
    images = np.concatenate([noise_images(kind, NOISE, 32) for kind in NOISE_SETS])
    labels = np.repeat(np.arange(len(NOISE_SETS)), NOISE)
    digest, index = data.pixels_digest(images), np.tile(np.arange(NOISE), len(NOISE_SETS))
    yield data.ImageSet(images, labels, tuple(NOISE_SETS), "noise", "test", digest, index), {}


def features(root: str) -> None:
    """What SCORER, trained on ImageNet, sees in some images of CIFAR-10, under names of its own: no logits.

    The network is run on the whole splits, into the cache, where `build_difficulty.py` finds them too.
    """
    model = models.create(SCORER)
    prepared = models.preprocessing(model, size=SIDE, crop_pct=1.0)
    for split in ("train", "test"):
        whole = data.load("cifar10", split)
        rows = first(whole, SCORED) if split == "train" else np.arange(JUDGED)
        part = replace(whole.select(rows), split=f"{split}{len(rows)}")  # `train` may stand whole in the user's store
        key = store.key_of(SCORER, model, part, preprocessing=prepared)
        seen = asked(SCORER, whole, "features")[rows]
        store.put(key, None, part.labels, features=seen, index=part.index, root=root)


SETS = {"clean": clean, "learnt": learnt, "corrupted": corrupted, "others": others, "noise": noise}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    kinds = [*SETS, "features"]
    parser.add_argument("--sets", nargs="+", default=kinds, choices=kinds)
    parser.add_argument("--root", default="data/store")
    args = parser.parse_args()
    networks = {name: models.create(name) for name in args.networks}
    if "features" in args.sets:
        features(args.root)
    for kind in [kind for kind in args.sets if kind in SETS]:
        for images, columns in SETS[kind]():
            for name, network in networks.items():
                key = store.key_of(name, network, images)
                with_features = kind != "corrupted" or name in FEATURES_CORRUPTED
                given = {"index": images.index, "columns": columns, "root": args.root}
                given["foreign"] = kind in ("others", "noise")  # classes that CIFAR-10 does not have
                given["features"] = "float16" if with_features else None
                store.fill(key, network, images.images, images.labels, **given)


if __name__ == "__main__":
    main()
