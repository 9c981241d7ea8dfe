import numpy as np
import pytest
import torch

from uqlib.training import AUGMENTATIONS, flip, flip_shift


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


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_keep_shape_and_values(name):
    images = torch.rand(4, 3, 16, 16)
    found = AUGMENTATIONS[name](images, torch.Generator().manual_seed(0))
    assert found.shape == images.shape
    assert torch.isin(found, images).all()
