import hashlib
import re
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from uqlib import models, networks
from uqlib.models import (
    Preprocessing,
    create,
    features_and_logits,
    macs,
    parameters,
    preprocess,
    preprocessing,
    weights_digest,
)
from uqlib.photos import Files

PLAIN = Preprocessing(32, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


@pytest.fixture
def images():
    # smooth pictures: on noise an antialiased resize hardly depends on the filter
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (3, 12, 10, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((64, 48), Image.Resampling.BICUBIC)) for image in coarse])


@pytest.fixture(autouse=True)
def no_folder_of_weights(monkeypatch):
    monkeypatch.delenv("UQLIB_WEIGHTS", raising=False)


# the networks


@pytest.mark.parametrize(
    ("depth", "count", "multiply_adds"),
    [(20, 269_722, 40_551_040), (32, 464_154, 68_862_592), (44, 658_586, 97_174_144), (56, 853_018, 125_485_696)],
)
def test_cifar_resnets_have_the_published_size(depth, count, multiply_adds):
    # parameters: He et al. table 6 prints 0.27, 0.46, 0.66, 0.85 M; both numbers in full from the weights' manifest
    model = create(f"cifar_resnet{depth}", weights=None)
    assert parameters(model) == count
    assert macs(model) == multiply_adds


def test_resnet110_has_the_papers_size():
    assert parameters(create("cifar_resnet110", weights=None)) == pytest.approx(1.7e6, rel=0.03)  # table 6


