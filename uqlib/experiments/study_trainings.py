"""One training of a study: from the images to the file of what the trained network answers."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uqlib import difficulty, losses, metrics, networks, training
from uqlib.base.arrays import as_tensor
from uqlib.base.provenance import environment
from uqlib.experiments import studies
from uqlib.experiments.difficulty_scores import scorer_features, scorer_losses
from uqlib.experiments.image_sets import load_shifts, load_study_sets
from uqlib.experiments.keeping.kept_columns import answer_columns, measure_answers, to_half, to_small
from uqlib.experiments.studies import Study, Variant
from uqlib.files.columns import write_table
from uqlib.files.whole import cache_folder
from uqlib.images.labels import noisy_labels
from uqlib.networks import Preprocessing
from uqlib.training import Epoch

Ask = Callable[[Any], torch.Tensor]  # images -> logits


def training_labels(study: Study, variant: Variant) -> np.ndarray:
    """Labels (n,) that train: the official ones, or those of one kind of people."""
    images = load_study_sets(study.name)["train"]
    return images.labels if variant.labels == "clean" else noisy_labels(variant.labels)[images.index]


def training_difficulty(study: Study, variant: Variant) -> torch.Tensor:
    """How hard each training image (n,) is with the label that trains it; distances in the leading principal directions."""
    scorer, measure = variant.weights["scorer"], variant.weights["measure"]
    images, labels = load_study_sets(study.name)["train"], training_labels(study, variant)
    if measure == "loss":
        return scorer_losses(scorer, images)
    features = scorer_features(scorer, images)
    if measure == "kmeans":
        return as_tensor(difficulty.kmeans_distance(features, clusters=len(images.classes), seed=0))
    sums = difficulty.moments(features, labels, classes=len(images.classes))
    fit = difficulty.fit_gaussians(sums, components=min(study.components, features.shape[1]))
    measures = {"rmd": difficulty.relative_mahalanobis, "md": difficulty.mahalanobis}
    return as_tensor(measures[measure](fit, features, labels))


def training_weights(study: Study, variant: Variant, seed: int = 0) -> torch.Tensor:
    """The weight (n,) of each training image in the difficulty loss; where they are `permuted`, another image's, by seed."""
    options = {
        name: variant.weights[name] for name in ("normaliser", "temperature", "quantile") if name in variant.weights
    }
    weights = as_tensor(difficulty.weights(training_difficulty(study, variant), **options))
    if variant.weights.get("permuted"):
        weights = weights[torch.from_numpy(np.random.default_rng(seed).permutation(len(weights)))]
    return weights


def variant_loss(study: Study, variant: Variant, seed: int = 0) -> tuple[Any, dict[str, Any]]:
    """The loss of a variant, and what is worth noting about it."""
    options, labels = dict(variant.options), torch.as_tensor(training_labels(study, variant))
    if variant.loss == "ranking":
        return losses.loss("ranking", examples=len(labels), **options), options
    if variant.loss == "difficulty":
        weights = training_weights(study, variant, seed)
        if options.get("alpha") == "scaled":  # so that the bonus is worth `to` for the mean image
            options = {"alpha": options["to"] / weights.mean().item()}
        noted = options | {"mean_weight": weights.mean().item(), "effective_share": difficulty.effective_share(weights)}
        return losses.loss("difficulty", weights=weights.float(), labels=labels, **options), noted
    if options.get("alpha") == "matched":
        mean = training_weights(study, study.variants[studies.MATCHED]).mean().item()
        options = {"alpha": options["of"] * mean}
    return losses.loss(variant.loss, **options), options


def study_checkpoint(study: Study, variant: Variant, seed: int) -> Path:
    """Where a training goes on from when it was killed, in the cache."""
    return cache_folder() / "checkpoints" / study.file(variant, seed).with_suffix(".pt")


def create_network(study: Study, variant: Variant, seed: int, device: str) -> tuple[torch.nn.Module, Preprocessing]:
    """The untrained network of a variant, and how images are prepared for it."""
    classes = len(load_study_sets(study.name)["train"].classes)
    model = networks.create(variant.training["network"], weights=None, classes=classes, seed=seed)
    model = model.to(device).to(memory_format=torch.channels_last)
    return model, networks.preprocessing(model, size=32, crop_pct=1.0)


