"""The script that makes the benchmarks, on digits and a network of nothing."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from uqlib import benchmarks, data, models, store
from uqlib.benchmarks import Benchmark, Network

OPTIONS = {"epochs": 1, "lr": 1e-3, "batch": 50}


@pytest.fixture
def script(repository, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(repository / "data"))
    monkeypatch.setenv("UQLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("UQLIB_STORE", raising=False)
    (tmp_path / "pyproject.toml").touch()  # a checkout of its own, whose logs are read
    monkeypatch.setenv("UQLIB_WEIGHTS", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    save_file(
        models.create("cifar_resnet8_w8", weights=None, seed=0).state_dict(), tmp_path / "cifar_resnet8_w8.safetensors"
    )
    import build_benchmarks

    small = {"backbone": "cifar_resnet8_w8", "size": 16, "macs": 1}
    networks = [
        Network("a-head", "head", **small),
        Network("a-draw1", "tuned", training=OPTIONS | {"seed": 1}, **small),
        Network("a-draw2", "tuned", training=OPTIONS | {"seed": 2}, role="trial", **small),
        Network("a-uniform", "tuned", role="soup", **small),
        Network("a-greedy", "tuned", role="soup", **small),
        Network("cifar_resnet8", "trained", 16, 1, training=OPTIONS),
    ]
    bench = Benchmark("toy", "Toy", "digits", "heldout", 50, {n.name: n for n in networks})
    monkeypatch.setattr(benchmarks, "load", lambda name: bench)
    train, test = (
        data.load("digits", "train").select(np.arange(300)),
        data.load("digits", "test").select(np.arange(100)),
    )
    sets = {"toy": lambda: (train, [replace(test, split="heldout")])}
    monkeypatch.setattr(build_benchmarks, "SETS", sets)
    monkeypatch.setattr(
        sys, "argv", ["build_benchmarks.py", "--benchmarks", "toy", "--root", "store", "--device", "cpu"]
    )
    yield build_benchmarks
    sys.modules.pop("build_benchmarks"), sys.modules.pop("build_store")


def test_networks_are_made_once_and_asked(script, tmp_path, monkeypatch, capsys):
    script.main()
    names = ["a-head", "a-draw1", "a-draw2", "a-uniform", "a-greedy", "cifar_resnet8"]
    said = store.load_many(names, "digits", "heldout", root="store")
    logits = {name: each.logits for name, each in said.items()}
    assert all(each.shape == (100, 10) for each in logits.values())
    assert not torch.equal(logits["a-draw1"], logits["a-draw2"])
    log = json.loads((tmp_path / "data/training/toy.json").read_text())
    assert log["a-uniform"]["members"] == ["a-draw1", "a-draw2"]
    scores = {name: log[name]["epochs"][-1]["accuracy"] for name in ("a-draw1", "a-draw2")}
    best = max(scores, key=scores.get)
    assert log["a-greedy"]["members"][0] == best
    # statistics of batch norm are taken again in both, so the greedy soup of one is near that network, not equal
    assert (logits["a-head"].argmax(-1) == said["a-head"].labels).float().mean() > 0.5
    capsys.readouterr()
    monkeypatch.setattr(script, "made", lambda *_: pytest.fail("it was there already"))
    script.main()


def test_a_network_with_another_recipe_is_named_and_made_again(script, monkeypatch, capsys):
    script.main()
    capsys.readouterr()
    before = {path.name: path.read_bytes() for path in Path("store").rglob("*.safetensors")}
    bench = benchmarks.load("toy")
    changed = replace(bench.networks["a-draw2"], training=OPTIONS | {"seed": 2, "lr": 2e-3})
    monkeypatch.setattr(benchmarks, "load", lambda name: replace(bench, networks=bench.networks | {"a-draw2": changed}))
    made, original = [], script.made
    monkeypatch.setattr(
        script, "made", lambda bench, network, *more: made.append(network.name) or original(bench, network, *more)
    )
    script.main()
    lines = capsys.readouterr().out.splitlines()
    again = ["a-draw2", "a-uniform", "a-greedy"]  # and the soups of it
    assert [line.split()[1] for line in lines if "another recipe" in line] == again
    assert [name for name in made if name in again] == ["a-draw2", "a-uniform", "a-draw2", "a-greedy", "a-draw2"]
    after = {path.name: path.read_bytes() for path in Path("store").rglob("*.safetensors")}
    assert len(after) == len(before) == 6
    assert len(set(after) - set(before)) in (2, 3)  # a greedy soup may be of the other one alone
    assert benchmarks.stale(benchmarks.load("toy")) == []
    script.main()
    assert capsys.readouterr().out == ""
