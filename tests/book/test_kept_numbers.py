"""Pages whose data cannot travel: without people's labels their text is that of the kept record, and says so."""

import contextlib
import io
import json
import re
from unittest import mock

import pytest

from uqlib.book import notebooks
from uqlib.evidence.records import read_record

UNTOLD = re.compile(r"not run|not counted|not measured|\b0 of 0\b|\bnone of 0\b|\bnan\b|\bNone\b")
PAGES = {  # what a page tells, by the result that it is
    "real_label_noise": {
        "level.rmd": [("label_noise_level_rmd", f"CIFAR-10N {k}: tf_mobilenetv2_100") for k in ("worst", "aggregate", "random1")],
        "level.md": [("label_noise_level_md", f"CIFAR-10N {k}: tf_mobilenetv2_100") for k in ("worst", "aggregate", "random1")],
        "loss": [("label_noise_auroc_rmd_minus_loss", "CIFAR-10N worst: tf_mobilenetv2_100")],
        "people": [("human_spearman_rmd", "CIFAR-10H: mobilenetv1_025")],
    },
    "pictures": {
        "dispute": [("pictures_dispute_hardest_minus_easiest", f"CIFAR-10, {k}") for k in ("cat", "truck")],
        "less": [("pictures_dispute_hardest_rmd_minus_md", "CIFAR-10: mobilenetv1_050")],
    },
}  # fmt: skip


@pytest.fixture(params=PAGES)
def told(request, repository, tmp_path, monkeypatch):
    """The name of a page, its cells, and what it tells on a machine without images and labels."""
    for name in ("UQLIB_DATA", "UQLIB_CACHE"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(repository)
    body = json.loads((repository / f"notebooks/cui2023/{request.param}.ipynb").read_text())
    names, found = {"__name__": "__main__"}, {}
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: None)
    with mock.patch("myst_nb.glue", lambda key, value, display=True: found.update({key: value})):
        for cell in body["cells"]:
            if cell["cell_type"] == "code":
                with contextlib.redirect_stdout(io.StringIO()):
                    exec(compile(notebooks.cell_text(cell), request.param, "exec"), names)
                if "parameters" in cell["metadata"].get("tags", []):
                    names |= {"scale": "smoke", "record": str(tmp_path / "record.json"), "draws": 4}
    return request.param, body, found


@pytest.mark.slow
def test_without_the_labels_a_page_tells_what_was_kept(told, repository):
    name, body, found = told
    kept = read_record(repository / f"data/records/cui2023/{name}.json")
    prose = "".join(notebooks.cell_text(cell) for cell in body["cells"] if cell["cell_type"] == "markdown")
    asked = set(re.findall(r"\{glue:text\}`([^`:]+)", prose))
    assert asked <= set(found)
    assert not {key: found[key] for key in asked if UNTOLD.search(str(found[key]))}
    assert kept["provenance"]["date"][:10] in found["basis"]
    known = {(result.quantity, result.setting): result.value for result in kept["results"]}
    for key, results in PAGES[name].items():
        numbers = [float(x) for x in re.findall(r"[+-]?\d+\.\d+", found[key].replace("−", "-"))]
        for result in results:
            points, half = (1, 0.0051) if name == "real_label_noise" else (100, 0.051)  # of the last digit that is told
            assert min(abs(x - points * known[result]) for x in numbers) < half, (key, result)


@pytest.mark.slow
def test_a_chapter_asks_those_pages_for_nothing_that_they_do_not_tell(told, repository):
    name, _, found = told
    page = (repository / "book/cui2023/index.md").read_text(encoding="utf-8")
    asked = set(re.findall(rf"results/cui2023/{name}\.ipynb::([\w.-]+)", page))
    assert asked <= set(found)
    assert not {key: found[key] for key in asked if UNTOLD.search(str(found[key]))}