def wide_parameters(depth, width, classes):
    """By hand from table 1 of the paper: two convolutions and two norms a block, 1x1 where the width changes."""
    total, inputs = 3 * 16 * 9, 16
    for outputs in (16 * width, 32 * width, 64 * width):
        for block in range((depth - 4) // 6):
            first = inputs if block == 0 else outputs
            total += 9 * first * outputs + 9 * outputs**2 + 2 * first + 2 * outputs
            total += first * outputs if first != outputs else 0
        inputs = outputs
    return total + 2 * inputs + (inputs + 1) * classes


@pytest.mark.parametrize(
    ("name", "depth", "width", "million"),
    [("wrn_16_4", 16, 4, 2.7), ("wrn_40_2", 40, 2, 2.2), ("wrn_28_10", 28, 10, 36.5)],
)
def test_wide_resnets_have_the_papers_size(name, depth, width, million):
    count = parameters(create(name, weights=None, classes=10))
    assert count == wide_parameters(depth, width, 10)
    assert count / 1e6 == pytest.approx(million, abs=0.06)  # as printed in the paper's tables, one decimal


@pytest.mark.parametrize(("name", "million"), [("resnet18_cifar", 11.17), ("resnet34_cifar", 21.28)])
def test_resnets_of_imagenet_take_small_images(name, million):
    model = create(name, weights=None, seed=0)
    assert parameters(model) / 1e6 == pytest.approx(million, abs=0.006)  # as printed in repositories that train them
    features = model.forward_features(torch.randn(2, 3, 32, 32))
    assert features.shape == (2, 512, 4, 4)  # three steps of two
    with pytest.raises(FileNotFoundError, match=f"no published weights of {name}"):
        create(name)


def test_a_stride_in_the_stem_leaves_the_weights_and_a_quarter_of_the_pixels():
    fast, slow = create("cifar_resnet8_w32", weights=None, seed=0), create("cifar_resnet8", weights=None, width=32)
    slow.load_state_dict(fast.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert fast.forward_features(x).shape == (2, 128, 4, 4)
    assert torch.equal(fast.eval().conv1(x), slow.eval().conv1(x)[:, :, ::2, ::2])


def test_wide_resnet_drops_only_while_it_trains():
    model = create("wrn_16_4", weights=None, seed=0, dropout=0.9)
    images = torch.randn(2, 3, 32, 32)
    assert model.layer2[0].dropout.p == 0.9
    model.eval()
    assert torch.equal(model(images), model(images))
    for module in model.modules():
        module.training = isinstance(module, nn.Dropout)
    assert not torch.equal(model(images), model(images))


def test_shortcuts_of_option_a_take_every_second_pixel_and_pad_with_zeros():
    block = networks.BasicBlock(2, 6, 2).eval()
    block.conv2.weight.data.zero_()  # only the shortcut is left
    x = torch.rand(1, 2, 4, 4)
    expected = torch.zeros(1, 6, 2, 2)
    expected[0, 2:4] = x[0, :, [0, 2]][:, :, [0, 2]]
    assert torch.equal(block(x), expected)


def test_wide_shortcuts_start_after_the_activation_only_where_the_width_changes():
    x = torch.randn(1, 2, 4, 4)
    for block, expected in ((networks.WideBlock(2, 2, 1), x), (networks.WideBlock(2, 4, 2), x.relu()[..., ::2, ::2])):
        block.conv2.weight.data.zero_()
        if block.shortcut is not None:
            block.shortcut.weight.data = torch.eye(4, 2)[..., None, None]
            expected = torch.cat([expected, torch.zeros_like(expected)], dim=1)
        assert torch.allclose(block.eval()(x), expected, rtol=1e-5)  # the norm divides by sqrt(1 + 1e-5)


@pytest.mark.parametrize("name", ["cifar_resnet20", "wrn_16_4"])
def test_our_networks_keep_timms_contract(name):
    model = timm.create_model(name, num_classes=7).eval()
    images = torch.randn(2, 3, 32, 32)
    trunk = model.forward_features(images)
    pooled = model.forward_head(trunk, pre_logits=True)
    assert trunk.shape == (2, model.num_features, 8, 8)
    assert torch.allclose(pooled, trunk.mean((2, 3)), atol=1e-6)
    assert torch.equal(model.forward_head(trunk), model(images))
    assert model.get_classifier().out_features == 7
    assert (model.default_cfg["architecture"], model.default_cfg["classifier"]) == (name, "linear")
    model.reset_classifier(0)
    assert torch.equal(model(images), pooled)
    model.reset_classifier(3)
    assert model(images).shape == (2, 3)
    stages = timm.create_model(name, features_only=True)
    assert [stage.shape[-1] for stage in stages(images)] == [32, 16, 8]
    assert timm.is_model(name)


@pytest.mark.parametrize(("name", "change"), [("cifar_resnet20", {"depth": 21}), ("wrn_16_4", {"depth": 18})])
def test_impossible_depths_are_refused(name, change):
    with pytest.raises(ValueError, match=f"depth .* it is {change['depth']}"):
        create(name, weights=None, **change)


@pytest.mark.parametrize("change", [{"depth": 20.0}, {"depth": True}, {"width": 0.5}, {"width": "4"}])
@pytest.mark.parametrize("name", ["cifar_resnet20", "wrn_16_4"])
def test_sizes_are_whole_numbers(name, change, unchecked):
    with pytest.raises(TypeError, match=f"{next(iter(change))} must be a whole number"):
        create(name, weights=None, **change)


@pytest.mark.parametrize(
    ("name", "size", "width", "multiply_adds"),
    [("mobilenetv1_025", 128, 256, 14e6), ("mobilenetv1_050", 160, 512, 77e6), ("mobilenetv1_075", 192, 768, 239e6)],
)
def test_mobilenets_of_three_widths(name, size, width, multiply_adds):
    model = create(name, weights=None)
    assert model.num_features == width
    assert macs(model) == pytest.approx(multiply_adds, abs=5e5)  # the table of the weights prints millions
    assert preprocessing(model) == Preprocessing(size, (128 / 255,) * 3, (128 / 255,) * 3, "bilinear", 0.875)


def test_importing_registers_and_does_nothing_else():
    code = (
        "import torch; before = torch.get_rng_state(); import uqlib.models, timm; "
        "assert torch.equal(before, torch.get_rng_state()); assert timm.is_model('cifar_resnet110')"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


# creating


def test_a_fresh_network_depends_on_its_seed_alone():
    state = torch.get_rng_state()
    first = weights_digest(create("cifar_resnet20", weights=None, seed=1))
    assert torch.equal(state, torch.get_rng_state())
    torch.rand(5)
    assert weights_digest(create("cifar_resnet20", weights=None, seed=1)) == first
    assert weights_digest(create("cifar_resnet20", weights=None, seed=2)) != first
    torch.manual_seed(1)
    assert weights_digest(create("cifar_resnet20", weights=None)) == first  # without a seed: torch's own generator


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
    assert weights_digest(model) == weights_digest(create("cifar_resnet20", weights=None, seed=3, classes=7))
    assert create("cifar_resnet20", weights=weights_file, classes=0)(torch.zeros(2, 3, 32, 32)).shape == (2, 64)


def test_other_classes_than_the_weights_are_refused(weights_file):
    with pytest.raises(ValueError, match=r"have 7 classes, 10 were asked for.*reset_classifier\(10\)"):
        create("cifar_resnet20", weights=weights_file, classes=10)


def test_a_torch_file_of_dataparallel_is_read(weights_file, tmp_path):
    state = {f"module.{name}": tensor for name, tensor in load_file(weights_file).items()}
    torch.save({"state_dict": state, "best_prec1": 91.7}, tmp_path / "seven.th")
    model = create("cifar_resnet20", weights=tmp_path / "seven.th")
    assert weights_digest(model) == weights_digest(create("cifar_resnet20", weights=weights_file))


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
        monkeypatch.setattr(models.timm, "get_pretrained_cfg", lambda *_, **__: cfg)
        monkeypatch.setattr(cfg, "num_classes", 7)
        if good:
            model = create("cifar_resnet20", pretrained_cfg=cfg.to_dict())
            assert weights_digest(model) == weights_digest(create("cifar_resnet20", weights=weights_file))
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
    assert weights_digest(create(f"local-dir:{tmp_path}")) == weights_digest(model)
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
    assert weights_digest(create("cifar_resnet8_w8", weights=tmp_path / "ck.pt")) == weights_digest(model)


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


@pytest.mark.parametrize("name", [*(n for n in models.FILES if n != "cifar_resnet110")])
def test_real_weights_load(name, weights_folder, monkeypatch):
    monkeypatch.setenv("UQLIB_WEIGHTS", str(weights_folder))
    model = create(name)
    assert model.num_classes == model.default_cfg["num_classes"]
    assert models._weights_file(name).name == f"{models.FILES[name]}.safetensors"


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


# preprocessing


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


# what a network says


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


def test_bytes_are_not_taken_for_images():
    model = create("cifar_resnet20", weights=None)
    with pytest.raises(TypeError, match=r"not torch.uint8: preprocess"):
        features_and_logits(model, torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
    with pytest.raises(TypeError, match="not float64: preprocess"):
        features_and_logits(model, np.zeros((1, 3, 32, 32)))


# cost and identity


def test_macs_of_a_transformer_by_hand():
    model = create("vit_tiny_patch16_224", weights=None)
    tokens, width = 197, 192
    block = tokens * (4 * width**2 + 2 * width * 4 * width) + 2 * tokens**2 * width
    assert macs(model) == 196 * 3 * 16**2 * width + 12 * block + width * 1000


def test_macs_take_a_size():
    assert macs(create("cifar_resnet20", weights=None), size=64) == 4 * (40_551_040 - 640) + 640


def test_weights_digest_sees_every_bit_and_no_order():
    model = create("cifar_resnet20", weights=None, seed=0)
    first = weights_digest(model)
    assert len(first) == 64
    model.bn1.running_mean[3] += 1e-7
    assert weights_digest(model) != first
    one, two = nn.Module(), nn.Module()
    for module, names in ((one, "ab"), (two, "ba")):
        for name in names:
            setattr(module, name, nn.Parameter(torch.full((2,), float(ord(name)))))
    assert weights_digest(one) == weights_digest(two)
    assert weights_digest(nn.Linear(2, 2).half().float()) != weights_digest(nn.Linear(2, 2).half())


def test_weights_digest_is_the_same_on_every_machine():
    layer = nn.Linear(2, 1)
    layer.weight.data.copy_(torch.tensor([[1.0, 2.0]]))
    layer.bias.data.zero_()
    text = b"bias torch.float32 (1,)\n" + bytes(4) + b"weight torch.float32 (1, 2)\n" + b"\0\0\x80?\0\0\0@"
    assert weights_digest(layer) == hashlib.sha256(text).hexdigest()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_gpu_says_what_the_cpu_says(images):
    model = create("cifar_resnet20", weights=None, seed=0)
    resized = PLAIN._replace(size=24, crop_pct=0.9)
    for each in (PLAIN, resized):
        there, here = preprocess(images, each, device="cuda"), preprocess(images, each)
        assert (there.cpu() - here).abs().max() <= 1.01 / (255 * min(PLAIN.std))  # one grey level where resized
    digest, expected = weights_digest(model), features_and_logits(model, preprocess(images, PLAIN))
    model.cuda()
    said = features_and_logits(model, preprocess(images, PLAIN, device="cuda"))
    assert weights_digest(model) == digest
    # a GPU may multiply in TF32, with 10 bits
    assert torch.allclose(said.logits.cpu(), expected.logits, rtol=0.05, atol=0.05 * expected.logits.abs().max().item())


@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no weights"])
def test_a_damaged_file_of_weights_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} is no whole file of weights"):
        create("cifar_resnet20", weights=tmp_path / name)
