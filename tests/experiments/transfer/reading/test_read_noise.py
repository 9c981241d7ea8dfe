"""Kept runs with wrong labels as arrays: what is not there is NaN, and areas are over the strengths that there are."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from uqlib.evidence import ledger
from uqlib.experiments.keeping import kept_columns, kept_runs
from uqlib.experiments.keeping.kept_runs import add_run, pack_bits
from uqlib.experiments.transfer.reading import read_noise
from uqlib.metrics.compare import cells, over_trainings

pytestmark = pytest.mark.usefixtures("every_run_counts")

TESTED = 400


@pytest.fixture
def keep(tmp_path, monkeypatch):
    """Keeps a run whose answers are wrong on the first so many of the test images, or with columns of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        kept_columns, "in_checkout", lambda place: path if (path := tmp_path / place).is_file() else None
    )

    def write(task, name, wrong=0, columns=None, **numbers):
        path = tmp_path / kept_runs.place_of(task)
        path.parent.mkdir(parents=True, exist_ok=True)
        bits = {"correct": pack_bits(np.arange(TESTED) >= wrong)} if columns is None else columns
        add_run(path, name, bits, {"numbers": {"tested": TESTED} | numbers})

    return write


def grid(rows):
    """Errors of several trainings (rows) over strengths; None is a run that is not there."""
    table = np.array(rows, float)[None, :, :, None]
    names = {"dataset": ["CIFAR-10"], "training": range(len(rows)), "strength": ["0", "0.2", "0.6", "1"], "draw": [0]}
    return xr.DataArray(table, coords=names)


def test_errors_have_a_place_for_every_run_that_is_asked_for(keep):
    keep("noise_cifar10", "scratch/none/0.4/0", 100)
    keep("noise_cifar10", "supervised/none/0.4/1", 60)
    errors = read_noise.noise_errors(["scratch", "supervised"], ["none", "forward"], draws=20)
    assert errors.sizes == {
        "dataset": 2, "network": 2, "correction": 2, "strength": 6, "training": 2, "draw": 21,
    }  # fmt: skip
    there = errors.isel(draw=0).to_series().dropna()
    assert there.to_dict() == {
        ("CIFAR-10", "scratch", "none", "0.4", 0): pytest.approx(0.25),
        ("CIFAR-10", "supervised", "none", "0.4", 1): pytest.approx(0.15),
    }
    assert not len(cells(errors.sel(network="supervised") - errors.sel(network="scratch")))  # of different seeds


def test_without_a_file_the_command_is_named(keep):
    for read in (
        lambda: read_noise.noise_errors(["scratch"], ["none"], scale="gpu"),
        lambda: read_noise.matrix_errors(["scratch"], ["forward"], scale="gpu"),
        lambda: read_noise.require_kept("noise_cifar10_whole", "noise_cifar100_whole"),
    ):
        with pytest.raises(FileNotFoundError, match="cifar100_whole; `uqlib pretrain noise_cifar10_whole` makes them"):
            read()
    with pytest.raises(FileNotFoundError, match="`uqlib pretrain course_cifar10_whole` makes them"):
        read_noise.courses_so_far("scratch", "drops", "0.6", scale="gpu")


def test_without_any_of_the_runs_all_is_nan_and_has_no_cells(keep):
    keep("noise_cifar10", "rotations/none/0.4/0", 100)
    keep("course_cifar10", "rotations/drops/0.4/0", 100)
    errors = read_noise.noise_errors(["scratch"], ["none"], draws=3)
    assert errors.isnull().all()
    areas, strengths = read_noise.noise_areas(errors)
    assert strengths == {"CIFAR-10": [], "CIFAR-100": []}
    assert read_noise.counted_seeds(areas) == "no"
    assert not len(over_trainings(read_noise.noise_areas(read_noise.matrix_errors(["scratch"], ["forward"])).areas))
    assert read_noise.courses_so_far("scratch", "drops", "0.6").isnull().all()


def test_an_area_is_over_the_strengths_that_the_most_trainings_have():
    whole = grid([[0.1, 0.2, 0.4, 0.9], [0.1, 0.3, 0.5, None], [0.2, None, 0.6, 0.9]])
    assert read_noise.common_strengths(whole) == [
        "0",
        "0.2",
        "0.6",
    ]  # two trainings; so has 0, 0.6, 1, which comes later
    areas, strengths = read_noise.noise_areas(whole)
    assert strengths == {"CIFAR-10": ["0", "0.2", "0.6"]}
    by_hand = [(0.2 * 0.15 + 0.4 * 0.3) / 0.6, (0.2 * 0.2 + 0.4 * 0.4) / 0.6, np.nan]
    np.testing.assert_allclose(areas.sel(dataset="CIFAR-10").squeeze("draw"), by_hand, atol=1e-12)


def test_of_strengths_that_as_many_trainings_have_the_most_are_taken():
    assert read_noise.common_strengths(grid([[0.1, 0.2, 0.4, 0.9]] * 2)) == ["0", "0.2", "0.6", "1"]
    assert read_noise.common_strengths(grid([[0.1, None, 0.4, None]] * 2)) == []  # an area of two says little


