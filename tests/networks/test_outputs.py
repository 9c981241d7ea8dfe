"""Features and logits in one pass."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from uqlib.files.fingerprint import of_network
from uqlib.networks import Preprocessing, create, features_and_logits, macs, preprocess

PLAIN = Preprocessing(32, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


pytestmark = pytest.mark.usefixtures("no_folder_of_weights")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cifar_resnet20", {}),
        ("wrn_16_4", {}),
        ("resnet10t", {}),
        ("vit_tiny_patch16_224", {"img_size": 32}),
        ("mobilenetv3_small_050", {}),
        ("convnext_atto", {}),
        ("mobilenetv1_025", {}),
    ],
)
def test_features_and_logits_are_those_of_timms_own_calls(name, options):
    model = create(name, weights=None, seed=0, classes=5, drop_rate=0.5, **options)
    images = torch.randn(2, 3, 32, 32)
    outputs = features_and_logits(model, images)
    assert model.training  # put back
    model.eval()
    with torch.no_grad():
        assert torch.equal(outputs.logits, model(images))
        features = model.forward_head(model.forward_features(images), pre_logits=True)
    assert torch.equal(outputs.features, features)
    assert outputs.features.shape == (2, model.head_hidden_size)


def test_modes_are_put_back_one_by_one_even_after_an_error():
    model = create("cifar_resnet20", weights=None)
    model.layer1.eval()
    with pytest.raises(RuntimeError, match="expected input"):
        features_and_logits(model, torch.zeros(1, 4, 32, 32))
    features_and_logits(model, torch.zeros(1, 3, 32, 32))
    macs(model)
    assert model.training
    assert model.layer2.training
    assert not model.layer1[0].bn1.training
    assert not model.linear._forward_pre_hooks


def test_a_head_can_be_trained_on_the_features():
    model = create("cifar_resnet20", weights=None)
    features, logits = features_and_logits(model, torch.randn(3, 3, 32, 32))
    head = nn.Linear(64, 2)
    (head(features).sum() + (logits * nn.Parameter(torch.ones(10))).sum()).backward()
    assert head.weight.grad is not None


def test_networks_that_are_not_timms():
    head = nn.Linear(12, 4)
    model = nn.Sequential(nn.Flatten(), nn.ReLU(), head)
    images = torch.randn(2, 3, 2, 2)
    outputs = features_and_logits(model, images, classifier=head)
    assert torch.equal(outputs.features, images.flatten(1).relu())
    assert torch.equal(outputs.logits, model(images))
    with pytest.raises(ValueError, match="Sequential has no get_classifier"):
        features_and_logits(model, images)
    with pytest.raises(ValueError, match="called 0 times"):
        features_and_logits(model, images, classifier=nn.Linear(12, 4))


@pytest.mark.parametrize("name", ["deit_tiny_distilled_patch16_224", "levit_128s", "efficientformer_l1"])
def test_two_classifiers_have_no_features_of_the_logits_and_the_advice_works(name):
    model, images = create(name, weights=None, seed=0, classes=5), torch.randn(1, 3, 224, 224)
    with pytest.raises(
        ValueError, match=r"has 2 classifiers, and its logits are their mean.* In eval mode, take"
    ) as error:
        features_and_logits(model, images)
    with pytest.raises(
        ValueError, match=r"does not give the logits of .*: something follows it, or there is a second one"
    ):
        features_and_logits(model, images, classifier=model.head)
    logits, features = re.search(r"take (.*) for the logits, and (.*) for features", str(error.value)).groups()
    model.eval()
    with torch.no_grad():
        assert eval(logits, {"model": model, "images": images}).shape == (1, 5)
        assert eval(features, {"model": model, "images": images}).shape == (1, model.num_features)


def test_a_network_without_classifier_has_features_and_no_logits():
    features, logits = features_and_logits(create("cifar_resnet20", weights=None, classes=0), torch.zeros(2, 3, 32, 32))
    assert features.shape == (2, 64)
    assert logits.shape == (2, 0)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-4), (torch.bfloat16, 0.2)])
def test_a_network_in_another_precision_gets_images_in_its_own(dtype, tolerance):
    model, images = create("cifar_resnet20", weights=None, seed=0), torch.rand(2, 3, 32, 32)
    plain = features_and_logits(model, images)
    other = features_and_logits(model.to(dtype), images)
    assert other.logits.dtype == dtype
    torch.testing.assert_close(other.logits.float(), plain.logits, atol=tolerance, rtol=tolerance)


def test_bytes_are_not_taken_for_images():
    model = create("cifar_resnet20", weights=None)
    with pytest.raises(TypeError, match=r"not torch.uint8: preprocess"):
        features_and_logits(model, torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(TypeError, match="not float64: preprocess"):
        features_and_logits(model, np.zeros((1, 3, 32, 32)))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_says_what_the_cpu_says(images):
    model = create("cifar_resnet20", weights=None, seed=0)
    resized = PLAIN._replace(size=24, crop_pct=0.9)
    for each in (PLAIN, resized):
        there, here = preprocess(images, each, device="cuda"), preprocess(images, each)
        assert (there.cpu() - here).abs().max() <= 1.01 / (255 * min(PLAIN.std))  # one grey level where resized
    digest, expected = of_network(model), features_and_logits(model, preprocess(images, PLAIN))
    model.cuda()
    answers = features_and_logits(model, preprocess(images, PLAIN, device="cuda"))
    assert of_network(model) == digest
    # a GPU may multiply in TF32, with 10 bits
    assert torch.allclose(
        answers.logits.cpu(), expected.logits, rtol=0.05, atol=0.05 * expected.logits.abs().max().item()
    )
