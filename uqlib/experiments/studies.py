"""Studies of many trainings: what each trained network said, and how hard each scorer finds each image.

data/trainings/PAPER.toml says which trainings there are, `uqlib train` makes them, and each leaves one file in data/trained; data/difficulty holds the scores, one file a split. Logits are not kept: for one number a test image in
place of one a class, a hundred trainings fit into the repository.
"""

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from uqlib import losses
from uqlib.base.extras import named
from uqlib.base.options import check_choice
from uqlib.base.provenance import note_input
from uqlib.base.scales import at_scale
from uqlib.experiments.benchmarks import load_benchmark
from uqlib.experiments.keeping.kept_columns import open_kept
from uqlib.files.columns import Header, check_columns, read_column, read_header
from uqlib.files.fingerprint import fingerprint
from uqlib.files.typed import TomlTable, read_toml
from uqlib.files.whole import DamagedError, in_checkout, parsed, sha256_of_file
from uqlib.metrics import Judged
from uqlib.networks.zoo import network_label

with named():
    from msgspec import field
    from msgspec.structs import replace

TRAININGS = "data/trainings"  # a file a paper
TRAINED = "data/trained/{study}"
MATCHED = "difficulty"  # the variant whose mean weight another takes over, by alpha = "matched"
OF_TEST_IMAGES = ("top", "entropy", "max_logit", "preds")
DIFFICULTY = "data/difficulty/{dataset}.{split}.safetensors"


class Variant(TomlTable, frozen=True):
    """One way of training, repeated over seeds."""

    name: str
    loss: str
    options: Mapping[str, Any] = field(default_factory=dict)  # of the loss
    training: Mapping[str, Any] = field(default_factory=dict)  # network, epochs, lr, ... as `training.train` has them
    weights: Mapping[str, Any] = field(default_factory=dict)  # scorer, measure, normaliser, temperature
    labels: str = "clean"  # or a kind of `images.noisy_labels`
    seeds: int = 0  # 0: as many as the study says
    detail: bool = False
    value: float = 1.0  # what is worth more is made first; no part of the settings


class Study(TomlTable, frozen=True):
    """The trainings on one data set at one scale."""

    name: str
    scale: Literal["cpu", "gpu"]
    dataset: str
    others: str
    images: int
    validation: int
    components: int
    seeds: int  # of each variant, like `training` and `weights`, unless the variant says more
    training: Mapping[str, Any]
    weights: Mapping[str, Any]
    tested: int | None = None
    aside: bool = False  # asks a question of its own: `study_names` leaves it out
    like: str = ""  # the study, of any paper, whose variants come before those listed here
    listed: tuple[Variant, ...] = field(name="variant", default=())

    @property
    def variants(self) -> dict[str, Variant]:
        """The variants by name, in the order of the file."""
        return {variant.name: variant for variant in self.listed}

    @property
    def title(self) -> str:
        """Its data set in print."""
        return load_benchmark(self.dataset).title

    def __str__(self) -> str:
        how = self.training
        return f"{network_label(how['network'])} on {self.images:,} images of {self.title}, {how['epochs']} epochs"

    def differing(self, name: str, *places: str) -> dict[Any, str]:
        """The variants that differ from one in these places alone, by what they have there, the one itself among them.

        Args:
            name: of the variant to differ from.
            places: such as "training.network" or "weights.measure"; of several the keys are tuples. Where a variant has
                nothing in a place, the key has None.

        Raises:
            ValueError: if no variant of that name or none with such a place is there.
        """
        flat = {
            each.name: {"loss": each.loss, "labels": each.labels}
            | {f"{part}.{k}": v for part in ("options", "training", "weights") for k, v in getattr(each, part).items()}
            for each in self.listed
        }
        known = sorted({place for each in flat.values() for place in each})
        there = {each: tuple(flat[each].pop(check_choice(p, known, "place"), None) for p in places) for each in flat}
        same = flat[check_choice(name, flat, f"variant of {self.name}")]
        return {key[0] if len(key) == 1 else key: each for each, key in there.items() if flat[each] == same}

    def settings(self, variant: Variant, seed: int) -> dict[str, Any]:
        """All that a training and its file rest on: the images, the loss with each of its options, what it is matched to."""
        weighted = {variant.loss: variant} if variant.loss == "difficulty" else {}
        if variant.options.get("alpha") == "matched":
            weighted[MATCHED] = self.variants[check_choice(MATCHED, self.variants, f"variant to match in {self.name}")]
        given = inspect.signature(losses.LOSSES[check_choice(variant.loss, losses.LOSSES, "loss")]).parameters.values()
        defaults = {each.name: each.default for each in given if each.kind is each.KEYWORD_ONLY}
        known = {name: value for name, value in defaults.items() if value is not inspect.Parameter.empty}
        return {
            "variant": variant.name,
            "seed": seed,
            "dataset": self.dataset,
            "others": self.others,
            "images": self.images,
            "validation": self.validation,
            "tested": self.tested,
            "components": self.components,
            "loss": variant.loss,
            "options": known | dict(variant.options),
            "training": dict(variant.training),
            "weights": {name: dict(each.weights) | {"labels": each.labels} for name, each in weighted.items()},
            "labels": variant.labels,
            "detail": variant.detail,
        }

    def file(self, variant: Variant, seed: int) -> Path:
        """Place of one training below the checkout; the digits change with every setting but the seed."""
        shared = {name: value for name, value in self.settings(variant, seed).items() if name != "seed"}
        return Path(TRAINED.format(study=self.name), f"{variant.name}-{fingerprint(shared)[:8]}-{seed}.safetensors")


