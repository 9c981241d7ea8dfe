import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from uqlib import store
from uqlib.calibrate import confidences, temperature
from uqlib.files import whole as files
from uqlib.files.columns import read_column, write_table
from uqlib.files.fingerprint import of_network
from uqlib.files.whole import DamagedError
from uqlib.networks import Preprocessing
from uqlib.store import Key, read, write
from uqlib.store.fill import OPTIONS, FillOptions, ask_network, fill_entry, key_of, put_answers
from uqlib.store.keys import open_entry
from uqlib.store.shards import ShardJob

PREPROCESSING = Preprocessing(4, (0.5,) * 3, (0.25,) * 3)
N = 50


class Small(nn.Module):
    """A network that costs nothing, with timm's contract."""

    def __init__(self, scale=1.0, seed=0):
        super().__init__()
        self.fc = nn.Linear(48, 5)
        self.fc.weight.data = scale * torch.randn(5, 48, generator=torch.Generator().manual_seed(seed))
        self.fc.bias.data.zero_()

    def get_classifier(self):
        return self.fc

    def forward(self, x):
        return self.fc(x.flatten(1))


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setenv("UQLIB_STORE", str(tmp_path / "store"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "__file__", str(tmp_path / "uqlib" / "files" / "whole.py"))  # no store of this checkout
    return tmp_path / "store"


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (N, 4, 4, 3), dtype=np.uint8)
    return SimpleNamespace(images=images, labels=rng.integers(0, 5, N), name="toy", split="test", digest="d" * 64)


@pytest.fixture
def fill(data, root):
    def fill(model=None, network="small", **options):
        model = model or Small()
        options = {"preprocessing": PREPROCESSING, "rows": 16, "batch": 8} | options
        key = key_of(network, model, data, preprocessing=PREPROCESSING)
        return fill_entry(key, model, data.images, data.labels, **options)

    return fill


def expected(model, images):
    x = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.25
    return x.flatten(1), x.flatten(1) @ model.fc.weight.detach().T


# keys


KEY = Key("cifar10", "test", "cifar_resnet20", "w" * 64, "size=32", "d" * 64)


def test_every_field_changes_the_digest():
    digests = {replace(KEY, **{name: value + "1"}).digest for name, value in asdict(KEY).items()} | {KEY.digest}
    assert len(digests) == 7
    assert KEY.digest == Key(**asdict(KEY)).digest
    assert KEY.file == f"cifar_resnet20/cifar10.test-{KEY.digest[:8]}.safetensors"


@pytest.mark.parametrize("name", ["dataset", "split", "network"])
@pytest.mark.parametrize("value", ["", "a/b", "..", "a b", "-x"])
def test_names_that_are_no_file_names_are_refused(name, value):
    with pytest.raises(ValueError, match=f"{name} must consist of letters, digits"):
        replace(KEY, **{name: value})


# filling and reading


def test_what_was_filled_is_read(fill, data, root):
    path = fill(features="float32", columns={"severity": np.arange(N, dtype=np.uint8) % 5})
    answers = store.read_entry(path, columns=("logits", "labels", "features", "index", "severity"))
    features, logits = expected(Small(), data.images)
    assert torch.equal(answers.features, features)
    assert torch.allclose(answers.logits, logits, rtol=1e-5, atol=1e-5)  # float32, batches of another size
    assert np.array_equal(answers.labels, data.labels)
    assert answers.index.tolist() == list(range(N))
    assert answers["severity"].tolist() == [k % 5 for k in range(N)]
    assert len(answers) == N
    assert path == root / answers.key.file
    assert [p.name for p in path.parent.iterdir()] == [path.name]  # neither shards nor temporary files


