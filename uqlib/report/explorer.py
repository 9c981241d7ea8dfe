"""The interactive figures: HTML fragments that carry the data; duo_explorer.js and difficulty_explorer.js of the book draw them."""

import base64
import html
import json
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from uqlib.base.arrays import Column, Table
from uqlib.base.checks import check_confidence, check_labels, check_same_shape, check_size
from uqlib.base.options import check_result, check_whole
from uqlib.base.splits import split
from uqlib.combine.duos import DuoFit

STEP = 0.01  # logits are rounded to hundredths
REACH = 32767 * STEP  # what 16 bits hold of them

LEVELS = 65535  # a difficulty is rounded to so many steps from the easiest to the hardest

FRAGMENT = """<div class="explorer duo-explorer" role="group" aria-label="Interactive figure: the weights of a duo">
<p class="ex-fallback">An interactive figure stands here where JavaScript runs, in the pages of the book: two sliders weigh
{large} and {small}, and accuracy, calibration and the risk-coverage curve of the pair follow, on {rows} images.</p>
<script type="application/json">{payload}</script>
</div>"""
DIFFICULTY_FRAGMENT = """<div class="explorer difficulty-explorer" role="group" aria-label="Interactive figure: the weights of difficulty">
<p class="ex-fallback">An interactive figure stands here where JavaScript runs, in the pages of the book: temperature, strength
and normaliser can be moved, and the weights of {images} training images ({name}) and their optimal confidences follow.</p>
<script type="application/json">{payload}</script>
</div>"""


def duo_explorer(
    large_logits: Table,
    small_logits: Table,
    labels: Column,
    fit: DuoFit,
    *,
    names: Sequence[str],
    seed: int,
    rows: int = 1000,
) -> str:
    """HTML of a figure in which the reader moves the two weights and sees every metric follow.

    The fragment holds a random part of the rows and no code: the page loads duo_explorer.js and explorer.css.
    Logits are shifted so that each row's largest is 0, and rounded to hundredths, so the NLL moves by at most 0.01
    times the sum of the weights. Two bytes a logit before base64: 57 kB for 1000 rows of 10 classes.

    Args:
        large_logits: (n, c).
        small_logits: (n, c) of the sidekick, the same rows and classes.
        labels: (n,), classes in [0, c).
        fit: from fit_duo, on other examples.
        names: of the large network and of the sidekick, as the reader shall see them.
        seed: of the draw of the rows.
        rows: at most so many are drawn.

    Raises:
        ValueError: if shapes differ, logits are not finite, are probabilities or spread too far for 16 bits, a label is
            outside [0, c), rows is below 1, or there are not two names.
        TypeError: if fit is none, a name is no string, or a number is not whole.
    """
    tables = dict(zip(("large_logits", "small_logits"), (large_logits, small_logits), strict=True))
    members = check_same_shape(tables)
    n, classes = members[0].shape
    labels = check_labels(labels, classes, rows=n)
    check_result(fit, DuoFit, "fit", "fit_duo")
    if not isinstance(names, list | tuple) or len(names) != 2 or not all(isinstance(name, str) for name in names):
        raise ValueError(f"names must be two, of the large network and of the sidekick; got {names!r}")
    rows, seed = check_whole(rows, "rows", least=1), check_whole(seed, "seed", least=0)
    chosen = torch.arange(n) if rows >= n else torch.from_numpy(split(n, rows, seed=seed)[0])
    large, small = (_packed(member.cpu()[chosen], name) for name, member in zip(tables, members, strict=True))
    payload = {
        "names": list(names),
        "classes": classes,
        "step": STEP,
        "large": large,
        "small": small,
        "labels": _text(labels.cpu()[chosen].numpy()),
        "weights": fit.weights,
        "temperatures": fit.temperatures,
    }
    return FRAGMENT.format(
        large=html.escape(names[0]),
        small=html.escape(names[1]),
        rows=f"{len(chosen):,}",
        payload=_script(payload),
    )


