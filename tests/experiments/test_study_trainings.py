"""The loss of a variant on digits: whose weight each image gets, and how strong the bonus is for the mean image."""

import numpy as np
import pytest
import torch
from scipy.stats import rankdata

from uqlib.experiments import image_sets, studies
from uqlib.experiments.study_trainings import training_difficulty, training_weights, variant_loss

TOML = """
[[study]]
name = "toy"
scale = "cpu"
dataset = "digits"
others = "digits"
images = 200
validation = 0
components = 5
seeds = 2
training = {network = "cifar_resnet8_w8", epochs = 3}
weights = {scorer = "pixels", measure = "rmd", normaliser = "minmax", temperature = 0.7}

  [[study.variant]]
  name = "difficulty"
  loss = "difficulty"
  options = {alpha = 0.3}

  [[study.variant]]
  name = "matched"
  loss = "entropy"
  options = {alpha = "matched", of = 0.3}

  [[study.variant]]
  name = "ranks"
  loss = "difficulty"
  options = {alpha = "scaled", to = 0.1}
  weights = {normaliser = "ranks"}

  [[study.variant]]
  name = "clipped"
  loss = "difficulty"
  options = {alpha = "scaled", to = 0.3}
  weights = {normaliser = "clipped", quantile = 0.9}

  [[study.variant]]
  name = "permuted"
  loss = "difficulty"
  options = {alpha = "scaled", to = 0.3}
  weights = {normaliser = "clipped", quantile = 0.9, permuted = true}
"""


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A study of 200 digits, whose scorer are the pixels."""
    (tmp_path / "data/trainings").mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "data/trainings/toy2020.toml").write_text(TOML)
    monkeypatch.chdir(tmp_path)
    for each in (studies._all, image_sets.load_study_sets):
        each.cache_clear()
    yield studies.load_study("toy")
    for each in (studies._all, image_sets.load_study_sets):
        each.cache_clear()


def test_permuted_weights_are_the_same_weights_for_other_images(study):
    plain = training_weights(study, study.variants["clipped"])
    one, again, other = (training_weights(study, study.variants["permuted"], seed) for seed in (0, 0, 1))
    assert torch.equal(one.sort().values, plain.sort().values)
    assert torch.equal(other.sort().values, plain.sort().values)
    assert torch.equal(one, again)
    assert not torch.equal(one, other)  # drawn anew for each seed
    hard = training_difficulty(study, study.variants["clipped"])
    ranks = [rankdata(x) for x in (hard, plain, one, other)]
    told, *blind = (abs(np.corrcoef(ranks[0], each)[0, 1]) for each in ranks[1:])
    assert told > 0.98
    assert max(blind) < 4 / np.sqrt(len(hard))  # four standard errors of no correlation


def test_weights_follow_the_options_of_their_variant(study):
    hard = training_difficulty(study, study.variants["ranks"]).numpy()
    top = np.sort(hard)[179]  # 180 of 200, 90 %, are not larger
    scales = {
        "difficulty": (hard - hard.min()) / (hard.max() - hard.min()),
        "ranks": (rankdata(hard) - 1) / 199,
        "clipped": (np.minimum(hard, top) - hard.min()) / (top - hard.min()),
    }
    for name, scale in scales.items():
        expected = np.exp(scale / 0.7) / (np.exp(scale / 0.7).max() + 1e-3)
        np.testing.assert_allclose(training_weights(study, study.variants[name]), expected, rtol=1e-6)


def test_a_scaled_bonus_is_as_strong_as_it_says_for_the_mean_image(study):
    """On uniform predictions every entropy is log 10, so the loss is cross entropy less the mean strength times that."""
    labels = torch.from_numpy(np.array(image_sets.load_study_sets("toy")["train"].labels))
    logits, rows = torch.zeros(len(labels), 10, dtype=torch.float64), torch.arange(len(labels))
    mean = training_weights(study, study.variants["difficulty"]).mean().item()
    strengths = {"ranks": 0.1, "clipped": 0.3, "permuted": 0.3, "matched": 0.3 * mean, "difficulty": 0.3 * mean}
    for name, strength in strengths.items():
        loss, _ = variant_loss(study, study.variants[name], seed=1)
        assert loss(logits, labels, rows).item() == pytest.approx((1 - strength) * np.log(10), rel=1e-6), name


def test_what_is_noted_of_a_scaled_loss_is_what_it_did(study):
    weights = training_weights(study, study.variants["clipped"])
    _, noted = variant_loss(study, study.variants["permuted"], seed=3)
    assert noted["alpha"] * weights.mean().item() == pytest.approx(0.3, rel=1e-12)
    assert noted["mean_weight"] == pytest.approx(weights.mean().item(), rel=1e-12)
    share = (weights.sum() ** 2 / (len(weights) * weights.square().sum())).item()
    assert noted["effective_share"] == pytest.approx(share, rel=1e-12)
