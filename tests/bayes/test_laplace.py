import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from conftest import default_dtype
from scipy.linalg import block_diag
from scipy.special import log_softmax, softmax

from uqlib.bayes.laplace import (
    HESSIANS,
    LINKS,
    choose_prior_precision,
    decided_share,
    find_last_layer,
    laplace_probs,
    last_layer_laplace,
)

RNG = np.random.default_rng(0)
N, C, D = 60, 3, 4
X, W, B = RNG.normal(size=(N, D)), RNG.normal(size=(C, D)), RNG.normal(size=C)
Y = np.array([RNG.choice(C, p=p) for p in softmax(X @ W.T + B, -1)])
NEW = 3 * RNG.normal(size=(20, D))


def curvature_by_hand(hessian, x=X):
    """Of the weights row by row, then the biases: sum over rows of J' (diag p - p p') J, and its approximations."""
    p = softmax(x @ W.T + B, -1)
    noise = [np.diag(row) - np.outer(row, row) for row in p]
    if hessian == "kron":
        outer, inner = sum(noise), sum(np.outer(row, row) for row in x) / len(x)
        return block_diag(np.kron(outer, inner), outer)
    full = sum(jacobian(row).T @ part @ jacobian(row) for row, part in zip(x, noise, strict=True))
    return full if hessian == "full" else np.diag(np.diag(full))


def jacobian(row):
    return np.hstack([np.kron(np.eye(C), row), np.eye(C)])


def probit_by_hand(precision, rows):
    covariance = np.linalg.inv(precision)
    variance = np.array([np.diag(jacobian(row) @ covariance @ jacobian(row).T) for row in rows])
    return softmax((rows @ W.T + B) / np.sqrt(1 + np.pi * variance / 8), -1)


@pytest.fixture(scope="module")
def fits():
    """The first fit imports the package, which takes long."""
    return {hessian: last_layer_laplace(X, Y, W, B, hessian=hessian, prior_precision=0.7) for hessian in HESSIANS}


@pytest.mark.parametrize("hessian", HESSIANS)
def test_the_prediction_is_the_formula_in_numpy(fits, hessian):
    expected = probit_by_hand(curvature_by_hand(hessian) + 0.7 * np.eye(C * D + C), NEW)
    probs = laplace_probs(fits[hessian], NEW)
    np.testing.assert_allclose(probs, expected, rtol=0, atol=1e-12)
    assert isinstance(probs, np.ndarray)
    np.testing.assert_allclose(probs.sum(-1), 1, rtol=0, atol=1e-14)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")
@pytest.mark.parametrize("hessian", HESSIANS)
def test_the_prediction_is_that_of_the_package(fits, hessian):
    """The same numbers by the package's own way, through its Jacobian and its temperature."""
    from laplace import Laplace  # the fits have imported it, and met its warning
    from torch.utils.data import DataLoader, TensorDataset

    layer = torch.nn.Linear(D, C, dtype=torch.float64)
    layer.load_state_dict({"weight": torch.tensor(W), "bias": torch.tensor(B)})
    rows = DataLoader(TensorDataset(torch.tensor(X), torch.tensor(Y)), batch_size=17)
    theirs = Laplace(layer, "classification", "all", hessian, prior_precision=0.7, temperature=N / 240)
    theirs.fit(rows)
    ours = last_layer_laplace(X, Y, W, B, hessian=hessian, prior_precision=0.7, total=240)
    expected = theirs(torch.tensor(NEW), link_approx="probit").detach()
    # its full Hessian is multiplied with an identity in float32
    np.testing.assert_allclose(laplace_probs(ours, NEW), expected, rtol=0, atol=1e-7 if hessian == "full" else 1e-12)


@pytest.mark.parametrize("hessian", HESSIANS)
def test_total_scales_the_curvature_and_not_the_prior(fits, hessian):
    some = last_layer_laplace(X[:20], Y[:20], W, B, hessian=hessian, prior_precision=0.7, total=500)
    expected = probit_by_hand(25 * curvature_by_hand(hessian, X[:20]) + 0.7 * np.eye(C * D + C), NEW)
    np.testing.assert_allclose(laplace_probs(some, NEW), expected, rtol=0, atol=1e-12)
    assert some.total == 500
    # rows that all come twice are the same as twice the total
    twice = last_layer_laplace(np.tile(X, (2, 1)), np.tile(Y, 2), W, B, hessian=hessian)
    double = last_layer_laplace(X, Y, W, B, hessian=hessian, total=2 * N)
    np.testing.assert_allclose(laplace_probs(twice, NEW), laplace_probs(double, NEW), rtol=0, atol=1e-12)


