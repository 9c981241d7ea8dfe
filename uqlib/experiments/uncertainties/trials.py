"""Heads of one backbone on trial: trained on Tiny-ImageNet, asked about other sets, beside what else could be said there.

`uqlib uncertainty BACKBONE` makes data/trained/uncertainty/BACKBONE.safetensors and data/heads/BACKBONE.safetensors. What is
kept of a score is its R-AUROC on all images and on paired bootstrap draws of them, which are the same for all scores of a
set; of the backbone TOLD also the numbers of each image.
"""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from uqlib import uncertainty
from uqlib.base.arrays import as_tensor
from uqlib.base.provenance import environment
from uqlib.base.splits import split
from uqlib.calibrate.confidences import max_probability, neg_entropy
from uqlib.experiments.keeping.kept_columns import pack_draws
from uqlib.experiments.uncertainties import upstream_features as upstream
from uqlib.experiments.uncertainties import uses
from uqlib.experiments.uncertainties.kept_trials import UPSTREAM
from uqlib.experiments.uncertainties.upstream_features import TOLD, UNSEEN
from uqlib.files.columns import write_table
from uqlib.files.fingerprint import of_network
from uqlib.files.whole import write_text
from uqlib.images.sets import ImageSet
from uqlib.metrics.compare import compare
from uqlib.metrics.outcomes import Judged
from uqlib.metrics.retrieval import r_auroc, retrieved
from uqlib.networks.linear_heads import Head, fit_head, head_logits
from uqlib.uncertainty.uncertainty_heads import UncertaintyHead, card_text, uncertainty_of

FOLDER, HEADS = Path("data/trained/uncertainty"), Path("data/heads")
DAMAGED = (TOLD, "mobilenetv1_050")  # backbones that see images damaged on purpose
STRENGTHS = (0.2, 0.4, 0.6, 0.8)
AMOUNTS = (1_000, 5_000, 20_000)  # images that a head learns from, beside all; as many steps
TARGETS = ("caltech101", "cifar10", "cifar100", "cartoon")  # sets on which a head is trained for comparison
SETTINGS: dict[str, Any] = {
    "seeds": 5, "width": 128, "epochs": 10, "batch": 512, "draws": 200, "images": upstream.TRAINED,
    "bagged": {"images": 10_000, "members": 5, "iterations": 50}, "dropout": {"p": 0.2, "samples": 20},
    "distance": {"images": 20_000, "k": 1}, "splits": 3, "amounts": AMOUNTS, "targets": TARGETS,
    "told": TOLD, "damaged": DAMAGED, "strengths": STRENGTHS, "safe": ("caltech101", "cifar100"),
}  # fmt: skip

Score = Callable[[Tensor], Any]  # features to an uncertainty an image
Columns = dict[str, np.ndarray]


class Asked(NamedTuple):
    """What a backbone sees of one set."""

    features: Tensor
    labels: Tensor
    found: Tensor  # whether the nearest other image is of the same class


def ask(backbone: str, images: ImageSet) -> Asked:
    """Features, labels, and what retrieval by these features finds."""
    features, labels = upstream.see(backbone, images), torch.from_numpy(np.array(images.labels))
    return Asked(features, labels, as_tensor(retrieved(features, labels)))


def ask_all(backbone: str) -> dict[str, Asked]:
    """The held-out images of the upstream set, then every unseen set."""
    return {UPSTREAM: ask(backbone, upstream.heldout_images())} | {
        name: ask(backbone, upstream.unseen_images(name)) for name in UNSEEN
    }


class Learnt(NamedTuple):
    """What heads and their rivals learn from: views of the upstream images."""

    features: Tensor
    labels: Tensor
    losses: Tensor
    classifier: Head


def learn_from(backbone: str) -> Learnt:
    """Cached features of random views, and the loss of the published classifier on the classes of the set."""
    images = upstream.upstream_images()
    x, y = upstream.see(backbone, images), torch.from_numpy(np.array(images.labels))
    layer, rows = upstream.load_backbone(backbone).get_classifier(), upstream.tiny_classes()  # type: ignore[operator]
    own = Head(layer.weight.detach().cpu()[rows], layer.bias.detach().cpu()[rows], 0.0, 0.0, 0.0)
    return Learnt(x, y, F.cross_entropy(as_tensor(head_logits(own, x)), y, reduction="none"), own)


