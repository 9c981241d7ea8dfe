"""PGD beside closed forms and other libraries, what it leaves as it was, and the training step."""

import importlib
import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from uqlib.attack import UnitImages, adversarial_step, pgd, robust_correct
from uqlib.networks import Preprocessing
from uqlib.training import loop

ROUNDING = 1e-6  # of float32 in [0, 1], some operations


def linear(classes=3, pixels=3 * 4 * 4, seed=0):
    """Logits that are linear in the pixels."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(pixels, classes))


def normed(seed=0):
    """A small convolutional network with batch norm and dropout, in eval mode."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.Dropout(0.5), nn.Linear(32, 4)).eval()


def pictures_of(n=20, side=4, classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(n, 3, side, side, generator=generator)
    return images, torch.randint(classes, (n,), generator=generator)


def fixed(seed=0):
    return torch.Generator().manual_seed(seed)


# Closed forms


@pytest.mark.parametrize("label", [0, 1])
def test_on_a_linear_network_every_value_moves_by_the_radius_towards_the_other_class(label):
    network, radius = linear(classes=2), 0.1
    images = pictures_of()[0]
    other = network[1].weight[1 - label] - network[1].weight[label]
    expected = (images + radius * other.sign().view(3, 4, 4)).clamp(0, 1)
    found = pgd(network, images, torch.full((20,), label), radius=radius, step_size=0.03, steps=10)
    assert (found - expected).abs().max() < ROUNDING


def test_without_a_start_the_first_step_goes_as_far_as_its_size():
    network, (images, labels) = normed(), pictures_of(side=8, classes=4)
    x = images.clone().requires_grad_()
    slope = torch.autograd.grad(F.cross_entropy(network(x), labels), x)[0]
    expected = (images + 0.02 * slope.sign()).clamp(0, 1)
    found = pgd(network, images, labels, radius=0.1, step_size=0.02, steps=1, start="none")
    assert (found - expected).abs().max() < ROUNDING


def test_the_random_start_is_uniform_in_the_ball():
    images = torch.full((10, 1, 100, 100), 0.5)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(10_000, 2))
    nn.init.zeros_(flat[1].weight)  # no slope: what is found is where it began
    labels = torch.zeros(10, dtype=torch.long)
    change = (pgd(flat, images, labels, radius=0.2, steps=1, generator=fixed()) - images).double() / 0.2
    n = change.numel()
    assert abs(change.mean()) < 4 / math.sqrt(3 * n)
    assert abs(change.square().mean() - 1 / 3) < 4 * math.sqrt(4 / 45 / n)
    assert change.abs().max() <= 1 + ROUNDING


# The ball


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ball", ["clean", "start"])
@pytest.mark.parametrize("start", ["random", "none"])
def test_the_ball_and_the_unit_interval_hold(seed, ball, start):
    network, (images, labels) = normed(seed), pictures_of(side=8, classes=4, seed=seed)
    images = images.round(decimals=1)  # some are 0 or 1
    found = pgd(network, images, labels, radius=0.1, step_size=0.07, steps=7, ball=ball, start=start)
    reach = 0.2 if (ball, start) == ("start", "random") else 0.1
    assert (found - images).abs().max() <= reach + ROUNDING
    assert found.min() >= 0
    assert found.max() <= 1


def test_around_the_noisy_start_values_move_by_up_to_twice_the_radius_and_half_of_them_by_more_than_once():
    network, images = linear(classes=2, pixels=3 * 32 * 32), torch.full((8, 3, 32, 32), 0.5)
    labels, radius = torch.zeros(8, dtype=torch.long), 8 / 255
    options = {"radius": radius, "step_size": 2 / 255, "steps": 20, "generator": fixed()}
    change = (pgd(network, images, labels, ball="start", **options) - images).abs()
    # u + radius with u uniform in [-radius, radius]: uniform in [0, 2 radius]
    assert 1.99 * radius < change.max() <= 2 * radius + ROUNDING
    assert abs((change > radius).double().mean() - 0.5) < 4 * 0.5 / math.sqrt(change.numel())
    assert (pgd(network, images, labels, **options) - images).abs().max() <= radius + ROUNDING


# Strength


