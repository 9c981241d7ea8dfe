"""The pages that tell how: every step of theirs is a step that works, and none is left out."""

import re
import shlex

import pytest


def test_adding_a_paper_names_every_file_that_a_paper_has(repository):
    page = (repository / "book/add.md").read_text(encoding="utf-8")
    named = {path for path in re.findall(r"`([\w/.]+\.(?:toml|bib|ipynb|md|yml))`", page)}
    for paper in (
        "zhou2025",
        "cui2023",
        "kirchhof2024",
        "hendrycks2019",
    ):  # each file of the checkout, not of uqlib and data, that speaks of the paper
        files = [
            path
            for pattern in (
                "book/*.bib",
                "book/_toc.yml",
                "book/*/index.md",
                "data/ledger/*.toml",
                "notebooks/*/*.ipynb",
            )
            for path in sorted(repository.glob(pattern))
            if paper in path.read_text(encoding="utf-8") and (path.parent.name in (paper, "book") or path.stem == paper)
        ]
        assert len(files) > 4
        for path in files:
            own = str(path.relative_to(repository)).replace(paper, "NAME")
            own = re.sub(r"notebooks/NAME/\w+", "notebooks/NAME/question", own)
            assert own in named, own


def test_following_the_page_gives_a_ledger_a_notebook_and_a_verdict(tmp_path, monkeypatch, capsys):
    import nbformat

    from uqlib import cli

    for place, text in {
        "pyproject.toml": "",
        "data/ledger/toy2020.toml": 'paper = "toy2020"\ntitle = "A toy"\ncite = "toy2020"\n[[row]]\nid = "toy2020-T1"\nshows = "x"\n'
        '[[row.claim]]\nid = "toy2020-T1-a"\ntext = "it falls"\nquantity = "change"\nholds = "< 0"\n',
    }.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(text)
    body = nbformat.v4.new_notebook()
    body.cells = [
        nbformat.v4.new_code_cell(
            'scale = "cpu"  # smoke, cpu, gpu or paper\nseed = 0  # of the draw\nrecord = ""  # file of the record',
            metadata={"tags": ["parameters"]},
        ),
        nbformat.v4.new_code_cell(
            "from uqlib.metrics.compare import cells\nfrom uqlib.report.verbs import begin\n"
            'run = begin("toy2020/question", globals())\n'
            'run.record("change", cells({"digits": -1.0}, "set"), setting="{set}")\nrun.done()'
        ),
    ]
    (tmp_path / "notebooks/toy2020").mkdir(parents=True)
    nbformat.write(body, tmp_path / "notebooks/toy2020/question.ipynb")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["run", "notebooks/toy2020/question.ipynb", "--scale", "gpu"]) == 0
    printed = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    record = tmp_path / printed["record"].strip()
    assert cli.main(["ledger", "--records", str(record)]) == 0
    assert "direction only" in capsys.readouterr().out
    place = tmp_path / "data/records/toy2020/question.gpu.json"  # where the page says that it goes
    place.parent.mkdir(parents=True)
    place.write_bytes(record.read_bytes())
    assert cli.main(["ledger"]) == 0
    assert "toy2020-T1-a             gpu    direction only" in capsys.readouterr().out


@pytest.mark.parametrize("page", ["rerun", "add"])
def test_commands_of_the_pages_are_those_of_uqlib(repository, page):
    from uqlib import cli

    text = (repository / f"book/{page}.md").read_text(encoding="utf-8")
    commands = re.findall(r"^uqlib (\w+.*)$", text, re.M)
    for command in commands:
        assert cli._parser().parse_args(shlex.split(command))
    assert commands
