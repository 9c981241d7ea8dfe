"""What combines with what: pretraining, weights by difficulty, an ensemble, a sidekick, a temperature, an uncertainty head.

The task is synthesis_cifar10. A run is START/LOSS/all/SEED: one training, and what every set of additions makes of it. What is
fitted after training is fitted on validation images. Networks are asked once; what they said lies in the cache.
"""

import itertools
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from uqlib import calibrate, combine, difficulty, losses
from uqlib.experiments import studies
from uqlib.experiments.image_sets import SEVERITIES, load_corrupted
from uqlib.experiments.keeping.kept_columns import pack_draws
from uqlib.experiments.keeping.kept_runs import Found, KeptRun
from uqlib.experiments.transfer.clean_runs import other_images
from uqlib.experiments.transfer.transfers import (
    FROM_SCRATCH,
    SCRATCH,
    SETTINGS,
    Beginning,
    begin_from,
    datasets_at,
    load_parts,
    plan_of,
    train_start,
)
from uqlib.experiments.transfer.upstream_networks import create_small
from uqlib.files.columns import read_column, read_header, write_table
from uqlib.files.fingerprint import fingerprint
from uqlib.files.whole import cache_folder
from uqlib.metrics.compare import compare
from uqlib.metrics.outcomes import Judged, Outcome, outcome_of
from uqlib.training import features_of
from uqlib.uncertainty import UncertaintyHead, train_head, uncertainty_of

DATASET = "cifar10"
STARTS = (SCRATCH, "supervised")
LOSSES = ("cross_entropy", "difficulty")
ADDED = ("ensemble", "duo", "temperature", "head")
SEEDS = 5
TESTED = 5_000  # test images, the first ones
DRAWS = 100
SIDEKICK = "cifar_resnet8_w8"
SHIFTS = ("gaussian_noise", "defocus_blur", "contrast")  # of the first 300 test images, all severities
FAMILIAR = ("accuracy", "nll", "brier", "ece", "aurc", "auroc")
SHIFTED = ("accuracy", "ece", "aurc")
ORDERED = ("aurc", "auroc")
VERSIONS = len(SHIFTS) * len(SEVERITIES)  # of one image
UNFAMILIAR = ("gaussian", "blobs", "cifar100", "tiny_imagenet", "caltech101")
JUDGED_BY = (
    *(f"test/{name}" for name in FAMILIAR),
    *(f"shifted/{name}" for name in SHIFTED),
    *(f"other/{name}" for name in UNFAMILIAR),
)
WEIGHTS: dict[str, Any] = {"normaliser": "clipped", "temperature": 0.7, "quantile": 0.95}
BONUS = 0.1  # what the entropy is worth for the mean image
SCORER = "rmd/tf_mobilenetv2_100"
HEAD: dict[str, Any] = {"width": 64, "epochs": 20, "batch": 100}


class Answers(NamedTuple):
    """What a network says of a set of images."""

    logits: Tensor
    features: Tensor


def make_member(start: str, loss: str, seed: int, device: str = "cpu") -> Beginning:
    """A trained network; `sidekick` in place of a loss is the small one, from scratch."""
    train = load_parts(DATASET).train
    if loss == "sidekick":
        small = Beginning(*create_small(len(train.classes), seed, device, SIDEKICK))
        train_start(small, train.images, train.labels, FROM_SCRATCH, seed)
        return small
    network = begin_from(DATASET, start, seed, device)
    chosen = None if loss == "cross_entropy" else difficulty_loss()
    train_start(network, train.images, train.labels, plan_of(DATASET, start), seed, chosen)
    return network


def difficulty_loss() -> Any:
    """The loss of chapter two, with weights from what MobileNetV2 finds hard."""
    train = load_parts(DATASET).train
    scores = studies.load_difficulty(DATASET, "train")[SCORER][torch.from_numpy(np.array(train.index))]
    weights = torch.as_tensor(difficulty.weights(scores, **WEIGHTS)).float()
    labels = torch.from_numpy(np.array(train.labels, np.int64))
    return losses.loss("difficulty", weights=weights, labels=labels, alpha=BONUS / weights.mean().item())


