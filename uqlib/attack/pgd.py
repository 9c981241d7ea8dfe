"""Projected gradient descent in the L-infinity ball, and the training on what it finds.

Source:
    Madry et al. 2018 (arXiv:1706.06083), as Hendrycks, Lee & Mazeika 2019 (arXiv:1901.09960) use it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from uqlib.base.arrays import as_tensor, by_rows
from uqlib.base.checks import check_finite, check_labels, check_logits
from uqlib.base.options import check_choice, check_number, check_whole
from uqlib.networks.inputs import Preprocessing
from uqlib.networks.outputs import in_own_precision

BALLS = ("clean", "start")
STARTS = ("random", "none")
MODES = ("eval", "train")


class UnitImages(nn.Module):
    """A network that takes images in [0, 1] and normalises them itself, so that a radius is in units of the image.

    Args:
        model: takes normalised images, gives logits.
        preparation: of which mean and std are taken.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: nn.Module, preparation: Preprocessing):
        super().__init__()
        self.model = model
        device = next(model.parameters()).device
        for name in ("mean", "std"):
            values = torch.tensor(getattr(preparation, name), device=device, dtype=torch.float32)
            self.register_buffer(name, values[:, None, None], persistent=False)

    def forward(self, images: Float[Tensor, "n ch h w"]) -> Float[Tensor, "n c"]:
        return self.model(in_own_precision(self.model, (images - self.mean) / self.std))


def pgd(
    network: nn.Module,
    images: Any,
    labels: Any,
    *,
    radius: float = 8 / 255,
    step_size: float = 2 / 255,
    steps: int = 10,
    ball: str = "clean",
    start: str = "random",
    generator: torch.Generator | None = None,
) -> Float[Tensor, "n ch h w"]:
    """Images within the radius of the given ones, and in [0, 1], on which the loss of the network is high.

    Each step goes along the sign of the gradient of the cross entropy and back into the ball; it costs a pass forward and
    one backward to the images. The network stays in its mode, and its parameters get no gradient.

    Args:
        network: takes images in [0, 1], gives logits; `UnitImages` makes one.
        images: floats (n, ch, h, w) in [0, 1], on the network's device.
        labels: (n,), in [0, c).
        radius: of the ball, in (0, 1], the largest change of a value.
        step_size: of one step, above 0.
        steps: at least 1.
        ball: "clean" has the given images in its centre, as the paper means it; "start" the noisy start, as its released
            code does, so that a value may change by twice the radius. The start is cut to [0, 1] before the first step;
            the released code does so after it.
        start: "random" anywhere in the ball, or "none", the images themselves.
        generator: of the start, on the CPU; by default torch's own.

    Raises:
        TypeError: if a number is of another type, images are no floats, or labels no integers.
        ValueError: if a number lies outside of its bounds, a name is unknown, images are not in [0, 1], labels do not fit
            them or the logits, or no gradient reaches the images, or one that is NaN.

    Examples:
        A network that answers 1 where an image is bright; the attack on label 1 makes it darker, by the radius.

        >>> import torch
        >>> from torch import nn
        >>> bright = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
        >>> _ = nn.init.constant_(bright[1].weight[0], -1), nn.init.constant_(bright[1].weight[1], 1)
        >>> images = torch.full((1, 1, 2, 2), 0.5)
        >>> pgd(bright, images, torch.tensor([1]), radius=0.25, step_size=0.125, steps=4).flatten().tolist()
        [0.25, 0.25, 0.25, 0.25]
    """
    radius, step_size = check_radius(radius), check_number(step_size, "step_size", above=0)
    steps = check_whole(steps, "steps", least=1)
    check_choice(ball, BALLS, "ball")
    images = check_unit(images, network)
    labels = check_labels(labels, None, rows=len(images), device=images.device)
    begun = _begin(images, radius, check_choice(start, STARTS, "start"), generator)
    centre = images if ball == "clean" else begun
    low, high = (centre - radius).clamp_(0, 1), (centre + radius).clamp_(0, 1)
    found = begun.clamp(0, 1)  # a copy, which each step moves in place
    lost = torch.zeros(len(found), dtype=torch.bool, device=found.device)
    for step in range(steps):
        slope = _slope(network, found, labels, check=not step)
        lost |= slope.isnan().flatten(1).any(1)
        found.add_(slope.sign(), alpha=step_size).clamp_(low, high)
    _refuse_lost(lost)  # once, since each look makes a GPU wait
    return found


def check_radius(radius: float) -> float:
    """The radius of a ball of images in [0, 1], if it is in (0, 1]."""
    if check_number(radius, "radius", above=0) > 1:
        raise ValueError(
            f"radius must lie in (0, 1], for images in [0, 1]; it is {radius}. 8 of 255 levels? Pass 8 / 255."
        )
    return float(radius)


