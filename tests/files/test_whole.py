import hashlib
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from uqlib.files.columns import Parts, read_column, read_header, write_table
from uqlib.files.whole import DamagedError, cache_folder, check_seal, replacing, seal, write_text


@pytest.fixture
def columns():
    rng = np.random.default_rng(0)
    return {
        "odd": rng.integers(0, 255, (5, 3), dtype=np.uint8),
        "yes": rng.random(5) < 0.5,
        "half": rng.standard_normal((5, 7)).astype(np.float16),
        "single": rng.standard_normal((5, 2, 2)).astype(np.float32),
        "labels": rng.integers(0, 10, 5),
        "none": np.empty((5, 0), np.float32),
    }


@pytest.fixture
def table(columns, tmp_path):
    write_table(tmp_path / "folder" / "table.safetensors", columns, {"text": 'with "quotes", ü and "sha256":"x"'})
    return tmp_path / "folder" / "table.safetensors"


def read_all(path):
    header = read_header(path)
    return {name: read_column(path, header, name) for name in header.columns}


def test_the_safetensors_library_reads_what_we_write(table, columns):
    theirs = load_file(table)
    ours = read_all(table)
    for name, expected in columns.items():
        for read in (theirs[name], ours[name]):
            assert (read.dtype, read.shape) == (expected.dtype, expected.shape)
            assert np.array_equal(read, expected)
    with safe_open(table, "np") as stream:
        assert stream.metadata()["text"] == read_header(table).metadata["text"]
    assert os.listdir(table.parent) == [table.name]  # no temporary file is left


def test_pieces_give_the_bytes_of_the_whole(table, columns):
    def parts(array):
        return Parts(array.dtype, array.shape, (array[k : k + 2] for k in range(0, 5, 2)))

    other = table.with_name("pieces")
    write_table(other, {name: parts(a) for name, a in columns.items()}, read_header(table).metadata)
    assert other.read_bytes() == table.read_bytes()


def test_every_altered_byte_is_noticed(table):
    whole = table.read_bytes()
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 + place % 255
        table.write_bytes(changed)
        with pytest.raises(DamagedError, match=r"table.safetensors is damaged: .*Remove it"):
            read_all(table)
    for shorter in range(0, len(whole), 7):
        table.write_bytes(whole[:shorter])
        with pytest.raises(DamagedError):
            read_all(table)
    table.write_bytes(whole + b"\0")
    with pytest.raises(DamagedError, match=f"it has {len(whole) + 1} bytes where its header announces {len(whole)}"):
        read_all(table)


def test_the_fault_is_named(table):
    whole = bytearray(table.read_bytes())
    column = read_header(table).columns["half"]
    changed = whole.copy()
    changed[column.start] ^= 1
    table.write_bytes(changed)
    with pytest.raises(DamagedError, match="column 'half' does not have the sha256"):
        read_all(table)
    header = read_header(table)  # the header is whole, other columns can be read, and so can this one unverified
    read_column(table, header, "single")
    read_column(table, header, "half", verify=False)
    table.write_bytes(whole.replace(b"quotes", b"quoteZ"))
    with pytest.raises(DamagedError, match="its header is not the one that was written"):
        read_header(table)
    table.write_bytes(whole[:5])
    with pytest.raises(DamagedError, match="ends within its header, after 5 bytes"):
        read_header(table)


def test_a_safetensors_file_of_others_is_not_taken(tmp_path):
    from safetensors.numpy import save_file

    save_file({"logits": np.zeros(3)}, tmp_path / "theirs.safetensors")
    with pytest.raises(DamagedError, match="it was not written by uqlib"):
        read_header(tmp_path / "theirs.safetensors")


def test_what_is_read_may_be_written_to_without_reaching_the_file(table):
    before = hashlib.sha256(table.read_bytes()).hexdigest()
    read_all(table)["single"][:] = 0
    assert hashlib.sha256(table.read_bytes()).hexdigest() == before


def test_unknown_types_are_refused(tmp_path):
    with pytest.raises(TypeError, match="column 'z' is complex128; choose from float64, float32"):
        write_table(tmp_path / "t", {"z": np.zeros(2, complex)}, {})
    assert not list(tmp_path.iterdir())


