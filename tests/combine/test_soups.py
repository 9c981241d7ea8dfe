import copy

import numpy as np
import pytest
import torch
from conftest import default_dtype
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from uqlib.combine.soups import greedy_soup, reestimate_batch_norm, uniform_soup

GENERATOR = torch.Generator().manual_seed(0)


def randn(*shape, dtype=torch.float32):
    return torch.randn(*shape, generator=GENERATOR, dtype=dtype)


def classifiers(members=4, dtype=torch.float64):
    return [{"weight": randn(5, 8, dtype=dtype), "bias": randn(5, dtype=dtype)} for _ in range(members)]


def test_a_soup_of_linear_classifiers_is_the_ensemble_of_their_logits():
    states, x = classifiers(), randn(20, 8, dtype=torch.float64)
    soup = uniform_soup(states)
    logits = torch.stack([x @ state["weight"].T + state["bias"] for state in states]).mean(0)
    torch.testing.assert_close(x @ soup["weight"].T + soup["bias"], logits, rtol=0, atol=1e-13)


def test_the_mean_is_that_of_float64_rounded_once():
    states = classifiers(7, torch.float32)
    soup = uniform_soup(iter(states))  # read one by one
    expected = np.stack([state["weight"].numpy().astype(np.float64) for state in states]).mean(0)
    np.testing.assert_array_equal(soup["weight"].numpy(), expected.astype(np.float32))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_entries_keep_their_dtype_their_order_and_do_not_overflow(dtype):
    soup = uniform_soup([{"b": torch.tensor([60000.0], dtype=dtype), "a": torch.tensor(value)} for value in (3, 9)])
    assert list(soup) == ["b", "a"]
    assert soup["b"].dtype == dtype
    assert soup["b"].item() == torch.tensor(60000.0, dtype=dtype).item()  # twice that is more than float16 holds
    assert soup["a"].item() == 3  # a counter is that of the first
    assert soup["a"].dtype == torch.int64


def test_the_states_are_left_alone_and_share_no_memory_with_the_soup():
    states = classifiers(3)
    states[0]["count"] = states[1]["count"] = states[2]["count"] = torch.tensor(2)
    before = copy.deepcopy(states)
    for soup in (uniform_soup(states), greedy_soup(states, [3, 2, 1], lambda state: 0.0).state):
        for value in soup.values():
            value.zero_()
    for now, then in zip(states, before, strict=True):
        assert all(now[name].equal(then[name]) for name in then)


def test_numpy_states_and_modules_load():
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
    other = copy.deepcopy(model)
    with torch.no_grad():
        other[0].weight += 2
    soup = uniform_soup([model.state_dict(), {k: v.numpy() for k, v in other.state_dict().items()}])
    model.load_state_dict(soup)
    torch.testing.assert_close(model[0].weight, other[0].weight - 1, rtol=0, atol=1e-6)


def greedy_by_hand(values, scores, target):
    """The recipe on single numbers, with means taken anew each time."""
    order = sorted(range(len(values)), key=lambda k: (-scores[k], k))
    kept = [order[0]]
    for k in order[1:]:
        with_k = np.mean([values[j] for j in [*kept, k]])
        if -abs(with_k - target) > -abs(np.mean([values[j] for j in kept]) - target):
            kept.append(k)
    return tuple(kept)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(-8, 8), st.integers(0, 3)), min_size=1, max_size=6), st.sampled_from([0.0, 0.3]))
def test_greedy_is_the_recipe(rows, target):
    values, scores = zip(*rows, strict=True)
    states = [{"w": torch.tensor([float(v)], dtype=torch.float64)} for v in values]

    def evaluate(state):
        return -abs(state["w"].item() - target)

    found = greedy_soup(states, scores, evaluate)
    assert found.members == greedy_by_hand(values, scores, target)
    assert found.state["w"].item() == pytest.approx(np.mean([values[k] for k in found.members]), abs=1e-14)
    assert found.score == evaluate(found.state)


