"""Metrics that update: any batches, in any order, from any processes, give the metric of all rows."""

import copy
import inspect
import itertools
import math
import pickle
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from uqlib import metrics
from uqlib.base.exact import UNIT, exact_sum, exact_sums, rounded_mean
from uqlib.judge import Stream, Streams
from uqlib.judge.streams import METRICS, REFUSED

OPTIONS = {
    "coverage_at_risk": {"risk": 0.1},
    "selective_accuracy_coverage": {"accuracy": 0.8},
    "risk_at_coverage": {"coverage": 0.7},
    "selective_accuracy_at_coverage": {"coverage": 0.7},
    "classwise_error": {"classes": 4},
    "top_k_accuracy": {"k": 2},
}
# what is counted, or depends on the order of the scores alone
COUNTED = [
    *((name, OPTIONS.get(name, {})) for name in METRICS if name not in ("nll", "brier", "smooth_ece")),
    ("ece", {"by": "mass", "bins": 4, "norm": "max"}),
    ("debiased_ece", {"by": "mass"}),
    ("classwise_ece", {"by": "mass", "bins": 3}),
    ("ece", {"bins": 7, "norm": "l2"}),
    ("debiased_ece", {"by": "width", "bins": 3}),
    ("classwise_ece", {"bins": 5, "norm": "max"}),
    ("fpr_at_tpr", {"tpr": 0.5}),
    ("correctness_aupr", {"positive": "wrong"}),
]


def function(name):
    return getattr(metrics, name)


def arrays_of(name, rows):
    return [rows[each] for each in list(inspect.signature(function(name)).parameters)[:2]]


