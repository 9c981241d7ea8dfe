import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from scipy.stats import norm
from sklearn.covariance import OAS
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import NearestCentroid

from uqlib.calibrate import scale_logits
from uqlib.difficulty import fit_gaussians, ledoit_wolf, merge_moments, moments
from uqlib.heads import LinearHead, feature_sums, lda, log_posteriors, merge_sums, naive_bayes, nearest_mean
from uqlib.networks import fit_head

RNG = np.random.default_rng(0)
LABELS = np.sort(RNG.integers(0, 4, 200))
FEATURES = RNG.normal(size=(200, 6)) @ RNG.normal(size=(6, 6)) + 2 * RNG.normal(size=(4, 6))[LABELS] + 3
ASKED = 2 * RNG.normal(size=(50, 6)) + 3


def sums(features=FEATURES, labels=LABELS, classes=4):
    return feature_sums(features, labels, classes=classes)


def within(features=FEATURES, labels=LABELS):
    means = np.stack([features[labels == c].mean(0) for c in range(labels.max() + 1)])
    return features - means[labels], means


def by_hand(precision):
    """Log posteriors of Gaussians, each distance by itself."""
    _, means = within()
    apart = ASKED[:, None] - means
    scores = np.log(np.bincount(LABELS) / len(LABELS)) - np.einsum("nkd,de,nke->nk", apart, precision, apart) / 2
    return scores - logsumexp(scores, axis=1, keepdims=True)


def test_naive_bayes_is_the_gaussian_with_the_diagonal_written_out():
    z, _ = within()
    expected = by_hand(np.diag(1 / (z**2).mean(0)))
    np.testing.assert_allclose(log_posteriors(naive_bayes(sums(), floor=0), ASKED), expected, atol=1e-9)
    full = naive_bayes(moments(FEATURES, LABELS, classes=4), floor=0)
    np.testing.assert_allclose(log_posteriors(full, ASKED), expected, atol=1e-9)


def test_naive_bayes_is_that_of_sklearn_where_all_classes_have_the_same_variances():
    z = RNG.normal(size=(40, 6)) * [1, 2, 3, 4, 5, 6]
    features = np.concatenate([z + shift for shift in 2 * RNG.normal(size=(3, 6))])
    labels = np.repeat(np.arange(3), 40)
    theirs = GaussianNB(var_smoothing=0).fit(features, labels).predict_log_proba(ASKED)
    ours = log_posteriors(naive_bayes(sums(features, labels, 3), floor=0), ASKED)
    np.testing.assert_allclose(ours, theirs, atol=1e-8)


@pytest.mark.parametrize("shrinkage", [0.0, 0.1, 0.7])
def test_lda_is_that_of_sklearn(shrinkage):
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(FEATURES, LABELS)
    head = lda(moments(FEATURES, LABELS, classes=4), shrinkage=shrinkage, towards="identity", floor=0)
    np.testing.assert_allclose(log_posteriors(head, ASKED), theirs.predict_log_proba(ASKED), atol=1e-8)


def test_lda_with_the_shrinkage_of_ledoit_and_wolf_decides_like_that_of_sklearn():
    features = RNG.normal(size=(300, 40)) + RNG.normal(size=(3, 40))[np.arange(300) % 3]
    labels = np.arange(300) % 3
    found = moments(features, labels, classes=3)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(features, labels)
    head = lda(found, shrinkage=ledoit_wolf(found, features, labels), towards="identity")
    asked = 2 * RNG.normal(size=(2000, 40))
    assert (log_posteriors(head, asked).argmax(-1) == theirs.predict(asked)).mean() > 0.95


def test_the_default_shrinkage_is_that_of_oas_on_correlations():
    z, _ = within()
    scale = np.sqrt((z**2).mean(0))
    free = len(z) - 4  # sklearn counts rows, so rows of zeros are taken away by a larger scale
    correlation = (z / scale).T @ (z / scale) / len(z)
    rows = np.linalg.cholesky(correlation).T * np.sqrt(6)
    model = OAS(assume_centered=True).fit(np.concatenate([rows, np.zeros((free - 6, 6))]) * np.sqrt(free / 6))
    expected = by_hand(np.linalg.inv(model.covariance_ * scale * scale[:, None]))
    head = lda(moments(FEATURES, LABELS, classes=4), floor=0)
    np.testing.assert_allclose(log_posteriors(head, ASKED), expected, atol=1e-9)


