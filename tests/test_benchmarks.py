import pytest

from uqlib import benchmarks, models, store
from uqlib.benchmarks import Benchmark, Network


@pytest.mark.parametrize("name", benchmarks.names())
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
    said = bench.said(bench.networks, root=repository / "data/store")
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


def test_an_unknown_benchmark_names_those_that_there_are():
    with pytest.raises(ValueError, match="unknown benchmark 'imagenet'; choose from cifar10, cifar100"):
        benchmarks.load("imagenet")


def test_a_large_network_must_be_listed():
    body = {"name": "x", "title": "X", "dataset": "x", "split": "test", "fit_size": 5, "network": [], "large": ["a"]}
    with pytest.raises(ValueError, match="names large networks that it does not list: a"):
        benchmarks._benchmark(body)


def test_without_a_checkout_the_error_says_so(tmp_path, monkeypatch):
    benchmarks._all.cache_clear()
    monkeypatch.setattr(benchmarks, "in_checkout", lambda place: None)
    with pytest.raises(FileNotFoundError, match="run from a checkout of the book"):
        benchmarks.names()
    benchmarks._all.cache_clear()
