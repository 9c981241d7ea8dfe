"""Networks by name, with weights that are checked."""

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from uqlib.files.fingerprint import of_network
from uqlib.networks import Preprocessing, create, creation, features_and_logits, macs, preprocess, preprocessing

PLAIN = Preprocessing(32, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


pytestmark = pytest.mark.usefixtures("no_folder_of_weights")


def test_a_fresh_network_depends_on_its_seed_alone():
    state = torch.get_rng_state()
    first = of_network(create("cifar_resnet20", weights=None, seed=1))
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(5)
    assert of_network(create("cifar_resnet20", weights=None, seed=1)) == first
    assert of_network(create("cifar_resnet20", weights=None, seed=2)) != first
    torch.manual_seed(1)
    assert of_network(create("cifar_resnet20", weights=None)) == first  # without a seed: torch's own generator


@pytest.fixture
def weights_file(tmp_path):
    path = tmp_path / "seven.safetensors"
    save_file(create("cifar_resnet20", weights=None, seed=3, classes=7).state_dict(), path)
    return path


def test_weights_from_a_file_bring_their_classes_and_leave_the_generator(weights_file):
    state = torch.get_rng_state()
    model = create("cifar_resnet20", weights=weights_file)
    assert torch.equal(state, torch.get_rng_state())
    assert model.num_classes == 7
    assert of_network(model) == of_network(create("cifar_resnet20", weights=None, seed=3, classes=7))
    assert create("cifar_resnet20", weights=weights_file, classes=0)(torch.zeros(2, 3, 32, 32)).shape == (2, 64)


def test_other_classes_than_the_weights_are_refused(weights_file):
    with pytest.raises(ValueError, match=r"have 7 classes, 10 were asked for.*reset_classifier\(10\)"):
        create("cifar_resnet20", weights=weights_file, classes=10)


def test_a_torch_file_of_dataparallel_is_read(weights_file, tmp_path):
    state = {f"module.{name}": tensor for name, tensor in load_file(weights_file).items()}
    torch.save({"state_dict": state, "best_prec1": 91.7}, tmp_path / "seven.th")
    model = create("cifar_resnet20", weights=tmp_path / "seven.th")
    assert of_network(model) == of_network(create("cifar_resnet20", weights=weights_file))


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Attack:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"state_dict": Attack()}, tmp_path / "bad.pt")
    with pytest.raises(Exception, match="Weights only load failed"):
        create("cifar_resnet20", weights=tmp_path / "bad.pt")


def test_a_file_without_classifier_or_of_another_network_is_refused(weights_file, tmp_path):
    state = load_file(weights_file)
    trunk = {name: tensor for name, tensor in state.items() if not name.startswith("linear")}
    save_file(trunk, tmp_path / "trunk.safetensors")
    with pytest.raises(ValueError, match=r"has no classifier: linear.weight of cifar_resnet20"):
        create("cifar_resnet20", weights=tmp_path / "trunk.safetensors")
    with pytest.raises(ValueError, match=r"(?s)does not hold the weights of cifar_resnet32.*Missing key"):
        create("cifar_resnet32", weights=weights_file)
    save_file({name: tensor for name, tensor in state.items() if name != "bn1.bias"}, tmp_path / "hole.safetensors")
    with pytest.raises(ValueError, match=r"bn1\.bias"):
        create("cifar_resnet20", weights=tmp_path / "hole.safetensors")
    with pytest.raises(FileNotFoundError, match="no file of weights"):
        create("cifar_resnet20", weights=tmp_path / "none.safetensors")


def test_pretrained_looks_into_the_folder_first(weights_file, tmp_path, monkeypatch):
    monkeypatch.setenv("UQLIB_WEIGHTS", str(tmp_path))
    weights_file.rename(tmp_path / "cifar10_resnet20.safetensors")
    assert create("cifar_resnet20").num_classes == 7
    save_file(create("cifar_resnet20", weights=None, classes=5).state_dict(), tmp_path / "cifar_resnet20.safetensors")
    assert create("cifar_resnet20").num_classes == 5


