"""How large a network is and what a pass through it takes, measured once on torch's meta device and kept.

Nothing here imports torch until it measures: the Snakefile asks for sizes (`known`), and what has none yet is
measured in another process, all of it in one (`ahead`). Run as a module, this is that process. A size is
kept in ``.snakemake/sizes``, a user's own network's in ``results/<name>/state``; those of the shipped configs
come with the library, in ``sizes.json`` (``make sizes`` writes it). Users' own code is run by jobs (`note`)
and by ``plan --measure`` alone: until then such a network is taken for `ASSUMED`.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from valleys import factories
from valleys.data.tasks import CLASSIFICATION, said
from valleys.errors import ValleysError
from valleys.models.options import validate_spec
from valleys.storage import files

if TYPE_CHECKING:
    from torch import nn

log = logging.getLogger("valleys")
TIMEOUT_S = 120
SHIPPED = Path(__file__).with_name("sizes.json")
KEPT = Path(".snakemake") / "sizes"  # of networks of ours, for all experiments of a folder
#: What a network is taken for that has not been measured, or cannot be: PreResNet-20.
ASSUMED = {"arch": "preresnet", "depth": 20}

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Size:
    """What a network is, and what it does to one image.

    Attributes
    ----------
    parameters
        Entries of all trained tensors.
    buffers
        Entries of running batch-norm statistics.
    flops
        Floating-point operations forward: twice the multiply-adds of convolutions and linear layers.
    elements
        Numbers that the layers of a forward pass write, all together: what a backward pass keeps.
    widest
        The most of them that one layer writes.
    layers
        Layers that run one after the other: operations to start, whatever their size.
    tensors
        Parameter tensors.
    """

    parameters: int
    buffers: int
    flops: int
    elements: int
    widest: int
    layers: int
    tensors: int

    @property
    def bytes(self) -> int:
        """Size of a weights file: parameters and statistics in float32."""
        return 4 * (self.parameters + self.buffers)


@dataclass(frozen=True)
class Question:
    """A network whose size is asked for.

    Attributes
    ----------
    spec
        Config block of a model: an architecture and its options, or ``{"factory": ..., "kwargs": ...}``.
    shape, classes, task
        Of one image (channels, height, width), or one input of another kind; logits; of `data.tasks.TASKS`.
    code
        Names the source of a factory: its network is measured anew when that changes
        (`valleys.factories.version`). None of an architecture, whose source is the library's.
    """

    spec: Mapping[str, Any]
    shape: Shape
    classes: int
    code: str | None = None
    task: str = CLASSIFICATION

    @property
    def is_ours(self) -> bool:
        """Whether the library builds it."""
        return "factory" not in self.spec

    @functools.cached_property
    def key(self) -> str:
        """A name for the question."""
        own = {key: self.spec[key] for key in ("factory", "kwargs")} if not self.is_ours else None
        asked = {"spec": own or validate_spec(self.spec), "shape": list(self.shape), "classes": self.classes}
        asked |= said(self.task)
        return files.fingerprint([asked, _library_code() if self.is_ours else self.code])


@functools.cache
def _library_code() -> str:
    """Return what names the source of our architectures."""
    folder = Path(__file__).parents[1] / "models"
    sources = [folder / f"{name}.py" for name in ("architectures", "layers", "builder")]
    return files.fingerprint([path.read_text(encoding="utf-8") for path in sources])


def assumed(shape: Shape, classes: int) -> Size:
    """Return the size of `ASSUMED`, scaled from 32 x 32 pixels to those of the images."""
    base, pixels = _shipped()[_as_asked(ASSUMED, (3, 32, 32), 10)], math.prod(shape[-2:]) / 1024
    scaled = {key: round(getattr(base, key) * pixels) for key in ("flops", "elements", "widest")}
    return replace(base, parameters=base.parameters + 65 * (classes - 10), **scaled)


@functools.cache
def _shipped() -> dict[str, Size]:
    """Return the sizes that come with the library."""
    rows = json.loads(SHIPPED.read_text(encoding="utf-8"))
    return {_as_asked(row["model"], row["shape"], row["classes"]): Size(**row["size"]) for row in rows}


def _as_asked(spec: Mapping[str, Any], shape: Sequence[int], classes: int) -> str:
    return json.dumps([validate_spec(spec), list(shape), classes], sort_keys=True)


def known(question: Question, root: str | Path) -> Size | None:
    """Return the size of a network, None of one that has not been measured.

    Parameters
    ----------
    root
        Folder of the experiment's results.
    """
    if question.is_ours:
        found = _shipped().get(_as_asked(question.spec, question.shape, question.classes))
        if found is not None:
            return found
    try:
        return Size(**json.loads(_path(question, root).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _path(question: Question, root: str | Path) -> Path:
    """Return the file of a size: of ours beside Snakemake's own notes, as a dry run makes no results."""
    folder = KEPT if question.is_ours else Path(root) / "state"
    return folder / f"model-size-{question.key}.json"


