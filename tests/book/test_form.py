"""What a notebook looks like: short, without functions of its own, its method shown, its sentences chosen by its results."""

import ast
import io
import json
import re
import statistics
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

import pytest
import torch

from uqlib.book import notebooks, skeleton
from uqlib.experiments.studies import Training
from uqlib.store.read import Answers

LINES, MEDIAN, MEAN, CELL, FIGURE = 100, 90, 86, 12, 20
LOOPS = (ast.For, ast.While, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
COMPARED = re.compile(
    r"\b(better|worse|best|worst|higher|lower|highest|lowest|(?:larger|smaller|fewer) than|more accurate|less accurate|improves?|beats?|wins?|"
    r"helps?|hurts?|raises?|lowers?|gains? from|confirmed|surely)\b"
)
FREE = re.compile(
    r"\b((lower|higher|left|right) is better|(below|above|left of|right of) (the|zero)|claims?|wherever|if|whether|would|can|could|may|might|paper|says?|mean(s|t)?|no claim|by definition)\b|\?",
    re.I,
)


def found(repository):
    return {
        f"{path.parent.name}/{path.stem}": json.loads(path.read_text())
        for path in notebooks.paths(repository / "notebooks")
    }


BOOK = found(__import__("pathlib").Path(__file__).parents[2])
EVERY = BOOK | {"template": json.loads(skeleton._notebook().replace("$name", "guo2017").replace("${name}", "guo2017"))}


def code_of(body):
    return [(cell, notebooks.cell_text(cell)) for cell in body["cells"] if cell["cell_type"] == "code"]


def lines(source):
    return [line for line in source.splitlines() if line.strip() and not line.strip().startswith("#")]


def depth(node):
    """How deep loops stand in each other, a comprehension with two `for` counting twice."""
    own = len(node.generators) if hasattr(node, "generators") else int(isinstance(node, LOOPS))
    return own + max((depth(child) for child in ast.iter_child_nodes(node)), default=0)


@pytest.mark.parametrize("name", EVERY)
def test_a_notebook_is_short_and_has_no_function_of_its_own(name):
    cells = code_of(EVERY[name])
    assert sum(len(lines(source)) for _, source in cells) <= LINES
    for cell, source in cells:
        tree = ast.parse(source)
        drawn = "fig" in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        if "parameters" not in cell["metadata"].get("tags", []):  # a line a parameter, however many there are
            assert len(lines(source)) <= (FIGURE if drawn else CELL), source
        for node in ast.walk(tree):
            assert not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Assert), source
            assert not isinstance(node, ast.Lambda) or node.lineno == node.end_lineno, source
        assert depth(tree) < 3, source
        starts = [node.lineno for node in tree.body]
        assert len(set(starts)) == len(starts), f"two statements on one line: {source}"
        assert not re.search(r":[^\"'\n]*\+[.,\d]*f?\}", source), f"a sign formatted by hand: {source}"
        assert "compare(" not in source or "hide-input" not in cell["metadata"].get("tags", []), (
            f"hidden method: {source}"
        )
    assert cells[-1][1].strip() == "run.done()"


def test_the_notebooks_together_are_short():
    counts = [sum(len(lines(source)) for _, source in code_of(body)) for body in BOOK.values()]
    assert statistics.median(counts) <= MEDIAN
    assert sum(counts) <= MEAN * len(counts)


def unsaid(prose):
    """Sentences and headings that compare our results in words of their own; a paragraph of the question tells what a paper claims."""
    plain = re.sub(r"(?s)```.*?```|\$\$.*?\$\$", "", prose)
    plain = re.sub(r"(?<!\*)\*\w+\*(?!\*)", "NAME", re.sub(r"`(?!`)[^`]*`(?!`)", "GLUE", plain))
    parts = [part.replace("\n", " ") for part in re.split(r"\n\n|(?m:^#.*$)", plain) if "**Question.**" not in part]
    parts += re.findall(r"(?m)^##.*$", plain)
    for sentence in (sentence for part in parts for sentence in re.split(r"(?<=[.!?])\s+", part)):
        if COMPARED.search(sentence) and not FREE.search(sentence) and not re.search(r"\{(glue:text|cite)\}", sentence):
            yield sentence


@pytest.mark.parametrize("name", EVERY)
def test_a_sentence_that_says_who_wins_takes_its_words_from_the_result(name):
    for cell in EVERY[name]["cells"]:
        if cell["cell_type"] == "markdown":
            assert not list(unsaid(notebooks.cell_text(cell))), name


