"""Which images each experiment sees: what trains, what is asked, and the shifts of CIFAR-10.

Images come from $UQLIB_DATA or the cache. Caltech-101 is one split `all` of 128 x 128 pixels, PACS its four domains of
224 x 224, Tiny-ImageNet 64 x 64 (32 x 32 beside CIFAR-10), the sample of ImageNet 224 x 224, all prepared as `uqlib.images`
says; ImageNet itself may be class folders of files of any size.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache, lru_cache
from typing import Any

import numpy as np

from uqlib.base.options import check_choice
from uqlib.base.splits import split
from uqlib.experiments import studies
from uqlib.experiments.benchmarks import Benchmark
from uqlib.images.corruptions import CORRUPTIONS, corrupt
from uqlib.images.noise_sets import NOISE_SETS, noise_images
from uqlib.images.sets import CIFAR10_OVERLAP, ImageSet, join_sets, pixels_digest, without_classes
from uqlib.images.sources import load_images

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
SEVERITIES = (1, 2, 3, 4, 5)
CORRUPTED = 300  # images that are corrupted, as many of each class, the first ones in the official order
OTHERS = 2000  # images of each set whose classes CIFAR-10, or a study, does not have
NOISE = 250  # images of each kind of noise
LEARNT = 3000  # training images for what is fitted on training data, such as a Laplace approximation
Sets = tuple[ImageSet, list[ImageSet]]  # what trains; what is asked


def first_rows(images: ImageSet, count: int, skip: int = 0) -> np.ndarray:
    """Rows of the first images of each class in the official order, `count` in all, after `skip` in all."""
    each, before = count // len(images.classes), skip // len(images.classes)
    rows = [np.flatnonzero(images.labels == c)[before : before + each] for c in range(len(images.classes))]
    return np.sort(np.concatenate(rows))


def check_side(images: ImageSet, side: int) -> ImageSet:
    """The images, if their side is the one that an experiment was made with; files of any size pass.

    Raises:
        ValueError: if it is another: what networks say would not be what the store holds.
    """
    shape = getattr(images.images, "shape", None)
    if shape is not None and shape[1:3] != (side, side):
        found = " x ".join(map(str, shape[1:3]))
        raise ValueError(
            f"{images.name}/{images.split} must have {side} x {side} pixels here; it has {found}. Prepare it at that size."
        )
    return images


def load_corrupted(names: Iterable[str] = CORRUPTIONS) -> Iterator[ImageSet]:
    """Some CIFAR-10 test images under each of these corruptions, the five severities one after the other (an extra)."""
    whole = load_images("cifar10", "test")
    rows = first_rows(whole, CORRUPTED)
    severity = np.repeat(np.array(SEVERITIES, np.uint8), len(rows))
    subset = replace(whole.select(np.tile(rows, len(SEVERITIES))), extras={"severity": severity})
    for name in names:
        images = np.concatenate([corrupt(whole.images[rows], name, s, rows=rows) for s in SEVERITIES])
        yield subset.with_images(images, name="cifar10_c", split=name)


def severity_column(images: ImageSet) -> dict[str, np.ndarray]:
    """The column that the store keeps beside what a network answers on corrupted images; none for others."""
    return {"severity": images.extras["severity"]} if "severity" in images.extras else {}


# Sets of the benchmarks


def _as_heldout(images: ImageSet, rows: Any) -> ImageSet:
    return replace(images.select(rows), split="heldout")


def _halves_by_class(whole: ImageSet) -> tuple[ImageSet, ImageSet]:
    """70 % that train and 30 % that are held out, each class alike."""
    rows, train = split(len(whole), 0.3, seed=0, labels=whole.labels)
    return whole.select(train), _as_heldout(whole, rows)


def cifar10() -> Sets:
    """The published networks saw all training images; ours see them too. The test set is held out."""
    return load_images("cifar10", "train"), [load_images("cifar10", "test"), *load_corrupted()]


def cifar100() -> Sets:
    """The first half of the training images; the published network saw all of them. Half of the test set is held out."""
    train, test = load_images("cifar100", "train"), load_images("cifar100", "test")
    return train.select(np.arange(25_000)), [_as_heldout(test, np.arange(5_000))]


def cifar100_whole() -> Sets:
    """All training images, all test images."""
    return load_images("cifar100", "train"), [load_images("cifar100", "test")]


def caltech101() -> Sets:
    """The 101 classes of objects, 70 % and 30 %, each class alike."""
    train, heldout = _halves_by_class(
        without_classes(check_side(load_images("caltech101", "all"), 128), ["BACKGROUND_Google"])
    )
    return train, [heldout]


def tiny_imagenet() -> Sets:
    """A fifth of the training images, 100 a class; 3,000 validation images are held out."""
    train, (asked,) = tiny_imagenet_whole()
    return train.select(np.arange(20_000)), [_as_heldout(asked, np.arange(3_000))]


def tiny_imagenet_whole() -> Sets:
    """All training images, all validation images."""
    train, asked = (check_side(load_images("tiny_imagenet", name), 64) for name in ("train", "val"))
    return train, [asked]


def pacs() -> Sets:
    """Photographs, paintings and cartoons, 70 % and 30 %, each class alike; sketches are the shift."""
    photo, painting, cartoon, sketch = (
        check_side(load_images("pacs", domain), 224) for domain in ("photo", "art_painting", "cartoon", "sketch")
    )
    train, heldout = _halves_by_class(join_sets([photo, painting, cartoon], split="painted"))
    return train, [heldout, sketch]


def imagenet_sample() -> Sets:
    """1,300 pictures of ImageNet's validation set, cut to centre squares; no network of it is trained here."""
    asked = check_side(load_images("imagenet_sample", "val"), 224)
    return asked.select(np.arange(0)), [asked]


