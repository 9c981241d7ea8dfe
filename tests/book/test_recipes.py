"""The recipes of the book run as printed, in order, and print what stands under them; what a recipe leaves open is filled in here."""

import ast
import contextlib
import importlib
import io
import pkgutil
import re

import numpy as np
import pytest
from PIL import Image

import uqlib
from uqlib import networks

WIDEST = 76  # columns of code that a page shows at 1280 px
RECIPE = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.M | re.S)


@pytest.fixture
def recipes(repository) -> list[tuple[str, str]]:
    """Each recipe, and what it prints."""
    return RECIPE.findall((repository / "book/reuse.md").read_text())


@pytest.fixture
def tools(repository) -> list[tuple[str, str]]:
    """Those of the page that begins with everything in one call."""
    return RECIPE.findall((repository / "book/toolbox.md").read_text())


@pytest.fixture
def open_names(tmp_path, repository, monkeypatch) -> dict:
    """What the page expects its reader to have: images, weights that are at hand."""
    rng, create = np.random.default_rng(0), networks.create
    for name in ("cat/1.png", "dog/1.png", "dog/2.png"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 30, 3), dtype=np.uint8)).save(tmp_path / "photos" / name)
    (tmp_path / "data").symlink_to(repository / "data")
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UQLIB_STORE", str(tmp_path / "store"))
    # a test downloads nothing: fresh weights stand in for the pretrained ones
    monkeypatch.setattr(networks, "create", lambda name, **more: create(name, **more | {"weights": None, "seed": 0}))
    return {"images": rng.integers(0, 256, (2, 40, 30, 3), dtype=np.uint8)}


