"""Cascades against what they must be: one network, the ensemble, a single threshold, and decisions that no window touches."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_curve

from uqlib import combine
from uqlib.combine import EVERYTHING, NOTHING, Window, cascade, mean_cost, operating_threshold, staged, window_around

N, C = 400, 6


@pytest.fixture(scope="module")
def members():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, C, N)
    return [1.5 * np.eye(C)[labels] + rng.normal(size=(N, C)) for _ in range(3)], labels


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def energy(logits):
    return np.log(np.exp(logits).sum(-1))


def test_a_window_of_all_is_the_ensemble_and_an_empty_one_the_first_network(members):
    logits, _ = members
    whole = cascade(logits, [EVERYTHING, EVERYTHING])
    assert np.allclose(whole.probs, np.mean([softmax(each) for each in logits], 0), atol=1e-15)
    assert (whole.stages == 3).all()
    assert np.array_equal(whole.preds, np.mean([softmax(each) for each in logits], 0).argmax(-1))
    for other in (EVERYTHING, NOTHING):  # who has left does not come back
        alone = cascade(logits, [NOTHING, other])
        assert np.allclose(alone.probs, softmax(logits[0]), atol=1e-15)
        assert (alone.stages == 1).all()
    assert np.allclose(
        cascade(logits, [EVERYTHING] * 2, score="energy").confidence, np.mean([energy(x) for x in logits], 0)
    )


def test_without_a_lower_end_it_is_the_single_threshold(members):
    logits, _ = members
    sure = softmax(logits[0]).max(-1)
    cut = combine.least_confident(sure, share=0.3)
    assert cut == Window(-np.inf, np.quantile(sure, 0.3))
    said = cascade(logits[:2], [cut])
    assert np.array_equal(said.stages == 2, sure <= np.quantile(sure, 0.3))


def test_only_inputs_in_the_window_may_change_side(members):
    logits, labels = members
    alone = cascade(logits[:1], [])
    tau = operating_threshold(alone.confidence, alone.preds == labels, risk=0.05)
    window = window_around(alone.confidence, tau, share=0.2)
    said = cascade(logits[:2], [window])
    outside = (alone.confidence < window.low) | (alone.confidence > window.high)
    assert 0.15 < (~outside).mean() < 0.25
    for before, after in zip(alone, said, strict=True):
        assert np.array_equal(before[outside], after[outside])  # bit by bit
    assert not np.array_equal(alone.confidence[~outside], said.confidence[~outside])


@pytest.mark.parametrize("score", ["max_probability", "energy"])
def test_a_second_network_that_is_the_first_changes_nothing(members, score):
    logits, _ = members
    alone = cascade(logits[:1], [], score=score)
    for window in (EVERYTHING, Window(0.4, 0.8)):
        twice = cascade([logits[0], logits[0]], [window], score=score)
        assert all(np.array_equal(a, b) for a, b in zip(alone[:3], twice[:3], strict=True))


def test_three_stages_against_a_loop_over_inputs(members):
    logits, _ = members
    windows = [(0.3, 0.7), (0.35, 0.65)]
    said = cascade(logits, windows)
    for row in range(N):
        seen = [softmax(logits[0][row])]
        for low, high in windows:
            if not low <= np.mean(seen, 0).max() <= high:
                break
            seen.append(softmax(logits[len(seen)][row]))
        assert said.stages[row] == len(seen)
        assert np.allclose(said.probs[row], np.mean(seen, 0), atol=1e-15)
    again = staged(logits, said.stages)
    assert all(np.array_equal(a, b) for a, b in zip(said, again, strict=True))


def test_the_order_of_the_rows_never_matters(members):
    logits, _ = members
    order = np.random.default_rng(1).permutation(N)
    said, moved = (cascade(each, [(0.3, 0.7)] * 2) for each in (logits, [x[order] for x in logits]))
    assert all(np.array_equal(a[order], b) for a, b in zip(said, moved, strict=True))


def test_thresholds_against_a_loop_and_scikit_learn(members):
    logits, labels = members
    sure = softmax(logits[0]).max(-1).round(2)  # ties
    right = logits[0].argmax(-1) == labels
    allowed = [t for t in np.unique(sure) if (~right)[sure >= t].mean() <= 0.1]
    assert operating_threshold(sure, right, risk=0.1) == min(allowed)
    assert operating_threshold(sure, coverage=0.8) == max(t for t in np.unique(sure) if (sure >= t).mean() >= 0.8)
    away = np.random.default_rng(2).uniform(0, 1, 300).round(2)
    _, recall, thresholds = roc_curve(np.r_[np.ones(N), np.zeros(300)], np.r_[sure, away], drop_intermediate=False)
    assert operating_threshold(sure, coverage=0.95) == pytest.approx(thresholds[recall >= 0.95][0], abs=0)


def test_where_nothing_keeps_the_risk_nothing_is_accepted_and_the_surest_go_on():
    assert operating_threshold([0.5, 0.6], [True, False], risk=0.1) == np.inf
    assert window_around(np.arange(11) / 10, np.inf, share=0.4) == Window(0.8, np.inf)


def test_a_window_holds_its_share_and_fewer_at_an_end():
    sure = np.arange(1, 1001) / 1000
    window = window_around(sure, 0.5, share=0.2)
    assert ((sure >= window.low) & (sure <= window.high)).mean() == pytest.approx(0.2, abs=2e-3)
    edge = window_around(sure, 0.05, share=0.2)
    assert edge.low == -np.inf
    assert ((sure >= edge.low) & (sure <= edge.high)).mean() == pytest.approx(0.15, abs=2e-3)
    assert window_around(sure, 0.5, share=0.0) == NOTHING


def test_cost_is_the_first_network_and_the_second_for_those_who_met_it(members):
    logits, _ = members
    said = cascade(logits[:2], [(0.4, 0.6)])
    passed = (said.stages == 2).mean()
    assert mean_cost(said.stages, [40.6, 68.9]) == pytest.approx(40.6 + passed * 68.9, rel=1e-12)
    assert mean_cost([1, 2], [1.0, 3.0], weights=[3, 1]) == pytest.approx((3 * 1 + 4) / 4)


def test_chance_passes_on_the_share_that_it_should():
    stages = combine.random_stages(1000, share=0.2, seed=3)
    assert (stages == 2).sum() == 200
    assert not torch.equal(stages, combine.random_stages(1000, share=0.2, seed=4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: cascade(x, [(0, 1)]), "windows must be one fewer than networks, 2; they are 1"),
        (lambda x: cascade(x[:2], [0.5]), "windows must be pairs"),
        (lambda x: cascade(x[:2], [(0.5, float("nan"))]), "an end of windows must be a number; it is nan"),
        (lambda x: cascade(x[:2], [(0, 1)], score="entropy"), "unknown score 'entropy'; choose from"),
        (lambda x: staged(x[:2], np.full(N, 3)), "stages must lie in 1 to 2; they reach from 3 to 3"),
        (lambda x: mean_cost([1, 3], [1.0, 1.0]), "stages must lie in 1 to 2"),
        (lambda x: mean_cost([1, 2], [1.0, -1.0]), "costs must be 0 or larger; the least is -1"),
        (lambda x: operating_threshold([0.5, float("nan")], coverage=0.5), "confidence must be finite; row 1 is nan"),
        (lambda x: operating_threshold([0.5, 0.6], coverage=0.0), r"coverage must lie in \(0, 1\]"),
        (lambda x: operating_threshold([0.5, 0.6]), "give one of risk and coverage"),
        (lambda x: operating_threshold([0.5, 0.6], risk=0.1), "a risk needs correct"),
    ],
)
def test_what_cannot_be_is_named(members, call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call(members[0])


def test_a_window_whose_ends_are_exchanged_is_refused():
    first = [[4.0, 0.0], [0.5, 0.0]]
    with pytest.raises(ValueError, match=r"windows must be pairs \(low, high\) that ascend; one is \(0\.8, 0\.2\)"):
        cascade([first, first], [(0.8, 0.2)])
    assert cascade([first, first], [NOTHING]).stages.tolist() == [1, 1]
