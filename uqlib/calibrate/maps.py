"""Calibration maps of many numbers: linear maps of logits under a softmax, and maps of the probability of each class.

The linear ones, vector scaling and Dirichlet calibration, minimise the NLL, which is convex in their parameters. Up to
DENSE parameters Newton's method finds the minimum to rounding; beyond, Newton's steps are solved by conjugate gradients.
The maps of one class, one against the rest, are Platt's, the beta map, isotonic regression and the histogram.
"""

import math
from itertools import combinations
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from uqlib.base.arrays import by_rows
from uqlib.base.extras import named
from uqlib.solve.newton import Minimum, NoMinimum, minimize

DENSE = 600  # parameters up to which the Hessian is written out
CHUNK = 2**20  # numbers of a design in a chunk, 8 MiB in float64
REACHED = 1e-10  # a gap, in nats, at which the steps by conjugate gradients end


class MapFit(NamedTuple):
    """Parameters of a map by name, and how well they are known to be the best."""

    parameters: dict[str, Any]
    residual: float  # largest entry of the gradient of what is minimised; NaN where nothing is
    gap: float  # how far that lies above its minimum, to second order; NaN where nothing is


class Design(NamedTuple):
    """Scores that are linear in a table (c, d) of parameters: of one column of a row alone, or of the whole row."""

    features: Float[Tensor, "n k"]  # with the ones of the bias behind them where shared
    shared: bool  # whether each class sees the whole row

    def scores(self, point: Float[Tensor, "c d"]) -> Float[Tensor, "n c"]:
        return self.features @ point.T if self.shared else self.features * point[:, 0] + point[:, 1]

    def pull(self, rows: Float[Tensor, "n c"]) -> Float[Tensor, "c d"]:
        """The transpose of scores."""
        if self.shared:
            return rows.T @ self.features
        return torch.stack([(rows * self.features).sum(0), rows.sum(0)], 1)

    def each(self) -> Float[Tensor, "n c d"]:
        """What each class sees, in full; the axis of classes has length 1 where all see the same."""
        if self.shared:
            return self.features[:, None]
        return torch.stack([self.features, torch.ones_like(self.features)], -1)


class Penalty(NamedTuple):
    """A sum of weight times square."""

    weights: Float[Tensor, "c d"]

    def value(self, point: Float[Tensor, "c d"]) -> float:
        return (self.weights * point.square()).sum().item()


# Linear maps


def fit_vector(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> MapFit:
    """A factor and a bias a class with the lowest NLL; the biases sum to zero."""
    features, classes = logits.double(), logits.shape[1]
    start = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat(classes, 1)
    fit, point = _fit_linear(Design(features, False), labels, start, Penalty(torch.zeros_like(start)))
    factor, bias = point.unbind(1)
    return MapFit({"factor": factor, "bias": bias - bias.mean()}, fit[0], fit[1])


def map_by_vector(logits: Float[Tensor, "n c"], factor: Float[Tensor, " c"], bias: Float[Tensor, " c"]) -> Tensor:
    """softmax(factor z + bias)."""
    return (logits.double() * factor + bias).softmax(-1)


def fit_dirichlet(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], strength: float) -> MapFit:
    """The matrix and bias of log probabilities with the lowest NLL, off-diagonal and bias penalised (ODIR)."""
    features = logits.double().log_softmax(-1)
    rows, classes = features.shape
    start = torch.eye(classes, classes + 1, dtype=torch.float64)
    weights = torch.full_like(start, strength / (classes * (classes - 1)))
    weights.fill_diagonal_(0)
    weights[:, -1] = strength / classes
    design = Design(torch.cat([features, features.new_ones(rows, 1)], 1), True)
    fit, point = _fit_linear(design, labels, start, Penalty(weights))
    return MapFit({"matrix": point[:, :-1], "bias": point[:, -1]}, fit[0], fit[1])


def map_by_dirichlet(logits: Float[Tensor, "n c"], matrix: Float[Tensor, "c c"], bias: Float[Tensor, " c"]) -> Tensor:
    """softmax(matrix ln p + bias)."""
    return (logits.double().log_softmax(-1) @ matrix.T + bias).softmax(-1)


def _fit_linear(
    design: Design, labels: Int[Tensor, " n"], start: Float[Tensor, "c d"], penalty: Penalty
) -> tuple[tuple[float, float], Float[Tensor, "c d"]]:
    """Residual and gap, and the point, on the device of the design."""
    device = design.features.device
    penalty = Penalty(penalty.weights.to(device))
    if start.numel() > DENSE:
        return _minimize_by_products(design, labels, start.to(device), penalty)

    def objective(flat: Tensor) -> tuple[float, Tensor, Tensor]:
        return _derivatives(design, labels, flat.view_as(start).to(device), penalty)

    try:
        fit = minimize(objective, start.flatten(), lower=-math.inf)
    except NoMinimum:
        raise _separated(len(labels), start.numel()) from None
    return (fit.residual, fit.gap), fit.point.view_as(start).to(device)


