"""The interactive figure of a duo: an HTML fragment that carries the logits; duo_explorer.js of the book draws it."""

import base64
import html
import json
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from uqlib.arrays import Column, Table, check_labels, check_same_shape
from uqlib.duos import DuoFit
from uqlib.splits import split

STEP = 0.01  # logits are rounded to hundredths
REACH = 32767 * STEP  # what 16 bits hold of them

FRAGMENT = """<div class="duo-explorer" role="group" aria-label="Interactive figure: the weights of a duo">
<p class="duo-fallback">An interactive figure stands here where JavaScript runs, in the pages of the book: two sliders weigh
{large} and {small}, and accuracy, calibration and the risk-coverage curve of the pair follow, on {rows} images.</p>
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

    The fragment holds a random part of the rows and no code: the page loads duo_explorer.js and duo_explorer.css.
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
    """
    tables = dict(zip(("large_logits", "small_logits"), (large_logits, small_logits), strict=True))
    members = check_same_shape(tables)
    n, classes = members[0].shape
    labels = check_labels(labels, classes, rows=n)
    if isinstance(names, str) or len(names) != 2:
        raise ValueError(f"names must be two, of the large network and of the sidekick; got {names!r}")
    if rows < 1:
        raise ValueError(f"rows must be at least 1; got {rows}")
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
        payload=json.dumps(payload).replace("<", "\\u003c"),  # a name must not end the script
    )


def _packed(logits: Float[Tensor, "n c"], name: str) -> str:
    shifted = logits.double() - logits.double().amax(-1, keepdim=True)
    if shifted.min() < -REACH:
        row = int(shifted.amin(-1).argmin())
        raise ValueError(
            f"{name} spread too far: row {row} of those drawn spans {-shifted.min().item():.6g}, and {REACH:.6g} is the most. "
            "Divide the logits by a temperature before fit_duo."
        )
    return _text((shifted / STEP).round().numpy())


def _text(values: np.ndarray) -> str:
    return base64.b64encode(values.astype("<i2").tobytes()).decode()
