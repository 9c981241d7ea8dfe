import numpy as np
import pytest
import torch
from conftest import default_dtype
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from uqlib.combine import dynamic
from uqlib.combine.duos import fit_duo, ours
from uqlib.combine.dynamic import (
    FEATURES,
    choose_l2,
    decide_rows,
    dynamic_duo,
    dynamic_logits,
    dynamic_temperatures,
    fit_dynamic_duo,
)


def softplus(x):
    return np.logaddexp(x, 0)


SLOPES = np.array([[0.0, 0.0, 1.2, 0.0, 0.0], [-1.5, 0.0, 0.0, 0.0, 0.0]])  # on the features of both, by network


def draw(n, seed=0, slopes=SLOPES):
    """Labels drawn from a duo whose temperatures depend on one feature of each network, the other network's."""
    rng = np.random.default_rng(seed)
    large, small = 3 * rng.normal(size=(2, n, 4))
    h = np.hstack([10 + 5 * rng.normal(size=(n, 2)), rng.normal(size=(n, 3))])
    bent = (h - [10, 10, 0, 0, 0]) / [5, 5, 1, 1, 1] @ slopes.T + [0.8, 1.1]
    temperature = softplus(bent)
    truth = large / temperature[:, :1] + small / temperature[:, 1:]
    labels = (softmax(truth, -1).cumsum(-1) > rng.random((n, 1))).argmax(-1)
    return (large, small, h[:, :2], h[:, 2:]), labels, truth


DATA, LABELS, _ = draw(3000)
TEST, TEST_LABELS, TRUTH = draw(20_000, seed=1)
FIT = fit_dynamic_duo(*DATA, LABELS)


def nll_by_hand(logits, labels):
    return -log_softmax(logits, -1)[np.arange(len(labels)), labels].mean()


def logits_by_hand(slopes, intercepts, large, small, first, second):
    h = np.hstack([first, second])
    tau = [softplus(h @ slope + b) for slope, b in zip(slopes, intercepts, strict=True)]
    return large / tau[0][:, None] + small / tau[1][:, None]


def test_every_fit_decides_its_own_rows():
    tables, labels = [torch.from_numpy(part) for part in DATA], torch.from_numpy(LABELS)
    plain = fit_duo(*tables[:2], labels)
    rows = [torch.arange(5), slice(7, 10)]
    found = decide_rows({"plain": [plain, plain], "dynamic": [FIT, FIT]}, *tables, labels, rows)
    for k, own in enumerate(rows):
        few = [table[own] for table in tables]
        expected = {"plain": ours(*few[:2], plain), "dynamic": dynamic_duo(*few, FIT)}
        for name, decision in expected.items():
            torch.testing.assert_close(found[name][k].probs, decision.probs, rtol=0, atol=0)
            assert found[name][k].correct.tolist() == (decision.preds == labels[own]).tolist()


def test_the_logits_are_the_formula_and_give_the_fitted_nll():
    slopes = [slope.numpy() for slope in FIT.slopes]
    expected = logits_by_hand(slopes, FIT.intercepts, *DATA)
    logits = dynamic_logits(*DATA, FIT)
    np.testing.assert_allclose(logits, expected, rtol=1e-12, atol=1e-11)
    assert FIT.nll == pytest.approx(nll_by_hand(expected, LABELS), rel=1e-12)
    temperatures = dynamic_temperatures(*DATA[2:], FIT)
    np.testing.assert_allclose(DATA[0] / temperatures[:, :1] + DATA[1] / temperatures[:, 1:], logits, atol=1e-11)


def test_a_weight_that_depends_on_a_feature_is_found():
    duo = fit_duo(*DATA[:2], LABELS)
    two = nll_by_hand(duo.weights[0] * TEST[0] + duo.weights[1] * TEST[1], TEST_LABELS)
    truth = nll_by_hand(TRUTH, TEST_LABELS)
    found = nll_by_hand(dynamic_logits(*TEST, FIT), TEST_LABELS)
    assert two - truth > 0.05  # there is something to find
    # twelve parameters, each of which costs about 1 / 2n; three times that
    assert found - truth < 3 * 12 / (2 * len(LABELS))
    scales = DATA[2].std(0).tolist() + DATA[3].std(0).tolist()
    np.testing.assert_allclose(np.stack(FIT.slopes) * scales, SLOPES, atol=0.35)