def asked_sets() -> dict[str, np.ndarray]:
    """Images that every network is asked about."""
    parts = load_parts(DATASET)
    own = {
        "validation": np.asarray(parts.validation.images),
        "test": np.asarray(parts.test.images[:TESTED]),
        "shifted": _shifted("images"),
    }
    return own | {name: images for name, images in other_images(DATASET, 1_000).items() if name in UNFAMILIAR}


def _shifted(what: str) -> np.ndarray:
    """Images or labels of the damaged images: all versions of the first image, then those of the next."""
    parts = [np.asarray(getattr(images, what)) for images in load_corrupted(SHIFTS)]
    versions = np.concatenate([part.reshape(len(SEVERITIES), -1, *part.shape[1:]) for part in parts])
    return versions.swapaxes(0, 1).reshape(-1, *versions.shape[2:])


@cache
def member_answers(start: str, loss: str, seed: int, device: str = "cpu") -> dict[str, Answers]:
    """What a network says of all sets; it is trained if the cache does not have that."""
    path = _cached(start, loss, seed)
    if not path.is_file():
        network = make_member(start, loss, seed, device)
        columns: dict[str, np.ndarray] = {}
        for name, images in asked_sets().items():
            said = _ask_both(network, images)
            columns |= {f"{name}/logits": said.logits.numpy(), f"{name}/features": said.features.half().numpy()}
        write_table(path, columns, {"of": f"{start}/{loss}/{seed}"})
    header = read_header(path)
    names = dict.fromkeys(column.split("/")[0] for column in header.columns)
    read = {each: torch.from_numpy(np.array(read_column(path, header, each))) for each in header.columns}
    return {name: Answers(read[f"{name}/logits"].double(), read[f"{name}/features"].float()) for name in names}


def _cached(start: str, loss: str, seed: int) -> Path:
    digest = fingerprint(str(settings_of(start, loss, seed)))[:16]
    return cache_folder() / "synthesis" / f"{start}-{loss}-{seed}-{digest}.safetensors"


@torch.no_grad()
def _ask_both(network: Beginning, images: np.ndarray) -> Answers:
    features = features_of(network.model, images, preprocessing=network.preparation)
    return Answers(network.model.get_classifier()(features).cpu(), features.cpu())  # type: ignore[operator]


def combine_answers(
    added: frozenset[str], members: list[dict[str, Answers]], sidekick: dict[str, Answers]
) -> dict[str, Tensor]:
    """Logits of every set, after the additions; what is fitted is fitted on validation images."""
    labels = np.array(load_parts(DATASET).validation.labels)
    own = members if "ensemble" in added else members[:1]
    found = {name: _mean([member[name].logits for member in own]) for name in own[0]}
    if "duo" in added:
        weights = combine.fit_duo(found["validation"], sidekick["validation"].logits, labels).weights
        found = {
            name: float(weights[0]) * each + float(weights[1]) * sidekick[name].logits for name, each in found.items()
        }
    if "temperature" in added:
        temperature = calibrate.fit_temperature(found["validation"], labels).temperature
        found = {name: each / temperature for name, each in found.items()}
    return found


def _mean(logits: list[Tensor]) -> Tensor:
    """The logarithm of the mean of the probabilities; of one network its logits."""
    if len(logits) == 1:
        return logits[0]
    return torch.stack([each.log_softmax(-1) for each in logits]).logsumexp(0) - np.log(len(logits))


