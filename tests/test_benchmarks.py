import json
from dataclasses import replace

import pytest

from uqlib import benchmarks, models, store
from uqlib.benchmarks import Benchmark, Network
from uqlib.files import DamagedError


@pytest.mark.parametrize("name", [*benchmarks.names(), benchmarks.names("gpu")[0]])  # the others share its networks
def test_costs_are_those_of_the_architectures(name):
    seen = {}
    for network in benchmarks.load(name).networks.values():
        case = network.architecture, network.size
        if case not in seen:
            seen[case] = models.macs(models.create(network.architecture, weights=None), size=network.size)
        assert network.macs == seen[case], network.name


@pytest.mark.parametrize("name", benchmarks.names())
def test_every_network_has_spoken_about_the_same_held_out_rows(repository, name):
    bench = benchmarks.load(name)
    said = bench.said(list(bench.networks), root=repository / "data/store")
    assert set(said) == set(bench.networks)
    for each in said.values():
        assert each.logits.shape == (len(each), bench.classes)
        assert f"size={bench.networks[each.key.network].size} " in each.key.preprocessing


@pytest.mark.parametrize("name", benchmarks.names())
def test_shifted_images_were_asked_of_every_single_network(repository, name):
    bench = benchmarks.load(name)
    for places in bench.shifted.values():
        for dataset, split in places:
            store.load_many([n.name for n in bench.single], dataset, split, root=repository / "data/store")


def test_pairs_are_of_a_large_and_a_cheaper_network():
    networks = [Network(name, "head", 32, macs) for name, macs in (("a", 100), ("b", 40), ("c", 10))]
    networks.append(Network("b2", "head", 32, 40, role="trial"))
    bench = Benchmark("x", "X", "x", "test", 5, {n.name: n for n in networks}, large=("a", "b"))
    assert bench.pairs == [("a", "c"), ("a", "b"), ("b", "c")]
    assert bench.balance("a", "b") == pytest.approx(0.4)
    assert [n.name for n in bench.single] == ["c", "b", "a"]


def test_each_scale_has_benchmarks_of_its_own():
    assert benchmarks.names("smoke") == benchmarks.names("cpu") == benchmarks.names()
    assert benchmarks.names("paper") == benchmarks.names("gpu")
    assert not set(benchmarks.names("gpu")) & set(benchmarks.names())
    for name in benchmarks.names("gpu"):
        assert len(benchmarks.load(name).pairs) >= 15


def test_an_unknown_benchmark_names_those_that_there_are():
    with pytest.raises(ValueError, match="unknown benchmark 'imagenet'; choose from cifar10, cifar100"):
        benchmarks.load("imagenet")


def test_a_misspelt_field_is_named_with_its_place():
    body = {"name": "x", "title": "X", "dataset": "x", "split": "test", "fit_size": 5, "large": []}
    with pytest.raises(ValueError, match=r"benchmarks\.toml: x: unknown field 'spilt'; choose from name, title"):
        benchmarks._benchmark(body | {"spilt": "test"}, {})
    with pytest.raises(ValueError, match=r"benchmarks\.toml: x, network a lacks made, size, macs"):
        benchmarks._benchmark(body | {"network": [{"name": "a"}]}, {})


def test_a_large_network_must_be_listed():
    body = {"name": "x", "title": "X", "dataset": "x", "split": "test", "fit_size": 5, "network": [], "large": ["a"]}
    with pytest.raises(ValueError, match="names large networks that it does not list: a"):
        benchmarks._benchmark(body, {})


def test_without_a_checkout_the_error_says_so(tmp_path, monkeypatch):
    benchmarks._all.cache_clear()
    monkeypatch.setattr(benchmarks, "in_checkout", lambda place: None)
    with pytest.raises(FileNotFoundError, match="run from a checkout of the book"):
        benchmarks.names()
    benchmarks._all.cache_clear()


def several(*names, role="trial"):
    first, *others = names
    networks = [Network(first, "tuned", 32, 40, "b", training={"epochs": 2})]
    networks += [Network(name, "tuned", 32, 40, "b", role=role, training={"epochs": 2}) for name in others]
    networks += [
        Network("soup", "tuned", 32, 40, "b", role="soup"),
        Network("big", "tuned", 32, 90, training={"lr": 1}),
    ]
    return Benchmark("toy", "Toy", "x", "test", 5, {n.name: n for n in networks})


