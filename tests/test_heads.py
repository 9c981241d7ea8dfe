import numpy as np
import pytest
import timm
import torch
from sklearn.linear_model import LogisticRegression

from uqlib import models
from uqlib.heads import choose_head, fit_head, head_logits, install


@pytest.fixture(scope="module")
def examples():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 300)
    centres = generator.normal(size=(4, 7))
    features = centres[labels] + 1.5 * generator.normal(size=(300, 7))
    features = features * [1, 10, 0.1, 1, 1, 5, 1] + [0, 3, 0, -8, 0, 0, 2]
    return features.astype(np.float32), labels


def test_the_fit_is_that_of_scikit_learn(examples):
    features, labels = examples
    head = fit_head(features, labels, l2=0.01, tolerance=1e-7)
    z = (features - features.mean(0)) / features.std(0)
    # scikit-learn minimises C * sum of losses + |w|^2 / 2
    oracle = LogisticRegression(C=1 / (0.01 * 300), tol=1e-8, max_iter=1000).fit(z, labels)
    probs = torch.tensor(head_logits(head, features)).softmax(-1).numpy()
    assert np.abs(probs - oracle.predict_proba(z)).max() < 1e-4  # float32 features, an optimum of float32
    assert head.gradient < 1e-5
    assert isinstance(head.weight, np.ndarray)


def test_a_strong_penalty_leaves_the_class_frequencies(examples):
    features, labels = examples
    probs = torch.tensor(head_logits(fit_head(features, labels, l2=1e4), features)).softmax(-1).numpy()
    assert np.abs(probs - np.bincount(labels) / 300).max() < 1e-3


def test_classes_without_examples_and_constant_features(examples):
    features, labels = examples
    constant = np.concatenate([features, np.full((300, 1), 3.0, np.float32)], 1)
    head = fit_head(constant, labels, classes=6)
    assert head.weight.shape == (6, 8)
    assert np.abs(head.weight[:, 7]).max() == 0
    assert head_logits(head, constant)[:, 4:].max() < head_logits(head, constant)[:, :4].max()


def test_the_penalty_is_chosen_on_rows_that_did_not_learn(examples):
    generator = np.random.default_rng(1)
    features, labels = generator.normal(size=(120, 60)).astype(np.float32), generator.integers(0, 3, 120)
    assert choose_head(features, labels, strengths=(1e-4, 10.0)).l2 == 10.0  # nothing but noise to learn
    features, labels = examples
    chosen = choose_head(features, labels, strengths=(1e-3, 100.0))
    assert chosen.l2 == 1e-3
    again = fit_head(features, labels, l2=1e-3)
    assert np.array_equal(chosen.weight, again.weight)


def test_an_installed_head_gives_the_network_its_logits(examples):
    model = timm.create_model("resnet18", num_classes=5).eval()
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features = models.features_and_logits(model, images).features
    generator = torch.Generator().manual_seed(1)
    head = fit_head(torch.randn(40, 512, generator=generator), torch.arange(40) % 4)
    said = models.features_and_logits(install(model, head), images)
    assert model.num_classes == 4
    assert torch.equal(said.features, features)
    assert (said.logits - head_logits(head, features)).abs().max() < 1e-5


def test_errors_name_the_value(examples):
    features, labels = examples
    with pytest.raises(ValueError, match="l2 must be 0 or larger; it is -1"):
        fit_head(features, labels, l2=-1)
    with pytest.raises(ValueError, match=r"features must have shape \(n, d\)"):
        fit_head(features[0], labels)
    spoilt = features.copy()
    spoilt[2, 1] = np.nan
    with pytest.raises(ValueError, match="features must be finite; row 2, column 1 is nan"):
        fit_head(spoilt, labels)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 3\)"):
        fit_head(features, labels, classes=3)
    with pytest.raises(ValueError, match="labels has 299 rows where 300 are expected"):
        fit_head(features, labels[1:])
    head = fit_head(features, labels)
    with pytest.raises(ValueError, match="the head takes features of width 7; these have 6"):
        head_logits(head, features[:, 1:])
    with pytest.raises(ValueError, match="the head takes features of width 7; the network has 512"):
        install(timm.create_model("resnet18"), head)
