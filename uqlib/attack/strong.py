"""A strong attack by a library of others: parts of AutoAttack from the Adversarial Robustness Toolbox (ART).

Projected gradient descent with one size of step gives an upper bound of robust accuracy that may be far too high. The
parts of AutoAttack choose their sizes of step by themselves, and the second loss does not care how large the logits are.
The attack here is ART's, its success is judged here: what it found is put back into the ball and shown to the network.

Known differences from AutoAttack's own code: ART has DeepFool in place of FAB, its DLR loss is not targeted, and it judges the
last point of APGD, not the best one.

Source:
    Croce & Hein 2020 (arXiv:2003.01690); Nicolae et al. 2018 (arXiv:1807.01069), the toolbox.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from uqlib.attack.pgd import _in_mode, check_radius, check_unit
from uqlib.base.arrays import by_rows
from uqlib.base.checks import check_labels, check_logits
from uqlib.base.extras import named
from uqlib.base.options import check_choice, check_whole

GRADIENTS = ("apgd_ce", "apgd_dlr")  # what can be afforded on a CPU


class _Effort(NamedTuple):
    radius: float
    steps: int
    restarts: int
    batch: int


def strong_correct(
    network: nn.Module,
    images: Any,
    labels: Any,
    *,
    radius: float,
    classes: int,
    seed: int,
    parts: Sequence[str] = GRADIENTS,
    steps: int = 100,
    restarts: int = 1,
    batch: int = 250,
) -> Bool[Tensor, " n"]:
    """Whether each image is answered rightly after every part of a strong attack; one that is wrong before counts as wrong.

    The parts take turns, each on the images that are left. APGD costs 3 passes forward and one backward a step and restart,
    "square" 50 passes forward for each step. The network is copied: nothing of it changes. ART makes a folder `~/.art`.

    Args:
        network: takes images in [0, 1], gives logits; `UnitImages` makes one. It is asked in eval mode.
        images: floats (n, ch, h, w) in [0, 1], on the network's device; the attack works in float32.
        labels: (n,), in [0, classes).
        radius: of the L-infinity ball, in (0, 1].
        classes: of the network.
        seed: of the starts; the generators of torch and NumPy are as before afterwards.
        parts: names in PARTS, by default APGD with cross entropy and with the DLR loss. All of them are AutoAttack as ART
            has it.
        steps: of each restart, 100 in AutoAttack.
        restarts: random starts of each part, 5 in the paper, 1 in its later code.
        batch: images at a time.

    Raises:
        ModuleNotFoundError: if adversarial-robustness-toolbox is not installed.
        TypeError: if images are no floats, or a number is of another type.
        ValueError: if a number lies outside of its bounds, a part is unknown, images are not in [0, 1], labels do not fit, the
            network gives logits of other classes, or the DLR loss has fewer than three.
    """
    effort = _Effort(check_radius(radius), *_whole(steps=steps, restarts=restarts, batch=batch))
    classes, seed = check_whole(classes, "classes", least=2), check_whole(seed, "seed", least=0, most=2**32 - 1)
    images = check_unit(images, network)
    labels = check_labels(labels, classes, rows=len(images), device=images.device)
    chosen = _check_parts(parts, classes)
    right = _right(network, images, labels, classes, effort.batch)
    estimator = _estimator(network, images, classes) if right.any() else None
    with _seeded(seed, images.device):
        for part in chosen:
            left = right.nonzero()[:, 0]
            if len(left):
                moved = _moved(PARTS[part], estimator, images[left], labels[left], effort)
                right[left] = _right(network, moved, labels[left], classes, effort.batch)
    return right


def _whole(**numbers: int) -> list[int]:
    return [check_whole(value, name, least=1) for name, value in numbers.items()]


def _check_parts(parts: Sequence[str], classes: int) -> list[str]:
    if isinstance(parts, str) or not len(parts):
        raise ValueError(f"parts must be a list of names, at least one of {', '.join(PARTS)}; it is {parts!r}")
    chosen = [check_choice(part, PARTS, "part") for part in parts]
    if classes < 3 and "apgd_dlr" in chosen:
        raise ValueError(f"the DLR loss needs at least 3 classes; classes is {classes}. Leave 'apgd_dlr' out of parts.")
    return chosen


def _right(network: nn.Module, images: Tensor, labels: Tensor, classes: int, batch: int) -> Bool[Tensor, " n"]:
    """Whether the network itself, in eval mode, gives the label."""
    found = []
    with torch.no_grad(), _in_mode(network, "eval"):
        for x, y in by_rows(batch, images, labels):
            logits = network(x)
            if logits.shape != (len(x), classes):
                raise ValueError(f"classes is {classes}, but the network's logits have shape {tuple(logits.shape)}")
            check_logits(logits, "the network's outputs")
            found.append(logits.argmax(-1) == y)
    return torch.cat(found)


def _moved(part: Callable, estimator: Any, images: Tensor, labels: Tensor, effort: _Effort) -> Tensor:
    """What a part finds, back in the ball and in [0, 1], where rounding or DeepFool left them."""
    found = part(estimator, effort).generate(images.float().cpu().numpy(), labels.cpu().numpy())
    change = torch.from_numpy(found).to(images) - images
    return (images + change.clamp_(-effort.radius, effort.radius)).clamp_(0, 1)


def _estimator(network: nn.Module, images: Tensor, classes: int) -> Any:
    """ART's view of a copy of the network: it would leave gradients in parameters and change modes."""
    art = _package()
    return art.PyTorchClassifier(
        copy.deepcopy(network).eval().requires_grad_(False).float(),  # as the images that ART hands over
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(images.shape[1:]),
        nb_classes=classes,
        clip_values=(0.0, 1.0),
        device_type="gpu" if images.device.type == "cuda" else "cpu",
    )


