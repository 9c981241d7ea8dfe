"""Two things have one fingerprint only if they have the same bytes."""

import hashlib
import json
import os
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from uqlib.files import digests
from uqlib.files import fingerprint as fp
from uqlib.files.fingerprint import fingerprint
from uqlib.networks import Preprocessing, create

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=3), each, max_size=3),
    max_leaves=6,
)


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Three files whose time stamps are old enough to be trusted."""
    monkeypatch.setenv("UQLIB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(digests, "SETTLED", -1.0)
    paths = [tmp_path / "set" / f"{k}.bmp" for k in range(3)]
    paths[0].parent.mkdir()
    for k, path in enumerate(paths):
        path.write_bytes(bytes([k] * 100))
    return paths


@given(PLAIN)
def test_a_plain_value_has_the_sha256_of_its_json(value):
    text = json.dumps(value, sort_keys=True)
    assert fingerprint(value) == hashlib.sha256(text.encode()).hexdigest()
    assert fingerprint([value, 0]) != fingerprint([value, 1])


def test_the_order_of_keys_is_nothing_and_the_order_of_a_list_is():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint([1, 2]) != fingerprint([2, 1])


def test_an_array_is_its_type_shape_and_bytes():
    array = np.arange(6, dtype=np.int32)
    different = [array.astype(np.int64), array.reshape(2, 3), array[::-1], array + 1, array.astype(np.float32)]
    assert len({fingerprint({"x": each}) for each in [array, *different]}) == 6
    assert fingerprint(array) == fingerprint(torch.from_numpy(array)) == fingerprint(np.asfortranarray(array))
    assert fingerprint(torch.zeros(2, dtype=torch.bfloat16)) != fingerprint(torch.zeros(2, dtype=torch.float16))


def test_a_network_is_all_that_its_state_holds():
    model = nn.BatchNorm1d(3)
    before = fingerprint({"start": model})
    with torch.no_grad():
        model.running_mean[1] = torch.nextafter(model.running_mean[1], torch.tensor(1.0))
    assert fingerprint({"start": model}) != before


def test_dataclasses_tuples_and_numpy_scalars_are_their_parts():
    one = Preprocessing(32, (0.5,), (0.5,))
    assert fingerprint(one) != fingerprint(one._replace(crop_pct=0.9))
    assert fingerprint(np.float64(0.5)) == fingerprint(0.5)


@pytest.mark.parametrize("odd", [lambda x: x, len, object(), {1: 2}, {1, 2}, 1j, np.array([None])])
def test_what_has_no_lasting_identity_is_refused(odd):
    with pytest.raises(TypeError, match=r"lasting identity|must be a text"):
        fingerprint({"loss": odd})


def test_files_are_their_contents(files):
    expected = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    assert fp.of_files(files) == expected
    assert fp.of_files(files[::-1]) == expected[::-1]


def test_a_known_file_is_not_read_again(files, monkeypatch):
    expected = fp.of_files(files)
    monkeypatch.setattr(digests, "sha256_of_file", lambda path: pytest.fail(f"{path} was read"))
    assert fp.of_files(files) == expected


def test_a_file_overwritten_in_place_is_another_even_with_its_old_time_stamp(files):
    before, stamp = fp.of_files(files), files[1].stat()
    with open(files[1], "r+b") as stream:
        stream.write(b"x")
    os.utime(files[1], ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = fp.of_files(files)
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, True]


def test_a_stamp_that_is_too_young_is_not_trusted(files, monkeypatch):
    monkeypatch.setattr(digests, "SETTLED", 3600.0)
    fp.of_files(files)
    monkeypatch.setattr(digests, "sha256_of_file", lambda path: "read again")
    assert fp.of_files(files) == ["read again"] * 3


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"a": 1}', '{"a": [1]}', "\0"])
def test_a_lost_list_costs_one_more_reading(files, damage):
    expected = fp.of_files(files)
    [place] = (files[0].parents[1] / "cache/digests").iterdir()
    place.write_text(damage)
    assert fp.of_files(files) == expected


def test_a_hundred_thousand_known_files_take_seconds(files):
    fp.of_files(files)
    began = time.perf_counter()
    fp.of_files(files * 10_000)
    assert time.perf_counter() - began < 6


def test_weights_digest_sees_every_bit_and_no_order():
    model = create("cifar_resnet20", weights=None, seed=0)
    first = fp.of_network(model)
    assert len(first) == 64
    model.bn1.running_mean[3] += 1e-7
    assert fp.of_network(model) != first
    one, two = nn.Module(), nn.Module()
    for module, names in ((one, "ab"), (two, "ba")):
        for name in names:
            setattr(module, name, nn.Parameter(torch.full((2,), float(ord(name)))))
    assert fp.of_network(one) == fp.of_network(two)
    assert fp.of_network(nn.Linear(2, 2).half().float()) != fp.of_network(nn.Linear(2, 2).half())


def test_weights_digest_is_the_same_on_every_machine():
    layer = nn.Linear(2, 1)
    layer.weight.data.copy_(torch.tensor([[1.0, 2.0]]))
    layer.bias.data.zero_()
    text = b"bias torch.float32 (1,)\n" + bytes(4) + b"weight torch.float32 (1, 2)\n" + b"\0\0\x80?\0\0\0@"
    assert fp.of_network(layer) == hashlib.sha256(text).hexdigest()