@pytest.fixture(scope="module")
def learnt():
    """A network that knows four tints after a short training, with images and labels; all but one in a hundred are right."""
    generator = fixed()
    images, labels = torch.rand(400, 3, 8, 8, generator=generator), torch.arange(400) % 4
    tints = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]])
    images = (0.85 * images + 0.15 * tints[labels][:, :, None, None]).clamp(0, 1)
    network = normed().train()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(network(images), labels).backward()
        optimizer.step()
    optimizer.zero_grad()
    return network.eval(), images, labels


def test_an_ordinary_network_has_no_accuracy_left(learnt):
    network, images, labels = learnt
    assert (network(images).argmax(-1) == labels).double().mean() > 0.95
    assert not robust_correct(network, images, labels, radius=0.2, step_size=0.05, steps=20).any()


def test_more_steps_and_a_larger_radius_are_never_weaker_on_average(learnt):
    network, images, labels = learnt

    def loss(steps, radius=0.04):
        moved = pgd(network, images, labels, radius=radius, step_size=0.01, steps=steps, start="none")
        return F.cross_entropy(network(moved), labels).item()

    by_steps, by_radius = [loss(k) for k in (1, 2, 4, 8, 16)], [loss(16, r) for r in (0.01, 0.02, 0.04, 0.08)]
    assert all(later >= earlier - 1e-5 for earlier, later in pairwise(by_steps))
    assert by_steps[-1] > 1.5 * by_steps[0]
    assert all(later > earlier for earlier, later in pairwise(by_radius))


def test_what_is_wrong_before_the_attack_counts_as_wrong(learnt):
    network, images, labels = learnt
    options = {"radius": 1e-6, "step_size": 1e-6, "steps": 1}
    right = network(images).argmax(-1) == labels
    assert torch.equal(robust_correct(network, images, labels, batch=33, **options), right)
    # the attack on a wrong label would lead to the right one; it does not count
    wrong = (network(images).argmax(-1) + 1) % 4
    assert not robust_correct(network, images, wrong, radius=0.5, step_size=0.1, steps=5).any()


def test_robust_correct_is_the_answer_on_what_pgd_finds(learnt):
    network, images, labels = learnt
    options = {"radius": 0.05, "step_size": 0.01, "steps": 5, "start": "none"}
    after = network(pgd(network, images, labels, **options)).argmax(-1) == labels
    found = robust_correct(network, images, labels, batch=64, **options)
    assert 0.05 < found.double().mean() < 0.95
    assert torch.equal(found, after & (network(images).argmax(-1) == labels))


# What stays as it was


