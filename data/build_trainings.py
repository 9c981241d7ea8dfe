"""Make the trainings of data/trainings.toml and keep what each network said: data/trained.

    python data/build_trainings.py                                          # what is missing, about a minute each on one core
    python data/build_trainings.py --studies cifar10 --variants entropy     # some
    python data/build_trainings.py --worker 0 --workers 2                   # two processes share the work
    python data/build_trainings.py --scale gpu                              # whole sets, larger networks, on a GPU

Images come from $UQLIB_DATA or the cache, weights of scorers from $UQLIB_WEIGHTS or their published place. Features stay in
the cache. A killed process loses the training under way, or, at scale gpu, an epoch of it.
"""

import argparse
import json
import time
from functools import cache
from typing import Any

import numpy as np
import torch
from build_difficulty import features_of, half, losses_of, small
from build_store import corrupted

from uqlib import data, difficulty, losses, metrics, models, studies, training
from uqlib.data import ImageSet
from uqlib.files import cache_folder, write_table
from uqlib.provenance import environment
from uqlib.studies import Study, Variant

OTHERS = 2000  # images of other classes
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


def first(images: ImageSet, count: int, skip: int = 0) -> np.ndarray:
    """Rows of the first images of each class, `count` in all, after `skip` in all."""
    each, before = count // len(images.classes), skip // len(images.classes)
    rows = [np.flatnonzero(images.labels == c)[before : before + each] for c in range(len(images.classes))]
    return np.sort(np.concatenate(rows))


@cache
def sets(name: str) -> dict[str, ImageSet]:
    """What trains, what judges, what tests, and images of other classes."""
    study = studies.study(name)
    train, test = data.load(study.dataset, "train"), data.load(study.dataset, "test")
    whole = study.images >= len(train)
    parts = {"train": train if whole else train.select(first(train, study.images))}
    if study.validation:
        parts["validation"] = train.select(first(train, study.validation, study.images))
    parts["test"] = test if study.tested is None else test.select(np.arange(study.tested))
    others = data.load(study.others, "test")
    if study.dataset == "cifar10":
        others = data.without_classes(others, data.CIFAR10_OVERLAP["cifar100"])
    parts["others"] = others.select(np.arange(OTHERS))
    return parts


@cache
def shifts() -> list[ImageSet]:
    """Some test images under each of SHIFTS, the five severities one after the other."""
    return [images for images, _ in corrupted(SHIFTS)]


def labels_of(study: Study, variant: Variant) -> np.ndarray:
    """Labels that train: the official ones, or those of one kind of people."""
    images = sets(study.name)["train"]
    return images.labels if variant.labels == "clean" else data.noisy_labels(variant.labels)[images.index]


def difficulty_of(study: Study, variant: Variant) -> torch.Tensor:
    """How hard each training image is with the label that trains it; distances in the leading principal directions."""
    scorer, measure = variant.weights["scorer"], variant.weights["measure"]
    images, labels = sets(study.name)["train"], labels_of(study, variant)
    if measure == "loss":
        return losses_of(scorer, images)
    features = features_of(scorer, images)
    if measure == "kmeans":
        return difficulty.kmeans_distance(features, clusters=len(images.classes), seed=0)
    fit = difficulty.moments(features, labels, classes=len(images.classes))
    fit = difficulty.fit_gaussians(fit, components=min(study.components, features.shape[1]))
    measures = {"rmd": difficulty.relative_mahalanobis, "md": difficulty.mahalanobis}
    return measures[measure](fit, features, labels)


def weights_of(study: Study, variant: Variant) -> torch.Tensor:
    options = {name: variant.weights[name] for name in ("normaliser", "temperature")}
    return difficulty.weights(difficulty_of(study, variant), **options)


def loss_of(study: Study, variant: Variant) -> tuple[Any, dict[str, Any]]:
    """The loss of a variant, and what is worth noting about it."""
    options, labels = dict(variant.options), torch.as_tensor(labels_of(study, variant))
    if variant.loss == "ranking":
        return losses.loss("ranking", examples=len(labels), **options), options
    if variant.loss == "difficulty":
        weights = weights_of(study, variant)
        noted = options | {"mean_weight": weights.mean().item()}
        return losses.loss("difficulty", weights=weights.float(), labels=labels, **options), noted
    if options.get("alpha") == "matched":
        mean = weights_of(study, study.variants[studies.MATCHED]).mean().item()
        options = {"alpha": options["of"] * mean}
    return losses.loss(variant.loss, **options), options


def said(logits: torch.Tensor, labels: Any = None) -> dict[str, np.ndarray]:
    """One number an image: confidence, entropy and largest logit, and whether the prediction is right."""
    logits = logits.cpu().double()
    logs = logits.log_softmax(-1)
    preds = logits.argmax(-1).numpy()
    columns = {
        "top": half(-logs.amax(-1), "top"),
        "entropy": half(-(logs.exp() * logs).sum(-1), "entropy"),
        "max_logit": logits.amax(-1).float().numpy(),  # without bounds, so not in half precision
        "preds": small(preds),
    }
    return columns if labels is None else columns | {"correct": preds == np.asarray(labels)}


