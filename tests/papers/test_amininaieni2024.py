"""What is alone of Amini-Naieni et al. 2024: tasks without an image on both sides, groups that are left out, and the kept errors."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats

from uqlib.experiments.keeping.kept_runs import load_made
from uqlib.experiments.short import amininaieni2024_runs as runs
from uqlib.metrics import debiased_ece
from uqlib.papers import amininaieni2024 as paper

NETWORKS, KINDS = ["cifar_resnet20", "cifar_resnet32"], ["fog", "snow"]


@pytest.fixture(scope="module")
def tasks():
    return paper.classifier_tasks(NETWORKS, KINDS)


def test_the_title_is_that_of_the_ledger(repository):
    assert f'title = "{paper.TITLE}"' in (repository / "data/ledger/amininaieni2024.toml").read_text(encoding="utf-8")


def test_tasks_are_networks_on_corruptions_and_clean_images(tasks):
    assert len(tasks) == len(NETWORKS) * (1 + 2 * len(KINDS))
    assert {len(each.labels) for each in tasks} == {300}
    assert all(((each.curve[1:] - each.curve[:-1]) >= 0).all() for each in tasks)


def test_what_is_left_out_is_not_learnt_from(tasks):
    options = dict(components=2, l2=1.0)
    found = paper.left_out(tasks, "corruption", "fog", **options)
    assert [(each.network, each.strength) for each, _ in found] == [
        (n, s) for n in NETWORKS for s in ("mild", "severe")
    ]
    spoilt = [each._replace(curve=0 * each.curve) if each.corruption == "fog" else each for each in tasks]
    again = paper.left_out(spoilt, "corruption", "fog", **options)
    for (task, said), (_, other) in zip(found, again, strict=True):
        for way in set(paper.NAMES) - {"oracle"}:
            assert torch.equal(said[way], other[way])
            assert torch.equal(said[way].argmax(-1), task.logits.argmax(-1))
        assert not torch.equal(said["oracle"], other["oracle"])


def test_groups_are_judged_by_the_mean_over_their_tasks(tasks):
    groups = {each: paper.left_out(tasks, "network", each, components=2, l2=1.0) for each in NETWORKS}
    scores = paper.judge_groups(groups)
    gaps = [
        debiased_ece(task.logits.softmax(-1).amax(-1), task.logits.argmax(-1) == task.labels, bins=10)
        for task in tasks
        if task.network == NETWORKS[0] and task.corruption != "clean"
    ]
    assert float(scores.sel(group=NETWORKS[0], variant="raw", measure="gap")) == pytest.approx(sum(gaps) / 4)


def test_the_kept_errors_are_those_of_the_published_arrays():
    """ERR as the stored transforms give it, to four decimals, computed once by a loop over them."""
    kept = load_made(runs.amininaieni2024_runs())
    errors = kept.column("scenes/0", "errors")
    assert errors.shape == (len(runs.SCENES), len(runs.WAYS))
    raw = dict(zip(runs.SCENES, errors[:, 0].round(4).tolist(), strict=True))
    known = dict(fern=0.0046, flower=0.0176, fortress=0.0029, horns=0.0089, leaves=0.0083, orchids=0.0143)
    known |= dict(room=0.0165, trex=0.0066, chair=0.0011, ficus=0.0054, mic=0.0144)
    assert raw == pytest.approx(known, abs=6e-5)
    shares = [kept.number("scenes/0", f"share_r_{k}") for k in (1, 2, 3)]
    assert shares == pytest.approx([0.688, 0.292, 0.013], abs=6e-4)
    assert (errors[:, -1] < 1e-6).all()  # each with its own curve


def test_without_the_arrays_the_error_says_how_to_get_them(monkeypatch, tmp_path):
    monkeypatch.setenv("UQLIB_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"git clone .*/instantcalibration"):
        runs.published("fern", "r")


def test_what_one_takes_home_runs(repository):
    page = (repository / "book/amininaieni2024/index.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)
    exec(compile(code, "index.md", "exec"), {})


def test_sets_of_scenes_share_none():
    assert len(set(runs.SCENES)) == len(runs.SCENES)


def test_intervals_over_scenes_are_students_and_say_so():
    errors = pd.Series([0.1, 0.3, 0.2, 0.6])
    found = runs.over_scenes({"LLFF": errors, "synthetic": errors[:1]})
    low, high = stats.t.interval(0.95, 3, errors.mean(), stats.sem(errors))
    assert found.loc[0, ["value", "low", "high"]].tolist() == pytest.approx([0.3, low, high])
    assert found.loc[0, "covers"] == "scenes"
    assert found.loc[1, ["low", "high", "covers"]].isna().all()  # one scene says nothing of others


def test_a_share_that_is_left_has_the_spread_of_its_ratio():
    generator = np.random.Generator(np.random.PCG64(0))
    before = pd.Series(generator.gamma(4.0, size=400))
    after = before * generator.uniform(0.1, 0.5, size=400)
    parts = runs.share_left(after, before)
    assert parts.mean() == pytest.approx(after.sum() / before.sum(), rel=1e-12)
    rows = generator.integers(400, size=(4000, 400))
    ratios = after.to_numpy()[rows].sum(1) / before.to_numpy()[rows].sum(1)
    assert stats.sem(parts) == pytest.approx(ratios.std(), rel=0.05)
