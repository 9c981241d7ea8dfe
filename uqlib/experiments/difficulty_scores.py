"""How hard CIFAR-10 images are, by several networks and measures: data/difficulty, a file a part.

- images: every training and test image, with its own label. Gaussians are fitted to all 50,000 training images; test
  images are scored under the same Gaussians.
- classes: test images with each of the ten labels, and how far the class means lie apart.
- corrupted: some test images under corruptions of growing severity, under the Gaussians of clean training images.
- augmented: some training images in several random crops and mirrorings, each pass with Gaussians of its own.
- noisy: some training images with the labels that people gave them (CIFAR-10N), under Gaussians that saw those labels
  alone. Needs noisy_KIND.npy beside the images; which labels are wrong is not stored.

Distances are kept in half precision, three digits: what they are for is order, not size.
"""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from uqlib import difficulty, networks, training
from uqlib.base.arrays import as_tensor
from uqlib.base.extras import named
from uqlib.base.options import check_choice
from uqlib.base.provenance import environment
from uqlib.difficulty.gaussians import Gaussians
from uqlib.difficulty.statistics import Moments
from uqlib.experiments import studies
from uqlib.experiments.image_sets import SEVERITIES, SHIFTS, first_rows, load_shifts
from uqlib.experiments.keeping.kept_columns import pack_score
from uqlib.files.columns import read_column, read_header, write_table
from uqlib.files.exclusive import hold_alone
from uqlib.images.labels import noisy_labels
from uqlib.images.sets import ImageSet, join_sets
from uqlib.images.sources import load_images
from uqlib.networks import linear_heads
from uqlib.store.fill import ask_network

with named():
    from sklearn.model_selection import StratifiedKFold
    from sklearn.neural_network import MLPClassifier

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
FEW = 4000  # training images, the first ones of each class, for what costs more: those of the trainings at `cpu` scale
COMPONENTS = 400  # leading principal directions in which so few images are measured
PASSES = 5  # of augmentation
KINDS = ("worst", "aggregate", "random1")  # of people's labels
FOLDS = 5

Columns = dict[str, Any]


# What a network says of images, computed once and kept in the cache


def ask_scorer(scorer: str, images: ImageSet, column: str) -> torch.Tensor:
    """Features or logits of a network, from the cache where it has them; `-random` is one that was never trained.

    Raises:
        FileNotFoundError: if its weights are not here; the message says how to get them.
    """
    architecture, _, random = scorer.partition("-")
    fresh: dict[str, Any] = {"weights": None, "seed": 0} if random else {}
    model = networks.create(architecture, **fresh).to(memory_format=torch.channels_last)
    changes = {} if architecture in NATIVE else {"size": SIDE, "crop_pct": 1.0}
    preparation = networks.preprocessing(model, **changes)
    options: dict[str, Any] = {"preprocessing": preparation, "columns": (column,), "features": "float32"}
    return ask_network(scorer, model, images, **options)[column]


def scorer_features(scorer: str, images: ImageSet) -> torch.Tensor:
    """What a network says before its classifier (n, d); for "pixels" the image itself, halved to 16 x 16."""
    if scorer != "pixels":
        return ask_scorer(scorer, images, "features")
    pixels = torch.from_numpy(np.array(images.images)).permute(0, 3, 1, 2).float() / 255
    return F.avg_pool2d(pixels, 2).flatten(1)


def scorer_losses(scorer: str, images: ImageSet) -> torch.Tensor:
    """Cross entropy (n,) of each image under a network that was trained on these classes, nats."""
    return as_tensor(difficulty.training_loss(ask_scorer(scorer, images, "logits"), images.labels))


# Parts


@cache
def load_whole(split: str) -> ImageSet:
    """A split of CIFAR-10."""
    return load_images("cifar10", split)


@cache
def few_rows() -> np.ndarray:
    """Rows of the first training images of each class."""
    return first_rows(load_whole("train"), FEW)


@cache
def fit_clean(scorer: str) -> Gaussians:
    """Gaussians of all training images with their official labels."""
    train = load_whole("train")
    return difficulty.fit_gaussians(collect_moments(scorer_features(scorer, train), train.labels))


def collect_moments(features: torch.Tensor, labels: Any) -> Moments:
    """In single precision, which halves the time; the distances are kept to three digits."""
    return difficulty.moments(features, labels, classes=10, precision="float32")


