"""scikit-learn's own checks and calibrators, and the functions that the estimators are thin over."""

import subprocess
import sys
import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import load_iris, make_classification
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_predict, cross_val_score
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import check_estimator

from uqlib import metrics
from uqlib.combine import decide, fit_duo
from uqlib.judge import DifficultyScorer, Duo, TemperatureScaling, scorer
from uqlib.judge.scoring import HIGHER, LOWER

NAMES = np.array(["setosa", "versicolor", "virginica"])


@pytest.fixture(scope="module")
def three():
    """Three classes by name, of which naive Bayes is too sure."""
    X, y = make_classification(600, 6, n_informative=3, n_redundant=3, n_classes=3, class_sep=0.7, random_state=0)
    return X, NAMES[y]


@pytest.fixture(scope="module")
def two():
    return make_classification(400, 5, class_sep=0.6, random_state=1)


@pytest.mark.parametrize(
    "estimator",
    [
        TemperatureScaling(GaussianNB(), cv=2),
        Duo(LogisticRegression(), GaussianNB(), cv=2),
        DifficultyScorer(),
    ],
    ids=repr,
)
def test_scikit_learn_finds_nothing_wrong(unchecked, estimator):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of data that every fold separates
        found = check_estimator(estimator, on_fail=None)
    assert len(found) > 50
    failed = [(each["check_name"], each["exception"]) for each in found if each["status"] in ("failed", "xfail")]
    assert not failed


@pytest.mark.parametrize(
    "inner", [GaussianNB(), LogisticRegression(), SVC(), make_pipeline(StandardScaler(), GaussianNB())]
)
@pytest.mark.parametrize("data", ["two", "three"])
def test_probabilities_are_those_of_scikit_learns_temperature(inner, data, request):
    X, y = request.getfixturevalue(data)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = CalibratedClassifierCV(inner, method="temperature", cv=folds, ensemble=False).fit(X, y)
    mine = TemperatureScaling(inner).fit(X, y)
    np.testing.assert_allclose(mine.predict_proba(X), theirs.predict_proba(X), atol=2e-6)
    assert list(mine.classes_) == list(theirs.classes_)


def test_a_frozen_classifier_keeps_its_predictions(three):
    X, y = three
    fitted = GaussianNB().fit(X[:300], y[:300])
    model = TemperatureScaling(FrozenEstimator(fitted)).fit(X[300:], y[300:])
    theirs = CalibratedClassifierCV(FrozenEstimator(fitted), method="temperature").fit(X[300:], y[300:])
    np.testing.assert_allclose(model.predict_proba(X), theirs.predict_proba(X), atol=2e-6)
    assert (model.predict(X) == fitted.predict(X)).all()
    assert model.temperature_ > 1


def test_logits_are_taken_as_they_are(three):
    X, y = three
    logits = np.log(GaussianNB().fit(X, y).predict_proba(X).clip(1e-12))
    model = TemperatureScaling().fit(logits, y)
    powers = np.exp(logits / model.temperature_)
    np.testing.assert_allclose(model.predict_proba(logits), powers / powers.sum(1, keepdims=True), rtol=1e-12)
    assert model.n_features_in_ == 3
    part = y != "setosa"
    with pytest.raises(ValueError, match=r"one column a class \(2 classes\); it has 3 columns"):
        TemperatureScaling().fit(logits[part], y[part])
    assert list(TemperatureScaling(classes=NAMES).fit(logits[part], y[part]).classes_) == list(NAMES)
    with pytest.raises(ValueError, match="the logits of X"):
        TemperatureScaling().fit(np.exp(logits), y)


def test_a_duo_is_that_of_the_function(three):
    X, y = three
    large, small = (
        3 * np.log(model.fit(X, y).predict_proba(X).clip(1e-12)) for model in (LogisticRegression(), GaussianNB())
    )
    both, labels = np.hstack([large, small]), np.searchsorted(NAMES, y)
    fit = fit_duo(large[:300], small[:300], labels[:300])
    model = Duo().fit(both[:300], y[:300])
    np.testing.assert_allclose(
        model.predict_proba(both[300:]), decide("ours", large[300:], small[300:], fit).probs, rtol=1e-9
    )
    assert (model.predict(both[300:]) == NAMES[decide("ours", large[300:], small[300:], fit).preds]).all()
    with pytest.raises(ValueError, match="3 classes times 2 networks"):
        Duo().fit(large, y)


