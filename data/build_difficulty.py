"""Score how hard CIFAR-10 images are, by several networks and measures: data/difficulty.

    python data/build_difficulty.py                          # some forty minutes on one core, most of it features
    python data/build_difficulty.py --parts noisy classes    # some; features stay in the cache

- images: every training and test image, with its own label. Gaussians are fitted to all 50,000 training images; test
  images are scored under the same Gaussians.
- classes: test images with each of the ten labels, and how far the class means lie apart.
- corrupted: some test images under corruptions of growing severity, under the Gaussians of clean training images.
- augmented: some training images in several random crops and mirrorings, each pass with Gaussians of its own.
- noisy: some training images with the labels that people gave them (CIFAR-10N), under Gaussians that saw those labels
  alone. Needs noisy_KIND.npy beside the images; which labels are wrong is not stored.

Distances are kept in half precision, three digits: what they are for is order, not size.
"""

import argparse
import json
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.model_selection import StratifiedKFold

from uqlib import data, difficulty, heads, models, store, studies, training
from uqlib.data import ImageSet
from uqlib.difficulty import Gaussians, Moments
from uqlib.files import read_column, read_header, write_table
from uqlib.provenance import environment

SIDE = 96  # to which the networks of ImageNet see the images enlarged
SCORERS = {  # name, and what it is: its name in print, and what it learnt from
    "tf_mobilenetv2_100": ("MobileNetV2", "pretrained"),
    "tf_mobilenet_edgetpu_100": ("MobileNet EdgeTPU", "pretrained"),
    "mobilenetv1_075": ("MobileNetV1 0.75", "pretrained"),
    "mobilenetv1_050": ("MobileNetV1 0.50", "pretrained"),
    "mobilenetv1_025": ("MobileNetV1 0.25", "pretrained"),
    "cifar100_micronet": ("MicroNet, CIFAR-100", "pretrained"),
    "cifar_resnet20": ("ResNet-20", "task"),  # on these very images, with these labels
    "cifar_resnet56": ("ResNet-56", "task"),
    "mobilenetv1_050-random": ("untrained MobileNetV1", "control"),
    "pixels": ("pixels", "control"),
}
NATIVE = ("cifar100_micronet", "cifar_resnet20", "cifar_resnet56")  # take 32 pixels; the others see images enlarged
TASK = [name for name, (_, role) in SCORERS.items() if role == "task"]
DEFAULT = "tf_mobilenetv2_100"
FULL = (DEFAULT, "mobilenetv1_050", "cifar_resnet20")  # all measures of training images; the others rmd alone
PAIR = (DEFAULT, "mobilenetv1_050")  # what runs again for corruption and augmentation

SHIFTS = (  # corruptions of every family: noise, blur, weather, digital
    "gaussian_noise",
    "impulse_noise",
    "defocus_blur",
    "motion_blur",
    "fog",
    "snow",
    "contrast",
    "elastic_transform",
    "pixelate",
    "jpeg_compression",
)
FEW = 4000  # training images, the first ones of each class, for what costs more: those of the trainings at `cpu` scale
COMPONENTS = 400  # leading principal directions in which so few images are measured
PASSES = 5  # of augmentation
KINDS = ("worst", "aggregate", "random1")  # of people's labels
FOLDS = 5

Columns = dict[str, Any]


def asked(scorer: str, images: ImageSet, column: str) -> torch.Tensor:
    """Features or logits of a network, from the cache where it has them; `-random` is one that was never trained."""
    architecture, _, random = scorer.partition("-")
    fresh = {"weights": None, "seed": 0} if random else {}
    model = models.create(architecture, **fresh).to(memory_format=torch.channels_last)
    changes = {} if architecture in NATIVE else {"size": SIDE, "crop_pct": 1.0}
    preparation = models.preprocessing(model, **changes)
    options = {"preprocessing": preparation, "columns": (column,), "features": "float32"}
    return store.ask(scorer, model, images, **options)[column]


def features_of(scorer: str, images: ImageSet) -> torch.Tensor:
    """What a network says before its classifier; for "pixels" the image itself, halved to 16 x 16."""
    if scorer != "pixels":
        return asked(scorer, images, "features")
    pixels = torch.from_numpy(np.array(images.images)).permute(0, 3, 1, 2).float() / 255
    return F.avg_pool2d(pixels, 2).flatten(1)


def losses_of(scorer: str, images: ImageSet) -> torch.Tensor:
    """Cross entropy of each image under a network that was trained on these classes, nats."""
    return difficulty.training_loss(asked(scorer, images, "logits"), images.labels)


@cache
def whole(split: str) -> ImageSet:
    return data.load("cifar10", split)


