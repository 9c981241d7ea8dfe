"""Short studies: found by the name of their file, asked for as jobs, and kept with the settings that the code has."""

import json
from pathlib import Path

import pytest
import torch

from uqlib.experiments.keeping import kept_runs
from uqlib.experiments.keeping.kept_runs import load_made
from uqlib.experiments.short import asked_short, components_runs
from uqlib.files.columns import read_header
from uqlib.networks.linear_heads import fit_head, head_logits

REPOSITORY = Path(__file__).parents[3]


def test_every_file_of_runs_is_found_by_its_name():
    files = {path.stem.removesuffix("_runs") for path in (REPOSITORY / "uqlib/experiments/short").glob("*_runs.py")}
    assert set(asked_short.short_papers()) == files
    assert {job.name.split("/")[0] for job in asked_short.short_jobs()} == files


def test_a_job_is_chosen_by_paper_and_run():
    (job,) = asked_short.short_jobs("components")
    assert job.command == f"uqlib short components {job.name.partition('/')[2]}"
    assert asked_short.short_jobs("components", job.name.partition("/")[2])[0].name == job.name
    with pytest.raises(ValueError, match=r"short study 'component'.*components"):
        asked_short.short_jobs("component")
    with pytest.raises(ValueError, match="run of components"):
        asked_short.short_jobs("components", "x/0")


@pytest.mark.parametrize("paper", sorted(asked_short.short_papers()))
def test_what_travels_with_the_checkout_was_made_with_the_settings_of_the_code(paper):
    asked = {run.name: run.digest for run in asked_short.short_runs() if run.task == paper}
    header = read_header(REPOSITORY / kept_runs.place_of(paper, "short"))
    kept = {name: about["digest"] for name, about in json.loads(header.metadata["about"]).items()}
    assert kept == {name: asked.get(name) for name in kept}


def test_a_folder_of_runs_that_is_none_is_named():
    with pytest.raises(ValueError, match=r"folder of data/trained 'long'.*short"):
        kept_runs.place_of("components", "long")


def test_components_tell_the_classes_of_cifar10():
    """What a linear head reaches on all of EdgeTPU's features is 83 %; a byte a component must not cost much of it."""
    train, test = (components_runs.load_components(f"cifar10_{part}") for part in ("train", "test"))
    assert train.features.shape == (20_000, 64)
    assert torch.equal(train.labels.bincount(), torch.full((10,), 2000))
    head = fit_head(train.features[:4000], train.labels[:4000])
    right = head_logits(head, test.features).argmax(-1) == test.labels
    assert right.double().mean() > 0.78
    spread = components_runs.load_components("cifar100_test").features.std(0)  # whose axes they are
    assert (spread.diff() < 0.05 * spread[0]).all()  # the leading ones first


def test_components_of_another_set_are_refused():
    with pytest.raises(ValueError, match="set of images 'cifar10'"):
        components_runs.load_components("cifar10")


def test_the_runs_of_other_settings_are_not_read():
    run = next(iter(components_runs.components_runs()))
    other = kept_runs.KeptRun(run.task, run.name, {**run.settings, "components": 32}, run.make, folder="short")
    assert load_made([run]).names == [run.name]
    assert load_made([other]).names == []
