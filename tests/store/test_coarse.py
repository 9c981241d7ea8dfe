"""Logits of many classes in three levels, against a loop over rows that sorts and averages."""

import math

import pytest
import torch

from uqlib import metrics, store
from uqlib.combine import repeat_duo
from uqlib.store import Key
from uqlib.store.coarse import coarse_columns, dense_logits, ends_of_levels
from uqlib.store.fill import put_answers

KEY = Key("imagenet", "val", "a", "w", "p", "d")


def read_back(logits, exact):
    columns = coarse_columns(logits, "top", exact)
    return dense_logits({name: column.numpy() for name, column in columns.items()}, "top"), columns


def by_hand(row, exact, near, far):
    """Ranks by Python's sort; each level the logarithm of the mean of its exponentials."""
    order = sorted(range(len(row)), key=lambda k: -row[k])
    out = list(row)
    for start, stop in ((exact, near), (near, far), (far, len(row))):
        members = order[start:stop]
        for k in members:
            out[k] = math.log(sum(math.exp(row[m]) for m in members) / len(members))
    return out


@pytest.mark.parametrize(("classes", "exact"), [(1000, 24), (101, 12), (101, 24), (37, 4), (30, 30), (5, 24), (2, 1)])
def test_each_class_keeps_its_logit_or_that_of_its_level(classes, exact):
    logits = torch.randn(7, classes, generator=torch.Generator().manual_seed(0)) * 3 + 9
    found, _ = read_back(logits, exact)
    expected = [by_hand(row, *ends_of_levels(classes, exact)) for row in logits.double().tolist()]
    assert found.shape == (7, classes)
    away = logits.amax(-1, keepdim=True) - logits.amin(-1, keepdim=True)
    assert ((found - torch.tensor(expected, dtype=torch.float64)).abs() <= away * 2**-11 + 1e-6).all()
    assert torch.equal(found.amax(-1), logits.amax(-1).double())  # the largest is the network's own


def test_a_thousand_classes_take_a_quarter_of_a_byte_each():
    logits = torch.randn(50, 1000, generator=torch.Generator().manual_seed(0))
    _, columns = read_back(logits, 24)
    assert sum(column.numel() * column.element_size() for column in columns.values()) / 50 < 250


def test_probabilities_of_what_is_exact_and_of_each_level_are_kept():
    logits = torch.randn(50, 1000, generator=torch.Generator().manual_seed(0)).double() * 2
    found, _ = read_back(logits, 24)
    probs, kept = logits.softmax(-1), found.softmax(-1)
    order = logits.argsort(dim=-1, descending=True)
    for start, stop in ((0, 24), (24, 80), (80, 300), (300, 1000)):
        mass = [each.gather(-1, order[:, start:stop]).sum(-1) for each in (probs, kept)]
        assert mass[1].numpy() == pytest.approx(mass[0].numpy(), rel=0.003)  # eleven bits of distances up to 12


def test_the_store_gives_dense_logits_and_refuses_to_take_them_for_finer_ones(tmp_path):
    logits = torch.randn(40, 200, generator=torch.Generator().manual_seed(0)) * 3
    labels = torch.arange(40)
    path = put_answers(KEY, logits, labels, dtype="coarse", root=tmp_path)
    answers = store.read_entry(path)
    assert torch.equal(answers.logits, read_back(logits, 24)[0])
    assert not answers.shifted
    assert store.verify_store(root=tmp_path) == {}
    before = path.read_bytes()
    put_answers(KEY, logits + 1e-4, labels, dtype="coarse", root=tmp_path)  # another device
    assert path.read_bytes() == before
    with pytest.raises(ValueError, match="has other logits for the same key"):
        put_answers(KEY, logits.flip(0), labels, dtype="coarse", root=tmp_path)
    put_answers(KEY, logits, labels, dtype="float16", root=tmp_path)
    finer = store.read_entry(path)
    assert set(finer.entry.header.columns) == {"logits", "logits_max", "labels", "index"}
    assert (finer.logits - logits).abs().max() < 0.01
    put_answers(KEY, logits, labels, dtype="coarse", root=tmp_path)
    assert torch.equal(store.read_entry(path).logits, finer.logits)


def test_features_join_coarse_logits(tmp_path):
    logits = torch.randn(40, 200, generator=torch.Generator().manual_seed(0))
    put_answers(KEY, logits, torch.arange(40), dtype="coarse", root=tmp_path)
    path = put_answers(KEY, None, torch.arange(40), features=torch.ones(40, 3), root=tmp_path)
    both = store.read_entry(path, columns=("logits", "features"))
    assert torch.equal(both.logits, read_back(logits, 24)[0])
    assert both.features.shape == (40, 3)


def test_what_a_duo_loses_is_what_the_readme_of_the_data_says(repository):
    """On the stored networks of ImageNet there is no finer entry; on Caltech-101 there is."""
    root = repository / "data/store"
    names = ("tf_mobilenet_edgetpu_100-tuned", "mobilenetv1_025-tuned")
    answers = store.load_many_answers(names, "caltech101", "heldout", root=root)
    labels, fine = answers[names[0]].labels, [answers[name].logits for name in names]
    coarse = [read_back(logits, 24)[0] for logits in fine]
    found = [repeat_duo(*pair, labels, fit_size=500, splits=1, variants=("base", "ours"))[0] for pair in (fine, coarse)]
    for variant in ("base", "ours"):
        one, other = (each[variant][0] for each in found)
        assert abs(_nll(one) - _nll(other)) < 0.003
        assert abs(metrics.aurc(one.confidence, one.correct) - metrics.aurc(other.confidence, other.correct)) < 5e-5


def _nll(outcome):
    return -outcome.probs[torch.arange(len(outcome.labels)), outcome.labels].log().mean().item()