def _keep(question: Question, size: Size, root: str | Path) -> None:
    with contextlib.suppress(ValleysError):  # a plan may be made where nothing can be written
        files.write_text(_path(question, root), json.dumps(asdict(size)))


def note(
    model: nn.Module, spec: Mapping[str, Any], shape: Shape, classes: int, task: str, root: str | Path
) -> None:
    """Keep the size of a network that a job has built, if it is a factory's and not known yet.

    The network is left as it was, but for what a pass in eval mode changes (`builder.from_factory`
    makes one as well).
    """
    if "factory" not in spec:
        return
    question = Question(spec, shape, classes, factories.version(spec["factory"]), task)  # as the plan asks
    if known(question, root) is None:
        try:
            _keep(question, count(model, shape, task), root)
        except Exception as error:  # it is for plans: no reason to end a job
            log.info("size of the network for plans: unknown (%s)", " ".join(str(error).split()))


def ahead(questions: Sequence[Question], root: str | Path) -> list[Size | None]:
    """Have one other process build these networks and measure them; keep their sizes.

    Returns
    -------
    Their sizes, None of a network that fails there: that is left to its first job. A process that has torch
    already, a notebook or a test, measures ours itself and keeps nothing: there is no import to wait for.
    """
    here = "torch" in sys.modules and all(question.is_ours for question in questions)
    answers = _answers(questions) if here else answers_of_a_process("valleys.costs.sizes", questions)
    found = [Size(**answer) if answer else None for answer in answers]
    found += [None] * (len(questions) - len(found))
    for question, size in zip(questions, found, strict=True):
        if size is not None and not here:
            _keep(question, size, root)
        elif size is None and question.is_ours:
            log.warning("costs: %s cannot be measured; taken for %s", question.spec["arch"], ASSUMED["arch"])
    return found


def answers_of_a_process(module: str, questions: Sequence[Question]) -> list[Any]:
    """Return the lines, one a question, that a module answers as a process, before it ends or is ended."""
    keys = ("shape", "classes", "task")
    asked = [{"spec": dict(q.spec), **{key: getattr(q, key) for key in keys}} for q in questions]
    scripts = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([scripts, os.environ.get("PYTHONPATH", "")])}
    try:
        text = subprocess.run(
            [sys.executable, "-m", module],
            input=json.dumps(asked),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            timeout=TIMEOUT_S + 10 * len(asked),
        ).stdout
    except subprocess.TimeoutExpired as error:
        text = (error.stdout or b"").decode() if not isinstance(error.stdout, str) else error.stdout
    except OSError:
        text = ""
    found: list[Any] = []
    with contextlib.suppress(ValueError):  # the last line may be cut
        found += (json.loads(line) for line in text.splitlines())
    return found


def _answers(questions: Iterable[Question]) -> Iterator[Mapping[str, int] | None]:
    """Yield the numbers of each network's size, None of one that fails."""
    for question in questions:
        try:
            yield asdict(measure(question.spec, question.shape, question.classes, question.task))
        except Exception as error:  # users' code may raise anything
            log.info("%s: %s", question.spec, error)
            yield None


def measure(spec: Mapping[str, Any], shape: Shape, classes: int, task: str = CLASSIFICATION) -> Size:
    """Return the size of the network that a model's config block describes.

    One of ours is built on the meta device, where weights are neither drawn nor held; a user's is built as
    its jobs do, and moved there.

    Raises
    ------
    ValleysError
        As `valleys.models.builder.build`.
    """
    from valleys.models.builder import build

    if "factory" in spec:
        return count(build(spec, in_shape=shape, classes=classes, task=task).to("meta"), shape, task)
    return count(on_meta(spec, shape, classes, task), shape, task)


def on_meta(spec: Mapping[str, Any], shape: Shape, classes: int, task: str = CLASSIFICATION) -> nn.Module:
    """Build one of our networks on the meta device.

    Raises
    ------
    ValleysError
        As `valleys.models.builder.build`.
    """
    import torch

    from valleys.models.builder import build

    with torch.device("meta"):  # first scales change no size, and are drawn on the CPU
        return build({**spec, "norm_init": "ones"}, in_shape=shape, classes=classes, task=task)


def count(model: nn.Module, shape: Shape, task: str = CLASSIFICATION) -> Size:
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
    kind = torch.int64 if task == "tokens" else torch.float32
    images = torch.zeros(2, *shape, device=parameters[0].device, dtype=kind)
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


def answer(how: Callable[[Iterable[Question]], Iterable[Any]]) -> None:
    """Answer the questions on standard input, a line each on standard output: the other side of a process."""
    stdout = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what users' code prints is no answer
    asked = [
        Question(q["spec"], tuple(q["shape"]), q["classes"], task=q["task"]) for q in json.load(sys.stdin)
    ]
    for one in how(asked):
        print(json.dumps(one), file=stdout, flush=True)


if __name__ == "__main__":
    answer(_answers)