def imagenet() -> Sets:
    """The whole validation set of ImageNet; no network of it is trained here."""
    asked = load_images("imagenet", "val")
    if len(asked.classes) != 1000:
        raise ValueError(
            f"imagenet/val must have the 1,000 classes of ILSVRC-2012, since published networks number these; it has "
            f"{len(asked.classes)}. Put its pictures into one folder a WordNet id, n01440764 to n15075141."
        )
    return asked.select(np.arange(0)), [asked]


BENCHMARK_SETS: dict[str, Callable[[], Sets]] = {
    each.__name__: each
    for each in (
        cifar10,
        cifar100,
        cifar100_whole,
        caltech101,
        tiny_imagenet,
        tiny_imagenet_whole,
        pacs,
        imagenet_sample,
        imagenet,
    )
}


@lru_cache(maxsize=1)  # the images of one benchmark may fill a gigabyte
def _load_sets(name: str) -> Sets:
    return BENCHMARK_SETS[check_choice(name, BENCHMARK_SETS, "sets of a benchmark")]()


def load_benchmark_sets(bench: Benchmark) -> Sets:
    """What trains the networks of a benchmark, and what they are asked.

    Raises:
        FileNotFoundError: if images are not here; the message says how to get them.
        ValueError: if they have another size, or the benchmark names sets that there are not.
    """
    return _load_sets(bench.sets or bench.name)


# Sets of the studies


@cache
def load_study_sets(name: str) -> dict[str, ImageSet]:
    """What trains, what judges (validation, if there is such), what tests, and images of other classes.

    Raises:
        FileNotFoundError: if images are not here; the message says how to get them.
    """
    study = studies.load_study(name)
    train, test = load_images(study.dataset, "train"), load_images(study.dataset, "test")
    whole = study.images >= len(train)
    parts = {"train": train if whole else train.select(first_rows(train, study.images))}
    if study.validation:
        parts["validation"] = train.select(first_rows(train, study.validation, study.images))
    parts["test"] = test if study.tested is None else test.select(np.arange(study.tested))
    others = load_images(study.others, "test")
    if study.dataset == "cifar10":
        others = without_classes(others, CIFAR10_OVERLAP["cifar100"])
    return parts | {"others": others.select(np.arange(min(OTHERS, len(others))))}


@cache
def load_shifts() -> list[ImageSet]:
    """Some CIFAR-10 test images under each of SHIFTS."""
    return list(load_corrupted(SHIFTS))


# Sets of the embedded store


def _clean() -> Iterator[ImageSet]:
    """CIFAR-10 test, whole, in the official order."""
    yield load_images("cifar10", "test")


def _learnt() -> Iterator[ImageSet]:
    """Some of the images that the networks were trained on: they know these labels, so nothing is tested on them."""
    whole = load_images("cifar10", "train")
    yield whole.select(first_rows(whole, LEARNT))


def _others() -> Iterator[ImageSet]:
    """Images of CIFAR-100 and Tiny-ImageNet whose class CIFAR-10 does not have; labels are those of their own set."""
    for name, part in (("cifar100", "test"), ("tiny_imagenet", "val")):
        rest = without_classes(load_images(name, part), CIFAR10_OVERLAP[name])
        rest = check_side(rest.select(np.arange(OTHERS)), 32)
        yield rest.with_images(rest.images, name=f"{name}_ood", split=part)


def _noise() -> Iterator[ImageSet]:
    """Images of noise; the label says which kind."""
    images = np.concatenate([noise_images(kind, NOISE, 32) for kind in NOISE_SETS])
    labels = np.repeat(np.arange(len(NOISE_SETS)), NOISE)
    digest, index = pixels_digest(images), np.tile(np.arange(NOISE), len(NOISE_SETS))
    yield ImageSet(images, labels, tuple(NOISE_SETS), "noise", "test", digest, index)


EMBEDDED_SETS: dict[str, Callable[[], Iterator[ImageSet]]] = {
    "clean": _clean,
    "learnt": _learnt,
    "corrupted": load_corrupted,
    "others": _others,
    "noise": _noise,
}