def test_without_network_the_remedy_is_named():
    with pytest.raises(FileNotFoundError, match=r"weights of resnet10t are not here.*UQLIB_WEIGHTS"):
        create("resnet10t")
    with pytest.raises(FileNotFoundError, match=r"no published weights of wrn_16_4.*weights=PATH"):
        create("wrn_16_4")


def test_a_download_is_checked_against_the_hash_in_its_name(weights_file, tmp_path, monkeypatch):
    state = {f"module.{name}": tensor for name, tensor in load_file(weights_file).items()}
    torch.save({"state_dict": state}, tmp_path / "published.th")
    sha = hashlib.sha256((tmp_path / "published.th").read_bytes()).hexdigest()[:8]
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    cfg = timm.get_pretrained_cfg("cifar_resnet20")
    for name, good in ((f"net-{sha}.th", True), ("net-00000000.th", False)):
        (tmp_path / "published.th").rename(tmp_path / name)
        monkeypatch.setattr(cfg, "url", (tmp_path / name).as_uri())
        monkeypatch.setattr(creation.timm, "get_pretrained_cfg", lambda *_, **__: cfg)
        monkeypatch.setattr(cfg, "num_classes", 7)
        if good:
            model = create("cifar_resnet20", pretrained_cfg=cfg.to_dict())
            assert of_network(model) == of_network(create("cifar_resnet20", weights=weights_file))
            assert "state_dict" not in model.pretrained_cfg
        else:
            with pytest.raises(RuntimeError, match="invalid hash value"):
                create("cifar_resnet20", pretrained_cfg=cfg.to_dict())
        (tmp_path / name).rename(tmp_path / "published.th")


def test_a_folder_as_timm_writes_it_is_read(tmp_path):
    model = create("cifar_resnet20", weights=None, seed=3, classes=7)
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    cfg = '{"architecture": "cifar_resnet20", "num_classes": 7, "pretrained_cfg": {"classifier": "linear"}}'
    (tmp_path / "config.json").write_text(cfg)
    assert of_network(create(f"local-dir:{tmp_path}")) == of_network(model)
    with pytest.raises(ValueError, match="have 7 classes, 10 were asked for"):
        create(f"local-dir:{tmp_path}", classes=10)


def test_the_checkpoint_of_a_training_is_a_file_of_weights(tmp_path):
    from uqlib import losses, training

    model = create("cifar_resnet8_w8", weights=None, classes=2, seed=0)
    images, labels = np.zeros((4, 32, 32, 3), np.uint8), torch.tensor([0, 1, 0, 1])
    training.train(
        model, images, labels, loss=losses.cross_entropy(), preprocessing=PLAIN, epochs=1, lr=0.1, batch=2,
        checkpoint=tmp_path / "ck.pt", progress=False,
    )  # fmt: skip
    assert of_network(create("cifar_resnet8_w8", weights=tmp_path / "ck.pt")) == of_network(model)


@pytest.mark.parametrize(
    ("content", "holds"),
    [
        ([1, 2], "a list"),
        ({"epoch": 3, "lr": 0.1}, "entries epoch, lr"),
        (7, "a int"),
        ({1: torch.ones(2)}, ""),
        ({}, ""),
    ],
)
def test_files_without_named_tensors_are_refused_by_name(tmp_path, content, holds):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(
        ValueError, match=rf"w.pt (must hold names with a tensor each; it holds {holds}|has no classifier)"
    ):
        create("cifar_resnet20", weights=tmp_path / "w.pt")


def test_weights_that_cannot_be_checked_are_not_downloaded(monkeypatch):
    cfg = SimpleNamespace(url="http://x.org/weights.pth", hf_hub_id=None, has_weights=True)
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda *_, **__: cfg)
    with pytest.raises(FileNotFoundError, match=r"at http://x.org/weights.pth bear no hash.*Pass weights=PATH"):
        create("cifar_resnet20")


