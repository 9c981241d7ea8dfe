"""Zheng et al. 2023 (arXiv:2302.02334): the simulation as released.

Known differences: the released table of the error of Bayes has another split of the features for two classes, and is off in
small dimensions; a closed form for any number of classes is used here. Its correlated covariance has eigenvalues below 0, and is left out.
"""

import math

import numpy as np
from jaxtyping import Float, Int

from uqlib.base.options import check_whole

MOST_CLASSES = 20  # their means double from one to the next


def gaussian_design(
    classes: int, dim: int, rows: int, *, seed: int
) -> tuple[Float[np.ndarray, "rows dim"], Int[np.ndarray, " rows"]]:
    """Examples of the released simulation, as many of each class: features and labels.

    Class 0 has mean -1 in every feature, class k the mean 2^(k-1). The first half of the features has a variance as large as
    the dimension, the others 1, in every class: naive Bayes is right, and the distance of the classes grows with the
    dimension. For more than two classes all is shifted and scaled by 2^(classes - 3).

    Raises:
        ValueError: if a number is out of range.
    """
    classes, dim = check_whole(classes, "classes", least=2, most=MOST_CLASSES), check_whole(dim, "dim", least=2)
    rows, seed = check_whole(rows, "rows", least=1), check_whole(seed, "seed", least=0)
    labels = np.arange(rows) % classes
    means = _means(classes)[labels]
    spread = np.where(np.arange(dim) < dim // 2, math.sqrt(dim), 1.0)
    features = means[:, None] + spread * np.random.Generator(np.random.PCG64(seed)).standard_normal((rows, dim))
    shift = 2.0 ** (classes - 3) if classes > 2 else 0.0
    return (features - shift) / (shift or 1.0), labels


def bayes_error(classes: int, dim: int) -> float:
    """The error of Bayes of the design, for as many examples of each class.

    The means lie on one line and the covariance is shared, so Bayes draws a border half way between neighbours on it. With s
    standard deviations between means that differ by 1 in every feature, a gap of g costs each of its two sides Phi(-g s / 2).

    Raises:
        ValueError: if a number is out of range.

    Examples:
        >>> from uqlib.papers.zheng2023 import bayes_error
        >>> round(bayes_error(3, 50), 4)
        0.0039
    """
    classes, dim = check_whole(classes, "classes", least=2, most=MOST_CLASSES), check_whole(dim, "dim", least=2)
    apart = math.sqrt(dim // 2 / dim + (dim - dim // 2))  # standard deviations, for means that are 1 apart
    return sum(math.erfc(gap * apart / 2 / math.sqrt(2)) for gap in np.diff(_means(classes))) / classes


def _means(classes: int) -> Float[np.ndarray, " classes"]:
    """Of every feature, by class."""
    return np.array([-1.0, *(2.0 ** np.arange(classes - 1))])
