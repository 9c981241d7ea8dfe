"""Trials of heads: what each column holds beside a plain second way, and the arrays that are read of the file again."""

import json

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors
from torch import nn

from uqlib.cli import main
from uqlib.experiments.uncertainties import joint, kept_trials, trials, upstream_features, uses
from uqlib.files.columns import write_table
from uqlib.images import ImageSet
from uqlib.uncertainty import UncertaintyHead, uncertainty_of


def asked(n=120, d=6, c=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % c
    features = torch.randn(n, d, generator=generator) + 1.5 * torch.eye(c, d)[labels]
    near = (
        NearestNeighbors(n_neighbors=1, metric="cosine", algorithm="brute").fit(features.numpy()).kneighbors()[1][:, 0]
    )
    return trials.Asked(features, labels, labels[near] == labels)


@pytest.fixture
def few(monkeypatch):
    """Few seeds, epochs and draws."""
    small = {"seeds": 2, "width": 8, "epochs": 2, "batch": 20, "draws": 4, "splits": 2}
    for name, value in small.items():
        monkeypatch.setitem(trials.SETTINGS, name, value)


def test_scores_are_those_of_scikit_learn_with_draws_that_all_share(few):
    own = asked()
    said = {"head": [own.features[:, k] for k in (0, 1)], "norm": [own.features.norm(dim=1)]}
    found = trials.draw_scores(said, own.found)
    assert {name: each.shape for name, each in found.items()} == {"head": (2, 5), "norm": (1, 5)}
    for k in (0, 1):
        expected = roc_auc_score(~own.found.numpy(), own.features[:, k].numpy())
        assert found["head"][k, 0] == pytest.approx(expected, abs=1e-6)
    same = trials.draw_scores({"head": [own.features[:, 0]], "other": [3 * own.features[:, 0]]}, own.found)
    np.testing.assert_array_equal(same["head"], same["other"])
    columns, told = trials.try_set({"norm": [lambda x: x.norm(dim=1)]}, own, "caltech101")
    np.testing.assert_array_equal(columns["r_auroc/caltech101/norm"], found["norm"])
    assert columns["recall/caltech101"][0] == pytest.approx(own.found.double().mean().item())
    assert torch.equal(told["norm"][0], own.features.norm(dim=1))


def test_heads_are_trained_for_as_many_steps_on_fewer_rows(few, monkeypatch):
    own, calls = asked(), []
    monkeypatch.setattr(
        trials.uncertainty, "train_head", lambda head, x, losses, **options: calls.append((x, losses, options))
    )
    losses = torch.rand(120)
    trials.train_several(own.features, losses, rows=30)
    trials.train_several(own.features, losses)
    assert [len(x) for x, _, _ in calls] == [30, 30, 120, 120]
    assert [options["epochs"] for _, _, options in calls] == [8, 8, 2, 2]
    assert not torch.equal(calls[0][0], calls[1][0])
    for x, its, _ in calls:  # rows and losses belong together
        rows = [int((own.features == row).all(1).nonzero()) for row in x]
        assert torch.equal(losses[rows], its)
        assert len(set(rows)) == len(rows)


def test_a_target_is_judged_on_the_half_that_nothing_learnt(few):
    own = asked(600)
    heads = trials.train_several(own.features, torch.rand(600, generator=torch.Generator().manual_seed(1)))
    found = trials.try_target(heads, own, "cifar10")
    assert set(found) == {f"half/cifar10/{name}" for name in ("target", "transferred", "target_entropy")}
    assert all(each.shape == (2, 5) for each in found.values())
    _, judge = trials.split(600, 0.5, seed=1, labels=own.labels.numpy())
    u = uncertainty_of(heads[1], own.features[judge])
    expected = roc_auc_score(~own.found[judge].numpy(), u.numpy())
    assert found["half/cifar10/transferred"][1, 0] == pytest.approx(expected, abs=1e-6)


def test_safe_retrieval_beside_a_loop(monkeypatch):
    monkeypatch.setattr(uses, "NEAREST", 50)
    own = asked(60)
    u = np.random.default_rng(0).random(60)
    table = uses.retrieve_safely({"head": [u]}, own, "caltech101", draws=3)["safe/caltech101/head"]
    assert table.shape == (1, 2, 4, 4)
    x = own.features.numpy() / np.linalg.norm(own.features.numpy(), axis=1, keepdims=True)
    similar = x @ x.T
    np.fill_diagonal(similar, -np.inf)
    y = own.labels.numpy()
    stays = {
        0: np.concatenate([u[y == c] <= np.quantile(u[y == c], 0.9) for c in range(4)]),
        1: u <= np.quantile(u, 0.9),
    }
    order = np.concatenate([np.flatnonzero(y == c) for c in range(4)])
    stays[0] = stays[0][np.argsort(order)]
    every = np.ones(60, bool)
    for rule, own_ in stays.items():
        for what, (database, queries) in enumerate([(every, every), (own_, every), (every, own_), (own_, own_)]):
            hits = [y[np.where(database, similar[i], -np.inf).argmax()] == y[i] for i in np.flatnonzero(queries)]
            assert table[0, rule, what, 0] == pytest.approx(np.mean(hits), abs=1e-6)


def test_people_beside_scipy(monkeypatch):
    """Votes of ten people on eighty images."""
    generator = np.random.default_rng(0)
    votes = generator.multinomial(10, [0.5, 0.3, 0.2], size=80)
    votes[::3] = np.array([10, 0, 0])
    monkeypatch.setattr(uses, "human_counts", lambda: np.concatenate([votes[:1], votes]))
    labels, u = np.zeros(80, int), torch.rand(80, generator=torch.Generator().manual_seed(0))
    found = uses.judge_by_people({"head": [u]}, np.arange(1, 81), labels, draws=2)["people/head"]
    assert found.shape == (1, 3, 3)
    shares = votes / 10
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1))).sum(1)
    expected = [
        roc_auc_score(entropy > 0, u.numpy()),
        spearmanr(u.numpy(), entropy)[0],
        roc_auc_score(votes.argmax(1) != 0, u.numpy()),
    ]
    np.testing.assert_allclose(found[0, :, 0], expected, rtol=1e-5)