@dataclass(frozen=True)
class Training:
    """One trained network, by its file."""

    path: Path
    seed: int

    @cached_property
    def _header(self) -> Header:
        header = read_header(self.path)
        check_columns(self.path, header, {"correct": (1, "b")} | {name: (1, "fiu") for name in OF_TEST_IMAGES})
        return header

    @cached_property
    def about(self) -> dict[str, Any]:
        """Settings, epochs, metrics on test and validation images, versions, date and seconds."""
        return _about(self.path, self._header)

    def __contains__(self, column: str) -> bool:
        return column in self._header.columns

    def __getitem__(self, column: str) -> Tensor:
        """A column as a tensor; float16 comes as float64.

        `correct` and `top` (minus the logarithm of the largest probability) are in every file. With `detail` there are
        also preds, entropy and max_logit, the last two and top again for images of other classes (`other_...`), and
        correct and top for corrupted images (`corrupted_...`).
        """
        check_choice(column, self._header.columns, f"column of {self.path.name}")
        tensor = torch.from_numpy(np.array(read_column(self.path, self._header, column)))
        return tensor.double() if tensor.is_floating_point() else tensor

    @property
    def correct(self) -> Bool[Tensor, " n"]:
        """Whether each test image was classified as its label says."""
        return self["correct"]

    @property
    def confidence(self) -> Float[Tensor, " n"]:
        """Largest probability of each test image."""
        return (-self["top"]).exp()


def load_study(name: str) -> Study:
    """The study of that name in data/trainings; names are unique over all papers."""
    return _all()[check_choice(name, _all(), "study")]


def study_names(scale: str = "cpu", dataset: str = "", *, aside: bool = False) -> list[str]:
    """The studies of a scale, of one data set or all, in the order of their files; smoke has those of cpu, paper those of gpu.

    Args:
        scale: whose studies.
        dataset: of which they are; "" for all.
        aside: also those that ask a question of their own.
    """
    own = at_scale(scale, smoke="cpu", cpu="cpu", gpu="gpu")
    found = {name: each for name, each in _all().items() if each.scale == own and dataset in ("", each.dataset)}
    return [name for name, each in found.items() if aside or not each.aside]


def load_trainings(name: str, variants: Sequence[str] | None = None) -> dict[str, list[Training]]:
    """The trained networks of a study by variant, seeds in order; row k of all is the same test image.

    Args:
        name: of the study.
        variants: names; all by default, none for an empty list.

    Raises:
        ValueError: if the study or a variant is unknown.
        TypeError: if the variants are one name alone.
        FileNotFoundError: if a training is missing; the message says what makes it.
        DamagedError: if a file holds another training than its name says; both are named.
    """
    found = load_study(name)
    if isinstance(variants, str):
        raise TypeError(f"variants must be names in a list: pass [{variants!r}]")
    wanted = list(found.variants if variants is None else variants)
    chosen = [found.variants[check_choice(each, found.variants, f"variant of {name}")] for each in wanted]
    return {each.name: [_present(found, each, seed) for seed in range(each.seeds)] for each in chosen}


def load_by_title(names: Sequence[str], variants: Sequence[str]) -> dict[str, dict[str, list[Training]]]:
    """The trained networks of several studies by the title of their data set, of those variants that each study has."""
    own = map(load_study, names)
    return {each.title: load_trainings(each.name, [v for v in variants if v in each.variants]) for each in own}


