"""What ``make`` does to the venv, in a folder of its own with wheels made here: no index is asked."""

import base64
import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
STAMP = ".venv/.installed"
pytestmark = [pytest.mark.slow, pytest.mark.long]


def wheel(folder, name, version, more=""):
    """Write a wheel of one module and return its path."""
    about = f"{name}-{version}.dist-info"
    content = {
        f"{name}.py": f"version = {version!r}\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    lines = []
    for path, text in content.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(text)}")
    content[f"{about}/RECORD"] = "\n".join([*lines, f"{about}/RECORD,,"]) + "\n"
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name_in, text in content.items():
            archive.writestr(name_in, text)
    return path


def require(folder, path):
    """Have the lock name one wheel and its hash."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "0" * 64
    (folder / "requirements.txt").write_text(f"one @ {path.as_uri()} --hash=sha256:{digest}\n")


def make(folder):
    return subprocess.run(
        ["make", STAMP, f"PYTHON={sys.executable}"], cwd=folder, capture_output=True, text=True, check=False
    )


def versions(folder, *names):
    """Return what modules of the venv say of themselves, None of one that is not there."""
    code = "import importlib, sys\nfor n in sys.argv[1:]:\n    print(importlib.import_module(n).version)"
    run = [str(folder / ".venv/bin/python"), "-c", code, *names]
    done = subprocess.run(run, capture_output=True, text=True, check=False)
    return done.stdout.split() if done.returncode == 0 else None


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with a venv of the lock, and a package of the user's in it."""
    folder = tmp_path_factory.mktemp("made")
    shutil.copy(ROOT / "Makefile", folder)
    torch = wheel(folder, "torchlike", "1.0")
    (folder / "requirements-torch.txt").write_text(f"torchlike @ {torch.as_uri()}\n")
    require(folder, wheel(folder, "one", "1.0"))
    done = make(folder)
    assert done.returncode == 0, done.stderr
    theirs = wheel(folder, "theirs", "3.0", "Requires-Dist: one <2\n")
    pip = [str(folder / ".venv/bin/python"), "-m", "pip", "install", "--quiet", "--no-deps", str(theirs)]
    subprocess.run(pip, check=True)
    assert versions(folder, "one", "torchlike", "theirs") == ["1.0", "1.0", "3.0"]
    return folder


def test_other_requirements_leave_what_the_user_has_installed(installed):
    require(installed, wheel(installed, "one", "2.0"))
    done = make(installed)
    assert done.returncode == 0, done.stderr
    assert versions(installed, "one", "torchlike", "theirs") == ["2.0", "1.0", "3.0"]
    assert "theirs 3.0 has requirement one<2" in done.stdout  # told, and no reason to stop
    assert "is up to date" in make(installed).stdout


def test_an_interrupted_installation_is_completed(installed):
    require(installed, installed / "one-2.1-py3-none-any.whl")  # not there yet
    assert make(installed).returncode != 0
    assert not (installed / STAMP).exists()
    (packages,) = (installed / ".venv").glob("lib/python*/site-packages")
    require(installed, wheel(installed, "one", "2.1"))
    (
        packages / "one.py"
    ).unlink()  # as a kill may leave it: the package is listed, and not all of it is there
    half = packages / "torchlike-1.0.dist-info"
    (half / "RECORD").unlink()
    (packages / "torchlike.py").unlink()
    done = make(installed)
    assert done.returncode == 0, done.stderr
    assert versions(installed, "one", "torchlike", "theirs") == ["2.1", "1.0", "3.0"]
    assert (half / "RECORD").exists()


@pytest.mark.parametrize("text", ["exit 1", "echo '(3, 8)'"], ids=["broken", "another release"])
def test_a_venv_that_is_of_no_use_is_made_anew(installed, text):
    python = installed / ".venv" / "bin" / "python"
    python.unlink()
    python.write_text(f"#!/bin/sh\n{text}\n")
    python.chmod(0o755)
    (installed / "requirements.txt").touch()
    done = make(installed)
    assert done.returncode == 0, done.stderr
    assert versions(installed, "one", "torchlike")
    assert versions(installed, "theirs") is None