@pytest.mark.parametrize("hessian", HESSIANS)
def test_the_package_reads_the_rows_in_parts(fits, hessian, monkeypatch):
    monkeypatch.setattr(
        "uqlib.bayes.laplace.JACOBIAN", 7 * C * (C * D + C)
    )  # seven rows at a time, the last part shorter
    parts = last_layer_laplace(X, Y, W, B, hessian=hessian, prior_precision=0.7)
    np.testing.assert_allclose(laplace_probs(parts, NEW), laplace_probs(fits[hessian], NEW), rtol=0, atol=1e-12)


@pytest.mark.parametrize("hessian", HESSIANS)
def test_an_infinite_prior_precision_is_the_plain_softmax(fits, hessian):
    plain = softmax(NEW @ W.T + B, -1)
    sure = fits[hessian]._replace(prior_precision=math.inf)
    np.testing.assert_allclose(laplace_probs(sure, NEW), plain, rtol=0, atol=1e-14)
    nearly = last_layer_laplace(X, Y, W, B, hessian=hessian, prior_precision=1e14)
    np.testing.assert_allclose(laplace_probs(nearly, NEW), plain, rtol=0, atol=1e-10)
    np.testing.assert_allclose(laplace_probs(fits[hessian], NEW, link="map"), plain, rtol=0, atol=1e-14)
    assert (laplace_probs(fits[hessian], NEW).max(-1) < plain.max(-1)).mean() > 0.9  # else less certain


def test_a_fit_is_the_same_for_any_kind_of_input_and_draws_nothing(fits):
    state = torch.random.get_rng_state()
    lists = last_layer_laplace(X.tolist(), Y.tolist(), W.tolist(), B.tolist(), prior_precision=0.7)
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(laplace_probs(lists, NEW.tolist()), laplace_probs(fits["kron"], NEW))
    half = torch.tensor(NEW, dtype=torch.float16)
    with torch.no_grad():
        again = last_layer_laplace(torch.tensor(X, requires_grad=True), Y, W, B, prior_precision=0.7)
    probs = laplace_probs(again, half)
    assert isinstance(probs, torch.Tensor)
    assert not probs.requires_grad
    torch.testing.assert_close(probs, laplace_probs(fits["kron"], half.double()), rtol=0, atol=1e-14)


@pytest.mark.parametrize("hessian", HESSIANS)
def test_the_chosen_prior_precision_has_the_lowest_nll(fits, hessian):
    values = [0.01, 0.1, 1.0, 10.0, 100.0]
    labels = RNG.integers(0, C, 20)  # the network is too sure of these
    found = choose_prior_precision(fits[hessian], NEW, labels, values=values)
    curvature = curvature_by_hand(hessian)
    probs = [probit_by_hand(curvature + value * np.eye(len(curvature)), NEW) for value in values]
    np.testing.assert_allclose(found.nlls, [-np.log(p[np.arange(20), labels]).mean() for p in probs], rtol=1e-11)
    assert found.prior_precision == values[int(np.argmin(found.nlls))] == found.fit.prior_precision
    assert found.values.tolist() == values


def test_the_default_grid_and_the_other_link(fits):
    found = choose_prior_precision(fits["diag"], torch.tensor(X), Y, link="map")
    assert found.values[[0, -1]].tolist() == [1e-4, 1e4]
    assert len(found.values) == 100
    plain = -log_softmax(X @ W.T + B, -1)[np.arange(N), Y].mean()
    np.testing.assert_allclose(found.nlls, plain, rtol=1e-13)
    assert set(LINKS) == {"probit", "map"}


