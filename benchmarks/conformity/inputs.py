"""What every peer of the lab is given: real answers that come with the checkout, and the few rows that break things.

Each input is a confidence and whether the prediction is correct, or a score and whether the example is positive: two
columns. `REAL` inputs come from data/store, the others are written out here. Needs uqlib alone.
"""

import numpy as np

from uqlib import store
from uqlib.calibrate import max_probability

BINS = 10  # of every binned metric, whatever the default of the library
SEED = 0


def columns() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The inputs by name."""
    return real() | broken()


def real() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A ResNet-56 on CIFAR-10: float32 confidences with their ties, float64 ones without, and CIFAR-100 as foreign."""
    answers = store.load_answers("cifar_resnet56", "cifar10")
    foreign = store.load_answers("cifar_resnet56", "cifar100_ood")
    correct = (answers.logits.argmax(1) == answers.labels).numpy()
    known, unknown = (each.logits.float().softmax(1).amax(1).numpy() for each in (answers, foreign))
    return {
        "cifar10": (known, correct),
        "distinct": (max_probability(answers.logits).numpy(), correct),
        "foreign": (1 - np.concatenate([known, unknown]), np.arange(len(known) + len(unknown)) >= len(known)),
    }


def broken() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Small inputs, each with one difficulty."""
    half = np.arange(1000) % 2 == 0
    return {
        "tied": (np.full(1000, 0.8), half),
        "tied, errors first": (np.full(1000, 0.8), np.sort(half)),
        "tied, errors last": (np.full(1000, 0.8), np.sort(half)[::-1].copy()),
        "on an edge": (np.repeat([0.45, 0.5, 0.55], 100), np.repeat([True, False, True], 100)),
        "zero and one": (np.repeat([0.0, 0.02, 0.98, 1.0], 100), np.repeat([True, False, True, False], 100)),
        "five rows": (np.array([0.95, 0.9, 0.8, 0.7, 0.6]), np.array([True, False, True, True, False])),
        "all correct": (np.array([0.95, 0.9, 0.8, 0.7, 0.6]), np.ones(5, dtype=bool)),
        "one row": (np.array([0.9]), np.array([True])),
    }


def many(n: int = 10**7) -> tuple[np.ndarray, np.ndarray]:
    """float32 confidences as of a good classifier, somewhat overconfident; few ties."""
    rng = np.random.default_rng(SEED)
    margin = 2 + 2 * rng.standard_normal(n, dtype=np.float32)
    confidence = ((1 + 1 / (1 + np.exp(-np.abs(margin)))) / 2).astype(np.float32)
    return confidence, rng.random(n, dtype=np.float32) < 0.98 * confidence - 0.02


def tables() -> dict[str, np.ndarray]:
    """Probabilities, labels, logits and features of the same network, for what takes more than a column."""
    answers = store.load_answers("cifar_resnet56", "cifar10", columns=("logits", "labels"))
    train = store.load_answers("cifar_resnet56", "cifar10", "train", columns=("features", "labels"))
    test = store.load_answers("cifar_resnet56", "cifar10", columns=("features", "labels"))
    return {
        "logits": answers.logits.numpy(),
        "probs": answers.logits.double().softmax(1).numpy(),
        "labels": answers.labels.numpy(),
        "train_features": train.features.double().numpy(),
        "train_labels": train.labels.numpy(),
        "features": test.features.double().numpy(),
        "features_labels": test.labels.numpy(),
    }