def test_the_same_generator_gives_the_same_bits_and_the_global_one_is_not_drawn_from():
    network, (images, labels) = normed(), pictures_of(side=8, classes=4)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second, other = (pgd(network, images, labels, generator=fixed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    assert torch.equal(before, torch.get_rng_state())


def everything(network):
    """All that a call may not change, as one can compare it."""
    return {
        "modes": [module.training for module in network.modules()],
        "wanted": [p.requires_grad for p in network.parameters()],
        "gradients": [p.grad is None for p in network.parameters()],
        "state": {name: tensor.clone() for name, tensor in network.state_dict().items()},
    }


def assert_same(before, after):
    state, state_after = before.pop("state"), after.pop("state")
    assert before == after
    assert all(torch.equal(state[name], state_after[name]) for name in state)


@pytest.mark.parametrize("call", [pgd, robust_correct])
@pytest.mark.parametrize("grad", [True, False])
def test_the_network_and_the_images_are_as_before(call, grad):
    network, (images, labels) = normed(), pictures_of(side=8, classes=4)
    network[6].weight.requires_grad_(False)
    if call is robust_correct:
        network.train()
        network[1].eval()  # a mixture of modes comes back, too
    given, before = images.clone(), everything(network)
    with torch.set_grad_enabled(grad):
        found = call(network, images.requires_grad_(), labels, steps=2)
    assert_same(before, everything(network))
    assert torch.equal(images.detach(), given)
    assert not found.requires_grad
    assert images.grad is None


def test_a_gradient_that_was_there_stays():
    network, (images, labels) = normed(), pictures_of(side=8, classes=4)
    network[6].bias.grad = torch.arange(4.0)
    pgd(network, images, labels)
    assert torch.equal(network[6].bias.grad, torch.arange(4.0))


def test_modes_come_back_after_an_error():
    network, (images, labels) = normed().train(), pictures_of(side=8, classes=4)
    with pytest.raises(ValueError, match="unknown ball"):
        robust_correct(network, images, network.eval()(images).argmax(-1), ball="big")
    assert not any(module.training for module in network.modules())
    network.train()
    with pytest.raises(ValueError, match="labels"):
        robust_correct(network, images, labels + 9)
    assert all(module.training for module in network.modules())


def test_float64_stays_float64():
    network, (images, labels) = normed().double(), pictures_of(side=8, classes=4)
    found = pgd(network, images.double(), labels, start="none")
    assert found.dtype == torch.float64
    assert (found - images).abs().max() <= 8 / 255 + 1e-15


# Images in [0, 1]


def test_unit_images_normalise_by_colour_and_train_what_they_hold():
    model, images = normed(), pictures_of(side=8)[0]
    mean, std = (0.5, 0.25, 0.125), (0.25, 0.5, 2.0)
    network = UnitImages(model, Preprocessing(8, mean, std))
    normalised = torch.stack([(images[:, k] - mean[k]) / std[k] for k in range(3)], 1)
    assert torch.equal(network.eval()(images), model(normalised))
    assert {name.removeprefix("model.") for name in network.state_dict()} == set(model.state_dict())
    assert [*map(id, network.parameters())] == [*map(id, model.parameters())]


def test_the_radius_is_in_units_of_the_image_and_not_of_what_is_normalised():
    network, (images, labels) = UnitImages(linear(), Preprocessing(4, (0.5,) * 3, (0.1,) * 3)), pictures_of()
    found = pgd(network, images, labels, radius=0.1, step_size=0.1, steps=3)
    assert 0.0999 < (found - images).abs().max() <= 0.1 + ROUNDING


# Training


def views_of(images):
    return lambda rows, generator: images[rows]


def statistics(network):
    return [buffer.clone() for name, buffer in network.named_buffers() if "running" in name]


def one_step(network, images, labels, **options):
    network.train()
    step = adversarial_step(network, views_of(images), labels, steps=3, **options)
    return step(torch.arange(len(images)), fixed())


def test_the_loss_is_that_of_the_attacked_images_alone():
    network, (images, labels) = normed(), pictures_of(side=8, classes=4)
    nn.init.zeros_(network[6].bias)
    network[5].p = 0.0
    moved = pgd(network, images, labels, steps=3, generator=fixed())  # in eval mode
    found = one_step(network, images, labels)
    again = F.cross_entropy(network(moved), labels)  # in train mode, with the statistics of the batch
    assert found.item() == pytest.approx(again.item(), rel=1e-6)
    assert found.requires_grad
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(("mode", "passes"), [("eval", 1), ("train", 4)])
def test_how_often_the_statistics_of_batch_norm_move(mode, passes):
    network, (images, labels) = normed(), pictures_of(side=8, classes=4)
    before = statistics(network)
    one_step(network, images, labels, attack_mode=mode)
    assert network[1].num_batches_tracked == passes  # the pass that trains, and in train mode those of the attack
    assert not any(torch.equal(old, new) for old, new in zip(before, statistics(network), strict=True))
    assert all(module.training for module in network.modules())


def test_an_attack_in_eval_mode_leaves_the_statistics_to_the_bit():
    network, (images, labels) = normed(), pictures_of(side=8, classes=4)
    before = statistics(network)
    pgd(network, images, labels)
    assert all(torch.equal(old, new) for old, new in zip(before, statistics(network), strict=True))


def test_training_by_the_loop_makes_a_network_robust_and_is_repeatable(learnt):
    _, images, labels = learnt
    attack = {"radius": 0.06, "step_size": 0.02, "steps": 5}

    def trained(attacked):
        network = normed()
        plain = lambda rows, generator: F.cross_entropy(network(images[rows]), labels[rows])  # noqa: E731
        step = adversarial_step(network, views_of(images), labels, **attack) if attacked else plain
        options = {"batch": 50, "seed": 0, "progress": False, "optimizer": "adamw"}
        loop(step, examples=400, parts={"model": network}, trained=network.parameters(), epochs=12, lr=0.01, **options)
        return network

    first, again, ordinary = trained(True), trained(True), trained(False)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    robust, fragile = (
        robust_correct(each, images, labels, generator=fixed(), **attack).double().mean() for each in (first, ordinary)
    )
    assert robust > fragile + 0.1


# Beside other libraries


def test_without_a_random_start_it_is_the_pgd_of_the_adversarial_robustness_toolbox():
    pytest.importorskip("art")
    from art.attacks.evasion import ProjectedGradientDescentPyTorch
    from art.estimators.classification import PyTorchClassifier

    network, (images, labels) = normed(), pictures_of(side=8, classes=4)
    estimator = PyTorchClassifier(
        network,
        loss=nn.CrossEntropyLoss(),
        input_shape=(3, 8, 8),
        nb_classes=4,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    options = {"eps": 0.1, "eps_step": 0.03, "max_iter": 6, "num_random_init": 0, "verbose": False}
    other = ProjectedGradientDescentPyTorch(estimator, **options).generate(images.numpy(), labels.numpy())
    network.eval()
    found = pgd(network, images, labels, radius=0.1, step_size=0.03, steps=6, start="none")
    assert (found - torch.from_numpy(other)).abs().max() < ROUNDING


def test_without_a_random_start_it_is_the_pgd_of_foolbox():
    foolbox = pytest.importorskip("foolbox")
    network, (images, labels) = normed(), pictures_of(side=8, classes=4)
    model = foolbox.PyTorchModel(network, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(abs_stepsize=0.03, steps=6, random_start=False)
    other = attack.run(model, images, foolbox.criteria.Misclassification(labels), epsilon=0.1)
    found = pgd(network, images, labels, radius=0.1, step_size=0.03, steps=6, start="none")
    assert (found - other).abs().max() < ROUNDING


def test_without_a_random_start_it_is_the_pgd_of_torchattacks():
    pytest.importorskip("torchattacks")
    attack = importlib.import_module("torchattacks.attacks.pgd").PGD
    network, (images, labels) = normed(), pictures_of(side=8, classes=4)
    other = attack(network, eps=0.1, alpha=0.03, steps=6, random_start=False)(images, labels)
    found = pgd(network, images, labels, radius=0.1, step_size=0.03, steps=6, start="none")
    assert (found - other).abs().max() < ROUNDING


# Errors


@pytest.mark.parametrize("call", [pgd, robust_correct])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"radius": 0.0}, r"radius must be a finite number above 0; it is 0"),
        ({"radius": 8}, r"radius must lie in \(0, 1\], for images in \[0, 1\]; it is 8.* Pass 8 / 255"),
        ({"radius": math.nan}, r"radius must be .*; it is nan"),
        ({"step_size": -0.1}, r"step_size must be a finite number above 0; it is -0\.1"),
        ({"steps": 0}, r"steps must be a whole number.*; it is 0"),
        ({"ball": "both"}, r"unknown ball 'both'; choose from clean, start"),
        ({"start": "zero"}, r"unknown start 'zero'; choose from random, none"),
    ],
)
def test_bad_options_are_named(call, changes, message):
    network, (images, _) = normed(), pictures_of(side=8)
    with pytest.raises(ValueError, match=message):
        call(network, images, network(images).argmax(-1), **changes)


