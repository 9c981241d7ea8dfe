"""What is repeated becomes what an interval is about: splits pooled, pairs of networks, whole groups.

level = other_networks(pool_splits(scores))        # first, second, split, draw -> training, draw
cells(as_trainings(scores, "group"))               # an interval for other groups
"""

import numpy as np

from uqlib.base.extras import named

with named():
    import xarray as xr


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
