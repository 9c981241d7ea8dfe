"""The released fitting, against a grid by NumPy and SciPy, and against what is known of its defects."""

import numpy as np
import pytest
import torch
from conftest import default_dtype
from scipy.special import logsumexp

from uqlib.combine.duos import fit_duo
from uqlib.papers.zhou2025 import TAUS, fit_duo_zhou2025


def draw(n=400, classes=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    large, small = 3 * torch.randn(2, n, classes, generator=generator, dtype=torch.float64)
    labels = torch.multinomial((0.6 * large + 0.25 * small).softmax(-1), 1, generator=generator)[:, 0]
    return large, small, labels


def nll_by_hand(taus, large, small, labels):
    mixed = (large.numpy() / taus[0] + small.numpy() / taus[1]) / 2
    return (logsumexp(mixed, axis=1) - mixed[np.arange(len(mixed)), labels.numpy()]).mean()


def test_the_grid_has_25_temperatures_from_0_05_to_4_85():
    assert len(TAUS) == 25
    np.testing.assert_allclose(TAUS, torch.arange(0.05, 5.05, 0.2), rtol=1e-6)  # float32, as the released loop runs


def test_without_steps_it_is_the_best_point_of_the_grid():
    large, small, labels = draw()
    expected = min(((a, b) for a in TAUS for b in TAUS), key=lambda taus: nll_by_hand(taus, large, small, labels))
    found = fit_duo_zhou2025(large, small, labels, steps=0)
    assert found.taus == found.grid == expected
    assert found.weights == pytest.approx([1 / (2 * tau) for tau in expected])


def test_the_steps_descend_but_stay_above_the_optimum():
    for seed in range(3):
        large, small, labels = draw(seed=seed)
        found, best = fit_duo_zhou2025(large, small, labels), fit_duo(large, small, labels)
        after, before = (nll_by_hand(taus, large, small, labels) for taus in (found.taus, found.grid))
        assert best.nll <= after <= before + 1e-7  # steps are taken in float32
        assert max(abs(a - b) for a, b in zip(found.taus, found.grid, strict=True)) < 0.1  # half a cell


def test_the_first_step_goes_against_the_gradient_in_tau():
    large, small, labels = draw()
    found = fit_duo_zhou2025(large, small, labels, taus=[1.0], steps=1)
    h = 1e-5
    slope = np.array(
        [
            (nll_by_hand((1 + h * a, 1 + h * b), large, small, labels)
             - nll_by_hand((1 - h * a, 1 - h * b), large, small, labels)) / (2 * h)
            for a, b in ((1, 0), (0, 1))
        ]
    )  # fmt: skip
    # the first step of torch's L-BFGS has the length lr min(1, 1 / |gradient|_1) times the gradient
    expected = 1 - 0.01 * min(1, 1 / np.abs(slope).sum()) * slope
    np.testing.assert_allclose(found.taus, expected, rtol=1e-5)


def test_the_small_network_may_not_be_left_out():
    large, other, _ = draw()
    probs = (0.6 * large - 0.25 * other).softmax(-1)
    labels = torch.multinomial(probs, 1, generator=torch.Generator().manual_seed(1))[:, 0]
    small = large + other  # knows the labels, but 0.85 large - 0.25 small knows them better
    assert fit_duo_zhou2025(large, small, labels, steps=0).taus[1] == 4.85
    assert fit_duo(large, small, labels).weights[1] == 0


def test_numpy_and_lists_give_the_same():
    large, small, labels = draw(n=50)
    expected = fit_duo_zhou2025(large, small, labels, taus=TAUS[:8])
    assert fit_duo_zhou2025(large.numpy(), small.numpy(), labels.numpy(), taus=TAUS[:8]) == expected
    assert fit_duo_zhou2025(large.tolist(), small.tolist(), labels.tolist(), taus=TAUS[:8]) == expected


def test_errors_name_what_is_wrong():
    large, small, labels = draw(n=20)
    with pytest.raises(ValueError, match=r"taus must be one or more temperatures above 0; got \[\]"):
        fit_duo_zhou2025(large, small, labels, taus=[])
    with pytest.raises(ValueError, match=r"got \[1\.0, 0\.0\]"):
        fit_duo_zhou2025(large, small, labels, taus=[1.0, 0.0])
    with pytest.raises(ValueError, match="large and small must have one shape"):
        fit_duo_zhou2025(large, small[:, :4], labels)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 5\); row 0 is 7"):
        fit_duo_zhou2025(large, small, torch.full((20,), 7))
    with pytest.raises(ValueError, match="small look like probabilities"):
        fit_duo_zhou2025(large, small.softmax(-1), labels)


def test_a_duo_that_knows_nothing_is_refused_as_fit_duo_refuses_it():
    large, small, labels = draw()
    with pytest.raises(ValueError, match=r"no pair of taus is better than guessing: .* of guessing 1\.6094"):
        fit_duo_zhou2025(-large, -small, labels)
    with pytest.raises(ValueError, match="small is constant"):
        fit_duo_zhou2025(large, 0 * small, labels)
    with pytest.raises(ValueError, match=r"large must be at most 1e\+30 in size"):
        fit_duo_zhou2025(1e40 * large, small, labels)


def test_labels_and_logits_of_every_kind_give_the_same_fit(unchecked):
    large, small, labels = (part.numpy() for part in draw(100))
    expected = fit_duo_zhou2025(large, small, labels, taus=TAUS[:8])
    for kind in ("u1", "u2", "u4", "u8", "i1", ">i4"):
        assert fit_duo_zhou2025(large, small, labels.astype(kind), taus=TAUS[:8]) == expected
    taus = np.array(TAUS[:8])
    for given in (labels.tolist(), labels[:, None], torch.tensor(labels)):
        assert fit_duo_zhou2025(large.tolist(), small.astype(">f8"), given, taus=taus, steps=np.int8(50)) == expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_default_dtype_changes_nothing(dtype):
    expected = fit_duo_zhou2025(*draw(100), taus=TAUS[:8])
    with default_dtype(dtype):
        found = fit_duo_zhou2025(*draw(100), taus=TAUS[:8])
    assert found == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({"taus": odd}, "taus must be") for odd in (None, 1.0, "12", [True], ["1"], [np.nan], [np.inf], [-1.0])),
        *(({"steps": odd}, "steps must be a whole number") for odd in (-1, 1.5, True, None)),
        *(({"labels": odd}, "labels must") for odd in (None, [0.0] * 400, [-100] * 400)),
        ({"large": None}, "large must be"),
    ],
    ids=str,
)
def test_what_is_no_duo_is_refused_by_name(change, message, unchecked):
    given = dict(zip(("large", "small", "labels"), draw(), strict=True)) | change
    with pytest.raises((TypeError, ValueError), match=message):
        fit_duo_zhou2025(given.pop("large"), given.pop("small"), given.pop("labels"), **given)
