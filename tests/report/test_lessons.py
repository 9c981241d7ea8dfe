"""The figures of the foundations: their numbers are those of the formula, or of another library, and they say what they show."""

import json
import math
import re

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from uqlib.metrics.outcomes import Judged
from uqlib.report.lessons import meanings, ranked_images, samples, sorted_answers


@pytest.fixture
def answers():
    """Logits and labels of 400 examples of four classes, of which a good share is wrong."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (400,), generator=generator)
    logits = 2 * torch.eye(4, dtype=torch.float64)[labels] + 1.5 * torch.randn(
        400, 4, generator=generator, dtype=torch.float64
    )
    return logits, labels


def payload(fragment):
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', fragment, re.S)[1])


def test_five_numbers_of_four_answers_by_hand():
    found = sorted_answers.five_numbers(
        Judged(torch.tensor([0.9, 0.8, 0.7, 0.6]), torch.tensor([True, True, False, True]))
    )
    assert found["accuracy"] == 0.75
    assert found["AURC"] == pytest.approx((0 + 0 + 1 / 3 + 1 / 4) / 4)
    assert found["AUROC"] == pytest.approx(2 / 3)
    assert found["NLL"] == pytest.approx(-np.mean(np.log([0.9, 0.8, 0.3, 0.6])), rel=1e-6)
    assert found["ECE"] == pytest.approx((0.1 + 0.2 + 0.7 + 0.4) / 4, rel=1e-5)  # each in a bin of its own


def test_the_four_doubts_have_the_same_answers_and_loudness_keeps_their_order(answers):
    doubts = sorted_answers.doubts_of(*answers)
    found = {name: sorted_answers.five_numbers(each) for name, each in doubts.items()}
    own, loud, quiet, shuffled = found.values()
    assert own["accuracy"] == loud["accuracy"] == quiet["accuracy"] == shuffled["accuracy"]
    assert len({round(each["ECE"], 9) for each in (own, loud, quiet)}) == 3
    assert abs(shuffled["AUROC"] - 0.5) < 0.08  # a standard error of some 0.03
    assert sorted(doubts["its own"].confidence.tolist()) == sorted(doubts["its own, shuffled"].confidence.tolist())


def test_the_strip_says_how_many_of_the_kept_are_wrong(answers):
    logits, labels = (each[:12] for each in answers)
    fragment = sorted_answers.strip_figure(sorted_answers.doubts_of(logits, labels))
    sure = logits.softmax(-1).amax(-1)
    wrong = (logits.argmax(-1) != labels)[sure.argsort(descending=True)][:6].sum().item()
    assert f"Of the 6 surest answers {wrong} {'is' if wrong == 1 else 'are'} wrong" in fragment
    assert payload(fragment)["start"] == [0, 5]


def test_a_threshold_counts_what_it_catches_and_gives_away(answers):
    judged = Judged(answers[0].softmax(-1).amax(-1), answers[0].argmax(-1) == answers[1])
    fragment = sorted_answers.threshold_figure({"mine": judged})
    right = judged.correct[judged.confidence.argsort(descending=True)]
    caught, given = (~right[320:]).sum() / (~right).sum(), right[320:].sum() / right.sum()
    assert (
        f"Kept are the surest 80 %. {100 * caught:.0f} % of the errors are caught, and {100 * given:.0f} %" in fragment
    )
    assert f"{100 * roc_auc_score(judged.correct, judged.confidence):.1f}" in fragment


def test_the_two_kinds_of_doubt_add_up_and_each_has_its_extreme():
    sure = 50 * torch.eye(3, dtype=torch.float64)
    agree = torch.zeros(2, 1, 3, dtype=torch.float64)  # both doubt everything
    differ = torch.stack([sure[:1], sure[1:2]])  # each is sure of another class
    both = meanings.take_apart(torch.cat([agree, differ], 1))
    assert both.aleatoric.tolist() == pytest.approx([math.log(3), 0], abs=1e-12)
    assert both.epistemic.tolist() == pytest.approx([0, math.log(2)], abs=1e-12)
    assert both.total.tolist() == pytest.approx([math.log(3), math.log(2)], abs=1e-12)


def test_chance_alone_opens_gaps_that_shrink_with_the_root_of_n():
    small, large = (meanings.chance_ece(torch.full((n,), 0.8), bins=15) for n in (400, 40_000))
    assert small == pytest.approx(
        0.8 * math.sqrt(0.8 * 0.2 / 400), rel=0.4
    )  # the mean size of a normal number, in one bin
    assert small / large == pytest.approx(10, rel=0.5)


def test_the_bins_say_which_way_a_network_errs(answers):
    logits, labels = answers
    fragment = meanings.bins_figure({"these": (4 * logits, labels), "those": (logits / 8, labels)}, bins=(5, 15))
    assert "too sure" in fragment
    assert "not sure enough" in fragment or {"not", "sure", "enough."} <= set(payload(fragment)["words"])


def test_the_figure_of_two_kinds_holds_every_set_and_number_of_networks(answers):
    members = torch.stack([answers[0], answers[0] + 0.5, answers[0].flip(-1)])
    found = payload(meanings.two_kinds_figure(members, {"others": members.flip(1)}, shown=20))
    assert [each["positions"] for each in found["controls"]] == [1, 2]


def test_a_share_of_the_labels_becomes_wrong_and_no_more(answers):
    labels = answers[1]
    second = (labels + 1) % 4
    order = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    for share in (0, 0.1, 0.5):
        given = samples.wrong_labels(labels, second, order, share)
        assert (given != labels).sum() == round(400 * share)
    right = second.clone()
    right[:200] = labels[:200]  # a guess that is right spoils nothing
    assert (samples.wrong_labels(labels, right, order, 0.25) != labels)[200:].sum() == 100


def test_false_alarms_are_seeming_errors_whose_label_is_wrong(answers):
    logits, labels = answers
    assert samples.false_alarms(logits, labels, labels) == 0
    perfect = 9.0 * torch.eye(4, dtype=torch.float64)[labels]
    assert samples.false_alarms(perfect, (labels + 1) % 4, labels) == 1


def test_the_same_images_for_both_make_the_interval_narrow():
    """Two networks that differ in one answer of fifty: by the formula of the page."""
    generator = torch.Generator().manual_seed(0)
    n = 4000
    first = torch.rand(n, generator=generator) < 0.8
    second = first ^ (torch.rand(n, generator=generator) < 0.02)
    one, other = (Judged(torch.rand(n, generator=generator), each) for each in (first, second))
    found = samples.difference_on(one, other, torch.arange(n), "accuracy", draws=2000)
    d, a, b = (first != second).double().mean(), first.double().mean(), second.double().mean()
    widths = [end[1] - end[0] for end in (found.paired, found.apart)]
    assert widths[0] == pytest.approx(2 * 1.96 * 100 * math.sqrt((d - (a - b) ** 2) / n), rel=0.1)
    assert widths[1] == pytest.approx(2 * 1.96 * 100 * math.sqrt((a * (1 - a) + b * (1 - b)) / n), rel=0.1)
    assert found.value == pytest.approx(100 * (a - b).item())


def test_better_is_said_only_where_the_interval_does_not_cover_nothing():
    generator = torch.Generator().manual_seed(0)
    sure = torch.rand(2000, generator=generator)
    right, worse = (torch.rand(2000, generator=generator) < share for share in (0.9, 0.85))
    for n, said in ((2000, "is better"), (60, "may be better or worse: the interval covers 0")):
        pair = Judged(sure[:n], right[:n]), Judged(sure[:n], worse[:n])
        fragment = samples.sample_figure({"two": pair}, sizes=[20], draws=200)  # begins with all of them
        assert f"On {n:,} test images the first of the two {said} (accuracy" in fragment
        found = samples.difference_on(*pair, torch.arange(n), "accuracy", draws=200)
        assert (found.paired[0] > 0) == (n == 2000)


def test_a_head_on_separable_features_needs_few_labels():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 3
    features = 6 * torch.eye(3)[labels] + torch.randn(300, 3, generator=generator)
    judged = samples.few_labels((features[:150], labels[:150]), (features[150:], labels[150:]), 5)
    assert judged.correct.double().mean() > 0.95
    flawed = Judged(judged.confidence, judged.correct.clone().index_fill_(0, torch.tensor([3]), False))
    fragment = samples.few_labels_figure({1: [flawed], 5: [flawed, flawed]}, flawed, "itself")
    assert "With 5 labelled images of each class" in fragment
    assert [each["positions"] for each in payload(fragment)["controls"]] == [3, 2]


def test_every_figure_of_the_foundations_stands_on_a_page(repository):
    text = "".join(path.read_text() for path in (repository / "notebooks/foundations").glob("*.ipynb"))
    figures = [
        name
        for module in (sorted_answers, meanings, samples)
        for name in vars(module)
        if name.endswith("_figure") and name != "moving_figure"
    ]
    assert len(figures) == 7
    assert all(f"{name}(" in text for name in figures)
    assert len(list((repository / "notebooks/foundations").glob("*.ipynb"))) == 7


def test_of_the_kept_images_so_many_are_found_as_counting_says():
    generator = torch.Generator().manual_seed(0)
    found = torch.rand(500, generator=generator) < 0.7
    doubt = torch.rand(500, generator=generator, dtype=torch.float64) - 0.3 * found
    said = {"cats": {"a head": Judged(-doubt, found), "a coin": Judged(torch.arange(500.0).double(), found)}}
    fragment = ranked_images.ranked_figure(said)
    kept = found[doubt.argsort()][:400]
    told = f"of the 400 images that a head is surest of, a search finds the class of {100 * kept.double().mean():.1f} %"
    left = found[doubt.argsort()][400:]
    assert told in fragment
    assert f"Of those left out it finds {100 * left.double().mean():.1f} %." in fragment
    assert f"{roc_auc_score(~found, doubt):.3f}" in fragment


def test_every_set_is_put_in_the_same_orders():
    one = Judged(torch.tensor([0.2, 0.1]), torch.tensor([True, False]))
    with pytest.raises(ValueError, match="each set must have the scores a head, in this order"):
        ranked_images.ranked_figure({"cats": {"a head": one}, "dogs": {"a coin": one}})


def test_slices_of_an_order_hold_the_share_that_is_wrong():
    boxes, line = sorted_answers.slices(np.array([True] * 3 + [False] * 5), 25.0, "misses", count=4)
    assert boxes.y2.tolist() == [0, 50, 100, 100]
    assert (boxes.x.tolist(), line.x) == ([0, 25, 50, 75], 25.0)
