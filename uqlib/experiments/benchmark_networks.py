"""One network of a benchmark: fit a head, tune or train it, or average trainings, and store what it says.

Published weights come from $UQLIB_WEIGHTS or their place. Features and checkpoints stay in the cache, so a killed run goes
on where it was. What each training did is written beside the benchmark, with the fingerprint of its recipe: a network whose
recipe has changed since is made again, and replaced in the store.
"""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from uqlib import metrics, networks, store, training
from uqlib.base.splits import split
from uqlib.combine import soups
from uqlib.experiments import benchmarks
from uqlib.experiments.benchmarks import Benchmark, Network
from uqlib.experiments.image_sets import load_benchmark_sets, severity_column
from uqlib.files.exclusive import hold_alone
from uqlib.files.fingerprint import fingerprint
from uqlib.files.whole import DamagedError, cache_folder, write_text
from uqlib.images.sets import ImageSet
from uqlib.networks import Preprocessing, linear_heads
from uqlib.store.fill import ask_network, fill_entry, key_of

JUDGE = 0.1  # share of the training images that judges trials and soups
POURED = 2000  # training images whose batch statistics a soup takes
Made = tuple[torch.nn.Module, Preprocessing, dict[str, Any]]  # the network, its preprocessing, what its training did


def create_backbone(network: Network, *, cropped: bool = False) -> tuple[torch.nn.Module, Preprocessing]:
    """The published backbone, or a fresh one, and how images are prepared at the size of the benchmark.

    A published network keeps its own preparation, but for the centre crop where the images are `cropped` already.
    """
    fresh = network.origin == "trained"
    model = networks.create(network.architecture, weights=None if fresh else "pretrained", seed=0 if fresh else None)
    model = model.to(memory_format=torch.channels_last)
    whole = {"crop_pct": 1.0} if cropped or network.origin != "published" else {}
    return model, networks.preprocessing(model, size=network.size, **whole)


def make_with_head(network: Network, images: ImageSet, rows: np.ndarray, device: str) -> Made:
    """The backbone with a linear classifier fitted on these rows; its penalty is chosen on a part of them."""
    model, preparation = create_backbone(network)
    began = time.monotonic()
    options: dict[str, Any] = {
        "preprocessing": preparation,
        "columns": ("features", "labels"),
        "features": "float32",
        "device": device,
    }
    answers = ask_network(network.architecture, model, images, **options)
    features, labels = answers.features[rows].to(device), answers.labels[rows]
    head = linear_heads.choose_head(features, labels, classes=len(set(images.labels.tolist())))
    log = {"l2": head.l2, "loss": head.loss, "gradient": head.gradient, "seconds": round(time.monotonic() - began, 1)}
    return linear_heads.install(model, head), preparation, log


def make_network(bench: Benchmark, network: Network, images: ImageSet, device: str) -> Made:
    """A network, made as the benchmark says on these training images."""
    if network.origin == "published":
        return *create_backbone(network, cropped=bench.cropped), {}
    if network.role == "soup":
        return make_soup(bench, network, images, device)
    if network.origin == "head":
        model, preparation, log = make_with_head(network, images, np.arange(len(images)), device)
        return model, preparation, {"head": log}
    judge, learn = split(len(images), JUDGE, seed=1, labels=images.labels)
    if network.origin == "trained":
        model, preparation, log = *create_backbone(network), {}
    else:
        model, preparation, log = make_with_head(network, images, learn, device)
    judged = images.select(judge)
    history = training.train(
        model.to(device),
        images.images[learn],
        images.labels[learn],
        preprocessing=preparation,
        validation=(judged.images, judged.labels),
        checkpoint=network_checkpoint(bench, network),
        **network.training,
    )
    return model, preparation, {"head": log, "epochs": [epoch._asdict() for epoch in history]}


def network_checkpoint(bench: Benchmark, network: Network) -> Path:
    """Where a training goes on from when it was killed, and where soups find it, in the cache."""
    recipe = fingerprint(benchmarks.recipe(bench, network))
    return cache_folder() / "checkpoints" / bench.name / f"{network.name}-{recipe[:8]}.pt"


def make_soup(bench: Benchmark, network: Network, images: ImageSet, device: str) -> Made:
    """The average of all trainings of this architecture, or of those that the judging part asks for, one after the other."""
    trials = [bench.networks[name] for name in bench.repeated[network.architecture]]
    trained = [make_network(bench, trial, images, device) for trial in trials]
    model, preparation, _ = trained[0]
    # copies, since the model of the first is filled anew with every soup that is tried
    states = [{name: tensor.clone() for name, tensor in each.state_dict().items()} for each, _, _ in trained]
    scores = [log["epochs"][-1]["accuracy"] for _, _, log in trained]
    judge, learn = split(len(images), JUDGE, seed=1, labels=images.labels)
    judged = images.select(judge)
    some = images.select(np.random.default_rng(0).permutation(learn)[:POURED])  # mixed: rows may stand by class

    def accuracy(state: dict) -> float:
        logits = training.predict(fill_soup(model, state, some, preparation), judged.images, preprocessing=preparation)
        return metrics.accuracy(logits.argmax(-1).cpu(), judged.labels)

    if network.name.endswith("greedy"):
        found = soups.greedy_soup(states, scores, accuracy)
        state, members, score = found.state, [trials[k].name for k in found.members], found.score
    else:
        state, members = soups.uniform_soup(states), [trial.name for trial in trials]
        score = accuracy(state)
    return fill_soup(model, state, some, preparation), preparation, {"members": members, "accuracy": score}