def test_provenance_says_where_numbers_come_from_and_no_folder(fill, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/home/someone/bin/fill.py", "--root=/home/someone/store", "-n", "3"])
    provenance = store.read_entry(fill()).entry.provenance
    assert provenance["command"] == "fill.py --root=store -n 3"
    assert torch.__version__.startswith(provenance["versions"]["torch"])
    assert provenance["devices"] == ["cpu"]
    assert provenance["seconds"] >= 0
    assert provenance["date"].endswith("+00:00")
    assert "/home" not in json.dumps(provenance)


def test_half_precision_is_the_callers_choice_a_column(fill):
    answers = store.read_entry(fill(), columns=("features", "logits"))
    assert (answers.features.dtype, answers.logits.dtype) == (torch.float32, torch.float32)
    raw = store.read_entry(answers.entry.path, columns=("features", "logits"), upcast=False)
    assert (raw.features.dtype, raw.logits.dtype) == (torch.float16, torch.float32)
    both = store.read_entry(fill(features=None, logits="float16"), upcast=False)
    assert both.logits.dtype == torch.float32  # the entry had them in single precision, and keeps them
    with pytest.raises(KeyError, match=r"column 'features' was not read; pass columns=\('features', \.\.\.\)"):
        _ = both.features
    alone = fill(network="other", features=None, logits="float16")
    assert store.read_entry(alone, upcast=False).logits.dtype == torch.float16
    with pytest.raises(KeyError, match=r"has no column 'features'; it holds index, labels, logits, logits_max"):
        store.read_entry(alone, columns=("features",))


@pytest.mark.parametrize(("first", "kept"), [(0, torch.int32), (2**31, torch.int64)])
def test_labels_and_row_numbers_take_32_bits_where_they_fit_and_come_as_64(fill, data, first, kept):
    index = torch.arange(first, first + len(data.labels))
    raw = store.read_entry(path := fill(index=index), columns=("labels", "index"), upcast=False)
    assert (raw.labels.dtype, raw.index.dtype) == (torch.int32, kept)
    answers = store.read_entry(path, columns=("labels", "index"))
    assert (answers.labels.dtype, answers.index.dtype) == (torch.int64, torch.int64)
    assert torch.equal(answers.index, index)
    assert torch.equal(answers.labels, torch.as_tensor(data.labels).long())


def test_a_network_runs_once(fill, data):
    class Counting(Small):
        calls = 0

        def forward(self, x):
            self.calls += len(x)
            return super().forward(x)

    model = Counting()
    first = fill(model)
    before = first.read_bytes()
    assert model.calls == N
    assert fill(model) == first
    assert (model.calls, first.read_bytes()) == (N, before)
    fill(model, features="float32")  # the entry lacks them in this precision
    assert model.calls == 2 * N
    options = {"preprocessing": PREPROCESSING, "features": "float32"}
    asked = ask_network("small", model, data, columns=("features",), **options)
    assert model.calls == 2 * N
    assert torch.equal(asked.features, expected(model, data.images)[0])


def test_other_labels_or_columns_under_a_key_are_refused_with_the_remedy(fill, data):
    path = fill(columns={"severity": np.arange(N, dtype=np.uint8)}, index=np.arange(N) + 7)
    before = path.read_bytes()
    fill(columns={"severity": np.arange(N)})  # another type of the same numbers; row numbers were left out
    labels = data.labels
    data.labels = labels[::-1].copy()
    row = int((labels != data.labels).nonzero()[0][0])
    message = f"has other labels for the same key: row {row} is {labels[row]}, not {labels[::-1][row]}"
    with pytest.raises(ValueError, match=rf"{path.name} {message}.*give the data another name or split, or remove"):
        fill()
    data.labels = labels
    with pytest.raises(ValueError, match="has other index for the same key: row 0 is 7, not 0"):
        fill(index=np.arange(N))
    with pytest.raises(ValueError, match="has other severity for the same key: row 49 is 49, not 50"):
        fill(columns={"severity": [*range(N - 1), 50]})
    data.images, data.labels = data.images[:9], data.labels[:9]
    with pytest.raises(ValueError, match="has other labels for the same key: 50 rows, not 9"):
        fill()
    assert path.read_bytes() == before
    path.unlink()  # the advice
    assert len(store.read_entry(fill())) == 9


def test_lazy_images_are_asked_for_in_slices(fill, data):
    class Lazy:
        def __len__(self):
            return N

        def __getitem__(self, rows):
            assert isinstance(rows, slice)
            return [image for image in pixels[rows]]

    path = fill()
    whole = store.read_entry(path).logits.clone()
    path.unlink()
    pixels, data.images = data.images, Lazy()
    assert torch.equal(store.read_entry(fill()).logits, whole)


def test_key_and_model_must_agree(data, root):
    key = key_of("small", Small(), data, preprocessing=PREPROCESSING)
    with pytest.raises(ValueError, match="key and model disagree: weights of the key is"):
        fill_entry(key, Small(seed=1), data.images, data.labels, preprocessing=PREPROCESSING)
    with pytest.raises(ValueError, match="key and model disagree: preprocessing of the key is size=4"):
        fill_entry(key, Small(), data.images, data.labels, preprocessing=PREPROCESSING._replace(size=5))


def test_bad_calls_are_refused(fill, data):
    with pytest.raises(ValueError, match=r"worker must lie in \[0, workers\); it is 2 of 2"):
        fill(worker=2, workers=2)
    for name in ("batch", "rows", "workers"):
        with pytest.raises(ValueError, match=f"{name} must be a whole number of at least 1; it is 0"):
            fill(**{name: 0})
    with pytest.raises(ValueError, match="unknown type 'bfloat16' of features; choose from float16, float32"):
        fill(features="bfloat16")
    with pytest.raises(ValueError, match="unknown type 'coarse' of features; choose from float16, float32"):
        fill(features="coarse")
    with pytest.raises(ValueError, match="severity has 3 rows where 50 are expected"):
        fill(columns={"severity": np.zeros(3)})
    with pytest.raises(ValueError, match="column 'logits' must have another name"):
        fill(columns={"logits": np.zeros(N)})
    with pytest.raises(TypeError, match=r"index must be integers \(n,\); they are torch.float64"):
        fill(index=np.zeros(N))
    with pytest.raises(ValueError, match=r"logits reach .*, beyond float16 \(65504\); pass logits='float32'"):
        fill(Small(scale=1e5), logits="float16")
    with pytest.raises(ValueError, match=r"logits of the batch that begins at image 0 must be finite"):
        fill(Small(scale=float("nan")))
    data.images, data.labels = data.images[:0], data.labels[:0]
    with pytest.raises(ValueError, match="images is empty"):
        fill()


def test_an_unknown_option_is_named_with_the_known_ones_before_anything_runs(fill, root):
    with pytest.raises(TypeError, match=r"unknown option 'bacth' .*; did you mean 'batch'\? choose from .*, command"):
        fill(bacth=8)
    with pytest.raises(TypeError, match=r"unknown option 'feature' .*; did you mean 'features'\?"):
        fill(feature=None)
    with pytest.raises(TypeError, match=r"unknown option 'zzz' of fill_entry; choose from preprocessing, features, "):
        fill(zzz=1)
    assert not root.exists()
    assert set(FillOptions.__annotations__) == set(OPTIONS)


# names


def test_names_find_the_one_entry(fill, data):
    path = fill()
    assert store.load_answers("small", "toy").entry.path == path
    with pytest.raises(FileNotFoundError, match=r"network tiny is not there with dataset toy, .*; choose from small"):
        store.load_answers("tiny", "toy")
    with pytest.raises(FileNotFoundError, match=r"split val is not there with network small, .*; choose from test"):
        store.load_answers("small", "toy", "val")
    with pytest.raises(FileNotFoundError, match=r"Searched .*, which hold 1 entries"):
        store.load_answers("tiny", "toys")


def test_dots_in_names_are_not_confused(fill, data):
    data.name, data.split = "a", "b.c"
    fill()
    data.name, data.split = "a.b", "c"
    data.labels = data.labels[::-1].copy()
    fill()
    assert np.array_equal(store.load_answers("small", "a.b", "c").labels, data.labels)
    assert np.array_equal(store.load_answers("small", "a", "b.c").labels, data.labels[::-1])


def test_several_entries_of_one_name_are_listed_and_narrowed(fill):
    fill(Small(seed=0))
    fill(Small(seed=1))
    digest = of_network(Small(seed=1))
    with pytest.raises(ValueError, match=rf"(?s)2 entries with network small.*add weights=.*{digest[:12]}"):
        store.load_answers("small", "toy")
    assert store.load_answers("small", "toy", weights=digest[:6]).key.weights == digest
    with pytest.raises(FileNotFoundError, match="weights zzz"):
        store.load_answers("small", "toy", weights="zzz")


def test_many_networks_must_see_the_same_rows(fill, data):
    fill(network="one")
    fill(Small(seed=1), network="two")
    both = store.load_many_answers(["one", "two"], "toy")
    assert list(both) == ["one", "two"]
    assert torch.equal(both["one"].labels, both["two"].labels)
    data.labels = data.labels.copy()
    data.labels[7] = data.labels[7] - 1 or 4
    fill(network="labels")
    with pytest.raises(ValueError, match="one and labels do not have the same labels: row 7 is"):
        store.load_many_answers(["one", "labels"], "toy")
    data.labels = both["one"].labels.numpy().copy()
    fill(network="rows", index=np.arange(N)[::-1].copy())
    with pytest.raises(ValueError, match="one and rows do not have the same index: row 0 is 0 and 49"):
        store.load_many_answers(["one", "rows"], "toy")
    data.digest = "e" * 64
    fill(network="images")
    with pytest.raises(ValueError, match="one and images saw other images: data dddddddddddd and eeeeeeeeeeee"):
        store.load_many_answers(["one", "images"], "toy")
    data.images, data.labels = data.images[:9], data.labels[:9]
    fill(network="fewer")
    with pytest.raises(ValueError, match="one and fewer do not have the same rows: 50 and 9"):
        store.load_many_answers(["one", "fewer"], "toy")


def test_versions_of_an_image_stand_side_by_side(fill, data):
    places = np.array([30, 10, 20])
    data.images, data.labels = data.images[:3], data.labels[:3]
    for version in ("rain", "fog"):
        data.split = version
        fill(network="one", index=places)
        data.images = data.images + 1
    parts = [store.load_answers("one", "toy", version) for version in ("rain", "fog")]
    found = store.load_versions(["one"], "toy", ["rain", "fog"])["one"]
    assert found["index"].tolist() == [10, 10, 20, 20, 30, 30]
    for k, row in enumerate((1, 2, 0)):
        assert torch.equal(found["logits"][2 * k : 2 * k + 2], torch.stack([part.logits[row] for part in parts]))


def test_explain_names_the_field_that_differs(fill, data, root):
    key = key_of("small", Small(), data, preprocessing=PREPROCESSING)
    assert store.explain_miss(key) == f"no entry at all below {root}"
    path = fill()
    fill(Small(seed=1), network="far")
    assert store.explain_miss(key) == f"present: {path}"
    told = store.explain_miss(replace(key, weights="0" * 64))
    assert str(path) in told
    assert f"weights: wanted {'0' * 64}, stored {key.weights}" in told
    assert "dataset" not in told.splitlines()[-1]
    with pytest.raises(FileNotFoundError, match="which differs in"):
        store.read_entry(replace(key, data="x"))
    assert store.read_entry(key).entry.path == path


# roots


def test_roots_in_their_order(root, tmp_path, fill, monkeypatch):
    assert store.roots() == [root]
    checkout = tmp_path / "checkout"
    (checkout / "notebooks").mkdir(parents=True)
    (checkout / "pyproject.toml").touch()
    (checkout / "data" / "store").mkdir(parents=True)
    monkeypatch.chdir(checkout / "notebooks")
    embedded = checkout / "data" / "store"
    assert store.roots() == [root, embedded]
    assert store.roots(root="here") == [Path("here")]
    path = fill(root=embedded)
    assert path.is_relative_to(embedded)
    assert fill() == path  # found in the embedded store, so nothing is run
    assert store.load_answers("small", "toy").entry.path == path
    own = fill(root=root)
    assert store.load_answers("small", "toy").entry.path == own  # the same key in both: the first root wins
    assert len(store.list_entries()) == 2
    monkeypatch.chdir(tmp_path)
    assert store.roots() == [root]
    monkeypatch.setattr(files, "__file__", str(checkout / "uqlib" / "files" / "whole.py"))
    assert store.roots() == [root, embedded]
    monkeypatch.delenv("UQLIB_STORE")
    monkeypatch.setenv("UQLIB_CACHE", "/x")
    assert store.roots()[0] == Path("/x/store")


# damage


def test_damage_is_named_on_reading_and_by_verify(fill, root):
    good, bad = fill(), fill(Small(seed=1), network="other")
    assert store.verify_store() == {}
    whole = bad.read_bytes()
    bad.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert list(store.verify_store()) == [bad]
    assert "does not have the sha256" in store.verify_store()[bad]
    with pytest.raises(DamagedError, match=r"toy.test-.*safetensors is damaged"):
        store.read_entry(bad, columns=("labels", "logits", "features", "index"))
    bad.write_bytes(whole[:-1])
    assert "bytes where its header announces" in store.verify_store()[bad]
    renamed = good.with_name(good.name.replace("test", "train"))
    os.rename(good, renamed)
    bad.write_bytes(whole)
    assert list(store.verify_store()) == [renamed]
    assert "its key belongs to the name small/toy.test" in store.verify_store()[renamed]


def test_a_file_that_is_another_keys_is_refused(fill, data, root):
    key = key_of("small", Small(), data, preprocessing=PREPROCESSING)
    path = fill(Small(seed=1))
    os.rename(path, root / key.file)
    with pytest.raises(DamagedError, match="it holds another key"):
        store.read_entry(key)


def test_a_damaged_header_is_computed_again(fill):
    path = fill()
    path.write_bytes(path.read_bytes()[:40])
    assert len(store.read_entry(fill())) == N


# workers, kills, races


def digests(path):
    header = open_entry(path).header
    return {name: column.sha256 for name, column in header.columns.items()}


def test_workers_share_the_shards_and_the_last_one_assembles(fill):
    whole = digests(path := fill())
    path.unlink()
    assert fill(worker=1, workers=3) is None
    assert fill(worker=0, workers=3) is None
    assert len(list(path.with_name(f"{path.name}.parts").iterdir())) == 3  # 50 rows are shards 0 to 3; 2 is missing
    assert fill(worker=2, workers=3) == path
    assert digests(path) == whole
    assert not path.with_name(f"{path.name}.parts").exists()


def test_a_damaged_shard_is_computed_again(fill, data):
    whole = digests(path := fill())
    path.unlink()
    fill(worker=1, workers=2)
    shard = next(path.with_name(f"{path.name}.parts").iterdir())
    content = shard.read_bytes()
    shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert fill() == path
    assert digests(path) == whole


def test_shards_of_other_labels_or_sizes_are_not_mixed_in(fill, data):
    whole = digests(path := fill())
    path.unlink()
    labels = data.labels
    data.labels = labels[::-1].copy()
    fill(worker=1, workers=2)
    data.labels = labels
    fill(worker=1, workers=2, rows=20)
    fill(worker=1, workers=2, features="float32")
    assert digests(fill()) == whole


class Slow(Small):
    def forward(self, x):
        time.sleep(self.delay)
        return super().forward(x)


def fill_slowly(data, root, delay, options):
    """What the other processes do; each image is slow enough to be killed in the middle."""
    model = Slow()
    model.delay = delay
    key = key_of("small", model, data, preprocessing=PREPROCESSING)
    fill_entry(key, model, data.images, data.labels, preprocessing=PREPROCESSING, root=root, rows=4, batch=4, **options)


@pytest.fixture
def start(data, root):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["uqlib.networks"])  # timm is imported once for all processes of this file
    processes = []

    def start(delay, **options):
        process = context.Process(target=fill_slowly, args=(data, root, delay, options))
        process.start()
        processes.append(process)
        return process

    yield start
    for process in processes:
        process.kill()
        process.join()


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_killed_run_goes_on_with_the_same_bits(fill, root, start):
    path = fill(rows=4, batch=4)
    whole = digests(path)
    path.unlink()
    parts = path.with_name(f"{path.name}.parts")
    process = start(delay=0.1)
    wait_for(lambda: parts.exists() and len(list(parts.glob("[0-9]*"))) >= 3)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not path.exists()
    finished = {shard.name: shard.stat().st_mtime_ns for shard in parts.glob("[0-9]*")}
    assert 3 <= len(finished) < 13

    class Counting(Small):
        calls = 0

        def forward(self, x):
            self.calls += len(x)
            return super().forward(x)

    model = Counting()
    assert fill(model, rows=4, batch=4) == path
    assert model.calls == N - 4 * len(finished)  # finished shards were not run again
    assert digests(path) == whole
    assert not parts.exists()


