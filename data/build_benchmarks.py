"""Make the benchmarks of data/benchmarks.toml: fit heads, tune or train networks, and store what they say.

    python data/build_benchmarks.py                               # all that the store lacks, some two hours on two cores
    python data/build_benchmarks.py --benchmarks pacs             # one of them, minutes
    python data/build_benchmarks.py --scale gpu --root STORE      # networks of timm on the whole sets, hours on a GPU

Images come from $UQLIB_DATA or the cache (Caltech-101 as one split `all` of 128 x 128 pixels, PACS as its four domains of
224 x 224, both prepared as uqlib.data says), published weights from $UQLIB_WEIGHTS or their place. Features and checkpoints
stay in the cache, so a killed run goes on where it was. What each training did is written to data/training, with the
fingerprint of its recipe: a network whose recipe has changed since is named, made again, and replaced in the store.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from build_store import corrupted

from uqlib import benchmarks, data, heads, metrics, models, soups, store, training
from uqlib.benchmarks import Benchmark, Network
from uqlib.data import ImageSet
from uqlib.files import cache_folder, write_text
from uqlib.fingerprint import fingerprint
from uqlib.models import Preprocessing
from uqlib.splits import split

LOGS = Path("data/training")
Sets = tuple[ImageSet, list[ImageSet]]  # what trains; what is asked


def heldout(images: ImageSet, rows: Any) -> ImageSet:
    return replace(images.select(rows), split="heldout")


def cifar10() -> Sets:
    """The published networks saw all training images; ours see them too. The test set is held out."""
    return data.load("cifar10", "train"), [
        data.load("cifar10", "test"),
        *(replace(images, extras=columns) for images, columns in corrupted()),
    ]


def cifar100() -> Sets:
    """The first half of the training images; the published network saw all of them. Half of the test set is held out."""
    train, test = data.load("cifar100", "train"), data.load("cifar100", "test")
    return train.select(np.arange(25_000)), [heldout(test, np.arange(5_000))]


def cifar100_whole() -> Sets:
    """All training images, all test images."""
    return data.load("cifar100", "train"), [data.load("cifar100", "test")]


def caltech101() -> Sets:
    """The 101 classes of objects, 70 % and 30 %, each class alike."""
    whole = data.without_classes(data.load("caltech101", "all"), ["BACKGROUND_Google"])
    rows, train = split(len(whole), 0.3, seed=0, labels=whole.labels)
    return whole.select(train), [heldout(whole, rows)]


def tiny_imagenet() -> Sets:
    """A fifth of the training images, 100 a class; 3,000 validation images are held out."""
    train, rows = data.load("tiny_imagenet", "train"), np.arange(20_000)
    return train.select(rows), [heldout(data.load("tiny_imagenet", "val"), np.arange(3_000))]


def tiny_imagenet_whole() -> Sets:
    """All training images, all validation images."""
    return data.load("tiny_imagenet", "train"), [data.load("tiny_imagenet", "val")]


def pacs() -> Sets:
    """Photographs, paintings and cartoons, 70 % and 30 %, each class alike; sketches are the shift."""
    whole = data.join([data.load("pacs", domain) for domain in ("photo", "art_painting", "cartoon")], split="painted")
    rows, train = split(len(whole), 0.3, seed=0, labels=whole.labels)
    return whole.select(train), [heldout(whole, rows), data.load("pacs", "sketch")]


SETS: dict[str, Callable[[], Sets]] = {
    each.__name__: each
    for each in (cifar10, cifar100, cifar100_whole, caltech101, tiny_imagenet, tiny_imagenet_whole, pacs)
}
JUDGE = 0.1  # share of the training images that judges trials and soups


def prepared(network: Network) -> tuple[torch.nn.Module, Preprocessing]:
    """The published backbone, and how images are prepared at the size of the benchmark."""
    fresh = network.made == "trained"
    model = models.create(network.architecture, weights=None if fresh else "pretrained", seed=0 if fresh else None)
    model = model.to(memory_format=torch.channels_last)
    changes = {} if network.made == "published" else {"size": network.size, "crop_pct": 1.0}
    return model, models.preprocessing(model, **changes)


def with_head(
    network: Network, images: ImageSet, learn: np.ndarray, device: str
) -> tuple[torch.nn.Module, Preprocessing, dict[str, Any]]:
    """The backbone with a linear classifier fitted on these rows; its penalty is chosen on a part of them."""
    model, preparation = prepared(network)
    began = time.monotonic()
    options = {"preprocessing": preparation, "columns": ("features", "labels"), "features": "float32", "device": device}
    said = store.ask(network.architecture, model, images, **options)
    features, labels = said.features[learn].to(device), said.labels[learn]
    head = heads.choose_head(features, labels, classes=len(set(images.labels.tolist())))
    log = {"l2": head.l2, "loss": head.loss, "gradient": head.gradient, "seconds": round(time.monotonic() - began, 1)}
    return heads.install(model, head), preparation, log


def made(
    bench: Benchmark, network: Network, images: ImageSet, device: str
) -> tuple[torch.nn.Module, Preprocessing, dict[str, Any]]:
    """A network, made as the benchmark says, its preprocessing, and what its training did."""
    if network.made == "published":
        return *prepared(network), {}
    if network.role == "soup":
        return soup(bench, network, images, device)
    if network.made == "head":
        model, preparation, log = with_head(network, images, np.arange(len(images)), device)
        return model, preparation, {"head": log}
    judge, learn = split(len(images), JUDGE, seed=1, labels=images.labels)
    if network.made == "trained":
        model, preparation, log = *prepared(network), {}
    else:
        model, preparation, log = with_head(network, images, learn, device)
    judged = images.select(judge)
    history = training.train(
        model.to(device),
        images.images[learn],
        images.labels[learn],
        preprocessing=preparation,
        validation=(judged.images, judged.labels),
        checkpoint=checkpoint(bench, network),
        **network.training,
    )
    return model, preparation, {"head": log, "epochs": [epoch._asdict() for epoch in history]}


def checkpoint(bench: Benchmark, network: Network) -> Path:
    recipe = fingerprint(benchmarks.recipe(bench, network))
    return cache_folder() / "checkpoints" / bench.name / f"{network.name}-{recipe[:8]}.pt"


def soup(
    bench: Benchmark, network: Network, images: ImageSet, device: str
) -> tuple[torch.nn.Module, Preprocessing, dict[str, Any]]:
    """The average of all trainings of this architecture, or of those that the judging part asks for, one after the other."""
    trials = [bench.networks[name] for name in bench.repeated[network.architecture]]
    trained = [made(bench, trial, images, device) for trial in trials]
    model, preparation, _ = trained[0]
    # copies, since the model of the first is filled anew with every soup that is tried
    states = [{name: tensor.clone() for name, tensor in each.state_dict().items()} for each, _, _ in trained]
    scores = [log["epochs"][-1]["accuracy"] for _, _, log in trained]
    judge, learn = split(len(images), JUDGE, seed=1, labels=images.labels)
    judged = images.select(judge)
    some = images.select(np.random.default_rng(0).permutation(learn)[:2000])  # mixed: rows may stand by class

    def pour(state: dict) -> torch.nn.Module:
        model.load_state_dict(state)
        where = next(model.parameters()).device
        batches = (
            models.preprocess(some.images[k : k + 200], preparation, device=where) for k in range(0, len(some), 200)
        )
        soups.reestimate_batch_norm(model, batches)
        return model

    def accuracy(state: dict) -> float:
        logits = training.predict(pour(state), judged.images, preprocessing=preparation)
        return metrics.accuracy(logits.argmax(-1).cpu(), judged.labels)

    if network.name.endswith("greedy"):
        found = soups.greedy_soup(states, scores, accuracy)
        members = [trials[k].name for k in found.members]
        return pour(found.state), preparation, {"members": members, "accuracy": found.score}
    state, members = soups.uniform_soup(states), [trial.name for trial in trials]
    return pour(state), preparation, {"members": members, "accuracy": accuracy(state)}


def ask(network: Network, model: torch.nn.Module, preparation: Preprocessing, images: ImageSet, root: str) -> Path:
    """Store the logits of a network, in half precision where there are many classes."""
    options = {"features": None, "logits": "float32" if model.num_classes <= 10 else "float16"}
    if "severity" in images.extras:
        options["columns"] = {"severity": images.extras["severity"]}
    key = store.key_of(network.name, model, images, preprocessing=preparation)
    given = {"preprocessing": preparation, "index": images.index, "root": root, "command": "data/build_benchmarks.py"}
    return store.fill(key, model, images.images, images.labels, **given, **options)


def stored(network: Network, images: ImageSet, root: str) -> bool:
    try:
        store.load(network.name, images.name, images.split, root=root, columns=("labels",))
    except FileNotFoundError:
        return False
    return True


def replaced(network: Network, images: ImageSet, new: Path) -> None:
    """Remove what an earlier recipe of this network has left beside the new entry, under the same names."""
    names = network.name, images.name, images.split
    for path in sorted(new.parent.glob(f"{images.name}.{images.split}-*.safetensors")):
        key = store.read(path, columns=()).key
        if path != new and (key.network, key.dataset, key.split) == names:
            path.unlink()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", default="cpu", choices=("cpu", "gpu"))
    parser.add_argument("--benchmarks", nargs="+", help="by default all of the scale")
    parser.add_argument("--networks", nargs="+", help="by default all of the benchmark")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--root", default="data/store")
    args = parser.parse_args()
    for name in args.benchmarks or benchmarks.names(args.scale):
        bench = benchmarks.load(name)
        images, asked = SETS[bench.sets or name]()
        for network in bench.networks.values():
            if args.networks and network.name not in args.networks:
                continue
            there, changed = (
                [stored(network, each, args.root) for each in asked],
                benchmarks.stale(bench, [network.name]),
            )
            if all(there) and not changed:
                continue
            if any(there) and changed:
                print(f"{name}: {network.name} was made by another recipe, or by an unknown one; once more", flush=True)
            model, preparation, log = made(bench, network, images, args.device)
            for each in asked:
                replaced(network, each, ask(network, model, preparation, each, args.root))
            path = LOGS / f"{name}.json"
            known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
            log |= {"recipe": fingerprint(benchmarks.recipe(bench, network))}
            write_text(path, json.dumps(dict(sorted((known | {network.name: log}).items())), indent=1) + "\n")
            print(f"{name}: {network.name}", flush=True)


if __name__ == "__main__":
    main()