@pytest.mark.parametrize("hessian", HESSIANS)
def test_the_decided_share_is_a_trace(fits, hessian):
    curvature = curvature_by_hand(hessian)
    expected = np.trace(curvature @ np.linalg.inv(curvature + 0.7 * np.eye(len(curvature))))
    assert decided_share(fits[hessian]) == pytest.approx(expected / len(curvature), rel=1e-10)


def test_a_last_layer_is_found_from_what_it_did():
    weight, bias = find_last_layer(X, X @ W.T + B)
    np.testing.assert_allclose(weight, W, atol=1e-10)
    np.testing.assert_allclose(bias, B, atol=1e-10)
    with pytest.raises(ValueError, match="the layer misses its logits by up to"):
        find_last_layer(X, X[::-1].copy() @ W.T + B)


def test_a_last_layer_of_too_few_rows_is_none(unchecked):
    """As many rows as weights and bias fit any logits exactly."""
    width = X.shape[1]
    others = np.random.default_rng(0).normal(size=(width + 2, 3))
    with pytest.raises(
        ValueError, match=f"features of width {width} need {width + 2} rows or more, .* there are {width + 1}"
    ):
        find_last_layer(X[: width + 1], others[:-1])
    with pytest.raises(ValueError, match="the layer misses its logits by up to"):
        find_last_layer(X[: width + 2], others)
    with pytest.raises(ValueError, match="logits must be finite; row 0, column 0 is nan"):
        find_last_layer(X, np.where(np.arange(len(X))[:, None] == 0, np.nan, X @ W.T + B))
    with pytest.raises(ValueError, match=f"logits has {len(X) - 1} rows where {len(X)} are expected"):
        find_last_layer(X, (X @ W.T + B)[1:])


def test_importing_leaves_the_package_alone():
    code = "import sys, uqlib.bayes.laplace; print('laplace' in sys.modules, 'curvlinops' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
        == "False False"
    )


def test_without_the_package_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "laplace", None)
    with pytest.raises(ModuleNotFoundError, match="pip install 'uqlib\\[laplace\\]'"):
        last_layer_laplace(X, Y, W, B)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda f: last_layer_laplace(X, Y, W, B, hessian="kfac"),
            "unknown Hessian 'kfac'; choose from kron, diag, full",
        ),
        (
            lambda f: last_layer_laplace(X, Y, W, B, prior_precision=0),
            "prior_precision must be a number of at least 1e-100; it is 0",
        ),
        (
            lambda f: last_layer_laplace(X, Y, W, B, prior_precision=math.nan),
            "prior_precision must be a number of at least 1e-100; it is nan",
        ),
        (lambda f: last_layer_laplace(X, Y, W, B, total=59), "at least the number of rows, 60; it is 59"),
        (lambda f: last_layer_laplace(X, Y, W.T, B), r"they are \(4, 3\) and \(3,\). A layer without bias"),
        (lambda f: last_layer_laplace(X, Y, W / 0, B), "weight must be finite"),
        (lambda f: last_layer_laplace(X, Y, W, B * np.nan), "bias must be finite"),
        (lambda f: last_layer_laplace(X @ W.T, Y, W, B), r"features must have shape \(n, 4\).* it is \(60, 3\)"),
        (lambda f: last_layer_laplace(X / 0, Y, W, B), "features must be finite; row 0, column 0"),
        (lambda f: last_layer_laplace(X, Y[:9], W, B), "labels has 9 rows where 60 are expected"),
        (lambda f: last_layer_laplace(X, Y + 1, W, B), r"labels must lie in \[0, 3\)"),
        (
            lambda f: last_layer_laplace(
                X[:, :1].repeat(9000, 1), Y // 2, np.ones((2, 9000)), [0.0, 0.0], hessian="full"
            ),
            r"a full Hessian of 18002 weights and biases is too large \(at most 16384\)",
        ),
        (lambda f: laplace_probs(f, X, link="bridge"), "unknown link 'bridge'; choose from probit, map"),
        (lambda f: laplace_probs(f, X[:0]), "with at least one row"),
        (
            lambda f: choose_prior_precision(f, X, Y, values=[1.0, -1.0]),
            "values must be a number of at least 1e-100; it is -1.0",
        ),
        (lambda f: choose_prior_precision(f, X, Y, values=[]), "values is empty"),
        (lambda f: choose_prior_precision(f, X, Y, link="mc"), "unknown link 'mc'"),
        (lambda f: choose_prior_precision(f, X, Y[:3]), "labels has 3 rows"),
    ],
)
def test_errors_say_what_came_and_where(fits, call, message):
    with np.errstate(all="ignore"), pytest.raises(ValueError, match=message):
        call(fits["kron"])


