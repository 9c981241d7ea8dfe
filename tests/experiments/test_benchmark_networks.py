"""The networks of a benchmark are made once, on digits and a network of nothing."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec import structs
from safetensors.torch import save_file

from uqlib import cli, store
from uqlib.experiments import benchmark_networks, benchmarks, image_sets, worklist
from uqlib.experiments.benchmarks import Benchmark, Network
from uqlib.images import load_images
from uqlib.networks import create

OPTIONS = {"epochs": 1, "lr": 1e-3, "batch": 50}
NAMES = ["a-head", "a-draw1", "a-draw2", "a-uniform", "a-greedy", "cifar_resnet8"]


@pytest.fixture
def toy(monkeypatch, tmp_path):
    """A checkout of its own with the benchmark `toy`."""
    (tmp_path / "data/ledger").mkdir(parents=True)
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.setenv("UQLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("UQLIB_STORE", raising=False)
    monkeypatch.setenv("UQLIB_WEIGHTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    state = create("cifar_resnet8_w8", weights=None, seed=0).state_dict()
    save_file(state, tmp_path / "cifar_resnet8_w8.safetensors")
    small = {"backbone": "cifar_resnet8_w8", "size": 16, "macs": 1}
    members = [
        Network("a-head", "head", **small),
        Network("a-draw1", "tuned", training=OPTIONS | {"seed": 1}, **small),
        Network("a-draw2", "tuned", training=OPTIONS | {"seed": 2}, role="trial", **small),
        Network("a-uniform", "tuned", role="soup", **small),
        Network("a-greedy", "tuned", role="soup", **small),
        Network("cifar_resnet8", "trained", 16, 1, training=OPTIONS),
    ]
    bench = Benchmark("toy", "Toy", "digits", "heldout", 50, tuple(members))
    monkeypatch.setattr(benchmarks, "load_benchmark", lambda name: bench)
    train = load_images("digits", "train").select(np.arange(300))
    test = replace(load_images("digits", "test").select(np.arange(100)), split="heldout")
    monkeypatch.setitem(image_sets.BENCHMARK_SETS, "toy", lambda: (train, [test]))
    image_sets._load_sets.cache_clear()
    worklist._read_logs.cache_clear()
    yield bench
    image_sets._load_sets.cache_clear()
    worklist._read_logs.cache_clear()


def make(*network):
    return cli.main(["network", "toy", *network, "--root", "store", "--device", "cpu"])


def test_networks_are_made_once_and_asked(toy, tmp_path, monkeypatch, capsys):
    assert make() == 0
    answers = store.load_many_answers(NAMES, "digits", "heldout", root="store")
    logits = {name: each.logits for name, each in answers.items()}
    assert all(each.shape == (100, 10) for each in logits.values())
    assert not torch.equal(logits["a-draw1"], logits["a-draw2"])
    log = json.loads((tmp_path / "data/benchmarks/cpu/toy.log.json").read_text())
    assert log["a-uniform"]["members"] == ["a-draw1", "a-draw2"]
    scores = {name: log[name]["epochs"][-1]["accuracy"] for name in ("a-draw1", "a-draw2")}
    best = max(scores, key=scores.get)
    assert log["a-greedy"]["members"][0] == best
    # statistics of batch norm are taken again in both, so the greedy soup of one is near that network, not equal
    assert (logits["a-head"].argmax(-1) == answers["a-head"].labels).float().mean() > 0.5
    capsys.readouterr()
    monkeypatch.setattr(benchmark_networks, "make_network", lambda *_: pytest.fail("it was there already"))
    assert make() == 0
    assert capsys.readouterr().out == "nothing is missing\n"


def test_a_network_with_another_recipe_is_named_and_made_again(toy, monkeypatch, capsys):
    make()
    capsys.readouterr()
    before = {path.name: path.read_bytes() for path in Path("store").rglob("*.safetensors")}
    changed = structs.replace(toy.networks["a-draw2"], training=OPTIONS | {"seed": 2, "lr": 2e-3})
    listed = tuple(changed if each.name == "a-draw2" else each for each in toy.listed)
    monkeypatch.setattr(benchmarks, "load_benchmark", lambda name: structs.replace(toy, listed=listed))
    made, original = [], benchmark_networks.make_network
    monkeypatch.setattr(
        benchmark_networks,
        "make_network",
        lambda bench, network, *more: made.append(network.name) or original(bench, network, *more),
    )
    make()
    lines = capsys.readouterr().out.splitlines()
    again = ["a-draw2", "a-uniform", "a-greedy"]  # and the soups of it
    assert [line.split()[1] for line in lines if "another recipe" in line] == again
    assert [name for name in made if name in again] == ["a-draw2", "a-uniform", "a-draw2", "a-greedy", "a-draw2"]
    after = {path.name: path.read_bytes() for path in Path("store").rglob("*.safetensors")}
    assert len(after) == len(before) == 6
    assert len(set(after) - set(before)) in (2, 3)  # a greedy soup may be of the other one alone
    assert benchmarks.outdated_networks(benchmarks.load_benchmark("toy")) == []
    make()
    assert capsys.readouterr().out == "nothing is missing\n"


def test_an_unknown_network_is_refused_with_the_known_ones(toy, capsys):
    assert make("a-haed") == 2
    assert "unknown network of toy 'a-haed'; choose from a-head, a-draw1" in capsys.readouterr().err


def test_trials_come_one_after_the_other_and_soups_last(toy):
    order = [job.name.removeprefix("toy/") for job in worklist.sort_jobs(worklist.network_jobs(toy, root="store"))]
    assert order == ["a-head", "a-draw1", "cifar_resnet8", "a-draw2", "a-uniform", "a-greedy"]


def test_the_time_of_a_network_is_that_of_like_ones_by_work(toy):
    log = {"a-draw1": {"head": {"seconds": 4.0}, "epochs": [{"seconds": 6.0}], "recipe": ""}}
    Path("data/benchmarks/cpu").mkdir(parents=True)
    Path("data/benchmarks/cpu/toy.log.json").write_text(json.dumps(log))
    seconds = {job.name: job.seconds for job in worklist.network_jobs(toy, root="store")}
    assert seconds["toy/a-draw2"] == 10.0  # as many multiply-adds, as many epochs
    assert seconds["toy/a-uniform"] == 20.0  # both
    assert seconds["toy/a-head"] is seconds["toy/cifar_resnet8"] is None  # made in another way


def test_images_of_another_size_are_refused_with_the_size(monkeypatch):
    digits = load_images("digits", "test")
    with pytest.raises(ValueError, match=r"digits/test must have 64 x 64 pixels here; it has 8 x 8\. Prepare it"):
        image_sets.check_side(digits, 64)
    assert image_sets.check_side(digits, 8) is digits


def test_the_first_rows_are_as_many_of_each_class_and_the_next_do_not_meet_them():
    digits = load_images("digits", "train")
    one, other = image_sets.first_rows(digits, 200), image_sets.first_rows(digits, 100, 200)
    assert np.bincount(digits.labels[one]).tolist() == [20] * 10
    assert np.bincount(digits.labels[other]).tolist() == [10] * 10
    assert not set(one) & set(other)
    for label in range(10):
        assert max(one[digits.labels[one] == label]) < min(other[digits.labels[other] == label])
