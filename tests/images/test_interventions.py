"""Interventions: nothing at strength 0, more with every strength by a measure of our own, and exactly what is promised."""

import numpy as np
import pytest
from PIL import Image

from uqlib.images import INTERVENTIONS, intervene

KINDS = pytest.mark.parametrize("kind", INTERVENTIONS)
STRENGTHS = np.arange(0, 1, 0.1)


def ramp(size=64):
    """Grey levels 40 to 200 from left to right."""
    return np.repeat(np.repeat(np.linspace(40, 200, size).round().astype(np.uint8)[None, :, None], size, 0), 3, 2)


@KINDS
def test_strength_0_is_the_identity(images, kind):
    before = images[0].copy()
    np.testing.assert_array_equal(intervene(images[0], kind, 0), before)
    intervene(images[0], kind, 0.5)
    np.testing.assert_array_equal(images[0], before)


@KINDS
def test_the_image_changes_more_with_every_strength(images, kind):
    """The mean squared change, over several places of what is hidden."""
    change = [
        np.mean(
            [
                (intervene(image, kind, s, seed=seed) - image.astype(float)) ** 2
                for image in images
                for seed in range(12)
            ]
        )
        for s in STRENGTHS
    ]
    assert change[0] == 0
    assert (np.diff(change) > 0).all(), change


@KINDS
def test_an_intervention_keeps_the_shape_and_follows_its_seed(images, kind):
    tall = images[0][:, :20]
    changed = intervene(tall, kind, 0.4, seed=3)
    assert changed.dtype == np.uint8
    assert changed.shape == tall.shape
    np.testing.assert_array_equal(changed, intervene(tall, kind, 0.4, seed=3))
    drawn = kind in ("noise", "occlude")
    assert drawn == any((intervene(tall, kind, 0.4, seed=seed) != changed).any() for seed in range(6))


@pytest.mark.parametrize("strength", [0.04, 0.25, 0.36, 0.64, 0.81])
def test_the_hidden_area_is_the_strength(strength):
    """Sides of 60 x 40, of which these strengths are whole squares; no seed leaves the image."""
    for seed in range(8):
        hidden = (intervene(np.zeros((60, 40, 3), np.uint8), "occlude", strength, seed=seed) == 128).all(-1)
        assert hidden.mean() == pytest.approx(strength, abs=1e-12)
        rows, columns = np.flatnonzero(hidden.any(1)), np.flatnonzero(hidden.any(0))
        assert len(rows) * len(columns) == hidden.sum()  # one rectangle
        assert (np.diff(rows) == 1).all()
        assert (np.diff(columns) == 1).all()


@pytest.mark.parametrize("strength", [0.25, 0.5, 0.75])
def test_a_crop_shows_the_middle(strength):
    """A ramp that is cropped keeps its middle and loses that share of its range."""
    seen = intervene(ramp(), "crop", strength)[..., 0].astype(float)
    middle = seen[:, 4:-4].mean(0)
    slope = np.polyfit(np.arange(len(middle)), middle, 1)[0]
    assert slope == pytest.approx((1 - strength) * 160 / 63, rel=0.03)
    assert seen.mean() == pytest.approx(120, abs=0.6)
    dot = np.zeros((64, 64, 3), np.uint8)
    dot[:4] = 255  # what lies at the rim is cut off
    assert (intervene(dot, "crop", strength) == 0).all()


def test_noise_has_its_standard_deviation_and_no_mean():
    grey = np.full((200, 200, 3), 128, np.uint8)
    change = intervene(grey, "noise", 0.1).astype(float) - 128
    assert abs(change.mean()) < 4 * 16 / np.sqrt(change.size)
    assert change.std() == pytest.approx(
        16, rel=4 / np.sqrt(2 * change.size) + 1e-3
    )  # rounding adds 1/12 to the variance


def test_a_blur_spreads_an_edge_by_its_standard_deviation():
    """The derivative of a blurred edge is the kernel; Pillow's is made of boxes, so it is near the normal one."""
    edge = np.zeros((96, 96, 3), np.uint8)
    edge[:, 48:] = 255
    step = np.diff(intervene(edge, "blur", 0.5)[48, :, 0].astype(float)) / 255
    place = np.arange(len(step))
    mean = (step * place).sum()
    assert np.sqrt((step * (place - mean) ** 2).sum()) == pytest.approx(0.5 * 96 / 8, rel=0.05)


def test_extremes_are_images_too():
    tiny = np.asarray(Image.fromarray(ramp()).resize((5, 4)))
    for kind in INTERVENTIONS:
        assert intervene(tiny, kind, 0.999).shape == tiny.shape


def test_what_cannot_be_done_is_refused(unchecked, images):
    with pytest.raises(ValueError, match="unknown intervention 'smear'; choose from crop, blur, noise, occlude"):
        intervene(images[0], "smear", 0.5)
    for strength in (1, -0.1, float("nan"), 40):
        with pytest.raises(ValueError, match=r"strength must (lie in \[0, 1\)|be a number)"):
            intervene(images[0], "blur", strength)
    with pytest.raises(TypeError, match="image must be uint8"):
        intervene(images[0] / 255, "blur", 0.5)
    with pytest.raises(ValueError, match=r"image must have shape \(h, w, 3\); it is \(48, 64\). Grey?"):
        intervene(images[0][..., 0], "blur", 0.5)
