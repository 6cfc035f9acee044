"""``pip install .``, into a folder of its own and without the network."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import valleys

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def bare(requirement):
    for mark in ("[", ">", "=", "<", ";"):
        requirement = requirement.split(mark)[0]
    return requirement.strip().lower()


def run(code, folder, *paths):
    """Run Python in `folder` with nothing of this repository on its path but `paths`."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
    )


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    # Not by `find_spec`: asked for pip, setuptools leaves distutils to Python for the rest of the process,
    # where torch.compile then fails to import setuptools.
    here = {distribution.name.lower() for distribution in importlib.metadata.distributions()}
    for needed in ("pip", "setuptools"):
        if needed not in here:
            pytest.skip(f"{needed} is not installed here")
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("target")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "workflow", source / "workflow", ignore=shutil.ignore_patterns("__pycache__"))
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    install = [sys.executable, "-m", "pip", "install", *options, "--target", str(target), str(source)]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


@pytest.mark.slow
@pytest.mark.long
def test_the_installed_package_has_its_schemas_types_and_version(installed, tmp_path):
    code = """
import importlib.metadata, pathlib, valleys
from valleys.config import captions, schema
from valleys.storage import tables
print(valleys.__file__)
print(importlib.metadata.version("valleys"), valleys.__version__)
print(len(tables.declared()) > 10, schema.SCHEMA_FILE.is_file())
print((pathlib.Path(valleys.__file__).parent / "py.typed").is_file(), bool(captions.text("curves")))
import matplotlib.pyplot as plt
plt.style.use("valleys.figures.valleys")
print(plt.rcParams["pdf.fonttype"])
"""
    done = run(code, tmp_path, installed)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(str(installed))
    assert lines[1:] == [f"{valleys.__version__} {valleys.__version__}", "True True", "True True", "42"]


def test_the_installed_package_has_every_module(installed):
    library = ROOT / "workflow" / "scripts" / "valleys"
    here, there = (
        {path.relative_to(folder) for path in folder.rglob("*.py")}
        for folder in (library, installed / "valleys")
    )
    assert here == there


def test_the_installed_command_runs_and_says_what_needs_a_clone(installed, tmp_path):
    code = "import sys\nfrom valleys.cli.commands import main\nsys.exit(main(sys.argv[1:] or ['options']))"
    done = run(code, tmp_path, installed)
    assert done.returncode == 0, done.stderr
    assert done.stdout == (ROOT / "docs" / "reference" / "options.md").read_text()
    script = (installed / "bin" / "valleys").read_text()
    assert "from valleys.cli.commands import main" in script
    (tmp_path / "c.yaml").write_text("name: x\n")
    code = "import sys\nfrom valleys.cli.commands import main\nsys.exit(main(['plan', 'c.yaml']))"
    done = run(code, tmp_path, installed)
    assert done.returncode == 1
    assert "needs a clone" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_what_the_package_requires_is_pinned():
    locks = [(ROOT / name).read_text() for name in ("requirements.txt", "requirements-torch.txt")]
    pinned = {line.split("==")[0].lower() for text in locks for line in text.splitlines()}
    extras = PROJECT["optional-dependencies"]
    for requirement in [*PROJECT["dependencies"], *extras["cli"], *extras["workflow"]]:
        assert bare(requirement) in pinned | {"valleys"}, requirement


def test_the_version_stands_in_one_place():
    assert PROJECT["dynamic"] == ["version"]
    assert "version" not in PROJECT