def train_several(
    x: Tensor, losses: Tensor, objective: str = "ranking", rows: int | None = None
) -> list[UncertaintyHead]:
    """One head a seed, all trained for as many steps, on all rows or on the first ones drawn by the seed."""
    heads = []
    for seed in range(SETTINGS["seeds"]):
        some = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))[:rows]
        head = UncertaintyHead(x.shape[1], width=SETTINGS["width"], seed=seed)
        epochs = round(SETTINGS["epochs"] * len(x) / len(some))
        uncertainty.train_head(
            head, x[some], losses[some], objective=objective, epochs=epochs, seed=seed,
            batch=min(SETTINGS["batch"], len(some) // 2 * 2), progress=False,
        )  # fmt: skip
        heads.append(head)
    return heads


def scores_of(heads: list[UncertaintyHead]) -> list[Score]:
    """Each head as a score of features."""
    return [lambda x, head=head: uncertainty_of(head, x) for head in heads]  # type: ignore[misc]


def rivals(learnt: Learnt) -> dict[str, list[Score]]:
    """What else says how uncertain the backbone is, one score each, from the same features."""
    x, y, own = learnt.features, learnt.labels, learnt.classifier
    some = slice(SETTINGS["bagged"]["images"])
    rest = {name: SETTINGS["bagged"][name] for name in ("members", "iterations")}
    bag = uncertainty.bag_classifiers(x[some], y[some], classes=200, **rest)
    noisy = uncertainty.fit_heteroscedastic(x, y, own)
    known = x[: SETTINGS["distance"]["images"]]
    return {
        "max_probability": [lambda e: -as_tensor(max_probability(head_logits(own, e)))],
        "entropy": [lambda e: -as_tensor(neg_entropy(head_logits(own, e)))],
        "norm": [uncertainty.inverse_norm],
        "distance": [lambda e: uncertainty.nearest_distance(e, known, k=SETTINGS["distance"]["k"])],
        "dropout": [lambda e: uncertainty.dropout_spread(e, own, **SETTINGS["dropout"]).entropy],
        "bagged": [lambda e: uncertainty.bagged_spread(e, bag).entropy],
        "heteroscedastic": [lambda e: uncertainty.heteroscedastic_variance(noisy, e)],
    }


def draw_scores(said: Mapping[str, list[Tensor]], right: Tensor) -> Columns:
    """AUROC of telling wrong from right by each score: (runs, 1 + draws), draws shared by all scores.

    Args:
        said: by score, one uncertainty (n,) a run.
        right: (n,), what was found or classified rightly.
    """
    outcomes = {name: [Judged(-as_tensor(u).double(), right) for u in runs] for name, runs in said.items()}
    array = compare(outcomes, ["auroc"], over="training", draws=SETTINGS["draws"]).sel(measure="auroc")
    return {name: array.sel(variant=name).values[: len(runs)].astype(np.float32) for name, runs in said.items()}


def try_set(scores: Mapping[str, list[Score]], asked: Asked, name: str) -> tuple[Columns, dict[str, list[Tensor]]]:
    """R-AUROC of every score on one set, Recall@1 with its draws, and what was said of each image."""
    said = {key: [as_tensor(score(asked.features)).float() for score in runs] for key, runs in scores.items()}
    columns = {f"r_auroc/{name}/{key}": each for key, each in draw_scores(said, asked.found).items()}
    drawn = compare(
        {"all": [Judged(asked.found.double(), asked.found)]}, ["accuracy"], over="training", draws=SETTINGS["draws"]
    )
    return columns | {f"recall/{name}": drawn.values[0, 0, 0].astype(np.float32)}, said


def try_target(heads: list[UncertaintyHead], asked: Asked, name: str) -> Columns:
    """A head that learnt from half of a set beside those that never saw it, on the other half; a split a run.

    The losses are those of linear classifiers on the other fold of the half, since on their own images they err too seldom.
    `target_entropy` is the entropy of a linear classifier of the half.
    """
    columns: dict[str, list[np.ndarray]] = {}
    for seed in range(SETTINGS["splits"]):
        learn, judge = split(len(asked.labels), 0.5, seed=seed, labels=asked.labels.numpy())
        x, y = asked.features[learn], asked.labels[learn]
        losses, classes = torch.empty(len(x)), int(asked.labels.max()) + 1
        for fold in (0, 1):
            own, other = split(len(x), 0.5, seed=seed, labels=y.numpy())[:: 1 - 2 * fold]
            fitted = fit_head(x[own], y[own], classes=classes, l2=0.01, iterations=50)
            losses[other] = F.cross_entropy(as_tensor(head_logits(fitted, x[other])), y[other], reduction="none")
        head = UncertaintyHead(x.shape[1], width=SETTINGS["width"], seed=seed)
        uncertainty.train_head(head, x, losses, epochs=40, batch=256, seed=seed, progress=False)
        probe, new = fit_head(x, y, classes=classes, l2=0.01, iterations=50), asked.features[judge]
        said = {
            "target": [as_tensor(uncertainty_of(head, new))],
            "transferred": [as_tensor(uncertainty_of(heads[seed], new))],
            "target_entropy": [-as_tensor(neg_entropy(head_logits(probe, new)))],
        }
        for key, each in draw_scores(said, asked.found[judge]).items():
            columns.setdefault(f"half/{name}/{key}", []).append(each)
    return {key: np.concatenate(parts) for key, parts in columns.items()}


def try_classifying(scores: Mapping[str, list[Score]], learnt: Learnt, asked: Asked) -> Columns:
    """AUROC of telling the upstream classifier's mistakes on held-out images."""
    right = as_tensor(head_logits(learnt.classifier, asked.features)).argmax(-1) == asked.labels
    said = {key: [as_tensor(score(asked.features)) for score in runs] for key, runs in scores.items()}
    return {f"auroc/{UPSTREAM}/{key}": each for key, each in draw_scores(said, right).items()}


def follow_epochs(learnt: Learnt, asked: Mapping[str, Asked]) -> Columns:
    """R-AUROC after each epoch, on the upstream set and the mean of the unseen ones: (seeds, epochs, 2)."""
    found: dict[str, list] = {}
    for objective in uncertainty.OBJECTIVES:
        for seed in range(SETTINGS["seeds"]):
            head = UncertaintyHead(learnt.features.shape[1], width=SETTINGS["width"], seed=seed)
            rows: list[list[float]] = []

            def judge(head: UncertaintyHead = head, rows: list[list[float]] = rows) -> dict[str, float]:
                each = [r_auroc(uncertainty_of(head, a.features), a.found) for a in asked.values()]
                rows.append([each[0], float(np.mean(each[1:]))])
                return {}

            uncertainty.train_head(
                head, learnt.features, learnt.losses, objective=objective, epochs=SETTINGS["epochs"],
                batch=SETTINGS["batch"], seed=seed, judge=judge, progress=False,
            )  # fmt: skip
            found.setdefault(f"epochs/{objective}", []).append(rows)
    return {key: np.array(rows, np.float32) for key, rows in found.items()}


def make_trials(backbone: str) -> Path:
    """Train the heads of a backbone, try them and their rivals, write what is kept, and the first head with its card.

    Raises:
        FileNotFoundError: if images or weights are not here; the message says how to get them.
    """
    began, learnt, asked = time.monotonic(), learn_from(backbone), ask_all(backbone)
    heads = train_several(learnt.features, learnt.losses)
    scores = {"head": scores_of(heads)} | rivals(learnt)
    scores["regression"] = scores_of(train_several(learnt.features, learnt.losses, "regression"))
    for rows in AMOUNTS:
        scores[f"head_{rows}"] = scores_of(train_several(learnt.features, learnt.losses, rows=rows))
    columns: Columns = try_classifying(scores, learnt, asked[UPSTREAM]) | follow_epochs(learnt, asked)
    for name, each in asked.items():
        tried, said = try_set(scores, each, name)
        columns |= tried
        if backbone == TOLD:
            columns |= uses.tell_images(said, each, name)
    for name in TARGETS:
        columns |= try_target(heads, asked[name], name)
    columns |= uses.use_heads(backbone, heads, learnt, asked, settings=SETTINGS)
    path = FOLDER / f"{backbone}.safetensors"
    about: dict[str, Any] = {"rests_on": SETTINGS, "environment": environment()}
    about |= {"seconds": round(time.monotonic() - began, 1)}
    about |= {"classes": upstream.class_names()} if backbone == TOLD else {}
    write_table(path, pack_draws(columns, SETTINGS["draws"]), {"about": json.dumps(about)})
    keep_head(backbone, heads[0], columns, said=as_tensor(uncertainty_of(heads[0], asked[UPSTREAM].features)))
    return path


def keep_head(backbone: str, head: UncertaintyHead, columns: Columns, *, said: Tensor) -> None:
    """The head of seed 0 for others to load, with a card: what it learnt from, and what was measured."""
    measured = {
        key.split("/")[1]: round(float(each[0, 0]), 3)
        for key, each in columns.items() if key.startswith("r_auroc/") and key.endswith("/head")
    }  # fmt: skip
    card = {
        "backbone": backbone,
        "weights": of_network(upstream.load_backbone(backbone)),
        "size": upstream.side_of(backbone),
        "learnt_from": f"{SETTINGS['images']} random views of Tiny-ImageNet training images, losses of the published classifier",
        "objective": "ranking, margin 0.1 (arXiv:2402.16569)",
        "settings": {name: SETTINGS[name] for name in ("width", "epochs", "batch")},
        "r_auroc": measured,
        "percentiles": [round(x, 4) for x in np.percentile(said.numpy(), range(0, 101, 5)).tolist()],
        "licence": "MIT, as the project; the backbone has its own",
    }
    uncertainty.save_head(HEADS / f"{backbone}.safetensors", head, card)
    write_text(HEADS / f"{backbone}.md", card_text(card))


def make_across(backbones: list[str]) -> Path:
    """The head of each backbone as a predictor of the misses of each: what is kept of their R-AUROC on every set.

    Args:
        backbones: whose heads were made.
    """
    sets: dict[str, ImageSet] = {UPSTREAM: upstream.heldout_images()} | {n: upstream.unseen_images(n) for n in UNSEEN}
    heads = {name: uncertainty.load_head(HEADS / f"{name}.safetensors")[0] for name in backbones}
    columns: Columns = {}
    for name, images in sets.items():
        asked = {each: ask(each, images) for each in backbones}
        said = {each: [as_tensor(uncertainty_of(heads[each], asked[each].features))] for each in backbones}
        tables = [draw_scores(said, asked[judge].found) for judge in backbones]
        columns[name] = np.array([[table[each][0] for each in backbones] for table in tables])
    path = FOLDER / "across.safetensors"
    about = {"sets": list(sets), "backbones": backbones, "environment": environment()}
    write_table(path, pack_draws(columns, SETTINGS["draws"]), {"about": json.dumps(about)})
    return path
