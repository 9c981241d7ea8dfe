import pytest

from uqlib.scales import SCALES, at_scale


def test_larger_scales_default_to_the_next_smaller():
    assert [at_scale(scale, smoke=1, cpu=2) for scale in SCALES] == [1, 2, 2, 2]
    assert [at_scale(scale, smoke=1, cpu=2, gpu=3) for scale in SCALES] == [1, 2, 3, 3]
    assert [at_scale(scale, smoke=1, cpu=2, gpu=3, paper=4) for scale in SCALES] == [1, 2, 3, 4]


def test_unknown_scale_lists_the_known():
    with pytest.raises(ValueError, match="unknown scale 'big'; choose from smoke, cpu, gpu, paper"):
        at_scale("big", smoke=1, cpu=2)