def test_two_processes_at_the_same_work_do_no_harm(fill, root, start):
    path = fill(rows=4, batch=4)
    whole = digests(path)
    path.unlink()
    processes = [start(delay=0.02), start(delay=0.02)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert digests(path) == whole
    assert store.verify_store() == {}
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_two_workers_in_two_processes(fill, root, start):
    path = fill(rows=4, batch=4)
    whole = digests(path)
    path.unlink()
    processes = [start(delay=0.02, worker=k, workers=2) for k in range(2)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert digests(path) == whole


@pytest.mark.parametrize("when", ["write", "assemble"])
def test_the_other_process_finishes_first(fill, monkeypatch, when):
    # another process completes the entry and removes the shards just before ours writes its last or assembles
    whole = digests(path := fill())
    content = path.read_bytes()
    path.unlink()
    original = getattr(ShardJob, when)

    def overtaken(job, *args):
        if when == "assemble" or args[0] == 2:
            path.write_bytes(content)
            job.finish()
        return original(job, *args)

    monkeypatch.setattr(ShardJob, when, overtaken)
    assert fill() == path
    assert digests(path) == whole
    assert not path.with_name(f"{path.name}.parts").exists()


def test_assembly_that_loses_its_shards_to_another_process(fill, monkeypatch):
    path = fill()
    content = path.read_bytes()
    path.unlink()

    def joined(job, name, headers):
        path.write_bytes(content)
        job.finish()
        return original(job, name, headers)

    original = ShardJob._joined
    monkeypatch.setattr(ShardJob, "_joined", joined)
    assert fill() == path
    assert path.read_bytes() == content


def test_memory_does_not_grow_with_the_images(tmp_path):
    # 64 shards of 1 MB each: the peak of the assembly may hold one of them, not all
    code = """
import sys, tracemalloc
from pathlib import Path
import numpy as np
from uqlib.store import Key
from uqlib.store.shards import ShardJob
path = Path(sys.argv[1], "e.safetensors")
job = ShardJob(path, Key("a", "b", "c", "d", "e", "f"), {"features": "x"}, {"labels": np.arange(64 * 256)}, 256)
for k in range(64):
    job.write(k, lambda a, b: {"features": np.full((b - a, 1024), a, np.float32)}, "cpu")
tracemalloc.start()
job.assemble("")
print(tracemalloc.get_traced_memory()[1])
"""
    result = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 4e6
    entry = open_entry(tmp_path / "e.safetensors")
    features = read_column(entry.path, entry.header, "features")
    assert features.shape == (64 * 256, 1024)
    assert (features[:, 0] == np.arange(64 * 256) // 256 * 256).all()


def test_reading_needs_no_timm(fill):
    path = fill()
    code = f"import sys; sys.modules['timm'] = None; from uqlib import store; store.read_entry({str(path)!r}); store.verify_store()"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("ask", "error", "message"),
    [
        ({"network": "/etc"}, ValueError, "network must consist of letters, digits, .*; it is '/etc'"),
        ({"split": ""}, ValueError, "split must consist of"),
        ({"weight": "ab"}, TypeError, "unknown option 'weight'; choose from weights, preprocessing, data"),
        ({"weights": "none"}, FileNotFoundError, "entries with these names, but with other weights"),
        ({"columns": "logits"}, TypeError, r"pass columns=\('logits',\)"),
    ],
)
def test_load_names_what_was_asked_wrongly(fill, ask, error, message):
    fill()
    with pytest.raises(error, match=message):
        store.load_answers(**{"network": "small", "dataset": "toy"} | ask)


@pytest.mark.parametrize("networks", ["small", []])
def test_load_many_wants_a_list_of_names(root, networks):
    with pytest.raises(ValueError, match="networks must be at least one name in a list; got"):
        store.load_many_answers(networks, "toy")


# numbers from elsewhere


def test_what_is_put_is_read_again(root):
    generator = np.random.default_rng(0)
    logits, features = generator.normal(size=(6, 3)).astype(np.float32), generator.normal(size=(6, 4))
    labels = generator.integers(0, 3, 6)
    run = write.describe_run(1.5, ["cpu"], "x")
    path = put_answers(KEY, logits, labels, features=features, columns={"severity": labels}, provenance=run)
    answers = store.read_entry(KEY, columns=("logits", "features", "labels", "index", "severity"))
    assert answers.entry.path == path
    assert np.array_equal(answers.logits, logits)
    assert np.array_equal(answers.features, features.astype(np.float16))
    assert answers.index.tolist() == list(range(6))
    assert answers["severity"].tolist() == labels.tolist()
    assert answers.entry.provenance["seconds"] == 1.5
    assert answers.entry.provenance["command"] == "x"
    assert store.verify_store(root=root) == {}
    before = path.stat().st_mtime_ns
    put_answers(KEY, logits, labels, features=features, columns={"severity": labels})
    assert path.stat().st_mtime_ns == before  # the same contents are not written again
    with pytest.raises(
        ValueError, match=r"has other logits for the same key: they differ by up to 1.*or remove the file"
    ):
        put_answers(KEY, logits + 1, labels)
    with pytest.raises(ValueError, match=r"has other logits for the same key: shape \(6, 3\)"):
        put_answers(KEY, np.c_[logits, logits], labels)
    path.unlink()  # the advice
    put_answers(KEY, logits + 1, labels)
    assert np.array_equal(store.read_entry(KEY).logits, logits + 1)


def half(logits, path):
    """An entry as it was written before the largest of each row was kept."""
    columns = {"logits": (logits - logits.amax(-1, keepdim=True)).half().numpy()}
    columns |= {"labels": np.zeros(len(logits), int), "index": np.arange(len(logits))}
    write_table(path, columns, {"key": json.dumps(asdict(KEY)), "provenance": '{"date": "then", "devices": ["cpu"]}'})


def test_logits_in_half_precision_are_those_of_the_network_to_rounding(root):
    logits = torch.randn(2000, 10, generator=torch.Generator().manual_seed(0)) * 8 + 300
    put_answers(KEY, logits, torch.zeros(2000, dtype=torch.long), dtype="float16")
    answers = store.read_entry(KEY, columns=("logits", "logits_max"))
    distance = logits.amax(-1, keepdim=True).double() - logits
    error = (answers.logits - logits).abs()
    assert (error <= distance * 2**-11 + 2**-25).all()  # eleven bits of the distance to the largest
    assert not answers.shifted
    assert torch.equal(answers.logits.amax(-1), logits.amax(-1).double())  # the largest is exact
    assert torch.equal(answers["logits_max"], logits.amax(-1))
    assert torch.equal(answers.logits.argmax(-1), logits.argmax(-1))
    # sum p |error| over a row: p times the distance is at most (c - 1) / e, and small where one class has the most
    energies = [z.double().logsumexp(-1) for z in (answers.logits, logits)]
    assert (energies[0] - energies[1]).abs().max() < 2**-11
    for name in ("energy", "max_logit", "max_probability", "neg_entropy", "margin"):
        ours, theirs = confidences.confidence(name, answers.logits), confidences.confidence(name, logits)
        assert (ours - theirs).abs().max() < 1e-3, name
    labels = torch.multinomial((logits / 3).softmax(-1), 1, generator=torch.Generator().manual_seed(1))[:, 0]
    found = [temperature.fit_class_temperatures(z, labels) for z in (answers.logits, logits)]
    assert found[0].temperature.tolist() == pytest.approx(found[1].temperature.tolist(), rel=1e-3)
    raw = store.read_entry(KEY, upcast=False)
    assert raw.logits.dtype == torch.float16
    assert raw.shifted
    assert (raw.logits.amax(-1) == 0).all()


def test_an_entry_without_the_largest_of_each_row_says_so(root):
    logits = torch.randn(50, 10, generator=torch.Generator().manual_seed(0))
    half(logits, root / KEY.file)
    answers = store.load_answers("cifar_resnet20", "cifar10")
    assert answers.shifted
    assert (answers.logits.dtype, answers.logits.amax().item()) == (torch.float32, 0)
    full = put_answers(replace(KEY, network="full"), logits, torch.zeros(50, dtype=torch.long))
    assert not store.read_entry(full).shifted
    assert store.verify_store(root=root) == {}


def test_the_largest_of_each_row_changes_no_rank_and_no_tie(root):
    """Differences with many ties, far and near; in float32 the sum breaks and makes ties, in float64 it is exact."""
    generator = torch.Generator().manual_seed(0)
    steps = torch.tensor([0, 0, 2**-24, 2**-20, 2**-11, 0.01, 3, 3, 17, 900, 6e4])
    old = -steps[torch.randint(len(steps), (5000, 6), generator=generator)]
    old = old - old.amax(-1, keepdim=True)
    half(old, root / "old.safetensors")
    old = store.read_entry(root / "old.safetensors").logits
    largest = torch.randn(5000, generator=generator) * 10 ** torch.randint(-2, 4, (5000,), generator=generator)
    columns = {"logits": old.half().numpy(), "logits_max": largest.numpy(), "labels": np.zeros(5000, int)}
    write_table(root / "new.safetensors", columns, {"key": json.dumps(asdict(KEY))})
    new = store.read_entry(root / "new.safetensors").logits
    assert torch.equal(new - new.amax(-1, keepdim=True), old.double())
    assert torch.equal(new.argmax(-1), old.argmax(-1))
    ranks = [torch.unique(z.double().softmax(-1).amax(-1), return_inverse=True)[1] for z in (old, new)]
    assert torch.equal(*ranks)
    single = old + largest[:, None]
    ranks.append(torch.unique(single.double().softmax(-1).amax(-1), return_inverse=True)[1])
    assert not torch.equal(ranks[0], ranks[2])


def test_a_new_run_of_old_logits_takes_their_place_and_keeps_what_is_known_of_them(root):
    logits = torch.randn(50, 10, generator=torch.Generator().manual_seed(0))
    path = root / KEY.file
    half(logits, path)
    before = store.read_entry(path).entry.provenance
    with pytest.raises(ValueError, match="has other logits for the same key: they differ by up to"):
        put_answers(KEY, logits.flip(0), np.zeros(50, int), dtype="float16", provenance=before)
    again = logits + 1e-5 * torch.randn(50, 10, generator=torch.Generator().manual_seed(1))  # another device
    put_answers(KEY, again, np.zeros(50, int), dtype="float16", provenance=before)
    answers = store.read_entry(path)
    assert not answers.shifted
    assert (answers.logits - again).abs().max() < 0.01
    assert answers.entry.provenance == before
    stamp = path.stat().st_mtime_ns
    put_answers(KEY, again, np.zeros(50, int), dtype="float16")
    assert path.stat().st_mtime_ns == stamp


def test_features_alone_are_put(root):
    features, labels = torch.randn(20, 4), torch.zeros(20, dtype=torch.long)
    answers = store.read_entry(put_answers(KEY, None, labels, features=features), columns=("features", "labels"))
    assert torch.equal(answers.features, features.half().float())
    with pytest.raises(KeyError, match="has no column 'logits'"):
        store.read_entry(KEY)
    with pytest.raises(ValueError, match="nothing to store"):
        put_answers(KEY, None, labels)


def test_bad_numbers_are_not_put(root):
    labels = [0, 1]
    with pytest.raises(ValueError, match="logits must be finite; row 1, column 0 is nan"):
        put_answers(KEY, [[1.0, 2.0], [np.nan, 0.0]], labels)
    with pytest.raises(ValueError, match="features has 3 rows where 2 are expected"):
        put_answers(KEY, [[1.0, 2.0], [2.0, 0.0]], labels, features=np.zeros((3, 2)))
    with pytest.raises(ValueError, match="unknown type 'int8' of logits"):
        put_answers(KEY, [[1.0, 2.0], [2.0, 0.0]], labels, dtype="int8")
    with pytest.raises(ValueError, match=r"logits reach 1e\+300, beyond float32"):
        put_answers(KEY, [[1e300, 2.0], [2.0, 0.0]], labels)
    with pytest.raises(ValueError, match=r"features must have shape \(n, d\); it is \(2,\)"):
        put_answers(KEY, None, labels, features=[1.0, 2.0])
    with pytest.raises(ValueError, match="features must be finite; row 1, column 0 is inf"):
        put_answers(KEY, None, labels, features=[[1.0], [np.inf]])
    with pytest.raises(ValueError, match=r"features reach 100000, beyond float16 \(65504\); divide them by a constant"):
        put_answers(KEY, None, labels, features=[[1.0], [1e5]])
    with pytest.raises(ValueError, match=r"features reach 2e-06 in size, and float16, .* multiply them by a constant"):
        put_answers(KEY, None, labels, features=[[1e-6], [-2e-6]])
    with pytest.raises(ValueError, match=r"logits reach 300000, beyond float16 \(65504\); pass dtype='float32'"):
        put_answers(KEY, [[3e5, 2.0], [2.0, 0.0]], labels, dtype="float16")
    with pytest.raises(TypeError, match="labels must be integers"):
        put_answers(KEY, [[1.0, 2.0], [2.0, 0.0]], [0.0, 1.7])
    assert store.list_entries() == []


def test_probabilities_and_labels_of_other_classes_are_not_taken(root, fill, data):
    logits = torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="logits look like probabilities"):
        put_answers(KEY, logits.softmax(-1), [0] * 9)
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 3\), .*; row 8 is 7\. .*Pass foreign=True"):
        put_answers(KEY, logits, [0] * 8 + [7])
    assert store.list_entries() == []
    path = put_answers(KEY, logits, [0] * 8 + [7], foreign=True)  # the advice
    assert store.read_entry(path).labels.tolist() == [0] * 8 + [7]
    data.labels = data.labels.copy()
    data.labels[41] = 5
    with pytest.raises(ValueError, match=r"labels must lie in \[0, 5\), .*; row 41 is 5\. .*Pass foreign=True"):
        fill()
    assert store.read_entry(fill(foreign=True)).labels[41] == 5

    class Softmax(Small):
        def forward(self, x):
            return super().forward(x).softmax(-1)

    with pytest.raises(ValueError, match=r"classifier .* does not give the logits of Softmax"):
        fill(Softmax(seed=3), foreign=True)


