"""From difficulty to the weights of a loss: seven normalisers, a temperature."""

from collections.abc import Callable
from math import ceil, frexp, log

import torch
from jaxtyping import Float
from torch import Tensor

from uqlib.base.arrays import Array, Column, like
from uqlib.base.checks import check_confidence
from uqlib.base.options import check_choice, check_fraction, check_number, check_whole


def normalise(
    difficulty: Column, normaliser: str = "minmax", *, dimensions: int | None = None, quantile: float = 0.999
) -> Float[Array, " n"]:
    """The difficulty on the scale that the weights are taken from, float64: higher = harder.

    Args:
        difficulty: (n,), any real score, of the whole training set.
        normaliser: "minmax" to [0, 1]; "clipped", the same up to a quantile and 1 above it, so that a few odd examples do
            not set the scale; "ranks" to [0, 1] by order alone, ties in their middle; "zscore" to mean 0 and standard
            deviation 1; "max_abs" divides by the largest size; "dimension" by the number of features; "raw" leaves it. The
            paper does not say which; it decides how many examples get a weight that matters.
        dimensions: number of features; "dimension" needs it, the others do not look at it.
        quantile: in (0, 1], where "clipped" ends; the others do not look at it.

    Raises:
        ValueError: if the difficulty is empty, not finite or constant where that leaves no scale, or the name is unknown.

    Source:
        Cui et al. 2023 (arXiv:2304.10127), equation 10, before which the scale is not stated.

    Examples:
        >>> from uqlib.difficulty import normalise
        >>> normalise([1, 2, 3, 11])
        array([0. , 0.1, 0.2, 1. ])
        >>> normalise([1, 2, 3, 11], 'ranks').round(3)
        array([0.   , 0.333, 0.667, 1.   ])
    """
    values = check_confidence(difficulty, "difficulty").double()
    return like(_scaled(values, normaliser, dimensions, quantile), difficulty)


def weights(
    difficulty: Column,
    *,
    temperature: float = 0.7,
    normaliser: str = "minmax",
    c: float = 1e-3,
    dimensions: int | None = None,
    quantile: float = 0.999,
) -> Float[Array, " n"]:
    """The share in (0, 1) of the entropy bonus that each example gets, float64: higher = harder.

    s = exp(v / temperature) / (max exp(v / temperature) + c), where v is the normalised difficulty; computed by
    logarithms, so that nothing overflows. A weight below 1e-308 becomes 0.

    Args:
        difficulty: (n,), of the whole training set: the largest sets the scale.
        temperature: > 0; larger = more equal weights.
        normaliser, dimensions, quantile: as in `normalise`. With "minmax" the least weight is about exp(-1 / temperature).
        c: small constant, 0 or larger.

    Raises:
        ValueError: if temperature or c are out of range, and as in `normalise`.

    Source:
        Cui et al. 2023 (arXiv:2304.10127), equation 10.

    Examples:
        >>> from uqlib.difficulty import weights
        >>> weights([1, 2, 3, 11]).round(3)  # one odd example pushes the others down
        array([0.24 , 0.276, 0.319, 1.   ])
        >>> weights([1, 2, 3, 11], normaliser='ranks').round(3)
        array([0.24 , 0.386, 0.621, 1.   ])
    """
    temperature, c = check_number(temperature, "temperature", above=0), check_number(c, "c", least=0)
    values = check_confidence(difficulty, "difficulty").double()
    scaled = _scaled(values, normaliser, dimensions, quantile) / temperature
    if not scaled.isfinite().all():
        raise ValueError(
            f"difficulty over temperature must be finite; the temperature {temperature} is too low for difficulties of "
            f"{values.abs().max().item():.6g} by normaliser={normaliser!r}. Pass normaliser='minmax', or a higher temperature."
        )
    top = scaled.max()
    constant = torch.full_like(top, log(c) if c else -torch.inf)
    return like((scaled - torch.logaddexp(top, constant)).exp(), difficulty)