def measured(logits: torch.Tensor, labels: Any) -> dict[str, float]:
    """The metrics of one trained network, in float64 from its logits."""
    logits, labels = logits.cpu(), torch.as_tensor(np.asarray(labels))
    correct, probs = logits.argmax(-1) == labels, logits.double().softmax(-1)
    confidence = probs.amax(-1)
    return {
        "accuracy": correct.double().mean().item(),
        "confidence": confidence.mean().item(),
        "nll": metrics.nll(logits, labels),
        "brier": metrics.brier(probs, labels),
        "ece": metrics.ece(confidence, correct, bins=15, by="mass"),
        "ece_width": metrics.ece(confidence, correct, bins=15, by="width"),
        "aurc": metrics.aurc(confidence, correct),
    }


def run(study: Study, variant: Variant, seed: int, device: str) -> None:
    """One training, its file written at the end."""
    began, parts = time.monotonic(), sets(study.name)
    options = dict(variant.training)
    name = options.pop("network")
    model = models.create(name, weights=None, classes=len(parts["train"].classes), seed=seed)
    model = model.to(device, memory_format=torch.channels_last)
    preparation = models.preprocessing(model, size=32, crop_pct=1.0)
    loss, noted = loss_of(study, variant)
    checkpoint = (
        None if study.scale == "cpu" else cache_folder() / "checkpoints" / study.file(variant, seed).with_suffix(".pt")
    )
    if variant.loss == "cross_entropy":
        loss = losses.Recorded(loss, examples=len(parts["train"]), epochs=options["epochs"])
    history = training.train(
        model,
        parts["train"].images,
        labels_of(study, variant),
        preprocessing=preparation,
        loss=loss,
        seed=seed,
        checkpoint=checkpoint,
        progress=False,
        **options,
    )
    ask = lambda images: training.predict(model, images, preprocessing=preparation)  # noqa: E731
    test = ask(parts["test"].images)
    kept = ("correct", "top", "preds", "entropy", "max_logit") if variant.detail else ("correct", "top")
    columns = {key: value for key, value in said(test, parts["test"].labels).items() if key in kept}
    about = {"test": measured(test, parts["test"].labels)}
    if "validation" in parts:
        about["validation"] = measured(ask(parts["validation"].images), parts["validation"].labels)
    if variant.detail:
        other = said(ask(parts["others"].images))
        columns |= {f"other_{key}": other[key] for key in ("top", "entropy", "max_logit")}
        if study.dataset == "cifar10":
            shifted = [said(ask(images.images), images.labels) for images in shifts()]
            columns |= {f"corrupted_{key}": np.stack([each[key] for each in shifted]) for key in ("top", "correct")}
    train = ask(parts["train"].images).cpu()
    rows = torch.as_tensor(labels_of(study, variant))
    about["train"] = {"accuracy": metrics.accuracy(train.argmax(-1), rows), "nll": metrics.nll(train, rows)}
    if isinstance(loss, losses.Recorded):
        columns["train_loss"] = half(losses.surprise(train, rows), "train_loss")
        columns["train_loss_epochs"] = half(loss.nll.nanmean(0).cpu(), "train_loss_epochs")
        columns["forgotten"] = small(difficulty.forgetting(loss.correct).cpu().numpy())
    about |= {
        "rests_on": study.settings(variant, seed),
        "settings": {
            "variant": variant.name,
            "loss": variant.loss,
            "options": noted,
            "training": dict(variant.training),
            "weights": dict(variant.weights) if variant.loss == "difficulty" else {},
            "labels": variant.labels,
            "seed": seed,
        },
        "epochs": [[round(e.loss, 5), round(e.images_per_second, 1)] for e in history],
        "seconds": round(time.monotonic() - began, 1),
        "environment": environment(),
    }
    write_table(study.file(variant, seed), columns, {"about": json.dumps(about)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--studies", nargs="+", help="by default all of the scale")
    parser.add_argument("--variants", nargs="+", help="by default all of the study")
    parser.add_argument("--worker", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    todo = [
        (studies.study(name), variant, seed)
        for name in args.studies or studies.names(args.scale)
        for variant in studies.study(name).variants.values()
        if not args.variants or variant.name in args.variants
        for seed in range(variant.seeds)
    ]
    for study, variant, seed in todo[args.worker :: args.workers]:
        path = study.file(variant, seed)
        if path.is_file():
            continue
        began = time.monotonic()
        run(study, variant, seed, args.device)
        print(f"{path.name}: {time.monotonic() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
