"""What is kept of heads on frozen features: who gets the bonus, what is counted, and the intervals that follow."""

import json

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.metrics import brier_score_loss, log_loss

from uqlib import difficulty, metrics
from uqlib.experiments import frozen_heads
from uqlib.experiments.frozen_heads import (
    KINDS,
    METRICS,
    bonus_of_kinds,
    describe_heads,
    leading_components,
    load_heads,
)
from uqlib.files.columns import write_table
from uqlib.files.whole import DamagedError
from uqlib.images import load_images
from uqlib.metrics.compare import intervals

NAMES = list(KINDS)


def kept(tmp_path, monkeypatch, rests_on=None, seeds=4, n=50):
    """A file of few heads that are right at random, whose metrics follow from who was right."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    generator = np.random.default_rng(0)
    columns, hits = {}, {}
    for kind in frozen_heads.LABELS:
        hits[kind] = generator.random((seeds, len(KINDS), n)) < 0.8
        table = generator.random((seeds, len(KINDS), len(METRICS)))
        table[..., METRICS.index("accuracy")] = hits[kind].mean(-1)
        columns |= {f"right/{kind}": hits[kind].sum(0).astype(np.uint8), f"metrics/{kind}": table}
    about = {"rests_on": rests_on or frozen_heads.SETTINGS, "kinds": NAMES, "metrics": list(METRICS)}
    write_table(tmp_path / frozen_heads.PLACE, columns, {"about": json.dumps(about)})
    return hits


def test_the_bonus_has_its_mean_strength_and_permuting_changes_whose_it_is():
    hardness = torch.randn(500, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = bonus_of_kinds(hardness, 3)
    assert found.shape == (3, len(KINDS), 500)
    for name, (who, strength) in KINDS.items():
        own = found[:, NAMES.index(name)]
        if who != "minmax":
            torch.testing.assert_close(own.mean(-1), torch.full((3,), strength, dtype=torch.float64))
        if who != "permuted":
            assert (own == own[0]).all()
    hard, blind = found[:, NAMES.index("difficulty_0.3")], found[:, NAMES.index("permuted_0.3")]
    assert torch.equal(hard.sort(-1).values, blind.sort(-1).values)
    assert len({tuple(row.tolist()) for row in blind}) == 3
    order = hardness.argsort()
    assert (hard[0, order].diff() >= 0).all()
    assert hard[0].unique().numel() == 475  # 95 % of 500: the rest is clipped
    usual = difficulty.weights(hardness, temperature=0.7)
    torch.testing.assert_close(found[0, NAMES.index("minmax")], 0.3 * torch.as_tensor(usual))


def test_components_are_those_of_scikit_learn():
    x = torch.randn(200, 9, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.5, 3, 9)
    fit = PCA(4).fit(x[:150].numpy())
    scale = np.sqrt(fit.explained_variance_.mean() * 149 / 150)
    for found, given in zip(leading_components(x[:150], x[150:], 4), (x[:150], x[150:]), strict=True):
        expected = np.abs(fit.transform(given.numpy())[:, ::-1]) / scale  # a direction has no sign
        np.testing.assert_allclose(np.abs(found.numpy()), expected, rtol=1e-3, atol=1e-4)


def test_what_is_kept_is_what_scikit_learn_says_of_the_logits():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(3, 2, 40, 10, generator=generator)
    labels, given = (torch.randint(10, (size,), generator=generator).numpy() for size in (40, 30))
    learnt = torch.randint(10, (3, 2, 30), generator=generator)
    found = describe_heads(logits, labels, learnt, given, "clean")
    right = (logits.argmax(-1).numpy() == labels).sum(0)
    np.testing.assert_array_equal(found["right/clean"], right)
    assert found["right/clean"].dtype == np.uint8
    table = dict(zip(METRICS, found["metrics/clean"][1, 0], strict=True))
    probs = logits[1, 0].double().softmax(-1).numpy()
    assert table["accuracy"] == (probs.argmax(-1) == labels).mean()
    assert table["nll"] == pytest.approx(log_loss(labels, probs, labels=range(10)), rel=1e-6)
    assert table["brier"] == pytest.approx(
        brier_score_loss(labels, probs, labels=range(10), scale_by_half=False), rel=1e-6
    )
    assert table["ece_mass"] == pytest.approx(
        metrics.ece(torch.tensor(probs.max(-1)), torch.tensor(probs.argmax(-1) == labels), by="mass"), rel=1e-6
    )
    assert table["learnt"] == pytest.approx((learnt[1, 0].numpy() == given).mean())


def test_an_interval_is_over_trainings_and_images(tmp_path, monkeypatch):
    """Beside a bootstrap of the very hits, of which the file keeps the sums alone."""
    hits = kept(tmp_path, monkeypatch)["worst"]
    scores = load_heads().scores("worst", draws=4000, seed=1).sel(measure="accuracy")
    gain = scores.sel(variant="minmax") - scores.sel(variant="cross_entropy")
    each = hits[:, NAMES.index("minmax")] * 1.0 - hits[:, NAMES.index("cross_entropy")]
    np.testing.assert_allclose(gain.sel(draw=0), each.mean(-1), atol=1e-12)
    rows = np.random.default_rng(5).integers(50, size=(4000, 50))
    images = each.mean(0)[rows].mean(-1)
    assert gain.sel(draw=slice(1, None)).mean("training").var().item() == pytest.approx(images.var(), rel=0.1)
    value, low, high = intervals(gain).values
    spread = np.sqrt(each.mean(-1).var(ddof=1) / 4 + images.var())
    assert value == pytest.approx(each.mean())
    assert 1.96 * spread < (high - low) / 2 < 3.2 * spread  # Student's t, three degrees of freedom at least


def test_other_metrics_are_not_redrawn(tmp_path, monkeypatch):
    kept(tmp_path, monkeypatch)
    scores = load_heads().scores("clean", draws=5)
    table = load_heads().column("metrics/clean")
    nll = scores.sel(measure="nll")
    assert (nll == nll.sel(draw=0)).all()
    np.testing.assert_array_equal(
        nll.sel(variant="minmax", draw=3), table[:, NAMES.index("minmax"), METRICS.index("nll")]
    )
    with pytest.raises(ValueError, match="unknown labels 'noisy'; choose from clean, worst"):
        load_heads().scores("noisy", draws=5)


def test_a_file_of_other_settings_is_refused(tmp_path, monkeypatch):
    kept(tmp_path, monkeypatch, rests_on=frozen_heads.SETTINGS | {"seeds": 3})
    with pytest.raises(
        DamagedError, match="it was made with other settings; remove it, and `uqlib heads` makes it anew"
    ):
        load_heads()


def test_heads_of_digits_are_made_kept_and_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    small = {
        "images": 300,
        "components": 12,
        "seeds": 2,
        "training": {"hidden": 8, "epochs": 4, "batch": 30, "lr": 0.2},
    }
    monkeypatch.setattr(frozen_heads, "SETTINGS", frozen_heads.SETTINGS | small)
    monkeypatch.setattr(frozen_heads, "load_whole", lambda split: load_images("digits", split))
    generator = torch.Generator().manual_seed(0)
    monkeypatch.setattr(
        frozen_heads, "scorer_features",
        lambda scorer, images: torch.tensor(images.images[..., 0] / 255.0).flatten(1)
        + 1e-3 * torch.randn(len(images), images.images[0, ..., 0].size, generator=generator),
    )  # fmt: skip
    wrong = np.array(load_images("digits", "train").labels)
    wrong[::3] = (wrong[::3] + 1) % 10
    monkeypatch.setattr(frozen_heads, "noisy_labels", lambda kind: wrong)
    assert frozen_heads.make_heads() == load_heads().path.relative_to(tmp_path)
    scores = {kind: load_heads().scores(kind, draws=3) for kind in frozen_heads.LABELS}
    level = {kind: each.sel(measure="accuracy", draw=0).mean("training") for kind, each in scores.items()}
    assert (level["clean"] > 0.7).all()
    assert (level["clean"] > level["worst"]).all()
    assert (scores["worst"].sel(measure="learnt", draw=0) < 0.85).all()  # a third of these labels are wrong
