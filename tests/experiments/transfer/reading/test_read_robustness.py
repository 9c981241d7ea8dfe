"""Errors by class and accuracies under attack, read from runs whose answers are known."""

import numpy as np
import pytest
import xarray as xr
from sklearn.metrics import recall_score

from uqlib.experiments.keeping import kept_columns, kept_runs
from uqlib.experiments.keeping.kept_runs import add_run, load_runs, pack_bits
from uqlib.experiments.transfer.reading import read_robustness
from uqlib.experiments.transfer.reading.read_robustness import (
    accuracies,
    attack_cells,
    class_errors,
    known_labels,
    lowest_of,
    minority_errors,
    seeds_text,
    tail_cells,
    total_and_minority,
)
from uqlib.metrics.compare import cells, intervals

pytestmark = pytest.mark.usefixtures("every_run_counts")

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 40))
GIVEN = {("scratch",): "scratch/none/1", ("supervised",): "supervised/none/1"}


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / kept_runs.place_of("toy")
    path.parent.mkdir(parents=True)
    monkeypatch.setattr(kept_columns, "in_checkout", lambda place: path if path.is_file() else None)
    return path


def answers(name, share):
    """Predictions of which a share is right, and which of them are."""
    generator = np.random.default_rng(list(name.encode()))
    preds = np.where(generator.random(len(LABELS)) < share, LABELS, (LABELS + 1) % 10)
    return preds, preds == LABELS


def keep(path, name, right, **columns):
    noted = {f"error_{k}": float(1 - right[k == LABELS].mean()) for k in range(10)}
    numbers = {"tested": len(right)} | noted | {f"tested_{each}": len(bits) for each, bits in columns.items()}
    packed = {each: pack_bits(bits) for each, bits in ({"correct": right} | columns).items()}
    add_run(path, name, packed, {"digest": "", "settings": {}, "numbers": numbers, "seconds": 0})


def test_errors_by_class_are_one_less_sklearns_recall(place):
    truth = {}
    for start, share in (("scratch", 0.6), ("supervised", 0.8)):
        for seed in (0, 2):
            preds, right = answers(f"{start}{seed}", share)
            truth[start, seed] = 1 - recall_score(LABELS, preds, average=None)
            keep(place, f"{start}/none/1/{seed}", right)
    errors = class_errors(load_runs("toy"), GIVEN, "start", labels=LABELS, draws=20)
    assert errors.dims == ("start", "nth", "training", "draw")
    assert errors["nth"].values.tolist() == list(range(1, 11))
    for (start, seed), expected in truth.items():
        np.testing.assert_allclose(errors.sel(start=start, training=seed, draw=0), expected, atol=1e-12)
    assert cells(errors.mean("nth"))["covers"].unique().tolist() == ["examples, trainings"]


def test_seeds_are_paired_by_what_they_are_and_not_by_how_many_came_before(place):
    """One start lacks seed 1; its seed 2 is compared with seed 2 of the other, of which it has the answers."""
    right = {seed: answers(f"any{seed}", 0.7)[1] for seed in range(3)}
    for seed in range(3):
        keep(place, f"scratch/none/1/{seed}", right[seed])
        if seed != 1:
            keep(place, f"supervised/none/1/{seed}", right[seed])
    errors = load_runs("toy").errors(GIVEN, "start", draws=5)
    gain = errors.sel(start="supervised") - errors.sel(start="scratch")
    assert gain["training"].values.tolist() == [0, 1, 2]
    assert gain.isnull().all("draw").values.tolist() == [False, True, False]
    assert (gain.dropna("training") == 0).all()


def test_draws_within_classes_spread_as_a_share_of_forty_does(place):
    """The standard error of a mean over ten classes of forty images each is that of a stratified sample."""
    _, right = answers("spread", 0.7)
    keep(place, "scratch/none/1/0", right)
    errors = class_errors(load_runs("toy"), {("scratch",): "scratch/none/1"}, "start", labels=LABELS, draws=2000)
    drawn = errors.sel(start="scratch", training=0).isel(draw=slice(1, None))
    share = np.array([right[k == LABELS].mean() for k in range(10)])
    expected = np.sqrt(share * (1 - share) / 40)
    np.testing.assert_allclose(drawn.std("draw"), expected, rtol=4 / np.sqrt(2 * 2000))
    whole = np.sqrt((expected**2).sum()) / 10
    assert float(drawn.mean("nth").std("draw")) == pytest.approx(whole, rel=4 / np.sqrt(2 * 2000))


def test_the_labels_of_the_store_are_a_thousand_of_each_class():
    assert np.bincount(known_labels()).tolist() == [1000] * 10
    assert known_labels()[:5].tolist() == [3, 8, 8, 0, 6]  # cat, ship, ship, airplane, frog, as everywhere


def test_minority_classes_are_nine_eight_and_seven():
    """As the paper's printed pairs of total and minority error imply: those behind the first, the second and the third."""
    nth = xr.DataArray(np.arange(1.0, 11), coords={"nth": range(1, 11)}, dims="nth")
    errors = nth.expand_dims(gamma=["0.2", "1", "2"]).expand_dims(training=[0], draw=[0])
    means = [np.mean(range(k, 11)) for k in (2, 3, 4)]
    assert minority_errors(errors).squeeze().values.tolist() == pytest.approx(means)
    both = total_and_minority(errors).sel(which=["total error", "minority error"], gamma="2").squeeze()
    assert both.values.tolist() == pytest.approx([5.5, means[2]])


