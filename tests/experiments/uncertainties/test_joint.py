"""A classifier and its head trained together: what the stop-gradient leaves alone, and what is kept and made only once."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from uqlib import networks, training
from uqlib.experiments.uncertainties import joint
from uqlib.files.whole import DamagedError
from uqlib.images import ImageSet

TINY = {
    "network": "cifar_resnet8_w8", "images": 20, "tested": 40, "width": 8, "seeds": 1, "draws": 5,
    "training": joint.SETTINGS["training"] | {"epochs": 2, "batch": 10, "precision": "no"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def splits(tmp_path, monkeypatch):
    """Random images of two classes in place of CIFAR-10, in a checkout of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UQLIB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setattr(joint, "SETTINGS", joint.SETTINGS | TINY)
    generator = np.random.default_rng(0)
    made = {
        split: ImageSet(generator.integers(256, size=(80, 32, 32, 3), dtype=np.uint8), np.arange(80) % 2, ("a", "b"),
                        "noise", split, split[0] * 64, np.arange(80))
        for split in ("train", "test")
    }  # fmt: skip
    monkeypatch.setattr(joint, "load_whole", made.__getitem__)
    return made


def weights(module):
    return [each.clone() for each in module.state_dict().values()]


def same(one, other):
    return all(map(torch.equal, weights(one), weights(other)))


def test_with_the_stop_gradient_the_classifier_is_that_without_a_head(splits):
    stop, pulled = (joint.train_jointly(variant, 3).both.model for variant in ("stop", "joint_1"))
    alone = networks.create("cifar_resnet8_w8", weights=None, classes=2, seed=3).to(memory_format=torch.channels_last)
    training.train(
        alone, splits["train"].images[:20], splits["train"].labels[:20],
        preprocessing=networks.preprocessing(alone, size=32, crop_pct=1.0), augmentation="flip_shift", seed=3,
        loss=lambda logits, labels, rows: F.cross_entropy(logits, labels), progress=False, **TINY["training"],
    )  # fmt: skip
    assert same(stop, alone)
    assert not same(pulled, alone)


def test_what_is_told_is_of_the_test_images(splits):
    trained = joint.train_jointly("joint_10", 0)
    said = trained.both.ask(splits["test"].images[:40])
    right = said.logits.argmax(-1).numpy() == splits["test"].labels[:40]
    last = trained.history[-1].judged
    assert last["accuracy"] == right.mean()
    assert last["auroc"] == pytest.approx(roc_auc_score(~right, said.uncertainty), abs=1e-3)
    assert last["auroc_classifier"] == pytest.approx(roc_auc_score(right, said.logits.softmax(-1).amax(-1)), abs=1e-3)


def test_a_killed_run_goes_on_and_a_finished_one_is_not_made_again(monkeypatch):
    plain, calls = joint.train_jointly, []
    whole = {name: plain(name, 0) for name in ("stop", "joint_1")}
    for name in whole:
        joint.checkpoint_of(name, 0).unlink()

    def dies_in_the_second_epoch_of_the_second_run(*args):
        calls.append(args)
        if len(calls) == 9:  # two a judgement: two epochs and the end of the first run, one epoch of the second
            raise KeyboardInterrupt
        return auroc(*args)

    auroc = joint.metrics.auroc
    monkeypatch.setattr(joint.metrics, "auroc", dies_in_the_second_epoch_of_the_second_run)
    with pytest.raises(KeyboardInterrupt):
        joint.make_joint()
    monkeypatch.setattr(joint.metrics, "auroc", auroc)
    with pytest.raises(FileNotFoundError, match="`uqlib uncertainty joint` makes it"):
        joint.load_joint()

    begun = []
    monkeypatch.setattr(joint, "train_jointly", lambda *run: begun.append(run) or plain(*run))
    joint.make_joint()
    assert begun == [("joint_1", 0), ("joint_10", 0), ("joint_0.1", 0)]
    kept = joint.load_joint()
    for name, one in whole.items():
        followed = [[log.judged[each] for each in joint.FOLLOWED] for log in one.history]
        np.testing.assert_allclose(kept.epochs.sel(variant=name, training=0).values.T, followed, rtol=1e-6)
    for name in joint.MEASURES:
        at_end = kept.epochs.sel(measure=name).isel(epoch=-1)
        np.testing.assert_allclose(kept.scores.sel(measure=name, draw=0), at_end, rtol=1e-6)
    assert kept.scores.sizes["draw"] == 6
    assert not list(joint.checkpoint_of("stop", 0).parent.glob("*.pt"))

    joint.make_joint()
    assert len(begun) == 3
    monkeypatch.setitem(joint.SETTINGS, "width", 9)
    with pytest.raises(DamagedError, match="it was made with other settings; remove it"):
        joint.make_joint()
