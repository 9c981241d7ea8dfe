import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from uqlib.files import DamagedError, Parts, cache_folder, read_column, read_header, replacing, write_table


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
    for shorter in range(len(whole)):
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
        "import os, signal, sys; from uqlib.files import replacing\n"
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
