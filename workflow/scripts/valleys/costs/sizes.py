"""The `size.Size` of a user's own network, measured by the first job that builds it and kept in a file.

A plan runs none of the user's code: it reads the file (`known`), and takes a network that no job has built
for `ASSUMED`. `ahead` has another process build and measure it, on torch's meta device, where nothing is
computed; run as a module, this is that process.
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
from typing import TYPE_CHECKING, Any

from valleys import factories
from valleys.errors import ValleysError
from valleys.models import size
from valleys.models.size import Size
from valleys.storage import files

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("valleys")
TIMEOUT_S = 120
#: What a network is taken for until it has been measured.
ASSUMED = {"arch": "preresnet", "depth": 20}

Shape = tuple[int, int, int]


def assumed(shape: Shape, classes: int) -> Size:
    """Return the size of `ASSUMED`."""
    return size.measure(ASSUMED, shape, classes)


def known(
    spec: Mapping[str, Any], code: str | None, shape: Shape, classes: int, root: str | Path
) -> Size | None:
    """Return the size of the network that a factory builds, None of one that has not been measured.

    Parameters
    ----------
    spec
        ``{"factory": "module:attribute", "kwargs": {...}}``.
    code
        Names its source: a network is measured anew when that changes (`valleys.factories.version`).
    shape, classes
        Of one image (channels, height, width); logits.
    root
        Folder of the experiment's results.
    """
    try:
        return Size(**json.loads(_path(spec, code, shape, classes, root).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _path(spec: Mapping[str, Any], code: str | None, shape: Shape, classes: int, root: str | Path) -> Path:
    question = {"spec": {key: spec[key] for key in ("factory", "kwargs")}}
    question |= {"shape": list(shape), "classes": classes}
    return Path(root) / "state" / f"model-size-{files.fingerprint([question, code])}.json"


def _keep(path: Path, size: Size) -> None:
    with contextlib.suppress(ValleysError):  # a plan may be made where nothing can be written
        files.write_text(path, json.dumps(asdict(size)))


def note(model: nn.Module, spec: Mapping[str, Any], shape: Shape, classes: int, root: str | Path) -> None:
    """Keep the size of a network that a job has built, if it is a factory's and not known yet.

    The network is left as it was, but for what a pass in eval mode changes (`builder.from_factory`
    makes one as well).
    """
    if "factory" not in spec:
        return
    code = factories.version(spec["factory"])  # as the plan asks by
    if known(spec, code, shape, classes, root) is None:
        try:
            _keep(_path(spec, code, shape, classes, root), count(model, shape))
        except Exception as error:  # it is for plans: no reason to end a job
            log.info("size of the network for plans: unknown (%s)", " ".join(str(error).split()))


def ahead(spec: Mapping[str, Any], code: str | None, shape: Shape, classes: int, root: str | Path) -> None:
    """Have another process build a network and keep its size; what fails there is left to its first job."""
    if known(spec, code, shape, classes, root) is not None:
        return
    question = {"spec": dict(spec), "shape": list(shape), "classes": classes}
    scripts = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([scripts, os.environ.get("PYTHONPATH", "")])}
    with contextlib.suppress(OSError, subprocess.SubprocessError, ValueError, TypeError, IndexError):
        done = subprocess.run(
            [sys.executable, "-m", "valleys.costs.sizes"],
            input=json.dumps(question),
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=True,
        )
        found = Size(**json.loads(done.stdout.splitlines()[-1]))
        _keep(_path(spec, code, shape, classes, root), found)


def measure(spec: Mapping[str, Any], shape: Shape, classes: int) -> Size:
    """Return the size of the network that a factory builds.

    Raises
    ------
    ValleysError
        As `valleys.models.builder.from_factory`.
    """
    from valleys.models.builder import build

    return count(build(spec, in_shape=shape, classes=classes).to("meta"), shape)


def count(model: nn.Module, shape: Shape) -> Size:
    """Return the size of a network, counted in one eval-mode pass over two images of zeros.

    Operations are those that torch dispatches; each counts as a layer unless what it returns is a view. The
    random state and the modes of modules stay as they were.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import FlopCounterMode

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

    parameters, modes = list(model.parameters()), {m: m.training for m in model.modules()}
    images = torch.zeros(2, *shape, device=parameters[0].device)
    try:
        with (
            torch.random.fork_rng(),
            torch.no_grad(),
            FlopCounterMode(display=False) as flops,
            Written() as written,
        ):
            model.eval()(images)
    finally:
        for module, training in modes.items():
            module.training = training
    counts = [math.ceil(count / 2) for count in written.counts if count]
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