def rows(n, classes=4, seed=0):
    """Examples whose numbers are multiples of 1/64, so that every sum of them in float64 is exact; each class occurs."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    probs = rng.multinomial(64 - classes, np.full(classes, 1 / classes), n) + 1  # sums to 64
    return {
        "labels": labels,
        "preds": np.where(rng.random(n) < 0.7, labels, rng.integers(0, classes, n)),
        "correct": np.concatenate([[True, False], rng.random(n - 2) < 0.7]),
        "confidence": rng.integers(1, 65, n) / 64,
        "positive": np.concatenate([[True, False], rng.random(n - 2) < 0.4]),
        "score": rng.integers(-9, 9, n) / 2,
        "probs": probs / 64,
        "logits": rng.integers(-64, 64, (n, classes)) / 16,
    }


def cut(arrays, batches, order=None):
    """The arrays in batches of these sizes, the last of what is left."""
    order = np.arange(len(arrays[0])) if order is None else order
    ends = np.minimum(np.cumsum(batches), len(order))
    for part in np.split(order, ends):
        if len(part):
            yield [each[part] for each in arrays]


def streamed(name, options, batches):
    stream = Stream(name, **options)
    for batch in batches:
        stream.update(*batch)
    return stream


def same_bits(value, other):
    parts = zip(value, other, strict=True) if isinstance(value, tuple) else [(value, other)]
    return all(np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True) for a, b in parts)


@pytest.mark.parametrize(("name", "options"), COUNTED, ids=str)
@settings(max_examples=4)
@given(
    n=st.integers(8, 40),
    seed=st.integers(0, 999),
    batches=st.lists(st.integers(1, 9), max_size=6),
    shuffle=st.randoms(use_true_random=False),
)
def test_any_batches_in_any_order_give_the_bits_of_the_metric(name, options, n, seed, batches, shuffle):
    arrays = arrays_of(name, rows(n, seed=seed))
    order = list(range(n))
    shuffle.shuffle(order)
    expected = function(name)(*arrays, **options)
    assert same_bits(streamed(name, options, cut(arrays, batches, np.array(order))).compute(), expected)


@pytest.mark.parametrize(("name", "options"), COUNTED, ids=str)
def test_parts_of_several_processes_merge_to_the_bits_of_the_metric(name, options):
    arrays = arrays_of(name, rows(60))
    parts = [streamed(name, options, cut(batch, [5, 5])) for batch in cut(arrays, [22, 13])]
    before = [part.count for part in parts]
    found = Stream(name, **options).merge_state(parts[::-1])
    assert [part.count for part in parts] == before
    assert found.count == 60
    assert same_bits(found.compute(), function(name)(*arrays, **options))


REAL = st.floats(0, 1, width=32) | st.floats(0, 1) | st.sampled_from([5e-324, 1 / 3, 1.0])


@given(st.lists(st.floats(-1e300, 1e300) | REAL, min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_an_exact_sum_is_that_of_fractions(values, shuffle):
    total = sum(map(Fraction, values))
    assert Fraction(exact_sum(torch.tensor(values, dtype=torch.float64)), 2**UNIT) == total
    assert rounded_mean(exact_sum(torch.tensor(values, dtype=torch.float64)), len(values)) == float(total / len(values))
    single = torch.tensor(values, dtype=torch.float64).clip(2**-13, 1).float()  # takes a shorter way
    assert Fraction(exact_sum(single), 2**UNIT) == sum(map(Fraction, single.tolist()))
    cell = [shuffle.randrange(3) for _ in values]
    sums = exact_sums(torch.tensor(values, dtype=torch.float64), torch.tensor(cell), 4)
    for k, each in enumerate(sums):
        own = (Fraction(value) for value, where in zip(values, cell, strict=True) if where == k)
        assert Fraction(each, 2**UNIT) == sum(own)


@given(st.lists(st.tuples(REAL, st.booleans()), min_size=1, max_size=40), st.integers(1, 9), st.integers(1, 20))
def test_bins_of_equal_width_are_rounded_once(examples, batch, bins):
    confidence, correct = map(np.array, zip(*examples, strict=True))
    parts = cut([confidence, correct], [batch] * 40)
    found = streamed("reliability_curve", {"bins": bins}, parts).compute()
    expected = metrics.reliability_curve(confidence, correct, bins=bins)
    assert same_bits(found[1:], expected[1:])
    edges = np.arange(1, bins + 1) / bins
    own = [[c for c in confidence if edge == edges[np.searchsorted(edges, c)]] for edge in edges]
    sums = [float(sum(map(Fraction, each))) / len(each) if each else math.nan for each in own]
    assert same_bits(found.confidence, np.array(sums))


@pytest.mark.parametrize("name", ["nll", "brier"])
def test_a_mean_is_that_of_the_exact_sum_in_any_batches_and_near_the_metric(name):
    rng = np.random.default_rng(0)
    n, labels = 3000, rng.integers(0, 5, 3000)
    logits = 3 * np.eye(5)[labels] + 2 * rng.normal(size=(n, 5))
    table = logits if name == "nll" else np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    each = function(f"{name}_each")(table, labels)
    expected = float(sum(map(Fraction, each.tolist())) / n)
    orders = [np.arange(n), rng.permutation(n)]
    found = [
        streamed(name, {}, cut([table, labels], [size] * n, order)).compute() for size in (41, n) for order in orders
    ]
    assert set(found) == {expected}
    assert function(name)(table, labels) == expected


@pytest.mark.parametrize("name", ["ece", "rms_calibration_error", "debiased_ece", "classwise_ece"])
def test_an_error_of_equal_width_is_within_roundings_of_the_metric(name):
    rng = np.random.default_rng(0)
    correct = rng.random(4000) < 0.8
    confidence = rng.beta(4, 1, 4000)
    probs = rng.dirichlet(np.ones(5), 4000)
    arrays = [probs, rng.integers(0, 5, 4000)] if name == "classwise_ece" else [confidence, correct]
    found = streamed(name, {"by": "width"}, cut(arrays, [73] * 60)).compute()
    assert found == function(name)(*arrays, by="width")


def test_float32_confidences_above_the_first_bin_have_the_bits_of_ece():
    """A float64 adds 2**25 float32 between 1/15 and 1 without rounding."""
    rng = np.random.default_rng(0)
    confidence, correct = rng.uniform(0.1, 1, 200_000).astype(np.float32), rng.random(200_000) < 0.8
    assert streamed("ece", {}, cut([confidence, correct], [777] * 300)).compute() == metrics.ece(confidence, correct)


def test_the_smooth_error_is_that_of_all_rows():
    rng = np.random.default_rng(0)
    confidence, correct = rng.random(500), rng.random(500) < 0.6
    stream = streamed("smooth_ece", {}, cut([confidence, correct], [99] * 6))
    assert stream.compute() == pytest.approx(metrics.smooth_ece(confidence, correct), abs=2e-8)


def test_every_metric_of_the_family_streams_or_says_why_not():
    """What takes two arrays with a row an example is here; what gives a value an example, or bins, is no metric."""
    pairs = (
        ["confidence", "correct"],
        ["score", "positive"],
        ["logits", "labels"],
        ["probs", "labels"],
        ["preds", "labels"],
    )
    found = {
        name
        for name in metrics.__all__
        if inspect.isfunction(function(name))
        and list(inspect.signature(function(name)).parameters)[:2] in map(list, pairs)
    }
    parts = {"bin_by_mass", "bin_by_width", "rank", "correctness", "nll_each", "brier_each", "top_k_each"}
    parts |= {"misclassified", "recalibrated"}
    assert found - parts - set(REFUSED) == set(METRICS)
    for name in REFUSED:
        with pytest.raises(ValueError, match=f"{name} cannot be streamed: "):
            Stream(name)


def test_a_collection_keeps_in_common_what_its_metrics_share():
    names = ["aurc", "augrc", "correctness_auroc", "ece", "accuracy", "nll", "brier", "macro_f1"]
    streams = Streams(*names, mass=Stream("ece", by="mass"), curve=Stream("reliability_curve"))
    assert len(streams.state()["metrics"]) == 10
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 3, 300)
    logits = (2 * np.eye(3)[labels] + rng.normal(size=(300, 3))).astype(np.float32)
    for batch in cut([logits, labels], [90, 90, 90]):
        streams.update(logits=batch[0], labels=batch[1])
    assert len(streams.state()["kept"]) == 6  # one Ranking, one of bins, three means, one of classes
    probs = torch.tensor(logits).double().softmax(-1).numpy()
    confidence, correct = probs.max(1), logits.argmax(1) == labels
    found = streams.compute()
    for name in ("aurc", "augrc", "correctness_auroc"):
        assert found[name] == function(name)(confidence, correct)
    assert found["ece"] == metrics.ece(confidence, correct)
    assert found["mass"] == metrics.ece(confidence, correct, by="mass")
    assert found["macro_f1"] == metrics.macro_f1(logits.argmax(1), labels)
    assert found["accuracy"] == correct.mean()
    assert found["nll"] == metrics.nll(logits, labels)
    assert found["brier"] == metrics.brier(probs, labels)


def test_a_collection_takes_confidences_of_their_own():
    given = rows(30)
    streams = Streams("aurc", "brier")
    streams.update(**{name: given[name] for name in ("confidence", "correct", "probs", "labels")})
    assert streams.compute()["aurc"] == metrics.aurc(given["confidence"], given["correct"])
    streams = Streams("aurc", "brier")
    streams.update(probs=given["probs"], labels=given["labels"])
    correct = given["probs"].argmax(1) == given["labels"]
    assert streams.compute()["aurc"] == metrics.aurc(given["probs"].max(1), correct)


GLOO = """
import sys
import numpy as np
import torch.distributed as dist
from uqlib.judge import Streams

