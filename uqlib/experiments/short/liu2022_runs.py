"""Deep Probability Estimation: the authors' published predictions rescored, and networks that learn from coins on images of CIFAR-10.

Of other people's files only scores are kept. A network of coins is a head of two hidden layers on features of a frozen network:
what early stopping, CaPE and their rivals make of the same coins differs by what is done after the same first epochs.
"""

import copy
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits as cross_entropy_of

from uqlib import metrics
from uqlib.base.extras import named
from uqlib.base.splits import split
from uqlib.calibrate import fit_calibrator
from uqlib.experiments.keeping.kept_runs import Found, KeptRun, load_made
from uqlib.files.fingerprint import fingerprint
from uqlib.label_noise import draw_coins, outcome_probabilities
from uqlib.label_noise.coins import SCENARIOS
from uqlib.losses import cape_targets
from uqlib.metrics.compare import rank_correlation
from uqlib.papers.liu2022 import NAMES, PUBLISHED, REGIMES, read_published
from uqlib.store import load_answers

with named():
    import xarray as xr

SETS: dict[str, dict[str, Any]] = {  # of each network: splits of the store and their sizes, the last of which is tested
    "mobilenetv1_025": {"splits": ("train4000", "test2000"), "train": 3000, "valid": 1000, "test": 2000},
    "cifar_resnet20": {"splits": ("test",), "train": 4000, "valid": 1000, "test": 4000},
}
SETTINGS = [(network, scenario) for network in SETS for scenario in SCENARIOS]
SEEDS = 8
CARD: dict[str, Any] = {
    "place": ("cifar_resnet20", "linear"),
    "methods": ("early", "cape_bin", "platt"),
    "images": 1000,
}
TRAINING: dict[str, Any] = {
    "hidden": 128,
    "batch": 256,
    "lr": 0.02,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "epochs": 100,
}
TRAINING["epochs_of_members"] = 30  # more than it takes to the least validation loss
TUNING: dict[str, Any] = {"lr": 0.002, "epochs": 25}  # from the epoch of least validation loss
AFTER: dict[str, dict[str, Any]] = {  # by method: after so many epochs on outcomes one on these targets
    "cape_bin": {"after": 2, "by": "bins", "groups": 5},
    "cape_kernel": {"after": 3, "by": "kernel", "width": 0.05, "reach": 100},
    "one_group": {"after": 2, "by": "bins", "groups": 1},
    "continued": {},
}
MAPS = {"temperature": "early", "platt": "early", "isotonic": "early", "cape_platt": "cape_bin"}
MEASURED = ("mse_p", "kl_p", "brier_outcome", "nll", "ece_mass", "mce", "ks", "auc")  # Brier: half that of two classes
WATCHED = {"brier": "brier_outcome", "ece": "ece_mass", "auc": "auc"}  # measures that need no truth
METHODS = ("early", "fresh", "overfit", *AFTER, *MAPS, "ensemble")
CAPE = ("cape_bin", "cape_kernel")  # what the paper proposes
RIVALS = ("early", "temperature", "platt", "ensemble")  # what it is compared with there, as far as it is here
HALVES = {"splits": 20, "draws": 40, "repeats": 40}
FEW = (50, 100, 200, 500, 1000, 2000)  # cases that fit a map


class Part(NamedTuple):
    """Some images: features, true probabilities, and a coin each."""

    features: Tensor
    truth: np.ndarray
    coins: np.ndarray


