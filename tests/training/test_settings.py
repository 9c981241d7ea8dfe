import math

import numpy as np
import pytest
import torch
from torch import nn
from toys import Small, fit

from uqlib.training import DEFAULTS, Options, check_options, loop


def test_errors_name_the_value(pictures):
    images, labels = pictures
    for options, message in (
        ({"batch": 41}, "batch must lie in 1 to 40, the number of images; it is 41"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam'; choose from adamw, sgd"),
        ({"schedule": "step"}, "unknown schedule 'step'; choose from cosine, constant"),
        ({"augmentation": "crop"}, "unknown augmentation 'crop'"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(Small(), images, labels, epochs=1, **options)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 3\); row 0 is 7"):
        fit(Small(), images, labels + 7 - labels[0], epochs=1)
    with pytest.raises(ValueError, match="labels has 39 rows where 40 are expected"):
        fit(Small(), images, labels[1:], epochs=1)
    with pytest.raises(TypeError, match=r"labels must be integers; they are torch\.float64"):
        fit(Small(), images, labels + 0.7, epochs=1)
    with pytest.raises(TypeError, match=r"validation labels must be integers"):
        fit(Small(), images, labels, epochs=1, validation=(images, labels + 0.7))
    with pytest.raises(ValueError, match=r"validation labels must lie in \[0, 3\); row 5 is 3"):
        fit(Small(), images, labels, epochs=1, validation=(images, np.where(np.arange(40) == 5, 3, labels)))
    with pytest.raises(TypeError, match=r"Linear must say how many classes it has; set model\.num_classes"):
        fit(nn.Linear(2, 2), images, labels, epochs=1)
    with pytest.raises(ValueError, match="the loss is nan in epoch 1; a smaller lr"):
        fit(Small(), images, labels, epochs=1, loss=lambda logits, labels, rows: logits.sum() * math.nan)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("name", "value"), [("epochs", 2.0), ("batch", 8.0), ("seed", None), ("lr", "0.1"), ("warmup", True)]
)
def test_numbers_of_another_kind_are_refused(pictures, name, value):
    with pytest.raises(TypeError, match=f"{name} must be"):
        fit(Small(), *pictures, **{"epochs": 1} | {name: value})


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("bach", "batch"),
        ("weight-decay", "weight_decay"),
        ("los", "loss"),
        ("epoch", "epochs"),
        ("optimiser", "optimizer"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest_and_all(pictures, option, meant):
    with pytest.raises(TypeError, match=rf"unknown option '{option}' of train; did you mean '{meant}'\?") as error:
        fit(Small(), *pictures, epochs=1, **{option: 1})
    assert str(error.value).endswith("Its options are " + ", ".join(DEFAULTS))
    with pytest.raises(TypeError, match=r"unknown option 'colour' of loop\. Its options are batch, weight_decay"):
        loop(lambda rows, generator: torch.zeros(()), examples=2, parts={}, trained=[], epochs=1, lr=1.0, colour=3)


WHOLE, REAL = ("epochs", "batch", "seed"), ("lr", "weight_decay", "warmup", "clip")
OTHER_KINDS = {
    "bool": True,
    "text": "1",
    "list": [1],
    "complex": 1j,
    "array of one": np.array([1]),
    "nan": math.nan,
    "negative": -1,
}


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", [*WHOLE, *REAL])
@pytest.mark.parametrize("kind", OTHER_KINDS)
def test_every_number_is_right_or_refused_by_name(pictures, name, kind):
    with pytest.raises((TypeError, ValueError), match=rf"\b{name}\b"):
        fit(Small(), *pictures, **{"epochs": 1} | {name: OTHER_KINDS[kind]})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("name", [*WHOLE, *REAL])
def test_numbers_of_numpy_and_torch_are_those_of_python(pictures, tmp_path, name):
    value = 1 if name in WHOLE else 0.5
    kinds = [np.int64, np.array, torch.tensor] if name in WHOLE else [np.float64, np.float32, np.array, torch.tensor]
    fit(Small(), *pictures, checkpoint=tmp_path / "c.pt", **{"epochs": 1} | {name: value})
    for kind in kinds:  # the checkpoint is known again
        fit(Small(), *pictures, checkpoint=tmp_path / "c.pt", **{"epochs": 1} | {name: kind(value)})


def test_the_documentation_names_every_option():
    assert list(DEFAULTS) == list(Options.__annotations__)
    for name, value in DEFAULTS.items():
        shown = f'"{value}"' if isinstance(value, str) else f"{value:g}" if isinstance(value, float) else str(value)
        assert f"    {name}: {shown}" in Options.__doc__
    assert check_options({}, loop) == DEFAULTS