def fit_leading(features: torch.Tensor, labels: Any) -> Gaussians:
    """Gaussians of few images, in the leading principal directions."""
    return difficulty.fit_gaussians(collect_moments(features, labels), components=min(COMPONENTS, features.shape[1]))


# Parts: each yields a scorer's columns for one file at a time


def score_images(scorer: str) -> Iterator[tuple[str, Columns]]:
    """All measures that the scorer has, of training and test images."""
    fit = fit_clean(scorer)
    for split in ("train", "test"):
        images = load_whole(split)
        features, labels = scorer_features(scorer, images), images.labels
        columns = {"rmd": difficulty.relative_mahalanobis(fit, features, labels)}
        if scorer in FULL or split == "test":
            columns["md"] = difficulty.mahalanobis(fit, features, labels)
        if scorer in FULL and split == "train":
            columns["kmeans"] = difficulty.kmeans_distance(features, clusters=10, seed=0)
        if scorer in TASK:
            columns["loss"] = scorer_losses(scorer, images)
        yield split, {f"{measure}/{scorer}": values for measure, values in columns.items()} | {"labels": labels}


def score_classes(scorer: str) -> Iterator[tuple[str, Columns]]:
    """Squared distances between the class means (10, 10); of the default scorer RMD to every class, (10000, 10)."""
    fit, test = fit_clean(scorer), load_whole("test")
    means = as_tensor(fit.means)
    columns: Columns = {f"between/{scorer}": torch.cdist(means, means).square()}
    if scorer == DEFAULT:
        found = difficulty.distances(fit, scorer_features(scorer, test))
        columns |= {f"rmd/{scorer}": found.to_classes - found.to_all[:, None], "labels": test.labels}
    yield "classes", columns


def score_corrupted(scorer: str) -> Iterator[tuple[str, Columns]]:
    """RMD (corruptions, severities 0 to 5, images), with the labels of the images; severity 0 is clean."""
    fit, test, table = fit_clean(scorer), load_whole("test"), []
    for shifted in load_shifts():
        found = as_tensor(difficulty.relative_mahalanobis(fit, scorer_features(scorer, shifted), shifted.labels))
        rows = shifted.index.reshape(len(SEVERITIES), -1)[0]
        clean = difficulty.relative_mahalanobis(fit, scorer_features(scorer, test)[rows], test.labels[rows])
        table.append(torch.cat([as_tensor(clean)[None], found.view(len(SEVERITIES), -1)]))
    yield "corrupted", {f"rmd/{scorer}": torch.stack(table), "index": rows, "labels": test.labels[rows]}


def score_augmented(scorer: str) -> Iterator[tuple[str, Columns]]:
    """RMD (1 + passes, images), the first row without augmentation: each pass under its own Gaussians, and under those of all."""
    part = load_whole("train").select(few_rows())
    seen = [scorer_features(scorer, augment_images(part, number)) for number in range(1 + PASSES)]
    together = fit_leading(torch.cat(seen[1:]), np.tile(part.labels, PASSES))
    own = [fit_leading(features, part.labels) for features in seen]
    columns = {
        "rmd": [difficulty.relative_mahalanobis(fit, x, part.labels) for fit, x in zip(own, seen, strict=True)],
        "rmd_together": [difficulty.relative_mahalanobis(together, x, part.labels) for x in seen],
    }
    tables = {f"{measure}/{scorer}": torch.stack([as_tensor(row) for row in rows]) for measure, rows in columns.items()}
    yield "augmented", tables | {"index": few_rows(), "labels": part.labels}


def augment_images(part: ImageSet, number: int) -> ImageSet:
    """The images as a training sees them in pass `number`; pass 0 leaves them as they are."""
    plain = torch.from_numpy(np.array(part.images)).permute(0, 3, 1, 2)
    augment = training.AUGMENTATIONS["flip_shift" if number else "none"]
    moved = augment(plain, torch.Generator().manual_seed(number)).permute(0, 2, 3, 1).numpy()
    return part.with_images(np.ascontiguousarray(moved), name="cifar10_augmented", split=f"pass{number}")


