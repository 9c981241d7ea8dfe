"""Corruptions against imagecorruptions (a port of the same generators), OpenCV, SciPy, Pillow and closed forms."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage
from sklearn.datasets import load_sample_image

from uqlib.images import Files, corruptions, load_images, pixels_digest
from uqlib.images.corruptions import (
    BLUR,
    CIFAR_SEVERITIES,
    CONSTANTS,
    CORRUPTIONS,
    DIGITAL,
    EXTRA,
    IMAGENET_SEVERITIES,
    NOISE,
    WEATHER,
    blur,
    corrupt,
    digital,
    stacks,
    weather,
)

oracle = pytest.mark.filterwarnings("ignore")  # imagecorruptions and what it imports warn freely

SAME = (
    "defocus_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
    "gaussian_blur",
    "saturate",
)
RANDOM = tuple(name for name in CORRUPTIONS if name not in SAME)


@pytest.fixture(scope="module")
def large():
    """Four crops of 128 pixels of two photographs."""
    china, flower = load_sample_image("china.jpg"), load_sample_image("flower.jpg")
    crops = [china[80:208, 100:228], china[180:308, 380:508], flower[120:248, 180:308], flower[40:168, 420:548]]
    return np.stack(crops)


@pytest.fixture(scope="module")
def small():
    """The photographs in forty pieces of 32 pixels, after shrinking by three: as much detail a pixel as in CIFAR."""
    photos = [
        Image.fromarray(load_sample_image(name)).resize((212, 140), Image.BOX) for name in ("china.jpg", "flower.jpg")
    ]
    return np.stack(
        [np.asarray(p)[r : r + 32, c : c + 32] for p in photos for r in (0, 32, 64, 96) for c in range(0, 160, 32)]
    )


def change(new, old):
    return new.astype(float) - old


# ------------------------------------------------------------------------------------------ against other people's code


@oracle
@pytest.mark.parametrize("severity", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", SAME)
def test_what_has_no_randomness_equals_imagecorruptions(large, name, severity):
    reference = pytest.importorskip("imagecorruptions")
    expected = np.stack([reference.corrupt(image, severity, name) for image in large])
    difference = np.abs(change(corrupt(large, name, severity, constants="imagenet"), expected))
    assert difference.max() <= 1  # both cut fractions off, so rounding in float32 can cost one level
    assert difference.mean() <= 0.15  # saturate at severity 3 meets whole numbers often; the others stay below 0.03


# relative difference of the root mean square change. What noise draws on every value hardly varies between runs; a
# handful of streaks, clouds or drops on four images does
BANDS = {"gaussian_noise": 0.01, "shot_noise": 0.02, "impulse_noise": 0.03, "speckle_noise": 0.02, "glass_blur": 0.03}
BANDS |= {"motion_blur": 0.15, "snow": 0.1, "fog": 0.25, "spatter": 0.2}


@oracle
@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("name", BANDS)
def test_what_is_random_changes_as_much_as_in_imagecorruptions(large, name, severity):
    reference = pytest.importorskip("imagecorruptions")
    np.random.seed(0)
    images = np.tile(large, (4, 1, 1, 1))
    theirs = change(np.stack([reference.corrupt(image, severity, name) for image in images]), images)
    ours = change(corrupt(images, name, severity, constants="imagenet"), images)
    assert (ours**2).mean() ** 0.5 == pytest.approx((theirs**2).mean() ** 0.5, rel=BANDS[name])
    assert ours.mean() == pytest.approx(theirs.mean(), abs=BANDS[name] * (theirs**2).mean() ** 0.5)


@oracle
def test_plasma_equals_the_reference_on_the_same_random_numbers():
    reference = pytest.importorskip("imagecorruptions.corruptions")
    for side, decay in [(32, 3.0), (64, 1.75), (128, 1.4)]:
        np.random.seed(side)
        expected = reference.plasma_fractal(side, decay)
        ours = weather._plasma(np.random.RandomState(side).uniform(-1, 1, (1, side, side)), decay)[0]
        np.testing.assert_allclose(ours, expected, atol=1e-5)  # theirs adds up in float32


@oracle
@pytest.mark.parametrize("degrees", [-135.0, -61.3, -45.0, 0.0, 17.2, 45.0])
def test_smear_equals_the_reference(large, degrees):
    reference = pytest.importorskip("imagecorruptions.corruptions")
    expected = reference._motion_blur(large[0].astype(float), 10, 3.0, degrees)
    ours = stacks.smear(large[:1].astype(np.float32), 10, 3.0, np.array([degrees]))[0]
    np.testing.assert_allclose(ours, expected, atol=0.01)  # weights below 1e-6 are left out


@pytest.mark.parametrize("sigma", [0.7, 1.0, 2.0, 4.0])
def test_edges_equal_opencvs_canny(sigma):
    cv2 = pytest.importorskip("cv2")
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((3, 64, 64)), (0, sigma, sigma))
    field = np.where(noise > 0.5 * noise.std(), 160 + 20 * noise / noise.std(), 0).astype(np.uint8)
    expected = np.stack([cv2.Canny(f, 50, 150) > 0 for f in field])
    assert expected.any()
    np.testing.assert_array_equal(weather._edges(field.astype(np.float32), 50, 150), expected)


@oracle
def test_relief_equals_opencv():
    cv2 = pytest.importorskip("cv2")
    edges = np.random.default_rng(0).random((4, 48, 48)) < np.array([0.1, 0.01, 0.001, 0])[:, None, None]
    kernel = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    ours = weather._relief(edges)
    for edge, relief in zip(edges[:3], ours[:3], strict=True):
        far = cv2.distanceTransform(np.uint8(255 * ~edge), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        far = cv2.blur(np.minimum(far, 20), (3, 3)).astype(np.uint8)
        expected = cv2.blur(cv2.filter2D(cv2.equalizeHist(far), cv2.CV_8U, kernel), (3, 3))
        np.testing.assert_array_equal(relief, expected)
    assert not ours[3].any()  # no drop, no light; the generators divide by 0 here


@oracle
@pytest.mark.parametrize("name", ["frost1.png", "frost2.png", "frost3.png", "frost4.jpg", "frost5.jpg"])
def test_the_ice_has_the_colours_of_the_photographs(name):
    reference = pytest.importorskip("imagecorruptions")
    with Image.open(f"{reference.__path__[0]}/frost/{name}") as image:
        colours = np.asarray(image.convert("RGB")).reshape(-1, 3)
    for sheet in (weather._frost_sheets(shrink)[int(name[5]) - 1].reshape(-1, 3) for shrink in (1, 5)):
        np.testing.assert_allclose(sheet.mean(0), colours.mean(0), atol=4)  # a fifth of the pixels: other clouds
        np.testing.assert_allclose(sheet.std(0), colours.std(0), rtol=0.1)


def test_pixelate_equals_pillow_on_images_that_are_not_square(large):
    images = large[:, :96, :64]  # no block ends in the middle of a pixel, where Pillow's rounding would decide
    for severity, share in enumerate(IMAGENET_SEVERITIES["pixelate"], 1):
        for image, ours in zip(images, corrupt(images, "pixelate", severity, constants="imagenet"), strict=True):
            coarse = Image.fromarray(image).resize((int(64 * share), int(96 * share)), Image.BOX)
            np.testing.assert_array_equal(ours, np.asarray(coarse.resize((64, 96), Image.BOX)))


@pytest.mark.parametrize("factor", [1.0, 1.01, 1.06, 1.25, 1.75, 2.25, 3.0, 4.5])
@pytest.mark.parametrize("side", [32, 47, 96])
def test_enlarge_equals_scipy_on_the_middle(large, side, factor):
    x = large[:1, :side, :side].astype(np.float64)
    crop = int(np.ceil(side / factor))
    top = (side - crop) // 2
    zoomed = ndimage.zoom(x[0, top : top + crop, top : top + crop], (factor, factor, 1), order=1)
    trim = (len(zoomed) - side) // 2
    expected = zoomed[trim : trim + side, trim : trim + side]
    np.testing.assert_allclose(stacks.enlarge(x, factor)[0], expected, atol=1e-3)  # shares are float32


@pytest.mark.parametrize(("edge", "mode"), [(0, "mirror"), (1, "reflect")])
def test_sample_equals_scipy(large, edge, mode):
    where = np.random.default_rng(0).uniform(-150, 300, (2, 4, 40, 50))
    images = large[:, :40, :50].astype(np.float32)
    ours = digital._sample(images, *where, edge)
    for i, colour in np.ndindex(4, 3):
        expected = ndimage.map_coordinates(images[i, :, :, colour].astype(float), where[:, i], order=1, mode=mode)
        np.testing.assert_allclose(ours[i, :, :, colour], expected, atol=1e-2)  # shares in float32 of up to 255


# ------------------------------------------------------------------------------------ against closed forms, brute force


def test_affine_sends_the_moved_corners_to_where_they_were():
    grid = np.indices((30, 40)).astype(float)
    moved = np.array([[[2.0, -3.0], [0.0, 4.0], [-5.0, 1.0]]])
    rows, columns = digital._affine(moved, grid)
    for corner, shift in zip([(25, 30), (5, 30), (5, 10)], moved[0], strict=True):
        at = tuple((np.array(corner) + shift).astype(int))
        assert (rows[0][at], columns[0][at]) == pytest.approx(corner, abs=1e-9)


@pytest.mark.parametrize(("table", "severity"), [("imagenet", 1), ("imagenet", 5), ("cifar", 1), ("cifar", 4)])
def test_frost_is_a_weighted_sum_of_image_and_ice(table, severity):
    image_share, ice_share, _ = CONSTANTS[table]["frost"][severity - 1]
    black, grey = (corrupt(np.full((200, 32, 32, 3), g, np.uint8), "frost", severity, constants=table) for g in (0, 40))
    np.testing.assert_allclose(grey - black.astype(float), 40 * image_share, atol=1)  # two fractions cut off
    mean = np.mean([mean for mean, _ in weather._FROST_COLOURS], 0)  # each sheet as likely as the others
    error = ice_share * 60 / 200**0.5  # colours of sheets and clouds vary by less than 60 from image to image
    np.testing.assert_allclose(black.mean((0, 1, 2)) + 0.5, ice_share * mean, atol=3 * error)


def test_fog_is_haze_between_nothing_and_all_of_its_strength():
    for grey in (60, 255):
        thickness = 255 * CIFAR_SEVERITIES["fog"][4][0]
        image = corrupt(np.full((1, 32, 32, 3), grey, np.uint8), "fog", 5)
        assert image.max() == grey
        assert image.min() == int(grey * grey / (grey + thickness))


def test_motion_is_mostly_horizontal_and_snow_falls_mostly_down():
    lines = np.random.default_rng(0).integers(0, 256, (100, 32, 1, 1), np.uint8) * np.ones((32, 3), np.uint8)
    lying, standing = lines, lines.swapaxes(1, 2)
    kept = [change(corrupt(x, "motion_blur", 5), 0).std() for x in (lying, standing)]
    assert kept[0] > 1.25 * kept[1]  # lines along the motion stay
    flakes = corrupt(np.zeros((100, 32, 32, 3), np.uint8), "snow", 3)[..., 0].astype(float)
    assert np.diff(flakes, axis=2).std() > 1.25 * np.diff(flakes, axis=1).std()
    np.testing.assert_array_equal(flakes, flakes[:, ::-1, ::-1])  # the layer is laid on twice, once turned round


@pytest.mark.parametrize("sigma", [0, 2.44, 60.0])
def test_displacements_equal_scipys_gaussian_filter(sigma):
    noise = np.random.default_rng(0).uniform(-1, 1, (2, 2, 30, 41))
    expected = 7 * ndimage.gaussian_filter(noise, (0, 0, sigma, sigma), mode="reflect", truncate=3)
    np.testing.assert_allclose(digital._shiver(noise, 7, sigma), expected.swapaxes(0, 1), atol=1e-12)


def test_elastic_displacements_have_the_spread_of_smoothed_noise():
    alpha, sigma, _ = IMAGENET_SEVERITIES["elastic_transform"][4]
    ramp = np.repeat(np.arange(60, 188, dtype=np.uint8)[:, None, None], 128, 1) * np.ones(3, np.uint8)
    ramp = np.stack([ramp, ramp.swapaxes(0, 1)])  # a grey level a pixel, downwards and to the right
    plane = np.stack([np.ones(96 * 96), *np.indices((96, 96)).reshape(2, -1)], 1)
    for image in corrupt(ramp, "elastic_transform", 5, constants="imagenet")[:, 16:112, 16:112, 0]:
        level = image.ravel().astype(float)
        residue = level - plane @ np.linalg.lstsq(plane, level)[0]  # what the affine map does not explain
        # uniform noise has variance 1/3, of which a Gaussian keeps 1 / (4 pi sigma^2)
        assert residue.std() == pytest.approx(alpha * (1 / 3 / (4 * np.pi * sigma**2)) ** 0.5, rel=0.15)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 4), st.integers(8, 15), st.integers(8, 15), st.integers(0, 2**32 - 1))
def test_neighbours_are_copied_as_if_one_by_one(reach, height, width, seed):
    rng = np.random.default_rng(seed)
    x = rng.random((2, height, width, 3))
    steps = rng.integers(-reach, reach, (2, height - 2 * reach, width - 2 * reach, 2))
    expected = x.copy()
    for image in range(2):
        for i, h in enumerate(range(height - reach, reach, -1)):
            for j, w in enumerate(range(width - reach, reach, -1)):
                down, right = steps[image, i, j]
                expected[image, h, w] = expected[image, h + down, w + right]
    np.testing.assert_array_equal(blur._copy_neighbours(x.copy(), steps, reach), expected)


@pytest.mark.parametrize("table", ["imagenet", "cifar"])
def test_noise_has_the_variance_of_its_formula(table):
    grey = np.full((40, 32, 32, 3), 128, np.uint8)
    tolerance = 5 * (2 / grey.size) ** 0.5  # five standard errors of a variance
    share = 128 / 255
    for severity in (1, 2):  # without clipping: mid-grey and little noise
        for name, variance in [
            ("gaussian_noise", CONSTANTS[table]["gaussian_noise"][severity - 1] ** 2),
            ("speckle_noise", (share * CONSTANTS[table]["speckle_noise"][severity - 1]) ** 2),
            ("shot_noise", share / CONSTANTS[table]["shot_noise"][severity - 1]),
            ("impulse_noise", CONSTANTS[table]["impulse_noise"][severity - 1] * (share**2 + (1 - share) ** 2) / 2),
        ]:
            noise = corrupt(grey, name, severity, constants=table) / 255
            # rare events: the fourth moment of salt and pepper is larger
            rel = tolerance * (8 if name == "impulse_noise" else 1.5)
            assert noise.var() == pytest.approx(variance + (1 / 255) ** 2 / 12 * (name == "gaussian_noise"), rel=rel)


def test_black_and_white_images_come_through_everything():
    flat = np.stack([np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)])
    for name in CORRUPTIONS:
        for severity in (1, 5):
            corrupt(flat, name, severity)  # warnings of division or overflow would be errors
    for name in (*BLUR, "contrast", "pixelate", "elastic_transform", "jpeg_compression"):
        np.testing.assert_array_equal(corrupt(flat, name, 3), flat)


# a mean squared change that need not grow, and why: see the top of uqlib/images/corruptions/__init__.py
FALLS = {
    ("elastic_transform", "cifar"): "bends less and shivers more",
    ("elastic_transform", "imagenet"): "two kinds of distortion",
    ("frost", "cifar"): "dims the image as it adds ice",
    ("frost", "imagenet"): "dims the image as it adds ice",
    ("glass_blur", "cifar"): "sigma, not the number of copies, falls from 3 to 4",
    ("glass_blur", "imagenet"): "reach and rounds alternate",
    ("motion_blur", "cifar"): "severities 3 and 4 are the same",
    ("saturate", "cifar"): "less colour, then more",
    ("saturate", "imagenet"): "less colour, then more",
    ("snow", "imagenet"): "2 has finer flakes, 3 has more",
    ("spatter", "cifar"): "water, then mud",
    ("spatter", "imagenet"): "water, then mud",
}


@pytest.mark.parametrize("table", ["cifar", "imagenet"])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_distortion_grows_with_severity(small, large, name, table):
    images = small if table == "cifar" else large
    error = [(change(corrupt(images, name, s, constants=table), images) ** 2).mean() for s in range(1, 6)]
    assert min(error) > 1
    if (name, table) not in FALLS:
        assert sorted(error) == error, error
    elif name in ("saturate", "spatter"):
        middle = {"saturate": 2, "spatter": 3}[name]
        assert sorted(error[:middle]) == error[:middle]
        assert sorted(error[middle:]) == error[middle:]


def test_motion_blur_of_cifar_is_the_same_at_severities_3_and_4(small):
    np.testing.assert_array_equal(corrupt(small, "motion_blur", 3), corrupt(small, "motion_blur", 4))


# -------------------------------------------------------------------------------------------- what the caller relies on


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_an_image_is_corrupted_alike_in_any_batch(small, large, name, monkeypatch):
    for images, table in [(small, "cifar"), (large[:, :70, :65], "imagenet"), (small[:, :17], "imagenet")]:
        whole = corrupt(images, name, 4, seed=3, constants=table)
        assert whole.dtype == np.uint8
        assert whole.shape == images.shape
        for i in (0, 3):
            np.testing.assert_array_equal(corrupt(images[[i]], name, 4, seed=3, rows=[i], constants=table)[0], whole[i])
        some = np.array([2, 0])
        np.testing.assert_array_equal(corrupt(images[some], name, 4, seed=3, rows=some, constants=table), whole[some])
        monkeypatch.setattr(corruptions, "_CHUNK", 3 * images[0].size)
        np.testing.assert_array_equal(corrupt(images, name, 4, seed=3, constants=table), whole)
        monkeypatch.undo()


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_the_seed_matters_where_something_is_random(small, name):
    before = small.copy()
    one, two = corrupt(small, name, 5, seed=0), corrupt(small, name, 5, seed=1)
    assert (one != two).any() == (name in RANDOM)
    assert (one == corrupt(small, name, 5)).all()
    np.testing.assert_array_equal(small, before)


def test_images_of_one_batch_get_different_noise():
    grey = np.full((8, 32, 32, 3), 128, np.uint8)
    for name in ("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "snow", "frost", "fog", "spatter"):
        assert len({image.tobytes() for image in corrupt(grey, name, 5)}) == 8
    noise = [corrupt(grey, name, 1).ravel() for name in ("gaussian_noise", "speckle_noise")]
    assert abs(np.corrcoef(*noise)[0, 1]) < 5 / grey.size**0.5  # nor do two corruptions share their numbers


def test_auto_takes_the_constants_of_cifar_up_to_64_pixels(large):
    for side, table in [(64, "cifar"), (65, "imagenet")]:
        images = large[:, :32, :side]
        np.testing.assert_array_equal(corrupt(images, "contrast", 1), corrupt(images, "contrast", 1, constants=table))
        other = "imagenet" if table == "cifar" else "cifar"
        assert (corrupt(images, "contrast", 1) != corrupt(images, "contrast", 1, constants=other)).any()


def test_tables_and_groups_cover_the_corruptions():
    assert (*NOISE, *BLUR, *WEATHER, *DIGITAL, *EXTRA) == tuple(CORRUPTIONS)
    for table in (IMAGENET_SEVERITIES, CIFAR_SEVERITIES):
        assert tuple(table) == tuple(CORRUPTIONS)
        assert {len(constants) for constants in table.values()} == {5}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"name": "rain"}, ValueError, "unknown corruption 'rain'; choose from gaussian_noise, shot_noise,"),
        ({"severity": 0}, ValueError, "severity must be 1, 2, 3, 4 or 5; it is 0"),
        ({"severity": 6}, ValueError, "severity must be 1, 2, 3, 4 or 5; it is 6"),
        ({"constants": "svhn"}, ValueError, "unknown constants 'svhn'; choose from auto, imagenet, cifar"),
        ({"rows": [0]}, ValueError, "rows has 1 entries for 2 images"),
        ({"rows": [0, -2]}, ValueError, "at least 0; they are 0 and, at the least, -2"),
        ({"seed": -1}, ValueError, "at least 0; they are -1"),
        ({"images": np.zeros((2, 32, 32, 3), np.float32)}, TypeError, "must be uint8 .* they are float32"),
        ({"severity": 3.0}, TypeError, r"severity must be a whole number; it is 3.0 \(float\)"),
        ({"severity": "3"}, TypeError, "severity must be a whole number; it is '3'"),
        ({"severity": True}, TypeError, "severity must be a whole number; it is True"),
        ({"severity": np.array([3])}, TypeError, "severity must be a whole number"),
        ({"severity": None}, TypeError, "severity must be a whole number; it is None"),
        ({"seed": None}, TypeError, "seed must be a whole number; it is None"),
        ({"seed": 1.5}, TypeError, "seed must be a whole number; it is 1.5"),
        ({"rows": [0.0, 1.5]}, TypeError, "rows must be whole numbers, one an image; they are torch.float64"),
        ({"rows": [True, False]}, TypeError, "rows must be whole numbers"),
        ({"images": []}, ValueError, "images is empty"),
        ({"images": [np.zeros((32, 32), np.uint8)]}, ValueError, r"images\[0\] must have shape"),
        ({"images": [np.zeros((32, 1, 3), np.uint8)]}, ValueError, r"images\[0\] must have h, w >= 8"),
        ({"images": None}, TypeError, "images"),
        ({"images": np.zeros((2, 3, 32, 32), np.uint8)}, ValueError, r"it is \(2, 3, 32, 32\). Channels first"),
        ({"images": np.zeros((32, 32, 3), np.uint8)}, ValueError, r"it is \(32, 32, 3\)"),
        ({"images": np.zeros((0, 32, 32, 3), np.uint8)}, ValueError, "images is empty"),
        ({"images": np.zeros((2, 7, 32, 3), np.uint8)}, ValueError, "h, w >= 8"),
    ],
)
def test_bad_input_is_refused(change, error, message, unchecked):
    arguments = {"images": np.zeros((2, 32, 32, 3), np.uint8), "name": "fog", "severity": 1} | change
    with pytest.raises(error, match=message):
        corrupt(arguments.pop("images"), arguments.pop("name"), arguments.pop("severity"), **arguments)


@pytest.mark.parametrize(
    ("severity", "seed", "rows"),
    [
        (np.int64(3), np.uint8(7), (4, 2)),
        (np.array(3), torch.tensor(7), torch.tensor([4, 2])),
        (3, 7, np.uint16([4, 2])),
    ],
)
def test_numbers_of_every_whole_kind_are_taken(small, severity, seed, rows, unchecked):
    np.testing.assert_array_equal(
        corrupt(small[:2], "fog", severity, seed=seed, rows=rows), corrupt(small[:2], "fog", 3, seed=7, rows=[4, 2])
    )


@pytest.mark.parametrize("name", ["fog", "jpeg_compression", "contrast"])
def test_tensors_lists_and_files_are_corrupted_like_arrays(small, name, tmp_path):
    expected = corrupt(small[:3], name, 2, seed=5, rows=[7, 1, 9])
    given = torch.from_numpy(small[:3])
    said = corrupt(given, name, 2, seed=5, rows=[7, 1, 9])
    assert torch.equal(said, torch.from_numpy(expected))
    for kind in (list(small[:3]), tuple(given), [small[0], given[1], small[2]]):
        np.testing.assert_array_equal(corrupt(kind, name, 2, seed=5, rows=[7, 1, 9]), expected)
    for k in range(3):
        Image.fromarray(small[k]).save(tmp_path / f"{k}.png")
    files = corrupt(Files([tmp_path / f"{k}.png" for k in range(3)]), name, 2, seed=5, rows=[7, 1, 9])
    assert len(files) == 3
    np.testing.assert_array_equal(files[:], expected)
    np.testing.assert_array_equal(files.select([2, 0])[:], expected[[2, 0]])
    for strided in (np.asfortranarray(small[:3]), small[2::-1][::-1], np.repeat(small[:3], 2, 2)[:, :, ::2]):
        np.testing.assert_array_equal(corrupt(strided, name, 2, seed=5, rows=[7, 1, 9]), expected)


def test_images_of_several_sizes_have_one_table_of_constants(large, small):
    sizes = [large[0], large[1][:70, :90], large[2][:100]]
    for said, image in zip(corrupt(sizes, "contrast", 1), sizes, strict=True):
        np.testing.assert_array_equal(said, corrupt(image[None], "contrast", 1, constants="imagenet")[0])
    with pytest.raises(
        ValueError, match=r"from 32 pixels \(row 1\) to 128 \(row 0\), and constants='auto' changes at 64"
    ):
        corrupt([large[0], small[0]], "contrast", 1)
    both = corrupt([large[0], small[0]], "contrast", 1, constants="imagenet")
    np.testing.assert_array_equal(both[1], corrupt(small[:1], "contrast", 1, constants="imagenet")[0])


def test_a_folder_is_corrupted_when_asked_and_known_by_its_pixels(large, tmp_path, monkeypatch):
    monkeypatch.setenv("UQLIB_CACHE", str(tmp_path / "cache"))
    for k, image in enumerate(large):
        path = tmp_path / "photos" / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[: 128 - k]).save(path)
    clean = load_images(f"folder:{tmp_path / 'photos'}")
    sets = [
        clean.with_images(corrupt(clean.images, "fog", s, rows=clean.index), name="photos_c", split=f"fog-{s}")
        for s in (1, 2)
    ]
    assert len({clean.digest, *(each.digest for each in sets)}) == 3
    assert sets[0].digest == pixels_digest([*sets[0].images])
    part = clean.select([3, 1])
    again = corrupt(part.images, "fog", 2, rows=part.index)
    np.testing.assert_array_equal(again[0], sets[1].images[3])
    np.testing.assert_array_equal(sets[1].select([3, 1]).images[0], again[0])


KINDS = {
    "floats in [0, 1]": np.linspace(0, 1, 2 * 9 * 9 * 3).reshape(2, 9, 9, 3),
    "floats up to 255": np.linspace(0, 255, 2 * 9 * 9 * 3, dtype=np.float32).reshape(2, 9, 9, 3),
    "whole numbers": np.arange(2 * 9 * 9 * 3).reshape(2, 9, 9, 3) % 256,
    "16 bits": np.linspace(0, 65535, 2 * 9 * 9 * 3).reshape(2, 9, 9, 3).astype(np.uint16),
    "channels first": np.zeros((2, 3, 9, 9), np.uint8),
    "one image": np.zeros((9, 10, 3), np.uint8),
    "grey": np.zeros((2, 9, 10), np.uint8),
    "grey with an axis": np.zeros((2, 9, 10, 1), np.uint8),
    "transparency": np.zeros((2, 9, 10, 4), np.uint8),
}


@pytest.mark.parametrize("torches", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_advice_works_when_followed(kind, torches, unchecked):
    images = torch.from_numpy(KINDS[kind]) if torches else KINDS[kind]
    with pytest.raises((TypeError, ValueError)) as error:
        corrupt(images, "contrast", 1)
    advice = re.search(r"[Pp]ass (images.*|\(.*|np.*)\.$", str(error.value))[1]
    better = eval(advice, {"np": np, "images": images})
    said = corrupt(better, "contrast", 1)
    assert type(said) is (torch.Tensor if torches else np.ndarray)
    if images.ndim == 4 and images.shape[-1] == 3 and images.shape[1] != 3:
        top = {"floats in [0, 1]": 1, "16 bits": 65535}.get(kind, 255)
        expected = np.rint(KINDS[kind].astype(float) * 255 / top)
        np.testing.assert_array_equal(np.asarray(better), expected)


def test_normalised_images_get_no_advice_that_wraps_them(unchecked):
    with pytest.raises(TypeError, match=r"They reach from -2 to 3. Normalised\? Pass them as they were before"):
        corrupt(np.linspace(-2, 3, 9 * 9 * 3).reshape(1, 9, 9, 3), "fog", 1)
