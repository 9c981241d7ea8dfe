import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, brier_score_loss, log_loss, roc_auc_score

from uqlib.combine import repeat
from uqlib.combine.duos import Decision
from uqlib.combine.repeat import MEASURES, Trial


def decision(seed, n=400, sharp=1.0):
    generator = torch.Generator().manual_seed(seed)
    logits = sharp * torch.randn(n, 4, generator=generator, dtype=torch.float64)
    probs = logits.softmax(-1)
    return Decision(probs.argmax(-1), probs, probs.amax(-1))


def trial(seed, n=400):
    good, poor = decision(seed, n), decision(seed + 100, n)
    labels = torch.multinomial(good.probs, 1, generator=torch.Generator().manual_seed(seed))[:, 0]
    return Trial(labels, {"good": good, "poor": poor})


@pytest.fixture(scope="module")
def trials():
    return [trial(seed) for seed in range(3)]


def test_means_over_trials_match_scikit_learn(trials):
    def mean(f):
        return sum(f(t.labels.numpy(), t.decisions["good"]) for t in trials) / len(trials)

    expected = {
        "accuracy": mean(lambda y, d: accuracy_score(y, d.preds)),
        "nll": mean(lambda y, d: log_loss(y, d.probs, labels=range(4))),
        "brier": mean(lambda y, d: brier_score_loss(y, d.probs, labels=range(4), scale_by_half=False)),
        "auroc": mean(lambda y, d: roc_auc_score(d.preds.numpy() == y, d.confidence)),
    }
    for name, value in expected.items():
        assert repeat.mean_over_trials(name, trials, "good") == pytest.approx(value, rel=1e-10), name


@pytest.mark.parametrize("name", MEASURES)
def test_a_method_does_not_differ_from_itself(trials, name):
    found = repeat.difference(name, trials, "good", "good", draws=20)
    assert found[:3] == (0, 0, 0)


@pytest.mark.parametrize("name", MEASURES)
def test_the_sign_says_which_is_better(trials, name):
    """The labels are drawn from the good method's probabilities; the poor one's are unrelated to them."""
    found = repeat.difference(name, trials, "good", "poor", draws=100, generator=torch.Generator().manual_seed(0))
    better = found.value > 0 if MEASURES[name].higher_is_better else found.value < 0
    if name.startswith("sac"):  # neither is ever right in 98 of 100 cases
        assert found.value == pytest.approx(0, abs=0.05)
    else:
        assert better
        assert found.low <= found.value <= found.high


def test_the_difference_is_the_difference_of_the_levels(trials):
    levels = [repeat.mean_over_trials("aurc", trials, method) for method in ("good", "poor")]
    assert repeat.difference("aurc", trials, "good", "poor", draws=10).value == pytest.approx(levels[0] - levels[1])


def test_the_interval_covers_the_truth():
    """Over fresh data sets, the 90 % interval of the accuracy of one split covers the true accuracy in about 90 %."""
    truth, hits = 0.7, 0
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        correct = torch.rand(300, generator=generator) < truth
        one_class = torch.zeros(300, dtype=torch.long)
        probs = torch.full((300, 2), 0.5, dtype=torch.float64)
        decisions = {
            "m": Decision((~correct).long(), probs, probs[:, 0]),
            "never right": Decision(1 - one_class, probs, probs[:, 0]),
        }
        options = {"draws": 200, "level": 0.9, "generator": generator}
        found = repeat.difference("accuracy", [Trial(one_class, decisions)], "m", "never right", **options)
        hits += found.low <= truth <= found.high
    assert abs(hits / 200 - 0.9) < 4 * (0.9 * 0.1 / 200) ** 0.5  # four standard errors


def test_same_seed_same_bits(trials):
    first, second = (
        repeat.difference("aurc", trials, "good", "poor", draws=50, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    )
    assert first == second


@pytest.mark.parametrize("name", MEASURES)
def test_tables_of_one_seed_are_paired(trials, name):
    """Their difference is the paired difference; the slow path on the same rows written out."""
    m = MEASURES[name]
    good, poor = (repeat.resample_splits(name, trials, method, draws=5, seed=7) for method in ("good", "poor"))
    assert good.shape == (3, 6)
    for k, each in enumerate(trials):
        rows = torch.randint(400, (5, 400), generator=torch.Generator().manual_seed(7 + k))
        arrays = [m.arrays(each.decisions[method], each.labels) for method in ("good", "poor")]
        full = m.statistic(*arrays[0]) - m.statistic(*arrays[1])
        drawn = [m.statistic(*(a[r] for a in arrays[0])) - m.statistic(*(a[r] for a in arrays[1])) for r in rows]
        torch.testing.assert_close(
            (good - poor)[k], torch.tensor([full, *drawn], dtype=torch.float64), rtol=0, atol=1e-12
        )


def test_interval_of_a_table_is_the_mean_of_the_splits_and_the_percentiles_of_the_draws():
    table = torch.arange(22, dtype=torch.float64).reshape(2, 11)
    found = repeat.interval_over_splits(table, level=0.9)
    draws = sorted([*range(1, 11), *range(12, 22)])
    assert found.value == (0 + 11) / 2
    assert found.low == pytest.approx(np.quantile(draws, 0.05))
    assert found.high == pytest.approx(np.quantile(draws, 0.95))
    assert found.draws == 20


@pytest.mark.parametrize("name", ["accuracy", "macro_f1", "auroc", "nll", "brier", "ece"])
def test_rows_that_stand_together_are_drawn_together(name):
    """Twenty copies of each of 50 images say no more than the 50; drawn apart, they would seem to."""
    one = trial(0, n=50)
    copies = torch.arange(50).repeat_interleave(20)
    many = Trial(one.labels[copies], {"good": Decision(*(part[copies] for part in one.decisions["good"]))})
    expected = repeat.resample_splits(name, [one], "good", draws=50, seed=1)
    together = repeat.resample_splits(name, [many], "good", draws=50, seed=1, together=20)
    apart = repeat.resample_splits(name, [many], "good", draws=50, seed=1)
    torch.testing.assert_close(together, expected, rtol=0, atol=1e-12)
    assert apart.std() < together.std() / 2


def test_groups_must_divide_the_examples(trials):
    with pytest.raises(ValueError, match="400 examples do not divide into groups of 7"):
        repeat.resample_splits("nll", trials, "good", together=7)


def test_unknown_measure_lists_the_known(trials):
    with pytest.raises(ValueError, match="unknown measure 'acc'; choose from accuracy, macro_f1"):
        repeat.mean_over_trials("acc", trials, "good")