# adding to an entry


class Counting(Small):
    calls = 0

    def forward(self, x):
        self.calls += len(x)
        return super().forward(x)


def test_an_entry_grows_and_never_shrinks(fill, data):
    model = Counting()
    path = fill(model, features="float16", columns={"severity": np.arange(N)})
    first = store.read_entry(path, columns=("logits", "features", "severity"))
    logits, provenance = first.logits.clone(), first.entry.provenance
    for poorer in ({"features": None}, {"logits": "float16"}, {"features": None, "logits": "float16"}, {}):
        assert fill(model, **poorer) == path
    assert model.calls == N
    fill(model, features="float32")
    assert model.calls == 2 * N  # the features alone were missing
    answers = store.read_entry(path, columns=("logits", "features", "severity", "index"))
    assert torch.equal(answers.features, expected(model, data.images)[0])
    assert torch.equal(answers.logits, logits)
    assert answers["severity"].tolist() == list(range(N))
    added = answers.entry.provenance.pop("added")
    assert {k: v for k, v in answers.entry.provenance.items() if k != "added"} == provenance
    assert [each["columns"] for each in added] == [["features"]]
    fill(model, features="float16")
    fill(model, columns={"fold": np.arange(N) % 3})  # given columns need no run
    assert model.calls == 2 * N
    assert store.read_entry(path, columns=("fold",))["fold"].tolist() == [k % 3 for k in range(N)]
    assert torch.equal(store.read_entry(path, columns=("features",)).features, expected(model, data.images)[0])
    assert store.verify_store() == {}