def under_corruption(
    trained: Mapping[str, Sequence[Training]], severity: int, corruption: int | None = None
) -> dict[str, list[Judged]]:
    """What trainings with `detail` said of corrupted images, by variant.

    Args:
        trained: from `load_trainings`, of CIFAR-10.
        severity: 1 to 5.
        corruption: its number, for a row an image; or None, for all of them, the versions of an image one after the other.
    """

    def one(run: Training) -> Judged:
        told, right = (run[name].unflatten(1, (5, -1)) for name in ("corrupted_top", "corrupted_correct"))
        rows = slice(None) if corruption is None else corruption
        return Judged(*(each[rows, severity - 1].movedim(-1, 0).flatten() for each in ((-told).exp(), right)))

    return {variant: [one(run) for run in runs] for variant, runs in trained.items()}


def load_difficulty(dataset: str, split: str) -> "Scored":
    """How hard every image of a split is, by several scorers and measures.

    Raises:
        FileNotFoundError: if nobody has scored that split.
        DamagedError: if a byte differs from what was written.
    """
    path, header = open_kept(DIFFICULTY.format(dataset=dataset, split=split), "uqlib difficulty")
    check_columns(path, header, {"labels": (1, "iu")})
    columns = {name: torch.from_numpy(np.array(read_column(path, header, name))) for name in header.columns}
    return Scored(
        {n: c.float() if c.is_floating_point() else c.long() for n, c in columns.items()}, _about(path, header)
    )


@dataclass(frozen=True)
class Scored:
    """Difficulty scores by `measure/scorer`, such as "rmd/tf_mobilenetv2_100"; higher = harder."""

    columns: Mapping[str, Tensor]
    about: Mapping[str, Any]  # of each scorer: dimensions, preprocessing, images a second

    def __getitem__(self, name: str) -> Float[Tensor, "..."]:
        """(n,); of damaged images (corruption, severity, n), of all labels (n, classes)."""
        return self.columns[check_choice(name, self.columns, "score")]

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    @property
    def labels(self) -> Tensor:
        return self.columns["labels"]

    def scorers(self, measure: str = "rmd") -> list[str]:
        """Networks that have this measure."""
        return [name.split("/", 1)[1] for name in self.columns if name.startswith(f"{measure}/")]


def _about(path: Path, header: Header) -> dict[str, Any]:
    return parsed(path, header.metadata.get("about"), "its header does not say what it is about")


def _present(found: Study, variant: Variant, seed: int) -> Training:
    place = found.file(variant, seed)
    if (path := in_checkout(str(place))) is None:
        raise FileNotFoundError(f"no {place}; `uqlib train {found.name} {variant.name} {seed}` trains it")
    run = Training(path, seed)
    wanted, there = found.settings(variant, seed), run.about.get("rests_on")
    if not isinstance(there, dict):
        raise DamagedError(path, "it does not say which training it holds")
    if there != json.loads(json.dumps(wanted)):
        names = [name for name in {**wanted, **there} if there.get(name) != wanted.get(name)]
        differ = ", ".join(f"{name} {there.get(name)}, not {wanted.get(name)}" for name in names)
        raise DamagedError(path, f"it holds another training than its name says: {differ}")
    note_input(place.as_posix(), sha256_of_file(path))
    return run


class StudyFile(TomlTable, frozen=True):
    """The studies of one paper."""

    studies: tuple[Study, ...] = field(name="study", default=())


@cache
def _all() -> Mapping[str, Study]:
    """Every study of every paper by name, each with all its variants."""
    if (folder := in_checkout(TRAININGS)) is None:
        raise FileNotFoundError(f"no {TRAININGS} around {Path.cwd()}; run from a checkout of the book")
    known: dict[str, Study] = {}
    places: dict[str, Path] = {}
    for path in sorted(folder.glob("*.toml")):
        for study in read_toml(path, StudyFile).studies:
            if study.name in known:
                raise ValueError(f"{places[study.name]} and {path} both have a study {study.name!r}; rename one")
            known[study.name], places[study.name] = study, path
    return {name: _whole(study, known) for name, study in known.items()}


def _whole(study: Study, known: Mapping[str, Study]) -> Study:
    """A study with all its variants, and each of them with what is common to all."""
    whole: list[Variant] = []
    for each in _listed(study, known):
        if each.name in (one.name for one in whole):
            raise ValueError(f"{TRAININGS}: study {study.name} has two variants {each.name!r}")
        common = {name: {**getattr(study, name), **getattr(each, name)} for name in ("training", "weights")}
        whole.append(replace(each, seeds=each.seeds or study.seeds, **common))
    return replace(study, listed=tuple(whole))


def _listed(study: Study, known: Mapping[str, Study], *before: str) -> tuple[Variant, ...]:
    """The variants of the study that it is like, then its own."""
    if study.name in before:
        raise ValueError(f"{TRAININGS}: study {study.name} is like itself, by way of {', '.join(before)}")
    if not study.like:
        return study.listed
    like = known[check_choice(study.like, known, "study to be like")]
    return _listed(like, known, *before, study.name) + study.listed