def test_the_features_of_each_network_alone_do_not_suffice_where_the_other_one_knows():
    own = fit_dynamic_duo(*DATA, LABELS, features="own")
    assert [len(slope) for slope in own.slopes] == [2, 3]
    assert own.nll > FIT.nll + 0.02
    swapped = SLOPES[:, [2, 1, 0, 3, 4]]  # now each network's own first feature tells
    data, labels, _ = draw(3000, slopes=swapped)
    own, both = (fit_dynamic_duo(*data, labels, features=name) for name in ("own", "concat"))
    assert 0 < own.nll - both.nll < 0.005
    expected = logits_by_hand(
        [np.append(own.slopes[0], [0, 0, 0]), np.append([0, 0], own.slopes[1])], own.intercepts, *data
    )
    np.testing.assert_allclose(dynamic_logits(*data, own), expected, rtol=1e-12, atol=1e-11)


def test_scipy_finds_the_same_minimum():
    data, labels = tuple(part[:400] for part in DATA), LABELS[:400]
    z = [(part - part.mean(0)) / part.std(0) for part in data[2:]]

    def objective(p, l2=0.02):
        slopes = p[:10].reshape(2, 5)
        logits = logits_by_hand(slopes, p[10:], *data[:2], *z)
        return nll_by_hand(logits, labels) + l2 / 2 * (slopes**2).sum()

    found = minimize(objective, np.append(np.zeros(10), [1, 1]), tol=1e-10)
    fit = fit_dynamic_duo(*data, labels, l2=0.02, iterations=300)
    stds = np.concatenate([data[2].std(0), data[3].std(0)])
    means = np.concatenate([data[2].mean(0), data[3].mean(0)])
    slopes = np.stack(fit.slopes) * stds
    point = np.append(slopes, fit.intercepts + (slopes / stds) @ means)
    assert objective(point) <= found.fun + 1e-9
    np.testing.assert_allclose(point, found.x, atol=1e-3)  # scipy differentiates by differences
    assert fit.gradient < 1e-6
    assert fit.iterations < 300


@pytest.mark.parametrize("features", FEATURES)
@pytest.mark.parametrize("standardise", [True, False])
def test_a_strong_penalty_leaves_the_duo_of_two_numbers(features, standardise):
    duo = fit_duo(*DATA[:2], LABELS)
    fit = fit_dynamic_duo(*DATA, LABELS, features=features, standardise=standardise, l2=1e9, iterations=100)
    assert fit.nll == pytest.approx(duo.nll, abs=1e-6)
    temperatures = dynamic_temperatures(*DATA[2:], fit)
    np.testing.assert_allclose(1 / temperatures, np.tile(duo.weights, (len(LABELS), 1)), rtol=2e-3)


@pytest.mark.parametrize("features", FEATURES)
def test_constant_features_leave_the_duo_of_two_numbers(features):
    duo = fit_duo(*DATA[:2], LABELS)
    constant = np.full((len(LABELS), 2), 3.7), np.full((len(LABELS), 1), -1e4)
    fit = fit_dynamic_duo(*DATA[:2], *constant, LABELS, features=features)
    assert fit.nll == pytest.approx(duo.nll, abs=1e-6)
    assert all((slope == 0).all() for slope in fit.slopes)


def test_the_start_is_that_of_the_released_code(monkeypatch):
    """Slopes 0 and intercepts 1: the first logits that are mixed are (large + small) / softplus(1)."""
    seen, mix = [], dynamic._mix
    monkeypatch.setattr(dynamic, "_mix", lambda *parts: seen.append(mix(*parts).detach()) or mix(*parts))
    fit = fit_dynamic_duo(*DATA, LABELS, standardise=False)
    np.testing.assert_allclose(seen[0], (DATA[0] + DATA[1]) / np.log1p(np.e), atol=1e-13)
    assert fit.iterations <= 20
    assert len(seen) <= 25 + 25 + 2  # 25 evaluations and a line search that goes over, and two at the end


