import io
import math
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from toys import PLAIN, Small, fit, weights

from uqlib import losses
from uqlib.files import fingerprint as fp
from uqlib.images import Changed, load_images, select, sources
from uqlib.images.corruptions import corrupt
from uqlib.training import Views, predict


def test_images_of_several_sizes_train(pictures, tmp_path):
    """Files and lists: as the same pixels in one array, where their sizes agree."""
    images, labels = pictures
    for k, (image, label) in enumerate(zip(images, labels, strict=True)):
        (tmp_path / "set" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(tmp_path / "set" / str(label) / f"{k:02}.png")
    photos = load_images(f"folder:{tmp_path / 'set'}")
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
    photos = load_images(f"folder:{tmp_path / 'set'}")
    model = Small()
    history = fit(model, photos.images, photos.labels, epochs=2, checkpoint=tmp_path / "c.pt")
    assert math.isfinite(history[-1].loss)
    Image.fromarray(mixed[0] // 2).save(tmp_path / "set" / str(labels[0]) / "00.png")
    photos = load_images(f"folder:{tmp_path / 'set'}")
    with pytest.raises(ValueError, match="other settings: images; remove it"):
        fit(Small(), photos.images, photos.labels, epochs=2, checkpoint=tmp_path / "c.pt")
    fit(Small(), mixed, labels, epochs=1, checkpoint=tmp_path / "d.pt")


def zipped(images, path):
    """The images as Tiny-ImageNet's archive has them."""
    with zipfile.ZipFile(path, "w") as archive:
        for k, image in enumerate(images):
            stream = io.BytesIO()
            Image.fromarray(image).save(stream, "PNG")
            archive.writestr(f"train/{k}.JPEG", stream.getvalue())
    return sources._Zipped(zipfile.ZipFile(path), [f"train/{k}.JPEG" for k in range(len(images))])


def filed(images, folder):
    """The images as files of one class."""
    (folder / "only").mkdir(parents=True)
    for k, image in enumerate(images):
        Image.fromarray(image).save(folder / "only" / f"{k:02}.png")
    return load_images(f"folder:{folder}").images


def mapped(images, path):
    np.save(path, images)
    return np.load(path, mmap_mode="r")


SETS = {
    "memory-mapped": lambda images, place: mapped(images, place / "images.npy"),
    "a tensor": lambda images, place: torch.tensor(images),
    "a list": lambda images, place: [*images],
    "image files": lambda images, place: filed(images, place / "set"),
    "an archive": lambda images, place: zipped(images, place / "set.zip"),
    "made when asked for": lambda images, place: Changed(images, lambda image, row: np.asarray(image)),
    "some of what is made": lambda images, place: Changed(
        [*images[:5], *images], lambda image, row: np.asarray(image)
    ).select(np.arange(5, 5 + len(images))),
    "corrupted when asked for": lambda images, place: corrupt(filed(images, place / "set"), "contrast", 3),
}


@pytest.mark.parametrize("name", SETS)
def test_every_set_of_images_trains_as_its_pixels_do(pictures, tmp_path, name):
    """Killed and taken up too: the pixels are known again, however they are kept."""
    images, labels = pictures
    pixels = np.stack(corrupt(images, "contrast", 3)) if name.startswith("corrupted") else images
    options = {"epochs": 3, "augmentation": "flip_shift", "batch": 12}
    expected, found = Small(drop=0.5), Small(drop=0.5)
    history = fit(expected, pixels, labels, validation=(pixels, labels), **options)
    given, steps = SETS[name](images, tmp_path), []

    def terms(logits, labels, rows):
        steps.append(rows)
        if len(steps) == 5:  # in the second epoch of three steps
            raise KeyboardInterrupt
        return losses.surprise(logits, labels)

    options |= {"validation": (given, labels), "checkpoint": tmp_path / "c.pt"}
    with pytest.raises(KeyboardInterrupt):
        fit(Small(drop=0.5), given, labels, loss=losses.Criterion("cross_entropy()", terms), **options)
    again = fit(found, given, labels, **options)
    assert torch.equal(weights(found), weights(expected))
    assert [log[:3] + log[5:] for log in again] == [log[:3] + log[5:] for log in history]
    assert torch.equal(predict(found, given, preprocessing=PLAIN), predict(expected, pixels, preprocessing=PLAIN))
    other = select(given, [1, 0, *range(2, 40)])
    with pytest.raises(ValueError, match="other settings: images, validation set; remove it"):
        fit(Small(drop=0.5), other, labels, **options | {"validation": (other, labels)})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_images_on_the_gpu_train_as_those_that_are_brought_there(pictures):
    images, labels = pictures
    runs = []
    for each in (images, torch.tensor(images), torch.tensor(images).cuda()):
        model = Small().cuda()
        fit(model, each, labels, epochs=2, validation=(each, labels), precision="fp16")
        runs.append(weights(model))
    assert torch.equal(runs[0], runs[1])
    assert torch.equal(runs[0], runs[2])


def test_each_call_is_another_view_and_follows_from_the_generator(pictures):
    images, _ = pictures
    views, rows = Views(images, PLAIN, "flip_shift", beside=Small()), torch.tensor([3, 0, 3])
    generator = torch.Generator().manual_seed(0)
    first, second = views(rows, generator), views(rows, generator)
    assert not torch.equal(first, second)
    assert torch.equal(first, views(rows, torch.Generator().manual_seed(0)))
    plain = Views(images, PLAIN, beside=Small())(rows, generator)
    assert torch.equal(plain, (torch.tensor(images)[rows].permute(0, 3, 1, 2) / 255 - 0.5) / 0.25)
    assert len(views) == 40
    with torch.autocast("cpu", torch.bfloat16):  # pixels keep their precision
        squared = Views(images, PLAIN, lambda x, generator: x @ x, beside=Small())(rows, generator)
    assert squared.dtype == torch.float32


def test_views_are_known_by_pixels_preparation_and_augmentation(pictures):
    images, _ = pictures

    class Named:
        fingerprint = "0" * 64

        def __call__(self, images, generator):
            return images

    model, other = Small(), images.copy()
    other[3, 2, 1, 0] ^= 1
    known = [
        Views(images, PLAIN, beside=model),
        Views(other, PLAIN, beside=model),
        Views(images, PLAIN._replace(crop_pct=0.9), beside=model),
        Views(images, PLAIN, "flip", beside=model),
        Views(images, PLAIN, Named(), beside=model),
    ]
    assert len({fp.fingerprint(views) for views in known}) == 5
    assert Views(torch.tensor(images), PLAIN, beside=model).fingerprint == known[0].fingerprint
    with pytest.raises(TypeError, match="no lasting identity"):
        fp.fingerprint(Views(images, PLAIN, lambda images, generator: images, beside=model))
    with pytest.raises(ValueError, match="unknown augmentation 'crop'; choose from none, flip, flip_shift"):
        Views(images, PLAIN, "crop", beside=model)
