import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from uqlib import networks, store
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
    assert [n.name for n in bench.single] == ["c", "b", "a"]


def test_each_scale_has_benchmarks_of_its_own():
    assert benchmarks.benchmark_names("smoke") == benchmarks.benchmark_names("cpu") == benchmarks.benchmark_names()
    assert benchmarks.benchmark_names("paper") == benchmarks.benchmark_names("gpu")
    assert not set(benchmarks.benchmark_names("gpu")) & set(benchmarks.benchmark_names())
    for name in benchmarks.benchmark_names("gpu"):
        assert len(benchmarks.load_benchmark(name).pairs) >= 15


def test_an_unknown_benchmark_names_those_that_there_are():
    with pytest.raises(ValueError, match="unknown benchmark 'imagenet'; choose from cifar10, cifar100"):
        benchmarks.load_benchmark("imagenet")


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
    assert benchmarks.benchmark_names() == ["cifar10", "cifar100", "caltech101", "tiny_imagenet", "pacs"]
    gpu = ["cifar100_gpu", "caltech101_gpu", "tiny_imagenet_gpu", "pacs_gpu"]
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
