import ast
import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uqlib.evidence import ledger
from uqlib.evidence.ledger import Claim


@pytest.mark.parametrize(
    ("holds", "inside", "outside"),
    [
        ("< 0", -1, 0),
        ("<= 0", 0, 0.1),
        ("> 0.5", 0.6, 0.5),
        (">= -1e-3", -0.001, -0.0011),
        ("|x| < 0.2", -0.19, 0.2),
        ("|x| < 0.2", 0.19, -0.2),
    ],
)
def test_conditions(holds, inside, outside):
    claim = Claim("c", "", "q", holds)
    assert claim.meets(inside)
    assert not claim.meets(outside)


@pytest.mark.parametrize("holds", ["0", "about 3", "< ", "== 1", "< -", "< 1e", 0])
def test_a_condition_that_cannot_be_read_is_refused(unchecked, holds):
    with pytest.raises(ValueError, match="cannot read the condition"):
        Claim("c", "", "q", holds)


def test_share_out_of_range():
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\]; it is 2"):
        Claim("c", "", "q", "< 0", share=2)


def test_reported_numbers_keep_the_printed_digits(repository):
    row = ledger.read_ledger(repository / "data/ledger/zhou2025.toml")["zhou2025-F5"]
    number = row.number("ImageNet, ViT-B CLIP", "AURC, base")
    assert (number.value, str(number)) == (3.76, "3.76")
    with pytest.raises(KeyError, match="reports no 'AURC' for 'digits'; it has ImageNet"):
        row.number("digits", "AURC")


def test_every_ledger_of_the_project_loads_and_names_notebooks_that_exist(repository):
    for each in ledger.read_ledgers(repository / "data/ledger"):
        for row in each.rows:
            assert not row.notebook or (repository / f"notebooks/{row.notebook}.ipynb").is_file(), row.id


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('paper="p"\ntitle="t"\ncite="c"\n[[row]]\nid="a"\nshows=""\nbanana=1', "banana"),
        ('paper="p"\ntitle="t"\n', "cite"),
        ('paper="p"\ntitle="t"\ncite="c"\n[[row]]\nid="a"\nshows=""\n[[row]]\nid="a"\nshows=""', "stand twice: a"),
    ],
)
def test_a_ledger_with_a_mistake_is_refused(tmp_path, text, message):
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        ledger.read_ledger(path)


def test_unknown_row_lists_the_known(repository):
    with pytest.raises(KeyError, match="has no row 'F99'; choose from zhou2025-F1"):
        ledger.read_ledger(repository / "data/ledger/zhou2025.toml")["F99"]


@pytest.mark.parametrize("text", ["[[row]\nid=", "[row]\nid = 'a'"])
def test_a_file_that_is_no_ledger_is_named(tmp_path, text):
    path = tmp_path / "cut.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"cut\.toml: "):
        ledger.read_ledger(path)