def noted_and_set_again(source):
    """Names that `run.note(name=name)` gives to the prose, of which the code makes more than one thing on the way."""
    tree = ast.parse(source)
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "run.note"]
    told = {each.arg for call in calls for each in call.keywords if ast.unparse(each.value) == each.arg}
    made = [name for node in tree.body if isinstance(node, ast.Assign) for name in ast.walk(node)
            if isinstance(name, ast.Name) and isinstance(name.ctx, ast.Store)]  # fmt: skip
    return {name for name in told if sum(each.id == name for each in made) > 1}


@pytest.mark.parametrize("name", BOOK)
def test_what_the_prose_is_told_under_a_name_is_made_once(name):
    """A title of the data and then of a figure, both `title`: the page said "300 images of 13 % of the images are surer"."""
    cells = [source for cell, source in code_of(BOOK[name]) if "parameters" not in cell["metadata"].get("tags", [])]
    assert not noted_and_set_again("\n".join(cells))


@pytest.mark.parametrize("name", BOOK)
def test_intervals_keep_what_they_are_about_and_those_of_a_correlation_their_bounds(name):
    code = "\n".join(source for _, source in code_of(BOOK[name]))
    assert not re.search(r'"low", "high"\]\]\s*$', code, re.M), (
        "a table or figure of these cells cannot say what they cover"
    )
    assert "rank_correlation(" not in code or "within=(-1, 1)" in code, "Student's ends may lie beyond 1"


@pytest.mark.parametrize("paper", ["zhou2025", "cui2023", "kirchhof2024"])
def test_so_does_a_sentence_of_a_chapter(paper, repository):
    page = (repository / f"book/{paper}/index.md").read_text(encoding="utf-8")
    found = page.partition("## What we find")[2].partition("## Exercises")[0]
    assert len(found) > 3000
    assert not list(unsaid(found))


@pytest.mark.slow
@pytest.mark.parametrize("name", BOOK)
def test_on_other_data_every_sentence_is_still_whole(name, tmp_path, monkeypatch):
    """With four in ten labels shuffled, every name that the prose asks for is told, in words that can be read."""
    monkeypatch.setattr(Answers, "labels", property(lambda self: shuffled(self.columns["labels"])))
    plain = Training.__getitem__
    monkeypatch.setattr(
        Training, "__getitem__", lambda self, c: shuffled(plain(self, c)) if c == "correct" else plain(self, c)
    )
    body, told = BOOK[name], {}
    given = {"scale": "smoke", "record": str(tmp_path / "record.json"), "draws": 4}
    names = {"__name__": "__main__"}
    monkeypatch.setattr("IPython.display.display", lambda *_, **__: None)
    with mock.patch("myst_nb.glue", lambda key, value, display=True: told.update({key: value})):
        for cell, source in code_of(body):
            with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
                exec(compile(source, name, "exec"), names)
            if "parameters" in cell["metadata"].get("tags", []):
                names |= given
    asked = {key for cell in body["cells"] if cell["cell_type"] == "markdown"
             for key in re.findall(r"\{glue:text\}`([^`:]+)", notebooks.cell_text(cell))}  # fmt: skip
    assert asked <= told.keys(), f"{name} does not tell {sorted(asked - told.keys())}"
    for key in asked:
        assert not re.search(r"\bnan\b|\b0 of 0\b|not run|not counted|\bNone\b|inf\b", str(told[key])), (key, told[key])
    assert json.loads((tmp_path / "record.json").read_text())["results"]


def shuffled(column):
    """Four in ten entries in another order; were it all, no weight of a duo could be fitted, and `fit_duo` says so."""
    generator = torch.Generator().manual_seed(0)
    some = (torch.rand(len(column), generator=generator) < 0.4).nonzero()[:, 0]
    column = torch.as_tensor(column).clone()
    column[some] = column[some[torch.randperm(len(some), generator=generator)]]
    return column


def test_the_rules_see_what_they_forbid():
    assert depth(ast.parse("for a in b:\n    [c for d in e for c in d]")) == 3
    assert depth(ast.parse("[x for x in y]\n[x for x in y]")) == 1
    assert list(unsaid("The duo is better.\n\n## It wins\n\nIs it better? It is {glue:text}`x.phrase`: better.")) == [
        "The duo is better.",
        "## It wins",
    ]