def test_a_map_tells_how_mixed_the_surroundings_are(monkeypatch):
    monkeypatch.setattr(uses, "EACH", 12)
    classes = ("plane", *uses.MAPPED)
    own = asked(140, d=8, c=7)
    found = uses.map_images(np.arange(140.0), own, classes)["map"]
    assert found.shape == (72, 5)
    for k, name in enumerate(uses.MAPPED):  # twelve of each class, with their own uncertainty
        rows = np.flatnonzero(own.labels.numpy() == classes.index(name))[:12]
        np.testing.assert_array_equal(found[12 * k : 12 * (k + 1), 2], classes.index(name))
        np.testing.assert_array_equal(found[12 * k : 12 * (k + 1), 3], rows)
    assert (found[:, 4] >= 0).all()
    assert (found[:, 4] <= np.log(6) + 1e-6).all()
    near = NearestNeighbors(n_neighbors=10, algorithm="brute").fit(found[:, :2]).kneighbors()[1][5]
    shares = np.bincount(found[near, 2].astype(int)) / 10
    assert found[5, 4] == pytest.approx(-(shares * np.log(np.where(shares > 0, shares, 1))).sum(), abs=1e-5)


def test_what_is_kept_is_read_as_arrays_with_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").touch()
    generator = np.random.default_rng(0)
    sets, columns = ("sketch", "tiny_imagenet", "cifar10"), {}
    for name in sets:
        columns[f"r_auroc/{name}/head"] = generator.random((3, 5), np.float32)
        columns[f"r_auroc/{name}/entropy"] = generator.random((1, 5), np.float32)
        columns[f"recall/{name}"] = generator.random(5, np.float32)
    columns["safe/cifar10/head"] = generator.random((3, 2, 4, 5), np.float32)
    columns["safe/cifar10/random"] = generator.random((1, 2, 4, 5), np.float32)
    place = kept_trials.PLACE.format("mobilenetv1_050")
    write_table(tmp_path / place, columns, {"about": json.dumps({"rests_on": {"seeds": 3}})})
    kept = kept_trials.load_trials("mobilenetv1_050")
    assert kept.settings == {"seeds": 3}
    scores = kept.tried_scores()
    assert scores.dims == ("set", "variant", "training", "draw")
    assert scores["set"].values.tolist() == [
        "tiny_imagenet",
        "cifar10",
        "sketch",
    ]  # in the order of the list, not the file
    for name in sets:
        np.testing.assert_array_equal(scores.sel(set=name, variant="head"), columns[f"r_auroc/{name}/head"])
        for run in range(3):
            np.testing.assert_array_equal(
                scores.sel(set=name, variant="entropy", training=run), columns[f"r_auroc/{name}/entropy"][0]
            )
    np.testing.assert_array_equal(kept.recall().sel(set="sketch"), columns["recall/sketch"])
    safe = kept.safe("cifar10")
    np.testing.assert_array_equal(safe.sel(variant="random", training=2), columns["safe/cifar10/random"][0])
    np.testing.assert_array_equal(
        safe.sel(variant="head", training=1, rule="all", removed="both"), columns["safe/cifar10/head"][1, 1, 3]
    )
    with pytest.raises(ValueError, match="unknown score 'distance'; choose from"):
        kept.tried_scores(variants=["distance"])
    with pytest.raises(ValueError, match="unknown backbone 'resnet50'"):
        kept_trials.load_trials("resnet50")
    missing = kept_trials.PLACE.format("mobilenetv1_075")
    if not (uqlib_own := kept_trials.in_checkout(missing)):
        with pytest.raises(FileNotFoundError, match="`uqlib uncertainty mobilenetv1_075` makes it"):
            kept_trials.load_trials("mobilenetv1_075")
    assert uqlib_own is None or uqlib_own.is_file()


