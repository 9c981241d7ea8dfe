import math

import pytest

from uqlib.training import cosine


def test_cosine_ends_at_nothing():
    assert cosine(0, 100, 0.1) == pytest.approx(0.1)
    assert cosine(10, 100, 0.1) == 1.0
    assert cosine(55, 100, 0.1) == pytest.approx(0.5)
    assert cosine(99, 100, 0.1) == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert cosine(0, 10, 0.0) == 1.0
