"""What is kept of the streams: each run once, and the answers agree with the accuracies by task."""

import numpy as np
import pytest
import torch

from uqlib.experiments.keeping.kept_runs import load_made
from uqlib.experiments.short import traeuble2023_runs as runs


@pytest.fixture(scope="module")
def kept():
    return load_made(runs.traeuble2023_runs())


def test_every_run_that_is_asked_for_is_kept(kept):
    assert set(kept.names) == {each.name for each in runs.traeuble2023_runs()}


@pytest.mark.parametrize("backbone", runs.BACKBONES)
def test_answers_at_the_end_are_those_of_the_last_column_of_tasks(kept, backbone):
    names = runs.STREAMED[:-1]
    ends = runs.stream_accuracies(kept, "stream", names, draws=0).sel(backbone=backbone).isel(draw=0)
    tasks = runs.task_accuracies(kept, backbone).sel(head=list(names), after=5).mean("task")
    shared = "head", "training"
    assert np.abs(ends.transpose(*shared).values - tasks.transpose(*shared).values).max() < 1e-12


def test_sizes_are_shares_of_images(kept):
    table = runs.size_accuracies(kept)
    assert dict(table.sizes) == {"values": 3, "training": 5, "codebooks": 3, "keys": 3}
    assert ((table > 0.1) & (table < 1)).all()


def test_a_small_stream_is_the_same_twice_and_its_heads_answer_all():
    options = dict(codebooks=4, keys=8, rate=50.0, trained=20, tested=10)
    labels, found = runs.last_answers(1, **options)
    _, again = runs.last_answers(1, **options)
    assert len(labels) == 100
    assert set(found) == {"linear", "bottleneck", "distance", "counts", "lda"}
    for name, each in found.items():
        assert each["logits"].shape == (100, 10)
        assert all(torch.equal(torch.as_tensor(part), torch.as_tensor(again[name][key])) for key, part in each.items())


def test_the_images_of_a_stream_are_as_many_as_the_page_says():
    task = runs.StreamTask(runs.COMPONENTS, 0)
    assert len(task.y) == 10 * runs.TRAINED
    assert task.x.shape[1] == 64