def test_trainings_of_one_architecture_without_soups():
    assert several("b1", "b2", "b3").repeated == {"b": ["b1", "b2", "b3"]}
    assert several("b1", "b2", role="").repeated == {}  # two networks that stand for themselves
    assert "mobilenetv1_075-draw1" in benchmarks.load("caltech101").repeated["mobilenetv1_075"]


@pytest.fixture
def logs(tmp_path, monkeypatch):
    """A checkout in which a, b, c were trained; d has no epochs, e was not judged."""
    accuracy = {"a": [0.9, 0.5], "b": [0.1, 0.8], "c": [0.2, 0.8], "e": [None, None]}
    body = {name: {"epochs": [{"accuracy": x} for x in values]} for name, values in accuracy.items()} | {"d": {}}
    body["soup"] = {"members": ["b", "a"], "accuracy": 0.9}
    (tmp_path / "data/training").mkdir(parents=True)
    (tmp_path / "data/training/toy.json").write_text(json.dumps(body))
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("logs")
def test_trainings_are_ordered_by_their_last_epoch_and_ties_by_the_file():
    assert list(benchmarks.judged(several("a"), ["a", "b", "c"]).items()) == [("b", 0.8), ("c", 0.8), ("a", 0.5)]


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize("name", ["d", "e", "f"])
def test_a_training_that_was_not_judged_is_named(name):
    with pytest.raises(ValueError, match=f"has no validation accuracy of {name}; it has that of a, b, c$"):
        benchmarks.judged(several("a"), ["a", name])


@pytest.mark.usefixtures("logs")
def test_a_soup_names_its_ingredients_in_the_order_in_which_they_joined():
    assert benchmarks.ingredients(several("a"), "soup") == ["b", "a"]
    with pytest.raises(ValueError, match="unknown soup 'a'; choose from soup"):
        benchmarks.ingredients(several("a"), "a")


@pytest.mark.parametrize("name", benchmarks.names())
def test_every_shipped_network_was_made_by_the_recipe_of_the_file(name):
    assert benchmarks.stale(benchmarks.load(name)) == []


def test_a_recipe_changes_with_all_that_makes_the_network(tmp_path, monkeypatch):
    bench = several("a", "b")
    before = {name: benchmarks.recipe(bench, each) for name, each in bench.networks.items()}
    for change in ({"made": "head"}, {"size": 48}, {"backbone": "c"}, {"training": {"epochs": 3}}):
        network = replace(bench.networks["big"], **change)
        assert benchmarks.recipe(bench, network) != before["big"], change
    for change in ({"label": "Big"}, {"macs": 3}):
        assert benchmarks.recipe(bench, replace(bench.networks["big"], **change)) == before["big"]
    other = replace(bench, networks=bench.networks | {"b": replace(bench.networks["b"], training={"epochs": 5})})
    changed = {name for name, each in other.networks.items() if benchmarks.recipe(other, each) != before[name]}
    assert changed == {"b", "soup"}
    assert benchmarks.recipe(replace(bench, sets="half"), bench.networks["big"]) != before["big"]
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    assert benchmarks.stale(bench) == list(bench.networks)  # nothing is known of them


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', "[" * 100_000, "{"])
def test_a_log_that_cannot_be_read_is_named(tmp_path, monkeypatch, text):
    (tmp_path / "data/training").mkdir(parents=True)
    (tmp_path / "data/training/toy.json").write_text(text)
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DamagedError, match=r"toy\.json is damaged: it"):
        benchmarks.judged(several("a"), ["a"])


def test_a_benchmark_without_trainings_says_what_makes_them(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no data/training/toy\.json; `python data/build_benchmarks"):
        benchmarks.judged(several("a"), ["a"])


def test_of_several_trainings_the_one_that_stands_for_all_is_the_best_on_validation(repository):
    log = json.loads((repository / "data/training/caltech101.json").read_text())
    networks = benchmarks.load("caltech101").networks.values()
    draws = [n for n in networks if n.architecture == "mobilenetv1_075" and n.training]
    best = max(draws, key=lambda n: log[n.name]["epochs"][-1]["accuracy"])
    assert len(draws) == 5
    assert [n.name for n in draws if not n.role] == [best.name]
