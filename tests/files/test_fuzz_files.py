"""Damaged and made-up files of every kind that is read: the same values, or an error that names the file; nothing else.

$UQLIB_FUZZ is the number of cases a kind; by default a few, for the suite.
"""

import hashlib
import json
import os
import tracemalloc
from dataclasses import asdict

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from uqlib import losses, store, training
from uqlib.experiments import studies
from uqlib.experiments.keeping import kept_columns
from uqlib.files.columns import write_table
from uqlib.files.whole import SEAL, DamagedError
from uqlib.networks import Preprocessing

CASES = int(os.environ.get("UQLIB_FUZZ", "60"))
fuzz = settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
KEY = store.Key("toy", "test", "small", "w" * 64, "size=4", "d" * 64)


class Linear(nn.Linear):
    num_classes = 3

    def __init__(self):
        super().__init__(12, 3)
        nn.init.zeros_(self.weight), nn.init.zeros_(self.bias)

    def forward(self, x):
        return super().forward(x.flatten(1))


def train(path):
    images = np.random.default_rng(0).integers(0, 255, (6, 2, 2, 3), dtype=np.uint8)
    model, loss = Linear(), losses.ranking(examples=6)
    preprocessing = Preprocessing(2, (0.5,) * 3, (0.5,) * 3)
    options = {"preprocessing": preprocessing, "epochs": 2, "lr": 0.1, "batch": 3, "progress": False}
    history = training.train(model, images, np.arange(6) % 3, loss=loss, checkpoint=path, **options)
    return [*model.state_dict().values(), *loss.state_dict().values()], [epoch[:3] for epoch in history]


def entry(path):
    columns = {"logits": np.ones((5, 3), np.float16), "logits_max": np.arange(5, dtype=np.float32)}
    columns |= {"labels": np.arange(5) % 3, "index": np.arange(5)}
    write_table(path, columns, {"key": json.dumps(asdict(KEY)), "provenance": json.dumps({"date": "then"})})


def read_entry(path):
    answers = store.read_entry(path, columns=("logits", "labels", "index", "logits_max"))
    return [*answers.columns.values()], [answers.entry.provenance, answers.key, len(answers)]


def run(path):
    columns = {"correct": np.arange(5) % 2 == 0, "top": np.linspace(0, 1, 5).astype(np.float16)}
    write_table(path, columns, {"about": json.dumps({"test": {"accuracy": 0.5}, "rests_on": {"seed": 0}})})


def read_run(path):
    found = studies.Training(path, 0)
    return [found.correct, found.confidence], [found.about]


def difficulty(path):
    columns = {
        "labels": np.arange(5, dtype=np.uint8),
        "rmd/a": np.ones(5, np.float16),
        "loss/a": np.ones(5, np.float32),
    }
    write_table(path, columns, {"about": json.dumps({"scorers": {"a": {}}})})


def read_difficulty(path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_columns, "in_checkout", lambda place: path)
        scored = studies.load_difficulty("toy", "test")
    return [*scored.columns.values()], [scored.about]


