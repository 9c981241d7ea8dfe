"""The released fitting, against a grid by NumPy and SciPy, and against what is known of its defects."""

import numpy as np
import pytest
import torch
import xarray as xr
from conftest import default_dtype
from scipy.special import logsumexp
from scipy.stats import entropy

from uqlib.combine import duos
from uqlib.combine.duos import fit_duo
from uqlib.combine.repeat import decide_again
from uqlib.metrics import aurc
from uqlib.metrics.outcomes import Outcome
from uqlib.papers.zhou2025 import (
    CONTROLS,
    RADAR,
    TAUS,
    fit_duo_as_released,
    fit_duo_by_brier,
    fit_duo_zhou2025,
    gain_by_agreement,
    mean_way,
    rescore_zhou2025,
)


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


def test_other_ways_to_fit_give_a_duo_of_their_weights():
    large, small, labels = draw()
    fit = fit_duo(large, small, labels)
    released = fit_duo_as_released(large, small, labels)
    assert released.weights == fit_duo_zhou2025(large, small, labels).weights
    taus = [1 / (2 * weight) for weight in released.weights]
    assert released.nll == pytest.approx(nll_by_hand(taus, large, small, labels), rel=1e-12)
    assert released.temperatures == fit.temperatures

    def brier_at(weights):
        logits = weights[0] * large + weights[1] * small
        return (logits.softmax(-1) - torch.eye(5, dtype=torch.float64)[labels]).square().sum(-1).mean().item()

    best = fit_duo_by_brier(large, small, labels).weights
    around = [(best[0] + a, best[1] + b) for a in (-0.01, 0, 0.01) for b in (-0.01, 0, 0.01)]
    assert brier_at(best) == min(map(brier_at, around))
    assert brier_at(best) < brier_at(fit.weights)


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


def test_every_score_of_a_decision_by_hand():
    probs = torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [1.0, 0.0, 0.0]], dtype=torch.float64)
    preds = torch.tensor([0, 0, 0])  # the second is that of another network, as in "UQ Only"
    once = Outcome(preds, probs, probs[:, 0], preds)
    found = rescore_zhou2025([once, once], inside_log=0.01)
    assert {name: len(splits) for name, splits in found.items()} == dict(response=2, entropy=2, margin=2, released=2)
    score = {name: splits[1].confidence.numpy() for name, splits in found.items()}
    np.testing.assert_array_equal(score["response"], probs[:, 0])
    np.testing.assert_allclose(score["margin"], [0.5, -0.3, 1.0])
    np.testing.assert_allclose(score["entropy"], -entropy(probs.numpy(), axis=1), atol=1e-15)
    np.testing.assert_allclose(score["released"], (probs.numpy() * np.log(probs.numpy() + 0.01)).sum(1))
    assert torch.equal(found["margin"][0].preds, preds)


@pytest.fixture
def controls():
    large, small, labels = draw()
    fit = fit_duo(large, small, labels)
    return large, small, fit, decide_again([fit], large, small, labels, [slice(None)], variants=CONTROLS)


def test_controls_are_the_duo_on_some_rows_and_the_large_network_on_the_others(controls):
    large, small, fit, outcomes = controls
    ours, base = duos.ours(large, small, fit), duos.base(large, small, fit)
    for row in range(len(large)):
        same = large[row].argmax() == small[row].argmax()
        for name, duo in (("agree_only", same), ("disagree_only", not same)):
            expected = ours if duo else base
            assert all(torch.equal(outcomes[name][0][part][row], expected[part][row]) for part in range(3))
        released = outcomes["released"][0]
        assert released.preds[row] == ours.preds[row]
        assert released.confidence[row] == ours.probs[row, large[row].argmax()]
    torch.testing.assert_close(outcomes["raw_average"][0].probs, ((large + small) / 2).softmax(-1))
    torch.testing.assert_close(outcomes["sidekick"][0].probs, (small / fit.temperatures[1]).softmax(-1))


def test_agreement_counts_by_hand(controls):
    large, small, _, outcomes = controls
    found, labels = gain_by_agreement(outcomes), outcomes["ours"][0].labels
    apart = [one != other for one, other in zip(large.argmax(1).tolist(), small.argmax(1).tolist(), strict=True)]
    right = (large.argmax(1) == labels).tolist()
    assert found["disagree on"] == pytest.approx(sum(apart) / 400)
    assert found["right where they agree"] == pytest.approx(
        np.mean([r for r, a in zip(right, apart, strict=True) if not a])
    )
    assert found["large right there"] == pytest.approx(np.mean([r for r, a in zip(right, apart, strict=True) if a]))
    area = {name: aurc(run[0].confidence, run[0].correct) for name, run in outcomes.items()}
    parts = [area["base"] - area["disagree_only"], area["agree_only"] - area["ours"]]
    assert found["share of the gain"] == pytest.approx(np.mean(parts) / (area["base"] - area["ours"]))


def test_a_duo_that_changes_nothing_has_no_share_of_its_gain(controls):
    same = controls[3] | {name: controls[3]["base"] for name in ("ours", "agree_only", "disagree_only")}
    assert np.isnan(gain_by_agreement(same)["share of the gain"])


def test_the_way_to_perfection_is_a_mean_over_the_pairs_of_a_band():
    rng = np.random.default_rng(0)
    table = rng.uniform(0.2, 0.8, (3, 2, 6, 1, 4))
    coords = {"variant": ["raw", "ours"], "measure": sorted(RADAR), "balance": ("pair", [0.1, 0.35, 0.4])}
    scores = xr.DataArray(table, dims=("pair", "variant", "measure", "split", "draw"), coords=coords)
    found = mean_way(scores, "raw", (0.1, 0.35))
    assert found.measure.values.tolist() == list(RADAR)
    assert found.pairs == "2 pairs"
    for name in RADAR:
        b, m = np.moveaxis(table[:2, :, sorted(RADAR).index(name)], 1, 0)
        way = (m - b) / (1 - b) if name in ("auroc", "accuracy", "macro_f1") else (b - m) / b
        np.testing.assert_allclose(found.sel(measure=name), way.mean(0))
    assert mean_way(scores, "raw", (0.35, 0.36)).pairs == "1 pair"
    assert mean_way(scores, "raw", (0.5, 1)).isnull().all()