def test_shrunk_wholly_lda_is_naive_bayes_or_nearest_mean():
    found = moments(FEATURES, LABELS, classes=4)
    whole = lda(found, shrinkage=1.0)
    np.testing.assert_allclose(whole.weight, naive_bayes(found).weight, atol=1e-10)
    round_ = lda(found, shrinkage=1.0, towards="identity", shares="equal", floor=0)
    np.testing.assert_allclose(log_posteriors(round_, ASKED), log_posteriors(nearest_mean(found), ASKED), atol=1e-9)


def test_nearest_mean_chooses_the_nearest_mean():
    theirs = NearestCentroid().fit(FEATURES, LABELS).predict(ASKED)
    assert (log_posteriors(nearest_mean(sums()), ASKED).argmax(-1) == theirs).all()


@pytest.mark.parametrize("dims", [2, 10])
def test_with_many_examples_the_error_is_that_of_bayes(dims):
    n = 200_000
    labels = np.arange(n) % 2
    features = RNG.normal(size=(n, dims)) * np.linspace(1, 3, dims) + labels[:, None]
    expected = norm.cdf(-np.sqrt((1 / np.linspace(1, 3, dims) ** 2).sum()) / 2)
    asked = RNG.normal(size=(n, dims)) * np.linspace(1, 3, dims) + labels[:, None]
    for head in (naive_bayes(sums(features, labels, 2)), lda(moments(features, labels, classes=2))):
        error = (log_posteriors(head, asked).argmax(-1) != labels).mean()
        assert abs(error - expected) < 4 * np.sqrt(expected / n)


def test_a_stream_gives_the_head_of_the_whole_in_any_order():
    order = RNG.permutation(200)
    parts = [sums(FEATURES[rows], LABELS[rows]) for rows in np.split(order, [3, 10, 150])]
    whole = naive_bayes(sums())
    for some in (parts, parts[::-1]):
        np.testing.assert_allclose(naive_bayes(merge_sums(*some)).weight, whole.weight, rtol=1e-9)
    by_class = [moments(FEATURES[c == LABELS], LABELS[c == LABELS], classes=4) for c in (2, 0, 3, 1)]
    one = lda(merge_moments(*by_class))
    np.testing.assert_allclose(one.weight, lda(moments(FEATURES, LABELS, classes=4)).weight, rtol=1e-8)


def test_units_and_offsets_of_the_features_do_not_matter():
    scale, offset = np.array([1e-3, 1e3, 1, 7, 1, 1e6]), 1e5 * RNG.normal(size=6)
    for fit in (
        lambda x: naive_bayes(sums(x), floor=0),
        lambda x: lda(moments(x, LABELS, classes=4), floor=0),
    ):
        plain = log_posteriors(fit(FEATURES), ASKED)
        np.testing.assert_allclose(
            log_posteriors(fit(FEATURES * scale + offset), ASKED * scale + offset), plain, atol=1e-3
        )


def test_a_class_without_examples_is_never_chosen_and_stays_finite():
    for head in (
        naive_bayes(sums(classes=6)),
        lda(moments(FEATURES, LABELS, classes=6)),
        nearest_mean(sums(classes=6)),
    ):
        logits = log_posteriors(head, ASKED)
        assert np.isfinite(scale_logits(logits, 12.0)).all()
        assert (logits[:, 4:] < -1e8).all()
    few = log_posteriors(naive_bayes(sums()), ASKED)
    np.testing.assert_allclose(log_posteriors(naive_bayes(sums(classes=6)), ASKED)[:, :4], few)


def test_any_linear_head_gives_log_posteriors():
    head = fit_head(FEATURES, LABELS)
    logits = ASKED @ head.weight.T + head.bias
    expected = logits - logsumexp(logits, axis=1, keepdims=True)
    np.testing.assert_allclose(log_posteriors(head, ASKED), expected, atol=1e-5)