def doubts(members: list[dict[str, Answers]], logits: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """What a head says of every set: it learns the losses on validation images from the features of the first network."""
    labels = torch.from_numpy(np.array(load_parts(DATASET).validation.labels, np.int64))
    features = members[0]["validation"].features
    target = losses.surprise(logits["validation"], labels).float()
    head = UncertaintyHead(features.shape[1], width=HEAD["width"], seed=seed)
    train_head(head, features, target, epochs=HEAD["epochs"], batch=HEAD["batch"], seed=seed, progress=False)
    return {name: torch.as_tensor(uncertainty_of(head, each.features)).double() for name, each in members[0].items()}


def judge_combination(logits: dict[str, Tensor], doubt: dict[str, Tensor] | None) -> dict[str, np.ndarray]:
    """Measures (1 + draws) by name: of test images, of shifted ones, and of telling other images apart.

    A doubt of its own has an order and no unit, so it is judged by what asks for an order alone.
    """
    asked = {"test": (_test_labels(), FAMILIAR, 1), "shifted": (_shifted_labels(), SHIFTED, VERSIONS)}
    found: dict[str, np.ndarray] = {}
    for name, (labels, measures, groups) in asked.items():
        chosen = [each for each in measures if doubt is None or each in ORDERED]
        drawn = _drawn(_outcome(logits, doubt, name, labels), chosen, groups)
        found |= {f"{name}/{each}": drawn[each] for each in chosen}
    for name in UNFAMILIAR:
        both = torch.cat([_confidence(logits, doubt, "test"), _confidence(logits, doubt, name)])
        own = torch.arange(len(both)) < len(logits["test"])
        found[f"other/{name}"] = _drawn(Judged(both, own), ["auroc"], 1)["auroc"]
    return found


def _confidence(logits: dict[str, Tensor], doubt: dict[str, Tensor] | None, name: str) -> Tensor:
    return logits[name].softmax(-1).amax(-1) if doubt is None else -doubt[name]


def _outcome(logits: dict[str, Tensor], doubt: dict[str, Tensor] | None, name: str, labels: Tensor) -> Outcome:
    outcome = outcome_of(logits[name], labels)
    return outcome if doubt is None else outcome._replace(confidence=-doubt[name])


def _drawn(outcome: Any, measures: list[str], groups: int) -> dict[str, np.ndarray]:
    scores = compare({"": [outcome]}, measures, over="training", draws=DRAWS, groups=groups)
    return {name: scores.sel(variant="", measure=name).values[0] for name in measures}


@cache
def _test_labels() -> Tensor:
    return torch.from_numpy(np.array(load_parts(DATASET).test.labels[:TESTED], np.int64))


@cache
def _shifted_labels() -> Tensor:
    return torch.from_numpy(_shifted("labels").astype(np.int64))


def run_synthesis(start: str, loss: str, seed: int, device: str = "cpu") -> Found:
    """All sets of additions to one training; an ensemble is of this seed and the next.

    The column `scores` has the sets of `every_set`, the names of JUDGED_BY, and draws.
    """
    members = [member_answers(start, loss, (seed + k) % SEEDS, device) for k in (0, 1)]
    sidekick = member_answers(SCRATCH, "sidekick", seed, device)
    tables: dict[frozenset[str], dict[str, np.ndarray]] = {}
    for added in every_set():
        logits = combine_answers(added, members, sidekick)
        doubt = doubts(members, logits, seed) if "head" in added else None
        found = judge_combination(logits, doubt)
        plain = tables.get(added - {"head"}, {})  # what a head leaves as it is
        tables[added] = plain | found
    scores = np.array([[tables[added][name] for name in JUDGED_BY] for added in every_set()])
    return Found(pack_draws({"scores": scores.astype(np.float32)}, DRAWS), {"tested": TESTED})


def every_set() -> list[frozenset[str]]:
    """All sets of additions, the empty one first."""
    return [frozenset(some) for k in range(len(ADDED) + 1) for some in itertools.combinations(ADDED, k)]


def addition_name(added: frozenset[str]) -> str:
    """A set of additions as a name: alone, or such as ensemble+temperature."""
    return "+".join(each for each in ADDED if each in added) or "alone"


def settings_of(start: str, loss: str, seed: int) -> dict[str, Any]:
    """All that one trained network rests on."""
    return {
        "start": start, "loss": loss, "seed": seed, "images": SETTINGS[DATASET].images, "plan": plan_of(DATASET, start), "weights": WEIGHTS, "bonus": BONUS,
        "scorer": SCORER, "sidekick": SIDEKICK, "tested": TESTED, "shifts": SHIFTS, "others": (*UNFAMILIAR, "without classes in common"),
    }  # fmt: skip


def synthesis_runs(scale: str = "cpu") -> Iterator[KeptRun]:
    """All runs that the chapter asks for, none of them at gpu and paper."""
    for seed in range(SEEDS if DATASET in datasets_at(scale) else 0):
        for start, loss in itertools.product(STARTS, LOSSES):
            settings = settings_of(start, loss, seed) | {
                "head": HEAD,
                "draws": DRAWS,
                "seeds": SEEDS,
                "shifts": list(SHIFTS),
            }
            make = partial(run_synthesis, start, loss, seed)
            yield KeptRun(f"synthesis_{DATASET}", f"{start}/{loss}/all/{seed}", settings, make, 1.03)