HEAD = 'paper = "p"\ntitle = "t"\ncite = "c"\n'
ROW = '[[row]]\nid = "p-T1"\nshows = ""\n'
CLAIM = '[[row.claim]]\nid = "p-T1-a"\ntext = ""\nquantity = "q"\nholds = "< 0"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEAD + ROW + 'notebok = "p/a"',
            r"row p-T1: Object contains unknown field `notebok` - at `\$\.row\[0\]`; `notebook` comes near; choose from id, shows",
        ),
        (HEAD + '[[row]]\nshows = ""', r"p.toml: Object missing required field `id` - at `\$\.row\[0\]`"),
        (HEAD + ROW + "shows = 3", "p.toml: "),
        (HEAD + '[[row]]\nid = "a"\nshows = 3', r"row a: Expected `str`, got `int` - at `\$\.row\[0\]\.shows`"),
        (HEAD + '[[row]]\nid = "a b`"\nshows = ""', "row a b`: the id of a row must be letters, digits, _ . and -"),
        (HEAD + ROW + 'notebook = "../x"', "row p-T1: row p-T1: notebook must be PAPER/NAME"),
        (
            HEAD + ROW + CLAIM + 'share = "0.5"',
            r"row p-T1, claim p-T1-a: Expected `float`, got `str` - at `\$\.row\[0\]\.claim\[0\]\.share`",
        ),
        (HEAD + ROW + CLAIM + "share = true", "claim p-T1-a: Expected `float`, got `bool`"),
        (HEAD + ROW + CLAIM + "share = nan", "claim p-T1-a: share must be a number; it is nan"),
        (HEAD + ROW + CLAIM + "share = 50", r"share must lie in \(0, 1\]; it is 50\.0\. Percent"),
        (HEAD + ROW + CLAIM + 'banana = ""', "row p-T1, claim p-T1-a: Object contains unknown field `banana`"),
        (HEAD + ROW + CLAIM + 'paper = "q"', "claim p-T1-a: leave out paper; it is that of the ledger, p"),
        (HEAD + ROW + CLAIM.replace('"< 0"', '"< 1e999"'), "claim p-T1-a: cannot read the condition"),
        (HEAD + ROW + CLAIM.replace('"< 0"', '"""< 0\n"""'), "claim p-T1-a: cannot read the condition"),
        (
            HEAD + ROW + CLAIM.replace('quantity = "q"\n', ""),
            "row p-T1, claim p-T1-a: Object missing required field `quantity`",
        ),
        (
            HEAD + ROW + CLAIM + 'unit = "image"',
            "unknown unit of claim p-T1-a 'image'; choose from examples, splits, trainings",
        ),
        (HEAD + ROW + CLAIM + "effect = 1.0", "claim p-T1-a: effect and effect_at go together"),
        (HEAD + ROW + CLAIM + 'effect_at = "table 1"', "claim p-T1-a: effect and effect_at go together"),
        (HEAD + ROW + CLAIM + "effect_error = 1.0", "claim p-T1-a: effect and effect_at go together"),
        (HEAD + ROW + CLAIM + "forecast = 60.0", r"forecast must lie in \[0, 1\]; it is 60\.0\. Percent"),
        (HEAD + ROW + "claim = 3", r"row p-T1: Expected `array`, got `int` - at `\$\.row\[0\]\.claim`"),
        (HEAD + ROW + "claim = [3]", r"row p-T1: Expected `object`, got `int` - at `\$\.row\[0\]\.claim\[0\]`"),
        (
            HEAD + ROW + 'reported = [{setting = "s", quantity = "q", value = "1"}]',
            r"row p-T1: Expected `int \| float`, got `str` - at `\$\.row\[0\]\.reported\[0\]\.value`",
        ),
        (
            HEAD + ROW + 'reported = [{setting = "s", quantity = "q", value = inf}]',
            r"row p-T1: the value of q for s .* it is inf - at `\$\.row\[0\]\.reported\[0\]`",
        ),
        (
            HEAD + ROW + 'reported = [{setting = "s", quantity = "q", value = 1, decimals = 2.5}]',
            r"Expected `int`, got `float` - at .*\.decimals`",
        ),
        (HEAD + ROW + CLAIM + CLAIM, "these ids stand twice: p-T1-a"),
        (HEAD.replace('"p"', '"../p"') + ROW, "paper must be letters, digits"),
        (HEAD + "row = 3", r"Expected `array`, got `int` - at `\$\.row`"),
        (HEAD + "x = " + "[" * 5000 + "]" * 5000, "too deep"),
        (
            HEAD + "x = 1",
            "p.toml: Object contains unknown field `x`; choose from paper, title, cite, row, gist, arxiv, code",
        ),
    ],
)
def test_a_mistake_is_told_with_file_row_claim_and_field(tmp_path, unchecked, text, message):
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        ledger.read_ledger(path)
    assert str(caught.value).startswith(str(path))


def test_a_ledger_that_is_no_utf_8_is_named(tmp_path):
    path = tmp_path / "p.toml"
    path.write_bytes(HEAD.encode() + b"# \xe4")
    with pytest.raises(ValueError, match=rf"p\.toml: byte {len(HEAD) + 2} is not UTF-8; save the file as UTF-8"):
        ledger.read_ledger(path)


@given(st.data())
@settings(max_examples=100)
def test_a_damaged_ledger_is_named_or_read(repository, tmp_path_factory, data):
    whole = (repository / "data/ledger/zhou2025.toml").read_bytes()
    content = bytearray(b"[[row]]".join(whole.split(b"[[row]]")[:5]))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.toml"
    path.write_bytes(content)
    try:
        found = ledger.read_ledger(path)
    except ValueError as error:
        found = str(error)
    assert isinstance(found, ledger.Ledger) or "damaged.toml" in found


@pytest.mark.parametrize("paper", ["../../x", "/etc/passwd", "a/b", "", ".", "x\0"])
def test_a_paper_is_a_name_and_no_path(paper):
    with pytest.raises(ValueError, match=r"paper must be letters, digits, _ \. and -; it is"):
        ledger.find(paper)


def recorded(repository, paper):
    """Patterns of the texts in the code of a paper's notebooks: of f-strings and templates, what stands in braces is anything."""
    found = set()
    for path in sorted((repository / "notebooks" / paper).glob("*.ipynb")):
        cells = json.loads(path.read_text())["cells"]
        tree = ast.parse("\n".join("".join(c["source"]) for c in cells if c["cell_type"] == "code"))
        for node in ast.walk(tree):
            if isinstance(node, ast.JoinedStr):
                fixed = [part.value if isinstance(part, ast.Constant) else None for part in node.values]
                if sum(len(part) for part in fixed if part) >= 5:
                    found.add("".join(".+" if part is None else re.escape(part) for part in fixed))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                fixed = re.split(r"\{\w*\}", node.value)
                if len(fixed) == 1 or sum(map(len, fixed)) >= 5:
                    found.add(".*".join(map(re.escape, fixed)))
    return found


@pytest.mark.parametrize("paper", ["zhou2025", "cui2023", "hendrycks2019"])
def test_every_claim_is_about_a_quantity_that_a_notebook_of_its_paper_names(repository, paper):
    patterns = recorded(repository, paper)
    rows = ledger.read_ledger(repository / f"data/ledger/{paper}.toml").rows
    quantities = {claim.quantity for row in rows for claim in row.claims if not row.not_testable}
    lost = {q for q in quantities if not any(re.fullmatch(f"{p}(_.+)?", q) for p in patterns)}
    assert not lost
