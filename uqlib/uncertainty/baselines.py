"""What else could say how uncertain a network is, from its features alone: dropout, bagged classifiers, norms, distances, noise."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from uqlib.base.arrays import Array, Column, Table, as_tensor, like
from uqlib.base.checks import check_features, check_finite, check_labels, check_size
from uqlib.base.options import check_fraction, check_result, check_seed, check_whole
from uqlib.metrics.retrieval import nearest_neighbours
from uqlib.networks.linear_heads import Head, fit_head, head_logits
from uqlib.training.loops import loop

FAR = 100  # a mean of so many times the spread is taken off, or the steps would see it alone


def inverse_norm(features: Table) -> Float[Array, " n"]:
    """1 over the length of the features, higher = less certain.

    Raises:
        ValueError: if a row is not finite, or all zeros, or so large that its square overflows.

    Examples:
        >>> from uqlib.uncertainty import inverse_norm
        >>> inverse_norm([[3.0, 4.0]])
        array([0.2])
    """
    x = check_features(features).double()
    check_size(x, "features")
    length = x.norm(dim=1)
    if (length == 0).any():
        raise ValueError(f"row {int((length == 0).int().argmax())} of features is all zeros, and has no length")
    return like(1 / length, features)


def nearest_distance(features: Table, known: Table, *, k: int = 1) -> Float[Array, " n"]:
    """1 minus the cosine to the k-th nearest known image, in [0, 2]: how far an image lies from what was seen.

    Args:
        features: (n, d).
        known: (m, d), of images that were seen.
        k: 1 is the nearest.

    Raises:
        ValueError: as `metrics.nearest_neighbours`.

    Source:
        Sun et al. 2022 (arXiv:2204.06507), Out-of-distribution detection with deep nearest neighbors.

    Examples:
        >>> from uqlib.uncertainty import nearest_distance
        >>> nearest_distance([[0.0, 2.0]], [[1.0, 0.0], [-1.0, 0.0]])
        array([1.])
    """
    nearest = nearest_neighbours(check_features(features), check_features(known, "known"), k=k)
    return like((1 - as_tensor(nearest.similarity)[:, -1]).clamp(0, 2), features)  # a cosine may round to more than 1


class Spread(NamedTuple):
    """What several predictions of one image say, in nats, higher = less certain."""

    entropy: Float[Array, " n"]  # of their mean: all uncertainty
    information: Float[Array, " n"]  # entropy of the mean less mean entropy: how far they disagree


def dropout_spread(features: Table, classifier: Head, *, p: float = 0.2, samples: int = 20, seed: int = 0) -> Spread:
    """Monte Carlo dropout on the features before a linear classifier.

    Args:
        features: (n, d).
        classifier: weights and bias.
        p: share of the features that are dropped, in (0, 1).
        samples: how many masks.
        seed: of the masks.

    Source:
        Gal & Ghahramani 2016 (arXiv:1506.02142).
    """
    check_result(classifier, Head, "classifier", "fit_head")
    x, p = check_features(features).float(), check_fraction(p, "p", within="(0, 1)")
    generator = torch.Generator().manual_seed(check_seed(seed))

    def masked() -> Tensor:
        kept = torch.rand(x.shape, generator=generator, dtype=x.dtype) >= p
        return x * kept.to(x) / (1 - p)

    several = (as_tensor(head_logits(classifier, masked())) for _ in range(check_whole(samples, "samples", least=2)))
    return _spread(several, features)


def bagged_spread(features: Table, classifiers: Sequence[Head]) -> Spread:
    """What several linear classifiers say together; `bag_classifiers` makes them.

    Raises:
        ValueError: if there are fewer than two, or they know other numbers of classes.
    """
    if len(classifiers) < 2:
        raise ValueError(f"classifiers must be two or more; there are {len(classifiers)}")
    x = check_features(features)
    for place, each in enumerate(classifiers):
        check_result(each, Head, f"classifiers[{place}]", "fit_head")
        if len(each.bias) != len(classifiers[0].bias):
            raise ValueError(
                f"classifiers must have the same classes; classifiers[{place}] has {len(each.bias)}, the first "
                f"{len(classifiers[0].bias)}. Fit all with the same classes=."
            )
    return _spread((as_tensor(head_logits(each, x)) for each in classifiers), features)


def bag_classifiers(features: Table, labels: Column, *, members: int = 5, seed: int = 0, **options: Any) -> list[Head]:
    """Linear classifiers, each fitted on as many examples drawn with replacement.

    Args:
        features, labels, options: as `networks.fit_head` takes them.
        members: how many.
        seed: of the draws.

    Source:
        Breiman 1996, Bagging predictors, Machine Learning 24, 123-140.
    """
    x = check_features(features)
    y = check_labels(labels, None, len(x))
    generator = torch.Generator().manual_seed(check_seed(seed))
    options = {"classes": int(y.max()) + 1} | options
    draws = (
        torch.randint(len(x), (len(x),), generator=generator) for _ in range(check_whole(members, "members", least=2))
    )
    return [fit_head(x[rows.to(x.device)], y[rows.to(y.device)], **options) for rows in draws]


class Heteroscedastic(NamedTuple):
    """A classifier whose logits are noisy: mean = features @ weight.T + bias, log variance likewise, one an image."""

    mean: Head
    variance: Float[Tensor, " d"]
    shift: Float[Tensor, ""]


def fit_heteroscedastic(
    features: Table,
    labels: Column,
    classifier: Head,
    *,
    epochs: int = 5,
    samples: int = 8,
    lr: float = 1e-3,
    seed: int = 0,
) -> Heteroscedastic:
    """Learn how noisy the logits of a fixed classifier are for each image, by the likelihood under that noise.

    The log variance of normal noise on all logits is linear in the features; the likelihood is the mean over samples.

    Args:
        features, labels: that are learnt from.
        classifier: stays as it is.
        epochs, lr, seed: of the loop.
        samples: of the noise, a step.

    Raises:
        ValueError: if there are fewer than two rows, or a label is no class of the classifier.

    Source:
        Kendall & Gal 2017 (arXiv:1703.04977), section 2.2, equation 12; Collier et al. 2023 (arXiv:2301.12860) for many classes.
    """
    check_result(classifier, Head, "classifier", "fit_head")
    x, samples = check_features(features).float(), check_whole(samples, "samples", least=1)
    y = check_labels(labels, len(classifier.bias), len(x)).to(x.device)
    z = as_tensor(head_logits(classifier, x)).to(x.device)
    if len(x) < 2:
        raise ValueError("features must have two rows or more, or nothing is known of their spread; there is 1 row")
    scale, mean = x.std(0), x.mean(0)
    centre = torch.where(mean.abs() > FAR * scale, mean, 0.0)
    scale = torch.where(scale > 1e-6 * mean.abs(), scale.clamp_min(1e-6), torch.inf)  # a constant says nothing
    # without the initial weights, which would be drawn from the global generator
    layer = torch.nn.utils.skip_init(torch.nn.Linear, x.shape[1], 1, device=x.device, dtype=x.dtype)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)

    def step(rows: Tensor, generator: torch.Generator) -> Tensor:
        rows = rows.to(x.device)
        deviation = (layer((x[rows] - centre) / scale) / 2).exp()[None]
        noise = torch.randn((samples, *z[rows].shape), generator=generator, dtype=z.dtype).to(z)
        log_p = (z[rows] + deviation * noise).log_softmax(-1).gather(-1, y[rows].expand(len(noise), -1)[..., None])
        return -(log_p[..., 0].logsumexp(0)).mean()

    loop(step, examples=len(x), parts={"layer": layer}, trained=list(layer.parameters()), epochs=epochs, lr=lr,
         batch=min(512, len(x)), seed=seed)  # fmt: skip
    variance = (layer.weight[0] / scale).detach()
    return Heteroscedastic(classifier, variance, layer.bias[0].detach() - variance @ centre)


def heteroscedastic_variance(fitted: Heteroscedastic, features: Table) -> Float[Array, " n"]:
    """Log variance of the logits of each image, higher = less certain.

    Raises:
        ValueError: if features are not finite, too large for float32, or of another width than those of the fit.
    """
    check_result(fitted, Heteroscedastic, "fitted", "fit_heteroscedastic")
    x = check_features(features, width=len(fitted.variance)).float()
    check_finite(x, "features in float32")
    return like(x @ fitted.variance.to(x) + fitted.shift.to(x), features)


def _spread(several: Any, model: Any) -> Spread:
    """Of logits, one table after the other, so that memory is that of one."""
    count, mean, inner = 0, torch.tensor(0.0), torch.tensor(0.0)
    for logits in several:
        log_p = logits.double().log_softmax(-1)
        count, mean, inner = count + 1, mean + log_p.exp(), inner - (log_p.exp() * log_p).sum(-1)
    mean = mean / count
    total = -torch.special.xlogy(mean, mean).sum(-1)
    return Spread(like(total, model), like(total - inner / count, model))