KINDS = {
    "store": (entry, read_entry),
    "trained": (run, read_run),
    "difficulty": (difficulty, read_difficulty),
    "checkpoint": (train, train),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """For each kind a path, the bytes that were written there, and what is read from them."""
    found = {}
    for kind, (write, read) in KINDS.items():
        path = tmp_path_factory.mktemp("fuzz") / f"{kind}.file"
        write(path)
        found[kind] = path, path.read_bytes(), read(path)
    return found


def check(kind, files, content, *, named=DamagedError):
    path, whole, expected = files[kind]
    path.write_bytes(content)
    try:
        tensors, texts = KINDS[kind][1](path)
    except named as error:
        assert str(path) in str(error)  # noqa: PT017 (either outcome is fine)
        return None
    finally:
        path.write_bytes(whole)
    if named is DamagedError:
        assert texts == expected[1]
        assert all(map(torch.equal, tensors, expected[0]))
    return tensors


DAMAGE = st.one_of(
    st.tuples(st.just("flip"), st.floats(0, 1), st.integers(0, 7)),
    st.tuples(st.just("cut"), st.floats(0, 1), st.none()),
    st.tuples(st.just("insert"), st.floats(0, 1), st.binary(min_size=1, max_size=20)),
    st.tuples(st.just("delete"), st.floats(0, 1), st.integers(1, 50)),
    st.tuples(st.just("write"), st.floats(0, 1), st.binary(min_size=1, max_size=20)),
    st.tuples(st.just("swap"), st.floats(0, 1), st.integers(1, 100)),
    st.tuples(st.just("all"), st.just(0.0), st.binary(max_size=200)),
)


def damaged(whole, how, where, what):
    place = min(int(where * len(whole)), len(whole) - 1)
    head, tail = whole[:place], whole[place:]
    return {
        "flip": lambda: head + bytes([tail[0] ^ 1 << what]) + tail[1:],
        "cut": lambda: head,
        "insert": lambda: head + what + tail,
        "delete": lambda: head + tail[what:],
        "write": lambda: head + what + tail[len(what) :],
        "swap": lambda: head + tail[what : 2 * what] + tail[:what] + tail[2 * what :],
        "all": lambda: what,
    }[how]()


@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_gives_the_same_values_or_is_named(files, kind):
    @fuzz
    @given(st.lists(DAMAGE, min_size=1, max_size=3))
    def hold(damages):
        content = files[kind][1]
        for damage in damages:
            content = damaged(content, *damage) if content else content
        check(kind, files, content)

    hold()


ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, 1, -1, 5, 2**31, 2**63, 10**18, 1e308, "F64", "I64", "BOOL", "", "\0", "\ud800", "[" * 9999]),
    st.lists(st.integers(-2, 2**40), max_size=4),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=2),
)


def places(value, path=()):
    """Every place in a JSON value, by its keys."""
    yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in pairs:
        yield from places(each, (*path, key))


def changed(header, path, how, value):
    """A header with another value in one place, with a place more, or with one less."""
    header = json.loads(json.dumps(header))
    if not path:
        return value
    parent = header
    for key in path[:-1]:
        parent = parent[key]
    if how == "set":
        parent[path[-1]] = value
    elif how == "drop":
        del parent[path[-1]]
    elif isinstance(parent, dict):
        parent["x" + str(path[-1])] = parent.pop(path[-1])
    else:
        parent.append(value)
    return header


def sealed(header, data):
    """A table with this header and a valid seal around it."""
    if isinstance(header, dict) and isinstance(header.get("__metadata__"), dict) and "sha256" in header["__metadata__"]:
        header["__metadata__"]["sha256"] = "0" * 64
    body = json.dumps(header).encode("utf-8")
    whole = len(body).to_bytes(8, "little") + body
    return whole.replace(b"0" * 64, hashlib.sha256(whole).hexdigest().encode(), 1) + data


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "checkpoint"])
def test_a_made_up_header_costs_nothing(files, kind):
    """Its seal is valid, so other values may be meant; memory is that of the file, and errors name it."""
    _, whole, _ = files[kind]
    length = int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    everywhere = list(places(header))

    @fuzz
    @given(
        st.lists(
            st.tuples(st.sampled_from(everywhere), st.sampled_from(["set", "drop", "more"]), ODD),
            min_size=1,
            max_size=2,
        )
    )
    def hold(changes):
        made = header
        for path, how, value in changes:
            try:
                made = changed(made, path, how, value)
            except (KeyError, IndexError, TypeError, AttributeError):  # the first change took the place of the second
                continue
        if CASES <= 1000:  # it makes everything ten times as slow
            tracemalloc.start()
        # a column that was renamed is missed by its name; one of another shape is no confidence
        tensors = check(kind, files, sealed(made, data), named=(DamagedError, KeyError, ValueError))
        assert tracemalloc.get_traced_memory()[1] < 2e7  # 0 where it is not traced
        tracemalloc.stop()
        assert tensors is None or sum(t.numel() for t in tensors) < 1000

    hold()


def test_a_made_up_checkpoint_is_named(files):
    """Any bytes with a valid seal at their end."""

    @fuzz
    @given(st.lists(DAMAGE, min_size=1, max_size=3))
    def hold(damages):
        content = files["checkpoint"][1][: -len(SEAL) - 64]
        for damage in damages:
            content = damaged(content, *damage) if content else content
        check("checkpoint", files, content + SEAL + hashlib.sha256(content).hexdigest().encode(), named=ValueError)

    hold()