def test_greedy_keeps_only_what_helps_and_not_what_leaves_the_score_as_it_is():
    states = [{"w": torch.tensor([w])} for w in (4.0, 0.0, 2.0, -2.0)]
    asked = []

    def evaluate(state):
        asked.append(state["w"].item())
        return -abs(state["w"].item() - 1)

    found = greedy_soup(states, torch.tensor([0.9, 0.1, 0.9, 0.5]), evaluate)
    # 4 first (a tie goes by index); with 2 better (3); with -2 better (4/3); with 0 as good as it gets (1)
    assert asked == [4.0, 3.0, pytest.approx(4 / 3), 1.0]
    assert (found.members, found.score) == ((0, 2, 3, 1), 0.0)
    assert greedy_soup(states, [0.9, 0.8, 0.7, 0.6], lambda state: 5.0).members == (0,)


def network():
    torch.manual_seed(1)
    layers = [
        nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.BatchNorm2d(4, momentum=0.3), nn.ReLU(), nn.Conv2d(4, 5, 3),
        nn.BatchNorm2d(5, momentum=None), nn.Flatten(), nn.Linear(80, 6), nn.BatchNorm1d(6),
        nn.BatchNorm1d(6, track_running_stats=False),
    ]  # fmt: skip
    model = nn.Sequential(*layers).train()
    model[4].eval()
    return model


def test_statistics_are_the_means_over_batches_of_mean_and_unbiased_variance():
    model, batches = network(), [randn(n, 3, 8, 8) for n in (6, 6, 3)]
    model(5 + 3 * randn(9, 3, 8, 8))  # statistics that must be forgotten
    first = [model[0](batch).detach().double() for batch in batches]  # dropout must be off
    second = []
    for x in first:
        mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), correction=0, keepdim=True)
        normal = (x - mean) / (var + 1e-5).sqrt()
        second.append(nn.functional.conv2d(normal.relu(), model[4].weight.double(), model[4].bias.double()).detach())
    assert reestimate_batch_norm(model, batches) is model
    for layer, inputs in ((model[2], first), (model[5], second)):
        mean = torch.stack([x.mean((0, 2, 3)) for x in inputs]).mean(0)
        var = torch.stack([x.transpose(0, 1).flatten(1).var(1, correction=1) for x in inputs]).mean(0)
        torch.testing.assert_close(layer.running_mean.double(), mean, rtol=0, atol=1e-6)  # float32 inside
        torch.testing.assert_close(layer.running_var.double(), var, rtol=1e-5, atol=0)
        assert layer.num_batches_tracked == 3


def test_without_dropout_it_is_what_torch_does_to_averaged_weights():
    model = network()
    model[1] = nn.Identity()
    twin, batches = copy.deepcopy(model), [randn(6, 3, 8, 8) for _ in range(4)]
    torch.optim.swa_utils.update_bn(batches, twin)
    reestimate_batch_norm(model, batches)
    for (name, ours), theirs in zip(model.state_dict().items(), twin.state_dict().values(), strict=True):
        assert ours.equal(theirs), name


class Wrapped(nn.BatchNorm2d):
    """As in timm: a batch norm that holds another layer and calls it."""

    def __init__(self, channels):
        super().__init__(channels)
        self.act = nn.Dropout(1.0)

    def forward(self, x):
        return self.act(super().forward(x))


def test_a_layer_inside_of_a_batch_norm_stays_in_eval_mode():
    model = nn.Sequential(Wrapped(3), nn.BatchNorm2d(3)).train()
    reestimate_batch_norm(model, [randn(50, 3, 4, 4)])
    assert model[1].running_var.tolist() == pytest.approx([1, 1, 1], abs=5e-3)  # 800 values, n / (n - 1), and eps
    assert model[0].act.training