def _apgd(loss: str) -> Callable[[Any, _Effort], Any]:
    def make(estimator: Any, effort: _Effort) -> Any:
        # the first step is as long as the ball is wide: section 3 of Croce & Hein 2020
        return _package().AutoProjectedGradientDescent(
            estimator,
            eps=effort.radius,
            eps_step=2 * effort.radius,
            max_iter=effort.steps,
            nb_random_init=effort.restarts,
            batch_size=effort.batch,
            loss_type=loss,
            verbose=False,
        )

    return make


def _deepfool(estimator: Any, effort: _Effort) -> Any:
    return _package().DeepFool(estimator, max_iter=effort.steps, epsilon=1e-3, batch_size=effort.batch, verbose=False)


def _square(estimator: Any, effort: _Effort) -> Any:
    return _package().SquareAttack(
        estimator,
        eps=effort.radius,
        max_iter=50 * effort.steps,
        p_init=0.8,
        nb_restarts=effort.restarts,
        batch_size=effort.batch,
        verbose=False,
    )


PARTS: dict[str, Callable[[Any, _Effort], Any]] = {
    "apgd_ce": _apgd("cross_entropy"),
    "apgd_dlr": _apgd("difference_logits_ratio"),
    "deepfool": _deepfool,
    "square": _square,
}


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """ART draws from NumPy's global generator, which is as before afterwards; so is torch's."""
    before = np.random.get_state()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            np.random.set_state(before)


def _package() -> SimpleNamespace:
    """ART, which takes seconds to import."""
    with named():
        from art.attacks.evasion import AutoProjectedGradientDescent, DeepFool, SquareAttack
        from art.estimators.classification import PyTorchClassifier
    return SimpleNamespace(
        AutoProjectedGradientDescent=AutoProjectedGradientDescent,
        DeepFool=DeepFool,
        SquareAttack=SquareAttack,
        PyTorchClassifier=PyTorchClassifier,
    )
