import math
import re
import resource
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from uqlib import data, files, losses, models
from uqlib import fingerprint as fp
from uqlib.files import DamagedError
from uqlib.models import Preprocessing
from uqlib.training import AUGMENTATIONS, _seeded, cosine, flip, flip_shift, predict, train

PLAIN = Preprocessing(8, (0.5,) * 3, (0.25,) * 3)


class Small(nn.Module):
    """A convolution, dropout and a classifier, with timm's contract as far as a training needs it."""

    num_classes = 3

    def __init__(self, drop: float = 0.0):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.conv, self.head, self.drop = nn.Conv2d(3, 6, 3), nn.Linear(6, 3), nn.Dropout(drop)

    def get_classifier(self):
        return self.head

    def forward(self, x):
        return self.head(self.drop(F.relu(self.conv(x)).mean((2, 3))))


@pytest.fixture
def pictures():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 40)
    images = generator.integers(0, 200, (40, 8, 8, 3))
    images[np.arange(40), :, :, labels] += 50  # the label is a tint
    return images.astype(np.uint8), labels


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


fit = partial(train, preprocessing=PLAIN, lr=0.05, optimizer="sgd", batch=8, progress=False)


def test_full_batches_give_the_steps_of_plain_gradient_descent(pictures):
    images, labels = pictures
    model, plain = Small(), Small()
    fit(model, images, labels, epochs=4, batch=40, warmup=0.5, weight_decay=0.01, augmentation="none")
    x = (torch.tensor(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    optimizer = torch.optim.SGD(plain.parameters(), lr=1.0, momentum=0.9, nesterov=True, weight_decay=0.01)
    # four steps: the rate rises over the first two from a tenth, then half a cosine
    for rate in (0.05 * 0.1, 0.05 * 0.55, 0.05 * 1.0, 0.05 * 0.5):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        F.cross_entropy(plain(x), torch.tensor(labels)).backward()
        optimizer.step()
    assert (weights(model) - weights(plain)).abs().max() < 1e-6  # float32, sums in another order


def test_training_learns_and_judges(pictures):
    images, labels = pictures
    model = Small()
    history = fit(model, images, labels, epochs=20, validation=pictures)
    assert history[-1].nll < history[0].nll
    assert history[-1].accuracy > 0.8
    assert [epoch.epoch for epoch in history] == list(range(1, 21))
    logits = predict(model, images, preprocessing=PLAIN, batch=7)
    assert history[-1].accuracy == pytest.approx((logits.argmax(-1).numpy() == labels).mean())
    assert history[-1].nll == pytest.approx(F.cross_entropy(logits.double(), torch.tensor(labels)).item())


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
    model = models.create("cifar_resnet8_w8", weights=None, seed=0)
    prepared = models.preprocessing(model)
    train(model, images, labels, preprocessing=prepared, epochs=1, lr=0.1, batch=8, checkpoint=tmp_path / "c.pt")
    again = models.create("cifar_resnet8_w8", weights=tmp_path / "c.pt")
    assert fp.of_network(again) == fp.of_network(model)
    content = bytearray((tmp_path / "c.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "c.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"c\.pt"):
        models.create("cifar_resnet8_w8", weights=tmp_path / "c.pt")


def test_images_of_several_sizes_train(pictures, tmp_path):
    """Files and lists: as the same pixels in one array, where their sizes agree."""
    images, labels = pictures
    for k, (image, label) in enumerate(zip(images, labels, strict=True)):
        (tmp_path / "set" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "set" / str(label) / f"{k:02}.png")
    photos = data.load(f"folder:{tmp_path / 'set'}")
    order = [int(path.stem) for path in map(Path, photos.images.paths)]
    runs = []
    for each in (images[order], [*images[order]], photos.images):
        model = Small()
        fit(model, each, photos.labels, epochs=2, validation=(each, photos.labels), checkpoint=tmp_path / "c.pt")
        (tmp_path / "c.pt").unlink()
        runs.append(weights(model))
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0], runs[2])
    mixed = [image if k % 2 else image.repeat(2, axis=1) for k, image in enumerate(images)]
    Image.fromarray(mixed[0]).save(tmp_path / "set" / str(labels[0]) / "00.png")
    photos = data.load(f"folder:{tmp_path / 'set'}")
    model = Small()
    history = fit(model, photos.images, photos.labels, epochs=2, checkpoint=tmp_path / "c.pt")
    assert math.isfinite(history[-1].loss)
    Image.fromarray(mixed[0] // 2).save(tmp_path / "set" / str(labels[0]) / "00.png")
    photos = data.load(f"folder:{tmp_path / 'set'}")
    with pytest.raises(ValueError, match="other settings: images; remove it"):
        fit(Small(), photos.images, photos.labels, epochs=2, checkpoint=tmp_path / "c.pt")
    fit(Small(), mixed, labels, epochs=1, checkpoint=tmp_path / "d.pt")


def test_each_process_draws_its_own_augmentation_and_dropout_in_one_order():
    cpu = torch.device("cpu")

    def draws(rank, seed=3, epoch=2):
        with _seeded(seed, epoch, rank, cpu) as (order, own):
            return [torch.randperm(50, generator=order), torch.rand(50, generator=own), torch.rand(50)]

    first, second, third = map(draws, range(3))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[0], third[0])
    for k in (1, 2):
        assert not torch.equal(first[k], second[k])
        assert not torch.equal(second[k], third[k])
    assert not torch.equal(draws(1)[1], draws(1, epoch=3)[1])
    # what one process has drawn ever since: the seed and the epoch alone
    number = int(np.random.SeedSequence([3, 2]).generate_state(1, np.uint64)[0] >> 1)
    generator = torch.Generator().manual_seed(number)
    assert torch.equal(first[0], torch.randperm(50, generator=generator))
    assert torch.equal(first[1], torch.rand(50, generator=generator))
    assert torch.equal(first[2], torch.rand(50, generator=torch.Generator().manual_seed(number)))


def test_only_the_own_device_is_touched(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: pytest.fail("the other devices belong to others"))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the other devices belong to others"))
    with _seeded(0, 0, 0, torch.device("cpu")):
        pass


def test_a_loss_that_has_served_starts_anew(pictures):
    images, labels = pictures
    criterion, runs = losses.ranking(examples=40), []
    for _ in range(2):
        model = Small()
        fit(model, images, labels, epochs=3, loss=criterion)
        runs.append(weights(model))
    assert torch.equal(*runs)
    assert (criterion.times == 3).all()
    plain = Small()
    fit(plain, images, labels, epochs=3)
    assert not torch.equal(weights(plain), runs[0])


def test_training_rows_may_be_permuted_together_with_their_weights(pictures):
    images, labels = pictures
    difficulty = np.random.default_rng(1).random(40)
    order = np.random.default_rng(2).permutation(40)
    options = {"epochs": 6, "batch": 40, "augmentation": "none"}  # whole batches, whatever the order of the rows
    runs = []
    for weighted, rows in ((difficulty, np.arange(40)), (difficulty[order], order), (difficulty, order)):
        model = Small()
        fit(model, images[rows], labels[rows], loss=losses.difficulty(weighted, alpha=0.5), **options)
        runs.append(weights(model))
    assert (runs[0] - runs[1]).abs().max() < 1e-6  # float32, sums in another order
    assert (runs[0] - runs[2]).abs().max() > 1e-4
    model = Small()
    with pytest.raises(ValueError, match="Weights of another data set, or in another order"):
        fit(model, images[order], labels[order], loss=losses.difficulty(difficulty, labels), **options)
    with pytest.raises(ValueError, match="the weights belong to a training set of 40 rows; this one has 30"):
        fit(model, images[:30], labels[:30], loss=losses.difficulty(difficulty), **options | {"batch": 30})
    assert torch.equal(weights(model), weights(Small()))


@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_loss_trains(pictures, name):
    images, labels = pictures
    needed = {"ranking": {"examples": 40}, "difficulty": {"weights": np.linspace(0, 1, 40), "labels": labels}}
    model = Small()
    history = fit(model, images, labels, epochs=20, validation=pictures, loss=losses.loss(name, **needed.get(name, {})))
    assert history[-1].nll < history[0].nll
    assert history[-1].accuracy > 0.7


def test_the_seed_decides_and_the_global_generator_is_left_alone(pictures):
    images, labels = pictures
    torch.manual_seed(1)
    before = torch.get_rng_state()
    runs = []
    for seed in (0, 0, 1):
        model = Small(drop=0.5)
        fit(model, images, labels, epochs=1, seed=seed)
        runs.append(weights(model))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_the_loss_learns_which_rows_it_sees(pictures):
    images, labels = pictures
    seen = []

    def loss(logits, given, rows):
        assert (given == torch.tensor(labels)[rows]).all()
        seen.append(rows)
        return F.cross_entropy(logits, given)

    fit(Small(), images, labels, epochs=1, batch=12, loss=loss)
    rows = torch.cat(seen).tolist()
    assert len(rows) == len(set(rows)) == 36  # the four that fill no batch are left out


def test_frozen_parameters_stay(pictures):
    model = Small()
    model.conv.requires_grad_(False)
    before = model.conv.weight.clone()
    fit(model, *pictures, epochs=1)
    assert torch.equal(model.conv.weight, before)
    assert not torch.equal(model.head.weight, Small().head.weight)


def test_mixed_precision_is_near_full_precision(pictures):
    images, labels = pictures
    full, mixed = Small(), Small()
    a, b = fit(full, images, labels, epochs=3), fit(mixed, images, labels, epochs=3, precision="bf16")
    assert b[-1].loss == pytest.approx(a[-1].loss, rel=0.05)
    assert not torch.equal(weights(full), weights(mixed))


def test_flip_mirrors_about_half():
    images = torch.arange(2000.0)[:, None, None, None] + torch.arange(4.0) / 10 + torch.zeros(2000, 3, 4, 4)
    flipped = flip(images, torch.Generator().manual_seed(0))
    mirrored = (flipped[:, 0, 0, 0] != images[:, 0, 0, 0]).float()
    assert abs(mirrored.mean() - 0.5) < 4 * (0.25 / 2000) ** 0.5
    rows = mirrored.bool()
    assert torch.equal(flipped[rows], images[rows].flip(-1))
    assert torch.equal(flipped[~rows], images[~rows])


def test_shifted_images_are_windows_of_the_reflected_one():
    images = torch.rand(50, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    moved = flip_shift(images, torch.Generator().manual_seed(1))
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (2, 2), (2, 2)), mode="reflect")
    found = set()
    for k in range(50):
        for mirrored in (False, True):
            whole = padded[k][..., ::-1] if mirrored else padded[k]
            windows = [(i, j) for i in range(5) for j in range(5)
                       if np.array_equal(whole[:, i : i + 16, j : j + 16], moved[k].numpy())]  # fmt: skip
            found |= set(windows)
            if windows:
                break
        else:
            pytest.fail(f"image {k} is no window")
    assert len(found) > 15  # of 25 places