def coin_world(network: str, scenario: str, seed: int) -> dict[str, Part]:
    """Features of images of CIFAR-10 with coins thrown by the seed: train, valid, test; standardised by the first."""
    about = SETS[network]
    answers = [load_answers(network, "cifar10", each, columns=("features", "labels")) for each in about["splits"]]
    features = torch.cat([each.features for each in answers]).float()
    truth = outcome_probabilities(torch.cat([each.labels for each in answers]), scenario)
    coins, learnt = draw_coins(truth, seed=1000 + seed), about["train"] + about["valid"]
    pool = torch.randperm(len(answers[0]), generator=torch.Generator().manual_seed(seed))
    rest = pool[learnt:] if len(answers) == 1 else torch.arange(len(answers[0]), len(features))
    rows = {"train": pool[: about["train"]], "valid": pool[about["train"] : learnt], "test": rest[: about["test"]]}
    mean, spread = features[rows["train"]].mean(0), features[rows["train"]].std(0).clamp_min(1e-6)
    features = (features - mean) / spread
    return {name: Part(features[each], truth[each.numpy()], coins[each.numpy()]) for name, each in rows.items()}


def new_network(width: int, seed: int) -> nn.Sequential:
    """Two hidden layers and a logit, drawn by the seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hidden = TRAINING["hidden"]
        return nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )


@torch.no_grad()
def estimates_of(network: nn.Module, features: Tensor) -> np.ndarray:
    """Probabilities of outcome 1."""
    return network(features)[:, 0].double().sigmoid().numpy()


def two_sided(scores: np.ndarray) -> np.ndarray:
    """Probabilities of both outcomes, none so small that it has no logarithm."""
    return np.stack([1 - scores, scores], 1).clip(1e-12)


Targets = Callable[[int, nn.Module], Any]


def train_on(
    network: nn.Sequential, world: dict[str, Part], targets: Targets, *, epochs: int, lr: float, seed: int
) -> tuple[nn.Sequential, nn.Sequential]:
    """Train on the targets of each epoch; the network of least validation loss, and the last."""
    network, x, valid = copy.deepcopy(network), world["train"].features, world["valid"]
    rules = {name: TRAINING[name] for name in ("momentum", "weight_decay")}
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, fused=True, **rules)
    generator = torch.Generator().manual_seed(seed)
    best, least = copy.deepcopy(network), np.inf
    for epoch in range(epochs):
        target = torch.as_tensor(targets(epoch, network)).float()
        for rows in torch.randperm(len(x), generator=generator).split(TRAINING["batch"]):
            optimizer.zero_grad()
            cross_entropy_of(network(x[rows])[:, 0], target[rows]).backward()
            optimizer.step()
        loss = metrics.nll(np.log(two_sided(estimates_of(network, valid.features))), valid.coins.astype(int))
        if loss < least:
            best, least = copy.deepcopy(network), loss
    return best, network


def similar_outcomes(world: dict[str, Part], epoch: int, network: nn.Module, *, after: int = 0, **how: Any) -> Any:
    """Outcomes; and in every epoch that follows `after` such, and the first, targets of CaPE."""
    x, _, coins = world["train"]
    if not how or epoch % (after + 1):
        return coins
    return cape_targets(estimates_of(network, x), coins, **how)


def fit_methods(world: dict[str, Part], seed: int, *, members: int = 5, epochs: int = 0) -> dict[str, np.ndarray]:
    """Probabilities of outcome 1 of the test images, by method; epochs 0 takes those of TRAINING, fewer also bound those of TUNING."""
    width, rules = world["train"].features.shape[1], {"epochs": epochs or TRAINING["epochs"], "lr": TRAINING["lr"]}
    tuning, plain = TUNING | {"epochs": min(TUNING["epochs"], rules["epochs"])}, partial(similar_outcomes, world)
    early, last = train_on(new_network(width, seed), world, plain, seed=seed, **rules)
    trained = {"early": early, "overfit": last}

    def anew(epoch: int, _: nn.Module) -> np.ndarray:
        return draw_coins(world["train"].truth, seed=10_000 * (seed + 1) + epoch)

    trained["fresh"], _ = train_on(new_network(width, seed), world, anew, seed=seed, **rules)
    for name, how in AFTER.items():
        trained[name], _ = train_on(early, world, partial(similar_outcomes, world, **how), seed=seed, **tuning)
    found = {name: estimates_of(each, world["test"].features) for name, each in trained.items()}
    for name, start in MAPS.items():
        held = estimates_of(trained[start], world["valid"].features)
        found[name] = mapped(name.removeprefix("cape_"), held, world["valid"].coins, found[start])
    rules["epochs"] = min(rules["epochs"], TRAINING["epochs_of_members"])
    others = (new_network(width, 100 + 10 * seed + each) for each in range(1, members))
    trained_too = [early, *(train_on(each, world, plain, seed=seed, **rules)[0] for each in others)]
    found["ensemble"] = np.mean([estimates_of(each, world["test"].features) for each in trained_too], 0)
    return {name: found[name] for name in METHODS}


def judged(scores: np.ndarray, truth: np.ndarray, coins: np.ndarray) -> list[float]:
    """What MEASURED names, of estimated probabilities."""
    gaps = (scores - coins)[np.argsort(scores)].cumsum() / len(scores)
    said = np.log(two_sided(scores))
    return [
        metrics.mse_p(scores, truth), metrics.kl_p(scores, truth), float(np.mean((scores - coins) ** 2)),
        metrics.nll(said, coins.astype(int)), metrics.ece(scores, coins, by="mass"), metrics.ece(scores, coins, by="mass", norm="max"),
        float(np.abs(gaps).max()), metrics.auroc(scores, coins),
    ]  # fmt: skip


def keep_coins(network: str, scenario: str, seed: int, device: str) -> Found:
    """Scores of all methods on the coins of a seed; of the setting of the card what three of them said, in bytes."""
    world = coin_world(network, scenario, seed)
    found, (_, truth, coins) = fit_methods(world, seed), world["test"]
    columns = {"scores": np.array([judged(found[name], truth, coins) for name in METHODS], np.float32)}
    if (network, scenario) == CARD["place"]:
        columns["said"] = np.array(
            [np.round(255 * found[name][: CARD["images"]]) for name in CARD["methods"]], np.uint8
        )
    return Found(columns, {})


def mapped(kind: str, scores: np.ndarray, coins: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Probabilities of others by a map that is fitted on scores and their coins."""
    odds = np.log(two_sided(scores)) @ [-1, 1]
    if kind == "temperature" and ((2.0 * coins - 1) * odds).mean() <= 0:
        return np.full(len(others), 0.5)  # scores that know nothing: the best temperature is infinite
    return np.asarray(fit_calibrator(kind, scores, coins.astype(int), given="prob").probs(others))


