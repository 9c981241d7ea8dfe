"""What else may say how uncertain a network is: norms, distances, dropout, bags and noise, each beside a plain second way."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import entropy as scipy_entropy
from sklearn.neighbors import NearestNeighbors

from uqlib.metrics import auroc
from uqlib.networks import Head, fit_head
from uqlib.uncertainty import (
    bag_classifiers,
    bagged_spread,
    dropout_spread,
    fit_heteroscedastic,
    heteroscedastic_variance,
    inverse_norm,
    nearest_distance,
)


def clusters(n=240, c=3, d=4, seed=0):
    """Features around the corners of a simplex, and labels."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, c, n)
    return generator.normal(size=(n, d)) + 2 * np.eye(c, d)[y], y


def linear(c=3, d=4, size=1.0):
    generator = torch.Generator().manual_seed(0)
    return Head(size * torch.randn(c, d, generator=generator), torch.randn(c, generator=generator), 0.0, 0.0, 0.0)


def test_the_inverse_norm():
    x, _ = clusters()
    np.testing.assert_allclose(inverse_norm(x), 1 / np.linalg.norm(x, axis=1), rtol=1e-12)
    assert inverse_norm([[3.0, 4.0]]).tolist() == [0.2]
    with pytest.raises(ValueError, match="row 1 of features is all zeros, and has no length"):
        inverse_norm([[1.0, 0.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match="features must be at most 1e\\+100 in size"):
        inverse_norm([[1e200, 0.0]])


def test_the_distance_to_the_kth_known_image_is_that_of_scikit_learn():
    x, _ = clusters(50)
    known, _ = clusters(200, seed=1)
    for k in (1, 7):
        search = NearestNeighbors(n_neighbors=k, metric="cosine", algorithm="brute").fit(known)
        np.testing.assert_allclose(nearest_distance(x, known, k=k), search.kneighbors(x)[0][:, -1], atol=1e-12)
    np.testing.assert_allclose(nearest_distance(known, known), 0, atol=1e-12)
    assert nearest_distance([[1.0, 0.0]], [[-2.0, 0.0]]).tolist() == [2.0]
    own = nearest_distance(known.astype(np.float32), known.astype(np.float32))
    assert own.min() >= 0  # a cosine in float32 may round to more than 1
    assert own.max() < 1e-6


def spread_by_scipy(logits):
    """Entropy of the mean, and that less the mean entropy, of logits (s, n, c)."""
    probs = F.softmax(torch.as_tensor(logits).double(), -1).numpy()
    whole = scipy_entropy(probs.mean(0), axis=-1)
    return whole, whole - scipy_entropy(probs, axis=-1).mean(0)


def test_a_bag_says_what_scipy_says_of_its_classifiers():
    x, y = clusters()
    bag = bag_classifiers(x, y, members=3, iterations=20)
    logits = np.stack([x @ each.weight.double().numpy().T + each.bias.double().numpy() for each in bag])
    found = bagged_spread(x, bag)
    np.testing.assert_allclose(found.entropy, spread_by_scipy(logits)[0], rtol=1e-5)
    np.testing.assert_allclose(found.information, spread_by_scipy(logits)[1], atol=1e-6)
    assert (found.information > 0).all()
    same = bagged_spread(x, [bag[0], bag[0]])
    np.testing.assert_allclose(same.information, 0, atol=1e-12)


def test_each_of_a_bag_is_fitted_on_as_many_rows_drawn_with_replacement():
    x, y = clusters()
    one, two, *_ = bag_classifiers(x, y, members=5, seed=1)
    generator = torch.Generator().manual_seed(1)
    for found in (one, two):
        rows = torch.randint(len(x), (len(x),), generator=generator)
        assert len(rows.unique()) < 0.75 * len(x)
        expected = fit_head(x[rows], y[rows], classes=3)
        np.testing.assert_allclose(found.weight, expected.weight, atol=1e-6)
    again = bag_classifiers(x, y, members=2, seed=1)
    np.testing.assert_array_equal(again[0].weight, one.weight)
    missing = bag_classifiers(x, y, members=2, classes=7, iterations=2)
    assert missing[0].weight.shape == (7, 4)
    with pytest.raises(ValueError, match="classifiers must be two or more; there are 1"):
        bagged_spread(x, [one])
    with pytest.raises(ValueError, match="members must be a whole number of at least 2; it is 1"):
        bag_classifiers(x, y, members=1)


def test_dropout_keeps_the_mean_and_follows_its_seed():
    """Of one feature of 1 and a weight of w the logits are w / (1 - p) or 0: their spread is known."""
    w, p = 2.0, 0.25
    classifier = Head(torch.tensor([[w], [0.0]]), torch.zeros(2), 0.0, 0.0, 0.0)
    found = dropout_spread(torch.ones(20, 1), classifier, p=p, samples=500)
    kept, dropped = 1 / (1 + np.exp(-w / (1 - p))), 0.5
    mean = (1 - p) * kept + p * dropped
    whole = scipy_entropy([mean, 1 - mean])
    inner = (1 - p) * scipy_entropy([kept, 1 - kept]) + p * scipy_entropy([0.5, 0.5])
    error = (kept - dropped) * np.sqrt(p * (1 - p) / 500)  # of the mean probability
    slope = abs(np.log(mean / (1 - mean)))
    np.testing.assert_allclose(found.entropy, whole, atol=4.5 * error * slope)
    assert found.information.mean().item() == pytest.approx(whole - inner, abs=0.02)
    x = torch.tensor(clusters()[0]).float()
    one, same, other = (dropout_spread(x, linear(), samples=3, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.entropy, same.entropy)
    assert not torch.equal(one.entropy, other.entropy)
    with pytest.raises(ValueError, match=r"p must lie in \(0, 1\); it is 1"):
        dropout_spread(x, linear(), p=1)
    with pytest.raises(ValueError, match="samples must be a whole number of at least 2; it is 1"):
        dropout_spread(x, linear(), samples=1)


def test_spreads_lie_between_0_and_the_logarithm_of_the_classes():
    x = torch.tensor(clusters()[0]).float()
    for found in (dropout_spread(x, linear(size=50.0)), bagged_spread(x, [linear(), linear(size=200.0)])):
        assert (found.entropy <= np.log(3) + 1e-12).all()
        assert (found.information >= -1e-12).all()
        assert (found.information <= found.entropy + 1e-12).all()
        assert found.entropy.isfinite().all()


def test_the_noise_of_logits_is_learnt_where_labels_are_random():
    """Labels that are coin flips where the last feature is positive: there the logits must be noisy."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(3000, 3, generator=generator)
    y = (x[:, 0] > 0).long()
    noisy = x[:, 2] > 0
    y[noisy] = torch.randint(2, (int(noisy.sum()),), generator=generator)
    weight = torch.zeros(2, 3)
    weight[1, 0] = 4.0
    classifier = Head(weight, torch.zeros(2), 0.0, 0.0, 0.0)
    before = weight.clone()
    fitted = fit_heteroscedastic(x, y, classifier, epochs=8, lr=0.2)
    assert torch.equal(classifier.weight, before)
    variance = heteroscedastic_variance(fitted, x)
    assert auroc(variance, noisy) > 0.99
    np.testing.assert_allclose(variance, x @ fitted.variance + fitted.shift, rtol=1e-5, atol=1e-5)
    again = fit_heteroscedastic(x, y, classifier, epochs=8, lr=0.2)
    assert torch.equal(again.variance, fitted.variance)
    with pytest.raises(ValueError, match="features must have width 3; they have 2"):
        heteroscedastic_variance(fitted, x[:, :2])


def test_what_is_no_classifier_is_refused(unchecked):
    x, y = clusters()
    for call in (lambda: dropout_spread(x, (1, 2)), lambda: fit_heteroscedastic(x, y, "net")):
        with pytest.raises(TypeError, match="classifier must be"):
            call()
    with pytest.raises(TypeError, match="fitted must be"):
        heteroscedastic_variance(linear(), x)


def learnt_noise(x, y, own=None, **options):
    return heteroscedastic_variance(fit_heteroscedastic(x, y, own or fit_head(x, y), **options), x)


def test_the_noise_does_not_hang_on_a_constant_feature_nor_on_offsets():
    x, y = clusters()
    x -= x.mean(0)
    plain = learnt_noise(x, y, epochs=20)
    assert np.abs(plain).max() > 0.01
    constant = np.concatenate([x, np.full((len(x), 1), 5.0)], 1)
    np.testing.assert_allclose(learnt_noise(constant, y, epochs=20), plain, atol=1e-3)
    np.testing.assert_allclose(learnt_noise(x + 1e4, y, epochs=20), plain, atol=0.02)  # 1e4 costs float32 four digits


def test_the_noise_leaves_the_global_generator_alone():
    x, y = clusters()
    own, before = fit_head(x, y), torch.get_rng_state()
    learnt_noise(x, y, own, epochs=1)
    assert torch.equal(before, torch.get_rng_state())


def test_what_fits_no_classifier_or_other_classifiers_is_named(unchecked):
    x, y = clusters()
    own = fit_head(x, y)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 3\); row 0 is 7"):
        learnt_noise(x, np.full(len(x), 7), own)
    with pytest.raises(ValueError, match=r"features in float32 must be finite; row 0, column 0 is -?inf"):
        heteroscedastic_variance(fit_heteroscedastic(x, y, own, epochs=1), 1e300 * x)
    with pytest.raises(ValueError, match="features must have two rows or more"):
        learnt_noise(x[:1], y[:1], own)
    with pytest.raises(
        ValueError, match=r"same classes; classifiers\[1\] has 5, the first 3. Fit all with the same classes="
    ):
        bagged_spread(x, [own, fit_head(x, y, classes=5)])
