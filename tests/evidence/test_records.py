import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uqlib.evidence import records
from uqlib.files.whole import write_text


def a_run(value=1.0, path=""):
    run = records.start_run("paper/notebook", scale="smoke", parameters={"seed": 3}, path=path)
    run.add("aurc", SimpleNamespace(value=value, low=0.5, high=1.5, level=0.95), setting="digits", seeds=2, examples=10)
    run.add("accuracy", 0.9, setting="digits")
    return run


def test_what_is_saved_is_what_is_read(tmp_path):
    run = a_run(path=tmp_path / "a/run.json")
    run.save()
    assert records.read_results(tmp_path) == run.results
    assert records.read_results(tmp_path / "a", tmp_path / "nowhere") == run.results


def test_what_was_run_here_replaces_what_was_published(tmp_path):
    a_run(1.0, path=tmp_path / "published/run.json").save()
    a_run(2.0, path=tmp_path / "here/run.json").save()
    values = {
        result.quantity: result.value for result in records.read_results(tmp_path / "published", tmp_path / "here")
    }
    assert values == {"aurc": 2.0, "accuracy": 0.9}
    assert len(records.read_results(tmp_path / "published", tmp_path / "here")) == 2


def test_another_setting_or_scale_is_another_result(tmp_path):
    for scale in ("smoke", "cpu"):
        run = records.start_run("paper/notebook", scale=scale, parameters={}, path=tmp_path / f"{scale}.json")
        for setting in ("digits", "cifar10"):
            run.add("aurc", 1.0, setting=setting)
        run.save()
    assert len(records.read_results(tmp_path)) == 4


def test_provenance_says_all_that_the_bits_depend_on(tmp_path):
    body = json.loads(a_run(path=tmp_path / "run.json").save().read_text())
    assert body["parameters"] == {"seed": 3, "scale": "smoke"}
    made = body["provenance"]
    assert made["versions"]["torch"]
    assert made["threads"] >= 1
    assert made["peak_memory_mb"] > 10
    assert {"python", "platform", "device", "cpu", "commit", "seconds", "date", "inputs"} <= made.keys()