def test_the_lowest_is_chosen_by_its_mean_and_not_anew_in_every_training():
    table = np.array([[[0.1, 0.5], [0.4, 0.4]], [[0.2, 0.2], [np.nan, np.nan]], [[9, 9], [9, 9]]])
    names = {"remedy": ["a", "b", "c"], "gamma": ["1", "2"], "training": [0, 1]}
    errors = xr.DataArray(table, coords=names).expand_dims(draw=[0]).transpose(..., "draw")
    best = lowest_of(errors, "remedy", ["a", "b"])
    assert best.sel(gamma="1", draw=0).values.tolist() == [0.2, 0.2]  # the mean of a is 0.3
    assert best.sel(gamma="2").isnull().all()  # b is not there to be compared with
    assert "remedy" not in best.coords


def test_a_stronger_attack_is_compared_on_the_images_that_it_was_shown(place, monkeypatch):
    monkeypatch.setattr(read_robustness, "FEW", slice(24))
    _, right = answers("attacked", 0.8)
    pgd = right & (np.arange(400) % 3 > 0)
    keep(place, "adversarial/all/attacked/0", right, pgd=pgd, strong=pgd[:24])
    kept = load_runs("toy")
    few = accuracies(kept, {"pgd": "pgd", "strong": "strong"}, few=True, draws=30)
    assert few.sizes == {"judged": 2, "origin": 3, "how": 3, "training": 1, "draw": 31}
    moved = few.sel(judged="strong") - few.sel(judged="pgd")
    assert (moved.sel(origin="adversarial", how="pgd") == 0).all()  # the same answers, on every draw
    assert moved.sel(origin="scratch").isnull().all()
    whole = accuracies(kept, {"clean": "correct"}, draws=0).sel(origin="adversarial", how="pgd")
    assert float(whole.squeeze()) == pytest.approx(right.mean())
    assert seeds_text(few) == "1"
    keep(place, "adversarial/all/attacked/1", right, pgd=pgd, strong=pgd[:24])
    keep(place, "scratch/all/attacked/1", right, pgd=pgd, strong=pgd[:24])
    assert seeds_text(accuracies(load_runs("toy"), {"pgd": "pgd"}, draws=3)) == "1 to 2"
    assert seeds_text(moved.sel(origin="scratch")) == "no"
    ends = intervals(few.sel(judged="pgd", origin="adversarial", how="pgd"))
    assert str(ends["covers"].values) == "examples"  # one training says nothing of others


def test_cells_are_named_as_the_ledger_names_them(repository):
    printed = (repository / "data/ledger/hendrycks2019.toml").read_text(encoding="utf-8")
    for start, remedy, gamma in tail_cells():
        if start == "scratch" or (start, remedy) == ("supervised", "cross_entropy"):
            assert f'"CIFAR-10: gamma {gamma}, {remedy}, {start}"' in printed
    for start, how in [("scratch", "plain"), ("scratch", "pgd"), ("adversarial", "pgd"), ("adversarial", "head")]:
        assert (start, how) in attack_cells()
        assert f'"CIFAR-10: {how}, {start}"' in printed
    assert tail_cells()["supervised", "cross_entropy", "0.2"] == "supervised/none/0.2"
    assert attack_cells()["adversarial", "head"] == "adversarial/head/attacked"


def test_the_labels_that_travel_with_the_book_are_those_that_the_runs_have_seen():
    """Every run has noted its errors by class, from the images themselves."""
    kept = load_runs("imbalance_cifar10")
    cells = {(name.rpartition("/")[0],): name.rpartition("/")[0] for name in kept.names}
    errors = read_robustness.class_errors(kept, cells, "cell", draws=1)
    for name in kept.names:
        cell, _, seed = name.rpartition("/")
        found = errors.sel(cell=cell, training=int(seed), draw=0).values
        np.testing.assert_allclose(found, [kept.number(name, f"error_{k}") for k in range(10)], atol=1e-9)


def test_some_ways_of_training_are_read_as_far_as_they_are_there(tmp_path, monkeypatch):
    monkeypatch.setattr(
        kept_columns, "in_checkout", lambda place: path if (path := tmp_path / place).is_file() else None
    )
    tails, attacked = (tmp_path / kept_runs.place_of(task) for task in ("imbalance_cifar10", "adversarial_cifar10"))
    tails.parent.mkdir(parents=True)
    _, right = answers("smote", 0.6)
    keep(tails, "scratch/smote/0.2/1", right)
    keep(attacked, "adversarial/head/attacked/0", right, pgd=right[:100])
    errors = read_robustness.tail_errors({"smote": "scratch/smote", "pre": "supervised/none"}, draws=5)
    assert errors.dims == ("variant", "gamma", "training", "draw")
    assert errors.isel(draw=0).to_series().dropna().to_dict() == {("smote", "0.2", 1): pytest.approx(1 - right.mean())}
    ways = {"scratch": "scratch/all", "head": "adversarial/head"}
    found = read_robustness.attacked_accuracies(ways, ["correct", "pgd"], draws=5).isel(draw=0)
    assert found.to_series().dropna().to_dict() == {
        ("correct", "head", 0): pytest.approx(right.mean()),
        ("pgd", "head", 0): pytest.approx(right[:100].mean()),
    }
