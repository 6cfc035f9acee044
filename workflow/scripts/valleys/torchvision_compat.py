"""Import torchvision where its compiled operators do not load.

PyPI's Linux wheel of torchvision is built against CUDA. Beside a CPU build of torch its shared library
cannot load, and then ``import torchvision`` itself fails, because it registers fake kernels for
``torchvision::nms`` and ``torchvision::qnms`` that no one has defined. Data sets, plain tensor code and the
classification models need neither operator, so we declare the two schemas and import goes through. Where
the library does load we touch nothing. Sources and factories of a config do this by themselves; a script of
one's own calls `import_torchvision` first, after which ``import torchvision``, and what imports it, works.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _library_loads() -> bool:
    """Whether torchvision's own shared library (``_C``) can be loaded by this build of torch."""
    import torch

    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    for library in Path(spec.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(str(library))
        except OSError:
            return False
        return True
    return False


def declare_operators() -> None:
    """Make a later ``import torchvision`` work; does nothing where it works anyway or is not installed."""
    import torch

    if importlib.util.find_spec("torchvision") is None:
        return
    if not hasattr(torch.ops.torchvision, "nms") and not _library_loads():
        for name in ("nms", "qnms"):
            try:
                torch.library.define(f"torchvision::{name}", _SCHEMA)
            except RuntimeError:  # defined by an earlier call that was interrupted
                continue


def import_torchvision(submodule: str = "") -> ModuleType:
    """Return ``torchvision`` (or ``torchvision.<submodule>``), imported safely.

    Raises
    ------
    ValleysError
        When torchvision is not installed.
    """
    from valleys.errors import ValleysError

    if importlib.util.find_spec("torchvision") is None:
        raise ValleysError("torchvision is not installed; install it with: pip install torchvision==0.28.0")
    declare_operators()
    return importlib.import_module("torchvision" + (f".{submodule}" if submodule else ""))