def test_standardised_features_are_a_matter_of_units():
    kilo = (*DATA[:2], 1000 * DATA[2] - 7e4, 0.01 * DATA[3] + 5)
    fit = fit_dynamic_duo(*kilo, LABELS, l2=1e-3)
    plain = fit_dynamic_duo(*DATA, LABELS, l2=1e-3)
    assert fit.nll == pytest.approx(plain.nll, abs=1e-9)
    np.testing.assert_allclose(dynamic_logits(*kilo, fit), dynamic_logits(*DATA, plain), atol=1e-5)
    # as they are, at their optimum, they say the same; the way there is longer
    raw = fit_dynamic_duo(*DATA, LABELS, standardise=False, iterations=500)
    best = fit_dynamic_duo(*DATA, LABELS, iterations=500)
    assert raw.nll == pytest.approx(best.nll, abs=1e-6)


def test_the_decision_is_the_softmax_of_the_logits():
    said = dynamic_duo(*TEST, FIT)
    probs = softmax(dynamic_logits(*TEST, FIT), -1)
    np.testing.assert_allclose(said.probs, probs, atol=1e-14)
    np.testing.assert_array_equal(said.preds, probs.argmax(-1))
    np.testing.assert_allclose(said.confidence, probs.max(-1), atol=1e-14)


def test_any_kind_of_input_and_no_gradient_needed():
    tensors = tuple(torch.tensor(part, requires_grad=True) for part in DATA)
    with torch.no_grad():
        fit = fit_dynamic_duo(*tensors, torch.tensor(LABELS))
    assert all(a.equal(b) for a, b in zip(fit.slopes, FIT.slopes, strict=True))
    assert not fit.slopes[0].requires_grad
    logits = dynamic_logits(*tensors, fit)
    assert isinstance(logits, torch.Tensor)
    assert not logits.requires_grad
    lists = dynamic_logits(*(part[:3].tolist() for part in DATA), fit)
    np.testing.assert_allclose(lists, logits[:3], rtol=1e-13)
    half = tuple(torch.tensor(part).half() for part in DATA)
    wide = tuple(part.double() for part in half)
    assert fit_dynamic_duo(*half, LABELS).nll == fit_dynamic_duo(*wide, LABELS).nll


def test_temperatures_far_out_stay_finite():
    far = (TEST[0][:2], TEST[1][:2], np.array([[1e9, 10.0], [-1e9, 10.0]]), TEST[3][:2])
    assert np.isfinite(dynamic_logits(*far, FIT)).all()
    assert (dynamic_temperatures(*far[2:], FIT) > 0).all()
    np.testing.assert_allclose(dynamic_duo(*far, FIT).probs.sum(-1), 1, atol=1e-12)


def nll_by_cross_validation(data, labels, parts, **options):
    """By hand: each part judged by a fit on all others."""
    total = 0
    for part in parts:
        rest = np.setdiff1d(np.arange(len(labels)), part)
        fit = fit_dynamic_duo(*(p[rest] for p in data), labels[rest], **options)
        total += nll_by_hand(dynamic_logits(*(p[part] for p in data), fit), labels[part]) * len(part)
    return total / len(labels)


def test_the_penalty_is_chosen_on_parts_that_are_held_out():
    data, labels = tuple(part[:203] for part in DATA), LABELS[:203]
    strengths = (0.0, 0.01, 10.0)
    found = choose_l2(*data, labels, strengths=strengths, folds=4, seed=3, features="own", iterations=10)
    order = np.argsort(np.random.PCG64(3).random_raw(203))
    parts = order[:51], order[51:102], order[102:153], order[153:]
    by_hand = [nll_by_cross_validation(data, labels, parts, features="own", iterations=10, l2=l2) for l2 in strengths]
    np.testing.assert_allclose(found.nlls, by_hand, rtol=1e-10)
    assert found.l2 == strengths[int(np.argmin(by_hand))]
    assert found.strengths == strengths
    assert choose_l2(*data, labels, strengths=strengths, folds=4, seed=3, features="own", iterations=10) == found
    assert choose_l2(*data, labels, strengths=strengths, folds=4, seed=4, features="own", iterations=10) != found


def test_a_feature_that_tells_wants_a_weak_penalty_and_noise_a_strong_one():
    # strengths from the default list, few so that it takes a second
    assert choose_l2(*DATA, LABELS, strengths=(1e-3, 100.0)).l2 == 1e-3
    rng = np.random.default_rng(2)
    noise = rng.normal(size=(2, 300, 30))
    chosen = choose_l2(DATA[0][:300], DATA[1][:300], *noise, LABELS[:300], strengths=(0.0, 100.0))
    assert chosen.l2 == 100.0


