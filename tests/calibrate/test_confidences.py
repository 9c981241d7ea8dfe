import numpy as np
import pytest
import torch
from scipy.special import logsumexp, softmax
from scipy.stats import entropy

from uqlib.calibrate.confidences import (
    CONFIDENCES,
    confidence,
    energy,
    margin,
    max_logit,
    max_probability,
    mutual_information,
    neg_entropy,
)
from uqlib.calibrate.temperature import fit_class_temperatures, scale_logits


@pytest.fixture
def logits():
    return 3 * torch.randn(500, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_scores_match_scipy(logits):
    z = logits.numpy()
    probs = softmax(z, -1)
    ordered = np.sort(probs, -1)
    np.testing.assert_allclose(max_probability(z), ordered[:, -1], rtol=1e-13)
    np.testing.assert_allclose(neg_entropy(z), -entropy(probs, axis=-1), rtol=1e-11)
    np.testing.assert_allclose(margin(z), ordered[:, -1] - ordered[:, -2], atol=1e-14)
    np.testing.assert_allclose(max_logit(z), z.max(-1), rtol=0)
    np.testing.assert_allclose(energy(z), logsumexp(z, -1), rtol=1e-13)
    np.testing.assert_allclose(energy(z, temperature=2.5), 2.5 * logsumexp(z / 2.5, -1), rtol=1e-13)


@pytest.mark.parametrize("name", CONFIDENCES)
def test_every_score_rises_with_certainty_and_keeps_kind_and_rows(name, logits):
    sharp, flat = torch.tensor([[5.0, 0.0, 0.0]]), torch.tensor([[1.0, 0.9, 0.8]])
    assert confidence(name, sharp) > confidence(name, flat)
    assert isinstance(confidence(name, logits.numpy()), np.ndarray)
    assert confidence(name, logits.float()).dtype == torch.float64
    assert confidence(name, logits.flip(0)).equal(confidence(name, logits).flip(0))
    torch.testing.assert_close(confidence(name, logits.flip(1)), confidence(name, logits), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", CONFIDENCES)
def test_chunks_do_not_show(name, logits, monkeypatch):
    whole = confidence(name, logits)
    monkeypatch.setattr("uqlib.calibrate.confidences.CHUNK", 60)
    assert confidence(name, logits).equal(whole)


@pytest.mark.parametrize("name", ["max_probability", "neg_entropy", "margin"])
def test_scores_of_probabilities_take_their_logarithm(name, logits):
    torch.testing.assert_close(confidence(name, logits.softmax(-1).log()), confidence(name, logits), rtol=0, atol=1e-13)


def test_float64_keeps_apart_what_float32_ties():
    found = max_probability(torch.tensor([[20.0, 0.0], [21.0, 0.0]]))
    assert found[0] < found[1] < 1


def test_mutual_information_is_the_entropy_gap(logits):
    members = torch.stack([logits, logits.flip(0), 2 * logits])
    probs = softmax(members.numpy(), -1)
    expected = entropy(probs.mean(0), axis=-1) - entropy(probs, axis=-1).mean(0)
    np.testing.assert_allclose(mutual_information(members), expected, atol=1e-13)
    np.testing.assert_allclose(mutual_information(list(members)), expected, atol=1e-13)


def test_mutual_information_at_its_ends():
    agree = torch.tensor([[[3.0, 1.0]], [[4.0, 2.0]]])
    assert mutual_information(agree).item() == pytest.approx(0, abs=1e-15)
    differ = torch.tensor([[[900.0, 0.0]], [[0.0, 900.0]]])
    assert mutual_information(differ).item() == pytest.approx(np.log(2), rel=1e-14)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: confidence("mps", np.eye(2) * 3),
            "unknown confidence 'mps'; choose from max_probability",
        ),
        (lambda: max_probability(np.array([[0.4, 0.6]])), "look like probabilities"),
        (lambda: max_logit(np.array([[0.4, np.inf]])), "row 0, column 1 is inf"),
        (
            lambda: energy(np.array([[1.0, 2.0]]), temperature=0.0),
            "temperature must be a finite number above 0; it is 0",
        ),
        (lambda: mutual_information(np.ones((1, 3, 2)) * 4), "one member cannot disagree; at least two"),
        (
            lambda: mutual_information([np.ones((3, 2)) * 4, np.ones((3, 4))]),
            r"must have one shape .* \(3, 2\) and \(3, 4\)",
        ),
    ],
)
def test_errors_say_what_came_and_where(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def shifted(logits):
    """As a store or a user keeps them in half precision."""
    return logits - logits.amax(-1, keepdim=True)


LOST = {
    "shifted": shifted,
    "shifted in float16": lambda z: shifted(z).half(),
    "shifted in bfloat16": lambda z: shifted(z).bfloat16(),
    "float16 and back": lambda z: shifted(z).half().float(),
    "logarithms": lambda z: z.log_softmax(-1),
    "logarithms in float32": lambda z: z.softmax(-1).float().clip(1e-12).log(),
    "logarithms in float16": lambda z: z.log_softmax(-1).half(),
    "logarithms in bfloat16": lambda z: z.log_softmax(-1).bfloat16(),
    "NumPy": lambda z: shifted(z).numpy(),
}
SEES_CONSTANT = {
    "energy": energy,
    "max_logit": max_logit,
    "by name": lambda z: confidence("energy", z),
    "class temperatures": lambda z: fit_class_temperatures(z, torch.arange(len(z)) % 6),
    "by class temperatures": lambda z: scale_logits(z, [1.0, 2.0, 1.0, 1.0, 1.0, 1.0]),
}


@pytest.mark.parametrize("kind", LOST)
@pytest.mark.parametrize("call", SEES_CONSTANT)
def test_what_sees_the_constant_of_a_row_refuses_logits_that_lost_it(kind, call, logits):
    with pytest.raises(
        ValueError, match=r"logits have lost the constant of each row: every row .* own logits in float32"
    ):
        SEES_CONSTANT[call](LOST[kind](logits))


@pytest.mark.parametrize("name", ["max_probability", "neg_entropy", "margin"])
@pytest.mark.parametrize("kind", LOST)
def test_scores_of_the_probabilities_take_them(kind, name, logits):
    tolerance = 0.02 if "16" in kind else 1e-6
    np.testing.assert_allclose(confidence(name, LOST[kind](logits)), confidence(name, logits), atol=tolerance)


@pytest.mark.parametrize("score", [energy, max_logit])
def test_the_maximum_kept_beside_brings_the_constant_back(score, logits):
    maximum, half = logits.amax(-1), shifted(logits).half()
    torch.testing.assert_close(score(half + maximum[:, None]), score(logits), rtol=0, atol=2e-3)


def test_one_row_that_has_it_is_enough(logits):
    one = shifted(logits)
    one[317] += 0.5
    assert max_logit(one)[317] == 0.5
