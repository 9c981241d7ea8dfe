"""Effects and interactions of methods, on scores that are known: sums, products, and what luck would choose."""

import numpy as np
import pytest
import xarray as xr

from uqlib.experiments.keeping import kept_runs
from uqlib.experiments.transfer import synthesis_runs
from uqlib.experiments.transfer.reading import read_synthesis
from uqlib.experiments.transfer.reading.read_synthesis import FACTORS, alone, best_elsewhere, effect, interaction

pytestmark = pytest.mark.usefixtures("every_run_counts")

GAINS = dict(zip(FACTORS, (8.0, -1.0, 2.0, 1.0, 0.0, -4.0), strict=True))


def score_by(function):
    """Scores of all combinations: a function of what is on, by the names of FACTORS."""
    on = np.indices([2] * len(FACTORS))
    table = function(dict(zip(FACTORS, on, strict=True)))
    return xr.DataArray(table, {name: [0, 1] for name in FACTORS}).expand_dims(training=[0, 1, 2], draw=[0, 1])


def test_of_a_sum_each_effect_is_its_part_in_every_company_and_nothing_interacts():
    scores = score_by(lambda on: sum(GAINS[name] * on[name] for name in FACTORS))
    for name, gain in GAINS.items():
        assert (effect(scores, name) == gain).all()
        assert (effect(alone(scores, name), name) == gain).all()
    assert (interaction(scores, "pretraining", "head") == 0).all()


def test_what_makes_another_needless_interacts_by_what_is_lost():
    scores = score_by(lambda on: np.maximum(3.0 * on["duo"], 2.0 * on["temperature"]))
    assert (interaction(scores, "duo", "temperature") == -2).all()
    assert (interaction(scores, "temperature", "duo") == -2).all()
    assert (effect(alone(scores, "temperature"), "temperature") == 2).all()
    assert (effect(scores, "temperature").mean([n for n in FACTORS if n != "temperature"]) == 1).all()


def test_a_choice_by_luck_is_worth_nothing_elsewhere():
    """Each training has a combination of its own that shines by chance; judged on the others' choice, nothing is gained."""
    scores = score_by(lambda on: 0.0 * on["head"]).copy()
    combinations = [tuple(int(k == j) for k in range(6)) for j in range(4)]
    for training, combination in enumerate((*combinations[:2], combinations[3])):
        scores.loc[dict(zip(FACTORS, combination, strict=True)) | {"training": training}] = 1.0 + training
    best, _, gained = best_elsewhere(scores, [(0,) * 6, *combinations[:2], combinations[3]])
    assert tuple(best.values()) == combinations[3]
    assert gained.sel(draw=0).values.tolist() == [0, 0, 0]
    assert gained.training.values.tolist() == [0, 1, 2]


def test_what_is_better_everywhere_is_chosen_everywhere():
    one = score_by(lambda on: sum(GAINS[name] * on[name] for name in FACTORS))
    scores = xr.concat([one, one + 0.0], "training").isel(training=range(5)).assign_coords(training=range(5))
    best, picked, gained = best_elsewhere(scores, np.ndindex(*[2] * 6))
    assert best == {name: int(gain > 0) for name, gain in GAINS.items()}
    assert picked == [best] * 5
    assert (gained == 11).all()


def test_an_ensemble_is_chosen_by_those_that_share_no_member():
    """Seed 0 trains a lucky network, of which the ensembles of seeds 0 and 4 are made: it chooses for neither, nor for seeds 1 and 3 alone."""
    scores = score_by(lambda on: -0.1 * on["ensemble"]).isel(training=0, drop=True)
    scores = scores.expand_dims(training=range(5)).copy()
    for lucky in (0, 4):
        scores.loc[dict(ensemble=1, training=lucky)] = 1.0
    alone_or_two = [(0,) * 6, tuple(int(name == "ensemble") for name in FACTORS)]
    picked = [each["ensemble"] for each in best_elsewhere(scores, alone_or_two).picked]
    assert picked == [0, 1, 1, 1, 0]
    with pytest.raises(ValueError, match="no training is left to choose for seed 0"):
        best_elsewhere(scores.isel(training=[0, 1]), alone_or_two)