@cache
def few() -> np.ndarray:
    """Rows of the first training images of each class."""
    labels, each = whole("train").labels, FEW // 10
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[:each] for c in range(10)]))


@cache
def clean_gaussians(scorer: str) -> Gaussians:
    """Of all training images with their official labels."""
    train = whole("train")
    return difficulty.fit_gaussians(moments_of(features_of(scorer, train), train.labels))


def moments_of(features: torch.Tensor, labels: Any) -> Moments:
    """In single precision, which halves the time; the distances are kept to three digits."""
    return difficulty.moments(features, labels, classes=10, precision="float32")


def fitted(features: torch.Tensor, labels: Any, scorer: str) -> Gaussians:
    """Of few images, in the leading principal directions."""
    return difficulty.fit_gaussians(moments_of(features, labels), components=min(COMPONENTS, features.shape[1]))


# Parts: each yields a scorer's columns for one file at a time


def images(scorer: str) -> Iterator[tuple[str, Columns]]:
    fit = clean_gaussians(scorer)
    for split in ("train", "test"):
        features, labels = features_of(scorer, whole(split)), whole(split).labels
        columns = {"rmd": difficulty.relative_mahalanobis(fit, features, labels)}
        if scorer in FULL or split == "test":
            columns["md"] = difficulty.mahalanobis(fit, features, labels)
        if scorer in FULL and split == "train":
            columns["kmeans"] = difficulty.kmeans_distance(features, clusters=10, seed=0)
        if scorer in TASK:
            columns["loss"] = losses_of(scorer, whole(split))
        yield split, {f"{measure}/{scorer}": values for measure, values in columns.items()} | {"labels": labels}


def classes(scorer: str) -> Iterator[tuple[str, Columns]]:
    """Squared distances between the class means (10, 10); of the default scorer RMD to every class, (10000, 10)."""
    fit = clean_gaussians(scorer)
    columns: Columns = {f"between/{scorer}": torch.cdist(fit.means, fit.means).square()}
    if scorer == DEFAULT:
        found = difficulty.distances(fit, features_of(scorer, whole("test")))
        columns |= {f"rmd/{scorer}": found.to_classes - found.to_all[:, None], "labels": whole("test").labels}
    yield "classes", columns


def under_corruption(scorer: str) -> Iterator[tuple[str, Columns]]:
    """RMD (corruptions, severities 0 to 5, images), with the labels of the images; severity 0 is clean."""
    if scorer not in PAIR:
        return
    from build_store import SEVERITIES, corrupted  # it imports this file

    fit, table = clean_gaussians(scorer), []
    for shifted, _ in corrupted(SHIFTS):
        found = difficulty.relative_mahalanobis(fit, features_of(scorer, shifted), shifted.labels)
        rows = shifted.index.reshape(len(SEVERITIES), -1)[0]
        table.append(torch.cat([_clean(scorer, rows)[None], found.view(len(SEVERITIES), -1)]))
    given = {"index": rows, "labels": whole("test").labels[rows]}
    yield "corrupted", {f"rmd/{scorer}": torch.stack(table), **given}


def _clean(scorer: str, rows: np.ndarray) -> torch.Tensor:
    features = features_of(scorer, whole("test"))[rows]
    return difficulty.relative_mahalanobis(clean_gaussians(scorer), features, whole("test").labels[rows])


def augmented(scorer: str) -> Iterator[tuple[str, Columns]]:
    """RMD (1 + passes, images), the first row without augmentation: each pass under its own Gaussians, and under those of all."""
    if scorer not in PAIR:
        return
    part = whole("train").select(few())
    plain = torch.from_numpy(np.array(part.images)).permute(0, 3, 1, 2)
    seen = []
    for number in range(1 + PASSES):
        kind = "flip_shift" if number else "none"
        moved = training.AUGMENTATIONS[kind](plain, torch.Generator().manual_seed(number))
        moved = np.ascontiguousarray(moved.permute(0, 2, 3, 1).numpy())
        seen.append(features_of(scorer, part.with_images(moved, name="cifar10_augmented", split=f"pass{number}")))
    together = fitted(torch.cat(seen[1:]), np.tile(part.labels, PASSES), scorer)
    own = [fitted(features, part.labels, scorer) for features in seen]
    columns = {
        "rmd": [difficulty.relative_mahalanobis(fit, x, part.labels) for fit, x in zip(own, seen, strict=True)],
        "rmd_together": [difficulty.relative_mahalanobis(together, x, part.labels) for x in seen],
    }
    tables = {f"{measure}/{scorer}": torch.stack(rows) for measure, rows in columns.items()}
    yield "augmented", tables | {"index": few(), "labels": part.labels}


