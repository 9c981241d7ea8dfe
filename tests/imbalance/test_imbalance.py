import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from imblearn.over_sampling import RandomOverSampler
from sklearn.utils.class_weight import compute_class_weight

from uqlib.imbalance import (
    balanced_weights,
    long_tail_rows,
    long_tail_sizes,
    minority_classes,
    oversampled_rows,
    smote,
)

CIFAR10 = {  # gamma: total, sizes, minority classes, of the reading of the law that agrees with the printed errors
    0.2: (8662, "5000 858 557 439 375 333 304 282 264 250", 9),
    0.4: (8992, "5000 997 630 485 405 353 316 289 267 250", 8),
    0.6: (9390, "5000 1166 720 539 440 376 331 297 271 250", 8),
    0.8: (9864, "5000 1369 828 605 481 402 347 307 275 250", 8),
    1.0: (10421, "5000 1607 957 682 529 433 366 317 280 250", 8),
    1.5: (12186, "5000 2343 1388 936 683 526 421 347 292 250", 7),
    2.0: (14402, "5000 3173 1972 1289 892 648 490 382 306 250", 7),
}
CIFAR100 = {
    0.2: (4282, 78), 0.4: (4915, 77), 0.6: (5759, 75), 0.8: (6830, 74), 1.0: (8072, 72), 1.5: (11646, 69), 2.0: (15214, 66),
}  # fmt: skip
LABELS = np.repeat([0, 1, 2], [20, 9, 7])[np.random.default_rng(0).permutation(36)]


@pytest.mark.parametrize("gamma", CIFAR10)
def test_the_table_of_sizes(gamma):
    total, sizes, minority = CIFAR10[gamma]
    found = long_tail_sizes(10, largest=5000, smallest=250, gamma=gamma)
    assert " ".join(map(str, found)) == sizes
    assert (found.sum(), minority_classes(found).sum()) == (total, minority)
    found = long_tail_sizes(100, largest=500, smallest=25, gamma=gamma)
    assert (found.sum(), minority_classes(found).sum()) == CIFAR100[gamma]


@given(st.integers(2, 50), st.integers(1, 400), st.integers(0, 4000), st.floats(0.05, 4))
def test_sizes_fall_from_the_largest_to_the_smallest(classes, smallest, more, gamma):
    sizes = long_tail_sizes(classes, largest=smallest + more, smallest=smallest, gamma=gamma)
    assert (sizes[0], sizes[-1]) == (smallest + more, smallest)
    assert (np.diff(sizes) <= 0).all()


def test_rows_are_as_many_of_each_class_as_asked_and_each_once():
    for seed in range(5):
        rows = long_tail_rows(LABELS, [12, 9, 0], seed=seed)
        assert np.bincount(LABELS[rows], minlength=3).tolist() == [12, 9, 0]
        assert (np.diff(rows) > 0).all()


def test_the_seed_draws_every_row_as_often():
    chosen = np.zeros(36)
    for seed in range(600):
        chosen[long_tail_rows(LABELS, [5, 3, 7], seed=seed)] += 1
    share = np.array([5 / 20, 3 / 9, 1.0])[LABELS]
    assert (np.abs(chosen / 600 - share) <= 4.5 * np.sqrt(share * (1 - share) / 600)).all()


def test_a_shorter_tail_of_the_same_seed_is_part_of_the_longer():
    long, short = (set(long_tail_rows(LABELS, sizes, seed=4).tolist()) for sizes in ([12, 8, 5], [12, 3, 2]))
    assert short < long


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40))
def test_weights_are_those_of_scikit_learn_and_one_on_average(extra):
    labels = np.array([0, 1, 2, 3, *extra])
    found = balanced_weights(labels, classes=4)
    assert found == pytest.approx(compute_class_weight("balanced", classes=np.arange(4), y=labels), rel=1e-12)
    assert found[labels].mean() == pytest.approx(1, rel=1e-12)


def test_oversampling_keeps_every_row_and_counts_as_imbalanced_learn():
    rows = oversampled_rows(LABELS, classes=3, seed=0)
    assert rows[:36].tolist() == list(range(36))
    expected = RandomOverSampler(random_state=0).fit_resample(np.arange(36)[:, None], LABELS)[1]
    assert np.bincount(LABELS[rows]).tolist() == np.bincount(expected).tolist() == [20, 20, 20]
    assert rows.tolist() != oversampled_rows(LABELS, classes=3, seed=1).tolist()
    even = np.arange(9) % 3
    assert oversampled_rows(even, classes=3, seed=0).tolist() == list(range(9))


def test_oversampling_draws_every_row_of_a_class_as_often():
    again = np.zeros(36)
    for seed in range(400):
        again += np.bincount(oversampled_rows(LABELS, classes=3, seed=seed)[36:], minlength=36)
    for k, size, missing in ((1, 9, 11), (2, 7, 13)):
        draws = 400 * missing
        error = np.sqrt(draws / size * (1 - 1 / size))
        assert (np.abs(again[k == LABELS] - draws / size) < 4.5 * error).all()
    assert not again[LABELS == 0].any()


# --- SMOTE


@pytest.fixture
def images():
    return np.random.default_rng(1).integers(0, 256, (36, 4, 4, 3), dtype=np.uint8)


def distance_to_a_segment(image, pairs):
    """The largest difference of a pixel to the nearest point of the best segment between two images."""
    best = np.inf
    for a, b in pairs:
        step = b - a
        place = np.clip((image - a) @ step / (step @ step), 0, 1)
        best = min(best, np.abs(image - a - place * step).max())
    return best