def keep_published(scenario: str, device: str) -> Found:
    """Scores of the four regimes on all cases; of all methods on halves, maps fitted on the other half; and fits of few cases."""
    said, truth, coins = read_published(scenario)
    table = np.array([judged(each, truth, coins) for each in said.values()])
    shape = (len(said) + len(MAPS), HALVES["splits"], 1 + HALVES["draws"])
    halves, few = np.zeros(shape, np.float32), np.zeros((len(FEW), HALVES["repeats"]), np.float32)
    for k in range(HALVES["splits"]):
        fit, test = split(len(truth), len(truth) // 2, seed=k)
        probs = [each[test] for each in said.values()]
        probs += [
            mapped(name.removeprefix("cape_"), said[start][fit], coins[fit], said[start][test])
            for name, start in MAPS.items()
        ]
        losses = np.stack([(each - truth[test]) ** 2 for each in probs])
        drawn = torch.randint(
            len(test), (HALVES["draws"], len(test)), generator=torch.Generator().manual_seed(k)
        ).numpy()
        halves[:, k, 0] = losses.mean(-1)
        halves[:, k, 1:] = np.stack([losses[..., rows].mean(-1) for rows in drawn], -1)
    for (i, size), k in itertools.product(enumerate(FEW), range(HALVES["repeats"])):
        fit, test = split(len(truth), size, seed=1000 + k)
        platt = mapped("platt", said["early"][fit], coins[fit], said["early"][test])
        few[i, k] = metrics.mse_p(platt, truth[test]) - metrics.mse_p(said["cape_bin"][test], truth[test])
    counts = [np.histogram2d(truth, each, (10, 20), ((0, 1 + 1e-9),) * 2)[0] for each in said.values()]
    return Found(
        {"table": table.astype(np.float32), "halves": halves, "few": few, "counts": np.array(counts, np.int32)},
        {"cases": len(truth)},
    )


def read_halves() -> xr.DataArray:
    """MSEₚ of the published files on halves: scenario, variant, split, draw."""
    names = {"variant": [*REGIMES, *MAPS], "split": range(HALVES["splits"])}
    return read_scored("halves", names | {"draw": range(1 + HALVES["draws"])})


def read_scored(column: str, names: Mapping[str, Sequence[Any]]) -> xr.DataArray:
    """A column of what was made of the published files: scenario, and the names of its dimensions."""
    cells = {NAMES[each]: f"published/{each}" for each in PUBLISHED}
    found = load_made(liu2022_runs()).table(cells, "scenario", column=column, names=names)
    return found.isel(training=0, drop=True)


def read_coins() -> xr.DataArray:
    """Scores of all that was trained on coins: place, training, variant, measure; NaN where a seed is missing."""
    cells = {f"{NAMES[network]}, {NAMES[scenario]}": f"{network}/{scenario}" for network, scenario in SETTINGS}
    names = {"variant": list(METHODS), "measure": list(MEASURED)}
    return load_made(liu2022_runs()).table(cells, "place", column="scores", names=names)


def ranked_as_truth(scores: xr.DataArray) -> dict[str, xr.DataArray]:
    """Spearman's correlation with MSEₚ over the methods, of each measure in WATCHED; AUC, of which more is better, turned round."""
    truth, found = scores.sel(measure="mse_p", drop=True), {}
    for name, measure in WATCHED.items():
        sign = -1 if name == "auc" else 1
        found[name] = rank_correlation(sign * scores.sel(measure=measure, drop=True), truth, "variant")
    return found


def cape_less_first(errors: xr.DataArray) -> xr.DataArray:
    """The error of the better CaPE less that of the best of RIVALS, each by its mean over trainings: below 0 CaPE is first.

    Args:
        errors: with the dimensions training and variant.
    """
    firsts = []
    for names in (CAPE, RIVALS):
        some = errors.sel(variant=list(names))
        firsts.append(some.isel(variant=some.mean("training").argmin("variant")).drop_vars("variant"))
    return firsts[0] - firsts[1]


def read_carded() -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Log probabilities of both outcomes, and the coins, by method of the card: a pair a seed."""
    kept, (network, scenario) = load_made(liu2022_runs()), CARD["place"]
    found: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {NAMES[name]: [] for name in CARD["methods"]}
    for seed in kept.seeds(f"{network}/{scenario}"):
        coins = coin_world(network, scenario, seed)["test"].coins[: CARD["images"]].astype(int)
        said = kept.column(f"{network}/{scenario}/{seed}", "said")
        for pairs, codes in zip(found.values(), said, strict=True):
            pairs.append((np.log(two_sided((codes + 0.5) / 256)), coins))
    return found


def liu2022_runs(scale: str = "cpu") -> Iterator[KeptRun]:
    """The published files first, then coins, a run a network, scenario and seed."""
    rules = _digest(REGIMES, HALVES, FEW, MAPS)
    for scenario in PUBLISHED:
        make = partial(keep_published, scenario)
        yield KeptRun("liu2022", f"published/{scenario}/0", {"rules": rules}, make, 9.0, "short")
    for (network, scenario), seed in itertools.product(SETTINGS, range(SEEDS)):
        rules = _digest(SETS[network], TRAINING, TUNING, AFTER, MAPS, SCENARIOS[scenario], CARD)
        make = partial(keep_coins, network, scenario, seed)
        yield KeptRun("liu2022", f"{network}/{scenario}/{seed}", {"rules": rules}, make, 5.0 - seed / 10, "short")


def _digest(*settings: Any) -> str:
    """Of settings that many runs share: written out in each, they would be longer than what is kept."""
    return fingerprint(json.dumps(settings, sort_keys=True))[:16]
