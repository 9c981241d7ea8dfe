"""Studies of trainings: what is listed, what is read, and intervals over trainings and images."""

import inspect
import json

import numpy as np
import pytest
import torch

from uqlib import losses, metrics, store
from uqlib.experiments import studies
from uqlib.experiments.worklist import list_missing
from uqlib.files.columns import write_table
from uqlib.files.whole import DamagedError

AURC_OF_HALF, ECE_OF_HALF, WIDTH_OF_HALF = 6e-5, 1.2e-3, 3e-4  # as data/README.md has them

PLACE = "data/trainings/toy2024.toml"
TOML = """
[[study]]
name = "toy"
scale = "cpu"
dataset = "digits"
others = "digits"
images = 100
validation = 0
components = 5
seeds = 2
training = {network = "cifar_resnet8", epochs = 2}
weights = {scorer = "pixels", measure = "rmd", normaliser = "minmax", temperature = 0.7}

  [[study.variant]]
  name = "plain"
  loss = "cross_entropy"

  [[study.variant]]
  name = "longer"
  loss = "difficulty"
  options = {alpha = 0.2}
  training = {epochs = 9}
  weights = {measure = "md"}
  seeds = 1
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """An empty checkout with two variants."""
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / PLACE).parent.mkdir(parents=True)
    (tmp_path / PLACE).write_text(TOML)
    monkeypatch.chdir(tmp_path)
    studies._all.cache_clear()
    yield tmp_path
    studies._all.cache_clear()


def write(study, variant, seed, n=50):
    generator = np.random.default_rng(seed)
    columns = {"correct": generator.random(n) < 0.7, "top": generator.random(n).astype(np.float16)}
    about = {"test": {"accuracy": 0.7}, "rests_on": study.settings(study.variants[variant], seed)}
    write_table(study.file(study.variants[variant], seed), columns, {"about": json.dumps(about)})
    return columns


def test_a_variant_takes_what_is_common_and_says_what_differs(checkout):
    study = studies.load_study("toy")
    assert study.variants["plain"].training == {"network": "cifar_resnet8", "epochs": 2}
    assert study.variants["longer"].training == {"network": "cifar_resnet8", "epochs": 9}
    assert study.variants["longer"].weights["measure"] == "md"
    assert study.variants["longer"].weights["scorer"] == "pixels"
    assert [v.seeds for v in study.variants.values()] == [2, 1]


def test_variants_that_differ_in_named_places_alone(repository):
    study = studies.load_study("cifar10")
    assert study.differing("difficulty", "weights.measure") == {
        "rmd": "difficulty", "md": "difficulty_md", "kmeans": "difficulty_kmeans"
    }  # fmt: skip
    of_entropy = study.differing("entropy", "options.alpha", "options.of")
    assert of_entropy[0.1, None] == "entropy"
    assert of_entropy["matched", 0.3] == "entropy_matched"
    networks = study.differing("cross_entropy", "training.network")
    assert list(networks.values()) == ["cross_entropy", "cross_entropy_on_cifar_resnet8_w8"]  # not the noisy one
    with pytest.raises(ValueError, match=r"'weights.scoter'.*weights.scorer"):
        study.differing("difficulty", "weights.scoter")
    with pytest.raises(ValueError, match="'dificulty'"):
        study.differing("dificulty", "weights.scorer")


def test_a_study_says_what_it_trains(repository):
    assert str(studies.load_study("cifar100")) == "ResNet-8 of 32 channels on 10,000 images of CIFAR-100, 15 epochs"


def test_the_file_of_a_training_changes_with_its_settings(checkout):
    study = studies.load_study("toy")
    places = {study.file(v, seed) for v in study.variants.values() for seed in (0, 1)}
    assert len(places) == 4
    (checkout / PLACE).write_text(TOML.replace("alpha = 0.2", "alpha = 0.3"))
    studies._all.cache_clear()
    other = studies.load_study("toy")
    assert other.file(other.variants["longer"], 0) != study.file(study.variants["longer"], 0)
    assert other.file(other.variants["plain"], 0) == study.file(study.variants["plain"], 0)


CONTROL = """
  [[study.variant]]
  name = "difficulty"
  loss = "difficulty"
  options = {alpha = 0.3}

  [[study.variant]]
  name = "control"
  loss = "entropy"
  options = {alpha = "matched", of = 0.3}

  [[study.variant]]
  name = "focal"
  loss = "focal"
  options = {detached = true}
