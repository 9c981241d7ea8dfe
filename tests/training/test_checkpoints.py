import re
import resource
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from toys import PLAIN, Small, fit, weights

from uqlib import losses, networks
from uqlib.files import fingerprint as fp
from uqlib.files import whole as files
from uqlib.files.whole import DamagedError
from uqlib.training import train


def killed(after):
    """Cross entropy that is interrupted in a step; the name stands for what it does until then."""
    steps = []

    def terms(logits, labels, rows):
        steps.append(rows)
        if len(steps) == after:  # 13: in the third epoch of five steps
            raise KeyboardInterrupt
        return losses.surprise(logits, labels)

    return losses.Criterion(str(losses.cross_entropy()), terms)


def test_a_killed_training_goes_on_to_the_same_bits(pictures, tmp_path):
    images, labels = pictures
    options = {"epochs": 4, "augmentation": "flip_shift", "optimizer": "adamw", "seed": 3}
    whole = Small(drop=0.5)
    history = fit(whole, images, labels, **options)

    with pytest.raises(KeyboardInterrupt):
        fit(Small(drop=0.5), images, labels, checkpoint=tmp_path / "c.pt", loss=killed(after=13), **options)
    resumed = Small(drop=0.5)
    again = fit(resumed, images, labels, checkpoint=tmp_path / "c.pt", **options)
    assert torch.equal(weights(whole), weights(resumed))
    assert [epoch.loss for epoch in again] == [epoch.loss for epoch in history]
    finished = Small(drop=0.5)  # nothing is left to do; the weights are read
    fit(finished, images, labels, checkpoint=tmp_path / "c.pt", **options)
    assert torch.equal(weights(whole), weights(finished))
    stamp = (tmp_path / "c.pt").stat().st_mtime_ns
    read = fit(Small(drop=0.5), images, labels, checkpoint=tmp_path / "c.pt", **options)
    assert [epoch[:5] for epoch in read] == [epoch[:5] for epoch in again]
    assert (tmp_path / "c.pt").stat().st_mtime_ns == stamp
    with pytest.raises(
        ValueError, match=r"checkpoint of a training with other settings: lr 0\.05, not 0\.1; remove it"
    ):
        fit(Small(drop=0.5), images, labels, checkpoint=tmp_path / "c.pt", **options | {"lr": 0.1})
    (tmp_path / "c.pt").unlink()  # the advice
    fit(Small(drop=0.5), images, labels, checkpoint=tmp_path / "c.pt", **options | {"lr": 0.1})


def test_a_killed_training_remembers_what_its_loss_remembers(pictures, tmp_path):
    """The ranking loss goes on with its history, the record with what it holds; both as if nothing had happened."""
    images, labels = pictures

    def criterion():
        return losses.Recorded(losses.ranking(examples=40), examples=40, epochs=4)

    whole, told = Small(), criterion()
    fit(whole, images, labels, epochs=4, batch=12, loss=told)  # each epoch leaves out four
    plain = fit(Small(), images, labels, epochs=4, batch=12)
    cut = criterion()
    beyond, calls = cut.loss._terms, []

    def killed(logits, given, rows):
        calls.append(rows)
        if len(calls) == 8:  # the second of three steps of the third epoch
            raise KeyboardInterrupt
        return beyond(logits, given, rows)

    cut.loss._terms = killed
    options = {"epochs": 4, "batch": 12, "checkpoint": tmp_path / "c.pt"}
    with pytest.raises(KeyboardInterrupt):
        fit(Small(), images, labels, loss=cut, **options)
    resumed, again = Small(), criterion()
    history = fit(resumed, images, labels, loss=again, **options)
    assert torch.equal(weights(whole), weights(resumed))
    assert history[-1].loss > plain[-1].loss  # the history did something
    for name, buffer in told.state_dict().items():
        assert torch.equal(buffer.nan_to_num(-1), again.state_dict()[name].nan_to_num(-1)), name
    assert again.times.sum() == 4 * 36
    assert again.correct.shape == (4, 40)
    for loss in (losses.cross_entropy(), losses.ranking(examples=40), losses.focal()):
        with pytest.raises(ValueError, match=r"other settings: loss recorded\(ranking.*\), not"):
            fit(Small(), images, labels, loss=loss, **options)