def printed(recipe: str, names: dict) -> str:
    """What a recipe prints if its lines are typed one after the other."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        for node in ast.parse(recipe).body:
            exec(compile(ast.Interactive([node]), f"book/reuse.md: {ast.unparse(node)[:60]}", "single"), names)
    return out.getvalue()


def test_every_recipe_of_the_book_runs_as_printed_and_prints_what_it_shows(recipes, open_names):
    assert len(recipes) > 12
    for recipe, shown in recipes:
        assert printed(recipe, open_names) == shown, recipe
    assert open_names["duo"].preds.shape == (8000,)


@pytest.mark.filterwarnings("ignore:.*draws take about")  # on a machine that has other work
def test_the_toolbox_runs_as_printed_and_prints_what_it_shows(tools, open_names):
    assert len(tools) > 20
    for recipe, shown in tools:
        assert printed(recipe, open_names) == shown, recipe


def test_every_recipe_shows_what_comes_out(recipes, tools):
    silent = [recipe.splitlines()[-1] for recipe, shown in recipes + tools if not shown]
    assert silent == ['figure.savefig("mine.svg")']


def test_no_line_of_code_is_wider_than_the_page(recipes, tools):
    assert not [
        line
        for recipe in [*recipes, *((recipe, "") for recipe, _ in tools)]
        for part in recipe
        for line in part.splitlines()
        if len(line) > WIDEST
    ]


def test_the_error_on_the_page_of_kinds_is_the_error_that_comes(repository):
    ((recipe, shown),) = RECIPE.findall((repository / "book/kinds.md").read_text(encoding="utf-8"))
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        printed(recipe, {})
    assert " ".join(shown.split()) == f"ValueError: {caught.value}"


def test_what_the_recipes_leave_open_is_needed(recipes, open_names):
    text = "\n".join(recipe for recipe, _ in recipes)
    assert all(re.search(rf"\b{name}\b", text) for name in open_names)


@pytest.fixture
def code_of(repository, monkeypatch):
    """Runs the code of a chapter, in its order, and gives what it defines."""
    monkeypatch.chdir(repository)

    def run(paper: str) -> dict:
        page, names = f"book/{paper}/index.md", {}
        for block in re.findall(r"^~~~python\n(.*?)^~~~$", (repository / page).read_text(), re.M | re.S):
            exec(compile(block, page, "exec"), names)
        return names

    return run


def test_the_code_of_the_chapters_exercises_runs(code_of):
    names = code_of("zhou2025")
    twins, large = names["twins"], names["large"]
    assert sum(twins.weights) * twins.temperatures[0] == pytest.approx(1, rel=1e-6)
    assert not np.isfinite(twins.standard_errors).any()
    assert 0 < names["third"].sum() < len(large) / 100  # rare, and there
    assert names["decision"].preds.shape == (9500,)


def test_the_code_of_the_chapter_on_difficulty_runs(code_of):
    names = code_of("cui2023")
    assert names["exact"].shrinkage == 0
    assert names["moved"] < 1e-6  # an affine map changes nothing but the rounding
    assert names["modest"] == pytest.approx([0.9] * 3, abs=1e-9)
    assert names["by_label"] > 0.9
    assert abs(names["by_nearest"] - 0.5) < 0.1  # the nearest class knows nothing of the label
    assert names["vehicles"][1] > names["vehicles"][0] > 0.5  # strange in every direction: the plain distance sees more
    assert names["left_out"][0] > names["left_out"][1] > 0.5  # near: the relative one does
    assert (names["raw"] > 0.01).sum() < 40
    assert names["one"].item() == pytest.approx(names["constant"].item(), rel=1e-6)
    assert names["found"].auroc > 0.9
    assert names["found"].precision > 0.5
    assert 0.2 < names["weights"].mean() < 0.6
    assert names["value"].isfinite()


def test_the_code_of_the_chapter_on_pretrained_uncertainties_runs(code_of):
    names = code_of("kirchhof2024")
    one, other = (head.state_dict() for head in names["heads"])
    assert all((one[key] == other[key]).all() for key in one)  # eight times the losses: the same head to the last bit
    assert names["doubt"].shape == (5000,)
    found = names["retrieved"](names["features"][5000:], names["answers"].labels[5000:])
    assert 0.8 < names["r_auroc"](names["doubt"], found) < 1


def test_the_code_of_the_chapter_on_pretraining_runs(code_of):
    names = code_of("hendrycks2019")
    assert names["forward"].tolist() == pytest.approx([0.7, 0.2, 0.1], abs=1e-6)  # the true classes, from wrong labels
    assert names["measured"] == pytest.approx(names["expected"], rel=0.25)  # a hundred bins: a root of chi-squared
    assert names["ratio"] == pytest.approx((2 * names["d"] / np.pi) ** 0.5, rel=0.3)  # the deviation of 200 draws


def test_code_of_a_page_imports_what_of_the_library_it_calls(repository):
    """A block, with those above it on its page: every family and function of uqlib that it uses was imported."""
    families = {
        each.name: importlib.import_module(f"uqlib.{each.name}") for each in pkgutil.iter_modules(uqlib.__path__)
    }
    functions = {
        name for each in families.values() for name in getattr(each, "__all__", ()) if callable(getattr(each, name))
    }
    fence, blocks = re.compile(r"^(```|~~~)python\n(.*?)^\1\s*$", re.M | re.S), 0
    for page in [repository / "README.md", *(repository / "book").glob("**/*.md")]:
        there: set[str] = set()
        for _, block in fence.findall(page.read_text(encoding="utf-8")):
            nodes, blocks = list(ast.walk(ast.parse(block))), blocks + 1
            imports = [each for each in nodes if isinstance(each, ast.Import | ast.ImportFrom)]
            there |= {(alias.asname or alias.name).partition(".")[0] for each in imports for alias in each.names}
            there |= {each.id for each in nodes if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)}
            owners = [(each.value, each.attr) for each in nodes if isinstance(each, ast.Attribute)]
            asked = {of.id for of, name in owners if isinstance(of, ast.Name) and hasattr(families.get(of.id), name)}
            called = [each.func for each in nodes if isinstance(each, ast.Call)]
            asked |= {each.id for each in called if isinstance(each, ast.Name)} & functions
            assert asked <= there, (page.name, asked - there, block)
    assert blocks > 60
