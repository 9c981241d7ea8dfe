import inspect
import math

import mpmath
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import default_dtype
from scipy.optimize import minimize_scalar

from uqlib import losses
from uqlib.losses import LOSSES, Recorded, entropy_of, loss, optimal_confidence, surprise

N, C = 12, 5
TRANSITION = 0.75 * np.eye(C) + 0.05
NEEDED = {
    "ranking": {"examples": 100},
    "difficulty": {"weights": torch.linspace(0, 1, 100)},
    "forward": {"transition": TRANSITION},
    "corrected": {"transition": TRANSITION, "trusted": np.arange(100) % 3 == 0},
    "weighted": {"class_weights": np.linspace(0.5, 1.5, C)},
    "aldr": {"examples": 100},
}


@pytest.fixture
def batch():
    """Logits in float64, labels, and the rows that they would be of a training set of 100."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(N, C, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, C, (N,), generator=generator)
    return logits, labels, torch.randperm(100, generator=generator)[:N]


def made(name, **options):
    return loss(name, **NEEDED.get(name, {}), **options)


def by_hand(logits, labels):
    """Probabilities of all classes and of the label, in plain NumPy."""
    exp = np.exp(logits.numpy())
    probs = exp / exp.sum(1, keepdims=True)
    return probs, probs[np.arange(len(labels)), labels.numpy()]


ROUNDING = {"rel": 1e-12, "abs": 1e-12}


def test_the_equations(batch):
    """Each loss as the fact sheet of the paper writes it, example by example."""
    logits, labels, rows = batch
    probs, p = by_hand(logits, labels)
    h = -(probs * np.log(probs)).sum(1)
    weights = NEEDED["difficulty"]["weights"][rows].double().numpy()
    for criterion, expected in (
        (losses.cross_entropy(), -np.log(p)),
        (losses.focal(), -((1 - p) ** 2) * np.log(p)),
        (losses.focal(gamma=3, detached=True), -((1 - p) ** 3) * np.log(p)),
        (losses.focal(gamma=0.5), -np.sqrt(1 - p) * np.log(p)),
        (losses.l1_norm(strength=0.05), -np.log(p) + 0.05 * np.abs(logits.numpy()).sum(1)),
        (losses.entropy(alpha=0.2), -np.log(p) - 0.2 * h),
        (losses.poly(epsilon=2), -np.log(p) + 2 * (1 - p)),
        (made("difficulty", alpha=0.3), -np.log(p) - 0.3 * weights * h),
    ):
        assert criterion.terms(logits, labels, rows).numpy() == pytest.approx(expected, **ROUNDING), criterion
        assert criterion(logits, labels, rows).item() == pytest.approx(expected.mean(), **ROUNDING), criterion
    assert surprise(logits, labels).numpy() == pytest.approx(-np.log(p), **ROUNDING)
    assert entropy_of(logits).numpy() == pytest.approx(h, **ROUNDING)


@pytest.mark.parametrize("epsilon", [0.0, 0.05, 0.5])
def test_label_smoothing_is_that_of_torch(batch, epsilon):
    logits, labels, _ = batch
    expected = F.cross_entropy(logits, labels, label_smoothing=epsilon)
    assert losses.label_smoothing(epsilon=epsilon)(*batch).item() == pytest.approx(expected.item(), **ROUNDING)


@pytest.mark.parametrize(
    "nothing",
    [
        losses.cross_entropy(),
        losses.label_smoothing(epsilon=0),
        losses.focal(gamma=0),
        losses.focal(gamma=0, detached=True),
        losses.l1_norm(strength=0),
        losses.entropy(alpha=0),
        losses.poly(epsilon=0),
        losses.difficulty(torch.linspace(0, 1, 100), alpha=0),
        losses.difficulty(torch.zeros(100), alpha=0.3),
        losses.ranking(examples=100),  # without a history all are equal
    ],
    ids=str,
)
def test_at_strength_nothing_it_is_cross_entropy(batch, nothing):
    assert torch.equal(nothing.terms(*batch), losses.cross_entropy().terms(*batch))
    logits, labels, _ = batch
    assert nothing(*batch).item() == pytest.approx(F.cross_entropy(logits, labels).item(), **ROUNDING)


def test_weights_of_one_are_the_constant_entropy_bonus(batch):
    weighted, constant = losses.difficulty(np.ones(100), alpha=0.2), losses.entropy(alpha=0.2)
    assert torch.equal(weighted(*batch), constant(*batch))


def with_history(criterion):
    """The ranking loss with shares of past epochs that differ, or any other loss as it is."""
    if hasattr(criterion, "right"):
        criterion.times.fill_(7)
        criterion.right.copy_(torch.randint(0, 8, (100,), generator=torch.Generator().manual_seed(1)))
    return criterion.eval()


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_those_of_finite_differences(batch, name):
    logits, labels, rows = batch
    criterion = with_history(made(name))
    assert torch.autograd.gradcheck(lambda z: criterion(z, labels, rows), logits.requires_grad_())


def test_the_focal_loss_is_that_of_lin_et_al(batch):
    """Their equation 4, and the gradient through all of it; their gamma is 2."""
    logits, labels, rows = batch
    z = logits.clone().requires_grad_()
    p = z.softmax(-1).gather(1, labels[:, None])[:, 0]
    (-((1 - p) ** 2) * p.log()).mean().backward()
    found = logits.clone().requires_grad_()
    losses.focal()(found, labels, rows).backward()
    assert torch.allclose(found.grad, z.grad, rtol=1e-12, atol=1e-15)


def test_defaults_are_those_of_the_papers_that_named_the_losses():
    """Szegedy et al. 2016, section 7; Lin et al. 2017, section 5.1; Pereyra et al. 2017, on CIFAR-10; Moon et al. 2020."""
    expected = ("label_smoothing", "epsilon", 0.1), ("focal", "gamma", 2.0), ("entropy", "alpha", 0.1)
    for name, option, value in (*expected, ("focal", "detached", False), ("ranking", "strength", 1.0)):
        assert inspect.signature(LOSSES[name]).parameters[option].default == value, name


def test_the_factor_of_the_detached_focal_loss_is_a_constant_for_the_gradient(batch):
    logits, labels, rows = batch
    p = logits.softmax(-1).gather(1, labels[:, None])[:, 0]
    z = logits.clone().requires_grad_()
    ((1 - p) ** 3 * F.cross_entropy(z, labels, reduction="none")).mean().backward()
    found = logits.clone().requires_grad_()
    losses.focal(gamma=3, detached=True)(found, labels, rows).backward()
    assert torch.allclose(found.grad, z.grad, rtol=1e-12, atol=1e-15)


def test_a_certain_example_has_a_finite_gradient_in_the_focal_loss():
    logits = torch.tensor([[200.0, 0.0], [0.0, 0.0]], requires_grad=True)
    zero = torch.zeros(2, dtype=torch.int64)
    losses.focal(gamma=0.5)(logits, zero, zero).backward()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_the_batch_does_not_matter(batch, name):
    if name == "ranking":
        pytest.skip("its pairs are neighbours")
    order = torch.randperm(N, generator=torch.Generator().manual_seed(3))
    assert made(name)(*(part[order] for part in batch)).item() == pytest.approx(made(name)(*batch).item(), rel=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_a_shift_of_all_logits_matters_to_the_l1_norm_alone(batch, name):
    logits, labels, rows = batch
    criterion = with_history(made(name))
    moved = criterion(logits + 3, labels, rows) - criterion(logits, labels, rows)
    assert (moved.abs() > 1e-12) == (name == "l1_norm")


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", LOSSES)
def test_under_autocast_it_is_float32_of_the_rounded_logits(batch, name, half):
    logits, labels, rows = batch
    criterion = with_history(made(name))
    rounded = (10 * logits).to(half)
    with torch.autocast("cpu", torch.bfloat16):
        value = criterion(rounded, labels, rows)
    assert value.dtype == torch.float32
    # float32 rounds a sum of a dozen numbers near 10
    assert value.item() == pytest.approx(criterion(rounded.double(), labels, rows).item(), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_confident_float32_logits_stay_finite(name):
    logits = torch.full((3, C), -300.0)
    logits[0, 0], logits[1, 1], logits[2] = 300.0, 300.0, 0.0
    logits.requires_grad_()
    zero = torch.zeros(3, dtype=torch.int64)
    value = with_history(made(name))(logits, zero, torch.arange(3))
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


# --- the fixed point

TABLE = {  # the fact sheet's table of the optimum, 4 decimals: strength 0.05, 0.10, 0.15, 0.20, 0.25, 0.30, 0.50
    10: [1.0000, 0.9996, 0.9894, 0.9544, 0.9031, 0.8492, 0.6789],
    100: [1.0000, 0.9957, 0.9294, 0.8190, 0.7213, 0.6430, 0.4536],
    1000: [1.0000, 0.9683, 0.8024, 0.6604, 0.5597, 0.4864, 0.3241],
}
STRENGTHS = [0.05, 0.10, 0.15, 0.20, 0.25, 0.30, 0.50]


@pytest.mark.parametrize("classes", TABLE)
def test_the_optimum_is_the_table(classes):
    assert optimal_confidence(STRENGTHS, classes) == pytest.approx(TABLE[classes], abs=5.1e-5)


def one_example(p, strength, classes):
    """The loss of one example whose label has probability p, the other classes the same of the rest."""
    rest = (1 - p) / (classes - 1)
    return -math.log(p) + strength * (p * math.log(p) + (1 - p) * math.log(rest))


@pytest.mark.parametrize("classes", [2, 10, 1000])
@pytest.mark.parametrize("strength", [0.15, 0.3, 1.0, 7.0])
def test_the_optimum_is_the_least_loss(strength, classes):
    found = minimize_scalar(
        one_example, (1e-9, 1 - 1e-12), args=(strength, classes), bounds=(1e-9, 1 - 1e-12), options={"xatol": 1e-12}
    )
    assert optimal_confidence(strength, classes) == pytest.approx(found.x, abs=1e-6)  # a search sees flat ground there


@pytest.mark.parametrize("classes", [2, 3, 10, 1000, 10**6])
@pytest.mark.parametrize("strength", [1e-3, 0.05, 0.2, 0.5, 3.0, 1e3, 1e6])
def test_the_optimum_to_twelve_digits(strength, classes):
    with mpmath.workdps(60):
        s, c = mpmath.mpf(strength), classes
        z = mpmath.findroot(  # in the lead z of the label's logit, where p = 1 / (1 + (c - 1) exp(-z))
            lambda z: s * z / (1 + (c - 1) * mpmath.exp(-z)) - 1,
            (1 / s, c / s),
            solver="anderson",
            maxsteps=500,
            tol=1e-80,
        )
        expected = 1 / (1 + (c - 1) * mpmath.exp(-z))
    assert optimal_confidence(strength, classes) == pytest.approx(float(expected), rel=1e-12)


def test_the_optimum_of_no_bonus_is_certainty_and_of_a_huge_one_is_guessing():
    found = optimal_confidence(torch.tensor([0.0, 1e-300, 1e-320, 1e12]), 10)
    assert found.dtype == torch.float64
    assert found.tolist() == pytest.approx([1, 1, 1, 0.1], abs=1e-9)
    assert isinstance(optimal_confidence(0.3, 10), float)
    assert isinstance(optimal_confidence(np.array([0.3]), 10), np.ndarray)


def trained(criterion, labels, classes, steps=400):
    """Free logits, one row an example, at the optimum of the loss."""
    logits = torch.zeros(len(labels), classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits], 1, steps, tolerance_grad=1e-13, tolerance_change=0, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        value = criterion(logits, labels, torch.arange(len(labels)))
        value.backward()
        return value

    optimizer.step(closure)
    return logits.detach()


@pytest.mark.parametrize("classes", [10, 100])
def test_free_logits_come_to_the_optimum(classes):
    """Weights that differ, each example at its own optimum."""
    weights = np.array([0.5, 2 / 3, 5 / 6, 1.0])
    labels = torch.arange(4)
    probs = trained(losses.difficulty(weights, alpha=0.3), labels, classes).softmax(-1)
    p = probs[labels, labels].numpy()
    assert p == pytest.approx(optimal_confidence(0.3 * weights, classes), abs=1e-5)  # L-BFGS stops about here
    assert p == pytest.approx([TABLE[classes][k] for k in (2, 3, 4, 5)], abs=6e-5)
    others = probs[0, 1:]
    assert (others.max() - others.min()) < 1e-6


def test_free_logits_under_label_smoothing_come_to_its_target():
    labels = torch.arange(3)
    probs = trained(losses.label_smoothing(epsilon=0.09), labels, 10).softmax(-1)
    assert probs[labels, labels].numpy() == pytest.approx(1 - 0.09 + 0.009, abs=1e-6)


# --- which row is which


def test_weights_follow_their_rows(batch):
    """A permutation of the training set, its weights permuted alike, is the same loss."""
    logits, labels, rows = batch
    weights, order = torch.rand(100, generator=torch.Generator().manual_seed(5)), torch.randperm(100)
    place = order.argsort()  # where each row went
    plain = losses.difficulty(weights)(logits, labels, rows)
    assert torch.equal(losses.difficulty(weights[order])(logits, labels, place[rows]), plain)
    assert not torch.equal(losses.difficulty(weights)(logits, labels, place[rows]), plain)


def test_a_batch_with_other_labels_than_the_weights_is_refused(batch):
    logits, labels, rows = batch
    whole = torch.zeros(100, dtype=torch.int64)
    whole[rows] = labels
    criterion = losses.difficulty(torch.rand(100), whole.numpy())
    assert criterion(logits, labels, rows).isfinite()
    other = labels.clone()
    other[3] = (labels[3] + 1) % C
    message = (
        f"row {int(rows[3])} of the training set has label {int(other[3])}, but its weight was made for label "
        f"{int(labels[3])}. Weights of another data set, or in another order?"
    )
    with pytest.raises(ValueError, match=message):
        criterion(logits, other, rows)
    with pytest.raises(ValueError, match="the weights belong to a training set of 100 rows; this one has 99"):
        criterion.begin(whole[1:])
    with pytest.raises(ValueError, match="Weights of another data set, or in another order"):
        criterion.begin(whole.roll(1))
    criterion.begin(whole)


def test_the_weights_are_kept_as_they_were(batch):
    weights = np.linspace(0, 1, 100, dtype=np.float32)
    criterion = losses.difficulty(weights)
    before = criterion(*batch)
    weights[:] = 0
    assert torch.equal(criterion(*batch), before)


@pytest.mark.parametrize("row", [100, -1])
@pytest.mark.parametrize(
    ("criterion", "what"),
    [
        (losses.difficulty(torch.ones(100)), "the weights belong"),
        (losses.ranking(examples=100), "the history belongs"),
        (Recorded(losses.cross_entropy(), examples=100, epochs=2), "the record belongs"),
    ],
    ids=["difficulty", "ranking", "recorded"],
)
def test_rows_beyond_the_training_set_are_named(batch, criterion, what, row):
    logits, labels, rows = batch
    rows[4] = row
    with pytest.raises(ValueError, match=f"{what} to a training set of 100 rows; row {row} came"):
        criterion(logits, labels, rows)
    with pytest.raises(ValueError, match=f"{what} to a training set of 100 rows; this one has 7"):
        criterion.begin(torch.zeros(7, dtype=torch.int64))


# --- the ranking loss and its history


def slow_ranking(logits, labels, share):
    """From the definition, one pair after the other; share is of all examples, those of the batch first."""
    probs, p = by_hand(logits, labels)
    c = (share - share.min()) / (1 - share.min())
    n, total = len(labels), 0.0
    for i in range(n):
        j = (i + 1) % n
        total += -math.log(p[i])
        if c[i] != c[j]:
            g = 1 if c[i] > c[j] else -1
            total += max(0.0, -g * (probs[i].max() - probs[j].max()) + abs(c[i] - c[j]))
    return total / n


def test_ranking_is_its_definition_over_epochs(batch):
    """Three epochs of batches in other orders, the history kept by hand."""
    generator = torch.Generator().manual_seed(2)
    labels = torch.randint(0, C, (24,), generator=generator)
    criterion = losses.ranking(examples=24)
    counts = np.zeros(24)
    for epoch in range(3):
        seen = np.full(24, epoch)
        for rows in torch.randperm(24, generator=generator).split(8):
            logits = 2 * torch.randn(8, C, generator=generator, dtype=torch.float64)
            logits[torch.arange(8), labels[rows]] += 1.0
            # those of the batch first, then the others
            everyone = np.concatenate([rows.numpy(), np.setdiff1d(np.arange(24), rows.numpy())])
            share = (counts / np.maximum(seen, 1))[everyone]
            value = criterion(logits, labels[rows], rows).item()
            assert value == pytest.approx(slow_ranking(logits, labels[rows], share), rel=1e-6)  # shares are float32
            counts[rows.numpy()] += (logits.argmax(1) == labels[rows]).numpy()
            seen[rows.numpy()] += 1
    assert np.array_equal(criterion.right.numpy(), counts)
    assert (criterion.times == 3).all()
    assert counts.std() > 0


def test_ranking_moves_the_least_share_to_zero(batch):
    """No example was always wrong; most are near each other, so that the order alone is enough for some pairs."""
    logits, labels, rows = batch
    criterion = losses.ranking(examples=100).eval()
    criterion.times.fill_(40)
    criterion.right.copy_(torch.randint(30, 41, (100,), generator=torch.Generator().manual_seed(1)))
    everyone = torch.cat([rows, torch.tensor(sorted(set(range(100)) - set(rows.tolist())))])
    share = (criterion.right.double() / 40)[everyone].numpy()
    expected = slow_ranking(3 * logits, labels, share)
    assert criterion(3 * logits, labels, rows).item() == pytest.approx(expected, rel=1e-6)  # shares are float32


def test_a_pair_in_the_wrong_order_costs_its_margin():
    """Two examples: one always right with confidence 0.6, one never right with confidence 0.9."""
    criterion = losses.ranking(examples=2, strength=2.0).eval()
    criterion.times.fill_(4)
    criterion.right.copy_(torch.tensor([4, 0]))
    logits = torch.tensor([[0.6, 0.4], [0.1, 0.9]], dtype=torch.float64).log()
    penalty = (
        criterion.terms(logits, torch.tensor([0, 0]), torch.tensor([0, 1])) + torch.tensor([0.6, 0.1]).double().log()
    )
    assert penalty.numpy() == pytest.approx(2 * (1 - (0.6 - 0.9)) * np.ones(2), rel=1e-6)
    logits = torch.tensor([[200.0, 0.0], [0.0, 0.0]])  # in the right order, and as far apart as they can be
    penalty = criterion.terms(logits, torch.tensor([0, 0]), torch.tensor([0, 1])) - F.cross_entropy(
        logits, torch.tensor([0, 0]), reduction="none"
    )
    assert penalty.numpy() == pytest.approx(2 * (1 - 0.5) * np.ones(2), rel=1e-6)


@pytest.mark.parametrize("right", [0, 2, 3])
def test_examples_of_one_history_are_not_ranked(batch, right):
    criterion = losses.ranking(examples=100).eval()
    criterion.times.fill_(3)
    criterion.right.fill_(right)
    assert torch.equal(criterion(*batch), losses.cross_entropy()(*batch))


def test_history_grows_in_training_alone_and_starts_anew(batch):
    logits, labels, rows = batch
    criterion = losses.ranking(examples=100)
    criterion.eval()(*batch)
    assert not criterion.times.any()
    criterion.train()(*batch)
    assert torch.equal(criterion.times.nonzero()[:, 0], rows.sort().values)
    assert torch.equal(criterion.right[rows], (logits.argmax(-1) == labels).long())
    assert set(criterion.state_dict()) == {"right", "times"}
    criterion.begin(torch.zeros(100, dtype=torch.int64))
    assert not criterion.times.any()
    assert not criterion.right.any()


# --- the record


def test_the_record_is_what_happened(batch):
    """Row 3 is left out of the second of three epochs."""
    generator = torch.Generator().manual_seed(4)
    labels = torch.randint(0, C, (6,), generator=generator)
    plain = losses.entropy(alpha=0.1)
    criterion = Recorded(plain, examples=6, epochs=3)
    told = {row: [] for row in range(6)}
    for epoch in range(3):
        for rows in torch.randperm(6, generator=generator).split(2):
            rows = rows[rows != 3] if epoch == 1 else rows
            logits = torch.randn(len(rows), C, generator=generator)
            assert torch.equal(criterion(logits, labels[rows], rows), plain(logits, labels[rows], rows))
            for row, z in zip(rows.tolist(), logits, strict=True):
                told[row].append((bool(z.argmax() == labels[row]), F.cross_entropy(z, labels[row]).item()))
    correct, nll = criterion.correct.numpy(), criterion.nll.numpy()
    for row, each in told.items():
        right, value = zip(*each, strict=True)
        assert correct[: len(right), row].tolist() == list(right)
        assert nll[: len(value), row] == pytest.approx(value, rel=1e-5)
    assert correct[2, 3] == correct[1, 3]  # seen twice: no forgetting is made up
    assert math.isnan(nll[2, 3])
    assert np.isnan(nll).sum() == 1
    with pytest.raises(ValueError, match="the record has room for 3 epochs; row 0 came once more"):
        criterion(torch.zeros(1, C), labels[:1], torch.tensor([0]))
    criterion.begin(labels)
    assert not criterion.times.any()
    assert criterion.nll.isnan().all()


def test_the_record_of_the_ranking_loss_starts_both_anew(batch):
    criterion = Recorded(losses.ranking(examples=100), examples=100, epochs=2)
    criterion(*batch)
    assert criterion.times.sum() == criterion.loss.times.sum() == N
    criterion.begin(torch.zeros(100, dtype=torch.int64))
    assert not criterion.times.any()
    assert not criterion.loss.times.any()
    criterion.eval()(*batch)
    assert not criterion.times.any()


def test_any_callable_is_recorded(batch):
    def mine(logits, labels, rows):
        return logits.sum()

    criterion = Recorded(mine, examples=100, epochs=1)
    assert torch.equal(criterion(*batch), batch[0].sum())
    assert "mine, examples=100" in str(criterion)
    assert "0x" not in str(criterion)  # no address: the name is the same in the next process


# --- names


def test_names_say_all_options():
    assert str(loss("focal", gamma=5.0)) == "focal(gamma=5.0, detached=False)"
    names = [
        str(each)
        for each in (
            losses.difficulty([0.1, 0.2]),
            losses.difficulty([0.2, 0.1]),
            losses.difficulty([0.2, 0.1], alpha=0.2),
            losses.ranking(examples=3),
            losses.ranking(examples=4),
            losses.ranking(examples=4, strength=0.5),
            losses.focal(),
            losses.focal(detached=True),
            losses.poly(epsilon=0.5),
            losses.poly(),
            losses.entropy(),
            losses.entropy(alpha=0.2),
            losses.l1_norm(),
            losses.l1_norm(strength=0.01),
            losses.label_smoothing(),
            losses.label_smoothing(epsilon=0.09),
        )
    ]
    assert len(set(names)) == len(names)


def test_errors_name_the_value(unchecked):
    for make, message in (
        (lambda: loss("brier"), "unknown loss 'brier'; choose from cross_entropy, label_smoothing, focal, l1_norm"),
        (lambda: loss("focal", gama=3), "unknown option 'gama' of focal; it takes gamma, detached"),
        (lambda: loss("cross_entropy", alpha=3), "unknown option 'alpha' of cross_entropy; it takes none"),
        (lambda: loss("ranking"), "ranking needs examples"),
        (lambda: loss("difficulty", alpha=0.1), "difficulty needs weights"),
        (lambda: losses.label_smoothing(epsilon=1.0), r"epsilon must lie in \[0, 1\); it is 1.0"),
        (lambda: losses.label_smoothing(epsilon=-0.1), r"epsilon must lie in \[0, 1\); it is -0.1"),
        (lambda: losses.focal(gamma=-1), "gamma must be a finite number of at least 0; it is -1.0"),
        (lambda: losses.l1_norm(strength=math.inf), "strength must be a finite number of at least 0; it is inf"),
        (lambda: losses.entropy(alpha=math.nan), "alpha must be a finite number of at least 0; it is nan"),
        (lambda: losses.difficulty([1.0], alpha=-0.3), "alpha must be a finite number of at least 0; it is -0.3"),
        (lambda: losses.poly(epsilon=-1.5), "epsilon must be a finite number of at least -1; it is -1.5"),
        (lambda: losses.ranking(examples=0), "examples must be a whole number of at least 1; it is 0"),
        (lambda: losses.ranking(examples=3, strength=-1), "strength must be a finite number of at least 0; it is -1.0"),
        (
            lambda: Recorded(losses.entropy(), examples=3, epochs=0),
            "epochs must be a whole number of at least 1; it is 0",
        ),
        (lambda: losses.difficulty([0.5, math.nan]), "weights must be finite and >= 0; row 1 is nan"),
        (lambda: losses.difficulty([0.5, 0.1, -3.0]), "weights must be finite and >= 0; row 2 is -3.0. Distances"),
        (
            lambda: losses.difficulty([[0.5]]),
            r"weights must have one entry a training row .n,.; their shape is \(1, 1\)",
        ),
        (lambda: losses.difficulty([]), "weights must have one entry a training row"),
        (lambda: losses.difficulty([0.5, 0.5], [0, 1, 2]), "labels has 3 rows where 2 are expected"),
        (lambda: optimal_confidence(0.3, 1), "classes must be a whole number of at least 2; it is 1"),
        (lambda: optimal_confidence(-0.3, 10), "strength must be a finite number of at least 0; it is -0.3"),
        (lambda: optimal_confidence([0.1, math.nan], 10), "strength must be finite and >= 0"),
    ):
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match="labels must be integers"):
        losses.difficulty([0.5, 0.5], [0.0, 1.0])


# --- kinds of input


def integers(labels):
    """The same labels as every kind of array in which people have them."""
    kinds = [labels.to(kind) for kind in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)]
    kinds += [labels.numpy().astype(kind) for kind in ("u2", "u4", "u8", ">i4", "i8")]
    fixed = labels.numpy().copy()
    fixed.setflags(write=False)
    return [*kinds, fixed, fixed[:, None], np.repeat(fixed, 2)[::2], fixed.tolist(), tuple(fixed.tolist())]


@pytest.mark.parametrize("name", LOSSES)
def test_labels_and_rows_of_every_integer_kind_are_the_same(batch, name, unchecked):
    logits, labels, rows = batch
    expected = with_history(made(name))(*batch)
    for given in integers(labels):
        assert torch.equal(with_history(made(name))(logits, given, rows), expected), type(given)
    for given in integers(rows):
        assert torch.equal(with_history(made(name))(logits, labels, given), expected), type(given)


@pytest.mark.parametrize("name", LOSSES)
def test_logits_of_every_kind_give_the_same_loss(batch, name, unchecked):
    logits, labels, rows = batch
    logits = logits.bfloat16()  # exact in all that follow
    expected = with_history(made(name))(logits.double(), labels, rows).item()
    kinds = [logits, logits.half(), logits.float(), logits.float().numpy(), logits.double().numpy().astype(">f8")]
    kinds += [
        logits.half().numpy(),
        logits.tolist(),
        logits.double().T.contiguous().T,
        logits.double().requires_grad_(),
    ]
    for given in kinds:
        assert with_history(made(name))(given, labels, rows).item() == pytest.approx(expected, rel=1e-6, abs=1e-6), (
            type(given)
        )


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        ([0, -100, 2], ValueError, r"labels .*; row 1 is -100.*keep = labels != -100"),
        ([0, 1, -1], ValueError, r"labels .*; row 2 is -1\b"),
        ([0, 1, 255], ValueError, r"labels must lie in \[0, 5\); row 2 is 255"),
        (np.array([0, 1, 255], np.uint8), ValueError, r"labels .*; row 2 is 255"),
        (np.eye(5, dtype=int)[:3], ValueError, "labels .*One-hot"),
        (np.zeros((3, 2, 1), int), ValueError, r"labels .*\(3, 2, 1\)"),
        ([0, 1], ValueError, "labels has 2 rows where 3"),
        ([0.0, 1.0, 2.0], TypeError, "labels must be integers; they are torch.float64"),
        ([True, False, True], TypeError, "labels must be integers; they are torch.bool"),
        (["cat", "dog", "cat"], TypeError, "labels must be"),
        (None, TypeError, "labels must be"),
        ([], ValueError, "labels is empty"),
        (torch.tensor([0, 1, 2]).to_sparse(), TypeError, "labels must be a dense array"),
    ],
    ids=str,
)
def test_labels_that_are_none_are_refused_by_name(name, labels, error, message, unchecked):
    logits, rows = torch.randn(3, 5, generator=torch.Generator().manual_seed(0)), torch.arange(3)
    with pytest.raises(error, match=message):
        made(name)(logits, labels, rows)
    with pytest.raises(error, match=message):
        made(name)(logits.requires_grad_(), labels, rows)
    with pytest.raises(error, match=message):
        Recorded(made(name), examples=3, epochs=1)(logits, labels, rows)
    with pytest.raises(error, match=message):
        surprise(logits, labels)


@pytest.mark.parametrize(
    ("logits", "error", "message"),
    [
        ([[1.0], [2.0]], ValueError, "logits must have shape .*Pass the columns 0 and z"),
        ([1.0, 2.0], ValueError, r"logits must have shape .*\(2,\)"),
        (np.zeros((0, 3)), ValueError, "logits must have shape .*at least one row"),
        ([[True, False]] * 2, TypeError, "logits must be real numbers; they are torch.bool"),
        (torch.zeros(2, 3, dtype=torch.complex64), TypeError, "logits must be an array of real numbers"),
        (torch.zeros(2, 3).to_sparse(), TypeError, "logits must be a dense array"),
        ([["a", "b"]] * 2, TypeError, "logits must be an array of numbers"),
        (None, TypeError, "logits must be an array of numbers"),
        ([[0.0, math.nan], [0.0, 1.0]], ValueError, "logits must be finite, .*; the largest of row 0 is nan"),
        ([[0.0, 1.0], [0.0, math.inf]], ValueError, "logits must be finite, .*; the largest of row 1 is inf"),
        ([[0.0, 1.0], [-math.inf, -math.inf]], ValueError, "the largest of row 1 is -inf"),
    ],
    ids=str,
)
def test_logits_that_are_none_are_refused_by_name(logits, error, message, unchecked):
    labels = torch.zeros(2, dtype=torch.int64)
    for call in (*(made(name) for name in LOSSES), lambda z, y, _: surprise(z, y), lambda z, y, _: entropy_of(z)):
        with pytest.raises(error, match=message):
            call(logits, labels, labels)


@pytest.mark.parametrize("name", ["cross_entropy", "focal", "entropy", "poly", "difficulty", "ranking"])
def test_a_class_that_is_left_out_is_as_if_it_were_not_there(batch, name):
    """Logits of -inf, as for the classes that ImageNet-A lacks: value and gradient are those of the other columns."""
    logits, labels, rows = batch
    few = logits.clone().requires_grad_()
    expected = with_history(made(name))(few, labels, rows)
    masked = torch.cat([logits, torch.full((N, 2), -math.inf, dtype=torch.float64)], 1)
    assert with_history(made(name))(masked, labels, rows).item() == pytest.approx(expected.item(), **ROUNDING)
    found = with_history(made(name))(masked.requires_grad_(), labels, rows)
    found.backward()
    expected.backward()
    assert torch.allclose(masked.grad[:, :C], few.grad, **{"rtol": 1e-12, "atol": 1e-15})
    assert not masked.grad[:, C:].any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", LOSSES)
def test_the_default_dtype_changes_nothing(batch, name, dtype):
    def value():
        criterion = Recorded(with_history(loss(name, **needed)), examples=100, epochs=2).train()
        return criterion(batch[0].float(), *batch[1:]), criterion.nll

    needed = NEEDED.get(name, {})
    expected = value()
    with default_dtype(dtype):
        found = value()
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one.nan_to_num(-1), other.nan_to_num(-1))


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda x: losses.label_smoothing(epsilon=x), "epsilon"),
        (lambda x: losses.focal(gamma=x), "gamma"),
        (lambda x: losses.l1_norm(strength=x), "strength"),
        (lambda x: losses.entropy(alpha=x), "alpha"),
        (lambda x: losses.poly(epsilon=x), "epsilon"),
        (lambda x: losses.difficulty([0.5], alpha=x), "alpha"),
        (lambda x: losses.ranking(examples=1, strength=x), "strength"),
        (lambda x: optimal_confidence(x, 10), "strength"),
    ],
)
def test_strengths_are_numbers_of_any_kind_and_nothing_else(make, argument, unchecked):
    expected = make(0.5)
    for half in (np.float64(0.5), np.float32(0.5), np.array(0.5), torch.tensor(0.5), torch.tensor(0.5).half()):
        assert str(make(half)) == str(expected)
    for odd in (True, np.True_, "0.5", None, math.nan):
        with pytest.raises((TypeError, ValueError), match=argument):
            make(odd)


def test_counts_are_whole_numbers_of_any_kind_and_nothing_else(unchecked):
    for count in (3, np.int64(3), np.uint8(3), torch.tensor(3)):
        assert str(losses.ranking(examples=count)) == "ranking(examples=3, strength=1.0)"
        assert Recorded(losses.entropy(), examples=count, epochs=count).right.shape == (3, 3)
    for odd in (True, 3.0, "3", None):
        with pytest.raises(TypeError, match="examples must be a whole number"):
            losses.ranking(examples=odd)
        with pytest.raises(TypeError, match="epochs must be a whole number"):
            Recorded(losses.entropy(), examples=3, epochs=odd)


def test_a_training_shows_all_its_labels_once(batch):
    criterion = losses.cross_entropy()
    with pytest.raises(ValueError, match="labels must be 0 or larger; row 1 is -100"):
        criterion.begin(torch.tensor([3, -100]))
    criterion.begin(torch.tensor([3, 7]))
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 5\); row 0 is 7"):
        criterion(batch[0][:1], torch.tensor([7]), torch.tensor([0]))


def test_a_training_meets_nan_in_the_mean_of_its_epoch(batch):
    """A look at each step would make a GPU wait; `training.train` refuses the mean."""
    logits, labels, rows = batch
    assert losses.entropy()((logits * math.nan).requires_grad_(), labels, rows).isnan()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", LOSSES)
def test_labels_rows_and_what_a_loss_keeps_go_to_the_logits(batch, name):
    logits, labels, rows = batch
    expected = with_history(made(name))(*batch).item()
    for here, there in ((labels, rows), (labels.cuda(), rows), (labels, rows.cuda())):
        criterion = Recorded(with_history(made(name)), examples=100, epochs=1).eval()
        value = criterion(logits.cuda(), here, there)
        assert value.is_cuda
        assert value.item() == pytest.approx(expected, rel=1e-12)
    with pytest.raises(ValueError, match="labels must lie in"):
        made(name)(logits.cuda(), labels.cuda() + 5, rows)
