"""Losses for labels that may be wrong: LDR and ALDR, which are robust over labels, GCE, SCE and MAE; and whether a loss ranks classes.

LDR takes the worst distribution q over the labels, at a price for its distance from the uniform one:

    max_q  q . d - T KL(q | uniform)  =  T log mean_k exp(d_k / T),    d_k = f_k - f_y + margin (k not y)

T = 0 is the margin loss of Crammer and Singer, T = 1 without margin cross entropy less log c, T = inf linear and symmetric.
ALDR lets each example choose its T near a given one.

Zhu, Ying and Yang 2023 (arXiv:2112.14869). Their released code differs: the margin is left out where T is chosen, 1e-5 is
added to q, and its MAE sums p_k - y_k without absolute values, so that it is always 0.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from uqlib.base.arrays import Array, Column, Table, _shown, like
from uqlib.base.checks import check_logits, check_probs
from uqlib.base.extras import named
from uqlib.base.options import check_choice, check_fraction, check_number, check_seed, check_whole
from uqlib.losses.criterion import (
    Criterion,
    _check_all_rows,
    _check_batch_rows,
    _checked,
    _entropy_of,
    _floats,
    _gathered,
    _surprise,
)

FLAT = (
    1 / 64
)  # leads that span less than this share of the temperature: there the logarithm of a mean near 1 loses its digits
MOST_SURE = 1e-300  # in place of log 1, where one class is left
UPDATES = 500  # of a temperature that is sought at once; it stops where they change nothing


def ldr(*, temperature: float = 10.0, margin: float = 0.1, normalise: str = "none") -> Criterion:
    """The worst case over labels: T log mean_k exp(d_k / T), the head of this file says of what.

    Args:
        temperature: T, from 0 to inf; both ends are limits. 10 and a margin of 0.1 in the released code.
        margin: >= 0, by which the label's score is to lead.
        normalise: of the scores before all else: "none"; "norm1", divided by the mean of their absolute values, so that
            the scale of the logits does not matter, and that of what softmax says of them is arbitrary; "softplus", the
            same after all were made positive. With the last two logits of -inf are refused, outside of a training step.

    A logit of -inf takes its class out: means are over the classes that are left. Of the label itself it makes the loss infinite.

    Raises:
        ValueError: if the temperature or the margin is negative, or normalise is unknown.

    Source:
        Zhu et al. 2023 (arXiv:2112.14869), LDR-KL.

    Examples:
        >>> import torch
        >>> from uqlib import losses
        >>> logits, label = torch.tensor([[2.0, 1.0, 0.5, -1.0]]), torch.tensor([0])
        >>> [round(losses.ldr(temperature=t)(logits, label, label).item(), 3) for t in (0.1, 1, 10)]
        [-0.139, -0.851, -1.246]
    """
    temperature = check_number(temperature, "temperature", least=0, finite=False)
    leads = _leads_of(margin, normalise)

    def terms(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        _refuse_left_out(logits, normalise)
        return _soft_lead(leads(logits, labels), temperature)

    return Criterion(f"ldr(temperature={temperature}, margin={margin}, normalise={normalise})", terms)


def aldr(
    *,
    examples: int | None = None,
    temperature: float = 10.0,
    margin: float = 0.1,
    alpha: float = 2.0,
    normalise: str = "none",
) -> Criterion:
    """LDR with a temperature an example, T, drawn to a given one, T0: less alpha log c (T - T0)^2 / (2 T0), largest in T.

    There T = T0 (1 - KL(q | uniform) / (alpha log c)): the less sure the network, the higher. It lies between
    T0 (1 - 1 / alpha) and T0, and is a constant for the gradient. Each call in training mode takes one such step for
    its rows. The buffer `temperatures` (n,) is part of a checkpoint, and starts at T0 with each training.

    Args:
        examples: rows of the training set; None keeps nothing, and each call repeats the step until it rests, from
            either end, for where alpha is near 1 there may be two T that it leaves alone.
        temperature: T0 > 0; margin and normalise as in `ldr`.
        margin: >= 0.
        alpha: > 1, of the pull to T0.
        normalise: "none", "norm1", "softplus".

    Raises:
        ValueError: if a number is out of range or normalise unknown; in a training, if a row lies beyond the examples.

    Source:
        Zhu et al. 2023 (arXiv:2112.14869), ALDR-KL and its algorithm 1.

    Examples:
        >>> import torch
        >>> from uqlib import losses
        >>> loss, logits = losses.aldr(examples=2, temperature=1), torch.tensor([[9.0, 0.0], [1.0, 0.0]])
        >>> value = loss(logits, [0, 0], [0, 1])
        >>> [round(each, 2) for each in loss.temperatures.tolist()]  # the first is sure
        [0.5, 0.93]
    """
    examples = None if examples is None else check_whole(examples, "examples", least=1)
    options = check_number(temperature, "temperature", above=0), check_number(alpha, "alpha", above=1)
    name = f"aldr(examples={examples}, temperature={options[0]}, margin={margin}, alpha={options[1]}, normalise={normalise})"
    return _Adaptive(name, _leads_of(margin, normalise), normalise, examples, *options)


def gce(*, power: float = 0.7) -> Criterion:
    """Generalised cross entropy, (1 - p^power) / power with p the probability of the label: what contradicts it counts less.

    Args:
        power: in (0, 1]; 0.7 in the source. Near 0 it is cross entropy, at 1 half of `mae`.

    Raises:
        ValueError: if the power is outside (0, 1].

    Source:
        Zhang & Sabuncu 2018 (arXiv:1805.07836), equation 6.
    """
    power = check_fraction(power, "power", within="(0, 1]")
    return Criterion(f"gce(power={power})", lambda logits, labels, rows: _missing(logits, labels, power) / power)


def sce(*, weight: float = 0.5, floor: float = -4.0) -> Criterion:
    """Symmetric cross entropy: weight times cross entropy, and the rest times the same with label and prediction exchanged.

    Args:
        weight: in [0, 1].
        floor: <= 0, in place of the logarithm of 0, which the exchange asks for.

    Raises:
        ValueError: if the weight is outside [0, 1], or the floor above 0.

    Source:
        Wang et al. 2019 (arXiv:1908.06112), equation 7; the two weights sum to one as in Zhu et al. 2023.
    """
    weight, floor = check_fraction(weight, "weight"), check_number(floor, "floor", most=0)

    def terms(logits: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        return weight * _surprise(logits, labels) - (1 - weight) * floor * _missing(logits, labels)

    return Criterion(f"sce(weight={weight}, floor={floor})", terms)


def mae() -> Criterion:
    """Mean absolute error: sum_k |p_k - y_k| = 2 (1 - p of the label). Summed over all labels it is constant.

    Source:
        Ghosh et al. 2017 (arXiv:1712.09482).
    """
    return Criterion("mae()", lambda logits, labels, rows: 2 * _missing(logits, labels))


def expected_minimisers(
    criterion: Criterion, probs: Table, *, starts: int = 4, steps: int = 300, seed: int = 0
) -> Float[Array, "n c"]:
    """Scores at which the expected loss is least, where labels are drawn from given probabilities: the best of several searches.

    Where the loss is least at infinity, as that of `mae`, they are as far as the steps went.

    Args:
        criterion: a loss of this family that keeps nothing an example.
        probs: (n, c) of the classes.
        starts: of the search by L-BFGS; one is enough for a convex loss.
        steps: of each.
        seed: of the starts.

    Raises:
        ValueError: if probs are none, starts or steps are not positive, or the loss keeps something for each example.
        TypeError: if the criterion is no loss of this family.

    Examples:
        >>> from uqlib import losses
        >>> import torch
        >>> scores = torch.as_tensor(losses.expected_minimisers(losses.cross_entropy(), [[0.2, 0.8]]))
        >>> scores.softmax(-1).round(decimals=4).tolist()
        [[0.2, 0.8]]
    """
    with named():
        from scipy.optimize import minimize
    if not isinstance(criterion, Criterion):
        raise TypeError(f"criterion must be a loss of this family, such as losses.mae(); it is {_shown(criterion)}")
    if criterion.by_row:
        raise ValueError(
            f"criterion must keep nothing for each example of a training; {criterion} does. For aldr leave out examples."
        )
    wanted = check_probs(probs).double().cpu()
    many, classes = check_whole(starts, "starts", least=1), wanted.shape[1]
    weights = wanted.repeat(many, 1)
    labels = torch.arange(classes).repeat(len(weights))

    def expected(scores: Tensor) -> Float[Tensor, " m"]:
        terms = criterion.terms(scores.repeat_interleave(classes, 0), labels, torch.zeros_like(labels))
        return (terms.view_as(weights) * weights).sum(-1)

    @torch.enable_grad()
    def slope(flat: np.ndarray) -> tuple[float, np.ndarray]:
        scores = torch.from_numpy(flat).view_as(weights).requires_grad_()
        value = expected(scores).sum()
        return value.item(), torch.autograd.grad(value, scores)[0].flatten().numpy()

    generator = torch.Generator().manual_seed(check_seed(seed))
    first = torch.randn(weights.shape, dtype=torch.float64, generator=generator)
    options = {"maxiter": check_whole(steps, "steps", least=1), "maxcor": 50, "ftol": 0, "gtol": 1e-9}
    found = minimize(slope, first.flatten().numpy(), jac=True, method="L-BFGS-B", options=options).x
    scores = torch.from_numpy(found).view_as(weights)
    best = expected(scores).view(many, -1).argmin(0)
    return like(scores.view(many, *wanted.shape)[best, torch.arange(len(wanted))], probs)


def top_kept(logits: Table, probs: Table, *, gap: float = 1e-3) -> Bool[Array, "n k"]:
    """Whether the k most probable classes have the k highest scores, for k = 1, ..., c - 1; a lead of at most `gap` is a tie, and none.

    Of classes that are equally probable any may be among the k, so the order of the classes never matters.

    Args:
        logits: (n, c), any scores.
        probs: (n, c) of the classes.
        gap: >= 0.

    Raises:
        ValueError: if the shapes differ, or the gap is negative.

    Examples:
        >>> from uqlib import losses
        >>> losses.top_kept([[3.0, 1.0, 1.0]], [[0.5, 0.3, 0.2]]).tolist()
        [[True, False]]
    """
    table, wanted = check_logits(logits).double(), check_probs(probs).double()
    if table.shape != wanted.shape:
        raise ValueError(
            f"logits and probs must have one shape; theirs are {tuple(table.shape)} and {tuple(wanted.shape)}"
        )
    best = table.argsort(dim=1, descending=True)  # of equally probable classes the highest score comes first
    best = best.gather(1, wanted.gather(1, best).argsort(dim=1, descending=True, stable=True))
    ordered = table.gather(1, best)
    last, next = ordered.cummin(1).values[:, :-1], ordered.flip(1).cummax(1).values.flip(1)[:, 1:]
    return like(last - next > check_number(gap, "gap", least=0), logits)


class _Adaptive(Criterion):
    temperatures: Tensor | None

    def __init__(
        self,
        name: str,
        leads: Callable[[Tensor, Tensor], Tensor],
        normalise: str,
        examples: int | None,
        start: float,
        alpha: float,
    ):
        super().__init__(name)
        self.leads, self.normalise, self.start, self.alpha = leads, normalise, start, alpha
        self.by_row = examples is not None
        kept = None if examples is None else torch.full((examples,), start, dtype=torch.float64)
        self.register_buffer("temperatures", kept)

    def begin(self, labels: Column) -> None:
        """Check that the training has so many rows, and forget the temperatures of another one."""
        super().begin(labels)
        if self.temperatures is not None:
            _check_all_rows(len(self.temperatures), len(labels), "temperatures")
            self.temperatures.fill_(self.start)

    def _terms(self, logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], rows: Column) -> Float[Tensor, " n"]:
        _refuse_left_out(logits, self.normalise)
        leads = self.leads(logits, labels)
        if self.temperatures is None:
            return self._value(leads, self._rest(leads.detach()))
        rows = _check_batch_rows(rows, logits, self, "temperatures", len(self.temperatures))
        return self._value(leads, self.temperatures[rows])

    def forward(self, logits: Table, labels: Column, rows: Column) -> Float[Tensor, ""]:
        logits, labels = _checked(logits, labels, self)
        _refuse_left_out(logits, self.normalise)  # before a temperature moves
        if self.training and self.temperatures is not None:
            rows = _check_batch_rows(rows, logits, self, "temperatures", len(self.temperatures))
            new = self._step(self.leads(logits.detach(), labels), self.temperatures[rows])
            rows, new = _gathered(rows, new)
            self.temperatures[rows] = new
        return self._terms(logits, labels, rows).mean()

    def _step(self, leads: Float[Tensor, "n c"], now: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        most = _log_classes(leads)
        away = (most - _entropy_of(leads.double() / now[:, None])).clamp(min=0).minimum(most)
        away = away.nan_to_num(0.0)  # where the label is left out all others lead by infinity, whatever the temperature
        return self.start * (1 - away / (self.alpha * most.clamp(min=MOST_SURE)))

    def _value(self, leads: Float[Tensor, "n c"], kept: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
        pull = self.alpha * _log_classes(leads) / (2 * self.start) * (kept - self.start).square()
        return _soft_lead(leads, kept.to(leads.dtype)[:, None]) - pull.to(leads.dtype)

    def _rest(self, leads: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
        """Steps from the highest temperature only fall, and from the lowest only rise: the better of both ends."""
        ends = []
        for first in (self.start, self.start * (1 - 1 / self.alpha)):
            now = torch.full((len(leads),), first, dtype=torch.float64, device=leads.device)
            for _ in range(UPDATES):
                before, now = now, self._step(leads, now)
                if (before - now).abs().max() <= 1e-11 * self.start:
                    break
            ends.append(now)
        high, low = ends
        return torch.where(self._value(leads, low) > self._value(leads, high), low, high)


def _leads_of(margin: float, normalise: str) -> Callable[[Tensor, Tensor], Tensor]:
    """d of the head of this file, from logits and labels."""
    margin = check_number(margin, "margin", least=0)
    scores_of = NORMALISED[check_choice(normalise, NORMALISED, "normalise")]

    def leads(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"]) -> Float[Tensor, "n c"]:
        scores, own = scores_of(_floats(logits)), labels[:, None]
        found = scores - scores.gather(1, own) + margin * torch.ones_like(scores).scatter(1, own, 0)
        return found.masked_fill(
            scores == -torch.inf, -torch.inf
        )  # also of the label: it stays out, the others lead by infinity

    return leads


def _refuse_left_out(logits: Float[Tensor, "n c"], normalise: str) -> None:
    """Raise a ValueError where a class is left out of scores whose mean is taken; a training step does not look."""
    if normalise == "none" or logits.requires_grad:
        return
    out = logits == -torch.inf
    if out.any():
        row, column = out.nonzero()[0].tolist()
        raise ValueError(
            f"logits must be finite with normalise={normalise!r}, which takes their mean; row {row}, column {column} is -inf. "
            "Drop the column, or pass normalise='none'."
        )


def _log_classes(leads: Float[Tensor, "n c"]) -> Float[Tensor, " n"]:
    """Logarithm of how many classes are not left out."""
    return (leads != -torch.inf).sum(-1).double().log()


def _soft_lead(leads: Float[Tensor, "n c"], temperature: float | Tensor) -> Float[Tensor, " n"]:
    """T log mean exp(d / T) over the classes that are not left out."""
    if isinstance(temperature, float) and temperature == 0:
        return leads.amax(-1)
    left = leads != -torch.inf
    if isinstance(temperature, float) and math.isinf(temperature):
        return leads.masked_fill(~left, 0.0).sum(-1) / left.sum(-1)
    count = left.sum(-1, keepdim=True)
    soft = (leads / temperature).logsumexp(-1, keepdim=True) - count.double().log().to(leads.dtype)
    # where T is large beside the leads the same is top + T log(1 + mean (exp((d - top) / T) - 1)), with no 1 to take away
    top = leads.amax(-1, keepdim=True)
    below = ((leads - top) / temperature).masked_fill(~left, 0.0)
    flat = (below.amin(-1, keepdim=True) >= -FLAT).detach()
    mean = below.clamp(min=-1.0).expm1().sum(-1, keepdim=True) / count
    return torch.where(flat, top + temperature * mean.log1p(), temperature * soft)[:, 0]


def _norm1(scores: Float[Tensor, "n c"]) -> Float[Tensor, "n c"]:
    size = scores.abs().mean(-1, keepdim=True)
    return scores / torch.where(size > 0, size, 1)  # all zero, they stay so, with a gradient that is finite


NORMALISED: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda scores: scores,
    "norm1": _norm1,
    "softplus": lambda scores: _norm1(nn.functional.softplus(scores)),
}


def _missing(logits: Float[Tensor, "n c"], labels: Int[Tensor, " n"], power: float = 1.0) -> Float[Tensor, " n"]:
    """1 - p^power, p the probability of the label."""
    return -torch.expm1(-power * _surprise(logits, labels))
