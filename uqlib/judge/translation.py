"""What another library would print for these rows, and what its number is here.

    translate("AURC", confidence, correct, of="torch-uncertainty")   # from the rows: its own rule, exactly
    convert(0.021, "AURC", of="torch-uncertainty", n=10_000, first=0, error=0.06)  # from the number: here it is aurc

The rules are in `CONVENTIONS`, one a library and metric, with the versions that were read and run.
"""

import math

from uqlib.base.arrays import Column
from uqlib.base.checks import check_confidence, check_mask
from uqlib.base.options import check_choice, check_fraction, check_number, check_whole
from uqlib.judge.conventions import CONVENTIONS, VERSIONS, Convention

HERE = "uqlib"
DETECTION = ("AUROC", "AUPR", "FPR95")


def translate(metric: str, confidence: Column, correct: Column, *, of: str, bins: int = 15) -> float:
    """The number that a library gives for these rows, computed here by its own rule.

    Equal to the library's up to the rounding of its sums, which are float32 in torchmetrics and torch-uncertainty.
    `CONVENTIONS` says how each rule differs from the function of uqlib, and where the library leaves ties as its sort
    does: this keeps the order of the rows there, and an unstable sort may keep another.

    Args:
        metric: as the library calls it, such as "ECE" or "FPR95".
        confidence: (n,) for calibration and selective prediction; for AUROC, AUPR and FPR95 the score, higher = more
            likely positive.
        correct: (n,) whether each prediction is correct; for AUROC, AUPR and FPR95 whether the row is positive.
        of: the library.
        bins: of a binned metric, the number that is asked of the library. Defaults differ between libraries.

    Returns:
        NaN where the library gives NaN.

    Raises:
        ValueError: if the library or its metric is unknown, or a confidence is not finite, or the metric is binned
            and one lies outside [0, 1]; for AUROC, AUPR and FPR95 if one class is missing, where some libraries give 0.

    Examples:
        >>> from uqlib.judge import translate
        >>> confidence, correct = [0.9, 0.8, 0.8, 0.6], [True, False, True, True]
        >>> round(translate("AURC", confidence, correct, of="torch-uncertainty"), 3)
        0.319
        >>> round(translate("AURC", confidence, correct, of="fd-shifts"), 2)  # 1000 times, and from coverage 0
        156.25
    """
    row = _look_up(metric, of)
    score = check_confidence(confidence)
    mask = check_mask(correct, rows=len(score), device=score.device)
    if "bin" in row.differs and not bool(((score >= 0) & (score <= 1)).all()):
        raise ValueError(
            f"confidence must lie in [0, 1] for {row.metric}; it reaches from {score.min()} to {score.max()}"
        )
    if row.metric.startswith(DETECTION) and len(mask.unique()) < 2:
        raise ValueError(f"{row.metric} needs both classes; correct is {bool(mask[0])} in every row")
    score = score if score.element_size() > 2 else score.float()  # half precision is exact in float32
    return row.rule(score, mask, check_whole(bins, "bins", least=1))


def convert(
    value: float,
    metric: str,
    *,
    of: str,
    to: str = HERE,
    n: int | None = None,
    error: float | None = None,
    first: float | None = None,
) -> float:
    """A number alone, from the convention of one library to that of another; refused where that cannot be exact.

    A trapezoid and a mean of the same curve differ by its ends, so n, the error rate of all rows and that of the most
    confident row make one of the other. Other differences are in the rows themselves: where a bin begins, or what an
    unweighted mean leaves out. Then translate gives the number, from the rows. Exact if no two confidences are equal.

    Args:
        value: what the library printed.
        metric: as the library calls it.
        of: the library that printed it, or "uqlib".
        to: the library whose number is wanted, by default "uqlib".
        n: how many rows.
        error: the error rate of all of them.
        first: the error of the most confident row, 0 or 1.

    Raises:
        ValueError: if a library or metric is unknown, the number alone does not determine the other, or a fact that
            it takes is missing.

    Examples:
        >>> from uqlib.judge import convert
        >>> round(convert(0.3194, "AURC", of="torch-uncertainty", n=4, error=0.25, first=0), 3)
        0.271
    """
    value = check_number(value, "value")
    facts = {
        "n": None if n is None else check_whole(n, "n", least=1),
        "error": None if error is None else check_fraction(error, "error"),
        "first": None if first is None else check_fraction(first, "first"),
    }
    for library, back in ((of, False), (to, True)):
        if library == HERE:
            continue
        scale, shift = _line(_look_up(metric, library), facts)
        value = (value - shift) / scale if back else scale * value + shift
    return value


def _look_up(metric: str, library: str) -> Convention:
    rows = {row.metric: row for row in CONVENTIONS if row.library == check_choice(library, VERSIONS, "library")}
    return rows[check_choice(metric, rows, f"metric of {library}")]


def _line(row: Convention, facts: dict[str, float | int | None]) -> tuple[float, float]:
    if row.line is None:
        raise ValueError(
            f"{row.metric} of {row.library} cannot be converted from the number alone: {row.differs}. "
            f'Pass the rows: translate("{row.metric}", confidence, correct, of="{row.library}") gives its number, '
            f"and {row.ours} ours."
        )
    if missing := [name for name in row.facts if facts[name] is None]:
        raise ValueError(
            f"{row.metric} of {row.library} needs {', '.join(missing)} beside the value; pass them by name"
        )
    scale, shift = row.line({name: float(facts[name] or 0) for name in row.facts})
    if not math.isfinite(scale) or scale == 0:
        raise ValueError(f"n must be at least 2 for {row.metric} of {row.library}; it is {facts['n']}")
    return scale, shift