@pytest.mark.parametrize(
    "change", [{"classes": "10"}, {"classes": True}, {"classes": 2.0}, {"seed": 1.5}, {"seed": "0"}]
)
def test_numbers_that_are_none_are_refused(change, unchecked):
    with pytest.raises(TypeError, match=f"{next(iter(change))} must be a whole number"):
        create("cifar_resnet20", weights=None, **change)
    with pytest.raises(ValueError, match=r"classes must be .*least 0; it is -1"):
        create("cifar_resnet20", weights=None, classes=-1)
    with pytest.raises(TypeError, match="size must be a whole number"):
        macs(create("cifar_resnet20", weights=None), size=32.0)
    with pytest.raises(ValueError, match=r"size must be .*least 1; it is 0"):
        macs(create("cifar_resnet20", weights=None), size=0)


def test_misspelt_names_and_useless_seeds_are_refused(weights_file):
    with pytest.raises(ValueError, match=r"unknown network 'cifar_resnet2'; close names: .*cifar_resnet20"):
        create("cifar_resnet2")
    with pytest.raises(ValueError, match="seed=1 has no effect"):
        create("cifar_resnet20", weights=weights_file, seed=1)


@pytest.mark.parametrize("name", [*(n for n in creation.FILES if n != "cifar_resnet110")])
def test_real_weights_load(name, weights_folder, monkeypatch):
    monkeypatch.setenv("UQLIB_WEIGHTS", str(weights_folder))
    model = create(name)
    assert model.num_classes == model.default_cfg["num_classes"]
    assert creation._weights_file(name).name == f"{creation.FILES[name]}.safetensors"


def test_tensorflow_options_reach_timms_own_network(weights_folder):
    options = {"pad_type": "same", "bn_eps": 1e-3}
    ours = create("tf_mobilenetv2_100", weights=weights_folder / "mobilenetv2_100_in1k.safetensors").eval()
    timms = create("mobilenetv2_100", weights=weights_folder / "mobilenetv2_100_in1k.safetensors", **options).eval()
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(ours(image), timms(image))
    edge = create("tf_mobilenet_edgetpu_100", weights=None)
    assert isinstance(edge.blocks[0][0].bn1.act, nn.Identity)


def test_micronet_on_three_hundred_test_images(weights_folder, prepared_folder):
    if not (prepared_folder / "cifar100/test/meta.json").is_file():
        pytest.skip("cifar100/test is not prepared")
    images = np.load(prepared_folder / "cifar100/test/images.npy", mmap_mode="r")[:300]
    labels = np.load(prepared_folder / "cifar100/test/labels.npy")[:300]
    model = create("cifar100_micronet", weights=weights_folder / "cifar100_micronet_osi.safetensors")
    logits = features_and_logits(model, preprocess(images, preprocessing(model))).logits
    assert (logits.argmax(1).numpy() == labels).mean() == pytest.approx(0.8023, abs=4 * (0.8 * 0.2 / 300) ** 0.5)


def test_resnet20_on_the_first_thousand_test_images(weights_folder, prepared_folder):
    images = np.load(prepared_folder / "cifar10/test/images.npy", mmap_mode="r")[:1000]
    labels = np.load(prepared_folder / "cifar10/test/labels.npy")[:1000]
    model = create("cifar_resnet20", weights=weights_folder / "cifar10_resnet20.safetensors")
    logits = features_and_logits(model, preprocess(images, preprocessing(model))).logits
    assert (logits.argmax(1).numpy() == labels).mean() == pytest.approx(0.9174, abs=4 * (0.9174 * 0.0826 / 1000) ** 0.5)


@pytest.mark.slow
def test_resnet20_reproduces_the_published_accuracy(weights_folder, prepared_folder):
    images = np.load(prepared_folder / "cifar10/test/images.npy", mmap_mode="r")
    labels = np.load(prepared_folder / "cifar10/test/labels.npy")
    model = create("cifar_resnet20", weights=weights_folder / "cifar10_resnet20.safetensors")
    said = [
        features_and_logits(model, preprocess(images[k : k + 200], preprocessing(model))) for k in range(0, 10000, 200)
    ]
    correct = (torch.cat([part.logits for part in said]).argmax(1).numpy() == labels).sum()
    assert abs(correct - 9174) <= 2  # measured beside the weights, rounded to 0.01 %; other CPUs round otherwise


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights"])
def test_a_damaged_file_of_weights_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is no whole file of weights"):
        create("cifar_resnet20", weights=tmp_path / name)
