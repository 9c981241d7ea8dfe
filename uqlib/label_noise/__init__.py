"""Wrong labels: how often each class becomes which other, put in on purpose, and estimated from predictions.

A transition is a matrix (c, c): entry i, j is the probability that an example of class i got the label j, so that every
row sums to one. `losses.forward` and `losses.corrected` learn with it.

    transition = uniform_transition(10, 0.6)
    given = corrupt_labels(labels, transition, seed=1)
    estimated = transition_by_trusted(probs, labels)
"""

from uqlib.label_noise.coins import draw_coins, outcome_probabilities
from uqlib.label_noise.estimation import transition_by_anchors, transition_by_trusted, transition_error
from uqlib.label_noise.strengths import area_under_strengths
from uqlib.label_noise.transitions import (
    check_transition,
    corrupt_labels,
    flip_transition,
    hierarchical_transition,
    uniform_transition,
)

__all__ = [
    "area_under_strengths",
    "check_transition",
    "corrupt_labels",
    "draw_coins",
    "flip_transition",
    "hierarchical_transition",
    "outcome_probabilities",
    "transition_by_anchors",
    "transition_by_trusted",
    "transition_error",
    "uniform_transition",
]