def test_cosine_ends_at_nothing():
    assert cosine(0, 100, 0.1) == pytest.approx(0.1)
    assert cosine(10, 100, 0.1) == 1.0
    assert cosine(55, 100, 0.1) == pytest.approx(0.5)
    assert cosine(99, 100, 0.1) == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert cosine(0, 10, 0.0) == 1.0


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_keep_shape_and_values(name):
    images = torch.rand(4, 3, 16, 16)
    found = AUGMENTATIONS[name](images, torch.Generator().manual_seed(0))
    assert found.shape == images.shape
    assert torch.isin(found, images).all()


def test_errors_name_the_value(pictures):
    images, labels = pictures
    for options, message in (
        ({"batch": 41}, "batch must lie in 1 to 40, the number of images; it is 41"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam'; choose from adamw, sgd"),
        ({"schedule": "step"}, "unknown schedule 'step'; choose from cosine, constant"),
        ({"augmentation": "crop"}, "unknown augmentation 'crop'"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(Small(), images, labels, epochs=1, **options)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 3\); row 0 is 7"):
        fit(Small(), images, labels + 7 - labels[0], epochs=1)
    with pytest.raises(ValueError, match="labels has 39 rows where 40 are expected"):
        fit(Small(), images, labels[1:], epochs=1)
    with pytest.raises(TypeError, match=r"labels must be integers; they are torch\.float64"):
        fit(Small(), images, labels + 0.7, epochs=1)
    with pytest.raises(TypeError, match=r"validation labels must be integers"):
        fit(Small(), images, labels, epochs=1, validation=(images, labels + 0.7))
    with pytest.raises(ValueError, match=r"validation labels must lie in \[0, 3\); row 5 is 3"):
        fit(Small(), images, labels, epochs=1, validation=(images, np.where(np.arange(40) == 5, 3, labels)))
    with pytest.raises(TypeError, match=r"Linear must say how many classes it has; set model\.num_classes"):
        fit(nn.Linear(2, 2), images, labels, epochs=1)
    with pytest.raises(ValueError, match="the loss is nan in epoch 1; a smaller lr"):
        fit(Small(), images, labels, epochs=1, loss=lambda logits, labels, rows: logits.sum() * math.nan)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("name", "value"), [("epochs", 2.0), ("batch", 8.0), ("seed", None), ("lr", "0.1"), ("warmup", True)]
)
def test_numbers_of_another_kind_are_refused(pictures, name, value):
    with pytest.raises(TypeError, match=f"{name} must be"):
        fit(Small(), *pictures, **{"epochs": 1} | {name: value})


SCRIPT = """
import sys, numpy as np, torch
sys.path.insert(0, {tests!r})
from test_training import PLAIN, Small, remembering, weights
from uqlib.training import train
images, labels = np.load({images!r}), np.load({labels!r})
model = Small()
train(model, images, labels, preprocessing=PLAIN, epochs=3, lr=0.05, batch=8, optimizer="sgd", progress=False,
      augmentation="none", checkpoint={checkpoint!r}, loss=remembering())
"""


def remembering():
    """Cross entropy that keeps a history and a record; the pairs of a ranking would depend on who has which images."""
    return losses.Recorded(losses.ranking(examples=40, strength=0.0), examples=40, epochs=3)


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(pictures, tmp_path, repository):
    """Each has half of every batch, and gradients are averaged: the same steps but for rounding, the same history."""
    for name, array in zip(("images", "labels"), pictures, strict=True):
        np.save(tmp_path / f"{name}.npy", array)
    places = {name: str(tmp_path / f"{name}.npy") for name in ("images", "labels")}
    script = SCRIPT.format(tests=str(repository / "tests"), checkpoint=str(tmp_path / "two.pt"), **places)
    (tmp_path / "script.py").write_text(script)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launch, tmp_path / "script.py"], check=True, capture_output=True, timeout=300)
    one = Small()
    told = remembering()
    fit(one, *pictures, epochs=3, augmentation="none", loss=told)
    saved = torch.load(tmp_path / "two.pt", weights_only=True)
    two = Small()
    two.load_state_dict(saved["model"])
    for name, buffer in told.state_dict().items():
        assert torch.allclose(buffer.double(), saved["loss"][name].double(), atol=1e-5), name
    assert (told.times == 3).all()
    assert (weights(one) - weights(two)).abs().max() < 1e-6
    assert (weights(one) - weights(Small())).abs().max() > 1e-3
