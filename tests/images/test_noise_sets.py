import numpy as np
import pytest

from uqlib.images.noise_sets import NOISE_SETS, blobs, noise_images


@pytest.mark.parametrize("kind", NOISE_SETS)
def test_a_larger_set_begins_with_the_smaller_one(kind):
    five, two = noise_images(kind, 5, 16), noise_images(kind, 2, 16)
    assert five.shape == (5, 16, 16, 3)
    assert five.dtype == np.uint8
    np.testing.assert_array_equal(five[:2], two)
    assert len({image.tobytes() for image in five}) == 5
    assert (noise_images(kind, 2, 16, seed=1) != two).any()


def test_gaussian_noise_has_its_moments_and_is_clipped():
    values = noise_images("gaussian", 40, 32)
    error = 5 * (0.0228 / values.size) ** 0.5
    assert (values == 0).mean() == pytest.approx(0.0230, abs=error)  # P(z < -2 + 2/255), as 0.5 of a level rounds to 0
    middle = (values > 127.5 - 63.75) & (values < 127.5 + 63.75)
    assert middle.mean() == pytest.approx(0.6827, abs=5 * (0.22 / values.size) ** 0.5 + 0.004)  # a level is 0.016 sigma


def test_uniform_noise_is_uniform():
    counts = np.bincount(noise_images("uniform", 40, 32).ravel(), minlength=256)
    share = np.full(256, 1 / 255)
    share[[0, 255]] /= 2  # rounding gives the end points half a level
    chi = ((counts - counts.sum() * share) ** 2 / (counts.sum() * share)).sum()
    assert chi == pytest.approx(255, abs=5 * (2 * 255) ** 0.5)


def test_rademacher_noise_is_black_or_full_in_every_colour_by_itself():
    values = noise_images("rademacher", 40, 32)
    assert set(np.unique(values)) == {0, 255}
    signs = np.where(values == 0, -1.0, 1.0)
    bound = 5 / (signs.size / 3) ** 0.5
    assert abs(signs.mean()) < bound
    assert abs((signs[..., 0] * signs[..., 1]).mean()) < bound
    assert abs((signs[:, 1:] * signs[:, :-1]).mean()) < bound


@pytest.mark.filterwarnings("ignore")  # what scikit-image imports
@pytest.mark.parametrize(("size", "sigma"), [(32, 1.5), (64, 2)])
def test_blobs_equal_scikit_image(size, sigma):
    filters = pytest.importorskip("skimage.filters")
    flips = np.random.default_rng(5).binomial(1, 0.7, (size, size, 3)).astype(float)
    expected = filters.gaussian(flips, sigma=sigma, channel_axis=None)
    expected[expected < 0.75] = 0
    np.testing.assert_allclose(blobs(np.random.default_rng(5), size), expected, atol=1e-12)


def test_blobs_are_black_or_bright():
    values = noise_images("blobs", 20, 32)
    assert values[values > 0].min() >= 191  # 0.75 of 255
    assert 0.1 < (values > 0).mean() < 0.5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("perlin", 3, 8), "unknown noise 'perlin'; choose from gaussian, uniform, rademacher, blobs"),
        (("uniform", 0, 8), "n must be a whole number of at least 1; it is 0"),
        (("uniform", 3, -1), "size must be a whole number of at least 1; it is -1"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        noise_images(*arguments)


def test_numbers_are_whole_and_of_any_kind(unchecked):
    expected = noise_images("uniform", 2, 8, seed=3)
    for two, eight, three in ((np.int64(2), np.uint8(8), np.int32(3)), (np.array(2), np.array(8), np.array(3))):
        assert np.array_equal(noise_images("uniform", two, eight, seed=three), expected)
    for odd in (2.0, True, "2", None, np.float64(2)):
        for change in ({"n": odd}, {"size": odd}, {"seed": odd}):
            with pytest.raises(TypeError, match=f"{next(iter(change))} must be a whole number"):
                noise_images("uniform", **({"n": 2, "size": 8, "seed": 3} | change))
    with pytest.raises(ValueError, match="seed must be a whole number of at least 0; it is -1"):
        noise_images("uniform", 2, 8, seed=-1)
    with pytest.raises(ValueError, match="unknown noise None"):
        noise_images(None, 2, 8)