def test_a_duo_of_estimators_fits_its_weights_on_what_they_have_not_seen(three):
    X, y = three
    pair = (LogisticRegression(), GaussianNB())
    folds = StratifiedKFold(4, shuffle=True, random_state=0)
    held = [
        np.asarray(cross_val_predict(pair[0], X, y, cv=folds, method="decision_function")),
        np.log(cross_val_predict(pair[1], X, y, cv=folds, method="predict_proba").clip(np.finfo(float).eps)),
    ]
    model = Duo(*pair, cv=4).fit(X, y)
    np.testing.assert_allclose(model.weights_, fit_duo(*held, np.searchsorted(NAMES, y)).weights, rtol=1e-9)


def test_names_of_columns_pipelines_and_searches(three):
    X, y = three
    frame = pd.DataFrame(X, columns=[f"feature {k}" for k in range(6)])
    model = make_pipeline(StandardScaler().set_output(transform="pandas"), TemperatureScaling(LogisticRegression()))
    assert list(model.fit(frame, y)[-1].feature_names_in_) == list(frame.columns)
    assert model.predict(frame).dtype == y.dtype
    search = GridSearchCV(
        TemperatureScaling(LogisticRegression()), {"estimator__C": [1e-5, 1]}, scoring=scorer("nll"), cv=3
    )
    assert search.fit(X, y).best_params_ == {"estimator__C": 1}
    assert clone(search.best_estimator_).get_params()["estimator__C"] == 1


def test_where_no_temperature_is_the_best_a_warning_says_so():
    X, y = load_iris(return_X_y=True)
    X, y = X[y < 2], y[y < 2]
    with pytest.warns(ConvergenceWarning, match="every one of the 100 labels has the largest logit"):
        model = TemperatureScaling(LogisticRegression()).fit(X, y)
    assert model.temperature_ == 1
    with pytest.warns(ConvergenceWarning, match="left as they are"):
        assert Duo(LogisticRegression(), GaussianNB()).fit(X, y).weights_.tolist() == [0.5, 0.5]


def test_a_difficulty_is_the_distance_written_out(three):
    X, y = three
    X = X[:, :3] + 0.1 * np.random.default_rng(0).normal(size=(600, 3))
    model = DifficultyScorer(relative=False, ridge=0).fit(X, y)
    means = {name: X[y == name].mean(0) for name in NAMES}
    away = X - np.array([means[name] for name in y])
    inverse = np.linalg.inv(away.T @ away / len(X))
    np.testing.assert_allclose(model.score_samples(X, y), np.einsum("nd,de,ne->n", away, inverse, away), rtol=1e-8)
    nearest = np.min([np.einsum("nd,de,ne->n", X - m, inverse, X - m) for m in means.values()], 0)
    np.testing.assert_allclose(model.score_samples(X), nearest, rtol=1e-8)
    relative = DifficultyScorer(ridge=0).fit(X, y)
    centred = X - X.mean(0)
    to_all = np.einsum("nd,de,ne->n", centred, np.linalg.inv(centred.T @ centred / len(X)), centred)
    np.testing.assert_allclose(relative.score_samples(X, y), model.score_samples(X, y) - to_all, rtol=1e-7, atol=1e-9)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 3] * 3).fit(X, y)
    assert (model.predict(X) == theirs.predict(X)).mean() > 0.99  # which weighs the classes' covariances equally
    with pytest.raises(ValueError, match=r"row 1 is np.str_\('rose'\), which was not fitted"):
        model.score_samples(X[:2], ["setosa", "rose"])


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        *(("nll", "neg_log_loss"), ("brier", "neg_brier_score"), ("auroc", "roc_auc"), ("aupr", "average_precision")),
        *(("accuracy", "accuracy"), ("macro_f1", "f1_macro")),
    ],
)
@pytest.mark.parametrize("data", ["two", "three"])
def test_scores_are_those_of_scikit_learn(name, theirs, data, request):
    X, y = request.getfixturevalue(data)
    if name in ("auroc", "aupr") and data == "three":
        with pytest.raises(ValueError, match="needs two classes; there are 3"):
            scorer(name)(GaussianNB().fit(X, y), X, y)
        return
    scale = 2 if name == "brier" and data == "two" else 1  # of two classes theirs is halved
    mine = cross_val_score(GaussianNB(), X, y, cv=3, scoring=scorer(name))
    np.testing.assert_allclose(mine, scale * cross_val_score(GaussianNB(), X, y, cv=3, scoring=theirs), rtol=1e-9)


