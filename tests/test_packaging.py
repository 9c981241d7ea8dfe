"""What leaves the checkout as a package: the library, all of it, and nothing that cannot work without the checkout."""

import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def built(repository, tmp_path_factory):
    """A function that builds an archive in a copy, so that nothing is written into the checkout, and gives its path."""
    home = tmp_path_factory.mktemp("package") / "uqlib"
    home.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "Makefile", "Snakefile", "_config.yml"):
        shutil.copy(repository / name, home)
    for name in ("uqlib", "tests", "notebooks", "data/ledger", "book/zhou2025"):
        shutil.copytree(repository / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))

    def build(kind):
        code = f"import sys; from setuptools import build_meta; print(build_meta.build_{kind}(sys.argv[1]))"
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, "dist"], cwd=home, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return home / "dist" / done.stdout.splitlines()[-1]

    return build


@pytest.fixture(scope="module")
def archive(built):
    """The names in the source archive."""
    with tarfile.open(built("sdist")) as tar:
        return {str(Path(*Path(name).parts[1:])) for name in tar.getnames()}


@pytest.fixture(scope="module")
def wheel(built):
    with zipfile.ZipFile(built("wheel")) as archive:
        yield archive


def test_the_source_archive_holds_the_whole_library(archive, repository):
    files = {str(path.relative_to(repository)) for path in (repository / "uqlib").rglob("*.py")}
    assert files <= archive
    assert {"LICENSE", "README.md", "pyproject.toml"} <= archive


def test_the_wheel_holds_every_family_and_needs_nothing_heavy(wheel, repository):
    files = {str(path.relative_to(repository)) for path in (repository / "uqlib").rglob("*.py")}
    assert {name for name in wheel.namelist() if name.endswith(".py")} == files
    [metadata] = [name for name in wheel.namelist() if name.endswith("METADATA")]
    needed = re.findall(r"(?m)^Requires-Dist: ([\w-]+)(?!.*extra)", wheel.read(metadata).decode())
    assert set(needed) == {"numpy", "torch", "safetensors", "jaxtyping", "tqdm"}


def test_the_source_archive_ships_no_test_that_cannot_run(archive):
    assert not [name for name in archive if name.startswith("tests")]
