"""A network with its head: the network's own answers to the bit, little more to compute, and no head of other weights."""

import re
import shutil

import numpy as np
import pytest
import torch
from torch import nn

import uqlib
from uqlib import networks, uncertainty
from uqlib.files.fingerprint import of_network
from uqlib.images import Files
from uqlib.networks.outputs import ask_as_it_is
from uqlib.uncertainty import UncertaintyHead, WithUncertainty, available_heads, load_uncertainty, save_head

NAME = "mobilenetv1_025"  # whose head the project keeps


@pytest.fixture
def net():
    return networks.create("cifar_resnet8", weights=None, classes=4, seed=0).eval()


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)


def kept(net, folder, **card):
    """The files of a network and of a head of it."""
    torch.save(net.state_dict(), folder / "net.pt")
    head = UncertaintyHead(net.num_features, width=8)
    save_head(
        folder / "cifar_resnet8.safetensors", head, {"backbone": "cifar_resnet8", "weights": of_network(net)} | card
    )
    return folder / "net.pt", folder / "cifar_resnet8.safetensors"


def test_logits_and_features_are_those_of_the_network_to_the_bit(net):
    images = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    head = UncertaintyHead(net.num_features)
    said = WithUncertainty(net, head)(images)
    assert torch.equal(said.logits, net(images))
    features = net.forward_head(net.forward_features(images), pre_logits=True)
    assert torch.equal(said.features, features)
    assert torch.equal(said.uncertainty, head(features))
    assert not net.get_classifier()._forward_hooks  # nothing is left behind


def test_asking_prepares_images_in_batches_and_leaves_the_mode(net, pixels):
    model = WithUncertainty(net, UncertaintyHead(net.num_features)).train()
    said = model.ask(pixels)
    assert model.training
    prepared = networks.preprocess(pixels, networks.preprocessing(net))
    with torch.no_grad():
        own = model.eval()(prepared)
    for mine, theirs in zip(said, own, strict=True):
        torch.testing.assert_close(mine, theirs)
    for mine, theirs in zip(model.ask(list(pixels), batch=2), said, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert said.uncertainty.shape == (9,)
    assert (said.uncertainty > 0).all()
    with pytest.raises(ValueError, match="images is empty"):
        model.ask(pixels[:0])


@pytest.fixture
def own_weights(weights_folder, monkeypatch):
    monkeypatch.setenv("UQLIB_WEIGHTS", str(weights_folder))


def test_the_head_adds_less_than_two_hundredths_of_the_multiply_adds(own_weights):
    """Time is measured in benchmarks/retrieval.py; what must be computed is counted here."""
    model = load_uncertainty(NAME)
    head = sum(layer.weight.numel() for layer in model.head.layers)
    alone = networks.macs(model.model, size=model.card["size"])
    assert networks.macs(WithLogits(model), size=model.card["size"]) == alone + head
    assert head < 0.02 * alone


class WithLogits(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images).uncertainty


def test_a_kept_head_speaks_as_its_card_says(images, own_weights):
    """Of these images the features are those of the network asked by itself, and the head is the file's."""
    model = uqlib.load_uncertainty(NAME)
    assert not model.training
    assert model.prepared.size == model.card["size"] == 128
    said = model.ask(images)
    alone = networks.create(NAME).eval()
    prepared = networks.preprocess(images, networks.preprocessing(alone, size=128, crop_pct=1.0))
    with torch.no_grad():
        features = alone.forward_head(alone.forward_features(prepared), pre_logits=True)
        assert torch.equal(said.logits, alone(prepared))
    assert torch.equal(said.features, features)
    head, card = uncertainty.load_head(available_heads()[NAME])
    assert card == model.card
    np.testing.assert_allclose(said.uncertainty, uncertainty.uncertainty_of(head, features), rtol=1e-6)


def test_a_head_is_loaded_with_its_network(net, tmp_path, monkeypatch, pixels):
    weights, head = kept(net, tmp_path, size=24)
    model = load_uncertainty("cifar_resnet8", head=head, weights=weights)
    assert model.prepared.size == 24
    monkeypatch.setenv("UQLIB_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache/heads").mkdir(parents=True)
    shutil.copy(head, tmp_path / "cache/heads")
    assert "cifar_resnet8" in available_heads()
    found = load_uncertainty("cifar_resnet8", weights=weights)
    for mine, theirs in zip(found.ask(pixels), model.ask(pixels), strict=True):
        assert torch.equal(mine, theirs)


def test_a_head_of_other_weights_is_refused(net, tmp_path):
    weights, head = kept(net, tmp_path)
    with torch.no_grad():
        net.get_classifier().bias[1] += 1e-3
    torch.save(net.state_dict(), weights)
    with pytest.raises(
        ValueError, match="was trained on features of cifar_resnet8 with other weights than these of cifar"
    ):
        load_uncertainty("cifar_resnet8", head=head, weights=weights)
    other = networks.create("cifar_resnet20", weights=None, classes=4, seed=0)
    torch.save(other.state_dict(), weights)
    with pytest.raises(ValueError, match="with other weights than these of cifar_resnet20"):
        load_uncertainty("cifar_resnet20", head=head, weights=weights)  # the network that was asked for, not the head's


def test_where_there_is_no_head_the_message_says_where_heads_lie(monkeypatch, tmp_path):
    monkeypatch.setenv("UQLIB_CACHE", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=f"no uncertainty head of 'resnet50' here; there are .*{NAME}.* data/heads"
    ):
        load_uncertainty("resnet50")
    with pytest.raises(FileNotFoundError):
        load_uncertainty(NAME, head=tmp_path / "none.safetensors")
    with pytest.raises(AttributeError, match="module 'uqlib' has no attribute 'load_uncertainties'"):
        _ = uqlib.load_uncertainties


def test_a_head_of_another_width_is_refused(net):
    with pytest.raises(
        ValueError, match=f"takes features of width 7; the classifier of the model has {net.num_features}"
    ):
        WithUncertainty(net, UncertaintyHead(7))


def test_a_network_without_timms_contract_names_its_classifier():
    plain = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 3))
    images = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match=re.escape("Sequential has no get_classifier(); pass classifier=")):
        WithUncertainty(plain, UncertaintyHead(6))
    model = WithUncertainty(plain, UncertaintyHead(6), classifier=plain[3])
    assert torch.equal(model(images).features, plain[:3](images))
    assert {name.split(".")[0] for name in model.state_dict()} == {"model", "head"}
    with pytest.raises(ValueError, match="was called 0 times in one pass; once is needed"):
        ask_as_it_is(plain, images, classifier=nn.Linear(6, 3))


def test_gradients_flow_where_they_are_recorded(net):
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features, logits = ask_as_it_is(net, images)
    assert features.requires_grad
    assert logits.requires_grad


def test_files_are_asked_too(net, tmp_path, pixels):
    from PIL import Image

    for k in range(3):
        Image.fromarray(pixels[k]).save(tmp_path / f"{k}.png")
    model = WithUncertainty(net, UncertaintyHead(net.num_features))
    files = Files([tmp_path / f"{k}.png" for k in range(3)])
    torch.testing.assert_close(model.ask(files, batch=2).logits, model.ask(pixels[:3]).logits)
