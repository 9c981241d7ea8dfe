import numpy as np
import pytest
import torch
import torch.nn.functional as F
from methods import BATCH, EPOCHS, IMAGES, LABELS, LR, SEED, descend, seen, sgd, steps_by_hand
from toys import PLAIN, Small, fit, weights

from uqlib import losses
from uqlib.training import features_of, predict


def test_full_batches_give_the_steps_of_plain_gradient_descent(pictures):
    images, labels = pictures
    model, plain = Small(), Small()
    fit(model, images, labels, epochs=4, batch=40, warmup=0.5, weight_decay=0.01, augmentation="none")
    x = (torch.tensor(images).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    optimizer = torch.optim.SGD(plain.parameters(), lr=1.0, momentum=0.9, nesterov=True, weight_decay=0.01)
    # four steps: the rate rises over the first two from a tenth, then half a cosine
    for rate in (0.05 * 0.1, 0.05 * 0.55, 0.05 * 1.0, 0.05 * 0.5):
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        F.cross_entropy(plain(x), torch.tensor(labels)).backward()
        optimizer.step()
    assert (weights(model) - weights(plain)).abs().max() < 1e-6  # float32, sums in another order


def test_training_learns_and_judges(pictures):
    images, labels = pictures
    model = Small()
    history = fit(model, images, labels, epochs=20, validation=pictures)
    assert history[-1].nll < history[0].nll
    assert history[-1].accuracy > 0.8
    assert [epoch.epoch for epoch in history] == list(range(1, 21))
    logits = predict(model, images, preprocessing=PLAIN, batch=7)
    seen = features_of(model, images, preprocessing=PLAIN, batch=7)
    assert torch.allclose(model.get_classifier()(seen), logits, atol=1e-6)
    assert history[-1].accuracy == pytest.approx((logits.argmax(-1).numpy() == labels).mean())
    assert history[-1].nll == pytest.approx(F.cross_entropy(logits.double(), torch.tensor(labels)).item())


def test_a_loss_that_has_served_starts_anew(pictures):
    images, labels = pictures
    criterion, runs = losses.ranking(examples=40), []
    for _ in range(2):
        model = Small()
        fit(model, images, labels, epochs=3, loss=criterion)
        runs.append(weights(model))
    assert torch.equal(*runs)
    assert (criterion.times == 3).all()
    plain = Small()
    fit(plain, images, labels, epochs=3)
    assert not torch.equal(weights(plain), runs[0])


def test_training_rows_may_be_permuted_together_with_their_weights(pictures):
    images, labels = pictures
    difficulty = np.random.default_rng(1).random(40)
    order = np.random.default_rng(2).permutation(40)
    options = {"epochs": 6, "batch": 40, "augmentation": "none"}  # whole batches, whatever the order of the rows
    runs = []
    for weighted, rows in ((difficulty, np.arange(40)), (difficulty[order], order), (difficulty, order)):
        model = Small()
        fit(model, images[rows], labels[rows], loss=losses.difficulty(weighted, alpha=0.5), **options)
        runs.append(weights(model))
    assert (runs[0] - runs[1]).abs().max() < 1e-6  # float32, sums in another order
    assert (runs[0] - runs[2]).abs().max() > 1e-4
    model = Small()
    with pytest.raises(ValueError, match="Weights of another data set, or in another order"):
        fit(model, images[order], labels[order], loss=losses.difficulty(difficulty, labels), **options)
    with pytest.raises(ValueError, match="the weights belong to a training set of 40 rows; this one has 30"):
        fit(model, images[:30], labels[:30], loss=losses.difficulty(difficulty), **options | {"batch": 30})
    assert torch.equal(weights(model), weights(Small()))


@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_loss_trains(pictures, name):
    images, labels = pictures
    needed = {
        "ranking": {"examples": 40},
        "difficulty": {"weights": np.linspace(0, 1, 40), "labels": labels},
        "forward": {"transition": 0.9 * np.eye(3) + 0.1 / 3},
        "corrected": {"transition": 0.9 * np.eye(3) + 0.1 / 3, "trusted": np.arange(40) % 2 == 0},
        "weighted": {"class_weights": [1.5, 1.0, 0.5]},
    }
    model = Small()
    history = fit(model, images, labels, epochs=20, validation=pictures, loss=losses.loss(name, **needed.get(name, {})))
    assert history[-1].nll < history[0].nll
    assert history[-1].accuracy > 0.7


def test_the_seed_decides_and_the_global_generator_is_left_alone(pictures):
    images, labels = pictures
    torch.manual_seed(1)
    before = torch.get_rng_state()
    runs = []
    for seed in (0, 0, 1):
        model = Small(drop=0.5)
        fit(model, images, labels, epochs=1, seed=seed)
        runs.append(weights(model))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])


def test_the_loss_learns_which_rows_it_sees(pictures):
    images, labels = pictures
    seen = []

    def loss(logits, given, rows):
        assert (given == torch.tensor(labels)[rows]).all()
        seen.append(rows)
        return F.cross_entropy(logits, given)

    fit(Small(), images, labels, epochs=1, batch=12, loss=loss)
    rows = torch.cat(seen).tolist()
    assert len(rows) == len(set(rows)) == 36  # the four that fill no batch are left out


def test_frozen_parameters_stay(pictures):
    model = Small()
    model.conv.requires_grad_(False)
    before = model.conv.weight.clone()
    fit(model, *pictures, epochs=1)
    assert torch.equal(model.conv.weight, before)
    assert not torch.equal(model.head.weight, Small().head.weight)


def test_a_network_in_double_precision_trains_and_predicts(pictures):
    images, labels = pictures
    single, double = Small(), Small().double()
    one, two = fit(single, images, labels, epochs=2), fit(double, images, labels, epochs=2)
    assert two[-1].loss == pytest.approx(one[-1].loss, rel=1e-4)
    told = predict(double, images, preprocessing=PLAIN)
    assert told.dtype == features_of(double, images, preprocessing=PLAIN).dtype == torch.float32
    torch.testing.assert_close(told, predict(single, images, preprocessing=PLAIN), atol=1e-4, rtol=1e-4)


def test_mixed_precision_is_near_full_precision(pictures):
    images, labels = pictures
    full, mixed = Small(), Small()
    a, b = fit(full, images, labels, epochs=3), fit(mixed, images, labels, epochs=3, precision="bf16")
    assert b[-1].loss == pytest.approx(a[-1].loss, rel=0.05)
    assert not torch.equal(weights(full), weights(mixed))


def test_a_training_is_the_loop_that_one_would_write():
    """With mirrored images, dropout and batches that leave rows out, to the last bit."""
    with torch.random.fork_rng():
        plain = Small(drop=0.5)
        optimizer = sgd(plain, weight_decay=0.01)
        for now in steps_by_hand():
            descend(optimizer, F.cross_entropy(plain(seen(now)), LABELS[now.rows]), now.lr)
    model = Small(drop=0.5)
    fit(model, IMAGES, LABELS, epochs=EPOCHS, lr=LR, batch=BATCH, seed=SEED, weight_decay=0.01)
    assert torch.equal(weights(model), weights(plain))
