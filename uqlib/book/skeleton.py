"""A new paper: the files that every chapter has, written from a template that builds and passes.

The template is a small experiment on the embedded store (one fitted temperature), so that each file shows what belongs there.
Replace it piece by piece; the book builds at every step.
"""

import json
import re
from pathlib import Path
from string import Template
from typing import Any

from uqlib.files.whole import write_text

NAME = re.compile(r"[a-z]+\d{4}")

LEDGER = """\
# What the paper reports, and what follows from it in checkable form. Quantities are fractions and nats; reported numbers keep
# the unit of print.

paper = "$name"
title = "$title"
cite = "$name"

[[row]]
id = "$name-T1"
shows = "An example, to be replaced: ECE of one network, raw and with its logits divided by a fitted temperature."
notebook = "$name/question"
source = "an example"

  [[row.claim]]
  id = "$name-T1-ece"
  text = "A fitted temperature lowers the ECE of a network that is too sure"
  quantity = "${name}_ece_scaled_minus_raw"
  holds = "< 0"
  unit = "examples"  # that it holds for others: examples, trainings, networks, data sets
  ours = true  # the paper does not say so
  forecast = 0.9  # the probability that it is confirmed, written down before the first run
"""

PAGE = """\
# $title

*$author* {cite}`$name`

What the paper asks, in a paragraph for a bright newcomer. This page is the template of a new chapter: its experiment divides the
logits of one network by a temperature.

## The idea

What one would do without the paper, what the paper does instead, and why that should help.

## The mathematics

A network gives logits $$z \\in \\mathbb R^C$$. With a temperature $$T > 0$$ its probabilities are

$$$$
p_k(z) = \\frac{\\exp(z_k / T)}{\\sum_{c} \\exp(z_c / T)} .
$$$$

## The experiment

[One question a notebook](../results/$name/question.ipynb): on what data, with which networks, compared how.

## Reading

The fitted temperature is {glue:text}`../results/$name/question.ipynb::temperature:.2f`. It changes ECE by
{glue:text}`../results/$name/question.ipynb::change:s` points.

## Limits

What was not tested, and what a run at a larger scale would add.
"""

PAPER = '''\
"""$title: what is alone of $author $year.

Names in print, released rules, released metrics, options of its baselines. A method that others could use goes into a family.
"""

TITLE = "$title"
'''

TEST = '''\
"""What is alone of $name: its names, and its rules against the digits that it prints."""

from uqlib.papers import $name


def test_the_title_is_that_of_the_ledger(repository):
    assert f'title = "{$name.TITLE}"' in (repository / "data/ledger/$name.toml").read_text(encoding="utf-8")
'''

REFERENCE = """\
@misc{$name,
  title  = {{$title}},
  author = {$author},
  year   = {$year},$eprint
}
"""

CELLS: tuple[tuple[str, str, tuple[str, ...], str], ...] = (  # id, kind, tags, source
    ("question", "markdown", (), '''\
# Does a temperature mend a network that is too sure?

**Question.** A network that says 99 % should be right 99 times in 100. Does dividing its logits by one fitted number bring what it
says closer to what is right? An example, to be replaced by a question of {cite}`$name`.

**In short.** After scaling, ECE is {glue:text}`change.phrase` ({glue:text}`change` points).
'''),
    ("parameters", "code", ("parameters",), '''\
scale = "cpu"  # smoke, cpu, gpu or paper; sets what is 0 below
network = "cifar_resnet20"  # of the store
fit_size = 1000  # examples that fit the temperature; the others test
draws = 0  # bootstrap draws; 0: 1000 (smoke: 50)
seed = 0  # of the split and the draws
record = ""  # file of the record; empty: a name of its own in build/records
'''),
    ("imports", "code", ("remove-output",), '''\
from uqlib.base.splits import split
from uqlib.calibrate import fit_temperature, scale_logits
from uqlib.metrics.compare import compare
from uqlib.metrics.outcomes import outcome_of
from uqlib.report import charts
from uqlib.report.cards import card_of, show_card
from uqlib.report.verbs import begin
from uqlib.store import load_answers

run = begin("$name/question", globals(), draws=[50, 1000])
'''),
    ("method-md", "markdown", (), "## Data and method\n"),
    ("method", "code", (), '''\
answers = load_answers(network, "cifar10")
fit, test = split(len(answers), fit_size, seed=seed)
temperature = fit_temperature(answers.logits[fit], answers.labels[fit]).temperature
logits, labels = answers.logits[test], answers.labels[test]
outcomes = {
    "raw": outcome_of(logits, labels),
    "scaled": outcome_of(scale_logits(logits, temperature), labels),
}
lists = {name: [each] for name, each in outcomes.items()}
scores = compare(lists, ["ece", "nll"], over="split", draws=draws, seed=seed)
change = (scores - scores.sel(variant="raw")).sel(variant=["scaled"])
'''),
    ("result-md", "markdown", (), "## Result\n"),
    ("result", "code", (), '''\
place = f"CIFAR-10: {network}"
ece = change.sel(measure=["ece"])
run.record("${name}_ece_scaled_minus_raw", ece, setting=place, examples=len(test))
run.table(scores, rows="variant", columns="measure", signed=False, caption=place)
'''),
    ("card", "code", (), '''\
rows = {"raw": answers.logits, "scaled": scale_logits(answers.logits, temperature)}
cards = {name: [card_of(each[test], labels)] for name, each in rows.items()}
show_card(run, cards, place="CIFAR-10, ResNet-20", over="split", draws=draws)
'''),
    ("figure", "code", (), '''\
fig = charts.curves(outcomes, title=place)
run.show(fig, "curves", "Selective risk and reliability, before and after scaling")
'''),
    ("numbers", "code", ("remove-output", "hide-input"), '''\
run.tell("change", ece)
run.note(temperature=temperature)
'''),
    ("reading-md", "markdown", (), '''\
## Reading

The temperature is {glue:text}`temperature:.2f`, and ECE changes by {glue:text}`change` points. Not tested here: other networks, other data.
'''),
    ("done", "code", ("hide-input",), "run.done()\n"),
)  # fmt: skip