@pytest.mark.parametrize("call", [pgd, robust_correct])
@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (torch.full((2, 3, 8, 8), 1.5), ValueError, r"images must lie in \[0, 1\]; they reach from 1\.5 to 1\.5"),
        (torch.full((2, 3, 8, 8), -0.1), ValueError, r"images must lie in \[0, 1\]"),
        (torch.full((2, 3, 8, 8), math.nan), ValueError, r"images must lie in \[0, 1\]; they reach from nan"),
        (torch.full((2, 3, 8, 8), math.inf), ValueError, r"images must lie in \[0, 1\]; they reach from inf"),
        (torch.zeros(0, 3, 8, 8), ValueError, r"images must have shape \(n, ch, h, w\); theirs is \(0, 3, 8, 8\)"),
        (torch.zeros(2, 3, 8), ValueError, r"images must have shape \(n, ch, h, w\); theirs is \(2, 3, 8\)"),
        (
            torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
            TypeError,
            r"floats in \[0, 1\]; they are torch.uint8.*images / 255",
        ),
        ("cat", TypeError, r"images must be .*cat"),
    ],
)
def test_bad_images_are_named(unchecked, call, images, error, message):
    with pytest.raises(error, match=message):
        call(normed(), images, torch.zeros(2, dtype=torch.long))


