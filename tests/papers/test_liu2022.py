"""What is alone of liu2022: its files are read safely, their scores are those of other tools, and its trainings are what they say."""

import pickle
import re

import numpy as np
import pytest
import xarray as xr
from scipy.stats import rankdata
from sklearn.metrics import brier_score_loss

from uqlib.experiments.keeping.kept_runs import load_made
from uqlib.experiments.short import liu2022_runs as runs
from uqlib.label_noise import outcome_probabilities
from uqlib.papers import liu2022
from uqlib.report.cards import CARD
from uqlib.store import load_answers

# Of the published files, computed once by NumPy and scikit-learn alone: MSEₚ, KLₚ, Brier, log loss, KS, AUC
ELSEWHERE = {
    ("linear", "fresh"): (0.01224, 0.0305, 0.19384, 0.5658, 0.0270, 0.7086),
    ("linear", "cape_bin"): (0.02413, 0.0625, 0.20675, 0.5992, 0.0294, 0.6692),
    ("linear", "early"): (0.03679, 0.0886, 0.21934, 0.6257, 0.1056, 0.6701),
    ("linear", "overfit"): (0.10383, 0.6312, 0.29105, 1.2000, 0.1460, 0.6161),
    ("discrete", "fresh"): (0.01509, 0.0360, 0.20396, 0.5950, 0.0188, 0.6874),
    ("discrete", "cape_bin"): (0.02476, 0.0587, 0.21152, 0.6133, 0.0200, 0.6608),
    ("discrete", "early"): (0.02612, 0.0635, 0.21390, 0.6203, 0.0239, 0.6527),
    ("discrete", "overfit"): (0.10390, 0.5461, 0.28784, 1.0873, 0.1394, 0.6150),
}
COMPARED = [runs.MEASURED.index(name) for name in ("mse_p", "kl_p", "brier_outcome", "nll", "ks", "auc")]


@pytest.mark.parametrize("scenario", liu2022.PUBLISHED)
def test_the_kept_scores_are_those_of_other_tools(scenario):
    table = load_made(runs.liu2022_runs()).column(f"published/{scenario}/0", "table")
    expected = [ELSEWHERE[scenario, name] for name in liu2022.REGIMES]
    np.testing.assert_allclose(table[:, COMPARED], expected, atol=6e-5)


def test_what_is_kept_is_whole():
    halves, coins = runs.read_halves(), runs.read_coins()
    assert halves.notnull().all()
    assert coins.sel(measure=["mse_p", "brier_outcome", "ece_mass", "ks"]).max() < 1
    assert set(coins["variant"].values) <= set(liu2022.NAMES)
    for pairs in runs.read_carded().values():
        assert len(pairs) == coins.sizes["training"]
        np.testing.assert_allclose(np.exp(pairs[0][0]).sum(1), 1)