def test_scores_of_confidences_are_the_metrics_with_their_sign(three):
    X, y = three
    model = GaussianNB().fit(X, y)
    confidence, correct = model.predict_proba(X).max(1), model.predict(X) == y
    assert scorer("aurc")(model, X, y) == -metrics.aurc(confidence, correct)
    assert scorer("ece", bins=7)(model, X, y) == -metrics.ece(confidence, correct, bins=7)
    assert scorer("correctness_auroc")(model, X, y) == metrics.correctness_auroc(confidence, correct)
    assert repr(scorer("ece", bins=7)) == "scorer('ece', bins=7)"


@pytest.mark.parametrize("name", [*HIGHER, *LOWER])
def test_a_better_classifier_scores_higher(name, two):
    X, y = two
    options = {
        "coverage_at_risk": {"risk": 0.1},
        "selective_accuracy_coverage": {"accuracy": 0.8},
        "risk_at_coverage": {"coverage": 0.5},
        "selective_accuracy_at_coverage": {"coverage": 0.5},
    }.get(name, {})
    score = scorer(name, **options)
    good = LogisticRegression().fit(X, y)
    bad = LogisticRegression().fit(X, np.random.default_rng(0).permutation(y))
    bad.coef_ = 9 * bad.coef_
    assert score(good, X, y) > score(bad, X, y)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda X, y: scorer("acuracy"), ValueError, "unknown metric 'acuracy'"),
        (lambda X, y: scorer("roc_curve"), ValueError, "unknown metric 'roc_curve'"),
        (lambda X, y: scorer("aurc", bins=3), TypeError, "aurc has no option 'bins'"),
        (lambda X, y: scorer("risk_at_coverage"), TypeError, "needs coverage; pass coverage="),
        (lambda X, y: scorer("nll")(SVC().fit(X, y), X, y), TypeError, "SVC has none. TemperatureScaling"),
        (lambda X, y: scorer("nll")(GaussianNB().fit(X, y), X, y == "a"), ValueError, "row 0 is np.False_"),
        (lambda X, y: Duo(GaussianNB()).fit(X, y), ValueError, "small must be an estimator, as large is"),
        (lambda X, y: TemperatureScaling(GaussianNB(), cv=1).fit(X, y), ValueError, "cv must be"),
        (lambda X, y: TemperatureScaling(GaussianNB(), classes=NAMES).fit(X, y), ValueError, "classes must be None"),
        (lambda X, y: TemperatureScaling(StandardScaler()).fit(X, y), TypeError, "StandardScaler has neither"),
        (lambda X, y: TemperatureScaling(GaussianNB()).fit(X[:9], [*"aaaaaaaab"]), ValueError, "two examples"),
        (
            lambda X, y: TemperatureScaling(FrozenEstimator(GaussianNB().fit(X, y))).fit(
                X, np.char.replace(y, "v", "w")
            ),
            ValueError,
            "was fitted on class 'versicolor'",
        ),
        (
            lambda X, y: TemperatureScaling(SVC(decision_function_shape="ovo")).fit(
                np.vstack([X, X + 9]), [*y, *y + "2"]
            ),
            ValueError,
            "one value a class, 6; SVC gives 15",
        ),
    ],
)
def test_what_cannot_be_is_said(unchecked, three, call, error, message):
    with pytest.raises(error, match=message):
        call(*three)


def test_the_family_waits_for_scikit_learn_until_an_estimator_is_asked_for():
    code = """
import sys
from uqlib import judge
from uqlib.judge import Stream, scorer
print("sklearn" in sys.modules)
judge.Duo
print("sklearn" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == [
        "False",
        "True",
    ]