def changed(array, row=3):
    array = array.copy()
    array[row] = (array[row] + 1) % 3
    return array


def another(model):
    with torch.no_grad():
        model.conv.bias[2] += 1e-7
    return model


def named(name="mine", scale=1.0):
    loss = losses.Criterion(name, lambda logits, labels, rows: scale * losses.surprise(logits, labels))
    loss.register_buffer("scale", torch.tensor(scale))
    return loss


def frozen(model):
    model.conv.requires_grad_(False)
    return model


OTHER_TRAININGS = {
    "labels": lambda p: {"labels": changed(p[1])},
    "images": lambda p: {"images": changed(p[0])},
    "start weights": lambda p: {"model": another(Small(drop=0.5))},
    "network": lambda p: {"model": Small(drop=0.4)},
    "network, frozen": lambda p: {"model": frozen(Small(drop=0.5))},
    "validation set": lambda p: {"validation": (p[0], changed(p[1]))},
    "validation set, no": lambda p: {"validation": None},
    "loss mine, not yours": lambda p: {"loss": named("yours")},
    "state of the loss": lambda p: {"loss": named(scale=2.0)},
    "lr 0.05, not 0.06": lambda p: {"lr": 0.06},
    "epochs 2, not 3": lambda p: {"epochs": 3},
    "weight_decay 0.0, not 0.1": lambda p: {"weight_decay": 0.1},
    "optimizer sgd, not adamw": lambda p: {"optimizer": "adamw"},
    "schedule cosine, not constant": lambda p: {"schedule": "constant"},
    "warmup 0.1, not 0.2": lambda p: {"warmup": 0.2},
    "batch 8, not 10": lambda p: {"batch": 10},
    "augmentation flip, not none": lambda p: {"augmentation": "none"},
    "seed 0, not 1": lambda p: {"seed": 1},
    "precision no, not bf16": lambda p: {"precision": "bf16"},
    "preprocessing size=8": lambda p: {"preprocessing": PLAIN._replace(crop_pct=0.9)},
}


@pytest.mark.parametrize("name", OTHER_TRAININGS)
def test_a_checkpoint_of_another_training_is_refused_and_says_what_differs(pictures, tmp_path, name):
    images, labels = pictures
    given = {"model": Small(drop=0.5), "images": images, "labels": labels, "epochs": 2, "validation": pictures}
    given |= {"loss": named(), "checkpoint": tmp_path / "c.pt"}
    fit(**given)
    before = (tmp_path / "c.pt").read_bytes()
    model = weights(Small(drop=0.5))
    other = given | {"model": Small(drop=0.5), "loss": named()} | OTHER_TRAININGS[name](pictures)
    with pytest.raises(ValueError, match=rf"c\.pt is .*other settings: {re.escape(name.split(', ')[0])}.*remove it"):
        fit(**other)
    assert (tmp_path / "c.pt").read_bytes() == before
    assert (weights(other["model"]) - model).abs().max() < 1e-6  # nothing was read into it


def test_a_loss_without_a_name_gets_no_checkpoint(pictures, tmp_path):
    images, labels = pictures

    def terms(logits, given, rows):
        return losses.surprise(logits, given)

    plain = lambda *batch: terms(*batch).mean()  # noqa: E731
    options = {"epochs": 2, "checkpoint": tmp_path / "c.pt"}
    for loss in (plain, losses.Recorded(plain, examples=40, epochs=2), nn.Identity()):
        with pytest.raises(TypeError, match=r"no name that lasts\. Give it one: losses\.Criterion\(name, terms\)"):
            fit(Small(), images, labels, loss=loss, **options)
    runs = []
    for loss, more in ((losses.Criterion("mine", terms), options), (plain, {"epochs": 2})):  # the advice
        model = Small()
        fit(model, images, labels, loss=loss, **more)
        runs.append(weights(model))
    assert torch.equal(*runs)


