"""Recall@1 of a retrieval, and whether an uncertainty tells its misses."""

from jaxtyping import Bool, Float

from uqlib.base.arrays import Array, Column, Table, as_tensor, like
from uqlib.base.checks import check_confidence, check_features, check_labels, check_mask
from uqlib.metrics.detection import auroc
from uqlib.metrics.retrieval.neighbours import nearest_neighbours
from uqlib.metrics.selective import selective_risks


def retrieved(features: Table, labels: Column) -> Bool[Array, " n"]:
    """Whether the nearest other row is of the same class: what Recall@1 counts.

    An image that is alone in its class is never found, and counts as a miss, as in the source.

    Args:
        features: (n, d), as `nearest_neighbours` takes them, n at least 2.
        labels: (n,), whole numbers, none below 0.

    Raises:
        TypeError: if labels are no whole numbers.
        ValueError: as `nearest_neighbours`, and if the lengths differ or a label is below 0.

    Source:
        Kirchhof et al. 2023 (arXiv:2307.03810), section 3.

    Examples:
        >>> from uqlib.metrics import retrieved
        >>> retrieved([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]], [0, 0, 1])
        array([ True,  True, False])
    """
    y = check_labels(labels, None, len(check_features(features)))
    nearest = as_tensor(nearest_neighbours(features).rows)[:, 0]
    return like(y.to(nearest.device)[nearest] == y.to(nearest.device), features)


def recall_at_1(features: Table, labels: Column) -> float:
    """Share of the rows whose nearest other row is of the same class, higher is better. See `retrieved`.

    Args:
        features, labels: as `retrieved` takes them.

    Examples:
        >>> from uqlib.metrics import recall_at_1
        >>> recall_at_1([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]], [0, 0, 1, 1])
        1.0
    """
    return as_tensor(retrieved(features, labels)).double().mean().item()


def r_auroc(uncertainty: Column, found: Column) -> float:
    """Probability that a miss of the retrieval is more uncertain than a hit, higher is better; a tie counts half.

    Args:
        uncertainty: (n,), higher = less certain.
        found: (n,) true or false, from `retrieved`.

    Raises:
        ValueError: if an uncertainty is not finite, the lengths differ, or there are no hits or no misses.

    Source:
        Kirchhof et al. 2023 (arXiv:2307.03810), section 3.

    Examples:
        >>> from uqlib.metrics import r_auroc
        >>> r_auroc([0.1, 0.2, 0.9, 0.3], [True, True, False, False])
        1.0
    """
    u = check_confidence(uncertainty, "uncertainty")
    return auroc(u, ~check_mask(found, "found", len(u), u.device))


def abstained_recall(uncertainty: Column, found: Column) -> Float[Array, " n"]:
    """Recall@1 of the k most certain rows, k = 1 to n; ties are shared. It begins with the most certain alone.

    Args:
        uncertainty, found: as `r_auroc` takes them.

    Returns:
        Fractions in [0, 1]; the last is Recall@1 of all rows.

    Examples:
        >>> from uqlib.metrics import abstained_recall
        >>> abstained_recall([0.1, 0.2, 0.9, 0.3], [True, True, False, False]).round(2)
        array([1.  , 1.  , 0.67, 0.5 ])
    """
    u = check_confidence(uncertainty, "uncertainty")
    risks = selective_risks(-u.double(), check_mask(found, "found", len(u), u.device))
    return like(1 - as_tensor(risks), uncertainty)
