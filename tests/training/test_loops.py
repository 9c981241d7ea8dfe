import math
from functools import partial

import numpy as np
import pytest
import torch
from methods import BATCH, EPOCHS, EXAMPLES, LR, METHODS, SEED, contrastive, differences, states
from torch import nn
from toys import Small, weights

from uqlib.training import loop
from uqlib.training.loops import _seeded

run = partial(loop, examples=EXAMPLES, epochs=EPOCHS, lr=LR, batch=BATCH, seed=SEED, progress=False)


def started(method, **more):
    """A run of a method, with the optimiser of the hand-written loops."""
    return run(**{"optimizer": "sgd"} | method | more)


@pytest.mark.parametrize("name", METHODS)
def test_the_loop_is_the_loop_that_one_would_write(name):
    make, by_hand = METHODS[name]
    method = make()
    before = states(make()["parts"])
    history = started(method)
    with torch.random.fork_rng():
        expected = by_hand()
    assert differences(states(method["parts"]), expected) == []
    assert differences(before, expected) != []
    assert history[-1].loss < history[0].loss or name in ("sgld", "adversaries")


@pytest.mark.parametrize("name", METHODS)
def test_any_method_that_was_killed_goes_on_to_the_same_bits(name, tmp_path):
    make, _ = METHODS[name]
    whole = make()
    history = started(whole, checkpoint=tmp_path / "whole.pt")
    cut, calls = make(), []

    def killed(rows, generator):
        calls.append(rows)
        if len(calls) == 8:  # the second of three steps of the third epoch
            raise KeyboardInterrupt
        return cut["step"](rows, generator)

    with pytest.raises(KeyboardInterrupt):
        started(cut | {"step": killed}, checkpoint=tmp_path / "c.pt")
    again = make()
    resumed = started(again, checkpoint=tmp_path / "c.pt")
    assert differences(states(again["parts"]), states(whole["parts"])) == []
    assert [log[:3] for log in resumed] == [log[:3] for log in history]
    read = make()
    started(read | {"step": lambda rows, generator: pytest.fail("nothing is left to do")}, checkpoint=tmp_path / "c.pt")
    assert differences(states(read["parts"]), states(whole["parts"])) == []


def test_each_process_draws_its_own_augmentation_and_dropout_in_one_order():
    cpu = torch.device("cpu")

    def draws(rank, seed=3, epoch=2):
        with _seeded(seed, epoch, rank, cpu) as (order, own, _):
            return [torch.randperm(50, generator=order), torch.rand(50, generator=own), torch.rand(50)]

    first, second, third = map(draws, range(3))
    assert torch.equal(first[0], second[0])
    assert torch.equal(first[0], third[0])
    for k in (1, 2):
        assert not torch.equal(first[k], second[k])
        assert not torch.equal(second[k], third[k])
    assert not torch.equal(draws(1)[1], draws(1, epoch=3)[1])
    # what one process has drawn ever since: the seed and the epoch alone
    number = int(np.random.SeedSequence([3, 2]).generate_state(1, np.uint64)[0] >> 1)
    generator = torch.Generator().manual_seed(number)
    assert torch.equal(first[0], torch.randperm(50, generator=generator))
    assert torch.equal(first[1], torch.rand(50, generator=generator))
    assert torch.equal(first[2], torch.rand(50, generator=torch.Generator().manual_seed(number)))


def test_only_the_own_device_is_touched(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: pytest.fail("the other devices belong to others"))
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("the other devices belong to others"))
    with _seeded(0, 0, 0, torch.device("cpu")):
        pass


def ask(**more):
    """A run of the contrastive method with other arguments."""
    return started(contrastive() | more)


def test_what_judges_is_kept_and_draws_from_the_seed(tmp_path):
    method = contrastive()
    seen = []

    def judge():
        seen.append(method["parts"]["model"].training)
        return {"norm": weights(method["parts"]["model"]).norm(), "draw": torch.rand(())}

    plain = contrastive()
    started(plain)
    history = started(method, judge=judge, checkpoint=tmp_path / "c.pt")
    assert seen == [True] * EPOCHS
    assert differences(states(method["parts"]), states(plain["parts"])) == []
    assert history[-1].judged["norm"] == weights(plain["parts"]["model"]).norm().item()
    assert len({log.judged["draw"] for log in history}) == EPOCHS
    method = contrastive()
    assert started(method, judge=judge, checkpoint=tmp_path / "c.pt") == history
    method = contrastive()
    torch.manual_seed(99)
    assert [log.judged for log in started(method, judge=judge)] == [log.judged for log in history]


