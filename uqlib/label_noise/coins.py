"""Outcomes of known probability: the class of an image sets the probability, a coin is thrown for each image.

What a network that learns from the coins says can then be held against the probability itself, which no real task allows.
"""

import numpy as np
from jaxtyping import Bool, Float

from uqlib.base.arrays import Column
from uqlib.base.checks import check_labels, check_share
from uqlib.base.options import check_choice
from uqlib.base.splits import uniform_numbers

CLASSES = 10
SCENARIOS = {  # the probability of each class, as the scenarios of the paper have it by age
    "discrete": tuple(round(0.1 + 0.2 * (k % 5), 2) for k in range(CLASSES)),  # five steps, each of two classes
    "linear": tuple(round(0.05 + 0.1 * k, 2) for k in range(CLASSES)),
    "skewed": tuple(round(0.02 + 0.04 * k, 2) for k in range(CLASSES)),  # rare throughout
}


def outcome_probabilities(labels: Column, scenario: str) -> Float[np.ndarray, " n"]:
    """The probability of outcome 1 of each image, by its class.

    Args:
        labels: (n,) classes in [0, 10).
        scenario: in SCENARIOS: "discrete", 0.1 to 0.9 in five steps of two classes each; "linear", 0.05 to 0.95; "skewed", 0.02 to
            0.38.

    Raises:
        ValueError: if a label is outside [0, 10) or the scenario is unknown.

    Source:
        Liu et al. 2022 (arXiv:2111.10734), synthetic data: their scenarios map the age of a face, these map a class.

    Examples:
        >>> from uqlib.label_noise import outcome_probabilities
        >>> outcome_probabilities([0, 1, 9], "linear")
        array([0.05, 0.15, 0.95])
    """
    table = SCENARIOS[check_choice(scenario, SCENARIOS, "scenario")]
    return np.array(table)[check_labels(labels, CLASSES).cpu().numpy()]


def draw_coins(truth: Column, *, seed: int) -> Bool[np.ndarray, " n"]:
    """One outcome an example: true with its probability, the same on every machine.

    Args:
        truth: (n,) probabilities of outcome 1, in [0, 1].
        seed: of the draw, 0 or larger.

    Raises:
        ValueError: if a probability is outside [0, 1], or the seed is negative.

    Examples:
        >>> from uqlib.label_noise import draw_coins
        >>> draw_coins([0.0, 1.0, 0.5, 0.5], seed=0).tolist()
        [False, True, True, True]
    """
    probability = check_share(truth, "truth").double().cpu().numpy()
    return uniform_numbers(len(probability), seed=seed) < probability
