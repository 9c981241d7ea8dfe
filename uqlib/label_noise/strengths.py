"""Errors over the strengths of label noise, as one number."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from uqlib.base.arrays import Array, Column, as_tensor
from uqlib.base.checks import check_finite


def area_under_strengths(strengths: Column, errors: Array | Sequence) -> Float[np.ndarray, "..."]:
    """The mean error over the strengths, lower is better: the area below the curve by trapezoids, over its range.

    Args:
        strengths: (s,), ascending, in [0, 1], at least two.
        errors: (..., s), one a strength on the last axis, in any unit.

    Returns:
        (...), float64, in the unit of the errors; from 0 to 1 it is the area itself.

    Raises:
        ValueError: if the strengths are not ascending or outside [0, 1], there are not as many errors, or one is not
            finite.

    Source:
        Hendrycks et al. 2019 (arXiv:1901.09960), table 1, with strengths 0, 0.1, ..., 1.

    Examples:
        >>> from uqlib.label_noise import area_under_strengths
        >>> float(area_under_strengths([0, 0.5, 1], [0.0, 0.25, 1.0]))
        0.375
    """
    at = as_tensor(strengths, "strengths").to(device="cpu", dtype=torch.float64).numpy()
    if at.ndim != 1 or len(at) < 2 or not ((at >= 0) & (at <= 1)).all() or not (np.diff(at) > 0).all():
        raise ValueError(f"strengths must be at least two in [0, 1], ascending; they are {at.tolist()}")
    table = as_tensor(errors, "errors").to(device="cpu", dtype=torch.float64)
    check_finite(table, "errors")
    if not table.ndim or table.shape[-1] != len(at):
        raise ValueError(
            f"errors must have one entry a strength on the last axis, (..., {len(at)}); it is {tuple(table.shape)}"
        )
    return np.asarray(np.trapezoid(table.numpy(), at) / (at[-1] - at[0]))