def test_synthetic_images_lie_between_an_image_and_one_of_its_nearest_of_the_class(images):
    found = smote(images, LABELS, neighbours=3, seed=0)
    assert (found.images[:36] == images).all()
    assert (found.labels[:36] == LABELS).all()
    assert np.bincount(found.labels).tolist() == [20, 20, 20]
    assert found.images.dtype == np.uint8
    flat = images.reshape(36, -1).astype(float)
    for k in (1, 2):
        own = flat[k == LABELS]
        gaps = np.linalg.norm(own[:, None] - own, axis=-1)
        pairs = [(own[i], own[j]) for i in range(len(own)) for j in np.argsort(gaps[i])[1:4]]
        new = found.images[36:][found.labels[36:] == k].reshape(-1, 48).astype(float)
        assert all(distance_to_a_segment(image, pairs) < 1.5 for image in new)  # rounding, and the place shifted by it


def test_smote_is_of_its_seed_and_of_any_kind_of_array(images):
    first = smote(images, LABELS, seed=1)
    assert (first.images == smote(torch.tensor(images), torch.tensor(LABELS), seed=1).images).all()
    assert (first.images != smote(images, LABELS, seed=2).images).any()
    even = smote(images, np.arange(36) % 3, seed=1)
    assert (even.images == images).all()


def test_bright_images_stay_bright():
    """Values that wrapped around 255 would be dark."""
    images = np.random.default_rng(0).integers(254, 256, (12, 2, 2, 3), dtype=np.uint8)
    assert smote(images, [0] * 8 + [1] * 4, neighbours=2, seed=0).images.min() >= 254


# --- errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: long_tail_sizes(1, largest=9, smallest=2, gamma=1), "classes must be a whole number of at least 2"),
        (lambda: long_tail_sizes(9, largest=9, smallest=10, gamma=1), "smallest must be .* at most 9; it is 10"),
        (lambda: long_tail_sizes(9, largest=9, smallest=0, gamma=1), "smallest must be .*; it is 0"),
        (lambda: long_tail_sizes(9, largest=9, smallest=1, gamma=0), "gamma must be a finite number above 0; it is 0"),
        (lambda: long_tail_rows(LABELS, [1, 10, 1], seed=0), "class 1 has 9 rows where 10 are asked for"),
        (lambda: long_tail_rows(LABELS, [1, 1], seed=0), r"labels must lie in \[0, 2\)"),
        (lambda: long_tail_rows(LABELS, [1, -1, 1], seed=0), "sizes must be 0 or larger; that of class 1 is -1"),
        (lambda: minority_classes([3, -2]), "that of class 1 is -2"),
        (lambda: balanced_weights(LABELS, classes=4), "class 3 of 4 has none"),
        (lambda: balanced_weights(LABELS, classes=2), r"labels must lie in \[0, 2\)"),
        (lambda: oversampled_rows(LABELS, classes=4, seed=0), "class 3 of 4 has none"),
        (lambda: oversampled_rows([0, -1], classes=2, seed=0), r"labels must lie in \[0, 2\); row 1 is -1"),
        (lambda: smote(np.zeros((3, 2, 2, 3), np.uint8), [0, 0, 2], seed=0), "class 1 of 3 has none"),
        (lambda: smote(np.zeros((8, 2, 2, 3), np.uint8), [0] * 5 + [1] * 3, neighbours=3, seed=0), "class 1 has 3"),
        (lambda: smote(np.zeros((3, 2, 2), np.uint8), [0, 0, 1], seed=0), r"must have shape \(n, h, w, 3\)"),
        (lambda: smote(np.zeros((3, 2, 2, 3), np.uint8), [0, 0], seed=0), "labels has 2 rows where 3 are expected"),
        (lambda: smote(np.zeros((3, 2, 2, 3), np.uint8), [0, 0, 1], neighbours=0, seed=0), "neighbours must be"),
        (lambda: smote(np.zeros((3, 2, 2, 3), np.uint8), [0, 0, 1], seed=-1), "seed must be"),
    ],
)
def test_errors_name_the_value(call, message, unchecked):
    with pytest.raises(ValueError, match=message):
        call()


def test_images_of_another_type_are_refused(unchecked):
    with pytest.raises(TypeError, match="images must be uint8, 0 to 255; they are float32"):
        smote(np.zeros((3, 2, 2, 3), np.float32), [0, 0, 1], seed=0)


@pytest.mark.parametrize("gamma", [1e-9, 0.2, 1.0, 20.0, 500.0, 1e5])
def test_every_gamma_gives_sizes_between_the_two_ends(gamma):
    sizes = long_tail_sizes(10, largest=500, smallest=25, gamma=gamma)
    assert sizes[0] == 500
    assert sizes[-1] == 25
    assert (np.diff(sizes) <= 0).all()
    if gamma >= 500:
        assert (sizes[:-1] == 500).all()  # the flatter, the later it falls


def test_a_class_of_one_image_has_no_neighbours_to_pass():
    images = np.zeros((4, 2, 2, 3), np.uint8)
    with pytest.raises(ValueError, match=r"class 1 has 1\. Leave the class out, or give it a second image"):
        smote(images, [0, 0, 0, 1], neighbours=1, seed=0)


@pytest.mark.parametrize("gamma", [1e-300, 1e-17, 1e-14, 1e-9])
def test_a_tiny_gamma_gives_the_sizes_of_the_limit(gamma):
    """(c^gamma - 1) / (K^gamma - 1) becomes log c / log K."""
    place = np.log(np.arange(1, 11)) / np.log(10)
    expected = np.rint(5000 * 250 / (250 + 4750 * place))
    assert long_tail_sizes(10, largest=5000, smallest=250, gamma=gamma).tolist() == expected.tolist()
