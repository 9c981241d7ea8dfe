"""Images as timm prepares them."""

import re

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn

from uqlib.images import Files
from uqlib.networks import Preprocessing, create, grey_pixels, preprocess, preprocessing

PLAIN = Preprocessing(32, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


pytestmark = pytest.mark.usefixtures("no_folder_of_weights")


def test_preprocessing_comes_from_the_networks_configuration():
    model = create("resnet10t", weights=None)
    cfg = model.default_cfg
    assert preprocessing(model) == Preprocessing(
        cfg["input_size"][1], cfg["mean"], cfg["std"], cfg["interpolation"], cfg["crop_pct"], cfg["crop_mode"]
    )
    assert preprocessing(model, size=32, crop_pct=1.0).size == 32
    assert str(PLAIN) == "size=32 mean=0.5,0.4,0.3 std=0.2,0.25,0.3 interpolation=bilinear crop_pct=1 crop_mode=center"
    with pytest.raises(ValueError, match="Linear has no timm configuration"):
        preprocessing(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="unknown interpolation 'lanczos'; choose from bilinear, bicubic"):
        preprocessing(model, interpolation="lanczos")
    with pytest.raises(ValueError, match="unknown crop_mode 'border'; choose from center, squash"):
        preprocessing(model, crop_mode="border")


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("size", "crop_pct", "crop_mode"), [(32, 0.875, "center"), (96, 0.9, "center"), (24, 1.0, "squash")]
)
def test_preprocess_is_timms_evaluation(images, interpolation, size, crop_pct, crop_mode):
    ours = Preprocessing(size, PLAIN.mean, PLAIN.std, interpolation, crop_pct, crop_mode)
    timms = timm.data.create_transform(
        (3, size, size),
        interpolation=interpolation,
        mean=PLAIN.mean,
        std=PLAIN.std,
        crop_pct=crop_pct,
        crop_mode=crop_mode,
    )
    expected = torch.stack([timms(Image.fromarray(image)) for image in images])
    grey_level = 1 / (255 * min(PLAIN.std))
    difference = (preprocess(images, ours) - expected).abs()
    assert difference.max() <= 1.01 * grey_level  # PIL and torch round the weights of the filter differently
    assert difference.mean() <= 0.1 * grey_level


def test_preprocess_without_resizing_equals_torchvision_bit_for_bit():
    images = np.arange(256, dtype=np.uint8).repeat(12).reshape(1, 32, 32, 3)
    timms = timm.data.create_transform((3, 32, 32), mean=PLAIN.mean, std=PLAIN.std, crop_pct=1.0)
    assert torch.equal(preprocess(images, PLAIN)[0], timms(Image.fromarray(images[0])))


def test_preprocess_takes_lists_of_any_sizes_and_memory_maps(images, tmp_path):
    cropped = [images[0], images[1][:40], torch.from_numpy(images[2][:, :50].copy())]
    batch = preprocess(cropped, PLAIN)
    assert torch.equal(batch[1], preprocess(images[1:2, :40], PLAIN)[0])
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    assert torch.equal(preprocess(mapped, PLAIN), preprocess(images, PLAIN))


def test_nearest_keeps_the_pixels():
    image = np.arange(12, dtype=np.uint8).reshape(1, 2, 2, 3)
    nearest = PLAIN._replace(size=4, interpolation="nearest", mean=(0.0,) * 3, std=(1.0,) * 3)
    expected = image.repeat(2, 1).repeat(2, 2).transpose(0, 3, 1, 2) / 255
    assert np.array_equal(preprocess(image, nearest).numpy(), expected.astype(np.float32))


def test_preprocess_refuses_floats_and_wrong_axes(images):
    with pytest.raises(TypeError, match=r"images must be uint8 with values 0 to 255; they are float32"):
        preprocess(images.astype(np.float32), PLAIN)
    with pytest.raises(ValueError, match=r"shape \(n, h, w, 3\); it is \(3, 3, 48, 64\)"):
        preprocess(images.transpose(0, 3, 1, 2), PLAIN)


