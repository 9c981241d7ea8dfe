import numpy as np
import pytest
import timm
import torch
from conftest import default_dtype
from sklearn.linear_model import LogisticRegression

from uqlib import networks
from uqlib.networks.linear_heads import choose_head, fit_head, head_logits, install


@pytest.fixture(scope="module")
def examples():
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 4, 300)
    centres = generator.normal(size=(4, 7))
    features = centres[labels] + 1.5 * generator.normal(size=(300, 7))
    features = features * [1, 10, 0.1, 1, 1, 5, 1] + [0, 3, 0, -8, 0, 0, 2]
    return features.astype(np.float32), labels


def test_the_fit_is_that_of_scikit_learn(examples):
    features, labels = examples
    head = fit_head(features, labels, l2=0.01, tolerance=1e-7)
    z = (features - features.mean(0)) / features.std(0)
    # scikit-learn minimises C * sum of losses + |w|^2 / 2
    oracle = LogisticRegression(C=1 / (0.01 * 300), tol=1e-8, max_iter=1000).fit(z, labels)
    probs = torch.tensor(head_logits(head, features)).softmax(-1).numpy()
    assert np.abs(probs - oracle.predict_proba(z)).max() < 1e-4  # float32 features, an optimum of float32
    assert head.gradient < 1e-5
    assert isinstance(head.weight, np.ndarray)


def test_a_strong_penalty_leaves_the_class_frequencies(examples):
    features, labels = examples
    probs = torch.tensor(head_logits(fit_head(features, labels, l2=1e4), features)).softmax(-1).numpy()
    assert np.abs(probs - np.bincount(labels) / 300).max() < 1e-3


def test_classes_without_examples_and_constant_features(examples):
    features, labels = examples
    constant = np.concatenate([features, np.full((300, 1), 3.0, np.float32)], 1)
    head = fit_head(constant, labels, classes=6)
    assert head.weight.shape == (6, 8)
    assert np.abs(head.weight[:, 7]).max() == 0
    assert head_logits(head, constant)[:, 4:].max() < head_logits(head, constant)[:, :4].max()


def test_the_penalty_is_chosen_on_rows_that_did_not_learn(examples):
    generator = np.random.default_rng(1)
    features, labels = generator.normal(size=(120, 60)).astype(np.float32), generator.integers(0, 3, 120)
    assert choose_head(features, labels, strengths=(1e-4, 10.0)).l2 == 10.0  # nothing but noise to learn
    features, labels = examples
    chosen = choose_head(features, labels, strengths=(1e-3, 100.0))
    assert chosen.l2 == 1e-3
    again = fit_head(features, labels, l2=1e-3)
    assert np.array_equal(chosen.weight, again.weight)


def test_an_installed_head_gives_the_network_its_logits(examples):
    model = timm.create_model("resnet18", num_classes=5).eval()
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    features = networks.features_and_logits(model, images).features
    generator = torch.Generator().manual_seed(1)
    head = fit_head(torch.randn(40, 512, generator=generator), torch.arange(40) % 4)
    answers = networks.features_and_logits(install(model, head), images)
    assert model.num_classes == 4
    assert torch.equal(answers.features, features)
    assert (answers.logits - head_logits(head, features)).abs().max() < 1e-5


def test_errors_name_the_value(examples):
    features, labels = examples
    with pytest.raises(ValueError, match="l2 must be a finite number of at least 0; it is -1"):
        fit_head(features, labels, l2=-1)
    with pytest.raises(ValueError, match=r"features must have shape \(n, d\)"):
        fit_head(features[0], labels)
    spoilt = features.copy()
    spoilt[2, 1] = np.nan
    with pytest.raises(ValueError, match="features must be finite; row 2, column 1 is nan"):
        fit_head(spoilt, labels)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 3\)"):
        fit_head(features, labels, classes=3)
    with pytest.raises(ValueError, match="labels has 299 rows where 300 are expected"):
        fit_head(features, labels[1:])
    head = fit_head(features, labels)
    with pytest.raises(ValueError, match="the head takes features of width 7; these have 6"):
        head_logits(head, features[:, 1:])
    with pytest.raises(ValueError, match="the head takes features of width 7; the network has 512"):
        install(timm.create_model("resnet18"), head)