def difficulty_explorer(difficulty: Column, *, classes: int, name: str, seed: int, rows: int = 2000) -> str:
    """HTML of a figure in which the reader moves temperature, strength and normaliser, and sees weights and confidences.

    The fragment holds difficulties and no code: the page loads difficulty_explorer.js and explorer.css. A weight is what
    uqlib.difficulty.weighting gives the image among all images; the constants that takes, such as the largest, travel along.
    Of more images than `rows`, the hardest (a quarter of rows) are all held, since a few of them may carry all the weight;
    the easier ones are cut into groups of equal size by difficulty, and one drawn from each stands for its group.
    Two bytes an image before base64: 5.5 kB for 2000 rows. Difficulties are rounded to 1/65535 of their range.

    Args:
        difficulty: (n,) of the training images, higher = harder.
        classes: of the training set.
        name: of the measure and the network behind it, as the reader shall see them, such as "RMD by MobileNetV2".
        seed: of the draw from each group.
        rows: at most so many are held.

    Raises:
        ValueError: if difficulties are not finite, too large or nearly all the same, classes is below 2 or rows below 1.
        TypeError: if the name is no string or a number is not whole.

    Source:
        Cui et al. 2023 (arXiv:2304.10127), equations 8 to 10.
    """
    values = check_confidence(difficulty, "difficulty")
    check_size(values, "difficulty")
    hardest_first = np.sort(values.double().cpu().numpy())[::-1]
    n, low, high = len(hardest_first), hardest_first[-1], hardest_first[0]
    if hardest_first[n // 1000] == low:
        raise ValueError(
            f"all but a few of {n:,} difficulties are {low:.6g}; the figure needs some that differ. Pass the difficulty of "
            "all training images."
        )
    if not isinstance(name, str):
        raise TypeError(f"name must be a string; it is {name!r}")
    classes, rows = check_whole(classes, "classes", least=2), check_whole(rows, "rows", least=1)
    seed = check_whole(seed, "seed", least=0)
    codes = ((hardest_first - low) / (high - low) * LEVELS).round()
    held = low + codes * ((high - low) / LEVELS)  # the page's numbers are exact for these
    alone, chosen = _hardest_and_drawn(n, rows, seed)
    constants = {"mean": held.mean(), "deviation": held.std(), "most": held[n // 1000]}  # 99.9 % are at most that
    payload = {
        "name": name,
        "classes": classes,
        "images": n,
        "alone": alone,
        "all": {"low": low, "high": high} | constants,
        "difficulty": _text(codes[chosen], "<u2"),
    }
    return DIFFICULTY_FRAGMENT.format(name=html.escape(name), images=f"{n:,}", payload=_script(payload))


def _hardest_and_drawn(n: int, rows: int, seed: int) -> tuple[int, Int[np.ndarray, " k"]]:
    """How many of the hardest stand for themselves, and the ranks of all that are held."""
    if rows >= n:
        return n, np.arange(n)
    alone = rows // 4
    edges = alone + (n - alone) * np.arange(rows - alone + 1) // (rows - alone)
    drawn = np.random.PCG64(seed).random_raw(rows - alone) % np.diff(edges).astype(np.uint64)
    return alone, np.append(np.arange(alone), edges[:-1] + drawn.astype(np.int64))


def _script(payload: dict) -> str:
    return json.dumps(payload).replace("<", "\\u003c")  # a name must not end the script


def _packed(logits: Float[Tensor, "n c"], name: str) -> str:
    shifted = logits.double() - logits.double().amax(-1, keepdim=True)
    if shifted.min() < -REACH:
        row = int(shifted.amin(-1).argmin())
        raise ValueError(
            f"{name} spread too far: row {row} of those drawn spans {-shifted.min().item():.6g}, and {REACH:.6g} is the most. "
            "Divide the logits by a temperature before fit_duo."
        )
    return _text((shifted / STEP).round().numpy())


def _text(values: np.ndarray, kind: str = "<i2") -> str:
    return base64.b64encode(values.astype(kind).tobytes()).decode()