def test_modes_momenta_and_gradients_are_left_as_they_were():
    model = network()
    modes, momenta = [m.training for m in model.modules()], [getattr(m, "momentum", 7) for m in model.modules()]
    recorded = []
    model[0].register_forward_hook(lambda *parts: recorded.append(parts[-1].requires_grad))
    reestimate_batch_norm(model, (images.numpy() for images in [randn(4, 3, 8, 8)]))
    assert recorded == [False]
    assert modes == [m.training for m in model.modules()]
    assert momenta == [getattr(m, "momentum", 7) for m in model.modules()]
    assert all(p.grad is None for p in model.parameters())
    assert not any(buffer.requires_grad for buffer in model.buffers())


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([], ValueError, "batches is empty"),
        ([torch.zeros(4, 3, 8, 8), torch.zeros(4, 2, 8, 8)], RuntimeError, "to have 3 channels"),
        ([(torch.zeros(4, 3, 8, 8), torch.zeros(4))], TypeError, r"batch 0 is a tuple; pass the images alone"),
        ([torch.zeros(4, 3, 8, 8, dtype=torch.uint8)], TypeError, "batch 0 holds torch.uint8; pass normalised floats"),
        (torch.zeros(4, 3, 8, 8), TypeError, r"got one array of shape \(4, 3, 8, 8\): pass images.split"),
    ],
)
def test_a_failure_leaves_the_old_statistics(batches, error, message):
    model = network()
    reestimate_batch_norm(model, [randn(4, 3, 8, 8)])
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        reestimate_batch_norm(model, batches)
    assert all(before[name].equal(value) for name, value in model.state_dict().items())
    assert model.training
    assert model[2].momentum == 0.3


def test_a_network_without_batch_norm_is_returned_and_no_batch_is_read():
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3), nn.BatchNorm1d(3, track_running_stats=False))
    assert reestimate_batch_norm(model, iter(())) is model


