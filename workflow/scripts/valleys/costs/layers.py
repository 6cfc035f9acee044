"""Layers that probes name, looked for in networks of ours before any job; torch is asked in another process.

Run as a module, this is that process. Names that were found are kept beside the sizes of networks. A user's
own network is built by jobs alone, so a layer that it lacks is found there.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path

from valleys.costs import sizes
from valleys.costs.amounts import Amounts
from valleys.costs.sizes import Question
from valleys.errors import ValleysError, did_you_mean
from valleys.storage import files

_PREFIX = "layer:"


def check(amounts: Amounts) -> None:
    """Check that each probe's ``layer:<name>`` is one of each network of ours that it is to probe.

    Raises
    ------
    ValleysError
        For the first that is not.
    """
    experiment = amounts.experiment
    probes = experiment.config["probes"]
    named = sorted(
        {
            (probe, cell.dataset, cell.model)
            for cell in (experiment.all_cells if _any_named(probes.values()) else ())
            for probe in experiment.probes_of(cell)
            if probes[probe]["group"].startswith(_PREFIX) and "factory" not in experiment.models[cell.model]
        }
    )
    asked = {pair: amounts.question(*pair) for pair in sorted({one[1:] for one in named})}
    known = _known(asked.values())
    for probe, dataset, model in named:
        names = known.get(asked[dataset, model].key)
        layer = probes[probe]["group"].removeprefix(_PREFIX)
        if names is None or any(f"{name}.".startswith(f"{layer}.") for name in names):
            continue
        layers = dict.fromkeys(name.rpartition(".")[0] or name for name in names)
        tops = dict.fromkeys(name.partition(".")[0] for name in names)
        raise ValleysError(
            f"config: probes.{probe}.group: {_PREFIX + layer!r}: model {model} has no layer {layer!r}"
            f"{did_you_mean(layer, [*layers, *tops])}; its layers are {', '.join(tops)} and what is in them "
            "(a grid entry may choose which probes apply)"
        )


def _any_named(probes: Iterable[dict[str, str]]) -> bool:
    return any(probe["group"].startswith(_PREFIX) for probe in probes)


def _known(questions: Iterable[Question]) -> dict[str, list[str] | None]:
    """Return the names of each network's parameters by the question's key; None where it cannot be built."""
    found: dict[str, list[str] | None] = {}
    todo: list[Question] = []
    for question in questions:
        try:
            found[question.key] = json.loads(_path(question).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            todo.append(question)
    answers = sizes.answers_of_a_process("valleys.costs.layers", todo) if todo else []
    for question, names in zip(todo, answers, strict=False):  # a process that was ended answers fewer
        found[question.key] = names
        if names is not None:
            with contextlib.suppress(ValleysError):  # a dry run may be made where nothing can be written
                files.write_text(_path(question), json.dumps(names))
    return found


def _path(question: Question) -> Path:
    return sizes.KEPT / f"layers-{question.key}.json"


def _answers(questions: Iterable[Question]) -> Iterator[list[str] | None]:
    """Yield the names of each network's parameters; None of one that its first job will refuse."""
    for one in questions:
        try:
            net = sizes.on_meta(one.spec, one.shape, one.classes, one.task)
            yield [name for name, _ in net.named_parameters()]
        except ValleysError:
            yield None


if __name__ == "__main__":
    sizes.answer(_answers)
