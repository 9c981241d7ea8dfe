"""Long tails: how many examples each class keeps, which ones, and what weights or repeats make the classes even again."""

import numpy as np
from jaxtyping import Bool, Float, Int

from uqlib.base.arrays import Column
from uqlib.base.checks import check_labels, check_whole_column
from uqlib.base.options import check_number, check_whole
from uqlib.base.splits import uniform_numbers

LEAST_GAMMA = 1e-6  # below it the sizes are those of the limit, and rounding would leave nothing of c^gamma - 1


def long_tail_sizes(classes: int, *, largest: int, smallest: int, gamma: float) -> Int[np.ndarray, " c"]:
    """How many examples each class keeps: n_c = A / (B + c^gamma), c = 1, 2, ..., rounded.

    A and B are solved from the two ends, n_1 the largest and n_K the smallest. The paper prints the law with the two sizes
    in the places of A and B, which gives about 20 examples a class and contradicts its text; this is the reading that
    agrees with its errors.

    Args:
        classes: K, at least 2.
        largest, smallest: sizes of the first and the last class; equal ones make all classes equal.
        gamma: > 0; the smaller, the steeper: at 0.2 nearly all classes are near the smallest.

    Raises:
        ValueError: if there are fewer than two classes, the smallest is below 1 or above the largest, or gamma is not
            positive.

    Source:
        Hendrycks et al. 2019 (arXiv:1901.09960), class imbalance; (5000, 250) on CIFAR-10, (500, 25) on CIFAR-100.

    Examples:
        >>> from uqlib.imbalance import long_tail_sizes
        >>> long_tail_sizes(10, largest=5000, smallest=250, gamma=1.0)
        array([5000, 1607,  957,  682,  529,  433,  366,  317,  280,  250])
    """
    classes, largest = check_whole(classes, "classes", least=2), check_whole(largest, "largest", least=1)
    smallest = check_whole(smallest, "smallest", least=1, most=largest)
    gamma = max(LEAST_GAMMA, check_number(gamma, "gamma", above=0))
    if largest == smallest:
        return np.full(classes, largest)
    place = (np.arange(1, classes + 1) / classes) ** gamma  # c^gamma over its largest, which may be beyond float64
    # B over that: the law is the same, n_c = n_1 (B + 1) / (B + c^gamma), with all of them in units of K^gamma
    shift = (smallest - largest * place[0]) / (largest - smallest)
    return np.rint(largest * ((shift + place[0]) / (shift + place))).astype(np.int64)


def long_tail_rows(labels: Column, sizes: Column, *, seed: int) -> Int[np.ndarray, " k"]:
    """Rows drawn without replacement, so many of each class, the same on every machine and NumPy version.

    With one seed the rows of smaller sizes are among those of larger ones, so that two tails share what they can.

    Args:
        labels: (n,), classes in [0, c).
        sizes: (c,), how many rows of each class.
        seed: of the draw, 0 or larger.

    Returns:
        Ascending row numbers.

    Raises:
        TypeError: if labels or sizes are no integers.
        ValueError: if a class has fewer rows than its size, a label is outside [0, c), or a size is negative.

    Examples:
        >>> from uqlib.imbalance import long_tail_rows
        >>> long_tail_rows([0, 1, 0, 1, 0], [2, 1], seed=0)
        array([0, 2, 3])
    """
    wanted = check_sizes(sizes)
    classes = check_labels(labels, len(wanted)).cpu().numpy()
    there = np.bincount(classes, minlength=len(wanted))
    if (there < wanted).any():
        short = int(np.flatnonzero(there < wanted)[0])
        raise ValueError(
            f"class {short} has {there[short]} rows where {wanted[short]} are asked for. Ask for smaller sizes."
        )
    order = np.argsort(uniform_numbers(len(classes), seed=seed), kind="stable")
    return np.sort(np.concatenate([order[classes[order] == k][:size] for k, size in enumerate(wanted)]))


def minority_classes(sizes: Column) -> Bool[np.ndarray, " c"]:
    """Which classes have fewer examples than the mean of all.

    Args:
        sizes: (c,), examples of each class.

    Raises:
        TypeError: if the sizes are no integers.
        ValueError: if a size is negative.

    Source:
        Hendrycks et al. 2019 (arXiv:1901.09960), class imbalance: the minority error is the mean over these.

    Examples:
        >>> from uqlib.imbalance import minority_classes
        >>> minority_classes([500, 250, 50])
        array([False,  True,  True])
    """
    counts = check_sizes(sizes)
    return counts < counts.mean()


def balanced_weights(labels: Column, *, classes: int) -> Float[np.ndarray, " c"]:
    """A weight for each class, one over its size, such that the mean over the training set is one: n / (c n_c).

    Args:
        labels: (n,), of the training set, in [0, classes); each class must occur.
        classes: how many there are.

    Returns:
        Float64, for `losses.weighted`. The paper does not say how it scales them.

    Raises:
        TypeError: if the labels are no integers.
        ValueError: if a class has no example, or a label is outside [0, classes).

    Source:
        "Cost sensitive" of Hendrycks et al. 2019 (arXiv:1901.09960), table 2.

    Examples:
        >>> from uqlib.imbalance import balanced_weights
        >>> balanced_weights([0, 0, 0, 1], classes=2).round(3)
        array([0.667, 2.   ])
    """
    sizes = _occurring(labels, classes)[1]
    return sizes.sum() / (len(sizes) * sizes)


def oversampled_rows(labels: Column, *, classes: int, seed: int) -> Int[np.ndarray, " k"]:
    """Every row once, in order, then random ones again until all classes are as large as the largest.

    The repeats are drawn with replacement, the same on every machine and NumPy version.

    Args:
        labels: (n,), of the training set, in [0, classes); each class must occur.
        classes: how many there are.
        seed: of the draw, 0 or larger.

    Raises:
        TypeError: if the labels are no integers.
        ValueError: if a class has no example, or a label is outside [0, classes).

    Source:
        "Oversampling" of Hendrycks et al. 2019 (arXiv:1901.09960), table 2.

    Examples:
        >>> from uqlib.imbalance import oversampled_rows
        >>> oversampled_rows([0, 0, 0, 1], classes=2, seed=0)
        array([0, 1, 2, 3, 3, 3])
    """
    numbers, sizes = _occurring(labels, classes)
    missing = sizes.max() - sizes
    drawn = np.split(uniform_numbers(int(missing.sum()), seed=seed), np.cumsum(missing)[:-1])
    again = [np.flatnonzero(numbers == k)[(u * sizes[k]).astype(np.int64)] for k, u in enumerate(drawn)]
    return np.concatenate([np.arange(len(numbers)), *again])


def check_sizes(sizes: Column) -> Int[np.ndarray, " c"]:
    """How many examples each class has, as int64.

    Raises:
        TypeError: if they are no integers.
        ValueError: if one is negative.
    """
    counts = check_whole_column(sizes, "sizes").cpu().numpy()
    if (counts < 0).any():
        negative = int(np.flatnonzero(counts < 0)[0])
        raise ValueError(f"sizes must be 0 or larger; that of class {negative} is {counts[negative]}")
    return counts


def _occurring(labels: Column, classes: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " c"]]:
    """The labels, and the size of each class, which is never 0."""
    classes = check_whole(classes, "classes", least=1)
    numbers = check_labels(labels, classes).cpu().numpy()
    sizes = np.bincount(numbers, minlength=classes)
    if not sizes.all():
        raise ValueError(
            f"every class needs an example; class {int(np.flatnonzero(sizes == 0)[0])} of {classes} has none. "
            "Fewer classes? Number them anew."
        )
    return numbers, sizes
