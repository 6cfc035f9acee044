"""torchvision imports beside any build of torch, and its absence is one clear line."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from valleys.errors import ValleysError
from valleys.torchvision_compat import import_torchvision

SCRIPTS = Path(__file__).resolve().parents[1] / "workflow" / "scripts"


def run(code):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
@pytest.mark.long
def test_import_in_a_fresh_process():
    # Twice, and with a submodule: schemas may be declared only once.
    done = run(
        "import torch, valleys.torchvision_compat as c\n"
        "one = c.import_torchvision()\n"
        "two = c.import_torchvision('transforms')\n"
        "assert one is c.import_torchvision()\n"
        "assert hasattr(torch.ops.torchvision, 'nms')\n"
        "print(one.__name__, two.__name__)\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["torchvision", "torchvision.transforms"]


@pytest.mark.slow
@pytest.mark.long
def test_after_one_line_plain_imports_work():
    done = run(
        "import valleys; valleys.import_torchvision()\n"
        "import torchvision.models\n"
        "print(torchvision.models.resnet18(num_classes=3).fc.out_features)\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "3"


@pytest.mark.slow
@pytest.mark.long
def test_import_after_one_that_was_interrupted():
    done = run(
        "import torch, valleys.torchvision_compat as c\n"
        "if not c._library_loads():\n"
        "    torch.library.define('torchvision::qnms', c._SCHEMA)\n"
        "print(c.import_torchvision('datasets').__name__)\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "torchvision.datasets"


def test_absence_is_one_line(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "torchvision" else find(name, *a)
    )
    with pytest.raises(
        ValleysError, match="torchvision is not installed; install it with: pip install torchvision=="
    ):
        import_torchvision()


def test_the_module_returned_is_the_one_asked_for():
    module = import_torchvision("models")
    assert module is sys.modules["torchvision.models"]
    assert callable(module.resnet50)
