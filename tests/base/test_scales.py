import pytest

from uqlib.base.scales import SCALES, at_scale


def test_larger_scales_default_to_the_next_smaller():
    assert [at_scale(scale, smoke=1, cpu=2) for scale in SCALES] == [1, 2, 2, 2]
    assert [at_scale(scale, smoke=1, cpu=2, gpu=3) for scale in SCALES] == [1, 2, 3, 3]
    assert [at_scale(scale, smoke=1, cpu=2, gpu=3, paper=4) for scale in SCALES] == [1, 2, 3, 4]


def test_unknown_scale_lists_the_known():
    with pytest.raises(ValueError, match="unknown scale 'big'; choose from smoke, cpu, gpu, paper"):
        at_scale("big", smoke=1, cpu=2)


def test_none_is_a_value(unchecked):
    """For example 'all rows' where the smaller scales take some."""
    assert at_scale("gpu", smoke=1, cpu=2, gpu=None) is None
    assert at_scale("paper", smoke=1, cpu=2, gpu=None) is None
    assert at_scale("paper", smoke=1, cpu=2, gpu=3, paper=None) is None


@pytest.mark.parametrize("odd", [None, 1, True, ["cpu"], b"cpu", "", "CPU"], ids=str)
def test_what_is_no_scale_is_refused(odd, unchecked):
    with pytest.raises(ValueError, match=r"unknown scale .*; choose from smoke, cpu, gpu, paper"):
        at_scale(odd, smoke=1, cpu=2)