def score_noisy(scorer: str) -> Iterator[tuple[str, Columns]]:
    """RMD, MD and the held-out loss of a linear classifier (images,), for each kind of people's labels.

    Of the default scorer also the held-out probabilities of that classifier (images, 10), and RMD with Gaussians of all
    50,000 images.
    """
    everything = scorer_features(scorer, load_whole("train"))
    features, columns = everything[few_rows()], {}
    for kind in KINDS:
        given = noisy_labels(kind)
        labels = given[few_rows()]
        fit = fit_leading(features, labels)
        columns[f"{kind}.rmd/{scorer}"] = difficulty.relative_mahalanobis(fit, features, labels)
        columns[f"{kind}.md/{scorer}"] = difficulty.mahalanobis(fit, features, labels)
        probs = predict_held_out(features, labels)
        columns[f"{kind}.loss/{scorer}"] = -probs[np.arange(FEW), labels].log()
        if scorer == DEFAULT:
            columns[f"{kind}.probs/{scorer}"] = probs
            fit = difficulty.fit_gaussians(collect_moments(everything, given))
            columns[f"{kind}.rmd_of_all/{scorer}"] = difficulty.relative_mahalanobis(fit, features, labels)
    yield "noisy", columns | {"index": few_rows()}


def predict_held_out(features: torch.Tensor, labels: np.ndarray) -> torch.Tensor:
    """Probabilities (n, 10) of logistic regressions that did not see the image; the penalty is chosen by noisy labels too."""
    quick = {"classes": 10, "iterations": 40}
    l2 = linear_heads.choose_head(features, labels, strengths=(0.1, 0.3, 1.0), held_out=0.25, **quick).l2
    probs = torch.empty(len(labels), 10)
    for learn, judge in StratifiedKFold(FOLDS, shuffle=True, random_state=0).split(features, labels):
        head = linear_heads.fit_head(features[learn], labels[learn], l2=l2, **quick)
        probs[judge] = as_tensor(linear_heads.head_logits(head, features[judge])).softmax(-1)
    return probs


LABEL_MEASURES = {  # names in print
    "rmd": "RMD",
    "md": "MD",
    "cleanlab": "held-out loss",
    "rmd_of_all": "RMD of all images",
    "held_out_margin": "held-out margin",
    "loss": "loss of a network",
    "its_mean_over_epochs": "its mean over epochs",
}


class LabelCase(NamedTuple):
    """Images with labels of which some are wrong, and by measure how much each label is suspected, higher = more."""

    wrong: Bool[Tensor, " n"]
    scores: dict[str, Float[Tensor, "*s n"]]  # of several networks a row each


def noisy_cases() -> dict[tuple[str, str], LabelCase]:
    """By kind of people's labels and scorer what `score_noisy` kept; of the default scorer on the worst also the loss of networks.

    Raises:
        FileNotFoundError: if the labels of CIFAR-10N are not beside the images.
    """
    noisy = studies.load_difficulty("cifar10", "noisy")
    rows, known = (
        noisy.columns["index"],
        {"rmd": "rmd", "md": "md", "cleanlab": "loss", "rmd_of_all": "rmd_of_all"},
    )
    official, cases = studies.load_difficulty("cifar10", "train").labels[rows], {}
    for kind in noisy.about["kinds"]:
        given = torch.from_numpy(noisy_labels(kind))[rows]
        for scorer in noisy.scorers(f"{kind}.rmd"):
            scores = {m: noisy[name] for m, part in known.items() if (name := f"{kind}.{part}/{scorer}") in noisy}
            probs = noisy.columns.get(f"{kind}.probs/{scorer}")
            if probs is not None:
                own, rest = probs.gather(1, given[:, None]), probs.scatter(1, given[:, None], -1.0)
                scores["held_out_margin"] = rest.amax(1) - own[:, 0]
            cases[kind, scorer] = LabelCase(given != official, scores)
    runs = studies.load_trainings("cifar10", ["cross_entropy_noisy"])["cross_entropy_noisy"]
    cases["worst", DEFAULT].scores.update(
        {
            name: torch.stack([each[column] for each in runs])
            for name, column in (("loss", "train_loss"), ("its_mean_over_epochs", "train_loss_epochs"))
        }
    )
    return cases