def test_pil_and_torch_differ_by_two_levels_at_most():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8))
    smooth = np.asarray(image.resize((375, 500), Image.Resampling.BICUBIC))
    timms = timm.data.create_transform(
        (3, 299, 299), interpolation="bicubic", mean=(0,) * 3, std=(1,) * 3, crop_pct=0.875
    )
    ours = preprocess(smooth[None], Preprocessing(299, (0.0,) * 3, (1.0,) * 3, "bicubic", 0.875))[0]
    levels = (255 * (ours - timms(Image.fromarray(smooth))).abs()).round()
    assert levels.max() == 2
    assert (levels > 1).float().mean() < 1e-4


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"crop_pct": 1.25}, ValueError, r"crop_pct must lie in \(0, 1\].* it is 1.25.*pass crop_pct=1.0"),
        ({"crop_pct": 0}, ValueError, "crop_pct must be a finite number above 0; it is 0"),
        ({"crop_pct": float("nan")}, ValueError, "crop_pct"),
        ({"crop_pct": "0.9"}, TypeError, "crop_pct must be a finite number above 0; it is '0.9'"),
        ({"size": 32.0}, TypeError, "size must be a whole number"),
        ({"size": 0}, ValueError, "size must be a whole number of at least 1; it is 0"),
        ({"size": (32, 32)}, TypeError, "size must be a whole number"),
        ({"std": (0.2, 0.0, 0.2)}, ValueError, r"std\[1\] must be a finite number above 0; it is 0.0"),
        ({"std": (0.2, 0.2)}, ValueError, "mean and std must be tuples, one number a colour"),
        ({"std": 0.2}, ValueError, "mean and std must be tuples, one number a colour"),
        ({"mean": (0.5, float("nan"), 0.5)}, ValueError, r"mean\[1\] must be a finite number; it is nan"),
        (
            {"mean": (123.7, 116.3, 103.5)},
            ValueError,
            r"mean\[0\] must lie in \[-1, 1\].* it is 123.7. 0 to 255\? Divide",
        ),
    ],
)
def test_preprocessing_that_is_none_is_refused(images, change, error, message, unchecked):
    with pytest.raises(error, match=message):
        preprocess(images, PLAIN._replace(**change))
    with pytest.raises(error, match=message):
        preprocessing(create("cifar_resnet20", weights=None), **change)


def test_a_network_that_timm_pads_for_says_what_to_do():
    model = create("cifar_resnet20", weights=None)
    model.pretrained_cfg["crop_pct"] = 1.15  # as that of volo_d5_512
    with pytest.raises(ValueError, match=r"it is 1.15.* pass crop_pct=1.0"):
        preprocessing(model)
    assert preprocessing(model, crop_pct=1.0).crop_pct == 1.0


@pytest.mark.parametrize("torches", [False, True])
@pytest.mark.parametrize(
    "given",
    [
        np.linspace(0, 1, 2 * 32 * 33 * 3).reshape(2, 32, 33, 3),
        np.arange(2 * 32 * 33 * 3).reshape(2, 32, 33, 3) % 256,
        np.linspace(0, 65535, 2 * 32 * 33 * 3).reshape(2, 32, 33, 3).astype(np.uint16),
        np.zeros((2, 3, 32, 33), np.uint8),
        np.zeros((2, 32, 33), np.uint8),
        np.zeros((32, 33, 3), np.uint8),
    ],
)
def test_what_is_no_image_gets_advice_that_works(given, torches, unchecked):
    images = torch.from_numpy(given) if torches else given
    with pytest.raises((TypeError, ValueError)) as error:
        preprocess(images, PLAIN)
    advice = re.search(r"Pass (images.*|\(.*|np.*)\.$", str(error.value))[1]
    assert preprocess(eval(advice, {"np": np, "images": images}), PLAIN).shape[1:] == (3, 32, 32)
    with pytest.raises((TypeError, ValueError), match=r"images\[1\] must "):
        preprocess([np.zeros((32, 32, 3), np.uint8), images[0] if given.ndim > 3 else given[0]], PLAIN)


def test_preprocess_takes_strides_and_files(images, tmp_path):
    expected = preprocess(images, PLAIN)
    for strided in (images[::-1][::-1], np.asfortranarray(images), np.repeat(images, 2, 2)[:, :, ::2]):
        assert torch.equal(preprocess(strided, PLAIN), expected)
    for k, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f"{k}.png")
    assert torch.equal(preprocess(Files([tmp_path / f"{k}.png" for k in range(3)]), PLAIN), expected)
    for nothing in ([], (), images[:0], Files([])):
        with pytest.raises(ValueError, match="images is empty; at least one image is needed"):
            preprocess(nothing, PLAIN)


def test_a_thread_of_an_image_does_not_fill_the_memory():
    with pytest.raises(ValueError, match="images of 1 x 1000000 pixels would become 32 x 32000000"):
        preprocess(np.zeros((1, 1, 10**6, 3), np.uint8), PLAIN)
    with pytest.raises(ValueError, match="images must have pixels; they are 0 x 5"):
        preprocess(np.zeros((1, 0, 5, 3), np.uint8), PLAIN)


def test_grey_pixels_are_the_images_themselves():
    images = np.random.default_rng(0).integers(0, 256, (300, 8, 8, 3), dtype=np.uint8)
    assert grey_pixels(images).numpy() == pytest.approx(images.mean(-1).reshape(300, 64) / 255, abs=1e-6)
