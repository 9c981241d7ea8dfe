"""Retrieval beside scikit-learn's neighbours and AUROC, beside float64 by brute force, and beside the authors' own vectors."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from uqlib.metrics import abstained_recall, auroc, nearest_neighbours, r_auroc, recall_at_1, retrieved
from uqlib.metrics.retrieval import neighbours


def features(n=150, d=8, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d))


def by_brute_force(x, y=None, k=1):
    """Rows and cosines in float64, the lower row first where they are equal; a row is not its own neighbour."""
    unit = [
        np.asarray(each, float) / np.linalg.norm(each, axis=1, keepdims=True) for each in (x, x if y is None else y)
    ]
    similar = unit[0] @ unit[1].T
    if y is None:
        np.fill_diagonal(similar, -np.inf)
    rows = np.argsort(-similar, axis=1, kind="stable")[:, :k]
    return rows, np.take_along_axis(similar, rows, 1)


@pytest.fixture(params=[13, 64, 1024])
def block(request, monkeypatch):
    """Blocks that the rows fill many times, with a rest, and not once."""
    monkeypatch.setattr(neighbours, "BLOCK", request.param)


@pytest.mark.parametrize("k", [1, 5])
def test_neighbours_are_those_of_scikit_learn(block, k):
    x, y = features(), features(90, seed=1)
    far, rows = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(y).kneighbors(x)
    found = nearest_neighbours(x, y, k=k)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.similarity, 1 - far, atol=1e-12)
    far, rows = (
        NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(x).kneighbors()
    )  # leaves one out
    found = nearest_neighbours(x, k=k)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.similarity, 1 - far, atol=1e-12)


def test_neighbours_in_single_precision_are_as_near_as_those_in_double(block):
    x = torch.randn(300, 64, generator=torch.Generator().manual_seed(0))
    rows, similar = by_brute_force(x.numpy())
    found = nearest_neighbours(x)
    assert found.similarity.dtype == torch.float32
    np.testing.assert_allclose(found.similarity, similar, atol=1e-6)
    assert (found.rows.numpy() != rows).mean() < 0.01
    half = nearest_neighbours(x.half())
    np.testing.assert_allclose(half.similarity, by_brute_force(x.half().double().numpy())[1], atol=1e-6)


def test_of_equal_neighbours_the_lower_row_comes_first(block):
    """Directions along the axes: every similarity is exactly 0 or 1, in every precision."""
    axis = np.random.default_rng(0).integers(0, 5, 90)
    x = np.eye(5)[axis] * np.random.default_rng(1).choice([0.5, 1, 2], (90, 1))
    for k in (1, 3, 40):
        rows, similar = by_brute_force(x, k=k)
        found = nearest_neighbours(x, k=k)
        np.testing.assert_array_equal(found.rows, rows)
        np.testing.assert_array_equal(found.similarity, similar)
        rows, _ = by_brute_force(np.eye(5), x, k=k)
        np.testing.assert_array_equal(nearest_neighbours(np.eye(5), x, k=k).rows, rows)


def test_of_an_image_that_is_there_twice_the_copy_is_the_neighbour(block):
    x = features(40)
    twice = np.concatenate([x, x])
    for k in (1, 2):
        found = nearest_neighbours(twice, k=k)
        np.testing.assert_array_equal(found.rows[:, 0], np.r_[40:80, 0:40])
        np.testing.assert_allclose(found.similarity[:, 0], 1, atol=1e-12)
    collapsed = np.ones((30, 3))  # all the same: the first other row, never the row itself
    np.testing.assert_array_equal(nearest_neighbours(collapsed).rows[:, 0], [1] + [0] * 29)
    np.testing.assert_array_equal(nearest_neighbours(collapsed, k=29).rows[0], range(1, 30))


def test_a_database_may_hold_the_row_itself():
    x = features(30)
    np.testing.assert_array_equal(nearest_neighbours(x, x).rows[:, 0], range(30))


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_the_length_of_the_features_does_not_matter(size):
    x = features(60).astype(np.float32)
    np.testing.assert_array_equal(nearest_neighbours(x * np.float32(size)).rows, nearest_neighbours(x).rows)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.__setitem__((3, 1), np.nan), "features must be finite; row 3, column 1 is nan"),
        (lambda x: x.__setitem__(2, 0), "row 2 of features is all zeros, and has no direction"),
    ],
)
def test_rows_without_a_direction_are_refused(change, message):
    x = features(9)
    change(x)
    with pytest.raises(ValueError, match=message):
        nearest_neighbours(x)


def test_what_cannot_be_searched_is_refused(unchecked):
    with pytest.raises(ValueError, match="features and database must have one width; they have 8 and 3"):
        nearest_neighbours(features(4), features(4, 3))
    with pytest.raises(ValueError, match="k must be at most 3, the neighbours that there are; it is 4"):
        nearest_neighbours(features(4), k=4)
    with pytest.raises(ValueError, match="k must be at most 0"):
        retrieved(features(1), [0])
    with pytest.raises(ValueError, match=r"features must have shape \(n, d\) with at least one row; it is \(8,\)"):
        retrieved(features(8)[:, 0], np.zeros(8, int))
    with pytest.raises(ValueError, match="labels has 3 rows where 4 are expected"):
        retrieved(features(4), [0, 1, 1])
    with pytest.raises(ValueError, match="labels must be 0 or larger; row 2 is -1"):
        retrieved(features(4), [0, 1, -1, 1])


def test_recall_at_1_is_the_share_that_scikit_learn_finds():
    x, y = features(200), np.random.default_rng(1).integers(0, 4, 200)
    x += np.eye(4, 8)[y]
    nearest = NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute").fit(x).kneighbors()[1][:, 0]
    np.testing.assert_array_equal(retrieved(x, y), y[nearest] == y)
    assert recall_at_1(x, y) == (y[nearest] == y).mean()
    assert 0.3 < recall_at_1(x, y) < 0.9
    assert retrieved(torch.tensor(x), y).dtype == torch.bool


def test_an_image_alone_in_its_class_is_a_miss():
    x = features(20)
    assert not retrieved(x, np.arange(20)).any()
    y = np.r_[np.zeros(19, int), 7]
    assert retrieved(x, y)[:19].sum() == 19 - (nearest_neighbours(x).rows[:19, 0] == 19).sum()
    assert not retrieved(x, y)[19]


ROWS = st.lists(st.tuples(st.integers(0, 6).map(float), st.booleans()), min_size=2, max_size=40).filter(
    lambda rows: 0 < sum(found for _, found in rows) < len(rows)
)


@given(ROWS)
@settings(max_examples=25)
def test_r_auroc_is_the_auroc_of_the_misses(rows):
    u, found = map(np.array, zip(*rows, strict=True))
    expected = roc_auc_score(~found, u)
    assert r_auroc(u, found) == pytest.approx(expected, abs=1e-12)
    assert r_auroc(np.exp(u), found) == r_auroc(3 * u - 50, found) == r_auroc(u, found)  # any increasing change
    assert r_auroc(-u, found) == pytest.approx(1 - expected, abs=1e-12)


def test_r_auroc_knows_the_best_the_worst_and_nothing():
    found = np.arange(50) % 3 > 0
    assert r_auroc(1.0 - found, found) == 1
    assert r_auroc(1.0 * found, found) == 0
    assert r_auroc(np.full(50, 0.3), found) == 0.5
    with pytest.raises(ValueError, match=r"uncertainty must be finite; row 4 is nan"):
        r_auroc(np.where(np.arange(50) == 4, np.nan, 0.0), found)
    with pytest.raises(ValueError, match="found has 50 rows where 49 are expected"):
        r_auroc(np.zeros(49), found)
    with pytest.raises(ValueError, match="needs both classes"):
        r_auroc(np.zeros(50), np.ones(50, bool))


@given(ROWS)
@settings(max_examples=20)
def test_recall_grows_as_the_uncertain_are_left_out(rows):
    u, found = map(np.array, zip(*rows, strict=True))
    curve = abstained_recall(u, found)
    assert curve[-1] == pytest.approx(found.mean(), abs=1e-12)
    for k in range(1, len(u) + 1):
        if k == len(u) or np.sort(u)[k - 1] < np.sort(u)[k]:  # where no tie is cut, the k most certain rows are clear
            assert curve[k - 1] == pytest.approx(found[u <= np.sort(u)[k - 1]].mean(), abs=1e-12)


@pytest.fixture(scope="module")
def released():
    """The vectors that the authors publish beside their plots. They are theirs, so they are read where they are."""
    if not (folder := os.environ.get("UQLIB_URL_PLOTS")):
        pytest.skip(
            "vectors of others: clone https://github.com/mkirchhof/url and set UQLIB_URL_PLOTS to its folder plots"
        )
    return lambda name: np.loadtxt(Path(folder) / name)


def test_released_uncertainties_tell_ambiguous_images_as_reported(released):
    """0.701 in arXiv:2402.16569; 750 images of ImageNet have no valid label, and count as ambiguous or not at all."""
    entropy, u = released("gt_entropies.csv"), released("uncertainties_pretrained.csv")
    known = ~np.isnan(entropy)
    assert (~known).sum() == 750
    assert auroc(u, np.nan_to_num(entropy, nan=1.0) > 0) == pytest.approx(0.7007, abs=5e-5)
    assert auroc(u[known], entropy[known] > 0) == pytest.approx(0.7013, abs=5e-5)
    assert spearmanr(u[known], entropy[known])[0] == pytest.approx(0.328, abs=5e-4)


def test_released_uncertainties_do_not_tell_unseen_sets(released):
    seen = torch.load(Path(os.environ["UQLIB_URL_PLOTS"]) / "uncertainties_21k.pt", weights_only=True).double().ravel()
    sets = {
        name: torch.tensor(released(f"deterioration_plots/baseline/uncertainties_repr_{name}.csv")).ravel()
        for name in ("cub", "cars", "sop")
    }

    def tells(other):
        return auroc(torch.cat([seen, other]), torch.arange(len(seen) + len(other)) >= len(seen))

    assert tells(torch.cat(list(sets.values()))) == pytest.approx(0.449, abs=5e-4)  # 1 - 0.551, the other orientation
    reported = {"cub": 0.152, "cars": 0.531, "sop": 0.466}
    assert {name: round(tells(each), 3) for name, each in sets.items()} == reported


def test_released_uncertainties_tell_the_misses_among_pets(released):
    u, near, labels = (released(f"vtab_oxford_iiit_pet_{name}.csv") for name in ("unc", "pred", "targets"))
    found = near == labels  # the class of the nearest other image
    assert found.mean() == pytest.approx(0.8354, abs=5e-5)
    assert r_auroc(u, found) == pytest.approx(0.7305, abs=5e-5)
    if (Path(os.environ["UQLIB_URL_PLOTS"]) / "vtab_oxford_iiit_pet_features.csv").is_file():
        table = np.loadtxt(Path(os.environ["UQLIB_URL_PLOTS"]) / "vtab_oxford_iiit_pet_features.csv", delimiter=",")
        assert (retrieved(table, labels.astype(int)) == found).mean() > 0.99