def test_ensembles_that_share_members_are_as_sure_as_their_mean():
    """Over many circles of five, the stretched variance of the mean is that of the mean; unstretched it is 3/8 of it."""
    members = np.random.default_rng(0).normal(size=(40_000, 5))
    pairs = xr.DataArray((members + np.roll(members, -1, 1)) / 2, {"training": range(5)}, ("circle", "training"))
    stretched = read_synthesis.as_if_unshared(pairs)
    np.testing.assert_allclose(stretched.mean("training"), pairs.mean("training"), atol=1e-12)
    truth = 1 / 5
    # a variance over four degrees of freedom and less: relative standard error sqrt(2 / 2.57 / 40,000)
    assert float((pairs.var("training", ddof=1) / 5).mean()) == pytest.approx(3 / 8 * truth, rel=0.02)
    assert float((stretched.var("training", ddof=1) / 5).mean()) == pytest.approx(truth, rel=0.02)
    assert read_synthesis.stretch_of(pairs.isel(training=[0, 2])) == pytest.approx(1)
    assert read_synthesis.stretch_of(pairs.isel(training=[0])) == 1


def test_what_has_no_ensemble_is_not_stretched():
    scores = score_by(lambda on: 0.0 * on["head"]) + xr.DataArray([-1.0, 0.0, 1.0], {"training": [0, 1, 2]}, "training")
    found = read_synthesis.for_intervals(scores)
    assert found.dims == scores.dims
    np.testing.assert_array_equal(found.sel(ensemble=0), scores.sel(ensemble=0))
    assert float(found.sel(ensemble=1).max()) == pytest.approx(read_synthesis.stretch_of(scores))


def test_costs_are_passes_and_the_sidekick_a_share_of_one():
    share = read_synthesis.sidekick_share()
    assert 0.1 < share < 0.6
    assert read_synthesis.passes((1, 1, 0, 0, 1, 1)) == 1
    assert read_synthesis.passes((0, 0, 1, 1, 0, 0)) == pytest.approx(2 + share)


def test_columns_find_their_place(monkeypatch):
    """A score that names its run, additions and measure comes back under those names."""
    codes = {name: k for k, name in enumerate(map(synthesis_runs.addition_name, synthesis_runs.every_set()))}
    measures = np.arange(len(synthesis_runs.JUDGED_BY)) / 100

    class Kept(kept_runs.KeptRuns):
        def __init__(self):
            pass

        def seeds(self, *cells):
            return [0, 1] if len(cells) == 4 else []

        def column(self, run, name):
            start, loss, _, seed = run.split("/")
            value = (
                100 * np.arange(16)[:, None]
                + 10 * (start != "scratch")
                + 5 * (loss == "difficulty")
                + int(seed)
                + measures
            )
            return np.full((16, len(measures), 3), 0.25, np.float16) if name.endswith("~") else value.astype(np.float32)

    monkeypatch.setattr(read_synthesis, "load_asked", lambda task: Kept())
    scores = read_synthesis.load_synthesis()
    assert scores.sizes["training"] == 2
    at = dict(pretraining=1, difficulty=0, ensemble=1, duo=0, temperature=1, head=0, training=1)
    own = 100 * codes["ensemble+temperature"] + 10 + 1 + measures
    where = synthesis_runs.JUDGED_BY.index("test/aurc")
    np.testing.assert_allclose(scores.sel(at | {"measure": "aurc"}), [own[where]] + [own[where] + 0.25] * 3, rtol=1e-6)
    np.testing.assert_allclose(scores.sel(at | {"measure": "other", "draw": 0}), own[-5:].mean(), rtol=1e-6)
    gains = read_synthesis.as_gains(scores)
    np.testing.assert_allclose(gains.sel(measure="aurc"), -scores.sel(measure="aurc"))
    np.testing.assert_allclose(gains.sel(measure="other"), scores.sel(measure="other"))


def test_without_a_whole_seed_the_command_is_named(monkeypatch):
    class Kept(kept_runs.KeptRuns):
        def __init__(self):
            pass

        def seeds(self, *cells):
            return []

    monkeypatch.setattr(read_synthesis, "load_asked", lambda task: Kept())
    with pytest.raises(FileNotFoundError, match="uqlib pretrain synthesis_cifar10"):
        read_synthesis.load_synthesis()
