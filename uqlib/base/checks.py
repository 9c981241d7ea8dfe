"""Checks of arrays: labels, logits, probabilities, confidences, rows that belong together. Each fault names argument, row and value."""

import re
from collections.abc import Callable, Sized
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from uqlib.base.arrays import Column, _place, as_tensor, by_rows

PROBS_SLACK = 2e-3  # how far a row of probabilities may sum from 1: what half precision allows
ROUNDED_SLACK = 1e-2  # how far at most a row sums from 1 where probabilities, not logits, were rounded on their way
EXACT = 2**53  # float64 holds every whole number up to this one
OF_A_NETWORK = re.compile("logits|outputs|confidence|score|uncertainty|large|small|probs|difficulty|losses")
HALVES = (torch.float16, torch.bfloat16)
CHUNK = 2**16  # numbers of a table taken to float64 at a time


def check_finite(values: Tensor, name: str) -> None:
    """Raise a ValueError that names the first row holding NaN or infinity."""
    if not values.numel() or values.sum().isfinite():
        return  # one pass, no copy, no mask: a sum with a NaN or an infinity in it is never finite
    bad = ~values.isfinite()
    if not bad.any():
        return
    where = tuple(bad.nonzero()[0].tolist())
    message = (
        f"{name} must be finite; {_place(where)} is {values[where].item()}. {_hint_of_infinity(values, where, name)}"
    )
    raise ValueError(message.rstrip())


def _hint_of_infinity(values: Tensor, where: tuple[int, ...], name: str) -> str:
    """What makes such a value, as far as the name says what they are: what a network gave, or a number of the user."""
    if "features" in name:
        return "Features that overflowed in half precision do this: recompute them in float32."
    if not OF_A_NETWORK.search(name):
        return ""
    overflow = "Logits that overflowed in half precision do this: recompute them in float32."
    if values[where] != -torch.inf:
        return overflow
    if values.ndim == 2 and (values[:, where[1]] == -torch.inf).all():
        return (
            "Classes masked by -inf? Drop them: with kept = np.isfinite(logits).all(0) pass logits[:, kept] "
            "and np.cumsum(kept)[labels] - 1."
        )
    return f"{overflow} So does the logarithm of probability 0: pass log(probs.clip(1e-12))."


def check_confidence(confidence: Any, name: str = "confidence") -> Float[Tensor, " n"]:
    """A finite real score per example, at least one, as a floating tensor."""
    return _finite_floats(_one_axis(as_tensor(confidence, name), name), name)


def check_share(confidence: Any, name: str = "confidence") -> Float[Tensor, " n"]:
    """A confidence in [0, 1] per example, at least one, as a floating tensor."""
    score = check_confidence(confidence, name)
    low, high = torch.aminmax(score)
    if low < 0 or high > 1:
        row = int(((score < 0) | (score > 1)).nonzero()[0])
        raise ValueError(
            f"{name} must lie in [0, 1]; row {row} is {score[row].item():.9g}. "
            "Logits? Pass the largest probability, logits.softmax(-1).max(-1). Percent? Divide by 100. "
            "Rounding? Clip it to 1."
        )
    return score


def check_mask(
    mask: Any, name: str = "correct", rows: int | None = None, device: torch.device | None = None
) -> Bool[Tensor, " n"]:
    """A yes or no per example, on the device; zeros and ones of any type are taken, anything else is refused."""
    mask = _one_axis(as_tensor(mask, name), name)
    check_rows(mask, rows, name)
    if mask.dtype != torch.bool:
        odd = (mask != 0) & (mask != 1)
        if odd.any():
            row = int(odd.nonzero()[0])
            raise ValueError(
                f"{name} must be true or false; row {row} is {mask[row].item()}. "
                "Pass `preds == labels`, or another comparison, not class indices."
            )
        mask = mask != 0
    return mask if device is None else mask.to(device)


def check_labels(
    labels: Any, classes: int | None, rows: int | None = None, name: str = "labels", device: torch.device | None = None
) -> Int[Tensor, " n"]:
    """Class indices in [0, classes), as int64, on the device; None takes any number of classes."""
    labels = check_whole_column(labels, name, rows)
    if classes is None:
        refuse_ignored(labels, name=name)
    outside = labels < 0 if classes is None else (labels < 0) | (labels >= classes)
    if outside.any():
        row = int(outside.nonzero()[0])
        hint = "" if classes is None else f"A {classes}-class head with the labels of another data set?"
        if labels[row] in (-1, -100, 255):
            hint = f"Rows to leave out? Drop them from every array: keep = {name} != {labels[row].item()}."
        wanted = "be 0 or larger" if classes is None else f"lie in [0, {classes})"
        raise ValueError(f"{name} must {wanted}; row {row} is {labels[row].item()}. {hint}".rstrip())
    return labels if device is None else labels.to(device)


