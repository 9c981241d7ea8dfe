import json
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from uqlib import networks, store
from uqlib.base import splits
from uqlib.combine import repeat_duo
from uqlib.experiments import benchmarks
from uqlib.experiments.benchmarks import Benchmark, Network
from uqlib.files.whole import DamagedError


@pytest.mark.parametrize(
    "name", [*benchmarks.benchmark_names(), benchmarks.benchmark_names("gpu")[0]]
)  # the others share its networks
def test_costs_are_those_of_the_architectures(name):
    seen = {}
    for network in benchmarks.load_benchmark(name).networks.values():
        case = network.architecture, network.size
        if case not in seen:
            seen[case] = networks.macs(networks.create(network.architecture, weights=None), size=network.size)
        assert network.macs == seen[case], network.name


@pytest.mark.parametrize("name", benchmarks.benchmark_names())
def test_every_network_has_spoken_about_the_same_held_out_rows(repository, name):
    bench = benchmarks.load_benchmark(name)
    said = bench.answers(list(bench.networks), root=repository / "data/store")
    assert set(said) == set(bench.networks)
    for each in said.values():
        assert each.logits.shape == (len(each), bench.classes)
        assert f"size={bench.networks[each.key.network].size} " in each.key.preprocessing


@pytest.mark.parametrize("name", benchmarks.benchmark_names())
def test_shifted_images_were_asked_of_every_single_network(repository, name):
    bench = benchmarks.load_benchmark(name)
    for places in bench.shifted.values():
        for dataset, split in places:
            store.load_many_answers([n.name for n in bench.single], dataset, split, root=repository / "data/store")


def test_pairs_are_of_a_large_and_a_cheaper_network():
    networks = [Network(name, "head", 32, macs) for name, macs in (("a", 100), ("b", 40), ("c", 10))]
    networks.append(Network("b2", "head", 32, 40, role="trial"))
    bench = Benchmark("x", "X", "x", "test", 5, tuple(networks), large=("a", "b"))
    assert bench.pairs == [("a", "c"), ("a", "b"), ("b", "c")]
    assert bench.balance("a", "b") == pytest.approx(0.4)
    assert bench.cost(["a", "c", "c"]) == 120
    assert [n.name for n in bench.single] == ["c", "b", "a"]


def test_trainings_are_paired_in_the_order_of_the_file():
    def trainings(name, count):
        roles = ["", *["trial"] * (count - 1)]
        return [
            Network(f"{name}{k}", "tuned", 8, 1, name, role=role, training={"seed": k}) for k, role in enumerate(roles)
        ]

    listed = (*trainings("big", 2), Network("other", "head", 8, 9), *trainings("small", 3))
    bench = Benchmark("x", "X", "x", "test", 5, listed, large=("big0", "other"))
    assert benchmarks.pairs_anew(bench) == {
        ("big0", "small0", "sidekick"): [("big0", "small0"), ("big0", "small1"), ("big0", "small2")],
        ("big0", "small0", "both"): [("big0", "small0"), ("big1", "small1")],
        ("other", "small0", "sidekick"): [("other", "small0"), ("other", "small1"), ("other", "small2")],
    }


def test_each_scale_has_benchmarks_of_its_own():
    assert benchmarks.benchmark_names("smoke") == benchmarks.benchmark_names("cpu") == benchmarks.benchmark_names()
    assert benchmarks.benchmark_names("paper") == benchmarks.benchmark_names("gpu")
    assert not set(benchmarks.benchmark_names("gpu")) & set(benchmarks.benchmark_names())
    for name in benchmarks.benchmark_names("gpu"):
        assert len(benchmarks.load_benchmark(name).pairs) >= 15


def test_an_unknown_benchmark_names_those_that_there_are():
    with pytest.raises(ValueError, match="unknown benchmark 'imagenette'; choose from cifar10, cifar100"):
        benchmarks.load_benchmark("imagenette")