"""


def places(checkout, toml):
    (checkout / PLACE).write_text(toml)
    studies._all.cache_clear()
    study = studies.load_study("toy")
    return {name: study.file(variant, 0).name for name, variant in study.variants.items()}


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ('dataset = "digits"', 'dataset = "cifar10"', "all"),
        ('others = "digits"', 'others = "cifar10"', "all"),
        ("images = 100", "images = 101", "all"),
        ("validation = 0", "validation = 1", "all"),
        ("seeds = 2", "seeds = 2\ntested = 123", "all"),
        ("components = 5", "components = 6", "all"),
        ("epochs = 2}", "epochs = 2, lr = 0.1}", "all"),
        ('loss = "cross_entropy"', 'loss = "cross_entropy"\n  detail = true', "plain"),
        ('loss = "cross_entropy"', 'loss = "cross_entropy"\n  labels = "worst"', "plain"),
        ('loss = "cross_entropy"', 'loss = "poly"', "plain"),
        ("epochs = 9", "epochs = 8", "longer"),
        ('measure = "md"', 'measure = "kmeans"', "longer"),
        ("alpha = 0.2", "alpha = 0.25", "longer"),
        # the control takes over the mean weight of `difficulty`: all that this rests on, and no more
        ("temperature = 0.7", "temperature = 0.1", "longer, difficulty, control"),
        ('scorer = "pixels"', 'scorer = "other"', "longer, difficulty, control"),
        ('normaliser = "minmax"', 'normaliser = "zscore"', "longer, difficulty, control"),
        ("options = {alpha = 0.3}", 'options = {alpha = 0.3}\n  labels = "worst"', "difficulty, control"),
        ("options = {alpha = 0.3}", "options = {alpha = 0.4}", "difficulty"),
        ("of = 0.3", "of = 0.2", "control"),
        ("detached = true", "detached = false", "focal"),
    ],
)
def test_a_training_has_another_name_when_anything_that_it_rests_on_changes(checkout, old, new, changed):
    before, after = places(checkout, TOML + CONTROL), places(checkout, (TOML + CONTROL).replace(old, new))
    assert {name for name in before if before[name] != after[name]} == set(
        before if changed == "all" else changed.split(", ")
    )


def test_a_default_of_a_loss_counts_like_an_option(checkout, monkeypatch):
    toml = TOML + CONTROL.replace("detached = true", "gamma = 3.0")
    before = places(checkout, toml)
    named = {flag: places(checkout, toml.replace("gamma", f"detached = {flag}, gamma")) for flag in ("true", "false")}
    default = inspect.signature(losses.focal).parameters["detached"].default
    assert before["focal"] == named[str(default).lower()]["focal"] != named[str(not default).lower()]["focal"]


def test_a_control_without_what_it_is_matched_to_is_refused(checkout):
    toml = (TOML + CONTROL).replace('name = "difficulty"', 'name = "other"')
    with pytest.raises(
        ValueError, match="unknown variant to match in toy 'difficulty'; choose from plain, longer, other"
    ):
        places(checkout, toml)


def test_a_file_under_the_name_of_another_training_is_refused(checkout):
    study = studies.load_study("toy")
    for name, seeds in (("plain", 2), ("longer", 1)):
        for seed in range(seeds):
            write(study, name, seed)
    assert list(studies.load_trainings("toy")) == ["plain", "longer"]
    plain, longer = (study.file(study.variants[name], 0) for name in ("plain", "longer"))
    content = plain.read_bytes()
    plain.write_bytes(longer.read_bytes())
    with pytest.raises(
        DamagedError, match=rf"{plain.name} is damaged: .*: variant longer, not plain, loss difficulty, not"
    ):
        studies.load_trainings("toy")
    assert list(studies.load_trainings("toy", ["longer"])) == ["longer"]
    plain.write_bytes(study.file(study.variants["plain"], 1).read_bytes())
    with pytest.raises(DamagedError, match="holds another training than its name says: seed 1, not 0"):
        studies.load_trainings("toy")
    for about in ("", "[]", "{}", '{"rests_on": 3}', "[" * 100_000):
        write_table(plain, {"correct": np.zeros(3, bool)}, {"about": about})
        with pytest.raises(DamagedError, match=rf"{plain.name} is damaged: (its header|it) does not say"):
            studies.load_trainings("toy")
    plain.write_bytes(content)  # the advice
    assert len(studies.load_trainings("toy")["plain"]) == 2


def test_no_variants_are_none_and_one_name_is_no_list(checkout):
    assert studies.load_trainings("toy", []) == {}
    with pytest.raises(TypeError, match=r"variants must be names in a list: pass \['plain'\]"):
        studies.load_trainings("toy", "plain")


@pytest.mark.parametrize("name", studies.study_names("cpu", aside=True))
def test_the_files_of_the_checkout_are_those_of_its_studies(repository, name):
    runs = [run for each in studies.load_trainings(name).values() for run in each]
    assert {run.path.name for run in runs} == {path.name for path in (repository / "data/trained" / name).iterdir()}
    assert len({run["correct"].shape for run in runs}) == 1


@pytest.mark.parametrize("name", studies.study_names("cpu", aside=True))
def test_what_half_precision_costs_is_what_the_readme_says(name):
    """Metrics of the kept columns beside those that the training computed from its logits."""
    for run in (run for each in studies.load_trainings(name).values() for run in each):
        truth, confidence, correct = run.about["test"], run.confidence, run.correct
        assert correct.double().mean().item() == pytest.approx(truth["accuracy"], abs=1e-12)
        assert metrics.aurc(confidence, correct) == pytest.approx(truth["aurc"], abs=AURC_OF_HALF)
        assert metrics.ece(confidence, correct, bins=15, by="mass") == pytest.approx(truth["ece"], abs=ECE_OF_HALF)
        assert metrics.ece(confidence, correct, bins=15, by="width") == pytest.approx(
            truth["ece_width"], abs=WIDTH_OF_HALF
        )


def test_the_settings_of_weights_do_not_touch_other_losses(checkout):
    study = studies.load_study("toy")
    (checkout / PLACE).write_text(TOML.replace('scorer = "pixels"', 'scorer = "other"'))
    studies._all.cache_clear()
    other = studies.load_study("toy")
    assert other.file(other.variants["plain"], 0) == study.file(study.variants["plain"], 0)
    assert other.file(other.variants["longer"], 0) != study.file(study.variants["longer"], 0)


def test_runs_are_read_as_they_were_written(checkout):
    study = studies.load_study("toy")
    written = [write(study, "plain", seed) for seed in (0, 1)]
    runs = studies.load_trainings("toy", ["plain"])["plain"]
    assert [run.seed for run in runs] == [0, 1]
    for run, columns in zip(runs, written, strict=True):
        assert run.correct.numpy().tolist() == columns["correct"].tolist()
        assert run.confidence.numpy() == pytest.approx(np.exp(-columns["top"].astype(float)), rel=1e-12)
        assert run.about["test"]["accuracy"] == 0.7
        assert "top" in run
        assert "entropy" not in run
    with pytest.raises(ValueError, match=r"unknown column of plain.*'entropy'; choose from"):
        runs[0]["entropy"]


def test_trainings_by_title_are_those_that_each_study_has():
    found = studies.load_by_title(["cifar10", "cifar100"], ["difficulty", "entropy_matched"])
    assert {title: list(own) for title, own in found.items()} == {
        "CIFAR-10": ["difficulty", "entropy_matched"], "CIFAR-100": ["difficulty"],
    }  # fmt: skip
    assert found["CIFAR-10"]["difficulty"] == studies.load_trainings("cifar10", ["difficulty"])["difficulty"]


def test_versions_of_an_image_follow_each_other():
    trained = studies.load_trainings("cifar10", ["difficulty"])
    run = trained["difficulty"][0]
    said, right = run["corrupted_top"], run["corrupted_correct"]  # corruption, severity and image in one
    [all_of_them, *_] = studies.under_corruption(trained, 4)["difficulty"]
    [third, *_] = studies.under_corruption(trained, 4, 3)["difficulty"]
    images = said.shape[1] // 5
    assert (third.confidence == (-said[3, 3 * images : 4 * images]).exp()).all()
    assert (all_of_them.confidence[3 :: len(said)] == third.confidence).all()
    assert (all_of_them.correct[3 :: len(said)] == right[3, 3 * images : 4 * images]).all()


def test_studies_of_one_data_set():
    assert studies.study_names("cpu", "cifar100") == ["cifar100"]
    assert studies.study_names("cpu", "mnist") == []


def test_a_study_aside_is_asked_for_and_not_among_the_others(checkout):
    aside = TOML.replace('"toy"', '"second"\naside = true')
    (checkout / PLACE).write_text(TOML + aside)
    studies._all.cache_clear()
    assert studies.study_names("cpu") == ["toy"]
    assert studies.study_names("cpu", aside=True) == ["toy", "second"]
    assert studies.study_names("cpu", "digits", aside=True) == ["toy", "second"]
    assert studies.load_study("second").aside
    assert {"toy", "second"} <= {job.name.split("/")[0] for job in list_missing("cpu")}


def test_a_missing_training_says_what_makes_it(checkout):
    write(studies.load_study("toy"), "plain", 0)
    with pytest.raises(FileNotFoundError, match=r"plain-.*-1.*`uqlib train toy plain 1` trains it"):
        studies.load_trainings("toy")


def test_unknown_names_are_refused(checkout):
    with pytest.raises(ValueError, match="unknown study 'tow'; choose from toy"):
        studies.load_study("tow")
    with pytest.raises(ValueError, match="unknown variant of toy 'plian'; choose from plain, longer"):
        studies.load_trainings("toy", ["plian"])
    with pytest.raises(FileNotFoundError, match=r"no data/difficulty/toy\.test"):
        studies.load_difficulty("toy", "test")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "images = 100",
            "imagse = 100",
            r"toy2024\.toml: study toy: Object contains unknown field `imagse` - at `\$\.study\[0\]`; `images` comes near",
        ),
        ("seeds = 1", "sedes = 1", r"toy2024\.toml: study toy, variant longer: Object contains unknown field `sedes`"),
        ('others = "digits"', "", r"study toy: Object missing required field `others` - at `\$\.study\[0\]`"),
        ("images = 100", 'images = "100"', r"study toy: Expected `int`, got `str` - at `\$\.study\[0\]\.images`"),
        ('scale = "cpu"', 'scale = "smoke"', r"study toy: Invalid enum value 'smoke' - at `\$\.study\[0\]\.scale`"),
        ("images = 100", "images = ", r"toy2024\.toml: no TOML: Invalid value"),
    ],
)
def test_a_misspelt_setting_is_named_with_its_place(checkout, old, new, message):
    (checkout / PLACE).write_text(TOML.replace(old, new))
    studies._all.cache_clear()
    with pytest.raises(ValueError, match=message):
        studies.study_names()


def test_studies_of_several_papers_stand_together(checkout):
    """Another paper's study may be like this one; two of one name are refused."""
    other = TOML.split("  [[study.variant]]")[0].replace('"toy"', '"second"\nlike = "toy"')
    (checkout / "data/trainings/other2025.toml").write_text(other)
    studies._all.cache_clear()
    assert studies.study_names() == ["second", "toy"]
    assert list(studies.load_study("second").variants) == ["plain", "longer"]
    (checkout / "data/trainings/third2026.toml").write_text(TOML)
    studies._all.cache_clear()
    with pytest.raises(ValueError, match=r"third2026\.toml and .*toy2024\.toml both have a study 'toy'"):
        studies.study_names()