def test_half_then_whole_and_whole_then_half(fill, data):
    one = fill(network="one", logits="float16", features=None)
    assert "logits_max" in store.read_entry(one).entry.header.columns
    fill(network="one", logits="float32", features=None)
    assert store.read_entry(one).logits.dtype == torch.float32
    assert "logits_max" not in store.read_entry(one).entry.header.columns
    two = fill(network="two", logits="float32", features=None)
    before = two.read_bytes()
    fill(network="two", logits="float16", features=None)
    assert two.read_bytes() == before


def test_what_the_checkout_holds_is_carried_along(root, fill, tmp_path, monkeypatch):
    """The user's root is looked at first, so an entry there must not be poorer than the one that it hides."""
    checkout = tmp_path / "checkout"
    (checkout / "data" / "store").mkdir(parents=True)
    (checkout / "pyproject.toml").touch()
    fill(root=checkout / "data" / "store", features=None, columns={"severity": np.arange(N)})
    monkeypatch.chdir(checkout)
    own = fill(features="float32")
    assert own.is_relative_to(root)
    answers = store.load_answers("small", "toy", columns=("features", "logits", "severity"))
    assert answers.entry.path == own
    own.unlink()
    fill(root=root, features="float32")  # made without a look at the checkout
    both = [
        store.load_answers("small", "toy", columns=columns).entry.path for columns in (("features",), ("severity",))
    ]
    assert both == [own, checkout / "data" / "store" / answers.key.file]