def test_labels_and_features_of_every_kind_give_the_same_head(examples, unchecked):
    features, labels = examples[0][:60], examples[1][:60]
    expected = fit_head(features, labels, iterations=5)
    kinds = [labels.astype(kind) for kind in ("u1", "u2", "u4", "u8", "i1", ">i4")] + [labels[:, None]]
    kinds += [labels.tolist(), torch.tensor(labels), torch.tensor(labels).to(torch.uint8), np.repeat(labels, 2)[::2]]
    for kind in kinds:
        assert np.array_equal(fit_head(features, kind, iterations=5).weight, expected.weight), type(kind)
        chosen = choose_head(features, kind, iterations=5, strengths=np.array([1e-3]))
        assert np.array_equal(chosen.weight, expected.weight)
    fixed = features.copy()
    fixed.setflags(write=False)
    for kind in (fixed, np.asfortranarray(features), features.astype(">f4"), features.astype(np.float64)):
        assert (
            np.abs(fit_head(kind, labels, iterations=5).weight - expected.weight).max() < 1e-4
        )  # sums in another order
        assert np.abs(head_logits(expected, kind) - head_logits(expected, features)).max() < 1e-4
    wide = expected._replace(weight=expected.weight.astype(np.float64), bias=expected.bias.tolist())
    assert np.array_equal(head_logits(wide, features), head_logits(expected, features))
    given = torch.tensor(features, requires_grad=True)
    assert fit_head(given, labels, iterations=5).weight.numpy().tolist() == expected.weight.tolist()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_the_default_dtype_changes_nothing(examples, dtype):
    features, labels = examples
    expected = fit_head(features, labels)
    with default_dtype(dtype):
        found = fit_head(features, labels)
        logits = head_logits(found, features)
    assert np.array_equal(found.weight, expected.weight)
    assert found[2:] == expected[2:]
    assert logits.dtype == np.float32


def test_a_feature_counts_whatever_its_unit(examples):
    features, labels = examples
    tiny, plain = fit_head(1e-14 * features, labels), fit_head(features, labels)
    assert np.abs(head_logits(tiny, 1e-14 * features) - head_logits(plain, features)).max() < 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        *(({"labels": odd}, "labels") for odd in (None, [], ["a"] * 300, [0.0] * 300, [True] * 300, "abc")),
        ({"labels": [0, 1, -100] * 100}, r"labels must be 0 or larger; row 2 is -100\. .*keep = labels != -100"),
        ({"labels": [0, 1, 255] * 100}, "labels must be classes; row 2 is 255"),
        ({"labels": [0] * 300}, "labels must hold two classes or more; all are 0"),
        *(({"l2": odd}, "l2 must") for odd in (None, "1", True, np.nan, np.inf, -1)),
        *(({"classes": odd}, "classes must") for odd in (4.0, True, "4", 1, 0)),
        *(({"iterations": odd}, "iterations must") for odd in (0, 2.0, True)),
        *(({"tolerance": odd}, "tolerance must") for odd in (-1e-5, "1e-5", np.nan)),
        *(({"features": odd}, "features must") for odd in (None, [["a"]] * 300, np.zeros((300, 0)), 3.0)),
        (
            {"features": np.full((300, 2), 1e30)},
            r"features must be at most 1e\+15 in size, .*; row 0, column 0 is 1e\+30",
        ),
    ],
    ids=str,
)
def test_what_no_head_can_be_fitted_to_is_refused_by_name(examples, change, message, unchecked):
    given = {"features": examples[0], "labels": examples[1]} | change
    for fit in (fit_head, choose_head) if "l2" not in change else (fit_head,):
        options = dict(given)
        with pytest.raises((TypeError, ValueError), match=message):
            fit(options.pop("features"), options.pop("labels"), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strengths": ()}, "strengths must be one or more penalties"),
        ({"strengths": "0.1"}, "strengths must be"),
        ({"strengths": [0.1, True]}, "strengths must be a finite number"),
        ({"strengths": 0.1}, "strengths must be one or more"),
        ({"held_out": 0.001}, "held_out must leave examples .* is 0 and leaves 300. Pass 0.5"),
        ({"held_out": 0.999}, "held_out must leave examples .* is 300 and leaves 0. Pass 0.5"),
        ({"held_out": 30}, r"held_out must lie in \(0, 1\); it is 30"),
        ({"seed": None}, "seed must be a whole number"),
    ],
    ids=str,
)
def test_a_choice_that_cannot_be_made_is_refused_by_name(examples, options, message, unchecked):
    with pytest.raises((TypeError, ValueError), match=message):
        choose_head(*examples, **options)
    assert choose_head(*examples, held_out=0.5, iterations=3).l2 > 0  # the advice


def test_what_is_no_head_or_no_network_is_refused_by_name(examples, unchecked):
    head = fit_head(*examples, iterations=3)
    with pytest.raises(TypeError, match="head must be what fit_head returns, a Head; it is None"):
        head_logits(None, examples[0])
    with pytest.raises(TypeError, match="head must be what fit_head returns"):
        install(timm.create_model("resnet18"), (head.weight, head.bias))
    with pytest.raises(TypeError, match="model must be a network with timm's reset_classifier; it is a Linear"):
        install(torch.nn.Linear(7, 4), head)