TOY = 'title = "X"\ndataset = "x"\nsplit = "test"\nfit_size = 5\n'
NETWORK = '[[network]]\nname = "a"\norigin = "head"\nsize = 32\nmacs = 7\n'


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with two benchmarks of cpu, in an order that is not that of their names, and one of gpu."""
    (tmp_path / "pyproject.toml").touch()
    for name in ("cpu/a", "cpu/b", "cpu/c", "gpu/large"):
        path = tmp_path / f"data/benchmarks/{name}.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(TOY + NETWORK)
    (tmp_path / "data/benchmarks/order.toml").write_text('cpu = ["b", "a"]\ngpu = ["large"]\n')
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data/benchmarks"


def test_names_come_in_the_order_of_the_index_then_by_name(checkout):
    assert benchmarks.benchmark_names() == ["b", "a", "c"]
    (checkout / "order.toml").write_text('cpu = ["b", "d"]\ngpu = []\n')
    with pytest.raises(ValueError, match=r"order\.toml lists d; cpu has a, b, c"):
        benchmarks.benchmark_names()


def test_the_order_of_the_book_is_the_one_that_its_tables_have_always_had():
    assert benchmarks.benchmark_names() == ["cifar10", "cifar100", "caltech101", "tiny_imagenet", "pacs", "imagenet"]
    gpu = ["cifar100_gpu", "caltech101_gpu", "tiny_imagenet_gpu", "pacs_gpu", "imagenet_gpu"]
    assert benchmarks.benchmark_names("gpu") == gpu


def opened(monkeypatch):
    """The files that are read from now on."""
    found, read = [], Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: found.append(path.name) or read(path))
    return found


def test_a_benchmark_is_read_alone(checkout, monkeypatch):
    found = opened(monkeypatch)
    assert benchmarks.benchmark_names() == ["b", "a", "c"]
    assert found == ["order.toml"]
    assert benchmarks.load_benchmark("a").scale == "cpu"
    assert benchmarks.load_benchmark("large").scale == "gpu"
    assert found == ["order.toml", "a.toml", "large.toml"]


def test_shared_networks_come_before_those_of_the_benchmark(checkout, monkeypatch):
    (checkout / "networks").mkdir()
    (checkout / "networks/two.toml").write_text(NETWORK + NETWORK.replace('"a"', '"b"'))
    (checkout / "cpu/a.toml").write_text('networks = "two"\n' + TOY + NETWORK.replace('"a"', '"c"'))
    found = opened(monkeypatch)
    assert list(benchmarks.load_benchmark("a").networks) == ["a", "b", "c"]
    assert found == ["a.toml", "two.toml"]
    (checkout / "cpu/b.toml").write_text('networks = "tow"\n' + TOY)
    with pytest.raises(ValueError, match=r"unknown networks of .*b\.toml 'tow'; choose from two"):
        benchmarks.load_benchmark("b")
    (checkout / "cpu/c.toml").write_text('networks = "two"\n' + TOY + NETWORK)
    with pytest.raises(ValueError, match=r"c\.toml lists networks twice: a"):
        benchmarks.load_benchmark("c")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            TOY.replace("split", "spilt"),
            r"a\.toml: Object contains unknown field `spilt`; `split` comes near; choose from title",
        ),
        (TOY + '[[network]]\nname = "n"', r"network n: Object missing required field `origin` - at `\$\.network\[0\]`"),
        (TOY + NETWORK.replace("32", '"32"'), r"network a: Expected `int`, got `str` - at `\$\.network\[0\]\.size`"),
        (
            TOY + NETWORK.replace("head", "heads"),
            r"network a: Invalid enum value 'heads' - at `\$\.network\[0\]\.origin`",
        ),
        (TOY + "shifted = { dark = [[3, 4]] }", r"Expected `str`, got `int` - at `\$\.shifted\[...\]\[0\]\[0\]`"),
        (TOY + 'scale = "cpu"', r"a\.toml: leave out `scale`; the place of the file says it"),
        (TOY + 'large = ["b"]\n' + NETWORK, "names large networks that it does not list: b"),
    ],
)
def test_a_mistake_in_a_benchmark_is_named_with_its_place(checkout, content, message):
    (checkout / "cpu/a.toml").write_text(content)
    with pytest.raises(ValueError, match=message):
        benchmarks.load_benchmark("a")


def test_two_benchmarks_of_one_name_are_refused(checkout):
    (checkout / "gpu/a.toml").write_text(TOY)
    with pytest.raises(ValueError, match="there are two benchmarks 'a'"):
        benchmarks.load_benchmark("a")


def test_without_a_checkout_the_error_says_so(monkeypatch):
    monkeypatch.setattr(benchmarks, "in_checkout", lambda place: None)
    with pytest.raises(FileNotFoundError, match="run from a checkout of the book"):
        benchmarks.benchmark_names()
    with pytest.raises(FileNotFoundError, match="run from a checkout of the book"):
        benchmarks.load_benchmark("cifar10")


def several(*names, role="trial"):
    first, *others = names
    networks = [Network(first, "tuned", 32, 40, "b", training={"epochs": 2})]
    networks += [Network(name, "tuned", 32, 40, "b", role=role, training={"epochs": 2}) for name in others]
    networks += [
        Network("soup", "tuned", 32, 40, "b", role="soup"),
        Network("big", "tuned", 32, 90, training={"lr": 1}),
    ]
    return Benchmark("toy", "Toy", "x", "test", 5, tuple(networks))


def test_trainings_of_one_architecture_without_soups():
    assert several("b1", "b2", "b3").repeated == {"b": ["b1", "b2", "b3"]}
    assert several("b1", "b2", role="").repeated == {}  # two networks that stand for themselves
    assert "mobilenetv1_075-draw1" in benchmarks.load_benchmark("caltech101").repeated["mobilenetv1_075"]


@pytest.fixture
def logs(tmp_path, monkeypatch):
    """A checkout in which a, b, c were trained; d has no epochs, e was not judged."""
    accuracy = {"a": [0.9, 0.5], "b": [0.1, 0.8], "c": [0.2, 0.8], "e": [None, None]}
    body = {name: {"epochs": [{"accuracy": x} for x in values]} for name, values in accuracy.items()} | {"d": {}}
    body["soup"] = {"members": ["b", "a"], "accuracy": 0.9}
    (tmp_path / "data/benchmarks/cpu").mkdir(parents=True)
    (tmp_path / "data/benchmarks/cpu/toy.log.json").write_text(json.dumps(body))
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("logs")
def test_trainings_are_ordered_by_their_last_epoch_and_ties_by_the_file():
    assert list(benchmarks.validation_accuracies(several("a"), ["a", "b", "c"]).items()) == [
        ("b", 0.8),
        ("c", 0.8),
        ("a", 0.5),
    ]


@pytest.mark.usefixtures("logs")
@pytest.mark.parametrize("name", ["d", "e", "f"])
def test_a_training_that_was_not_judged_is_named(name):
    with pytest.raises(ValueError, match=f"has no validation accuracy of {name}; it has that of a, b, c$"):
        benchmarks.validation_accuracies(several("a"), ["a", name])


@pytest.mark.usefixtures("logs")
def test_a_soup_names_its_ingredients_in_the_order_in_which_they_joined():
    assert benchmarks.ingredients(several("a"), "soup") == ["b", "a"]
    with pytest.raises(ValueError, match="unknown soup 'a'; choose from soup"):
        benchmarks.ingredients(several("a"), "a")


@pytest.mark.usefixtures("logs")
def test_soups_stand_beside_the_best_training_and_every_cheaper_network(monkeypatch):
    extra = [Network("kept", "tuned", 32, 40, "b", role="soup"), *(Network(f"s{k}", "head", 32, k) for k in (20, 10))]
    bench = several("a", "b", "c")
    bench = replace(bench, listed=(*bench.listed, *extra, Network("soup-greedy", "tuned", 32, 40, "b", role="soup")))
    poured = {"soup": ["b", "a"], "kept": ["b"], "soup-greedy": ["b", "c"]}
    monkeypatch.setattr(benchmarks, "ingredients", lambda bench, name: poured[name])
    monkeypatch.setattr(benchmarks, "load_benchmark", lambda name: bench)
    expected = [(soup, small) for soup in ("soup-greedy", "soup") for small in ("s10", "s20")]
    assert benchmarks.soup_cases(["toy"]) == [(bench, "b", *pair) for pair in expected]
    assert benchmarks.soup_cases(["toy"], single="a", soups=["big", "s20"]) == [
        (bench, "a", "big", "s10"),
        (bench, "a", "s20", "s10"),
    ]
    with pytest.raises(ValueError, match="which network shall big be compared with"):
        benchmarks.soup_cases(["toy"], soups=["big"])
    with pytest.raises(ValueError, match="toy: no soup of several trainings"):
        benchmarks.soup_cases(["toy"], single="a", soups=["s10"])


@pytest.mark.parametrize("name", benchmarks.benchmark_names())
def test_every_shipped_network_was_made_by_the_recipe_of_the_file(name):
    assert benchmarks.outdated_networks(benchmarks.load_benchmark(name)) == []


def test_a_recipe_changes_with_all_that_makes_the_network(tmp_path, monkeypatch):
    bench = several("a", "b")
    before = {name: benchmarks.recipe(bench, each) for name, each in bench.networks.items()}
    for change in ({"origin": "head"}, {"size": 48}, {"backbone": "c"}, {"training": {"epochs": 3}}):
        network = replace(bench.networks["big"], **change)
        assert benchmarks.recipe(bench, network) != before["big"], change
    for change in ({"label": "Big"}, {"macs": 3}):
        assert benchmarks.recipe(bench, replace(bench.networks["big"], **change)) == before["big"]
    networks = bench.networks | {"b": replace(bench.networks["b"], training={"epochs": 5})}
    other = replace(bench, listed=tuple(networks.values()))
    changed = {name for name, each in other.networks.items() if benchmarks.recipe(other, each) != before[name]}
    assert changed == {"b", "soup"}
    assert benchmarks.recipe(replace(bench, sets="half"), bench.networks["big"]) != before["big"]
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    assert benchmarks.outdated_networks(bench) == list(bench.networks)  # nothing is known of them


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1}', "[" * 100_000, "{"])
def test_a_log_that_cannot_be_read_is_named(tmp_path, monkeypatch, text):
    (tmp_path / "data/benchmarks/cpu").mkdir(parents=True)
    (tmp_path / "data/benchmarks/cpu/toy.log.json").write_text(text)
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DamagedError, match=r"toy\.log\.json is damaged: it"):
        benchmarks.validation_accuracies(several("a"), ["a"])


def test_a_benchmark_without_trainings_says_what_makes_them(tmp_path, monkeypatch):
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        FileNotFoundError, match=r"no data/benchmarks/cpu/toy\.log\.json; `uqlib network toy` writes it"
    ):
        benchmarks.validation_accuracies(several("a"), ["a"])


def test_of_several_trainings_the_one_that_stands_for_all_is_the_best_on_validation(repository):
    log = json.loads((repository / "data/benchmarks/cpu/caltech101.log.json").read_text())
    networks = benchmarks.load_benchmark("caltech101").networks.values()
    draws = [n for n in networks if n.architecture == "mobilenetv1_075" and n.training]
    best = max(draws, key=lambda n: log[n.name]["epochs"][-1]["accuracy"])
    assert len(draws) == 5
    assert [n.name for n in draws if not n.role] == [best.name]


def test_a_pair_has_names_and_the_nearest_sidekick_is_found():
    bench = benchmarks.load_benchmark("cifar10")
    large, small = bench.nearest(0.3)
    shares = {small: bench.balance(large, small) for one, small in bench.pairs if one == large}
    assert large == bench.large[0]
    assert all(abs(shares[small] - 0.3) <= abs(share - 0.3) for share in shares.values())
    about = bench.about(large, small)
    assert about["networks"] == f"{about['large']} + {bench.networks[small].label}"
    costs = {bench.about(*pair)["cost"]: bench.balance(*pair) for pair in bench.pairs}
    assert costs["below_0.1"] < 0.1 <= costs["between"] <= 0.3 < costs["above_0.3"]
    assert bench.words([large] * 3) == f"3 trainings of {large}"


def test_a_pair_decides_shifted_images_with_the_weights_of_the_clean_ones():
    bench, pair = benchmarks.load_benchmark("cifar10"), ("cifar_resnet56", "cifar_resnet20")
    noise = ("cifar10_c", "gaussian_noise")
    found = benchmarks.pair_outcomes(bench, *pair, splits=2, seed=3, variants=["ours"], shifts={"noise": [noise]})
    assert list(found) == ["CIFAR-10", "CIFAR-10, noise"]
    clean, noisy = found.values()
    answers = bench.answers(pair)
    labels = answers[pair[0]].labels
    expected = repeat_duo(*(each.logits for each in answers.values()), labels, fit_size=500, splits=2, seed=3)
    for k, (one, other) in enumerate(zip(clean.outcomes["ours"], expected.outcomes["ours"], strict=True)):
        assert torch.equal(one.probs, other.probs)
        shifted = store.load_many_answers(pair, *noise, columns=("logits",))
        fit, _ = splits.split(len(labels), 500, seed=3 + k)
        left = {row: i for i, row in enumerate(sorted(set(shifted[pair[0]].index.tolist()) - set(fit.tolist())))}
        outcome = noisy.outcomes["ours"][k]
        assert len(outcome.labels) == 5 * len(left)
        for row in range(0, 1500, 211):  # a version of an image stands in its group of five, if nobody fitted on it
            image = int(shifted[pair[0]].index[row])
            if image in left:
                group = outcome.probs[5 * left[image] : 5 * left[image] + 5]
                mixed = sum(
                    w * shifted[n].logits[row].double() for w, n in zip(expected.fits[k].weights, pair, strict=True)
                )
                assert (group - mixed.softmax(-1)).abs().sum(1).min() < 1e-12
    assert (clean.versions, noisy.versions, noisy.names["shift"]) == (1, 5, "noise")
    assert noisy.names["examples"] == len(noisy.outcomes["ours"][-1].labels)


def test_sketches_are_other_images_and_none_is_left_out():
    bench = benchmarks.load_benchmark("pacs")
    found = benchmarks.pair_outcomes(bench, *bench.pairs[0], splits=1, variants=["base"], shifts=bench.shifted)
    assert found["PACS, sketch"].names["examples"] == len(store.load_answers(bench.large[0], "pacs", "sketch"))
    assert found["PACS, sketch"].versions == 1


def test_teams_of_the_same_cost_have_a_weight_each():
    bench = benchmarks.load_benchmark("cifar10")
    (contest, *_) = benchmarks.even_contests(bench, 0.1, splits=1)
    assert contest.names["networks"] == "ResNet-56 + ResNet-20 against ResNet-44 + ResNet-32"
    for side, pair in (
        ("uneven", ("cifar_resnet56", "cifar_resnet20")),
        ("even", ("cifar_resnet44", "cifar_resnet32")),
    ):
        answers = bench.answers(pair)
        logits, labels = [each.logits for each in answers.values()], answers[pair[0]].labels
        expected = repeat_duo(*logits, labels, fit_size=500, splits=1, variants=["ours"]).outcomes["ours"][0]
        torch.testing.assert_close(contest.outcomes[side][0].probs, expected.probs, rtol=0, atol=1e-9)
        alone = repeat_duo(*logits, labels, fit_size=500, splits=1, variants=["base"]).outcomes["base"][0]
        torch.testing.assert_close(contest.outcomes[f"{side}_alone"][0].probs, alone.probs, rtol=0, atol=1e-6)
    far = benchmarks.load_benchmark("caltech101")  # the ResNets' costs are linear in their depth, and 56 + 20 = 44 + 32
    assert len(benchmarks.even_contests(bench, 0, splits=1)) == 2
    assert not benchmarks.even_contests(far, 0, splits=1)
    one_family = [each.names["networks"] for each in benchmarks.even_contests(far, 1, splits=1)]
    assert one_family
    assert not [
        words for words in one_family if "EdgeTPU" in words or "V2" in words
    ]  # the large ones have no kin there
    assert not benchmarks.even_contests(replace(bench, large=()), 1, splits=1)