def test_the_hook_knows_where_the_run_stands():
    moments = []
    ask(after=moments.append, schedule="constant", warmup=0.5, clip=1.0)
    assert [moment.step for moment in moments] == list(range(1, 13))
    assert [moment.epoch for moment in moments] == [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    assert {moment.steps for moment in moments} == {12}
    rates = [LR * (0.1 + 0.15 * k) for k in range(6)] + [LR] * 6
    assert [moment.lr for moment in moments] == pytest.approx(rates)
    with torch.enable_grad():
        ask(after=lambda moment: moments.append(torch.is_grad_enabled()))
    assert moments[-1] is False


def test_networks_that_are_not_trained_stay_in_their_mode():
    method = METHODS["teacher and student"][0]()
    method["parts"]["student"].eval()
    started(method)
    assert method["parts"]["student"].training
    assert not method["parts"]["teacher"].training


def test_a_function_serves_as_optimiser_and_schedule(tmp_path):
    def drops(step, steps, warmup):
        return 1.0 if step < 6 else 0.1

    def nesterov(parameters, lr, weight_decay, momentum=0.9):
        return torch.optim.SGD(parameters, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=True)

    moments, place = [], tmp_path / "c.pt"
    ask(optimizer=nesterov, schedule=drops, after=moments.append, checkpoint=place)
    assert [moment.lr for moment in moments] == pytest.approx([LR] * 6 + [LR / 10] * 6)
    ask(optimizer=lambda *given: nesterov(*given), schedule=lambda *given: drops(*given), checkpoint=place)
    with pytest.raises(ValueError, match=r"other settings: schedule; remove it"):
        ask(optimizer=nesterov, schedule=lambda *given: 2 * drops(*given), checkpoint=place)
    with pytest.raises(
        ValueError, match=r"other settings: optimizer SGD .*'momentum': 0\.9.*not SGD .*'momentum': 0\.5"
    ):
        ask(optimizer=partial(nesterov, momentum=0.5), schedule=drops, checkpoint=place)


OTHERS = {
    "step views, not pairs": lambda m: {"rests_on": m["rests_on"] | {"step": "pairs"}},
    "images": lambda m: {"rests_on": m["rests_on"] | {"images": torch.zeros(3)}},
    "start weights": lambda m: {"parts": {**m["parts"], "student": moved(m["parts"]["student"])}},
    "state of the teacher": lambda m: {"parts": {**m["parts"], "teacher": moved(m["parts"]["teacher"])}},
    "network": lambda m: {"trained": [*m["parts"]["student"].parameters()][:2]},
    "network, rates": lambda m: {"trained": [{"params": m["trained"], "lr": 0.1}]},
    "clip None, not 0.5": lambda m: {"clip": 0.5},
    "rows 40, not 39": lambda m: {"examples": 39},
    "epochs 4, not 5": lambda m: {"epochs": 5},
}


def moved(network):
    with torch.no_grad():
        next(network.parameters()).add_(1e-6)
    return network


@pytest.mark.parametrize("name", OTHERS)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, name):
    def made():
        method = METHODS["teacher and student"][0]()
        return method | {"rests_on": method["rests_on"] | {"step": "views"}}

    started(made(), checkpoint=tmp_path / "c.pt")
    method = made()
    other = method | OTHERS[name](method)
    message = name.split(", ra")[0]
    with pytest.raises(ValueError, match=rf"c\.pt is .*other settings: {message}; remove it"):
        started(other, checkpoint=tmp_path / "c.pt")


def test_a_run_that_could_not_be_taken_up_is_refused(tmp_path):
    place, free = tmp_path / "c.pt", nn.Parameter(torch.zeros(2))
    with pytest.raises(TypeError, match=r"a checkpoint needs rests_on, all that the result rests on"):
        ask(rests_on=None, checkpoint=place)
    with pytest.raises(ValueError, match=r"rests_on has batch, which the options have already"):
        ask(rests_on={"batch": 3}, checkpoint=place)
    with pytest.raises(TypeError, match=r"has no lasting identity"):
        ask(rests_on={"step": lambda: 0}, checkpoint=place)
    with pytest.raises(ValueError, match=r"of shape \(2,\) belongs to no network among the parts.*nn\.ParameterList"):
        ask(trained=[free])
    model = Small()
    started({"step": lambda rows, generator: free.square().sum(), "trained": [free],
             "parts": {"free": nn.ParameterList([free]), "model": model}})  # the advice  # fmt: skip
    for name in ("optimizer", "settings"):
        with pytest.raises(ValueError, match=rf"a part cannot be called '{name}'"):
            ask(parts=contrastive()["parts"] | {name: model})
    with pytest.raises(TypeError, match=r"part 'count' must have state_dict and load_state_dict; it is a int"):
        ask(parts={"count": 3})
    method = contrastive()

    class Array:
        def state_dict(self):
            return {"values": [np.zeros(2)]}

        load_state_dict = None

    with pytest.raises(TypeError, match=r"the state of part 'samples' holds array.* \(ndarray\).*give tensors"):
        started(method | {"parts": method["parts"] | {"samples": Array()}}, checkpoint=place)
    assert not list(tmp_path.iterdir())


def test_errors_of_a_step_say_what_is_wrong():
    with pytest.raises(TypeError, match=r"a tensor of one number; it returned \(12, 3\)"):
        ask(step=lambda rows, generator: torch.zeros(len(rows), 3, requires_grad=True))
    method = contrastive()
    with pytest.raises(ValueError, match=r"the loss is nan in epoch 1; a smaller lr than 0\.05"):
        started(method | {"step": lambda *given: method["step"](*given) * math.nan})
    with pytest.raises(ValueError, match=r"nothing is trained: trained has no parameter that requires a gradient"):
        ask(trained=[])
    with pytest.raises(TypeError, match=r"judge must return names with a number each; it returned Tensor"):
        ask(judge=lambda: {"x": torch.zeros(2)}["x"])
