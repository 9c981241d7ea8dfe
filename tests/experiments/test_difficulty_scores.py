"""Cases of wrong labels: what is wrong is known, and every measure is of the labels that were given."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from uqlib.experiments import difficulty_scores, studies
from uqlib.images import at_hand


@pytest.fixture(scope="module")
def digits():
    return difficulty_scores.digits_case(0.3, seed=1, epochs=3)


def test_the_share_of_wrong_labels_is_that_asked_for(digits):
    assert digits.wrong.double().mean().item() == pytest.approx(
        0.3, abs=4 * (0.3 * 0.7 / 1797) ** 0.5
    )  # four standard errors


def test_a_linear_classifier_that_did_not_see_the_image_finds_labels_drawn_at_random(digits):
    found = {name: roc_auc_score(digits.wrong, score) for name, score in digits.scores.items()}
    assert found["cleanlab"] > 0.95
    assert found["rmd"] > 0.95
    assert found["md"] < found["rmd"]


def test_the_same_seed_gives_the_same_case(digits):
    again = difficulty_scores.digits_case(0.3, seed=1, epochs=3)
    assert torch.equal(again.wrong, digits.wrong)
    assert all(torch.equal(again.scores[name], digits.scores[name]) for name in digits.scores)


def test_peoples_labels_lead_to_the_kept_scores(monkeypatch):
    """With official labels as those that people gave none is wrong; the margin is that of the kept probabilities."""
    official = studies.load_difficulty("cifar10", "train").labels.numpy()
    monkeypatch.setattr(
        difficulty_scores,
        "noisy_labels",
        lambda kind: np.where(np.arange(len(official)) % 2, official, (official + 1) % 10),
    )
    cases, noisy = difficulty_scores.noisy_cases(), studies.load_difficulty("cifar10", "noisy")
    rows = noisy.columns["index"].numpy()
    case = cases["worst", difficulty_scores.DEFAULT]
    assert torch.equal(case.wrong, torch.from_numpy(rows % 2 == 0))
    assert torch.equal(case.scores["rmd"], noisy[f"worst.rmd/{difficulty_scores.DEFAULT}"])
    probs, given = (
        noisy.columns[f"worst.probs/{difficulty_scores.DEFAULT}"].numpy(),
        np.where(rows % 2, official[rows], (official[rows] + 1) % 10),
    )
    margin = [max(np.delete(p, y)) - p[y] for p, y in zip(probs[:50], given[:50], strict=True)]
    assert case.scores["held_out_margin"][:50].tolist() == pytest.approx(margin)
    assert case.scores["loss"].shape[1] == len(rows)
    assert set(difficulty_scores.LABEL_MEASURES) >= {name for each in cases.values() for name in each.scores}


def test_whether_an_array_is_there_is_seen_and_not_guessed(tmp_path, monkeypatch):
    monkeypatch.setenv("UQLIB_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert not at_hand("train", "noisy_worst")
    (tmp_path / "cifar10/train").mkdir(parents=True)
    (tmp_path / "cifar10/train/noisy_worst.npy").touch()
    assert at_hand("train", "noisy_worst")
    assert not at_hand("test", "noisy_worst")
