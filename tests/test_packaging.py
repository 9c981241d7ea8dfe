"""What leaves the checkout as a package: the library, all of it, and nothing that cannot work without the checkout."""

import subprocess
import sys
import tarfile
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def archive(repository, tmp_path_factory):
    """The names in the source archive, built in a copy, so that nothing is written into the checkout."""
    import shutil

    home = tmp_path_factory.mktemp("sdist") / "uqlib"
    home.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in", "Makefile", "Snakefile", "_config.yml"):
        shutil.copy(repository / name, home)
    for name in ("uqlib", "tests"):
        shutil.copytree(repository / name, home / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, "dist"], cwd=home, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with tarfile.open(home / "dist" / done.stdout.splitlines()[-1]) as tar:
        return {str(Path(*Path(name).parts[1:])) for name in tar.getnames()}


def test_the_source_archive_holds_the_whole_library(archive, repository):
    files = {str(path.relative_to(repository)) for path in (repository / "uqlib").rglob("*.py")}
    assert files <= archive
    assert {"LICENSE", "README.md", "pyproject.toml"} <= archive


def test_the_source_archive_ships_no_test_that_cannot_run(archive):
    assert not [name for name in archive if name.startswith("tests")]