rank = int(sys.argv[1])
dist.init_process_group("gloo", init_method=f"file://{sys.argv[2]}", rank=rank, world_size=2)
rng = np.random.default_rng(0)
labels, logits = rng.integers(0, 3, 100), rng.normal(size=(100, 3))
streams, own = Streams("aurc", "nll", "ece"), slice(rank, None, 2)
streams.update(logits=logits[own], labels=labels[own])
states = [None, None]
dist.all_gather_object(states, streams.state())
merged = Streams("aurc", "nll", "ece").merge_state(map(Streams.from_state, states))
whole = Streams("aurc", "nll", "ece")
whole.update(logits=logits, labels=labels)
assert merged.count == 100
assert merged.compute() == whole.compute()
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_of_torch_gather_their_states(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", GLOO]
    running = [
        subprocess.Popen([*command, str(rank), str(tmp_path / "meeting")], stderr=subprocess.PIPE) for rank in (0, 1)
    ]
    errors = [each.communicate()[1].decode() for each in running]
    assert [each.returncode for each in running] == [0, 0], errors


MEMORY = """
import resource
import torch
from uqlib.judge import Streams

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

generator = torch.Generator().manual_seed(0)
streams = Streams("ece", "nll")
for batch in range(100):
    logits = 3 * torch.randn(100_000, 3, generator=generator)
    streams.update(logits=logits, labels=torch.randint(3, (100_000,), generator=generator))
    if batch == 2:
        before = peak()
values = streams.compute()
assert streams.count == 10**7
print(peak() - before)
"""


@pytest.mark.slow
def test_ten_million_rows_take_the_memory_of_one_batch():
    found = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert float(found.stdout) < 30  # MiB; the logits alone are 114


def test_a_ranking_that_grows_takes_the_memory_of_its_distinct_scores():
    stream = Stream("aurc")
    rng = np.random.default_rng(0)
    for _ in range(200):
        stream.update(rng.integers(0, 50, 40) / 64, rng.random(40) < 0.5)
        assert sum(len(part.scores) for part in stream._kept[("ranking", "confidence", "correct")].parts) <= 140


@pytest.mark.parametrize(
    "again",
    [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each)), lambda each: type(each).from_state(each.state())],
)
@pytest.mark.parametrize(
    "make",
    [lambda: Stream("classwise_ece", by="mass"), lambda: Stream("ece", bins=3), lambda: Streams("macro_f1", "brier")],
)
def test_a_copy_goes_on_alone(make, again):
    given = rows(40)
    stream = make()
    empty = again(stream)
    names = (
        ("probs", "labels") if "ece" not in repr(stream) or "classwise" in repr(stream) else ("confidence", "correct")
    )
    stream.update(**{name: given[name] for name in names})
    other = again(stream)
    value = stream.compute()
    other.update(**{name: given[name][:9] for name in names})
    assert (empty.count, stream.count, other.count) == (0, 40, 49)
    assert stream.compute() == value
    stream.update(**{name: given[name][:9] for name in names})
    assert stream.compute() == other.compute()
    stream.reset()
    with pytest.raises(ValueError, match="no example yet; call update before compute"):
        stream.compute()
    assert not again(stream).count