def _separated(rows: int, parameters: int) -> ValueError:
    return ValueError(
        f"no best map is there: the NLL of these {rows} labels falls for ever as some of {parameters} parameters grow. Fit "
        "on more examples, or on a map of fewer parameters, such as one temperature."
    )


def _derivatives(
    design: Design, labels: Int[Tensor, " n"], point: Float[Tensor, "c d"], penalty: Penalty
) -> tuple[float, Float[Tensor, " k"], Float[Tensor, "k k"]]:
    """Value, gradient and Hessian of the mean NLL and the penalty, on the CPU."""
    (classes, width), count = point.shape, len(labels)
    value, gradient = 0.0, torch.zeros_like(point)
    hessian = torch.zeros(2 * (point.numel(),), dtype=torch.float64, device=point.device)
    blocks = torch.zeros(classes, width, width, dtype=torch.float64, device=point.device)
    for features, label in by_rows(CHUNK // point.numel(), design.features, labels):
        part = design._replace(features=features)
        log_probs = part.scores(point).log_softmax(-1)
        value -= log_probs.gather(1, label[:, None]).sum().item()
        probs = log_probs.exp()
        seen = part.each()
        expected = probs[..., None] * seen
        blocks += torch.einsum("nja,njb->jab", expected, seen.expand_as(expected))
        flat = expected.flatten(1)
        hessian.addmm_(flat.T, flat, alpha=-1)
        gradient += part.pull(_less_labels(probs, label))
    for j, block in enumerate(blocks):
        place = slice(j * width, (j + 1) * width)
        hessian[place, place] += block
    gradient, hessian = gradient / count + 2 * penalty.weights * point, hessian / count
    hessian.diagonal().add_(2 * penalty.weights.flatten())
    return value / count + penalty.value(point), gradient.flatten().cpu(), hessian.cpu()


def _less_labels(probs: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> Float[Tensor, "n c"]:
    """Probabilities less the one of the label."""
    return probs.scatter_add(1, labels[:, None], -torch.ones_like(probs[:, :1]))


def _minimize_by_products(
    design: Design, labels: Int[Tensor, " n"], point: Float[Tensor, "c d"], penalty: Penalty
) -> tuple[tuple[float, float], Float[Tensor, "c d"]]:
    """Newton's method that never writes the Hessian out: each step is solved by conjugate gradients, scaled by the diagonal."""
    count = len(labels)

    def nll(at: Tensor) -> tuple[float, Tensor]:
        log_probs = design.scores(at).log_softmax(-1)
        return -log_probs.gather(1, labels[:, None]).mean().item() + penalty.value(at), log_probs

    (value, log_probs), previous = nll(point), math.inf
    for _ in range(100):
        probs = log_probs.exp()
        gradient = design.pull(_less_labels(probs, labels)) / count + 2 * penalty.weights * point
        step = _solve(design, probs, penalty, gradient)
        slope = (gradient * step).sum().item()
        length = step.abs().max().item()
        if -slope / 2 <= REACHED:
            if length > 0.5 * previous and length > 1e-3:
                break  # near the minimum steps shrink; these lead to infinity
            return (gradient.abs().max().item(), -slope / 2), point
        for halvings in range(30):
            trial = point + 0.5**halvings * step
            new_value, new_log_probs = nll(trial)
            if new_value <= value + 1e-4 * 0.5**halvings * slope:
                break
        point, value, log_probs, previous = trial, new_value, new_log_probs, length
    raise _separated(count, point.numel())


def _solve(
    design: Design, probs: Float[Tensor, "n c"], penalty: Penalty, gradient: Float[Tensor, "c d"]
) -> Float[Tensor, "c d"]:
    """Hessian^-1 (-gradient) by conjugate gradients, scaled by the diagonal."""
    spread = probs * (1 - probs) / len(probs)
    squared = design._replace(features=design.features.square())
    scale = (squared.pull(spread) + 2 * penalty.weights).clamp(min=1e-12)
    step, residual = torch.zeros_like(gradient), -gradient
    scaled = residual / scale
    way, energy = scaled, (residual * scaled).sum()
    wanted = energy * min(1e-2, energy.sqrt().item())
    for _ in range(250):
        rows = design.scores(way)
        rows = probs * (rows - (probs * rows).sum(-1, keepdim=True))
        product = design.pull(rows) / len(probs) + 2 * penalty.weights * way
        length = energy / (way * product).sum()
        if not length.isfinite() or energy == 0:
            break
        step, residual = step + length * way, residual - length * product
        scaled = residual / scale
        energy, last = (residual * scaled).sum(), energy
        if energy <= wanted:
            break
        way = scaled + energy / last * way
    return step


# Maps of one class against the rest


class OneVsRest(NamedTuple):
    """The probability of each class with its logarithm and that of its complement; of two classes that of the second."""

    probs: Float[Tensor, "n m"]
    log_probs: Float[Tensor, "n m"]
    log_rest: Float[Tensor, "n m"]


def one_vs_rest(logits: Float[Tensor, "n c"]) -> OneVsRest:
    """From logits, without the rounding of 1 - p near 1."""
    log_probs = logits.double().log_softmax(-1)
    probs = log_probs.exp()
    log_rest = torch.log1p(-probs.clamp(max=0.5))
    top = log_probs.argmax(-1, keepdim=True)
    log_rest.scatter_(1, top, log_probs.scatter(1, top, -math.inf).logsumexp(-1, keepdim=True))
    first = 1 if logits.shape[1] == 2 else 0
    return OneVsRest(probs[:, first:], log_probs[:, first:], log_rest[:, first:])


def join(probs: Float[Tensor, "n m"]) -> Float[Tensor, "n c"]:
    """Probabilities of all classes: the complement of one, or several divided by their sum; equal shares if all are 0."""
    if probs.shape[1] == 1:
        return torch.cat([1 - probs, probs], 1)
    total = probs.sum(-1, keepdim=True)
    return torch.where(total > 0, probs / total, 1 / probs.shape[1])


def _columns(scores: OneVsRest, labels: Int[Tensor, " n"]) -> list[tuple[int, Bool[Tensor, " n"]]]:
    """Number of each column and whether each label is of its class."""
    only = scores.probs.shape[1] == 1
    return [(j, labels == j + only) for j in range(scores.probs.shape[1])]


def fit_platt(scores: OneVsRest, labels: Int[Tensor, " n"]) -> MapFit:
    """A slope and a shift of the log odds of each class."""
    odds = scores.log_probs - scores.log_rest
    fits = [_fit_logistic(odds[:, j : j + 1], hit, j) for j, hit in _columns(scores, labels)]
    points = torch.stack([fit.point for fit in fits]).to(odds.device)
    return MapFit({"slope": points[:, 0], "shift": points[:, 1]}, *_worst(fits))


def map_by_platt(scores: OneVsRest, slope: Float[Tensor, " m"], shift: Float[Tensor, " m"]) -> Tensor:
    """sigmoid(slope log odds + shift), joined."""
    return join((slope * (scores.log_probs - scores.log_rest) + shift).sigmoid())


def fit_beta(scores: OneVsRest, labels: Int[Tensor, " n"]) -> MapFit:
    """Log odds a ln p - b ln(1 - p) + c with a, b >= 0 for each class."""
    points, fits = [], []
    for j, hit in _columns(scores, labels):
        columns = torch.stack([scores.log_probs[:, j], -scores.log_rest[:, j]], 1)
        point, fit = _fit_beta_column(columns, hit, j)
        points.append(point)
        fits.append(fit)
    table = torch.stack(points).to(scores.probs.device)
    return MapFit(dict(zip("abc", table.unbind(1), strict=True)), *_worst(fits))


def _fit_beta_column(
    columns: Float[Tensor, "n 2"], hit: Bool[Tensor, " n"], j: int
) -> tuple[Float[Tensor, " 3"], Minimum]:
    """The best of those fits without some columns whose slopes are none below 0: one of them is the constrained one."""
    found = []
    for kept in [list(each) for size in (2, 1, 0) for each in combinations(range(2), size)]:
        fit = _fit_logistic(columns[:, kept], hit, j)
        if (fit.point[:-1] >= 0).all():
            point = torch.zeros(3, dtype=torch.float64)
            point[[*kept, 2]] = fit.point
            found.append((fit.value, point, fit))
            if len(kept) == 2:
                break
    _, point, fit = min(found, key=lambda each: each[0])
    return point, fit


def map_by_beta(scores: OneVsRest, a: Float[Tensor, " m"], b: Float[Tensor, " m"], c: Float[Tensor, " m"]) -> Tensor:
    """sigmoid(a ln p - b ln(1 - p) + c), joined."""
    return join((a * scores.log_probs - b * scores.log_rest + c).sigmoid())


def _fit_logistic(columns: Float[Tensor, "n k"], hit: Bool[Tensor, " n"], j: int) -> Minimum:
    """Slopes and, last, the shift with the lowest binary NLL."""
    design, hits = torch.cat([columns, columns.new_ones(len(columns), 1)], 1), hit.double()

    def nll(point: Tensor) -> tuple[float, Tensor, Tensor]:
        scaled = design @ point.to(design.device)
        chance = scaled.sigmoid()
        value = torch.nn.functional.binary_cross_entropy_with_logits(scaled, hits).item()
        hessian = (design.T * (chance * (1 - chance))) @ design / len(hits)
        return value, (design.T @ (chance - hits) / len(hits)).cpu(), hessian.cpu()

    start = torch.ones(design.shape[1], dtype=torch.float64)
    start[-1] = 0
    try:
        return minimize(nll, start, lower=-math.inf)
    except NoMinimum:
        raise ValueError(
            f"the probability of column {j} parts its class from the rest without a mistake on these {len(hits)} labels: no "
            "slope is the best. Fit on more examples, or fit one temperature."
        ) from None


def _worst(fits: list[Minimum]) -> tuple[float, float]:
    return max(fit.residual for fit in fits), max(fit.gap for fit in fits)


def fit_isotonic(scores: OneVsRest, labels: Int[Tensor, " n"]) -> MapFit:
    """A rising function of the probability of each class, by its corners, with the least squared error."""
    with named():
        from sklearn.isotonic import IsotonicRegression
    corners: dict[str, list[Tensor]] = {"probs": [], "values": []}
    for j, hit in _columns(scores, labels):
        fit = IsotonicRegression(out_of_bounds="clip").fit(scores.probs[:, j].cpu().numpy(), hit.double().cpu().numpy())
        corners["probs"].append(torch.as_tensor(fit.X_thresholds_, dtype=torch.float64))
        corners["values"].append(torch.as_tensor(fit.y_thresholds_, dtype=torch.float64))
    return MapFit(corners, math.nan, math.nan)


def map_by_isotonic(scores: OneVsRest, probs: list[Tensor], values: list[Tensor]) -> Tensor:
    """The value at each probability, linear between the corners, joined."""
    mapped = [_interpolate(scores.probs[:, j], x, y) for j, (x, y) in enumerate(zip(probs, values, strict=True))]
    return join(torch.stack(mapped, 1))


def _interpolate(at: Float[Tensor, " n"], x: Float[Tensor, " k"], y: Float[Tensor, " k"]) -> Float[Tensor, " n"]:
    """Linear between the corners, constant outside of them."""
    at = at.contiguous().clamp(x[0], x[-1])
    right = torch.searchsorted(x, at).clamp(1, max(len(x) - 1, 1)).clamp(max=len(x) - 1)
    left = (right - 1).clamp(min=0)
    share = ((at - x[left]) / (x[right] - x[left])).nan_to_num(0.0)
    return y[left] + share * (y[right] - y[left])


def fit_histogram(scores: OneVsRest, labels: Int[Tensor, " n"], bins: int, by: str) -> MapFit:
    """The share of the class among the examples in each bin of its probability; the middle of a bin without any."""
    found: dict[str, list[Tensor]] = {"upper": [], "values": []}
    for j, hit in _columns(scores, labels):
        column = scores.probs[:, j].contiguous()
        upper = torch.arange(1, bins + 1, dtype=torch.float64, device=column.device) / bins
        if by == "mass":
            last = [-(-k * len(column) // bins) - 1 for k in range(1, bins + 1)]
            upper = column.sort().values[last].unique()  # bins that equal values leave empty are gone
            upper[-1] = 1
        place = torch.bucketize(column, upper).clamp(max=len(upper) - 1)
        count = torch.bincount(place, minlength=len(upper))
        right = torch.bincount(place, weights=hit.double(), minlength=len(upper))
        middle = upper - upper.diff(prepend=upper.new_zeros(1)) / 2
        found["upper"].append(upper)
        found["values"].append(torch.where(count > 0, right / count, middle))
    return MapFit(found, math.nan, math.nan)


def map_by_histogram(scores: OneVsRest, upper: list[Tensor], values: list[Tensor]) -> Tensor:
    """The value of the bin of each probability, joined."""
    columns = (scores.probs[:, j].contiguous() for j in range(len(upper)))
    mapped = [y[torch.bucketize(p, x).clamp(max=len(x) - 1)] for p, x, y in zip(columns, upper, values, strict=True)]
    return join(torch.stack(mapped, 1))
