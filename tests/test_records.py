import json
import os
from types import SimpleNamespace

import numpy as np
import pytest

from uqlib import records
from uqlib.files import digest, write_text


def a_run(value=1.0, path=""):
    run = records.start("paper/notebook", scale="smoke", parameters={"seed": 3}, path=path)
    run.add("aurc", SimpleNamespace(value=value, low=0.5, high=1.5, level=0.95), setting="digits", seeds=2, examples=10)
    run.add("accuracy", 0.9, setting="digits")
    return run


def test_what_is_saved_is_what_is_read(tmp_path):
    run = a_run(path=tmp_path / "a/run.json")
    run.save()
    assert records.read(tmp_path) == run.results
    assert records.read(tmp_path / "a", tmp_path / "nowhere") == run.results


def test_what_was_run_here_replaces_what_was_published(tmp_path):
    a_run(1.0, path=tmp_path / "published/run.json").save()
    a_run(2.0, path=tmp_path / "here/run.json").save()
    values = {result.quantity: result.value for result in records.read(tmp_path / "published", tmp_path / "here")}
    assert values == {"aurc": 2.0, "accuracy": 0.9}
    assert len(records.read(tmp_path / "published", tmp_path / "here")) == 2


def test_another_setting_or_scale_is_another_result(tmp_path):
    for scale in ("smoke", "cpu"):
        run = records.start("paper/notebook", scale=scale, parameters={}, path=tmp_path / f"{scale}.json")
        for setting in ("digits", "cifar10"):
            run.add("aurc", 1.0, setting=setting)
        run.save()
    assert len(records.read(tmp_path)) == 4


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
    other = records.start("paper/notebook", scale="smoke", parameters={"seed": 4}).save()
    assert first == again != other
    assert len(list((tmp_path / "build/records").iterdir())) == 2


def test_digest_does_not_depend_on_the_order_of_keys():
    assert digest({"a": 1, "b": [2]}) == digest({"b": [2], "a": 1}) != digest({"a": 1, "b": [3]})


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.json"
    write_text(path, "old")

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    "content",
    [
        b'{"results": [',
        b'{"results": null, "provenance": {}}',
        b'{"results": [{"banana": 1}], "provenance": {}}',
        b"\xff\xfe",
    ],
)
def test_a_broken_record_is_named(tmp_path, content):
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.json is not a record"):
        records.read(tmp_path)


def test_a_result_that_is_no_number_is_refused():
    run = records.start("n", scale="smoke", parameters={})
    with pytest.raises(ValueError, match="aurc of digits must be finite; it has nan"):
        run.add("aurc", float("nan"), setting="digits")


def test_a_parameter_that_cannot_be_written_is_named():
    with pytest.raises(TypeError, match="parameter rate must be a plain number, text or list; it is float32"):
        records.start("n", scale="smoke", parameters={"rate": np.float32(0.1)})


def test_unknown_scale():
    with pytest.raises(ValueError, match="unknown scale 'huge'; choose from smoke, cpu, gpu, paper"):
        records.start("n", scale="huge", parameters={})


def test_figures_lie_beside_the_record_with_the_same_bytes(tmp_path):
    import matplotlib.pyplot as plt

    from uqlib import plots

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