def check_unit(images: Any, network: nn.Module) -> Float[Tensor, "n ch h w"]:
    """Images, if they are floats in [0, 1], without a gradient, in float32, or in float64 where the network is."""
    images = as_tensor(images, "images").detach()
    if not images.is_floating_point():
        raise TypeError(f"images must be floats in [0, 1]; they are {images.dtype}. uint8? Pass images / 255.")
    if images.ndim != 4 or not images.numel():
        raise ValueError(f"images must have shape (n, ch, h, w); theirs is {tuple(images.shape)}")
    least, most = images.aminmax()
    if not (least >= 0 and most <= 1):  # NaN is neither
        raise ValueError(
            f"images must lie in [0, 1]; they reach from {least:.6g} to {most:.6g}. Normalised ones? Put the network into "
            "`UnitImages`, and give the images before it."
        )
    double = any(p.dtype == torch.float64 for p in network.parameters())
    return images.to(torch.float64 if double else torch.float32)  # half a level of 255 is lost in half precision


def _begin(images: Tensor, radius: float, start: str, generator: torch.Generator | None) -> Tensor:
    if start == "none":
        return images
    noise = torch.rand(images.shape, generator=generator, dtype=torch.float32)
    return images + (2 * noise - 1).mul_(radius).to(images)


def _slope(network: nn.Module, images: Tensor, labels: Tensor, *, check: bool) -> Tensor:
    """The gradient of the summed cross entropy by the images; labels beyond the logits are looked for once."""
    with torch.enable_grad():
        images = images.detach().requires_grad_()
        logits = network(images)
        if check:
            check_labels(labels, logits.shape[-1])
        loss = F.cross_entropy(_at_least_float32(logits), labels, reduction="sum")
        slope = torch.autograd.grad(loss, images, allow_unused=True)[0] if loss.requires_grad else None
    if slope is None:
        raise ValueError(
            "network must pass a gradient from its logits to the images; none arrives. Does its forward run under no_grad, "
            "detach, or leave torch? Attack the differentiable network inside it."
        )
    return slope


def _refuse_lost(lost: Bool[Tensor, " n"]) -> None:
    """Raise a ValueError if a gradient was NaN: its sign is 0, so that the image would stay where it is, unattacked."""
    if lost.any():
        raise ValueError(
            f"the network's gradient must not be NaN; to image {int(lost.nonzero()[0])} it is. Does it take the root of 0 "
            "there, or divide by 0? Add a small constant, such as 1e-12, to what is under the root or to the divisor. Or have "
            "its weights diverged?"
        )


def _at_least_float32(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def robust_correct(
    network: nn.Module, images: Any, labels: Any, *, batch: int = 250, **attack: Any
) -> Bool[Tensor, " n"]:
    """Whether each image is answered rightly after the attack, in eval mode; one that is wrong before counts as wrong.

    Args:
        network, images, labels: as `pgd` takes them.
        batch: images at a time.
        attack: options of `pgd`.

    Raises:
        ValueError: as `pgd`; if images and labels do not fit, or the network gives probabilities.
    """
    images = check_unit(images, network)
    labels, found = check_labels(labels, None, rows=len(images), device=images.device), []
    with _in_mode(network, "eval"):
        for x, y in by_rows(check_whole(batch, "batch", least=1), images, labels):
            with torch.no_grad():
                logits = check_logits(network(x), "the network's outputs")
            check_labels(labels, logits.shape[-1])
            right = logits.argmax(-1) == y
            if right.any():  # the others are wrong already, whatever an attack does
                moved = pgd(network, x[right], y[right], **attack)
                with torch.no_grad():
                    after = network(moved)
                check_finite(after, "the network's outputs after the attack")
                right[right.clone()] = after.argmax(-1) == y[right]
            found.append(right)
    return torch.cat(found)


def adversarial_step(
    network: nn.Module,
    views: Callable[[Tensor, torch.Generator], Tensor],
    labels: Any,
    *,
    attack_mode: str = "eval",
    **attack: Any,
) -> Callable[[Tensor, torch.Generator], Tensor]:
    """A step for `training.loop`: the cross entropy of images that were attacked just now, and of no others.

    Its cost is that of `steps` passes forward and backward to the images, and one to the parameters.

    Args:
        network: takes images in [0, 1]; its model is what the loop trains.
        views: of (rows, generator), gives images in [0, 1].
        labels: (n,) of all rows.
        attack_mode: of the network during the attack. "train" is what the released code of Hendrycks et al. 2019 does: the
            passes of the attack then move the statistics of batch norm too.
        attack: options of `pgd`; the generator is that of the step.

    Raises:
        ValueError: as `pgd`, at the first step; if the mode is unknown.
    """
    check_choice(attack_mode, MODES, "attack_mode")
    known = check_labels(labels, None)

    def step(rows: Tensor, generator: torch.Generator) -> Tensor:
        images = views(rows, generator)
        given = known[rows].to(images.device)
        with _in_mode(network, attack_mode):
            moved = pgd(network, images, given, generator=generator, **attack)
        return F.cross_entropy(_at_least_float32(network(moved)), given)

    return step


@contextmanager
def _in_mode(network: nn.Module, mode: str) -> Iterator[None]:
    """The network and all its modules in a mode for a while."""
    before = {module: module.training for module in network.modules()}
    network.train(mode == "train")
    try:
        yield
    finally:
        for module, training in before.items():
            module.training = training