@pytest.mark.parametrize("call", [pgd, robust_correct])
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.tensor([0, 4]), ValueError, r"labels must lie in \[0, 4\); row 1 is 4"),
        (torch.tensor([0, -1]), ValueError, r"labels must be 0 or larger; row 1 is -1"),
        (torch.tensor([0, 1, 2]), ValueError, r"labels has 3 rows where 2 are expected"),
        (torch.tensor([0.0, 1.0]), TypeError, r"labels must be integers; they are torch.float32"),
    ],
)
def test_bad_labels_are_named(unchecked, call, labels, error, message):
    with pytest.raises(error, match=message):
        call(normed(), torch.full((2, 3, 8, 8), 0.5), labels)


def test_a_step_refuses_an_unknown_mode():
    with pytest.raises(ValueError, match="unknown attack_mode 'test'; choose from eval, train"):
        adversarial_step(normed(), views_of(None), torch.zeros(2, dtype=torch.long), attack_mode="test")


@pytest.mark.parametrize("broken", [lambda z: z.detach(), lambda z: torch.zeros_like(z).requires_grad_()])
def test_a_network_without_a_gradient_is_named(broken):
    class Cut(nn.Module):
        def forward(self, images):
            return broken(images.flatten(1)[:, :2])

    with pytest.raises(ValueError, match="network must pass a gradient from its logits to the images; none arrives"):
        pgd(Cut(), torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 1]), radius=0.1, step_size=0.1, steps=2)


def test_a_network_of_probabilities_is_refused():
    probable = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Softmax(-1))
    with pytest.raises(ValueError, match="the network's outputs look like probabilities"):
        robust_correct(probable, torch.rand(20, 1, 2, 2), torch.arange(20) % 3, radius=0.1, step_size=0.1, steps=1)


@pytest.mark.parametrize("attacked", [pgd, robust_correct])
def test_a_gradient_that_is_nan_is_named(attacked):
    """Its sign is 0, so that the image would stay where it is, and count as one that withstands every attack."""

    class Rooted(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = linear(pixels=4)

        def forward(self, images):
            return self.inner(images.square().sqrt())  # finite at 0, but not its slope

    network, images = Rooted(), torch.full((3, 1, 2, 2), 0.5)
    images[1] = 0
    with torch.no_grad():
        labels = network(images).argmax(-1)
    with pytest.raises(ValueError, match="the network's gradient must not be NaN; to image 1 it is"):
        attacked(network, images, labels, start="none", steps=2)
    assert pgd(network, images[[0, 2]], labels[[0, 2]], start="none", steps=2).isfinite().all()


def test_outputs_that_are_nan_after_the_attack_are_no_answer():
    class Cliff(nn.Module):
        def forward(self, images):
            score = images.flatten(1).sum(1)
            return torch.stack([score, torch.where(score > 2.0, torch.nan, 2 * score - 2)], 1)

    with pytest.raises(
        ValueError, match="the network's outputs after the attack must be finite; row 0, column 1 is nan"
    ):
        robust_correct(Cliff(), torch.full((2, 1, 2, 2), 0.48), [0, 0], start="none", steps=1, step_size=0.03)


def test_a_gradient_that_is_one_number_for_all_pixels_moves_them():
    """Autograd hands it over as one number that is repeated, which nothing may be written into."""

    class Bright(nn.Module):
        def forward(self, images):
            score = images.flatten(1).sum(1)
            return torch.stack([-score, score], 1)

    options = {"radius": 0.25, "step_size": 0.125, "steps": 4, "start": "none"}
    moved = pgd(Bright(), torch.full((2, 1, 2, 2), 0.5), torch.tensor([0, 1]), **options)
    assert moved.flatten(1).tolist() == [[0.75] * 4, [0.25] * 4]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_normalised_images_come_in_the_precision_of_the_network(dtype):
    model = normed().to(dtype)
    attacked = UnitImages(model, Preprocessing(8, (0.5,) * 3, (0.25,) * 3))
    images = pictures_of(6, side=8)[0]
    moved = pgd(attacked, images, torch.arange(6) % 4, steps=3, start="none")
    assert attacked(images).dtype == dtype
    assert (moved - images).abs().max().item() == pytest.approx(6 / 255, abs=ROUNDING)
    assert robust_correct(attacked, images, torch.arange(6) % 4, steps=3, start="none").shape == (6,)
