"""Training: one loop for every method, resumable to the bit, on one device or several.

`train` fits a classifier; `loop` runs the step of any other method:

    from uqlib.training import train
    train(model, images, labels, preprocessing=prepared, epochs=10, lr=0.1)

    from uqlib.training import Views, loop
    views = Views(images, prepared, "flip_shift", beside=model)

    def step(rows, generator):
        first, second = (F.normalize(model(views(rows, generator))) for _ in range(2))
        return F.cross_entropy(first @ second.T / 0.1, torch.arange(len(rows)))

    loop(step, examples=len(images), parts={"model": model}, trained=model.parameters(), epochs=10, lr=0.1)
"""

from uqlib.training.augment import AUGMENTATIONS, flip, flip_shift, keep
from uqlib.training.classify import Epoch, features_of, predict, train
from uqlib.training.loops import EpochLog, Moment, loop
from uqlib.training.processes import average_gradients
from uqlib.training.schedules import OPTIMIZERS, SCHEDULES, adamw, constant, cosine, sgd
from uqlib.training.settings import DEFAULTS, PRECISIONS, Options, check_options
from uqlib.training.views import Views

__all__ = [
    "AUGMENTATIONS",
    "DEFAULTS",
    "OPTIMIZERS",
    "PRECISIONS",
    "SCHEDULES",
    "Epoch",
    "EpochLog",
    "Moment",
    "Options",
    "Views",
    "adamw",
    "average_gradients",
    "check_options",
    "constant",
    "cosine",
    "features_of",
    "flip",
    "flip_shift",
    "keep",
    "loop",
    "predict",
    "sgd",
    "train",
]
