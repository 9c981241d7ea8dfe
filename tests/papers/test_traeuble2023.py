"""The toy of the second figure: its gradients against autograd, and who forgets."""

import re

import pytest
import torch
import torch.nn.functional as F

from uqlib.heads import fit_keys
from uqlib.papers import traeuble2023 as toy


def test_gradients_by_hand_are_those_of_autograd():
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 20, 2, generator=generator, dtype=torch.float64)
    labels = torch.arange(20) % 8
    weights = [torch.randn(2, *size, generator=generator, dtype=torch.float64) for size in ((3, 5), (6, 8))]
    toy._descend(inputs, F.one_hot(labels, 8).double(), weights, False)
    own = [each.clone().requires_grad_() for each in weights]
    hidden = torch.einsum("snd,sdh->snh", inputs, own[0][:, :2]) + own[0][:, 2:]
    logits = torch.einsum("snh,shk->snk", hidden.clamp(min=0), own[1][:, :5]) + own[1][:, 5:]
    sum(F.cross_entropy(each, labels) for each in logits).backward()
    for each, other in zip(weights, own, strict=True):
        assert (each.grad - other.grad).abs().max() < 1e-12


def test_a_linear_classifier_knows_the_last_pair_and_a_codebook_all_of_them():
    train, test = (toy.toy_points(k)[None] for k in (0, 1))
    uniform = torch.rand(20_000, 2, generator=torch.Generator().manual_seed(0))
    book = fit_keys(uniform, codebooks=1, keys=400, width=None, epochs=1, batch=100, seed=0)
    models = {
        "linear": toy.ToyModel(train, [test] * 4, rate=1e-2),
        "table": toy.toy_coded([book], train, test, rate=1e-2),
    }
    said = toy.toy_streams(models, steps=500, seed=0)
    right = {
        name: [(each[0] == toy.toy_labels()).double().mean().item() for each in found] for name, found in said.items()
    }
    assert right["linear"][-1] == pytest.approx(0.25, abs=0.05)
    assert right["table"] == pytest.approx([0.25, 0.5, 0.75, 1.0], abs=0.03)


def test_the_code_of_the_page_runs_as_it_stands(repository):
    page = (repository / "book/traeuble2023/index.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^(?:```|~~~)python\n(.*?)^(?:```|~~~)$", page, re.M | re.S)
    assert len(blocks) == 2
    for block in blocks:
        names = {}
        exec(block, names)
    assert names["logits"].argmax(-1).tolist() == list(range(10))