def bad(index, value):
    return (*DATA[:index], value, *DATA[index + 1 :])


NAN = DATA[3].copy()
NAN[7, 1] = np.nan


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: fit_dynamic_duo(*DATA, LABELS, features="both"), "unknown features 'both'; choose from concat, own"),
        (lambda: fit_dynamic_duo(*DATA, LABELS, l2=-1.0), "l2 must be a finite number of at least 0; it is -1"),
        (lambda: fit_dynamic_duo(*DATA, LABELS, l2=np.inf), "l2 must be a finite number of at least 0; it is inf"),
        (lambda: fit_dynamic_duo(*DATA, LABELS, l2=np.nan), "l2 must be a finite number of at least 0; it is nan"),
        (
            lambda: fit_dynamic_duo(*DATA, LABELS, iterations=0),
            "iterations must be a whole number of at least 1; it is 0",
        ),
        (lambda: fit_dynamic_duo(*DATA, LABELS[:5]), "labels has 5 rows where 3000"),
        (lambda: fit_dynamic_duo(*DATA, LABELS + 4), r"labels must lie in \[0, 4\)"),
        (lambda: fit_dynamic_duo(*bad(1, DATA[1][:9]), LABELS), r"large and small must have one shape"),
        (lambda: fit_dynamic_duo(*bad(0, softmax(DATA[0], -1)), LABELS), "large look like probabilities"),
        (lambda: fit_dynamic_duo(*bad(2, DATA[2][:9]), LABELS), "large_features has 9 rows where 3000"),
        (lambda: fit_dynamic_duo(*bad(3, DATA[3][:9]), LABELS), "small_features has 9 rows where 3000"),
        (lambda: fit_dynamic_duo(*bad(3, NAN), LABELS), "small_features must be finite; row 7, column 1 is nan"),
        (lambda: fit_dynamic_duo(*bad(2, DATA[2][:, 0]), LABELS), r"large_features must have shape \(n, d\)"),
        (lambda: fit_dynamic_duo(*bad(2, DATA[2][:, :0]), LABELS), r"one feature; it is \(3000, 0\)"),
        (
            lambda: dynamic_logits(*bad(3, DATA[3][:, :2]), FIT),
            r"takes 5 features for the temperature of the large network \('concat'\); these are 4",
        ),
        (lambda: dynamic_duo(*bad(3, NAN), FIT), "small_features must be finite"),
        (lambda: dynamic_temperatures(DATA[2], DATA[3][:9], FIT), "small_features has 9 rows"),
        (lambda: choose_l2(*DATA, LABELS, strengths=[]), "strengths must be one or more penalties"),
        (
            lambda: choose_l2(*DATA, LABELS, folds=1),
            "folds, of the rows, must be a whole number of at least 2 and of at most 3000; it is 1",
        ),
        (lambda: choose_l2(*DATA, LABELS, features="all"), "unknown features 'all'"),
    ],
)
def test_errors_say_what_came_and_where(call, message):
    with pytest.raises(ValueError, match=message):
        call()


# --- kinds and sizes of numbers


def few(n=200):
    return tuple(part[:n] for part in DATA), LABELS[:n]


def test_a_duo_that_knows_nothing_of_the_labels_is_refused():
    """Temperatures then grow for as long as there are iterations, and every class is as likely as any."""
    with pytest.raises(ValueError, match=r"the duo says nothing of these labels: its NLL is .* of guessing is 1\.3863"):
        fit_dynamic_duo(-DATA[0], -DATA[1], *DATA[2:], LABELS, iterations=100)
    for constant in (np.ones_like(DATA[0]), np.broadcast_to(DATA[0][:1], DATA[0].shape)):
        with pytest.raises(ValueError, match="small is constant"):
            fit_dynamic_duo(DATA[0], constant, *DATA[2:], LABELS)