def test_shards_that_a_killed_run_left_beside_its_entry_go_with_the_next_call(fill, monkeypatch):
    path = fill()
    with monkeypatch.context() as patch:
        patch.setattr(ShardJob, "finish", lambda job: job.target)  # killed before it cleared up
        fill(features="float32")
    parts = path.with_name(f"{path.name}.parts")
    assert len(list(parts.iterdir())) == 4
    (parts / ".x.01234567.unfinished").touch()
    fill(features="float16")
    assert [other.name for other in path.parent.iterdir()] == [path.name]
    before = fill(network="other", features=None)
    parts = before.with_name(f"{before.name}.parts")
    fill(network="other", features="float32", worker=1, workers=2)  # somebody is at work on what the entry lacks
    there = sorted(shard.name for shard in parts.iterdir())
    fill(network="other", features=None)
    assert sorted(shard.name for shard in parts.iterdir()) == there
    fill(network="other", features="float32")
    assert not parts.exists()


def test_a_merge_that_fails_leaves_the_old_entry(fill, monkeypatch):
    path = fill()
    before = path.read_bytes()
    original = write.write_table

    def full(target, columns, metadata):
        if target == path:
            raise OSError(28, "No space left on device", str(path))
        original(target, columns, metadata)

    monkeypatch.setattr(write, "write_table", full)
    with pytest.raises(OSError, match="No space left"):
        fill(features="float32")
    assert path.read_bytes() == before


