"""What is kept of the trials of each backbone, as labelled arrays: the dimensions of `metrics.compare`, and the set."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from uqlib.base.extras import named
from uqlib.base.options import check_choice
from uqlib.experiments.keeping.kept_columns import AWAY, open_kept, unpack_draws
from uqlib.experiments.uncertainties.upstream_features import BACKBONES, STRONGER, TOLD, UNSEEN
from uqlib.files.columns import Header, read_column
from uqlib.files.whole import in_checkout
from uqlib.metrics.compare import together

with named():
    import xarray as xr

UPSTREAM = "tiny_imagenet"  # the images held out of the set that heads learn from
NAMES = {UPSTREAM: "Tiny-ImageNet, held out"} | UNSEEN | BACKBONES | STRONGER  # in print
MEAN = "unseen sets, mean"
PLACE = "data/trained/uncertainty/{}.safetensors"


def read_drawn(path: Path, header: Header, name: str) -> np.ndarray:
    """A column, with its draws where they lie beside it."""
    array = np.array(read_column(path, header, name))
    if name + AWAY not in header.columns:
        return array
    return unpack_draws(array, np.array(read_column(path, header, name + AWAY)))


@dataclass(frozen=True)
class KeptTrials:
    """The file of one backbone."""

    backbone: str
    path: Path
    header: Header
    settings: dict[str, Any]  # what the trials were made with

    def column(self, name: str) -> np.ndarray:
        """A column as it was found; `trials` and `uses` say what each is."""
        return read_drawn(self.path, self.header, name)

    def names(self, kind: str) -> list[str]:
        """What there is of a kind: the names after `kind/`, in the order of the sets and then of the file."""
        found = [name.removeprefix(f"{kind}/") for name in self.header.columns if name.startswith(f"{kind}/")]
        found = [name for name in found if not name.endswith(AWAY)]
        order = [UPSTREAM, *UNSEEN]
        return sorted(found, key=lambda name: order.index(first) if (first := name.split("/")[0]) in order else -1)

    def tried_scores(self, kind: str = "r_auroc", variants: Sequence[str] = ()) -> xr.DataArray:
        """Draws of every score on every set: dimensions set, variant, training, draw; entry 0 of draw is all images.

        A score without trainings (entropy, distance, ...) is the same in each.

        Args:
            kind: "r_auroc", "auroc" or "half".
            variants: some scores; by default all.
        """
        pairs = [name.split("/") for name in self.names(kind)]
        sets = list(dict.fromkeys(name for name, _ in pairs))
        known = list(dict.fromkeys(score for _, score in pairs))
        chosen = [check_choice(name, known, "score") for name in variants] or known
        columns = {(s, v): self.column(f"{kind}/{s}/{v}").astype(float) for s in sets for v in chosen}
        runs = max(map(len, columns.values()))
        grid = [[_repeated(columns[s, v], runs) for v in chosen] for s in sets]
        names = {"set": sets, "variant": chosen, "training": range(runs), "draw": range(len(grid[0][0][0]))}
        return xr.DataArray(np.array(grid), coords=names)

    def epochs(self) -> xr.DataArray:
        """R-AUROC of all images after each epoch: dimensions objective, where, epoch, training, draw."""
        columns = {name: self.column(f"epochs/{name}").astype(float) for name in self.names("epochs")}
        table = np.array(list(columns.values())).transpose(0, 3, 2, 1)[..., None]
        where = [NAMES[UPSTREAM], MEAN]
        names = {"objective": list(columns), "where": where, "epoch": range(1, 1 + table.shape[2])}
        return xr.DataArray(table, coords=names | {"training": range(table.shape[3]), "draw": [0]})

    def recall(self) -> xr.DataArray:
        """Recall@1 of every set with its draws: dimensions set, draw."""
        sets = self.names("recall")
        table = np.array([self.column(f"recall/{name}").ravel() for name in sets], float)
        return xr.DataArray(table, coords={"set": sets, "draw": range(table.shape[1])})

    def safe(self, name: str) -> xr.DataArray:
        """Recall@1 without the most uncertain tenth: score, rule, removed, training, draw. See `uses.retrieve_safely`."""
        parts = [each.split("/")[1] for each in self.names("safe") if each.split("/")[0] == name]
        columns = {score: self.column(f"safe/{name}/{score}").astype(float) for score in parts}
        return _labelled(columns, rule=["class", "all"], removed=["nothing", "database", "queries", "both"])

    def people(self) -> xr.DataArray:
        """How scores go with what people said of CIFAR-10: variant, training, number, draw. See `uses.judge_by_people`."""
        columns = {score: self.column(f"people/{score}").astype(float) for score in self.names("people")}
        return _labelled(columns, number=["ambiguous", "spearman", "mistaken"])

    def damaged(self) -> xr.DataArray:
        """What heads say of images damaged on purpose: kind, training, strength, image; strength 0 is the whole image."""
        columns = {kind: self.column(f"damaged/{kind}").astype(float) for kind in self.names("damaged")}
        names: dict[str, Any] = {"kind": list(columns), "training": range(len(next(iter(columns.values()))))}
        names |= {"strength": [0.0, *self.settings["strengths"]]}
        return xr.DataArray(np.array(list(columns.values())), names, dims=[*names, "image"])

    def class_names(self, name: str) -> np.ndarray:
        """The classes of a set in words, by the numbers in its labels."""
        return np.array(json.loads(self.header.metadata["about"])["classes"][name])


def _labelled(columns: dict[str, np.ndarray], **names: Sequence[str]) -> xr.DataArray:
    """Columns of runs and draws, by score, as one array; what has fewer runs is repeated, or filled up with NaN."""
    runs = max(map(len, columns.values()))
    table = np.array([_repeated(each, runs) for each in columns.values()])
    whole: dict[str, Any] = {"variant": list(columns), "training": range(runs), **names, "draw": range(table.shape[-1])}
    return xr.DataArray(table, coords=whole)


def _repeated(runs: np.ndarray, count: int) -> np.ndarray:
    """One run as so many; others filled up with NaN."""
    if len(runs) == 1:
        return np.repeat(runs, count, 0)
    return np.concatenate([runs, np.full((count - len(runs), *runs.shape[1:]), np.nan)])


def load_trials(backbone: str = "") -> KeptTrials:
    """What is kept of the trials of a backbone; by default of that of which the numbers of each image are kept.

    Raises:
        FileNotFoundError: if it is not there; the message says what makes it.
    """
    place = PLACE.format(backbone := check_choice(backbone or TOLD, BACKBONES | STRONGER, "backbone"))
    path, header = open_kept(place, f"uqlib uncertainty {backbone}")
    return KeptTrials(backbone, path, header, json.loads(header.metadata["about"])["rests_on"])


def tried_backbones() -> list[str]:
    """The backbones of which trials are kept, the strongest first."""
    return [name for name in STRONGER | BACKBONES if in_checkout(PLACE.format(name)) is not None]


def load_scores(backbones: Sequence[str], kind: str = "r_auroc", variants: Sequence[str] = ()) -> xr.DataArray:
    """`KeptTrials.tried_scores` of several backbones as one, with an outer dimension backbone; these and the sets by name in print."""
    found = together({NAMES[each]: load_trials(each).tried_scores(kind, variants) for each in backbones}, "backbone")
    return found.assign_coords(set=[NAMES[each] for each in found["set"].values])


def load_across() -> xr.DataArray:
    """R-AUROC of the head of each backbone for the misses of each: set, judge (whose misses), head, draw.

    Raises:
        FileNotFoundError: if it is not there; the message says what makes it.
    """
    path, header = open_kept(PLACE.format("across"), "uqlib uncertainty across")
    about = json.loads(header.metadata["about"])
    table = np.array([read_drawn(path, header, name) for name in about["sets"]], float)
    names = {
        "set": about["sets"],
        "judge": about["backbones"],
        "head": about["backbones"],
        "draw": range(table.shape[-1]),
    }
    return xr.DataArray(table, coords=names)
