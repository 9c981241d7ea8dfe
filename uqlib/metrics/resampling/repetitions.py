"""What is repeated becomes what an interval is about: splits pooled, pairs of networks, whole groups.

level = other_networks(pool_splits(scores))        # first, second, split, draw -> training, draw
cells(as_trainings(scores, "group"))               # an interval for other groups
"""

import math

import numpy as np

from uqlib.base.arrays import Table, as_tensor
from uqlib.base.checks import check_features
from uqlib.base.extras import named
from uqlib.base.options import check_fraction
from uqlib.metrics.resampling.bootstrap import Interval

with named():
    import xarray as xr
    from scipy import stats


def pool_splits(scores: xr.DataArray) -> xr.DataArray:
    """The mean over the splits, and all draws of all splits as draws of it: they spread by the examples and by the split.

    Args:
        scores: of `metrics.compare.compare`, with the dimensions split and draw.
    """
    table = scores.transpose(..., "split", "draw")
    drawn = table.values[..., 1:].reshape(*table.shape[:-2], -1)
    rows = np.concatenate([table.values[..., 0].mean(-1, keepdims=True), drawn], -1)
    names = {dim: table[dim].values for dim in table.dims[:-2]}
    return xr.DataArray(rows, {**names, "draw": range(rows.shape[-1])})


def other_networks(scores: xr.DataArray, *, covers: str = "examples, trainings, networks") -> xr.DataArray:
    """The mean over all ordered pairs, as pseudo-values of the jackknife: their interval is for other networks of the kind.

    Pairs share networks, so they are no repetitions. Leaving one network out leaves out all its pairs; a pseudo-value is
    n times the mean of all less n - 1 times the mean without one.

    Args:
        scores: of the dimensions first and second, both of the same networks, NaN where they are equal; without splits.
        covers: of what units an interval over the networks says how others would come out; "examples, trainings" where they are
            trainings of one network.

    Returns:
        The dimension training in their place, an entry a network. The coordinate `covers` stays with whatever is computed from
        it, so that tables, facts and records say the same of it; see `metrics.compare.intervals`.

    Source:
        Arvesen 1969, Annals of Mathematical Statistics 40(6), 2076-2100.
    """
    names, both = list(scores["first"].values), ("first", "second")
    whole, n = scores.mean(both), len(names)
    without = [scores.drop_sel(first=each, second=each).mean(both) for each in names]
    found = xr.concat([n * whole - (n - 1) * each for each in without], "training")
    return found.assign_coords(training=range(n), covers=covers)


def as_trainings(scores: xr.DataArray, dim: str) -> xr.DataArray:
    """Units such as groups or networks as repetitions: what `intervals` takes as trainings, for other units of the kind.

    A mean over trainings that there may be already is the caller's: units are drawn, and these are not.

    Args:
        scores: with the dimension dim.
        dim: of the units.
    """
    found = scores.rename({dim: "training"}).assign_coords(training=range(scores.sizes[dim]))
    return found if "draw" in found.dims else found.expand_dims(draw=1)


def spread_over_errors(estimates: Table, errors: Table, *, drawn: float = 0.0) -> list[Interval]:
    """How far m estimates spread over k samples, beside the standard errors that they report: 1 if these are right.

    Samples without an error, as at a bound, do not count. The interval is that of normal estimates, whose variance is
    chi-squared with as many degrees of freedom as there are samples, less one.

    Args:
        estimates, errors: (k, m).
        drawn: share of all examples in a sample, in [0, 1); samples without replacement spread less, by sqrt(1 - drawn).

    Raises:
        ValueError: if the shapes differ, an estimate with an error is not finite, or fewer than two samples have errors.
    """
    drawn = check_fraction(drawn, "drawn", within="[0, 1)")
    table, own = as_tensor(estimates, "estimates").double(), as_tensor(errors, "errors").double()
    if table.ndim != 2 or own.shape != table.shape:
        raise ValueError(
            f"estimates and errors must have one shape (k, m); they have {tuple(table.shape)} and {tuple(own.shape)}"
        )
    known = own.isfinite().all(1)
    free = int(known.sum()) - 1
    if free < 1:
        raise ValueError(f"a spread needs two samples whose errors are finite; there are {free + 1} of {len(own)}")
    check_features(table[known], "estimates")
    ratio = table[known].std(0) / own[known].square().mean(0).sqrt() / math.sqrt(1 - drawn)
    low, high = (math.sqrt(free / stats.chi2.ppf(p, free)) for p in (0.975, 0.025))
    return [Interval(each, low * each, high * each, 0.95, free + 1) for each in ratio.tolist()]
