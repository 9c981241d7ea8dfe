"""Random views: the same for a seed and a row however they are asked for, and of the size, place and colour that is promised."""

import importlib
import math

import numpy as np
import pytest

from uqlib.images import Changed, Files, ImageSet, load_images, random_crop, random_crops
from uqlib.images.crops import AREA, JITTER, RATIO, _draw_box


@pytest.fixture
def made(images):
    """Nine pictures with labels, as a set."""
    pixels = np.concatenate([images, images[:, ::-1], images[:, :, ::-1]])
    names = ("a", "b", "c")
    return ImageSet(pixels, np.arange(9) % 3, names, "mine", "train", "0" * 64, np.arange(9))


def test_a_view_is_the_same_whatever_the_slice_or_the_order(made):
    whole = random_crops(made, view=2)
    every = np.stack(whole.images[:])
    assert every.shape == made.images.shape
    assert every.dtype == np.uint8
    np.testing.assert_array_equal(whole.images[4], every[4])
    np.testing.assert_array_equal(np.stack(whole.images[[7, 0, 4]]), every[[7, 0, 4]])
    rows = np.array([8, 3, 5])
    for some in (random_crops(made.select(rows), view=2), whole.select(rows)):
        np.testing.assert_array_equal(np.stack(some.images[:]), every[rows])
        np.testing.assert_array_equal(some.labels, made.labels[rows])
        np.testing.assert_array_equal(some.index, rows)
    np.testing.assert_array_equal(random_crop(made.images[5], (2, 5)), every[5])


def test_each_view_of_each_image_is_another(made):
    same = Changed(np.repeat(made.images[:1], 6, 0), lambda image, row: image)  # one picture, six rows
    copies = ImageSet(same, np.zeros(6, int), ("a",), "mine", "train", "0" * 64, np.arange(6))
    views = [bytes(image) for view in (0, 1) for image in random_crops(copies, view=view).images[:]]
    assert len(set(views)) == 12


def test_a_view_has_its_own_name_and_digest(made):
    names = [random_crops(made, view=view) for view in (0, 1)] + [random_crops(made.select([0, 1, 2]))]
    assert [each.split for each in names] == ["train-view0", "train-view1", "train-view0"]
    assert len({each.digest for each in names} | {made.digest}) == 4
    assert random_crops(made).digest == names[0].digest


def test_a_changed_rule_changes_the_digest(made, monkeypatch):
    before = random_crops(made).digest
    module = importlib.import_module("uqlib.images.crops")
    monkeypatch.setattr(module, "RULE", "random crops 2")
    assert random_crops(made).digest != before


def test_the_boxes_have_the_areas_and_the_shapes_that_are_promised():
    """Of a square image nearly every try fits; the area is uniform, the logarithm of the shape too."""
    generator = np.random.default_rng(0)
    boxes = np.array([_draw_box(generator, 400, 400) for _ in range(3000)])
    left, top, right, bottom = boxes.T
    assert boxes.min() >= 0
    assert boxes.max() <= 400
    w, h = right - left, bottom - top
    area, ratio = w * h / 400**2, w / h
    assert AREA[0] - 0.01 < area.min() < AREA[0] + 0.02
    assert area.max() <= AREA[1]
    assert RATIO[0] - 0.02 < ratio.min() < RATIO[0] + 0.02
    assert RATIO[1] - 0.02 < ratio.max() < RATIO[1] + 0.02
    small = area < 0.7  # all of these fit, so none was drawn again: uniform
    error = np.std(area[small]) / math.sqrt(small.sum())
    assert abs(area[small].mean() - (AREA[0] + 0.7) / 2) < 4 * error
    assert abs(np.log(ratio[small]).mean()) < 4 * np.std(np.log(ratio[small])) / math.sqrt(small.sum())
    free = small & (w < 400)
    place = left[free] / (400 - w[free])
    assert abs(place.mean() - 0.5) < 4 * place.std() / math.sqrt(free.sum())


def test_where_no_crop_fits_the_whole_image_is_seen():
    assert _draw_box(np.random.default_rng(0), 4, 400) == (0, 0, 400, 4)


def test_half_of_the_views_are_mirrored_and_the_colours_change_as_promised():
    """A ramp from left to right says which way an image faces; a grey image shows brightness alone."""
    ramp = np.repeat(np.repeat(np.linspace(60, 180, 64).round().astype(np.uint8)[None, :, None], 64, 0), 3, 2)
    seen = np.stack([random_crop(ramp, seed) for seed in range(200)]).astype(float)
    mirrored = seen[:, :, :8].mean((1, 2, 3)) > seen[:, :, -8:].mean((1, 2, 3))
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / math.sqrt(200)
    grey = np.full((8, 8, 3), 100, np.uint8)
    light = np.stack([random_crop(grey, seed) for seed in range(200)]).astype(float)
    assert np.ptp(light, axis=(1, 2, 3)).max() == 0
    level = light.mean((1, 2, 3)) / 100
    assert 1 - JITTER - 0.01 <= level.min() < 1 - JITTER + 0.05
    assert 1 + JITTER - 0.05 < level.max() <= 1 + JITTER + 0.01


def test_images_of_any_set_are_seen(tmp_path, images):
    digits = random_crops(load_images("digits", "train").select([3, 1]))
    assert digits.images[0].dtype == np.uint8
    assert digits.images[0].shape == load_images("digits", "train").images[3].shape
    from PIL import Image

    for k, size in enumerate([(20, 30), (40, 10)]):
        Image.fromarray(images[k]).resize(size).save(tmp_path / f"{k}.png")
    files = Files([tmp_path / "0.png", tmp_path / "1.png"])
    mixed = ImageSet(files, np.zeros(2, int), ("a",), "mine", "all", "0" * 64, np.arange(2))
    assert [each.shape for each in random_crops(mixed).images[:]] == [(30, 20, 3), (10, 40, 3)]


def test_what_is_no_image_is_refused(unchecked, made):
    with pytest.raises(TypeError, match="image must be uint8"):
        random_crop(made.images[0] / 255, 0)
    with pytest.raises(ValueError, match=r"image must have shape \(h, w, 3\)"):
        random_crop(made.images, 0)
    with pytest.raises(ValueError, match="view must be a whole number of at least 0; it is -1"):
        random_crops(made, view=-1)