def test_the_name_follows_the_parameters(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, again = a_run().save(), a_run(2.0).save()
    other = records.start_run("paper/notebook", scale="smoke", parameters={"seed": 4}).save()
    assert first == again != other
    assert len(list((tmp_path / "build/records").iterdir())) == 2


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_text(path, "old")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert path.read_text() == "old"


def test_a_full_disk_is_told_with_the_file(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*run\.json'"):
        write_text(tmp_path / "run.json", "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b'{"results": [',
        b'{"results": null, "provenance": {}}',
        b'{"results": [{"banana": 1}], "provenance": {}}',
        b"\xff\xfe",
        b"[]",
        b"[" * 100_000,
    ],
)
def test_a_broken_record_is_named(tmp_path, content):
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.json is not a record"):
        records.read_results(tmp_path)


def changed(path, *where, to=None, drop=False, name="changed.json"):
    """A record with one field changed, sealed anew: as somebody writes it who knows the format."""
    body = json.loads(path.read_text())
    inner = body
    for key in where[:-1]:
        inner = inner[key]
    if drop:
        del inner[where[-1]]
    else:
        inner[where[-1]] = to
    other = path.with_name(name)
    other.write_text(json.dumps(records.sealed(body)))
    return other


@pytest.mark.parametrize(
    ("where", "to", "message"),
    [
        (("results", 0, "level"), 7, r"result 0: the level of aurc of digits must lie in \(0, 1\); it is 7.0"),
        (("results", 0, "level"), 95, "Percent"),
        (("results", 0, "low"), 2.0, "must not end before it begins; low 2.0, high 1.5"),
        (("results", 0, "high"), None, "one end of an interval"),
        (("results", 0, "value"), "0.5", "result 0: the value of aurc of digits must be a finite number"),
        (("results", 0, "value"), True, "value of result 0 must not be bool"),
        (("results", 0, "value"), float("nan"), "must be finite; it has nan"),
        (("results", 0, "value"), 10**400, "int too large"),
        (("results", 0, "seeds"), 0, "seeds of aurc of digits must be a whole number of at least 1"),
        (("results", 0, "seeds"), 2.5, "seeds of aurc of digits must be a whole number"),
        (("results", 0, "examples"), -3, "examples of aurc of digits"),
        (("results", 0, "setting"), "", "the setting of a result must be a text"),
        (("results", 0, "setting"), ["a"], "the setting of a result must be a text"),
        (("results", 0, "scale"), "gpu", "result 0 is of paper/notebook at scale gpu"),
        (("results", 0, "notebook"), "other/notebook", "result 0 is of other/notebook"),
        (("results", 0, "banana"), 1, "result 0 has fields that are not known: banana"),
        (("results", 1, "quantity"), "aurc", "has aurc of digits twice"),
        (("scale",), "huge", "unknown scale 'huge'"),
        (("notebook",), "../../etc/passwd", "notebook must be PAPER/NAME"),
        (("parameters",), [], "parameters of the record must not be a list"),
        (("banana",), 1, "the record has fields that are not known: banana"),
        (("provenance", "versions"), None, "versions of the provenance must not be null"),
        (("provenance", "versions", "torch"), 2, "the version of torch must be a text"),
        (("provenance", "seconds"), "long", "seconds of the provenance must not be a text"),
        (("provenance", "threads"), True, "threads of the provenance must not be bool"),
    ],
)
def test_a_record_that_cannot_be_is_refused_by_name(tmp_path, unchecked, where, to, message):
    path = changed(a_run(path=tmp_path / "run.json").save(), *where, to=to)
    with pytest.raises(ValueError, match=message) as caught:
        records.read_record(path)
    assert "changed.json" in str(caught.value)


@pytest.mark.parametrize("where", [("provenance",), ("provenance", "versions"), ("provenance", "versions", "torch"),
                                   ("results", 0, "level"), ("scale",), ("parameters",)])  # fmt: skip
def test_a_record_that_lacks_something_says_what(tmp_path, where):
    path = changed(a_run(path=tmp_path / "run.json").save(), *where, drop=True)
    with pytest.raises(ValueError, match=rf"changed\.json is not a record \(.* lacks? {where[-1]}"):
        records.read_record(path)


def test_a_record_without_a_seal_is_refused(tmp_path):
    path = a_run(path=tmp_path / "run.json").save()
    body = json.loads(path.read_text())
    del body["sha256"]
    path.write_text(json.dumps(body))
    with pytest.raises(ValueError, match="lacks sha256"):
        records.read_record(path)


@pytest.fixture(scope="module")
def sealed_bytes(tmp_path_factory):
    return a_run(path=tmp_path_factory.mktemp("sealed") / "run.json").save().read_bytes()


@given(st.data())
@settings(max_examples=150)
def test_a_changed_byte_is_noticed(sealed_bytes, tmp_path_factory, data):
    kind = data.draw(st.sampled_from(["flip", "drop", "cut", "add"]))
    place = data.draw(st.integers(0, len(sealed_bytes) - 1))
    byte = data.draw(st.binary(min_size=1, max_size=1))
    before, at, after = sealed_bytes[:place], sealed_bytes[place : place + 1], sealed_bytes[place + 1 :]
    content = {"flip": before + byte + after, "drop": before + after, "cut": before, "add": before + byte + at + after}
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    path.write_bytes(sealed_bytes)
    whole = records.read_record(path)
    path.write_bytes(content[kind])
    try:
        found = records.read_record(path)
    except ValueError as error:
        found = str(error)
    assert found == whole or "damaged.json" in found  # the same, if it was a space more or less


def test_the_unit_of_replacement_is_the_run(tmp_path):
    published = records.start_run("paper/notebook", scale="cpu", parameters={}, path=tmp_path / "published/a.json")
    published.add("change", -1.0, setting="cifar10: a + b")
    published.add("gone", 1.0, setting="s")
    published.save()
    own = records.start_run("paper/notebook", scale="cpu", parameters={"seed": 1}, path=tmp_path / "own/b.json")
    own.add("change", 2.0, setting="CIFAR-10: a+b")
    own.save()
    found = records.read_results(tmp_path / "published", tmp_path / "own")
    assert [(each.setting, each.value) for each in found] == [("CIFAR-10: a+b", 2.0)]


def test_two_runs_of_a_notebook_in_one_folder_are_refused_and_one_can_be_named(tmp_path):
    for seed in (1, 2):
        run = records.start_run(
            "paper/notebook", scale="cpu", parameters={"seed": seed}, path=tmp_path / f"{seed}.json"
        )
        run.add("change", float(seed), setting="s")
        run.save()
    with pytest.raises(ValueError, match=r"2\.json and .*1\.json are both records of paper/notebook at scale cpu"):
        records.read_results(tmp_path)
    assert [each.value for each in records.read_results(tmp_path / "2.json")] == [2.0]  # the advice


def test_the_same_quantity_and_setting_twice_is_refused():
    run = a_run()
    with pytest.raises(ValueError, match="aurc of digits was added already"):
        run.add("aurc", -5.0, setting="digits")
    run.add("aurc", -5.0, setting="cifar10")
    assert [each.value for each in run.results] == [1.0, 0.9, -5.0]


def test_a_record_lies_where_its_name_says(tmp_path):
    known = {"paper/notebook", "paper/other"}
    path = a_run(path=tmp_path / "paper/notebook.json").save()
    assert len(records.read_results(tmp_path, notebooks=known)) == 2
    for name in ("other.json", "notebook.gpu.json"):
        path = path.rename(path.with_name(name))
        with pytest.raises(
            ValueError, match=r"holds a record of paper/notebook at scale smoke; .*paper/notebook\.smoke"
        ):
            records.read_results(tmp_path, notebooks=known)
    path.rename(path.with_name("notebook.smoke.json"))  # the advice
    assert len(records.read_results(tmp_path, notebooks=known)) == 2


def test_a_record_of_a_notebook_that_is_gone_does_not_count(tmp_path):
    path = a_run(path=tmp_path / "paper/notebook.json").save()
    assert records.read_results(tmp_path, notebooks={"paper/other"}) == []
    assert records.orphans(tmp_path, notebooks={"paper/other"}) == [path]


def test_the_published_records_are_whole_and_in_their_places(repository):
    from uqlib.book import notebooks

    known = notebooks.names(repository / "notebooks")
    assert records.read_results(repository / "data/records", notebooks=known)
    assert records.orphans(repository / "data/records", notebooks=known) == []


def test_a_result_that_is_no_number_is_refused():
    run = records.start_run("n", scale="smoke", parameters={})
    with pytest.raises(ValueError, match="aurc of digits must be finite; it has nan"):
        run.add("aurc", float("nan"), setting="digits")


def test_a_parameter_that_cannot_be_written_is_named():
    with pytest.raises(TypeError, match="parameter rate must be a plain number, text or list; it is float32"):
        records.start_run("n", scale="smoke", parameters={"rate": np.float32(0.1)})


def test_unknown_scale():
    with pytest.raises(ValueError, match="unknown scale 'huge'; choose from smoke, cpu, gpu, paper"):
        records.start_run("n", scale="huge", parameters={})


def test_figures_lie_beside_the_record_with_the_same_bytes(tmp_path):
    import matplotlib.pyplot as plt

    from uqlib.report import plots

    written = []
    with plt.rc_context(plots.STYLE):
        for name in ("first", "second"):
            figure, ax = plt.subplots()
            ax.plot([0, 1], [0, 1])
            written.append(a_run(path=tmp_path / f"{name}.json").save_figure(figure, "line"))
            plt.close(figure)
    assert written[0] == tmp_path / "first.figures/line.svg"
    assert written[0].read_bytes() == written[1].read_bytes()


def test_half_an_interval_is_refused():
    with pytest.raises(ValueError, match="aurc has one end of an interval"):
        records.Result("aurc", "s", 1.0, low=0.5)


def test_a_run_that_lacked_data_does_not_replace_one_that_had_them(tmp_path):
    def saved(folder, value, lacks):
        run = records.start_run("p2020/one", scale="cpu", parameters={}, path=tmp_path / folder / "p2020/one.json")
        run.add("change", value, setting="a")
        run.lacks = lacks
        run.save()

    def taken():
        return [result.value for result in records.read_results(tmp_path / "published", tmp_path / "own")]

    saved("published", 1.0, [])
    saved("own", 2.0, ["images"])
    assert taken() == [1.0]
    saved("published", 1.0, ["images", "votes"])
    assert taken() == [2.0]  # it lacked less
    saved("own", 2.0, [])
    assert taken() == [2.0]
    path = tmp_path / "own/p2020/one.json"
    body = json.loads(path.read_text())
    path.write_text(json.dumps(records.sealed(body | {"provenance": body["provenance"] | {"lacks": "images"}})))
    with pytest.raises(ValueError, match=r"own/p2020/one\.json is not a record \(lacks .* must be a list of texts"):
        taken()