def test_a_study_that_is_like_itself_is_refused(checkout):
    other = TOML.replace('"toy"', '"second"\nlike = "toy"')
    (checkout / PLACE).write_text(TOML.replace('"toy"', '"toy"\nlike = "second"') + other)
    studies._all.cache_clear()
    with pytest.raises(ValueError, match="study toy is like itself, by way of toy, second"):
        studies.study_names()


def test_two_variants_of_one_name_are_refused(checkout):
    (checkout / PLACE).write_text(TOML.replace('name = "longer"', 'name = "plain"'))
    studies._all.cache_clear()
    with pytest.raises(ValueError, match="study toy has two variants 'plain'"):
        studies.study_names()


def test_a_study_like_another_takes_its_variants_and_adds_its_own(checkout):
    more = (
        TOML.split("  [[study.variant]]")[0]
        .replace('"toy"', '"large"\nlike = "toy"')
        .replace("epochs = 2", "epochs = 99")
    )
    more += '\n  [[study.variant]]\n  name = "third"\n  loss = "entropy"\n'
    (checkout / PLACE).write_text(TOML + more)
    studies._all.cache_clear()
    large = studies.load_study("large")
    assert list(large.variants) == ["plain", "longer", "third"]
    assert [v.training["epochs"] for v in large.variants.values()] == [99, 9, 99]
    assert list(studies.load_study("toy").variants) == ["plain", "longer"]
    (checkout / PLACE).write_text(TOML + more.replace('like = "toy"', 'like = "tow"'))
    studies._all.cache_clear()
    with pytest.raises(ValueError, match="unknown study to be like 'tow'"):
        studies.study_names()


