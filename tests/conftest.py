"""Where tests find real data and weights, and no question to the hub."""

import contextlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import hypothesis
import jaxtyping
import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, so it cannot wait for a fixture

hypothesis.settings.register_profile("book", deadline=None)  # a busy machine is no fault of the code
hypothesis.settings.load_profile("book")
REPOSITORY = Path(__file__).parents[1]
SHARED = REPOSITORY.parent / "shared"


def pytest_collection_modifyitems(items):
    """The longest files first, so that no worker waits for another at the end; the others in their order."""
    longest = ("test_book", "test_kinds", "test_sweep", "test_workflow", "test_reach", "test_kills", "test_cli")
    items.sort(key=lambda item: longest.index(item.path.stem) if item.path.stem in longest else len(longest))


@contextlib.contextmanager
def default_dtype(dtype):
    """Torch with another default type, as a borrower may have set it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@pytest.fixture(scope="session")
def repository() -> Path:
    """The folder of the checkout."""
    return REPOSITORY


@pytest.fixture
def unchecked():
    """Calls as a user makes them: annotations are not checked, so a wrong type must meet an error of ours."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def pictures():
    """Forty small images whose label is a tint, and the labels."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 3, 40)
    images = generator.integers(0, 200, (40, 8, 8, 3))
    images[np.arange(40), :, :, labels] += 50
    return images.astype(np.uint8), labels


@pytest.fixture(scope="session")
def weights_folder() -> Path:
    """The folder of real weights: $UQLIB_WEIGHTS, else ../shared/weights beside the repository."""
    folder = Path(os.environ.get("UQLIB_WEIGHTS") or SHARED / "weights")
    if not (folder / "cifar10_resnet20.safetensors").is_file():
        pytest.skip("no real weights: set UQLIB_WEIGHTS to a folder that holds cifar10_resnet20.safetensors")
    return folder


@pytest.fixture(scope="session")
def prepared_folder(tmp_path_factory) -> Path:
    """The folder of prepared data sets: $UQLIB_DATA, else the test splits unpacked from ../shared/data."""
    folder = Path(os.environ.get("UQLIB_DATA") or tmp_path_factory.getbasetemp().parent / "prepared")
    script = SHARED / "data" / "prepare.py"
    if "UQLIB_DATA" not in os.environ and script.is_file():
        with FileLock(f"{folder}.lock"):  # the other workers of pytest wait, and find it done
            for names in (
                ["cifar10", "cifar100", "--splits", "test"],
                ["tiny_imagenet", "--splits", "val"],
                ["caltech101", "--splits", "objects"],
            ):
                unpack = [sys.executable, str(script), "unpack", *names, "--out", str(folder)]
                subprocess.run(unpack, check=True, capture_output=True)
    if not (folder / "cifar10" / "test" / "meta.json").is_file():
        pytest.skip("no prepared data: set UQLIB_DATA to a folder that holds cifar10/test/images.npy")
    return folder


@pytest.fixture
def no_folder_of_weights(monkeypatch):
    """No weights but those that a test brings along."""
    monkeypatch.delenv("UQLIB_WEIGHTS", raising=False)


@pytest.fixture
def images() -> np.ndarray:
    """Three smooth pictures, uint8 (3, 48, 64, 3): on noise an antialiased resize hardly depends on the filter."""
    coarse = np.random.default_rng(0).integers(0, 256, (3, 12, 10, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((64, 48), Image.Resampling.BICUBIC)) for image in coarse])


def clone(repository: Path, target: Path) -> Path:
    """The checkout without what was built in it; what is only read (data) is linked."""
    built = (".*", "_build", "build", "results", "__pycache__", "*.egg-info", "data", "tests", "benchmarks")
    shutil.copytree(repository, target, symlinks=True, ignore=shutil.ignore_patterns(*built))
    (target / "data").symlink_to(repository / "data")
    return target


@pytest.fixture(scope="session")
def book(repository, tmp_path_factory) -> Path:
    """The HTML of a book: that in $UQLIB_BOOK, else a small one, made here once for all workers of pytest."""
    if given := os.environ.get("UQLIB_BOOK"):
        return Path(given).resolve()
    run = os.environ.get("PYTEST_XDIST_TESTRUNUID") or str(os.getpid())
    place = tmp_path_factory.getbasetemp().parent / f"book-{run}"
    html = place / "_build/html"
    with FileLock(f"{place}.lock"):
        if not place.exists():
            clone(repository, place)
            build = [sys.executable, "-m", "snakemake", "--cores", "2", "--quiet", "all", "--config", "scale=smoke"]
            env = os.environ | {"OMP_NUM_THREADS": "1"}
            done = subprocess.run(build, cwd=place, capture_output=True, text=True, env=env)
            assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (html / "index.html").is_file(), f"the book could not be made; see the first error of this run, and {place}"
    return html


# Figures that move: a browser, a page, and the kernels of moving.js asked without one

NODE = shutil.which("node")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]


@pytest.fixture(scope="session")
def static(repository):
    return repository / "book/_static"


@pytest.fixture(scope="session")
def asked(static, request):
    """What a function of the exports of moving.js and of the given values returns: by node, or by a browser where there is none."""

    def by_node(ask, *given):
        code = f"module.exports = require({json.dumps(str(static / 'moving.js'))}); const show = (_, v) => ArrayBuffer.isView(v) ? [...v] : v; "
        code += f"console.log(JSON.stringify(({ask})(...JSON.parse(require('fs').readFileSync(0))), show))"
        text = json.dumps(given)
        return json.loads(
            subprocess.run([NODE, "-e", code], input=text, capture_output=True, text=True, check=True).stdout
        )

    def by_browser(ask, *given):
        page = request.getfixturevalue("browser").new_page()
        page.add_script_tag(content="var module = {};")
        page.add_script_tag(content=(static / "moving.js").read_text())
        plain = "(v) => JSON.parse(JSON.stringify(v, (_, x) => (ArrayBuffer.isView(x) ? [...x] : x)))"
        return page.evaluate(f"(given) => ({plain})(({ask})(...given))", list(given))

    if not (NODE or BROWSER):
        pytest.skip("neither node nor Chromium on this machine")
    return by_node if NODE else by_browser


@pytest.fixture(scope="session")
def browser():
    if not BROWSER:
        pytest.skip("no Chromium on this machine")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def opened(browser, static, tmp_path):
    """Opens a bare page of this HTML; fails at the end on any error, warning or request outside."""
    problems, contexts = [], []

    def go(body, *, scripts=("moving.js",), width=800, address="", **options):
        load = "".join(f'<script defer src="{(static / each).as_uri()}"></script>' for each in scripts)
        style = f'<link rel="stylesheet" href="{(static / "moving.css").as_uri()}">'
        path = tmp_path / "page.html"
        head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width">{style}{load}'
        path.write_text(
            f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>', encoding="utf-8"
        )
        contexts.append(browser.new_context(viewport={"width": width, "height": 900}, **options))
        page = contexts[-1].new_page()
        page.repository = REPOSITORY
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("console", lambda m: problems.append(m.text) if m.type in ("error", "warning") else None)
        page.on("request", lambda r: None if r.url.startswith("file:") else problems.append(r.url))
        page.goto(path.as_uri() + address)
        return page

    yield go
    for context in contexts:
        context.close()
    assert not problems


@pytest.fixture
def every_run_counts(monkeypatch):
    """Toy runs of pretraining have no settings: all that is kept counts."""
    from uqlib.experiments.transfer import asked_runs

    monkeypatch.setattr(asked_runs, "asked_digests", lambda task: None)