def test_the_kept_trials_are_those_of_the_settings(repository):
    for backbone in kept_trials.tried_backbones():
        kept = kept_trials.load_trials(backbone)
        assert kept.settings == json.loads(json.dumps(trials.SETTINGS))
        scores = kept.tried_scores()
        assert scores["set"].values.tolist() == [kept_trials.UPSTREAM, *upstream_features.UNSEEN]
        assert scores.sizes["training"] == trials.SETTINGS["seeds"]
        assert scores.sizes["draw"] == 1 + trials.SETTINGS["draws"]
        assert ((scores > 0) & (scores < 1)).all()
        assert abs(scores.mean("draw") - scores.sel(draw=0)).max() < 0.05


def test_damaged_images_get_what_the_head_says_of_them(few, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    held = ImageSet(pixels, np.zeros(5, int), ("a",), "tiny_imagenet", "val", "0" * 64, np.arange(5))
    monkeypatch.setattr(upstream_features, "heldout_images", lambda: held)
    monkeypatch.setattr(upstream_features, "INTERVENED", 4)
    monkeypatch.setattr(
        upstream_features,
        "see",
        lambda backbone, images: torch.tensor(np.stack(list(images.images)) / 255.0).flatten(1),
    )
    heads = [UncertaintyHead(192, width=4, seed=seed) for seed in range(2)]
    found = uses.try_damage("mobilenetv1_050", heads, (0.5,))
    assert {name: each.shape for name, each in found.items()} == {
        f"damaged/{kind}": (2, 2, 4) for kind in ("crop", "blur", "noise", "occlude")
    }
    for kind in ("crop", "noise"):
        for each in found.values():  # strength 0 is the image itself
            np.testing.assert_array_equal(each[:, 0], found[f"damaged/{kind}"][:, 0])
        damaged = upstream_features.damaged_images(kind, 0.5)
        assert damaged.split == f"val-{kind}-0_5"
        seen = torch.tensor(np.stack(list(damaged.images)) / 255.0).flatten(1)
        expected = uncertainty_of(heads[1], seen)
        np.testing.assert_allclose(found[f"damaged/{kind}"][1, 1], expected, rtol=1e-3)


def test_upstream_images_are_views_and_unseen_ones_are_not(monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), dtype=np.uint8)
    loaded = []

    def load(name, split):
        loaded.append((name, split))
        return ImageSet(pixels, np.arange(6) % 2, ("a", "b"), name, split, "0" * 64, np.arange(6))

    monkeypatch.setattr(upstream_features, "load_images", load)
    monkeypatch.setattr(upstream_features, "TRAINED", 4)
    monkeypatch.setattr(upstream_features, "ASKED", 3)
    assert len(upstream_features.upstream_images()) == 4
    assert upstream_features.upstream_images().split == "train-view0"
    assert len(upstream_features.heldout_images()) == len(upstream_features.unseen_images("cifar10")) == 3
    np.testing.assert_array_equal(upstream_features.unseen_images("cifar100").images, pixels[:3])
    assert set(loaded) == {
        ("tiny_imagenet", "train"),
        ("tiny_imagenet", "val"),
        ("cifar10", "test"),
        ("cifar100", "test"),
    }
    with pytest.raises(ValueError, match="unknown unseen set 'svhn'; choose from"):
        upstream_features.unseen_images("svhn")
    with pytest.raises(ValueError, match="unknown backbone 'resnet50'; choose from"):
        upstream_features.load_backbone("resnet50")


def test_the_command_tries_what_is_missing_and_then_all_across(monkeypatch, capsys, repository):
    made = []
    monkeypatch.setattr(joint, "make_joint", lambda: made.append("joint") or "joint")
    monkeypatch.setattr(upstream_features, "load_backbone", lambda name: nn.Identity())
    monkeypatch.setattr(trials, "make_trials", lambda name: made.append(name) or name)
    monkeypatch.setattr(trials, "make_across", lambda names: made.append(tuple(names)) or "across")
    monkeypatch.setattr(kept_trials, "tried_backbones", lambda: ["efficientnet_lite0_pypi", "mobilenetv1_025"])
    monkeypatch.chdir(repository)
    every = list(upstream_features.BACKBONES)
    for given, expected in (
        (
            [],
            [
                *(name for name in every if name not in kept_trials.tried_backbones()),
                "joint",
                tuple(kept_trials.tried_backbones()),
            ],
        ),
        (["mobilenetv1_050"], ["mobilenetv1_050"]),
        (["across"], [tuple(kept_trials.tried_backbones())]),
    ):
        made.clear()
        assert not main(["uncertainty", *given])
        assert made == expected
        assert capsys.readouterr().out.count("made: ") == len(expected)