def test_two_that_ask_for_other_columns_at_once_lose_nothing(fill, root, start):
    path = fill(features=None, rows=4, batch=4)
    asks = [{"features": "float32"}, *({"features": None, "columns": {f"c{k}": np.arange(N)}} for k in range(3))]
    for process in [start(delay=0.002, **ask) for ask in asks]:
        process.join()
        assert process.exitcode == 0
    columns = store.read_entry(path).entry.header.columns
    assert set(columns) == {"logits", "features", "labels", "index", "c0", "c1", "c2"}
    assert store.verify_store() == {}


# crafted entries


def test_a_damaged_neighbour_costs_nobody_his_entry(fill, root):
    path = fill()
    (path.parent / "toy.test-00000000.safetensors").write_bytes(b"x" * 100)
    (root / "other").mkdir()
    (root / "other" / "toy.test-00000000.safetensors").write_bytes(b"x" * 100)
    assert store.load_answers("small", "toy").entry.path == path
    with pytest.raises(FileNotFoundError, match="network tiny is not there"):
        store.load_answers("tiny", "toy")
    with pytest.raises(DamagedError, match=r"other/toy\.test-00000000\.safetensors is damaged"):
        store.load_answers("other", "toy")
    assert "present" in store.explain_miss(store.read_entry(path).key)
    assert len(store.verify_store()) == 2