def test_scored_images_are_those_that_the_classifiers_of_the_store_saw():
    damaged = studies.load_difficulty("cifar10", "corrupted")
    for kind in damaged.about["corruptions"]:
        seen = store.load_answers("cifar_resnet56", "cifar10_c", kind, columns=("index",)).index
        assert torch.equal(seen[: len(damaged.labels)], damaged.columns["index"]), kind
    labels = store.load_answers("cifar_resnet56", "cifar10", columns=("labels",)).labels
    for part in ("classes", "test"):
        assert torch.equal(studies.load_difficulty("cifar10", part).labels, labels), part


def test_scores_are_found_by_measure_and_scorer(checkout):
    columns = {"labels": np.array([0, 1], np.uint8), "rmd/a": np.array([1.5, 2], np.float16)}
    columns |= {"md/a": np.zeros(2, np.float32), "rmd/b": np.ones(2, np.float32)}
    place = studies.DIFFICULTY.format(dataset="toy", split="test")
    write_table(checkout / place, columns, {"about": "{}"})
    scored = studies.load_difficulty("toy", "test")
    assert scored["rmd/a"].tolist() == [1.5, 2]
    assert sorted(scored.scorers()) == ["a", "b"]
    assert scored.labels.tolist() == [0, 1]
    with pytest.raises(ValueError, match="unknown score 'rmd/c'"):
        scored["rmd/c"]


@pytest.mark.parametrize(
    "columns",
    [
        {"correct": np.zeros((3, 1), bool)},
        {"correct": np.zeros(3)},
        {"correct": np.zeros(3, bool), "top": np.zeros(4, np.float16)},
        {"correct": np.zeros(3, bool), "preds": np.zeros((), np.uint8).reshape(1, 1)},
    ],
)
def test_a_whole_table_that_is_no_training_is_named(tmp_path, columns):
    write_table(tmp_path / "x.safetensors", columns, {"about": "{}"})
    with pytest.raises(DamagedError, match=r"x\.safetensors is damaged: columns? "):
        studies.Training(tmp_path / "x.safetensors", 0)["correct"]


@pytest.mark.parametrize("about", ["", "[]", "{"])
def test_scores_that_do_not_say_what_they_are_about_are_named(checkout, about):
    place = studies.DIFFICULTY.format(dataset="toy", split="test")
    write_table(checkout / place, {"labels": np.zeros(2, np.uint8)}, {"about": about})
    with pytest.raises(DamagedError, match=r"toy\.test\.safetensors is damaged: its header does not say"):
        studies.load_difficulty("toy", "test")
