"""Image sets: images, labels, names of classes, and a digest that changes with any pixel."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Int

from uqlib.base.arrays import as_tensor
from uqlib.base.checks import check_rows
from uqlib.files import fingerprint
from uqlib.files.whole import check_word
from uqlib.images.sequences import Files, row_numbers, select

# Classes of other sets that are also CIFAR-10 classes, hence not "out of distribution" for a CIFAR-10 network.
# Rule: the synset is one of the ten (car n02958343, truck n04490091, ...) or below it in the WordNet of ImageNet.
# `ship` is read as vessel (n04530566): CIFAR-10's own file names count lifeboat and gondola among its ships.
CIFAR10_OVERLAP: dict[str, dict[str, str]] = {
    # Tractors, tanks, buses and streetcars are not below car or truck in WordNet, leopards and lions not below cat,
    # wolves not below dog; they stay. CIFAR-100 was chosen to share no class, but a pickup is a truck.
    "cifar100": {"pickup_truck": "truck"},
    # Not below the ten, and kept: go-kart (motor vehicle), school bus and trolleybus, freight car (a railway car),
    # tractor, lion (big cat), gazelle and bighorn (bovids, no deer), salamander (no frog), the lifting crane.
    "tiny_imagenet": {
        "n02814533": "automobile",  # beach wagon, station wagon
        "n03100240": "automobile",  # convertible
        "n03670208": "automobile",  # limousine
        "n04285008": "automobile",  # sports car
        "n01855672": "bird",  # goose
        "n02002724": "bird",  # black stork
        "n02056570": "bird",  # king penguin
        "n02058221": "bird",  # albatross
        "n02123045": "cat",  # tabby
        "n02123394": "cat",  # Persian cat
        "n02124075": "cat",  # Egyptian cat
        "n02125311": "cat",  # cougar: a wildcat, and wildcats are below cat.n.01
        "n02085620": "dog",  # Chihuahua
        "n02094433": "dog",  # Yorkshire terrier
        "n02099601": "dog",  # golden retriever
        "n02099712": "dog",  # Labrador retriever
        "n02106662": "dog",  # German shepherd
        "n02113799": "dog",  # standard poodle
        "n01641577": "frog",  # bullfrog
        "n01644900": "frog",  # tailed frog
        "n03447447": "ship",  # gondola: a boat
        "n03662601": "ship",  # lifeboat: a boat
        "n03796401": "truck",  # moving van: a van, and vans are below truck.n.01
        "n03977966": "truck",  # police van: a van
    },
    # Kept: motorbikes, helicopters, leopards (big cats).
    "caltech101": {
        "airplanes": "airplane",
        "car_side": "automobile",
        "emu": "bird",
        "flamingo": "bird",
        "flamingo_head": "bird",
        "ibis": "bird",
        "pigeon": "bird",
        "rooster": "bird",
        "cougar_body": "cat",
        "cougar_face": "cat",
        "garfield": "cat",
        "wild_cat": "cat",
        "dalmatian": "dog",
        "snoopy": "dog",
        "ferry": "ship",
        "ketch": "ship",
        "schooner": "ship",
    },
}

# Likewise for CIFAR-100. By what they show, not by WordNet: goldfish, faces of people, plates of food, projectiles, the seashore.
CIFAR100_OVERLAP: dict[str, dict[str, str]] = {
    "tiny_imagenet": {
        "n01443537": "aquarium_fish",  # goldfish
        "n01742172": "snake",  # boa constrictor
        "n01774384": "spider",  # black widow
        "n01774750": "spider",  # tarantula
        "n01944390": "snail",
        "n01983481": "lobster",  # American lobster
        "n01984695": "lobster",  # spiny lobster
        "n02129165": "lion",
        "n02132136": "bear",  # brown bear
        "n02165456": "beetle",  # ladybug
        "n02206856": "bee",
        "n02233338": "cockroach",
        "n02279972": "butterfly",  # monarch
        "n02281406": "butterfly",  # sulphur butterfly
        "n02403003": "cattle",  # ox
        "n02437312": "camel",  # Arabian camel
        "n02481823": "chimpanzee",
        "n02504458": "elephant",  # African elephant
        "n02823428": "bottle",  # beer bottle
        "n03937543": "bottle",  # pill bottle
        "n03983396": "bottle",  # pop bottle
        "n04560804": "bottle",  # water jug
        "n03085013": "keyboard",  # computer keyboard
        "n02917067": "train",  # bullet train
        "n03179701": "table",  # desk
        "n03201208": "table",  # dining table
        "n03649909": "lawn_mower",
        "n03902125": "telephone",  # pay-phone
        "n07579787": "plate",
        "n04008634": "rocket",  # projectile
        "n04146614": "bus",  # school bus
        "n04487081": "bus",  # trolleybus
        "n04099969": "chair",  # rocking chair
        "n04311004": "bridge",  # steel arch bridge
        "n04366367": "bridge",  # suspension bridge
        "n04532670": "bridge",  # viaduct
        "n04465501": "tractor",
        "n07734744": "mushroom",
        "n07747607": "orange",
        "n07720875": "sweet_pepper",  # bell pepper
        "n09428293": "sea",  # seashore
        "n09193705": "mountain",  # alp
    },
    # Kept: crayfish, cougars, watches, trees of other kinds.
    "caltech101": {
        "beaver": "beaver",
        "butterfly": "butterfly",
        "chair": "chair",
        "windsor_chair": "chair",
        "wheelchair": "chair",
        "crab": "crab",
        "crocodile": "crocodile",
        "crocodile_head": "crocodile",
        "cup": "cup",
        "dolphin": "dolphin",
        "elephant": "elephant",
        "kangaroo": "kangaroo",
        "lamp": "lamp",
        "Leopards": "leopard",
        "lobster": "lobster",
        "Motorbikes": "motorcycle",
        "sunflower": "sunflower",
        "hawksbill": "turtle",
        "brontosaurus": "dinosaur",
        "stegosaurus": "dinosaur",
        "cellphone": "telephone",
        "Faces": "woman",
        "Faces_easy": "woman",
    },
}


@dataclass(frozen=True)
class ImageSet:
    """A split of a data set, or some rows of one.

    Args:
        images: uint8 (n, h, w, 3), usually memory-mapped; or `Images`, such as `Files`, made when asked for.
        labels: int64 (n,).
        classes: name of each label.
        name, split: which data.
        digest: 64 hexadecimal digits that change with the pixels or the rows; part of a store's key. What a network
            says does not hang on the labels, so they need not change it (in a folder of class folders they do).
        index: row number of each image in the split.
        extras: further arrays with n rows, such as the votes of people.
    """

    images: Any
    labels: Int[np.ndarray, " n"]
    classes: tuple[str, ...]
    name: str
    split: str
    digest: str
    index: Int[np.ndarray, " n"]
    extras: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def fingerprint(self) -> str:
        """64 hexadecimal digits that change with the pixels, the rows, the labels or the classes, not with the names."""
        parts = {"images": self.digest, "labels": self.labels, "classes": self.classes}
        return fingerprint.fingerprint(parts)

    def select(self, rows: Any) -> "ImageSet":
        """Only these rows, in this order: indices or a mask. Pixels of a memory map are read; `Images` are not."""
        rows = row_numbers(rows, len(self))
        digest = hashlib.sha256(self.digest.encode() + rows.astype("<i8").tobytes()).hexdigest()
        arrays = {"labels": self.labels[rows], "index": self.index[rows]}
        extras = {name: array[rows] for name, array in self.extras.items()}
        return replace(self, images=select(self.images, rows), digest=digest, extras=extras, **arrays)

    def with_images(self, images: Any, *, name: str, split: str) -> "ImageSet":
        """The same labels and rows with other pixels, such as corrupted ones, under another name.

        All are read once, for their digest: `Images` are made for it, and again when they are used.
        """
        check_rows(images, len(self), "images")
        return replace(self, images=images, name=name, split=split, digest=pixels_digest(images))


def join_sets(sets: Sequence[ImageSet], *, split: str) -> ImageSet:
    """Several splits of one data set as one, such as three domains; rows come in this order, numbered through.

    Pixels are copied into memory, so all must have one shape; files stay where they are.

    Args:
        sets: at least one; name, classes, the shape of an image and the names of the extras must agree.
        split: name of the whole.

    Raises:
        ValueError: if there is no set, or they differ in one of these.
        TypeError: if the images are neither arrays nor files.
    """
    if not len(sets):
        raise ValueError("sets is empty; at least one is needed")
    check_word(split, "split")
    first = sets[0]
    for other in sets[1:]:
        for what, trait in TRAITS.items():
            if trait(first) != trait(other):
                raise ValueError(f"{first.split} and {other.split} differ in {what}: {trait(first)} and {trait(other)}")
    labels = np.concatenate([each.labels for each in sets])
    digest = hashlib.sha256("".join(each.digest for each in sets).encode()).hexdigest()
    extras = {name: np.concatenate([each.extras[name] for each in sets]) for name in first.extras}
    images = _joined([each.images for each in sets])
    return ImageSet(images, labels, first.classes, first.name, split, digest, np.arange(len(labels)), extras)


TRAITS: dict[str, Callable[[ImageSet], Any]] = {  # what sets must share to be joined
    "name": lambda each: each.name,
    "classes": lambda each: each.classes,
    "kind of images": lambda each: "array" if hasattr(each.images, "shape") else type(each.images).__name__,
    "shape of an image": lambda each: getattr(each.images, "shape", (0,))[1:],
    "extras": lambda each: sorted(each.extras),
}


def _joined(images: Sequence[Any]) -> Any:
    if hasattr(images[0], "shape"):
        return np.concatenate(images)
    if not isinstance(images[0], Files):
        raise TypeError(
            f"only arrays and files are joined, not {type(images[0]).__name__}; join first, change afterwards"
        )
    return Files.joined(images)


def pixels_digest(images: Any) -> str:
    """sha256 of shape and pixels, image by image where they are files or of several sizes."""
    digest = hashlib.sha256()
    for k in range(0, len(images), 256):
        block = images[k : k + 256]
        for array in [block] if hasattr(block, "shape") else block:
            fingerprint.feed(digest, as_tensor(array))
    return digest.hexdigest()


def without_classes(image_set: ImageSet, classes: Iterable[str]) -> ImageSet:
    """The rows of all other classes; labels keep their numbers and `classes` its length.

    Args:
        image_set: any.
        classes: names to leave out, such as CIFAR10_OVERLAP["cifar100"].

    Raises:
        TypeError: if the classes are one text.
        ValueError: if a name is no class of the set.
    """
    if isinstance(classes, str):
        raise TypeError(f"classes must be a list of names; it is the text {classes!r}. One class? Pass [{classes!r}].")
    unknown = sorted(map(str, set(classes := tuple(classes)) - set(image_set.classes)))
    if unknown:
        raise ValueError(
            f"{image_set.name} has no class {', '.join(unknown)}; the first of its classes are "
            f"{', '.join(image_set.classes[:5])}"
        )
    out = [label for label, name in enumerate(image_set.classes) if name in classes]
    return image_set.select(~np.isin(image_set.labels, out))