def test_a_feature_counts_whatever_its_unit():
    data, labels = few()
    plain = dynamic_logits(*data, fit_dynamic_duo(*data, labels))
    tiny = (*data[:2], 1e-14 * data[2], 1e14 * data[3])
    np.testing.assert_allclose(dynamic_logits(*tiny, fit_dynamic_duo(*tiny, labels)), plain, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("place", range(4))
def test_numbers_whose_squares_overflow_are_refused(place):
    name = ("large", "small", "large_features", "small_features")[place]
    with pytest.raises(ValueError, match=rf"{name} must be at most 1e\+100 in size"):
        fit_dynamic_duo(*bad(place, 1e300 * DATA[place] / np.abs(DATA[place]).max()), LABELS)
    with pytest.raises(ValueError, match=rf"{name} must be at most 1e\+100 in size"):
        dynamic_logits(*bad(place, 1e300 * DATA[place] / np.abs(DATA[place]).max()), FIT)


def test_a_fit_that_diverges_is_refused():
    data, labels = few()
    with pytest.raises(ValueError, match=r"the fit diverged|says nothing of these labels"):
        fit_dynamic_duo(*data[:2], 1e90 * data[2], data[3], labels, standardise=False)


def test_labels_and_arrays_of_every_kind_give_the_same_fit(unchecked):
    data, labels = few()
    expected = fit_dynamic_duo(*data, labels).intercepts
    kinds = [labels.astype(kind) for kind in ("u1", "u2", "u4", "u8", "i1", ">i4")] + [labels[:, None], labels.tolist()]
    for kind in [*kinds, torch.tensor(labels).to(torch.uint8), np.repeat(labels, 2)[::2]]:
        assert fit_dynamic_duo(*data, kind).intercepts == expected, type(kind)
    for turn in (
        np.asfortranarray,
        lambda x: x.astype(">f8"),
        np.ndarray.tolist,
        lambda x: torch.tensor(x).requires_grad_(),
    ):
        np.testing.assert_allclose(fit_dynamic_duo(*map(turn, data), labels).intercepts, expected, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_the_default_dtype_changes_nothing(dtype):
    data, labels = few()
    data = [torch.tensor(part).float() for part in data]

    def everything():
        fit = fit_dynamic_duo(*data, labels)
        return *fit.slopes, dynamic_logits(*data, fit), dynamic_temperatures(*data[2:], fit), *dynamic_duo(*data, fit)

    expected = everything()
    with default_dtype(dtype):
        found = everything()
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other)


def test_numbers_of_every_kind_are_the_same(unchecked):
    data, labels = few()
    expected = fit_dynamic_duo(*data, labels, l2=0.5, iterations=3).intercepts
    for half, three in ((np.float32(0.5), np.int8(3)), (torch.tensor(0.5), torch.tensor(3))):
        assert fit_dynamic_duo(*data, labels, l2=half, iterations=three).intercepts == expected
    chosen = choose_l2(
        *data, labels, strengths=np.array([0.5], np.float32), folds=np.uint8(2), seed=np.int64(0), iterations=2
    )
    assert chosen == choose_l2(*data, labels, strengths=[0.5], folds=2, iterations=2)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *((lambda odd=odd: fit_dynamic_duo(*DATA, LABELS, l2=odd), "l2 must be") for odd in (True, "1", None)),
        *(
            (lambda odd=odd: fit_dynamic_duo(*DATA, LABELS, iterations=odd), "iterations must be")
            for odd in (True, 2.0, None)
        ),
        *((lambda odd=odd: fit_dynamic_duo(*DATA, odd), "labels") for odd in (None, 1.0 * LABELS, LABELS - 100)),
        *((lambda k=k: fit_dynamic_duo(*bad(k, None), LABELS), "(large|small)(_features)? must") for k in range(4)),
        *(
            (lambda odd=odd: dynamic_logits(*DATA, odd), "fit must be what fit_dynamic_duo returns")
            for odd in (None, (1, 2))
        ),
        (lambda: dynamic_temperatures(*DATA[2:], None), "fit must be what fit_dynamic_duo returns"),
        (lambda: dynamic_duo(*DATA, None), "fit must be what fit_dynamic_duo returns"),
        *(
            (lambda odd=odd: choose_l2(*DATA, LABELS, strengths=odd), "strengths must be")
            for odd in (0.1, "1", [True], None)
        ),
        *(
            (lambda odd=odd: choose_l2(*DATA, LABELS, folds=odd), "folds, of the rows, must be")
            for odd in (2.0, True, None)
        ),
        *((lambda odd=odd: choose_l2(*DATA, LABELS, seed=odd), "seed must be") for odd in (0.5, True, None, -1)),
    ],
)
def test_what_is_no_dynamic_duo_is_refused_by_name(call, message, unchecked):
    with pytest.raises((TypeError, ValueError), match=message):
        call()