def test_a_file_that_is_no_array_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setenv("UQLIB_DATA", str(tmp_path))
    monkeypatch.setenv("UQLIB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match=r"git clone https://github\.com/jackzhu727"):
        liu2022.read_published("linear")
    files = tmp_path / liu2022.REPOSITORY["folder"] / "examples/UTKFace/result"
    files.mkdir(parents=True)
    (files / "unif_infinite_output_prob.p").write_bytes(pickle.dumps(print))
    with pytest.raises(ValueError, match=r"asks for builtins\.print"):
        liu2022.read_published("linear")
    with pytest.raises(ValueError, match="unknown scenario 'sigmoid'; choose from linear, discrete"):
        liu2022.read_published("sigmoid")


def test_scores_that_know_nothing_get_an_infinite_temperature():
    scores, coins = np.array([0.2, 0.8, 0.2, 0.8]), np.array([True, False, False, True])
    np.testing.assert_array_equal(runs.mapped("temperature", scores, coins, np.array([0.1, 0.9, 0.5])), 0.5)


@pytest.mark.parametrize("network", runs.SETS)
def test_the_parts_of_a_world_share_no_picture_and_have_the_truth_of_their_class(network):
    world = runs.coin_world(network, "linear", 3)
    assert [len(part.coins) for part in world.values()] == [runs.SETS[network][name] for name in world]
    rows = np.concatenate([part.features.numpy() for part in world.values()])
    assert len(np.unique(rows.round(5), axis=0)) == len(rows)
    if len(runs.SETS[network]["splits"]) > 1:
        labels = load_answers(network, "cifar10", "test2000", columns=("features", "labels")).labels
        np.testing.assert_array_equal(world["test"].truth, outcome_probabilities(labels, "linear"))


def test_methods_start_from_the_same_network_and_maps_keep_the_order():
    world = runs.coin_world("cifar_resnet20", "discrete", 0)
    world = {name: runs.Part(*(column[:300] for column in part)) for name, part in world.items()}
    found = runs.fit_methods(world, 0, members=1, epochs=2)
    assert list(found) == list(runs.METHODS)
    np.testing.assert_array_equal(found["ensemble"], found["early"])  # of one
    for name, start in (("platt", "early"), ("cape_platt", "cape_bin")):
        slope = np.sign(np.corrcoef(found[name], found[start])[0, 1])
        np.testing.assert_array_equal(rankdata(found[name]), rankdata(slope * found[start]))
    again = runs.fit_methods(world, 0, members=1, epochs=2)
    np.testing.assert_array_equal(found["cape_kernel"], again["cape_kernel"])


def test_the_schedule_puts_one_epoch_of_targets_after_so_many_on_coins():
    world = runs.coin_world("cifar_resnet20", "discrete", 0)
    world["train"] = runs.Part(*(column[:300] for column in world["train"]))
    network, coins = runs.new_network(64, 0), world["train"].coins
    how = runs.AFTER["one_group"]
    on_coins = [np.array_equal(runs.similar_outcomes(world, each, network, **how), coins) for each in range(6)]
    assert on_coins == [False, True, True] * 2
    np.testing.assert_allclose(runs.similar_outcomes(world, 0, network, **how), coins.mean())
    assert runs.similar_outcomes(world, 0, network) is coins


def test_cape_is_first_where_the_better_kind_is_below_every_rival():
    names = {
        "place": ["a", "b"],
        "variant": ["cape_bin", "cape_kernel", "early", "temperature", "platt", "ensemble", "fresh"],
    }
    levels = np.array([[3.0, 2.0, 5, 4, 6, 7, 0], [3.0, 4.0, 5, 4, 6, 1, 0]])
    errors = xr.DataArray(levels[..., None] + np.array([-1.0, 1.0]), {**names, "training": [0, 1]})
    found = runs.cape_less_first(errors)
    assert found.sel(place="a").values.tolist() == [
        -2,
        -2,
    ]  # the kernel's 2 less the temperature's 4; fresh coins are no rival
    assert found.sel(place="b").values.tolist() == [2, 2]  # the groups' 3 less the 1 of five networks


def test_ranks_follow_the_truth_and_auc_is_turned_round():
    measures = ["mse_p", "brier_outcome", "ece_mass", "auc"]
    table = np.array([[1.0, 1, 3, 0.9], [2, 2, 2, 0.8], [3, 3, 1, 0.7]])[None]
    found = runs.ranked_as_truth(xr.DataArray(table, {"place": ["a"], "variant": list("xyz"), "measure": measures}))
    assert {name: float(each[0]) for name, each in found.items()} == pytest.approx({"brier": 1, "ece": -1, "auc": 1})


def test_measures_of_another_kind_have_names_of_their_own():
    """The card's ECE is of equal width and its Brier of two classes; those of the tables are neither."""
    printed = {name: liu2022.NAMES[name] for name in runs.MEASURED}
    shared = set(printed) & set(CARD)
    assert shared == {"nll"}  # log loss of two classes, the same in both
    assert not {printed[name] for name in set(printed) - shared} & {CARD[name].name for name in CARD}
    scores, coins = np.array([0.1, 0.2, 0.3, 0.9]), np.array([False, False, True, True])
    found = dict(zip(runs.MEASURED, runs.judged(scores, scores, coins), strict=True))
    assert found["brier_outcome"] == pytest.approx(brier_score_loss(coins, scores))


def test_what_one_takes_home_runs(repository):
    page = (repository / "book/liu2022/index.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    exec(compile(code, "index.md", "exec"), {})