def check_whole_column(labels: Any, name: str = "labels", rows: int | None = None) -> Int[Tensor, " n"]:
    """A whole number per example, of whatever size, as int64: labels where nothing says how many classes there are."""
    labels = as_tensor(labels, name)
    if labels.ndim == 2 and labels.shape[1] > 1:
        raise ValueError(
            f"{name} must hold one class index a row (n,); their shape is {tuple(labels.shape)}. "
            f"One-hot rows? Pass {name}.argmax(-1)."
        )
    labels = _one_axis(labels, name)
    if not len(labels):
        raise ValueError(f"{name} is empty; at least one example is needed")
    check_rows(labels, rows, name)
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"{name} must be integers; they are {labels.dtype}. Class indices? Convert them to int64.")
    return labels.long()


def check_classes(preds: Column, labels: Column) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
    """Predicted and true classes, as int64, on one device."""
    preds = check_whole_column(preds, "preds")
    labels = check_whole_column(labels, rows=len(preds)).to(preds.device)
    most = max(int(preds.max()), int(labels.max()))
    if most == 255:
        refuse_ignored(labels, preds)
        refuse_ignored(preds, labels, name="preds")
    preds = check_labels(preds, most + 1, name="preds")  # so that only a negative class is outside
    return preds, check_labels(labels, most + 1)


def refuse_ignored(labels: Int[Tensor, " n"], *others: Int[Tensor, " n"], name: str = "labels") -> None:
    """Raise a ValueError if 255 stands among labels that otherwise stay far below it: it marks what is to be left out.

    Where the number of classes is known, check_labels knows better.
    """
    ignored = labels == 255
    if not ignored.any() or ignored.all() or max(int(each.max()) for each in (labels, *others)) > 255:
        return
    most = max(int(each.max()) for each in (labels[~ignored], *others))
    if most < 128:
        raise ValueError(
            f"{name} must be classes; row {int(ignored.nonzero()[0])} is 255, where every other is at most {most}. "
            f"Rows to leave out? Drop them from every array: keep = {name} != 255. A class? Give it another number."
        )


def check_features(features: Any, name: str = "features", *, width: int | None = None) -> Shaped[Tensor, "n d"]:
    """A row of finite numbers an example, at least one of each; None takes any width."""
    features = as_tensor(features, name)
    if features.ndim != 2 or not features.numel():
        raise ValueError(f"{name} must have shape (n, d) with at least one row; it is {tuple(features.shape)}")
    if width is not None and features.shape[1] != width:
        raise ValueError(
            f"{name} must have width {width}; they have {features.shape[1]}. Of another network? What learnt from the "
            "features of one knows those of no other."
        )
    check_finite(features, name)
    return features


def check_rows(array: Sized, rows: int | None, name: str) -> None:
    """Raise a ValueError unless there are so many rows; None takes any number."""
    if rows is not None and len(array) != rows:
        raise ValueError(f"{name} has {len(array)} rows where {rows} are expected; both must list the same examples")


def check_size(values: Float[Tensor, "..."], name: str, most: float = 1e100) -> None:
    """Raise a ValueError where finite values are so large that their powers overflow, or all so small that these vanish."""
    if torch.finfo(values.dtype).max <= most or not values.numel():
        return
    low, high = values.aminmax()
    size = max(-low.item(), high.item())
    if size > most:
        where = tuple((values.double().abs() > most).nonzero()[0].tolist())  # in bfloat16 the bound itself is rounded
        raise ValueError(
            f"{name} must be at most {most:.0e} in size, since sums of their powers must not overflow; {_place(where)} is "
            f"{values[where].item():.6g}. Divide all of them by a constant."
        )
    if 0 < size < 1 / most:
        raise ValueError(
            f"{name} must not all be below {1 / most:.0e} in size, where their powers vanish; the largest is {size:.6g}. "
            "Multiply all of them by a constant."
        )


def check_logits(logits: Any, name: str = "logits") -> Float[Tensor, "n c"]:
    """Finite rows before the softmax. Rows that are probabilities are refused: a second softmax flattens them.

    Probabilities are told by their rows: no entry below 0, and nearly all rows sum to 1, or to 100, as far as the
    rounding of their entries allows. A few rows settle nearly every case.
    """
    logits = _check_table(logits, name)
    if (total := _total_of_probs(logits)) is not None:
        what, probs = ("probabilities", "probs") if total == 1 else ("percent", "(percent / 100)")
        tiny = 1e-7 if logits.dtype == torch.float16 else 1e-12  # which the dtype can hold
        raise ValueError(
            f"{name} look like {what}: no entry is negative and the rows sum to {total}, up to rounding. "
            f"Pass the network's output before the softmax, or log({probs}.clip({tiny:g}))."
        )
    return logits