def effective_share(weights: Column) -> float:
    """How evenly weights are spread: 1 if all are equal, 1 / n if one example has it all; Kish's effective sample size over n.

    Args:
        weights: (n,), >= 0, one of them above 0; their scale does not matter.

    Raises:
        ValueError: if a weight is negative or not finite, or all are 0.

    Source:
        Kish 1965, Survey Sampling, section 11.7.

    Examples:
        >>> from uqlib.difficulty import effective_share
        >>> effective_share([1, 1, 1, 1]), effective_share([1, 0, 0, 0])
        (1.0, 0.25)
    """
    given = check_confidence(weights, "weights").double()
    if given.min() < 0 or not given.max() > 0:
        raise ValueError(f"weights must be >= 0, one of them above 0; they lie in {given.min():g} to {given.max():g}")
    scaled = given / given.max()  # squares of tiny numbers are 0
    return (scaled.sum() ** 2 / (len(scaled) * scaled.square().sum())).item()


def _minmax(values: Float[Tensor, " n"], dimensions: int | None, quantile: float) -> Float[Tensor, " n"]:
    half = values / 2  # costs no digit, and the difference of two huge numbers does not overflow
    return (half - half.min()) / _scale(half.max() - half.min(), values)


def _clipped(values: Float[Tensor, " n"], dimensions: int | None, quantile: float) -> Float[Tensor, " n"]:
    share = check_fraction(quantile, "quantile", within="(0, 1]")
    place = max(1, ceil(share * len(values) - 1e-9))  # 0.999 * 1,000 is 999, whatever its last digit
    return _minmax(values.clamp(max=values.kthvalue(place).values), dimensions, quantile)


def _ranks(values: Float[Tensor, " n"], dimensions: int | None, quantile: float) -> Float[Tensor, " n"]:
    _, places, counts = values.unique(return_inverse=True, return_counts=True)
    middles = counts.cumsum(0).double() - (counts - 1).double() / 2  # of the ranks of those that are tied
    return ((middles - middles[0]) / _scale(middles[-1] - middles[0], values))[places]


def _zscore(values: Float[Tensor, " n"], dimensions: int | None, quantile: float) -> Float[Tensor, " n"]:
    half = values / 2
    _scale(half.max() - half.min(), values)  # rounding leaves a constant a standard deviation above 0
    _, digits = frexp(values.abs().max().item())
    values = values * 2.0 ** -max(digits, -1000)  # a power of two: no digit is lost, and no square overflows
    return (values - values.mean()) / values.std(correction=0)


def _max_abs(values: Float[Tensor, " n"], dimensions: int | None, quantile: float) -> Float[Tensor, " n"]:
    return values / _scale(values.abs().max(), values)


def _dimension(values: Float[Tensor, " n"], dimensions: int | None, quantile: float) -> Float[Tensor, " n"]:
    if dimensions is None:
        raise ValueError("normaliser 'dimension' divides by the number of features; dimensions is None")
    return values / check_whole(dimensions, "dimensions", least=1)


def _raw(values: Float[Tensor, " n"], dimensions: int | None, quantile: float) -> Float[Tensor, " n"]:
    return values


NORMALISERS: dict[str, Callable[[Tensor, int | None, float], Tensor]] = {
    "minmax": _minmax,
    "clipped": _clipped,
    "ranks": _ranks,
    "zscore": _zscore,
    "max_abs": _max_abs,
    "dimension": _dimension,
    "raw": _raw,
}


def _scaled(
    values: Float[Tensor, " n"], normaliser: str, dimensions: int | None, quantile: float
) -> Float[Tensor, " n"]:
    return NORMALISERS[check_choice(normaliser, NORMALISERS, "normaliser")](values, dimensions, quantile)


def _scale(size: Tensor, values: Float[Tensor, " n"]) -> Tensor:
    if not size > 0:
        raise ValueError(
            f"difficulty is constant: {values[0].item()} in each of {len(values)} rows (or in all but a few), so it has no "
            "scale. Were the features computed from one image? normaliser='raw' gives them equal weights."
        )
    return size
