"""The `arch_costs.Size` of a user's own network, measured on torch's meta device, where nothing is computed.

`size` is for the Snakefile, which has no torch: it has another process measure, once for each network, and
keeps the numbers in a file. Run as a module, this is that process.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from valleys import arch_costs, files
from valleys.arch_costs import Size
from valleys.errors import ValleysError

log = logging.getLogger("valleys")
TIMEOUT_S = 120
#: What a network is taken for that cannot be measured, as when the images are not known yet.
ASSUMED = {"arch": "preresnet", "depth": 20}


def size(
    spec: Mapping[str, Any], code: str | None, shape: tuple[int, int, int], classes: int, folder: Path
) -> Size:
    """Return the size of the network that a factory builds, or of `ASSUMED` where that cannot be told.

    Parameters
    ----------
    spec
        ``{"factory": "module:attribute", "kwargs": {...}}``.
    code
        Names its source: the network is measured anew when that changes (`valleys.factories.code`).
    shape, classes
        Of one image (channels, height, width); logits.
    folder
        Where the numbers are kept.
    """
    question = {"spec": dict(spec), "shape": list(shape), "classes": classes}
    path = folder / f"model-size-{files.fingerprint([question, code])}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Size(**json.loads(path.read_text(encoding="utf-8")))
    scripts = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([scripts, os.environ.get("PYTHONPATH", "")])}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "valleys.factory_costs"],
            input=json.dumps(question),
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        )
        found = Size(**json.loads(done.stdout.splitlines()[-1]))
    except (OSError, subprocess.SubprocessError, ValueError, TypeError, IndexError):
        return arch_costs.measure(ASSUMED, shape, classes)  # what is wrong with it, its first job will say
    with contextlib.suppress(ValleysError):  # a plan may be made where nothing can be written
        files.write_text(path, json.dumps(asdict(found)))
    return found


def measure(spec: Mapping[str, Any], shape: tuple[int, int, int], classes: int) -> Size:
    """Return the size of the network that a factory builds.

    Operations are those that torch dispatches in one eval-mode pass over two images; each counts as a layer
    unless what it returns is a view.

    Raises
    ------
    ValleysError
        As `valleys.models.from_factory`.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode

    from valleys.models import build

    class Written(TorchDispatchMode):
        """Counts the numbers that operations return (first), but for views of their inputs."""

        def __init__(self) -> None:
            super().__init__()
            self.counts: list[int] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            out = func(*args, **(kwargs or {}))
            if not func.is_view:
                first = out[0] if isinstance(out, tuple | list) and out else out
                self.counts.append(first.numel() if isinstance(first, torch.Tensor) else 0)
            return out

    model = build(spec, in_shape=shape, classes=classes).eval().to("meta")
    images = torch.zeros(2, *shape, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as flops, Written() as written:
        model(images)
    counts = [math.ceil(count / 2) for count in written.counts if count]
    parameters = list(model.parameters())
    return Size(
        parameters=sum(p.numel() for p in parameters),
        buffers=sum(b.numel() for b in model.buffers()),
        flops=flops.get_total_flops() // 2,
        elements=sum(counts),
        widest=max(counts, default=0),
        layers=len(counts),
        tensors=len(parameters),
    )


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    print(json.dumps(asdict(measure(asked["spec"], tuple(asked["shape"]), asked["classes"]))))