def noisy(scorer: str) -> Iterator[tuple[str, Columns]]:
    """RMD, MD and the held-out loss of a linear classifier (images,), for each kind of people's labels.

    Of the default scorer also the held-out probabilities of that classifier (images, 10), and RMD with Gaussians of all
    50,000 images.
    """
    if scorer in TASK:
        return
    everything = features_of(scorer, whole("train"))
    features, columns = everything[few()], {}
    for kind in KINDS:
        given = data.noisy_labels(kind)
        labels = given[few()]
        fit = fitted(features, labels, scorer)
        columns[f"{kind}.rmd/{scorer}"] = difficulty.relative_mahalanobis(fit, features, labels)
        columns[f"{kind}.md/{scorer}"] = difficulty.mahalanobis(fit, features, labels)
        probs = held_out(features, labels)
        columns[f"{kind}.loss/{scorer}"] = -probs[np.arange(FEW), labels].log()
        if scorer == DEFAULT:
            columns[f"{kind}.probs/{scorer}"] = probs
            fit = difficulty.fit_gaussians(moments_of(everything, given))
            columns[f"{kind}.rmd_of_all/{scorer}"] = difficulty.relative_mahalanobis(fit, features, labels)
    yield "noisy", columns | {"index": few()}


def held_out(features: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
    """Probabilities (n, 10) of logistic regressions that did not see the image; the penalty is chosen by noisy labels too."""
    quick = {"classes": 10, "iterations": 40}
    l2 = heads.choose_head(features, labels, strengths=(0.1, 0.3, 1.0), held_out=0.25, **quick).l2
    probs = torch.empty(len(labels), 10)
    for learn, judge in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(features, labels):
        head = heads.fit_head(features[learn], labels[learn], l2=l2, **quick)
        probs[judge] = heads.head_logits(head, features[judge]).softmax(-1)
    return probs


PARTS = {
    "images": images,
    "classes": classes,
    "corrupted": under_corruption,
    "augmented": augmented,
    "noisy": noisy,
}


def kept(name: str, values: Any) -> np.ndarray:
    """In the type of the file: labels small, row numbers whole, losses in single and other scores in half precision."""
    array, measure = np.asarray(values), name.split("/")[0]
    if measure == "labels":
        return small(array)
    if measure == "index" or measure.endswith("loss"):  # half of a network's losses on its own images are below 6e-8
        return array.astype(np.int32 if measure == "index" else np.float32)
    return half(array, name)


def half(values: Any, name: str) -> np.ndarray:
    """In half precision, which keeps the order of what it does not make equal; numbers beyond it are refused."""
    array = np.asarray(values)
    with np.errstate(over="ignore"):
        halved = array.astype(np.float16)
    if not np.isfinite(halved).all():
        raise ValueError(
            f"{name} must be finite, and within half precision (65504); it reaches {np.abs(array).max():.6g}"
        )
    return halved


def small(values: Any) -> np.ndarray:
    """Whole numbers from 0 in the smallest type of the files that holds them all."""
    array = np.asarray(values)
    if array.size and not 0 <= array.min() <= array.max() < 2**31:
        raise ValueError(f"whole numbers from 0 are wanted; these reach from {array.min()} to {array.max()}")
    return array.astype(np.uint8 if not array.size or array.max() < 256 else np.int32)


def add(file: str, columns: Columns, scorer: str) -> None:
    """Write the columns of one scorer into a file; those of other scorers stay."""
    place = Path(studies.DIFFICULTY.format(dataset="cifar10", split=file))
    about: Columns = {"scorers": {}}
    if place.exists():
        header = read_header(place)
        about = json.loads(header.metadata["about"])
        columns = {name: read_column(place, header, name) for name in header.columns} | columns
    title, role = SCORERS[scorer]
    about["scorers"] |= {scorer: {"title": title, "role": role}}
    about["scorers"] = {name: about["scorers"][name] for name in SCORERS if name in about["scorers"]}
    about |= {"classes": whole("test").classes, "corruptions": SHIFTS, "kinds": KINDS, "components": COMPONENTS}
    columns = {name: np.array(column) for name, column in columns.items()}
    write_table(place, columns, {"about": json.dumps(about | environment())})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS)
    parser.add_argument("--scorers", nargs="+", default=list(SCORERS), choices=SCORERS)
    args = parser.parse_args()
    for part, scorer in ((part, scorer) for part in args.parts for scorer in args.scorers):
        began = time.monotonic()
        for file, columns in PARTS[part](scorer):
            add(file, {name: kept(name, each) for name, each in columns.items()}, scorer)
        print(part, scorer, f"{time.monotonic() - began:.1f} s", flush=True)


if __name__ == "__main__":
    main()
