import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

from uqlib import losses

N, C = 12, 4
TRANSITION = np.array([[0.7, 0.3, 0.0, 0.0], [0.1, 0.6, 0.2, 0.1], [0.0, 0.0, 1.0, 0.0], [0.25, 0.25, 0.25, 0.25]])
TRUSTED = np.arange(20) % 3 == 0


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(N, C, generator=generator, dtype=torch.float64)
    return logits, torch.arange(N) % C, torch.randperm(20, generator=generator)[:N]


def given_by_hand(logits, labels):
    """-log of the probability of the given label, example by example and class by class."""
    out = []
    for row, label in zip(logits.numpy(), labels.tolist(), strict=True):
        p = np.exp(row) / np.exp(row).sum()
        out.append(-math.log(sum(TRANSITION[k, label] * p[k] for k in range(C))))
    return np.array(out)


def test_forward_is_its_equation(batch):
    logits, labels, _ = batch
    found = losses.forward(transition=TRANSITION).terms(*batch).numpy()
    assert found == pytest.approx(given_by_hand(logits, labels), rel=1e-6)  # the transition is kept in float32


def test_corrected_is_cross_entropy_where_trusted_and_forward_elsewhere(batch):
    logits, labels, rows = batch
    plain = F.cross_entropy(logits, labels, reduction="none").numpy()
    trusted = TRUSTED[rows.numpy()]
    assert 0 < trusted.sum() < N
    criterion = losses.corrected(transition=TRANSITION, trusted=TRUSTED)
    expected = np.where(trusted, plain, given_by_hand(logits, labels))
    assert criterion.terms(*batch).numpy() == pytest.approx(expected, rel=1e-6)
    assert criterion(*batch).item() == pytest.approx(expected.mean(), rel=1e-6)


@pytest.mark.parametrize(
    "same",
    [
        losses.forward(transition=np.eye(C)),
        losses.corrected(transition=np.eye(C), trusted=TRUSTED),
        losses.corrected(transition=TRANSITION, trusted=np.ones(20, bool)),
        losses.weighted(class_weights=np.ones(C)),
    ],
    ids=str,
)
def test_without_noise_it_is_cross_entropy(batch, same):
    logits, labels, _ = batch
    expected = F.cross_entropy(logits, labels, reduction="none").numpy()
    assert same.terms(*batch).numpy() == pytest.approx(expected, rel=1e-12)


def test_corrected_without_trust_is_forward(batch):
    untrusting = losses.corrected(transition=TRANSITION, trusted=np.zeros(20, bool))
    assert torch.equal(untrusting(*batch), losses.forward(transition=TRANSITION)(*batch))


def test_weighted_is_that_of_torch_over_the_number_of_examples(batch):
    logits, labels, _ = batch
    weights = torch.tensor([0.5, 1.0, 2.0, 0.25], dtype=torch.float64)
    expected = F.cross_entropy(logits, labels, weight=weights, reduction="sum") / N
    assert losses.weighted(class_weights=weights)(*batch).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("clean", [[0.7, 0.2, 0.1], [0.05, 0.9, 0.05], [1 / 3, 1 / 3, 1 / 3]])
def test_the_least_forward_loss_is_at_the_clean_posterior(clean):
    """Expected over the given labels of one image, over all predictions: the minimiser is the clean posterior."""
    transition = np.array([[0.6, 0.3, 0.1], [0.1, 0.8, 0.1], [0.25, 0.25, 0.5]])
    noisy = torch.tensor(np.array(clean) @ transition)
    classes = torch.arange(3)
    criterion = losses.forward(transition=transition)

    def expected_loss(z):
        logits = torch.tensor(np.array([0.0, *z])).repeat(3, 1).requires_grad_()
        value = (noisy * criterion.terms(logits, classes, classes)).sum()
        value.backward()
        return value.item(), logits.grad.sum(0).numpy()[1:]

    found = minimize(expected_loss, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-10})
    probs = np.exp([0.0, *found.x]) / np.exp([0.0, *found.x]).sum()
    assert probs == pytest.approx(np.array(clean), abs=1e-5)  # float32 of the transition
    assert np.abs(noisy.numpy() - clean).max() > 0.05 or clean[0] == clean[1]  # plain cross entropy is elsewhere