def test_torch_in_torch_out():
    head = naive_bayes(sums(torch.tensor(FEATURES).float(), torch.tensor(LABELS)))
    assert isinstance(log_posteriors(head, torch.tensor(ASKED)), torch.Tensor)
    np.testing.assert_allclose(head.weight, naive_bayes(sums()).weight, rtol=1e-4)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: naive_bayes(sums([[0.0], [1.0]], [0, 1], 2)), "sums must vary within a class; 2 examples of 2 classes do not"),
        (lambda: naive_bayes(sums(), floor=-1), "floor must be"),
        (lambda: naive_bayes(sums(), shares="mine"), "unknown shares 'mine'; choose from counted, equal"),
        (lambda: lda(moments(FEATURES, LABELS, classes=4), shrinkage=1.5), "shrinkage must"),
        (lambda: lda(moments(FEATURES[:, [0, 0]], LABELS, classes=4), shrinkage=0, floor=0), "singular"),
        (lambda: merge_sums(sums(), sums(FEATURES[:, :2])), "those at place 1 have"),
        (lambda: log_posteriors(naive_bayes(sums()), ASKED[:, :2]), "width 6; they have 2"),
        (lambda: sums(labels=LABELS + 1), r"labels must lie in \[0, 4\)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_other_results_are_refused(unchecked):
    with pytest.raises(TypeError, match="head must be"):
        log_posteriors(3, ASKED)
    with pytest.raises(TypeError, match="sums must be"):
        naive_bayes(3)


def test_a_constant_feature_without_a_floor_is_named():
    x, y = np.array([[0.0, 0.1], [1.0, 0.1], [3.0, 0.1], [5.0, 0.1]]), [0, 0, 1, 1]
    found = moments(x, y, classes=2)
    for fit in (lambda: naive_bayes(feature_sums(x, y, classes=2), floor=0), lambda: lda(found, floor=0)):
        with pytest.raises(
            ValueError, match=r"features must vary within the classes; feature 1 does not.*floor above 0"
        ):
            fit()
    with pytest.raises(ValueError, match=r"features must vary|Pass a shrinkage or a floor above 0"):
        lda(found, floor=0, shrinkage=0, towards="identity")
    assert np.isfinite(lda(found, floor=0, shrinkage=0.5, towards="identity").weight).all()


def test_hand_made_sums_and_heads_of_another_shape_are_named():
    sums = feature_sums([[0.0, 1.0], [2.0, 0.0]], [0, 0], classes=2)
    for wrong in (
        sums._replace(counts=np.array([2])),
        sums._replace(means=np.zeros(2)),
        sums._replace(within=np.ones(3)),
    ):
        with pytest.raises(ValueError, match=r"sums must hold counts \(k,\), means \(k, d\) and within \(d,\)"):
            naive_bayes(wrong)
    with pytest.raises(ValueError, match="means of sums must be finite"):
        naive_bayes(sums._replace(means=np.full((2, 2), np.nan)))
    for head in (LinearHead(np.zeros(3), np.zeros(1)), LinearHead(np.zeros((2, 3)), np.zeros(3))):
        with pytest.raises(ValueError, match=r"head must hold a weight \(c, d\) and a bias \(c,\)"):
            log_posteriors(head, [[0.0, 0.0, 0.0]])


def test_the_shrinkage_is_that_of_scikit_learn():

    x = np.random.default_rng(0).normal(size=(40, 6)) * np.arange(1, 7)
    found = fit_gaussians(moments(x, np.zeros(40, int), classes=1), covariance="oas")
    assert found.shrinkage == pytest.approx(OAS().fit(x).shrinkage_, rel=1e-12)


@pytest.mark.parametrize(
    "head",
    [
        lambda x, y: naive_bayes(feature_sums(x, y, classes=3)),
        lambda x, y: lda(moments(x, y, classes=3)),
        lambda x, y: nearest_mean(feature_sums(x, y, classes=3)),
    ],
)
@pytest.mark.parametrize("noise", [0.0, 1e-6])
def test_however_far_classes_lie_apart_one_without_examples_is_never_chosen(head, noise):
    x = np.array([[0.0, 0.0], [noise, 0.2], [1.0, 0.0], [1.0 + noise, 0.2]])
    x[:, 1] *= 1.0 if noise == 0 else noise
    asked = np.array([[0.5, 0.1], [0.3, 0.0], [0.0, 0.1], [-7.0, 4.0], [1e3, -1e3]])
    found = log_posteriors(head(x, np.array([0, 0, 1, 1])), asked)
    assert np.isfinite(found).all()
    assert (found.argmax(1) < 2).all()
    assert found.argmax(1)[[1, 2]].tolist() == [0, 0]