def are_probabilities(table: Any, name: str = "outputs") -> bool:
    """Whether a table (n, c) holds probabilities, told by its rows as check_logits tells them."""
    return _total_of_probs(_check_table(table, name)) == 1


def check_row_constant(logits: Float[Tensor, "n c"], name: str = "logits") -> None:
    """Raise a ValueError if the constant of each row is gone: its maximum was taken off, or its log of the sum of exp.

    A softmax does not see it, the largest logit and the energy are made of it.
    """
    if _every_row(logits, lambda part: part.amax(-1) == 0):
        gone = "every row has the maximum 0, as if that had been taken off"
    elif _every_row(logits, lambda part: part.double().logsumexp(-1).abs() <= ROUNDED_SLACK):
        gone = "every row is the logarithm of probabilities"
    else:
        return
    raise ValueError(
        f"{name} have lost the constant of each row: {gone}. Pass the network's own logits in float32, or add the maximum "
        f"of each row again where it was kept, {name} + maximum[:, None]."
    )


def _every_row(table: Float[Tensor, "n c"], holds: Callable[[Tensor], Tensor]) -> bool:
    """Whether it holds of every row. A few of them settle nearly every case."""
    few = table[:: 1 + len(table) // 32]
    return bool(holds(few).all()) and all(holds(part).all() for (part,) in by_rows(CHUNK // table.shape[1], table))


def check_members(member_logits: Any) -> list[Float[Tensor, "n c"]]:
    """The logits of each member of an ensemble, at least one and all of one shape, from (m, n, c) or a list of (n, c)."""
    if not isinstance(member_logits, list | tuple):
        member_logits = as_tensor(member_logits, "member_logits")
        if member_logits.ndim != 3:
            raise ValueError(
                f"member_logits must have shape (m, n, c), or be a list of m tables (n, c); it is "
                f"{tuple(member_logits.shape)}. The table of one member? Pass it in a list."
            )
    if not len(member_logits):
        raise ValueError("member_logits is empty; at least one member is needed")
    return check_same_shape({f"member_logits[{m}]": logits for m, logits in enumerate(member_logits)})


def check_same_shape(logits: dict[str, Any]) -> list[Float[Tensor, "n c"]]:
    """The logits of several networks, by name, on the same examples and classes, on the device of the first."""
    first, *_ = tables = [check_logits(table, name) for name, table in logits.items()]
    for name, table in zip(logits, tables, strict=True):
        if table.shape != first.shape:
            raise ValueError(
                f"{next(iter(logits))} and {name} must have one shape (n, c), the same examples and classes in the same "
                f"order; they have {tuple(first.shape)} and {tuple(table.shape)}. A background class? Drop its column."
            )
    return [table.to(first.device) for table in tables]


def check_probs(probs: Any, name: str = "probs") -> Float[Tensor, "n c"]:
    """Finite, non-negative rows that sum to one, within what half precision allows."""
    probs = _check_table(probs, name)
    slack = max(PROBS_SLACK, torch.finfo(probs.dtype).eps) if probs.dtype in HALVES else PROBS_SLACK
    total = probs.sum(-1, dtype=torch.float64)
    if (total - 1).abs().max() > slack or probs.min() < 0:
        row = int((((total - 1).abs() > slack) | (probs < 0).any(-1)).nonzero()[0])
        raise ValueError(
            f"{name} must be non-negative rows that sum to 1; row {row} sums to {total[row].item():.6g} "
            f"with least entry {probs[row].min().item():.6g}. {_hint_of_probs(probs, name)}"
        )
    return probs


def _hint_of_probs(probs: Float[Tensor, "n c"], name: str) -> str:
    if _total_of_probs(probs) == 100:
        return "Percent? Divide by 100."
    if probs.min() < -ROUNDED_SLACK or probs.max() > 1 + ROUNDED_SLACK:
        return "Logits? Pass logits.softmax(-1)."
    if probs.min() < 0:
        return f"Below 0 by rounding? Pass {name}.clip(0, 1)."
    return f"Rounded? Pass them as they were computed, or divide each row by its sum, {name} / {name}.sum(-1, keepdims=True)."


def _total_of_probs(table: Float[Tensor, "n c"]) -> int | None:
    """What the rows sum to if they are probabilities, 1, or percent, 100; None for anything else."""
    for total in (1, 100):
        few = table[:: 1 + len(table) // 32]  # settles nearly every case
        if _are_probs(few, total, 0.5) and _are_probs(table, total, 0.95) and table.max() > 0:
            return total
    return None


def _are_probs(table: Float[Tensor, "n c"], total: int, share: float) -> bool:
    """Whether no entry is negative and so many of the rows sum to the total, as far as rounded entries do."""
    if (table < -ROUNDED_SLACK * total).any():
        return False
    sums = table.sum(-1, dtype=torch.float64) / total
    near = (sums - 1).abs() <= ROUNDED_SLACK
    if near.double().mean() >= share:
        return True
    unit = _rounded_to(table[:32] / total)
    reach = unit * table.shape[1] / 2  # what rounding every entry may add up to
    fair = (sums - 1 <= min(reach, 0.25)) & (sums - 1 >= -reach)
    return bool(reach > ROUNDED_SLACK and table.max() <= total and fair.double().mean() >= share)


def _rounded_to(rows: Float[Tensor, "n c"]) -> float:
    """The unit, 0.1 to 0.0001, of which all entries are multiples; 0 if there is none."""
    eps = torch.finfo(rows.dtype).eps
    rows = rows.double()
    for unit in (0.1, 0.01, 1e-3, 1e-4):
        if ((rows / unit).round() * unit - rows).abs().le(eps * rows.abs() + 1e-9).all():
            return unit
    return 0.0


def _one_axis(array: Tensor, name: str) -> Tensor:
    """The array if it has one axis, and a column (n, 1) as what it is."""
    if array.ndim == 2 and array.shape[1] == 1:
        return array[:, 0]
    if array.ndim != 1:
        raise ValueError(f"{name} must have one axis (n,); its shape is {tuple(array.shape)}")
    return array


def _check_table(table: Any, name: str) -> Float[Tensor, "n c"]:
    table = as_tensor(table, name)
    if table.ndim == 1 or (table.ndim == 2 and table.shape[1] == 1):
        raise ValueError(
            f"{name} must have shape (n, c) with c >= 2 classes; it is {tuple(table.shape)}. A binary network with one "
            "logit z? Pass both, np.column_stack([0 * z, z]). One probability p? Pass np.column_stack([1 - p, p])."
        )
    if table.ndim != 2 or table.shape[1] < 2:
        raise ValueError(f"{name} must have shape (n, c) with c >= 2 classes; it is {tuple(table.shape)}")
    return _finite_floats(table, name)


def _finite_floats(values: Tensor, name: str) -> Float[Tensor, "..."]:
    if not len(values):
        raise ValueError(f"{name} is empty; at least one example is needed")
    if not values.is_floating_point():
        _refuse_inexact(values, name)
        return values.double()
    check_finite(values, name)
    return values


def _refuse_inexact(values: Tensor, name: str) -> None:
    """Raise a ValueError if a whole number is so large that float64 would round it, and tie what differs."""
    if values.dtype != torch.int64:
        return
    low, high = torch.aminmax(values)
    if low < -EXACT or high > EXACT:
        where = tuple(((values < -EXACT) | (values > EXACT)).nonzero()[0].tolist())
        raise ValueError(
            f"{name} must be at most 2**53, where float64 is exact; {_place(where)} is {values[where].item()}. "
            f"For a metric that ranks, pass the ranks, np.unique({name}, return_inverse=True)[1]."
        )


def check_hits(confidence: Column, correct: Column) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
    """A confidence an example, and whether each prediction is right, on one device."""
    score = check_confidence(confidence)
    return score, check_mask(correct, rows=len(score), device=score.device)


def check_share_and_hits(confidence: Column, correct: Column) -> tuple[Float[Tensor, " n"], Bool[Tensor, " n"]]:
    """Of a rule that compares the confidence with a share of correct predictions."""
    score = check_share(confidence)
    return score, check_mask(correct, rows=len(score), device=score.device)


def check_weights(weights: Any, rows: int | None = None, device: torch.device | None = None) -> Float[Tensor, " n"]:
    """How much each example counts, float64 on the device: whole numbers as they are, others brought to a mean of one.

    Whole numbers of a sum beyond 2**53 are no counts any more, and go with the others.
    """
    values = check_confidence(weights, "weights")
    check_rows(values, rows, "weights")
    if (values < 0).any():
        row = int((values < 0).nonzero()[0])
        raise ValueError(f"weights must be 0 or larger; row {row} is {values[row].item():.9g}")
    values = values.double()
    largest = values.max()
    if not largest > 0:
        raise ValueError(f"weights must not all be 0; there are {len(values)}, and each leaves its example out")
    if not ((values == values.round()).all() and values.sum() <= EXACT):
        values = values / largest  # whatever their scale, no sum of them overflows or is lost
        values = values * (len(values) / values.sum())
        near = values.round()  # equal weights of 0.1 count once
        values = near if ((values - near).abs() <= 1e-12 * near.clamp(min=1)).all() else values
    return values if device is None else values.to(device)