def test_a_batch_that_is_refused_leaves_no_trace():
    streams = Streams("aurc", "ece", "nll", "classwise_ece")
    given = {name: rows(20)[name] for name in ("confidence", "correct", "logits", "labels", "probs")}
    streams.update(**given)
    before = streams.compute()
    for name, bad in [
        ("confidence", 1.5 * np.ones(20)),
        ("labels", np.full(20, 7)),
        ("probs", np.pad(given["probs"], ((0, 0), (0, 1)))),
        ("logits", given["logits"] * np.nan),
        ("correct", given["correct"][:5]),
    ]:
        with pytest.raises(ValueError, match=f"^{name}"):
            streams.update(**given | {name: bad})
        assert (streams.count, streams.compute()) == (20, before)
    shorter = {name: given[name][:9] for name in ("confidence", "correct")}
    with pytest.raises(ValueError, match="where 9 are expected"):
        streams.update(**given | shorter)
    assert (streams.count, streams.compute()) == (20, before)


def test_a_merge_that_does_not_fit_leaves_no_trace():
    one, other = Streams("aurc", "classwise_ece"), Streams("aurc", "classwise_ece")
    one.update(**{name: rows(20)[name] for name in ("confidence", "correct", "probs", "labels")})
    other.update(**{name: rows(20, classes=3)[name] for name in ("confidence", "correct", "probs", "labels")})
    before = one.compute()
    for merge in (lambda: one.merge(other), lambda: one.merge_state([one, other])):
        with pytest.raises(ValueError, match="probs must have 4 columns, one a class, as before; now there are 3"):
            merge()
        assert (one.count, one.compute()) == (20, before)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: Stream("acurracy"), ValueError, "unknown metric 'acurracy'; choose from accuracy, nll"),
        (lambda: Stream(metrics.ece), ValueError, "unknown metric"),
        (lambda: Stream("nll", bins=3), TypeError, "nll has no option 'bins'; it has none"),
        (lambda: Stream("aurc", risk=0.1), TypeError, "aurc has no option 'risk'"),
        (lambda: Stream("ece", binz=3), TypeError, "ece has no option 'binz'; it has bins, by, norm"),
        (lambda: Stream("ece", bins=0), ValueError, "bins must be a whole number of at least 1; it is 0"),
        (lambda: Stream("ece", by="size"), ValueError, "unknown by 'size'"),
        (lambda: Stream("classwise_ece", norm="l3"), ValueError, "unknown norm 'l3'"),
        (lambda: Stream("coverage_at_risk"), TypeError, "coverage_at_risk needs risk; pass risk="),
        (lambda: Stream("fpr_at_tpr", tpr=95), ValueError, "tpr must lie in"),
        (lambda: Stream("classwise_error", classes=0), ValueError, "classes must be"),
        (lambda: Streams(), ValueError, "metrics is empty"),
        (lambda: Streams("aurc", "aurc"), ValueError, "'aurc' occurs twice"),
        (lambda: Streams("aurc", aurc="nll"), ValueError, "'aurc' occurs twice"),
        (lambda: Stream("aurc").update([0.5]), TypeError, "aurc takes confidence and correct; got by position"),
        (lambda: Stream("aurc").update([0.5], confidence=[0.5]), TypeError, "aurc takes confidence and correct"),
        (lambda: Stream("aurc").update([0.5, 0.4], [True]), ValueError, "correct has 1 rows where 2 are expected"),
        (lambda: Stream("aurc").update([math.nan], [True]), ValueError, "confidence must be finite; row 0"),
        (lambda: Streams("aurc").update(score=[1], positive=[True]), TypeError, "none of these metrics takes positive"),
        (lambda: Streams("aurc").update(confidence=[0.5]), TypeError, "update needs correct; got confidence"),
        (lambda: Stream("aurc").compute(), ValueError, "call update before compute"),
        (lambda: Stream("aurc").merge(Stream("augrc")), ValueError, "same metrics and options"),
        (lambda: Stream("ece").merge(Stream("ece", bins=9)), ValueError, "same metrics and options"),
        (lambda: Stream("ece").merge(Streams("ece")), TypeError, "merge takes another Stream; it is a Streams"),
        (lambda: Stream("ece").merge_state(Stream("ece")), TypeError, "takes a list; it is a Stream"),
    ],
    ids=itertools.count(),
)
def test_what_cannot_be_is_said(unchecked, make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_metric_without_a_value_yet_says_so_and_goes_on():
    stream = Stream("auroc")
    stream.update([0.5, 0.75], [True, True])
    with pytest.raises(ValueError, match="auroc needs both classes"):
        stream.compute()
    stream.update([0.25], [False])
    assert stream.compute() == 1.0
    errors = Stream("classwise_error", classes=3)
    errors.update([0, 0], [0, 2])
    with pytest.raises(ValueError, match="class 1 of 3 has none so far"):
        errors.compute()
    with pytest.raises(ValueError, match="new has seen 3 examples; pass a new Stream"):
        Streams(new=stream, u=errors)
