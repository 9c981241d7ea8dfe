"""Heads: the formula written out, files that keep them, and what neither takes."""

import re

import numpy as np
import pytest
import torch

from uqlib.files.whole import DamagedError
from uqlib.uncertainty import UncertaintyHead, load_head, save_head, uncertainty_of

CARD = {"backbone": "net", "weights": "0" * 64, "r_auroc": {"cifar10": 0.7}}


@pytest.fixture
def head():
    return UncertaintyHead(6, width=5, seed=3)


def features(n=30):
    return np.random.default_rng(0).normal(size=(n, 6))


def test_a_head_is_the_formula(head):
    """Leaky ReLU of slope 0.01 between linear layers, softplus, and a millionth."""
    x = features()
    for k, layer in enumerate(head.layers):
        x = x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        x = np.where(x > 0, x, 0.01 * x) if k < 2 else x[:, 0]
    np.testing.assert_allclose(uncertainty_of(head, features()), 1e-6 + np.log1p(np.exp(x)), rtol=1e-5)


def test_an_uncertainty_is_positive_however_sure_the_head_is(head):
    with torch.no_grad():
        head.layers[-1].bias.fill_(-300)
    np.testing.assert_allclose(uncertainty_of(head, features()), 1e-6)


@pytest.mark.parametrize(
    ("width", "parameters"), [(192, 361_985), (384, 460_289), (768, 656_897), (1024, 787_969)], ids="TSBL"
)
def test_a_head_of_the_source_has_so_many_parameters(width, parameters):
    assert sum(p.numel() for p in UncertaintyHead(width).parameters()) == parameters


def test_a_head_follows_its_seed_and_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    one, same, other = (UncertaintyHead(6, width=5, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.layers[0].weight, same.layers[0].weight)
    assert not torch.equal(one.layers[0].weight, other.layers[0].weight)


def test_batches_change_nothing(head):
    whole = uncertainty_of(head, features())
    for batch in (1, 7, 30):
        np.testing.assert_allclose(uncertainty_of(head, features(), batch=batch), whole, rtol=1e-6)
    assert not uncertainty_of(head, torch.tensor(features(), requires_grad=True)).requires_grad


def test_a_head_is_kept_in_half_precision_with_its_card(head, tmp_path):
    path = tmp_path / "net.safetensors"
    save_head(path, head, CARD)
    found, card = load_head(path)
    assert card == CARD
    assert not found.training
    for mine, theirs in zip(head.parameters(), found.parameters(), strict=True):
        assert torch.equal(theirs, mine.half().float())
    np.testing.assert_allclose(uncertainty_of(found, features()), uncertainty_of(head, features()), rtol=5e-3)
    save_head(tmp_path / "again.safetensors", found, card)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    wide = UncertaintyHead(4, width=7, layers=3)
    save_head(path, wide, CARD)
    assert [tuple(p.shape) for p in load_head(path)[0].parameters()] == [tuple(p.shape) for p in wide.parameters()]


def test_every_changed_byte_of_a_kept_head_is_noticed(head, tmp_path):
    path = tmp_path / "net.safetensors"
    save_head(path, head, CARD)
    content = path.read_bytes()
    for place in [*range(8, len(content), 97), len(content) - 1]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
        with pytest.raises((DamagedError, ValueError)):
            load_head(path)
    path.write_bytes(content[:-2])
    with pytest.raises(DamagedError):
        load_head(path)
    path.write_bytes(content)
    assert load_head(path)[1] == CARD


def test_what_is_no_head_is_refused(head, tmp_path, repository):
    with pytest.raises(FileNotFoundError):
        load_head(tmp_path / "none.safetensors")
    with pytest.raises(ValueError, match="is no file of `save_head`: its format is"):
        load_head(next((repository / "data/trained/uncertainty").glob("*.safetensors")))
    with pytest.raises(ValueError, match="card must say which network the features are of; it lacks backbone, weights"):
        save_head(tmp_path / "x.safetensors", head, {"size": 128})
    with torch.no_grad():
        head.layers[1].weight[2, 3] = 1e5
    with pytest.raises(ValueError, match=re.escape("layers.1.weight of the head is beyond half precision")):
        save_head(tmp_path / "x.safetensors", head, CARD)
    assert not list(tmp_path.iterdir())


def test_features_of_another_network_are_refused(unchecked, head):
    with pytest.raises(ValueError, match="features must have width 6; they have 5"):
        uncertainty_of(head, features()[:, :5])
    with pytest.raises(ValueError, match=r"features must have shape \(n, d\) with at least one row; it is \(6,\)"):
        uncertainty_of(head, features()[0])
    x = features()
    x[3, 2] = np.inf
    with pytest.raises(ValueError, match="features must be finite; row 3, column 2 is inf"):
        uncertainty_of(head, x)
    for wrong in ({"width": 0}, {"layers": 0}, {"seed": -1}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be a whole number of at least"):
            UncertaintyHead(6, **wrong)


def test_an_answer_that_overflows_is_named(head):
    x = features()
    x[7] *= 1e300
    with pytest.raises(
        ValueError, match=r"the head must give finite numbers; of row 7, whose features reach .*e\+300 in size"
    ):
        uncertainty_of(head, x)