def new_paper(name: str, *, title: str, author: str, eprint: str = "", checkout: str | Path = ".") -> list[Path]:
    """Write the files of a new paper into a checkout, and its lines into the table of contents and the references.

    Args:
        name: of the paper in all places: letters and a year, such as "guo2017".
        title, author: as they are to be cited; of several authors "Guo and Pleiss".
        eprint: number at arXiv, such as "1706.04599".
        checkout: its folder.

    Returns:
        The files that were written or changed.

    Raises:
        ValueError: if the name is no such name, a text has characters that TOML or Python would take for their own, or
            something of that paper is there already.
    """
    root = Path(checkout)
    words = _words(name, title, author, eprint)
    texts = {path: Template(text).substitute(words) for path, text in _files(root, name).items()}
    if there := [path for path in texts if path.exists()]:
        raise ValueError(f"{there[0]} is there already; choose another name, or remove it first")
    changed = {
        root / "book/_toc.yml": _with_chapter((root / "book/_toc.yml").read_text(encoding="utf-8"), name),
        root / "book/references.bib": (root / "book/references.bib").read_text(encoding="utf-8")
        + Template(REFERENCE).substitute(words),
    }
    for path, text in (texts | changed).items():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    return [*texts, *changed]


def _words(name: str, title: str, author: str, eprint: str) -> dict[str, str]:
    if not NAME.fullmatch(name):
        raise ValueError(f"the name of a paper is letters and a year, such as guo2017; it is {name!r}")
    for what, text in {"title": title, "author": author}.items():
        if not text.strip() or not text.isprintable() or re.search(r'["\\{}$]', text):
            raise ValueError(f"{what} must be a text without quotes, braces, $ and \\; it is {text!r}")
    if eprint and not re.fullmatch(r"\d{4}\.\d{4,5}", eprint):
        raise ValueError(f"eprint is a number at arXiv, such as 1706.04599; it is {eprint!r}")
    line = f"\n  eprint = {{{eprint}}},\n  archivePrefix = {{arXiv}}" if eprint else ""
    return {"name": name, "title": title, "author": author, "year": name[-4:], "eprint": line}


def _files(root: Path, name: str) -> dict[Path, str]:
    """The template of each file of a paper, by its place."""
    return {
        root / f"data/ledger/{name}.toml": LEDGER,
        root / f"notebooks/{name}/question.ipynb": _notebook(),
        root / f"book/{name}/index.md": PAGE,
        root / f"uqlib/papers/{name}.py": PAPER,
        root / f"tests/papers/test_{name}.py": TEST,
    }


def _notebook() -> str:
    cells: list[dict[str, Any]] = [
        {"cell_type": kind, "id": name, "metadata": {"tags": list(tags)} if tags else {}}
        | ({"execution_count": None, "outputs": []} if kind == "code" else {})
        | {"source": source.strip("\n").splitlines(keepends=True)}
        for name, kind, tags, source in CELLS
    ]
    about = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    body = {"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(body, indent=1, ensure_ascii=False) + "\n"


def _with_chapter(toc: str, name: str) -> str:
    """The table of contents with a chapter at the end of the part of the short papers, or of that of papers where there is none."""
    lines = toc.splitlines(keepends=True)
    captions = [k for k, line in enumerate(lines) if line.startswith("  - caption:")]
    named = {lines[k].split(":", 1)[1].strip(): k for k in captions}
    papers = named.get("Short papers", named.get("Papers"))
    if papers is None:
        raise ValueError("book/_toc.yml has no part with the caption Papers, where a chapter would go")
    end = next((k for k in captions if k > papers), len(lines))
    chapter = f"      - file: {name}/index\n        sections:\n          - file: results/{name}/question\n"
    return "".join([*lines[:end], chapter, *lines[end:]])
