"""Heads learn from what was cached: features of a frozen network and the loss of its classifier on each of them."""

import math
import os
from collections.abc import Callable
from typing import Any, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from uqlib.base.arrays import Column, Table
from uqlib.base.checks import check_confidence, check_features, check_labels, check_rows
from uqlib.base.options import check_choice, check_number, check_whole
from uqlib.files.fingerprint import of_array
from uqlib.networks.outputs import ask_as_it_is
from uqlib.training.loops import EpochLog, Step, loop
from uqlib.training.settings import Options
from uqlib.uncertainty.objectives import OBJECTIVES, Objective
from uqlib.uncertainty.uncertainty_heads import UncertaintyHead

BETAS = (0.8, 0.95)  # of AdamW in the source


def source_adamw(parameters: Any, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW with the betas 0.8 and 0.95 of Kirchhof et al. 2024."""
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=weight_decay, betas=BETAS)


def scaled_rate(batch: int, *, base: float = 1e-3) -> float:
    """Learning rate for a batch: the base for 256 examples times the root of batch / 256, as the source has it.

    Raises:
        TypeError, ValueError: if the batch is no whole number of at least 1, or the base below 0.

    Source:
        Kirchhof et al. 2024 (arXiv:2402.16569) and its released code.

    Examples:
        >>> from uqlib.uncertainty import scaled_rate
        >>> scaled_rate(1024)
        0.002
    """
    return check_number(base, "base", least=0) * math.sqrt(check_whole(batch, "batch", least=1) / 256)


def train_head(
    head: UncertaintyHead,
    features: Table,
    losses: Column,
    *,
    objective: str | Objective = "ranking",
    epochs: int = 10,
    lr: float | None = None,
    judge: Callable[[], Any] | None = None,
    checkpoint: str | os.PathLike | None = None,
    **options: Unpack[Options],
) -> list[EpochLog]:
    """Train an uncertainty head in place, on cached features: seconds an epoch of 100,000.

    Nothing of the backbone is needed, so nothing of it can change. The losses are numbers, so whatever has one can be
    learnt: of a classifier, a detector, a segmenter. Several views of the same images are simply more rows.

    Args:
        head: where it is, there it trains; features are brought there batch by batch.
        features: (n, d), in half precision if you like.
        losses: (n,), finite; of the ranking objective only their order counts.
        objective: "ranking", "regression", or a function of (uncertainty, losses) that gives a scalar.
        epochs: passes over the rows.
        lr: at its highest; by default `scaled_rate(batch)`.
        judge, checkpoint: as in `training.loop`; with a checkpoint, an objective of your own needs a `fingerprint`.
        options: of `training.loop`; by default batch 512, weight_decay 1e-4 and the optimiser of the source.

    Raises:
        ValueError: if features or losses are not finite, their numbers differ, the batch is odd, or all losses are equal.
        TypeError: if an option is unknown.

    Source:
        Kirchhof et al. 2024 (arXiv:2402.16569). Pairs are drawn anew from each shuffled batch; the mean over a batch of
        2,048 is that over sixteen micro-batches of 128, which the source accumulates.

    Examples:
        >>> import torch
        >>> from uqlib.uncertainty import UncertaintyHead, train_head, uncertainty_of
        >>> features = torch.randn(100, 2, generator=torch.Generator().manual_seed(0))
        >>> head = UncertaintyHead(2, width=8)
        >>> history = train_head(head, features, features[:, 0], epochs=50, batch=20, lr=0.02, progress=False)
        >>> easy, hard = uncertainty_of(head, [[-2.0, 0.0], [2.0, 0.0]])
        >>> bool(easy < hard)
        True
    """
    x, y = check_features(features, width=head.features), check_confidence(losses, "losses")
    check_rows(y, len(x), "losses")
    if (y == y[0]).all():
        raise ValueError(f"losses must differ; all {len(y)} are {y[0].item():g}, and have no order to learn")
    chosen: Any = {"batch": min(512, len(x) // 2 * 2), "weight_decay": 1e-4, "optimizer": source_adamw} | options
    goal = OBJECTIVES[check_choice(objective, OBJECTIVES, "objective")] if isinstance(objective, str) else objective
    device = next(head.parameters()).device
    target = y.to(device)

    def step(rows: Tensor, generator: torch.Generator) -> Tensor:
        part = x[rows.to(x.device)].to(device, torch.float32)
        return goal(head(part), target[rows.to(device)])  # as precise as they came: their order counts

    rests_on = None
    if checkpoint is not None:
        rests_on = {"features": of_array(x), "losses": of_array(y), "objective": objective, "betas": BETAS}
    return loop(
        step,
        examples=len(x),
        parts={"head": head},
        trained=list(head.parameters()),
        epochs=epochs,
        lr=scaled_rate(chosen["batch"]) if lr is None else lr,
        judge=judge,
        checkpoint=checkpoint,
        rests_on=rests_on,
        **chosen,
    )


def joint_step(
    model: nn.Module,
    head: UncertaintyHead,
    views: Callable[[Tensor, torch.Generator], Tensor],
    labels: Column,
    *,
    weight: float = 1.0,
    stop_gradient: bool = True,
    objective: str = "regression",
) -> Step:
    """A step for `training.loop` that trains a classifier and its head together: cross entropy + weight x objective.

    With the stop-gradient nothing of the head reaches the classifier, which ends with the same bits as without it,
    unless the loop clips the gradient of both together.
    Without, as loss prediction was done before, the head also pulls at the features; then each is in the other's way.

    Args:
        model: gives logits; its classifier's input are the features.
        head: of these features; model and head both are parts of the loop, and trained.
        views: `training.Views` of the images.
        labels: (n,), of all images.
        weight: of the head's objective.
        stop_gradient: whether the head sees features that pass no gradient on.
        objective: in OBJECTIVES.

    Source:
        Kirchhof et al. 2024 (arXiv:2402.16569), section 3, and for the step without: Yoo & Kweon 2019 (arXiv:1905.03677).
    """
    weight, y = check_number(weight, "weight", least=0), check_labels(labels, None)
    goal = OBJECTIVES[check_choice(objective, OBJECTIVES, "objective")]

    def step(rows: Tensor, generator: torch.Generator) -> Tensor:
        features, logits = ask_as_it_is(model, views(rows, generator))
        each = F.cross_entropy(logits, y[rows].to(logits.device), reduction="none")
        seen = features.detach() if stop_gradient else features
        return each.mean() + weight * goal(head(seen), each)

    return step