def fill_soup(model: torch.nn.Module, state: dict, images: ImageSet, preparation: Preprocessing) -> torch.nn.Module:
    """The model with these weights, the statistics of its batch norms taken again on the images."""
    model.load_state_dict(state)
    soups.reestimate_batch_norm(model, _batches(images, preparation, next(model.parameters()).device))
    return model


def _batches(images: ImageSet, preparation: Preprocessing, device: torch.device) -> Iterator[torch.Tensor]:
    for k in range(0, len(images), 200):
        yield networks.preprocess(images.images[k : k + 200], preparation, device=device)


# What it says, in the store


def store_root(scale: str, root: str | None = None) -> str | None:
    """Where networks of a scale are stored: in the checkout at cpu, else in the user's store (None), unless `root` is given."""
    return root or ("data/store" if scale == "cpu" else None)


def asked_places(bench: Benchmark, network: Network) -> list[tuple[str, str]]:
    """(data set, split) of all that a network of a benchmark is asked; trials are asked nothing but the held-out rows."""
    shifted = () if network.role == "trial" else bench.shifted.values()
    return [(bench.dataset, bench.split), *(place for places in shifted for place in places)]


def kept_precision(bench: Benchmark, network: Network) -> str:
    """How the store keeps the logits of a network: the more classes, the coarser, and in the checkout so are trials."""
    if bench.scale == "cpu" and (bench.classes >= 1000 or (network.role == "trial" and bench.classes >= 100)):
        return "coarse"
    return "float32" if bench.classes <= 10 else "float16"


def is_stored(network: str, place: tuple[str, str], root: str | None) -> bool:
    """Whether the store has an entry of that network on that (data set, split)."""
    dataset, part = place
    for folder in store.roots(root=root):
        for path in folder.glob(f"{network}/{dataset}.{part}-*.safetensors"):
            with contextlib.suppress(DamagedError, FileNotFoundError):
                key = store.read_entry(path, columns=()).key
                if (key.network, key.dataset, key.split) == (network, dataset, part):
                    return True
    return False


def lacks_network(bench: Benchmark, network: Network, *, root: str | None = None) -> bool:
    """Whether a network is still to be made: an entry is missing, or it was made by another recipe."""
    root = store_root(bench.scale, root)
    if not all(is_stored(network.name, place, root) for place in asked_places(bench, network)):
        return True
    return bool(benchmarks.outdated_networks(bench, [network.name]))


def store_answers(network: Network, made: Made, images: ImageSet, root: str | None, logits: str) -> Path:
    """Store the logits of a network in this precision; what an earlier recipe left goes."""
    model, preparation, _ = made
    options: dict[str, Any] = {"features": None, "logits": logits}
    key = key_of(network.name, model, images, preprocessing=preparation)
    given: dict[str, Any] = {
        "index": images.index,
        "columns": severity_column(images),
        "root": root,
        "command": "uqlib network",
    }
    path = fill_entry(key, model, images.images, images.labels, preprocessing=preparation, **given, **options)
    assert path is not None  # one worker makes the whole entry
    remove_earlier(network, images, path)
    return path


def remove_earlier(network: Network, images: ImageSet, new: Path) -> None:
    """Remove what an earlier recipe of this network has left beside the new entry, under the same names."""
    names = network.name, images.name, images.split
    for path in sorted(new.parent.glob(f"{images.name}.{images.split}-*.safetensors")):
        key = store.read_entry(path, columns=()).key
        if path != new and (key.network, key.dataset, key.split) == names:
            path.unlink()


def write_log(bench: Benchmark, network: Network, log: dict[str, Any]) -> None:
    """Write what a training did, beside what others of the benchmark did, perhaps at this moment."""
    path = Path(benchmarks.log_place(bench))
    log = log | {"recipe": fingerprint(benchmarks.recipe(bench, network))}
    with hold_alone(str(path.absolute())):
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        write_text(path, json.dumps(dict(sorted((known | {network.name: log}).items())), indent=1) + "\n")


def make_benchmark_network(bench: Benchmark, network: Network, *, device: str = "cpu", root: str | None = None) -> None:
    """Make a network of a benchmark, store what it says on its sets, and write the log of its training.

    Args:
        bench, network: which one.
        device: where.
        root: folder of the store; by default as `store_root` says.

    Raises:
        FileNotFoundError: if images or weights are not here; the message says how to get them.
        ValueError: if images have another size than the benchmark was made with.
    """
    root, places = store_root(bench.scale, root), asked_places(bench, network)
    images, asked = load_benchmark_sets(bench)
    if benchmarks.outdated_networks(bench, [network.name]) and any(
        is_stored(network.name, place, root) for place in places
    ):
        print(f"{bench.name}: {network.name} was made by another recipe, or by an unknown one; once more", flush=True)
    made = make_network(bench, network, images, device)
    for each in asked:
        if (each.name, each.split) in places:
            store_answers(network, made, each, root, kept_precision(bench, network))
    write_log(bench, network, made[2])