@pytest.mark.parametrize("trusted", [None, TRUSTED])
def test_confident_logits_and_impossible_labels_stay_finite(trusted):
    """Entries of 0 in the transition, even whole columns for labels that trusted rows alone have."""
    transition = np.array([[1.0, 0.0], [1.0, 0.0]]) if trusted is not None else np.array([[1.0, 0.0], [0.5, 0.5]])
    logits = torch.tensor([[3e4, -3e4], [-3e4, 3e4], [0.0, 0.0]], requires_grad=True)
    criterion = (
        losses.forward(transition=transition)
        if trusted is None
        else losses.corrected(transition=transition, trusted=trusted)
    )
    labels = torch.tensor([1, 0, 1])
    rows = torch.tensor([0, 1, 3])  # of which 0 and 3 are trusted
    value = criterion(logits, labels, rows)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


def test_a_class_without_a_logit_is_as_if_it_were_not_there(batch):
    """A logit of -inf takes its class out: value and gradient are those of a class of probability 0."""
    logits, labels, rows = batch
    masked, tiny = logits.clone(), logits.clone()
    masked[:, 3], tiny[:, 3] = -math.inf, -1e3
    found, expected = masked.requires_grad_(), tiny.requires_grad_()
    criterion = losses.forward(transition=TRANSITION)
    labels = labels % 3
    one, other = criterion(found, labels, rows), criterion(expected, labels, rows)
    one.backward()
    other.backward()
    assert one.item() == pytest.approx(other.item(), rel=1e-12)
    assert torch.allclose(found.grad, expected.grad, rtol=1e-12, atol=1e-15)


def test_names_say_all_options():
    swapped, other = TRANSITION[[0, 1, 3, 2]], ~TRUSTED
    names = [
        str(each)
        for each in (
            losses.forward(transition=TRANSITION),
            losses.forward(transition=swapped),
            losses.corrected(transition=TRANSITION, trusted=TRUSTED),
            losses.corrected(transition=TRANSITION, trusted=other),
            losses.corrected(transition=swapped, trusted=TRUSTED),
            losses.weighted(class_weights=[0.5, 1.5]),
            losses.weighted(class_weights=[1.5, 0.5]),
        )
    ]
    assert len(set(names)) == len(names)
    assert str(losses.forward(transition=torch.tensor(TRANSITION))) == names[0]


def test_a_training_is_refused_where_marks_or_labels_do_not_fit():
    criterion = losses.corrected(transition=TRANSITION, trusted=TRUSTED)
    with pytest.raises(ValueError, match="the trusted marks belong to a training set of 20 rows; this one has 30"):
        criterion.begin(np.arange(30) % C)
    criterion.begin(np.arange(20) % C)
    never = np.array([[1.0, 0.0], [1.0, 0.0]])
    with pytest.raises(ValueError, match="row 2 of the training set has label 1, which no class gets"):
        losses.forward(transition=never).begin([0, 0, 1])
    with pytest.raises(ValueError, match="row 1 of the training set has label 1, which no class gets"):
        losses.corrected(transition=never, trusted=[True, False, True]).begin([1, 1, 1])
    losses.corrected(transition=never, trusted=[True, False, True]).begin([1, 0, 1])
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 4\); row 1 is 7"):
        losses.forward(transition=TRANSITION).begin([0, 7])
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 2\); row 1 is 7"):
        losses.weighted(class_weights=[1.0, 1.0]).begin([0, 7])


def test_errors_name_the_value(batch, unchecked):
    for call, message in (
        (lambda: losses.forward(transition=[[0.9, 0.2], [0, 1]]), r"row 0 sums to 1\.1"),
        (lambda: losses.forward(transition=[[1.5, -0.5], [0, 1]]), "row 0, column 1 is -0.5"),
        (lambda: losses.forward(transition=np.eye(3))(*batch), "3 classes are given where the logits have 4"),
        (lambda: losses.corrected(transition=np.eye(2), trusted=[0, 2]), "trusted must be true or false; row 1 is 2"),
        (lambda: losses.corrected(transition=np.eye(2), trusted=[]), "trusted is empty"),
        (lambda: losses.corrected(transition=np.eye(C), trusted=[True] * 3)(*batch), "training set of 3 rows; row"),
        (lambda: losses.weighted(class_weights=[1.0, -0.5]), "class_weights must be >= 0; row 1 is -0.5"),
        (lambda: losses.weighted(class_weights=[1.0, math.nan]), "class_weights must be finite; row 1 is nan"),
        (lambda: losses.weighted(class_weights=[1.0, 1.0])(*batch), "2 classes are given where the logits have 4"),
        (lambda: losses.loss("forward"), "forward needs transition"),
        (lambda: losses.loss("corrected", transition=np.eye(2)), "corrected needs trusted"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
