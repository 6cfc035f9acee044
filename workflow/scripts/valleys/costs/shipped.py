"""Writes ``sizes.json``, the sizes of the networks in the shipped configs; nothing else reads a config here.

``python -m valleys.costs.shipped CONFIG...`` (``make sizes``) measures them, so that a dry run of these need
not; and the network that others are taken for until they are measured.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from valleys.costs.jobs import Costs
from valleys.costs.plan import experiment_of
from valleys.costs.sizes import ASSUMED, SHIPPED, Question, measure
from valleys.models.options import validate_spec


def asked(configs: Iterable[str | Path]) -> list[Question]:
    """Return what the file has: the models of these configs, and the guess."""
    found = [Question(validate_spec(ASSUMED), (3, 32, 32), 10)]
    for config in configs:
        costs = Costs(experiment_of(Path(config)))
        found += [costs.question(*pair) for pair in costs.pairs(own=False)]
    return list({question.key: question for question in found}.values())


def row(question: Question) -> Mapping[str, Any]:
    """Return the entry of one network."""
    size = measure(question.spec, question.shape, question.classes)
    return {
        "model": dict(question.spec),
        "shape": list(question.shape),
        "classes": question.classes,
        "size": asdict(size),
    }


if __name__ == "__main__":
    rows = [json.dumps(row(question)) for question in asked(sys.argv[1:])]
    SHIPPED.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")
