"""A probe by steps beside torch's own optimizer, and what going on does to it."""

import pytest
import torch
import torch.nn.functional as F

from uqlib.heads import LinearHead, fit_probe, log_posteriors, probes

X = torch.randn(90, 5, generator=torch.Generator().manual_seed(0))
Y = (X @ torch.randn(5, 3, generator=torch.Generator().manual_seed(1))).argmax(1)
HOW = dict(classes=3, rate=0.3, seed=4)


def by_torch(x, y, *, epochs, batch, smoothing, l2, start=None, rate, seed, classes):
    layer = torch.nn.Linear(x.shape[1], classes)
    with torch.no_grad():
        layer.weight.copy_(torch.zeros(classes, x.shape[1]) if start is None else start.weight)
        layer.bias.copy_(torch.zeros(classes) if start is None else start.bias)
    groups = [{"params": [layer.weight], "weight_decay": l2}, {"params": [layer.bias]}]
    optimizer, generator = torch.optim.SGD(groups, lr=rate), torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(batch):
            optimizer.zero_grad()
            F.cross_entropy(layer(x[rows]), y[rows], label_smoothing=smoothing).backward()
            optimizer.step()
    return LinearHead(layer.weight.detach(), layer.bias.detach())


@pytest.mark.parametrize("more", [{"smoothing": 0.1, "l2": 0.0}, {"smoothing": 0.0, "l2": 0.05}])
def test_it_is_what_torch_would_train_and_goes_on_as_torch_would(more, monkeypatch):
    monkeypatch.setattr(probes, "BATCH", 16)
    first = fit_probe(X, Y, epochs=3, **more, **HOW)
    theirs = by_torch(X, Y, epochs=3, batch=16, **more, **HOW)
    for one, other in zip(first, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    second = fit_probe(X, Y, probe=first, epochs=1, **more, **HOW)
    for one, other in zip(second, by_torch(X, Y, start=first, epochs=1, batch=16, **more, **HOW), strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_with_its_own_classes_a_batch_moves_no_other():
    before = fit_probe(X, Y, epochs=2, **HOW)
    pair = Y < 2
    after = fit_probe(X[pair], Y[pair], probe=before, own_classes=True, **HOW)
    assert torch.equal(after.weight[2], before.weight[2])
    assert after.bias[2] == before.bias[2]
    assert not torch.equal(after.weight[:2], before.weight[:2])
    plain = fit_probe(X[pair], Y[pair], probe=before, **HOW)
    assert plain.bias[2] < before.bias[2]
    again = fit_probe(X[pair], Y[pair], own_classes=True, **HOW)  # beside a probe that knows of two classes only
    two = fit_probe(X[pair], Y[pair], **HOW | {"classes": 2})
    assert torch.allclose(again.weight[:2], two.weight, atol=1e-6)


def test_arrays_come_back_as_they_came():
    ours = fit_probe(X.numpy(), Y.numpy(), **HOW)
    assert type(ours.weight).__name__ == "ndarray"
    assert torch.equal(torch.as_tensor(log_posteriors(ours, X.numpy())), log_posteriors(fit_probe(X, Y, **HOW), X))


def test_what_does_not_fit_is_refused():
    other = fit_probe(X[:, :4], Y, **HOW)
    with pytest.raises(ValueError, match=r"probe must be of 3 classes and 5 features; its weight is of \(3, 4\)"):
        fit_probe(X, Y, probe=other, **HOW)
    with pytest.raises(ValueError, match="weights overflow with steps of 1e\\+30"):
        fit_probe(X, Y, **HOW | {"rate": 1e30, "l2": 1.0})
    for name, value in {"rate": 0.0, "epochs": 0, "smoothing": 1.0, "l2": -1.0, "seed": -1}.items():
        with pytest.raises(ValueError, match=name):
            fit_probe(X, Y, **HOW | {name: value})