A, B = classifiers(2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: uniform_soup([]), ValueError, "states is empty"),
        (lambda: uniform_soup(A), TypeError, "state 0 is a str; pass a list"),
        (lambda: uniform_soup([A, nn.Linear(2, 2)]), TypeError, "state 1 is a Linear; pass a list"),
        (
            lambda: uniform_soup([A, B, {"weight": B["weight"]}]),
            ValueError,
            r"'bias' is floats of shape \(5,\) in state 0 and missing in state 2",
        ),
        (
            lambda: uniform_soup([A, B | {"scale": B["bias"]}]),
            ValueError,
            r"'scale' is missing in state 0 and floats of shape \(5,\) in state 1",
        ),
        (
            lambda: uniform_soup([A, {"weight": B["weight"][:4], "bias": B["bias"][:4]}]),
            ValueError,
            r"'weight' is floats of shape \(5, 8\) in state 0 and floats of shape \(4, 8\) in state 1",
        ),
        (
            lambda: uniform_soup([A, B | {"bias": B["bias"].long()}]),
            ValueError,
            r"'bias' is floats of shape \(5,\) in state 0 and integers of shape \(5,\) in state 1",
        ),
        (
            lambda: uniform_soup([A, B | {"bias": B["bias"] / 0}]),
            ValueError,
            "weights must be finite; 'bias' of state 1 is not",
        ),
        (lambda: greedy_soup([], [], len), ValueError, "at least one; there are 0 for 0 states"),
        (lambda: greedy_soup([A, B], [1.0], len), ValueError, "one a state, at least one; there are 1 for 2 states"),
        (lambda: greedy_soup([A, B], [1.0, np.nan], len), ValueError, "that of state 1 is nan"),
        (lambda: greedy_soup([A, B], [1, 2], lambda _: np.nan), ValueError, "evaluate gave nan for state 1"),
        (
            lambda: greedy_soup([{"bias": A["bias"]}, A, B], [1, 2, 3], lambda _: 0),
            ValueError,
            r"'weight' is floats of shape \(5, 8\) in state 2 and missing in state 0",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_errors_say_what_came_and_where(call, error, message):
    with pytest.raises(error, match=message):
        call()


COUNTER = {"count": torch.tensor(3), "w": torch.tensor([1.0, 3.0])}


@pytest.mark.usefixtures("unchecked")
def test_states_of_every_kind_have_the_same_mean():
    one, two = {"w": [1.0, 3.0]}, {"w": [3.0, 5.0]}
    for kind in (np.float32, np.float64, np.float16, ">f4"):
        states = [{"w": np.array(each["w"], kind)} for each in (one, two)]
        assert uniform_soup(states)["w"].tolist() == [2, 4]
        assert uniform_soup(iter(states))["w"].tolist() == [2, 4]
    for kind in (torch.bfloat16, torch.float16, torch.float64):
        states = [{"w": torch.tensor(each["w"], dtype=kind, requires_grad=True)} for each in (one, two)]
        assert uniform_soup(states)["w"].dtype == kind
        assert not uniform_soup(states)["w"].requires_grad
        greedy = greedy_soup(tuple(states), np.array([[1], [2]], np.uint8), lambda state: state["w"].sum())
        assert (greedy.members, greedy.score) == ((1,), 8.0)
    mixed = uniform_soup([{"w": torch.tensor(one["w"])}, {"w": torch.tensor(two["w"]).half()}])["w"]
    assert mixed.dtype == torch.float32
    assert mixed.tolist() == [2, 4]
    assert uniform_soup([COUNTER])["w"].tolist() == [1, 3]


def test_a_single_whole_number_is_that_of_the_first_and_a_table_must_be_the_same():
    assert uniform_soup([COUNTER, COUNTER | {"count": torch.tensor(9)}])["count"] == 3
    table = COUNTER | {"index": torch.arange(4)}
    assert uniform_soup([table, table])["index"].tolist() == [0, 1, 2, 3]
    for other in (torch.arange(4).flip(0), torch.arange(4).flip(0).to(torch.int32)):
        with pytest.raises(ValueError, match="whole numbers have no mean; 'index' differs between state 0 and state 1"):
            uniform_soup([table, table | {"index": other}])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: uniform_soup(None), TypeError, "states must be a list of what model.state_dict"),
        (lambda: uniform_soup("ab"), TypeError, "states must be a list"),
        (lambda: uniform_soup(nn.Linear(2, 2)), TypeError, "states must be a list .*; it is a Linear"),
        (lambda: uniform_soup([{}]), ValueError, "state 0 is empty"),
        (lambda: uniform_soup([COUNTER, {}]), ValueError, "state 1 is empty"),
        (lambda: uniform_soup([{"state_dict": COUNTER}]), TypeError, "'state_dict' of state 0 must be an array"),
        (lambda: uniform_soup([{"w": ["a"]}]), TypeError, "'w' of state 0 must be an array"),
        (
            lambda: uniform_soup([{"w": torch.zeros(2) * 1j}]),
            TypeError,
            "'w' of state 0 must be an array of real numbers",
        ),
        (
            lambda: uniform_soup([{"w": torch.ones(2).half()}, {"w": torch.full((2,), 1e6)}]),
            ValueError,
            "the mean of 'w' is beyond torch.float16, which state 0 has. Pass states in float32",
        ),
        (lambda: greedy_soup(iter([COUNTER]), [1.0], len), TypeError, "states must be a list"),
        (lambda: greedy_soup([COUNTER], None, len), TypeError, "scores must be an array"),
        (lambda: greedy_soup([COUNTER] * 4, [[1, 2], [3, 4]], len), ValueError, r"scores .*shape is \(2, 2\)"),
        (lambda: greedy_soup([COUNTER], [1.0], lambda _: None), TypeError, "what evaluate gave must be a number"),
        (lambda: greedy_soup([COUNTER], [1.0], lambda _: "0.5"), TypeError, "what evaluate gave must be a number"),
        (lambda: reestimate_batch_norm(None, []), TypeError, "model must be a torch module; it is a NoneType"),
        (lambda: reestimate_batch_norm(network(), None), TypeError, "batches must be arrays of images"),
        (
            lambda: reestimate_batch_norm(network(), [torch.full((4, 3, 8, 8), torch.nan)]),
            ValueError,
            "batch 0 must be finite; row 0",
        ),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_makes_no_soup_is_refused_by_name(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_the_default_dtype_changes_nothing(dtype):
    with default_dtype(dtype):
        soup = uniform_soup([COUNTER, COUNTER])
    assert soup["w"].dtype == torch.float32
