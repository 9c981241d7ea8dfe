"""Images and labels: where they lie, how they get there, how they are read, corrupted and kept apart.

A prepared split is a folder <set>/<split> with images.npy (uint8 n h w 3), labels.npy (int64), meta.json (class names,
counts, sha256 of the files) and further label arrays. Splits are looked for in $UQLIB_DATA, then in the cache; CIFAR
and Tiny-ImageNet are downloaded into the cache on first use, checksum verified, in the official order. A split may
also be a folder of class folders of image files (torchvision's ImageFolder); such images are read when asked for.
Nothing is ever replaced by another data set: what is missing is named, with the way to get it, and a file whose bytes
are not those that its meta.json names is refused.
"""

from uqlib.images.corruptions import CORRUPTIONS, corrupt
from uqlib.images.crops import random_crop, random_crops
from uqlib.images.folders import Folder, class_folders
from uqlib.images.interventions import INTERVENTIONS, intervene
from uqlib.images.labels import at_hand, disputed, human_counts, mislabel, noisy_labels
from uqlib.images.noise_sets import NOISE_SETS, blobs, gaussian, noise_images, rademacher, uniform
from uqlib.images.photos import decode, ink, read_image, size_of
from uqlib.images.prepared import read_prepared, write_prepared
from uqlib.images.sequences import Changed, Files, Images, check_images, check_pixels, row_numbers, select, squares
from uqlib.images.sets import (
    CIFAR10_OVERLAP,
    CIFAR100_OVERLAP,
    TRAITS,
    ImageSet,
    join_sets,
    pixels_digest,
    without_classes,
)
from uqlib.images.sources import SOURCES, SPLITS, load_images, split_places, verify_images

__all__ = [
    "CIFAR10_OVERLAP",
    "CIFAR100_OVERLAP",
    "CORRUPTIONS",
    "INTERVENTIONS",
    "NOISE_SETS",
    "SOURCES",
    "SPLITS",
    "TRAITS",
    "Changed",
    "Files",
    "Folder",
    "ImageSet",
    "Images",
    "at_hand",
    "blobs",
    "check_images",
    "check_pixels",
    "class_folders",
    "corrupt",
    "decode",
    "disputed",
    "gaussian",
    "human_counts",
    "ink",
    "intervene",
    "join_sets",
    "load_images",
    "mislabel",
    "noise_images",
    "noisy_labels",
    "pixels_digest",
    "rademacher",
    "random_crop",
    "random_crops",
    "read_image",
    "read_prepared",
    "row_numbers",
    "select",
    "size_of",
    "split_places",
    "squares",
    "uniform",
    "verify_images",
    "without_classes",
    "write_prepared",
]
