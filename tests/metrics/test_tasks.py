"""Who is positive, against scikit-learn with the sides written out, against counting, and on toys."""

from itertools import pairwise, permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from uqlib.metrics.tasks import Detection, Mislabelled, both_sides, misclassified, mislabelled, out_of_distribution

PERFECT = Detection(fpr95=0, auroc=1, aupr=1)


@pytest.fixture
def rows():
    """2,000 confidences with many ties, three in four of them of correct predictions."""
    generator = np.random.default_rng(0)
    correct = generator.random(2_000) < 0.75
    return (generator.normal(size=2_000) + correct).round(1), correct


def accepted(kept, others):
    """The least share of the others above a threshold that at least 95 % of the kept reach; every threshold is tried."""
    shares = [np.mean(others >= cut) for cut in np.unique(kept) if np.mean(kept >= cut) >= 0.95]
    return min(shares)


def test_correct_predictions_are_positive(rows):
    confidence, correct = rows
    found = misclassified(confidence, correct)
    assert found.fpr95 == accepted(confidence[correct], confidence[~correct])
    assert found.auroc == pytest.approx(roc_auc_score(correct, confidence), abs=1e-12)
    assert found.aupr == pytest.approx(average_precision_score(correct, confidence), abs=1e-12)
    # the other convention is another number: AUPR of the errors is far lower where they are rare
    assert average_precision_score(~correct, -confidence) < found.aupr - 0.2


def test_in_distribution_is_positive(rows):
    confidence, inside = rows
    found = out_of_distribution(confidence[inside], confidence[~inside])
    assert found.fpr95 == accepted(confidence[inside], confidence[~inside])
    assert found.auroc == pytest.approx(roc_auc_score(inside, confidence), abs=1e-12)
    assert found.aupr == pytest.approx(average_precision_score(inside, confidence), abs=1e-12)
    assert found == misclassified(confidence, inside)  # the same rule with other words
    both, positive = both_sides(confidence[inside], confidence[~inside])
    assert (both[positive].tolist(), both[~positive].tolist()) == tuple(
        confidence[x].tolist() for x in (inside, ~inside)
    )


def test_wrong_labels_are_positive_and_hard(rows):
    difficulty, wrong = rows[0], ~rows[1]
    found = mislabelled(-difficulty, wrong)
    assert found.auroc == pytest.approx(roc_auc_score(wrong, -difficulty), abs=1e-12)
    assert found.aupr == pytest.approx(average_precision_score(wrong, -difficulty), abs=1e-12)
    assert found.precision > 2 * wrong.mean()  # twice as good as chance


def test_perfect_separation():
    assert misclassified([0.9, 0.8, 0.2], [True, True, False]) == PERFECT
    assert out_of_distribution([0.9, 0.8], [0.2]) == PERFECT
    assert mislabelled([-3.0, 5.0, -2.0, 4.0], [False, True, False, True]) == Mislabelled(1, 1, 1)


def test_a_constant_score_is_chance():
    assert misclassified(np.full(8, 0.7), np.arange(8) < 6) == Detection(fpr95=1, auroc=0.5, aupr=0.75)
    assert out_of_distribution(np.zeros(6), np.zeros(2)) == Detection(fpr95=1, auroc=0.5, aupr=0.75)
    assert mislabelled(np.zeros(8), np.arange(8) < 2) == Mislabelled(auroc=0.5, aupr=0.25, precision=0.25)


def test_an_entropy_without_its_minus_turns_the_result_around(rows):
    confidence, correct = rows
    assert misclassified(-confidence, correct).auroc == pytest.approx(1 - misclassified(confidence, correct).auroc)


def test_ninety_five_percent_are_of_the_positives():
    # 19 of 20 positives lie above the one negative: 95 % are reached before it
    assert misclassified(np.arange(21, 0, -1), np.arange(21) != 19).fpr95 == 0
    # 18 of 20: the negative is accepted first
    assert misclassified(np.arange(21, 0, -1), np.arange(21) != 18).fpr95 == 1


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 1.0, 2.0]), st.booleans()), min_size=2, max_size=6).filter(
        lambda rows: len({wrong for _, wrong in rows}) == 2
    )
)
def test_the_precision_averages_over_every_order_of_the_ties(rows):
    difficulty, wrong = zip(*rows, strict=True)
    orders = [each for each in permutations(rows) if all(a[0] >= b[0] for a, b in pairwise(each))]
    found = [np.mean([bad for _, bad in each[: sum(wrong)]]) for each in orders]
    assert mislabelled(difficulty, wrong).precision == pytest.approx(np.mean(found), abs=1e-14)


def test_the_order_of_the_rows_and_the_kind_of_array_do_not_matter(rows):
    confidence, correct = rows
    order = np.random.default_rng(1).permutation(len(correct))
    for function in (misclassified, mislabelled):
        expected = function(confidence, correct)
        assert function(confidence[order], correct[order]) == expected
        assert function(torch.from_numpy(confidence), torch.from_numpy(correct).int()) == expected
    inside, outside = confidence[correct], confidence[~correct].astype(np.float32)
    expected = out_of_distribution(inside, outside)
    assert out_of_distribution(torch.from_numpy(inside), outside[::-1]) == expected


def test_one_side_alone_is_refused():
    with pytest.raises(
        ValueError, match=r"all 2 are correct predictions, none are wrong predictions\. Training images"
    ):
        misclassified([0.1, 0.2], [True, True])
    with pytest.raises(ValueError, match="all 2 are wrong predictions, none are correct predictions"):
        misclassified([0.1, 0.2], [False, False])
    with pytest.raises(ValueError, match=r"all 3 are right labels, none are wrong labels\. Pass `given != true`"):
        mislabelled([0.1, 0.2, 0.3], [0, 0, 0])
    with pytest.raises(ValueError, match="confidence_out is empty"):
        out_of_distribution([0.1, 0.2], [])


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="difficulty must be finite; row 1 is nan"):
        mislabelled([0.1, np.nan], [0, 1])
    with pytest.raises(ValueError, match="confidence_in must be finite; row 0 is inf"):
        out_of_distribution([np.inf], [0.1])
    with pytest.raises(ValueError, match="correct has 3 rows where 2 are expected"):
        misclassified([0.1, 0.2], [True, False, True])
    with pytest.raises(ValueError, match=r"wrong must be true or false; row 0 is 7\. Pass .* not class indices"):
        mislabelled([0.1, 0.2], [7, 0])
