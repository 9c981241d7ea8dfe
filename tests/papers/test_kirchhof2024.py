import numpy as np

from uqlib.papers.kirchhof2024 import HEAD, TRAINING
from uqlib.uncertainty import UncertaintyHead, scaled_rate, train_head


def test_the_head_of_the_paper_has_as_many_weights_as_it_reports():
    sizes = {192: 361_985, 384: 460_289, 768: 656_897, 1024: 787_969}  # ViT-T, -S, -B, -L
    for features, count in sizes.items():
        assert sum(p.numel() for p in UncertaintyHead(features, **HEAD).parameters()) == count


def test_the_rate_of_the_paper_follows_from_its_batch():
    assert round(scaled_rate(TRAINING["batch"]), 5) == 0.00283


def test_the_options_of_the_paper_are_options_of_the_training():
    rng = np.random.default_rng(0)
    features, losses = rng.standard_normal((2048, 8)), rng.random(2048)
    log = train_head(UncertaintyHead(8, width=4), features, losses, epochs=1, progress=False, **TRAINING)
    assert len(log) == 1
