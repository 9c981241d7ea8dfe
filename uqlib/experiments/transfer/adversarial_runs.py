"""Runs that are attacked: trained on attacked images or on plain ones, from scratch or from a pretrained network.

The task is adversarial_DATASET. A run is START/METHOD/plain or attacked/SEED; the method says what is tuned, `all` or the `head`.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import torch

from uqlib.attack import UnitImages, adversarial_step, robust_correct, strong_correct
from uqlib.experiments.keeping.kept_runs import Found, KeptRun, pack_bits
from uqlib.experiments.transfer.transfers import (
    SCRATCH,
    Beginning,
    begin_from,
    datasets_at,
    frozen,
    load_parts,
    plan_of,
    setting_of,
    train_start,
    whole_too,
)
from uqlib.experiments.transfer.upstream_networks import in_unit
from uqlib.networks import preprocess
from uqlib.training import Views, loop

RADIUS = 8 / 255
JUDGED: dict[str, dict[str, Any]] = {
    "pgd": {"radius": RADIUS, "step_size": 2 / 255, "steps": 20},
    "released": {"radius": RADIUS, "step_size": 2 / 255, "steps": 20, "ball": "start"},
}
ATTACKED = 1_000  # test images
STRONG = {"images": 300, "steps": 50}  # of them, by a library of others


def run_adversarial(dataset: str, start: str, method: str, trained: str, seed: int, device: str = "cpu") -> Found:
    """Train on attacked or on plain images, and ask about test images as they are and after attacks."""
    parts = load_parts(dataset)
    network = begin_from(dataset, start, seed, device)
    train = train_start if trained == "plain" else partial(_fit_attacked, attack_of(dataset))
    with frozen(network) if method == "head" else nullcontext():
        train(network, parts.train.images, parts.train.labels, plan_of(dataset, start), seed)
    return judge_robustness(network, seed)


def attack_of(dataset: str) -> dict[str, Any]:
    """The attack while training."""
    return {"radius": RADIUS, "step_size": 2 / 255, "steps": setting_of(dataset).attack_steps}


def _fit_attacked(
    attack: dict[str, Any], network: Beginning, images: Any, labels: Any, plan: dict[str, Any], seed: int
) -> None:
    options = {name: value for name, value in plan.items() if name != "augmentation"}
    views = Views(images, in_unit(network.preparation), plan["augmentation"], beside=network.model)
    step = adversarial_step(UnitImages(network.model, network.preparation), views, np.array(labels), **attack)
    loop(
        step, examples=len(views), parts={"model": network.model}, trained=network.model.parameters(), seed=seed, progress=False,
        **options,
    )  # fmt: skip


def judge_robustness(network: Beginning, seed: int) -> Found:
    """Which of the first test images are right, as they are, after each attack of JUDGED, and some after a stronger one."""
    test = load_parts("cifar10").test.select(np.arange(ATTACKED))
    device = next(network.model.parameters()).device
    x = preprocess(test.images, in_unit(network.preparation), device=device)
    labels = torch.from_numpy(np.array(test.labels, np.int64))
    unit = UnitImages(network.model, network.preparation)
    unit.eval()
    with torch.no_grad():
        columns = {"correct": torch.cat([unit(part).argmax(-1).cpu() for part in x.split(250)]) == labels}
    for name, attack in JUDGED.items():
        columns[name] = robust_correct(unit, x, labels, generator=torch.Generator().manual_seed(seed), **attack).cpu()
    few = slice(STRONG["images"])
    columns["strong"] = strong_correct(
        unit, x[few], labels[few], radius=RADIUS, classes=len(test.classes), seed=seed, steps=STRONG["steps"]
    ).cpu()
    numbers = {name: each.double().mean().item() for name, each in columns.items()}
    numbers |= {"tested": len(labels), "tested_strong": STRONG["images"]}
    return Found({name: pack_bits(each.numpy()) for name, each in columns.items()}, numbers)


def adversarial_runs(scale: str = "cpu") -> Iterator[KeptRun]:
    """All runs that the chapter asks for at a scale."""
    dataset = next(iter(datasets_at(scale)))
    asked = {
        (SCRATCH, "all", "plain"): 0.9,
        (SCRATCH, "all", "attacked"): 0.9,
        ("supervised", "all", "attacked"): 0.9,
        ("adversarial", "all", "attacked"): 0.9,
        ("adversarial", "head", "attacked"): 0.85,
        ("adversarial", "all", "plain"): 0.8,
        ("supervised", "all", "plain"): 0.8,
    }
    for seed in range(3):
        for (start, method, trained), value in asked.items():
            yield _run(dataset, start, method, trained, seed, value)


def _run(dataset: str, start: str, method: str, trained: str, seed: int, value: float) -> KeptRun:
    settings = {
        "start": start, "method": method, "trained": trained, "seed": seed, "attack": attack_of(dataset), "judged": JUDGED, "strong": STRONG,
        "attacked": ATTACKED, "plan": plan_of(dataset, start), **whole_too(setting_of(dataset)),
        **({"frozen": "all but the classifier, batch norm as when asked"} if method == "head" else {}),
    }  # fmt: skip
    make = partial(run_adversarial, dataset, start, method, trained, seed)
    return KeptRun(f"adversarial_{dataset}", f"{start}/{method}/{trained}/{seed}", settings, make, value)