def digits_case(share: float, *, seed: int, epochs: int = 60) -> LabelCase:
    """The same for scikit-learn's digits, by their pixels, with a share of the labels drawn anew."""
    both = join_sets([load_images("digits", split) for split in ("train", "test")], split="whole")
    official, features = (
        torch.from_numpy(both.labels),
        torch.from_numpy(both.images[..., 0].reshape(len(both), -1)).double(),
    )
    drawn = torch.Generator().manual_seed(seed)
    wrong = torch.rand(len(both), generator=drawn) < share
    given = torch.where(wrong, (official + torch.randint(1, 10, (len(both),), generator=drawn)) % 10, official)
    fit, probs = (
        difficulty.fit_gaussians(difficulty.moments(features, given, classes=10), ridge=0.01),
        torch.empty(len(both), 10),
    )
    for learn, judge in StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(features, given):
        head = linear_heads.fit_head(features[learn], given[learn], l2=0.1, classes=10)
        probs[judge] = as_tensor(linear_heads.head_logits(head, features[judge])).softmax(-1)
    network = MLPClassifier(64, random_state=seed)
    for _ in range(epochs):
        network.partial_fit(features / 255, given, classes=range(10))
    own = torch.from_numpy(network.predict_proba(features / 255)).gather(1, given[:, None])[:, 0]
    scores = {
        "rmd": as_tensor(difficulty.relative_mahalanobis(fit, features, given)),
        "md": as_tensor(difficulty.mahalanobis(fit, features, given)),
        "cleanlab": -probs.gather(1, given[:, None])[:, 0].log(),
        "loss": -own.clamp(min=1e-12).log(),
    }
    return LabelCase(wrong, scores)


def label_cases(labels: str, *, share: float, seed: int) -> tuple[dict[tuple[str, str], LabelCase], dict[str, Any]]:
    """The cases by kind of label and scorer, of "cifar10" or "digits", and what is known of each scorer: title and role."""
    if check_choice(labels, ("cifar10", "digits"), "labels") == "cifar10":
        return noisy_cases(), studies.load_difficulty("cifar10", "noisy").about["scorers"]
    return {("drawn", "pixels"): digits_case(share, seed=seed)}, {"pixels": {"title": "pixels", "role": "control"}}


PARTS: dict[str, Callable[[str], Iterator[tuple[str, Columns]]]] = {
    "images": score_images,
    "classes": score_classes,
    "corrupted": score_corrupted,
    "augmented": score_augmented,
    "noisy": score_noisy,
}
PART_FILES = {
    "images": ("train", "test")
}  # splits of data/difficulty that a part writes; by default the one of its name


def part_scorers(part: str) -> list[str]:
    """The scorers that a part has."""
    known = {"corrupted": PAIR, "augmented": PAIR, "noisy": [name for name in SCORERS if name not in TASK]}
    return list(known.get(check_choice(part, PARTS, "part"), SCORERS))


def lacks_scores(part: str, scorer: str) -> bool:
    """Whether a file of the part has no column of the scorer yet."""
    return not all(_has_scorer(_place(split), scorer) for split in PART_FILES.get(part, (part,)))


def _place(split: str) -> Path:
    return Path(studies.DIFFICULTY.format(dataset="cifar10", split=split))


def _has_scorer(place: Path, scorer: str) -> bool:
    return place.is_file() and any(name.endswith(f"/{scorer}") for name in read_header(place).columns)


def make_scores(part: str, scorer: str) -> None:
    """Score the images of a part by one scorer, and add the columns to its files.

    Raises:
        ValueError: if the part or the scorer is unknown, or a score is beyond half precision.
        FileNotFoundError: if images, labels or weights are not here; the message says how to get them.
    """
    check_choice(scorer, part_scorers(part), f"scorer of {part}")
    for split, columns in PARTS[part](scorer):
        add_columns(split, {name: pack_score(name, each) for name, each in columns.items()}, scorer)


def add_columns(split: str, columns: Columns, scorer: str) -> None:
    """Write the columns of one scorer into a file; those of other scorers stay."""
    place = _place(split)
    with hold_alone(str(place.absolute())):
        about: Columns = {"scorers": {}}
        if place.exists():
            header = read_header(place)
            about = json.loads(header.metadata["about"])
            columns = {name: read_column(place, header, name) for name in header.columns} | columns
        title, role = SCORERS[scorer]
        about["scorers"] |= {scorer: {"title": title, "role": role}}
        about["scorers"] = {name: about["scorers"][name] for name in SCORERS if name in about["scorers"]}
        about |= {"classes": load_whole("test").classes, "corruptions": SHIFTS}
        about |= {"kinds": KINDS, "components": COMPONENTS}
        columns = {name: np.array(column) for name, column in columns.items()}
        write_table(place, columns, {"about": json.dumps(about | environment())})
