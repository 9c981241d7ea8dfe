"""What makes a head small: the order of the losses, or the losses themselves."""

from collections.abc import Callable

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from uqlib.base.options import check_number

Objective = Callable[[Tensor, Tensor], Tensor]


def rank_pairs(
    uncertainty: Float[Tensor, " n"], losses: Float[Tensor, " n"], *, margin: float = 0.1, leeway: float = 0.0
) -> Float[Tensor, ""]:
    """Mean over the pairs (1, 2), (3, 4), ... of max(0, margin - s (u - u')), s the sign of the loss's difference.

    Any increasing change of the losses leaves it as it is, so it asks for their order alone; the margin sets the scale
    of the uncertainty. No gradient goes to the losses. Pairs whose losses differ by less than the leeway have s = 0.

    Args:
        uncertainty, losses: of a shuffled batch of an even number of examples.
        margin: > 0; 0.1 in the source.
        leeway: >= 0; 0 in the source, where equal losses count as s = -1.

    Raises:
        ValueError: if a number is out of range, the batch is odd or empty, or the shapes differ.

    Source:
        Yoo & Kweon 2019 (arXiv:1905.03677), equation 2, with the margin of Kirchhof et al. 2024 (arXiv:2402.16569).

    Examples:
        >>> import torch
        >>> from uqlib.uncertainty import rank_pairs
        >>> losses = torch.tensor([2.0, 1.0, 0.0, 3.0])
        >>> rank_pairs(torch.tensor([0.5, 0.2, 0.1, 0.4]), losses).item()  # both pairs in order, and apart
        0.0
        >>> round(rank_pairs(torch.zeros(4), losses).item(), 3)
        0.1
    """
    margin, leeway = check_number(margin, "margin", above=0), check_number(leeway, "leeway", least=0)
    if uncertainty.shape != losses.shape or uncertainty.ndim != 1 or not len(losses) or len(losses) % 2:
        raise ValueError(
            f"uncertainty and losses must be (n,), n even, to make pairs; they are {tuple(uncertainty.shape)} and "
            f"{tuple(losses.shape)}"
        )
    difference = losses.detach()[0::2] - losses.detach()[1::2]
    sign = (difference > 0).to(uncertainty) * 2 - 1
    if leeway:
        sign = sign * (difference.abs() >= leeway)
    return F.relu(margin - sign * (uncertainty[0::2] - uncertainty[1::2])).mean()


def predict_loss(uncertainty: Float[Tensor, " n"], losses: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """Mean squared difference between the uncertainty and the loss; no gradient goes to the losses.

    Args:
        uncertainty, losses: (n,).

    Raises:
        ValueError: if their shapes differ.

    Source:
        Kirchhof et al. 2023 (arXiv:2307.03810), the loss prediction of its benchmark.

    Examples:
        >>> import torch
        >>> from uqlib.uncertainty import predict_loss
        >>> predict_loss(torch.tensor([0.5, 1.5]), torch.tensor([1.0, 1.0])).item()
        0.25
    """
    if uncertainty.shape != losses.shape:
        raise ValueError(
            f"uncertainty and losses must have one shape (n,); they are {tuple(uncertainty.shape)} and "
            f"{tuple(losses.shape)}"
        )
    return (uncertainty - losses.detach().to(uncertainty)).square().mean()


OBJECTIVES: dict[str, Objective] = {"ranking": rank_pairs, "regression": predict_loss}
