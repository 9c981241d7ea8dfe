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
    combinations = [tuple(int(k == j) for k in range(6)) for j in range(3)]
    for training, combination in enumerate(combinations):
        scores.loc[dict(zip(FACTORS, combination, strict=True)) | {"training": training}] = 1.0 + training
    picked, gained = best_elsewhere(scores, [(0,) * 6, *combinations])
    assert tuple(picked.values()) == combinations[2]
    assert gained.sel(draw=0).values.tolist() == [0, 0, 0]
    assert gained.training.values.tolist() == [0, 1, 2]


def test_what_is_better_everywhere_is_chosen_everywhere():
    scores = score_by(lambda on: sum(GAINS[name] * on[name] for name in FACTORS))
    picked, gained = best_elsewhere(scores, np.ndindex(*[2] * 6))
    assert picked == {name: int(gain > 0) for name, gain in GAINS.items()}
    assert (gained == 11).all()


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