@pytest.mark.parametrize(
    ("columns", "key"),
    [
        ({"logits": np.zeros((3, 2), np.float32)}, {}),
        ({"labels": np.zeros(3, int), "index": np.zeros(2, int)}, {}),
        ({"labels": np.zeros((3, 1), int)}, {}),
        ({"labels": np.zeros(3, np.float32)}, {}),
        ({"labels": np.zeros(3, int), "logits": np.zeros(3, np.float32)}, {}),
        ({"labels": np.zeros(3, int), "logits": np.zeros((3, 2), int)}, {}),
        ({"labels": np.zeros(3, int)}, {"network": "../x"}),
        ({"labels": np.zeros(3, int)}, {"weights": 3}),
        ({"labels": np.zeros(3, int)}, {"more": "x"}),
    ],
)
def test_a_whole_table_that_is_no_entry_is_named(tmp_path, columns, key):
    write_table(tmp_path / "x.safetensors", columns, {"key": json.dumps(asdict(KEY) | key), "provenance": "{}"})
    with pytest.raises(DamagedError, match=r"x\.safetensors is damaged: (it is no entry of the store|column)"):
        store.read_entry(tmp_path / "x.safetensors")


@pytest.mark.parametrize("provenance", ["", "[]", "{", "[" * 100_000])
def test_a_provenance_that_cannot_be_read_is_named(tmp_path, provenance):
    columns = {"labels": np.zeros(3, int)}
    write_table(tmp_path / "x.safetensors", columns, {"key": json.dumps(asdict(KEY)), "provenance": provenance})
    with pytest.raises(DamagedError, match=r"x\.safetensors is damaged: .*lack the provenance"):
        _ = store.read_entry(tmp_path / "x.safetensors", columns=("labels",)).entry.provenance


def test_an_entry_that_grows_while_it_is_read(fill, monkeypatch):
    path = fill(features=None)
    logits = store.read_entry(path).logits.clone()
    old = open_entry(path)
    fill(features="float32", columns={"first": np.zeros((N, 50))})
    assert torch.equal(read._answers(old, ("logits",), True, True).logits, logits)
