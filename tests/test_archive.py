"""The source archive, which is all that whoever has no clone gets."""

import shutil
import subprocess
import sys
import tarfile
from pathlib import PurePosixPath

import pytest
from toy import REPO

BUILD = "import sys; from setuptools import build_meta; build_meta.build_sdist(sys.argv[1])"
PARTS = ("gradleak", "notebooks", "book", "tests")
FILES = (
    "_config.yml", "_toc.yml", "Makefile", "MANIFEST.in", "pyproject.toml", "CITATION.cff",
    "LICENSE", "README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md",
)  # fmt: skip


@pytest.fixture
def source(tmp_path):
    """A copy of the clone, as building writes into the folder that it builds."""
    no_caches = shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints", ".*_cache")
    for name in PARTS:
        shutil.copytree(REPO / name, tmp_path / "source" / name, ignore=no_caches)
    for name in FILES:
        shutil.copy(REPO / name, tmp_path / "source")
    return tmp_path / "source"


@pytest.mark.slow
def test_the_source_archive_holds_every_file_of_a_clone(source, tmp_path):
    files = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    subprocess.run([sys.executable, "-c", BUILD, tmp_path], cwd=source, check=True)
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as tar:
        held = {PurePosixPath(name).relative_to(tar.getnames()[0]) for name in tar.getnames()}
    assert not [str(path) for path in files - held]
