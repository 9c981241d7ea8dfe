"""The bottleneck against nearest class means, scikit-learn, and a slow loop written from the formulas."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from uqlib.heads import (
    KeyBook,
    count_values,
    fetch_counts,
    fit_keys,
    fit_values,
    key_codes,
    key_distance,
    key_interference,
    key_values,
    value_logits,
)


def drawn(n=300, d=6, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    means = 2 * torch.randn(classes, d, generator=generator)
    return torch.randn(n, d, generator=generator) + means[labels], labels


def test_keys_at_the_class_means_are_the_nearest_class_mean():
    x, y = drawn()
    means = torch.stack([x[y == k].mean(0) for k in range(3)])
    book = KeyBook(torch.eye(6)[None], means[None])
    said = value_logits(torch.eye(3)[None].double(), key_codes(x, book)).argmax(1)
    assert (said == torch.cdist(x.double(), means.double()).argmin(1)).all()
    least = torch.cdist(x.double(), means.double()).amin(1)
    assert key_distance(x, book).sub(least).abs().max() < 1e-5


def test_projections_have_columns_of_length_one_and_all_is_repeated_by_the_seed():
    x, _ = drawn()
    book, again = (fit_keys(x, codebooks=3, keys=5, width=2, seed=4) for _ in range(2))
    assert book.projections.shape == (3, 6, 2)
    assert book.keys.shape == (3, 5, 2)
    assert book.projections.norm(dim=1).sub(1).abs().max() < 1e-6
    assert all((a == b).all() for a, b in zip(book, again, strict=True))


def slow_keys(x, codebooks, keys, width, epochs, batch, decay, seed):
    """A key at a time, in the order of the formulas; only what is drawn is drawn alike."""
    generator = torch.Generator().manual_seed(seed)
    p = torch.randn(codebooks, x.shape[1], width, generator=generator)
    p = (p / p.square().sum(1, keepdim=True).sqrt()).double()
    k = torch.randn(codebooks, keys, width, generator=generator).double()
    s, n = k.clone(), torch.zeros(codebooks, keys).double()
    for _ in range(epochs):
        for rows in torch.randperm(len(x), generator=generator).split(batch):
            heads = [x[rows].double() @ p[c] for c in range(codebooks)]
            for c in range(codebooks):
                chosen = torch.tensor([min(range(keys), key=lambda j: (h - k[c, j]).square().sum()) for h in heads[c]])
                for j in range(keys):
                    own = heads[c][chosen == j]
                    n[c, j] = decay * n[c, j] + (1 - decay) * len(own)
                    s[c, j] = decay * s[c, j] + (1 - decay) * own.sum(0)
                total = n[c].sum()
                k[c] = s[c] / ((n[c] + 1e-5) / (total + keys * 1e-5) * total)[:, None]
            jump = torch.randint(len(rows), (codebooks, keys), generator=generator)
            for c in range(codebooks):
                for j in range(keys):
                    if n[c, j] < 0.1 * batch / keys:
                        k[c, j] = heads[c][jump[c, j]]
    return k


def test_keys_are_those_of_a_slow_loop():
    x, _ = drawn(90)
    options = dict(codebooks=2, keys=7, width=3, epochs=3, batch=32, decay=0.8, seed=1)
    assert fit_keys(x, **options).keys.double().sub(slow_keys(x, **options)).abs().max() < 1e-4


def test_keys_that_were_never_fetched_are_not_taken():
    book = KeyBook(torch.ones(1, 1, 1), torch.tensor([[[0.0], [1.0], [5.0]]]))
    x = torch.tensor([[0.9], [4.0]])
    assert key_codes(x, book).tolist() == [[1], [2]]
    assert key_codes(x, book, counts=[[1, 0, 2]]).tolist() == [[0], [2]]
    assert key_distance(x, book, counts=[[1, 0, 2]]).numpy() == pytest.approx([0.9, 1.0], abs=1e-6)


@pytest.fixture(scope="module")
def snapped():
    x, y = drawn(400, seed=3)
    return key_codes(x, fit_keys(x, codebooks=4, keys=6, width=3, seed=0)), y


def test_values_come_to_the_logistic_regression_on_one_hot_codes(snapped):
    linear_model = pytest.importorskip("sklearn.linear_model")
    codes, y = snapped
    one_hot = F.one_hot(codes, 6).reshape(len(codes), -1).numpy()
    model = linear_model.LogisticRegression(C=1e6, fit_intercept=False, max_iter=5000, tol=1e-8)
    model.fit(one_hot, y.numpy())
    values = fit_values(codes, y, classes=3, keys=6, rate=80.0, epochs=800, batch=400, smoothing=0.0, seed=0)
    said = value_logits(values, codes).softmax(1)
    assert (said.argmax(1).numpy() == model.predict(one_hot)).mean() > 0.99
    assert np.abs(said.numpy() - model.predict_proba(one_hot)).mean() < 0.01


def test_a_step_is_the_gradient_that_autograd_finds(snapped):
    codes, y = snapped
    table = torch.zeros(4, 6, 3, dtype=torch.float64, requires_grad=True)
    logits = torch.stack([table[c, codes[:, c]] for c in range(4)]).mean(0)
    F.cross_entropy(logits, y, label_smoothing=0.1).backward()
    found = fit_values(codes, y, classes=3, keys=6, rate=2.0, epochs=1, batch=400, seed=0)
    assert (found + 2.0 * table.grad).abs().max() < 1e-12
    assert table.grad.norm() <= math.sqrt(2 / 4)  # why no clipping at 1 is needed


def test_values_that_were_not_fetched_stay_bit_for_bit(snapped):
    codes, y = snapped
    before = torch.randn(4, 6, 3, generator=torch.Generator().manual_seed(0)).double()
    few = codes[:5]
    after = fit_values(few, y[:5], classes=3, keys=6, values=before, seed=0)
    fetched = fetch_counts(few, keys=6) > 0
    assert torch.equal(after[~fetched], before[~fetched])
    assert (after[fetched] != before[fetched]).any(1).all()


def test_counted_values_are_the_same_in_every_order_bit_for_bit(snapped):
    codes, y = snapped
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    one, other = (count_values(codes[rows], y[rows], classes=3, keys=6) for rows in (slice(None), order))
    assert torch.equal(one, other)
    c, j, k = 1, 2, 0
    seen = codes[:, c] == j
    assert one[c, j, k].item() == pytest.approx(math.log((int((y[seen] == k).sum()) + 1) / (int(seen.sum()) + 3)))


def test_interference_by_all_pairs_of_images(snapped):
    codes, y = (part[:60] for part in snapped)
    pairs = {}
    for a in range(60):
        for b in range(60):
            if y[a] != y[b]:
                pairs.setdefault((int(y[a]), int(y[b])), []).append((codes[a] == codes[b]).double().mean().item())
    slow = np.mean([np.mean(each) for each in pairs.values()])
    assert key_interference(codes, y, keys=6) == pytest.approx(slow, rel=1e-12)


def test_what_does_not_fit_is_named(snapped):
    codes, y = snapped
    with pytest.raises(ValueError, match=r"codes must lie in \[0, 3\)"):
        fetch_counts(codes, keys=3)
    with pytest.raises(TypeError, match=r"codes must be whole numbers"):
        fetch_counts(codes.double(), keys=6)
    with pytest.raises(
        ValueError, match=r"values must be \(codebooks, keys, classes\), \(4, 6, 3\); they are \(4, 5, 3\)"
    ):
        fit_values(codes, y, classes=3, keys=6, values=torch.zeros(4, 5, 3), seed=0)
    with pytest.raises(ValueError, match="codes must have a column a codebook, 2; they have 4"):
        value_logits(torch.zeros(2, 6, 3), codes)
    with pytest.raises(ValueError, match="counts must be"):
        key_codes(torch.ones(2, 1), KeyBook(torch.ones(1, 1, 1), torch.ones(1, 2, 1)), counts=[[0, 0]])
    with pytest.raises(ValueError, match="labels must be of at least two classes; all are 1"):
        key_interference(codes, y * 0 + 1, keys=6)


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e4, 1e6])
def test_a_common_offset_of_keys_and_features_changes_no_code(offset):
    generator = torch.Generator().manual_seed(0)
    keys, x = (torch.randn(shape, generator=generator) + offset for shape in ((1, 64, 4), (500, 4)))
    book = KeyBook(torch.eye(4)[None], keys)
    far = torch.cdist(x.double(), keys[0].double(), compute_mode="donot_use_mm_for_euclid_dist")
    # of two keys that are equally far to six digits either may be taken
    assert far.gather(1, key_codes(x, book)).sub(far.amin(1, keepdim=True)).max() < 1e-5
    assert key_distance(x, book).sub(far.amin(1)).abs().max() < 1e-5


def test_keys_follow_features_that_lie_far_from_zero():
    x, _ = drawn()
    options = dict(codebooks=1, keys=8, width=None, seed=0)
    near, far = (key_distance(each, fit_keys(each, **options)).mean().item() for each in (x, x + 1e4))
    assert far < 1.1 * near


def test_projected_features_far_from_zero_keep_their_digits():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 32, generator=generator) + 1e4
    book = fit_keys(x, codebooks=3, keys=16, width=4, seed=0)
    heads = torch.matmul(x.double(), book.projections.double())
    far = torch.cdist(heads, book.keys.double(), compute_mode="donot_use_mm_for_euclid_dist")
    found = key_codes(x, book)
    assert far.gather(2, found.T[..., None])[..., 0].sub(far.amin(2)).max() < 1e-4
    assert key_distance(x, book).sub(far.amin(2).mean(0)).abs().max() < 1e-4


@pytest.mark.parametrize(("chunk", "rows"), [(1, 1), (40, 4), (2**21, 64)])
def test_blocks_of_rows_and_codebooks_change_nothing(chunk, rows, monkeypatch):
    x, _ = drawn()
    book = fit_keys(x, codebooks=5, keys=7, width=2, seed=0)
    counts = torch.arange(35).view(5, 7) % 3
    codes, distance = key_codes(x, book, counts=counts), key_distance(x, book)
    monkeypatch.setattr(key_values, "CHUNK", chunk)
    monkeypatch.setattr(key_values, "ROWS", rows)
    assert torch.equal(key_codes(x, book, counts=counts), codes)
    assert key_distance(x, book).sub(distance).abs().max() < 1e-6


def test_with_fewer_features_than_a_batch_a_share_is_one_of_those_there_are():
    """Four heaps of five, a key on each: the share of a key is five images, not 64."""
    x = torch.tensor([[0.0], [10.0], [20.0], [30.0]]).repeat(5, 1) + torch.linspace(0, 0.1, 20)[:, None]
    book, more = (fit_keys(x, codebooks=1, keys=4, width=None, batch=batch, epochs=300, seed=0) for batch in (20, 5000))
    assert torch.equal(book.keys, more.keys)


def test_books_that_do_not_fit_are_named():
    x, good = torch.ones(2, 3), KeyBook(torch.eye(3)[None], torch.zeros(1, 4, 3))
    for wrong in (
        good._replace(keys=torch.zeros(4, 3)),
        good._replace(keys=torch.zeros(2, 4, 3)),
        good._replace(keys=torch.zeros(1, 4, 2)),
    ):
        with pytest.raises(ValueError, match=r"book must hold projections \(codebooks, features, width\)"):
            key_codes(x, wrong)
    with pytest.raises(ValueError, match=r"book\.keys must be finite; row 0, column 1, column 2 is nan"):
        key_distance(
            x,
            good._replace(
                keys=good.keys.index_put((torch.tensor(0), torch.tensor(1), torch.tensor(2)), torch.tensor(math.nan))
            ),
        )
    with pytest.raises(ValueError, match="features must have width 3"):
        key_codes(torch.ones(2, 4), good)
    with pytest.raises(ValueError, match="seed must be"):
        fit_keys(torch.ones(9, 3), seed=2**70)