# --- kinds and sizes of numbers


def test_a_prior_that_was_replaced_is_checked(fits):
    for odd in (-1.0, 0.0, math.nan, 1e-320):
        with pytest.raises(ValueError, match="prior_precision must be a number of at least 1e-100"):
            laplace_probs(fits["kron"]._replace(prior_precision=odd), X)
    for edge in (1e-100, math.inf):
        assert np.isfinite(laplace_probs(fits["kron"]._replace(prior_precision=edge), np.zeros((2, D)))).all()


@pytest.mark.parametrize("hessian", HESSIANS)
def test_arrays_and_numbers_of_every_kind_give_the_same(fits, hessian, unchecked):
    expected = laplace_probs(fits[hessian], NEW)
    kinds = [Y.astype(kind) for kind in ("u1", "u2", "u8", ">i4")] + [Y[:, None], Y.tolist(), torch.tensor(Y)]
    for kind in kinds:
        fit = last_layer_laplace(X, kind, W, B, hessian=hessian, prior_precision=0.7)
        np.testing.assert_allclose(laplace_probs(fit, NEW), expected, atol=1e-12)
    weight, bias = torch.tensor(W, requires_grad=True), B.tolist()
    fit = last_layer_laplace(
        X.tolist(), Y, weight, bias, hessian=hessian, prior_precision=np.float64(0.7), total=np.int32(N)
    )
    np.testing.assert_allclose(laplace_probs(fit, NEW.astype(">f8")), expected, atol=1e-12)
    assert choose_prior_precision(fit, X, Y, values=np.array([0.5], np.float32)).prior_precision == 0.5


@pytest.mark.parametrize("hessian", HESSIANS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_the_default_dtype_changes_nothing(fits, hessian, dtype):
    expected = laplace_probs(fits[hessian], NEW)
    with default_dtype(dtype):
        fit = last_layer_laplace(X, Y, W, B, hessian=hessian, prior_precision=0.7)
        found = laplace_probs(fit, NEW)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        *(
            (lambda f, odd=odd: last_layer_laplace(X, Y, W, B, prior_precision=odd), "prior_precision must")
            for odd in (True, "1", None)
        ),
        *(
            (lambda f, odd=odd: last_layer_laplace(X, Y, W, B, total=odd), "total must be")
            for odd in (60.0, True, "60")
        ),
        *((lambda f, odd=odd: last_layer_laplace(X, odd, W, B), "labels") for odd in (None, 1.0 * Y, Y - 100, Y > 0)),
        (lambda f: last_layer_laplace(None, Y, W, B), "features must be"),
        (lambda f: last_layer_laplace(X, Y, None, B), "weight must be"),
        (lambda f: last_layer_laplace(X, Y, W, None), "bias must be"),
        (lambda f: last_layer_laplace(1e300 * X, Y, W, B), r"features must be at most 1e\+70 in size"),
        (lambda f: last_layer_laplace(X, Y, 1e300 * W, B), r"weight must be at most 1e\+70 in size"),
        (lambda f: laplace_probs(f, 1e300 * X), r"features must be at most 1e\+70 in size"),
        *(
            (lambda f, odd=odd: laplace_probs(odd, X), "fit must be what last_layer_laplace returns")
            for odd in (None, (1, 2))
        ),
        (lambda f: choose_prior_precision(None, X, Y), "fit must be what last_layer_laplace returns"),
        *(
            (lambda f, odd=odd: choose_prior_precision(f, X, Y, values=odd), "values")
            for odd in ("1", 1.0, [[1.0]], [True], ["a"])
        ),
        (lambda f: choose_prior_precision(f, X, Y, link=None), "unknown link None"),
    ],
)
def test_what_is_no_layer_or_prior_is_refused_by_name(fits, call, message, unchecked):
    with pytest.raises((TypeError, ValueError), match=message):
        call(fits["kron"])
