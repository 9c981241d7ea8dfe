"""What uncertainties of images are for, tried: damaged images, people who disagree, safe retrieval, a map of images."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from uqlib.base.arrays import as_tensor
from uqlib.base.extras import named
from uqlib.calibrate.confidences import neg_entropy
from uqlib.experiments.keeping.kept_columns import to_half, to_small
from uqlib.experiments.uncertainties import upstream_features as upstream
from uqlib.images.interventions import INTERVENTIONS
from uqlib.images.labels import human_counts
from uqlib.metrics.detection import auroc
from uqlib.metrics.retrieval import nearest_neighbours
from uqlib.networks.linear_heads import head_logits
from uqlib.uncertainty.uncertainty_heads import UncertaintyHead, uncertainty_of

with named():
    from scipy.stats import entropy, spearmanr
    from sklearn.manifold import TSNE

TOLD_SCORES = ("head", "entropy", "distance")  # of which the number of each image is kept
DRAWN = 0.9  # the quantile above which the safe retrieval drops images
RANDOM = 20  # removals at random
NEAREST = 60  # neighbours that are looked through for one that was not removed
MAPPED, EACH, AROUND = ("bird", "cat", "deer", "dog", "frog", "horse"), 100, 10  # classes of CIFAR-10 on the map

Columns = dict[str, np.ndarray]


def tell_images(said: Mapping[str, list[Tensor]], asked: Any, name: str) -> Columns:
    """What three scores say of each image of a set, and what was found: `u/SET/SCORE` (runs, n), `found/SET`, `labels/SET`."""
    columns = {f"u/{name}/{key}": to_half(torch.stack(said[key]).numpy(), key) for key in TOLD_SCORES}
    return columns | {f"found/{name}": asked.found.numpy(), f"labels/{name}": to_small(asked.labels.numpy())}


def try_damage(backbone: str, heads: list[UncertaintyHead], strengths: tuple[float, ...]) -> Columns:
    """What heads say of images damaged by known amounts: `damaged/KIND` (seeds, strengths, images), strength 0 first."""
    whole = upstream.heldout_images().select(np.arange(upstream.INTERVENED))
    columns = {}
    for kind in INTERVENTIONS:
        seen = [upstream.see(backbone, whole)]
        seen += [upstream.see(backbone, upstream.damaged_images(kind, strength)) for strength in strengths]
        told = [[as_tensor(uncertainty_of(head, x)).numpy() for x in seen] for head in heads]
        columns[f"damaged/{kind}"] = to_half(np.array(told), kind)
    return columns


def judge_by_people(said: Mapping[str, list[Tensor]], rows: np.ndarray, labels: np.ndarray, *, draws: int) -> Columns:
    """How each score goes with what people said of CIFAR-10 (CIFAR-10H): `people/SCORE` (runs, 3, 1 + draws).

    Three numbers: AUROC of telling images on which not all people agree; Spearman's correlation with the entropy of their
    votes; AUROC of telling images whose label is not what most people said.

    Raises:
        FileNotFoundError: if the votes are not beside the images.
    """
    votes = human_counts()[rows].astype(float)
    disagreement = entropy(votes, axis=1)
    mistaken = votes.argmax(1) != labels
    drawn = draw_rows(len(rows), draws)

    def judge(u: np.ndarray, own: np.ndarray) -> list[float]:
        return [
            auroc(u[own], disagreement[own] > 0),
            float(spearmanr(u[own], disagreement[own])[0]),
            auroc(u[own], mistaken[own]),
        ]

    told = {
        key: np.array([[judge(u.numpy(), own) for own in drawn] for u in runs]).transpose(0, 2, 1)
        for key, runs in said.items()
    }
    return {f"people/{key}": each.astype(np.float32) for key, each in told.items()}


def draw_rows(n: int, draws: int) -> list[np.ndarray]:
    """All rows, then rows drawn with replacement, the same for the same n."""
    generator = np.random.default_rng(0)
    return [np.arange(n), *(generator.integers(n, size=n) for _ in range(draws))]


class Kept(NamedTuple):
    """Which images stay where a score drops the most uncertain ones."""

    of_class: np.ndarray  # (n,) threshold of each class, by true labels: what the paper does, and no user can
    of_all: np.ndarray  # (n,) one threshold


def keep_certain(u: np.ndarray, labels: np.ndarray, quantile: float = DRAWN) -> Kept:
    """Images at or below a quantile of the uncertainty, of their class and of all."""
    own = np.ones(len(u), bool)
    for c in np.unique(labels):
        own[labels == c] = u[labels == c] <= np.quantile(u[labels == c], quantile)
    return Kept(own, u <= np.quantile(u, quantile))


def retrieve_safely(said: Mapping[str, list[np.ndarray]], asked: Any, name: str, *, draws: int) -> Columns:
    """Recall@1 without the most uncertain images: `safe/SET/SCORE` (runs, rule, what, 1 + draws).

    Rules: a threshold a class, one threshold. What: all images, images dropped from the database, from the queries, from
    both.
    """
    near = as_tensor(nearest_neighbours(asked.features, k=NEAREST).rows).numpy()
    labels = asked.labels.numpy()
    counts = np.stack([np.bincount(rows, minlength=len(labels)) for rows in draw_rows(len(labels), draws)])

    def recall(database: np.ndarray, queries: np.ndarray) -> np.ndarray:
        there = database[near]
        first = near[np.arange(len(near)), there.argmax(1)]
        right = (labels[first] == labels) & there.any(1)
        return (counts @ (right & queries)) / (counts @ queries)

    def removals(u: np.ndarray) -> list[list[np.ndarray]]:
        every = np.ones(len(labels), bool)
        return [
            [recall(every, every), recall(own, every), recall(every, own), recall(own, own)]
            for own in keep_certain(u, labels)
        ]

    return {f"safe/{name}/{key}": np.array([removals(u) for u in runs], np.float32) for key, runs in said.items()}


def map_images(u: np.ndarray, asked: Any, classes: tuple[str, ...]) -> Columns:
    """Two dimensions of t-SNE for some images of six classes, with their uncertainty and how mixed their surroundings are.

    `map` (n, 5): x, y, class, uncertainty, entropy of the classes of the nearest ten on the map, nats.
    """
    labels = asked.labels.numpy()
    rows = np.concatenate([np.flatnonzero(labels == classes.index(name))[:EACH] for name in MAPPED])
    flat = TSNE(2, init="pca", learning_rate="auto", perplexity=30, random_state=1).fit_transform(
        asked.features[rows].numpy()
    )
    own = labels[rows]
    far = np.square(flat[:, None] - flat[None]).sum(-1)
    around = own[far.argsort(1)[:, 1 : AROUND + 1]]
    mixed = entropy(np.stack([(around == c).sum(1) for c in np.unique(own)], 1), axis=1)
    return {"map": np.column_stack([flat, own, u[rows], mixed]).astype(np.float32)}


def use_heads(
    backbone: str, heads: list[UncertaintyHead], learnt: Any, asked: Mapping[str, Any], *, settings: Mapping[str, Any]
) -> Columns:
    """All of these uses for a backbone; `settings` say on which sets, how strong and how many draws."""
    columns: Columns = {}
    if backbone in settings["damaged"]:
        columns |= try_damage(backbone, heads, settings["strengths"])
    if backbone != settings["told"]:
        return columns
    draws = settings["draws"]
    cifar = upstream.unseen_images("cifar10")
    doubt = lambda x: -as_tensor(neg_entropy(head_logits(learnt.classifier, x))).float()  # noqa: E731
    own = {name: [as_tensor(uncertainty_of(head, each.features)) for head in heads] for name, each in asked.items()}
    people = {"head": own["cifar10"], "entropy": [doubt(asked["cifar10"].features)]}
    columns |= judge_by_people(people, cifar.index, cifar.labels, draws=draws)
    for name in settings["safe"]:
        generator = np.random.default_rng(0)
        said = {"head": [u.numpy() for u in own[name]], "entropy": [doubt(asked[name].features).numpy()],
                "random": [generator.random(len(own[name][0])) for _ in range(RANDOM)]}  # fmt: skip
        found = retrieve_safely(said, asked[name], name, draws=draws)
        random = f"safe/{name}/random"
        columns |= found | {random: found[random].mean(0, keepdims=True)}  # the mean of all removals
    return columns | map_images(own["cifar10"][0].numpy(), asked["cifar10"], cifar.classes)