def test_the_areas_of_the_papers_curves_are_the_areas_that_it_prints(repository):
    paper = ledger.read_ledger(repository / "data/ledger/hendrycks2019.toml")
    curves = {(each.setting, each.quantity): each.value for each in paper["hendrycks2019-F2"].reported}
    eleven = [f"{k / 10:g}" for k in range(11)]
    areas = read_noise.areas_of_curves(curves, dict.fromkeys(("CIFAR-10", "CIFAR-100"), eleven))
    assert len(areas) == 12
    for row in areas.itertuples():
        printed = paper["hendrycks2019-T1"].number(f"{row.dataset}: {row.correction}, {row.network}", "AUC").value
        assert row.value == pytest.approx(printed, abs=0.11)  # both are rounded to a tenth
    gains = read_noise.relative_gains(areas).set_index(["dataset", "correction"])["value"]
    for name in ("CIFAR-10", "CIFAR-100"):  # in the text, in whole percent
        said = paper["hendrycks2019-X6"].number(f"{name}: none", "relative gain").value
        assert 100 * gains[name, "none"] == pytest.approx(said, abs=0.6)


def test_a_curve_that_lacks_a_strength_has_no_area():
    curves = {("CIFAR-10: none, scratch", f"error, strength {s}"): 1.0 for s in ("0", "0.4")}
    assert read_noise.areas_of_curves(curves, {"CIFAR-10": ["0", "0.4", "0.8"], "CIFAR-100": []}).empty
    found = read_noise.areas_of_curves(curves, {"CIFAR-10": ["0", "0.4"]})
    assert found.iloc[0].tolist() == ["CIFAR-10", "none", "scratch", 1.0]


def test_numbers_keep_their_seed_where_others_are_missing(keep):
    keep("noise_cifar10", "scratch/forward/0.4/1", estimate_error=0.05)
    keep("noise_cifar10", "scratch/forward/0.4/0", estimate_error=0.03)
    keep("noise_cifar10", "scratch/glc_5/0.4/1", estimate_error=0.01)
    found = read_noise.matrix_errors(["scratch"], ["forward", "glc_5"]).sel(
        dataset="CIFAR-10", network="scratch", strength="0.4"
    )
    less = (found.sel(correction="glc_5") - found.sel(correction="forward")).squeeze("draw")
    assert less["training"].values.tolist() == [0, 1]
    np.testing.assert_allclose(less, [np.nan, -0.04], atol=1e-12)


def test_runs_are_named_by_what_they_are_of(keep):
    runs = read_noise.named_runs(["worst"], ["scratch", "supervised"], ["none"])
    assert runs == {
        ("worst", "scratch", "none"): "scratch/none/worst",
        ("worst", "supervised", "none"): "supervised/none/worst",
    }
    keep("noise_cifar10", "supervised/none/worst/0", 40)
    errors = read_noise.errors_so_far("noise_cifar10", runs, "labels", "network", "correction", draws=2)
    assert float(errors.sel(network="supervised", draw=0).item()) == pytest.approx(0.1)
    assert errors.sel(network="scratch").isnull().all()


def test_courses_come_back_epoch_by_epoch(keep):
    for seed, shift in ((0, 0.0), (2, 0.125)):
        course = {
            name: np.linspace(0.5, 0.25, 5, dtype=np.float32) + shift for name in ("train_error", "test_error", "rms")
        }
        keep("course_cifar100", f"scratch/drops/0.6/{seed}", columns=course)
    found = read_noise.courses_so_far("scratch", "drops", "0.6")
    assert found["epoch"].values.tolist() == [1, 2, 3, 4, 5]
    last = found.sel(dataset="CIFAR-100", measure="test_error", epoch=5)
    assert dict(zip(last["training"].values.tolist(), last.values.tolist(), strict=True)) == {0: 0.25, 2: 0.375}
    assert found.sel(dataset="CIFAR-10").isnull().all()


def test_intervals_over_trainings_are_students_and_one_training_has_none():
    values = np.array([[0.2, 0.25, 0.24], [0.3, np.nan, np.nan]])
    found = xr.DataArray(values, coords={"dataset": ["many", "one"], "training": range(3)})
    many, one = over_trainings(found).to_dict("records")
    low, high = stats.t.interval(0.95, 2, loc=values[0].mean(), scale=stats.sem(values[0]))
    assert (many["low"], many["high"], many["covers"]) == (pytest.approx(low), pytest.approx(high), "trainings")
    assert (one["value"], one["low"], one["covers"]) == (0.3, None, None)
    assert read_noise.counted_seeds(found.expand_dims("draw")) == "1 to 3"


def test_the_paper_stands_after_ours_at_the_same_places():
    ours = cells({"scratch": 0.5}, "network")
    both = read_noise.beside_paper(ours, ours.assign(value=0.3))
    assert both["whose"].tolist() == ["here", "paper"]
    assert both["value"].tolist() == [0.5, 0.3]
    assert read_noise.beside_paper(ours[:0], ours[:0]).empty


@pytest.mark.parametrize(
    ("strengths", "words"),
    [([], "none yet"), (["0"], "0"), (["0", "1"], "0 and 1"), (["0", "0.4", "1"], "0, 0.4 and 1")],
)
def test_strengths_in_words(strengths, words):
    assert read_noise.listed(strengths) == words


def test_each_data_set_has_its_strengths_in_words():
    assert read_noise.noted_strengths({"CIFAR-10": ["0", "1"]}) == {
        "strengths_cifar10": "0 and 1",
        "strengths_cifar100": "none yet",
    }


def test_seeds_are_counted_with_draws_and_without():
    found = grid([[0.1, 0.2, 0.3, None], [0.1, None, 0.3, None]])
    assert read_noise.counted_seeds(found) == read_noise.counted_seeds(found.isel(draw=0, drop=True)) == "1 to 2"
    assert read_noise.counted_seeds(found.where(False)) == "no"


def test_trainings_are_counted_by_data_set():
    found = xr.DataArray([[0.1, 0.2], [np.nan, np.nan]], {"dataset": ["CIFAR-10", "CIFAR-100"], "training": [0, 1]})
    assert read_noise.seeds_by_set(found) == "2 of CIFAR-10, none of CIFAR-100"
