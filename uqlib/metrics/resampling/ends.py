"""Where intervals end, of one cell or of a whole table at once: percentiles of draws, or Student's where they are few."""

import numpy as np

from uqlib.base.extras import named


def are_few(draws: int, level: float) -> bool:
    """Whether none of so many draws is expected beyond an end of the interval: fewer than 40 at 95 %."""
    return draws * (1 - level) / 2 < 1


def ends_of_draws(value: np.ndarray, draws: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the intervals of values from their draws.

    Where so few draws are that none is expected beyond an end, fewer than 40 at 95 %, their percentiles would be too near:
    Student's interval for one more draw around the value takes their place, as wide as so few can know. One draw gives none.

    Args:
        value: float (...), on all examples.
        draws: float (..., draws), of each.
        level: probability of the interval, in (0, 1).

    Returns:
        Low and high ends, (...); NaN where there are none.
    """
    tail, count = (1 - level) / 2, draws.shape[-1]
    if not are_few(count, level):
        low, high = np.quantile(draws, (tail, 1 - tail), axis=-1)
        return np.asarray(low), np.asarray(high)
    reach = np.full(np.shape(value), np.nan)
    if count > 1:
        reach = _student(1 - tail, count - 1) * draws.std(-1, ddof=1) * np.sqrt(1 + 1 / count)
    return np.asarray(value - reach), np.asarray(value + reach)


def reach_over_trainings(values: np.ndarray, draws: np.ndarray, level: float) -> np.ndarray:
    """Half the width of the interval of the mean over trainings, as `compare.interval_over_trainings` says.

    Args:
        values: float (..., trainings), on all examples.
        draws: float (..., trainings, draws), on the same draws of them for all; there may be none.
        level: probability of the interval, in (0, 1).

    Returns:
        (...); NaN where there is no interval.
    """
    count, drawn = values.shape[-1], draws.shape[-1]
    if drawn == 1 or (count < 2 and not drawn):
        return np.full(values.shape[:-1], np.nan)
    images = np.asarray(draws.mean(-2).var(-1, ddof=1) if drawn else np.zeros(values.shape[:-1]))
    trainings = values.var(-1, ddof=1) / count if count > 1 else np.zeros_like(images)
    lost = trainings**2 / max(count - 1, 1)
    if drawn and are_few(drawn, level):
        lost = lost + images**2 / (drawn - 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        freedom = np.where(lost > 0, (images + trainings) ** 2 / lost, np.inf)
    return np.asarray(_student((1 + level) / 2, freedom) * np.sqrt(images + trainings))


def _student(probability: float, freedom: np.ndarray | int) -> np.ndarray:
    with named():
        from scipy import stats
    return np.asarray(stats.t.ppf(probability, freedom))
