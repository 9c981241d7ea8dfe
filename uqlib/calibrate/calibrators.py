"""Post-hoc calibrators under one interface: fitted by name on held-out examples, then a map from logits to probabilities.

    calibrator = fit_calibrator("dirichlet", logits, labels, strength=1e-3)
    probs = calibrator.probs(others)

Which is best depends on how many examples there are: a temperature is one number, a Dirichlet matrix c² + c.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uqlib.base.arrays import Array, Column, Table, as_tensor, like
from uqlib.base.checks import check_confidence, check_labels, check_logits, check_row_constant, check_share
from uqlib.base.options import check_choice, check_number, check_whole
from uqlib.base.splits import uniform_numbers
from uqlib.calibrate.maps import (
    MapFit,
    fit_beta,
    fit_dirichlet,
    fit_histogram,
    fit_isotonic,
    fit_platt,
    fit_vector,
    map_by_beta,
    map_by_dirichlet,
    map_by_histogram,
    map_by_isotonic,
    map_by_platt,
    map_by_vector,
    one_vs_rest,
)
from uqlib.calibrate.temperature import fit_class_temperatures, fit_temperature

GIVEN = ("logits", "logit", "prob")


@dataclass(frozen=True)
class Calibrator:
    """A fitted map from what a network says to probabilities, and how well its parameters are known to be the best.

    temperature: "temperature". class_temperatures: "temperature" (c,). vector: "factor" and "bias" (c,), the biases with
    sum zero. dirichlet: "matrix" (c, c) and "bias" (c,). platt: "slope" and "shift"; beta: "a", "b", "c"; one a class, or
    of two classes that of the second. isotonic: corners "probs" and "values"; histogram: "upper" ends and "values" of the
    bins; a list of columns, one a class, or of two classes that of the second.
    """

    name: str
    given: str
    classes: int
    parameters: dict[str, Any]
    nll: float  # of the calibrated probabilities on the examples of the fit, mean, nats
    residual: float  # largest entry of the gradient of what was minimised; NaN for isotonic and histogram
    gap: float  # how far what was minimised lies above its minimum, to second order, nats; NaN for isotonic and histogram

    def probs(self, logits: Table) -> Float[Array, "n ..."]:
        """Calibrated probabilities of other examples, float64: (n, c); of one column that of class 1, (n,).

        Raises:
            ValueError: if these are not what the fit was given, or have another number of classes.
        """
        table = _check_given(logits, self.given)
        if table.shape[1] != self.classes:
            raise ValueError(f"logits must have the {self.classes} classes of the fit; they have {table.shape[1]}")
        parameters = {name: _on(value, table.device) for name, value in self.parameters.items()}
        return like(_column(_apply(self.name, table, parameters), self.given), logits)


def fit_calibrator(
    name: str,
    logits: Table,
    labels: Column,
    *,
    given: str = "logits",
    strength: float = 1e-3,
    bins: int = 15,
    by: str = "mass",
) -> Calibrator:
    """The calibrator of that name in CALIBRATORS, fitted on these examples, which should be held out from training.

    temperature, class_temperatures, vector and dirichlet minimise the NLL of a softmax over scaled logits; dirichlet with
    a penalty. platt, beta, isotonic and histogram map the probability of each class against the rest, and divide what
    comes out by its sum: the first two minimise the binary NLL of each class (residual and gap are those of the worst
    class), isotonic its squared error. Of two classes one is mapped, the other is the complement.
    dirichlet: seconds for 10^4 x 100. Where it has more than 600 parameters, and vector likewise, the gap comes from
    conjugate gradients and ends below 1e-10.

    Args:
        name: "temperature", "class_temperatures", "vector", "dirichlet", "platt", "beta", "isotonic" or "histogram".
        logits: (n, c), before the softmax; or a column (n,), as `given` says.
        labels: (n,), classes in [0, c).
        given: "logits"; for a binary network "logit", the log odds of class 1 (n,), or "prob", its probability (n,),
            whose odds are cut off at 1e7 to 1. A column has no class_temperatures and no vector: their one factor is
            that of platt.
        strength: of dirichlet's penalty: times the mean square of the off-diagonal entries and that of the biases. With 0
            the matrix is known up to a vector that is added to all its rows.
        bins: of histogram.
        by: bins of histogram of equal "mass", as in its paper, or equal "width".

    Raises:
        ValueError: if the name or an option is unknown; if a class has no label (but for temperature); if no parameters are
            the best, since some separate the classes; if logits are not finite or are probabilities, or have lost the
            constant of each row for class_temperatures and vector, which see it; if a label is outside [0, c).

    Source:
        Guo et al. 2017 (arXiv:1706.04599): temperature and vector; Kull et al. 2019 (arXiv:1910.12656): dirichlet with ODIR,
        whose two strengths are one here; Platt 1999; Kull, Silva Filho & Flach 2017, Beta calibration (AISTATS); Zadrozny &
        Elkan 2002, Transforming classifier scores: isotonic, one against the rest; Zadrozny & Elkan 2001, Obtaining
        calibrated probability estimates: histogram.

    Examples:
        >>> from uqlib.calibrate import fit_calibrator
        >>> fit = fit_calibrator('platt', [2.0, 2.0, 2.0, 2.0, -2.0, -2.0], [1, 1, 1, 0, 0, 1], given='logit')
        >>> fit.probs([2.0, -2.0]).round(3)  # right in 3 of 4, and in 1 of 2
        array([0.75, 0.5 ])
    """
    name, given = check_choice(name, CALIBRATORS, "calibrator"), check_choice(given, GIVEN, "given")
    strength, bins = check_number(strength, "strength", least=0), check_whole(bins, "bins", least=1)
    by = check_choice(by, ("mass", "width"), "by")
    table = _check_given(logits, given)
    labels = check_labels(labels, table.shape[1], rows=len(table), device=table.device)
    if name in ("class_temperatures", "vector"):
        if given != "logits":
            raise ValueError(
                f"{name} needs logits (n, c); of one column, given={given!r}, platt fits a slope and a shift"
            )
        check_row_constant(table)
    if name != "temperature":
        _refuse_missing_class(labels, table.shape[1], name)
    fit = CALIBRATORS[name](table, labels, strength, bins, by)
    own = _apply(name, table, fit.parameters).gather(1, labels[:, None])
    parameters = {key: _kind(value, logits) for key, value in fit.parameters.items()}
    return Calibrator(name, given, table.shape[1], parameters, -own.log().mean().item(), fit.residual, fit.gap)


def cross_calibrate(
    name: str,
    logits: Table,
    labels: Column,
    *,
    folds: int = 5,
    seed: int = 0,
    cluster: Column | None = None,
    **options: Any,
) -> Float[Array, "n ..."]:
    """Calibrated probabilities of every example, from a fit on the folds that it is not in.

    So metrics and intervals can be taken over all examples. Each fold holds its share of every class, to one example.

    Args:
        name: in CALIBRATORS.
        logits: (n, c); or a column, as the option `given` says.
        labels: (n,), classes in [0, c).
        folds: how many, 2 or more.
        seed: of the draw of folds, the same on every machine.
        cluster: (n,) whole numbers; examples with one number, such as frames of one video, go to one fold. Folds then have
            equal sizes as far as clusters allow, and no equal share of each class.
        **options: of fit_calibrator.

    Returns:
        (n, c), float64; of one column that of class 1, (n,).

    Raises:
        ValueError: as fit_calibrator, with the number of the fold that is left out; if there are more folds than examples
            or clusters.

    Source:
        Platt 1999, section 2.1, for fits across folds; Kull et al. 2019 (arXiv:1910.12656) for calibrators.

    Examples:
        >>> import numpy as np
        >>> from uqlib.calibrate import cross_calibrate
        >>> logits, labels = np.tile([[3.0, 0.0], [0.0, 3.0]], (20, 1)), np.tile([0, 1, 0, 1, 0, 1, 1, 0], 5)
        >>> cross_calibrate('temperature', logits, labels, folds=4).shape
        (40, 2)
    """
    check_choice(name, CALIBRATORS, "calibrator")
    given = check_choice(options.get("given", "logits"), GIVEN, "given")
    folds = check_whole(folds, "folds", least=2)
    table = _check_given(logits, given)
    known = check_labels(labels, table.shape[1], rows=len(table), device=table.device)
    if cluster is None:
        fold = _stratified_folds(known.cpu().numpy(), folds, seed)
    else:
        numbers = check_labels(cluster, None, rows=len(table), name="cluster")
        fold = _folds_of_clusters(numbers.cpu().numpy(), folds, seed)
    rows = as_tensor(logits, "logits")
    rows = rows[:, 0] if given != "logits" and rows.ndim == 2 else rows
    mapped = torch.zeros(rows.shape, dtype=torch.float64, device=rows.device)
    for k in range(folds):
        held = torch.as_tensor(fold == k, device=rows.device)
        try:
            calibrator = fit_calibrator(name, rows[~held], known[~held], **options)
        except ValueError as error:
            raise ValueError(f"fold {k} left out, of {folds}: {error}") from None
        mapped[held] = as_tensor(calibrator.probs(rows[held]))
    return like(mapped, logits)


def _stratified_folds(labels: Int[np.ndarray, " n"], folds: int, seed: int) -> Int[np.ndarray, " n"]:
    """Examples in order of class, drawn within it, are dealt out in turn."""
    if folds > len(labels):
        raise ValueError(f"folds must be at most the {len(labels)} examples; it is {folds}")
    fold = np.empty(len(labels), np.int64)
    fold[np.lexsort((uniform_numbers(len(labels), seed=seed), labels))] = np.arange(len(labels)) % folds
    return fold


def _folds_of_clusters(cluster: Int[np.ndarray, " n"], folds: int, seed: int) -> Int[np.ndarray, " n"]:
    """Clusters, the largest first and drawn among equals, go to the fold with the fewest examples."""
    _, place, sizes = np.unique(cluster, return_inverse=True, return_counts=True)
    if folds > len(sizes):
        raise ValueError(f"folds must be at most the {len(sizes)} clusters; it is {folds}")
    filled, fold = np.zeros(folds, np.int64), np.empty(len(sizes), np.int64)
    for each in np.lexsort((uniform_numbers(len(sizes), seed=seed), -sizes)):
        fold[each] = filled.argmin()
        filled[fold[each]] += sizes[each]
    return fold[place]


# What the names mean


def _temperature(table: Tensor, labels: Tensor, strength: float, bins: int, by: str) -> MapFit:
    fit = fit_temperature(table, labels)
    return MapFit({"temperature": fit.temperature}, abs(fit.gradient), fit.gap)


def _class_temperatures(table: Tensor, labels: Tensor, strength: float, bins: int, by: str) -> MapFit:
    fit = fit_class_temperatures(table, labels)
    return MapFit({"temperature": fit.temperature}, fit.residual, fit.gap)


Fit = Callable[[Float[Tensor, "n c"], Int[Tensor, " n"], float, int, str], MapFit]

CALIBRATORS: dict[str, Fit] = {
    "temperature": _temperature,
    "class_temperatures": _class_temperatures,
    "vector": lambda table, labels, strength, bins, by: fit_vector(table, labels),
    "dirichlet": lambda table, labels, strength, bins, by: fit_dirichlet(table, labels, strength),
    "platt": lambda table, labels, strength, bins, by: fit_platt(one_vs_rest(table), labels),
    "beta": lambda table, labels, strength, bins, by: fit_beta(one_vs_rest(table), labels),
    "isotonic": lambda table, labels, strength, bins, by: fit_isotonic(one_vs_rest(table), labels),
    "histogram": lambda table, labels, strength, bins, by: fit_histogram(one_vs_rest(table), labels, bins, by),
}

Map = Callable[..., Tensor]
LINEAR: dict[str, Map] = {"vector": map_by_vector, "dirichlet": map_by_dirichlet}
BY_CLASS: dict[str, Map] = {
    "platt": map_by_platt,
    "beta": map_by_beta,
    "isotonic": map_by_isotonic,
    "histogram": map_by_histogram,
}


def _apply(name: str, table: Float[Tensor, "n c"], parameters: dict[str, Any]) -> Float[Tensor, "n c"]:
    """Calibrated probabilities, float64."""
    if name in BY_CLASS:
        return BY_CLASS[name](one_vs_rest(table), **parameters)
    if name in LINEAR:
        return LINEAR[name](table, **parameters)
    scaled: Tensor = table.double() / parameters["temperature"]
    return scaled.softmax(-1)


def _check_given(logits: Any, given: str) -> Float[Tensor, "n c"]:
    """A table of logits, of one column that of its two classes."""
    if given == "logits":
        return check_logits(logits)
    if given == "prob":
        odds = torch.special.logit(check_share(logits, "logits").double(), eps=1e-7)
    else:
        odds = check_confidence(logits, "logits")
        if odds.min() >= 0 and odds.max() <= 1:
            raise ValueError(
                "logits look like probabilities: none is outside [0, 1]. Of probabilities of class 1 pass given='prob'."
            )
    return torch.stack([torch.zeros_like(odds), odds], 1)


def _refuse_missing_class(labels: Int[Tensor, " n"], classes: int, name: str) -> None:
    missing: Bool[Tensor, " c"] = torch.bincount(labels, minlength=classes) == 0
    if missing.any():
        raise ValueError(
            f"every class needs a label for {name}; labels has none of {int(missing.sum())} classes, the first is "
            f"{int(missing.nonzero()[0])}. Fit on more examples, or fit one temperature."
        )


def _column(probs: Float[Tensor, "n c"], given: str) -> Tensor:
    return probs if given == "logits" else probs[:, 1]


def _kind(value: Any, given: Any) -> Any:
    """Arrays in the kind that the user gave."""
    if isinstance(value, list):
        return [like(each, given) for each in value]
    return like(value, given) if isinstance(value, Tensor) else value


def _on(value: Any, device: torch.device) -> Any:
    """Arrays as tensors on the device."""
    if isinstance(value, list):
        return [as_tensor(each).to(device) for each in value]
    return value if isinstance(value, float) else as_tensor(value).to(device)