def test_no_damage_to_a_checkpoint_passes(pictures, tmp_path):
    images, labels = pictures
    path, options = tmp_path / "c.pt", {"epochs": 2, "checkpoint": tmp_path / "c.pt"}
    fit(Small(), images, labels, **options)
    whole, generator = path.read_bytes(), np.random.default_rng(0)
    cases = [b"", whole[:-1], whole[1:], whole + b"x", whole * 2, b"text", whole[: len(whole) // 2]]
    for place in generator.integers(0, len(whole), 60):
        bit = bytes([whole[place] ^ (1 << generator.integers(8))])
        cases += [whole[:place] + bit + whole[place + 1 :], whole[:place] + whole[place + 1 :]]
    for case in cases:
        path.write_bytes(case)
        model = Small()
        with pytest.raises(DamagedError, match=r"c\.pt is damaged: .*Remove it"):
            fit(model, images, labels, **options)
        assert torch.equal(weights(model), weights(Small()))


@pytest.mark.parametrize(
    "saved",
    [
        [],
        {},
        {"settings": "{}"},
        {"settings": "[" * 100_000, "history": "{}"},
        {"settings": 3, "history": "{}"},
        {"settings": SimpleNamespace(), "history": "{}"},
        {"settings": "{}", "history": "[]"},
    ],
)
def test_a_sealed_file_that_is_no_checkpoint_is_refused(pictures, tmp_path, saved):
    with files.replacing(tmp_path / "c.pt") as stream:
        torch.save(saved, stream)
        files.seal(stream)
    with pytest.raises(DamagedError, match=r"c\.pt is damaged: it is no checkpoint of a training"):
        fit(Small(), *pictures, epochs=2, checkpoint=tmp_path / "c.pt")


def test_a_checkpoint_without_its_parts_or_packed_is_refused(pictures, tmp_path):
    path = tmp_path / "c.pt"
    fit(Small(), *pictures, epochs=1, checkpoint=path)
    saved = torch.load(path, weights_only=True)
    for name in ("model", "optimizer"):
        for part in ({}, 3, {"state": {}}):
            with files.replacing(path) as stream:
                torch.save(saved | {name: part}, stream)
                files.seal(stream)
            with pytest.raises(DamagedError, match=r"c\.pt is damaged: it does not hold what a checkpoint holds"):
                fit(Small(), *pictures, epochs=1, checkpoint=path)
    with files.replacing(path) as stream:
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", b"0" * 10**7)
        files.seal(stream)
    with pytest.raises(DamagedError, match=r"it is no checkpoint of a training"):
        fit(Small(), *pictures, epochs=1, checkpoint=path)


def test_a_full_disk_names_the_checkpoint(pictures, tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=rf"File too large: '{tmp_path / 'c.pt'}'"):
            fit(Small(), *pictures, epochs=1, checkpoint=tmp_path / "c.pt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())


def test_a_network_can_be_made_from_a_checkpoint(tmp_path):
    images, labels = np.zeros((8, 32, 32, 3), np.uint8), np.arange(8)
    model = networks.create("cifar_resnet8_w8", weights=None, seed=0)
    prepared = networks.preprocessing(model)
    train(model, images, labels, preprocessing=prepared, epochs=1, lr=0.1, batch=8, checkpoint=tmp_path / "c.pt")
    again = networks.create("cifar_resnet8_w8", weights=tmp_path / "c.pt")
    assert fp.of_network(again) == fp.of_network(model)
    content = bytearray((tmp_path / "c.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"c\.pt"):
        networks.create("cifar_resnet8_w8", weights=tmp_path / "c.pt")