def test_a_failure_while_writing_leaves_the_old_file(tmp_path):
    (tmp_path / "file").write_text("old")

    def fail():
        with replacing(tmp_path / "file") as stream:
            stream.write(b"half of the new")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        fail()
    assert (tmp_path / "file").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_killed_writer_leaves_nothing_under_the_final_name(tmp_path):
    code = (
        "import os, signal, sys; from uqlib.files.whole import replacing\n"
        "with replacing(sys.argv[1]) as stream: stream.write(b'x'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], check=False).returncode == -9
    assert not (tmp_path / "file").exists()


def test_the_cache_folder_follows_the_environment(monkeypatch):
    for name in ("UQLIB_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache_folder() == Path.home() / ".cache" / "uqlib"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_folder() == Path("/x/uqlib")
    monkeypatch.setenv("UQLIB_CACHE", "/y")
    assert cache_folder() == Path("/y")


# headers made up by somebody


def crafted(path, table, data=b"", *, texts=None, pad=8):
    """A file with a valid seal around any header."""
    texts = {"sha256": "0" * 64} | ({} if texts is None else texts)
    body = (table if isinstance(table, str) else json.dumps({"__metadata__": texts} | table)).encode()
    body += b" " * (-len(body) % pad)
    whole = len(body).to_bytes(8, "little") + body
    path.write_bytes(whole.replace(b"0" * 64, hashlib.sha256(whole).hexdigest().encode(), 1) + data)
    return path


def column(dtype="F32", shape=(4,), offsets=(0, 16)):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


OTHER = {"sha256.x": "a" * 64, "sha256.y": "b" * 64}
CRAFTED = {
    "negative offsets": ({"x": column(offsets=(-16, 0))}, b""),
    "reversed offsets": ({"x": column(offsets=(16, 0))}, b"\0" * 16),
    "a gap": ({"x": column(offsets=(0, 16)), "y": column(offsets=(32, 48))}, b"\0" * 48),
    "an overlap": ({"x": column(offsets=(0, 16)), "y": column(offsets=(8, 24))}, b"\0" * 24),
    "an unknown type": ({"x": column("I7")}, b"\0" * 16),
    "a type that is a list": ({"x": column(["F32"])}, b"\0" * 16),
    "a span that is not the shape's": ({"x": column(shape=(5,))}, b"\0" * 16),
    "a negative shape": ({"x": column(shape=(-2, -2))}, b"\0" * 16),
    "a shape of floats": ({"x": column(shape=(4.0,))}, b"\0" * 16),
    "a shape of booleans": ({"x": column("U8", (True,), (0, 1))}, b"\0"),
    "10^18 rows": ({"x": column(shape=(10**18,), offsets=(0, 4 * 10**18))}, b"\0" * 16),
    "10^18 rows of nothing": ({"x": column(shape=(10**18, 0), offsets=(0, 0))}, b""),
    "a product that overflows": ({"x": column(shape=(2**32, 2**32), offsets=(0, 0))}, b""),
    "a thousand axes": ({"x": column("U8", (1,) * 1000, (0, 1))}, b"\0"),
    "no shape": ({"x": {"dtype": "F32", "data_offsets": [0, 16]}}, b"\0" * 16),
    "more than a shape": ({"x": column() | {"more": 1}}, b"\0" * 16),
    "a column that is a number": ({"x": 3}, b""),
    "a name with NUL": ({"\0": column()}, b"\0" * 16),
    "no name": ({"": column()}, b"\0" * 16),
    "a column without its digest": ({"z": column()}, b"\0" * 16),
    "one byte on an odd place": ({"x": column("U8", (1,), (0, 1)), "y": column("F32", (1,), (1, 5))}, b"\0" * 5),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_a_header_that_nobody_wrote_is_refused_at_once(tmp_path, name):
    table, data = CRAFTED[name]
    path = crafted(tmp_path / "t.safetensors", table, data, texts=OTHER | {"sha256.": "c" * 64, "sha256.\0": "d" * 64})
    with pytest.raises(DamagedError, match=r"t\.safetensors is damaged: its header"):
        read_all(path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"a":' * 50_000,
        "[]",
        "3",
        "null",
        '{"__metadata__": 3}',
        '{"__metadata__": {"sha256": 3}}',
        '{"__metadata__": {"sha256": ""}}',
        '{"__metadata__": {"sha256": "\\ud800"}}',
        '{"__metadata__": {"sha256": "' + "0" * 64 + '"}, "x": 1, "x": 2}',
        '{"x": ' + "9" * 5000 + "}",
    ],
)
def test_json_that_nobody_wrote_is_refused_at_once(tmp_path, text):
    with pytest.raises(DamagedError, match=r"t\.safetensors is damaged: its header"):
        read_header(crafted(tmp_path / "t.safetensors", text))


def test_a_header_longer_than_any_of_ours_is_not_read(tmp_path):
    path = tmp_path / "t.safetensors"
    with open(path, "wb") as stream:
        stream.write((2**33).to_bytes(8, "little"))
        stream.truncate(2**34)  # a hole: it takes no space
    with pytest.raises(DamagedError, match=r"its header has 8589934592 bytes, more than"):
        read_header(path)


def test_what_is_no_boolean_is_no_boolean(tmp_path):
    data = bytes([0, 1, 2])
    texts = {"sha256.x": hashlib.sha256(data).hexdigest()}
    path = crafted(tmp_path / "t.safetensors", {"x": column("BOOL", (3,), (0, 3))}, data, texts=texts)
    with pytest.raises(DamagedError, match="column 'x' holds something else than true and false"):
        read_all(path)


def test_a_file_that_shrinks_while_it_is_read_is_named(table):
    header = read_header(table)
    os.truncate(table, header.columns["single"].start)
    with pytest.raises(DamagedError, match=r"table\.safetensors is damaged: it ends before column 'odd' does"):
        read_column(table, header, "odd")


@pytest.mark.parametrize("name", ["", "a\0b", "a\nb", "__metadata__"])
def test_a_column_without_a_printable_name_is_not_written(tmp_path, name):
    with pytest.raises(ValueError, match="the name of a column must be printable text; it is"):
        write_table(tmp_path / "t", {name: np.zeros(1)}, {})


def test_texts_beyond_a_header_are_not_written(tmp_path):
    with pytest.raises(ValueError, match=r"must fit into 16777216 bytes"):
        write_table(tmp_path / "t", {"x": np.zeros(1)}, {"about": "x" * 2**24})
    assert not list(tmp_path.iterdir())


# sealed files


@pytest.mark.parametrize("content", [b"", b"x", b"text" * 30, b"0" * (2**20 + 3)])
def test_every_altered_byte_of_a_sealed_file_is_noticed(tmp_path, content):
    with replacing(tmp_path / "file") as stream:
        stream.write(content)
        seal(stream)
    whole = (tmp_path / "file").read_bytes()
    assert whole == content + b"uqlib sha256 " + hashlib.sha256(content).hexdigest().encode()
    check_seal(tmp_path / "file")
    damaged = [whole[:k] + bytes([whole[k] ^ 1]) + whole[k + 1 :] for k in {0, len(whole) // 2, len(whole) - 1}]
    for bad in [*damaged, whole[:-1], whole[1:], whole + b"\n", b"", content]:
        (tmp_path / "file").write_bytes(bad)
        with pytest.raises(DamagedError, match=r"file is damaged: its bytes do not have the sha256"):
            check_seal(tmp_path / "file")


# leftovers and errors


KILLED = """
import os, signal, sys
from uqlib.files.whole import replacing
with replacing(sys.argv[1]) as stream:
    stream.write(b"x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("name", ["file", "n" * 240, "ü" * 100])
def test_what_a_killed_writer_left_goes_with_the_next_one(tmp_path, name):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / name)], check=False)
    assert len(left := list(tmp_path.iterdir())) == 1
    assert left[0].name.endswith(".unfinished")
    write_text(tmp_path / "other", "in the same folder")
    write_text(tmp_path / name, "ü")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["other", name])
    assert (tmp_path / name).read_bytes() == b"\xc3\xbc"


def test_what_somebody_is_writing_stays(tmp_path):
    with replacing(tmp_path / "one") as stream:
        stream.write(b"1")
        write_text(tmp_path / "two", "2")
        stream.write(b"1")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"one": "11", "two": "2"}


def test_many_writers_in_one_folder_do_no_harm(tmp_path):
    def write(k):
        for _ in range(30):
            write_text(tmp_path / f"{k % 3}", str(k))

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1", "2"]


def test_a_full_disk_is_said_with_the_path(tmp_path):
    code = (
        "import resource, sys; from uqlib.files.whole import write_text\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try: write_text(sys.argv[1], 'x' * 5000)\nexcept OSError as error: print(error)"
    )
    path = tmp_path / "big"
    result = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert result.stdout == f"[Errno 27] File too large: '{path}'\n"
    assert not list(tmp_path.iterdir())