def make_training(study: Study, variant: Variant, seed: int, *, device: str = "cpu") -> Path:
    """Train a network and write what it says; a killed call goes on from the last epoch that was finished.

    Args:
        study, variant, seed: which training.
        device: where.

    Returns:
        The file, below the current folder.

    Raises:
        FileNotFoundError: if images, labels or weights are not here; the message says how to get them.
        ValueError: if the loss is not finite, or a number too large to be kept.
    """
    began, images = time.monotonic(), load_study_sets(study.name)["train"]
    options = {name: value for name, value in variant.training.items() if name != "network"}
    model, preparation = create_network(study, variant, seed, device)
    loss, noted = variant_loss(study, variant, seed)
    if variant.loss == "cross_entropy":
        loss = losses.Recorded(loss, examples=len(images), epochs=options["epochs"])
    checkpoint = study_checkpoint(study, variant, seed)
    history = training.train(
        model,
        images.images,
        training_labels(study, variant),
        preprocessing=preparation,
        loss=loss,
        seed=seed,
        checkpoint=checkpoint,
        **options,
    )
    columns, about = describe_training(
        study, variant, loss, lambda x: training.predict(model, x, preprocessing=preparation)
    )
    about |= training_settings(study, variant, seed, noted) | training_course(history, began)
    write_table(study.file(variant, seed), columns, {"about": json.dumps(about)})
    if study.scale == "cpu":  # small networks that nobody asks again; a hundred checkpoints would be half a gigabyte
        checkpoint.unlink(missing_ok=True)
    return study.file(variant, seed)


def describe_training(
    study: Study, variant: Variant, loss: Any, ask: Ask
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Columns and metrics of a trained network, on test, validation and training images, and on others where it has detail."""
    parts = load_study_sets(study.name)
    logits = ask(parts["test"].images)
    kept = ("correct", "top", "preds", "entropy", "max_logit") if variant.detail else ("correct", "top")
    columns = {key: value for key, value in answer_columns(logits, parts["test"].labels).items() if key in kept}
    about = {"test": measure_answers(logits, parts["test"].labels)}
    if "validation" in parts:
        about["validation"] = measure_answers(ask(parts["validation"].images), parts["validation"].labels)
    if variant.detail:
        columns |= unfamiliar_columns(study, ask)
    logits, labels = ask(parts["train"].images).cpu(), torch.as_tensor(training_labels(study, variant))
    about["train"] = {"accuracy": metrics.accuracy(logits.argmax(-1), labels), "nll": metrics.nll(logits, labels)}
    if isinstance(loss, losses.Recorded):
        columns |= recorded_columns(loss, logits, labels)
    return columns, about


def unfamiliar_columns(study: Study, ask: Ask) -> dict[str, np.ndarray]:
    """What the network answers on images of other classes, `other_...`, and of CIFAR-10 on corrupted ones, `corrupted_...`."""
    other = answer_columns(ask(load_study_sets(study.name)["others"].images))
    columns = {f"other_{key}": other[key] for key in ("top", "entropy", "max_logit")}
    if study.dataset == "cifar10":
        shifted = [answer_columns(ask(images.images), images.labels) for images in load_shifts()]
        columns |= {f"corrupted_{key}": np.stack([each[key] for each in shifted]) for key in ("top", "correct")}
    return columns


def recorded_columns(loss: losses.Recorded, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, np.ndarray]:
    """What became of each training image: its loss at the end and over the epochs, and how often it was forgotten."""
    return {
        "train_loss": to_half(losses.surprise(logits, labels), "train_loss"),
        "train_loss_epochs": to_half(loss.nll.nanmean(0).cpu(), "train_loss_epochs"),
        "forgotten": to_small(as_tensor(difficulty.forgetting(loss.correct)).cpu().numpy()),
    }


def training_settings(study: Study, variant: Variant, seed: int, noted: dict[str, Any]) -> dict[str, Any]:
    """What the file says it rests on, and the settings in words."""
    return {
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
    }


def training_course(history: list[Epoch], began: float) -> dict[str, Any]:
    """Loss and speed of each epoch, the seconds of it all, and the machine."""
    seconds = max(time.monotonic() - began, sum(e.seconds for e in history))  # one that went on has older epochs too
    return {
        "epochs": [[round(e.loss, 5), round(e.images_per_second, 1)] for e in history],
        "seconds": round(seconds, 1),
        "environment": environment(),
    }
