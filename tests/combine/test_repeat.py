"""Repeated splits: the same splits for every pair, each variant decided on the rows that the fit did not see."""

import pytest
import torch

from uqlib.base.splits import split
from uqlib.combine import duos
from uqlib.combine.repeat import decide_again, repeat_duo

LABELS = torch.arange(120) % 3
LARGE, SMALL = (
    1 * torch.eye(3)[LABELS] + torch.randn(120, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)
)


def test_every_split_fits_on_one_part_and_decides_the_other():
    outcomes, fits = repeat_duo(LARGE, SMALL, LABELS, fit_size=40, splits=3, seed=5, variants=["ours", "raw"])
    assert set(outcomes) == {"ours", "raw"}
    for k, fit in enumerate(fits):
        rows, test = split(120, 40, seed=5 + k)
        assert fit == duos.fit_duo(LARGE[rows], SMALL[rows], LABELS[rows])
        assert torch.equal(outcomes["ours"][k].labels, LABELS[test])
        for given, expected in zip(outcomes["ours"][k], duos.ours(LARGE[test], SMALL[test], fit), strict=False):
            assert torch.equal(given, expected)
        assert torch.equal(outcomes["raw"][k].probs, LARGE[test].double().softmax(-1))


def test_fits_of_several_sizes_may_share_their_test_rows():
    few, many = (repeat_duo(LARGE, SMALL, LABELS, fit_size=n, held=60, splits=2, variants=["ours"]) for n in (50, 60))
    least = repeat_duo(LARGE, SMALL, LABELS, fit_size=60, held=20, splits=1, variants=["ours"])  # never rows of the fit
    assert torch.equal(least.outcomes["ours"][0].probs, many.outcomes["ours"][0].probs)
    for k in range(2):
        assert torch.equal(few.outcomes["ours"][k].labels, LABELS[split(120, 60, seed=k)[1]])
        assert torch.equal(few.outcomes["ours"][k].labels, many.outcomes["ours"][k].labels)
    assert few.fits[0] == duos.fit_duo(*(each[split(120, 50, seed=0)[0]] for each in (LARGE, SMALL, LABELS)))


def test_splits_without_a_fit_are_left_out_on_demand_and_another_rule_may_fit():
    clear = 5 * torch.eye(3)[LABELS] - 1  # the largest logit is that of the label, always
    options = {"fit_size": 40, "splits": 1, "variants": ["ours"]}
    with pytest.raises(duos.InfiniteWeights):
        repeat_duo(clear, SMALL, LABELS, **options)
    outcomes, fits = repeat_duo(clear, SMALL, LABELS, skip_infinite=True, **options)
    assert (outcomes, fits) == ({"ours": []}, [])
    plain = repeat_duo(LARGE, SMALL, LABELS, **options).fits[0]
    twice = repeat_duo(LARGE, SMALL, LABELS, rule=lambda *rows: plain._replace(weights=(1.0, 2.0)), **options)
    assert twice.fits[0].weights == (1.0, 2.0)


def test_nothing_left_to_test_is_refused():
    with pytest.raises(ValueError, match="fit_size must lie in 1 to 119, so that rows are left to test; it is 120"):
        repeat_duo(LARGE, SMALL, LABELS, fit_size=120, splits=1)


def test_weights_of_one_set_decide_another_on_the_rows_that_go_with_each():
    _, fits = repeat_duo(LARGE, SMALL, LABELS, fit_size=40, splits=2, variants=[])
    variants = {"duo": duos.ours, "turned": lambda large, small, fit: duos.ours(-large, -small, fit)}
    rows = [slice(None), torch.arange(120) % 2 == 0]
    found = decide_again(fits, SMALL, LARGE, LABELS, rows, variants=variants)
    for k, some in enumerate(rows):
        expected = fits[k].weights[0] * SMALL[some].double() + fits[k].weights[1] * LARGE[some].double()
        assert torch.equal(found["duo"][k].probs, expected.softmax(-1))
        assert torch.equal(found["turned"][k].preds, expected.argmin(-1))
        assert torch.equal(found["duo"][k].labels, LABELS[some])
